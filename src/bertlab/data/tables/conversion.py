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

NO_TEXT = "without a text"  # why a row of a file for a finished run is left out
Pieces = Callable[[Sequence[str]], Iterator[Rows]]  # some columns of a part, from its beginning


@dataclass(frozen=True)
class Written:
    """What became of a file's rows."""

    read: int
    left_out: dict[str, int]  # why -> how many
    rows: np.ndarray  # (N,) those that are there, counted from 1 in the file


class Part:
    """One file (or split of the hub), its columns by role. `keeps_blank`: whether rows without a text are
    read, as in training, or left out and counted.
    """

    def __init__(
        self,
        keys: TableKeys,
        roles: Sequence[Role],
        pieces: Pieces,
        where: str,
        max_words: int | None = None,
        keeps_blank: bool = True,
    ) -> None:
        self.max_words, self.keeps_blank = max_words, keeps_blank
        self.roles = {role: column for role in roles if (column := keys.column_of(role.name)) is not None}
        self.read, self.where = pieces, where
        self.kinds: dict[str, Kind] = {
            role.name: registry.load_kind(role.kind)(
                Column(where, column, keys.key_of_column(column), keys, is_for_finished_run=not keeps_blank)
            )
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
        wanted = {*looking.values(), *(() if self.keeps_blank else self.read_columns().values())}
        before = seen = 0
        for piece in (
            self.pieces([name for name in dict.fromkeys(self.roles.values()) if name in wanted])
            if looking
            else ()
        ):
            self.declared = piece.class_names
            for start, rows in self.stretches(piece):
                seen += len(rows)
                for role, column in looking.items():
                    self.kinds[role.name].look(rows.columns[column], before + start)
            before += len(piece)
        if before and not seen:
            raise self._without_text()

    def read_columns(self) -> dict[Role, str]:
        """Those that are read and not predicted."""
        return {role: column for role, column in self.roles.items() if not role.is_answer}

    def stretches(self, piece: Rows) -> Iterator[tuple[int, Rows]]:
        """What of a piece is read: all, or each stretch of rows with a text; and where in it each begins."""
        if self.keeps_blank:
            yield 0, piece
            return
        read = [
            (self.kinds[role.name], piece.columns[column]) for role, column in self.read_columns().items()
        ]
        has_text = [not any(kind.is_blank(cells[row]) for kind, cells in read) for row in range(len(piece))]
        for is_read, group in itertools.groupby(range(len(piece)), key=has_text.__getitem__):
            if is_read:
                places = list(group)
                yield places[0], piece.part(places[0], places[-1] + 1)

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
            for start, piece in self._numbered(left_out):
                converted: dict[str, list[Any]] = {}
                for role, column in self.roles.items():
                    about = None if role.about is None else converted.get(role.about)
                    converted[role.name] = self.kinds[role.name].convert(
                        piece.columns[column], start, names, about
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
                rows.append(np.array(kept, dtype=np.int32) + np.int32(start + 1))
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
        read += left_out[NO_TEXT]
        if read == left_out[NO_TEXT]:
            raise self._without_text()
        if read == left_out.total():
            raise DataError(f"{self.where}: no row has an answer in {self.answers()}")
        for kind in self.kinds.values():
            kind.finish()
        reasons = sorted(left_out, key=lambda why: why != NO_TEXT)
        return Written(read, {why: left_out[why] for why in reasons}, np.concatenate(rows))

    def _without_text(self) -> DataError:
        return DataError(f"{self.where}: no row has a text in {', '.join(self.read_columns().values())}")

    def _numbered(self, left_out: Counter[str]) -> Iterator[tuple[int, Rows]]:
        """What is read of all pieces, and how many rows of the file went before it; counts those without a
        text.
        """
        before = 0
        for piece in self.pieces(list(dict.fromkeys(self.roles.values()))):
            blank = len(piece)
            for start, rows in self.stretches(piece):
                blank -= len(rows)
                yield before + start, rows
            before += len(piece)
            if blank:
                left_out[NO_TEXT] += blank

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
