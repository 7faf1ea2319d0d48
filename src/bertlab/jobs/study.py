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

import dataclasses
import itertools
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from bertlab.config.registry import Job
from bertlab.config.schema import Node, Paths, flag, string
from bertlab.config.studies import StudyPlan, name_of, read_study, results_of, study_file
from bertlab.errors import RunError
from bertlab.jobs import report
from bertlab.jobs._study_plan import Planned, check_power, planned
from bertlab.jobs._study_runs import REPORT, kept_runs, make, records, take_kept
from bertlab.jobs._study_seal import answered_as, freeze, frozen_file, read_fixed, since
from bertlab.report.arms import Study, counted
from bertlab.report.comparison import compare
from bertlab.report.grouping import study_of_arms
from bertlab.report.pages.build import build_page
from bertlab.report.pages.preregistered import Frozen, decided, opening
from bertlab.runs.outcome import Context
from bertlab.runs.progress import each
from bertlab.runs.records import keep_runs, read_run


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
    ids = {one.key: one.run.id for one in itertools.chain.from_iterable(rounds)}
    if fixed is not None:
        frozen: Frozen | None = since(fixed, asked, ids)
    else:
        frozen = None if config.preview else freeze(plan, out, ids, power)
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
        opening=lambda study, rows, examples: opening(frozen, plan, study, rows, examples),
    )
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
