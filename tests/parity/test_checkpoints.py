"""RoBERTa, ELECTRA and ModernBERT in our encoder: hidden states as transformers computes them, or refused by
name.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import TOLERANCE, random_weights
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bertlab.config.composition import compose_schema
from bertlab.errors import ConfigError, UserError
from bertlab.models import _checkpoints
from bertlab.models.bert import Bert, build

transformers = pytest.importorskip("transformers")
VOCAB = 40


@st.composite
def families(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    heads = draw(st.sampled_from([1, 2]))
    sizes: dict[str, Any] = {
        "vocab_size": VOCAB, "hidden_size": 8 * heads, "num_attention_heads": heads,
        "num_hidden_layers": draw(st.integers(1, 4)),
        "intermediate_size": draw(st.sampled_from([12, 32])), "max_position_embeddings": 24,
        "pad_token_id": draw(st.integers(0, 3)),
    }  # fmt: skip
    family = draw(st.sampled_from(["Bert", "Roberta", "XLMRoberta", "Camembert", "Electra", "ModernBert"]))
    if family == "ModernBert":
        theta = {
            kind: {"rope_type": "default", "rope_theta": draw(st.sampled_from([100.0, 10_000.0]))}
            for kind in ("full_attention", "sliding_attention")
        }
        modern = {
            "global_attn_every_n_layers": draw(st.integers(1, 4)),
            "local_attention": draw(st.sampled_from([2, 6])),
            "rope_parameters": theta,
        }
        return family, {
            **sizes,
            **modern,
            "norm_bias": draw(st.booleans()),
            "hidden_activation": draw(st.sampled_from(["gelu", "silu"])),
        }
    sizes |= {
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-5])),
        "hidden_act": draw(st.sampled_from(["gelu", "gelu_new", "relu"])),
    }
    if family == "Electra":
        sizes["embedding_size"] = draw(st.sampled_from([8, 6]))
    return family, {**sizes, "type_vocab_size": draw(st.integers(1, 2))}


def folder_of(family: str, options: dict[str, Any], place: Path, head: str = "Model", seed: int = 0) -> Any:
    theirs = getattr(transformers, f"{family}{head}")(
        getattr(transformers, f"{family}Config")(**options)
    ).eval()
    random_weights(theirs, seed)
    theirs.save_pretrained(place)
    return theirs


def loaded(place: Path, pooling: str, asked: str = "init.path=x", **options: Any) -> tuple[Bert, Any]:
    described = json.loads((place / "config.json").read_text())
    config = _checkpoints.config_of(described, asked)
    config = Bert(**{**vars(config), "pooling": pooling, **options})
    encoder = build(config, VOCAB, described["pad_token_id"]).eval()
    _checkpoints.load_pretrained(encoder, config, place, asked)
    return config, encoder


@settings(max_examples=40, phases=[Phase.generate])
@given(
    families(),
    st.sampled_from(["Model", "ForMaskedLM"]),
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.integers(0, 99),
)
def test_hidden_states_are_those_of_transformers(
    family: tuple[str, dict[str, Any]], head: str, lengths: list[int], seed: int
) -> None:
    name, options = family
    with tempfile.TemporaryDirectory() as place:
        theirs = folder_of(name, options, Path(place), head, seed)
        has_pooler = head == "Model" and name not in ("Electra", "ModernBert")
        _, ours = loaded(Path(place), "cls" if has_pooler else "mean")
    inside = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCAB, inside.shape, generator=generator).masked_fill(
        ~inside, options["pad_token_id"]
    )
    segments = torch.randint(options.get("type_vocab_size", 1), ids.shape, generator=generator)
    given = {
        "input_ids": ids,
        "attention_mask": inside.long(),
        **({} if name == "ModernBert" else {"token_type_ids": segments}),
    }
    with torch.no_grad():
        base = theirs if head == "Model" else theirs.base_model
        expected, found = base(**given), ours(ids, segments, inside)
        torch.testing.assert_close(found[inside], expected.last_hidden_state[inside], **TOLERANCE)
        if has_pooler:
            torch.testing.assert_close(ours.pool_first(found), expected.pooler_output, **TOLERANCE)


SMALL: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 8, "num_attention_heads": 1,
    "num_hidden_layers": 3, "intermediate_size": 12,
                         "max_position_embeddings": 24, "pad_token_id": 1}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("DistilBert", {}, "model_type=distilbert; own BERT loads bert, roberta"),
        ("Roberta", {"is_decoder": True}, "is_decoder=True"),
        ("Roberta", {"hidden_act": "silu"}, "hidden_act=silu"),
        ("Electra", {"position_embedding_type": "relative_key"}, "position_embedding_type=relative_key"),
        ("ModernBert", {"hidden_activation": "relu"}, "hidden_activation=relu"),
        (
            "ModernBert",
            {"layer_types": ["sliding_attention", "full_attention", "full_attention"]},
            "model.global_every",
        ),
        ("ModernBert", {"attention_bias": True}, "model.linear_bias"),
        ("ModernBert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type=yarn"),
        ("Roberta", {"max_position_embeddings": "many"}, "its config.json is damaged"),
        ("Roberta", {"num_attention_heads": 3}, "num_attention_heads=3"),
    ],
)
def test_what_is_beyond_our_options_is_refused_by_name(
    family: str, change: dict[str, Any], said: str
) -> None:
    described = {**getattr(transformers, f"{family}Config")(**SMALL).to_dict(), **change}
    with pytest.raises(ConfigError) as refused:
        _checkpoints.config_of(described, "init.path=x")
    assert (
        said in str(refused.value)
        and str(refused.value).startswith("init.path=x: ")
        and "\n" not in str(refused.value)
    )


def test_a_model_of_other_options_is_told_all_of_them(tmp_path: Path) -> None:
    folder_of("ModernBert", SMALL, tmp_path)
    with pytest.raises(ConfigError) as refused:
        loaded(
            tmp_path,
            "mean",
            positions="learned",
            rotary_base=10_000.0,
            local_rotary_base=None,
            linear_bias=True,
        )
    assert "set model.positions=rotary model.rotary_base=160000.0" in str(refused.value)
    assert "model.local_rotary_base=10000.0 model.linear_bias=false" in str(refused.value)
    with pytest.raises(ConfigError, match=r"no pooler.*model.pooling=mean or max"):
        loaded(tmp_path, "cls")


@pytest.mark.parametrize("damage", ["lacks", "also has", "shape"])
@pytest.mark.parametrize("family", ["Roberta", "Electra", "ModernBert"])
def test_weights_that_do_not_fit_are_refused_by_name(family: str, damage: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder_of(family, SMALL, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if "mlp.Wi" in name or "intermediate.dense.weight" in name)
    if damage == "lacks":
        del weights[name]
    else:
        weights |= (
            {"layers.9.extra": torch.ones(2), "encoder.layer.9.extra": torch.ones(2)}
            if damage == "also has"
            else {name: torch.ones(2, 3)}
        )
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=damage):
        loaded(tmp_path, "mean")


# what the published checkpoints' config.json say beyond their families' defaults
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta_base": (
        "Roberta",
        {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1},
    ),
    "electra_small": ("Electra", {}),
    "modernbert_base": ("ModernBert", {}),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_the_published_checkpoints_options(preset: str) -> None:
    family, options = PRESETS[preset]
    described = getattr(transformers, f"{family}Config")(**options).to_dict()
    config = compose_schema("train", [f"model={preset}", "dataset=files", "dataset.train_file=x.csv"]).model
    assert _checkpoints.differences(config, _checkpoints.config_of(described, "x")) == []


@pytest.mark.parametrize(
    ("pooling", "then"), [("cls", "cls"), ("cls", "mean"), ("max", "max"), ("max", "cls")]
)
def test_our_own_exports_come_back_without_running_their_code(
    pooling: str, then: str, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    sizes = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": 24,
    }
    config = Bert(
        name="bert", positions="rotary", norm_placement="pre", pooling=pooling, vocab_size=VOCAB, **sizes
    )
    encoder = build(config, VOCAB)
    random_weights(encoder)
    save_file(
        {f"encoder.{name}": value.clone() for name, value in encoder.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "bertlab", "pad_token_id": 0, **vars(config)})
    )
    (tmp_path / "modeling_bertlab.py").write_text("raise SystemExit('run')")
    if (pooling, then) == ("max", "cls"):
        with pytest.raises(ConfigError, match="no pooler"):
            loaded(tmp_path, then)
        return
    again = loaded(tmp_path, then)[1].state_dict()
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in again.items())


def test_embeddings_of_a_width_of_their_own_train_with_every_head() -> None:
    """Factorised embeddings (ALBERT, ELECTRA): the vocabulary's head and the generator's narrower copy meet
    their width.
    """
    import bertlab
    from tiny import tiny

    for objective in ("mlm", "rtd"):
        run = bertlab.run(
            tiny(
                "budget.steps=2",
                f"objective={objective}",
                "objective.max_length=32",
                "model.embedding_size=12",
                "model.num_hidden_layers=1",
            )
        )
        weights = run.folder / "model.safetensors"
        assert run.summary["status"] == "finished" and weights.is_file()
