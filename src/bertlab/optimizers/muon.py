"""Muon (Jordan et al. 2024) for the matrices within layers, AdamW for embeddings, heads, biases and norms.

The momentum of a matrix is replaced by the nearest semi-orthogonal matrix, by Newton-Schulz iteration, so
that all directions move alike. Updates are scaled to AdamW's usual size, 0.2 sqrt(max(rows, columns)), so
that both kinds share learning rate and decay (Liu et al. 2025, "Muon is Scalable for LLM Training", §2.2).

Differs: the iteration runs in float32 on processors, where bfloat16 may be slow, and in bfloat16 on
accelerators, as in the original.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bertlab.config.schema import OptimizerConfig, integer, number
from bertlab.contracts import ParameterGroup

# Jordan et al. 2024: steepest at zero, singular values end in about [0.7, 1.2]
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


@dataclass
class Muon(OptimizerConfig):
    """Orthogonalised momentum within layers, AdamW elsewhere."""

    lr: float = number(1e-3, "peak learning rate, reached at the end of warm-up", above=0)
    momentum: float = number(0.95, "decay of the momentum of matrices (Nesterov's)", low=0, below=1)
    iterations: int = integer(5, "Newton-Schulz steps", low=1)
    beta1: float = number(0.9, "AdamW's decay of the mean of gradients", low=0, below=1)
    beta2: float = number(0.98, "AdamW's decay of the mean of squared gradients", low=0, below=1)
    eps: float = number(1e-8, "AdamW's addition to the root of the second moment", above=0)
    weight_decay: float = number(0.01, "decoupled decay, multiplied by the learning rate", low=0)

    def build(self, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """One torch parameter group for each of ours; matrices within layers are marked `muon`."""
        options = [
            {
                **group.to_torch(self.lr, self.weight_decay),
                "muon": group.hidden,
                "momentum": self.momentum,
                "iterations": self.iterations,
            }
            for group in groups
        ]
        return MuonAdamW(options, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)


class MuonAdamW(torch.optim.AdamW):
    """AdamW but for groups with `muon`, whose matrices get orthogonalised momentum."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One update of everything that has a gradient."""
        for group in self.param_groups:
            if group["muon"]:
                self._step_matrices(group)
        return super().step(closure)

    def _step_matrices(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for weight in group["params"]:
            if weight.grad is not None:
                by_shape.setdefault(weight.shape, []).append(weight)
        for shape, weights in by_shape.items():
            gradients = torch.stack([weight.grad for weight in weights])  # type: ignore[misc]  # those with a gradient
            for weight in weights:
                if not self.state[weight]:  # AdamW looks for `step` when it loads a state
                    self.state[weight] = {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}
            momenta = [self.state[weight]["momentum"] for weight in weights]
            for momentum, gradient in zip(momenta, gradients, strict=True):
                momentum.lerp_(gradient, 1 - group["momentum"])
            updates = orthogonalised(
                gradients.lerp_(torch.stack(momenta), group["momentum"]), group["iterations"]
            )
            size = 0.2 * max(shape) ** 0.5
            for weight, update in zip(weights, updates, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(
                    update.to(weight.dtype), alpha=-group["lr"] * size
                )
                weight.grad = None  # AdamW passes over what has no gradient


def orthogonalised(matrices: Tensor, iterations: int) -> Tensor:
    """`(N, rows, columns)`: each by the nearest semi-orthogonal matrix, roughly: singular values between
    about 0.7 and 1.2.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x: Tensor = matrices if wide else matrices.mT
    x = x if x.device.type == "cpu" else x.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT
