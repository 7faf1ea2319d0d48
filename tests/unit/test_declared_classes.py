"""Whose classes predictions name with their probabilities is declared by the objective and recorded with the
run; nothing is inferred from its class or from its answers' kinds.
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from datasets import Dataset
from runfolders import change_summary, write_run

import bertlab
from bertlab.config import registry
from bertlab.config.composition import compose_schema
from bertlab.contracts import Role, RunInfo
from bertlab.errors import ConfigError
from bertlab.objectives.classification import Classification
from bertlab.report import by_example
from bertlab.report.grouping import studies_of
from bertlab.runs.folder import RunFolder
from bertlab.runs.records import find_runs, read_run
from bertlab.training import execution
from bertlab.training.assembly import check_combination
from tiny import tiny


def test_classification_declares_it_and_no_other_objective_does() -> None:
    declared = {name: registry.load_schema("objective", name) for name in registry.options("objective")}
    told: dict[str, Any] = {name: one.tells_classes_of for name, one in declared.items()}
    assert {name: role for name, role in told.items() if role is not None} == {"classification": "label"}


def test_a_run_records_it_and_trackers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    infos: list[RunInfo] = []
    usual = execution.LocalTracker
    monkeypatch.setattr(execution, "LocalTracker", lambda info: infos.append(info) or usual(info))
    run = bertlab.run([*tiny("budget.steps=2", sizes=(60, 20, 20)), "paths.output=out"])
    assert run.summary["classes"] == "label" and [info.classes for info in infos] == ["label"]
    assert read_run(RunFolder(run.folder)).classes == "label"


@pytest.mark.parametrize(
    ("recorded", "classes"),
    [
        ({"answers": {"verdict": "label"}, "classes": "verdict"}, "verdict"),
        ({"answers": {"label": "label", "when": "number"}, "classes": "label"}, "label"),
        # a label that is not predicted as classification does
        ({"answers": {"label": "label"}, "classes": None}, None),
        # of an earlier version
        ({"answers": {"verdict": "label"}}, "verdict"),
        ({"answers": {"label": "label", "when": "number"}}, None),
        ({"answers": {"score": "number"}}, None),
        ({}, None),
    ],
)
def test_a_record_is_read_as_declared_and_an_earlier_one_as_then(
    recorded: dict[str, Any], classes: str | None, tmp_path: Path
) -> None:
    folder = write_run(tmp_path, "a", 0, 0.8)
    change_summary(folder, answers=None)
    run = read_run(RunFolder(folder))
    run.summary = {**run.summary, **recorded}
    assert run.classes == classes


def test_a_report_finds_classes_and_texts_by_their_roles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [0, 1, 1]
    told = [{"label": "no", "probabilities": {"no": 0.9, "yes": 0.1}}] * 3
    for seed in range(2):
        folder = write_run(tmp_path, f"r{seed}", seed, 1 / 3, predictions=told)
        change_summary(folder, answers={"verdict": "label"}, classes="verdict")

    rows = Dataset.from_dict({"claim": ["a", "b", "c"], "source": ["x", "y", "z"], "verdict": labels})
    roles = (Role("claim", "text"), Role("source", "text"), Role("verdict", "label", is_answer=True))
    dataset = SimpleNamespace(splits={"validation": rows}, label_names=["no", "yes"])
    monkeypatch.setattr(by_example, "_config", lambda *_: SimpleNamespace(dataset=None, objective=None))
    monkeypatch.setattr(by_example, "roles_for", lambda *_: roles)
    monkeypatch.setattr(by_example, "_dataset_of", lambda *_: dataset)
    (study,) = studies_of(find_runs([str(tmp_path)]))
    assert by_example.tells_classes(study)
    evaluated = by_example.load_evaluated(study, None)
    assert np.array_equal(evaluated.labels, labels) and evaluated.texts == ["a | x", "b | y", "c | z"]


def test_a_declared_role_that_is_no_answer_is_refused() -> None:
    @dataclass
    class Wrong(Classification):
        tells_classes_of: ClassVar = "verdict"

    config: Any = compose_schema("train", tiny())
    config.objective = Wrong(name="wrong")
    with pytest.raises(
        ConfigError, match=r"objective=wrong: tells_classes_of='verdict' is none of the roles"
    ):
        check_combination(config)
