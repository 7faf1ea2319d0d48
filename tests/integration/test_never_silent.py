"""Whatever may take long says what it is while it does: each part of each job is held up until somebody hears
of it.
"""

import importlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertlab.runs import progress

pytestmark = pytest.mark.slow

Cli = Callable[..., tuple[int, str, str]]
SMALL = ["debug=smoke", "compute=cpu", "compute.threads=1", "compute.precision=float32"]
PATIENCE = 20.0  # seconds that something is held up at most


class Heard(progress.Teller):
    """What a pipe would be told."""

    def __init__(self) -> None:
        super().__init__(0.02, 0.02, on_terminal=False)
        self.lines: list[str] = []

    def put(self, line: str) -> None:
        self.lines.append(line)

    def hears(self, start: str) -> bool:
        return any(line.startswith(start) for line in list(self.lines))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    monkeypatch.setenv("BERTLAB_PROGRESS", "0.02,0.02")
    teller = Heard()
    teller.start()
    monkeypatch.setattr(progress, "_teller", teller)
    return teller


@pytest.fixture
def hold_up(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """`hold_up("module:name", "what")`: a function begins its work only once `what` was heard."""

    def replace(place: str, what: str) -> None:
        module, _, name = place.partition(":")
        owner: Any = importlib.import_module(module)
        for part in name.split(".")[:-1]:
            owner = getattr(owner, part)
        last = name.rpartition(".")[2]
        itself = getattr(owner, last)

        def held_up(*arguments: Any, **options: Any) -> Any:
            until = time.monotonic() + PATIENCE
            while not heard.hears(what) and time.monotonic() < until:
                time.sleep(0.01)
            return itself(*arguments, **options)

        monkeypatch.setattr(owner, last, held_up)

    return replace


@pytest.fixture
def table(tmp_path: Path) -> list[str]:
    """Words of a dataset of the user's own."""
    rows = "".join(
        f"{word} thing number {number},{number % 2}\n" for number, word in enumerate(["good", "bad"] * 40)
    )
    (tmp_path / "mine.csv").write_text(f"text,label\n{rows}")
    return ["dataset=files", "dataset.train_file=mine.csv"]


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("bertlab.data.kinds.label:Label.convert", "reading mine.csv: "),
        ("bertlab.data.material:write_examples", "tokenising train: 0 of "),
        ("bertlab.data.tokenizer_options:WordPiece.make", "training the tokenizer: "),
        ("bertlab.data.material:count_rows", "counting rows, copies and overlaps: "),
        ("bertlab.training.loop:accumulate", "training: 0 of "),
        ("bertlab.objectives.classification:ClassificationObjective.measure", "scoring validation: 0 of "),
        ("bertlab.training.lifecycle:build_initialized", "bertlab train: "),
    ],
)
def test_training_tells(
    cli: Cli,
    heard: Heard,
    table: list[str],
    hold_up: Callable[[str, str], None],
    place: str,
    what: str,
    tmp_path: Path,
) -> None:
    hold_up(place, what)
    status, _, error = cli(*SMALL, *table, "tokenizer=wordpiece", f"paths.cache={tmp_path / 'cache'}")
    assert status == 0, error
    assert heard.hears(what), heard.lines


@pytest.fixture
def run(cli: Cli, table: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A finished run's folder."""
    monkeypatch.setenv("BERTLAB_PROGRESS", "off")
    status, out, error = cli(*SMALL, *table)
    assert status == 0, error
    monkeypatch.setenv("BERTLAB_PROGRESS", "0.02,0.02")
    return out.splitlines()[-1].removeprefix("run: ")


@pytest.mark.parametrize(
    ("words", "place", "what"),
    [
        (["predict", "file=mine.csv"],
         "bertlab.data.tables.delimited:Delimited.records", "reading mine.csv: "),
        (["predict", "file=mine.csv"], "bertlab.jobs.predict:join_examples", "tokenising: "),
        (["predict", "file=mine.csv", "out=labelled.csv"],
         "bertlab.objectives.classification:ClassificationObjective.measure", "scoring predictions: 0 of "),
        (["evaluate", "file=mine.csv"],
         "bertlab.objectives.classification:ClassificationObjective.measure", "scoring "),
        (["predict", "file=mine.csv"], "bertlab.jobs.predict:load_run", "bertlab predict: "),
        (["export", "to=exported"],
         "bertlab.export.verification:share_of_largest", "comparing what was exported "),
    ],
)  # fmt: skip
def test_a_finished_runs_jobs_tell(
    cli: Cli,
    heard: Heard,
    run: str,
    hold_up: Callable[[str, str], None],
    words: list[str],
    place: str,
    what: str,
) -> None:
    hold_up(place, what)
    status, _, error = cli(words[0], f"run={run}", *words[1:])
    assert status == 0, error
    assert heard.hears(what), heard.lines


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("bertlab.runs.records:read_run", "reading multirun: 0 runs"),
        ("bertlab.report.pages.build:compare", "comparing on "),
        ("bertlab.report.by_example:_rescored", "resampling examples of "),
        ("bertlab.report.contamination:_grams", "looking for "),
        ("bertlab.report.figures:curves", "tables and figures of "),
    ],
)
def test_a_report_tells(
    cli: Cli,
    heard: Heard,
    run: str,
    hold_up: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    what: str,
) -> None:
    assert run
    monkeypatch.setenv("BERTLAB_CACHE", "fresh")  # what an earlier report found is not looked for again
    hold_up(place, what)
    status, _, error = cli("report", "runs=multirun")
    assert status == 0, error
    assert heard.hears(what), heard.lines


def test_a_plan_tells(cli: Cli, heard: Heard, hold_up: Callable[[str, str], None]) -> None:
    hold_up("bertlab.training.costs.forecast:Forecaster.survey", "surveying: 0 of 2")
    status, _, error = cli("plan", "-m", *SMALL, "seed=1,2")
    assert status == 0, error
    assert heard.hears("surveying: 0 of 2"), heard.lines


def test_an_inspection_tells(
    cli: Cli, heard: Heard, table: list[str], hold_up: Callable[[str, str], None]
) -> None:
    hold_up("bertlab.jobs.inspect:dataset_page", "bertlab inspect: ")
    status, _, error = cli("inspect", *SMALL, *table)
    assert status == 0, error
    assert heard.hears("bertlab inspect: "), heard.lines


def test_who_waits_for_a_neighbour_is_told(cli: Cli, heard: Heard, table: list[str]) -> None:
    """Another process holds the run; it lets go once this one has said that it waits."""
    from filelock import FileLock

    status, out, error = cli(*SMALL, *table, "budget.steps=1")
    assert status == 0, error
    folder = Path(out.splitlines()[-1].removeprefix("run: "))
    (folder / "summary.json").unlink()
    is_held = threading.Event()
    what = f"waiting for the other process that computes {folder.name}: "

    def neighbour() -> None:
        with FileLock(folder / ".lock"):
            is_held.set()
            until = time.monotonic() + PATIENCE
            while not heard.hears(what) and time.monotonic() < until:
                time.sleep(0.01)

    threading.Thread(target=neighbour).start()
    is_held.wait()
    status, _, error = cli(*SMALL, *table, "budget.steps=1")
    assert status == 0, error
    assert heard.hears(what), heard.lines
