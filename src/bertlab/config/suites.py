"""Suites of tasks: `conf/suite/NAME.yaml` says what each task is, in words of the command line.

On a command line `suite=NAME` stands for `suite=NAME/TASK,NAME/TASK,…`: options of a config group, each a
preset of everything that its task's words say, so that sweeps, plans, launchers and identities need know
nothing of suites. What the command line says itself holds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.types import ChoiceSweep
from omegaconf import MISSING

from bertlab.config import registry
from bertlab.config.files import read_declared, word_in
from bertlab.config.schema import Node, choice, mapping, string, words
from bertlab.config.words import Word, parse
from bertlab.errors import ConfigError, did_you_mean

GROUP = "suite"
NOT_A_TASKS = ("experiment", "search", "debug", GROUP)  # groups that a whole command line chooses


@dataclass
class Published(Node):
    """Somebody else's scores on the tasks, to stand beside ours."""

    source: str = string(MISSING, "where they are published, and of which split")
    split: str = choice("test", "test", "validation", help="what they were scored on")
    scores: dict[str, float] = mapping("task -> its official score, times 100")


@dataclass
class Suite(Node):
    """Tasks that are run and reported together."""

    tasks: dict[str, list[str]] = mapping(
        "task -> the words that make it: its dataset, its objective, what is its own"
    )
    recipe: list[str] = words(
        "words for every task; a task's own, and those of the command line, hold against them"
    )
    grid: list[str] = words(
        "words of several values that are tried on each task; the best mean on validation is taken, task by"
        " task"
    )
    apart: list[str] = words("tasks that are shown, but are not in the mean over tasks")
    published: dict[str, Published] = mapping("name -> published scores")

    def check(self, path: str) -> None:
        """Names of tasks, and words that are words."""
        where = f"{path}." if path else ""
        if not self.tasks:
            raise ConfigError(f"{where}tasks: none; write TASK: [dataset=…, objective=…]")
        for task, own in self.tasks.items():
            if not re.fullmatch(r"\w[\w.+-]{0,79}", task):
                raise ConfigError(
                    f"{where}tasks.{task[:80]}: must be a short name of letters, digits, '_', '-' and '.'"
                )
            for word in own:
                _check_word(f"{where}tasks.{task}", word)
        for word in self.recipe:
            _check_word(f"{where}recipe", word)
        for word in self.grid:
            if not _check_word(f"{where}grid", word, several=True).sweep:
                raise ConfigError(
                    f"{where}grid: '{word}' has one value, so there is nothing to choose; it belongs into"
                    f" {where}recipe"
                )
        for name in (
            *self.apart,
            *(task for published in self.published.values() for task in published.scores),
        ):
            if name not in self.tasks:
                raise ConfigError(
                    f"{where}{name}: there is no such task, {did_you_mean(name, list(self.tasks))}"
                )

    def words_for(self, task: str) -> list[str]:
        """The words that make one of its tasks."""
        own = [*self.recipe, *self.tasks[task]]
        if "dataset=files" in own and all(parse(word).name != "dataset.name" for word in own):
            own.append(f"dataset.name={task}")  # several tasks of own files are told apart by their names
        return own

    def keys_of_grid(self) -> list[str]:
        """What is chosen on validation."""
        return [parse(word).name for word in self.grid]


def _check_word(where: str, text: str, several: bool = False) -> Word:
    word = word_in(where, text)
    if word.name in NOT_A_TASKS:
        raise ConfigError(f"{where}: '{text}': {word.name}=… belongs to a whole command line, not to a task")
    if word.sweep and not several:
        raise ConfigError(
            f"{where}: '{text}' has several values; what is to be chosen on validation belongs into grid"
        )
    return word


def files() -> dict[str, Path]:
    """Name -> file of each suite; one of a plugin before ours."""
    return registry.declared_files(GROUP)


def read_suite(name: str) -> Suite:
    """A suite by its name. Raises ConfigError naming the file and the key that is wrong."""
    file = files().get(name)
    if file is None:
        raise ConfigError(f"{GROUP}={name}: unknown suite, {did_you_mean(name, sorted(files()))}")
    return read_declared(file, Suite)


def words_of(option: str) -> list[str]:
    """The words that `suite=NAME/TASK` stands for. Raises ConfigError for what is no task of it."""
    name, _, task = option.partition("/")
    suite = read_suite(name)
    if task not in suite.tasks:
        raise ConfigError(
            f"{GROUP}={option}: {name} has no such task, {did_you_mean(task, list(suite.tasks))}"
        )
    return suite.words_for(task)


def expanded(given: Sequence[Word]) -> list[Word]:
    """A command line in which each suite stands as its tasks, and its grid beside them. Harmless when
    repeated.
    """
    at = next(
        (place for place, word in enumerate(given) if word.key == GROUP and word.value is not None), None
    )
    if at is None:
        return list(given)
    options: list[str] = []
    grid: list[Word] = []
    for single in given[at].singles():
        name, _, task = str(single.plain).partition("/")
        suite = read_suite(name)
        options += [f"{name}/{one}" for one in ([task] if task else suite.tasks)]
        grid += map(parse, suite.grid) if not task else ()
    for option in options:
        words_of(option)
    keys = {word.name for word in given}
    value = options[0] if len(options) == 1 else ChoiceSweep(list=list(options), simple_form=True)
    return [
        *given[:at],
        given[at].with_value(value),
        *{word.name: word for word in grid if word.name not in keys}.values(),
        *given[at + 1 :],
    ]


def suites_in(given: Sequence[Word]) -> list[str]:
    """Names of the suites on a command line."""
    suites = [
        str(single.plain).partition("/")[0]
        for word in given
        if word.key == GROUP and word.value is not None
        for single in word.singles()
    ]
    return list(dict.fromkeys(suites))
