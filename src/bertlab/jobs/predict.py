"""`bertlab predict`: label texts with a finished run

usage: bertlab predict run=FOLDER [text="…" [text_pair="…"] | file=PATH] [format=table|jsonl]

Label texts with a finished run. Without text or file, lines are read from standard input. A .txt file holds one text a line;
other files have the run's column names, or text_column=… text_pair_column=… encoding=….
jsonl: one {"text", "label", "probabilities"} a line.
"""

import codecs
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from bertlab import registry, store
from bertlab.assembly import needed_columns
from bertlab.config import Compute, FileColumns, Paths, choice, integer, string
from bertlab.contracts import join_examples
from bertlab.data.dataset import columns_of
from bertlab.data.table import from_texts, read_rows, table_of
from bertlab.errors import ConfigError, DataError
from bertlab.evaluation import measure
from bertlab.results import Context
from bertlab.runtime import threads
from bertlab.saved import Trained, load_run


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
    folder = store.find_run(config.run, config.paths)
    trained = load_run(folder)
    rows = rows_to_label(trained, config)
    for row in predict_rows(trained, rows, config.compute, config.batch_size):
        print(json.dumps(row, ensure_ascii=False) if config.format == "jsonl" else describe(row))


def predict_rows(trained: Trained, rows: Any, compute: Compute, batch_size: int) -> list[dict[str, Any]]:
    """`{"text", ["text_pair"], "label", "probabilities"}` of each row, in order."""
    if not getattr(registry.module_of(trained.config.objective), "PREDICTS", True):
        raise ConfigError(
            f"{trained.folder}: objective={trained.config.objective.name} pretrains and has no labels to give; `bertlab evaluate` scores "
            f"it, init=checkpoint init.path={trained.folder} fine-tunes it"
        )
    device = trained.device(compute)
    trained.model.to(device.device)
    examples = join_examples(trained.objective.prepare(rows, trained.tokenizer.encode))
    with threads(device.threads):
        measured = measure(trained.model, trained.objective, examples, device, batch_size)
    given = [name for name in ("text", "text_pair", "tokens") if name in rows.column_names]
    columns = {name: rows[name][:] for name in given}
    found = trained.objective.predictions(measured)
    return [{**{name: columns[name][index] for name in given}, **row} for index, row in enumerate(found)]


def rows_to_label(trained: Trained, config: Schema) -> Any:
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
    table = table_of(trained.config.dataset, config, columns_of(trained.config.dataset))
    return read_rows(table, file, needed_columns(trained.config), None)


def from_pairs(trained: Trained, texts: Sequence[str], pairs: Sequence[str] | None) -> Any:
    """Rows of bare texts, cleaned as the run's dataset was. Raises DataError where a second text is missing or too much."""
    wants_pair = "text_pair" in columns_of(trained.config.dataset)
    if wants_pair and pairs is None:
        raise DataError("this run labels pairs of texts: give text_pair too, or a file with both columns")
    if pairs is not None and not wants_pair:
        raise DataError("this run labels single texts: leave text_pair out")
    return from_texts(getattr(trained.config.dataset, "clean", "none"), texts, pairs)


def _read_standard_input() -> bytes:
    """What is piped in, as bytes: how the locale would decode it must not matter."""
    stream = getattr(sys.stdin, "buffer", None)
    return stream.read() if stream is not None else sys.stdin.read().encode("utf-8")


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


def describe(row: dict[str, Any]) -> str:
    """`label  probability  text` on one line, or every word with its tag."""
    if "tags" in row:
        words = row["tokens"] if "tokens" in row else row["text"].split()
        return " ".join(word if tag == "O" else f"{word}/{tag}" for word, tag in zip(words, row["tags"], strict=True))
    text = row["text"] + (f" | {row['text_pair']}" if "text_pair" in row else "")
    shown = text if len(text) <= 100 else f"{text[:99]}…"
    return f"{row['label']:<16} {row['probabilities'][row['label']]:.4f}  {shown}"
