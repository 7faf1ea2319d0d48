"""Statistics of comparisons: seeds are the unit, intervals and exact tests rather than bare means. Plain
functions over numpy and scipy.

Sources: Sellam et al. 2022, "The MultiBERTs"; Dror et al. 2018, "The Hitchhiker's Guide to Testing
Statistical Significance in NLP"; Dodge et al. 2019, "Show Your Work"; Guo et al. 2017, "On Calibration of
Modern Neural Networks"; Pérez-Ortiz et al. 2024, "E-statistics, group invariance and anytime-valid testing".
Scores keep their unit; differences are `new - old`.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

EXACT_UP_TO = 16  # seeds: 65,536 sign patterns; above, patterns are drawn
DRAWS = 100_000


@dataclass(frozen=True)
class Summary:
    """Scores of one arm over its seeds."""

    n: int
    mean: float
    sd: float  # sample standard deviation (n - 1); NaN for one seed
    low: float  # 95 % t interval of the mean; NaN for one seed
    high: float


@dataclass(frozen=True)
class Paired:
    """Differences of an arm to the baseline, seed by seed."""

    n: int
    mean: float
    sd: float
    low: float  # 95 % t interval
    high: float
    p: float  # two-sided, of the test that was chosen; NaN where there is no pair


def summarize(values: Sequence[float], level: float = 0.95) -> Summary:
    """Mean, spread and t interval: mean ± t(n - 1) sd / sqrt(n). Raises ValueError for no values."""
    if not len(values):
        raise ValueError("no values to summarize")
    numbers = np.asarray(values, dtype=np.float64)
    n, mean = len(numbers), float(numbers.mean())
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    sd = float(numbers.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


SIGN_FLIP, T_TEST, ANYTIME, ANYTIME_LARGE = "sign_flip", "t", "anytime", "anytime_large"


@dataclass(frozen=True)
class Test:
    """A two-sided test that paired differences are about 0."""

    words: str  # what a report calls it
    p: Callable[[Sequence[float]], float]
    least_p: Callable[[int], float]  # the smallest that so many pairs can give
    half_width: Callable[[int, float], float]  # of the mean's interval, in standard errors: (pairs, level)
    expected: float | None = None  # anytime-valid: variance of the standardised effects that it looks for

    @property
    def is_sequential(self) -> bool:
        """Whether it stays valid when seeds are added until it decides."""
        return self.expected is not None


def paired(differences: Sequence[float], level: float = 0.95, test: str = SIGN_FLIP) -> Paired:
    """The mean difference with its interval, and the p of the test; the anytime-valid one takes differences
    in the order of their seeds.
    """
    if not len(differences) or not np.isfinite(differences).all():
        return Paired(len(differences), math.nan, math.nan, math.nan, math.nan, math.nan)
    whole, p = summarize(differences, level), TESTS[test].p(differences)
    if _are_equal(np.asarray(differences, dtype=np.float64)) and whole.n > 1:  # no spread to go by
        half = 0.0 if whole.mean == 0 or p <= 1 - level else math.nan
    else:
        half = TESTS[test].half_width(whole.n, level) * whole.sd / math.sqrt(whole.n)
    return Paired(whole.n, whole.mean, whole.sd, whole.mean - half, whole.mean + half, p)


def t_test_p(differences: Sequence[float]) -> float:
    """Two-sided p of a paired t test; 1 for one pair or where all differences are 0.

    Equal differences come of coarse scores (so many examples of 50), not of a spread of 0: where they show
    none, p is that of their signs.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2 or not values.any():
        return 1.0
    if _are_equal(values):
        return sign_flip_p(differences)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(2 * stats.t.sf(abs(values.mean()) / error, len(values) - 1))


def _are_equal(values: np.ndarray) -> bool:
    """But for rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def anytime_p(differences: Sequence[float], expected: float = 1.0) -> float:
    """Two-sided p that stays one however often it is looked at, and whatever decided that no further pair was
    made.

    The reciprocal of the largest e-value so far. The e-value after n pairs is the Bayes factor of a t
    statistic, its standardised effect drawn from a normal distribution of variance `expected`, against
    none (Rouder et al. 2009, eq. 2): a martingale under the null, of which Ville's inequality says that it
    exceeds 1/level with a probability of at most level. Differences are taken for normal.
    """
    grown = log_e_values(np.asarray(differences, dtype=np.float64), expected)
    return min(1.0, math.exp(-float(grown.max(initial=0.0))))


def log_e_values(differences: np.ndarray, expected: float = 1.0) -> np.ndarray:
    """`(..., n)`: the logarithm of the e-value after 1 … n of these differences, along the last axis; 0 after
    the first.
    """
    n = np.arange(1, differences.shape[-1] + 1)
    mean = differences.cumsum(-1) / n
    squares = np.maximum((differences**2).cumsum(-1) - n * mean**2, 0.0)
    squares = np.where(squares <= 1e-14 * n * mean**2, 0.0, squares)  # equal differences, but for rounding
    grown = 1 + n * expected
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = n * mean**2 / squares  # t^2 / (n - 1)
        gained = np.where(
            np.isfinite(ratio), (1 + ratio) / (1 + ratio / grown), np.where(mean == 0, 1.0, grown)
        )
    return np.where(n == 1, 0.0, n / 2 * np.log(gained) - np.log(grown) / 2)


def anytime_half_width(n: int, level: float, expected: float = 1.0) -> float:
    """Of the confidence sequence that belongs to `anytime_p`, in standard errors: infinite where n pairs can
    exclude nothing.
    """
    if n < 2:
        return math.nan
    grown = 1 + n * expected
    needed = math.exp((2 * -math.log(1 - level) + math.log(grown)) / n)
    return math.inf if needed >= grown else math.sqrt((n - 1) * (needed - 1) / (1 - needed / grown))


def t_half_width(n: int, level: float) -> float:
    """Of a t interval, in standard errors; NaN for one value."""
    return float(stats.t.ppf((1 + level) / 2, n - 1)) if n > 1 else math.nan


def nested(differences: Mapping[int, Sequence[float]], level: float = 0.95, test: str = SIGN_FLIP) -> Paired:
    """Differences of two levels, outer seed -> those of its inner seeds (Sellam et al. 2022): the outer
    seeds' means are the unit.

    Inner seeds of one pretraining are no independent evidence of its recipe; their spread is in that of the
    means.
    """
    return paired(
        [float(np.mean(values)) for _, values in sorted(differences.items()) if len(values)], level, test
    )


def spread_of_levels(differences: Mapping[int, Sequence[float]]) -> tuple[float, float]:
    """Standard deviations of the outer and of the inner level, by the method of moments (one-way analysis of
    variance); never below 0.
    """
    groups = [np.asarray(values, dtype=np.float64) for values in differences.values() if len(values)]
    count, inner = sum(map(len, groups)), len(groups)
    within = (
        sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / (count - inner)
        if count > inner
        else math.nan
    )
    if inner < 2 or count == inner:  # one seed a pretraining: the levels are one
        return math.nan, math.sqrt(within)
    mean = float(np.concatenate(groups).mean())
    between = sum(len(group) * float((group.mean() - mean) ** 2) for group in groups) / (inner - 1)
    size = (count - sum(len(group) ** 2 for group in groups) / count) / (inner - 1)
    return math.sqrt(max(0.0, (between - within) / size)), math.sqrt(within)


def detectable(sd: float, n: int, level: float = 0.05, power: float = 0.8, test: str = SIGN_FLIP) -> float:
    """The smallest true difference that n pairs of this spread find with this power, by this test at this
    level, two-sided.

    Differences are taken for normal. NaN where there is no spread to go by, or where n pairs can reach the
    level by no difference.
    """
    if n < 2 or not math.isfinite(sd) or n < smallest_n(level, test):
        return math.nan
    if sd == 0:
        return 0.0
    if (expected := TESTS[test].expected) is not None:
        return sd * _shift_of_anytime(n, level, power, expected)
    if test == SIGN_FLIP and n <= EXACT_UP_TO:  # above, what it finds is within 2 % of what a t test finds
        return sd * _shift_of_sign_flips(n, level, power)
    critical = stats.t.ppf(1 - level / 2, n - 1)
    # noncentrality
    shift = optimize.brentq(lambda one: stats.nct.sf(critical, n - 1, one) - power, 0.0, critical + 40.0)
    return float(shift * sd / math.sqrt(n))


@functools.cache
def _shift_of_sign_flips(n: int, level: float, power: float) -> float:
    """The shift, in standard deviations, at which the exact test of n pairs has this power: few sign patterns
    make it weaker than t.

    A pattern is as extreme as the observed one where the pairs that it turns sum to 0 or less, so that the
    test rejects where no more than level 2^(n - 1) sets of pairs, the empty one among them, do so. Of each
    draw that gives the smallest shift that is found, in closed form.
    """
    drawn = np.random.default_rng(0).standard_normal((10_000 if n <= 12 else 2_000, n))
    turned = (np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1  # (sets, n), without the empty one
    weights = (turned / turned.sum(1, keepdims=True)).T.astype(np.float32)
    allowed = int(level * 2 ** (n - 1) + 1e-9) - 1
    found = [
        -np.partition(part @ weights, allowed, axis=1)[:, allowed]
        for part in np.array_split(drawn.astype(np.float32), max(1, len(drawn) * 2**n // 2**22))
    ]
    return float(np.quantile(np.concatenate(found), power, method="higher"))


@functools.cache
def _shift_of_anytime(n: int, level: float, power: float, expected: float) -> float:
    """The shift, in standard deviations, that the anytime-valid test finds with this power by the time that n
    pairs are there.
    """
    drawn = np.random.default_rng(0).standard_normal((2_000 if n <= 500 else 200, n))
    low, high = 0.0, 20.0
    for _ in range(14):
        middle = (low + high) / 2
        rejected = log_e_values(drawn + middle, expected).max(1) >= -math.log(level)
        low, high = (low, middle) if rejected.mean() >= power else (middle, high)
    return high


def seeds_for(
    effect: float, sd: float, level: float = 0.05, power: float = 0.8, test: str = SIGN_FLIP
) -> int | None:
    """Pairs of this spread with which this true difference is found with this power; None where more than
    10,000 would be needed.

    Never fewer than the test can show anything with.
    """
    if effect <= 0 or not math.isfinite(sd):
        return None
    fewest = smallest_n(level, test)
    low, high = fewest, fewest
    while detectable(sd, high, level, power, test) > effect:
        low, high = high, 2 * high
        if low > 10_000:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if detectable(sd, middle, level, power, test) <= effect else (middle + 1, high)
        )
    return max(low, fewest)


def tost_p(found: Paired, margin: float) -> float:
    """P of equivalence: the larger of two one-sided t tests that the mean lies within ±margin (Schuirmann
    1987); 1 for one pair.
    """
    if found.n < 2 or math.isnan(found.mean):
        return 1.0
    error = found.sd / math.sqrt(found.n)
    if error <= 1e-12 * max(margin, abs(found.mean)):  # equal differences: all that is known is their side
        return 0.5**found.n if abs(found.mean) < margin else 1.0
    return float(
        max(
            stats.t.sf((found.mean + margin) / error, found.n - 1),
            stats.t.sf((margin - found.mean) / error, found.n - 1),
        )
    )


def equivalence_power(sd: float, n: int, margin: float, level: float = 0.05) -> float:
    """How often two one-sided t tests at this level show arms equivalent that are: n pairs whose differences
    have mean 0 and this standard deviation (Phillips 1990, by integration over the estimated deviation).
    """
    if n < 2:
        return 0.0
    shares = (np.arange(4000) + 0.5) / 4000
    estimated = np.sqrt(stats.chi2.ppf(shares, n - 1) / (n - 1))  # in units of sd
    room = margin * math.sqrt(n) / sd - stats.t.ppf(1 - level, n - 1) * estimated
    return float(np.maximum(0.0, 2 * stats.norm.cdf(room) - 1).mean())


def seeds_for_equivalence(
    sd: float, margin: float, level: float = 0.05, power: float = 0.8, most: int = 10_000
) -> int | None:
    """The fewest pairs with which that is so often; None where more than `most` are needed."""
    low, high = 1, 2
    while equivalence_power(sd, high, margin, level) < power:
        low, high = high, 2 * high
        if low > most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if equivalence_power(sd, middle, margin, level) >= power else (middle, high)
    return high if high <= most else None


def family(sizes: Sequence[int], level: float = 0.05, test: str = SIGN_FLIP) -> list[bool]:
    """Which tests of so many pairs can reach the level once corrected for their number: the others leave the
    family (Tarone 1990).
    """
    least = [TESTS[test].least_p(n) for n in sizes]
    for count in range(1, len(sizes) + 1):
        able = [p <= level / count for p in least]
        if sum(able) <= count:
            return able
    return [False] * len(sizes)


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p that the differences are symmetric about 0: the share of sign patterns with a mean at least
    as far from 0 (Fisher 1935).

    All 2^n patterns up to n = 16; above, 100,000 drawn ones, the observed one counted among them (Phipson &
    Smyth 2010).
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    # equal sums in another order of adding are equal
    observed = abs(values.sum()) - 1e-12 * max(1.0, float(np.abs(values).sum()))
    if n <= EXACT_UP_TO:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=n))).reshape(-1, n)
        return float((np.abs(signs @ values) >= observed).mean())
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(DRAWS, n))
    return float((1 + (np.abs(signs @ values) >= observed).sum()) / (1 + DRAWS))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for their number (Holm 1979), in the given order; NaN stays NaN and is not
    counted.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(raw), math.nan)
    order = [int(index) for index in np.argsort(raw) if not math.isnan(raw[index])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * raw[index]))
        corrected[index] = largest
    return [float(value) for value in corrected]


def smallest_n(level: float = 0.05, test: str = SIGN_FLIP) -> int:
    """Fewest paired seeds with which a test can reach `level`: of the exact sign-flip test 2 /
    2^n <= level.
    """
    return next(n for n in itertools.count(1) if TESTS[test].least_p(n) <= level)


def mcnemar_p(right: np.ndarray, other_right: np.ndarray) -> float:
    """Exact two-sided McNemar test on the same examples `(N,) bool`: of those that only one gets right, are
    both shares a half?
    """
    only, other_only = int((right & ~other_right).sum()), int((~right & other_right).sum())
    return 1.0 if only + other_only == 0 else float(stats.binomtest(only, only + other_only).pvalue)


def bootstrap_interval(
    differences: np.ndarray, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean difference over examples `(N,)`, examples drawn with replacement (Efron
    & Tibshirani 1993).
    """
    rng, n = np.random.default_rng(seed), len(differences)
    values, counts = np.unique(differences, return_counts=True)
    if len(values) <= 64:  # differences of right and wrong take few values: draw how often each occurs
        means = rng.multinomial(n, counts / n, size=draws) @ values / n
    else:
        means = np.array([differences[rng.integers(n, size=n)].mean() for _ in range(draws)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Calibration:
    """How well confidence fits accuracy, bin by bin."""

    error: float  # expected calibration error, in [0, 1]
    confidence: np.ndarray  # (bins,) mean confidence; NaN in an empty bin
    accuracy: np.ndarray  # (bins,)
    share: np.ndarray  # (bins,) of the examples


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> Calibration:
    """ECE = sum over equal-width bins of share x |accuracy - confidence| (Guo et al. 2017, eq. 3)."""
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, confidence, minlength=bins) / count
        accuracy = np.bincount(index, right.astype(np.float64), minlength=bins) / count
    share = count / len(confidence)
    return Calibration(float(np.nansum(share * np.abs(accuracy - mean))), mean, accuracy, share)


def _anytime(expected: float, words: str) -> Test:
    return Test(
        f"anytime-valid two-sided t test{words} (it takes the differences for normal; "
        "seeds may be added until it decides)",
        functools.partial(anytime_p, expected=expected),
        lambda n: (1 + n * expected) ** ((1 - n) / 2) if n else 1.0,
        functools.partial(anytime_half_width, expected=expected),
        expected,
    )


TESTS = {
    SIGN_FLIP: Test(
        "exact two-sided sign-flip permutation test", sign_flip_p, lambda n: 2.0 ** (1 - n) if n else 1.0,
        t_half_width
    ),
    T_TEST: Test(
        "two-sided paired t test (it takes the differences for normal)", t_test_p,
        lambda n: 0.0 if n > 1 else 1.0, t_half_width
    ),
    ANYTIME: _anytime(1.0, ""),  # of the size of the spread
    ANYTIME_LARGE: _anytime(25.0, " that looks for effects of five spreads"),
}  # fmt: skip
