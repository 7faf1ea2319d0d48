"""How a score falls with cost: a power law through arms of several sizes, and whether the smaller ones
foretell the largest.

y = E + A x^-a, what cannot be learned at all and what more compute still gains (Hoffmann et al. 2022,
"Training Compute-Optimal Large Language Models", §3.3). The law is fitted twice: to all sizes, and to all but
the largest, which it then has to predict. Sizes are the unit: intervals go by how far they lie from the law,
of which seeds tell nothing, with t's quantiles for their few degrees of freedom.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

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
    exponent: tuple[float, float]  # 95 % interval
    band: tuple[np.ndarray, np.ndarray]  # of the law, at `x`
    predicted: float  # the largest, from the smaller ones
    prediction: tuple[float, float]  # its 95 % interval, of a mean of as many seeds
    is_part_of_cost: bool = False  # some of the arms began from weights whose own cost is not on record

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
    laws, missed = _fits(x, y)
    return laws[int(missed.argmin())]


def _fits(x: np.ndarray, y: np.ndarray) -> tuple[list[Law], np.ndarray]:
    """The best law of each floor, and the sum of squares by which it misses log y."""
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
    laws = [
        Law(float(floor), float(factor), -float(slope))
        for floor, factor, slope in zip(floors, factors, slopes, strict=True)
    ]
    return laws, missed


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
    around, t = _noise(losses, at, law)
    laws = [fit(at, means * np.exp(rng.normal(0, around, len(at)))) for _ in range(DRAWS)]
    reach = t * float(_sd(np.array([one.exponent for one in laws])))
    ends = [law.exponent - reach, law.exponent + reach]
    ends += [one.exponent for one in _as_good(at, means, t * around)]
    band = np.exp(t * _sd(np.log([one(at) for one in laws])))
    # as if the largest were not there yet: neither its score nor how far it lies from the law
    own, t_own = _noise(losses[:-1], at[:-1], smaller)
    drawn = [fit(at[:-1], means[:-1] * np.exp(rng.normal(0, own, len(at) - 1))) for _ in range(DRAWS)]
    predicted = float(smaller(at[-1:])[0])
    of_law = t_own * float(_sd(np.log([one(at[-1:])[0] for one in drawn])))
    others = np.log([one(at[-1:])[0] / predicted for one in _as_good(at[:-1], means[:-1], t_own * own)])
    of_law = max(of_law, float(np.abs(others).max()))
    foretold = math.exp(math.hypot(of_law, t_own * _of_largest(losses, own)))
    return Scaling(
        name,
        [arms[place] for place in order],
        at,
        losses,
        law,
        (min(ends), max(ends)),
        (law(at) / band, law(at) * band),
        predicted,
        (predicted / foretold, predicted * foretold),
    )


def _as_good(x: np.ndarray, y: np.ndarray, reach: float) -> list[Law]:
    """The laws of other floors that miss log y by no more than chance would (profile likelihood): their
    exponents differ by much.
    """
    laws, missed = _fits(x, y)
    return [law for law, square in zip(laws, missed, strict=True) if square <= missed.min() + reach**2]


def _noise(losses: Sequence[np.ndarray], x: np.ndarray, law: Law) -> tuple[float, float]:
    """Standard deviation of a size's log mean loss about a law that was fitted to these, and t's quantile for
    it: that of as many degrees as sizes are more than what was fitted.

    How far sizes lie from the law is not lessened by seeds, and cannot be less than the seeds' own spread
    makes it.
    """
    missed = np.log([one.mean() for one in losses]) - np.log(law(x))
    degrees = len(x) - (4 if len(x) >= WITH_FLOOR else 2)  # the search for a floor bends as two would
    of_sizes = math.sqrt(float((missed**2).sum()) / degrees)
    of_seeds = _between_seeds(losses) * math.sqrt(float(np.mean([1 / len(one) for one in losses])))
    return max(of_sizes, of_seeds), float(stats.t.ppf((1 + LEVEL) / 2, degrees))


def _between_seeds(losses: Sequence[np.ndarray]) -> float:
    """Standard deviation of log loss between seeds of one size; 0 where no size has two."""
    free = sum(len(one) - 1 for one in losses)
    own = [np.log(one) - np.log(one).mean() for one in losses]
    return math.sqrt(sum(float((one**2).sum()) for one in own) / free) if free else 0.0


def _of_largest(losses: Sequence[np.ndarray], smaller: float) -> float:
    """The same of the largest's mean: more than the smaller ones' where it has fewer seeds."""
    fewer = 1 / len(losses[-1]) - float(np.mean([1 / len(one) for one in losses[:-1]]))
    return math.hypot(smaller, _between_seeds(losses[:-1]) * math.sqrt(max(0.0, fewer)))


def _sd(values: np.ndarray) -> np.ndarray:
    """Over draws, by their middle two thirds: a floor may send single draws far off."""
    low, high = np.quantile(values, [0.1587, 0.8413], axis=0)
    spread: np.ndarray = (high - low) / 2
    return spread


def cost_words(cost: str, lines: Sequence[Scaling]) -> str:
    """What the law is over, and whether that is all of it."""
    but = ", but for †, whose weights' own cost is not on record"
    return COSTS[cost][0] + (but if any(line.is_part_of_cost for line in lines) else "")


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
        found = scale(name, arms, [COSTS[cost][1](row.cost) for row in own], losses)
        if cost != "parameters" and any(row.cost.pretrained_elsewhere for row in own):
            found = replace(found, name=f"{name} †", is_part_of_cost=True)
        scalings_of_arms.append(found)
    return scalings_of_arms
