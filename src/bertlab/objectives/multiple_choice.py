"""Which of several texts goes with a text (Zellers et al. 2018, SWAG; Devlin et al. 2019, §4.4): a score for
each, softmax over them.

A question is one example; its choices are rows of the encoder's batch, one under the other.

Legend: B questions of a batch, C choices, T tokens, N questions of a split.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bertlab.config.schema import number
from bertlab.contracts import (
    TEXT,
    Batch,
    Draw,
    Encode,
    Encoder,
    Examples,
    HfHead,
    Loss,
    Metric,
    Objective,
    Role,
    Vocabulary,
    examples_of,
    loss_metric,
    pad_rows,
    shortened,
)
from bertlab.objectives._texts import PooledHead, Texts, join_texts

PIECE = 4000  # questions tokenised at a time


@dataclass
class MultipleChoice(Texts):
    """`[CLS] text [SEP] choice [SEP]` for each choice; with `dataset.question_column`, `[CLS] text [SEP]
    question choice [SEP]`.
    """

    head_dropout: float = number(0.1, "dropout between pooled output and linear layer", low=0, below=1)

    roles: ClassVar = (
        TEXT,
        Role("question", "text", optional=True),
        Role("choices", "choices"),
        Role("label", "index", is_answer=True, about="choices"),
    )
    loss_unit: ClassVar = "nats per question"

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        """See `MultipleChoiceObjective.scores`."""
        return (Metric("accuracy", higher_is_better=True), loss_metric(self.loss_unit))

    def build(self, vocabulary: Vocabulary, _label_names: Sequence[str]) -> "MultipleChoiceObjective":
        """The objective for one tokenizer's vocabulary."""
        return MultipleChoiceObjective(self, vocabulary)

    def score_of(
        self, metric: str, rows: Any, predictions: Sequence[Mapping[str, Any]], _label_names: Sequence[str], /
    ) -> Callable[[np.ndarray], float] | None:
        """Accuracy on those rows."""
        if metric != "accuracy":
            return None
        right = np.array([row["label"] for row in predictions]) == np.asarray(rows["label"][:])
        return lambda numbers: float(right[numbers].mean())

    def hf_head(self) -> HfHead:
        """A linear layer on the pooled output of each choice."""
        return HfHead(
            "MultipleChoice", {"classifier": "classifier"}, config={"classifier_dropout": self.head_dropout}
        )


class ChoiceHead(PooledHead):
    """Pooled output of every choice (B x C, D) to scores (B, C)."""

    def __init__(self, hidden_size: int, dropout: float, initializer_range: float) -> None:
        super().__init__(hidden_size, 1, dropout, initializer_range)

    def forward(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> Tensor:
        """(B, C)."""
        scores: Tensor = super().forward(encoder, hidden, batch)
        return scores.view(batch.num_examples, -1)


class MultipleChoiceObjective(Objective):
    """See contracts.Objective."""

    def __init__(self, config: MultipleChoice, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.config = config

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """The rows of a question's choices one after the other as one example.

        Columns: label; `lengths (N, C)`, tokens of each row; `starts (N, C)`, where its second text begins;
        cut, of all its rows.
        """
        for start in range(0, len(split), PIECE):
            piece = split[start : start + PIECE]
            contexts, choices = encode(piece["text"]), piece["choices"]
            questions = encode(piece["question"]) if "question" in piece else [[]] * len(contexts)
            encoded = iter(encode([text for texts in choices for text in texts]))
            ids, lengths, starts, cut = [], [], [], []
            for context, question, texts in zip(contexts, questions, choices, strict=True):
                seconds = [[*question, *next(encoded)] for _ in texts]
                rows = [
                    join_texts(context, second, self.config.max_length, self.special, self.config.truncation)
                    for second in seconds
                ]
                whole = sum(len(context) + len(second) + 2 + self.special.between for second in seconds)
                cut.append(whole - sum(len(row) for row, _ in rows))
                ids.append([token for row, _ in rows for token in row])
                lengths.append([len(row) for row, _ in rows])
                starts.append([second for _, second in rows])
            columns: dict[str, np.ndarray] = {
                "label": np.asarray(piece["label"] if "label" in piece else [-1] * len(ids), dtype=np.int64),
                "lengths": np.asarray(lengths, dtype=np.int32),
                "starts": np.asarray(starts, dtype=np.int32),
                "cut": np.asarray(cut, dtype=np.int32),
            }
            yield examples_of(ids, columns)

    def collate(self, examples: Examples, rows: np.ndarray, _draw: Draw | None) -> Batch:
        """`(B x C, T)`: every choice a row, padded on the right; segment 1 from the choice (or
        question) on.
        """
        lengths, starts = (
            examples.columns["lengths"][rows],
            examples.columns["starts"][rows].reshape(-1)[:, None],
        )
        cut = [
            part
            for row, own in zip(rows, lengths, strict=True)
            for part in np.split(examples[row], np.cumsum(own)[:-1])
        ]
        ids, inside = pad_rows(cut, self.special.pad_id)
        segments = ((np.arange(ids.shape[1]) >= starts) & inside).astype(np.int64)
        mask = None if inside.all() else torch.from_numpy(inside)
        label = torch.from_numpy(np.asarray(examples.columns["label"][rows]))
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(segments),
            mask,
            {"label": label},
            int(inside.sum()),
            len(rows),
        )

    def build_head(self, encoder: Encoder, initializer_range: float) -> ChoiceHead:
        """Dropout and a linear layer."""
        return ChoiceHead(encoder.hidden_size, self.config.head_dropout, initializer_range)

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Cross-entropy in nats, summed over questions; float32."""
        return Loss(
            F.cross_entropy(outputs.float(), batch.targets["label"], reduction="sum"), batch.num_examples
        )

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, np.ndarray]:
        """Scores (B, C) and the right choices (B,)."""
        return {"logits": outputs.float().cpu().numpy(), "label": batch.targets["label"].cpu().numpy()}

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Loss and accuracy."""
        label, log_probability = measured["label"], _log_softmax(measured["logits"])
        return {
            "loss": float(-log_probability[np.arange(len(label)), label].mean()),
            "accuracy": float((log_probability.argmax(1) == label).mean()),
        }

    def blind_scores(self, train: Any, rows: Any) -> dict[str, float]:
        """Of who always takes the choice that is right most often in training, by its number."""
        commonest = np.bincount(np.asarray(train["label"][:])).argmax()
        return {"accuracy": float((np.asarray(rows["label"][:]) == commonest).mean())}

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """The best choice's number, and the probability of each in their order."""
        return [
            {"label": int(row.argmax()), "probabilities": list(map(float, np.exp(row)))}
            for row in _log_softmax(measured["logits"])
        ]

    def describe(self, row: dict[str, Any], prediction: dict[str, Any]) -> str:
        """`number  probability  text | choice`."""
        best = prediction["label"]
        told = " | ".join(
            [row["text"], *([row["question"]] if "question" in row else []), row["choices"][best]]
        )
        return f"{best:<4} {prediction['probabilities'][best]:.4f}  {shortened(told)}"


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    values = logits.astype(np.float64)
    shifted: np.ndarray = values - np.logaddexp.reduce(values, axis=1, keepdims=True)
    return shifted
