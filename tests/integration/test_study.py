"""Studies: a plan that could show nothing is refused, one that was frozen is kept or its changes are told,
and the report answers.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from bertlab.config import registry, studies
from bertlab.config.composition import compose_schema
from bertlab.config.schema import Train
from bertlab.config.studies import TESTS, read_study, results_of, study_file
from bertlab.declarations import FRACTION, Metric
from bertlab.errors import ConfigError
from bertlab.report import stats
from bertlab.runs.outcome import Context, Outcome
from bertlab.runs.records import find_runs, keep_runs
from bertlab.training.location import Located, locate
from children import start
from conftest import Cli
from tiny import tiny

pytestmark = pytest.mark.slow

WORDS = tiny("budget.epochs=null", "budget.steps=4", "budget.batch_size=8", sizes=(80, 40, 20))
PLAN: dict[str, Any] = {
    "question": "Is a learning rate of 1e-2 better than 1e-3?",
    "words": WORDS,
    "arms": {"low": ["optimizer.lr=1e-3"], "high": ["optimizer.lr=1e-2"]},
    "effect": 1.0,
    "test": "t",
    "seeds": 2,
}


def write(**changes: Any) -> Path:
    file = Path("studies/rates.yaml")
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        yaml.safe_dump(
            {key: value for key, value in {**PLAN, **changes}.items() if value is not None}, sort_keys=False
        )
    )
    return file


def test_a_study_runs_seals_reports_and_keeps_its_plan(cli: Cli) -> None:
    write()
    status, _, errors = cli("study", "rates")
    assert status == 0, errors
    frozen = json.loads(Path("studies/rates/frozen.json").read_text())
    tag = f"rates@{frozen['seal']}"
    folders = sorted(Path("multirun").glob("synthetic-*"))
    assert len(folders) == 4 and all(
        yaml.safe_load((run / "config.yaml").read_text())["tags"] == [tag] for run in folders
    )
    page = Path("studies/rates/report/report.md").read_text()
    assert (
        page.index("Is a learning rate")
        < page.index("“high”: ")
        < page.index(frozen["seal"])
        < page.index("Scores over seeds")
    )
    assert "The plan was kept." in page and Path("studies/rates/report/runs.parquet").is_file()

    before = {run: (run / "summary.json").read_bytes() for run in folders}
    write(effect=2.0, seeds=3)
    status, _, errors = cli("study", "rates")
    assert status == 0, errors
    page = Path("studies/rates/report/report.md").read_text()
    assert (
        "Left since: effect was 1.0, is 2.0; the answer keeps to what it was" in page
        and "| smallest effect of interest | 1.00 |" in page
        and "The frozen plan was left in 2 points" in page
        and "Left since: seeds was 2, is 3" in page
        and frozen["seal"] in page
    )
    assert all((run / "summary.json").read_bytes() == content for run, content in before.items()), (
        "nothing was computed twice"
    )
    assert len(list(Path("multirun").glob("synthetic-*"))) == 6


def test_what_answers_stays_as_it_was_frozen(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever edits the plan after seeing its scores gets the old plan's answer, and a line a change."""
    monkeypatch.setattr("bertlab.jobs._study_runs.train", stand_in)
    write(test="sign_flip", seeds=6, hypothesis="Nothing happens.")
    assert cli("study", "rates")[0] == 0
    before = Path("studies/rates/report/report.md").read_text()
    assert "p = 0.031" in before and "Expected before the runs: Nothing happens." in before
    write(test="t", seeds=6, hypothesis="It helps.", effect=5.0, split="test", question="Better at last?")
    status, _, errors = cli("study", "rates")
    assert status == 0, errors
    after = Path("studies/rates/report/report.md").read_text()
    assert "Expected before the runs: Nothing happens." in after and PLAN["question"] in after
    assert (
        "p = 0.031" in after
        and "Holm over 1 comparison" in after
        and "sign-flip" in after.split("Left since")[0]
    )
    for key in ("test was sign_flip, is t", "hypothesis was Nothing happens., is It helps.",
                "split was validation, is test"):  # fmt: skip
        assert f"Left since: {key}; the answer keeps to what it was" in after
    assert after.index("The frozen plan was left in 5 points") < after.index("“high”: better")


@pytest.mark.parametrize(
    ("key", "value"),
    [("test", "bayes"), ("split", "train"), ("seeds", 0), ("effect", 3.0), ("question", "Why?")],
)
def test_a_frozen_plan_that_was_edited_is_refused(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    """By hand in its file, which the seal is of; whether the value is one or not."""
    monkeypatch.setattr("bertlab.jobs._study_runs.train", stand_in)
    write()
    assert cli("study", "rates")[0] == 0
    file = Path("studies/rates/frozen.json")
    kept = json.loads(file.read_text())
    kept["plan"][key] = value
    file.write_text(json.dumps(kept))
    status, _, errors = cli("study", "rates", "report=true")
    assert status == 2 and "its seal is of another plan" in errors and errors.count("\n") == 1, errors


def test_a_study_that_is_stopped_is_called_unfinished(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertlab.jobs._study_runs.train", stand_in)
    write(test="anytime", seeds=8)
    made = []

    def stopped(config: Train, context: Context) -> Outcome:
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(config)
        return stand_in(config, context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bertlab.jobs._study_runs.train", stopped)
        assert cli("study", "rates")[0] == 130
    status, _, errors = cli("study", "rates", "report=true")
    assert status == 0, errors
    page = Path("studies/rates/report/report.md").read_text()
    assert (
        "It is not finished" in page and "low 3 of 8, high 2 of 8" in page and "The plan was kept" not in page
    )


STAGE = ["init=stage", "init.dataset=synthetic", "init.budget.steps=2", "init.budget.tokens=null"]


def test_an_arm_from_scratch_stands_beside_every_pretraining(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertlab.jobs._study_runs.train", stand_in)
    arms = {"scratch": ["optimizer.lr=1e-3"], "pretrained": ["optimizer.lr=1e-2", *STAGE]}
    write(arms=arms, pretraining_seeds=2, seeds=3)
    status, out, errors = cli("study", "rates", "preview=true")
    assert status == 0, errors
    assert out.count("scratch, seed") == 3 and out.count("pretrained, seed") == 6
    write(arms=arms, pretraining_seeds=4, seeds=3)
    assert "arms.scratch has no pretraining of its own, so that its 3 seeds" in cli("study", "rates")[2]
    write(arms=arms, pretraining_seeds=5, seeds=5, test="anytime")
    assert "test=anytime cannot stop by that: take test=t" in cli("study", "rates")[2]
    write(pretraining_seeds=2)
    assert "no arm has a pretraining of its own" in cli("study", "rates")[2]


def test_processes_of_a_run_are_started_in_a_study_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def stand_in_for_several(run: Located, context: Context) -> Outcome:
        started.append(run.config.compute.processes)
        return stand_in(run.config, context)

    monkeypatch.setattr("bertlab.training.lifecycle.train_by_several", stand_in_for_several)
    write(words=[*WORDS, "compute.processes=2"])
    assert cli("study", "rates")[0] == 0 and started == [2, 2, 2, 2]


def test_runs_from_before_the_plan_are_told(cli: Cli) -> None:
    assert cli(*WORDS, "optimizer.lr=1e-3", "seed=1")[0] == 0
    write()
    assert cli("study", "rates", "preview=true")[0] == 0 and not Path("studies/rates").exists(), (
        "a preview freezes nothing"
    )
    assert cli("study", "rates")[0] == 0
    assert (
        "1 run had been made before the plan was frozen" in Path("studies/rates/report/report.md").read_text()
    )


def made_here() -> list[tuple[float, int]]:
    """Rate and seed of the runs whose folders lie here."""
    configs = [
        yaml.safe_load((run / "config.yaml").read_text()) for run in Path("multirun").glob("synthetic-*")
    ]
    return sorted((config["optimizer"]["lr"], config["seed"]) for config in configs)


def test_a_study_goes_on_from_what_its_report_kept(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another machine, with the study's folder alone; where arithmetic differs, whole seeds are taken."""
    monkeypatch.setattr("bertlab.jobs._study_runs.train", stand_in)
    write()
    assert cli("study", "rates")[0] == 0
    shutil.rmtree("multirun")
    write(seeds=3)
    status, out, errors = cli("study", "rates")
    assert status == 0, errors
    assert made_here() == [(1e-3, 2), (1e-2, 2)]
    kept = {run.config["seed"]: run for run in find_runs(["studies/rates/report/runs.parquet"])}
    assert sorted(kept) == [0, 1, 2] and "| 3 " in Path("studies/rates/report/report.md").read_text()

    shutil.rmtree("multirun")
    every = find_runs(["studies/rates/report/runs.parquet"])
    lost = next(run for run in every if run.seed == 1)
    keep_runs([run for run in every if run is not lost], Path("studies/rates/report"))
    write(seeds=3, words=[*WORDS, "compute.micro_batch_size=4"])
    write(seeds=3, words=[*WORDS, "compute.micro_batch_size=4"])  # sums in another order
    status, out, errors = cli("study", "rates", "preview=true")
    assert status == 0 and out.count("(kept)") == 4 and out.count("(new)") == 2, (out, errors)
    status, out, errors = cli("study", "rates")
    assert status == 0, errors
    assert made_here() == [(1e-3, 1), (1e-2, 1)], "a pair is computed alike"
    assert "4 runs now resolve to other settings" in Path("studies/rates/report/report.md").read_text()

    shutil.rmtree("multirun")
    write(seeds=4)
    status, out, errors = cli("study", "rates", "report=true")
    assert status == 0 and "seed 3: 2 runs not made yet" in out and not Path("multirun").exists(), errors
    shutil.rmtree("studies/rates")
    assert "holds no frozen plan yet: bertlab study rates" in cli("study", "rates", "report=true")[2]


def stand_in(config: Train, _: Context) -> Outcome:
    """A run that trains nothing: the arm of the higher rate scores 0.3 more, seeds differ by thousandths."""
    run = locate(config)
    summary = run.folder.finished()
    if summary is None:
        score = 0.5 + 0.3 * (config.optimizer.lr > 0.005) + 0.001 * ((7 * config.seed) % 5)
        metric = Metric("accuracy", True, FRACTION, (0.0, 1.0))
        run.folder.begin(run.config, run.identity, {})
        cost = {
            "steps": 4,
            "seconds": 90.0,
            "tokens": 10,
            "flops": 1.0,
            "parameters": 5,
            "finished_at": "2026",
        }
        summary = {"status": "finished", "id": run.id, "metrics": {"validation/accuracy": score},
            "seed": config.seed, "cost": cost,
                   "metric_specs": {"validation/accuracy": metric.record()},
                   "selected_by": "validation/accuracy",
                   "last": {}, "command": "bertlab"}  # fmt: skip
        (run.folder.path / "labels.json").write_text("[]")
        (run.folder.path / "summary.json").write_text(json.dumps(summary))
    return Outcome(run.folder, summary)


def test_seeds_are_handed_out_until_the_test_decides(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertlab.jobs._study_runs.train", stand_in)
    write(test="anytime", seeds=8)
    status, out, errors = cli("study", "rates")
    assert status == 0, errors
    assert "decided after 5 of 8 seeds" in out, "the fewest with which this test can speak"
    page = Path("studies/rates/report/report.md").read_text()
    assert "“high”: better" in page and "The plan was kept." in page
    assert len(list(Path("multirun").glob("synthetic-*"))) == 10


def test_an_arm_that_is_decided_gets_no_further_seed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertlab.jobs._study_runs.train", stand_in)
    write(
        test="anytime",
        seeds=9,
        arms={"low": ["optimizer.lr=1e-3"], "high": ["optimizer.lr=1e-2"], "middle": ["optimizer.lr=2e-3"]},
    )
    status, out, errors = cli("study", "rates")
    assert status == 0, errors
    assert "high: better after 6 of 9 seeds" in out
    rates = [
        yaml.safe_load((run / "config.yaml").read_text())["optimizer"]["lr"]
        for run in Path("multirun").glob("synthetic-*")
    ]
    assert [rates.count(rate) for rate in (1e-3, 1e-2, 2e-3)] == [9, 6, 9]
    page = Path("studies/rates/report/report.md").read_text()
    assert "“high”: better" in page and "“middle”: not decided after 9 seeds" in page
    assert "The plan was kept." in page


def test_one_pretraining_decides_nothing_of_its_recipe(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """However clear its own seeds are."""
    seen = []

    def compared(_plan: Any, rounds: Any) -> list[Any]:
        seen.append({one.outer for group in rounds for one in group})
        return []

    monkeypatch.setattr("bertlab.jobs._study_runs.train", stand_in)
    monkeypatch.setattr("bertlab.jobs._study_runs.compared", compared)
    write(words=[*WORDS, *STAGE], test="anytime", pretraining_seeds=5, seeds=2)
    cli("study", "rates")
    assert seen == [{0, 1}, {0, 1, 2}, {0, 1, 2, 3}]


@pytest.mark.usefixtures("cli")
def test_two_processes_share_the_runs_of_a_study() -> None:
    write(seeds=3)
    both = [start("study", "rates") for _ in range(2)]
    told = [one.wait() for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    runs = sorted(Path("multirun").glob("synthetic-*"))
    sessions = [(run / "sessions.jsonl").read_text().splitlines() for run in runs]
    assert [len(lines) for lines in sessions] == [1] * 6, "each was computed once"
    assert "The plan was kept." in Path("studies/rates/report/report.md").read_text()


def test_a_budget_ends_a_study_and_that_is_a_deviation(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertlab.jobs._study_runs.train", stand_in)
    write(seeds=4, budget_hours=0.1)  # two rounds of two runs of 90 seconds
    status, out, errors = cli("study", "rates")
    assert status == 0, errors
    assert "budget_hours=0.1: 0.10 spent" in out
    assert (
        "fewer runs than planned: low 2 of 4, high 2 of 4"
        in Path("studies/rates/report/report.md").read_text()
    )


def test_a_failed_run_is_told_and_the_rest_is_reported(cli: Cli) -> None:
    write(arms={"low": ["optimizer.lr=1e-3"], "wild": ["optimizer.lr=1e30", "optimizer.clip_norm=0"]})
    status, _, errors = cli("study", "rates")
    assert status == 2 and "Traceback" not in errors
    assert errors.strip().splitlines()[-1].startswith("bertlab: ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test": None, "seeds": 5}, "the sign_flip test can show nothing below 6"),
        ({"test": "anytime", "seeds": 4}, "the anytime test can show nothing below 5"),
        ({"question": None}, "question: must be given"),
        ({"effect": -1}, "effect=-1.0: must be greater than 0"),
        ({"effect": "big"}, "effect: "),
        ({"sedes": 3}, "unknown key 'sedes', did you mean 'seeds'"),
        ({"arms": {"low": []}}, "arms: 1; a study compares two or more"),
        ({"arms": {"low": [], "high": []}}, "two of them have the same words"),
        ({"arms": {"low": [], "high": ["optimizer.lr=1,2"]}}, "has several values"),
        ({"arms": {"low": [], "high": ["seed=3"]}}, "the study hands seeds out"),
        ({"arms": {"low": [], "high": ["nonsense"]}}, "is no word of the form key=value"),
        ({"arms": {"low": [], "high": ["optimizer.rate=1"]}}, "arms.high: "),
        ({"pilot": ["nowhere"]}, "pilot=nowhere: no such folder"),
        ({"equivalence": True, "test": "anytime"}, "equivalence: two one-sided t tests hold for a number"),
        (
            {"equivalence": True, "seeds": 4, "effect": 0.1, "spread": 0.8},
            "equivalence: equal arms are shown to be within ±0.10 0 times out of 100; four times out of five",
        ),
        ({"metric": "beauty"}, "metric=beauty"),
    ],
)
def test_what_is_wrong_is_told_before_a_run(cli: Cli, changes: dict[str, Any], said: str) -> None:
    write(**changes)
    status, _, errors = cli("study", "rates")
    assert status == 2 and said in errors and len(errors.strip().splitlines()) == 1, errors
    assert not Path("multirun").exists() and not Path("studies/rates").exists()


def test_a_study_that_is_not_there_and_one_that_is_no_yaml(cli: Cli) -> None:
    assert "comes with the program; did you mean 'encoder_atlas'?" in cli("study", "encoder_atlsa")[2]
    file = write()
    assert "did you mean 'rates'" in cli("study", "rate")[2]
    file.write_bytes(b"question: [\xff")
    assert "not valid YAML" in cli("study", "rates")[2]
    file.write_text("- a list")
    with pytest.raises(ConfigError):
        read_study(file)
    write()
    Path("studies/rates").mkdir()
    Path("studies/rates/frozen.json").write_text("{}")
    assert "take it out of the way" in cli("study", "rates")[2]


def test_the_tests_of_plans_are_those_of_reports() -> None:
    assert {name: test.is_sequential for name, test in stats.TESTS.items()} == TESTS


def test_a_plan_that_comes_with_the_program_composes_and_could_show_something() -> None:
    """Every arm of each is a run; names lead to them, and their results lie in the folder at hand."""
    for name, file in registry.declared_files(studies.GROUP).items():
        assert study_file(name) == file and results_of(file) == Path("studies") / name
        plan = read_study(file)
        for own in plan.arms.values():
            compose_schema("train", [*plan.words, *own])
        smallest = stats.smallest_n(0.05 / (len(plan.arms) - 1), plan.test)
        assert plan.seeds >= smallest, "its test could show nothing"
    mine = write()
    assert results_of(mine) == mine.parent / "rates"
