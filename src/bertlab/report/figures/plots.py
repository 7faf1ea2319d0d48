"""Plots of scores, differences, costs, laws, calibration; and how every plot is dressed."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes

from bertlab.declarations import Metric
from bertlab.report import resampling, stats
from bertlab.report.arms import Study
from bertlab.report.comparison import BETTER, WORSE, Row
from bertlab.report.pages.page import Figure
from bertlab.report.scaling import Scaling
from hydra_plugins.bertlab_optuna.best_of import all_trials, draw_best_of

COLOURS = (
    "#1f77b4",
    "#d95f02",
    "#1b9e77",
    "#7570b3",
    "#e7298a",
    "#66a61e",
    "#a6761d",
    "#666666",
    "#17becf",
    "#bcbd22",
)
GRID_POINTS = 60
LONGEST_NAME = 44
MOST_NAMED = 20  # arms in a legend


def differences(study: Study, rows: Sequence[Row]) -> Figure | None:
    """Each arm's difference to the baseline, with intervals that hold together."""
    shown = [
        (row, row.on_validation)
        for row in rows
        if row.on_validation is not None and row.on_validation.difference.n > 0
    ][:40]
    if not shown:
        return None
    figure, axes = plt.subplots(figsize=(7.5, 1.3 + 0.38 * len(shown)), layout="constrained")
    factor = study.metric.factor
    for place, (_, versus) in enumerate(reversed(shown)):
        difference = versus.difference
        colour = {BETTER: "#1b9e77", WORSE: "#d95f02"}.get(versus.found, "#666666")
        if difference.n > 1:
            axes.plot(
                [factor * difference.low, factor * difference.high], [place, place], color=colour, linewidth=2
            )
        axes.plot(
            [factor * difference.mean], [place], "o" if versus.found else "D", color=colour, markersize=6
        )
    axes.axvline(0, color="#333333", linewidth=1)
    axes.set_yticks(
        range(len(shown)),
        [f"{short(row.arm.name)} (n={versus.difference.n})" for row, versus in reversed(shown)],
    )
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel(
        f"difference to {short(study.baseline.name)} in {label_of(study.metric)} ({study.metric.direction})"
    )
    dress(axes, 0)
    left_out = len([row for row in rows if row.on_validation is not None]) - len(shown)
    caption = (
        f"Paired differences to {study.baseline.name}, with intervals that hold together at 95 %;"
        " coloured: better or worse after Holm's"
        f" correction{f'; {left_out} more arms are not drawn' if left_out else ''}."
    )
    return finish(figure, f"{slug(study)}-differences", caption)


def scaling(study: Study, lines: Sequence[Scaling], cost: str) -> Figure:
    """Losses over cost on logarithmic axes, the law with its band; the largest size, foretold from the rest,
    is drawn open.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    factor = 100 if study.metric.higher_is_better else 1
    for index, line in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        for place, (x, values) in enumerate(zip(line.x, line.y, strict=True)):
            axes.plot(
                np.full(len(values), x),
                factor * values,
                "o",
                color=colour,
                markersize=5,
                fillstyle="none" if place == len(line.x) - 1 else "full",
            )
        at = np.geomspace(line.x[0], line.x[-1], GRID_POINTS)
        axes.plot(
            at,
            factor * line.law(at),
            color=colour,
            linewidth=1.6,
            label=f"{short(line.name)}: exponent {line.law.exponent:.3f}",
        )
        axes.fill_between(
            line.x, factor * line.band[0], factor * line.band[1], color=colour, alpha=0.15, linewidth=0
        )
        low, high = line.prediction
        middle = factor * line.predicted
        axes.errorbar(
            line.x[-1] * 1.12,
            middle,
            yerr=[[middle - factor * low], [factor * high - middle]],
            fmt="_",
            color=colour,
            capsize=4,
            alpha=0.8,
        )
    name = f"1 − {study.metric.name} (%)" if study.metric.higher_is_better else label_of(study.metric)
    axes.set(
        xscale="log", yscale="log", xlabel=cost, ylabel=f"validation {name}" if study.is_of_rows else name
    )
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%.3g"))
    axes.yaxis.set_minor_formatter(matplotlib.ticker.FormatStrFormatter("%.3g"))
    dress(axes, len(lines))
    caption = (
        "Power laws of the loss; dots: seeds; open: the largest size, beside it what the smaller ones"
        " foretold, with its 95 % interval."
    )
    return finish(figure, f"{slug(study)}-scaling", caption)


def cost(study: Study, rows: Sequence[Row]) -> Figure | None:
    """Score against what it cost, pretraining included: operations and wall-clock, with the front of the arms
    that no other beats for as little. One whose cost is not all on record is drawn hollow, and on no front.
    """
    shown = [row for row in rows if row.validation is not None and row.cost.flops > 0]
    if len(shown) < 2:
        return None
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained", sharey=True)
    flops = [row.cost.flops + row.cost.pretraining_flops for row in shown]
    minutes = [row.cost.minutes + row.cost.pretraining_minutes for row in shown]
    for axes, label, costs in zip(
        panels, ("operations of training (FLOPs)", "minutes of training"), (flops, minutes), strict=True
    ):
        wide = max(costs) > 8 * max(min(costs), 1e-9)
        front = cost_front(shown, costs, study.metric.higher_is_better)
        if len(front) > 1:
            axes.step(
                [costs[place] for place in front],
                [scaled(mean_of(shown[place]), study.metric) for place in front],
                where="post", color="#999999", linewidth=1, linestyle="--", zorder=1,
            )  # fmt: skip
        for index, (row, at) in enumerate(zip(shown, _side_by_side(costs, wide), strict=True)):
            score = row.validation
            assert score is not None
            ends = (
                [] if math.isnan(score.sd) else [study.metric.clip(score.low), study.metric.clip(score.high)]
            )
            reach = [[abs(score.mean - end)] for end in ends] or [[0.0], [0.0]]  # below and above
            name = short(row.arm.name) + (" †" if row.cost.pretrained_elsewhere else "")
            axes.errorbar(
                at, scaled(score.mean, study.metric), yerr=scaled(np.array(reach), study.metric),
                fmt="o" if index < 10 else "s",
                fillstyle="none" if row.cost.pretrained_elsewhere else "full",
                color=COLOURS[index % len(COLOURS)], capsize=3, label=name,
            )  # fmt: skip
        if wide:
            axes.set_xscale("log")  # labelled at 1 and 3 of each decade: more of them would overlap
            axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 3)))
            axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda x, _: power_of_ten(x)))
            axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        else:  # from nothing, so that nearly equal costs look so
            axes.set_xlim(0, 1.15 * max(costs))
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
            axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda x, _: f"{x:.3g}"))
        but = ", but for †" if any(row.cost.pretrained_elsewhere for row in shown) else ""
        axes.set_xlabel(f"{label}, pretraining included{but}")
        dress(axes, 0)
    panels[0].set_ylabel(label_of(study.metric))
    if len(shown) <= MOST_NAMED:
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=2,
            fontsize=8,
            frameon=False,
        )
    elsewhere = (
        " †, hollow: began from weights whose own cost is not on record; it stands too far left, and is on no"
        " front."
        if any(row.cost.pretrained_elsewhere for row in shown)
        else ""
    )
    return finish(
        figure,
        f"{slug(study)}-cost",
        "Score against cost, means with 95 % intervals; arms of equal cost side by side. Dashed: the front of"
        f" the means, what the best arm of so much cost scores.{elsewhere}",
    )


def mean_of(row: Row) -> float:
    """Over seeds, of an arm that has a score."""
    assert row.validation is not None
    return row.validation.mean


def cost_front(rows: Sequence[Row], costs: Sequence[float], higher_is_better: bool) -> list[int]:
    """Which arms have a better mean than all that cost no more, the cheapest first; of those alone whose cost
    is all on record.
    """
    sign = 1 if higher_is_better else -1
    known = [place for place, row in enumerate(rows) if not row.cost.pretrained_elsewhere]
    front: list[int] = []
    for place in sorted(known, key=lambda place: (costs[place], -sign * mean_of(rows[place]))):
        if not front or sign * mean_of(rows[place]) > sign * mean_of(rows[front[-1]]):
            front.append(place)
    return front


def power_of_ten(number: float) -> str:
    """For an axis: `0.3`, `300`, `3 × 10¹²`."""
    if number <= 0 or 1e-3 < number < 1e5:
        return f"{number:.3g}"
    power = math.floor(math.log10(number) + 1e-9)
    return rf"${number / 10**power:.3g} \times 10^{{{power}}}$"


def _side_by_side(costs: Sequence[float], is_log: bool) -> list[float]:
    """Where to draw each, so that no two that cost the same lie upon each other."""
    before = [
        sum(abs(other - one) <= 0.01 * max(one, other) for other in costs[:index])
        for index, one in enumerate(costs)
    ]
    return [
        one * 1.04**place if is_log else one + 0.02 * place * max(costs)
        for one, place in zip(costs, before, strict=True)
    ]


def calibration(study: Study, by_arm: dict[str, stats.Calibration]) -> Figure | None:
    """Reliability diagram: accuracy against confidence."""
    if not by_arm:
        return None
    figure, axes = plt.subplots(figsize=(5, 4.6), layout="constrained")
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=":")
    for index, (name, one) in enumerate(list(by_arm.items())[:10]):
        there = one.share > 0.002
        axes.plot(one.confidence[there], one.accuracy[there], "o-", color=COLOURS[index], markersize=4,
                  label=f"{short(name)}: ECE {100 * one.error:.1f} %")  # fmt: skip
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.01), ylim=(0, 1.01))
    dress(axes, len(by_arm))
    caption = (
        "Calibration on validation, all seeds together: accuracy of predictions by their confidence, 15 bins."
    )
    return finish(figure, f"{slug(study)}-calibration", caption)


def best_of_k(study: Study) -> Figure | None:
    """What one may expect of the best of k trials, where the study is a search: many settings, few seeds of
    each. Trials that were stopped early count too: without them the curve would be of survivors.
    """
    finished = [value for arm in study.arms for value in arm.scores("validation", study.metric).values()]
    first = study.baseline.in_order()[0]
    name = first.recorded_as(first.selects_by, study.metric.name)
    ended = [run for run in study.without_result if run.summary.get("status") in ("pruned", "failed")]
    scores = [[float(one[name]) for one in run.source.history() if name in one] for run in ended]
    stopped = [own[-1] for own in scores if own]
    if len(study.arms) + len(ended) < 8 or len(finished) > 2 * len(study.arms):
        return None
    values, told = all_trials(finished, stopped, len(ended) - len(stopped), study.metric.higher_is_better)
    figure, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
    draw_best_of(axes, scaled(np.array(values), study.metric), study.metric.higher_is_better)
    axes.set_ylabel(f"expected best {label_of(study.metric)}")
    score = "validation score" if study.is_of_rows else study.metric.name
    return finish(
        figure,
        f"{slug(study)}-best-of-k",
        f"Expected best {score} after so many trials like these (Dodge et al. 2019), with a 95 % band over"
        f" trials up to a quarter of them; {told}.",
    )


def profiles(arms: Mapping[str, Sequence[resampling.Scores]]) -> Figure | None:
    """Of each arm (its tasks): the share of its runs that score above each point, with bands."""
    if not arms:
        return None
    at = np.linspace(0, 1, 201)
    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for index, (name, tasks) in enumerate(list(arms.items())[:MOST_NAMED]):
        colour = COLOURS[index % len(COLOURS)]
        share, low, high = resampling.profile(tasks, at)
        axes.fill_between(100 * at, low, high, step="mid", color=colour, alpha=0.15, linewidth=0)
        axes.step(100 * at, share, where="mid", color=colour, label=short(name))
    axes.set(xlabel="official score, times 100", ylabel="share of runs above it", ylim=(0, 1.02))
    dress(axes, len(arms))
    return finish(
        figure,
        "tasks-profiles",
        "Performance profiles: the share of runs above each score, tasks weighing alike; 95 % bands, point by"
        " point, over pretrainings where an arm has several, else over runs.",
    )


def scaled(values: Any, metric: Metric) -> Any:
    """In the unit that is shown."""
    return metric.factor * values


def label_of(metric: Metric) -> str:
    """For an axis; a unit that is the score's own name is not said twice."""
    name = metric.name.replace("_", " ")
    return name if metric.unit == name else metric.label


def short(name: str) -> str:
    """For a legend."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def slug(study: Study) -> str:
    """A file's name, whatever a stranger calls a dataset."""
    return re.sub(r"[^\w.-]+", "-", f"{study.dataset}-{study.objective}")


def dress(axes: Axes, entries: int) -> None:
    """Lines, spines, and a legend where there is something to tell apart."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if entries:
        axes.legend(fontsize=8, frameon=False)


def finish(figure: Any, name: str, caption: str) -> Figure:
    """In all its forms; closed."""
    png, svg, pdf = io.BytesIO(), io.StringIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    figure.set_layout_engine("none")  # as it was fitted for the first: that takes as long as drawing
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):  # the same bytes each time
        figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    plt.close(figure)
    return Figure(name, png.getvalue(), svg.getvalue(), caption, pdf.getvalue())
