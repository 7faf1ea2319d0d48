"""What a trial costs beside its work: our sweeper with a trivial job against Optuna's own `study.optimize`, on the same kind of storage.

    python experiments/008-sweeps-that-survive/overhead.py --trials 1000

The job returns a number and reports nothing. Ours runs through `hydra.main`, the sweeper, Hydra's basic launcher and the composition of a
config for every trial. The peer is called from Python in a loop of its own. Both draw from TPE with the same seed, one process, one after
the other, in turns.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOB = """
import hydra
@hydra.main(version_base="1.3", config_path=None, config_name=None)
def job(config):
    return (config.x - 0.3) ** 2
job()
"""
PEER = """
import sys, optuna
optuna.logging.set_verbosity(optuna.logging.WARNING)
storage = sys.argv[1]
if storage.startswith("journal:"):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage[8:]))
study = optuna.create_study(storage=storage, study_name="s", sampler=optuna.samplers.TPESampler(seed=0))
study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.3) ** 2, n_trials=int(sys.argv[2]))
assert len(study.trials) == int(sys.argv[2])
"""


def seconds(command: list[str], folder: Path) -> float:
    """Wall-clock of a process; it must succeed."""
    before = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return time.perf_counter() - before


def compare(storage: str, trials: int) -> tuple[float, float]:
    """Milliseconds a trial, ours and the peer's, imports and all."""
    folder = Path(tempfile.mkdtemp(prefix="overhead-"))
    (folder / "job.py").write_text(JOB)
    (folder / "peer.py").write_text(PEER)
    ours = [
        sys.executable,
        "job.py",
        "-m",
        "hydra/sweeper=bertlab_optuna",
        f"hydra.sweeper.n_trials={trials}",
        "hydra.sweeper.direction=minimize",
        "hydra.sweeper.seed=0",
        "hydra.sweeper.folder=studies",
        "hydra.sweeper.study_name=s",
        "+x=interval(0,1)",
        "hydra.output_subdir=null",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    where = {"sqlite": "sqlite:///ours.db", "journal": "journal:ours.log"}[storage]
    theirs = [sys.executable, "peer.py", where.replace("ours", "theirs"), str(trials)]
    b = seconds(theirs, folder)
    a = seconds([*ours, f"hydra.sweeper.storage='{where}'"], folder)
    return 1e3 * a / trials, 1e3 * b / trials


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    arguments = parser.parse_args()
    for storage in ("sqlite", "journal"):
        ours, theirs = compare(storage, arguments.trials)
        print(f"{storage}: ours {ours:.1f} ms a trial, study.optimize {theirs:.1f} ms, ratio {ours / theirs:.2f}", flush=True)


if __name__ == "__main__":
    main()
