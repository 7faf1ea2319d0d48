"""`bertlab predict`: label texts with a finished run

usage: bertlab predict run=FOLDER [text="…" [text_pair="…"] | file=PATH] [format=table|jsonl]

Label texts with a finished run. Without text or file, lines are read from standard input. A .txt file holds one text a line;
other files have the run's column names, or text_column=… text_pair_column=… encoding=….
jsonl: one object a line, what was read and what is said of it: {"text", "label", "probabilities"}, or a number, a set of labels, tags, the
number of a choice, an answer and where it stands. What reads more than texts (choices, questions and contexts) takes a file.
"""

import codecs
import io
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from bertlab.config.registry import Job
from bertlab.config.schema import Compute, FileColumns, Paths, choice, integer, string
from bertlab.contracts import join_examples
from bertlab.data.dataset import roles_for
from bertlab.data.table import from_texts, read_rows, table_of
from bertlab.errors import ConfigError, DataError
from bertlab.runs.folder import find_run
from bertlab.runs.machine import threads
from bertlab.runs.outcome import Context
from bertlab.training.evaluation import measure
from bertlab.training.finished import FinishedRun, load_run

BARE = ("text", "text_pair", "tokens")  # roles that bare texts can stand for


@dataclass
class Schema(FileColumns):
    """`bertlab predict`: label texts with a finished run."""

    run: str = MISSING
    text: str | None = string(None, "one text to label")
    text_pair: str | None = string(None, "its second text, for models of text pairs")
    file: str | None = string(None, "file of texts, one a line (.txt) or with the run's column names; '-' or neither = standard input")
    format: str = choice("table", "table", "jsonl", help="table for people, jsonl for programs")
    batch_size: int = integer(256, "examples per batch", low=1)
    compute: Compute = MISSING
    paths: Paths = field(default_factory=Paths)

    def check(self, path: str) -> None:
        """One source of texts, and something in it."""
        if self.text is not None and self.file is not None:
            raise ConfigError("predict: give either text or file, not both")
        if self.text_pair is not None and self.text is None:
            raise ConfigError("predict: text_pair is the second text of a pair; give text too")
        for name, value in (("text", self.text), ("text_pair", self.text_pair)):
            if value is not None and not value.strip():
                raise ConfigError(f"predict: {name} is empty; there is nothing to label")
        self.check_file(self.file)


def run(config: Schema, _context: Context) -> None:
    """Print one row a text."""
    trained = load_run(find_run(config.run, config.paths))
    rows = rows_to_label(trained, config)
    given = given_roles(rows)
    for row in predict_rows(trained, rows, config.compute, config.batch_size):
        if config.format == "jsonl":
            print(json.dumps(row, ensure_ascii=False))
        else:
            read = {name: row[name] for name in given}
            print(trained.objective.describe(read, {name: value for name, value in row.items() if name not in given}))


def predict_rows(trained: FinishedRun, rows: Any, compute: Compute, batch_size: int) -> list[dict[str, Any]]:
    """What was read of each row, and what the objective says of it, e.g. `{"text", "label", "probabilities"}`, in order."""
    if not trained.config.objective.predicts:
        raise ConfigError(
            f"{trained.folder}: objective={trained.config.objective.name} pretrains and has no labels to give; `bertlab evaluate` scores "
            f"it, init=checkpoint init.path={trained.folder} fine-tunes it"
        )
    device = trained.device(compute)
    trained.model.to(device.device)
    examples = join_examples(trained.objective.prepare(rows, trained.tokenizer))
    with threads(device.threads):
        measured = measure(trained.model, trained.objective, examples, device, batch_size)
    columns = {name: rows[name][:] for name in given_roles(rows)}
    predictions = trained.objective.predictions(measured, rows)
    return [{**{name: cells[index] for name, cells in columns.items()}, **row} for index, row in enumerate(predictions)]


def given_roles(rows: Any) -> list[str]:
    """What is printed beside a prediction: the row as it was read."""
    return list(rows.column_names)


def rows_to_label(trained: FinishedRun, config: Schema) -> Any:
    """Texts from the command line, a file or standard input. Raises DataError where there are none."""
    if config.text is not None:
        return from_pairs(trained, [config.text], None if config.text_pair is None else [config.text_pair])
    if config.file is None or config.file == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise ConfigError('predict: nothing to label; give text="…", file=PATH, or pipe lines into it')
        return from_pairs(trained, _lines(_read_standard_input(), "standard input"), None)
    file = Path(config.file).expanduser()
    if not file.is_file():
        raise DataError(f"file={config.file}: no such file")
    if file.suffix == ".txt":
        return from_pairs(trained, _lines(file.read_bytes(), str(file)), None)
    roles = [role for role in roles_for(trained.config.dataset, trained.config.objective) if not role.is_answer]
    return read_rows(table_of(trained.config.dataset, config), file, roles, ())


def from_pairs(trained: FinishedRun, texts: Sequence[str], pairs: Sequence[str] | None) -> Any:
    """Rows of bare texts, cleaned as the run's dataset was. Raises DataError where a second text is missing or too much."""
    roles = roles_for(trained.config.dataset, trained.config.objective)
    read = [role.name for role in roles if not role.is_answer]
    if unfit := [name for name in read if name not in BARE]:
        raise DataError(f"this run reads {', '.join(unfit)} too: give a file with such columns")
    wants_pair = "text_pair" in read
    if wants_pair and pairs is None:
        raise DataError("this run labels pairs of texts: give text_pair too, or a file with both columns")
    if pairs is not None and not wants_pair:
        raise DataError("this run labels single texts: leave text_pair out")
    return from_texts(trained.config.dataset.cleaner(), texts, pairs)


def _read_standard_input() -> bytes:
    """What is piped in, as bytes: how the locale would decode it must not matter."""
    return sys.stdin.buffer.read() if isinstance(sys.stdin, io.TextIOWrapper) else sys.stdin.read().encode("utf-8")


def _lines(content: bytes, where: str) -> list[str]:
    """Lines that hold something. Only line ends separate: a text may hold a form feed or U+2028, at which `splitlines` breaks."""
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}: line {number} is not UTF-8; convert it, or use a CSV with the run's dataset.encoding") from None
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if not lines:
        raise DataError(f"{where}: there is no text in it")
    return lines


JOB = Job(Schema, run)
