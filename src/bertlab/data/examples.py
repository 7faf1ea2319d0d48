"""Tokenised splits on disk: raw arrays, written a piece at a time and memory-mapped when read."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bertlab.contracts import Examples


def write_examples(folder: Path, split: str, pieces: Iterator[Examples]) -> None:
    """One raw file an array, written a piece at a time: a corpus need not fit in memory."""
    with ExitStack() as files:
        streams: dict[str, Any] = {}

        def append(name: str, values: np.ndarray) -> None:
            if name not in streams:
                streams[name] = files.enter_context((folder / f"{split}.{name}.{values.dtype.name}").open("wb"))
            streams[name].write(values.tobytes())

        for piece in pieces:
            append("tokens", piece.tokens.astype(np.int32))
            append("lengths", piece.lengths.astype(np.int32))
            for name, column in piece.columns.items():
                append(f"column-{name}", column)
            for name, column in piece.token_columns.items():
                append(f"token_column-{name}", column)


def read_examples(folder: Path, split: str) -> Examples:
    """The arrays memory-mapped, except for the lengths, from which the order of every epoch is drawn."""
    found = {}
    for file in sorted(folder.glob(f"{split}.*")):
        _, name, kind = file.name.split(".")
        found[name] = np.memmap(file, dtype=kind, mode="r") if file.stat().st_size else np.zeros(0, dtype=kind)
    offsets = np.concatenate(([0], np.cumsum(found["lengths"], dtype=np.int64)))
    rows = len(found["lengths"])
    columns = {  # a column may have several values a row
        name.removeprefix("column-"): values if len(values) == rows else values.reshape(rows, -1)
        for name, values in found.items()
        if name.startswith("column-")
    }
    per_token = {name.removeprefix("token_column-"): values for name, values in found.items() if name.startswith("token_column-")}
    return Examples(found["tokens"], offsets, columns, per_token)
