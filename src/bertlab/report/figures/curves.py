"""The validation score over training; of runs evaluated too seldom for a curve, points with intervals."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from bertlab.declarations import Metric
from bertlab.report.arms import Study
from bertlab.report.comparison import summarize
from bertlab.report.figures.plots import COLOURS, MOST_NAMED, dress, finish, label_of, scaled, short, slug
from bertlab.report.pages.page import Figure

GRID_POINTS = 60
FEWEST_FOR_A_CURVE = 3  # evaluations; a line through two says nothing of the way between
MOST_MARKED = 15  # evaluations that are marked on a line
Histories = Sequence[Sequence[Sequence[dict[str, Any]]]]  # of each arm, of each run


def curves(study: Study) -> Figure | None:
    """The validation score over training and, beside it, the losses: mean over seeds, band from the worst to
    the best seed. Of runs that were evaluated once or twice, the last scores as points with intervals.
    """
    offered = {
        metric.name: metric for arm in study.arms for run in arm.in_order() for metric in run.metrics()
    }
    metrics = [
        study.metric,
        *(offered[name] for name in ("loss",) if name in offered and name != study.metric.name),
    ]
    histories = [[run.source.history() for run in arm.in_order()] for arm in study.arms[:MOST_NAMED]]
    most = max(
        (
            len(_curve(run.source.history(), run.recorded_as(run.selects_by, study.metric.name)))
            for arm in study.arms[:MOST_NAMED]
            for run in arm.in_order()
        ),
        default=0,
    )
    if not most:
        return None
    if most < FEWEST_FOR_A_CURVE:
        return _points(study, metrics, histories, most)
    figure, panels = plt.subplots(
        1, len(metrics), figsize=(9.5 if metrics[1:] else 7.5, 4.2), layout="constrained", squeeze=False
    )
    drawn = [
        _draw_curves(axes, study, metric, histories) for axes, metric in zip(panels[0], metrics, strict=True)
    ]
    if not drawn[0]:
        plt.close(figure)
        return None
    for axes, metric in zip(panels[0], metrics, strict=True):
        axes.set(xlabel="epoch of the training data", ylabel=label_of(metric))
        dress(axes, 0)
    _legend_below(figure, panels[0][0], drawn[0])
    caption = (
        f"{_of(study).capitalize()} {study.metric.name} over"
        f" training{' and the losses, dotted on training' if metrics[1:] else ''}"
    )
    return finish(
        figure, f"{slug(study)}-curves", f"{caption}; line: mean over seeds, band: worst to best seed."
    )


def _legend_below(figure: MatplotlibFigure, axes: Axes, arms: int) -> None:
    """Outside the panels, where no line is."""
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(3, arms),
        fontsize=8,
        frameon=False,
    )


def _of(study: Study) -> str:
    """The split that was scored during training; of arms that differ in it, the baseline's."""
    return study.baseline.in_order()[0].selects_by


def _draw_curves(axes: Axes, study: Study, metric: Metric, histories: Histories) -> int:
    """One line an arm, two where training tells the score as well and it is not the one compared; how many
    arms there were.
    """
    drawn = 0
    for index, (arm, of_seeds) in enumerate(zip(study.arms, histories, strict=False)):
        colour, style = COLOURS[index % len(COLOURS)], "-" if index < len(COLOURS) else "--"
        first = arm.in_order()[0]
        if (curve := over_seeds(of_seeds, first.recorded_as(first.selects_by, metric.name))) is None:
            continue
        at, values = curve
        values = scaled(values, metric)
        label, marker = f"{short(arm.name)} (n={len(values)})", "." if len(at) <= MOST_MARKED else ""
        axes.plot(at, values.mean(0), style, color=colour, label=label, linewidth=1.8, marker=marker)
        if len(values) > 1 and len(at) > 1:
            axes.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
        elif len(values) > 1:
            axes.vlines(at, values.min(0), values.max(0), color=colour, alpha=0.5)
        if metric != study.metric and (curve := over_seeds(of_seeds, f"train/{metric.name}")) is not None:
            axes.plot(curve[0], curve[1].mean(0), ":", color=colour, linewidth=1.2)
        drawn += 1
    return drawn


def _points(study: Study, metrics: Sequence[Metric], histories: Histories, most: int) -> Figure:
    """The last evaluation's scores, an arm a line."""
    arms = study.arms[: len(histories)]
    figure, panels = plt.subplots(
        1, len(metrics), figsize=(9.5 if metrics[1:] else 7.5, 1.5 + 0.42 * len(arms)),
        layout="constrained", squeeze=False, sharey=True,
    )  # fmt: skip
    for axes, metric in zip(panels[0], metrics, strict=True):
        for place, (arm, of_seeds) in enumerate(zip(arms, histories, strict=True)):
            first = arm.in_order()[0]
            name = first.recorded_as(first.selects_by, metric.name)
            lines = {
                seeds: line
                for seeds, one in zip(sorted(arm.runs), of_seeds, strict=True)
                if len(line := _curve(one, name))
            }
            if not lines:
                continue
            values = scaled(np.array([line[-1, 1] for line in lines.values()]), metric)
            colour = COLOURS[place % len(COLOURS)]
            one = summarize(dict(zip(lines, map(float, values), strict=True)))
            axes.plot(values, np.full(len(values), place + 0.16), "|", color=colour, alpha=0.7, markersize=8)
            axes.plot([one.mean], [place], "o", color=colour, markersize=6)
            if len(values) > 1:
                ends = [metric.clip(end / metric.factor) * metric.factor for end in (one.low, one.high)]
                axes.plot(ends, [place, place], color=colour, linewidth=2)
        axes.set_xlabel(f"{label_of(metric)} ({metric.direction})")
        dress(axes, 0)
    panels[0][0].set_yticks(
        range(len(arms)),
        [f"{short(arm.name)} (n={len(runs)})" for arm, runs in zip(arms, histories, strict=True)],
    )
    panels[0][0].set_ylim(len(arms) - 0.5, -0.5)
    times = "once" if most == 1 else "twice at most"
    caption = (
        f"Runs were evaluated {times}, too seldom for a curve over training: the last {_of(study)} scores;"
        " strokes: seeds, dot and line: mean and 95 % t interval, of several pretrainings over their means."
    )
    return finish(figure, f"{slug(study)}-curves", caption)


def over_seeds(
    histories: Sequence[Sequence[dict[str, Any]]], name: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Points in epochs that all runs have passed, `(P,)`, and each run's value there, `(runs, P)`: where all
    were scored, or a grid where they were scored at different times; None where no run has the score.
    """
    lines = [line for history in histories if len(line := _curve(history, name))]
    if not lines:
        return None
    start, end = max(line[0, 0] for line in lines), min(line[-1, 0] for line in lines)
    if end < start:
        return None
    same = all(np.array_equal(line[:, 0], lines[0][:, 0]) for line in lines)
    at = lines[0][:, 0] if same else np.linspace(start, end, GRID_POINTS if end > start else 1)
    return at, np.array([np.interp(at, line[:, 0], line[:, 1]) for line in lines])


def _curve(history: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    points = [(record["epoch"], record[name]) for record in history if name in record]
    return np.array(points, dtype=np.float64).reshape(-1, 2)
