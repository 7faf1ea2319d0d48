"""The runs that a study's plan comes to, and what they can show."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from bertlab.config.composition import compose_schema
from bertlab.config.explain import explain, is_explained
from bertlab.config.schema import Paths, Train
from bertlab.config.studies import StudyPlan
from bertlab.declarations import Metric
from bertlab.errors import ConfigError, UserError
from bertlab.report import stats
from bertlab.report.arms import counted
from bertlab.report.comparison import LEVEL
from bertlab.report.power import Design, Spread, equivalence_line, pilot_spread, power_lines
from bertlab.runs.records import RunRecord
from bertlab.training.location import Located, locate


@dataclass
class Planned:
    """One run of the plan."""

    arm: str
    outer: int
    inner: int
    words: list[str]
    config: Train
    run: Located
    kept: RunRecord | None = None  # as an earlier report of this study kept it

    @property
    def key(self) -> str:
        """As the frozen plan calls it."""
        return f"{self.arm} {self.outer} {self.inner}"

    @property
    def state(self) -> str:
        """Of its folder, or kept."""
        if self.kept is not None:
            return "kept"
        return str((self.run.folder.summary() or {"status": "new"})["status"])

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.arm}, seed {self.inner}" + (f" on pretraining {self.outer}" if self.outer else "")


def planned(plan: StudyPlan, paths: Paths) -> Iterator[Planned]:
    """Every run, seed by seed, so that the arms grow together; an arm without a pretraining of its own has
    its seeds once. Raises ConfigError naming the arm whose words do not compose.
    """
    pretrained = list(plan.arms) if plan.pretraining_seeds == 1 else with_pretraining(plan, paths)
    for outer in range(plan.pretraining_seeds):
        for inner in range(plan.seeds):
            for arm, own in plan.arms.items():
                if outer and arm not in pretrained:
                    continue
                nested = plan.pretraining_seeds > 1 and arm in pretrained
                words = [*plan.words, *own, *([f"init.seed={outer}"] if nested else []), f"seed={inner}"]
                yield composed(arm, outer, inner, words, paths)


def composed(arm: str, outer: int, inner: int, words: list[str], paths: Paths) -> Planned:
    """One run of the plan. Raises ConfigError naming the arm."""
    try:
        config: Train = compose_schema("train", words)
        config = dataclasses.replace(config, paths=paths)
        return Planned(arm, outer, inner, words, config, locate(config))
    except UserError as error:
        raise ConfigError(f"arms.{arm}: {error}") from error
    except Exception as error:
        if not is_explained(error):
            raise
        raise ConfigError(f"arms.{arm}: {explain(error, 'train')}") from error


def with_pretraining(plan: StudyPlan, paths: Paths) -> list[str]:
    """The arms that begin with a pretraining of their own. Raises ConfigError where none does, and where the
    others could not stand beside every pretraining.
    """
    words = {arm: [*plan.words, *own, "seed=0"] for arm, own in plan.arms.items()}
    own = [arm for arm in plan.arms if composed(arm, 0, 0, words[arm], paths).run.stage is not None]
    asked = f"pretraining_seeds: {plan.pretraining_seeds}"
    if not own:
        raise ConfigError(f"{asked}: no arm has a pretraining of its own (init=stage); use seeds alone")
    if bare := [arm for arm in plan.arms if arm not in own]:
        if plan.is_sequential:
            raise ConfigError(
                f"{asked}: arms.{bare[0]} has no pretraining of its own, and beside which of the others its"
                f" seeds stand changes with their number; test={plan.test} cannot stop by that: take test=t"
            )
        if plan.seeds < plan.pretraining_seeds:
            raise ConfigError(
                f"{asked}: arms.{bare[0]} has no pretraining of its own, so that its {plan.seeds} seeds stand"
                f" beside as many pretrainings and no more: seeds: {plan.pretraining_seeds} or more"
            )
    return own


def check_power(plan: StudyPlan, config: Train) -> list[str]:
    """What these seeds can show. Raises ConfigError where the chosen test could show nothing, whatever the
    runs score.
    """
    metric = metric_of(plan, config)
    design = Design(len(plan.arms), plan.pretraining_seeds, plan.seeds)
    level = LEVEL / (len(plan.arms) - 1)
    least = stats.smallest_n(level, plan.test)
    if design.units < least and not plan.equivalence:
        key = "pretraining_seeds" if plan.pretraining_seeds > 1 else "seeds"
        raise ConfigError(
            f"{key}: {design.units}: with {counted(len(plan.arms) - 1, 'comparison')} the {plan.test} test"
            f" can show nothing below {least}, whatever the runs score: {key}: {least}, or test: t (which"
            " takes differences for normal)"
        )
    spread: Spread | None = None
    if plan.pilot:
        spread = pilot_spread(plan.pilot, config.dataset.name, config.objective.name)
    elif plan.spread is not None:
        said = plan.spread / metric.factor  # of what the test counts
        spread = Spread(math.nan, math.nan, metric, "as the study file says", said, is_pilots=False)
    if not plan.equivalence:
        return list(power_lines(design, plan.effect, spread, (plan.test,)))
    head, *_ = power_lines(design, plan.effect, None, (plan.test,))
    if spread is None:
        return [head, "  pilot or spread would tell how often equal arms are shown to be so"]
    power, line = equivalence_line(design, plan.effect, spread)
    if power < LEVEL:
        raise ConfigError(f"equivalence: {line} (the spread is {spread.source})")
    return [head, f"  spread of a difference {metric.show(spread.of_unit(design))}", f"  {line}"]


def metric_of(plan: StudyPlan, config: Train) -> Metric:
    """The score that answers. Raises ConfigError for one that the objective does not have."""
    objective = config.objective.for_task(config.dataset)
    try:
        return (
            objective if plan.metric is None else dataclasses.replace(objective, primary=plan.metric)
        ).primary_metric()
    except ConfigError as error:
        raise ConfigError(str(error).replace("objective.primary=", "metric=", 1)) from None
