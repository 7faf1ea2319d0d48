"""Learning-rate schedules: pure functions of the step. `factor(step, total)` multiplies the peak learning
rate.

`step` counts from 0 (the step about to be taken), `total` is the number of steps of the whole run, or None
where the budget is wall-clock time alone; along tokens (`schedule.by`) a step may lie between two. Sources:
linear with warm-up, Devlin et al. 2019 §A.2; cosine, Loshchilov & Hutter 2017; inverse square root, Vaswani
et al. 2017 §5.3; warm-up-stable-decay, Hu et al. 2024 (MiniCPM) §4.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from bertlab.config.schema import ScheduleConfig, number


@dataclass
class Linear(ScheduleConfig):
    """Warm-up, then a straight line down to `final_fraction` of the peak."""

    final_fraction: float = number(0.0, "learning rate at the end, as a share of the peak", low=0, high=1)

    def factor(self, step: float, total: int | None) -> float:
        warmup = warmup_length(self, total)
        return (
            lr_warmup(step, warmup)
            if step < warmup
            else lr_linear(progress(step, warmup, total), self.final_fraction)
        )


@dataclass
class Cosine(ScheduleConfig):
    """Warm-up, then half a cosine down to `final_fraction` of the peak."""

    final_fraction: float = number(0.0, "learning rate at the end, as a share of the peak", low=0, high=1)

    def factor(self, step: float, total: int | None) -> float:
        warmup = warmup_length(self, total)
        return (
            lr_warmup(step, warmup)
            if step < warmup
            else lr_cosine(progress(step, warmup, total), self.final_fraction)
        )


@dataclass
class Constant(ScheduleConfig):
    """Warm-up, then the peak."""

    needs_total: ClassVar = False

    def factor(self, step: float, total: int | None) -> float:
        return lr_warmup(step, warmup_length(self, total))


@dataclass
class InverseSqrt(ScheduleConfig):
    """Warm-up, then the peak times sqrt(warm-up / step)."""

    needs_total: ClassVar = False

    def factor(self, step: float, total: int | None) -> float:
        return lr_inverse_sqrt(step, warmup_length(self, total))


@dataclass
class Wsd(ScheduleConfig):
    """Warm-up, the peak, then over the last `decay_fraction` of all steps a straight line down to
    `final_fraction`.
    """

    decay_fraction: float = number(0.2, "share of all steps spent decaying", low=0, high=1)
    final_fraction: float = number(0.0, "learning rate at the end, as a share of the peak", low=0, high=1)

    def factor(self, step: float, total: int | None) -> float:
        warmup, last = warmup_length(self, total), require_total(total)
        start = max(warmup, last - round(self.decay_fraction * last))
        if step < start:
            return lr_warmup(step, warmup)
        return lr_linear(progress(step, start, last), self.final_fraction)


def warmup_length(schedule: ScheduleConfig, total: int | None) -> int:
    """Warm-up in steps: `warmup_steps` where set, else the fraction of `total` (none where there is no
    total).
    """
    if schedule.warmup_steps is not None:
        return schedule.warmup_steps
    return 0 if total is None else round(schedule.warmup_fraction * total)


def require_total(total: int | None) -> int:
    """The horizon; composition has already refused schedules that lack one."""
    if total is None:
        raise ValueError("this schedule needs the number of steps")
    return total


def progress(step: float, start: int, total: int | None) -> float:
    """Share of the way from `start` to `total`, in [0, 1]."""
    return min(1.0, (step - start) / max(1, require_total(total) - start))


def lr_warmup(step: float, warmup: int) -> float:
    """(step + 1) / warmup while warming up, then 1; the first step already learns."""
    return min(1.0, (step + 1) / max(1, warmup))


def lr_linear(done: float, final: float) -> float:
    """1 at done = 0, `final` at done = 1."""
    return 1.0 - (1.0 - final) * done


def lr_cosine(done: float, final: float) -> float:
    """Half a cosine from 1 to `final`."""
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done))


def lr_inverse_sqrt(step: float, warmup: int) -> float:
    """Linear to 1 at `warmup`, then sqrt(warmup / step)."""
    return min(lr_warmup(step, warmup), math.sqrt(max(1, warmup) / max(1, step + 1)))
