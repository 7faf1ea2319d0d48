"""Statistics where scores are nested: runs within tasks, and folds that share training rows. Plain functions
over numpy and scipy.

Sources: Efron & Tibshirani 1993; Davison & Hinkley 1997, §3.8 (bootstrap of two levels); Hesterberg 2015,
"What Teachers Should Know About the Bootstrap"; Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge
of the Statistical Precipice"; Nadeau & Bengio 2003, "Inference for the Generalization Error"; Dror et al.
2019, "Deep Dominance". Scores: higher is better.

Legend: T tasks, K pretrainings, n seeds of each, D draws.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

DRAWS = 4_000

# of one task: seed of the pretraining (0 where there is none) -> scores of the runs on it
Scores = Mapping[int, Sequence[float]]
Statistic = Callable[[np.ndarray], np.ndarray]  # (D, T, K n) with NaN where there is no run -> (D,)


def mean_of_tasks(cube: np.ndarray) -> np.ndarray:
    """Mean over tasks of each task's mean, `(D, T, runs)` -> `(D,)`."""
    means: np.ndarray = np.nanmean(cube, axis=2).mean(1)
    return means


def median_of_tasks(cube: np.ndarray) -> np.ndarray:
    """Median over tasks of each task's mean."""
    medians: np.ndarray = np.median(np.nanmean(cube, axis=2), axis=1)
    return medians


def interquartile_mean(cube: np.ndarray) -> np.ndarray:
    """Mean of the middle half of all scores, runs of all tasks together (Agarwal et al. 2021, §4.3): a
    quarter is cut from each end.
    """
    flat = np.sort(cube.reshape(len(cube), -1), axis=1)  # NaN last
    count = (~np.isnan(flat)).sum(1)
    cut = count // 4
    place = np.arange(flat.shape[1])
    inside = (place >= cut[:, None]) & (place < (count - cut)[:, None])
    means: np.ndarray = np.where(inside, flat, 0.0).sum(1) / (count - 2 * cut)
    return means


def as_cube(tasks: Sequence[Scores]) -> np.ndarray:
    """`(T, K, n)`: the runs of each task and pretraining, NaN where there is none. Pretrainings are in the
    order of their seeds.
    """
    outers = sorted({outer for task in tasks for outer in task})
    most = max(len(scores) for task in tasks for scores in task.values())
    cube = np.full((len(tasks), len(outers), most), math.nan)
    for row, task in zip(cube, tasks, strict=True):
        for outer, scores in task.items():
            row[outers.index(outer), : len(scores)] = scores
    return cube


def resampled(
    cube: np.ndarray, rng: np.random.Generator, draws: int = DRAWS, tasks_too: bool = True
) -> np.ndarray:
    """`(D, T, K n)`: tasks (unless they are taken as given), pretrainings (the same for all tasks) and runs
    drawn with replacement.
    """
    count, outers, most = cube.shape
    there = (~np.isnan(cube)).sum(2)  # (T, K); runs stand first
    task = (
        rng.integers(count, size=(draws, count))
        if tasks_too
        else np.broadcast_to(np.arange(count), (draws, count))
    )
    outer = rng.integers(outers, size=(draws, outers))
    task, outer = task[:, :, None], outer[:, None, :]
    size = there[task, outer][..., None]  # (D, T, K, 1)
    place = np.floor(rng.random((draws, count, outers, most)) * size).astype(np.int64)
    drawn = cube[task[..., None], outer[..., None], np.minimum(place, most - 1)]
    drawn = np.where(np.arange(most) < size, drawn, math.nan)
    return drawn.reshape(draws, count, outers * most)


def interval_over_tasks(
    tasks: Sequence[Scores],
    statistic: Statistic = mean_of_tasks,
    level: float = 0.95,
    tasks_too: bool = True,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """Would other tasks like these, other pretrainings and other seeds say the same? By the standard error of
    a hierarchical bootstrap.

    A bootstrap of m units has (m - 1) / m of their variance, and its percentiles end where the units do: of
    few tasks both are far too narrow. So the error is scaled by m / (m - 1) and multiplied by t's quantile
    with m - 1 degrees (Hesterberg 2015, §4.1), m being the number of tasks, or of pretrainings where these
    are fewer. With `tasks_too=False` the tasks are taken as given (Agarwal et al. 2021: stratified), and
    without pretrainings to draw each task's runs are corrected for their own number, with half as many
    degrees as there are runs beyond one a task: those of the middle half, which an interquartile mean is of.
    NaN where nothing shows a spread.
    """
    cube = as_cube(tasks)
    point = float(statistic(cube.reshape(1, len(cube), -1))[0])
    units = [len(tasks)] if tasks_too else []
    units += [cube.shape[1]] if cube.shape[1] > 1 else []
    if units:
        degrees, factor = min(units) - 1, min(units) / max(min(units) - 1, 1)
    else:  # runs, of which each task has its own number
        cube = _spread_out(cube)
        beyond = int(((~np.isnan(cube)).sum((1, 2)) - 1).sum())
        degrees, factor = (beyond + 1) // 2, 1.0
    if degrees < 1:
        return math.nan, math.nan
    values = statistic(resampled(cube, np.random.default_rng(0), draws, tasks_too))
    half = float(stats.t.ppf((1 + level) / 2, degrees)) * math.sqrt(factor) * float(values.std())
    return point - half, point + half


def _spread_out(cube: np.ndarray) -> np.ndarray:
    """Scores with the same means, deviations so much larger that a bootstrap of n runs has all of their
    variance, not (n - 1) / n of it.
    """
    count = (~np.isnan(cube)).sum(2, keepdims=True)
    means = np.nanmean(cube, axis=2, keepdims=True)
    spread: np.ndarray = means + (cube - means) * np.sqrt(count / np.maximum(count - 1, 1))
    return spread


def improvement(
    new: Sequence[Scores], old: Sequence[Scores], level: float = 0.95
) -> tuple[float, float, float]:
    """The chance that a run of the one beats a run of the other on a task of these, ties one half (Agarwal et
    al. 2021, §4.3): the mean over tasks of Mann-Whitney's U / (n m); and its interval.

    Units are the runs of each task; where an arm has several pretrainings these, alike on all tasks. The
    interval is the wider of two: t with the variance of U's components (DeLong et al. 1988), which is too
    small where one side wins everywhere, and the score interval whose variance at 1/2 is that of no
    difference (Newcombe 2006, method 5), with a correction for continuity.
    """
    shared = any(len(task) > 1 for task in (*new, *old))
    wins = [_wins(one, other) for one, other in zip(new, old, strict=True)]  # (units, units) of each task
    if shared:
        wins = [np.mean([_trimmed(one, wins) for one in wins], axis=0)]
    point = float(np.mean([one.mean() for one in wins]))
    sizes = [one.shape for one in wins]
    null = sum((n + m + 1) / (12 * n * m) for n, m in sizes) / len(wins) ** 2
    step = sum(1 / (n * m) for n, m in sizes) / len(wins) ** 2
    variance = sum(_variance(one.mean(1)) + _variance(one.mean(0)) for one in wins) / len(wins) ** 2
    degrees = sum(n + m - 2 for n, m in sizes)
    half = float(stats.t.ppf((1 + level) / 2, degrees)) * math.sqrt(variance) if degrees else 0.0
    squared = float(stats.norm.ppf((1 + level) / 2)) ** 2 * 4 * null  # z² / (effective number of pairs)
    low, _ = _score_interval(max(0.0, point - step / 2), squared)
    _, high = _score_interval(min(1.0, point + step / 2), squared)
    return point, max(0.0, min(low, point - half)), min(1.0, max(high, point + half))


def _wins(new: Scores, old: Scores) -> np.ndarray:
    """`(units, units)`: how often each of `new` is above each of `old`, ties one half; units are pretrainings
    where there are several, else runs.
    """
    (one, starts, sizes), (other, other_starts, other_sizes) = _in_a_row(new), _in_a_row(old)
    gap = one[:, None] - other
    above = np.add.reduceat((gap > 0) + 0.5 * (gap == 0), starts, axis=0)
    shares: np.ndarray = np.add.reduceat(above, other_starts, axis=1) / np.outer(sizes, other_sizes)
    return shares


def _in_a_row(task: Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All scores, where each unit's begin, and how many it has."""
    scores = np.concatenate([np.asarray(own, dtype=np.float64) for own in task.values()])
    several = len(task) > 1
    sizes = np.array([len(own) for own in task.values()] if several else [1] * len(scores))
    return scores, np.cumsum(sizes) - sizes, sizes


def _trimmed(one: np.ndarray, every: Sequence[np.ndarray]) -> np.ndarray:
    """The units that every task has."""
    return one[: min(len(other) for other in every), : min(other.shape[1] for other in every)]


def _variance(values: np.ndarray) -> float:
    """Of their mean."""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0


def _score_interval(share: float, squared: float) -> tuple[float, float]:
    """Wilson's (1927): the shares p with (share - p)² <= squared p (1 - p)."""
    middle = (share + squared / 2) / (1 + squared)
    half = math.sqrt(squared * (share * (1 - share) + squared / 4)) / (1 + squared)
    return middle - half, middle + half


def mean_ranks(arms: Sequence[Sequence[Scores]], level: float = 0.95) -> list[tuple[float, float, float]]:
    """Of each arm (its tasks) its rank among all by task means, 1 the best and ties shared, averaged over
    tasks; and which mean ranks the true means may have: on each task not above the arms that are shown to be
    better, nor below those shown to be worse.

    Shown by Welch's t test at a level for all pairs of an arm and all tasks together (Bonferroni; Klein et
    al. 2020, "A joint confidence region for an overall ranking of populations"). Units are runs, or
    pretrainings where an arm has several.
    """
    count, others = len(arms[0]), len(arms) - 1
    corrected = (1 - level) / max(1, others * count)
    ranks, low, high = np.zeros((3, len(arms)))
    for task in range(count):
        units = [_units(arm[task]) for arm in arms]
        ranks += stats.rankdata([-one.mean() for one in units])
        shown = np.array([[_side(one, own, corrected) for one in units] for own in units])
        low += 1 + (shown == 1).sum(1)
        high += len(arms) - (shown == -1).sum(1)
    found = (np.array([ranks, low, high]) / count).T.tolist()
    return [(rank, least, most) for rank, least, most in found]


def _units(task: Scores) -> np.ndarray:
    """Means of its pretrainings where there are several, else its runs."""
    if len(task) > 1:
        return np.array([np.mean(scores) for scores in task.values()])
    return np.array([score for scores in task.values() for score in scores], dtype=np.float64)


def _side(one: np.ndarray, other: np.ndarray, level: float) -> int:
    """1 where the one is shown to be larger, -1 smaller, 0 neither."""
    errors = _variance(one), _variance(other)
    if min(len(one), len(other)) < 2 or sum(errors) == 0:
        return 0
    gap = float(one.mean() - other.mean())
    degrees = sum(errors) ** 2 / (errors[0] ** 2 / (len(one) - 1) + errors[1] ** 2 / (len(other) - 1))
    p = 2 * float(stats.t.sf(abs(gap) / math.sqrt(sum(errors)), degrees))
    return int(math.copysign(1, gap)) if p <= level else 0


def profile(
    tasks: Sequence[Scores], at: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The share of runs that score above each of these points, tasks weighing alike (Agarwal et al. 2021,
    §4.2), and a band about each, `(P,)` each: t over pretrainings where there are several, else over the runs
    of each task. The band is the share itself where there is but one unit.
    """
    above = [
        {outer: (np.asarray(scores)[:, None] > at).mean(0) for outer, scores in task.items()}
        for task in tasks
    ]
    runs = [np.concatenate([np.asarray(scores) for scores in task.values()])[:, None] > at for task in tasks]
    shares = np.array([one.mean(0) for one in runs])  # (T, P)
    outers = sorted({outer for task in tasks for outer in task})
    if len(outers) > 1:
        by_outer = np.array(
            [np.mean([task[outer] for task in above if outer in task], axis=0) for outer in outers]
        )
        variance, degrees = by_outer.var(0, ddof=1) / len(outers), len(outers) - 1
    else:
        count = np.array([[len(one)] for one in runs])
        variance = (shares * (1 - shares) / np.maximum(count - 1, 1)).sum(0) / len(tasks) ** 2
        degrees = int((count - 1).sum())
    share: np.ndarray = shares.mean(0)
    half = float(stats.t.ppf((1 + level) / 2, degrees)) * np.sqrt(variance) if degrees else np.zeros(len(at))
    return share, np.maximum(0.0, share - half), np.minimum(1.0, share + half)


def violation(
    new: Sequence[float], old: Sequence[float], confidence: float = 0.95, draws: int = 1_000
) -> float:
    """How far `new` is from being stochastically larger than `old`, 0 not at all and 1 wholly the other way
    round; above 0.5 nothing is said for it (Dror et al. 2019, eq. 6 to 8; del Barrio et al. 2018): an upper
    bound at this confidence by bootstrap.
    """
    rng, n, m = np.random.default_rng(0), len(new), len(old)
    point = _violation(np.asarray(new, dtype=np.float64), np.asarray(old, dtype=np.float64))
    violations = [_violation(rng.choice(new, n), rng.choice(old, m)) for _ in range(draws)]
    factor = math.sqrt(n * m / (n + m))
    sigma = float(np.std([factor * (one - point) for one in violations]))
    return float(min(1.0, max(0.0, point - sigma / factor * stats.norm.ppf(1 - confidence))))


def _violation(new: np.ndarray, old: np.ndarray) -> float:
    """Share of the squared distance of two quantile functions that lies where the first is below the second;
    0.5 for equal ones.
    """
    at = np.unique(
        np.concatenate([np.arange(1, len(new) + 1) / len(new), np.arange(1, len(old) + 1) / len(old)]).round(
            12
        )
    )
    width = np.diff(np.concatenate([[0.0], at]))
    middle = at - width / 2
    gap = (
        np.sort(new)[np.minimum((middle * len(new)).astype(int), len(new) - 1)]
        - np.sort(old)[np.minimum((middle * len(old)).astype(int), len(old) - 1)]
    )
    whole = float((width * gap**2).sum())
    return 0.5 if whole == 0 else float((width * np.where(gap < 0, gap, 0.0) ** 2).sum()) / whole


# --- examples -------------------------------------------------------------------------------------
def interval_over_examples(
    scores: Sequence[Callable[[np.ndarray], float]],
    pretrainings: Sequence[int],
    examples: int,
    level: float = 0.95,
    draws: int = 1_000,
) -> tuple[float, float]:
    """Would other seeds on other examples say the same? Of scores that come of rows, one a seed, the interval
    of their mean.

    Two errors are independent: that of the examples, by drawing rows with replacement, the same for all
    seeds, and that of the seeds (means of `pretrainings` where there are several), a t interval. Their
    half-widths are added in squares (Zou & Donner 2008, MOVER), so that the interval is wider than each;
    pooled degrees of freedom would make one narrower that knows of more. Of one seed, examples alone.
    """
    rng, every = np.random.default_rng(0), np.arange(examples)
    whole = np.array([score(every) for score in scores])
    groups: dict[int, list[float]] = {}
    for outer, value in zip(pretrainings, whole, strict=True):
        groups.setdefault(outer, []).append(float(value))
    units = np.array([np.mean(values) for values in groups.values()]) if len(groups) > 1 else whole
    draws = int(min(draws, max(200, 2e8 / (examples * len(scores)))))
    drawn = []
    for _ in range(draws):
        rows = rng.integers(examples, size=examples)
        drawn.append(np.mean([score(rows) for score in scores]))
    share = (1 + level) / 2
    of_examples = float(stats.norm.ppf(share)) * float(np.std(drawn, ddof=1))
    of_seeds = 0.0
    if len(units) > 1:
        of_seeds = float(stats.t.ppf(share, len(units) - 1) * units.std(ddof=1)) / math.sqrt(len(units))
    half = math.hypot(of_examples, of_seeds)
    return float(units.mean()) - half, float(units.mean()) + half


# --- folds ----------------------------------------------------------------------------------------
def inflated(values: Sequence[float], share: float) -> list[float]:
    """Numbers of J folds with the same mean, spread such that a t test or interval of them is the corrected
    resampled one.

    `share` is n_test / n_train. Folds share training rows: the variance of their mean is about (1/J +
    n_test/n_train) s², and not s²/J (Nadeau & Bengio 2003, §3, eq. 9; for folds that are cut several times
    Bouckaert & Frank 2004). So deviations from the mean are multiplied by sqrt(1 + J n_test/n_train).
    """
    mean = sum(values) / len(values) if values else 0.0
    return [mean + (value - mean) * math.sqrt(1 + len(values) * share) for value in values]
