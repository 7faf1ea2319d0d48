"""BERT's reading of text, character by character: with `split=bert` ours is transformers' BertTokenizer;
other splits strip as it does.
"""

import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlab.data.tokenizer_options import (
    Bpe,
    TrainedTokenizer,
    Unigram,
    WordLevel,
    WordPiece,
    train_tokenizer,
)

CATEGORIES = sorted({unicodedata.category(chr(point)) for point in range(0x110000)} - {"Cs"})
SCRIPTS = {
    "latin": (0x41, 0x24F), "greek": (0x370, 0x3FF), "cyrillic": (0x400, 0x52F), "armenian": (0x531, 0x58F),
    "hebrew": (0x591, 0x5F4),
    "arabic": (0x600, 0x6FF), "syriac": (0x700, 0x74F), "devanagari": (0x900, 0x97F), "bengali": (0x980,
    0x9FE), "gurmukhi": (0xA01, 0xA76),
    "gujarati": (0xA81, 0xAFF), "tamil": (0xB82, 0xBFA), "telugu": (0xC00, 0xC7F), "kannada": (0xC80, 0xCF2),
    "malayalam": (0xD00, 0xD7F),
    "sinhala": (0xD82, 0xDF4), "thai": (0xE01, 0xE5B), "lao": (0xE81, 0xEDF), "tibetan": (0xF00, 0xFDA),
    "myanmar": (0x1000, 0x109F),
    "georgian": (0x10A0, 0x10FF), "hangul_jamo": (0x1100, 0x11FF), "ethiopic": (0x1200, 0x137C),
    "khmer": (0x1780, 0x17F9),
    "vietnamese": (0x1EA0, 0x1EF9), "kana": (0x3041, 0x30FF), "han": (0x4E00, 0x9FFF), "hangul": (0xAC00,
    0xD7A3),
    "han_compatibility": (0xF900, 0xFAD9), "half_width": (0xFF01, 0xFFEE), "han_extension": (0x20000,
    0x2A6D6), "emoji": (0x1F300, 0x1F64F),
}  # fmt: skip


def letter(category: str) -> st.SearchStrategy[str]:
    return st.characters(categories=(category,))  # type: ignore[arg-type]  # one of its literals


anything = st.text(
    st.one_of(
        *map(letter, CATEGORIES),
        *(st.integers(*reach).map(chr) for reach in SCRIPTS.values()),
        st.sampled_from("aZ 9.'\t\n\x00\ufffd"),
    ),
    max_size=40,
)
cases = pytest.mark.parametrize("uncased", [True, False], ids=["uncased", "cased"])
TEXTS = ["The caf\u00e9 was good , the film bad ."] * 3


def trained(config: TrainedTokenizer, texts: list[str] | None = None) -> Any:
    return train_tokenizer(config, TEXTS if texts is None else texts)


def words(backend: Any, text: str) -> list[str]:
    """As they stand before sub-words are looked for."""
    return [
        word for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
    ]


@pytest.fixture(scope="module")
def pairs() -> dict[bool, tuple[Any, Any, Any]]:
    """Ours, transformers' and its older one in Python, of the same vocabulary."""
    transformers = pytest.importorskip("transformers")
    legacy = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy")
    found = {}
    for uncased in (True, False):
        ours = trained(WordPiece(name="wordpiece", lowercase=uncased, strip_accents=uncased, min_frequency=1))
        vocabulary = ours.backend.get_vocab(with_added_tokens=True)
        theirs = transformers.BertTokenizerFast(vocab=vocabulary, do_lower_case=uncased)
        found[uncased] = (ours, theirs, legacy.BasicTokenizer(do_lower_case=uncased))
    return found


# --- split=bert -----------------------------------------------------------------------------------
@cases
@settings(max_examples=400)
@given(text=anything)
def test_words_are_those_of_transformers(uncased: bool, pairs: Any, text: str) -> None:
    ours, theirs, _ = pairs[uncased]
    assert words(ours.backend, text) == words(theirs.backend_tokenizer, text)
    assert ours([text])[0] == theirs(text, add_special_tokens=False)["input_ids"]


@cases
@settings(max_examples=400)
@given(text=anything)
def test_words_are_those_of_its_python_code(uncased: bool, pairs: Any, text: str) -> None:
    """As far as both know the same Unicode (characters of 3.2); that code also composes accents, which
    Devlin's did not.
    """
    ours, _, legacy = pairs[uncased]
    known = "".join(
        letter
        for letter in text
        if unicodedata.ucd_3_2_0.category(letter) not in ("Cn", "Co") and letter not in RECLASSIFIED
    )
    # a decomposed Greek question mark is punctuation only once composed
    composed = unicodedata.normalize("NFC", known)
    assert [unicodedata.normalize("NFC", word) for word in words(ours.backend, composed)] == [
        unicodedata.normalize("NFC", word) for word in legacy.tokenize(composed)
    ]


RECLASSIFIED = "\u166d\u1734"  # whose category changed after the version that `tokenizers` knows


@cases
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_letter_of_many_scripts(script: str, uncased: bool, pairs: Any) -> None:
    ours, theirs, _ = pairs[uncased]
    low, high = SCRIPTS[script]
    text = "".join(f" a{chr(point)}b" for point in range(low, min(high, low + 3000) + 1))
    assert words(ours.backend, text) == words(theirs.backend_tokenizer, text)


def test_chinese_characters_stand_alone() -> None:
    tokenizer = trained(WordPiece(name="wordpiece"), ["今天天气很好", "今天很冷"] * 3)
    assert words(tokenizer.backend, "今天abc很好。ok") == ["今", "天", "abc", "很", "好", "。", "ok"]
    assert 1 not in tokenizer(["好冷天"])[0]


@pytest.mark.parametrize("kind", [WordLevel, WordPiece, Unigram])
def test_split_bert_is_berts_whatever_the_vocabulary(kind: type[TrainedTokenizer]) -> None:
    tokenizer = trained(kind(name="any", split="bert", vocab_size=60, min_frequency=1))
    found = [
        word.removeprefix("\u2581")
        for word in words(tokenizer.backend, "Ca\u0301f\x07e\u0301 今天 काम\u00ad…!?")
    ]
    assert found == ["cafe", "今", "天", "काम", "…", "!", "?"]


# --- other splits ---------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [WordLevel, Unigram, Bpe])
@settings(max_examples=200)
@given(text=anything)
def test_only_marks_without_width_of_their_own_are_stripped(kind: type[TrainedTokenizer], text: str) -> None:
    """Category Mn, of which BERT's code says accents; vowel signs with a place of their own (Mc) are letters
    to their readers.
    """
    known = "".join(
        letter
        for letter in text
        if unicodedata.ucd_3_2_0.category(letter) not in ("Cn", "Co") and letter not in RECLASSIFIED
    )
    tokenizer = STRIPPING.setdefault(
        kind, trained(kind(name="any", vocab_size=300, lowercase=False, strip_accents=True))
    )
    expected = "".join(
        letter for letter in unicodedata.normalize("NFD", known) if unicodedata.category(letter) != "Mn"
    )
    assert tokenizer.backend.normalizer.normalize_str(known) == expected


STRIPPING: dict[type[TrainedTokenizer], Any] = {}


@pytest.mark.parametrize("word", ["काम", "বাংলা", "தமிழ்", "ភាសាខ្មែរ", "మాట", "ಮಾತು"])
def test_vowel_signs_are_kept(word: str) -> None:
    for kind in (WordLevel, WordPiece):
        read = trained(kind(name="any", min_frequency=1), [word]).backend.normalizer.normalize_str(word)
        assert [letter for letter in read if unicodedata.category(letter) == "Mc"] == [
            letter for letter in word if unicodedata.category(letter) == "Mc"
        ]


# --- English is read as before --------------------------------------------------------------------
def as_before(split: str) -> Any:
    """The normaliser of the revisions before BERT's: all marks stripped, control characters kept."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, normalizers, pre_tokenizers

    backend = Backend(models.WordLevel())
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = (
        pre_tokenizers.BertPreTokenizer() if split == "bert" else pre_tokenizers.Whitespace()
    )
    return backend


@pytest.mark.parametrize("split", ["words", "bert"])
@settings(max_examples=300)
@given(
    st.text(
        st.one_of(
            st.characters(max_codepoint=0x17F, exclude_categories=("Cc", "Cf")),
            st.sampled_from("‘’“”–—…€™\n\t éà "),
        ),
        max_size=80,
    )
)
def test_english_is_read_as_before(split: str, text: str) -> None:
    tokenizer = ENGLISH.setdefault(split, trained(WordLevel(name="wordlevel", split=split)))
    assert words(tokenizer.backend, text) == words(as_before(split), text)


ENGLISH: dict[str, Any] = {}


@pytest.mark.parametrize("split", ["words", "bert"])
def test_real_english_is_read_as_before(split: str, shared_data: Path) -> None:
    from pyarrow.parquet import read_table

    table = read_table(shared_data / "sst2" / "train.parquet")
    texts = table["sentence" if "sentence" in table.column_names else "text"].to_pylist()
    tokenizer, before = trained(WordLevel(name="wordlevel", split=split)), as_before(split)
    for text in random.Random(0).sample(texts, 5000):
        assert words(tokenizer.backend, text) == words(before, text)


# --- limits ---------------------------------------------------------------------------------------
def test_the_longest_word_is_an_option() -> None:
    dna = "".join(random.Random(0).choices("acgt", k=300))
    assert trained(WordPiece(name="wordpiece", vocab_size=60), [dna] * 3)([dna]) == [[1]]
    whole = trained(WordPiece(name="wordpiece", vocab_size=60, max_word_characters=300), [dna] * 3)([dna])[0]
    assert len(whole) > 50 and 1 not in whole


@pytest.mark.parametrize("kind", [WordLevel, WordPiece, Unigram])
@pytest.mark.parametrize("size", [8, 20, 50, 200, 1000])
def test_the_vocabulary_is_never_larger_than_asked_for(
    kind: type[TrainedTokenizer], size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """More letters than the vocabulary has places: the rarest become unknown, and that is told; a unigram
    model refuses.
    """
    from bertlab.errors import DataError

    rng = random.Random(0)
    texts = [
        " ".join(
            "".join(chr(0x4E00 + int(rng.expovariate(1 / 80))) for _ in range(rng.randint(1, 3)))
            for _ in range(8)
        )
        for _ in range(400)
    ]
    config = kind(name=kind.__name__.lower(), vocab_size=size, min_frequency=1, split="whitespace")
    try:
        tokenizer = trained(config, texts)
    except DataError as error:
        assert kind is Unigram and f"vocab_size={size}" in str(error)
        return
    assert 5 < tokenizer.vocab_size <= size
    told = capsys.readouterr().out
    if kind is WordPiece and size <= 200:
        assert f"tokenizer.vocab_size={size}" in told and told.count("\n") == 1
        again = trained(config, texts[::-1])
        assert again.backend.get_vocab() == tokenizer.backend.get_vocab(), (
            "which letters stay does not depend on their order"
        )
    else:
        assert not told
