"""Which kind of file is read how: by its ending."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertlab.data.tables.delimited import Delimited, TabDelimited
from bertlab.data.tables.json_lines import JsonLines
from bertlab.data.tables.keys import TableKeys
from bertlab.data.tables.lines import Conll, Lines
from bertlab.data.tables.parquet import Parquet
from bertlab.data.tables.rows import FileFormat, Rows, Tell
from bertlab.data.tables.text_files import COMPRESSED
from bertlab.errors import DataError

FORMATS: dict[str, type[FileFormat]] = {
    ".csv": Delimited, ".tsv": TabDelimited, ".json": JsonLines, ".jsonl": JsonLines, ".parquet": Parquet,
    ".conll": Conll, ".txt": Lines,
}  # fmt: skip


def kind_of(file: Path) -> str:
    """A file's ending, that of a compression left out. Raises DataError for an unknown one."""
    endings = [ending.lower() for ending in file.suffixes[-2:]]
    if endings and endings[-1] in COMPRESSED:
        endings.pop()
    if not endings or endings[-1] not in FORMATS:
        known = ", ".join(FORMATS)
        raise DataError(
            f"{file}: unknown kind of file '{file.suffix}'; use {known} (also compressed:"
            f" {', '.join(COMPRESSED)})"
        )
    return endings[-1]


def open_table(keys: TableKeys, file: Path, tell: Tell) -> FileFormat:
    """A file by its ending; words and tags may stand in a .txt too. Raises DataError for an empty one."""
    kind = FORMATS[kind_of(file)]
    if file.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    if kind is Lines and keys.tokens_column is not None:
        kind = Conll
    return kind(keys, file, tell)


def read_pieces(
    keys: TableKeys, file: Path, wanted: Sequence[str], tell: Tell, may_mix: bool = False
) -> Iterator[Rows]:
    """Some columns of a local file, a piece at a time; `tell` takes what is odd about it. `may_mix`: a column
    of several kinds of value is read too.

    Raises DataError for what cannot be read, and where a column is lacking.
    """
    table = open_table(keys, file, tell)
    table.may_mix = may_mix
    pieces = table.pieces(wanted)
    first = next(pieces, None)
    if first is None:
        raise DataError(f"{file}: the file has no rows")
    yield first
    yield from pieces


def read_whole(keys: TableKeys, file: Path, tell: Tell) -> dict[str, list[Any]]:
    """Every column of a local file, in its order. Raises DataError as `read_pieces` does."""
    names = open_table(keys, file, tell).column_names()
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for piece in read_pieces(keys, file, names, tell, may_mix=True):
        for name, cells in piece.columns.items():
            columns[name] += cells
    return columns
