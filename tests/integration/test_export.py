"""What is exported opens with transformers and answers as the run does; what could not is refused; weights survive both ways."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import bertlab
from bertlab import export
from bertlab.assembly import Model
from bertlab.cli import run_command
from bertlab.composition import compose_schema
from bertlab.data.tokenizer import WordPiece, train_tokenizer
from bertlab.models import _bert_hf
from bertlab.models.bert import build

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
    text = ["The plot was good. It moved me. Nobody left early! The end came late?", "A dull film. Two hours lost. We went home."]
    Path("documents.jsonl").write_text("".join(json.dumps({"text": f"{text[i % 2]} Number {i} it was."}) + "\n" for i in range(60)))
    rows = [{"tokens": ["Ann", "met", f"Bob{i}"], "tags": ["B-PER", "O", "B-PER"]} for i in range(60)]
    Path("tagged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def exported(words: list[str], *more: str) -> tuple[Any, Path]:
    run = bertlab.run([*SMALL, *words])
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
        assert {row["label"]: row["score"] for row in theirs} == pytest.approx(ours["probabilities"], abs=1e-5), text
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.id2label == {0: "negative", 1: "positive"} and type(model).__name__ == "BertForSequenceClassification"
    card = (folder / "README.md").read_text()
    assert "pipeline_tag" in card and run.folder.name in card and "validation/accuracy" in card and run.summary["command"] in card


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


@pytest.mark.parametrize("tokenizer", ["wordlevel", "wordpiece", "bpe", "unigram"])
def test_every_tokenizer_is_read_back(tokenizer: str) -> None:
    size = 400 if tokenizer == "bpe" else 150
    run, folder = exported([*DATA, *DEVLIN[:4], f"tokenizer={tokenizer}", f"tokenizer.vocab_size={size}"])
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in ["The plot wasn't brilliant!", "ÀÉÎ ünder", "", "a [MASK] b", "日本 x\n y"]:
        special = run.tokenizer.special
        assert theirs(text)["input_ids"] == [special.cls_id, *run.tokenizer.encode([text])[0], special.sep_id]
    assert theirs.mask_token_id == special.mask_id and theirs.pad_token_id == special.pad_id and theirs.model_max_length == 128


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("objective", "data", "kind"),
    [
        ("mlm", DOCUMENTS, "BertForMaskedLM"),
        ("mlm_nsp", DOCUMENTS, "BertForPreTraining"),
        ("nsp", DOCUMENTS, "BertForNextSentencePrediction"),
        ("tagging", TAGGED, "BertForTokenClassification"),
    ],
)
def test_every_objective_with_a_class_of_theirs_opens_as_it(objective: str, data: list[str], kind: str) -> None:
    run, folder = exported([*data, *DEVLIN, f"objective={objective}", "objective.max_length=32"])
    described = json.loads((folder / "config.json").read_text())
    assert described["architectures"] == [kind]
    auto = "AutoModelFor" + kind.removeprefix("BertFor")
    model, report = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    if objective == "mlm":
        found = transformers.pipeline("fill-mask", model=str(folder))("The [MASK] was good.")
        assert len(found) == 5 and found[0]["score"] > 0
    if objective == "tagging":
        assert model.config.id2label == dict(enumerate(json.loads((run.folder / "labels.json").read_text())))
        assert isinstance(transformers.pipeline("token-classification", model=str(folder))("Ann met Bob1"), list)


def test_the_encoder_alone_opens_as_auto_model() -> None:
    _, folder = exported([*DATA, *DEVLIN, "model.pooling=mean"], "what=encoder")
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertModel"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["model.positions=rotary", "model.norm_placement=pre"], ("model.norm_placement=pre", "model.positions=rotary")),
        (["model.activation=swiglu"], ("model.activation=swiglu",)),
        (["model.pooling=max"], ("model.pooling=max", "what=encoder")),
    ],
)
def test_what_they_have_no_class_for_is_refused_and_nothing_written(
    words: list[str], named: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, [*DATA, *DEVLIN, *words])
    assert all(word in line for word in named)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("objective", ["sop", "rtd"])
def test_objectives_without_a_class_are_refused(objective: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "what=encoder" in refused(capsys, [*DOCUMENTS, *DEVLIN, f"objective={objective}", "objective.max_length=32"])


def test_a_folder_in_use_and_an_unfinished_run_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    run, folder = exported([*DATA, *DEVLIN])
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert run_command(["export", f"run={run.folder}", "to=out"]) == 2
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (run.folder / "summary.json").write_text('{"status": "interrupted"}')
    assert run_command(["export", f"run={run.folder}", "to=other"]) == 2
    (run.folder / "summary.json").write_text(json.dumps({**run.summary}))
    (run.folder / "model.safetensors").write_bytes(b"torn")
    assert run_command(["export", f"run={run.folder}", "to=other"]) == 2
    assert not Path("other").exists() and "damaged weights" in capsys.readouterr().err


def test_other_answers_are_noticed_and_nothing_is_published(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = bertlab.run([*SMALL, *DATA, *DEVLIN])
    real = export.to_transformers

    def off(*arguments: Any) -> Any:
        model = real(*arguments)
        model.classifier.bias.data += 0.01
        return model

    monkeypatch.setattr(export, "to_transformers", off)
    assert run_command(["export", f"run={run.folder}", "to=out"]) == 2
    assert "answers otherwise" in capsys.readouterr().err and not Path("out").exists()
    assert not [file for file in Path().iterdir() if file.name.endswith(".tmp")]


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
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(Hub.calls[1][1])


def test_without_a_network_pushing_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    run = bertlab.run([*SMALL, *DATA, *DEVLIN])
    assert run_command(["export", f"run={run.folder}", "to=out", "push_to_hub=user/name"]) == 2
    assert "can be uploaded later" in capsys.readouterr().err and (Path("out") / "config.json").is_file()


# --- there and back -----------------------------------------------------------------------------------------------------------------
@functools.cache
def config_of(objective: str) -> Any:
    return compose_schema("train", [f"objective={objective}", "dataset=files", "dataset.train_file=x.csv", "model=bert"])


@settings(deadline=None, max_examples=12, phases=[Phase.explicit, Phase.generate])
@given(
    heads=st.sampled_from([1, 2]),
    layers=st.integers(1, 3),
    inner=st.sampled_from([7, 32]),
    rows=st.integers(0, 5),
    segments=st.integers(1, 3),
    activation=st.sampled_from(["gelu", "gelu_pytorch_tanh", "relu"]),
    tied=st.booleans(),
    labels=st.integers(2, 5),
    seed=st.integers(0, 99),
    objective=st.sampled_from(["classification", "mlm", "mlm_nsp", "nsp", "tagging"]),
)
def test_weights_survive_the_way_from_hugging_face_and_back(
    heads: int, layers: int, inner: int, rows: int, segments: int, activation: str, tied: bool, labels: int, seed: int, objective: str
) -> None:
    tokenizer = train_tokenizer(WordPiece(name="wordpiece", vocab_size=60), ["a film was good", "a dull plot was bad"])
    config = copy.deepcopy(config_of(objective))
    names = [f"L{index}" for index in range(labels)] if objective in ("classification", "tagging") else []
    torch.manual_seed(seed)
    described = transformers.BertConfig(
        vocab_size=tokenizer.vocab_size + rows,
        hidden_size=8 * heads,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=140,
        type_vocab_size=segments,
        hidden_act=activation,
        tie_word_embeddings=tied,
        pad_token_id=tokenizer.special.pad_id,
        **({"num_labels": labels} if names else {}),
    )
    task = export.task_of(config, "task")
    theirs = getattr(transformers, f"BertFor{task}")(described)
    for weight in theirs.parameters():
        weight.data.normal_()
    if not tied and hasattr(theirs, "cls") and hasattr(theirs.cls, "predictions"):
        theirs.cls.predictions.bias.data.copy_(theirs.cls.predictions.decoder.bias)  # theirs is idle, ours is the decoder's
    config.model = _bert_hf.from_hf_config(described.to_dict())
    encoder = build(config.model, tokenizer.vocab_size, tokenizer.special.pad_id)
    state = theirs.state_dict()
    encoder.load_state_dict(_bert_hf.from_hf_state(config.model, state, allow_missing_pooler=True), strict=False)
    from bertlab import registry
    from bertlab.assembly import build_objective

    model = Model(encoder, build_objective(config, tokenizer, names).build_head(encoder, 0.02))
    mapped = registry.module_of(config.objective).HF_NAMES
    head = {
        ours: state[mapped[name] + ours.removeprefix(name)]
        for ours in model.head.state_dict()
        for name in [max((name for name in mapped if ours == name or ours.startswith(f"{name}.")), key=len)]
    }
    model.head.load_state_dict(head)
    back = export.to_transformers(config, model, tokenizer, names)
    assert type(back) is type(theirs)
    found = back.state_dict()
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_a_hugging_face_encoders_own_architecture_is_kept(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "hub"
    sizes = {"vocab_size": 150, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(**sizes) if family == "bert" else transformers.ElectraConfig(**sizes, embedding_size=8)
    transformers.AutoModel.from_config(config).save_pretrained(place)
    texts = ["The plot was brilliant and dull", "nobody liked the soup"] * 5
    (place / "tokenizer.json").write_text(train_tokenizer(WordPiece(name="wordpiece", vocab_size=150), texts).to_json())
    words = [*DATA, "model=hf", f"model.name_or_path={place}", "init=pretrained", "tokenizer=inherited"]
    if family == "electra":  # its classifier has a layer that ours lacks
        assert "what=encoder" in refused(capsys, words)
        return
    run, folder = exported(words)
    pipe = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    assert {row["label"]: row["score"] for row in pipe(["the plot"])[0]} == pytest.approx(
        run.predict(["the plot"])[0]["probabilities"], abs=1e-5
    )


def test_minilm_comes_back_as_it_was(minilm: Path, tmp_path: Path) -> None:
    """Real weights through our encoder and out again: every tensor equal to the bit."""
    run = bertlab.run(
        [
            *SMALL,
            *DATA,
            "model=minilm_l6",
            "init=pretrained",
            f"init.path={minilm}",
            "tokenizer=inherited",
            "optimizer.lr=1e-30",
            "finetune.freeze_encoder=true",
        ]
    )
    assert run_command(["export", f"run={run.folder}", f"to={tmp_path / 'out'}", "what=encoder"]) == 0
    theirs, back = (transformers.AutoModel.from_pretrained(folder).state_dict() for folder in (minilm, tmp_path / "out"))
    assert theirs.keys() == back.keys() and all(torch.equal(theirs[name], back[name]) for name in theirs)
