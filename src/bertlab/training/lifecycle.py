"""A run's life: where it lies and what it is, whether anything is left to do, its pretraining first, then
training, scores, summary.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import yaml

from bertlab.config.schema import Train
from bertlab.contracts import Metric, RunInfo, Tracker
from bertlab.data.batches import order_of
from bertlab.data.material import Material, prepare
from bertlab.data.mixture import drawn_of_parts
from bertlab.declarations import SCORED_SPLITS
from bertlab.errors import ConfigError, DataError, DivergedError, ToldElsewhereError, UserError, redact
from bertlab.promises import built
from bertlab.runs.checkpoints import load_best
from bertlab.runs.files import digest
from bertlab.runs.folder import READ_WHOLE, RunFolder, config_of, config_yaml, run_folder
from bertlab.runs.identity import identify
from bertlab.runs.machine import Device, choose_device, provenance, threads
from bertlab.runs.outcome import Companions, Context, Outcome, SweepTrial
from bertlab.runs.processes import place
from bertlab.trackers.local import LocalTracker
from bertlab.training.assembly import Model, build_initialized, build_optimizer, check_combination, set_up
from bertlab.training.evaluation import score
from bertlab.training.flops import product_rate, training_flops
from bertlab.training.loop import Interrupted, MemoryExhausted, Progress, Pruned, fit
from bertlab.training.pairs import ACCURACY, PairsScorer, Reader, Snapshots, pairs_name, pairs_of
from bertlab.training.rehearsal import rehearse
from bertlab.training.several.launch import run_together
from bertlab.training.several.seeds import Conductor, Seed
from bertlab.training.spikes import COUNTED
from bertlab.training.together import ALONE, Alone, meet

OUT_OF_MEMORY = (  # a status: another run, with fewer examples a forward pass, stands for this one
    "out_of_memory"
)
FIRST_SPIKES = 100  # of which a summary tells the step
TOLD: set[str] = set()  # what this process has said of data before the runs of grids


@dataclass(frozen=True)
class Located:
    """A run before anything is computed: what it is on this machine, where it lies, how far it is, the
    pretraining that it begins with.
    """

    config: Train
    device: Device
    identity: dict[str, Any]
    folder: RunFolder
    summary: dict[str, Any] | None  # None: it has not ended yet
    stage: "Located | None"

    @property
    def id(self) -> str:
        """12 hex digits."""
        return str(self.identity["id"])


def locate(config: Train) -> Located:
    """The run that stands for this config: where so many examples a forward pass ran out of memory, the same
    one with fewer.

    Raises UserError for what would stop it before its first step, as far as that shows without reading data
    whole.
    """
    config = dataclasses.replace(
        config, compute=dataclasses.replace(config.compute, processes=number_of_processes(config))
    )
    described = config.init.stage(config)
    stage = None if described is None else locate(by_itself(described))
    check_combination(config)
    pairs = pairs_of(config)
    device = choose_device(
        config.compute.device, config.compute.precision, config.compute.threads, config.compute.processes
    )
    identity = identify(
        config, device, None if stage is None else stage.id, None if pairs is None else pairs.digest()
    )
    folder = run_folder(config, identity["id"])
    summary = folder.summary()
    if summary is not None and summary["status"] == OUT_OF_MEMORY:
        return locate(in_parts(config, folder.smaller_parts(summary, config.compute.micro_batch_size)))
    return Located(config, device, identity, folder, summary, stage)


def by_itself(config: Train) -> Train:
    """The same trained as one run; a pretraining serves several seeds and is one."""
    return dataclasses.replace(config, compute=dataclasses.replace(config.compute, together=1))


def in_parts(config: Train, micro_batch: int) -> Train:
    """The same with fewer examples a forward pass, which rounds otherwise and so is a run of its own; the
    effective batch stays.
    """
    return dataclasses.replace(
        config, compute=dataclasses.replace(config.compute, micro_batch_size=micro_batch)
    )


def train(config: Train, context: Context) -> Outcome:
    """Run, continue or skip: whatever this config's folder needs. Raises UserError for what the user can
    mend.
    """
    run = locate(config)
    if run.config.compute.processes == 1:
        return train_located(run, context)
    if context.trial is not None:
        raise ConfigError(
            "compute.processes: a search hears of a run and prunes it from within its one process; leave it 1"
            " in a search"
        )
    if place().of == 1:
        return train_by_several(run, context)
    try:
        return train_located(run, context)
    except (DataError, DivergedError) as error:  # met by all alike: the first tells
        raise error if place().is_first else ToldElsewhereError(str(error)) from error


def number_of_processes(config: Train) -> int:
    """As many as were started, or as are to be. Raises ConfigError where both are said and differ."""
    started, asked = place().of, config.compute.processes
    if started > 1 and asked not in (1, started):
        raise ConfigError(
            f"compute.processes={asked}, but {started} processes were started; leave it out, they are told"
        )
    return max(started, asked)


def train_by_several(run: Located, context: Context) -> Outcome:
    """The same in processes started for it; this one waits, and begins again in smaller parts where memory
    does not suffice.
    """
    if run.summary is not None and run.summary["status"] == "finished":
        run.folder.verify(READ_WHOLE)
        return Outcome(run.folder, run.summary, skipped=True)
    try:
        tree = yaml.safe_load(config_yaml(run.config))
        alone = dataclasses.replace(context, companions=None)  # which stay in this process
        skipped = run_together(run.config.compute.processes, _in_process, tree, alone)
    except MemoryExhausted as error:
        smaller = locate(in_parts(run.config, error.micro_batch))
        say_in_parts(smaller)
        return train_by_several(smaller, context)
    return Outcome(run.folder, run.folder.finished() or {}, skipped)


def _in_process(tree: dict[str, Any], context: Context) -> bool:
    """What each of the started processes does; whether there was nothing to do."""
    return train(config_of(tree, "compute.processes"), context).skipped


def train_with_others(run: Located, context: Context) -> Outcome:
    """The same together with runs of its sweep that differ in the seed alone; a run without such by itself.

    What became of the others is told to each when its turn comes.
    """
    if context.trial is not None:
        raise ConfigError(
            "compute.together: a search hears of one run at a time and prunes it; leave it 1 in a search"
        )
    if run.device.device.type == "mps":
        raise ConfigError("compute.together: not on an Apple GPU; leave it 1, or use compute.device=cpu")
    companions = context.companions or Companions(lambda: iter(()), {})
    if (came_to := companions.ended.get(str(run.folder))) is None:
        if (outcome := outcome_before(run, context)) is not None:
            return outcome
        runs = together_with(run, context, companions)
        if run.stage is not None:  # made here, where signals are heard; all of them begin with it
            train_located(run.stage, dataclasses.replace(context, differs="", companions=None))
            runs = [
                (dataclasses.replace(one, stage=locate(one.stage.config) if one.stage else None), own)
                for one, own in runs
            ]
        numbers = sorted(one.config.seed for one, _ in runs)
        told = f"together: seeds {', '.join(map(str, numbers))}"
        print(told if len(runs) > 1 else f"seed {numbers[0]}: no other to train with", flush=True)
        seeds = [
            Seed(
                one.config.seed,
                [number for number in numbers if number != one.config.seed],
                partial(train_located, one, dataclasses.replace(own, companions=None)),
            )
            for one, own in runs
        ]
        conductor = Conductor(seeds)
        with threads(run.device.threads):
            conductor.conduct()
        companions.ended.update(
            (folder, seed.came_to)
            for (one, _), seed in zip(runs, seeds, strict=True)
            # where memory was short it has become another run, which its own turn will look for
            for folder in (str(one.folder), str(locate(one.config).folder))
        )
        came_to = companions.ended[str(run.folder)]
        if conductor.received and not isinstance(came_to, BaseException):  # too late for this one
            raise Interrupted(conductor.received[0])
    if isinstance(came_to, BaseException):
        raise came_to
    return came_to


def together_with(run: Located, context: Context, companions: Companions) -> list[tuple[Located, Context]]:
    """A run and those after it that are the same but for the seed and not finished yet, as many as may be; by
    their folders, so that two processes lock them in one order.
    """
    runs = {str(run.folder): (run, context)}
    for config, own in companions.later():
        if len(runs) == run.config.compute.together:
            break
        with suppress(UserError):  # told when its own turn comes
            other = locate(config)
            is_like = but_for_the_seed(other.config) == but_for_the_seed(run.config)
            if is_like and (other.summary or {}).get("status") != "finished":
                runs.setdefault(str(other.folder), (other, own))
    return [runs[folder] for folder in sorted(runs)]


def but_for_the_seed(config: Train) -> Train:
    """What runs that are trained together have in common; in how many parts each computes its batches, where
    memory was short, is its own affair.
    """
    return dataclasses.replace(
        config, seed=0, compute=dataclasses.replace(config.compute, micro_batch_size=None)
    )


def train_located(run: Located, context: Context, seed: Seed[Outcome] | None = None) -> Outcome:
    """The same for a run that has been located; of several processes each calls it, of several runs trained
    together (`seed`) each run's thread.
    """
    if run.config.compute.together > 1 and seed is None:
        return train_with_others(run, context)
    processes: Alone = meet() if seed is None else seed
    if (outcome := outcome_before(run, context, processes)) is not None:
        return outcome
    alone = dataclasses.replace(context, trial=None, differs="")
    pretraining = None if run.stage is None else train_located(run.stage, alone)
    source = run.config.init.source(run.config) if pretraining is None else pretraining.folder.path
    with threads(run.device.threads):
        material = processes.in_turn(lambda: prepare(run.config, run.folder.begun_tokenizer(), source))
        model = build_initialized(run.config, material.tokenizer, material.objective, source)
        if processes.of == 1:
            rehearse(run.config, model, material)
        if processes.of > 1 and run.device.device.type == "cuda":  # whose dropout is each one's own
            torch.cuda.manual_seed(int(digest([run.config.seed, processes.rank]), 16) % 2**63)
        with run.folder.locked() if processes.is_first else nullcontext():
            summary = processes.same(run.folder.finished)
            if summary is not None:  # by another command, while this one waited, or as a trial of a search
                if context.trial is None and summary.get("unscored"):
                    summary = score_rest(run, model, material, summary)
                return Outcome(run.folder, summary, skipped=True)
            try:
                return compute(run, context, material, model, pretraining, processes)
            except MemoryExhausted as error:
                if processes.of > 1:  # the others wait for gradients that will not come
                    raise
                smaller = locate(in_parts(run.config, error.micro_batch))
    say_in_parts(smaller)
    del model, material  # before those of the smaller run are made
    return train_located(smaller, context, seed)


def outcome_before(run: Located, context: Context, processes: Alone = ALONE) -> Outcome | None:
    """That of a run that has finished; None where there is something left to do."""
    summary = processes.same(lambda: run.summary)
    if summary is None or summary["status"] != "finished":
        return None
    if context.trial is None and summary.get("unscored"):
        return None
    run.folder.verify(READ_WHOLE)
    return Outcome(run.folder, summary, skipped=True)


def say_in_parts(run: Located) -> None:
    """That memory did not suffice, and what becomes of it."""
    size = run.config.compute.micro_batch_size
    print(
        f"out of memory: begun again as {run.folder.name}, compute.micro_batch_size={size} (the effective"
        " batch stays)",
        flush=True,
    )


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
    optimizer = build_optimizer(config, set_up(model, config, run.device))
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
    }
    try:
        trackers += start_trackers(run, context, material)
        should_prune = None if context.trial is None else context.trial.should_prune
        progress = fit(
            config, model, optimizer, objective, material.examples, material.dataset.splits, run.device,
            folder.checkpoints, run.id,
            broadcast(trackers), should_prune, snapshots, processes,
        )  # fmt: skip
        last = {name: value.clone() for name, value in model.state_dict().items()}
        selected = (
            load_best(folder.checkpoints, progress.best_step, progress.best_sha256)
            if config.evaluation.keep == "best"
            else last
        )
        model.load_state_dict(selected)
        processes.spread(model)
        there = scored_splits(material)
        scored = [split for split in there if context.trial is None or split != "test"]
        metrics, predictions = final_scores(run, model, material, scored, processes)
        if snapshots is not None and (missed := snapshots.missed(progress.tokens, progress.epoch)):
            print(
                "evaluation.snapshots: training ended before"
                f" {', '.join(f'{moment:g}' for moment in missed)}",
                flush=True,
            )
        specs = metric_specs(objective.metrics, metrics)
        broken = outside_bounds(metrics, specs)
        for line in broken:
            print(line, flush=True)
        on_pairs = (
            {} if scorer is None else {pairs_name(scorer.source, config.evaluation.pairs_scoring): scorer()}
        )
        for told in on_pairs.values():
            metrics[ACCURACY.name], specs[ACCURACY.name] = told[ACCURACY.name], ACCURACY.record()
        folder.write_model(selected, last, objective.label_names, model.encoder.save_description)
        for split, rows in predictions.items():
            folder.write_predictions(split, rows)
            for tracker in trackers:
                tracker.examples(split, material.dataset.splits[split], rows)
        for name, told in on_pairs.items():
            folder.write_evaluation(name, told)
        summary = {
            "status": "finished",
            "id": run.id,
            "metrics": metrics,
            "metric_specs": specs,
            "answers": config.objective.answers(),
            "selected_by": f"{config.evaluation.selects_by}/{objective.primary.name}",
            "selected_step": progress.best_step if config.evaluation.keep == "best" else progress.step,
            "last": last_evaluation(progress, config.evaluation.selects_by),
            # which ones are scored and saved
            "weights": ("averaged" if config.optimizer.ema_decay > 0 else "trained"),
            "parts": drawn_of_parts(config, material.examples["train"], progress.step),  # of a mixture
            "cost": cost(config, progress, model, material, run.device, processes.of),
            "stopped": progress.stopped or "budget",
            "spikes": spikes(config, progress),
            "seed": config.seed,
            "notes": [*material.dataset.notes, *broken],
            "text": material.texts,
            "vocabulary": material.tokenizer.vocab_size,
            "rows": material.counted(config),
            "left_out": material.dataset.left_out,
            "blind": blind_scores(material, scored),
            "command": context.command,
        }
        if unscored := [split for split in there if split not in scored]:
            summary["unscored"] = unscored
        if pretraining is not None:
            summary["stage"] = {"run": pretraining.folder.name, "cost": pretraining.summary["cost"]}
        finish(trackers, summary)  # before it counts as finished: a kill between the two costs no curves
        folder.write_summary(summary)
        shutil.rmtree(folder.checkpoints, ignore_errors=True)  # a finished run needs no resume state
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
        if summary["status"] != "finished":
            folder.write_summary(summary)
        finish(trackers, summary)
    processes.same(lambda: summary)
    return Outcome(folder, summary)


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
    optimizer = build_optimizer(run.config, set_up(model, run.config, run.device))
    _, snapshots = pairs_scorer(run, material, model)
    fit(
        run.config, model, optimizer, material.objective, material.examples, material.dataset.splits,
        run.device, run.folder.checkpoints, run.id,
        broadcast([]), None, snapshots, processes,
    )  # fmt: skip
    processes.spread(model)
    final_scores(run, model, material, scored_splits(material), processes)
    return Outcome(run.folder, processes.same(dict))


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
    """Each of them once, whatever happens to one."""
    with ExitStack() as closing:
        while trackers:
            closing.callback(trackers.pop().finish, summary)


def broadcast(trackers: list[Tracker]) -> Callable[[dict[str, float]], None]:
    """One `log` for all trackers."""

    def log(record: dict[str, float]) -> None:
        for tracker in trackers:
            tracker.log(record)

    return log


# --- the summary ----------------------------------------------------------------------------------
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
            metrics[f"best_possible/{name}" if split == "validation" else f"best_possible/{split}_{name}"] = (
                best
            )
    return metrics, predictions


def metric_specs(declared: tuple[Metric, ...], metrics: dict[str, Any]) -> dict[str, Any]:
    """Direction, unit and bounds of every score of a split, under its full name."""
    named = {metric.name: metric for metric in declared}
    full = {name: name.partition("/")[2] for name, value in metrics.items() if isinstance(value, int | float)}
    return {
        name: named[short].record()
        for name, short in full.items()
        if short in named and not name.startswith("best_possible/")
    }


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
