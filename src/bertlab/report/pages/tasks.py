"""How many tasks look in a report: a table of all, differences with tests, task by task, other ways to sum
up, profiles.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

from bertlab.report.arms import Seeds, counted
from bertlab.report.caveats import choice_of
from bertlab.report.comparison import summarize
from bertlab.report.figures.plots import profiles
from bertlab.report.pages.page import Block, Heading, PageTable, Text
from bertlab.report.pages.tables import difference_cells
from bertlab.report.tasks import MEAN, ManyTasks, Task, TasksRow

SEEDS_OF_ORDER = 5  # below, the almost stochastic order says too often that there is one
FEW_TASKS = 6  # below, an exact test over tasks cannot reach 0.05


def tasks_blocks(many: ManyTasks, rows: Sequence[TasksRow]) -> list[Block]:
    """All that is said of several tasks together."""
    blocks: list[Block] = [Heading("Over tasks"), Text(_opening(many, rows))]
    blocks += [Text(warning, "warning") for warning in warnings_of_tasks(many, rows)]
    blocks += [scores_table(many, rows), *_published_notes(many)]
    if any(row.versus is not None for row in rows):
        blocks.append(differences_table(many, rows))
    blocks += [
        task_by_task(many, rows),
        *([sums_table(rows)] if any(row.mean is not None for row in rows) else []),
    ]
    if (
        figure := profiles({row.arm.name: row.arm.nested() for row in rows if row.mean is not None})
    ) is not None:
        blocks.append(figure)
    return blocks


def _opening(many: ManyTasks, rows: Sequence[TasksRow]) -> str:
    words = (
        f"{counted(len(many.tasks), 'task')}, {counted(len(rows), 'arm')}; each task by its official score on"
        " validation, times 100, and the plain mean over tasks. “Seeds”: other runs on these tasks (t"
        " interval of the seeds' means). “Seeds and tasks”: other tasks like these too (hierarchical"
        " bootstrap of tasks, then runs; t for few tasks)."
    )
    if len(rows) > 1:
        words += f" Differences are to “{many.arms[0].name}”, paired by task and seeds."
    return words


def warnings_of_tasks(many: ManyTasks, rows: Sequence[TasksRow]) -> list[str]:
    """What a reader should know before believing the means."""
    warnings = []
    if apart := [task.name for task in many.tasks if task.apart]:
        warnings.append(f"Shown, and not in the mean: {', '.join(apart)}.")
    for arm in many.arms:
        if arm.lacks:
            warnings.append(f"“{arm.name}” has no mean: it lacks {', '.join(arm.lacks)}.")
        elif len({len(arm.on(task)) for task in arm.in_mean}) > 1:
            seeds = ", ".join(f"{task}: {len(arm.on(task))}" for task in arm.in_mean)
            warnings.append(
                f"“{arm.name}” has different numbers of seeds ({seeds}); means over tasks take those in"
                " common."
            )
    if single := [row.arm.name for row in rows if row.arm.pretrainings == 1 and len(row.arm.runs) > 1]:
        warnings.append(
            f"One pretraining stands behind all seeds of {', '.join(f'“{name}”' for name in single)}: every"
            " interval over its seeds, chances and ranks too, holds for that pretraining, not for its recipe."
        )
    if many.in_mean and len(many.in_mean) < FEW_TASKS and any(row.mean is not None for row in rows):
        warnings.append(
            f"{len(many.in_mean)} tasks are few to speak of others by: what holds for seeds and tasks is"
            " wide, and should be."
        )
    return warnings


def scores_table(many: ManyTasks, rows: Sequence[TasksRow]) -> PageTable:
    """Arms by tasks, the mean and what it cost; published scores below."""
    headers = ["arm", *(f"{task.name} ({task.metric.name})" for task in many.tasks), "mean", "95 %, seeds",
        "95 %, seeds and tasks",
               f"core-minutes a seed{_without(rows)}"]  # fmt: skip
    lines = []
    for row in rows:
        told = row.mean
        lines.append([
            row.arm.name + (" †" if row.cost.pretrained_elsewhere else ""),
            *(_spread(task, row.arm.on(task.name)) for task in many.tasks),
            "–" if told is None else _mean(told.mean, told.sd),
            "–" if told is None else _interval(told.low, told.high),
            _interval(*row.over_tasks),
            f"{row.cost.core_minutes:.1f}",
        ])  # fmt: skip
    for name, one in many.published.items():
        known = [one.scores[task] for task in many.in_mean if task in one.scores]
        mean = f"{sum(known) / len(known):.1f}" if len(known) == len(many.in_mean) else "–"
        cells = (f"{one.scores[task.name]:.1f}" if task.name in one.scores else "–" for task in many.tasks)
        lines.append([f"{name} ‡", *cells, mean, "–", "–", "–"])
    caption = "Official scores over seeds, mean ± sd"
    if any(row.cost.pretrained_elsewhere for row in rows):
        caption += ". † began from weights whose own cost is not on record"
    if many.published:
        caption += ". ‡ published by others, not made here"
    return PageTable(headers, lines, caption, frozenset({0}) if len(rows) > 1 else frozenset())


def _without(rows: Sequence[TasksRow]) -> str:
    """What core-minutes leave out."""
    return ", pretraining not counted" if any(row.cost.pretraining_tokens for row in rows) else ""


def _published_notes(many: ManyTasks) -> list[Block]:
    if not many.published:
        return []
    sources: dict[str, list[str]] = {}
    for name, one in many.published.items():
        sources.setdefault(one.source, []).append(name)
    told = "; ".join(f"{', '.join(names)}: {source}" for source, names in sources.items())
    on_test = any(one.split == "test" for one in many.published.values())
    ours = " or ".join(dict.fromkeys(choice_of(task.study).of_scores for task in many.tasks))
    against = f" Theirs are of the test split, ours of {ours}:" if on_test else ""
    return [
        Text(
            f"‡ {told}.{against} other data, protocol and selection, so that nothing is tested against them.",
            "warning",
        )
    ]


def differences_table(many: ManyTasks, rows: Sequence[TasksRow]) -> PageTable:
    """Arms beside the baseline, over all tasks."""
    headers = ["arm", "difference of means [interval]", "p (Holm)", "95 %, seeds and tasks", "tasks ahead",
        "chance to beat it [95 %]",
               "mean rank [95 %]", "verdict on these tasks"]  # fmt: skip
    ordered = any(not math.isnan(row.violation) for row in rows)
    headers[6:6] = ["ε of almost stochastic order"] if ordered else []
    lines = []
    for row in rows:
        chance = row.improvement
        lines.append([
            row.arm.name,
            *difference_cells(row.versus, MEAN),
            _interval(*row.versus_over_tasks, sign=True),
            row.better_on,
            "" if math.isnan(chance[0]) else f"{chance[0]:.2f} [{chance[1]:.2f}, {chance[2]:.2f}]",
            *(["" if math.isnan(row.violation) else f"{row.violation:.2f}"] if ordered else []),
            "–" if math.isnan(row.rank[0]) else f"{row.rank[0]:.2f} [{row.rank[1]:.2f}, {row.rank[2]:.2f}]",
            "the baseline"
            if row.arm is many.arms[0]
            else "no mean, no comparison" if row.versus is None else row.versus.verdict,
        ])  # fmt: skip
    caption = f"Over tasks, beside “{many.arms[0].name}”"
    caption += (
        "; chance to beat it and mean rank: over pretrainings where an arm has several, else over seeds; of"
        " ranks those that the true means may have, by pairwise t tests"
    )
    if ordered:
        caption += (
            "; ε: the mean over tasks of each one's upper bound, over runs; below 0.2 is read as better by"
            " Ulmer et al. 2022, 0.5 and above as nothing said (Dror et al. 2019)"
        )
        fewest = min(len(scores) for row in rows for scores in row.arm.lists() if scores)
        if fewest < SEEDS_OF_ORDER:
            caption += (
                f". With {counted(fewest, 'seed')} a task it says little: where nothing differs it is below"
                " 0.2 on one task of six with two seeds, and on one of fourteen with three"
            )
    return PageTable(headers, lines, caption, frozenset({0}), wide=(len(headers) - 1,))


def task_by_task(many: ManyTasks, rows: Sequence[TasksRow]) -> PageTable:
    """Each task's official score, median and mean over seeds with the interval, and the test split's where it
    was scored.
    """
    has_test = any(arm.on(task.name, "test") for arm in many.arms for task in many.tasks)
    chosen = any(one.chosen for arm in many.arms for one in arm.by_task.values())
    headers = ["task", "score", "arm", "seeds", "median", "mean ± sd", "95 % interval",
        *(["test, mean ± sd"] if has_test else []),
               f"core-minutes{_without(rows)}", *(["chosen on validation"] if chosen else [])]  # fmt: skip
    lines = []
    for task in many.tasks:
        for arm in many.arms:
            if (one := arm.by_task.get(task.name)) is None:
                continue
            scores = arm.on(task.name)
            told = summarize(scores)
            cost = (
                sum(float(run.summary.get("cost", {}).get("core_seconds", 0.0)) for run in one.in_order())
                / len(one.runs)
                / 60
            )
            low, high = task.metric.clip(told.low), task.metric.clip(told.high)
            lines.append([
                task.name, task.metric.name, arm.name, str(told.n),
                _shown(task, statistics.median(scores.values())),
                _spread(task, scores),
                "–" if math.isnan(told.low) else f"[{_shown(task, low)}, {_shown(task, high)}]",
                *([_spread(task, arm.on(task.name, "test"))] if has_test else []),
                f"{cost:.1f}", *([one.chosen] if chosen else []),
            ])  # fmt: skip
    return PageTable(headers, lines, "Task by task, over seeds", left=3)


def sums_table(rows: Sequence[TasksRow]) -> PageTable:
    """Sums that a single easy or hopeless task moves less than it does the mean."""
    lines = [
        [
            row.arm.name,
            points(row.middle[0]),
            _interval(*row.middle[1:]),
            points(row.median),
            points(row.mean.mean),
        ]
        for row in rows
        if row.mean is not None
    ]
    headers = ["arm", "interquartile mean", "95 %, seeds", "median over tasks", "mean"]
    return PageTable(
        headers,
        lines,
        "Other ways to sum up (Agarwal et al. 2021): the middle half of all runs' scores; the middle task",
    )


def points(value: float) -> str:
    """A score whose best is 1, times 100."""
    return "–" if math.isnan(value) else f"{100 * value:.2f}".replace("-", "−")


def _interval(low: float, high: float, sign: bool = False) -> str:
    if math.isnan(low):
        return "–"
    if not sign:
        low, high = MEAN.clip(low), MEAN.clip(high)
    told = (f"{100 * value:{'+' if sign else ''}.2f}".replace("-", "−") for value in (low, high))
    return f"[{', '.join(told)}]"


def _shown(task: Task, value: float) -> str:
    return points(value) if task.metric.bounds[1] == 1.0 else task.metric.show(value)


def _mean(mean: float, sd: float) -> str:
    return points(mean) + ("" if math.isnan(sd) else f" ± {points(sd)}")


def _spread(task: Task, scores: Mapping[Seeds, float]) -> str:
    if not scores:
        return "–"
    told = summarize(scores)
    return _shown(task, told.mean) + ("" if math.isnan(told.sd) else f" ± {_shown(task, told.sd)}")
