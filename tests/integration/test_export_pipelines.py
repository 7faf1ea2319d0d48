"""Exported runs in transformers' pipelines: every answer that of `bertlab predict`; Hugging Face
architectures; awkward runs.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_export import DATA, DEVLIN, SMALL, TAGGED, classifier, exported, refused
from test_hf import folder_of

import bertlab
from bertlab.cli.entry import run_command
from bertlab.contracts import Batch

pytestmark = pytest.mark.slow

transformers = pytest.importorskip("transformers")
LONG = "The plot was brilliant, dull and good. " * 60


def assert_classifies_alike(
    run: Any, folder: Path, texts: list[str], seconds: list[str] | None = None
) -> None:
    pipe = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    given: Any = (
        texts
        if seconds is None
        else [{"text": a, "text_pair": b} for a, b in zip(texts, seconds, strict=True)]
    )
    for ours, theirs in zip(run.predict(texts, seconds), pipe(given, truncation=True), strict=True):
        assert {row["label"]: row["score"] for row in theirs} == pytest.approx(
            ours["probabilities"], abs=1e-5
        )


def pairs_file(labels: tuple[str, str] = ("same", "other")) -> list[str]:
    rows = [
        {
            "a": f"the film was {('good', 'bad')[i % 2]}",
            "b": f"it was {i}, {LONG[: 9 * i]}",
            "y": labels[i % 2],
        }
        for i in range(60)
    ]
    Path("pairs.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    columns = {
        "train_file": "pairs.jsonl",
        "text_column": "a",
        "text_pair_column": "b",
        "label_column": "y",
        "validation_fraction": 0.2,
    }
    return ["dataset=files", *(f"dataset.{key}={value}" for key, value in columns.items())]


@pytest.mark.parametrize("longest", [31, 32])
def test_pairs_are_read_and_cut_as_the_run_does(longest: int) -> None:
    run, folder = exported([*pairs_file(), *DEVLIN, f"objective.max_length={longest}"])
    assert_classifies_alike(
        run, folder, ["the film was good", LONG, "bad", LONG], ["it was bad", "it was dull", LONG, LONG]
    )


def test_class_names_of_any_script_survive() -> None:
    names = ("gut 😀", 'schlecht: "nie"')
    run, folder = exported([*pairs_file(names), *DEVLIN])
    assert_classifies_alike(run, folder, ["the film was good"], ["it was bad"])
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert set(described["id2label"].values()) == set(names) == set(described["label2id"])


@pytest.mark.parametrize("given", [["x", "x"], ["x", ""], ["x", " "]])
def test_class_names_that_a_config_cannot_hold_are_refused(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = classifier()
    (run.folder / "manifest.json").unlink()  # a folder from elsewhere
    (run.folder / "labels.json").write_text(json.dumps(given))
    assert run_command(["export", f"run={run.folder}", "to=out"]) == 2
    assert "class names" in capsys.readouterr().err and not Path("out").exists()


@pytest.mark.parametrize("tied", [True, False])
def test_masked_words_are_filled_as_the_run_fills_them(tied: bool) -> None:
    words = [
        *DATA,
        *DEVLIN,
        "model.vocab_size=170",
        f"model.tie_embeddings={tied}",
        "objective=mlm",
        "objective.max_length=32",
    ]
    run, folder = exported(words)
    found = transformers.pipeline("fill-mask", model=str(folder), top_k=170)("The plot was [MASK] and dull")
    special, trained = run.tokenizer.special, bertlab.load(run.folder)
    first, second = run.tokenizer.encode(["The plot was", "and dull"])
    ids = torch.tensor([[special.cls_id, *first, special.mask_id, *second, special.sep_id]])
    targets = {"masked": torch.tensor([len(first) + 1]), "label": torch.zeros(1, dtype=torch.long)}
    with torch.no_grad():
        ours = trained.model(Batch(ids, torch.zeros_like(ids), None, targets, ids.numel(), 1))[0].softmax(-1)
    assert len(found) == 170
    assert all(abs(row["score"] - float(ours[row["token"]])) < 1e-5 for row in found)


@pytest.mark.parametrize("tokenizer", ["wordpiece", "bpe", "unigram", "wordlevel"])
def test_words_are_tagged_as_the_run_tags_them(tokenizer: str) -> None:
    names = ["Ann", "Bob", "Paris", "O'Neill", "Zoë"]
    rows = [
        {"tokens": [names[i % 5], "met", f"{names[i % 3]}{i}", "."], "tags": ["B-PER", "O", "I-PER", "O"]}
        for i in range(60)
    ]
    Path("tagged.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    size = 400 if tokenizer == "bpe" else 150
    words = [
        *TAGGED,
        *DEVLIN[:4],
        f"tokenizer={tokenizer}",
        f"tokenizer.vocab_size={size}",
        "objective=tagging",
        "optimizer.lr=0.1",
    ]
    run, folder = exported([*words, "budget.steps=12"])
    text = "Paris met Bob27 . Ann O'Neill saw Zoë59 ."
    pipe = transformers.pipeline("token-classification", model=str(folder), ignore_labels=[])
    starts = {
        row["start"] if text[row["start"]] != " " else row["start"] + 1: row["entity"]
        for row in reversed(pipe(text))
    }
    begins = [0, *(index + 1 for index, letter in enumerate(text) if letter == " ")]
    assert [starts[begin] for begin in begins] == run.predict([text])[0]["tags"]


# --- Hugging Face architectures -------------------------------------------------------------------
CLASSES = {
    ("BertConfig", "classification"): "BertForSequenceClassification",
    ("RobertaConfig", "classification"): "RobertaForSequenceClassification",
    ("DistilBertConfig", "classification"): None,  # a dense layer with a relu
    ("ElectraConfig", "classification"): None,
    ("ModernBertConfig", "classification"): None,
    ("DebertaV2Config", "classification"): None,
    ("BertConfig", "mlm"): "BertForMaskedLM",
    ("RobertaConfig", "mlm"): "RobertaForMaskedLM",
    ("DistilBertConfig", "mlm"): "DistilBertForMaskedLM",
    ("ModernBertConfig", "mlm"): None,
    ("ElectraConfig", "mlm"): None,  # trains all the same, over embeddings narrower than its states
    ("BertConfig", "tagging"): "BertForTokenClassification",
    ("RobertaConfig", "tagging"): "RobertaForTokenClassification",
    ("DistilBertConfig", "tagging"): "DistilBertForTokenClassification",
    ("ElectraConfig", "tagging"): "ElectraForTokenClassification",
    ("ModernBertConfig", "tagging"): None,
    ("DebertaV2Config", "tagging"): "DebertaV2ForTokenClassification",
}


@pytest.mark.parametrize(("family", "objective"), CLASSES)
def test_an_architecture_keeps_its_class_or_is_refused(
    family: str, objective: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, kind = folder_of(family, tmp_path / "hub"), CLASSES[family, objective]
    data = DATA
    if objective == "tagging":
        rows = [
            {"tokens": ["the", "plot", "met", f"Bob{i}"], "tags": ["O", "O", "O", "B-PER"]} for i in range(40)
        ]
        Path("tagged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = TAGGED
    words = [
        *data,
        "model=hf",
        f"model.name_or_path={place}",
        "init=pretrained",
        "tokenizer=inherited",
        f"objective={objective}",
    ]
    if kind is None:
        line = refused(capsys, words)
        assert "what=encoder" in line
        folder = Path("out")
        run = bertlab.run([*SMALL, *words])
        assert run_command(["export", f"run={run.folder}", "to=out", "what=encoder"]) == 0
        kind = family.replace("Config", "Model")
    else:
        run, folder = exported(words)
        if objective == "classification":
            assert_classifies_alike(run, folder, ["the plot was dull", LONG, "x"])
    assert json.loads((folder / "config.json").read_text())["architectures"] == [kind]
    assert "token_type_ids" in transformers.AutoTokenizer.from_pretrained(folder)("x", "y") or family in (
        "RobertaConfig", "DistilBertConfig", "ModernBertConfig", "DebertaV2Config"
    )  # fmt: skip


def test_a_checkpoint_of_other_numbers_leaves_no_trace_in_the_config(tmp_path: Path) -> None:
    """A checkpoint that was a regression, in half precision, with three labels: what is exported is the
    run's.
    """
    place = folder_of("BertConfig", tmp_path / "hub")
    config = json.loads((place / "config.json").read_text())
    config |= {
        "problem_type": "multi_label_classification",
        "id2label": {"0": "a", "1": "b", "2": "c"},
        "label2id": {"a": 0, "b": 1, "c": 2},
    }
    (place / "config.json").write_text(json.dumps(config))
    run, folder = exported(
        [*DATA, "model=hf", f"model.name_or_path={place}", "init=pretrained", "tokenizer=inherited"]
    )
    assert_classifies_alike(run, folder, ["the plot was dull"])
    assert str(tmp_path) not in (folder / "config.json").read_text()


def test_minilm_fine_tuned_answers_in_a_pipeline_as_in_the_run(minilm: Path) -> None:
    words = [
        *DATA,
        "model=minilm_l6",
        "init=pretrained",
        f"init.path={minilm}",
        "tokenizer=inherited",
        "optimizer.lr=1e-4",
    ]
    run, folder = exported(words)
    assert_classifies_alike(run, folder, ["The plot was brilliant.", "naïve café — 3.14 %", "x", LONG])


def test_a_cased_vocabulary_with_rows_to_spare_survives(tmp_path: Path) -> None:
    place = folder_of("BertConfig", tmp_path / "hub", vocab_size=170, type_vocab_size=3)
    content = json.loads((place / "tokenizer.json").read_text())
    content["normalizer"] = None  # case and accents kept
    (place / "tokenizer.json").write_text(json.dumps(content))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    sizes |= {"max_position_embeddings": 130, "vocab_size": 170, "type_vocab_size": 3}
    words = [*pairs_file(), "model=bert", *(f"model.{key}={value}" for key, value in sizes.items())]
    run, folder = exported([*words, "init=pretrained", f"init.path={place}", "tokenizer=inherited"])
    assert_classifies_alike(run, folder, ["The Plot was DULL", "the plot was dull"], ["x", "Y"])
    described = json.loads((folder / "config.json").read_text())
    assert all(described[key] == value for key, value in sizes.items())
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs("The Plot")["input_ids"] != theirs("the plot")["input_ids"]


# --- awkward runs and places ----------------------------------------------------------------------
def test_where_something_stands_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    run = classifier()
    Path("file").write_text("mine")
    Path("empty").mkdir()
    Path("link").symlink_to("empty")
    for place in ("file", "link", ".", f"{run.folder}/export", f"{run.folder}", ""):
        assert run_command(["export", f"run={run.folder}", f"to={place}"]) == 2, place
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and "to=" in line
    assert Path("file").read_text() == "mine" and not [*Path("empty").iterdir()]
    assert run_command(["export", f"run={run.folder}", "to=empty"]) == 0, (
        "an empty folder is a place to write to"
    )
    assert run_command(["export", f"run={run.folder}", "to=deep/er/place"]) == 0
    before = sorted(run.folder.rglob("*"))
    assert run_command(["export", f"run={run.folder}", "to=file/below"]) == 2
    assert sorted(run.folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("summary.json", '{"status": "finished"}'),
        (
            "summary.json",
            '{"status": "finished", "cost": {}, "metrics": [], "command": "x", "selected_by": "y"}',
        ),
        ("summary.json", "torn"),
        ("labels.json", "[1]"),
        ("labels.json", '["one"]'),
        ("config.yaml", "a: ["),
        ("tokenizer.json", "{"),
        ("model.safetensors", "torn"),
    ],
)
def test_a_damaged_run_is_told_in_one_line(
    file: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = classifier()
    (run.folder / file).write_text(content)
    assert run_command(["export", f"run={run.folder}", "to=out"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and not Path("out").exists(), line


def test_data_that_have_moved_do_not_stop_it_and_a_file_that_is_lost_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = bertlab.run([*SMALL, *pairs_file(), *DEVLIN])
    Path("pairs.jsonl").unlink()
    assert run_command(["export", f"run={run.folder}", "to=out"]) == 0
    assert "the run's data cannot be read here" in capsys.readouterr().out
    (run.folder / "environment.json").unlink()
    assert run_command(["export", f"run={run.folder}", "to=other"]) == 2 and not Path("other").exists()
    assert "environment.json: missing or damaged" in capsys.readouterr().err


def test_the_card_is_what_the_hub_understands() -> None:
    from huggingface_hub import ModelCard

    run, folder = exported([*DATA, *DEVLIN])
    data = ModelCard.load(folder / "README.md").data
    assert data.pipeline_tag == "text-classification" and data.library_name == "transformers"
    scores = {(result.dataset_split, result.metric_type): result.metric_value for result in data.eval_results}
    assert (
        scores["validation", "accuracy"] == run.summary["metrics"]["validation/accuracy"]
        and ("test", "accuracy") in scores
    )
    card = (folder / "README.md").read_text()
    for part in (
        run.folder.name,
        run.summary["command"],
        "core-minutes",
        "revision",
        "Seed: 0",
        "## Limits",
        "| validation | accuracy |",
    ):
        assert part in card, part
