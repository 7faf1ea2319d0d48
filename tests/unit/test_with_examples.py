"""Intervals that know of seeds and of examples: they cover, and what is computed of kept predictions is the
score on record.
"""

from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bertlab.objectives.classification import Classification, f1_macro, matthews
from bertlab.objectives.multiple_choice import MultipleChoice
from bertlab.objectives.regression import Regression
from bertlab.report import resampling

RNG = np.random.default_rng(0)


def means(values: np.ndarray) -> Any:
    return lambda rows: float(values[rows].mean())


def test_other_seeds_and_other_examples_are_covered() -> None:
    """Four seeds on 150 examples, examples harder or easier for all seeds, seeds better or worse on all
    examples.
    """
    hits, alone, rounds = 0, 0, 150
    for _ in range(rounds):
        right = RNG.normal(0, 0.4, 150) + RNG.normal(0, 0.03, (4, 1)) + RNG.normal(0, 0.2, (4, 150))
        low, high = resampling.interval_over_examples([means(one) for one in right], [0] * 4, 150, draws=100)
        hits += low <= 0 <= high
        seeds = right.mean(1)
        half = scipy_stats.t.ppf(0.975, 3) * seeds.std(ddof=1) / 2
        alone += abs(seeds.mean()) <= half
    assert 0.92 <= hits / rounds <= 0.99 and alone / rounds < 0.9, (hits / rounds, alone / rounds)


def test_of_one_seed_there_are_the_examples_and_of_seeds_alone_there_is_t() -> None:
    values = RNG.random(400)
    low, high = resampling.interval_over_examples([means(values)], [0], 400)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    same = [np.full(50, level) for level in (0.1, 0.2, 0.4)]
    low, high = resampling.interval_over_examples([means(one) for one in same], [0, 0, 0], 50)
    assert (low, high) == pytest.approx(
        scipy_stats.t.interval(0.95, 2, np.mean([0.1, 0.2, 0.4]), scipy_stats.sem([0.1, 0.2, 0.4]))
    )
    # two pretrainings: two units
    nested = resampling.interval_over_examples([means(one) for one in same], [0, 0, 1], 50)
    assert nested[1] - nested[0] > high - low


def test_objectives_say_how_their_scores_come_of_rows() -> None:
    label, said = RNG.integers(0, 3, 60), RNG.integers(0, 3, 60)
    names = ["a", "b", "c"]
    predicted = [{"label": names[one]} for one in said]
    confusion = np.zeros((3, 3), dtype=np.int64)
    np.add.at(confusion, (label, said), 1)
    config = Classification(name="classification", positive_class="b")
    every = np.arange(60)
    for metric, expected in (
        ("accuracy", (label == said).mean()),
        ("f1_macro", f1_macro(confusion)),
        ("matthews", matthews(confusion)),
    ):
        score = config.score_of(metric, {"label": label}, predicted, names)
        assert score is not None and score(every) == pytest.approx(expected)
    assert config.score_of("loss", {"label": label}, predicted, names) is None
    f1 = config.score_of("f1", {"label": label}, predicted, names)
    assert f1 is not None and f1(every[:10]) == pytest.approx(
        2 * (label[:10][said[:10] == 1] == 1).sum() / ((label[:10] == 1).sum() + (said[:10] == 1).sum())
    )
    number = said + RNG.normal(0, 1, 60)
    told = [{"number": float(one)} for one in number]
    for metric, expected in (("pearson", scipy_stats.pearsonr(number, label)[0]), ("spearman",
        scipy_stats.spearmanr(number, label)[0]),
                             ("mae", np.abs(number - label).mean()), ("rmse",
                             np.sqrt(((number - label) ** 2).mean()))):  # fmt: skip
        score = Regression(name="regression").score_of(metric, {"number": label}, told, [])
        assert score is not None and score(every) == pytest.approx(expected)
    choice = MultipleChoice(name="multiple_choice").score_of(
        "accuracy", {"label": label}, [{"label": int(one)} for one in said], []
    )
    assert choice is not None and choice(every) == pytest.approx((label == said).mean())
