"""Start the processes of one run on this machine, wait for them, and tell what came of it.

They are torch's (torch.multiprocessing), which ends all where one fails. Each is in a process group of its
own, so that what a terminal or a scheduler sends to a whole group reaches this process alone, which hands it
on once: they checkpoint and leave. They end with this one.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, start_processes

from bertlab import errors
from bertlab.errors import PeerLostError, RunError, ToldElsewhereError, UserError
from bertlab.runs.processes import Place, take_place
from bertlab.runs.streams import prepare_streams
from bertlab.training.several.exchange import leave
from bertlab.training.steps.stops import Interrupted, MemoryExhausted, heard

GRACE = 15.0  # seconds that the others have to end by themselves once one has failed
DONE, ELSEWHERE, INTERRUPTED, EXHAUSTED, REFUSED = "done", "elsewhere", "interrupted", "exhausted", "refused"
FINISHED = "finished"  # by a signal that came with the last step


@dataclass(frozen=True)
class Told:
    """How a process ended."""

    how: str
    # of an interruption the signal, of exhausted memory the micro-batch that may fit; of what is done whether
    # it was so before
    value: int = 0
    error: str = ""  # the error's class
    line: str = ""


def run_together(of: int, work: Callable[..., bool], *arguments: Any) -> bool:
    """Call `work(*arguments)` in so many processes that are each other's `place()`; what it returns in the
    first.

    Raises what they raise of Interrupted, MemoryExhausted and UserError, and RunError where one was killed.
    """
    with tempfile.TemporaryDirectory(prefix="bertlab-run-") as folder:
        logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # tells of each that it ends
        killed: ProcessExitedException | None = None
        started = start_processes(_process, (of, folder, work, arguments), of, join=False)  # type: ignore[no-untyped-call]  # torch's has no types
        with handing_on(started) as received:
            try:
                while not started.join(grace_period=GRACE):
                    pass
            except ProcessExitedException as error:
                killed = error
        told = [_read(Path(folder) / f"{rank}.json") for rank in range(of)]
    return _outcome([one for one in told if one is not None], received, killed, of)


def _outcome(told: list[Told], received: list[int], killed: ProcessExitedException | None, of: int) -> bool:
    by_kind = {one.how: one for one in reversed(told)}
    if EXHAUSTED in by_kind:
        raise MemoryExhausted(by_kind[EXHAUSTED].value)
    if REFUSED in by_kind:
        kinds = {
            kind.__name__: kind
            for kind in (errors.ConfigError, errors.DataError, errors.RunError, errors.DivergedError)
        }
        raise kinds.get(by_kind[REFUSED].error, UserError)(by_kind[REFUSED].line)
    is_finished = len(told) == of and by_kind.keys() <= {DONE, FINISHED}
    if INTERRUPTED in by_kind or FINISHED in by_kind or (received and is_finished):
        others = [one.value for one in told if one.how in (INTERRUPTED, FINISHED)]
        raise Interrupted((received or others)[0], is_finished)
    if received:  # before there was anything to checkpoint
        signal.signal(received[0], signal.SIG_DFL)
        os.kill(os.getpid(), received[0])
    if killed is not None:
        how = (
            f"was killed ({killed.signal_name})"
            if killed.signal_name
            else f"ended with status {killed.exit_code}"
        )
        raise RunError(
            f"process {killed.error_index} of {of} of this run {how}, perhaps for lack of memory; the same"
            " command goes on from the last checkpoint"
        )
    if ELSEWHERE in by_kind or len(told) < of:
        raise RunError(
            by_kind[ELSEWHERE].line if ELSEWHERE in by_kind else "a process of this run ended without a word"
        )
    return bool(told[0].value)


def _process(rank: int, of: int, folder: str, work: Callable[..., bool], arguments: tuple[Any, ...]) -> None:
    """One of them. What it has to tell lies in a file; its status is 0 unless the others must not wait for
    it.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    prepare_streams()
    take_place(Place(rank, of, rank, of, f"file://{folder}/meeting"))
    if rank:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # as long as the process lives
    try:
        told = Told(DONE, int(work(*arguments)))
    except Interrupted as stop:
        told = Told(FINISHED if stop.is_finished else INTERRUPTED, stop.exit_status - 128)
    except MemoryExhausted as error:
        told = Told(EXHAUSTED, error.micro_batch)
    except (PeerLostError, ToldElsewhereError) as error:
        told = Told(ELSEWHERE, line=str(error))
    except UserError as error:
        told = Told(REFUSED, 0, type(error).__name__, str(error))
    finally:
        leave()
    temporary = Path(folder) / f".{rank}.json"
    temporary.write_text(json.dumps(asdict(told)), encoding="utf-8")
    temporary.replace(Path(folder) / f"{rank}.json")
    if told.how in (EXHAUSTED, REFUSED):
        sys.exit(1)


def _read(file: Path) -> Told | None:
    try:
        return Told(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


@contextmanager
def handing_on(started: ProcessContext) -> Iterator[list[int]]:
    """Hand SIGINT, SIGTERM and SIGHUP on as a polite SIGTERM, once; a second SIGINT kills."""
    received: list[int] = []

    def note(number: int) -> None:
        again = bool(received) and number == signal.SIGINT
        if not received or again:
            for process in started.processes:
                with contextlib.suppress(ProcessLookupError, ValueError):
                    process.kill() if again else process.terminate()
        received.append(number)

    with heard(note):
        yield received
