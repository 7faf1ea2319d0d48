"""A number for a text or a pair of texts (GLUE's STS-B; Devlin et al. 2019, §4.1): mean squared error of
standardised targets.

The training split's mean and deviation are buffers of the head: a finished run has them in its weights, and
whatever the file's unit is, the linear layer learns numbers around 0 and 1. Scores and predictions are in the
file's own unit.

Legend: B batch, N examples of a split.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertlab.config.schema import number
from bertlab.contracts import (
    TEXT,
    TEXT_PAIR,
    Batch,
    Encoder,
    Examples,
    HfHead,
    Loss,
    Metric,
    Role,
    Vocabulary,
    loss_metric,
    shortened,
)
from bertlab.errors import DataError
from bertlab.objectives._texts import PooledHead, TextObjective, Texts

OWN_UNIT = "of the data's unit"


@dataclass
class Regression(Texts):
    """`[CLS] text [SEP]` or `[CLS] text [SEP] text_pair [SEP]` to the number of `dataset.number_column`."""

    head_dropout: float = number(0.1, "dropout between pooled output and linear layer", low=0, below=1)

    roles: ClassVar = (TEXT, TEXT_PAIR, Role("number", "number", is_answer=True))
    loss_unit: ClassVar = "squared error in training deviations"

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        """See `RegressionObjective.scores`."""
        return (
            Metric("pearson", higher_is_better=True, unit="correlation", bounds=(-1.0, 1.0)),
            Metric("spearman", higher_is_better=True, unit="correlation", bounds=(-1.0, 1.0)),
            Metric("rmse", higher_is_better=False, unit=OWN_UNIT, bounds=(0.0, None)),
            Metric("mae", higher_is_better=False, unit=OWN_UNIT, bounds=(0.0, None)),
            loss_metric(self.loss_unit),
        )

    def build(self, vocabulary: Vocabulary, _label_names: Sequence[str]) -> "RegressionObjective":
        """The objective for one tokenizer's vocabulary."""
        return RegressionObjective(self, vocabulary)

    def score_of(
        self, metric: str, rows: Any, predictions: Sequence[Mapping[str, Any]], _label_names: Sequence[str], /
    ) -> Callable[[np.ndarray], float] | None:
        """Of what was said and what is right for those rows: all that it scores but the loss."""
        said, right = (
            np.array([row["number"] for row in predictions]),
            np.asarray(rows["number"][:], dtype=np.float64),
        )
        scores: dict[str, Callable[[np.ndarray], float]] = {
            "pearson": lambda numbers: pearson(said[numbers], right[numbers]),
            "spearman": lambda numbers: pearson(ranks(said[numbers]), ranks(right[numbers])),
            "rmse": lambda numbers: float(np.sqrt(np.mean((said[numbers] - right[numbers]) ** 2))),
            "mae": lambda numbers: float(np.abs(said[numbers] - right[numbers]).mean()),
        }
        return scores.get(metric)

    def hf_head(self) -> HfHead:
        """A linear layer on the pooled output that computes in the data's unit."""
        config = {
            "classifier_dropout": self.head_dropout, "problem_type": "regression", "id2label": {0: "number"},
            "label2id": {"number": 0},
        }  # fmt: skip
        return HfHead("SequenceClassification", {"classifier": "classifier"}, config=config)


class Standardised(NamedTuple):
    """What the head says, and what it takes to read it."""

    said: Tensor  # (B,) float32, in deviations from the mean
    mean: Tensor  # () of the training split, in the data's unit
    scale: Tensor  # () its deviation


class RegressionHead(PooledHead):
    """Pooled output to one number, in training deviations from the training mean."""

    mean: Tensor
    scale: Tensor

    def __init__(
        self, hidden_size: int, dropout: float, initializer_range: float, mean: float, scale: float
    ) -> None:
        super().__init__(hidden_size, 1, dropout, initializer_range)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> Standardised:
        """See `Standardised`."""
        return Standardised(super().forward(encoder, hidden, batch)[:, 0], self.mean, self.scale)

    def exported_state(self) -> dict[str, Tensor]:
        """Mean and scale folded into the linear layer, which then says numbers of the data's unit."""
        layer = self.classifier
        return {
            "classifier.weight": layer.weight * self.scale,
            "classifier.bias": layer.bias * self.scale + self.mean,
        }

    def exported_outputs(self, outputs: Standardised, _batch: Batch) -> tuple[Tensor, ...]:
        """(B, 1) in the data's unit."""
        return ((outputs.said * outputs.scale + outputs.mean)[:, None],)


class RegressionObjective(TextObjective):
    """See contracts.Objective."""

    target = "number"

    def __init__(self, config: Regression, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.config = config
        self.mean, self.scale = 0.0, 1.0  # of the training split, once `fit_to` has seen it

    def answers(self, piece: dict[str, Any], count: int) -> np.ndarray:
        """The number (N,), in the file's unit; 0 where the rows have none."""
        return np.asarray(piece["number"] if "number" in piece else np.zeros(count), dtype=np.float64)

    def fit_to(self, train: Examples) -> None:
        """Mean and deviation. Raises DataError where all numbers are the same."""
        numbers = np.asarray(train.columns["number"], dtype=np.float64)
        self.mean, self.scale = float(numbers.mean()), float(numbers.std())
        if numbers.min() == numbers.max():
            raise DataError(
                f"objective=regression: all {len(numbers)} numbers of the training split are {self.mean:g},"
                " there is nothing to learn; see dataset.number_column"
            )
        if self.scale < 1e-5 * abs(self.mean):  # float32 would hardly tell them apart
            raise DataError(
                f"objective=regression: the training split's numbers ({self.mean:g} ± {self.scale:.2g})"
                " differ too little for their size; subtract a constant from them"
            )

    def build_head(self, encoder: Encoder, initializer_range: float) -> RegressionHead:
        """Dropout, a linear layer, and the training split's mean and deviation."""
        return RegressionHead(
            encoder.hidden_size, self.config.head_dropout, initializer_range, self.mean, self.scale
        )

    def loss(self, outputs: Standardised, batch: Batch) -> Loss:
        """Squared error of standardised numbers, summed over examples; float32."""
        wanted = (batch.targets["number"] - outputs.mean) / outputs.scale
        return Loss(((outputs.said.float() - wanted) ** 2).sum(), batch.num_examples)

    def measure(self, outputs: Standardised, batch: Batch) -> dict[str, np.ndarray]:
        """What is said and what is right (B,), in the data's unit, and the scale that the loss divides by;
        float64.
        """
        said, mean, scale, right = (
            value.float().cpu().numpy().astype(np.float64) for value in (*outputs, batch.targets["number"])
        )
        return {"said": said * scale + mean, "number": right, "scale": np.full(len(right), scale)}

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Loss, rmse and mae, Pearson's and Spearman's correlation (0 where one side does not vary, for then
        there is none).
        """
        said, right = measured["said"], measured["number"]
        error = said - right
        return {
            "loss": float(np.mean((error / measured["scale"]) ** 2)),
            "rmse": float(np.sqrt(np.mean(error**2))),
            "mae": float(np.abs(error).mean()),
            "pearson": pearson(said, right),
            "spearman": pearson(ranks(said), ranks(right)),
        }

    def blind_scores(self, train: Any, rows: Any) -> dict[str, float]:
        """Of who always says the training split's mean."""
        known, right = (np.asarray(split["number"][:], dtype=np.float64) for split in (train, rows))
        constant = {"said": np.full(len(right), known.mean()), "scale": np.full(len(right), known.std())}
        return self.scores({**constant, "number": right})

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """The number, in the unit of the training data."""
        return [{"number": float(value)} for value in measured["said"]]

    def describe(self, row: dict[str, Any], prediction: dict[str, Any]) -> str:
        """`number  text`."""
        return (
            f"{prediction['number']:<12.4f} "
            f" {shortened(' | '.join(row[name] for name in ('text', 'text_pair') if name in row))}"
        )


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two series (N,); 0 where one of them is constant."""
    a, b = first - first.mean(), second - second.mean()
    spread = float(np.linalg.norm(a) * np.linalg.norm(b))
    is_constant = min(np.ptp(first), np.ptp(second)) == 0
    return 0.0 if is_constant or spread == 0 else float(np.clip(a @ b / spread, -1.0, 1.0))


def ranks(values: np.ndarray) -> np.ndarray:
    """(N,) float64: places in ascending order, from 1; equal values share the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: np.ndarray = last - (counts - 1) / 2
    return means[group]
