"""What a finished run says of itself: final scores and what they mean, spikes, cost."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bertlab.config.schema import Train
from bertlab.contracts import Metric
from bertlab.data.batches import order_of
from bertlab.data.material import Material
from bertlab.data.mixture import drawn_of_parts
from bertlab.declarations import SCORED_SPLITS
from bertlab.errors import redact
from bertlab.runs.machine import Device
from bertlab.runs.outcome import Context, Outcome
from bertlab.runs.summaries import is_score, name_of_best
from bertlab.training.assembly import Model
from bertlab.training.costs.flops import product_rate, training_flops
from bertlab.training.evaluation import score
from bertlab.training.location import Located
from bertlab.training.several.exchange import ALONE, Alone
from bertlab.training.steps.journal import Progress
from bertlab.training.steps.spikes import COUNTED

FIRST_SPIKES = 100  # of which a summary tells the step


@dataclass(frozen=True)
class Scored:
    """A trained run's weights, those that validation chose and the last, and what the chosen ones score."""

    selected: dict[str, Tensor]
    last: dict[str, Tensor]
    splits: list[str]  # that were scored
    unscored: list[str]  # that a trial of a search must not see
    metrics: dict[str, Any]
    specs: dict[str, Any]  # by the names of metrics
    predictions: dict[str, list[dict[str, Any]]]  # by split
    on_pairs: dict[str, dict[str, Any]]  # by the names of minimal pairs
    broken: list[str]  # lines on scores that cannot be


def finished(
    run: Located,
    context: Context,
    material: Material,
    model: Model,
    progress: Progress,
    scored: Scored,
    pretraining: Outcome | None,
    processes: int,
) -> dict[str, Any]:
    """`summary.json` of a run that has ended well."""
    config, objective = run.config, material.objective
    summary = {
        "status": "finished",
        "id": run.id,
        "metrics": scored.metrics,
        "metric_specs": scored.specs,
        "answers": config.objective.answers(),
        "classes": config.objective.tells_classes_of,
        "selected_by": f"{config.evaluation.selects_by}/{objective.primary.name}",
        "selected_step": progress.best_step if config.evaluation.keep == "best" else progress.step,
        "last": last_evaluation(progress, config.evaluation.selects_by),
        # which ones are scored and saved
        "weights": ("averaged" if config.optimizer.ema_decay > 0 else "trained"),
        "parts": drawn_of_parts(config, material.examples["train"], progress.step),  # of a mixture
        "cost": cost(config, progress, model, material, run.device, processes),
        "stopped": progress.stopped or "budget",
        "spikes": spikes(config, progress),
        "seed": config.seed,
        "notes": [*material.dataset.notes, *scored.broken],
        "text": material.texts,
        "vocabulary": material.tokenizer.vocab_size,
        "rows": material.counted(config),
        "left_out": material.dataset.left_out,
        "blind": blind_scores(material, scored.splits),
        "command": context.command,
        "words": [redact(word) for word in context.words],
    }
    if scored.unscored:
        summary["unscored"] = scored.unscored
    if pretraining is not None:
        summary["stage"] = {"run": pretraining.folder.name, "cost": pretraining.summary["cost"]}
    return summary


def score_rest(run: Located, model: Model, material: Material, summary: dict[str, Any]) -> dict[str, Any]:
    """Of a run that a search made: the splits that a choice between trials must not see, once the run is
    asked for by itself.
    """
    run.folder.verify()
    model.load_state_dict(run.folder.weights())
    model.to(run.device.device).eval()
    metrics, predictions = final_scores(run, model, material, summary["unscored"])
    specs = {**summary["metric_specs"], **metric_specs(material.objective.metrics, metrics)}
    blind = {**summary["blind"], **blind_scores(material, summary["unscored"])}
    whole = {**summary, "metrics": {**summary["metrics"], **metrics}, "metric_specs": specs, "blind": blind}
    del whole["unscored"]
    for split, rows in predictions.items():
        run.folder.write_predictions(split, rows)
    run.folder.write_summary(whole)
    return whole


def blind_scores(material: Material, splits: Sequence[str]) -> dict[str, dict[str, float]]:
    """What one scores on these splits who reads nothing; see contracts.Objective."""
    rows = material.dataset.splits
    return {split: material.objective.blind_scores(rows["train"], rows[split]) for split in splits}


def scored_splits(material: Material) -> list[str]:
    """Those that are scored at the end."""
    return [split for split in SCORED_SPLITS if split in material.examples]


def final_scores(
    run: Located, model: Model, material: Material, splits: Sequence[str], processes: Alone = ALONE
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """These splits with the selected weights, the bound where it is known; and predictions for later
    statistics.
    """
    metrics: dict[str, Any] = {}
    predictions: dict[str, list[dict[str, Any]]] = {}
    for split in splits:
        rows = material.dataset.splits[split]
        scores, measured = score(
            model,
            material.objective,
            material.examples[split],
            run.device,
            run.config.evaluation.batch_size,
            split,
            rows,
            processes,
        )
        metrics |= scores
        if run.config.evaluation.save_predictions and processes.is_first:
            predictions[split] = material.objective.predictions(measured, rows)
        for name, best in material.dataset.best_possible.get(split, {}).items():
            metrics[name_of_best(split, name)] = best
    return metrics, predictions


def metric_specs(declared: tuple[Metric, ...], metrics: dict[str, Any]) -> dict[str, Any]:
    """Direction, unit and bounds of every score of a split, under its full name."""
    named = {metric.name: metric for metric in declared}
    full = {name: name.partition("/")[2] for name, value in metrics.items() if isinstance(value, int | float)}
    return {name: named[short].record() for name, short in full.items() if short in named and is_score(name)}


def outside_bounds(metrics: dict[str, Any], specs: dict[str, Any]) -> list[str]:
    """A line on each score that its own metric says cannot be."""
    wrong = [name for name, spec in specs.items() if not Metric.from_record(name, spec).holds(metrics[name])]
    return [
        f"{name} is {metrics[name]:.4g}, outside the bounds {specs[name]['bounds']} that its objective"
        " declares: one of them is wrong"
        for name in wrong
    ]


def spikes(config: Train, progress: Progress) -> dict[str, Any]:
    """Steps whose loss stood out: how many, how many were left out, above how many standard deviations, and
    the first of them.
    """
    asked, count = config.optimizer.skip_spikes, len(progress.spikes)
    return {
        "count": count,
        "skipped": 0 if asked is None else count,
        "deviations": asked or COUNTED,
        "steps": progress.spikes[:FIRST_SPIKES],
    }


def last_evaluation(progress: Progress, split: str) -> dict[str, float]:
    """The last evaluation of training, for those who do not want the best of several."""
    records = [record for record in progress.records if any(name.startswith(f"{split}/") for name in record)]
    return records[-1] if records else {}


def cost(
    config: Train, progress: Progress, model: Model, material: Material, device: Device, processes: int
) -> dict[str, Any]:
    """What the result cost: steps, examples, real tokens, seconds of training, parameters, estimated
    operations.

    `flops` is an estimate: products of a forward pass over the first training batch, three times that for
    training, for every token seen. `utilisation` is its rate as a share of the rate that this machine reaches
    on large matrix products at the same precision.
    """
    parameters = sum(weight.numel() for weight in model.parameters())
    train = material.examples["train"]
    order = order_of(config, train)
    flops = training_flops(model, material.objective, train, order, device, progress.tokens)
    reachable = processes * product_rate(
        device.device, torch.bfloat16 if device.precision == "bfloat16" else torch.float32
    )
    return {
        "steps": progress.step,
        "epochs": round(progress.epoch, 4),
        "examples": progress.examples,
        "tokens": progress.tokens,
        "micro_batch": config.compute.micro_batch_size,
        "seconds": round(progress.seconds, 3),
        "core_seconds": round(progress.core_seconds, 3),
        "tokens_per_s": round(progress.tokens / max(progress.seconds, 1e-9), 1),
        "flops": float(f"{flops:.4g}"),
        "utilisation": round(flops / max(progress.seconds, 1e-9) / reachable, 4),
        "parameters": parameters,
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
