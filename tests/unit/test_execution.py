"""A run's end: it counts as finished when every tracker has taken its result, and then only; a signal that
comes with its last step ends what would come after it.
"""

import itertools
import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import bertlab
from bertlab.config.composition import compose_schema
from bertlab.contracts import Loss, Tracker
from bertlab.errors import DivergedError, RunError
from bertlab.runs.checkpoints import ResumeState, save_checkpoint
from bertlab.runs.outcome import Context
from bertlab.training import execution, loop
from bertlab.training.lifecycle import train
from bertlab.training.several.launch import DONE, FINISHED, INTERRUPTED, _outcome
from bertlab.training.several.launch import Told as EndOf
from conftest import Cli
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


# --- a signal with the last step ------------------------------------------------------------------
@pytest.mark.parametrize("moment", ["accumulate", "score"])
@pytest.mark.parametrize("words", [[], ["compute.together=2"]], ids=["alone", "together"])
def test_a_signal_with_the_last_step_ends_the_sweep(
    moment: str, words: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is finished all the same: in the step itself, or in the evaluation that follows it."""
    usual, calls = getattr(loop, moment), []

    def signalled(*arguments: Any) -> Any:
        calls.append(moment)
        if len(calls) == (4 if moment == "accumulate" else 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return usual(*arguments)

    monkeypatch.setattr(loop, moment, signalled)
    steps = ["budget.steps=2"] if words else []  # of two seeds, which take turns
    grid = ["seed=range(4)", *steps, "evaluation.every_steps=100", "paths.output=out"]
    status, _, err = cli("-m", *RUN, *words, *grid)
    assert status == 128 + signal.SIGTERM and "SIGTERM: run finished; the same command continues" in err, err
    summaries = [json.loads(file.read_text()) for file in Path("out").glob("*/summary.json")]
    assert [one["status"] for one in summaries] == ["finished"] * (2 if words else 1)


@pytest.mark.parametrize(
    ("told", "is_finished"),
    [
        ([EndOf(DONE), EndOf(DONE)], True),
        ([EndOf(FINISHED, 15), EndOf(FINISHED, 15)], True),
        ([EndOf(INTERRUPTED, 15), EndOf(INTERRUPTED, 15)], False),
    ],
)
def test_several_processes_that_are_done_do_not_die_by_a_signal(told: list[EndOf], is_finished: bool) -> None:
    with pytest.raises(loop.Interrupted) as stop:
        _outcome(told, [15], None, 2)
    assert (stop.value.exit_status, stop.value.is_finished) == (143, is_finished)


def test_a_signal_while_a_trial_is_pruned_is_heard() -> None:
    """Otherwise the search would go on with the next trial."""

    class Trial:
        directions, objectives = ["maximize"], list[str]()

        def note(self, name: str, text: str) -> None:
            """Nothing."""

        def report(self, step: int, value: float) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        def should_prune(self) -> bool:
            return True

    config = compose_schema("train", [*RUN, "evaluation.every_steps=2", "paths.output=out"])
    with pytest.raises(loop.Interrupted):
        train(config, Context("bertlab", trial=Trial()))
    assert summary_of("out")[1]["status"] == "interrupted"


# --- divergence where values are read late ----------------------------------------------------------
def test_the_first_step_that_diverged_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the steps since the last record: a stand-in for a GPU, where no step waits for its values."""
    usual, step = loop.accumulate, itertools.count(1)

    def diverges(*arguments: Any) -> Any:
        loss, *rest = usual(*arguments)
        return (Loss(loss.total * math.nan, loss.count) if next(step) >= 3 else loss, *rest)

    monkeypatch.setattr(loop, "accumulate", diverges)
    monkeypatch.setattr(loop, "check_finite", lambda *_: None)  # the record checks them again
    with pytest.raises(DivergedError, match=r"at step 3: loss nan, .*, learning rate 0\.0003;"):
        words = ["budget.steps=20", "schedule=constant", "schedule.warmup_fraction=0", "optimizer.lr=3e-4"]
        bertlab.run([*RUN, *words, "optimizer.skip_spikes=null"])


def test_a_torn_checkpoint_is_not_told_as_good(tmp_path: Path) -> None:
    for number in (5, 9):
        save_checkpoint(tmp_path, ResumeState("run", number, {"w": torch.ones(2)}, {}, {}))
    (tmp_path / "step-00000009" / "state.pt").write_bytes(b"torn")
    with pytest.raises(DivergedError, match=r"the last good checkpoint is .*step-00000005\."):
        loop.check_finite(Loss(torch.tensor(math.nan), 1), torch.tensor(1.0), 12, 0.1, tmp_path)
