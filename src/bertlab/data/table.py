"""Datasets of rows: a hub name, a place in a local mirror, or files of the user's own; a dataset is one YAML file over `Table`.

Columns are known by role: `text`, `text_pair`, `label` (class ids), `tokens` (words) and `tags` (an id a word). Only the roles that an
objective needs are read, so that text without labels is as good as any for pretraining. What is wrong with columns, labels,
encodings or splits is said here, before a model is built.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertlab import store
from bertlab.checkpoint import write_atomically
from bertlab.config import DatasetConfig, FileColumns, Paths, choice, flag, mapping, string, words
from bertlab.data import columns as roles_of_columns
from bertlab.data import reading
from bertlab.data.columns import clean_texts, declare, label_names_of, require_column, tag_names_of
from bertlab.data.dataset import LoadedDataset
from bertlab.data.reading import CLEANERS, Rows, datasets_offline, load_from_hub, read_file, read_pieces, rows_of
from bertlab.errors import ConfigError, DataError, did_you_mean

SPLITS = ("train", "validation", "test")


@dataclass
class Table(DatasetConfig):
    """Rows with a text, perhaps a second text, a label; or words and their tags. Sources in order: own files, the local mirror, the hub."""

    hub: str | None = string(None, "name on the Hugging Face hub")
    hub_config: str | None = string(None, "configuration of the hub dataset")
    mirror_files: dict[str, str] = mapping("split -> path below paths.mirror, used where the mirror holds it")
    train_splits: list[str] = words("splits of the mirror or the hub that are trained on, one after the other; none named = train")
    validation_split: str = string(
        "validation", "the mirror's or the hub's split for validation; where it is missing, part of train is held out"
    )
    test_split: str | None = string("test", "the mirror's or the hub's split for the final test; null = leave it out")
    train_file: str | None = string(None, "own file for training: CSV, TSV, JSONL or Parquet")
    validation_file: str | None = string(None, "own file for validation; without one, part of train is held out")
    test_file: str | None = string(None, "own file for the final test")
    text_column: str = string("text", "column of the (first) text")
    text_pair_column: str | None = string(None, "column of the second text, for pairs")
    label_column: str | None = string("label", "column of the label: ids or strings; null = there is none")
    tokens_column: str | None = string(None, "column of words, for tagging; its texts are the words joined by spaces")
    tags_column: str | None = string(None, "column of one tag a word: ids or names")
    label_names: list[str] = words("class names in id order; default: from the data")
    label_map: dict[Any, str] = mapping("raw label -> class name; rows with other labels are an error, or dropped")
    drop_unmapped_labels: bool = flag(False, "drop rows whose label is not in label_map")
    documents: bool = flag(False, "each text is a document of several sentences, in order")
    column_names: list[str] = words("columns of a CSV without a header line")
    delimiter: str | None = string(None, "field separator of CSV files; default: by ending (comma, or tab for .tsv)")
    encoding: str = string("utf-8", "encoding of text files, e.g. utf-8 or latin-1")
    clean: str = choice(
        "none",
        "none",
        "html",
        "tweet",
        "treebank",
        help="html: tags and entities to text; tweet: also links and @names; treebank: Penn-Treebank tokens (is n't , -lrb-) back to text",
    )

    def check(self, path: str) -> None:
        """Some source must be named; label options must fit each other."""
        if not (self.hub or self.mirror_files or self.train_file):
            raise ConfigError(f"{path}: no source; set {path}.train_file to a CSV, TSV, JSONL or Parquet file, or {path}.hub to a hub name")
        self.label_map = {str(raw): name for raw, name in self.label_map.items()}
        if len(set(self.label_names)) < len(self.label_names) or len(self.label_names) == 1:
            raise ConfigError(f"{path}.label_names={self.label_names}: needs two or more different names")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ConfigError(f"{path}.delimiter={self.delimiter!r}: must be one character, e.g. ';' or '\\t'")
        used = [split for splits in sources(self).values() for split in splits]
        if twice := next((split for split in used if used.count(split) > 1), None):
            raise ConfigError(f"{path}: the split '{twice}' is named twice; what is trained on cannot be scored")
        if unknown_splits := sorted(set(self.mirror_files) - {*used, *SPLITS}):
            raise ConfigError(f"{path}.mirror_files.{unknown_splits[0]}: unknown split, {did_you_mean(unknown_splits[0], used)}")
        if (self.tokens_column is None) != (self.tags_column is None):
            raise ConfigError(f"{path}: tokens_column and tags_column go together; set both or neither")
        if self.tokens_column is not None:
            idle = {"clean": self.clean != "none", "documents": self.documents, "label_map": self.label_map,
                    "text_pair_column": self.text_pair_column}  # fmt: skip
            if key := next((key for key, given in idle.items() if given), None):
                raise ConfigError(f"{path}.{key} has no meaning for words and tags ({path}.tokens_column={self.tokens_column})")
        if self.drop_unmapped_labels and not self.label_map:
            raise ConfigError(f"{path}.drop_unmapped_labels: needs {path}.label_map")
        if self.label_names and (unknown := set(self.label_map.values()) - set(self.label_names)):
            raise ConfigError(f"{path}.label_map: maps to {sorted(unknown)}, which {path}.label_names lacks")


def sources(config: Table) -> dict[str, list[str]]:
    """Our split -> the source's splits that it is made of."""
    return {
        "train": list(config.train_splits) or ["train"],
        "validation": [config.validation_split],
        "test": [config.test_split] if config.test_split is not None else [],
    }


def columns(config: Table) -> tuple[str, ...]:
    """Roles that the dataset offers, known before anything is read."""
    if config.tokens_column is not None:
        return ("text", "tokens", "tags")
    found = ["text"]
    if config.text_pair_column is not None:
        found.append("text_pair")
    if config.documents:
        found.append("document")
    return (*found, "label") if config.label_column is not None else tuple(found)


def table_of(config: DatasetConfig, own: FileColumns, offered: Sequence[str]) -> Table:
    """How a file of the user's own is read for a run on this dataset: with the dataset's columns, or those that `own` names.

    With columns of its own a CSV has a header, and UTF-8 unless said otherwise, whatever the training data had.
    """
    if not isinstance(config, Table):
        config = Table(name="files", text_pair_column="text_pair" if "text_pair" in offered else None)
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


def fingerprint(config: Table, paths: Paths) -> str:
    """Content of the data a config names, as 16 hex digits: the bytes of local files, or the hub's version of a hub dataset."""
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


def read(config: Table, paths: Paths, needed: Sequence[str]) -> LoadedDataset:
    """The roles `needed` of every split. Raises DataError naming file, column, label or row, and what to do."""
    files = local_files(config, paths)
    found: dict[str, Any] = dict(files) or load_from_hub(config)
    roles = {split: [split] for split in SPLITS} if config.train_file else sources(config)
    if lacking := [part for part in roles["train"] if part not in found]:
        raise DataError(f"{config.name}: there is no {lacking[0]} split; found {', '.join(found) or 'nothing'}")
    parts = [part for split in roles.values() for part in split if part in found]
    if files and config.tokens_column is None and not {"label", "tokens", "tags"} & set(needed):
        names, tables = [], {part: _stream(config, files[part], paths) for part in parts}
    else:
        rows = {part: read_file(config, files[part]) if files else rows_of(found[part]) for part in parts}
        where = {part: str(files.get(part, f"{config.hub} ({part})")) for part in parts}
        first = roles["train"][0]
        names = _answer_names(config, rows[first], where[first], needed)
        tables = {part: declare(config, rows[part], names, where[part], needed) for part in parts}
        for part, table in tables.items():
            if table is None and part not in roles["test"]:  # a benchmark's test split often comes without its labels; it is then left out
                raise DataError(f"{where[part]}: no row of the {part} split has a label in column '{config.label_column}'")
    kept = {split: [tables[part] for part in given if tables.get(part) is not None] for split, given in roles.items()}
    splits = {split: datasets_offline().concatenate_datasets(given) for split, given in kept.items() if given}
    return LoadedDataset(splits, names)


def _answer_names(config: Table, train: Rows, where: str, needed: Sequence[str]) -> list[str]:
    """Names of the classes or tags that are to be told apart; none where there are none."""
    if "label" in needed:
        return label_names_of(config, train, where)
    return tag_names_of(config, train, where) if "tags" in needed else []


def _stream(config: Table, file: Path, paths: Paths) -> Any:
    """A file's texts, cleaned, as a dataset memory-mapped from the cache: however large they are, they are never in memory whole."""
    import pyarrow

    by_role = {"text": config.text_column, **({"text_pair": config.text_pair_column} if config.text_pair_column else {})}
    code = [store.code_version(Path(module)) for module in (__file__, roles_of_columns.__file__, reading.__file__)]
    settings = [getattr(config, name) for name in ("clean", "column_names", "delimiter", "encoding")]
    key = store.digest([store.file_digest(file), file.suffix, by_role, settings, code])
    kept = store.cache_folder(paths) / "texts" / f"{key}.arrow"

    def write(temporary: Path) -> None:
        schema = pyarrow.schema([(role, pyarrow.large_string()) for role in by_role])
        rows, letters = 0, dict.fromkeys(by_role, 0)
        with pyarrow.OSFile(str(temporary), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
            for piece in read_pieces(config, file, list(by_role.values())):
                for role, column in by_role.items():
                    require_column(piece, column, f"dataset.{role}_column", str(file))
                cleaned = {role: clean_texts(config, piece.columns[column], column, str(file), rows) for role, column in by_role.items()}
                letters = {role: letters[role] + sum(len(text.strip()) for text in texts) for role, texts in cleaned.items()}
                rows += len(piece)
                writer.write_table(pyarrow.table(cleaned, schema=schema))
        if rows == 0:
            raise DataError(f"{file}: the file has no rows")
        for role, column in by_role.items():
            if letters[role] == 0:
                raise DataError(f"{file}: column '{column}' holds no text at all")

    if not kept.is_file():
        write_atomically(kept, write)
    return datasets_offline().Dataset.from_file(str(kept))


def read_rows(config: Table, file: Path, needed: Sequence[str], label_names: list[str] | None) -> Any:
    """A file of the user's own in a trained run's columns; the answers too, where `label_names` are given and the file has them."""
    rows = read_file(config, file)
    wanted = [role for role in needed if role not in ("label", "tags")]
    if label_names is not None:
        answers = {"label": config.label_column, "tags": config.tags_column}
        wanted += [role for role in needed if role in answers and answers[role] in rows.column_names]
    return declare(config, rows, label_names or [], str(file), wanted)


def from_texts(clean: str, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Any:
    """Bare texts as rows, cleaned like the training data."""
    columns = {"text": list(texts)} if pairs is None else {"text": list(texts), "text_pair": list(pairs)}
    if clean != "none":
        columns = {name: [CLEANERS[clean](value) for value in values] for name, values in columns.items()}
    return datasets_offline().Dataset.from_dict(columns)
