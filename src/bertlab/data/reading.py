"""Rows out of local files, a piece at a time; every failure is one line that names the file, the line and
what to do.

Values are read as they stand: a CSV's `007` stays text, a surplus field is an error and not a shifted column,
and no cache of another library can serve yesterday's content. `config` is a data/table.py `TableDataset`
throughout.
"""

import codecs
import csv
import functools
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertlab.errors import ConfigError, DataError, did_you_mean

PIECE = 2000  # rows at a time
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".conll", ".txt")
Tell = Callable[[str], None]  # takes a line that a person should read
LONG_ROW = 20  # lines of a file that one quoted text may go over before that is suspicious


@dataclass
class Rows:
    """A piece of a table: columns as they were read, and the class names that the data declare
    for their ids.
    """

    columns: dict[str, list[Any]]
    class_names: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_pieces(config: Any, file: Path, wanted: Sequence[str], tell: Tell) -> Iterator[Rows]:
    """Some columns of a local file, a piece at a time; `tell` takes what is odd about it.

    Raises DataError for what cannot be read, and where a column is lacking.
    """
    csv_pieces = functools.partial(_csv_pieces, tell=tell)
    kind = kind_of(file)
    if file.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    read: dict[str, Callable[[Any, Path, Sequence[str]], Iterator[Rows]]] = {
        ".parquet": _parquet_pieces, ".csv": csv_pieces, ".tsv": csv_pieces, ".json": _json_pieces,
        ".jsonl": _json_pieces,
        ".conll": _conll_pieces, ".txt": _conll_pieces if config.tokens_column is not None else _line_pieces,
    }  # fmt: skip
    pieces = read[kind](config, file, wanted)
    first = next(pieces, None)
    if first is None:
        raise DataError(f"{file}: the file has no rows")
    yield first
    yield from pieces


def read_whole(config: Any, file: Path, tell: Tell) -> dict[str, list[Any]]:
    """Every column of a local file, in its order. Raises DataError as `read_pieces` does."""
    kind = kind_of(file)
    if file.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    if kind == ".conll" or (kind == ".txt" and config.tokens_column is not None):
        raise DataError(f"{file}: columns of a CoNLL file have no names to keep; write JSONL, CSV or Parquet")
    if kind == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            names = pyarrow.parquet.read_schema(file).names
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file}: cannot be read as Parquet ({_first_line(error)})") from error
    elif kind in (".json", ".jsonl"):
        names = list(dict.fromkeys(name for _, record in _json_records(config, file) for name in record))
    elif kind == ".txt":
        names = [config.text_column]
    else:
        delimiter = delimiter_of(config, file)
        names = next(
            _csv_records(config, file, delimiter, is_quoted(config, file, delimiter, tell), tell), []
        )
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for piece in read_pieces(config, file, names, tell):
        for name, cells in piece.columns.items():
            columns[name] += cells
    return columns


def delimiter_of(config: Any, file: Path) -> str:
    """What separates a CSV's fields: as configured, else by the file's ending."""
    return config.delimiter or ("\t" if kind_of(file) == ".tsv" else ",")


def has_mark(file: Path) -> bool:
    """Whether a text file begins with a byte-order mark."""
    with _open(file) as stream:
        start = stream.read(len(codecs.BOM_UTF8))
    return bool(start.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)))


def kind_of(file: Path) -> str:
    """A file's ending, that of a compression left out. Raises DataError for an unknown one."""
    endings = [ending.lower() for ending in file.suffixes[-2:]]
    if endings and endings[-1] in COMPRESSED:
        endings.pop()
    if not endings or endings[-1] not in ENDINGS:
        known = ", ".join(ENDINGS)
        raise DataError(
            f"{file}: unknown kind of file '{file.suffix}'; use {known} (also compressed:"
            f" {', '.join(COMPRESSED)})"
        )
    return endings[-1]


def pick(
    columns: dict[str, list[Any]], wanted: Sequence[str], config: Any, file: Path
) -> dict[str, list[Any]]:
    """The wanted columns. Raises DataError naming the first that is not there."""
    for name in wanted:
        if name not in columns:
            raise DataError(f"{file}: {lacking_column(name, list(columns), config)}")
    return {name: columns[name] for name in wanted}


def lacking_column(name: str, columns: Sequence[str], config: Any) -> str:
    """What to say where a column is not there."""
    key = config.key_of_column(name)
    if not columns:
        return f"no column '{name}' ({key}): its rows have none"
    glued = next((mark for mark in (";", "\t", "|") for column in columns if mark in column), None)
    if glued is not None:
        header = ", ".join(columns)[:60]
        cure = f"set dataset.delimiter={glued!r}, in evaluate and predict delimiter={glued!r}"
        return f"no column '{name}' ({key}); its header {header} looks separated by {glued!r}: {cure}"
    return f"no column '{name}' ({key}), {did_you_mean(name, columns)}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _in_pieces(records: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(records)
    while piece := list(itertools.islice(iterator, PIECE)):
        yield piece


# --- Parquet --------------------------------------------------------------------------------------
def _parquet_pieces(config: Any, file: Path, wanted: Sequence[str]) -> Iterator[Rows]:
    import pyarrow
    import pyarrow.parquet
    from datasets import Features

    try:
        with pyarrow.parquet.ParquetFile(file) as source:
            schema = source.schema_arrow
            pick({name: [] for name in schema.names}, wanted, config, file)
            declared = class_names(Features.from_arrow_schema(schema))
            for batch in source.iter_batches(batch_size=PIECE, columns=list(wanted)):
                yield Rows(batch.to_pydict(), declared)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({_first_line(error)})") from error


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


# --- text files -----------------------------------------------------------------------------------
def read_lines(config: Any, file: Path) -> Iterator[str]:
    """Decoded lines with their ends. Raises DataError naming the first line that does not decode."""
    encoding = _encoding(config, file)
    number = 0
    try:
        with (
            _open(file) as binary,
            io.TextIOWrapper(binary, encoding=encoding, newline=_line_end(file)) as stream,
        ):
            for line in stream:
                number += 1
                yield line
    except UnicodeError as error:  # the decoder reads ahead: find the line itself
        bad = _undecodable_line(file, encoding) or number + 1
        reason = error.reason if isinstance(error, UnicodeDecodeError) else _first_line(error)
        raise DataError(
            f"{file}: line {bad} is not {config.encoding} ({reason}); set dataset.encoding, e.g. latin-1, or"
            " mend the file"
        ) from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({_first_line(error)})") from error


def _open(file: Path) -> Any:
    import pyarrow

    compression = COMPRESSED.get(file.suffix.lower())
    return (
        file.open("rb") if compression is None else pyarrow.input_stream(str(file), compression=compression)
    )


def _encoding(config: Any, file: Path) -> str:
    """As configured; a byte order mark says more. Raises ConfigError for what is none."""
    try:
        if not codecs.lookup(config.encoding)._is_text_encoding:
            raise LookupError
    except LookupError:
        raise ConfigError(
            f"dataset.encoding={config.encoding}: not a text encoding; use e.g. utf-8 or latin-1"
        ) from None
    if codecs.lookup(config.encoding).name != "utf-8":
        return str(config.encoding)
    try:
        with _open(file) as stream:
            start = stream.read(2)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({_first_line(error)})") from error
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _line_end(file: Path) -> str:
    """A lone carriage return ends a line only in files that have no other ends (Windows' ends keep both
    signs).
    """
    with _open(file) as stream:
        start = stream.read(1 << 16)
    return "\r" if b"\r" in start and b"\n" not in start else "\n"


def _undecodable_line(file: Path, encoding: str) -> int | None:
    with _open(file) as binary, io.BufferedReader(binary) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode(encoding)
            except UnicodeError:
                return number
    return None


def _line_pieces(config: Any, file: Path, wanted: Sequence[str]) -> Iterator[Rows]:
    """One text a line, blank lines left out; its column is called as the dataset calls texts."""
    lines = (line.rstrip("\r\n") for line in read_lines(config, file) if line.strip())
    for piece in _in_pieces(lines):
        yield Rows(pick({config.text_column: piece}, wanted, config, file))


def _conll_pieces(config: Any, file: Path, wanted: Sequence[str]) -> Iterator[Rows]:
    """Columns by number, from the left `0`, `1`, … and from the right `-1`, `-2`, …; a blank line ends a
    sentence.
    """

    def sentences() -> Iterator[list[list[str]]]:
        sentence: list[list[str]] = []
        for number, line in enumerate(read_lines(config, file), start=1):
            if not line.strip() or line.startswith("-DOCSTART-"):
                if sentence:
                    yield sentence
                sentence = []
            elif not line.startswith("# "):
                cells = line.split("\t") if "\t" in line else line.split()
                if sentence and len(cells) != len(sentence[0]):
                    raise DataError(
                        f"{file}: line {number} has {len(cells)} columns, the line before it"
                        f" {len(sentence[0])}"
                    )
                sentence.append([cell.strip() for cell in cells])
        if sentence:
            yield sentence

    for piece in _in_pieces(sentences()):
        width = len(piece[0][0])
        columns = {
            str(place): [[cells[place] for cells in sentence] for sentence in piece]
            for place in range(-width, width)
        }
        yield Rows(pick(columns, wanted, config, file))


# --- CSV and TSV ----------------------------------------------------------------------------------
def _csv_pieces(config: Any, file: Path, wanted: Sequence[str], tell: Tell) -> Iterator[Rows]:
    delimiter = delimiter_of(config, file)
    records = _csv_records(config, file, delimiter, is_quoted(config, file, delimiter, tell), tell)
    names = next(records, [])
    pick({name: [] for name in names}, wanted, config, file)
    places = [names.index(name) for name in wanted]
    for piece in _in_pieces(records):
        yield Rows(
            {name: [fields[place] for fields in piece] for name, place in zip(wanted, places, strict=True)}
        )


def is_quoted(config: Any, file: Path, delimiter: str, tell: Tell) -> bool:
    """Whether quote signs frame fields, by `dataset.quoting`; auto judges a tab-separated file by its own
    lines, and tells.
    """
    if config.quoting != "auto" or delimiter != "\t":
        return bool(config.quoting != "none")
    fields, quoted, stray = 0, False, 0  # stray: the first line with a quote sign that frames nothing
    for number, line in enumerate(read_lines(config, file), start=1):
        cells = line.rstrip("\r\n").split(delimiter)
        fields = fields or len(config.column_names) or len(cells)
        if line.strip() and len(cells) != fields:
            return True  # only quotes can make fields of this
        for cell in cells if '"' in line else ():
            framed = (
                len(cell) > 1
                and cell.startswith('"')
                and cell.endswith('"')
                and '"' not in cell[1:-1].replace('""', "")
            )
            quoted |= framed
            stray = number if not stray and '"' in cell and not framed else stray
    if stray:
        tell(
            f"{file}: quote signs are read as they stand (in line {stray} one frames nothing);"
            " dataset.quoting=csv reads them as frames"
        )
        return False
    return quoted


def _csv_records(config: Any, file: Path, delimiter: str, quoted: bool, tell: Tell) -> Iterator[list[str]]:
    """The column names, then the fields of each row. Raises DataError naming the line that is not as it
    should be.
    """
    csv.field_size_limit(sys.maxsize)
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(read_lines(config, file), delimiter=delimiter, strict=True, quoting=quoting)
    names: list[str] = list(config.column_names)
    if names:
        yield names
    started = 1
    try:
        for fields in reader:
            # of the next record; one in quotes may go over several lines
            first, started = (started, reader.line_num + 1)
            if not names:
                names = fields
                if len(set(names)) < len(names):
                    raise DataError(f"{file}: the header names a column twice ({', '.join(names)})")
                yield names
                continue
            if not fields:
                continue  # a blank line
            if len(fields) != len(names):
                raise DataError(
                    f"{file}: line {reader.line_num} has {len(fields)} fields, not {len(names)}"
                    f" ({', '.join(names)[:80]}); quote texts that hold the delimiter, or see"
                    " dataset.delimiter (delimiter in evaluate and predict), dataset.quoting and"
                    " dataset.column_names"
                )
            if reader.line_num - first >= LONG_ROW and delimiter == "\t":
                tell(
                    f"{file}: one text goes over lines {first} to {reader.line_num}; if quote signs do not"
                    " frame texts here, set dataset.quoting=none"
                )
            yield fields
    except csv.Error as error:
        if "new-line character" in str(error):
            raise DataError(
                f"{file}: line {reader.line_num} holds a stray carriage return (\\r) within a text; delete"
                " it, or put the text in quotes"
            ) from None
        hint = "; if quote signs do not frame texts here, set dataset.quoting=none" if quoted else ""
        raise DataError(
            f"{file}: the row that starts in line {started} cannot be read as CSV"
            f" ({_first_line(error)}){hint}"
        ) from error


# --- JSON -----------------------------------------------------------------------------------------
def _json_pieces(config: Any, file: Path, wanted: Sequence[str]) -> Iterator[Rows]:
    """Of JSONL, or of one JSON list of objects. A column holds one kind of value."""
    known: dict[str, type] = {}
    seen: dict[str, None] = {}
    before = 0
    for numbered in _in_pieces(_json_records(config, file)):
        piece = [record for _, record in numbered]
        seen.update((name, None) for record in piece for name in record)
        for name in wanted:
            if name not in seen:
                pick({key: [] for key in seen}, wanted, config, file)
        columns = {name: [record.get(name) for record in piece] for name in wanted}
        for name, values in columns.items():
            for place, value in enumerate(values):
                if value is not None:
                    kind = (
                        float
                        if isinstance(value, int | float) and not isinstance(value, bool)
                        else type(value)
                    )
                    if known.setdefault(name, kind) is not kind:
                        where = f"row {before + place + 1}", numbered[place][0]
                        raise DataError(f"{file}: {_mixed(name, (kind, known[name]), where, value)}")
        yield Rows(columns)
        before += len(piece)


def _mixed(name: str, kinds: Sequence[type], where: tuple[str, int], value: Any) -> str:
    """What to say of a column with two kinds of value: which, and the first that is of another."""
    both = " and ".join(sorted(kind.__name__ for kind in kinds))
    row, line = where
    written = json.dumps(value, ensure_ascii=False)
    shown = (written if len(written) <= 60 else f"{written[:59]}…") + (f" (line {line})" if line else "")
    return (
        f"column '{name}' mixes {both}: {row} holds {type(value).__name__}, {shown}; write one kind of value,"
        " null where there is none"
    )


def _json_records(config: Any, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file one by one, with their lines; or those of one JSON list, whose lines are 0:
    nobody knows them.
    """
    lines = enumerate(read_lines(config, file), start=1)
    first = next((numbered for numbered in lines if numbered[1].strip()), (1, ""))
    if first[1].lstrip().startswith("["):
        listed = _parse(file, first[0], first[1] + "".join(line for _, line in lines))
        records = ((0, record) for record in listed)
    else:
        records = (
            (number, _parse(file, number, line))
            for number, line in itertools.chain([first], lines)
            if line.strip()
        )
    for row, (number, record) in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise DataError(
                f'{file}: row {row} is not an object with named fields, e.g. {{"text": …, "label": …}}'
            )
        yield number, record


def _parse(file: Path, number: int, content: str) -> Any:
    try:
        value = json.loads(content)
        if "\\u" in content:
            # JSON may spell half a character, `\ud800`, which is no text
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError:
        raise DataError(
            f"{file}: line {number} holds half a character (a lone \\ud800 to \\udfff); mend or drop it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: line {number} is not JSON ({_first_line(error)})") from None
