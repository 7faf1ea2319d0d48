"""From the order of batches to padded, masked batches, made by processes of their own while an accelerator
computes.

A step's batches are a pure function of (examples, order, seed, step), so how many processes make them, and
where a run is continued, changes none of them.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from bertlab.contracts import Batch, Draw, Examples, Objective
from bertlab.data.batches import BatchOrder
from bertlab.errors import ConfigError, RunError
from bertlab.runs.machine import Device

AHEAD = 4  # steps that each process makes before they are asked for
MOST_WORKERS = 4  # one makes about 2 million masked tokens a second
# seconds between a worker's last sign of life and its end: milliseconds, unless the machine is out of memory
LAST_BREATH = 5.0
WHOLE = 1 << 30  # examples a forward pass: no step has as many


@dataclass
class Step:
    """What one optimizer step learns from."""

    epoch: int
    epochs_done: float  # after it
    rows: np.ndarray  # (B,) int64, numbers of its examples
    tokens_before: int  # of all steps before it, as the order of batches counts them
    draw: Draw
    batches: list[Batch]  # one for each forward pass

    def pin_memory(self) -> "Step":
        """The same in memory that an accelerator copies from while the processor goes on; torch's loader
        calls it.
        """
        return replace(self, batches=[batch.pin_memory() for batch in self.batches])


@dataclass(frozen=True)
class Share:
    """Of a forward pass's examples those that one of several processes computes: neighbours, as many as the
    others' or one more.

    Where there are fewer examples than processes, one without any computes the first once more, and it does
    not count.
    """

    first: int
    own: int
    all: int
    counts: bool


@dataclass
class Feed:
    """The steps of a run, from any of them on; of several processes' batches the share of one."""

    objective: Objective
    examples: Examples
    order: BatchOrder
    total_steps: int | None  # None where the budget is time alone
    micro_batch: int = WHOLE  # examples a forward pass of a process
    rank: int = 0
    of: int = 1  # processes

    def steps(self, first: int, device: Device, workers: int | None) -> Generator[Step, None, None]:
        """Every step from number `first` on, for ever, made by so many processes; None = as this machine
        suggests, 0 = by this one.
        """
        workers = suggested_workers(device) if workers is None else workers
        if workers == 0:
            return self.walk(first, 0, 1)
        if "fork" not in multiprocessing.get_all_start_methods():
            raise ConfigError(
                f"compute.workers={workers}: this system cannot fork processes; use compute.workers=0"
            )
        with warnings.catch_warnings():
            # more than cores: as asked for
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            loader = DataLoader(
                _Walk(self, first),
                batch_size=None,
                num_workers=workers,
                prefetch_factor=AHEAD,
                pin_memory=device.device.type == "cuda",
                worker_init_fn=_ignore_signals,
                # memory-mapped examples are shared; another start would copy them
                multiprocessing_context="fork",
                generator=torch.Generator(),  # or the loader draws from the generator of dropout
            )
            return _wait_for_death(iter(loader))

    def walk(self, first: int, part: int, parts: int) -> Generator[Step, None, None]:
        """Every `parts`-th step, beginning with step `first + part`."""
        seen = self.order.tokens_before(first)
        for number, (epoch, done, rows) in enumerate(self.order.from_step(first)):
            if number % parts == part:
                progress = (first + number) / self.total_steps if self.total_steps else 0.0
                draw = Draw(self.order.seed, epoch, progress, self.order.length_at(seen))
                yield Step(epoch, done, rows, seen, draw, self.batches(rows, draw))
            seen += int(self.order.lengths[rows].sum())

    def batches(self, rows: np.ndarray, draw: Draw) -> list[Batch]:
        """The batches of one step, at most `micro_batch` examples each."""
        size, batches = self.micro_batch * self.of, []
        for start, share in zip(range(0, len(rows), size), self.shares(len(rows)), strict=True):
            own = rows[start + share.first : start + share.first + share.own]
            batches.append(self.objective.collate(self.examples, own, draw))
        return batches

    def shares(self, rows: int) -> list[Share]:
        """Of each batch of a step of so many examples: this process's share of that forward pass."""
        shares = []
        for start in range(0, rows, self.micro_batch * self.of):
            count = min(self.micro_batch * self.of, rows - start)
            first, end = self.rank * count // self.of, (self.rank + 1) * count // self.of
            shares.append(
                Share(first, end - first, count, True) if end > first else Share(0, 1, count, False)
            )
        return shares


class _Walk(IterableDataset[Step]):
    """A feed for torch's loader, which asks its workers in turn."""

    def __init__(self, feed: Feed, first: int) -> None:
        self.feed, self.first = feed, first

    def __iter__(self) -> Iterator[Step]:
        worker = get_worker_info()
        assert worker is not None
        return self.feed.walk(self.first, worker.id, worker.num_workers)


def suggested_workers(device: Device) -> int:
    """None on a CPU, whose cores the step itself uses; beside an accelerator those cores that this run may
    use and does not need.
    """
    if device.device.type != "cuda" or sys.platform != "linux":
        return 0
    return min(MOST_WORKERS, max(1, device.threads - 1))


@contextlib.contextmanager
def worker_deaths_explained() -> Iterator[None]:
    """Around a loop over steps: a killed worker, of which torch tells by an error at any point, becomes one
    clear line.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise RunError(
            f"a process that makes batches died ({str(error).splitlines()[0]}), perhaps for lack of memory or"
            " /dev/shm; the same command goes on from the last checkpoint, with compute.workers=0 without"
            " such processes"
        ) from error


def _wait_for_death(steps: Iterator[Step]) -> Generator[Step, None, None]:
    """The same steps. A worker killed while it hands one over breaks the connection before its death is
    known: wait until torch tells.
    """
    try:
        yield from steps
    except (ConnectionError, EOFError):
        # torch's handler of SIGCHLD raises its error here, and would later in the midst of something else
        time.sleep(LAST_BREATH)
        raise


def _ignore_signals(_: int) -> None:
    """Out of the run's process group, whose SIGINT or SIGTERM is for the run alone: it checkpoints, then
    stops its workers itself.
    """
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.excepthook = _silence_broken_connections


def _silence_broken_connections(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """For the thread that hands a worker's batches over: that the run has gone away meanwhile, the run itself
    has told.
    """
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
