"""Intervals of a report keep what they promise, in simulations: of an arm on several pretrainings, of many
arms together, beside the test that decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from runfolders import write_run

from bertlab.declarations import Metric
from bertlab.jobs.report import Schema, compare_runs
from bertlab.report import stats
from bertlab.report.arms import Arm, Seeds
from bertlab.report.comparison import compare, summarize
from bertlab.report.pages.page import to_markdown

ACCURACY = Metric("accuracy", higher_is_better=True)


@dataclass
class Given(Arm):
    """An arm whose scores were made up."""

    given: Mapping[Seeds, float] = field(default_factory=dict)

    def scores(self, split: str, metric: Metric) -> dict[Seeds, float]:
        return dict(self.given)


def of_pretrainings(scores: Sequence[Sequence[float]]) -> dict[Seeds, float]:
    return {
        Seeds(outer, inner): float(score)
        for outer, own in enumerate(scores, start=1)
        for inner, score in enumerate(own)
    }


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 2.0])
def test_an_arms_interval_covers_other_pretrainings_too(spread: float) -> None:
    """Three pretrainings of five seeds each, `spread` times as far apart as seeds are."""
    rng, hits, rounds = np.random.default_rng(0), 0, 2_000
    for _ in range(rounds):
        told = summarize(of_pretrainings(spread * rng.normal(size=(3, 1)) + rng.normal(size=(3, 5))))
        hits += told.low <= 0 <= told.high
    assert abs(hits / rounds - 0.95) < 0.015, hits / rounds


def test_an_arms_mean_is_that_of_its_pretrainings() -> None:
    """However many seeds each has; of one pretraining, seeds are what there is."""
    told = summarize({**of_pretrainings([[0.80, 0.82], [0.86]]), Seeds(3, 0): 0.83})
    means = stats.summarize([0.81, 0.86, 0.83])
    assert (told.mean, told.sd, told.low, told.high) == (means.mean, means.sd, means.low, means.high)
    assert told.n == 4
    assert summarize(of_pretrainings([[0.1, 0.2, 0.4]])) == stats.summarize([0.1, 0.2, 0.4])


def test_tables_show_the_interval_over_pretrainings(tmp_path: Path) -> None:
    """Means 80, 83 and 86 of three pretrainings: [75.5, 90.5], and not that of fifteen runs."""
    for outer, mean in enumerate((0.80, 0.83, 0.86)):
        for seed in range(5):
            score = mean + 0.001 * (seed - 2)
            write_run(tmp_path, f"{outer}{seed}", seed, score, score, stage=f"p{outer}",
                      init__component="stage", init__seed=outer)  # fmt: skip
    _, (study,), page = compare_runs(Schema(runs=str(tmp_path), examples=False, contamination=False))
    (row,) = compare(study, {})
    assert row.validation is not None and row.validation == row.test
    assert (row.validation.low, row.validation.high) == pytest.approx((0.7555, 0.9045), abs=1e-4)
    text = to_markdown(page)
    assert "| 15 on 3 pretrainings | 83.00 ± 3.00 | [75.55, 90.45] | 83.00 ± 3.00 |" in text
    assert "| 82.00 ± 3.00 |" in text, "the last step's too"
    assert "of an arm on several pretrainings over their means" in text
