"""What one may expect of the best of k trials, by those of a search (Dodge et al. 2019, §3.1)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def expected_best_of(values: Sequence[float], higher_is_better: bool = True) -> np.ndarray:
    """`(n,)`: the expected best of 1 … n trials drawn from these, with replacement (Dodge et al.
    2019, §3.1).
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not higher_is_better:
        return -expected_best_of((-ordered).tolist())
    n = len(ordered)
    share = np.arange(n + 1) / n  # of trials that are at most so good
    tries = np.arange(1, n + 1)[:, None]
    expected: np.ndarray = ((share[1:] ** tries - share[:-1] ** tries) * ordered).sum(1)
    return expected


def best_of(
    values: Sequence[float], higher_is_better: bool = True, level: float = 0.95, draws: int = 400
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The expected best of 1 … n trials like these (Dodge et al. 2019, §3.1), and its band over trials,
    `(n,)` each: t with a bootstrap's standard error, less the bootstrap's bias. NaN beyond a quarter of the
    trials, where the curve leans on the few best of them and a band would be too narrow.
    """
    from scipy.stats import t

    rng, each, n = np.random.default_rng(0), np.asarray(values, dtype=np.float64), len(values)
    expected = expected_best_of(values, higher_is_better)
    drawn = each[rng.integers(n, size=(draws, n))]
    curves = np.array([expected_best_of(one.tolist(), higher_is_better) for one in drawn])
    half = float(t.ppf((1 + level) / 2, max(n - 1, 1))) * math.sqrt(n / max(n - 1, 1)) * curves.std(0)
    half[max(n // 4, 1) :] = math.nan
    middle = 2 * expected - curves.mean(0)
    return expected, middle - half, middle + half


def all_trials(
    finished: Sequence[float], stopped: Sequence[float], unscored: int, higher_is_better: bool
) -> tuple[list[float], str]:
    """The scores that a search's trials count with, and that in words: those stopped early by their last
    score, those that ended before any by the worst of all.
    """
    values = [*finished, *stopped]
    words = [f"{len(values) + unscored} trials"]
    if stopped:
        words.append(f"{len(stopped)} stopped early, by their last score")
    if unscored:
        words.append(f"{unscored} without any score, by the worst of the others")
        values += [(min if higher_is_better else max)(values)] * unscored
    return values, ", ".join(words)


def draw_best_of(axes: Any, values: Sequence[float], higher_is_better: bool) -> None:
    """The curve and its band, on matplotlib's axes."""
    expected, low, high = best_of(values, higher_is_better)
    tries = np.arange(1, len(expected) + 1)
    (line,) = axes.plot(tries, expected)
    axes.fill_between(tries, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xlabel("trials")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
