"""Counted operations are those of the formula."""

import pytest
import torch

from bertlab.models.bert import Bert, build
from bertlab.training.costs.flops import count_forward, product_rate


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_encoders_operations_are_its_formula(attention: str) -> None:
    """2 for each weight of a product and token, 4 T D a token and layer for attention (Kaplan et al. 2020,
    §2.1; both directions seen).
    """
    width, layers, length, rows = 32, 3, 24, 5
    encoder = build(
        Bert(hidden_size=width, num_attention_heads=4, num_hidden_layers=layers, attention=attention), 50
    ).eval()
    ids = torch.ones(rows, length, dtype=torch.int64)
    weights = layers * (4 * width**2 + 2 * width * 4 * width)
    assert count_forward(lambda: encoder(ids)) == rows * length * (2 * weights + layers * 4 * length * width)


def test_a_machines_rate_is_plausible() -> None:
    assert 1e8 < product_rate(torch.device("cpu"), torch.float32, size=256, seconds=0.01) < 1e15
