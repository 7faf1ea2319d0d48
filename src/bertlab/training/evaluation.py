"""Score a model on a split: every example once, batches of similar lengths, rows put back in the examples' order."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from bertlab.contracts import Examples, Objective
from bertlab.errors import DivergedError
from bertlab.runs.machine import Device, is_interactive


@torch.no_grad()
def measure(
    model: nn.Module, objective: Objective, examples: Examples, device: Device, batch_size: int, label: str = ""
) -> dict[str, np.ndarray]:
    """What the objective measures of each example, one row an example in their order. Dropout is off, random draws are fixed."""
    was_training = model.training
    model.eval()
    order = np.argsort(examples.lengths, kind="stable")
    parts = []
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc=label, unit="batch", leave=False, disable=not (label and is_interactive())):
        batch = objective.collate(examples, order[start : start + batch_size], None).to(device.device)
        with device.autocast():
            outputs = model(batch)
        part = objective.measure(outputs, batch)
        if any(np.isnan(values).any() for values in part.values() if values.dtype.kind == "f"):
            raise DivergedError(f"{label or 'predictions'}: the model's outputs are not finite numbers")
        parts.append(part)
    model.train(was_training)
    back = np.argsort(order, kind="stable")
    return {**{name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}, "row": examples.rows}


def score(
    model: nn.Module, objective: Objective, examples: Examples, device: Device, batch_size: int, split: str, rows: Any = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Scores named `split/name`, and the measured examples behind them; `rows` is the split that the examples are of.

    Raises DivergedError for a score that is no number, and ValueError for one that the objective does not declare.
    """
    measured = measure(model, objective, examples, device, batch_size, label=split)
    scores = objective.scores(measured, rows)
    declared = {metric.name for metric in objective.metrics}
    for name, value in scores.items():
        if isinstance(value, int | float):
            if name not in declared:
                raise ValueError(f"{type(objective).__name__} scores '{name}', which its metrics do not declare")
            if not math.isfinite(value):
                raise DivergedError(f"{split}/{name} is {value}: the model's outputs are not finite numbers")
    return {f"{split}/{name}": value for name, value in scores.items()}, measured


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The scores that are single numbers."""
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
