"""Hundreds of malformed inputs, one a line of inputs.jsonl: each ends in one line and status 2, runs nothing,
and leaves what it found as it was.

Command lines, presets, tables, tokenizers, weights, Hugging Face folders, run folders, reports. Content is
text, `{"base64": …}`, `{"repeat": [text, times]}`, `{"keep": [first, last], "put": base64}` for a file that
keeps so many bytes at both ends, or null for one that is taken away. `says`: what the line holds. `from`:
what lies there before: a finished run, one that predicts masked tokens, an interrupted one, an exported one
(tests/templates.py); in the command and in names of files `{run}` stands for the run's folder.
"""

import base64
import json
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusals import tree

from templates import Given, Templates, lay_out
from watched import command

pytestmark = pytest.mark.slow

LINES = Path(__file__).with_name("inputs.jsonl").read_text(encoding="utf-8").splitlines()
CASES = [json.loads(line) for line in LINES]
AREAS: dict[str, list[dict[str, Any]]] = {}
for one in CASES:
    AREAS.setdefault(one["name"].partition(":")[0], []).append(one)
LONGEST = 700  # letters of a line


def content(told: Any, before: Callable[[], bytes]) -> bytes | None:
    """What lies in a file; `before` reads the template's."""
    if told is None or isinstance(told, str):
        return None if told is None else told.encode("utf-8", "surrogatepass")
    if "repeat" in told:
        return (told["repeat"][0] * told["repeat"][1]).encode()
    if "keep" in told:
        (start, end), old = told["keep"], before()
        return old[:start] + base64.b64decode(told["put"]) + old[len(old) - end :]
    return base64.b64decode(told["base64"])


def given(case: dict[str, Any], templates: Templates | None) -> tuple[Given, str]:
    """The case, and what its line must say."""
    source = case.get("from", "")
    run = "" if templates is None or source == "hf" else templates.run(source)

    def put_in(text: str) -> str:
        return text.replace("{run}", run)

    files = {
        name: content(told, lambda name=name: templates.read(source, name))
        for name, told in ((put_in(name), told) for name, told in case.get("files", {}).items())
    }
    return Given(shlex.split(put_in(case["command"])), files, source), put_in(case.get("says", ""))


def test_there_are_five_hundred_and_no_two_alike() -> None:
    alike = Counter(json.dumps([case["command"], case.get("from"), case.get("files")]) for case in CASES)
    assert len(alike) == len(CASES) >= 500
    assert [name for name, count in Counter(case["name"] for case in CASES).items() if count > 1] == []


@pytest.mark.parametrize("area", AREAS)
def test_each_is_one_line(area: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    wrong = []
    for number, case in enumerate(AREAS[area]):
        templates = request.getfixturevalue("templates") if "from" in case else None
        place = tmp_path / str(number)
        place.mkdir()
        told, says = given(case, templates)
        lay_out(told, templates, place)
        before = tree(place)
        ending = command(*told.words, place=place)
        after = tree(place)
        refused = ending.status == 2 and not ending.wrong and len(ending.err) <= LONGEST
        if not (refused and says in ending.err and after == before):
            more = sorted(after.keys() - before.keys())
            wrong.append(f"{case['name']}: {ending.wrong or (ending.status, ending.err)}, {more}")
    assert not wrong, "\n".join(wrong)
