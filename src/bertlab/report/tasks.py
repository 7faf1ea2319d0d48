"""Many tasks: the arms of several studies side by side, task by task, and what may be said of all tasks
together.

Tasks are what runs declare, one dataset and one objective each, with the score that selected their
checkpoints. A mean over tasks is of scores whose best is 1 by their own record; a task scored otherwise
stands apart.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bertlab.config.suites import Published, Suite
from bertlab.declarations import Metric
from bertlab.report import resampling, stats
from bertlab.report.arms import Arm, Seeds, Study, by_pretraining, partners
from bertlab.report.comparison import Cost, Versus, cost_of, differences, summarize
from bertlab.report.naming import arm_name
from bertlab.report.settings import setting
from bertlab.runs.records import RunRecord

MEAN = Metric("mean over tasks", higher_is_better=True, bounds=(-1.0, 1.0))


@dataclass
class Task:
    """One column."""

    name: str
    study: Study
    apart: bool  # shown, and not in the mean

    @property
    def metric(self) -> Metric:
        """Its official score."""
        return self.study.metric


@dataclass
class OverTasks(Arm):
    """One setting on every task: an arm whose scores are means over tasks."""

    by_task: dict[str, Arm] = field(default_factory=dict)  # every task that it was run on
    metrics: dict[str, Metric] = field(default_factory=dict)  # task -> its official score
    in_mean: Sequence[str] = ()  # the tasks that make the mean

    @property
    def lacks(self) -> list[str]:
        """Tasks of the mean that it was not run on: without them there is none."""
        return [task for task in self.in_mean if task not in self.by_task]

    def scores(self, split: str, metric: Metric) -> dict[Seeds, float]:
        """Seeds -> mean over tasks, of the seeds that every task was run with."""
        every = self.in_common(split)
        return {seeds: sum(one[seeds] for one in every) / len(every) for seeds in every[0]} if every else {}

    def in_common(self, split: str = "validation") -> list[dict[Seeds, float]]:
        """Its scores on each task of the mean, of the seeds that every one was run with; empty where it lacks
        a task.
        """
        if self.lacks:
            return []
        every = [self.on(task, split) for task in self.in_mean]
        common = sorted(set(every[0]).intersection(*every[1:]))
        return [{seeds: scores[seeds] for seeds in common} for scores in every]

    def on(self, task: str, split: str = "validation") -> dict[Seeds, float]:
        """Its scores on one task."""
        return self.by_task[task].scores(split, self.metrics[task]) if task in self.by_task else {}

    def lists(self) -> list[list[float]]:
        """Its validation scores on each task of the mean."""
        return [list(self.on(task).values()) for task in self.in_mean]

    def nested(self) -> list[dict[int, list[float]]]:
        """The same by the seed of their pretraining."""
        return [by_pretraining(self.on(task)) for task in self.in_mean]


@dataclass
class ManyTasks:
    """Several tasks, and the arms that they have in common."""

    tasks: list[Task]
    study: Study  # of the means over tasks; its arms are `arms`
    arms: list[OverTasks]  # in the order in which they are shown
    published: Mapping[str, Published]

    @property
    def in_mean(self) -> list[str]:
        """The tasks that make the mean."""
        return [task.name for task in self.tasks if not task.apart]


@dataclass(frozen=True)
class TasksRow:
    """What is said of one arm over all tasks."""

    arm: OverTasks
    mean: stats.Summary | None  # over seeds or pretrainings, of the means over tasks
    over_tasks: tuple[float, float]  # 95 % interval of the mean, for other tasks too
    middle: tuple[float, float, float]  # interquartile mean and its interval
    median: float  # over tasks
    versus: Versus | None  # None for the baseline, and where there is no mean
    versus_over_tasks: tuple[float, float]  # 95 % interval of the mean difference, for other tasks too
    better_on: str  # `4 of 5`: tasks on which its mean is above the baseline's
    improvement: tuple[float, float, float]  # chance that a run beats one of the baseline, and its interval
    rank: tuple[float, float, float]  # mean rank among the arms, and its interval
    # of almost stochastic order over the baseline, the mean over tasks; NaN where it was not asked for
    violation: float
    cost: Cost  # of one seed on all tasks


def many_tasks(
    studies: Sequence[Study], suite: Suite | None = None, names: Mapping[tuple[str, str], str] | None = None
) -> ManyTasks | None:
    """The studies as tasks; of a suite those that are its own, in its order. None where there are fewer than
    two.

    `names`: (dataset, objective) -> a task's name, as the suite says.
    """
    known = dict(names or {})
    chosen = [study for study in studies if not known or (study.dataset, study.objective) in known]
    alone = Counter(study.dataset for study in chosen)
    tasks = []
    for study in chosen:
        name = known.get(
            (study.dataset, study.objective), study.dataset if alone[study.dataset] == 1 else study.title
        )
        best_is_1 = study.metric.higher_is_better and study.metric.bounds[1] == 1.0
        tasks.append(Task(name, study, not best_is_1 or (suite is not None and name in suite.apart)))
    order = list(known.values())
    tasks.sort(key=lambda task: order.index(task.name) if task.name in order else len(order))  # a stable sort
    if len(tasks) < 2 or sum(not task.apart for task in tasks) < 2:
        return None
    expected = [name for name in order if suite is not None and name not in suite.apart] or [
        task.name for task in tasks if not task.apart
    ]
    arms = _matched(
        tasks, [name for name in expected if name not in [task.name for task in tasks if task.apart]]
    )
    study = Study(
        ", ".join(task.name for task in tasks), "all tasks", MEAN, _keys(tasks), list(arms), arms[0]
    )
    return ManyTasks(tasks, study, arms, {} if suite is None else suite.published)


def _keys(tasks: Sequence[Task]) -> list[str]:
    return list(dict.fromkeys(key for task in tasks for key in task.study.keys))


def _matched(tasks: Sequence[Task], in_mean: Sequence[str]) -> list[OverTasks]:
    """Arms of all tasks with equal settings as one, by every key that varies in any of them; the baseline,
    most tasks' own, first.
    """
    keys = _keys(tasks)
    matched: dict[tuple[str, ...], OverTasks] = {}
    baselines: Counter[tuple[str, ...]] = Counter()
    for task in tasks:
        for arm in task.study.arms:
            run = arm.in_order()[0]
            settings = {key: setting(run, key) for key in keys}
            signature = tuple(map(str, settings.values()))
            over = matched.setdefault(signature, OverTasks("", settings, in_mean=in_mean))
            over.by_task[task.name], over.metrics[task.name] = arm, task.metric
            over.failed += arm.failed
            baselines[signature] += arm is task.study.baseline
    commonest = max(matched, key=lambda signature: (baselines[signature], len(matched[signature].by_task)))
    first = matched[commonest]
    for over in matched.values():
        own = {arm.name for arm in over.by_task.values()}
        over.name = (
            own.pop()
            if len(own) == 1 and len(matched) > 1
            else arm_name(over, first, keys)
            if len(matched) > 1
            else "all runs"
        )
        held = [set(over.by_task[task].runs) for task in in_mean if task in over.by_task] or [set()]
        whole = next(iter(over.by_task.values()))
        over.runs = {
            seeds: run
            for seeds, run in whole.runs.items()
            if not over.lacks and all(seeds in one for one in held)
        }
    return [first, *(over for over in matched.values() if over is not first)]


def tasks_rows(
    many: ManyTasks,
    stages: dict[str, RunRecord],
    test: str = stats.SIGN_FLIP,
    effect: float | None = None,
    order: bool = False,
) -> list[TasksRow]:
    """A row an arm; with `order` also the almost stochastic order over the baseline."""
    whole = [arm for arm in many.arms if arm.scores("validation", MEAN)]
    versus = differences(many.study, "validation", test, effect) if many.study.baseline in whole else {}
    ranks = resampling.mean_ranks([arm.nested() for arm in whole]) if len(whole) > 1 else []
    base = many.arms[0]
    rows = []
    for arm in many.arms:
        scores = arm.scores("validation", MEAN)
        compared = arm is not base and arm in whole and base in whole
        pairs = list(zip(arm.lists(), base.lists(), strict=True)) if compared else []
        ahead = sum(sum(mine) / len(mine) > sum(theirs) / len(theirs) for mine, theirs in pairs)
        gaps = _nested_differences(arm, base) if compared else []
        nothing = (math.nan, math.nan, math.nan)
        rows.append(
            TasksRow(
                arm,
                summarize(scores) if scores else None,
                resampling.interval_over_tasks(_nested(arm)) if scores else nothing[:2],
                (
                    (
                        _point(arm),
                        *resampling.interval_over_tasks(
                            _nested(arm), resampling.interquartile_mean, tasks_too=False
                        ),
                    )
                    if scores
                    else nothing
                ),
                float(resampling.median_of_tasks(_as_draw(arm))[0]) if scores else math.nan,
                versus.get(arm.name) if compared else None,
                resampling.interval_over_tasks(gaps) if all(gaps) and gaps else nothing[:2],
                f"{ahead} of {len(pairs)}" if compared else "",
                (resampling.improvement(arm.nested(), base.nested()) if compared else nothing),
                ranks[whole.index(arm)] if arm in whole and ranks else nothing,
                (
                    sum(resampling.violation(mine, theirs) for mine, theirs in pairs) / len(pairs)
                    if compared and order
                    else math.nan
                ),
                _cost(arm, stages),
            )
        )
    return rows


def _nested(arm: OverTasks) -> list[dict[int, list[float]]]:
    """Of each task, the seed of the pretraining -> scores on it; those that the mean is of."""
    return [by_pretraining(scores) for scores in arm.in_common()]


def _nested_differences(arm: OverTasks, base: OverTasks) -> list[dict[int, list[float]]]:
    """The same of differences to the baseline, over runs that are compared with each other."""
    nested = []
    for mine, theirs in zip(arm.in_common(), base.in_common(), strict=True):
        nested.append(
            by_pretraining({own: mine[own] - theirs[other] for own, other in partners(mine, theirs)})
        )
    return nested


def _as_draw(arm: OverTasks) -> np.ndarray:
    """`(1, T, runs)`: its scores as they are."""
    cube = resampling.as_cube(_nested(arm))
    return cube.reshape(1, len(cube), -1)


def _point(arm: OverTasks) -> float:
    return float(resampling.interquartile_mean(_as_draw(arm))[0])


def _cost(arm: OverTasks, stages: dict[str, RunRecord]) -> Cost:
    """Of one seed on all of its tasks; a pretraining is counted once."""
    costs = [cost_of(one, stages) for one in arm.by_task.values()]
    return Cost(
        parameters=max(cost.parameters for cost in costs),
        flops=sum(cost.flops for cost in costs),
        minutes=sum(cost.minutes for cost in costs),
        core_minutes=sum(cost.core_minutes for cost in costs),
        tokens=sum(cost.tokens for cost in costs),
        pretraining_tokens=max(cost.pretraining_tokens for cost in costs),
        pretraining_flops=max(cost.pretraining_flops for cost in costs),
        pretraining_minutes=max(cost.pretraining_minutes for cost in costs),
        pretrained_elsewhere=any(cost.pretrained_elsewhere for cost in costs),
    )
