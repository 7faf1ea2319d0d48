"""Which weights a run keeps: those of the best score, of equal scores those of the lower loss; never others
than were written.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bertlab
from bertlab.config.schema import Evaluation
from bertlab.declarations import Metric
from bertlab.errors import RunError
from bertlab.runs import checkpoints
from bertlab.training import loop
from bertlab.training.loop import judge
from bertlab.training.steps.journal import Progress
from tiny import tiny


def select(folder: Path, evaluations: list[tuple[float, float]], primary: Metric) -> tuple[Progress, float]:
    """Evaluations as (score, loss), one a step; the progress, and the weight that was kept (its step)."""
    model: Any = nn.Linear(1, 1, bias=False)
    progress = Progress()
    for progress.step, (score, loss) in enumerate(evaluations, start=1):
        nn.init.constant_(model.weight, progress.step)
        if judge(
            Evaluation(), primary, progress, {f"validation/{primary.name}": score, "validation/loss": loss}
        ):
            progress.best_sha256 = checkpoints.save_best(folder, progress.step, model.state_dict())
    return progress, float(checkpoints.load_best(folder, progress.best_step, progress.best_sha256)["weight"])


@pytest.mark.parametrize(
    ("evaluations", "best"),
    [
        ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 2),
        ([(0.7, 1.0), (0.7, 0.9), (0.7, 0.95)], 2),
        ([(0.7, 0.9), (0.7, 1.0), (0.7, 0.9)], 1),
        ([(0.7, 0.2), (0.8, 3.0), (0.8, 2.0), (0.7, 0.1)], 3),
    ],
)
def test_of_equal_scores_the_lower_loss_decides(
    tmp_path: Path, evaluations: list[tuple[float, float]], best: int
) -> None:
    progress, kept = select(tmp_path, evaluations, Metric("accuracy", higher_is_better=True))
    assert progress.best_step == kept == best
    assert (progress.best_score, progress.best_loss) == evaluations[best - 1]
    other = [(1 - score, loss) for score, loss in evaluations]
    assert select(tmp_path / "other", other, Metric("rmse", higher_is_better=False))[1] == best


def test_an_equal_score_is_no_improvement_to_be_patient_for(tmp_path: Path) -> None:
    progress, _ = select(
        tmp_path, [(0.7, 1.0), (0.7, 0.9), (0.7, 0.8)], Metric("accuracy", higher_is_better=True)
    )
    assert progress.evaluations_without_improvement == 2


def test_a_run_keeps_the_weights_of_the_lower_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy held equal at every evaluation: the checkpoint of the lowest validation loss is the selected
    one.
    """
    real = loop.score

    def held(*arguments: Any) -> Any:
        metrics, measured = real(*arguments)
        return {**metrics, "validation/accuracy": 0.5}, measured

    monkeypatch.setattr(loop, "score", held)
    run = bertlab.run(tiny("budget.steps=12", "evaluation.every_steps=3", "optimizer.lr=0.01"))
    losses = run.history.dropna(subset=["validation/loss"]).set_index("step")["validation/loss"]
    assert run.summary["selected_step"] == losses.idxmin()
    assert run.summary["metrics"]["validation/loss"] == pytest.approx(losses.min(), rel=1e-4)


@pytest.mark.parametrize("how", ["flip", "gone"])
def test_best_weights_that_changed_on_disk_are_never_taken(tmp_path: Path, how: str) -> None:
    progress, _ = select(tmp_path, [(0.7, 1.0)], Metric("accuracy", higher_is_better=True))
    (file,) = tmp_path.glob("best-*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # of a weight: the file still opens
    file.unlink() if how == "gone" else file.write_bytes(content)
    with pytest.raises(RunError, match="missing or damaged since it was written"):
        checkpoints.load_best(tmp_path, progress.best_step, progress.best_sha256)


def test_a_run_whose_best_weights_were_damaged_says_so_and_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged between the last checkpoint and the end: one line; the same command then ends with the weights
    of an undisturbed run.
    """
    words = tiny(
        "budget.steps=6", "evaluation.every_steps=2", "optimizer.lr=0.01", "compute.checkpoint_seconds=0"
    )
    whole = bertlab.run([*words, "paths.output=whole"])
    real = checkpoints.load_best

    def damaged(folder: Path, step: int, sha256: str) -> Any:
        file = checkpoints.best_file(folder, step)
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        return real(folder, step, sha256)

    from bertlab.training import execution

    monkeypatch.setattr(execution, "load_best", damaged)
    with pytest.raises(RunError, match="goes on from before it"):
        bertlab.run([*words, "paths.output=disturbed"])
    monkeypatch.setattr(execution, "load_best", real)
    again = bertlab.run([*words, "paths.output=disturbed"])
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight), name
    assert again.summary["metrics"] == whole.summary["metrics"]
