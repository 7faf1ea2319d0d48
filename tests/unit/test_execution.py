"""A run's end: it counts as finished when every tracker has taken its result, and then only."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import bertlab
from bertlab.contracts import Tracker
from bertlab.errors import RunError
from bertlab.training import execution, loop
from tiny import tiny

RUN = tiny("budget.steps=4", sizes=(60, 20, 20))


class Told(Tracker):
    """A stand-in that notes how it is told that the run ended, and fails where it is to."""

    def __init__(self, told: list[dict[str, Any]], failure: Exception | None = None) -> None:
        self.told, self.failure = told, failure

    def log(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def finish(self, summary: dict[str, Any]) -> None:
        self.told.append(summary)
        if self.failure is not None:
            raise self.failure


def summary_of(output: str) -> tuple[Path, dict[str, Any]]:
    (file,) = Path(output).glob("*/summary.json")
    return file.parent, json.loads(file.read_text())


def with_trackers(monkeypatch: pytest.MonkeyPatch, *more: Tracker) -> None:
    start = execution.start_trackers
    monkeypatch.setattr(execution, "start_trackers", lambda *about: [*start(*about), *more])


def test_a_tracker_that_fails_at_the_end_fails_the_run_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others hear of it; the same command completes without training again."""
    told: list[dict[str, Any]] = []
    with monkeypatch.context() as patch:
        with_trackers(patch, Told(told, RunError("no server")), Told(told))
        with pytest.raises(RunError, match="no server"):
            bertlab.run([*RUN, "paths.output=out"])
    folder, summary = summary_of("out")
    assert summary["status"] == "failed" and summary["error"] == "RunError: no server"
    assert [(one["status"], one.get("error")) for one in told] == [
        ("finished", None),
        ("failed", "RunError: no server"),
    ]
    assert any((folder / "checkpoints").glob("step-*"))

    def trained(*_: Any) -> Any:
        raise AssertionError("trained again")

    monkeypatch.setattr(loop, "accumulate", trained)
    run = bertlab.run([*RUN, "paths.output=out"])
    assert run.summary["status"] == "finished" and run.summary["cost"]["steps"] == 4
    assert not (folder / "checkpoints").exists()


def test_a_tracker_that_does_not_close_hides_no_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run that was interrupted, say, whose exit status is the signal's."""

    def asked(*_: Any) -> Any:
        raise loop.Interrupted(15)

    monkeypatch.setattr(loop, "accumulate", asked)
    with_trackers(monkeypatch, Told([], RunError("no server")))
    with pytest.raises(loop.Interrupted):
        bertlab.run([*RUN, "paths.output=out"])
    assert summary_of("out")[1]["status"] == "interrupted"
    assert "no server" in capsys.readouterr().err


def test_what_comes_after_the_end_takes_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked twice to stop while checkpoints are removed, say."""
    remove = shutil.rmtree

    def asked(place: Path, **how: Any) -> None:
        if place.name == "checkpoints":
            raise KeyboardInterrupt
        remove(place, **how)

    monkeypatch.setattr(execution.shutil, "rmtree", asked)
    with pytest.raises(KeyboardInterrupt):
        bertlab.run([*RUN, "paths.output=out"])
    assert summary_of("out")[1]["status"] == "finished"
