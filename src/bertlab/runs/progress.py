"""What is being done, for whoever waits: never silent for more than a few seconds.

On a terminal one line, drawn anew as it goes; elsewhere (a pipe, a file, a batch system) a line on standard
error after 5 s of silence, in the first minute; then after a twelfth of the time that all of it has taken so
far, at most 30 s. Whatever is printed ends a silence. `BERTLAB_PROGRESS=5,30` says these seconds,
`BERTLAB_PROGRESS=off` says nothing. A thread of its own looks at the clock, so that what is slow need not.
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from bertlab.errors import ConfigError
from bertlab.runs.processes import place
from bertlab.runs.streams import write_over, written_at

T = TypeVar("T")
VARIABLE = "BERTLAB_PROGRESS"
FIRST, EVERY = 5.0, 30.0  # seconds of silence at first, and at most
SHARE = 1 / 12  # of the time taken so far that a silence may last between the two
FRAME = 0.2  # seconds from one drawing on a terminal to the next
SHORTEST = 1.0  # seconds that something takes before a terminal shows it


@dataclass(eq=False)
class Work:
    """Something that takes time, and how far it is."""

    what: str
    total: float | None = None  # of how many; None = not known
    unit: str = ""  # of what; empty where nothing is counted
    done: float = 0
    note: str = ""  # told behind it: the loss, say
    at_first: float = field(init=False)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.at_first = self.done

    def advance(self, count: float = 1) -> None:
        """So many more are done."""
        self.done += count

    def line(self) -> str:
        """As a pipe gets it: what, how far, how fast, how long still."""
        seconds = time.monotonic() - self.started
        if not self.unit:
            told = ["just begun" if seconds < 1 else f"{duration(seconds)} so far"]
        else:
            rate = (self.done - self.at_first) / max(seconds, 1e-9)
            share = "" if not self.total else f" of {self.total:,.0f} ({self.done / self.total:.0%})"
            shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
            told = [f"{self.done:,.0f}{share} {self.unit}", f"{shown} {self.unit}/s"]
            if self.total and rate > 0:
                told.append(f"{duration(max(0.0, self.total - self.done) / rate)} left")
        return f"{self.what}: {', '.join([*told, *([self.note] if self.note else [])])}"

    def drawn(self, width: int) -> str:
        """As a terminal gets it."""
        seconds = time.monotonic() - self.started
        if not self.unit:
            return self.line()[:width]
        from tqdm import tqdm

        drawn: str = tqdm.format_meter(
            self.done, self.total, seconds, ncols=width, prefix=self.what, unit=f" {self.unit}",
            unit_scale=True, initial=self.at_first, postfix=self.note or None,
        )  # fmt: skip
        return drawn


class Teller(threading.Thread):
    """Looks at the work that is being done and tells of it, as long as there is any."""

    def __init__(self, first: float, every: float, *, on_terminal: bool) -> None:
        super().__init__(name="bertlab progress", daemon=True)
        self.first, self.every, self.on_terminal = first, every, on_terminal
        self.works: list[Work] = []  # the innermost last
        self.changed = threading.Condition()
        self.told_at = time.monotonic()
        self.pause = FRAME if on_terminal else min(first, every) / 10

    def run(self) -> None:
        """Until the process ends."""
        while True:
            with self.changed:
                while not self.works:
                    self.changed.wait()
                outermost, work = self.works[0], self.works[-1]
            self.tell(work, time.monotonic(), outermost.started)
            time.sleep(self.pause)

    def silence(self, taken: float) -> float:
        """Seconds without a line that are allowed once all of it has taken so many."""
        if taken <= self.first:
            return self.first
        return min(self.every, max(self.first, taken * SHARE))

    def tell(self, work: Work, now: float, began: float) -> None:
        """Tell of it where it is time to: where the next look would be too late. `began`: when the outermost
        work did; all on the clock of `time.monotonic`, in seconds.
        """
        if self.on_terminal:
            if now - work.started >= SHORTEST:
                write_over(work.drawn(shutil.get_terminal_size().columns - 1))
        elif now - max(self.told_at, written_at()) >= self.silence(now - began) - self.pause:
            self.told_at = now
            self.put(work.line())

    def put(self, line: str) -> None:
        """On standard error, beside what is asked for."""
        print(line, file=sys.stderr, flush=True)

    def begin(self, work: Work) -> None:
        """It is the innermost now."""
        with self.changed:
            if not self.works:
                self.told_at = work.started
            self.works.append(work)
            self.changed.notify()

    def end(self, work: Work) -> None:
        """Nothing of it stays on a terminal."""
        with self.changed:
            self.works.remove(work)
        if self.on_terminal:
            write_over("")


_teller: Teller | None = None


def _telling() -> Teller | None:
    """The teller of this process, also of one that was forked; None where nothing is to be told."""
    global _teller
    seconds = intervals()
    if seconds is None or not place().is_first:
        return None
    if _teller is None or not _teller.is_alive():
        _teller = Teller(*seconds, on_terminal=sys.stderr.isatty() or in_notebook())
        _teller.start()
    return _teller


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook: Jupyter's own shell is the one that runs."""
    kernel = sys.modules.get("ipykernel.zmqshell")  # loaded before anything of ours, where there is one
    return kernel is not None and kernel.ZMQInteractiveShell.initialized()


def intervals() -> tuple[float, float] | None:
    """What the environment says, or FIRST and EVERY; None for `off`. Raises ConfigError for what is
    neither.
    """
    given = os.environ.get(VARIABLE, "")
    if given == "off":
        return None
    try:
        first, every = map(float, given.split(",")) if given else (FIRST, EVERY)
        if first > 0 and every > 0:
            return first, every
    except ValueError:
        pass
    raise ConfigError(
        f"{VARIABLE}={given}: write off, or two numbers of seconds above 0, e.g. {VARIABLE}=5,30"
    )


@contextmanager
def working(what: str, total: float | None = None, unit: str = "", done: float = 0) -> Iterator[Work]:
    """Around whatever may take long; with a unit, `advance` says how far it is."""
    work = Work(what, total, unit, done)
    teller = _telling()
    if teller is None:
        yield work
        return
    teller.begin(work)
    try:
        yield work
    finally:
        teller.end(work)


def each(items: Iterable[T], what: str, total: float | None = None, unit: str = "") -> Iterator[T]:
    """The items, one by one; `unit` is what they are."""
    with working(what, total, unit) as work:
        for item in items:
            yield item
            work.advance()


def say(line: str) -> None:
    """A line of its own, in place of what was drawn."""
    write_over("")
    print(line, flush=True)


def duration(seconds: float) -> str:
    """`2 h 05 min`, `12 min`, `40 s`."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"
