"""Files that are whole or not there: written beside their place, flushed, checksummed, renamed.

A resume checkpoint is one folder `step-000123` with `weights.safetensors`, `state.pt` (tensors and plain values only, read with
`weights_only=True`) and `manifest.json` with the checksums of both. The newest whole one wins; a torn one is skipped.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bertlab.errors import RunError

KEPT = 2  # newest resume checkpoints that stay on disk


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write(temporary)`, flush to disk, rename to `path`; on any error nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=f".tmp{path.suffix}")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """A text file, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(content, encoding="utf-8"))


def publish_folder(path: Path, fill: Callable[[Path], Any]) -> None:
    """Fill a temporary folder, then rename it to `path`. Where another process was first, its folder stands and ours is dropped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        fill(temporary)
        temporary.chmod(0o755)
        for file in temporary.iterdir():
            _flush(file)
        with contextlib.suppress(OSError) if path.exists() else contextlib.nullcontext():
            temporary.rename(path)
        _flush(path.parent)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file, atomically."""
    copied = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_atomically(path, lambda temporary: save_file(copied, temporary, metadata=metadata or {}))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Inverse of `save_weights`. Raises RunError for a file that is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise RunError(f"{path}: there are no weights here") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: damaged weights ({error})") from error


@dataclass
class Checkpoint:
    """Everything a run needs to go on as if nothing had happened."""

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `folder/step-…`, then drop all but the newest whole ones."""

    def fill(temporary: Path) -> None:
        copied = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
        save_file(copied, temporary / "weights.safetensors")
        torch.save(checkpoint.state, temporary / "state.pt")
        sums = {name: _checksum(temporary / name) for name in ("weights.safetensors", "state.pt")}
        (temporary / "manifest.json").write_text(json.dumps({"step": checkpoint.step, "sha256": sums}))

    place = folder / f"step-{checkpoint.step:08d}"
    if place.exists():
        if _is_whole(place):
            return  # the same step of the same run: identical by construction
        shutil.rmtree(place)
    publish_folder(place, fill)
    for old in _folders(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint below `folder`, or None. Torn ones are passed over."""
    for place in _folders(folder):
        if _is_whole(place):
            state = torch.load(place / "state.pt", weights_only=True, map_location="cpu")
            step = json.loads((place / "manifest.json").read_text())["step"]
            return Checkpoint(step, load_weights(place / "weights.safetensors"), state)
    return None


def _folders(folder: Path) -> list[Path]:
    return sorted((place for place in folder.glob("step-*") if place.is_dir()), reverse=True) if folder.is_dir() else []


def _is_whole(place: Path) -> bool:
    try:
        sums = json.loads((place / "manifest.json").read_text())["sha256"]
        return all(_checksum(place / name) == expected for name, expected in sums.items()) and len(sums) == 2
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def clear_temporaries(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder` (its lock is held, so nobody else writes there)."""
    for leftover in [*folder.rglob(".*.tmp"), *folder.rglob(".*.tmp.*")]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
