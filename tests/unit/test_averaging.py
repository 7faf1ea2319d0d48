"""The average of weights is its closed form, stands in for them and leaves them as they were; a run saves it,
to the bit after a kill.
"""

import math

import torch
from torch import nn

import bertlab
from bertlab.runs.files import load_weights
from bertlab.training.steps.averaging import Average, averaged
from tiny import tiny

RUN = tiny("budget.steps=12", "budget.batch_size=16", "evaluation.every_steps=4", sizes=(200, 50, 50))


def test_it_is_its_closed_form() -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    average = Average([weight], 0.5)
    values = [2.0]
    for step in range(1, 30):
        with torch.no_grad():
            weight.fill_(math.sin(step))
        average.update(step)
        values.append(math.sin(step))
    decays = [min(0.5, (1 + step) / (10 + step)) for step in range(1, 30)]
    wanted = sum(
        value * (1 - ([0.0, *decays])[index] if index else 1.0) * math.prod(decays[index:])
        for index, value in enumerate(values)
    )
    assert abs(average.values[0].item() - wanted) < 1e-6
    with averaged(average):
        assert torch.equal(weight, average.values[0])
    assert weight.item() == torch.tensor(math.sin(29)).item()


def test_a_run_evaluates_selects_and_saves_the_average() -> None:
    plain, long, short = (bertlab.run([*RUN, f"optimizer.ema_decay={decay}"]) for decay in (0.0, 0.9, 1e-9))
    assert (plain.summary["weights"], long.summary["weights"]) == ("trained", "averaged")
    last, of_long, of_short = (load_weights(run.folder / "last.safetensors") for run in (plain, long, short))
    for name, weight in last.items():
        # what has no memory is the weights
        torch.testing.assert_close(of_short[name], weight, rtol=1e-5, atol=1e-7)
    assert any(not torch.allclose(of_long[name], weight, atol=1e-4) for name, weight in last.items())
    assert long.summary["metrics"]["validation/loss"] in long.history["validation/loss"].dropna().tolist(), (
        "scored as selected"
    )
    assert long.history["train/loss"].dropna().tolist() == plain.history["train/loss"].dropna().tolist(), (
        "training is as without it"
    )
