"""Masked-language modelling (Devlin et al. 2019, §3.1 task 1): some tokens are hidden, the encoder says which
they were.

Which tokens are hidden, and as what, stands in _masking.py. The head is transformers' BertForPreTraining's:
dense, activation, norm, and a projection to the vocabulary tied to the token embedding, computed only at the
hidden positions.

Differs: hidden positions are drawn afresh in every epoch, keyed by (seed, epoch, example), instead of once
for ten copies of the corpus; of single tokens as many as the rate says in every block, so that shapes stay
the same; the unknown token is never hidden.

Legend: B batch, T tokens, D width, V vocabulary, M masked tokens of a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bertlab.config.schema import choice, flag
from bertlab.contracts import (
    Batch,
    Draw,
    Encode,
    Encoder,
    Examples,
    Head,
    HfHead,
    Loss,
    Objective,
    Vocabulary,
    examples_of,
    pad_rows,
)
from bertlab.errors import DataError
from bertlab.objectives._documents import batched, documents, pack
from bertlab.objectives._masking import (
    NOTHING_TO_MASK,
    Masked,
    Masking,
    Projection,
    mask_batch,
    masked_loss,
    masked_metrics,
    measure_masked,
)


@dataclass
class Mlm(Masked):
    """Hide tokens in blocks of text and predict them; texts are packed into full blocks."""

    folds: ClassVar[bool] = True

    packing: str = choice(
        "blocks",
        "blocks",
        "documents",
        help="blocks: filled across documents; documents: a block holds one at most",
    )
    attend_across: bool = flag(True, "tokens of one block see each other also across documents")

    def build(self, vocabulary: Vocabulary, _label_names: Sequence[str]) -> Objective:
        """The objective for one tokenizer's vocabulary; it has no classes."""
        return MlmObjective(self, vocabulary)

    def hf_head(self) -> HfHead | None:
        """Devlin's; of capped logits there is none."""
        return HfHead("MaskedLM", HF_NAMES, reads_pooler=False, **capped(self.logit_softcap))


# Our head's modules, and theirs in a Hugging Face BertForPreTraining or BertForMaskedLM.
HF_NAMES = {
    "transform": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
    "bias": "cls.predictions.bias",
    "decoder": "cls.predictions.decoder",
}


def capped(softcap: float | None) -> dict[str, Any]:
    """What a counterpart of a head with capped logits is told of it."""
    return (
        {}
        if softcap is None
        else {"config": {"logit_softcap": softcap}, "unlike": (f"objective.logit_softcap={softcap:g}",)}
    )


# --- what is seen ---------------------------------------------------------------------------------
def block_attention(ids: np.ndarray, inside: np.ndarray, sep_id: int) -> np.ndarray:
    """`(B, T, T) bool`: real tokens of the same document see each other; a document ends with its
    separator.
    """
    ends = (ids == sep_id).astype(np.int64)
    document = np.cumsum(ends, axis=1) - ends  # separators before this token
    seen: np.ndarray = (
        (document[:, :, None] == document[:, None, :]) & inside[:, None, :] & inside[:, :, None]
    )
    return seen


def folded(
    ids: np.ndarray, inside: np.ndarray, positions: Tensor, length: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Rows of at most `length` tokens, each a piece of one of `ids (B, T)`, in order; `inside` and flat
    `positions` go with their tokens.

    Only the first piece of a block begins with [CLS] and only its last ends with [SEP]: every token is kept
    and none is added.
    """
    rows, width = ids.shape
    if width <= length:
        return ids, inside, positions
    pieces = -(-width // length)
    surplus = ((0, 0), (0, pieces * length - width))
    ids = np.pad(ids, surplus, constant_values=pad_id).reshape(rows * pieces, length)
    inside = np.pad(inside, surplus).reshape(rows * pieces, length)
    kept = inside.any(1)  # what is nothing but padding goes
    place = positions // width * (pieces * length) + positions % width
    row = torch.from_numpy(np.cumsum(kept) - 1)[place // length]
    return ids[kept], inside[kept], row * length + place % length


# --- head -----------------------------------------------------------------------------------------
class MlmHead(Head):
    """Hidden states at the masked positions to logits over the vocabulary."""

    def __init__(self, encoder: Encoder, initializer_range: float, softcap: float | None = None) -> None:
        super().__init__()
        self.softcap = softcap
        # narrow < width: factorised embeddings (ELECTRA, §3.2)
        width, (rows, narrow) = (encoder.hidden_size, encoder.token_weight().shape)
        self.transform = nn.Linear(width, narrow)
        self.norm = nn.LayerNorm(narrow, eps=encoder.norm_eps)
        self.decoder = None if encoder.tie_embeddings else nn.Linear(narrow, rows, bias=False)
        self.bias = nn.Parameter(torch.zeros(rows))
        for layer in (self.transform, self.decoder):
            if layer is not None:
                nn.init.normal_(layer.weight, std=initializer_range)
        nn.init.zeros_(self.transform.bias)

    def forward(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> Tensor | Projection:
        """Logits (M, V), or what they will be computed from."""
        return self.projection(encoder, hidden, batch).deferred()

    def projection(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> Projection:
        """The transformed states at the masked positions, (M, D), and what they are multiplied with."""
        x = self.norm(encoder.head_activation(self.transform(hidden.flatten(0, 1)[batch.targets["masked"]])))
        return Projection(
            x,
            encoder.token_weight() if self.decoder is None else self.decoder.weight,
            self.bias,
            self.softcap,
        )


def show_masked(batch: Batch, pad_id: int, token_of: Callable[[int], str]) -> list[str]:
    """A batch with masked tokens as text, a line an example."""
    width = batch.input_ids.shape[1]
    hidden = dict(zip(batch.targets["masked"].tolist(), batch.targets["label"].tolist(), strict=True))
    return [
        " ".join(
            token_of(token)
            + (f"={token_of(hidden[row * width + place])}" if row * width + place in hidden else "")
            for place, token in enumerate(tokens)
            if token != pad_id
        )
        for row, tokens in enumerate(batch.input_ids.tolist())
    ]


# --- objective ------------------------------------------------------------------------------------
class MlmObjective(Objective):
    """See contracts.Objective."""

    def __init__(self, config: Mlm, vocabulary: Vocabulary, scoring: Masking | None = None) -> None:
        super().__init__(config, vocabulary)
        self.config = config
        self.training = Masking(vocabulary, config.unit, config.mask_share, config.random_share)
        self.scoring = scoring or Masking(vocabulary, "token", 0.8, 0.1)

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Blocks of `max_length` tokens; see `pack`. Raises DataError where the texts hold no token that
        could be masked.
        """
        blocks = pack(
            documents(split, encode),
            self.config.max_length,
            self.vocabulary.special,
            self.config.packing == "blocks",
        )
        ordinary = False
        for piece in map(examples_of, batched(blocks)):
            ordinary = ordinary or bool((~self.vocabulary.is_special[piece.tokens]).any())
            yield piece
        if not ordinary:
            raise DataError(NOTHING_TO_MASK)

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        """Blocks with tokens hidden; targets `masked (M,)`, flat positions, and `label (M,)`, what stood
        there.
        """
        ids, inside = pad_rows([examples[row] for row in rows], self.vocabulary.special.pad_id)
        targets, counts = mask_batch(self.config, self.training, self.scoring, ids, rows, draw)
        if draw is not None and draw.length is not None:
            ids, inside, targets["masked"] = folded(
                ids, inside, targets["masked"], draw.length, self.vocabulary.special.pad_id
            )
        attention = (
            inside
            if self.config.attend_across
            else block_attention(ids, inside, self.vocabulary.special.sep_id)
        )
        mask = None if attention.all() else torch.from_numpy(attention)
        tensor = torch.from_numpy(ids)
        return Batch(tensor, torch.zeros_like(tensor), mask, targets, int(inside.sum()), len(rows), counts)

    def show(self, batch: Batch, token_of: Callable[[int], str]) -> list[str]:
        """With what is to be predicted behind what stands in its place: `[MASK]=film`."""
        return show_masked(batch, self.special.pad_id, token_of)

    def build_head(self, encoder: Encoder, initializer_range: float) -> MlmHead:
        """Transform and tied projection."""
        return MlmHead(encoder, initializer_range, self.config.logit_softcap)

    def loss(self, outputs: Tensor | Projection, batch: Batch) -> Loss:
        """Cross-entropy in nats, summed over masked tokens, with the z-loss where asked for; float32."""
        return masked_loss(outputs, batch, self.config.z_loss)

    def token_logits(self, outputs: Tensor) -> Tensor:
        """All of them."""
        return outputs

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, np.ndarray]:
        """Of each example: nats, right guesses, masked tokens and their letters."""
        return measure_masked(outputs, batch, self.vocabulary)

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Loss (nats per masked token), masked_accuracy, perplexity, bits_per_character (of the masked text,
        without white space).
        """
        return masked_metrics(measured)

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """Nats, right guesses and masked tokens of each block."""
        columns = [measured[name].tolist() for name in ("nats", "right", "masked")]
        return [
            {"nats": nats, "right": right, "masked": masked}
            for nats, right, masked in zip(*columns, strict=True)
        ]
