"""Datasets of rows: a hub name, a place in a local mirror, or files of the user's own; a dataset is one YAML
file over `table`.

Columns are known by role. An objective names the roles that it reads and the kind of each (data/kinds/); the
dataset says which column stands for a role. Only those are read, a piece at a time, converted, and kept in
the cache as Arrow files that are memory-mapped: a corpus of any size costs no memory. What is wrong with
columns, labels, encodings or splits is said here, before a model is built.
"""

import contextlib
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertlab.config.schema import DatasetConfig, FileColumns, Paths
from bertlab.data.cleaning import CLEANERS
from bertlab.data.dataset import SPLITS, LoadedDataset, Origin, as_dataset
from bertlab.data.tables.conversion import Part, Pieces, Written
from bertlab.data.tables.formats import read_pieces
from bertlab.data.tables.hub import hub_pieces, load_from_hub
from bertlab.data.tables.keys import TableKeys
from bertlab.data.tables.rows import Rows, Tell, pick
from bertlab.data.tables.sources import fingerprint, local_files
from bertlab.declarations import Role
from bertlab.errors import ConfigError, DataError
from bertlab.runs.cache import cached
from bertlab.runs.files import digest, file_digest
from bertlab.runs.identity import folder_version, kind_versions

OF_SPLITS = (
    "name",
    "fraction",
    "split_seed",
    "folds",
    "fold",
    "mirror_files",
    "hub",
)  # keys that do not change how a file is read


# keys of evaluate and predict that are called as the dataset's are
OWN_KEYS = (*(item.name for item in dataclasses.fields(FileColumns)), "label_map")


@dataclass
class TableDataset(TableKeys):
    """Rows with a text, perhaps a second text, a label; or words and their tags. Sources in order: own files,
    the local mirror, the hub.
    """

    def fingerprint(self, paths: Paths) -> str:
        """The bytes of local files, or the hub's version of a hub dataset, as 16 hex digits."""
        return fingerprint(self, paths)

    def read(self, paths: Paths, roles: Sequence[Role]) -> LoadedDataset:
        """See `read`."""
        return read(self, paths, roles)


def table_of(config: DatasetConfig, own: FileColumns) -> TableDataset:
    """How a file of the user's own is read for a run on this dataset: with the dataset's columns, or those
    that `own` names.

    With columns of its own a CSV has a header, and UTF-8 unless said otherwise, whatever the training data
    had.
    """
    if not isinstance(config, TableDataset):
        config = TableDataset(
            name="files", text_pair_column="text_pair" if "text_pair" in config.offers() else None
        )
    changes: dict[str, Any] = dict(own.changes())
    if set(changes) - {"encoding", "delimiter", "quoting", "column_names"}:
        changes = {"column_names": [], "delimiter": None, "encoding": "utf-8", **changes}
    return dataclasses.replace(config, **changes)


def read(keys: TableKeys, paths: Paths, roles: Sequence[Role]) -> LoadedDataset:
    """The roles of every split. Raises DataError naming file, column, label or row, and what to do."""
    files = local_files(keys, paths)
    from_hub = {} if files else load_from_hub(keys)
    parts = {split: [split] for split in SPLITS} if keys.train_file else keys.sources()
    there = [*files, *from_hub]
    if lacking := [part for part in parts["train"] if part not in there]:
        raise DataError(f"{keys.name}: there is no {lacking[0]} split; found {', '.join(there) or 'nothing'}")
    wanted = [part for split in parts.values() for part in split if part in there]
    notes: dict[str, None] = {}  # what is told of files, each line once however often a file is read
    tell = notes.setdefault
    tables = {
        part: Part(
            keys,
            roles,
            _pieces_of(keys, part, files, from_hub, tell),
            _where(keys, part, files),
            keys.max_words.get(part),
        )
        for part in wanted
    }
    content = {
        part: file_digest(files[part]) if files else str(from_hub[part]._fingerprint) for part in wanted
    }
    settings = {key: value for key, value in keys.deciding().items() if key not in OF_SPLITS}
    kinds = [dataclasses.asdict(role) for role in roles]
    code = {"data": folder_version(Path(__file__).parents[1]), **kind_versions(roles)}
    key = digest({"content": content, "settings": settings, "roles": kinds, "code": code, "parts": parts})
    folder = cached(paths, "tables", key, lambda temporary: _convert(temporary, tables, parts, notes))
    told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    splits = {
        split: [
            as_dataset(folder / f"{part}.arrow") for part in given if (folder / f"{part}.arrow").is_file()
        ]
        for split, given in parts.items()
    }
    from datasets import concatenate_datasets

    joined = {split: concatenate_datasets(given) for split, given in splits.items() if given}
    names = {part: Path(table.where).name if files else table.where for part, table in tables.items()}
    if len(set(names.values())) < len(
        {table.where for table in tables.values()}
    ):  # files of one name in several folders
        names = {part: f"{name} ({part})" for part, name in names.items()}
    origins = {
        split: Origin.joined(
            [
                Origin.of(names[part], np.load(folder / f"{part}.rows.npy", mmap_mode="r"))
                for part in parts[split]
                if (folder / f"{part}.arrow").is_file()
            ]
        )
        for split in joined
    }
    left_out = {names[part]: found for part, found in told["left_out"].items()}
    return LoadedDataset(joined, told["names"], notes=told["notes"], origins=origins, left_out=left_out)


def _where(keys: TableKeys, part: str, files: dict[str, Path]) -> str:
    return str(files[part]) if files else f"{keys.hub} ({part})"


def _pieces_of(
    keys: TableKeys, part: str, files: dict[str, Path], from_hub: dict[str, Any], tell: Tell
) -> Pieces:
    if files:
        return lambda columns: read_pieces(keys, files[part], columns, tell)
    return lambda columns: hub_pieces(keys, from_hub[part], f"{keys.hub} ({part})", columns)


def _convert(
    folder: Path, tables: dict[str, Part], parts: dict[str, list[str]], notes: dict[str, None]
) -> None:
    """Every part as PART.arrow; names and what is worth telling as told.json."""
    for part in tables.values():
        part.look()
    names = tables[parts["train"][0]].names()
    left_out: dict[str, dict[str, int]] = {}
    for name, part in tables.items():
        if part.is_unanswered():
            if name not in parts["test"]:
                raise DataError(f"{part.where}: no row of the {name} split has an answer in {part.answers()}")
            notes.setdefault(f"{part.where}: none of its rows has an answer; there will be no test score")
            continue
        written = part.write(folder / f"{name}.arrow", names)
        np.save(folder / f"{name}.rows.npy", written.rows)
        left_out[name] = {"read": written.read, **written.left_out}
        if written.left_out:
            why = " and ".join(f"{count:,} {reason}" for reason, count in written.left_out.items())
            notes.setdefault(f"{part.where}: {written.read:,} rows, {why} left out")
    told = {"names": names, "notes": list(notes), "left_out": left_out}
    (folder / "told.json").write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")


def read_rows(
    keys: TableKeys, file: Path, roles: Sequence[Role], label_names: Sequence[str]
) -> tuple[Any, Written]:
    """A file of the user's own in a trained run's roles, in memory, and which of its rows these are: those
    without a text are left out, and those without an answer where `keys` say so.

    A role to predict is read where it is among `roles`.
    """
    with own_keys():
        return _rows_of(
            keys, lambda columns: read_pieces(keys, file, columns, warn), str(file), roles, label_names
        )


def rows_of_columns(
    keys: TableKeys,
    columns: Mapping[str, Sequence[Any]],
    where: str,
    roles: Sequence[Role],
    label_names: Sequence[str],
) -> tuple[Any, Written]:
    """The same of columns that are at hand. Arrays and tuples are lists, NumPy's numbers are numbers: as
    libraries of tables hand them on.
    """

    def pieces(wanted: Sequence[str]) -> Iterator[Rows]:
        given = pick({name: list(cells) for name, cells in columns.items()}, wanted, keys, Path(where))
        yield Rows({name: [_plain(cell) for cell in cells] for name, cells in given.items()})

    with own_keys():
        return _rows_of(keys, pieces, where, roles, label_names)


def _rows_of(
    keys: TableKeys, pieces: Pieces, where: str, roles: Sequence[Role], label_names: Sequence[str]
) -> tuple[Any, Written]:
    there = [role for role in roles if keys.column_of(role.name) is not None]
    part = Part(keys, there, pieces, where, keeps_blank=False)
    part.look()
    if part.is_unanswered():
        raise DataError(
            f"{where}: no row has an answer in {part.answers()}; evaluate needs them (predict does not)"
        )
    with tempfile.TemporaryDirectory() as place:
        written = part.write(Path(place) / "rows.arrow", label_names)
        return as_dataset(Path(place) / "rows.arrow", in_memory=True), written


def _plain(cell: Any) -> Any:
    """A cell with lists, objects and numbers as JSON has them."""
    if isinstance(cell, np.ndarray | list | tuple):
        return [_plain(one) for one in cell]
    if isinstance(cell, dict):
        return {name: _plain(one) for name, one in cell.items()}
    return cell.item() if isinstance(cell, np.generic) else cell


@contextlib.contextmanager
def own_keys() -> Iterator[None]:
    """What is wrong with a file for a finished run is told by the keys that say how it is read there."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(_by_own_keys(str(error))) from error


def _by_own_keys(line: str) -> str:
    return re.sub(r"\bdataset\.(\w+)", lambda key: key[1] if key[1] in OWN_KEYS else key[0], line)


def warn(line: str) -> None:
    """Beside what is asked for, which may be read by a program."""
    print(_by_own_keys(line), file=sys.stderr, flush=True)


def from_texts(clean: str, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Any:
    """Bare texts as rows, cleaned like the training data."""
    from datasets import Dataset

    columns = {"text": list(texts)} if pairs is None else {"text": list(texts), "text_pair": list(pairs)}
    if clean in CLEANERS:
        columns = {name: [CLEANERS[clean](value) for value in values] for name, values in columns.items()}
    return Dataset.from_dict(columns)
