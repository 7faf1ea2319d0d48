"""What varies between runs, and the arms that it makes: runs that are equal but for their seed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bertlab.config import registry
from bertlab.config.schema import InitConfig
from bertlab.declarations import BITS_PER_CHARACTER, Metric, metric_named
from bertlab.errors import ConfigError, did_you_mean
from bertlab.report.settings import ABSENT, decides, differing_settings, setting, settings_of, varying_keys
from bertlab.runs.records import RunRecord

BASELINE = "baseline"  # what an arm is called among others that has no shorter name, and its mark in a name
MOST_IN_A_NAME = 3  # settings


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
        return ", ".join(f"{count / 1e6:.1f} M" if isinstance(count, int) else ABSENT for count in counts)

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
        return _tokenizers_differ([run for arm in self.arms for run in arm.in_order()])

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


def studies_of(
    runs: Sequence[RunRecord], keys: Sequence[str] = (), baseline: str | None = None, names: dict[str,
    str] | None = None,
    order: Sequence[str] = (), metric: str | None = None, select: Sequence[str] = (),
) -> list[Study]:  # fmt: skip
    """Finished runs by dataset and objective, each group with its arms. Pretraining runs that others began
    from are none of their own.

    `select`: keys that make no arms; of their values each arm takes those with the best mean on validation.
    Raises ConfigError for a key, an arm or a metric that there is not, and where `keys` leave runs of one
    seed together that differ in other settings.
    """
    _check_select(runs, select)
    finished = [run for run in runs if not run.problem]
    stages = {run.stage for run in finished}
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for run in finished:
        if run.name not in stages:
            groups.setdefault(
                (str(run.config["dataset.name"]), str(run.config["objective.component"])), []
            ).append(run)
    if not groups:  # nothing but pretrainings that belong to runs which are not there
        for run in finished:
            groups.setdefault(
                (str(run.config["dataset.name"]), str(run.config["objective.component"])), []
            ).append(run)
    studies = []
    # which may be called by the name that it is to have
    wished = {new: old.removesuffix("?") for old, new in (names or {}).items()}.get(baseline or "", baseline)
    for (dataset, objective), members in sorted(groups.items()):
        chosen_metric = _metric(members, metric)
        tried = _tried(members, select)
        chosen = [key for key in _chosen_keys(members, keys, tried) if key not in tried]
        arms = _arms(members, chosen, tried, chosen_metric)
        _refuse_mixed(arms)
        failed = [run for run in runs if run.problem and run.config and _belongs(run, dataset, objective)]
        _place_failed(arms, failed, chosen)
        first = _of_settings(arms, wished) or _baseline(arms)
        for arm in arms:
            arm.name = arm_name(arm, first, chosen) if len(arms) > 1 else "all runs"
        studies.append(Study(dataset, objective, chosen_metric, chosen, arms, first, failed))
    _rename(studies, names or {})
    _order(studies, order, baseline)
    return studies


def study_of_arms(runs: Mapping[str, Sequence[RunRecord]], metric: str | None = None) -> Study | None:
    """Arms that are given with their runs, the first of them the baseline; None where an arm has no run that
    finished.

    Raises ConfigError for a metric that there is not.
    """
    finished = {name: [run for run in own if not run.problem] for name, own in runs.items()}
    if not all(finished.values()):
        return None
    every = [run for own in finished.values() for run in own]
    keys = varying_keys(every)
    arms = []
    for name, own in finished.items():
        arm = Arm(name, {key: setting(own[0], key) for key in keys}, {seeds_of(run): run for run in own})
        arm.failed = [run for run in runs[name] if run.problem]
        arms.append(arm)
    first = every[0].config
    return Study(
        str(first["dataset.name"]),
        str(first["objective.component"]),
        _metric(every, metric),
        keys,
        arms,
        arms[0],
    )


def _metric(runs: list[RunRecord], asked: str | None) -> Metric:
    """The metric asked for, or the one that selected; per character where that is about tokens and tokenizers
    cut the text differently.

    Raises ConfigError for a name that is none, and where runs mean different things by it.
    """
    offered = {metric.name: metric for run in runs for metric in run.metrics()}
    name = asked or runs[0].primary
    if asked is None and offered[name].per_token and _tokenizers_differ(runs):
        name = next((metric.name for metric in offered.values() if metric.unit == BITS_PER_CHARACTER), name)
    if name not in offered:
        raise ConfigError(
            f"metric={asked}: these runs have no such score, {did_you_mean(name, sorted(offered))}"
        )
    for run in runs:
        own = metric_named(run.metrics(), name)
        if own is not None and own.record() != offered[name].record():
            raise ConfigError(
                f"metric={name}: {run.name} means something else by it ({own.record()}) than others"
                f" ({offered[name].record()})"
            )
    return offered[name]


def _tokenizers_differ(runs: Sequence[RunRecord]) -> bool:
    return (
        len(
            {
                str(sorted((key, value) for key, value in run.config.items() if key.startswith("tokenizer.")))
                for run in runs
            }
        )
        > 1
    )


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


def _chosen_keys(runs: list[RunRecord], keys: Sequence[str], without: Sequence[str] = ()) -> list[str]:
    if not keys:
        return varying_keys(runs, without)
    every = sorted({key for run in runs for key in run.config})
    chosen = [f"{key}.component" if f"{key}.component" in every else key for key in keys]
    for key in chosen:
        if key not in every:
            raise ConfigError(f"group_by: no run has the key {key}, {did_you_mean(key, every, most=3)}")
    return chosen


def _belongs(run: RunRecord, dataset: str, objective: str) -> bool:
    return run.config.get("dataset.name") == dataset and run.config.get("objective.component") == objective


def _place_failed(arms: list[Arm], failed: Sequence[RunRecord], keys: Sequence[str]) -> None:
    """A run without a result is told with the arm that it would have been in, if its seeds have
    no other run.
    """
    for run in failed:
        settings = settings_of(run, keys)
        for arm in arms:
            if tuple(map(str, arm.settings.values())) == settings and seeds_of(run) not in arm.runs:
                arm.failed.append(run)


def _check_select(runs: Sequence[RunRecord], keys: Sequence[str]) -> None:
    every = sorted({key for run in runs for key in run.config})
    for key in keys:
        if not {key, f"{key}.component"} & set(every):
            raise ConfigError(f"select: no run has the key {key}, {did_you_mean(key, every, most=3)}")


def _tried(runs: Sequence[RunRecord], select: Sequence[str]) -> list[str]:
    """The keys of `select`, as runs record them, that differ between these runs; with a component, the keys
    within it.
    """
    tried = []
    for key in select:
        within = sorted(
            {one for run in runs for one in run.config if one == key or one.startswith(f"{key}.")}
        )
        tried += [
            one
            for one in within
            if len({str(setting(run, one)) for run in runs}) > 1 and not one.endswith(".name")
        ]
    return tried


def _chosen(runs: list[RunRecord], tried: Sequence[str], metric: Metric) -> tuple[str, list[RunRecord]]:
    """Of one arm's runs those with the best mean on validation, and by which settings; where seeds are
    missing, those with the most.
    """
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(settings_of(run, tried), []).append(run)
    most = max(len({seeds_of(run) for run in group}) for group in groups.values())
    means = {
        settings: sum(scores) / len(scores)
        for settings, group in sorted(groups.items())
        if len({seeds_of(run) for run in group}) == most
        and (
            scores := [
                score for run in group if (score := run.score(run.selects_by, metric.name)) is not None
            ]
        )
    }
    best = (max if metric.higher_is_better else min)(means, key=lambda settings: means[settings])
    told = " ".join(
        f"{key.removesuffix('.component')}={value}" for key, value in zip(tried, best, strict=True)
    )
    return told, groups[best]


def _refuse_mixed(arms: Sequence[Arm]) -> None:
    """Raises ConfigError for runs of one arm and seed that differ in what decides a result: none of them is
    the arm's because it ended last.
    """
    for arm in arms:
        for seeds, run in sorted(arm.runs.items()):
            same = [run, *(one for one in arm.others if seeds_of(one) == seeds)]
            if differing := differing_settings(same):
                settings = (f"{key.removesuffix('.component')}={one}" for key, one in arm.settings.items())
                words = " ".join(differing)
                raise ConfigError(
                    f"group_by: “{' '.join(settings)}” has {counted(len(same), 'run')} of seed {seeds.label}"
                    f" that differ in {', '.join(differing)}; add {'them' if differing[1:] else 'it'} to"
                    f" group_by, let validation choose by select={words!r}, or leave runs out by where="
                )


def _arms(runs: list[RunRecord], keys: list[str], tried: Sequence[str], metric: Metric) -> list[Arm]:
    if not tried:
        return _arms_of(runs, keys)
    arms_of_task = []
    for arm in _arms_of(runs, keys):
        every = arm.in_order() + arm.others
        told, kept = _chosen(every, tried, metric)
        (chosen,) = _arms_of(kept, keys)
        chosen.chosen, chosen.passed_over = told, [run for run in every if run not in kept]
        chosen.tried = len({settings_of(run, tried) for run in every})
        arms_of_task.append(chosen)
    return arms_of_task


def _arms_of(runs: list[RunRecord], keys: list[str]) -> list[Arm]:
    arms: dict[tuple[str, ...], Arm] = {}
    for run in sorted(
        runs, key=lambda run: str(run.summary.get("cost", {}).get("finished_at", "")), reverse=True
    ):
        settings = {key: setting(run, key) for key in keys}
        arm = arms.setdefault(tuple(map(str, settings.values())), Arm("", settings))
        if seeds_of(run) in arm.runs:
            arm.others.append(run)  # the newest of the same seeds counts
        else:
            arm.runs[seeds_of(run)] = run
    # the same whichever run was last
    return sorted(arms.values(), key=lambda arm: [str(value) for value in arm.settings.values()])


def _baseline(arms: list[Arm]) -> Arm:
    """The arm whose settings are the commonest, key by key."""
    counts = {key: Counter(str(arm.settings[key]) for arm in arms) for key in arms[0].settings}
    return max(
        arms,
        key=lambda arm: (sum(counts[key][str(value)] for key, value in arm.settings.items()), len(arm.runs)),
    )


def _of_settings(arms: list[Arm], wished: str | None) -> Arm | None:
    """The one arm with the settings `key=value key=value`; None where there is none, or more than one."""
    if wished is None or not all("=" in word for word in wished.split()):
        return None
    pairs = [word.partition("=")[::2] for word in wished.split()]
    meant = [
        arm
        for arm in arms
        if all(
            str(arm.settings.get(key, arm.settings.get(f"{key}.component"))) == value for key, value in pairs
        )
    ]
    return meant[0] if len(meant) == 1 else None


def arm_name(arm: Arm, baseline: Arm, keys: Sequence[str]) -> str:
    """How an arm differs from the baseline, as one would write it on the command line; the baseline by its
    own settings, `init=scratch (baseline)`, where they are few.
    """
    differing = [key for key in keys if str(arm.settings[key]) != str(baseline.settings[key])]
    told = [key for key in (keys if arm is baseline else differing) if arm.settings[key] != ABSENT]
    words = " ".join(f"{key.removesuffix('.component')}={arm.settings[key]}" for key in told)
    if arm is baseline:
        return f"{words} ({BASELINE})" if 0 < len(told) <= MOST_IN_A_NAME else BASELINE
    return words or f"without {' '.join(key.removesuffix('.component') for key in differing)}"


def _called(study: Study, name: str) -> Arm | None:
    """The arm of a study that is called so, that has these settings, or its baseline by that word."""
    by_name = {arm.name: arm for arm in reversed(study.arms)}
    word = {BASELINE: study.baseline} if len(study.arms) > 1 else {}
    return by_name.get(name) or _of_settings(study.arms, name) or word.get(name)


def _rename(studies: list[Study], names: dict[str, str]) -> None:
    """Give arms the names that the reader wants; an arm is meant by its name or its settings, `?` after them:
    where there is one.
    """
    every = [arm.name for study in studies for arm in study.arms]
    meant = {old: [_called(study, old.removesuffix("?")) for study in studies] for old in names}
    for old, new in names.items():
        if not any(meant[old]) and not old.endswith("?"):
            raise ConfigError(f"names: no arm is called '{old}', {did_you_mean(old, every, most=20)}")
        for arm in meant[old]:
            if arm is not None:
                arm.name = new


def _order(studies: list[Study], order: Sequence[str], baseline: str | None) -> None:
    """Arms in the wished order; else the baseline first, then by name."""
    every = [arm.name for study in studies for arm in study.arms]
    for name in order:
        if not any(_called(study, name) for study in studies):
            raise ConfigError(f"order: no arm is called '{name}', {did_you_mean(name, every, most=20)}")
    if baseline is not None and not any(_called(study, baseline) for study in studies):
        raise ConfigError(f"baseline={baseline}: no arm is that, {did_you_mean(baseline, every, most=20)}")
    for study in studies:
        place = {id(_called(study, name)): index for index, name in enumerate(order)}
        wished = None if baseline is None else _called(study, baseline)
        if wished is not None and wished is not study.baseline:
            study.baseline.name = study.baseline.name.removesuffix(f" ({BASELINE})")
            study.baseline = wished
        others = sorted((arm for arm in study.arms if arm is not study.baseline), key=lambda arm: arm.name)
        study.arms = [
            arm
            for rank in range(len(place) + 1)
            for arm in (study.baseline, *others)
            if place.get(id(arm), len(place)) == rank
        ]
