"""One vector a text, near those of texts that mean the same: contrastive learning with the other texts of the
batch as negatives.

`views=dropout`: a text's positive is itself, read once more under other dropout (Gao et al. 2021, SimCSE,
unsupervised; numbers are not looked at). `views=pairs`: the positives are the pairs with a high number.
Scored as semantic textual similarity, the correlation of cosines with the numbers of pairs, and as retrieval:
whether a text's partner is among the k second texts nearest to it (recall@k).

Negatives are those of one forward pass: compute.micro_batch_size leaves fewer of them.

Legend: B pairs of a batch, R rows of the encoder's batch, T tokens, D width, N pairs of a split.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bertlab.config.schema import choice, number
from bertlab.contracts import (
    FRACTION,
    TEXT,
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
    pad_rows,
    shortened,
)
from bertlab.errors import ConfigError
from bertlab.objectives._texts import Texts, join_texts
from bertlab.objectives.regression import pearson, ranks

PIECE = 10_000  # pairs tokenised at a time
NEAREST = (1, 5, 10)  # k of recall@k
AT_A_TIME = 1024  # texts whose neighbours are looked for together


@dataclass
class Embedding(Texts):
    """`[CLS] text [SEP]` and `[CLS] text_pair [SEP]`, a vector each: the encoder's pooled output
    (model.pooling=mean suits it).
    """

    views: str = choice(
        "dropout",
        "dropout",
        "pairs",
        help="what is near a text: itself under other dropout, or its partner in a good pair",
    )
    temperature: float = number(0.05, "what cosines are divided by", above=0)
    positive_from: float | None = number(
        None, "with views=pairs: pairs with at least this number are positives"
    )

    relevant_from: float | None = number(
        None,
        "pairs with at least this number are a text and what is to be found for it among all second texts:"
        " recall@1, @5 and @10 are scored; default: positive_from",
    )

    roles: ClassVar = (TEXT, Role("text_pair", "text"), Role("number", "number", is_answer=True))
    loss_unit: ClassVar = "nats per positive"
    examples_add_up: ClassVar = False  # negatives are the other examples

    def check(self, path: str) -> None:
        """What a positive is must be said."""
        if (self.views == "pairs") != (self.positive_from is not None):
            raise ConfigError(
                f"{path}.views=pairs needs {path}.positive_from, the number from which on a pair means the"
                " same, e.g. 4 of 5"
                if self.views == "pairs"
                else f"{path}.positive_from={self.positive_from:g} has no meaning without {path}.views=pairs"
            )

    @property
    def found_from(self) -> float | None:
        """The number from which on a text's partner is to be found; None where none is."""
        return self.positive_from if self.relevant_from is None else self.relevant_from

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        """See `EmbeddingObjective.scores`."""
        correlations = tuple(
            Metric(name, higher_is_better=True, unit="correlation", bounds=(-1.0, 1.0))
            for name in ("spearman", "pearson")
        )
        if self.found_from is None:
            return correlations
        recalls = (Metric(recall_at(k), True, FRACTION, (0.0, 1.0), may_lack=True) for k in NEAREST)
        return *correlations, *recalls

    def build(self, vocabulary: Vocabulary, _label_names: Sequence[str]) -> "EmbeddingObjective":
        """The objective for one tokenizer's vocabulary."""
        return EmbeddingObjective(self, vocabulary)

    def hf_head(self) -> HfHead:
        """None: the pooled output is what is wanted."""
        return HfHead("")


def recall_at(k: int) -> str:
    """Its name among the scores."""
    return f"recall_at_{k}"


class VectorHead(Head):
    """Pooled output (R, D), as it is."""

    reads_pooled_only = True

    def forward(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> Tensor:
        """(R, D)."""
        return encoder.pool(hidden, batch.attention_mask)


class EmbeddingObjective(Objective):
    """See contracts.Objective."""

    def __init__(self, config: Embedding, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.config = config

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Both texts' rows one after the other as one example; columns number, `first (N,)`, tokens of the
        first row, `partner (N,)`, equal where second rows are, and cut.
        """
        config = self.config
        for start in range(0, len(split), PIECE):
            piece = split[start : start + PIECE]
            texts = encode(piece["text"]), encode(piece["text_pair"])
            rows = [
                [join_texts(ids, None, config.max_length, self.special, config.truncation)[0] for ids in side]
                for side in texts
            ]
            whole = [len(one) + len(other) + 4 for one, other in zip(*texts, strict=True)]
            joined = [[*one, *other] for one, other in zip(*rows, strict=True)]
            columns: dict[str, np.ndarray] = {
                "number": np.asarray(
                    piece["number"] if "number" in piece else np.zeros(len(joined)), dtype=np.float64
                ),
                "first": np.asarray([len(row) for row in rows[0]], dtype=np.int32),
                "partner": np.asarray([_number_of(row) for row in rows[1]], dtype=np.int64),
                "cut": np.asarray(
                    [length - len(row) for length, row in zip(whole, joined, strict=True)], dtype=np.int32
                ),
            }
            yield examples_of(joined, columns)

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        """All first texts, then all second ones; in training with views=dropout the same once more: a half's
        positives are the other's.
        """
        cut = [
            np.split(examples[row], [length])
            for row, length in zip(rows, examples.columns["first"][rows], strict=True)
        ]
        sides = [one for one, _ in cut] + [other for _, other in cut]
        if draw is not None and self.config.views == "dropout":
            sides = sides * 2
        ids, inside = pad_rows(sides, self.special.pad_id)
        tensor = torch.from_numpy(ids)
        numbers = torch.from_numpy(examples.columns["number"][rows].astype(np.float32))
        mask = None if inside.all() else torch.from_numpy(inside)
        targets = {"number": numbers, "partner": torch.from_numpy(examples.columns["partner"][rows])}
        return Batch(tensor, torch.zeros_like(tensor), mask, targets, int(inside.sum()), len(rows))

    def build_head(self, encoder: Encoder, initializer_range: float) -> VectorHead:
        """Nothing to learn of its own."""
        return VectorHead()

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Cross-entropy of finding a text's positive among the other half, and the other way round, summed
        over positives; float32.

        A text that stands in the batch more than once is no negative of itself.
        """
        one, other = F.normalize(outputs.float(), dim=1).chunk(2)
        ids = batch.input_ids.chunk(2)
        same = (ids[0][:, None] == ids[1][None]).all(2)
        same.fill_diagonal_(False)
        logits = (one @ other.T / self.config.temperature).masked_fill(same, float("-inf"))
        right = torch.arange(len(logits), device=logits.device)
        nats = (
            F.cross_entropy(logits, right, reduction="none")
            + F.cross_entropy(logits.T, right, reduction="none")
        ) / 2
        if self.config.positive_from is None:
            return Loss(nats.sum(), len(nats))
        positive = batch.targets["number"] >= self.config.positive_from
        return Loss(nats[positive].sum(), int(positive.sum()))

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, np.ndarray]:
        """Cosine of each pair, and its number, (B,); where partners are to be found, both vectors (B, D),
        float32, and which second texts are equal.
        """
        one, other = F.normalize(outputs.float(), dim=1).chunk(2)
        of_pairs = {"cosine": (one * other).sum(1), "number": batch.targets["number"]}
        measured = {name: value.cpu().numpy().astype(np.float64) for name, value in of_pairs.items()}
        if self.config.found_from is None:
            return measured
        vectors = {"one": one, "other": other, "partner": batch.targets["partner"]}
        return measured | {name: value.cpu().numpy() for name, value in vectors.items()}

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Spearman's and Pearson's correlation of cosines with numbers, over all pairs; recall@k over those
        whose partner is to be found.
        """
        cosine, wanted = measured["cosine"], measured["number"]
        scores = {"spearman": pearson(ranks(cosine), ranks(wanted)), "pearson": pearson(cosine, wanted)}
        if self.config.found_from is None or not (relevant := wanted >= self.config.found_from).any():
            return scores
        places = places_of_partners(
            measured["one"][relevant], measured["other"], measured["partner"], np.flatnonzero(relevant)
        )
        return scores | {recall_at(k): float((places < k).mean()) for k in NEAREST}

    def blind_scores(self, train: Any, rows: Any) -> dict[str, float]:
        """Cosines that have nothing to do with the numbers."""
        return {"spearman": 0.0, "pearson": 0.0}

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """How alike the two texts are: the cosine of their vectors."""
        return [{"cosine": float(value)} for value in measured["cosine"]]

    def describe(self, row: dict[str, Any], prediction: dict[str, Any]) -> str:
        """`cosine  texts`."""
        return f"{prediction['cosine']:<8.4f}  {shortened(row['text'] + ' | ' + row['text_pair'])}"


def places_of_partners(
    one: np.ndarray, other: np.ndarray, partner: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """`(Q,)`: how many different second texts are nearer to each of `one (Q, D)` than its partner,
    `other[own]`; of those that are as near the half. `partner (N,)` is equal where second texts are.
    """
    _, first, group = np.unique(partner, return_index=True, return_inverse=True)
    candidates, places = other[first], np.empty(len(one))
    for start in range(0, len(one), AT_A_TIME):
        here = slice(start, start + AT_A_TIME)
        cosines = one[here] @ candidates.T
        right = group[own[here]]
        mine = np.take_along_axis(cosines, right[:, None], axis=1)
        places[here] = (cosines > mine).sum(1) + ((cosines == mine).sum(1) - 1) / 2
    return places


def _number_of(tokens: Sequence[int]) -> int:
    """Equal for equal rows of tokens, and else for no two that anybody will meet."""
    content = np.asarray(tokens, dtype=np.int64).tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)
