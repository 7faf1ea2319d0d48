"""Small encoders, drawn or made, with weights that show a wrong term, and batches for them; shared by the
tests of parity.

Legend: B batch, T tokens, V vocabulary.
"""

from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bertlab.config.schema import validate
from bertlab.models.bert import Bert, BertEncoder, build

# Derandomised: the same cases every time, so that a failure is the code's and can be repeated.
PROPERTY = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def random_weights(model: nn.Module, seed: int = 0) -> None:
    """Weights large enough that a wrong term would show, unlike fresh ones with their zero biases and unit
    norms.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm.weight" in name.lower() else 0.0, 0.1, generator=generator)


def random_batch(
    config: Bert, vocab: int, lengths: list[int], pad_id: int = 0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """`input_ids`, `segment_ids` `(B, T) int64` and `attention_mask (B, T) bool`, padded to the longest of
    `lengths`.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    ids = torch.randint(vocab, shape, generator=generator).masked_fill(~mask, pad_id)
    return ids, torch.randint(config.type_vocab_size, shape, generator=generator), mask


def encoder_of(vocab: int = 40, **options: Any) -> BertEncoder:
    small: dict[str, Any] = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": 24,
    }
    config = Bert(**{**small, **options})
    validate(config, "model")
    encoder = build(config, vocab)
    random_weights(encoder)
    return encoder.eval()


Case = tuple[Bert, int, int, list[int], int]  # config, V, padding id, lengths, seed


@st.composite
def cases(draw: st.DrawFn) -> Case:
    heads = draw(st.sampled_from([1, 2, 4]))
    # A width of 1 or 2 makes layer norm a step function, where rounding alone decides: hence at least 4.
    config = Bert(
        hidden_size=heads * draw(st.integers(4 // heads, 12)), num_attention_heads=heads,
        num_hidden_layers=draw(st.integers(1, 3)),
        intermediate_size=draw(st.sampled_from([None, 1, 7, 32])),
        max_position_embeddings=draw(st.integers(12, 20)),
        type_vocab_size=draw(st.integers(1, 3)), norm_eps=draw(st.sampled_from([1e-12, 1e-5])),
        activation=draw(st.sampled_from(["gelu", "gelu_tanh", "relu", "relu2"])),
        attention=draw(st.sampled_from(["sdpa", "eager"])),
    )  # fmt: skip
    vocab, lengths = draw(st.integers(5, 40)), draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    return config, vocab, draw(st.integers(0, vocab - 1)), lengths, draw(st.integers(0, 2**16))
