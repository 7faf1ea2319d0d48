"""A grid's last word: its runs beside each other, means over seeds with intervals, and what did not finish by name."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bertlab.report.stats import summarize

DATA = ["debug=smoke", "dataset.train_size=200", "dataset.validation_size=40", "dataset.test_size=40", "compute=cpu", "compute.threads=1"]


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
            f"optimizer.lr={lr}: validation/accuracy {of.mean:.4f} ± {of.sd:.4f}, n = 3, 95 % interval {of.low:.4f} to {of.high:.4f}" in out
        )


def test_a_run_that_failed_is_in_the_table_with_its_status(cli: Any) -> None:
    status, out, err = cli("-m", *DATA, "optimizer.lr=1e-3,1e30", "optimizer.clip_norm=0", "budget.steps=30")
    assert status == 2 and "diverged" in err
    assert re.search(r"^0\.001 +0\.\d{4}", out, re.MULTILINE) and re.search(r"^1e\+?30 +- .*\(failed\)$", out, re.MULTILINE), out


@pytest.mark.parametrize("words", [["seed=0"], []])
def test_a_grid_of_one_has_no_table(cli: Any, words: list[str]) -> None:
    status, out, _ = cli("-m", *DATA, *words)
    assert status == 0 and "minutes" not in out
