"""The last word of a grid (`bertlab -m …`): its runs beside each other, and over seeds the mean with its interval."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bertlab.config.schema import Train
from bertlab.declarations import Metric
from bertlab.errors import UserError
from bertlab.report.stats import summarize
from bertlab.training.lifecycle import locate

MINIMUM_FOR_TESTS = 6  # seeds: fewer cannot reach p = 0.05 in an exact paired test


def grid_lines(runs: Sequence[tuple[dict[str, str], Train]]) -> Iterator[str]:
    """Lines to print for runs given by what sets each apart and their configs; what did not finish is named with its status."""
    keys = list(dict.fromkeys(key for settings, _ in runs for key in settings))
    rows, scores = list[list[str]](), dict[tuple[str, ...], list[float]]()
    outcomes = [outcome_of(config) for _, config in runs]
    for (values, _), (folder, summary) in zip(runs, outcomes, strict=True):
        cells = [values.get(key, "") for key in keys]
        if summary is None or summary["status"] != "finished":
            rows.append([*cells, "-", "-", "-", f"{folder} ({'not begun' if summary is None else summary['status']})"])
            continue
        name = summary["selected_by"].partition("/")[2]
        metrics = summary["metrics"]
        test = f"{metrics[f'test/{name}']:.4f}" if f"test/{name}" in metrics else "-"
        rows.append([*cells, f"{metrics[summary['selected_by']]:.4f}", test, f"{summary['cost']['seconds'] / 60:.1f}", folder])
        arm = tuple(f"{key}={values[key]}" for key in keys if key != "seed" and key in values)
        scores.setdefault(arm, []).append(metrics[summary["selected_by"]])
    done = next((summary for _, summary in outcomes if summary and "selected_by" in summary), {})
    name = str(done.get("selected_by", "score"))
    table = [[*keys, name, name.replace("validation", "test"), "minutes", "run"], *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    yield ""
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if "seed" in keys:
        spec = done.get("metric_specs", {}).get(name)
        yield from arms(scores, name, (lambda value: value) if spec is None else Metric.from_record(name, spec).clip)


def arms(scores: dict[tuple[str, ...], list[float]], name: str, clip: Callable[[float], float]) -> Iterator[str]:
    """Of each arm: mean ± standard deviation over seeds and its 95 % t interval, as far as the score reaches."""
    for arm, values in scores.items():
        of = summarize(values)
        label = f"{' '.join(arm)}: " if arm else ""
        spread = (
            "one seed, no interval"
            if math.isnan(of.sd)
            else f"± {of.sd:.4f}, n = {of.n}, 95 % interval {clip(of.low):.4f} to {clip(of.high):.4f}"
        )
        yield f"{label}{name} {of.mean:.4f} {spread}"
    if len(scores) > 1:
        few = max(map(len, scores.values())) < MINIMUM_FOR_TESTS
        advice = f" (with fewer than {MINIMUM_FOR_TESTS} seeds no paired test reaches 0.05)" if few else ""
        yield f"differences with tests, figures, costs: bertlab report runs=…{advice}"


def outcome_of(config: Train) -> tuple[str, dict[str, Any] | None]:
    """A run's folder and what it says of itself, None where there is nothing."""
    try:
        folder = locate(config).folder
        return str(folder), folder.summary()
    except UserError:  # told when it was run
        return "-", None
