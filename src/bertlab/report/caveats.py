"""What a reader should know before believing a comparison: what else the arms differ in, what chose their
checkpoints, what was left out.
"""

from dataclasses import dataclass

from bertlab.declarations import BITS_PER_CHARACTER
from bertlab.report.arms import Study, counted, differing_keys
from bertlab.report.settings import ABSENT, amount, differing_settings
from bertlab.runs.outcome import learnt_nothing

MOST_TOLD = 8  # keys in a sentence
MOST_APART = 1.02  # tokens seen: more than so many times as many are told as another treatment


def warnings_of(study: Study) -> list[str]:
    """What a reader should know before believing the table, in sentences."""
    return [
        *_of_how_runs_were_made(study),
        *_of_grouping(study),
        *_of_arms(study),
        *_of_one_pretraining(study),
        *confounds(study),
        *_of_arithmetic(study),
        *_of_tokenizers(study),
        *_of_folds(study),
        *_of_numbers_of_seeds(study),
        *_of_flattery(study),
    ]


def _of_how_runs_were_made(study: Study) -> list[str]:
    warnings = []
    if clashing := code_differences(study):
        warnings.append(
            f"The runs were made by different versions of {', '.join(clashing)}: a difference may be the"
            " code's."
        )
    dirty = [
        run.name
        for arm in study.arms
        for run in arm.in_order()
        if (run.environment.get("git") or {}).get("dirty")
    ]
    if dirty:
        warnings.append(f"{counted(len(dirty), 'run')} had uncommitted changes, e.g. {dirty[0]}.")
    machines = {run.machine for arm in study.arms for run in arm.in_order()}
    if len(machines) > 1:
        warnings.append(
            f"The runs were made on different machines ({', '.join(sorted(machines))}): seconds are not"
            " comparable, and rounding may differ."
        )
    return warnings


def _of_grouping(study: Study) -> list[str]:
    warnings = []
    doubles = [run.name for arm in study.arms for run in arm.others]
    if doubles:
        warnings.append(
            f"Left out, where a newer run has the same settings and seeds: {counted(len(doubles), 'run')},"
            f" {', '.join(doubles)}."
        )
    pooled = {key for arm in study.arms for key in differing_settings(arm.in_order())}
    if pooled:
        warnings.append(
            f"Within an arm runs differ in {', '.join(sorted(pooled))}, by which they were not grouped: its"
            " spread is not of seeds alone."
        )
    return warnings


def _of_arms(study: Study) -> list[str]:
    warnings = []
    of = "validation score" if study.is_of_rows else study.metric.name
    for arm in study.arms:
        if blind := [run for run in arm.in_order() if learnt_nothing(run.summary)]:
            every = "every run" if len(blind) == len(arm.runs) else f"{len(blind)} of {len(arm.runs)} runs"
            warnings.append(
                f"In “{arm.name}” {every} learnt nothing that shows beyond chance: what reads nothing scores"
                " as much, or nearly so."
            )
        if arm.passed_over:
            warnings.append(
                f"“{arm.name}” is {arm.chosen}, chosen by the mean {of} over seeds;"
                f" {counted(len(arm.passed_over), 'run')} of other settings passed over, which flatters its"
                f" {of}. The test split had no part in it."
            )
        if arm.failed:
            told = "; ".join(f"{run.name} ({run.problem})" for run in arm.failed[:3])
            warnings.append(
                f"{counted(len(arm.failed), 'run')} of “{arm.name}” without a score, counted nowhere, which"
                f" may flatter it: {told}."
            )
    if len({arm.tried for arm in study.arms}) > 1:
        budgets = ", ".join(f"“{arm.name}”: {counted(arm.tried, 'setting')}" for arm in study.arms)
        warnings.append(
            f"The arms' search budgets are unequal ({budgets}): the best of more settings is flattered more;"
            " give every arm as many."
        )
    return warnings


def _of_one_pretraining(study: Study) -> list[str]:
    single = [arm for arm in study.arms if arm.stands_on_one]
    if not single:
        return []
    own = any(run.stage is not None for arm in single if arm.pretrainings == 1 for run in arm.in_order())
    return [
        "All seeds stand on one pretraining in"
        f" {'each of ' * (len(single) > 1)}{', '.join(f'“{arm.name}”' for arm in single)}: what is said"
        " holds for that pretraining, not for its recipe (another would differ by more than these seeds"
        f" show{'; init.seed=range(3) makes several' if own else ''})."
    ]


def _of_arithmetic(study: Study) -> list[str]:
    other = arithmetic(study)
    told = f"The runs' arithmetic differs in {', '.join(other)}: a difference may come from there."
    return [told] if other else []


def _of_tokenizers(study: Study) -> list[str]:
    offered = {
        metric.name: metric for arm in study.arms for run in arm.in_order() for metric in run.metrics()
    }
    per_character = next(
        (metric.name for metric in offered.values() if metric.unit == BITS_PER_CHARACTER), None
    )
    if not study.tokenizers_differ or per_character is None:
        return []
    advice = "" if study.metric.name == per_character else f" Compare them with metric={per_character}."
    about_tokens = ", ".join(metric.name for metric in offered.values() if metric.per_token)
    return [
        f"Tokenizers differ, and with them what a token is: {about_tokens} are not comparable "
        f"between arms of different tokenizers, bits per character of the masked text are.{advice}"
    ]


def _of_folds(study: Study) -> list[str]:
    if not study.folds:
        return []
    warnings = [
        f"Scores are of {study.folds} folds, of which each was validation once; spread and number are"
        " those of folds (means over their seeds). Folds share training rows: intervals and p are those"
        " of the corrected resampled t test (Nadeau & Bengio 2003), which takes the folds' differences"
        " for normal."
    ]
    cuts = sorted({seeds.fold[1] for arm in study.arms for seeds in arm.runs})
    for arm in study.arms:
        lacking = [
            f"{fold}{f' of cut {cut}' if cuts[1:] else ''}"
            for cut in cuts
            for fold in range(study.folds)
            if not any(seeds.fold[1:] == (cut, fold) for seeds in arm.runs)
        ]
        if lacking:
            warnings.append(f"“{arm.name}” lacks fold{'s' * (len(lacking) > 1)} {', '.join(lacking)}.")
    return warnings


def _of_numbers_of_seeds(study: Study) -> list[str]:
    counts = {arm.name: len(arm.runs) for arm in study.arms}
    if len(set(counts.values())) == 1:
        return []
    return [
        "Arms have different numbers of seeds"
        f" ({', '.join(f'{name}: {n}' for name, n in counts.items())}); pairs use those in common."
    ]


def _of_flattery(study: Study) -> list[str]:
    flatters, name = choice_of(study).flatters, study.metric.name
    runs = [run for arm in study.arms for run in arm.in_order()]
    if not (study.is_of_rows and flatters) or any(run.score("test", name) is not None for run in runs):
        return []
    return [
        f"There is no test split: the scores are of the split that {flatters}, which flatters"
        " every arm by a little; compare them with the last step's, below."
    ]


def confounds(study: Study) -> list[str]:
    """What the arms differ in beside what they are grouped by: a difference may be its. Keys that only some
    have follow from others.
    """
    named = set(study.keys)
    others = [
        key
        for key in differing_keys(study.arms)
        if key not in named and all(arm.resolved(key) != ABSENT for arm in study.arms)
    ]
    told = [
        f"{key.removesuffix('.component')}"
        f" ({' / '.join(dict.fromkeys(arm.resolved(key) for arm in study.arms))})"
        for key in others
    ]
    sizes = list(dict.fromkeys(arm.parameters for arm in study.arms))
    told = told if len(told) <= MOST_TOLD else [*told[:MOST_TOLD], f"{len(told) - MOST_TOLD} more keys"]
    if len(sizes) > 1 and not any(key.startswith("model.") for key in named):
        told.append(f"parameters ({' / '.join(sizes)})")
    seen = [arm.tokens_seen for arm in study.arms]
    asked = any(key.startswith(("budget.", "dataset.")) for key in named)
    if max(seen) > MOST_APART * min(seen) and not asked:
        told.append(f"tokens seen ({' / '.join(dict.fromkeys(amount(one, 3, 'g') for one in seen))})")
    return (
        [
            f"Beside what they are grouped by, the arms differ in {', '.join(told)}: a difference may come"
            " from there."
        ]
        if told
        else []
    )


def arithmetic(study: Study) -> list[str]:
    """In what of their arithmetic the runs differ, arm by arm: device, precision, micro-batch and the like,
    as each run's identity has it.
    """
    of_arms = [[run.identity.get("numerics", {}) for run in arm.in_order()] for arm in study.arms]
    names = dict.fromkeys(name for arm in of_arms for numerics in arm for name in numerics)
    told = []
    for name in names:
        by_arm = [dict.fromkeys(shown(numerics.get(name)) for numerics in arm) for arm in of_arms]
        values = dict.fromkeys(", ".join(own) for own in by_arm)
        if len({value for own in by_arm for value in own}) > 1:
            told.append(f"{name.replace('_', ' ')} ({' / '.join(values)})")
    return told


def shown(value: object) -> str:
    """A setting's value; – where there is none."""
    return ABSENT if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# --- what chose -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Choice:
    """What a study's checkpoints were chosen by, in words."""

    of_scores: str  # "validation, which also …"
    with_weights: str  # with which the test split was scored
    flatters: str  # what the reported split chose; empty where it chose nothing


def choice_of(study: Study) -> Choice:
    """As the runs' own configs say: the best checkpoint or the last, by validation or by a half of it whose
    score is not reported. Patience ends training by that split, too.
    """
    runs = [run for arm in study.arms for run in arm.in_order()]
    halves = [run for run in runs if run.selects_by == "selection"]
    best = [run for run in runs if run.config.get("evaluation.keep", "best") == "best"]
    ended = [run for run in runs if run.config.get("evaluation.patience") is not None]
    by_itself = [run for run in runs if run not in halves]
    half = "the half of validation that chose nothing"
    last = "the last step's weights are scored"
    if len(best) not in (0, len(runs)) or len(halves) not in (0, len(runs)):
        flattered = [run for run in by_itself if run in best or run in ended]
        of_some = f"of {len(flattered)} of {len(runs)} runs"
        return Choice(
            f"validation, which also chose the checkpoint or the end {of_some}" if flattered else half,
            "each run's weights",
            f"chose the checkpoint or the end {of_some}" if flattered else "",
        )
    if best and halves:
        return Choice(f"{half}; the other half chose each run's checkpoint",
                      "the checkpoint that the other half of validation chose", "")  # fmt: skip
    if best:
        return Choice("validation, which also chose each run's checkpoint",
                      "the checkpoint that validation chose", "chose the checkpoint")  # fmt: skip
    if halves:
        return Choice(f"{half}: {last}", "the last step's weights", "")
    if ended:
        return Choice(f"validation, which also chose when each run's training ended: {last}",
                      "the last step's weights", "chose when training ended")  # fmt: skip
    return Choice(f"validation, which chose nothing: {last}", "the last step's weights", "")


def code_differences(study: Study) -> list[str]:
    """Modules of which the study's runs used more than one version; a component that only some arms use is
    none.
    """
    versions: dict[str, set[str]] = {}
    for arm in study.arms:
        for run in arm.in_order():
            for module, version in run.code.items():
                versions.setdefault(module, set()).add(version)
    return sorted(module for module, in_use in versions.items() if len(in_use) > 1)
