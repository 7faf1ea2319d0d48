"""The job's side of a trial: it reports intermediate scores, learns whether to stop, beats while it lives,
and tells its own result.

The sweeper names the trial in the job's environment. A job that is no trial gets None and needs no Optuna.
Losing the sweeper, another worker or the launcher loses no result that a job has told.
"""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

VARIABLE = "HYDRA_OPTUNA_TRIAL"
BEAT = "beat"  # user attribute: counts up while somebody works on the trial, or holds it in a queue
NOTE = "note:"  # user attributes: what the job notes of its trial
OWNER = "owner"  # user attribute: the process that does


def current_trial() -> "Trial | None":
    """The trial that this process works on, if it works on one."""
    told = os.environ.get(VARIABLE)
    return Trial(json.loads(told)) if told else None


def this_process() -> str:
    """Machine, process id and start time: no other process is ever called the same."""
    return f"{_machine()}|{os.getpid()}|{_started(os.getpid())}"


def is_gone(owner: str) -> bool:
    """Whether a process of this machine has ended. Of another machine's nothing is known: False."""
    machine, _, process = owner.partition("|")
    number, _, started = process.partition("|")
    return machine == _machine() and number.isdigit() and started != "" and _started(int(number)) != started


def _machine() -> str:
    space = ""
    with contextlib.suppress(OSError):  # containers may share a name, never this
        space = str(Path("/proc/self/ns/pid").readlink())
    return f"{socket.gethostname()}:{space}"


def _started(number: int) -> str:
    """Start time of a process in the system's ticks; `gone` for one that has ended, empty where the system
    does not tell.
    """
    if not Path("/proc/self/stat").is_file():
        return ""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "gone"
    return "gone" if fields[0] in ("Z", "X") else fields[19]


class Trial:
    """Use as a context: it beats from entry to exit, and an exception that escapes fails the trial."""

    def __init__(self, description: dict[str, Any]) -> None:
        from hydra_plugins.bertlab_optuna._study import load_study

        self.study = load_study(description)
        self.name = str(description["study"])
        self.label = str(description["label"])  # `trial 3/20: optimizer.lr=4e-05`, for a person
        # names, for a job that knows several scores
        self.objectives: list[str] = list(description["objectives"])
        self.directions = [direction.name.lower() for direction in self.study.directions]
        self._storage = self.study._storage
        self._id, self._interval = int(description["trial"]), float(description["heartbeat_seconds"])
        self._stop = threading.Event()

    @property
    def is_over(self) -> bool:
        """Ended already: told by another process, or given up for dead and tried again elsewhere. Nothing is
        left to do.
        """
        return bool(self._storage.get_trial(self._id).state.is_finished())

    def __enter__(self) -> "Trial":
        self._set(OWNER, this_process())
        self._thread = threading.Thread(target=self._beating, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if isinstance(error, Exception):
            self.fail(f"{type(error).__name__}: {error}")

    def _beating(self) -> None:
        beats = 0
        while not self._stop.wait(self._interval):
            beats += 1
            # a storage that is out of reach for a moment; the next beat may come through
            with contextlib.suppress(Exception):
                self._set(BEAT, f"{this_process()}|{beats}")

    def _set(self, key: str, value: Any) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(self._id, key, value)

    def note(self, name: str, text: str) -> None:
        """What a person will want to know of the trial, e.g. where its files are: a column of trials.csv."""
        self._set(f"{NOTE}{name}", text)

    def report(self, step: int, value: float) -> None:
        """Tell an intermediate score. Pruners know one objective only: of several, nothing is told."""
        from optuna.exceptions import UpdateFinishedTrialError

        if len(self.directions) == 1:
            with contextlib.suppress(UpdateFinishedTrialError):
                self._storage.set_trial_intermediate_value(self._id, step, float(value))

    def should_prune(self) -> bool:
        """Not worth going on, by the pruner's word or because the trial is over."""
        frozen = self._storage.get_trial(self._id)
        if frozen.state.is_finished():
            return True
        return len(self.directions) == 1 and bool(self.study.pruner.prune(self.study, frozen))

    def complete(self, values: Sequence[float]) -> None:
        """The final score(s). One that is no number fails the trial."""
        if len(values) != len(self.directions):
            self.fail(f"{len(values)} scores for {len(self.directions)} directions")
        elif any(value != value for value in values):
            self.fail("the score is not a number")
        else:
            self._finish("COMPLETE", [float(value) for value in values])

    def prune(self) -> None:
        """Stopped on the pruner's word; the last score reported is the trial's."""
        frozen = self._storage.get_trial(self._id)
        last = frozen.intermediate_values.get(frozen.last_step) if frozen.last_step is not None else None
        self._finish("PRUNED", None if last is None or last != last else [last])

    def fail(self, reason: str) -> None:
        """The trial came to nothing."""
        self._set("failure", reason[:500])
        self._finish("FAIL", None)

    def _finish(self, state: str, values: list[float] | None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        # told already, or given up for dead and tried again
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(self._id, TrialState[state], values)
