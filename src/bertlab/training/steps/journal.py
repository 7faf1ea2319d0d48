"""What is kept of a run while it trains: progress, records, spikes, checkpoints, clocks."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertlab.config.schema import Train
from bertlab.contracts import Loss
from bertlab.data.feeding import Step
from bertlab.errors import DivergedError
from bertlab.runs.checkpoints import ResumeState, best_file, newest_whole, save_checkpoint
from bertlab.runs.machine import Device
from bertlab.runs.progress import say
from bertlab.training.assembly import Model
from bertlab.training.several.exchange import Alone
from bertlab.training.steps.averaging import Average
from bertlab.training.steps.randomness import rng_state
from bertlab.training.steps.spikes import COUNTED, Trend

LOG_EVERY = 20  # steps between training records
TOLD_SPIKES = 5  # in a line each; all are counted


@dataclass
class Progress:
    """What changes during a run beside weights, optimizer and generators; saved with every checkpoint."""

    step: int = 0
    epoch: float = 0.0
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    core_seconds: float = 0.0  # processor time, evaluation included: honest where the machine is shared
    loss_total: float = 0.0  # since the last training record
    loss_count: float = 0.0
    loss_largest: float = -math.inf  # of one step since then
    trend: dict[str, Any] = field(default_factory=dict)  # of the loss: a Trend's fields
    spikes: list[int] = field(default_factory=list)  # steps whose loss was one
    counts: dict[str, tuple[float, float]] = field(default_factory=dict)  # Batch.counts since then
    best_score: float | None = None
    best_step: int = 0
    best_sha256: str = ""  # of the file with the best weights
    best_loss: float = math.inf  # the validation loss beside the best score, which decides between equal ones
    evaluations_without_improvement: int = 0
    stopped: str = ""  # why training ended before its budget
    records: list[dict[str, float]] = field(default_factory=list)
    asked: int = 0  # the signal by which to end once the run has finished; never saved


@dataclass(frozen=True)
class Unread:
    """A step whose loss and gradient norm nobody has looked at yet: that would make the host wait."""

    step: int
    loss: Loss
    norm: Tensor
    lr: float


@dataclass(frozen=True)
class Due:
    """What a step is followed by."""

    record: bool  # of training
    evaluation: bool
    snapshot: bool
    checkpoint: bool

    @property
    def values(self) -> bool:
        """Whether losses must be known, for which an accelerator's host waits."""
        return self.record or self.evaluation or self.checkpoint


def due(step: int, is_last: bool, asked: bool, unsaved: bool, evaluate_at: int | None, snapshot: bool) -> Due:
    """What step number `step`, counted from 1, is followed by. `asked`: to stop; `unsaved`: for long;
    `evaluate_at`: after every so many steps, None where nothing is scored on the way.
    """
    return Due(
        record=step % LOG_EVERY == 0 or is_last,
        evaluation=evaluate_at is not None and (step % evaluate_at == 0 or is_last),
        snapshot=snapshot,
        checkpoint=asked or unsaved or is_last or snapshot,
    )


@dataclass
class Journal:
    """What is kept of a run while it goes on: its progress, records, checkpoints and clocks."""

    config: Train
    model: Model
    optimizer: torch.optim.Optimizer
    average: Average | None
    device: Device
    folder: Path  # of checkpoints
    run: str  # its id
    log: Callable[[dict[str, float]], None]
    processes: Alone
    progress: Progress
    unread: list[Unread] = field(default_factory=list)
    running: Tensor = field(init=False)  # loss since the last record
    # clocks, started by `begin`
    started: float = field(init=False)
    started_cores: float = field(init=False)
    saved_at: float = field(init=False)
    recorded_at: float = field(init=False)
    recorded_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        for earlier in self.progress.records:
            self.log(earlier)

    def begin(self) -> None:
        """Start the clocks: of training, of the last checkpoint, of the last record."""
        processes, progress = self.processes, self.progress
        own = progress.core_seconds if processes.is_first else 0.0
        self.started_cores = processes.core_seconds() - own
        self.started, self.saved_at = processes.seconds() - progress.seconds, time.perf_counter()
        self.recorded_at, self.recorded_tokens = processes.seconds(), progress.tokens
        self.running = torch.tensor(progress.loss_total, dtype=torch.float32, device=self.device.device)

    def record(self, values: dict[str, float]) -> None:
        """At this step."""
        values = {"step": self.progress.step, "epoch": round(self.progress.epoch, 6), **values}
        self.progress.records.append(values)
        self.log(values)

    def note(self, step: Step, loss: Loss, tokens: int, counts: dict[str, tuple[float, float]]) -> None:
        """Add up what a step has read and lost."""
        progress = self.progress
        progress.epoch = step.epochs_done
        progress.examples += len(step.rows)
        progress.tokens += tokens
        progress.loss_count += loss.count
        self.running += loss.total
        for name, (part, whole) in counts.items():
            parts, wholes = progress.counts.get(name, (0.0, 0.0))
            progress.counts[name] = (parts + part, wholes + whole)

    def agree(self, received: list[int], now: float) -> tuple[int, float]:
        """What all processes go by: the signal to stop by, 0 for none, and the seconds since a checkpoint.

        Once a step: what is asked from here on is done in the next one, with a checkpoint of its own.
        """
        told = self.processes.gather(
            (
                self.processes.signal(received),
                now - self.started,
                time.perf_counter() - self.saved_at,
                self.processes.core_seconds() - self.started_cores,
            )
        )
        self.progress.core_seconds = float(told[:, 3].sum())
        _, self.progress.seconds, unsaved, _ = told[0].tolist()
        return int(told[:, 0].max()), unsaved

    def settle(self) -> None:
        """Read what was left unread. Raises DivergedError."""
        for one in self.unread:
            check_finite(one.loss, one.norm, one.step, one.lr, self.folder)
        self.progress.loss_total = float(self.running)
        note_spikes(self.config, self.progress, self.unread)

    def record_training(self, norm: Tensor, lr: float, now: float) -> str:
        """A record of the steps since the last one, and a line on them."""
        progress = self.progress
        speed = (progress.tokens - self.recorded_tokens) / max(now - self.recorded_at, 1e-9)
        loss = progress.loss_total / progress.loss_count
        self.record(
            {
                "train/loss": loss,
                "train/lr": lr,
                "train/grad_norm": float(norm),
                "train/largest_loss": progress.loss_largest,
                "train/spikes": len(progress.spikes),
                "train/tokens_per_s": speed,
                "train/tokens": progress.tokens,
                **{
                    f"train/{name}": part / max(whole, 1.0) for name, (part, whole) in progress.counts.items()
                },
            }
        )
        progress.loss_total, progress.loss_count, progress.loss_largest = 0.0, 0.0, -math.inf
        progress.counts = {}
        self.running.zero_()
        self.recorded_at, self.recorded_tokens = now, progress.tokens
        return f"loss {loss:.4f}, {speed:,.0f} tokens/s"

    def leave_out(self, seconds: float) -> None:
        """Evaluation is not training time."""
        self.started += seconds
        self.recorded_at = self.processes.seconds()

    def checkpoint(self) -> None:
        """Everything that a restart needs."""
        progress, folder, processes = self.progress, self.folder, self.processes
        generators = processes.gather_objects(rng_state(self.device.device))
        state: dict[str, Any] = {
            "optimizer": processes.whole(self.optimizer.state_dict()),
            "rng": generators[0],
            "progress": {name: value for name, value in vars(progress).items() if name != "asked"},
        }
        if processes.of > 1:
            state["rng_of_others"] = generators[1:]
        if self.average is not None:
            state["average"] = processes.whole(self.average.values)
        best = (
            {best_file(folder, progress.best_step).name: progress.best_sha256} if progress.best_sha256 else {}
        )
        weights = processes.whole(self.model.state_dict())
        if processes.is_first:
            save_checkpoint(folder, ResumeState(self.run, progress.step, weights, state, best))
        self.saved_at = time.perf_counter()


def check_finite(loss: Loss, norm: Tensor, step: int, lr: float, folder: Path) -> None:
    """Stop before a non-finite update reaches the weights. Raises DivergedError."""
    if math.isfinite(float(loss.total)) and math.isfinite(float(norm)):
        return
    saved = newest_whole(folder)
    last = "there is no checkpoint yet" if saved is None else f"the last good checkpoint is {saved}"
    raise DivergedError(
        f"training diverged at step {step}: loss {float(loss.total) / loss.count:.4g}, gradient norm"
        f" {float(norm):.4g}, learning rate {lr:.3g}; {last}. Lower optimizer.lr, lengthen"
        " schedule.warmup_fraction or lower optimizer.clip_norm"
    )


def note_spikes(config: Train, progress: Progress, unread: list[Unread]) -> bool:
    """Judge the losses of the steps up to now, which are read with that; whether the last of them is a
    spike.
    """
    asked, trend, is_spike = config.optimizer.skip_spikes, Trend(**progress.trend), False
    for one in unread:
        value = float(one.loss.total) / one.loss.count
        is_spike = trend.see(value, asked or COUNTED)
        progress.loss_largest = max(progress.loss_largest, value)
        if is_spike:
            progress.spikes.append(one.step)
            if len(progress.spikes) <= TOLD_SPIKES:
                done = (
                    "its update is left out"
                    if asked
                    else "optimizer.skip_spikes would leave such updates out"
                )
                say(
                    f"step {one.step}: loss {value:.4g} is a spike; {done}"
                    + "; no more are told" * (len(progress.spikes) == TOLD_SPIKES)
                )
    unread.clear()
    progress.trend = vars(trend)
    return is_spike
