"""Minimal pairs scored by pseudo-log-likelihood: does a model of masked tokens find the right sentence of two
the likelier one?

A sentence's score is the sum over its tokens of log p(token | the sentence with that token masked) (Salazar
et al. 2020). With `word_l2r` the later tokens of the same word are masked too, so that a word does not give
its own beginning away (Kauf & Ivanova 2023). A pair is right where the good sentence's score is higher, half
right where both are equal; the softmax's temperature is 1.

What is exact and saves time: sentences of equal tokens are scored once; masked copies that are alike (the
sentences of a pair often differ in one word alone, and it is masked) are computed once; a batch holds copies
of one length, so that nothing is padded; the last layer and logits are computed at the masked places alone.
Scores are cached a piece of sentences at a time, under the content of all that they depend on.

Legend: N pairs, S sentences of T tokens, R masked copies, M logits rows, V vocabulary, U phenomena.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertlab.config.schema import Evaluation, ObjectiveConfig, Paths, Train
from bertlab.contracts import Batch, Objective
from bertlab.data.pairs import Pairs, PairsFile, find_pairs, read_pairs
from bertlab.data.tokenizer import Tokenizer
from bertlab.declarations import PAIRS_ACCURACY, PAIRS_TOKENS, PAIRS_WORDS
from bertlab.errors import ConfigError, DataError, DivergedError
from bertlab.runs.cache import cached
from bertlab.runs.files import digest
from bertlab.runs.identity import code_version, file_versions
from bertlab.runs.machine import Device
from bertlab.runs.progress import working
from bertlab.training.assembly import Model

PIECE = 4096  # sentences that are scored, and cached, together
BATCH_TOKENS = 8192  # of one forward pass
ROWS = 64  # rows of logits whose softmax stays in the cache of a processor
LEVEL = 0.95  # of all intervals here
COSTS = ("seconds", "core_seconds", "passes", "tokens")  # core seconds are honest where the machine is shared


# --- scores ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Scored:
    """The pairs, and of each of its sentences what the model says of it."""

    pairs: Pairs
    scores: np.ndarray  # (N, 2) float64: nats of the good and of the bad sentence, never positive
    tokens: np.ndarray  # (N, 2) int64: of each sentence, without special ones
    unknown: np.ndarray  # (N, 2) int64: of these, how many the vocabulary lacks
    # seconds, forward passes and tokens read when they were computed, cached ones included
    cost: dict[str, float]

    @cached_property
    def right(self) -> np.ndarray:
        """(N,) float64: 1, 0, or 0.5 for a tie."""
        good, bad = self.scores.T
        right: np.ndarray = np.where(good == bad, 0.5, good > bad)
        return right


@dataclass(frozen=True)
class Reader:
    """A run's model, on its device, and what it needs to read sentences."""

    config: Train
    model: Model
    objective: Objective
    tokenizer: Tokenizer
    device: Device


@torch.no_grad()
def score_pairs(reader: Reader, pairs: Pairs, paths: Paths, scoring: str = "token") -> Scored:
    """Each sentence's pseudo-log-likelihood. Raises DataError for a sentence that does not fit, DivergedError
    for scores that are none.
    """
    model, tokenizer = reader.model, reader.tokenizer
    longest = math.inf if model.encoder.longest is None else model.encoder.longest
    encoded = [tokenizer(texts) for texts in (pairs.good, pairs.bad)]
    for texts, rows in zip((pairs.good, pairs.bad), encoded, strict=True):
        for text, ids in zip(texts, rows, strict=True):
            if not ids:
                raise DataError(
                    f"{pairs.where}: {text[:60]!r} holds no token of this run's tokenizer; drop such pairs"
                )
            if len(ids) + 2 > longest:
                raise DataError(
                    f"{pairs.where}: {text[:60]!r}… takes {len(ids) + 2} tokens, the model's positions reach"
                    f" {longest}"
                )
    number: dict[tuple[int, ...], int] = {}  # of each sentence, in the order of pairs
    places = np.array(
        [[number.setdefault(tuple(ids), len(number)) for ids in pair] for pair in zip(*encoded, strict=True)]
    )
    sentences = list(number)
    parts = (reader.config.model, reader.config.objective)
    known = {
        "weights": weights_digest(model),
        "parts": [part.deciding() for part in parts],
        "tokenizer": digest(tokenizer.to_json()),  # for what goes on with a word
        "numerics": [reader.device.device.type, reader.device.precision, reader.config.compute.compile],
        "scoring": scoring,
        "code": [code_version(Path(__file__)), *(file_versions(part) for part in parts)],
    }
    was_training = model.training
    model.eval()
    pieces, cost = [], dict.fromkeys(COSTS, 0.0)
    try:
        with working("scoring pairs", len(sentences), "sentences") as bar:
            for start in range(0, len(sentences), PIECE):
                piece = sentences[start : start + PIECE]

                def fill(folder: Path, piece: list[tuple[int, ...]] = piece) -> None:
                    began = time.perf_counter(), time.process_time()
                    scores, passes, tokens = score_sentences(reader, piece, scoring)
                    np.save(folder / "scores.npy", scores)
                    spent = time.perf_counter() - began[0], time.process_time() - began[1]
                    told = dict(zip(COSTS, (*spent, passes, tokens), strict=True))
                    (folder / "cost.json").write_text(json.dumps(told), encoding="utf-8")

                folder = cached(paths, "pairs", digest({**known, "sentences": piece}), fill)
                pieces.append(np.load(folder / "scores.npy"))
                for name, value in json.loads((folder / "cost.json").read_text(encoding="utf-8")).items():
                    cost[name] += value
                bar.advance(len(piece))
    finally:
        model.train(was_training)
    lengths = np.array([len(ids) for ids in sentences])
    unknown = np.array([ids.count(tokenizer.special.unk_id) for ids in sentences])
    return Scored(pairs, np.concatenate(pieces)[places], lengths[places], unknown[places], cost)


def weights_digest(model: Model) -> str:
    """Of a model's weights and their names."""
    told = hashlib.sha256()
    for name, value in model.state_dict().items():
        told.update(name.encode())
        told.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return told.hexdigest()


def score_sentences(
    reader: Reader, sentences: Sequence[tuple[int, ...]], scoring: str
) -> tuple[np.ndarray, int, int]:
    """`(S,) float64` nats of token lists without special tokens; masked copies that went through the model,
    and their tokens.
    """
    scores, passes, tokens = np.zeros(len(sentences)), 0, 0
    lengths = np.array([len(ids) for ids in sentences])
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        copies = MaskedCopies.of(
            np.array([sentences[row] for row in rows.tolist()]), reader.objective, scoring
        )
        nats = np.empty(copies.labels.shape)
        for part, asked in copies.batches():
            nats[asked] = log_probabilities(reader, copies, part, asked)
        scores[rows] = nats.reshape(len(rows), -1).sum(1)
        passes, tokens = passes + len(copies.inputs), tokens + copies.inputs.size
    if not np.isfinite(scores).all():
        raise DivergedError("pairs: the model's outputs are not finite numbers")
    return scores, passes, tokens


@dataclass(frozen=True)
class MaskedCopies:
    """What the model reads to score sentences of one length, each masked copy once."""

    inputs: np.ndarray  # (R, T + 2) int64
    places: np.ndarray  # (R,) int64: where a token is asked for
    labels: np.ndarray  # (S * T,) int64: the tokens of all sentences, one after the other
    # (S * T,) int64: the row that each of them is asked of; a pair's sentences share one where only its token
    # differs
    copy: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, objective: Objective, scoring: str) -> "MaskedCopies":
        """Of sentences `(S, T) int64`, framed as in training: `[CLS] … [SEP]`."""
        special, (count, length) = objective.special, ids.shape
        places = np.arange(length)
        last = (
            word_ends(ids, objective.vocabulary.continues)
            if scoring == "word_l2r"
            else np.broadcast_to(places, ids.shape)
        )
        # (S, T, T): of the copy that asks for a token, what is masked
        hidden = (places >= places[:, None]) & (places <= last[:, :, None])
        inputs = np.empty((count, length, length + 3), dtype=np.int64)
        inputs[:, :, 0], inputs[:, :, -2], inputs[:, :, -1] = special.cls_id, special.sep_id, places + 1
        inputs[:, :, 1:-2] = np.where(hidden, special.mask_id, ids[:, None])
        unique, copy = np.unique(inputs.reshape(count * length, -1), axis=0, return_inverse=True)
        return cls(unique[:, :-1], unique[:, -1], ids.reshape(-1), copy.reshape(-1))

    def batches(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows that go through the model together, and the numbers of the tokens that are asked of them."""
        size = max(1, BATCH_TOKENS // self.inputs.shape[1])
        order = np.argsort(self.copy, kind="stable")
        for start in range(0, len(self.inputs), size):
            first, last = np.searchsorted(self.copy[order], (start, start + size))
            yield slice(start, start + size), order[first:last]


def word_ends(ids: np.ndarray, continues: np.ndarray) -> np.ndarray:
    """`(S, T) int64`: the last place of the word that each token of `ids (S, T)` is of; `continues (V,)` says
    which go on with a word.
    """
    length = ids.shape[1]
    is_last = np.ones(ids.shape, dtype=bool)
    is_last[:, :-1] = ~continues[ids[:, 1:]]
    ends = np.where(is_last, np.arange(length), length)
    nearest_end: np.ndarray = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    return nearest_end


def log_probabilities(reader: Reader, copies: MaskedCopies, part: slice, asked: np.ndarray) -> np.ndarray:
    """Nats of the asked tokens, `(len(asked),) float64`; the softmax in float32."""
    inputs, places = torch.from_numpy(copies.inputs[part]), torch.from_numpy(copies.places[part])
    rows, labels = torch.from_numpy(copies.copy[asked] - part.start), torch.from_numpy(copies.labels[asked])
    # the head sees one place a row, `hidden (B, 1, D)`
    masked = torch.arange(len(inputs))
    targets = {"masked": masked, "label": torch.zeros_like(masked), "place": places}
    targets |= {"row": rows, "asked": labels}
    batch = Batch(inputs, torch.zeros_like(inputs), None, targets, inputs.numel(), len(inputs)).to(
        reader.device.device
    )
    with reader.device.autocast():
        encoder = reader.model.encoder
        hidden = encoder.at_places(batch.input_ids, batch.segment_ids, batch.targets["place"])
        outputs = reader.model.head(encoder, hidden[:, None], batch)
        logits: Tensor = reader.objective.token_logits(outputs)  # (M, V)
    rows, labels = batch.targets["row"], batch.targets["asked"]
    normalisers = torch.cat([some.float().logsumexp(1) for some in torch.split(logits, ROWS)])
    nats: np.ndarray = (logits[rows, labels].float() - normalisers[rows]).cpu().double().numpy()
    return nats


# --- accuracy -------------------------------------------------------------------------------------
def wilson(right: float, count: int) -> tuple[float, float]:
    """Interval of a share, `right` of `count` (Wilson 1927); at `LEVEL`."""
    from scipy import stats  # a second to import, which a skipped run does not wait for

    z2 = float(stats.norm.ppf((1 + LEVEL) / 2)) ** 2
    middle, share = (right + z2 / 2) / (count + z2), right / count
    half = math.sqrt(z2 * (count * share * (1 - share) + z2 / 4)) / (count + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(shares: np.ndarray, intervals: np.ndarray) -> tuple[float, float]:
    """Interval of the mean of independent shares `(U,)` from their own, `(U, 2)` (Zou & Donner 2008, MOVER);
    of one share its own.
    """
    below, above = (
        float(np.sqrt(((shares - intervals[:, side]) ** 2).sum())) / len(shares) for side in (0, 1)
    )
    return float(shares.mean()) - below, float(shares.mean()) + above


def result_of(source: PairsFile, scoring: str, scored: Scored) -> dict[str, Any]:
    """What is kept: which pairs, scored how, and `summarise`."""
    return {"pairs": source.name, "sha256": source.digest(), "scoring": scoring, **summarise(scored)}


def summarise(scored: Scored) -> dict[str, Any]:
    """JSON-ready: accuracy, the mean over phenomena, with two intervals; that of each phenomenon and group;
    cost.

    `pairs/interval` is over pairs, of the same phenomena; `pairs/interval_over_phenomena` takes the phenomena
    themselves for a sample.
    """
    names = np.array(scored.pairs.phenomena)
    phenomena: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(scored.pairs.phenomena):
        right = scored.right[names == name]
        share = float(right.mean())
        low, high = wilson(float(right.sum()), len(right))
        phenomena[name] = {
            "accuracy": share,
            "interval": [low, high],
            "pairs": len(right),
            "ties": int((right == 0.5).sum()),
        }
    groups: dict[str, dict[str, Any]] = {}
    for column, cells in scored.pairs.groups.items():
        of_phenomenon = dict(zip(scored.pairs.phenomena, cells, strict=True))
        groups[column] = {
            group: _mean_of([told for name, told in phenomena.items() if of_phenomenon[name] == group])
            for group in dict.fromkeys(cells)
        }
    whole = _mean_of(list(phenomena.values()))
    shares = np.array([told["accuracy"] for told in phenomena.values()])
    told: dict[str, Any] = {
        PAIRS_ACCURACY.name: whole["accuracy"],
        "pairs/interval": whole["interval"],
        "pairs/pairs": len(scored.pairs),
        "pairs/ties": whole["ties"],
        "pairs/with_unknown_tokens": int((scored.unknown.sum(1) > 0).sum()),
        "phenomena": phenomena,
        "groups": groups,
        "cost": {name: round(value, 3) for name, value in scored.cost.items()},
    }
    if len(shares) > 1:
        from scipy import stats

        t = stats.t.ppf((1 + LEVEL) / 2, len(shares) - 1)
        half = float(t * shares.std(ddof=1) / math.sqrt(len(shares)))
        low, high = float(shares.mean()) - half, float(shares.mean()) + half
        told["pairs/interval_over_phenomena"] = [max(0.0, low), min(1.0, high)]
    return told


def _mean_of(phenomena: list[dict[str, Any]]) -> dict[str, Any]:
    shares = np.array([told["accuracy"] for told in phenomena])
    low, high = mean_interval(shares, np.array([told["interval"] for told in phenomena]))
    pairs, ties = (sum(told[name] for told in phenomena) for name in ("pairs", "ties"))
    return {"accuracy": float(shares.mean()), "interval": [low, high], "pairs": pairs, "ties": ties}


# --- in a run's life ------------------------------------------------------------------------------
def refuse_others(objective: ObjectiveConfig, asked: str) -> None:
    """Raises ConfigError where an objective does not say what stands at hidden places."""
    if not objective.predicts_tokens:
        raise ConfigError(
            f"{asked}: objective={objective.name} predicts no hidden tokens, so that it cannot score"
            " sentences; a run with objective=mlm or mlm_nsp can"
        )


def pairs_of(config: Train) -> PairsFile | None:
    """What `evaluation.pairs` names; None where it names nothing. Raises UserError for what is not there, or
    cannot be scored.
    """
    if config.evaluation.pairs is None:
        return None
    refuse_others(config.objective, f"evaluation.pairs={config.evaluation.pairs}")
    return find_pairs(config.evaluation.pairs, config.paths, "evaluation.pairs")


def pairs_name(source: PairsFile, scoring: str) -> str:
    """What a result is kept under: a file of the user's own with its checksum, for others may be
    called so.
    """
    name = source.name if source.is_preset else f"{source.name}-{source.digest()[:8]}"
    return name if scoring == "token" else f"{name}-{scoring}"


def sampled(pairs: Pairs, each: int | None) -> Pairs:
    """Of each phenomenon so many pairs, evenly spread over all of its own; all of them for None."""
    if each is None:
        return pairs
    places: dict[str, list[int]] = {}
    for place, name in enumerate(pairs.phenomena):
        places.setdefault(name, []).append(place)
    kept = sorted(
        own[index]
        for own in places.values()
        for index in np.unique(np.linspace(0, len(own) - 1, min(each, len(own))).round().astype(int))
    )

    def of(cells: list[str]) -> list[str]:
        return [cells[place] for place in kept]

    groups = {column: of(cells) for column, cells in pairs.groups.items()}
    return Pairs(pairs.where, of(pairs.good), of(pairs.bad), of(pairs.phenomena), groups)


class PairsScorer:
    """What `evaluation` says of pairs, ready to score a run's weights as they are at any moment."""

    def __init__(self, reader: Reader, source: PairsFile) -> None:
        self.reader, self.source = reader, source
        self.pairs = sampled(
            read_pairs(source, reader.config.dataset.cleaner()), reader.config.evaluation.pairs_each
        )

    def __call__(self) -> dict[str, Any]:
        """See `result_of`."""
        config = self.reader.config
        scoring, each = config.evaluation.pairs_scoring, config.evaluation.pairs_each
        told = result_of(self.source, scoring, score_pairs(self.reader, self.pairs, config.paths, scoring))
        return told if each is None else {**told, "each": each}


class Snapshots:
    """The moments of `evaluation.snapshots`, and what is measured at them.

    Words seen are epochs times the words of the training texts: exact after each epoch, a share of it within.
    """

    def __init__(self, config: Evaluation, words: int, scorer: PairsScorer) -> None:
        self.moments, self.in_words = list(config.snapshots), config.snapshot_unit == "words"
        self.words, self.scorer = words, scorer

    def seen(self, tokens: int, epoch: float) -> float:
        """In the unit of the moments."""
        return epoch * self.words if self.in_words else tokens

    def due(self, before: float, after: float) -> bool:
        """Whether a moment lies in the step that led from `before` to `after`: a resumed run finds the same
        steps.
        """
        return any(before < moment <= after for moment in self.moments)

    def record(self, tokens: int, epoch: float) -> dict[str, float]:
        """What goes to the trackers."""
        told = self.scorer()
        return {
            PAIRS_ACCURACY.name: told[PAIRS_ACCURACY.name],
            PAIRS_TOKENS: tokens,
            PAIRS_WORDS: round(epoch * self.words),
        }

    def missed(self, tokens: int, epoch: float) -> list[float]:
        """Moments that training ended before."""
        return [moment for moment in self.moments if moment > self.seen(tokens, epoch)]
