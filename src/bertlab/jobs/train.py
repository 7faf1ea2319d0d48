"""`bertlab train`: train a model, or continue or skip a run that is already there (the job if none is named)

usage: bertlab [train] [group=option ...] [key=value ...] [-m]

Train a BERT-style encoder. Every choice is a group or a key; what you leave out has a default (see --cfg job).
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from bertlab import registry, store
from bertlab.assembly import Material, Model, build_initialized, build_optimizer, check_combination, prepare, set_up
from bertlab.checkpoint import clear_temporaries, save_weights, write_text
from bertlab.config import Train
from bertlab.contracts import Metric, RunInfo, Tracker
from bertlab.data.batches import plan_batches
from bertlab.errors import ConfigError, RunError
from bertlab.evaluation import score
from bertlab.flops import BACKWARD, count_forward, product_rate
from bertlab.identity import identify
from bertlab.loop import Interrupted, Progress, Pruned, fit, load_best
from bertlab.results import Context, Outcome, Trial, announce, write_summary
from bertlab.runtime import Device, choose_device, provenance, threads, to_json
from bertlab.saved import config_yaml, save_run
from bertlab.trackers.local import LocalTracker

Schema = Train


def run(config: Train, context: Context) -> list[float]:
    """Train and tell the result; returns the primary metric on validation, or the scores that a sweep asks for instead."""
    outcome = train(config, context)
    announce(outcome)
    return outcome.scores(context.trial.objectives if context.trial else [])


def train(config: Train, context: Context) -> Outcome:
    """Run, continue or skip: whatever this config's folder needs. Raises UserError for what the user can mend."""
    stage = config.init.stage(config)
    check_combination(config)
    device = choose_device(config.compute.device, config.compute.precision, config.compute.threads)
    identity = identify(config, device)
    folder = store.run_folder(config, identity["id"])
    finished = finished_outcome(folder)
    if finished is not None:
        return finished
    pretraining = None if stage is None else train(stage, dataclasses.replace(context, trial=None))
    source = config.init.source(config) if pretraining is None else pretraining.folder
    with threads(device.threads):
        material = prepare(config, identity["inputs"], folder / "tokenizer.json", source)
        model = build_initialized(config, material.tokenizer, material.objective, source)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"paths.output={config.paths.output}: cannot be used ({reason}); name another folder") from error
        with locked(folder):
            finished = finished_outcome(folder)  # by another process, while this one waited
            if finished is not None:
                return finished
            clear_temporaries(folder)
            return compute(config, context, identity, folder, device, material, model, pretraining)


def finished_outcome(folder: Path) -> Outcome | None:
    """The outcome of a finished run, None where there is still something to do."""
    summary = store.read_summary(folder)
    if summary is None or summary["status"] != "finished":
        return None
    return Outcome(folder, summary, skipped=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process a run; the system frees the lock of a killed one. A second one waits for the first, then finds it finished."""
    guard = FileLock(folder / ".lock")
    try:
        guard.acquire(timeout=0)
    except Timeout:
        print(f"{folder} is being computed by another process; waiting for it", flush=True)
        guard.acquire()
    try:
        yield
    finally:
        guard.release()


def compute(
    config: Train,
    context: Context,
    identity: dict[str, Any],
    folder: Path,
    device: Device,
    material: Material,
    model: Model,
    pretraining: Outcome | None,
) -> Outcome:
    """Everything between an empty or interrupted folder and a summary with status `finished`."""
    describe_run(folder, config, context, identity, device)
    write_text(folder / "tokenizer.json", material.tokenizer.to_json())
    optimizer = build_optimizer(config, set_up(model, config, device))
    trackers: list[Tracker] = []
    summary: dict[str, Any] = {"status": "failed", "id": identity["id"], "seed": config.seed, "command": context.command}
    try:
        print(
            f"{folder.name}: {config.objective.name} on {config.dataset.name}, {len(material.examples['train']):,} training examples",
            flush=True,
        )
        trackers += start_trackers(config, context, identity, folder, material)
        place, log = folder / "checkpoints", broadcast(trackers)
        should_prune = None if context.trial is None else context.trial.should_prune
        progress = fit(config, model, optimizer, material.objective, material.examples, device, place, log, should_prune)
        selected = load_best(folder / "checkpoints", progress) if config.evaluation.keep == "best" else model.state_dict()
        save_weights(folder / "last.safetensors", model.state_dict())
        save_run(folder, material, model, selected)
        model.load_state_dict(selected)
        metrics = final_scores(config, model, material, device, folder)
        summary = {
            "status": "finished",
            "id": identity["id"],
            "metrics": metrics,
            "selected_by": f"validation/{material.objective.primary.name}",
            "selected_step": progress.best_step if config.evaluation.keep == "best" else progress.step,
            "last": last_validation(progress),
            "cost": cost(config, progress, model, material, device),
            "stopped": progress.stopped or "budget",
            "seed": config.seed,
            "command": context.command,
        }
        if pretraining is not None:
            summary["stage"] = {"run": pretraining.folder.name, "cost": pretraining.summary["cost"]}
        write_summary(folder, summary)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # a finished run needs no resume state
    except (Interrupted, KeyboardInterrupt):
        summary["status"] = "interrupted"
        raise
    except Pruned:
        summary["status"] = "pruned"
        raise
    except BaseException as error:
        summary["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        if summary["status"] != "finished":
            write_summary(folder, summary)
        with ExitStack() as closing:  # all of them, whatever happens to one
            for tracker in trackers:
                closing.callback(tracker.finish, summary)
    return Outcome(folder, summary)


def describe_run(folder: Path, config: Train, context: Context, identity: dict[str, Any], device: Device) -> None:
    """config.yaml, identity.json, environment.json: what the run is, and who computes it."""
    write_text(folder / "config.yaml", config_yaml(config))
    write_text(folder / "identity.json", to_json(identity))
    environment = {**provenance(context.command), "threads": device.threads}
    write_text(folder / "environment.json", to_json(environment))
    with (folder / "sessions.jsonl").open("a", encoding="utf-8") as sessions:  # one line for each process that worked on the run
        sessions.write(json.dumps({"started_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **environment}) + "\n")


def start_trackers(config: Train, context: Context, identity: dict[str, Any], folder: Path, material: Material) -> list[Tracker]:
    """Local files always, then the chosen tracker."""
    info = RunInfo(
        run_id=identity["id"],
        folder=folder,
        title=f"{config.dataset.name} {config.objective.name} seed {config.seed} ({identity['id']})",
        job="train",
        config=json.loads(json.dumps(dataclasses.asdict(config))),
        labels=material.objective.label_names,
        primary=material.objective.primary.name,
        tags=config.tags,
        sweep=context.sweep,
    )
    chosen = [registry.module_of(config.tracker).build(config.tracker, info)] if config.tracker.name != "local" else []
    reporting = [] if context.trial is None else [TrialTracker(context.trial, material.objective.primary)]
    return [LocalTracker(info), *chosen, *reporting]


class TrialTracker:
    """Tells a sweep the primary metric of every evaluation, those before a restart included. See contracts.Tracker.

    Evaluations are numbered, not dated by their step: with another batch size a step has seen other amounts of data.
    """

    def __init__(self, trial: Trial, primary: Metric) -> None:
        self.trial, self.name, self.evaluations = trial, f"validation/{primary.name}", 0
        wanted = "maximize" if primary.higher_is_better else "minimize"
        if not trial.objectives and trial.directions != [wanted]:  # would choose the worst run
            raise ConfigError(f"hydra.sweeper.direction={', '.join(trial.directions)}: this objective's score is to {wanted}")

    def log(self, record: dict[str, Any]) -> None:
        """Training records pass by."""
        if self.name in record:
            self.evaluations += 1
            self.trial.report(self.evaluations, record[self.name])

    def finish(self, summary: dict[str, Any]) -> None:
        """The command line tells the final result."""


def broadcast(trackers: list[Tracker]) -> Any:
    """One `log` for all trackers."""

    def log(record: dict[str, float]) -> None:
        for tracker in trackers:
            tracker.log(record)

    return log


def final_scores(config: Train, model: Any, material: Material, device: Device, folder: Path) -> dict[str, Any]:
    """Validation and, once, test, with the selected weights; the bound where it is known; predictions for later statistics."""
    metrics: dict[str, Any] = {}
    for split in ("validation", "test"):
        if split not in material.examples:
            continue
        found, measured = score(model, material.objective, material.examples[split], device, config.evaluation.batch_size, split)
        metrics |= found
        if config.evaluation.save_predictions:
            rows = material.objective.predictions(measured)
            lines = (json.dumps({"index": index, **row}, ensure_ascii=False) for index, row in enumerate(rows))
            write_text(folder / "predictions" / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))
        for name, best in material.dataset.best_possible.get(split, {}).items():
            metrics[f"best_possible/{name}" if split == "validation" else f"best_possible/{split}_{name}"] = best
    return metrics


def last_validation(progress: Progress) -> dict[str, float]:
    """The last evaluation of training, for those who do not want the best of several."""
    records = [record for record in progress.records if any(name.startswith("validation/") for name in record)]
    return records[-1] if records else {}


def cost(config: Train, progress: Progress, model: Model, material: Material, device: Device) -> dict[str, Any]:
    """What the result cost: steps, examples, real tokens, seconds of training, parameters, estimated operations.

    `flops` is an estimate: products of a forward pass over the first training batch, three times that for training, for every token
    seen. `utilisation` is its rate as a share of the rate that this machine reaches on large matrix products at the same precision.
    """
    parameters = sum(weight.numel() for weight in model.parameters())
    train = material.examples["train"]
    batch = material.objective.collate(train, plan_batches(train.lengths, config.budget, config.seed).epoch(0)[0], None).to(device.device)
    model.eval()
    with device.autocast():
        flops = (1 + BACKWARD) * count_forward(lambda: model(batch)) / batch.num_tokens * progress.tokens
    reachable = product_rate(device.device, torch.bfloat16 if device.precision == "bfloat16" else torch.float32)
    return {
        "steps": progress.step,
        "epochs": round(progress.epoch, 4),
        "examples": progress.examples,
        "tokens": progress.tokens,
        "micro_batch": progress.micro_batch or None,
        "seconds": round(progress.seconds, 3),
        "core_seconds": round(progress.core_seconds, 3),
        "tokens_per_s": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        "flops": float(f"{flops:.4g}"),
        "utilisation": round(flops / max(progress.seconds, 1e-9) / reachable, 4),
        "parameters": parameters,
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
