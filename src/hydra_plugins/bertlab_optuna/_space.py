"""Hydra's override grammar as Optuna's distributions, and back: what is tried, key by key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
)
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hydra_plugins.bertlab_optuna._errors import SpaceError


@dataclass(frozen=True)
class Space:
    """What every trial has in common, and what is tried."""

    fixed: list[str]  # overrides as written
    # key element, e.g. `+optimizer.lr` or `dataset@init.dataset` -> distribution
    searched: dict[str, BaseDistribution]

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """A trial's overrides; floats with all their digits."""
        return [*self.fixed, *(f"{key}={value_text(value)}" for key, value in params.items())]

    def told(self, params: Mapping[str, Any]) -> list[str]:
        """What is tried, for a person: numbers with three figures."""
        return [
            f"{key.lstrip('+').split('@')[-1]}={f'{value:.3g}' if isinstance(value, float) else value}"
            for key, value in params.items()
        ]

    def corners(self) -> list[list[str]]:
        """Points that together hold every choice and every bound, for checking the space before the first
        trial.
        """
        ends = {key: ends_of(distribution) for key, distribution in self.searched.items()}
        most = max((len(values) for values in ends.values()), default=1)
        return [
            self.overrides({key: values[min(index, len(values) - 1)] for key, values in ends.items()})
            for index in range(most)
        ]


def value_text(value: Any) -> str:
    """A value as an override holds it. Choices are stored as they were written."""
    return value if isinstance(value, str) else repr(value)


def ends_of(distribution: BaseDistribution) -> list[Any]:
    """Every choice, or the bounds."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def build_space(
    arguments: Sequence[str], params: Mapping[str, Any] | None, loader: ConfigLoader | None
) -> Space:
    """From the command line and, where that says nothing, `hydra.sweeper.params`. Raises SpaceError, or
    Hydra's own errors.
    """
    if params is not None and not isinstance(params, Mapping):
        raise SpaceError(f"hydra.sweeper.params={params}: not keys with what is searched of each")
    parser = OverridesParser.create(config_loader=loader)
    given = parser.parse_overrides(list(arguments))
    taken = {override.get_key_element().lstrip("+") for override in given}
    preset = parser.parse_overrides(
        [f"{key}={value}" for key, value in (params or {}).items() if key.lstrip("+") not in taken]
    )
    fixed, searched = [], {}
    for override in [*preset, *given]:
        key = override.get_key_element()
        if override.is_sweep_override():
            searched[key] = distribution_of(override, loader)
        else:
            assert override.input_line is not None
            fixed.append(override.input_line)
    return Space(fixed, searched)


def distribution_of(override: Override, loader: ConfigLoader | None) -> BaseDistribution:
    """One sweep as a distribution. Raises SpaceError for an empty or impossible one."""
    sweep, key = override.value(), override.get_key_element()
    tags: set[str] = getattr(sweep, "tags", set())
    if unknown := tags - {"log", "int", "float"}:
        raise SpaceError(f"{key}: unknown tag {sorted(unknown)[0]} (options: log, int, float)")
    try:
        if isinstance(sweep, IntervalSweep):
            assert sweep.start is not None and sweep.end is not None
            whole = "int" in tags or (isinstance(sweep.start, int) and isinstance(sweep.end, int))
            if whole:
                return IntDistribution(int(sweep.start), int(sweep.end), log="log" in tags)
            return FloatDistribution(float(sweep.start), float(sweep.end), log="log" in tags)
        if isinstance(sweep, RangeSweep):
            return _range(sweep, tags)
        if isinstance(sweep, Glob):
            assert loader is not None
            names = loader.get_group_options(
                override.get_key_element().lstrip("+").split("@")[0], results_filter=ObjectType.CONFIG
            )
            return _choice(key, sweep.filter(names))
        assert isinstance(sweep, ChoiceSweep)
        return _choice(key, [Override._get_value_element_as_str(value) for value in sweep.list])
    except ValueError as error:
        raise SpaceError(f"{key}: {error}") from None


def _range(sweep: RangeSweep, tags: set[str]) -> BaseDistribution:
    """`range(a, b, step)`: b itself is left out, as in Hydra's own sweeps."""
    start, stop, step = sweep.start, sweep.stop, sweep.step
    assert start is not None and stop is not None and step is not None
    if all(isinstance(value, int) for value in (start, stop, step)) and "float" not in tags:
        last = range(int(start), int(stop), int(step))
        if not last:
            raise ValueError("an empty range")
        low, high = min(last), max(last)
        return IntDistribution(low, high, log="log" in tags, step=1 if "log" in tags else abs(int(step)))
    count = int((float(stop) - float(start)) / float(step) - 1e-9)
    if count < 0:
        raise ValueError("an empty range")
    return FloatDistribution(
        float(start),
        float(start) + count * float(step),
        step=None if "log" in tags else float(step),
        log="log" in tags,
    )


def _choice(key: str, values: Sequence[str]) -> CategoricalDistribution:
    if not values:
        raise SpaceError(f"{key}: nothing to choose from")
    return CategoricalDistribution(list(dict.fromkeys(values)))


def quoted(text: str) -> str:
    """Any text as one override value."""
    return str(QuotedString(text, Quote.single).with_quotes())
