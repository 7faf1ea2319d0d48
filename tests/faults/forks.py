"""Command lines as forks of this process, which has imported and begun everything once: a third of a second
each instead of ten.

For thousands of cases by hand, in a process without threads. Tests start processes by `children`.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


class Fork:
    """One command line that was started; `first` is what its process does before."""

    def __init__(self, *words: str, first: Callable[[], None] | None = None) -> None:
        handle, name = tempfile.mkstemp(prefix="bertlab-fork-")
        os.close(handle)
        self._files = Path(name), Path(f"{name}.err")
        self.pid = os.fork()
        if self.pid == 0:
            self._be_the_command(words, first)

    def _be_the_command(self, words: tuple[str, ...], first: Callable[[], None] | None) -> None:
        status = 1
        try:
            for file, stream in zip(self._files, (1, 2), strict=True):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115  # theirs
            sys.argv = ["bertlab", *words]
            from bertlab.cli import main

            if first is not None:
                first()

            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def wait(self, seconds: float) -> tuple[int | None, str, str]:
        """Exit status (negative for a signal, None where it hangs and was killed), standard output, standard
        error.
        """
        end, status = time.monotonic() + seconds, None
        while status is None:
            done, how = os.waitpid(self.pid, os.WNOHANG)
            if done:
                status = os.waitstatus_to_exitcode(how)
            elif time.monotonic() > end:
                self.kill()
                os.waitpid(self.pid, 0)
                break
            else:
                time.sleep(0.002)
        out, err = (
            file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
            for file in self._files
        )
        for file in self._files:
            file.unlink(missing_ok=True)
        return status, out, err

    def kill(self) -> None:
        """With no chance to tidy up."""
        os.kill(self.pid, signal.SIGKILL)
