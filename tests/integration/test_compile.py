"""`compute.compile=true`: the same training up to rounding, an identity of its own, no warnings."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORDS = ["objective=mlm", "objective.max_length=32", "model.num_hidden_layers=1", "model.hidden_size=32", "model.hidden_dropout=0",
         "model.attention_dropout=0", "dataset.train_size=300", "dataset.validation_size=40", "dataset.test_size=40", "budget.steps=20",
         "budget.batch_size=8", "evaluation.every_steps=10", "compute=cpu", "compute.threads=1"]  # fmt: skip


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU (Debian: apt install g++)")
def test_a_compiled_run_learns_the_same() -> None:
    found: list[dict[str, Any]] = []
    for compiled in ("false", "true"):
        command = [sys.executable, "-m", "bertlab", *WORDS, f"compute.compile={compiled}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0 and "W1" not in done.stderr and "recompile" not in done.stderr, done.stderr
        folder = Path(done.stdout.splitlines()[-1].removeprefix("run: "))
        found.append(json.loads((folder / "summary.json").read_text()))
    plain, compiled_run = found
    assert plain["id"] != compiled_run["id"]
    assert plain["metrics"]["validation/loss"] == pytest.approx(compiled_run["metrics"]["validation/loss"], rel=1e-4)
    assert plain["cost"]["flops"] == pytest.approx(compiled_run["cost"]["flops"], rel=1e-6)
