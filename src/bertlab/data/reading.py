"""Rows out of local files and off the hub; every failure is one line that names the file, the line and what to do.

Local files are read here, value by value as they stand: a CSV's `007` stays text, a surplus field is an error and not a shifted
column, and no cache can serve yesterday's content. `config` is a data/table.py `Table` throughout.
"""

import codecs
import csv
import html
import itertools
import json
import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertlab.errors import ConfigError, DataError

READERS = {"parquet": "Parquet", "csv": "CSV", "tsv": "CSV", "json": "JSON", "jsonl": "JSONL"}


@dataclass
class Rows:
    """Columns as they were found, and the class names that the data declare for their ids."""

    columns: dict[str, list[Any]]
    class_names: dict[str, list[str]] = field(default_factory=dict)

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def datasets_offline() -> Any:
    """The `datasets` library for data that never come from a hub: no connection is tried."""
    import datasets

    return datasets


def datasets_online() -> Any:
    """The `datasets` library, quiet and, where no network answers, told so before its import (else it retries for 23 seconds)."""
    if "HF_HUB_OFFLINE" not in os.environ and not _hub_answers():
        os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets


def _hub_answers() -> bool:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HF_ENDPOINT")):
        return True  # cannot be told by a plain connection
    try:
        socket.create_connection(("huggingface.co", 443), timeout=2).close()
    except OSError:
        return False
    return True


def load_from_hub(config: Any) -> dict[str, Any]:
    """Split -> `datasets.Dataset`. Raises DataError saying what to do without a network."""
    where = f"dataset={config.name}"
    if not config.hub:
        raise DataError(
            f"{where}: not in the mirror; set BERTLAB_DATA or paths.mirror to a folder that holds {min(config.mirror_files.values())}"
        )
    datasets = datasets_online()
    try:
        return dict(datasets.load_dataset(config.hub, config.hub_config))
    except Exception as error:  # of several libraries, none of them ours
        wanted = config.mirror_files.get("train", f"{config.name}/train.parquet")
        raise DataError(
            f"{where}: cannot get {config.hub} from the hub ({_first_line(error)}). Without a network, set BERTLAB_DATA or "
            f"paths.mirror to a folder that holds {wanted}"
        ) from error


def rows_of(dataset: Any) -> Rows:
    """A `datasets.Dataset` as rows."""
    return Rows({column: dataset[column][:] for column in dataset.column_names}, _class_names(dataset.features))


def _class_names(features: Any) -> dict[str, list[str]]:
    """Column -> names of its ids, or of the ids in its lists."""
    inner = {column: getattr(feature, "feature", feature) for column, feature in features.items()}
    return {column: list(feature.names) for column, feature in inner.items() if hasattr(feature, "names")}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


# --- local files ------------------------------------------------------------------------------------------------------------------
def read_file(config: Any, file: Path) -> Rows:
    """One local file, columns as they are. Raises DataError for what cannot be read."""
    kind = _kind_of(file)
    if kind == "parquet":
        rows = _read_parquet(file)
    elif kind in ("csv", "tsv"):
        rows = _read_csv(config, file, "," if kind == "csv" else "\t")
    else:
        rows = _read_json(config, file)
    if len(rows) == 0:
        raise DataError(f"{file}: the file has no rows")
    return rows


def _kind_of(file: Path) -> str:
    """A file's kind by its ending. Raises DataError for an unknown one and for an empty file."""
    kind = file.suffix.lower().lstrip(".")
    if kind not in READERS:
        raise DataError(f"{file}: unknown kind of file '.{kind}'; use .csv, .tsv, .jsonl or .parquet")
    if file.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    return kind


def _read_parquet(file: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({_first_line(error)})") from error
    features = datasets_offline().Features.from_arrow_schema(table.schema)
    return Rows({column: table.column(column).to_pylist() for column in table.column_names}, _class_names(features))


def _lines(config: Any, file: Path) -> Iterator[str]:
    """Decoded lines with their ends. Raises DataError naming the first line that does not decode."""
    try:
        if not codecs.lookup(config.encoding)._is_text_encoding:
            raise LookupError
    except LookupError:
        raise ConfigError(f"dataset.encoding={config.encoding}: not a text encoding; use e.g. utf-8 or latin-1") from None
    number = 0
    try:
        with file.open(encoding="utf-8-sig" if config.encoding.lower() in ("utf-8", "utf8") else config.encoding, newline="") as stream:
            for line in stream:
                number += 1
                yield line
    except UnicodeError as error:  # the decoder reads ahead: find the line itself
        bad = _undecodable_line(file, config.encoding) or number + 1
        reason = getattr(error, "reason", None) or _first_line(error)
        raise DataError(
            f"{file}: line {bad} is not {config.encoding} ({reason}); set dataset.encoding, e.g. latin-1, or mend the file"
        ) from None


def _undecodable_line(file: Path, encoding: str) -> int | None:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode(encoding)
            except UnicodeError:
                return number
    return None


def _read_csv(config: Any, file: Path, delimiter: str) -> Rows:
    records = _csv_records(config, file, delimiter)
    names = next(records, [])
    values: list[list[str]] = [[] for _ in names]
    for fields in records:
        for column, value in zip(values, fields, strict=True):
            column.append(value)
    return Rows(dict(zip(names, values, strict=True)))


def _csv_records(config: Any, file: Path, delimiter: str) -> Iterator[list[str]]:
    """The column names, then the fields of each row. Raises DataError naming the line that is not as it should be."""
    delimiter = delimiter if config.delimiter is None else config.delimiter
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(_lines(config, file), delimiter=delimiter, strict=True)
    names: list[str] = list(config.column_names)
    if names:
        yield names
    started = 1
    try:
        for fields in reader:
            started = reader.line_num + 1  # of the next record; one in quotes may go over several lines
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
                    f"{file}: line {reader.line_num} has {len(fields)} fields, not {len(names)} ({', '.join(names)[:80]}); quote texts "
                    "that hold the delimiter, or see dataset.delimiter and dataset.column_names"
                )
            yield fields
    except csv.Error as error:
        raise DataError(f"{file}: the row that starts in line {started} cannot be read as CSV ({_first_line(error)})") from error


def _read_json(config: Any, file: Path) -> Rows:
    """JSONL, or one JSON list of objects."""
    columns: dict[str, list[Any]] = {}
    for row, record in enumerate(_json_records(config, file), start=1):
        for name in record:
            columns.setdefault(name, [None] * (row - 1))
        for name, column in columns.items():
            column.append(record.get(name))
    for name, column in columns.items():
        kinds = {str if isinstance(value, str) else float if isinstance(value, int | float) else type(value) for value in column} - {
            type(None)
        }
        if len(kinds) > 1:
            raise DataError(
                f"{file}: column '{name}' mixes {' and '.join(sorted(kind.__name__ for kind in kinds))}; write one kind of value"
            )
    return Rows(columns)


def _json_records(config: Any, file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file one by one, or those of one JSON list."""
    lines = enumerate(_lines(config, file), start=1)
    first = next((numbered for numbered in lines if numbered[1].strip()), (1, ""))
    if first[1].lstrip().startswith("["):
        records = iter(_parse(file, first[0], first[1] + "".join(line for _, line in lines)))
    else:
        records = (_parse(file, number, line) for number, line in itertools.chain([first], lines) if line.strip())
    for row, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise DataError(f'{file}: row {row} is not an object with named fields, e.g. {{"text": …, "label": …}}')
        yield record


def read_pieces(config: Any, file: Path, columns: Sequence[str], size: int = 2000) -> Iterator[Rows]:
    """Some columns of a local file, `size` rows at a time, so that a large file is never in memory whole (but for one JSON list).

    Of a file that lacks one of them, the first piece shows which columns it has. Raises DataError for what cannot be read.
    """
    kind = _kind_of(file)
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(file) as source:
                names = source.schema_arrow.names
                if not set(columns) <= set(names):
                    yield Rows({name: [] for name in names})
                    return
                for batch in source.iter_batches(batch_size=size, columns=list(columns)):
                    yield Rows(batch.to_pydict())
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file}: cannot be read as Parquet ({_first_line(error)})") from error
        return
    if kind in ("csv", "tsv"):
        fields = _csv_records(config, file, "," if kind == "csv" else "\t")
        names = next(fields, [])
        records: Iterator[dict[str, Any]] = (dict(zip(names, values, strict=True)) for values in fields)
    else:
        records = _json_records(config, file)
    while piece := list(itertools.islice(records, size)):
        names = list(dict.fromkeys(name for record in piece for name in record))
        wanted = columns if all(column in names for column in columns) else names
        yield Rows({name: [record.get(name) for record in piece] for name in wanted})


def _parse(file: Path, number: int, content: str) -> Any:
    try:
        found = json.loads(content)
        if "\\u" in content:
            json.dumps(found, ensure_ascii=False).encode()  # JSON may spell half a character, `\ud800`, which is no text
        return found
    except UnicodeEncodeError:
        raise DataError(f"{file}: line {number} holds half a character (a lone \\ud800 to \\udfff); mend or drop it") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: line {number} is not JSON ({_first_line(error)})") from None


# --- cleaning ----------------------------------------------------------------------------------------------------------------
def clean_html(value: str) -> str:
    """Tags become spaces, entities characters, runs of white space one space."""
    return " ".join(html.unescape(re.sub(r"</?[a-zA-Z!][^<>]{0,200}>", " ", value)).split())


def clean_tweet(value: str) -> str:
    """Entities to characters, links become `http`, user names `@user` (what a link or a name says is not sentiment)."""
    value = html.unescape(html.unescape(value))
    value = re.sub(r"(https?://|www\.)\S+", "http", value, flags=re.IGNORECASE)
    return " ".join(re.sub(r"(?<!\w)@\w+", "@user", value).split())


def clean_treebank(value: str) -> str:
    """Text as it was before Penn-Treebank tokenisation: `it is n't good , -lrb- he 'd say -rrb- .` to `it isn't good, (he'd say).`"""
    for token, mark in (
        ("-lrb-", "("),
        ("-rrb-", ")"),
        ("-lsb-", "["),
        ("-rsb-", "]"),
        ("``", '"'),
        ("''", '"'),
        ("`", "'"),
        ("\\/", "/"),
        ("\\*", "*"),
    ):
        value = value.replace(token, mark)
    value = re.sub(r"\s+(n't|'(?:s|re|ve|ll|d|m)?)(?=\s|$)", r"\1", value)
    value = re.sub(r"\s+([.,;:!?)\]%]+)(?=\s|[.,;:!?)\]%]|$)", r"\1", value)
    return " ".join(re.sub(r"([(\[$])\s+", r"\1", value).split())


CLEANERS = {"html": clean_html, "tweet": clean_tweet, "treebank": clean_treebank}
