"""Too little memory, and a clock that jumps: a command ends as ever, or says in one line what is the matter.

The suite tries a few (test_limits.py); by hand more, with other margins of memory:

    python tests/faults/limits.py --margin 40 --margin 120 --margin 300 --margin 700

It prints a line a case, and ends with status 1 where one is wrong.
"""

import argparse
import itertools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # by hand, as pytest does by itself

from damage import ROWS, RUN, SEARCH, draw_nothing
from forks import Fork
from kills import only, settled

from children import warm_up
from tiny import tiny

PATIENCE = 900  # seconds by the clock
DAY = 86400.0
WIDE = tiny("model=bert_mini", "model.hidden_size=256", "model.num_attention_heads=4", "budget.steps=2",
            "budget.batch_size=64", "objective.max_length=128", "evaluation.every_steps=2",
            sizes=ROWS)  # fmt: skip


def limited(megabytes: int) -> Callable[[], None]:
    """What a command does first: it may take so much more address space than it has."""

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return limit


def jumping(*days: float) -> Callable[[], None]:
    """What a command does first: the clock on the wall is off by so many days, by others at each look."""

    def jump() -> None:
        off, real, strftime = itertools.cycle(days), time.time, time.strftime
        time.time = lambda: real() + DAY * next(off)
        time.strftime = lambda form, when=None: strftime(
            form, time.localtime(time.time()) if when is None else when
        )

    return jump


def told(status: int | None, out: str, err: str) -> str:
    """`done`, `told` in one line, or what is wrong."""
    if status is None:
        return "HANGS"
    if "Traceback" in out + err:
        return f"TRACEBACK {err.strip().splitlines()[-1][:200]}"
    if status == 0:
        return "done"
    lines = [line for line in err.splitlines() if line.startswith("bertlab: ")]
    return (
        "told"
        if status == 2 and len(lines) == 1 and err.splitlines()[-1] == lines[0]
        else f"STATUS {status} {err[-300:]!r}"
    )


def unfolding(place: Path) -> Path:
    """A small Parquet file that holds half a gigabyte of text."""
    import pyarrow
    import pyarrow.parquet

    file = place / "unfolding.parquet"
    texts = pyarrow.array(["so it goes " * 50_000] * 1000)
    pyarrow.parquet.write_table(
        pyarrow.table({"text": texts, "label": [0, 1] * 500}), file, compression="zstd"
    )
    assert file.stat().st_size < 1 << 20
    return file


def of_memory(base: Path, margins: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Each command with each margin; then what was stopped, with all the memory there is."""
    table = unfolding(base)
    finished = base / "finished"
    warm_up(*RUN, f"paths.output={finished}", f"paths.cache={base}/cache")
    inspect = ["inspect", "dataset=files", f"dataset.train_file={table}", "compute.threads=1"]
    for margin in margins:
        place = base / f"memory-{margin}"
        train = [*WIDE, f"paths.output={place}/out", f"paths.cache={base}/cache"]
        predict = ["predict", f"run={only(finished)}", "text=a good film", "compute.threads=1"]
        for name, words in (
            ("train", train),
            ("predict", predict),
            ("inspect", [*inspect, f"paths.cache={place}"]),
        ):
            yield f"{name}, {margin} MB more", told(*Fork(*words, first=limited(margin)).wait(PATIENCE))
        yield f"train again, after {margin} MB", told(*Fork(*train).wait(PATIENCE))


def of_time(base: Path) -> Iterator[tuple[str, str]]:
    """A run, the same interrupted and continued, and a search, each compared with an undisturbed one."""
    for name, words in (("run", RUN), ("search", SEARCH)):
        results = []
        for clock, first in (
            ("right", None),
            ("back and forth", jumping(-3, 40, 0)),
            ("back", jumping(-4000)),
        ):
            place = base / f"{name}-{clock.replace(' ', '-')}"
            at = [*words, f"paths.output={place}/out", f"paths.cache={place}/cache"]
            end = (
                told(*_interrupted(at, place, first))
                if name == "run" and first
                else told(*Fork(*at).wait(PATIENCE))
            )
            results.append(settled(place))
            same = results[-1] == results[0]
            spent = [
                json.loads(file.read_text())["cost"]["seconds"] for file in place.glob("out/*/summary.json")
            ]
            yield (
                f"{name}, clock {clock}",
                end if end != "done" or (same and min(spent) >= 0) else f"DIFFERENT {spent}",
            )


def _interrupted(
    words: Sequence[str], place: Path, first: Callable[[], None] | None
) -> tuple[int | None, str, str]:
    """Killed after a checkpoint, then the same command again, each with the clock that jumps."""
    fork = Fork(*words, first=first)
    while not list(place.glob("out/*/checkpoints/step-00000004")) and not list(
        place.glob("out/*/summary.json")
    ):
        time.sleep(0.002)
    fork.kill()
    fork.wait(PATIENCE)
    return Fork(*words, first=first).wait(PATIENCE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--margin", type=int, action="append", default=[], help="megabytes beyond those taken already"
    )
    asked = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="bertlab-limits-") as top:
        draw_nothing()
        warm_up(*RUN, f"paths.output={top}/warm", f"paths.cache={top}/cache")
        for name, end in itertools.chain(of_memory(Path(top), asked.margin or [40, 300]), of_time(Path(top))):
            wrong += end not in ("done", "told")
            print(f"{name}: {end}", flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
