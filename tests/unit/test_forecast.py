"""The words and sums of a plan."""

from pathlib import Path

from bertlab.jobs.plan import Asked, count, describe, duration, size
from bertlab.training.costs.forecast import Forecast


def forecast(
    name: str, status: str = "new", done: int = 0, seconds: float = 60.0, stage: Forecast | None = None
) -> Forecast:
    return Forecast(Path("multirun") / name, status, 1_000_000, 100, done, 5e5, 1e12, seconds, stage)


def asked(*words: str) -> Asked:
    return Asked(words, lambda: None)  # type: ignore[arg-type, return-value]


def test_durations_sizes_and_counts_are_words() -> None:
    assert [duration(value) for value in (0, 59, 89, 90, 3570, 3599, 3600, 7500)] == [
        "0 s", "59 s", "89 s", "2 min", "1 h 00 min", "1 h 00 min", "1 h 00 min", "2 h 05 min",
    ]  # fmt: skip
    assert [size(value) for value in (0, 999, 1e3, 59e6, 2.5e9)] == [
        "0 B",
        "999 B",
        "1 kB",
        "59 MB",
        "2.5 GB",
    ]
    assert [count(value) for value in (12, 1234, 7_338_880)] == ["12", "1.23 k", "7.34 M"]


def test_a_shared_pretraining_and_a_double_run_are_counted_once() -> None:
    stage = forecast("pre", seconds=3600)
    runs = [
        (asked("seed=0"), forecast("a", stage=stage)),
        (asked("seed=1"), forecast("b", "finished", seconds=0.0, stage=stage)),
        (asked("seed=2"), forecast("c", "interrupted", done=40, seconds=30.0, stage=stage)),
        (asked("seed=3"), forecast("a", stage=stage)),
    ]
    lines = list(describe(runs, [stage], 0, None))
    assert lines[0].startswith("pretraining: multirun/pre  new")
    assert "as run 1" in lines[5] and "interrupted at step 40" in lines[4]
    # 3600 + 60 + 30 seconds
    assert "4 runs: 1 finished, 3 to do; one after the other about 1 h 02 min" in lines


def test_a_search_is_told_by_its_fastest_and_its_slowest_trial() -> None:
    runs = [(asked("lr=1"), forecast("a", seconds=10.0)), (asked("lr=2"), forecast("b", seconds=20.0))]
    lines = list(describe(runs, [], 1, 30))
    assert (
        lines[0]
        == "a search of 30 trials; 2 points that hold every choice and bound of its space, 1 with errors:"
    )
    assert "a trial takes 10 s to 20 s: 30 of them one after the other 5 min to 10 min" in lines[-2]
