"""Identity and place of runs and cached artefacts.

A run's id is a hash of what decides its results: the resolved config without `compute`, `tracker`, `paths` and `tags`, the numerics
(device, precision, micro-batch), the data's fingerprint, and the code of the modules that can change results. Code is compared
without comments, docstrings and layout.
"""

import ast
import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from bertlab.config import Paths, Train
from bertlab.errors import RunError

WITHOUT_INFLUENCE = ("compute", "tracker", "paths", "tags")
OWN_FILES = {  # known by content
    "dataset": ("train_file", "validation_file", "test_file"),
    "init": ("path",),
    "tokenizer": ("path",),
    "model": ("name_or_path",),
}
BATCHING = ("data/batches", "data/feeding")  # which examples a step sees: no part of what a tokenised split is filed under
CODE_OF_EVERY_RUN = (
    "runtime",
    "contracts",
    "schedule",
    "init",
    "loop",
    "evaluation",
    "assembly",
    "data/dataset",
    "data/table",
    "data/columns",
    "data/reading",
    "data/tokenizer",
    "data/examples",
    "jobs/train",
    *BATCHING,
)


def digest(value: Any) -> str:
    """16 hex digits of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache
def code_version(file: Path) -> str:
    """Hash of one source file, without comments, docstrings and layout; the same in every version of Python."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            if isinstance(body[0].value.value, str):
                node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]  # only nodes with a body get here
    return hashlib.sha256(repr(_structure(tree)).encode()).hexdigest()[:16]


def _structure(node: Any) -> Any:
    """A syntax tree as tuples. What is absent or empty is left out: some versions of Python note it, others do not."""
    if isinstance(node, ast.JoinedStr):
        node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    if isinstance(node, ast.AST):
        fields = ((name, _structure(value)) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return type(node).__name__, *fields
    return tuple(map(_structure, node)) if isinstance(node, list) else node


def code_versions(components: list[ModuleType]) -> dict[str, str]:
    """Versions of the modules every run passes through and of the components that this one chose."""
    root = Path(__file__).parent
    versions = {name: code_version(root / f"{name}.py") for name in CODE_OF_EVERY_RUN}
    for module in components:
        assert module.__file__ is not None
        versions[module.__name__.removeprefix("bertlab.").replace(".", "/")] = code_version(Path(module.__file__))
        for name in _components_below(Path(module.__file__)):
            versions[name] = code_version(root / f"{name}.py")
    return versions


def _components_below(file: Path, found: set[str] | None = None) -> set[str]:
    """Components that a component builds on, and those below them: `objectives/classification` for a file that imports it."""
    found = set() if found is None else found
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "bertlab" and len(parts) == 3 and parts[1] in ("models", "objectives", "optimizers", "data"):
                below = "/".join(parts[1:])
                if below not in found:
                    found.add(below)
                    _components_below(Path(__file__).parent / f"{below}.py", found)
    return found


def identify(config: Train, numerics: dict[str, Any], inputs: dict[str, str], components: list[ModuleType]) -> dict[str, Any]:
    """What the id is a hash of, and the `id` itself (12 hex digits)."""
    deciding = {name: value for name, value in dataclasses.asdict(config).items() if name not in WITHOUT_INFLUENCE}
    for group, names in OWN_FILES.items():
        for name in names:
            value = deciding[group].get(name)
            if value and Path(value).expanduser().exists():
                deciding[group][name] = Path(value).suffix  # wherever the file lies; its content is in `inputs`
    if "stage" in inputs:  # what its config decides is in its own id
        deciding["init"] = {name: deciding["init"][name] for name in ("name", "head")}
    deciding["evaluation"] = {k: v for k, v in deciding["evaluation"].items() if k not in ("batch_size", "save_predictions")}
    identity = {"config": deciding, "numerics": numerics, "inputs": inputs, "code": code_versions(components)}
    return {"id": digest(identity)[:12], **identity}


def run_folder(config: Train, run_id: str) -> Path:
    """`paths.output/DATASET-OBJECTIVE-ID`."""
    return Path(config.paths.output) / f"{config.dataset.name}-{config.objective.name}-{run_id}"


def read_summary(folder: Path) -> dict[str, Any] | None:
    """A run's summary, None where there is none yet. Raises RunError for a damaged one."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}/summary.json: damaged ({error}); remove the file to finish the run again") from error
    if not isinstance(summary, dict) or "status" not in summary:
        raise RunError(f"{folder}/summary.json: not a run's summary")
    return summary


def find_run(given: str, paths: Paths) -> Path:
    """A finished run by its folder or its id. Raises RunError naming what was looked for."""
    folder = Path(given).expanduser()
    if not folder.is_dir():
        root = Path(paths.output)
        places = root.iterdir() if root.is_dir() else ()
        found = sorted(place for place in places if given in place.name and (place / "config.yaml").is_file())
        if len(found) > 1:
            raise RunError(f"run={given}: {len(found)} runs fit, e.g. {found[0].name} and {found[1].name}; give more of the id")
        if not found:
            raise RunError(f"run={given}: no such folder, and no run in {root} has it in its name")
        folder = found[0]
    summary = read_summary(folder)
    if summary is None or summary["status"] != "finished":
        state = "is not a run folder" if not (folder / "config.yaml").is_file() else "has not finished; run its command again"
        raise RunError(f"run={given}: {folder} {state}")
    return folder


def cache_folder(paths: Paths) -> Path:
    """Tokenizers and tokenised data: `paths.cache`, BERTLAB_CACHE, or ~/.cache/bertlab."""
    return Path(paths.cache or os.environ.get("BERTLAB_CACHE") or "~/.cache/bertlab").expanduser()
