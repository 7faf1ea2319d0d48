"""Datasets of rows: a hub name, a place in a local mirror, or files of the user's own; a dataset is one YAML
file over `table`.

Columns are known by role. An objective names the roles that it reads and the kind of each (data/kinds/); the
dataset says which column stands for a role. Only those are read, a piece at a time, converted, and kept in
the cache as Arrow files that are memory-mapped: a corpus of any size costs no memory. What is wrong with
columns, labels, encodings or splits is said here, before a model is built.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertlab.config import registry
from bertlab.config.schema import (
    DatasetConfig,
    FileColumns,
    Paths,
    choice,
    flag,
    mapping,
    newer,
    string,
    words,
)
from bertlab.data.cleaning import CLEANERS
from bertlab.data.dataset import SPLITS, LoadedDataset, Origin, as_dataset
from bertlab.data.hub import hub_pieces, load_from_hub
from bertlab.data.reading import Rows, pick, read_pieces
from bertlab.declarations import Column, Kind, Role
from bertlab.errors import ConfigError, DataError, did_you_mean
from bertlab.runs.cache import cached
from bertlab.runs.files import digest, file_digest
from bertlab.runs.identity import folder_version
from bertlab.runs.progress import working

OF_SPLITS = (
    "name",
    "fraction",
    "split_seed",
    "folds",
    "fold",
    "mirror_files",
    "hub",
)  # keys that do not change how a file is read
Pieces = Callable[[], Iterator[Rows]]  # reads a part from its beginning


@dataclass
class TableDataset(DatasetConfig):
    """Rows with a text, perhaps a second text, a label; or words and their tags. Sources in order: own files,
    the local mirror, the hub.
    """

    hub: str | None = string(None, "name on the Hugging Face hub")
    hub_config: str | None = string(None, "configuration of the hub dataset")
    mirror_files: dict[str, str] = mapping("split -> path below paths.mirror, used where the mirror holds it")
    train_splits: list[str] = words(
        "splits of the mirror or the hub that are trained on, one after the other; none named = train"
    )
    validation_split: str = string(
        "validation",
        "the mirror's or the hub's split for validation; where it is missing, part of train is held out",
    )
    test_split: str | None = string(
        "test", "the mirror's or the hub's split for the final test; null = leave it out"
    )
    train_file: str | None = string(None, "own file for training: CSV, TSV, JSONL or Parquet")
    validation_file: str | None = string(
        None, "own file for validation; without one, part of train is held out"
    )
    test_file: str | None = string(None, "own file for the final test")
    text_column: str = string("text", "column of the (first) text")
    text_pair_column: str | None = string(None, "column of the second text, for pairs")
    label_column: str | None = string("label", "column of the label: ids or strings; null = there is none")
    labels_column: str | None = string(
        None, "column of sets of classes: lists of names, or texts with labels_separator between them"
    )
    number_column: str | None = string(None, "column of the number to predict")
    tokens_column: str | None = string(
        None, "column of words, for tagging; its texts are the words joined by spaces"
    )
    tags_column: str | None = string(None, "column of one tag a word: ids or names")
    question_column: str | None = string(None, "column of questions")
    context_column: str | None = string(None, "column of the texts that hold the answers")
    answers_column: str | None = string(None, 'column of answers: {"text": [...], "answer_start": [...]}')
    choices_column: str | None = string(None, "column of lists of texts to choose from")
    columns: dict[str, str] = mapping(
        "role -> column, for roles of an objective that have no key of their own"
    )
    label_names: list[str] = words("class names in id order; default: from the data")
    label_map: dict[Any, str] = mapping(
        "raw label -> class name; rows with other labels are an error, or dropped"
    )
    drop_unmapped_labels: bool = flag(False, "drop rows whose label is not in label_map")
    drop_unlabelled: bool = flag(
        False, "leave rows without an answer (empty, null, -1) out instead of stopping at them"
    )
    labels_separator: str = string("|", "what stands between the names of a set of classes in one text")
    tag_scheme: str = choice(
        "auto",
        "auto",
        "bio",
        "bioes",
        "suffix",
        help="how tags of entities are written; auto: BIO, or BIOES and BILOU where S-, E-, U- or L- say so",
    )
    documents: bool = flag(False, "each text is a document of several sentences, in order")
    max_words: dict[str, int] = newer(
        mapping("split -> words (as white space cuts them) read of it: its first rows, the last one cut")
    )
    column_names: list[str] = words("columns of a CSV without a header line")
    delimiter: str | None = string(
        None, "field separator of CSV files; default: by ending (comma, or tab for .tsv)"
    )
    quoting: str = choice(
        "auto",
        "auto",
        "none",
        "csv",
        help=(
            "csv: quote signs frame fields; none: they are text; auto: csv, of tab-separated files as they"
            " look"
        ),
    )
    encoding: str = string("utf-8", "encoding of text files, e.g. utf-8 or latin-1")
    clean: str = choice(
        "none",
        "none",
        "html",
        "tweet",
        "treebank",
        help=(
            "html: tags and entities to text; tweet: also links and @names; treebank: Penn-Treebank tokens"
            " (is n't , -lrb-) back to text"
        ),
    )

    def check(self, path: str) -> None:
        """Some source must be named; label options must fit each other."""
        super().check(path)
        if not (self.hub or self.mirror_files or self.train_file):
            raise ConfigError(
                f"{path}: no source; set {path}.train_file to a CSV, TSV, JSONL or Parquet file, or"
                f" {path}.hub to a hub name"
            )
        self.label_map = {str(raw): name for raw, name in self.label_map.items()}
        if len(set(self.label_names)) < len(self.label_names) or len(self.label_names) == 1:
            raise ConfigError(f"{path}.label_names={self.label_names}: needs two or more different names")
        self.delimiter = "\t" if self.delimiter == "\\t" else self.delimiter  # as a shell hands it on
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ConfigError(
                f"{path}.delimiter={self.delimiter!r}: must be one character, e.g. ';' or '\\t'"
            )
        used = [split for splits in self.sources().values() for split in splits]
        if twice := next((split for split in used if used.count(split) > 1), None):
            raise ConfigError(
                f"{path}: the split '{twice}' is named twice; what is trained on cannot be scored"
            )
        if unknown_splits := sorted(set(self.mirror_files) - {*used, *SPLITS}):
            raise ConfigError(
                f"{path}.mirror_files.{unknown_splits[0]}: unknown split,"
                f" {did_you_mean(unknown_splits[0], used)}"
            )
        if unknown_splits := sorted(set(self.max_words) - {*used, *SPLITS}):
            raise ConfigError(
                f"{path}.max_words.{unknown_splits[0]}: unknown split,"
                f" {did_you_mean(unknown_splits[0], used)}"
            )
        if few := next((split for split, count in self.max_words.items() if count < 1), None):
            raise ConfigError(f"{path}.max_words.{few}={self.max_words[few]}: must be at least 1")
        if (self.tokens_column is None) != (self.tags_column is None):
            raise ConfigError(f"{path}: tokens_column and tags_column go together; set both or neither")
        if self.tokens_column is not None:
            idle = {"clean": self.clean != "none", "documents": self.documents, "label_map": self.label_map,
                    "text_pair_column": self.text_pair_column}  # fmt: skip
            if key := next((key for key, given in idle.items() if given), None):
                raise ConfigError(
                    f"{path}.{key} has no meaning for words and tags"
                    f" ({path}.tokens_column={self.tokens_column})"
                )
        if self.drop_unmapped_labels and not self.label_map:
            raise ConfigError(f"{path}.drop_unmapped_labels: needs {path}.label_map")
        if self.label_names and (unknown := set(self.label_map.values()) - set(self.label_names)):
            raise ConfigError(f"{path}.label_map: maps to {sorted(unknown)}, which {path}.label_names lacks")

    # --- what it declares; see DatasetConfig ---
    def column_of(self, role: str) -> str | None:
        """The column of a role; None where it has none."""
        if role == "text" and self.tokens_column is not None:
            return self.tokens_column
        return self.columns.get(role) or self.own_columns().get(role)

    def own_columns(self) -> dict[str, str | None]:
        """Role -> column, of the roles that have a key of their own."""
        return {
            "text": self.text_column, "text_pair": self.text_pair_column, "label": self.label_column,
            "labels": self.labels_column,
            "number": self.number_column, "tokens": self.tokens_column, "tags": self.tags_column,
            "question": self.question_column,
            "context": self.context_column, "answers": self.answers_column, "choices": self.choices_column,
        }  # fmt: skip

    def key_of_column(self, column: str) -> str:
        """The key that names a column, for errors."""
        own = next((role for role, name in self.own_columns().items() if name == column), None)
        other = next((role for role, name in self.columns.items() if name == column), "")
        return f"dataset.{own}_column" if own is not None else f"dataset.columns.{other}"

    def offers(self) -> tuple[str, ...]:
        """Every role that has a column; words and tags stand for themselves."""
        roles = tuple(role for role, column in self.own_columns().items() if column is not None)
        if self.tokens_column is not None:
            roles = tuple(role for role in roles if role not in ("text_pair", "label"))
        return (*roles, *self.columns)

    def has_documents(self) -> bool:
        """As it says."""
        return self.documents

    def cleaner(self) -> str:
        """As it says."""
        return self.clean

    def hub_name(self) -> str | None:
        """As it says."""
        return self.hub

    def deciding(self) -> dict[str, Any]:
        """Files of the user's own are known by their content, wherever they lie."""
        return super().deciding() | {
            key: Path(file).suffix
            for key, file in (
                ("train_file", self.train_file),
                ("validation_file", self.validation_file),
                ("test_file", self.test_file),
            )
            if file and Path(file).expanduser().exists()
        }

    def sources(self) -> dict[str, list[str]]:
        """Our split -> the source's splits that it is made of."""
        return {
            "train": list(self.train_splits) or ["train"],
            "validation": [self.validation_split],
            "test": [self.test_split] if self.test_split is not None else [],
        }

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
    if set(changes) - {"encoding", "delimiter"}:
        changes = {"column_names": [], "delimiter": None, "encoding": "utf-8", **changes}
    return dataclasses.replace(config, **changes)


# --- sources --------------------------------------------------------------------------------------
def mirror_folder(paths: Paths) -> Path | None:
    """The local mirror: `paths.mirror`, else the environment's BERTLAB_DATA, else none. Raises ConfigError
    where it is missing.
    """
    given = paths.mirror or os.environ.get("BERTLAB_DATA")
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        name = "paths.mirror" if paths.mirror else "BERTLAB_DATA"
        raise ConfigError(
            f"{name}={given}: not a folder; it should hold one folder a dataset, e.g. sst2/train.parquet"
        )
    return folder


def local_files(config: TableDataset, paths: Paths) -> dict[str, Path]:
    """Split -> file on this machine; empty where the dataset must come from the hub. Raises DataError for a
    file that is missing.
    """
    given = {"train": config.train_file, "validation": config.validation_file, "test": config.test_file}
    own = {split: file for split, file in given.items() if file}
    if own:
        if "train" not in own:
            raise DataError(
                f"dataset.{min(own)}_file is set without dataset.train_file; name the training file too"
            )
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
        raise DataError(
            f"the mirror {mirror} holds only part of {config.name}: {config.mirror_files[missing[0]]} is"
            " missing"
        )
    return {}


def fingerprint(config: TableDataset, paths: Paths) -> str:
    """Content of the data a config names, as 16 hex digits: the bytes of local files, or the hub's version of
    a hub dataset.
    """
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


# --- reading --------------------------------------------------------------------------------------
def read(config: TableDataset, paths: Paths, roles: Sequence[Role]) -> LoadedDataset:
    """The roles of every split. Raises DataError naming file, column, label or row, and what to do."""
    files = local_files(config, paths)
    from_hub = {} if files else load_from_hub(config)
    parts = {split: [split] for split in SPLITS} if config.train_file else config.sources()
    there = [*files, *from_hub]
    if lacking := [part for part in parts["train"] if part not in there]:
        raise DataError(
            f"{config.name}: there is no {lacking[0]} split; found {', '.join(there) or 'nothing'}"
        )
    wanted = [part for split in parts.values() for part in split if part in there]
    notes: dict[str, None] = {}  # what is told of files, each line once however often a file is read
    tell = notes.setdefault
    tables = {
        part: _Part(
            config,
            roles,
            _pieces_of(config, part, files, from_hub, tell),
            _where(config, part, files),
            config.max_words.get(part),
        )
        for part in wanted
    }
    content = {
        part: file_digest(files[part]) if files else str(from_hub[part]._fingerprint) for part in wanted
    }
    settings = {key: value for key, value in config.deciding().items() if key not in OF_SPLITS}
    kinds = [dataclasses.asdict(role) for role in roles]
    code = [folder_version(Path(__file__).parent), *(_plugin_version(role) for role in roles)]
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


def _where(config: TableDataset, part: str, files: dict[str, Path]) -> str:
    return str(files[part]) if files else f"{config.hub} ({part})"


def _pieces_of(
    config: TableDataset,
    part: str,
    files: dict[str, Path],
    from_hub: dict[str, Any],
    tell: Callable[[str], None],
) -> Callable[[Sequence[str]], Iterator[Rows]]:
    if files:
        return lambda columns: read_pieces(config, files[part], columns, tell)
    return lambda columns: hub_pieces(config, from_hub[part], f"{config.hub} ({part})", columns)


def _plugin_version(role: Role) -> str:
    """Content of a kind's own file, where it is a plugin's."""
    file = sys.modules[registry.load_kind(role.kind).__module__].__file__
    return file_digest(Path(str(file)))


@dataclass(frozen=True)
class Written:
    """What became of a file's rows."""

    read: int
    left_out: dict[str, int]  # why -> how many
    rows: np.ndarray  # (N,) those that are there, counted from 1 in the file


class _Part:
    """One file (or split of the hub), its columns by role."""

    def __init__(
        self,
        config: TableDataset,
        roles: Sequence[Role],
        pieces: Callable[[Sequence[str]], Iterator[Rows]],
        where: str,
        max_words: int | None = None,
    ) -> None:
        self.max_words = max_words
        self.roles = {role: column for role in roles if (column := config.column_of(role.name)) is not None}
        self.read, self.where = pieces, where
        self.kinds: dict[str, Kind] = {
            role.name: registry.load_kind(role.kind)(
                Column(where, column, config.key_of_column(column), config)
            )
            for role, column in self.roles.items()
        }
        self.declared: dict[str, list[str]] = {}

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


def _convert(
    folder: Path, tables: dict[str, _Part], parts: dict[str, list[str]], notes: dict[str, None]
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
    config: TableDataset, file: Path, roles: Sequence[Role], label_names: Sequence[str]
) -> tuple[Any, int]:
    """A file of the user's own in a trained run's roles, in memory, and how many of its rows have no answer
    and were left out.

    A role to predict is read where it is among `roles`.
    """
    return _rows_of(
        config, lambda columns: read_pieces(config, file, columns, _warn), str(file), roles, label_names
    )


def rows_of_columns(
    config: TableDataset,
    columns: Mapping[str, Sequence[Any]],
    where: str,
    roles: Sequence[Role],
    label_names: Sequence[str],
) -> tuple[Any, int]:
    """The same of columns that are at hand."""

    def pieces(wanted: Sequence[str]) -> Iterator[Rows]:
        yield Rows(pick({name: list(cells) for name, cells in columns.items()}, wanted, config, Path(where)))

    return _rows_of(config, pieces, where, roles, label_names)


def _rows_of(
    config: TableDataset,
    pieces: Callable[[Sequence[str]], Iterator[Rows]],
    where: str,
    roles: Sequence[Role],
    label_names: Sequence[str],
) -> tuple[Any, int]:
    there = [role for role in roles if config.column_of(role.name) is not None]
    part = _Part(config, there, pieces, where)
    part.look()
    if part.is_unanswered():
        raise DataError(
            f"{where}: no row has an answer in {part.answers()}; evaluate needs them (predict does not)"
        )
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        written = part.write(Path(place) / "rows.arrow", label_names)
        return as_dataset(Path(place) / "rows.arrow", in_memory=True), sum(written.left_out.values())


def _warn(line: str) -> None:
    """Beside what is asked for, which may be read by a program."""
    print(line, file=sys.stderr, flush=True)


def from_texts(clean: str, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Any:
    """Bare texts as rows, cleaned like the training data."""
    from datasets import Dataset

    columns = {"text": list(texts)} if pairs is None else {"text": list(texts), "text_pair": list(pairs)}
    if clean in CLEANERS:
        columns = {name: [CLEANERS[clean](value) for value in values] for name, values in columns.items()}
    return Dataset.from_dict(columns)
