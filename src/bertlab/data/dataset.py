"""From a dataset's config to splits with declared columns, whatever kind of dataset it is.

Each kind is a `config.schema.DatasetConfig`: data/tables for rows of files and of the hub,
data/synthetic.py for generated texts. Held-out splits and samples are made here.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bertlab.config import registry
from bertlab.config.schema import DatasetConfig, ObjectiveConfig, Paths, Train
from bertlab.data.folds import deal, linked, strata_of
from bertlab.declarations import Role
from bertlab.errors import DataError

SPLITS = ("train", "validation", "test")
HALVED_SPLITS = ("train", "selection", "validation", "test")
ROWS_AT_A_TIME = 1000


@dataclass(frozen=True)
class Origin:
    """Where a split's rows stand in what was read: in which source (a file, a split of the hub), and as which
    row of it, counted from 1, a header left out.
    """

    sources: tuple[str, ...]
    source: np.ndarray  # (N,) place in `sources`
    row: np.ndarray  # (N,)

    @classmethod
    def of(cls, source: str, rows: np.ndarray | int) -> "Origin":
        """Rows of one source: these, or the first so many."""
        own = np.arange(1, rows + 1, dtype=np.int32) if isinstance(rows, int) else rows
        return cls((source,), np.broadcast_to(np.int16(0), len(own)), own)

    def of_part(self, name: str) -> "Origin":
        """Of a mixture's part, whose files may be called as another's."""
        return Origin(tuple(f"{source} ({name})" for source in self.sources), self.source, self.row)

    @classmethod
    def joined(cls, parts: Sequence["Origin"]) -> "Origin":
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        before = np.cumsum([0, *(len(part.sources) for part in parts)])
        return cls(
            tuple(source for part in parts for source in part.sources),
            np.concatenate(
                [part.source + np.int16(start) for part, start in zip(parts, before, strict=False)]
            ),
            np.concatenate([part.row for part in parts]),
        )

    def select(self, places: np.ndarray) -> "Origin":
        """Of some of the split's rows."""
        return Origin(self.sources, self.source[places], self.row[places])

    def at(self, place: int) -> tuple[str, int]:
        """Source and row of the split's row `place`."""
        return self.sources[self.source[place]], int(self.row[place])

    def said(self, place: int) -> str:
        """`row 17 of reviews.csv`."""
        source, row = self.at(place)
        return f"row {row:,} of {source}"


@dataclass(frozen=True)
class LoadedDataset:
    """Splits ready for any objective, and what is known about them."""

    splits: dict[str, Any]  # split -> datasets.Dataset whose columns are roles
    label_names: list[str]
    # split -> metric -> its best reachable value, where known
    best_possible: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what a person should know of how it was read
    held_out: Sequence[str] = ()  # splits that were taken out of train
    # of a mixture: split -> rows of each part, one part after the other
    parts: dict[str, list[int]] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)  # of every split, once it is loaded
    # source -> {"read": rows of it, why some were left out: how many}
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)


def roles_for(dataset: DatasetConfig, objective: ObjectiveConfig) -> tuple[Role, ...]:
    """The roles that an objective reads of a dataset: those that it needs, and optional ones that
    are there.
    """
    offered = dataset.offers()
    return tuple(role for role in objective.roles if not role.optional or role.name in offered)


def text_roles(roles: Sequence[Role]) -> list[str]:
    """Names of the roles that a tokenizer reads, answers left out."""
    return [role.name for role in roles if not role.is_answer and registry.load_kind(role.kind).holds_text]


def class_role(roles: Sequence[Role]) -> str | None:
    """Name of the role that holds one class a row; None where none does."""
    return next((role.name for role in roles if registry.load_kind(role.kind).classes == "one"), None)


def load_dataset(config: DatasetConfig, paths: Paths, roles: Sequence[Role]) -> LoadedDataset:
    """Load these roles, check, split. Raises DataError naming file, column, label or row, and what to do."""
    loaded: LoadedDataset = config.read(paths, roles)
    given, notes = list(loaded.splits), list(loaded.notes)
    origins = {
        split: loaded.origins.get(split) or Origin.of(split, len(rows))
        for split, rows in loaded.splits.items()
    }
    loaded = replace(loaded, origins=origins, left_out=dict(loaded.left_out))
    splits = _hold_out(config, loaded, roles, notes.append)
    held_out = [split for split in splits if split not in given]
    notes += _rare_classes(config, splits, roles, loaded.label_names)
    return replace(loaded, splits=splits, held_out=held_out, notes=notes)


def load_for(config: Train) -> LoadedDataset:
    """What a run reads: the roles of its objective, validation in two halves where it says so. Raises
    DataError.
    """
    roles = roles_for(config.dataset, config.objective)
    loaded = load_dataset(config.dataset, config.paths, roles)
    return halved(config.dataset, loaded, roles) if config.evaluation.select_on == "half" else loaded


def halved(config: DatasetConfig, loaded: LoadedDataset, roles: Sequence[Role]) -> LoadedDataset:
    """Validation's rows in two halves, `selection` and `validation`: equal texts together, classes in equal
    shares, the same for every run on the dataset (by a hash, not a draw). Raises DataError where it has no
    two different texts.
    """
    rows = loaded.splits["validation"]
    try:
        side = folds_of(replace(config, folds=2), rows, roles, lambda _: None)
    except DataError:
        raise DataError(
            f"{config.name}: evaluation.select_on=half: the {len(rows)} rows of validation cannot be halved,"
            " too few texts differ; give it more rows, or leave evaluation.select_on=validation"
        ) from None
    places = {"selection": np.flatnonzero(side == 0), "validation": np.flatnonzero(side == 1)}
    ends = np.cumsum([0, *loaded.parts.get("validation", ())])
    parts = {
        split: np.diff(np.searchsorted(own, ends)).tolist() for split, own in places.items() if len(ends) > 1
    }
    splits = {**loaded.splits, **{split: rows.select(own) for split, own in places.items()}}
    origin = loaded.origins.get("validation") or Origin.of("validation", len(rows))
    origins = {split: origin.select(own) for split, own in places.items()}
    known = {split: best for split, best in loaded.best_possible.items() if split != "validation"}
    return replace(
        loaded,
        splits={split: splits[split] for split in HALVED_SPLITS if split in splits},
        best_possible=known,
        held_out=[*loaded.held_out, "selection"] if "validation" in loaded.held_out else loaded.held_out,
        parts={**loaded.parts, **parts},
        origins={**loaded.origins, **origins},
    )


def _rare_classes(
    config: DatasetConfig, splits: dict[str, Any], roles: Sequence[Role], names: Sequence[str]
) -> list[str]:
    """A line on classes that the training split or the validation split lacks; most often those of a single
    row.
    """
    role = class_role(roles)
    if role is None or not names:
        return []
    counts = {
        split: np.bincount(np.asarray(splits[split][role][:]), minlength=len(names))
        for split in ("train", "validation")
    }
    told = []
    for split, what in (("train", "is never learnt"), ("validation", "is learnt and never scored")):
        if lacking := [name for name, count in zip(names, counts[split], strict=True) if count == 0]:
            others = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
            rows = int(
                counts["train" if split == "validation" else "validation"][list(names).index(lacking[0])]
            )
            told.append(
                f"{config.name}: the {split} split has no row of class {lacking[0]}{others}, which {what}"
                f" ({rows} row{'s' * (rows != 1)} elsewhere); add rows, or join classes by dataset.label_map"
            )
    return told


def as_dataset(file: Path, in_memory: bool = False) -> Any:
    """An Arrow stream as a `datasets.Dataset`, memory-mapped or read whole."""
    from datasets import Dataset

    return Dataset.from_file(str(file), in_memory=in_memory)


def _hold_out(
    config: DatasetConfig, loaded: LoadedDataset, roles: Sequence[Role], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Validation (and test, if wished) out of train where they are missing, then the fraction of train,
    seeded, stratified by class.

    Of folds, validation is the one that is asked for, whatever the dataset has. Where rows come from, and
    what is left out, is noted in `loaded`.

    A row's side depends on its text alone (`places_of`), not on the labels, the objective or the rows around
    it: what is held out from a classifier is held out from its pretraining on the same file too, and copies
    of one text stay together.
    """
    splits, origins, left_out = loaded.splits, loaded.origins, loaded.left_out
    train, of_train = splits["train"], origins["train"]
    classes = class_role(roles)
    labels = np.zeros(len(train), dtype=np.int8) if classes is None else np.asarray(train[classes][:])
    rest = np.arange(len(labels))
    wished = {"validation": config.validation_fraction, "test": config.test_fraction}
    shares = {split: share for split, share in wished.items() if split not in splits and share > 0}
    if config.folds is not None:
        shares.pop("validation", None)
    if shares:
        places = places_of(train, roles[0].name, config.split_seed)
        for split, share in shares.items():
            # the one from the low end, the other from the high end
            order = places if split == "validation" else 1 - places
            held = np.concatenate(
                [_lowest(rest[labels[rest] == label], order, share) for label in np.unique(labels[rest])]
            )
            if len(held) in (0, len(rest)):
                why = "no two rows differ" if classes is None else "no class has two different rows"
                hint = "" if classes is None else ", or see dataset.label_column"
                raise DataError(
                    f"{config.name}: {split} cannot be held out of train, where {why}; add rows or give a"
                    f" {split} split{hint}"
                )
            splits[split], origins[split] = train.select(np.sort(held)), of_train.select(np.sort(held))
            rest = np.setdiff1d(rest, held)
    if config.folds is not None:
        if "validation" in splits:
            own = len(splits["validation"])
            tell(
                f"{config.name}: dataset.folds={config.folds} makes validation of train; the {own:,} rows of"
                " its own are left out"
            )
            left_out["the validation split"] = {"read": own, "in favour of dataset.folds": own}
        folds = folds_of(config, train.select(rest), roles, tell)
        fold, rest = rest[folds == config.fold], rest[folds != config.fold]
        splits["validation"], origins["validation"] = train.select(fold), of_train.select(fold)
    if config.fraction < 1:
        whole = len(rest)
        rest = rest[stratified_sample(labels[rest], config.fraction, config.split_seed, "fraction")]
        reason = f"by dataset.fraction={config.fraction:g}"
        left_out["the train split"] = {"read": whole, reason: whole - len(rest)}
    splits["train"], origins["train"] = train.select(rest), of_train.select(rest)
    return {split: splits[split] for split in SPLITS if split in splits}


def folds_of(
    config: DatasetConfig, rows: Any, roles: Sequence[Role], tell: Callable[[str], None]
) -> np.ndarray:
    """`(N,)`: the fold of each row. Rows that share a text are in one fold; each fold has its share of every
    class, or tenth of numbers.

    Raises DataError where there are fewer different texts than folds.
    """
    assert config.folds is not None
    places = [places_of(rows, name, config.split_seed) for name in text_roles(roles)]
    groups = linked(places)
    most = int(np.bincount(groups).max())
    if most * config.folds > len(rows) and len(places) > 1:  # one text stands in very many pairs
        tell(
            f"{config.name}: {most:,} of {len(rows):,} rows hang together by texts that they share, more than"
            " a fold; only first texts are kept on one side"
        )
        groups = linked(places[:1])
    if (different := int(groups.max()) + 1) < config.folds:
        raise DataError(
            f"{config.name}: dataset.folds={config.folds}, but train has {different} different texts; take"
            " fewer folds"
        )
    strata = strata_of(rows, roles, config.folds)
    if (rarest := int(np.bincount(strata).min())) < config.folds:
        tell(
            f"{config.name}: the rarest class has {rarest} rows, fewer than dataset.folds={config.folds}:"
            " some folds score none of it"
        )
    folds = deal(groups, strata, places[0], config.folds)
    if len(np.unique(folds)) < config.folds:
        raise DataError(
            f"{config.name}: dataset.folds={config.folds}, but equal texts fill {len(np.unique(folds))} of"
            " them; take fewer folds"
        )
    return folds


def _lowest(rows: np.ndarray, order: np.ndarray, share: float) -> np.ndarray:
    """Those of a class's rows that stand below `share`; where it can be, at least one is taken and one is
    left.
    """
    own: np.ndarray = order[rows]
    taken: np.ndarray = own < share
    if own.min() == own.max():  # nothing but copies of one text: they cannot stay together
        taken = np.arange(len(rows)) < max(1, round(share * len(rows))) * (len(rows) > 1)
    elif taken.all():
        taken = own < own.max()
    elif not taken.any():
        taken = own == own.min()
    held: np.ndarray = rows[taken]
    return held


def letters_of(text: str) -> str:
    """What two texts are compared by: letters and digits, case aside."""
    return "".join(filter(str.isalnum, text.lower())) or text


def places_of(rows: Any, column: str, seed: int) -> np.ndarray:
    """`(N,) float64` in [0, 1): a hash of each row's text or words and the seed. Letters and digits count;
    case, spaces, signs do not.
    """
    places = np.empty(len(rows))
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        for index, value in enumerate(rows[start : start + ROWS_AT_A_TIME][column], start=start):
            text = " ".join(value) if isinstance(value, list) else value
            digest = hashlib.blake2b(
                f"{seed} {letters_of(text)}".encode("utf-8", "surrogatepass"), digest_size=8
            ).digest()
            places[index] = int.from_bytes(digest, "big") / 2**64
    return places


def stratified_sample(labels: np.ndarray, share: float, seed: int, purpose: str) -> np.ndarray:
    """Sorted row numbers, about `share` of each class (at least one row of each), drawn by (seed,
    purpose).
    """
    rng = np.random.default_rng([seed, *purpose.encode()])
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(len(rows), max(1, round(share * len(rows))))
        chosen.append(rng.permutation(rows)[:count])
    return np.sort(np.concatenate(chosen))
