"""What a comparison can show, by simulation against a known truth: errors, coverage, power, nested seeds,
equivalence.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runfolders import write_run
from scipy import integrate
from scipy import stats as scipy_stats

from bertlab.declarations import FRACTION, Metric
from bertlab.jobs.plan import Asked, arms_of, design_of
from bertlab.report import stats
from bertlab.report.arms import Seeds
from bertlab.report.power import Design, Spread, pilot_spread, power_lines

RNG = np.random.default_rng(20261130)


@pytest.mark.parametrize("test", [stats.SIGN_FLIP, stats.T_TEST])
def test_false_positives_stay_below_the_level(test: str) -> None:
    """Under no difference, eight seeds, two to five arms with Holm's correction over the tests that can show
    anything.
    """
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
    assert n is not None and stats.detectable(sd, n, test=stats.T_TEST) <= effect < stats.detectable(
        sd, n - 1, test=stats.T_TEST
    )
    enough, one_less = (
        np.mean([stats.t_test_p(RNG.normal(effect, sd, k).tolist()) <= 0.05 for _ in range(600)])
        for k in (n, n - 1)
    )
    assert enough >= 0.75 and one_less <= 0.85
    assert stats.seeds_for(10.0, 1.0) == 6, "no fewer than the exact test needs"
    assert stats.seeds_for(1e-9, 1.0) is None and stats.seeds_for(0.0, 1.0) is None


def test_what_few_seeds_would_have_found_is_said_of_the_test_that_was_made() -> None:
    """Six seeds: the exact test needs all six signs equal, which a shift of d does with Φ(d)^6; a t test
    finds less.
    """
    shift = stats.detectable(1.0, 6)
    assert scipy_stats.norm.cdf(shift) ** 6 == pytest.approx(
        0.8, abs=0.02
    ) and shift > 1.2 * stats.detectable(1.0, 6, test=stats.T_TEST)
    for n in (7, 8, 10):
        found = np.mean(
            [
                stats.sign_flip_p(RNG.normal(stats.detectable(1.0, n), 1, n).tolist()) <= 0.05
                for _ in range(600)
            ]
        )
        assert found == pytest.approx(0.8, abs=0.06)
    assert math.isnan(stats.detectable(1.0, 5)) and stats.detectable(0.0, 6) == 0.0


@pytest.mark.parametrize(
    ("n", "level"), [(9, 0.05 / 12), (11, 0.05 / 12), (11, 0.001), (12, 0.05 / 40), (14, 0.001)]
)
def test_the_sign_flip_has_its_promised_power_at_corrected_levels_too(n: int, level: float) -> None:
    """There few sign patterns are extreme enough, and it finds less than a t test does."""
    shift, rng = stats.detectable(1.0, n, level), np.random.default_rng(5)
    signs = np.array([(1.0, *rest) for rest in itertools.product((-1.0, 1.0), repeat=n - 1)])
    sums = np.abs((rng.standard_normal((1200, n)) + shift) @ signs.T)
    found = ((sums >= sums[:, -1:] - 1e-9).mean(1) <= level).mean()
    assert found == pytest.approx(0.8, abs=0.04)
    assert shift > 1.02 * stats.detectable(1.0, n, level, test=stats.T_TEST)


def test_tests_that_can_show_nothing_leave_the_family() -> None:
    assert stats.family([6]) == [True] and stats.family([5]) == [False]
    assert stats.family([6, 1, 1, 1]) == [True, False, False, False], "one-seed arms cost the others nothing"
    assert stats.family([6, 6]) == [False, False] and stats.family([7, 7]) == [True, True]
    assert stats.family([10, 6, 6]) == [True, False, False]
    assert stats.family([3, 3, 3], test=stats.T_TEST) == [True] * 3


def test_one_pretraining_behind_all_seeds_is_no_evidence_of_a_recipe() -> None:
    """Under no difference between recipes, pretraining's spread as large as fine-tuning's: seeds alone find
    one, outer means do not.
    """
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
        found.append(
            stats.spread_of_levels(
                {index: (outer[index] + RNG.normal(0, 1, 6)).tolist() for index in range(8)}
            )
        )
    between, within = np.mean(found, axis=0)
    assert between == pytest.approx(2, rel=0.1) and within == pytest.approx(1, rel=0.05)
    assert math.isnan(stats.spread_of_levels({0: [1.0, 2.0]})[0])


def test_equivalence_is_claimed_where_it_holds_and_seldom_elsewhere() -> None:
    inside = np.mean(
        [stats.tost_p(stats.paired(RNG.normal(0, 0.2, 10).tolist()), 0.5) <= 0.05 for _ in range(300)]
    )
    border = np.mean(
        [stats.tost_p(stats.paired(RNG.normal(0.5, 0.2, 10).tolist()), 0.5) <= 0.05 for _ in range(300)]
    )
    assert inside > 0.95 and border <= 0.09


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_equal_differences_of_coarse_scores_are_not_equivalent_by_themselves(seeds: int) -> None:
    """Of two seeds that gain nothing both it is no news that they agree."""
    rng = np.random.default_rng(2)
    gains = np.round(rng.normal(1, 0.7, (1000, seeds)))  # in examples; the truth lies at the margin
    claimed = np.mean([stats.tost_p(stats.paired(row.tolist()), 1.0) <= 0.05 for row in gains])
    assert claimed <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)
    assert stats.tost_p(stats.paired([0.1] * seeds), 1.0) == 0.5**seeds


def test_the_e_value_is_the_integral_that_it_stands_for() -> None:
    """The ratio of the densities of a t statistic, with effects drawn from their prior and with none; by
    numerical integration.
    """
    for n, t, variance in ((2, 1.5, 1.0), (5, -2.2, 1.0), (9, 3.7, 1.0), (30, 0.1, 1.0), (4, 9.0, 25.0)):
        values = RNG.normal(0, 1, n)
        values += t * values.std(ddof=1) / math.sqrt(n) - values.mean()  # now with this t statistic
        prior = scipy_stats.norm(0, math.sqrt(variance))

        def weighed(d: float, t: float = t, n: int = n, prior: Any = prior) -> float:
            return float(scipy_stats.nct.pdf(t, n - 1, d * math.sqrt(n)) * prior.pdf(d))

        mixed, _ = integrate.quad(weighed, -8 * math.sqrt(variance), 8 * math.sqrt(variance), limit=800)
        assert stats.log_e_values(values, variance)[-1] == pytest.approx(
            math.log(mixed / scipy_stats.t.pdf(t, n - 1)), abs=1e-4
        )


SEQUENTIAL = [name for name, test in stats.TESTS.items() if test.is_sequential]


@pytest.mark.parametrize("test", SEQUENTIAL)
@pytest.mark.parametrize(
    "draw",
    [
        lambda size: RNG.normal(0, 1, size),
        lambda size: RNG.standard_t(3, size),
        lambda size: RNG.uniform(-1, 1, size),
    ],
)
def test_whoever_looks_after_every_seed_is_wrong_as_often_as_promised(
    draw: Callable[[tuple[int, int]], np.ndarray], test: str
) -> None:
    """Forty looks each; a t test that is looked at so is wrong two to three times in ten."""
    found = np.exp(-stats.log_e_values(draw((1500, 40)), stats.TESTS[test].expected or 0).max(1))
    assert (found <= 0.05).mean() <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / 1500)


@pytest.mark.parametrize("test", SEQUENTIAL)
def test_three_arms_looked_at_until_one_decides(test: str) -> None:
    """Family-wise: differences to one baseline, Holm over anytime-valid p values, stopped at the first
    verdict or at twenty seeds.
    """
    wrong = 0
    for _ in range(400):
        base = RNG.normal(0, 1, 20)
        arms = [RNG.normal(0, 1, 20) - base for _ in range(3)]
        wrong += any(
            min(stats.holm([stats.TESTS[test].p(arm[:n].tolist()) for arm in arms])) <= 0.05
            for n in range(2, 21, 2)
        )
    assert wrong / 400 <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize("test", SEQUENTIAL)
def test_a_confidence_sequence_covers_at_every_look_at_once(test: str) -> None:
    drawn = RNG.normal(0.7, 1, (1000, 30))
    missed = np.zeros(1000, dtype=bool)
    for n in range(2, 31):
        whole = drawn[:, :n]
        half = stats.TESTS[test].half_width(n, 0.95) * whole.std(1, ddof=1) / math.sqrt(n)
        missed |= np.abs(whole.mean(1) - 0.7) > half
    assert missed.mean() <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / 1000)


@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=12),
    st.sampled_from([0.9, 0.95, 0.99]),
    st.sampled_from(SEQUENTIAL),
)
def test_interval_and_e_value_say_the_same(values: list[float], level: float, test: str) -> None:
    """Zero lies outside the interval where the e-value of these pairs alone exceeds 1 / (1 - level)."""
    found = stats.paired(values, level, test)
    e_value = float(stats.log_e_values(np.asarray(values), stats.TESTS[test].expected or 0)[-1]) + math.log(
        1 - level
    )
    if abs(e_value) > 1e-6 and found.sd > 1e-6:
        assert (found.low > 0 or found.high < 0) == (e_value > 0)
    assert stats.TESTS[test].p(values) >= stats.TESTS[test].least_p(len(values)) - 1e-12


def test_anytime_valid_power_is_what_was_promised() -> None:
    n = stats.seeds_for(1.0, 1.0, test=stats.ANYTIME)
    assert n is not None and n > (stats.seeds_for(1.0, 1.0, test=stats.T_TEST) or 0), (
        "to look as often as one likes has its price"
    )
    found = np.exp(-stats.log_e_values(RNG.normal(1, 1, (1500, n))).max(1)) <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.04)
    assert stats.smallest_n(0.05, stats.ANYTIME) == 5 and math.isnan(
        stats.detectable(1.0, 4, test=stats.ANYTIME)
    )


def test_large_effects_are_told_from_four_seeds_on_and_small_ones_later() -> None:
    """The same evidence, laid out for effects of five spreads: fewer seeds for those, more for one spread."""
    few, many = stats.ANYTIME_LARGE, stats.ANYTIME
    assert stats.smallest_n(0.05 / 19, few) == 4 and stats.smallest_n(0.05 / 19, many) == 7
    large, small = (
        [stats.seeds_for(effect, 1.0, test=test) or 0 for test in (few, many)] for effect in (6.0, 0.7)
    )
    assert large[0] < large[1] and small[0] > small[1]


def test_a_plan_tells_which_tests_can_show_anything_and_what_the_rest_takes() -> None:
    accuracy = Metric("accuracy", True, FRACTION, (0.0, 1.0))
    spread = Spread(0.006, math.nan, accuracy, "a pilot")
    lines = list(power_lines(Design(arms=3, pretrainings=1, seeds=6), 0.5, spread))
    assert "2 comparisons" in lines[0] and "2.5 %" in lines[0] and "0.60 points" in lines[1]
    by_test = {line.split("  ")[1]: line for line in lines[2:]}
    assert "can show nothing with 6 seeds: it needs 7" in by_test["sign-flip"]
    needed = stats.seeds_for(0.005, 0.006, 0.025, test=stats.T_TEST)
    assert f"0.5 takes {needed} seeds ('seed=range({needed})')" in by_test["paired t"]
    enough = list(power_lines(Design(2, 1, needed or 0), 0.5, spread))
    assert "enough for 0.5" in enough[3]


def test_a_plan_of_nested_seeds_counts_pretrainings() -> None:
    accuracy = Metric("accuracy", True, FRACTION, (0.0, 1.0))
    spread = Spread(0.006, 0.01, accuracy, "a pilot")
    assert spread.of_unit(Design(2, 3, 4)) == pytest.approx(math.hypot(0.01, 0.003))
    assert spread.of_unit(Design(2, 1, 4)) == 0.006
    lines = list(power_lines(Design(2, 3, 4), None, spread))
    assert (
        "3 pretrainings each of 4 seeds" in lines[0]
        and "can show nothing with 3 pretrainings: it needs 6" in lines[2]
    )
    assert list(power_lines(Design(1, 1, 5), 0.5, None)) == [
        "power: one arm alone compares nothing; name arms, e.g. -m 'optimizer.lr=1e-3,5e-4'"
    ]


def pilot(root: Path, pretrainings: int, seeds: int, arms: int = 2) -> Spread:
    """Of arms whose pretrainings differ by a point a step, alike in both, and their seeds by a tenth."""
    for arm in range(arms):
        for outer in range(pretrainings):
            for seed in range(seeds):
                write_run(
                    root,
                    f"{arm}-{outer}-{seed}",
                    seed,
                    0.8 + 0.01 * outer + 0.001 * (1 + arm) * (seed + outer % 2),
                    stage=f"p{arm}-{outer}",
                    init__component="stage",
                    init__seed=outer,
                    optimizer__lr=0.001 * (1 + arm),
                )
    return pilot_spread([str(root)], "toy", "classification")


def test_a_pilot_of_one_seed_a_pretraining_is_paired_and_never_divided_by_more_seeds(tmp_path: Path) -> None:
    """Both levels are in its spread, and no number of seeds of each pretraining takes the outer one away."""
    spread = pilot(tmp_path, pretrainings=3, seeds=1)
    assert math.isnan(spread.inner) and math.isnan(spread.outer)
    expected = np.std([0.0, 0.001, 0.0], ddof=1)  # of the differences, pretraining by pretraining
    for design in (Design(2, 1, 8), Design(2, 3, 5), Design(2, 3, 1)):
        assert spread.of_unit(design) == pytest.approx(expected)
    lines = "\n".join(power_lines(Design(2, 3, 5), 0.5, spread))
    assert "differences of 1 arm" in lines and "one seed a pretraining" in lines
    assert "one pretraining an arm" not in lines
    assert "seeds of one pretraining differ by less" in "\n".join(power_lines(Design(2, 1, 8), 0.5, spread))


def test_a_pilot_with_both_levels_tells_them_apart(tmp_path: Path) -> None:
    spread = pilot(tmp_path / "both", pretrainings=3, seeds=4)
    assert spread.inner == pytest.approx(np.std([0, 0.001, 0.002, 0.003], ddof=1))
    assert math.isnan(spread.whole) and "together" not in "\n".join(power_lines(Design(2, 3, 5), 0.5, spread))
    one = pilot(tmp_path / "one", pretrainings=1, seeds=4)
    assert math.isnan(one.outer) and one.inner == pytest.approx(spread.inner)
    assert "the pilot has one pretraining an arm" in "\n".join(power_lines(Design(2, 3, 5), 0.5, one))


@pytest.mark.parametrize(("seeds", "levels"), [(1, (True, True)), (4, (False, False))])
def test_a_pilot_of_one_arm_is_unpaired_and_keeps_its_levels(
    tmp_path: Path, seeds: int, levels: tuple[bool, bool]
) -> None:
    spread = pilot(tmp_path, pretrainings=3, seeds=seeds, arms=1)
    assert (math.isnan(spread.inner), math.isnan(spread.outer)) == levels and "√2" in spread.source
    between = math.sqrt(2) * np.std([0.0, 0.011, 0.02], ddof=1)
    assert spread.of_unit(Design(2, 3, 1000)) == pytest.approx(between, rel=0.02)


def asked(*words: str) -> Asked:
    return Asked(words, compose=lambda: pytest.fail("no config is needed"))


def test_seeds_and_folds_make_no_arms() -> None:
    runs = [asked(f"optimizer.lr={lr}", f"seed={seed}", f"+init.seed={o}")
        for lr in (1, 2) for seed in range(4) for o in range(3)]  # fmt: skip
    assert [len(arm) for arm in arms_of(runs)] == [12, 12]
    cuts = [asked(f"model={name}", f"dataset.fold={fold}", f"dataset.split_seed={cut}")
        for name in "ab" for fold in range(5) for cut in (0, 1)]  # fmt: skip
    assert [len(arm) for arm in arms_of(cuts)] == [10, 10]
    assert len(arms_of([asked(f"dataset.split_seed={cut}") for cut in (0, 1)])) == 2


def test_what_is_compared_follows_from_the_seeds_of_an_arms_runs() -> None:
    nested = [Seeds(outer, inner) for outer in range(3) for inner in range(4)]
    assert design_of(2, nested) == Design(2, 3, 4)
    assert design_of(2, [Seeds(seed, seed) for seed in range(3)]) == Design(2, 3, 1), "init.seed=${seed}"
    folds = [Seeds(0, 1, (5, 0, fold)) for fold in range(5)]
    assert design_of(2, folds) == Design(2, 1, 1, 5, 0.25)
    cuts = [Seeds(0, 1, (5, cut, fold)) for fold in range(5) for cut in (0, 1)]
    assert design_of(2, cuts, fraction=0.5) == Design(2, 1, 1, 10, 0.5)


def test_folds_are_planned_for_by_the_test_that_knows_that_they_share_rows() -> None:
    accuracy = Metric("accuracy", True, FRACTION, (0.0, 1.0))
    design = Design(2, 1, 1, 5, 0.25)
    lines = list(power_lines(design, 0.5, Spread(0.006, math.nan, accuracy, "a pilot")))
    assert "5 folds each" in lines[0] and len(lines) == 3 and "corrected t" in lines[2]
    smallest = stats.detectable(0.006 * 1.5, 5, test=stats.T_TEST)  # 1 + 5/4
    assert f"finds {accuracy.show(smallest)}" in lines[2] and "folds share theirs" in lines[2]


def test_a_spread_that_is_said_is_of_what_is_counted() -> None:
    """And is no pilot, of which something would be missing."""
    said = Spread(
        math.nan, math.nan, Metric("accuracy", higher_is_better=True), "said", 0.006, is_pilots=False
    )
    nested = list(power_lines(Design(2, 4, 5), 0.5, said))
    assert "spread of a difference 0.60" in nested[1] and not any("pilot" in line for line in nested)
