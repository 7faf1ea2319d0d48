"""A report's runs made again: what is missing, from the report alone, with scores equal to the bit."""

import contextlib
import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from children import finish
from tiny import tiny

pytestmark = pytest.mark.slow

DATA = ["debug=smoke", *tiny(), "compute=cpu"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs and their report, made once."""
    folder = tmp_path_factory.mktemp("made")
    with contextlib.chdir(folder):
        finish("-m", *DATA, "seed=0,1", "optimizer.lr=1e-3,1e-2")
        assert "2 arms, 4 runs" in finish("report", "runs=multirun", "out=report")
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
    assert (
        status == 0
        and "2 to be made" in out
        and all(folder.name in out for folder in gone)
        and not gone[0].exists()
    ), err
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
    return [line for line in text.splitlines() if not line.startswith(("| optimizer", "| **optimizer"))]


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


def test_another_id_is_only_noted(cli: Any, report: Path) -> None:
    """A run that another version named: it is made again, under its name of today, and its scores are what
    counts.
    """
    recorded = json.loads((report / "report.json").read_text())
    name = next(iter(recorded["scores"]))
    older = f"{name[:-12]}{'0' * 12}"
    for part in ("runs", "configs", "scores"):
        recorded[part][older] = recorded[part].pop(name)
    (report / "report.json").write_text(json.dumps(recorded))
    status, out, err = cli("reproduce", "report=report")
    assert status == 0 and f"note: {older} is called {name} now" in out and "equal to the bit" in out, (
        out + err
    )
    recorded["scores"][older]["validation/loss"] += 1e-12
    (report / "report.json").write_text(json.dumps(recorded))
    status, out, err = cli("reproduce", "report=report")
    assert status == 2 and f"{older}: validation/loss was" in out and "1 of" in err


def told(folder: Path, drawn: bool) -> dict[str, bytes]:
    """A report's pages and tables, with what is drawn or without; report.json says where it was asked for."""
    files = [
        file
        for file in folder.rglob("*")
        if file.suffix in (".md", ".html", ".tex", ".csv", *([".png"] if drawn else []))
    ]
    return {
        str(file.relative_to(folder)): (
            file.read_bytes() if drawn else re.sub(rb'src="data:image[^"]*"', b"", file.read_bytes())
        )
        for file in files
    }


@pytest.mark.usefixtures("report")
def test_a_report_is_made_again_from_the_runs_it_kept(cli: Any) -> None:
    """Predictions are kept in float32: every word and number is the same, a curve's points but for a
    millionth of a dot.
    """
    words = ["keep_runs=true", "title=Again"]
    assert cli("report", "runs=multirun", *words, "out=kept")[0] == 0
    before = told(Path("kept"), drawn=False)
    shutil.move("multirun", "gone")
    assert not list(Path("kept").rglob("*.safetensors")) and len(before) > 6
    for runs, out in (("kept", "again"), ("again/runs.parquet", "third")):
        status, _, err = cli("report", f"runs={runs}", *words, f"out={out}")
        assert status == 0, err
        assert told(Path(out), drawn=False) == before
        for name in ("runs.parquet", "predictions.parquet"):
            assert (Path(out) / name).read_bytes() == (Path("kept") / name).read_bytes(), (
                "what is kept of what was kept is the same"
            )
    assert told(Path("third"), drawn=True) == told(Path("again"), drawn=True)


@pytest.mark.usefixtures("report")
@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table"])
def test_kept_runs_that_are_damaged_are_named(cli: Any, content: bytes) -> None:
    Path("kept").mkdir()
    (Path("kept") / "runs.parquet").write_bytes(content)
    status, _, err = cli("report", "runs=kept", "out=again")
    assert status == 2 and "kept/runs.parquet: damaged" in err and err.count("\n") == 1, err


def test_every_table_is_there_as_csv(report: Path) -> None:
    tables = sorted(file.name for file in (report / "tables").glob("*.csv"))
    assert tables[0] == "01-scores-over-seeds.csv" and len(tables) >= 4
    rows = list(csv.reader((report / "tables" / tables[0]).read_text().splitlines()))
    assert len(rows) == 3 and rows[0][:2] == ["arm", "seeds"]
