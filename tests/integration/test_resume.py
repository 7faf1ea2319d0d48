"""Promises 4 and 6: a run is done once, and killing it anywhere changes nothing. Real processes, really killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

RUN = (
    "dataset.train_size=1500",
    "dataset.validation_size=120",
    "dataset.test_size=60",
    "model.hidden_size=64",
    "model.num_attention_heads=2",
    "budget.epochs=4",
    "budget.batch_size=8",
    "objective.token_dropout=0.1",
    "evaluation.every_steps=90",
    "compute.threads=1",
    "compute.checkpoint_seconds=0.3",
)
TIMES = ("train/tokens_per_s", "seconds", "core_seconds", "tokens_per_s", "utilisation", "finished_at")


def start(*arguments: str, group: bool = False) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bertlab", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=group)


def finish(*arguments: str, status: int = 0) -> str:
    process = start(*arguments)
    out, err = process.communicate(timeout=240)
    assert process.returncode == status, err
    return out


def kill_when(process: "subprocess.Popen[str]", ready: Any, number: int = signal.SIGKILL, group: bool = False) -> tuple[str, str]:
    """Signal the process, or its whole group, as soon as `ready()` holds."""
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run never got so far"
        time.sleep(0.01)
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    return process.communicate(timeout=60)


def newest_step(output: Path) -> int:
    return max((int(place.name[5:]) for place in output.glob("*/checkpoints/step-*")), default=0)


def result(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on interruptions."""
    summary = json.loads((folder / "summary.json").read_text())
    cost = {name: value for name, value in summary["cost"].items() if name not in TIMES}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "model": (folder / "model.safetensors").read_bytes(),
        "last": (folder / "last.safetensors").read_bytes(),
        "predictions": (folder / "predictions" / "validation.jsonl").read_text(),
        "metrics": summary["metrics"],
        "cost": cost,
        "selected_step": summary["selected_step"],
        "records": [{name: value for name, value in line.items() if name not in TIMES} for line in lines],
    }


def only_run(output: Path) -> Path:
    found = [place for place in output.iterdir() if (place / "config.yaml").is_file()]
    assert len(found) == 1, found
    return found[0]


def test_resume_after_kill_is_bitwise_equal(tmp_path: Path) -> None:
    finish(*RUN, f"paths.output={tmp_path / 'whole'}")
    whole = result(only_run(tmp_path / "whole"))
    torn = tmp_path / "torn"
    for least in (1, 200, 520):  # within the first epoch, in the middle of the second, in the third
        kill_when(start(*RUN, f"paths.output={torn}"), lambda least=least: newest_step(torn) >= least)
        assert not (only_run(torn) / "model.safetensors").exists(), "the run was killed in the middle"
    out = finish(*RUN, f"paths.output={torn}")
    assert "continuing at step" in out
    assert result(only_run(torn)) == whole
    sessions = [json.loads(line) for line in (only_run(torn) / "sessions.jsonl").read_text().splitlines()]
    assert len(sessions) == 4 and {session["threads"] for session in sessions} == {1}
    assert not list(torn.rglob("*.tmp*")), "a killed run's leftovers are cleared"


def test_torn_checkpoint_is_passed_over(tmp_path: Path) -> None:
    finish(*RUN, f"paths.output={tmp_path / 'whole'}")
    torn = tmp_path / "torn"
    kill_when(start(*RUN, f"paths.output={torn}"), lambda: newest_step(torn) >= 200)
    places = sorted(only_run(torn).glob("checkpoints/step-*"))
    newest = places[-1] / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    finish(*RUN, f"paths.output={torn}")
    assert result(only_run(torn)) == result(only_run(tmp_path / "whole"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_polite_signal_checkpoints_and_leaves_with_its_status(tmp_path: Path, number: int, status: int) -> None:
    process = start(*RUN, f"paths.output={tmp_path}")
    _, err = kill_when(process, lambda: newest_step(tmp_path) >= 1, number)
    assert process.returncode == status
    assert "checkpoint written" in err and "Traceback" not in err
    assert json.loads((only_run(tmp_path) / "summary.json").read_text())["status"] == "interrupted"


def test_a_signal_to_the_whole_group_checkpoints_though_batches_come_from_other_processes(tmp_path: Path) -> None:
    """What a terminal, `timeout` and schedulers do: everything that the run has started hears of it."""
    words = (*RUN, "compute.workers=2")
    process = start(*words, "paths.output=asked", group=True)
    kill_when(process, lambda: newest_step(tmp_path / "asked") > 0, signal.SIGTERM, group=True)
    assert process.returncode == 143
    assert "continuing at step" in finish(*words, "paths.output=asked")
    finish(*words, "paths.output=whole")
    assert result(only_run(tmp_path / "asked")) == result(only_run(tmp_path / "whole"))


def test_a_killed_maker_of_batches_is_told_in_one_line_and_loses_nothing(tmp_path: Path) -> None:
    words = (*RUN, "compute.workers=2", f"paths.output={tmp_path}")
    process = start(*words)
    deadline = time.monotonic() + 120
    while newest_step(tmp_path) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    makers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(makers[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "a process that makes batches died" in err and "Traceback" not in err
    assert "continuing at step" in finish(*words)


def test_finished_run_is_skipped_and_its_metric_returned(tmp_path: Path) -> None:
    first = finish("debug=smoke", "compute.threads=1", f"paths.output={tmp_path}")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    again = finish("debug=smoke", "compute.threads=1", "tracker=local", "tags=[other]", f"paths.output={tmp_path}")
    assert "finished already" in again
    assert again.splitlines()[-1] == first.splitlines()[-1] == f"run: {only_run(tmp_path)}"
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before, "nothing is overwritten"


def test_same_run_started_twice_is_computed_once(tmp_path: Path) -> None:
    processes = [start(*RUN, f"paths.output={tmp_path}") for _ in range(2)]
    outs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("finished already" in out for out in outs) == 1
    only_run(tmp_path)


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
    assert names == sorted(place.name for place in (tmp_path / "whole").glob("synthetic-*")) and len(names) == 3
    for name in names:
        assert result(torn / name) == result(tmp_path / "whole" / name)
