"""W&B, offline, read back by its own reader: what runs, continued runs, sweeps and reports leave there."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runfolders import three_arms

from bertlab.contracts import Metric, RunInfo
from bertlab.errors import ConfigError
from bertlab.trackers.wandb import Wandb, knock, worst_errors
from children import PATIENCE
from tiny import tiny


def records(place: Path) -> list[dict[str, Any]]:
    """What is really written, record by record."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(place)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def of(told: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in told if record["type"] == kind]


def offline(out: str) -> list[Path]:
    """The folders of the ready lines."""
    return [Path(found) for found in re.findall(r"^to upload it: wandb sync (\S+)$", out, re.MULTILINE)]


def test_runs_of_a_sweep_are_named_by_what_differs_and_grouped(cli: Any, tmp_path: Path) -> None:
    words = tiny("budget.steps=2", "tracker=wandb", "tracker.mode=offline", f"paths.output={tmp_path}")
    status, out, err = cli("-m", *words, "optimizer.lr=1e-3,2e-3", "tags=[mine]")
    assert status == 0, err
    places = offline(out)
    assert len(places) == 2 and all(place.is_dir() for place in places)
    told = [records(place) for place in places]
    runs = [of(one, "run")[0] for one in told]
    names = [run["display_name"] for run in runs]
    assert ["optimizer.lr=0.001" in names[0], "optimizer.lr=0.002" in names[1]] == [True, True], names
    assert runs[0]["run_group"] == runs[1]["run_group"] and runs[0]["run_group"].startswith("sweep-")
    text = json.dumps(of(told[0], "summary"))
    identity = ("identity/code.results", "identity/numerics.device", "identity/inputs.dataset", "command")
    for name in ("cost/tokens", "cost/flops", "cost/parameters", *identity, "validation/accuracy"):
        assert name in text, name


def info(folder: Path, **more: Any) -> RunInfo:
    about: dict[str, Any] = {"answers": {"label": "label"}, "classes": "label", **more}
    return RunInfo(
        "0123456789ab", folder, "a run", "train", {}, ["no", "yes"], Metric("accuracy", True), "nats", **about
    )


class Rows(dict[str, Any]):
    """A split as an objective reads it: columns by role, or one row."""

    column_names = ("text", "label")

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else {name: self[name][key] for name in self}


ROWS = Rows(text=["a secret", "b", "c"], label=[0, 1, 1])
PREDICTED = [
    {"label": "yes", "probabilities": {"no": 0.1, "yes": 0.9}},
    {"label": "yes", "probabilities": {"no": 0.1, "yes": 0.9}},
    {"label": "no", "probabilities": {"no": 0.6, "yes": 0.4}},
]


@pytest.mark.parametrize("texts", [False, True])
def test_errors_are_a_table_and_texts_leave_only_when_asked_to(
    texts: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Wandb(name="wandb", mode="offline", texts=texts).build(info(tmp_path))
    tracker.examples("validation", ROWS, PREDICTED)
    tracker.examples("test", ROWS, PREDICTED)
    tracker.finish({"status": "finished"})
    (place,) = offline(capsys.readouterr().out)
    (file,) = place.rglob("errors*.table.json")
    table = json.loads(file.read_text())
    assert table["columns"] == ["row", "true", "predicted", "p of the true class", *["text"] * texts]
    assert [row[0] for row in table["data"]] == [0, 2]
    assert any(b"a secret" in one.read_bytes() for one in place.rglob("*") if one.is_file()) == texts


def test_classes_of_another_role_are_found_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = Rows(text=ROWS["text"], verdict=ROWS["label"])
    tracker = Wandb(name="wandb", mode="offline").build(info(tmp_path, classes="verdict"))
    tracker.examples("validation", rows, PREDICTED)
    tracker.finish({"status": "finished", "metrics": {"validation/confusion": [[0, 1], [1, 1]]}})
    (place,) = offline(capsys.readouterr().out)
    (errors,), (counts,) = (list(place.rglob(f"{name}*.table.json")) for name in ("errors", "confusion"))
    assert [row[0] for row in json.loads(errors.read_text())["data"]] == [0, 2]
    assert ["no", "yes", 1] in json.loads(counts.read_text())["data"]


def test_what_no_objective_declares_as_classes_is_not_taken_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An answer of the kind label that is not predicted as classification does, another nested score."""
    tracker = Wandb(name="wandb", mode="offline").build(info(tmp_path, classes=None))
    tracker.examples("validation", ROWS, [{"said": 1}] * 3)
    tracker.finish({"status": "finished", "metrics": {"validation/confusion": [[1, 2, 3]]}})
    (place,) = offline(capsys.readouterr().out)
    assert not list(place.rglob("*.table.json"))


def test_the_worst_errors_come_first_and_rows_without_a_class_are_none() -> None:
    labels = np.array([0, -1, 1, 1])
    told = [PREDICTED[0], PREDICTED[0], PREDICTED[1], PREDICTED[2]]
    assert worst_errors(labels, ["no", "yes"], told, 9) == [[0, "no", "yes", 0.1], [3, "yes", "no", 0.4]]
    assert worst_errors(labels, ["no", "yes"], told, 1) == [[0, "no", "yes", 0.1]]


def test_a_continued_run_has_its_id_and_the_newest_folder_holds_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loop tells a tracker what earlier sessions knew, too."""
    first = Wandb(name="wandb", mode="offline").build(info(tmp_path))
    first.log({"step": 1, "train/loss": 1.0})
    first.finish({"status": "interrupted"})
    second = Wandb(name="wandb", mode="offline").build(info(tmp_path))
    for step in (1, 2):
        second.log({"step": step, "train/loss": 1.0 / step})
    second.finish({"status": "finished", "metrics": {"validation/accuracy": 0.5}})
    (before, after) = [records(place) for place in offline(capsys.readouterr().out)]
    assert of(before, "run")[0]["run_id"] == of(after, "run")[0]["run_id"] == "0123456789ab"
    assert of(before, "exit")[0].get("exit_code") == 1 and not of(after, "exit")[0].get("exit_code")
    steps = [json.dumps(one) for one in of(after, "history")]
    assert len(steps) == 2 and "0.5" in steps[1]


def test_what_an_earlier_session_told_a_server_is_not_told_again(tmp_path: Path) -> None:
    """W&B refuses a step that lies behind its own."""
    told: list[int] = []

    class Server:
        starting_step = 3

        def log(self, _: dict[str, Any], step: int) -> None:
            told.append(step)

    tracker = Wandb(name="wandb", mode="disabled").build(info(tmp_path))
    real, tracker.run = tracker.run, Server()
    for step in (1, 2, 3, 4):
        tracker.log({"step": step, "train/loss": 1.0})
    real.finish()
    assert told == [3, 4]


def test_where_nobody_answers_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and listens not: whoever knocks is refused
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(ConfigError, match=rf"nobody answers at {address} .*WANDB_MODE=offline"):
            knock("tracker=wandb", address)
        taken.listen()
        knock("tracker=wandb", address)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which may know a way
        knock("tracker=wandb", "http://nowhere.invalid")


def test_a_report_is_uploaded_as_an_artifact_with_its_page(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    three_arms(tmp_path / "runs")
    words = ["runs=runs", "out=out", "examples=false", "contamination=false", "wandb=papers/mine"]
    status, out, err = cli("report", *words)
    assert status == 0, err
    (place,) = offline(out)
    told = records(place)
    run, artifact = of(told, "run")[0], of(told, "artifact")[0]
    assert (run["entity"], run["project"], run["job_type"]) == ("papers", "mine", "report")
    paths = {entry["path"] for entry in artifact["manifest"]["contents"]}
    assert {"report.html", "report.tex", "methods.txt", "runs.csv", "report.json"} <= paths
    assert {"figures", "tables"} == {path.partition("/")[0] for path in paths if "/" in path}, "no W&B files"
    assert list(place.rglob("*.html")) and list(place.rglob("*.table.json"))
