"""`bertlab benchmark`: both sides are measured on the same work, and what cannot be compared is refused. How
fast they are is no test.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bertlab.config.composition import compose_schema
from bertlab.config.registry import conf_folder
from bertlab.config.schema import Train
from bertlab.data.batches import order_batches
from bertlab.jobs.benchmark import STAT, busy_cores, notes_of
from bertlab.runs.machine import choose_device
from bertlab.training.assembly import build_model
from bertlab.training.costs.measurement import (
    AS_USED,
    OURS,
    SAME_SETTINGS,
    check_benchmark,
    has_their_like,
    measure,
    prepared,
    their_config,
    their_parts,
)

pytestmark = pytest.mark.slow

SMALL = ("dataset.train_size=400", "dataset.validation_size=50", "dataset.test_size=50", "model=bert_tiny",
    "model.hidden_size=64",
         "model.num_attention_heads=1", "budget.batch_size=4", "compute.threads=1")  # fmt: skip
MLM = ("dataset=files", "tokenizer=wordpiece", "tokenizer.vocab_size=200", "objective=mlm",
    "objective.max_length=32", "model=bert_tiny",
       "budget.batch_size=4", "compute.threads=1")  # fmt: skip


@pytest.fixture(scope="module")
def classification() -> Train:
    config: Train = compose_schema("benchmark", [*SMALL])
    return config


@pytest.fixture(scope="module")
def mlm(tmp_path_factory: pytest.TempPathFactory) -> Train:
    file = tmp_path_factory.mktemp("texts") / "texts.csv"
    file.write_text(
        "text\n"
        + "".join(
            f"the {number} films of the year were seen by {number % 7} people\n" for number in range(4000)
        )
    )
    config: Train = compose_schema("benchmark", [*MLM, f"dataset.train_file={file}"])
    return config


def test_both_sides_have_the_same_examples_and_as_many_weights(classification: Train, mlm: Train) -> None:
    for config in (classification, mlm):
        _, material = prepared(config)
        model, columns, collate = their_parts(config, material, range(len(material.examples["train"])))
        assert columns["input_ids"] == [
            list(material.examples["train"][row]) for row in range(len(material.examples["train"]))
        ]
        ours = build_model(config, material.tokenizer, material.objective)
        unused = sum(
            weight.numel() for name, weight in ours.named_parameters() if "pooler" in name and config is mlm
        )
        assert (
            sum(weight.numel() for weight in model.parameters())
            == sum(weight.numel() for weight in ours.parameters()) - unused
        )
        batch = collate([{name: values[row] for name, values in columns.items()} for row in range(4)])
        assert torch.isfinite(model(**batch).loss)
    masked = (batch["labels"] != -100).float().mean()
    assert 0.0 < masked < 0.4  # of the rate 0.15, in 128 tokens


def test_tokens_are_counted_that_were_learned_from(classification: Train, mlm: Train) -> None:
    _, material = prepared(classification)
    plan = order_batches(material.examples["train"].lengths, classification.budget, classification.seed)
    walked = plan.from_step(0)
    steps = [int(material.examples["train"].lengths[next(walked)[2]].sum()) for _ in range(40)]
    assert measure(OURS, classification, 20, 20).tokens == sum(steps[20:])
    shortest, longest = material.examples["train"].lengths.min(), material.examples["train"].lengths.max()
    for contestant in (AS_USED, SAME_SETTINGS):
        found = measure(contestant, classification, 20, 20)
        assert 80 * shortest <= found.tokens <= 80 * longest and found.seconds > 0
    full = 20 * 4 * 32  # blocks are full, on either side, but for the corpus's last
    for contestant in (OURS, AS_USED):
        assert full - 32 < measure(contestant, mlm, 20, 20).tokens <= full


def test_an_encoder_without_counterpart_meets_one_of_its_sizes(classification: Train) -> None:
    assert has_their_like(classification)
    rotary: Any = dataclasses.replace(
        classification, model=dataclasses.replace(classification.model, positions="rotary")
    )  # type: ignore[call-arg]  # of a Bert
    _, material = prepared(rotary)
    assert not has_their_like(rotary) and their_config(rotary, material) == their_config(
        classification, material
    )


@pytest.mark.slow
def test_the_command_measures_in_turn_and_writes_it_down(cli: Any, tmp_path: Path) -> None:
    status, out, err = cli(
        "benchmark",
        *SMALL,
        "benchmark.steps=20",
        "benchmark.repeats=1",
        f"benchmark.out={tmp_path / 'speed'}",
    )
    assert status == 0, err
    assert re.search(r"^Trainer as used +float32, random order +[\d,]+ .*x$", out, re.MULTILINE)
    record = json.loads((tmp_path / "speed" / "benchmark.json").read_text())
    assert (
        list(record["measurements"]) == [OURS, AS_USED, SAME_SETTINGS] and record["packages"]["transformers"]
    )
    for (measured,) in record["measurements"].values():
        assert measured["tokens_per_s"] == pytest.approx(measured["tokens"] / measured["seconds"])
    assert "| Trainer, same settings |" in (tmp_path / "speed" / "benchmark.md").read_text()
    assert not Path("multirun").exists()  # a measurement is no run


@pytest.mark.skipif(not STAT.is_file(), reason="this system does not tell how busy its cores are")
def test_a_busy_machine_is_noticed(classification: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that counts as fast as it can holds a core; a machine without a free one spoils a
    measurement.
    """
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as counting:
        try:
            assert busy_cores(0.5) > 0.3
        finally:
            counting.kill()
    device = choose_device("cpu", "float32", 1)
    for busy, spoilt in ((float(os.cpu_count() or 1), True), (0.0, False)):
        monkeypatch.setattr("bertlab.jobs.benchmark.busy_cores", lambda busy=busy: busy)
        assert any("Other processes" in note for note in notes_of(classification, device, [OURS])) == spoilt


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("objective=nsp",), "objective=nsp: the Trainer is measured on"),
        (("dataset=sst2", "init=imdb_mlm"), "init=.*add init=scratch"),
        (("budget.batch_tokens=100",), "budget.batch_tokens"),
        (("benchmark.steps=50",), "benchmark.steps=50: must be a multiple of 20, e.g. 60"),
        (("benchmark.step=60",), "did you mean 'benchmark.steps'"),
        (("optimizer.lrr=1",), "did you mean 'optimizer.lr'"),
        (("search=lr_batch",), "add -m"),
        (
            ("-m", "search=lr_batch", "hydra.sweeper.n_trials=1"),
            "search: bertlab benchmark has no score to search by",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused(cli: Any, words: tuple[str, ...], told: str) -> None:
    status, _, err = cli("benchmark", *words)
    assert status == 2 and len(err.strip().splitlines()) == 1 and re.search(told, err), err


def test_a_failing_process_is_told_in_its_own_words(cli: Any) -> None:
    status, _, err = cli(
        "benchmark",
        *SMALL,
        "optimizer.lr=1e30",
        "optimizer.clip_norm=0",
        "benchmark.peer=false",
        "benchmark.steps=20",
    )
    assert status == 2 and "benchmark of bertlab: training diverged" in err


def test_a_benchmark_takes_what_a_run_takes(classification: Train) -> None:
    ours, trains = (
        yaml.safe_load((conf_folder() / f"{name}.yaml").read_text()) for name in ("benchmark", "train")
    )
    assert ours["defaults"][1:] == trains["defaults"][1:]  # the groups, and the one hydra block
    check_benchmark(classification)
