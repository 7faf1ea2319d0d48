"""Storage, samplers and pruners by name, with one line for what cannot be."""

import inspect
import json
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.study import StudyDirection

from hydra_plugins.bertlab_optuna._space import SpaceError, ends_of

SAMPLERS = {
    "tpe": "TPESampler", "gp": "GPSampler", "cmaes": "CmaEsSampler", "random": "RandomSampler", "qmc": "QMCSampler",
    "grid": "GridSampler", "nsgaii": "NSGAIISampler",
}  # fmt: skip
PRUNERS = {
    "none": "NopPruner", "median": "MedianPruner", "percentile": "PercentilePruner", "hyperband": "HyperbandPruner",
    "asha": "SuccessiveHalvingPruner", "wilcoxon": "WilcoxonPruner", "patient": "PatientPruner",
}  # fmt: skip
NEEDED: dict[str, dict[str, Any]] = {"percentile": {"percentile": 25.0}, "patient": {"wrapped_pruner": None, "patience": 2}}

optuna.logging.set_verbosity(optuna.logging.WARNING)


def study_name(arguments: Sequence[str], params: Mapping[str, Any]) -> str:
    """The same for the same command and space: `sweep-1a2b3c4d`."""
    words = sorted(word for word in arguments if not word.startswith("hydra"))
    return f"sweep-{zlib.crc32(json.dumps([words, sorted((key, str(value)) for key, value in params.items())]).encode()):08x}"


def open_storage(url: str) -> BaseStorage:
    """`sqlite:///file`, `journal:file`, `postgresql://…` or any other URL that SQLAlchemy knows. Raises SpaceError."""
    if url.startswith("journal:"):
        from optuna.storages.journal import JournalFileBackend

        return JournalStorage(JournalFileBackend(url.removeprefix("journal:").removeprefix("//")))
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": 120}
    if url.startswith("postgresql://") and _has("psycopg"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return RDBStorage(url, engine_kwargs=options)
    except Exception as error:  # of SQLAlchemy and of drivers
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        shown = re.sub(r"://([^:/@]+):[^@]+@", r"://\1:…@", url)
        raise SpaceError(f"hydra.sweeper.storage={shown}: cannot be opened ({line})") from None


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def load_study(description: Mapping[str, Any]) -> optuna.Study:
    """The job's view: the pruner is the sweep's, the sampler draws nothing."""
    storage = open_storage(str(description["storage"]))
    pruner = build_pruner(str(description["pruner"]), description["pruner_options"])
    return optuna.load_study(study_name=description["study"], storage=storage, sampler=optuna.samplers.RandomSampler(), pruner=pruner)


def open_study(
    storage: BaseStorage, name: str, directions: Sequence[str], sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner
) -> optuna.Study:
    """Create the study, or go on with it. Raises SpaceError where it was begun with other directions."""
    for direction in directions:
        if direction not in ("minimize", "maximize"):
            raise SpaceError(f"hydra.sweeper.direction={direction}: unknown (options: maximize, minimize)")
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=[StudyDirection[direction.upper()] for direction in directions],
        sampler=sampler,
        pruner=pruner,
        load_if_exists=True,
    )
    found = [direction.name.lower() for direction in study.directions]
    if found != list(directions):
        raise SpaceError(
            f"the study {name} was begun with directions {', '.join(found)}, not {', '.join(directions)}: take another study_name"
        )
    return study


def build_sampler(
    name: str, options: Mapping[str, Any], seed: int | None, space: Mapping[str, BaseDistribution]
) -> optuna.samplers.BaseSampler:
    """A sampler by its short name. Raises SpaceError for an unknown one, or an option that it does not have."""
    extra: dict[str, Any] = {"seed": seed} if seed is not None and name != "grid" else {}
    if name == "grid":
        extra["search_space"] = {key: _grid_of(key, distribution) for key, distribution in space.items()}
    found: optuna.samplers.BaseSampler = _build("sampler", name, SAMPLERS, optuna.samplers, {**extra, **options})
    if seed is not None and name not in ("grid", "qmc"):  # those two keep their place in the storage
        _seed_by_number(found, seed)
    return found


def _seed_by_number(sampler: Any, seed: int) -> None:
    """Draw each trial from (seed, its number): a sweep that goes on, or works beside another one, must not draw the same points again."""
    original = sampler.before_trial

    def before_trial(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        for generator in _generators(sampler):
            generator.seed([seed, trial.number])
        original(study, trial)

    sampler.before_trial = before_trial


def _generators(sampler: Any) -> list[Any]:
    """The random generators of a sampler and of those within it."""
    found = []
    for value in vars(sampler).values():
        if isinstance(value, optuna.samplers.BaseSampler):
            found += _generators(value)
        elif type(value).__name__ == "LazyRandomState":
            found.append(value.rng)
    return found


def _grid_of(key: str, distribution: BaseDistribution) -> list[Any]:
    step = getattr(distribution, "step", None)
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return ends_of(distribution)
    if step is None or getattr(distribution, "log", False):
        raise SpaceError(f"{key}: hydra.sweeper.sampler=grid needs choices or ranges, not an interval")
    low, high = ends_of(distribution)
    return [type(low)(low + index * step) for index in range(int((high - low) / step + 1e-9) + 1)]


def build_pruner(name: str, options: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    """A pruner by its short name. Raises SpaceError."""
    defaults = NEEDED.get(name, {})
    found: optuna.pruners.BasePruner = _build("pruner", name, PRUNERS, optuna.pruners, {**defaults, **options})
    return found


def _build(kind: str, name: str, table: Mapping[str, str], module: Any, options: Mapping[str, Any]) -> Any:
    import difflib

    if name not in table:
        close = difflib.get_close_matches(name, table, n=1)
        guess = f"did you mean '{close[0]}'? " if close else ""
        raise SpaceError(f"hydra.sweeper.{kind}={name}: unknown, {guess}(options: {', '.join(table)})")
    made = getattr(module, table[name])
    known = [key for key in inspect.signature(made).parameters if key != "self"]
    options = {key: value for key, value in options.items() if key in known or key != "seed"}
    for key in options:
        if key not in known:
            raise SpaceError(f"hydra.sweeper.{kind}_options.{key}: {table[name]} has no such option (it has {', '.join(known)})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental samplers
            return made(**options)
    except ImportError as error:
        raise SpaceError(f"hydra.sweeper.{kind}={name}: needs a package ({error})") from None
    except (TypeError, ValueError) as error:
        raise SpaceError(f"hydra.sweeper.{kind}={name}: {error}") from None


def default_storage(folder: Path) -> str:
    """SQLite beside the study's results."""
    return f"sqlite:///{folder / 'study.db'}"
