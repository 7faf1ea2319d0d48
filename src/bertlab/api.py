"""The same from Python, for notebooks: `run`, `load` and `sweep` give small objects with results, model and
`predict`; `runs` a table.
"""

import dataclasses
import functools
import html
import shlex
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from bertlab.config.composition import combinations, compose_schema, compose_words, read_words
from bertlab.config.explain import explain, is_explained
from bertlab.config.schema import Compute, FileColumns, Paths, Train, validate
from bertlab.config.words import apart
from bertlab.data.tables.table import OWN_KEYS
from bertlab.data.tokenizer import Tokenizer
from bertlab.declarations import Metric
from bertlab.errors import ConfigError, DataError, did_you_mean, shortened
from bertlab.jobs._vectors import vectors_of
from bertlab.jobs.evaluate import Schema as Evaluated
from bertlab.jobs.evaluate import labelled_rows, rows_to_score, score_rows
from bertlab.jobs.list import chosen_runs
from bertlab.jobs.predict import from_pairs, predict_columns, predict_rows
from bertlab.jobs.report import Schema as ReportSchema
from bertlab.jobs.report import compare_runs, write_report
from bertlab.report.pages.page import PageTable
from bertlab.runs.folder import RunFolder, find_run
from bertlab.runs.listing import row_of
from bertlab.runs.outcome import Companions, Context
from bertlab.runs.records import keep_runs
from bertlab.runs.summaries import best_possible
from bertlab.trackers.local import curves_figure
from bertlab.training.assembly import Model, check_combination
from bertlab.training.finished import FinishedRun, load_run
from bertlab.training.lifecycle import train

if TYPE_CHECKING:
    import numpy as np
    import pandas

BATCH = 256  # rows at a time, where nobody says


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run."""

    folder: Path
    summary: dict[str, Any]

    def __repr__(self) -> str:
        return f"<bertlab run {self.folder.name}: {', '.join(self._told())}>"

    def _repr_html_(self) -> str:
        """For notebooks: scores, and the curves where the run kept them."""
        import base64

        lines = "".join(f"<li>{html.escape(line)}</li>" for line in self._told())
        file = self.folder / "curves.png"
        shown = base64.b64encode(file.read_bytes()).decode() if file.is_file() else ""
        picture = (
            f'<img alt="curves" style="max-width: 46rem" src="data:image/png;base64,{shown}">'
            if shown
            else ""
        )
        return f"<b>{html.escape(self.folder.name)}</b><ul>{lines}</ul>{picture}"

    def _told(self) -> list[str]:
        """Scores by the metric that selected, and the cost."""
        name, cost = str(self.summary["selected_by"]).partition("/")[2], self.summary["cost"]
        scores = [
            f"{split}/{name} {self.metrics[f'{split}/{name}']:.4f}"
            for split in ("validation", "test")
            if f"{split}/{name}" in self.metrics
        ]
        return [
            *scores,
            f"seed {self.summary['seed']}",
            f"{cost['seconds'] / 60:.1f} min",
            f"{cost['parameters']:,} parameters",
        ]

    @property
    def metrics(self) -> dict[str, Any]:
        """Final scores named `split/name`, as fractions."""
        return dict(self.summary["metrics"])

    @functools.cached_property
    def history(self) -> "pandas.DataFrame":
        """Every record of training: step, epoch, train/loss, validation/accuracy, …"""
        import pandas

        return pandas.DataFrame(RunFolder(self.folder).history())

    @functools.cached_property
    def config(self) -> Train:
        """The typed config."""
        return RunFolder(self.folder).config()

    @functools.cached_property
    def _trained(self) -> FinishedRun:
        return load_run(RunFolder(self.folder))

    @property
    def model(self) -> Model:
        """Encoder and head with the selected weights, in evaluation mode."""
        return self._trained.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        return self._trained.tokenizer

    @overload
    def predict(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, batch_size: int = BATCH
    ) -> list[dict[str, Any]]: ...

    @overload
    def predict(
        self, texts: "pandas.DataFrame", pairs: None = None, *, batch_size: int = BATCH, **keys: Any
    ) -> "pandas.DataFrame": ...

    def predict(
        self, texts: Any, pairs: Sequence[str] | None = None, *, batch_size: int = BATCH, **keys: Any
    ) -> Any:
        """`{"text", "label", "probabilities"}` of each text; of a DataFrame with the run's column names,
        itself with `predicted_…` columns; `keys` say where its columns are called otherwise,
        `text_column="body"`, as in `bertlab predict`. `batch_size` examples are computed at a time.

        Rows of a DataFrame without a text have missing values there. Raises DataError for columns that do not
        fit.
        """
        if isinstance(texts, str):
            raise TypeError("predict takes a list of texts or a DataFrame, e.g. predict(['What a film!'])")
        _check_batch_size(batch_size, "predict")
        if _is_frame(texts):
            import pandas

            columns, _ = predict_columns(
                self._trained, _columns_of(texts), _own_keys(FileColumns, keys, "predict"), "the DataFrame",
                Compute(), batch_size,
            )  # fmt: skip
            return pandas.DataFrame(columns, index=texts.index)
        if keys:
            raise ConfigError(f"predict: {next(iter(keys))} describes a DataFrame; these are bare texts")
        texts = _texts(texts, "texts")
        second = None if pairs is None else _texts(pairs, "pairs")
        if second is not None and len(second) != len(texts):
            raise DataError(f"predict: {len(texts)} texts, but {len(second)} pairs: give one for each text")
        return predict_rows(
            self._trained, from_pairs(self._trained, texts, second, "pairs=[…]"), Compute(), batch_size
        )

    def embed(self, texts: Iterable[str]) -> "np.ndarray":
        """`(N, D) float32`: a vector of each text, in their order: the encoder's pooled output at length 1,
        so that products are cosines. Of a run of `objective=embedding` it is what pairs are scored by.

        Raises DataError for what is no text, ConfigError for a run that has trained no such output.
        """
        if isinstance(texts, str) or _is_frame(texts):
            cure = "embed(['What a film!'])" if isinstance(texts, str) else "embed(frame['text'])"
            raise TypeError(f"embed takes a list of texts, e.g. {cure}")
        import numpy as np

        trained = vectors_of(self._trained)
        rows = from_pairs(trained, _texts(texts, "texts", "embed"), None)
        return np.stack([row["vector"] for row in predict_rows(trained, rows, Compute(), BATCH)])

    def evaluate(
        self, data: "str | Path | pandas.DataFrame" = "validation", *, batch_size: int = BATCH, **keys: Any
    ) -> dict[str, Any]:
        """Scores by name on a split of the run's dataset, a file, or a DataFrame with the run's column names;
        `rows`, `left_out` and `left_out_why` (reason -> rows) beside. `keys` are those of `bertlab
        evaluate`: `label_column="stars"`, `label_map={"good": "positive"}`; `batch_size` examples are
        computed at a time.

        Raises DataError for what is neither, and for columns or labels that do not fit.
        """
        trained = self._trained
        _check_batch_size(batch_size, "evaluate")
        if _is_frame(data):
            asked = _own_keys(Evaluated, keys, "evaluate")
            rows, left_out = labelled_rows(trained, _columns_of(data), asked, "the DataFrame")
            split = "file"
        else:
            asked = _own_keys(Evaluated, keys, "evaluate")
            asked = (
                dataclasses.replace(asked, file=str(data))
                if Path(data).suffix
                else dataclasses.replace(asked, split=str(data))
            )
            asked.check("evaluate")
            rows, split, left_out = rows_to_score(trained, asked)
        scores = score_rows(trained, rows, split, Compute(), batch_size)
        return {
            "rows": len(rows),
            "left_out": sum(left_out.values()),
            "left_out_why": left_out,
            **{name.partition("/")[2]: value for name, value in scores.items()},
        }

    def plot(self) -> Any:
        """The loss and the score over training, as a matplotlib Figure that a notebook shows."""
        selected_by = str(self.summary["selected_by"])
        split, _, name = selected_by.partition("/")
        primary = Metric.from_record(name, self.summary["metric_specs"][selected_by])
        best = best_possible(self.metrics, split, primary.name)
        return curves_figure(
            RunFolder(self.folder).history(),
            primary,
            self.config.objective.loss_unit,
            self.folder.name,
            best,
            split,
        )


@dataclass(frozen=True, repr=False)
class Report:
    """A written report."""

    folder: Path
    table: "pandas.DataFrame"  # arm by arm: scores over seeds and what may be said of them

    def __repr__(self) -> str:
        return f"<bertlab report {self.folder}: {len(self.table)} arms>"

    def _repr_html_(self) -> str:
        return f"{self.table.to_html(index=False)}<p>{html.escape(str(self.folder))}/report.html</p>"


def run(overrides: Sequence[str] = ()) -> Run:
    """Train, continue or skip the run that these overrides describe. Raises UserError (ConfigError,
    DataError, RunError).
    """
    _refuse_text(overrides, "run")
    config = _explained(lambda: compose_schema("train", list(overrides)))
    outcome = train(config, Context(shlex.join(["bertlab", *overrides]), overrides))
    return Run(outcome.folder.path, outcome.summary)


def sweep(overrides: Sequence[str]) -> list[Run]:
    """Every run of a grid, as `bertlab -m` makes it, in its order; all are checked before the first begins.

    Raises UserError; ConfigError for a search too, which is the command line's: its trials are told in the
    study's trials.csv.
    """
    _refuse_text(overrides, "sweep")
    try:
        grid = (
            []
            if any(word.startswith(("search=", "hydra")) for word in overrides)
            else _explained(lambda: combinations(read_words("train", overrides)))
        )
    except ValueError as error:
        raise ConfigError(f"sweep: {error}; a search is run by `bertlab -m …`") from None
    if not grid:
        raise ConfigError(
            "sweep makes grids; a search is run by `bertlab -m search=…`, and bertlab.runs() has its runs"
        )
    configs = [_explained(lambda words=words: compose_words("train", words)) for words in grid]  # type: ignore[misc]  # a lambda's default
    for config in configs:
        check_combination(config)
    command = shlex.join(["bertlab", "-m", *overrides])
    name = f"sweep-{zlib.crc32(command.encode()):08x}"
    differs = [" ".join(f"{key}={value}" for key, value in own.items()) for own in apart(grid)]
    contexts = [
        Context(command, [str(word) for word in words], name, in_grid=True, differs=own)
        for words, own in zip(grid, differs, strict=True)
    ]
    asked, ended = list(zip(configs, contexts, strict=True)), dict[str, Any]()
    outcomes = [
        train(
            config,
            dataclasses.replace(
                context, companions=Companions(functools.partial(iter, asked[number:]), ended)
            ),
        )
        for number, (config, context) in enumerate(asked, start=1)
    ]
    return [Run(outcome.folder.path, outcome.summary) for outcome in outcomes]


def load(folder: str | Path) -> Run:
    """A finished run by its folder or id. Raises RunError."""
    place = find_run(str(folder), Paths())
    return Run(place.path, place.finished() or {})


def runs(folder: str | Path = "multirun", where: str = "", sort: str | None = None) -> "pandas.DataFrame":
    """A row a run below a folder: what it is, its scores and costs, every key of its config; `where`, `sort`
    as in `bertlab list runs`.

    Raises RunError where there is none, ConfigError for a key that no run has.
    """
    import pandas

    return pandas.DataFrame([row_of(record) for record in chosen_runs(str(folder), where, sort)])


def report(runs: str | Path = "multirun", out: str | Path = "report", **settings: Any) -> Report:
    """Compare runs, as `bertlab report` does with the same settings, and write the report to `out`. Raises
    RunError or ConfigError.
    """
    known = [item.name for item in dataclasses.fields(ReportSchema)]
    for name in settings:
        if name not in known:
            raise ConfigError(f"report: unknown setting '{name}', {did_you_mean(name, known, most=30)}")
    config = ReportSchema(runs=str(runs), out=str(out), **settings)
    validate(config)
    words = [f"runs={runs}", f"out={out}", *(f"{name}={value}" for name, value in settings.items())]
    records, studies, page = compare_runs(config)
    place = Path(config.out).expanduser()
    write_report(place, page, studies, config, shlex.join(["bertlab", "report", *words]))
    if config.keep_runs:
        keep_runs([one for one in records if one.config], place)
    import pandas

    tables = [
        block
        for block in page.blocks
        if isinstance(block, PageTable) and block.caption == "Scores over seeds"
    ]
    frames = [pandas.DataFrame(list(table.rows), columns=list(table.headers)) for table in tables]
    return Report(place, pandas.concat(frames, ignore_index=True))


def _is_frame(data: Any) -> bool:
    pandas = sys.modules.get("pandas")  # a DataFrame cannot be given where it was not imported
    return pandas is not None and isinstance(data, pandas.DataFrame)


def _check_batch_size(batch_size: int, job: str) -> None:
    if batch_size < 1:
        raise ConfigError(f"{job}: batch_size={batch_size}: must be 1 or more")


Keys = TypeVar("Keys", bound=FileColumns)


def _own_keys(kind: type[Keys], keys: Mapping[str, Any], job: str) -> Keys:
    """How a table is read. Raises ConfigError for what says nothing of that."""
    known = [name for name in OWN_KEYS if name in {item.name for item in dataclasses.fields(kind)}]
    if unknown := next((name for name in keys if name not in known), None):
        raise ConfigError(f"{job}: unknown key '{unknown}', {did_you_mean(unknown, known, most=30)}")
    return kind(**keys)


def _texts(given: Iterable[Any], name: str, job: str = "predict") -> list[str]:
    """Texts that `job` can read. Raises DataError naming the first that is none."""
    texts, labels = list(given), job == "predict"
    if not texts:
        raise DataError(f"{job}: {name} is empty; there is nothing to {'label' if labels else job}")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            is_pair = labels and isinstance(text, list | tuple)
            hint = "; second texts of pairs are given as pairs=[…]" if is_pair else ""
            raise DataError(f"{job}: {name}[{place}] is {shortened(repr(text), 60)}, no text{hint}")
        if not text.strip():
            kept = ", or give a DataFrame, whose rows stay" if labels else ""
            raise DataError(f"{job}: {name}[{place}] is empty; leave it out{kept}")
    return texts


def _columns_of(frame: Any) -> dict[str, list[Any]]:
    """Columns by name, missing values as None. Raises DataError for two of one name."""
    names = [str(name) for name in frame.columns]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"the DataFrame has two columns called '{twice}'; rename or drop one")
    return {
        str(name): [None if _is_missing(cell) else cell for cell in frame[name].tolist()]
        for name in frame.columns
    }


def _is_missing(cell: Any) -> bool:
    import pandas

    return bool(pandas.api.types.is_scalar(cell) and pandas.isna(cell))


def _refuse_text(overrides: Any, name: str) -> None:
    if isinstance(overrides, str):
        raise TypeError(f"{name} takes a list of overrides, e.g. {name}(['experiment=bertsst2', 'seed=1'])")


def _explained(compose: Callable[[], Any]) -> Any:
    """What `compose` gives; Hydra's errors in our words."""
    try:
        return compose()
    except Exception as error:
        if isinstance(error, ConfigError) or not is_explained(error):
            raise
        raise ConfigError(explain(error)) from error
