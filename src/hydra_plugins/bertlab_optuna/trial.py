"""The job's side of a trial: it reports intermediate scores, learns whether to stop, beats while it lives, and tells its own result.

The sweeper names the trial in the job's environment. A job that is no trial gets None and needs no Optuna. Losing the sweeper, another
worker or the launcher loses no result that a job has told.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

VARIABLE = "HYDRA_OPTUNA_TRIAL"
BEAT = "beat"  # user attribute: when the trial was last heard of, seconds since 1970


def current_trial() -> "Trial | None":
    """The trial that this process works on, if it works on one."""
    found = os.environ.get(VARIABLE)
    return Trial(json.loads(found)) if found else None


class Trial:
    """Use as a context: it beats from entry to exit, and an exception that escapes fails the trial."""

    def __init__(self, description: dict[str, Any]) -> None:
        from hydra_plugins.bertlab_optuna._study import load_study

        self.study = load_study(description)
        self.storage = self.study._storage
        self.trial_id, self.interval = int(description["trial"]), float(description["heartbeat_seconds"])
        self.values: list[float] | None = None
        self._stop = threading.Event()

    @property
    def directions(self) -> list[str]:
        """`maximize` or `minimize`, for each objective."""
        return [direction.name.lower() for direction in self.study.directions]

    def __enter__(self) -> "Trial":
        self._beat()
        self._thread = threading.Thread(target=self._beating, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if error is not None and isinstance(error, Exception):
            self.fail(f"{type(error).__name__}: {error}")

    def _beat(self) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self.storage.set_trial_user_attr(self.trial_id, BEAT, time.time())
        except UpdateFinishedTrialError:
            self._stop.set()

    def _beating(self) -> None:
        while not self._stop.wait(self.interval):
            self._beat()

    def report(self, step: int, value: float) -> bool:
        """Tell an intermediate score; True = not worth going on."""
        self.storage.set_trial_intermediate_value(self.trial_id, step, float(value))
        if len(self.study.directions) > 1:
            return False
        frozen = self.storage.get_trial(self.trial_id)
        return bool(self.study.pruner.prune(self.study, frozen))

    def complete(self, values: Sequence[float]) -> None:
        """The final score(s). One that is no number fails the trial."""
        if any(value != value for value in values):
            self.fail("the score is not a number")
            return
        self._finish("COMPLETE", [float(value) for value in values])

    def prune(self) -> None:
        """Stopped on the pruner's word; the last score reported is the trial's."""
        frozen = self.storage.get_trial(self.trial_id)
        last = frozen.intermediate_values.get(frozen.last_step) if frozen.last_step is not None else None
        self._finish("PRUNED", None if last is None else [last])

    def fail(self, reason: str) -> None:
        """The trial came to nothing."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self.storage.set_trial_user_attr(self.trial_id, "failure", reason[:500])
        except UpdateFinishedTrialError:
            return
        self._finish("FAIL", None)

    def _finish(self, state: str, values: list[float] | None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with contextlib.suppress(UpdateFinishedTrialError):  # told already, or given up for dead and tried again
            self.storage.set_trial_state_values(self.trial_id, TrialState[state], values)
