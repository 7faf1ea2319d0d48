"""Study files: a question and everything that is decided before its runs are made (`studies/NAME.yaml`)."""

import re
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from bertlab.config import registry
from bertlab.config.files import read_declared, word_in
from bertlab.config.schema import Node, choice, flag, integer, mapping, number, string
from bertlab.config.schema import words as word_list
from bertlab.errors import ConfigError, did_you_mean

FOLDER = Path("studies")
GROUP = "study_plan"  # the folder of conf/, here and in plugins, that holds plans which come with the program
# those of report/stats.py, which stands above, and whether seeds may be added until it decides
TESTS = {"sign_flip": False, "t": False, "anytime": True, "anytime_large": True}


@dataclass
class StudyPlan(Node):
    """What a study file holds. All of it is frozen before the first run."""

    question: str = string(MISSING, "what is asked, in a sentence")
    hypothesis: str | None = string(None, "what is expected, and why")
    words: list[str] = word_list(
        "words of the command line that all runs share: experiment=…, dataset=…, budget.tokens=…"
    )
    arms: dict[str, list[str]] = mapping("arm -> the words that make it; the first is the baseline")
    metric: str | None = string(None, "the score that answers; default: what selects the checkpoints")
    effect: float = number(MISSING, "smallest difference of interest, in the metric's shown unit", above=0)
    equivalence: bool = flag(
        False, "the claim is that arms differ by less than effect: two one-sided tests, reported first"
    )
    split: str = choice(
        "validation",
        "validation",
        "test",
        help="the split whose differences answer; test is scored once, at the end",
    )
    test: str = choice(
        "sign_flip",
        *TESTS,
        help="of paired differences; anytime hands out seeds one after the other until it decides,"
        " anytime_large likewise and looks for effects of several spreads, of which four seeds can tell",
    )
    seeds: int = integer(8, "seeds of each arm, from 0 on; with test=anytime the most", low=1, high=1000)
    pretraining_seeds: int = integer(
        1, "pretrainings of each arm (init.seed), each with so many seeds of its own", low=1, high=1000
    )
    pilot: list[str] = word_list(
        "earlier runs, or records' reports, by whose spread over seeds the power is reckoned"
    )
    spread: float | None = number(
        None,
        "standard deviation of a difference between seeds (between pretrainings, where those are counted), in"
        " the metric's shown unit, instead of a pilot",
        above=0,
    )
    budget_hours: float | None = number(
        None, "hours of training of all runs together; no further seed is begun beyond them", above=0
    )

    def check(self, path: str) -> None:
        """Arms that are arms, words that are words."""
        if len(self.arms) < 2:
            raise ConfigError(
                f"arms: {len(self.arms)}; a study compares two or more, the first is the baseline"
            )
        for name, own in self.arms.items():
            if not name.strip() or len(name) > 80 or "\n" in name:
                raise ConfigError(f"arms: '{name[:80]}' is no name")
            for word in own:
                _check_word(f"arms.{name}", word)
        for word in self.words:
            _check_word("words", word)
        made = [(*self.words, *own) for own in self.arms.values()]
        if len({tuple(sorted(one)) for one in made}) < len(made):
            raise ConfigError("arms: two of them have the same words")
        if self.equivalence and self.is_sequential:
            raise ConfigError(
                "equivalence: two one-sided t tests hold for a number of seeds that is fixed before, and"
                f" test={self.test} stops by what it sees; take test=t"
            )
        if self.pilot and self.spread is not None:
            raise ConfigError("spread: pilot says it already; keep one")

    @property
    def is_sequential(self) -> bool:
        """Whether seeds are handed out until the test decides."""
        return TESTS[self.test]


def _check_word(where: str, text: str) -> None:
    word = word_in(where, text)
    if word.sweep:
        raise ConfigError(f"{where}: '{text}' has several values; each is an arm of its own")
    if word.name in ("seed", "init.seed"):
        raise ConfigError(f"{where}: '{text}': the study hands seeds out (seeds, pretraining_seeds)")


def study_file(given: str) -> Path:
    """A path, the name of a file in studies/, or that of a plan that comes with the program or a plugin.
    Raises ConfigError.
    """
    shipped = registry.declared_files(GROUP)
    for place in (Path(given).expanduser(), FOLDER / f"{given}.yaml", shipped.get(given)):
        if place is not None and place.is_file():
            return place
    known = sorted({*(file.stem for file in FOLDER.glob("*.yaml")), *shipped})
    raise ConfigError(
        f"study {given}: no such file, no {FOLDER}/{given}.yaml, and no plan that comes with the program;"
        f" {did_you_mean(given, known)}"
    )


def results_of(file: Path) -> Path:
    """The folder of its frozen plan and report: beside a file of one's own, below studies/ for one that comes
    with the program.
    """
    is_own = file not in registry.declared_files(GROUP).values()
    return (file.parent if is_own else FOLDER) / name_of(file)


def read_study(file: Path) -> StudyPlan:
    """Raises ConfigError naming the file and the key that is wrong."""
    return read_declared(file, StudyPlan)


def name_of(file: Path) -> str:
    """For folders and tags."""
    return re.sub(r"[^\w.-]+", "-", file.stem)
