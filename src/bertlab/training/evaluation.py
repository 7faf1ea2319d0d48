"""Score a model on a split: every example once, batches of similar lengths, rows put back in the examples'
order.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from bertlab.contracts import Examples, Objective
from bertlab.errors import DivergedError
from bertlab.runs.machine import Device
from bertlab.runs.progress import each
from bertlab.training.together import ALONE, Alone


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
    own = starts[processes.rank :: processes.of]
    for start in each(own, f"scoring {label}".strip(), len(own), "batches"):
        batch = objective.collate(examples, order[start : start + batch_size], None).to(device.device)
        with device.autocast():
            outputs = model(batch)
        parts.append(objective.measure(outputs, batch))
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

    Raises DivergedError for a score that is no number, and ValueError for one that the objective does not
    declare.
    """
    measured = measure(model, objective, examples, device, batch_size, split, processes)
    scores = processes.same(lambda: objective.scores(measured, rows))
    declared = {metric.name for metric in objective.metrics}
    for name, value in scores.items():
        if isinstance(value, int | float):
            if name not in declared:
                raise ValueError(
                    f"{type(objective).__name__} scores '{name}', which its metrics do not declare"
                )
            if not math.isfinite(value):
                raise DivergedError(f"{split}/{name} is {value}: the model's outputs are not finite numbers")
    return {f"{split}/{name}": value for name, value in scores.items()}, measured


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The scores that are single numbers."""
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
