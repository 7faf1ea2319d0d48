"""What the records in experiments/ promise: a report is made again from the runs beside it, and a record's tables are its report's."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from bertlab.config.composition import compose_schema
from bertlab.jobs.report import compare_runs
from bertlab.report.page import Page, Table, to_markdown

ROOT = Path(__file__).parents[2] / "experiments"
REPORTS = sorted(path.parent for path in ROOT.rglob("report.json"))
RECORDS = sorted({ROOT / folder.relative_to(ROOT).parts[0] for folder in REPORTS})
BY_HAND = "by hand"


def name_of(folder: Path) -> str:
    return str(folder.relative_to(ROOT))


def tables_of(text: str) -> list[list[str]]:
    """Each Markdown table as its lines, rules left out."""
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[line for line in table.splitlines() if not re.fullmatch(r"[|:\- ]+", line)] for table in tables]


@pytest.mark.parametrize("folder", [folder for folder in REPORTS if (folder / "runs").is_dir()], ids=name_of)
def test_a_report_is_made_again_from_the_runs_beside_it(folder: Path) -> None:
    written = json.loads((folder / "report.json").read_text())
    config = compose_schema("report", [f"runs={folder / 'runs'}"])
    config = dataclasses.replace(config, **{**written["request"], "runs": config.runs, "examples": False, "contamination": False})
    _, studies, page = compare_runs(config)
    assert {run.name for study in studies for arm in study.arms for run in arm.runs.values()} <= set(written["runs"])
    scores = [block for block in page.blocks if isinstance(block, Table) and block.caption.startswith(("Scores over", "Validation, seed"))]
    assert len(scores) == 2 * len(studies)
    for table in tables_of(to_markdown(Page("", list(scores)))):
        assert table in tables_of((folder / "report.md").read_text())


@pytest.mark.parametrize("record", RECORDS, ids=name_of)
def test_a_records_tables_are_its_reports_or_say_that_they_are_not(record: Path) -> None:
    """Line for line; a table that no report makes is said to be by hand in the paragraph before it."""
    text = (record / "README.md").read_text()
    linked = [record / target for target in re.findall(r"\(([^)\s]*report\.md)\)", text)]
    assert linked, "the record links no report"
    made = [line for report in linked for table in tables_of(report.read_text()) for line in table]
    for before, table in re.findall(r"((?:.+\n)+)\n((?:\|.*\n)+)", text):
        if BY_HAND not in before:
            assert [line for line in tables_of(table)[0] if line not in made] == []
    assert len(re.findall(r"\n\n\|", text)) == len(tables_of(text)), "a table without an empty line before it"


def test_the_readmes_results_stand_in_their_records() -> None:
    """Every number with a decimal in the README's table of results, to its last digit."""
    rows = re.findall(r"^\| .* \| (.*) \| \[\d{3}\]\((experiments/[^)]*)\) \|$", (ROOT.parent / "README.md").read_text(), re.MULTILINE)
    assert len(rows) > 10
    for result, record in rows:
        text = (ROOT.parent / record).read_text()
        told = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text.replace(",", ""))]
        for number in re.findall(r"\d+\.\d+", result):
            half = 0.5 * 10.0 ** -len(number.partition(".")[2])
            assert any(abs(float(number) - other) <= half + 1e-9 for other in told), f"{record} does not have {number}: {result}"
