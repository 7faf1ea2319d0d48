"""A run's identity on this machine: what it reads, the code that decides it, the numerics (see store.py for what the id is a hash of)."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from bertlab import registry, store
from bertlab.config import Train
from bertlab.data.dataset import fingerprint
from bertlab.hub import resolve
from bertlab.init import tokenizer_file
from bertlab.runtime import Device


def identify(config: Train, device: Device) -> dict[str, Any]:
    """The run's identity on this machine."""
    numerics = {"device": device.device.type, "precision": device.precision, "micro_batch_size": config.compute.micro_batch_size}
    if config.compute.compile:
        numerics["compile"] = True  # fused kernels round differently and, on CUDA, draw dropout from a generator of their own
    inputs = inputs_fingerprint(config)
    if stage := config.init.stage(config):
        inputs["stage"] = identify(stage, device)["id"]
    return store.identify(config, numerics, inputs, component_modules(config))


def inputs_fingerprint(config: Train) -> dict[str, str]:
    """Content of everything a run reads: data, given weights, a given tokenizer."""
    found = {"dataset": fingerprint(config.dataset, config.paths)}
    for group, part in (("init", config.init), ("tokenizer", config.tokenizer)):
        path = Path(str(getattr(part, "path", ""))).expanduser()
        files = [path] if path.is_file() else [path / name for name in ("model.safetensors", "tokenizer.json") if (path / name).is_file()]
        if str(path) != "." and files:
            found[group] = store.digest([store.file_digest(file) for file in files])
    source = config.init.source(config)
    if config.tokenizer.name == "inherited" and source is not None:
        found["inherited"] = store.file_digest(tokenizer_file(source))
    if hasattr(config.model, "name_or_path"):
        described = resolve(config.model.name_or_path, "model.name_or_path")
        found["model"] = store.file_digest(described / "config.json")
    if config.init.name == "pretrained" and source is not None:
        found["pretrained"] = store.digest([store.file_digest(file) for file in sorted(source.glob("*.safetensors"))])
    return found


def component_modules(config: Train) -> list[Any]:
    """The modules whose code decides this run beside those of every run."""
    modules = [registry.module_of(part) for part in (config.dataset, config.objective, config.model, config.optimizer)]
    interchange = f"bertlab.models._{registry.option_of('model', config.model)}_hf"
    if config.init.name == "pretrained" and importlib.util.find_spec(interchange) is not None:
        modules.append(importlib.import_module(interchange))
    return modules
