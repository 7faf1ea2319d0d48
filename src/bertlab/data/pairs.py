"""Minimal pairs: two sentences, one of them right, and the phenomenon that the pair is about.

A benchmark is one file of conf/minimal_pairs/ (a plugin's too) that says where its rows lie and how its
columns are called; a file of the user's own has the columns `sentence_good`, `sentence_bad` and `UID`. No
code knows names of benchmarks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from bertlab.config import registry
from bertlab.config.files import read_declared
from bertlab.config.schema import Node, Paths, string, words
from bertlab.data.cleaning import CLEANERS
from bertlab.data.tables.formats import kind_of, read_pieces
from bertlab.data.tables.sources import mirror_folder
from bertlab.data.tables.table import TableDataset
from bertlab.errors import DataError, did_you_mean
from bertlab.runs.files import file_digest

FOLDER = "minimal_pairs"  # of conf/; were it called as the key `pairs`, Hydra would take that for a group


@dataclass
class PairsPreset(Node):
    """A file of conf/minimal_pairs/."""

    file: str = string(MISSING, "path below the mirror (paths.mirror, BERTLAB_DATA)")
    good_column: str = string("sentence_good", "column of the sentences that are right")
    bad_column: str = string("sentence_bad", "column of the sentences that are wrong")
    phenomenon_column: str = string(
        "UID", "column of the phenomenon that a pair is about; accuracy is the mean over phenomena"
    )
    group_columns: list[str] = words("columns of wider groups of phenomena, e.g. field")


@dataclass(frozen=True)
class PairsFile:
    """Where pairs lie and what their columns are called."""

    name: str  # of the preset, or the file's without its ending
    path: Path
    columns: PairsPreset
    is_preset: bool = True

    def digest(self) -> str:
        """Of its bytes."""
        return file_digest(self.path)


@dataclass(frozen=True)
class Pairs:
    """Minimal pairs, N of them."""

    where: str  # for errors
    good: list[str]
    bad: list[str]
    phenomena: list[str]  # of each pair
    groups: dict[str, list[str]] = field(default_factory=dict)  # column -> of each pair

    def __len__(self) -> int:
        return len(self.good)


class _Columns(TableDataset):
    """How a file of pairs is read: as rows of any dataset, but that no key of a dataset names its columns."""

    def key_of_column(self, column: str) -> str:
        """For errors."""
        return "a file of minimal pairs has it"


def find_pairs(asked: str, paths: Paths, key: str = "pairs") -> PairsFile:
    """The file that `key=asked` means: of a preset, else a path. Raises ConfigError or DataError where there
    is none.
    """
    presets = registry.options_of(FOLDER)
    if asked in presets:
        preset = _read_preset(asked)
        mirror = mirror_folder(paths)
        if mirror is None or not (mirror / preset.file).is_file():
            where = "no mirror is set" if mirror is None else f"{mirror} does not hold it"
            raise DataError(
                f"{key}={asked}: {where}; set BERTLAB_DATA or paths.mirror to a folder that holds"
                f" {preset.file}"
            )
        return PairsFile(asked, mirror / preset.file, preset)
    file = Path(asked).expanduser()
    if not file.is_file():
        raise DataError(
            f"{key}={asked}: neither a file nor a benchmark of conf/minimal_pairs,"
            f" {did_you_mean(asked, presets)}"
        )
    kind_of(file)
    return PairsFile(
        file.name.partition(".")[0] or file.name, file, PairsPreset(file=str(file)), is_preset=False
    )


def _read_preset(name: str) -> PairsPreset:
    folders = [*(plugin / "conf" for plugin in registry.plugin_folders()), registry.conf_folder()]
    file = next(place for folder in folders if (place := folder / FOLDER / f"{name}.yaml").is_file())
    return read_declared(file, PairsPreset)


def read_pairs(source: PairsFile, clean: str = "none", encoding: str = "utf-8") -> Pairs:
    """All pairs, cleaned like the training data. Raises DataError naming the row that holds none.

    Pairs of equal sentences, of which BLiMP has some, stay: they will be ties.
    """
    names = source.columns
    columns = [names.good_column, names.bad_column, names.phenomenon_column, *names.group_columns]
    table = _Columns(name=source.name, encoding=encoding)
    read: dict[str, list[str]] = {column: [] for column in columns}
    for piece in read_pieces(table, source.path, columns, tell=lambda _: None):
        before = len(read[columns[0]])
        for column in columns:
            read[column] += _texts(
                piece.columns[column], column, before, source.path, may_be_number=column not in columns[:2]
            )
    if read[names.good_column] == read[names.bad_column]:
        raise DataError(
            f"{source.path}: in every row {names.good_column} and {names.bad_column} are the same; a pair"
            " differs"
        )
    for column in names.group_columns:
        group: dict[str, str] = {}
        for row, (name, cell) in enumerate(
            zip(read[names.phenomenon_column], read[column], strict=True), start=1
        ):
            if group.setdefault(name, cell) != cell:
                raise DataError(
                    f"{source.path}: row {row}: '{name}' is of {column} {cell}, in an earlier row of"
                    f" {group[name]}"
                )
    tidy = CLEANERS.get(clean, str)
    return Pairs(
        str(source.path),
        [tidy(text) for text in read[names.good_column]],
        [tidy(text) for text in read[names.bad_column]],
        read[names.phenomenon_column],
        {column: read[column] for column in names.group_columns},
    )


def _texts(cells: Sequence[Any], column: str, before: int, file: Path, may_be_number: bool) -> list[str]:
    for row, cell in enumerate(cells, start=before + 1):
        if isinstance(cell, str) and cell.strip():
            continue
        if may_be_number and isinstance(cell, int) and not isinstance(cell, bool):
            continue
        held = (
            "nothing"
            if cell is None or cell == "" or isinstance(cell, str)
            else f"{type(cell).__name__} ({str(cell)[:40]}), not text,"
        )
        raise DataError(f"{file}: row {row} holds {held} in column '{column}'; mend or drop such rows")
    return [str(cell) for cell in cells]
