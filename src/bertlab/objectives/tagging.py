"""Token tagging, e.g. named entities (Devlin et al. 2019, §5.3): a class for each word, read at its first
sub-word.

Scored by entities as in the CoNLL-2003 shared task (Tjong Kim Sang & De Meulder 2003): an entity counts where
its type, first and last word are right. Tags are in the BIO scheme (`B-PER`, `I-PER`, `O`); tags without such
prefixes are scored by words alone.

Legend: B batch, T tokens, C tags, K entity types.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bertlab.config.schema import ObjectiveConfig, number
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
)
from bertlab.errors import ConfigError

PIECE = 5000  # sentences tokenised at a time
IGNORED, UNKNOWN = -100, -1  # no word begins here; a word whose tag is not known


@dataclass
class Tagging(ObjectiveConfig):
    """`[CLS] words [SEP]`, cross-entropy over tags at each word's first sub-word; words that do not fit are
    never right.
    """

    head_dropout: float = number(0.1, "dropout between hidden states and classifier", low=0, below=1)

    roles: ClassVar = (Role("tokens", "words"), Role("tags", "tags", is_answer=True, about="tokens"))
    prepared_by: ClassVar = ("max_length",)
    loss_unit: ClassVar = "nats per word"

    def metrics(self, label_names: Sequence[str]) -> tuple[Metric, ...]:
        """See `TaggingObjective.scores`; F1 first where the tags have entity types, or are not known yet."""
        types, words = (
            types_of(label_names),
            (Metric("accuracy", higher_is_better=True), loss_metric(self.loss_unit)),
        )
        if label_names and not types:
            return words
        names = ("f1", "precision", "recall", *(f"f1_{kind}" for kind in types))
        return (*(Metric(name, higher_is_better=True) for name in names), *words)

    def primary_metric(self, label_names: Sequence[str] = ()) -> Metric:
        """Before the tags are known, an entity type's F1 may be one."""
        if not label_names and self.primary is not None and self.primary.startswith("f1_"):
            return Metric(self.primary, higher_is_better=True)
        return super().primary_metric(label_names)

    def build(self, vocabulary: Vocabulary, label_names: Sequence[str]) -> Objective:
        """The objective for one tokenizer's vocabulary and one dataset's tags."""
        return TaggingObjective(self, vocabulary, label_names)

    def hf_head(self) -> HfHead:
        """A linear layer at every token."""
        config = {"classifier_dropout": self.head_dropout}
        return HfHead(
            "TokenClassification",
            {"classifier": "classifier"},
            reads_pooler=False,
            names_classes=True,
            config=config,
        )


def types_of(label_names: Sequence[str]) -> list[str]:
    """Entity types of BIO tags, sorted."""
    return sorted({name[2:] for name in label_names if name[:2] in ("B-", "I-")})


class TaggingHead(Head):
    """Hidden states (B, T, D) to logits (B, T, C)."""

    drops_tokens = True

    def __init__(self, hidden_size: int, num_tags: int, dropout: float, initializer_range: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, num_tags)
        nn.init.normal_(self.classifier.weight, std=initializer_range)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, _encoder: Encoder, hidden: Tensor, _batch: Batch) -> Tensor:
        """Logits (B, T, C)."""
        logits: Tensor = self.classifier(self.dropout(hidden))
        return logits


class TaggingObjective(Objective):
    """See contracts.Objective."""

    def __init__(self, config: Tagging, vocabulary: Vocabulary, label_names: Sequence[str]) -> None:
        super().__init__(config, vocabulary, label_names)
        self.config, self.types = config, types_of(label_names)
        other = [name for name in self.label_names if name[:2] not in ("B-", "I-") and name != "O"]
        if self.types and other:
            raise ConfigError(
                f"objective=tagging: the tag {other[0]} is not of the BIO scheme (B-…, I-…, O) that the"
                " others are of"
            )
        if self.types and "O" not in self.label_names:
            raise ConfigError(f"objective=tagging: there is no tag O among {', '.join(self.label_names[:8])}")

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Sub-words of each sentence, cut where `max_length` ends; token column `tag`: at a word's first
        sub-word its tag, else -100.

        Columns `words (N,)`, of the whole sentence, `scored (N,)`, those with a known tag, `lost (N, K)`,
        entities of each type that do not end before the cut, `stump (N,)`, where one that the cut goes
        through begins (or the number of words kept), and `cut`. A row with a text but no words is split at
        white space.
        """
        for start in range(0, len(split), PIECE):
            piece = split[start : start + PIECE]
            sentences = (
                piece["tokens"] if "tokens" in piece else [text.split() or [text] for text in piece["text"]]
            )
            given = piece.get("tags") or [[UNKNOWN] * len(words) for words in sentences]
            encoded = iter(encode([word for words in sentences for word in words]))
            rows, tags, lost, stumps, cut = [], [], [], [], []
            for words, answers in zip(sentences, given, strict=True):
                subwords = [next(encoded) or [self.special.unk_id] for _ in words]
                kept = int(
                    np.searchsorted(
                        np.cumsum([*map(len, subwords)]), self.config.max_length - 2, side="right"
                    )
                )
                marks = [
                    mark
                    for ids, tag in zip(subwords[:kept], answers, strict=False)
                    for mark in (tag, *[IGNORED] * (len(ids) - 1))
                ]
                rows.append(
                    [
                        self.special.cls_id,
                        *(token for ids in subwords[:kept] for token in ids),
                        self.special.sep_id,
                    ]
                )
                tags.append([IGNORED, *marks, IGNORED])
                beyond = [entity for entity in self.entities(answers) if entity[2] > kept]
                lost.append(self._count(beyond))
                stumps.append(min([kept, *(first for _, first, _ in beyond)]))
                cut.append(sum(map(len, subwords[kept:])))
            columns: dict[str, np.ndarray] = {
                "words": np.asarray([len(words) for words in sentences], dtype=np.int32),
                "scored": np.asarray([sum(tag >= 0 for tag in answers) for answers in given], dtype=np.int32),
                "stump": np.asarray(stumps, dtype=np.int32),
                "cut": np.asarray(cut, dtype=np.int32),
                "lost": np.asarray(lost, dtype=np.int32).reshape(len(rows), len(self.types)),
            }
            yield examples_of(rows, columns, {"tag": tags})

    def entities(self, tags: Sequence[int]) -> set[tuple[str, int, int]]:
        """(type, first word, word after the last) of every entity. An I- tag that continues nothing opens an
        entity, as in conlleval.
        """
        entities, kind, first = set(), "", 0
        for index, tag in enumerate([*tags, -1]):
            name = self.label_names[tag] if tag >= 0 else "O"
            prefix, wanted = name[:2], name[2:]
            inside = prefix in ("B-", "I-")
            if kind and (not inside or prefix == "B-" or wanted != kind):
                entities.add((kind, first, index))
                kind = ""
            if inside and not kind:
                kind, first = wanted, index
        return entities

    def _count(self, entities: Iterable[tuple[str, int, int]]) -> np.ndarray:
        """How many of each type, `(K,)`."""
        kinds = [kind for kind, _, _ in entities]
        return np.asarray([kinds.count(kind) for kind in self.types], dtype=np.int64)

    def collate(self, examples: Examples, rows: np.ndarray, _draw: Draw | None) -> Batch:
        """Padded sentences; targets `tag (B, T) int64`, -100 = no word begins here, and the columns."""
        ids, inside = pad_rows([examples[row] for row in rows], self.special.pad_id)
        column, offsets = examples.token_columns["tag"], examples.offsets
        tags, _ = pad_rows([column[offsets[row] : offsets[row + 1]] for row in rows], IGNORED)
        tensor = torch.from_numpy(ids)
        targets = {
            "tag": torch.from_numpy(tags),
            **{name: torch.from_numpy(examples.columns[name][rows]) for name in ("words", "scored", "stump")},
            "lost": torch.from_numpy(examples.columns["lost"][rows].reshape(len(rows), len(self.types))),
        }
        mask = None if inside.all() else torch.from_numpy(inside)
        return Batch(tensor, torch.zeros_like(tensor), mask, targets, int(inside.sum()), len(rows))

    def build_head(self, encoder: Encoder, initializer_range: float) -> TaggingHead:
        """Dropout and a linear layer at every token."""
        return TaggingHead(
            encoder.hidden_size, len(self.label_names), self.config.head_dropout, initializer_range
        )

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Cross-entropy in nats, summed over words; float32."""
        tag = batch.targets["tag"]
        total = F.cross_entropy(
            outputs.float().flatten(0, 1), tag.flatten(), reduction="sum", ignore_index=IGNORED
        )
        return Loss(total, int((tag != IGNORED).sum()))

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, np.ndarray]:
        """Of each sentence: nats, scored and rightly tagged words; true, predicted and right entities of each
        type; the tags (objects).
        """
        tag, whole, stump = (batch.targets[name].cpu().numpy() for name in ("tag", "words", "stump"))
        logits = outputs.float().cpu()
        nats = F.cross_entropy(
            logits.flatten(0, 1), batch.targets["tag"].cpu().clamp(min=0).flatten(), reduction="none"
        )
        best = logits.argmax(-1).numpy()
        scored = tag >= 0
        guesses = np.empty(len(tag), dtype=object)
        counts = np.zeros((len(tag), 3, len(self.types)), dtype=np.int64)  # true, predicted, right
        for row in range(len(tag)):
            words = tag[row] != IGNORED
            guess = best[row][words].tolist()
            true, predicted = self.entities(tag[row][words].tolist()[: stump[row]]), self.entities(guess)
            counts[row] = [self._count(true), self._count(predicted), self._count(true & predicted)]
            guesses[row] = guess + [UNKNOWN] * (int(whole[row]) - len(guess))
        counts[:, 0] += batch.targets["lost"].cpu().numpy()
        return {
            "nats": (nats.view(tag.shape).double().numpy() * scored).sum(1),
            "read": scored.sum(1),
            "words": batch.targets["scored"].cpu().numpy(),
            "right": ((best == tag) & scored).sum(1),
            "entities": counts,
            "tags": guesses,
        }

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Loss (nats per word that fits), accuracy (of all words), precision, recall and F1 of entities, over
        all types and of each.
        """
        loss = measured["nats"].sum() / max(1, measured["read"].sum())
        scores: dict[str, Any] = {
            "loss": float(loss),
            "accuracy": float(measured["right"].sum() / max(1, measured["words"].sum())),
        }
        if self.types:
            totals = measured["entities"].sum(0)  # (3, K)
            scores |= dict(
                zip(("precision", "recall", "f1"), precision_recall_f1(*map(int, totals.sum(1))), strict=True)
            )
            scores |= {
                f"f1_{kind}": precision_recall_f1(*map(int, totals[:, index]))[2]
                for index, kind in enumerate(self.types)
            }
        return scores

    def blind_scores(self, train: Any, rows: Any) -> dict[str, float]:
        """Of who gives every word the training split's commonest tag; F1 where tags mark no entities is
        not asked for.
        """
        known, right = (
            np.asarray([tag for tags in split["tags"][:] for tag in tags if tag >= 0])
            for split in (train, rows)
        )
        commonest = int(np.bincount(known, minlength=len(self.label_names)).argmax())
        scores = {"accuracy": float((right == commonest).mean())} if len(right) else {}
        if not self.types:
            return scores
        counts = np.zeros((3, len(self.types)), dtype=np.int64)
        for tags in rows["tags"][:]:
            true, said = self.entities(tags), self.entities([commonest] * len(tags))
            counts += [self._count(true), self._count(said), self._count(true & said)]
        scores |= dict(
            zip(("precision", "recall", "f1"), precision_recall_f1(*map(int, counts.sum(1))), strict=True)
        )
        return scores | {
            f"f1_{kind}": precision_recall_f1(*map(int, counts[:, index]))[2]
            for index, kind in enumerate(self.types)
        }

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """The tag of each word, in the examples' order; None for words beyond `max_length`, which were not
        read.
        """
        return [
            {"tags": [self.label_names[tag] if tag >= 0 else None for tag in row]} for row in measured["tags"]
        ]

    def describe(self, row: dict[str, Any], prediction: dict[str, Any]) -> str:
        """Every word with its tag, `?` where it was not read."""
        words = row["tokens"] if "tokens" in row else row["text"].split()
        return " ".join(
            word if tag == "O" else f"{word}/{tag or '?'}"
            for word, tag in zip(words, prediction["tags"], strict=True)
        )


def precision_recall_f1(true: int, predicted: int, right: int) -> tuple[float, float, float]:
    """Each 0 where it has nothing to divide by, as in conlleval."""
    precision, recall = right / max(1, predicted), right / max(1, true)
    return precision, recall, 2 * right / max(1, true + predicted)
