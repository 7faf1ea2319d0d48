"""A piece of a table as it was read, and what every kind of file shares."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bertlab.data.tables.keys import TableKeys
from bertlab.errors import DataError, did_you_mean
from bertlab.errors import first_line as first_line  # handed on

PIECE = 2000  # rows at a time
Record = TypeVar("Record")
Tell = Callable[[str], None]  # takes a line that a person should read


@dataclass
class Rows:
    """A piece of a table: columns as they were read, and the class names that the data declare
    for their ids.
    """

    columns: dict[str, list[Any]]
    class_names: dict[str, list[str]] = field(default_factory=dict)

    def part(self, start: int, end: int) -> "Rows":
        """Some of its rows."""
        return Rows({name: cells[start:end] for name, cells in self.columns.items()}, self.class_names)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


class FileFormat(ABC):
    """One file of one kind. `tell` takes what is odd about it; what cannot be read raises DataError with one
    line that names the file, the line and what to do.
    """

    def __init__(self, keys: TableKeys, file: Path, tell: Tell) -> None:
        self.keys, self.file, self.tell = keys, file, tell
        self.may_mix = False  # whether a column may hold several kinds of value, as one that is only copied

    @property
    def delimiter(self) -> str | None:
        """What stands between the fields of a line; None where fields are told apart otherwise."""
        return None

    @abstractmethod
    def column_names(self) -> list[str]:
        """Of every column, in their order. Raises DataError where they have no names to keep."""

    @abstractmethod
    def pieces(self, wanted: Sequence[str]) -> Iterator[Rows]:
        """Some columns, a piece at a time. Raises DataError naming the first that is not there."""


def pick(
    columns: dict[str, list[Any]], wanted: Sequence[str], keys: TableKeys, file: Path
) -> dict[str, list[Any]]:
    """The wanted columns. Raises DataError naming the first that is not there."""
    for name in wanted:
        if name not in columns:
            raise DataError(f"{file}: {lacking_column(name, list(columns), keys)}")
    return {name: columns[name] for name in wanted}


def lacking_column(name: str, columns: Sequence[str], keys: TableKeys) -> str:
    """What to say where a column is not there."""
    key = keys.key_of_column(name)
    if not columns:
        return f"no column '{name}' ({key}): its rows have none"
    glued = next((mark for mark in (";", "\t", "|") for column in columns if mark in column), None)
    if glued is not None:
        header = ", ".join(columns)[:60]
        cure = f"set dataset.delimiter={glued!r}"
        return f"no column '{name}' ({key}); its header {header} looks separated by {glued!r}: {cure}"
    return f"no column '{name}' ({key}), {did_you_mean(name, columns)}"


def in_pieces(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records, PIECE at a time."""
    iterator = iter(records)
    while piece := list(itertools.islice(iterator, PIECE)):
        yield piece


def class_names(features: Any) -> dict[str, list[str]]:
    """Column -> names of its ids, or of the ids in its lists, as `datasets` records them."""
    from datasets import ClassLabel, List

    inner = {
        column: feature.feature if isinstance(feature, List) else feature
        for column, feature in features.items()
    }
    return {
        column: list(feature.names) for column, feature in inner.items() if isinstance(feature, ClassLabel)
    }
