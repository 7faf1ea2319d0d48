"""The sweep: ask, launch, see what became of it, until the study holds its total.

Nothing depends on what a launcher returns: the trials' states are in the storage, told by the jobs
themselves. A trial that was not heard of for a while is given up and its point tried again. Several sweeps
may work on one study at once: a trial that would be one too many is withdrawn by whoever asked for it, the
trials' numbers decide.
"""

import importlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from hydra_plugins.bertlab_optuna._errors import SpaceError
from hydra_plugins.bertlab_optuna._results import write_results
from hydra_plugins.bertlab_optuna._space import Space, build_space, quoted
from hydra_plugins.bertlab_optuna._study import (
    build_pruner,
    build_sampler,
    default_storage,
    grid_cells,
    open_storage,
    open_study,
    study_name,
)
from hydra_plugins.bertlab_optuna.trial import BEAT, OWNER, VARIABLE, is_gone, this_process

NAME = re.compile(r"[\w.=,+@ -]{1,120}")  # of a study, hence of its folder
DEAD_AFTER = 6  # heartbeats without a sign
RETRIES = 3  # of one point whose process died
LAUNCH_ERRORS = 3  # in a row
FEWEST_TO_JUDGE = 10  # trials, before their failure rate counts
WITHDRAWN, RETRIED, RETRY_OF = "withdrawn", "retries", "retry_of"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass
class Count:
    """How far a study is."""

    finished: int
    running: int
    failed: int  # by themselves: neither withdrawn nor tried again

    def done(self, is_grid: bool) -> int:
        """Trials that count to the total. A cell of a grid that failed is done: there is no other in its
        place.
        """
        return self.finished + (self.failed if is_grid else 0)


def run_sweep(
    options: Mapping[str, Any],
    arguments: Sequence[str],
    config: DictConfig,
    launcher: Launcher,
    loader: ConfigLoader,
) -> None:
    """Work on the study until it holds `n_trials`; then write what came of it. Raises SpaceError for what the
    user can mend.
    """
    params = options["params"] or {}
    space = build_space(arguments, params, loader)
    name = options["study_name"] or study_name(arguments, params)
    if name in ("", ".", "..") or not NAME.fullmatch(name):
        raise SpaceError(
            f"hydra.sweeper.study_name={name}: it names a folder; take up to 120 letters, digits and . _ = ,"
            " + - @"
        )
    folder = Path(str(options["folder"])) / name
    folder.mkdir(parents=True, exist_ok=True)
    url = options["storage"] or default_storage(folder)
    for overrides in space.corners():
        loader.load_sweep_config(config, list(overrides))  # raises for a key that is not there
    sampler = build_sampler(
        options["sampler"], options["sampler_options"] or {}, options["seed"], space.searched
    )
    pruner = build_pruner(options["pruner"], options["pruner_options"] or {})
    study = open_study(
        open_storage(url), name, list(options["directions"] or [options["direction"]]), sampler, pruner
    )
    total = int(options["n_trials"])
    _warm_start(study, options["warm_start"] or [], space)
    _queue_forgotten(study)
    if options["sampler"] == "grid":
        total = min(total, len(grid_cells(space.searched)))
        _queue_grid(study, space, total)
    extra = _suggest(options["space"])
    description = {
        "storage": url, "study": name, "pruner": options["pruner"],
        "pruner_options": OmegaConf.to_container(OmegaConf.create(
            dict(options["pruner_options"] or {}))), "heartbeat_seconds": options["heartbeat_seconds"],
        "objectives": list(options["objectives"] or []),
    }  # fmt: skip
    print(f"study {name}: {count(study).finished} of {total} trials are there; {url}", flush=True)
    at_once = options["n_jobs"] or _side_by_side(config.hydra.launcher)
    _work(study, space, extra, total, options, description, launcher, at_once)
    write_results(study, space, folder)


def _side_by_side(launcher: DictConfig) -> int:
    """Jobs that a launcher runs at a time, where its config says so; joblib counts from the end of the cores,
    -1 being all.
    """
    told = int(launcher.get("n_jobs") or 1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return told if told > 0 else max(1, cores + 1 + told)


def _work(
    study: optuna.Study, space: Space, extra: Callable[..., Any] | None, total: int, options: Mapping[str,
    Any],
    description: dict[str, Any], launcher: Launcher, at_once: int,
) -> None:  # fmt: skip
    alive, errors, waited = Alive(DEAD_AFTER * float(options["heartbeat_seconds"])), 0, False
    end = None if options["max_hours"] is None else time.monotonic() + 3600 * float(options["max_hours"])
    is_grid = options["sampler"] == "grid"
    while (state := _after_retries(study, alive)).done(is_grid) < total:
        begun = state.finished + state.running + state.failed
        if begun >= FEWEST_TO_JUDGE and state.failed > float(options["max_failure_rate"]) * begun:
            raise SpaceError(
                f"{state.failed} of {begun} trials failed, the last one: {_last_failure(study)}"
                " (hydra.sweeper.max_failure_rate)"
            )
        if end is not None and time.monotonic() > end:
            print(f"hydra.sweeper.max_hours is over: {state.finished} of {total} trials")
            return
        free = total - state.done(is_grid) - state.running
        if free <= 0:
            if not waited:
                print(f"{state.running} trials are with other processes; waiting for them", flush=True)
            waited = True
            time.sleep(min(1.0, float(options["heartbeat_seconds"])))
            continue
        waited = False
        trials = [ask(study, space, extra, total, is_grid) for _ in range(min(free, at_once))]
        asked = [one for one in trials if one is not None]
        if not asked:
            time.sleep(0.05)
            continue
        try:
            with beating(study, [trial._trial_id for trial, _ in asked], float(options["heartbeat_seconds"])):
                returns = launcher.launch(
                    [
                        _job(
                            overrides,
                            trial,
                            {
                                **description,
                                "label": _label(
                                    space, trial, state.done(is_grid) + state.running + place, total
                                ),
                            },
                        )
                        for place, (trial, overrides) in enumerate(asked, start=1)
                    ],
                    initial_job_idx=asked[0][0].number,
                )
            errors = 0
        except (
            Exception
        ) as error:  # a killed worker, a launcher's own trouble: what the jobs told is in the study
            errors += 1
            print(
                f"the launcher stopped: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}",
                flush=True,
            )
            if errors >= LAUNCH_ERRORS:
                raise
            continue
        for (trial, _), returned in zip(asked, returns, strict=False):
            settle(study, trial._trial_id, returned)


def ask(
    study: optuna.Study, space: Space, extra: Callable[..., Any] | None, total: int, is_grid: bool = False
) -> tuple[optuna.Trial, list[str]] | None:
    """A new trial, or one that waits to be tried again, with its overrides; None where it would be one too
    many.
    """
    trial = study.ask(dict(space.searched))
    study._storage.set_trial_user_attr(trial._trial_id, OWNER, this_process())
    before = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number]
    # Those that wait count, too: another process may have them next.
    is_double = is_grid and any(
        not {WITHDRAWN, "dead"} & set(other.user_attrs) and other.params == trial.params for other in before
    )
    if (retried := trial.user_attrs.get(RETRY_OF)) is not None:
        is_double |= any(other.user_attrs.get(RETRY_OF) == retried for other in before)
    if is_double or sum(other.state != TrialState.FAIL for other in before) >= total:
        study._storage.set_trial_user_attr(trial._trial_id, WITHDRAWN, True)
        _give_up(study, trial._trial_id)
        return None
    if extra is not None:
        extra(trial, space.overrides(trial.params))
    return trial, space.overrides(trial.params)


def _label(space: Space, trial: optuna.Trial, place: int, total: int) -> str:
    """`trial 3/20: optimizer.lr=4e-05 budget.batch_size=64`."""
    return f"trial {place}/{total}: {' '.join(space.told(trial.params))}"


def _job(overrides: list[str], trial: optuna.Trial, description: dict[str, Any]) -> list[str]:
    named = json.dumps({**description, "trial": trial._trial_id})
    return [*overrides, f"++hydra.job.env_set.{VARIABLE}={quoted(named)}"]


@contextmanager
def beating(study: optuna.Study, trial_ids: Sequence[int], interval: float) -> Iterator[None]:
    """Trials that a launcher has in its queue are alive as long as we wait for them."""
    stop = threading.Event()

    def beat() -> None:
        beats = 0
        while not stop.wait(interval):
            beats += 1
            for trial_id in trial_ids:
                with suppress(Exception):  # over already, or a storage that is out of reach for a moment
                    study._storage.set_trial_user_attr(trial_id, BEAT, f"{this_process()}|queue|{beats}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def settle(study: optuna.Study, trial_id: int, returned: JobReturn) -> None:
    """A job that does not tell its own result: take what it returned."""
    if study._storage.get_trial(trial_id).state != TrialState.RUNNING:
        return
    if returned.status != JobStatus.COMPLETED:
        study._storage.set_trial_user_attr(trial_id, "failure", str(returned._return_value)[:500])
        _give_up(study, trial_id)
        return
    values = returned._return_value
    try:
        scores = [float(value) for value in (values if isinstance(values, list | tuple) else [values])]
        if any(value != value for value in scores) or len(scores) != len(study.directions):
            raise ValueError(f"{values} is not {len(study.directions)} number(s)")
        study._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, scores)
    except (TypeError, ValueError) as error:
        study._storage.set_trial_user_attr(trial_id, "failure", f"the job returned {error}")
        _give_up(study, trial_id)


def count(study: optuna.Study) -> Count:
    """Trials by what became of them."""
    trials = study.get_trials(deepcopy=False)
    failed = [
        trial
        for trial in trials
        if trial.state == TrialState.FAIL
        and WITHDRAWN not in trial.user_attrs
        and "dead" not in trial.user_attrs
    ]
    return Count(
        sum(trial.state in FINISHED for trial in trials),
        sum(trial.state == TrialState.RUNNING for trial in trials),
        len(failed),
    )


class Alive:
    """Which trials somebody still works on. Clocks of several machines need not agree: a beat is dated when
    it is first seen here.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience  # seconds without a beat
        self.seen: dict[int, tuple[Any, float]] = {}

    def __call__(self, trial: FrozenTrial) -> bool:
        """False where its process has ended on this machine, or did not beat for `patience`."""
        owner = str(trial.user_attrs.get(OWNER, ""))
        if owner and is_gone(owner):
            return False
        beat, now = (trial.user_attrs.get(BEAT), owner), time.monotonic()
        if self.seen.get(trial.number, (None, 0.0))[0] != beat:
            self.seen[trial.number] = beat, now
        return now - self.seen[trial.number][1] <= self.patience


def _after_retries(study: optuna.Study, alive: Alive) -> Count:
    """Give up trials that nobody works on any more and queue their points again, each once whoever notices
    first.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if alive(trial):
            continue
        retries = int(trial.user_attrs.get(RETRIED, 0)) + 1
        try:
            if retries <= RETRIES:
                study._storage.set_trial_user_attr(trial._trial_id, "dead", True)
            else:
                study._storage.set_trial_user_attr(
                    trial._trial_id, "failure", f"its process died {retries} times"
                )
        except UpdateFinishedTrialError:
            continue
        if _give_up(study, trial._trial_id) and retries <= RETRIES:
            print(f"trial {trial.number}: its process is gone; it is tried again", flush=True)
            _queue_again(study, trial)
    return count(study)


def _queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    original = trial.user_attrs.get("retried_trial_number", trial.number)
    told = {
        RETRIED: int(trial.user_attrs.get(RETRIED, 0)) + 1,
        RETRY_OF: trial.number,
        "retried_trial_number": original,
    }
    study.enqueue_trial(_point(trial), user_attrs=told)


def _queue_forgotten(study: optuna.Study) -> None:
    """Points that were given up by a sweep which was killed before it had queued them again."""
    trials = study.get_trials(deepcopy=False)
    queued = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    for trial in trials:
        if trial.state == TrialState.FAIL and "dead" in trial.user_attrs and trial.number not in queued:
            _queue_again(study, trial)


def _point(trial: FrozenTrial) -> dict[str, Any]:
    """What the trial tries, or is to try."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _give_up(study: optuna.Study, trial_id: int) -> bool:
    """Fail a trial; False where somebody else has ended it."""
    try:
        return bool(study._storage.set_trial_state_values(trial_id, TrialState.FAIL))
    except UpdateFinishedTrialError:
        return False


def _last_failure(study: optuna.Study) -> str:
    reasons = [
        trial.user_attrs["failure"]
        for trial in study.get_trials(deepcopy=False)
        if "failure" in trial.user_attrs
    ]
    return str(reasons[-1]) if reasons else "it did not say why"


def _queue_grid(study: optuna.Study, space: Space, total: int) -> None:
    """Queue the cells that the study does not hold yet. What two sweeps queue at once is run
    once: see `ask`.
    """
    trials = study.get_trials(deepcopy=False)
    held = [_point(trial) for trial in trials if WITHDRAWN not in trial.user_attrs]
    for cell in grid_cells(space.searched)[:total]:
        if cell not in held:
            study.enqueue_trial(cell)


def _warm_start(study: optuna.Study, points: Sequence[Mapping[str, Any]], space: Space) -> None:
    """Queue the given points before anything else, once."""
    if not points or study.get_trials(deepcopy=False):
        return
    known = {key.lstrip("+"): key for key in space.searched}
    for point in points:
        for key in point:
            if key not in known:
                raise SpaceError(
                    f"hydra.sweeper.warm_start: {key} is not searched (searched: {', '.join(known)})"
                )
        study.enqueue_trial(
            {known[key]: _as_distributed(space, known[key], value) for key, value in point.items()}
        )


def _as_distributed(space: Space, key: str, value: Any) -> Any:
    choices = getattr(space.searched[key], "choices", None)
    if choices is None:
        return value
    if str(value) not in choices:
        raise SpaceError(f"hydra.sweeper.warm_start: {key}={value} is none of {', '.join(map(str, choices))}")
    return str(value)


def _suggest(place: str | None) -> Callable[..., Any] | None:
    """The user's function that suggests what depends on other choices. Raises SpaceError where it cannot be
    found.
    """
    if place is None:
        return None
    module, _, name = place.rpartition(".")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function
    except (ImportError, AttributeError, ValueError) as error:
        raise SpaceError(f"hydra.sweeper.space={place}: no such function ({error})") from None
