"""The original joint pretraining (Devlin et al. 2019, §3.1 and §A.2): masked tokens and next sentences of the same pairs, losses summed.

Heads and loss are those of transformers' BertForPreTraining. With `pairs=order` the second task is sentence order (Lan et al. 2020).

Differs: see objectives/mlm.py and nsp.py. Where a step is taken in micro-batches, the pair loss of each is weighted by its masked tokens.

Legend: B batch, T tokens, V vocabulary, M masked tokens of a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from bertlab.config import choice
from bertlab.contracts import Batch, Draw, Encode, Encoder, Examples, Loss, Metric, Vocabulary
from bertlab.objectives._masking import Masked, Masking, mask_batch, masked_loss, masked_metrics, measure_masked
from bertlab.objectives.mlm import HF_NAMES as MLM_NAMES
from bertlab.objectives.mlm import MlmHead
from bertlab.objectives.nsp import HF_NAMES as PAIR_NAMES
from bertlab.objectives.nsp import Nsp, NspObjective, PairHead, measure_pairs, pair_metrics, prepare_runs
from bertlab.objectives.sop import SopObjective

COLUMNS = ("text", "document")  # what a dataset must have
PREPARED_BY = ("max_length", "delimiters", "short_share")  # the options that decide what `prepare` makes
PREDICTS = False  # it has no labels to give to texts of the user's own


@dataclass
class MlmNsp(Masked, Nsp):
    """Pairs of texts with masked tokens: which tokens were hidden, and does the second text follow the first?"""

    pairs: str = choice("next", "next", "order", help="next: random second texts (NSP); order: swapped texts (SOP)")

    def check(self, path: str) -> None:
        """Shares of a whole, something to split at."""
        Masked.check(self, path)
        Nsp.check(self, path)


class PretrainingHead(nn.Module):
    """Both heads; outputs are logits over the vocabulary (M, V) and over pairs (B, 2)."""

    def __init__(self, encoder: Encoder, initializer_range: float) -> None:
        super().__init__()
        self.tokens, self.pairs = MlmHead(encoder, initializer_range), PairHead(encoder.hidden_size, initializer_range)

    def forward(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of both tasks."""
        return self.tokens(encoder, hidden, batch), self.pairs(encoder, hidden, batch)


HF_TASK = "PreTraining"
HF_NAMES = {
    **{f"tokens.{ours}": theirs for ours, theirs in MLM_NAMES.items()},
    **{f"pairs.{ours}": theirs for ours, theirs in PAIR_NAMES.items()},
}


class MlmNspObjective:
    """See contracts.Objective."""

    primary = Metric("loss", higher_is_better=False)

    def __init__(self, config: MlmNsp, vocabulary: Vocabulary) -> None:
        self.config, self.vocabulary = config, vocabulary
        self.sentences = NspObjective(config, vocabulary) if config.pairs == "next" else SopObjective(config, vocabulary)
        self.label_names = self.sentences.label_names
        self.training = Masking(vocabulary, config.unit, config.mask_share, config.random_share)
        self.scoring = Masking(vocabulary, "token", 0.8, 0.1)

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Runs of sentences; see nsp.py."""
        return prepare_runs(split, encode, self.config)

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        """Pairs with tokens hidden; targets `next (B,)`, `masked (M,)`, `label (M,)`."""
        batch = self.sentences.collate(examples, rows, draw)
        batch.targets |= mask_batch(self, batch.input_ids.numpy(), rows, draw)
        return batch

    def build_head(self, encoder: Encoder, initializer_range: float) -> nn.Module:
        """Both heads."""
        return PretrainingHead(encoder, initializer_range)

    def loss(self, outputs: tuple[Tensor, Tensor], batch: Batch) -> Loss:
        """Nats per masked token plus nats per pair, counted as often as there are masked tokens; float32."""
        tokens, pairs = masked_loss(outputs[0], batch), self.sentences.loss(outputs[1], batch)
        return Loss(tokens.total + pairs.total / pairs.count * tokens.count, tokens.count)

    def measure(self, outputs: tuple[Tensor, Tensor], batch: Batch) -> dict[str, np.ndarray]:
        """Sums over masked tokens and the pair's scores, of each example."""
        return {**measure_masked(outputs[0], batch, self.vocabulary), **measure_pairs(outputs[1], batch)}

    def metrics(self, measured: dict[str, np.ndarray]) -> dict[str, Any]:
        """Loss (the sum of both), masked_loss, masked_accuracy, perplexity, bits_per_character; next_loss, next_accuracy, share_next."""
        masked, pairs = masked_metrics(measured), pair_metrics(measured)
        return {
            **masked,
            "loss": masked["loss"] + pairs["loss"],
            "masked_loss": masked["loss"],
            "next_loss": pairs["loss"],
            "next_accuracy": pairs["accuracy"],
            "share_next": pairs["share_next"],
        }

    def predictions(self, measured: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        """Of each pair: predicted and true class, probability of class 1; nats, right guesses, masked tokens."""
        names = ("nats", "right", "masked")
        tokens = zip(*(measured[name].tolist() for name in names), strict=True)
        pairs = self.sentences.predictions(measured)
        return [{**pair, **dict(zip(names, values, strict=True))} for pair, values in zip(pairs, tokens, strict=True)]


def build(config: MlmNsp, vocabulary: Vocabulary, _label_names: Sequence[str]) -> MlmNspObjective:
    """The objective for one tokenizer's vocabulary; its two classes are its own."""
    return MlmNspObjective(config, vocabulary)
