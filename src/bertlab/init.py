"""Where a run's first weights come from: a dataclass and its `initialize(...)` for each way."""

import importlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from omegaconf import MISSING
from torch import nn

from bertlab.checkpoint import load_weights
from bertlab.config import InitConfig, ModelConfig, flag, string
from bertlab.errors import ConfigError, DataError, RunError

SAME_AS_CHECKPOINT = ("num_attention_heads", "activation", "norm_eps", "hidden_size", "num_hidden_layers", "max_position_embeddings")


@dataclass
class Scratch(InitConfig):
    """Random weights from the run's seed."""

    def initialize(self, model: nn.Module, config: ModelConfig, module: ModuleType) -> None:
        """Nothing to do: the model was built with random weights."""


@dataclass
class Checkpoint(InitConfig):
    """Weights of another run of ours."""

    path: str = string(MISSING, "run folder, or the model.safetensors of one")
    head: bool = flag(False, "take the head's weights too; without it the head starts at random")

    def initialize(self, model: nn.Module, config: ModelConfig, module: ModuleType) -> None:
        """Copy the encoder's (and the head's) weights. Raises RunError naming the first weight that does not fit."""
        path = Path(self.path).expanduser()
        if not path.exists():
            raise RunError(f"init.path={self.path}: no such run folder or file")
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


@dataclass
class Pretrained(InitConfig):
    """Weights of a Hugging Face BERT checkpoint in our own encoder; the model's sizes must be the checkpoint's."""

    path: str = string(MISSING, "folder with config.json and model.safetensors")

    def initialize(self, model: nn.Module, config: ModelConfig, module: ModuleType) -> None:
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
