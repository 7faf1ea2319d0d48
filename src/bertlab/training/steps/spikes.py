"""Spikes of the training loss: steps that stand far above its own running mean, counted, and left out where
that is configured.

Batches around a spike left out: Chowdhery et al. 2022 (PaLM), §5.1. Mean and deviation are exponential
averages into which a spike goes no higher than the bound that it broke (as Kumar et al. 2025, ZClip, do with
gradient norms): a loss that stays high is none after a while.

Differs: nothing restarts from a checkpoint; one update is left out, and data and learning rate go on.
"""

import math
from dataclasses import dataclass

COUNTED = 6.0  # standard deviations above the mean, where no other bound is configured
MEMORY = 100  # steps that the averages look back
LEARNING = 50  # steps before which nothing is a spike
# a deviation is no less than this share of the mean: a loss that hardly moves has no spikes of a hundredth
LEAST = 0.01


@dataclass
class Trend:
    """Mean and variance of the loss of the last steps."""

    steps: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def bound(self, deviations: float) -> float:
        """The loss above which a step is a spike; infinite while too few were seen."""
        if self.steps < LEARNING:
            return math.inf
        return self.mean + deviations * max(math.sqrt(self.variance), LEAST * abs(self.mean))

    def see(self, loss: float, deviations: float = COUNTED) -> bool:
        """Take in one step's loss; whether it is a spike."""
        bound = self.bound(deviations)
        self.steps += 1
        rate = max(1 / self.steps, 1 / MEMORY)
        moved = min(loss, bound) - self.mean
        self.mean += rate * moved
        self.variance = (1 - rate) * (self.variance + rate * moved * moved)
        return loss > bound
