"""The training loop: plain torch, every step in sight, exact to the bit after a kill.

A step is a function of (weights, optimizer, generators, step number); a checkpoint holds the first three, the
batch plan makes the data of any step from its number. Losses are summed over units (examples, masked tokens)
and divided by the effective batch's count, so that micro-batches of unequal counts weigh right, and so do the
shares of several processes: each computes its own of every forward pass, all take the same step, the first
one writes.
"""

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertlab.config.schema import Evaluation, Train
from bertlab.contracts import Examples, Loss, Metric, Objective
from bertlab.data.batches import order_of
from bertlab.data.feeding import WHOLE, Feed, Step, worker_deaths_explained
from bertlab.errors import DataError, RunError
from bertlab.kernels import Part, as_part
from bertlab.runs.checkpoints import load_checkpoint, save_best
from bertlab.runs.machine import Device
from bertlab.runs.progress import say, working
from bertlab.training.assembly import Learner, Model
from bertlab.training.evaluation import scalars, score
from bertlab.training.pairs import Snapshots
from bertlab.training.several.exchange import ALONE, Alone
from bertlab.training.steps.averaging import Average, average_of, averaged
from bertlab.training.steps.journal import Journal, Progress, Unread, check_finite, due, note_spikes
from bertlab.training.steps.randomness import restore_rng_state
from bertlab.training.steps.stops import Interrupted, MemoryExhausted, Pruned, interruptible, is_out_of_memory


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
    processes: Alone,
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
