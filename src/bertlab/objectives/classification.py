"""Classification of one or two texts into two or more classes (Devlin et al. 2019, §4.1): a linear layer on
the pooled output.

With `truncation=windows` a text that is too long becomes several examples of one row, which all have its
class. Training counts windows: epochs, batches, class weights and train/loss are of these. Evaluation and
prediction take, of a row, the mean of its windows' log-probabilities: scores, loss included, and predictions
are of rows.

Legend: B batch, T tokens, C classes, N examples of a split.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bertlab.config.schema import DatasetConfig, ObjectiveConfig, choice, integer, number, string
from bertlab.contracts import (
    TEXT,
    TEXT_PAIR,
    Batch,
    Draw,
    Encode,
    Encoder,
    Examples,
    HfHead,
    Loss,
    Metric,
    Role,
    Vocabulary,
    examples_of,
    loss_metric,
    shortened,
)
from bertlab.errors import ConfigError, did_you_mean
from bertlab.objectives._texts import PIECE, PooledHead, TextObjective, Texts
from bertlab.objectives._windows import mean_by_row, windows_of

BALANCED, WINDOWS = "balanced", "windows"


@dataclass
class Classification(Texts):
    """`[CLS] text [SEP]` or `[CLS] text [SEP] text_pair [SEP]`, cross-entropy over classes."""

    roles: ClassVar = (TEXT, TEXT_PAIR, Role("label", "label", is_answer=True))
    prepared_by: ClassVar = (*Texts.prepared_by, "stride")
    tells_classes_of: ClassVar = "label"

    truncation: str = choice(
        "head",
        "head",
        "tail",
        "head_tail",
        WINDOWS,
        help=(
            "what is read of a text that is too long: its beginning, its end, a quarter of the room from its"
            " beginning and the rest from its end (Sun et al. 2019, §5.3.1: 128 and 382 of 510), or all of it"
            " in windows, of which each is an example in training and whose log-probabilities are averaged to"
            " one prediction a row"
        ),
    )
    stride: int | None = integer(
        None,
        "tokens from one window's beginning to the next one's, with truncation=windows; null = half a window",
        low=1,
    )
    label_smoothing: float = number(
        0.0, "share of the target spread over all classes (Szegedy et al. 2016)", low=0, below=1
    )
    head_dropout: float = number(0.1, "dropout between pooled output and classifier", low=0, below=1)
    token_dropout: float = number(
        0.0,
        "share of training tokens replaced by the unknown token, drawn afresh each epoch (Iyyer et al. 2015,"
        " word dropout)",
        low=0,
        below=1,
    )
    positive_class: str | None = string(
        None, "the class that `f1` is of, e.g. of a rare finding; null = the dataset's, if it names one"
    )
    class_weights: Any = field(
        default=None,
        metadata={
            "help": (
                "how much a class's examples count in the training loss: a list in the order of the classes,"
                " whose ratios matter, or balanced (each class as much as any other); null = all alike"
            )
        },
    )

    def check(self, path: str) -> None:
        """Windows leave no gap; weights are numbers above 0."""
        if self.stride is not None and self.truncation != WINDOWS:
            raise ConfigError(
                f"{path}.stride={self.stride}: texts are not read in windows; add {path}.truncation={WINDOWS}"
            )
        if self.stride is not None and self.stride > self.max_length - 2:
            raise ConfigError(
                f"{path}.stride={self.stride}: a window holds {path}.max_length={self.max_length} less two"
                " special tokens; a longer stride would skip some"
            )
        given = self.class_weights
        if given is None or given == BALANCED:
            return
        numbers = given if isinstance(given, list) else []
        if not numbers or not all(
            type(value) in (int, float) and 0 < value < float("inf") for value in numbers
        ):
            raise ConfigError(
                f"{path}.class_weights={given}: must be {BALANCED}, or a list of numbers above 0, one a"
                " class, e.g. [1,3.5]"
            )

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        """See `ClassificationObjective.scores`."""
        return (
            Metric("accuracy", higher_is_better=True),
            Metric("f1_macro", higher_is_better=True),
            Metric("balanced_accuracy", higher_is_better=True),
            Metric("matthews", higher_is_better=True, bounds=(-1.0, 1.0)),
            *([] if self.positive_class is None else [Metric("f1", higher_is_better=True)]),
            loss_metric(self.loss_unit),
        )

    def for_task(self, dataset: DatasetConfig) -> ObjectiveConfig:
        """With the dataset's class for `f1` where none was named, and its official score."""
        own = (
            self if self.positive_class is not None else replace(self, positive_class=dataset.positive_class)
        )
        return super(Classification, own).for_task(dataset)

    def build(self, vocabulary: Vocabulary, label_names: Sequence[str]) -> "ClassificationObjective":
        """The objective for one tokenizer's vocabulary and one dataset's classes."""
        return ClassificationObjective(self, vocabulary, label_names)

    def score_of(
        self, metric: str, rows: Any, predictions: Sequence[Mapping[str, Any]], label_names: Sequence[str], /
    ) -> Callable[[np.ndarray], float] | None:
        """Of the confusion of those rows: all that it scores but the loss."""
        classes, names = len(label_names), list(label_names)
        scores: dict[str, Callable[[np.ndarray], float]] = {
            "accuracy": lambda confusion: float(np.trace(confusion) / confusion.sum()),
            "f1_macro": f1_macro,
            "balanced_accuracy": balanced_accuracy,
            "matthews": matthews,
        }
        if self.positive_class is not None:
            scores["f1"] = lambda confusion: float(
                f1_of_classes(confusion)[names.index(str(self.positive_class))]
            )
        if metric not in scores:
            return None
        cell = np.asarray(rows["label"][:]) * classes + np.array(
            [names.index(row["label"]) for row in predictions]
        )
        return lambda numbers: scores[metric](
            np.bincount(cell[numbers], minlength=classes**2).reshape(classes, classes)
        )

    def hf_head(self) -> HfHead:
        """A linear layer on the pooled output."""
        config = {"classifier_dropout": self.head_dropout, "problem_type": "single_label_classification"}
        return HfHead(
            "SequenceClassification", {"classifier": "classifier"}, names_classes=True, config=config
        )


class ClassificationObjective(TextObjective):
    """See contracts.Objective."""

    target = "label"

    def __init__(self, config: Classification, vocabulary: Vocabulary, label_names: Sequence[str]) -> None:
        super().__init__(config, vocabulary, label_names)
        self.config = config
        self.weights: Tensor | None = None  # (C,) float32, once `fit_to` has seen the training split
        positive, weights = config.positive_class, config.class_weights
        if positive is not None and positive not in self.label_names:
            raise ConfigError(
                f"positive_class={positive}: no such class, {did_you_mean(positive, self.label_names)}"
            )
        if isinstance(weights, list) and len(weights) != len(self.label_names):
            raise ConfigError(
                f"objective.class_weights={weights}: {len(weights)} numbers for {len(self.label_names)}"
                f" classes ({', '.join(self.label_names)[:80]})"
            )

    def answers(self, piece: dict[str, Any], count: int) -> np.ndarray:
        """Class ids (N,); -1 where the rows have none."""
        return np.asarray(piece["label"] if "label" in piece else [-1] * count, dtype=np.int64)

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """As TextObjective does; in windows, column `row` tells which row of the split each is of, and `cut`
        what none of a row's reads.
        """
        stride = self.config.stride
        if self.config.truncation != WINDOWS:
            yield from super().prepare(split, encode)
            return
        pairs = "text_pair" in split.column_names
        for start in range(0, len(split), PIECE):
            piece = split[start : start + PIECE]
            first = encode(piece["text"])
            second: Sequence[list[int] | None] = encode(piece["text_pair"]) if pairs else [None] * len(first)
            cut = [
                windows_of(a, b, self.config.max_length, self.special, stride)
                for a, b in zip(first, second, strict=True)
            ]
            count = [len(windows) for windows, _ in cut]
            columns: dict[str, np.ndarray] = {
                self.target: np.repeat(self.answers(piece, len(first)), count),
                "second_start": np.asarray(
                    [position for windows, _ in cut for _, position in windows], dtype=np.int32
                ),
                "cut": np.repeat(np.asarray([left_out for _, left_out in cut], dtype=np.int32), count),
                "row": np.repeat(np.arange(start, start + len(first)), count),
            }
            yield examples_of([ids for windows, _ in cut for ids, _ in windows], columns)

    def fit_to(self, train: Examples) -> None:
        """Weights of classes such that those of all training examples are 1 on average; nothing that a
        finished run needs.
        """
        given = self.config.class_weights
        if given is None:
            return
        counts = np.bincount(train.columns["label"], minlength=len(self.label_names)).astype(np.float64)
        weights = 1 / np.maximum(1, counts) if given == BALANCED else np.asarray(given, dtype=np.float64)
        self.weights = torch.from_numpy((weights * counts.sum() / (weights @ counts)).astype(np.float32))

    def change(self, ids: np.ndarray, rows: np.ndarray, draw: Draw) -> None:
        """Word dropout."""
        if self.config.token_dropout > 0:
            self._drop_tokens(ids, rows, draw)

    def _drop_tokens(self, ids: np.ndarray, rows: np.ndarray, draw: Draw) -> None:
        """Keyed by (seed, epoch, row), so that resuming and micro-batching do not change what is dropped."""
        special = np.isin(ids, self.special.all())
        for position, row in enumerate(rows):
            drop = draw.generator(int(row)).random(ids.shape[1]) < self.config.token_dropout
            ids[position, drop & ~special[position]] = self.special.unk_id

    def build_head(self, encoder: Encoder, initializer_range: float) -> PooledHead:
        """Dropout and a linear layer."""
        return PooledHead(
            encoder.hidden_size, len(self.label_names), self.config.head_dropout, initializer_range
        )

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Cross-entropy in nats, weighted by class, summed over examples; float32."""
        weights = None if self.weights is None else self.weights.to(outputs.device)
        total = F.cross_entropy(
            outputs.float(),
            batch.targets["label"],
            weights,
            reduction="sum",
            label_smoothing=self.config.label_smoothing,
        )
        return Loss(total, batch.num_examples)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, np.ndarray]:
        """Logits (B, C) float32 and labels (B,)."""
        return {"logits": outputs.float().cpu().numpy(), "label": batch.targets["label"].cpu().numpy()}

    def _of_rows(self, measured: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, C) float64 and labels (N,) of the split's rows; of a row in windows the mean of their
        log-probabilities.
        """
        logits, label = measured["logits"].astype(np.float64), measured["label"]
        if self.config.truncation != WINDOWS:
            return logits, label
        logits, place = mean_by_row(log_softmax(logits), measured["row"])
        return logits, label[place]

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Loss (nats per example, without label smoothing and weights), accuracy, f1_macro,
        balanced_accuracy, matthews; f1 of the positive class where there is one; confusion (rows: true
        class).
        """
        logits, label = self._of_rows(measured)
        confusion = np.zeros((len(self.label_names),) * 2, dtype=np.int64)
        np.add.at(confusion, (label, logits.argmax(1)), 1)
        log_probability = log_softmax(logits)
        positive = {}
        if self.config.positive_class is not None:
            positive = {
                "f1": float(f1_of_classes(confusion)[self.label_names.index(self.config.positive_class)])
            }
        return {
            "loss": float(-log_probability[np.arange(len(label)), label].mean()),
            "accuracy": float(np.trace(confusion) / confusion.sum()),
            "f1_macro": f1_macro(confusion),
            "balanced_accuracy": balanced_accuracy(confusion),
            "matthews": matthews(confusion),
            **positive,
            "confusion": confusion.tolist(),
        }

    def blind_scores(self, train: Any, rows: Any) -> dict[str, float]:
        """Of who always says the training split's commonest class; no loss, which is that of
        probabilities.
        """
        counts = np.bincount(np.asarray(train["label"][:]), minlength=len(self.label_names))
        label = np.asarray(rows["label"][:])
        logits = np.tile(np.eye(len(counts))[counts.argmax()], (len(label), 1))
        found = self.scores({"logits": logits, "label": label, "row": np.arange(len(label))}, rows)
        return {name: value for name, value in found.items() if isinstance(value, float) and name != "loss"}

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """Label (class name) and probabilities (class name -> p), in the examples' order."""
        probability = np.exp(log_softmax(self._of_rows(measured)[0]))
        return [
            {
                "label": self.label_names[int(row.argmax())],
                "probabilities": dict(zip(self.label_names, map(float, row), strict=True)),
            }
            for row in probability
        ]

    def describe(self, row: dict[str, Any], prediction: dict[str, Any]) -> str:
        """`label  probability  text`."""
        text = row["text"] + (f" | {row['text_pair']}" if "text_pair" in row else "")
        return (
            f"{prediction['label']:<16} {prediction['probabilities'][prediction['label']]:.4f} "
            f" {shortened(text)}"
        )

    def describe_scores(self, scores: dict[str, Any]) -> list[str]:
        """The confusion matrix, rows: true class."""
        width = max(8, *(len(label) + 1 for label in self.label_names))
        lines = [f"{'true / predicted':<18}" + "".join(f"{label:>{width}}" for label in self.label_names)]
        for label, counts in zip(self.label_names, scores["confusion"], strict=True):
            lines.append(f"{label:<18}" + "".join(f"{count:>{width}}" for count in counts))
        return lines


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities (N, C)."""
    logs: np.ndarray = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return logs


def f1_of_classes(confusion: np.ndarray) -> np.ndarray:
    """(C,): each class's F1; a class that neither occurs nor is predicted counts as 0, as in scikit-learn."""
    hits = np.diag(confusion).astype(np.float64)
    both = confusion.sum(0) + confusion.sum(1)
    each: np.ndarray = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
    return each


def f1_macro(confusion: np.ndarray) -> float:
    """Unweighted mean of the F1 of classes that occur, in truth or predicted, as in scikit-learn."""
    occurs = confusion.sum(0) + confusion.sum(1) > 0
    return float(np.mean(f1_of_classes(confusion)[occurs]))


def balanced_accuracy(confusion: np.ndarray) -> float:
    """Mean recall of the classes that occur, as in scikit-learn."""
    occurs = confusion.sum(1) > 0
    return float(np.mean(np.diag(confusion)[occurs] / confusion.sum(1)[occurs]))


def matthews(confusion: np.ndarray) -> float:
    """Matthews correlation of any number of classes (Gorodkin 2004); 0 where a margin is empty."""
    true, predicted, total = (
        confusion.sum(1).astype(float),
        confusion.sum(0).astype(float),
        float(confusion.sum()),
    )
    covariance = np.trace(confusion) * total - true @ predicted
    spread = np.sqrt(total**2 - predicted @ predicted) * np.sqrt(total**2 - true @ true)
    return float(covariance / spread) if spread > 0 else 0.0
