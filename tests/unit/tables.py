"""Tables of the tests' own making, in every kind of file, and how a dataset reads them."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

from bertlab.config.schema import Paths
from bertlab.data.dataset import LoadedDataset, load_dataset, roles_for
from bertlab.data.tables.table import TableDataset
from bertlab.declarations import Role
from bertlab.objectives.classification import Classification

PATHS = Paths()
LABEL = Role("label", "label", is_answer=True)
NUMBER = Role("number", "number", is_answer=True)
NAMES = ["negative", "positive"]


def classified(config: Any, paths: Paths = PATHS) -> LoadedDataset:
    """As a classifier reads a dataset: texts, second texts where there are such, labels."""
    return load_dataset(config, paths, roles_for(config, Classification(name="classification")))


def load(*roles: Role, **options: Any) -> LoadedDataset:
    """A table of these options in these roles; in those of a classifier where none are given."""
    config = TableDataset(name="own", **options)
    config.check("dataset")
    return load_dataset(config, PATHS, roles) if roles else classified(config)


def both(file: str, *roles: Role, **options: Any) -> LoadedDataset:
    """One file for training and validation, so that no row is held out."""
    return load(*roles, train_file=file, validation_file=file, **options)


def rows(loaded: LoadedDataset, split: str = "train") -> dict[str, list[Any]]:
    """A split's columns."""
    return {name: list(loaded.splits[split][name]) for name in loaded.splits[split].column_names}


def delimited(columns: dict[str, list[Any]], separator: str = ",", line_end: str = "\n") -> bytes:
    """CSV with a header, quoted where it must be."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator=line_end)
    writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
    return stream.getvalue().encode()


def as_jsonl(columns: dict[str, list[Any]]) -> bytes:
    """One object a line."""
    lines = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def as_parquet(columns: dict[str, list[Any]]) -> bytes:
    """A column of each kind."""
    import pyarrow
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


WRITERS: dict[str, Callable[[dict[str, list[Any]]], bytes]] = {
    "rows.csv": delimited,
    "rows.tsv": lambda columns: delimited(columns, "\t"),
    # a byte-order mark and Windows line ends
    "excel.csv": lambda columns: b"\xef\xbb\xbf" + delimited(columns, ",", "\r\n"),
    "rows.jsonl": as_jsonl,
    "rows.parquet": as_parquet,
}
