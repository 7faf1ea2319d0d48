"""Whoever waits is told what for: of phases that a test holds up, by intervals that a test sets."""

import itertools
import os
import pty
import re
import subprocess
import sys
import threading

import pytest

from bertlab.errors import ConfigError
from bertlab.runs import progress
from bertlab.runs.progress import each, working
from children import PATIENCE


class Heard(progress.Teller):
    """What would be on standard error, and when it has come."""

    def __init__(self, first: float, every: float, *, on_terminal: bool) -> None:
        super().__init__(first, every, on_terminal=on_terminal)
        self.lines: list[str] = []
        self.came = threading.Semaphore(0)

    def put(self, line: str) -> None:
        self.lines.append(line)
        self.came.release()

    def wait_for(self, lines: int) -> list[str]:
        """So many more lines; fails where they do not come."""
        for _ in range(lines):
            assert self.came.acquire(timeout=PATIENCE), f"heard only {self.lines}"
        return list(self.lines)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """A pipe, told of at short intervals."""
    monkeypatch.setenv("BERTLAB_PROGRESS", "0.05,0.1")
    teller = Heard(0.05, 0.1, on_terminal=False)
    teller.start()
    monkeypatch.setattr(progress, "_teller", teller)
    return teller


def test_what_is_slow_is_told_at_first_and_again(heard: Heard) -> None:
    """Also where the slow thing never looks up."""
    with working("counting sheep"):
        lines = heard.wait_for(3)
    assert all(re.fullmatch(r"counting sheep: (just begun|\d+ s so far)", line) for line in lines), lines


def told_at_seconds(
    monkeypatch: pytest.MonkeyPatch, inner: dict[int, int], printed: list[int]
) -> list[float]:
    """When a quarter of an hour of work is told of by default, in seconds; inner phases begin and end in
    between (begin -> end), and other lines are printed.
    """
    teller = Heard(progress.FIRST, progress.EVERY, on_terminal=False)
    outer = progress.Work("outer")
    outer.started = 0.0
    teller.begin(outer)
    told: list[float] = []
    for look in range(int(900 / teller.pause)):
        now = look * teller.pause
        last = max((at for at in printed if at <= now), default=-1.0)
        monkeypatch.setattr(progress, "written_at", lambda last=last: last)
        work = progress.Work("inner") if any(begin <= now < end for begin, end in inner.items()) else outer
        count = len(teller.lines)
        teller.tell(work, now, outer.started)
        told += [now] * (len(teller.lines) - count)
    return told


@pytest.mark.parametrize("inner", [{}, {7: 8, 12: 31, 40: 41}, {0: 90, 95: 800}])
def test_no_silence_is_longer_than_promised_by_default(
    inner: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 s in the first minute, whichever phases begin and end; 30 s at most, and few lines, later on."""
    told = [0.0, *told_at_seconds(monkeypatch, inner, [])]
    gaps = {at: at - before for before, at in itertools.pairwise(told)}
    assert max(gap for at, gap in gaps.items() if at <= 60) <= progress.FIRST
    assert max(gaps.values()) <= progress.EVERY and len(gaps) <= 60
    assert min(gap for at, gap in gaps.items() if at > 400) >= progress.EVERY - 1


def test_a_printed_line_ends_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    told = told_at_seconds(monkeypatch, {}, [4, 8, 12])
    assert 16 <= told[0] <= 17


def test_share_rate_and_time_left_are_told(heard: Heard) -> None:
    with working("reading", 200, "rows") as work:
        work.advance(50)
        work.note = "all well"
        line = heard.wait_for(1)[0]
    told = r"reading: 50 of 200 \(25%\) rows, [\d.,e+]+ rows/s, (\d+ s|\d+ min) left, all well"
    assert re.fullmatch(told, line), line


def test_without_a_total_there_is_no_share(heard: Heard) -> None:
    with working("reading", unit="rows") as work:
        work.advance(50)
        assert re.fullmatch(r"reading: 50 rows, [\d.,e+]+ rows/s", heard.wait_for(1)[0])


def test_what_began_before_counts_in_no_rate() -> None:
    work = progress.Work("training", 100, "steps", done=60)
    work.started -= 10
    work.advance(20)
    assert work.line().startswith("training: 80 of 100 (80%) steps, 2 steps/s, 10 s left")


def test_the_innermost_is_told_and_then_again_what_it_is_part_of(heard: Heard) -> None:
    with working("all of it"):
        heard.wait_for(1)
        for _ in each([1], "a part", 1, "parts"):
            inner = heard.wait_for(2)[-1]
        outer = heard.wait_for(2)[-1]
    assert inner.startswith("a part: 0 of 1") and outer.startswith("all of it")


def test_many_short_phases_are_no_silence(heard: Heard) -> None:
    """None of them is long; together they are."""
    with working("all of it"):
        for number in range(10_000):
            with working(f"phase {number}"):
                if heard.came.acquire(timeout=0.01):
                    break
        else:
            pytest.fail("nothing was told")
    assert heard.lines


def test_what_is_left_early_is_over(heard: Heard) -> None:
    """By an error, a break, and whichever ends first."""
    with pytest.raises(RuntimeError), working("doomed"):
        raise RuntimeError
    items = each([1, 2], "items", 2, "items")
    next(items)
    with working("other"):
        items.close()
        assert heard.wait_for(1)[0].startswith("other")
    assert heard.works == []


def test_nothing_is_told_where_nobody_wants_it(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTLAB_PROGRESS", "off")
    with working("silent"):
        assert heard.works == []


@pytest.mark.parametrize("given", ["5", "5,x", "0,5", "-1,5", "5,30,1", "nan,5"])
def test_other_intervals_are_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("BERTLAB_PROGRESS", given)
    with pytest.raises(ConfigError, match=r"BERTLAB_PROGRESS=.*e\.g\. BERTLAB_PROGRESS=5,30"):
        progress.intervals()


def test_of_several_processes_the_first_alone_tells(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("RANK", "1"),
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", "localhost"),
        ("MASTER_PORT", "1"),
    ):
        monkeypatch.setenv(name, value)
    with working("the second's"):
        assert heard.works == []


TERMINAL = """
import sys, time
from bertlab.runs import progress
from bertlab.runs.streams import prepare_streams
prepare_streams()
progress.FRAME, progress.SHORTEST = 0.01, 0.0
with progress.working("reading", 4, "rows") as work:
    work.advance()
    time.sleep(float(sys.argv[1]))
    print("a line of its own")
    time.sleep(float(sys.argv[1]))
print("the end")
"""


def test_a_terminal_shows_one_line_drawn_anew_under_what_is_printed() -> None:
    """Nothing of it stays, and no printed line is torn."""
    master, slave = pty.openpty()
    environment = {**os.environ, "BERTLAB_PROGRESS": "5,30", "COLUMNS": "80"}
    code = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, "0.5"], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    assert code.wait() == 0
    screen = [row.rpartition("\r\x1b[K")[2] for row in seen.decode().split("\r\n")]
    assert screen == ["a line of its own", "the end", ""]
    assert "reading:  25%" in seen.decode() and "1.00/4.00" in seen.decode()


FORKED = """
import os, sys, time
from bertlab.runs.progress import working
with working("before"):
    time.sleep(float(sys.argv[1]))
    if (child := os.fork()) == 0:
        with working("in the child"):
            time.sleep(float(sys.argv[1]))
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_forked_process_tells_for_itself() -> None:
    """The thread that looks at the clock is not there after a fork."""
    environment = {**os.environ, "BERTLAB_PROGRESS": "0.05,0.1"}
    done = subprocess.run(
        [sys.executable, "-c", FORKED, "2"], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert "in the child: " in done.stderr and "before: " in done.stderr
