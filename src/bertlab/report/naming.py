"""How arms are called, found by what somebody calls them, and put in order."""

from collections.abc import Sequence

from bertlab.errors import ConfigError, did_you_mean
from bertlab.report.arms import Arm, Study
from bertlab.report.settings import ABSENT

BASELINE = "baseline"  # what an arm is called among others that has no shorter name, and its mark in a name
MOST_IN_A_NAME = 3  # settings


def of_settings(arms: list[Arm], wished: str | None) -> Arm | None:
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
    return by_name.get(name) or of_settings(study.arms, name) or word.get(name)


def rename(studies: list[Study], names: dict[str, str]) -> None:
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


def put_in_order(studies: list[Study], order: Sequence[str], baseline: str | None) -> None:
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
