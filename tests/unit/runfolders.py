"""Run folders as training leaves them, without training: for tests of what reads them."""

import json
from pathlib import Path
from typing import Any

import yaml

from bertlab.declarations import BITS_PER_CHARACTER, Metric, loss_metric

METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", higher_is_better=True),
        loss_metric("nats per example"),
        Metric("bits_per_character", higher_is_better=False, unit=BITS_PER_CHARACTER, bounds=(0.0, None)),
        Metric("rmse", higher_is_better=False, unit="", bounds=(0.0, None)),
    )
}
PER_TOKEN = loss_metric("nats per masked token", per_token=True)


def write_run(
    root: Path,
    name: str,
    seed: int,
    score: float,
    test: float | None = None,
    status: str = "finished",
    metric: str | Metric = "accuracy",
    others: dict[str, float] | None = None,
    stage: str | None = None,
    predictions: list[dict[str, Any]] | None = None,
    **settings: Any,
) -> Path:
    """One folder; `settings` are dotted keys with `__` for the dot, e.g. optimizer__lr=0.1; `others` are
    further validation scores.
    """
    config: dict[str, Any] = {
        "dataset": {"component": "table", "name": "toy", "fraction": 1.0},
        "tokenizer": {"component": "wordpiece", "vocab_size": 8000},
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
    primary = METRICS[metric] if isinstance(metric, str) else metric
    specs = {**METRICS, primary.name: primary}
    metrics = {"validation/loss": abs(1 - score), f"validation/{primary.name}": score}
    metrics |= {f"validation/{other}": value for other, value in (others or {}).items()}
    if test is not None:
        metrics |= {f"test/{primary.name}": test}
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
        summary |= {
            "metrics": metrics,
            "metric_specs": {full: specs[full.partition("/")[2]].record() for full in metrics},
            "answers": {"label": "label"},
            "selected_by": f"validation/{primary.name}",
            "last": {f"validation/{primary.name}": score - 0.01},
            "cost": cost,
        }
        if stage is not None:
            summary["stage"] = {"run": stage, "cost": {**cost, "tokens": 20_000_000}}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "environment.json").write_text(
        json.dumps({"git": {"revision": "abc", "dirty": False}, "packages": {"torch": "2"}, "processor": "P"})
    )
    (folder / "identity.json").write_text(json.dumps({"code": {"loop": "1"}, "inputs": {}}))
    records = [
        {"step": step, "epoch": step / 10, f"validation/{primary.name}": score * step / 10}
        for step in range(1, 11)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if predictions is not None:
        (folder / "predictions").mkdir()
        (folder / "predictions" / "validation.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in predictions)
        )
    return folder


def change_summary(folder: Path, **changes: Any) -> None:
    """Other entries in a written run's summary; None takes one out."""
    file = folder / "summary.json"
    summary = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in summary.items() if value is not None}))


def three_arms(root: Path) -> Path:
    """Three arms of six seeds: the baseline, one that is better on every seed, one that is not different; one
    run without a result.
    """
    for seed in range(6):
        write_run(root, f"toy-classification-a{seed}", seed, 0.80 + 0.01 * (seed % 3), 0.78)
        write_run(
            root,
            f"toy-classification-b{seed}",
            seed,
            0.84 + 0.01 * (seed % 2),
            0.81,
            model__positions="rotary",
        )
        write_run(
            root,
            f"toy-classification-c{seed}",
            seed,
            0.80 + 0.01 * ((seed + 1) % 3),
            0.78,
            optimizer__lr=0.002,
        )
    write_run(root, "toy-classification-d0", 0, 0.0, status="interrupted")
    return root
