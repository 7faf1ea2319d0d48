"""Commands as processes of their own, really started and really killed; only what comes before a command is
done once, by a server that forks them (begun.py).

Where the start itself is the promise (the module's name, the wheel, what is imported, launchers), tests start
Python anew.
"""

import contextlib
import functools
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

PATIENCE = 1200  # seconds, after which a process is taken to hang; no machine is so slow otherwise
TIMES = ("train/tokens_per_s", "seconds", "core_seconds", "tokens_per_s", "utilisation", "finished_at")


@functools.cache
def server() -> Any:
    """Begun with this folder on its path, and with no folder of a test's in its environment, nor a place
    among processes that train together.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["begun"])
    here, given = str(Path(__file__).parent), dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [given.get("PYTHONPATH")])])
    for name in ("BERTLAB_DATA", "BERTLAB_PLUGINS", "RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        os.environ.pop(name, None)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(given)
    return context


def warm_up(*words: str) -> None:
    """Run a command here, so that forks find everything imported."""
    from hydra.core.global_hydra import GlobalHydra
    from tqdm import tqdm

    from bertlab.cli.entry import run_command

    tqdm.monitor_interval = 0  # no thread of its own, which no fork would have
    sys.argv = ["bertlab", *words]
    with tempfile.TemporaryFile("w") as nowhere:
        before, sys.stdout = sys.stdout, nowhere
        try:
            assert run_command(list(words)) == 0, words
        finally:
            sys.stdout = before
            GlobalHydra.instance().clear()


def _bertlab(
    words: tuple[str, ...], environment: dict[str, str], output: str, errors: str, group: bool
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    if group:
        os.setsid()
    for place, stream in ((output, 1), (errors, 2)):
        descriptor = os.open(place, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    sys.argv = ["bertlab", *words]
    from bertlab.cli import main

    main()


class Child:
    """One command line in this folder and environment, as `subprocess.Popen` has it."""

    def __init__(self, *words: str, group: bool = False) -> None:
        handles, self._files = zip(
            *(tempfile.mkstemp(prefix="bertlab-child-") for _ in range(2)), strict=True
        )
        for handle in handles:
            os.close(handle)
        self._process = server().Process(target=_bertlab, args=(words, dict(os.environ), *self._files, group))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status; the negative number of the signal that killed it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """`returncode`; None while it runs."""
        return self.returncode

    def kill(self, number: int = signal.SIGKILL, group: bool = False) -> None:
        """Signal it, or its whole group, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def output(self) -> tuple[str, str]:
        """What it has written to standard output and standard error so far."""
        out, err = (Path(file).read_text(encoding="utf-8") for file in self._files)
        return out, err

    def wait(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """Its output when it has ended."""
        self._process.join(timeout)
        ended, told = self.returncode is not None, self.output()
        if not ended:
            self._process.kill()
        for file in self._files:
            Path(file).unlink(missing_ok=True)
        assert ended, f"it did not end in {timeout} s: {told}"
        return told


def start(*words: str, group: bool = False) -> Child:
    """A command that goes on while the test does; `group`: in a process group of its own."""
    return Child(*words, group=group)


def finish(*words: str, status: int = 0) -> str:
    """Standard output of a command that ends with this status."""
    child = start(*words)
    out, err = child.wait()
    assert child.returncode == status, err
    return out


def wait_until(ready: Callable[[], bool], child: Child) -> None:
    """Look every few milliseconds until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert child.poll() is None, f"it ended before: {child.output()}"
        assert time.monotonic() < deadline, "the run never got so far"
        time.sleep(0.003)


def kill_when(
    child: Child, ready: Callable[[], bool], number: int = signal.SIGKILL, group: bool = False
) -> tuple[str, str]:
    """Signal the process, or its whole group, as soon as `ready()` holds; its output."""
    wait_until(ready, child)
    child.kill(number, group)
    return child.wait()


def newest_step(output: Path) -> int:
    """The step of the newest checkpoint of any run below."""
    return max((int(place.name[5:]) for place in output.glob("*/checkpoints/step-*")), default=0)


def result(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on interruptions."""
    summary = json.loads((folder / "summary.json").read_text())
    cost = {name: value for name, value in summary["cost"].items() if name not in TIMES}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "model": (folder / "model.safetensors").read_bytes(),
        "last": (folder / "last.safetensors").read_bytes(),
        "predictions": (folder / "predictions" / "validation.jsonl").read_text(),
        "metrics": summary["metrics"],
        "cost": cost,
        "selected_step": summary["selected_step"],
        "records": [{name: value for name, value in line.items() if name not in TIMES} for line in lines],
    }


def only_run(output: Path) -> Path:
    """The one run below."""
    found = [place for place in output.iterdir() if (place / "config.yaml").is_file()]
    assert len(found) == 1, found
    return found[0]


def workers_of(child: Child) -> list[int]:
    """Processes that train together below a command: those that have taken a process group of their own."""
    found = []
    with contextlib.suppress(OSError):
        for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                found += [int(pid)] if os.getpgid(int(pid)) == int(pid) else []
    return found
