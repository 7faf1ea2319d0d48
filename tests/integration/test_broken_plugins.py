"""A plugin that breaks its contract is told so in one line: file, class, method, what it gave and what is
right.
"""

import json
from pathlib import Path
from typing import Any

import pytest

ORDINAL = (Path(__file__).parents[1] / "plugins/objectives/regression.py").read_text(encoding="utf-8")
OPTIMIZER = '''
"""Plain descent."""
from dataclasses import dataclass
import torch
from bertlab.config.schema import OptimizerConfig

@dataclass
class Plain(OptimizerConfig):
    def build(self, groups):
        return torch.optim.SGD([group.to_torch(self.lr, 0.0) for group in groups], lr=self.lr)
'''
TRACKER = '''
"""Counts records."""
from dataclasses import dataclass
from bertlab.config.schema import TrackerConfig
from bertlab.contracts import Tracker

@dataclass
class Counting(TrackerConfig):
    def build(self, info):
        return CountingTracker()

class CountingTracker(Tracker):
    def log(self, record):
        pass
    def finish(self, summary):
        pass
'''
MODEL = '''
"""A bag of embedded words."""
from dataclasses import dataclass
from torch import nn
from bertlab.config.schema import ModelConfig
from bertlab.contracts import Encoder

@dataclass
class Bag(ModelConfig):
    def build(self, vocab_size, pad_id):
        return BagEncoder(self, vocab_size, pad_id)

class BagEncoder(Encoder):
    def __init__(self, config, rows, pad_id):
        super().__init__(config)
        self.hidden_size, self.embedding = 8, nn.Embedding(rows, 8, padding_idx=pad_id)
    def forward(self, input_ids, segment_ids=None, attention_mask=None, pooled_only=False):
        return self.embedding(input_ids)
'''
FILES = {"objectives/ordinal.py": ORDINAL, "optimizers/plain.py": OPTIMIZER, "trackers/counting.py": TRACKER,
    "models/bag.py": MODEL}  # fmt: skip
WORDS = ["dataset=files", "dataset.train_file=stars.csv", "dataset.label_column=null",
    "dataset.number_column=stars", "objective=ordinal", "optimizer=plain", "tracker=counting", "model=bag",
    "model.pooling=mean", "budget.steps=2", "compute=cpu", "compute.threads=1",
    "tokenizer.min_frequency=1"]  # fmt: skip
MEASURE = 'return {"said": outputs.double().cpu().numpy(), "number": batch.targets["number"].cpu().numpy()}'
SCORES = '{"rmse": mean**0.5, "pearson": float(covariance / spread) if spread > 0 else 0.0, "loss": mean}'
BUILT = "return RegressionObjective(self, vocabulary, label_names)"
SGD = "return torch.optim.SGD([group.to_torch(self.lr, 0.0) for group in groups], lr=self.lr)"
BATCH = """return contracts.Batch(
            tokens, torch.zeros_like(tokens), torch.from_numpy(inside), targets, int(inside.sum()), len(rows)
        )"""

POINTS = 'contracts.Metric("pearson", True, "", (-1.0, 1.0))'
# file, what stands there, what stands there instead, and what the one line says
BROKEN = {
    "loss gives a tensor": ("objectives/ordinal.py",
        "return contracts.Loss(\n            ((outputs.float() - batch.targets[\"number\"].float()) ** 2)"
        ".sum(), batch.num_examples\n        )",
        "return ((outputs.float() - batch.targets[\"number\"].float()) ** 2).sum()",
        "RegressionObjective.loss returned a value of type Tensor; it must return"
        " bertlab.contracts.Loss(total, count)"),
    "loss is one an example": ("objectives/ordinal.py", "** 2).sum(), batch", "** 2), batch",
        "RegressionObjective.loss returned Loss(total, count) with a total of shape (",),
    "a score is left out": ("objectives/ordinal.py", SCORES, '{"rmse": mean**0.5, "loss": mean}',
        "RegressionObjective.scores returned no pearson; it must return each metric that its"
        " config's metrics declares: rmse, pearson, loss"),
    "a score is not declared": ("objectives/ordinal.py", SCORES, SCORES.replace("}", ', "mae": mean}'),
        "RegressionObjective.scores returned mae, which its config's metrics does not declare"),
    "a score is a text": ("objectives/ordinal.py", SCORES, SCORES.replace("mean**0.5", "'good'"),
        "RegressionObjective.scores returned rmse as a value of type str; it must be a number"),
    "scores gives one number": ("objectives/ordinal.py", SCORES, "mean",
        "RegressionObjective.scores returned a value of type float; it must return dict"),
    "measure gives an array": ("objectives/ordinal.py", MEASURE, "return outputs.numpy()",
        "RegressionObjective.measure returned a value of type ndarray; it must return dict"),
    "measure gives tensors": ("objectives/ordinal.py", MEASURE, 'return {"said": outputs}',
        "RegressionObjective.measure returned said as a value of type Tensor; it must be a numpy array with"
        " one element an example"),
    "collate gives a dictionary": ("objectives/ordinal.py", BATCH, 'return {"input_ids": tokens}',
        "RegressionObjective.collate returned a value of type dict; it must return"
        " bertlab.contracts.Batch(input_ids, "),
    "prepare yields lists": ("objectives/ordinal.py", "yield contracts.examples_of(ids, ", "yield (ids, ",
        "RegressionObjective.prepare yielded a value of type tuple; it must yield"
        " bertlab.contracts.Examples(tokens, offsets)"),
    "prepare yields nothing": ("objectives/ordinal.py", "yield contracts.examples_of", "yield from ()  #",
        "RegressionObjective.prepare yielded nothing of"),
    "prepare returns nothing": ("objectives/ordinal.py", "yield contracts.examples_of",
        "contracts.examples_of", "RegressionObjective.prepare returned None; it must yield"),
    "a head of torch alone": ("objectives/ordinal.py", "(contracts.Head)", "(torch.nn.Module)",
        "RegressionObjective.build_head returned a value of type RegressionHead; it must return"
        " bertlab.contracts.Head"),
    "an objective is not built": ("objectives/ordinal.py", BUILT, "RegressionObjective(self, vocabulary, ())",
        "Regression.build returned None; it must return bertlab.contracts.Objective"),
    "an objective that begins alone": ("objectives/ordinal.py",
        "super().__init__(config, vocabulary, label_names)", "self.special = vocabulary.special",
        "RegressionObjective.__init__ does not call super().__init__(config, vocabulary, label_names)"),
    "metrics by name": ("objectives/ordinal.py", "contracts.loss_metric(self.loss_unit),", '"loss",',
        "Regression.metrics returned a value of type str among them; it must return a tuple of"
        " bertlab.declarations.Metric"),
    "an optimizer is not built": ("optimizers/plain.py", SGD, "pass",
        "Plain.build returned None; it must return torch.optim"),
    "an optimizer without peak_lr": ("optimizers/plain.py", "group.to_torch(self.lr, 0.0)",
        "{'params': group.weights}", "Plain.build returned a torch group without peak_lr"),
    "a tracker is none": ("trackers/counting.py", "return CountingTracker()", "return print",
        "Counting.build returned a value of type builtin_function_or_method; it must return"
        " bertlab.contracts.Tracker or None"),
    "an encoder is none": ("models/bag.py", "return BagEncoder(self, vocab_size, pad_id)",
        "return nn.Embedding(vocab_size, 8)", "Bag.build returned a value of type Embedding; it must return"
        " bertlab.contracts.Encoder"),
    # methods that were forgotten
    "no loss": ("objectives/ordinal.py", "def loss(", "def losses(",
        "RegressionObjective lacks loss(outputs, batch), which its contract asks for"),
    "no measure, no scores": ("objectives/ordinal.py", "def measure(", "def measured(",
        "RegressionObjective lacks measure(outputs, batch), which"),
    "no metrics": ("objectives/ordinal.py", "def metrics(", "def scores(",
        "Regression lacks metrics(label_names), which"),
    "no objective's build": ("objectives/ordinal.py", "def build(", "def make(",
        "Regression lacks build(vocabulary, label_names), which"),
    "no head's forward": ("objectives/ordinal.py", "def forward(", "def call(",
        "RegressionHead lacks forward(encoder, hidden, batch), which"),
    "no encoder's forward": ("models/bag.py", "def forward(", "def call(",
        "BagEncoder lacks forward(input_ids, segment_ids, attention_mask, pooled_only), which"),
    "no model's build": ("models/bag.py", "def build(", "def make(", "Bag lacks build(vocab_size, pad_id)"),
    "no optimizer's build": ("optimizers/plain.py", "def build(", "def make(", "Plain lacks build(groups)"),
    "no tracker's build": ("trackers/counting.py", "def build(", "def make(", "Counting lacks build(info)"),
    "no tracker's log": ("trackers/counting.py", "def log(", "def record(",
        "CountingTracker lacks log(record), which"),
    "declares tokens, has no logits": ("objectives/ordinal.py", "    roles: ClassVar",
        "    predicts_tokens: ClassVar = True\n    roles: ClassVar",
        "RegressionObjective lacks token_logits(outputs), which predicts_tokens = True asks for"),
    # declarations that were forgotten
    "no roles": ("objectives/ordinal.py", "    roles: ClassVar", "    columns: ClassVar",
        "objective=ordinal declares no roles"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of plugins that keep their contracts, and a table to train on."""
    folder = tmp_path / "mine"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(content)
    rows = "".join(f"a shop of {index % 5} stars {index % 7},{index % 5}\n" for index in range(200))
    (tmp_path / "stars.csv").write_text("text,stars\n" + rows)
    monkeypatch.setenv("BERTLAB_PLUGINS", str(folder))
    return folder


def replace(file: Path, before: str, after: str) -> None:
    content = file.read_text()
    assert before in content, f"{file.name} has no {before}"
    file.write_text(content.replace(before, after))


def test_they_train_as_long_as_they_keep_their_contracts(cli: Any) -> None:
    status, out, err = cli(*WORDS)
    assert status == 0, err
    summary = json.loads((Path(out.splitlines()[-1].removeprefix("run: ")) / "summary.json").read_text())
    assert summary["selected_by"] == "validation/rmse"


@pytest.mark.parametrize("case", BROKEN)
def test_what_breaks_its_contract_is_told_in_one_line(cli: Any, mine: Path, case: str) -> None:
    name, before, after, expected = BROKEN[case]
    replace(mine / name, before, after)
    status, out, err = cli(*WORDS)
    assert status == 2 and err.count("\n") == 1, err
    assert expected in err, err
    if "declares no roles" not in err:
        assert err.startswith(f"bertlab: {mine / name}: "), err
    assert "step " not in out, "told before training"


def test_a_score_that_a_split_may_lack_is_declared_so(cli: Any, mine: Path) -> None:
    replace(mine / "objectives/ordinal.py", SCORES, '{"rmse": mean**0.5, "loss": mean}')
    replace(mine / "objectives/ordinal.py", POINTS, POINTS.replace("1.0))", "1.0), may_lack=True)"))
    status, _, err = cli(*WORDS)
    assert status == 0, err


def test_help_lists_what_a_plugin_lacks(cli: Any, mine: Path) -> None:
    file = mine / "objectives/ordinal.py"
    for before, after in (
        ("def loss(", "def lose("),
        ("def metrics(", "def numbers("),
        ("def forward(", "def f("),
    ):
        replace(file, before, after)
    status, out, err = cli("help", "objective=ordinal")
    assert status == 0, err
    for lacking in (
        "Regression.metrics(label_names)",
        "RegressionHead.forward(encoder, hidden, batch)",
        "RegressionObjective.loss(outputs, batch)",
    ):
        assert lacking in out
    assert "lacks" not in cli("help", "optimizer=plain")[1]


def test_one_broken_plugin_stops_nobody_who_does_not_use_it(cli: Any, mine: Path) -> None:
    replace(mine / "objectives/ordinal.py", "def metrics(", "def numbers(")
    status, _, err = cli(*[word for word in WORDS if word != "objective=ordinal"], "objective=regression")
    assert status == 0, err


def test_what_a_plugin_raises_ends_with_its_place(cli: Any, mine: Path) -> None:
    """The traceback is the plugin's; its last line says whose."""
    file = mine / "objectives/ordinal.py"
    replace(file, "return contracts.Loss(", "raise ZeroDivisionError('mine')\n        return contracts.Loss(")
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "raise Zero" in text)
    with pytest.raises(ZeroDivisionError) as raised:
        cli(*WORDS)
    assert raised.value.__notes__ == [f"in your plugin {file}, line {line}"]


def test_what_is_raised_elsewhere_is_not_blamed_on_a_plugin(
    cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bertlab.training.execution.start_trackers", fail)
    with pytest.raises(ZeroDivisionError) as raised:
        cli(*WORDS)
    assert "__notes__" not in vars(raised.value)


def test_a_score_that_fails_on_a_few_rows_alone_stops_nothing(cli: Any, mine: Path) -> None:
    """What is looked at before training is a few rows; the whole split may have what they lack."""
    replace(mine / "objectives/ordinal.py", "        error, spread = (",
        "        if len(measured['said']) < 12:\n            raise ValueError\n"
        "        error, spread = (")  # fmt: skip
    status, _, err = cli(*WORDS, "evaluation.batch_size=2")
    assert status == 0, err
