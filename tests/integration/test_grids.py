"""A grid's last word: its runs beside each other, means over seeds with intervals, and what did not finish by
name.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bertlab.cli.grid import arms
from bertlab.declarations import Metric
from bertlab.report.stats import summarize

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


def test_a_grid_ends_in_its_runs_and_their_means(cli: Any) -> None:
    status, out, err = cli("-m", *DATA, "seed=range(3)", "optimizer.lr=1e-3,1e-2", "budget.steps=30")
    assert status == 0, err
    found: dict[str, list[float]] = {}
    for lr, score, folder in re.findall(r"^\d +(\S+) +(0\.\d{4}) .* (multirun/\S+)$", out, re.MULTILINE):
        summary = json.loads((Path(folder) / "summary.json").read_text())
        assert score == f"{summary['metrics']['validation/accuracy']:.4f}"
        found.setdefault(lr, []).append(summary["metrics"]["validation/accuracy"])
    assert {lr: len(scores) for lr, scores in found.items()} == {"0.001": 3, "0.01": 3}
    for lr, scores in found.items():
        of = summarize(scores)
        assert (
            f"optimizer.lr={lr}: validation/accuracy {of.mean:.4f} ± {of.sd:.4f}, n = 3, 95 % interval"
            f" {max(of.low, 0):.4f} to {min(of.high, 1):.4f}" in out
        )


def test_a_run_that_failed_is_in_the_table_with_its_status(cli: Any) -> None:
    status, out, err = cli("-m", *DATA, "optimizer.lr=1e-3,1e30", "optimizer.clip_norm=0", "budget.steps=30")
    assert status == 2 and "diverged" in err
    assert err.count("\n") == 1 and err.startswith(
        "bertlab: run 2/2: optimizer.lr=1e+30: training diverged"
    ), err
    assert (
        re.search(r"^run 1/2: optimizer.lr=0.001$", out, re.MULTILINE)
        and len(re.findall(r"^accuracy: validation 0", out, re.MULTILINE)) == 1
    )
    assert re.search(r"^0\.001 +0\.\d{4}", out, re.MULTILINE) and re.search(
        r"^1e\+?30 +- .*\(failed\)$", out, re.MULTILINE
    ), out


@pytest.mark.parametrize("words", [["seed=0"], []])
def test_a_grid_of_one_has_no_table(cli: Any, words: list[str]) -> None:
    status, out, _ = cli("-m", *DATA, *words)
    assert status == 0 and "minutes" not in out


def test_an_interval_is_no_number_that_the_score_cannot_be() -> None:
    (line,) = arms({(): {(): [0.5, 0.99]}}, {(): Metric("validation/accuracy", True)})
    assert line.endswith("95 % interval 0.0000 to 1.0000")


def test_an_interval_on_the_command_line_is_searched_and_leaves_no_empty_folder(cli: Any) -> None:
    words = ["optimizer.lr=interval(1e-4,1e-3)", "hydra.sweeper.n_trials=1", "paths.output=there"]
    status, out, err = cli("-m", *DATA, *words)
    assert status == 0 and "1 trials finished" in out, err
    assert {folder.name for folder in Path("there").iterdir() if not folder.name.startswith("synthetic")} == {
        "studies"
    }
    assert not Path("multirun").exists()


def test_what_has_no_score_is_not_searched(cli: Any) -> None:
    status, _, err = cli("predict", "-m", "batch_size=interval(1,9)", "run=x")
    assert status == 2 and "has no score to search by" in err and err.count("\n") == 1


def test_a_group_of_another_job_is_named_with_it(cli: Any) -> None:
    status, _, err = cli("study=scratch_vs_pretrained")
    assert status == 2 and "study=… belongs to bertlab report" in err
    status, _, err = cli("dataset.train_file=x.csv")
    assert status == 2 and "it belongs to dataset=files" in err
