"""Options of the group `tokenizer`: trained on the training split alone (`wordlevel wordpiece bpe unigram`),
or taken as they are.

A trained tokenizer is cached by what made it: its config, the texts' fingerprint and this folder's code.
Sources: WordPiece, Schuster & Nakajima 2012 and Devlin et al. 2019 §3; BPE, Sennrich et al. 2016; unigram,
Kudo 2018.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from bertlab.config.schema import TokenizerConfig, Train, choice, flag, integer, string
from bertlab.data.tokenizer import ROLES, Tokenizer, load_tokenizer, read_tokenizer, tokenizer_beside
from bertlab.errors import ConfigError, DataError
from bertlab.runs.files import file_digest

PRIVATE = 0xF0000  # first code point of a plane that no text uses


@dataclass
class TrainedTokenizer(TokenizerConfig):
    """What all trained tokenizers have in common; special tokens take ids 0 to 4 in the order below."""

    kind: ClassVar[str] = ""  # name of the model in `tokenizers`
    learns: ClassVar = True

    vocab_size: int = integer(16_000, "largest number of tokens, special ones included", low=8)
    min_frequency: int = integer(2, "rarer words or merges get no entry", low=1)
    lowercase: bool = flag(True, "lower-case all text")
    strip_accents: bool = flag(
        True, "é becomes e: marks of Unicode category Mn go, as in BERT; other scripts' words may merge"
    )
    split: str = choice(
        "words",
        "words",
        "whitespace",
        "bert",
        help=(
            "words: \\w+ and runs of punctuation; whitespace: white space only; bert: every punctuation mark"
            " and Chinese character alone"
        ),
    )
    pad_token: str = string("[PAD]", "fills up short sequences")
    unk_token: str = string("[UNK]", "stands for what the vocabulary lacks")
    cls_token: str = string("[CLS]", "opens every sequence")
    sep_token: str = string("[SEP]", "closes every text")
    mask_token: str = string("[MASK]", "stands for what masked-language modelling hides")

    def make(self, texts: Iterable[str], _source: Path | None) -> str:
        """Learnt from the texts."""
        return train_tokenizer(self, texts).to_json()

    def check(self, path: str) -> None:
        """Five different special tokens, without what means something else in a template."""
        special = [getattr(self, f"{role}_token") for role in ROLES]
        if len(set(special)) < len(special) or not all(special):
            raise ConfigError(f"{path}: special tokens must be five different strings, not {special}")
        if unfit := [token for token in special if re.search(r"[\s:$]", token)]:
            raise ConfigError(
                f"{path}: a special token holds no white space, ':' or '$' as {unfit[0]!r} does; take e.g."
                " [CLS]"
            )


@dataclass
class WordLevel(TrainedTokenizer):
    """One token a word; words outside the vocabulary become the unknown token."""

    kind: ClassVar[str] = "WordLevel"


@dataclass
class WordPiece(TrainedTokenizer):
    """Sub-words, longest match first (Devlin et al. 2019: split=bert)."""

    kind: ClassVar[str] = "WordPiece"
    split: str = choice(
        "bert",
        "words",
        "whitespace",
        "bert",
        help="bert: white space; every punctuation mark and Chinese character alone",
    )
    max_word_characters: int = integer(
        100, "longer words are unknown, e.g. DNA without spaces (BERT: 100)", low=1
    )


@dataclass
class Bpe(TrainedTokenizer):
    """Byte-level byte-pair encoding: nothing is unknown."""

    kind: ClassVar[str] = "BPE"
    vocab_size: int = integer(
        16_000, "largest number of tokens: 256 bytes, 5 special ones, and merges", low=261
    )
    lowercase: bool = flag(False, "lower-case all text")
    strip_accents: bool = flag(False, "é becomes e")


@dataclass
class Unigram(TrainedTokenizer):
    """A unigram language model over sub-words, as in SentencePiece."""

    kind: ClassVar[str] = "Unigram"


@dataclass
class InheritedTokenizer(TokenizerConfig):
    """The tokenizer of the run, stage or checkpoint that `init` names: pretrained weights know no other
    words.
    """

    inherits: ClassVar = True

    def inputs(self, run: Train) -> dict[str, str]:
        """The tokenizer that lies there (a stage's is decided by the stage)."""
        source = run.init.source(run)
        return {} if source is None else {"inherited": file_digest(tokenizer_beside(source))}

    def make(self, _texts: Iterable[str], source: Path | None) -> str:
        """The one that lies beside the weights."""
        assert source is not None
        return read_tokenizer(tokenizer_beside(source)).to_json()


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

    def make(self, _texts: Iterable[str], _source: Path | None) -> str:
        """Read, or fetched from the hub."""
        return load_tokenizer(self.path).to_json()


# --- training -------------------------------------------------------------------------------------
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
            f"tokenizer={config.name}: tokenizer.vocab_size={config.vocab_size} cannot be trained"
            f" ({str(error)[:120]})"
        ) from error
    ids = [backend.token_to_id(token) for token in special]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{config.cls_token} $A {config.sep_token}",
        pair=f"{config.cls_token} $A {config.sep_token} $B:1 {config.sep_token}:1",
        special_tokens=[(config.cls_token, ids[2]), (config.sep_token, ids[3])],
    )
    tokenizer = Tokenizer(backend)
    if tokenizer.vocab_size <= len(special):
        raise DataError(
            f"tokenizer={config.name}: no word occurs {config.min_frequency} times in the training texts;"
            " lower min_frequency"
        )
    return tokenizer


def _normalizer(config: TrainedTokenizer) -> Any:
    """With split=bert BERT's own: it also drops control characters, sets Chinese characters apart, and
    composes nothing.

    Stripping is BERT's everywhere; `tokenizers`' StripAccents would delete vowel signs of Indic scripts
    (categories Mc and Me) too.
    """
    from tokenizers import normalizers

    lower, strip = config.lowercase, config.strip_accents
    if config.split == "bert" and config.kind != "BPE":  # which splits at bytes, whatever `split` says
        return normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=True, strip_accents=strip, lowercase=lower
        )
    steps: list[Any] = [
        (
            normalizers.BertNormalizer(
                clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False
            )
            if strip
            else normalizers.NFC()
        )
    ]
    return normalizers.Sequence([*steps, normalizers.Lowercase()] if lower else steps)


def _splitter(config: TrainedTokenizer) -> Any:
    from tokenizers import pre_tokenizers

    if config.kind == "BPE":
        return pre_tokenizers.ByteLevel(add_prefix_space=True)
    splitters = {
        "words": pre_tokenizers.Whitespace, "whitespace": pre_tokenizers.WhitespaceSplit,
        "bert": pre_tokenizers.BertPreTokenizer,
    }  # fmt: skip
    split = splitters[config.split]()
    return pre_tokenizers.Sequence([split, pre_tokenizers.Metaspace()]) if config.kind == "Unigram" else split


def _learn_vocabulary(
    config: TrainedTokenizer, backend: Any, texts: Iterable[str], special: list[str]
) -> None:
    """Fill `backend`. The library's WordPiece and unigram trainers depend on the order of hash tables; those
    two are made exact here.
    """
    from tokenizers import AddedToken, models, pre_tokenizers, trainers

    common: dict[str, Any] = {
        "vocab_size": config.vocab_size, "show_progress": False,
        "special_tokens": [AddedToken(token, special=True, normalized=False) for token in special],
    }  # fmt: skip
    if config.kind == "WordLevel":
        backend.train_from_iterator(
            texts, trainers.WordLevelTrainer(min_frequency=config.min_frequency, **common)
        )
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
        scored = sorted(
            ((token, round(score, 6)) for token, score in pieces[len(special) :]),
            key=lambda item: (-item[1], item[0]),
        )
        backend.model = models.Unigram(
            [*map(tuple, pieces[: len(special)]), *scored], unk_id=content["model"]["unk_id"]
        )


def _wordpieces(config: WordPiece, backend: Any, texts: Iterable[str], special: list[str]) -> dict[str, int]:
    """WordPiece's vocabulary as byte-pair merges of words whose inner letters are symbols of their own (`##x`
    for x).

    Letters within a word are mapped to private code points, merged by the exact BPE trainer, and mapped back.
    Where letters alone are more than the vocabulary may hold, the most frequent stay.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, trainers

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(
            word for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
        )
    counts = _with_room_for_letters(config, counts, config.vocab_size - len(special))
    letters = sorted({letter for word in counts for letter in word[1:]})
    inner = {letter: chr(PRIVATE + index) for index, letter in enumerate(letters)}
    outer = {private: letter for letter, private in inner.items()}
    merges = Backend(models.BPE())
    merges.train_from_iterator(
        (
            word[0] + "".join(inner[letter] for letter in word[1:])
            for word, count in counts.items()
            for _ in range(count)
        ),
        trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            min_frequency=config.min_frequency,
            special_tokens=special,
            show_progress=False,
        ),
    )

    def piece(token: str) -> str:
        prefix = "##" if token[0] in outer else ""
        return token if token in special else prefix + "".join(outer.get(letter, letter) for letter in token)

    pieces = [piece(token) for token, _ in sorted(merges.get_vocab().items(), key=lambda item: item[1])]
    # `###` may be a word and an inner `#`: one id for both
    return {name: index for index, name in enumerate(dict.fromkeys(pieces))}


def _with_room_for_letters(config: WordPiece, counts: Counter[str], room: int) -> Counter[str]:
    """The words all of whose letters, first and inner ones apart, are among the `room` most frequent; tells
    what that leaves out.
    """
    often: Counter[tuple[bool, str]] = Counter()
    for word, count in counts.items():
        for index, letter in enumerate(word):
            often[index > 0, letter] += count
    if len(often) <= room:
        return counts
    kept = set(sorted(often, key=lambda place: (-often[place], place))[:room])
    print(
        f"tokenizer.vocab_size={config.vocab_size}: the training texts have {len(often):,} letters (first"
        f" ones of words and others apart); words with the {len(often) - room:,} rarest of them are unknown;"
        " raise tokenizer.vocab_size",
        flush=True,
    )
    return Counter(
        {
            word: count
            for word, count in counts.items()
            if all((index > 0, letter) in kept for index, letter in enumerate(word))
        }
    )
