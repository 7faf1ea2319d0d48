"""What of a model is a group of its own where processes keep parts of it; real processes are in
tests/integration/test_sharding.py.
"""

import pytest
from torch import nn

from bertlab.contracts import Encoder
from bertlab.models.bert import Bert
from bertlab.training.several.sharding import layers_of


class Wrapped(Encoder):
    """Levels of one layer that a list alone holds, and of two that share a weight."""

    def __init__(self, shares: bool) -> None:
        super().__init__(Bert())
        self.embedding, self.layers = nn.Embedding(5, 4), nn.ModuleList([nn.Linear(4, 4)])
        if shares:
            self.layers.append(nn.Linear(4, 4))
            self.layers[1].weight = self.layers[0].weight

    def levels(self) -> list[list[nn.Parameter]]:
        return [list(self.embedding.parameters()), *(list(layer.parameters()) for layer in self.layers), []]


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"value_embeddings": 0, "norm_placement": "pre"}], ids=["post", "pre"]
)
def test_each_layer_is_a_group(layers: int, options: dict[str, str]) -> None:
    encoder = Bert(hidden_size=8, num_attention_heads=2, num_hidden_layers=layers, **options).build(11)
    assert layers_of(encoder) == list(encoder.layers)


def test_a_group_is_what_is_called_and_shares_no_weight() -> None:
    alone = Wrapped(shares=False)
    assert layers_of(alone) == [alone.layers[0]], "not the list around it"
    assert layers_of(Wrapped(shares=True)) == []
