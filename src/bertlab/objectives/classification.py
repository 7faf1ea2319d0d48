"""Classification of one or two texts into two or more classes (Devlin et al. 2019, §4.1): a linear layer on the pooled output.

Legend: B batch, T tokens, C classes, N examples of a split.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bertlab.config.schema import ObjectiveConfig, choice, number
from bertlab.contracts import (
    TEXT,
    TEXT_PAIR,
    Batch,
    Draw,
    Encode,
    Encoder,
    Examples,
    Head,
    HfHead,
    Loss,
    Metric,
    Objective,
    Role,
    Special,
    Vocabulary,
    examples_of,
    loss_metric,
    pad_rows,
    shortened,
)

PIECE = 10_000  # texts tokenised at a time


@dataclass
class Classification(ObjectiveConfig):
    """`[CLS] text [SEP]` or `[CLS] text [SEP] text_pair [SEP]`, cross-entropy over classes."""

    roles: ClassVar = (TEXT, TEXT_PAIR, Role("label", "label", is_answer=True))
    prepared_by: ClassVar = ("max_length", "truncation")

    truncation: str = choice(
        "head",
        "head",
        "tail",
        "head_tail",
        help="what stays of a text that is too long: its beginning, its end, or a quarter of the room from its beginning and the rest from "
        "its end (Sun et al. 2019, §5.3.1: 128 and 382 of 510)",
    )
    label_smoothing: float = number(0.0, "share of the target spread over all classes (Szegedy et al. 2016)", low=0, below=1)
    head_dropout: float = number(0.1, "dropout between pooled output and classifier", low=0, below=1)
    token_dropout: float = number(
        0.0,
        "share of training tokens replaced by the unknown token, drawn afresh each epoch (Iyyer et al. 2015, word dropout)",
        low=0,
        below=1,
    )

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        """See `ClassificationObjective.scores`."""
        return (
            Metric("accuracy", higher_is_better=True),
            Metric("f1_macro", higher_is_better=True),
            Metric("matthews", higher_is_better=True, bounds=(-1.0, 1.0)),
            loss_metric(self.loss_unit),
        )

    def build(self, vocabulary: Vocabulary, label_names: Sequence[str]) -> "ClassificationObjective":
        """The objective for one tokenizer's vocabulary and one dataset's classes."""
        return ClassificationObjective(self, vocabulary, label_names)

    def hf_head(self) -> HfHead:
        """A linear layer on the pooled output."""
        config = {"classifier_dropout": self.head_dropout, "problem_type": "single_label_classification"}
        return HfHead("SequenceClassification", {"classifier": "classifier"}, names_classes=True, config=config)


class ClassificationHead(Head):
    """Pooled output (B, D) to logits (B, C)."""

    reads_pooled_only = True  # the encoder may leave out what pooling does not read

    def __init__(self, hidden_size: int, num_classes: int, dropout: float, initializer_range: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, num_classes)
        nn.init.normal_(self.classifier.weight, std=initializer_range)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> Tensor:
        """Logits (B, C)."""
        logits: Tensor = self.classifier(self.dropout(encoder.pool(hidden, batch.attention_mask)))
        return logits


class ClassificationObjective(Objective):
    """See contracts.Objective."""

    def __init__(self, config: Classification, vocabulary: Vocabulary, label_names: Sequence[str]) -> None:
        super().__init__(config, vocabulary, label_names)
        self.config = config

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Token ids with special tokens, truncated to `max_length` (the longer text of a pair first); columns label, second_start, cut."""
        pairs = "text_pair" in split.column_names
        for start in range(0, len(split), PIECE):
            piece = split[start : start + PIECE]
            first = encode(piece["text"])
            second: Sequence[list[int] | None] = encode(piece["text_pair"]) if pairs else [None] * len(first)
            joined = [
                join_texts(a, b, self.config.max_length, self.special, self.config.truncation) for a, b in zip(first, second, strict=True)
            ]
            frames = [2 if b is None else 2 + self.special.between for b in second]
            whole = [len(a) + len(b or ()) + frame for a, b, frame in zip(first, second, frames, strict=True)]
            columns: dict[str, np.ndarray] = {
                "label": np.asarray(piece["label"] if "label" in piece else [-1] * len(first), dtype=np.int64),
                "second_start": np.asarray([position for _, position in joined], dtype=np.int32),
                "cut": np.asarray([length - len(row) for length, (row, _) in zip(whole, joined, strict=True)], dtype=np.int32),
            }
            yield examples_of([row for row, _ in joined], columns)

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        """Rows padded on the right to the longest of them; segment 1 from the second text on."""
        ids, inside = pad_rows([examples[row] for row in rows], self.special.pad_id)
        starts = examples.columns["second_start"][rows][:, None]
        segments = ((np.arange(ids.shape[1]) >= starts) & (starts > 0) & inside).astype(np.int64)
        if draw is not None and self.config.token_dropout > 0:
            self._drop_tokens(ids, rows, draw)
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(segments),
            None if inside.all() else torch.from_numpy(inside),
            {"label": torch.from_numpy(examples.columns["label"][rows])},
            int(inside.sum()),
            len(rows),
        )

    def _drop_tokens(self, ids: np.ndarray, rows: np.ndarray, draw: Draw) -> None:
        """Keyed by (seed, epoch, row), so that resuming and micro-batching do not change what is dropped."""
        special = np.isin(ids, self.special.all())
        for position, row in enumerate(rows):
            drop = draw.generator(int(row)).random(ids.shape[1]) < self.config.token_dropout
            ids[position, drop & ~special[position]] = self.special.unk_id

    def build_head(self, encoder: Encoder, initializer_range: float) -> ClassificationHead:
        """Dropout and a linear layer."""
        return ClassificationHead(encoder.hidden_size, len(self.label_names), self.config.head_dropout, initializer_range)

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Cross-entropy in nats, summed over examples; float32."""
        total = F.cross_entropy(outputs.float(), batch.targets["label"], reduction="sum", label_smoothing=self.config.label_smoothing)
        return Loss(total, batch.num_examples)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, np.ndarray]:
        """Logits (B, C) float32 and labels (B,)."""
        return {"logits": outputs.float().cpu().numpy(), "label": batch.targets["label"].cpu().numpy()}

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Loss (nats per example, without label smoothing), accuracy, f1_macro, matthews, confusion (rows: true class)."""
        logits, label = measured["logits"].astype(np.float64), measured["label"]
        confusion = np.zeros((len(self.label_names),) * 2, dtype=np.int64)
        np.add.at(confusion, (label, logits.argmax(1)), 1)
        log_probability = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        return {
            "loss": float(-log_probability[np.arange(len(label)), label].mean()),
            "accuracy": float(np.trace(confusion) / confusion.sum()),
            "f1_macro": f1_macro(confusion),
            "matthews": matthews(confusion),
            "confusion": confusion.tolist(),
        }

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """Label (class name) and probabilities (class name -> p), in the examples' order."""
        logits = measured["logits"].astype(np.float64)
        probability = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        return [
            {"label": self.label_names[int(row.argmax())], "probabilities": dict(zip(self.label_names, map(float, row), strict=True))}
            for row in probability
        ]

    def describe(self, row: dict[str, Any], prediction: dict[str, Any]) -> str:
        """`label  probability  text`."""
        text = row["text"] + (f" | {row['text_pair']}" if "text_pair" in row else "")
        return f"{prediction['label']:<16} {prediction['probabilities'][prediction['label']]:.4f}  {shortened(text)}"

    def describe_scores(self, scores: dict[str, Any]) -> list[str]:
        """The confusion matrix, rows: true class."""
        width = max(8, *(len(label) + 1 for label in self.label_names))
        lines = [f"{'true / predicted':<18}" + "".join(f"{label:>{width}}" for label in self.label_names)]
        for label, counts in zip(self.label_names, scores["confusion"], strict=True):
            lines.append(f"{label:<18}" + "".join(f"{count:>{width}}" for count in counts))
        return lines


def join_texts(
    first: list[int], second: list[int] | None, max_length: int, special: Special, truncation: str = "head"
) -> tuple[list[int], int]:
    """`[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`, at most `max_length` ids, and where the second text starts (0 = none).

    RoBERTa has two separators between the texts. The longer text is cut first, token by token; of two that both are cut it keeps the odd
    token (transformers' `longest_first`). `truncation` says what stays of each: see Classification.
    """
    if second is None:
        return [special.cls_id, *shorten(first, max_length - 2, truncation), special.sep_id], 0
    room = max(0, max_length - 2 - special.between)
    keep_second = min(len(second), max(room - len(first), (room + (len(second) >= len(first))) // 2))
    keep_first = min(len(first), room - keep_second)
    first, second = shorten(first, keep_first, truncation), shorten(second, keep_second, truncation)
    return [special.cls_id, *first, *([special.sep_id] * special.between), *second, special.sep_id], keep_first + 1 + special.between


def shorten(ids: list[int], keep: int, truncation: str) -> list[int]:
    """At most `keep` of the ids."""
    front = {"head": keep, "tail": 0, "head_tail": keep // 4}[truncation]
    return ids if len(ids) <= keep else ids[:front] + ids[len(ids) - (keep - front) :]


def f1_macro(confusion: np.ndarray) -> float:
    """Unweighted mean of the classes' F1; a class that neither occurs nor is predicted counts as 0, as in scikit-learn."""
    hits = np.diag(confusion).astype(np.float64)
    both = confusion.sum(0) + confusion.sum(1)
    return float(np.mean(np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)))


def matthews(confusion: np.ndarray) -> float:
    """Matthews correlation of any number of classes (Gorodkin 2004); 0 where a margin is empty."""
    true, predicted, total = confusion.sum(1).astype(float), confusion.sum(0).astype(float), float(confusion.sum())
    covariance = np.trace(confusion) * total - true @ predicted
    spread = np.sqrt(total**2 - predicted @ predicted) * np.sqrt(total**2 - true @ true)
    return float(covariance / spread) if spread > 0 else 0.0
