"""Promises 4 and 6: a run is done once, and killing it anywhere changes nothing. Real processes, really
killed.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bertlab
from bertlab.data.feeding import Feed
from bertlab.training.steps.stops import Interrupted
from children import PATIENCE, finish, kill_when, newest_step, only_run, result, start, wait_until
from tiny import tiny

pytestmark = pytest.mark.slow

RUN = tiny("budget.epochs=4", "budget.batch_size=8", "objective.token_dropout=0.1",
    "evaluation.every_steps=30",
           "compute.checkpoint_seconds=0.05", sizes=(400, 60, 30), heads=2)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUN, never interrupted."""
    output = tmp_path_factory.mktemp("whole")
    finish(*RUN, f"paths.output={output}")
    return only_run(output)


def torn_at(step: int, output: Path, *words: str) -> Path:
    """RUN, killed at this step or soon after."""
    kill_when(start(*RUN, *words, f"paths.output={output}"), lambda: newest_step(output) >= step)
    assert not (only_run(output) / "model.safetensors").exists(), "the run was killed in the middle"
    return only_run(output)


def test_resume_after_kill_is_bitwise_equal(whole: Path, tmp_path: Path) -> None:
    for step in (1, 65, 120):  # within the first epoch, in the middle of the second, in the third
        torn = torn_at(step, tmp_path)
    assert "continuing at step" in finish(*RUN, f"paths.output={tmp_path}")
    assert result(torn) == result(whole)
    sessions = [json.loads(line) for line in (torn / "sessions.jsonl").read_text().splitlines()]
    assert len(sessions) == 4 and {session["threads"] for session in sessions} == {1}
    assert not list(tmp_path.rglob("*.tmp*")), "a killed run's leftovers are cleared"


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
@pytest.mark.parametrize("what", ["weights.safetensors", "state.pt", "best"])
def test_a_damaged_checkpoint_is_passed_over(
    what: str, damage: Callable[[Path], None], whole: Path, in_the_third_epoch: Path, tmp_path: Path
) -> None:
    """Its weights, its state, or the best weights so far that it goes with: the same command ends with the
    right weights.
    """
    torn = only_run(copy_of(in_the_third_epoch, tmp_path))
    newest = sorted(torn.glob("checkpoints/step-*"))[-1]
    damage(max(torn.glob("checkpoints/best-*")) if what == "best" else newest / what)
    finish(*RUN, f"paths.output={tmp_path}")
    assert result(torn) == result(whole)


@pytest.fixture(scope="module")
def in_the_third_epoch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUN's output, killed after its fourth evaluation."""
    output = tmp_path_factory.mktemp("torn")
    assert list(torn_at(120, output).glob("checkpoints/best-*"))
    return output


def copy_of(output: Path, place: Path) -> Path:
    subprocess.run(["cp", "-a", f"{output}/.", place], check=True)
    return place


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_polite_signal_checkpoints_and_leaves_with_its_status(
    tmp_path: Path, number: int, status: int
) -> None:
    # once a minute: only the signal makes one
    words = [word for word in RUN if not word.startswith("compute.checkpoint_seconds")]
    child = start(*words, "evaluation.every_steps=10", f"paths.output={tmp_path}")
    _, err = kill_when(child, lambda: any(tmp_path.glob("*/checkpoints/best-*")), number)
    assert child.returncode == status
    assert "checkpoint written" in err and "Traceback" not in err
    assert json.loads((only_run(tmp_path) / "summary.json").read_text())["status"] == "interrupted"
    assert newest_step(tmp_path) >= 10


def test_a_signal_to_the_whole_group_checkpoints_though_batches_come_from_other_processes(
    whole: Path, tmp_path: Path
) -> None:
    """What a terminal, `timeout` and schedulers do: everything that the run has started hears of it."""
    words = (*RUN, "compute.workers=2", f"paths.output={tmp_path}")
    child = start(*words, group=True)
    kill_when(child, lambda: newest_step(tmp_path) > 0, signal.SIGTERM, group=True)
    assert child.returncode == 143
    assert "continuing at step" in finish(*words)
    assert result(only_run(tmp_path)) == result(whole)


def test_a_killed_maker_of_batches_is_told_in_one_line_and_loses_nothing(tmp_path: Path) -> None:
    words = (*RUN, "compute.workers=2", f"paths.output={tmp_path}")
    child = start(*words)
    wait_until(lambda: newest_step(tmp_path) > 0, child)
    makers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    os.kill(int(makers[0]), signal.SIGKILL)
    _, err = child.wait(60)
    assert child.returncode == 2 and "a process that makes batches died" in err and "Traceback" not in err
    assert "continuing at step" in finish(*words)


def test_finished_run_is_skipped_and_its_metric_returned(tmp_path: Path) -> None:
    """By processes that start anew, as a person starts them."""
    command = [sys.executable, "-m", "bertlab", *tiny("budget.steps=2"), f"paths.output={tmp_path}"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    again = subprocess.run(
        [*command, "tracker=local", "tags=[other]"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert "finished already" in again.stdout
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1] == f"run: {only_run(tmp_path)}"
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before, "nothing is overwritten"


def test_same_run_started_twice_is_computed_once(whole: Path, tmp_path: Path) -> None:
    children = [start(*RUN, f"paths.output={tmp_path}") for _ in range(2)]
    outs = [child.wait()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sum("finished already" in out for out in outs) == 1
    assert result(only_run(tmp_path)) == result(whole)


def test_killed_sweep_continues_to_the_same_results(tmp_path: Path) -> None:
    sweep = ("-m", "seed=range(3)", *RUN, "budget.epochs=2")
    finish(*sweep, f"paths.output={tmp_path / 'whole'}")
    torn = tmp_path / "torn"

    def in_the_second_run() -> bool:
        runs = [place for place in torn.glob("synthetic-*") if (place / "config.yaml").is_file()]
        return len(runs) == 2 and any(list(place.glob("checkpoints/step-*")) for place in runs)

    kill_when(start(*sweep, f"paths.output={torn}"), in_the_second_run)
    out = finish(*sweep, f"paths.output={torn}")
    assert out.count("finished already") == 1 and out.count("continuing at step") == 1
    names = sorted(place.name for place in torn.glob("synthetic-*"))
    assert (
        names == sorted(place.name for place in (tmp_path / "whole").glob("synthetic-*")) and len(names) == 3
    )
    for name in names:
        assert result(torn / name) == result(tmp_path / "whole" / name)


ARMS = tiny(
    "dataset=mixture", "+dataset@dataset.parts.a=synthetic", "+dataset@dataset.parts.b=synthetic",
    "dataset.parts.b.task=documents",
    *(f"dataset.parts.{part}.{split}_size=20" for part in "ab" for split in ("validation", "test")),
    "dataset.parts.a.task=documents", "dataset.parts.a.train_size=150", "dataset.parts.b.train_size=60",
    "dataset.weights={b: 2}",
    "dataset.phases=[{from_tokens: 9000, weights: {a: 1}}]", "objective=mlm", "objective.max_length=32",
    "objective.z_loss=1e-3",
    "objective.logit_softcap=20", "model.qk_norm=l2", "model.attention_softcap=20",
    "model.value_embeddings=1", "model.global_every=2",
    "model.local_window=8", "model.activation=relu2", "optimizer.ema_decay=0.9", "budget.tokens=24000",
    "budget.batch_size=16",
    "budget.batch_size_from=4", "budget.batch_ramp_tokens=8000", "budget.length_from=8",
    "budget.length_ramp_tokens=12000",
    "schedule.by=tokens", "evaluation.every_steps=20", sizes=None, heads=2,
)  # fmt: skip


@pytest.mark.parametrize("causal", [False, True])
def test_the_later_papers_options_resume_to_the_bit_too(
    tmp_path: Path, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixture and phases, both ramps, averaged weights and every option of the encoder in one run, stopped
    within all of them.
    """
    words = [word for word in ARMS if not causal or "length_" not in word or word.startswith("objective.max")]
    words = [*words, "objective=mntp", "objective.causal_share=0.3"] if causal else words
    bertlab.run([*words, f"paths.output={tmp_path / 'whole'}"])
    torn, batches, made = tmp_path / "torn", Feed.batches, []

    def stopped(self: Feed, rows: Any, draw: Any) -> Any:
        made.append(draw)
        if len(made) == 15:
            signal.raise_signal(signal.SIGTERM)
        return batches(self, rows, draw)

    with monkeypatch.context() as patch:
        patch.setattr(Feed, "batches", stopped)
        with pytest.raises(Interrupted):
            bertlab.run([*words, f"paths.output={torn}"])
    assert newest_step(torn) == 15
    bertlab.run([*words, f"paths.output={torn}"])
    assert result(only_run(torn)) == result(only_run(tmp_path / "whole"))
    summary = json.loads((only_run(torn) / "summary.json").read_text())
    assert summary["weights"] == "averaged" and summary["cost"]["tokens"] >= 24000
