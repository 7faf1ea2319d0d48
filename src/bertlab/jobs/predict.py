"""`bertlab predict`: label texts with a finished run

usage: bertlab predict run=FOLDER [text="…" [text_pair="…"] | file=PATH] [out=PATH | format=table|jsonl] [vectors=true]

Label texts with a finished run. Without text or file, lines are read from standard input. A .txt file holds one text a line;
other files have the run's column names, or text_column=… text_pair_column=… encoding=….
jsonl: one object a line, what was read and what is said of it: {"text", "label", "probabilities"}, or a number, a set of labels, tags, the
number of a choice, an answer and where it stands. What reads more than texts (choices, questions and contexts) takes a file.

  file=reviews.csv out=labelled.csv     every row and column of the file in its order, what is predicted beside them (.csv .tsv .jsonl
                                        .parquet); rows without a text stay, unlabelled, and are counted
                                        a CSV keeps the delimiter and the byte-order mark of the file; written in UTF-8
  vectors=true                          a vector of each text instead, the encoder's pooled output at length 1: of objective=embedding what
                                        it is scored by, of others with model.pooling=mean or max, or a head on pooled output, the same.
                                        A list of float32 in .parquet, as JSON in the others; text_column=… takes another column's texts
  id_column=ticket                      shown before each prediction that is printed; out keeps every column anyway
  batch_size=64                         for little memory
  compute.precision=bfloat16            faster where training was in it; float32 otherwise, as an exported folder computes
"""

import codecs
import io
import itertools
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from bertlab.config import registry
from bertlab.config.registry import Job
from bertlab.config.schema import Compute, FileColumns, Paths, choice, flag, integer, string
from bertlab.contracts import join_examples
from bertlab.data.dataset import roles_for
from bertlab.data.tables.formats import kind_of, open_table, read_whole
from bertlab.data.tables.rows import first_line
from bertlab.data.tables.table import (
    TableDataset,
    from_texts,
    own_keys,
    read_rows,
    rows_of_columns,
    table_of,
    warn,
)
from bertlab.data.tables.text_files import has_mark, read_lines
from bertlab.declarations import Column, Role, plain_text
from bertlab.errors import ConfigError, DataError, did_you_mean
from bertlab.jobs._vectors import vectors_of
from bertlab.runs.files import write_atomically, write_csv
from bertlab.runs.folder import find_run
from bertlab.runs.machine import threads
from bertlab.runs.outcome import Context
from bertlab.runs.progress import working
from bertlab.training.evaluation import measure
from bertlab.training.finished import FinishedRun, load_run

PRECISION = "float32"  # unless another is asked for: an exported model's, so that both say the same
PREFIX = "predicted_"
BARE = ("text", "text_pair", "tokens")  # roles that bare texts can stand for


@dataclass
class Schema(FileColumns):
    """`bertlab predict`: label texts with a finished run."""

    run: str = MISSING
    text: str | None = string(None, "one text to label")
    text_pair: str | None = string(None, "its second text, for models of text pairs")
    file: str | None = string(
        None,
        "file of texts, one a line (.txt) or with the run's column names; '-' or neither = standard input",
    )
    out: str | None = string(
        None,
        "file for the input's rows and columns with the predictions beside them: .csv, .tsv, .jsonl or"
        " .parquet",
    )
    vectors: bool = flag(False, "a vector of each text instead of what the run's objective says of it")
    prefix: str = string(PREFIX, "what the names of the columns begin with that are added to out")
    id_column: str | None = string(
        None, "the file's column that names its rows, shown beside each prediction"
    )
    format: str = choice(
        "table", "table", "jsonl", help="what is printed without out: table for people, jsonl for programs"
    )
    batch_size: int = integer(256, "examples per batch", low=1)
    compute: Compute = MISSING
    paths: Paths = field(default_factory=Paths)

    def check(self, path: str) -> None:
        """One source of texts, and something in it."""
        if self.text is not None and self.file is not None:
            raise ConfigError("predict: give either text or file, not both")
        if self.text_pair is not None and self.text is None:
            raise ConfigError("predict: text_pair is the second text of a pair; give text too")
        if self.vectors and self.text_pair is not None:
            raise ConfigError("predict: vectors=true reads single texts: leave text_pair out")
        for name, value in (("text", self.text), ("text_pair", self.text_pair)):
            if value is not None and not value.strip():
                raise ConfigError(f"predict: {name} is empty; there is nothing to label")
        self.check_file(self.file, self.out)
        if self.id_column is not None and self.file in (None, "-"):
            raise ConfigError("predict: id_column names a column of a file: name it with file=PATH")
        idle = {
            "format is about what is printed without out, which writes by its ending": self.format != "table",
            "id_column is about what is printed without out, which keeps every column": self.id_column,
        }
        if self.out is not None and (why := next((why for why, given in idle.items() if given), None)):
            raise ConfigError(f"predict: {why}: leave one of them out")
        if self.out is None and self.prefix != PREFIX:
            raise ConfigError("predict: prefix begins the names of columns in a file: add out=PATH")
        if self.out is not None and (ending := Path(self.out).suffix) not in OUTPUTS:
            raise ConfigError(
                f"predict: out={self.out}: {f'unknown ending {ending}' if ending else 'no ending'}; write"
                f" {', '.join(OUTPUTS)}"
            )


def run(config: Schema, _context: Context) -> None:
    """Print one row a text, or write the table."""
    trained = load_run(find_run(config.run, config.paths))
    trained = vectors_of(trained) if config.vectors else trained
    if config.out is not None:
        label_table(trained, config, Path(config.out).expanduser())
        return
    source, ids = source_of(trained, config), ids_of(trained, config)
    rows, given = source.rows, given_roles(source.rows)
    if ids is not None:
        ids = [ids[place] for place in source.places]
    if left_out := source.total - len(source.places):
        print(f"{left_out:,} without a text left out", file=sys.stderr)
    for place, row in enumerate(predict_rows(trained, rows, config.compute, config.batch_size)):
        if config.format == "jsonl":
            print(
                json.dumps(
                    {**({} if ids is None else {config.id_column: ids[place]}), **row},
                    ensure_ascii=False,
                    default=_as_json,
                )
            )
        else:
            read = {name: row[name] for name in given}
            line = trained.objective.describe(
                read, {name: value for name, value in row.items() if name not in given}
            )
            print(line if ids is None else f"{ids[place]}  {line}")
    tell_precision(trained, config.compute)


def ids_of(trained: FinishedRun, config: Schema) -> list[Any] | None:
    """What the file calls its rows; None where nobody asks. Raises DataError for a column that is
    not there.
    """
    if config.id_column is None or config.file is None:
        return None
    with own_keys():
        columns = read_whole(
            table_of(trained.config.dataset, config), Path(config.file).expanduser(), lambda _: None
        )
    if config.id_column not in columns:
        raise DataError(
            f"{config.file}: no column '{config.id_column}' (id_column),"
            f" {did_you_mean(config.id_column, columns)}"
        )
    return columns[config.id_column]


def label_table(trained: FinishedRun, config: Schema, out: Path) -> None:
    """Write every row and column that was given, and the predictions beside them; tell how many there are."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"out={out}: cannot be written ({error.strerror or error})") from error
    own, where = table_of(trained.config.dataset, config), str(config.file or "standard input")
    if is_of_texts(config):
        source = source_of(trained, config)
        names = [name for name in (own.text_column, own.text_pair_column) if name is not None]
        columns = dict(zip(names, source.given, strict=False))
        table, left_out = with_predictions(
            trained, columns, source, where, config.compute, config.batch_size, config.prefix
        )
    else:
        file = existing(config)
        with own_keys():
            columns = read_whole(own, file, warn)
        table, left_out = predict_columns(
            trained, columns, config, where, config.compute, config.batch_size, config.prefix
        )
    form = form_of(trained, config, out)
    write_atomically(out, lambda place: OUTPUTS[out.suffix](table, place, form))
    total = len(next(iter(table.values())))
    done = f"with a vector of {trained.model.encoder.hidden_size:,} numbers" if config.vectors else "labelled"
    print(
        f"{total - left_out:,} rows {done}"
        + (f", {left_out:,} without a text left as they are" if left_out else "")
        + f": {out}"
    )
    tell_precision(trained, config.compute)


def tell_precision(trained: FinishedRun, compute: Compute) -> None:
    """Beside what is asked for: in which precision was computed, where training's was another."""
    used = trained.device(compute, PRECISION).precision
    if used != trained.precision:
        print(
            f"predicted in {used}, as an exported folder computes; the run was trained and scored in"
            f" {trained.precision} (compute.precision={trained.precision} predicts in it)",
            file=sys.stderr,
        )


@dataclass(frozen=True)
class CsvForm:
    """How a CSV is written."""

    delimiter: str
    marked: bool = False  # begins with a byte-order mark
    # column -> a value as plain text, for those that a kind writes in its own way
    as_text: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)


def form_of(trained: FinishedRun, config: Schema, out: Path) -> CsvForm:
    """That of the file which was read, where it is of the same kind."""
    table = table_of(trained.config.dataset, config)
    roles = roles_for(trained.config.dataset, trained.config.objective)
    form = CsvForm("\t" if out.suffix == ".tsv" else ",", as_text=as_texts(roles, table, config.prefix))
    if is_of_texts(config):
        return form
    file = existing(config)
    read = open_table(table, file, lambda _: None)
    if read.delimiter is None:
        return form
    delimiter = read.delimiter if kind_of(file) == out.suffix else form.delimiter
    return replace(form, delimiter=delimiter, marked=has_mark(file))


def as_texts(roles: Sequence[Role], table: TableDataset, prefix: str) -> dict[str, Callable[[Any], Any]]:
    """How the columns of a run's roles, and what is predicted of those that are answers, stand in plain
    text.
    """
    found: dict[str, Callable[[Any], Any]] = {}
    for role in roles:
        column = table.column_of(role.name)
        if column is not None:
            about = Column("", column, table.key_of_column(column), table)
            found[column] = registry.load_kind(role.kind)(about).as_text
            if role.is_answer:
                found[f"{prefix}{role.name}"] = found[column]
    return found


def predict_columns(
    trained: FinishedRun, columns: Mapping[str, Sequence[Any]], own: FileColumns, where: str,
    compute: Compute, batch_size: int,
    prefix: str = PREFIX,
) -> tuple[dict[str, list[Any]], int]:  # fmt: skip
    """The given columns with the predictions as further ones, and how many rows had nothing to label. Raises
    DataError.
    """
    table = table_of(trained.config.dataset, own)
    rows, written = rows_of_columns(table, columns, where, roles_read(trained), ())
    source = Source(rows, (written.rows - 1).tolist(), written.read)
    return with_predictions(trained, columns, source, where, compute, batch_size, prefix)


def with_predictions(
    trained: FinishedRun, columns: Mapping[str, Sequence[Any]], source: "Source", where: str,
    compute: Compute, batch_size: int, prefix: str,
) -> tuple[dict[str, list[Any]], int]:  # fmt: skip
    """The same of rows that were read."""
    rows, total, given = source.rows, source.total, given_roles(source.rows)
    predicted: dict[str, list[Any]] = {}
    for place, row in zip(source.places, predict_rows(trained, rows, compute, batch_size), strict=True):
        for name, value in flat(
            {key: value for key, value in row.items() if key not in given}, prefix
        ).items():
            predicted.setdefault(name, [None] * total)[place] = value
    if taken := next((name for name in predicted if name in columns), None):
        raise DataError(
            f"{where}: it has a column '{taken}' already; give the new ones another prefix, e.g."
            " prefix=second_"
        )
    return {**{name: list(cells) for name, cells in columns.items()}, **predicted}, total - len(rows)


def flat(prediction: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """A prediction as columns: `predicted_label`, `predicted_probabilities_positive`."""
    flattened: dict[str, Any] = {}
    for name, value in prediction.items():
        flattened |= (
            flat(value, f"{prefix}{name}_") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        )
    return flattened


def _listed(cell: Any) -> Any:
    """A vector as a list, each number with as many digits as tell it from its neighbours; else the cell."""
    return [float(str(value)) for value in cell] if isinstance(cell, np.ndarray) else cell


def _as_json(cell: Any) -> Any:
    """What JSON has no word for: a vector as a list, other things as their text."""
    return _listed(cell) if isinstance(cell, np.ndarray) else str(cell)


def _write_delimited(table: Mapping[str, Sequence[Any]], file: Path, form: CsvForm) -> None:
    with file.open("w", encoding="utf-8-sig" if form.marked else "utf-8", newline="") as stream:
        write = [form.as_text.get(name, plain_text) for name in table]
        lines = (
            [as_text(_listed(cell)) for as_text, cell in zip(write, cells, strict=True)]
            for cells in zip(*table.values(), strict=True)
        )
        write_csv(stream, itertools.chain([list(table)], lines), form.delimiter)


def _write_jsonl(table: Mapping[str, Sequence[Any]], file: Path, _form: CsvForm) -> None:
    with file.open("w", encoding="utf-8") as stream:
        for cells in zip(*table.values(), strict=True):
            stream.write(
                json.dumps(dict(zip(table, cells, strict=True)), ensure_ascii=False, default=_as_json) + "\n"
            )


def _write_parquet(table: Mapping[str, Sequence[Any]], file: Path, _form: CsvForm) -> None:
    import pyarrow
    import pyarrow.parquet

    arrays = {}
    for name, cells in table.items():
        try:
            arrays[name] = pyarrow.array(cells)
        except (pyarrow.ArrowException, TypeError) as error:
            raise DataError(
                f"out: column '{name}' holds several kinds of value, which Parquet cannot ({first_line(error)});"
                " write .jsonl or .csv"
            ) from None
    pyarrow.parquet.write_table(pyarrow.table(arrays), file)


OUTPUTS: dict[str, Callable[[Mapping[str, Sequence[Any]], Path, CsvForm], None]] = {
    ".csv": _write_delimited, ".tsv": _write_delimited, ".jsonl": _write_jsonl, ".parquet": _write_parquet,
}  # fmt: skip


def predict_rows(trained: FinishedRun, rows: Any, compute: Compute, batch_size: int) -> list[dict[str, Any]]:
    """What was read of each row, and what the objective says of it, e.g. `{"text", "label",
    "probabilities"}`, in order.
    """
    if not trained.config.objective.predicts:
        raise ConfigError(
            f"{trained.folder}: objective={trained.config.objective.name} pretrains and has no labels to"
            f" give; `bertlab evaluate` scores it, init=checkpoint init.path={trained.folder} fine-tunes it,"
            " vectors=true gives vectors of texts"
        )
    device = trained.device(compute, PRECISION)
    trained.model.to(device.device)
    with working("tokenising"):
        examples = join_examples(trained.objective.prepare(rows, trained.tokenizer))
    with threads(device.threads):
        measured = measure(
            trained.model, trained.objective, examples, device, batch_size, label="predictions"
        )
    columns = {name: rows[name][:] for name in given_roles(rows)}
    predictions = trained.objective.predictions(measured, rows)
    return [
        {**{name: cells[index] for name, cells in columns.items()}, **row}
        for index, row in enumerate(predictions)
    ]


def given_roles(rows: Any) -> list[str]:
    """What is printed beside a prediction: the row as it was read."""
    return list(rows.column_names)


@dataclass(frozen=True)
class Source:
    """What is to be labelled."""

    rows: Any  # datasets.Dataset of those that have a text, in the run's roles
    places: list[int]  # of each among all that was given, from 0
    total: int  # rows or lines that were given
    given: tuple[list[str], ...] = ()  # of bare texts: all of them, empty ones too; and their second texts


def is_of_texts(config: Schema) -> bool:
    """Whether bare texts are given, and no table."""
    return config.file in (None, "-") or kind_of(Path(str(config.file))) == ".txt"


def existing(config: Schema) -> Path:
    """The file that is asked for. Raises DataError where there is none."""
    file = Path(str(config.file)).expanduser()
    if not file.is_file():
        raise DataError(f"file={config.file}: no such file")
    return file


def roles_read(trained: FinishedRun) -> list[Role]:
    """What a run reads to predict."""
    roles = roles_for(trained.config.dataset, trained.config.objective)
    return [role for role in roles if not role.is_answer]


def source_of(trained: FinishedRun, config: Schema) -> Source:
    """Texts from the command line, a file or standard input. Raises DataError where there are none."""
    if config.text is not None:
        pairs = None if config.text_pair is None else [config.text_pair]
        given = ([config.text],) if pairs is None else ([config.text], pairs)
        return Source(from_pairs(trained, [config.text], pairs), [0], 1, given)
    table = table_of(trained.config.dataset, config)
    if not is_of_texts(config):
        rows, written = read_rows(table, existing(config), roles_read(trained), ())
        return Source(rows, (written.rows - 1).tolist(), written.read)
    if config.file not in (None, "-"):
        with own_keys():
            lines = _lines_of(existing(config), table.encoding)
    elif sys.stdin is None or sys.stdin.isatty():
        raise ConfigError('predict: nothing to label; give text="…", file=PATH, or pipe lines into it')
    else:
        lines = _lines_read(_read_standard_input())
    places = [place for place, line in enumerate(lines) if line.strip()]
    return Source(from_pairs(trained, [lines[place] for place in places], None), places, len(lines), (lines,))


def from_pairs(
    trained: FinishedRun, texts: Sequence[str], pairs: Sequence[str] | None, word: str = "text_pair"
) -> Any:
    """Rows of bare texts, cleaned as the run's dataset was. Raises DataError where a second text is missing
    or too much; `word` gives it.
    """
    read = [role.name for role in roles_read(trained)]
    if unfit := [name for name in read if name not in BARE]:
        raise DataError(f"this run reads {', '.join(unfit)} too: give a file with such columns")
    wants_pair = "text_pair" in read
    if wants_pair and pairs is None:
        raise DataError(
            f"this run labels pairs of texts: give {word} too, or a table with both columns; or take"
            " vectors=true, embed(texts) in Python, for a vector of each text"
        )
    if pairs is not None and not wants_pair:
        raise DataError(f"this run labels single texts: leave {word.partition('=')[0]} out")
    return from_texts(trained.config.dataset.cleaner(), texts, pairs)


def _read_standard_input() -> bytes:
    """What is piped in, as bytes: how the locale would decode it must not matter."""
    return (
        sys.stdin.buffer.read()
        if isinstance(sys.stdin, io.TextIOWrapper)
        else sys.stdin.read().encode("utf-8")
    )


def _lines_of(file: Path, encoding: str) -> list[str]:
    """Lines of a file, one of which at least holds something."""
    lines = [line.rstrip("\r\n") for line in read_lines(file, encoding)]
    if not any(map(str.strip, lines)):
        raise DataError(f"{file}: there is no text in it")
    return lines


def _lines_read(content: bytes) -> list[str]:
    """The same of standard input, which is UTF-8. Only line ends separate: a text may hold a form feed or U+2028, at which
    `splitlines` breaks.
    """
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"standard input: line {number} is not UTF-8; convert it, or give file=PATH encoding=…"
        ) from None
    lines = re.split(r"\r\n|\r|\n", text)
    lines = lines[:-1] if lines[-1] == "" else lines  # what follows the last line's end is no line
    if not any(map(str.strip, lines)):
        raise DataError("standard input: there is no text in it")
    return lines


JOB = Job(Schema, run)
