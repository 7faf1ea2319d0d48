"""An exponential moving average of the weights (Polyak & Juditsky 1992; Tarvainen & Valpola 2017, §2), for
optimizer.ema_decay.

After step t (from 1) average = d average + (1 - d) weights, d = min(decay, (1 + t) / (10 + t)), so that the
random first weights are soon forgotten in short runs too. Buffers are not averaged.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bertlab.config.schema import OptimizerConfig


class Average:
    """The average of some weights, of the same shapes and on the same devices; it begins as they are."""

    def __init__(self, weights: Sequence[nn.Parameter], decay: float) -> None:
        self.weights: list[Tensor] = list(weights)
        self.decay = decay
        self.values = [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step number `step`, from 1."""
        torch._foreach_lerp_(self.values, self.weights, 1.0 - min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def put_in(self) -> list[Tensor]:
        """Write the average into the weights; returns what they were."""
        trained = [weight.detach().clone() for weight in self.weights]
        torch._foreach_copy_(self.weights, self.values)
        return trained

    @torch.no_grad()
    def load(self, values: Sequence[Tensor]) -> None:
        """Go on from a checkpoint's."""
        torch._foreach_copy_(self.values, list(values))


def average_of(weights: Sequence[nn.Parameter], optimizer: OptimizerConfig) -> Average | None:
    """The average that is asked for; None where the trained weights themselves are what is evaluated."""
    return Average(weights, optimizer.ema_decay) if optimizer.ema_decay > 0 else None


@contextmanager
def averaged(average: Average | None) -> Iterator[None]:
    """The weights are the average meanwhile; then, to the bit, what they were."""
    if average is None:
        yield
        return
    trained = average.put_in()
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(average.weights, trained)
