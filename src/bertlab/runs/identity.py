"""A run's id: a hash of what decides its results.

That is the resolved config without what only changes speed or names, the numerics (device, precision,
micro-batch, processes, sharding, together), the content of everything it reads, the version of the core's
results, and the code of the components it uses. The core (loop, data, evaluation, …) is known by one number,
RESULTS_VERSION: tests/integration/test_golden.py fails where results change without a new one, so that moving
a helper renames no run. Components and plugins are known by their code, without comments, docstrings, layout:
an edited model is a new run.
"""

import ast
import functools
import hashlib
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bertlab.config import registry
from bertlab.config.schema import Component, Train, deciding
from bertlab.declarations import Role
from bertlab.runs.files import digest
from bertlab.runs.machine import Device

RESULTS_VERSION = (
    1  # raised whenever the core computes other bits from the same config; see docs of the golden test
)
ROOT = Path(__file__).parents[1]


def identify(config: Train, device: Device, stage: str | None, pairs: str | None = None) -> dict[str, Any]:
    """What the id is a hash of, and the `id` itself (12 hex digits).

    `stage` is the id of the pretraining that the run begins with, `pairs` the content of the minimal pairs
    that it is scored on.
    """
    numerics = {
        "device": device.device.type,
        "precision": device.precision,
        "micro_batch_size": config.compute.micro_batch_size,
    }
    if config.compute.processes > 1:
        numerics["processes"] = config.compute.processes  # sums are made in another order
    if config.compute.sharding != "none":
        numerics["sharding"] = config.compute.sharding  # and in another one
    if config.compute.together > 1:
        # and by other kernels, over batches filled up to the longest of all
        numerics["together"] = config.compute.together
    if config.compute.compile:
        numerics["compile"] = (
            True  # fused kernels round differently and, on CUDA, draw dropout from a generator of their own
        )
    parts = (config.dataset, config.tokenizer, config.model, config.init)
    inputs = {name: value for part in parts for name, value in part.inputs(config).items()}
    if stage is not None:
        inputs["stage"] = stage
    if pairs is not None:
        inputs["pairs"] = pairs
    code = {"results": str(RESULTS_VERSION), **component_versions(config)}
    identity = {"config": deciding(config), "numerics": numerics, "inputs": inputs, "code": code}
    return {"id": digest(identity)[:12], **identity}


def component_versions(config: Train) -> dict[str, str]:
    """Content of the files that components are made of: those of the run, and what they build on in their own
    folders.
    """
    versions: dict[str, str] = {}
    for part in (config.dataset, config.objective, config.model, config.optimizer):
        versions |= file_versions(part)
    return versions | kind_versions(config.objective.roles)


def kind_versions(roles: Iterable[Role]) -> dict[str, str]:
    """Content of the files of the plugins' kinds by which roles are read; ours are the core's."""
    files = {Path(inspect.getfile(registry.load_kind(role.kind))) for role in roles}
    return {
        name: code_version(place) for file in sorted(files) for name, place in _component_files(file).items()
    }


def file_versions(component: Component) -> dict[str, str]:
    """Module -> version of a component's file and of component files that it imports; the core's own files
    are left to RESULTS_VERSION.
    """
    file = Path(str(sys.modules[type(component).__module__].__file__))
    return {name: code_version(place) for name, place in _component_files(file).items()}


def _component_files(file: Path) -> dict[str, Path]:
    """`objectives/classification` and its file, for a component of ours or a plugin's, and those that it
    builds on.
    """
    is_ours = file.is_relative_to(ROOT)
    if is_ours and file.relative_to(ROOT).parts[0] not in registry.COMPONENT_ROOMS:
        return {}
    name = (
        str(file.relative_to(ROOT).with_suffix("")) if is_ours else f"plugins/{file.parent.name}/{file.stem}"
    )
    files = {name: file}
    # what a function imports for itself is no part of the model
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bertlab."):
            imported = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for module in imported:
                below = ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")
                if below != file and below.is_file() and below.parent.name in registry.COMPONENT_ROOMS:
                    files |= _component_files(below)
    return files


@functools.cache
def code_version(file: Path) -> str:
    """Hash of one source file, without comments, docstrings and layout; the same in every version
    of Python.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ascii(_structure(tree)).encode()).hexdigest()[:16]


def folder_version(folder: Path) -> str:
    """Hash of all source files of a folder: what cached data is filed under, for which a needless miss costs
    little.
    """
    files = sorted(folder.rglob("*.py"))
    return digest({file.relative_to(folder).as_posix(): code_version(file) for file in files})


def _structure(node: Any) -> Any:
    """A syntax tree as tuples. What is absent or empty is left out: some versions of Python note it, others
    do not.
    """
    if isinstance(node, ast.JoinedStr):
        node.values = [
            part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")
        ]
    if isinstance(node, ast.AST):
        fields = (
            (name, _structure(value))
            for name, value in ast.iter_fields(node)
            if value is not None and value != []
        )
        return type(node).__name__, *fields
    return tuple(map(_structure, node)) if isinstance(node, list) else node
