"""What is exported opens with transformers and answers as the run does; what could not is refused; weights
survive both ways.
"""

import contextlib
import functools
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import bertlab
from bertlab.cli.entry import run_command
from bertlab.jobs import export as job

pytestmark = pytest.mark.slow

transformers = pytest.importorskip("transformers")

SMALL = [
    "budget.steps=4",
    "budget.batch_size=8",
    "evaluation.every_steps=2",
    "compute=cpu",
    "compute.threads=1",
    "compute.precision=float32",
]
DATA = ["dataset.train_size=200", "dataset.validation_size=40", "dataset.test_size=40"]
DEVLIN = [
    "model=bert",
    "model.hidden_size=16",
    "model.num_attention_heads=2",
    "model.num_hidden_layers=2",
    "tokenizer=wordpiece",
    "tokenizer.vocab_size=150",
]
DOCUMENTS = [
    "dataset=files",
    "dataset.train_file=documents.jsonl",
    "dataset.label_column=null",
    "dataset.documents=true",
    "dataset.validation_fraction=0.2",
]
TAGGED = [
    "dataset=files",
    "dataset.train_file=tagged.jsonl",
    "dataset.tokens_column=tokens",
    "dataset.tags_column=tags",
    "dataset.validation_fraction=0.2",
]


@pytest.fixture
def files() -> None:
    """Documents of several sentences, and tagged words."""
    text = [
        "The plot was good. It moved me. Nobody left early! The end came late?",
        "A dull film. Two hours lost. We went home.",
    ]
    Path("documents.jsonl").write_text(
        "".join(json.dumps({"text": f"{text[i % 2]} Number {i} it was."}) + "\n" for i in range(60))
    )
    rows = [{"tokens": ["Ann", "met", f"Bob{i}"], "tags": ["B-PER", "O", "B-PER"]} for i in range(60)]
    Path("tagged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@functools.cache
def made() -> Path:
    """A finished classifier of DEVLIN's kind."""
    with contextlib.chdir(tempfile.mkdtemp(dir=Path(os.environ["BERTLAB_CACHE"]).parent)):
        return bertlab.run([*SMALL, *DATA, *DEVLIN]).folder.absolute()


def classifier() -> Any:
    """A copy of it in this test's own folder."""
    return bertlab.load(shutil.copytree(made(), Path("multirun") / made().name))


def exported(words: list[str], *more: str) -> tuple[Any, Path]:
    run = classifier() if words == [*DATA, *DEVLIN] else bertlab.run([*SMALL, *words])
    assert run_command(["export", f"run={run.folder}", "to=out", *more]) == 0
    return run, Path("out")


def refused(capsys: pytest.CaptureFixture[str], words: list[str], *more: str) -> str:
    run = bertlab.run([*SMALL, *words])
    capsys.readouterr()
    assert run_command(["export", f"run={run.folder}", "to=out", *more]) == 2
    assert not Path("out").exists()
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_a_classifier_is_a_pipeline_with_equal_answers() -> None:
    run, folder = exported([*DATA, *DEVLIN])
    texts = ["The plot was brilliant.", "nothing but a naïve, dull film — twice", "good " * 300]
    pipe = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    for text, ours, theirs in zip(texts, run.predict(texts), pipe(texts, truncation=True), strict=True):
        assert {row["label"]: row["score"] for row in theirs} == pytest.approx(
            ours["probabilities"], abs=1e-5
        ), text
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert (
        model.config.id2label == {0: "negative", 1: "positive"}
        and type(model).__name__ == "BertForSequenceClassification"
    )
    card = (folder / "README.md").read_text()
    assert (
        "pipeline_tag" in card
        and run.folder.name in card
        and "validation/accuracy" in card
        and run.summary["command"] in card
    )


def test_a_run_in_bfloat16_predicts_as_its_folder_does(capsys: pytest.CaptureFixture[str]) -> None:
    """And says so; its scores are those of training."""
    run, folder = exported([*DATA, *DEVLIN, "compute.precision=bfloat16"])
    texts = ["The plot was brilliant.", "nothing but a dull film"]
    pipe = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    for ours, theirs in zip(run.predict(texts), pipe(texts), strict=True):
        assert {row["label"]: row["score"] for row in theirs} == pytest.approx(
            ours["probabilities"], abs=1e-6
        )
    capsys.readouterr()
    words = ["predict", f"run={run.folder}", f"text={texts[0]}"]
    assert run_command(words) == 0
    assert "predicted in float32, as an exported folder computes" in capsys.readouterr().err
    assert run_command([*words, "compute.precision=bfloat16"]) == 0
    assert "predicted in" not in capsys.readouterr().err
    assert run.evaluate()["accuracy"] == pytest.approx(run.metrics["validation/accuracy"], abs=1e-6)


def test_the_card_of_a_swept_run_has_its_own_command() -> None:
    words = [*DATA, *DEVLIN, *SMALL, "optimizer.lr=1e-3,2e-3", "seed=range(2)"]
    made = bertlab.sweep(words)[3]
    assert run_command(["export", f"run={made.folder}", "to=swept"]) == 0
    card = Path("swept/README.md").read_text()
    assert "optimizer.lr=0.002" in card and "seed=1" in card and "range" not in card and " -m " not in card


def test_a_pair_classifier_reads_pairs_as_the_run_does() -> None:
    rows = [
        {
            "a": f"the film was {'good' if i % 2 else 'bad'}",
            "b": f"it was {'good' if i % 3 else 'bad'} {i}",
            "y": "same" if i % 2 else "other",
        }
        for i in range(60)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = [
        "dataset=files",
        "dataset.train_file=pairs.jsonl",
        "dataset.text_column=a",
        "dataset.text_pair_column=b",
        "dataset.label_column=y",
    ]
    run, folder = exported([*columns, *DEVLIN, "dataset.validation_fraction=0.2"])
    pipe = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    (ours,) = run.predict(["the film was good"], ["it was bad"])
    theirs = pipe([{"text": "the film was good", "text_pair": "it was bad"}])[0]
    assert {row["label"]: row["score"] for row in theirs} == pytest.approx(ours["probabilities"], abs=1e-5)


def test_the_end_of_long_texts_is_kept_there_too() -> None:
    run, folder = exported([*DATA, *DEVLIN, "objective.max_length=16", "objective.truncation=tail"])
    texts = ["The plot was brilliant. " * 9 + "dull", "good " * 30 + "bad bad dull"]
    pipe = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    for ours, theirs in zip(run.predict(texts), pipe(texts, truncation=True), strict=True):
        assert {row["label"]: row["score"] for row in theirs} == pytest.approx(
            ours["probabilities"], abs=1e-5
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(texts[0], truncation=True)["input_ids"]
    assert len(ids) == 16 and tokenizer.decode(ids, skip_special_tokens=True).replace(" ##", "").endswith(
        "brilliant . dull"
    )
    assert "of which the end is kept" in (folder / "README.md").read_text()


@pytest.mark.parametrize("truncation", ["head_tail", "windows"])
def test_a_truncation_that_transformers_lacks_is_told(
    truncation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = exported([*DATA, *DEVLIN, "objective.max_length=32", f"objective.truncation={truncation}"])
    assert (
        f"objective.truncation={truncation}: transformers cannot cut so; texts of more than 32 tokens"
        in capsys.readouterr().out
    )
    assert "**Longer texts are read otherwise than by the run**" in (folder / "README.md").read_text()
    pipe = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    ours, theirs = run.predict(["The plot was good."])[0], pipe("The plot was good.", truncation=True)[0]
    assert {row["label"]: row["score"] for row in theirs} == pytest.approx(ours["probabilities"], abs=1e-5)


@pytest.mark.parametrize("tokenizer", ["wordlevel", "wordpiece", "bpe", "unigram"])
def test_every_tokenizer_is_read_back(tokenizer: str) -> None:
    size = 400 if tokenizer == "bpe" else 150
    run, folder = exported([*DATA, *DEVLIN[:4], f"tokenizer={tokenizer}", f"tokenizer.vocab_size={size}"])
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in ["The plot wasn't brilliant!", "ÀÉÎ ünder", "", "a [MASK] b", "日本 x\n y"]:
        special = run.tokenizer.special
        assert theirs(text)["input_ids"] == [special.cls_id, *run.tokenizer.encode([text])[0], special.sep_id]
    assert (
        theirs.mask_token_id == special.mask_id
        and theirs.pad_token_id == special.pad_id
        and theirs.model_max_length == 128
    )


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("objective", "data", "kind"),
    [
        ("mlm", DOCUMENTS, "BertForMaskedLM"),
        ("mlm_nsp", DOCUMENTS, "BertForPreTraining"),
        ("nsp", DOCUMENTS, "BertForNextSentencePrediction"),
        ("sop", DOCUMENTS, "BertForNextSentencePrediction"),
        ("tagging", TAGGED, "BertForTokenClassification"),
        ("rtd", DOCUMENTS, "ElectraForPreTraining"),
    ],
)
def test_every_objective_with_a_class_of_theirs_opens_as_it(
    objective: str, data: list[str], kind: str
) -> None:
    run, folder = exported([*data, *DEVLIN, f"objective={objective}", "objective.max_length=32"])
    described = json.loads((folder / "config.json").read_text())
    assert described["architectures"] == [kind]
    auto = "AutoModelFor" + kind.partition("For")[2]
    model, report = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    if objective == "mlm":
        found = transformers.pipeline("fill-mask", model=str(folder))("The [MASK] was good.")
        assert len(found) == 5 and found[0]["score"] > 0
    card = (folder / "README.md").read_text()
    assert ("The generator that put them there in training stayed behind" in card) == (objective == "rtd")
    if objective == "sop":
        assert model.config.id2label == {0: "ordered", 1: "swapped"}
    if objective == "tagging":
        assert model.config.id2label == dict(enumerate(json.loads((run.folder / "labels.json").read_text())))
        assert isinstance(
            transformers.pipeline("token-classification", model=str(folder))("Ann met Bob1"), list
        )


def test_the_encoder_alone_opens_as_auto_model() -> None:
    _, folder = exported([*DATA, *DEVLIN, "model.pooling=mean"], "what=encoder")
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertModel"]


@pytest.mark.usefixtures("files")
def test_an_objective_without_a_class_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "what=encoder" in refused(
        capsys, [*DOCUMENTS, *DEVLIN, "objective=mntp", "objective.max_length=32"]
    )


def test_a_folder_in_use_and_an_unfinished_run_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    run, folder = exported([*DATA, *DEVLIN])
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert run_command(["export", f"run={run.folder}", "to=out"]) == 2
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    summary = (run.folder / "summary.json").read_bytes()
    (run.folder / "summary.json").write_text('{"status": "interrupted"}')
    assert run_command(["export", f"run={run.folder}", "to=other"]) == 2
    (run.folder / "summary.json").write_bytes(summary)
    (run.folder / "model.safetensors").write_bytes(b"torn")
    assert run_command(["export", f"run={run.folder}", "to=other"]) == 2
    assert (
        not Path("other").exists()
        and "model.safetensors: missing or damaged since the run finished" in capsys.readouterr().err
    )
    (run.folder / "manifest.json").unlink()  # a folder from elsewhere
    assert run_command(["export", f"run={run.folder}", "to=other"]) == 2
    assert not Path("other").exists() and "damaged weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("model.safetensors", None, "answers otherwise"),
        ("tokenizer_config.json", ('"model_max_length": 128', '"model_max_length": 127'), "reads"),
        ("tokenizer.json", ('"type_id": 1', '"type_id": 0'), "reads the pair"),
        ("config.json", ('"positive"', '"Positive"'), "names its classes"),
        ("config.json", ('"layer_norm_eps": 1e-12', '"layer_norm_eps": 0.1'), "answers otherwise"),
    ],
)
def test_a_folder_that_answers_otherwise_is_never_published(
    file: str, change: Any, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    run, write = classifier(), job.write_folder

    def off(trained: Any, folder: Path, config: Any) -> str:
        kind = write(trained, folder, config)
        if change is None:
            weights = load_file(folder / file)
            save_file(
                {**weights, "classifier.bias": weights["classifier.bias"] + 0.01},
                folder / file,
                {"format": "pt"},
            )
        else:
            content = (folder / file).read_text()
            assert change[0] in content
            (folder / file).write_text(content.replace(*change))
        return kind

    monkeypatch.setattr(job, "write_folder", off)
    assert run_command(["export", f"run={run.folder}", "to=out"]) == 2
    assert said in capsys.readouterr().err and not Path("out").exists()
    assert not [place for place in Path().iterdir() if place.name.endswith(".tmp")]


def test_without_transformers_it_is_written_the_same_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = exported([*DATA, *DEVLIN])
    assert "equal to the run's on 8 validation rows" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)
        assert run_command(["export", f"run={run.folder}", "to=other"]) == 0
    said = capsys.readouterr().out
    assert "not compared with the run: transformers is not installed; pip install 'bertlab[hf]'" in said
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        f.name: f.read_bytes() for f in Path("other").iterdir()
    }


class Hub:
    """Records what would be sent."""

    calls: list[tuple[str, Any]]

    def __init__(self) -> None:
        Hub.calls = []

    def create_repo(self, name: str, **options: Any) -> None:
        self.calls.append((name, options))

    def upload_folder(self, **options: Any) -> str:
        self.calls.append(("upload", sorted(file.name for file in Path(options["folder_path"]).iterdir())))
        return "https://hub/user/name"


def test_a_folder_is_pushed_whole_and_privately(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    exported([*DATA, *DEVLIN], "push_to_hub=user/name")
    assert Hub.calls[0] == ("user/name", {"private": True, "exist_ok": True})
    assert {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= set(Hub.calls[1][1])


def test_without_a_network_pushing_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    run = classifier()
    assert run_command(["export", f"run={run.folder}", "to=out", "push_to_hub=user/name"]) == 2
    assert "can be uploaded later" in capsys.readouterr().err and (Path("out") / "config.json").is_file()


def test_a_card_names_no_folders_of_the_machine() -> None:
    from bertlab.export.card import without_folders

    command = "bertlab init.path=/home/me/weights/mini 'dataset.train_file=~/data/x.csv' out=a/b seed=1"
    assert without_folders(command) == "bertlab init.path=…/mini 'dataset.train_file=…/x.csv' out=a/b seed=1"
