"""Adafactor (Shazeer & Stern 2018): second moments kept as a row and a column, memory sublinear in the
parameters.

Differs: torch's implementation takes the learning rate as given (no relative step of its own).
"""

from dataclasses import dataclass

import torch

from bertlab.config.schema import OptimizerConfig, number
from bertlab.contracts import ParameterGroup


@dataclass
class Adafactor(OptimizerConfig):
    """Update clipping and the decay exponent as in the paper."""

    lr: float = number(1e-3, "peak learning rate, reached at the end of warm-up", above=0)
    beta2_decay: float = number(-0.8, "exponent of the second moment's decay: 1 - step^beta2_decay", high=0)
    clip_threshold: float = number(1.0, "largest root mean square of an update", above=0)
    weight_decay: float = number(0.0, "decoupled decay, multiplied by the learning rate", low=0)

    def build(self, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """One torch parameter group for each of ours."""
        return torch.optim.Adafactor(
            [group.to_torch(self.lr, self.weight_decay) for group in groups],
            lr=self.lr,
            beta2_decay=self.beta2_decay,
            d=self.clip_threshold,
        )
