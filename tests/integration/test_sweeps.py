"""Sweeps that survive: the same command goes on to the same total, pruned runs can be continued, killed ones
lose nothing.
"""

import csv
import json
import shlex
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from bertlab.runs.folder import RunFolder
from bertlab.runs.records import one_run_command, read_run
from children import Child

pytestmark = pytest.mark.slow

DATA = [
    "dataset.train_size=200",
    "dataset.validation_size=40",
    "dataset.test_size=40",
    "dataset.fraction=1",
    "compute=cpu",
    "compute.threads=1",
]
SWEEP = [
    "-m",
    "search=lr_batch",
    "debug=smoke",
    *DATA,
    "hydra.sweeper.study_name=s",
    "hydra.sweeper.heartbeat_seconds=0.3",
]


def trials() -> list[dict[str, str]]:
    return list(csv.DictReader(Path("multirun/studies/s/trials.csv").read_text().splitlines()))


def summaries() -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in Path("multirun").glob("synthetic-*/summary.json")]


def start(*words: str) -> Child:
    return Child(*SWEEP, *words, group=True)


def finished() -> int:
    try:
        with sqlite3.connect("multirun/studies/s/study.db", timeout=10) as database:
            return int(
                database.execute(
                    "select count(*) from trials where state in ('COMPLETE', 'PRUNED')"
                ).fetchone()[0]
            )
    except sqlite3.Error:
        return 0


def test_a_sweep_goes_on_to_its_total_and_its_best_is_a_preset(cli: Any) -> None:
    status, out, err = cli(*SWEEP, "hydra.sweeper.n_trials=2")
    assert status == 0 and len(trials()) == 2, err
    lines = [line for line in out.splitlines() if line.startswith(("trial ", "accuracy: "))]
    told = ["trial 1/2", "accuracy", "trial 2/2", "accuracy"]
    assert [line.partition(": ")[0] for line in lines] == told, "each in a line before it and one after it"
    assert "optimizer.lr=" in lines[0] and "budget.batch_size=" in lines[0] and "test" not in lines[1]
    status, out, err = cli(*SWEEP, "hydra.sweeper.n_trials=3")
    assert status == 0 and "2 of 3 trials are there" in out and len(trials()) == 3, err
    status, out, err = cli(*SWEEP, "hydra.sweeper.n_trials=3")
    assert status == 0 and "3 of 3" in out and len(trials()) == 3
    assert len(summaries()) == 3 and Path("multirun/studies/s/plots/history.png").is_file()
    for trial in trials():  # each leads to its run, and says what its value is
        summary = json.loads((Path(trial["run"]) / "summary.json").read_text())
        assert (
            summary["metrics"][trial["metric"]] == float(trial["value"])
            and trial["metric"] == "validation/accuracy"
        )
        assert not any(name.startswith("test/") for name in summary["metrics"]) and summary["unscored"] == [
            "test"
        ]
    (best,) = [trial for trial in trials() if trial["best"] == "yes"][:1]
    preset = Path("multirun/studies/s/experiment/best.yaml").read_text()
    assert f"validation/accuracy {float(best['value']):.6g}, run {best['run']}" in preset
    status, out, err = cli("--config-dir", "multirun/studies/s", "experiment=best")
    assert status == 0 and out.splitlines()[-1] == f"run: {best['run']}", err
    point = [f"{key}={best[key]}" for key in ("optimizer.lr", "budget.batch_size")]
    again = shlex.split(one_run_command(read_run(RunFolder(Path(best["run"])))))[1:]
    assert all(word in again for word in point) and not any("search" in word for word in again)
    status, out, err = cli(*again)
    summary = json.loads((Path(best["run"]) / "summary.json").read_text())
    assert status == 0 and "finished already" in out, err
    assert "test/accuracy" in summary["metrics"] and "unscored" not in summary, (
        "scored when nothing is chosen any more"
    )
    assert cli("evaluate", f"run={best['run']}", "split=test", "compute.threads=1")[0] == 0, (
        "the manifest is that of what is there"
    )


def test_values_that_go_together_make_a_grid(cli: Any) -> None:
    words = ["debug=smoke", *DATA, "zip(optimizer.lr=1e-3,2e-3; seed=3,4)"]
    status, out, err = cli("-m", *words)
    assert status == 0 and "run 2/2: optimizer.lr=0.002 seed=4" in out, err
    assert {summary["seed"] for summary in summaries()} == {3, 4}
    status, out, err = cli(*words)
    assert status == 2 and "zip(…) makes several runs: add -m" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["optimizer.lrr=interval(0,1)"], "did you mean 'optimizer.lr'"), (["optimizer.lr=interval(-1,1)"],
        "optimizer.lr=-1"),
        (["hydra.sweeper.samplr=tpe"], "samplr"), (["hydra.sweeper.sampler=tpee"], "did you mean 'tpe'"),
        (["model.hidden_size=choice(128,130)", "model.num_attention_heads=4"], "does not divide"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_search_is_said_before_the_first_trial(
    cli: Any, words: list[str], expected: str
) -> None:
    status, out, err = cli(*SWEEP, *words)
    assert status == 2 and expected in err and err.count("\n") == 1, err
    assert "training examples" not in out


def test_a_glob_tries_every_option_of_a_group(cli: Any) -> None:
    status, _, err = cli(
        *SWEEP, "schedule=glob([lin*,cos*])", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler=random"
    )
    assert status == 0 and {trial["schedule"] for trial in trials()} <= {"linear", "cosine"}, err


def test_a_search_is_a_sweep(cli: Any) -> None:
    status, _, err = cli("search=lr_batch")
    assert status == 2 and "add -m" in err


def test_the_wrong_direction_is_refused(cli: Any) -> None:
    status, out, err = cli(*SWEEP, "hydra.sweeper.direction=minimize", "hydra.sweeper.n_trials=1")
    assert status == 2 and "to maximize" in err and "training examples" not in out


def test_a_pruned_run_leaves_a_checkpoint_and_is_continued_by_hand(cli: Any) -> None:
    """A pruner that wants more than any run can give stops every one at its first evaluation."""
    pruning = [
        "hydra.sweeper.pruner=percentile",
        "++hydra.sweeper.pruner_options.percentile=1",
        "hydra.sweeper.pruner_options.n_startup_trials=1",
        "optimizer.lr=interval(1e-9,1e-2)",
    ]
    status, out, err = cli(
        *SWEEP, *pruning, "budget.steps=60", "evaluation.every_steps=20", "hydra.sweeper.n_trials=6"
    )
    assert status == 0, err
    states = [trial["state"] for trial in trials()]
    assert len(states) == 6 and set(states) == {"pruned", "complete"}
    folder = next(
        file.parent
        for file in Path("multirun").glob("synthetic-*/summary.json")
        if json.loads(file.read_text())["status"] == "pruned"
    )
    assert list(folder.glob("checkpoints/step-*"))
    config = (folder / "config.yaml").read_text()
    lr, batch = (
        next(line.split()[1] for line in config.splitlines() if line.strip().startswith(f"{key}:"))
        for key in ("lr", "batch_size")
    )
    status, out, err = cli(
        "debug=smoke",
        *DATA,
        "budget.steps=60",
        "evaluation.every_steps=20",
        f"optimizer.lr={lr}",
        f"budget.batch_size={batch}",
    )
    assert status == 0 and "continuing at step" in out and folder.name in out, out + err
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"


def test_a_failing_point_does_not_end_the_sweep_but_a_failing_space_does(cli: Any) -> None:
    _, _, err = cli(
        *SWEEP,
        "optimizer.lr=choice(1e-3,1e30)",
        "optimizer.clip_norm=0",
        "hydra.sweeper.n_trials=2",
        "hydra.sweeper.max_failure_rate=0.95",
    )
    assert {trial["state"] for trial in trials()} <= {"complete", "pruned", "fail"}
    assert sum(trial["state"] in ("complete", "pruned") for trial in trials()) == 2, err


def test_killed_at_any_moment_the_total_is_exact_and_nothing_is_run_twice() -> None:
    """SIGKILL of the sweep and of the job within it, three times, each at another moment; then the same
    command to its end.
    """
    for wait in (0, 1, 2):
        process = start("hydra.sweeper.n_trials=5")
        deadline = time.monotonic() + 120
        while finished() <= wait and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.kill(group=True)
        process.wait()
    process = start("hydra.sweeper.n_trials=5")
    out = process.wait()
    assert process.returncode == 0, out
    rows = trials()
    assert sum(row["state"] in ("complete", "pruned") for row in rows) == 5, rows
    scores = [
        (row["optimizer.lr"], row["budget.batch_size"])
        for row in rows
        if row["state"] in ("complete", "pruned")
    ]
    assert len(set(scores)) == 5
    assert sum(summary["status"] in ("finished", "pruned") for summary in summaries()) == 5


def test_two_sweeps_on_one_study_make_its_total_together() -> None:
    processes = [start("hydra.sweeper.n_trials=6") for _ in range(2)]
    for process in processes:
        out = process.wait()
        assert process.returncode == 0, out
    assert sum(row["state"] in ("complete", "pruned") for row in trials()) == 6
