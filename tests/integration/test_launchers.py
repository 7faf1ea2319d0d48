"""Sweeps on launchers that start processes of their own: cores are divided, a killed worker costs nothing
that was finished.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from children import PATIENCE

DATA = [
    "debug=smoke",
    "dataset.train_size=200",
    "dataset.validation_size=40",
    "dataset.test_size=40",
    "compute=cpu",
]
SEARCH = ["-m", "search=lr_batch", *DATA, "hydra.sweeper.study_name=s", "hydra.sweeper.heartbeat_seconds=0.3"]

pytestmark = pytest.mark.slow


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bertlab", *words], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def threads_of_runs() -> list[int]:
    return [
        json.loads(file.read_text())["threads"]
        for file in Path("multirun").glob("synthetic-*/environment.json")
    ]


def test_a_number_of_runs_side_by_side_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from bertlab.errors import ConfigError
    from bertlab.runs.machine import choose_device, usable_cores

    for told, expected in (("1", usable_cores()), ("-1", 1), ("1000", 1)):
        monkeypatch.setenv("BERTLAB_SIDE_BY_SIDE", told)
        assert choose_device("cpu", "float32", None).threads == expected
        assert choose_device("cpu", "float32", 3).threads == 3
    monkeypatch.setenv("BERTLAB_SIDE_BY_SIDE", "many")
    with pytest.raises(ConfigError, match="BERTLAB_SIDE_BY_SIDE=many"):
        choose_device("cpu", "float32", None)


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Joblib's workers below a process."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            stat = (place / "stat").read_text().rpartition(")")[2].split()
            if int(stat[1]) == process.pid and b"loky" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except (OSError, ValueError, IndexError):
            continue
    return found


def test_a_search_over_the_cores_outlives_a_killed_worker() -> None:
    """Two runs at a time, each with its share of the cores."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install 'bertlab[joblib]'")
    words = [
        *SEARCH,
        "hydra/launcher=cores",
        "hydra.launcher.n_jobs=2",
        "hydra.sweeper.n_trials=5",
        "budget.steps=40",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "bertlab", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    killed, deadline = 0, time.monotonic() + 200
    while process.poll() is None and not killed and time.monotonic() < deadline:
        begun = any(
            json.loads(file.read_text())["status"] == "finished"
            for file in Path("multirun").glob("synthetic-*/summary.json")
        )
        for worker in workers_of(process)[:1] if begun else []:
            os.kill(worker, signal.SIGKILL)
            killed += 1
        time.sleep(0.05)
    out, _ = process.communicate(timeout=PATIENCE)
    assert killed and process.returncode == 0, out.decode()
    rows = list(csv.DictReader(Path("multirun/studies/s/trials.csv").read_text().splitlines()))
    assert sum(row["state"] in ("complete", "pruned") for row in rows) == 5, rows
    assert set(threads_of_runs()) == {max(1, len(os.sched_getaffinity(0)) // 2)}


def test_submitits_local_queue_runs_what_it_would_send_to_slurm() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'bertlab[submitit]'")
    out = run("-m", "hydra/launcher=queue", *DATA, "seed=0,1", "compute.threads=1")
    assert len(threads_of_runs()) == 2, out


@pytest.mark.parametrize("launcher", ["slurm", "ray_here"])
def test_a_launcher_that_is_not_installed_is_named_with_what_to_install(cli: Any, launcher: str) -> None:
    """SLURM's preset composes where submitit is installed; without its package each is refused in
    one line.
    """
    module = {"slurm": "submitit", "ray_here": "ray"}[launcher]
    try:
        __import__(f"hydra_plugins.hydra_{module}_launcher")
    except ImportError:
        status, _, err = cli("-m", f"hydra/launcher={launcher}", *DATA, "seed=0,1")
        assert status == 2 and f"bertlab[{module}]" in err and err.count("\n") == 1, err
        return
    status, out, err = cli("--cfg", "hydra", f"hydra/launcher={launcher}", *DATA)
    assert status == 0 and "_launcher" in out, err
