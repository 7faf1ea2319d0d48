"""Tagging: labels at the first sub-word, entities as conlleval counts them, what is cut off
counts as missed.
"""

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretraining import SPECIAL, Rows, encode, vocabulary

from bertlab.contracts import join_examples
from bertlab.errors import ConfigError
from bertlab.objectives.tagging import Tagging

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def objective(names: list[str] | None = None, **options: Any) -> Any:
    return Tagging(name="tagging", **options).build(vocabulary(), NAMES if names is None else names)


def outputs_for(batch: Any, guesses: list[list[int]]) -> torch.Tensor:
    """Logits that choose `guesses[row]` at the row's words in turn."""
    logits = torch.zeros(*batch.targets["tag"].shape, len(NAMES))
    for row, tags in enumerate(guesses):
        places = (batch.targets["tag"][row] != -100).nonzero()[:, 0]
        for place, tag in zip(places, tags, strict=True):
            logits[row, place, tag] = 9.0
    return logits


def test_labels_stand_at_the_first_subword() -> None:
    o = objective()
    examples = join_examples(o.prepare(Rows(tokens=[["a12", "b", "?", "c3"]], tags=[[1, 2, 0, 3]]), encode))
    batch = o.collate(examples, np.array([0]), None)
    assert batch.input_ids.tolist() == [[SPECIAL.cls_id, 5, 41, 42, 6, SPECIAL.unk_id, 7, 43, SPECIAL.sep_id]]
    assert batch.targets["tag"].tolist() == [[-100, 1, -100, -100, 2, 0, 3, -100, -100]]


def by_regular_expression(tags: list[int]) -> set[tuple[str, int, int]]:
    """Entities of BIO tags another way: one letter a tag, an entity is `B` or an `I` after something else,
    then `I`s of its type.
    """
    letters = "".join("opPlL"[tag] for tag in tags)  # o, B-PER p, I-PER P, B-LOC l, I-LOC L
    return {
        ("PER" if match.group()[0] in "pP" else "LOC", match.start(), match.end())
        for match in re.finditer("pP*|P+|lL*|L+", letters)
    }


@given(st.lists(st.integers(0, 4), max_size=20))
def test_entities_are_those_of_conlleval(tags: list[int]) -> None:
    assert objective().entities(tags) == by_regular_expression(tags)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8),
        min_size=1,
        max_size=5,
    )
)
def test_f1_is_its_definition(sentences: list[list[tuple[int, int]]]) -> None:
    o = objective()
    true = [[tag for tag, _ in sentence] for sentence in sentences]
    guesses = [[guess for _, guess in sentence] for sentence in sentences]
    examples = join_examples(o.prepare(Rows(tokens=[["a"] * len(tags) for tags in true], tags=true), encode))
    batch = o.collate(examples, np.arange(len(true)), None)
    measured = o.measure(outputs_for(batch, guesses), batch)
    found = o.scores(measured)
    gold = {(row, *entity) for row, tags in enumerate(true) for entity in by_regular_expression(tags)}
    said = {(row, *entity) for row, tags in enumerate(guesses) for entity in by_regular_expression(tags)}
    assert found["f1"] == pytest.approx(2 * len(gold & said) / max(1, len(gold) + len(said)))
    assert found["precision"] == pytest.approx(len(gold & said) / max(1, len(said)))
    assert found["recall"] == pytest.approx(len(gold & said) / max(1, len(gold)))
    right = sum(tag == guess for sentence in sentences for tag, guess in sentence)
    assert found["accuracy"] == pytest.approx(right / sum(map(len, sentences)))
    assert [row["tags"] for row in o.predictions(measured)] == [
        [NAMES[tag] for tag in tags] for tags in guesses
    ]
    assert o.loss(outputs_for(batch, guesses), batch).total.item() == pytest.approx(
        measured["nats"].sum(), rel=1e-4
    )


def test_entities_beyond_the_cut_count_as_missed() -> None:
    o = objective(max_length=6)
    examples = join_examples(
        o.prepare(Rows(tokens=[list("abcdefgh")], tags=[[1, 0, 0, 3, 0, 1, 2, 3]]), encode)
    )
    batch = o.collate(examples, np.array([0]), None)
    assert batch.input_ids.shape == (1, 6)
    measured = o.measure(outputs_for(batch, [[1, 0, 0, 3]]), batch)
    assert o.scores(measured)["recall"] == 2 / 4 and o.scores(measured)["precision"] == 1
    assert o.predictions(measured)[0]["tags"] == ["B-PER", "O", "O", "B-LOC", None, None, None, None], (
        "nobody read them"
    )


def test_an_entity_that_the_cut_goes_through_is_missed() -> None:
    """`New York City` cut after `New York`: conlleval sees a wrong end, not a hit."""
    o = objective(max_length=4)
    examples = join_examples(o.prepare(Rows(tokens=[list("abc")], tags=[[3, 4, 4]]), encode))
    batch = o.collate(examples, np.array([0]), None)
    found = o.scores(o.measure(outputs_for(batch, [[3, 4]]), batch))
    assert found["f1"] == 0 and found["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("names", [["O", "B-LOC", "I-LOC", "S-LOC"], ["B-LOC", "I-LOC"]])
def test_other_schemes_are_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="objective=tagging"):
        objective(names)


def test_texts_without_tags_are_tagged_word_by_word() -> None:
    o = objective()
    examples = join_examples(o.prepare(Rows(text=["a1 b", "c"]), encode))
    batch = o.collate(examples, np.array([0, 1]), None)
    rows = o.predictions(o.measure(outputs_for(batch, [[1, 2], [3]]), batch))
    assert [row["tags"] for row in rows] == [["B-PER", "I-PER"], ["B-LOC"]]


def test_tags_without_prefixes_are_scored_by_words() -> None:
    o = objective(["noun", "verb"])
    assert o.primary.name == "accuracy" and o.types == []
