"""Tables for a finished run: lists in every kind of file and from pandas, rows without a text or an answer,
and that what `predict` writes is read again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tables import LABEL, WRITERS, both, rows

from bertlab.data.tables.formats import read_whole
from bertlab.data.tables.table import TableDataset, read_rows, rows_of_columns
from bertlab.declarations import TEXT, Role
from bertlab.errors import DataError, did_you_mean
from bertlab.jobs.predict import OUTPUTS, CsvForm, as_texts

TOKENS, TAGS = Role("tokens", "words"), Role("tags", "tags", is_answer=True, about="tokens")
CHOICES, INDEX = Role("choices", "choices"), Role("label", "index", is_answer=True, about="choices")
CONTEXT, ANSWERS = Role("context", "text"), Role("answers", "spans", is_answer=True, about="context")
LABELS = Role("labels", "labels", is_answer=True)
# what each kind reads: roles, keys, two rows
KINDS: dict[str, tuple[tuple[Role, ...], dict[str, Any], dict[str, list[Any]]]] = {
    "tagging": (
        (TOKENS, TAGS),
        {"tokens_column": "words", "tags_column": "ner", "label_names": ["O", "B-PER"]},
        {"words": [["Ann", 'said "a, b"'], ["no"]], "ner": [["B-PER", "O"], ["O"]]},
    ),
    "choice": (
        (TEXT, CHOICES, INDEX),
        {"choices_column": "options"},
        {"text": ["a", "b"], "options": [["x, y", "two\nlines"], ['"q"', "z"]], "label": [0, 1]},
    ),
    "answers": (
        (CONTEXT, ANSWERS),
        {"context_column": "text", "answers_column": "ans"},
        {
            "text": ['He said "no, thanks".', "nothing"],
            "ans": [{"text": ['"no,'], "answer_start": [8]}, {"text": [], "answer_start": []}],
        },
    ),
    "set": (
        (TEXT, LABELS),
        {"labels_column": "topics", "label_column": None, "label_names": ["bill", "late, lost", "a|b"]},
        {"text": ["a", "b"], "topics": [["bill", "late, lost"], []]},
    ),
}


def table(**keys: Any) -> TableDataset:
    return TableDataset(name="own", **{"drop_unlabelled": True, **keys})


def as_json_cells(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {
        name: [json.dumps(cell) if isinstance(cell, list | dict) else cell for cell in cells]
        for name, cells in columns.items()
    }


# --- lists ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("file", WRITERS)
def test_lists_and_objects_are_read_from_every_kind_of_file(file: str, task: str) -> None:
    roles, keys, columns = KINDS[task]
    plain = columns if file.endswith((".jsonl", ".parquet")) else as_json_cells(columns)
    Path(file).write_bytes(WRITERS[file](plain))
    Path("known.jsonl").write_bytes(WRITERS["rows.jsonl"](columns))
    assert rows(both(file, *roles, **keys)) == rows(both("known.jsonl", *roles, **keys))


@pytest.mark.parametrize("task", KINDS)
def test_arrays_and_tuples_are_lists_wherever_they_stand(task: str) -> None:
    """As pandas hands on what Parquet holds."""

    def as_pandas(cell: Any) -> Any:
        if isinstance(cell, dict):
            return {name: as_pandas(one) for name, one in cell.items()}
        return np.array(cell, dtype=None if cell else object) if isinstance(cell, list) else cell

    def as_tuples(cell: Any) -> Any:
        return tuple(cell) if isinstance(cell, list) else cell

    roles, keys, columns = KINDS[task]
    names = keys.get("label_names", ())
    expected, _ = rows_of_columns(table(**keys), columns, "here", roles, names)
    for form in (as_pandas, as_tuples, lambda cell: np.int64(cell) if isinstance(cell, int) else cell):
        given = {name: [form(cell) for cell in cells] for name, cells in columns.items()}
        read, _ = rows_of_columns(table(**keys), given, "here", roles, names)
        assert read.to_dict() == expected.to_dict()


@pytest.mark.parametrize(
    ("task", "column", "cell", "said"),
    [
        ("tagging", "words", '["a", "b', "row 2 holds '[\"a\", \"b' in column 'words'"),
        ("tagging", "words", "a b", "row 2 holds no list of words in column 'words'"),
        ("tagging", "ner", "O O", "row 2 holds no list of tags in column 'ner'"),
        ("choice", "options", "a|b", "CSV and TSV hold lists as JSON"),
        ("answers", "ans", '{"text": [', "row 2 holds '{\"text\": [' in column 'ans'"),
        ("set", "topics", "[bill", "row 2 holds '[bill' in column 'topics'"),
    ],
)
def test_what_is_no_list_is_told_with_row_and_column(task: str, column: str, cell: str, said: str) -> None:
    roles, keys, columns = KINDS[task]
    written = as_json_cells(columns)
    written[column][1] = cell
    Path("t.csv").write_bytes(WRITERS["rows.csv"](written))
    with pytest.raises(DataError) as error:
        both("t.csv", *roles, **keys)
    assert said in str(error.value) and "\n" not in str(error.value)


WORD = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('",|\n[]{}\\'), min_size=1)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(WORD, min_size=2, max_size=2, unique=True), min_size=1, max_size=4),
    st.sampled_from([".csv", ".tsv"]),
)
def test_what_predict_writes_is_read_again(lists: list[list[str]], ending: str) -> None:
    """Words, choices, answers and sets of names, whatever letters they hold."""
    joined = [" ".join(words) for words in lists]
    sets = [[name for name in words if name.strip() == name] for words in lists]
    columns: dict[str, list[Any]] = {
        "text": joined, "words": lists, "ner": [["O"] * 2] * len(lists), "options": lists, "topics": sets,
        "label": [1] * len(lists),
        "ans": [{"text": [words[1]], "answer_start": [len(words[0]) + 1]} for words in lists],
    }  # fmt: skip
    for roles, keys, _ in KINDS.values():
        own = table(**keys)
        forms = as_texts(roles, own, "predicted_")
        file = Path(f"out{ending}")
        OUTPUTS[ending](columns, file, CsvForm("\t" if ending == ".tsv" else ",", as_text=forms))
        names = keys.get("label_names", ())
        if "labels_column" in keys:
            names = list(dict.fromkeys(name for own_set in sets for name in own_set)) or ["none"]
        read, found = read_rows(own, file, roles, names)
        expected, also = rows_of_columns(own, columns, "here", roles, names)
        assert read.to_dict() == expected.to_dict() and found.left_out == also.left_out


def test_sets_are_written_with_the_runs_separator() -> None:
    own = table(labels_column="topics", label_column=None, labels_separator=";")
    write = as_texts((TEXT, LABELS), own, "predicted_")
    for column in ("topics", "predicted_labels"):
        assert [write[column](names) for names in (["a", "b"], ["a;b"], [], None)] == [
            "a;b",
            '["a;b"]',
            "[]",
            None,
        ]


# --- rows without a text or an answer -------------------------------------------------------------
@pytest.mark.parametrize("file", WRITERS)
def test_rows_without_a_text_or_an_answer_are_left_out_and_counted(file: str) -> None:
    """The same in every kind of file; the rows' numbers stay those of the file."""
    texts, labels = ["a", None, "b", " ", None, "c"], ["no", "yes", "yes", "odd", None, None]
    if not file.endswith((".jsonl", ".parquet")):
        texts = [text or "" for text in texts]
    Path(file).write_bytes(WRITERS[file]({"text": texts, "label": labels}))
    for read, found in (
        read_rows(table(), Path(file), (TEXT, LABEL), ["no", "yes"]),
        rows_of_columns(table(), {"text": texts, "label": labels}, "here", (TEXT, LABEL), ["no", "yes"]),
    ):
        assert read.to_dict() == {"text": ["a", "b"], "label": [0, 1]}
        assert found.left_out == {"without a text": 3, "without an answer": 1}
        assert found.rows.tolist() == [1, 3] and found.read == 6


def test_the_number_of_a_bad_row_counts_those_that_are_left_out() -> None:
    for labels, said in ((["no", "no", "odd"], "row 3"), ([None, None, "odd"], "row 3")):
        with pytest.raises(DataError, match=said):
            rows_of_columns(
                table(), {"text": ["a", "", "b"], "label": labels}, "here", (TEXT, LABEL), ["no", "yes"]
            )


def test_lists_that_are_empty_are_no_text_and_tags_may_lack() -> None:
    roles, keys, _ = KINDS["tagging"]
    columns = {"words": [["a"], [], ["b"], None], "ner": [["O"], [], None, None]}
    read, found = rows_of_columns(table(**keys), columns, "here", roles, ["O", "B-PER"])
    assert read["tokens"][:] == [["a"]]
    assert found.left_out == {"without a text": 2, "without an answer": 1}


@pytest.mark.parametrize("roles", [(TEXT,), (TEXT, LABEL)])
def test_a_table_without_any_text_is_told_as_such(roles: tuple[Role, ...]) -> None:
    with pytest.raises(DataError, match="here: no row has a text in text"):
        rows_of_columns(table(), {"text": ["", None], "label": ["no", "yes"]}, "here", roles, ["no", "yes"])


def test_every_column_of_a_table_is_read() -> None:
    Path("t.csv").write_text("text,n\na,1\n")
    assert read_whole(table(), Path("t.csv"), lambda _: None) == {"text": ["a"], "n": ["1"]}


# --- what an error says ---------------------------------------------------------------------------
@pytest.mark.parametrize("first", ["2,0,sun blue sky", "a text,,x", "no,no,1"])
def test_a_file_without_a_header_is_told_how_to_be_read(first: str) -> None:
    Path("t.csv").write_text(f"{first}\n3,1,rain grey sky\n")
    with pytest.raises(DataError, match=r"looks like a row and no header.*\.column_names=\[…\], all 3"):
        both("t.csv")
    Path("t.csv").write_text("body,label\na,0\nb,1\n")
    with pytest.raises(DataError, match="no column 'text'"):
        both("t.csv")


def test_a_number_beyond_float32_is_named_with_its_row() -> None:
    role = Role("number", "number", is_answer=True)
    keys: dict[str, Any] = {"number_column": "n", "label_column": None}
    Path("t.csv").write_text("text,n\na,1\nb,1e300\n")
    with pytest.raises(DataError, match=r"t\.csv: row 2 holds 1e\+300 in column 'n'.*beyond float32"):
        both("t.csv", TEXT, role, **keys)


def test_what_is_cut_ends_with_a_sign() -> None:
    roles, keys, columns = KINDS["choice"]
    given = {**columns, "options": [["it is about the parcel", None, "it is about the other parcel"], ["a"]]}
    with pytest.raises(DataError, match=r"\(\['it is about the parcel', None, 'it is about the other par…\)"):
        rows_of_columns(table(**keys), given, "here", roles, ())


def test_mixed_kinds_are_told_as_a_person_would_and_only_where_they_matter() -> None:
    Path("t.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "label": "B"}\n')
    with pytest.raises(DataError, match="column 'label' mixes numbers and texts: row 2 holds a text"):
        both("t.jsonl")
    assert read_whole(table(), Path("t.jsonl"), lambda _: None)["label"] == [1, "B"]
    with pytest.raises(DataError, match=r"column 'label' holds several kinds of value.*write \.jsonl"):
        OUTPUTS[".parquet"]({"label": [1, "B"]}, Path("out.parquet"), CsvForm(","))


def test_options_are_listed_once() -> None:
    assert did_you_mean("x", ["all runs", "all runs"]) == "(options: all runs)"
