"""What the data promise: the same rows from every kind of file, splits that are fair and repeatable, identity by content alone."""

import csv
import io
import json
import os
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertlab.config.composition import compose_schema
from bertlab.config.schema import Paths
from bertlab.data import dataset
from bertlab.data import table as module
from bertlab.data.dataset import LoadedDataset, fingerprint, stratified_sample
from bertlab.data.reading import clean_html, clean_tweet
from bertlab.data.table import Table, read_rows
from bertlab.errors import DataError

PATHS = Paths()
LABELLED = ("text", "label")


def load_dataset(config: Any, paths: Paths, needed: tuple[str, ...] = LABELLED) -> LoadedDataset:
    return dataset.load_dataset(config, paths, needed)


# What CSV can hold and careless readers change: quotes, separators, line ends, words that look like nothing, other scripts.
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
NAMES = ["negative", "positive"]
IDS = [index % 2 for index in range(len(TEXTS))]


def load(**options: Any) -> LoadedDataset:
    return load_dataset(Table(name="own", **options), PATHS)


def rows(loaded: LoadedDataset, split: str = "train") -> dict[str, list[Any]]:
    return {name: list(loaded.splits[split][name]) for name in loaded.splits[split].column_names}


def delimited(columns: dict[str, list[Any]], separator: str, line_end: str = "\n") -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator=line_end)
    writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
    return stream.getvalue().encode()


def as_jsonl(columns: dict[str, list[Any]]) -> bytes:
    lines = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def as_parquet(columns: dict[str, list[Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


WRITERS: dict[str, Callable[[dict[str, list[Any]]], bytes]] = {
    "rows.csv": lambda columns: delimited(columns, ","),
    "rows.tsv": lambda columns: delimited(columns, "\t"),
    "excel.csv": lambda columns: b"\xef\xbb\xbf" + delimited(columns, ",", "\r\n"),  # a byte-order mark and Windows line ends
    "rows.jsonl": as_jsonl,
    "rows.parquet": as_parquet,
}
LABELS: dict[str, list[Any]] = {
    "ids": IDS, "ids_as_words": [str(index) for index in IDS], "ids_as_floats": [float(index) for index in IDS],
    "names": [NAMES[index] for index in IDS],
}  # fmt: skip


# --- files --------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("file", WRITERS)
def test_every_kind_of_file_and_label_loads_to_the_same_rows(file: str, labels: list[Any]) -> None:
    Path(file).write_bytes(WRITERS[file]({"text": TEXTS, "label": labels}))
    loaded = load(train_file=file, validation_file=file, label_names=NAMES)
    assert loaded.label_names == NAMES
    assert rows(loaded) == rows(loaded, "validation") == {"text": TEXTS, "label": IDS}


@pytest.mark.parametrize("file", WRITERS)
def test_texts_that_are_numbers_stay_as_they_are_written(file: str) -> None:
    texts = ["007", "1.50", "1e3", "-0", "12"]
    Path(file).write_bytes(WRITERS[file]({"text": texts, "label": [0, 1, 0, 1, 0]}))
    assert rows(load(train_file=file, validation_file=file))["text"] == texts


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([10, 2, 10, 2], ["2", "10"]), (["b", "a", "b", "a"], ["a", "b"]), ([-3, 4, 4, -3], ["-3", "4"]),
        (["2", "x", "10", "x"], ["2", "10", "x"]), ([0.0, 1.0, 1.0, 0.0], ["0", "1"]), ([True, False, True, False], ["False", "True"]),
    ],
)  # fmt: skip
def test_class_names_are_the_distinct_labels_in_order(values: list[Any], names: list[str]) -> None:
    Path("t.jsonl").write_bytes(as_jsonl({"text": ["a", "b", "c", "d"], "label": values}))
    loaded = load(train_file="t.jsonl", validation_file="t.jsonl")
    assert loaded.label_names == names
    assert [names[label] for label in rows(loaded)["label"]] == [str(int(v)) if isinstance(v, float) else str(v) for v in values]


def test_numeric_class_names_mean_themselves_and_not_places() -> None:
    Path("t.csv").write_text("text,label\na,1\nb,0\n")
    loaded = load(train_file="t.csv", validation_file="t.csv", label_names=["1", "0"])
    assert [loaded.label_names[label] for label in rows(loaded)["label"]] == ["1", "0"]


def test_class_names_come_from_the_metadata_of_a_parquet_file() -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["zoo", "ape"])})
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features).to_parquet("t.parquet")
    loaded = load(train_file="t.parquet", validation_file="t.parquet")
    assert loaded.label_names == ["zoo", "ape"]
    assert rows(loaded)["label"] == [1, 0]


def test_a_label_map_renames_labels_and_drops_the_others_where_told() -> None:
    Path("t.csv").write_text("text,stars\na,1\nb,3\nc,5\nd,1\n")
    options = {"train_file": "t.csv", "validation_file": "t.csv", "label_column": "stars", "label_map": {"5": "good", "1": "bad"}}
    with pytest.raises(DataError, match=r"'3' .*row 2"):
        load(**options)
    loaded = load(**options, drop_unmapped_labels=True, label_names=["bad", "good"])
    assert loaded.label_names == ["bad", "good"]
    assert rows(loaded) == {"text": ["a", "c", "d"], "label": [0, 1, 0]}


def test_a_label_map_joins_classes() -> None:
    Path("t.csv").write_text("text,label\na,1\nb,2\nc,3\n")
    loaded = load(train_file="t.csv", validation_file="t.csv", label_map={"1": "low", "2": "low", "3": "high"})
    assert loaded.label_names == ["low", "high"]
    assert rows(loaded)["label"] == [0, 0, 1]


def test_a_label_map_may_be_written_with_numbers() -> None:
    config = compose_schema("train", ["dataset=files", "dataset.train_file=t.csv", "dataset.label_map={1: bad, 5: good}"])
    assert config.dataset.label_map == {"1": "bad", "5": "good"}


def test_a_second_text_is_loaded_and_cleaned_like_the_first() -> None:
    Path("t.csv").write_text("premise,hypothesis,label\na<br>b,c &amp; d,0\ne,f,1\n")
    options = {"train_file": "t.csv", "validation_file": "t.csv", "text_column": "premise", "text_pair_column": "hypothesis"}
    assert rows(load(**options, clean="html")) == {"text": ["a b", "e"], "text_pair": ["c & d", "f"], "label": [0, 1]}


@pytest.mark.parametrize("label", ["-1", ""])
def test_a_test_split_without_labels_is_left_out(label: str) -> None:
    Path("t.csv").write_text("text,label\n" + "a,0\nb,1\n" * 10)
    Path("unlabelled.csv").write_text(f"text,label\nc,{label}\nd,{label}\n")
    assert set(load(train_file="t.csv", test_file="unlabelled.csv").splits) == {"train", "validation"}


def test_files_to_predict_on_need_no_labels() -> None:
    Path("t.csv").write_text("text\na\n007\n")
    assert list(read_rows(Table(name="own"), Path("t.csv"), LABELLED, None)["text"]) == ["a", "007"]


def test_a_file_rewritten_within_the_clock_tick_is_read_anew() -> None:
    """`datasets` caches a file by its path and time; what we train on is its content."""
    file = Path("t.csv")
    seen = []
    for word in ("first", "other"):
        file.write_text(f"text,label\n{word},0\nb,1\n")
        os.utime(file, ns=(10**18, 10**18))
        seen.append(rows(load(train_file="t.csv", validation_file="t.csv"))["text"][0])
    assert seen == ["first", "other"]


# --- identity -------------------------------------------------------------------------------------------------------------------
def test_the_fingerprint_is_of_the_content_and_not_of_time_or_place() -> None:
    content = b"text,label\na,0\nb,1\n"
    Path("t.csv").write_bytes(content)
    config = Table(name="own", train_file="t.csv")
    before = fingerprint(config, PATHS)
    os.utime("t.csv", (1, 1))
    assert fingerprint(config, PATHS) == before
    Path("elsewhere.csv").write_bytes(content)
    assert fingerprint(replace(config, train_file="elsewhere.csv"), PATHS) == before
    Path("t.csv").write_bytes(content.replace(b"a,0", b"A,0"))
    assert fingerprint(config, PATHS) != before


def test_the_fingerprint_tells_splits_apart() -> None:
    Path("a.csv").write_text("text,label\na,0\nb,1\n")
    Path("b.csv").write_text("text,label\nc,0\nd,1\n")
    named = [{"test_file": "b.csv"}, {"validation_file": "b.csv"}, {"train_file": "b.csv", "test_file": "a.csv"}, {}]
    prints = [fingerprint(Table(**{"name": "own", "train_file": "a.csv", **files}), PATHS) for files in named]
    assert len(set(prints)) == 4


# --- hold-out -------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def numbered() -> dict[str, Any]:
    """3,000 rows, a quarter positive, each text its own row number."""
    Path("t.jsonl").write_bytes(
        as_jsonl({"text": [f"row {index}" for index in range(3000)], "label": [int(index % 4 == 0) for index in range(3000)]})
    )
    return {"train_file": "t.jsonl"}


def test_held_out_splits_are_disjoint_complete_and_of_the_wished_size(numbered: dict[str, Any]) -> None:
    loaded = load(**numbered, validation_fraction=0.2, test_fraction=0.1)
    parts = {split: rows(loaded, split) for split in ("train", "validation", "test")}
    texts = [text for part in parts.values() for text in part["text"]]
    assert sorted(texts) == sorted(f"row {index}" for index in range(3000))
    for split, share in (("validation", 0.2), ("test", 0.1)):
        deviation = (3000 * share * (1 - share)) ** 0.5
        assert abs(len(parts[split]["text"]) - 3000 * share) < 4 * deviation
        assert sum(parts[split]["label"]) / len(parts[split]["label"]) == pytest.approx(0.25, abs=4 * (0.1875 / (3000 * share)) ** 0.5)


def test_what_is_held_out_from_a_classifier_is_held_out_from_its_pretraining(numbered: dict[str, Any]) -> None:
    config = Table(name="own", **numbered, validation_fraction=0.2)
    labelled, plain = (load_dataset(config, PATHS, needed) for needed in (LABELLED, ("text",)))
    assert rows(labelled, "validation")["text"] == rows(plain, "validation")["text"]


def test_copies_of_a_text_are_held_out_together_and_every_class_is_held_out() -> None:
    texts = ["It is n't bad .", "it isn't bad.", "IT ISN'T BAD", *(f"other {index}" for index in range(30))]
    Path("c.jsonl").write_bytes(as_jsonl({"text": texts, "label": [0, 0, 0, *(int(index > 0) for index in range(30))]}))
    for seed in range(20):
        loaded = load(train_file="c.jsonl", validation_fraction=0.1, split_seed=seed)
        held = rows(loaded, "validation")
        assert sum(text in texts[:3] for text in held["text"]) in (0, 3)
        assert set(held["label"]) == {0, 1}


def test_held_out_splits_depend_on_their_seed_alone(numbered: dict[str, Any]) -> None:
    held = [
        rows(load(**numbered, split_seed=seed, fraction=fraction), "validation")["text"]
        for seed, fraction in ((1, 1.0), (1, 0.3), (2, 1.0))
    ]
    assert held[0] == held[1] != held[2]


def test_a_fraction_of_train_is_stratified_and_leaves_the_other_splits_alone(numbered: dict[str, Any]) -> None:
    whole, part = (load(**numbered, fraction=fraction) for fraction in (1.0, 0.2))
    assert rows(whole, "validation") == rows(part, "validation")
    assert set(rows(part)["text"]) < set(rows(whole)["text"])
    whole_counts, part_counts = Counter(rows(whole)["label"]), Counter(rows(part)["label"])
    assert part_counts == {label: round(count / 5) for label, count in whole_counts.items()}


def test_a_given_validation_split_is_kept_whole(numbered: dict[str, Any]) -> None:
    Path("v.csv").write_text("text,label\nx,0\ny,1\nz,1\n")
    loaded = load(**numbered, validation_file="v.csv", fraction=0.5)
    assert rows(loaded, "validation")["text"] == ["x", "y", "z"]
    assert len(loaded.splits["train"]) == 1500


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=200).map(np.array), share=st.floats(0.01, 1.0), seed=st.integers(0, 2**31),
    purpose=st.sampled_from(["validation", "test", "fraction"]),
)  # fmt: skip
def test_a_stratified_sample_keeps_every_class_share(labels: np.ndarray, share: float, seed: int, purpose: str) -> None:
    chosen = stratified_sample(labels, share, seed, purpose)
    assert (np.diff(chosen) > 0).all()  # sorted, no row twice
    for label in np.unique(labels):
        of_class, taken = (labels == label).sum(), (labels[chosen] == label).sum()
        assert 1 <= taken <= of_class
        assert abs(taken - share * of_class) <= max(0.5, 1 - share * of_class)
    assert (stratified_sample(labels, share, seed, purpose) == chosen).all()


@given(share=st.floats(0.1, 0.9), seed=st.integers(0, 1000))
def test_samples_of_two_purposes_or_seeds_differ(share: float, seed: int) -> None:
    labels = np.arange(400) % 2
    samples = [
        stratified_sample(labels, share, *key).tolist() for key in ((seed, "validation"), (seed, "fraction"), (seed + 1, "validation"))
    ]
    assert samples[0] != samples[1] and samples[0] != samples[2]


# --- cleaning -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a<br /><br />b", "a b"), ("<b>bold</b> &amp; &quot;quoted&quot;", 'bold & "quoted"'), ("3 < 4 and 5 > 4", "3 < 4 and 5 > 4"),
        ("caf&eacute;\n\n  au\tlait ", "café au lait"), ("&lt;b&gt;", "<b>"), ("", ""),
    ],
)  # fmt: skip
def test_html_becomes_text(raw: str, cleaned: str) -> None:
    assert clean_html(raw) == cleaned


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("@switchfoot http://twitpic.com/2y1zl - Awww, that's a bummer.", "@user http - Awww, that's a bummer."),
        ("see www.example.com/a?b=c now", "see http now"), ("&amp;quot;hi&amp;quot; &lt;3", '"hi" <3'),
        ("RT @a_1: @b!", "RT @user: @user!"),
        ("HTTPS://EXAMPLE.COM is loud", "http is loud"),
        ("  too   many\nspaces ", "too many spaces"), ("me@example.com", "me@example.com"),
    ],
)  # fmt: skip
def test_tweets_lose_links_names_and_entities(raw: str, cleaned: str) -> None:
    assert clean_tweet(raw) == cleaned


@given(st.text())
def test_cleaning_twice_changes_nothing_more_in_plain_text(text: str) -> None:
    plain = text.replace("&", "").replace("<", "")
    for clean in (clean_html, clean_tweet):
        assert clean(clean(plain)) == clean(plain)


def test_sentiment140_is_read_as_it_was_published() -> None:
    """Six quoted columns, no header, Latin-1, polarity 0 and 4, entities and @names in the text."""
    line = '"{}","{}","Mon Apr 06 22:19:45 PDT 2009","NO_QUERY","someone","{}"\n'
    texts = ["@friend I&quot;m s\xf6 sad http://bit.ly/x", "g\xfct, really"]
    Path("t.csv").write_bytes("".join(line.format(4 * (index % 2), index, texts[index % 2]) for index in range(40)).encode("latin-1"))
    config = compose_schema("train", ["dataset=sentiment140", "dataset.train_file=t.csv"]).dataset
    loaded = load_dataset(config, PATHS)
    assert loaded.label_names == NAMES
    assert {split: len(loaded.splits[split]) for split in loaded.splits} == {"train": 32, "validation": 8}
    assert set(zip(*rows(loaded).values(), strict=True)) == {('@user I"m sö sad http', 0), ("güt, really", 1)}


# --- the real ones ----------------------------------------------------------------------------------------------------------------
def preset(name: str, *overrides: str) -> Table:
    config: Table = compose_schema("train", [f"dataset={name}", *overrides]).dataset
    return config


REAL = {
    "sst2": {"train": {0: 29780, 1: 37569}, "validation": {0: 428, 1: 444}},
    "rotten_tomatoes": {"train": {0: 4265, 1: 4265}, "validation": {0: 533, 1: 533}, "test": {0: 533, 1: 533}},
    "imdb": {"train": {0: 11227, 1: 11262}, "validation": {0: 1273, 1: 1238}, "test": {0: 12500, 1: 12500}},
    "rte": {"train": {0: 1249, 1: 1241}, "validation": {0: 146, 1: 131}},
    "sentiment140": {"train": {0: 7978, 1: 7977}, "validation": {0: 2021, 1: 2024}},
    "sentiment140_random": {"train": {0: 9999, 1: 10001}, "validation": {0: 4674, 1: 4674}, "test": {0: 177, 1: 182}},
}


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach another machine fails the test."""

    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"a connection was tried: {arguments}")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(module, "load_from_hub", refuse)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.mark.parametrize("name", REAL)
def test_real_datasets_come_whole_from_the_mirror(name: str, shared_data: Path) -> None:
    loaded = load_dataset(preset(name), Paths(mirror=str(shared_data)))
    assert {split: Counter(loaded.splits[split]["label"]) for split in loaded.splits} == REAL[name]
    assert loaded.label_names == (["entailment", "not_entailment"] if name == "rte" else NAMES)
    texts = loaded.splits["train"]["text"][:]
    assert all(isinstance(text, str) for text in texts) and "<br />" not in "".join(texts[:2000])
    assert ("text_pair" in loaded.splits["train"].column_names) == (name == "rte")


@pytest.mark.usefixtures("no_connection")
def test_a_mirrored_dataset_is_loaded_without_a_connection(shared_data: Path) -> None:
    assert len(load_dataset(preset("rte"), Paths(mirror=str(shared_data))).splits["train"]) == 2490


@pytest.mark.usefixtures("no_connection")
def test_files_of_ones_own_are_loaded_without_a_connection() -> None:
    Path("t.csv").write_text("text,label\n" + "a,0\nb,1\n" * 10)
    assert len(load(train_file="t.csv").splits["train"]) == 18


def test_the_mirror_is_found_by_the_environment(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTLAB_DATA", str(shared_data))
    assert fingerprint(preset("rte"), PATHS) == fingerprint(preset("rte"), Paths(mirror=str(shared_data)))
    assert len(load_dataset(preset("rte"), PATHS).splits["train"]) == 2490
