"""Many tasks: arms matched over tasks, means over tasks by declared scores, intervals that cover, published
scores apart.
"""

import math
from pathlib import Path

import numpy as np
import pytest
from runfolders import write_run
from scipy import stats as scipy_stats

from bertlab.config.composition import declared_tasks
from bertlab.config.suites import Published, Suite
from bertlab.declarations import Metric
from bertlab.errors import ConfigError
from bertlab.jobs.report import Schema, compare_runs
from bertlab.report import resampling
from bertlab.report.grouping import studies_of
from bertlab.report.pages.page import PageTable, Text, to_markdown
from bertlab.report.pages.tasks import scores_table, tasks_blocks, warnings_of_tasks
from bertlab.report.tasks import many_tasks, tasks_rows
from bertlab.runs.records import find_runs

MATTHEWS = Metric("matthews", higher_is_better=True, bounds=(-1.0, 1.0))
PEARSON = Metric("pearson", higher_is_better=True, unit="correlation", bounds=(-1.0, 1.0))
RMSE = Metric("rmse", higher_is_better=False, unit="", bounds=(0.0, None))
TASKS = {
    "cola": ("classification", MATTHEWS, 0.3),
    "stsb": ("regression", PEARSON, 0.8),
    "rte": ("classification", Metric("accuracy", True), 0.6),
}


def two_arms(root: Path, seeds: int = 5, gain: float = 0.05) -> Path:
    """Three tasks, from scratch and pretrained, which is better on each."""
    for task, (objective, metric, level) in TASKS.items():
        for seed in range(seeds):
            noise = 0.01 * ((seed * 7) % 5 - 2)
            write_run(
                root,
                f"{task}-a{seed}",
                seed,
                level + noise,
                metric=metric,
                dataset__name=task,
                objective__component=objective,
            )
            write_run(root, f"{task}-b{seed}", seed, level + gain + noise / 2, metric=metric,
                dataset__name=task,
                      objective__component=objective, init__component="pretrained")  # fmt: skip
    return root


def report_of(root: Path, **options: object) -> tuple[str, object]:
    _, studies, page = compare_runs(Schema(runs=str(root), examples=False, contamination=False, **options))  # type: ignore[arg-type]
    return to_markdown(page), studies


def test_arms_are_matched_over_tasks_and_the_mean_is_of_tasks(tmp_path: Path) -> None:
    text, studies = report_of(two_arms(tmp_path), baseline="init=scratch")
    many = many_tasks(studies)  # type: ignore[arg-type]
    assert many is not None and [arm.name for arm in many.arms] == [
        "init=scratch (baseline)",
        "init=pretrained",
    ]
    base, better = tasks_rows(many, {})
    assert (
        base.mean is not None and base.mean.mean == pytest.approx((0.3 + 0.8 + 0.6) / 3) and base.mean.n == 5
    )
    assert (
        better.versus is not None
        and better.versus.difference.mean == pytest.approx(0.05)
        and better.better_on == "3 of 3"
    )
    assert better.cost.core_minutes == pytest.approx(3 * 70 / 60)  # one seed on three tasks
    assert better.improvement[0] > 0.9 and better.rank[0] == 1 and base.rank[0] == 2
    assert text.index("## Over tasks") < text.index("## Classification on cola")
    assert "cola (matthews)" in text and "stsb (pearson)" in text and "56.67 ±" in text


def test_a_task_whose_best_is_not_1_stands_apart(tmp_path: Path) -> None:
    two_arms(tmp_path)
    for seed in range(5):
        write_run(
            tmp_path,
            f"age-{seed}",
            seed,
            4.0 + seed / 10,
            metric=RMSE,
            dataset__name="age",
            objective__component="regression",
        )
    many = many_tasks(studies_of(find_runs([str(tmp_path)]), baseline="init=scratch"))
    assert (
        many is not None
        and "age" not in many.in_mean
        and [task.name for task in many.tasks if task.apart] == ["age"]
    )
    rows = tasks_rows(many, {})
    assert "Shown, and not in the mean: age." in warnings_of_tasks(many, rows)
    assert any("4.200 ± 0.158" in line for line in scores_table(many, rows).rows)


def test_an_arm_that_lacks_a_task_has_no_mean(tmp_path: Path) -> None:
    two_arms(tmp_path)
    for seed in range(5):
        write_run(
            tmp_path, f"only-{seed}", seed, 0.9, dataset__name="rte", init__component="stage", stage="p"
        )
    many = many_tasks(studies_of(find_runs([str(tmp_path)]), baseline="init=scratch"))
    assert many is not None
    rows = {row.arm.name: row for row in tasks_rows(many, {})}
    assert rows["init=stage"].mean is None and rows["init=pretrained"].mean is not None
    assert "“init=stage” has no mean: it lacks cola, stsb." in warnings_of_tasks(many, list(rows.values()))


def test_a_pretraining_that_a_task_lacks_leaves_the_interval_of_what_all_have(tmp_path: Path) -> None:
    """The mean is of the seeds that every task has, and so is its interval."""
    for task, (objective, metric, level) in TASKS.items():
        for outer in range(3):
            for seed in range(2):
                if (task, outer) == ("rte", 2):
                    continue
                write_run(
                    tmp_path,
                    f"{task}-{outer}-{seed}",
                    seed,
                    level + 0.01 * outer + 0.002 * seed,
                    metric=metric,
                    dataset__name=task,
                    objective__component=objective,
                    init__component="stage",
                    init__seed=outer,
                )
    many = many_tasks(studies_of(find_runs([str(tmp_path)])))
    assert many is not None
    (row,) = tasks_rows(many, {})
    assert row.mean is not None and row.mean.n == 4
    low, high = row.over_tasks
    assert (low + high) / 2 == pytest.approx(row.mean.mean)


def test_published_scores_stand_beside_with_their_split(tmp_path: Path) -> None:
    suite = Suite(
        tasks={
            "rte": ["dataset=rte"],
            "cola": ["dataset=cola"],
            "stsb": ["dataset=stsb", "objective=regression"],
        },
        published={"Theirs": Published("A paper", "test", {"cola": 40.0, "rte": 60.0, "stsb": 80.0})},
    )
    many = many_tasks(studies_of(find_runs([str(two_arms(tmp_path))])), suite, declared_tasks(suite))
    assert many is not None
    blocks = tasks_blocks(many, tasks_rows(many, {}))
    (table,) = [block for block in blocks if isinstance(block, PageTable) and "published" in block.caption]
    assert table.rows[-1] == [
        "Theirs ‡",
        "60.0",
        "40.0",
        "80.0",
        "60.0",
        "–",
        "–",
        "–",
    ]  # in the suite's order
    assert any(
        isinstance(block, Text) and "Theirs are of the test split, ours of validation" in block.text
        for block in blocks
    )


def test_a_grid_is_chosen_on_validation_task_by_task_and_never_on_test(tmp_path: Path) -> None:
    """The setting that is best on test, and the luckiest run, lose against the best mean on validation."""
    for task, best in (("one", "0.1"), ("two", "0.2")):
        for seed in range(3):
            for lr in (0.1, 0.2):
                validation = (0.8 if str(lr) == best else 0.7) + (
                    0.05 if str(lr) != best and seed == 0 else 0.0
                )
                write_run(tmp_path, f"{task}-{lr}-{seed}", seed, validation,
                    test=0.5 if str(lr) == best else 0.9, dataset__name=task,
                          optimizer__lr=lr)  # fmt: skip
    text, studies = report_of(tmp_path, select="optimizer.lr")
    many = many_tasks(studies)  # type: ignore[arg-type]
    assert many is not None and [
        arm.by_task[task].chosen for arm in many.arms for task in ("one", "two")
    ] == ["optimizer.lr=0.1", "optimizer.lr=0.2"]
    (row,) = tasks_rows(many, {})
    assert row.mean is not None and row.mean.mean == pytest.approx(0.8)
    assert "3 runs of other settings passed over" in text and "50.00" in text and "90.00" not in text
    with pytest.raises(ConfigError, match=r"select: no run has the key optimizer\.lrr"):
        report_of(tmp_path, select="optimizer.lrr")


# --- statistics -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("tasks", "spread"), [(3, 1.0), (8, 1.0), (8, 0.0)])
def test_the_interval_over_tasks_covers_and_plain_percentiles_would_not(tasks: int, spread: float) -> None:
    """Tasks drawn from many, four seeds each: the mean over all tasks lies in 94 % of the
    intervals or more.
    """
    rng, hits, plain, rounds = np.random.default_rng(1), 0, 0, 300
    for _ in range(rounds):
        scores = [
            {0: list(effect + rng.normal(0, 0.7, size=4))} for effect in rng.normal(0, spread, size=tasks)
        ]
        low, high = resampling.interval_over_tasks(scores, draws=300)
        hits += low <= 0 <= high
        means = rng.choice([np.mean(task[0]) for task in scores], size=(300, tasks)).mean(1)
        plain += np.quantile(means, 0.025) <= 0 <= np.quantile(means, 0.975)
    assert hits / rounds >= 0.94 > plain / rounds


def test_of_one_run_a_task_the_interval_is_t_over_tasks() -> None:
    values = [0.2, 0.5, 0.9, 0.4]
    low, high = resampling.interval_over_tasks([{0: [value]} for value in values], draws=200_000)
    expected = scipy_stats.t.interval(0.95, 3, np.mean(values), scipy_stats.sem(values))
    assert (low, high) == pytest.approx(expected, abs=0.01)
    assert math.isnan(resampling.interval_over_tasks([{0: [0.1, 0.2]}])[0])


def test_pretrainings_are_drawn_together_for_all_tasks() -> None:
    """A lucky pretraining is lucky on every task: what it adds does not average out over tasks."""
    shared = [
        {outer: [value + 0.001 * seed for seed in range(3)] for outer, value in enumerate((0.0, 1.0, 2.0))}
        for _ in range(20)
    ]
    own = [
        {
            outer: [value]
            for outer, value in enumerate(np.random.default_rng(task).permutation([0.0, 1.0, 2.0]))
        }
        for task in range(20)
    ]
    low, high = resampling.interval_over_tasks(shared)
    other_low, other_high = resampling.interval_over_tasks(own)
    assert high - low > 3 * (other_high - other_low) / 2 > 0


def test_sums_agree_with_other_implementations() -> None:
    rng = np.random.default_rng(0)
    cube = rng.random((2, 6, 5))
    assert np.allclose(
        resampling.interquartile_mean(cube), [scipy_stats.trim_mean(one.ravel(), 0.25) for one in cube]
    )
    assert np.allclose(resampling.median_of_tasks(cube), np.median(cube.mean(2), axis=1))
    holes = cube.copy()
    holes[:, 0, 3:] = np.nan
    assert np.allclose(resampling.mean_of_tasks(holes)[0], np.mean([np.nanmean(row) for row in holes[0]]))
    one, other = rng.random(6), rng.random(4) - 0.1
    chance, low, high = resampling.improvement([{0: one}], [{0: other}])
    assert (
        chance == pytest.approx(scipy_stats.mannwhitneyu(one, other).statistic / 24) and low <= chance <= high
    )
    assert resampling.improvement([{0: [1.0, 1.0]}], [{0: [1.0]}])[0] == 0.5
    share, low, high = resampling.profile([{0: [0.2, 0.4]}, {0: [0.6]}], np.array([0.0, 0.3, 0.5, 0.7]))
    assert np.allclose(share, [1, 0.75, 0.5, 0]) and (low <= share).all() and (share <= high).all()


def test_one_side_is_shown_by_welchs_test() -> None:
    rng = np.random.default_rng(0)
    for shift in (0.5, 1.0, 2.0, 3.0):
        one, other = rng.normal(shift, 1, 5), rng.normal(0, 2, 4)
        p = scipy_stats.ttest_ind(one, other, equal_var=False).pvalue
        side = 1 if one.mean() > other.mean() else -1
        assert [resampling._side(one, other, level * p) for level in (1.001, 0.999)] == [side, 0]


def test_ranks_share_ties() -> None:
    ranks = resampling.mean_ranks(
        [[{0: [score]} for score in own] for own in ([0.9, 0.5], [0.8, 0.5], [0.1, 0.1])]
    )
    assert [rank[0] for rank in ranks] == [1.25, 1.75, 3.0]
    assert {rank[1:] for rank in ranks} == {(1.0, 3.0)}, "one run each shows nothing"
    sure = resampling.mean_ranks([[{0: [0.9, 0.91, 0.9]}] * 2, [{0: [0.8, 0.81, 0.8]}] * 2])
    assert sure == [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0)]


@pytest.mark.parametrize(
    ("tasks", "outers", "seeds", "spread"),
    [(5, 1, 2, 0.0), (2, 1, 3, 0.0), (5, 1, 5, 0.0), (5, 3, 5, 1.0), (5, 3, 5, 0.0), (3, 5, 2, 1.0)],
)
def test_where_nothing_differs_chances_and_ranks_seldom_say_so(
    tasks: int, outers: int, seeds: int, spread: float
) -> None:
    """Pretrainings are lucky on every task: their number is what tells one recipe from another."""
    rng, rounds, wrong, ranked = np.random.default_rng(3), 120, 0, 0

    def arm() -> list[dict[int, np.ndarray]]:
        luck = spread * rng.standard_normal(outers)
        return [
            {outer: luck[outer] + rng.standard_normal(seeds) for outer in range(outers)} for _ in range(tasks)
        ]

    for _ in range(rounds):
        new, old = arm(), arm()
        _, low, high = resampling.improvement(new, old)
        wrong += not low <= 0.5 <= high
        _, low, high = resampling.mean_ranks([new, old])[0]
        ranked += not low <= 1.5 <= high
    assert wrong / rounds <= 0.08 and ranked / rounds <= 0.08  # 5 %, and its error


@pytest.mark.parametrize(("outers", "spread"), [(1, 0.0), (5, 1.0)])
def test_the_chance_to_beat_is_covered_and_a_large_one_is_seen(outers: int, spread: float) -> None:
    rng, rounds, seen = np.random.default_rng(5), 150, dict.fromkeys((1.0, 4.0), 0)
    hits = dict.fromkeys(seen, 0)
    for shift in seen:
        truth = scipy_stats.norm.cdf(shift / math.sqrt(2 * (1 + spread**2)))
        for _ in range(rounds):
            new, old = (
                [{k: at + luck[k] + rng.standard_normal(4) for k in range(outers)} for _ in range(4)]
                for at, luck in ((shift, spread * rng.standard_normal(outers)),
                                 (0.0, spread * rng.standard_normal(outers)))
            )  # fmt: skip
            _, low, high = resampling.improvement(new, old)
            hits[shift] += low <= truth <= high
            seen[shift] += low > 0.5
    assert min(hits.values()) / rounds >= 0.92 and seen[4.0] / rounds > 0.8


@pytest.mark.parametrize(("tasks", "seeds"), [(5, 2), (8, 2), (2, 3)])
@pytest.mark.parametrize("statistic", [resampling.interquartile_mean, resampling.mean_of_tasks])
def test_the_interval_of_a_sum_over_runs_covers(
    tasks: int, seeds: int, statistic: resampling.Statistic
) -> None:
    """Tasks as given: each has its own few runs, all of whose variance counts."""
    rng, levels, rounds, hits = np.random.default_rng(4), np.linspace(0, 1, tasks), 200, 0
    many = np.array([level + 0.05 * rng.standard_normal(20_000) for level in levels])
    truth = float(statistic(many[None])[0])
    for _ in range(rounds):
        scores = [{0: (level + 0.05 * rng.standard_normal(seeds)).tolist()} for level in levels]
        low, high = resampling.interval_over_tasks(scores, statistic, tasks_too=False, draws=200)
        hits += low <= truth <= high
    assert hits / rounds >= 0.92  # 95 %, less twice its error


def test_a_profile_has_a_band_over_pretrainings() -> None:
    rng, at, rounds, hits = np.random.default_rng(6), np.array([0.5]), 200, {1: 0, 4: 0}
    for outers in hits:
        for _ in range(rounds):
            luck = rng.standard_normal(outers) if outers > 1 else np.zeros(1)
            scores = [{k: 0.5 + luck[k] + rng.standard_normal(6) for k in range(outers)} for _ in range(3)]
            _, low, high = resampling.profile(scores, at)
            hits[outers] += bool(low[0] <= 0.5 <= high[0])
    assert min(hits.values()) / rounds >= 0.92


def test_one_pretraining_behind_all_seeds_is_told_over_tasks_too(tmp_path: Path) -> None:
    for task in ("one", "two"):
        for seed in range(3):
            write_run(tmp_path, f"{task}-a{seed}", seed, 0.8 + 0.01 * seed, dataset__name=task)
            write_run(tmp_path, f"{task}-b{seed}", seed, 0.9 + 0.01 * seed, dataset__name=task, stage="p",
                init__component="stage")  # fmt: skip
    text, _ = report_of(tmp_path, baseline="init=scratch", stochastic_order=True)
    assert "One pretraining stands behind all seeds of “init=stage”" in text
    assert "core-minutes a seed, pretraining not counted" in text
    assert "Ulmer et al. 2022" in text and "With 3 seeds a task it says little" in text


def test_almost_stochastic_order_is_0_for_the_larger_and_1_for_the_smaller() -> None:
    low, high = [0.1, 0.2, 0.3, 0.25], [0.5, 0.6, 0.55]
    assert resampling.violation(high, low) == 0 and resampling.violation(low, high) == 1
    same = np.random.default_rng(0).normal(size=(2, 30))
    assert resampling.violation(same[0], same[0]) >= 0.5 > resampling.violation(same[0] + 1, same[1])
    # the ratio by numerical integration of the two quantile functions
    fine = np.linspace(0, 1, 200_000, endpoint=False) + 1e-6
    a, b = np.array([0.1, 0.7, 0.8]), np.array([0.3, 0.4])
    gap = np.quantile(a, fine, method="inverted_cdf") - np.quantile(b, fine, method="inverted_cdf")
    assert resampling._violation(a, b) == pytest.approx((gap[gap < 0] ** 2).sum() / (gap**2).sum(), abs=1e-4)


def test_a_mean_needs_two_tasks(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, f"a{seed}", seed, 0.8)
    assert many_tasks(studies_of(find_runs([str(tmp_path)]))) is None
