"""What a refusal is: exit status 2, one line that says what is wrong and where, nothing left behind.

A case is a command line, the files and variables it finds, and what its line must name.
"""

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]  # conftest's fixture
TINY = (
    "model.num_hidden_layers=1 model.hidden_size=16 model.num_attention_heads=2 debug=smoke compute=cpu"
    " compute.threads=1"
)
SMALL = f"dataset.train_size=60 dataset.validation_size=20 dataset.test_size=20 {TINY} dataset.fraction=1"
ROWS = [(f"the film number {index} was {'good' if index % 2 else 'bad'}", index % 2) for index in range(40)]
GOOD = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
GOOD_JSONL = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)
GARBAGE = bytes(range(256)) * 8


@dataclass(frozen=True)
class Case:
    """`files`: path -> content, written before the command runs."""

    name: str
    command: str
    says: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def case(
    name: str, command: str, *says: str, files: dict[str, str | bytes] | None = None, **environment: str
) -> Case:
    return Case(name, command, says, files or {}, environment)


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[item.name for item in cases])


def tree(folder: Path) -> dict[str, bytes]:
    """Every file and folder below, with the files' content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def lay_out(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in case.files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)


def assert_refused(outcome: tuple[int, str, str], says: tuple[str, ...], before: dict[str, bytes]) -> None:
    """Status 2, one line that says what it must, and the folder as it was."""
    status, output, errors = outcome
    lines = errors.splitlines()
    assert len(lines) == 1, (
        f"{len(lines)} lines on standard error:\n{errors}\nand on standard output:\n{output}"
    )
    assert lines[0].startswith("bertlab: ") and len(lines[0]) < 700, lines[0]
    assert not re.search(r"('[^']+'), did you mean \1", lines[0]), f"it suggests what was written: {lines[0]}"
    missing = [fragment for fragment in says if fragment not in lines[0]]
    assert not missing, f"{missing} not in: {lines[0]}"
    assert "Traceback" not in output and "Warning" not in lines[0]
    assert status == 2, f"exit status {status}: {lines[0]}"
    assert sorted(tree(Path())) == sorted(before), "the refused command left something behind"
    assert tree(Path()) == before, "the refused command changed a file"


def data(name: str, file: str, content: str | bytes, *says: str, options: str = "") -> Case:
    """Training on one file of the user's; its line must name the file."""
    return case(
        name, f"dataset=files dataset.train_file={file} {options} {TINY}", file, *says, files={file: content}
    )


def validation(name: str, content: str, *says: str) -> Case:
    command = f"dataset=files dataset.train_file=t.csv dataset.validation_file=v.csv {TINY}"
    return case(name, command, "v.csv", *says, files={"t.csv": GOOD, "v.csv": content})


def parquet(**columns: list[object]) -> bytes:
    import pyarrow
    from pyarrow import parquet as writer

    stream = io.BytesIO()
    writer.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def with_line(number: int, line: str, content: str = GOOD) -> str:
    """`content` with its line `number`, counted from 1, replaced."""
    lines = content.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"
