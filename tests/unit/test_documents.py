"""Documents to blocks: every token once and in order, blocks full, sentences where they should end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretraining import SPECIAL, Rows, encode

from bertlab.errors import ConfigError
from bertlab.objectives._documents import pack, sentence_splitter, sentences, split_documents

DOCUMENTS = st.lists(st.lists(st.integers(5, 59), max_size=40), max_size=12)


def text_of(blocks: list[list[int]]) -> list[int]:
    return [token for block in blocks for token in block if token not in (SPECIAL.cls_id, SPECIAL.sep_id)]


@given(DOCUMENTS, st.integers(4, 20), st.booleans())
def test_packing_loses_no_token_and_sees_none_twice(
    documents: list[list[int]], longest: int, across: bool
) -> None:
    blocks = list(pack(documents, longest, SPECIAL, across))
    assert text_of(blocks) == [token for document in documents for token in document]
    assert all(
        block[0] == SPECIAL.cls_id and block[-1] == SPECIAL.sep_id and 2 < len(block) <= longest
        for block in blocks
    )


@given(DOCUMENTS, st.integers(4, 20))
def test_packed_blocks_are_full_but_for_the_last(documents: list[list[int]], longest: int) -> None:
    blocks = list(pack(documents, longest, SPECIAL, across=True))
    assert all(len(block) == longest for block in blocks[:-1])


@given(DOCUMENTS, st.integers(4, 20))
def test_without_packing_no_block_holds_two_documents(documents: list[list[int]], longest: int) -> None:
    blocks = list(pack(documents, longest, SPECIAL, across=False))
    assert [block.count(SPECIAL.sep_id) for block in blocks] == [1] * len(blocks)
    assert len(blocks) == sum(-(-len(document) // (longest - 2)) for document in documents)


@given(DOCUMENTS, st.integers(4, 20))
def test_a_separator_stands_between_documents(documents: list[list[int]], longest: int) -> None:
    """Within a block, separators (its own last one aside) stand exactly where a document ends."""
    ends, total = set(), 0
    for document in documents:
        total += len(document)
        ends.add(total)
    seen = 0
    for block in pack(documents, longest, SPECIAL, across=True):
        for token in block[1:-1]:
            if token == SPECIAL.sep_id:
                assert seen in ends
            else:
                seen += 1


@pytest.mark.parametrize(
    ("text", "delimiters", "expected"),
    [
        ("It was good. Was it? Yes!", ".!?", ["It was good.", "Was it?", "Yes!"]),
        ("Pi is 3.14 today. Fine...  Really", ".!?", ["Pi is 3.14 today.", "Fine...", "Really"]),
        ('He said "no." Then (perhaps.) left', ".!?", ['He said "no."', "Then (perhaps.)", "left"]),
        ("one\ntwo. three", ".!?", ["one", "two.", "three"]),
        ("well, yes; no", ".,;:!? ", ["well,", "yes;", "no"]),
        ("   \n ", ".!?", []),
        ("", ".!?", []),
    ],
)
def test_sentences_end_where_a_reader_would_say(text: str, delimiters: str, expected: list[str]) -> None:
    assert sentences(text, sentence_splitter(delimiters, "x")) == expected


@given(st.text(alphabet="ab .!?\n\"'", max_size=60))
def test_sentences_hold_the_whole_text(text: str) -> None:
    found = sentences(text, sentence_splitter(".!?", "x"))
    assert "".join("".join(found).split()) == "".join(text.split()) and all(found)


def test_no_delimiter_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective\.delimiters"):
        sentence_splitter("", "objective.delimiters")


def test_sentences_of_a_split_are_grouped_by_document() -> None:
    rows = Rows(text=["ab. c.", "", "d! , e"], text_pair=["f.", "g", "h"])
    found = list(split_documents(rows, encode, sentence_splitter(".!?", "x")))
    assert found == [[[5, 6], [7]], [[10]], [], [[11]], [[8], [9]], [[12]]]
