"""Standard streams as everything else may take them for granted: there, able to take any letter, and without
secrets.
"""

import io
import math
import os
import sys
import threading
import time
from typing import TextIO

from bertlab.errors import redact, secrets

HIDDEN: list[str] = []  # the environment's secrets at the start
_drawn: list[str] = []  # what of a terminal's last line will be written over
_drawing = [threading.RLock()]
_written = [-math.inf]  # when something was printed last


class Redacted(io.TextIOWrapper):
    """A text stream from which passwords and secrets of the environment do not come out; tracebacks and
    libraries' lines included.
    """

    def write(self, text: str, /) -> int:
        """Write text without its secrets, in place of what was drawn."""
        with _drawing[0]:
            write_over("")
            super().write(redact(text, HIDDEN))
            _written[0] = time.monotonic()
        return len(text)


def written_at() -> float:
    """When this process printed last, on the clock of `time.monotonic`; minus infinity before it has."""
    return _written[0]


def write_over(text: str) -> None:
    """Draw the last line of a terminal anew; empty takes it away. Whatever is printed comes in its place."""
    with _drawing[0]:
        if text or _drawn:
            stream = sys.stderr
            _drawn[:] = []  # so that what is written here is no print
            stream.write(f"\r\x1b[K{text}")
            stream.flush()
            _drawn[:] = [text] if text else []


def _forget_drawing() -> None:
    """In a forked process, where whoever held the lock is not there to let it go."""
    _drawing[:], _drawn[:] = [threading.RLock()], []


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_drawing)


def prepare_streams() -> None:
    """Open what the shell has closed (`2>&-`) as nothing; write what an encoding lacks as an escape; let no
    secret out.
    """
    for number in range(3):  # in order: an open takes the lowest number that is free
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    HIDDEN[:] = secrets()
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout, sys.stderr = _redacted(sys.stdout, 1), _redacted(sys.stderr, 2)


def _redacted(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:
        stream = os.fdopen(number, "w", encoding="utf-8", closefd=False)
    # somebody else's, as a notebook's
    if isinstance(stream, Redacted) or not isinstance(stream, io.TextIOWrapper):
        return stream
    encoding = stream.encoding
    # also where a file or pipe reads
    return Redacted(stream.detach(), encoding=encoding, errors="backslashreplace", line_buffering=True)
