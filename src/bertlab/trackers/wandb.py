"""Weights & Biases: scalars, config, summary, confusion matrix; grouped by sweep. Never leaves a run open."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bertlab.config.schema import TrackerConfig, choice, string
from bertlab.contracts import RunInfo, Tracker
from bertlab.errors import ConfigError

PATIENCE = 20.0  # seconds that a server has to answer when a run starts


@dataclass
class Wandb(TrackerConfig):
    """`mode=offline` needs no network and no account; upload later with `wandb sync`."""

    mode: str = choice(
        "online",
        "online",
        "offline",
        "disabled",
        help="where records go; offline writes below the run's folder",
    )
    project: str = string("bertlab", "W&B project")
    entity: str | None = string(None, "W&B user or team; null = the account's default")
    group: str | None = string(None, "null = the sweep's name, where the run belongs to one")

    def build(self, info: RunInfo) -> "WandbTracker":
        """Start (or continue) the W&B run with this run's id. Raises ConfigError where W&B refuses."""
        if self.mode == "online" and os.environ.get("WANDB_MODE") in ("offline", "disabled"):
            self.mode = os.environ["WANDB_MODE"]
        return WandbTracker(self, info)


class WandbTracker(Tracker):
    """See contracts.Tracker."""

    def __init__(self, config: Wandb, info: RunInfo) -> None:
        import wandb

        settings = wandb.Settings(
            console="off", silent=True, x_disable_stats=True, x_disable_meta=True, init_timeout=PATIENCE
        )
        try:
            self.run = wandb.init(
                project=config.project,
                entity=config.entity,
                group=config.group or info.sweep,
                job_type=info.job,
                name=info.title,
                id=info.run_id,
                resume="allow",
                tags=list(info.tags),
                config=info.config,
                mode=cast(Any, config.mode),
                dir=str(info.folder),
                settings=settings,
                reinit="finish_previous",
            )
        except (wandb.Error, OSError, TimeoutError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise ConfigError(
                f"tracker=wandb: cannot start ({line}); log in with `wandb login`, or use"
                " tracker.mode=offline"
            ) from error
        self.wandb, self.labels, self.is_offline = wandb, list(info.labels), config.mode == "offline"

    def log(self, record: dict[str, Any]) -> None:
        """Under the run's own step, so that a continued run does not count twice."""
        self.run.log(
            {name: value for name, value in record.items() if name != "step"}, step=int(record["step"])
        )

    def finish(self, summary: dict[str, Any]) -> None:
        """Summary and confusion matrices, then close; a failed run is marked as failed."""
        try:
            for name, value in summary.get("metrics", {}).items():
                if name.endswith("/confusion"):
                    rows = [
                        [true, predicted, count]
                        for true, line in zip(self.labels, value, strict=True)
                        for predicted, count in zip(self.labels, line, strict=True)
                    ]
                    self.run.log({name: self.wandb.Table(columns=["true", "predicted", "count"], data=rows)})
                else:
                    self.run.summary[name] = value
            for name, value in summary.get("cost", {}).items():
                self.run.summary[f"cost/{name}"] = value
            self.run.summary.update(
                {"status": summary["status"], "id": summary["id"], "command": summary["command"]}
            )
        finally:
            folder = Path(self.run.dir).parent
            self.run.finish(exit_code=0 if summary["status"] == "finished" else 1)
            if self.is_offline:
                print(f"to upload it: wandb sync {shlex.quote(str(folder))}", flush=True)
