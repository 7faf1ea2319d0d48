"""`bertlab plan`: what it says of runs is what they turn out to be; nothing is trained or left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bertlab.config.composition import compose_schema
from bertlab.training.costs.forecast import Forecast, Forecaster

pytestmark = pytest.mark.slow

DATA = [
    "debug=smoke",
    "dataset.fraction=1",
    "dataset.train_size=200",
    "dataset.validation_size=40",
    "dataset.test_size=40",
    "compute=cpu",
    "compute.threads=1",
]
STAGE = ["init=stage", "init.dataset=synthetic", "++init.dataset.train_size=60",
    "++init.dataset.validation_size=20",
         "++init.dataset.test_size=20", "init.budget.steps=3"]  # fmt: skip


def table(output: str) -> list[dict[str, str]]:
    """The plan's rows; columns are two spaces or more apart."""
    lines = output.splitlines()
    start = next(
        index for index, line in enumerate(lines) if line.lstrip().startswith(("seed", "status", "optimizer"))
    )
    names = re.split(r" {2,}", lines[start].strip())
    rows = []
    for line in lines[start + 1 :]:
        cells = re.split(r" {2,}", line.strip())
        if not cells[0].isdigit():
            break
        rows.append(dict(zip(names, cells[1:], strict=True)))
    return rows


def test_a_plan_says_what_the_runs_turn_out_to_be(cli: Any) -> None:
    grid = ["-m", *DATA, "seed=0,1"]
    status, out, err = cli("plan", *grid)
    assert status == 0, err
    assert [row["status"] for row in table(out)] == ["new", "new"] and "2 runs: 0 finished, 2 to do" in out
    assert not Path("multirun").exists()
    assert cli(*grid)[0] == 0
    for row in table(out):
        summary = json.loads((Path("multirun") / row["run"] / "summary.json").read_text())
        assert int(row["steps"]) == summary["cost"]["steps"]
        # batches of the smoke test differ in length
        assert float(row["FLOPs"]) == pytest.approx(summary["cost"]["flops"], rel=0.5)
        stored = sum(file.stat().st_size for file in (Path("multirun") / row["run"]).glob("*.safetensors"))
        assert float(row["disk"].split()[0]) * 1e6 == pytest.approx(stored, rel=0.05)
    status, out, _ = cli(*grid, "--dry-run")
    assert (
        status == 0
        and [row["status"] for row in table(out)] == ["finished", "finished"]
        and "about 0 s" in out
    )


def test_a_pretraining_is_listed_once_with_what_it_takes(cli: Any) -> None:
    words = ["-m", *DATA, *STAGE, "seed=0,1"]
    status, out, err = cli("plan", *words)
    assert status == 0, err
    planned = re.findall(r"^pretraining: (\S+)  new ", out, re.MULTILINE)
    assert len(planned) == 1
    assert cli(*words)[0] == 0
    assert (Path(planned[0]) / "summary.json").is_file() and all(
        (Path("multirun") / row["run"]).is_dir() for row in table(out)
    )
    _, out, _ = cli("plan", *words)
    assert f"pretraining: {planned[0]}  finished" in out


def test_errors_of_every_run_are_told_and_the_others_planned(cli: Any) -> None:
    status, out, err = cli(
        "plan", "-m", *DATA, "objective.max_length=16,600,-1", "model.max_position_embeddings=64"
    )
    assert status == 2 and len(table_of_one(out)) == 1 and "2 with errors" in out
    assert (
        "run 2 (objective.max_length=600): objective.max_length=600 is longer" in err
        and "run 3 (objective.max_length=-1)" in err
    )
    assert err.count("\n") == 2 and not Path("multirun").exists()


def test_a_plan_says_what_the_seeds_of_a_grid_can_show(
    cli: Any, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arms are what differs beside seeds, pretrainings and folds; a record's spread is that of its pairs."""
    untimed = Forecast(Path("multirun", "run"), "new", 1, 1, 0, 1.0, 1.0, 1.0, None)
    monkeypatch.setattr(Forecaster, "survey", lambda *_: untimed)
    grid = ["-m", "experiment=bertsst2", f"paths.mirror={shared_data}", "optimizer.lr=5e-4,1e-3"]
    records = Path(__file__).parents[2] / "experiments"
    pilot = f"pilot={records / '009-sst2-scratch-against-pretrained' / 'report'}"
    status, out, err = cli("plan", *grid, "seed=range(6)", "effect=0.5", pilot)
    assert status == 0 and "2 arms, 1 comparison with a baseline, 6 seeds each" in out, err
    assert "differences of 2 arms" in out and "paired t         finds" in out
    pilot = f"pilot={records / '015-flagship-ladder-on-two-cores' / 'report'}"
    stage = ["init=stage", "init.dataset=imdb_text", "init.objective=mlm", "init.budget.steps=1"]
    status, out, _ = cli("plan", *grid, *stage, "init.seed=${seed}", "seed=range(3)", "effect=0.5", pilot)
    assert status == 0 and "3 pretrainings each of 1 seed" in out and "spread of a difference 1.27" in out
    assert "the pilot has one seed a pretraining" in out
    status, out, err = cli("plan", *grid, "dataset.folds=2", "dataset.fold=0,1", "effect=0.5")
    assert status == 0 and "2 arms, 1 comparison with a baseline, 2 folds each" in out, err
    assert "times its spread" in out and "pilot=RUNS" in out


def table_of_one(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("1  ")]


def test_a_search_is_planned_by_the_corners_of_its_space(cli: Any) -> None:
    status, out, err = cli("plan", "-m", "search=lr_batch", *DATA, "hydra.sweeper.n_trials=7")
    assert status == 0 and "a search of 7 trials" in out and "a trial takes" in out, err
    assert not Path("multirun").exists()


def test_what_does_not_go_with_a_plan_is_refused(cli: Any) -> None:
    assert cli("plan", "--cfg", "job")[0] == 2
    assert cli("predict", "--dry-run", "run=x")[0] == 2
    status, _, err = cli("plan", "seeed=1")
    assert status == 2 and "did you mean 'seed'" in err and err.count("\n") == 1


def test_an_interrupted_run_is_planned_by_what_is_left_of_it(cli: Any) -> None:
    words = [*DATA, "budget.steps=100000", "evaluation.every_steps=1000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bertlab", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while (
        not any('"train/loss"' in file.read_text() for file in Path("multirun").glob("*/metrics.jsonl"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 143
    status, out, err = cli("plan", *words)
    (line,) = table_of_one(out)
    step = int(next(Path("multirun").glob("*/checkpoints/step-*")).name.partition("-")[2])
    assert status == 0 and f"interrupted at step {step:,}" in line, err


def test_a_cap_of_hours_shortens_the_plan_of_another_budget() -> None:
    """A hundred thousand steps or four seconds, whichever comes first; tokens and operations are those that
    the time allows.
    """
    words = [*DATA, "budget.steps=100000", "evaluation.every_steps=1000000"]
    whole, capped = (
        Forecaster().survey(compose_schema("train", [*words, *extra]))
        for extra in ([], ["budget.hours=0.001"])
    )
    assert capped.seconds == pytest.approx(3.6) and whole.seconds > 10
    assert capped.tokens < whole.tokens / 2 and capped.flops < whole.flops / 2


def test_a_pretraining_of_a_pretraining_is_listed_too(cli: Any) -> None:
    words = [
        *DATA, *STAGE, "init.tokenizer=inherited", "init.init=stage", "init.init.dataset=synthetic",
        "init.init.budget.steps=2",
        "++init.init.dataset.train_size=60", "++init.init.dataset.validation_size=20",
        "++init.init.dataset.test_size=20",
    ]  # fmt: skip
    status, out, err = cli("plan", *words)
    assert status == 0, err
    assert out.count("pretraining: ") == 2 and "1 run: 0 finished, 1 to do" in out
