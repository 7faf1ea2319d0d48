"""`bertlab evaluate`: score a finished run on a split or on a file of your own

usage: bertlab evaluate run=FOLDER [split=validation | file=PATH] [format=table|json]

Score a finished run: on a split of its dataset, or on a CSV, TSV, JSONL or Parquet file with the same column names
(or others: text_column=… text_pair_column=… label_column=… encoding=…).
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from bertlab import store
from bertlab.assembly import needed_columns
from bertlab.config import Compute, FileColumns, Paths, choice, integer, string
from bertlab.contracts import join_examples
from bertlab.data.dataset import columns_of, fingerprint, load_dataset
from bertlab.data.table import read_rows, table_of
from bertlab.errors import ConfigError, DataError, did_you_mean
from bertlab.evaluation import score
from bertlab.results import Context
from bertlab.runtime import threads
from bertlab.saved import Trained, load_run


@dataclass
class Schema(FileColumns):
    """`bertlab evaluate`: score a finished run on a split of its dataset or on a file of the user's own."""

    run: str = MISSING
    split: str | None = string(None, "split to score; default: validation")
    file: str | None = string(None, "CSV, TSV, JSONL or Parquet file to score instead, with the run's own column names")
    format: str = choice("table", "table", "json", help="table for people, json for programs")
    batch_size: int = integer(256, "examples per batch", low=1)
    compute: Compute = MISSING
    paths: Paths = field(default_factory=Paths)

    def check(self, path: str) -> None:
        """One thing to score."""
        if self.split is not None and self.file is not None:
            raise ConfigError("evaluate: give either split or file, not both")
        self.check_file(self.file)


def run(config: Schema, _context: Context) -> float:
    """Print the metrics; returns the primary one."""
    folder = store.find_run(config.run, config.paths)
    trained = load_run(folder)
    rows, split = rows_to_score(trained, config)
    metrics = score_rows(trained, rows, split, config.compute, config.batch_size)
    if config.format == "json":
        print(json.dumps({"run": str(folder), **metrics}))
    else:
        print_table(metrics, split, list(trained.objective.label_names))
    return float(metrics[f"{split}/{trained.objective.primary.name}"])


def score_rows(trained: Trained, rows: Any, split: str, compute: Compute, batch_size: int) -> dict[str, Any]:
    """Metrics named `split/name` of a finished run on labelled rows."""
    device = trained.device(compute)
    trained.model.to(device.device)
    examples = join_examples(trained.objective.prepare(rows, trained.tokenizer.encode))
    with threads(device.threads):
        metrics, _ = score(trained.model, trained.objective, examples, device, batch_size, split)
    return metrics


def rows_to_score(trained: Trained, config: Schema) -> tuple[Any, str]:
    """Rows and the name they are scored under. Raises DataError where they are missing or without labels."""
    if config.file is not None:
        file = Path(config.file).expanduser()
        if not file.is_file():
            raise DataError(f"file={config.file}: no such file")
        needed = needed_columns(trained.config)
        table = table_of(trained.config.dataset, config, columns_of(trained.config.dataset))
        rows = read_rows(table, file, needed, list(trained.objective.label_names))
        answers = {"label": table.label_column, "tags": table.tags_column}
        for role in answers:
            if role in needed and (rows is None or role not in rows.column_names):
                raise DataError(f"{file}: no {role}s in column '{answers[role]}'; evaluate needs them (predict does not)")
        return rows, "file"
    paths = trained.config.paths
    paths.mirror, paths.cache = config.paths.mirror or paths.mirror, config.paths.cache or paths.cache
    if fingerprint(trained.config.dataset, paths) != trained.identity["inputs"]["dataset"]:
        raise DataError(
            f"{trained.config.dataset.name}: its files are not those that the run was trained on, so its held-out rows may be others; "
            "score a file of your own with file=PATH"
        )
    dataset = load_dataset(trained.config.dataset, paths, needed_columns(trained.config))
    split = config.split or "validation"
    if split not in dataset.splits:
        raise DataError(
            f"split={split}: {trained.config.dataset.name} has no labelled split of that name, {did_you_mean(split, dataset.splits)}"
        )
    return dataset.splits[split], split


def print_table(metrics: dict[str, Any], split: str, labels: list[str]) -> None:
    """Scores, then the confusion matrix, rows: true class."""
    for name, value in metrics.items():
        if isinstance(value, float):
            print(f"{name:<24} {value:.4f}")
    confusion = metrics.get(f"{split}/confusion")
    if confusion is None:
        return
    width = max(8, *(len(label) + 1 for label in labels))
    print(f"\n{'true / predicted':<18}" + "".join(f"{label:>{width}}" for label in labels))
    for label, row in zip(labels, confusion, strict=True):
        print(f"{label:<18}" + "".join(f"{count:>{width}}" for count in row))
