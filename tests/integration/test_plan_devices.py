"""`bertlab plan hardware=… devices=…`: what it counts is what processes really hold and send; bad input is
one line.
"""

import dataclasses
import json
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.multiprocessing.spawn import start_processes

from bertlab.config.composition import compose_schema
from bertlab.config.hardware import Hardware, read_hardware
from bertlab.contracts import Draw
from bertlab.data.material import prepare
from bertlab.runs.machine import choose_device
from bertlab.runs.processes import Place, take_place
from bertlab.training.assembly import Learner, build_initialized, build_optimizer
from bertlab.training.costs.devices import GRADIENT, Work, exchanged_bytes, kept_bytes, ring_bytes
from bertlab.training.costs.work import Surveyor
from bertlab.training.several.exchange import Together, leave, meet
from bertlab.training.several.sharding import Sharded

pytestmark = pytest.mark.slow

DATA = [
    "dataset.train_size=200", "dataset.validation_size=40", "dataset.test_size=40", "compute=cpu",
    "compute.threads=1", "compute.precision=float32", "budget.epochs=2", "budget.batch_size=16",
    "model.hidden_size=64", "model.num_hidden_layers=2",
]  # fmt: skip
MLM = [*DATA, "dataset.task=documents", "objective=mlm", "objective.max_length=32"]


def work(*words: str, kind: str = "cuda") -> Work:
    (found,) = Surveyor(Hardware(kind=kind)).survey(compose_schema("train", list(words)), several=True)
    return found


def table(output: str) -> list[dict[str, str]]:
    """The plan's rows; columns are two spaces or more apart."""
    lines = output.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("devices "))
    names = re.split(r" {2,}", lines[start].strip())
    rows = []
    for line in lines[start + 1 :]:
        cells = re.split(r" {2,}", line.strip())
        if not cells[0].isdigit():
            break
        rows.append(dict(zip(names, [*cells, ""], strict=False)))
    return rows


def test_a_table_over_devices_and_the_wall_that_is_met(cli: Any) -> None:
    status, out, err = cli("plan", *MLM, "hardware=h100", "devices=1,4,64", "hardware.price=3")
    assert status == 0, err
    rows = table(out)
    assert [row["devices"] for row in rows] == ["1", "4", "64"]
    assert rows[2]["wall"] == "batch" and "wall: from" in out, "16 examples are not shared by 64"
    assert float(rows[0]["price"]) == pytest.approx(3 * float(rows[0]["device-hours"]), abs=0.2)
    assert "assumed: 40 % of that rate" in out and "989 TFLOP/s in float32" not in out
    assert "67 TFLOP/s in float32" in out
    assert not Path("multirun").exists()


def test_operations_and_steps_are_those_of_the_run(cli: Any) -> None:
    planned = work(*MLM)
    assert cli(*MLM)[0] == 0
    (file,) = Path("multirun").glob("*/summary.json")
    cost = json.loads(file.read_text())["cost"]
    assert planned.steps == cost["steps"] and planned.tokens * planned.steps == pytest.approx(cost["tokens"])
    assert planned.flops * planned.steps == pytest.approx(cost["flops"], rel=0.05)


def test_each_pretraining_is_planned_once_and_all_runs_are_summed(cli: Any) -> None:
    stage = ["init=stage", "init.dataset=synthetic", "init.budget.steps=3", "init.objective=mlm",
        "++init.dataset.train_size=60", "++init.dataset.validation_size=20",
             "++init.dataset.test_size=20"]  # fmt: skip
    status, out, err = cli("plan", "-m", *DATA, *stage, "seed=0,1", "hardware=a100", "devices=1,2")
    assert status == 0, err
    assert len(re.findall(r"^\S*-mlm: ", out, re.MULTILINE)) == 1
    assert "and 1 alike: " in out and "all 3 runs, one after the other:" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["devices=8"], "hardware is not said"),
        (["hardware=h10"], "hardware=h10: unknown option, did you mean 'h100'"),
        (["hardware=h100", "devices=0"], "devices=0: must be whole numbers from 1"),
        (["hardware=h100", "devices=1,many"], "devices=1,many: must be whole numbers"),
        (["hardware=h100", "hardware.shar=0.5"], "did you mean 'hardware.share'"),
        (["hardware=h100", "hardware.share=2"], "hardware.share=2.0: must be at most 1"),
        (["hardware=h100", "hardware.share=half"], "hardware.share=half: "),
        (["hardware=h100", "hardware=a100"], "hardware is said twice"),
        (["hardware=../model/bert_base"], "unknown option"),
        (["hardware=h100", "sharding=some"], "sharding=some: unknown option"),
        (["hardware=h100", "effect=1"], "effect and pilot are of a plan for this machine"),
        (
            [
                "hardware=h100",
                "budget.epochs=null",
                "budget.hours=1",
                "schedule=constant",
                "schedule.warmup_steps=1",
            ],
            "budget.hours",
        ),
        (["hardware=h100", "optimizer.lrr=1"], "optimizer.lrr"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_is_wrong_is_one_line(cli: Any, words: list[str], line: str) -> None:
    status, out, err = cli("plan", *DATA, *words)
    assert status == 2 and line in err and err.count("\n") == 1 and out.count("\n") == 0, (out, err)


def test_a_preset_of_ones_own(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    mine = tmp_path / "hardware" / "mine.yaml"
    mine.write_text("bfloat16_tflops: 100\nfloat32_tflops: 50\nmemory_gb: 10\n")
    status, out, err = cli("plan", *MLM, "hardware=mine", "devices=2", "--config-dir", str(tmp_path))
    assert status == 0 and "hardware=mine: 50 TFLOP/s in float32" in out, err
    mine.write_text("bfloat16_tflop: 100\n")
    status, _, err = cli("plan", *MLM, "hardware=mine", "--config-dir", str(tmp_path))
    assert status == 2 and "mine.yaml: unknown key 'bfloat16_tflop'" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["a100", "h100", "h200", "here"])
def test_every_preset_is_one(name: str) -> None:
    chosen = f"hardware={name}"
    assert read_hardware([chosen]) == read_hardware([chosen, "hardware.price=null"])


# --- beside what really happens -------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion", "adafactor", "muon"])
def test_what_is_kept_is_what_a_process_keeps_after_a_step(optimizer: str) -> None:
    """Weights, gradients and optimizer state, in bytes."""
    words = [*MLM, f"optimizer={optimizer}"]
    config = compose_schema("train", words)
    material = prepare(config)
    model = build_initialized(config, material.tokenizer, material.objective)
    made = build_optimizer(config, model)
    batch = material.objective.collate(material.examples["train"], range(8), Draw(0, 0))
    nats, _ = Learner(model, material.objective, choose_device("cpu", "float32", 1))(batch)
    nats.backward()
    made.step()
    tensors = [*model.parameters(), *model.parameters()]  # as many gradients as weights, as in DDP's buckets
    tensors += [value for state in made.state.values() for value in state.values() if torch.is_tensor(value)]
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor.ndim > 0)
    assert kept_bytes(work(*words), 1, sharded=False) == held


RECEIVED = 128  # place of tcpi_bytes_received in Linux's struct tcp_info


def bytes_received() -> int:
    """By this process, over all of its connections."""
    total = 0
    for place in Path("/proc/self/fd").iterdir():
        try:
            if not place.readlink().name.startswith("socket:"):
                continue
            with socket.fromfd(int(place.name), socket.AF_INET, socket.SOCK_STREAM) as own:
                told = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
        except OSError:
            continue
        total += struct.unpack_from("Q", told, RECEIVED)[0] if len(told) >= RECEIVED + 8 else 0
    return total


def one_of_two(rank: int, folder: str, words: list[str], passes: int) -> None:
    """Three steps of so many passes; the bytes that came in each, and what is kept then, into a file."""
    take_place(Place(rank, 2, rank, 2, f"file://{folder}/meeting"))
    torch.set_num_threads(1)
    config = compose_schema("train", words)
    processes = cast(Together, meet())
    if config.compute.sharding == "full":
        processes = Sharded(processes)
    material = prepare(config)
    model = build_initialized(config, material.tokenizer, material.objective)
    device = choose_device("cpu", "float32", 1)
    processes.divide(model, config.optimizer, device.device)
    optimizer = processes.suited(build_optimizer(config, model))
    learner = processes.learner(Learner(model, material.objective, device))
    batch = material.objective.collate(material.examples["train"], range(8), Draw(0, 0))
    told = []
    for _ in range(3):
        processes.gather([0.0])
        before = bytes_received()
        for index in range(passes):
            with processes.backward(learner, index == passes - 1):
                learner(batch)[0].backward()
        told.append(bytes_received() - before)
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    # as many gradients as weights, as in DDP's buckets
    gradients = [weight if weight.grad is None else weight.grad for weight in model.parameters()]
    kept = [*model.parameters(), *gradients, *states]
    own = processes.own(tensor for tensor in kept if torch.is_tensor(tensor) and tensor.ndim > 0)
    processes.gather([0.0])
    held = sum(tensor.numel() * tensor.element_size() for tensor in own)
    Path(folder, f"{rank}.json").write_text(json.dumps({"came": told, "held": held}))
    # what outlives the group destroys it, holding Python's lock, for which gloo's threads may wait
    del learner
    leave()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what connections carried is asked of Linux")
@pytest.mark.parametrize(("sharding", "passes"), [("none", 1), ("none", 2), ("full", 1), ("full", 2)])
def test_what_is_exchanged_and_kept_is_what_two_processes_exchange_and_keep(
    tmp_path: Path, sharding: str, passes: int
) -> None:
    """Gradients once a step, or weights and gradients in each pass, by gloo; of a model large enough that
    messages about them are little beside them. In parts each keeps half.
    """
    # no pooler, which learns nothing from masked tokens: parts without gradients are not exchanged
    words = [*MLM, "model.hidden_size=256", "model.num_attention_heads=4", "model.pooling=mean"]
    planned, in_parts = work(*words, kind="cpu"), sharding == "full"
    expected = exchanged_bytes(planned, 2, passes, in_parts)
    if in_parts:  # gloo, unlike NCCL, gives each its part of a sum by giving all the whole sum
        expected += passes * (ring_bytes(GRADIENT * planned.trained, 2) - GRADIENT * planned.trained / 2)
    prepare(compose_schema("train", words))  # once, before both
    words += [f"compute.sharding={sharding}", "compute.processes=2"]
    start_processes(one_of_two, (str(tmp_path), words, passes), 2)  # type: ignore[no-untyped-call]  # torch's has no types
    for rank in range(2):
        told = json.loads((tmp_path / f"{rank}.json").read_text())
        for came in told["came"][1:]:  # the first lays out buckets
            assert came == pytest.approx(expected, rel=0.01)
        assert told["held"] == pytest.approx(kept_bytes(planned, 2, in_parts), rel=0.01)


def test_a_frozen_encoder_keeps_and_exchanges_its_head_alone() -> None:
    probe, whole = (work(*DATA, f"finetune.freeze_encoder={frozen}") for frozen in ("true", "false"))
    assert probe.parameters == whole.parameters == whole.trained and probe.trained < whole.trained / 10
    assert probe.state_bytes == 8 * probe.trained and whole.state_bytes == 8 * whole.trained
    assert dataclasses.replace(probe, name="") != dataclasses.replace(whole, name="")
