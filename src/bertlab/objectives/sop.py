"""Sentence-order prediction (Lan et al. 2020, ALBERT, §3.1): two consecutive texts of a document, in order or
swapped?

Examples and lengths are those of next-sentence prediction; topic gives nothing away, since both texts are of
the same document.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bertlab.contracts import Examples, HfHead, Objective, Vocabulary
from bertlab.objectives.nsp import HF_NAMES, Nsp, NspObjective, cut_run


@dataclass
class Sop(Nsp):
    """`[CLS] A [SEP] B [SEP]`: in the document's order (class 0) or swapped (class 1)?"""

    def build(self, vocabulary: Vocabulary, _label_names: Sequence[str]) -> Objective:
        """The objective for one tokenizer's vocabulary; its two classes are its own."""
        return SopObjective(self, vocabulary, ("ordered", "swapped"))

    def hf_head(self) -> HfHead:
        """That of next-sentence prediction: the same two logits; its config names the classes."""
        return HfHead("NextSentencePrediction", HF_NAMES, names_classes=True)


class SopObjective(NspObjective):
    """See contracts.Objective."""

    def pair(
        self, examples: Examples, row: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """First text, second text, class."""
        first, second = cut_run(examples, row, rng)
        return (first, second, 0) if rng.random() < 0.5 else (second, first, 1)
