"""A study's numbers: every arm over its seeds, beside the baseline, with what it cost and what may be said of
it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bertlab.declarations import BITS_PER_CHARACTER, Metric
from bertlab.report import resampling, stats
from bertlab.report.arms import (
    Arm,
    Seeds,
    Study,
    by_pretraining,
    counted,
    differing_keys,
    partners,
    weights_from_elsewhere,
)
from bertlab.report.settings import ABSENT, differing_settings
from bertlab.runs.outcome import learnt_nothing
from bertlab.runs.records import RunRecord

LEVEL = 0.05
BETTER, WORSE = "better", "worse"
OF_ONE = "this pretraining"  # not its recipe
MOST_TOLD = 8  # keys in a sentence
MOST_APART = 1.02  # tokens seen: more than so many times as many are told as another treatment


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
    p = min(1.0, comparisons * stats.tost_from(difference, margin))
    corrected = " after Bonferroni" if comparisons > 1 else ""
    return p <= LEVEL, f"two one-sided t tests, p = {p:.3f}{corrected}"


def warnings_of(study: Study) -> list[str]:
    """What a reader should know before believing the table."""
    warnings = []
    if clashing := code_differences(study):
        warnings.append(
            f"The runs were made by different versions of {', '.join(clashing)}: a difference may be the"
            " code's."
        )
    dirty = [
        run.name
        for arm in study.arms
        for run in arm.in_order()
        if (run.environment.get("git") or {}).get("dirty")
    ]
    if dirty:
        warnings.append(f"{counted(len(dirty), 'run')} had uncommitted changes, e.g. {dirty[0]}.")
    machines = {run.machine for arm in study.arms for run in arm.in_order()}
    if len(machines) > 1:
        warnings.append(
            f"The runs were made on different machines ({', '.join(sorted(machines))}): seconds are not"
            " comparable, and rounding may differ."
        )
    doubles = [run.name for arm in study.arms for run in arm.others]
    if doubles:
        warnings.append(
            f"Left out, where a newer run has the same settings and seeds: {counted(len(doubles), 'run')},"
            f" {', '.join(doubles)}."
        )
    pooled = {key for arm in study.arms for key in differing_settings(arm.in_order())}
    if pooled:
        warnings.append(
            f"Within an arm runs differ in {', '.join(sorted(pooled))}, by which they were not grouped: its"
            " spread is not of seeds alone."
        )
    of = "validation score" if study.is_of_rows else study.metric.name
    for arm in study.arms:
        if blind := [run for run in arm.in_order() if learnt_nothing(run.summary)]:
            every = "every run" if len(blind) == len(arm.runs) else f"{len(blind)} of {len(arm.runs)} runs"
            warnings.append(
                f"In “{arm.name}” {every} learnt nothing that shows beyond chance: what reads nothing scores"
                " as much, or nearly so."
            )
        if arm.passed_over:
            warnings.append(
                f"“{arm.name}” is {arm.chosen}, chosen by the mean {of} over seeds;"
                f" {counted(len(arm.passed_over), 'run')} of other settings passed over, which flatters its"
                f" {of}. The test split had no part in it."
            )
        if arm.failed:
            told = "; ".join(f"{run.name} ({run.problem})" for run in arm.failed[:3])
            warnings.append(
                f"{counted(len(arm.failed), 'run')} of “{arm.name}” without a score, counted nowhere, which"
                f" may flatter it: {told}."
            )
    if len({arm.tried for arm in study.arms}) > 1:
        budgets = ", ".join(f"“{arm.name}”: {counted(arm.tried, 'setting')}" for arm in study.arms)
        warnings.append(
            f"The arms' search budgets are unequal ({budgets}): the best of more settings is flattered more;"
            " give every arm as many."
        )
    if single := [arm for arm in study.arms if arm.stands_on_one]:
        own = any(run.stage is not None for arm in single if arm.pretrainings == 1 for run in arm.in_order())
        warnings.append(
            "All seeds stand on one pretraining in"
            f" {'each of ' * (len(single) > 1)}{', '.join(f'“{arm.name}”' for arm in single)}: what is said"
            " holds for that pretraining, not for its recipe (another would differ by more than these seeds"
            f" show{'; init.seed=range(3) makes several' if own else ''})."
        )
    warnings += confounds(study)
    if other := arithmetic(study):
        warnings.append(
            f"The runs' arithmetic differs in {', '.join(other)}: a difference may come from there."
        )
    offered = {
        metric.name: metric for arm in study.arms for run in arm.in_order() for metric in run.metrics()
    }
    per_character = next(
        (metric.name for metric in offered.values() if metric.unit == BITS_PER_CHARACTER), None
    )
    if study.tokenizers_differ and per_character is not None:
        advice = "" if study.metric.name == per_character else f" Compare them with metric={per_character}."
        about_tokens = ", ".join(metric.name for metric in offered.values() if metric.per_token)
        warnings.append(
            f"Tokenizers differ, and with them what a token is: {about_tokens} are not comparable "
            f"between arms of different tokenizers, bits per character of the masked text are.{advice}"
        )
    if study.folds:
        warnings.append(
            f"Scores are of {study.folds} folds, of which each was validation once; spread and number are"
            " those of folds (means over their seeds). Folds share training rows: intervals and p are those"
            " of the corrected resampled t test (Nadeau & Bengio 2003), which takes the folds' differences"
            " for normal."
        )
        cuts = sorted({seeds.fold[1] for arm in study.arms for seeds in arm.runs})
        for arm in study.arms:
            lacking = [
                f"{fold}{f' of cut {cut}' if cuts[1:] else ''}"
                for cut in cuts
                for fold in range(study.folds)
                if not any(seeds.fold[1:] == (cut, fold) for seeds in arm.runs)
            ]
            if lacking:
                warnings.append(f"“{arm.name}” lacks fold{'s' * (len(lacking) > 1)} {', '.join(lacking)}.")
    counts = {arm.name: len(arm.runs) for arm in study.arms}
    if len(set(counts.values())) > 1:
        warnings.append(
            "Arms have different numbers of seeds"
            f" ({', '.join(f'{name}: {n}' for name, n in counts.items())}); pairs use those in common."
        )
    flatters = choice_of(study).flatters
    if (
        study.is_of_rows
        and flatters
        and not any(
            run.score("test", study.metric.name) is not None for arm in study.arms for run in arm.in_order()
        )
    ):
        warnings.append(
            f"There is no test split: the scores are of the split that {flatters}, which flatters"
            " every arm by a little; compare them with the last step's, below."
        )
    return warnings


def confounds(study: Study) -> list[str]:
    """What the arms differ in beside what they are grouped by: a difference may be its. Keys that only some
    have follow from others.
    """
    named = set(study.keys)
    others = [
        key
        for key in differing_keys(study.arms)
        if key not in named and all(arm.resolved(key) != ABSENT for arm in study.arms)
    ]
    told = [
        f"{key.removesuffix('.component')}"
        f" ({' / '.join(dict.fromkeys(arm.resolved(key) for arm in study.arms))})"
        for key in others
    ]
    sizes = list(dict.fromkeys(arm.parameters for arm in study.arms))
    told = told if len(told) <= MOST_TOLD else [*told[:MOST_TOLD], f"{len(told) - MOST_TOLD} more keys"]
    if len(sizes) > 1 and not any(key.startswith("model.") for key in named):
        told.append(f"parameters ({' / '.join(sizes)})")
    seen = [arm.tokens_seen for arm in study.arms]
    asked = any(key.startswith(("budget.", "dataset.")) for key in named)
    if max(seen) > MOST_APART * min(seen) and not asked:
        told.append(f"tokens seen ({' / '.join(dict.fromkeys(f'{one / 1e6:.3g} M' for one in seen))})")
    return (
        [
            f"Beside what they are grouped by, the arms differ in {', '.join(told)}: a difference may come"
            " from there."
        ]
        if told
        else []
    )


def arithmetic(study: Study) -> list[str]:
    """In what of their arithmetic the runs differ, arm by arm: device, precision, micro-batch and the like,
    as each run's identity has it.
    """
    of_arms = [[run.identity.get("numerics", {}) for run in arm.in_order()] for arm in study.arms]
    names = dict.fromkeys(name for arm in of_arms for numerics in arm for name in numerics)
    told = []
    for name in names:
        by_arm = [dict.fromkeys(shown(numerics.get(name)) for numerics in arm) for arm in of_arms]
        values = dict.fromkeys(", ".join(own) for own in by_arm)
        if len({value for own in by_arm for value in own}) > 1:
            told.append(f"{name.replace('_', ' ')} ({' / '.join(values)})")
    return told


def shown(value: object) -> str:
    """A setting's value; – where there is none."""
    return ABSENT if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# --- what chose -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Choice:
    """What a study's checkpoints were chosen by, in words."""

    of_scores: str  # "validation, which also …"
    with_weights: str  # with which the test split was scored
    flatters: str  # what the reported split chose; empty where it chose nothing


def choice_of(study: Study) -> Choice:
    """As the runs' own configs say: the best checkpoint or the last, by validation or by a half of it whose
    score is not reported. Patience ends training by that split, too.
    """
    runs = [run for arm in study.arms for run in arm.in_order()]
    halves = [run for run in runs if run.selects_by == "selection"]
    best = [run for run in runs if run.config.get("evaluation.keep", "best") == "best"]
    ended = [run for run in runs if run.config.get("evaluation.patience") is not None]
    by_itself = [run for run in runs if run not in halves]
    half = "the half of validation that chose nothing"
    last = "the last step's weights are scored"
    if len(best) not in (0, len(runs)) or len(halves) not in (0, len(runs)):
        flattered = [run for run in by_itself if run in best or run in ended]
        of_some = f"of {len(flattered)} of {len(runs)} runs"
        return Choice(
            f"validation, which also chose the checkpoint or the end {of_some}" if flattered else half,
            "each run's weights",
            f"chose the checkpoint or the end {of_some}" if flattered else "",
        )
    if best and halves:
        return Choice(f"{half}; the other half chose each run's checkpoint",
                      "the checkpoint that the other half of validation chose", "")  # fmt: skip
    if best:
        return Choice("validation, which also chose each run's checkpoint",
                      "the checkpoint that validation chose", "chose the checkpoint")  # fmt: skip
    if halves:
        return Choice(f"{half}: {last}", "the last step's weights", "")
    if ended:
        return Choice(f"validation, which also chose when each run's training ended: {last}",
                      "the last step's weights", "chose when training ended")  # fmt: skip
    return Choice(f"validation, which chose nothing: {last}", "the last step's weights", "")


def code_differences(study: Study) -> list[str]:
    """Modules of which the study's runs used more than one version; a component that only some arms use is
    none.
    """
    versions: dict[str, set[str]] = {}
    for arm in study.arms:
        for run in arm.in_order():
            for module, version in run.code.items():
                versions.setdefault(module, set()).add(version)
    return sorted(module for module, in_use in versions.items() if len(in_use) > 1)


def last_scores(arm: Arm, metric: Metric) -> stats.Summary | None:
    """The last step's validation scores: what no selection has flattered."""
    scores = {
        seeds: run.summary.get("last", {}).get(run.recorded_as(run.selects_by, metric.name))
        for seeds, run in arm.runs.items()
    }
    known = {seeds: float(value) for seeds, value in scores.items() if isinstance(value, int | float)}
    return summarize(known) if known else None
