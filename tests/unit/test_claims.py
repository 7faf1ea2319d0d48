"""What a report may say: undecided is not no difference, one pretraining is not a recipe, failed runs and
pooled settings are told.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from runfolders import change_summary, write_run

from bertlab.errors import ConfigError
from bertlab.jobs.report import Schema, compare_runs
from bertlab.report import stats
from bertlab.report.arms import Seeds, partners
from bertlab.report.caveats import warnings_of
from bertlab.report.comparison import Row, compare
from bertlab.report.pages.page import to_markdown

SPREAD = (-0.011, 0.004, 0.009, -0.006, 0.002, 0.007, -0.003, 0.005, -0.008, 0.001)


def rows(root: Path, test: str = stats.SIGN_FLIP, **options: Any) -> tuple[dict[str, Row], list[str]]:
    _, studies, _ = compare_runs(Schema(runs=str(root), examples=False, contamination=False, **options))
    (study,) = studies
    return {row.arm.name: row for row in compare(study, {}, test)}, warnings_of(study)


def arm(root: Path, name: str, seeds: int, gain: float, **settings: Any) -> None:
    """No two seeds gain equally much."""
    for seed in range(seeds):
        write_run(
            root,
            f"{name}-{seed}",
            seed,
            0.8 + SPREAD[seed] + gain * (1 + 3 * SPREAD[seed]) + 0.3 * SPREAD[-1 - seed],
            **settings,
        )


def verdict_of(row: Row) -> str:
    assert row.on_validation is not None
    return row.on_validation.verdict


def test_six_seeds_among_two_tests_are_undecided_and_never_no_difference(tmp_path: Path) -> None:
    """A gain of five points at six seeds: the exact test cannot reach 0.05 among two tests; a t test, chosen
    before, can.
    """
    arm(tmp_path, "base", 6, 0.0)
    arm(tmp_path, "good", 6, 0.05, optimizer__lr=0.002)
    arm(tmp_path, "same", 6, 0.0, optimizer__lr=0.003)
    found, _ = rows(tmp_path, baseline="optimizer.lr=0.001")
    for name in ("optimizer.lr=0.002", "optimizer.lr=0.003"):
        assert verdict_of(found[name]) == "undecided: this test needs 7 seeds or more, it had 6"
    found, _ = rows(tmp_path, stats.T_TEST, baseline="optimizer.lr=0.001")
    good, same = found["optimizer.lr=0.002"].on_validation, found["optimizer.lr=0.003"].on_validation
    assert (
        good is not None
        and good.verdict == "better"
        and good.difference.low > 0
        and good.level == pytest.approx(0.975)
    )
    assert (
        same is not None
        and same.verdict.startswith("no difference found (one of ")
        and same.level == pytest.approx(0.975)  # all of a table hold together
    )


def test_arms_of_one_seed_cost_the_others_nothing(tmp_path: Path) -> None:
    arm(tmp_path, "base", 6, 0.0)
    arm(tmp_path, "good", 6, 0.05, optimizer__lr=0.002)
    for lr in (0.003, 0.004, 0.005):
        arm(tmp_path, f"one-{lr}", 1, 0.0, optimizer__lr=lr)
    found, _ = rows(tmp_path, baseline="optimizer.lr=0.001")
    assert verdict_of(found["optimizer.lr=0.002"]) == "better"
    assert (
        verdict_of(found["optimizer.lr=0.003"]) == "one seed: no statement"
        and found["optimizer.lr=0.003"].on_validation.p != 1.0
    )  # type: ignore[union-attr]  # no baseline


def test_one_pretraining_behind_all_seeds_is_told(tmp_path: Path) -> None:
    arm(tmp_path, "base", 6, 0.0)
    arm(tmp_path, "pre", 6, 0.05, stage="p0", init__component="stage", init__seed=0)
    found, warnings = rows(tmp_path, baseline="init=scratch")
    assert verdict_of(found["init=stage"]) == "better (this pretraining)"
    assert any("stand on one pretraining" in line for line in warnings)


def test_nested_seeds_are_kept_and_the_pretraining_is_the_unit(tmp_path: Path) -> None:
    """Three pretrainings of four fine-tunings each, paired by both seeds: nothing is left out; three units
    decide nothing by sign flips.
    """
    for outer in range(3):
        for seed in range(4):
            for name, gain in (("a", 0.0), ("b", 0.02 * (outer + 1))):
                settings = {
                    "init__component": "stage",
                    "init__seed": outer,
                    "init__rate": {"a": 0.15, "b": 0.4}[name],
                }
                write_run(
                    tmp_path,
                    f"{name}{outer}{seed}",
                    seed,
                    0.8 + SPREAD[seed] + gain,
                    stage=f"{name}-{outer}",
                    **settings,
                )
    found, warnings = rows(tmp_path, baseline="init.rate=0.15")
    other = next(row for row in found.values() if row.on_validation is not None)
    assert len(other.arm.runs) == 12 and not any(
        "Left out" in line or "one pretraining" in line for line in warnings
    )
    versus = other.on_validation
    assert versus is not None and versus.difference.n == 3 and versus.difference.mean == pytest.approx(0.04)
    assert versus.outer == pytest.approx(0.02, rel=1e-6) and versus.inner == pytest.approx(0, abs=1e-9)
    assert versus.verdict.startswith("undecided")


def test_a_pretraining_that_has_each_runs_seed_is_paired_with_runs_that_have_none(tmp_path: Path) -> None:
    """init.seed=${seed}: seed 3 on pretraining 3 stands beside seed 3 from scratch, and the seed alone names
    the column.
    """
    for seed in range(7):
        write_run(tmp_path, f"s{seed}", seed, 0.8 + SPREAD[seed])
        write_run(
            tmp_path,
            f"p{seed}",
            seed,
            0.85 + SPREAD[-1 - seed],
            stage=f"q{seed}",
            init__component="stage",
            init__seed=seed,
        )
    _, (study,), page = compare_runs(
        Schema(runs=str(tmp_path), examples=False, contamination=False, baseline="init=scratch")
    )
    row = next(row for row in compare(study, {}) if not row.is_baseline)
    versus = row.on_validation
    assert versus is not None and versus.difference.n == 7 and versus.verdict == "better"
    assert versus.difference.mean == pytest.approx(
        sum(0.05 + SPREAD[-1 - seed] - SPREAD[seed] for seed in range(7)) / 7
    )
    text = to_markdown(page)
    assert (
        "| arm | seed 0 | seed 1 |" in text
        and "on pretraining" not in text
        and "| 7 on 7 pretrainings |" in text
    )


def test_several_pretrainings_beside_runs_that_have_none_are_all_counted(tmp_path: Path) -> None:
    """Three pretrainings of four seeds beside six seeds from scratch: three units, no run in two of them,
    none of the twelve left out.
    """
    for seed in range(6):
        write_run(tmp_path, f"s{seed}", seed, 0.8 + 0.001 * seed)
    for outer in range(3):
        for seed in range(4):
            write_run(
                tmp_path,
                f"p{outer}{seed}",
                seed,
                0.9 + 0.01 * outer,
                stage=f"q{outer}",
                init__component="stage",
                init__seed=outer + 1,
            )
    for baseline, sign in (("init=scratch", 1), ("init=stage", -1)):
        found, _ = rows(tmp_path, baseline=baseline)
        versus = next(row.on_validation for row in found.values() if row.on_validation is not None)
        units = [0.9 - (0.8 + 0.8 + 0.003) / 2, 0.91 - 0.801, 0.92 - 0.802]
        assert versus.difference.n == 3 and versus.difference.mean == pytest.approx(sign * sum(units) / 3)
        assert versus.verdict == "undecided: this test needs 6 seeds or more, it had 3"


def test_who_stands_beside_whom() -> None:
    """The same seeds; a run without a pretraining of its own beside one of the other arm's, each once."""
    alone, joint = [Seeds(0, seed) for seed in range(3)], [Seeds(seed, seed) for seed in range(4)]
    crossed = [Seeds(outer, inner) for outer in (1, 2) for inner in range(3)]
    assert partners(joint, alone) == [(Seeds(seed, seed), Seeds(0, seed)) for seed in range(3)]
    assert partners(alone, joint) == [(one, other) for other, one in partners(joint, alone)]
    assert partners(crossed, crossed[1:]) == [(seeds, seeds) for seeds in crossed[1:]]
    assert partners(crossed, alone) == [
        (Seeds(1, 0), alone[0]),
        (Seeds(1, 2), alone[2]),
        (Seeds(2, 1), alone[1]),
    ]
    assert partners([Seeds(5, seed) for seed in range(3)], alone) == [
        (Seeds(5, seed), Seeds(0, seed)) for seed in range(3)
    ]
    assert partners([Seeds(0, 7)], alone) == []


def test_an_exact_test_and_an_interval_that_differ_are_both_told(tmp_path: Path) -> None:
    for seed, gain in enumerate((0.02, 0.021, 0.019, 0.02, 0.022, -0.001)):
        write_run(tmp_path, f"a{seed}", seed, 0.8)
        write_run(tmp_path, f"b{seed}", seed, 0.8 + gain, optimizer__lr=0.002)
    found, _ = rows(tmp_path, baseline="optimizer.lr=0.001")
    assert verdict_of(found["optimizer.lr=0.002"]).startswith(
        "no difference found, though the t interval excludes 0 (one of "
    )


def test_runs_that_failed_are_told_with_their_arm(tmp_path: Path) -> None:
    arm(tmp_path, "base", 8, 0.0)
    arm(tmp_path, "good", 6, 0.05, optimizer__lr=0.002)
    for seed in (6, 7):
        write_run(tmp_path, f"bad-{seed}", seed, 0.0, status="failed", optimizer__lr=0.002)
    found, warnings = rows(tmp_path, baseline="optimizer.lr=0.001")
    assert len(found["optimizer.lr=0.002"].arm.failed) == 2
    assert any("2 runs of “optimizer.lr=0.002” without a score" in line for line in warnings)


def test_pooled_settings_are_told(tmp_path: Path) -> None:
    arm(tmp_path, "base", 3, 0.0)
    for seed in range(3):
        write_run(tmp_path, f"x-{seed}", seed + 3, 0.8, optimizer__lr=0.01)
    for seed in range(3):
        write_run(tmp_path, f"y-{seed}", seed, 0.8, model__positions="rotary")
    _, warnings = rows(tmp_path, group_by="model.positions")
    assert any("Within an arm runs differ in optimizer.lr" in line for line in warnings)


def test_a_score_that_is_no_number_is_counted_nowhere(tmp_path: Path) -> None:
    arm(tmp_path, "base", 6, 0.0)
    arm(tmp_path, "good", 6, 0.05, optimizer__lr=0.002)
    file = tmp_path / "good-3" / "summary.json"
    file.write_text(
        file.read_text().replace('"validation/accuracy": 0.', '"validation/accuracy": NaN, "was": 0.', 1)
    )
    found, warnings = rows(tmp_path, baseline="optimizer.lr=0.001")
    row = found["optimizer.lr=0.002"]
    assert (
        row.on_validation is not None
        and row.on_validation.difference.n == 5
        and not math.isnan(row.on_validation.difference.mean)
    )
    assert any("not a finite number" in line for line in warnings)


def test_the_test_split_has_its_own_difference(tmp_path: Path) -> None:
    for seed in range(7):
        write_run(tmp_path, f"a-{seed}", seed, 0.80 + SPREAD[seed], test=0.70 + SPREAD[seed])
        write_run(
            tmp_path,
            f"b-{seed}",
            seed,
            0.85 + SPREAD[seed],
            test=0.70 + SPREAD[-1 - seed],
            optimizer__lr=0.002,
        )
    found, _ = rows(tmp_path, baseline="optimizer.lr=0.001")
    row = found["optimizer.lr=0.002"]
    assert (
        verdict_of(row) == "better"
        and row.on_test is not None
        and row.on_test.verdict.startswith("no difference found")
    )


def test_the_effect_of_interest_is_ruled_out_or_the_seeds_for_it_are_told(tmp_path: Path) -> None:
    """`effect=1` is one point of accuracy: differences of a tenth are equivalent, differences of ten points
    either way are not.
    """
    arm(tmp_path, "base", 8, 0.0)
    for seed in range(8):
        sign = 1 if seed % 2 else -1
        base = 0.8 + SPREAD[seed] + 0.3 * SPREAD[-1 - seed]
        write_run(tmp_path, f"near-{seed}", seed, base + sign * 0.001, optimizer__lr=0.002)
        write_run(tmp_path, f"wild-{seed}", seed, base + sign * (0.1 + 0.001 * seed), optimizer__lr=0.003)
    chosen = Schema(
        runs=str(tmp_path), examples=False, contamination=False, baseline="optimizer.lr=0.001", effect=1.0
    )
    page = to_markdown(compare_runs(chosen)[2])
    near, wild = (
        next(line for line in page.splitlines() if line.startswith(f"| optimizer.lr=0.00{digit}"))
        for digit in (2, 3)
    )
    assert "no difference found" in near and "equivalent within ±1.00 (two one-sided t tests, p = 0.0" in near
    needed = stats.seeds_for(0.01, 0.111, 0.025)
    assert (
        "not shown to be within ±1.00; to find one so large takes about" in wild
        and needed is not None
        and needed > 500
    )


# --- what chose, what was left out, what else differs ------------------------------------------------
def page_of(root: Path, **options: Any) -> str:
    return to_markdown(
        compare_runs(Schema(runs=str(root), examples=False, contamination=False, **options))[2]
    )


def two(root: Path, test: float | None = None, half: bool = False, **settings: Any) -> None:
    """Two arms of six seeds."""
    for name, rate in (("a", 0.001), ("b", 0.002)):
        for seed in range(6):
            folder = write_run(
                root, f"{name}{seed}", seed, 0.8 + SPREAD[seed], test, optimizer__lr=rate, **settings
            )
            if half:
                summary = json.loads((folder / "summary.json").read_text())
                scores = {"selection/accuracy": 0.8, "selection/loss": 0.2}
                specs = {
                    key: summary["metric_specs"][key.replace("selection", "validation")] for key in scores
                }
                change_summary(
                    folder,
                    selected_by="selection/accuracy",
                    metrics={**summary["metrics"], **scores},
                    metric_specs={**summary["metric_specs"], **specs},
                )


FLATTERS = "There is no test split: the scores are of the split that "


def test_what_chose_the_checkpoints_is_said_and_flatters_alone(tmp_path: Path) -> None:
    two(tmp_path / "best")
    text = page_of(tmp_path / "best")
    assert "on validation, which also chose each run's checkpoint." in text and FLATTERS in text
    two(tmp_path / "half", half=True, evaluation__select_on="half")
    text = page_of(tmp_path / "half")
    assert "on the half of validation that chose nothing; the other half chose" in text
    assert FLATTERS not in text and "flatters every arm" not in text


def test_where_the_last_step_is_kept_validation_chose_nothing(tmp_path: Path) -> None:
    two(tmp_path / "last", 0.7, evaluation__keep="last")
    text = page_of(tmp_path / "last")
    assert "on validation, which chose nothing: the last step's weights are scored" in text
    assert "scored once with the last step's weights and chooses nothing" in text and FLATTERS not in text
    assert "On the test split, scored once with the last step's weights" in text
    assert "validation chose" not in text.partition("## Methods")[0]
    two(tmp_path / "ended", evaluation__keep="last", evaluation__patience=3)
    text = page_of(tmp_path / "ended")
    assert "on validation, which also chose when each run's training ended" in text
    assert f"{FLATTERS}chose when training ended" in text


def test_runs_of_one_seed_that_differ_in_other_settings_are_refused(tmp_path: Path) -> None:
    """No rate becomes the arm because its runs ended last."""
    for positions in ("learned", "rotary"):
        for rate in (0.001, 0.002):
            for seed in range(3):
                write_run(tmp_path, f"{positions}{rate}{seed}", seed, 0.8 + SPREAD[seed],
                          model__positions=positions, optimizer__lr=rate)  # fmt: skip
    said = (
        "group_by: “model.positions=learned” has 2 runs of seed 0 that differ in optimizer.lr; add it to"
        " group_by, let validation choose by select='optimizer.lr', or leave runs out by where="
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        rows(tmp_path, group_by="model.positions")
    found, warnings = rows(tmp_path, group_by="model.positions", select="optimizer.lr")
    assert [len(row.arm.runs) for row in found.values()] == [3, 3]
    assert not any("Left out" in line for line in warnings)
    write_run(tmp_path, "again", 0, 0.9, evaluation__batch_size=7)
    found, warnings = rows(tmp_path)
    assert len(found) == 4 and any("the same settings and seeds: 1 run" in line for line in warnings)


def test_other_arithmetic_is_a_confound(tmp_path: Path) -> None:
    """Resolved by the machine, not by a key: precision=auto is bfloat16 here and float32 there."""
    for name, rate, precision in (("a", 0.001, "float32"), ("b", 0.002, "bfloat16")):
        for seed in range(3):
            folder = write_run(tmp_path, f"{name}{seed}", seed, 0.8, optimizer__lr=rate)
            numerics = {"device": "cpu", "precision": precision} | ({"processes": 2} if name == "b" else {})
            (folder / "identity.json").write_text(
                json.dumps({"code": {}, "inputs": {}, "numerics": numerics})
            )
            environment = {"git": {}, "processor": "P" if name == "a" else "Q"}
            (folder / "environment.json").write_text(json.dumps(environment))
    _, warnings = rows(tmp_path, baseline="optimizer.lr=0.001")
    (told,) = [line for line in warnings if line.startswith("The runs' arithmetic differs in")]
    assert "precision (float32 / bfloat16), processes (– / 2): a difference may come from there" in told
    (machines,) = [line for line in warnings if "different machines (P, Q)" in line]
    assert "seconds are not comparable" in machines and "rounding may differ" in machines


def test_unequal_searches_are_told(tmp_path: Path) -> None:
    """The best of four rates beside the only one."""
    for seed in range(3):
        write_run(tmp_path, f"b{seed}", seed, 0.8 + SPREAD[seed])
        for place in range(4):
            settings = {"model__positions": "rotary", "optimizer__lr": 0.0001 * (1 + place)}
            write_run(tmp_path, f"x{place}{seed}", seed, 0.8 + SPREAD[seed + place], **settings)
    _, warnings = rows(tmp_path, select="optimizer.lr", baseline="model.positions=learned")
    (told,) = [line for line in warnings if "search budgets" in line]
    assert told == (
        "The arms' search budgets are unequal (“model.positions=learned (baseline)”: 1 setting,"
        " “model.positions=rotary”: 4 settings): the best of more settings is flattered more; give every arm"
        " as many."
    )
    for seed in range(3):
        for place in range(1, 4):
            write_run(tmp_path, f"y{place}{seed}", seed, 0.7, optimizer__lr=0.001 * (1 + place))
    _, warnings = rows(tmp_path, select="optimizer.lr", baseline="model.positions=learned")
    assert not any("search budgets" in line for line in warnings)
