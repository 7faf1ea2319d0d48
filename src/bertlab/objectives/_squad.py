"""How answers are compared in SQuAD (Rajpurkar et al. 2016; 2018): exact match and F1 of words, after the
same normalisation.

Both editions' evaluation agrees on answers that hold a word. Where one does not (it is empty, or nothing but
articles and punctuation), the second edition leaves it out of the accepted ones, and an answer without words
scores 1 where nothing else is accepted; the first has no such rule.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII's alone


def normalised(answer: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(NO_PUNCTUATION)).split())


def word_f1(said: str, accepted: str, may_be_none: bool) -> float:
    """F1 of the two bags of words; `may_be_none`: the second edition's rule for answers without words."""
    ours, theirs = normalised(said).split(), normalised(accepted).split()
    if may_be_none and not (ours and theirs):
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def compare(said: str, accepted: Sequence[str], may_be_none: bool) -> tuple[float, float]:
    """Exact match and F1 of one answer with the accepted one that suits it best; no accepted answers: none is
    right.
    """
    answers = [answer for answer in accepted if not may_be_none or normalised(answer)] or [""]
    exact = max(float(normalised(said) == normalised(answer)) for answer in answers)
    return exact, max(word_f1(said, answer, may_be_none) for answer in answers)
