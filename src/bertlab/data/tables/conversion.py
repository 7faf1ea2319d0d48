"""One part of a table (a file, or a split of the hub) as columns by role, through data/kinds/."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertlab.config import registry
from bertlab.data.tables.keys import TableKeys
from bertlab.data.tables.rows import Rows
from bertlab.declarations import Column, Kind, Role
from bertlab.errors import ConfigError, DataError
from bertlab.runs.progress import working

Pieces = Callable[[Sequence[str]], Iterator[Rows]]  # some columns of a part, from its beginning


@dataclass(frozen=True)
class Written:
    """What became of a file's rows."""

    read: int
    left_out: dict[str, int]  # why -> how many
    rows: np.ndarray  # (N,) those that are there, counted from 1 in the file


class Part:
    """One file (or split of the hub), its columns by role."""

    def __init__(
        self, keys: TableKeys, roles: Sequence[Role], pieces: Pieces, where: str, max_words: int | None = None
    ) -> None:
        self.max_words = max_words
        self.roles = {role: column for role in roles if (column := keys.column_of(role.name)) is not None}
        self.read, self.where = pieces, where
        self.kinds: dict[str, Kind] = {
            role.name: registry.load_kind(role.kind)(Column(where, column, keys.key_of_column(column), keys))
            for role, column in self.roles.items()
        }
        self.declared: dict[str, list[str]] = {}
        if max_words is not None and "text" not in self.kinds:
            raise ConfigError(
                "dataset.max_words counts the words of the role text, and this objective reads"
                f" {', '.join(self.kinds)}: leave it out, or take rows by dataset.fraction"
            )

    def pieces(self, columns: Sequence[str]) -> Iterator[Rows]:
        """Some columns, a piece at a time."""
        with working(f"reading {self.where}", unit="rows") as work:
            for piece in self.read(columns):
                yield piece
                work.advance(len(piece))

    def look(self) -> None:
        """Let the kinds that look first see every cell."""
        looking = {role: column for role, column in self.roles.items() if self.kinds[role.name].looks_first}
        before = 0
        for piece in self.pieces(list(dict.fromkeys(looking.values()))) if looking else ():
            self.declared = piece.class_names
            for role, column in looking.items():
                self.kinds[role.name].look(piece.columns[column], before)
            before += len(piece)

    def names(self) -> list[str]:
        """Of the classes that are to be told apart, where there are such."""
        every = [
            self.kinds[role.name].names(self.declared.get(column)) for role, column in self.roles.items()
        ]
        return next((names for names in every if names), [])

    def answers(self) -> str:
        """The columns that are to be predicted, for errors."""
        return ", ".join(self.kinds[role.name].column.named for role in self.roles if role.is_answer)

    def is_unanswered(self) -> bool:
        """Whether a role that is to be predicted has no answer in any row."""
        return any(self.kinds[role.name].is_unanswered() for role in self.roles if role.is_answer)

    def write(self, file: Path, names: Sequence[str]) -> Written:
        """Converted columns as an Arrow stream."""
        import pyarrow

        schema = pyarrow.schema([(role.name, self.kinds[role.name].arrow_type()) for role in self.roles])
        read, words_left = 0, self.max_words
        left_out: Counter[str] = Counter()
        rows: list[np.ndarray] = []
        with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
            for piece in self.pieces(list(dict.fromkeys(self.roles.values()))):
                converted: dict[str, list[Any]] = {}
                for role, column in self.roles.items():
                    about = None if role.about is None else converted.get(role.about)
                    converted[role.name] = self.kinds[role.name].convert(
                        piece.columns[column], read, names, about
                    )
                kept = [
                    row
                    for row in range(len(piece))
                    if all(cells[row] is not None for cells in converted.values())
                ]
                left_out.update(self._reasons(piece, converted, set(kept)))
                if len(kept) < len(piece):
                    converted = {name: [cells[row] for row in kept] for name, cells in converted.items()}
                if words_left is not None:
                    taken = first_words(converted["text"], words_left)
                    converted = {name: [*cells[: len(taken)]] for name, cells in converted.items()} | {
                        "text": taken
                    }
                    words_left -= sum(len(text.split()) for text in taken)
                    kept = kept[: len(taken)]
                rows.append(np.array(kept, dtype=np.int32) + np.int32(read + 1))
                read += len(piece)
                writer.write_table(pyarrow.table(converted, schema=schema))
                if words_left == 0:
                    break
        if words_left:
            has = (self.max_words or 0) - words_left
            raise DataError(
                f"{self.where}: holds {has:,} words, fewer than the {self.max_words:,} that dataset.max_words"
                " asks for"
            )
        if read == left_out.total():
            raise DataError(f"{self.where}: no row has an answer in {self.answers()}")
        for kind in self.kinds.values():
            kind.finish()
        return Written(read, dict(left_out), np.concatenate(rows))

    def _reasons(self, piece: Rows, converted: Mapping[str, Sequence[Any]], kept: set[int]) -> Iterator[str]:
        """Of each row of a piece that is left out: why, by the first cell that has nothing to say."""
        for row in range(len(piece)):
            if row not in kept:
                role = next(role for role in self.roles if converted[role.name][row] is None)
                yield self.kinds[role.name].why_left_out(piece.columns[self.roles[role]][row])


def first_words(texts: Sequence[str], count: int) -> list[str]:
    """Texts from the first on that hold `count` words together, the last one cut after its last word; all of
    them where they hold fewer.
    """
    taken = []
    for text in texts:
        if count == 0:
            break
        ends = [match.end() for match in itertools.islice(re.finditer(r"\S+", text), count)]
        taken.append(text if len(ends) < count or not text[ends[-1] :].strip() else text[: ends[-1]])
        count -= len(ends)
    return taken
