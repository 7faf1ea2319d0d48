"""Own BERT's weights and config as Hugging Face's, and back: names, sizes, and a refusal of what the other
side lacks.

The checkpoint format is that of transformers' BertModel and BertFor… classes (config.json,
model.safetensors).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bertlab.config.schema import validate
from bertlab.errors import ConfigError, did_you_mean
from bertlab.models.bert import GATED, Bert, BertEncoder, intermediate_width

HF_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}
HF_REQUIRED = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
# Ours, theirs, and theirs when their config leaves it out.
HF_OPTIONS = (
    ("vocab_size", "vocab_size", 30522), ("hidden_size", "hidden_size", 768), ("num_hidden_layers",
    "num_hidden_layers", 12),
    ("num_attention_heads", "num_attention_heads", 12), ("intermediate_size", "intermediate_size", 3072),
    ("max_position_embeddings", "max_position_embeddings", 512), ("type_vocab_size", "type_vocab_size", 2),
    ("norm_eps", "layer_norm_eps", 1e-12), ("hidden_dropout", "hidden_dropout_prob", 0.1),
    ("attention_dropout", "attention_probs_dropout_prob", 0.1), ("initializer_range", "initializer_range",
    0.02),
    ("tie_embeddings", "tie_word_embeddings", True),
)  # fmt: skip
HF_EMBEDDINGS = {
    "token": "word_embeddings",
    "position": "position_embeddings",
    "segment": "token_type_embeddings",
}
HF_LAYER = {
    "attention.query": "attention.self.query", "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense", "attention_norm": "attention.output.LayerNorm",
    "feed_forward.input": "intermediate.dense", "feed_forward.output": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}  # fmt: skip


def from_hf_config(hf: Mapping[str, Any]) -> Bert:
    """The config of a Hugging Face BERT's `config.json`. Raises ConfigError naming what there is not BERT."""
    described = {**HF_REQUIRED, "model_type": None, **hf}
    for key, wanted in HF_REQUIRED.items():
        if described[key] != wanted:
            raise ConfigError(
                f"the checkpoint has {key}={described[key]}, own BERT loads only {key}={wanted}: use a"
                " model=hf_* preset"
            )
    act = str(hf.get("hidden_act", "gelu"))
    if act not in HF_ACTIVATIONS:
        raise ConfigError(
            f"the checkpoint has hidden_act={act}, which own BERT lacks: {did_you_mean(act, HF_ACTIVATIONS)}"
        )
    options = {ours: hf.get(theirs, default) for ours, theirs, default in HF_OPTIONS}
    config = Bert(name="bert", activation=HF_ACTIVATIONS[act], **options)
    validate(config)
    return config


def to_hf_config(config: Bert, vocab_size: int, pad_id: int = 0) -> dict[str, Any]:
    """What transformers' BertConfig needs to rebuild `build(config, vocab_size, pad_id)`; ConfigError where
    it cannot.
    """
    require_hf(config)
    hf = {theirs: getattr(config, ours) for ours, theirs, _ in HF_OPTIONS}
    activation = {"gelu_tanh": "gelu_pytorch_tanh"}.get(config.activation, config.activation)
    sizes = {"vocab_size": config.vocab_size or vocab_size, "intermediate_size": intermediate_width(config)}
    return {**hf, **sizes, "model_type": "bert", "hidden_act": activation, "pad_token_id": pad_id}


def split_hf_state(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Encoder and head entries of any Hugging Face BERT checkpoint, under today's names: without `bert.`, no
    gamma and beta.
    """
    encoder: dict[str, Tensor] = {}
    heads: dict[str, Tensor] = {}
    for key, value in state.items():
        name = (
            key.removeprefix("bert.")
            .replace("LayerNorm.gamma", "LayerNorm.weight")
            .replace("LayerNorm.beta", "LayerNorm.bias")
        )
        if name != "embeddings.position_ids":  # a constant that old checkpoints carry
            (encoder if name.startswith(("embeddings.", "encoder.", "pooler.")) else heads)[name] = value
    return encoder, heads


def from_hf_state(
    config: Bert, state: Mapping[str, Tensor], *, allow_missing_pooler: bool = False
) -> dict[str, Tensor]:
    """Our encoder's state dict from a Hugging Face BERT checkpoint's; its heads are left out
    (`split_hf_state` has them).

    Raises ConfigError for missing, unknown and misshapen entries. With `allow_missing_pooler` a checkpoint
    without one (a BertForMaskedLM) gives a state without one: the caller decides where the pooler then comes
    from, and says so.
    """
    require_hf(config)
    encoder, _ = split_hf_state(state)
    has_pooler = "pooler.dense.weight" in encoder
    if config.pooling != "cls":
        encoder = {name: value for name, value in encoder.items() if not name.startswith("pooler.")}
    elif not has_pooler and not allow_missing_pooler and encoder:
        raise ConfigError(
            "the checkpoint has no pooler, which model.pooling=cls needs: take model.pooling=mean or max"
        )
    rows = config.vocab_size or len(encoder.get("embeddings.word_embeddings.weight", ())) or 1
    expected = {
        ours: value
        for ours, value in BertEncoder(config, rows).state_dict().items()
        if has_pooler or "pooler" not in ours
    }
    names = {ours: hf_name(ours) for ours in expected}
    for problem, weights in (
        ("lacks", set(names.values()) - set(encoder)),
        ("also has", set(encoder) - set(names.values())),
    ):
        if weights:
            listed = ", ".join(sorted(weights)[:3]) + (
                f" and {len(weights) - 3} more" if len(weights) > 3 else ""
            )
            raise ConfigError(
                f"the checkpoint is not a BERT of {config.num_hidden_layers} layers: it {problem} {listed}"
            )
    for ours, theirs in names.items():
        if encoder[theirs].shape != expected[ours].shape:
            shapes = f"{tuple(encoder[theirs].shape)}, and the config asks for {tuple(expected[ours].shape)}"
            raise ConfigError(
                f"the checkpoint's {theirs} has shape {shapes}: the model's sizes must be the checkpoint's"
            )
    return {ours: encoder[theirs] for ours, theirs in names.items()}


def to_hf_state(config: Bert, state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The inverse of `from_hf_state`: a BertModel's state dict, or with `prefix="bert."` the encoder's part
    of a BertFor…'s.
    """
    require_hf(config)
    return {prefix + hf_name(ours): value for ours, value in state.items()}


def hf_name(ours: str) -> str:
    """A weight's name there."""
    module, _, kind = ours.rpartition(".")
    if module in HF_EMBEDDINGS:
        return f"embeddings.{HF_EMBEDDINGS[module]}.{kind}"
    if module.startswith("layers."):
        _, index, part = module.split(".", 2)
        return f"encoder.layer.{index}.{HF_LAYER[part]}.{kind}"
    return {"embedding_norm": "embeddings.LayerNorm", "pooler": "pooler.dense"}[module] + f".{kind}"


def unlike_hf(config: Bert) -> list[str]:
    """Every option that Hugging Face's BERT lacks, as `model.key=value`."""
    default = Bert()
    fixed = (
        "embedding_size", "norm_placement",
        "norm", "positions", "global_every", "local_window", "local_rotary_base", "qk_norm",
        "attention_softcap",
        "value_embeddings", "linear_bias", "norm_bias", "embedding_norm", "first_attention_norm",
    )  # fmt: skip
    changed = [
        f"model.{key}={getattr(config, key)}"
        for key in fixed
        if getattr(config, key) != getattr(default, key)
    ]
    return changed + [f"model.activation={config.activation}"] * (config.activation in GATED)


def require_hf(config: Bert) -> None:
    """Raise ConfigError naming every option that Hugging Face's BERT lacks."""
    if changed := unlike_hf(config):
        raise ConfigError(
            f"{', '.join(changed)}: Hugging Face's BERT lacks this, so weights can neither come from it nor"
            " go to it"
        )
