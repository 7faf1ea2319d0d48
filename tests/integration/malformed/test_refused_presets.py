"""Malformed presets and components of the user's own: refused by the file's name."""

import shlex
import sys
from pathlib import Path

import pytest
from refusals import Case, Cli, assert_refused, case, each, lay_out, tree


def preset(name: str, path: str, content: str | bytes, *says: str, command: str = "") -> Case:
    """One preset in a folder named by BERTLAB_PLUGINS, chosen on the command line; its line must name the
    file.
    """
    group, option = path.split("/")
    file = f"plugins/conf/{path}.yaml"
    return case(name, command or f"{group}={option}", *says, files={file: content}, BERTLAB_PLUGINS="plugins")


MODEL, EXPERIMENT = "defaults:\n  - bert\n  - _self_\n", "# @package _global_\n"
PRESETS = [
    preset(
        "model_key_typo",
        "model/mine",
        f"{MODEL}hiden_size: 64\n",
        "model/mine.yaml",
        "hiden_size",
        "did you mean 'model.hidden_size'",
    ),
    preset(
        "model_wrong_type",
        "model/mine",
        f"{MODEL}hidden_size: wide\n",
        "model/mine.yaml",
        "hidden_size",
        "wide",
    ),
    preset(
        "model_out_of_range",
        "model/mine",
        f"{MODEL}hidden_dropout: 1.5\n",
        "model/mine.yaml",
        "model.hidden_dropout=1.5",
        "less than 1",
    ),
    preset(
        "model_unknown_choice",
        "model/mine",
        f"{MODEL}norm: layre\n",
        "model/mine.yaml",
        "model.norm=layre",
        "did you mean 'layer'",
    ),
    preset(
        "model_heads",
        "model/mine",
        f"{MODEL}num_attention_heads: 5\n",
        "model/mine.yaml",
        "model.num_attention_heads=5",
    ),
    preset(
        "model_builds_on_a_typo",
        "model/mine",
        "defaults:\n  - bret\n  - _self_\n",
        "model/mine.yaml",
        "bret",
        "did you mean 'bert'",
    ),
    preset("model_builds_on_nothing", "model/mine", "hidden_size: 64\n", "model/mine.yaml", "model"),
    preset("model_is_a_list", "model/mine", "- hidden_size\n", "model/mine.yaml"),
    preset("model_is_a_word", "model/mine", "hidden_size\n", "model/mine.yaml"),
    preset(
        "model_broken_yaml",
        "model/mine",
        f"{MODEL}hidden_size: [64\n",
        "model/mine.yaml",
        "line ",
        "not valid YAML",
    ),
    preset(
        "model_tab_in_yaml",
        "model/mine",
        f"{MODEL}\thidden_size: 64\n",
        "model/mine.yaml",
        "line 4",
        "not valid YAML",
    ),
    preset(
        "model_duplicate_key",
        "model/mine",
        f"{MODEL}hidden_size: 64\nhidden_size: 128\n",
        "model/mine.yaml",
        "hidden_size",
        "duplicate",
    ),
    preset(
        "model_not_utf8",
        "model/mine",
        MODEL.encode() + b"# gr\xf6\xdfe\nhidden_size: 64\n",
        "model/mine.yaml",
        "UTF-8",
    ),
    preset(
        "dataset_key_typo",
        "dataset/mine",
        "defaults:\n  - table\n  - _self_\ntext_colum: a\n",
        "dataset/mine.yaml",
        "did you mean 'dataset.text_column'",
    ),
    preset(
        "dataset_without_source",
        "dataset/mine",
        "defaults:\n  - table\n  - _self_\nname: mine\n",
        "no source",
        "dataset.train_file",
    ),
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
    preset(
        "experiment_wrong_type",
        "experiment/mine",
        f"{EXPERIMENT}seed: first\n",
        "experiment/mine.yaml",
        "seed",
        "first",
    ),
    preset(
        "experiment_out_of_range",
        "experiment/mine",
        f"{EXPERIMENT}optimizer:\n  lr: -1\n",
        "experiment/mine.yaml",
        "optimizer.lr=-1",
    ),
    preset(
        "experiment_without_package",
        "experiment/mine",
        "optimizer:\n  lr: 0.1\n",
        "experiment/mine.yaml",
        "# @package _global_",
    ),
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
        "experiment_broken_yaml",
        "experiment/mine",
        f"{EXPERIMENT}seed: 1\n seeds: 2\n",
        "experiment/mine.yaml",
        "line ",
        "not valid YAML",
    ),
    preset(
        "experiment_interpolates_nothing",
        "experiment/mine",
        f"{EXPERIMENT}seed: ${{sede}}\n",
        "experiment/mine.yaml",
        "seed",
        "sede",
    ),
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
