"""Hundreds of malformed inputs, one a line of inputs.jsonl: each ends with status 2 and one line, and leaves
what it found as it was.

Command lines, presets, tables, tokenizers, weights, Hugging Face folders, run folders, reports. Content is
text, `{"base64": …}` or `{"repeat": [text, times]}`.
"""

import base64
import json
import shlex
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from refusals import Cli, tree

CASES = [
    json.loads(line)
    for line in Path(__file__).with_name("inputs.jsonl").read_text(encoding="utf-8").splitlines()
]
AREAS = {area: list(cases) for area, cases in groupby(CASES, key=lambda case: case["name"].partition(":")[0])}


def content(told: Any) -> bytes:
    if isinstance(told, str):
        return told.encode("utf-8", "surrogatepass")
    return (
        base64.b64decode(told["base64"])
        if "base64" in told
        else (told["repeat"][0] * told["repeat"][1]).encode()
    )


def test_there_are_many_and_no_two_alike() -> None:
    distinct = {json.dumps([case["command"], case.get("files")]) for case in CASES}
    assert len(distinct) == len(CASES) >= 200 and len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("area", AREAS)
def test_each_is_one_line(area: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = []
    for number, case in enumerate(AREAS[area]):
        place = tmp_path / str(number)
        place.mkdir()
        monkeypatch.chdir(place)
        for name, told in case.get("files", {}).items():
            file = place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content(told))
        before = tree(place)
        try:
            status, _, errors = cli(*shlex.split(case["command"]))
        except Exception as error:
            wrong.append(f"{case['name']}: {type(error).__name__}: {error}")
            continue
        lines = errors.splitlines()
        if (
            status != 2
            or len(lines) != 1
            or not lines[0].startswith("bertlab: ")
            or len(lines[0]) > 700
            or tree(place) != before
        ):
            wrong.append(
                f"{case['name']}: status {status}, {errors[-300:]!r},"
                f" {sorted(tree(place).keys() - before.keys())}"
            )
    assert not wrong, "\n".join(wrong)
