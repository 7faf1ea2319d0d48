"""How a score falls with cost: a power law through arms of several sizes, and whether the smaller ones
foretell the largest.

y = E + A x^-a, what cannot be learned at all and what more compute still gains (Hoffmann et al. 2022,
"Training Compute-Optimal Large Language Models", §3.3). The law is fitted twice: to all sizes, and to all but
the largest, which it then has to predict.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bertlab.declarations import FRACTION, Metric
from bertlab.errors import ConfigError
from bertlab.report.arms import Arm, Study
from bertlab.report.comparison import Cost, Row

LEAST_SIZES = 3  # of different cost; with fewer any law fits
WITH_FLOOR = 5  # sizes from which on E is fitted too; below, E is 0
DRAWS = 400
LEVEL = 0.95
COSTS: dict[str, tuple[str, Callable[[Cost], float]]] = {
    "flops": (
        "operations of training, pretraining included",
        lambda cost: cost.flops + cost.pretraining_flops,
    ),
    "tokens": ("tokens seen, pretraining included", lambda cost: cost.tokens + cost.pretraining_tokens),
    "parameters": ("parameters", lambda cost: float(cost.parameters)),
}


@dataclass(frozen=True)
class Law:
    """y = floor + factor * x ** -exponent."""

    floor: float
    factor: float
    exponent: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """What it says at these costs."""
        return self.floor + self.factor * np.asarray(x, dtype=np.float64) ** -self.exponent


@dataclass(frozen=True)
class Scaling:
    """One line of arms that differ in size."""

    name: str
    arms: Sequence[Arm]
    x: np.ndarray  # (sizes,) ascending
    y: Sequence[np.ndarray]  # of each size, its seeds' losses
    law: Law
    exponent: tuple[float, float]  # 95 % bootstrap interval
    band: tuple[np.ndarray, np.ndarray]  # of the law, at `x`
    predicted: float  # the largest, from the smaller ones
    prediction: tuple[float, float]  # its 95 % interval, of a mean of as many seeds

    @property
    def measured(self) -> float:
        """The largest's mean."""
        return float(self.y[-1].mean())

    @property
    def is_foretold(self) -> bool:
        """Whether that lies in the interval."""
        return self.prediction[0] <= self.measured <= self.prediction[1]


def as_loss(metric: Metric, value: float) -> float:
    """What a law can fall in: a loss as it is, of a share its complement. Raises ConfigError for other
    scores.
    """
    if not metric.higher_is_better:
        return value
    if metric.unit == FRACTION:
        return 1 - value
    raise ConfigError(
        f"scaling: {metric.name} is neither a loss nor a share, so that no law of it is known; metric=loss"
    )


def fit(x: np.ndarray, y: np.ndarray) -> Law:
    """Least squares of log y, one value a size; the floor by search where there are sizes enough, the rest in
    closed form.
    """
    floors = (
        np.concatenate([[0.0], y.min() * (1 - np.geomspace(1, 1e-4, 120))])
        if len(x) >= WITH_FLOOR
        else np.zeros(1)
    )
    logs, reached = np.log(x), np.log(y - floors[:, None])  # (sizes,), (floors, sizes)
    centred = logs - logs.mean()
    slopes = reached @ centred / (centred @ centred)
    factors = np.exp(reached.mean(1) - slopes * logs.mean())
    missed = ((np.log(floors[:, None] + factors[:, None] * x ** slopes[:, None]) - np.log(y)) ** 2).sum(1)
    best = int(missed.argmin())
    return Law(float(floors[best]), float(factors[best]), -float(slopes[best]))


def scale(name: str, arms: Sequence[Arm], x: Sequence[float], y: Sequence[np.ndarray]) -> Scaling:
    """Fit and predict. Raises ConfigError for too few sizes, and for losses that no logarithm has."""
    order = np.argsort(x, kind="stable")
    at, losses = (
        np.asarray(x, dtype=np.float64)[order],
        [np.asarray(y[place], dtype=np.float64) for place in order],
    )
    if len(np.unique(at)) < LEAST_SIZES + 1:
        raise ConfigError(
            f"scaling: {name} has {len(np.unique(at))} sizes; a law and one size to foretell take"
            f" {LEAST_SIZES + 1}"
        )
    if min(float(one.min()) for one in losses) <= 0 or at[0] <= 0:
        raise ConfigError(f"scaling: {name} has a loss or a cost of 0, which no power law reaches")
    means = np.array([one.mean() for one in losses])
    law, smaller = fit(at, means), fit(at[:-1], means[:-1])
    rng = np.random.default_rng(0)
    spread = _spread(losses, at, means, law)
    drawn = [
        means * np.exp(rng.normal(0, spread / np.sqrt([len(one) for one in losses]))) for _ in range(DRAWS)
    ]
    laws = [fit(at, one) for one in drawn]
    foretold = np.array([float(fit(at[:-1], one[:-1])(at[-1:])[0]) for one in drawn])
    foretold *= np.exp(rng.normal(0, spread / math.sqrt(len(losses[-1])), DRAWS))
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile([one(at) for one in laws], ends, axis=0)
    return Scaling(
        name,
        [arms[place] for place in order],
        at,
        losses,
        law,
        _pair(np.quantile([one.exponent for one in laws], ends)),
        (low, high),
        float(smaller(at[-1:])[0]),
        _pair(np.quantile(foretold, ends)),
    )


def _spread(losses: Sequence[np.ndarray], x: np.ndarray, means: np.ndarray, law: Law) -> float:
    """Standard deviation of log loss: between seeds of one size, and how far the sizes lie from the law,
    whichever is larger.
    """
    own = [np.log(one) - np.log(one).mean() for one in losses]
    free = sum(len(one) - 1 for one in losses)
    between = math.sqrt(sum(float((one**2).sum()) for one in own) / free) if free else 0.0
    missed = np.log(means) - np.log(law(x))
    return max(between, math.sqrt(float((missed**2).sum()) / max(len(x) - 2 - (law.floor > 0), 1)))


def _pair(values: np.ndarray) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def scalings(study: Study, rows: Sequence[Row], cost: str, by: Sequence[str]) -> list[Scaling]:
    """A law for each combination of the keys in `by`; for all arms where there are none. Raises
    ConfigError.
    """
    for key in by:
        if key not in study.keys and f"{key}.component" not in study.keys:
            raise ConfigError(
                f"scaling_by: arms do not differ in {key}; they differ in"
                f" {', '.join(study.keys) or 'nothing'}"
            )
    keys = [f"{key}.component" if f"{key}.component" in study.keys else key for key in by]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        name = (
            " ".join(f"{key.removesuffix('.component')}={row.arm.settings[key]}" for key in keys)
            or "all arms"
        )
        lines.setdefault(name, []).append(row)
    scalings_of_arms = []
    for name, own in lines.items():
        arms = [row.arm for row in own]
        losses = [
            np.array(
                [as_loss(study.metric, value) for value in arm.scores("validation", study.metric).values()]
            )
            for arm in arms
        ]
        scalings_of_arms.append(scale(name, arms, [COSTS[cost][1](row.cost) for row in own], losses))
    return scalings_of_arms
