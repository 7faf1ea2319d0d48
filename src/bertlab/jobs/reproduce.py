"""`bertlab reproduce`: make the runs behind a report again, those that are missing, and compare their scores with the report's

usage: bertlab reproduce report=FOLDER [paths.output=multirun] [dry_run=true]

FOLDER holds a report.json, as bertlab report writes it. Runs that are there are skipped, torn ones continue. On the same machine and
code the scores are equal to the bit; that a run is called otherwise today is only noted.
Exit status 2 if a score differs.
"""

import dataclasses
import functools
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from bertlab.config.registry import Job
from bertlab.config.schema import Node, Paths, Train, flag, string
from bertlab.errors import RunError
from bertlab.runs.configs import config_of
from bertlab.runs.files import read_json
from bertlab.runs.folder import RunFolder
from bertlab.runs.outcome import Companions, Context
from bertlab.runs.records import read_run
from bertlab.training.lifecycle import train


@dataclass
class Schema(Node):
    """Which report, and where its runs are or shall be."""

    report: str = string(MISSING, "folder of a report, with its report.json")
    dry_run: bool = flag(False, "say what is missing, and do nothing")
    paths: Paths = field(default_factory=Paths)


def run(config: Schema, context: Context) -> None:
    """Run what is missing, then compare. Raises RunError where a score differs."""
    recorded = load_report(Path(config.report).expanduser())
    root = Path(config.paths.output)
    missing = {
        name: command
        for name, command in recorded["runs"].items()
        if read_run(RunFolder(root / name)).problem
    }
    print(f"{len(recorded['runs'])} runs behind the report, {len(missing)} to be made", flush=True)
    if config.dry_run:
        for name, command in missing.items():
            print(f"  {name}: {command}")
        return
    made: dict[str, str] = {}
    asked = [
        (
            recorded_config(name, recorded, config.paths),
            Context(command, shlex.split(command)[1:], context.sweep),
        )
        for name, command in missing.items()
    ]
    ended: dict[str, Any] = {}
    for place, (name, (tree, own)) in enumerate(zip(missing, asked, strict=True), start=1):
        print(f"== {own.command}", flush=True)
        # seeds that were trained together are so again
        companions = Companions(functools.partial(iter, asked[place:]), ended)
        made[name] = train(tree, dataclasses.replace(own, companions=companions)).folder.name
        if made[name] != name:
            print(
                f"note: {name} is called {made[name]} now: it was made by another version, of other data or"
                " in another precision"
            )
    count = sum(map(len, recorded["scores"].values()))
    differing = differences(recorded["scores"], root, made)
    for line in differing:
        print(line)
    if differing:
        raise RunError(f"{config.report}: {len(differing)} of {count} scores differ")
    print(f"all {count} scores are equal to the bit")


def recorded_config(name: str, recorded: dict[str, Any], paths: Paths) -> Train:
    """A run's config as the report holds it, whatever its presets say by now. Raises RunError where this
    version cannot read it.
    """
    return config_of(
        {**recorded["configs"][name], "paths": dataclasses.asdict(paths)},
        f"{name}: its config in report.json",
    )


def load_report(folder: Path) -> dict[str, Any]:
    """`report.json`. Raises RunError where it is missing or damaged."""
    file = folder / "report.json"
    try:
        report: dict[str, Any] = read_json(file)
        if not all(isinstance(report[key], dict) for key in ("runs", "configs", "scores")):
            raise ValueError("runs, configs and scores are not objects")
        for name in report["runs"]:
            if not isinstance(report["configs"].get(name), dict):
                raise ValueError(f"there is no config of {name}")
        if not all(isinstance(scores, dict) for scores in report["scores"].values()):
            raise ValueError("scores of a run are not numbers by name")
        return report
    except FileNotFoundError:
        raise RunError(f"report={folder}: there is no report.json; bertlab report writes one") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: damaged ({error})") from None


def differences(scores: dict[str, dict[str, float]], root: Path, made: dict[str, str]) -> list[str]:
    """A line for every score that is not what the report says."""
    lines = []
    for name, expected in scores.items():
        run = read_run(RunFolder(root / made.get(name, name)))
        for key, value in expected.items():
            now = run.summary.get("metrics", {}).get(key)
            if now != value:
                lines.append(f"{name}: {key} was {value!r}, is {now!r}")
    return lines


JOB = Job(Schema, run)
