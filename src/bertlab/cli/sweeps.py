"""The runs that one command line asks for with `-m`: which they are, checked before the first begins,
planned, summed up after the last.
"""

import dataclasses
import functools
import gc
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

from bertlab.config import outlines, registry
from bertlab.config.schema import Planning
from bertlab.errors import ConfigError, UserError
from bertlab.runs.progress import each

if TYPE_CHECKING:
    from bertlab.config.hardware import Hardware
    from bertlab.config.words import Word

T = TypeVar("T")
LARGEST_CHECKED_SWEEP = 200
SWEEPER = "bertlab_optuna"
PAIRS = "bertlab_zip"  # the sweeper of grids with a zip(…)


@dataclass(frozen=True)
class Sweep:
    """What a command line asks for."""

    runs: "Sequence[list[Word]]"  # the words of each
    trials: int | None = None  # of a search, whose `runs` are corners of its space
    direction: str | None = None  # of a search by the primary score
    configs: list[Any] = field(default_factory=list)  # of the runs that were checked, the first ones

    @functools.cached_property
    def settings(self) -> list[dict[str, str]]:
        """Of each run, what sets it apart: key -> value."""
        from bertlab.config.words import apart  # with Hydra, which help does not wait for

        return apart(self.runs)

    @property
    def suites(self) -> list[str]:
        """The suites that its tasks are of."""
        from bertlab.config.suites import suites_in  # with Hydra, which help does not wait for

        return list(dict.fromkeys(name for words in self.runs for name in suites_in(words)))

    @property
    def labels(self) -> list[str]:
        """`run 3/10: optimizer.lr=4e-5 seed=1` for each run of a grid; nothing for other sweeps, and for a
        grid of one.
        """
        if self.trials is not None or len(self.runs) < 2:
            return []
        return [
            f"run {number}/{len(self.runs)}: {_joined(own)}"
            for number, own in enumerate(self.settings, start=1)
        ]

    def alike(self, number: int) -> "Iterator[tuple[int, Any]]":
        """The runs after this one that differ from it in the seed alone: their numbers and configs."""
        from bertlab.config.composition import compose_words

        own = {**self.settings[number], "seed": ""}
        for later in range(number + 1, len(self.runs)):
            if {**self.settings[later], "seed": ""} == own:
                checked = later < len(self.configs)
                yield later, self.configs[later] if checked else compose_words("train", self.runs[later])

    @property
    def is_together(self) -> bool:
        """Whether runs of it are to be trained together."""
        return any(config.compute.together > 1 for config in self.configs)


def _joined(settings: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())


def check_sweep(job: str, flags: dict[str, str | None], words: "list[Word]") -> Sweep:
    """Compose and validate the runs of a sweep before the first of them starts. Raises what a bad
    one raises.
    """
    from bertlab.config.composition import compose_apart, to_schema

    if "--config-name" in flags or "--config-path" in flags:
        return Sweep([])  # not our primary config
    with outlines.outlined():  # what is wrong is told before torch is imported
        sweep = runs_of(job, flags, words)
        first = sweep.runs[:LARGEST_CHECKED_SWEEP]
        composed = [compose_apart(job, run) for run in each(first, "checking", len(first), "runs")]
        for config, hydra in composed:
            to_schema(config, hydra)
    for untyped, hydra in composed:
        config = to_schema(untyped, hydra)
        if job == "train":
            from bertlab.training.assembly import check_combination

            check_combination(config)
            check_direction(sweep, config)
        sweep.configs.append(config)
    _check_tasks(sweep)
    return sweep


def _check_tasks(sweep: Sweep) -> None:
    """Raises ConfigError where two tasks of a suite would be one in every table."""
    known: dict[tuple[str, str], str] = {}
    for words, config in zip(sweep.runs, sweep.configs, strict=False):
        task = next(
            (str(word.plain) for word in words if word.key == "suite" and word.value is not None), None
        )
        if (
            task is not None
            and known.setdefault(key := (config.dataset.name, config.objective.name), task) != task
        ):
            raise ConfigError(
                f"suite: {known[key]} and {task} are both objective={key[1]} on '{key[0]}'; give one a name"
                " of its own: dataset.name=…"
            )


def check_direction(sweep: Sweep, config: Any) -> None:
    """A search for the worst run, by what the objective says of its primary score. Raises ConfigError."""
    wanted = (
        "maximize"
        if config.objective.for_task(config.dataset).primary_metric().higher_is_better
        else "minimize"
    )
    if sweep.direction is not None and sweep.direction != wanted:
        raise ConfigError(
            f"hydra.sweeper.direction={sweep.direction}: the score of objective={config.objective.name} is to"
            f" {wanted}"
        )


def plan(flags: dict[str, str | None], overrides: list[str]) -> int:
    """`bertlab plan`; the exit status."""
    from bertlab.config.composition import compose_raw, compose_words, install, read_words
    from bertlab.runs.outlines import know_outlines

    if unfit := [name for name in flags if name not in ("--multirun", "--config-dir", "--dry-run")]:
        raise ConfigError(f"{unfit[0]} does not go together with plan or --dry-run")
    install()
    know_outlines()
    planning, overrides = own_words(Planning, overrides)
    elsewhere, overrides = words_of_devices(flags, planning, overrides)
    with outlines.outlined():  # a typo is told before torch is imported
        words = read_words("train", overrides)
        compose_raw("train", with_folder(flags, [word for word in words if not word.sweep]))
        if "--multirun" in flags or searches(words):
            sweep = runs_of("train", flags, choose_sweeper(words))
        else:
            sweep = Sweep([with_folder(flags, words)])
    if not sweep.runs:
        raise ConfigError("plan: this sweeper makes its runs as it goes; there is no list of them before")

    from bertlab.jobs.plan import Asked, show

    gc.enable()  # see entry.main

    def composing(run: "list[Word]") -> Callable[[], Any]:
        def compose() -> Any:
            try:
                config = compose_words("train", run)
                check_direction(sweep, config)
                return config
            except UserError:
                raise
            except Exception as error:
                from bertlab.config.explain import explain, is_explained

                raise ConfigError(explain(error, "train")) if is_explained(error) else error from error

        return compose

    asked = [
        Asked([f"{key}={value}" for key, value in own.items()], composing(run))
        for run, own in zip(sweep.runs, sweep.settings, strict=True)
    ]
    if elsewhere is None:
        return show(asked, sweep.trials, planning)
    from bertlab.jobs import _devices

    return _devices.show(asked, *elsewhere)


def words_of_devices(
    flags: dict[str, str | None], planning: Planning, overrides: Sequence[str]
) -> "tuple[tuple[tuple[int, ...], bool, str, Hardware] | None, list[str]]":
    """What says for which devices the plan is made (numbers, whether sharded, hardware), None where it is for
    this machine; and the other words. Raises ConfigError.
    """
    own = [word for word in overrides if re.match(r"hardware[.=]", word)]
    if not own and planning.devices is None and planning.sharding == "none":
        return None, list(overrides)
    from bertlab.config.hardware import numbers_of, read_hardware

    if planning.effect is not None or planning.pilot is not None:
        raise ConfigError("effect and pilot are of a plan for this machine; leave out devices and hardware")
    numbers, folder = numbers_of(planning.devices), flags.get("--config-dir")
    name, hardware = read_hardware(own, None if folder is None else Path(folder))
    others = [word for word in overrides if word not in own]
    return (numbers, planning.sharding == "full", name, hardware), others


def own_words(schema: type[T], overrides: Sequence[str]) -> tuple[T, list[str]]:
    """The words that set fields of this dataclass, as one, and the others. Raises ConfigError for a value
    that does not fit.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from bertlab.config.schema import validate

    names = {item.name for item in dataclasses.fields(cast(Any, schema))}
    own = [word for word in overrides if word.partition("=")[0] in names]
    try:
        filled: Any = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.from_dotlist(own))
        )
    except OmegaConfBaseException as error:
        raise ConfigError(f"{' '.join(own)}: {str(error).splitlines()[0]}") from None
    validate(filled)
    return filled, [word for word in overrides if word not in own]


def runs_of(job: str, flags: dict[str, str | None], words: "list[Word]") -> Sweep:
    """All runs of a grid; of a search, points that together hold every choice and bound of its space. None of
    a continuous space with somebody else's sweeper, which validates the runs it makes.
    """
    from bertlab.config.composition import combinations, compose_hydra
    from bertlab.config.words import read

    own = [word for word in words if not word.key.startswith("hydra") or word.key == "hydra.searchpath"]
    if not searches(words):
        try:
            return Sweep(combinations(with_folder(flags, own)))
        except ValueError:
            return Sweep([])
    from omegaconf import OmegaConf

    from hydra_plugins.bertlab_optuna._errors import SpaceError
    from hydra_plugins.bertlab_optuna._space import build_space

    plain = [
        word
        for word in words
        if not word.sweep
        and not word.key.startswith("hydra/launcher")
        and not word.key.startswith("hydra.launcher")
    ]
    sweeper: Any = OmegaConf.to_container(compose_hydra(job, with_folder(flags, plain)).sweeper, resolve=True)
    if not {"params", "directions", "objectives", "n_trials"} <= set(sweeper):
        raise ConfigError(
            "search: the preset builds on no sweeper that searches; add `defaults: [{override"
            " /hydra/sweeper: bertlab_optuna}]` at its top"
        )
    # what glob(*) asks of a loader
    groups: Any = SimpleNamespace(get_group_options=lambda group, **_: registry.options_of(group))
    try:
        space = build_space(
            [str(word) for word in own if word.key not in ("search", "hydra.searchpath")],
            sweeper["params"],
            groups,
        )
    except SpaceError as error:
        raise ConfigError(str(error)) from None
    direction = None if sweeper["directions"] or sweeper["objectives"] else str(sweeper["direction"])
    return Sweep(
        [with_folder(flags, read(corner)) for corner in space.corners()], int(sweeper["n_trials"]), direction
    )


def with_folder(flags: dict[str, str | None], words: "list[Word]") -> "list[Word]":
    """Words, with what `--config-dir` says among them."""
    from bertlab.config.words import Word

    folder = flags.get("--config-dir")
    return (
        words
        if folder is None
        else [*words, Word("hydra.searchpath").with_value([f"file://{Path(folder).absolute()}"])]
    )


def searches(words: "list[Word]") -> bool:
    """Is this a search with our sweeper, rather than a grid?"""
    return any(
        word.key == "search" or (word.key == "hydra/sweeper" and word.plain == SWEEPER) for word in words
    )


def choose_sweeper(words: "list[Word]") -> "list[Word]":
    """An interval is something to search, and so is what has our sweeper's options, unless another sweeper is
    chosen.

    A search's results lie together in one folder. Raises ConfigError for a search of values that go together.
    """
    from hydra.core.override_parser.types import IntervalSweep

    from bertlab.config.describe import keys_of_search
    from bertlab.config.words import parse

    chosen = {word.key for word in words}
    added: list[str] = []
    options = {key.name for key in keys_of_search()} - {"hydra.sweeper.params"}
    is_search = any(isinstance(word.value, IntervalSweep) for word in words) or bool(options & chosen)
    if not chosen & {"search", "hydra/sweeper"} and is_search:
        added = [f"hydra/sweeper={SWEEPER}"]
    together: dict[str, list[str]] = {}
    for word in words:
        if word.zipped is not None:
            together.setdefault(word.zipped, []).append(
                f"'{word.prefix}{word.key}{'' if word.package is None else f'@{word.package}'}'"
            )
    if together:
        if added or searches(words) or "hydra/sweeper" in chosen:
            raise ConfigError(
                "zip(…) pairs the values of a grid; a search chooses its own points: leave one of them out"
            )
        listed = ",".join(f"[{','.join(keys)}]" for keys in together.values())
        return [parse(f"hydra/sweeper={PAIRS}"), parse(f"hydra.sweeper.zipped=[{listed}]"), *words]
    if (added or searches(words)) and "hydra.sweep.dir" not in chosen:
        # where Hydra would leave an empty folder of its own
        added.append("hydra.sweep.dir=${hydra.sweeper.folder}")
    return [*map(parse, added), *words]


class ToldError(UserError):
    """The error of one run of a sweep, whose line has been printed: the sweep's exit status tells of it, no
    further line.
    """


class WithoutHydrasLine:
    """Standard error but for the line in which Hydra repeats a failed run's overrides."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """All else."""
        return (
            len(text) if text.startswith("Error executing job with overrides") else self._stream.write(text)
        )


@contextmanager
def telling(sweep: Sweep, with_table: bool) -> Iterator[None]:
    """Each failed run is told in one line, its own; a grid ends in its runs beside each other, also one that
    the user ends.
    """
    with redirect_stderr(cast(TextIO, WithoutHydrasLine(sys.stderr))):
        try:
            yield
        except BaseException as error:
            if with_table and isinstance(error, UserError | KeyboardInterrupt | SystemExit):
                _print_grid(sweep)
            raise
    if with_table:
        _print_grid(sweep)


def _print_grid(sweep: Sweep) -> None:
    from bertlab.cli.grid import grid_lines, suite_lines
    from bertlab.config.suites import read_suite, suites_in

    print("\n".join(grid_lines(list(zip(sweep.settings, sweep.configs, strict=False)))), flush=True)
    for name in sweep.suites:
        own = [
            config
            for words, config in zip(sweep.runs, sweep.configs, strict=False)
            if suites_in(words) == [name]
        ]
        print("\n".join(suite_lines(read_suite(name), own)), flush=True)
    if len(sweep.runs) > LARGEST_CHECKED_SWEEP:
        print(
            f"runs after the first {LARGEST_CHECKED_SWEEP} are not in this table: bertlab report runs=… has"
            " them all"
        )
