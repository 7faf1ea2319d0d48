"""Any number of classes for a text or a pair of texts: a yes or no for each class, binary cross-entropy.

Legend: B batch, C classes, N examples of a split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from bertlab.config.schema import number
from bertlab.contracts import (
    TEXT,
    TEXT_PAIR,
    Batch,
    Encoder,
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

F1_OF = "f1_of_"  # before a class's name; f1_micro and f1_macro are over all classes


@dataclass
class MultiLabel(Texts):
    """`[CLS] text [SEP]` or `[CLS] text [SEP] text_pair [SEP]` to the sets of `dataset.labels_column`."""

    head_dropout: float = number(0.1, "dropout between pooled output and linear layer", low=0, below=1)
    threshold: float = number(
        0.5, "a class is predicted where its probability is at least this", above=0, below=1
    )

    roles: ClassVar = (TEXT, TEXT_PAIR, Role("labels", "labels", is_answer=True))
    loss_unit: ClassVar = "nats per class and example"

    def metrics(self, label_names: Sequence[str]) -> tuple[Metric, ...]:
        """See `MultiLabelObjective.scores`."""
        names = ("f1_micro", "f1_macro", "exact", *(F1_OF + name for name in label_names))
        return (*(Metric(name, higher_is_better=True) for name in names), loss_metric(self.loss_unit))

    def primary_metric(self, label_names: Sequence[str] = ()) -> Metric:
        """Before the classes are known, the F1 of any may be it."""
        if not label_names and self.primary is not None and self.primary.startswith(F1_OF):
            return Metric(self.primary, higher_is_better=True)
        return super().primary_metric(label_names)

    def build(self, vocabulary: Vocabulary, label_names: Sequence[str]) -> "MultiLabelObjective":
        """The objective for one tokenizer's vocabulary and one dataset's classes."""
        return MultiLabelObjective(self, vocabulary, label_names)

    def hf_head(self) -> HfHead:
        """A linear layer on the pooled output, read class by class."""
        config = {"classifier_dropout": self.head_dropout, "problem_type": "multi_label_classification"}
        return HfHead(
            "SequenceClassification", {"classifier": "classifier"}, names_classes=True, config=config
        )


class MultiLabelObjective(TextObjective):
    """See contracts.Objective."""

    target = "labels"

    def __init__(self, config: MultiLabel, vocabulary: Vocabulary, label_names: Sequence[str]) -> None:
        if not label_names:
            raise DataError(
                "objective=multi_label: no row of the training split has a class; see dataset.labels_column"
            )
        super().__init__(config, vocabulary, label_names)
        self.config = config

    def answers(self, piece: dict[str, Any], count: int) -> np.ndarray:
        """(N, C) float32: 1 where the row has the class."""
        member = np.zeros((count, len(self.label_names)), dtype=np.float32)
        for row, classes in enumerate(piece.get("labels", ())):
            member[row, classes] = 1
        return member

    def build_head(self, encoder: Encoder, initializer_range: float) -> PooledHead:
        """Dropout and a linear layer."""
        return PooledHead(
            encoder.hidden_size, len(self.label_names), self.config.head_dropout, initializer_range
        )

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Binary cross-entropy in nats, summed over examples and classes; float32."""
        total = F.binary_cross_entropy_with_logits(outputs.float(), batch.targets["labels"], reduction="sum")
        return Loss(total, batch.num_examples * len(self.label_names))

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, np.ndarray]:
        """Logits and answers, (B, C)."""
        return {"logits": outputs.float().cpu().numpy(), "labels": batch.targets["labels"].cpu().numpy()}

    def _probabilities(self, measured: dict[str, np.ndarray]) -> np.ndarray:
        logits = measured["logits"].astype(np.float64)
        return np.exp(-np.logaddexp(0, -logits))

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Loss, F1 of all decisions together (micro), of each class and their mean (macro), share of rows
        whose whole set is right (exact).

        An F1 without true and without predicted members is 0, as in scikit-learn.
        """
        right, said = measured["labels"] > 0.5, self._probabilities(measured) >= self.config.threshold
        logits = measured["logits"].astype(np.float64)
        hits, given, taken = (right & said).sum(0), right.sum(0), said.sum(0)  # (C,) each
        each = 2 * hits / np.maximum(1, given + taken)
        return {
            "loss": float((np.logaddexp(0, logits) - right * logits).mean()),
            "f1_micro": float(2 * hits.sum() / max(1, given.sum() + taken.sum())),
            "f1_macro": float(each.mean()),
            "exact": float((right == said).all(1).mean()),
            **{F1_OF + name: float(value) for name, value in zip(self.label_names, each, strict=True)},
        }

    def blind_scores(self, train: Any, rows: Any) -> dict[str, float]:
        """For each score the best that one can say without reading: for micro F1 the commonest classes, as
        many as do best in training; for the F1 of classes every class; for exact the commonest set.
        """
        known, right = (
            self.answers({"labels": split["labels"][:]}, len(split)) > 0.5 for split in (train, rows)
        )
        share = known.mean(0)  # (C,)
        order = np.argsort(-share, kind="stable")
        count = np.arange(1, len(order) + 1)
        best = int((2 * share[order].cumsum() / (share.sum() + count)).argmax()) + 1
        sets, times = np.unique(known, axis=0, return_counts=True)
        commonest = np.isin(np.arange(len(order)), order[:best])
        scores: dict[str, float] = {}
        for said, names in (
            (np.ones_like(commonest), None),
            (commonest, ("f1_micro",)),
            (sets[times.argmax()], ("exact",)),
        ):
            logits = np.tile(np.where(said, np.inf, -np.inf), (len(right), 1))
            with np.errstate(invalid="ignore"):
                found = self.scores({"logits": logits, "labels": right.astype(np.float32)})
            scores |= {name: found[name] for name in names or found if name != "loss"}
        return scores

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """The classes at or above the threshold, and the probability of every class."""
        return [
            {
                "labels": [
                    name for name, p in zip(self.label_names, row, strict=True) if p >= self.config.threshold
                ],
                "probabilities": dict(zip(self.label_names, map(float, row), strict=True)),
            }
            for row in self._probabilities(measured)
        ]

    def describe(self, row: dict[str, Any], prediction: dict[str, Any]) -> str:
        """`classes with their probabilities  text`."""
        chosen = (
            ", ".join(f"{name} {prediction['probabilities'][name]:.2f}" for name in prediction["labels"])
            or "none"
        )
        return (
            f"{chosen:<24} "
            f" {shortened(' | '.join(row[name] for name in ('text', 'text_pair') if name in row))}"
        )
