"""Command lines within this process, watched: how each ends, and what it does that no input may make it do.

Python tells an audit hook of every file that is opened to write, moved or removed, of every process,
connection and code object. What happens outside the command's own folder, or runs what lies in it, is
prevented and told.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TextIO

COMPUTING, WAITING = 60, 600  # seconds of a case: of the processor, and by the clock
LONGEST = 1000  # letters of a line that a person should read
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {  # event -> which arguments are paths, and which is the folder that they are relative to
    "os.remove": ((0,), 1),
    "os.rmdir": ((0,), 1),
    "os.mkdir": ((0,), 2),
    "os.rename": ((0, 1), 2),
    "os.truncate": ((0,), None),
    "os.symlink": ((1,), 2),
    "os.link": ((1,), 3),
    "os.chmod": ((0,), 2),
    "os.chown": ((0,), 3),
    "shutil.rmtree": ((0,), 1),
}
RUNS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.startfile",
    "socket.connect",
    "pty.spawn",
    "builtins.input",
)
SETTINGS = tuple(
    os.path.realpath(Path(folder).expanduser()) for folder in ("~/.config/matplotlib", "~/.cache/matplotlib")
)
PROGRAMS = ("git", "uname", "lscpu", "ldconfig")  # that a record of the machine asks


class HangsError(BaseException):
    """A command took longer than anything of its size."""


@dataclass
class Watch:
    """What one command does."""

    place: Path
    free: tuple[str, ...] = ()  # further folders that it may write to
    seen: list[str] = field(default_factory=list)
    thread: int = field(default_factory=threading.get_ident)

    def judge(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        """What is wrong with it."""
        if event == "open":
            path, mode, flags = arguments
            writes = (
                any(sign in mode for sign in "wax+") if isinstance(mode, str) else bool((flags or 0) & WRITES)
            )
            return f"writes to {path!r}" if writes and self.is_outside(path) else None
        if event in CHANGES:
            places, relative = CHANGES[event]
            within = (
                relative is not None
                and len(arguments) > relative
                and isinstance(arguments[relative], int)
                and arguments[relative] >= 0
            )
            outside = [
                arguments[index] for index in places if not within and self.is_outside(arguments[index])
            ]
            return f"{event} of {outside[0]!r}" if outside else None
        if event == "subprocess.Popen":
            return (
                None if Path(str(arguments[0])).name in PROGRAMS else f"starts {arguments[0]} {arguments[1]}"
            )
        if event == "exec" and isinstance(arguments[0], CodeType):
            file = arguments[0].co_filename  # of code that was made here, what is no file
            return f"runs {file}" if Path(file).is_file() and not self.is_outside(file) else None
        if event == "ctypes.dlopen":
            file = arguments[0]
            return (
                f"loads {file}"
                if file and Path(str(file)).is_file() and not self.is_outside(str(file))
                else None
            )
        return f"{event} {arguments!r}"[:200] if event in RUNS else None

    def is_outside(self, path: Any) -> bool:
        if isinstance(path, int):
            return False
        full = os.path.realpath(os.fsdecode(path))
        return not any(
            full == folder or full.startswith(f"{folder}/")
            for folder in (str(self.place), *self.free, "/dev", "/proc/self")
        )


_watches: list[Watch] = []
_is_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watches or _watches[-1].thread != threading.get_ident():
        return
    watch = _watches.pop()  # what the judgement itself does is not watched
    try:
        wrong = watch.judge(event, arguments)
    finally:
        _watches.append(watch)
    if wrong is not None:
        watch.seen.append(wrong)
        raise PermissionError(f"no input may make a command do this: {wrong}")


@dataclass
class Ending:
    """How a command ended."""

    status: int | None
    out: str
    err: str
    misdeeds: list[str]
    error: BaseException | None = None  # that escaped

    @property
    def wrong(self) -> str:
        """What is wrong; nothing for a command that did its work, or that told in one line why not."""
        if self.misdeeds:
            return f"MISDEED {self.misdeeds[0]}"
        if isinstance(self.error, HangsError):
            return "HANGS"
        if self.error is not None:
            return f"TRACEBACK {type(self.error).__name__}: {str(self.error)[:200]} {origin(self.error)}"
        if self.status == 0:
            return "TRACEBACK told" if "Traceback" in self.err else ""
        lines = self.err.splitlines()
        if self.status != 2:
            return f"STATUS {self.status} {self.err[-200:]!r}"
        if len(lines) != 1 or not lines[0].startswith("bertlab: "):
            return f"NOT ONE LINE {self.err[-400:]!r}"
        if not lines[0].isprintable() or len(lines[0]) > LONGEST:
            return f"NOT READABLE {lines[0][:400]!r}"
        return ""


def origin(error: BaseException) -> str:
    """The innermost line of our own code that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "bertlab" in frame.filename] or list(frames)
    return f"at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def command(*words: str, place: Path) -> Ending:
    """Run a command line in `place`, with all that it prints captured."""
    from hydra.core.global_hydra import GlobalHydra

    from bertlab.cli.entry import run_command

    global _is_hooked
    if not _is_hooked:
        sys.addaudithook(_hook)
        _is_hooked = True
    own = tempfile.mkdtemp(prefix="bertlab-own-")
    caches = [
        os.path.realpath(os.environ[name]) for name in ("BERTLAB_CACHE", "HF_HOME") if name in os.environ
    ]
    watch = Watch(Path(os.path.realpath(place)), (*caches, *SETTINGS, own))
    GlobalHydra.instance().clear()
    before = Path.cwd(), sys.argv, tempfile.tempdir
    status, error = None, None
    os.chdir(place)
    sys.argv = ["bertlab", *words]
    try:
        with captured() as printed, warnings.catch_warnings(), patience(COMPUTING, WAITING):
            warnings.simplefilter("default")
            tempfile.tempdir = own
            _watches.append(watch)
            try:
                status = run_command(list(words))
            finally:
                _watches.remove(watch)
    except SystemExit as stop:  # Hydra's own way, and that of a task inside it
        status = stop.code if isinstance(stop.code, int) else 1
    except (Exception, HangsError) as escaped:
        error = escaped
    except BaseException as escaped:
        if type(escaped).__name__ != "PanicException":  # of libraries in Rust
            raise
        error = escaped
    finally:
        os.chdir(before[0])
        sys.argv, tempfile.tempdir = before[1:]
        shutil.rmtree(own, ignore_errors=True)
        GlobalHydra.instance().clear()
    return Ending(status, printed[0], printed[1], watch.seen, error)


@contextlib.contextmanager
def patience(computing: int, waiting: int) -> Iterator[None]:
    """Raises HangsError in whatever computes for longer, or waits for something that does not come."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise HangsError

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, computing), (signal.SIGALRM, signal.ITIMER_REAL, waiting))
    former = [signal.signal(number, stop) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, former, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@contextlib.contextmanager
def captured() -> Iterator[list[str]]:
    """Takes in what is printed, by C and Rust code too; then the list holds both streams as text."""
    texts: list[str] = []
    streams, saved = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    for stream in streams:
        stream.flush()
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            with writer(1) as sys.stdout, writer(2) as sys.stderr:
                yield texts
        finally:
            sys.stdout, sys.stderr = streams
            for kept, number in zip(saved, (1, 2), strict=True):
                os.dup2(kept, number)
                os.close(kept)
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode("utf-8", "replace"))


def writer(number: int) -> TextIO:
    """Text to a descriptor, which stays open."""
    return open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
