"""Intervals that know of seeds and of examples: they cover, and what is computed of kept predictions is the
score on record.
"""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from runfolders import write_run
from scipy import stats as scipy_stats

from bertlab.jobs.report import Schema, compare_runs
from bertlab.objectives.classification import Classification, f1_macro, matthews
from bertlab.objectives.multiple_choice import MultipleChoice
from bertlab.objectives.regression import Regression
from bertlab.report import by_example, resampling
from bertlab.report.comparison import compare
from bertlab.report.grouping import studies_of
from bertlab.report.pages.page import PageTable, to_markdown
from bertlab.report.stats import T_TEST
from bertlab.runs.records import find_runs

RNG = np.random.default_rng(0)


def means(values: np.ndarray) -> Any:
    return lambda rows: float(values[rows].mean())


def test_other_seeds_and_other_examples_are_covered() -> None:
    """Four seeds on 150 examples, examples harder or easier for all seeds, seeds better or worse on all
    examples.
    """
    hits, alone, rounds = 0, 0, 150
    for _ in range(rounds):
        right = RNG.normal(0, 0.4, 150) + RNG.normal(0, 0.03, (4, 1)) + RNG.normal(0, 0.2, (4, 150))
        low, high = resampling.interval_over_examples([means(one) for one in right], [0] * 4, 150, draws=100)
        hits += low <= 0 <= high
        seeds = right.mean(1)
        half = scipy_stats.t.ppf(0.975, 3) * seeds.std(ddof=1) / 2
        alone += abs(seeds.mean()) <= half
    assert 0.92 <= hits / rounds <= 0.99 and alone / rounds < 0.9, (hits / rounds, alone / rounds)


def test_of_one_seed_there_are_the_examples_and_of_seeds_alone_there_is_t() -> None:
    values = RNG.random(400)
    low, high = resampling.interval_over_examples([means(values)], [0], 400)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    same = [np.full(50, level) for level in (0.1, 0.2, 0.4)]
    low, high = resampling.interval_over_examples([means(one) for one in same], [0, 0, 0], 50)
    assert (low, high) == pytest.approx(
        scipy_stats.t.interval(0.95, 2, np.mean([0.1, 0.2, 0.4]), scipy_stats.sem([0.1, 0.2, 0.4]))
    )
    # two pretrainings: two units
    nested = resampling.interval_over_examples([means(one) for one in same], [0, 0, 1], 50)
    assert nested[1] - nested[0] > high - low


@pytest.mark.parametrize("seeds", [2, 3, 6])
@pytest.mark.parametrize("level", [0.95, 0.996])
def test_what_knows_of_more_is_never_narrower(seeds: int, level: float) -> None:
    """Than the seeds' own interval, nor than that of the examples."""
    for _ in range(10):
        right = RNG.normal(0, 0.4, 200) + RNG.normal(0, RNG.choice([0.001, 0.03]), (seeds, 1))
        right = right + RNG.normal(0, 0.1, (seeds, 200))
        scores = [means(one) for one in right]
        low, high = resampling.interval_over_examples(scores, [0] * seeds, 200, level, draws=200)
        of_seeds = scipy_stats.t.interval(
            level, seeds - 1, right.mean(1).mean(), scipy_stats.sem(right.mean(1))
        )
        one = resampling.interval_over_examples(
            [lambda rows, all_=right: float(all_[:, rows].mean())], [0], 200, level, draws=200
        )
        assert high - low > max(of_seeds[1] - of_seeds[0], one[1] - one[0])


def test_objectives_say_how_their_scores_come_of_rows() -> None:
    label, said = RNG.integers(0, 3, 60), RNG.integers(0, 3, 60)
    names = ["a", "b", "c"]
    predicted = [{"label": names[one]} for one in said]
    confusion = np.zeros((3, 3), dtype=np.int64)
    np.add.at(confusion, (label, said), 1)
    config = Classification(name="classification", positive_class="b")
    every = np.arange(60)
    for metric, expected in (
        ("accuracy", (label == said).mean()),
        ("f1_macro", f1_macro(confusion)),
        ("matthews", matthews(confusion)),
    ):
        score = config.score_of(metric, {"label": label}, predicted, names)
        assert score is not None and score(every) == pytest.approx(expected)
    assert config.score_of("loss", {"label": label}, predicted, names) is None
    f1 = config.score_of("f1", {"label": label}, predicted, names)
    assert f1 is not None and f1(every[:10]) == pytest.approx(
        2 * (label[:10][said[:10] == 1] == 1).sum() / ((label[:10] == 1).sum() + (said[:10] == 1).sum())
    )
    number = said + RNG.normal(0, 1, 60)
    told = [{"number": float(one)} for one in number]
    for metric, expected in (("pearson", scipy_stats.pearsonr(number, label)[0]), ("spearman",
        scipy_stats.spearmanr(number, label)[0]),
                             ("mae", np.abs(number - label).mean()), ("rmse",
                             np.sqrt(((number - label) ** 2).mean()))):  # fmt: skip
        score = Regression(name="regression").score_of(metric, {"number": label}, told, [])
        assert score is not None and score(every) == pytest.approx(expected)
    choice = MultipleChoice(name="multiple_choice").score_of(
        "accuracy", {"label": label}, [{"label": int(one)} for one in said], []
    )
    assert choice is not None and choice(every) == pytest.approx((label == said).mean())


@pytest.fixture
def with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four arms of three seeds that kept what they predicted of 60 rows, on validation and on test."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 60)

    class Rows(dict[str, Any]):
        def __len__(self) -> int:
            return len(labels)

    splits = {split: Rows(label=labels) for split in ("validation", "test")}
    for arm in range(4):
        for seed in range(3):
            wrong = rng.permutation(60)[: 20 - 3 * arm + seed]
            said = np.where(np.isin(np.arange(60), wrong), 1 - labels, labels)
            score = float((said == labels).mean())
            predictions = [{"label": ("no", "yes")[one]} for one in said]
            folder = write_run(tmp_path, f"{arm}{seed}", seed, score, score, predictions=predictions,
                               optimizer__lr=0.1 * (1 + arm))  # fmt: skip
            shutil.copy(folder / "predictions" / "validation.jsonl", folder / "predictions" / "test.jsonl")
    config = SimpleNamespace(
        objective=SimpleNamespace(for_task=lambda _: Classification(name="classification")), dataset=None
    )
    monkeypatch.setattr(by_example, "_config", lambda *_: config)
    dataset = SimpleNamespace(splits=splits, label_names=["no", "yes"])
    monkeypatch.setattr(by_example, "_dataset_of", lambda *_: dataset)
    monkeypatch.setattr(by_example, "tells_classes", lambda _: False)
    return tmp_path


def test_a_source_of_error_more_makes_no_interval_narrower(with_data: Path) -> None:
    """Of three comparisons the interval over seeds is at 98.3 %, and so is the one over examples too; on test
    as on validation.
    """
    (study,) = studies_of(find_runs([str(with_data)]), baseline="optimizer.lr=0.1")
    rows = compare(study, {}, T_TEST)
    for split in ("validation", "test"):
        levels = {row.arm.name: row.on_validation.level for row in rows if row.on_validation is not None}
        strict = by_example.with_examples(study, split, levels, None)
        mild = by_example.with_examples(study, split, {}, None)
        for row in rows[1:]:
            versus = row.on_validation if split == "validation" else row.on_test
            wide, narrow = strict[row.arm.name].difference, mild[row.arm.name].difference
            assert versus is not None and wide is not None and narrow is not None
            assert wide[0] < narrow[0] < narrow[1] < wide[1] and versus.level == pytest.approx(1 - 0.05 / 3)


def test_both_tables_tell_other_examples(with_data: Path) -> None:
    page = compare_runs(
        Schema(runs=str(with_data), contamination=False, test=T_TEST, baseline="optimizer.lr=0.1")
    )[2]
    on_validation, on_test = (
        block
        for block in page.blocks
        if isinstance(block, PageTable) and block.caption.startswith(("Scores over", "On the test split"))
    )
    for table in (on_validation, on_test):
        place = list(table.headers).index("difference, examples too")
        assert [bool(re.fullmatch(r"\[.*, .*\] at 98.3 %", line[place])) for line in table.rows] == [
            False, True, True, True,
        ]  # fmt: skip
    for file in with_data.glob("*/predictions/test.jsonl"):
        file.unlink()
    text = to_markdown(
        compare_runs(Schema(runs=str(with_data), contamination=False, baseline="optimizer.lr=0.1"))[2]
    )
    assert "Intervals of test are over seeds alone, for the examples at hand: 00 has not kept" in text
    assert text.count("| difference, examples too |") == 1
