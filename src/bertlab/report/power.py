"""How many seeds a comparison needs, told before hours are spent: by the spread of earlier runs, for each
test that a report can make.

Sources: Card et al. 2020, "With Little Power Comes Great Responsibility"; Sellam et al. 2022, "The
MultiBERTs" (two levels of seeds).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bertlab.declarations import Metric
from bertlab.errors import RunError
from bertlab.report import stats
from bertlab.report.arms import Study, by_pretraining, counted
from bertlab.report.comparison import LEVEL, paired_by_pretraining
from bertlab.report.grouping import studies_of
from bertlab.runs.records import find_runs

POWER = 0.8
# in a table's margin
SHORT = {
    stats.SIGN_FLIP: "sign-flip",
    stats.T_TEST: "paired t",
    stats.ANYTIME: "anytime-valid t",
    stats.ANYTIME_LARGE: "anytime, large",
}


@dataclass(frozen=True)
class Spread:
    """Standard deviations of a difference between two arms, as fractions or in the metric's own unit."""

    inner: float  # between seeds of one pretraining; NaN where the pilot cannot tell it from `outer`
    outer: float  # between pretrainings; NaN where the pilot has one, or cannot tell it from `inner`
    metric: Metric
    source: str  # whose differences these were
    # both levels in one, of runs that each have a pretraining of their own; NaN where they are told apart
    whole: float = math.nan
    is_pilots: bool = True  # or what somebody says that it is

    def of_unit(self, design: "Design") -> float:
        """Of what a test counts as one observation: a pretraining's mean over its seeds where there are
        several, a fold, else a seed. Where the levels are one, no number of seeds makes that smaller; of
        folds it is as much larger as the training rows that they share hide (`resampling.inflated`).
        """
        if math.isnan(self.inner):
            of_seed = of_pretraining = self.whole
        else:
            of_seed = self.inner
            of_pretraining = math.hypot(
                0.0 if math.isnan(self.outer) else self.outer, self.inner / math.sqrt(design.seeds)
            )
        if design.folds:
            return of_seed * math.sqrt(1 + design.folds * design.share_tested)
        return of_pretraining if design.pretrainings > 1 else of_seed


@dataclass(frozen=True)
class Design:
    """What a command would compare."""

    arms: int
    pretrainings: int  # seeds of the pretraining; 1 where there is one or none
    seeds: int  # of each pretraining
    folds: int = 0  # over all cuts; 0 where validation is a split of its own
    share_tested: float = 0.0  # of folds, scored rows a row of training

    @property
    def units(self) -> int:
        """Observations of each arm."""
        return self.folds or (self.pretrainings if self.pretrainings > 1 else self.seeds)

    @property
    def unit(self) -> str:
        """What one of them is."""
        return "fold" if self.folds else "pretraining" if self.pretrainings > 1 else "seed"


def pilot_spread(paths: Sequence[str], dataset: str, objective: str) -> Spread:
    """The spread of differences among the runs at these places, pooled over arms. Raises RunError where they
    have none.

    Of one arm alone, that of its scores times √2, which a difference of unpaired runs would have.
    """
    told = ",".join(paths)
    try:
        runs = find_runs(paths)
    except RunError as error:
        raise RunError(str(error).replace("runs=", "pilot=", 1)) from None
    studies = [one for one in studies_of(runs) if any(len(arm.runs) > 1 for arm in one.arms)]
    if not studies:
        raise RunError(
            f"pilot={told}: no setting there has two seeds, so that nothing tells how far seeds differ"
        )
    fitting = [one for one in studies if (one.dataset, one.objective) == (dataset, objective)] or studies
    if len(fitting) > 1:
        raise RunError(
            f"pilot={told}: holds {', '.join(one.title for one in fitting)}; name a folder with one of them"
        )
    return _spread(fitting[0], told)


def _spread(study: Study, told: str) -> Spread:
    base = study.baseline.scores("validation", study.metric)
    others = [arm for arm in study.arms if arm is not study.baseline]
    differences = [paired_by_pretraining(arm.scores("validation", study.metric), base) for arm in others]
    what = f"{study.title}, {told}: differences of {counted(len(others), 'arm')} to “{study.baseline.name}”"
    spread = _of_levels(differences, 1.0, study.metric, what)
    if math.isnan(spread.inner) and math.isnan(spread.whole):
        scores = [by_pretraining(arm.scores("validation", study.metric)) for arm in study.arms]
        what = f"{study.title}, {told}: √2 times that of its scores"
        spread = _of_levels(scores, math.sqrt(2), study.metric, what)
    return spread


def _of_levels(
    arms: Sequence[Mapping[int, Sequence[float]]], factor: float, metric: Metric, source: str
) -> Spread:
    """Pooled over arms (pretraining -> values); as a whole where no pretraining has a second seed."""
    levels = [stats.spread_of_levels(values) for values in arms]
    outer, inner = (_pooled([one[place] for one in levels]) for place in (0, 1))
    whole = math.nan
    if math.isnan(inner):
        alone = [[value for group in values.values() for value in group] for values in arms]
        whole = _pooled([stats.summarize(values).sd for values in alone if values])
    return Spread(factor * inner, factor * outer, metric, source, factor * whole)


def _pooled(spreads: Sequence[float]) -> float:
    known = [one**2 for one in spreads if math.isfinite(one)]
    return math.sqrt(sum(known) / len(known)) if known else math.nan


def power_lines(
    design: Design, effect: float | None, spread: Spread | None, tests: Sequence[str] = tuple(stats.TESTS)
) -> Iterator[str]:
    """What this design can show and what it would need, in words; `effect` in the metric's shown unit."""
    comparisons = design.arms - 1
    if comparisons < 1:
        yield "power: one arm alone compares nothing; name arms, e.g. -m 'optimizer.lr=1e-3,5e-4'"
        return
    level = LEVEL / comparisons
    yield (
        f"power: {counted(design.arms, 'arm')}, {counted(comparisons, 'comparison')} with a baseline,"
        f" {counted(design.units, design.unit)} each"
        + (f" of {counted(design.seeds, 'seed')}" if design.unit == "pretraining" else "")
        + f"; Holm's first test is at {100 * level:.3g} %"
    )
    if spread is not None:
        shown = spread.metric.show(spread.of_unit(design))
        yield f"  spread of a difference {shown} {_unit(spread.metric)}({spread.source})"
        if (caveat := _caveat(design, spread)) is not None:
            yield f"  {caveat}"
    elif effect is not None:
        yield (
            "  pilot=RUNS (a folder of earlier runs, or a record's report) gives the spread that seeds needed"
            " are reckoned by"
        )
    for test in [stats.T_TEST] if design.folds else tests:
        name = "corrected t" if design.folds else SHORT[test]
        yield f"  {name:<15}  {_told(test, design, level, effect, spread)}"


def equivalence_line(design: Design, effect: float, spread: Spread) -> tuple[float, str]:
    """How often this design would show arms equivalent that are, and what it takes to do so four times out of
    five.
    """
    level, margin = LEVEL / (design.arms - 1), effect / spread.metric.factor
    sd = spread.of_unit(design)
    shown = stats.equivalence_power(sd, design.units, margin, level)
    needed = stats.seeds_for_equivalence(sd, margin, level, POWER)
    takes = f"{needed:,}" if needed else "over 10,000"
    return shown, (
        f"equal arms are shown to be within ±{spread.metric.show(margin)} {100 * shown:.0f} times out of 100;"
        f" four times out of five takes {takes} {design.unit}s"
    )


def _caveat(design: Design, spread: Spread) -> str | None:
    """What the pilot cannot tell of the two levels."""
    if not spread.is_pilots:
        return None
    if math.isnan(spread.inner):
        more = (
            "taken for the pretrainings', which more seeds of each do not lessen"
            if design.unit == "pretraining"
            else "seeds of one pretraining differ by less"
        )
        return (
            "the pilot has one seed a pretraining: its spread is of pretrainings and seeds together, and"
            f" {more}"
        )
    if design.unit == "pretraining" and math.isnan(spread.outer):
        return (
            "the pilot has one pretraining an arm: how far pretrainings differ is not in that spread, and"
            " more will be needed"
        )
    return None


def _told(test: str, design: Design, level: float, effect: float | None, spread: Spread | None) -> str:
    least = stats.smallest_n(level, test)
    sd = math.sqrt(1 + design.folds * design.share_tested) if spread is None else spread.of_unit(design)
    smallest = stats.detectable(sd, design.units, level, POWER, test)
    if design.units < least:
        parts = [f"can show nothing with {counted(design.units, design.unit)}: it needs {least}"]
    elif spread is None:
        parts = [f"finds a difference of {smallest:.2g} times its spread four times out of five"]
    else:
        parts = [f"finds {spread.metric.show(smallest)} four times out of five"]
    if effect is not None and spread is not None:
        is_enough = smallest <= effect / spread.metric.factor
        needed = "" if is_enough else _needed(test, design, level, effect, spread)
        parts.append(f"enough for {effect:g}" if is_enough else f"{effect:g} {needed}")
    return "; ".join(parts)


def _needed(test: str, design: Design, level: float, effect: float, spread: Spread) -> str:
    """How many units this effect takes, and what to write for so many."""
    if design.folds:
        return "takes more rows, or an arm that differs by more: folds share theirs, and more cuts add little"
    needed = stats.seeds_for(effect / spread.metric.factor, spread.of_unit(design), level, POWER, test)
    if needed is None:
        return f"takes over 10,000 {design.unit}s"
    key = "init.seed" if design.unit == "pretraining" else "seed"
    return f"takes {needed} {design.unit}s ('{key}=range({needed})')"


def _unit(metric: Metric) -> str:
    return "points " if metric.factor == 100 else f"{metric.unit} " if metric.unit else ""
