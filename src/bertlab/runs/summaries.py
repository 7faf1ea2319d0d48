"""What a finished run's summary holds for whoever reads it: looked at once, when it is read, and relied on
afterwards.

A run's own files have checksums; a summary without them comes from an earlier version, or from elsewhere.
"""

import math
from collections.abc import Mapping
from typing import Any

BEST_POSSIBLE = "best_possible"  # in the place of a split, in names of `metrics`
COSTS = ("steps", "tokens", "seconds", "parameters")
STAGE_COSTS = ("tokens", "seconds")
UNSCORED = ("validation", "test")
MAPPINGS = ("metric_specs", "blind", "rows", "left_out")  # of mappings


def flaw(summary: dict[str, Any]) -> str:
    """What a summary that says `finished` lacks, in a few words; empty where it is whole."""
    selected, metrics = summary.get("selected_by"), summary.get("metrics")
    if not isinstance(metrics, dict):
        return "its metrics"
    if not isinstance(selected, str) or "/" not in selected or not is_number(metrics.get(selected)):
        return "its selected score"
    if not _has_numbers(summary.get("cost"), COSTS):
        return "its cost"
    stage = summary.get("stage")
    if stage and not (isinstance(stage, dict) and isinstance(stage.get("run"), str)):
        return "its pretraining's name"
    if stage and not _has_numbers(stage.get("cost"), STAGE_COSTS):
        return "its pretraining's cost"
    if not _is_list_of(summary.get("unscored", []), UNSCORED):
        return "splits to be scored that there are"
    if not all(_is_mapping_of_mappings(summary.get(name, {})) for name in MAPPINGS):
        return "what its scores mean"
    if not isinstance(summary.get("classes"), str | None):
        return "whose classes it tells"
    return "" if _says_what_chance_is(summary, selected) else "what its scores stand against"


def name_of_best(split: str, metric: str) -> str:
    """Under which name `metrics` holds the best that a split's labels allow; validation's goes without its
    split.
    """
    return f"{BEST_POSSIBLE}/{metric}" if split == "validation" else f"{BEST_POSSIBLE}/{split}_{metric}"


def best_possible(metrics: Mapping[str, Any], split: str, metric: str) -> float | None:
    """The best that a split's labels allow; None where nobody knows."""
    best: float | None = metrics.get(name_of_best(split, metric))
    return best


def is_score(name: str) -> bool:
    """Whether an entry of `metrics` was measured, and is not the best possible."""
    return name.partition("/")[0] != BEST_POSSIBLE


def is_number(value: Any) -> bool:
    """A finite one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _says_what_chance_is(summary: dict[str, Any], selected: str) -> bool:
    """Where it tells the score of one who reads nothing, it tells of how many rows, and what the score is."""
    split, _, name = selected.partition("/")
    blind = summary.get("blind", {}).get(split, {}).get(name)
    rows = summary.get("rows", {})
    return blind is None or (
        is_number(blind)
        and selected in summary.get("metric_specs", {})
        and "train" in rows
        and is_number(rows.get(split, {}).get("rows"))
    )


def _has_numbers(value: Any, names: tuple[str, ...]) -> bool:
    return isinstance(value, dict) and all(is_number(value.get(name)) for name in names)


def _is_list_of(value: Any, known: tuple[str, ...]) -> bool:
    return isinstance(value, list) and all(item in known for item in value)


def _is_mapping_of_mappings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())
