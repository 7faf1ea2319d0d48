"""Any encoder that transformers' `AutoModel` opens (BERT, RoBERTa, DistilBERT, ELECTRA, ModernBERT, DeBERTa
…) behind our own call.

`init=pretrained` takes its weights, `init=scratch` draws new ones for the same architecture. No code from a
hub is ever run, and only safetensors are read.

Differs: a pair of texts is joined by one separator in every architecture (RoBERTa was pretrained with two).

Legend: B batch, T tokens, D width.
"""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING
from safetensors import safe_open
from torch import Tensor, nn

from bertlab.config.hub import resolve
from bertlab.config.schema import ModelConfig, Train, choice, number, string
from bertlab.contracts import Encoder
from bertlab.errors import ConfigError, DataError
from bertlab.runs.files import check_weights, file_digest

HIDDEN_DROPOUT = (
    "hidden_dropout_prob",
    "dropout",
    "mlp_dropout",
    "embedding_dropout",
)  # what architectures call it
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")  # what architectures call their number
MOST_LAYERS = 1000
ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")


@dataclass
class Hf(ModelConfig):
    """A Hugging Face encoder by its hub name or folder."""

    name_or_path: str = string(MISSING, "hub name, or a folder with config.json and model.safetensors")
    attention: str = choice(
        "auto",
        "auto",
        "sdpa",
        "eager",
        help="torch's fused attention, plain matrix products; auto: the fused one if it can",
    )
    hidden_dropout: float | None = number(
        None, "dropout of hidden states; null = as its config says", low=0, below=1
    )
    attention_dropout: float | None = number(
        None, "dropout of attention weights; null = as its config says", low=0, below=1
    )

    def build(self, vocab_size: int, pad_id: int = 0) -> "HfEncoder":
        """See `build`."""
        return build(self, vocab_size, pad_id)

    def hub_name(self) -> str:
        """What it opens."""
        return self.name_or_path

    def load_pretrained(self, encoder: Encoder, folder: Path, asked: str) -> None:
        """See `load_pretrained`."""
        assert isinstance(encoder, HfEncoder)
        load_pretrained(encoder, self, folder)

    def unlike_transformers(self) -> list[str]:
        """It is one of theirs."""
        return []

    def may_differ(self) -> frozenset[str]:
        """What changes no weight's meaning."""
        return super().may_differ() | {"attention", "hidden_dropout", "attention_dropout"}

    def free_in_pretraining(self) -> tuple[str, ...]:
        """What leaves weights as they are."""
        return ("attention", "hidden_dropout", "attention_dropout")

    def deciding(self) -> dict[str, Any]:
        """A folder is known by its config.json, wherever it lies."""
        return super().deciding() | (
            {"name_or_path": "folder"} if Path(self.name_or_path).expanduser().exists() else {}
        )

    def inputs(self, _run: Train) -> dict[str, str]:
        """Its architecture."""
        return {"model": file_digest(resolve(self.name_or_path, "model.name_or_path") / "config.json")}


class HfEncoder(Encoder):
    """See contracts.Encoder."""

    config: Hf

    def __init__(self, config: Hf, described: Any) -> None:
        super().__init__(config)
        transformers = transformers_module("model=hf_*")
        self.described = described
        self.model = transformers.AutoModel.from_config(
            described, trust_remote_code=False, **_attention(config)
        )
        self.hidden_size = int(described.hidden_size)
        # What architectures have, each says in its own config.json and its own modules: there is no other
        # contract to ask.
        stated, modules = described.to_dict(), dict(self.model.named_children())
        self.longest = _longest(stated)
        self.norm_eps = float(stated.get("layer_norm_eps", stated.get("norm_eps", 1e-12)))
        self.tie_embeddings = bool(stated.get("tie_word_embeddings", True))
        takes = inspect.signature(self.model.forward).parameters
        self.takes_segments = "token_type_ids" in takes and stated.get("type_vocab_size", 0) > 1
        self.has_pooler = config.pooling == "cls" and "pooler" in modules
        if "pooler" in modules and not self.has_pooler:
            self.model.pooler = None

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pooled_only: bool = False,
    ) -> Tensor:
        """To `hidden (B, T, D)`."""
        mask = (
            None
            if attention_mask is None
            else attention_mask[:, None]
            if attention_mask.ndim == 3
            else attention_mask.long()
        )
        segments = {"token_type_ids": segment_ids} if self.takes_segments and segment_ids is not None else {}
        hidden: Tensor = self.model(input_ids=input_ids, attention_mask=mask, **segments).last_hidden_state
        return hidden

    def pool_first(self, hidden: Tensor) -> Tensor:
        """Its own pooler, or the first token where it has none."""
        pooled: Tensor = self.model.pooler(hidden) if self.has_pooler else hidden[:, 0]
        return pooled

    def dense_pooler(self) -> nn.Linear | None:
        """None where the first token is taken as it is. Raises ConfigError for a pooler, whose layers only
        the architecture knows.
        """
        if self.has_pooler:
            raise ConfigError(
                f"{self.described.model_type}'s pooler cannot stand outside its model: train with"
                " model.pooling=mean or max"
            )
        return None

    def token_weight(self) -> Tensor:
        """The token embedding matrix `(V, E)`; E is D but for factorised embeddings (ELECTRA)."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    def levels(self) -> list[list[nn.Parameter]]:
        """The weights from bottom to top: embeddings, each layer, and what stands on them."""
        layers = [list(layer.parameters()) for layer in self._layers()]
        inside = {weight for layer in layers for weight in layer}
        outside = {name: weight for name, weight in self.named_parameters() if weight not in inside}
        bottom = [weight for name, weight in outside.items() if "embed" in name]
        return [bottom, *layers, [weight for name, weight in outside.items() if "embed" not in name]]

    def hidden_matrices(self) -> set[nn.Parameter]:
        """Those of the layers."""
        return {weight for layer in self._layers() for weight in layer.parameters() if weight.ndim >= 2}

    def redraw(self, layers: int) -> None:
        """Fresh weights for so many layers from the top and for what stands on them. Raises ConfigError where
        there are fewer.
        """
        if layers > len(self._layers()):
            raise ConfigError(f"finetune.reinit_layers={layers}: the model has {len(self._layers())} layers")
        drawn = {weight for level in self.levels()[-1 - layers :] for weight in level}
        for module in self.model.modules():
            own = list(module.parameters(recurse=False))
            if own and drawn.issuperset(own):
                for weight in own:
                    weight._is_hf_initialized = False  # transformers draws only what is not marked
                self.model._init_weights(module)

    def _layers(self) -> list[nn.Module]:
        count = int(self.described.num_hidden_layers)
        stacks = [
            module
            for module in self.model.modules()
            if isinstance(module, nn.ModuleList) and len(module) == count
        ]
        if not stacks:
            raise ConfigError(
                f"model={self.config.name}: {type(self.model).__name__} does not tell its layers"
            )
        return list(stacks[0])

    def save_description(self, folder: Path) -> bool:
        """The architecture's config.json, from which the encoder is built again without its hub or folder."""
        (folder / "config.json").write_text(
            json.dumps(self.described.to_dict(), indent=2, default=str) + "\n", encoding="utf-8"
        )
        return True


def build(config: Hf, vocab_size: int, _pad_id: int = 0) -> HfEncoder:
    """The architecture with fresh weights from torch's generator. Raises ConfigError or DataError for what
    cannot be opened.
    """
    described = _described(config)
    stated = described.to_dict()
    for value, names in (
        (config.hidden_dropout, HIDDEN_DROPOUT),
        (config.attention_dropout, ATTENTION_DROPOUT),
    ):
        for name in names if value is not None else ():
            if name in stated:
                setattr(described, name, value)
    try:
        if (tokens := int(described.vocab_size)) < vocab_size:
            raise ConfigError(
                f"the tokenizer has {vocab_size} tokens, {config.name_or_path} {tokens}; take its own:"
                " tokenizer=inherited"
            )
        _check_layers(stated)
        encoder = HfEncoder(config, described)
        _try(encoder)
        return encoder
    except ConfigError:
        raise
    except Exception as error:  # of whatever its config.json says, in libraries that are not ours
        raise ConfigError(
            f"model.name_or_path={config.name_or_path}: not an encoder that can be built ({_line(error)})"
        ) from error


def _check_layers(stated: dict[str, Any]) -> None:
    """Libraries build until memory is full. Raises ValueError for more layers than any model has."""
    for name in LAYERS:
        if isinstance(stated.get(name), int) and not 0 <= stated[name] <= MOST_LAYERS:
            raise ValueError(f"{name}={stated[name]}")


@torch.no_grad()
def _try(encoder: HfEncoder) -> None:
    """Two tokens there and back, without dropout: what is no encoder of texts raises its own errors here."""
    encoder.eval()
    ids = torch.ones(1, min(2, encoder.longest or 2), dtype=torch.long)
    shape = encoder(ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool)).shape
    if tuple(shape) != (*ids.shape, encoder.hidden_size):
        raise ValueError(f"{tuple(ids.shape)} tokens became {tuple(shape)} numbers")
    encoder.train()


def load_pretrained(encoder: HfEncoder, config: Hf, folder: Path) -> None:
    """Copy the checkpoint's weights. What it lacks (a pooler) keeps its fresh ones. Raises DataError where it
    cannot be read.
    """
    transformers = transformers_module("model=hf_*")
    try:
        loaded, report = transformers.AutoModel.from_pretrained(
            folder,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
            **_attention(config),
        )
    except Exception as error:  # of several libraries, none of them ours
        raise DataError(f"init=pretrained: {folder}: its weights cannot be read ({_line(error)})") from error
    missing = set(report["missing_keys"])
    lacking = sorted(name for name in missing if not name.startswith("pooler."))
    if lacking:
        raise DataError(
            f"init=pretrained: {folder} lacks the weight"
            f" {lacking[0]}{f' and {len(lacking) - 1} more' * (len(lacking) > 1)}"
        )
    own = encoder.model.state_dict()
    _check_kinds(folder, own)
    taken = {
        name: value for name, value in loaded.state_dict().items() if name in own and name not in missing
    }
    check_weights(taken, own, f"init=pretrained: {folder}")
    encoder.model.load_state_dict({**own, **taken})


def _check_kinds(folder: Path, own: dict[str, Tensor]) -> None:
    """Refuse whole or complex numbers in the place of real ones, which transformers casts without a word.

    Raises DataError naming the first.
    """
    real = {name for name, value in own.items() if value.is_floating_point()}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118  # no mapping
                kind = weights.get_slice(name).get_dtype()
                is_ours = any(f".{name}".endswith(f".{ours}") for ours in real)
                if is_ours and not kind.startswith(("F", "BF")):
                    raise DataError(
                        f"init=pretrained: {file}: '{name}' holds {kind}, where this model has real numbers"
                    )


def _described(config: Hf) -> Any:
    transformers = transformers_module("model=hf_*")
    folder = resolve(config.name_or_path, "model.name_or_path")
    try:
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of several libraries, none of them ours
        raise DataError(
            f"model.name_or_path={config.name_or_path}: its config.json cannot be read ({_line(error)})"
        ) from error


def _longest(stated: dict[str, Any]) -> int | None:
    """Tokens that its positions reach; RoBERTa's begin after the padding id."""
    longest = stated.get("max_position_embeddings")
    offset = (
        stated["pad_token_id"] + 1 if stated["model_type"] in ("roberta", "xlm-roberta", "camembert") else 0
    )
    return None if longest is None else int(longest) - offset


def _attention(config: Hf) -> dict[str, str]:
    return {} if config.attention == "auto" else {"attn_implementation": config.attention}


def transformers_module(needed_by: str) -> Any:
    """The library, quiet. Raises ConfigError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise ConfigError(f"{needed_by} needs transformers: pip install 'bertlab[hf]'") from None
    module: Any = transformers
    module.logging.set_verbosity_error()
    module.utils.logging.disable_progress_bar()
    return module


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
