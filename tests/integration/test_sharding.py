"""Two processes of which each keeps a part of weights, gradients and optimizer state: what one process trains
and writes, to rounding; killed anywhere, to the bit. Real processes, really killed.
"""

import json
import random
import signal
from pathlib import Path

import pytest
import torch
from test_processes import MLM, RUN, ended, team, together

from bertlab.runs.files import load_weights
from children import finish, newest_step, only_run, result, start, wait_until

SHARDED = "compute.sharding=full"
EMA = ["optimizer.ema_decay=0.9"]

pytestmark = pytest.mark.slow


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    assert all(one[name].shape == other[name].shape for name in one)
    return max(float((one[name] - other[name]).abs().max()) for name in one if one[name].is_floating_point())


@pytest.mark.parametrize(
    ("words", "of", "alone"),
    [
        (["dataset.train_size=88"], 2, []),  # 88 = 6 x 14 + 4
        ([*MLM[len(RUN) :], *EMA, "compute.micro_batch_size=3"], 2, ["compute.micro_batch_size=6"]),
        # one example for three, and four batches to score
        (["dataset.train_size=29", "evaluation.batch_size=16"], 3, []),
        ([*MLM[len(RUN) :], "optimizer=muon", "optimizer.lr=1e-3"], 2, []),
        ([*MLM[len(RUN) :], "optimizer=sgd", "optimizer.lr=0.05"], 2, []),
        (["optimizer=lion", "optimizer.lr=1e-4", "finetune.freeze_layers=1"], 2, []),
        (["finetune.layer_lr_decay=0.8", "optimizer.skip_spikes=3", "model.positions=rotary"], 2, []),
    ],
    ids=["classification", "accumulated and averaged mlm", "unequal", "muon", "sgd", "frozen", "spikes"],
)
def test_parts_train_as_a_whole(tmp_path: Path, words: list[str], of: int, alone: list[str]) -> None:
    """The weights of 50 steps to rounding, the same files, the same scores; a run of its own."""
    finish(*RUN, *words, *alone, f"paths.output={tmp_path / 'one'}")
    together(*RUN, *words, SHARDED, f"paths.output={tmp_path / 'parts'}", of=of)
    folders = [only_run(tmp_path / name) for name in ("one", "parts")]
    for file in ("last.safetensors", "model.safetensors"):
        assert largest_difference(*(load_weights(folder / file) for folder in folders)) < 1e-5
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    for name in ("steps", "examples", "tokens", "parameters", "flops"):
        assert summaries[0]["cost"][name] == pytest.approx(summaries[1]["cost"][name])
    assert summaries[1]["metrics"]["validation/loss"] == pytest.approx(
        summaries[0]["metrics"]["validation/loss"], rel=1e-4
    )
    files = [{path.name for path in folder.iterdir()} for folder in folders]
    assert files[0] == files[1]
    numerics = [json.loads((folder / "identity.json").read_text())["numerics"] for folder in folders]
    assert "sharding" not in numerics[0] and numerics[1]["sharding"] == "full"


BAG = '''
"""A bag of words: no layers that could be groups."""

from dataclasses import dataclass

from torch import nn

from bertlab.config.schema import ModelConfig, integer
from bertlab.contracts import Encoder


@dataclass
class Bag(ModelConfig):
    hidden_size: int = integer(16, "width", low=1)

    def build(self, vocab_size, pad_id):
        return BagEncoder(self, vocab_size, pad_id)


class BagEncoder(Encoder):
    def __init__(self, config, vocab_size, pad_id):
        super().__init__(config)
        self.hidden_size = config.hidden_size
        self.token, self.dropout = nn.Embedding(vocab_size, config.hidden_size, pad_id), nn.Dropout(0.1)

    def forward(self, input_ids, segment_ids=None, attention_mask=None, pooled_only=False):
        return self.dropout(self.token(input_ids))

    def token_weight(self):
        return self.token.weight
'''


@pytest.mark.parametrize("kind", ["bag", "hf"])
def test_encoders_of_others_train_in_parts(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that tells no layers apart, and Hugging Face's, whose dropout is torch's own."""
    words = [word for word in RUN if not word.startswith("model.")] + ["budget.steps=10"]
    if kind == "hf":
        test_hf = pytest.importorskip("test_hf", reason="transformers is not installed")
        place = test_hf.folder_of("BertConfig", tmp_path / "hub")
        words += [f"model.name_or_path={place}", "model=hf", "init=pretrained", "tokenizer=inherited"]
    else:
        (tmp_path / "plugins" / "models").mkdir(parents=True)
        (tmp_path / "plugins" / "models" / "bag.py").write_text(BAG)
        monkeypatch.setenv("BERTLAB_PLUGINS", str(tmp_path / "plugins"))
        words += ["model=bag", "model.pooling=mean"]
    finish(*words, f"paths.output={tmp_path / 'one'}")
    together(*words, SHARDED, f"paths.output={tmp_path / 'parts'}")
    one, parts = (load_weights(only_run(tmp_path / name) / "last.safetensors") for name in ("one", "parts"))
    assert largest_difference(one, parts) < 1e-5


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLM by two in parts, with averaged weights, never interrupted."""
    output = tmp_path_factory.mktemp("undisturbed")
    together(*MLM, *EMA, SHARDED, f"paths.output={output}")
    return only_run(output)


def test_a_run_in_parts_that_loses_a_process_goes_on_to_the_bit(undisturbed: Path, tmp_path: Path) -> None:
    """Whichever is killed; the other ends with a line."""
    words = (*MLM, *EMA, SHARDED, "compute.checkpoint_seconds=0", f"paths.output={tmp_path}")
    draw = random.Random(5)
    for step in (2, 25):
        members = team(*words)
        wait_until(lambda step=step: newest_step(tmp_path) >= step, members[0])  # type: ignore[misc]  # a default that mypy does not infer
        lost = draw.randrange(2)
        members[lost].kill(signal.SIGKILL)
        told = ended(members)
        assert members[1 - lost].returncode == 2 and "Traceback" not in told[1 - lost][1], told
        assert "another one of this run has ended" in told[1 - lost][1], told
    together(*words)
    assert result(only_run(tmp_path)) == result(undisturbed)


def test_a_run_in_parts_is_used_as_any_other(undisturbed: Path, tmp_path: Path) -> None:
    """Scored, and begun with, by one process: its files know of no parts."""
    told = finish("evaluate", f"run={undisturbed}", "split=validation", "compute=cpu")
    summary = json.loads((undisturbed / "summary.json").read_text())
    assert f"{summary['metrics']['validation/loss']:.3f}" in told, told
    words = ["init=checkpoint", f"init.path={undisturbed}", "tokenizer=inherited", "budget.steps=2"]
    finish(*MLM, *words, f"paths.output={tmp_path}")


def test_what_cannot_be_trained_in_parts_is_one_line_before_anything_is_made(tmp_path: Path) -> None:
    cases = {
        "optimizer=adafactor": "optimizer=adafactor cannot work on weights in parts",
        "compute.compile=true": "an encoder in parts is not compiled",
        "compute.together=2": "leave compute.processes at 1",
        "evaluation.pairs=blimp": "bertlab evaluate run=",
    }
    for word, line in cases.items():
        members = team(*MLM, SHARDED, word, f"paths.output={tmp_path}")
        told = ended(members)
        assert [member.returncode for member in members] == [2, 2] and told[1][1] == "", (word, told)
        assert line in told[0][1] and told[0][1].count("\n") == 1, (word, told)
    err = finish_with_error(*RUN, SHARDED, f"paths.output={tmp_path}")
    assert "one process has nobody to share with" in err
    assert not list(tmp_path.glob("*/config.yaml"))


def finish_with_error(*words: str) -> str:
    child = start(*words)
    _, err = child.wait()
    assert child.returncode == 2 and err.count("\n") == 1, err
    return err
