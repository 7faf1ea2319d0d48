"""Every kind of damage to every file of a run, a sweep and the cache: the same command ends as ever, or says
in one line what is wrong.

The suite draws a few cases (test_damage.py). By hand, all of them in an order that the seed draws, or one
that failed:

    python tests/faults/damage.py --seed 1 --minutes 60
    python tests/faults/damage.py --scene cache --file examples/0123/train.json --kind flip_middle

With `--log cases.jsonl` each case that was tried is a line there, and the same command goes on where the log
ends; `--shard 1/2` and `--shard 2/2`, with a log each, share the cases. `--tell cases-1.jsonl cases-2.jsonl`
prints the table of such logs.

It prints a line for each failure, with the command that repeats it, and a table.
"""

import argparse
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # by hand, as pytest does by itself

from forks import Fork
from kills import only, settled

from children import warm_up
from tiny import tiny

PATIENCE = 900  # seconds by the clock: a command that takes longer hangs, however busy the machine is
ROWS = (60, 20, 20)
FAST = [
    "compute.checkpoint_seconds=0",
    "evaluation.every_steps=4",
    "budget.batch_size=8",
    "tokenizer=wordpiece",
    "tokenizer.vocab_size=200",
]
RUN = tiny("model=bert_tiny", "budget.steps=12", *FAST, sizes=ROWS)
SEARCH = ["-m", "hydra/sweeper=bertlab_optuna", "hydra.sweeper.sampler=grid",
    "hydra.sweeper.study_name=search", "optimizer.lr=1e-3,3e-3",
          *tiny("model=bert_tiny", "budget.steps=4", *FAST, sizes=ROWS)]  # fmt: skip
DRAWN = (".lock", "curves.png", "plots/")  # no results: whatever becomes of them, a command may pass over it
COPIED = {"unreadable"} if os.getuid() == 0 else set()  # what does nothing to whoever may do everything


# --- kinds of damage ------------------------------------------------------------------------------
@dataclass
class Place:
    """A file to damage, another of its folder, and what another run or an earlier time has in its place."""

    file: Path
    sibling: Path | None
    other: Path | None
    draw: random.Random

    @property
    def content(self) -> bytes:
        return self.file.read_bytes()

    def put(self, content: bytes) -> None:
        self.file.write_bytes(content)

    def flip(self, at: float) -> None:
        content = bytearray(self.content or b"\0")
        content[min(len(content) - 1, int(at * len(content)))] ^= 1 << self.draw.randrange(8)
        self.put(bytes(content))

    def block(self, make: Callable[[int], bytes]) -> None:
        content = self.content
        size = max(1, len(content) // 8)
        begin = self.draw.randrange(max(1, len(content) - size + 1))
        self.put(content[:begin] + make(size) + content[begin + size :])

    def replace(self, pattern: bytes, by: bytes) -> None:
        changed = re.sub(pattern, lambda _: by, self.content, count=1)
        self.put(changed if changed != self.content else by + self.content)

    def instead(self, make: Callable[[], object]) -> None:
        self.file.unlink()
        make()

    def swap(self) -> None:
        if self.sibling is None:
            self.file.unlink()
        else:
            mine, theirs = self.content, self.sibling.read_bytes()
            self.put(theirs)
            self.sibling.write_bytes(mine)

    def link_elsewhere(self) -> None:
        elsewhere = self.file.with_name(f"{self.file.name}.elsewhere")
        self.file.rename(elsewhere)
        self.file.symlink_to(elsewhere)

    def other_digit(self) -> None:
        found = [match.start() for match in re.finditer(rb"[0-9]", self.content)]
        if not found:
            return self.flip(0.5)
        at, content = self.draw.choice(found), bytearray(self.content)
        content[at] = ord("0") + (content[at] - ord("0") + self.draw.randint(1, 9)) % 10
        self.put(bytes(content))
        return None


ANY: dict[str, Callable[[Place], object]] = {
    "flip_first": lambda it: it.flip(0),
    "flip_middle": lambda it: it.flip(0.5),
    "flip_last": lambda it: it.flip(1),
    "flip_somewhere": lambda it: it.flip(it.draw.random()),
    "other_digit": lambda it: it.other_digit(),
    "emptied": lambda it: it.put(b""),
    "cut_in_half": lambda it: it.put(it.content[: len(it.content) // 2]),
    "cut_by_one": lambda it: it.put(it.content[:-1]),
    "without_start": lambda it: it.put(it.content[1:]),
    "zeroed_block": lambda it: it.block(bytes),
    "zeroed": lambda it: it.put(bytes(len(it.content))),
    "random_block": lambda it: it.block(it.draw.randbytes),
    "random": lambda it: it.put(it.draw.randbytes(len(it.content))),
    "appended": lambda it: it.put(it.content + b"more\n"),
    "doubled": lambda it: it.put(2 * it.content),
    "removed": lambda it: it.file.unlink(),
    "swapped": Place.swap,
    "another_one": lambda it: it.put(it.other.read_bytes()) if it.other else it.swap(),
    "folder": lambda it: it.instead(it.file.mkdir),
    "full_folder": lambda it: it.instead(lambda: (it.file.mkdir(), (it.file / "x").write_text("x"))),
    "link_to_nothing": lambda it: it.instead(lambda: it.file.symlink_to("nowhere")),
    "link_to_itself": lambda it: it.instead(lambda: it.file.symlink_to(it.file.name)),
    "link_elsewhere": Place.link_elsewhere,
    "pipe": lambda it: it.instead(lambda: os.mkfifo(it.file)),
    "unreadable": lambda it: it.file.chmod(0),
}
TEXT: dict[str, Callable[[Place], object]] = {  # for files that hold text
    "not_utf8": lambda it: it.put(it.content[:1] + b"\xff\xfe" + it.content[1:]),
    "byte_order_mark": lambda it: it.put(b"\xef\xbb\xbf" + it.content),
    "windows_lines": lambda it: it.put(it.content.replace(b"\n", b"\r\n") or b"\r\n"),
    "a_list": lambda it: it.put(b"[]"),
    "nothing_said": lambda it: it.put(b"{}"),
    "null": lambda it: it.put(b"null"),
    "a_word": lambda it: it.put(b'"word"'),
    "huge_number": lambda it: it.replace(rb"[0-9]+", b"9" * 400),
    "not_a_number": lambda it: it.replace(rb"[0-9]+", b"NaN"),
    "deep": lambda it: it.put(b"[" * 100_000),
    "key_twice": lambda it: it.replace(
        rb"\{", b'{"seed": 1, "seed": 2, "status": "finished", "status": "finished",'
    ),
}
KINDS = {**ANY, **TEXT}


# --- what is damaged ------------------------------------------------------------------------------
@dataclass
class Command:
    """Words, and what they must come to; `{place}` stands for the scene's folder."""

    name: str
    words: Sequence[str]
    shows: bool = False  # its result is what it prints, not what lies in `out`
    reads: tuple[str, ...] = ("",)  # the files whose damage it could notice, by what is in their names


@dataclass
class Scene:
    """A folder as a command left it: what stands in it is damaged, then the commands are run."""

    name: str
    below: str  # what is damaged: files below this folder
    commands: Sequence[Command]
    template: Path = Path()
    other: Path = Path()  # the same of another run
    wanted: dict[str, object] = field(default_factory=dict)

    def files(self) -> list[str]:
        root = self.template / self.below
        return sorted(str(file.relative_to(self.template)) for file in root.rglob("*") if file.is_file())


def same(*words: str) -> Command:
    return Command("same", [*words, "paths.output={place}/out", "paths.cache={place}/cache"])


READ_BY_PREDICT = ("config", "identity", "labels", "tokenizer", "model", "manifest", "summary")
READ_BY_REPORT = (
    "config",
    "identity",
    "environment",
    "labels",
    "metrics",
    "predictions",
    "manifest",
    "summary",
)
SCENES = (
    Scene("finished", "out", [
        same(*RUN),
        Command("predict", ["predict", "run={run}", "text=a good film", "compute.threads=1"], shows=True,
        reads=READ_BY_PREDICT),
        Command("report", ["report", "runs={place}/out", "out={place}/report", "formats=csv"],
        reads=READ_BY_REPORT),
    ]),
    Scene("interrupted", "out", [same(*RUN)]),
    Scene("cache", "cache", [same(*RUN)]),
    Scene("sweep", "out/studies", [same(*SEARCH)]),
)  # fmt: skip


def make(scene: Scene, base: Path) -> None:
    """Fill the scene's templates, and learn what its commands come to undisturbed."""
    words = SEARCH if scene.name == "sweep" else RUN
    for name, seed in (("template", "seed=0"), ("other", "seed=1")):
        place = base / f"{scene.name}-{name}"
        fork = Fork(*words, seed, f"paths.output={place}/out", f"paths.cache={place}/cache")
        if scene.name == "interrupted":
            while not list(place.glob("out/*/checkpoints/step-00000009")):
                time.sleep(0.001)
            fork.kill()
        status, out, err = fork.wait(PATIENCE)
        assert scene.name == "interrupted" or status == 0, out + err
        if scene.name == "cache":
            shutil.rmtree(place / "out")
        setattr(scene, name, place)
    place = base / f"{scene.name}-undisturbed"
    shutil.copytree(scene.template, place)
    for command in scene.commands:
        status, out, err = run(command, place)
        assert status == 0, out + err
        scene.wanted[command.name] = result(command, place, out)


def run(command: Command, place: Path) -> tuple[int | None, str, str]:
    """Exit status and both outputs, the place's name taken out."""
    at = next(place.glob("out/*-*-*"), place)
    status, out, err = Fork(*(word.format(place=place, run=at) for word in command.words)).wait(PATIENCE)
    return status, out.replace(str(place), ""), err.replace(str(place), "")


def result(command: Command, place: Path, printed: str) -> object:
    """What the command came to."""
    if command.shows:
        return printed
    if command.name == "report":
        return json.loads((place / "report" / "report.json").read_text())["scores"]
    aside = (".elsewhere", ".damaged", "nowhere")  # what the damage itself, or setting it aside, put there
    return {
        name: digest for name, digest in settled(place).items() if not any(part in name for part in aside)
    }


# --- a case ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    scene: str
    file: str
    kind: str

    @property
    def command(self) -> str:
        return f"python tests/faults/damage.py --scene {self.scene} --file {self.file} --kind {self.kind}"


def cases(scene: Scene) -> Iterator[Case]:
    """Every kind for every file; what is said of text for those that hold it."""
    for file in scene.files():
        content = (scene.template / file).read_bytes()
        try:
            is_text = b"\0" not in content and bool(content.decode("utf-8") or True)
        except UnicodeDecodeError:
            is_text = False
        for kind in (*ANY, *(TEXT if is_text else ())):
            if kind not in COPIED:
                yield Case(scene.name, file, kind)


def damage(scene: Scene, case: Case, place: Path) -> None:
    """Damage the copy in `place`."""
    file = place / case.file
    siblings = [one for one in sorted(file.parent.iterdir()) if one.is_file() and one != file]
    others = [
        one
        for one in scene.other.rglob(file.name)
        if one.is_file() and one.parent.parent.name in (*file.parts, file.parent.parent.name)
    ]
    draw = random.Random(f"{case}")
    KINDS[case.kind](
        Place(file, draw.choice(siblings) if siblings else None, others[0] if others else None, draw)
    )


def attempt(scene: Scene, case: Case, place: Path) -> dict[str, str]:
    """What each command that could notice makes of the damage: `equal`, `told`, or what is wrong."""
    shutil.copytree(scene.template, place, symlinks=True)
    damage(scene, case, place)
    ends = {}
    for command in scene.commands:
        if any(part in case.file for part in command.reads):
            ends[command.name] = verdict(scene, command, place)
    return ends


def verdict(scene: Scene, command: Command, place: Path) -> str:
    status, out, err = run(command, place)
    if status is None:
        return "HANGS"
    if "Traceback" in out + err:
        return f"TRACEBACK {err.strip().splitlines()[-1][:200]}"
    if status == 2:
        told = [line for line in err.splitlines() if line.startswith("bertlab: ")]
        return (
            "told" if len(told) == 1 and err.splitlines()[-1] == told[0] else f"NOT ONE LINE {err[-300:]!r}"
        )
    if status != 0:
        return f"STATUS {status} {err[-200:]!r}"
    try:
        got = result(command, place, out)
    except (OSError, ValueError) as error:
        return f"UNREADABLE {type(error).__name__}: {error}"
    if got == scene.wanted[command.name]:
        return "equal"
    if isinstance(got, dict):
        wanted = scene.wanted[command.name]
        assert isinstance(wanted, dict)
        off = sorted(name for name in got.keys() | wanted.keys() if got.get(name) != wanted.get(name))
        if all(any(part in name for part in DRAWN) for name in off):
            return "equal"
        return f"DIFFERENT {off[:4]}"
    return f"DIFFERENT {str(got)[:200]!r}"


def cured(scene: Scene, case: Case, place: Path) -> str:
    """After a line that told: the damaged thing taken away, and where that is not enough its folder; the same
    command ends as ever.
    """
    command = scene.commands[0]
    broken = place / case.file
    top = place.joinpath(*Path(case.file).parts[: 3 if scene.name == "sweep" else 2])
    for gone in (broken, top):
        shutil.rmtree(gone) if gone.is_dir() and not gone.is_symlink() else gone.unlink(missing_ok=True)
        if verdict(scene, command, place) == "equal":
            return "cured"
    return "NOT CURED"


def draw_nothing() -> None:
    """Figures are no results, and take as long as all else of a command: here they are a few bytes."""
    from matplotlib.figure import Figure

    def savefig(_: Figure, place: Any, **__: Any) -> None:
        if isinstance(place, io.StringIO):
            place.write("drawn")
        elif isinstance(place, io.BytesIO):
            place.write(b"drawn")
        else:
            with Path(place).open("w+b") as file:  # as drawing does, which waits for no reader of a pipe
                file.write(b"drawn")

    Figure.savefig = savefig


@dataclass
class Tally:
    """What became of all cases."""

    ends: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)  # (scene, file) -> ends
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    log: Path | None = None

    def read(self, *logs: Path) -> set[Case]:
        """Count what stands in the logs; the cases tried there. The last word on a case counts."""
        told = [json.loads(line) for log in logs if log.exists() for line in log.read_text().splitlines()]
        last = {Case(one["scene"], one["file"], one["kind"]): (one["ends"], one["cure"]) for one in told}
        for case, (ends, cure) in last.items():
            self._count(case, ends, cure)
        return set(last)

    def add(self, case: Case, ends: dict[str, str], cure: str | None) -> None:
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(json.dumps({**asdict(case), "ends": ends, "cure": cure}) + "\n")
        self._count(case, ends, cure)

    def _count(self, case: Case, ends: dict[str, str], cure: str | None) -> None:
        wrong = [f"{name}: {end}" for name, end in ends.items() if end not in ("equal", "told")] + [cure] * (
            cure == "NOT CURED"
        )
        end = "wrong" if wrong else "told" if "told" in ends.values() else "equal"
        name = re.sub(r"[0-9a-f]{12,}|[0-9]{8}", "…", case.file)
        self.ends.setdefault((case.scene, name), Counter())[end] += 1
        self.kinds.setdefault(case.kind, Counter())[end] += 1
        if wrong:
            self.wrong.append(f"{case.command}\n    {'; '.join(wrong)}")

    def table(self) -> str:
        lines = ["| of | file | cases | as ever | told in one line | wrong |", "|---|---|---|---|---|---|"]
        rows = [(*key, counts) for key, counts in self.ends.items()] + [
            ("each kind", kind, counts) for kind, counts in self.kinds.items()
        ]
        rows.append(("all", "", sum(self.ends.values(), Counter())))
        lines += [
            f"| {of} | {name} | {sum(n.values())} | {n['equal']} | {n['told']} | {n['wrong']} |"
            for of, name, n in rows
        ]
        return "\n".join(lines)


def campaign(
    seed: int,
    minutes: float,
    most: int | None = None,
    scenes: Sequence[str] = (),
    wanted: Callable[[Case], bool] = lambda _: True,
    told: Callable[[str], None] = print,
    log: Path | None = None,
    shard: tuple[int, int] = (1, 1),
) -> Tally:
    """Cases of all scenes in an order that the seed draws, until there are no more, or the time is over, or
    `most` were tried.

    Of `shard` (k, n) only every n-th from the k-th on; those in `log` are counted, and not tried again.
    """
    tally, end = Tally(log=log), time.monotonic() + 60 * minutes
    before = tally.read(log) if log else set()
    with tempfile.TemporaryDirectory(prefix="bertlab-damage-") as top:
        base = Path(top)
        chosen = {scene.name: scene for scene in SCENES if not scenes or scene.name in scenes}
        warm = base / "warm"
        draw_nothing()
        warm_up(*RUN, f"paths.output={warm}/out", f"paths.cache={warm}/cache")
        warm_up("predict", f"run={only(warm / 'out')}", "text=a good film", "compute.threads=1")
        warm_up("report", f"runs={warm}/out", f"out={warm}/report", "formats=csv")
        for scene in chosen.values():
            make(scene, base)
        every = [case for scene in chosen.values() for case in cases(scene) if wanted(case)]
        random.Random(seed).shuffle(every)
        every = [case for case in every[shard[0] - 1 :: shard[1]] if case not in before]
        tried = 0
        for case in every[:most]:
            if time.monotonic() > end:
                break
            place, scene = base / "case", chosen[case.scene]
            ends = attempt(scene, case, place)
            cure = (
                cured(scene, case, place)
                if "told" in ends.values() and (tried % 4 == 0 or len(every) == 1)
                else None
            )
            so_far, tried = len(tally.wrong), tried + 1
            tally.add(case, ends, cure)
            for line in tally.wrong[so_far:]:
                told(f"{tried}/{len(every)} {line}")
            if tried % 50 == 0:
                told(f"{tried}/{len(every)} tried, {len(tally.wrong)} wrong")
            shutil.rmtree(place, ignore_errors=True)
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--most", type=int, help="no more cases than this")
    parser.add_argument("--scene", choices=[scene.name for scene in SCENES], action="append", default=[])
    parser.add_argument("--file", default="", help="only files with this in their path")
    parser.add_argument("--kind", choices=sorted(KINDS), action="append", default=[])
    parser.add_argument("--log", type=Path, help="go on where this file of tried cases ends")
    parser.add_argument("--shard", default="1/1", help="K/N: every N-th case from the K-th on")
    parser.add_argument("--tell", type=Path, nargs="+", default=[], help="only the table of these logs")
    asked = parser.parse_args()
    if asked.tell:
        read = Tally()
        read.read(*asked.tell)
        print("\n".join([*read.wrong, read.table()]))
        sys.exit(bool(read.wrong))
    shard, shards = map(int, asked.shard.split("/"))
    made = campaign(
        asked.seed, asked.minutes, asked.most, asked.scene,
        lambda case: asked.file in case.file and (not asked.kind or case.kind in asked.kind),
        lambda line: print(line, flush=True),
        asked.log,
        (shard, shards),
    )  # fmt: skip
    print(made.table())
    sys.exit(bool(made.wrong))
