"""What objectives with one or two texts an example have in common: the layout of rows, and a linear layer on
the pooled output.

Legend: B batch, T tokens, D width, K outputs, N examples of a split.
"""

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bertlab.config.schema import ObjectiveConfig, choice
from bertlab.contracts import (
    Batch,
    Draw,
    Encode,
    Encoder,
    Examples,
    Head,
    Objective,
    Special,
    Vocabulary,
    examples_of,
    pad_rows,
)

PIECE = 10_000  # rows tokenised at a time


@dataclass
class Texts(ObjectiveConfig):
    """Options of how texts are laid out."""

    prepared_by: ClassVar[tuple[str, ...]] = ("max_length", "truncation")

    truncation: str = choice(
        "head",
        "head",
        "tail",
        "head_tail",
        help=(
            "what stays of a text that is too long: its beginning, its end, or a quarter of the room from its"
            " beginning and the rest from its end (Sun et al. 2019, §5.3.1: 128 and 382 of 510)"
        ),
    )


class PooledHead(Head):
    """Pooled output (B, D) to (B, K)."""

    reads_pooled_only = True  # the encoder may leave out what pooling does not read

    def __init__(self, hidden_size: int, outputs: int, dropout: float, initializer_range: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, outputs)
        nn.init.normal_(self.classifier.weight, std=initializer_range)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> Any:
        """(B, K)."""
        return self.classifier(self.dropout(encoder.pool(hidden, batch.attention_mask)))


class TextObjective(Objective):
    """`[CLS] text [SEP]` or `[CLS] text [SEP] text_pair [SEP]`, with one target an example."""

    target: ClassVar[str]  # the column, and the batch's target, that holds what is to be predicted

    def __init__(self, config: Texts, vocabulary: Vocabulary, label_names: Sequence[str] = ()) -> None:
        super().__init__(config, vocabulary, label_names)
        self.layout = config

    @abc.abstractmethod
    def answers(self, piece: dict[str, Any], count: int) -> np.ndarray:
        """The target of `count` rows; something in its place where the rows have none."""

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Token ids with special tokens, truncated to `max_length` (the longer text of a pair first); the
        target, second_start, cut.
        """
        pairs = "text_pair" in split.column_names
        for start in range(0, len(split), PIECE):
            piece = split[start : start + PIECE]
            first = encode(piece["text"])
            second: Sequence[list[int] | None] = encode(piece["text_pair"]) if pairs else [None] * len(first)
            joined = [
                join_texts(a, b, self.layout.max_length, self.special, self.layout.truncation)
                for a, b in zip(first, second, strict=True)
            ]
            frames = [2 if b is None else 2 + self.special.between for b in second]
            whole = [len(a) + len(b or ()) + frame for a, b, frame in zip(first, second, frames, strict=True)]
            columns: dict[str, np.ndarray] = {
                self.target: self.answers(piece, len(first)),
                "second_start": np.asarray([position for _, position in joined], dtype=np.int32),
                "cut": np.asarray(
                    [length - len(row) for length, (row, _) in zip(whole, joined, strict=True)],
                    dtype=np.int32,
                ),
            }
            yield examples_of([row for row, _ in joined], columns)

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        """Rows padded on the right to the longest of them; segment 1 from the second text on; numbers as
        float32.
        """
        ids, inside = pad_rows([examples[row] for row in rows], self.special.pad_id)
        starts = examples.columns["second_start"][rows][:, None]
        segments = ((np.arange(ids.shape[1]) >= starts) & (starts > 0) & inside).astype(np.int64)
        if draw is not None:
            self.change(ids, rows, draw)
        target = examples.columns[self.target][rows]
        return Batch(
            torch.from_numpy(ids),
            torch.from_numpy(segments),
            None if inside.all() else torch.from_numpy(inside),
            {
                self.target: torch.from_numpy(
                    target.astype(np.float32) if target.dtype.kind == "f" else target
                )
            },
            int(inside.sum()),
            len(rows),
        )

    def change(self, ids: np.ndarray, rows: np.ndarray, draw: Draw) -> None:
        """Change training tokens in place."""


def join_texts(
    first: list[int], second: list[int] | None, max_length: int, special: Special, truncation: str = "head"
) -> tuple[list[int], int]:
    """`[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`, at most `max_length` ids, and where the second
    text starts (0 = none).

    RoBERTa has two separators between the texts. The longer text is cut first, token by token; of two that
    both are cut it keeps the odd token (transformers' `longest_first`). `truncation` says what stays of each:
    see `Texts`.
    """
    if second is None:
        return [special.cls_id, *shorten(first, max_length - 2, truncation), special.sep_id], 0
    room = max(0, max_length - 2 - special.between)
    keep_second = min(len(second), max(room - len(first), (room + (len(second) >= len(first))) // 2))
    keep_first = min(len(first), room - keep_second)
    first, second = shorten(first, keep_first, truncation), shorten(second, keep_second, truncation)
    return [
        special.cls_id,
        *first,
        *([special.sep_id] * special.between),
        *second,
        special.sep_id,
    ], keep_first + 1 + special.between


def shorten(ids: list[int], keep: int, truncation: str) -> list[int]:
    """At most `keep` of the ids."""
    front = {"head": keep, "tail": 0, "head_tail": keep // 4}[truncation]
    return ids if len(ids) <= keep else ids[:front] + ids[len(ids) - (keep - front) :]
