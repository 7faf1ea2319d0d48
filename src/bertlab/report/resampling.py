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
    are fewer. With `tasks_too=False` the tasks are taken as given (Agarwal et al. 2021: stratified). NaN
    where nothing shows a spread.
    """
    cube = as_cube(tasks)
    runs = int((~np.isnan(cube)).sum())
    units = [len(tasks)] if tasks_too else []
    units += [cube.shape[1]] if cube.shape[1] > 1 else []
    units += [] if units else [1 + runs - len(tasks)]  # runs of all tasks, less one a task
    if min(units) < 2:
        return math.nan, math.nan
    values = statistic(resampled(cube, np.random.default_rng(0), draws, tasks_too))
    point = float(statistic(cube.reshape(1, len(cube), -1))[0])
    scale = math.sqrt(min(units) / (min(units) - 1)) * float(stats.t.ppf((1 + level) / 2, min(units) - 1))
    half = scale * float(values.std())
    return point - half, point + half


def improvement(
    new: Sequence[Sequence[float]], old: Sequence[Sequence[float]], level: float = 0.95
) -> tuple[float, float, float]:
    """The chance that a run of the one beats a run of the other on a task of these, ties one half, and its
    bootstrap interval over runs (Agarwal et al. 2021, §4.3): the mean over tasks of Mann-Whitney's U / (n m).
    """
    rng = np.random.default_rng(0)

    def chance(one: np.ndarray, other: np.ndarray) -> np.ndarray:  # (D, n), (D, m) -> (D,)
        gap = one[:, :, None] - other[:, None, :]
        return np.asarray(((gap > 0) + 0.5 * (gap == 0)).mean((1, 2)))

    point = np.mean(
        [chance(np.array([one]), np.array([other]))[0] for one, other in zip(new, old, strict=True)]
    )
    drawn = np.zeros(DRAWS)
    for one, other in zip(new, old, strict=True):
        a, b = np.asarray(one)[rng.integers(len(one), size=(DRAWS, len(one)))], np.asarray(other)
        drawn += chance(a, b[rng.integers(len(b), size=(DRAWS, len(b)))])
    low, high = np.quantile(drawn / len(new), [(1 - level) / 2, (1 + level) / 2])
    return float(point), float(low), float(high)


def mean_ranks(
    arms: Sequence[Sequence[Sequence[float]]], level: float = 0.95
) -> list[tuple[float, float, float]]:
    """Of each arm (task -> scores) its rank among all by task means, 1 the best and ties shared, averaged
    over tasks; and its bootstrap interval over runs.
    """
    rng, count = np.random.default_rng(0), len(arms[0])
    point, drawn = np.zeros(len(arms)), np.zeros((DRAWS, len(arms)))
    for task in range(count):
        scores = [np.asarray(arm[task], dtype=np.float64) for arm in arms]
        point += stats.rankdata([-one.mean() for one in scores])
        means = np.stack(
            [one[rng.integers(len(one), size=(DRAWS, len(one)))].mean(1) for one in scores], axis=1
        )
        drawn += stats.rankdata(-means, axis=1)
    low, high = np.quantile(drawn / count, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [(float(a), float(b), float(c)) for a, b, c in zip(point / count, low, high, strict=True)]


def profile(tasks: Sequence[Sequence[float]], at: np.ndarray) -> np.ndarray:
    """`(P,)`: the share of runs that score above each of these points, tasks weighing alike (Agarwal et al.
    2021, §4.2).
    """
    shares: np.ndarray = np.mean([(np.asarray(scores)[:, None] > at).mean(0) for scores in tasks], axis=0)
    return shares


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

    Two variances are added: that of the examples, by drawing rows with replacement, the same for all seeds,
    and that of the seeds (means of `pretrainings` where there are several), s²/n; t's quantile takes
    Satterthwaite's degrees of freedom. Of one seed, examples alone.
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
    of_examples = float(np.var(drawn, ddof=1))
    of_seeds = float(units.var(ddof=1)) / len(units) if len(units) > 1 else 0.0
    degrees = (of_examples + of_seeds) ** 2 * (len(units) - 1) / of_seeds**2 if of_seeds > 0 else math.inf
    half = float(stats.t.ppf((1 + level) / 2, degrees)) * math.sqrt(of_examples + of_seeds)
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
