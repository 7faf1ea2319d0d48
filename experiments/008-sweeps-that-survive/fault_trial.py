"""Kill a sweep at random moments and start it again, many times over: is its total exact, is nothing lost, run twice or overwritten?

    python experiments/008-sweeps-that-survive/fault_trial.py --times 20 --seed 0

Each time a search of five trials on the embedded dataset is started afresh; at three random moments SIGKILL ends one of joblib's two
workers, or the sweep alone (its workers live on), or the sweep with everything below it; the same command is run again whenever the sweep
is no more. Then the study is compared with the folders of its runs.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOTAL, KILLS = 5, 3
WORDS = ["-m", "search=lr_batch", "debug=smoke", "dataset.train_size=200", "dataset.validation_size=40", "dataset.test_size=40",
         "compute=cpu", "compute.threads=1", "budget.steps=60", "evaluation.every_steps=20", "compute.checkpoint_seconds=1",
         "hydra.sweeper.study_name=s", "hydra.sweeper.heartbeat_seconds=0.3", f"hydra.sweeper.n_trials={TOTAL}"]  # fmt: skip
VARIANTS = {"in the sweep's own process": [], "by two joblib workers": ["hydra/launcher=cores", "hydra.launcher.n_jobs=2"]}


def start(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
    """The sweep, in a process group of its own."""
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "bertlab", *WORDS, *words], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )


def workers(sweep: int) -> list[int]:
    """Joblib's workers of a sweep."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == sweep and b"loky" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except (OSError, ValueError, IndexError):
            continue
    return found


def one_trial(draw: random.Random, words: list[str]) -> list[str]:
    """Kill three times, then let it end; what is wrong afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fault-trial-"))
    process, killed, seen = start(folder, words), [], dict[Path, int]()
    try:
        for _ in range(KILLS):
            deadline = time.monotonic() + draw.uniform(1.5, 9.0)
            while time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.02)
            for file in folder.glob("multirun/synthetic-*/summary.json"):  # finished now: must stay as it is
                if json.loads(file.read_text())["status"] == "finished":
                    seen.setdefault(file, file.stat().st_mtime_ns)
            if process.poll() is None:
                victims = workers(process.pid)
                what = draw.choice(["worker", "sweep alone", "everything"] if victims else ["everything"])
                if what == "worker":
                    os.kill(draw.choice(victims), signal.SIGKILL)
                elif what == "sweep alone":  # its workers live on and finish what they have begun
                    os.kill(process.pid, signal.SIGKILL)
                else:
                    os.killpg(process.pid, signal.SIGKILL)
                killed.append(what)
                if what == "worker":
                    continue
            process.wait()
            process = start(folder, words)
        status = process.wait(300)
        if status != 0:  # three launcher errors in a row end a sweep; the same command goes on
            process = start(folder, words)
            status = process.wait(300)
        wrong = problems(folder, seen, status)
        print(f"killed: {', '.join(killed) or 'nothing'}; {'; '.join(wrong) or 'all well'}", flush=True)
        if not wrong:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"kept for inspection: {folder}", flush=True)
        return wrong
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def problems(folder: Path, seen: dict[Path, int], status: int) -> list[str]:
    """What the promises of the sweeper do not allow."""
    wrong = [] if status == 0 else [f"exit status {status}"]
    rows = list(csv.DictReader((folder / "multirun/studies/s/trials.csv").read_text().splitlines()))
    done = [row for row in rows if row["state"] in ("complete", "pruned")]
    if len(done) != TOTAL:
        wrong.append(f"{len(done)} trials instead of {TOTAL}")
    points = {(row["optimizer.lr"], row["budget.batch_size"]) for row in done}
    if len(points) != len(done):
        wrong.append("a point was run to its end twice")
    summaries = [json.loads(file.read_text()) for file in folder.glob("multirun/synthetic-*/summary.json")]
    finished = [summary for summary in summaries if summary["status"] in ("finished", "pruned")]
    if len(finished) != TOTAL or len(summaries) != TOTAL:
        wrong.append(f"{len(summaries)} run folders, {len(finished)} of them finished")
    scores = sorted(f"{summary['metrics'][summary['selected_by']]:.6f}" for summary in finished if "metrics" in summary)
    if scores != sorted(f"{float(row['value']):.6f}" for row in done):
        wrong.append("the study's values are not those of the runs")
    if any(file.stat().st_mtime_ns != when for file, when in seen.items()):
        wrong.append("a finished run was written again")
    return wrong


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="how often, half of it on each launcher")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    arguments = parser.parse_args()
    draw, bad = random.Random(arguments.seed), 0
    for number in range(arguments.times):
        name = list(VARIANTS)[number % len(VARIANTS)]
        print(f"{number + 1:2d} {name}: ", end="", flush=True)
        bad += bool(one_trial(draw, VARIANTS[name]))
    print(f"{arguments.times - bad} of {arguments.times} without fault")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
