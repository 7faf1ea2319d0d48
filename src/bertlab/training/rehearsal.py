"""Before training, what plugins promise is seen on a few examples: a wrong loss or a missing score is told
now, not after an epoch.
"""

import numpy as np
import torch

from bertlab.config import registry
from bertlab.config.schema import Train
from bertlab.contracts import Batch, Draw, Examples, Objective
from bertlab.data.material import Material
from bertlab.promises import broken, expect, lies_in, told
from bertlab.runs.machine import choose_device
from bertlab.training.assembly import Learner, Model
from bertlab.training.evaluation import checked_scores, measured_of
from bertlab.training.steps.randomness import restore_rng_state, rng_state

FEW = 8  # examples


@torch.no_grad()
def rehearse(config: Train, model: Model, material: Material) -> None:
    """A few examples through model, loss and scores, where either is a plugin's; nothing is changed by it.
    Raises ConfigError for a broken promise.
    """
    folders = registry.plugin_folders()
    if not any(lies_in(type(part), folders) for part in (config.model, config.objective)):
        return
    generators = rng_state(torch.device("cpu"))
    model.eval()
    try:
        _learn(config, model, material)
        _score(config, model, material)
    finally:
        model.train()
        restore_rng_state(generators, torch.device("cpu"))


def _learn(config: Train, model: Model, material: Material) -> None:
    objective, train = material.objective, material.examples["train"]
    numbers = np.arange(min(FEW, len(train)))
    batch = _batch(objective, train, numbers, Draw(config.seed, 0))
    hidden = model.encoder(batch.input_ids, batch.segment_ids, batch.attention_mask)
    right = f"it must return a Tensor of shape (B, T, D), here {(*batch.input_ids.shape, '…')}"
    if not isinstance(hidden, torch.Tensor):
        raise broken(model.encoder, "forward", f"returned {told(hidden)}", right)
    if hidden.shape[:-1] != batch.input_ids.shape:
        raise broken(model.encoder, "forward", f"returned a Tensor of shape {tuple(hidden.shape)}", right)
    device = choose_device("cpu", "float32", config.compute.threads)
    total, count = Learner(model, objective, device)(batch)
    if not (isinstance(total, torch.Tensor) and total.ndim == 0):
        shape = (
            f"of shape {tuple(total.shape)}" if isinstance(total, torch.Tensor) else f"that is {told(total)}"
        )
        raise broken(objective, "loss", f"returned Loss(total, count) with a total {shape}",
            "it must be a Tensor of one number, the sum over units")  # fmt: skip
    if not isinstance(count, int | float):
        raise broken(objective, "loss", f"returned Loss(total, count) with a count that is {told(count)}",
            "it must be a number, how many units total is the sum of")  # fmt: skip


def _score(config: Train, model: Model, material: Material) -> None:
    """On the first examples of what is scored during training."""
    objective, split = material.objective, config.evaluation.selects_by
    if split not in material.examples:
        return
    examples = material.examples[split]
    numbers = np.arange(min(FEW, len(examples)))
    batch = _batch(objective, examples, numbers, None)
    measured = {**measured_of(objective, model(batch), batch), "row": examples.rows[numbers]}
    rows = material.dataset.splits[split].select(range(int(measured["row"].max()) + 1))
    # a score of a few rows may be one that there is not, e.g. where all are of one class
    try:
        scores = objective.scores(measured, rows)
    except Exception:
        if len(numbers) == len(examples):
            raise
        return
    checked_scores(objective, scores)


def _batch(objective: Objective, examples: Examples, numbers: np.ndarray, draw: Draw | None) -> Batch:
    batch: Batch = expect(objective.collate(examples, numbers, draw), Batch, objective, "collate")
    return batch
