"""A study's numbers: every arm over its seeds, beside the baseline, with what it cost and what may be said of
it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bertlab.declarations import Metric
from bertlab.report import resampling, stats
from bertlab.report.arms import Arm, Seeds, Study, by_pretraining, partners, weights_from_elsewhere
from bertlab.runs.records import RunRecord

LEVEL = 0.05
BETTER, WORSE = "better", "worse"
OF_ONE = "this pretraining"  # not its recipe


@dataclass(frozen=True)
class Cost:
    """What an arm's runs cost on average; the pretraining is counted once a run, as who wants the result must
    pay it.
    """

    parameters: int
    flops: float
    minutes: float
    core_minutes: float
    tokens: float
    pretraining_tokens: float
    pretraining_flops: float
    pretraining_minutes: float
    pretrained_elsewhere: bool  # weights from others, whose cost is not on record


@dataclass(frozen=True)
class Versus:
    """An arm's difference to the baseline on one split, and what may be said of it."""

    difference: stats.Paired  # with its interval at `level`
    comparisons: int  # of the table, whose intervals, and claims of equivalence, hold together
    p: float  # corrected after Holm over the tests that can show anything; NaN where this one cannot
    found: str  # BETTER or WORSE; empty where the test shows neither
    verdict: str
    test: str
    is_of_one_pretraining: bool  # behind all seeds of one of the two arms
    # standard deviation of the difference between pretrainings, where there are several
    outer: float = math.nan
    inner: float = math.nan

    @property
    def level(self) -> float:
        """Of its interval: Bonferroni's, so that all of the table hold together at 95 %."""
        return level_of(self.comparisons)

    def equivalence(self, margin: float) -> tuple[bool, str]:
        """Whether the difference is shown to lie within ±margin, and by what."""
        shown, how = equivalence(self.difference, margin, self.comparisons, self.test)
        return shown, f"{OF_ONE}; {how}" if self.is_of_one_pretraining else how


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    arm: Arm
    validation: stats.Summary | None
    test: stats.Summary | None
    on_validation: Versus | None  # None for the baseline
    on_test: Versus | None  # None also where there is no test score
    cost: Cost

    @property
    def is_baseline(self) -> bool:
        """Whether the others are compared with it."""
        return self.on_validation is None


def compare(
    study: Study, stages: dict[str, RunRecord], test: str = stats.SIGN_FLIP, effect: float | None = None
) -> list[Row]:
    """The study's rows in its arms' order: differences on validation, the split that selects, and on test,
    which selects nothing.
    """
    on_validation, on_test = (differences(study, split, test, effect) for split in ("validation", "test"))
    return [
        Row(
            arm, _summary(study, arm, "validation"), _summary(study, arm, "test"),
            on_validation.get(arm.name), on_test.get(arm.name),
            cost_of(arm, stages),
        )
        for arm in study.arms
    ]  # fmt: skip


def differences(study: Study, split: str, test: str, effect: float | None = None) -> dict[str, Versus]:
    """Each arm beside the baseline. The unit is the pretraining where an arm has several, else the seed; of
    folds the fold, tested by the corrected resampled t test. Verdicts go by Holm's procedure; intervals hold
    together, each at Bonferroni's level (Holm's levels make none that do).
    """
    base = study.baseline.scores(split, study.metric)
    every = {arm.name: arm.scores(split, study.metric) for arm in study.arms if arm is not study.baseline}
    by_outer = {name: paired_by_pretraining(own, base) for name, own in every.items() if own}
    units = {name: _units(pairs) for name, pairs in by_outer.items()}
    if study.folds:
        units = {name: _units_of_folds(every[name], base, study.share_tested) for name in by_outer}
        test = stats.T_TEST
    able = dict(
        zip(units, stats.family([len(values) for values in units.values()], LEVEL, test), strict=True)
    )
    # of seeds that come one after the other the family is all arms from the first one on: it must not grow
    family = [name for name in units if able[name] or stats.TESTS[test].is_sequential]
    testable = sum(len(values) > 1 for values in units.values())  # would be, with seeds enough
    comparisons = max(1, len(units) if stats.TESTS[test].is_sequential else testable)
    pairs = {name: stats.paired(values, level_of(comparisons), test) for name, values in units.items()}
    corrected = dict(zip(family, stats.holm([pairs[name].p for name in family]), strict=True))
    versus = {}
    for name, difference in pairs.items():
        p = corrected[name] if able[name] else math.nan
        one = Versus(
            difference, comparisons, p, found(difference, p, study.metric), "", test,
            _is_of_one_pretraining(study, name, by_outer[name]),
        )  # fmt: skip
        # at Holm's first step, or where it could show nothing beside all that could with seeds enough
        level = level_of(len(family) if able[name] else comparisons)
        words = verdict(one, level, study.metric)
        if effect is not None and p > LEVEL:
            words += "; " + interest(one, effect / study.metric.factor, level, study.metric)
        outer, inner = stats.spread_of_levels(by_outer[name])
        several = len(by_outer[name]) > 1
        versus[name] = replace(one, verdict=words, outer=outer if several else math.nan, inner=inner)
    return versus


def level_of(comparisons: int) -> float:
    """Of each of so many intervals that hold together at 95 % (Bonferroni)."""
    return 1 - LEVEL / comparisons


def paired_by_pretraining(own: dict[Seeds, float], base: dict[Seeds, float]) -> dict[int, list[float]]:
    """Differences, by the seed of the pretraining that they stand on."""
    several = [len({seeds.outer for seeds in one}) > 1 for one in (own, base)]
    pairs: dict[int, list[float]] = {}
    if several[0] == several[1]:
        for mine, theirs in partners(own, base):
            pairs.setdefault(mine.outer, []).append(own[mine] - base[theirs])
        return pairs
    many, few, sign = (own, base, 1) if several[0] else (base, own, -1)
    beside: dict[int, list[float]] = {}
    for mine, theirs in partners(many, few):
        beside.setdefault(mine.outer, []).append(few[theirs])
    # all of a pretraining's seeds against the mean of the runs that stand beside it
    for outer, scores in beside.items():
        mean = sum(scores) / len(scores)
        pairs[outer] = [
            sign * (score - mean) for seeds, score in sorted(many.items()) if seeds.outer == outer
        ]
    return pairs


def _units(pairs: dict[int, list[float]]) -> list[float]:
    """Differences that are independent of each other: means over a pretraining's seeds where there are
    several pretrainings.
    """
    if len(pairs) > 1:
        return [sum(values) / len(values) for _, values in sorted(pairs.items())]
    return next(iter(pairs.values()), [])


def _units_of_folds(own: dict[Seeds, float], base: dict[Seeds, float], share: float) -> list[float]:
    """Means over each fold's runs, set apart by as much as folds that share training rows hide."""
    gaps: dict[tuple[int, ...], list[float]] = {}
    for mine, theirs in partners(own, base):
        gaps.setdefault(mine.fold, []).append(own[mine] - base[theirs])
    return resampling.inflated([sum(values) / len(values) for _, values in sorted(gaps.items())], share)


def _is_of_one_pretraining(study: Study, name: str, pairs: dict[int, list[float]]) -> bool:
    """Whether one pretraining is behind all seeds of one of the two arms; where the units are seeds also the
    only one of several that has a pair.
    """
    arm = next(arm for arm in study.arms if arm.name == name)
    return any(
        one.stands_on_one or (len(pairs) < 2 and len({seeds.outer for seeds in one.runs}) > 1)
        for one in (arm, study.baseline)
    )


def summarize(scores: Mapping[Seeds, float]) -> stats.Summary:
    """Mean, spread and 95 % t interval of one arm, over its seeds; where it has several pretrainings, over
    the means of each one's seeds, as its difference is (Sellam et al. 2022): seeds of one pretraining are no
    independent evidence of its recipe. `n` counts scores. Raises ValueError for no scores.
    """
    return replace(stats.summarize(_units(by_pretraining(scores))), n=len(scores))


def _summary(study: Study, arm: Arm, split: str) -> stats.Summary | None:
    """Over seeds or pretrainings; of folds over their means, with an interval that knows that they share
    training rows.
    """
    scores = arm.scores(split, study.metric)
    if not study.folds or not scores:
        return summarize(scores) if scores else None
    by_fold: dict[tuple[int, ...], list[float]] = {}
    for seeds, score in scores.items():
        by_fold.setdefault(seeds.fold, []).append(score)
    means = [sum(values) / len(values) for values in by_fold.values()]
    wide = stats.summarize(resampling.inflated(means, study.share_tested))
    return replace(stats.summarize(means), low=wide.low, high=wide.high)


def cost_of(arm: Arm, stages: dict[str, RunRecord]) -> Cost:
    """Means over the arm's runs."""
    runs = list(arm.in_order())
    costs = [run.summary.get("cost", {}) for run in runs]
    before = [(run.summary.get("stage") or {}).get("cost", {}) for run in runs]

    def mean(rows: Sequence[dict[str, Any]], key: str) -> float:
        return sum(float(row.get(key, 0.0)) for row in rows) / len(rows)

    return Cost(
        parameters=round(mean(costs, "parameters")),
        flops=mean(costs, "flops"),
        minutes=mean(costs, "seconds") / 60,
        core_minutes=mean(costs, "core_seconds") / 60,
        tokens=mean(costs, "tokens"),
        pretraining_tokens=mean(before, "tokens"),
        pretraining_flops=mean(before, "flops"),
        pretraining_minutes=mean(before, "seconds") / 60,
        pretrained_elsewhere=any(_elsewhere(run, stages) for run in runs),
    )


def _elsewhere(run: RunRecord, stages: dict[str, RunRecord]) -> bool:
    stage = stages.get(run.stage or "")
    return any(weights_from_elsewhere(one) for one in (run, stage) if one is not None)


def found(difference: stats.Paired, p: float, metric: Metric) -> str:
    """BETTER or WORSE by the metric's own direction where the corrected p says so of several seeds; else
    nothing.
    """
    if difference.n < 2 or not p <= LEVEL:
        return ""
    return BETTER if (difference.mean > 0) == metric.higher_is_better else WORSE


def verdict(versus: Versus, level: float, metric: Metric) -> str:
    """In words: better, worse, undecided because these seeds could show nothing, or no difference found and
    how small one could hide from a test at this level.
    """
    difference, test = versus.difference, versus.test
    if difference.n == 0:
        return "no seed in common with the baseline: not compared"
    if difference.n == 1:
        return "one seed: no statement"
    if math.isnan(difference.mean):
        return "a score is no number: not compared"
    if math.isnan(versus.p):
        return (
            f"undecided: this test needs {stats.smallest_n(1 - level, test)} seeds or more, it had"
            f" {difference.n}"
        )
    if versus.found:
        words = f"{versus.found} ({OF_ONE})" if versus.is_of_one_pretraining else versus.found
        return words + (_includes_0(versus) if difference.low <= 0 <= difference.high else "")
    if stats.TESTS[test].is_sequential:
        return f"not decided after {difference.n} seeds: more may be added, whatever these look like"
    smallest = stats.detectable(difference.sd, difference.n, 1 - level, test=test)
    though = ", though the t interval excludes 0" if difference.low > 0 or difference.high < 0 else ""
    of_one = f"{OF_ONE}; " if versus.is_of_one_pretraining else ""
    return (
        f"no difference found{though} ({of_one}one of {metric.show(smallest)} would have been, four times out"
        " of five)"
    )


def _includes_0(versus: Versus) -> str:
    """Why an interval includes 0 beside a test that excludes it."""
    if versus.difference.p > 1 - versus.level:  # a later step of Holm's
        return f", though its interval, one of {versus.comparisons} that hold together, includes 0"
    if stats.TESTS[versus.test].is_sequential:
        return ", though the interval after the last seed includes 0"
    return ", though the t interval includes 0"


def interest(versus: Versus, effect: float, level: float, metric: Metric) -> str:
    """Of a difference that was not found, in words: whether it is smaller than the effect of interest, or
    what would tell at this level.
    """
    shown, how = versus.equivalence(effect)
    if shown:
        return f"equivalent within ±{metric.show(effect)} ({how})"
    needed = stats.seeds_for(effect, versus.difference.sd, 1 - level, test=versus.test)
    return f"not shown to be within ±{metric.show(effect)}; to find one so large takes " + (
        f"about {needed} seeds" if needed else "over 10,000 seeds"
    )


def equivalence(difference: stats.Paired, margin: float, comparisons: int, test: str) -> tuple[bool, str]:
    """Whether the difference is shown to lie within ±margin, one of so many such claims, and by what.

    By two one-sided t tests, corrected after Bonferroni. These hold for a number of seeds that was fixed: of
    a sequential test its confidence sequence must lie within, which holds whenever one looks.
    """
    if stats.TESTS[test].is_sequential:
        within = -margin < difference.low and difference.high < margin
        return within, f"its always-valid interval {'lies' if within else 'does not lie'} within"
    p = min(1.0, comparisons * stats.tost_p(difference, margin))
    corrected = " after Bonferroni" if comparisons > 1 else ""
    return p <= LEVEL, f"two one-sided t tests, p = {p:.3f}{corrected}"


def last_scores(arm: Arm, metric: Metric) -> stats.Summary | None:
    """The last step's validation scores: what no selection has flattered."""
    scores = {
        seeds: run.summary.get("last", {}).get(run.recorded_as(run.selects_by, metric.name))
        for seeds, run in arm.runs.items()
    }
    known = {seeds: float(value) for seeds, value in scores.items() if isinstance(value, int | float)}
    return summarize(known) if known else None
