"""TensorBoard: scalars at their steps, settings and final scores as hyper-parameters, in event files below
the run's folder.
"""

import contextlib
from dataclasses import dataclass
from typing import Any, ClassVar

from bertlab.config.schema import TrackerConfig, string
from bertlab.contracts import RunInfo, Tracker
from bertlab.errors import ConfigError


@dataclass
class Tensorboard(TrackerConfig):
    """Look at the runs with `tensorboard --logdir multirun`. Needs the package: `pip install tensorboard`."""

    side_by_side: ClassVar = True

    folder: str = string("tensorboard", "folder of the event files within the run's")

    def build(self, info: RunInfo) -> "TensorboardTracker":
        """Open the event files. Raises ConfigError where the package is missing."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "tracker=tensorboard: the package is not installed; pip install 'bertlab[tensorboard]'"
            ) from None
        return TensorboardTracker(SummaryWriter(str(info.folder / self.folder)), info)


class TensorboardTracker(Tracker):
    """See contracts.Tracker."""

    def __init__(self, writer: Any, info: RunInfo) -> None:
        self.writer, self.config = writer, flat(info.config)

    def log(self, record: dict[str, Any]) -> None:
        """Each number under its own name, at the run's own step: a continued run writes its records again, at
        the same steps.
        """
        for name, value in record.items():
            if name != "step":
                self.writer.add_scalar(name, float(value), int(record["step"]))

    def finish(self, summary: dict[str, Any]) -> None:
        """Settings and final scores beside each other, then close."""
        with contextlib.closing(self.writer):
            scores = {
                name: float(value)
                for name, value in summary.get("metrics", {}).items()
                if isinstance(value, int | float)
            }
            if scores:
                self.writer.add_hparams(self.config, scores, run_name="final")


def flat(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """A config as dotted keys, with values that every tracker takes; what is not set is left out."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{path}{key}"
        if isinstance(value, dict):
            found |= flat(value, f"{name}.")
        elif value is not None:
            found[name] = value if isinstance(value, bool | int | float | str) else str(value)
    return found
