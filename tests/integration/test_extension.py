"""A dataset is one YAML file; an objective, a model, an optimizer is one Python file each. Nothing else is touched."""

import json
import os
import subprocess
import sys
from pathlib import Path

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

@dataclass
class Bag(ModelConfig):
    width: int = integer(8, "embedding size", low=1)

class BagEncoder(nn.Module):
    def __init__(self, rows, width, pad_id):
        super().__init__()
        self.hidden_size, self.embedding = width, nn.Embedding(rows, width, padding_idx=pad_id)
    def forward(self, input_ids, segment_ids=None, attention_mask=None):
        return self.embedding(input_ids)
    def pool(self, hidden, attention_mask):
        return hidden.mean(1)
    def token_weight(self):
        return self.embedding.weight

def build(config, vocab_size, pad_id=0):
    return BagEncoder(vocab_size, config.width, pad_id)
'''
OPTIMIZER = '''
"""Gradient descent on signs."""
from dataclasses import dataclass
import torch
from bertlab.config.schema import OptimizerConfig

@dataclass
class Sign(OptimizerConfig):
    pass

class _Sign(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.grad.sign_()
        super().step()

def build(config, groups):
    return _Sign([group.to_torch(config.lr, 0.0) for group in groups], lr=config.lr)
'''
OBJECTIVE = '''
"""Classification with a squared loss."""
from dataclasses import dataclass
import torch
from bertlab.config.schema import ObjectiveConfig
from bertlab.contracts import Loss
from bertlab.objectives.classification import Classification, ClassificationObjective

@dataclass
class Brier(ObjectiveConfig):
    pass

class BrierObjective(ClassificationObjective):
    def loss(self, outputs, batch):
        target = torch.nn.functional.one_hot(batch.targets["label"], len(self.label_names))
        return Loss(((outputs.float().softmax(-1) - target) ** 2).sum(), batch.num_examples)

def build(config, vocabulary, label_names):
    return BrierObjective(Classification(name="brier", max_length=config.max_length), vocabulary, label_names)
'''


def write(folder: Path) -> None:
    for name, content in {
        "mine/conf/dataset/pets.yaml": DATASET, "mine/models/bag.py": MODEL, "mine/optimizers/sign.py": OPTIMIZER,
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


def bertlab(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "BERTLAB_PLUGINS": str(folder / "mine")}
    return subprocess.run(
        [sys.executable, "-m", "bertlab", *words], capture_output=True, text=True, cwd=folder, env=environment, timeout=120
    )


def test_one_file_each_is_enough(tmp_path: Path) -> None:
    write(tmp_path)
    words = ("dataset=pets", "model=bag", "optimizer=sign", "objective=brier", "optimizer.lr=0.02", "model.width=16",
             "tokenizer.min_frequency=1", "budget.epochs=12", "compute.threads=1")  # fmt: skip
    done = bertlab(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    run = done.stdout.splitlines()[-1].removeprefix("run: ")
    summary = json.loads((tmp_path / run / "summary.json").read_text())
    assert summary["metrics"]["validation/accuracy"] == 1.0
    found = bertlab(tmp_path, "predict", f"run={run}", "text=the cat sat", "format=jsonl")
    assert json.loads(found.stdout)["label"] == "cat", found.stderr
    assert "bag" in bertlab(tmp_path, "--help").stdout

    (tmp_path / "mine/models/bag.py").write_text(MODEL.replace("hidden.mean(1)", "hidden.sum(1)"))
    assert "finished already" not in bertlab(tmp_path, *words).stdout, "an edited model is a new run"


def test_typos_in_the_users_own_components_are_told_in_one_line(tmp_path: Path) -> None:
    write(tmp_path)
    for word, expected in (("model.widht=3", "model.width"), ("model=bga", "'bag'"), ("dataset=pet", "'pets'")):
        done = bertlab(tmp_path, "model=bag", "optimizer=sign", "objective=brier", word)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and expected in done.stderr, done.stderr
