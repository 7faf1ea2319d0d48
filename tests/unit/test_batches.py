"""The order of batches: every example once an epoch, a pure function of (seed, epoch), budgets met to the step."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlab.config.schema import Budget
from bertlab.data.batches import BatchOrder, order_batches

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.array)


@given(LENGTHS, st.integers(1, 40), st.one_of(st.none(), st.integers(1, 200)), st.booleans(), st.integers(0, 5), st.integers(0, 3))
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
def test_token_and_example_budgets_end_with_the_step_that_reaches_them(lengths: np.ndarray, wanted: int, batch_tokens: int | None) -> None:
    for unit, weights in (("tokens", lengths), ("examples", np.ones_like(lengths))):
        budget = Budget(batch_size=7, batch_tokens=batch_tokens, **{unit: wanted})
        order_of_steps = order_batches(lengths, budget, seed=1)
        steps = order_of_steps.total_steps(budget)
        seen = np.cumsum([weights[rows].sum() for _, _, rows in itertools.islice(order_of_steps.from_step(0), steps)])
        assert seen[-1] >= wanted and (len(seen) == 1 or seen[-2] < wanted)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 13), (3, 39), (0.5, 7), (2.25, 30), (0.001, 1)])
def test_epochs_count_whole_passes_and_parts_of_them(epochs: float, steps: int) -> None:
    budget = Budget(epochs=epochs, batch_size=8)
    assert order_batches(np.full(100, 5), budget, 0).total_steps(budget) == steps


def test_time_alone_has_no_number_of_steps() -> None:
    assert order_batches(np.full(10, 5), Budget(hours=1), 0).total_steps(Budget(hours=1)) is None
