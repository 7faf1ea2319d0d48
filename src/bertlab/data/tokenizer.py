"""A tokenizer as the rest of the code sees it: ids of texts, their places, what each id stands for; read from
where it lies.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bertlab.contracts import Special, Vocabulary
from bertlab.errors import DataError, RunError, first_line

ROLES = ("pad", "unk", "cls", "sep", "mask")
NAMES = (("[PAD]", "<pad>"), ("[UNK]", "<unk>"), ("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>"))

NOWHERE = "\U000f0000"  # a letter that no vocabulary has: each must have something for it


class Tokenizer:
    """A `tokenizers.Tokenizer` and the ids of its special tokens. Texts are encoded without special tokens:
    objectives add them.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        backend.no_padding()
        backend.no_truncation()
        ids = backend.get_vocab(with_added_tokens=True).values()
        if max(ids, default=-1) >= self.vocab_size:
            raise DataError(
                f"the tokenizer's ids go up to {max(ids)}, but it has {self.vocab_size} tokens: its"
                " vocabulary has holes"
            )
        framed = (
            backend.num_special_tokens_to_add(True) if backend.num_special_tokens_to_add(False) == 2 else 3
        )
        try:
            backend.encode(NOWHERE)
        except Exception as error:  # tokenizers raises bare Exceptions
            raise DataError(f"the tokenizer cannot read every text ({str(error)[:120]})") from None
        # a finished one frames pairs as its model was trained
        self.special = replace(Special(*special_ids(backend)), between=max(1, framed - 2))

    @property
    def vocab_size(self) -> int:
        """Number of ids, special and added tokens included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens and without truncation: contracts.Encode."""
        return [item.ids for item in self.backend.encode_batch(list(texts), add_special_tokens=False)]

    encode = __call__

    def with_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """The same, and of each token its first character in the text and the one after its last."""
        return [
            (item.ids, item.offsets)
            for item in self.backend.encode_batch(list(texts), add_special_tokens=False)
        ]

    def vocabulary(self) -> Vocabulary:
        """What objectives need of each id: whether it goes on with a word, how many letters it stands for."""
        content = json.loads(self.to_json())
        model, added = content["model"], {item["id"] for item in content["added_tokens"] if item["special"]}
        is_special = np.zeros(self.vocab_size, dtype=bool)
        is_special[[*self.special.all(), *added]] = True
        continues, characters = (
            np.zeros(self.vocab_size, dtype=bool),
            np.ones(self.vocab_size, dtype=np.int64),
        )
        pieces = self.backend.get_vocab(with_added_tokens=True)
        prefix = model.get("continuing_subword_prefix") or ""
        marks = () if model["type"] == "WordLevel" else ("▁", "Ġ")
        opening = next((mark for mark in marks if any(piece.startswith(mark) for piece in pieces)), "")
        for piece, index in pieces.items():
            if prefix:
                continues[index], text = (
                    piece.startswith(prefix) and piece != prefix,
                    piece.removeprefix(prefix) or piece,
                )
            elif opening:
                text = piece.removeprefix(opening)
                continues[index] = text == piece and text[:1].isalnum()
            else:
                text = piece
            characters[index] = len(_characters_of(text)) if opening == "Ġ" else len(text.replace(" ", ""))
        continues[is_special] = False
        characters[is_special] = 0
        characters[self.special.unk_id] = 1
        return Vocabulary(self.special, continues, characters, is_special)

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids stand for, special tokens in place, as far as normalising and
        splitting leave it.
        """
        from tokenizers import decoders

        tokens = [str(self.backend.id_to_token(index)) for index in ids]
        if self.backend.decoder is not None:
            return str(self.backend.decode(list(ids), skip_special_tokens=False))
        content = json.loads(self.to_json())
        if prefix := content["model"].get("continuing_subword_prefix"):
            return str(decoders.WordPiece(prefix, cleanup=False).decode(tokens))
        splitter = json.dumps(content["pre_tokenizer"])
        if '"ByteLevel"' in splitter:
            return str(decoders.ByteLevel().decode(tokens))
        return str(decoders.Metaspace().decode(tokens)) if '"Metaspace"' in splitter else " ".join(tokens)

    def to_json(self) -> str:
        """The whole tokenizer, as `from_json` and Hugging Face's `tokenizers` read it."""
        return str(self.backend.to_str())

    @classmethod
    def from_json(cls, content: str) -> "Tokenizer":
        """Inverse of `to_json`."""
        from tokenizers import Tokenizer as Backend

        try:
            return cls(Backend.from_str(content))
        except DataError:
            raise
        except Exception as error:  # tokenizers raises bare Exceptions
            raise DataError(f"not a tokenizer.json ({str(error)[:120]})") from error

    def __reduce__(self) -> Any:
        return Tokenizer.from_json, (self.to_json(),)


def _characters_of(piece: str) -> str:
    """A byte-level token's characters: UTF-8 continuation bytes (0x80 to 0xBF) are not characters of their
    own.

    Byte-level tokenizers write byte b as a printable character (Radford et al. 2019's code); those of 0x80 to
    0xBF are the ones below.
    """
    return "".join(letter for letter in piece if letter not in CONTINUATION_BYTES)


def _byte_characters() -> dict[int, str]:
    """Byte -> the character that stands for it: itself where printable, else the next free one from U+0100
    on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)}


CONTINUATION_BYTES = frozenset(_byte_characters()[byte] for byte in range(0x80, 0xC0))


def special_ids(backend: Any) -> list[int]:
    """Id of each role's token: by its name, or where some are called otherwise by ids 0 to 4 in the order of
    ROLES, which those trained here keep. Raises DataError where neither says all five.
    """
    named: list[int | None] = [
        next((backend.token_to_id(name) for name in names if backend.token_to_id(name) is not None), None)
        for names in NAMES
    ]
    known = [token for token in named if token is not None]
    if len(known) == len(ROLES):
        return known
    added = backend.get_added_tokens_decoder()
    places = range(len(ROLES))
    if all(place in added and added[place].special for place in places) and all(
        token in (None, place) for place, token in zip(places, named, strict=True)
    ):
        return list(places)
    lacking = named.index(None)
    raise DataError(
        f"the tokenizer has no {ROLES[lacking]} token (looked for {', '.join(NAMES[lacking])}); it cannot"
        " feed a BERT-style encoder"
    )


# --- where tokenizers lie -------------------------------------------------------------------------
def read_tokenizer(file: Path) -> Tokenizer:
    """A tokenizer of ours. Raises RunError where it cannot be read."""
    try:
        return Tokenizer.from_json(file.read_text(encoding="utf-8"))
    except (DataError, OSError, ValueError) as error:
        raise RunError(f"{file}: damaged ({str(error)[:120]}); remove it to make it again") from error


def tokenizer_beside(source: Path) -> Path:
    """The tokenizer beside weights: in their folder. Raises DataError where there is none."""
    file = (source if source.is_dir() else source.parent) / "tokenizer.json"
    if not file.is_file():
        raise DataError(f"tokenizer=inherited: {source} has no tokenizer.json beside it")
    return file


def load_tokenizer(given: str) -> Tokenizer:
    """A finished tokenizer from a file, a folder or the hub. Raises DataError saying which of
    them was tried.
    """
    from tokenizers import Tokenizer as Backend

    path = Path(given).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        if path.exists() or given.count("/") > 1 or given.startswith((".", "/", "~")):
            raise DataError(f"tokenizer.path={given}: {file} is not there")
        file = _fetch_from_hub(given)
    try:
        return Tokenizer(Backend.from_file(str(file)))
    except DataError as error:
        raise DataError(f"tokenizer.path={given}: {error}") from None
    except Exception as error:  # tokenizers raises bare Exceptions
        raise DataError(
            f"tokenizer.path={given}: {file} is not a tokenizer.json ({str(error)[:120]})"
        ) from error


def _fetch_from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "tokenizer.json"))
    except Exception as error:  # of several libraries, none of them ours
        line = first_line(error)
        raise DataError(
            f"tokenizer.path={name}: neither a local path nor to be had from the hub ({line})"
        ) from error


def batches_of_texts(rows: Any, columns: Sequence[str], size: int = 1000) -> Iterator[str]:
    """All texts of some columns, lists of words joined, a slice at a time, so that a large corpus is never in
    memory whole.
    """
    for column in (rows[name] for name in columns):
        for start in range(0, len(column), size):
            for value in column[start : start + size]:
                yield value if isinstance(value, str) else " ".join(value)
