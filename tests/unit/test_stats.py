"""Statistics against scipy, closed forms and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bertlab.report import stats
from hydra_plugins.bertlab_optuna.best_of import best_of, expected_best_of

# sums are exact, and so are ties
SCORES = st.lists(st.integers(-1024, 1024).map(lambda x: x / 1024), min_size=2, max_size=10)


@given(SCORES)
def test_mean_and_interval_are_scipys(values: list[float]) -> None:
    found = stats.summarize(values)
    expected = (
        scipy_stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        if found.sd > 1e-9
        else (found.mean, found.mean)
    )
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-9)
    assert found.sd == pytest.approx(np.std(values, ddof=1))


def test_one_seed_has_no_interval() -> None:
    found = stats.summarize([0.8])
    assert found.n == 1 and all(math.isnan(value) for value in (found.sd, found.low, found.high))
    with pytest.raises(ValueError, match="no values"):
        stats.summarize([])


@given(SCORES)
def test_sign_flip_p_is_scipys_permutation_test(values: list[float]) -> None:
    expected = scipy_stats.permutation_test(
        (values,),
        lambda x, axis: np.sum(x, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    ).pvalue
    assert stats.sign_flip_p(values) == pytest.approx(expected)


def test_sign_flip_p_by_hand() -> None:
    assert stats.sign_flip_p([0.01, 0.02, 0.03, 0.01, 0.02]) == 2 / 2**5
    assert stats.sign_flip_p([0.01] * 6) == 2 / 2**6
    assert stats.sign_flip_p([1.0, -1.0]) == 1.0
    assert stats.sign_flip_p([0.0, 0.0, 0.0]) == 1.0


@pytest.mark.parametrize("test", [stats.SIGN_FLIP, stats.T_TEST, stats.ANYTIME])
@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_coarse_scores_do_not_pretend_to_have_no_spread(seeds: int, test: str) -> None:
    """Of 50 examples two seeds often gain as much as each other: that is no evidence."""
    rng = np.random.default_rng(1)
    counts = np.round(rng.normal(0, 1, (1000, seeds)))
    rejected = np.mean([stats.TESTS[test].p((row / 50).tolist()) <= 0.05 for row in counts])
    assert rejected <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)
    equal = stats.paired([0.02] * seeds, test=test)
    assert equal.p >= stats.sign_flip_p([0.02] * seeds) or test == stats.ANYTIME
    assert math.isnan(equal.low) == (equal.p > 0.05), "an interval says what the test says"
    assert stats.paired([0.0] * seeds, test=test).low == 0


def test_many_seeds_are_sampled_and_never_impossible() -> None:
    assert stats.sign_flip_p([0.01] * 40) == pytest.approx(1 / 100_001)
    values = np.random.default_rng(0).normal(0.3, 1, 20)
    exact = np.mean(
        [
            abs(np.dot(signs, values[:12])) >= abs(values[:12].sum()) - 1e-9
            for signs in itertools.product((-1, 1), repeat=12)
        ]
    )
    assert stats.sign_flip_p(values[:12].tolist()) == pytest.approx(exact)
    assert stats.sign_flip_p(values.tolist()) == pytest.approx(
        scipy_stats.ttest_1samp(values, 0).pvalue, abs=0.05
    )


def test_fewest_seeds_for_a_level() -> None:
    assert [stats.smallest_n(level) for level in (0.05, 0.0625, 0.01, 0.5)] == [6, 5, 8, 2]
    for level in (0.05, 0.01, 0.001):
        n = stats.smallest_n(level)
        assert stats.sign_flip_p([1.0] * n) <= level < stats.sign_flip_p([1.0] * (n - 1))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_rule(p_values: list[float]) -> None:
    found = stats.holm(p_values)
    order = np.argsort(p_values)
    for rank, index in enumerate(order):
        expected = max(
            min(1.0, (len(p_values) - earlier) * p_values[order[earlier]]) for earlier in range(rank + 1)
        )
        assert found[index] == pytest.approx(expected)


def test_holm_by_hand_and_with_a_missing_test() -> None:
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    found = stats.holm([0.02, math.nan, 0.03])
    assert found[0] == 0.04 and math.isnan(found[1]) and found[2] == 0.04


def test_under_no_difference_false_positives_stay_at_the_level() -> None:
    """2,000 studies of one baseline and three arms, eight seeds each, where nothing differs: any arm found to
    differ is a false one.
    """
    rng = np.random.default_rng(20261125)
    single = family = 0
    for _ in range(2000):
        baseline, arms = rng.normal(0.82, 0.01, 8), rng.normal(0.82, 0.01, (3, 8))
        p_values = [stats.sign_flip_p(arm - baseline) for arm in arms]
        single += p_values[0] <= 0.05
        family += min(stats.holm(p_values)) <= 0.05
    assert single <= scipy_stats.binom.ppf(0.999, 2000, 0.05)
    assert family <= 0.05 * 2000


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_cover_as_often_as_they_say(n: int) -> None:
    values = np.random.default_rng(n).normal(0.8, 0.02, (20_000, n))
    found = [stats.summarize(row) for row in values[:4000]]
    covered = np.mean([one.low <= 0.8 <= one.high for one in found])
    assert abs(covered - 0.95) < 0.01


def test_mcnemar_by_hand() -> None:
    right, other = (
        np.array([1, 1, 1, 1, 1, 0, 0, 1], dtype=bool),
        np.array([0, 0, 0, 0, 0, 0, 1, 1], dtype=bool),
    )
    assert stats.mcnemar_p(right, other) == pytest.approx(scipy_stats.binomtest(5, 6).pvalue)
    assert stats.mcnemar_p(right, right) == 1.0


@pytest.mark.parametrize("discrete", [True, False])
def test_bootstrap_interval_is_about_the_normal_one(discrete: bool) -> None:
    rng = np.random.default_rng(3)
    values = (
        rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.85, 0.1], size=2000)
        if discrete
        else rng.normal(0.05, 0.3, 2000)
    )
    low, high = stats.bootstrap_interval(values, draws=4000)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half + 5e-4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_expected_best_is_the_mean_over_all_draws(values: list[float]) -> None:
    found = expected_best_of(values)
    for tries in range(1, min(4, len(values)) + 1):
        best, worst = (
            np.mean([pick(draw) for draw in itertools.product(values, repeat=tries)]) for pick in (max, min)
        )
        assert found[tries - 1] == pytest.approx(best)
        assert expected_best_of(values, higher_is_better=False)[tries - 1] == pytest.approx(worst)


def test_the_band_of_the_best_of_k_covers_what_many_trials_give() -> None:
    rng, hits, rounds = np.random.default_rng(8), np.zeros(2), 100
    truth = [np.mean(np.max(rng.normal(size=(4000, tries)), axis=1)) for tries in (1, 5)]
    for _ in range(rounds):
        _, low, high = best_of(rng.normal(size=40).tolist(), draws=100)
        hits += [low[tries - 1] <= true <= high[tries - 1] for tries, true in zip((1, 5), truth, strict=True)]
    assert (hits / rounds >= 0.88).all()
    curve, low, high = best_of([0.3, 0.1, 0.2] * 3, higher_is_better=False)
    assert (low[:2] < curve[:2]).all() and (curve[:2] < high[:2]).all() and (np.diff(curve) < 0).all()
    assert np.isnan(low[2:]).all(), "as good as the few best are known"


def test_calibration_by_hand() -> None:
    found = stats.calibration(
        np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, True, True, False]), bins=10
    )
    assert found.error == pytest.approx(0.5 * 0.05 + 0.5 * 0.05)
    assert found.share[9] == 0.5 and math.isnan(found.accuracy[0])
    assert stats.calibration(np.ones(5), np.ones(5, dtype=bool)).error == 0


@pytest.mark.parametrize(
    ("n", "margin", "level"), [(4, 1.5, 0.05), (6, 1.0, 0.05), (12, 0.8, 0.025), (4, 0.3, 0.05)]
)
def test_the_power_of_equivalence_is_what_simulation_says(n: int, margin: float, level: float) -> None:
    rng = np.random.default_rng(4)
    found = [stats.tost_p(stats.paired(rng.normal(size=n).tolist()), margin) <= level for _ in range(1000)]
    assert stats.equivalence_power(1.0, n, margin, level) == pytest.approx(np.mean(found), abs=0.05)


def test_seeds_for_equivalence_are_the_fewest_that_do() -> None:
    needed = stats.seeds_for_equivalence(0.8, 0.5)
    assert needed is not None and needed > 2
    assert stats.equivalence_power(0.8, needed, 0.5) >= 0.8 > stats.equivalence_power(0.8, needed - 1, 0.5)
    assert stats.seeds_for_equivalence(1.0, 0.01) is None
