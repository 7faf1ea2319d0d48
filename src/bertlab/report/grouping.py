"""From runs to studies: one dataset, one objective, and the arms that settings make of their runs."""

from collections import Counter
from collections.abc import Mapping, Sequence

from bertlab.declarations import BITS_PER_CHARACTER, Metric, metric_named
from bertlab.errors import ConfigError, did_you_mean
from bertlab.report.arms import Arm, Study, counted, have_different_tokenizers, seeds_of
from bertlab.report.naming import arm_name, of_settings, put_in_order, rename
from bertlab.report.settings import differing_settings, setting, settings_of, varying_keys
from bertlab.runs.records import RunRecord


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
        first = of_settings(arms, wished) or _baseline(arms)
        for arm in arms:
            arm.name = arm_name(arm, first, chosen) if len(arms) > 1 else "all runs"
        studies.append(Study(dataset, objective, chosen_metric, chosen, arms, first, failed))
    rename(studies, names or {})
    put_in_order(studies, order, baseline)
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
    if asked is None and offered[name].per_token and have_different_tokenizers(runs):
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


def _chosen_keys(runs: list[RunRecord], keys: Sequence[str], without: Sequence[str]) -> list[str]:
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
