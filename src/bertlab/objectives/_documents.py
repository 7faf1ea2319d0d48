"""Documents to training examples, shared by the pretraining objectives: pieces of a corpus, packing,
sentences.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bertlab.contracts import Encode, Special
from bertlab.errors import ConfigError

PIECE = 1000  # documents tokenised at a time


def documents(split: Any, encode: Encode) -> Iterator[list[int]]:
    """Token ids of each document of a split, in order; a second text of a row is a document of its own."""
    for start in range(0, len(split), PIECE):
        piece = split[start : start + PIECE]
        texts = [
            text
            for row in zip(*(piece[name] for name in ("text", "text_pair") if name in piece), strict=True)
            for text in row
        ]
        yield from encode(texts)


def split_documents(split: Any, encode: Encode, splitter: re.Pattern[str]) -> Iterator[list[list[int]]]:
    """Token ids of each sentence of each document, in order; sentences without a token are left out."""
    for start in range(0, len(split), PIECE):
        piece = split[start : start + PIECE]
        texts = [
            text
            for row in zip(*(piece[name] for name in ("text", "text_pair") if name in piece), strict=True)
            for text in row
        ]
        documents = [sentences(text, splitter) for text in texts]
        encoded = iter(encode([sentence for document in documents for sentence in document]))
        for document in documents:
            yield [ids for _ in document if (ids := next(encoded))]


def pack(
    documents: Iterable[Sequence[int]], max_length: int, special: Special, across: bool
) -> Iterator[list[int]]:
    """`[CLS] tokens [SEP]` blocks of `max_length` ids; every token of every document lies in exactly one
    block, in order.

    With `across` documents follow each other within a block, `[SEP]` between them, and only the very last
    block is shorter; without, a document opens a new block and its own last block is shorter. Where a
    document ends one token short of a block's end, the separator takes that place and the block ends in two
    of them.
    """
    room, block = max_length - 2, list[int]()
    for document in documents:
        if block and len(document):
            block.append(special.sep_id)
        start = 0
        while start < len(document) or len(block) == room:
            if len(block) < room:
                end = start + room - len(block)
                block += document[start:end]
                start = end
            if len(block) == room:
                yield [special.cls_id, *block, special.sep_id]
                block = []
        if block and not across:
            yield [special.cls_id, *block, special.sep_id]
            block = []
    if block:
        yield [special.cls_id, *block, special.sep_id]


def batched(rows: Iterable[list[int]], size: int = 4096) -> Iterator[list[list[int]]]:
    """Lists of at most `size` rows."""
    piece = []
    for row in rows:
        piece.append(row)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece


def sentence_splitter(delimiters: str, path: str) -> re.Pattern[str]:
    """Finds sentences: up to and with a run of delimiters (and closing quotes or brackets) before white
    space, or up to a line's end.

    With a space among the delimiters every run of any of them ends a sentence. Raises ConfigError where there
    is nothing to split at.
    """
    if not delimiters:
        raise ConfigError(f"{path}: names no character to split sentences at; take e.g. .!?")
    marks = re.escape(delimiters)
    if any(mark.isspace() for mark in delimiters):
        return re.compile(rf"[^{marks}\n]+[{marks}\n]*")
    return re.compile(rf"[^\n]+?(?:[{marks}]+[\"'”’)\]]*(?=\s|$)|$|(?=\n))")


def sentences(text: str, splitter: re.Pattern[str]) -> list[str]:
    """The sentences of a text, stripped; none is empty."""
    return [sentence for match in splitter.finditer(text) if (sentence := match.group().strip())]
