"""Weights & Biases: scalars, config, summary with cost and identity, tables of confusions and errors; grouped
by sweep. Never leaves a run open.

Every session of a run hands over its whole history, what earlier sessions knew included: online W&B goes on
where it was, offline the newest folder alone holds everything.
"""

import os
import re
import shlex
import socket
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from bertlab.config.schema import TrackerConfig, choice, flag, integer, string
from bertlab.contracts import RunInfo, Tracker
from bertlab.errors import ConfigError, first_line
from bertlab.trackers.tensorboard import flat

PATIENCE = 20.0  # seconds that a server has to answer when a run starts
KNOCK = 5.0  # seconds to take a connection at all
PORTS = {"http": 80, "https": 443}
MODES = ("online", "offline", "disabled")
CONFUSION = "confusion"  # the score of RunInfo.classes
ERRORS = ("row", "true", "predicted", "p of the true class")
TEXTS = ("text", "text_pair")  # columns that a table of errors may show
FILES = ("report.*", "methods.*", "runs.csv", "tables/*.csv", "figures/*")  # of a report


@dataclass
class Wandb(TrackerConfig):
    """`mode=offline` needs no network and no account; upload later with `wandb sync`."""

    mode: str = choice("online", *MODES, help="where records go; offline writes below the run's folder")
    project: str = string("bertlab", "W&B project")
    entity: str | None = string(None, "W&B user or team; null = the account's default")
    group: str | None = string(None, "null = the sweep's name, where the run belongs to one")
    errors: int = integer(
        50, "a table of so many validation examples whose class was missed by most; 0 = none", low=0
    )
    texts: bool = flag(False, "their texts too, which leave this machine with an upload")

    def build(self, info: RunInfo) -> "WandbTracker":
        """Start (or continue) the W&B run with this run's id. Raises ConfigError where W&B refuses."""
        return WandbTracker(self, info)


def start(asked_for: str, mode: str, folder: Path, **about: Any) -> Any:
    """A W&B run; `WANDB_MODE` may take it offline. Raises ConfigError where W&B refuses, naming the setting
    that asked for it.
    """
    import wandb

    if mode == "online" and os.environ.get("WANDB_MODE") in MODES:
        mode = os.environ["WANDB_MODE"]
    if mode == "online":
        knock(asked_for, str(wandb.setup().settings.base_url))
    settings = wandb.Settings(
        console="off", silent=True, x_disable_stats=True, x_disable_meta=True, init_timeout=PATIENCE
    )
    try:
        return wandb.init(
            mode=cast(Any, mode),
            # W&B's own process resolves it, wherever that was started
            dir=str(folder.absolute()),
            settings=settings,
            reinit="finish_previous",
            **about,
        )
    except (wandb.Error, OSError, TimeoutError) as error:
        line = first_line(error)
        raise ConfigError(
            f"{asked_for}: cannot start ({line}); log in with `wandb login`, or stay offline:"
            " WANDB_MODE=offline"
        ) from error


def knock(asked_for: str, address: str) -> None:
    """See whether anybody is there: W&B itself tries for a minute. Behind a proxy that is not ours to see.

    Raises ConfigError naming the setting that asked for it.
    """
    parts = urlsplit(address)
    if parts.hostname is None or parts.scheme in urllib.request.getproxies():
        return
    try:
        with socket.create_connection((parts.hostname, parts.port or PORTS.get(parts.scheme, 443)), KNOCK):
            pass
    except OSError as error:
        raise ConfigError(
            f"{asked_for}: nobody answers at {address} ({first_line(error)}); is the network there, and"
            " WANDB_BASE_URL right? Or stay offline: WANDB_MODE=offline"
        ) from error


def close(run: Any, exit_code: int = 0) -> None:
    """End it; of one that stays here, say how to upload it."""
    folder, is_offline = Path(run.dir).parent, bool(run.offline)
    run.finish(exit_code=exit_code)
    if is_offline and folder.is_dir():
        here = Path.cwd()
        shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
        print(f"to upload it: wandb sync {shlex.quote(str(shown))}", flush=True)


class WandbTracker(Tracker):
    """See contracts.Tracker."""

    def __init__(self, config: Wandb, info: RunInfo) -> None:
        self.config, self.info = config, info
        self.run = start(
            "tracker=wandb",
            config.mode,
            info.folder,
            project=config.project,
            entity=config.entity,
            group=config.group or info.sweep,
            job_type=info.job,
            name=info.title,
            id=info.run_id,
            resume="allow",
            tags=list(info.tags),
            config=info.config,
        )

    def log(self, record: dict[str, Any]) -> None:
        """Under the run's own step; what an earlier session told already is not told again."""
        step = int(record["step"])
        if step >= self.run.starting_step:
            self.run.log({name: value for name, value in record.items() if name != "step"}, step=step)

    def examples(self, split: str, rows: Any, predictions: list[dict[str, Any]]) -> None:
        """The classes that were missed by most on validation, as a table; the test split's errors are not
        for choosing by.
        """
        if split == "validation" and self.config.errors and self.info.classes is not None:
            columns = [name for name in TEXTS if self.config.texts and name in rows.column_names]
            worst = worst_errors(
                rows[self.info.classes][:], self.info.labels, predictions, self.config.errors
            )
            data = [[*told, *(rows[told[0]][name] for name in columns)] for told in worst]
            self._table(f"{split}/errors", [*ERRORS, *columns], data)

    def _table(self, name: str, columns: Sequence[str], data: list[list[Any]]) -> None:
        import wandb

        self.run.log({name: wandb.Table(columns=list(columns), data=data)})

    def finish(self, summary: dict[str, Any]) -> None:
        """Scores, cost, identity and confusion matrices, then close; a failed run is marked as failed."""
        try:
            for name, value in summary.get("metrics", {}).items():
                if self.info.classes is not None and name.partition("/")[2] == CONFUSION:
                    rows = [
                        [true, predicted, count]
                        for true, line in zip(self.info.labels, value, strict=True)
                        for predicted, count in zip(self.info.labels, line, strict=True)
                    ]
                    self._table(name, ["true", "predicted", "count"], rows)
                else:
                    self.run.summary[name] = value
            self.run.summary.update(
                {f"cost/{name}": value for name, value in summary.get("cost", {}).items()}
                | {f"identity/{name}": value for name, value in flat(self.info.identity).items()}
                | {
                    name: summary[name]
                    for name in ("status", "id", "command", "seed", "selected_by", "selected_step", "stopped")
                    if name in summary
                }
            )
        finally:
            close(self.run, 0 if summary["status"] == "finished" else 1)


def worst_errors(
    labels: Sequence[int], names: Sequence[str], predictions: Sequence[Mapping[str, Any]], most: int
) -> list[list[Any]]:
    """Of rows whose class was missed: row, true, predicted, probability of the true class; the lowest
    first.
    """
    missed = [
        [row, names[label], told["label"], told["probabilities"][names[label]]]
        for row, (label, told) in enumerate(zip(labels, predictions, strict=True))
        if label >= 0 and told["label"] != names[label]
    ]
    return sorted(missed, key=lambda one: (one[3], one[0]))[:most]


def upload_report(project: str, folder: Path, title: str, tables: Mapping[str, tuple[Any, Any]]) -> None:
    """A report's files as an artifact, its page and these tables (name -> columns, rows) to look at, in a run
    of its own. Raises ConfigError where W&B refuses.
    """
    import wandb

    entity, _, name = project.rpartition("/")
    place = {"project": name, "entity": entity or None}
    run = start(f"wandb={project}", "online", folder, job_type="report", name=title, **place)
    try:
        artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", title)[:100], type="report", description=title)
        for pattern in FILES:
            for file in sorted(folder.glob(pattern)):
                artifact.add_file(str(file), name=file.relative_to(folder).as_posix())
        run.log_artifact(artifact)
        page = folder / "report.html"
        if page.is_file():
            run.log({"report": wandb.Html(page.read_text(encoding="utf-8"), inject=False)})
        for table, (columns, data) in tables.items():
            run.log({table: wandb.Table(columns=list(columns), data=[list(row) for row in data])})
    finally:
        close(run)
