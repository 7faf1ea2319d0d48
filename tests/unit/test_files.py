"""Files of one's own: the same rows from every kind of file, encoding and compression; quote signs as they
were meant.
"""

import bz2
import csv
import gzip
import os
import re
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from tables import NAMES, NUMBER, WRITERS, as_jsonl, both, delimited, rows

from bertlab.data.tables.table import TableDataset, read_rows
from bertlab.declarations import TEXT, Role
from bertlab.errors import DataError
from bertlab.runs.files import write_csv

# What CSV can hold and careless readers change: quotes, separators, line ends, words that look like nothing,
# other scripts.
TEXTS = [
    'plain "quoted" text',
    "a, b\tc; d",
    "two\nlines",
    "NA",
    "null",
    "été Straße 日本語 🙂",
    " spaces ",
    "12",
    "007",
    "1.50",
    "True",
    "nan",
]
IDS = [index % 2 for index in range(len(TEXTS))]
LABELS: dict[str, list[Any]] = {
    "ids": IDS, "ids_as_words": [str(index) for index in IDS],
    "ids_as_floats": [float(index) for index in IDS],
    "names": [NAMES[index] for index in IDS],
}  # fmt: skip
TABLE = {"text": TEXTS, "label": [NAMES[index] for index in IDS]}
TOKENS, TAGS = Role("tokens", "words"), Role("tags", "tags", is_answer=True, about="tokens")


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("file", WRITERS)
def test_every_kind_of_file_and_label_loads_to_the_same_rows(file: str, labels: list[Any]) -> None:
    Path(file).write_bytes(WRITERS[file]({"text": TEXTS, "label": labels}))
    loaded = both(file, label_names=NAMES)
    assert loaded.label_names == NAMES
    assert rows(loaded) == rows(loaded, "validation") == {"text": TEXTS, "label": IDS}


@pytest.mark.parametrize("file", WRITERS)
def test_texts_that_are_numbers_stay_as_they_are_written(file: str) -> None:
    texts = ["007", "1.50", "1e3", "-0", "12"]
    Path(file).write_bytes(WRITERS[file]({"text": texts, "label": [0, 1, 0, 1, 0]}))
    assert rows(both(file))["text"] == texts


def test_a_second_text_is_loaded_and_cleaned_like_the_first() -> None:
    Path("t.csv").write_text("premise,hypothesis,label\na<br>b,c &amp; d,0\ne,f,1\n")
    loaded = both("t.csv", text_column="premise", text_pair_column="hypothesis", clean="html")
    assert rows(loaded) == {"text": ["a b", "e"], "text_pair": ["c & d", "f"], "label": [0, 1]}


def test_files_to_predict_on_need_no_labels() -> None:
    Path("t.csv").write_text("text\na\n007\n")
    assert list(read_rows(TableDataset(name="own"), Path("t.csv"), (TEXT,), [])[0]["text"]) == ["a", "007"]


def test_a_file_rewritten_within_the_clock_tick_is_read_anew() -> None:
    """`datasets` caches a file by its path and time; what we train on is its content."""
    file = Path("t.csv")
    seen = []
    for word in ("first", "other"):
        file.write_text(f"text,label\n{word},0\nb,1\n")
        os.utime(file, ns=(10**18, 10**18))
        seen.append(rows(both("t.csv"))["text"][0])
    assert seen == ["first", "other"]


# --- encodings and compressions -------------------------------------------------------------------
@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("name", "separator"), [("t.csv", ","), ("t.tsv", "\t"), ("t.jsonl", "")])
def test_a_byte_order_mark_of_utf_16_says_the_encoding(name: str, separator: str, order: str) -> None:
    """As Excel writes `Unicode text`."""
    content = (delimited(TABLE, separator, "\r\n") if separator else as_jsonl(TABLE)).decode()
    Path(name).write_bytes(("\ufeff" + content).encode(order))
    assert rows(both(name)) == {"text": TEXTS, "label": IDS}


COMPRESS: dict[str, Any] = {
    ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": lambda content: pyarrow.compress(content, "zstd",
    asbytes=True),
}  # fmt: skip


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("file", ["rows.csv", "rows.tsv", "rows.jsonl"])
def test_compressed_text_files_are_read_as_they_are(file: str, ending: str) -> None:
    Path(file + ending).write_bytes(COMPRESS[ending](WRITERS[file](TABLE)))
    assert rows(both(file + ending)) == {"text": TEXTS, "label": IDS}


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_damaged_compressed_file_is_named(ending: str) -> None:
    Path("t.csv" + ending).write_bytes(COMPRESS[ending](delimited(TABLE))[:-20])
    with pytest.raises(DataError, match=rf"^t\.csv\{ending}: .*$"):
        both("t.csv" + ending)


def test_a_line_that_does_not_decode_is_named() -> None:
    Path("t.csv").write_bytes(b"text,label\nplain,0\n" + "gr\xfcn,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"t\.csv: line 3 is not utf-8 .*dataset\.encoding"):
        both("t.csv")
    assert rows(both("t.csv", encoding="latin-1"))["text"] == ["plain", "gr\xfcn"]


# --- words and tags in columns --------------------------------------------------------------------
CONLL = """-DOCSTART- -X- O

EU NNP B-ORG
rejects VBZ O

# a comment
Peter NNP B-PER
Blackburn NNP I-PER
"""


@pytest.mark.parametrize("name", ["t.conll", "t.txt", "t.conll.gz"])
@pytest.mark.parametrize(("left", "right"), [("0", "2"), ("0", "-1")])
def test_columns_of_conll_are_chosen_by_number(name: str, left: str, right: str) -> None:
    Path(name).write_bytes(gzip.compress(CONLL.encode()) if name.endswith(".gz") else CONLL.encode())
    loaded = both(name, TOKENS, TAGS, tokens_column=left, tags_column=right, label_column=None)
    assert loaded.label_names == ["O", "B-ORG", "B-PER", "I-PER"]
    assert rows(loaded) == {"tokens": [["EU", "rejects"], ["Peter", "Blackburn"]], "tags": [[1, 0], [2, 3]]}


def test_a_line_of_conll_with_another_number_of_columns_is_named() -> None:
    Path("t.conll").write_text(CONLL.replace("rejects VBZ O", "rejects O"))
    with pytest.raises(DataError, match=r"t\.conll: line 4 has 2 columns, the line before it 3"):
        both("t.conll", TOKENS, TAGS, tokens_column="0", tags_column="2", label_column=None)


def test_one_text_a_line_is_a_corpus() -> None:
    Path("t.txt").write_text('a "text"\n\nanother, with a comma\n')
    assert rows(both("t.txt", TEXT)) == {"text": ['a "text"', "another, with a comma"]}


# --- quote signs ----------------------------------------------------------------------------------
FRAMED = 'text\tlabel\n"a ""good"" film"\t1\n"bad\tfilm"\t0\nplain\t1\n'
STRAY = 'text\tlabel\n"good film\t1\nbad film\t0\nthe "end"\t1\n5" long\t0\n'
SWALLOWING = 'text\tlabel\n"one\t1\ntwo\t0\nthree"\t1\n'  # read as frames, three rows would be one that fits


def test_quote_signs_of_a_tab_separated_file_are_what_they_look_like() -> None:
    Path("framed.tsv").write_text(FRAMED)
    assert rows(both("framed.tsv"))["text"] == ['a "good" film', "bad\tfilm", "plain"]
    assert both("framed.tsv").notes == []
    Path("stray.tsv").write_text(STRAY)
    assert rows(both("stray.tsv"))["text"] == ['"good film', "bad film", 'the "end"', '5" long']
    (line,) = both("stray.tsv").notes
    assert "line 2" in line and "dataset.quoting=csv" in line
    Path("swallowing.tsv").write_text(SWALLOWING)
    assert rows(both("swallowing.tsv"))["text"] == ['"one', "two", 'three"'], "no row is lost without a word"


def test_quoting_can_be_said() -> None:
    Path("framed.tsv").write_text(FRAMED)
    with pytest.raises(DataError, match=r"framed\.tsv: line 3 has 3 fields, not 2"):
        both("framed.tsv", quoting="none")
    Path("stray.tsv").write_text(STRAY)
    with pytest.raises(DataError, match=r"stray\.tsv: .*dataset\.quoting=none"):
        both("stray.tsv", quoting="csv")
    Path("swallowing.tsv").write_text(SWALLOWING.replace("0\n", '0\n"x"\t0\n'))
    assert rows(both("swallowing.tsv", quoting="none"))["text"] == ['"one', "two", '"x"', 'three"']


def test_a_text_over_many_lines_of_a_tab_separated_file_is_told() -> None:
    Path("long.tsv").write_text('text\tlabel\n"' + "a line\n" * 30 + '"\t1\nplain\t0\n')
    assert len(rows(both("long.tsv"))["text"]) == 2
    (line,) = both("long.tsv").notes
    assert re.search(r"long\.tsv: one text goes over lines 2 to \d+; .*dataset\.quoting=none", line)


def test_commas_are_quoted_as_csv_says() -> None:
    Path("t.csv").write_text('text,label\n"a, b",0\nc,1\n')
    assert rows(both("t.csv"))["text"] == ["a, b", "c"]
    with pytest.raises(DataError, match="fields"):
        both("t.csv", quoting="none")


# --- numbers --------------------------------------------------------------------------------------
def test_numbers_are_read_in_the_files_own_unit() -> None:
    Path("t.csv").write_text("text,score\na,3.8\nb,-2\nc,1e1\n")
    assert rows(both("t.csv", TEXT, NUMBER, number_column="score", label_column=None))["number"] == [
        3.8,
        -2.0,
        10.0,
    ]
    Path("t.csv").write_text("text,score\na,3.8\nb,many\n")
    with pytest.raises(
        DataError,
        match=r"t\.csv: row 2 holds 'many', no number, in column 'score' \(dataset\.number_column\)",
    ):
        both("t.csv", TEXT, NUMBER, number_column="score", label_column=None)


def test_rows_without_a_number_are_told_or_left_out() -> None:
    Path("t.csv").write_text("text,score\na,3.8\nb,\nc,1\n")
    with pytest.raises(DataError, match=r"1 row has no number .*row 2.*dataset\.drop_unlabelled=true"):
        both("t.csv", TEXT, NUMBER, number_column="score", label_column=None)
    loaded = both("t.csv", TEXT, NUMBER, number_column="score", label_column=None, drop_unlabelled=True)
    assert rows(loaded) == {"text": ["a", "c"], "number": [3.8, 1.0]}


def test_cells_with_a_lone_carriage_return_are_read_back_as_written(tmp_path: Path) -> None:
    rows = [["text", "label"], ["one\rtwo", "a"], ["three\nfour", "b"], ['say "so"', "c,d"], ["plain", "e"]]
    file = tmp_path / "table.csv"
    with file.open("w", newline="") as stream:
        write_csv(stream, rows)
    with file.open(newline="") as stream:
        assert list(csv.reader(stream)) == rows
    assert file.read_text().endswith("plain,e\n"), "quoted only where it must be"
