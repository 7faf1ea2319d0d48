"""Optimizers: Lion against its algorithm, decay where it belongs, every option steps downhill."""

import pytest
import torch
from torch import nn

from bertlab import registry
from bertlab.assembly import parameter_groups
from bertlab.optimizers import lion


def test_lion_follows_algorithm_2() -> None:
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    config = lion.Lion(lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.5)
    optimizer = lion.build(config, parameter_groups(nn.ParameterList([weight])))
    w, m = weight.detach().clone().double(), torch.zeros(1, 2, dtype=torch.double)
    for gradient in ([[0.3, -0.2]], [[-1.0, 0.1]], [[0.0, 2.0]]):
        g = torch.tensor(gradient, dtype=torch.double)
        weight.grad = g.float()
        optimizer.step()
        w = w - 0.1 * (torch.sign(0.9 * m + 0.1 * g) + 0.5 * w)
        m = 0.99 * m + 0.01 * g
        assert torch.allclose(weight.detach().double(), w, atol=1e-6)


@pytest.mark.parametrize("name", registry.options("optimizer"))
def test_biases_and_norms_do_not_decay_and_matrices_do(name: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    config = registry.load_schema("optimizer", name)
    config.weight_decay = 0.3
    optimizer = registry.module_of(config).build(config, parameter_groups(model))
    decay = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert decay[id(model[0].weight)] == 0.3
    assert {decay[id(weight)] for weight in (model[0].bias, model[1].weight, model[1].bias)} == {0.0}


@pytest.mark.parametrize("name", registry.options("optimizer"))
def test_every_optimizer_goes_downhill_and_resumes_exactly(name: str) -> None:
    def train(
        steps: int, state: dict[str, object] | None = None, weight: torch.Tensor | None = None
    ) -> tuple[nn.Parameter, dict[str, object]]:
        w = nn.Parameter(torch.tensor([[2.0, -3.0], [1.0, 4.0]]) if weight is None else weight.clone())
        config = registry.load_schema("optimizer", name)
        config.lr = 0.02
        optimizer = registry.module_of(config).build(config, parameter_groups(nn.ParameterList([w])))
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
