"""Where a run's first weights come from: a dataclass and its `initialize(...)` for each way."""

import dataclasses
import importlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import MISSING, OmegaConf
from torch import nn

from bertlab.checkpoint import load_weights
from bertlab.config import InitConfig, ModelConfig, flag, string
from bertlab.errors import ConfigError, DataError, RunError

MAY_DIFFER = (
    "component", "vocab_size", "attention", "hidden_dropout", "attention_dropout", "embedding_dropout", "tie_embeddings", "pooling",
    "initializer_range", "scaled_residual_init",
)  # fmt: skip
SAME_AS_CHECKPOINT = ("num_attention_heads", "activation", "norm_eps", "hidden_size", "num_hidden_layers", "max_position_embeddings")


@dataclass
class Scratch(InitConfig):
    """Random weights from the run's seed."""

    def initialize(self, model: nn.Module, config: ModelConfig, module: ModuleType, tokenizer: str) -> None:
        """Nothing to do: the model was built with random weights."""


@dataclass
class Checkpoint(InitConfig):
    """Weights of another run of ours."""

    path: str = string(MISSING, "run folder, or the model.safetensors of one")
    head: bool = flag(False, "take the head's weights too; without it the head starts at random")

    def initialize(self, model: nn.Module, config: ModelConfig, module: ModuleType, tokenizer: str) -> None:
        """Copy the encoder's (and the head's) weights. Raises RunError naming the first thing that does not fit."""
        path = Path(self.path).expanduser()
        if not path.exists():
            raise RunError(f"init.path={self.path}: no such run folder or file")
        if (path / "config.yaml").is_file():
            self._check_run(path, config, tokenizer)
        weights = load_weights(path / "model.safetensors" if path.is_dir() else path)
        if not self.head:
            weights = {name: value for name, value in weights.items() if name.startswith("encoder.")}
        own = model.state_dict()
        expected = [name for name in own if self.head or name.startswith("encoder.")]
        for name in expected:
            if name not in weights:
                raise RunError(f"init.path={self.path}: it has no weight '{name}'; is it a run of the same model?")
            if weights[name].shape != own[name].shape:
                raise RunError(
                    f"init.path={self.path}: '{name}' has shape {tuple(weights[name].shape)}, this model {tuple(own[name].shape)}; "
                    "model and tokenizer must be those of that run"
                )
        model.load_state_dict({name: weights[name] for name in expected}, strict=False)

    def _check_run(self, path: Path, config: ModelConfig, tokenizer: str) -> None:
        """Weights whose shapes fit may still mean something else: other heads, other positions, other words behind the ids."""
        theirs: Any = OmegaConf.load(path / "config.yaml")
        for key, value in dataclasses.asdict(config).items():
            if key not in MAY_DIFFER and theirs.model.get(key, value) != value:
                raise RunError(f"init.path={self.path}: that run has model.{key}={theirs.model[key]}, this one {value}; set model.{key}")
        if (path / "tokenizer.json").read_text(encoding="utf-8") != tokenizer:
            raise RunError(
                f"init.path={self.path}: that run has another vocabulary; take it: tokenizer=pretrained tokenizer.path={self.path}"
            )


@dataclass
class Pretrained(InitConfig):
    """Weights of a Hugging Face BERT checkpoint in our own encoder; the model's sizes must be the checkpoint's."""

    path: str = string(MISSING, "folder with config.json and model.safetensors")

    def initialize(self, model: nn.Module, config: ModelConfig, module: ModuleType, tokenizer: str) -> None:
        """Map the checkpoint's names to ours and copy. Raises DataError or ConfigError naming what does not fit."""
        name = module.__name__.rpartition(".")[2]
        if importlib.util.find_spec(f"bertlab.models._{name}_hf") is None:
            raise ConfigError(f"init=pretrained: model={name} has no Hugging Face counterpart; use model=bert")
        interchange = importlib.import_module(f"bertlab.models._{name}_hf")
        folder = Path(self.path).expanduser()
        for file in ("config.json", "model.safetensors"):
            if not (folder / file).is_file():
                raise DataError(f"init.path={self.path}: there is no {file}; it must be a folder with a BERT checkpoint")
        try:
            described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"init.path={self.path}: {folder / 'config.json'} is not JSON ({error})") from None
        theirs = interchange.from_hf_config(described)
        for key in SAME_AS_CHECKPOINT:
            if getattr(config, key) != getattr(theirs, key):
                raise ConfigError(
                    f"model.{key}={getattr(config, key)} is not the checkpoint's {getattr(theirs, key)} (init.path={self.path}); "
                    f"set model.{key}"
                )
        weights = load_weights(folder / "model.safetensors")
        encoder = model.get_submodule("encoder")
        mapped, own = interchange.from_hf_state(config, weights), encoder.state_dict()
        for key, value in mapped.items():
            if value.shape != own[key].shape:
                raise ConfigError(
                    f"init.path={self.path}: the checkpoint's '{key}' has shape {tuple(value.shape)}, this model's "
                    f"{tuple(own[key].shape)}; take its own vocabulary: tokenizer=pretrained tokenizer.path={self.path}"
                )
        encoder.load_state_dict(mapped)
