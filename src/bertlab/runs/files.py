"""Files that are whole or not there: written beside their place, flushed, renamed; and what tells one content from another."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bertlab.errors import RunError


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


def digest(value: Any) -> str:
    """16 hex digits of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def to_json(value: Any) -> str:
    """Readable JSON with a final newline; NaN is refused rather than written."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def clear_temporaries(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder` (its lock is held, so nobody else writes there)."""
    for leftover in [*folder.rglob(".*.tmp"), *folder.rglob(".*.tmp.*")]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
