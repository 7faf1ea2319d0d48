"""What tokenizers promise: trained on the training split alone, as large as asked for, the same after every
way of saving them.
"""

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertlab.config.schema import validate
from bertlab.data.tokenizer import ROLES, Tokenizer, batches_of_texts, load_tokenizer
from bertlab.data.tokenizer_options import (
    Bpe,
    TrainedTokenizer,
    Unigram,
    WordLevel,
    WordPiece,
    train_tokenizer,
)
from bertlab.errors import ConfigError, DataError

KINDS: dict[str, type[TrainedTokenizer]] = {
    "wordlevel": WordLevel,
    "wordpiece": WordPiece,
    "bpe": Bpe,
    "unigram": Unigram,
}
TEXTS = [
    f"the {thing} was {degree} {judgement} , but nobody said so {time}"
    for thing in ("film", "acting", "soundtrack", "ending") for degree in ("very", "hardly", "truly")
    for judgement in ("good", "bad", "boring", "wonderful") for time in ("yesterday", "today")
]  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


def trained(kind: str, texts: list[str] | None = None, **options: Any) -> Tokenizer:
    return train_tokenizer(KINDS[kind](name=kind, **options), TEXTS if texts is None else texts)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {kind: trained(kind, vocab_size=400) for kind in KINDS}


def words(tokenizer: Tokenizer, text: str) -> list[str | None]:
    return [tokenizer.backend.id_to_token(token) for token in tokenizer.encode([text])[0]]


# --- training -------------------------------------------------------------------------------------
@every_kind
@pytest.mark.parametrize("size", [280, 320])
def test_the_vocabulary_is_never_larger_than_asked_for(kind: str, size: int) -> None:
    texts = TEXTS + [f"w{index}x{index * 7} w{index}x{index * 7}" for index in range(400)]
    tokenizer = trained(kind, texts, vocab_size=size, min_frequency=1)
    assert 100 < tokenizer.vocab_size <= size
    assert max(max(row) for row in tokenizer.encode(texts)) < tokenizer.vocab_size


@every_kind
def test_special_tokens_take_ids_0_to_4(kind: str, tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers[kind]
    special = tokenizer.special
    assert [special.pad_id, special.unk_id, special.cls_id, special.sep_id, special.mask_id] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert [tokenizer.backend.id_to_token(token) for token in range(5)] == [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
    ]


@every_kind
def test_special_tokens_may_have_other_names(kind: str) -> None:
    names = {f"{role}_token": f"<{role.upper()}>" for role in ROLES}
    tokenizer = Tokenizer.from_json(trained(kind, vocab_size=300, **names).to_json())
    assert [tokenizer.backend.token_to_id(name) for name in names.values()] == [0, 1, 2, 3, 4]
    assert tokenizer.special.all() == trained(kind, vocab_size=300).special.all()


@every_kind
def test_texts_are_encoded_without_special_tokens_padding_or_truncation(
    kind: str, tokenizers: dict[str, Tokenizer]
) -> None:
    long, short = tokenizers[kind].encode(["good film " * 600, "good"])
    assert len(long) >= 1200 and len(short) < 10
    assert not {0, 2, 3, 4} & {*long, *short}


@every_kind
def test_training_again_gives_the_same_tokenizer(kind: str) -> None:
    """A run's id does not name its vocabulary, so the same texts must give the same one, with or without the
    cache.
    """
    assert len({trained(kind, vocab_size=300).to_json() for _ in range(5)}) == 1


def test_rare_words_are_unknown_to_a_word_level_vocabulary() -> None:
    tokenizer = trained("wordlevel", ["often rare", "often"], min_frequency=2)
    assert words(tokenizer, "often rare") == ["often", "[UNK]"]


def test_the_most_frequent_words_fill_a_small_vocabulary() -> None:
    tokenizer = trained("wordlevel", ["a a a b b c"], vocab_size=8 - 1, min_frequency=1)
    assert words(tokenizer, "a b c") == ["a", "b", "[UNK]"]


def test_nothing_is_unknown_to_bytes(tokenizers: dict[str, Tokenizer]) -> None:
    assert 1 not in tokenizers["bpe"].encode(["日本語 🙂 Ünbekannt \x00"])[0]


@every_kind
def test_texts_without_a_frequent_word_are_refused_or_still_encodable(kind: str) -> None:
    try:
        tokenizer = trained(kind, ["xy"], min_frequency=5)
    except DataError as error:
        assert f"tokenizer={kind}" in str(error)
    else:
        assert tokenizer.encode(["xy"])[0]


def test_special_tokens_in_another_order_are_not_taken_by_their_place() -> None:
    """<cls> <pad> <eos> <unk>, as some models of proteins have them: id 2 is no [CLS]."""
    from tokenizers import AddedToken, models
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.WordLevel({"<cls>": 0, "<pad>": 1, "<eos>": 2, "<unk>": 3, "<mask>": 4, "a": 5}))
    backend.add_special_tokens(
        [AddedToken(name, special=True) for name in ("<cls>", "<pad>", "<eos>", "<unk>", "<mask>")]
    )
    with pytest.raises(DataError, match=r"has no cls token \(looked for \[CLS\], <s>\)"):
        Tokenizer(backend)


def test_the_same_special_token_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="five different"):
        validate(WordLevel(pad_token="[X]", mask_token="[X]"), "tokenizer")


# --- normalisation --------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["wordlevel", "wordpiece", "unigram"])
def test_lower_casing_and_accents_are_options(kind: str) -> None:
    texts = ["Café café CAFE cafe"] * 5
    same = trained(kind, texts, vocab_size=60)
    assert len({tuple(row) for row in same.encode(["Café", "CAFE", "cafe"])}) == 1
    apart = trained(kind, texts, vocab_size=60, lowercase=False, strip_accents=False)
    assert len({tuple(row) for row in apart.encode(["Café", "CAFE", "cafe"])}) == 3


def test_composed_and_decomposed_letters_are_the_same() -> None:
    tokenizer = trained("wordlevel", ["caf\u00e9 caf\u00e9"], strip_accents=False)
    assert tokenizer.encode(["cafe\u0301"]) == tokenizer.encode(["caf\u00e9"]) != [[1]]


@pytest.mark.parametrize(
    ("split", "tokens"),
    [
        ("words", ["don", "'", "t", "stop", "...", "now", "!"]),
        ("whitespace", ["don't", "stop...", "now!"]),
        ("bert", ["don", "'", "t", "stop", ".", ".", ".", "now", "!"]),
    ],
)
def test_text_is_split_as_chosen(split: str, tokens: list[str]) -> None:
    assert (
        words(trained("wordlevel", ["don't stop... now!"] * 3, split=split), "don't stop... now!") == tokens
    )


def test_special_tokens_in_a_text_are_a_single_token(tokenizers: dict[str, Tokenizer]) -> None:
    """Known and shared with Hugging Face: a text that spells [MASK] holds the mask token."""
    assert words(tokenizers["wordpiece"], "good [MASK] film") == ["good", "[MASK]", "film"]


# --- saving ---------------------------------------------------------------------------------------
@every_kind
@given(text=st.text(max_size=60))
def test_a_tokenizer_survives_json_and_pickle(kind: str, tokenizers: dict[str, Tokenizer], text: str) -> None:
    tokenizer = tokenizers[kind]
    expected = tokenizer.encode([text, "the film was good"])
    for copy in (Tokenizer.from_json(tokenizer.to_json()), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.encode([text, "the film was good"]) == expected
        assert (copy.special, copy.vocab_size) == (tokenizer.special, tokenizer.vocab_size)


@every_kind
def test_a_pretrained_tokenizer_is_read_from_its_file_or_folder(
    kind: str, tokenizers: dict[str, Tokenizer]
) -> None:
    folder = Path("given")
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizers[kind].to_json(), encoding="utf-8")
    for path in ("given", "given/tokenizer.json"):
        loaded = load_tokenizer(path)
        assert loaded.encode(TEXTS) == tokenizers[kind].encode(TEXTS)
        assert loaded.special == tokenizers[kind].special


def test_padding_and_truncation_of_a_given_tokenizer_are_turned_off(tokenizers: dict[str, Tokenizer]) -> None:
    copy = Tokenizer.from_json(tokenizers["wordpiece"].to_json())
    copy.backend.enable_truncation(3)
    copy.backend.enable_padding(length=8)
    Path("tokenizer.json").write_text(copy.backend.to_str())
    assert load_tokenizer("tokenizer.json").encode(TEXTS) == tokenizers["wordpiece"].encode(TEXTS)


def test_special_tokens_of_roberta_are_found_by_name() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers

    vocabulary = {
        token: index for index, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "good", "<mask>"])
    }
    backend = Backend(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save("tokenizer.json")
    special = load_tokenizer("tokenizer.json").special
    assert (special.pad_id, special.unk_id, special.cls_id, special.sep_id, special.mask_id) == (
        1,
        3,
        0,
        2,
        5,
    )


@given(
    st.lists(st.just("good"), max_size=9),
    st.lists(st.just("bad"), max_size=9),
    st.integers(5, 24),
    st.booleans(),
)
def test_pairs_are_framed_as_the_finished_tokenizer_frames_them(
    first: list[str], second: list[str], longest: int, roberta: bool
) -> None:
    """RoBERTa's two separators, BERT's one; cut as the tokenizers library cuts, the longer text first."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, processors

    from bertlab.objectives._texts import join_texts

    vocabulary = {
        token: index for index, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "good", "bad", "<mask>"])
    }
    backend = Backend(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    frame = processors.RobertaProcessing if roberta else processors.BertProcessing
    backend.post_processor = frame(("</s>", 2), ("<s>", 0))
    ours = Tokenizer(Backend.from_str(backend.to_str()))
    assert ours.special.between == (2 if roberta else 1)
    ids, start = join_texts(*ours.encode([" ".join(first), " ".join(second)]), longest, ours.special)
    backend.enable_truncation(longest)
    theirs = backend.encode(" ".join(first), " ".join(second))
    assert ids == theirs.ids
    assert ids[:start].count(4) == ids.count(4) and 4 not in ids[start:]


def test_hugging_face_reads_what_was_trained(tokenizers: dict[str, Tokenizer]) -> None:
    transformers = pytest.importorskip("transformers")
    for tokenizer in tokenizers.values():
        Path("tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_file="tokenizer.json")
        ours = tokenizer.encode([TEXTS[0], TEXTS[1]])
        assert theirs(TEXTS[0], add_special_tokens=False)["input_ids"] == ours[0]
        assert theirs(TEXTS[0], TEXTS[1])["input_ids"] == [2, *ours[0], 3, *ours[1], 3]


@pytest.mark.parametrize("split", ["words", "whitespace", "bert"])
def test_ids_have_no_holes_where_a_word_looks_like_a_piece(split: str) -> None:
    tokenizer = trained("wordpiece", ["### a### b# ##x ax bx ###"] * 3, split=split, min_frequency=1)
    ids = sorted(tokenizer.backend.get_vocab(with_added_tokens=True).values())
    assert ids == list(range(tokenizer.vocab_size))
    assert max(max(row, default=0) for row in tokenizer.encode(["###", "a###", "##x"])) < tokenizer.vocab_size


def test_batches_of_texts_are_all_texts_in_order() -> None:
    rows = {name: [f"{name}{index}" for index in range(2500)] for name in "ab"}
    assert list(batches_of_texts(rows, ["a", "b"], size=1000)) == [*rows["a"], *rows["b"]]
