"""Masked next-token prediction beside causal language modelling (Charpentier & Samuel 2024, "GPT or BERT: why
not both?", §3).

As in masked-language modelling tokens are hidden and the encoder sees both sides, but a hidden token is
predicted from the state at the position before it. That is what a causal language model does as well, so that
one model can learn both ways: of the share of examples that `causal_share` says, nothing is hidden, no token
sees those after it, and each position predicts the token that follows.

Scores are of masked tokens, seen from both sides, with the same fixed draw as those of objective=mlm.

Differs: which examples are causal is drawn anew in every epoch, example by example (keyed by seed, epoch,
example), where the paper gives them to different devices. A causal prediction weighs as much as
`causal_weight` masked ones; with null every example weighs about the same however it is read, as there.

Legend: B batch, T tokens, V vocabulary, M masked tokens of a batch, N next tokens of its causal examples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bertlab.config.schema import number
from bertlab.contracts import Batch, Draw, Examples, HfHead, Loss, Objective, Vocabulary, pad_rows
from bertlab.objectives._masking import Projection, mask_batch, vocabulary_loss
from bertlab.objectives.mlm import Mlm, MlmObjective, block_attention, show_masked

CAUSAL = 3  # the stream that draws which examples are read causally


@dataclass
class Mntp(Mlm):
    """Hide tokens and predict each from the position before it; a share of examples is read causally."""

    predicts_tokens: ClassVar = False  # not where they stand
    folds: ClassVar = False  # a piece's first token would be predicted from the piece before

    causal_share: float = number(
        0.0,
        "share of training examples that are read left to right, every next token predicted",
        low=0,
        high=1,
    )
    causal_weight: float | None = number(
        None, "weight of a next token beside that of a masked one; null = rate", above=0
    )

    def build(self, vocabulary: Vocabulary, _label_names: Sequence[str]) -> Objective:
        """The objective for one tokenizer's vocabulary; it has no classes."""
        return MntpObjective(self, vocabulary)

    def hf_head(self) -> HfHead | None:
        """None: there a token is predicted where it stands."""
        return None


class MntpObjective(MlmObjective):
    """See contracts.Objective; the head is that of masked-language modelling, read one position earlier."""

    config: Mntp

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        """Targets `masked (M + N,)`, flat positions that predict; `label (M,)`, hidden tokens, and `following
        (N,)`, of causal examples.
        """
        ids, inside = pad_rows([examples[row] for row in rows], self.special.pad_id)
        causal = self._causal(rows, draw)
        read = np.flatnonzero(~causal)  # these are seen from both sides
        hidden = ids[read]
        targets: dict[str, Tensor] = {}
        counts: dict[str, tuple[float, float]] = {}
        if len(read):
            targets, counts = mask_batch(self.config, self.training, self.scoring, hidden, rows[read], draw)
        places = targets["masked"].numpy() if targets else np.zeros(0, np.int64)
        label = targets["label"] if targets else torch.zeros(0, dtype=torch.int64)
        width = ids.shape[1]
        places = read[places // width] * width + places % width
        # never the first place, which holds [CLS]
        follows = np.flatnonzero(causal[:, None] & ~self.vocabulary.is_special[ids])
        following = torch.from_numpy(ids.flatten()[follows])
        ids[read] = hidden
        if draw is not None:
            counts["causal_share"] = (float(causal.sum()), float(len(rows)))
        tensor = torch.from_numpy(ids)
        return Batch(
            tensor, torch.zeros_like(tensor), self._seen(ids, inside, causal),
            {"masked": torch.from_numpy(np.concatenate((places, follows)) - 1), "label": label,
            "following": following},
            int(inside.sum()), len(rows), counts,
        )  # fmt: skip

    def _causal(self, rows: np.ndarray, draw: Draw | None) -> np.ndarray:
        """`(B,) bool`: which of these examples are read left to right; none when scoring."""
        if draw is None or self.config.causal_share == 0:
            return np.zeros(len(rows), dtype=bool)
        return np.array(
            [draw.generator(int(row), CAUSAL).random() < self.config.causal_share for row in rows]
        )

    def _seen(self, ids: np.ndarray, inside: np.ndarray, causal: np.ndarray) -> Tensor | None:
        """Which tokens see which, as contracts.Batch has it."""
        seen = inside if self.config.attend_across else block_attention(ids, inside, self.special.sep_id)
        if causal.any():
            seen = seen if seen.ndim == 3 else np.repeat(seen[:, None], ids.shape[1], axis=1)
            seen = seen & (~causal[:, None, None] | np.tri(ids.shape[1], dtype=bool))
        return None if seen.all() else torch.from_numpy(seen)

    def loss(self, outputs: Tensor | Projection, batch: Batch) -> Loss:
        """Cross-entropy in nats, summed over masked tokens and, weighted, over next tokens of causal
        examples; float32.
        """
        label, following = batch.targets["label"], batch.targets["following"]
        masked = vocabulary_loss(_part(outputs, slice(len(label))), label, self.config.z_loss)
        if not len(following):
            return masked
        causal = vocabulary_loss(_part(outputs, slice(len(label), None)), following, self.config.z_loss)
        weight = self.config.rate if self.config.causal_weight is None else self.config.causal_weight
        return Loss(masked.total + weight * causal.total, masked.count + weight * causal.count)

    def show(self, batch: Batch, token_of: Callable[[int], str]) -> list[str]:
        """With hidden tokens where they stood; causal examples are as they are."""
        label = batch.targets["label"]
        shown: dict[str, Any] = {"masked": batch.targets["masked"][: len(label)] + 1, "label": label}
        return show_masked(replace(batch, targets=shown), self.special.pad_id, token_of)


def _part(outputs: Tensor | Projection, rows: slice) -> Tensor | Projection:
    return replace(outputs, hidden=outputs.hidden[rows]) if isinstance(outputs, Projection) else outputs[rows]
