"""What a paper needs of a report: methods of what is on record and nothing else, and every setting."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from runfolders import change_summary, three_arms, write_run

from bertlab.jobs.report import Schema, compare_runs, write_report
from bertlab.report.caveats import warnings_of
from bertlab.report.grouping import studies_of
from bertlab.report.pages.methods import paragraph, settings_blocks
from bertlab.report.pages.page import PageTable
from bertlab.report.pages.tables import apart_table
from bertlab.report.stats import ANYTIME, SIGN_FLIP
from bertlab.runs.records import find_runs


def methods(root: Path, test: str = SIGN_FLIP, baseline: str | None = None) -> str:
    return paragraph(studies_of(find_runs([str(root)]), baseline=baseline), test)


def write(root: Path, name: str, seed: int, **settings: Any) -> Path:
    folder = write_run(root, name, seed, 0.8, test=0.8, model__num_hidden_layers=1, evaluation__keep="best",
                       optimizer__weight_decay=0.0, **settings)  # fmt: skip
    rows = {"train": {"rows": 3000}, "validation": {"rows": 400}}
    change_summary(folder, rows=rows, vocabulary=1234)
    return folder


def test_what_is_on_record_is_told_and_what_differs_with_every_value(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, f"a{seed}", seed)
        write(tmp_path, f"b{seed}", seed, optimizer__lr=0.002)
    text = methods(tmp_path)
    for words in (
        "The task is classification on toy, with 3,000 examples for training, 400 for validation.",
        "1 layer, learned positions; 4,000,000 parameters",
        "Weights are drawn at random",
        "The tokenizer is wordpiece, with a vocabulary of 1,234, up to 64 tokens",
        "adamw with a peak learning rate of 0.001 or 0.002.",
        "(1,000,000 tokens), in batches of 32 examples",
        "the best validation accuracy is kept and scored, on the test split once",
        "There are 3 runs an arm, seeds 0, 1, 2.",
        "exact two-sided sign-flip permutation test",
        "Holm's correction",
        "torch 2",
        "revision abc",
    ):
        assert words.lower() in text.lower(), words
    assert "weight decay" not in text, "off is no fact of the training"
    assert "valid at any time" in methods(tmp_path, ANYTIME)


def test_what_is_not_on_record_is_left_out(tmp_path: Path) -> None:
    folders = [write(tmp_path, f"a{seed}", seed) for seed in range(2)]
    change_summary(folders[0], rows=None, vocabulary=None, cost={"parameters": 5})
    environment = {"git": {"revision": "abc", "dirty": True}, "packages": {}, "processor": "P"}
    (folders[1] / "environment.json").write_text(json.dumps(environment))
    text = methods(tmp_path)
    for words in ("examples for training", "vocabulary of 1", "1,000,000", "revision", "torch", "None", "–"):
        assert words not in text, words
    assert "vocabulary of at most 8,000" in text and "5 or 4,000,000 parameters" in text


def test_arms_of_different_components_have_a_sentence_each(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, f"a{seed}", seed)
        write(tmp_path, f"b{seed}", seed, init__component="checkpoint", init__path="minilm")
    text = methods(tmp_path, baseline="init=scratch")
    assert "In “init=checkpoint”: training begins from the weights of minilm." in text
    assert "(baseline)”: weights are drawn at random" in text


def test_a_pretraining_is_told_by_its_own_settings(tmp_path: Path) -> None:
    stage = {"init__objective__component": "mlm", "init__dataset__name": "imdb", "init__optimizer__lr": 0.5}
    for seed in range(2):
        write_run(tmp_path, f"a{seed}", seed, 0.8, stage="p", init__component="stage", **stage)
    assert "pretrained first (mlm on imdb: learning rate 0.5, 20,000,000 tokens)" in methods(tmp_path)


def test_the_paragraph_is_a_file_of_its_own_in_both_forms(tmp_path: Path) -> None:
    three_arms(tmp_path / "runs")
    config = Schema(runs=str(tmp_path / "runs"), examples=False, contamination=False, formats="md,tex")
    _, studies, page = compare_runs(config)
    write_report(tmp_path / "out", page, studies, config, "bertlab report")
    text = (tmp_path / "out" / "methods.txt").read_text()
    assert text == methods(tmp_path / "runs") + "\n" and text in (tmp_path / "out" / "report.md").read_text()
    assert r"95 \%" in (tmp_path / "out" / "methods.tex").read_text()


def test_every_shared_setting_is_in_the_appendix_and_no_other(tmp_path: Path) -> None:
    three_arms(tmp_path)
    for seed in range(2):
        write_run(tmp_path, f"other{seed}", seed, 0.8, dataset__name="else", optimizer__clip=7)
    studies = studies_of(find_runs([str(tmp_path)]))
    both, *own = [block for block in settings_blocks(studies) if isinstance(block, PageTable)]
    cells = {row[0]: row[1:] for row in both.rows}
    assert cells["tokenizer"] == ["wordpiece", "vocab_size 8000"]
    assert cells["budget"] == ["", "batch_size 32; epochs 1"]
    assert cells["optimizer"] == ["adamw", ""], "the rate differs between arms"
    assert "seed" not in str(both.rows)
    assert not both.folded and [table.caption for table in own] == [
        "Beside these, those of classification on else",
        "Beside these, those of classification on toy",
    ]
    assert any("clip 7" in row[2] for row in own[0].rows)


@pytest.mark.parametrize("arms", [2, 8])
def test_what_sets_arms_apart_is_told_beside_the_table(arms: int, tmp_path: Path) -> None:
    for arm in range(arms):
        write(tmp_path, f"a{arm}", 0, model__positions=f"p{arm}")
    (study,) = studies_of(find_runs([str(tmp_path)]))
    (table,) = apart_table(study)
    assert table.folded == (arms == 8) and all(len(row) == len(table.headers) for row in table.rows)
    told = {cell for row in (table.headers, *table.rows) for cell in row}
    facts = {"parameters", "4.0 M", "vocabulary", "1,234", "tokens seen"}
    assert {"model.positions", "p0", "p1", *facts} <= told


def test_few_tokens_are_told_in_ones(tmp_path: Path) -> None:
    for name, lr, tokens in (("a", 0.1, 1_400), ("b", 0.2, 1_450), ("c", 0.3, 140_000)):
        folder = write(tmp_path, name, 0, optimizer__lr=lr)
        cost = json.loads((folder / "summary.json").read_text())["cost"]
        change_summary(folder, cost={**cost, "tokens": tokens, "parameters": 4_321})
    (study,) = studies_of(find_runs([str(tmp_path)]))
    (table,) = apart_table(study)
    rows = {name: cells for name, *cells in table.rows}
    assert rows["tokens seen"] == ["1,400", "1,450", "0.14 M"] and rows["parameters"] == ["4,321"] * 3
    assert any("tokens seen (1,400 / 1,450 / 0.14 M)" in words for words in warnings_of(study))


def test_other_numbers_of_tokens_are_a_confound_unless_asked_for(tmp_path: Path) -> None:
    for name, settings in (("a", {}), ("b", {"optimizer__lr": 0.1}), ("c", {"budget__epochs": 9.0})):
        folder = write(tmp_path, name, 0, **settings)
        cost = json.loads((folder / "summary.json").read_text())["cost"]
        change_summary(folder, cost={**cost, "tokens": 1_000_000 if name == "a" else 3_000_000})
    runs = find_runs([str(tmp_path)])
    (study,) = studies_of([run for run in runs if run.name != "c"])
    assert any("tokens seen (1 M / 3 M)" in words for words in warnings_of(study))
    (study,) = studies_of([run for run in runs if run.name != "b"])
    assert not any("tokens seen" in words for words in warnings_of(study))


def test_an_inherited_tokenizer_is_told_key_by_key(tmp_path: Path) -> None:
    """As that of the pretraining; what only one arm's component has follows from the component."""
    for seed in range(2):
        write(tmp_path, f"a{seed}", seed, tokenizer__split="words")
        of_stage = {"init__tokenizer__component": "bpe", "init__tokenizer__vocab_size": 500}
        own = {"init__component": "stage", "tokenizer__component": "inherited"}
        folder = write_run(tmp_path, f"b{seed}", seed, 0.8, stage="p", **own, **of_stage)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        del config["tokenizer"]["vocab_size"]
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (study,) = studies_of(find_runs([str(tmp_path)]), baseline="init=scratch")
    rows = {row[0]: list(row[1:]) for row in apart_table(study)[0].rows}
    assert rows["tokenizer"] == ["wordpiece", "inherited: bpe"]
    assert rows["tokenizer.vocab_size"] == ["8000", "500"]
    assert "tokenizer.split" not in rows


def test_several_tasks_are_told_in_a_sentence_and_lone_arms_by_their_task(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, f"a{seed}", seed, optimizer__component="sgd")
    for seed in range(2):
        write(tmp_path, f"b{seed}", seed, dataset__name="else")
        write(tmp_path, f"c{seed}", seed, dataset__name="else", optimizer__lr=0.5)
    text = methods(tmp_path)
    assert "The tasks are classification on else, with 3,000 examples" in text
    assert "; classification on toy" in text
    assert "In “classification on toy”: training is by sgd" in text and "all runs" not in text
    assert "There are 2 or 3 runs an arm, seeds 0, 1, 2." in text
