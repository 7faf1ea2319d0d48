"""Answers that stand in a text: windows over long contexts, a start and an end a window, the best span of all
windows of a question.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bertlab.config.schema import ObjectiveConfig, integer
from bertlab.contracts import (
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
    examples_of,
    loss_metric,
    pad_rows,
)

NOWHERE = (-1, -1)  # characters of tokens outside the context


@dataclass
class SpanQa(ObjectiveConfig):
    """`[CLS] question [SEP] window of the context [SEP]`; no answer in a window is a span at [CLS]."""

    stride: int = integer(32, "tokens from one window's beginning to the next one's", low=1)
    longest_answer: int = integer(30, "tokens of the longest answer that is given", low=1)

    roles: ClassVar = (
        Role("question", "text"),
        Role("context", "text"),
        Role("answers", "spans", is_answer=True, about="context"),
    )
    prepared_by: ClassVar = ("max_length", "stride")
    loss_unit: ClassVar = "nats per window"

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        """Over questions; the loss over windows."""
        return (Metric("exact_match", True), loss_metric(self.loss_unit))

    def build(self, vocabulary: Any, label_names: Sequence[str]) -> Objective:
        """The objective for one vocabulary."""
        return SpanQaObjective(self, vocabulary)


class SpanHead(Head):
    """A start and an end for every token, (B, T, 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, 2)

    def forward(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> Tensor:
        """Logits."""
        return self.linear(hidden)


class SpanQaObjective(Objective):
    """See bertlab.contracts.Objective."""

    def __init__(self, config: SpanQa, vocabulary: Any) -> None:
        super().__init__(config, vocabulary)
        self.config = config

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Windows; `row` says of which question, token columns where each token stands in the context."""
        questions, contexts = encode(split["question"][:]), encode.with_offsets(split["context"][:])
        answers = (
            split["answers"][:]
            if "answers" in split.column_names
            else [{"text": [], "answer_start": []}] * len(questions)
        )
        ids, rows, spans, starts, ends = [], [], [], [], []
        for row, (question, (context, places), answer) in enumerate(
            zip(questions, contexts, answers, strict=True)
        ):
            head = [self.special.cls_id, *question[: self.config.max_length // 2], self.special.sep_id]
            room = self.config.max_length - len(head) - 1
            for begin in range(0, max(1, len(context) - room + self.config.stride), self.config.stride):
                window, where = context[begin : begin + room], places[begin : begin + room]
                ids.append([*head, *window, self.special.sep_id])
                told = [NOWHERE] * len(head) + list(where) + [NOWHERE]
                starts.append([first for first, _ in told])
                ends.append([last for _, last in told])
                rows.append(row)
                spans.append(self._span(told, answer))
        columns = {"row": np.asarray(rows), "span": np.asarray(spans, dtype=np.int64)}
        yield examples_of(ids, columns, {"start": starts, "end": ends})

    @staticmethod
    def _span(told: list[tuple[int, int]], answer: dict[str, list[Any]]) -> tuple[int, int]:
        """Token positions of the first answer; (0, 0) where the window does not hold it whole."""
        if not answer["text"]:
            return 0, 0
        begin = answer["answer_start"][0]
        end = begin + len(answer["text"][0])
        inside = [
            place
            for place, (first, last) in enumerate(told)
            if first >= begin and last <= end and last > first
        ]
        whole = inside and told[inside[0]][0] == begin and told[inside[-1]][1] == end
        return (inside[0], inside[-1]) if whole else (0, 0)

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        """Padded windows."""
        ids, inside = pad_rows([examples[row] for row in rows], self.special.pad_id)
        tokens = torch.from_numpy(ids)
        cut = [slice(examples.offsets[row], examples.offsets[row + 1]) for row in rows]
        places = {
            name: pad_rows([examples.token_columns[name][part] for part in cut], -1)[0]
            for name in ("start", "end")
        }
        segments = torch.from_numpy((places["start"] >= 0).astype(np.int64))
        targets = {
            "span": torch.from_numpy(examples.columns["span"][rows]),
            **{name: torch.from_numpy(place) for name, place in places.items()},
        }
        return Batch(tokens, segments, torch.from_numpy(inside), targets, int(inside.sum()), len(rows))

    def build_head(self, encoder: Encoder, initializer_range: float) -> Head:
        """Starts and ends."""
        return SpanHead(encoder.hidden_size)

    def _logits(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Only [CLS] and tokens of the context can be answers."""
        allowed = batch.targets["start"] >= 0
        allowed[:, 0] = True
        return outputs.float().masked_fill(~allowed[:, :, None], -1e9)

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Mean of both cross-entropies, summed over windows."""
        logits = self._logits(outputs, batch)
        both = [
            F.cross_entropy(logits[:, :, side], batch.targets["span"][:, side], reduction="sum")
            for side in (0, 1)
        ]
        return Loss((both[0] + both[1]) / 2, batch.num_examples)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, np.ndarray]:
        """Of each window: nats, the best span's characters, and its score above that of no answer."""
        logits = self._logits(outputs, batch)
        start, end = logits[:, :, 0], logits[:, :, 1]
        nats = (
            sum(
                F.cross_entropy(logits[:, :, side], batch.targets["span"][:, side], reduction="none")
                for side in (0, 1)
            )
            / 2
        )
        pairs = start[:, :, None] + end[:, None, :]
        shape = torch.ones(pairs.shape[1:], dtype=torch.bool)
        pairs = pairs.masked_fill(~(shape.triu() & shape.tril(self.config.longest_answer - 1)), -1e9)
        none = pairs[:, 0, 0].clone()
        pairs[:, 0, :] = -1e9
        best, place = pairs.flatten(1).max(1)
        rows = torch.arange(len(place))
        first = batch.targets["start"][rows, place // pairs.shape[2]]
        last = batch.targets["end"][rows, place % pairs.shape[2]]
        found = {"nats": nats, "above": best - none, "first": first, "last": last}
        return {name: value.double().cpu().numpy() for name, value in found.items()}

    def _answers(self, measured: dict[str, np.ndarray], rows: Any) -> list[dict[str, Any]]:
        """One answer a question: the best window's."""
        answers = [{"answer": "", "start": None} for _ in range(len(rows))]
        best = np.full(len(rows), 0.0)  # no answer
        for window, row in enumerate(measured["row"]):
            if measured["above"][window] > best[row]:
                best[row] = measured["above"][window]
                start, end = int(measured["first"][window]), int(measured["last"][window])
                answers[row] = {"answer": rows[int(row)]["context"][start:end], "start": start}
        return answers

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Share of questions whose answer is one of those given, or rightly none."""
        said = [one["answer"] for one in self._answers(measured, rows)]
        right = [
            answer in (given["text"] or [""]) for answer, given in zip(said, rows["answers"], strict=True)
        ]
        return {"exact_match": float(np.mean(right)), "loss": float(measured["nats"].mean())}

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """The answer as it stands in the context, and where."""
        return self._answers(measured, rows)
