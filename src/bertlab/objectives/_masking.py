"""Hiding tokens, shared by the objectives that predict them: which, as what, and the scores of the guesses.

Units: single tokens; whole words (Devlin's later code; Cui et al. 2019); spans of words (Joshi et al. 2020,
SpanBERT, §3.1: geometric lengths, p = 0.2, at most 10 words).

Words are put in random order, and a window as long as the asked share is laid over their tokens. A word that
one of its ends cuts is hidden whole with the probability of its covered part, so that the share is met on
average and no length of word is preferred. Where the window holds no whole word and might so hide none, its
own tokens are hidden: parts of one or two words. Differs from Devlin's code, which skips words that do not
fit: in texts of long words it hides punctuation alone, or nothing.

Legend: B batch, T tokens, V vocabulary, M masked tokens of a batch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bertlab.config.schema import ObjectiveConfig, choice, number
from bertlab.contracts import (
    BITS_PER_CHARACTER,
    FIXED,
    TEXT,
    TEXT_PAIR,
    Batch,
    Draw,
    Loss,
    Metric,
    Vocabulary,
    loss_metric,
)
from bertlab.errors import ConfigError, DataError
from bertlab.kernels import SummedCrossEntropy

PER_TOKEN = "nats per masked token"
NOTHING_TO_MASK = (
    "there is no text to predict tokens of: a split holds nothing but special and unknown tokens;"
    " tokenizer=bpe knows every text, wordpiece's tokenizer.max_word_characters longer words"
)
MASKS = 1  # the stream of masks; 0 draws sentence pairs
SPAN_CONTINUES, SPAN_LONGEST = 0.8, 10  # SpanBERT §3.1: each further word with 1 - p = 0.8, at most 10
# mean 3.8
SPAN_LENGTHS = SPAN_CONTINUES ** np.arange(SPAN_LONGEST) / (SPAN_CONTINUES ** np.arange(SPAN_LONGEST)).sum()


@dataclass
class Masked(ObjectiveConfig):
    """How many tokens are predicted, which, and what becomes of them."""

    roles: ClassVar = (TEXT, TEXT_PAIR)
    prepared_by: ClassVar[tuple[str, ...] | None] = ("max_length", "packing")
    predicts: ClassVar = False
    predicts_tokens: ClassVar = True
    loss_unit: ClassVar = PER_TOKEN

    rate: float = number(0.15, "share of a block's tokens that is predicted", above=0, below=1)
    final_rate: float | None = number(
        None, "the share at the end of training, reached on a straight line; null = rate", above=0, below=1
    )
    mask_share: float = number(0.8, "of these, how many become the mask token", low=0, high=1)
    random_share: float = number(
        0.1, "of these, how many become any token of the vocabulary; the rest stays as it is", low=0, high=1
    )
    unit: str = choice(
        "token",
        "token",
        "word",
        "span",
        help="what is hidden together: a token, a whole word, a span of words",
    )
    evaluation_rate: float = number(
        0.15, "share predicted when scoring: single tokens, the same in every run", above=0, below=1
    )
    logit_softcap: float | None = number(
        None, "logits l of the vocabulary become c tanh(l / c) (Gemma 2: c = 30); null = as they are", above=0
    )
    z_loss: float = number(
        0.0,
        "weight of (log Z)^2 beside each token's loss in training, Z the softmax's normaliser (Chowdhery et"
        " al. 2022, §5: 1e-4)",
        low=0,
    )

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        """See `masked_metrics`."""
        return masked_specs()

    def needs_end(self) -> str | None:
        """A rate that moves ends somewhere."""
        return None if self.final_rate is None else "final_rate"

    def check(self, path: str) -> None:
        """Shares of a whole."""
        if self.mask_share + self.random_share > 1 + 1e-9:
            shares = f"{path}.mask_share={self.mask_share} and {path}.random_share={self.random_share}"
            raise ConfigError(f"{shares} are more than 1 together")


def masked_specs(prefix: str = "") -> tuple[Metric, ...]:
    """What `masked_metrics` scores."""
    return (
        loss_metric(PER_TOKEN, f"{prefix}loss", per_token=True),
        Metric(f"{prefix}masked_accuracy", higher_is_better=True, per_token=True),
        Metric(f"{prefix}perplexity", higher_is_better=False, unit="", bounds=(1.0, None), per_token=True),
        loss_metric(BITS_PER_CHARACTER, f"{prefix}bits_per_character"),
    )


@dataclass(frozen=True)
class Masking:
    """How tokens are chosen and what they become."""

    vocabulary: Vocabulary
    unit: str
    mask_share: float
    random_share: float

    def apply(
        self, ids: np.ndarray, rows: np.ndarray, draw: Draw, rate: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Hide tokens of `ids (B, T)` in place; returns their flat positions and what they were, both `(M,)
        int64`.
        """
        ordinary = np.flatnonzero(~self.vocabulary.is_special)
        positions, labels = [], []
        for index, row in enumerate(rows):
            rng = draw.generator(int(row), MASKS)
            chosen = self.choose(ids[index], rate, rng)
            fate = rng.random(len(chosen))
            drawn = ordinary[rng.integers(len(ordinary), size=len(chosen))]
            before = ids[index, chosen]
            after = np.where(fate < self.mask_share + self.random_share, drawn, before)
            ids[index, chosen] = np.where(fate < self.mask_share, self.vocabulary.special.mask_id, after)
            positions.append(index * ids.shape[1] + chosen)
            labels.append(before)
        return np.concatenate(positions), np.concatenate(labels)

    def choose(self, ids: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
        """Positions of one row `(T,)`, in order: round(rate x its ordinary tokens) of them, of words and
        spans on average; at least one.
        """
        candidates = np.flatnonzero(~self.vocabulary.is_special[ids])
        if self.unit == "token" or len(candidates) == 0:
            wanted = min(len(candidates), max(1, round(rate * len(candidates))))
            return np.sort(rng.permutation(candidates)[:wanted])
        # Words: a token that continues its left neighbour belongs to its word.
        opens = ~self.vocabulary.continues[ids[candidates]] | (np.diff(candidates, prepend=-2) > 1)
        first = np.flatnonzero(opens)
        lengths = np.diff(first, append=len(candidates))
        # from within the first: a random place would lie among the remains that earlier spans left
        if self.unit == "span":
            order = np.asarray(
                list(dict.fromkeys(word for span in self._spans(len(first), rng) for word in span))
            )
            start = int(rng.integers(lengths[order[0]]))
        else:
            order, start = rng.permutation(len(first)), int(rng.integers(len(candidates)))
        ordered = lengths[order]
        # word after word
        tokens = np.repeat(first[order] + ordered - np.cumsum(ordered), ordered) + np.arange(len(candidates))
        wanted = min(len(candidates), max(1, int(rate * len(candidates) + rng.random())))
        window = tokens[(start + np.arange(wanted)) % len(tokens)]
        word = np.cumsum(opens) - 1  # of each candidate
        covered = np.bincount(word[window], minlength=len(first)) / lengths
        taken, cut = covered == 1, np.flatnonzero((covered > 0) & (covered < 1))
        if not taken.any() and covered[cut].sum() < 1:
            return candidates[np.sort(window)]
        # one for both ends, so that one of the two is taken where their parts make a whole
        draw = rng.random()
        taken[cut[:1]], taken[cut[1:]] = draw < covered[cut[:1]], draw >= 1 - covered[cut[1:]]
        hidden: np.ndarray = candidates[taken[word]]
        return hidden

    @staticmethod
    def _spans(words: int, rng: np.random.Generator) -> Iterator[range]:
        starts, lengths = rng.permutation(words), 1 + rng.choice(SPAN_LONGEST, size=words, p=SPAN_LENGTHS)
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            yield range(start, min(words, start + length))


@dataclass
class Projection:
    """Logits over the vocabulary that nobody has computed yet: `hidden (M, D)` times `weight (V, D)`, plus
    `bias (V,)`, soft-capped.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    softcap: float | None = None

    def logits(self) -> Tensor:
        """`(M, V)`."""
        logits = F.linear(self.hidden, self.weight, self.bias)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def deferred(self) -> "Tensor | Projection":
        """The logits; for training on a CPU itself, of which `masked_loss` makes the loss without sending
        logits through memory.
        """
        if self.hidden.device.type != "cpu" or not (self.hidden.requires_grad and torch.is_grad_enabled()):
            return self.logits()
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.hidden.dtype
        return replace(self, hidden=self.hidden.to(dtype))


def masked_loss(logits: Tensor | Projection, batch: Batch, z_weight: float = 0.0) -> Loss:
    """Cross-entropy in nats of logits (M, V), summed over masked tokens, and `z_weight` (log Z)^2 of each;
    float32.
    """
    return vocabulary_loss(logits, batch.targets["label"], z_weight)


def vocabulary_loss(logits: Tensor | Projection, label: Tensor, z_weight: float = 0.0) -> Loss:
    """The same with `label (M,)` given."""
    if isinstance(logits, Projection):
        total = SummedCrossEntropy.apply(  # type: ignore[no-untyped-call]  # torch's has no types
            logits.hidden, logits.weight, logits.bias, label, logits.softcap, z_weight
        )
    else:
        total = F.cross_entropy(logits.float(), label, reduction="sum")
        if z_weight > 0:
            total = total + z_weight * logits.float().logsumexp(-1).square().sum()
    return Loss(total, len(label))


def mask_batch(
    config: Masked, training: Masking, scoring: Masking, ids: np.ndarray, rows: np.ndarray, draw: Draw | None
) -> tuple[dict[str, Tensor], dict[str, tuple[float, float]]]:
    """Hide tokens of `ids` in place, for training by `draw` or, for None, the same in every evaluation; the
    targets, and Batch.counts.
    """
    if draw is None:
        positions, labels = scoring.apply(ids, rows, FIXED, config.evaluation_rate)
        counts = {}
    else:
        final = config.rate if config.final_rate is None else config.final_rate
        rate = config.rate + (final - config.rate) * draw.progress
        ordinary = np.count_nonzero(~training.vocabulary.is_special[ids])
        positions, labels = training.apply(ids, rows, draw, rate)
        counts = {"masked_share": (float(len(labels)), float(ordinary))}
    return {"masked": torch.from_numpy(positions), "label": torch.from_numpy(labels)}, counts


def measure_masked(logits: Tensor, batch: Batch, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """Sums over the masked tokens of each example, each `(B,)`."""
    label, count = batch.targets["label"], len(batch.input_ids)
    nats = F.cross_entropy(logits.float(), label, reduction="none").cpu().double().numpy()
    right = (logits.argmax(-1) == label).cpu().numpy()
    example = (batch.targets["masked"] // batch.input_ids.shape[1]).cpu().numpy()
    weights = {
        "nats": nats,
        "right": right,
        "masked": np.ones(len(nats)),
        "characters": vocabulary.characters[label.cpu().numpy()],
    }
    return {name: np.bincount(example, values, minlength=count) for name, values in weights.items()}


def masked_metrics(measured: dict[str, np.ndarray]) -> dict[str, Any]:
    """Scores of a split from `measure_masked`'s rows. Raises DataError where nothing was masked."""
    nats, masked = float(measured["nats"].sum()), float(measured["masked"].sum())
    if masked == 0:
        raise DataError(NOTHING_TO_MASK)  # no score is better than a made-up one
    return {
        "loss": nats / masked,
        "masked_accuracy": float(measured["right"].sum()) / masked,
        "perplexity": math.exp(min(nats / masked, 700.0)),
        "bits_per_character": nats / math.log(2) / max(1.0, float(measured["characters"].sum())),
    }
