"""Score a model on a split: every example once, batches of similar lengths, rows put back in the examples'
order.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from bertlab.contracts import Batch, Examples, Objective
from bertlab.errors import DivergedError
from bertlab.promises import broken, expect, told
from bertlab.runs.machine import Device
from bertlab.runs.progress import each
from bertlab.training.several.exchange import ALONE, Alone


@torch.no_grad()
def measure(
    model: nn.Module,
    objective: Objective,
    examples: Examples,
    device: Device,
    batch_size: int,
    label: str = "",
    processes: Alone = ALONE,
) -> dict[str, np.ndarray]:
    """What the objective measures of each example, one row an example in their order. Dropout is off, random
    draws are fixed.

    Several processes take batches in turn, which are those of one, and all get all of the rows.
    """
    was_training = model.training
    model.eval()
    order = np.argsort(examples.lengths, kind="stable")
    parts = []
    starts = range(0, len(order), batch_size)
    own = list(starts[processes.rank :: processes.of])
    if processes.in_parts:  # one without a batch of its own has a part in the others' all the same
        own += [0] * (len(starts[:: processes.of]) - len(own))
    with processes.listening():
        for start in each(own, f"scoring {label}".strip(), len(own), "batches"):
            made = objective.collate(examples, order[start : start + batch_size], None)
            batch = expect(made, Batch, objective, "collate").to(device.device)
            with device.autocast():
                outputs = model(batch)
            parts.append(measured_of(objective, outputs, batch))
    processes.put_away(model)
    model.train(was_training)
    shares = processes.gather_objects(parts)
    parts = [shares[index % processes.of][index // processes.of] for index in range(len(starts))]
    back = np.argsort(order, kind="stable")
    measured = {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}
    if any(np.isnan(values).any() for values in measured.values() if values.dtype.kind == "f"):
        raise DivergedError(f"{label or 'predictions'}: the model's outputs are not finite numbers")
    return {**measured, "row": examples.rows}


def score(
    model: nn.Module,
    objective: Objective,
    examples: Examples,
    device: Device,
    batch_size: int,
    split: str,
    rows: Any = None,
    processes: Alone = ALONE,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Scores named `split/name`, and the measured examples behind them; `rows` is the split that the examples
    are of.

    Raises DivergedError for a score that is not finite, and ConfigError for one that the objective does not
    declare.
    """
    measured = measure(model, objective, examples, device, batch_size, split, processes)
    scores = processes.same(lambda: checked_scores(objective, objective.scores(measured, rows)))
    for name, value in scores.items():
        if isinstance(value, int | float):
            if not math.isfinite(value):
                raise DivergedError(f"{split}/{name} is {value}: the model's outputs are not finite numbers")
    return {f"{split}/{name}": value for name, value in scores.items()}, measured


def measured_of(objective: Objective, outputs: Any, batch: Batch) -> dict[str, np.ndarray]:
    """What the objective measures of one batch. Raises ConfigError for what is no array of its examples."""
    measured: dict[str, np.ndarray] = expect(objective.measure(outputs, batch), dict, objective, "measure")
    for name, values in measured.items():
        if not isinstance(values, np.ndarray):
            right = "it must be a numpy array with one element an example"
            raise broken(objective, "measure", f"returned {name} as {told(values)}", right)
    return measured


def checked_scores(objective: Objective, returned: Any) -> dict[str, Any]:
    """An objective's scores: each metric that it declares, and no other number. Raises ConfigError."""
    scores: dict[str, Any] = expect(returned, dict, objective, "scores")
    declared = [metric.name for metric in objective.metrics]
    needed = [metric.name for metric in objective.metrics if not metric.may_lack]
    if missing := [name for name in needed if name not in scores]:
        right = f"it must return each metric that its config's metrics declares: {', '.join(needed)}"
        raise broken(objective, "scores", f"returned no {', '.join(missing)}", right)
    for name, value in scores.items():
        is_number = isinstance(value, int | float)
        if name in declared and not is_number:
            raise broken(
                objective, "scores", f"returned {name} as {told(value)}", "it must be a number, float(…)"
            )
        if is_number and name not in declared:
            right = "declare it there or leave it out"
            raise broken(
                objective, "scores", f"returned {name}, which its config's metrics does not declare", right
            )
    return scores


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The scores that are single numbers."""
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
