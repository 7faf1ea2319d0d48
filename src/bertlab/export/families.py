"""Encoders of ours as architectures of transformers: BERT (Devlin et al. 2019), and ELECTRA (Clark et al.
2020), which is BERT with embeddings of a width of their own and without a pooler.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bertlab.config.schema import ModelConfig
from bertlab.models.bert import Bert

OURS, THEIRS = "embedding_projection.", "embeddings_project."


@dataclass(frozen=True)
class Family:
    """One architecture there."""

    name: str  # what its classes begin with
    prefix: str  # of the encoder's weights, where a head stands beside it
    # `model.key=value` of each option that it lacks
    unlike: Callable[[ModelConfig], list[str]]
    # entries of its config.json, of (our config, rows of a vocabulary, id of padding)
    config: Callable[[ModelConfig, int, int], dict[str, Any]]
    # weights under its names, of (our config, ours, what each name begins with)
    state: Callable[[ModelConfig, Mapping[str, Tensor], str], dict[str, Tensor]]


def _as_bert(model: ModelConfig) -> ModelConfig:
    """With embeddings as wide as states."""
    return dataclasses.replace(model, embedding_size=None) if isinstance(model, Bert) else model


def electra_config(model: ModelConfig, vocab_size: int, pad_id: int) -> dict[str, Any]:
    """ElectraConfig's. Raises ConfigError naming what it lacks."""
    described = _as_bert(model).transformers_config(vocab_size, pad_id)
    narrow = model.embedding_size if isinstance(model, Bert) else None
    return {**described, "model_type": "electra", "embedding_size": narrow or described["hidden_size"]}


def electra_state(model: ModelConfig, state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """ElectraModel's, and the pooler that a BERT has. Raises ConfigError naming what it lacks."""
    projection = {name: value for name, value in state.items() if name.startswith(OURS)}
    others = {name: value for name, value in state.items() if name not in projection}
    return {
        **_as_bert(model).transformers_state(others, prefix),
        **{f"{prefix}{THEIRS}{name.removeprefix(OURS)}": value for name, value in projection.items()},
    }


FAMILIES = {
    "bert": Family(
        "Bert",
        "bert.",
        lambda model: model.unlike_transformers(),
        lambda model, vocab_size, pad_id: model.transformers_config(vocab_size, pad_id),
        lambda model, state, prefix: model.transformers_state(state, prefix),
    ),
    "electra": Family(
        "Electra",
        "electra.",
        lambda model: _as_bert(model).unlike_transformers(),
        electra_config,
        electra_state,
    ),
}
