"""Which example of which part of a mixture comes when: a pure function of (seed, position, tokens seen before).

The parts take turns as their shares say, evenly: the n-th example is of the part in whose share of [0, 1) the n-th multiple of the golden
ratio lies (Weyl's sequence), so that each part has its share of any stretch of examples to within a few. Within a part examples are in
random order; every one is seen before any is seen again.
"""

from dataclasses import dataclass, field

import numpy as np

from bertlab.declarations import Mixing

GOLDEN = (5**0.5 - 1) / 2
MIXTURE = 4  # beside the stream of orders


@dataclass
class Draws:
    """The order of a mixture's examples."""

    mixing: Mixing
    lengths: np.ndarray  # (N,) int64, tokens of each example
    parts: np.ndarray  # (N,) int64, the part that each is of
    seed: int
    _drawn: list[np.ndarray] = field(default_factory=list)  # examples of each part drawn before each epoch, as far as known

    def __post_init__(self) -> None:
        self.rows = [np.flatnonzero(self.parts == part) for part in range(len(self.mixing.names))]
        self._drawn = [np.zeros(len(self.rows), dtype=np.int64)]
        self._offset = float(np.random.default_rng([self.seed, MIXTURE, 0]).random())

    def epoch(self, number: int, seen: int) -> list[np.ndarray]:
        """Examples of epoch `number` in stretches of one phase each; `seen` tokens were before it. Epochs before it have been asked for."""
        count, drawn, stretches, start = len(self.lengths), self._drawn[number].copy(), [], 0
        while start < count:
            phase = max(index for index, begin in enumerate(self.mixing.starts) if begin <= seen)
            place = (number * count + np.arange(start, count)) * GOLDEN + self._offset
            bounds = np.cumsum(self.mixing.shares[phase])
            part = np.searchsorted(bounds / bounds[-1], place % 1.0, side="right").clip(max=len(bounds) - 1)
            chosen = np.empty(len(part), dtype=np.int64)
            for index in np.unique(part):
                own = part == index
                chosen[own] = self._of(int(index), int(drawn[index]), int(own.sum()))
            if phase + 1 < len(self.mixing.starts):  # up to where the next phase begins
                after = seen + np.cumsum(self.lengths[chosen])
                chosen = chosen[: int(np.searchsorted(after, self.mixing.starts[phase + 1])) + 1]
            drawn += np.bincount(self.parts[chosen], minlength=len(drawn))
            seen += int(self.lengths[chosen].sum())
            start += len(chosen)
            stretches.append(chosen)
        if len(self._drawn) == number + 1:
            self._drawn.append(drawn)
        return stretches

    def _of(self, part: int, first: int, count: int) -> np.ndarray:
        """So many examples of a part, from its number `first` on; past its last it begins anew, in another order."""
        rows = self.rows[part]
        passes = range(first // len(rows), (first + count - 1) // len(rows) + 1)
        orders = [rows[np.random.default_rng([self.seed, MIXTURE, 1 + part, one]).permutation(len(rows))] for one in passes]
        taken: np.ndarray = np.concatenate(orders)[first - passes.start * len(rows) :][:count]
        return taken
