"""The multiple-choice objective: rows of choices, scores a question; which cells name a right choice."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pretraining import Rows, encode, vocabulary

from bertlab.contracts import join_examples
from bertlab.data.kinds.index import Index
from bertlab.declarations import Column
from bertlab.errors import DataError
from bertlab.objectives.multiple_choice import MultipleChoice

ROWS = Rows(text=["a", "bc"], choices=[["d", "efg"], ["h", "i"]], label=[1, 0])


def objective() -> Any:
    return MultipleChoice(name="multiple_choice", max_length=8).build(vocabulary(), ())


def test_every_choice_is_a_row() -> None:
    o = objective()
    examples = join_examples(o.prepare(ROWS, encode))
    assert len(examples) == 2 and examples.lengths.tolist() == [12, 12]
    batch = o.collate(examples, np.array([1, 0]), None)
    a = 5
    assert batch.input_ids.tolist() == [
        [2, a + 1, a + 2, 3, a + 7, 3, 0], [2, a + 1, a + 2, 3, a + 8, 3, 0],
        [2, a, 3, a + 3, 3, 0, 0], [2, a, 3, a + 4, a + 5, a + 6, 3],
    ]  # fmt: skip
    assert batch.segment_ids.tolist() == [[0, 0, 0, 0, 1, 1, 0]] * 2 + [
        [0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 1, 1, 1, 1],
    ]
    assert batch.targets["label"].tolist() == [0, 1] and batch.num_examples == 2 and batch.num_tokens == 24


def test_a_question_stands_before_each_choice() -> None:
    rows = Rows(text=["a"], question=["b"], choices=[["c", "d"]])
    (examples,) = objective().prepare(rows, encode)
    assert examples[0].tolist() == [2, 5, 3, 6, 7, 3, 2, 5, 3, 6, 8, 3] and examples.columns[
        "label"
    ].tolist() == [-1]


def test_scores_follow_their_definitions() -> None:
    o = objective()
    batch = o.collate(join_examples(o.prepare(ROWS, encode)), np.array([0, 1]), None)
    logits = torch.log(torch.tensor([[0.25, 0.75], [0.5, 1.5]]))
    measured = o.measure(logits, batch)
    nats = -(math.log(0.75) + math.log(0.25)) / 2
    assert o.scores(measured) == pytest.approx({"loss": nats, "accuracy": 0.5})
    loss = o.loss(logits, batch)
    assert float(loss.total) / loss.count == pytest.approx(nats)
    assert o.predictions(measured)[0] == {"label": 1, "probabilities": pytest.approx([0.25, 0.75])}


def kind(drop: bool = False) -> Index:
    return Index(Column("f.jsonl", "label", "dataset.label_column", SimpleNamespace(drop_unlabelled=drop)))


@pytest.mark.parametrize(("cell", "found"), [(1, 1), ("1", 1), (1.0, 1), ("no", 0), ("2", 2)])
def test_a_right_choice_is_a_number_or_the_choice_itself(cell: Any, found: int) -> None:
    assert kind().convert([cell], 0, [], [["no", "yes", "1"]]) == [found]


@pytest.mark.parametrize("cell", [3, "maybe", True, 0.5, [1], "-2"])
def test_what_is_none_of_the_choices_is_named(cell: Any) -> None:
    with pytest.raises(
        DataError,
        match=r"f.jsonl: row 8 holds .* in column 'label' .*none of its choices: write a number from 0 to 1",
    ):
        kind().convert([cell], 7, [], [["no", "yes"]])


@pytest.mark.parametrize("cell", [-1, None, "", " ", math.nan, "-1"])
def test_rows_without_a_right_choice_are_told_or_left_out(cell: Any) -> None:
    unanswered = kind()
    unanswered.look([cell], 0)
    assert unanswered.is_unanswered()
    with pytest.raises(DataError, match="drop_unlabelled"):
        kind().convert([cell], 0, [], [["no", "yes"]])
    assert kind(drop=True).convert([cell, 1], 0, [], [["no", "yes"]] * 2) == [None, 1]
