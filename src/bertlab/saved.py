"""From a finished run's folder back to its config, tokenizer, objective and model, and what training leaves there for that."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from bertlab import registry
from bertlab.assembly import Material, Model, build_model, build_objective
from bertlab.checkpoint import load_weights, publish_folder, save_weights, write_text
from bertlab.config import Budget, Component, Compute, Evaluation, Finetune, Paths, Train
from bertlab.contracts import Objective
from bertlab.data.tokenizer import Tokenizer
from bertlab.errors import ConfigError, RunError
from bertlab.runtime import Device, choose_device

COMPONENTS = ("dataset", "tokenizer", "objective", "model", "init", "optimizer", "schedule", "tracker")
PLAIN: dict[str, Any] = {"finetune": Finetune, "budget": Budget, "evaluation": Evaluation, "compute": Compute, "paths": Paths}
ENCODER = "encoder"  # folder of a run with its architecture's own description


@dataclass
class Trained:
    """A finished run, ready to score and predict."""

    folder: Path
    config: Train
    tokenizer: Tokenizer
    objective: Objective
    model: Model
    identity: dict[str, Any]

    def device(self, compute: Compute) -> Device:
        """Where to compute; the precision is that of training unless another is asked for."""
        precision = self.identity["numerics"]["precision"] if compute.precision == "auto" else compute.precision
        return choose_device(compute.device, precision, compute.threads)


def save_run(folder: Path, material: Material, model: Model, weights: dict[str, Tensor]) -> None:
    """What `load_run` needs beside config.yaml: weights, tokenizer, class names."""
    write_text(folder / "tokenizer.json", material.tokenizer.to_json())
    if hasattr(model.encoder, "save_description"):  # an architecture that is described by more than our config
        publish_folder(folder / ENCODER, model.encoder.save_description)  # type: ignore[arg-type]  # torch types attributes as modules
    write_text(folder / "labels.json", json.dumps(list(material.objective.label_names), ensure_ascii=False) + "\n")
    save_weights(folder / "model.safetensors", weights, {"format": "pt"})


def load_run(folder: Path) -> Trained:
    """A finished run's model and what it was trained with. Raises RunError where the folder is damaged or of another version."""
    config = load_config(folder)
    try:
        tokenizer = Tokenizer.from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise RunError(f"{folder}/tokenizer.json: damaged ({str(error)[:120]})") from error
    try:
        identity = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
        identity["numerics"]["precision"], identity["inputs"]["dataset"]  # what is needed of it
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}/identity.json: damaged ({type(error).__name__}: {error})") from error
    try:
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ValueError("not a list of class names")
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}/labels.json: damaged ({error})") from error
    objective = build_objective(config, tokenizer, labels)
    if (folder / ENCODER).is_dir():
        config.model.name_or_path = str(folder / ENCODER)  # type: ignore[attr-defined]  # of the models that save one
    model = build_model(config, tokenizer, objective)
    weights = load_weights(folder / "model.safetensors")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(f"{folder}: its weights do not fit this version's model ({str(error).splitlines()[1].strip()[:160]})") from error
    model.eval()
    return Trained(folder, config, tokenizer, objective, model, identity)


def load_config(folder: Path) -> Train:
    """The typed config of a run folder. Raises RunError where it does not fit this version's schema."""
    file = folder / "config.yaml"
    try:
        raw: Any = OmegaConf.load(file)
    except Exception as error:  # missing file or broken YAML
        raise RunError(f"{file}: cannot be read ({str(error).splitlines()[0]})") from error
    config = Train()
    try:
        for item in dataclasses.fields(Train):
            value = raw[item.name]
            if item.name not in ("seed", "tags") and not OmegaConf.is_dict(value):
                raise TypeError(f"{item.name} is not a group of keys")
            setattr(config, item.name, _typed(item.name, value))
    except (KeyError, TypeError, AttributeError, OmegaConfBaseException, ConfigError) as error:
        key = f"{found}: " if (found := getattr(error, "full_key", None)) else ""
        raise RunError(f"{file}: does not fit this version of bertlab ({key}{str(error).splitlines()[0]})") from error
    return config


def _typed(name: str, value: Any) -> Any:
    """A key of a run's config, or of the pretraining within it, as its dataclass."""
    if name in COMPONENTS and OmegaConf.is_dict(value):
        schema: Any = registry.load_schema(name, value.pop("component"))
        for item in dataclasses.fields(schema):
            if item.name in (*COMPONENTS, *PLAIN) and item.name in value and OmegaConf.is_dict(value[item.name]):
                if item.name != "model":  # there a few keys, not a component
                    setattr(schema, item.name, _typed(item.name, value.pop(item.name)))
    elif name in PLAIN:
        schema = PLAIN[name]()
    else:
        return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), value))


def config_yaml(config: Train) -> str:
    """A run's config with, for each group, the component it chose; `load_config` reads it back."""
    return OmegaConf.to_yaml(OmegaConf.create(_with_components(config)))


def _with_components(node: Any) -> dict[str, Any]:
    tree = {}
    for item in dataclasses.fields(node):
        value = getattr(node, item.name)
        if isinstance(value, Component):
            tree[item.name] = {"component": registry.option_of(item.name, value), **_with_components(value)}
        else:
            tree[item.name] = _with_components(value) if dataclasses.is_dataclass(value) else value
    return tree
