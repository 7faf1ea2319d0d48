"""What a job is told of how it was asked for, and what it tells: scores, and the few lines a person reads at
the end.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bertlab.config.schema import Train
from bertlab.declarations import FRACTION, Metric
from bertlab.errors import ConfigError, did_you_mean
from bertlab.runs.folder import RunFolder
from bertlab.runs.summaries import best_possible

MOST_BESIDE = 8  # scores beside the one that selects


class SweepTrial(Protocol):
    """A sweep that wants to hear of a run while it goes on, and may stop it."""

    directions: list[str]  # maximize or minimize, for each of the scores that it wants
    objectives: list[str]  # their names; empty: the primary metric on validation

    def note(self, name: str, text: str) -> None:
        """What a person will want to know of the trial: its run's folder, its score's name."""
        ...

    def report(self, step: int, value: float) -> None:
        """The score of one evaluation, numbered from 1."""
        ...

    def should_prune(self) -> bool:
        """Whether going on is not worth it."""
        ...


@dataclass(frozen=True)
class Companions:
    """The runs of a sweep after one, which may be trained together with it, and what became of those that
    were trained with an earlier one.
    """

    later: Callable[[], Iterator[tuple[Train, "Context"]]]
    ended: dict[str, "Outcome | BaseException"]  # by folder


@dataclass(frozen=True)
class Context:
    """How a run was asked for; written beside its results, without influence on them."""

    command: str
    words: Sequence[str] = ()  # those of this run alone, where the command makes several
    sweep: str | None = None
    trial: SweepTrial | None = None
    in_grid: bool = False  # one of several runs, which are told beside each other at the end
    differs: str = ""  # `optimizer.lr=4e-5 seed=1`: what sets it apart from the other runs of its sweep
    companions: Companions | None = None


@dataclass(frozen=True)
class Outcome:
    """What a job returns to its caller."""

    folder: RunFolder
    summary: dict[str, Any] = field(default_factory=dict)
    skipped: bool = False

    @property
    def score(self) -> float:
        """The primary metric on validation, which selection and sweeps look at."""
        return float(self.summary["metrics"][self.summary["selected_by"]])

    def scores(self, names: list[str]) -> list[float]:
        """Scores by name, `validation/loss` or `cost/seconds`; without names, `score`. Raises ConfigError for
        one that is not there.
        """
        known = {
            **self.summary["metrics"],
            **{f"cost/{name}": value for name, value in self.summary["cost"].items()},
        }
        known = {name: value for name, value in known.items() if isinstance(value, int | float)}
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"hydra.sweeper.objectives: {name} is no score of this run,"
                    f" {did_you_mean(name, known, most=40)}"
                )
        return [float(known[name]) for name in names] or [self.score]


def announce(outcome: Outcome, in_a_line: bool = False) -> None:
    """Scores against the best possible, where they lie, and last the line `run: FOLDER`; or the scores and
    the folder in a line.
    """
    summary = outcome.summary
    metrics = summary["metrics"]
    name = summary["selected_by"].split("/", 1)[1]
    if in_a_line:
        scores = ", ".join(
            f"{split} {metrics[f'{split}/{name}']:.4f}"
            for split in ("validation", "test")
            if f"{split}/{name}" in metrics
        )
        how = "finished already" if outcome.skipped else f"{summary['cost']['seconds'] / 60:.1f} min"
        print(f"{name}: {scores} ({how}) {outcome.folder}", flush=True)
        for line in learnt_nothing(summary):
            print(line, flush=True)
        return
    if outcome.skipped:
        print("this run is finished already; nothing was computed")
    for split in ("validation", "test"):
        if f"{split}/{name}" in metrics:
            print(f"{split} {name}  {metrics[f'{split}/{name}']:.4f}{_bound(metrics, split, name)}")
            if others := _other_scores(summary, split, name):
                print(f"  and {', '.join(others)}")
    for line in learnt_nothing(summary):
        print(line)
    cost = summary["cost"]
    print(
        f"training took {cost['seconds'] / 60:.1f} min: {cost['steps']} steps, {cost['tokens']:,} tokens,"
        f" {cost['parameters']:,} parameters"
    )
    if "stage" in summary:
        before = summary["stage"]["cost"]
        print(
            f"pretraining {before['seconds'] / 60:.1f} min: {before['tokens']:,} tokens, run"
            f" {summary['stage']['run']}"
        )
    print(f"results {outcome.folder}/summary.json · curves {outcome.folder}/curves.png")
    print(f"run: {outcome.folder}", flush=True)


def _other_scores(summary: dict[str, Any], split: str, primary: str) -> list[str]:
    """What else was measured on a split: `rmse 0.4132`."""
    given = [full for full in summary.get("metric_specs", {}) if full in summary["metrics"]]
    names = [full.partition("/")[2] for full in given if full.startswith(f"{split}/")]
    others = [name for name in names if name != primary]
    return [f"{name} {summary['metrics'][f'{split}/{name}']:.4f}" for name in others[:MOST_BESIDE]]


def learnt_nothing(summary: dict[str, Any]) -> list[str]:
    """A line where the selected validation score is not above that of one who reads nothing, or not clearly;
    empty otherwise.

    Not clearly: nearer than 1.96 standard errors of a share of so many rows, for scores that are fractions.
    """
    full = str(summary["selected_by"])
    split, _, name = full.partition("/")
    blind, rows = summary.get("blind", {}).get(split, {}).get(name), summary.get("rows", {}).get(split, {})
    if blind is None:
        return []
    metric = Metric.from_record(name, summary["metric_specs"][full])
    reached = float(summary["metrics"][full])
    train = summary["rows"]["train"]
    said = f"always saying {train['commonest']}" if "commonest" in train else "reading nothing"
    advice = "see the rows above and `bertlab inspect`, train longer, or try another optimizer.lr"
    if not metric.better(reached, blind):
        return [f"this run learnt nothing that shows: {said} scores {blind:.4f} on {split} too; {advice}"]
    noise = (
        1.96 * math.sqrt(max(0.0, blind * (1 - blind)) / max(1, rows.get("rows", 1)))
        if metric.unit == FRACTION
        else 0.0
    )
    if abs(reached - blind) < noise:
        return [
            f"within the noise of {rows['rows']:,} rows: {said} scores {blind:.4f} on {split}, ± {noise:.4f}"
            f" by chance; {advice}"
        ]
    return []


def _bound(metrics: dict[str, Any], split: str, name: str) -> str:
    best = best_possible(metrics, split, name)
    return "" if best is None else f"  (best possible {best:.4f}: that many labels of this split are right)"
