"""What becomes of texts before a model reads them: unknown tokens, letters lost with them, texts cut, words
that become one.

Counted while a split is tokenised, told before training and in the summary.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bertlab.config.schema import Train
from bertlab.contracts import Examples, shortened
from bertlab.data.dataset import Origin
from bertlab.data.row_checks import answer_text
from bertlab.data.tokenizer import Tokenizer
from bertlab.declarations import Role
from bertlab.errors import DataError
from bertlab.runs.progress import Work

# `\w` would end words at the vowel signs of Indic scripts
WORD = re.compile(r"[^\s!-/:-@\[-`{-~،。、，！？।]+")
HEAD = 2  # rows that are shown before training
READ = 2_000_000  # characters looked through for words that merge
MANY = (
    0.02  # share of different words that stripping makes one, above which it is told; English is below 0.01
)
MANY_BY_CASE = 0.5  # and that lower-casing does; English is at 0.25 to 0.36


class CountedTexts:
    """A tokenizer, as contracts.Encode, that counts what it makes of its texts (of tagging: words; of
    sentence pairs: sentences).
    """

    def __init__(self, tokenizer: Tokenizer, work: Work | None = None) -> None:
        self.work = work or Work("")
        self.tokenizer, self.unknown_id = tokenizer, tokenizer.special.unk_id
        special = tokenizer.special
        self.frame = [special.pad_id, special.cls_id, special.sep_id]
        self.words = 0  # as white space cuts texts
        self.texts = self.tokens = self.unknown = self.unknown_texts = self.characters = self.lost = 0
        self.examples = self.examples_cut = self.read = self.cut = self.windows = self.rows = 0

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        return [ids for ids, _ in self._encoded(texts)]

    def with_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """The same with places in the text."""
        return [(ids, item.offsets) for ids, item in self._encoded(texts)]

    def _encoded(self, texts: Sequence[str]) -> list[tuple[list[int], Any]]:
        encoded = [
            (item.ids, item)
            for item in self.tokenizer.backend.encode_batch(list(texts), add_special_tokens=False)
        ]
        self.texts += len(texts)
        self.work.advance(len(texts))
        for text, (ids, item) in zip(texts, encoded, strict=True):
            self.tokens += len(ids)
            self.words += len(text.split())
            self.characters += len(text) - text.count(" ")
            if self.unknown_id in ids:
                unknown = ids.count(self.unknown_id)
                self.unknown += unknown
                self.unknown_texts += unknown == len(ids)
                self.lost += sum(
                    end - start
                    for token, (start, end) in zip(ids, item.offsets, strict=True)
                    if token == self.unknown_id
                )
        return encoded

    def watch(self, pieces: Iterable[Examples]) -> Iterator[Examples]:
        """The same pieces; counts what their columns `cut` and `row` say."""
        for piece in pieces:
            if "row" in piece.columns:
                self.windows += len(piece)
                self.rows += len(np.unique(piece.columns["row"]))
            if "cut" in piece.columns:
                cut = piece.columns["cut"]
                self.examples += len(cut)
                self.examples_cut += int((cut > 0).sum())
                self.cut += int(cut.sum())
                self.read += int((~np.isin(piece.tokens, self.frame)).sum())
            yield piece

    def shares(self) -> dict[str, float]:
        """Words (as white space cuts them); shares of tokens, texts, characters, and of examples and tokens
        cut where that is counted.
        """
        shares: dict[str, float] = {
            "words": self.words,
            "unknown_share": self.unknown / max(1, self.tokens),
            "unknown_texts": self.unknown_texts / max(1, self.texts),
            "characters_lost": self.lost / max(1, self.characters),
        }
        if self.examples:
            shares |= {
                "truncated_share": self.examples_cut / self.examples,
                "tokens_cut": self.cut / max(1, self.cut + self.read),
            }
        if self.rows:
            shares["windows_per_text"] = self.windows / self.rows
        return shares


def merged_words(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Which share of the different words (of the first texts) reading makes one with another, by more than
    case and by case; a pair.
    """
    normalizer = tokenizer.backend.normalizer
    if normalizer is None:
        return {}
    counts: Counter[str] = Counter()
    read = 0
    for text in texts:
        counts.update(WORD.findall(unicodedata.normalize("NFC", text)))
        read += len(text)
        if read > READ:
            break
    lowers = normalizer.normalize_str("A") == "a"
    cases: dict[str, Counter[str]] = {}
    groups: dict[str, Counter[str]] = {}
    for word, count in counts.items():
        cases.setdefault(word.lower() if lowers else word, Counter())[word] += count
    for word, forms in cases.items():
        groups.setdefault(normalizer.normalize_str(word), Counter())[word] += forms.total()
    merged = [forms for forms in groups.values() if len(forms) > 1]
    told: dict[str, Any] = {
        "merged": sum(map(len, merged)) / max(1, len(cases)),
        "merged_by_case": sum(len(forms) for forms in cases.values() if len(forms) > 1) / max(1, len(counts)),
    }
    if merged:
        pairs = [sorted(forms, key=lambda word: (-cases[word].total(), word))[:2] for forms in merged]
        told["merged_pair"] = max(pairs, key=lambda pair: (min(cases[word].total() for word in pair), pair))
    return told


def refuse_unknown(config: Train, texts: dict[str, dict[str, Any]]) -> None:
    """Raises DataError where more of a split is unknown, of its tokens or of its characters, than
    `tokenizer.max_unknown_share`.
    """
    limit = config.tokenizer.max_unknown_share
    for split in ("train", "validation"):
        for what, name in (("tokens", "unknown_share"), ("characters", "characters_lost")):
            if split in texts and (share := texts[split][name]) > limit:
                raise DataError(
                    f"tokenizer={config.tokenizer.name}: {share:.0%} of the {split} split's {what} are"
                    f" unknown, more than tokenizer.max_unknown_share={limit:g}; tokenizer=bpe knows every"
                    " text, a larger tokenizer.vocab_size or a smaller min_frequency more words, wordpiece's"
                    " max_word_characters longer ones"
                )


def head_lines(
    rows: Any,
    roles: Sequence[Role],
    names: Sequence[str],
    examples: Examples,
    tokenizer: Tokenizer,
    origin: Origin,
) -> list[str]:
    """The first rows as they were read, the first example as tokens and decoded back: what the model sees,
    for a person who looks.
    """
    lines = [
        f"{origin.said(place)} as read: "
        + "  ".join(
            f"{role.name}={shortened(repr(answer_text(role, rows[place][role.name], names)))}"
            for role in roles
        )
        for place in range(min(HEAD, len(rows)))
    ]
    ids = [int(token) for token in examples[0]]
    tokens = [str(tokenizer.backend.id_to_token(token)) for token in ids]
    return [*lines, f"first of {len(examples):,} examples as tokens: {shortened(' '.join(tokens), 200)}",
            f"decoded back: {shortened(tokenizer.decode(ids), 200)}"]  # fmt: skip


def describe_texts(config: Train, texts: dict[str, dict[str, Any]]) -> list[str]:
    """Lines for a person before training: unknown tokens always, what is cut and which words become one where
    it matters.
    """
    lines = [
        "unknown tokens: "
        + "; ".join(
            f"{split} {shares['unknown_share']:.2%} (texts of nothing else {shares['unknown_texts']:.2%}, "
            f"characters lost {shares['characters_lost']:.2%})"
            for split, shares in texts.items()
            if split != "test"
        )
    ]
    train = texts["train"]
    if "windows_per_text" in train:
        lines.append(
            "texts are read in windows: "
            + "; ".join(f"{split} {shares['windows_per_text']:.2f} a text" for split, shares in texts.items())
        )
    for split, shares in texts.items():
        if shares.get("truncated_share"):
            lines.append(
                f"{shares['truncated_share']:.1%} of the {split} texts are cut at"
                f" objective.max_length={config.objective.max_length}, {shares['tokens_cut']:.1%} of the"
                " split's tokens"
            )
    trained = config.tokenizer.learns
    if train.get("merged", 0) > MANY:
        keeps = (
            "tokenizer.strip_accents=false keeps them apart"
            if trained
            else "another tokenizer may keep them apart"
        )
        first, second = train["merged_pair"]
        lines.append(
            f"{train['merged']:.1%} of the different words become one with another, e.g. {first} and"
            f" {second}; {keeps}"
        )
    if train.get("merged_by_case", 0) > MANY_BY_CASE:
        keeps = (
            "tokenizer.lowercase=false keeps them apart"
            if trained
            else "another tokenizer may keep them apart"
        )
        lines.append(
            f"{train['merged_by_case']:.1%} of the different words become one with another by lower-casing;"
            f" {keeps}"
        )
    return lines
