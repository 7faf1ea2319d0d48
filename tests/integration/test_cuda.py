"""On a CUDA device: the same training as on the processor, up to rounding; killed, continued, compiled, out
of memory.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

import bertlab
from children import finish, kill_when, newest_step, only_run, result, start
from tiny import tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TEXT = tiny(
    "budget.steps=60",
    "budget.batch_size=16",
    "evaluation.every_steps=30",
    sizes=(600, 60, 40),
    width=64,
    heads=2,
)
STILL = ["model.hidden_dropout=0", "model.attention_dropout=0"]
TASKS = {
    "classification": ["objective.head_dropout=0"],
    "mlm": ["objective=mlm", "objective.max_length=32"],
    "rotary": [
        "objective=mlm",
        "objective.max_length=32",
        "model.positions=rotary",
        "model.norm_placement=pre",
    ],
}


def losses(run: bertlab.Run) -> list[float]:
    return [float(value) for value in run.history["validation/loss"].dropna()]


@pytest.mark.parametrize("task", ["classification", "mlm", "rotary"])
def test_float32_training_is_that_of_the_processor(task: str) -> None:
    words = [*TEXT, *STILL, *TASKS[task], "compute.precision=float32"]
    here, there = (bertlab.run([*words, f"compute.device={device}"]) for device in ("cpu", "cuda"))
    assert here.folder != there.folder, "another device rounds differently: another identity"
    assert losses(there) == pytest.approx(losses(here), rel=2e-3)


@pytest.mark.filterwarnings("default::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_learns_as_float32_does(compiled: bool) -> None:
    words = [*TEXT, *STILL, *TASKS["rotary"], "compute.device=cuda"]
    exact, fast = (
        bertlab.run([*words, "compute.precision=float32"]),
        bertlab.run([*words, f"compute.compile={compiled}"]),
    )
    assert fast.summary["id"] != exact.summary["id"]
    assert losses(fast) == pytest.approx(losses(exact), rel=2e-2)


@pytest.mark.parametrize("task", ["classification", "mlm"])
def test_a_killed_run_continues_exactly(task: str, tmp_path: Path) -> None:
    """With dropout, whose generator is the device's. The kernels used add up in a fixed order, so that two
    runs are equal bit by bit.
    """
    words = [
        *TEXT,
        "budget.steps=400",
        "compute.checkpoint_seconds=0",
        *TASKS[task],
        "compute.device=cuda",
        "compute.workers=2",
    ]
    finish(*words, "paths.output=whole")
    whole = result(only_run(tmp_path / "whole"))
    killed = tmp_path / "killed"
    kill_when(start(*words, "paths.output=killed"), lambda: newest_step(killed) >= 70)
    assert "continuing at step" in finish(*words, "paths.output=killed")
    assert result(only_run(killed)) == whole


def test_memory_that_really_runs_out_halves_the_micro_batch() -> None:
    words = [*TEXT, *STILL, *TASKS["mlm"], "objective.max_length=512", "model.hidden_size=512",
        "budget.steps=2", "budget.batch_size=64",
             "compute.device=cuda", "compute.precision=float32", "dataset.train_size=6000"]  # fmt: skip
    whole = bertlab.run(words)
    torch.cuda.empty_cache()
    memory = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1.2e9 / memory))
    try:
        squeezed = bertlab.run([*words, "paths.output=squeezed"])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    fitted: Any = squeezed.summary["cost"]["micro_batch"]
    assert fitted is not None and fitted < 64
    assert losses(squeezed) == pytest.approx(losses(whole), rel=1e-3)


@pytest.mark.parametrize("task", ["classification", "mlm", "rotary"])
def test_seeds_trained_together_are_what_each_is_alone(task: str) -> None:
    """Without dropout, which they draw from one generator here; with it they train all the same."""
    words = [*TEXT, *TASKS[task], "compute.device=cuda", "compute.precision=float32", "seed=range(3)"]
    together = bertlab.sweep([*words, *STILL, "compute.together=3"])
    for one, other in zip(together, bertlab.sweep([*words, *STILL]), strict=True):
        assert losses(one) == pytest.approx(losses(other), rel=2e-3)
    assert len(bertlab.sweep([*words, "compute.together=3"])) == 3
