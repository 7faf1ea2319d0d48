"""What becomes of texts is told: unknown tokens, letters lost, texts cut, words that become one; and what is
too bad stops.
"""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertlab.contracts import Special, Vocabulary, join_examples
from bertlab.data.text_checks import CountedTexts, merged_words
from bertlab.data.tokenizer_options import Bpe, WordLevel, WordPiece, train_tokenizer
from bertlab.objectives._texts import join_texts
from bertlab.objectives.classification import Classification
from bertlab.objectives.multi_label import MultiLabel
from bertlab.objectives.regression import Regression
from bertlab.objectives.tagging import Tagging

SPECIAL = Special(pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4)
VOCABULARY = Vocabulary(SPECIAL, np.zeros(300, dtype=bool), np.ones(300, dtype=np.int64), np.arange(300) < 5)


class Rows(dict[str, list[Any]]):
    """What `prepare` needs of a `datasets.Dataset`."""

    @property
    def column_names(self) -> list[str]:
        return list(self)

    def __len__(self) -> int:
        return len(next(iter(self.values())))

    def __getitem__(self, key: Any) -> Any:
        return (
            {name: values[key] for name, values in self.items()}
            if isinstance(key, slice)
            else super().__getitem__(key)
        )


def letters(texts: Any) -> list[list[int]]:
    return [[10 + ord(letter) for letter in text] for text in texts]


# --- counts ---------------------------------------------------------------------------------------
def test_unknown_tokens_texts_and_letters_are_counted() -> None:
    tokenizer = train_tokenizer(WordLevel(name="wordlevel", min_frequency=1), ["good bad film"])
    counted = CountedTexts(tokenizer)
    texts = ["good film", "good unheard film", "never unheard"]
    assert counted(texts) == tokenizer(texts)
    assert counted.with_offsets(["bad"]) == tokenizer.with_offsets(["bad"])
    assert counted.shares() == {
        "words": 8,
        "unknown_share": 3 / 8,
        "unknown_texts": 1 / 4,
        "characters_lost": 19 / 38,
    }


def test_nothing_is_lost_to_bytes() -> None:
    counted = CountedTexts(train_tokenizer(Bpe(name="bpe"), ["good bad film"]))
    counted(["日本語 unheard"])
    assert counted.shares() == {"words": 2, "unknown_share": 0, "unknown_texts": 0, "characters_lost": 0}


def test_cut_tokens_are_counted() -> None:
    counted = CountedTexts(train_tokenizer(WordLevel(name="wordlevel", min_frequency=1), ["a b c d e f"]))
    objective = Classification(name="classification", max_length=5).build(VOCABULARY, ["no", "yes"])
    examples = join_examples(
        counted.watch(objective.prepare(Rows(text=["a b", "a b c d e"], label=[0, 1]), counted))
    )
    assert examples.columns["cut"].tolist() == [0, 2] and examples.columns["cut"].dtype == np.int32
    assert counted.shares()["truncated_share"] == 1 / 2 and counted.shares()["tokens_cut"] == 2 / 7


def test_cut_tokens_of_pairs_and_of_words() -> None:
    pairs = Classification(name="classification", max_length=7).build(VOCABULARY, ["no", "yes"])
    found = join_examples(
        pairs.prepare(Rows(text=["abcdef", "a"], text_pair=["gh", ""], label=[0, 1]), letters)
    )
    assert found.columns["cut"].tolist() == [4, 0]
    tagging = Tagging(name="tagging", max_length=6).build(VOCABULARY, ["O", "B-X"])
    found = join_examples(
        tagging.prepare(Rows(tokens=[["ab", "cde", "f"], ["a"]], tags=[[0, 1, 0], [0]]), letters)
    )
    assert found.columns["cut"].tolist() == [4, 0]


# --- what stays of long texts ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("truncation", "kept"),
    [("head", list(range(10, 18))), ("tail", list(range(12, 20))), ("head_tail", [10, 11, *range(14, 20)])],
)
def test_what_stays_of_a_long_text_is_an_option(truncation: str, kept: list[int]) -> None:
    assert join_texts(list(range(10, 20)), None, 10, SPECIAL, truncation) == ([2, *kept, 3], 0)
    assert join_texts(list(range(10, 18)), None, 10, SPECIAL, truncation)[0] == [2, *range(10, 18), 3], (
        "what fits stays whole"
    )


@pytest.mark.parametrize(
    ("config", "names", "answers"),
    [
        (Classification(name="classification"), ["no", "yes"], {"label": [0, 1]}),
        (MultiLabel(name="multi_label"), ["no", "yes"], {"labels": [[0], [0, 1]]}),
        (Regression(name="regression"), [], {"number": [0.5, 2.0]}),
    ],
    ids=lambda config: getattr(config, "name", None),
)
def test_every_objective_of_texts_cuts_as_told_and_counts_it(
    config: Any, names: list[str], answers: dict[str, Any]
) -> None:
    kept = {"head": "abc", "tail": "fgh", "head_tail": "fgh"}
    for truncation, letters_kept in kept.items():
        objective = dataclasses.replace(config, max_length=5, truncation=truncation).build(VOCABULARY, names)
        examples = join_examples(objective.prepare(Rows(text=["abcdefgh", "xy"], **answers), letters))
        assert examples[0].tolist() == [2, *letters([letters_kept])[0], 3] and examples.columns[
            "cut"
        ].tolist() == [5, 0]


def test_both_texts_of_a_pair_keep_their_ends() -> None:
    row, start = join_texts(list(range(10, 30)), list(range(40, 60)), 11, SPECIAL, "tail")
    assert row == [2, 26, 27, 28, 29, 3, 56, 57, 58, 59, 3] and start == 6
    assert join_texts([10, 11, 12], [], 4, SPECIAL, "tail")[0] == [2, 12, 3, 3]


def test_words_that_were_not_read_have_no_tag() -> None:
    import torch

    objective = Tagging(name="tagging", max_length=5).build(VOCABULARY, ["O", "B-X"])
    examples = join_examples(objective.prepare(Rows(tokens=[["a", "b", "c", "d", "e"]]), letters))
    batch = objective.collate(examples, np.arange(1), None)
    measured = objective.measure(torch.tensor([[[1.0, 0.0]] * 5]), batch)
    assert objective.predictions(measured) == [{"tags": ["O", "O", "O", None, None]}]
    assert (
        objective.describe({"tokens": ["a", "b", "c", "d", "e"]}, {"tags": ["O", "B-X", "O", None, None]})
        == "a b/B-X c d/? e/?"
    )


# --- words that become one ------------------------------------------------------------------------
def test_words_that_stripping_merges_are_found() -> None:
    texts = ["schon schön Haus", "Schon haus gut"]
    found = merged_words(train_tokenizer(WordPiece(name="wordpiece"), texts), texts)
    assert found == {"merged": 2 / 4, "merged_by_case": 4 / 6, "merged_pair": ["schon", "schön"]}
    kept = merged_words(
        train_tokenizer(WordPiece(name="wordpiece", strip_accents=False, lowercase=False), texts), texts
    )
    assert kept == {"merged": 0, "merged_by_case": 0}


@pytest.mark.parametrize("text", ["काम कम", "বাংলা বল", "தமிழ் தமழ"])
def test_vowel_signs_merge_nothing(text: str) -> None:
    assert (
        merged_words(train_tokenizer(WordLevel(name="wordlevel", min_frequency=1), [text]), [text])["merged"]
        == 0
    )


# --- in a run -------------------------------------------------------------------------------------
RUN = [
    "model=bert_tiny", "model.hidden_size=32", "model.num_attention_heads=2", "budget.steps=2", "compute=cpu",
    "compute.threads=1",
    "dataset=files", "dataset.train_file=t.csv",
]  # fmt: skip


def write(texts: list[str], name: str = "t.csv") -> None:
    Path(name).write_text(
        "text,label\n" + "".join(f"{text},{index % 2}\n" for index, text in enumerate(texts)),
        encoding="utf-8",
    )


def test_a_run_tells_what_became_of_its_texts(cli: Any) -> None:
    write([f"schön schon film{index % 7} {'lang ' * (index % 2) * 30}rare{index}" for index in range(60)])
    status, output, errors = cli("train", *RUN, "objective.max_length=16")
    assert status == 0, errors
    first = output.splitlines()[:6]
    assert any(line.startswith("unknown tokens: train ") and "validation" in line for line in first)
    assert any("% of the train texts are cut at objective.max_length=16, " in line for line in first)
    assert any("e.g. schon and schön; tokenizer.strip_accents=false" in line for line in first)
    summary = json.loads(next(Path("multirun").rglob("summary.json")).read_text(encoding="utf-8"))
    assert set(summary["text"]["train"]) >= {
        "unknown_share",
        "unknown_texts",
        "characters_lost",
        "truncated_share",
        "tokens_cut",
    }
    assert (
        0.4 < summary["text"]["train"]["truncated_share"] < 0.6
        and summary["text"]["validation"]["unknown_share"] > 0
    )


@pytest.mark.parametrize("tokenizer", ["wordlevel", "wordpiece", "bpe", "unigram"])
def test_a_run_shows_its_first_rows_as_read_as_tokens_and_decoded_back(tokenizer: str, cli: Any) -> None:
    write([f"काम good film {'well made' if index % 2 else 'dull'}" for index in range(60)])
    status, output, errors = cli(
        "train", *RUN, f"tokenizer={tokenizer}", "tokenizer.min_frequency=1", "dataset.validation_file=t.csv"
    )
    assert status == 0, errors
    lines = output.splitlines()
    assert "row 1 of t.csv as read: text='काम good film dull'  label='0'" in lines
    assert "row 2 of t.csv as read: text='काम good film well made'  label='1'" in lines
    (tokens,) = [line for line in lines if line.startswith("first of 60 examples as tokens: ")]
    assert tokens.split(": ")[1].split()[0] == "[CLS]" and tokens.split()[-1] == "[SEP]"
    (back,) = [line for line in lines if line.startswith("decoded back: ")]
    assert "".join(back.split()) == "decodedback:[CLS]कामgoodfilmdull[SEP]" and (
        "good film" in back or tokenizer == "unigram"
    )


@pytest.mark.parametrize(
    ("options", "ready"),
    [
        (["tokenizer=wordpiece"], ["tokenizer=wordpiece", "tokenizer.max_word_characters=200"]),
        (["tokenizer=wordlevel"], ["tokenizer=bpe"]),
        (["tokenizer=wordpiece"], ["tokenizer=wordpiece", "tokenizer.max_unknown_share=1"]),
    ],
)
def test_texts_that_come_out_as_unknown_stop(options: list[str], ready: list[str], cli: Any) -> None:
    rng = random.Random(0)
    write(["".join(rng.choices("acgt", k=120)) for _ in range(40)])
    status, _, errors = cli("train", *RUN, *options)
    assert status == 2 and errors.count("\n") == 1 and errors.startswith("bertlab: ")
    assert "tokenizer=" in errors and ("max_unknown_share" in errors or "min_frequency" in errors)
    status, _, errors = cli("train", *RUN, *ready)
    assert status == 0, errors
