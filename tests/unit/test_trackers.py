"""Trackers beside the local files: what they are told is there to be read; a package that lacks
is one line.
"""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from bertlab.contracts import Metric, RunInfo
from bertlab.errors import ConfigError, RunError
from bertlab.runs.progress import in_notebook
from bertlab.trackers.mlflow import Mlflow, MlflowTracker
from bertlab.trackers.tensorboard import Tensorboard, flat

SUMMARY = {
    "status": "finished",
    "metrics": {"validation/accuracy": 0.75, "validation/confusion": [[1, 0], [0, 1]]},
    "cost": {"tokens": 9},
}


def info(folder: Path) -> RunInfo:
    config: dict[str, Any] = {
        "optimizer": {"lr": 0.1, "name": "adamw"},
        "seed": 3,
        "tags": ["a"],
        "none": None,
    }
    return RunInfo(
        "0123456789ab",
        folder,
        "a run",
        "train",
        config,
        ["no", "yes"],
        Metric("accuracy", True),
        "nats",
        ["mine"],
        "sweep-1",
    )


def test_a_config_is_told_as_dotted_keys() -> None:
    assert flat(info(Path()).config) == {
        "optimizer.lr": 0.1,
        "optimizer.name": "adamw",
        "seed": 3,
        "tags": "['a']",
    }


@pytest.mark.parametrize(("kind", "package"), [(Tensorboard, "tensorboard"), (Mlflow, "mlflow")])
def test_a_missing_package_is_one_line_with_the_cure(kind: Any, package: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(
        ConfigError,
        match=rf"tracker={package}: the package is not installed; pip install 'bertlab\[{package}\]'",
    ):
        kind(name=package).build(info(tmp_path))


def test_tensorboard_holds_scalars_at_their_steps(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed ('.[tensorboard]')")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = Tensorboard(name="tensorboard").build(info(tmp_path))
    for step in (1, 2):
        tracker.log({"step": step, "epoch": 0.5, "train/loss": 1.0 / step})
    tracker.finish(SUMMARY)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [(1, 1.0), (2, 0.5)]


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # MLflow's own
def test_mlflow_goes_on_in_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed ('.[mlflow]')")
    from mlflow import MlflowClient

    config = Mlflow(name="mlflow", uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    first = config.build(info(tmp_path))
    first.log({"step": 1, "train/loss": 1.0})
    first.finish({"status": "interrupted"})
    second = config.build(info(tmp_path))
    assert second.id == first.id
    second.log({"step": 2, "train/loss": 0.5})
    second.finish(SUMMARY)
    client = MlflowClient(config.uri)
    run = client.get_run(second.id)
    assert (
        run.info.status == "FINISHED"
        and run.data.params["optimizer.lr"] == "0.1"
        and run.data.tags["bertlab.sweep"] == "sweep-1"
    )
    assert run.data.metrics["final/validation/accuracy"] == 0.75 and run.data.metrics["cost/tokens"] == 9
    assert [(point.step, point.value) for point in client.get_metric_history(second.id, "train/loss")] == [
        (1, 1.0),
        (2, 0.5),
    ]


def test_a_server_that_is_gone_at_the_end_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the package and its client: neither scores nor the end are taken."""

    class MlflowException(Exception):  # noqa: N818  # the package's own name
        pass

    class Client:
        def log_batch(self, *_: Any, **__: Any) -> None:
            raise MlflowException("no server\nmore")

        def set_terminated(self, *_: Any) -> None:
            raise MlflowException("still no server")

    exceptions: Any = types.ModuleType("mlflow.exceptions")
    exceptions.MlflowException = MlflowException
    entities: Any = types.ModuleType("mlflow.entities")
    entities.Metric = lambda *about: about
    for module in (types.ModuleType("mlflow"), exceptions, entities):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    tracker = object.__new__(MlflowTracker)
    tracker.client, tracker.id = Client(), "1"
    with pytest.raises(RunError, match=r"tracker=mlflow: .*no server; the same command continues"):
        tracker.finish(SUMMARY)


def test_a_notebook_is_told_by_its_own_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its standard error is no terminal, and a person watches all the same."""
    kernel = types.ModuleType("ipykernel.zmqshell")
    assert not in_notebook()
    for runs in (False, True):  # imported by somebody, or what this process is
        shell = types.SimpleNamespace(initialized=lambda runs=runs: runs)
        monkeypatch.setattr(kernel, "ZMQInteractiveShell", shell, raising=False)
        monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", kernel)
        assert in_notebook() is runs
