"""Memory of a pass, counted on tensors without content: as torch would make them, and by closed forms."""

from typing import Any

import pytest
import torch
from pretraining import vocabulary
from torch import Tensor, nn

from bertlab.config.schema import ObjectiveConfig
from bertlab.contracts import Batch, Loss
from bertlab.models.bert import Bert, build
from bertlab.objectives.mlm import Mlm
from bertlab.training.assembly import Model
from bertlab.training.costs.flops import count_forward
from bertlab.training.costs.held import Held, Pass, count_pass

WIDTH, LAYERS = 32, 2


def test_what_lives_at_once_is_counted_and_what_is_known_is_not() -> None:
    known = torch.empty(1000, device="meta")
    with Held([known]) as held:
        one = known * 2  # 4 kB
        two = one + known  # 8 kB
        del one
        three = two.view(10, 100).t()  # no storage of its own
        assert (held.now, held.most) == (4000, 8000)
        del two
        assert held.now == 4000, "a view keeps its storage"
        del three
        known.add_(1)
        assert (held.now, held.most) == (0, 8000)


class Stack(nn.Module):
    """Linear layers and the sum of what comes out, in the place of a model and its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))

    def forward(self, batch: Batch, _encode: Any = None) -> Tensor:
        ids: Tensor = batch.input_ids
        out: Tensor = self.layers(ids.float())
        return out


class Summed:
    """The loss."""

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        return Loss(outputs.sum(), batch.num_examples)


def test_a_stack_of_products_holds_its_inputs() -> None:
    """Float32, M rows of width D: at the end of the forward pass the inputs of each product, the last output
    and its sum; backward adds less than it frees.
    """
    rows = 500
    ids = torch.zeros(rows, WIDTH, dtype=torch.int64)
    batch = Batch(ids, ids, None, {}, ids.numel(), rows)
    counted: Any = count_pass(Stack(), Summed(), batch, "cpu", "float32")  # type: ignore[arg-type]  # stand-ins
    # after the last product: the casted ids, each layer's output; the sum is one number
    each = 4 * rows * WIDTH
    assert counted.bytes == pytest.approx((1 + LAYERS) * each, abs=2 * 4 * WIDTH**2 + 64)
    assert counted.forward_flops == LAYERS * 2 * rows * WIDTH**2


def objective_of(config: ObjectiveConfig) -> Any:
    return config.build(vocabulary(), [])


def counted(
    rows: int,
    length: int = 16,
    words: int = 60,
    kind: str = "cuda",
    precision: str = "bfloat16",
    **options: Any,
) -> Pass:
    """A pass of masked-language modelling, a quarter of the tokens hidden."""
    objective = objective_of(Mlm(name="mlm"))
    encoder = build(
        Bert(hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, **options), words
    )
    model = Model(encoder, objective.build_head(encoder, 0.02))
    ids = torch.zeros(rows, length, dtype=torch.int64)
    masked = torch.arange(0, rows * length, 4)
    batch = Batch(ids, ids, None, {"masked": masked, "label": masked * 0}, ids.numel(), rows)
    found = count_pass(model, objective, batch, kind, precision)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_it_grows_by_the_example(kind: str) -> None:
    """What two sizes say of a third is so."""
    few, some, many = (counted(rows, kind=kind).bytes for rows in (64, 128, 256))
    assert many - some == pytest.approx(2 * (some - few), rel=0.01) and few > 0


def test_half_as_many_bytes_in_bfloat16_at_best() -> None:
    exact, narrow = (counted(128, precision=precision).bytes for precision in ("float32", "bfloat16"))
    assert exact / 2 < narrow < exact


def test_fused_attention_keeps_no_square_of_the_length() -> None:
    """Twice the length takes twice the bytes; plain products keep T squared for each head, and dropout its
    mask.
    """
    fused = [counted(8, length).bytes for length in (128, 256)]
    plain = [counted(8, length, attention="eager").bytes for length in (128, 256)]
    assert fused[1] == pytest.approx(2 * fused[0], rel=0.05)
    square = LAYERS * 2 * 8 * (256**2 - 128**2)  # layers, heads, rows
    growth = (plain[1] - 2 * plain[0] + plain[0]) - (fused[1] - fused[0])
    assert growth > 7 * square, "float32 softmax, bfloat16 copies, a mask"


def test_logits_are_held_at_every_masked_token() -> None:
    """On a GPU in float32, with their logarithms and gradients; on a CPU the loss sends few at a time."""
    hidden, more = 64 * 16 // 4, 100_000
    growth = {
        kind: counted(64, words=60 + more, kind=kind).bytes - counted(64, kind=kind).bytes
        for kind in ("cuda", "cpu")
    }
    # beside them: the embedding's copy in bfloat16 and its gradient before it is added
    weights = more * WIDTH * (2 + 4)
    assert 8 * hidden * more < growth["cuda"] < 16 * hidden * more + 2 * weights
    assert growth["cpu"] < growth["cuda"] / 2


def test_operations_are_those_of_a_real_forward_pass() -> None:
    objective = objective_of(Mlm(name="mlm"))
    encoder = build(Bert(hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2), 60)
    model = Model(encoder, objective.build_head(encoder, 0.02))
    ids = torch.full((4, 16), 7, dtype=torch.int64)
    masked = torch.arange(0, 64, 4)
    batch = Batch(ids, ids * 0, None, {"masked": masked, "label": masked * 0}, 64, 4)
    found = count_pass(model, objective, batch, "cuda", "bfloat16")
    assert found is not None and found.forward_flops == count_forward(lambda: model.eval()(batch))


def test_what_depends_on_values_cannot_be_counted() -> None:
    class Looks(Stack):
        def forward(self, batch: Batch, _encode: Any = None) -> Tensor:
            return super().forward(batch) * float(batch.input_ids.sum())

    ids = torch.zeros(4, WIDTH, dtype=torch.int64)
    batch = Batch(ids, ids, None, {}, ids.numel(), 4)
    assert count_pass(Looks(), Summed(), batch, "cuda", "float32") is None  # type: ignore[arg-type]  # stand-ins
