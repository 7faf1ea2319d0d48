"""Random signals to real processes: whatever a job was doing, the same command ends with what it would have
ended with.

The suite runs a short form (test_kills.py). By hand, with a seed and a budget:

    python tests/faults/kills.py --seed 1 --kills 1000 --minutes 60
    python tests/faults/kills.py --seed 1 --kills 20 --minutes 60 --jobs ranks

Of `ranks` and `parts`, a run that two processes train together, one of the two is killed, and the other and
the command must end by themselves.

It prints a line a round (what was sent when) and a table; a round that ends differently is a failure, with
its seed to repeat it.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # by hand, as pytest does by itself

from children import TIMES, Child, finish, start, workers_of
from tiny import tiny

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MOST = 4  # signals a round
FAST = ["compute.checkpoint_seconds=0.05", "evaluation.every_steps=10", "budget.batch_size=8"]
TRAIN = tiny("model=bert_tiny", "budget.steps=60", *FAST, sizes=(200, 40, 20))
RANKS = tiny(
    "model=bert_tiny", "budget.steps=400", *FAST, "evaluation.every_steps=100", "compute.processes=2",
    "compute=cpu", sizes=(200, 40, 20),
)  # fmt: skip
ALONE = 60.0  # seconds in which all processes of a run must end once one of them was killed
STAGE = [
    *tiny("model=bert_tiny", "budget.steps=20", *FAST, sizes=(120, 20, 20)),
    "init=stage",
    "init.objective=mlm",
    "init.budget.steps=20",
]
SEARCH = ["-m", "hydra/sweeper=bertlab_optuna", "hydra.sweeper.sampler=grid",
    "hydra.sweeper.study_name=search",
          "hydra.sweeper.heartbeat_seconds=0.2", "optimizer.lr=1e-3,3e-3",
          *tiny("model=bert_tiny", "budget.steps=10", *FAST, sizes=(80, 20, 20))]  # fmt: skip


PASSING = (
    ".lock",
    "sessions.jsonl",
    "environment",
    "identity.json",
    "manifest.json",
    "config.yaml",
    "study.db",
    "trials.csv",
    "curves",
    "plots/",
)
TIMELY = ("summary.json", "metrics.jsonl", "report.json")  # hold times and places beside results


def settled(place: Path) -> dict[str, str]:
    """What must be the same below `out`: the content of every file, of records without times and places."""
    found = {}
    for file in sorted((place / "out").rglob("*")):
        name = str(file.relative_to(place))
        if file.is_file() and not any(part in name for part in PASSING):
            content = file.read_bytes()
            if file.name in TIMELY:
                content = repr([_timeless(json.loads(text)) for text in _documents(file)]).encode()
            # its first lines hold the trial's number, which is another one after a retry
            if file.name == "best.yaml":
                content = b"\n".join(line for line in content.splitlines() if not line.startswith(b"#"))
            found[name] = hashlib.sha256(content.replace(str(place).encode(), b"")).hexdigest()
    return found


def _documents(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]


def _timeless(node: object) -> object:
    if isinstance(node, dict):
        passing = (*TIMES, "sessions", "cost", "command", "paths", "machine")
        return {key: _timeless(value) for key, value in node.items() if key not in passing}
    return [_timeless(value) for value in node] if isinstance(node, list) else node


@dataclass
class Job:
    """A command whose result lies in `out` of a folder; `before` makes what it starts from."""

    name: str
    words: Callable[[Path], Sequence[str]]
    before: Sequence[str] | None = None
    ranks: int = 1  # processes that it starts for one run
    seconds: float = 0.0  # undisturbed
    wanted: dict[str, str] = field(default_factory=dict)

    def prepare(self, place: Path, source: Path | None) -> None:
        place.mkdir()
        if source is not None:
            shutil.copytree(source, place / "runs")

    def reference(self, place: Path, source: Path | None) -> None:
        """Run it undisturbed."""
        self.prepare(place, source)
        begun = time.monotonic()
        finish(*self.words(place))
        self.seconds, self.wanted = time.monotonic() - begun, settled(place)


JOBS = (
    Job("train", lambda place: [*TRAIN, f"paths.output={place}/out", f"paths.cache={place}/cache"]),
    Job("ranks", lambda place: [*RANKS, f"paths.output={place}/out", f"paths.cache={place}/cache"], ranks=2),
    Job(
        "parts",
        lambda place: [
            *RANKS,
            "compute.sharding=full",
            f"paths.output={place}/out",
            f"paths.cache={place}/cache",
        ],
        ranks=2,
    ),
    Job("stage", lambda place: [*STAGE, f"paths.output={place}/out", f"paths.cache={place}/cache"]),
    Job(
        "export",
        lambda place: ["export", f"run={only(place / 'runs')}", f"to={place}/out", "verify=4"],
        before=TRAIN,
    ),
    Job("report", lambda place: ["report", f"runs={place}/runs", f"out={place}/out"], before=TRAIN),
    Job("sweep", lambda place: [*SEARCH, f"paths.output={place}/out", f"paths.cache={place}/cache"]),
)


def only(folder: Path) -> Path:
    return next(place for place in sorted(folder.iterdir()) if (place / "config.yaml").is_file())


@dataclass
class Round:
    job: str
    sent: list[str]
    differs: list[str]
    leftovers: list[str]


def disturb(job: Job, place: Path, source: Path | None, draw: random.Random) -> Round:
    """Start the job, send it signals at random moments, start it again, …; then let it end, and compare."""
    job.prepare(place, source)
    sent: list[str] = []
    if job.ranks > 1:
        wrong = lose_ranks(job, place, draw, sent)
        return compared(job, place, sent, wrong)
    for _ in range(draw.randint(1, MOST)):
        number, after = draw.choice(SIGNALS), draw.uniform(0, 1.1 * job.seconds)
        child = start(*job.words(place), group=True)
        end = time.monotonic() + after
        while time.monotonic() < end and child.poll() is None:
            time.sleep(0.005)
        if child.poll() is not None:
            child.wait()
            break
        child.kill(number, group=True)
        child.wait()
        sent.append(f"{number.name[3:]}@{after:.2f}")
    return compared(job, place, sent, [])


def lose_ranks(job: Job, place: Path, draw: random.Random, sent: list[str]) -> list[str]:
    """Start the job and kill one of its processes at a random moment, once or more; what others did wrong."""
    wrong = []
    for _ in range(draw.randint(1, MOST)):
        lost, after = draw.randrange(job.ranks), draw.uniform(0, 1.1 * job.seconds)
        child, begun = start(*job.words(place), group=True), time.monotonic()
        workers: list[int] = []
        while child.poll() is None and (
            time.monotonic() < begun + after or len(workers := workers_of(child)) < job.ranks
        ):
            time.sleep(0.005)
        if child.poll() is not None:
            child.wait()
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(workers[lost], signal.SIGKILL)
        killed = time.monotonic()
        while not_ended(child, workers) and time.monotonic() < killed + ALONE:
            time.sleep(0.005)
        took = time.monotonic() - killed
        sent.append(f"KILL rank {lost}@{after:.2f}, all ended {took:.2f} s later")
        if left := not_ended(child, workers):
            wrong.append(f"{left} live {ALONE:.0f} s after the death of rank {lost}")
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        _, errors = child.wait()
        # 0: it had all but ended before the signal came
        if child.returncode not in (0, 2) or "Traceback" in errors:
            wrong.append(f"status {child.returncode} after the death of rank {lost}: {errors[-300:]!r}")
    return wrong


def not_ended(child: Child, workers: Sequence[int]) -> list[int]:
    """Of a command and its processes, those that live."""
    return ([child.pid] if child.poll() is None else []) + list(filter(lives, workers))


def lives(pid: int) -> bool:
    """Whether there is such a process; one that has ended and is not yet asked for its status is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def compared(job: Job, place: Path, sent: list[str], wrong: list[str]) -> Round:
    """Let the job end, and compare with what it would have ended with."""
    try:
        # a finished export is not made again over itself
        if not (job.name == "export" and (place / "out").exists()):
            finish(*job.words(place))
        got = settled(place)
        differs = wrong + sorted(
            name for name in job.wanted.keys() | got.keys() if job.wanted.get(name) != got.get(name)
        )
    except AssertionError as failed:
        differs = [*wrong, f"the last one failed: {str(failed)[-300:]!r}"]
    leftovers = [str(path.relative_to(place)) for path in (place / "out").rglob(".*tmp*")]
    return Round(job.name, sent, differs, leftovers)


def campaign(
    seed: int,
    kills: int,
    minutes: float,
    told: Callable[[str], None] = print,
    jobs: Sequence[Job] = JOBS,
    first: int = 0,
) -> list[Round]:
    """Rounds over all jobs in turn, from number `first`, until so many signals were sent or time is over;
    folders of failed ones stay.
    """
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="bertlab-faults-") as top:
        base, end = Path(top), time.monotonic() + 60 * minutes
        sources: dict[str, Path | None] = {}
        finish("--version")  # starts the server of processes, which is no part of a job's time
        for job in jobs:
            sources[job.name] = None
            if job.before is not None:
                source = sources[job.name] = base / f"{job.name}-source"
                finish(*job.before, f"paths.output={source}", f"paths.cache={base}/{job.name}-cache")
            job.reference(base / f"{job.name}-reference", sources[job.name])
        while sum(len(one.sent) for one in rounds) < kills and time.monotonic() < end:
            number = first + len(rounds)
            job, draw = jobs[number % len(jobs)], random.Random(f"{seed}-{number}")
            place = base / f"round-{number}"
            one = disturb(job, place, sources[job.name], draw)
            rounds.append(one)
            outcome = f"DIFFERS {one.differs}" if one.differs else "equal"
            left = f" LEFT {one.leftovers}" if one.leftovers else ""
            told(f"{number} {one.job} {' '.join(one.sent) or 'undisturbed'}: {outcome}{left}")
            if one.differs:
                told(
                    "  its folder:"
                    f" {shutil.move(place, tempfile.mkdtemp(prefix=f'bertlab-fault-{seed}-{number}-'))}"
                )
            shutil.rmtree(place, ignore_errors=True)
    return rounds


def table(rounds: Sequence[Round]) -> str:
    """Signals and rounds a job, and how many ended differently."""
    lines = ["| job | rounds | signals | ended differently | left something |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(one.job for one in rounds):
        own = [one for one in rounds if one.job == name]
        kinds = Counter(text.partition("@")[0] for one in own for text in one.sent)
        sent = (
            f"{sum(kinds.values())} ({', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))})"
        )
        lines.append(
            f"| {name} | {len(own)} | {sent} | {sum(bool(one.differs) for one in own)} |"
            f" {sum(bool(one.leftovers) for one in own)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=1000, help="signals to send in all")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--jobs", nargs="+", choices=[job.name for job in JOBS], help="these alone")
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to repeat one")
    asked = parser.parse_args()
    chosen = [job for job in JOBS if asked.jobs is None or job.name in asked.jobs]
    made = campaign(
        asked.seed, asked.kills, asked.minutes, lambda line: print(line, flush=True), chosen, asked.first
    )
    print(table(made))
    sys.exit(any(one.differs for one in made))
