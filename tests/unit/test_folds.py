"""Folds: every row once, equal texts on one side, classes in equal shares, the same each time; and a test
that knows they overlap.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runfolders import write_run
from scipy import stats as scipy_stats

from bertlab.cli.grid import arms
from bertlab.config.schema import Paths
from bertlab.data.dataset import load_dataset
from bertlab.data.folds import deal, linked
from bertlab.data.tables.table import TableDataset
from bertlab.declarations import TEXT, TEXT_PAIR, Metric, Role
from bertlab.errors import ConfigError, DataError
from bertlab.report import resampling, stats
from bertlab.report.caveats import warnings_of
from bertlab.report.comparison import compare
from bertlab.report.grouping import studies_of
from bertlab.runs.records import find_runs

LABELLED = (TEXT, Role("label", "label", is_answer=True))
NUMBERED = (TEXT, Role("number", "number", is_answer=True))


def split_of(
    tmp_path: Path,
    rows: list[str],
    fold: int,
    roles: Any = LABELLED,
    header: str = "text,label",
    **options: Any,
) -> Any:
    """One fold of a file."""
    file = tmp_path / "own.csv"
    file.write_text(header + "\n" + "\n".join(rows) + "\n")
    config = TableDataset(
        name="files", train_file=str(file), folds=options.pop("folds", 5), fold=fold, **options
    )
    config.check("dataset")
    return load_dataset(config, Paths(cache=str(tmp_path / "cache")), roles)


@given(st.data())
def test_groups_are_whole_and_strata_even(data: Any) -> None:
    count, folds = data.draw(st.integers(10, 80)), data.draw(st.integers(2, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    strata = np.unique(rng.integers(0, 3, count), return_inverse=True)[1]
    groups = np.unique(
        rng.integers(0, data.draw(st.sampled_from([count // 2, 10 * count])), count), return_inverse=True
    )[1]
    order = rng.random(count)
    found = deal(groups, strata, order, folds)
    assert set(found) <= set(range(folds)) and len(found) == count
    assert all(len(set(found[groups == group])) == 1 for group in np.unique(groups))
    assert np.array_equal(found, deal(groups, strata, order, folds))
    alone = np.bincount(groups)[groups] == 1
    if alone.all():
        table = np.array(
            [np.bincount(found[strata == stratum], minlength=folds) for stratum in np.unique(strata)]
        )
        assert (table.max(1) - table.min(1) <= 1).all() and np.ptp(table.sum(0)) <= len(table)


def test_every_row_is_validation_once_and_equal_texts_are_on_one_side(tmp_path: Path) -> None:
    rows = [f"a text of number {index % 60},{'yes' if index % 60 % 3 else 'no'}" for index in range(90)]
    rows += ["A TEXT of number 7!,yes"]  # equal but for case and signs
    seen: list[str] = []
    for fold in range(5):
        splits = split_of(tmp_path, rows, fold).splits
        train, validation = splits["train"][:], splits["validation"][:]
        plain = [
            {"".join(filter(str.isalnum, text.lower())) for text in part["text"]}
            for part in (train, validation)
        ]
        assert not plain[0] & plain[1] and len(train["text"]) + len(validation["text"]) == 91
        assert (
            15 <= len(validation["text"]) <= 22 and 0.2 <= np.mean(np.array(validation["label"]) == 0) <= 0.5
        )
        seen += validation["text"]
    assert sorted(seen) == sorted(row.rpartition(",")[0] for row in rows)
    again, other = (
        split_of(tmp_path, rows, 0, split_seed=seed).splits["validation"]["text"][:] for seed in (0, 1)
    )
    assert again == split_of(tmp_path, rows, 0).splits["validation"]["text"][:] != other


def test_rows_that_share_any_text_are_together_unless_all_would_be(tmp_path: Path) -> None:
    assert linked([np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.2, 0.5, 0.6])]).tolist() == [0, 1, 0, 2]
    roles = (TEXT, TEXT_PAIR, Role("label", "label", is_answer=True))
    rows = [f"first {index},second {index // 2},{'yes' if index % 4 < 2 else 'no'}" for index in range(40)]
    found = split_of(tmp_path, rows, 1, roles, "text,text_pair,label", text_pair_column="text_pair")
    assert (
        not set(found.splits["train"]["text_pair"]) & set(found.splits["validation"]["text_pair"])
        and not found.notes
    )
    rows = [f"first {index},the same for all,{'yes' if index % 2 else 'no'}" for index in range(40)]
    found = split_of(tmp_path, rows, 1, roles, "text,text_pair,label", text_pair_column="text_pair")
    assert len(found.splits["validation"]) == 8 and any(
        "only first texts are kept on one side" in note for note in found.notes
    )


def test_numbers_are_spread_over_folds_by_their_size(tmp_path: Path) -> None:
    rows = [f"text {index},{index**2}" for index in range(100)]
    means = [np.mean(np.sqrt(split_of(tmp_path, rows, fold, NUMBERED, "text,mark", label_column=None,
        number_column="mark")
                             .splits["validation"]["number"][:])) for fold in range(5)]  # fmt: skip
    assert max(means) - min(means) < 5


def test_what_folds_cannot_be_is_told(tmp_path: Path) -> None:
    rows = [f"text {index},{'yes' if index % 2 else 'no'}" for index in range(20)]
    for fold, options, told in (
        (5, {}, r"dataset\.fold=5: the folds are 0 to 4"),
        (None, {}, r"add dataset\.fold=0, or with -m dataset\.fold=range\(5\)"),
        (2, {"folds": None}, r"dataset\.fold=2: of how many\? add dataset\.folds=5"),
    ):
        with pytest.raises(ConfigError, match=told):
            split_of(tmp_path, rows, fold, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="20 different texts; take fewer folds"):
        split_of(tmp_path, rows, 1, folds=21)
    notes = split_of(tmp_path, [*rows, "rare,once"], 1).notes
    assert any("the rarest class has 1 rows, fewer than dataset.folds=5" in note for note in notes)


def test_a_validation_split_of_its_own_is_left_out_and_a_test_split_stays(tmp_path: Path) -> None:
    for name in ("validation", "test"):
        (tmp_path / f"{name}.csv").write_text(
            "text,label\n" + "".join(f"{name} {index},{index % 2}\n" for index in range(10))
        )
    rows = [f"text {index},{index % 2}" for index in range(20)]
    files = {f"{name}_file": str(tmp_path / f"{name}.csv") for name in ("validation", "test")}
    found = split_of(tmp_path, rows, 1, **files)
    assert {split: len(part) for split, part in found.splits.items()} == {
        "train": 16,
        "validation": 4,
        "test": 10,
    }
    assert (
        all(text.startswith("text") for text in found.splits["validation"]["text"])
        and "10 rows of its own are left out" in found.notes[0]
    )


def test_without_folds_an_identity_is_what_it_was() -> None:
    plain, folded = TableDataset(name="x").deciding(), TableDataset(name="x", folds=5, fold=1).deciding()
    assert "folds" not in plain and "fold" not in plain and folded["folds"] == 5 and folded["fold"] == 1


# --- the corrected test ---------------------------------------------------------------------------
def test_the_correction_is_nadeau_and_bengios() -> None:
    values, share = np.array([0.02, 0.01, 0.03, 0.00, 0.02]), 1 / 4
    error = math.sqrt((1 / 5 + share) * values.var(ddof=1))
    wide = resampling.inflated(list(values), share)
    assert stats.t_test_p(wide) == pytest.approx(2 * scipy_stats.t.sf(values.mean() / error, 4))
    found = stats.paired(wide, test=stats.T_TEST)
    half = scipy_stats.t.ppf(0.975, 4) * error
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))
    assert resampling.inflated([0.1], share) == [0.1] and resampling.inflated(
        [0.2, 0.2], share
    ) == pytest.approx([0.2, 0.2])


def test_two_equal_learners_differ_in_one_study_of_twenty_and_not_in_four() -> None:
    """Ten-fold cross-validation of two learners that are equally good: classes by the nearest centroid in one
    half of the features or in the other. Each round draws new rows; the plain t test over folds is wrong far
    more often than 5 %, the corrected one is not.
    """
    rng, rounds, folds, rows = np.random.default_rng(0), 400, 10, 60
    wrong = {"plain": 0, "corrected": 0}
    for _ in range(rounds):
        label = np.tile([0, 1], rows // 2)
        features = rng.normal(size=(rows, 8)) + 0.25 * (2 * label[:, None] - 1)
        fold = np.arange(rows) // 2 % folds
        gaps = []
        for held in range(folds):
            inside = fold == held
            scores = []
            for half in (features[:, :4], features[:, 4:]):
                centres = np.stack([half[~inside & (label == one)].mean(0) for one in (0, 1)])
                nearest = ((half[inside, None] - centres) ** 2).sum(2).argmin(1)
                scores.append((nearest == label[inside]).mean())
            gaps.append(scores[0] - scores[1])
        wrong["plain"] += stats.t_test_p(gaps) < 0.05
        wrong["corrected"] += stats.t_test_p(resampling.inflated(gaps, 1 / (folds - 1))) < 0.05
    assert wrong["corrected"] / rounds <= 0.05 < wrong["plain"] / rounds, wrong


def write_folds(root: Path, folds: int = 5, seeds: int = 2) -> Path:
    """Two arms on all folds, one a point better on most."""
    for fold in range(folds):
        for seed in range(seeds):
            for lr, gain in ((0.001, 0.0), (0.002, 0.01 + 0.002 * fold)):
                score = 0.8 + 0.01 * fold + 0.001 * seed + gain
                write_run(root, f"{lr}-{fold}-{seed}", seed, score, optimizer__lr=lr, dataset__folds=folds,
                    dataset__fold=fold,
                          dataset__split_seed=0)  # fmt: skip
    return root


def test_folds_are_paired_and_tested_with_the_correction(tmp_path: Path) -> None:
    (study,) = studies_of(find_runs([str(write_folds(tmp_path))]), baseline="optimizer.lr=0.001")
    assert study.keys == ["optimizer.lr"] and all(len(arm.runs) == 10 for arm in study.arms)
    base, row = compare(study, {})
    gains = np.array([0.01 + 0.002 * fold for fold in range(5)])
    error = math.sqrt((1 / 5 + 1 / 4) * gains.var(ddof=1))
    assert row.on_validation is not None and row.on_validation.difference.n == 5  # folds, not runs
    assert (
        row.on_validation.p == pytest.approx(2 * scipy_stats.t.sf(gains.mean() / error, 4))
        and row.on_validation.verdict == "better"
    )
    assert (
        base.validation is not None
        and base.validation.n == 5
        and base.validation.mean == pytest.approx(0.8205)
    )
    (told,) = [words for words in warnings_of(study) if "folds" in words]
    assert "Nadeau & Bengio 2003" in told and "5 folds" in told


def test_a_grid_over_folds_ends_in_their_corrected_interval() -> None:
    scores = {(): {(5, 0, fold): [0.8 + 0.01 * fold] for fold in range(5)}}
    (line,) = arms(scores, {(): Metric("validation/accuracy", True)})
    low, high = (
        0.82 + sign * scipy_stats.t.ppf(0.975, 4) * math.sqrt((1 / 5 + 1 / 4) * 2.5e-4) for sign in (-1, 1)
    )
    assert line == f"validation/accuracy 0.8200 ± 0.0158, n = 5 folds, 95 % interval {low:.4f} to {high:.4f}"


def test_folds_that_are_missing_are_told(tmp_path: Path) -> None:
    write_folds(tmp_path)
    for seed in range(2):
        (tmp_path / f"0.002-3-{seed}" / "summary.json").write_text('{"status": "failed"}')
    (study,) = studies_of(find_runs([str(tmp_path)]))
    assert any(words.endswith(" lacks fold 3.") for words in warnings_of(study))
