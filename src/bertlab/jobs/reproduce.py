"""`bertlab reproduce`: make the runs behind a report again, those that are missing, and compare their scores with the report's

usage: bertlab reproduce report=FOLDER [paths.output=multirun] [dry_run=true]

FOLDER holds a report.json, as bertlab report writes it. Runs that are there are skipped, torn ones continue. On the same machine and
code the scores are equal to the bit; where a run has another id, the code, the data or the machine's precision are others.
Exit status 2 if a score differs.
"""

import dataclasses
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING

from bertlab.config import Paths, Train, flag, string
from bertlab.errors import RunError
from bertlab.jobs.train import train
from bertlab.report.reading import read_run
from bertlab.results import Context
from bertlab.saved import load_config


@dataclass
class Schema:
    """Which report, and where its runs are or shall be."""

    report: str = string(MISSING, "folder of a report, with its report.json")
    dry_run: bool = flag(False, "say what is missing, and do nothing")
    paths: Paths = field(default_factory=Paths)


def run(config: Schema, context: Context) -> None:
    """Run what is missing, then compare. Raises RunError where a score differs."""
    recorded = load_report(Path(config.report).expanduser())
    root = Path(config.paths.output)
    missing = {name: command for name, command in recorded["runs"].items() if read_run(root / name).problem}
    print(f"{len(recorded['runs'])} runs behind the report, {len(missing)} to be made", flush=True)
    if config.dry_run:
        for name, command in missing.items():
            print(f"  {name}: {command}")
        return
    made: dict[str, str] = {}
    for name, command in missing.items():
        print(f"== {command}", flush=True)
        made[name] = train(recorded_config(name, recorded, config.paths), Context(command, context.sweep)).folder.name
    differing = list(differences(recorded["scores"], root, made))
    for line in differing:
        print(line)
    if differing:
        raise RunError(f"{config.report}: {len(differing)} of {sum(map(len, recorded['scores'].values()))} scores differ")
    print(f"all {sum(map(len, recorded['scores'].values()))} scores are equal to the bit")


def recorded_config(name: str, recorded: dict[str, Any], paths: Paths) -> Train:
    """A run's config as the report holds it, whatever its presets say by now. Raises RunError where this version cannot read it."""
    with tempfile.TemporaryDirectory() as folder:
        tree = {**recorded["configs"][name], "paths": dataclasses.asdict(paths)}
        (Path(folder) / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        try:
            return load_config(Path(folder))
        except RunError as error:
            raise RunError(f"{name}: {str(error).replace(f'{folder}/config.yaml', 'its config in report.json')}") from None


def load_report(folder: Path) -> dict[str, Any]:
    """`report.json`. Raises RunError where it is missing or damaged."""
    file = folder / "report.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(found[key], dict) for key in ("runs", "configs", "scores")):
            raise ValueError("runs, configs and scores are not objects")
        return found
    except FileNotFoundError:
        raise RunError(f"report={folder}: there is no report.json; bertlab report writes one") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: damaged ({error})") from None


def differences(scores: dict[str, dict[str, float]], root: Path, made: dict[str, str]) -> list[str]:
    """A line for every score that is not what the report says."""
    found = []
    for name, expected in scores.items():
        own = made.get(name, name)
        run = read_run(root / own)
        if own != name:
            found.append(f"{name}: the same command now makes {own}: code, data or precision are not those of the report")
        for key, value in expected.items():
            now = run.summary.get("metrics", {}).get(key)
            if now != value:
                found.append(f"{name}: {key} was {value!r}, is {now!r}")
    return found
