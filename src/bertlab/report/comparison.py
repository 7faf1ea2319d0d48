"""A study's numbers: every arm over its seeds, beside the baseline, with what it cost and what may be said of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bertlab.config.declarations import BITS_PER_CHARACTER, Metric
from bertlab.report import stats
from bertlab.report.arms import Arm, Study, counted, differing_keys
from bertlab.runs.records import RunRecord

LEVEL = 0.05


@dataclass(frozen=True)
class Cost:
    """What an arm's runs cost on average; the pretraining is counted once a run, as who wants the result must pay it."""

    parameters: int
    flops: float
    minutes: float
    core_minutes: float
    tokens: float
    pretraining_tokens: float
    pretraining_flops: float
    pretraining_minutes: float
    pretrained_elsewhere: bool  # weights from others, whose cost is not on record


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    arm: Arm
    is_baseline: bool
    validation: stats.Summary | None
    test: stats.Summary | None
    difference: stats.Paired | None  # to the baseline on the seeds they share; None for the baseline
    p_holm: float
    cost: Cost
    verdict: str


def compare(study: Study, stages: dict[str, RunRecord]) -> list[Row]:
    """The study's rows in its arms' order. Differences and tests are on validation, the split that selects; test is shown beside."""
    base = study.baseline.scores("validation", study.metric)
    found: dict[str, stats.Paired] = {}
    for arm in study.arms:
        if arm is not study.baseline:
            own = arm.scores("validation", study.metric)
            found[arm.name] = stats.paired([own[seed] - base[seed] for seed in own if seed in base])
    corrected = dict(zip(found, stats.holm([one.p for one in found.values()]), strict=True))
    rows = []
    for arm in study.arms:
        is_baseline = arm is study.baseline
        difference = None if is_baseline else found[arm.name]
        p_holm = math.nan if is_baseline else corrected[arm.name]
        rows.append(
            Row(
                arm, is_baseline, _summary(arm, "validation", study.metric), _summary(arm, "test", study.metric), difference, p_holm,
                cost_of(arm, stages), "" if difference is None else verdict(difference, p_holm, len(found), study.metric),
            )
        )  # fmt: skip
    return rows


def _summary(arm: Arm, split: str, metric: Metric) -> stats.Summary | None:
    scores = list(arm.scores(split, metric).values())
    return stats.summarize(scores) if scores else None


def cost_of(arm: Arm, stages: dict[str, RunRecord]) -> Cost:
    """Means over the arm's runs."""
    runs = list(arm.in_order())
    costs = [run.summary.get("cost", {}) for run in runs]
    before = [(run.summary.get("stage") or {}).get("cost", {}) for run in runs]

    def mean(rows: Sequence[dict[str, Any]], key: str) -> float:
        return sum(float(row.get(key, 0.0)) for row in rows) / len(rows)

    return Cost(
        parameters=round(mean(costs, "parameters")),
        flops=mean(costs, "flops"),
        minutes=mean(costs, "seconds") / 60,
        core_minutes=mean(costs, "core_seconds") / 60,
        tokens=mean(costs, "tokens"),
        pretraining_tokens=mean(before, "tokens"),
        pretraining_flops=mean(before, "flops"),
        pretraining_minutes=mean(before, "seconds") / 60,
        pretrained_elsewhere=any(_elsewhere(run, stages) for run in runs),
    )


def _elsewhere(run: RunRecord, stages: dict[str, RunRecord]) -> bool:
    if run.config.get("init.component") in ("pretrained", "checkpoint"):
        return True
    stage = stages.get(run.stage or "")
    return stage is not None and stage.config.get("init.component") in ("pretrained", "checkpoint")


def verdict(found: stats.Paired, p_holm: float, tests: int, metric: Metric) -> str:
    """In words: better, worse, or not distinguishable, and what it would take to know."""
    if found.n == 0:
        return "no seed in common with the baseline: not compared"
    if found.n == 1:
        return "one seed: no statement"
    better = (found.mean > 0) == metric.higher_is_better
    if p_holm <= LEVEL:
        return "better" if better else "worse"
    words = f"not distinguishable at {found.n} seeds"
    fewest = stats.smallest_n(LEVEL / max(1, tests))
    needed = stats.seeds_needed(found.mean, found.sd, LEVEL)
    if found.n < fewest:
        words += f" ({fewest} are the fewest that could show anything at {LEVEL:g}{f' among {tests} tests' if tests > 1 else ''})"
    elif needed is not None and needed > found.n:
        words += f" (about {needed} would be needed for a difference of this size)"
    return words


def warnings_of(study: Study) -> list[str]:
    """What a reader should know before believing the table."""
    found = []
    if clashing := code_differences(study):
        pythons = sorted({str(run.environment.get("python")) for arm in study.arms for run in arm.in_order()})
        under = f", or look so under Python {' and '.join(pythons)}" if pythons[1:] else ""  # which write the same code differently
        found.append(f"The runs were made by different versions of {', '.join(clashing)}{under}: a difference may be the code's.")
    dirty = [run.name for arm in study.arms for run in arm.in_order() if (run.environment.get("git") or {}).get("dirty")]
    if dirty:
        found.append(f"{counted(len(dirty), 'run')} had uncommitted changes, e.g. {dirty[0]}.")
    machines = {run.machine for arm in study.arms for run in arm.in_order()}
    if len(machines) > 1:
        found.append(f"The runs were made on different machines ({', '.join(sorted(machines))}): seconds are not comparable.")
    doubles = [run.name for arm in study.arms for run in arm.others]
    if doubles:
        found.append(f"Left out, where a newer run has the same settings and seed: {counted(len(doubles), 'run')}, {', '.join(doubles)}.")
    found += confounds(study)
    offered = {metric.name: metric for arm in study.arms for run in arm.in_order() for metric in run.metrics()}
    per_character = next((metric.name for metric in offered.values() if metric.unit == BITS_PER_CHARACTER), None)
    if study.tokenizers_differ and per_character is not None:
        advice = "" if study.metric.name == per_character else f" Compare them with metric={per_character}."
        about_tokens = ", ".join(metric.name for metric in offered.values() if metric.per_token)
        found.append(
            f"Tokenizers differ, and with them what a token is: {about_tokens} are not comparable "
            f"between arms of different tokenizers, bits per character of the masked text are.{advice}"
        )
    counts = {arm.name: len(arm.runs) for arm in study.arms}
    if len(set(counts.values())) > 1:
        found.append(
            f"Arms have different numbers of seeds ({', '.join(f'{name}: {n}' for name, n in counts.items())}); pairs use those in common."
        )
    if not any(run.score("test", study.metric.name) is not None for arm in study.arms for run in arm.in_order()):
        found.append(
            "There is no test split: the scores are of the split that chose the checkpoint, which flatters every arm by a little; "
            "compare them with the last step's, below."
        )
    return found


def confounds(study: Study) -> list[str]:
    """What the arms differ in beside what they are named for: a difference may be its."""
    named = set(study.keys)
    others = [key for key in differing_keys(study.arms) if key not in named]
    told = [f"{key.removesuffix('.component')} ({' / '.join(dict.fromkeys(arm.resolved(key) for arm in study.arms))})" for key in others]
    sizes = list(dict.fromkeys(arm.parameters for arm in study.arms))
    if len(sizes) > 1 and not any(key.startswith("model.") for key in named):
        told.append(f"parameters ({' / '.join(sizes)})")
    return [f"Beside what they are named for, the arms differ in {', '.join(told)}: a difference may come from there."] if told else []


def code_differences(study: Study) -> list[str]:
    """Modules of which the study's runs used more than one version; a component that only some arms use is none."""
    versions: dict[str, set[str]] = {}
    for arm in study.arms:
        for run in arm.in_order():
            for module, version in run.code.items():
                versions.setdefault(module, set()).add(version)
    return sorted(module for module, found in versions.items() if len(found) > 1)


def last_scores(arm: Arm, metric: Metric) -> stats.Summary | None:
    """The last step's validation scores: what no selection has flattered."""
    found = [run.summary.get("last", {}).get(f"validation/{metric.name}") for run in arm.in_order()]
    values = [float(value) for value in found if isinstance(value, int | float)]
    return stats.summarize(values) if values else None
