"""Where a run's first weights come from: a dataclass and its `initialize(...)` for each way."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from bertlab.config.hub import resolve
from bertlab.config.schema import (
    Budget,
    DatasetConfig,
    Evaluation,
    InitConfig,
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
from bertlab.errors import ConfigError, RunError, did_you_mean
from bertlab.runs.files import check_weights, digest, file_digest, load_weights
from bertlab.runs.folder import RunFolder


@dataclass
class FromScratch(InitConfig):
    """Random weights from the run's seed."""

    gives_tokenizer: ClassVar = False  # but for a Hugging Face architecture, which brings its own

    def source(self, run: Train) -> Path | None:
        """Of a Hugging Face architecture, where its tokenizer lies."""
        name = run.model.hub_name()
        return None if name is None else resolve(name, "model.name_or_path")

    def initialize(self, model: nn.Module, run: Train, tokenizer: str, source: Path | None) -> None:
        """Nothing to do: the model was built with random weights."""


@dataclass
class FromCheckpoint(InitConfig):
    """Weights of another run of ours."""

    weights_input: ClassVar = "init"
    path: str = string(MISSING, "run folder, or the model.safetensors of one")
    head: bool = flag(False, "take the head's weights too; without it the head starts at random")

    def source(self, _run: Train) -> Path:
        """The run folder or file."""
        return Path(self.path).expanduser()

    def deciding(self) -> dict[str, Any]:
        """Known by its content, wherever it lies."""
        path = Path(self.path).expanduser()
        return super().deciding() | ({"path": path.suffix} if path.exists() else {})

    def inputs(self, _run: Train) -> dict[str, str]:
        """Weights and tokenizer."""
        path = Path(self.path).expanduser()
        files = (
            [path] if path.is_file() else [path / name for name in ("model.safetensors", "tokenizer.json")]
        )
        return {self.weights_input: digest([file_digest(file) for file in files if file.is_file()])}

    def check_fit(self, run: Train) -> None:
        """The run's recorded architecture is this one's. Raises RunError naming every key that is another,
        and the words to add.
        """
        path, asked = Path(self.path).expanduser(), f"init.path={self.path}"
        folder = RunFolder(path if path.is_dir() else path.parent)
        if path.exists() and folder.is_run:
            theirs = _recorded_model(folder, asked)
            _check_architecture(theirs, run, asked)
            _check_names(folder, theirs, run, asked)

    def initialize(self, model: nn.Module, run: Train, tokenizer: str, source: Path | None) -> None:
        """Copy the encoder's (and the head's) weights. Raises RunError naming the first thing that does not
        fit.
        """
        load_from_run(
            Path(self.path).expanduser(), model, run, tokenizer, self.head, f"init.path={self.path}"
        )


@dataclass
class FromStage(InitConfig):
    """Weights of a pretraining run described in place. It is computed once, as a run of its own, and shared
    by all that describe it.
    """

    dataset: DatasetConfig = MISSING
    tokenizer: TokenizerConfig = MISSING
    objective: ObjectiveConfig = MISSING
    init: InitConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    schedule: ScheduleConfig = MISSING
    budget: Budget = MISSING
    evaluation: Evaluation = field(default_factory=Evaluation)
    model: dict[str, Any] = mapping("keys of the run's model that differ in pretraining, e.g. hidden_dropout")
    seed: int = integer(
        0, "the pretraining's seed; one pretraining serves all seeds of the run", low=0, high=2**31 - 1
    )
    head: bool = flag(False, "take the head's weights too, where both have the same objective")

    def stage(self, run: Train) -> Train:
        """The pretraining as a run: this config, with the model, machine, folders and tracker of the run that
        needs it.
        """
        free = run.model.free_in_pretraining()
        if unknown := [key for key in self.model if key not in free]:
            raise ConfigError(
                f"init.model.{unknown[0]}: not a key that may differ in pretraining,"
                f" {did_you_mean(unknown[0], free)}"
            )
        if self.head and self.objective.name != run.objective.name:
            raise ConfigError(
                f"init.head=true: the head of {self.objective.name} does not fit"
                f" objective={run.objective.name}"
            )
        try:
            model: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(run.model), self.model))
        except OmegaConfBaseException as error:
            raise ConfigError(f"init.model.{error.key}: {str(error).splitlines()[0]}") from None
        return Train(
            model=model, dataset=self.dataset, tokenizer=self.tokenizer, objective=self.objective,
            init=self.init, optimizer=self.optimizer,
            schedule=self.schedule, budget=self.budget, evaluation=self.evaluation, seed=self.seed,
            compute=run.compute,
            tracker=run.tracker, paths=run.paths, tags=run.tags,
        )  # fmt: skip

    def deciding(self) -> dict[str, Any]:
        """What its config decides is in the stage's own id."""
        return {"name": self.name, "head": self.head}

    def initialize(self, model: nn.Module, run: Train, tokenizer: str, source: Path | None) -> None:
        """Copy the encoder's (and the head's) weights. Raises RunError naming the first thing that does not
        fit.
        """
        assert source is not None
        load_from_run(source, model, run, tokenizer, self.head, "init=stage")


@dataclass
class FromPretrained(InitConfig):
    """Weights of a Hugging Face checkpoint: of any architecture with model=hf_*, of a BERT in our own
    encoder.
    """

    weights_input: ClassVar = "pretrained"
    path: str | None = string(
        None, "folder with config.json and model.safetensors, or a hub name; null = model.name_or_path"
    )

    def check(self, path: str) -> None:
        """An empty path would be the current folder."""
        if self.path == "":
            raise ConfigError(f"{path}.path is empty; name a folder or a hub model")

    def source(self, run: Train) -> Path:
        """The checkpoint's folder. Raises ConfigError where nothing names one."""
        if self.path is not None:
            return resolve(self.path, "init.path")
        name = run.model.hub_name()
        if name is None:
            raise ConfigError("init.path: required, but not set; add init.path=FOLDER to the command line")
        return resolve(name, "model.name_or_path")

    def deciding(self) -> dict[str, Any]:
        """Known by its content, wherever it lies."""
        return super().deciding() | (
            {"path": "local"} if self.path and Path(self.path).expanduser().exists() else {}
        )

    def inputs(self, run: Train) -> dict[str, str]:
        """Every file of weights, and the tokenizer beside them."""
        source = self.source(run)
        files = [
            *sorted(source.glob("*.safetensors")),
            *(file for file in (source / "tokenizer.json",) if file.is_file()),
        ]
        return {self.weights_input: digest([file_digest(file) for file in files])}

    def initialize(self, model: nn.Module, run: Train, tokenizer: str, source: Path | None) -> None:
        """Copy its weights, under our names. Raises DataError or ConfigError naming what does not fit."""
        assert source is not None
        encoder: Any = model.get_submodule("encoder")
        run.model.load_pretrained(
            encoder, source, f"init.path={self.path}" if self.path else "init=pretrained"
        )


def load_from_run(path: Path, model: nn.Module, run: Train, tokenizer: str, head: bool, asked: str) -> None:
    """Copy the encoder's (and the head's) weights out of a run. Raises RunError naming the first thing that
    does not fit.
    """
    if not path.exists():
        raise RunError(f"{asked}: no such run folder or file")
    folder = RunFolder(path if path.is_dir() else path.parent)
    if folder.is_run:
        _check_run(folder, run, tokenizer, asked)
    weights = load_weights(folder.weights_file if path.is_dir() else path)
    if not head:
        weights = {name: value for name, value in weights.items() if name.startswith("encoder.")}
    own = model.state_dict()
    expected = [name for name in own if head or name.startswith("encoder.")]
    for name in expected:
        if name not in weights:
            raise RunError(f"{asked}: it has no weight '{name}'; is it a run of the same model?")
        if weights[name].shape != own[name].shape:
            raise RunError(
                f"{asked}: '{name}' has shape {tuple(weights[name].shape)}, this model"
                f" {tuple(own[name].shape)}; model and tokenizer must be those of that run"
            )
    chosen = {name: weights[name] for name in expected}
    check_weights(chosen, own, asked)
    model.load_state_dict(chosen, strict=False)


def _check_run(folder: RunFolder, run: Train, tokenizer: str, asked: str) -> None:
    """Weights whose shapes fit may still mean something else: other heads, other positions, other words
    behind the ids.
    """
    theirs = _recorded_model(folder, asked)
    try:
        folder.verify()
        vocabulary = folder.tokenizer()
    except RunError as error:
        raise RunError(f"{asked}: it is damaged ({error})") from error
    _check_architecture(theirs, run, asked)
    if vocabulary != tokenizer:
        raise RunError(f"{asked}: that run has another vocabulary; take it: tokenizer=inherited")


def _recorded_model(folder: RunFolder, asked: str) -> dict[str, Any]:
    """Options of a run's model, as its config records them."""
    try:
        theirs = folder.tree().get("model")
    except RunError as error:
        raise RunError(f"{asked}: it is damaged ({error})") from error
    if not isinstance(theirs, dict):
        raise RunError(f"{asked}: it is damaged (its config.yaml has no model)")
    return theirs


def _check_architecture(theirs: dict[str, Any], run: Train, asked: str) -> None:
    """Options that decide what weights mean are those of the run that they come from."""
    own, free = dataclasses.asdict(run.model), run.model.may_differ()
    other = [key for key, value in own.items() if key not in free and theirs.get(key, value) != value]
    if other:
        told = "; ".join(
            f"model.{key}={_written(theirs[key])}, this one {_written(own[key])}" for key in other
        )
        words = " ".join(f"model.{key}={_written(theirs[key])}" for key in other)
        raise RunError(f"{asked}: that run has {told}; add {words}")


def _check_names(folder: RunFolder, theirs: dict[str, Any], run: Train, asked: str) -> None:
    """With another pooling, the run still has every weight of this encoder, e.g. the pooler's."""
    pooling = theirs.get("pooling", run.model.pooling)
    if pooling == run.model.pooling or run.model.hub_name() is not None or not folder.weights_file.is_file():
        return
    there = load_weights(folder.weights_file)
    with torch.device("meta"):  # names alone: no size of a vocabulary changes them
        names = [f"encoder.{name}" for name in run.model.build(vocab_size=8, pad_id=0).state_dict()]
    if lacking := [name for name in names if name not in there]:
        raise RunError(
            f"{asked}: it has no weight '{lacking[0]}', since that run has model.pooling={pooling}, this one"
            f" {run.model.pooling}; add model.pooling={pooling}"
        )


def _written(value: Any) -> str:
    """A value as the command line reads it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
