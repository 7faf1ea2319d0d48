"""Hugging Face checkpoints as weights of our encoder, where its options hold their architecture: BERT,
RoBERTa, ELECTRA, ModernBERT.

Each family has two functions: its config.json as our options, and its weights under our names. What lies
beyond our options is refused by name. Sources: Devlin et al. 2019; Liu et al. 2019, RoBERTa; Clark et al.
2020, ELECTRA; Warner et al. 2024, ModernBERT.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from bertlab.config.schema import validate
from bertlab.contracts import Encoder
from bertlab.errors import ConfigError, DataError
from bertlab.models._bert_hf import from_hf_config, from_hf_state, hf_name
from bertlab.models.bert import Bert, BertEncoder, intermediate_width
from bertlab.runs.files import check_weights, load_weights

State = Mapping[str, Tensor]
Described = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one `model_type` are read."""

    prefix: str  # of the encoder's weights, where a head stands beside it
    config: Callable[[Described], Bert]
    # (config.json, our config, weights without prefix)
    state: Callable[[Described, Bert, State], dict[str, Tensor]]


# --- RoBERTa --------------------------------------------------------------------------------------
def roberta_config(described: Described) -> Bert:
    """BERT's, with one segment; the first positions, up to the padding id's, are no text's."""
    given = {
        "vocab_size": 50265,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        **described,
    }
    reach = int(given.get("max_position_embeddings", 512)) - _first_position(given)
    return from_hf_config({**given, "model_type": "bert", "max_position_embeddings": reach})


def roberta_state(described: Described, config: Bert, state: State) -> dict[str, Tensor]:
    """BERT's, with the positions of text alone."""
    table, found = "embeddings.position_embeddings.weight", dict(state)
    if table in found:
        found[table] = found[table][_first_position(described) :]
    return from_hf_state(config, found)


def _first_position(described: Described) -> int:
    return int(described.get("pad_token_id", 1)) + 1


# --- ELECTRA --------------------------------------------------------------------------------------
def electra_config(described: Described) -> Bert:
    """BERT's, with embeddings of a width of their own."""
    given = {
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "embedding_size": 128,
        **described,
    }
    narrow = None if given["embedding_size"] == given["hidden_size"] else int(given["embedding_size"])
    return dataclasses.replace(from_hf_config({**given, "model_type": "bert"}), embedding_size=narrow)


def electra_state(_described: Described, config: Bert, state: State) -> dict[str, Tensor]:
    """BERT's names, and the projection of the embeddings."""
    return _named(
        config,
        {name: value for name, value in state.items() if not name.startswith("embeddings.position_ids")},
        _electra_name,
    )


def _electra_name(ours: str) -> str:
    return (
        ours.replace("embedding_projection", "embeddings_project")
        if ours.startswith("embedding_projection")
        else hf_name(ours)
    )


# --- ModernBERT -----------------------------------------------------------------------------------
def modernbert_config(described: Described) -> Bert:
    """Rotary positions, norms before sublayers, gated layers, local and global attention in turn, no
    segments.
    """
    layers = int(described.get("num_hidden_layers", 22))
    every = _global_every(described, layers)
    local = every > 1
    bases = {kind: _rotary_base(described, kind) for kind in ("full_attention", "sliding_attention")}
    if (act := described.get("hidden_activation", "gelu")) not in ("gelu", "silu"):
        raise ConfigError(
            f"the checkpoint has hidden_activation={act}; own BERT's gated activations are geglu (gelu) and"
            " swiglu (silu)"
        )
    if described.get("attention_bias", False) != described.get("mlp_bias", False):
        raise ConfigError(
            "the checkpoint has attention_bias unlike mlp_bias, own BERT one model.linear_bias for both: use"
            " a model=hf_* preset"
        )
    return Bert(
        name="bert", vocab_size=described.get("vocab_size", 50368), hidden_size=described.get("hidden_size",
        768), num_hidden_layers=layers,
        num_attention_heads=described.get("num_attention_heads", 12),
        intermediate_size=described.get("intermediate_size", 1152),
        max_position_embeddings=described.get("max_position_embeddings", 8192), type_vocab_size=1,
        norm_placement="pre",
        norm_eps=described.get("norm_eps", 1e-5), norm_bias=described.get("norm_bias", False),
        activation="geglu" if act == "gelu" else "swiglu", positions="rotary",
        rotary_base=bases["full_attention"], global_every=every,
        local_window=described.get("local_attention", 128) if local else None,
        local_rotary_base=bases["sliding_attention"] if local else None, linear_bias=described.get("mlp_bias",
        False),
        first_attention_norm=False, hidden_dropout=described.get("mlp_dropout", 0.0),
        attention_dropout=described.get("attention_dropout", 0.0),
        embedding_dropout=described.get("embedding_dropout", 0.0),
        initializer_range=described.get("initializer_range", 0.02),
        tie_embeddings=described.get("tie_word_embeddings", True),
    )  # fmt: skip


def _global_every(described: Described, layers: int) -> int:
    """Every how many layers attention is global, of either way to say so."""
    kinds = described.get("layer_types")
    if kinds is None:
        return int(described.get("global_attn_every_n_layers", 3))
    every = next((index for index in range(1, layers) if kinds[index] == "full_attention"), layers + 1)
    if kinds != ["sliding_attention" if index % every else "full_attention" for index in range(layers)]:
        raise ConfigError(
            "the checkpoint's layer_types are no pattern of model.global_every, from the first layer on: use"
            " model=hf_*"
        )
    return every


def _rotary_base(described: Described, kind: str) -> float:
    """The longest wavelength / 2 pi, of either way to say so."""
    older, default = {
        "full_attention": ("global_rope_theta", 160_000.0),
        "sliding_attention": ("local_rope_theta", 10_000.0),
    }[kind]
    told = (described.get("rope_parameters") or {}).get(kind) or {}
    if (way := told.get("rope_type", "default")) != "default":
        raise ConfigError(
            f"the checkpoint has rope_type={way}, own BERT's positions=rotary are the plain ones: use a"
            " model=hf_* preset"
        )
    return float(told.get("rope_theta") or described.get(older) or default)


def modernbert_state(_described: Described, config: Bert, state: State) -> dict[str, Tensor]:
    """Queries, keys and values apart; the segment that there is not is zero."""
    found = dict(state)
    for name in [name for name in found if ".attn.Wqkv." in name]:
        for part, value in zip(("query", "key", "value"), found.pop(name).chunk(3), strict=True):
            found[name.replace("Wqkv", part)] = value
    return {
        **_named(config, found, _modernbert_name, lacking=("segment.weight",)),
        "segment.weight": torch.zeros(1, config.hidden_size),
    }


MODERN_NAMES = {
    "token": "embeddings.tok_embeddings", "embedding_norm": "embeddings.norm", "final_norm": "final_norm",
    "attention.query": "attn.query",
    "attention.key": "attn.key", "attention.value": "attn.value", "attention.output": "attn.Wo",
    "attention_norm": "attn_norm",
    "feed_forward.input": "mlp.Wi", "feed_forward.output": "mlp.Wo", "feed_forward_norm": "mlp_norm",
    "pooler": "pooler",
}  # fmt: skip


def _modernbert_name(ours: str) -> str:
    module, _, kind = ours.rpartition(".")
    if module.startswith("layers."):
        _, index, part = module.split(".", 2)
        return f"layers.{index}.{MODERN_NAMES[part]}.{kind}"
    return f"{MODERN_NAMES[module]}.{kind}"


# --- our own exports ------------------------------------------------------------------------------
def own_config(described: Described) -> Bert:
    """Of a folder that `bertlab export` wrote with code, which is not run: the options stand in config.json
    as they are.
    """
    options = {
        option.name: described[option.name] for option in dataclasses.fields(Bert) if option.name in described
    }
    return Bert(**{**options, "name": "bert"})


def own_state(_described: Described, config: Bert, state: State) -> dict[str, Tensor]:
    """Our own names."""
    weights = {
        name: value
        for name, value in state.items()
        if config.pooling == "cls" or not name.startswith("pooler.")
    }
    return _named(config, weights, lambda ours: ours)


# --- all of them ----------------------------------------------------------------------------------
ROBERTA = Family("roberta.", roberta_config, roberta_state)
FAMILIES = {
    "bert": Family("bert.", from_hf_config, lambda _described, config, state: from_hf_state(config, state)),
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "electra": Family("electra.", electra_config, electra_state),
    "modernbert": Family("model.", modernbert_config, modernbert_state),
    "bertlab": Family("encoder.", own_config, own_state),
}


def _named(
    config: Bert, state: State, name_of: Callable[[str], str], lacking: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """Our encoder's state out of weights that `name_of` names. Raises ConfigError for missing, unknown and
    misshapen ones.
    """
    expected = {
        ours: value
        for ours, value in BertEncoder(config, config.vocab_size or 1).state_dict().items()
        if ours not in lacking
    }
    if config.pooling == "cls" and name_of("pooler.weight") not in state:
        raise ConfigError(
            "the checkpoint has no pooler, which model.pooling=cls needs: take model.pooling=mean or max"
        )
    names = {ours: name_of(ours) for ours in expected}
    for problem, found in (
        ("lacks", set(names.values()) - set(state)),
        ("also has", set(state) - set(names.values())),
    ):
        if found:
            raise ConfigError(
                f"the checkpoint does not fit its own config.json: it {problem}"
                f" {', '.join(sorted(found)[:3])}"
            )
    for ours, theirs in names.items():
        if state[theirs].shape != expected[ours].shape:
            raise ConfigError(
                f"the checkpoint's {theirs} has shape {tuple(state[theirs].shape)}, its config.json"
                f" {tuple(expected[ours].shape)}"
            )
    return {ours: state[theirs] for ours, theirs in names.items()}


def config_of(described: Described, asked: str) -> Bert:
    """The options of ours that a checkpoint's config.json means. Raises ConfigError naming what is beyond
    them.
    """
    kind = described.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ConfigError(
            f"{asked}: the checkpoint has model_type={kind}; own BERT loads {', '.join(FAMILIES)}: use a"
            " model=hf_* preset for others"
        )
    try:
        config = FAMILIES[kind].config(described)
        validate(config)
        _check_types(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{asked}: its config.json is damaged ({type(error).__name__}: {str(error)[:120]})"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{asked}: {error}") from None
    return config


def _check_types(config: Bert) -> None:
    """Raises TypeError for an option of another type than ours has."""
    for item in dataclasses.fields(config):
        kinds, value = get_args(item.type) or (item.type,), getattr(config, item.name)
        known = (*kinds, int) if float in kinds else kinds
        if not isinstance(value, known) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError(f"{item.name} is {str(value)[:40]!r}")


def differences(config: Bert, theirs: Bert) -> list[str]:
    """`model.key=value` of each option that must become the checkpoint's."""
    wanted, found = (
        {**dataclasses.asdict(one), "intermediate_size": intermediate_width(one)} for one in (theirs, config)
    )
    changed = [key for key, value in wanted.items() if key not in config.may_differ() and found[key] != value]
    return [f"model.{key}={_word(wanted[key])}" for key in changed]


def _word(value: Any) -> str:
    return (
        {None: "null", True: "true", False: "false"}.get(value, str(value))
        if value is None or isinstance(value, bool)
        else str(value)
    )


def load_pretrained(encoder: Encoder, config: Bert, folder: Path, asked: str) -> None:
    """Fill the encoder from a folder with config.json and model.safetensors. Raises UserError naming what
    does not fit.
    """
    for file in ("config.json", "model.safetensors"):
        if not (folder / file).is_file():
            raise DataError(
                f"{asked}: there is no {file}; it must be a folder with a checkpoint of Hugging Face's"
            )
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(described, dict):
            raise ValueError("no object with named fields")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{asked}: {folder / 'config.json'} is not JSON ({error})") from None
    theirs = config_of(described, asked)
    if changed := differences(config, theirs):
        raise ConfigError(
            f"{asked}: the checkpoint has other options than this model; set {' '.join(changed)}"
        )
    family = FAMILIES[described["model_type"]]
    weights = load_weights(folder / "model.safetensors")
    if any(name.startswith(family.prefix) for name in weights):  # a head stands beside the encoder
        weights = {
            name.removeprefix(family.prefix): value
            for name, value in weights.items()
            if name.startswith(family.prefix)
        }
    mapped = family.state(described, dataclasses.replace(config, vocab_size=theirs.vocab_size), weights)
    own = encoder.state_dict()
    for key, value in mapped.items():
        if value.shape != own[key].shape:
            raise ConfigError(
                f"{asked}: the checkpoint's '{key}' has shape {tuple(value.shape)}, this model's"
                f" {tuple(own[key].shape)}; take its own vocabulary: tokenizer=inherited, and if that has"
                f" fewer tokens than rows, model.vocab_size={theirs.vocab_size}"
            )
    check_weights(mapped, own, asked)
    encoder.load_state_dict(mapped)
