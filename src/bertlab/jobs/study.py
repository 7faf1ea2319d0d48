"""`bertlab study`: a plan that is checked and frozen before its runs, the runs, and the report that answers its question

usage: bertlab study NAME [preview=true | report=true] [paths.output=multirun]

NAME is a file studies/NAME.yaml, a path, or a plan that comes with the program (encoder_atlas): question, arms, seeds, metric, test,
smallest effect of interest. Its power is checked; then the plan is frozen in studies/NAME/, with a seal that every run carries, and the runs are made, finished ones skipped. It ends in
studies/NAME/report: the answer, the plan, every deviation from it, and the comparison. Stopped anywhere, the same command goes on;
started a second time beside it, the two share the runs; on another machine it goes on from the runs that studies/NAME/report keeps.
With test: anytime an arm that is decided gets no further seed.

  preview=true        say what the plan can show and which runs it would make; freeze and run nothing
  report=true         make no run; report what has finished so far
  out=FOLDER          instead of studies/NAME beside the file

  question: Does masking 40 % instead of 15 % help after three million tokens?
  words: [experiment=sst2_ladder]                     # of every run
  arms: {"15 %": [], "40 %": [init.objective.masking_rate=0.4]}     # the first is the baseline
  effect: 0.5                                         # smallest difference of interest, in points
  seeds: 8                                            # with test: anytime, the most
  pilot: [experiments/015-flagship-ladder-on-two-cores/report]
"""

import contextlib
import dataclasses
import itertools
import math
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bertlab.config.composition import compose_schema
from bertlab.config.explain import explain, is_explained
from bertlab.config.registry import Job
from bertlab.config.schema import Node, Paths, Train, flag, string
from bertlab.config.studies import StudyPlan, name_of, read_study, results_of, study_file
from bertlab.declarations import Metric
from bertlab.errors import ConfigError, RunError, UserError, one_line
from bertlab.jobs import report
from bertlab.report import stats
from bertlab.report.arms import Study, counted
from bertlab.report.comparison import LEVEL, Row, compare
from bertlab.report.grouping import study_of_arms
from bertlab.report.pages.build import build_page
from bertlab.report.pages.preregistered import Frozen, decided, opening
from bertlab.report.power import Design, Spread, equivalence_line, pilot_spread, power_lines
from bertlab.runs.files import digest, read_json, to_json, write_record
from bertlab.runs.outcome import Context, announce
from bertlab.runs.progress import each, working
from bertlab.runs.records import KEPT, RunRecord, find_runs, keep_runs, read_run
from bertlab.training.lifecycle import train
from bertlab.training.location import Located, locate

REPORT = "report"  # below the study's folder
# what a study is judged by, which no edit of its file changes once it is frozen
ANSWERING = ("question", "hypothesis", "metric", "effect", "equivalence", "split", "test")


@dataclass
class Schema(Node):
    """Which study, and where its results go."""

    file: str = string(MISSING, "the study: a file, or its name in studies/")
    preview: bool = flag(False, "say what it can show and which runs it would make; freeze and run nothing")
    report: bool = flag(False, "make no run: the report of those that have finished")
    out: str | None = string(
        None, "folder of the frozen plan and the report; default: beside the file, by its name"
    )
    paths: Paths = field(default_factory=Paths)


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


def run(config: Schema, context: Context) -> None:
    """Check, freeze, run, report. Raises UserError."""
    file = study_file(config.file)
    out = Path(config.out).expanduser() if config.out else results_of(file)
    asked, fixed, kept = read_study(file), read_fixed(frozen_file(out)), kept_runs(out)
    if config.report and fixed is None:
        raise RunError(f"report=true: {out} holds no frozen plan yet: bertlab study {config.file}")
    plan = asked if fixed is None else answered_as(asked, fixed.plan)
    total = len(plan.arms) * plan.pretraining_seeds * plan.seeds
    every = each(planned(plan, config.paths), "composing the study's runs", total, "runs")
    rounds = [list(group) for _, group in itertools.groupby(every, key=lambda one: (one.outer, one.inner))]
    power = check_power(plan, rounds[0][0].config)
    print("\n".join(power), flush=True)
    if fixed is not None:
        frozen: Frozen | None = since(fixed, asked, rounds)
    else:
        frozen = None if config.preview else freeze(plan, out, rounds, power)
    if frozen is None or config.preview:
        for group in rounds:
            take_kept(group, list(plan.arms), kept)
            print("\n".join(f"{one.label}: {one.run.folder} ({one.state})" for one in group))
        return
    tag = f"{name_of(file)}@{frozen.seal}"
    failures = make(plan, rounds, tag, out / ".claims", kept, only_report=config.report)
    write(plan, frozen, rounds, out, tag, config, context)
    if failures:
        raise RunError(
            f"{counted(len(failures), 'run')} of the study failed, the first: {failures[0]}; the same command"
            " tries again"
        )


# --- the plan -------------------------------------------------------------------------------------
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


@dataclass(frozen=True)
class Fixed:
    """What frozen.json holds."""

    plan: StudyPlan
    runs: dict[str, str]  # run of the plan -> its id then
    seal: str
    at: str
    power: list[str]


def read_fixed(file: Path) -> Fixed | None:
    """The plan that was fixed; None where none was. Raises RunError for a damaged one."""
    if not file.is_file():
        return None
    try:
        kept = read_json(file)
        is_sealed = seal_of(kept["plan"], kept["runs"]) == kept["seal"]
        plan = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(StudyPlan), kept["plan"]))
        assert isinstance(plan, StudyPlan)
        runs = {str(key): str(own) for key, own in kept["runs"].items()}
        fixed = Fixed(plan, runs, str(kept["seal"]), str(kept["at"]), [str(line) for line in kept["power"]])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OmegaConfBaseException) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise RunError(
            f"{file}: damaged ({type(error).__name__}: {reason}); take it out of the way to freeze the plan"
            " anew"
        ) from error
    if not is_sealed:
        raise RunError(
            f"{file}: edited since it was frozen: its seal is of another plan; put back the file that was"
            " frozen, or take it out of the way to freeze the plan anew"
        )
    return fixed


def seal_of(plan: Mapping[str, Any], runs: Mapping[str, str]) -> str:
    """What every run of a plan carries: the digest of all that is fixed."""
    return digest({"plan": plan, "runs": runs})


def answered_as(asked: StudyPlan, fixed: StudyPlan) -> StudyPlan:
    """A plan as its file says it now, which is asked, judged and answered as it was fixed all the same."""
    kept = dataclasses.asdict(fixed)
    return dataclasses.replace(asked, **{key: kept[key] for key in ANSWERING})


def since(fixed: Fixed, asked: StudyPlan, rounds: Sequence[Sequence[Planned]]) -> Frozen:
    """A plan that was fixed earlier, and what its file and its runs are now that they were not then."""
    before, now = dataclasses.asdict(fixed.plan), dataclasses.asdict(asked)
    changed = [
        f"{key} was {before[key]}, is {now[key]}"
        + ("; the answer keeps to what it was" if key in ANSWERING else "")
        for key in now
        if before[key] != now[key]
    ]
    ids = {one.key: one.run.id for one in itertools.chain.from_iterable(rounds)}
    if others := [key for key, own in ids.items() if fixed.runs.get(key, own) != own]:
        changed.append(
            f"{counted(len(others), 'run')} now resolve to other settings, other code or another"
            f" machine's arithmetic than when the plan was frozen, e.g. {others[0]}"
        )
    return Frozen(fixed.plan, fixed.seal, fixed.at, fixed.power, changed)


def freeze(plan: StudyPlan, out: Path, rounds: Sequence[Sequence[Planned]], power: Sequence[str]) -> Frozen:
    """Fix the plan, before its first run."""
    file, now = frozen_file(out), dataclasses.asdict(plan)
    ids = {one.key: one.run.id for one in itertools.chain.from_iterable(rounds)}
    at, seal = time.strftime("%Y-%m-%dT%H:%M:%S%z"), seal_of(now, ids)
    write_record(file, to_json({"seal": seal, "at": at, "plan": now, "runs": ids, "power": list(power)}))
    print(f"frozen: {file}, seal {seal}", flush=True)
    return Frozen(plan, seal, at, list(power), [])


def frozen_file(out: Path) -> Path:
    """Where a plan stands once it is fixed."""
    return out / "frozen.json"


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


# --- the runs -------------------------------------------------------------------------------------
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


# --- the report -----------------------------------------------------------------------------------
def write(
    plan: StudyPlan,
    frozen: Frozen,
    rounds: Sequence[Sequence[Planned]],
    out: Path,
    tag: str,
    config: Schema,
    context: Context,
) -> None:
    """The report of what has finished. Raises RunError where an arm has nothing."""
    study = study_of_arms(records(rounds), plan.metric)
    if study is None:
        raise RunError("the study has an arm without a finished run: there is nothing to compare yet")
    runs = [run for arm in study.arms for run in (*arm.in_order(), *arm.failed)]
    stages = [
        read_run(one.run.stage.folder)
        for one in itertools.chain.from_iterable(rounds)
        if one.run.stage is not None
    ]
    stages = list({stage.name: stage for stage in stages}.values())
    unsealed = [run for arm in study.arms for run in arm.in_order() if tag not in run.tree.get("tags", [])]
    deviations = [*frozen.deviations]
    if unsealed:
        deviations.append(
            f"{counted(len(unsealed), 'run')} had been made before the plan was frozen, e.g."
            f" {unsealed[0].name}"
        )
    rows = compare(study, {stage.name: stage for stage in stages}, plan.test, plan.effect)
    unfinished = ""
    if missing := fewer_than_planned(plan, rounds, study, decided(plan, rows) if plan.is_sequential else {}):
        if plan.is_sequential:
            unfinished = (
                f"It is not finished: undecided and with fewer seeds than the plan allows are {missing}."
            )
        else:
            deviations.append(f"fewer runs than planned: {missing}")
    frozen = dataclasses.replace(frozen, deviations=deviations, unfinished=unfinished)
    page = build_page(
        plan.question,
        [study],
        [*runs, *stages],
        True,
        True,
        True,
        config.paths.mirror,
        plan.test,
        plan.effect,
    )
    page.blocks[:0] = opening(frozen, plan, study, rows)
    place = out / REPORT
    told = report.Schema(
        runs=str(place),
        out=str(place),
        test=plan.test,
        effect=plan.effect,
        metric=plan.metric,
        keep_runs=True,
    )
    report.write_report(place, page, [study], told, context.command)
    keep_runs([*runs, *stages], place)
    pdf = make_pdf(place / "report.tex")
    print(
        f"report: {place}"
        + ("" if pdf else " (no PDF: pdflatex is not installed; report.tex is what it is made of)")
    )


def fewer_than_planned(
    plan: StudyPlan, rounds: Sequence[Sequence[Planned]], study: Study, settled: Mapping[str, str]
) -> str:
    """`low 2 of 4, high 3 of 4`: arms that nothing has decided and that lack runs of the plan."""
    due = Counter(one.arm for one in itertools.chain.from_iterable(rounds))
    done = {arm.name: len(arm.runs) for arm in study.arms if arm.name not in settled}
    if settled and set(settled) == set(list(plan.arms)[1:]):
        return ""  # the baseline's runs went along with the last that was decided
    return ", ".join(f"{name} {count} of {due[name]}" for name, count in done.items() if count < due[name])


def make_pdf(source: Path) -> bool:
    """report.pdf beside report.tex, where pdflatex is installed. Raises RunError where it fails."""
    program = shutil.which("pdflatex")
    if program is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = [
            program,
            "-interaction=nonstopmode",
            "-halt-on-error",
            f"-output-directory={folder}",
            source.name,
        ]
        for _ in range(2):  # references stand after the second pass
            done = subprocess.run(
                command,
                cwd=source.parent,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=300,
                check=False,
            )
        if done.returncode:
            raise RunError(
                f"{source}: pdflatex could not make it ({(done.stdout.splitlines() or ['?'])[-1]})"
            )
        shutil.copyfile(Path(folder) / "report.pdf", source.with_suffix(".pdf"))
    return True


JOB = Job(Schema, run)
