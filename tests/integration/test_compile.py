"""`compute.compile=true`: the same training up to rounding, an identity of its own, no warnings, exact after a kill."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import RUN, finish, kill_when, newest_step, only_run, result, start
from torch import Tensor

from bertlab.models.bert import dropout

WORDS = ["objective=mlm", "objective.max_length=32", "model.num_hidden_layers=1", "model.hidden_size=32", "model.hidden_dropout=0",
         "model.attention_dropout=0", "dataset.train_size=300", "dataset.validation_size=40", "dataset.test_size=40", "budget.steps=20",
         "budget.batch_size=8", "evaluation.every_steps=10", "compute=cpu", "compute.threads=1"]  # fmt: skip


pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU (Debian: apt install g++)")


def test_a_compiled_run_learns_the_same() -> None:
    found: list[dict[str, Any]] = []
    for compiled in ("false", "true"):
        command = [sys.executable, "-m", "bertlab", *WORDS, f"compute.compile={compiled}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0 and not re.search(r"^[WE]\d{4} (?!.*No CUDA runtime is found)|recompile", done.stderr, re.MULTILINE), (
            done.stderr
        )
        folder = Path(done.stdout.splitlines()[-1].removeprefix("run: "))
        found.append(json.loads((folder / "summary.json").read_text()))
    plain, compiled_run = found
    assert plain["id"] != compiled_run["id"]
    assert plain["metrics"]["validation/loss"] == pytest.approx(compiled_run["metrics"]["validation/loss"], rel=1e-4)
    assert plain["cost"]["flops"] == pytest.approx(compiled_run["cost"]["flops"], rel=1e-6)


def test_a_compiled_run_with_dropout_continues_to_the_bit(tmp_path: Path) -> None:
    words = [word for word in RUN if not word.startswith(("objective.", "budget.epochs", "compute.checkpoint_seconds"))]
    words += ["objective=mlm", "objective.max_length=32", "budget.epochs=2", "compute.compile=true", "compute.checkpoint_seconds=0"]
    finish(*words, f"paths.output={tmp_path / 'whole'}")
    torn = tmp_path / "torn"
    kill_when(start(*words, f"paths.output={torn}"), lambda: newest_step(torn) >= 10)
    assert not (only_run(torn) / "model.safetensors").exists(), "the run was killed in the middle"
    assert "continuing at step" in finish(*words, f"paths.output={torn}")
    assert result(only_run(torn)) == result(only_run(tmp_path / "whole"))


@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # Python 3.13.0
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is:DeprecationWarning")  # of torch's own import of its compiler
def test_compiled_dropout_draws_what_the_plain_one_draws_each_time_anew() -> None:
    """Twice of the same values, which a compiler is tempted to compute once."""

    def twice(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.cos()
        return dropout(y, 0.25) * 2, dropout(y, 0.25) * 2

    found = []
    for function in (twice, torch.compile(twice)):
        torch.manual_seed(3)
        x = torch.zeros(100_000, requires_grad=True)
        first, second = function(x)
        (first + 2 * second).sum().backward()
        found.append((first, second, x.grad))
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain)
    first, second, _ = found[1]
    assert abs(float((first != 0).float().mean()) - 0.75) < 0.01
    assert abs(float(((first != 0) == (second != 0)).float().mean()) - (0.75**2 + 0.25**2)) < 0.01
