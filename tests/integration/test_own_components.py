"""Components of the user's own that change, that have heads nobody knows, and scores that cannot be."""

import json
from pathlib import Path

import pytest

from bertlab.declarations import Metric
from children import finish, only_run, start
from tiny import tiny

OWN = '''
"""Classification by a head of its own."""
from dataclasses import dataclass
from torch import nn
from bertlab.contracts import Head, Metric
from bertlab.objectives.classification import Classification, ClassificationObjective

SCALE = 1.0

@dataclass
class Own(Classification):
    def metrics(self, label_names=()):
        accuracy, *others = super().metrics(label_names)
        return (Metric("accuracy", higher_is_better=True, bounds=(0.0, 0.01)), *others)

    def build(self, vocabulary, label_names):
        return OwnObjective(self, vocabulary, label_names)

class OwnObjective(ClassificationObjective):
    def build_head(self, encoder, initializer_range):
        return OwnHead(encoder, len(self.label_names))

class OwnHead(Head):
    def __init__(self, encoder, classes):
        super().__init__()
        self.steps = nn.Linear(encoder.hidden_size, classes)

    def forward(self, encoder, hidden, batch):
        return SCALE * self.steps(encoder.pool(hidden, batch.attention_mask))
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "mine" / "objectives" / "own.py"
    file.parent.mkdir(parents=True)
    file.write_text(OWN)
    monkeypatch.setenv("BERTLAB_PLUGINS", str(tmp_path / "mine"))
    return file


def test_an_own_head_does_not_leave_as_a_class_that_has_no_place_for_it(plugin: Path, tmp_path: Path) -> None:
    told = finish(*tiny("objective=own", "budget.steps=3"))
    run = only_run(tmp_path / "multirun")
    summary = json.loads((run / "summary.json").read_text())
    broken = "outside the bounds [0.0, 0.01] that its objective declares"
    assert broken in told and any(broken in note for note in summary["notes"])

    child = start("export", f"run={run}", "to=folder")
    _, errors = child.wait()
    assert child.returncode == 2 and len(errors.splitlines()) == 1, errors
    assert "objective=own: its head has steps.weight, steps.bias" in errors and "what=encoder" in errors
    assert not (tmp_path / "folder").exists()

    assert "has changed since" not in "".join(start("evaluate", f"run={run}").wait())
    plugin.write_text(OWN.replace("SCALE = 1.0", "SCALE = -1.0"))
    for words in (["evaluate", f"run={run}"], ["predict", f"run={run}", "text=good"]):
        child = start(*words)
        _, errors = child.wait()
        assert (
            child.returncode == 0 and "plugins/objectives/own has changed since this run was made" in errors
        )


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.5, 0.5)])
def test_bounds_of_a_metric_are_the_right_way_round(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"metric odd: bounds=.* must be \(lowest, highest\)"):
        Metric("odd", higher_is_better=True, bounds=bounds)
