"""Hugging Face encoders behind the same call: their weights, either code, one loop; architectures of several
families.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import bertlab
from bertlab.config.composition import compose_schema
from bertlab.data.material import prepare
from bertlab.data.tokenizer_options import WordPiece, train_tokenizer
from bertlab.models import hf
from bertlab.training import assembly

transformers = pytest.importorskip("transformers")

SMALL = [
    "dataset.train_size=300", "dataset.validation_size=60", "dataset.test_size=40", "budget.steps=12",
    "budget.batch_size=8",
    "evaluation.every_steps=6", "objective.head_dropout=0", "compute=cpu", "compute.threads=1",
    "compute.precision=float32",
]  # fmt: skip
SIZES = {
    "vocab_size": 120,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "BertConfig": {**SIZES, "max_position_embeddings": 130},
    "RobertaConfig": {**SIZES, "max_position_embeddings": 132, "type_vocab_size": 1, "pad_token_id": 0},
    "DistilBertConfig": {
        "vocab_size": 120,
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 32,
        "max_position_embeddings": 130,
    },
    "ElectraConfig": {**SIZES, "embedding_size": 8, "max_position_embeddings": 130},
    "ModernBertConfig": {
        **SIZES,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "cls_token_id": 2,
        "sep_token_id": 3,
    },
    "DebertaV2Config": {
        **SIZES,
        "max_position_embeddings": 130,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
    },
}


def folder_of(family: str, place: Path, **options: Any) -> Path:
    """A tiny checkpoint with a WordPiece tokenizer, as a hub repository lies on disk."""
    torch.manual_seed(1)
    config = getattr(transformers, family)(**{**FAMILIES[family], **options})
    transformers.AutoModel.from_config(config).save_pretrained(place)
    texts = bertlab_texts()
    (place / "tokenizer.json").write_text(
        train_tokenizer(WordPiece(name="wordpiece", vocab_size=120), texts).to_json()
    )
    return place


def bertlab_texts() -> list[str]:
    from bertlab.data.synthetic import Synthetic, generate

    return list(
        generate(Synthetic(name="synthetic", train_size=300, validation_size=1, test_size=1))["train"]["text"]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_is_scored_and_comes_back(family: str, tmp_path: Path) -> None:
    place = folder_of(family, tmp_path / "hub")
    words = [*SMALL, "model=hf", f"model.name_or_path={place}", "init=pretrained", "tokenizer=inherited"]
    run = bertlab.run(words)
    assert run.summary["status"] == "finished"
    before = run.predict(["the plot was brilliant"])
    place.rename(tmp_path / "moved")
    assert bertlab.load(run.folder).predict(["the plot was brilliant"]) == before, (
        "a finished run needs its hub no more"
    )


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_their_weights_in_our_code_train_as_in_theirs(pooling: str, tmp_path: Path) -> None:
    """The arms `model=hf` and `model=bert`, both from one checkpoint: the same losses step by step, and the
    same end.
    """
    place = folder_of(
        "BertConfig", tmp_path / "hub", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    common = [
        *SMALL,
        f"init.path={place}",
        "init=pretrained",
        "tokenizer=inherited",
        f"model.pooling={pooling}",
    ]
    theirs = bertlab.run([*common, "model=hf", f"model.name_or_path={place}"])
    ours = bertlab.run([*common, "model=bert", "model.hidden_size=16", "model.num_hidden_layers=2",
        "model.num_attention_heads=2",
                        "model.intermediate_size=32", "model.max_position_embeddings=130",
                        "model.hidden_dropout=0",
                        "model.attention_dropout=0"])  # fmt: skip
    for name in ("train/loss", "validation/loss", "validation/accuracy"):
        a, b = (run.history[name].dropna().to_numpy() for run in (ours, theirs))
        assert len(a) == len(b) >= 1 and abs(a - b).max() < 1e-4, name


def test_scratch_draws_other_weights_for_the_same_architecture(tmp_path: Path) -> None:
    place = folder_of("BertConfig", tmp_path / "hub")
    found = []
    for init in ("pretrained", "scratch"):
        config: Any = compose_schema(
            "train",
            [*SMALL, "model=hf", f"model.name_or_path={place}", f"init={init}", "tokenizer=inherited"],
        )
        source = config.init.source(config)
        material = prepare(config, source=source)
        found.append(
            assembly.build_initialized(
                config, material.tokenizer, material.objective, source
            ).encoder.state_dict()
        )
    given = transformers.AutoModel.from_pretrained(place).state_dict()
    assert all(torch.equal(found[0][f"model.{name}"], weight) for name, weight in given.items())
    assert found[0].keys() == found[1].keys()
    assert not torch.equal(
        found[0]["model.embeddings.word_embeddings.weight"],
        found[1]["model.embeddings.word_embeddings.weight"],
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_levels_hold_every_weight_once(family: str, tmp_path: Path) -> None:
    place = folder_of(family, tmp_path / "hub")
    encoder = hf.build(hf.Hf(name="hf", name_or_path=str(place)), 100)
    levels = encoder.levels()
    assert len(levels) == 4 and len(levels[0]) > 0
    assert sorted(id(weight) for level in levels for weight in level) == sorted(
        id(weight) for weight in encoder.parameters()
    )


def test_dropout_and_layers_can_be_set(tmp_path: Path) -> None:
    place = folder_of("BertConfig", tmp_path / "hub")
    encoder = hf.build(
        hf.Hf(name="hf", name_or_path=str(place), hidden_dropout=0.33, attention_dropout=0.0), 100
    )
    assert (
        encoder.described.hidden_dropout_prob == 0.33
        and encoder.described.attention_probs_dropout_prob == 0.0
    )
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    encoder.redraw(1)
    moved = {name for name, weight in encoder.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved and all(name.startswith(("model.encoder.layer.1.", "model.pooler.")) for name in moved)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=hf"], "model.name_or_path"),
        (
            ["model=hf", "model.name_or_path=./nowhere", "init=pretrained", "tokenizer=inherited"],
            "no such folder",
        ),
        (
            ["model=hf", "model.name_or_path=some-model", "init=pretrained", "tokenizer=inherited"],
            "nor to be had from the hub",
        ),
        (["model=hf", "model.name_or_path={hub}", "tokenizer.vocab_size=500"], "tokenizer=inherited"),
        (["model=hf", "model.name_or_path={empty}", "tokenizer=inherited"], "config.json"),
        (["model=hf", "model.name_or_path={gpt}", "tokenizer=inherited"], "tokenizer.json"),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_line(
    words: list[str], expected: str, cli: Any, tmp_path: Path
) -> None:
    places = {
        "hub": folder_of("BertConfig", tmp_path / "hub"),
        "empty": tmp_path / "empty",
        "gpt": tmp_path / "gpt",
    }
    places["empty"].mkdir()
    places["gpt"].mkdir()
    (places["gpt"] / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    status, _, errors = cli(*SMALL, *(word.format(**places) for word in words))
    assert status == 2 and len(errors.splitlines()) == 1 and expected in errors, errors
    assert not Path("multirun").exists()


FOREIGN = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import BertConfig as Foreign, BertModel as ForeignModel
"""


@pytest.mark.parametrize("model_type", ["foreign", "bert"])
def test_code_that_comes_with_a_model_is_never_run(
    model_type: str, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anybody asked whether it may: what transformers does not know itself is refused, what it knows
    is read without that code.
    """
    place, mark = folder_of("BertConfig", tmp_path / "hub"), tmp_path / "ran"
    described = json.loads((place / "config.json").read_text())
    code = {"AutoConfig": "foreign.Foreign", "AutoModel": "foreign.ForeignModel"}
    (place / "config.json").write_text(json.dumps({**described, "model_type": model_type, "auto_map": code}))
    (place / "foreign.py").write_text(FOREIGN.format(mark=str(mark)))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    words = [
        *SMALL,
        "model=hf",
        f"model.name_or_path={place}",
        "init=pretrained",
        "tokenizer=inherited",
        "budget.steps=1",
    ]
    status, _, errors = cli(*words)
    assert not mark.exists()
    if model_type == "foreign":
        assert status == 2 and len(errors.splitlines()) == 1 and "custom code" in errors, errors
        assert not Path("multirun").exists()
    else:
        assert status == 0, errors
