"""What the records in experiments/ promise: a report is made again from the runs beside it, and a record's
tables are its report's.
"""

import json
import re
from pathlib import Path

import pytest

from bertlab.jobs.report import Schema, compare_runs, scores_of
from bertlab.report.pages.page import Page, PageTable, to_markdown
from bertlab.runs.records import KEPT, KEPT_PREDICTIONS, read_kept

ROOT = Path(__file__).parents[2] / "experiments"
REPORTS = sorted(path.parent for path in ROOT.rglob("report.json"))
RECORDS = sorted({ROOT / folder.relative_to(ROOT).parts[0] for folder in REPORTS})
KEPT_BESIDE = [folder for folder in REPORTS if (folder / KEPT).is_file()]
BY_HAND = "by hand"


def name_of(folder: Path) -> str:
    return str(folder.relative_to(ROOT))


def tables_of(text: str) -> list[list[str]]:
    """Each Markdown table as its lines, rules left out."""
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[line for line in table.splitlines() if not re.fullmatch(r"[|:\- ]+", line)] for table in tables]


def without_examples(table: list[str]) -> list[str]:
    """Its lines without the columns that take the data to be computed."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table]
    kept = [place for place, head in enumerate(cells[0]) if not head.strip().endswith("examples too")]
    return ["|" + "|".join(row[place] for place in kept) + "|" for row in cells]


@pytest.mark.parametrize("folder", KEPT_BESIDE, ids=name_of)
def test_a_report_is_made_again_from_the_runs_beside_it(folder: Path) -> None:
    written = json.loads((folder / "report.json").read_text())
    request = {**written["request"], "runs": str(folder), "examples": False, "contamination": False}
    _, studies, page = compare_runs(Schema(**request))
    assert scores_of(studies) == written["scores"]
    scores = [
        block
        for block in page.blocks
        if isinstance(block, PageTable) and block.caption.startswith(("Scores over", "Validation, seed"))
    ]
    assert len(scores) == 2 * len(studies)
    for table in tables_of(to_markdown(Page("", list(scores)))):
        assert table in map(without_examples, tables_of((folder / "report.md").read_text()))
    earlier = [run for run in read_kept(folder / KEPT) if not run.problem and "results" not in run.code]
    assert bool(earlier) == ("by an earlier version of the core" in to_markdown(page))


@pytest.mark.parametrize("folder", KEPT_BESIDE, ids=name_of)
def test_what_is_compared_is_kept_whole(folder: Path) -> None:
    """Every run that the report compares: its history and, in full, what it predicted, as its own accuracy
    says.
    """
    compared = json.loads((folder / "report.json").read_text())["scores"]
    runs = {run.name: run for run in read_kept(folder / KEPT)}
    for name in compared:
        history, rows = runs[name].source.history(), runs[name].source.predictions("validation")
        assert history and rows
        if "probabilities" in rows[0]:
            assert all(
                row["label"] == max(row["probabilities"], key=row["probabilities"].get) for row in rows
            )
            assert sum(map(sum, runs[name].summary["metrics"]["validation/confusion"])) == len(rows)


def test_records_are_small_and_hold_what_their_text_shows() -> None:
    """Nothing that a command makes again; no figure that no text shows, and none shown that is not there."""
    files = [file for file in ROOT.rglob("*") if file.is_file()]
    assert not [file for file in files if file.suffix in (".html", ".tex", ".jsonl", ".yaml", ".safetensors")]
    assert {file.name for file in files if file.suffix == ".parquet"} == {KEPT, KEPT_PREDICTIONS}
    assert sum(file.stat().st_size for file in files) < 9_000_000
    linked = {
        (text.parent / target).resolve()
        for text in files
        if text.suffix == ".md"
        for target in re.findall(r"\]\(([^)\s:#]+)\)", text.read_text())
    }
    assert [target for target in sorted(linked) if not target.exists()] == []
    assert {file.resolve() for file in files if file.suffix == ".png"} <= linked


def test_the_index_has_every_record() -> None:
    """In order, each once."""
    listed = re.findall(
        r"^\| \[(\d{3})\]\(([^/]+)/README\.md\)", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    folders = sorted(folder.name for folder in ROOT.iterdir() if folder.is_dir())
    assert [folder for _, folder in listed] == folders
    assert all(folder.startswith(number) for number, folder in listed)


@pytest.mark.parametrize("record", RECORDS, ids=name_of)
def test_a_records_tables_are_its_reports_or_say_that_they_are_not(record: Path) -> None:
    """Line for line; a table that no report makes is said to be by hand in the paragraph before it."""
    text = (record / "README.md").read_text()
    linked = [record / target for target in re.findall(r"\(([^)\s]*report\.md)\)", text)]
    assert linked, "the record links no report"
    made = [line for report in linked for table in tables_of(report.read_text()) for line in table]
    for before, table in re.findall(r"((?:.+\n)+)\n((?:\|.*\n)+)", text):
        if BY_HAND not in " ".join(before.split()):
            assert [line for line in tables_of(table)[0] if line not in made] == []
    assert len(re.findall(r"\n\n\|", text)) == len(tables_of(text)), "a table without an empty line before it"


def test_the_results_told_stand_in_their_records() -> None:
    """Every number with a decimal in the README's table of results, and in the index's, to its last digit."""
    readme, index = (ROOT.parent / "README.md").read_text(), (ROOT / "README.md").read_text()
    of_readme = re.findall(r"^\| .* \| (.*) \| \[\d{3}\]\(experiments/([^)]*)\) \|$", readme, re.MULTILINE)
    of_index = re.findall(r"^\| \[\d{3}\]\(([^)]*)\) \| .* \| (.*) \| [^|]* \|$", index, re.MULTILINE)
    assert of_readme and len(of_index) > 10
    for result, record in [*of_readme, *((result, record) for record, result in of_index)]:
        text = (ROOT / record).read_text()
        told = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text.replace(",", ""))]
        for number in re.findall(r"\d+\.\d+", result):
            half = 0.5 * 10.0 ** -len(number.partition(".")[2])
            assert any(abs(float(number) - other) <= half + 1e-9 for other in told), (
                f"{record} does not have {number}: {result}"
            )
