"""Texts longer than a row, read whole in windows that overlap; what a model says of the windows, as one
answer a row.

Legend: W windows of a split, N rows of it, C classes.
"""

import numpy as np

from bertlab.contracts import Special
from bertlab.objectives._texts import join_texts


def windows_of(
    first: list[int], second: list[int] | None, max_length: int, special: Special, stride: int | None
) -> tuple[list[tuple[list[int], int]], int]:
    """Rows of at most `max_length` ids that hold all of the text, each with where the second text starts (0 =
    none); tokens left out.

    Of a pair the longer text is read in windows, each beside the whole of the other, of which no more than
    half the room is kept: only that is ever left out. A window begins `stride` tokens after the one before it
    (null, or more than its length: half of that); the last one ends where the text does, so that none is
    short.
    """
    left_out = 0
    if second is None:
        long, short, room = first, None, max_length - 2
    else:
        room = max(0, max_length - 2 - special.between)
        long, short = (first, second) if len(first) >= len(second) else (second, first)
        kept = min(len(short), max(room // 2, room - len(long)))
        short, left_out, room = short[:kept], len(short) - kept, room - kept
    step = max(1, room // 2) if stride is None or stride > room else stride
    if room == 0:  # nothing of a pair fits between three separators
        return [join_texts(first, second, max_length, special)], left_out + len(long)
    begins = [*range(0, len(long) - room, step), max(0, len(long) - room)]
    parts = [long[begin : begin + room] for begin in begins]
    if short is None:
        return [join_texts(part, None, max_length, special) for part in parts], left_out
    pairs = [(part, short) if long is first else (short, part) for part in parts]
    return [join_texts(one, other, max_length, special) for one, other in pairs], left_out


def mean_by_row(values: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of `values (W, C)` over each row's windows `(N, C)`, rows in order; of each row its first
    window's place `(N,)`.
    """
    _, place, index, count = np.unique(row, return_index=True, return_inverse=True, return_counts=True)
    total = np.zeros((len(count), values.shape[1]))
    np.add.at(total, index, values)
    return total / count[:, None], place
