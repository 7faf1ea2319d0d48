"""A study's runs: kept ones taken, the others made, shared with other processes."""

import contextlib
import dataclasses
import itertools
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bertlab.config.studies import StudyPlan
from bertlab.errors import UserError, one_line
from bertlab.jobs._study_plan import Planned
from bertlab.report.arms import counted
from bertlab.report.comparison import Row, compare
from bertlab.report.grouping import study_of_arms
from bertlab.report.pages.preregistered import decided
from bertlab.runs.files import digest
from bertlab.runs.outcome import Context, announce
from bertlab.runs.progress import working
from bertlab.runs.records import KEPT, RunRecord, find_runs, read_run
from bertlab.training.lifecycle import train

REPORT = "report"  # below the study's folder


def kept_runs(out: Path) -> list[RunRecord]:
    """Those that the study's own report holds. Raises RunError for a damaged one."""
    place = out / REPORT / KEPT
    runs = find_runs([str(place)]) if place.is_file() else []
    return [run for run in runs if not run.problem]


def take_kept(group: Sequence[Planned], arms: Sequence[str], kept: Sequence[RunRecord]) -> None:
    """Give planned runs of one seed that have no folder here what was kept of them.

    Runs that differ in their machine's arithmetic alone are taken where those of all arms that are still in
    question were kept: what is compared as a pair was computed alike.
    """
    same = {str(run.summary["id"]): run for run in kept}
    alike = {but_for_numerics(run.identity): run for run in kept}
    away = [one for one in group if not one.run.folder.is_run]
    for one in away:
        one.kept = same.get(one.run.id)
    others = {one.key: alike.get(but_for_numerics(one.run.identity)) for one in away}
    if all(others.get(one.key) is not None for one in group if one.arm in arms):
        for one in away:
            one.kept = one.kept or others[one.key]


def but_for_numerics(identity: Mapping[str, Any]) -> str:
    """What a run's result follows from, the machine's arithmetic left out."""
    return digest({key: part for key, part in identity.items() if key not in ("id", "numerics")})


def make(
    plan: StudyPlan,
    rounds: Sequence[Sequence[Planned]],
    tag: str,
    claims: Path,
    kept: Sequence[RunRecord],
    only_report: bool = False,
) -> list[str]:
    """All runs, seed by seed, shared with other processes by `claims`; in a sequential plan an arm that its
    test has decided gets no further seed. Returns what failed, in a line each.
    """
    failures = []
    baseline = next(iter(plan.arms))
    undecided = list(plan.arms)[1:]
    total = sum(map(len, rounds))
    done = 0
    for place, group in enumerate(rounds):
        if plan.budget_hours is not None and (spent := hours(rounds[:place])) >= plan.budget_hours:
            print(f"budget_hours={plan.budget_hours:g}: {spent:.2f} spent; no further seed is begun")
            break
        # what is counted, a seed or a pretraining's seeds
        # (of one pretraining its seeds would be counted, which say nothing of its recipe)
        is_whole = plan.pretraining_seeds == 1 or (group[0].inner == 0 and group[0].outer > 1)
        if plan.is_sequential and is_whole:
            settled = decided(plan, compared(plan, rounds[:place]))
            if settled and set(settled) >= set(undecided):
                print(f"decided after {place} of {len(rounds)} seeds")
                break
            for name in [name for name in undecided if name in settled]:
                print(f"{name}: {settled[name]} after {place} of {len(rounds)} seeds")
                undecided.remove(name)
        arms = (baseline, *undecided)
        take_kept(group, arms, kept)
        left = [one for one in group if one.arm in arms and one.kept is None]
        done += len(group) - len(left)
        if only_report:
            missing = sum(one.state != "finished" for one in left)
            if missing:
                print(
                    f"seed {group[0].inner}: {counted(missing, 'run')} not made yet; the report is of the rest"
                )
                break
            continue
        while left:
            one, claim = claimed(left, claims)
            left.remove(one)
            done += 1
            print(f"run {done}/{total}: {one.label}", flush=True)
            tagged = dataclasses.replace(one.config, tags=[*one.config.tags, tag])
            try:
                announce(
                    train(tagged, Context(shlex.join(["bertlab", *one.words]), one.words, tag)),
                    in_a_line=True,
                )
            except UserError as error:
                failures.append(f"{one.label}: {error}")
                print(f"bertlab: {one_line(failures[-1])}", file=sys.stderr, flush=True)
            finally:
                claim.release()
    if not only_report:  # others may be at work
        shutil.rmtree(claims, ignore_errors=True)
    return failures


def claimed(left: Sequence[Planned], claims: Path) -> tuple[Planned, FileLock]:
    """The first run that no other process at work on this study has claimed, claimed for this one; where all
    are, the first that becomes free, done by then.
    """
    for one in left:
        with contextlib.suppress(Timeout):
            return one, taken(claims / f"{one.run.id}.lock", 0)
    with working(f"waiting for the other process that makes {left[0].label}"):
        return left[0], taken(claims / f"{left[0].run.id}.lock", -1)


def taken(file: Path, seconds: float) -> FileLock:
    """A claim, waited for; -1 = as long as it takes. Raises Timeout. Whichever process ends first takes the
    folder of claims away, perhaps between these two lines of another, for which nothing is left but to look.
    """
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        claim = FileLock(file)
        with contextlib.suppress(FileNotFoundError):
            claim.acquire(timeout=seconds)
            return claim


def records(rounds: Sequence[Sequence[Planned]]) -> dict[str, list[RunRecord]]:
    """Arm -> its runs that have begun."""
    found: dict[str, list[RunRecord]] = {}
    for one in itertools.chain.from_iterable(rounds):
        own = found.setdefault(one.arm, [])
        if one.kept is not None:
            own.append(one.kept)
        elif one.run.folder.is_run:
            own.append(read_run(one.run.folder))
    return found


def hours(rounds: Sequence[Sequence[Planned]]) -> float:
    """Of training, pretraining counted once."""
    summaries = [run.summary for own in records(rounds).values() for run in own if not run.problem]
    stages = {
        str(summary["stage"]["run"]): float(summary["stage"]["cost"]["seconds"])
        for summary in summaries
        if summary.get("stage")
    }
    return (sum(float(summary["cost"]["seconds"]) for summary in summaries) + sum(stages.values())) / 3600


def compared(plan: StudyPlan, rounds: Sequence[Sequence[Planned]]) -> list[Row]:
    """The comparison of what has finished; nothing where an arm has nothing yet."""
    own = records(rounds)
    study = study_of_arms(own, plan.metric) if own else None
    return [] if study is None else compare(study, {}, plan.test, plan.effect)
