"""The part of `bertlab plan` that is made for devices which need not be here: tables over their number, and
which wall is met.
"""

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator, Sequence

from bertlab.config.describe import aligned
from bertlab.config.hardware import Hardware
from bertlab.errors import UserError, one_line
from bertlab.jobs.plan import Asked, count, size
from bertlab.runs.progress import duration, each
from bertlab.training.costs.devices import LITTLE, Devices, Estimate, Work, estimate
from bertlab.training.costs.work import Surveyor, devices_of, precision_of

WALLS = {"memory": "memory", "batch": "the batch is too small to share", "communication": "communication"}


def show(runs: Sequence[Asked], numbers: Sequence[int], sharded: bool, name: str, hardware: Hardware) -> int:
    """Print the plan; the exit status."""
    surveyor, errors = Surveyor(hardware), 0
    kinds: dict[str, Devices] = {}  # by precision
    # precision, whether in parts, and work -> names of the runs
    alike: dict[tuple[str, bool, Work], list[str]] = {}
    for place, run in enumerate(each(runs, "surveying", len(runs), "runs"), start=1):
        try:
            config = run.compose()
            precision = precision_of(config, hardware)
            split = sharded or config.compute.sharding == "full"
            for work in surveyor.survey(config, max(numbers) > 1):
                names = alike.setdefault((precision, split, dataclasses.replace(work, name="")), [])
                if work.name not in names:  # a pretraining that several need
                    names.append(work.name)
            if precision not in kinds:
                kinds[precision] = devices_of(hardware, precision)
        except UserError as error:
            errors += 1
            words = f" ({' '.join(run.words)})" if run.words else ""
            print(f"bertlab: run {place}{words}: {one_line(str(error))}", file=sys.stderr)
    for precision, devices in kinds.items():
        for line in assumptions(name, hardware, devices, precision):
            print(line)
    made = []
    for (precision, split, work), names in alike.items():
        estimates = [estimate(work, kinds[precision], n, split) for n in numbers]
        made.append((len(names), estimates))
        print()
        for line in describe(work, names, kinds[precision], estimates, split):
            print(line)
    if sum(times for times, _ in made) > 1:
        print()
        for line in totals(made, hardware.price):
            print(line)
    return 2 if errors else 0


def assumptions(name: str, hardware: Hardware, devices: Devices, precision: str) -> Iterator[str]:
    """What the figures stand on."""
    yield (
        f"hardware={name}: {devices.flops / 1e12:.3g} TFLOP/s in {precision}, {size(devices.memory)} of memory"
        f" used at most, {devices.per_node} to a node,"
    )
    yield (
        f"  {hardware.link_gb_s:g} GB/s from each to another, {hardware.network_gb_s:g} GB/s from node to node"
    )
    yield (
        f"assumed: {100 * devices.share:.0f} % of that rate with large batches, half of it at"
        f" {devices.half_tokens:,.0f} tokens a pass, {1e3 * devices.least_pass:g} ms for the smallest pass,"
    )
    yield (
        f"  {100 * hardware.link_share:.0f} % of bandwidths, {1e6 * devices.latency:g} us a message between"
        f" devices, {1e6 * devices.message:g} us between processes,"
    )
    yield f"  {100 * devices.overlap:.0f} % of a backward pass to hide an exchange behind"


def describe(
    work: Work, names: Sequence[str], devices: Devices, estimates: Sequence[Estimate], sharded: bool
) -> Iterator[str]:
    """A run's table, and where it meets a wall."""
    more = f" and {len(names) - 1} alike" if len(names) > 1 else ""
    what = names[0].rpartition("-")[0]  # the id is of a run on this processor
    yield (
        f"{what}{more}: {count(work.parameters)} parameters, {work.steps:,} steps of {work.examples:,.0f}"
        f" examples ({count(work.tokens)} tokens), {work.steps * work.flops + work.other_flops:.1e} FLOPs"
    )
    rows = [
        ["devices", "examples each", "passes", "memory", "computing", "exchange", "waiting", "step",
         "efficiency", "time", "device-hours", *(["price"] if devices.price is not None else []), "wall"]
    ]  # fmt: skip
    rows += [row(one, devices.price) for one in estimates]
    yield from aligned(rows)
    yield from verdict(work, devices, estimates, sharded)


def row(one: Estimate, price: float | None) -> list[str]:
    """A line of the table."""
    if math.isinf(one.seconds):
        lacking = ["-"] * (8 if price is not None else 7)
        return [f"{one.devices}", f"{one.examples}", "-", size(one.memory), *lacking, one.wall]
    return [
        f"{one.devices}", f"{one.examples}", f"{one.passes} x {one.micro_batch}", size(one.memory),
        milliseconds(one.compute), milliseconds(one.exchange), milliseconds(one.waiting),
        milliseconds(one.step), f"{100 * one.efficiency:.0f} %", duration(one.seconds),
        f"{one.device_hours:,.1f}", *([f"{price * one.device_hours:,.2f}"] if price is not None else []),
        one.wall,
    ]  # fmt: skip


def verdict(work: Work, devices: Devices, estimates: Sequence[Estimate], sharded: bool) -> Iterator[str]:
    """Which wall is met first, and what moves it."""
    low = list(itertools.takewhile(lambda one: one.wall == "memory", estimates))
    rest = estimates[len(low) :]
    if low and rest:
        few = low[-1]
        yield (
            f"wall: up to {few.devices} device{'s' * (few.devices > 1)} memory: {size(few.memory)} for"
            f" {few.micro_batch} example{'s' * (few.micro_batch > 1)} a pass, {size(devices.memory)} there"
        )
    hit = next((one for one in (rest or low) if one.wall), None)
    if hit is None and low:
        return
    if hit is None:
        yield f"wall: none up to {estimates[-1].devices} devices"
        return
    where = f"wall: from {hit.devices} device{'s' * (hit.devices > 1)} on {WALLS[hit.wall]}"
    if hit.wall == "memory":
        instead = "more devices" if sharded else "compute.sharding=full, shorter examples"
        yield (
            f"{where}: {size(hit.memory)} for {hit.micro_batch} example{'s' * (hit.micro_batch > 1)} a pass,"
            f" {size(devices.memory)} there; {instead} or a smaller model"
        )
    elif math.isinf(hit.seconds):
        yield f"{where}: {work.examples:,.0f} examples a step; a larger budget.batch_size moves it"
    elif hit.wall == "batch":
        yield (
            f"{where}: {hit.examples} example{'s' * (hit.examples > 1)} a device leave less than"
            f" {100 * LITTLE:.0f} % of the assumed rate; a larger budget.batch_size moves it"
        )
    else:
        yield (
            f"{where}: {milliseconds(hit.waiting)} of a step's {milliseconds(hit.step)} are waited; a larger"
            " budget.batch_size or a faster network moves it"
        )


def totals(made: Sequence[tuple[int, Sequence[Estimate]]], price: float | None) -> Iterator[str]:
    """All runs, one after the other."""
    yield f"all {sum(times for times, _ in made)} runs, one after the other:"
    rows = [["devices", "time", "device-hours", *(["price"] if price is not None else [])]]
    for index in range(len(made[0][1])):
        hours = sum(times * estimates[index].device_hours for times, estimates in made)
        n = made[0][1][index].devices
        cells = [f"{n}"]
        if math.isinf(hours):
            cells += ["-"] * (len(rows[0]) - 1)
        else:
            cells += [duration(3600 * hours / n), f"{hours:,.1f}"]
            cells += [f"{price * hours:,.2f}"] if price is not None else []
        rows.append(cells)
    yield from aligned(rows)


def milliseconds(seconds: float) -> str:
    """`0.31 ms`, `12 ms`, `2.4 s`."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
