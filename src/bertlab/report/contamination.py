"""Evaluation texts that a run, or its pretraining, has read: whole, inside longer texts, or nearly (Brown et
al. 2020, appendix C; n-gram overlap after normalisation).

Texts are compared by their letters and digits, lower case, without accents. `whole`: the evaluation text is a
training text. `inside`: it stands within a longer one. `near`: at least 85 % of its word 3-grams stand in one
training text, or at least 75 % of its words within word 8-grams that stand in any of them, all together (the
share of tokens as Touvron et al. 2023, "Llama 2", appendix A.6). What more than ten evaluation texts have in
common, the words of a template, shows nothing of the second kind for any of them: there the share is of a
text's other words. Ten words must be found, for shorter pieces are idiom. Texts of fewer than `SHORTEST`
words that stand inside longer ones (`short`) are mostly stock phrases, and counted apart.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertlab.runs.progress import each

NGRAM = 3
NEAR = 0.85
SHORTEST = 5  # words
KINDS = ("whole", "inside", "short", "near")
COMMON = 200  # evaluation texts that may share a 3-gram before it tells nothing about which one was read
LONG_NGRAM = 8
COVERED, LEAST_COVERED = 0.75, 10  # of the words, and how many
TEMPLATE = 10  # evaluation texts that may share a longer n-gram before it counts for a template's


@dataclass(frozen=True)
class Contamination:
    """Which rows of an evaluation split were read in training."""

    split: str
    source: str  # e.g. "training" or the pretraining's name
    rows: int
    whole: np.ndarray  # (rows,) bool
    inside: np.ndarray  # (rows,) bool, not whole
    short: np.ndarray  # (rows,) bool, inside, of fewer than SHORTEST words
    near: np.ndarray  # (rows,) bool, none of the others

    @property
    def seen(self) -> np.ndarray:
        """(rows,) bool: whole, inside or near; stock phrases are not held against a score."""
        seen_rows: np.ndarray = self.whole | self.inside | self.near
        return seen_rows

    def record(self) -> dict[str, Any]:
        """As JSON has it: of each kind the rows' numbers."""
        found = {name: np.flatnonzero(getattr(self, name)).tolist() for name in KINDS}
        return {"split": self.split, "rows": self.rows, **found}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], source: str) -> "Contamination":
        """Inverse of `record`."""
        found = {name: np.isin(np.arange(record["rows"]), record[name]) for name in KINDS}
        return cls(record["split"], source, record["rows"], **found)


def words_of(text: str) -> list[str]:
    """Lower-case words of letters and digits, accents dropped; `it 's` and `it's` become the same."""
    plain = "".join(
        char for char in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(char)
    )
    return re.findall(
        r"[^\W_]+", re.sub(r"\s*(?:n['’](?=t\b)|['’](?=(?:s|t|re|ve|d|ll|m)\b))", _joined, plain)
    )


def _joined(match: re.Match[str]) -> str:
    return "n" if match[0].strip().startswith("n") else ""


def check_contamination(
    split: str, source: str, evaluated: Sequence[str], trained: Iterable[str]
) -> Contamination:
    """Find each of `evaluated` in `trained`, which is read once and may be long."""
    wanted = [words_of(text) for text in evaluated]
    letters = ["".join(words) for words in wanted]
    by_letters: dict[str, list[int]] = defaultdict(list)
    for row, joined in enumerate(letters):
        by_letters[joined].append(row)
    grams = [_grams(words) for words in wanted]
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, own in enumerate(grams):
        for gram in own:
            rows_of[gram].append(row)
    # whatever its texts have in common, one that stands verbatim has the rarest 3-gram of one of its halves;
    # of both, since words may be parted otherwise there ("cannot")
    anchored: dict[int, list[int]] = defaultdict(list)
    for row, words in enumerate(wanted):
        if len(words) >= SHORTEST:
            for half in (words[: len(words) // 2 + NGRAM - 1], words[len(words) // 2 :]):
                if len(half) >= NGRAM:
                    anchored[min(_in_order(half), key=lambda gram: len(rows_of[gram]))].append(row)
    pieces = _Pieces(wanted)
    # short texts by their longest word, the rarest as a rule
    phrases: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row, words in enumerate(wanted):
        if 0 < len(words) < SHORTEST:
            phrases[max(words, key=len)].append((row, f" {' '.join(words)} "))
    whole, inside, short, near = (np.zeros(len(wanted), dtype=bool) for _ in range(4))
    for text in each(trained, f"looking for {split} texts in {source}", unit="texts"):
        words = words_of(text)
        joined = "".join(words)
        for row in by_letters.get(joined, ()):
            whole[row] = True
        if telling := phrases.keys() & set(words):
            spaced = f" {' '.join(words)} "
            for row, phrase in (one for word in telling for one in phrases[word]):
                short[row] |= phrase in spaced
        hits: Counter[int] = Counter()
        for gram in _grams(words):
            rows = rows_of.get(gram)
            if rows is not None and len(rows) <= COMMON:
                hits.update(rows)
            for row in anchored.get(gram, ()):
                if not inside[row] and len(joined) > len(letters[row]):
                    inside[row] = letters[row] in joined
        pieces.read(words)
        for row, count in hits.items():
            if whole[row] or (inside[row] and near[row]) or len(wanted[row]) < SHORTEST:
                continue
            if count >= NEAR * len(grams[row]):
                near[row] = True
                inside[row] |= len(joined) > len(letters[row]) and letters[row] in joined
    near |= pieces.covered()
    inside &= ~whole
    short &= ~whole
    near &= ~whole & ~inside
    return Contamination(split, source, len(wanted), whole, inside, short, near)


class _Pieces:
    """Which words of the evaluation texts stand within long n-grams of what is read, all of it together."""

    def __init__(self, wanted: Sequence[Sequence[str]]) -> None:
        self.places: dict[int, list[tuple[int, int]]] = defaultdict(list)  # n-gram -> (row, its first word)
        for row, words in enumerate(wanted):
            for start, gram in enumerate(_long_grams(words)):
                self.places[gram].append((row, start))
        self.found = [np.zeros(len(words), dtype=bool) for words in wanted]
        self.own = [np.ones(len(words), dtype=bool) for words in wanted]
        texts = [" ".join(words) for words in wanted]
        for gram, places in list(self.places.items()):
            if len({texts[row] for row, _ in places}) > TEMPLATE:
                for row, start in places:
                    self.own[row][start : start + LONG_NGRAM] = False
                del self.places[gram]

    def read(self, words: Sequence[str]) -> None:
        """One training text."""
        for gram in _long_grams(words):
            if (places := self.places.get(gram)) is not None:
                for row, start in places:
                    self.found[row][start : start + LONG_NGRAM] = True
                del self.places[gram]  # need not be found again

    def covered(self) -> np.ndarray:
        """(rows,) bool: those of which enough stands in what was read."""
        return np.array(
            [
                (found & own).sum() >= max(LEAST_COVERED, COVERED * own.sum())
                for found, own in zip(self.found, self.own, strict=True)
            ],
            dtype=bool,
        )


def _in_order(words: Sequence[str], length: int = NGRAM) -> list[int]:
    """N-grams in their order, of shorter texts none. The numbers differ between processes: only their
    equality and order tell anything.
    """
    return [hash(tuple(words[start : start + length])) for start in range(len(words) - length + 1)]


def _grams(words: Sequence[str]) -> set[int]:
    return set(_in_order(words))


def _long_grams(words: Sequence[str]) -> list[int]:
    return _in_order(words, LONG_NGRAM)
