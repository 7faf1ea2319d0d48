"""The sweep: ask, launch, see what became of it, until the study holds its total.

Nothing depends on what a launcher returns: the trials' states are in the storage, told by the jobs themselves. A trial that was not heard
of for a while is given up and its point tried again. Several sweeps may work on one study at once: a trial that would be one too many is
withdrawn by whoever asked for it, the trials' numbers decide.
"""

import importlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

from hydra_plugins.bertlab_optuna._results import write_results
from hydra_plugins.bertlab_optuna._space import Space, SpaceError, build_space, quoted
from hydra_plugins.bertlab_optuna._study import build_pruner, build_sampler, default_storage, open_storage, open_study, study_name
from hydra_plugins.bertlab_optuna.trial import BEAT, VARIABLE

DEAD_AFTER = 6  # heartbeats without a sign
RETRIES = 3  # of one point whose process died
LAUNCH_ERRORS = 3  # in a row
FEWEST_TO_JUDGE = 10  # trials, before their failure rate counts
WITHDRAWN, RETRIED = "withdrawn", "retries"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass
class Count:
    """How far a study is."""

    finished: int
    running: int
    failed: int  # by themselves: neither withdrawn nor given up for dead


def run_sweep(options: Mapping[str, Any], arguments: Sequence[str], config: DictConfig, launcher: Launcher, loader: ConfigLoader) -> None:
    """Work on the study until it holds `n_trials`; then write what came of it. Raises SpaceError for what the user can mend."""
    params = options["params"] or {}
    space = build_space(arguments, params, loader)
    name = options["study_name"] or study_name(arguments, params)
    folder = Path(str(options["folder"])) / name
    folder.mkdir(parents=True, exist_ok=True)
    url = options["storage"] or default_storage(folder)
    for overrides in space.corners():
        loader.load_sweep_config(config, list(overrides))  # raises for a key that is not there
    sampler = build_sampler(options["sampler"], options["sampler_options"] or {}, options["seed"], space.searched)
    pruner = build_pruner(options["pruner"], options["pruner_options"] or {})
    study = open_study(open_storage(url), name, list(options["directions"] or [options["direction"]]), sampler, pruner)
    total = int(options["n_trials"])
    if options["sampler"] == "grid":
        total = min(total, len(sampler._all_grids))  # type: ignore[attr-defined]
    _warm_start(study, options["warm_start"] or [], space)
    extra = _suggest(options["space"])
    description = {
        "storage": url, "study": name, "pruner": options["pruner"], "pruner_options": OmegaConf.to_container(OmegaConf.create(
            dict(options["pruner_options"] or {}))), "heartbeat_seconds": options["heartbeat_seconds"],
    }  # fmt: skip
    print(f"study {name}: {count(study).finished} of {total} trials are there; {url}", flush=True)
    _work(study, space, extra, total, options, description, launcher)
    write_results(study, space, folder)


def _work(
    study: optuna.Study, space: Space, extra: Callable[..., Any] | None, total: int, options: Mapping[str, Any],
    description: dict[str, Any], launcher: Launcher,
) -> None:  # fmt: skip
    beat, errors, waited = float(options["heartbeat_seconds"]), 0, False
    end = None if options["max_hours"] is None else time.monotonic() + 3600 * float(options["max_hours"])
    while (state := _after_retries(study, beat)).finished < total:
        begun = state.finished + state.running + state.failed
        if begun >= FEWEST_TO_JUDGE and state.failed > float(options["max_failure_rate"]) * begun:
            raise SpaceError(
                f"{state.failed} of {begun} trials failed, the last one: {_last_failure(study)} (hydra.sweeper.max_failure_rate)"
            )
        if end is not None and time.monotonic() > end:
            print(f"hydra.sweeper.max_hours is over: {state.finished} of {total} trials")
            return
        free = total - state.finished - state.running
        if free <= 0:
            if not waited:
                print(f"{state.running} trials are with other processes; waiting for them", flush=True)
            waited = True
            time.sleep(min(1.0, beat))
            continue
        waited = False
        found = [ask(study, space, extra, total) for _ in range(min(free, int(options["n_jobs"])))]
        asked = [one for one in found if one is not None]
        if not asked:
            time.sleep(0.05)
            continue
        try:
            with beating(study, [trial._trial_id for trial, _ in asked], beat):
                returns = launcher.launch(
                    [_job(overrides, trial, description) for trial, overrides in asked], initial_job_idx=asked[0][0].number
                )
            errors = 0
        except Exception as error:  # a killed worker, a launcher's own trouble: what the jobs told is in the study
            errors += 1
            print(f"the launcher stopped: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}", flush=True)
            if errors >= LAUNCH_ERRORS:
                raise
            continue
        for (trial, _), returned in zip(asked, returns, strict=False):
            settle(study, trial._trial_id, returned)


def ask(study: optuna.Study, space: Space, extra: Callable[..., Any] | None, total: int) -> tuple[optuna.Trial, list[str]] | None:
    """A new trial, or one that waits to be tried again, with its overrides; None where it would be one too many."""
    trial = study.ask(dict(space.searched))
    study._storage.set_trial_user_attr(trial._trial_id, BEAT, time.time())
    before = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number]
    if sum(other.state in (*FINISHED, TrialState.RUNNING) for other in before) >= total:
        study._storage.set_trial_user_attr(trial._trial_id, WITHDRAWN, True)
        _give_up(study, trial._trial_id)
        return None
    if extra is not None:
        extra(trial, space.overrides(trial.params))
    return trial, space.overrides(trial.params)


def _job(overrides: list[str], trial: optuna.Trial, description: dict[str, Any]) -> list[str]:
    named = json.dumps({**description, "trial": trial._trial_id})
    return [*overrides, f"++hydra.job.env_set.{VARIABLE}={quoted(named)}"]


@contextmanager
def beating(study: optuna.Study, trial_ids: Sequence[int], interval: float) -> Iterator[None]:
    """Trials that a launcher has in its queue are alive as long as we wait for them."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(interval):
            for trial_id in trial_ids:
                try:
                    study._storage.set_trial_user_attr(trial_id, BEAT, time.time())
                except UpdateFinishedTrialError:
                    continue

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
        found = [float(value) for value in (values if isinstance(values, list | tuple) else [values])]
        if any(value != value for value in found) or len(found) != len(study.directions):
            raise ValueError(f"{values} is not {len(study.directions)} number(s)")
        study._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, found)
    except (TypeError, ValueError) as error:
        study._storage.set_trial_user_attr(trial_id, "failure", f"the job returned {error}")
        _give_up(study, trial_id)


def count(study: optuna.Study) -> Count:
    """Trials by what became of them."""
    trials = study.get_trials(deepcopy=False)
    failed = [
        trial for trial in trials if trial.state == TrialState.FAIL and WITHDRAWN not in trial.user_attrs and "dead" not in trial.user_attrs
    ]
    return Count(sum(trial.state in FINISHED for trial in trials), sum(trial.state == TrialState.RUNNING for trial in trials), len(failed))


def _after_retries(study: optuna.Study, beat: float) -> Count:
    """Give up trials that were not heard of for a while and queue their points again, each once whoever notices first."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        started = trial.datetime_start.timestamp() if trial.datetime_start is not None else 0.0
        if time.time() - float(trial.user_attrs.get(BEAT, started)) <= DEAD_AFTER * beat:
            continue
        try:
            study._storage.set_trial_user_attr(trial._trial_id, "dead", True)
        except UpdateFinishedTrialError:
            continue
        if _give_up(study, trial._trial_id):
            _again(study, trial)
    return count(study)


def _again(study: optuna.Study, trial: FrozenTrial) -> None:
    retries = int(trial.user_attrs.get(RETRIED, 0)) + 1
    if retries > RETRIES:
        print(f"trial {trial.number} died {retries} times and is not tried again: {trial.params}", flush=True)
        return
    print(f"trial {trial.number} was not heard of any more; it is tried again", flush=True)
    original = trial.user_attrs.get("retried_trial_number", trial.number)
    study.enqueue_trial(trial.params, user_attrs={RETRIED: retries, "retried_trial_number": original})


def _give_up(study: optuna.Study, trial_id: int) -> bool:
    """Fail a trial; False where somebody else has ended it."""
    try:
        return bool(study._storage.set_trial_state_values(trial_id, TrialState.FAIL))
    except UpdateFinishedTrialError:
        return False


def _last_failure(study: optuna.Study) -> str:
    reasons = [trial.user_attrs["failure"] for trial in study.get_trials(deepcopy=False) if "failure" in trial.user_attrs]
    return str(reasons[-1]) if reasons else "it did not say why"


def _warm_start(study: optuna.Study, points: Sequence[Mapping[str, Any]], space: Space) -> None:
    """Queue the given points before anything else, once."""
    if not points or study.get_trials(deepcopy=False):
        return
    known = {key.lstrip("+"): key for key in space.searched}
    for point in points:
        for key in point:
            if key not in known:
                raise SpaceError(f"hydra.sweeper.warm_start: {key} is not searched (searched: {', '.join(known)})")
        study.enqueue_trial({known[key]: _as_distributed(space, known[key], value) for key, value in point.items()})


def _as_distributed(space: Space, key: str, value: Any) -> Any:
    choices = getattr(space.searched[key], "choices", None)
    if choices is None:
        return value
    if str(value) not in choices:
        raise SpaceError(f"hydra.sweeper.warm_start: {key}={value} is none of {', '.join(map(str, choices))}")
    return str(value)


def _suggest(place: str | None) -> Callable[..., Any] | None:
    """The user's function that suggests what depends on other choices. Raises SpaceError where it cannot be found."""
    if place is None:
        return None
    module, _, name = place.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found
    except (ImportError, AttributeError, ValueError) as error:
        raise SpaceError(f"hydra.sweeper.space={place}: no such function ({error})") from None
