"""Optimizers: Lion against its algorithm, decay where it belongs, every option steps downhill."""

import copy

import pytest
import torch
from torch import nn

from bertlab.config import registry
from bertlab.config.schema import ModelConfig
from bertlab.contracts import Encoder, Head
from bertlab.optimizers import lion, muon
from bertlab.training.assembly import Model, parameter_groups


class Parts(Encoder):
    """An encoder of these modules, which computes nothing."""

    def __init__(self, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__(ModelConfig(name="parts"))
        for name, part in parts.items():
            setattr(self, name, part)


class Top(Head):
    """A head of one layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(inputs, outputs)


def model_of(**parts: nn.Module | nn.Parameter) -> Model:
    return Model(Parts(**parts), Head())


def test_lion_follows_algorithm_2() -> None:
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    config = lion.Lion(lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.5)
    optimizer = config.build(parameter_groups(model_of(weight=weight)))
    w, m = weight.detach().clone().double(), torch.zeros(1, 2, dtype=torch.double)
    for gradient in ([[0.3, -0.2]], [[-1.0, 0.1]], [[0.0, 2.0]]):
        g = torch.tensor(gradient, dtype=torch.double)
        weight.grad = g.float()
        optimizer.step()
        w = w - 0.1 * (torch.sign(0.9 * m + 0.1 * g) + 0.5 * w)
        m = 0.99 * m + 0.01 * g
        assert torch.allclose(weight.detach().double(), w, atol=1e-6)


def test_muon_follows_its_algorithm() -> None:
    """Nesterov momentum, semi-orthogonal updates of AdamW's size for matrices within; embeddings, heads,
    biases as AdamW does.
    """
    torch.manual_seed(0)
    model = Model(Parts(inner=nn.Linear(12, 5), table=nn.Embedding(7, 12)), Top(5, 2))
    twin = copy.deepcopy(model)
    config = muon.Muon(lr=0.01, weight_decay=0.1)
    optimizer = config.build(parameter_groups(model))
    adam = torch.optim.AdamW(twin.parameters(), lr=0.01, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    adam.param_groups[0]["weight_decay"] = 0.1
    w, m = model.encoder.inner.weight.detach().clone().double(), torch.zeros(5, 12, dtype=torch.double)
    for step in range(3):
        for name, weight in model.named_parameters():
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(step))
            dict(twin.named_parameters())[name].grad = weight.grad.clone() if weight.ndim >= 2 else None
        g = model.encoder.inner.weight.grad.double()
        m = 0.95 * m + 0.05 * g
        x = 0.05 * g + 0.95 * m
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        values = torch.linalg.svdvals(x)
        assert values.min() > 0.4 and values.max() < 1.3
        w = w * (1 - 0.01 * 0.1) - 0.01 * 0.2 * 12**0.5 * x
        optimizer.step()
        adam.step()
    torch.testing.assert_close(model.encoder.inner.weight.double(), w, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.encoder.table.weight, twin.encoder.table.weight)
    torch.testing.assert_close(model.head.classifier.weight, twin.head.classifier.weight)


@pytest.mark.parametrize("name", registry.options("optimizer"))
def test_biases_and_norms_do_not_decay_and_matrices_do(name: str) -> None:
    linear, norm = nn.Linear(3, 3), nn.LayerNorm(3)
    config = registry.load_schema("optimizer", name)
    config.weight_decay = 0.3
    optimizer = config.build(parameter_groups(model_of(linear=linear, norm=norm)))
    decay = {
        id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]
    }
    assert decay[id(linear.weight)] == 0.3
    assert {decay[id(weight)] for weight in (linear.bias, norm.weight, norm.bias)} == {0.0}


@pytest.mark.parametrize("name", registry.options("optimizer"))
def test_every_optimizer_goes_downhill_and_resumes_exactly(name: str) -> None:
    def train(
        steps: int, state: dict[str, object] | None = None, weight: torch.Tensor | None = None
    ) -> tuple[nn.Parameter, dict[str, object]]:
        w = nn.Parameter(torch.tensor([[2.0, -3.0], [1.0, 4.0]]) if weight is None else weight.clone())
        config = registry.load_schema("optimizer", name)
        config.lr = 0.02
        optimizer = config.build(parameter_groups(model_of(weight=w)))
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            optimizer.zero_grad()
            (w**2).sum().backward()
            optimizer.step()
        return w, optimizer.state_dict()

    whole, _ = train(20)
    assert float((whole.detach() ** 2).sum()) < 30 * 0.95
    half, state = train(8)
    again, _ = train(12, state, half.detach())
    assert torch.equal(whole, again)
