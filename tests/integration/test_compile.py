"""`compute.compile=true`: the same training up to rounding, an identity of its own, no warnings, exact after
a kill.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bertlab.models.bert import dropout
from children import finish, kill_when, newest_step, only_run, result, start
from tiny import tiny

# With dropout: the compiled encoder draws what the plain one draws, so that both learn the same.
WORDS = tiny("objective=mlm", "objective.max_length=32", "model.num_hidden_layers=1", "budget.steps=24",
    "budget.batch_size=8",
             "evaluation.every_steps=8", "compute=cpu", sizes=(300, 40, 40))  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("g++") is None,
        reason="torch.compile needs a C++ compiler on a CPU (Debian: apt install g++)",
    ),
]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where what is compiled once is found again by the other processes of this file."""
    return str(tmp_path_factory.mktemp("kernels"))


def test_a_compiled_run_learns_the_same_and_continues_to_the_bit(
    kernels: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", kernels)
    finish(*WORDS, "paths.output=plain")
    words = [*WORDS, "compute.compile=true", "compute.checkpoint_seconds=0"]
    child = start(*words, "paths.output=whole")
    _, err = child.wait()
    assert child.returncode == 0 and not re.search(
        r"^[WE]\d{4} (?!.*No CUDA runtime is found)|recompile", err, re.MULTILINE
    ), err
    plain, whole = (
        json.loads((only_run(tmp_path / name) / "summary.json").read_text()) for name in ("plain", "whole")
    )
    assert plain["id"] != whole["id"]
    assert plain["metrics"]["validation/loss"] == pytest.approx(whole["metrics"]["validation/loss"], rel=1e-4)
    assert plain["cost"]["flops"] == pytest.approx(whole["cost"]["flops"], rel=1e-6)

    torn = tmp_path / "torn"
    kill_when(start(*words, f"paths.output={torn}"), lambda: newest_step(torn) >= 10)
    assert not (only_run(torn) / "model.safetensors").exists(), "the run was killed in the middle"
    assert "continuing at step" in finish(*words, f"paths.output={torn}")
    assert result(only_run(torn)) == result(only_run(tmp_path / "whole"))


@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # Python 3.13.0
@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is:DeprecationWarning"
)  # of torch's own import of its compiler
def test_compiled_dropout_draws_what_the_plain_one_draws_each_time_anew(
    kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice of the same values, which a compiler is tempted to compute once."""

    def twice(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.cos()
        return dropout(y, 0.25) * 2, dropout(y, 0.25) * 2

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", kernels)
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
