"""Sentence-order prediction (Lan et al. 2020, ALBERT, §3.1): two consecutive texts of a document, in order or swapped?

Examples and lengths are those of next-sentence prediction; topic gives nothing away, since both texts are of the same document.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bertlab.contracts import Examples, Vocabulary
from bertlab.objectives.nsp import Nsp, NspObjective, cut_run

COLUMNS = ("text", "document")  # what a dataset must have
PREPARED_BY = ("max_length", "delimiters", "short_share")  # the options that decide what `prepare` makes
PREDICTS = False  # it has no labels to give to texts of the user's own


@dataclass
class Sop(Nsp):
    """`[CLS] A [SEP] B [SEP]`: in the document's order (class 0) or swapped (class 1)?"""


class SopObjective(NspObjective):
    """See contracts.Objective."""

    def pair(self, examples: Examples, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
        """First text, second text, class."""
        first, second = cut_run(examples, row, rng)
        return (first, second, 0) if rng.random() < 0.5 else (second, first, 1)


def build(config: Sop, vocabulary: Vocabulary, _label_names: Sequence[str]) -> SopObjective:
    """The objective for one tokenizer's vocabulary; its two classes are its own."""
    return SopObjective(config, vocabulary, ("ordered", "swapped"))
