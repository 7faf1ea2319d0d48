"""From a dataset's config to splits with declared columns: `text`, optionally `text_pair`, and `label` as class ids.

`Table` describes any dataset of rows: a hub name, its place in a local mirror, or files of the user's own. A dataset is one YAML
file over it. What is wrong with columns, labels, encodings or splits is said here, before a model is built.
"""

import dataclasses
import hashlib
import importlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bertlab.config import DatasetConfig, FileColumns, Paths, choice, flag, mapping, string, words
from bertlab.data.reading import CLEANERS, Rows, datasets_offline, load_from_hub, read_file, rows_of
from bertlab.errors import ConfigError, DataError, did_you_mean

SPLITS = ("train", "validation", "test")


@dataclass
class Table(DatasetConfig):
    """Rows with a text, perhaps a second text, and a label. Sources in order: own files, the local mirror, the hub."""

    hub: str | None = string(None, "name on the Hugging Face hub")
    hub_config: str | None = string(None, "configuration of the hub dataset")
    mirror_files: dict[str, str] = mapping("split -> path below paths.mirror, used where the mirror holds it")
    train_file: str | None = string(None, "own file for training: CSV, TSV, JSONL or Parquet")
    validation_file: str | None = string(None, "own file for validation; without one, part of train is held out")
    test_file: str | None = string(None, "own file for the final test")
    text_column: str = string("text", "column of the (first) text")
    text_pair_column: str | None = string(None, "column of the second text, for pairs")
    label_column: str = string("label", "column of the label: ids or strings")
    label_names: list[str] = words("class names in id order; default: from the data")
    label_map: dict[Any, str] = mapping("raw label -> class name; rows with other labels are an error, or dropped")
    drop_unmapped_labels: bool = flag(False, "drop rows whose label is not in label_map")
    column_names: list[str] = words("columns of a CSV without a header line")
    delimiter: str | None = string(None, "field separator of CSV files; default: by ending (comma, or tab for .tsv)")
    encoding: str = string("utf-8", "encoding of text files, e.g. utf-8 or latin-1")
    clean: str = choice("none", "none", "html", "tweet", help="html: tags and entities to text; tweet: also links and @names")

    def check(self, path: str) -> None:
        """Some source must be named; label options must fit each other."""
        if not (self.hub or self.mirror_files or self.train_file):
            raise ConfigError(f"{path}: no source; set {path}.train_file to a CSV, TSV, JSONL or Parquet file, or {path}.hub to a hub name")
        self.label_map = {str(raw): name for raw, name in self.label_map.items()}
        if len(set(self.label_names)) < len(self.label_names) or len(self.label_names) == 1:
            raise ConfigError(f"{path}.label_names={self.label_names}: needs two or more different names")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ConfigError(f"{path}.delimiter={self.delimiter!r}: must be one character, e.g. ';' or '\\t'")
        if unknown_splits := sorted(set(self.mirror_files) - set(SPLITS)):
            raise ConfigError(f"{path}.mirror_files.{unknown_splits[0]}: unknown split, {did_you_mean(unknown_splits[0], SPLITS)}")
        if self.drop_unmapped_labels and not self.label_map:
            raise ConfigError(f"{path}.drop_unmapped_labels: needs {path}.label_map")
        if self.label_names and (unknown := set(self.label_map.values()) - set(self.label_names)):
            raise ConfigError(f"{path}.label_map: maps to {sorted(unknown)}, which {path}.label_names lacks")


@dataclass
class LoadedDataset:
    """Splits ready for any objective, and what is known about them."""

    splits: Any  # datasets.DatasetDict with columns text, [text_pair], label
    label_names: list[str]
    best_possible: dict[str, float] = field(default_factory=dict)  # split -> best reachable accuracy, where known


def columns_of(config: DatasetConfig) -> tuple[str, ...]:
    """Columns that the dataset will have, known before anything is read."""
    if isinstance(config, Table):
        return ("text", "text_pair", "label") if config.text_pair_column else ("text", "label")
    return tuple(importlib.import_module(type(config).__module__).columns(config))


def table_of(config: DatasetConfig, own: FileColumns) -> Table:
    """How a file of the user's own is read for a run on this dataset: with the dataset's columns, or those that `own` names.

    With columns of its own a CSV has a header, and UTF-8 unless said otherwise, whatever the training data had.
    """
    if not isinstance(config, Table):
        config = Table(name="files", text_pair_column="text_pair" if "text_pair" in columns_of(config) else None)
    changes: dict[str, Any] = dict(own.changes())
    if any(name.endswith("_column") for name in changes):
        changes = {"column_names": [], "delimiter": None, "encoding": "utf-8", **changes}
    return dataclasses.replace(config, **changes)


# --- sources ------------------------------------------------------------------------------------------------------------------
def mirror_folder(paths: Paths) -> Path | None:
    """The local mirror: `paths.mirror`, else the environment's BERTLAB_DATA, else none. Raises ConfigError where it is missing."""
    given = paths.mirror or os.environ.get("BERTLAB_DATA")
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        name = "paths.mirror" if paths.mirror else "BERTLAB_DATA"
        raise ConfigError(f"{name}={given}: not a folder; it should hold one folder a dataset, e.g. sst2/train.parquet")
    return folder


def local_files(config: Table, paths: Paths) -> dict[str, Path]:
    """Split -> file on this machine; empty where the dataset must come from the hub. Raises DataError for a file that is missing."""
    own = {split: getattr(config, f"{split}_file") for split in SPLITS if getattr(config, f"{split}_file")}
    if own:
        if "train" not in own:
            raise DataError(f"dataset.{min(own)}_file is set without dataset.train_file; name the training file too")
        files = {split: Path(file).expanduser() for split, file in own.items()}
        for split, file in files.items():
            if not file.is_file():
                raise DataError(f"dataset.{split}_file={file}: no such file")
        return files
    mirror = mirror_folder(paths)
    if mirror is None or not config.mirror_files:
        return {}
    files = {split: mirror / file for split, file in config.mirror_files.items()}
    missing = [split for split, file in files.items() if not file.is_file()]
    if not missing:
        return files
    if len(missing) < len(files):
        raise DataError(f"the mirror {mirror} holds only part of {config.name}: {config.mirror_files[missing[0]]} is missing")
    return {}


def fingerprint(config: DatasetConfig, paths: Paths) -> str:
    """Content of the data a config names, as 16 hex digits: the bytes of local files, or the hub's version of a hub dataset."""
    if not isinstance(config, Table):
        return "generated"  # the generator's config and code are in the run's identity already
    files = local_files(config, paths)
    digest = hashlib.sha256()
    if files:
        for split, file in sorted(files.items()):
            digest.update(split.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    else:
        for split, rows in sorted(load_from_hub(config).items()):
            digest.update(f"{split}:{rows._fingerprint}".encode())
    return digest.hexdigest()[:16]


def load_dataset(config: DatasetConfig, paths: Paths) -> LoadedDataset:
    """Load, check, split. Raises DataError naming file, column, label or row, and what to do."""
    if not isinstance(config, Table):
        return _load_generated(config)
    files = local_files(config, paths)
    raw: dict[str, Rows]
    if files:
        raw = {split: read_file(config, file) for split, file in files.items()}
    else:
        raw = {split: rows_of(rows) for split, rows in load_from_hub(config).items()}
    where = {split: str(files.get(split, f"{config.hub} ({split})")) for split in raw}
    if "train" not in raw:
        raise DataError(f"{config.name}: there is no train split; found {', '.join(raw) or 'nothing'}")
    names = _label_names(config, raw, where)
    splits = {}
    for split, rows in raw.items():
        if split not in SPLITS:
            continue
        table = _declare(config, rows, names, where[split])
        if table is not None:
            splits[split] = table
        elif split != "test":  # a benchmark's test split often comes without its labels; it is then left out
            raise DataError(f"{where[split]}: no row of the {split} split has a label in column '{config.label_column}'")
    return LoadedDataset(_hold_out(config, splits), names)


def read_rows(config: Table, file: Path, label_names: list[str] | None) -> Any:
    """A file of the user's own in a trained run's columns, with a `label` column where `label_names` are given and the file has labels."""
    rows = read_file(config, file)
    has_labels = label_names is not None and config.label_column in rows.column_names
    return _declare(config, rows, label_names if has_labels else None, str(file))


def from_texts(clean: str, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Any:
    """Bare texts as rows, cleaned like the training data."""
    columns = {"text": list(texts)} if pairs is None else {"text": list(texts), "text_pair": list(pairs)}
    if clean != "none":
        columns = {name: [CLEANERS[clean](value) for value in values] for name, values in columns.items()}
    return datasets_offline().Dataset.from_dict(columns)


def _load_generated(config: DatasetConfig) -> LoadedDataset:
    module = importlib.import_module(type(config).__module__)
    datasets = datasets_offline()
    columns = module.generate(config)
    best = {split: module.best_possible(table) for split, table in columns.items() if table["label"]}
    splits = {}
    for split, table in columns.items():
        if table["label"]:
            kept = {name: values for name, values in table.items() if name != "clean_label"}
            splits[split] = datasets.Dataset.from_dict(kept)
    return LoadedDataset(_hold_out(config, splits), module.label_names(config), best)


# --- columns and labels -----------------------------------------------------------------------------------------------------
def _require_column(rows: Rows, column: str, key: str, where: str) -> None:
    if column not in rows.column_names:
        glued = next((mark for mark in (";", "\t", "|") for name in rows.column_names if mark in name), None)
        if glued is not None:
            header = ", ".join(rows.column_names)[:60]
            raise DataError(
                f"{where}: no column '{column}' ({key}); its header {header} looks separated by {glued!r}: set dataset.delimiter={glued!r}"
            )
        raise DataError(f"{where}: no column '{column}' ({key}), {did_you_mean(column, rows.column_names)}")


def _raw_label(value: Any) -> str:
    """Labels as they are compared: 1, 1.0 and '1' are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(value).strip())


def _label_names(config: Table, raw: dict[str, Rows], where: dict[str, str]) -> list[str]:
    """Class names in id order: configured, mapped, declared by the data, or the distinct values of train."""
    train = raw["train"]
    _require_column(train, config.label_column, "dataset.label_column", where["train"])
    declared = train.class_names.get(config.label_column)
    if config.label_names:
        if declared and sorted(declared) == sorted(config.label_names) and declared != list(config.label_names):
            raise ConfigError(f"dataset.label_names={config.label_names}: {where['train']} declares its ids in the order {declared}")
        return list(config.label_names)
    if config.label_map:
        return list(dict.fromkeys(config.label_map.values()))
    if declared:
        return declared
    values = {_raw_label(value) for value in train.columns[config.label_column] if value is not None} - {"", "-1"}
    if len(values) < 2:
        raise DataError(f"{where['train']}: column '{config.label_column}' has fewer than two different labels ({sorted(values)})")
    if len(values) > 1000:
        raise DataError(
            f"{where['train']}: column '{config.label_column}' has {len(values)} different values; is it the label? (dataset.label_column)"
        )
    return sorted(values, key=lambda value: (0, int(value), value) if re.fullmatch(r"-?\d+", value) else (1, 0, value))


def _declare(config: Table, rows: Rows, names: list[str] | None, where: str) -> Any:
    """Columns by role (`text`, `text_pair`, `label`), cleaned; None for a split without labels. `names` None: labels are not wanted."""
    _require_column(rows, config.text_column, "dataset.text_column", where)
    table: dict[str, list[Any]] = {"text": _texts(config, rows, config.text_column, where)}
    if config.text_pair_column:
        _require_column(rows, config.text_pair_column, "dataset.text_pair_column", where)
        table["text_pair"] = _texts(config, rows, config.text_pair_column, where)
    if names is not None:
        _require_column(rows, config.label_column, "dataset.label_column", where)
        labels = _label_ids(config, rows, names, where)
        if labels is None:
            return None
        keep = [row for row, label in enumerate(labels) if label is not None]
        table = {name: [values[row] for row in keep] for name, values in table.items()}
        table["label"] = [labels[row] for row in keep]
        if not keep:
            raise DataError(f"{where}: no row has a label that dataset.label_map knows ({', '.join(map(str, config.label_map))})")
    return datasets_offline().Dataset.from_dict(table)


def _texts(config: Table, rows: Rows, column: str, where: str) -> list[str]:
    values = rows.columns[column]
    for row, value in enumerate(values, start=1):
        if value is None:
            raise DataError(f"{where}: row {row} has no text in column '{column}'; drop or fill such rows")
        if not isinstance(value, str):
            raise DataError(
                f"{where}: row {row} holds {type(value).__name__} ({str(value)[:40]}), not text, in column '{column}' (dataset.text_column)"
            )
    cleaned = [CLEANERS[config.clean](value) for value in values] if config.clean != "none" else values
    if not any(value.strip() for value in cleaned):
        raise DataError(f"{where}: column '{column}' holds no text at all")
    return cleaned


def _label_ids(config: Table, rows: Rows, names: list[str], where: str) -> list[int | None] | None:
    """Class id of each row; None within the list = drop, None in place of it = this split is not labelled (all -1 or empty)."""
    values = [_raw_label(value) if value is not None else "" for value in rows.columns[config.label_column]]
    counts = Counter(values)
    if set(counts) <= {"", "-1"}:
        return None
    ids = {name: index for index, name in enumerate(names)}
    known: dict[str, int | None] = {}
    if config.label_map:
        known = {**ids, **{_raw_label(raw): ids[name] for raw, name in config.label_map.items()}}
        if config.drop_unmapped_labels:
            known = {raw: known.get(raw) for raw in counts}
    else:
        known = {**{str(index): index for index in range(len(names))}, **ids}
        if any(name.isdigit() for name in names):  # numeric class names mean themselves, not positions
            known = dict(ids)
    unknown = [value for value in counts if value not in known]
    if unknown:
        row = values.index(unknown[0]) + 1
        shown = f"'{unknown[0]}'" if unknown[0] else "an empty label"
        raise DataError(
            f"{where}: {shown} in column '{config.label_column}' (row {row}, {counts[unknown[0]]}x) is not a known label; "
            f"known: {', '.join(map(str, list(known)[:12]))}; see dataset.label_names and dataset.label_map"
        )
    return [known[value] for value in values]


# --- splits --------------------------------------------------------------------------------------------------------------------
def _hold_out(config: DatasetConfig, splits: dict[str, Any]) -> Any:
    """Validation (and test, if wished) out of train where they are missing, then the fraction of train; all stratified and seeded."""
    labels = np.asarray(splits["train"]["label"])
    rest = np.arange(len(labels))
    for split, share in (("test", config.test_fraction), ("validation", config.validation_fraction)):
        if split not in splits and share > 0:
            held = stratified_sample(labels[rest], share * len(labels) / len(rest), config.split_seed, split)
            splits[split] = splits["train"].select(rest[held])
            rest = np.delete(rest, held)
    if len(rest) == 0:
        raise DataError(f"{config.name}: no training rows are left after holding out; lower dataset.validation_fraction, or add rows")
    if config.fraction < 1:
        rest = rest[stratified_sample(labels[rest], config.fraction, config.split_seed, "fraction")]
    splits["train"] = splits["train"].select(rest)
    return datasets_offline().DatasetDict({split: splits[split] for split in SPLITS if split in splits})


def stratified_sample(labels: np.ndarray, share: float, seed: int, purpose: str) -> np.ndarray:
    """Sorted row numbers, about `share` of each class (at least one row of each), drawn by (seed, purpose)."""
    rng = np.random.default_rng([seed, *purpose.encode()])
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(len(rows), max(1, round(share * len(rows))))
        chosen.append(rng.permutation(rows)[:count])
    return np.sort(np.concatenate(chosen))
