"""Stochastic gradient descent with (Nesterov) momentum."""

from dataclasses import dataclass

import torch

from bertlab.config.schema import OptimizerConfig, flag, number
from bertlab.contracts import ParameterGroup


@dataclass
class Sgd(OptimizerConfig):
    """Plain SGD; weight decay is coupled (added to the gradient)."""

    lr: float = number(0.1, "peak learning rate, reached at the end of warm-up", above=0)
    momentum: float = number(0.9, "share of the last update that is kept", low=0, below=1)
    nesterov: bool = flag(True, "look ahead along the momentum")
    weight_decay: float = number(0.0, "coupled decay", low=0)

    def build(self, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """One torch parameter group for each of ours."""
        return torch.optim.SGD(
            [group.to_torch(self.lr, self.weight_decay) for group in groups],
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov and self.momentum > 0,
            fused=True,
        )
