"""Run folders as they lie on disk: what each is, what it scored, what is wrong with it. Nothing is dropped without a word."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bertlab.errors import RunError

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where libyaml is there
NO_RUNS = ("checkpoints", "predictions", "encoder", "sweeps")  # folders within which no run is looked for


@dataclass
class RunRecord:
    """One run folder."""

    folder: Path
    tree: dict[str, Any] = field(default_factory=dict)  # config.yaml as it stands
    config: dict[str, Any] = field(default_factory=dict)  # dotted key -> value
    summary: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)  # module -> version, of what decides the result
    numerics: dict[str, Any] = field(default_factory=dict)  # device, precision
    problem: str = ""  # why it cannot be counted; empty for a finished run

    @property
    def name(self) -> str:
        """Its folder's name, DATASET-OBJECTIVE-ID."""
        return self.folder.name

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def machine(self) -> str:
        """The device that computed, by its model name."""
        accelerator = self.environment.get("cuda") if self.numerics.get("device") == "cuda" else None
        return str(accelerator or self.environment.get("processor", "–"))

    @property
    def primary(self) -> str:
        """The metric that selected its checkpoint."""
        return str(self.summary["selected_by"]).split("/", 1)[1]

    @property
    def stage(self) -> str | None:
        """The folder name of the pretraining it began from."""
        found = self.summary.get("stage")
        return str(found["run"]) if found else None

    def score(self, split: str, metric: str) -> float | None:
        """One of its final scores."""
        value = self.summary.get("metrics", {}).get(f"{split}/{metric}")
        return float(value) if isinstance(value, int | float) else None

    def history(self) -> list[dict[str, Any]]:
        """Records of training; a last line torn by a kill is left out."""
        records = []
        try:
            for line in (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
                records.append(json.loads(line))
        except (OSError, ValueError):
            pass
        return records

    def predictions(self, split: str) -> list[dict[str, Any]] | None:
        """Rows of predictions/SPLIT.jsonl; None where they were not kept or are damaged."""
        try:
            lines = (self.folder / "predictions" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines]
        except (OSError, ValueError):
            return None


def find_runs(paths: Sequence[str]) -> list[RunRecord]:
    """The runs at or below the given folders, each once, by name. Raises RunError where a path does not exist or holds none."""
    folders: dict[Path, None] = {}
    for given in paths:
        root = Path(given).expanduser()
        if not root.is_dir():
            raise RunError(f"runs={given}: no such folder")
        found = list(_run_folders(root, depth=4))
        if not found:
            raise RunError(f"runs={given}: no run folder there or below (a run folder has a config.yaml)")
        folders.update((folder.resolve(), None) for folder in found)
    return sorted((read_run(folder) for folder in folders), key=lambda run: (run.name, run.seed))


def _run_folders(root: Path, depth: int) -> Iterable[Path]:
    if (root / "config.yaml").is_file() or (root / "summary.json").is_file():
        yield root
    elif depth:
        for place in sorted(root.iterdir()):
            if place.is_dir() and not place.name.startswith(".") and place.name not in NO_RUNS:
                yield from _run_folders(place, depth - 1)


def read_run(folder: Path) -> RunRecord:
    """A run folder; what is missing or damaged becomes its `problem`."""
    run = RunRecord(folder)
    try:
        config = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), Loader=LOADER)
        if not isinstance(config, dict) or "seed" not in config:
            raise ValueError("not a run's config")
        run.tree, run.config = config, flatten(config)
        run.summary = _json(folder / "summary.json") if (folder / "summary.json").is_file() else {"status": "unfinished"}
        run.environment = _json(folder / "environment.json") if (folder / "environment.json").is_file() else {}
        identity = _json(folder / "identity.json") if (folder / "identity.json").is_file() else {}
        run.code, run.numerics = identity.get("code", {}), identity.get("numerics", {})
        status = run.summary["status"]
        if status != "finished":
            error = str(run.summary.get("error", ""))
            run.problem = f"{status}{f': {error}' if error else ''}"
        elif not isinstance(run.summary["metrics"], dict) or not isinstance(run.summary["selected_by"], str):
            raise ValueError("summary.json lacks its metrics")
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        line = (str(error).splitlines() or [""])[0]
        run.problem = f"damaged: {f'no {line}' if isinstance(error, KeyError) else line}"
    return run


def _json(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} is not an object")
    return found


def flatten(tree: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones; lists stay whole, as text."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        full = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict):
            flat |= flatten(value, full)
        else:
            flat[full] = json.dumps(value) if isinstance(value, list) else value
    return flat
