"""From a dataset's config to splits with declared columns, whatever kind of dataset it is.

Each kind is a module with a config dataclass and `columns(config)`, `fingerprint(config, paths)`, `read(config, paths, needed)`:
data/table.py for rows of files and of the hub, data/synthetic.py for generated texts. Held-out splits and samples are made here.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from bertlab.config import DatasetConfig, Paths
from bertlab.errors import DataError

SPLITS = ("train", "validation", "test")


@dataclass
class LoadedDataset:
    """Splits ready for any objective, and what is known about them."""

    splits: dict[str, Any]  # split -> datasets.Dataset with columns of text, text_pair, label, tokens, tags
    label_names: list[str]
    best_possible: dict[str, dict[str, float]] = field(default_factory=dict)  # split -> metric -> its best reachable value, where known


def _module_of(config: DatasetConfig) -> ModuleType:
    return sys.modules[type(config).__module__]


def columns_of(config: DatasetConfig) -> tuple[str, ...]:
    """Columns that the dataset offers, known before anything is read."""
    return tuple(_module_of(config).columns(config))


def fingerprint(config: DatasetConfig, paths: Paths) -> str:
    """Content of the data that a config names."""
    return str(_module_of(config).fingerprint(config, paths))


def load_dataset(config: DatasetConfig, paths: Paths, needed: Sequence[str]) -> LoadedDataset:
    """Load the columns `needed`, check, split. Raises DataError naming file, column, label or row, and what to do."""
    loaded: LoadedDataset = _module_of(config).read(config, paths, needed)
    return LoadedDataset(_hold_out(config, loaded.splits), loaded.label_names, loaded.best_possible)


def _hold_out(config: DatasetConfig, splits: dict[str, Any]) -> dict[str, Any]:
    """Validation (and test, if wished) out of train where they are missing, then the fraction of train; seeded, stratified by label."""
    train = splits["train"]
    labels = np.asarray(train["label"][:]) if "label" in train.column_names else np.zeros(len(train), dtype=np.int8)
    rest = np.arange(len(labels))
    for split, share in (("test", config.test_fraction), ("validation", config.validation_fraction)):
        if split not in splits and share > 0:
            held = stratified_sample(labels[rest], share * len(labels) / len(rest), config.split_seed, split)
            splits[split] = train.select(rest[held])
            rest = np.delete(rest, held)
    if len(rest) == 0:
        raise DataError(f"{config.name}: no training rows are left after holding out; lower dataset.validation_fraction, or add rows")
    if config.fraction < 1:
        rest = rest[stratified_sample(labels[rest], config.fraction, config.split_seed, "fraction")]
    splits["train"] = train.select(rest)
    return {split: splits[split] for split in SPLITS if split in splits}


def stratified_sample(labels: np.ndarray, share: float, seed: int, purpose: str) -> np.ndarray:
    """Sorted row numbers, about `share` of each class (at least one row of each), drawn by (seed, purpose)."""
    rng = np.random.default_rng([seed, *purpose.encode()])
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(len(rows), max(1, round(share * len(rows))))
        chosen.append(rng.permutation(rows)[:count])
    return np.sort(np.concatenate(chosen))
