"""`bertlab evaluate`: score a finished run on a split or on a file of your own

usage: bertlab evaluate run=FOLDER [split=validation | file=PATH | pairs=blimp] [format=table|json]

Score a finished run: on a split of its dataset, or on a CSV, TSV, JSONL or Parquet file with the same column names
(or others: text_column=… text_pair_column=… label_column=… encoding=…). Rows of a file without a text or an answer are left out, and counted.
The result is kept beside the run, in evaluations/, with the file's checksum.

pairs=blimp, blimp_filtered, blimp_supplement or a file with the columns sentence_good, sentence_bad and UID: does a run that
predicts masked tokens find the right sentence of two the likelier one? out=FILE.parquet (or .csv, .jsonl) writes one row a pair.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from bertlab.config.registry import Job
from bertlab.config.schema import PAIRS_SCORING, Compute, FileColumns, Paths, choice, integer, mapping, string
from bertlab.contracts import join_examples
from bertlab.data.dataset import class_role, load_for, roles_for
from bertlab.data.pairs import find_pairs, read_pairs
from bertlab.data.tables.table import TableDataset, own_keys, read_rows, rows_of_columns, table_of
from bertlab.declarations import PAIRS_ACCURACY
from bertlab.errors import ConfigError, DataError, did_you_mean
from bertlab.runs.files import file_digest, write_atomically, write_text
from bertlab.runs.folder import RunFolder, find_run
from bertlab.runs.machine import threads
from bertlab.runs.outcome import Context
from bertlab.training.assembly import set_up
from bertlab.training.evaluation import score
from bertlab.training.finished import FinishedRun, load_run
from bertlab.training.pairs import Reader, Scored, pairs_name, refuse_others, result_of, score_pairs

OUT = (".parquet", ".csv", ".jsonl")


@dataclass
class Schema(FileColumns):
    """`bertlab evaluate`: score a finished run on a split of its dataset or on a file of the user's own."""

    run: str = MISSING
    split: str | None = string(None, "split to score; default: validation")
    file: str | None = string(
        None, "CSV, TSV, JSONL or Parquet file to score instead, with the run's own column names"
    )
    label_map: dict[Any, str] = mapping("raw label of the file -> the run's class that it is")
    pairs: str | None = string(
        None,
        "minimal pairs to score instead: of conf/minimal_pairs, or a file of sentence_good,"
        " sentence_bad, UID",
    )
    pairs_scoring: str = choice("token", "token", "word_l2r", help=PAIRS_SCORING)
    out: str | None = string(None, "with pairs: a .parquet, .csv or .jsonl file to write, one row a pair")
    format: str = choice("table", "table", "json", help="table for people, json for programs")
    batch_size: int = integer(256, "examples per batch", low=1)
    compute: Compute = MISSING
    paths: Paths = field(default_factory=Paths)

    def check(self, path: str) -> None:
        """One thing to score."""
        given = [
            name
            for name, value in (("split", self.split), ("file", self.file), ("pairs", self.pairs))
            if value is not None
        ]
        if len(given) > 1:
            raise ConfigError(
                f"evaluate: give either {' or '.join(given)}, not {'both' if len(given) == 2 else 'all'}"
            )
        if self.pairs is None and (self.out is not None or self.pairs_scoring != "token"):
            raise ConfigError(
                f"{'pairs_scoring' if self.out is None else 'out'} is about minimal pairs: add pairs=blimp or"
                " a file"
            )
        if self.out is not None and Path(self.out).suffix not in OUT:
            raise ConfigError(f"out={self.out}: write {', '.join(OUT)}")
        if self.pairs is not None and (others := [name for name in self.changes() if name != "encoding"]):
            raise ConfigError(
                f"{others[0]}: a file of minimal pairs has the columns sentence_good, sentence_bad and UID"
            )
        self.label_map = {str(raw): name for raw, name in self.label_map.items()}
        if self.label_map and self.file is None:
            raise ConfigError("label_map describes a file of your own: name it with file=PATH")
        self.check_file(self.file or self.pairs, self.out)


def run(config: Schema, context: Context) -> float:
    """Print the metrics; returns the primary one."""
    folder = find_run(config.run, config.paths)
    trained = load_run(folder)
    if config.pairs is not None:
        return run_pairs(config, context, trained, config.pairs)
    rows, split, left_out = rows_to_score(trained, config)
    metrics = score_rows(trained, rows, split, config.compute, config.batch_size)
    told = {
        "run": str(folder),
        "rows": len(rows),
        "left_out": sum(left_out.values()),
        "left_out_why": left_out,
        **metrics,
    }
    if config.format == "json":
        print(json.dumps(told))
    else:
        print(f"{len(rows):,} rows scored" + (f", {counted(left_out)} left out" if left_out else ""))
        print_table(metrics, split, trained)
    kept = keep(folder, split, config.file, {**told, "command": context.command})
    print(f"kept: {kept}", file=sys.stderr)
    return float(metrics[f"{split}/{trained.objective.primary.name}"])


def counted(left_out: Mapping[str, int]) -> str:
    """`1 without a text and 2 without an answer`."""
    return " and ".join(f"{count:,} {why}" for why, count in left_out.items())


def score_rows(
    trained: FinishedRun, rows: Any, split: str, compute: Compute, batch_size: int
) -> dict[str, Any]:
    """Metrics named `split/name` of a finished run on labelled rows."""
    device = trained.device(compute)
    trained.model.to(device.device)
    examples = join_examples(trained.objective.prepare(rows, trained.tokenizer))
    with threads(device.threads):
        metrics, _ = score(trained.model, trained.objective, examples, device, batch_size, split, rows)
    return metrics


def labelled_rows(
    trained: FinishedRun, columns: Mapping[str, Sequence[Any]], config: Schema, where: str
) -> tuple[Any, dict[str, int]]:
    """Columns at hand in the run's roles, and how many rows were left out, by reason. Raises DataError."""
    table = table_to_score(trained, config)
    rows, written = rows_of_columns(
        table,
        columns,
        where,
        roles_for(trained.config.dataset, trained.config.objective),
        trained.objective.label_names,
    )
    return rows, written.left_out


def table_to_score(trained: FinishedRun, config: Schema) -> TableDataset:
    """How a file is read to be scored. Raises ConfigError for labels that are mapped to what the run lacks."""
    table = table_of(trained.config.dataset, config)
    names = trained.objective.label_names
    if config.label_map and class_role(roles_for(trained.config.dataset, trained.config.objective)) is None:
        raise ConfigError("label_map: this run predicts no one class a row")
    if unknown := next((name for name in config.label_map.values() if name not in names), None):
        raise ConfigError(f"label_map: the run has no class '{unknown}', {did_you_mean(unknown, names)}")
    known = {**table.label_map, **config.label_map}
    return dataclasses.replace(table, label_map=known, drop_unlabelled=True)


def keep(folder: RunFolder, split: str, file: str | None, told: dict[str, Any]) -> Path:
    """Write a result to evaluations/ in the run's folder, under the split's name or the file's and its
    content's. Raises RunError.
    """
    name, source = split, dict[str, Any]()
    if file is not None:
        path = Path(file).expanduser()
        checksum = file_digest(path)
        name, source = f"{path.stem}-{checksum[:8]}", {"file": str(path.absolute()), "sha256": checksum}
    return folder.write_evaluation(name, {**source, **told})


def rows_to_score(trained: FinishedRun, config: Schema) -> tuple[Any, str, dict[str, int]]:
    """Rows, the name they are scored under, and how many were left out, by reason. Raises DataError where they are
    missing or without answers.
    """
    if config.file is not None:
        file = Path(config.file).expanduser()
        if not file.is_file():
            raise DataError(f"file={config.file}: no such file")
        roles = roles_for(trained.config.dataset, trained.config.objective)
        rows, written = read_rows(table_to_score(trained, config), file, roles, trained.objective.label_names)
        return rows, "file", written.left_out
    paths = trained.config.paths
    paths.mirror, paths.cache = config.paths.mirror or paths.mirror, config.paths.cache or paths.cache
    if trained.config.dataset.fingerprint(paths) != trained.identity["inputs"]["dataset"]:
        raise DataError(
            f"{trained.config.dataset.name}: its files are not those that the run was trained on, so its"
            " held-out rows may be others; score a file of your own with file=PATH"
        )
    dataset = load_for(trained.config)
    split = config.split or "validation"
    if split not in dataset.splits:
        raise DataError(
            f"split={split}: {trained.config.dataset.name} has no labelled split of that name,"
            f" {did_you_mean(split, dataset.splits)}"
        )
    return dataset.splits[split], split, {}


def print_table(metrics: dict[str, Any], split: str, trained: FinishedRun) -> None:
    """Scores, then what the objective shows beside them."""
    for name, value in metrics.items():
        if isinstance(value, int | float):
            print(f"{name:<24} {value:.4f}")
    lines = trained.objective.describe_scores(
        {name.removeprefix(f"{split}/"): value for name, value in metrics.items()}
    )
    print("\n".join(["", *lines] if lines else []), end="\n" if lines else "")


# --- minimal pairs --------------------------------------------------------------------------------
def run_pairs(config: Schema, context: Context, trained: FinishedRun, asked: str) -> float:
    """Print the accuracy and keep it beside the run; returns it."""
    refuse_others(trained.config.objective, f"pairs={asked}")
    source = find_pairs(asked, config.paths)
    with own_keys():
        pairs = read_pairs(source, trained.config.dataset.cleaner(), config.encoding or "utf-8")
    device = trained.device(config.compute)
    own = dataclasses.replace(trained.config, compute=config.compute)
    reader = Reader(own, set_up(trained.model, own, device), trained.objective, trained.tokenizer, device)
    with threads(device.threads):
        scored = score_pairs(reader, pairs, config.paths, config.pairs_scoring)
    told = result_of(source, config.pairs_scoring, scored)
    kept = trained.folder.write_evaluation(
        pairs_name(source, config.pairs_scoring), {**told, "command": context.command}
    )
    if config.out is not None:
        write_pairs(Path(config.out).expanduser(), scored)
    if config.format == "json":
        print(json.dumps({"run": str(trained.folder), **told}))
    else:
        print_pairs(told)
    print(f"kept: {kept}", file=sys.stderr)
    return float(told[PAIRS_ACCURACY.name])


def print_pairs(told: dict[str, Any]) -> None:
    """Each phenomenon, each group, the mean over phenomena, and what it took."""

    def line(name: str, of: dict[str, Any]) -> str:
        low, high = of["interval"]
        return (
            f"{name:<56} {100 * of['accuracy']:6.2f}  [{100 * low:5.2f}, {100 * high:5.2f}] "
            f" {of['pairs']:>7,}  {of['ties'] or '':>5}"
        )

    print(f"{'accuracy, %':<56} {'':>6}  {'95 % interval':<14}  {'pairs':>7}   ties")
    for name, of in told["phenomena"].items():
        print(line(name, of))
    for column, groups in told["groups"].items():
        print(f"\nby {column}, means over phenomena")
        for name, of in groups.items():
            print(line(name, of))
    whole = {
        "accuracy": told[PAIRS_ACCURACY.name],
        **{name: told[f"pairs/{name}"] for name in ("interval", "pairs", "ties")},
    }
    print(f"\n{line(PAIRS_ACCURACY.name + ', mean over phenomena', whole)}")
    if "pairs/interval_over_phenomena" in told:
        low, high = told["pairs/interval_over_phenomena"]
        print(
            "the interval is over pairs of these phenomena; were the phenomena a sample themselves:"
            f" [{100 * low:.2f}, {100 * high:.2f}]"
        )
    if told["pairs/with_unknown_tokens"]:
        print(f"{told['pairs/with_unknown_tokens']:,} pairs hold tokens that the vocabulary lacks")
    cost = told["cost"]
    speed = f", {told['pairs/pairs'] / cost['seconds']:,.0f} pairs/s" if cost["seconds"] else ""
    print(
        f"{cost['passes']:,.0f} masked copies, {cost['tokens']:,.0f} tokens read in {cost['seconds']:,.1f} s "
        f"({cost['core_seconds']:,.1f} core-seconds){speed}"
    )


def write_pairs(file: Path, scored: Scored) -> None:
    """One row a pair, in the file's order: phenomenon, groups, both sentences with nats and tokens, whether
    it is right.
    """
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    pairs = scored.pairs
    table = pyarrow.table(
        {
            "UID": pairs.phenomena, **pairs.groups, "sentence_good": pairs.good, "sentence_bad": pairs.bad,
            "good": scored.scores[:, 0], "bad": scored.scores[:, 1],
            "tokens_good": scored.tokens[:, 0], "tokens_bad": scored.tokens[:, 1], "right": scored.right,
        }
    )  # fmt: skip
    if file.suffix == ".jsonl":
        write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()))
        return
    write = pyarrow.parquet.write_table if file.suffix == ".parquet" else pyarrow.csv.write_csv
    write_atomically(file, lambda temporary: write(table, temporary))


JOB = Job(Schema, run, has_score=True)
