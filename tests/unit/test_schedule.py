"""Schedules against their formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertlab.training.steps.schedule import Constant, Cosine, InverseSqrt, Linear, Wsd, warmup_length


def test_linear_rises_to_the_peak_and_falls_to_zero_at_the_end() -> None:
    schedule = Linear(warmup_fraction=0.1)
    factors = [schedule.factor(step, 100) for step in range(100)]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3]) and factors[9] == 1.0 == factors[10]
    assert factors[99] == pytest.approx(1 / 90) and schedule.factor(100, 100) == 0
    assert factors[55] == pytest.approx(0.5)


def test_cosine_is_half_way_in_the_middle() -> None:
    schedule = Cosine(warmup_steps=0, final_fraction=0.2)
    assert (
        schedule.factor(0, 100) == 1
        and schedule.factor(50, 100) == pytest.approx(0.6)
        and schedule.factor(100, 100) == pytest.approx(0.2)
    )


def test_inverse_sqrt_needs_no_horizon() -> None:
    schedule = InverseSqrt(warmup_steps=16)
    assert schedule.factor(15, None) == 1 and schedule.factor(63, None) == pytest.approx(0.5)
    assert schedule.factor(399, None) == pytest.approx(math.sqrt(16 / 400))


def test_wsd_stays_at_the_peak_until_the_decay() -> None:
    schedule = Wsd(warmup_steps=10, decay_fraction=0.2)
    assert {schedule.factor(step, 100) for step in range(10, 80)} == {1.0}
    assert schedule.factor(90, 100) == pytest.approx(0.5) and schedule.factor(100, 100) == 0


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([Linear, Cosine, Constant, InverseSqrt, Wsd]))
def test_every_schedule_stays_within_zero_and_one_and_learns_in_its_first_step(
    total: int, warmup: float, kind: type
) -> None:
    schedule = kind(warmup_fraction=warmup)
    factors = [schedule.factor(step, total) for step in range(total)]
    assert all(0 <= factor <= 1 for factor in factors) and factors[0] > 0
    rising = factors[: warmup_length(schedule, total)]
    assert rising == sorted(rising) or kind is Wsd or kind is InverseSqrt
