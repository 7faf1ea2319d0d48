"""Runs as a report reads them, wherever they lie: in folders of their own, or together in the compact tables
beside a report.

Each says what it is, what it scored, and what is wrong with it. Nothing is dropped without a word.

Kept beside a report are `runs.parquet`, one row a run (its files as JSON text), and `predictions.parquet`, a
row a prediction with numbers in float32; both zstd-compressed.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from bertlab.config.schema import Train
from bertlab.config.words import zipped
from bertlab.declarations import SCORED_SPLITS, Metric
from bertlab.errors import RunError, redact
from bertlab.runs.configs import config_of
from bertlab.runs.files import read_json, write_atomically
from bertlab.runs.folder import RunFolder
from bertlab.runs.progress import each

NO_RUNS = ("checkpoints", "predictions", "encoder", "sweeps")  # folders within which no run is looked for
KEPT, KEPT_PREDICTIONS = "runs.parquet", "predictions.parquet"
COLUMNS = ("config", "summary", "environment", "identity", "labels", "history")  # of a kept run, as JSON text
VERIFIED = 1 << 23  # bytes; larger files, weights most of all, no report reads
EARLIER = (
    "made by an earlier version: its summary.json does not say what its scores mean (metric_specs); run its"
    " command again"
)


class Source(Protocol):
    """Where a run's longer parts lie."""

    def history(self) -> list[dict[str, Any]]:
        """Records of training."""
        ...

    def predictions(self, split: str) -> list[dict[str, Any]] | None:
        """Rows of a split; None where they were not kept."""
        ...


@dataclass
class RunRecord:
    """One run."""

    name: str  # its folder's, DATASET-OBJECTIVE-ID
    where: str
    source: Source
    tree: dict[str, Any] = field(default_factory=dict)  # config.yaml as it stands
    config: dict[str, Any] = field(default_factory=dict)  # dotted key -> value
    summary: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    problem: str = ""  # why it cannot be counted; empty for a finished run

    @property
    def seed(self) -> int:
        """Of the run itself, not of its pretraining."""
        return int(self.config.get("seed", 0))

    @property
    def code(self) -> dict[str, str]:
        """Module -> version, of what decides the result."""
        return dict(self.identity.get("code", {}))

    @property
    def machine(self) -> str:
        """The device that computed, by its model name."""
        on_cuda = self.identity.get("numerics", {}).get("device") == "cuda"
        return str(
            (self.environment.get("cuda") if on_cuda else None) or self.environment.get("processor", "–")
        )

    @property
    def primary(self) -> str:
        """The metric that selected its checkpoint."""
        return str(self.summary["selected_by"]).split("/", 1)[1]

    @property
    def selects_by(self) -> str:
        """The split that selected its checkpoint, scored during training."""
        return str(self.summary["selected_by"]).partition("/")[0]

    @property
    def classes(self) -> str | None:
        """The role of whose classes its predictions hold the probabilities, as its objective declared; None
        where of none. A run of before objectives declared it predicted classes where it answered one label.
        """
        if "classes" in self.summary:
            told: str | None = self.summary["classes"]
            return told
        answers = self.summary.get("answers", {})
        return next(iter(answers)) if list(answers.values()) == ["label"] else None

    @property
    def stage(self) -> str | None:
        """The folder name of the pretraining it began from."""
        stage = self.summary.get("stage")
        return str(stage["run"]) if stage else None

    def metrics(self, split: str = "validation") -> list[Metric]:
        """What its scores on a split mean, by its own record; then those of no split, by their full names
        (`pairs/accuracy`).
        """
        specs = self.summary["metric_specs"]
        own = [(name.partition("/")[2], spec) for name, spec in specs.items() if name.startswith(f"{split}/")]
        others = [(name, spec) for name, spec in specs.items() if name.partition("/")[0] not in SCORED_SPLITS]
        return [Metric.from_record(name, spec) for name, spec in own + others]

    def score(self, split: str, metric: str) -> float | None:
        """One of its final scores."""
        value = self.summary.get("metrics", {}).get(self.recorded_as(split, metric))
        return float(value) if isinstance(value, int | float) else None

    def recorded_as(self, split: str, metric: str) -> str:
        """The full name of a score in summary and history; one of no split is not told for test, which it is
        not of.
        """
        is_of_none = split != "test" and metric in self.summary.get("metric_specs", {})
        return metric if is_of_none else f"{split}/{metric}"

    @cached_property
    def typed_config(self) -> Train:
        """Raises RunError where it does not fit this version."""
        return config_of(self.tree, f"{self.where}/config.yaml")

    def check(self) -> None:
        """Set `problem` for what cannot be counted."""
        if not isinstance(self.tree, dict) or "seed" not in self.tree:
            self.problem = "damaged: not a run's config"
            return
        self.config = flatten(self.tree)
        status, error = self.summary.get("status"), str(self.summary.get("error", ""))
        if not isinstance(status, str):
            self.problem = "damaged: summary.json lacks its status"
        elif status != "finished":
            self.problem = f"{status}{f': {error}' if error else ''}"
        elif not isinstance(self.summary.get("metrics"), dict) or not isinstance(
            self.summary.get("selected_by"), str
        ):
            self.problem, self.summary = "damaged: summary.json lacks its metrics", {}
        elif "metric_specs" not in self.summary:
            self.problem = EARLIER
        elif any(
            isinstance(value, float) and not abs(value) < float("inf")
            for value in self.summary["metrics"].values()
        ):
            self.problem = "damaged: a score is not a finite number"
        else:
            try:
                known = {metric.name for metric in self.metrics()}
                if self.primary not in known:
                    self.problem = f"damaged: metric_specs lacks {self.summary['selected_by']}"
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                self.problem = f"damaged: metric_specs ({type(error).__name__}: {error})"


def find_runs(paths: Sequence[str]) -> list[RunRecord]:
    """The runs at or below the given places, by name; a kept one once, and not where its own folder,
    finished, is there too.

    Raises RunError where a path does not exist or holds none.
    """
    records: dict[Path, list[RunRecord]] = {}
    for given in paths:
        root = Path(given).expanduser()
        if not root.exists():
            raise RunError(f"runs={given}: no such folder")
        places = [root] if root.name == KEPT else list(_places(root, depth=4)) if root.is_dir() else []
        if not places:
            raise RunError(
                f"runs={given}: no run folder there or below (a run folder has a config.yaml), and no {KEPT}"
            )
        for place in each(places, f"reading {given}", unit="runs"):
            if place.resolve() not in records:
                records[place.resolve()] = (
                    read_kept(place) if place.name == KEPT else [read_run(RunFolder(place))]
                )
    every = [run for runs in records.values() for run in runs]
    finished: dict[str, RunRecord] = {}
    for run in sorted(
        (one for one in every if not one.problem), key=lambda one: isinstance(one.source, Kept)
    ):
        finished.setdefault(run.name, run)
    newest = [run for run in every if not isinstance(run.source, Kept) or finished.get(run.name, run) is run]
    return sorted(newest, key=lambda run: (run.name, run.seed))


def _places(root: Path, depth: int) -> Iterable[Path]:
    """Run folders, and files of kept runs."""
    if (root / "config.yaml").is_file() or (root / "summary.json").is_file():
        yield root
        return
    if (root / KEPT).is_file():
        yield root / KEPT
    for place in sorted(root.iterdir()) if depth else ():
        if place.is_dir() and not place.name.startswith(".") and place.name not in NO_RUNS:
            yield from _places(place, depth - 1)


def read_run(folder: RunFolder) -> RunRecord:
    """A run folder; what is missing or damaged becomes its `problem`."""
    run = RunRecord(folder.name, str(folder), folder)
    try:
        run.tree = folder.tree()
        run.summary = _json(folder.own("summary.json"), {"status": "unfinished"})
        run.environment = _json(folder.own("environment.json"), {})
        run.identity = _json(folder.own("identity.json"), {})
        run.labels = folder.labels() if (folder.path / "labels.json").is_file() else []
        run.check()
        if not run.problem:
            folder.verify(VERIFIED)
    except (OSError, ValueError, RecursionError, RunError) as error:
        run.problem = f"damaged: {(str(error).splitlines() or [''])[0].removeprefix(f'{folder}/')}"
    return run


def _json(file: Path, absent: dict[str, Any]) -> dict[str, Any]:
    if not file.is_file():
        return absent
    content = read_json(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} is not an object")
    return content


def one_run_command(run: RunRecord) -> str:
    """The command that makes this run alone; of runs that did not record their own words, a sweep's with this
    run's values of what was swept.
    """
    words = shlex.split(str(run.summary["command"]))[1:]
    if own := run.summary.get("words"):
        presets = [
            part
            for word, following in zip(words, [*words[1:], ""], strict=True)
            for part in ([word, following] if word in ("--config-dir", "-cd") else [word])
            if word.partition("=")[0] in ("--config-dir", "-cd")
        ]
        asked = [word for word in own if word.partition("=")[0] != "search"]
        return shlex.join(["bertlab", *presets, *asked])
    single = []
    for word in [
        part for given in words for part in (map(str, zipped(given)) if given.startswith("zip(") else [given])
    ]:
        key, equals, value = word.partition("=")
        if word in ("-m", "--multirun") or key.startswith("hydra"):
            continue
        swept = equals and ("," in value or "(" in value) and not value.startswith(("[", "{", "'", '"'))
        if swept:
            name = key.lstrip("+")
            own = next((own for own in (f"{name}.component", name) if own in run.config), None)
            if own is not None:
                word = f"{key}={'null' if run.config[own] is None else run.config[own]}"
        single.append(word)
    return shlex.join(["bertlab", *single])


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


# --- kept beside a report -------------------------------------------------------------------------
@dataclass
class Kept:
    """A kept run's longer parts, parsed when asked for."""

    lines: str  # of its history, JSON
    predicted: dict[str, Path]  # split -> the table that holds its predictions
    name: str

    def history(self) -> list[dict[str, Any]]:
        """Records of training."""
        return list(json.loads(self.lines))

    def predictions(self, split: str) -> list[dict[str, Any]] | None:
        """Rows of a split."""
        import pyarrow.parquet

        file = self.predicted.get(split)
        if file is None or not file.is_file():
            return None
        table = pyarrow.parquet.read_table(file, filters=[("run", "=", self.name), ("split", "=", split)])
        if not len(table):
            return None
        return [_without_none(row) for row in table.drop_columns(["run", "split"]).to_pylist()]


def _without_none(value: Any) -> Any:
    """A row's own keys: those of other runs in the same table are null."""
    return (
        {key: _without_none(item) for key, item in value.items() if item is not None}
        if isinstance(value, dict)
        else value
    )


def without_answers(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary but for the data's own words: answers of rows that contradict each other."""
    if "rows" not in summary:
        return summary
    rows = {
        split: {key: value for key, value in counted.items() if key != "conflicts"}
        for split, counted in summary["rows"].items()
    }
    return {**summary, "rows": rows}


def keep_runs(runs: Iterable[RunRecord], folder: Path) -> None:
    """Write what a report reads of these runs to `folder`, weights and the machine's folders left out."""
    import pyarrow
    import pyarrow.parquet

    rows: list[dict[str, str]] = []
    tables = []
    for run in runs:
        parts = (
            without_paths(run.tree),
            without_answers(run.summary),
            run.environment,
            run.identity,
            run.labels,
            run.source.history(),
        )
        told = {
            name: redact(json.dumps(part, ensure_ascii=False))
            for name, part in zip(COLUMNS, parts, strict=True)
        }
        rows.append({"run": run.name, **told})
        for split in ("validation", "test"):
            if predicted := run.source.predictions(split):
                own = [
                    {
                        "run": run.name,
                        "split": split,
                        **{key: value for key, value in row.items() if key != "index"},
                    }
                    for row in predicted
                ]
                tables.append(_narrowed(pyarrow.Table.from_pylist(own)))
    names = ["run", *COLUMNS]
    options: dict[str, Any] = {"compression": "zstd", "compression_level": 19}
    write_atomically(
        folder / KEPT,
        lambda file: pyarrow.parquet.write_table(
            pyarrow.table({name: [row[name] for row in rows] for name in names}), file, **options
        ),
    )
    if tables:
        joined = pyarrow.concat_tables(tables, promote_options="permissive").combine_chunks()
        options |= {"row_group_size": 200_000, **_encodings(joined)}
        write_atomically(
            folder / KEPT_PREDICTIONS, lambda file: pyarrow.parquet.write_table(joined, file, **options)
        )


def _encodings(table: Any) -> dict[str, Any]:
    """What compresses best: numbers of which most differ as streams of bytes, all else by its distinct
    values.
    """
    import pyarrow

    leaves = [leaf for name in table.column_names for leaf in _leaves(name, table[name].combine_chunks())]
    scattered = {
        path
        for path, values in leaves
        if pyarrow.types.is_floating(values.type) and 2 * len(values.unique()) > len(values)
    }
    return {
        "use_dictionary": [path for path, _ in leaves if path not in scattered],
        "use_byte_stream_split": sorted(scattered) or False,
    }


def _leaves(path: str, values: Any) -> Iterator[tuple[str, Any]]:
    """The columns that Parquet stores for one column, under its names for them."""
    import pyarrow

    if pyarrow.types.is_struct(values.type):
        for place in range(values.type.num_fields):
            yield from _leaves(f"{path}.{values.type.field(place).name}", values.field(place))
    elif pyarrow.types.is_list(values.type):
        yield from _leaves(f"{path}.list.element", values.flatten())
    else:
        yield path, values


def _narrowed(table: Any) -> Any:
    """Numbers in half the bytes."""
    import pyarrow

    def narrow(kind: Any) -> Any:
        if pyarrow.types.is_float64(kind):
            return pyarrow.float32()
        if pyarrow.types.is_struct(kind):
            return pyarrow.struct(
                [(kind.field(place).name, narrow(kind.field(place).type)) for place in range(kind.num_fields)]
            )
        return pyarrow.list_(narrow(kind.value_type)) if pyarrow.types.is_list(kind) else kind

    return table.cast(pyarrow.schema([(one.name, narrow(one.type)) for one in table.schema]))


def without_paths(tree: dict[str, Any]) -> dict[str, Any]:
    """A config as it was recorded, without the folders of the machine that it ran on."""
    return (
        {**tree, "paths": {"output": "multirun", "mirror": None, "cache": None}} if "paths" in tree else tree
    )


def read_kept(file: Path) -> list[RunRecord]:
    """The runs of a `runs.parquet`. Raises RunError where it is damaged."""
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
        return [_record(row, file) for row in rows]
    except (OSError, pyarrow.ArrowException, KeyError, ValueError, TypeError, RecursionError) as error:
        raise RunError(
            f"{file}: damaged ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
        ) from error


def _record(row: dict[str, str], file: Path) -> RunRecord:
    predicted = {split: file.with_name(KEPT_PREDICTIONS) for split in ("validation", "test")}
    tree, summary, environment, identity, labels = (json.loads(row[name]) for name in COLUMNS[:-1])
    if not all(isinstance(part, dict) for part in (tree, summary, environment, identity)) or not isinstance(
        labels, list
    ):
        raise ValueError("a part of a run is no object with named fields")
    run = RunRecord(
        row["run"],
        str(file.parent),
        Kept(row["history"], predicted, row["run"]),
        tree,
        {},
        summary,
        environment,
        identity,
        labels,
    )
    run.check()
    return run
