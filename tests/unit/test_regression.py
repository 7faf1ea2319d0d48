"""The regression objective: correlations against scipy, a loss that no unit changes, what is folded into the
exported layer.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretraining import Rows, encode, vocabulary
from scipy import stats

from bertlab.contracts import Batch, Encoder, join_examples
from bertlab.errors import DataError
from bertlab.objectives.regression import Regression, RegressionObjective, pearson, ranks

SERIES = st.lists(st.tuples(st.integers(-5, 5), st.integers(-40, 40)), min_size=3, max_size=40)


def objective(*numbers: float) -> tuple[RegressionObjective, Any]:
    """One that has looked at a training split of these numbers."""
    made = Regression(name="regression", head_dropout=0.0).build(vocabulary(), ())
    rows = Rows(
        text=["abc", "d"] * (len(numbers) // 2),
        text_pair=["e", "fg"] * (len(numbers) // 2),
        number=list(numbers),
    )
    examples = join_examples(made.prepare(rows, encode))
    made.fit_to(examples)
    return made, examples


class Pool(Encoder):
    hidden_size = 4

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def pool(self, hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        return hidden[:, 0]


@given(SERIES)
def test_correlations_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.asarray(values, dtype=float) for values in zip(*pairs, strict=True))
    second /= 7
    if min(np.ptp(first), np.ptp(second)) == 0:
        assert pearson(first, second) == pearson(ranks(first), ranks(second)) == 0
        return
    assert pearson(first, second) == pytest.approx(stats.pearsonr(first, second).statistic, abs=1e-12)
    assert pearson(ranks(first), ranks(second)) == pytest.approx(
        stats.spearmanr(first, second).statistic, abs=1e-12
    )
    assert ranks(first).tolist() == stats.rankdata(first).tolist()


def test_scores_are_in_the_files_unit() -> None:
    made, _ = objective(0, 10)
    measured = {
        "said": np.array([1.0, 2.0, 6.0]),
        "number": np.array([1.0, 4.0, 2.0]),
        "scale": np.full(3, 5.0),
    }
    scores = made.scores(measured)
    assert scores["rmse"] == pytest.approx(math.sqrt(20 / 3)) and scores["mae"] == pytest.approx(2)
    assert scores["loss"] == pytest.approx(20 / 3 / 25)
    assert set(scores) == {metric.name for metric in made.metrics}


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 0.0), (0.1, 2000.0), (1000.0, -5.0)])
def test_what_is_learnt_does_not_depend_on_the_unit(factor: float, shift: float) -> None:
    made, examples = objective(*(shift + factor * number for number in (0.0, 1.0, 3.0, 4.0)))
    torch.manual_seed(0)
    head = made.build_head(Pool(), 0.5)
    batch = made.collate(examples, np.arange(4), None)
    with torch.no_grad():
        outputs = head(Pool(), torch.linspace(-1, 1, 16).view(4, 1, 4), batch)
    deviation = math.sqrt(2.5)
    said = outputs.said.numpy()
    wanted = (np.array([0, 1, 3, 4]) - 2) / deviation
    assert float(made.loss(outputs, batch).total) == pytest.approx(
        float(((said - wanted) ** 2).sum()), rel=1e-3
    )
    predicted = [row["number"] for row in made.predictions(made.measure(outputs, batch))]
    assert predicted == pytest.approx(list(shift + factor * (2 + deviation * said)), rel=1e-5)


def test_the_exported_layer_speaks_the_files_unit() -> None:
    made, examples = objective(10, 30, 50, 90)
    head = made.build_head(Pool(), 0.5).double()
    batch = made.collate(examples, np.arange(4), None)
    hidden = torch.randn(4, 1, 4, dtype=torch.float64)
    state = head.exported_state()
    theirs = torch.nn.functional.linear(hidden[:, 0], state["classifier.weight"], state["classifier.bias"])
    (ours,) = head.exported_outputs(head(Pool(), hidden, batch), batch)
    assert torch.allclose(ours, theirs) and set(state) == {"classifier.weight", "classifier.bias"}


def test_a_finished_runs_weights_hold_mean_and_deviation() -> None:
    made, _ = objective(10, 30)
    state = made.build_head(Pool(), 0.5).state_dict()
    fresh = Regression(name="regression").build(vocabulary(), ()).build_head(Pool(), 0.5)
    fresh.load_state_dict(state)
    assert float(fresh.mean) == 20 and float(fresh.scale) == 10


def test_numbers_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(
        DataError, match="all 4 numbers of the training split are 3, there is nothing to learn"
    ):
        objective(3, 3, 3, 3)
    with pytest.raises(DataError, match="differ too little for their size; subtract a constant"):
        objective(1e9, 1e9 + 2)


def test_pairs_are_laid_out_as_in_classification() -> None:
    made, examples = objective(1, 2)
    batch: Batch = made.collate(examples, np.array([0, 1]), None)
    assert batch.input_ids.tolist() == [[2, 5, 6, 7, 3, 9, 3], [2, 8, 3, 10, 11, 3, 0]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 0]]
    assert batch.targets["number"].tolist() == [1, 2] and set(batch.targets) == {"number"}
