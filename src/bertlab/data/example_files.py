"""Tokenised splits on disk: raw arrays, written a piece at a time and memory-mapped when read; `SPLIT.json`
says which and how.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bertlab.contracts import Examples


def write_examples(folder: Path, split: str, pieces: Iterator[Examples]) -> None:
    """One raw file an array, written a piece at a time: a corpus need not fit in memory."""
    # file -> role, name, dtype and, of a column of several values a row, their number
    arrays: dict[str, dict[str, Any]] = {}
    with ExitStack() as files:
        streams: dict[tuple[str, str], Any] = {}

        def append(role: str, name: str, values: np.ndarray) -> None:
            if (role, name) not in streams:
                file = f"{split}.{len(arrays)}"
                arrays[file] = {
                    "role": role,
                    "name": name,
                    "dtype": values.dtype.name,
                    "width": None if values.ndim == 1 else values.shape[1],
                }
                streams[role, name] = files.enter_context((folder / file).open("wb"))
            streams[role, name].write(values.tobytes())

        for piece in pieces:
            append("token", "ids", piece.tokens.astype(np.int32))
            append("example", "length", piece.lengths.astype(np.int32))
            for name, column in piece.columns.items():
                append("column", name, column)
            for name, column in piece.token_columns.items():
                append("token_column", name, column)
    (folder / f"{split}.json").write_text(json.dumps(arrays), encoding="utf-8")


def read_examples(folder: Path, split: str) -> Examples:
    """The arrays memory-mapped, except for the lengths, from which the order of every epoch is drawn."""
    parts: dict[str, dict[str, np.ndarray]] = {"token": {}, "example": {}, "column": {}, "token_column": {}}
    for file, told in json.loads((folder / f"{split}.json").read_text(encoding="utf-8")).items():
        place, kind = folder / file, told["dtype"]
        values = np.memmap(place, dtype=kind, mode="r") if place.stat().st_size else np.zeros(0, dtype=kind)
        if told["width"] is not None:
            values = values.reshape(len(parts["example"]["length"]), told["width"])
        parts[told["role"]][told["name"]] = values
    offsets = np.concatenate(([0], np.cumsum(parts["example"]["length"], dtype=np.int64)))
    return Examples(parts["token"]["ids"], offsets, parts["column"], parts["token_column"])
