"""Runs as rows of a table: what each is, what it scored and cost; chosen by conditions, in a wished order."""

import re
from collections.abc import Callable, Sequence
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from bertlab.errors import ConfigError, did_you_mean
from bertlab.runs.records import RunRecord

CONDITION = re.compile(r"([^=<>!\s]+)(!=|>=|<=|=|>|<)(.*)")
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {"=": eq, "!=": ne, ">": gt, "<": lt, ">=": ge, "<=": le}


def row_of(run: RunRecord) -> dict[str, Any]:
    """A run by name: what it is, its scores in its own metric, its cost; then all scores as `split/name`, and
    every key of its config.
    """
    summary, cost = run.summary, run.summary.get("cost") or {}
    metric = "" if run.problem else run.primary
    minutes = cost.get("seconds")
    return {
        "run": run.name,
        "folder": run.where,
        "status": run.problem or "finished",
        "metric": metric,
        "validation": run.score("validation", metric),
        "test": run.score("test", metric),
        "minutes": None if minutes is None else round(float(minutes) / 60, 2),
        "tokens": cost.get("tokens"),
        "parameters": cost.get("parameters"),
        "finished": str(cost.get("finished_at") or ""),
        "command": str(summary.get("command") or ""),
        **{
            name: value
            for name, value in (summary.get("metrics") or {}).items()
            if isinstance(value, int | float)
        },
        **run.config,
    }


def select(runs: Sequence[RunRecord], where: Sequence[str]) -> list[RunRecord]:
    """Those for which `key=value`, `key!=value`, `key>value` … hold; damaged ones, whose config cannot be
    read, stay.

    Raises ConfigError for a key that no run has, and for what is no condition.
    """
    pairs = [(run, row_of(run)) for run in runs]
    keys = sorted({key for _, row in pairs for key in row})
    for word in where:
        condition = CONDITION.fullmatch(word)
        if condition is None:
            raise ConfigError(f"where: '{word}' is not of the form dotted.key=value")
        key, sign, value = condition.groups()
        full = f"{key}.component" if key not in keys and f"{key}.component" in keys else key
        if full not in keys:
            raise ConfigError(f"where: no run has the key {key}, {did_you_mean(key, keys, most=3)}")
        pairs = [(run, row) for run, row in pairs if not run.config or _holds(row.get(full), sign, value)]
    return [run for run, _ in pairs]


def _holds(value: Any, sign: str, wanted: str) -> bool:
    """Numbers by their value, all else by its letters, case aside."""
    try:
        pair: tuple[Any, Any] = float(value), float(wanted)
        if isinstance(value, bool):
            raise TypeError
    except (TypeError, ValueError):
        pair = str(value).lower(), {"null": "none"}.get(wanted.lower(), wanted.lower())
        if sign not in ("=", "!="):
            return value is not None and COMPARISONS[sign](*pair)
    return COMPARISONS[sign](*pair)


def ordered(runs: Sequence[RunRecord], by: str | None) -> list[RunRecord]:
    """By a column, a score or a key of the config, `-key` from the largest; those without it last. None: as
    they were finished.

    Raises ConfigError for what no run has.
    """
    wanted = by or "finished"
    is_down, key = wanted.startswith("-"), wanted.removeprefix("-")
    rows = [row_of(run) for run in runs]
    keys = sorted({key for row in rows for key in row})
    if runs and key not in keys:
        raise ConfigError(f"sort={by}: no run has the key {key}, {did_you_mean(key, keys, most=3)}")
    there = [(row[key], place) for place, row in enumerate(rows) if row.get(key) not in (None, "")]
    numbers = all(isinstance(value, int | float) for value, _ in there)
    there.sort(key=lambda one: one[0] if numbers else str(one[0]), reverse=is_down)
    placed = [place for _, place in there]
    return [
        runs[place] for place in (*placed, *(place for place in range(len(runs)) if place not in set(placed)))
    ]
