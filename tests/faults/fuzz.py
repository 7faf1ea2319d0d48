"""Inputs that hypothesis draws, for whatever bertlab reads: none may hang it, end in a traceback, run code,
or write outside its folder.

The suite tries a few of each kind, always the same (test_fuzz.py). By hand, for as long as you like:

    python tests/faults/fuzz.py --minutes 10 --seed 3 --target tables --target presets

It goes on after what it finds,
and prints the smallest input of each kind of finding as a line that can stand in
tests/integration/malformed/inputs.jsonl.
"""

import argparse
import base64
import faulthandler
import json
import os
import re
import resource
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # by hand, as pytest does by itself

from hypothesis import HealthCheck, Phase, given, seed, settings
from inputs import Target, hugging_face, reports, run_folder, torn_run, weights
from inputs_text import pairs, presets, tables, words

from templates import Given, Templates, lay_out, make_templates
from watched import Ending, command

TARGETS = (
    Target("words", words), Target("presets", presets), Target("tables", tables), Target("pairs", pairs),
    Target("weights", weights),
    Target("hugging face", hugging_face), Target("run folder", run_folder), Target("torn run", torn_run),
    Target("reports", reports),
)  # fmt: skip
MEMORY = 12 << 30  # bytes of address space: what asks for more is told so, and this machine lives
NAMES = re.compile("[0-9]+|[^ ]{25,}|=[^ ]*|'[^']*'")  # what differs between two lines of one kind
STUCK = 300  # seconds, after which even code that hears no signal is taken to hang


def attempt(given_: Given, templates: Templates) -> Ending:
    """Run one case in a folder of its own."""
    place = Path(tempfile.mkdtemp(prefix="bertlab-fuzz-"))
    try:
        lay_out(given_, templates, place)
        with composing_only() if given_.composes_only else _nothing():
            return command(*given_.words, place=place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def composing_only() -> Iterator[None]:
    """Commands compose and check their config; the job itself does nothing."""
    from bertlab.config import registry

    load = registry.load_job
    registry.load_job = lambda name: replace(load(name), run=lambda *_: None)
    try:
        yield
    finally:
        registry.load_job = load


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def as_line(name: str, given_: Given) -> str:
    """A case as inputs.jsonl has it."""
    files: dict[str, Any] = {}
    for file, content in given_.files.items():
        try:
            files[file] = None if content is None else content.decode()
        except UnicodeDecodeError:
            files[file] = {"base64": base64.b64encode(content or b"").decode()}
    told = {"name": name, "command": shlex.join(given_.words)} | (
        {"from": given_.template} if given_.template else {}
    )
    return json.dumps(told | {"files": files})


def kind_of(wrong: str) -> str:
    """What two findings of one cause have in common: the error and its origin, or how the line begins."""
    head, _, at = wrong.partition(" at ") if wrong.startswith("TRACEBACK") else (wrong, "", "")
    head = " ".join(head.split()[:2]) if at or wrong.startswith("NOT READABLE") else head[:60]
    return f"{re.sub('[0-9]+', '…', head)} {at}"


@dataclass
class Findings:
    """What went wrong, each kind once, by its smallest input."""

    tried: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    smallest: dict[str, tuple[str, str]] = field(default_factory=dict)  # kind -> (what was said, the case)
    lines: dict[str, tuple[str, str]] = field(default_factory=dict)  # kind of refusal -> (the line, the case)
    told: Callable[[str], None] = print

    def add(self, target: str, given_: Given, ending: Ending) -> None:
        self.tried[target] = self.tried.get(target, 0) + 1
        self.refused[target] = self.refused.get(target, 0) + (ending.status == 2)
        if not (wrong := ending.wrong):
            if ending.status == 2:
                self._note_refusal(target, given_, ending.err)
            return
        kind = f"{target} {kind_of(wrong)}"
        line = as_line(f"{target}: found", given_)
        if kind not in self.smallest:
            self.told(f"{target}: {wrong}\n    {line[:1500]}")
        if kind not in self.smallest or len(line) < len(self.smallest[kind][1]):
            self.smallest[kind] = (wrong, line)

    def _note_refusal(self, target: str, given_: Given, said: str) -> None:
        """The smallest case of each kind of line, whatever names and numbers stand in it."""
        kind = f"{target} {NAMES.sub('…', said)[:70]}"
        line = as_line(f"{target}: {len(self.lines)}", given_)
        if kind not in self.lines or len(line) < len(self.lines[kind][1]):
            self.lines[kind] = (said, line)

    def table(self) -> str:
        lines = [
            "| what is read | tried | refused in one line | done | kinds of finding |",
            "|---|---:|---:|---:|---:|",
        ]
        for name, count in self.tried.items():
            kinds = sum(kind.startswith(f"{name} ") for kind in self.smallest)
            lines.append(
                f"| {name} | {count} | {self.refused[name]} | {count - self.refused[name]} | {kinds} |"
            )
        return "\n".join(lines)


def search(
    target: Target, templates: Templates, number: int, minutes: float, findings: Findings, last: Path
) -> None:
    """Draw cases of a target until the time is over, by a seed."""
    end = time.monotonic() + 60 * minutes

    def look(given_: Given) -> None:
        if time.monotonic() < end:
            last.write_text(as_line(f"{target.name}: the last one", given_))
            faulthandler.dump_traceback_later(STUCK, exit=True)
            findings.add(target.name, given_, attempt(given_, templates))
            faulthandler.cancel_dump_traceback_later()

    loud = settings(max_examples=100, deadline=None, database=None, phases=(Phase.generate,),
    derandomize=False,
                    suppress_health_check=list(HealthCheck))  # fmt: skip
    while time.monotonic() < end:
        seed(number)(loud(given(target.cases(templates))(look)))()
        number += 1_000_003


def main() -> None:
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=5.0, help="for each target")
    parser.add_argument("--target", choices=names, action="append", default=[])
    parser.add_argument("--keep", type=Path, help="write the findings to this file, a case a line")
    parser.add_argument(
        "--refused",
        type=Path,
        help="write the smallest case of each kind of refusal to this file, with its line",
    )
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    findings = Findings(told=lambda line: print(line, flush=True))
    with tempfile.TemporaryDirectory(prefix="bertlab-fuzz-") as top:
        os.environ["BERTLAB_CACHE"] = f"{top}/cache"
        templates = make_templates(Path(top) / "templates")
        last = Path(tempfile.gettempdir()) / f"bertlab-fuzz-{os.getpid()}-last.json"
        print(f"the case that is being tried: {last}", flush=True)
        for target in TARGETS:
            if not asked.target or target.name in asked.target:
                search(target, templates, asked.seed, asked.minutes, findings, last)
                print(findings.table().splitlines()[-1], flush=True)
        last.unlink(missing_ok=True)
    print(findings.table())
    if asked.keep:
        asked.keep.write_text("".join(f"{line}\n" for _, line in findings.smallest.values()))
    if asked.refused:
        asked.refused.write_text("".join(f"{said}{line}\n" for said, line in findings.lines.values()))
    sys.exit(bool(findings.smallest))


if __name__ == "__main__":
    main()
