"""What a run takes on many devices: closed forms, and a ring that is walked round."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertlab.jobs._devices import verdict
from bertlab.training.costs.devices import (
    GRADIENT,
    Devices,
    Work,
    estimate,
    exchanged_bytes,
    kept_bytes,
    memory,
    pass_seconds,
    ring_bytes,
)

MILLION = 1_000_000
WORK = Work(
    name="run", parameters=110 * MILLION, trained=110 * MILLION, state_bytes=8 * 110 * MILLION,
    fixed_bytes=0.5e9, example_bytes=20e6, layered=85 * MILLION, gathered=40 * MILLION, weight_bytes=2,
    examples=256.0, tokens=256 * 128.0, steps=1000, flops=6.0 * 110e6 * 256 * 128,
)  # fmt: skip
DEVICES = Devices(
    flops=1e15, memory=72e9, per_node=8, link=360e9, network=320e9, latency=1e-5, message=3e-5, share=0.4,
    half_tokens=2048, least_pass=0.015, overlap=0.8, price=2.0,
)  # fmt: skip
FAST = dataclasses.replace(DEVICES, latency=0.0, message=0.0, half_tokens=0, least_pass=0.0)


def walked_ring(chunks: int) -> int:
    """Chunks that a process sends in a ring of as many: sums on their way round, then the sums themselves."""
    held = [[{rank} for _ in range(chunks)] for rank in range(chunks)]  # whose values are in each chunk
    sent = 0
    for turn in range(2 * (chunks - 1)):
        moving = [(rank, (rank - turn) % chunks) for rank in range(chunks)]
        values = [held[rank][chunk] for rank, chunk in moving]
        for (rank, chunk), value in zip(moving, values, strict=True):
            after = (rank + 1) % chunks
            held[after][chunk] = held[after][chunk] | value
        sent += 1
    assert all(chunk == set(range(chunks)) for row in held for chunk in row), "all have every sum"
    return sent


@pytest.mark.parametrize("n", [1, 2, 3, 8, 13])
def test_a_ring_sends_what_its_walk_sends(n: int) -> None:
    size = 1200
    assert ring_bytes(size, n) == pytest.approx(walked_ring(n) * size / n)


@pytest.mark.parametrize("n", [2, 8, 512])
def test_gradients_are_exchanged_once_and_sharded_weights_for_every_pass(n: int) -> None:
    part = (n - 1) / n
    assert exchanged_bytes(WORK, n, 3, sharded=False) == pytest.approx(2 * part * 4 * WORK.parameters)
    # all gathered forward, layers backward too, gradients scattered, all in float32
    assert exchanged_bytes(WORK, n, 3, sharded=True) == pytest.approx(
        3 * part * 4 * (WORK.parameters + 85e6 + WORK.trained)
    )


def test_adamw_in_mixed_precision_keeps_16_bytes_a_parameter() -> None:
    """4 of weights, 4 of gradients, 8 of two moments (Rajbhandari et al. 2020, §3.1, with float32 gradients);
    sharded the n-th part.
    """
    assert kept_bytes(WORK, 64, sharded=False) == 16 * WORK.parameters
    assert kept_bytes(WORK, 64, sharded=True) == 16 * WORK.parameters / 64
    assert memory(WORK, 1, 10, sharded=False) == 16 * WORK.parameters + 0.5e9 + 10 * 20e6
    assert memory(WORK, 64, 10, sharded=True) == pytest.approx(
        16 * WORK.parameters / 64 + 2 * WORK.parameters + (4 + 4) * 40e6 + 10 * 20e6
    ), "with copies of all weights in bfloat16, which autograd keeps"
    exact = dataclasses.replace(WORK, weight_bytes=4)
    assert memory(exact, 64, 10, sharded=True) == pytest.approx(
        16 * WORK.parameters / 64 + (4 + 4) * 40e6 + 10 * 20e6
    )


def test_frozen_weights_have_neither_gradients_nor_exchange() -> None:
    probe = dataclasses.replace(WORK, trained=1000, state_bytes=8000)
    assert kept_bytes(probe, 1, sharded=False) == 4 * WORK.parameters + 4000 + 8000
    assert exchanged_bytes(probe, 2, 1, sharded=False) == GRADIENT * 1000


def test_one_device_computes_and_exchanges_nothing() -> None:
    one = estimate(WORK, FAST, 1)
    assert (one.exchange, one.waiting, one.wall, one.passes) == (0.0, 0.0, "", 1)
    assert one.compute == pytest.approx(WORK.flops / 0.4e15) and one.efficiency == pytest.approx(1.0)
    assert one.seconds == pytest.approx(1000 * one.compute)
    assert one.device_hours == pytest.approx(one.seconds / 3600)


def test_small_passes_reach_less_and_none_is_faster_than_the_smallest() -> None:
    halved = dataclasses.replace(FAST, half_tokens=16 * 128)
    assert pass_seconds(WORK, halved, 16) == pytest.approx(2 * pass_seconds(WORK, FAST, 16))
    assert pass_seconds(WORK, dataclasses.replace(FAST, least_pass=0.5), 16) == 0.5


def test_an_exchange_hides_behind_the_backward_pass() -> None:
    """440 MB of gradients on 2 devices: 440 MB sent at 360 GB/s; two thirds of a pass are backward."""
    two = estimate(WORK, FAST, 2)
    sent = 4 * 110e6 / 360e9
    assert two.exchange == pytest.approx(sent) and two.waiting == 0.0 < sent
    unhidden = estimate(WORK, dataclasses.replace(FAST, overlap=0.0), 2)
    assert unhidden.waiting == pytest.approx(sent)
    between = estimate(WORK, dataclasses.replace(FAST, overlap=0.0, network=1e9), 16)
    assert between.waiting == pytest.approx(ring_bytes(4 * 110e6, 16) / 1e9), "the narrowest part of the way"


def test_a_share_that_does_not_fit_goes_in_several_passes() -> None:
    """72 GB hold 1.76 GB and 2.26 - 1.76 of a pass, and 20 MB for each example."""
    large = dataclasses.replace(WORK, examples=16384.0, tokens=16384 * 128.0)
    fitting = math.floor((72e9 - 16 * 110e6 - 0.5e9) / 20e6)
    one = estimate(large, DEVICES, 2)
    assert one.passes == math.ceil(8192 / fitting) and one.memory <= 72e9
    asked = estimate(dataclasses.replace(large, micro_batch=64), DEVICES, 2)
    assert (asked.micro_batch, asked.passes) == (64, 128)


def test_each_wall_is_told() -> None:
    small = dataclasses.replace(DEVICES, memory=1.5e9)
    assert estimate(WORK, small, 8).wall == "memory" and estimate(WORK, small, 8).seconds == math.inf
    assert estimate(WORK, small, 8, sharded=True).wall != "memory"
    assert estimate(WORK, DEVICES, 512).wall == "batch", "256 examples are not shared by 512"
    assert estimate(WORK, DEVICES, 64).wall == "batch", "4 examples take as long as the smallest pass"
    slow = dataclasses.replace(FAST, network=1e8)
    assert estimate(WORK, slow, 16).wall == "communication"
    assert estimate(WORK, FAST, 2).wall == ""


def test_a_bucket_s_latency_is_counted_once_whatever_the_ring_sends() -> None:
    """440 MB of gradients are 17 buckets of 25 MiB on any number of devices; a tree of 8: 2 x 3 messages."""
    timed = dataclasses.replace(FAST, overlap=0.0, latency=1e-3)
    without = dataclasses.replace(timed, latency=0.0)
    for n, messages in ((2, 2), (8, 6)):
        more = estimate(WORK, timed, n).exchange - estimate(WORK, without, n).exchange
        assert more == pytest.approx(17 * messages * 1e-3)


def test_unequal_steps_need_room_for_the_largest() -> None:
    uneven = dataclasses.replace(WORK, examples=150.0, tokens=150 * 128.0, most=256)
    assert estimate(uneven, DEVICES, 1).examples == 256
    assert estimate(uneven, DEVICES, 1).memory == pytest.approx(estimate(WORK, DEVICES, 1).memory)
    assert estimate(uneven, DEVICES, 200).wall != "" and estimate(uneven, DEVICES, 256).examples == 1
    assert estimate(uneven, DEVICES, 512).seconds == math.inf


def test_a_wall_that_ends_is_told_up_to_where_and_the_next_one_from_where() -> None:
    small = dataclasses.replace(DEVICES, memory=1.2e9)
    numbers = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    estimates = [estimate(WORK, small, n, sharded=True) for n in numbers]
    walls = [one.wall for one in estimates]
    assert walls[0] == "memory" and "memory" not in walls[4:] and walls[-1] == "batch"
    said = list(verdict(WORK, small, estimates, sharded=True))
    last = numbers[walls.count("memory") - 1]
    assert said[0].startswith(f"wall: up to {last} device") and "memory" in said[0]
    assert said[1].startswith(f"wall: from {numbers[walls.index('batch')]} devices on the batch is too small")


@given(st.integers(1, 4096), st.integers(1, 4096), st.booleans(), st.floats(1e9, 1e12), st.integers(0, 10**5))
def test_many_devices_never_do_better_than_their_number(
    n: int, examples: int, sharded: bool, width: float, half: int
) -> None:
    work = dataclasses.replace(
        WORK, examples=float(examples), tokens=128.0 * examples, flops=6 * 110e6 * 128.0 * examples
    )
    devices = dataclasses.replace(DEVICES, link=width, network=width / 4, half_tokens=half, latency=0.0)
    one = estimate(work, devices, n, sharded)
    if math.isinf(one.seconds):
        assert one.wall in ("memory", "batch")
        return
    assert 0 < one.efficiency <= 1 + 1e-9
    assert one.memory <= devices.memory and one.passes * one.micro_batch >= one.examples
    assert one.devices * one.examples >= examples
    assert 0 <= one.waiting <= one.exchange + 1e-12
