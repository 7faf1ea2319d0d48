"""Everything between an empty or interrupted run folder and a summary with status `finished`."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from typing import Any

import torch

from bertlab.config.schema import Train
from bertlab.contracts import Metric, RunInfo, Tracker
from bertlab.data.batches import order_of
from bertlab.data.material import Material
from bertlab.declarations import PAIRS_ACCURACY
from bertlab.errors import ConfigError, one_line, redact
from bertlab.promises import built
from bertlab.runs.checkpoints import load_best
from bertlab.runs.files import digest
from bertlab.runs.machine import provenance
from bertlab.runs.outcome import Context, Outcome, SweepTrial
from bertlab.trackers.local import LocalTracker
from bertlab.training.assembly import Model, build_optimizer, set_up
from bertlab.training.costs.flops import training_flops
from bertlab.training.location import OUT_OF_MEMORY, Located
from bertlab.training.loop import fit
from bertlab.training.pairs import PairsScorer, Reader, Snapshots, pairs_name, pairs_of
from bertlab.training.several.exchange import Alone
from bertlab.training.steps.journal import Progress
from bertlab.training.steps.stops import Interrupted, MemoryExhausted, Pruned
from bertlab.training.summary import (
    Scored,
    final_scores,
    finished,
    metric_specs,
    outside_bounds,
    scored_splits,
)

TOLD: set[str] = set()  # what this process has said of data before the runs of grids


def compute(
    run: Located,
    context: Context,
    material: Material,
    model: Model,
    pretraining: Outcome | None,
    processes: Alone,
) -> Outcome:
    """Everything between an empty or interrupted folder and a summary with status `finished`; the first of
    several processes writes.
    """
    if not processes.is_first:
        return follow(run, material, model, processes)
    config, folder, objective = run.config, run.folder, material.objective
    optimizer = optimizer_of(run, model, processes)
    scorer, snapshots = pairs_scorer(run, material, model)
    title = (
        f"{folder.name}: {config.objective.name} on {config.dataset.name},"
        f" {len(material.examples['train']):,} training examples"
    )
    for line in (title, *described(config, material, context)):
        print(f"{processes.seed}{line}", flush=True)
    who = {**provenance(context.command), "threads": run.device.threads, "processes": processes.of}
    if processes.beside:
        who["trained_with_seeds"] = list(processes.beside)
    folder.begin(config, run.identity, who)
    folder.write_tokenizer(material.tokenizer.to_json())
    trackers: list[Tracker] = []
    summary: dict[str, Any] = {
        "status": "failed",
        "id": run.id,
        "seed": config.seed,
        "command": context.command,
        "words": [redact(word) for word in context.words],
    }
    try:
        trackers += start_trackers(run, context, material)
        should_prune = None if context.trial is None else context.trial.should_prune
        progress = fit(
            config, model, optimizer, objective, material.examples, material.dataset.splits, run.device,
            folder.checkpoints, run.id,
            broadcast(trackers), should_prune, snapshots, processes,
        )  # fmt: skip
        if snapshots is not None and (missed := snapshots.missed(progress.tokens, progress.epoch)):
            print(
                "evaluation.snapshots: training ended before"
                f" {', '.join(f'{moment:g}' for moment in missed)}",
                flush=True,
            )
        scored = select_and_score(run, context, material, model, progress, scorer, processes)
        folder.write_model(
            scored.selected, scored.last, objective.label_names, model.encoder.save_description
        )
        for split, rows in scored.predictions.items():
            folder.write_predictions(split, rows)
            for tracker in trackers:
                tracker.examples(split, material.dataset.splits[split], rows)
        for name, told in scored.on_pairs.items():
            folder.write_evaluation(name, told)
        done = finished(run, context, material, model, progress, scored, pretraining, processes.of)
        finish(trackers, done)  # before it counts as finished: a kill between the two costs no curves
        folder.write_summary(done)
        summary = done
    except (Interrupted, KeyboardInterrupt):
        summary["status"] = "interrupted"
        raise
    except Pruned:
        summary["status"] = "pruned"
        raise
    except MemoryExhausted as error:
        summary |= {"status": OUT_OF_MEMORY, "micro_batch_size": error.micro_batch}
        raise
    except BaseException as error:
        summary["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        try:
            if summary["status"] != "finished":
                folder.write_summary(summary)
        finally:
            close(trackers, summary)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)  # a finished run needs no resume state
    processes.same(lambda: summary)
    return ended(Outcome(folder, summary), progress)


def optimizer_of(run: Located, model: Model, processes: Alone) -> torch.optim.Optimizer:
    """The run's optimizer over its model, which is set up for training by these processes with that. Raises
    ConfigError for what they cannot share.
    """
    processes.divide(model, run.config.optimizer, run.device.device)
    return processes.suited(build_optimizer(run.config, set_up(model, run.config, run.device)))


def select_and_score(
    run: Located,
    context: Context,
    material: Material,
    model: Model,
    progress: Progress,
    scorer: PairsScorer | None,
    processes: Alone,
) -> Scored:
    """The weights that validation chose, which `model` holds afterwards, on every split that this run may
    see, and on minimal pairs.
    """
    evaluation = run.config.evaluation
    last = {name: value.clone() for name, value in processes.whole(model.state_dict()).items()}
    selected = (
        load_best(run.folder.checkpoints, progress.best_step, progress.best_sha256)
        if evaluation.keep == "best"
        else last
    )
    processes.spread(model, selected)
    there = scored_splits(material)
    splits = [split for split in there if context.trial is None or split != "test"]
    metrics, predictions = final_scores(run, model, material, splits, processes)
    specs = metric_specs(material.objective.metrics, metrics)
    broken = outside_bounds(metrics, specs)
    for line in broken:
        print(line, flush=True)
    on_pairs = {} if scorer is None else {pairs_name(scorer.source, evaluation.pairs_scoring): scorer()}
    for told in on_pairs.values():
        metrics[PAIRS_ACCURACY.name] = told[PAIRS_ACCURACY.name]
        specs[PAIRS_ACCURACY.name] = PAIRS_ACCURACY.record()
    unscored = [split for split in there if split not in splits]
    return Scored(selected, last, splits, unscored, metrics, specs, predictions, on_pairs, broken)


def ended(outcome: Outcome, progress: Progress) -> Outcome:
    """What a finished run returns. Raises Interrupted where a signal came with its last step."""
    if progress.asked:
        raise Interrupted(progress.asked, is_finished=True)
    return outcome


def described(config: Train, material: Material, context: Context) -> list[str]:
    """What is about to be learnt from; of the runs of a grid that read the same, before the first alone."""
    lines = material.describe(config)
    if not context.in_grid:
        return lines
    content = digest(lines)
    if content in TOLD:
        return ["reads what an earlier run of this sweep read: rows, tokens and examples as told there"]
    TOLD.add(content)
    return lines


def follow(run: Located, material: Material, model: Model, processes: Alone) -> Outcome:
    """The part in `compute` of each process but the first, which alone reads and writes the run's folder."""
    optimizer = optimizer_of(run, model, processes)
    _, snapshots = pairs_scorer(run, material, model)
    progress = fit(
        run.config, model, optimizer, material.objective, material.examples, material.dataset.splits,
        run.device, run.folder.checkpoints, run.id,
        broadcast([]), None, snapshots, processes,
    )  # fmt: skip
    processes.whole(model.state_dict())  # as the first one asks for them
    processes.spread(model, None)
    final_scores(run, model, material, scored_splits(material), processes)
    if processes.in_parts:  # the first one counts operations by a forward pass
        train = material.examples["train"]
        with processes.listening():
            order = order_of(run.config, train)
            training_flops(model, material.objective, train, order, run.device, progress.tokens)
    return ended(Outcome(run.folder, processes.same(dict)), progress)


def pairs_scorer(
    run: Located, material: Material, model: Model
) -> tuple[PairsScorer | None, Snapshots | None]:
    """What `evaluation` asks for on minimal pairs: at the end, and on the way. Raises DataError for pairs
    that are none.
    """
    if (source := pairs_of(run.config)) is None:
        return None, None
    scorer = PairsScorer(
        Reader(run.config, model, material.objective, material.tokenizer, run.device), source
    )
    words = int(material.texts["train"]["words"])
    return scorer, (
        Snapshots(run.config.evaluation, words, scorer) if run.config.evaluation.snapshots else None
    )


# --- trackers -------------------------------------------------------------------------------------
def start_trackers(run: Located, context: Context, material: Material) -> list[Tracker]:
    """Local files always, then the chosen tracker, then the sweep's."""
    config, objective = run.config, material.objective
    differs = context.differs or f"seed {config.seed}"
    info = RunInfo(
        run_id=run.id,
        folder=run.folder.path,
        title=f"{config.dataset.name} {config.objective.name} {differs} ({run.id})",
        job="train",
        config=json.loads(redact(json.dumps(dataclasses.asdict(config)))),
        labels=objective.label_names,
        primary=objective.primary,
        loss_unit=config.objective.loss_unit,
        split=config.evaluation.selects_by,
        tags=[redact(tag) for tag in config.tags],
        sweep=context.sweep,
        answers=config.objective.answers(),
        classes=config.objective.tells_classes_of,
        identity={name: run.identity[name] for name in ("numerics", "inputs", "code")},
    )
    chosen = config.tracker.build(info)
    if chosen is not None:
        built(chosen, Tracker | None, config.tracker, "build")
    reporting = [] if context.trial is None else [TrialTracker(context.trial, objective.primary, info.split)]
    if context.trial is not None:  # of one that is pruned or killed, too
        context.trial.note("run", str(run.folder))
    return [LocalTracker(info), *([] if chosen is None else [chosen]), *reporting]


class TrialTracker(Tracker):
    """Tells a sweep the primary metric of every evaluation, those before a restart included.

    Evaluations are numbered, not dated by their step: with another batch size a step has seen other amounts
    of data.
    """

    def __init__(self, trial: SweepTrial, primary: Metric, split: str) -> None:
        self.trial, self.name, self.evaluations = trial, f"{split}/{primary.name}", 0
        wanted = "maximize" if primary.higher_is_better else "minimize"
        if not trial.objectives and trial.directions != [wanted]:  # would choose the worst run
            raise ConfigError(
                f"hydra.sweeper.direction={', '.join(trial.directions)}: this objective's score is to"
                f" {wanted}"
            )

    def log(self, record: dict[str, Any]) -> None:
        """Training records pass by."""
        if self.name in record:
            self.evaluations += 1
            self.trial.report(self.evaluations, record[self.name])

    def finish(self, summary: dict[str, Any]) -> None:
        """The command line tells the final result."""


def finish(trackers: list[Tracker], summary: dict[str, Any]) -> None:
    """Each of them once, in their order; where one fails, those behind it are left for `close`."""
    while trackers:
        trackers.pop(0).finish(summary)


def close(trackers: list[Tracker], summary: dict[str, Any]) -> None:
    """The same for a run that has failed: a tracker that fails too is told of, and hides no reason."""
    while trackers:
        try:
            finish(trackers, summary)
        except Exception as error:
            line = one_line(f"{type(error).__name__}: {error}")
            print(f"bertlab: note: a tracker did not end well ({line})", file=sys.stderr)


def broadcast(trackers: list[Tracker]) -> Callable[[dict[str, float]], None]:
    """One `log` for all trackers."""

    def log(record: dict[str, float]) -> None:
        for tracker in trackers:
            tracker.log(record)

    return log
