"""Tokenizers: trained on the training split alone (`wordlevel wordpiece bpe unigram`), or taken as they are (`pretrained`).

A trained tokenizer is cached by what made it: its config, the texts' fingerprint and this module's code.
Sources: WordPiece, Schuster & Nakajima 2012 and Devlin et al. 2019 §3; BPE, Sennrich et al. 2016; unigram, Kudo 2018.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from omegaconf import MISSING

from bertlab.config.schema import TokenizerConfig, Train, choice, flag, integer, string
from bertlab.contracts import Special, Vocabulary
from bertlab.errors import ConfigError, DataError
from bertlab.runs.files import file_digest

PRIVATE = 0xF0000  # first code point of a plane that no text uses
ROLES = ("pad", "unk", "cls", "sep", "mask")


@dataclass
class TrainedTokenizer(TokenizerConfig):
    """What all trained tokenizers have in common; special tokens take ids 0 to 4 in the order below."""

    kind: ClassVar[str] = ""  # name of the model in `tokenizers`

    vocab_size: int = integer(16_000, "largest number of tokens, special ones included", low=8)
    min_frequency: int = integer(2, "rarer words or merges get no entry", low=1)
    lowercase: bool = flag(True, "lower-case all text")
    strip_accents: bool = flag(True, "é becomes e: marks of Unicode category Mn go, as in BERT; other scripts' words may merge")
    split: str = choice(
        "words",
        "words",
        "whitespace",
        "bert",
        help="words: \\w+ and runs of punctuation; whitespace: white space only; bert: every punctuation mark and Chinese character alone",
    )
    pad_token: str = string("[PAD]", "fills up short sequences")
    unk_token: str = string("[UNK]", "stands for what the vocabulary lacks")
    cls_token: str = string("[CLS]", "opens every sequence")
    sep_token: str = string("[SEP]", "closes every text")
    mask_token: str = string("[MASK]", "stands for what masked-language modelling hides")

    def check(self, path: str) -> None:
        """Five different special tokens, without what means something else in a template."""
        special = [getattr(self, f"{role}_token") for role in ROLES]
        if len(set(special)) < len(special) or not all(special):
            raise ConfigError(f"{path}: special tokens must be five different strings, not {special}")
        if unfit := [token for token in special if re.search(r"[\s:$]", token)]:
            raise ConfigError(f"{path}: a special token holds no white space, ':' or '$' as {unfit[0]!r} does; take e.g. [CLS]")


@dataclass
class WordLevel(TrainedTokenizer):
    """One token a word; words outside the vocabulary become the unknown token."""

    kind: ClassVar[str] = "WordLevel"


@dataclass
class WordPiece(TrainedTokenizer):
    """Sub-words, longest match first (Devlin et al. 2019: split=bert)."""

    kind: ClassVar[str] = "WordPiece"
    split: str = choice("bert", "words", "whitespace", "bert", help="bert: white space; every punctuation mark and Chinese character alone")
    max_word_characters: int = integer(100, "longer words are unknown, e.g. DNA without spaces (BERT: 100)", low=1)


@dataclass
class Bpe(TrainedTokenizer):
    """Byte-level byte-pair encoding: nothing is unknown."""

    kind: ClassVar[str] = "BPE"
    vocab_size: int = integer(16_000, "largest number of tokens: 256 bytes, 5 special ones, and merges", low=261)
    lowercase: bool = flag(False, "lower-case all text")
    strip_accents: bool = flag(False, "é becomes e")


@dataclass
class Unigram(TrainedTokenizer):
    """A unigram language model over sub-words, as in SentencePiece."""

    kind: ClassVar[str] = "Unigram"


@dataclass
class InheritedTokenizer(TokenizerConfig):
    """The tokenizer of the run, stage or checkpoint that `init` names: pretrained weights know no other words."""

    inherits: ClassVar = True

    def inputs(self, run: Train) -> dict[str, str]:
        """The tokenizer that lies there (a stage's is decided by the stage)."""
        source = run.init.source(run)
        return {} if source is None else {"inherited": file_digest(tokenizer_beside(source))}


@dataclass
class GivenTokenizer(TokenizerConfig):
    """A finished tokenizer: a `tokenizer.json`, a folder that holds one, or a hub name."""

    path: str = string(MISSING, "tokenizer.json, its folder, or a hub name")

    def deciding(self) -> dict[str, Any]:
        """A local one is known by its content, wherever it lies."""
        return super().deciding() | ({"path": "local"} if Path(self.path).expanduser().exists() else {})

    def inputs(self, _run: Train) -> dict[str, str]:
        """A local one."""
        path = Path(self.path).expanduser()
        file = path / "tokenizer.json" if path.is_dir() else path
        return {"tokenizer": file_digest(file)} if file.is_file() else {}


def tokenizer_beside(source: Path) -> Path:
    """The tokenizer beside weights: in their folder. Raises DataError where there is none."""
    file = (source if source.is_dir() else source.parent) / "tokenizer.json"
    if not file.is_file():
        raise DataError(f"tokenizer=inherited: {source} has no tokenizer.json beside it")
    return file


class Tokenizer:
    """A `tokenizers.Tokenizer` and the ids of its special tokens. Texts are encoded without special tokens: objectives add them."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        backend.no_padding()
        backend.no_truncation()
        names = (("[PAD]", "<pad>"), ("[UNK]", "<unk>"), ("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>"))
        ids = backend.get_vocab(with_added_tokens=True).values()
        if max(ids, default=-1) >= self.vocab_size:
            raise DataError(f"the tokenizer's ids go up to {max(ids)}, but it has {self.vocab_size} tokens: its vocabulary has holes")
        found = (special_id(backend, role, candidates) for role, candidates in zip(ROLES, names, strict=True))
        framed = backend.num_special_tokens_to_add(True) if backend.num_special_tokens_to_add(False) == 2 else 3
        self.special = replace(Special(*found), between=max(1, framed - 2))  # a finished tokenizer frames pairs as its model was trained

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
        return [(item.ids, item.offsets) for item in self.backend.encode_batch(list(texts), add_special_tokens=False)]

    def vocabulary(self) -> Vocabulary:
        """What objectives need of each id: whether it goes on with a word, how many letters it stands for."""
        content = json.loads(self.to_json())
        model, added = content["model"], {item["id"] for item in content["added_tokens"] if item["special"]}
        is_special = np.zeros(self.vocab_size, dtype=bool)
        is_special[[*self.special.all(), *added]] = True
        continues, characters = np.zeros(self.vocab_size, dtype=bool), np.ones(self.vocab_size, dtype=np.int64)
        pieces = self.backend.get_vocab(with_added_tokens=True)
        prefix = model.get("continuing_subword_prefix") or ""
        marks = () if model["type"] == "WordLevel" else ("▁", "Ġ")
        opening = next((mark for mark in marks if any(piece.startswith(mark) for piece in pieces)), "")
        for piece, index in pieces.items():
            if prefix:
                continues[index], text = piece.startswith(prefix) and piece != prefix, piece.removeprefix(prefix) or piece
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
        """The text that ids stand for, special tokens in place, as far as normalising and splitting leave it."""
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
    """A byte-level token's characters: UTF-8 continuation bytes (0x80 to 0xBF) are not characters of their own.

    Byte-level tokenizers write byte b as a printable character (Radford et al. 2019's code); those of 0x80 to 0xBF are the ones below.
    """
    return "".join(letter for letter in piece if letter not in CONTINUATION_BYTES)


def _byte_characters() -> dict[int, str]:
    """Byte -> the character that stands for it: itself where printable, else the next free one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)}


CONTINUATION_BYTES = frozenset(_byte_characters()[byte] for byte in range(0x80, 0xC0))


def special_id(backend: Any, role: str, candidates: tuple[str, ...]) -> int:
    """Id of a special token: by its name, else by its place in ids 0 to 4, where trained tokenizers keep them."""
    for name in candidates:
        if (found := backend.token_to_id(name)) is not None:
            return int(found)
    added = backend.get_added_tokens_decoder()
    place = ROLES.index(role)
    if place in added and added[place].special:
        return place
    raise DataError(f"the tokenizer has no {role} token (looked for {', '.join(candidates)}); it cannot feed a BERT-style encoder")


def train_tokenizer(config: TrainedTokenizer, texts: Iterable[str]) -> Tokenizer:
    """Train on `texts` (the training split's, nothing else); the same texts always give the same tokenizer.

    Raises DataError where they hold too little.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, processors

    special = [getattr(config, f"{role}_token") for role in ROLES]
    arguments = {"unk_token": config.unk_token} if config.kind in ("WordLevel", "WordPiece") else {}
    backend = Backend(getattr(models, config.kind)(**arguments))
    backend.normalizer, backend.pre_tokenizer = _normalizer(config), _splitter(config)
    try:
        _learn_vocabulary(config, backend, texts, special)
    except Exception as error:  # tokenizers raises bare Exceptions
        raise DataError(
            f"tokenizer={config.name}: tokenizer.vocab_size={config.vocab_size} cannot be trained ({str(error)[:120]})"
        ) from error
    ids = [backend.token_to_id(token) for token in special]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{config.cls_token} $A {config.sep_token}",
        pair=f"{config.cls_token} $A {config.sep_token} $B:1 {config.sep_token}:1",
        special_tokens=[(config.cls_token, ids[2]), (config.sep_token, ids[3])],
    )
    tokenizer = Tokenizer(backend)
    if tokenizer.vocab_size <= len(special):
        raise DataError(f"tokenizer={config.name}: no word occurs {config.min_frequency} times in the training texts; lower min_frequency")
    return tokenizer


def _normalizer(config: TrainedTokenizer) -> Any:
    """With split=bert BERT's own: it also drops control characters, sets Chinese characters apart, and composes nothing.

    Stripping is BERT's everywhere; `tokenizers`' StripAccents would delete vowel signs of Indic scripts (categories Mc and Me) too.
    """
    from tokenizers import normalizers

    lower, strip = config.lowercase, config.strip_accents
    if config.split == "bert" and config.kind != "BPE":  # which splits at bytes, whatever `split` says
        return normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=strip, lowercase=lower)
    steps: list[Any] = [
        normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
        if strip
        else normalizers.NFC()
    ]
    return normalizers.Sequence([*steps, normalizers.Lowercase()] if lower else steps)


def _splitter(config: TrainedTokenizer) -> Any:
    from tokenizers import pre_tokenizers

    if config.kind == "BPE":
        return pre_tokenizers.ByteLevel(add_prefix_space=True)
    splitters = {
        "words": pre_tokenizers.Whitespace, "whitespace": pre_tokenizers.WhitespaceSplit, "bert": pre_tokenizers.BertPreTokenizer,
    }  # fmt: skip
    split = splitters[config.split]()
    return pre_tokenizers.Sequence([split, pre_tokenizers.Metaspace()]) if config.kind == "Unigram" else split


def _learn_vocabulary(config: TrainedTokenizer, backend: Any, texts: Iterable[str], special: list[str]) -> None:
    """Fill `backend`. The library's WordPiece and unigram trainers depend on the order of hash tables; those two are made exact here."""
    from tokenizers import AddedToken, models, pre_tokenizers, trainers

    common: dict[str, Any] = {
        "vocab_size": config.vocab_size, "show_progress": False,
        "special_tokens": [AddedToken(token, special=True, normalized=False) for token in special],
    }  # fmt: skip
    if config.kind == "WordLevel":
        backend.train_from_iterator(texts, trainers.WordLevelTrainer(min_frequency=config.min_frequency, **common))
    elif config.kind == "BPE":
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(min_frequency=config.min_frequency, initial_alphabet=alphabet, **common)
        backend.train_from_iterator(texts, trainer)
    elif isinstance(config, WordPiece):
        backend.model = models.WordPiece(
            vocab=_wordpieces(config, backend, texts, special),
            unk_token=config.unk_token,
            max_input_chars_per_word=config.max_word_characters,
        )
        backend.add_special_tokens(common["special_tokens"])
    else:
        backend.train_from_iterator(texts, trainers.UnigramTrainer(unk_token=config.unk_token, **common))
        content = json.loads(backend.to_str())
        pieces = content["model"]["vocab"]
        scored = sorted(((token, round(score, 6)) for token, score in pieces[len(special) :]), key=lambda item: (-item[1], item[0]))
        backend.model = models.Unigram([*map(tuple, pieces[: len(special)]), *scored], unk_id=content["model"]["unk_id"])


def _wordpieces(config: WordPiece, backend: Any, texts: Iterable[str], special: list[str]) -> dict[str, int]:
    """WordPiece's vocabulary as byte-pair merges of words whose inner letters are symbols of their own (`##x` for x).

    Letters within a word are mapped to private code points, merged by the exact BPE trainer, and mapped back. Where letters alone are more
    than the vocabulary may hold, the most frequent stay.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, trainers

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)))
    counts = _with_room_for_letters(config, counts, config.vocab_size - len(special))
    letters = sorted({letter for word in counts for letter in word[1:]})
    inner = {letter: chr(PRIVATE + index) for index, letter in enumerate(letters)}
    outer = {private: letter for letter, private in inner.items()}
    merges = Backend(models.BPE())
    merges.train_from_iterator(
        (word[0] + "".join(inner[letter] for letter in word[1:]) for word, count in counts.items() for _ in range(count)),
        trainers.BpeTrainer(vocab_size=config.vocab_size, min_frequency=config.min_frequency, special_tokens=special, show_progress=False),
    )

    def piece(token: str) -> str:
        prefix = "##" if token[0] in outer else ""
        return token if token in special else prefix + "".join(outer.get(letter, letter) for letter in token)

    pieces = [piece(token) for token, _ in sorted(merges.get_vocab().items(), key=lambda item: item[1])]
    return {name: index for index, name in enumerate(dict.fromkeys(pieces))}  # `###` may be a word and an inner `#`: one id for both


def _with_room_for_letters(config: WordPiece, counts: Counter[str], room: int) -> Counter[str]:
    """The words all of whose letters, first and inner ones apart, are among the `room` most frequent; tells what that leaves out."""
    often: Counter[tuple[bool, str]] = Counter()
    for word, count in counts.items():
        for index, letter in enumerate(word):
            often[index > 0, letter] += count
    if len(often) <= room:
        return counts
    kept = set(sorted(often, key=lambda place: (-often[place], place))[:room])
    print(
        f"tokenizer.vocab_size={config.vocab_size}: the training texts have {len(often):,} letters (first ones of words and others apart); "
        f"words with the {len(often) - room:,} rarest of them are unknown; raise tokenizer.vocab_size",
        flush=True,
    )
    return Counter({word: count for word, count in counts.items() if all((index > 0, letter) in kept for index, letter in enumerate(word))})


def load_tokenizer(config: GivenTokenizer) -> Tokenizer:
    """A finished tokenizer from a file, a folder or the hub. Raises DataError saying which of them was tried."""
    from tokenizers import Tokenizer as Backend

    path = Path(config.path).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        if path.exists() or config.path.count("/") > 1 or config.path.startswith((".", "/", "~")):
            raise DataError(f"tokenizer.path={config.path}: {file} is not there")
        file = _fetch_from_hub(config.path)
    try:
        return Tokenizer(Backend.from_file(str(file)))
    except DataError as error:
        raise DataError(f"tokenizer.path={config.path}: {error}") from None
    except Exception as error:  # tokenizers raises bare Exceptions
        raise DataError(f"tokenizer.path={config.path}: {file} is not a tokenizer.json ({str(error)[:120]})") from error


def _fetch_from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "tokenizer.json"))
    except Exception as error:  # of several libraries, none of them ours
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise DataError(f"tokenizer.path={name}: neither a local path nor to be had from the hub ({line})") from error


def batches_of_texts(columns: Sequence[Any], size: int = 1000) -> Iterator[str]:
    """All texts of some columns, lists of words joined, a slice at a time, so that a large corpus is never in memory whole."""
    for column in columns:
        for start in range(0, len(column), size):
            for value in column[start : start + size]:
                yield value if isinstance(value, str) else " ".join(value)
