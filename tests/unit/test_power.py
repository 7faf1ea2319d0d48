"""What a comparison can show, by simulation against a known truth: errors, coverage, power, nested seeds, equivalence."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bertlab.report import stats

RNG = np.random.default_rng(20261130)


@pytest.mark.parametrize("test", [stats.SIGN_FLIP, stats.T_TEST])
def test_false_positives_stay_below_the_level(test: str) -> None:
    """Under no difference, eight seeds, two to five arms with Holm's correction over the tests that can show anything."""
    for arms in (1, 2, 4):
        wrong = 0
        for _ in range(400):
            p_values = [stats.paired(RNG.normal(0, 1, 8).tolist(), test=test).p for _ in range(arms)]
            wrong += min(stats.holm(p_values)) <= 0.05
        assert wrong / 400 <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / 400)


def test_t_test_is_scipys() -> None:
    for n in (2, 5, 12):
        values = RNG.normal(0.3, 1, n)
        assert stats.t_test_p(values.tolist()) == pytest.approx(scipy_stats.ttest_1samp(values, 0).pvalue)
    assert stats.t_test_p([0.0, 0.0]) == 1.0 and stats.t_test_p([1.0]) == 1.0


def test_a_score_that_is_none_gives_no_p_and_no_interval() -> None:
    found = stats.paired([0.1, math.nan, 0.2, 0.3, 0.1, 0.2])
    assert math.isnan(found.p) and math.isnan(found.low) and math.isnan(found.mean)
    assert math.isnan(stats.holm([found.p, 0.01])[0]) and stats.holm([found.p, 0.01])[1] == 0.01


@pytest.mark.parametrize(("effect", "sd"), [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0)])
def test_power_is_what_was_promised(effect: float, sd: float) -> None:
    n = stats.seeds_for(effect, sd, test=stats.T_TEST)
    assert n is not None and stats.detectable(sd, n, test=stats.T_TEST) <= effect < stats.detectable(sd, n - 1, test=stats.T_TEST)
    enough, one_less = (np.mean([stats.t_test_p(RNG.normal(effect, sd, k).tolist()) <= 0.05 for _ in range(600)]) for k in (n, n - 1))
    assert enough >= 0.75 and one_less <= 0.85
    assert stats.seeds_for(10.0, 1.0) == 6, "no fewer than the exact test needs"
    assert stats.seeds_for(1e-9, 1.0) is None and stats.seeds_for(0.0, 1.0) is None


def test_what_few_seeds_would_have_found_is_said_of_the_test_that_was_made() -> None:
    """Six seeds: the exact test needs all six signs equal, which a shift of d does with Φ(d)^6; a t test finds less."""
    shift = stats.detectable(1.0, 6)
    assert scipy_stats.norm.cdf(shift) ** 6 == pytest.approx(0.8, abs=0.02) and shift > 1.2 * stats.detectable(1.0, 6, test=stats.T_TEST)
    for n in (7, 8, 10):
        found = np.mean([stats.sign_flip_p(RNG.normal(stats.detectable(1.0, n), 1, n).tolist()) <= 0.05 for _ in range(600)])
        assert found == pytest.approx(0.8, abs=0.06)
    assert math.isnan(stats.detectable(1.0, 5)) and stats.detectable(0.0, 6) == 0.0


def test_tests_that_can_show_nothing_leave_the_family() -> None:
    assert stats.family([6]) == [True] and stats.family([5]) == [False]
    assert stats.family([6, 1, 1, 1]) == [True, False, False, False], "one-seed arms cost the others nothing"
    assert stats.family([6, 6]) == [False, False] and stats.family([7, 7]) == [True, True]
    assert stats.family([10, 6, 6]) == [True, False, False]
    assert stats.family([3, 3, 3], test=stats.T_TEST) == [True] * 3


def test_one_pretraining_behind_all_seeds_is_no_evidence_of_a_recipe() -> None:
    """Under no difference between recipes, pretraining's spread as large as fine-tuning's: seeds alone find one, outer means do not."""
    naive = proper = 0
    for _ in range(300):
        outer = RNG.normal(0, 1, 6)
        differences = {index: (outer[index] + RNG.normal(0, 1, 4)).tolist() for index in range(6)}
        one = (outer[0] + RNG.normal(0, 1, 8)).tolist()
        naive += stats.paired(one).p <= 0.05
        proper += stats.nested(differences).p <= 0.05
    assert naive / 300 > 0.2 and proper / 300 <= 0.09


def test_spread_of_both_levels_is_recovered() -> None:
    found = []
    for _ in range(200):
        outer = RNG.normal(0, 2, 8)
        found.append(stats.spread_of_levels({index: (outer[index] + RNG.normal(0, 1, 6)).tolist() for index in range(8)}))
    between, within = np.mean(found, axis=0)
    assert between == pytest.approx(2, rel=0.1) and within == pytest.approx(1, rel=0.05)
    assert math.isnan(stats.spread_of_levels({0: [1.0, 2.0]})[0])


def test_equivalence_is_claimed_where_it_holds_and_seldom_elsewhere() -> None:
    inside = np.mean([stats.tost_p(RNG.normal(0, 0.2, 10).tolist(), 0.5) <= 0.05 for _ in range(300)])
    border = np.mean([stats.tost_p(RNG.normal(0.5, 0.2, 10).tolist(), 0.5) <= 0.05 for _ in range(300)])
    assert inside > 0.95 and border <= 0.09


def test_examples_and_seeds_together_cover_the_truth() -> None:
    covered = 0
    for _ in range(150):
        seeds, examples = RNG.normal(0, 0.05, 8), RNG.normal(0, 0.6, 200)
        low, high = stats.bootstrap_of_both(0.1 + seeds[:, None] + examples[None, :] + RNG.normal(0, 0.3, (8, 200)), draws=600)
        covered += low <= 0.1 <= high
    assert covered / 150 >= 0.88
