"""The question-answering objective: SQuAD's two editions of rules, windows, spans, the choice between windows
and none.
"""

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretraining import Rows, vocabulary

from bertlab.config.schema import validate
from bertlab.contracts import join_examples
from bertlab.errors import ConfigError
from bertlab.objectives._squad import compare, normalised, word_f1
from bertlab.objectives.extractive_qa import ExtractiveQa, ExtractiveQaObjective

# --- the rules of evaluation, once more, letter by letter and without regular expressions but for splitting
MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def plain_words(text: str) -> list[str]:
    """Lower case; marks vanish without leaving a space; then articles vanish where they stand as words, then
    words are split.
    """
    letters = "".join(letter for letter in text.lower() if letter not in MARKS)
    return [word for part in letters.split() for word in re.split(r"(?<!\w)(?:a|an|the)(?!\w)", part) if word]


def rules(said: str, golds: list[str], second: bool) -> tuple[float, float]:
    """(exact match, F1) by the published definitions."""
    if second:
        golds = [gold for gold in golds if plain_words(gold)] or [""]
    best_exact, best_f1 = 0.0, 0.0
    for gold in golds or [""]:
        ours, theirs = plain_words(said), plain_words(gold)
        best_exact = max(best_exact, 1.0 if ours == theirs else 0.0)
        rest, common = list(theirs), 0
        for word in ours:
            if word in rest:
                rest.remove(word)
                common += 1
        if second and (not ours or not theirs):
            f1 = 1.0 if ours == theirs else 0.0
        elif common == 0:
            f1 = 0.0
        else:
            precision, recall = common / len(ours), common / len(theirs)
            f1 = 2 * precision * recall / (precision + recall)
        best_f1 = max(best_f1, f1)
    return best_exact, best_f1


TEXTS = st.lists(
    st.sampled_from(
        [
            "the",
            "a",
            "An",
            "cat",
            "Cat",
            "cats",
            "theatre",
            "U.S.",
            "-",
            "  ",
            "1,000",
            "«oui»",
            "é",
            "can't",
            "…",
        ]
    ),
    max_size=5,
)


@given(TEXTS, st.lists(TEXTS, max_size=3), st.booleans())
def test_answers_are_compared_as_squad_does(said: list[str], golds: list[list[str]], second: bool) -> None:
    text, accepted = " ".join(said), [" ".join(gold) for gold in golds]
    assert compare(text, accepted, second) == pytest.approx(rules(text, accepted, second))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat,", "cat"), ("a.b", "ab"), ("an apple a day", "apple day"), ("theatre", "theatre"),
        ("The-a", "thea"), ("the", ""),
        (" \n", ""), ("A’s", "’s"), ("U.S.A.", "usa"),
    ],
)  # fmt: skip
def test_normalisation(text: str, expected: str) -> None:
    assert normalised(text) == expected


def test_answers_without_words_part_the_editions() -> None:
    assert compare("the", ["a"], False) == (1.0, 0.0)
    assert compare("the", ["a"], True) == (1.0, 1.0)
    assert compare("", [], True) == (1.0, 1.0) and compare("cat", [], True) == (0.0, 0.0)
    assert compare("", ["the cat"], True) == (0.0, 0.0)
    assert compare("cat sat", ["dog", "the cat sat down", "cat"], False) == (0.0, pytest.approx(0.8))
    assert word_f1("cat cat", "cat", True) == pytest.approx(2 / 3)


# --- windows --------------------------------------------------------------------------------------
class Letters:
    """Each letter is a token, spaces are none; with the first character and the one after the
    last of each.
    """

    def __call__(self, texts: Any) -> list[list[int]]:
        return [ids for ids, _ in self.with_offsets(texts)]

    def with_offsets(self, texts: Any) -> list[Any]:
        places = [[index for index, letter in enumerate(text) if letter != " "] for text in texts]
        return [
            ([5 + ord(text[place]) - ord("a") for place in found], [(place, place + 1) for place in found])
            for text, found in zip(texts, places, strict=True)
        ]


def objective(**options: Any) -> ExtractiveQaObjective:
    given = {"max_length": 10, "max_question": 2, "stride": 2, "max_answer": 3, **options}
    return ExtractiveQa(name="extractive_qa", **given).build(vocabulary(), ())


def rows_of(contexts: list[str], answers: list[str], questions: list[str] | None = None) -> Rows:
    found = [
        (
            {"text": [answer], "answer_start": [context.index(answer)]}
            if answer
            else {"text": [], "answer_start": []}
        )
        for context, answer in zip(contexts, answers, strict=True)
    ]
    return Rows(context=contexts, question=questions or ["xyz"] * len(contexts), answers=found)


@given(st.integers(0, 26), st.integers(1, 4), st.integers(0, 25), st.integers(1, 3))
def test_windows_hold_every_token_and_the_answer_where_it_is_whole(
    length: int, stride: int, begin: int, size: int
) -> None:
    context = " ".join("abcdefghijklmnopqrstuvwxyz"[:length])
    wanted = context[2 * begin : 2 * (begin + size) - 1]
    o = objective(stride=stride)
    examples = join_examples(o.prepare(rows_of([context], [wanted]), Letters()))
    seen, whole = [], 0
    for number in range(len(examples)):
        ids, span = examples[number], examples.columns["span"][number]
        part = slice(examples.offsets[number], examples.offsets[number + 1])
        first, last = (examples.token_columns[name][part] for name in ("first", "last"))
        assert len(ids) <= 10 and ids[:4].tolist() == [2, 28, 29, 3] and ids[-1] == 3
        assert [chr(int(token) - 5 + 97) for token in ids[4:-1]] == [context[place] for place in first[4:-1]]
        seen += ids[4:-1].tolist()
        if span.any():
            whole += 1
            assert context[first[span[0]] : last[span[1]]] == wanted
        elif wanted:
            assert not set(wanted.replace(" ", "")) <= {context[place] for place in first[4:-1]}
    assert sorted(set(seen)) == [5 + index for index in range(length)] and len(examples) == max(
        1, -(-(length - 5) // stride) + 1
    )
    if wanted and size + stride <= 6:
        assert whole


def test_an_answer_within_a_token_is_learnt_as_that_token() -> None:
    class Words(Letters):
        def with_offsets(self, texts: Any) -> list[Any]:
            found = [[(match.start(), match.end()) for match in re.finditer(r"\w+", text)] for text in texts]
            return [([5] * len(places), places) for places in found]

    rows = rows_of(["ab cde fg"], ["d"])
    (examples,) = objective().prepare(rows, Words())
    assert examples.columns["span"].tolist() == [[4, 4]]


def test_segments_begin_with_the_context() -> None:
    o = objective()
    batch = o.collate(
        join_examples(o.prepare(rows_of(["abc", " "], ["b", ""]), Letters())), np.array([0, 1]), None
    )
    assert batch.input_ids.tolist() == [[2, 28, 29, 3, 5, 6, 7, 3], [2, 28, 29, 3, 3, 0, 0, 0]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 0, 0, 0]]
    assert batch.targets["span"].tolist() == [[5, 5], [0, 0]]


# --- spans ----------------------------------------------------------------------------------------
def test_the_best_span_is_that_of_trying_all() -> None:
    o = objective(max_length=12, stride=6)
    contexts = ["abcdefgh", "ab", " ", "abcdefghijklm"]
    rows = rows_of(contexts, ["bc", "", "", "m"])
    examples = join_examples(o.prepare(rows, Letters()))
    batch = o.collate(examples, np.arange(len(examples)), None)
    torch.manual_seed(0)
    outputs = torch.randn(*batch.input_ids.shape, 2) * 3
    measured = {**o.measure(outputs, batch), "row": examples.rows}
    answers = o.predictions(measured, rows)
    for row, context in enumerate(contexts):
        windows = np.flatnonzero(examples.rows == row)
        none = min(float(outputs[w, 0].sum()) for w in windows)
        tried = [(-np.inf, "")]
        for w, start, more in itertools.product(windows, range(outputs.shape[1]), range(3)):
            first, last = (batch.targets[name][w] for name in ("first", "last"))
            if first[start] >= 0 and start + more < len(first) and first[start + more] >= 0:
                tried.append(
                    (
                        float(outputs[w, start, 0] + outputs[w, start + more, 1]),
                        context[first[start] : last[start + more]],
                    )
                )
        score, text = max(tried)
        assert answers[row]["answer"] == (text if score >= none else "")
        if answers[row]["answer"]:
            assert context[answers[row]["start"] : answers[row]["end"]] == text
            assert answers[row]["margin"] == pytest.approx(score - none, rel=1e-5)


def test_the_loss_is_the_mean_of_both_ends_cross_entropies_over_possible_tokens() -> None:
    o = objective()
    batch = o.collate(join_examples(o.prepare(rows_of(["abc"], ["bc"]), Letters())), np.array([0]), None)
    outputs = torch.randn(1, 8, 2)
    possible = [0, 4, 5, 6]
    start, end = (
        -torch.log_softmax(outputs[0, possible, side], 0)[place] for side, place in ((0, 2), (1, 3))
    )
    loss = o.loss(outputs, batch)
    assert float(loss.total) == pytest.approx(float((start + end) / 2), rel=1e-5) and loss.count == 1


def measured_of(*windows: tuple[int, float, float, int, int]) -> dict[str, np.ndarray]:
    names = ("row", "best", "none", "first", "last")
    return {
        "nats": np.zeros(len(windows)),
        **{
            name: np.asarray(values, dtype=float)
            for name, values in zip(names, zip(*windows, strict=True), strict=True)
        },
    }


def test_scores_of_questions_with_and_without_an_answer() -> None:
    rows = rows_of(["ab cd", "ab cd", "ab cd"], ["cd", "", "ab cd"])
    measured = measured_of((0, 1.0, 2.0, 0, 2), (0, 3.0, 2.5, 3, 5), (1, 1.0, 2.0, 0, 2), (2, 4.0, 0.0, 0, 2))
    o = objective()
    assert [row["answer"] for row in o.predictions(measured, rows)] == ["cd", "", "ab"]
    expected = {
        "loss": 0.0,
        "exact_match": 2 / 3,
        "f1": (2 + 2 / 3) / 3,
        "f1_answerable": (1 + 2 / 3) / 2,
        "accuracy_unanswerable": 1.0,
    }
    assert o.scores(measured, rows) == pytest.approx(expected)
    assert [row["answer"] for row in objective(unanswerable=False).predictions(measured, rows)] == [
        "cd",
        "ab",
        "ab",
    ]
    assert [row["answer"] for row in objective(null_threshold=1.0).predictions(measured, rows)] == [
        "cd",
        "ab",
        "ab",
    ]
    assert [row["answer"] for row in objective(null_threshold=-2.0).predictions(measured, rows)] == [
        "",
        "",
        "ab",
    ]
    assert set(objective(unanswerable=False).scores(measured, rows)) == {"loss", "exact_match", "f1"}


def test_a_stride_that_would_skip_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective.stride=33: .* at least 32 tokens"):
        validate(ExtractiveQa(name="extractive_qa", max_length=100, stride=33), "objective")
    validate(ExtractiveQa(name="extractive_qa", max_length=100, stride=32), "objective")
