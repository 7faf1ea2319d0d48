"""The training loop: plain torch, every step in sight, exact to the bit after a kill.

A step is a function of (weights, optimizer, generators, step number); a checkpoint holds the first three, the
batch plan makes the data of any step from its number. Losses are summed over units (examples, masked tokens)
and divided by the effective batch's count, so that micro-batches of unequal counts weigh right, and so do the
shares of several processes: each computes its own of every forward pass, all take the same step, the first
one writes.
"""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from bertlab.config.schema import Evaluation, Train
from bertlab.contracts import Examples, Loss, Metric, Objective
from bertlab.data.batches import order_of
from bertlab.data.feeding import WHOLE, Feed, Step, worker_deaths_explained
from bertlab.errors import DataError, DivergedError, RunError
from bertlab.kernels import Part, as_part
from bertlab.runs.checkpoints import (
    ResumeState,
    best_file,
    load_checkpoint,
    newest_whole,
    save_best,
    save_checkpoint,
)
from bertlab.runs.machine import Device
from bertlab.runs.progress import say, working
from bertlab.training.assembly import Learner, Model
from bertlab.training.averaging import Average, average_of, averaged
from bertlab.training.evaluation import scalars, score
from bertlab.training.pairs import Snapshots
from bertlab.training.randomness import restore_rng_state, rng_state
from bertlab.training.several.exchange import ALONE, Alone
from bertlab.training.spikes import COUNTED, Trend

LOG_EVERY = 20  # steps between training records
TOLD_SPIKES = 5  # in a line each; all are counted
HANGUP = () if sys.platform == "win32" else (signal.SIGHUP,)  # a terminal that goes away


class Interrupted(Exception):  # noqa: N818  # not an error: somebody asked
    """SIGINT, SIGTERM or SIGHUP: the run has been checkpointed and can be continued, or it was at its end and
    has finished; what would come after it does not begin.
    """

    def __init__(self, number: int, is_finished: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status, self.is_finished = 128 + number, is_finished

    @property
    def line(self) -> str:
        """For a person."""
        how = "run finished" if self.is_finished else "checkpoint written"
        return f"{self}: {how}; the same command continues"


class Pruned(Exception):  # noqa: N818  # not an error: a sweep has better things to do
    """A sweep asked to stop after an evaluation: the run has been checkpointed and can be continued."""


class MemoryExhausted(Exception):  # noqa: N818  # the run is begun again in smaller parts
    """A forward or backward pass did not fit in memory; so many examples at a time may."""

    def __init__(self, micro_batch: int) -> None:
        super().__init__(micro_batch)
        self.micro_batch = micro_batch


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


def fit(
    config: Train,
    model: Model,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    examples: dict[str, Examples],
    rows: dict[str, Any],
    device: Device,
    folder: Path,
    run: str,
    log: Callable[[dict[str, float]], None],
    should_prune: Callable[[], bool] | None = None,
    snapshots: Snapshots | None = None,
    processes: Alone = ALONE,
) -> Progress:
    """Train until the budget is spent, evaluating and checkpointing on the way; continue from `folder` where
    it holds a checkpoint of `run`, its id.

    `rows` are the splits that the examples are of. Of several `processes` each returns the same progress and
    holds the same weights. Afterwards `model` holds the last weights, or their average where
    `optimizer.ema_decay` asks for one; the best ones lie beside the checkpoints (`load_best`). Every record
    goes to `log`, those of the time before a restart first. `snapshots` are measured on the way and change
    nothing. Raises DivergedError for a non-finite loss, Interrupted after a checkpoint on SIGINT/SIGTERM (one
    that comes with the last step is left to the caller, as `asked`), Pruned after one where `should_prune`,
    asked after every evaluation but the last, says that going on is not worth it.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    average = average_of(weights, config.optimizer, processes.own)
    progress = resume(folder, run, model, optimizer, average, device, processes)
    journal = Journal(config, model, optimizer, average, device, folder, run, log, processes, progress)
    order = order_of(config, examples["train"])
    total = order.total_steps(config.budget)
    total_tokens = (
        order.tokens_before(total) if config.schedule.by == "tokens" and total is not None else None
    )
    evaluate_at = order.steps_between(config.evaluation, total)
    micro_batch = config.compute.micro_batch_size or WHOLE
    feed = Feed(objective, examples["train"], order, total, micro_batch, processes.rank, processes.of)
    learner = processes.learner(Learner(model, objective, device))
    peak_lr = [group["peak_lr"] for group in optimizer.param_groups]
    model.train()
    journal.begin()
    shown = working("training", total, "steps", progress.step)
    steps = feed.steps(progress.step, device, config.compute.workers)
    skips, selects_by = config.optimizer.skip_spikes is not None, config.evaluation.selects_by
    waiting = processes.listening()
    with interruptible() as received, shown as bar, worker_deaths_explained(), closing(steps), waiting:
        while not progress.stopped and (total is None or progress.step < total):
            step = next(steps)
            at = (
                progress.step
                if total_tokens is None or total is None
                else total * step.tokens_before / total_tokens
            )
            factor = config.schedule.factor(at, total)
            for group, peak in zip(optimizer.param_groups, peak_lr, strict=True):
                group["lr"] = peak * factor

            # one optimizer step: forward and backward by micro-batch, clip, update
            loss, tokens, counts = accumulate(learner, feed, step, device, weights, processes)
            if loss.count == 0:
                raise DataError(
                    f"step {progress.step + 1} has nothing to learn from: objective={config.objective.name}"
                    f" ({config.objective.loss_unit}) finds none in its {len(step.rows)} examples; raise"
                    " budget.batch_size, or leave such texts out"
                )
            norm = clip_gradients(weights, config.optimizer.clip_norm, processes)
            lr = optimizer.param_groups[0]["lr"]
            # elsewhere reading a value would make the host wait: checked with the next record
            if device.device.type == "cpu" or skips:
                check_finite(loss, norm, progress.step + 1, lr, folder)
            journal.unread.append(Unread(progress.step + 1, loss, norm, lr))
            # what is left out must be known now
            if not (skips and note_spikes(config, progress, journal.unread)):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            seen = 0.0 if snapshots is None else snapshots.seen(progress.tokens, progress.epoch)
            progress.step += 1
            if average is not None:
                average.update(progress.step)
            journal.note(step, loss, tokens, counts)
            now = processes.seconds()
            asked, unsaved = journal.agree(received, now)
            bar.advance()
            is_last = progress.step == total or over_time(config, progress)
            after = 0.0 if snapshots is None else snapshots.seen(progress.tokens, progress.epoch)
            wants = due(
                progress.step, is_last, asked > 0, unsaved >= config.compute.checkpoint_seconds,
                evaluate_at if selects_by in examples else None,
                snapshots is not None and snapshots.due(seen, after),
            )  # fmt: skip
            if wants.values:
                journal.settle()
            if wants.record:
                bar.note = journal.record_training(norm, lr, now)
            if over_time(config, progress):
                progress.stopped = "budget.hours"
            if snapshots is not None and wants.snapshot and processes.is_first:
                with averaged(average):
                    journal.record(snapshots.record(progress.tokens, progress.epoch))
            if wants.evaluation:
                with averaged(average):
                    metrics, _ = score(
                        model, objective, examples[selects_by], device, config.evaluation.batch_size,
                        selects_by, rows[selects_by],
                        processes,
                    )  # fmt: skip
                    journal.record(scalars(metrics))
                    is_best = judge(config.evaluation, objective.primary, progress, metrics)
                    line = describe(progress, metrics, f"{selects_by}/{objective.primary.name}")
                    say(f"{processes.seed}{line}")
                    best = processes.whole(model.state_dict()) if is_best else {}
                    if is_best and processes.is_first:
                        progress.best_sha256 = save_best(folder, progress.step, best)
            if wants.evaluation or wants.snapshot:
                journal.leave_out(processes.seconds() - now)
            prune = (
                wants.evaluation
                and not (is_last or progress.stopped)
                and should_prune is not None
                and should_prune()
            )
            if processes.either(wants.checkpoint or bool(progress.stopped) or prune):
                journal.settle()
                journal.checkpoint()
            if asked and not is_last:
                raise Interrupted(asked)
            if prune and not received:
                raise Pruned
    progress.asked = int(processes.gather([processes.signal(received)]).max())
    if average is not None:
        average.put_in()
    return progress


def accumulate(
    learner: torch.nn.Module,
    feed: Feed,
    step: Step,
    device: Device,
    weights: list[torch.nn.Parameter],
    processes: Alone = ALONE,
) -> tuple[Loss, int, dict[str, tuple[float, float]]]:
    """Gradients of the mean loss over a step, of all processes; returns the summed loss, the real tokens and
    `Batch.counts` summed.

    Raises MemoryExhausted where a pass does not fit.
    """
    total, count, tokens = torch.zeros((), device=device.device), 0.0, 0
    counts: dict[str, tuple[float, float]] = {}
    is_whole = len(step.batches) == 1 and processes.of == 1
    # an accelerator's fused kernels draw as they like
    draws_whole = processes.of > 1 and device.device.type == "cpu"
    shares = feed.shares(len(step.rows))
    longest = processes.gather([batch.input_ids.shape[1] for batch in step.batches]).max(0)
    try:
        for index, (made, share) in enumerate(zip(step.batches, shares, strict=True)):
            batch = made.to(device.device)
            own = Part(share.first, share.own, share.all, int(longest[index])) if draws_whole else None
            with as_part(own), processes.backward(learner, index == len(step.batches) - 1):
                nats, units = learner(batch)
                (nats / max(units, 1) if is_whole else nats if share.counts else nats * 0.0).backward()
            if share.counts:
                total, count, tokens = total + nats.detach(), count + units, tokens + batch.num_tokens
                for name, (part, whole) in batch.counts.items():
                    before = counts.get(name, (0.0, 0.0))
                    counts[name] = (before[0] + part, before[1] + whole)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fitting = max(batch.num_examples for batch in step.batches)
        if fitting == 1:
            raise RunError(
                "out of memory with one example at a time: lower objective.max_length, or take a smaller"
                " model"
            ) from error
        raise MemoryExhausted((fitting + 1) // 2) from None  # without the graph that did not fit
    if processes.of > 1:
        names = sorted(made.counts)
        told = processes.gather(
            [count, tokens, *(value for name in names for value in counts.get(name, (0.0, 0.0)))]
        )
        count, seen, *pairs = told.sum(0).tolist()
        total, tokens, counts = (
            processes.add_up(total),
            int(seen),
            dict(zip(names, zip(pairs[::2], pairs[1::2], strict=True), strict=True)),
        )
    if not is_whole and count > 0:
        gradients = processes.own(weight.grad for weight in weights if weight.grad is not None)
        torch._foreach_div_(gradients, float(count) / processes.of)
    return Loss(total, count), tokens, counts


def clip_gradients(weights: list[torch.nn.Parameter], largest: float, processes: Alone = ALONE) -> Tensor:
    """Scale all gradients down to a global norm of `largest` (0 = never) and return the norm before (Pascanu
    et al. 2013).
    """
    gradients = processes.own(weight.grad for weight in weights if weight.grad is not None)
    norm = processes.norm(gradients)
    # a CPU is spared the pass over all gradients where nothing changes
    if largest > 0 and (norm.is_cuda or float(norm) > largest):
        torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm


OUT_OF_MEMORY = (
    "can't allocate memory",
    "could not create a primitive",
    "not enough memory",
    "out of memory",
    "unable to mmap",
)


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """CUDA's own class, Python's, or what the CPU's allocator and kernels say, for which torch
    has no class.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        sign in str(error).lower() for sign in OUT_OF_MEMORY
    )


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


def over_time(config: Train, progress: Progress) -> bool:
    """Whether the wall-clock budget is spent."""
    return config.budget.hours is not None and progress.seconds >= 3600 * config.budget.hours


def judge(evaluation: Evaluation, primary: Metric, progress: Progress, metrics: dict[str, Any]) -> bool:
    """Note an evaluation, count those without a better score, stop when patience ends; whether its weights
    are the best so far.
    """
    value, loss = (
        float(metrics[f"{evaluation.selects_by}/{primary.name}"]),
        float(metrics.get(f"{evaluation.selects_by}/loss", math.inf)),
    )
    is_better = primary.better(value, progress.best_score)
    is_best = is_better or (value == progress.best_score and loss < progress.best_loss)
    if is_best:
        progress.best_score, progress.best_loss, progress.best_step = value, loss, progress.step
    progress.evaluations_without_improvement = (
        0 if is_better else progress.evaluations_without_improvement + 1
    )
    if evaluation.patience is not None and progress.evaluations_without_improvement >= evaluation.patience:
        progress.stopped = "evaluation.patience"
    return is_best


def describe(progress: Progress, metrics: dict[str, Any], selected_by: str) -> str:
    """One line an evaluation."""
    star = " *" if progress.best_step == progress.step else ""
    names = dict.fromkeys((selected_by, f"{selected_by.partition('/')[0]}/loss"))
    scores = "  ".join(f"{name} {metrics[name]:.4f}" for name in names if name in metrics)
    return f"step {progress.step}  epoch {progress.epoch:.2f}  {scores}{star}"


def resume(
    folder: Path,
    run: str,
    model: Model,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    device: Device,
    processes: Alone = ALONE,
) -> Progress:
    """Put everything back from the newest whole checkpoint; a fresh Progress where there is none."""
    state = load_checkpoint(folder, run, processes.first_step(folder))
    steps = processes.gather([0 if state is None else state.step])[:, 0]
    if (steps != steps[0]).any():
        raise RunError(
            f"{folder}: the processes of this run see other checkpoints in it; put paths.output where all see"
            " the same"
        )
    if state is None:
        return Progress()
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    model.load_state_dict(processes.cut(state.weights, model.state_dict()))
    # its states are told by the numbers of their weights
    optimizer.load_state_dict(processes.cut(state.state["optimizer"], {"state": dict(enumerate(weights))}))
    if average is not None:
        average.load(processes.cut(state.state["average"], average.values))
    generators = [state.state["rng"], *state.state.get("rng_of_others", ())]
    restore_rng_state(generators[processes.rank], device.device)
    print(f"{processes.seed}continuing at step {state.step}")
    return Progress(**state.state["progress"])


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of dying by them; the loop looks after every step. A second
    SIGINT acts at once.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, *HANGUP)}

    def note(number: int, _: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(int(number))

    for number in previous:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
