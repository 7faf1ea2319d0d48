"""What a step takes on so many devices: memory, computing, exchange, and which of them is the wall.
Arithmetic on declared figures; nothing is measured here.

Data-parallel training: every device computes its share of the effective batch. Replicated (`sharding=none`,
DDP; Li et al. 2020): all hold everything, gradients are summed by a ring (Patarasu & Yuan 2009). Sharded
(`sharding=full`, FSDP; Zhao et al. 2023, ZeRO-3; Rajbhandari et al. 2020): each holds a part, layers are
gathered before each use, what stands around them once a pass (training/several/sharding.py).

Legend: n devices, B examples of the effective batch, m examples of a forward pass, P parameters.
"""

import math
from dataclasses import dataclass

GRADIENT = 4  # bytes: gradients are float32, as the weights that are kept
WEIGHT = 4
BUCKET = 25 * 2**20  # bytes that DistributedDataParallel exchanges at a time
TALKS = 3  # of a step, in which every process hears of every other (training/loop.py)
LITTLE = 0.5  # of the assumed rate: where less is left, something is in the way


@dataclass(frozen=True)
class Work:
    """A run, as far as devices see it."""

    name: str
    parameters: int
    trained: int  # of them, those that may get gradients: torch's buckets have a place for each
    state_bytes: int  # of the optimizer
    fixed_bytes: float  # of a forward and backward pass, whatever its size
    example_bytes: float  # more for each of the longest examples in it
    layered: int  # parameters within layers, the others are around them
    gathered: int  # parameters that are whole at a time where the others are sharded
    weight_bytes: int  # of a weight as products read it
    examples: float  # of a step: the effective batch B
    tokens: float  # of a step
    steps: int
    flops: float  # of a step, forward and backward
    other_flops: float = 0.0  # of the whole run beside its steps: evaluations
    micro_batch: int | None = None  # where it is said
    most: int = 0  # examples of the largest step, where steps are unequal; 0 = as a mean one


@dataclass(frozen=True)
class Devices:
    """One kind of device and what joins them; figures in bytes, seconds and operations."""

    flops: float  # peak a second, in the run's precision
    memory: float  # of each, as far as it is used
    per_node: int
    link: float  # bytes a second within a node, as reached
    network: float  # that a node sends, as reached
    latency: float
    message: float
    share: float
    half_tokens: float
    least_pass: float
    overlap: float
    price: float | None = None  # of an hour


@dataclass(frozen=True)
class Estimate:
    """A run on n devices. Where `wall` is memory or batch it cannot be run so, and times are infinite."""

    devices: int
    examples: int  # of the device that has most of them
    micro_batch: int  # m
    passes: int  # a step
    memory: float  # bytes of a device
    compute: float  # seconds of a step
    exchange: float  # seconds that messages are on their way, in a step
    waiting: float  # of these, seconds in which nothing is computed
    efficiency: float  # of the assumed share of the peak, what is left
    seconds: float  # of the run
    wall: str  # memory, batch, communication or nothing

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return self.compute + self.waiting

    @property
    def device_hours(self) -> float:
        """What is paid for."""
        return self.devices * self.seconds / 3600


def kept_bytes(work: Work, n: int, sharded: bool) -> float:
    """Weights, gradients and optimizer state of a device: 16 bytes a parameter with AdamW, or the n-th part
    of that.
    """
    whole = WEIGHT * work.parameters + GRADIENT * work.trained + work.state_bytes
    return whole / n if sharded else whole


def memory(work: Work, n: int, micro_batch: int, sharded: bool) -> float:
    """Bytes of a device at the highest point of a step. Sharded, what is gathered is there with its
    gradients; narrower copies, which products read, autograd keeps of all weights.
    """
    narrow = work.weight_bytes * work.parameters if work.weight_bytes < WEIGHT else 0
    fixed = (WEIGHT + GRADIENT) * work.gathered + narrow if sharded else work.fixed_bytes
    return kept_bytes(work, n, sharded) + fixed + micro_batch * work.example_bytes


def ring_bytes(count: float, n: int) -> float:
    """Bytes that each device sends to sum so many by a ring: 2 (n - 1) / n of them."""
    return 2 * (n - 1) / n * count


def exchanged_bytes(work: Work, n: int, passes: int, sharded: bool) -> float:
    """Bytes that each device sends in a step: gradients once; sharded, in each pass weights, which are
    gathered forward, those of layers backward too, and gradients.
    """
    if not sharded:
        return ring_bytes(GRADIENT * work.trained, n)
    each = WEIGHT * (work.parameters + work.layered) + GRADIENT * work.trained
    return passes * (n - 1) / n * each


def exchange_seconds(work: Work, devices: Devices, n: int, passes: int, sharded: bool) -> float:
    """Time of these: bytes over the narrowest part of the way, and for each bucket the latency of a tree's
    2 log2 n messages, which libraries take for what is short.
    """
    if n == 1:
        return 0.0
    count = exchanged_bytes(work, n, passes, sharded)
    width = devices.link if n <= devices.per_node else min(devices.link, devices.network)
    buckets = math.ceil((count if sharded else GRADIENT * work.trained) / BUCKET)
    return count / width + buckets * 2 * math.ceil(math.log2(n)) * devices.latency


def talk_seconds(devices: Devices, n: int) -> float:
    """Time in which processes tell each other counts and what was asked of them, by a ring of messages."""
    return TALKS * (n - 1) * devices.message


def pass_seconds(work: Work, devices: Devices, micro_batch: float) -> float:
    """A forward and backward pass over so many examples: t tokens reach t / (t + half) of the assumed
    share.
    """
    tokens = max(micro_batch * work.tokens / work.examples, 1e-9)
    rate = devices.flops * devices.share * tokens / (tokens + devices.half_tokens)
    return max(devices.least_pass, micro_batch * work.flops / work.examples / rate)


def largest_micro_batch(work: Work, devices: Devices, n: int, sharded: bool) -> int:
    """Examples of a pass that fit in memory; as many as were asked for where that is said."""
    if work.micro_batch is not None:
        return work.micro_batch
    left = devices.memory - memory(work, n, 0, sharded)
    return max(0, math.floor(left / max(work.example_bytes, 1.0)))


def estimate(work: Work, devices: Devices, n: int, sharded: bool = False) -> Estimate:
    """The run on n devices."""
    sharded = sharded and n > 1
    most = work.most or math.ceil(work.examples)  # the last step of an epoch may have fewer
    own = math.ceil(most / n)
    fitting = min(own, largest_micro_batch(work, devices, n, sharded))
    if n > most:
        return _impossible(n, own, min(own, max(1, fitting)), memory(work, n, 1, sharded), "batch")
    needed = memory(work, n, max(1, fitting), sharded)
    if fitting < 1 or needed > devices.memory:
        return _impossible(n, own, max(1, fitting), needed, "memory")
    passes = math.ceil(own / fitting)
    if work.micro_batch is None:  # as even as may be
        fitting = math.ceil(own / passes)
        needed = memory(work, n, fitting, sharded)
    one = pass_seconds(work, devices, own / passes)
    compute = passes * one
    exchange = exchange_seconds(work, devices, n, passes, sharded)
    behind = devices.overlap * (compute if sharded else one * 2 / 3)  # a backward pass is two thirds
    waiting = max(0.0, exchange - behind) + talk_seconds(devices, n)
    ideal = work.flops / (n * devices.flops * devices.share)
    seconds = work.steps * (compute + waiting)
    seconds += work.other_flops / (n * devices.flops * devices.share)
    efficiency = ideal / (compute + waiting)
    wall = ""
    if efficiency < LITTLE:
        wall = "communication" if waiting > compute - ideal else "batch"
    return Estimate(
        n, own, fitting, passes, needed, compute, exchange + talk_seconds(devices, n),
        waiting, efficiency, seconds, wall
    )  # fmt: skip


def _impossible(n: int, own: int, micro_batch: int, needed: float, wall: str) -> Estimate:
    return Estimate(n, own, micro_batch, 0, needed, math.inf, 0.0, 0.0, 0.0, math.inf, wall)
