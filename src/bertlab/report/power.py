"""How many seeds a comparison needs, told before hours are spent: by the spread of earlier runs, for each
test that a report can make.

Sources: Card et al. 2020, "With Little Power Comes Great Responsibility"; Sellam et al. 2022, "The
MultiBERTs" (two levels of seeds).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bertlab.declarations import Metric
from bertlab.errors import RunError
from bertlab.report import stats
from bertlab.report.arms import Study, counted, studies_of
from bertlab.report.comparison import LEVEL, paired_by_pretraining
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

    inner: float  # between seeds of one pretraining
    outer: float  # between pretrainings; NaN where the pilot has one
    metric: Metric
    source: str  # whose differences these were

    def of_unit(self, pretrainings: int, seeds: int) -> float:
        """Of what a test counts as one observation: a pretraining's mean over its seeds where there are
        several, else a seed.
        """
        return (
            self.inner
            if pretrainings < 2
            else math.hypot(0.0 if math.isnan(self.outer) else self.outer, self.inner / math.sqrt(seeds))
        )


@dataclass(frozen=True)
class Design:
    """What a command would compare."""

    arms: int
    pretrainings: int  # seeds of the pretraining; 1 where there is one or none
    seeds: int  # of each pretraining

    @property
    def units(self) -> int:
        """Observations of each arm."""
        return self.pretrainings if self.pretrainings > 1 else self.seeds


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
    spreads = [
        stats.spread_of_levels(paired_by_pretraining(arm.scores("validation", study.metric), base))
        for arm in others
    ]
    inner, outer = ([one[place] for one in spreads if math.isfinite(one[place])] for place in (1, 0))
    what = f"{study.title}, {told}: differences of {counted(len(others), 'arm')} to “{study.baseline.name}”"
    if not inner and not outer:
        scores = [list(arm.scores("validation", study.metric).values()) for arm in study.arms]
        inner = [math.sqrt(2) * stats.summarize(values).sd for values in scores if len(values) > 1]
        what = f"{study.title}, {told}: √2 times that of its scores"
    return Spread(_pooled(inner), _pooled(outer), study.metric, what)


def _pooled(spreads: Sequence[float]) -> float:
    return math.sqrt(sum(one**2 for one in spreads) / len(spreads)) if spreads else math.nan


def power_lines(
    design: Design, effect: float | None, spread: Spread | None, tests: Sequence[str] = tuple(stats.TESTS)
) -> Iterator[str]:
    """What this design can show and what it would need, in words; `effect` in the metric's shown unit."""
    comparisons = design.arms - 1
    if comparisons < 1:
        yield "power: one arm alone compares nothing; name arms, e.g. -m 'optimizer.lr=1e-3,5e-4'"
        return
    level = LEVEL / comparisons
    unit = "pretraining" if design.pretrainings > 1 else "seed"
    yield (
        f"power: {counted(design.arms, 'arm')}, {counted(comparisons, 'comparison')} with a baseline,"
        f" {counted(design.units, unit)} each"
        + (f" of {counted(design.seeds, 'seed')}" if design.pretrainings > 1 else "")
        + f"; Holm's first test is at {100 * level:.3g} %"
    )
    sd = None if spread is None else spread.of_unit(design.pretrainings, design.seeds)
    if spread is not None and sd is not None:
        yield f"  spread of a difference {spread.metric.show(sd)} {_unit(spread.metric)}({spread.source})"
        if design.pretrainings > 1 and math.isnan(spread.outer):
            yield (
                "  the pilot has one pretraining an arm: how far pretrainings differ is not in that spread,"
                " and more will be needed"
            )
    elif effect is not None:
        yield (
            "  pilot=RUNS (a folder of earlier runs, or a record's report) gives the spread that seeds needed"
            " are reckoned by"
        )
    for test in tests:
        yield f"  {SHORT[test]:<15}  {_told(test, design, level, effect, spread, sd, unit)}"


def _told(
    test: str,
    design: Design,
    level: float,
    effect: float | None,
    spread: Spread | None,
    sd: float | None,
    unit: str,
) -> str:
    least = stats.smallest_n(level, test)
    able = design.units >= least
    parts = []
    if not able:
        parts.append(f"can show nothing with {counted(design.units, unit)}: it needs {least}")
    elif spread is None or sd is None:
        smallest = stats.detectable(1.0, design.units, level, POWER, test)
        parts.append(f"finds a difference of {smallest:.2g} times its spread four times out of five")
    else:
        smallest = stats.detectable(sd, design.units, level, POWER, test)
        parts.append(f"finds {spread.metric.show(smallest)} four times out of five")
    if effect is not None and spread is not None and sd is not None:
        needed = stats.seeds_for(effect / spread.metric.factor, sd, level, POWER, test)
        enough = needed is not None and needed <= design.units
        parts.append(
            f"enough for {effect:g}"
            if enough
            else f"{effect:g} takes {'over 10,000' if needed is None else needed} {unit}s"
            + ("" if needed is None else f" ({_word(design, needed)})")
        )
    return "; ".join(parts)


def _word(design: Design, needed: int) -> str:
    """What to write for so many."""
    return f"'init.seed=range({needed})'" if design.pretrainings > 1 else f"'seed=range({needed})'"


def _unit(metric: Metric) -> str:
    return "points " if metric.factor == 100 else f"{metric.unit} " if metric.unit else ""
