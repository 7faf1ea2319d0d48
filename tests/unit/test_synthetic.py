"""The embedded dataset's promises: reproducible, disjoint, balanced, and with a best accuracy known by
construction.
"""

import hashlib
import json
import math
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlab.config.schema import validate
from bertlab.data.synthetic import (
    FIRST,
    LABEL_NAMES,
    NEGATIVE,
    POSITIVE,
    TOPICS,
    Synthetic,
    best_possible,
    generate,
    generate_split,
    relation_of,
    sentiment_of,
    topic_of,
)  # fmt: skip
from bertlab.errors import ConfigError

TASKS = ("sentiment", "pairs", "documents")
SIZES = {"train": 400, "validation": 101, "test": 60}
GOLDEN = {
    "sentiment": "14e2a65a3ef9c0a934dfc9efdc80be09f312b06baa848d67ab21ec1020e800a3",
    "pairs": "f6451b3924ae8be2749e1d52bb54e9ba6659081896bf8217923ea2c0b4f44057",
    "documents": "026cd0787d617583d12115c3a5dc998066cfd680930b38ad66b375b0ed3510ea",
}


def small(task: str, /, **changes: object) -> Synthetic:
    config = Synthetic(
        name="synthetic",
        task=task,
        train_size=SIZES["train"],
        validation_size=SIZES["validation"],
        test_size=SIZES["test"],
    )
    for key, value in changes.items():
        setattr(config, key, value)
    return config


def digest(splits: dict) -> str:
    return hashlib.sha256(json.dumps(splits, sort_keys=True).encode()).hexdigest()


def texts_of(columns: dict) -> list[str]:
    return columns["text"] + columns.get("text_pair", [])


def bag(text: str) -> list[str]:
    return text.lower().replace(",", "").replace(".", "").split()


# --- determinism ----------------------------------------------------------------------------------
@pytest.mark.parametrize("task", TASKS)
def test_generation_has_not_changed(task: str) -> None:
    """A changed digest is a changed dataset: numbers measured on the old one no longer compare."""
    assert digest(generate(small(task))) == GOLDEN[task]


def test_another_process_with_another_hash_seed_generates_the_same_bytes() -> None:
    code = (
        "import hashlib, json; from bertlab.data.synthetic import Synthetic, generate; "
        "c = Synthetic(train_size=400, validation_size=101, test_size=60); "
        "print(hashlib.sha256(json.dumps(generate(c), sort_keys=True).encode()).hexdigest())"
    )
    source = Path(__file__).parents[2] / "src"
    for hash_seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(source)}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert ran.stdout.strip() == GOLDEN["sentiment"]


@pytest.mark.parametrize("task", TASKS)
def test_another_seed_gives_other_texts_and_other_noise(task: str) -> None:
    one, other = generate(small(task))["train"], generate(small(task, generator_seed=1))["train"]
    assert len(set(one["text"]) & set(other["text"])) < SIZES["train"] / 5
    flipped = [
        [i for i in range(SIZES["train"]) if c["label"][i] != c["clean_label"][i]] for c in (one, other)
    ]
    assert flipped[0] != flipped[1]


def test_noise_changes_labels_and_nothing_else() -> None:
    noisy, clean = (
        generate(small("pairs", label_noise=0.2))["train"],
        generate(small("pairs", label_noise=0.0))["train"],
    )
    assert all(noisy[column] == clean[column] for column in ("text", "text_pair", "clean_label"))
    assert clean["label"] == clean["clean_label"]


# --- splits ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("task", TASKS)
def test_no_text_occurs_twice_within_or_across_splits(task: str) -> None:
    texts = [
        text for columns in generate(small(task, train_size=3000)).values() for text in texts_of(columns)
    ]
    assert len(set(texts)) == len(texts)


def test_splits_stay_disjoint_across_generator_seeds() -> None:
    train = set(generate(small("sentiment", train_size=3000))["train"]["text"])
    assert not train & set(generate(small("sentiment", test_size=1000, generator_seed=1))["test"]["text"])


@pytest.mark.parametrize("task", TASKS)
def test_a_split_ignores_the_sizes_of_others_and_begins_like_a_shorter_one(task: str) -> None:
    one, other = generate(small(task)), generate(small(task, train_size=150, test_size=7))
    assert one["validation"] == other["validation"]
    for column in set(one["train"]) - {"label"}:
        assert one["train"][column][:150] == other["train"][column]


@pytest.mark.parametrize("task", TASKS)
def test_columns_sizes_and_types(task: str) -> None:
    splits = generate(small(task))
    assert {name: len(columns["text"]) for name, columns in splits.items()} == SIZES
    wanted = {"text", "label", "clean_label"} | ({"text_pair"} if task == "pairs" else set())
    for columns in splits.values():
        assert set(columns) == wanted and len({len(values) for values in columns.values()}) == 1
        assert all(type(label) is int for key in ("label", "clean_label") for label in columns[key])


# --- labels ---------------------------------------------------------------------------------------
@settings(max_examples=25, deadline=None)
@given(
    task=st.sampled_from(TASKS), split=st.sampled_from(("train", "validation", "test")), size=st.integers(1,
    70),
    noise=st.floats(0, 0.499), seed=st.integers(0, 2**40),
)  # fmt: skip
def test_balance_noise_count_and_bound_hold_everywhere(
    task: str, split: str, size: int, noise: float, seed: int
) -> None:
    config = Synthetic(name="synthetic", task=task, label_noise=noise, generator_seed=seed)
    validate(config, "dataset")
    columns, classes = generate_split(config, split, size), range(len(LABEL_NAMES[task]))
    counts = Counter(columns["clean_label"])
    assert set(counts) | set(columns["label"]) <= set(classes)
    assert max(counts.values()) - min(counts[label] for label in classes) <= 1
    wrong = sum(label != clean for label, clean in zip(columns["label"], columns["clean_label"], strict=True))
    assert wrong == round(noise * size)
    assert math.isclose(best_possible(columns), 1 - wrong / size)


def test_noise_reaches_every_other_class() -> None:
    columns = generate(small("documents", train_size=2000, label_noise=0.4))["train"]
    moved = Counter(
        (clean, label)
        for clean, label in zip(columns["clean_label"], columns["label"], strict=True)
        if clean != label
    )
    classes = len(TOPICS)
    assert len(moved) == classes * (classes - 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("task", "paris"), ("train_size", 0), ("validation_size", 0), ("test_size", -1), ("label_noise", 0.5),
    ("label_noise", -0.1),
     ("generator_seed", -1)],
)  # fmt: skip
def test_values_out_of_range_stop_with_their_key(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"dataset.{key}"):
        validate(small("sentiment", **{key: value}), "dataset")


# --- the rules, on sentences written by hand ------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The plot was brilliant.", 1),
        ("The plot was slightly dull.", 0),
        ("The plot was not brilliant.", 0),
        ("The food was never bad this time.", 1),
        ("Nobody called the soup bland.", 1),
        ("Nobody would call it superb.", 0),
        ("The battery was hardly impressive.", 0),
        ("The service was far from awful, to be honest.", 1),
        ("The screen seemed anything but great.", 0),
        ("My sister never called the waiter clumsy.", 1),
        ("The plot was great, but the acting was terrible.", 0),
        ("Although the plot was great, the acting was terrible.", 0),
        ("Although the plot was terrible, the acting was not poor.", 1),
        ("Despite the dull plot, everyone called the cast superb.", 1),
        ("The plot was hardly great despite the superb cast.", 0),
        ("The room was slightly dull and utterly brilliant.", 1),
        ("The room was utterly dull and slightly brilliant.", 0),
        ("The room was good and slightly bad.", 1),
        ("The room was good and bad.", None),
        ("The room was there.", None),
    ],
)
def test_sentiment_rule(text: str, label: int | None) -> None:
    assert sentiment_of(text) == label


@pytest.mark.parametrize(
    ("text", "text_pair", "label"),
    [
        ("The food was good.", "Nobody called the food bad.", 0),
        ("The food was hardly good.", "I found the food dreadful.", 0),
        ("The food was good.", "The food was far from good.", 1),
        ("The food was good.", "The room was good.", 2),
        ("The food was good.", "The room was bad.", 2),
        ("The food was good.", "The food was there.", None),
    ],
)
def test_relation_rule(text: str, text_pair: str, label: int | None) -> None:
    assert relation_of(text, text_pair) == label


@pytest.mark.parametrize("index", range(len(TOPICS)))
def test_topic_rule(index: int) -> None:
    kind = list(TOPICS.values())[index].kinds[-1]
    assert (
        topic_of(f"Red Star is a {kind}. It stands near Oslo.") == index
        and topic_of("Red Star is near Oslo.") is None
    )


# --- what makes the tasks worth learning ----------------------------------------------------------
@pytest.fixture(scope="module")
def sentiment() -> dict:
    return generate(Synthetic(train_size=6000))


def test_every_adjective_stands_in_texts_of_both_classes(sentiment: dict) -> None:
    seen = {(word, label) for text, label in zip(sentiment["train"]["text"],
        sentiment["train"]["clean_label"], strict=True)
            for word in bag(text)}  # fmt: skip
    assert all((word, label) in seen for word in (*POSITIVE[:20], *NEGATIVE[:20]) for label in (0, 1))


def naive_bayes_accuracy(train: dict, test: dict) -> float:
    """Multinomial naive Bayes on words (add-one), two classes."""
    counts = [Counter(word for text, y in zip(train["text"], train["label"],
        strict=True) if y == label for word in bag(text))
              for label in (0, 1)]  # fmt: skip
    sums = [sum(count.values()) + len(counts[0] | counts[1]) for count in counts]

    def guess(text: str) -> bool:
        return (
            sum(
                math.log((counts[1][w] + 1) / sums[1]) - math.log((counts[0][w] + 1) / sums[0])
                for w in bag(text)
            )
            > 0
        )

    return sum(guess(text) == label for text, label in zip(test["text"], test["label"], strict=True)) / len(
        test["text"]
    )


def test_a_bag_of_words_learns_something_but_stays_far_below_the_bound(sentiment: dict) -> None:
    accuracy = naive_bayes_accuracy(sentiment["train"], sentiment["test"])
    assert best_possible(sentiment["test"]) == 0.95 and 0.65 < accuracy < 0.88


def test_negation_contrast_and_intensity_all_decide_labels(sentiment: dict) -> None:
    """Each rule turns the label of some texts against their last or their only adjective."""
    turned: Counter[str] = Counter()
    for text, label in zip(sentiment["train"]["text"], sentiment["train"]["clean_label"], strict=True):
        judged = [int(word in POSITIVE) for word in bag(text) if word in POSITIVE or word in NEGATIVE]
        if len(judged) == 1:
            turned["negation"] += judged[0] != label
        elif " and " in text:
            turned["stronger first"] += judged[0] == label != judged[1]
            turned["stronger last"] += judged[1] == label != judged[0]
        else:
            turned["contrast"] += judged[0] != judged[1]
    assert min(turned[rule] for rule in ("negation", "stronger first", "stronger last", "contrast")) > 30, (
        turned
    )


def sentences(text: str) -> list[str]:
    return [part for part in text.split(". ") if part]


def test_documents_keep_to_one_topic_one_name_and_the_order_of_time() -> None:
    columns = generate(small("documents"))["train"]
    kinds = {kind for topic in TOPICS.values() for kind in topic.kinds}
    for text, label in zip(columns["text"], columns["clean_label"], strict=True):
        topic, parts = list(TOPICS.values())[label], sentences(text)
        assert 5 <= len(parts) <= 8
        assert len({word for word in bag(text) if word in kinds}) == 1
        assert sum(f"{first} {second}" in text for first in FIRST for second in topic.seconds) == 1
        assert sum(word in topic.things for word in set(bag(text))) <= 1
        years = [int(word) for word in bag(text) if word.isdigit()]
        assert all(earlier < later for earlier, later in pairwise(years))
        assert parts[-1].startswith("Today")


def test_neighbouring_sentences_share_more_words_than_strangers() -> None:
    """What next-sentence prediction lives on: the overlap of content words tells neighbours from random
    sentences.
    """
    documents = [sentences(text) for text in generate(small("documents"))["train"]["text"]]

    def overlap(one: str, other: str) -> int:
        return len({w for w in bag(one) if len(w) > 3} & {w for w in bag(other) if len(w) > 3})

    neighbours = [overlap(a, b) for parts in documents for a, b in pairwise(parts)]
    strangers = [overlap(a[0], b[1]) for a, b in pairwise(documents)]
    assert sum(neighbours) / len(neighbours) > 2 * sum(strangers) / len(strangers)
