"""A vector of each text: the encoder's pooled output at length 1, by which `objective=embedding` trains and
scores.

A run of any objective is made one that predicts vectors, so that it is fed, batched, printed and written as
every other: same encoder, same length of texts, and where the run's objective cuts them on a side of its
own, the same side.

Legend: B texts of a batch, T tokens, D width.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bertlab.config.schema import Train
from bertlab.contracts import (
    TEXT,
    Batch,
    Draw,
    Encode,
    Encoder,
    Examples,
    Head,
    Loss,
    Metric,
    Objective,
    Role,
    Vocabulary,
    examples_of,
    pad_rows,
    shortened,
)
from bertlab.errors import ConfigError
from bertlab.export.tokenizer_files import truncation_of
from bertlab.objectives._texts import Texts, join_texts
from bertlab.objectives.embedding import VectorHead
from bertlab.training.assembly import Model
from bertlab.training.finished import FinishedRun

PIECE = 10_000  # texts tokenised at a time
SHOWN = 4  # numbers of a vector that a person is shown
CUTS = ("head", "tail", "head_tail")  # ways to cut a text that leave one part


@dataclass
class Vectors(Texts):
    """`[CLS] text [SEP]`, a vector each; nothing that could be trained or scored."""

    roles: ClassVar[tuple[Role, ...]] = (TEXT,)

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        """None."""
        return ()

    def build(self, vocabulary: Vocabulary, _label_names: Sequence[str]) -> "TextVectors":
        """For one tokenizer's vocabulary."""
        return TextVectors(self, vocabulary)


class TextVectors(Objective):
    """See contracts.Objective; it is asked for predictions alone."""

    def __init__(self, config: Vectors, vocabulary: Vocabulary) -> None:
        self.config, self.vocabulary, self.special = config, vocabulary, vocabulary.special
        self.label_names, self.metrics = [], ()

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """A row a text, cut to `max_length`."""
        config = self.config
        for start in range(0, len(split), PIECE):
            texts = encode(split[start : start + PIECE]["text"])
            yield examples_of(
                [
                    join_texts(ids, None, config.max_length, self.special, config.truncation)[0]
                    for ids in texts
                ]
            )

    def collate(self, examples: Examples, rows: np.ndarray, _draw: Draw | None) -> Batch:
        """Padded on the right to the longest."""
        ids, inside = pad_rows([examples[row] for row in rows], self.special.pad_id)
        tensor = torch.from_numpy(ids)
        mask = None if inside.all() else torch.from_numpy(inside)
        return Batch(tensor, torch.zeros_like(tensor), mask, {}, int(inside.sum()), len(rows))

    def build_head(self, _encoder: Encoder, _initializer_range: float) -> Head:
        """The pooled output as it is."""
        return VectorHead()

    def loss(self, outputs: Any, batch: Batch) -> Loss:
        """None: nothing is trained."""
        raise NotImplementedError("vectors are computed, not trained")

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """None."""
        return {}

    def measure(self, outputs: Tensor, _batch: Batch) -> dict[str, np.ndarray]:
        """`vector (B, D) float32`, of length 1."""
        return {"vector": F.normalize(outputs.float(), dim=1).cpu().numpy()}

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """`{"vector": (D,) float32}` of each text."""
        return [{"vector": vector} for vector in measured["vector"]]

    def describe(self, row: dict[str, Any], prediction: dict[str, Any]) -> str:
        """`first numbers … (how many)  text`."""
        vector = prediction["vector"]
        first = " ".join(f"{value:.4f}" for value in vector[:SHOWN])
        return f"{first} … ({len(vector)} numbers)  {shortened(row['text'])}"


def vectors_of(trained: FinishedRun) -> FinishedRun:
    """The run as one that predicts vectors. Raises ConfigError where it has none that mean something."""
    refuse_untrained(trained.config)
    objective = trained.config.objective
    if (truncation := truncation_of(objective)) not in CUTS:
        raise ConfigError(
            f"vectors=true: the run's objective.truncation={truncation} reads a text in several parts, which"
            " have no one vector; a run with truncation=head has"
        )
    config = Vectors(name="vectors", max_length=objective.max_length, truncation=truncation)
    own = config.build(trained.objective.vocabulary, ())
    encoder = trained.model.encoder
    return dataclasses.replace(
        trained,
        config=dataclasses.replace(trained.config, objective=config),
        objective=own,
        model=Model(encoder, own.build_head(encoder, 0.0)).eval(),
    )


def refuse_untrained(config: Train) -> None:
    """What `pooling=cls` pools stands for a text where a head has learnt by it alone; the mean and the maximum
    are of states that every objective trains. Raises ConfigError.
    """
    head = config.objective.hf_head()
    if config.model.pooling == "cls" and (head is None or not head.reads_pooler):
        raise ConfigError(
            f"vectors=true: objective={config.objective.name} is not known to train what model.pooling=cls"
            " pools; a run with model.pooling=mean has vectors, and so has one that is fine-tuned from it"
        )
