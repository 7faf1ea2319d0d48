"""Refusals as a person sees them: what a process of its own prints, and nothing else."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import Case, assert_refused, case, data, each, lay_out, tree, with_line

from children import PATIENCE

PROCESSES = [
    case("config", "optimizer.lrr=1", "command line", "'optimizer.lrr'", "did you mean 'optimizer.lr'"),
    data("csv", "t.csv", with_line(5, "a good film, and long,1"), "line 5"),
]


@each(PROCESSES)
def test_a_refusal_prints_one_line_from_a_process_of_its_own(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(case, monkeypatch)
    before = tree(Path())
    done = subprocess.run(
        [sys.executable, "-m", "bertlab", *shlex.split(case.command)],
        capture_output=True,
        text=True,
        env=os.environ.copy(),
        timeout=PATIENCE,
    )
    assert_refused((done.returncode, done.stdout, done.stderr), case.says, before)
