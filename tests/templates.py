"""Finished and interrupted runs to begin from: made once, copied for each case, changed there."""

import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny import tiny
from watched import command

ROWS = (60, 20, 20)
FAST = ["budget.batch_size=8", "evaluation.every_steps=4", "paths.cache=cache"]
RUN = tiny("model=bert_tiny", "budget.steps=4", *FAST, sizes=ROWS)
MLM = tiny("objective=mlm", "objective.max_length=32", "tokenizer=wordpiece", "tokenizer.vocab_size=120",
"model=bert_tiny", "budget.steps=4",
           *FAST, sizes=ROWS)  # fmt: skip
TORN = tiny("model=bert_tiny", "budget.steps=12", "compute.checkpoint_seconds=0", *FAST, sizes=ROWS)
ONE_STEP = [
    *tiny(*FAST[2:], sizes=ROWS),
    "budget.steps=1",
    "budget.batch_size=8",
    "evaluation.every_steps=1",
    "paths.output=made",
]


@dataclass(frozen=True)
class Given:
    """A command line and the files it finds: those of a template, and its own (None: taken away)."""

    words: list[str]
    files: dict[str, bytes | None] = field(default_factory=dict)
    template: str = ""
    composes_only: bool = False


@dataclass(frozen=True)
class Templates:
    """`run` and `mlm` hold a finished run each (out/NAME), `torn` an interrupted one, `hf` one exported."""

    place: Path

    def run(self, template: str) -> str:
        """The run's folder within the template."""
        return str(
            next(
                path.parent for path in sorted((self.place / template).glob("out/*/config.yaml"))
            ).relative_to(self.place / template)
        )

    def read(self, template: str, file: str) -> bytes:
        return (self.place / template / file).read_bytes()


def make_templates(place: Path) -> Templates:
    """Train the runs that cases begin from: a few seconds."""
    templates = Templates(place)
    for name, words in (("run", RUN), ("mlm", MLM)):
        (place / name).mkdir(parents=True)
        _done(command(*words, "paths.output=out", place=place / name))
        shutil.rmtree(place / name / "cache", ignore_errors=True)
    _done(command("report", "runs=out", "out=kept", "keep_runs=true", "formats=csv", place=place / "run"))
    (place / "hf").mkdir()
    run = (place / "run" / templates.run("run")).absolute()
    _done(command("export", f"run={run}", "to=hf", "verify=1", place=place / "hf"))
    (place / "torn").mkdir()
    _interrupt_at_a_checkpoint(place / "torn")
    return templates


def _done(ending: Any) -> None:
    assert ending.status == 0, (ending.err, ending.error, ending.misdeeds)


def _interrupt_at_a_checkpoint(place: Path) -> None:
    """A run that was told to stop after step 9 of 12."""
    from bertlab.training.steps import journal

    save = journal.save_checkpoint

    def and_stop(folder: Path, state: Any) -> None:
        save(folder, state)
        if state.step == 9:
            signal.raise_signal(signal.SIGINT)

    journal.save_checkpoint = and_stop
    try:
        ending = command(*TORN, "paths.output=out", place=place)
    finally:
        journal.save_checkpoint = save
    assert ending.status == 130, (ending.status, ending.err, ending.error)


def lay_out(given: Given, templates: Templates | None, place: Path) -> None:
    """The template's files, then the case's own; those that are None are taken away."""
    if templates is not None and given.template:
        shutil.copytree(templates.place / given.template, place, dirs_exist_ok=True)
    for name, content in given.files.items():
        file = place / name
        if content is None:
            file.unlink(missing_ok=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
