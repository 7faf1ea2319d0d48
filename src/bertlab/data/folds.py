"""Folds for cross-validation: rows that share a text together, classes in equal shares, the same for
everybody (by a hash, not a draw).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bertlab.config import registry
from bertlab.declarations import Role

TENTHS = 10


def linked(places: Sequence[np.ndarray]) -> np.ndarray:
    """`(N,)`: number of the group that each row is in; rows are in one group if they share a text, or are
    linked by rows that do.

    `places`: of each column of texts a number `(N,)` that is equal where texts are.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(places[0])
    texts, ids = np.unique(np.concatenate(places), return_inverse=True)
    rows = np.tile(np.arange(count), len(places))
    edges = coo_array(
        (np.ones(len(rows), dtype=np.int8), (rows, count + ids)), shape=(count + len(texts),) * 2
    )
    return np.unique(connected_components(edges, directed=False)[1][:count], return_inverse=True)[1]


def strata_of(rows: Any, roles: Sequence[Role], folds: int) -> np.ndarray:
    """`(N,)`: what folds are to have in equal shares: classes; of a number to predict the tenth that it is
    in; else nothing.
    """
    kinds = {role: registry.load_kind(role.kind) for role in roles}
    label = next((role.name for role, kind in kinds.items() if kind.classes == "one"), None)
    if label is not None:
        return np.unique(np.asarray(rows[label][:]), return_inverse=True)[1]
    number = next((role.name for role, kind in kinds.items() if kind.is_number and role.is_answer), None)
    if number is not None:
        values = np.asarray(rows[number][:], dtype=np.float64)
        bins = max(1, min(TENTHS, len(values) // folds))
        return np.unique(
            np.searchsorted(np.quantile(values, np.arange(1, bins) / bins), values, side="right"),
            return_inverse=True,
        )[1]
    return np.zeros(len(rows), dtype=np.int64)


def deal(groups: np.ndarray, strata: np.ndarray, order: np.ndarray, folds: int) -> np.ndarray:
    """`(N,)`: a fold for each row, groups whole, strata in equal shares as far as groups allow; of rows alone
    to within one row.

    Groups of several rows come first, the largest before smaller ones, each to the fold that has least of
    what it brings; then rows alone, stratum by stratum, in the order of `order`, each to the fold that has
    least of it.
    """
    size = np.bincount(groups)
    have = np.zeros((folds, int(strata.max()) + 1))  # rows of each stratum by now
    total = have.sum(1)
    share = np.bincount(strata).astype(np.float64)
    fold_of = np.zeros(len(groups), dtype=np.int64)
    by_group = np.lexsort((order, groups))
    starts = np.concatenate(([0], np.cumsum(size)))
    several = np.flatnonzero(size > 1)
    first = order[by_group[starts[:-1]]]
    for group in several[np.lexsort((first[several], -size[several]))]:
        rows = by_group[starts[group] : starts[group + 1]]
        brings = np.bincount(strata[rows], minlength=have.shape[1])
        fold = int(np.lexsort((total, have @ (brings / share)))[0])
        fold_of[rows] = fold
        have[fold] += brings
        total[fold] += len(rows)
    alone = np.flatnonzero(size[groups] == 1)
    for stratum in np.unique(strata[alone]):
        rows = alone[strata[alone] == stratum]
        rows = rows[np.argsort(order[rows], kind="stable")]
        # (rows, folds): what a fold has when it gets its next
        level = have[:, stratum][None, :] + np.arange(len(rows))[:, None]
        tie = np.broadcast_to(np.argsort(np.argsort(total, kind="stable")), level.shape)
        taken = np.lexsort((tie.ravel(), level.ravel()))[: len(rows)] % folds
        fold_of[rows] = taken
        have[:, stratum] += np.bincount(taken, minlength=folds)
        total += np.bincount(taken, minlength=folds)
    return fold_of
