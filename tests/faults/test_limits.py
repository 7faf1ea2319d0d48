"""A little of limits.py: too little memory, a clock that jumps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
def test_too_little_memory_and_a_jumping_clock_are_told_or_change_nothing() -> None:
    """In a process of its own, which forks."""
    words = [sys.executable, str(Path(__file__).with_name("limits.py")), "--margin", "60"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 10 and any(line.endswith("MB more: told") for line in lines), done.stdout
    assert all(line.endswith(": done") for line in lines if "clock" in line or "again" in line), done.stdout
