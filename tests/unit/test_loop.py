"""The loop's own arithmetic: clipping as torch does it, accumulation that weighs right."""

import multiprocessing
from typing import Any

import pytest
import torch
from torch import nn

import bertlab
import bertlab.errors
from bertlab.config.composition import compose_schema
from bertlab.training.costs.forecast import Forecaster
from bertlab.training.loop import clip_gradients
from bertlab.training.steps.journal import Due, due
from tiny import tiny

RUN = tiny("budget.steps=6", "budget.batch_size=24", "model.hidden_dropout=0", "model.attention_dropout=0",
    "objective.head_dropout=0",
           "compute.precision=float32", sizes=(200, 50, 50))  # fmt: skip


@pytest.mark.parametrize("largest", [0.5, 100.0, 0.0])
def test_clipping_is_torchs(largest: float) -> None:
    ours, theirs = (
        nn.ParameterList([nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5))]) for _ in range(2)
    )
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        a.grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(index))
        b.grad = a.grad.clone()
    norm = clip_gradients(list(ours), largest)
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), largest or float("inf"))
    torch.testing.assert_close(norm, expected)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize(
    ("step", "said", "expected"),
    [
        (3, {}, Due(record=False, evaluation=False, snapshot=False, checkpoint=False)),
        (20, {}, Due(record=True, evaluation=False, snapshot=False, checkpoint=False)),
        (14, {}, Due(record=False, evaluation=True, snapshot=False, checkpoint=False)),
        (3, {"is_last": True}, Due(record=True, evaluation=True, snapshot=False, checkpoint=True)),
        (3, {"asked": True}, Due(record=False, evaluation=False, snapshot=False, checkpoint=True)),
        (3, {"unsaved": True}, Due(record=False, evaluation=False, snapshot=False, checkpoint=True)),
        (3, {"snapshot": True}, Due(record=False, evaluation=False, snapshot=True, checkpoint=True)),
        (
            14,
            {"evaluate_at": None, "is_last": True},
            Due(record=True, evaluation=False, snapshot=False, checkpoint=True),
        ),
    ],
)
def test_what_a_step_is_followed_by(step: int, said: dict[str, Any], expected: Due) -> None:
    usual = {"is_last": False, "asked": False, "unsaved": False, "evaluate_at": 7, "snapshot": False}
    assert due(step, **{**usual, **said}) == expected
    assert expected.values == (expected != Due(False, False, False, False))


def test_micro_batches_of_unequal_size_give_the_same_training() -> None:
    whole, parts = (bertlab.run([*RUN, *extra]) for extra in ((), ("compute.micro_batch_size=7",)))
    assert whole.folder != parts.folder, "micro-batches round differently: another identity"
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], weight, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        (0, torch.OutOfMemoryError("CUDA out of memory")),
        (0, MemoryError()),
        (2, RuntimeError("could not create a primitive")),
    ],
)
def test_out_of_memory_is_begun_again_in_smaller_parts_as_a_run_of_its_own(
    monkeypatch: pytest.MonkeyPatch, workers: int, said: BaseException
) -> None:
    """To the bit what was asked for with that micro-batch; and the same command finds it again."""
    from bertlab.objectives import classification

    loss = classification.ClassificationObjective.loss

    def small_machine(self: Any, outputs: Any, batch: Any) -> Any:
        if batch.num_examples > 6 and outputs.requires_grad:
            raise said
        return loss(self, outputs, batch)

    asked = bertlab.run([*RUN, "compute.micro_batch_size=6", "paths.output=asked"])
    monkeypatch.setattr(classification.ClassificationObjective, "loss", small_machine)
    squeezed = bertlab.run([*RUN, "paths.output=squeezed", f"compute.workers={workers}"])
    assert squeezed.summary["cost"]["micro_batch"] == 6 and squeezed.folder.name == asked.folder.name
    for name, weight in asked.model.state_dict().items():
        assert torch.equal(squeezed.model.state_dict()[name], weight), name
    assert bertlab.run([*RUN, "paths.output=squeezed"]).folder == squeezed.folder
    planned = Forecaster().survey(compose_schema("train", [*RUN, "paths.output=squeezed"]))
    assert planned.folder.name == squeezed.folder.name and planned.is_done


def test_one_example_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from bertlab.objectives import classification

    def tiny_machine(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(classification.ClassificationObjective, "loss", tiny_machine)
    with pytest.raises(bertlab.errors.RunError, match="one example at a time"):
        bertlab.run(RUN)


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # Python 3.12, of any fork
def test_batches_made_ahead_by_other_processes_are_the_same_batches() -> None:
    words = [
        *RUN,
        "objective=mlm",
        "objective.max_length=32",
        "model.hidden_dropout=0.1",
        "objective.final_rate=0.3",
    ]
    words = [word for word in words if "head_dropout" not in word]
    alone, helped = (
        bertlab.run([*words, f"compute.workers={count}", f"paths.output=workers{count}"]) for count in (0, 3)
    )
    assert alone.folder.name == helped.folder.name, (
        "workers change no result, so they are no part of the identity"
    )
    for name, weight in alone.model.state_dict().items():
        assert torch.equal(helped.model.state_dict()[name], weight), name
    assert multiprocessing.active_children() == []


def test_hours_stop_the_run_and_leave_the_schedule_alone() -> None:
    run = bertlab.run([*RUN, "budget.steps=100000", "budget.hours=0.0005", "schedule=linear"])
    assert run.summary["stopped"] == "budget.hours" and run.summary["cost"]["steps"] < 100_000
    peak = run.history["train/lr"].dropna()
    assert peak.max() <= 5e-4 * run.summary["cost"]["steps"] / 10_000 * 1.01, (
        "warm-up is a tenth of 100000 steps, not of the time"
    )


def test_patience_stops_and_the_best_weights_are_kept() -> None:
    run = bertlab.run(
        [*RUN, "budget.steps=200", "evaluation.every_steps=5", "evaluation.patience=2", "optimizer.lr=1e-9"]
    )
    assert (
        run.summary["stopped"] == "evaluation.patience"
        and run.summary["cost"]["steps"] == 15
        and run.summary["selected_step"] == 5
    )


def test_debug_overfit_reaches_a_small_training_loss() -> None:
    run = bertlab.run(
        ["debug=overfit", "compute.threads=1", "dataset.validation_size=20", "dataset.test_size=20"]
    )
    assert run.history["train/loss"].dropna().iloc[-1] < 0.05


def test_every_epoch_evaluates_once_by_default() -> None:
    run = bertlab.run([*[word for word in RUN if "steps" not in word], "budget.epochs=2.5"])
    assert run.history["validation/loss"].dropna().shape[0] == 3
    assert run.history.loc[run.history["validation/loss"].notna(), "epoch"].tolist() == pytest.approx(
        [1, 2, 2.5], abs=0.1
    )
