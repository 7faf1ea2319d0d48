"""Run folders as training leaves them, without training: for tests of what reads them."""

import json
from pathlib import Path
from typing import Any

import yaml


def write_run(
    root: Path,
    name: str,
    seed: int,
    score: float,
    test: float | None = None,
    status: str = "finished",
    metric: str = "accuracy",
    stage: str | None = None,
    predictions: list[dict[str, Any]] | None = None,
    **settings: Any,
) -> Path:
    """One folder; `settings` are dotted keys with `__` for the dot, e.g. optimizer__lr=0.1."""
    config: dict[str, Any] = {
        "dataset": {"component": "table", "name": "toy", "fraction": 1.0},
        "objective": {"component": "classification", "max_length": 64},
        "model": {"component": "bert", "positions": "learned"},
        "init": {"component": "scratch"},
        "optimizer": {"component": "adamw", "lr": 0.001},
        "budget": {"epochs": 1.0, "batch_size": 32},
        "evaluation": {"batch_size": 256},
        "compute": {"threads": seed},
        "seed": seed,
        "tags": [],
    }
    for key, value in settings.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    metrics = {f"validation/{metric}": score, "validation/loss": 1 - score}
    if test is not None:
        metrics |= {f"test/{metric}": test}
    summary: dict[str, Any] = {
        "status": status,
        "id": name,
        "seed": seed,
        "command": f"bertlab -m seed=range(3) optimizer.lr=0.001,0.002 tags=[{name}]",
    }
    if status == "finished":
        cost = {
            "seconds": 60.0,
            "core_seconds": 70.0,
            "tokens": 1_000_000,
            "flops": 1e12,
            "parameters": 4_000_000,
            "finished_at": f"2026-01-0{1 + seed % 9}",
        }
        summary |= {"metrics": metrics, "selected_by": f"validation/{metric}", "last": {f"validation/{metric}": score - 0.01}, "cost": cost}
        if stage is not None:
            summary["stage"] = {"run": stage, "cost": {**cost, "tokens": 20_000_000}}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "environment.json").write_text(
        json.dumps({"git": {"revision": "abc", "dirty": False}, "packages": {"torch": "2"}, "processor": "P"})
    )
    (folder / "identity.json").write_text(json.dumps({"code": {"loop": "1"}, "inputs": {}}))
    records = [{"step": step, "epoch": step / 10, f"validation/{metric}": score * step / 10} for step in range(1, 11)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if predictions is not None:
        (folder / "predictions").mkdir()
        (folder / "predictions" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in predictions))
    return folder
