"""What a person can get wrong, and the one line that says so: exit status 2, what is wrong and where, nothing left behind.

A case is a command line, the files and variables it finds, and what its line must name. `{run}` stands for a finished run.
"""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]
TINY = "model.num_hidden_layers=1 model.hidden_size=16 model.num_attention_heads=2 debug=smoke compute=cpu compute.threads=1"


@dataclass(frozen=True)
class Case:
    """`files`: path -> content, written before the command runs."""

    name: str
    command: str
    says: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def case(name: str, command: str, *says: str, files: dict[str, str | bytes] | None = None, **environment: str) -> Case:
    return Case(name, command, says, files or {}, environment)


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[item.name for item in cases])


def tree(folder: Path) -> dict[str, bytes]:
    """Every file and folder below, with the files' content."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


def lay_out(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in case.files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)


def assert_refused(outcome: tuple[int, str, str], says: tuple[str, ...], before: dict[str, bytes]) -> None:
    """Status 2, one line that says what it must, and the folder as it was."""
    status, output, errors = outcome
    lines = errors.splitlines()
    assert len(lines) == 1, f"{len(lines)} lines on standard error:\n{errors}\nand on standard output:\n{output}"
    assert lines[0].startswith("bertlab: ") and len(lines[0]) < 700, lines[0]
    assert not re.search(r"('[^']+'), did you mean \1", lines[0]), f"it suggests what was written: {lines[0]}"
    missing = [fragment for fragment in says if fragment not in lines[0]]
    assert not missing, f"{missing} not in: {lines[0]}"
    assert "Traceback" not in output and "Warning" not in lines[0]
    assert status == 2, f"exit status {status}: {lines[0]}"
    assert sorted(tree(Path())) == sorted(before), "the refused command left something behind"
    assert tree(Path()) == before, "the refused command changed a file"


# --- the command line ---------------------------------------------------------------------------------------------------------
COMMAND_LINES = [
    case("job_typo", "trian seed=1", "unknown job 'trian'", "did you mean 'train'"),
    case("job_typo_with_its_settings", "predct run=x", "'predct'", "did you mean 'predict'"),
    case("flag_typo", "--multirum seed=0,1", "'--multirum'", "did you mean '--multirun'"),
    case("flag_that_lacks_its_value", "--cfg", "--cfg", "job"),
    case("flag_of_another_flag", "--resolve seed=1", "--resolve", "--cfg"),
    case("flag_with_an_unknown_value_of_hydra", "--info al", "--info", "all"),
    case("flag_with_an_unknown_value", "--cfg jbo", "--cfg jbo", "did you mean 'job'"),
    case("bare_word", "train bert_tiny", "'bert_tiny'", "key=value"),
    case("empty_word", "train ''", "key=value"),
    case("config_folder_nowhere", "--config-dir nowhere seed=1", "nowhere"),
    case("group_typo", "modle=bert_tiny", "command line", "'modle'", "did you mean 'model'"),
    case("group_typo_added", "+modle=bert_tiny", "command line", "modle", "did you mean 'model'"),
    case("option_typo", "model=bert_tinny", "model=bert_tinny", "did you mean 'bert_tiny'"),
    case("dataset_option_typo", "dataset=sst", "dataset=sst", "did you mean 'sst2'"),
    case("experiment_option_typo", "experiment=bertsts2", "experiment=bertsts2", "did you mean 'bertsst2'"),
    case("option_in_capitals", "model=BERT_tiny", "model=BERT_tiny", "did you mean 'bert_tiny'"),
    case("empty_option", "model=", "model"),
    case("option_that_is_no_name", "model=3", "model=3"),
    case("option_that_is_a_mapping", "'model={hidden_size: 3}'", "model"),
    case("group_set_to_null", "model=null", "model"),
    case("key_typo", "model.hiden_size=64", "command line", "'model.hiden_size'", "did you mean 'model.hidden_size'"),
    case("key_typo_at_the_top", "sed=1", "'sed'", "did you mean 'seed'"),
    case("key_without_its_group", "lr=0.1", "'lr'", "did you mean 'optimizer.lr'"),
    case("key_in_the_wrong_group", "model.lr=0.1", "'model.lr'", "did you mean 'optimizer.lr'"),
    case("key_of_another_component", "optimizer=sgd optimizer.betas=3", "'optimizer.betas'"),
    case("key_below_a_value", "seed.first=1", "seed"),
    case("key_of_another_job", "predict run=x optimizer.lr=1", "optimizer"),
    case("new_key_added", "+model.depth=3", "command line", "model.depth", "unknown key"),
    case("new_key_added_at_the_top", "+new.key=1", "command line", "new", "unknown key"),
    case("new_key_forced", "++optimizer.learning_rate=3", "command line", "optimizer.learning_rate", "unknown key"),
    case("typo_forced", "++seeed=3", "command line", "seeed", "did you mean 'seed'"),
    case("deleted_key", "~optimizer.lr", "optimizer.lr"),
    case("deleted_group", "~optimizer", "optimizer"),
    case("deleted_typo", "~optimiser", "optimiser"),
    case("component_by_its_name", "optimizer.name=sgd", "command line", "optimizer.name=sgd", "optimizer=sgd"),
    case("word_for_a_number", "model.hidden_size=large", "command line", "model.hidden_size", "large"),
    case("fraction_for_a_whole_number", "model.hidden_size=64.5", "model.hidden_size", "64.5"),
    case("word_for_yes_or_no", "compute.compile=perhaps", "compute.compile", "perhaps"),
    case("number_for_a_list", "tags=3", "tags", "3"),
    case("list_for_a_number", "'seed=[1,2]'", "seed"),
    case("list_for_a_text", "'tokenizer.pad_token=[PAD]'", "tokenizer.pad_token"),
    case("mapping_for_a_number", "'seed={a: 1}'", "seed"),
    case("null_where_none_may_be", "seed=null", "seed"),
    case("seed_below_range", "seed=-1", "command line", "seed=-1", "at least 0"),
    case("seed_above_range", "seed=2147483648", "seed=2147483648", "at most 2147483647"),
    case("learning_rate_of_zero", "optimizer.lr=0", "optimizer.lr=0", "greater than 0"),
    case("learning_rate_nan", "optimizer.lr=nan", "optimizer.lr=nan", "finite"),
    case("learning_rate_infinite", "optimizer.lr=inf", "optimizer.lr=inf", "finite"),
    case("dropout_of_one", "model.hidden_dropout=1.0", "model.hidden_dropout=1.0", "less than 1"),
    case("fraction_above_one", "dataset.fraction=1.5", "dataset.fraction=1.5", "at most 1"),
    case("empty_batch", "budget.batch_size=0", "budget.batch_size=0", "at least 1"),
    case("vocabulary_too_small", "tokenizer.vocab_size=3", "tokenizer.vocab_size=3", "at least 8"),
    case("unknown_choice", "model.activation=gleu", "command line", "model.activation=gleu", "did you mean 'gelu'"),
    case("heads_against_width", "model.hidden_size=100 model.num_attention_heads=3", "num_attention_heads=3", "hidden_size=100", "e.g."),
    case("rotary_with_odd_heads", "model.hidden_size=6 model.num_attention_heads=2 model.positions=rotary", "positions=rotary", "odd"),
    case("texts_longer_than_positions", "objective.max_length=600", "objective.max_length=600", "model.max_position_embeddings=512"),
    case("two_budgets", "budget.steps=5 budget.epochs=1", "budget", "epochs", "steps", "keep one"),
    case("no_budget", "budget.epochs=null", "command line", "no budget", "steps"),
    case("hours_without_horizon", "budget=hours", "hours", "schedule=linear", "schedule=constant"),
    case("same_special_tokens", "tokenizer.pad_token=X tokenizer.unk_token=X", "tokenizer", "special tokens", "X"),
    case("unclosed_bracket", "'model.hidden_size=[1'", "command line", "[1"),
    case("unclosed_quote", '"dataset.name=\'a"', "command line", "dataset.name='a"),
    case("no_key", "=3", "=3"),
    case("grid_without_multirun", "seed=0,1", "seed=0,1", "-m"),
    case("parenthesis_in_a_file_name", "'dataset.train_file=reviews (1).csv'", "command line", "reviews (1).csv", "quote"),
    case("interpolation_of_nothing", "'optimizer.lr=${nothing.here}'", "nothing.here"),
    case("resolver_of_nothing", "'optimizer.lr=${nothing:here}'", "nothing"),
    case("required_path_of_a_tokenizer", "tokenizer=pretrained", "tokenizer.path", "required"),
    case("required_path_of_weights", "init=checkpoint", "init.path", "required"),
    case("required_run", "predict text=hello", "run", "required"),
    case("predict_unknown_key", "predict run=x txt=hello", "'txt'", "did you mean 'text'"),
    case("evaluate_unknown_format", "evaluate run=x format=jsonn", "format=jsonn", "did you mean 'json'"),
    case("sweep_option_typo", "-m model=bert_tiny,bert_tinny", "model=bert_tinny", "did you mean 'bert_tiny'"),
    case("sweep_key_typo", "-m sede=0,1", "'sede'", "did you mean 'seed'"),
    case("sweep_value_out_of_range", "-m optimizer.lr=0.1,-1", "optimizer.lr=-1", "greater than 0"),
    case("sweep_value_of_wrong_type", "-m seed=0,x", "seed", "'x'"),
    case("sweep_impossible_run", "-m model.hidden_size=64,65", "num_attention_heads=2", "hidden_size=65"),
    case("sweep_texts_longer_than_positions", "-m objective.max_length=64,600", "objective.max_length=600", "max_position_embeddings=512"),
    case("sweep_syntax", "-m 'seed=range(0,'", "seed=range(0,"),
    case("sweep_setting_typo", "-m seed=0,1 hydra.sweep.dri=x", "hydra.sweep.dri"),
    case("launcher_typo", "-m seed=0,1 hydra/launcher=basicc", "hydra/launcher=basicc", "did you mean 'basic'"),
    case("hydra_setting_typo", "hydra.rnu.dir=x", "hydra.rnu"),
    case("verbose_of_hydra_unknown", "hydra.job.chdri=true", "hydra.job.chdri"),
]


@each(COMMAND_LINES)
def test_a_malformed_command_line_is_refused_before_data_are_read(case: Case, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import bertlab.runs.identity as identity

    def read(*_: object) -> None:
        raise AssertionError("data were read, though the command line was wrong")

    monkeypatch.setattr(identity, "inputs_fingerprint", read)
    lay_out(case, monkeypatch)
    assert_refused(cli(*shlex.split(case.command)), case.says, tree(Path()))


# --- presets ------------------------------------------------------------------------------------------------------------------
def preset(name: str, path: str, content: str | bytes, *says: str, command: str = "") -> Case:
    """One preset in a folder named by BERTLAB_PLUGINS, chosen on the command line; its line must name the file."""
    group, option = path.split("/")
    file = f"plugins/conf/{path}.yaml"
    return case(name, command or f"{group}={option}", *says, files={file: content}, BERTLAB_PLUGINS="plugins")


MODEL, EXPERIMENT = "defaults:\n  - bert\n  - _self_\n", "# @package _global_\n"
PRESETS = [
    preset("model_key_typo", "model/mine", f"{MODEL}hiden_size: 64\n", "model/mine.yaml", "hiden_size", "did you mean 'model.hidden_size'"),
    preset("model_wrong_type", "model/mine", f"{MODEL}hidden_size: wide\n", "model/mine.yaml", "hidden_size", "wide"),
    preset(
        "model_out_of_range", "model/mine", f"{MODEL}hidden_dropout: 1.5\n", "model/mine.yaml", "model.hidden_dropout=1.5", "less than 1"
    ),
    preset("model_unknown_choice", "model/mine", f"{MODEL}norm: layre\n", "model/mine.yaml", "model.norm=layre", "did you mean 'layer'"),
    preset("model_heads", "model/mine", f"{MODEL}num_attention_heads: 5\n", "model/mine.yaml", "model.num_attention_heads=5"),
    preset("model_builds_on_a_typo", "model/mine", "defaults:\n  - bret\n  - _self_\n", "model/mine.yaml", "bret", "did you mean 'bert'"),
    preset("model_builds_on_nothing", "model/mine", "hidden_size: 64\n", "model/mine.yaml", "model"),
    preset("model_is_a_list", "model/mine", "- hidden_size\n", "model/mine.yaml"),
    preset("model_is_a_word", "model/mine", "hidden_size\n", "model/mine.yaml"),
    preset("model_broken_yaml", "model/mine", f"{MODEL}hidden_size: [64\n", "model/mine.yaml", "line ", "not valid YAML"),
    preset("model_tab_in_yaml", "model/mine", f"{MODEL}\thidden_size: 64\n", "model/mine.yaml", "line 4", "not valid YAML"),
    preset(
        "model_duplicate_key", "model/mine", f"{MODEL}hidden_size: 64\nhidden_size: 128\n", "model/mine.yaml", "hidden_size", "duplicate"
    ),
    preset("model_not_utf8", "model/mine", MODEL.encode() + b"# gr\xf6\xdfe\nhidden_size: 64\n", "model/mine.yaml", "UTF-8"),
    preset(
        "dataset_key_typo",
        "dataset/mine",
        "defaults:\n  - table\n  - _self_\ntext_colum: a\n",
        "dataset/mine.yaml",
        "did you mean 'dataset.text_column'",
    ),
    preset("dataset_without_source", "dataset/mine", "defaults:\n  - table\n  - _self_\nname: mine\n", "no source", "dataset.train_file"),
    preset(
        "experiment_key_typo",
        "experiment/mine",
        f"{EXPERIMENT}optimizer:\n  lrr: 0.1\n",
        "experiment/mine.yaml",
        "optimizer.lrr",
        "did you mean 'optimizer.lr'",
    ),
    preset(
        "experiment_group_typo",
        "experiment/mine",
        f"{EXPERIMENT}optimiser:\n  lr: 0.1\n",
        "experiment/mine.yaml",
        "optimiser",
        "did you mean 'optimizer'",
    ),
    preset("experiment_wrong_type", "experiment/mine", f"{EXPERIMENT}seed: first\n", "experiment/mine.yaml", "seed", "first"),
    preset("experiment_out_of_range", "experiment/mine", f"{EXPERIMENT}optimizer:\n  lr: -1\n", "experiment/mine.yaml", "optimizer.lr=-1"),
    preset("experiment_without_package", "experiment/mine", "optimizer:\n  lr: 0.1\n", "experiment/mine.yaml", "# @package _global_"),
    preset(
        "experiment_option_typo",
        "experiment/mine",
        f"{EXPERIMENT}defaults:\n  - override /model: bert_tinny\n",
        "experiment/mine.yaml",
        "bert_tinny",
        "did you mean 'bert_tiny'",
    ),
    preset(
        "experiment_overrides_no_group",
        "experiment/mine",
        f"{EXPERIMENT}defaults:\n  - override /modle: bert_tiny\n",
        "experiment/mine.yaml",
        "modle",
        "did you mean 'model'",
    ),
    preset(
        "experiment_forgets_override",
        "experiment/mine",
        f"{EXPERIMENT}defaults:\n  - /model: bert_mini\n",
        "experiment/mine.yaml",
        "model",
        "override",
    ),
    preset(
        "experiment_two_budgets",
        "experiment/mine",
        f"{EXPERIMENT}budget:\n  steps: 5\n",
        "experiment/mine.yaml",
        "epochs",
        "steps",
        "keep one",
    ),
    preset(
        "experiment_broken_yaml", "experiment/mine", f"{EXPERIMENT}seed: 1\n seeds: 2\n", "experiment/mine.yaml", "line ", "not valid YAML"
    ),
    preset("experiment_interpolates_nothing", "experiment/mine", f"{EXPERIMENT}seed: ${{sede}}\n", "experiment/mine.yaml", "seed", "sede"),
    preset(
        "experiment_typo_met_by_a_sweep",
        "experiment/mine",
        f"{EXPERIMENT}optimizer:\n  lrr: 0.1\n",
        "experiment/mine.yaml",
        "optimizer.lrr",
        command="-m experiment=mine seed=0,1",
    ),
    case(
        "preset_of_a_config_folder",
        "--config-dir own model=mine",
        "own/model/mine.yaml",
        "hiden_size",
        "did you mean 'model.hidden_size'",
        files={"own/model/mine.yaml": f"{MODEL}hiden_size: 64\n"},
    ),
    case("plugins_nowhere", "seed=1", "BERTLAB_PLUGINS", "nowhere", BERTLAB_PLUGINS="nowhere"),
    case(
        "component_without_dataclass",
        "optimizer=mine",
        "plugins/optimizers/mine.py",
        "OptimizerConfig",
        files={"plugins/optimizers/mine.py": "LR = 1\n"},
        BERTLAB_PLUGINS="plugins",
    ),
    case(
        "component_that_is_not_python",
        "optimizer=mine",
        "plugins/optimizers/mine.py",
        "line 1",
        files={"plugins/optimizers/mine.py": "class Mine(:\n"},
        BERTLAB_PLUGINS="plugins",
    ),
    case(
        "component_that_imports_nothing_known",
        "optimizer=mine",
        "plugins/optimizers/mine.py",
        "no_such_package",
        files={"plugins/optimizers/mine.py": "import no_such_package\n"},
        BERTLAB_PLUGINS="plugins",
    ),
]


@each(PRESETS)
def test_a_malformed_preset_is_refused_by_name(case: Case, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(case, monkeypatch)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert_refused(cli(*shlex.split(case.command)), case.says, tree(Path()))


# --- data ---------------------------------------------------------------------------------------------------------------------
ROWS = [(f"the film number {index} was {'good' if index % 2 else 'bad'}", index % 2) for index in range(40)]
GOOD = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
GOOD_JSONL = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)
GARBAGE = bytes(range(256)) * 8


def data(name: str, file: str, content: str | bytes, *says: str, options: str = "") -> Case:
    """Training on one file of the user's; its line must name the file."""
    return case(name, f"dataset=files dataset.train_file={file} {options} {TINY}", file, *says, files={file: content})


def validation(name: str, content: str, *says: str) -> Case:
    command = f"dataset=files dataset.train_file=t.csv dataset.validation_file=v.csv {TINY}"
    return case(name, command, "v.csv", *says, files={"t.csv": GOOD, "v.csv": content})


def parquet(**columns: list[object]) -> bytes:
    import pyarrow
    from pyarrow import parquet as writer

    stream = io.BytesIO()
    writer.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def with_line(number: int, line: str, content: str = GOOD) -> str:
    """`content` with its line `number`, counted from 1, replaced."""
    lines = content.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"


DATA = [
    case("files_without_a_file", f"dataset=files {TINY}", "no source", "dataset.train_file"),
    case("file_missing", f"dataset=files dataset.train_file=nope.csv {TINY}", "dataset.train_file=nope.csv", "no such file"),
    case(
        "file_is_a_folder", f"dataset=files dataset.train_file=texts.csv {TINY}", "dataset.train_file=texts.csv", files={"texts.csv/a": "b"}
    ),
    case(
        "validation_file_missing",
        f"dataset=files dataset.train_file=t.csv dataset.validation_file=v.csv {TINY}",
        "dataset.validation_file=v.csv",
        files={"t.csv": GOOD},
    ),
    case("validation_without_train", f"dataset=files dataset.validation_file=t.csv {TINY}", "dataset.train_file", files={"t.csv": GOOD}),
    data("text_column_missing", "t.csv", GOOD.replace("text,", "texts,", 1), "'text'", "dataset.text_column", "did you mean 'texts'"),
    data("label_column_missing", "t.csv", GOOD.replace(",label", ",lable", 1), "'label'", "dataset.label_column", "did you mean 'lable'"),
    data("pair_column_missing", "t.csv", GOOD, "'answer'", "dataset.text_pair_column", options="dataset.text_pair_column=answer"),
    data("semicolons", "t.csv", GOOD.replace(",", ";"), "'label'", "text;label", "dataset.delimiter"),
    data("empty_file", "t.csv", "", "empty"),
    data("blank_lines_only", "t.csv", "\n\n\n", "t.csv"),
    data("header_only", "t.csv", "text,label\n", "no rows"),
    data("too_many_fields_in_a_line", "t.csv", with_line(5, "a good film, and long,1"), "line 5", "3"),
    data("too_few_fields_in_a_line", "t.csv", with_line(5, "a good film"), "line 5", "label"),
    data("too_many_fields_in_every_line", "t.csv", GOOD.replace("\n", ",x\n").replace(",x", "", 1), "line 2", "3"),
    data(
        "fewer_names_than_columns",
        "t.csv",
        "1,a good film,1\n2,a bad film,0\n" * 20,
        "column_names",
        options="'dataset.column_names=[text,label]'",
    ),
    data("more_names_than_columns", "t.csv", GOOD.split("\n", 1)[1], "column_names", options="'dataset.column_names=[text,label,user]'"),
    data("unclosed_quote", "t.csv", with_line(9, '"a good film,1'), "line 9"),
    data(
        "two_encodings_in_one_file",
        "t.csv",
        GOOD.encode() + "ein schöner Film,1\n".encode("latin-1"),
        "line 42",
        "utf-8",
        "dataset.encoding",
    ),
    data("utf16_without_saying_so", "t.csv", GOOD.encode("utf-16"), "line 1", "utf-8", "dataset.encoding"),
    case(
        "unknown_encoding",
        f"dataset=files dataset.train_file=t.csv dataset.encoding=utf-9 {TINY}",
        "dataset.encoding=utf-9",
        "latin-1",
        files={"t.csv": GOOD},
    ),
    case(
        "encoding_that_is_no_text",
        f"dataset=files dataset.train_file=t.csv dataset.encoding=hex {TINY}",
        "dataset.encoding=hex",
        files={"t.csv": GOOD},
    ),
    case("delimiter_of_two_characters", "dataset=files dataset.train_file=t.csv 'dataset.delimiter=::'", "dataset.delimiter"),
    case("empty_delimiter", "dataset=files dataset.train_file=t.csv 'dataset.delimiter=\"\"'", "dataset.delimiter"),
    data("null_text", "t.jsonl", with_line(3, '{"text": null, "label": 0}', GOOD_JSONL), "row 3", "'text'"),
    data("null_label", "t.jsonl", with_line(3, '{"text": "x", "label": null}', GOOD_JSONL), "row 3", "'label'", "empty label"),
    data("no_text_at_all", "t.csv", "text,label\n" + " ,0\n ,1\n" * 20, "'text'", "no text"),
    data("lists_for_texts", "t.parquet", parquet(text=[["a", "b"]] * 4, label=[0, 1, 0, 1]), "'text'", "list"),
    data("numbers_for_texts", "t.parquet", parquet(text=[0.5, 1.5] * 20, label=[0, 1] * 20), "'text'", "dataset.text_column"),
    data("json_broken_in_a_line", "t.jsonl", with_line(7, '{"text": "a", "label": ', GOOD_JSONL), "line 7"),
    data("json_of_two_types", "t.jsonl", with_line(7, '{"text": "a", "label": "good"}', GOOD_JSONL), "label"),
    data("json_of_one_object", "t.json", '{"text": "a", "label": 1}', "t.json"),
    data("json_of_words", "t.jsonl", "good\nbad\n", "t.jsonl", "line 1"),
    data("garbage_parquet", "t.parquet", GARBAGE, "parquet"),
    data("garbage_csv", "t.csv", GARBAGE, "line ", "utf-8"),
    data("garbage_latin1_csv", "t.csv", GARBAGE, "t.csv", options="dataset.encoding=latin-1"),
    data("garbage_jsonl", "t.jsonl", GARBAGE, "line ", "utf-8"),
    data("parquet_cut_off", "t.parquet", parquet(text=["a", "b"] * 500, label=[0, 1] * 500)[:-100], "parquet"),
    data("unknown_ending", "t.xlsx", b"PK\x03\x04", "'.xlsx'", ".csv"),
    data("no_ending", "texts", GOOD, "unknown kind of file", ".csv"),
    data("one_class_only", "t.csv", GOOD.replace(",0", ",1"), "'label'", "fewer than two", "1"),
    data(
        "text_taken_for_the_label",
        "t.csv",
        "text,label\n" + "".join(f"a,{n}\n" for n in range(1200)),
        "'label'",
        "1200",
        "dataset.label_column",
    ),
    data("label_nan", "t.jsonl", '{"text": "a b", "label": NaN}\n{"text": "c", "label": 1}\n', "fewer than two different labels"),
    data("label_list", "t.jsonl", '{"text": "a b", "label": [0]}\n{"text": "c", "label": [1]}\n', "row 1 holds [0], no label"),
    data("label_infinite", "t.jsonl", '{"text": "a b", "label": 0}\n{"text": "c", "label": Infinity}\n', "row 2 holds inf, no label"),
    case(
        "every_label_different",
        f"dataset=files dataset.train_file=t.csv dataset.label_column=text {TINY}",
        "no class has two different rows",
        files={"t.csv": GOOD},
    ),
    data(
        "unmapped_label",
        "t.csv",
        with_line(4, "fine,9"),
        "'9'",
        "row 3",
        "label_map",
        options="+dataset.label_map.0=bad +dataset.label_map.1=good",
    ),
    data(
        "no_label_in_the_map",
        "t.csv",
        GOOD,
        "label_map",
        options="+dataset.label_map.7=bad +dataset.label_map.8=good dataset.drop_unmapped_labels=true",
    ),
    data("label_beyond_the_names", "t.csv", with_line(4, "fine,2"), "'2'", "row 3", "known", options="'dataset.label_names=[bad,good]'"),
    case(
        "map_to_no_name",
        "dataset=files dataset.train_file=t.csv +dataset.label_map.0=bda 'dataset.label_names=[bad,good]'",
        "dataset.label_map: maps to",
        "bda",
    ),
    case(
        "dropping_without_a_map",
        "dataset=files dataset.train_file=t.csv dataset.drop_unmapped_labels=true",
        "dataset.drop_unmapped_labels",
        "needs dataset.label_map",
    ),
    case(
        "names_twice",
        f"dataset=files dataset.train_file=t.csv 'dataset.label_names=[bad,bad]' {TINY}",
        "dataset.label_names",
        "bad",
        files={"t.csv": GOOD},
    ),
    validation("validation_label_unknown", with_line(4, "fine,7"), "'7'", "row 3", "known: 0, 1"),
    validation("validation_label_in_words", GOOD.replace(",1", ",good").replace(",0", ",bad"), "'bad'", "row 1", "known: 0, 1"),
    validation("validation_text_column_missing", GOOD.replace("text,", "review,", 1), "'text'", "review"),
    validation("validation_label_column_missing", GOOD.replace(",label", ",class", 1), "'label'", "class"),
    validation("validation_empty", "", "empty"),
    validation("validation_without_labels", "text,label\n" + "fine,\n" * 4, "'label'"),
    case("no_network_and_no_mirror", f"dataset=sst2 {TINY}", "dataset=sst2", "stanfordnlp/sst2", "BERTLAB_DATA", "sst2/train.parquet"),
    case("no_hub_and_no_mirror", f"dataset=sentiment140 {TINY}", "dataset=sentiment140", "BERTLAB_DATA", "sentiment140/training"),
    case(
        "mirror_without_the_dataset",
        f"dataset=sst2 {TINY}",
        "dataset=sst2",
        "sst2/train.parquet",
        files={"mirror/rte/train.parquet": b""},
        BERTLAB_DATA="mirror",
    ),
    case(
        "mirror_with_a_part",
        f"dataset=sst2 {TINY}",
        "mirror",
        "only part of sst2",
        "sst2/validation.parquet",
        files={"mirror/sst2/train.parquet": parquet(sentence=["good", "bad"] * 20, label=[1, 0] * 20)},
        BERTLAB_DATA="mirror",
    ),
    case(
        "mirror_with_empty_files",
        f"dataset=sst2 {TINY}",
        "sst2/train.parquet",
        "empty",
        files={"mirror/sst2/train.parquet": b"", "mirror/sst2/validation.parquet": b""},
        BERTLAB_DATA="mirror",
    ),
    case("mirror_variable_nowhere", f"dataset=sst2 {TINY}", "BERTLAB_DATA=nowhere", "not a folder", BERTLAB_DATA="nowhere"),
    case(
        "mirror_setting_nowhere", f"dataset=sst2 paths.mirror=nowhere {TINY}", "paths.mirror=nowhere", "not a folder", BERTLAB_DATA="mirror"
    ),
    case(
        "mirror_of_an_unknown_split",
        f"dataset=sst2 '+dataset.mirror_files.trian=x' {TINY}",
        "trian",
        "did you mean 'train'",
        files={"mirror/a": ""},
        BERTLAB_DATA="mirror",
    ),
    case("hub_name_that_is_none", f"dataset=files 'dataset.hub=no such/name' {TINY}", "no such/name"),
    case("pair_objective_without_pairs", f"dataset=synthetic dataset.task=pairz {TINY}", "dataset.task=pairz", "did you mean 'pairs'"),
]


@each(DATA)
def test_malformed_data_are_refused_by_file_and_place(case: Case, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(case, monkeypatch)
    assert_refused(cli(*shlex.split(case.command)), case.says, tree(Path()))


# --- tokenizers, weights, folders ---------------------------------------------------------------------------------------------
WORDS = {"type": "WordLevel", "vocab": {"[UNK]": 0, "good": 1, "bad": 2}, "unk_token": "[UNK]"}
BARE_TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": WORDS,
    }
)
SMALL = f"dataset.train_size=60 dataset.validation_size=20 dataset.test_size=20 {TINY} dataset.fraction=1"
INPUTS = [
    case("tokenizer_missing", f"tokenizer=pretrained tokenizer.path=./nope.json {SMALL}", "tokenizer.path=./nope.json", "nope.json"),
    case(
        "tokenizer_folder_without_one",
        f"tokenizer=pretrained tokenizer.path=folder {SMALL}",
        "folder/tokenizer.json",
        files={"folder/a": ""},
    ),
    case(
        "tokenizer_neither_here_nor_on_the_hub",
        f"tokenizer=pretrained tokenizer.path=nobody/nothing {SMALL}",
        "tokenizer.path=nobody/nothing",
        "hub",
    ),
    case("tokenizer_not_json", f"tokenizer=pretrained tokenizer.path=t.json {SMALL}", "tokenizer.path=t.json", files={"t.json": "{"}),
    case(
        "tokenizer_other_json", f"tokenizer=pretrained tokenizer.path=t.json {SMALL}", "tokenizer.path=t.json", files={"t.json": '{"a": 1}'}
    ),
    case("tokenizer_binary", f"tokenizer=pretrained tokenizer.path=t.json {SMALL}", "tokenizer.path=t.json", files={"t.json": GARBAGE}),
    case(
        "tokenizer_without_special_tokens",
        f"tokenizer=pretrained tokenizer.path=t.json {SMALL}",
        "t.json",
        "no pad token",
        "[PAD]",
        files={"t.json": BARE_TOKENIZER},
    ),
    case("words_too_rare", f"tokenizer.min_frequency=100000 {SMALL}", "tokenizer=wordlevel", "min_frequency"),
    case("bpe_smaller_than_its_bytes", f"tokenizer=bpe tokenizer.vocab_size=100 {SMALL}", "tokenizer.vocab_size=100", "261"),
    case("unigram_smaller_than_its_letters", f"tokenizer=unigram tokenizer.vocab_size=8 {SMALL}", "tokenizer.vocab_size=8"),
    case("vocabulary_of_the_model_too_small", f"model=bert model.vocab_size=6 {SMALL}", "vocab_size=6", "tokenizer"),
    case("weights_missing", f"init=checkpoint init.path=nowhere {SMALL}", "init.path=nowhere"),
    case("weights_folder_without_any", f"init=checkpoint init.path=folder {SMALL}", "folder", "no weights", files={"folder/a": ""}),
    case(
        "weights_damaged", f"init=checkpoint init.path=w.safetensors {SMALL}", "w.safetensors", "damaged", files={"w.safetensors": GARBAGE}
    ),
    case("weights_empty", f"init=checkpoint init.path=w.safetensors {SMALL}", "w.safetensors", files={"w.safetensors": b""}),
    case(
        "checkpoint_folder_without_config",
        f"model=bert init=pretrained init.path=folder {SMALL}",
        "init.path=folder",
        "config.json",
        files={"folder/a": ""},
    ),
    case(
        "checkpoint_config_broken",
        f"model=bert init=pretrained init.path=folder {SMALL}",
        "folder/config.json",
        files={"folder/config.json": "{", "folder/model.safetensors": b""},
    ),
    case(
        "checkpoint_of_another_architecture",
        f"model=bert init=pretrained init.path=folder {SMALL}",
        "gpt2",
        files={"folder/config.json": '{"model_type": "gpt2"}', "folder/model.safetensors": b""},
    ),
    case("output_is_a_file", f"paths.output=out {SMALL}", "paths.output=out", files={"out": ""}),
    case("output_below_a_file", f"paths.output=out/runs {SMALL}", "paths.output=out/runs", files={"out": ""}),
    case("cache_is_a_file", f"paths.cache=cache {SMALL}", "paths.cache=cache", files={"cache": ""}),
]


@each(INPUTS)
def test_malformed_tokenizers_and_weights_leave_no_run_folder(case: Case, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(case, monkeypatch)
    assert_refused(cli(*shlex.split(case.command)), case.says, tree(Path()))


def test_a_missing_accelerator_is_refused(cli: Cli) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert_refused(cli(*shlex.split(f"{SMALL} compute.device=cuda")), ("compute.device=cuda", "compute.device=cpu"), {})


# --- finished runs ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bertlab.api import run

    output = tmp_path_factory.mktemp("trained") / "multirun"
    return run([*shlex.split(SMALL), f"paths.output={output}"]).folder


@pytest.fixture
def run(trained: Path) -> Iterator[Path]:
    """A copy of a finished run in this test's own output root."""
    yield Path(shutil.copytree(trained, Path("multirun") / trained.name))


def cut(name: str) -> Callable[[Path], object]:
    """The first half of a file."""
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[: (run / name).stat().st_size // 2])


def put(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(content.encode() if isinstance(content, str) else content)


def swap(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        content = (run / name).read_text()
        assert old in content, f"{name} no longer holds {old!r}; mend the test"
        (run / name).write_text(content.replace(old, new, 1))

    return change


def drop(name: str) -> Callable[[Path], object]:
    return lambda run: (run / name).unlink()


DAMAGE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "weights_cut_off": (cut("model.safetensors"), ("model.safetensors", "damaged")),
    "weights_empty": (put("model.safetensors", b""), ("model.safetensors", "damaged")),
    "weights_missing": (drop("model.safetensors"), ("model.safetensors", "no weights")),
    "weights_of_another_model": (swap("config.yaml", "hidden_size: 16", "hidden_size: 32"), ("weights do not fit",)),
    "summary_cut_off": (cut("summary.json"), ("summary.json", "damaged")),
    "summary_not_a_summary": (put("summary.json", "[]"), ("summary.json",)),
    "summary_not_utf8": (put("summary.json", b"\xff\xfe"), ("summary.json", "damaged")),
    "summary_missing": (drop("summary.json"), ("has not finished", "run its command again")),
    "summary_interrupted": (swap("summary.json", '"finished"', '"interrupted"'), ("has not finished", "run its command again")),
    "config_missing": (drop("config.yaml"), ("config.yaml",)),
    "config_empty": (put("config.yaml", ""), ("config.yaml",)),
    "config_broken": (put("config.yaml", "model: [\n"), ("config.yaml",)),
    "config_with_a_key_of_another_version": (
        swap("config.yaml", "hidden_size: 16", "hidden_width: 16"),
        ("config.yaml", "hidden_width", "version"),
    ),
    "config_without_a_group": (swap("config.yaml", "\nobjective:", "\ngoal:"), ("config.yaml", "objective", "version")),
    "config_without_a_component": (swap("config.yaml", "component: bert", "kind: bert"), ("config.yaml", "version", "component")),
    "config_of_an_unknown_component": (swap("config.yaml", "component: bert", "component: bertha"), ("config.yaml", "bertha")),
    "config_with_a_wrong_type": (swap("config.yaml", "hidden_size: 16", "hidden_size: wide"), ("config.yaml", "hidden_size")),
    "config_with_a_group_that_is_a_word": (put("config.yaml", "dataset: synthetic\n"), ("config.yaml", "dataset")),
    "tokenizer_missing": (drop("tokenizer.json"), ("tokenizer.json",)),
    "tokenizer_cut_off": (cut("tokenizer.json"), ("tokenizer.json",)),
    "labels_missing": (drop("labels.json"), ("labels.json",)),
    "labels_cut_off": (put("labels.json", '["neg'), ("labels.json",)),
    "labels_not_a_list": (put("labels.json", "7"), ("labels.json",)),
    "labels_too_many": (put("labels.json", '["a", "b", "c"]'), ("do not fit",)),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_run_is_refused_by_the_file_that_is_damaged(
    damage: Callable[[Path], object], says: tuple[str, ...], run: Path, cli: Cli
) -> None:
    damage(run)
    before = tree(Path())
    assert_refused(cli("predict", f"run={run}", "text=a good film", "compute=cpu", "compute.threads=1"), (run.name, *says), before)


USES = [
    case("run_nowhere", "predict run=nowhere text=x", "run=nowhere", "multirun"),
    case("run_is_another_folder", "predict run=folder text=x", "folder", "not a run folder", files={"folder/a": ""}),
    case("run_is_a_file", "predict run=file.txt text=x", "run=file.txt", files={"file.txt": ""}),
    case("run_is_the_output_root", "predict run=multirun text=x", "multirun", "not a run folder"),
    case("run_of_two_names", "predict run=synthetic text=x", "run=synthetic", "2 runs", files={"multirun/synthetic-x/config.yaml": ""}),
    case("text_and_file", "predict run={run} text=x file=y.txt", "text", "file", "not both"),
    case("second_text_of_a_single_text_run", "predict run={run} text=x text_pair=y", "text_pair"),
    case("second_text_alone", "predict run={run} text_pair=y", "text_pair", "give text"),
    case("empty_text", "predict run={run} 'text=\"\"'", "text"),
    case("file_missing", "predict run={run} file=nope.txt", "file=nope.txt", "no such file"),
    case("file_empty", "predict run={run} file=t.txt", "t.txt", "no text", files={"t.txt": "\n \n"}),
    case("file_in_latin1", "predict run={run} file=t.txt", "t.txt", "UTF-8", "line 2", files={"t.txt": "a\n\xf6\n".encode("latin-1")}),
    case("file_without_the_column", "predict run={run} file=t.csv", "t.csv", "'text'", "review", files={"t.csv": "review\na good film\n"}),
    case("file_of_unknown_kind", "predict run={run} file=t.pdf", "t.pdf", "'.pdf'", ".csv", files={"t.pdf": b"%PDF-1.7"}),
    case("split_typo", "evaluate run={run} split=tset", "split=tset", "did you mean 'test'"),
    case("split_and_file", "evaluate run={run} split=test file=t.csv", "split", "file", "not both", files={"t.csv": GOOD}),
    case("scored_file_missing", "evaluate run={run} file=nope.csv", "file=nope.csv", "no such file"),
    case("scored_file_without_labels", "evaluate run={run} file=t.csv", "t.csv", "'label'", files={"t.csv": "text\na good film\n"}),
    case(
        "scored_file_with_unknown_labels",
        "evaluate run={run} file=t.csv",
        "t.csv",
        "'7'",
        "row 2",
        files={"t.csv": "text,label\ngood,1\nbad,7\n"},
    ),
    case("scored_file_empty", "evaluate run={run} file=t.csv", "t.csv", "empty", files={"t.csv": ""}),
    case("run_of_another_size", f"init=checkpoint init.path={{run}} {SMALL} model.hidden_size=32", "init.path=", "model.hidden_size=16"),
    case("run_of_fewer_layers", f"init=checkpoint init.path={{run}} {SMALL} model.num_hidden_layers=2", "model.num_hidden_layers=1"),
    case("weights_of_another_size", f"init=checkpoint init.path={{run}}/model.safetensors {SMALL} model.hidden_size=32", "shape"),
    case("weights_of_more_layers", f"init=checkpoint init.path={{run}}/model.safetensors {SMALL} model.num_hidden_layers=2", "no weight"),
]


@each(USES)
def test_a_finished_run_misused_is_refused(case: Case, run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(case, monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.StringIO("a good film\n"))  # nothing but `predict` without text and file may read it
    words = shlex.split(case.command.replace("{run}", str(run)))
    assert_refused(cli(*words), case.says, tree(Path()))


class Terminal(io.StringIO):
    """A standard input at which a person sits."""

    def isatty(self) -> bool:
        return True


INPUT_STREAMS: dict[str, tuple[object, tuple[str, ...]]] = {
    "nobody_types": (Terminal(), ("nothing to label", "text=", "file=")),
    "closed": (None, ("nothing to label", "text=", "file=")),
    "empty": (io.StringIO("\n"), ("standard input", "no text")),
    "not_utf8": (io.TextIOWrapper(io.BytesIO(b"good\n\xff\xfe\n"), encoding="utf-8"), ("standard input", "UTF-8")),
}


@pytest.mark.parametrize(("stream", "says"), INPUT_STREAMS.values(), ids=INPUT_STREAMS.keys())
def test_predict_without_a_text_says_how_to_give_one(
    stream: object, says: tuple[str, ...], run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stream)
    assert_refused(cli("predict", f"run={run}", "compute=cpu", "compute.threads=1"), says, tree(Path()))


def test_a_finished_run_with_a_damaged_summary_is_not_trained_over(run: Path, cli: Cli) -> None:
    (run / "summary.json").write_text("{")
    before = tree(Path())
    assert_refused(cli(*shlex.split(SMALL)), (run.name, "summary.json", "damaged"), before)


# --- as a process of its own ----------------------------------------------------------------------------------------------------
PROCESSES = [
    case("config", "optimizer.lrr=1", "command line", "'optimizer.lrr'", "did you mean 'optimizer.lr'"),
    data("csv", "t.csv", with_line(5, "a good film, and long,1"), "line 5"),
]


@each(PROCESSES)
def test_a_refusal_prints_one_line_from_a_process_of_its_own(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(case, monkeypatch)
    before = tree(Path())
    done = subprocess.run(
        [sys.executable, "-m", "bertlab", *shlex.split(case.command)], capture_output=True, text=True, env=os.environ.copy(), timeout=120
    )
    assert_refused((done.returncode, done.stdout, done.stderr), case.says, before)
