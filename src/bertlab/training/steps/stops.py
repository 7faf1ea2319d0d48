"""Why training ends before its budget: a signal, a sweep that prunes, memory that does not suffice."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch

HANGUP = () if sys.platform == "win32" else (signal.SIGHUP,)  # a terminal that goes away


class Interrupted(Exception):  # noqa: N818  # not an error: somebody asked
    """SIGINT, SIGTERM or SIGHUP: the run has been checkpointed and can be continued, or it was at its end and
    has finished; what would come after it does not begin.
    """

    def __init__(self, number: int, is_finished: bool = False) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status, self.is_finished = 128 + number, is_finished

    @property
    def line(self) -> str:
        """For a person."""
        how = "run finished" if self.is_finished else "checkpoint written"
        return f"{self}: {how}; the same command continues"


class Pruned(Exception):  # noqa: N818  # not an error: a sweep has better things to do
    """A sweep asked to stop after an evaluation: the run has been checkpointed and can be continued."""


class MemoryExhausted(Exception):  # noqa: N818  # the run is begun again in smaller parts
    """A forward or backward pass did not fit in memory; so many examples at a time may."""

    def __init__(self, micro_batch: int) -> None:
        super().__init__(micro_batch)
        self.micro_batch = micro_batch


@contextmanager
def heard(hear: Callable[[int], None]) -> Iterator[None]:
    """`hear` is told of SIGINT, SIGTERM and SIGHUP instead of the process dying by them; in the main thread,
    elsewhere no signal comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def told(number: int, _: FrameType | None) -> None:
        hear(int(number))

    previous = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM, *HANGUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP; the loop looks after every step. A second SIGINT acts at once."""
    received: list[int] = []

    def note(number: int) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    with heard(note):
        yield received


OUT_OF_MEMORY = (
    "can't allocate memory",
    "could not create a primitive",
    "not enough memory",
    "out of memory",
    "unable to mmap",
)


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """CUDA's own class, Python's, or what the CPU's allocator and kernels say, for which torch
    has no class.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        sign in str(error).lower() for sign in OUT_OF_MEMORY
    )
