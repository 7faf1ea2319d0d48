"""Lion (Chen et al. 2023, Algorithm 2): the sign of an interpolation between gradient and momentum, one state
a weight.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bertlab.config.schema import OptimizerConfig, number
from bertlab.contracts import ParameterGroup


@dataclass
class Lion(OptimizerConfig):
    """The paper advises a 3-10x smaller learning rate and a 3-10x larger decay than AdamW's."""

    lr: float = number(1e-4, "peak learning rate, reached at the end of warm-up", above=0)
    beta1: float = number(0.9, "share of the momentum in the update's direction", low=0, below=1)
    beta2: float = number(0.99, "decay of the momentum", low=0, below=1)
    weight_decay: float = number(0.1, "decoupled decay, multiplied by the learning rate", low=0)

    def build(self, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """One torch parameter group for each of ours."""
        return _Lion(
            [group.to_torch(self.lr, self.weight_decay) for group in groups],
            self.lr,
            (self.beta1, self.beta2),
        )


class _Lion(torch.optim.Optimizer):
    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no loss is returned
        """W <- (1 - lr decay) w - lr sign(beta1 m + (1 - beta1) g); m <- beta2 m + (1 - beta2) g."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"]
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(torch.lerp(weight.grad, momentum, beta1).sign_(), alpha=-group["lr"])
                momentum.lerp_(weight.grad, 1 - beta2)
