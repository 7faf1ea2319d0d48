"""Weights and configs on the way Hugging Face -> ours -> Hugging Face and back, for every head, to the bit;
what is no BERT is refused.
"""

import copy
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import TOLERANCE, encoder_of, random_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlab.config.composition import compose_schema
from bertlab.data.material import build_objective
from bertlab.data.tokenizer_options import WordPiece, train_tokenizer
from bertlab.errors import ConfigError
from bertlab.export import model as export
from bertlab.export import verification
from bertlab.models import _bert_hf
from bertlab.models.bert import Bert, build
from bertlab.objectives._texts import join_texts
from bertlab.training.assembly import Model

transformers = pytest.importorskip("transformers")
TOKENIZER = train_tokenizer(
    WordPiece(name="wordpiece", vocab_size=60), ["a film was good", "a dull plot was bad"]
)
# the tasks whose head is as wide as there are classes
LABELLED = ("SequenceClassification", "TokenClassification")
OBJECTIVES = ["classification", "mlm", "mlm_nsp", "nsp", "tagging"]


@functools.cache
def config_of(objective: str) -> Any:
    return compose_schema(
        "train", [f"objective={objective}", "dataset=files", "dataset.train_file=x.csv", "model=bert"]
    )


@st.composite
def configs(draw: Any) -> dict[str, Any]:
    """Any BERT of theirs that fits the test's tokenizer: spare rows of words, positions and segments
    included.
    """
    heads = draw(st.sampled_from([1, 2, 3]))
    return {
        "vocab_size": TOKENIZER.vocab_size + draw(st.integers(0, 5)),
        "hidden_size": 8 * heads,
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "intermediate_size": draw(st.sampled_from([7, 32])),
        "max_position_embeddings": draw(st.sampled_from([128, 140])),
        "type_vocab_size": draw(st.integers(2, 3)),
        "hidden_act": draw(st.sampled_from(["gelu", "gelu_pytorch_tanh", "relu"])),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-5])),
        "hidden_dropout_prob": draw(st.sampled_from([0.0, 0.1])),
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": TOKENIZER.special.pad_id,
    }


def theirs_of(described: dict[str, Any], task: str, labels: int, seed: int) -> Any:
    torch.manual_seed(seed)
    config = transformers.BertConfig(**described, **({"num_labels": labels} if task in LABELLED else {}))
    theirs = getattr(transformers, f"BertFor{task}" if task else "BertModel")(config).eval()
    for weight in theirs.parameters():
        weight.data.normal_(std=0.3)
    if not config.tie_word_embeddings and hasattr(theirs, "cls") and hasattr(theirs.cls, "predictions"):
        # theirs is idle, ours is the decoder's
        theirs.cls.predictions.bias.data.copy_(theirs.cls.predictions.decoder.bias)
    return theirs


def ours_of(config: Any, state: dict[str, torch.Tensor], names: list[str]) -> Model:
    """Our model with a Hugging Face state dict's weights; the pooler stays random where that has none."""
    encoder = build(config.model, TOKENIZER.vocab_size, TOKENIZER.special.pad_id)
    encoder.load_state_dict(
        _bert_hf.from_hf_state(config.model, state, allow_missing_pooler=True), strict=False
    )
    model = Model(encoder, build_objective(config, TOKENIZER, names).build_head(encoder, 0.02)).eval()
    if any(name.startswith(("cls.", "classifier.")) for name in state):
        mapped = config.objective.hf_head().names
        model.head.load_state_dict(
            {name: state[export._renamed(name, mapped)] for name in model.head.state_dict()}
        )
    return model


@settings(max_examples=40)
@given(configs(), st.sampled_from([*OBJECTIVES, "encoder"]), st.integers(2, 5), st.integers(0, 99))
def test_weights_survive_the_way_from_hugging_face_and_back(
    described: dict[str, Any], objective: str, labels: int, seed: int
) -> None:
    what, objective = ("encoder", "nsp") if objective == "encoder" else ("task", objective)
    config = copy.deepcopy(config_of(objective))
    names = [f"L{index}" for index in range(labels)] if objective in ("classification", "tagging") else []
    theirs = theirs_of(described, export.form_of(config, what).task, labels, seed)
    config.model = _bert_hf.from_hf_config(theirs.config.to_dict())
    model = ours_of(config, theirs.state_dict(), names)
    with tempfile.TemporaryDirectory() as folder:
        kind = export.write_model(Path(folder), config, model, TOKENIZER, names, what)
        back, report = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert type(back) is type(theirs) and not any(report.values()), report
    state, found = theirs.state_dict(), back.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    # And on: a bertlab model from what was exported answers to the bit as the one before.
    again = copy.deepcopy(config)
    again.model = _bert_hf.from_hf_config(back.config.to_dict())
    assert again.model == config.model
    if what == "task":
        batch = verification.random_batch(TOKENIZER, 12)
        with torch.no_grad():
            answers = [one(batch) for one in (model, ours_of(again, found, names))]
        for one, other in zip(*(a if isinstance(a, tuple) else (a,) for a in answers), strict=True):
            assert torch.equal(one, other)


LIKE_DEVLIN = st.fixed_dictionaries(
    {
        "vocab_size": st.integers(8, 40_000), "hidden_size": st.sampled_from([12, 24, 768]),
        "num_hidden_layers": st.integers(1, 24),
        "num_attention_heads": st.sampled_from([1, 2, 3, 12]), "intermediate_size": st.integers(1, 4096),
        "max_position_embeddings": st.integers(1, 4096), "type_vocab_size": st.integers(1, 4),
        "norm_eps": st.sampled_from([1e-12, 1e-5]),
        "activation": st.sampled_from(["gelu", "gelu_tanh", "relu"]), "hidden_dropout": st.floats(0, 0.9),
        "attention_dropout": st.floats(0, 0.9), "initializer_range": st.floats(1e-4, 1),
        "tie_embeddings": st.booleans(),
    }
)  # fmt: skip


@given(LIKE_DEVLIN, st.integers(0, 7))
def test_configs_survive_both_ways(options: dict[str, Any], pad_id: int) -> None:
    config = Bert(name="bert", **options)
    hf = _bert_hf.to_hf_config(config, 8, pad_id)
    theirs = transformers.BertConfig(**hf).to_dict()
    assert {key: theirs[key] for key in hf} == hf
    assert _bert_hf.from_hf_config(hf) == _bert_hf.from_hf_config(theirs) == config
    assert _bert_hf.to_hf_config(_bert_hf.from_hf_config(theirs), 8, pad_id) == hf


WORDS = st.lists(st.sampled_from(["a", "film", "good", "dull"]), max_size=30)


@given(WORDS, st.one_of(st.none(), WORDS), st.integers(5, 40))
def test_long_texts_and_pairs_are_cut_as_transformers_cuts_them(
    first: list[str], second: list[str] | None, longest: int
) -> None:
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=copy.deepcopy(TOKENIZER.backend),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
    )
    texts = [" ".join(words) for words in (first, second) if words is not None]
    row, _ = join_texts(
        *TOKENIZER.encode(texts), *([None] if second is None else []), longest, TOKENIZER.special
    )
    assert theirs(*([text] for text in texts), truncation=True, max_length=longest)["input_ids"] == [row]


def test_minilm_is_exported_as_the_file_it_came_from(minilm: Path, tmp_path: Path) -> None:
    """Real weights into our encoder and out again: every tensor of the file equal to the bit, and
    its config.
    """
    from safetensors.torch import load_file

    from bertlab.data.tokenizer import Tokenizer

    described = json.loads((minilm / "config.json").read_text())
    tokenizer = Tokenizer.from_json((minilm / "tokenizer.json").read_text(encoding="utf-8"))
    config, given_state = copy.deepcopy(config_of("classification")), load_file(minilm / "model.safetensors")
    config.model = _bert_hf.from_hf_config(described)
    encoder = build(config.model, tokenizer.vocab_size, tokenizer.special.pad_id)
    encoder.load_state_dict(_bert_hf.from_hf_state(config.model, given_state))
    model = Model(encoder, build_objective(config, tokenizer, ["no", "yes"]).build_head(encoder, 0.02))
    assert export.write_model(tmp_path, config, model, tokenizer, ["no", "yes"], "encoder") == "BertModel"
    found = load_file(tmp_path / "model.safetensors")
    given_state.pop("embeddings.position_ids", None)  # a constant, no weight
    assert found.keys() == given_state.keys()
    assert all(
        found[name].dtype == value.dtype and torch.equal(found[name], value)
        for name, value in given_state.items()
    )
    written = json.loads((tmp_path / "config.json").read_text())
    assert all(written[key] == described[key] for key in written.keys() & described.keys())


# --- the mapping alone ----------------------------------------------------------------------------
def test_checkpoint_round_trip_is_bitwise_equal(minilm: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(minilm / "model.safetensors")
    state.pop("embeddings.position_ids", None)
    config = _bert_hf.from_hf_config(json.loads((minilm / "config.json").read_text()))
    ours = build(config, 30522)
    ours.load_state_dict(_bert_hf.from_hf_state(config, state))
    back = _bert_hf.to_hf_state(config, ours.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_saved_weights_open_in_transformers_without_missing_keys() -> None:
    ours = encoder_of()
    theirs = transformers.BertForSequenceClassification(
        transformers.BertConfig(**_bert_hf.to_hf_config(ours.config, 40))
    )
    report = theirs.load_state_dict(
        _bert_hf.to_hf_state(ours.config, ours.state_dict(), prefix="bert."), strict=False
    )
    assert (
        sorted(report.missing_keys) == ["classifier.bias", "classifier.weight"] and not report.unexpected_keys
    )
    ids, segments, mask = random_batch(ours.config, 40, [7, 3])
    expected = (
        theirs.eval()
        .bert(input_ids=ids, token_type_ids=segments, attention_mask=mask.long())
        .last_hidden_state
    )
    torch.testing.assert_close(ours(ids, segments, mask), expected, **TOLERANCE)


def test_old_names_prefixes_and_heads_are_understood() -> None:
    encoder = encoder_of()
    today = _bert_hf.to_hf_state(encoder.config, encoder.state_dict(), prefix="bert.")
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): today[k]
        for k in today
    }
    old |= {"bert.embeddings.position_ids": torch.arange(24), "cls.predictions.bias": torch.ones(40)}
    loaded = _bert_hf.from_hf_state(encoder.config, old)
    assert all(torch.equal(loaded[name], value) for name, value in encoder.state_dict().items())
    assert list(_bert_hf.split_hf_state(old)[1]) == ["cls.predictions.bias"]


def test_missing_pooler_is_said_or_asked_for() -> None:
    encoder = encoder_of()
    state = {
        k: v
        for k, v in _bert_hf.to_hf_state(encoder.config, encoder.state_dict()).items()
        if not k.startswith("pooler")
    }
    with pytest.raises(ConfigError, match=r"no pooler.*model\.pooling=cls"):
        _bert_hf.from_hf_state(encoder.config, state)
    assert "pooler.weight" not in _bert_hf.from_hf_state(encoder.config, state, allow_missing_pooler=True)
    mean = encoder_of(pooling="mean")
    mean.load_state_dict(_bert_hf.from_hf_state(mean.config, state))
    mean.load_state_dict(
        _bert_hf.from_hf_state(mean.config, _bert_hf.to_hf_state(encoder.config, encoder.state_dict()))
    )


def test_what_is_not_this_bert_is_refused_by_name() -> None:
    encoder = encoder_of()
    state = _bert_hf.to_hf_state(encoder.config, encoder.state_dict())
    with pytest.raises(ConfigError, match="lacks embeddings"):
        _bert_hf.from_hf_state(encoder.config, {})
    with pytest.raises(ConfigError, match=r"lacks encoder\.layer\.2\.attention.*and 13 more"):
        _bert_hf.from_hf_state(Bert(**{**vars(encoder.config), "num_hidden_layers": 3}), state)
    with pytest.raises(ConfigError, match=r"also has encoder\.layer\.1"):
        _bert_hf.from_hf_state(Bert(**{**vars(encoder.config), "num_hidden_layers": 1}), state)
    with pytest.raises(ConfigError, match=r"position_embeddings.weight has shape \(24, 16\)"):
        _bert_hf.from_hf_state(Bert(**{**vars(encoder.config), "max_position_embeddings": 25}), state)
    foreign = {
        "positions": "rotary",
        "norm_placement": "pre",
        "norm": "rms",
        "activation": "swiglu",
        "linear_bias": False,
    }
    for key, value in foreign.items():
        with pytest.raises(ConfigError, match=f"model.{key}={value}"):
            _bert_hf.to_hf_state(Bert(**{key: value}), {})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "roberta"}, "model_type=roberta"),
        ({"model_type": None}, "model_type"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type=relative_key"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"hidden_act": "silu"}, "hidden_act=silu"),
        ({"num_attention_heads": 5}, "num_attention_heads=5"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout=1.0"),
    ],
)  # fmt: skip
def test_foreign_configs_are_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        _bert_hf.from_hf_config(transformers.BertConfig().to_dict() | change)


def test_config_round_trip() -> None:
    config = _bert_hf.from_hf_config(
        transformers.BertConfig(hidden_act="gelu_new", layer_norm_eps=1e-5).to_dict()
    )
    assert (config.hidden_size, config.activation, config.norm_eps, config.pooling) == (
        768,
        "gelu_tanh",
        1e-5,
        "cls",
    )
    assert _bert_hf.from_hf_config(_bert_hf.to_hf_config(config, 30522)) == config
    assert _bert_hf.from_hf_config({"model_type": "bert"}) == _bert_hf.from_hf_config(
        transformers.BertConfig().to_dict()
    )
