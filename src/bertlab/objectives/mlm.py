"""Masked-language modelling (Devlin et al. 2019, §3.1 task 1): some tokens are hidden, the encoder says which they were.

Units: single tokens; whole words (Devlin's later code; Cui et al. 2019); spans of words (Joshi et al. 2020, SpanBERT, §3.1: geometric
lengths, p = 0.2, at most 10 words). The head is transformers' BertForPreTraining's: dense, activation, norm, and a projection to the
vocabulary tied to the token embedding, computed only at the hidden positions.

Differs: hidden positions are drawn afresh in every epoch, keyed by (seed, epoch, example), instead of once for ten copies of the
corpus; as many as the rate says in every block, so that shapes stay the same; the unknown token is never hidden.

Legend: B batch, T tokens, D width, V vocabulary, M masked tokens of a batch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bertlab.config import ObjectiveConfig, choice, flag, number
from bertlab.contracts import FIXED, Batch, Draw, Encode, Encoder, Examples, Loss, Metric, Vocabulary, examples_of, pad_rows
from bertlab.errors import ConfigError, DataError
from bertlab.objectives._documents import batched, documents, pack

COLUMNS = ("text",)  # what a dataset must have
PREDICTS = False  # it has no labels to give to texts of the user's own
NOTHING_TO_MASK = "there is no text to predict tokens of: a split holds nothing but special and unknown tokens"
MASKS = 1  # the stream of masks; 0 draws sentence pairs
SPAN_CONTINUES, SPAN_LONGEST = 0.8, 10  # SpanBERT §3.1: each further word with 1 - p = 0.8, at most 10
SPAN_LENGTHS = SPAN_CONTINUES ** np.arange(SPAN_LONGEST) / (SPAN_CONTINUES ** np.arange(SPAN_LONGEST)).sum()  # mean 3.8


@dataclass
class Mlm(ObjectiveConfig):
    """Hide tokens in blocks of text and predict them; texts are packed into full blocks."""

    rate: float = number(0.15, "share of a block's tokens that is predicted", above=0, below=1)
    final_rate: float | None = number(None, "the share at the end of training, reached on a straight line; null = rate", above=0, below=1)
    mask_share: float = number(0.8, "of these, how many become the mask token", low=0, high=1)
    random_share: float = number(0.1, "of these, how many become any token of the vocabulary; the rest stays as it is", low=0, high=1)
    unit: str = choice("token", "token", "word", "span", help="what is hidden together: a token, a whole word, a span of words")
    evaluation_rate: float = number(0.15, "share predicted when scoring: single tokens, the same in every run", above=0, below=1)
    packing: str = choice("blocks", "blocks", "documents", help="blocks: filled across documents; documents: a block holds one at most")
    attend_across: bool = flag(True, "tokens of one block see each other also across documents")

    def check(self, path: str) -> None:
        """Shares of a whole."""
        check_shares(self.mask_share, self.random_share, path)


def check_shares(mask_share: float, random_share: float, path: str) -> None:
    """Raises ConfigError where they are more than all."""
    if mask_share + random_share > 1 + 1e-9:
        raise ConfigError(f"{path}.mask_share={mask_share} and {path}.random_share={random_share} are more than 1 together")


# --- what is hidden -----------------------------------------------------------------------------------------------------------
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


def block_attention(ids: np.ndarray, inside: np.ndarray, sep_id: int) -> np.ndarray:
    """`(B, T, T) bool`: real tokens of the same document see each other; a document ends with its separator."""
    ends = (ids == sep_id).astype(np.int64)
    document = np.cumsum(ends, axis=1) - ends  # separators before this token
    seen: np.ndarray = (document[:, :, None] == document[:, None, :]) & inside[:, None, :] & inside[:, :, None]
    return seen


# --- head -----------------------------------------------------------------------------------------------------------------------
class MlmHead(nn.Module):
    """Hidden states at the masked positions to logits over the vocabulary."""

    def __init__(self, encoder: Encoder, initializer_range: float) -> None:
        super().__init__()
        width, rows = encoder.hidden_size, encoder.token_weight().shape[0]
        self.activation = getattr(encoder, "head_activation", F.gelu)
        self.transform = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=getattr(encoder, "norm_eps", 1e-12))
        self.decoder = None if getattr(encoder, "tie_embeddings", True) else nn.Linear(width, rows, bias=False)
        self.bias = nn.Parameter(torch.zeros(rows))
        for layer in (self.transform, self.decoder):
            if layer is not None:
                nn.init.normal_(layer.weight, std=initializer_range)
        nn.init.zeros_(self.transform.bias)

    def forward(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> Tensor:
        """Logits (M, V)."""
        x = hidden.flatten(0, 1)[batch.targets["masked"]]  # (M, D)
        x = self.norm(self.activation(self.transform(x)))
        return F.linear(x, encoder.token_weight() if self.decoder is None else self.decoder.weight, self.bias)


# Our head's weights, and theirs in a Hugging Face BertForPreTraining or BertForMaskedLM.
HF_NAMES = {
    "transform": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
    "bias": "cls.predictions.bias",
    "decoder": "cls.predictions.decoder",
}


# --- objective ------------------------------------------------------------------------------------------------------------------
class MlmObjective:
    """See contracts.Objective."""

    primary = Metric("loss", higher_is_better=False)

    def __init__(self, config: Mlm, vocabulary: Vocabulary, scoring: Masking | None = None) -> None:
        self.config, self.vocabulary, self.label_names = config, vocabulary, list[str]()
        self.training = Masking(vocabulary, config.unit, config.mask_share, config.random_share)
        self.scoring = scoring or Masking(vocabulary, "token", 0.8, 0.1)

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Blocks of `max_length` tokens; see `pack`. Raises DataError where the texts hold no token that could be masked."""
        blocks = pack(documents(split, encode), self.config.max_length, self.vocabulary.special, self.config.packing == "blocks")
        ordinary = False
        for piece in map(examples_of, batched(blocks)):
            ordinary = ordinary or bool((~self.vocabulary.is_special[piece.tokens]).any())
            yield piece
        if not ordinary:
            raise DataError(NOTHING_TO_MASK)

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        """Blocks with tokens hidden; targets `masked (M,)`, flat positions, and `label (M,)`, what stood there."""
        ids, inside = pad_rows([examples[row] for row in rows], self.vocabulary.special.pad_id)
        attention = inside if self.config.attend_across else block_attention(ids, inside, self.vocabulary.special.sep_id)
        targets = mask_batch(self, ids, rows, draw)
        mask = None if attention.all() else torch.from_numpy(attention)
        tensor = torch.from_numpy(ids)
        return Batch(tensor, torch.zeros_like(tensor), mask, targets, int(inside.sum()), len(rows))

    def build_head(self, encoder: Encoder, initializer_range: float) -> nn.Module:
        """Transform and tied projection."""
        return MlmHead(encoder, initializer_range)

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Cross-entropy in nats, summed over masked tokens; float32."""
        return masked_loss(outputs, batch)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, np.ndarray]:
        """Of each example: nats, right guesses, masked tokens and their letters."""
        return measure_masked(outputs, batch, self.vocabulary)

    def metrics(self, measured: dict[str, np.ndarray]) -> dict[str, Any]:
        """Loss (nats per masked token), masked_accuracy, perplexity, bits_per_character (of the masked text, without white space)."""
        return masked_metrics(measured)

    def predictions(self, measured: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        """Nats, right guesses and masked tokens of each block."""
        columns = [measured[name].tolist() for name in ("nats", "right", "masked")]
        return [{"nats": nats, "right": right, "masked": masked} for nats, right, masked in zip(*columns, strict=True)]


def masked_loss(logits: Tensor, batch: Batch) -> Loss:
    """Cross-entropy in nats of logits (M, V), summed over masked tokens; float32."""
    total = F.cross_entropy(logits.float(), batch.targets["label"], reduction="sum")
    return Loss(total, max(1, len(batch.targets["label"])))


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


def build(config: Mlm, vocabulary: Vocabulary, _label_names: Sequence[str]) -> MlmObjective:
    """The objective for one tokenizer's vocabulary; it has no classes."""
    return MlmObjective(config, vocabulary)
