"""The order of batches: every example once an epoch, a pure function of (seed, epoch), budgets met to the
step.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlab.config.schema import Budget
from bertlab.data.batches import BatchOrder, order_batches
from bertlab.declarations import Mixing

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.array)


@given(
    LENGTHS,
    st.integers(1, 40),
    st.one_of(st.none(), st.integers(1, 200)),
    st.booleans(),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_every_example_is_seen_exactly_once_an_epoch(
    lengths: np.ndarray, size: int, tokens: int | None, grouped: bool, seed: int, epoch: int
) -> None:
    batches = BatchOrder(lengths, size, tokens, grouped, seed).epoch(epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) > 0
        if tokens is None:
            assert len(rows) <= size
        else:
            assert len(rows) == 1 or len(rows) * lengths[rows].max() <= tokens


@given(LENGTHS, st.integers(1, 40), st.booleans(), st.integers(0, 30))
def test_any_step_is_reached_directly(lengths: np.ndarray, size: int, grouped: bool, step: int) -> None:
    order_of_steps = BatchOrder(lengths, size, None, grouped, seed=3)
    walked = list(itertools.islice(order_of_steps.from_step(0), step + 2))[step:]
    jumped = list(itertools.islice(order_of_steps.from_step(step), 2))
    for (epoch, done, rows), (other_epoch, other_done, other_rows) in zip(walked, jumped, strict=True):
        assert (epoch, done, rows.tolist()) == (other_epoch, other_done, other_rows.tolist())


def test_order_changes_with_seed_and_epoch_and_with_nothing_else() -> None:
    lengths = np.arange(1, 200)

    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(BatchOrder(lengths, 8, None, True, seed).epoch(epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_length_grouping_leaves_little_padding() -> None:
    lengths = np.random.default_rng(0).geometric(0.08, 20_000) + 2

    def padding(grouped: bool) -> float:
        batches = BatchOrder(lengths, 32, None, grouped, 0).epoch(0)
        return 1 - lengths.sum() / sum(len(rows) * lengths[rows].max() for rows in batches)

    assert padding(grouped=True) < 0.06 < 0.4 < padding(grouped=False)


@settings(max_examples=50)
@given(LENGTHS, st.integers(1, 2000), st.one_of(st.none(), st.integers(60, 200)))
def test_token_and_example_budgets_end_with_the_step_that_reaches_them(
    lengths: np.ndarray, wanted: int, batch_tokens: int | None
) -> None:
    for unit, weights in (("tokens", lengths), ("examples", np.ones_like(lengths))):
        budget = Budget(batch_size=7, batch_tokens=batch_tokens, **{unit: wanted})
        order_of_steps = order_batches(lengths, budget, seed=1)
        steps = order_of_steps.total_steps(budget)
        seen = np.cumsum(
            [weights[rows].sum() for _, _, rows in itertools.islice(order_of_steps.from_step(0), steps)]
        )
        assert seen[-1] >= wanted and (len(seen) == 1 or seen[-2] < wanted)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 13), (3, 39), (0.5, 7), (2.25, 30), (0.001, 1)])
def test_epochs_count_whole_passes_and_parts_of_them(epochs: float, steps: int) -> None:
    budget = Budget(epochs=epochs, batch_size=8)
    assert order_batches(np.full(100, 5), budget, 0).total_steps(budget) == steps


def test_time_alone_has_no_number_of_steps() -> None:
    assert order_batches(np.full(10, 5), Budget(hours=1), 0).total_steps(Budget(hours=1)) is None


# --- what changes along the way -------------------------------------------------------------------
def walked(order: BatchOrder, steps: int, first: int = 0) -> list[np.ndarray]:
    return [rows for _, _, rows in itertools.islice(order.from_step(first), steps)]


RAMP = {"batch_size_from": 2, "batch_ramp_tokens": 700}


@given(LENGTHS, st.integers(3, 40), st.integers(1, 5000), st.booleans(), st.integers(0, 3))
def test_growing_batches_are_as_large_as_the_tokens_before_them_say(
    lengths: np.ndarray, size: int, ramp: int, grouped: bool, seed: int
) -> None:
    budget = Budget(
        epochs=1, batch_size=size, group_by_length=grouped, batch_size_from=2, batch_ramp_tokens=ramp
    )
    order = order_batches(lengths, budget, seed)
    seen = 0
    for number in range(3):
        batches = order.epoch(number)
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths))), (
            "every example once an epoch"
        )
        if not grouped:  # grouped, batches are shuffled among those of their size
            for rows in batches[:-1]:
                assert len(rows) == 2 + (size - 2) * min(seen, ramp) // ramp
                seen += int(lengths[rows].sum())
            seen += int(lengths[batches[-1]].sum())
        else:
            sizes = [len(rows) for rows in batches[:-1]]
            assert max(sizes, default=0) <= size
    total = int(lengths.sum())
    last = max(len(rows) for rows in order.epoch(-(-ramp // total) + 1))
    assert last == min(size, len(lengths)), "after the ramp, as large as asked for"


@settings(max_examples=30)
@given(LENGTHS, st.integers(3, 20), st.integers(0, 40))
def test_tokens_before_a_step_are_those_of_the_steps_before_it(
    lengths: np.ndarray, size: int, step: int
) -> None:
    for ramp in ({}, RAMP):
        order = order_batches(lengths, Budget(epochs=1, batch_size=size, **ramp), 1)
        before = walked(order, step)
        assert order.tokens_before(step) == sum(int(lengths[rows].sum()) for rows in before)
        assert [rows.tolist() for rows in walked(order, 3, step)] == [
            rows.tolist() for rows in walked(order, step + 3)[step:]
        ]
        budget = Budget(tokens=order.tokens_before(step) + 1, batch_size=size, **ramp)
        assert order_batches(lengths, budget, 1).total_steps(budget) == step + 1
        epochs = Budget(epochs=2, batch_size=size, **ramp)
        assert order_batches(lengths, epochs, 1).total_steps(epochs) == len(order.epoch(0)) + len(
            order.epoch(1)
        )


def test_lengths_double_in_equal_parts_of_the_ramp() -> None:
    order = order_batches(np.full(50, 100), Budget(epochs=1, length_from=16, length_ramp_tokens=3000), 0)
    assert [order.length_at(tokens) for tokens in (0, 999, 1000, 1999, 2000, 2999, 3000, 10**9)] == [
        16,
        16,
        32,
        32,
        64,
        64,
        None,
        None,
    ]
    assert order.lengths_used(2500.0) == [(16, 1000.0), (32, 1000.0), (64, 500.0), (None, 0.0)]
    assert order.lengths_used(5000.0) == [(16, 1000.0), (32, 1000.0), (64, 1000.0), (None, 2000.0)]
    assert order_batches(np.full(50, 100), Budget(epochs=1), 0).lengths_used(7.0) == [(None, 7.0)]


MIXING = Mixing(("a", "b", "c"), (0, 4000), ((0.5, 0.25, 0.25), (0.1, 0.9, 0.0)))


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 5), st.booleans())
def test_a_mixtures_parts_come_by_their_shares_and_each_example_before_any_again(
    first: int, second: int, third: int, seed: int, grouped: bool
) -> None:
    parts = np.repeat([0, 1, 2], [first, second, third])
    lengths = np.random.default_rng(seed).integers(5, 20, size=len(parts))
    order = order_batches(
        lengths, Budget(epochs=1, batch_size=4, group_by_length=grouped), seed, MIXING, parts
    )
    rows = np.concatenate([rows for number in range(40) for rows in order.epoch(number)])
    after = np.cumsum(lengths[rows])
    change = int(np.searchsorted(after, 4000)) + 1
    for stretch, shares in ((rows[:change], MIXING.shares[0]), (rows[change:], MIXING.shares[1])):
        drawn = np.bincount(parts[stretch], minlength=3)
        assert np.abs(drawn - len(stretch) * np.array(shares)).max() <= 6, "to within a few"
    assert not grouped or (np.bincount(parts[rows[change:]], minlength=3)[2] == 0), (
        "what has no share is not drawn"
    )
    for part in range(3):
        times = np.bincount(rows[parts[rows] == part], minlength=len(parts))[parts == part]
        assert times.max() - times.min() <= 1
    again = order_batches(
        lengths, Budget(epochs=1, batch_size=4, group_by_length=grouped), seed, MIXING, parts
    )
    assert [one.tolist() for one in walked(again, 5, 17)] == [
        one.tolist() for one in walked(order, 22)[17:]
    ], "whatever was asked before"


def test_a_part_of_a_mixture_is_spread_evenly() -> None:
    parts = np.repeat([0, 1], [1000, 1000])
    mixing = Mixing(("a", "b"), (0,), ((0.9, 0.1),))
    order = order_batches(np.full(2000, 10), Budget(epochs=1, batch_size=50), 3, mixing, parts)
    for rows in order.epoch(0):
        assert 3 <= (parts[rows] == 1).sum() <= 7
