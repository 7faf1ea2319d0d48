"""`bertlab benchmark`: our loop and the Hugging Face Trainer on the same work, in turn: tokens a second, ratios, share of the machine

usage: bertlab benchmark [group=option ...] [key=value ...] [benchmark.steps=100] [benchmark.repeats=3] [benchmark.out=FOLDER]

Takes the words of `bertlab train` (objective=classification or mlm, model=bert and its presets, init=scratch) and measures how fast that
run's steps are. Each measurement is a process of its own; the contestants take turns, in another order each time:

  bertlab                   the loop of a run, as configured
  Trainer as used           transformers' Trainer in float32, batches in random order
  Trainer, same settings    our precision, grouped by length where ours is, compiled where ours is

All train an encoder of the same sizes on the same tokenised examples with batches of as many examples. Counted are real (unpadded) tokens
over the wall clock of the steps after the warm-up. Needs '.[benchmark]'. Run nothing else meanwhile.

  benchmark.steps=100 benchmark.warmup=20   multiples of 20, the loop's interval of records
  benchmark.peer=false                      measure ours alone
  benchmark.out=FOLDER                      benchmark.md and benchmark.json, with every measurement and where it was made
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bertlab.config.registry import Job
from bertlab.config.schema import Node, Train, flag, integer, string
from bertlab.data.batches import order_batches
from bertlab.data.material import Material
from bertlab.errors import ConfigError, RunError
from bertlab.report import stats
from bertlab.report.pages.page import Block, Page, PageTable, Text, to_markdown, to_plain
from bertlab.runs.configs import config_yaml
from bertlab.runs.files import to_json, write_text
from bertlab.runs.machine import Device, package_version, provenance, threads
from bertlab.runs.outcome import Context
from bertlab.runs.progress import each, say
from bertlab.training.assembly import build_model
from bertlab.training.costs.flops import BACKWARD, count_forward, product_rate
from bertlab.training.costs.measurement import (
    AS_USED,
    CONTESTANTS,
    OURS,
    SAME_SETTINGS,
    Measured,
    check_benchmark,
    groups_by_length,
    has_their_like,
    prepared,
)
from bertlab.training.steps.journal import LOG_EVERY

NEEDED = ("transformers", "accelerate")
STAT = Path("/proc/stat")
MOST_DISTURBED = (
    0.3  # cores that a measurement needs and others hold, above which its figures are not to be trusted
)


@dataclass
class Benchmark(Node):
    """How much is measured."""

    steps: int = integer(100, "optimizer steps of one measurement", low=1)
    warmup: int = integer(20, "steps before them, not counted", low=1)
    repeats: int = integer(3, "measurements of each contestant, in turn", low=1)
    peer: bool = flag(True, "measure the Hugging Face Trainer beside ours")
    out: str | None = string(None, "folder for benchmark.md and benchmark.json")

    def check(self, path: str) -> None:
        """The loop tells how far it is every so many steps."""
        for name in ("steps", "warmup"):
            if (value := getattr(self, name)) % LOG_EVERY:
                raise ConfigError(
                    f"{path}.{name}={value}: must be a multiple of {LOG_EVERY}, e.g."
                    f" {-(-value // LOG_EVERY) * LOG_EVERY}"
                )


@dataclass
class Schema(Train):
    """A run, and how its speed is measured."""

    benchmark: Benchmark = field(default_factory=Benchmark)


def run(config: Schema, context: Context) -> None:
    """Measure, print the table, write it where asked."""
    check_benchmark(config)
    asked = config.benchmark
    if asked.peer and (lacking := [name for name in NEEDED if package_version(name) is None]):
        raise ConfigError(
            f"{' and '.join(lacking)} not installed: pip install '.[benchmark]', or benchmark.peer=false to"
            " measure ours alone"
        )
    device, material = prepared(config)
    with threads(device.threads):
        flops = flops_per_token(config, material)
        reachable = product_rate(
            device.device, torch.bfloat16 if device.precision == "bfloat16" else torch.float32, seconds=0.5
        )
    contestants = contestants_of(config, device)
    notes = notes_of(config, device, contestants)
    measurements: dict[str, list[Measured]] = {name: [] for name in contestants}
    order = [name for turn in range(asked.repeats) for name in rotated(contestants, turn)]
    for name in each(order, "measuring", len(order), "runs"):
        measured = in_a_process(name, config, asked)
        measurements[name].append(measured)
        say(f"{CONTESTANTS[name]}: {measured.rate:,.0f} tokens/s")
    page = page_of(config, device, measurements, notes, flops, reachable)
    print(to_plain(page))
    if asked.out is not None:
        write_out(Path(asked.out), config, context, measurements, page, flops, reachable)
        print(f"benchmark: {asked.out}")


def contestants_of(config: Schema, device: Device) -> list[str]:
    """Ours, and the Trainer in the ways that differ here: where ours is plain float32 and not grouped, there
    is one.
    """
    if not config.benchmark.peer:
        return [OURS]
    grouped = groups_by_length(config)
    differs = grouped or device.precision != "float32" or config.compute.compile
    return [OURS, AS_USED, *([SAME_SETTINGS] if differs else [])]


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """Another one first each time, so that none always runs on the warmest processor."""
    start = turn % len(names)
    return [*names[start:], *names[:start]]


def notes_of(config: Schema, device: Device, contestants: Sequence[str]) -> list[str]:
    """What a reader must know of this comparison; a busy machine is told at once."""
    notes = []
    if len(contestants) > 1 and not has_their_like(config):
        notes.append(
            "transformers' BERT lacks some options of our encoder: the Trainer's is Devlin's of the same"
            " sizes."
        )
    busy = busy_cores()
    if device.device.type == "cpu" and device.threads - ((os.cpu_count() or 1) - busy) > MOST_DISTURBED:
        notes.append(
            f"Other processes kept {busy:.1f} cores busy when the measurement began: the figures are not to"
            " be trusted."
        )
        print(f"warning: {notes[-1]}", file=sys.stderr)
    return notes


def busy_cores(seconds: float = 1.0) -> float:
    """Cores of this machine that are at work while this process sleeps; 0 where the system does not tell."""

    def worked() -> float:
        user, nice, system, _, _, irq, softirq, steal = map(
            int, STAT.read_text(encoding="ascii").split()[1:9]
        )
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")

    try:
        before, began = worked(), time.perf_counter()
        time.sleep(seconds)
        return (worked() - before) / (time.perf_counter() - began)
    except (OSError, ValueError):
        return 0.0


def flops_per_token(config: Schema, material: Material) -> float:
    """Operations of a training step for each real token: products of our forward pass over one batch, three
    times that for training.
    """
    train = material.examples["train"]
    order = order_batches(train.lengths, config.budget, config.seed)
    batch = material.objective.collate(train, order.epoch(0)[0], None)
    model = build_model(config, material.tokenizer, material.objective).eval()
    return (1 + BACKWARD) * count_forward(lambda: model(batch)) / batch.num_tokens


def in_a_process(contestant: str, config: Schema, asked: Benchmark) -> Measured:
    """One measurement. Raises RunError with the process's last words if it fails."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_text(folder / "config.yaml", config_yaml(config))
        write_text(folder / "request.json", to_json({"warmup": asked.warmup, "steps": asked.steps}))
        command = [sys.executable, "-m", "bertlab.training.costs.measurement", contestant, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise RunError(f"benchmark of {CONTESTANTS[contestant]}: {last}")
        return Measured(**json.loads((folder / "result.json").read_text(encoding="utf-8")))


# --- what is told ---------------------------------------------------------------------------------
def page_of(
    config: Schema,
    device: Device,
    measurements: dict[str, list[Measured]],
    notes: Sequence[str],
    flops: float,
    reachable: float,
) -> Page:
    """Rates, ratios with their intervals, share of the machine."""
    asked = config.benchmark
    grouped = groups_by_length(config)
    how = {
        OURS: (device.precision, "grouped by length" if grouped else "random order", config.compute.compile),
        AS_USED: ("float32", "random order", False),
        SAME_SETTINGS: (
            device.precision,
            "grouped by length" if grouped else "random order",
            config.compute.compile,
        ),
    }
    rows = []
    for name, measured in measurements.items():
        precision, order, compiled = how[name]
        rates = [one.rate for one in measured]
        mean = sum(rates) / len(rates)
        ratio = "" if name == OURS else ratio_text(measurements[OURS], measured)
        settings = f"{precision}, {order}{', compiled' if compiled else ''}"
        rows.append([CONTESTANTS[name], settings, f"{mean:,.0f}",
            " · ".join(f"{rate:,.0f}" for rate in rates),
                     f"{100 * mean * flops / reachable:.0f} %", ratio])  # fmt: skip
    headers = [
        "",
        "settings",
        "real tokens/s",
        "each run",
        "share of the machine",
        "bertlab is faster by [95 % interval]",
    ]
    if len(measurements) == 1:
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    batches = (
        f"batches of {config.budget.batch_size}, {device.device.type}, {device.threads}"
        f" thread{'s' * (device.threads != 1)}"
    )
    work = (
        f"{config.objective.name} on {config.dataset.name}, {batches}: {asked.repeats} × {asked.steps} steps"
        f" after {asked.warmup}, contestants in turn. Share: {flops / 1e6:,.1f} million operations a token of"
        f" our encoder, beside the {reachable / 1e9:,.0f} billion a second that matrix products in"
        f" {device.precision} reach here."
    )
    blocks: list[Block] = [
        Text(work),
        PageTable(headers, rows, left=2),
        *(Text(note, "warning") for note in notes),
    ]
    return Page("Speed", blocks)


def ratio_text(ours: Sequence[Measured], theirs: Sequence[Measured]) -> str:
    """Geometric mean of the turns' ratios, and its t interval on the logarithms."""
    logarithms = stats.summarize([math.log(a.rate / b.rate) for a, b in zip(ours, theirs, strict=True)])
    interval = (
        ""
        if math.isnan(logarithms.low)
        else f" [{math.exp(logarithms.low):.2f}, {math.exp(logarithms.high):.2f}]"
    )
    return f"{math.exp(logarithms.mean):.2f}x{interval}"


def write_out(
    out: Path,
    config: Schema,
    context: Context,
    measurements: dict[str, list[Measured]],
    page: Page,
    flops: float,
    reachable: float,
) -> None:
    """benchmark.md for people, benchmark.json with every measurement and its provenance."""
    record = {
        **provenance(context.command),
        "config": json.loads(json.dumps(dataclasses.asdict(config))),
        "measurements": {
            name: [{**dataclasses.asdict(one), "tokens_per_s": one.rate} for one in measured]
            for name, measured in measurements.items()
        },
        "flops_per_token": flops,
        "product_rate": reachable,
        "accelerate": package_version("accelerate"),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "benchmark.md", to_markdown(page))
        write_text(out / "benchmark.json", to_json(record))
    except OSError as error:
        raise RunError(
            f"benchmark.out={out}: cannot be written ({error.strerror or error}); name another folder"
        ) from error


JOB = Job(Schema, run)
