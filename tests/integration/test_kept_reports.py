"""A second report over the same runs and data looks for contamination no more; its result is checked like
everything that is cached.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertlab.report import by_example

pytestmark = pytest.mark.slow

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def reported(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Words of the report over a run on a file that repeats itself."""
    monkeypatch.setenv("BERTLAB_CACHE", str(tmp_path / "cache"))
    train = "".join(f"thing number {number} is a thing,{number % 2}\n" for number in range(60))
    held = "".join(f"thing number {number} is a thing,{number % 2}\n" for number in range(55, 75))
    for name, rows in (("train", train), ("held", held)):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}")
    status, _, error = cli(
        "debug=smoke", "compute=cpu", "compute.threads=1", "dataset=files", "dataset.train_file=train.csv",
        "dataset.validation_file=held.csv", "dataset.fraction=1",
    )  # fmt: skip
    assert status == 0, error

    def report() -> str:
        status, _, error = cli("report", "runs=multirun", "formats=md")
        assert status == 0, error
        return Path("report/report.md").read_text()

    return report


def test_contamination_is_looked_for_once(
    reported: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = reported()
    assert "| training on files | validation | 20 | 5 |" in first

    def again(*_: Any) -> None:
        raise AssertionError("looked for again")

    monkeypatch.setattr(by_example, "check_contamination", again)
    assert reported().partition("## Contamination")[2] == first.partition("## Contamination")[2]


def test_a_damaged_result_is_made_again(reported: Callable[[], str], tmp_path: Path) -> None:
    first = reported()
    (kept,) = (tmp_path / "cache" / "contamination").glob("*/value.json")
    kept.write_text(kept.read_text().replace("[", "[19, ", 1))
    assert "| training on files | validation | 20 | 5 |" in reported()
    assert "| training on files | validation | 20 | 5 |" in first
    assert len(list((tmp_path / "cache" / "contamination").glob("*.damaged"))) == 1


def test_another_version_of_the_code_looks_again(
    reported: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported()
    monkeypatch.setattr(by_example, "code_version", lambda _: "another")
    reported()
    assert len(list((tmp_path / "cache" / "contamination").glob("*/value.json"))) == 2


def test_every_arm_has_its_confusion_and_its_data(reported: Callable[[], str], cli: Cli) -> None:
    status, _, error = cli(
        "-m", "debug=smoke", "compute=cpu", "compute.threads=1", "dataset=files",
        "dataset.train_file=train.csv", "dataset.validation_file=held.csv", "dataset.fraction=1",
        "optimizer.lr=2e-3,3e-3",
    )  # fmt: skip
    assert status == 0, error
    text = reported()
    assert text.count("Confusion of ") == 3 and "Confusion of optimizer.lr=0.002, mean counts" in text
    assert "| all arms | train | 60 |" in text and "left out" not in text.partition("| all arms")[2][:300]
