"""A run's life: whether anything is left to do, alone, by several processes or together with other seeds; its
pretraining first, then the run.
"""

import dataclasses
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import torch
import yaml

from bertlab.config.schema import Train
from bertlab.data.material import prepare
from bertlab.errors import ConfigError, DataError, DivergedError, ToldElsewhereError, UserError
from bertlab.runs.configs import config_of, config_yaml
from bertlab.runs.files import digest
from bertlab.runs.folder import READ_WHOLE
from bertlab.runs.machine import threads
from bertlab.runs.outcome import Companions, Context, Outcome
from bertlab.runs.processes import place
from bertlab.training.assembly import build_initialized
from bertlab.training.execution import compute
from bertlab.training.location import OUT_OF_MEMORY, Located, in_parts, locate
from bertlab.training.rehearsal import rehearse
from bertlab.training.several.exchange import ALONE, Alone, Together, meet, word_left
from bertlab.training.several.launch import run_together
from bertlab.training.several.seeds import Conductor, Seed
from bertlab.training.steps.stops import Interrupted, MemoryExhausted
from bertlab.training.summary import score_rest


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
        with word_left():
            return train_located(run, context)
    except (ConfigError, DataError, DivergedError) as error:  # met by all alike: the first tells
        raise error if place().is_first else ToldElsewhereError(str(error)) from error


def train_by_several(run: Located, context: Context) -> Outcome:
    """The same in processes started for it; this one waits, and begins again in smaller parts where memory
    does not suffice.
    """
    if run.summary is not None and run.is_finished:
        run.folder.verify(READ_WHOLE)
        return Outcome(run.folder, run.summary, skipped=True)
    try:
        tree = yaml.safe_load(config_yaml(run.config))
        alone = dataclasses.replace(context, companions=None)  # which stay in this process
        skipped = run_together(run.config.compute.processes, _in_process, tree, alone)
    except MemoryExhausted as error:
        note_exhausted(run, error)
        smaller = locate(run.config)
        say_in_parts(smaller)
        return train_by_several(smaller, context)
    return Outcome(run.folder, run.folder.finished() or {}, skipped)


def note_exhausted(run: Located, error: MemoryExhausted) -> None:
    """On record, of the run or of its pretraining, whichever was about to be trained: the first of several
    processes does not hear of memory that another one lacked.
    """
    while run.stage is not None and run.stage.folder.finished() is None:
        run = run.stage
    told = {"status": OUT_OF_MEMORY, "micro_batch_size": error.micro_batch}
    run.folder.write_summary((run.folder.summary() or {}) | told)


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
        if run.stage is not None and not run.stage.is_finished:
            # made here, where signals are heard; all of them begin with what it became
            train_located(run.stage, dataclasses.replace(context, differs="", companions=None))
            return train_with_others(locate(run.config), context)
        runs = together_with(run, context, companions)
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
            raise Interrupted(conductor.received[0], is_finished=True)
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
            if is_like and not other.is_finished:
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
    processes: Alone = processes_of(run) if seed is None else seed
    if (outcome := outcome_before(run, context, processes)) is not None:
        return outcome
    alone = dataclasses.replace(context, trial=None, differs="")
    pretraining = None if run.stage is None else train_located(run.stage, alone)
    if run.stage is not None and pretraining is not None and pretraining.folder.path != run.stage.folder.path:
        # where memory was short it has become another run, and so is the one that begins with it
        return train_located(locate(run.config), context, seed)
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


def processes_of(run: Located) -> Alone:
    """Those that train it, met once."""
    met = meet()
    if run.config.compute.sharding == "none" or not isinstance(met, Together):
        return met
    from bertlab.training.several.sharding import Sharded  # a second to import

    return Sharded(met)


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
