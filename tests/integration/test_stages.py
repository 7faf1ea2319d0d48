"""Promise 5: pretraining described in place is computed once, shared, found again by content, and survives
being killed.
"""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import bertlab
from bertlab.config.composition import compose_schema
from bertlab.errors import ConfigError
from bertlab.runs.configs import config_of
from bertlab.runs.folder import RunFolder
from bertlab.runs.outcome import Context
from bertlab.training.location import locate
from bertlab.training.steps.stops import MemoryExhausted
from children import finish, kill_when, result, start
from tiny import tiny

pytestmark = pytest.mark.slow

SMALL = (*tiny(sizes=(100, 40, 20)), "compute.checkpoint_seconds=0.02")
STAGE = (
    *SMALL, "budget.steps=10", "init=stage", "init.dataset=synthetic", "init.dataset.task=documents",
    "init.dataset.train_size=100",
    "init.dataset.validation_size=20", "init.dataset.test_size=20", "init.objective=mlm_nsp",
    "init.objective.max_length=48",
    "init.tokenizer=wordlevel", "init.budget.epochs=3", "init.budget.batch_size=8",
    "init.evaluation.every_epochs=1",
    "tokenizer.max_unknown_share=1",  # the stage's documents hold half of these words
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of STAGE, never interrupted."""
    output = tmp_path_factory.mktemp("whole")
    finish(*STAGE, f"paths.output={output}")
    return output


def runs(output: Path, objective: str) -> list[Path]:
    return sorted(
        place for place in output.glob(f"synthetic-{objective}-*") if (place / "config.yaml").is_file()
    )


def test_a_stage_is_computed_once_and_shared_by_all_seeds(tmp_path: Path) -> None:
    out = finish("-m", "seed=0,1,2", *STAGE, f"paths.output={tmp_path}")
    (stage,) = runs(tmp_path, "mlm_nsp")
    finetuned = runs(tmp_path, "classification")
    assert len(finetuned) == 3 and out.count("mlm_nsp on synthetic") == 1
    for folder in finetuned:
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["stage"]["run"] == stage.name and summary["stage"]["cost"]["epochs"] == 3
        assert (folder / "tokenizer.json").read_text() == (stage / "tokenizer.json").read_text()


def test_first_weights_are_the_stages(tmp_path: Path) -> None:
    """With a learning rate of next to nothing the encoder ends as the stage left it."""
    run = bertlab.run([*STAGE, f"paths.output={tmp_path}", "optimizer.lr=1e-12", "optimizer.weight_decay=0"])
    (stage,) = runs(tmp_path, "mlm_nsp")
    expected = load_file(stage / "model.safetensors")
    for name, weight in run.model.state_dict().items():
        if name.startswith("encoder."):
            torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-9)
    assert bertlab.load(run.folder).config.init.objective.max_length == 48, (
        "the pretraining is read back from the run's folder"
    )


@pytest.mark.parametrize("together", [1, 2])
def test_a_stage_that_ran_out_of_memory_names_the_run_by_what_it_became(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """The same command finds its runs again, whether the pretraining was made by it or lay there."""
    from bertlab.objectives.mlm_nsp import MlmNspObjective
    from bertlab.training import lifecycle

    loss, compute, computed = MlmNspObjective.loss, lifecycle.compute, list[str]()

    def small_machine(self: Any, outputs: Any, batch: Any) -> Any:
        if batch.num_examples > 4 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(self, outputs, batch)

    def counted(run: Any, *arguments: Any) -> Any:
        computed.append(run.config.objective.name)
        return compute(run, *arguments)

    monkeypatch.setattr(MlmNspObjective, "loss", small_machine)
    monkeypatch.setattr(lifecycle, "compute", counted)
    words = [*STAGE, "budget.steps=3", "init.budget.epochs=1", "seed=0,1", f"compute.together={together}"]
    first = bertlab.sweep(words)
    assert computed == ["mlm_nsp", "mlm_nsp", "classification", "classification"]
    again = bertlab.sweep(words)
    assert [run.folder for run in again] == [run.folder for run in first] and len(computed) == 4
    stages = [RunFolder(place) for place in runs(first[0].folder.parent, "mlm_nsp")]
    (small,) = (stage for stage in stages if stage.finished())
    for run in first:
        assert run.summary["stage"]["run"] == small.path.name
        assert RunFolder(run.folder).identity()["inputs"]["stage"] == small.identity()["id"]


@pytest.mark.parametrize(
    "words", [(*STAGE, "init.objective=mlm"), SMALL], ids=["of its pretraining", "its own"]
)
def test_memory_that_several_processes_lacked_is_on_record(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """The next command looks for the run that was made in smaller parts, not for the one that did not fit."""
    from bertlab.training import lifecycle

    begun: list[str] = []

    def process(_of: int, _work: Any, tree: dict[str, Any], _context: Any) -> bool:
        run = locate(config_of(tree, "tree"))
        now = run if run.stage is None else run.stage
        now.folder.path.mkdir(parents=True)
        if now.config.compute.micro_batch_size is None:
            raise MemoryExhausted(4)
        begun.append(run.folder.path.name)
        return False

    monkeypatch.setattr(lifecycle, "run_together", process)
    config = compose_schema("train", [*words, "compute.processes=2"])
    outcome = lifecycle.train(config, Context("bertlab"))
    assert begun == [outcome.folder.path.name] == [locate(config).folder.path.name]


def test_a_stage_is_the_same_run_as_its_own_command(tmp_path: Path) -> None:
    """Content-addressed: who pretrains by hand with the same settings has computed the stage."""
    alone = [
        *tiny(sizes=(100, 20, 20)), "dataset.task=documents", "objective=mlm_nsp", "objective.max_length=48",
        "tokenizer=wordlevel",
        "budget.epochs=3", "budget.batch_size=8", "evaluation.every_epochs=1", f"paths.output={tmp_path}",
    ]  # fmt: skip
    by_hand = bertlab.run(alone)
    bertlab.run([*STAGE, f"paths.output={tmp_path}"])
    assert runs(tmp_path, "mlm_nsp") == [by_hand.folder]


def test_what_decides_the_stage_decides_the_run() -> None:
    def run_id(*overrides: str) -> str:
        config: Any = compose_schema("train", [*STAGE, *overrides])
        return locate(config).id

    same = run_id()
    for override in (
        "init.optimizer.lr=1e-4",
        "init.objective.rate=0.3",
        "init.seed=1",
        "init.model={hidden_dropout: 0}",
        "seed=1",
    ):
        assert run_id(override) != same, override
    assert run_id("init.evaluation.batch_size=3", "paths.output=elsewhere") == same


def test_kill_in_the_middle_of_a_stage_changes_nothing(whole: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"

    def in_the_stage() -> bool:
        return any(int(place.name[5:]) >= 15 for place in torn.glob("synthetic-mlm_nsp-*/checkpoints/step-*"))

    kill_when(start(*STAGE, f"paths.output={torn}"), in_the_stage)
    assert not (runs(torn, "mlm_nsp")[0] / "model.safetensors").exists() and not runs(torn, "classification")
    out = finish(*STAGE, f"paths.output={torn}")
    assert "continuing at step" in out
    for objective in ("mlm_nsp", "classification"):
        assert result(runs(torn, objective)[0]) == result(runs(whole, objective)[0])


@pytest.mark.parametrize("objective", ["mlm", "nsp", "rtd"])
def test_kill_in_the_middle_of_an_epoch_of_pretraining_changes_nothing(
    objective: str, tmp_path: Path
) -> None:
    words = (
        f"objective={objective}", "objective.max_length=48", "dataset.task=documents", *SMALL,
        "budget.epochs=4", "budget.batch_size=4",
        "evaluation.every_steps=15",
    )  # fmt: skip
    finish(*words, f"paths.output={tmp_path / 'whole'}")
    torn = tmp_path / "torn"
    for least in (4, 24):

        def ready(least: int = least) -> bool:
            return any(int(place.name[5:]) >= least for place in torn.glob("*/checkpoints/step-*"))

        kill_when(start(*words, f"paths.output={torn}"), ready)
    assert "continuing at step" in finish(*words, f"paths.output={torn}")
    assert result(runs(torn, objective)[0]) == result(runs(tmp_path / "whole", objective)[0])


def test_polite_signal_within_a_stage_leaves_with_its_status(tmp_path: Path) -> None:
    child = start(*STAGE, f"paths.output={tmp_path}")
    kill_when(
        child, lambda: bool(list(tmp_path.glob("synthetic-mlm_nsp-*/checkpoints/step-*"))), signal.SIGTERM
    )
    assert child.returncode == 143


def test_parallel_runs_share_one_stage(tmp_path: Path) -> None:
    children = [start(*STAGE, f"seed={seed}", f"paths.output={tmp_path}") for seed in range(2)]
    outs = [child.wait() for child in children]
    assert [child.returncode for child in children] == [0, 0], outs
    (stage,) = runs(tmp_path, "mlm_nsp")
    assert (
        len((stage / "sessions.jsonl").read_text().splitlines()) == 1
        and len(runs(tmp_path, "classification")) == 2
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tokenizer=wordpiece"], "tokenizer=inherited"),
        (["init.objective=nsp", "init.dataset.task=sentiment"], "needs document"),
        (["init.objective.max_length=4000"], "max_position_embeddings"),
        (["init.budget.hours=1", "init.budget.epochs=null"], "in the pretraining"),
        (["init.model={hidden_drpout: 0}"], "did you mean 'hidden_dropout'"),
        (["init.model={hidden_dropout: much}"], "hidden_dropout"),
    ],
)
def test_nonsense_in_a_stage_is_told_in_one_line(words: list[str], expected: str, cli: Any) -> None:
    status, _, errors = cli(*STAGE, *words)
    assert status == 2 and len(errors.splitlines()) == 1 and expected in errors, errors
    assert not Path("multirun").exists()


def test_inherited_tokenizer_needs_something_to_inherit_from() -> None:
    with pytest.raises(ConfigError, match="init=scratch names nothing"):
        bertlab.run(["tokenizer=inherited"])
