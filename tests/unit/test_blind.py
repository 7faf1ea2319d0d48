"""What one scores who reads nothing and knows the training split's answers: what a run must beat."""

from typing import Any

import numpy as np
import pytest
from pretraining import Rows, vocabulary

from bertlab.objectives.embedding import Embedding
from bertlab.objectives.extractive_qa import ExtractiveQa
from bertlab.objectives.multi_label import MultiLabel
from bertlab.objectives.multiple_choice import MultipleChoice
from bertlab.objectives.regression import Regression
from bertlab.objectives.tagging import Tagging


def blind(config: Any, train: Rows, rows: Rows, names: tuple[str, ...] = ()) -> dict[str, float]:
    found: dict[str, float] = config.build(vocabulary(), names).blind_scores(train, rows)
    return found


def test_of_numbers_the_mean() -> None:
    found = blind(Regression(name="regression"), Rows(number=[1.0, 2.0, 6.0]), Rows(number=[2.0, 5.0]))
    assert found["rmse"] == pytest.approx(np.sqrt((1 + 4) / 2)) and found["mae"] == pytest.approx(1.5)
    assert found["pearson"] == found["spearman"] == 0.0


def test_of_choices_the_number_that_is_right_most_often() -> None:
    config = MultipleChoice(name="multiple_choice")
    assert blind(config, Rows(label=[2, 2, 0, 1]), Rows(label=[2, 0, 1, 2, 0])) == {"accuracy": 0.4}


def test_of_sets_the_best_that_can_be_said_for_each_score() -> None:
    train = Rows(labels=[[0], [0, 1], [0], [], [0]])
    rows = Rows(labels=[[0], [1], [0], [2]])
    found = blind(MultiLabel(name="multi_label"), train, rows, ("a", "b", "c"))
    assert found["f1_micro"] == pytest.approx(2 * 2 / (4 + 4)), "always a, which four of five rows have"
    assert found["exact"] == 0.5, "always {a}"
    each = [2 * hits / (4 + hits) for hits in (2, 1, 1)]  # said of every row
    assert [found[f"f1_of_{name}"] for name in "abc"] == pytest.approx(each)
    assert found["f1_macro"] == pytest.approx(np.mean(each)) and "loss" not in found


def test_of_words_the_commonest_tag() -> None:
    names = ("B-X", "I-X", "O")
    found = blind(
        Tagging(name="tagging"), Rows(tags=[[2, 2, 0], [2, -1]]), Rows(tags=[[2, 0, 1], [2, -1]]), names
    )
    assert found == {"accuracy": 0.5, "precision": 0.0, "recall": 0.0, "f1": 0.0, "f1_X": 0.0}
    parts = blind(Tagging(name="tagging"), Rows(tags=[[1, 1, 0]]), Rows(tags=[[1, 0]]), ("noun", "verb"))
    assert parts == {"accuracy": 0.5}


def test_of_questions_that_there_is_no_answer() -> None:
    rows = Rows(answers=[{"text": ["a"]}, {"text": []}, {"text": []}, {"text": ["b"]}])
    assert blind(ExtractiveQa(name="extractive_qa", unanswerable=True), rows, rows)["f1"] == 0.5
    assert blind(ExtractiveQa(name="extractive_qa", unanswerable=False), rows, rows)["f1"] == 0.0


def test_of_pairs_cosines_that_mean_nothing() -> None:
    assert blind(Embedding(name="embedding"), Rows(), Rows()) == {"spearman": 0.0, "pearson": 0.0}
