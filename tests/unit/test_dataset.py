"""What datasets promise: splits that are fair and repeatable, identity by content alone, the real ones whole
and without a network.
"""

import os
import socket
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import LABEL, NAMES, PATHS, as_jsonl, classified, load, rows

from bertlab.config.composition import compose_schema
from bertlab.config.schema import Paths
from bertlab.data.dataset import halved, load_dataset, stratified_sample
from bertlab.data.tables import table as module
from bertlab.data.tables.conversion import first_words
from bertlab.data.tables.sources import fingerprint
from bertlab.data.tables.table import TableDataset
from bertlab.declarations import TEXT, Role
from bertlab.errors import ConfigError, DataError


# --- identity -------------------------------------------------------------------------------------
def test_the_fingerprint_is_of_the_content_and_not_of_time_or_place() -> None:
    content = b"text,label\na,0\nb,1\n"
    Path("t.csv").write_bytes(content)
    config = TableDataset(name="own", train_file="t.csv")
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
    named = [
        {"test_file": "b.csv"},
        {"validation_file": "b.csv"},
        {"train_file": "b.csv", "test_file": "a.csv"},
        {},
    ]
    prints = [
        fingerprint(TableDataset(**{"name": "own", "train_file": "a.csv", **files}), PATHS) for files in named
    ]
    assert len(set(prints)) == 4


# --- where rows come from -------------------------------------------------------------------------
def test_every_row_knows_its_row_of_its_file() -> None:
    """Through what is left out, held out, drawn and halved; a header is no row."""
    lines = [f"text {row},{('yes', 'no', '', 'who')[row % 4]}" for row in range(1, 401)]
    Path("t.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    config = TableDataset(
        name="own", train_file="t.csv", label_map={"yes": "yes", "no": "no"}, drop_unlabelled=True,
        drop_unmapped_labels=True, fraction=0.5, validation_fraction=0.3, test_fraction=0.2,
    )  # fmt: skip
    loaded = classified(config)
    in_halves = halved(config, loaded, (TEXT, LABEL))
    for split, found in in_halves.splits.items():
        origin = in_halves.origins[split]
        assert [origin.said(place) for place in range(len(found))] == [
            f"row {text.removeprefix('text ')} of t.csv" for text in found["text"]
        ], split
    told = {"read": 400, "without an answer": 100, "with a label that dataset.label_map lacks": 100}
    assert loaded.left_out["t.csv"] == told
    drawn = loaded.left_out["the train split"]
    assert drawn["by dataset.fraction=0.5"] == drawn["read"] - len(loaded.splits["train"])


def test_rows_of_several_files_and_folds_keep_theirs() -> None:
    for name in ("a", "b"):
        Path(f"{name}.csv").write_text(
            "text,label\n" + "".join(f"{name} {row},{row % 2}\n" for row in range(1, 31))
        )
    own = TableDataset(name="own", train_file="a.csv", validation_file="b.csv")
    loaded = classified(replace(own, folds=3, fold=1))
    assert loaded.left_out["the validation split"] == {"read": 30, "in favour of dataset.folds": 30}
    for split, found in loaded.splits.items():
        assert [loaded.origins[split].said(place) for place in range(len(found))] == [
            "row {1} of {0}.csv".format(*text.split()) for text in found["text"]
        ], split


# --- hold-out -------------------------------------------------------------------------------------
@pytest.fixture
def numbered() -> dict[str, Any]:
    """3,000 rows, a quarter positive, each text its own row number."""
    Path("t.jsonl").write_bytes(
        as_jsonl(
            {
                "text": [f"row {index}" for index in range(3000)],
                "label": [int(index % 4 == 0) for index in range(3000)],
            }
        )
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
        assert sum(parts[split]["label"]) / len(parts[split]["label"]) == pytest.approx(
            0.25, abs=4 * (0.1875 / (3000 * share)) ** 0.5
        )


def test_what_is_held_out_from_a_classifier_is_held_out_from_its_pretraining(
    numbered: dict[str, Any],
) -> None:
    labelled, plain = (load(*roles, **numbered, validation_fraction=0.2) for roles in ((), (TEXT,)))
    assert rows(labelled, "validation")["text"] == rows(plain, "validation")["text"]


def test_copies_of_a_text_are_held_out_together_and_every_class_is_held_out() -> None:
    texts = ["It is n't bad .", "it isn't bad.", "IT ISN'T BAD", *(f"other {index}" for index in range(30))]
    Path("c.jsonl").write_bytes(
        as_jsonl({"text": texts, "label": [0, 0, 0, *(int(index > 0) for index in range(30))]})
    )
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


def test_a_fraction_of_train_is_stratified_and_leaves_the_other_splits_alone(
    numbered: dict[str, Any],
) -> None:
    whole, part = (load(**numbered, fraction=fraction) for fraction in (1.0, 0.2))
    assert rows(whole, "validation") == rows(part, "validation")
    assert set(rows(part)["text"]) < set(rows(whole)["text"])
    whole_counts, part_counts = Counter(rows(whole)["label"]), Counter(rows(part)["label"])
    assert part_counts == {label: round(count / 5) for label, count in whole_counts.items()}


@given(st.lists(st.text("ab \n\t", max_size=12), max_size=8), st.integers(0, 30))
def test_the_first_words_are_as_many_as_asked_for(texts: list[str], count: int) -> None:
    """And the same words in the same texts."""
    taken = first_words(texts, count)
    assert sum(len(text.split()) for text in taken) == min(count, sum(len(text.split()) for text in texts))
    assert (
        all(text.startswith(part) for text, part in zip(texts, taken, strict=False))
        and taken[:-1] == texts[: max(0, len(taken) - 1)]
    )


def test_a_corpus_is_cut_to_its_words_split_by_split() -> None:
    Path("a.jsonl").write_bytes(as_jsonl({"text": [f"a{row} b c" for row in range(3000)]}))
    Path("b.jsonl").write_bytes(as_jsonl({"text": [f"<br />x{row} y" for row in range(10)]}))
    options = {"label_column": None, "clean": "html", "mirror_files": {"one": "a.jsonl", "two": "b.jsonl"},
        "train_splits": ["one", "two"],
               "validation_fraction": 0.01}  # fmt: skip
    paths = Paths(mirror=".")
    config = TableDataset(name="own", **options, max_words={"one": 7000, "two": 5})
    config.check("dataset")
    found = load_dataset(config, paths, (TEXT,))
    texts = [text for split in found.splits.values() for text in split["text"]]
    assert sum(len(text.split()) for text in texts) == 7005
    assert {"a2332 b c", "a2333", "x1 y", "x2"} <= set(texts) and "a2334 b c" not in texts
    with pytest.raises(
        DataError, match=r"holds 20 words, fewer than the 21 that dataset\.max_words asks for"
    ):
        load_dataset(replace(config, max_words={"two": 21}), paths, (TEXT,))
    with pytest.raises(ConfigError, match=r"max_words\.tow: unknown split, did you mean 'two'"):
        replace(config, max_words={"tow": 1}).check("dataset")
    with pytest.raises(ConfigError, match="must be at least 1"):
        replace(config, max_words={"two": 0}).check("dataset")
    tagged = replace(config, text_column="x", tokens_column="text", tags_column="text", max_words={"one": 5})
    with pytest.raises(ConfigError, match=r"max_words counts the words of the role text, and this objective"):
        load_dataset(tagged, paths, (Role("tokens", "words"),))


def test_the_ten_million_words_are_ten_million(shared_data: Path) -> None:
    config = compose_schema("train", ["dataset=ten_million_words", "objective=mlm"]).dataset
    found = load_dataset(config, Paths(mirror=str(shared_data)), (TEXT,))
    assert (
        sum(len(text.split()) for split in found.splits.values() for text in split["text"][:]) == 10_000_000
    )


def test_a_given_validation_split_is_kept_whole(numbered: dict[str, Any]) -> None:
    Path("v.csv").write_text("text,label\nx,0\ny,1\nz,1\n")
    loaded = load(**numbered, validation_file="v.csv", fraction=0.5)
    assert rows(loaded, "validation")["text"] == ["x", "y", "z"]
    assert len(loaded.splits["train"]) == 1500


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=200).map(np.array), share=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**31),
    purpose=st.sampled_from(["validation", "test", "fraction"]),
)  # fmt: skip
def test_a_stratified_sample_keeps_every_class_share(
    labels: np.ndarray, share: float, seed: int, purpose: str
) -> None:
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
        stratified_sample(labels, share, *key).tolist()
        for key in ((seed, "validation"), (seed, "fraction"), (seed + 1, "validation"))
    ]
    assert samples[0] != samples[1] and samples[0] != samples[2]


# --- the real ones --------------------------------------------------------------------------------
def test_sentiment140_is_read_as_it_was_published() -> None:
    """Six quoted columns, no header, Latin-1, polarity 0 and 4, entities and @names in the text."""
    line = '"{}","{}","Mon Apr 06 22:19:45 PDT 2009","NO_QUERY","someone","{}"\n'
    texts = ["@friend I&quot;m s\xf6 sad http://bit.ly/x", "g\xfct, really"]
    Path("t.csv").write_bytes(
        "".join(line.format(4 * (index % 2), index, texts[index % 2]) for index in range(40)).encode(
            "latin-1"
        )
    )
    config = compose_schema("train", ["dataset=sentiment140", "dataset.train_file=t.csv"]).dataset
    loaded = classified(config)
    assert loaded.label_names == NAMES
    assert {split: len(loaded.splits[split]) for split in loaded.splits} == {"train": 32, "validation": 8}
    assert set(zip(*rows(loaded).values(), strict=True)) == {('@user I"m sö sad http', 0), ("güt, really", 1)}


def preset(name: str, *overrides: str) -> TableDataset:
    config: TableDataset = compose_schema("train", [f"dataset={name}", *overrides]).dataset
    return config


REAL = {
    "sst2": {"train": {0: 29780, 1: 37569}, "validation": {0: 428, 1: 444}},
    "rotten_tomatoes": {
        "train": {0: 4265, 1: 4265},
        "validation": {0: 533, 1: 533},
        "test": {0: 533, 1: 533},
    },
    "imdb": {"train": {0: 11227, 1: 11262}, "validation": {0: 1273, 1: 1238}, "test": {0: 12500, 1: 12500}},
    "rte": {"train": {0: 1249, 1: 1241}, "validation": {0: 146, 1: 131}},
    "sentiment140": {"train": {0: 7978, 1: 7977}, "validation": {0: 2021, 1: 2024}},
    "sentiment140_random": {
        "train": {0: 9999, 1: 10001},
        "validation": {0: 4674, 1: 4674},
        "test": {0: 177, 1: 182},
    },
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
    loaded = classified(preset(name), Paths(mirror=str(shared_data)))
    assert {split: Counter(loaded.splits[split]["label"]) for split in loaded.splits} == REAL[name]
    assert loaded.label_names == (["entailment", "not_entailment"] if name == "rte" else NAMES)
    texts = loaded.splits["train"]["text"][:]
    assert all(isinstance(text, str) for text in texts) and "<br />" not in "".join(texts[:2000])
    assert ("text_pair" in loaded.splits["train"].column_names) == (name == "rte")


@pytest.mark.usefixtures("no_connection")
def test_a_mirrored_dataset_is_loaded_without_a_connection(shared_data: Path) -> None:
    assert len(classified(preset("rte"), Paths(mirror=str(shared_data))).splits["train"]) == 2490


@pytest.mark.usefixtures("no_connection")
def test_files_of_ones_own_are_loaded_without_a_connection() -> None:
    Path("t.csv").write_text("text,label\n" + "a,0\nb,1\n" * 10)
    assert len(load(train_file="t.csv").splits["train"]) == 18


def test_the_mirror_is_found_by_the_environment(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTLAB_DATA", str(shared_data))
    assert fingerprint(preset("rte"), PATHS) == fingerprint(preset("rte"), Paths(mirror=str(shared_data)))
    assert len(classified(preset("rte"), PATHS).splits["train"]) == 2490
