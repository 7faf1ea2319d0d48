"""`bertlab list runs` says what tells runs apart, and `list sweeps` shows each command once."""

from pathlib import Path
from typing import Any

import pytest
from runfolders import change_summary, write_run

from bertlab.jobs.list import Schema, list_runs, list_sweeps


def listed(root: Path, lines: Any = list_runs) -> list[str]:
    return list(lines(Schema(runs=str(root))))


def test_folds_and_zipped_keys_tell_the_runs_of_a_sweep_apart(tmp_path: Path) -> None:
    command = (
        "bertlab -m dataset.folds=3 'dataset.fold=range(3)'"
        " 'zip(optimizer.lr=1e-3,5e-4; schedule=cosine,linear)'"
    )
    for fold in range(3):
        for lr, schedule in ((0.001, "cosine"), (0.0005, "linear")):
            folder = write_run(
                tmp_path, f"r{fold}{schedule}", 0, 0.9, dataset__fold=fold, dataset__folds=3,
                optimizer__lr=lr, schedule__component=schedule,
            )  # fmt: skip
            change_summary(folder, command=command)
    lines = listed(tmp_path)[1:-1]
    told = {line.split("  ")[-1] for line in lines}
    assert told == {
        f"dataset.fold={fold} optimizer.lr={lr} schedule={schedule}"
        for fold in range(3)
        for lr, schedule in (("0.001", "cosine"), ("0.0005", "linear"))
    }


def test_seeds_are_told_where_they_vary(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, f"r{seed}", seed, 0.9)
    assert [line.split()[-1] for line in listed(tmp_path)[1:-1]] == ["seed=0", "seed=1"]
    assert listed(tmp_path / "r0")[1].split()[-1] == "-"


@pytest.mark.parametrize("words", ["", " optimizer.lr=1e-3"])
def test_a_suite_is_one_sweep(tmp_path: Path, words: str) -> None:
    for task in ("queue", "score"):
        for seed in range(2):
            folder = write_run(tmp_path, f"{task}{seed}", seed, 0.9)
            change_summary(folder, command=f"bertlab -m suite=desk/{task} 'seed=range(2)'{words}")
    lines = listed(tmp_path, list_sweeps)
    assert lines[-1] == "1 sweeps" and "4 finished" in lines[1]
    assert lines[1].endswith(f"bertlab -m suite=desk 'seed=range(2)'{words}")


def test_a_search_is_told_once(tmp_path: Path) -> None:
    """Also one that an interval alone began, without `search=`; a grid beside it stays."""
    study = tmp_path / "studies" / "lr"
    study.mkdir(parents=True)
    rows = [
        f"{number},complete,0.9,{'yes' if number else ''},validation/accuracy,multirun/t{number}"
        for number in (0, 1)
    ]
    (study / "trials.csv").write_text("\n".join(["number,state,value,best,metric,run", *rows]) + "\n")
    for name, words in (("t", "'optimizer.lr=interval(1e-4,1e-3)'"), ("g", "'seed=range(2)'")):
        for number in range(2):
            folder = write_run(tmp_path, f"{name}{number}", number, 0.9)
            change_summary(folder, command=f"bertlab -m {words}")
    lines = listed(tmp_path, list_sweeps)
    assert lines[-1] == "2 sweeps"
    assert lines[1].startswith("lr") and lines[2].startswith("grid") and lines[2].endswith("'seed=range(2)'")


def test_a_command_that_cannot_be_read_any_more_is_no_reason_to_stop(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "r", 0, 0.9)
    change_summary(folder, command="bertlab -m 'seed=range(2) x=[")
    assert len(listed(tmp_path)) == 3 and listed(tmp_path, list_sweeps)[-1] == "1 sweeps"
