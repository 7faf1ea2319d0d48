"""What objectives with one or two texts an example have in common: the layout of rows, and one linear layer on the pooled output.

Legend: B batch, T tokens, D width, K outputs.
"""

import abc
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertlab.contracts import Batch, Draw, Encode, Encoder, Examples, Head, Objective, examples_of, pad_rows
from bertlab.objectives.classification import join_texts

PIECE = 10_000  # rows tokenised at a time


class PooledHead(Head):
    """Pooled output (B, D) to (B, K)."""

    reads_pooled_only = True

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
    """`[CLS] text [SEP]` or `[CLS] text [SEP] text_pair [SEP]`; what is to be predicted, `targets` says."""

    max_length: int

    @abc.abstractmethod
    def targets(self, piece: dict[str, Any], count: int) -> dict[str, np.ndarray]:
        """Columns of `count` rows, with something in their place where the rows have no answers."""

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Token ids, the longer text cut first; the column second_start says where the second text begins (0 = there is none)."""
        pairs = "text_pair" in split.column_names
        for start in range(0, len(split), PIECE):
            piece = split[start : start + PIECE]
            first = encode(piece["text"])
            second: Any = encode(piece["text_pair"]) if pairs else [None] * len(first)
            joined = [join_texts(a, b, self.max_length, self.special) for a, b in zip(first, second, strict=True)]
            starts = np.asarray([position for _, position in joined], dtype=np.int32)
            yield examples_of([row for row, _ in joined], {**self.targets(piece, len(first)), "second_start": starts})

    def collate(self, examples: Examples, rows: np.ndarray, _draw: Draw | None) -> Batch:
        """Padded on the right; segment 1 from the second text on; targets are the columns, numbers as float32."""
        ids, inside = pad_rows([examples[row] for row in rows], self.special.pad_id)
        starts = examples.columns["second_start"][rows][:, None]
        segments = ((np.arange(ids.shape[1]) >= starts) & (starts > 0) & inside).astype(np.int64)
        columns = {name: np.asarray(column[rows]) for name, column in examples.columns.items() if name not in ("second_start", "row")}
        targets = {
            name: torch.from_numpy(column.astype(np.float32) if column.dtype.kind == "f" else column) for name, column in columns.items()
        }
        mask = None if inside.all() else torch.from_numpy(inside)
        return Batch(torch.from_numpy(ids), torch.from_numpy(segments), mask, targets, int(inside.sum()), len(rows))
