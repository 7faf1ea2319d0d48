"""Several processes train one run: as one would, to rounding; killed anywhere they go on to the bit. Real
processes, really killed.

Most are started as torchrun starts them, by what the environment tells; those that bertlab starts itself come
last.
"""

import json
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bertlab.runs.files import load_weights
from children import Child, finish, newest_step, only_run, result, start, wait_until, workers_of
from tiny import tiny

RUN = tiny("budget.steps=50", "budget.batch_size=14", "evaluation.every_steps=20", "compute=cpu",
    "compute.precision=float32",
           "optimizer.lr=3e-3", sizes=(90, 60, 30), heads=2)  # fmt: skip
MLM = [*RUN, "dataset.task=documents", "objective=mlm", "objective.max_length=40", "dataset.train_size=30"]

pytestmark = pytest.mark.slow


def team(*words: str, of: int = 2, port: int | None = None) -> list[Child]:
    """The processes of one run, as torchrun starts them."""
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    told = {"WORLD_SIZE": of, "LOCAL_WORLD_SIZE": of, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    members = []
    for rank in range(of):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**told, "RANK": rank, "LOCAL_RANK": rank}.items():
                patch.setenv(name, str(value))
            members.append(start(*words))
    return members


def ended(members: list[Child]) -> list[tuple[str, str]]:
    return [member.wait() for member in members]


def together(*words: str, of: int = 2) -> None:
    """Let several end well; the first alone speaks."""
    members = team(*words, of=of)
    told = ended(members)
    assert [member.returncode for member in members] == [0] * of, told
    assert "run: " in told[0][0] and [out for out, _ in told[1:]] == [""] * (of - 1)


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_weights(only_run(output) / "last.safetensors")


@pytest.mark.parametrize(
    ("words", "of", "alone"),
    [
        (["dataset.train_size=88"], 2, []),  # 88 = 6 x 14 + 4; head and encoder drop
        ([*MLM[len(RUN) :], "compute.micro_batch_size=3"], 2, ["compute.micro_batch_size=6"]),
        (["dataset.train_size=29"], 3, []),  # one example for three
    ],
    ids=["classification", "accumulated mlm", "fewer examples than processes"],
)
def test_several_processes_train_as_one(tmp_path: Path, words: list[str], of: int, alone: list[str]) -> None:
    """The same order, masks, dropout, loss and scores; the weights of the last of 50 steps to rounding."""
    finish(*RUN, *words, *alone, f"paths.output={tmp_path / 'one'}")
    together(*RUN, *words, f"paths.output={tmp_path / 'several'}", of=of)
    one, several = weights(tmp_path / "one"), weights(tmp_path / "several")
    assert (
        max(float((one[name] - several[name]).abs().max()) for name in one if one[name].is_floating_point())
        < 1e-5
    )
    folders = [only_run(tmp_path / name) for name in ("one", "several")]
    assert folders[0].name != folders[1].name, "sums in another order round otherwise: another identity"
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    for name in ("steps", "examples", "tokens"):
        assert summaries[0]["cost"][name] == summaries[1]["cost"][name]
    assert summaries[1]["metrics"]["validation/loss"] == pytest.approx(
        summaries[0]["metrics"]["validation/loss"], rel=1e-4
    )
    assert json.loads((folders[1] / "environment.json").read_text())["processes"] == of


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLM by two, never interrupted."""
    output = tmp_path_factory.mktemp("whole")
    together(*MLM, f"paths.output={output}")
    return only_run(output)


def test_a_run_that_loses_one_of_its_processes_ends_and_goes_on_to_the_bit(
    whole: Path, tmp_path: Path
) -> None:
    words, draw = (*MLM, "compute.checkpoint_seconds=0", f"paths.output={tmp_path}"), random.Random(3)
    for step in (2, 25):
        members = team(*words)
        wait_until(lambda step=step: newest_step(tmp_path) >= step, members[0])  # type: ignore[misc]  # a default that mypy does not infer
        lost = draw.randrange(2)
        members[lost].kill(signal.SIGKILL)
        told = ended(members)
        assert members[1 - lost].returncode == 2 and "Traceback" not in told[1 - lost][1], told
        assert "another one of this run has ended" in told[1 - lost][1], told
        assert not (only_run(tmp_path) / "model.safetensors").exists(), "killed in the middle"
    together(*words)
    assert result(only_run(tmp_path)) == result(whole)


def test_a_port_that_somebody_else_has_is_told(tmp_path: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        members = team(*RUN, f"paths.output={tmp_path}", port=port)
        _, said = members[0].wait()
        assert members[0].returncode == 2, said
        last = said.splitlines()[-1]
        assert f"do not meet at 127.0.0.1:{port}" in last and "MASTER_PORT" in last, said
        members[1].kill()  # it would wait for minutes, for one that begins late
        members[1].wait()


def test_of_those_that_are_left_one_tells(tmp_path: Path) -> None:
    members = team(*MLM, "compute.checkpoint_seconds=0", f"paths.output={tmp_path}", of=3)
    wait_until(lambda: newest_step(tmp_path) >= 2, members[0])
    members[2].kill(signal.SIGKILL)
    told = [err for _, err in ended(members)]
    assert [members[0].returncode, members[1].returncode] == [2, 2]
    assert sum("another one of this run has ended" in err for err in told) == 1, told


def test_a_polite_signal_to_one_checkpoints_and_ends_all(whole: Path, tmp_path: Path) -> None:
    words = (*MLM, f"paths.output={tmp_path}")
    members = team(*words)
    wait_until(lambda: any(tmp_path.glob("*/checkpoints/best-*")), members[0])
    members[1].kill(signal.SIGTERM)
    told = ended(members)
    assert [member.returncode for member in members] == [143, 143] and "checkpoint written" in told[0][1], (
        told
    )
    together(*words)
    assert result(only_run(tmp_path)) == result(whole)


def test_what_is_wrong_is_told_once(tmp_path: Path) -> None:
    """Before they have met, where all find it, and by the first alone."""
    cases = {
        "optimizer.lrr=1": "optimizer.lrr",
        "compute.processes=3": "2 processes were started",
        "optimizer.lr=1e30": "diverged",
        "objective=rtd": "one process must see all of them",
        "finetune.freeze_layers=9": "the model has",
    }
    for word, line in cases.items():
        members = team(*RUN, "dataset.task=documents", word, f"paths.output={tmp_path}")
        told = ended(members)
        assert (
            [member.returncode for member in members] == [2, 2] and line in told[0][1] and told[1][1] == ""
        ), (word, told)


EXHAUSTED = '''
"""Classification for which memory does not suffice in the second process."""

from dataclasses import dataclass

import torch

from bertlab.objectives.classification import Classification, ClassificationObjective
from bertlab.runs.processes import place


@dataclass
class Greedy(Classification):
    def build(self, vocabulary, label_names):
        return GreedyObjective(self, vocabulary, label_names)


class GreedyObjective(ClassificationObjective):
    def loss(self, outputs, batch):
        if place().rank == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().loss(outputs, batch)
'''


def test_too_little_memory_in_one_process_is_one_line_and_ends_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of processes that somebody else started, who alone can start them again."""
    plugins = tmp_path / "plugins"
    (plugins / "objectives").mkdir(parents=True)
    (plugins / "objectives" / "greedy.py").write_text(EXHAUSTED)
    monkeypatch.setenv("BERTLAB_PLUGINS", str(plugins))
    members = team(*RUN, "objective=greedy", f"paths.output={tmp_path / 'out'}")
    told = ended(members)
    errors = "".join(err for _, err in told)
    assert [member.returncode for member in members] == [2, 2], told
    assert errors.count("\n") == 1 and "compute.micro_batch_size=4 may fit" in errors, errors


@pytest.fixture
def outer() -> Iterator[list[Child]]:
    """Commands to be ended whatever happens."""
    begun: list[Child] = []
    yield begun
    for child in begun:
        if child.poll() is None:
            child.kill()


def test_compute_processes_starts_them_and_ends_them(whole: Path, tmp_path: Path, outer: list[Child]) -> None:
    """One is killed: the command ends with a line. SIGTERM to the command: all checkpoint. Then it goes on,
    and is skipped afterwards.
    """
    words = (*MLM, "compute.processes=2", "compute.checkpoint_seconds=0", f"paths.output={tmp_path}")
    outer.append(start(*words))
    wait_until(lambda: newest_step(tmp_path) >= 2, outer[-1])
    os.kill(workers_of(outer[-1])[1], signal.SIGKILL)
    _, err = outer[-1].wait()
    assert (
        outer[-1].returncode == 2
        and "process 1 of 2 of this run was killed (SIGKILL)" in err
        and "Traceback" not in err
    ), err
    outer.append(start(*words))
    step = newest_step(tmp_path)
    wait_until(lambda: newest_step(tmp_path) >= step + 2, outer[-1])
    members = workers_of(outer[-1])
    outer[-1].kill(signal.SIGTERM)
    _, err = outer[-1].wait()
    assert outer[-1].returncode == 143 and "checkpoint written" in err, err
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in members):
        assert time.monotonic() < deadline, "a process outlives its command"
        time.sleep(0.01)
    together(*MLM, f"paths.output={tmp_path}")
    assert result(only_run(tmp_path)) == result(whole), "whoever starts them: the same run"
    assert "finished already" in finish(*words)
