"""`evaluation.select_on=half`: one half of validation chooses the weights, the other is reported."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

import bertlab
from bertlab.data.dataset import LoadedDataset, halved, load_for
from bertlab.data.tables.table import TableDataset
from bertlab.declarations import TEXT, Role
from bertlab.errors import DataError
from children import finish, kill_when, newest_step, only_run, result, start
from tiny import tiny

pytestmark = pytest.mark.slow

ROLES = (TEXT, Role("label", "label", is_answer=True))
TABLE = TableDataset(name="own")


def loaded(texts: Sequence[str], labels: Sequence[int], parts: Sequence[int] = ()) -> LoadedDataset:
    rows = Dataset.from_dict({"text": list(texts), "label": list(labels)})
    return LoadedDataset(
        {"train": rows, "validation": rows, "test": rows},
        ["no", "yes"],
        parts={"validation": list(parts)} if parts else {},
        best_possible={"validation": {"accuracy": 0.9}, "test": {"accuracy": 0.8}},
    )


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), min_size=2, max_size=60))
def test_halves_share_no_text_and_lose_no_row(cells: list[tuple[int, int]]) -> None:
    if len({number for number, _ in cells}) < 2:
        return
    texts, labels = [f"text {number}" for number, _ in cells], [label for _, label in cells]
    both = halved(TABLE, loaded(texts, labels), ROLES)
    assert list(both.splits) == ["train", "selection", "validation", "test"]
    one, other = (both.splits[split][:] for split in ("selection", "validation"))
    assert not set(one["text"]) & set(other["text"]) and one["text"] and other["text"]
    rows = [*zip(one["text"], one["label"], strict=True), *zip(other["text"], other["label"], strict=True)]
    assert sorted(rows) == sorted(zip(texts, labels, strict=True))
    assert both.best_possible == {"test": {"accuracy": 0.8}}, "what all rows could reach says nothing of half"


def test_halves_have_equal_shares_of_the_classes() -> None:
    labels = [int(place % 5 == 0) for place in range(200)]
    both = halved(TABLE, loaded([f"text {place}" for place in range(200)], labels), ROLES).splits
    assert [(len(both[split]), sum(both[split]["label"])) for split in ("selection", "validation")] == [
        (100, 20),
        (100, 20),
    ]


def test_halves_of_a_mixture_know_their_parts() -> None:
    texts = [f"{'ab'[place >= 30]} {place}" for place in range(40)]
    both = halved(TABLE, loaded(texts, [0] * 40, [30, 10]), ROLES)
    for split in ("selection", "validation"):
        own = both.splits[split]["text"]
        assert both.parts[split] == [sum(text[0] == part for text in own) for part in "ab"]


def test_what_cannot_be_halved_is_one_line() -> None:
    with pytest.raises(DataError, match=r"own: evaluation.select_on=half: the 3 rows of validation cannot"):
        halved(TABLE, loaded(["Same", "same", "same!"], [0, 1, 0]), ROLES)


WORDS = tiny(
    "evaluation.select_on=half", "evaluation.every_steps=5", "budget.steps=30", "budget.batch_size=8",
    "compute.checkpoint_seconds=0.02", sizes=(200, 80, 20),
)  # fmt: skip


def test_one_half_chooses_and_the_other_is_reported(tmp_path: Path) -> None:
    told = finish(*WORDS, f"paths.output={tmp_path}/whole")
    run = only_run(tmp_path / "whole")
    summary = json.loads((run / "summary.json").read_text())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    name = "selection/accuracy"
    scored = {record["step"]: record[name] for record in records if name in record}
    best = summary["metrics"]["selection/accuracy"]
    assert summary["selected_by"] == "selection/accuracy"
    assert best == max(scored.values()) == scored[summary["selected_step"]]
    assert not any("validation/accuracy" in record for record in records), "it is looked at once"
    kept = {
        split: [json.loads(line) for line in (run / f"predictions/{split}.jsonl").read_text().splitlines()]
        for split in ("selection", "validation")
    }
    assert len(kept["selection"]) == len(kept["validation"]) == 40
    rows = load_for(bertlab.load(run).config)
    gold = [rows.label_names[label] for label in rows.splits["validation"]["label"]]
    right = np.mean([row["label"] == true for row, true in zip(kept["validation"], gold, strict=True)])
    assert summary["metrics"]["validation/accuracy"] == pytest.approx(right)
    assert f"validation accuracy  {right:.4f}" in told
    assert f"{right:.4f}" in finish("evaluate", f"run={run}"), "the same rows again"

    kill_when(start(*WORDS, f"paths.output={tmp_path}/torn"), lambda: newest_step(tmp_path / "torn") >= 8)
    finish(*WORDS, f"paths.output={tmp_path}/torn")
    assert result(only_run(tmp_path / "torn")) == result(run)


def test_a_search_looks_at_the_half_that_chooses_and_a_report_says_which(tmp_path: Path) -> None:
    search = ("-m", "hydra/sweeper=bertlab_optuna", "hydra.sweeper.sampler=grid", "optimizer.lr=1e-3,1e-5")
    finish(*search, *WORDS, f"paths.output={tmp_path}/search")
    best = (tmp_path / "search").rglob("best.yaml")
    text = next(best).read_text()
    trials = next((tmp_path / "search").rglob("trials.csv")).read_text()
    assert "selection/accuracy" in text + trials
    finish("-m", *WORDS, "seed=range(2)", f"paths.output={tmp_path}/runs")
    finish("report", f"runs={tmp_path}/runs", f"out={tmp_path}/report")
    page = (tmp_path / "report" / "report.md").read_text()
    assert "the half of validation that chose nothing; the other half chose each run's checkpoint" in page
    assert "Selection accuracy over training" in page or "the last selection scores" in page
    assert "alidation accuracy over training" not in page and "the last validation scores" not in page
