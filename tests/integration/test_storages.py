"""Sweeps on every storage there is: SQLite (test_sweeps.py), a journal file, and a real PostgreSQL server on
loopback.
"""

import csv
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from children import PATIENCE, Child

DATA = [
    "debug=smoke",
    "dataset.train_size=200",
    "dataset.validation_size=40",
    "dataset.test_size=40",
    "compute=cpu",
    "compute.threads=1",
]
SWEEP = [
    "-m",
    "search=lr_batch",
    *DATA,
    "hydra.sweeper.study_name=s",
    "hydra.sweeper.heartbeat_seconds=0.3",
    "hydra.sweeper.n_trials=4",
]

pytestmark = pytest.mark.slow


def start(storage: str, *words: str) -> Child:
    return Child(*SWEEP, f"hydra.sweeper.storage='{storage}'", *words, group=True)


def states() -> list[str]:
    return [
        row["state"] for row in csv.DictReader(Path("multirun/studies/s/trials.csv").read_text().splitlines())
    ]


def killed_then_two_at_once(storage: str) -> None:
    """One sweep is killed with its job; then two work on the study until it holds its total, and no trial
    more.
    """
    process = start(storage)
    deadline = time.monotonic() + 120
    while (
        not list(Path("multirun").glob("synthetic-*/summary.json"))
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    process.kill(group=True)
    process.wait()
    processes = [start(storage) for _ in range(2)]
    for process in processes:
        out = process.wait()
        assert process.returncode == 0, out
    assert sum(state in ("complete", "pruned") for state in states()) == 4


def test_a_journal_file() -> None:
    killed_then_two_at_once("journal:study.log")
    assert Path("study.log").stat().st_size > 0 and not Path("multirun/studies/s/study.db").exists()


def test_a_postgresql_server(postgresql: str) -> None:
    killed_then_two_at_once(postgresql)
    assert not Path("multirun/studies/s/study.db").exists()


def test_a_server_that_is_not_there_is_said_in_one_line() -> None:
    process = start("postgresql://nobody:secret@127.0.0.1:1/none")
    out, err = process.wait()
    assert process.returncode == 2 and "cannot be opened" in err and "secret" not in out + err, out + err


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The address of a server of our own, as PostgreSQL refuses to run as root under the user `postgres`
    there.
    """
    pytest.importorskip("psycopg", reason="pip install 'bertlab[postgresql]'")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [
        Path(found).parent for found in [shutil.which("initdb")] if found
    ]
    if not binaries:
        pytest.skip("no PostgreSQL server is installed (Debian: apt install postgresql)")
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="bertlab-pg-", dir="/tmp"))
    options = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if os.geteuid() == 0:
        shutil.chown(folder, user)
        options["user"] = user
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [binaries[-1] / "initdb", "-D", folder / "data", "-U", "bertlab", "-A", "trust", "--no-sync"]
    subprocess.run(command, check=True, timeout=PATIENCE, **options)  # type: ignore[call-overload]
    settings = [
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        f"unix_socket_directories={folder}",
        "-c",
        "fsync=off",
    ]
    command = [binaries[-1] / "postgres", "-D", folder / "data", "-p", str(port), *settings]
    server = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"postgresql://bertlab@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
