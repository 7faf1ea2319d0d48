"""Next-sentence prediction (Devlin et al. 2019, §3.1 task 2, lengths as in §A.2): does the second text follow
the first in its document?

An example is a run of sentences of one document. It is cut between two sentences; half of the time the second
part gives way to sentences of another document. One run in ten is short.

Differs: cut, partner and label are drawn afresh in every epoch, keyed by (seed, epoch, example); a run ends
before it would be too long, so that nothing has to be cut off; what a random partner displaces is not put
back but comes in another epoch; a lone sentence is cut in its middle, a lone token left out.

Legend: B batch, T tokens, D width, N examples of a split.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bertlab.config.schema import ObjectiveConfig, number, string
from bertlab.contracts import (
    FIXED,
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
    Special,
    Vocabulary,
    examples_of,
    loss_metric,
    pad_rows,
)
from bertlab.errors import ConfigError, DataError
from bertlab.objectives._documents import sentence_splitter, split_documents

ATTEMPTS = 8  # random partners tried for one that fits whole
PIECE = 4096  # examples written at a time
# in a Hugging Face BertForPreTraining or BertForNextSentencePrediction
HF_NAMES = {"classifier": "cls.seq_relationship"}
# of the true class 0: chance is near one half; a check, not a score
SHARE_NEXT = Metric("share_next", higher_is_better=True)


@dataclass
class Nsp(ObjectiveConfig):
    """`[CLS] A [SEP] B [SEP]`: is B what follows A (class 0) or text from elsewhere (class 1)?"""

    roles: ClassVar = (TEXT, TEXT_PAIR)
    needs_documents: ClassVar = True
    prepared_by: ClassVar = ("max_length", "delimiters", "short_share")
    predicts: ClassVar = False
    loss_unit: ClassVar = "nats per pair"

    delimiters: str = string(
        ".!?", "characters that end a sentence, before white space; one public system uses '.,;:!? '"
    )
    short_share: float = number(0.1, "share of examples of any shorter length", low=0, high=1)

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        """See `pair_metrics`."""
        return (Metric("accuracy", higher_is_better=True), loss_metric("nats per pair"), SHARE_NEXT)

    def build(self, vocabulary: Vocabulary, _label_names: Sequence[str]) -> Objective:
        """The objective for one tokenizer's vocabulary; its two classes are its own."""
        return NspObjective(self, vocabulary)

    def hf_head(self) -> HfHead | None:
        """Devlin's."""
        return HfHead("NextSentencePrediction", HF_NAMES)

    def check(self, path: str) -> None:
        """Room for a pair, something to split at."""
        if self.max_length < 5:
            raise ConfigError(
                f"{path}.max_length={self.max_length}: a pair with its special tokens takes at least 5"
            )
        sentence_splitter(self.delimiters, f"{path}.delimiters")


# --- runs of sentences ----------------------------------------------------------------------------
def prepare_runs(split: Any, encode: Encode, config: Any) -> Iterator[Examples]:
    """Runs of sentences of at most `max_length - 3` tokens, every sentence in exactly one.

    Columns `document (N,)`, its number, `target (N,)`, the length a run was meant to have, and `alone (N,)`,
    1 where it is one sentence cut in its middle; token column `opens`, 1 where a sentence (or its second
    half) begins. Raises DataError for fewer than two documents.
    """
    splitter = sentence_splitter(config.delimiters, "objective.delimiters")
    prepared: list[_Run] = []
    documents = 0
    for index, sentences in enumerate(split_documents(split, encode, splitter)):
        rng = np.random.default_rng([index, *b"runs"])
        runs = [
            _Run(parts, index, target, alone)
            for parts, target, alone in _runs(sentences, config.max_length - 3, config.short_share, rng)
        ]
        documents += bool(runs)
        prepared += runs
        if len(prepared) >= PIECE:
            yield _piece(prepared)
            prepared = []
    if documents < 2:
        raise DataError(
            f"there are {documents} documents of two tokens or more; sentence pairs need at least two"
            " documents in each split (see dataset.validation_fraction)"
        )
    if prepared:
        yield _piece(prepared)


class _Run(NamedTuple):
    sentences: list[list[int]]
    document: int
    target: int
    alone: bool


def _piece(runs: list[_Run]) -> Examples:
    opens = [
        [int(index == 0) for sentence in run.sentences for index in range(len(sentence))] for run in runs
    ]
    columns: dict[str, np.ndarray] = {
        "document": np.asarray([run.document for run in runs], dtype=np.int64),
        "target": np.asarray([run.target for run in runs], dtype=np.int32),
        "alone": np.asarray([run.alone for run in runs], dtype=np.int8),
    }
    return examples_of(
        [[token for sentence in run.sentences for token in sentence] for run in runs],
        columns,
        {"opens": opens},
    )


def _runs(
    sentences: list[list[int]], room: int, short_share: float, rng: np.random.Generator
) -> Iterator[tuple[list[list[int]], int, bool]]:
    """Cut a document into runs of at least two parts, the length each was meant to have, and whether it was
    one sentence.
    """

    def draw_target() -> int:
        return int(rng.integers(2, room + 1)) if rng.random() < short_share else room

    run, length, target = list[list[int]](), 0, draw_target()
    for sentence in sentences:
        for start in range(0, len(sentence), room):  # a sentence longer than any example comes in parts
            part = sentence[start : start + room]
            if run and length + len(part) > target:
                yield from _closed(run, target)
                run, length, target = [], 0, draw_target()
            target = max(target, len(part))
            run.append(part)
            length += len(part)
    yield from _closed(run, target)


def _closed(run: list[list[int]], target: int) -> Iterator[tuple[list[list[int]], int, bool]]:
    alone = len(run) == 1
    if alone and len(run[0]) >= 2:
        middle = len(run[0]) // 2
        run = [run[0][:middle], run[0][middle:]]
    if len(run) >= 2:
        yield run, target, alone


# --- pairs ----------------------------------------------------------------------------------------
def cut_run(examples: Examples, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A run's tokens in two, at a random sentence's beginning."""
    tokens, starts = _run(examples, row)
    cut = starts[1 + int(rng.integers(len(starts) - 1))]
    return tokens[:cut], tokens[cut:]


def _run(examples: Examples, row: int) -> tuple[np.ndarray, np.ndarray]:
    begin, end = examples.offsets[row], examples.offsets[row + 1]
    return examples.tokens[begin:end], np.flatnonzero(examples.token_columns["opens"][begin:end])


def partner(examples: Examples, row: int, wanted: int, room: int, rng: np.random.Generator) -> np.ndarray:
    """Whole sentences of another document than the row's, about `wanted` and at most `room` tokens; cut off
    only where none fits.

    `wanted` is the length of the true second text, so that length gives nothing away; where that begins in
    the middle of a lone sentence, so does the partner.
    """
    documents = examples.columns["document"]
    alone = examples.columns["alone"]
    begin, best = 0, np.zeros(0, dtype=examples.tokens.dtype)
    for _ in range(ATTEMPTS):
        other = int(rng.integers(len(examples)))
        while documents[other] == documents[row]:
            other = int(rng.integers(len(examples)))
        _, starts = _run(examples, other)
        begin = int(examples.offsets[other] + (0 if alone[other] else starts[int(rng.integers(len(starts)))]))
        if alone[other]:
            begin += int(starts[1]) if alone[row] else 0
        elif alone[row]:
            begin += (
                _sentence_ends(examples, other, begin, int(examples.offsets[other + 1]))[0] - begin
            ) // 2
        for end in _sentence_ends(examples, other, begin, begin + room):
            if not len(best) or abs(end - begin - wanted) < abs(len(best) - wanted):
                best = examples.tokens[begin:end]
        if len(best) and abs(len(best) - wanted) <= wanted / 8:
            break
    return best if len(best) else examples.tokens[begin : begin + room]


def _sentence_ends(examples: Examples, row: int, begin: int, limit: int) -> list[int]:
    """Where sentences after `begin` end, as far as the document and `limit` go; on from the row into the
    document's next runs.
    """
    document, ends = examples.columns["document"][row], list[int]()
    while (
        row < len(examples)
        and examples.columns["document"][row] == document
        and examples.offsets[row] < limit
    ):
        ends += [*(examples.offsets[row] + _run(examples, row)[1][1:]), examples.offsets[row + 1]]
        row += 1
    return [int(end) for end in ends if begin < end <= limit]


def pair_batch(pairs: list[tuple[np.ndarray, np.ndarray]], labels: Sequence[int], special: Special) -> Batch:
    """`[CLS] A [SEP] B [SEP]`, segment 1 from B on; target `next (B,)`."""
    rows = [
        np.concatenate(([special.cls_id], first, [special.sep_id], second, [special.sep_id])).astype(np.int64)
        for first, second in pairs
    ]
    ids, inside = pad_rows(rows, special.pad_id)
    starts = np.asarray([len(first) + 2 for first, _ in pairs])[:, None]
    segments = ((np.arange(ids.shape[1]) >= starts) & inside).astype(np.int64)
    mask = None if inside.all() else torch.from_numpy(inside)
    targets = {"next": torch.tensor(labels, dtype=torch.int64)}
    return Batch(
        torch.from_numpy(ids), torch.from_numpy(segments), mask, targets, int(inside.sum()), len(rows)
    )


class PairHead(Head):
    """Pooled output (B, D) to two logits (B, 2), without dropout, as in transformers."""

    reads_pooled_only = True

    def __init__(self, hidden_size: int, initializer_range: float) -> None:
        super().__init__()
        self.classifier = nn.Linear(hidden_size, 2)
        nn.init.normal_(self.classifier.weight, std=initializer_range)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> Tensor:
        """Logits (B, 2)."""
        logits: Tensor = self.classifier(encoder.pool(hidden, batch.attention_mask))
        return logits


# --- objective ------------------------------------------------------------------------------------
class NspObjective(Objective):
    """See contracts.Objective."""

    def __init__(
        self, config: ObjectiveConfig, vocabulary: Vocabulary, label_names: Sequence[str] = ("next", "random")
    ) -> None:
        super().__init__(config, vocabulary, label_names)
        self.config = config

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Runs of sentences; see `prepare_runs`."""
        return prepare_runs(split, encode, self.config)

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        """Pairs and their labels, half of each class on average."""
        pairs, labels = [], []
        for row in rows:
            rng = (draw or FIXED).generator(int(row))
            first, second, label = self.pair(examples, int(row), rng)
            pairs.append((first, second))
            labels.append(label)
        return pair_batch(pairs, labels, self.special)

    def pair(
        self, examples: Examples, row: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """First text, second text, class."""
        first, second = cut_run(examples, row, rng)
        if rng.random() < 0.5:
            return first, second, 0
        return (
            first,
            partner(
                examples, row, len(second), max(1, int(examples.columns["target"][row]) - len(first)), rng
            ),
            1,
        )

    def build_head(self, encoder: Encoder, initializer_range: float) -> PairHead:
        """A linear layer on the pooled output."""
        return PairHead(encoder.hidden_size, initializer_range)

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Cross-entropy in nats, summed over pairs; float32."""
        return Loss(
            F.cross_entropy(outputs.float(), batch.targets["next"], reduction="sum"), batch.num_examples
        )

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, np.ndarray]:
        """Of each pair: nats, true class, whether it was recognised, probability of class 1."""
        return measure_pairs(outputs, batch)

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Loss (nats per pair) and accuracy; share_next, of the true class 0 (chance is near one half)."""
        return pair_metrics(measured)

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """Predicted and true class, and the probability of class 1."""
        return [
            {
                "label": self.label_names[int(p > 0.5)],
                "true": self.label_names[int(true)],
                "probability": float(p),
            }
            for p, true in zip(measured["probability"], measured["next"], strict=True)
        ]


def measure_pairs(logits: Tensor, batch: Batch) -> dict[str, np.ndarray]:
    """Of each pair `(B,)`: nats, class, whether it was recognised, probability of class 1."""
    label = batch.targets["next"]
    nats = F.cross_entropy(logits.float(), label, reduction="none").cpu().double()
    return {
        "pair_nats": nats.numpy(),
        "next": label.cpu().numpy(),
        "recognised": (logits.argmax(-1) == label).cpu().double().numpy(),
        "probability": logits.float().softmax(-1)[:, 1].cpu().numpy(),
    }


def pair_metrics(measured: dict[str, np.ndarray]) -> dict[str, Any]:
    """Scores of a split from `measure_pairs`' rows."""
    return {
        "loss": float(measured["pair_nats"].mean()),
        "accuracy": float(measured["recognised"].mean()),
        "share_next": float((measured["next"] == 0).mean()),
    }
