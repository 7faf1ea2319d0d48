"""Hidden words and spans: as much as asked for, whatever the words' lengths, and told; a step always has
something to learn from.
"""

import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bertlab.contracts import Draw, Examples, Special, Vocabulary, join_examples
from bertlab.data.tokenizer_options import WordPiece, train_tokenizer
from bertlab.objectives._masking import Masking, masked_loss
from bertlab.objectives.mlm import Mlm
from bertlab.objectives.mlm_nsp import MlmNsp
from bertlab.objectives.rtd import Rtd

SPECIAL = Special(pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4)
units = pytest.mark.parametrize("unit", ["word", "span"])


def vocabulary(size: int = 40, inner: int = 20) -> Vocabulary:
    """Ids 5 to `inner` open a word, those from `inner` on continue one."""
    ids = np.arange(size)
    return Vocabulary(SPECIAL, ids >= inner, np.ones(size, dtype=np.int64), ids < 5)


def words_of(lengths: list[int]) -> np.ndarray:
    """`[CLS] words [SEP]`, each word of so many tokens."""
    ids = [token for length in lengths for token in (5, *[20] * (length - 1))]
    return np.asarray([2, *ids, 3])


def share(
    unit: str, ids: np.ndarray, rate: float, draws: int, vocabulary: Vocabulary
) -> tuple[float, np.ndarray]:
    """Mean share hidden of a row, and how often each of its tokens was."""
    masking, often = Masking(vocabulary, unit, 0.8, 0.1), np.zeros(len(ids))
    for seed in range(draws):
        often[masking.choose(ids, rate, np.random.default_rng(seed))] += 1
    return often.sum() / draws / (len(ids) - 2), often / draws


# --- as much as asked for -------------------------------------------------------------------------
@units
@pytest.mark.parametrize(
    "lengths",
    [[100], [30, 30], [9, 1, 14, 1, 11, 2], [1] * 60, [3] * 20, [2, 5, 1, 1, 3, 8, 1, 2]],
    ids=lambda lengths: f"{len(lengths)}_words",
)
@pytest.mark.parametrize("rate", [0.15, 0.37])
def test_the_share_is_the_one_asked_for_whatever_the_lengths(
    unit: str, lengths: list[int], rate: float
) -> None:
    found, _ = share(unit, words_of(lengths), rate, 3000, vocabulary())
    assert found == pytest.approx(rate, rel=0.05)


@units
@given(
    lengths=st.lists(st.integers(1, 80), min_size=1, max_size=30),
    rate=st.floats(0.01, 0.9),
    seed=st.integers(0, 1000),
)
def test_every_block_hides_something_and_at_most_a_word_more_than_its_share(
    unit: str, lengths: list[int], rate: float, seed: int
) -> None:
    ids = words_of(lengths)
    chosen = Masking(vocabulary(), unit, 0.8, 0.1).choose(ids, rate, np.random.default_rng(seed))
    assert len(chosen) and (np.diff(chosen) > 0).all() and (ids[chosen] >= 5).all()
    assert len(chosen) <= max(1, np.ceil(rate * sum(lengths))) + 2 * (max(lengths) - 1)


@units
@given(
    lengths=st.lists(st.integers(1, 6), min_size=12, max_size=60),
    rate=st.floats(0.25, 0.8),
    seed=st.integers(0, 1000),
)
def test_words_that_fit_are_hidden_whole(unit: str, lengths: list[int], rate: float, seed: int) -> None:
    ids = words_of(lengths)
    if rate * sum(lengths) < 12:  # twice the longest word and more: one lies whole within any share
        return
    chosen = set(
        Masking(vocabulary(), unit, 0.8, 0.1).choose(ids, rate, np.random.default_rng(seed)).tolist()
    )
    for position in np.flatnonzero(ids == 20):
        assert (position in chosen) == (position - 1 in chosen)


@units
def test_a_word_longer_than_the_share_is_hidden_in_part(unit: str) -> None:
    for seed in range(50):
        chosen = Masking(vocabulary(), unit, 0.8, 0.1).choose(
            words_of([200]), 0.15, np.random.default_rng(seed)
        )
        pieces = 1 + np.count_nonzero(np.diff(chosen) > 1)
        assert len(chosen) == 30 and pieces <= 2
    _, often = share(unit, words_of([200]), 0.15, 3000, vocabulary())
    assert often[60:140].min() > 0.1, "any part of it"


def test_long_and_short_words_are_hidden_equally_often() -> None:
    """Chinese before its characters stand alone: long words among single punctuation marks, which alone were
    hidden once.
    """
    lengths = [1, 14, 1, 17, 1, 15, 1, 12]
    ids = words_of(lengths)
    _, often = share("word", ids, 0.15, 10_000, vocabulary())
    starts = 1 + np.cumsum([0, *lengths[:-1]])
    for start, length in zip(starts, lengths, strict=True):
        assert often[start : start + length].mean() == pytest.approx(0.15, rel=0.08), length


def english(rng: random.Random) -> str:
    stems = [
        "film",
        "wonder",
        "act",
        "direct",
        "story",
        "feel",
        "love",
        "think",
        "the",
        "of",
        "a",
        "and",
        "in",
    ]
    return (
        " ".join(
            rng.choice(stems) + rng.choice(["", "", "s", "ing", "ful", "ation"])
            for _ in range(rng.randint(5, 60))
        )
        + " ."
    )


def german(rng: random.Random) -> str:
    parts = [
        "donau",
        "dampf",
        "schiff",
        "fahrt",
        "gesell",
        "schaft",
        "kapitän",
        "mütze",
        "recht",
        "und",
        "der",
    ]
    return " ".join("".join(rng.choices(parts, k=rng.randint(1, 6))) for _ in range(rng.randint(5, 40)))


def chinese(rng: random.Random) -> str:
    return "".join(
        rng.choice("的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会，。")
        for _ in range(rng.randint(20, 200))
    )


def dna(rng: random.Random) -> str:
    return "".join(rng.choice("acgt") for _ in range(rng.randint(60, 99)))


class Rows(dict[str, list[str]]):
    """What `prepare` needs of a `datasets.Dataset`."""

    column_names = ("text",)

    def __len__(self) -> int:
        return len(self["text"])

    def __getitem__(self, key: Any) -> Any:
        return {"text": self["text"][key]} if isinstance(key, slice) else super().__getitem__(key)


@functools.cache
def written(language: Callable[[random.Random], str]) -> tuple[list[str], Any]:
    """Texts, and a tokenizer that was trained on them."""
    rng = random.Random(0)
    texts = [language(rng) for _ in range(1500)]
    return texts, train_tokenizer(WordPiece(name="wordpiece", vocab_size=200, strip_accents=False), texts)


@pytest.mark.slow
@units
@pytest.mark.parametrize("packing", ["blocks", "documents"])
@pytest.mark.parametrize("language", [english, german, chinese, dna], ids=lambda language: language.__name__)
def test_the_share_holds_in_texts_of_many_kinds(
    language: Callable[[random.Random], str], packing: str, unit: str
) -> None:
    texts, tokenizer = written(language)
    objective = Mlm(name="mlm", unit=unit, packing=packing, max_length=128).build(tokenizer.vocabulary(), ())
    examples = join_examples(objective.prepare(Rows(text=texts), tokenizer))
    numerator, denominator = 0.0, 0.0
    shares = []
    # a long word in two blocks: it varies most there
    for epoch in range(32 if language is dna and packing == "blocks" else 4):
        batch = objective.collate(examples, np.arange(len(examples)), Draw(0, epoch))
        masked, ordinary = batch.counts["masked_share"]
        assert masked == len(batch.targets["label"]) and ordinary == (examples.tokens > 4).sum()
        numerator, denominator = numerator + masked, denominator + ordinary
        shares.append(masked / ordinary)
    assert 3 * np.std(shares, ddof=1) / len(shares) ** 0.5 < 0.01 * 0.15, (
        "enough is drawn to tell 1 % from chance"
    )
    assert numerator / denominator == pytest.approx(0.15, rel=0.01)


# --- told -----------------------------------------------------------------------------------------
def blocks(count: int = 4) -> Examples:
    rows = [words_of([100]) for _ in range(count)]
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    return Examples(np.concatenate(rows), offsets)


@pytest.mark.parametrize(
    "config", [Mlm(name="mlm", unit="word"), Rtd(name="rtd", unit="word")], ids=["mlm", "rtd"]
)
def test_every_masked_objective_counts_what_it_hides(config: Any) -> None:
    batch = config.build(vocabulary(), ()).collate(blocks(), np.arange(4), Draw(0, 0))
    assert batch.counts == {"masked_share": (60.0, 400.0)}
    assert batch.to(torch.device("cpu")).counts == batch.counts


def test_evaluation_hides_single_tokens_and_counts_nothing() -> None:
    batch = Mlm(name="mlm", unit="word").build(vocabulary(), ()).collate(blocks(), np.arange(4), None)
    assert batch.counts == {} and len(batch.targets["label"]) == 60


def test_joint_pretraining_counts_too() -> None:
    examples = Examples(
        np.asarray([5, 6, 7, 8] * 4), np.arange(0, 17, 4),
        {"document": np.asarray([0, 0, 1, 1]), "target": np.full(4, 4), "alone": np.zeros(4, dtype=np.int8)},
        {"opens": np.asarray([1, 0, 1, 0] * 4)},
    )  # fmt: skip
    batch = MlmNsp(name="mlm_nsp").build(vocabulary(), ()).collate(examples, np.arange(4), Draw(0, 0))
    masked, ordinary = batch.counts["masked_share"]
    assert masked == len(batch.targets["label"]) and ordinary == int((batch.input_ids >= 4).sum())


def test_nothing_hidden_counts_nothing() -> None:
    """The loop stops where a whole step is like this; a micro-batch within one that is not passes."""
    batch = (
        Mlm(name="mlm")
        .build(vocabulary(), ())
        .collate(Examples(np.asarray([2, 1, 3]), np.asarray([0, 3])), np.arange(1), Draw(0, 0))
    )
    loss = masked_loss(torch.zeros(0, 40, requires_grad=True), batch)
    assert loss.count == 0 and loss.total.item() == 0


# --- in a run -------------------------------------------------------------------------------------
def long_words(count: int) -> str:
    rng = random.Random(1)
    return "text\n" + "".join("".join(rng.choice("abcdefgh") for _ in range(90)) + "\n" for _ in range(count))


RUN = [
    "model=bert_tiny", "model.hidden_size=32", "model.num_attention_heads=2",
    "budget.steps=40", "budget.batch_size=8", "compute=cpu", "compute.threads=1",
    "dataset=files", "dataset.train_file=t.csv", "dataset.label_column=null", "objective=mlm",
    "objective.packing=documents",
    "tokenizer=wordpiece", "tokenizer.vocab_size=60",
]  # fmt: skip


@units
def test_training_records_tell_the_share(unit: str, tmp_path: Any) -> None:
    import bertlab

    (tmp_path / "t.csv").write_text(long_words(120))
    run = bertlab.run([*RUN, f"objective.unit={unit}"])
    records = run.history["train/masked_share"].dropna()
    assert len(records) == 2 and records.to_numpy() == pytest.approx([0.15, 0.15], rel=0.05)
    assert (run.history["train/loss"].dropna() > 1).all()


def test_a_step_without_anything_to_learn_from_stops(tmp_path: Any, cli: Any) -> None:
    """A document of words that the vocabulary lacks has nothing to hide."""
    known, unknown = "alpha beta gamma delta\n" * 40, "".join(f"q{index}z\n" for index in range(16))
    (tmp_path / "t.csv").write_text("text\n" + known + unknown)
    (tmp_path / "v.csv").write_text("text\n" + known)
    words = [word for word in RUN if "tokenizer" not in word]
    status, output, errors = cli(
        "train",
        *words,
        "tokenizer=wordlevel",
        "budget.batch_size=1",
        "budget.steps=200",
        "dataset.validation_file=v.csv",
    )
    assert status == 2, output + errors
    assert "nothing to learn from" in errors and "objective=mlm" in errors and errors.count("\n") == 1
