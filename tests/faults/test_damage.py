"""A few of the damages of damage.py, drawn by a seed; by hand it goes through all of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_damaged_files_are_told_or_made_again() -> None:
    """In a process of its own, which forks."""
    words = [sys.executable, str(Path(__file__).with_name("damage.py")), "--seed", "3", "--most", "8",
        "--scene", "interrupted",
             "--scene", "cache"]  # fmt: skip
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all |  | 8 |" in done.stdout
