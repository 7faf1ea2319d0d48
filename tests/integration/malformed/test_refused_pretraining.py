"""Malformed pretraining, tagging and stages: refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from refusals import SMALL, TINY, Case, Cli, assert_refused, case, each, lay_out, tree

WORDS = {"tokens": ["a", "b"], "tags": ["O", "B-X"]}
OWN = f"dataset=files dataset.train_file=t.jsonl {TINY}"


def tagged(name: str, rows: list[Any], *says: str, more: str = "") -> Case:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    command = f"{OWN} objective=tagging dataset.tokens_column=tokens dataset.tags_column=tags {more}"
    return case(name, command, *says, files={"t.jsonl": lines})


def texts(name: str, objective: str, rows: list[Any], *says: str) -> Case:
    return case(
        name,
        f"{OWN} objective={objective}",
        *says,
        files={"t.jsonl": "".join(json.dumps(row) + "\n" for row in rows)},
    )


CASES = [
    case("shares_above_one", "objective=mlm objective.mask_share=0.95", "objective.mask_share=0.95",
    "objective.random_share=0.1"),
    case("rate_of_nothing", "objective=mlm objective.rate=0", "objective.rate=0", "greater than 0"),
    case("unknown_unit", "objective=mlm objective.unit=letter", "objective.unit=letter", "span"),
    case("typo_in_objective", "objective=mlm objective.raet=0.2", "'objective.raet'",
    "did you mean 'objective.rate'"),
    case("no_delimiters", "objective=nsp dataset.task=documents objective.delimiters=",
    "objective.delimiters"),
    case("nsp_without_documents", "objective=nsp", "objective=nsp needs document", "dataset=synthetic",
    "dataset.documents=true"),
    case("nsp_of_sentences", "objective=mlm_nsp dataset=sst2", "needs document", "dataset=sst2"),
    case("tagging_without_tags", "objective=tagging", "objective=tagging needs tokens (words), tags (tags)",
    "dataset=synthetic"),
    case("classification_without_labels", "dataset=imdb_text", "objective=classification needs label",
    "dataset=imdb_text"),
    case("tokens_without_tags", "dataset=conll2003 dataset.tags_column=null",
    "tokens_column and tags_column go together"),
    case("split_of_the_mirror", "dataset=imdb_text dataset.train_splits=[train]",
    "dataset.mirror_files.unsupervised", "unknown split"),
    case("inherited_from_nothing", "tokenizer=inherited", "tokenizer=inherited", "init=scratch"),
    case("inherited_from_nowhere", f"init=checkpoint init.path=nowhere tokenizer=inherited {SMALL}",
    "nowhere", "tokenizer.json"),
    case("freezing_what_is_random", "finetune.freeze_encoder=true finetune.reinit_layers=1",
    "finetune.freeze_encoder"),
    case("freezing_too_much", f"finetune.freeze_layers=9 {SMALL}", "finetune.freeze_layers=9", "1 layers"),
    case("typo_in_a_stage", "init=stage init.objective.raet=0.2", "'init.objective.raet'",
    "did you mean 'init.objective.rate'"),
    case("typo_in_a_stages_group", "init=stage init.objective=mln", "init.objective=mln", "mlm"),
    case("value_in_a_stage", "init=stage init.optimizer.lr=-1", "init.optimizer.lr=-1", "greater than 0"),
    case("stage_of_two_units", "init=stage init.budget.steps=3 init.budget.epochs=2", "init.budget",
    "keep one"),
    case("pair_too_short", "objective=nsp dataset.task=documents objective.max_length=4",
    "objective.max_length=4", "at least 5"),
    case("test_split_for_training", "dataset=rotten_tomatoes dataset.train_splits=[train,test]",
    "'test' is named twice"),
    case("number_for_a_stages_dataset", "init=stage init.dataset=3", "init.dataset=3", "unknown option"),
    case("stage_without_a_stage", "init.dataset=imdb_text", "init.dataset", "add init=stage"),
    case("dropout_of_a_stages_model", "init=stage init.model={hidden_dropout:1.5}", "hidden_dropout=1.5",
    "less than 1"),
    case("pooling_of_a_stages_model", "init=stage init.model={pooling:mean}", "init.model.pooling",
    "may differ"),
    case("head_of_another_objective", "init=stage init.head=true", "init.head=true",
    "objective=classification"),
    case("freezing_what_is_drawn_anew", f"finetune.freeze_layers=1 finetune.reinit_layers=1 {SMALL}",
    "finetune.freeze_layers=1", "frozen"),
    case("rate_over_hours",
    "objective=mlm objective.final_rate=0.5 budget=hours schedule=constant schedule.warmup_steps=10",
    "final_rate"),
    case("cleaning_words", "dataset=conll2003 objective=tagging dataset.clean=html", "dataset.clean",
    "no meaning"),
    case("cache_of_streamed_texts", f"{OWN} objective=mlm paths.cache=cache", "paths.cache=cache",
         files={"cache": "", "t.jsonl": json.dumps({"text": "a b"}) + "\n"}),
    texts("no_text_at_all", "mlm", [{"text": " "}], "t.jsonl", "no text at all"),
    case("half_a_character", f"{OWN} objective=mlm", "t.jsonl", "line 2", "half a character",
         files={"t.jsonl": '{"text": "a"}\n{"text": "b \\ud800"}\n'}),
    texts("row_without_a_text", "mlm", [{"text": "a"}, {"text": None}], "t.jsonl", "row 2 has no text"),
    tagged("tags_too_few", [WORDS, {"tokens": ["a"], "tags": []}], "row 2 has 1 words", "'tags'"),
    tagged("no_list_of_words", [WORDS, {"tokens": "a b", "tags": ["O", "O"]}], "t.jsonl"),
    tagged("no_words", [WORDS, {"tokens": [], "tags": []}], "row 2", "'tokens'"),
    tagged("unknown_tag", [WORDS] * 3, "'B-X'", "not a known tag", more="dataset.label_names=[O,B-Y]"),
    tagged("ids_without_names", [{"tokens": ["a"], "tags": [1]}], "holds no tag names",
    "dataset.label_names"),
    tagged("tags_that_are_lists", [{"tokens": ["a", "b"], "tags": [["O"], ["B-X"]]}], "t.jsonl",
    "holds no tag names"),
    tagged("a_tag_that_is_a_list", [{"tokens": ["a"], "tags": [["O"]]}], "['O']", "not a known tag",
    more="dataset.label_names=[O,B-Y]"),
    texts("nothing_to_hold_out", "mlm", [{"text": "a b c"}], "validation cannot be held out",
    "no two rows differ; add rows"),
    case("nested_without_end", f"{OWN} objective=mlm", "t.jsonl", "line 1 is not JSON",
    files={"t.jsonl": "[" * 100_000 + "\n"}),
    case("checkpoint_without_its_tokenizer", f"init=checkpoint init.path=c {SMALL}", "init.path=c", "damaged",
    "tokenizer.json",
         files={"c/config.yaml": "model: {}\nseed: 0\n", "c/model.safetensors": ""}),
    case("checkpoint_of_broken_yaml", f"init=checkpoint init.path=c {SMALL}", "init.path=c", "damaged",
         files={"c/config.yaml": "a: [", "c/tokenizer.json": "{}", "c/model.safetensors": ""}),
    case("checkpoint_of_a_list", f"init=checkpoint init.path=c {SMALL}", "init.path=c", "damaged",
    "not a run's config",
         files={"c/config.yaml": "[]", "c/tokenizer.json": "{}", "c/model.safetensors": ""}),
    case("pretrained_of_a_list", f"init=pretrained init.path=c {SMALL}", "config.json", "not JSON",
         files={"c/config.json": "[]", "c/tokenizer.json": "{}", "c/model.safetensors": ""}),
    case("special_token_of_a_template", "tokenizer.cls_token='$A'", "special token", "$A"),
    case("special_token_with_a_colon", "tokenizer.sep_token='a:b'", "special token", "a:b"),
    case("column_of_words", f"{OWN} objective=tagging dataset.tokens_column=wrods dataset.tags_column=tags",
    "wrods", "did you mean",
         files={"t.jsonl": json.dumps({"words": ["a"], "tags": ["O"]}) + "\n"}),
]  # fmt: skip


@each(CASES)
def test_nonsense_is_refused_in_one_line(case: Case, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(case, monkeypatch)
    before = tree(Path())
    assert_refused(cli(*case.command.split()), case.says, before)


def test_predict_of_a_pretraining_run_says_what_to_do(cli: Cli) -> None:
    import bertlab

    run = bertlab.run(["objective=mlm", *SMALL.split()]).folder
    assert_refused(
        cli("predict", f"run={run}", "text=hello"), ("objective=mlm", "init=checkpoint"), tree(Path())
    )
