"""The original joint pretraining (Devlin et al. 2019, §3.1 and §A.2): masked tokens and next sentences of the
same pairs, losses summed.

Heads and loss are those of transformers' BertForPreTraining. With `pairs=order` the second task is sentence
order (Lan et al. 2020).

Differs: see objectives/mlm.py and nsp.py. Where a step is taken in micro-batches, the pair loss of each is
weighted by its masked tokens.

Legend: B batch, T tokens, V vocabulary, M masked tokens of a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from bertlab.config.schema import choice
from bertlab.contracts import (
    Batch,
    Draw,
    Encode,
    Encoder,
    Examples,
    Head,
    HfHead,
    Loss,
    Metric,
    Objective,
    Vocabulary,
    loss_metric,
)
from bertlab.objectives._masking import (
    PER_TOKEN,
    Masked,
    Masking,
    mask_batch,
    masked_loss,
    masked_metrics,
    masked_specs,
    measure_masked,
)
from bertlab.objectives.mlm import HF_NAMES as MLM_NAMES
from bertlab.objectives.mlm import MlmHead, capped, show_masked
from bertlab.objectives.nsp import HF_NAMES as PAIR_NAMES
from bertlab.objectives.nsp import (
    SHARE_NEXT,
    Nsp,
    NspObjective,
    PairHead,
    measure_pairs,
    pair_metrics,
    prepare_runs,
)
from bertlab.objectives.sop import SopObjective


@dataclass
class MlmNsp(Masked, Nsp):
    """Pairs of texts with masked tokens: which tokens were hidden, and does the second text
    follow the first?
    """

    needs_documents: ClassVar = True
    prepared_by: ClassVar = Nsp.prepared_by
    loss_unit: ClassVar = "nats per masked token and per pair, summed"
    examples_add_up: ClassVar = False  # the pairs' mean is weighted by masked tokens

    pairs: str = choice(
        "next", "next", "order", help="next: random second texts (NSP); order: swapped texts (SOP)"
    )

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        """See `MlmNspObjective.scores`."""
        return (
            loss_metric(self.loss_unit, per_token=True), *masked_specs()[1:], loss_metric(PER_TOKEN,
            "masked_loss", per_token=True),
            loss_metric("nats per pair", "next_loss"),
            Metric("next_accuracy", higher_is_better=True), SHARE_NEXT,
        )  # fmt: skip

    def build(self, vocabulary: Vocabulary, _label_names: Sequence[str]) -> Objective:
        """The objective for one tokenizer's vocabulary; its two classes are its own."""
        return MlmNspObjective(self, vocabulary)

    def hf_head(self) -> HfHead | None:
        """Devlin's; of sentence order and of capped logits there is none."""
        return HfHead("PreTraining", HF_NAMES, **capped(self.logit_softcap)) if self.pairs == "next" else None

    def check(self, path: str) -> None:
        """Shares of a whole, something to split at."""
        Masked.check(self, path)
        Nsp.check(self, path)


class PretrainingHead(Head):
    """Both heads; outputs are logits over the vocabulary (M, V) and over pairs (B, 2)."""

    def __init__(self, encoder: Encoder, initializer_range: float, softcap: float | None = None) -> None:
        super().__init__()
        self.tokens, self.pairs = (
            MlmHead(encoder, initializer_range, softcap),
            PairHead(encoder.hidden_size, initializer_range),
        )

    def forward(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of both tasks."""
        return self.tokens(encoder, hidden, batch), self.pairs(encoder, hidden, batch)


HF_NAMES = {
    **{f"tokens.{ours}": theirs for ours, theirs in MLM_NAMES.items()},
    **{f"pairs.{ours}": theirs for ours, theirs in PAIR_NAMES.items()},
}


class MlmNspObjective(Objective):
    """See contracts.Objective."""

    def __init__(self, config: MlmNsp, vocabulary: Vocabulary) -> None:
        names = ("next", "random") if config.pairs == "next" else ("ordered", "swapped")
        super().__init__(config, vocabulary, names)
        self.config = config
        self.sentences = (NspObjective if config.pairs == "next" else SopObjective)(config, vocabulary, names)
        self.training = Masking(vocabulary, config.unit, config.mask_share, config.random_share)
        self.scoring = Masking(vocabulary, "token", 0.8, 0.1)

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Runs of sentences; see nsp.py."""
        return prepare_runs(split, encode, self.config)

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        """Pairs with tokens hidden; targets `next (B,)`, `masked (M,)`, `label (M,)`."""
        batch = self.sentences.collate(examples, rows, draw)
        targets, counts = mask_batch(
            self.config, self.training, self.scoring, batch.input_ids.numpy(), rows, draw
        )
        batch.targets |= targets
        batch.counts |= counts
        return batch

    def show(self, batch: Batch, token_of: Callable[[int], str]) -> list[str]:
        """With what is to be predicted behind what stands in its place, and the pair's class."""
        told = show_masked(batch, self.special.pad_id, token_of)
        return [
            f"{self.label_names[label]}: {line}"
            for label, line in zip(batch.targets["next"].tolist(), told, strict=True)
        ]

    def build_head(self, encoder: Encoder, initializer_range: float) -> PretrainingHead:
        """Both heads."""
        return PretrainingHead(encoder, initializer_range, self.config.logit_softcap)

    def loss(self, outputs: tuple[Tensor, Tensor], batch: Batch) -> Loss:
        """Nats per masked token plus nats per pair, counted as often as there are masked tokens; float32."""
        tokens, pairs = (
            masked_loss(outputs[0], batch, self.config.z_loss),
            self.sentences.loss(outputs[1], batch),
        )
        return Loss(tokens.total + pairs.total / pairs.count * tokens.count, tokens.count)

    def token_logits(self, outputs: tuple[Tensor, Tensor]) -> Tensor:
        """The first of both."""
        return outputs[0]

    def measure(self, outputs: tuple[Tensor, Tensor], batch: Batch) -> dict[str, np.ndarray]:
        """Sums over masked tokens and the pair's scores, of each example."""
        return {**measure_masked(outputs[0], batch, self.vocabulary), **measure_pairs(outputs[1], batch)}

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Loss (the sum of both), masked_loss, masked_accuracy, perplexity, bits_per_character; next_loss,
        next_accuracy, share_next.
        """
        masked, pairs = masked_metrics(measured), pair_metrics(measured)
        return {
            **masked,
            "loss": masked["loss"] + pairs["loss"],
            "masked_loss": masked["loss"],
            "next_loss": pairs["loss"],
            "next_accuracy": pairs["accuracy"],
            "share_next": pairs["share_next"],
        }

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """Of each pair: predicted and true class, probability of class 1; nats, right guesses,
        masked tokens.
        """
        names = ("nats", "right", "masked")
        tokens = zip(*(measured[name].tolist() for name in names), strict=True)
        pairs = self.sentences.predictions(measured)
        return [
            {**pair, **dict(zip(names, values, strict=True))}
            for pair, values in zip(pairs, tokens, strict=True)
        ]
