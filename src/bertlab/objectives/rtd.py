"""Replaced-token detection (Clark et al. 2020, ELECTRA, §2): a small generator fills masked positions, the
encoder says of every token whether it is the original.

The generator is a narrower copy of the encoder with the encoder's token embedding (§3.2), trained by
masked-language modelling in the same step; its samples carry no gradient. After pretraining the encoder is of
use, and with it the detector; the generator stays behind.

Differs: what the generator samples is drawn from numbers keyed by (seed, epoch, example), so that a resumed
run samples the same; the position embedding is not shared.

The detector's loss is no measure of progress between steps: its task becomes harder as the generator
improves. Pretrain with `evaluation.keep=last`.

Legend: B batch, T tokens, D width of the encoder, G width of the generator, V vocabulary, M masked tokens of
a batch.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bertlab.config.schema import choice, integer, number
from bertlab.contracts import (
    FIXED,
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
from bertlab.objectives._masking import Masking, masked_loss, masked_metrics, masked_specs, measure_masked
from bertlab.objectives.mlm import Mlm, MlmHead, MlmObjective

SAMPLES = 2  # the stream of what the generator samples
NOTE = (
    "The detector of replaced tokens: of each token a logit, positive where it takes the token for one that"
    " was put in another's place. The generator that put them there in training stayed behind; parameters and"
    " scores below are of both."
)


@dataclass
class Rtd(Mlm):
    """Detect tokens that a small generator put in place of masked ones."""

    mask_share: float = number(
        1.0, "of the tokens that the generator predicts, how many it sees masked", low=0, high=1
    )
    random_share: float = number(
        0.0, "of these, how many it sees as any token of the vocabulary", low=0, high=1
    )
    unit: str = choice(
        "token",
        "token",
        "word",
        "span",
        help="what is masked together: a token, a whole word, a span of words",
    )
    generator_width: float = number(
        0.25, "the generator's width, heads and feed-forward as a share of the encoder's", above=0, high=1
    )
    generator_layers: int | None = integer(None, "the generator's layers; null = the encoder's", low=1)
    detection_weight: float = number(
        50.0, "weight of the encoder's loss beside the generator's (Clark et al. 2020: 50)", above=0
    )

    predicts_tokens: ClassVar = False  # the generator does, of which nothing is kept
    folds: ClassVar = False
    loss_unit: ClassVar = (
        "nats per token, detector; in training weighted, with the generator's per masked token"
    )
    examples_add_up: ClassVar = False  # the detector's mean is weighted by masked tokens

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        """See `RtdObjective.scores`."""
        rates = ("accuracy", "precision", "recall")
        return (
            loss_metric("nats per token", per_token=True),
            *(Metric(f"detection_{name}", higher_is_better=True, per_token=True) for name in rates),
            *masked_specs("generator_"),
        )

    def build(self, vocabulary: Vocabulary, _label_names: Sequence[str]) -> Objective:
        """The objective for one tokenizer's vocabulary; it has no classes."""
        return RtdObjective(self, vocabulary)

    def hf_head(self) -> HfHead:
        """The detector, as ELECTRA's discriminator has it; there its activation is the encoder's."""
        names = {"detector.0": "dense", "detector.2": "dense_prediction"}
        return HfHead(
            "PreTraining",
            {ours: f"discriminator_predictions.{theirs}" for ours, theirs in names.items()},
            reads_pooler=False,
            family="electra",
            needs={"hidden_act": "gelu"},
            kind="ReplacedTokens",
            note=NOTE,
        )


@dataclass
class Outputs:
    """What one batch gives."""

    generated: Tensor  # (M, V) logits of the generator
    detected: Tensor  # (B, T) logits, positive = replaced
    replaced: Tensor  # (B, T) bool, what is true
    real: Tensor  # (B, T) bool, tokens that are not padding


class SharedEmbedding(nn.Module):
    """Another module's token embedding (V, E), projected to a narrower width G; only the projection is a
    weight of this module.
    """

    def __init__(self, source: Encoder, width: int, initializer_range: float) -> None:
        super().__init__()
        self._source = (source,)  # in a tuple, so that it is not registered here a second time
        self.projection = _linear(source.token_weight().shape[1], width, initializer_range)

    def forward(self, ids: Tensor) -> Tensor:
        """`(B, T)` ids to `(B, T, G)`."""
        embedded: Tensor = self.projection(F.embedding(ids, self._source[0].token_weight()))
        return embedded


def _linear(inputs: int, outputs: int, initializer_range: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=initializer_range)
    nn.init.zeros_(layer.bias)
    return layer


class DetectorHead(Head):
    """The detector alone, (B, T) logits of tokens as they are."""

    def __init__(self, detector: nn.Sequential) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, _encoder: Encoder, hidden: Tensor, _batch: Batch) -> Tensor:
        """Positive = replaced."""
        logits: Tensor = self.detector(hidden)[..., 0]
        return logits


class RtdHead(Head):
    """Generator with its head, and the detector on the encoder's states: dense, GELU, one logit (ELECTRA's
    discriminator head).
    """

    rewrites = True

    def __init__(self, config: Rtd, encoder: Encoder, initializer_range: float) -> None:
        super().__init__()
        self.generator = encoder.narrower(config.generator_width, config.generator_layers)
        width, narrow = encoder.hidden_size, self.generator.hidden_size
        self.generator.replace_embedding(SharedEmbedding(encoder, narrow, initializer_range))
        self.to_embedding = _linear(narrow, width, initializer_range)
        self.generator_head = MlmHead(encoder, initializer_range, config.logit_softcap)
        self.detector = nn.Sequential(
            _linear(width, width, initializer_range), nn.GELU(), _linear(width, 1, initializer_range)
        )

    def rewrite(self, encoder: Encoder, batch: Batch) -> Batch:
        """The batch as the encoder reads it: masked positions filled by samples of the generator; its logits
        among the targets.
        """
        # (B, T, D)
        hidden = self.to_embedding(self.generator(batch.input_ids, batch.segment_ids, batch.attention_mask))
        logits = self.generator_head.projection(encoder, hidden, batch).logits()  # (M, V)
        with torch.no_grad():
            cumulated = torch.softmax(logits.float(), -1).cumsum(-1)
            point = batch.targets["uniform"][:, None] * cumulated[:, -1:]
            sampled = torch.searchsorted(cumulated, point).clamp(max=logits.shape[-1] - 1)[:, 0]
        ids = batch.input_ids.flatten().scatter(0, batch.targets["masked"], sampled).view_as(batch.input_ids)
        replaced = torch.zeros_like(ids, dtype=torch.bool).flatten()
        replaced = replaced.scatter(0, batch.targets["masked"], sampled != batch.targets["label"]).view_as(
            ids
        )
        return dataclasses.replace(
            batch, input_ids=ids, targets={**batch.targets, "generated": logits, "replaced": replaced}
        )

    def exported(self) -> DetectorHead:
        """Without the generator."""
        return DetectorHead(self.detector)

    def forward(self, _encoder: Encoder, hidden: Tensor, batch: Batch) -> Outputs:
        """Logits of generator and detector."""
        detected = self.detector(hidden)[..., 0]
        mask = batch.attention_mask
        real = (
            torch.ones_like(detected, dtype=torch.bool)
            if mask is None
            else mask
            if mask.ndim == 2
            else mask.any(-1)
        )
        return Outputs(batch.targets["generated"], detected, batch.targets["replaced"], real)


class RtdObjective(Objective):
    """See contracts.Objective."""

    def __init__(self, config: Rtd, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.config = config
        self.masked = MlmObjective(config, vocabulary, scoring=Masking(vocabulary, "token", 1.0, 0.0))

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Blocks, as for masked-language modelling."""
        return self.masked.prepare(split, encode)

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        """Blocks with tokens masked; beside `masked` and `label (M,)` a number in [0, 1) each, `uniform`, to
        sample by.
        """
        batch = self.masked.collate(examples, rows, draw)
        counts = torch.bincount(
            batch.targets["masked"] // batch.input_ids.shape[1], minlength=len(rows)
        ).tolist()
        drawn = [
            (draw or FIXED).generator(int(row), SAMPLES).random(count, dtype=np.float32)
            for row, count in zip(rows, counts, strict=True)
        ]
        batch.targets["uniform"] = torch.from_numpy(np.concatenate(drawn))
        return batch

    def show(self, batch: Batch, token_of: Callable[[int], str]) -> list[str]:
        """As the generator sees it."""
        return self.masked.show(batch, token_of)

    def build_head(self, encoder: Encoder, initializer_range: float) -> RtdHead:
        """Generator and detector. Raises ConfigError for a model of which there is no narrower copy."""
        return RtdHead(self.config, encoder, initializer_range)

    def loss(self, outputs: Outputs, batch: Batch) -> Loss:
        """The generator's nats, summed over masked tokens, and the detector's per token, weighted, counted as
        often.
        """
        generator = masked_loss(outputs.generated, batch, self.config.z_loss)
        losses = F.binary_cross_entropy_with_logits(
            outputs.detected.float(), outputs.replaced.float(), reduction="none"
        )
        detector = (losses * outputs.real).sum() / outputs.real.sum()
        return Loss(
            generator.total + self.config.detection_weight * generator.count * detector, generator.count
        )

    def measure(self, outputs: Outputs, batch: Batch) -> dict[str, np.ndarray]:
        """Of each example: the generator's sums over masked tokens; the detector's over all tokens."""
        losses = F.binary_cross_entropy_with_logits(
            outputs.detected.float(), outputs.replaced.float(), reduction="none"
        )
        called = (outputs.detected > 0) & outputs.real
        sums = {
            "detection_nats": losses * outputs.real,
            "tokens": outputs.real,
            "correct": (called == outputs.replaced) & outputs.real,
            "replaced": outputs.replaced,
            "called": called,
            "caught": called & outputs.replaced,
        }
        by_example = {name: values.cpu().double().sum(-1).numpy() for name, values in sums.items()}
        return {**measure_masked(outputs.generated, batch, self.vocabulary), **by_example}

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Loss (nats per token of the detector), detection accuracy, precision and recall of replaced tokens;
        the generator's scores.
        """
        total = {name: float(values.sum()) for name, values in measured.items() if name != "row"}
        return {
            "loss": total["detection_nats"] / total["tokens"],
            "detection_accuracy": total["correct"] / total["tokens"],
            "detection_precision": total["caught"] / max(1.0, total["called"]),
            "detection_recall": total["caught"] / max(1.0, total["replaced"]),
            **{f"generator_{name}": value for name, value in masked_metrics(measured).items()},
        }

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """Nats, tokens, replaced tokens and how many of them were caught, of each block."""
        names = ("detection_nats", "tokens", "replaced", "caught")
        return [
            dict(zip(names, values, strict=True))
            for values in zip(*(measured[name].tolist() for name in names), strict=True)
        ]
