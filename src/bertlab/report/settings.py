"""What runs are set to, key by key, as they were declared: a key that came later has its default in runs from
before, and what changes no result sets no runs apart.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

from bertlab.config import registry
from bertlab.config.schema import Component, Train
from bertlab.errors import UserError
from bertlab.runs.records import RunRecord

SEEDS = ("seed", "init.seed", "dataset.fold")  # what runs are paired by
ABSENT = "–"
FEW = 100_000  # below which a count is told in ones


def amount(count: float, digits: int = 2, form: str = "f") -> str:
    """A count in millions, with so many digits, or in ones where it is small: `0.14 M`, `4,096`."""
    return f"{count / 1e6:.{digits}{form}} M" if count >= FEW else f"{count:,.0f}"


def setting(run: RunRecord, dotted: str) -> Any:
    """A key's value in a run; of a key that its components have and that came after it, the default; ABSENT
    where they have no such key.
    """
    if dotted in run.config:
        return run.config[dotted]
    item = _field(run, dotted)
    if item is None or item.default is item.default_factory is dataclasses.MISSING:
        return ABSENT
    default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    return json.dumps(default) if isinstance(default, list) else default


def settings_of(run: RunRecord, keys: Sequence[str]) -> tuple[str, ...]:
    """Several of them, as texts that can be compared."""
    return tuple(str(setting(run, key)) for key in keys)


def decides(dotted: str, runs: Sequence[RunRecord] = ()) -> bool:
    """Whether a key may change results, by its declaration; seeds and folds are what runs are paired by."""
    if dotted in SEEDS or (
        dotted == "dataset.split_seed" and any(run.config.get("dataset.folds") for run in runs)
    ):
        return False
    return all(
        item.metadata.get("decides", True)
        for run in [run for run in runs if dotted in run.config][:1]
        for item in _path(run, dotted)
    )


def varying_keys(runs: Sequence[RunRecord], without: Sequence[str] = ()) -> list[str]:
    """Dotted keys that differ between runs, without seeds, what only changes speed, keys that follow from
    others, and those of `without`.

    Chosen components come first (`init.component`), then shallow keys; a key that tells no runs apart that
    the keys before it leave together follows from them: what only a pretraining has follows from there being
    one.
    """
    every = sorted(
        {key for run in runs for key in run.config},
        key=lambda key: (not key.endswith(".component"), key.count("."), key),
    )
    kept: list[str] = []
    for key in every:
        if key.endswith(".name") or key in without:
            continue
        together: dict[tuple[str, ...], set[str]] = {}
        for run in runs:
            together.setdefault(settings_of(run, kept), set()).add(str(setting(run, key)))
        if any(len(values) > 1 for values in together.values()) and decides(key, runs):
            kept.append(key)
    return kept


def differing_settings(runs: Sequence[RunRecord]) -> list[str]:
    """Keys that decide results and differ between these runs."""
    keys = sorted({key for run in runs for key in run.config if not key.endswith(".name")})
    differing = [key for key in keys if len({str(setting(run, key)) for run in runs}) > 1]
    return [key.removesuffix(".component") for key in differing if decides(key, runs)]


def _field(run: RunRecord, dotted: str) -> "dataclasses.Field[Any] | None":
    """Where a run's components declare a key; None where they do not."""
    path = _path(run, dotted)
    return path[-1] if len(path) == dotted.count(".") + 1 else None


def _path(run: RunRecord, dotted: str) -> "list[dataclasses.Field[Any]]":
    """The fields that lead to a key, as far as they are declared: its groups, then its own. What a mapping or
    a component that is not at hand holds is not.
    """
    node: Any = Train
    path: list[dataclasses.Field[Any]] = []
    parts = dotted.split(".")
    for depth, part in enumerate(parts):
        item = next((item for item in dataclasses.fields(node) if item.name == part), None)
        if item is None:
            break
        path.append(item)
        kind = item.type
        if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
            break
        if issubclass(kind, Component):
            option = run.config.get(".".join([*parts[: depth + 1], "component"]))
            kind = None if option is None else _declared(part, str(option))
            if kind is None:
                break
        node = kind
    return path


@functools.cache
def _declared(group: str, option: str) -> type | None:
    """The dataclass of an option; None where it cannot be had, as a plugin that is not at hand."""
    try:
        return type(registry.load_schema(group, option))
    except (UserError, ImportError):
        return None
