"""The classification objective: layout of inputs, metrics against their definitions, losses that add up."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretraining import Rows

from bertlab.config.schema import validate
from bertlab.contracts import Draw, Special, Vocabulary, join_examples
from bertlab.data.tables.table import TableDataset
from bertlab.errors import ConfigError
from bertlab.objectives._texts import join_texts
from bertlab.objectives.classification import Classification, balanced_accuracy, f1_macro, matthews

SPECIAL = Special(0, 1, 2, 3, 4)
VOCABULARY = Vocabulary(SPECIAL, np.zeros(300, dtype=bool), np.ones(300, dtype=np.int64), np.arange(300) < 5)


def encode(texts: Any) -> list[list[int]]:
    return [[10 + ord(letter) for letter in text] for text in texts]


def objective(**options: Any) -> Any:
    return Classification(name="classification", **options).build(VOCABULARY, ["no", "yes", "maybe"])


def test_pairs_are_laid_out_as_devlin_does() -> None:
    o = objective()
    examples = join_examples(o.prepare(Rows(text=["ab", "c"], text_pair=["d", "efg"], label=[0, 2]), encode))
    batch = o.collate(examples, np.array([0, 1]), None)
    a = 10 + ord("a")
    assert batch.input_ids.tolist() == [[2, a, a + 1, 3, a + 3, 3, 0], [2, a + 2, 3, a + 4, a + 5, a + 6, 3]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]]
    assert batch.attention_mask is not None and batch.attention_mask.sum(1).tolist() == [6, 7]
    assert batch.targets["label"].tolist() == [0, 2] and batch.num_tokens == 13


@given(
    st.lists(st.integers(5, 99), max_size=40),
    st.one_of(st.none(), st.lists(st.integers(5, 99), max_size=40)),
    st.integers(5, 30),
)
def test_truncation_keeps_the_length_and_both_texts(
    first: list[int], second: list[int] | None, longest: int
) -> None:
    row, start = join_texts(first, second, longest, SPECIAL)
    assert len(row) <= longest and row[0] == 2 and row[-1] == 3
    whole = len(first) + (len(second) + 3 if second is not None else 2)
    assert len(row) == min(longest, whole), "nothing is cut that would have fitted"
    if second is not None:
        assert row[start - 1] == 3
        assert row[start:-1] == second[: len(row) - start - 1] and row[1 : start - 1] == first[: start - 2]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
def test_f1_and_matthews_follow_their_definitions(pairs: list[tuple[int, int]]) -> None:
    confusion = np.zeros((3, 3), dtype=np.int64)
    for true, predicted in pairs:
        confusion[true, predicted] += 1
    scores = []
    for c in sorted({c for pair in pairs for c in pair}):  # those that occur, as in scikit-learn
        hits = sum(t == p == c for t, p in pairs)
        precision = hits / max(1, sum(p == c for _, p in pairs))
        recall = hits / max(1, sum(t == c for t, _ in pairs))
        scores.append(0 if hits == 0 else 2 * precision * recall / (precision + recall))
    assert f1_macro(confusion) == pytest.approx(np.mean(scores))
    true = np.eye(3)[[t for t, _ in pairs]]
    predicted = np.eye(3)[[p for _, p in pairs]]

    def covariance(x: np.ndarray, y: np.ndarray) -> float:
        return float(((x - x.mean(0)) * (y - y.mean(0))).sum())

    spread = math.sqrt(max(0.0, covariance(true, true)) * max(0.0, covariance(predicted, predicted)))
    assert matthews(confusion) == pytest.approx(
        covariance(true, predicted) / spread if spread > 1e-9 else 0.0, abs=1e-9
    )


def test_metrics_of_a_hand_counted_split() -> None:
    logits = np.log(
        np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], dtype=np.float32)
    )
    found = objective(label_smoothing=0.1).scores({"logits": logits, "label": np.array([0, 1, 1, 2])})
    assert found["accuracy"] == 0.75 and found["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert found["loss"] == pytest.approx(-np.mean(np.log([0.7, 0.8, 0.3, 0.6])), abs=1e-6)


def test_loss_of_micro_batches_adds_up_to_that_of_the_batch() -> None:
    o = objective()
    examples = join_examples(o.prepare(Rows(text=["a", "bc", "d"], label=[0, 1, 2]), encode))
    logits = torch.randn(3, 3)
    whole = o.loss(logits, o.collate(examples, np.arange(3), None))
    parts = [o.loss(logits[rows], o.collate(examples, np.array(rows), None)) for rows in ([0, 1], [2])]
    assert float(whole.total) == pytest.approx(sum(float(part.total) for part in parts), abs=1e-5)
    assert whole.count == sum(part.count for part in parts) == 3


def test_token_dropout_is_keyed_by_example_and_epoch_and_spares_special_tokens() -> None:
    o = objective(token_dropout=0.5)
    examples = join_examples(o.prepare(Rows(text=["x" * 50, "y" * 50], label=[0, 1]), encode))
    both = o.collate(examples, np.array([0, 1]), Draw(7, 0)).input_ids
    alone = o.collate(examples, np.array([1]), Draw(7, 0)).input_ids
    assert torch.equal(both[1], alone[0]), "micro-batches do not change what is dropped"
    assert not torch.equal(both, o.collate(examples, np.array([0, 1]), Draw(7, 1)).input_ids)
    assert (both[:, 0] == 2).all() and (both[:, 51] == 3).all() and 20 < int((both == 1).sum()) < 80
    assert not (o.collate(examples, np.array([0, 1]), None).input_ids == 1).any(), "evaluation drops nothing"


def test_the_positive_classs_f1_and_balanced_accuracy_follow_their_definitions() -> None:
    o = objective(positive_class="maybe")
    label, said = np.array([0, 0, 0, 2, 2, 0]), np.array([0, 1, 2, 2, 0, 0])
    scores = o.scores({"logits": np.eye(3)[said] * 5, "label": label})
    assert scores["f1"] == pytest.approx(2 * 1 / (2 + 2)) and scores["balanced_accuracy"] == pytest.approx(
        (2 / 4 + 1 / 2) / 2
    )
    assert {name for name, value in scores.items() if isinstance(value, float)} == {
        metric.name for metric in o.metrics
    }
    assert "f1" not in objective().scores({"logits": np.eye(3)[said] * 5, "label": label})
    assert balanced_accuracy(np.array([[3, 1], [0, 0]])) == pytest.approx(0.75)


@pytest.mark.parametrize("given", [[1, 2.5, 4], [10, 25, 40], "balanced"])
def test_class_weights_are_torchs_over_the_training_split(given: Any) -> None:
    o = objective(class_weights=given)
    label = [0, 0, 0, 1, 1, 2]
    examples = join_examples(o.prepare(Rows(text=["ab"] * 6, label=label), encode))
    logits = torch.randn(6, 3)
    plain = o.loss(logits, o.collate(examples, np.arange(6), None))
    o.fit_to(examples)
    loss = o.loss(logits, o.collate(examples, np.arange(6), None))
    weights = torch.tensor([1 / 3, 1 / 2, 1.0] if given == "balanced" else given, dtype=torch.float32)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(label), weights)
    assert float(loss.total / loss.count) == pytest.approx(float(expected), rel=1e-5)
    unweighted = torch.nn.functional.cross_entropy(logits, torch.tensor(label))
    assert float(plain.total / plain.count) == pytest.approx(float(unweighted), rel=1e-5)


@pytest.mark.parametrize(
    "given", ["heavy", [], [1, 0, 2], [1, -1, 2], [1, "2", 3], [True, 1, 1], [1, math.inf, 1], 3]
)
def test_class_weights_that_are_none_are_refused(given: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"objective.class_weights=.*must be balanced, or a list of numbers above 0"
    ):
        validate(Classification(name="classification", class_weights=given), "objective")


def test_what_is_said_of_classes_must_fit_them() -> None:
    with pytest.raises(
        ConfigError, match=r"class_weights=\[1, 2\]: 2 numbers for 3 classes \(no, yes, maybe\)"
    ):
        objective(class_weights=[1, 2])
    with pytest.raises(ConfigError, match=r"positive_class=yse: no such class, did you mean 'yes'"):
        objective(positive_class="yse")


def test_a_dataset_names_its_official_score_and_class() -> None:
    config = Classification(name="classification")
    told = config.for_task(TableDataset(name="t", train_file="t.csv", metric="f1", positive_class="maybe"))
    assert (told.primary, told.positive_class) == ("f1", "maybe")
    own = Classification(name="classification", primary="matthews", positive_class="no")
    assert (
        own.for_task(TableDataset(name="t", train_file="t.csv", metric="f1", positive_class="maybe")) == own
    )
    assert config.for_task(TableDataset(name="t", train_file="t.csv", metric="exact_match")).primary is None


def test_blind_scores_are_those_of_always_saying_the_commonest_class() -> None:
    found = objective().blind_scores({"label": [1, 1, 0, 2]}, {"label": [1, 0, 1, 2, 1]})
    assert (
        found["accuracy"] == pytest.approx(0.6)
        and found["matthews"] == 0
        and found["balanced_accuracy"] == pytest.approx(1 / 3)
    )
