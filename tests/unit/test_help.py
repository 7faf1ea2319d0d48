"""`bertlab help` and `bertlab list`: what the schema, docstrings and presets say, found by whatever word a
person has.
"""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from runfolders import write_run

from bertlab.cli import run_command
from bertlab.config import describe, registry, schema
from bertlab.errors import ConfigError, RunError
from bertlab.jobs import list as listing
from bertlab.runs.listing import ordered, select
from bertlab.runs.records import find_runs


def test_an_option_tells_its_keys_limits_and_what_it_reads_and_scores() -> None:
    told = describe.explain_word("objective=mlm")
    for part in (
        "reads    text (text)", "loss (nats per masked token, lower is better; selects)",
        "perplexity (lower is better)",
        "objective.rate=0.15", "number, > 0, < 1",
        "objective.unit=token", "token | word | span", "what is hidden together",
    ):  # fmt: skip
        assert part in told


def test_no_options_sentence_is_cut_where_its_line_ends() -> None:
    for group in schema.COMPONENTS:
        for option, told in describe.options_in_words(group).items():
            assert not told.endswith((" a", " of", " on", " the", " and", " with")), (group, option)
            assert "\n" not in told, (group, option)
    assert (
        describe._first_line("One\nsentence of two lines. Another one.\n\nMore.")
        == "One sentence of two lines."
    )


def test_a_preset_tells_its_own_values() -> None:
    told = describe.explain_word("model=bert_mini_rotary")
    assert (
        "built on model=bert_mini" in told
        and "model.positions=rotary" in told
        and "model.hidden_size=256" in told
    )


def test_a_key_tells_each_options_default() -> None:
    told = describe.explain_word("optimizer.lr")
    assert "number, > 0" in told and "default: 0.0001   (optimizer=lion)" in told
    assert "real (unpadded) tokens" in describe.explain_word("init.budget.tokens")


@pytest.mark.parametrize("group", [*registry.GROUPS, *schema.PLAIN])
def test_every_group_and_option_can_be_asked_for(group: str) -> None:
    assert describe.explain_word(group)
    for option in registry.options_of(group) if group in registry.GROUPS else ():
        assert describe.explain_word(f"{group}={option}").startswith(f"{group}={option}")
        assert describe.summary_of(group, option), f"{group}={option} says nothing of itself"


def test_every_key_of_a_run_explains_itself() -> None:
    keys = [key for _, key in describe.every_key()]
    assert len(keys) > 200 and not [key.name for key in keys if not key.is_group and not key.help]
    assert all(key.help for key in describe.keys_of_search())
    assert {item.name for item in dataclasses.fields(schema.Budget)} <= {
        key.name.partition(".")[2] for key in keys
    }


@pytest.mark.parametrize(("words", "part"), [
    (["help", "dropout"], "objective.head_dropout=0.1"),
    (["objective=mlm", "--help"], "objective.unit=token"),
    (["report", "baseline=x", "--help"], "the arm that the others are compared with"),
    (["help", "report"], "keep_runs=false"),
    (["help", "objective.class_weights"], "any kind of value"),
    (["help", "hydra.sweeper.n_trials"], "hydra.sweeper.n_trials=20"),
    (["help"], "to look something up"),
    (["list"], "what has been trained, with scores"),
    (["list", "datasets"], "Stanford Sentiment Treebank"),
    (["list", "model"], "BERT-Tiny as in Turc et al."),
])  # fmt: skip
def test_the_command_line_answers(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(words) == 0
    assert part in capsys.readouterr().out


@pytest.mark.parametrize(("words", "line"), [
    (["help", "optimizer.lrr"], "no group, key or job 'optimizer.lrr', did you mean 'optimizer.lr'?"),
    (["-m", "optimizer.lr=interval(1e-4,1e-3)", "hydra.sweeper.n_trails=2"],
     "unknown key 'hydra.sweeper.n_trails', did you mean 'hydra.sweeper.n_trials'?"),
    (["help", "objective=mlmm"], "objective=mlmm: unknown option, did you mean 'mlm'?"),
    (["list", "dataset_s"], "there is no such list, did you mean 'datasets'?"),
    (["list", "models", "sort=x"], "where, sort and format are for runs"),
])  # fmt: skip
def test_what_is_not_there_is_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(words) == 2
    err = capsys.readouterr().err
    assert line in err and len(err.splitlines()) == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, score in enumerate((0.7, 0.9, 0.8)):
        write_run(tmp_path, f"toy-classification-{seed}", seed, score, optimizer__lr=1e-3 if seed else 2e-3)
    write_run(tmp_path, "toy-classification-x", 9, 0.5, status="failed")
    return tmp_path


def test_runs_are_chosen_and_put_in_order(folder: Path) -> None:
    runs = find_runs([str(folder)])
    assert [
        run.seed for run in ordered(select(runs, ["optimizer.lr=1e-3", "status=finished"]), "-validation")
    ] == [1, 2]
    assert [run.seed for run in ordered(runs, "validation")] == [0, 2, 1, 9], "what has no score stands last"
    assert [run.seed for run in select(runs, ["validation/accuracy>=0.8"])] == [1, 2]
    assert [run.seed for run in select(runs, ["init=scratch", "seed!=1"])] == [0, 2, 9]
    for where, line in (("lr=1", "no run has the key lr"), ("seed", "not of the form")):
        with pytest.raises(ConfigError, match=line):
            select(runs, [where])
    with pytest.raises(ConfigError, match="sort=-nothing: no run has the key nothing"):
        ordered(runs, "-nothing")


def test_runs_are_listed_for_people_and_for_programs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["list", "runs", f"runs={folder}", "sort=-validation"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "toy-classification-1" in lines[1]
        and "0.9000" in lines[1]
        and "seed=1 optimizer.lr=0.001" in lines[1]
    )
    assert "failed" in lines[4] and lines[-1] == "4 runs, 3 finished"
    assert run_command(["list", "runs", f"runs={folder}", "format=jsonl", "where=seed>0"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["seed"] for row in rows} == {1, 2, 9} and rows[0]["optimizer.lr"] == 0.001


def test_a_folder_without_runs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder there or below"):
        listing.chosen_runs(str(tmp_path), "", None)
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # looking leaves nothing
