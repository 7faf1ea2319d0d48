"""Which examples stand in which batch: a pure function of (seed, epoch), so a run continues anywhere by its
step alone.

Length-grouped batches: a random order is cut into large chunks, each chunk sorted by length and cut into
batches, and the batches of the epoch shuffled. Padding nearly vanishes, every example is seen once an epoch,
neighbours stay random.

What changes along the way (the size of batches, the length of rows, the shares of a mixture's parts) changes
with the tokens that were seen before, counted as `lengths` has them; batches are then grouped by length and
shuffled within stretches where nothing changes.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from bertlab.config.schema import Budget, Evaluation, Train
from bertlab.contracts import Examples
from bertlab.declarations import Mixing

GOLDEN_RATIO = (5**0.5 - 1) / 2
MIXTURE = 4  # beside the stream of orders
CHUNK_BATCHES = 100  # batches per sorted chunk: with 100, SST-2 at 32 or 64 examples has 2.5 % padding


@dataclass(frozen=True)
class Ramp:
    """Something that grows with the tokens seen: from a first value on, over so many tokens."""

    first: int
    tokens: int


@dataclass
class Draws:
    """The order of a mixture's examples: a pure function of (seed, position, tokens seen before).

    The parts take turns as their shares say, evenly: the n-th example is of the part in whose share of [0, 1)
    the n-th multiple of the golden ratio lies (Weyl's sequence), so that each part has its share of any
    stretch to within a few. Within a part examples are in random order; every one is seen before any is seen
    again.
    """

    mixing: Mixing
    lengths: np.ndarray  # (N,) int64, tokens of each example
    parts: np.ndarray  # (N,) int64, the part that each is of
    seed: int
    # examples of each part drawn before each epoch, as far as known
    _drawn: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = [np.flatnonzero(self.parts == part) for part in range(len(self.mixing.names))]
        self._drawn = [np.zeros(len(self.rows), dtype=np.int64)]
        self._offset = float(np.random.default_rng([self.seed, MIXTURE, 0]).random())

    def epoch(self, number: int, seen: int) -> list[np.ndarray]:
        """Examples of epoch `number` in stretches of one phase each; `seen` tokens were before it. Epochs
        before it have been asked for.
        """
        count, drawn, stretches, start = len(self.lengths), self._drawn[number].copy(), [], 0
        while start < count:
            phase = max(index for index, begin in enumerate(self.mixing.starts) if begin <= seen)
            place = (number * count + np.arange(start, count)) * GOLDEN_RATIO + self._offset
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
        """So many examples of a part, from its number `first` on; past its last it begins anew, in another
        order.
        """
        rows = self.rows[part]
        passes = range(first // len(rows), (first + count - 1) // len(rows) + 1)
        orders = [
            rows[np.random.default_rng([self.seed, MIXTURE, 1 + part, one]).permutation(len(rows))]
            for one in passes
        ]
        taken: np.ndarray = np.concatenate(orders)[first - passes.start * len(rows) :][:count]
        return taken


@dataclass
class BatchOrder:
    """Batches of every epoch of a run over examples of the given lengths.

    Of a mixture an epoch is as many examples as all its parts have, drawn by their shares.
    """

    lengths: np.ndarray  # (N,) int64, tokens of each example
    batch_size: int
    batch_tokens: int | None
    group_by_length: bool
    seed: int
    size_ramp: Ramp | None = None
    length_ramp: Ramp | None = None
    draws: Draws | None = None  # of a mixture
    # tokens seen before each epoch of a mixture, as far as known
    _began: list[int] = field(default_factory=lambda: [0])

    def epoch(self, number: int) -> list[np.ndarray]:
        """Row numbers of each batch of epoch `number` (from 0)."""
        rng = np.random.default_rng([self.seed, number])
        seen = self._tokens_before(number)
        if self.draws is None:
            stretches = [rng.permutation(len(self.lengths))]
        else:
            stretches = self.draws.epoch(number, seen)
        batches: list[np.ndarray] = []
        for stretch in stretches:
            for rows, size in self._of_one_size(stretch, seen):
                batches += self._grouped(rows, size, rng)
            seen += int(self.lengths[stretch].sum())
        return batches

    def _grouped(self, order: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Batches of a stretch."""
        if not self.group_by_length:
            return self._cut(order, batch_size)
        size = (
            batch_size
            if self.batch_tokens is None
            else max(1, int(self.batch_tokens // max(1.0, self.lengths.mean())))
        )
        chunk = size * CHUNK_BATCHES
        batches: list[np.ndarray] = []
        for start in range(0, len(order), chunk):
            rows = order[start : start + chunk]
            batches += self._cut(rows[np.argsort(-self.lengths[rows], kind="stable")], batch_size)
        return [batches[index] for index in rng.permutation(len(batches))]

    def _cut(self, rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
        """Cut an order into batches of `batch_size` examples, or of at most `batch_tokens` padded tokens."""
        if self.batch_tokens is None:
            return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        batches, start, longest = [], 0, 0
        for end, row in enumerate(rows):
            longest = max(longest, int(self.lengths[row]))
            if end > start and longest * (end - start + 1) > self.batch_tokens:
                batches.append(rows[start:end])
                start, longest = end, int(self.lengths[row])
        return [*batches, rows[start:]]

    def _of_one_size(self, rows: np.ndarray, seen: int) -> Iterator[tuple[np.ndarray, int]]:
        """The same rows in stretches of whole batches of one size, which grows by the tokens seen; `seen`
        were before them.
        """
        if self.size_ramp is None:
            yield rows, self.batch_size
            return
        first, ramp = self.size_ramp.first, self.size_ramp.tokens
        after, start = seen + np.cumsum(self.lengths[rows]), 0
        while start < len(rows):
            before = seen if start == 0 else int(after[start - 1])
            size = first + (self.batch_size - first) * min(before, ramp) // ramp
            end = len(rows)
            if size < self.batch_size:
                until = ramp * (size + 1 - first) / (self.batch_size - first)  # here the next size begins
                wanted = int(np.searchsorted(after, until)) + 1 - start
                end = min(end, start + -(-wanted // size) * size)
            yield rows[start:end], size
            start = end

    # --- how far ---
    def _tokens_before(self, number: int) -> int:
        """Tokens of all epochs before this one."""
        if self.draws is None:
            return number * int(self.lengths.sum())
        while len(self._began) <= number:
            last = len(self._began) - 1
            self._began.append(
                self._began[last]
                + sum(int(self.lengths[rows].sum()) for rows in self.draws.epoch(last, self._began[last]))
            )
        return self._began[number]

    def tokens_before(self, step: int) -> int:
        """Tokens of all steps before this one."""
        for number in itertools.count():
            batches = self.epoch(number)
            if step < len(batches):
                return self._tokens_before(number) + sum(
                    int(self.lengths[rows].sum()) for rows in batches[:step]
                )
            step -= len(batches)
        raise AssertionError

    def rows_before(self, steps: int) -> np.ndarray:
        """The examples of so many first steps, in order."""
        taken = [rows for _, _, rows in itertools.islice(self.from_step(0), steps)]
        return np.concatenate(taken) if taken else np.zeros(0, dtype=np.int64)

    def length_at(self, tokens: int) -> int | None:
        """How long rows are after so many tokens: the first length, then twice as much, … for equal parts of
        the ramp; None = whole.
        """
        if self.length_ramp is None or tokens >= self.length_ramp.tokens:
            return None
        stages = self._stages()
        return stages[tokens * len(stages) // self.length_ramp.tokens] if stages else None

    def _stages(self) -> list[int]:
        assert self.length_ramp is not None
        longest = int(self.lengths.max())
        lengths = itertools.takewhile(
            lambda length: length < longest,
            (self.length_ramp.first * 2**power for power in itertools.count()),
        )
        return list(lengths)

    def lengths_used(self, tokens: float) -> list[tuple[int | None, float]]:
        """How many of the first `tokens` tokens are seen in rows of each length, as `length_at` has it."""
        if self.length_ramp is None:
            return [(None, tokens)]
        stages = self._stages()
        each = self.length_ramp.tokens / max(1, len(stages))
        parts: list[tuple[int | None, float]] = []
        for stage in stages:
            parts.append((stage, min(each, tokens)))
            tokens -= parts[-1][1]
        return [*(part for part in parts if part[1] > 0), (None, tokens)]

    def steps_in(self, epochs: float) -> int:
        """Optimizer steps in so many epochs, at least one; a part of an epoch is rounded up to a step."""
        whole = int(epochs)
        if self.batch_tokens is None and self.size_ramp is None and self.draws is None:
            per_epoch = self._grouped_steps()
            return max(1, int(np.ceil(epochs * per_epoch - 1e-9)))
        steps = sum(len(self.epoch(number)) for number in range(whole))
        part = epochs - whole
        return max(1, steps + (int(np.ceil(part * len(self.epoch(whole)) - 1e-9)) if part > 1e-9 else 0))

    def _grouped_steps(self) -> int:
        return -(-len(self.lengths) // self.batch_size)  # chunks hold whole batches

    def total_steps(self, budget: Budget) -> int | None:
        """Steps of the whole run; None where the budget is time alone."""
        if budget.steps is not None:
            return budget.steps
        if budget.epochs is not None:
            return self.steps_in(budget.epochs)
        wanted = budget.examples if budget.examples is not None else budget.tokens
        if wanted is None:
            return None
        weights = np.ones_like(self.lengths) if budget.examples is not None else self.lengths
        seen, steps, number = 0, 0, 0
        while seen < wanted:
            for rows in self.epoch(number):
                seen, steps = seen + int(weights[rows].sum()), steps + 1
                if seen >= wanted:
                    break
            number += 1
        return steps

    def steps_between(self, evaluation: Evaluation, total: int | None) -> int:
        """Steps from one evaluation to the next: as configured, else once an epoch."""
        if evaluation.every_steps is not None:
            return evaluation.every_steps
        interval = self.steps_in(1.0 if evaluation.every_epochs is None else evaluation.every_epochs)
        return interval if total is None else max(1, min(interval, total))

    def from_step(self, step: int) -> Iterator[tuple[int, float, np.ndarray]]:
        """(epoch, epochs done after this batch, rows) of every batch from `step` on, for ever."""
        number, first = 0, 0
        while True:
            batches = self.epoch(number)
            for index in range(max(0, step - first), len(batches)):
                yield number, number + (index + 1) / len(batches), batches[index]
            first += len(batches)
            number += 1


def order_of(config: Train, train: Examples) -> BatchOrder:
    """The batches of a run."""
    mixing = config.dataset.mixing()
    return order_batches(
        train.lengths, config.budget, config.seed, mixing, None if mixing is None else train.columns["part"]
    )


def order_batches(
    lengths: np.ndarray,
    budget: Budget,
    seed: int,
    mixing: Mixing | None = None,
    parts: np.ndarray | None = None,
) -> BatchOrder:
    """The batches over examples of these lengths; of a mixture, `parts (N,)` are the numbers of the parts
    that its examples are of.
    """
    lengths = np.asarray(lengths)
    size_ramp = length_ramp = None
    if budget.batch_size_from is not None and budget.batch_ramp_tokens is not None:
        size_ramp = Ramp(budget.batch_size_from, budget.batch_ramp_tokens)
    if budget.length_from is not None and budget.length_ramp_tokens is not None:
        length_ramp = Ramp(budget.length_from, budget.length_ramp_tokens)
    draws = None if mixing is None else Draws(mixing, lengths, np.asarray(parts), seed)
    return BatchOrder(
        lengths, budget.batch_size, budget.batch_tokens, budget.group_by_length, seed, size_ramp, length_ramp,
        draws
    )  # fmt: skip
