"""An exponential moving average of the weights (Polyak & Juditsky 1992; Tarvainen & Valpola 2017, §2), for
optimizer.ema_decay.

After step t (from 1) average = d average + (1 - d) weights, d = min(decay, (1 + t) / (10 + t)), so that the
random first weights are soon forgotten in short runs too. Buffers are not averaged.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bertlab.config.schema import OptimizerConfig

Own = Callable[[Iterable[Tensor]], list[Tensor]]


class Average:
    """The average of some weights, of the same shapes and on the same devices; it begins as they are. `own`
    gives of tensors what is here of them (several/exchange.py).
    """

    def __init__(self, weights: Sequence[nn.Parameter], decay: float, own: Own = list) -> None:
        self.weights: list[Tensor] = list(weights)
        self.decay, self.own = decay, own
        self.values = [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step number `step`, from 1."""
        share = 1.0 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.own(self.values), self.own(self.weights), share)

    @torch.no_grad()
    def put_in(self) -> list[Tensor]:
        """Write the average into the weights; returns what they were."""
        trained = [weight.detach().clone() for weight in self.weights]
        self._write(self.weights, self.values)
        return trained

    @torch.no_grad()
    def take_out(self, trained: Sequence[Tensor]) -> None:
        """Write back what the weights were."""
        self._write(self.weights, trained)

    @torch.no_grad()
    def load(self, values: Sequence[Tensor]) -> None:
        """Go on from a checkpoint's."""
        self._write(self.values, values)

    def _write(self, places: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        torch._foreach_copy_(self.own(places), self.own(values))


def average_of(
    weights: Sequence[nn.Parameter], optimizer: OptimizerConfig, own: Own = list
) -> Average | None:
    """The average that is asked for; None where the trained weights themselves are what is evaluated."""
    return Average(weights, optimizer.ema_decay, own) if optimizer.ema_decay > 0 else None


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
        average.take_out(trained)
