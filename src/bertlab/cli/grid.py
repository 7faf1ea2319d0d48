"""The last word of a grid (`bertlab -m …`): its runs beside each other, and over seeds the mean with its
interval.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bertlab.config.composition import declared_tasks
from bertlab.config.schema import Train
from bertlab.config.suites import Suite
from bertlab.declarations import Metric
from bertlab.errors import UserError
from bertlab.report.grouping import studies_of
from bertlab.report.pages.page import Figure, Page, to_plain
from bertlab.report.pages.tasks import tasks_blocks
from bertlab.report.resampling import inflated
from bertlab.report.stats import summarize
from bertlab.report.tasks import many_tasks, tasks_rows
from bertlab.runs.folder import RunFolder
from bertlab.runs.records import read_run
from bertlab.training.location import locate

MINIMUM_FOR_TESTS = 6  # seeds: fewer cannot reach p = 0.05 in an exact paired test


def grid_lines(runs: Sequence[tuple[dict[str, str], Train]]) -> Iterator[str]:
    """Lines to print for runs given by what sets each apart and their configs; what did not finish is named
    with its status.
    """
    keys = list(dict.fromkeys(key for settings, _ in runs for key in settings))
    rows: list[list[str]] = []
    scores: dict[tuple[str, ...], dict[tuple[int, ...], list[float]]] = {}  # of each arm and fold
    # of each arm, its score's name and what that means
    specs: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {}
    outcomes = [outcome_of(config) for _, config in runs]
    for (values, config), (folder, summary) in zip(runs, outcomes, strict=True):
        cells = [values.get(key, "") for key in keys]
        if summary is None or summary["status"] != "finished":
            rows.append(
                [*cells, "-", "-", "-", f"{folder} ({'not begun' if summary is None else summary['status']})"]
            )
            continue
        name = summary["selected_by"].partition("/")[2]
        reported = f"validation/{name}"
        metrics = summary["metrics"]
        test = f"{metrics[f'test/{name}']:.4f}" if f"test/{name}" in metrics else "-"
        rows.append(
            [*cells, f"{metrics[reported]:.4f}", test, f"{summary['cost']['seconds'] / 60:.1f}", folder]
        )
        arm = tuple(
            f"{key}={values[key]}" for key in keys if key not in ("seed", "dataset.fold") and key in values
        )
        dataset = config.dataset
        fold = (
            ()
            if dataset.folds is None or dataset.fold is None
            else (dataset.folds, dataset.split_seed, dataset.fold)
        )
        scores.setdefault(arm, {}).setdefault(fold, []).append(metrics[reported])
        specs[arm] = (reported, summary["metric_specs"][reported])
    names = list(dict.fromkeys(name for name, _ in specs.values()))
    name = names[0] if len(names) == 1 else "validation"  # of several tasks each has its own score
    table = [[*keys, name, name.replace("validation", "test"), "minutes", "run"], *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    yield ""
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if "seed" in keys or "dataset.fold" in keys:
        yield from arms(scores, {arm: Metric.from_record(name, spec) for arm, (name, spec) in specs.items()})


def arms(
    scores: Mapping[tuple[str, ...], Mapping[tuple[int, ...], Sequence[float]]],
    metrics: Mapping[tuple[str, ...], Metric],
) -> Iterator[str]:
    """Of each arm: mean ± standard deviation over seeds, or over folds, and its 95 % interval, as far as the
    score reaches.

    Its scores are by (number of folds, seed of the cut, fold), by () without folds. Folds share training
    rows: their interval is corrected.
    """
    for arm, by_fold in scores.items():
        name, clip = metrics[arm].name, metrics[arm].clip
        folds = next((fold[0] for fold in by_fold if fold), 0)
        values = (
            [sum(own) / len(own) for own in by_fold.values()]
            if folds
            else [value for own in by_fold.values() for value in own]
        )
        of, wide = summarize(values), summarize(inflated(values, 1 / (folds - 1)) if folds else values)
        label = f"{' '.join(arm)}: " if arm else ""
        spread = (
            f"one {'fold' if folds else 'seed'}, no interval"
            if math.isnan(of.sd)
            else (
                f"± {of.sd:.4f}, n = {of.n}{' folds' if folds else ''}, 95 % interval {clip(wide.low):.4f} to"
                f" {clip(wide.high):.4f}"
            )
        )
        yield f"{label}{name} {of.mean:.4f} {spread}"
    if len(scores) > 1:
        few = (
            max((len(one[()]) for one in scores.values() if () in one), default=MINIMUM_FOR_TESTS)
            < MINIMUM_FOR_TESTS
        )
        advice = f" (with fewer than {MINIMUM_FOR_TESTS} seeds no paired test reaches 0.05)" if few else ""
        yield f"differences with tests, figures, costs: bertlab report runs=…{advice}"


def outcome_of(config: Train) -> tuple[str, dict[str, Any] | None]:
    """A run's folder and what it says of itself, None where there is nothing."""
    try:
        run = locate(config)
        return str(run.folder), run.summary
    except UserError:  # told when it was run
        return "-", None


def suite_lines(suite: Suite, configs: Sequence[Train]) -> Iterator[str]:
    """Every task's score over seeds, the mean over tasks, cost, and published scores beside, for runs that
    finished.
    """
    finished = [folder for config in configs if (folder := finished_folder(config)) is not None]
    runs = [run for folder in finished if not (run := read_run(folder)).problem]
    known = {key for run in runs for key in run.config}
    select = [key for key in suite.keys_of_grid() if known & {key, f"{key}.component"}]
    studies = studies_of(runs, select=select) if runs else []
    if (many := many_tasks(studies, suite, declared_tasks(suite))) is not None:
        blocks = tasks_blocks(many, tasks_rows(many, {}))
        yield to_plain(Page("", [block for block in blocks if not isinstance(block, Figure)])).strip()


def finished_folder(config: Train) -> RunFolder | None:
    """None where the run has not finished, or cannot be told from its config."""
    try:
        folder = locate(config).folder
        summary = folder.summary()
    except UserError:
        return None
    return folder if summary is not None and summary["status"] == "finished" else None
