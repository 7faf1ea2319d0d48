"""Answers that stand in a text (Rajpurkar et al. 2016, SQuAD; Devlin et al. 2019, §4.2 and §4.3): a start and
an end.

A long text is read in windows that overlap. The best span of all windows of a question is its answer; a span
at [CLS] says that there is none, and a question has none where the smallest such score of its windows is
above the best span's by more than `null_threshold`.

Legend: B windows of a batch, T tokens, N windows of a split, Q questions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bertlab.config.schema import ObjectiveConfig, flag, integer, number
from bertlab.contracts import (
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
    Vocabulary,
    examples_of,
    loss_metric,
    pad_rows,
    shortened,
)
from bertlab.errors import ConfigError, DataError
from bertlab.objectives._squad import compare

PIECE = 500  # questions tokenised at a time
Place = tuple[int, int]
NOWHERE = (-1, -1)  # characters of tokens outside the context
NO_ANSWERS: dict[str, list[Any]] = {"text": [], "answer_start": []}
# per token, and per window: its character in the context where something begins, and the one after its end
SIDES = ("first", "last")
IMPOSSIBLE = -1e9


@dataclass
class ExtractiveQa(ObjectiveConfig):
    """`[CLS] question [SEP] window of the context [SEP]`, cross-entropy over the tokens where the answer
    starts and ends.
    """

    max_length: int = integer(384, "longest sequence in tokens, special tokens included", low=4)
    stride: int = integer(128, "tokens from one window's beginning to the next one's", low=1)
    max_question: int = integer(64, "tokens of a question that are read", low=1)
    max_answer: int = integer(30, "tokens of the longest answer that is given", low=1)
    unanswerable: bool = flag(
        True, "questions may have no answer, and 'none' be said (SQuAD 2.0); false: always a span (SQuAD 1.1)"
    )
    null_threshold: float = number(
        0.0, "none is said where its score is above the best span's by more than this"
    )

    roles: ClassVar = (
        Role("context", "text"),
        Role("question", "text"),
        Role("answers", "spans", is_answer=True, about="context"),
    )
    prepared_by: ClassVar = ("max_length", "stride", "max_question")
    loss_unit: ClassVar = "nats per window"

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        """See `ExtractiveQaObjective.scores`."""
        kinds = ("f1_answerable", "accuracy_unanswerable") if self.unanswerable else ()
        return (
            *(Metric(name, higher_is_better=True) for name in ("f1", "exact_match")),
            *(Metric(name, higher_is_better=True, may_lack=True) for name in kinds),
            loss_metric(self.loss_unit),
        )

    def build(self, vocabulary: Vocabulary, _label_names: Sequence[str]) -> "ExtractiveQaObjective":
        """The objective for one tokenizer's vocabulary."""
        return ExtractiveQaObjective(self, vocabulary)

    def hf_head(self) -> HfHead:
        """A linear layer at every token."""
        return HfHead("QuestionAnswering", {"qa_outputs": "qa_outputs"}, reads_pooler=False)

    def check(self, path: str) -> None:
        """Windows leave nothing of the context out."""
        room = self.max_length - self.max_question - 4
        if self.stride > room:
            raise ConfigError(
                f"{path}.stride={self.stride}: a window holds {path}.max_length={self.max_length} less"
                f" {path}.max_question={self.max_question} and special tokens, at least {room} tokens: a"
                " longer stride would skip some"
            )


class SpanHead(Head):
    """Hidden states (B, T, D) to a start and an end for every token (B, T, 2)."""

    def __init__(self, hidden_size: int, initializer_range: float) -> None:
        super().__init__()
        self.qa_outputs = nn.Linear(hidden_size, 2)
        nn.init.normal_(self.qa_outputs.weight, std=initializer_range)
        nn.init.zeros_(self.qa_outputs.bias)

    def forward(self, _encoder: Encoder, hidden: Tensor, _batch: Batch) -> Tensor:
        """(B, T, 2)."""
        scores: Tensor = self.qa_outputs(hidden)
        return scores

    def exported_outputs(self, outputs: Tensor, _batch: Batch) -> tuple[Tensor, ...]:
        """Starts and ends, (B, T) each."""
        return outputs[:, :, 0], outputs[:, :, 1]


class ExtractiveQaObjective(Objective):
    """See contracts.Objective."""

    def __init__(self, config: ExtractiveQa, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.config = config

    # --- windows ---
    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Windows of each question in turn.

        Columns: `row`, its question's; `span (N, 2)`, the tokens that the first answer begins and ends in,
        both 0 where the window does not hold it whole. Token columns `first` and `last`: where each token
        stands in the context, -1 outside it.
        """
        for start in range(0, len(split), PIECE):
            piece = split[start : start + PIECE]
            questions, contexts = encode(piece["question"]), encode.with_offsets(piece["context"])
            answers = piece.get("answers") or [NO_ANSWERS] * len(questions)
            ids, rows, spans = [], [], []
            places: list[list[Place]] = []
            for row, (question, context, answer) in enumerate(
                zip(questions, contexts, answers, strict=True), start=start
            ):
                for tokens, told, span in self._windows(question, *context, tokens_of(answer, context[1])):
                    ids.append(tokens)
                    rows.append(row)
                    spans.append(span)
                    places.append(told)
            columns: dict[str, np.ndarray] = {
                "row": np.asarray(rows, dtype=np.int64),
                "span": np.asarray(spans, dtype=np.int32),
            }
            yield examples_of(
                ids,
                columns,
                {
                    side: [[place[index] for place in told] for told in places]
                    for index, side in enumerate(SIDES)
                },
            )

    def _windows(
        self, question: list[int], context: list[int], places: list[Place], answer: Place | None
    ) -> Iterator[tuple[list[int], list[Place], Place]]:
        """Token ids of each window, each token's place in the context, the tokens of the answer; the last
        window ends with the context.
        """
        special = self.special
        head = [special.cls_id, *question[: self.config.max_question], *[special.sep_id] * special.between]
        room = self.config.max_length - len(head) - 1
        for begin in range(0, max(1, len(context) - room + self.config.stride), self.config.stride):
            window = slice(begin, begin + room)
            is_whole = answer is not None and begin <= answer[0] and answer[1] < begin + room
            span = (
                (answer[0] - begin + len(head), answer[1] - begin + len(head))
                if answer is not None and is_whole
                else (0, 0)
            )
            yield (
                [*head, *context[window], special.sep_id],
                [*[NOWHERE] * len(head), *places[window], NOWHERE],
                span,
            )

    def collate(self, examples: Examples, rows: np.ndarray, _draw: Draw | None) -> Batch:
        """Padded windows; segment 1 from the context on."""
        ids, inside = pad_rows([examples[row] for row in rows], self.special.pad_id)
        offsets = examples.offsets
        cut = [slice(offsets[row], offsets[row + 1]) for row in rows]
        places = {
            side: pad_rows([examples.token_columns[side][part] for part in cut], -1)[0] for side in SIDES
        }
        in_context = places["first"] >= 0
        # an empty context leaves its separator
        begins = np.where(in_context.any(1), in_context.argmax(1), inside.sum(1) - 1)
        segments = ((np.arange(ids.shape[1]) >= begins[:, None]) & inside).astype(np.int64)
        targets = {side: torch.from_numpy(place) for side, place in places.items()}
        targets["span"] = torch.from_numpy(np.asarray(examples.columns["span"][rows], dtype=np.int64))
        mask = None if inside.all() else torch.from_numpy(inside)
        return Batch(
            torch.from_numpy(ids), torch.from_numpy(segments), mask, targets, int(inside.sum()), len(rows)
        )

    # --- starts and ends ---
    def build_head(self, encoder: Encoder, initializer_range: float) -> SpanHead:
        """A linear layer at every token."""
        return SpanHead(encoder.hidden_size, initializer_range)

    def _nats(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores (B, T, 2), float32, impossible but at [CLS] and in the context; of each window the mean of
        both cross-entropies (B,).
        """
        allowed = batch.targets["first"] >= 0
        allowed[:, 0] = True
        scores = outputs.float().masked_fill(~allowed[:, :, None], IMPOSSIBLE)
        # over T, for each side
        return scores, F.cross_entropy(scores, batch.targets["span"], reduction="none").mean(1)

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """In nats, summed over windows; float32."""
        return Loss(self._nats(outputs, batch)[1].sum(), batch.num_examples)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, np.ndarray]:
        """Of each window: nats, the best span's score and characters, and the score of none; float64."""
        scores, nats = self._nats(outputs, batch)
        none = scores[:, 0].sum(1)
        starts, ends = scores[:, :, 0].clone(), scores[:, :, 1].clone()
        starts[:, 0] = IMPOSSIBLE
        best = torch.full_like(none, 2 * IMPOSSIBLE)
        place = torch.zeros((len(best), 2), dtype=torch.long, device=best.device)
        for more in range(min(self.config.max_answer, starts.shape[1])):  # spans of 1 + more tokens
            likeliest, at = (starts[:, : starts.shape[1] - more] + ends[:, more:]).max(1)
            is_better = likeliest > best
            best = torch.where(is_better, likeliest, best)
            place = torch.where(is_better[:, None], torch.stack((at, at + more), 1), place)
        characters = {
            side: batch.targets[side].gather(1, place[:, index : index + 1])[:, 0]
            for index, side in enumerate(SIDES)
        }
        found_of = {"nats": nats, "best": best, "none": none, **characters}
        return {name: value.cpu().numpy().astype(np.float64) for name, value in found_of.items()}

    # --- questions ---
    def _answers(self, measured: dict[str, np.ndarray], rows: Any) -> list[dict[str, Any]]:
        """Of each question: the answer as it stands in the context and where, empty for none; and by how much
        its score is above none's.
        """
        count = len(rows)
        best, none, chosen = np.full(count, -np.inf), np.full(count, np.inf), np.zeros(count, dtype=np.int64)
        row = measured["row"].astype(np.int64)
        np.minimum.at(none, row, measured["none"])
        np.maximum.at(best, row, measured["best"])
        for window in np.flatnonzero(measured["best"] == best[row])[::-1]:  # of equal ones the first
            chosen[row[window]] = window
        contexts = rows["context"][:]
        answers = []
        for question, window in enumerate(chosen):
            margin = float(best[question] - none[question])
            start, end = (int(measured[side][window]) for side in SIDES)
            text = contexts[question][max(0, start) : end] if start >= 0 else ""
            start += len(text) - len(text.lstrip())  # some tokens begin with their space
            text = text.strip()
            if not text or (self.config.unanswerable and margin < -self.config.null_threshold):
                answers.append({"answer": "", "start": None, "end": None, "margin": margin})
            else:
                answers.append({"answer": text, "start": start, "end": start + len(text), "margin": margin})
        return answers

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """F1 and exact match of answers as SQuAD defines them, over questions; loss over windows.

        Where questions may have no answer: F1 of those that have one, and the share of the others of which
        none was said (each only where there are such questions).
        """
        accepted = [given["text"] for given in rows["answers"][:]]
        said = [one["answer"] for one in self._answers(measured, rows)]
        pairs = [
            compare(text, given, self.config.unanswerable) for text, given in zip(said, accepted, strict=True)
        ]
        exact, f1 = (np.asarray(values) for values in zip(*pairs, strict=True))
        means = {
            "loss": float(measured["nats"].mean()),
            "exact_match": float(exact.mean()),
            "f1": float(f1.mean()),
        }
        if self.config.unanswerable:
            has_answer = np.asarray([bool(given) for given in accepted])
            if has_answer.any():
                means["f1_answerable"] = float(f1[has_answer].mean())
            if not has_answer.all():
                means["accuracy_unanswerable"] = float(
                    np.mean([not text for text, given in zip(said, accepted, strict=True) if not given])
                )
        if self.primary.name not in means:
            raise DataError(
                f"objective.primary={self.primary.name}: there is no question that it could be a score of;"
                " take f1"
            )
        return means

    def blind_scores(self, train: Any, rows: Any) -> dict[str, float]:
        """Of who never finds an answer, which is right where there is none."""
        share = float(np.mean([not given["text"] for given in rows["answers"][:]]))
        never = share if self.config.unanswerable else 0.0
        return {"f1": never, "exact_match": never}

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """The answer as it stands in the context, where it starts and ends there, and its score
        above none's.
        """
        return self._answers(measured, rows)

    def describe(self, row: dict[str, Any], prediction: dict[str, Any]) -> str:
        """`answer  margin  question`."""
        return (
            f"{prediction['answer'] or '(none)':<32}  {prediction['margin']:.4f} "
            f" {shortened(row['question'])}"
        )


def tokens_of(answer: dict[str, list[Any]], places: Sequence[Place]) -> Place | None:
    """The tokens of a context that the first answer begins and ends in, whole or in part; None where there is
    no answer.
    """
    if not answer["text"]:
        return None
    begin = answer["answer_start"][0]
    end = begin + len(answer["text"][0])
    inside = [
        token for token, (first, last) in enumerate(places) if first < end and last > begin and last > first
    ]
    return (inside[0], inside[-1]) if inside else None
