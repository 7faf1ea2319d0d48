"""Hiding tokens, shared by the objectives that predict them: which, as what, and the scores of the guesses.

Units: single tokens; whole words (Devlin's later code; Cui et al. 2019); spans of words (Joshi et al. 2020, SpanBERT, §3.1: geometric
lengths, p = 0.2, at most 10 words).

Legend: B batch, T tokens, V vocabulary, M masked tokens of a batch.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bertlab.config import ObjectiveConfig, choice, number
from bertlab.contracts import FIXED, Batch, Draw, Loss, Vocabulary
from bertlab.errors import ConfigError, DataError

NOTHING_TO_MASK = "there is no text to predict tokens of: a split holds nothing but special and unknown tokens"
MASKS = 1  # the stream of masks; 0 draws sentence pairs
SPAN_CONTINUES, SPAN_LONGEST = 0.8, 10  # SpanBERT §3.1: each further word with 1 - p = 0.8, at most 10
SPAN_LENGTHS = SPAN_CONTINUES ** np.arange(SPAN_LONGEST) / (SPAN_CONTINUES ** np.arange(SPAN_LONGEST)).sum()  # mean 3.8


@dataclass
class Masked(ObjectiveConfig):
    """How many tokens are predicted, which, and what becomes of them."""

    rate: float = number(0.15, "share of a block's tokens that is predicted", above=0, below=1)
    final_rate: float | None = number(None, "the share at the end of training, reached on a straight line; null = rate", above=0, below=1)
    mask_share: float = number(0.8, "of these, how many become the mask token", low=0, high=1)
    random_share: float = number(0.1, "of these, how many become any token of the vocabulary; the rest stays as it is", low=0, high=1)
    unit: str = choice("token", "token", "word", "span", help="what is hidden together: a token, a whole word, a span of words")
    evaluation_rate: float = number(0.15, "share predicted when scoring: single tokens, the same in every run", above=0, below=1)

    def check(self, path: str) -> None:
        """Shares of a whole."""
        if self.mask_share + self.random_share > 1 + 1e-9:
            shares = f"{path}.mask_share={self.mask_share} and {path}.random_share={self.random_share}"
            raise ConfigError(f"{shares} are more than 1 together")


@dataclass(frozen=True)
class Masking:
    """How tokens are chosen and what they become."""

    vocabulary: Vocabulary
    unit: str
    mask_share: float
    random_share: float

    def apply(self, ids: np.ndarray, rows: np.ndarray, draw: Draw, rate: float) -> tuple[np.ndarray, np.ndarray]:
        """Hide tokens of `ids (B, T)` in place; returns their flat positions and what they were, both `(M,) int64`."""
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
        """Positions of one row `(T,)`: round(rate x its ordinary tokens) of them, at least one; fewer where no whole unit fits any more."""
        candidates = np.flatnonzero(~self.vocabulary.is_special[ids])
        wanted = min(len(candidates), max(1, round(rate * len(candidates))))
        if self.unit == "token" or len(candidates) == 0:
            return np.sort(rng.permutation(candidates)[:wanted])
        # Words: a token that continues its left neighbour belongs to its word.
        opens = ~self.vocabulary.continues[ids[candidates]] | (np.diff(candidates, prepend=-2) > 1)
        words: list[np.ndarray] = np.split(candidates, np.flatnonzero(opens)[1:])
        spans = self._spans(len(words), rng) if self.unit == "span" else ([index] for index in rng.permutation(len(words)))
        taken = np.zeros(len(words), dtype=bool)
        count = 0
        for span in spans:
            for word in span:
                if not taken[word] and count + len(words[word]) <= wanted:
                    taken[word] = True
                    count += len(words[word])
            if count == wanted:
                break
        return np.concatenate([candidates[:0], *(words[index] for index in np.flatnonzero(taken))])

    @staticmethod
    def _spans(words: int, rng: np.random.Generator) -> Iterator[range]:
        for start in [*rng.permutation(words), *rng.permutation(words)]:  # twice: what the first round could not fill up
            length = int(rng.choice(np.arange(1, SPAN_LONGEST + 1), p=SPAN_LENGTHS))
            yield range(int(start), min(words, int(start) + length))


@dataclass
class Projection:
    """Logits over the vocabulary that nobody has computed yet: `hidden (M, D)` times `weight (V, D)`, plus `bias (V,)`."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self) -> Tensor:
        """`(M, V)`."""
        return F.linear(self.hidden, self.weight, self.bias)

    def deferred(self) -> "Tensor | Projection":
        """The logits; for training on a CPU itself, of which `masked_loss` makes the loss without sending logits through memory."""
        if self.hidden.device.type != "cpu" or not (self.hidden.requires_grad and torch.is_grad_enabled()):
            return self.logits()
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.hidden.dtype
        return replace(self, hidden=self.hidden.to(dtype))


def masked_loss(logits: Tensor | Projection, batch: Batch) -> Loss:
    """Cross-entropy in nats of logits (M, V), summed over masked tokens; float32."""
    label = batch.targets["label"]
    if isinstance(logits, Projection):
        total = SummedCrossEntropy.apply(logits.hidden, logits.weight, logits.bias, label)  # type: ignore[no-untyped-call]  # torch's has no types
    else:
        total = F.cross_entropy(logits.float(), label, reduction="sum")
    return Loss(total, max(1, len(label)))


class SummedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of `hidden (M, D) @ weight (V, D).T + bias (V,)` with label (M,), summed, with all its gradients computed on the way.

    Products run in hidden's dtype, the softmax in float32 (or float64) a few rows at a time, so that it stays in the cache; its gradient
    (softmax less the one right class) takes the logits' place. First order only.
    """

    BLOCK, ROWS = 2048, 16

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, label: Tensor) -> Tensor:
        narrow, narrow_bias = weight.detach().to(hidden.dtype), bias.detach().to(hidden.dtype)
        exact = torch.promote_types(hidden.dtype, torch.float32)
        total = torch.zeros((), dtype=exact)
        to_hidden, to_weight, to_bias = torch.empty_like(hidden), None, torch.zeros_like(bias, dtype=exact)
        blocks = (torch.split(rows, SummedCrossEntropy.BLOCK) for rows in (hidden.detach(), label[:, None], to_hidden))
        for states, labels, gradient in zip(*blocks, strict=True):
            logits = torch.addmm(narrow_bias, states, narrow.T)  # (block, V)
            parts = (torch.split(rows, SummedCrossEntropy.ROWS) for rows in (logits, labels))
            for part, right in zip(*parts, strict=True):
                x = part.to(exact, copy=True)
                x -= x.amax(1, keepdim=True)
                total -= x.gather(1, right).sum()
                x.exp_()
                normaliser = x.sum(1, keepdim=True)
                total += normaliser.log().sum()
                x /= normaliser
                x.scatter_add_(1, right, torch.full_like(normaliser, -1.0))
                to_bias += x.sum(0)
                part.copy_(x)
            torch.mm(logits, narrow, out=gradient)
            product = (logits.T @ states).to(weight.dtype)
            to_weight = product if to_weight is None else to_weight.add_(product)
        ctx.save_for_backward(to_hidden, torch.zeros_like(weight) if to_weight is None else to_weight, to_bias.to(bias.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # In place: fresh memory costs ten times the product. A second backward pass is refused by torch, as the saved tensors have changed.
        return *(gradient.mul_(upstream) for gradient in ctx.saved_tensors), None


def mask_batch(objective: Any, ids: np.ndarray, rows: np.ndarray, draw: Draw | None) -> dict[str, Tensor]:
    """Hide tokens of `ids` in place, for training by `draw` or, for None, the same in every evaluation; the targets."""
    config = objective.config
    if draw is None:
        positions, labels = objective.scoring.apply(ids, rows, FIXED, config.evaluation_rate)
    else:
        final = config.rate if config.final_rate is None else config.final_rate
        rate = config.rate + (final - config.rate) * draw.progress
        positions, labels = objective.training.apply(ids, rows, draw, rate)
    return {"masked": torch.from_numpy(positions), "label": torch.from_numpy(labels)}


def measure_masked(logits: Tensor, batch: Batch, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """Sums over the masked tokens of each example, each `(B,)`."""
    label, count = batch.targets["label"], len(batch.input_ids)
    nats = F.cross_entropy(logits.float(), label, reduction="none").cpu().double().numpy()
    right = (logits.argmax(-1) == label).cpu().numpy()
    example = (batch.targets["masked"] // batch.input_ids.shape[1]).cpu().numpy()
    weights = {"nats": nats, "right": right, "masked": np.ones(len(nats)), "characters": vocabulary.characters[label.cpu().numpy()]}
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
