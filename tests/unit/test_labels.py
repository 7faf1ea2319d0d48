"""Labels: names and ids from the data or the config, one spelling of each, a clear line where
there are none.
"""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from tables import WRITERS, as_jsonl, both, delimited, load, rows

from bertlab.config.composition import compose_schema
from bertlab.data.dataset import load_dataset, roles_for
from bertlab.errors import DataError


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([10, 2, 10, 2], ["2", "10"]), (["b", "a", "b", "a"], ["a", "b"]), ([-3, 4, 4, -3], ["-3", "4"]),
        (["2", "x", "10", "x"], ["2", "10", "x"]), ([0.0, 1.0, 1.0, 0.0], ["0", "1"]), ([True, False, True,
        False], ["false", "true"]),
    ],
)  # fmt: skip
def test_class_names_are_the_distinct_labels_in_order(values: list[Any], names: list[str]) -> None:
    Path("t.jsonl").write_bytes(as_jsonl({"text": ["a", "b", "c", "d"], "label": values}))
    loaded = both("t.jsonl")
    assert loaded.label_names == names
    assert [names[label] for label in rows(loaded)["label"]] == [
        str(int(v)) if isinstance(v, float) else str(v).lower() for v in values
    ]


def test_numeric_class_names_mean_themselves_and_not_places() -> None:
    Path("t.csv").write_text("text,label\na,1\nb,0\n")
    loaded = both("t.csv", label_names=["1", "0"])
    assert [loaded.label_names[label] for label in rows(loaded)["label"]] == ["1", "0"]


def test_class_names_come_from_the_metadata_of_a_parquet_file() -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["zoo", "ape"])}
    )
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features).to_parquet(
        "t.parquet"
    )
    loaded = both("t.parquet")
    assert loaded.label_names == ["zoo", "ape"]
    assert rows(loaded)["label"] == [1, 0]


def test_a_label_map_renames_labels_and_drops_the_others_where_told() -> None:
    Path("t.csv").write_text("text,stars\na,1\nb,3\nc,5\nd,1\n")
    options = {
        "train_file": "t.csv",
        "validation_file": "t.csv",
        "label_column": "stars",
        "label_map": {"5": "good", "1": "bad"},
    }
    with pytest.raises(DataError, match=r"'3' .*row 2"):
        load(**options)
    loaded = load(**options, drop_unmapped_labels=True, label_names=["bad", "good"])
    assert loaded.label_names == ["bad", "good"]
    assert rows(loaded) == {"text": ["a", "c", "d"], "label": [0, 1, 0]}


def test_a_label_map_joins_classes() -> None:
    Path("t.csv").write_text("text,label\na,1\nb,2\nc,3\n")
    loaded = both("t.csv", label_map={"1": "low", "2": "low", "3": "high"})
    assert loaded.label_names == ["low", "high"]
    assert rows(loaded)["label"] == [0, 0, 1]


def test_a_label_map_may_be_written_with_numbers() -> None:
    config = compose_schema(
        "train", ["dataset=files", "dataset.train_file=t.csv", "dataset.label_map={1: bad, 5: good}"]
    )
    assert config.dataset.label_map == {"1": "bad", "5": "good"}


@pytest.mark.parametrize("label", ["-1", ""])
def test_a_test_split_without_labels_is_left_out(label: str) -> None:
    Path("t.csv").write_text("text,label\n" + "a,0\nb,1\n" * 10)
    Path("unlabelled.csv").write_text(f"text,label\nc,{label}\nd,{label}\n")
    assert set(load(train_file="t.csv", test_file="unlabelled.csv").splits) == {"train", "validation"}


# --- one spelling of each -------------------------------------------------------------------------
def test_json_true_is_csv_true() -> None:
    """In any of the spellings that programs write."""
    Path("t.jsonl").write_bytes(as_jsonl({"text": ["a", "b"], "label": [True, False]}))
    for written in (["true", "false"], ["True", "False"]):
        Path("t.csv").write_bytes(delimited({"text": ["a", "b"], "label": written}))
        loaded = load(train_file="t.csv", validation_file="t.jsonl")
        assert loaded.label_names == ["false", "true"]
        assert rows(loaded) == rows(loaded, "validation") == {"text": ["a", "b"], "label": [1, 0]}


@pytest.mark.parametrize("file", WRITERS)
def test_letters_are_the_same_however_they_are_composed(file: str) -> None:
    composed, apart = (unicodedata.normalize(form, "négatif") for form in ("NFC", "NFD"))
    assert composed != apart
    Path(file).write_bytes(WRITERS[file]({"text": ["a", "b", "c"], "label": [composed, "positif", apart]}))
    loaded = both(file)
    assert loaded.label_names == [composed, "positif"] and rows(loaded)["label"] == [0, 1, 0]
    assert rows(both(file, label_names=[apart, "positif"]))["label"] == [0, 1, 0]


# --- no classes -----------------------------------------------------------------------------------
@pytest.mark.parametrize("file", WRITERS)
def test_numbers_with_fractions_are_no_classes(file: str) -> None:
    Path(file).write_bytes(WRITERS[file]({"text": ["a", "b", "c"], "label": [1.0, 3.8, 2.25]}))
    with pytest.raises(DataError, match=r"3\.8 in row 2.*dataset\.number_column=label") as error:
        both(file)
    assert "\n" not in str(error.value)
    assert rows(both(file, label_names=["1", "2.25", "3.8"]))["label"] == [0, 2, 1], (
        "unless somebody says that they are"
    )


@pytest.mark.parametrize(
    ("labels", "option"),
    [
        (
            ["joy", "anger", "joy|anger", "joy", "anger"],
            "dataset.labels_column=label dataset.label_column=null reads",
        ),
        (["a;b", "b;c", "c;a", "a;b", "c;a"], "dataset.label_column=null dataset.labels_separator=';' reads"),
    ],
)
@pytest.mark.parametrize("file", WRITERS)
def test_labels_that_read_as_several_classes_are_asked_about(
    file: str, labels: list[str], option: str
) -> None:
    Path(file).write_bytes(WRITERS[file]({"text": list("vwxyz"), "label": labels}))
    with pytest.raises(DataError, match=r"reads as several classes: objective=multi_label") as error:
        both(file)
    first = next(label for label in labels if "|" in label or ";" in label)
    assert (
        f"'{first}' in" in str(error.value)
        and f"(row {labels.index(first) + 1})" in str(error.value)
        and option in str(error.value)
    )
    assert len(rows(both(file, label_names=sorted(set(labels))))["label"]) == 5, (
        "unless somebody says that each is one class"
    )


@pytest.mark.parametrize(
    "labels", [["rock|pop", "jazz", "rock|pop", "jazz"], ["up, left", "up, right", "up, left", "up, right"]]
)
def test_a_mark_within_a_label_is_no_set_where_its_parts_are_no_classes(labels: list[str]) -> None:
    Path("t.jsonl").write_bytes(as_jsonl({"text": list("abcd"), "label": labels}))
    assert both("t.jsonl").label_names == sorted(set(labels))


def test_a_class_that_a_split_lacks_is_told(cli: Any) -> None:
    lines = [f"text {index},{'good' if index % 2 else 'bad'}\n" for index in range(60)]
    Path("t.csv").write_text("text,label\n" + "".join(lines) + "one odd text,odd\n")
    config = compose_schema("train", ["dataset=files", "dataset.train_file=t.csv"])
    loaded = load_dataset(config.dataset, config.paths, roles_for(config.dataset, config.objective))
    (note,) = loaded.notes
    assert (
        "the validation split has no row of class odd, which is learnt and never scored (1 row elsewhere)"
        in note
    )
    small = [
        "model=bert_tiny",
        "model.hidden_size=32",
        "model.num_attention_heads=2",
        "budget.steps=2",
        "compute=cpu",
        "compute.threads=1",
    ]
    for seed in range(2):  # the second finds its data in the cache
        words = ["dataset=files", "dataset.train_file=t.csv", "tokenizer.min_frequency=1", f"seed={seed}"]
        status, out, errors = cli("train", *small, *words)
        assert status == 0 and out.count(note) == 1, out + errors
    assert all(
        json.loads(file.read_text())["notes"] == [note] for file in Path("multirun").rglob("summary.json")
    )


@pytest.mark.parametrize("missing", ["", "-1"])
def test_rows_without_a_label_are_told_or_left_out(missing: str) -> None:
    Path("t.csv").write_bytes(
        delimited({"text": ["a", "b", "c", "d"], "label": ["yes", missing, "no", missing]})
    )
    with pytest.raises(
        DataError, match=r"2 rows have no label.* the first is row 2: .*dataset\.drop_unlabelled=true"
    ) as error:
        both("t.csv")
    assert "\n" not in str(error.value)
    loaded = both("t.csv", drop_unlabelled=True)
    assert loaded.label_names == ["no", "yes"] and rows(loaded) == {"text": ["a", "c"], "label": [1, 0]}
    assert any("4 rows, 2 without an answer left out" in note for note in loaded.notes)
    assert loaded.left_out["t.csv"] == {"read": 4, "without an answer": 2}


def test_a_null_is_no_label() -> None:
    Path("t.jsonl").write_bytes(as_jsonl({"text": ["a", "b", "c"], "label": ["yes", None, "no"]}))
    with pytest.raises(DataError, match=r"1 row has no label .*dataset\.drop_unlabelled=true"):
        both("t.jsonl")
    assert rows(both("t.jsonl", drop_unlabelled=True))["text"] == ["a", "c"]


@pytest.mark.parametrize("empty", [0, 1])
def test_a_split_without_any_label_is_refused_where_it_is_needed(empty: int) -> None:
    Path("full.csv").write_text("text,label\na,0\nb,1\n")
    Path("empty.csv").write_text("text,label\na,\nb,\n")
    names = ["empty.csv", "full.csv"] if empty == 0 else ["full.csv", "empty.csv"]
    with pytest.raises(DataError, match=r"empty\.csv"):
        load(train_file=names[0], validation_file=names[1])
