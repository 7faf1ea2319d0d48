"""The runs that one command line asks for with `-m`: which they are, checked before the first begins, planned, summed up after the last."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bertlab.config import registry
from bertlab.errors import ConfigError, UserError

LARGEST_CHECKED_SWEEP = 200


@dataclass(frozen=True)
class Sweep:
    """What a command line asks for."""

    runs: list[list[str]]  # each as plain overrides
    trials: int | None = None  # of a search, whose `runs` are corners of its space
    direction: str | None = None  # of a search by the primary score


def check_sweep(job: str, flags: dict[str, str | None], overrides: list[str]) -> list[tuple[list[str], Any]]:
    """Compose and validate the runs of a sweep before the first of them starts; their words and configs. Raises what a bad one raises."""
    from bertlab.config.composition import compose_schema

    if "--config-name" in flags or "--config-path" in flags:
        return []  # not our primary config
    checked = []
    sweep = runs_of(job, flags, overrides)
    for words in sweep.runs[:LARGEST_CHECKED_SWEEP]:
        config = compose_schema(job, words)
        if job == "train":
            from bertlab.training.assembly import check_combination

            check_combination(config)
            check_direction(sweep, config)
        checked.append((words, config))
    return checked


def check_direction(sweep: Sweep, config: Any) -> None:
    """A search for the worst run, by what the objective says of its primary score. Raises ConfigError."""
    wanted = "maximize" if config.objective.for_task(config.dataset).primary_metric().higher_is_better else "minimize"
    if sweep.direction is not None and sweep.direction != wanted:
        raise ConfigError(f"hydra.sweeper.direction={sweep.direction}: the score of objective={config.objective.name} is to {wanted}")


def plan(flags: dict[str, str | None], overrides: list[str]) -> int:
    """`bertlab plan`; the exit status."""
    from bertlab.config.composition import compose_schema, install
    from bertlab.jobs.plan import Asked, show

    if unfit := [name for name in flags if name not in ("--multirun", "--config-dir", "--dry-run")]:
        raise ConfigError(f"{unfit[0]} does not go together with plan or --dry-run")
    install()
    if "--multirun" in flags or searches(overrides):
        sweep = runs_of("train", flags, overrides)
    else:
        sweep = Sweep([with_folder(flags, overrides)])
    if not sweep.runs:
        raise ConfigError("plan: this sweeper makes its runs as it goes; there is no list of them before")
    common = set(sweep.runs[0]).intersection(*sweep.runs[1:])

    def composing(words: list[str]) -> Callable[[], Any]:
        def compose() -> Any:
            try:
                config = compose_schema("train", words)
                check_direction(sweep, config)
                return config
            except UserError:
                raise
            except Exception as error:
                from bertlab.config.explain import explain, is_explained

                raise ConfigError(explain(error, "train")) if is_explained(error) else error from error

        return compose

    return show([Asked([word for word in words if word not in common], composing(words)) for words in sweep.runs], sweep.trials)


def runs_of(job: str, flags: dict[str, str | None], overrides: list[str]) -> Sweep:
    """All runs of a grid; of a search, points that together hold every choice and bound of its space. None of a continuous space with
    somebody else's sweeper, which validates the runs it makes.
    """
    from hydra.errors import HydraException

    from bertlab.config.composition import compose_hydra, sweep_combinations

    if not searches(overrides):
        own = [word for word in overrides if not word.startswith("hydra") or word.startswith("hydra.searchpath=")]
        try:
            return Sweep(sweep_combinations(with_folder(flags, own)))
        except HydraException:
            return Sweep([])
    from omegaconf import OmegaConf

    from hydra_plugins.bertlab_optuna._space import SpaceError, build_space

    own = [word for word in overrides if not word.startswith("hydra.launcher")]
    plain = [word for word in own if not re.search(r"=.*(interval|range|choice|glob|tag|sort|shuffle)\(|=[^'\"\[{(]*,", word)]
    sweeper: Any = OmegaConf.to_container(compose_hydra(job, with_folder(flags, plain)).sweeper, resolve=True)
    groups: Any = SimpleNamespace(get_group_options=lambda group, **_: registry.options_of(group))  # what glob(*) asks of a loader
    try:
        space = build_space([word for word in own if not word.startswith(("hydra", "search="))], sweeper["params"], groups)
    except SpaceError as error:
        raise ConfigError(str(error)) from None
    direction = None if sweeper["directions"] or sweeper["objectives"] else str(sweeper["direction"])
    return Sweep([with_folder(flags, corner) for corner in space.corners()], int(sweeper["n_trials"]), direction)


def with_folder(flags: dict[str, str | None], overrides: list[str]) -> list[str]:
    """Overrides, with what `--config-dir` says among them."""
    folder = flags.get("--config-dir")
    return overrides if folder is None else [*overrides, f"hydra.searchpath=['file://{Path(folder).absolute()}']"]


def searches(overrides: list[str]) -> bool:
    """Is this a search with our sweeper, rather than a grid?"""
    return any(word.startswith("search=") or word == "hydra/sweeper=bertlab_optuna" for word in overrides)


@contextmanager
def summary_of(runs: list[tuple[list[str], Any]]) -> Iterator[None]:
    """Print a grid's runs beside each other at its end, also at one that a failing run or the user brings about; at most those checked."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, UserError | KeyboardInterrupt | SystemExit):
            _print_grid(runs)
        raise
    _print_grid(runs)


def _print_grid(runs: list[tuple[list[str], Any]]) -> None:
    from bertlab.cli.grid import grid_lines

    print("\n".join(grid_lines(runs)), flush=True)
    if len(runs) == LARGEST_CHECKED_SWEEP:
        print(f"runs after the first {LARGEST_CHECKED_SWEEP} are not in this table: bertlab report runs=… has them all")
