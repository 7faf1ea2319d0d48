"""Every run behind a report's numbers: where it was made, of what code, and the commands that
make it again.
"""

import shlex
from collections.abc import Sequence
from typing import Any

from bertlab.declarations import Metric, metric_named
from bertlab.report.arms import Study, counted
from bertlab.report.pages.page import Block, Heading, Listing, PageTable, Text
from bertlab.runs.records import RunRecord, one_run_command

WIDTH = 96  # letters of a line of a command


def provenance_blocks(
    studies: Sequence[Study], runs: Sequence[RunRecord], stages: dict[str, RunRecord]
) -> list[Block]:
    """Every run behind a number, those that are behind none, and how to make them again."""
    blocks: list[Block] = [Heading("Runs")]
    used = [
        (arm.name, study.metric, run) for study in studies for arm in study.arms for run in arm.in_order()
    ]
    needed = {run.stage for _, _, run in used if run.stage}
    used += [
        ("pretraining", primary_of(stages[name]), stages[name]) for name in sorted(needed) if name in stages
    ]
    lines = []
    for arm, metric, run in used:
        git: dict[str, Any] = run.environment.get("git") or {}
        revision = f"{str(git.get('revision', '–'))[:10]}{' + changes' if git.get('dirty') else ''}"
        scores = [metric.show(run.score(split, metric.name)) for split in ("validation", "test")]
        lines.append(
            [
                arm,
                str(run.seed),
                run.name,
                *scores,
                revision,
                str((run.environment.get("packages") or {}).get("torch", "–")),
                f"{run.machine}, {run.environment.get('threads', '–')} thread(s)",
            ]
        )
    score = "validation" if all(study.is_of_rows for study in studies) else "score"
    headers = ("arm", "seed", "run", score, "test", "revision", "torch", "machine")
    blocks.append(PageTable(headers, lines, "Every run behind these numbers", left=3, folded=True))
    if earlier := [run for _, _, run in used if "results" not in run.code]:
        words = (
            f"{counted(len(earlier), 'run')} {'was' if len(earlier) == 1 else 'were'} made by an earlier"
            " version of the core"
        )
        blocks.append(Text(f"{words} (no results version on record).", "warning"))
    missing = sorted(needed - set(stages))
    if missing:
        blocks.append(
            Text(f"Pretrainings that are not among the runs read: {', '.join(missing)}.", "warning")
        )
    bad = [[run.name, run.problem] for run in runs if run.problem]
    if bad:
        blocks.append(
            PageTable(
                ("run", "what is wrong"),
                bad,
                f"{counted(len(bad), 'run')} without a result, counted nowhere",
                wide=(1,),
            )
        )
    commands = dict.fromkeys(one_run_command(run) for _, _, run in used if run.summary.get("command"))
    words = (
        "These commands make the runs again, or skip those that are there; `bertlab reproduce report=FOLDER`"
        " runs what is missing and compares the scores."
    )
    lines_of = [line for command in commands for line in wrapped(command)]
    blocks += [Heading("Again"), Text(words), Listing(lines_of)]
    return blocks


def wrapped(command: str) -> list[str]:
    """A command over as many lines as a page is wide for; a shell takes them as one."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        if lines[-1] and len(lines[-1]) + len(word) > WIDTH:
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def primary_of(run: RunRecord) -> Metric:
    """What selected a run's checkpoint."""
    metric = metric_named(run.metrics(), run.primary)
    assert metric is not None  # a record without it has a problem and is counted nowhere
    return metric
