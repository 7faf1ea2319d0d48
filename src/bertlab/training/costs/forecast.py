"""What runs would cost and what is done of them already, without training any: for `bertlab plan`.

Data is read and tokenised (which the runs need anyway, and find in the cache), models are built, and a few
steps of each kind of run are timed on this machine; everything else follows from the order of batches.
"""

import dataclasses
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bertlab.config.schema import Train
from bertlab.data.batches import BatchOrder, order_batches, order_of
from bertlab.data.feeding import WHOLE, Feed
from bertlab.data.material import Material, prepare
from bertlab.kernels import keep_freed_memory
from bertlab.runs.checkpoints import newest_step
from bertlab.runs.files import digest, write_text
from bertlab.runs.machine import Device, threads
from bertlab.training.assembly import Learner, Model, build_model, build_optimizer, frozen_weights
from bertlab.training.costs.flops import BACKWARD, training_flops
from bertlab.training.location import Located, locate
from bertlab.training.loop import accumulate

SECONDS_OF_TIMING = 2.0  # for each kind of run
STATES_OF_OPTIMIZER = 2  # of the size of the weights, as Adam has
NO_RAMP: dict[str, Any] = dict.fromkeys(
    ("batch_size_from", "batch_ramp_tokens", "length_from", "length_ramp_tokens")
)


@dataclass
class Forecast:
    """One run: where it lies, how far it is, what the whole of it takes."""

    folder: Path
    status: str  # finished, interrupted, pruned, failed, new
    parameters: int
    steps: int | None  # None: the budget is time alone
    steps_done: int
    tokens: float  # real tokens, over the whole run
    flops: float  # over the whole run
    seconds: float  # still to go, evaluations included
    stage: "Forecast | None"  # the pretraining that it needs
    averaged: bool = False  # whether checkpoints hold an average of the weights too

    @property
    def bytes_after(self) -> int:
        """Disk that the finished run takes: two sets of weights."""
        return 2 * 4 * self.parameters

    @property
    def bytes_during(self) -> int:
        """Disk while it runs: a checkpoint, the next one being written, the best weights."""
        return (2 * (1 + STATES_OF_OPTIMIZER + self.averaged) + 1) * 4 * self.parameters

    @property
    def is_done(self) -> bool:
        """Whether its command would compute nothing."""
        return self.status == "finished"


class Materials:
    """Data of runs, tokenised; what several of them share is prepared once."""

    def __init__(self) -> None:
        self.tokenizers: dict[Path, str] = {}  # what each run will leave behind, as JSON
        self.known: dict[str, Material] = {}

    def of(self, run: Located) -> Material:
        """A run's; of the pretraining that it needs, the tokenizer."""
        tokenizer = None
        if run.stage is not None:
            if run.stage.folder.path not in self.tokenizers:
                self.of(run.stage)
            tokenizer = self.tokenizers[run.stage.folder.path]
        with threads(run.device.threads):
            material = self._prepared(run, tokenizer)
        self.tokenizers[run.folder.path] = material.tokenizer.to_json()
        return material

    def _prepared(self, run: Located, tokenizer: str | None) -> Material:
        """As `prepare`; a tokenizer that a pretraining still to come will leave behind is given as JSON."""
        config = run.config
        parts = [
            dataclasses.asdict(part)
            for part in (config.dataset, config.tokenizer, config.objective, config.paths)
        ]
        key = digest({"parts": parts, "inputs": run.identity["inputs"], "tokenizer": tokenizer})
        if key not in self.known:
            with tempfile.TemporaryDirectory() as folder:
                own = Path(folder) / "tokenizer.json"
                if tokenizer is not None:
                    write_text(own, tokenizer)
                source = None if tokenizer is not None else config.init.source(config)
                self.known[key] = prepare(config, own, source)
        return self.known[key]


class Forecaster:
    """Surveys runs; what several of them share (data, timings, pretraining) is looked at once."""

    def __init__(self) -> None:
        self.stages: dict[Path, Forecast] = {}
        self.timings: dict[str, float] = {}
        self.materials = Materials()

    def survey(self, config: Train) -> Forecast:
        """One run. Raises UserError for what would stop it before its first step."""
        return self._survey_located(locate(config))

    def _survey_located(self, run: Located) -> Forecast:
        stage = None
        if run.stage is not None:
            stage = self._survey_located(run.stage)
            stage = self.stages.setdefault(stage.folder, stage)
        material = self.materials.of(run)
        with threads(run.device.threads):
            return self._survey(run, material, stage)

    def _survey(self, run: Located, material: Material, stage: Forecast | None) -> Forecast:
        config, device, folder, summary = run.config, run.device, run.folder, run.summary
        status = "new" if summary is None else str(summary["status"])
        done = newest_step(folder.checkpoints)
        status = "interrupted" if done and status == "new" else status
        model = build_model(config, material.tokenizer, material.objective)
        train = material.examples["train"]
        order = order_of(config, train)
        steps = order.total_steps(config.budget)
        # steps as they are in the end
        full = order_batches(train.lengths, dataclasses.replace(config.budget, **NO_RAMP), config.seed)
        tokens_per_step = float(train.lengths.mean()) * len(train.lengths) / max(1, full.steps_in(1.0))
        seconds_per_step = (
            0.0 if status == "finished" else self._seconds_per_step(config, model, material, full, device)
        )
        if steps is None:  # as many as the hours allow
            assert config.budget.hours is not None
            spent = 3600 * config.budget.hours
            seconds, seen = spent, spent / max(seconds_per_step, 1e-9)
        else:
            seen = float(steps)
            to_go = order.tokens_before(steps) - order.tokens_before(min(done, steps))
            seconds = to_go / max(tokens_per_step, 1e-9) * seconds_per_step
            seconds += (
                evaluation_tokens(config, material, order, steps, done)
                * seconds_per_step
                / max(tokens_per_step, 1e-9)
                / (1 + BACKWARD)
            )
            if config.budget.hours is not None:  # a cap on the other unit
                seconds, seen = (
                    min(seconds, 3600 * config.budget.hours),
                    min(seen, 3600 * config.budget.hours / max(seconds_per_step, 1e-9)),
                )
        if status == "finished" and summary is not None:
            seconds, seen = 0.0, float(summary["cost"]["steps"])
        tokens = seen * tokens_per_step if steps is None else order.tokens_before(round(seen))
        flops = training_flops(
            model.to("cpu"),
            material.objective,
            train,
            order,
            Device(torch.device("cpu"), "float32", device.threads),
            tokens,
        )
        parameters = sum(weight.numel() for weight in model.parameters())
        averaged = config.optimizer.ema_decay > 0
        return Forecast(folder.path, status, parameters, steps, done, tokens, flops, seconds, stage, averaged)

    def _seconds_per_step(
        self, config: Train, model: Model, material: Material, order: BatchOrder, device: Device
    ) -> float:
        """Of real steps on the run's own batches: the mean of those after the first, as many as fit in
        SECONDS_OF_TIMING.
        """
        length: dict[str, Any] = dict.fromkeys(("epochs", "steps", "tokens", "examples", "hours"))
        deciding = {
            "dataset": config.dataset,
            "objective": config.objective,
            "model": config.model,
            "finetune": config.finetune,
        }
        parts = {
            name: dataclasses.asdict(part) for name, part in {**deciding, "compute": config.compute}.items()
        }
        parts |= {
            "budget": dataclasses.asdict(dataclasses.replace(config.budget, **length)),
            "optimizer": {"name": config.optimizer.name},
        }
        key = digest({"words": material.tokenizer.vocab_size, **parts})
        if key not in self.timings:
            if device.device.type == "cpu":
                keep_freed_memory()
            self.timings[key] = time_steps(config, model, material, order, device)
        return self.timings[key]


def evaluation_tokens(
    config: Train, material: Material, order: BatchOrder, steps: int, done: int = 0
) -> float:
    """Tokens that evaluations still to come will read."""
    selects_by = config.evaluation.selects_by
    if selects_by not in material.examples:
        return 0.0
    interval = order.steps_between(config.evaluation, steps)
    remaining = -(-steps // interval) - done // interval
    lengths = {
        name: float(examples.lengths.sum()) for name, examples in material.examples.items() if name != "train"
    }
    # and once more with the selected weights
    return remaining * lengths[selects_by] + sum(lengths.values())


def time_steps(config: Train, model: Model, material: Material, order: BatchOrder, device: Device) -> float:
    """Mean seconds of an optimizer step, the first one left out; of the model as it is written, compiled or
    not in the run.

    Of a run of several processes the first one's share, without the exchange of gradients.
    """
    model.to(device.device).train()
    for weight in frozen_weights(config.finetune, model):
        weight.requires_grad_(False)
    optimizer = build_optimizer(config, model)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    micro_batch = config.compute.micro_batch_size or WHOLE
    feed = Feed(
        material.objective, material.examples["train"], order, None, micro_batch, 0, config.compute.processes
    )
    steps = feed.steps(0, device, config.compute.workers)
    began, taken = time.perf_counter(), []
    while True:
        before = time.perf_counter()
        loss, _, _ = accumulate(
            Learner(model, material.objective, device), feed, next(steps), device, weights
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss.total)  # waits for an accelerator
        taken.append(time.perf_counter() - before)
        if len(taken) > 1 and time.perf_counter() - began > SECONDS_OF_TIMING:
            break
    del optimizer
    if device.device.type == "cuda":
        torch.cuda.empty_cache()
    return sum(taken[1:]) / len(taken[1:])


def free_bytes(folder: Path) -> int:
    """Free disk where the folder is, or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
