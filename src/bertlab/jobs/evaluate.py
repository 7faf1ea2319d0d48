"""`bertlab evaluate`: score a finished run on a split or on a file of your own

usage: bertlab evaluate run=FOLDER [split=validation | file=PATH] [format=table|json]

Score a finished run: on a split of its dataset, or on a CSV, TSV, JSONL or Parquet file with the same column names
(or others: text_column=… text_pair_column=… label_column=… encoding=…). Rows of a file without an answer are left out, and counted.
The result is kept beside the run, in evaluations/, with the file's checksum.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from bertlab.config.registry import Job
from bertlab.config.schema import Compute, FileColumns, Paths, choice, integer, string
from bertlab.contracts import join_examples
from bertlab.data.dataset import load_dataset, roles_for
from bertlab.data.table import read_rows, rows_of_columns, table_of
from bertlab.errors import ConfigError, DataError, RunError, did_you_mean
from bertlab.runs.files import file_digest, to_json, write_record
from bertlab.runs.folder import RunFolder, find_run
from bertlab.runs.machine import threads
from bertlab.runs.outcome import Context
from bertlab.training.evaluation import score
from bertlab.training.finished import FinishedRun, load_run


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


def run(config: Schema, context: Context) -> float:
    """Print the metrics; returns the primary one."""
    folder = find_run(config.run, config.paths)
    trained = load_run(folder)
    rows, split, left_out = rows_to_score(trained, config)
    metrics = score_rows(trained, rows, split, config.compute, config.batch_size)
    told = {"run": str(folder), "rows": len(rows), "left_out": left_out, **metrics}
    if config.format == "json":
        print(json.dumps(told))
    else:
        print(f"{len(rows):,} rows scored" + (f", {left_out:,} without an answer left out" if left_out else ""))
        print_table(metrics, split, trained)
    kept = keep(folder, split, config.file, {**told, "command": context.command})
    print(f"kept: {kept}", file=sys.stderr)
    return float(metrics[f"{split}/{trained.objective.primary.name}"])


def score_rows(trained: FinishedRun, rows: Any, split: str, compute: Compute, batch_size: int) -> dict[str, Any]:
    """Metrics named `split/name` of a finished run on labelled rows."""
    device = trained.device(compute)
    trained.model.to(device.device)
    examples = join_examples(trained.objective.prepare(rows, trained.tokenizer))
    with threads(device.threads):
        metrics, _ = score(trained.model, trained.objective, examples, device, batch_size, split, rows)
    return metrics


def labelled_rows(trained: FinishedRun, columns: Mapping[str, Sequence[Any]], where: str) -> tuple[Any, int]:
    """Columns at hand in the run's roles, and how many rows had no answer. Raises DataError."""
    table = dataclasses.replace(table_of(trained.config.dataset, FileColumns()), drop_unlabelled=True)
    return rows_of_columns(
        table, columns, where, roles_for(trained.config.dataset, trained.config.objective), trained.objective.label_names
    )


def keep(folder: RunFolder, split: str, file: str | None, told: dict[str, Any]) -> Path:
    """Write a result to evaluations/ in the run's folder, under the split's name or the file's and its content's. Raises RunError."""
    name, source = split, dict[str, Any]()
    if file is not None:
        path = Path(file).expanduser()
        checksum = file_digest(path)
        name, source = f"{path.stem}-{checksum[:8]}", {"file": str(path.absolute()), "sha256": checksum}
    place = folder.path / "evaluations" / f"{name}.json"
    try:
        write_record(place, to_json({**source, **told, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}))
    except OSError as error:
        raise RunError(f"{place}: the result above could not be kept ({error.strerror or error})") from error
    return place


def rows_to_score(trained: FinishedRun, config: Schema) -> tuple[Any, str, int]:
    """Rows, the name they are scored under, and how many were left out. Raises DataError where they are missing or without answers."""
    if config.file is not None:
        file = Path(config.file).expanduser()
        if not file.is_file():
            raise DataError(f"file={config.file}: no such file")
        roles = roles_for(trained.config.dataset, trained.config.objective)
        table = dataclasses.replace(table_of(trained.config.dataset, config), drop_unlabelled=True)
        rows, left_out = read_rows(table, file, roles, trained.objective.label_names)
        return rows, "file", left_out
    paths = trained.config.paths
    paths.mirror, paths.cache = config.paths.mirror or paths.mirror, config.paths.cache or paths.cache
    if trained.config.dataset.fingerprint(paths) != trained.identity["inputs"]["dataset"]:
        raise DataError(
            f"{trained.config.dataset.name}: its files are not those that the run was trained on, so its held-out rows may be others; "
            "score a file of your own with file=PATH"
        )
    dataset = load_dataset(trained.config.dataset, paths, roles_for(trained.config.dataset, trained.config.objective))
    split = config.split or "validation"
    if split not in dataset.splits:
        raise DataError(
            f"split={split}: {trained.config.dataset.name} has no labelled split of that name, {did_you_mean(split, dataset.splits)}"
        )
    return dataset.splits[split], split, 0


def print_table(metrics: dict[str, Any], split: str, trained: FinishedRun) -> None:
    """Scores, then what the objective shows beside them."""
    for name, value in metrics.items():
        if isinstance(value, float):
            print(f"{name:<24} {value:.4f}")
    lines = trained.objective.describe_scores({name.removeprefix(f"{split}/"): value for name, value in metrics.items()})
    print("\n".join(["", *lines] if lines else []), end="\n" if lines else "")


JOB = Job(Schema, run, has_score=True)
