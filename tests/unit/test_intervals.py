"""Intervals of a report keep what they promise, in simulations: of an arm on several pretrainings, of many
arms together, beside the test that decides.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runfolders import write_run

from bertlab.config.studies import StudyPlan
from bertlab.declarations import Metric
from bertlab.jobs.report import Schema, compare_runs
from bertlab.report import stats
from bertlab.report.arms import Arm, Seeds, Study
from bertlab.report.by_example import WithExamples
from bertlab.report.caveats import warnings_of
from bertlab.report.comparison import Cost, Row, Versus, compare, differences, summarize
from bertlab.report.pages.page import to_markdown
from bertlab.report.pages.preregistered import answer
from bertlab.report.pages.tables import Examples

ACCURACY = Metric("accuracy", higher_is_better=True)


@dataclass
class Given(Arm):
    """An arm whose scores were made up."""

    given: Mapping[Seeds, float] = field(default_factory=dict)

    def scores(self, split: str, metric: Metric) -> dict[Seeds, float]:
        return dict(self.given)


def of_pretrainings(scores: Sequence[Sequence[float]]) -> dict[Seeds, float]:
    return {
        Seeds(outer, inner): float(score)
        for outer, own in enumerate(scores, start=1)
        for inner, score in enumerate(own)
    }


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 2.0])
def test_an_arms_interval_covers_other_pretrainings_too(spread: float) -> None:
    """Three pretrainings of five seeds each, `spread` times as far apart as seeds are."""
    rng, hits, rounds = np.random.default_rng(0), 0, 2_000
    for _ in range(rounds):
        told = summarize(of_pretrainings(spread * rng.normal(size=(3, 1)) + rng.normal(size=(3, 5))))
        hits += told.low <= 0 <= told.high
    assert abs(hits / rounds - 0.95) < 0.015, hits / rounds


def test_an_arms_mean_is_that_of_its_pretrainings() -> None:
    """However many seeds each has; of one pretraining, seeds are what there is."""
    told = summarize({**of_pretrainings([[0.80, 0.82], [0.86]]), Seeds(3, 0): 0.83})
    means = stats.summarize([0.81, 0.86, 0.83])
    assert (told.mean, told.sd, told.low, told.high) == (means.mean, means.sd, means.low, means.high)
    assert told.n == 4
    assert summarize(of_pretrainings([[0.1, 0.2, 0.4]])) == stats.summarize([0.1, 0.2, 0.4])


def test_tables_show_the_interval_over_pretrainings(tmp_path: Path) -> None:
    """Means 80, 83 and 86 of three pretrainings: [75.5, 90.5], and not that of fifteen runs."""
    for outer, mean in enumerate((0.80, 0.83, 0.86)):
        for seed in range(5):
            score = mean + 0.001 * (seed - 2)
            write_run(tmp_path, f"{outer}{seed}", seed, score, score, stage=f"p{outer}",
                      init__component="stage", init__seed=outer)  # fmt: skip
    _, (study,), page = compare_runs(Schema(runs=str(tmp_path), examples=False, contamination=False))
    (row,) = compare(study, {})
    assert row.validation is not None and row.validation == row.test
    assert (row.validation.low, row.validation.high) == pytest.approx((0.7555, 0.9045), abs=1e-4)
    text = to_markdown(page)
    assert "| 15 on 3 pretrainings | 83.00 ± 3.00 | [75.55, 90.45] | 83.00 ± 3.00 |" in text
    assert "| 82.00 ± 3.00 |" in text, "the last step's too"
    assert "of an arm on several pretrainings over their means" in text


# --- differences: many together, and beside their test ---------------------------------------------
def study_of(baseline: Sequence[float], arms: Mapping[str, Sequence[float]]) -> Study:
    """A study of seeds' scores that were made up."""
    every = [
        Given(name, {}, given={Seeds(0, seed): float(score) for seed, score in enumerate(own)})
        for name, own in {"baseline": baseline, **arms}.items()
    ]
    return Study("toy", "classification", ACCURACY, [], list(every), every[0])


def found(
    baseline: Sequence[float], *arms: Sequence[float], test: str = stats.T_TEST, effect: float | None = None
) -> list[Versus]:
    named = {f"arm {place}": own for place, own in enumerate(arms)}
    return list(differences(study_of(baseline, named), "validation", test, effect).values())


@pytest.mark.parametrize("alone", [True, False])
def test_the_intervals_of_a_table_hold_together(alone: bool) -> None:
    """Twelve arms of eight seeds, five spreads better: all twelve intervals at once, whether arms share the
    baseline's noise or not; Holm's own levels cover 89 %.
    """
    rng, hits, rounds = np.random.default_rng(1), 0, 300
    for _ in range(rounds):
        base = np.zeros(8) if alone else rng.normal(size=8)
        hits += all(
            versus.difference.low <= 5 <= versus.difference.high
            for versus in found(base, *(5 + rng.normal(size=(12, 8))))
        )
    assert hits / rounds >= 0.94, hits / rounds


WITH_T = np.array([-1, -0.6, -0.1, 0.1, 0.6, 1.0]) / np.std([-1, -0.6, -0.1, 0.1, 0.6, 1.0], ddof=1)


def with_t(t: float) -> np.ndarray:
    """Six differences of one point whose paired t statistic is `t`."""
    gains: np.ndarray = 0.01 + WITH_T * 0.01 * math.sqrt(6) / t
    return gains


@pytest.mark.parametrize("test", [stats.T_TEST, stats.ANYTIME, stats.ANYTIME_LARGE])
def test_no_interval_excludes_0_beside_a_null_verdict(test: str) -> None:
    """Two p between 0.025 and 0.05: Holm stops at the first, and the second's interval says so too."""
    rng = np.random.default_rng(2)
    tables = [(with_t(2.8), with_t(2.75))] + [tuple(rng.normal(0.5, 1, size=(3, 6))) for _ in range(60)]
    for gains in tables:
        for versus in found(np.zeros(6), *gains, test=test):
            excludes = versus.difference.low > 0 or versus.difference.high < 0
            assert not excludes or versus.p <= 0.05, versus


def test_an_interval_that_includes_0_beside_better_is_explained() -> None:
    """Of sign flips, where one seed gains far more; of Holm's later steps, which are at a level that the
    table's intervals together are not.
    """
    (versus,) = found([0.0] * 6, [0.001, 0.001, 0.002, 0.001, 0.001, 0.03], test=stats.SIGN_FLIP)
    assert versus.found == "better" and versus.p == 2 / 2**6 and versus.difference.low < 0
    assert versus.verdict == "better, though the t interval includes 0"
    first, second = found([0.0] * 6, with_t(9.0), with_t(2.75))
    assert first.verdict == "better" and first.level == second.level == 0.975
    assert second.verdict == "better, though its interval, one of 2 that hold together, includes 0"


# --- equivalence -----------------------------------------------------------------------------------
def test_equivalence_is_at_the_level_of_all_its_claims() -> None:
    """With one arm p = 0.04 of two one-sided tests is enough; among two it is not, whatever the rank of the
    arm's difference.
    """
    near = WITH_T * 0.005
    margin = next(one for one in np.arange(0.002, 0.01, 1e-5) if stats.tost_p(stats.paired(near), one) < 0.04)
    (alone,) = found([0.0] * 6, near, effect=100 * margin)
    assert "equivalent within" in alone.verdict and "p = 0.040" in alone.verdict
    for other in (with_t(9.0), WITH_T * 0.5):
        versus, _ = found([0.0] * 6, near, other, effect=100 * margin)
        assert "not shown to be within" in versus.verdict and not versus.equivalence(margin)[0]
        wide, _ = found([0.0] * 6, near, other, effect=1.0)
        p = stats.tost_p(stats.paired(near), 0.01)
        assert f"two one-sided t tests, p = {2 * p:.3f} after Bonferroni" in wide.verdict and 2 * p < 0.05


def test_a_plan_answers_by_the_same_rule() -> None:
    """What the report's table calls equivalent, the study's answer does, and nothing else."""
    near, other = WITH_T * 0.0052, WITH_T * 0.004 + 0.002
    arms: dict[str, list[str]] = {name: [] for name in ("baseline", "arm 0", "arm 1")}
    said: dict[str, set[str]] = {}
    for effect in np.arange(0.45, 0.8, 0.05):
        study = study_of([0.0] * 6, {"arm 0": near, "arm 1": other})
        plan = StudyPlan(
            question="?", arms=dict(arms), effect=float(effect), equivalence=True, test="t", seeds=6
        )
        versus = differences(study, "validation", "t", float(effect))
        cost = Cost(0, 0, 0, 0, 0, 0, 0, 0, False)
        rows = [Row(arm, None, None, versus.get(arm.name), None, cost) for arm in study.arms]
        for name, one in versus.items():
            shown = re.search(
                f"“{name}” differs by less than .*? is (shown|not shown)",
                answer(plan, study, rows, Examples()),
            )
            assert shown is not None and (shown[1] == "shown") == ("equivalent within" in one.verdict)
            said.setdefault(name, set()).add(shown[1])
    assert said["arm 0"] == {"shown", "not shown"}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_answer_says_what_other_examples_would_leave_of_it(split: str) -> None:
    """Of the split that the plan named, not of the other."""
    study = study_of([0.0] * 6, {"arm 0": WITH_T * 0.01})
    versus = differences(study, "validation", "t")["arm 0"]
    cost = Cost(0, 0, 0, 0, 0, 0, 0, 0, False)
    rows = [
        Row(arm, None, None, *([None if arm is study.baseline else versus] * 2), cost) for arm in study.arms
    ]
    plan = StudyPlan(
        question="?", arms={"baseline": [], "arm 0": []}, effect=0.5, test="t", seeds=6, split=split
    )
    own = {"arm 0": WithExamples((0.0, 1.0), (-0.001, 0.003))}
    told = answer(plan, study, rows, Examples(**{split: own}))
    assert "with other examples too [−0.10, +0.30]" in told
    other = "test" if split == "validation" else "validation"
    assert "other examples" not in answer(plan, study, rows, Examples(**{other: own}))


def test_a_sequential_test_calls_equivalent_only_what_its_interval_holds() -> None:
    """The difference is at the margin: looked at after each of 25 seeds, two one-sided t tests call it
    equivalent in a fifth of studies.
    """
    rng, false, rounds = np.random.default_rng(3), 0, 150
    for _ in range(rounds):
        gains = 0.5 + 0.8 * rng.normal(size=25)
        looks = [found([0.0] * n, gains[:n], test=stats.ANYTIME)[0] for n in range(3, 26, 2)]
        false += any(look.equivalence(0.5)[0] for look in looks)
    assert false / rounds <= 0.05, false / rounds
    (versus,) = found([0.0] * 6, 0.001 * WITH_T, test=stats.ANYTIME, effect=0.5)
    assert versus.verdict.endswith("equivalent within ±0.50 (its always-valid interval lies within)")


# --- one pretraining -------------------------------------------------------------------------------
ELSEWHERE = {
    "pretrained": {"init__component": "pretrained", "model__component": "hf", "model__name_or_path": "m"},
    "checkpoint": {"init__component": "checkpoint", "init__path": "/somewhere/run"},
}


def write_arms(root: Path, gains: Sequence[float], inputs: str = "a", **settings: Any) -> None:
    """A baseline from scratch, and an arm on given weights; `inputs`: a letter a seed, the content of its
    weights.
    """
    for seed, gain in enumerate(gains):
        base = 0.8 + (-0.004, 0.003, 0.001, -0.002, 0.005, 0.0, 0.002)[seed]
        write_run(root, f"b{seed}", seed, base, base)
        folder = write_run(root, f"x{seed}", seed, base + gain, base + gain, **settings)
        name = {"pretrained": "pretrained", "checkpoint": "init"}.get(settings["init__component"], "stage")
        content = {"code": {"loop": "1"}, "inputs": {name: inputs[seed % len(inputs)]}}
        (folder / "identity.json").write_text(json.dumps(content))


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_weights_from_elsewhere_are_one_pretraining(kind: str, tmp_path: Path) -> None:
    """Verdict, equivalence and a warning say that what is said holds for these weights alone."""
    write_arms(tmp_path, (0.04, 0.042, 0.051, 0.04, 0.045, 0.05), **ELSEWHERE[kind])
    options = Schema(runs=str(tmp_path), examples=False, contamination=False, baseline="init=scratch",
                     test=stats.T_TEST, effect=0.5)  # fmt: skip
    _, (study,), page = compare_runs(options)
    versus = compare(study, {}, stats.T_TEST)[1].on_validation
    assert versus is not None and versus.verdict == "better (this pretraining)" and versus.found == "better"
    (told,) = [line for line in warnings_of(study) if "stand on one pretraining" in line]
    assert f"“init={kind}" in told and "init.seed" not in told
    assert "| better (this pretraining) |" in to_markdown(page)


def test_no_difference_and_equivalence_are_of_the_one_pretraining_too(tmp_path: Path) -> None:
    write_arms(tmp_path, (0.001, -0.001, 0.0005, -0.0005, 0.001, -0.0008), **ELSEWHERE["checkpoint"])
    options = Schema(runs=str(tmp_path), examples=False, contamination=False, baseline="init=scratch")
    (study,) = compare_runs(options)[1]
    for test in (stats.T_TEST, stats.ANYTIME):
        versus = compare(study, {}, test, 0.5)[1].on_validation
        assert versus is not None
        assert "equivalent within ±0.50 (this pretraining; " in versus.verdict
        assert versus.equivalence(0.005)[1].startswith("this pretraining; ")
    versus = compare(study, {}, stats.T_TEST)[1].on_validation
    assert versus is not None and versus.verdict.startswith("no difference found (this pretraining; one of ")


def test_each_seeds_own_checkpoint_is_a_pretraining(tmp_path: Path) -> None:
    """Told apart by their content, wherever they lie."""
    write_arms(tmp_path, (0.04, 0.042, 0.051, 0.04, 0.045, 0.05), "abcdef", **ELSEWHERE["checkpoint"])
    _, (study,), page = compare_runs(Schema(runs=str(tmp_path), examples=False, contamination=False))
    assert [arm.pretrainings for arm in study.arms] == [6, 0] or [a.pretrainings for a in study.arms] == [
        0,
        6,
    ]
    text = to_markdown(page)
    assert "this pretraining" not in text and "6 on 6 pretrainings" in text


def test_several_pretrainings_that_go_on_from_one_stand_on_it(tmp_path: Path) -> None:
    settings = {"init__component": "stage", "init__init__component": "pretrained", "init__init__path": "m"}
    for seed in range(6):
        base = 0.8 + 0.002 * (seed % 3)
        write_run(tmp_path, f"b{seed}", seed, base)
        write_run(tmp_path, f"x{seed}", seed, base + 0.05 + 0.001 * seed, stage=f"p{seed}", init__seed=seed,
                  **settings)  # fmt: skip
    options = Schema(runs=str(tmp_path), examples=False, contamination=False, baseline="init=scratch")
    (study,) = compare_runs(options)[1]
    versus = compare(study, {})[1].on_validation
    assert versus is not None and versus.verdict == "better (this pretraining)"
    assert any("stand on one pretraining" in line for line in warnings_of(study))
