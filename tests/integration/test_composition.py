"""Every option composes, every experiment smokes, help and errors answer at once, nothing heavy is imported
for them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from bertlab.config import registry
from bertlab.config.composition import compose_schema, declared_tasks, read_words
from bertlab.config.registry import GROUPS, conf_folder
from bertlab.config.suites import read_suite
from children import PATIENCE

CONF = conf_folder()
Cli = Callable[..., tuple[int, str, str]]  # conftest's fixture
NEEDED = {
    ("dataset", "files"): ["dataset.train_file=x.csv"], ("dataset", "table"): ["dataset.train_file=x.csv"],
    ("init", "checkpoint"): ["init.path=x"], ("init", "pretrained"): ["init.path=x"], ("tokenizer",
    "pretrained"): ["tokenizer.path=x"],
    ("debug", "smoke_stage"): ["init=stage"], ("tokenizer", "inherited"): ["init=checkpoint", "init.path=x"],
    ("dataset", "mixture"): ["dataset.parts={classic_books: 2, imdb_text: 1}"], ("model",
    "hf"): ["model.name_or_path=x"],
    ("budget", "hours"): ["schedule=constant", "schedule.warmup_steps=10"], ("model", "bert"): [],
}  # fmt: skip
OPTIONS = sorted(
    {(group, file.stem) for group in GROUPS for file in (CONF / group).glob("*.yaml")}
    | {(group, option) for group in GROUPS for option in registry.options(group)}
)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids="=".join)
def test_every_option_composes(group: str, option: str) -> None:
    if group == "suite":
        assert declared_tasks(read_suite(option))
        return
    compose_schema("train", [f"{group}={option}", *NEEDED.get((group, option), [])])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", sorted(file.stem for file in (CONF / "experiment").glob("*.yaml")))
def test_every_experiment_smokes(experiment: str, cli: Cli, shared_data: Path, few_real_rows: Path) -> None:
    mirror = shared_data if experiment == "ten_million_words" else few_real_rows  # which takes so many
    status, out, err = cli(
        f"experiment={experiment}", "debug=smoke", f"paths.mirror={mirror}", "compute.threads=1"
    )
    assert status == 0, err
    assert out.splitlines()[-1].startswith("run: multirun/")
    for file in Path("multirun").glob("*/summary.json"):  # a pretraining among them
        assert json.loads(file.read_text())["cost"]["steps"] <= 4


@pytest.mark.parametrize(
    "experiment", sorted((CONF / "experiment").glob("*.yaml"), key=str), ids=lambda file: file.stem
)
def test_every_experiment_says_what_it_is(experiment: Path) -> None:
    head = "".join(line for line in experiment.read_text().splitlines(keepends=True) if line.startswith("#"))
    for word in ("source", "command", "expected", "time"):
        assert f"# {word}" in head.lower(), f"{experiment.name} does not open with its {word}"


HEAVY = """
import contextlib, io, json, sys
from bertlab.cli import run_command
told = []
for words in json.loads(sys.argv[1]):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = run_command(words)
    told.append([status, errors.getvalue()])
heavy = {"torch", "transformers", "datasets", "wandb", "optuna", "pandas", "matplotlib", "hydra"}
print(json.dumps([told, sorted(heavy & set(sys.modules))]))
"""


def heavy_modules(*lines: list[str]) -> tuple[list[tuple[int, str]], set[str]]:
    """Of command lines one after the other in a process of their own: status and errors of each, and what all
    have imported.
    """
    command = [sys.executable, "-c", HEAVY, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    told, heavy = json.loads(done.stdout)
    return told, set(heavy)


def test_help_imports_nothing_heavy() -> None:
    told, heavy = heavy_modules(
        ["--help"], ["train", "--help"], ["evaluate", "-h"], ["predict", "--help"], ["--version"]
    )
    assert heavy == set() and all(status == 0 for status, _ in told), told


def test_help_names_every_group_and_option(cli: Cli) -> None:
    _, out, _ = cli("--help")
    for group, option in OPTIONS:
        if option != "table":
            assert option in next(line for line in out.splitlines() if line.startswith(f"  {group} ")).split()


def test_composed_config_is_shown_and_info_answers(cli: Cli) -> None:
    status, out, _ = cli("--cfg", "job", "model=bert_mini")
    assert status == 0 and "hidden_size: 256" in out
    status, out, _ = cli("--info", "defaults")
    assert status == 0 and "bert_tiny" in out


COMPLETED = {
    "bertlab mod": "model=",
    "bertlab model=bert_mi": "model=bert_mini",
    "bertlab optimizer.weight": "optimizer.weight_decay=",
    "bertlab pre": "predict",
    "bertlab predict fo": "format=",
    "bertlab evaluate spl": "split=",
}


def test_tab_completion_knows_groups_and_keys(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for line, expected in COMPLETED.items():
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        status, out, err = cli("-sc", "query=bash")
        assert status == 0 and expected in out.split(), (line, out, err)


def test_a_shell_asks_a_process_of_its_own_for_completions() -> None:
    line, expected = next(iter(COMPLETED.items()))
    done = subprocess.run(
        [sys.executable, "-m", "bertlab", "-sc", "query=bash"],
        capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))},
    )  # fmt: skip
    assert expected in done.stdout.split(), (done.stdout, done.stderr)


def test_budget_unit_on_the_command_line_replaces_the_presets() -> None:
    config = compose_schema("train", ["budget.steps=7"])
    assert (config.budget.steps, config.budget.epochs) == (7, None)


def test_sweep_is_checked_before_its_first_run_starts(cli: Cli) -> None:
    before = time.monotonic()
    status, _, err = cli("-m", "debug=smoke", "optimizer.lr=1e-3,1e-4,-1")
    assert status == 2 and "optimizer.lr=-1.0" in err and time.monotonic() - before < 20
    assert not Path("multirun").exists()


@given(
    name=st.from_regex(
        r"[0-9a-f]{12}|[0-9]{1,12}(e[0-9]{1,3})?|[0-9_.]{1,6}|inf|NaN|True", fullmatch=True
    ).filter(lambda name: name != ".")
)
@example("32118226e611")  # the id of a run, once: Hydra reads infinity
def test_a_name_that_looks_like_a_number_stays_a_name(name: str) -> None:
    keys = {
        "run": "predict",
        "dataset.train_file": "train",
        "init.dataset.train_file": "train",
        "paths.output": "train",
    }
    for key, job in {**keys, "model.name_or_path": "train"}.items():
        (word,) = read_words(job, [f"{key}={name}"])
        assert OverridesParser.create().parse_override(str(word)).value() == name
    (word,) = read_words("predict", [f"run={name},b"])
    assert [one.plain for one in word.singles()] == [name, "b"]
