"""Texts longer than a row, read in windows: nothing left out, one answer a row, and what stands at the end is
learnt.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretraining import Rows

import bertlab
from bertlab.contracts import Special, Vocabulary, join_examples
from bertlab.objectives._windows import mean_by_row, windows_of
from bertlab.objectives.classification import Classification

SPECIAL = Special(0, 1, 2, 3, 4)
VOCABULARY = Vocabulary(SPECIAL, np.zeros(300, dtype=bool), np.ones(300, dtype=np.int64), np.arange(300) < 5)


def letters(texts: Any) -> list[list[int]]:
    return [[10 + ord(letter) for letter in text] for text in texts]


def objective(**options: Any) -> Any:
    return Classification(name="classification", truncation="windows", **options).build(
        VOCABULARY, ["no", "yes"]
    )


# --- windows --------------------------------------------------------------------------------------
@given(st.integers(0, 80), st.integers(4, 20), st.one_of(st.none(), st.integers(1, 30)))
def test_windows_hold_every_token_of_a_text_and_none_is_short(
    length: int, longest: int, stride: int | None
) -> None:
    text = list(range(10, 10 + length))
    windows, left_out = windows_of(text, None, longest, SPECIAL, stride)
    assert left_out == 0 and {token for ids, _ in windows for token in ids[1:-1]} == set(text)
    assert all(ids[0] == 2 and ids[-1] == 3 and start == 0 for ids, start in windows)
    assert {len(ids) for ids, _ in windows} == {min(longest, length + 2)}
    begins = [ids[1] for ids, _ in windows if len(ids) > 2]
    assert begins == sorted(set(begins)), "none twice"


@given(st.integers(0, 60), st.integers(0, 60), st.integers(5, 24), st.sampled_from([1, 2]))
def test_of_a_pair_the_longer_text_is_read_whole_beside_the_other(
    first: int, second: int, longest: int, between: int
) -> None:
    special = Special(0, 1, 2, 3, 4, between)
    texts = list(range(10, 10 + first)), list(range(100, 100 + second))
    windows, left_out = windows_of(*texts, longest, special, None)
    assert all(len(ids) <= longest and ids[start - 1] == 3 for ids, start in windows)
    seen = {token for ids, _ in windows for token in ids if token >= 10}
    long, short = sorted(texts, key=len, reverse=True)
    room = longest - 2 - between
    if room == 0:
        assert len(windows) == 1 and left_out == first + second
        return
    assert set(long) <= seen or first == second
    assert len(seen) == first + second - left_out
    assert left_out == 0 or left_out == len(short) - max(room // 2, room - len(long))


def test_windows_begin_a_stride_apart_and_the_last_ends_with_the_text() -> None:
    windows, _ = windows_of(list(range(10, 20)), None, 6, SPECIAL, 3)
    assert [ids for ids, _ in windows] == [
        [2, 10, 11, 12, 13, 3],
        [2, 13, 14, 15, 16, 3],
        [2, 16, 17, 18, 19, 3],
    ]
    assert [ids[1] for ids, _ in windows_of(list(range(10, 20)), None, 6, SPECIAL, None)[0]] == [
        10,
        12,
        14,
        16,
    ]


def test_examples_know_their_rows_and_classes() -> None:
    split = Rows(text=["abcdefg", "x", ""], label=[1, 0, 1])
    examples = join_examples(objective(max_length=6, stride=3).prepare(split, letters))
    assert examples.rows.tolist() == [0, 0, 1, 2] and examples.columns["label"].tolist() == [1, 1, 0, 1]
    assert examples.lengths.tolist() == [6, 6, 3, 2] and examples.columns["cut"].tolist() == [0] * 4


# --- one answer a row -----------------------------------------------------------------------------
def test_scores_and_predictions_are_of_rows() -> None:
    said = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9]])
    measured = {
        "logits": np.log(said).astype(np.float32) + np.arange(5)[:, None],  # what a softmax does not see
        "label": np.array([0, 0, 1, 1, 1]),
        "row": np.array([0, 0, 1, 2, 2]),
    }
    means = np.array([[0.45, 0.05], [0.2, 0.8], [0.06, 0.36]]) ** (1 / np.array([[2], [1], [2]]))
    expected = means / means.sum(1, keepdims=True)
    found = objective().predictions(measured)
    assert [one["label"] for one in found] == ["no", "yes", "yes"]
    assert np.array([list(one["probabilities"].values()) for one in found]) == pytest.approx(
        expected, abs=1e-6
    )
    scores = objective().scores(measured)
    assert scores["accuracy"] == 1.0 and scores["confusion"] == [[1, 0], [0, 2]]
    assert scores["loss"] == pytest.approx(
        -np.mean(np.log([expected[0, 0], expected[1, 1], expected[2, 1]])), abs=1e-6
    )


def test_means_are_taken_over_each_rows_windows_in_the_rows_order() -> None:
    means, place = mean_by_row(np.array([[1.0], [2.0], [4.0], [7.0]]), np.array([0, 1, 1, 2]))
    assert means.tolist() == [[1.0], [3.0], [7.0]] and place.tolist() == [0, 1, 3]


# --- in a run -------------------------------------------------------------------------------------
RUN = [
    "model=bert_tiny", "model.hidden_size=32", "model.num_attention_heads=2", "model.pooling=max",
    "budget.steps=48", "optimizer.lr=1e-2",
    "budget.batch_size=64", "compute=cpu", "compute.threads=1", "dataset=files", "dataset.train_file=t.csv",
    "dataset.validation_file=v.csv", "objective.max_length=64",
]  # fmt: skip


def write_long_texts(name: str, rows: int, seed: int) -> None:
    """300 words, of which the last five decide."""
    rng, lines = random.Random(seed), []
    for index in range(rows):
        text = [f"word{rng.randrange(20)}" for _ in range(295)] + [
            ("good" if index % 2 else "bad") for _ in range(5)
        ]
        lines.append(" ".join(text) + f",{'yes' if index % 2 else 'no'}\n")
    Path(name).write_text("text,label\n" + "".join(lines))


def test_what_stands_at_the_end_of_a_long_text_is_learnt(cli: Any) -> None:
    write_long_texts("t.csv", 200, 0)
    write_long_texts("v.csv", 40, 1)
    head = bertlab.run(RUN)
    assert head.metrics["validation/accuracy"] < 0.75, "nothing in what is read decides"
    run = bertlab.run([*RUN, "objective.truncation=windows", "objective.stride=62"])
    assert run.metrics["validation/accuracy"] == 1.0
    assert (
        run.summary["text"]["train"]["windows_per_text"] == 5
        and run.summary["text"]["train"]["truncated_share"] == 0
    )
    texts = [line.rpartition(",")[0] for line in Path("v.csv").read_text().splitlines()[1:]]
    assert [one["label"] for one in run.predict(texts)] == ["no", "yes"] * 20
    status, out, errors = cli(
        "evaluate", f"run={run.folder}", "file=v.csv", "format=json", "compute.threads=1"
    )
    assert status == 0, errors
    scores = json.loads(out)
    assert scores["file/accuracy"] == 1.0 and np.sum(scores["file/confusion"]) == 40
    assert scores["file/loss"] == pytest.approx(run.metrics["validation/loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "ready"),
    [
        (
            ["objective.stride=8"],
            "objective.stride=8: texts are not read in windows; add objective.truncation=windows",
        ),
        (
            ["objective.truncation=windows", "objective.stride=63"],
            "objective.stride=63: a window holds objective.max_length=64 less two",
        ),
    ],
)
def test_a_stride_that_would_do_nothing_or_skip_tokens_is_refused(
    options: list[str], ready: str, cli: Any
) -> None:
    write_long_texts("t.csv", 8, 0)
    status, _, errors = cli("train", *RUN, *options)
    assert status == 2 and ready in errors and errors.count("\n") == 1, errors
