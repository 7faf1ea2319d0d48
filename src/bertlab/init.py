"""Where a run's first weights come from: a dataclass and its `initialize(...)` for each way."""

import dataclasses
import importlib
import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from bertlab.checkpoint import load_weights
from bertlab.config import (
    Budget,
    DatasetConfig,
    Evaluation,
    InitConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    TokenizerConfig,
    Train,
    flag,
    integer,
    mapping,
    string,
)  # fmt: skip
from bertlab.errors import ConfigError, DataError, RunError, did_you_mean
from bertlab.hub import resolve

MAY_DIFFER = (
    "component", "vocab_size", "attention", "hidden_dropout", "attention_dropout", "embedding_dropout", "tie_embeddings", "pooling",
    "initializer_range", "scaled_residual_init",
)  # fmt: skip
FREE_IN_PRETRAINING = ("attention", "hidden_dropout", "attention_dropout", "embedding_dropout")
SAME_AS_CHECKPOINT = ("num_attention_heads", "activation", "norm_eps", "hidden_size", "num_hidden_layers", "max_position_embeddings")


@dataclass
class Scratch(InitConfig):
    """Random weights from the run's seed."""

    def source(self, run: Train) -> Path | None:
        """Of a Hugging Face architecture, where its tokenizer lies."""
        name = getattr(run.model, "name_or_path", None)
        return None if name is None else resolve(name, "model.name_or_path")

    def initialize(self, model: nn.Module, config: ModelConfig, module: ModuleType, tokenizer: str, source: Path | None) -> None:
        """Nothing to do: the model was built with random weights."""


@dataclass
class Checkpoint(InitConfig):
    """Weights of another run of ours."""

    path: str = string(MISSING, "run folder, or the model.safetensors of one")
    head: bool = flag(False, "take the head's weights too; without it the head starts at random")

    def source(self, _run: Train) -> Path:
        """The run folder or file."""
        return Path(self.path).expanduser()

    def initialize(self, model: nn.Module, config: ModelConfig, module: ModuleType, tokenizer: str, source: Path | None) -> None:
        """Copy the encoder's (and the head's) weights. Raises RunError naming the first thing that does not fit."""
        load_from_run(Path(self.path).expanduser(), model, config, tokenizer, self.head, f"init.path={self.path}")


@dataclass
class Stage(InitConfig):
    """Weights of a pretraining run described in place. It is computed once, as a run of its own, and shared by all that describe it."""

    dataset: DatasetConfig = MISSING
    tokenizer: TokenizerConfig = MISSING
    objective: ObjectiveConfig = MISSING
    init: InitConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    schedule: ScheduleConfig = MISSING
    budget: Budget = MISSING
    evaluation: Evaluation = field(default_factory=Evaluation)
    model: dict[str, Any] = mapping("keys of the run's model that differ in pretraining, e.g. hidden_dropout")
    seed: int = integer(0, "the pretraining's seed; one pretraining serves all seeds of the run", low=0, high=2**31 - 1)
    head: bool = flag(False, "take the head's weights too, where both have the same objective")

    def stage(self, run: Train) -> Train:
        """The pretraining as a run: this config, with the model, machine, folders and tracker of the run that needs it."""
        known = [item.name for item in dataclasses.fields(run.model) if item.name in FREE_IN_PRETRAINING]
        if unknown := [key for key in self.model if key not in known]:
            raise ConfigError(f"init.model.{unknown[0]}: not a key that may differ in pretraining, {did_you_mean(unknown[0], known)}")
        if self.head and self.objective.name != run.objective.name:
            raise ConfigError(f"init.head=true: the head of {self.objective.name} does not fit objective={run.objective.name}")
        try:
            model: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(run.model), self.model))
        except OmegaConfBaseException as error:
            raise ConfigError(f"init.model.{error.key}: {str(error).splitlines()[0]}") from None
        shared = {name: getattr(run, name) for name in ("compute", "tracker", "paths", "tags")}
        own = {name: getattr(self, name) for name in ("dataset", "tokenizer", "objective", "init", "optimizer", "schedule", "budget")}
        return Train(model=model, evaluation=self.evaluation, seed=self.seed, **own, **shared)

    def initialize(self, model: nn.Module, config: ModelConfig, module: ModuleType, tokenizer: str, source: Path | None) -> None:
        """Copy the encoder's (and the head's) weights. Raises RunError naming the first thing that does not fit."""
        assert source is not None
        load_from_run(source, model, config, tokenizer, self.head, "init=stage")


def load_from_run(path: Path, model: nn.Module, config: ModelConfig, tokenizer: str, head: bool, asked: str) -> None:
    """Copy the encoder's (and the head's) weights out of a run. Raises RunError naming the first thing that does not fit."""
    if not path.exists():
        raise RunError(f"{asked}: no such run folder or file")
    if (path / "config.yaml").is_file():
        _check_run(path, config, tokenizer, asked)
    weights = load_weights(path / "model.safetensors" if path.is_dir() else path)
    if not head:
        weights = {name: value for name, value in weights.items() if name.startswith("encoder.")}
    own = model.state_dict()
    expected = [name for name in own if head or name.startswith("encoder.")]
    for name in expected:
        if name not in weights:
            raise RunError(f"{asked}: it has no weight '{name}'; is it a run of the same model?")
        if weights[name].shape != own[name].shape:
            raise RunError(
                f"{asked}: '{name}' has shape {tuple(weights[name].shape)}, this model {tuple(own[name].shape)}; "
                "model and tokenizer must be those of that run"
            )
    model.load_state_dict({name: weights[name] for name in expected}, strict=False)


def _check_run(path: Path, config: ModelConfig, tokenizer: str, asked: str) -> None:
    """Weights whose shapes fit may still mean something else: other heads, other positions, other words behind the ids."""
    try:
        theirs: Any = OmegaConf.load(path / "config.yaml")
        vocabulary = (path / "tokenizer.json").read_text(encoding="utf-8")
    except Exception as error:  # missing files and broken YAML of many kinds
        raise RunError(f"{asked}: it is damaged ({str(error).splitlines()[0]})") from error
    if not OmegaConf.is_dict(theirs) or not OmegaConf.is_dict(theirs.get("model")):
        raise RunError(f"{asked}: it is damaged (its config.yaml has no model)")
    for key, value in dataclasses.asdict(config).items():
        if key not in MAY_DIFFER and theirs.model.get(key, value) != value:
            raise RunError(f"{asked}: that run has model.{key}={theirs.model[key]}, this one {value}; set model.{key}")
    if vocabulary != tokenizer:
        raise RunError(f"{asked}: that run has another vocabulary; take it: tokenizer=inherited")


def tokenizer_file(source: Path) -> Path:
    """The tokenizer beside weights: in their folder. Raises DataError where there is none."""
    file = (source if source.is_dir() else source.parent) / "tokenizer.json"
    if not file.is_file():
        raise DataError(f"tokenizer=inherited: {source} has no tokenizer.json beside it")
    return file


@dataclass
class Pretrained(InitConfig):
    """Weights of a Hugging Face checkpoint: of any architecture with model=hf_*, of a BERT in our own encoder."""

    path: str | None = string(None, "folder with config.json and model.safetensors, or a hub name; null = model.name_or_path")

    def check(self, path: str) -> None:
        """An empty path would be the current folder."""
        if self.path == "":
            raise ConfigError(f"{path}.path is empty; name a folder or a hub model")

    def source(self, run: Train) -> Path:
        """The checkpoint's folder. Raises ConfigError where nothing names one."""
        if self.path is not None:
            return resolve(self.path, "init.path")
        name = getattr(run.model, "name_or_path", None)
        if name is None:
            raise ConfigError("init.path: required, but not set; add init.path=FOLDER to the command line")
        return resolve(name, "model.name_or_path")

    def initialize(self, model: nn.Module, config: ModelConfig, module: ModuleType, tokenizer: str, source: Path | None) -> None:
        """Copy its weights, under our names. Raises DataError or ConfigError naming what does not fit."""
        assert source is not None
        if hasattr(module, "load_pretrained"):
            module.load_pretrained(model.get_submodule("encoder"), config, source)
            return
        name = module.__name__.rpartition(".")[2]
        if importlib.util.find_spec(f"bertlab.models._{name}_hf") is None:
            raise ConfigError(f"init=pretrained: model={name} has no Hugging Face counterpart; use model=bert")
        interchange = importlib.import_module(f"bertlab.models._{name}_hf")
        folder = source
        for file in ("config.json", "model.safetensors"):
            if not (folder / file).is_file():
                raise DataError(f"init.path={self.path}: there is no {file}; it must be a folder with a BERT checkpoint")
        try:
            described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if not isinstance(described, dict):
                raise ValueError("no object with named fields")
        except (ValueError, RecursionError) as error:
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
                    f"{tuple(own[key].shape)}; take its own vocabulary: tokenizer=inherited"
                )
        encoder.load_state_dict(mapped)
