"""What quietly ruins a result is told before training, and that nothing was learnt after it."""

from typing import Any

import pytest
from datasets import Dataset

from bertlab.data import row_checks
from bertlab.data.row_checks import count_rows, row_lines
from bertlab.declarations import TEXT, Metric, Role
from bertlab.runs.outcome import learnt_nothing

ROLES = (TEXT, Role("label", "label", is_answer=True))


def told(
    train: list[tuple[str, int]], validation: list[tuple[str, int]], held_out: tuple[str, ...] = ()
) -> str:
    splits = {
        split: Dataset.from_dict({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
        for split, rows in (("train", train), ("validation", validation))
    }
    return "\n".join(row_lines(count_rows(splits, ROLES, ["no", "yes"]), held_out))


CLEAN = [(f"text {place}", place % 2) for place in range(20)]


def test_clean_rows_take_one_line() -> None:
    lines = told(CLEAN, [("other", 1), ("another", 0)], ("validation",))
    assert lines == "rows: 20 train, 2 validation (held out by text, 9.1%); commonest class no 50.0%"


@pytest.mark.parametrize(("train", "validation", "line"), [
    ([*CLEAN, ("Text 0!", 1)], [("x", 0), ("y", 1)],
    "train: 1 copies of earlier rows; 2 rows whose copies have other answers"),
    ([*CLEAN, ("Text 0!", 1)], [("x", 0), ("y", 1)],
    "  one text, other answers: row 1 of train: no, row 21: yes"),
    ([*CLEAN, ("", 1), (" ", 0), ("", 1)], [("x", 0), ("", 1)], "train: 3 empty texts"),
    (CLEAN, [("TEXT 3", 1), ("y", 0)], "validation: 1 (50.0%) stand in train too"),
    (CLEAN, [("x", 1), ("y", 1)], "validation: every row is yes"),
    ([(f"{place}", int(place < 2)) for place in range(20)], [("x", 1), ("y", 0)],
    "90.0% of the training rows are no"),
])  # fmt: skip
def test_what_ruins_a_result_is_told(
    train: list[tuple[str, int]], validation: list[tuple[str, int]], line: str
) -> None:
    assert line in told(train, validation)


def test_empty_texts_are_neither_copies_nor_contradictions() -> None:
    lines = told([*CLEAN, ("", 1), (" ", 0), ("", 1)], [("x", 0), ("", 1), ("y", 0)])
    assert "copies" not in lines and "other answers" not in lines and "in train" not in lines


def test_contradictions_are_listed_up_to_a_few_and_counted() -> None:
    twice = [*CLEAN, *((text, 1 - label) for text, label in CLEAN[:5])]
    lines = told([*twice, *CLEAN[:1] * 3], [("x", 0), ("y", 1)]).splitlines()
    assert "train: 8 copies of earlier rows; 13 rows whose copies have other answers" in lines[1]
    assert lines[2].endswith("row 1 of train: no, row 21: yes, row 26: no, 2 more")
    assert lines[5].startswith("  2 such texts more: `bertlab inspect") and "inspect.out=" in lines[5]
    stock = [("as stated above", int(place == 400)) for place in range(500)]
    lines = told(stock, [("x", 0), ("y", 1)]).splitlines()
    assert "  one text, other answers: row 1 of train: no, row 401: yes, row 2: no, 497 more" in lines


def test_classes_of_few_rows_are_told_of_before_training() -> None:
    few = [("first spam", 2), ("second spam", 2)]
    splits = {
        split: Dataset.from_dict({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
        for split, rows in (("train", CLEAN * 2 + few), ("validation", [("x", 0), ("third spam", 2)]))
    }
    found = count_rows(splits, ROLES, ["no", "yes", "spam"])
    (line,) = [line for line in row_lines(found, ()) if "fewer than" in line]
    assert "classes of fewer than 10 training rows: spam 2 (1 held out): hardly to be learnt" in line


def test_numbers_are_told_by_their_range() -> None:
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "number": [1.0, 2.0, 6.0]})
    roles = (TEXT, Role("number", "number", is_answer=True))
    (line,) = row_lines(count_rows({"train": rows}, roles, []), ())
    assert line == "rows: 3 train; numbers from 1 to 6, mean 3, sd 2.16"


def test_what_is_too_much_to_compare_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = [*CLEAN, ("Text 0!", 1)], [("text 3", 0), ("y", 1)]
    monkeypatch.setattr(row_checks, "MOST_CHARACTERS", 10)
    lines = told(train, validation).splitlines()
    assert (
        "more than 10 characters are not compared before a run" in lines[1] and "bertlab inspect" in lines[1]
    )
    assert len(lines) == 2


def summary(
    reached: float, blind: float, rows: int, higher: bool = True, unit: str = "fraction"
) -> dict[str, Any]:
    metric = Metric("score", higher_is_better=higher, unit=unit, bounds=(None, None))
    return {
        "selected_by": "validation/score", "metrics": {"validation/score": reached},
        "metric_specs": {"validation/score": metric.record()},
        "blind": {"validation": {"score": blind}}, "rows": {"train": {"rows": 9, "commonest": "yes"},
        "validation": {"rows": rows}},
    }  # fmt: skip


def test_a_run_that_learnt_nothing_says_so() -> None:
    assert "always saying yes scores 0.5000 on validation too" in learnt_nothing(summary(0.5, 0.5, 1000))[0]
    assert "within the noise of 100 rows" in learnt_nothing(summary(0.55, 0.5, 100))[0]
    assert learnt_nothing(summary(0.55, 0.5, 10_000)) == learnt_nothing(summary(0.9, 0.5, 100)) == []
    assert learnt_nothing(summary(1.1, 1.0, 10, higher=False, unit="nats")) and not learnt_nothing(
        summary(0.9, 1.0, 10, False, "nats")
    )
    assert learnt_nothing({**summary(0.5, 0.5, 9), "blind": {}}) == [], "nothing is said where nobody knows"
