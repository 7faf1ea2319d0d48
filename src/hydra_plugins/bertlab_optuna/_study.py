"""Storage, samplers and pruners by name, with one line for what cannot be."""

import inspect
import itertools
import json
import re
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from hydra_plugins.bertlab_optuna._errors import SpaceError
from hydra_plugins.bertlab_optuna._space import ends_of

SAMPLERS = {
    "tpe": "TPESampler", "gp": "GPSampler", "cmaes": "CmaEsSampler", "random": "RandomSampler",
    "qmc": "QMCSampler",
    "grid": "RandomSampler", "nsgaii": "NSGAIISampler",
}  # fmt: skip
PRUNERS = {
    "none": "NopPruner", "median": "MedianPruner", "percentile": "PercentilePruner",
    "hyperband": "HyperbandPruner",
    "asha": "SuccessiveHalvingPruner", "wilcoxon": "WilcoxonPruner", "patient": "PatientPruner",
}  # fmt: skip
NEEDED: dict[str, dict[str, Any]] = {"percentile": {"percentile": 25.0}, "patient": {"patience": 2}}

PASSWORD = re.compile(r"://([^:/@]+):[^@]+@")
OPENINGS = 6  # of a database that is being made by another process

optuna.logging.set_verbosity(optuna.logging.WARNING)


def study_name(arguments: Sequence[str], params: Mapping[str, Any]) -> str:
    """The same for the same command and space: `sweep-1a2b3c4d`."""
    words = sorted(word for word in arguments if not word.startswith("hydra"))
    asked = json.dumps([words, sorted((key, str(value)) for key, value in params.items())])
    return f"sweep-{zlib.crc32(asked.encode()):08x}"


def open_storage(url: str) -> BaseStorage:
    """`sqlite:///file`, `journal:file`, `postgresql://…` or any other URL that SQLAlchemy knows. Raises
    SpaceError.
    """
    if url.startswith("journal:"):
        from optuna.storages.journal import JournalFileBackend

        return JournalStorage(JournalFileBackend(url.removeprefix("journal:").removeprefix("//")))
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": 120}
    if url.startswith("postgresql://") and _has("psycopg"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    for attempt in range(OPENINGS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return RDBStorage(url, engine_kwargs=options)
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            if attempt + 1 == OPENINGS or not re.search("exists|UNIQUE|unique|locked", str(error)):
                raise _unopened(url, error) from None
            time.sleep(0.3 * (attempt + 1))  # another process makes the tables at this moment
        except Exception as error:  # of SQLAlchemy and of drivers
            raise _unopened(url, error) from None
    raise AssertionError


@contextmanager
def storage_errors_explained(options: Mapping[str, Any]) -> Iterator[None]:
    """A database that fails while the sweep uses it, as a damaged file does, in one line. Raises
    SpaceError.
    """
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ or error
        line = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:160]
        where = PASSWORD.sub(r"://\1:…@", str(options["storage"] or f"{options['folder']}/…/study.db"))
        hint = "; mend or move it, and the same command makes the study again from its finished runs"
        raise SpaceError(f"hydra.sweeper.storage={where}: cannot be used ({line}){hint}") from None


def _unopened(url: str, error: Exception) -> SpaceError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    shown = PASSWORD.sub(r"://\1:…@", url)
    return SpaceError(f"hydra.sweeper.storage={shown}: cannot be opened ({line})")


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def load_study(description: Mapping[str, Any]) -> optuna.Study:
    """The job's view: the pruner is the sweep's, the sampler draws nothing."""
    storage = open_storage(str(description["storage"]))
    pruner = build_pruner(str(description["pruner"]), description["pruner_options"])
    return optuna.load_study(
        study_name=description["study"],
        storage=storage,
        sampler=optuna.samplers.RandomSampler(),
        pruner=pruner,
    )


def open_study(
    storage: BaseStorage,
    name: str,
    directions: Sequence[str],
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
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
    kept = [direction.name.lower() for direction in study.directions]
    if kept != list(directions):
        raise SpaceError(
            f"the study {name} was begun with directions {', '.join(kept)}, not {', '.join(directions)}: take"
            " another study_name"
        )
    return study


def build_sampler(
    name: str, options: Mapping[str, Any], seed: int | None, space: Mapping[str, BaseDistribution]
) -> optuna.samplers.BaseSampler:
    """A sampler by its short name. Raises SpaceError for an unknown one, or an option that it
    does not have.
    """
    if name == "grid":
        grid_cells(space)  # raises for an interval

    def build(seed: int | None) -> optuna.samplers.BaseSampler:
        given = {key: value for key, value in {**options, "seed": seed}.items() if value is not None}
        sampler: optuna.samplers.BaseSampler = _build("sampler", name, SAMPLERS, optuna.samplers, given)
        return sampler

    if seed is None or name == "qmc":  # a quasi-random sequence is one, its place in it stands in the study
        return build(seed)
    return Numbered(build, seed)


class Numbered(optuna.samplers.BaseSampler):
    """A sampler whose draws follow from the seed and the trial's number.

    With one generator for all trials, a restarted sweep would draw again what it drew at first, and two
    sweeps on one study the same.
    """

    def __init__(self, build: Callable[[int], optuna.samplers.BaseSampler], seed: int) -> None:
        self._build, self._seed = build, seed
        self._sampler = build(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler = self._build(zlib.crc32(f"{self._seed} {trial.number}".encode()))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def grid_cells(space: Mapping[str, BaseDistribution]) -> list[dict[str, Any]]:
    """Every point of a space of choices and ranges, in order. Raises SpaceError for an interval."""
    values = {key: _grid_of(key, distribution) for key, distribution in space.items()}
    return [dict(zip(values, cell, strict=True)) for cell in itertools.product(*values.values())]


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
    given = {**NEEDED.get(name, {}), **{key: value for key, value in options.items() if value is not None}}
    if name == "patient":
        wrapped = given.pop("wrapped", None)
        given["wrapped_pruner"] = None if wrapped is None else build_pruner(wrapped, {})
    pruner: optuna.pruners.BasePruner = _build("pruner", name, PRUNERS, optuna.pruners, given)
    return pruner


def _build(kind: str, name: str, table: Mapping[str, str], module: Any, options: Mapping[str, Any]) -> Any:
    import difflib

    if name not in table:
        close = difflib.get_close_matches(name, table, n=1)
        guess = f"did you mean '{close[0]}'? " if close else ""
        raise SpaceError(f"hydra.sweeper.{kind}={name}: unknown, {guess}(options: {', '.join(table)})")
    made = getattr(module, table[name])
    known = [key for key in inspect.signature(made).parameters if key != "self"]
    for key in options:
        if key not in known:
            raise SpaceError(
                f"hydra.sweeper.{kind}_options.{key}: {table[name]} has no such option (it has"
                f" {', '.join(known)})"
            )
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
