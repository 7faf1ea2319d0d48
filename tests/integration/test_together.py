"""compute.together: several seeds as one model are what each is by itself, to rounding; killed anywhere, the
same command goes on to the bit.
"""

import json
import math
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import bertlab
from bertlab.errors import DivergedError
from bertlab.kernels import Each, as_each, draw, dropout
from bertlab.runs.files import load_weights
from bertlab.runs.folder import RunFolder
from bertlab.training import loop
from bertlab.training.several import seeds
from bertlab.training.steps import journal
from children import finish, newest_step, result, start, wait_until
from conftest import Cli
from tiny import tiny

pytestmark = pytest.mark.slow

RUN = tiny("budget.steps=40", "budget.batch_size=12", "evaluation.every_steps=20", "compute=cpu",
    "compute.precision=float32", "optimizer.lr=3e-3", sizes=(90, 60, 30), heads=2)  # fmt: skip
DOCUMENTS = ["dataset.task=documents", "objective.max_length=40", "dataset.train_size=30"]
MLM = [*DOCUMENTS, "objective=mlm"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_weights(folder / "last.safetensors")


def by_seed(output: Path) -> dict[int, Path]:
    """The runs below, by their seeds."""
    files = output.glob("*/config.yaml")
    return {RunFolder(file.parent).tree()["seed"]: file.parent for file in files}


OTHERS = [
    ["model.norm_placement=pre", "model.positions=rotary", "model.pooling=mean", "optimizer=sgd"],
    ["optimizer=lion", "optimizer.lr=1e-4", "budget.batch_tokens=150"],
    ["compute.micro_batch_size=5", "optimizer.ema_decay=0.9", "optimizer.clip_norm=0.1"],
    [*MLM, "objective.attend_across=false", "model.attention_dropout=0", "compute.micro_batch_size=4"],
    [*DOCUMENTS, "objective=mlm_nsp"],
    ["finetune.freeze_encoder=true"],
]


@pytest.mark.parametrize(
    "words",
    [[], MLM, *(pytest.param(words, marks=pytest.mark.slow) for words in OTHERS)],
    ids=lambda words: " ".join(words[-2:]) or "classification",
)
def test_seeds_trained_together_are_what_each_is_alone(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same order, masks and dropout: the loss of every step and the weights of the last, to rounding."""
    monkeypatch.setattr(journal, "LOG_EVERY", 1)
    several = bertlab.sweep([*RUN, *words, "seed=range(3)", "compute.together=3", "paths.output=together"])
    alone = bertlab.sweep([*RUN, *words, "seed=range(3)", "paths.output=alone"])
    for one, other in zip(several, alone, strict=True):
        assert one.folder.name != other.folder.name, "what changes rounding is in the id"
        losses, expected = (run.history["train/loss"].dropna() for run in (one, other))
        assert len(losses) == 40 and float((losses - expected).abs().max()) < 1e-5
        mine, theirs = weights(one.folder), weights(other.folder)
        assert max(float((mine[name] - theirs[name]).abs().max()) for name in theirs) < 1e-5
        assert one.metrics.keys() == other.metrics.keys()
        assert one.summary["cost"]["tokens"] == other.summary["cost"]["tokens"]


def test_each_draws_dropout_as_it_would_alone() -> None:
    """Of batches of other sizes, in places of both ranks, and of one token alone."""
    sizes, shapes = [(3, 5), (2, 7)], [(3, 7, 4), (3, 2, 7, 7), (3, 2, 1, 7), (3, 1, 4)]
    drawing = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    for shape in shapes:
        expected = []
        for (examples, tokens), generator in zip(sizes, drawing, strict=True):
            own = [examples, *(min(size, tokens) if size == 7 else size for size in shape[1:])]
            torch.set_rng_state(generator.get_state())
            kept = torch.empty(own, dtype=torch.bool)
            draw(kept, 0.3)
            expected.append(kept)
        with as_each(Each(sizes, drawing)):
            dropped = torch.func.vmap(lambda x: dropout(x, 0.3), randomness="same")(torch.ones(2, *shape))
        for found, kept in zip(dropped, expected, strict=True):
            within = found[tuple(slice(size) for size in kept.shape)]
            assert torch.equal(within > 0, kept) and float(found.sum()) == pytest.approx(float(within.sum()))


STOPPING = ["budget.steps=60", "evaluation.every_steps=4", "evaluation.patience=3"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], MLM, STOPPING], ids=["classification", "mlm", "some stop early"])
def test_killed_anywhere_all_go_on_to_the_bit(words: list[str], tmp_path: Path) -> None:
    run = ["-m", *RUN, *words, "seed=range(4)", "compute.together=3", "compute.checkpoint_seconds=0.03"]
    finish(*run, f"paths.output={tmp_path / 'whole'}")
    torn, draws = tmp_path / "torn", random.Random(1)
    torn.mkdir()
    for _ in range(6):
        child, first = start(*run, f"paths.output={torn}"), newest_step(torn)
        wait_until(lambda first=first: newest_step(torn) > first or done(torn) == 4, child)  # type: ignore[misc]  # a lambda's default
        time.sleep(draws.random() * 0.2)
        child.kill()
        child.wait()
    told = finish(*run, f"paths.output={torn}")
    assert done(torn) == 4, told
    whole = by_seed(tmp_path / "whole")
    assert {seed: result(folder) for seed, folder in by_seed(torn).items()} == {
        seed: result(folder) for seed, folder in whole.items()
    }
    if words == STOPPING:
        steps = {
            json.loads((folder / "summary.json").read_text())["cost"]["steps"] for folder in whole.values()
        }
        assert len(steps) > 1, "some stopped before others"


def done(output: Path) -> int:
    files = output.glob("*/summary.json")
    return sum(json.loads(file.read_text())["status"] == "finished" for file in files)


@pytest.mark.slow
def test_a_signal_has_all_write_a_checkpoint_at_one_step(tmp_path: Path) -> None:
    run = ["-m", *RUN, "budget.steps=300", "seed=range(3)", "compute.together=3", f"paths.output={tmp_path}"]
    child = start(*run)
    wait_until(lambda: len(list(tmp_path.glob("*/metrics.jsonl"))) == 3 and told_so_far(tmp_path) > 3, child)
    child.kill(signal.SIGTERM)
    _, errors = child.wait()
    assert child.returncode == 128 + signal.SIGTERM and "checkpoint written" in errors
    steps = [sorted(place.name for place in run.glob("checkpoints/step-*")) for run in tmp_path.glob("*-*")]
    assert len(steps) == 3 and all(one == steps[0] and len(one) == 1 for one in steps)
    told = finish(*run, "budget.steps=300", "evaluation.every_steps=20")
    assert "continuing at step" in told and done(tmp_path) == 3


def told_so_far(output: Path) -> int:
    return max((len(file.read_text().splitlines()) for file in output.glob("*/metrics.jsonl")), default=0)


def test_what_has_finished_is_skipped_and_the_rest_is_grouped_by_all_but_the_seed(cli: Cli) -> None:
    grid = ["-m", *RUN, "budget.steps=4", "seed=range(3)", "compute.together=8"]
    assert cli("-m", *RUN, "budget.steps=4", "seed=1,2", "compute.together=8")[0] == 0
    status, out, _ = cli(*grid, "optimizer.lr=1e-3,3e-3")
    assert status == 0
    assert "together: seeds 0, 1, 2" in out, "all of one learning rate"
    assert "seed 0: no other to train with" in out, "those of the other have been made"
    assert out.count("finished already") == 2
    environments = [json.loads(file.read_text()) for file in Path("multirun").glob("*/environment.json")]
    assert sorted(len(one.get("trained_with_seeds", [])) for one in environments) == [0, 1, 1, 2, 2, 2]


def test_what_a_run_costs_is_its_own_share() -> None:
    began = time.perf_counter()
    runs = bertlab.sweep([*RUN, "seed=range(4)", "compute.together=4"])
    spent = time.perf_counter() - began
    assert 0 < sum(run.summary["cost"]["seconds"] for run in runs) < spent


def test_one_that_diverges_leaves_the_others_alone(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It alone is told as failed; the others' bits are what they are."""
    whole = bertlab.sweep([*RUN, "seed=range(2)", "compute.together=3", "paths.output=whole"])
    check, calls = loop.check_finite, []

    def third_diverges(loss: Any, norm: Any, step: int, lr: float, folder: Path) -> None:
        check(loss, norm, step, lr, folder)
        if RunFolder(folder.parent).tree()["seed"] == 2 and step == 7:
            calls.append(step)
            raise DivergedError("training diverged at step 7")

    monkeypatch.setattr(loop, "check_finite", third_diverges)
    status, out, err = cli("-m", *RUN, "seed=range(3)", "compute.together=3", "paths.output=three")
    assert status == 2 and err.count("diverged") == 1 and "run 3/3" in err and calls == [7], (out, err)
    for run in whole:
        own = by_seed(Path("three"))[run.summary["seed"]]
        assert math.isclose(
            json.loads((own / "summary.json").read_text())["metrics"]["validation/loss"],
            run.metrics["validation/loss"],
            abs_tol=1e-4,
        )


def test_without_memory_all_go_on_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = seeds.Stack.forward

    def lacking(self: Any, calls: Any, generators: Any) -> Any:
        if any(call.size[0] > 6 for call in calls):
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, calls, generators)

    monkeypatch.setattr(seeds.Stack, "forward", lacking)
    runs = bertlab.sweep([*RUN, "budget.steps=9", "seed=range(3)", "compute.together=3"])
    assert {run.summary["cost"]["micro_batch"] for run in runs} <= {6, 3}, "3 where a batch was of six"


SEARCH = ["optimizer.lr=interval(1e-4,1e-3)", "hydra.sweeper.n_trials=1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compute.processes=2"], "leave compute.processes at 1"),
        (["compute.compile=true"], "leave compute.compile out"),
        (["tracker=wandb"], "tracker=wandb tracks one run of a process at a time"),
        (["hydra/launcher=cores"], "leave one of the two out"),
        (SEARCH, "in a search"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_done_together_is_refused(words: list[str], said: str, cli: Cli) -> None:
    grid = [] if words == SEARCH else ["seed=range(2)"]
    status, _, err = cli("-m", *RUN, "budget.steps=2", "compute.together=2", *grid, *words)
    assert status == 2 and said in err, err


def test_a_pretraining_is_trained_by_itself_once(cli: Cli) -> None:
    """It is the one that single runs begin with too."""
    stage = [
        *("init=stage", "tokenizer=inherited", "init.dataset=synthetic", "init.dataset.task=documents"),
        *("init.dataset.train_size=60", "init.objective=mlm", "init.budget.steps=5"),
        *("init.tokenizer=wordlevel", "tokenizer.max_unknown_share=1"),
    ]
    words = [*RUN, *stage, "budget.steps=4"]
    assert cli(*words, "seed=0")[0] == 0
    status, out, _ = cli("-m", *words, "seed=range(2)", "compute.together=2")
    assert status == 0 and "together: seeds 0, 1" in out
    assert len(list(Path("multirun").glob("synthetic-mlm-*"))) == 1


def test_a_report_of_seeds_trained_together_is_reproduced_to_the_bit(cli: Cli) -> None:
    words = [*RUN, "budget.steps=4", "seed=0,1,2", "compute.together=3"]
    assert cli("-m", *words)[0] == 0
    assert cli("report", "runs=multirun", "out=report")[0] == 0
    shutil.rmtree("multirun")
    status, out, err = cli("reproduce", "report=report")
    assert status == 0, err
    assert "together: seeds 0, 1, 2" in out and "equal to the bit" in out
