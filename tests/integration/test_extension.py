"""A dataset is one YAML file; an objective, a model, an optimizer is one Python file each. Nothing else is
touched.
"""

import json
from pathlib import Path

import pytest

from children import finish, start

DATASET = """
defaults: [table, _self_]
name: pets
train_file: pets.csv
text_column: sentence
label_column: animal
"""
MODEL = '''
"""A bag of embeddings."""
from dataclasses import dataclass
from torch import nn
from bertlab.config.schema import ModelConfig, integer
from bertlab.contracts import Encoder

@dataclass
class Bag(ModelConfig):
    width: int = integer(8, "embedding size", low=1)

    def build(self, vocab_size, pad_id):
        return BagEncoder(self, vocab_size, pad_id)

class BagEncoder(Encoder):
    def __init__(self, config, rows, pad_id):
        super().__init__(config)
        self.hidden_size, self.embedding = config.width, nn.Embedding(rows, config.width, padding_idx=pad_id)
    def forward(self, input_ids, segment_ids=None, attention_mask=None, pooled_only=False):
        return self.embedding(input_ids)
    def pool(self, hidden, attention_mask):
        return hidden.mean(1)
'''
OPTIMIZER = '''
"""Gradient descent on signs."""
from dataclasses import dataclass
import torch
from bertlab.config.schema import OptimizerConfig

@dataclass
class Sign(OptimizerConfig):
    def build(self, groups):
        return _Sign([group.to_torch(self.lr, 0.0) for group in groups], lr=self.lr)

class _Sign(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.grad.sign_()
        super().step()
'''
OBJECTIVE = '''
"""Classification with a squared loss."""
from dataclasses import dataclass
import torch
from bertlab.contracts import Loss
from bertlab.objectives.classification import Classification, ClassificationObjective

@dataclass
class Brier(Classification):
    def build(self, vocabulary, label_names):
        return BrierObjective(self, vocabulary, label_names)

class BrierObjective(ClassificationObjective):
    def loss(self, outputs, batch):
        target = torch.nn.functional.one_hot(batch.targets["label"], len(self.label_names))
        return Loss(((outputs.float().softmax(-1) - target) ** 2).sum(), batch.num_examples)
'''


def write(folder: Path) -> None:
    for name, content in {
        "mine/conf/dataset/pets.yaml": DATASET, "mine/models/bag.py": MODEL,
        "mine/optimizers/sign.py": OPTIMIZER,
        "mine/objectives/brier.py": OBJECTIVE,
    }.items():  # fmt: skip
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    rows = [
        f'"the {kind} {verb} {place}",{kind}'
        for kind in ("cat", "dog")
        for verb in ("sat", "ran", "hid")
        for place in ("here", "there", "home")
    ]
    (folder / "pets.csv").write_text("sentence,animal\n" + "\n".join(rows * 4) + "\n")


def test_one_file_each_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setenv("BERTLAB_PLUGINS", str(tmp_path / "mine"))
    words = ("dataset=pets", "model=bag", "optimizer=sign", "objective=brier", "optimizer.lr=0.02",
        "model.width=16",
             "tokenizer.min_frequency=1", "budget.epochs=12", "compute.threads=1")  # fmt: skip
    run = finish(*words).splitlines()[-1].removeprefix("run: ")
    summary = json.loads((tmp_path / run / "summary.json").read_text())
    assert summary["metrics"]["validation/accuracy"] == 1.0
    assert json.loads(finish("predict", f"run={run}", "text=the cat sat", "format=jsonl"))["label"] == "cat"
    assert "bag" in finish("--help")

    (tmp_path / "mine/models/bag.py").write_text(MODEL.replace("hidden.mean(1)", "hidden.sum(1)"))
    assert "finished already" not in finish(*words), "an edited model is a new run"


def test_typos_in_the_users_own_components_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    monkeypatch.setenv("BERTLAB_PLUGINS", str(tmp_path / "mine"))
    for word, expected in (
        ("model.widht=3", "model.width"),
        ("model=bga", "'bag'"),
        ("dataset=pet", "'pets'"),
    ):
        child = start("model=bag", "optimizer=sign", "objective=brier", word)
        _, err = child.wait()
        assert child.returncode == 2 and len(err.splitlines()) == 1 and expected in err, err
