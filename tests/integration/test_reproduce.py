"""A report's runs made again: what is missing, from the report alone, with scores equal to the bit."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DATA = ["debug=smoke", "dataset.train_size=200", "dataset.validation_size=40", "dataset.test_size=40", "compute=cpu", "compute.threads=1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs and their report, made once."""
    folder = tmp_path_factory.mktemp("made")
    for words in (["-m", *DATA, "seed=0,1", "optimizer.lr=1e-3,1e-2"], ["report", "runs=multirun", "out=report"]):
        done = subprocess.run([sys.executable, "-m", "bertlab", *words], cwd=folder, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    assert "2 arms, 4 runs" in done.stdout
    return folder


@pytest.fixture
def report(made: Path) -> Path:
    """A copy of them in the test's own folder."""
    for name in ("multirun", "report"):
        shutil.copytree(made / name, name)
    return Path("report")


def test_what_is_missing_is_made_again_from_the_report_alone(cli: Any, report: Path) -> None:
    before = {name: (report / name).read_bytes() for name in ("report.md", "runs.csv")}
    gone = sorted(Path("multirun").glob("synthetic-*"))[:2]
    for folder in gone:
        shutil.rmtree(folder)
    shutil.move("report", "elsewhere")  # nothing of the report may point to where it was
    status, out, err = cli("reproduce", "report=elsewhere", "dry_run=true")
    assert status == 0 and "2 to be made" in out and all(folder.name in out for folder in gone) and not gone[0].exists(), err
    status, out, err = cli("reproduce", "report=elsewhere")
    assert status == 0 and "equal to the bit" in out, out + err
    assert all((folder / "summary.json").is_file() for folder in gone)
    status, _, err = cli("report", "runs=multirun", "out=report")
    for name, content in before.items():
        assert without_times((report / name).read_text()) == without_times(content.decode()), name


def without_times(text: str) -> list[str]:
    """A report's lines but for seconds that runs took."""
    if text.startswith("study,"):
        return [",".join(row[:-2]) for row in csv.reader(text.splitlines())]
    return [line for line in text.splitlines() if not line.startswith(("| optimizer", "| baseline", "| **baseline"))]


def test_another_score_is_told(cli: Any, report: Path) -> None:
    recorded = json.loads((report / "report.json").read_text())
    name = next(iter(recorded["scores"]))
    recorded["scores"][name]["validation/loss"] += 1e-12
    (report / "report.json").write_text(json.dumps(recorded))
    status, out, err = cli("reproduce", "report=report")
    assert status == 2 and f"{name}: validation/loss was" in out and "1 of" in err


@pytest.mark.parametrize("content", ["", "{}", '{"runs": {}, "scores": {}}'])
def test_a_damaged_report_is_named(cli: Any, content: str) -> None:
    Path("report").mkdir()
    (Path("report") / "report.json").write_text(content)
    status, _, err = cli("reproduce", "report=report")
    assert status == 2 and "report.json: damaged" in err and err.count("\n") == 1


@pytest.mark.usefixtures("report")
def test_a_report_is_made_again_from_the_runs_it_kept(cli: Any) -> None:
    words = ["out=kept", "keep_runs=true", "title=Again"]
    assert cli("report", "runs=multirun", *words)[0] == 0
    before = {file.name: file.read_bytes() for file in Path("kept").glob("report.*") if file.suffix != ".json"}
    shutil.move("multirun", "gone")
    assert not list(Path("kept").rglob("*.safetensors"))
    status, _, err = cli("report", "runs=kept/runs", *words)
    assert status == 0, err
    assert {file.name: file.read_bytes() for file in Path("kept").glob("report.*") if file.suffix != ".json"} == before


def test_every_table_is_there_as_csv(report: Path) -> None:
    tables = sorted(file.name for file in (report / "tables").glob("*.csv"))
    assert tables[0] == "01-scores-over-seeds.csv" and len(tables) >= 4
    rows = list(csv.reader((report / "tables" / tables[0]).read_text().splitlines()))
    assert len(rows) == 3 and rows[0][:2] == ["arm", "seeds"]
