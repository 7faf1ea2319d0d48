"""What is compared: studies of arms, arms of runs equal but for their seeds, and what runs stand on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bertlab.config import registry
from bertlab.config.schema import InitConfig
from bertlab.declarations import Metric
from bertlab.report.settings import ABSENT, amount, decides
from bertlab.runs.records import RunRecord


class Seeds(NamedTuple):
    """What a run was drawn by: its pretraining's seed (0 where there is none), its own, and the fold that it
    was scored on.
    """

    outer: int
    inner: int
    # how many folds there are, the seed that cut them, which one; nothing without folds
    fold: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """`3`, or `3 on pretraining 1, fold 2`."""
        told = f"{self.inner} on pretraining {self.outer}" if self.outer else str(self.inner)
        return (
            f"{told}, fold {self.fold[2]}{f' of cut {self.fold[1]}' if self.fold[1] else ''}"
            if self.fold
            else told
        )


def seeds_of(run: RunRecord) -> Seeds:
    """By its config."""
    folds = run.config.get("dataset.folds")
    fold = (
        (int(folds), int(run.config["dataset.split_seed"]), int(run.config["dataset.fold"])) if folds else ()
    )
    return Seeds(int(run.config.get("init.seed") or 0), run.seed, fold)


def partners(own: Iterable[Seeds], base: Iterable[Seeds]) -> list[tuple[Seeds, Seeds]]:
    """Which runs of two arms are compared: those of the same seeds and fold, the pretraining's counting where
    both arms have several.

    Where one arm has several pretrainings, each run of the other stands beside one of them, so that no two
    share a run.
    """
    one, other = sorted(own), sorted(base)
    several = [len({seeds.outer for seeds in runs}) > 1 for runs in (one, other)]
    if all(several):
        return [(seeds, seeds) for seeds in one if seeds in other]
    if several[1]:
        return sorted((mine, theirs) for theirs, mine in partners(other, one))
    pairs: list[tuple[Seeds, Seeds]] = []
    for place, theirs in enumerate(other):
        same = [seeds for seeds in one if seeds[1:] == theirs[1:]]
        pairs += [(same[place % len(same)], theirs)] if same else []
    return sorted(pairs)


def origins_of(run: RunRecord) -> list[str]:
    """The pretrainings that its first weights come of, the nearest first: stages by their folders' names,
    weights from elsewhere by their content, below a stage by its settings. None where they were drawn at
    random.
    """
    origins, group = [], "init"
    if run.stage is not None:
        origins, group = [run.stage], "init.init"
    if kind := weights_from_elsewhere(run, group):
        content = run.identity.get("inputs", {}).get(kind) if group == "init" else None
        own = {key: value for key, value in run.config.items() if key.startswith(f"{group}.")}
        origins.append(str(content or sorted(own.items())))
    return origins


def weights_from_elsewhere(run: RunRecord, group: str = "init") -> str:
    """Which of a run's inputs is the content of weights that were made elsewhere, as the choice of `group`
    declares; empty where it takes none.
    """
    option = run.config.get(f"{group}.component")
    init: InitConfig | None = registry.load_schema("init", str(option)) if option is not None else None
    return "" if init is None else init.weights_input


def by_pretraining(scores: Mapping[Seeds, float]) -> dict[int, list[float]]:
    """The seed of the pretraining -> scores of the runs on it, by their seeds."""
    nested: dict[int, list[float]] = {}
    for seeds, score in sorted(scores.items()):
        nested.setdefault(seeds.outer, []).append(score)
    return nested


@dataclass
class Arm:
    """Runs with one setting and different seeds."""

    name: str
    settings: dict[str, Any]  # the varying keys, and what they are here
    runs: dict[Seeds, RunRecord] = field(default_factory=dict)
    others: list[RunRecord] = field(default_factory=list)  # further runs of seeds that are there already
    failed: list[RunRecord] = field(default_factory=list)  # runs of this setting without a result
    chosen: str = ""  # `optimizer.lr=3e-05`: what was chosen for it on validation
    tried: int = 1  # settings among which that was chosen
    passed_over: list[RunRecord] = field(default_factory=list)  # runs of the settings that were not chosen

    @property
    def pretrainings(self) -> int:
        """How many different ones its runs began with, stages or weights from elsewhere; 0 where there is
        none.
        """
        return len({origins[0] for run in self.runs.values() if (origins := origins_of(run))})

    @property
    def stands_on_one(self) -> bool:
        """Whether one pretraining is behind all of its several runs: its stage, given weights, or those that
        its stages went on from.
        """
        levels = zip(*(origins_of(run) for run in self.runs.values()), strict=False)
        return len(self.runs) > 1 and any(len(set(level)) == 1 for level in levels)

    def in_order(self) -> list[RunRecord]:
        """Its runs by seed."""
        return [run for _, run in sorted(self.runs.items())]

    def scores(self, split: str, metric: Metric) -> dict[Seeds, float]:
        """Seeds -> score, where there is one."""
        scores = {seed: run.score(split, metric.name) for seed, run in sorted(self.runs.items())}
        return {seed: value for seed, value in scores.items() if value is not None}

    def resolved(self, key: str) -> str:
        """What a key comes to in its runs; of an inherited tokenizer that of the pretraining."""
        values = []
        for run in self.in_order():
            inherits = key.startswith("tokenizer.") and run.config.get("tokenizer.component") == "inherited"
            of_stage = run.config.get(f"init.{key}", ABSENT) if inherits else ABSENT
            value = run.config.get(key, of_stage)
            if key == "tokenizer.component" and value == "inherited":
                origin = (
                    run.config.get("init.tokenizer.component")
                    or run.config.get("init.path")
                    or run.config.get("model.name_or_path")
                )
                value = f"inherited: {origin or 'of the weights'}"
            values.append(str(value))
        return ", ".join(dict.fromkeys(values))

    @property
    def parameters(self) -> str:
        """How many weights its models have."""
        counts = dict.fromkeys(run.summary.get("cost", {}).get("parameters") for run in self.in_order())
        return ", ".join(amount(count, 1) if isinstance(count, int) else ABSENT for count in counts)

    @property
    def vocabulary(self) -> str:
        """How many tokens its tokenizers know, as runs recorded it."""
        sizes = dict.fromkeys(run.summary.get("vocabulary") for run in self.in_order())
        return ", ".join(f"{size:,}" if isinstance(size, int) else ABSENT for size in sizes)

    @property
    def tokens_seen(self) -> float:
        """In its own training, the mean over its runs."""
        seen = [float(run.summary.get("cost", {}).get("tokens", 0)) for run in self.in_order()]
        return sum(seen) / len(seen)


@dataclass
class Study:
    """Runs that can be compared: one dataset, one objective."""

    dataset: str
    objective: str
    metric: Metric
    keys: list[str]  # what varies, keys that follow from others left out
    arms: list[Arm]
    baseline: Arm
    # runs without a result on its dataset and objective, of whatever setting
    without_result: list[RunRecord] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.objective} on {self.dataset}"

    @property
    def tokenizers_differ(self) -> bool:
        """Whether a score per token is in another unit from arm to arm."""
        return have_different_tokenizers([run for arm in self.arms for run in arm.in_order()])

    @property
    def is_of_rows(self) -> bool:
        """Whether its score is of the dataset's rows, not of something beside them, such as minimal pairs."""
        run, name = self.baseline.in_order()[0], self.metric.name
        return run.recorded_as("validation", name) != name

    @property
    def scored_on(self) -> str:
        """What its score is of, in words: the split, or where it is of none what it is called."""
        return "validation" if self.is_of_rows else self.metric.name

    @property
    def folds(self) -> int:
        """How many folds its runs were made on; 0 where none, or not all on as many."""
        counts = {seeds.fold[:1] for arm in self.arms for seeds in arm.runs}
        return counts.pop()[0] if len(counts) == 1 and () not in counts else 0

    @property
    def share_tested(self) -> float:
        """Of folds, scored rows a row of training."""
        fractions = [
            float(run.config.get("dataset.fraction", 1.0)) for arm in self.arms for run in arm.in_order()
        ]
        return len(fractions) / sum(fractions) / (self.folds - 1)

    @property
    def sizes(self) -> str:
        """`3 arms, 18 runs`."""
        return f"{counted(len(self.arms), 'arm')}, {counted(sum(len(arm.runs) for arm in self.arms), 'run')}"


def counted(number: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def have_different_tokenizers(runs: Sequence[RunRecord]) -> bool:
    """Whether a token of one is another thing than a token of another."""
    options = (
        sorted((key, value) for key, value in run.config.items() if key.startswith("tokenizer."))
        for run in runs
    )
    return len(set(map(str, options))) > 1


def differing_keys(arms: Sequence[Arm]) -> list[str]:
    """Every key in which the arms differ, also those that follow from others; of a pretraining that only some
    have, none.
    """
    every = sorted(
        {key for arm in arms for run in arm.in_order() for key in run.config},
        key=lambda key: (key.count("."), key),
    )
    differing = []
    for key in every:
        if decides(key, [run for arm in arms for run in arm.in_order()]) and not key.endswith(".name"):
            values = [arm.resolved(key) for arm in arms]
            inner = key.startswith("init.") and ABSENT in values
            if len(set(values)) > 1 and not inner:
                differing.append(key)
    return differing
