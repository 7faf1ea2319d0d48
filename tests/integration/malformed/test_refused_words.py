"""Malformed command lines: refused before data are read."""

import shlex
from pathlib import Path

import pytest
from refusals import Case, Cli, assert_refused, case, each, lay_out, tree

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
    case(
        "key_typo",
        "model.hiden_size=64",
        "command line",
        "'model.hiden_size'",
        "did you mean 'model.hidden_size'",
    ),
    case("key_typo_at_the_top", "sed=1", "'sed'", "did you mean 'seed'"),
    case("key_without_its_group", "lr=0.1", "'lr'", "did you mean 'optimizer.lr'"),
    case("key_in_the_wrong_group", "model.lr=0.1", "'model.lr'", "did you mean 'optimizer.lr'"),
    case("key_of_another_component", "optimizer=sgd optimizer.betas=3", "'optimizer.betas'"),
    case("key_below_a_value", "seed.first=1", "seed"),
    case("key_of_another_job", "predict run=x optimizer.lr=1", "optimizer"),
    case("new_key_added", "+model.depth=3", "command line", "model.depth", "unknown key"),
    case("new_key_added_at_the_top", "+new.key=1", "command line", "new", "unknown key"),
    case(
        "new_key_forced",
        "++optimizer.learning_rate=3",
        "command line",
        "optimizer.learning_rate",
        "unknown key",
    ),
    case("typo_forced", "++seeed=3", "command line", "seeed", "did you mean 'seed'"),
    case("deleted_key", "~optimizer.lr", "optimizer.lr"),
    case("deleted_group", "~optimizer", "optimizer"),
    case("deleted_typo", "~optimiser", "optimiser"),
    case(
        "component_by_its_name", "optimizer.name=sgd", "command line", "optimizer.name=sgd", "optimizer=sgd"
    ),
    case("word_for_a_number", "model.hidden_size=large", "command line", "model.hidden_size", "large"),
    case("fraction_for_a_whole_number", "model.hidden_size=64.5", "model.hidden_size", "64.5"),
    case("word_for_yes_or_no", "compute.compile=perhaps", "compute.compile", "perhaps"),
    case("number_for_a_list", "tags=3", "tags", "3"),
    case("mapping_in_a_list_of_texts", "'tags=[{a: 1}]'", "tags", "mapping"),
    case("list_in_a_list_of_texts", "'tags=[a,[b]]'", "tags", "list"),
    case(
        "list_among_names",
        "dataset=files dataset.train_file=x.csv 'dataset.columns={a: [b]}'",
        "dataset.columns",
        "list",
    ),
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
    case(
        "unknown_choice",
        "model.activation=gleu",
        "command line",
        "model.activation=gleu",
        "did you mean 'gelu'",
    ),
    case(
        "heads_against_width",
        "model.hidden_size=100 model.num_attention_heads=3",
        "num_attention_heads=3",
        "hidden_size=100",
        "e.g.",
    ),
    case(
        "rotary_with_odd_heads",
        "model.hidden_size=6 model.num_attention_heads=2 model.positions=rotary",
        "positions=rotary",
        "odd",
    ),
    case(
        "texts_longer_than_positions",
        "objective.max_length=600",
        "objective.max_length=600",
        "model.max_position_embeddings=512",
    ),
    case("two_budgets", "budget.steps=5 budget.epochs=1", "budget", "epochs", "steps", "keep one"),
    case("no_budget", "budget.epochs=null", "command line", "no budget", "steps"),
    case("hours_without_horizon", "budget=hours", "hours", "schedule=linear", "schedule=constant"),
    case(
        "same_special_tokens",
        "tokenizer.pad_token=X tokenizer.unk_token=X",
        "tokenizer",
        "special tokens",
        "X",
    ),
    case("unclosed_bracket", "'model.hidden_size=[1'", "command line", "[1"),
    case("a_terminal_s_commands", "'seed=\x1b]0;mine\x07\u202e'", r"\x1b]0;mine\x07\u202e"),
    case("a_value_of_ten_thousand_letters", f"seed={'a' * 5000},{'b' * 5000}", "seed=aaa", " … "),
    case("a_terminal_s_commands_in_a_key", "'se\x1b[2Jed=1'", r"\x1b[2J"),
    case("unclosed_quote", '"dataset.name=\'a"', "command line", "dataset.name='a"),
    case("no_key", "=3", "=3"),
    case("grid_without_multirun", "seed=0,1", "seed=0,1", "-m"),
    case(
        "parenthesis_in_a_file_name",
        "'dataset.train_file=reviews (1).csv'",
        "command line",
        "reviews (1).csv",
        "quote",
    ),
    case("interpolation_of_nothing", "'optimizer.lr=${nothing.here}'", "nothing.here"),
    case("resolver_of_nothing", "'optimizer.lr=${nothing:here}'", "nothing"),
    case("required_path_of_a_tokenizer", "tokenizer=pretrained", "tokenizer.path", "required"),
    case("required_path_of_weights", "init=checkpoint", "init.path", "required"),
    case("required_run", "predict text=hello", "run", "required"),
    case("predict_unknown_key", "predict run=x txt=hello", "'txt'", "did you mean 'text'"),
    case("evaluate_unknown_format", "evaluate run=x format=jsonn", "format=jsonn", "did you mean 'json'"),
    case(
        "sweep_option_typo", "-m model=bert_tiny,bert_tinny", "model=bert_tinny", "did you mean 'bert_tiny'"
    ),
    case("sweep_key_typo", "-m sede=0,1", "'sede'", "did you mean 'seed'"),
    case("sweep_value_out_of_range", "-m optimizer.lr=0.1,-1", "optimizer.lr=-1", "greater than 0"),
    case("sweep_value_of_wrong_type", "-m seed=0,x", "seed", "'x'"),
    case("sweep_impossible_run", "-m model.hidden_size=64,65", "num_attention_heads=2", "hidden_size=65"),
    case(
        "sweep_texts_longer_than_positions",
        "-m objective.max_length=64,600",
        "objective.max_length=600",
        "max_position_embeddings=512",
    ),
    case("sweep_syntax", "-m 'seed=range(0,'", "seed=range(0,"),
    case("sweep_setting_typo", "-m seed=0,1 hydra.sweep.dri=x", "hydra.sweep.dri"),
    case(
        "launcher_typo", "-m seed=0,1 hydra/launcher=basicc", "hydra/launcher=basicc", "did you mean 'basic'"
    ),
    case("hydra_setting_typo", "hydra.rnu.dir=x", "hydra.rnu"),
    case("verbose_of_hydra_unknown", "hydra.job.chdri=true", "hydra.job.chdri"),
]


@each(COMMAND_LINES)
def test_a_malformed_command_line_is_refused_before_data_are_read(
    case: Case, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake_identify(*_: object) -> None:
        raise AssertionError("data were read, though the command line was wrong")

    monkeypatch.setattr("bertlab.training.location.identify", fake_identify)
    lay_out(case, monkeypatch)
    assert_refused(cli(*shlex.split(case.command)), case.says, tree(Path()))
