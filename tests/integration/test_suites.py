"""A suite: one word makes the runs of every task, a kill costs nothing, and one table says what all of them
came to.
"""

import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from children import Child
from tiny import tiny

pytestmark = pytest.mark.slow

MINE = """
tasks:
  reviews: [dataset=files, dataset.train_file=reviews.csv]
  marks: [dataset=files, dataset.train_file=marks.csv, dataset.label_column=null, dataset.number_column=mark,
          objective=regression]
recipe: [budget.steps=6, tokenizer.vocab_size=100, tokenizer.min_frequency=1]
published:
  somebody: {source: a paper, scores: {reviews: 80, marks: 50}}
"""
GOOD, BAD = ("good", "fine", "great"), ("bad", "poor", "dull")


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of the user's own: one YAML file in a folder of presets, and two tables."""
    rng = random.Random(0)
    texts = [[rng.choice([*GOOD, *BAD, "film", "plot"]) for _ in range(6)] for _ in range(80)]
    marks = [sum(word in GOOD for word in text) for text in texts]
    Path("reviews.csv").write_text(
        "text,label\n"
        + "".join(f"{' '.join(text)},{mark > 2}\n" for text, mark in zip(texts, marks, strict=True))
    )
    Path("marks.csv").write_text(
        "text,mark\n" + "".join(f"{' '.join(text)},{mark}\n" for text, mark in zip(texts, marks, strict=True))
    )
    file = tmp_path / "plugins" / "conf" / "suite" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(MINE)
    monkeypatch.setenv("BERTLAB_PLUGINS", str(tmp_path / "plugins"))
    return file


def table_of(out: str) -> str:
    return out[out.index("== Over tasks") :]


def words(*more: str) -> list[str]:
    return tiny("model=bert_tiny", *more, sizes=None)


def test_a_killed_suite_goes_on_and_ends_in_the_same_table(cli: Any) -> None:
    child = Child("-m", "suite=mine", *words("paths.output=killed"))
    until = time.time() + 200
    while (
        len(list(Path("killed").glob("*/summary.json"))) < 1 and child.poll() is None and time.time() < until
    ):
        time.sleep(0.02)
    child.kill()
    child.wait()
    done = {file: file.stat().st_mtime_ns for file in Path("killed").glob("*/model.safetensors")}
    status, out, err = cli("-m", "suite=mine", *words("paths.output=killed"))
    assert status == 0, err
    assert {file: file.stat().st_mtime_ns for file in done} == done  # nothing twice
    assert len(list(Path("killed").glob("*/summary.json"))) == 2
    status, whole, err = cli("-m", "suite=mine", *words("paths.output=whole"))
    assert status == 0, err
    assert table_of(out) == table_of(whole)
    assert re.search(r"^arm +reviews \(accuracy\) +marks \(pearson\) +mean", table_of(whole), re.MULTILINE)
    assert re.search(r"^somebody ‡ +80\.0 +50\.0 +65\.0", table_of(whole), re.MULTILINE)
    # the report says the same, and each run's own command makes that run alone
    status, _, err = cli(
        "report", "runs=whole", "suite=mine", "formats=md", "contamination=false", "texts=false"
    )
    assert status == 0, err
    report = Path("report/report.md").read_text()
    assert "## Over tasks" in report and "| somebody ‡ | 80.0 | 50.0 | 65.0 |" in report
    commands = report.replace(" \\\n        ", " ")  # each in one line
    assert re.search("^    bertlab suite=mine/marks .*model=bert_tiny", commands, re.MULTILINE)
    assert report.count("| 95 % interval | examples too |") == 2, report  # by accuracy and by correlation


def test_a_suite_is_planned_and_one_task_of_it_is_a_run(cli: Any) -> None:
    status, out, err = cli("plan", "-m", "suite=mine", "seed=range(2)", *words())
    assert status == 0, err
    assert re.search(r"^4 +mine/marks +1 +new", out, re.MULTILINE) and "4 runs: 0 finished, 4 to do" in out
    status, out, err = cli("suite=mine/marks", "--cfg", "job")
    assert (
        status == 0
        and "name: marks" in out
        and "name: regression" in out
        and "steps: 6" in out
        and "epochs: null" in out
    )
    status, out, _ = cli("suite=mine/marks", "budget.steps=7", "--cfg", "job")
    assert status == 0 and "steps: 7" in out  # the command line holds against the suite


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            ["suite=mine"],
            "a suite makes several runs: add -m, or choose one of its tasks, suite=mine/reviews",
        ),
        (["-m", "suite=mien"], "suite=mien: unknown suite, did you mean 'mine'?"),
        (["-m", "suite=mine/markss"], "suite=mine/markss: mine has no such task, did you mean 'marks'?"),
        (["-m", "suite=mine/marks", "optimizer.lrr=1"], "did you mean 'optimizer.lr'?"),
    ],
)
def test_what_is_asked_for_wrongly_is_told_in_a_line(cli: Any, given: list[str], told: str) -> None:
    status, _, err = cli(*given)
    assert status == 2 and err.count("\n") == 1 and told in err, err


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("recipe:", "recip:", "recip"),
        ("[budget.steps=6", "['budget.steps=6,7'", "several values"),
        ("budget.steps=6", "budget.stepss=6", "budget.stepss"),
        ("budget.steps=6", "steps", "'steps' is no word of the form key=value"),
        ("budget.steps=6", "experiment=bertsst2", "belongs to a whole command line"),
        ("marks: 50", "mark: 50", "there is no such task, did you mean 'marks'?"),
        ("published:", "grid: [optimizer.lr=1]\npublished:", "has one value"),
        ("source: a paper, ", "", "source"),
        ("scores: {reviews: 80", "scores: {reviews: many", "scores"),
        ("dataset=files, dataset.train_file=marks.csv", "dataset=filles", "filles"),
        ("tasks:", "- tasks:", "mine.yaml"),
        ("objective=regression]", "objective=regression", "mine.yaml"),
        ("dataset.train_file=marks.csv, dataset.label_column=null, dataset.number_column=mark,\n"
         "          objective=regression",
         "dataset.train_file=reviews.csv, dataset.name=reviews", "mine/reviews and mine/marks are both"),
    ],
)  # fmt: skip
def test_what_a_suite_says_wrongly_is_told_before_any_run(
    cli: Any, mine: Path, old: str, new: str, told: str
) -> None:
    mine.write_text(MINE.replace(old, new, 1))
    status, _, err = cli("-m", "suite=mine", *words())
    assert status == 2 and err.count("\n") == 1 and told in err, err
    assert not list(Path("multirun").glob("*/config.yaml"))
