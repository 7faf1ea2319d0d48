"""Files that are whole or not there: written beside their place, flushed, renamed; and what tells one content from another."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TextIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bertlab.errors import RunError, redact

UMASK = os.umask(0)
os.umask(UMASK)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write(temporary)`, flush to disk, rename to `path`; on any error nothing is left behind. Raises RunError for a full disk."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=f".tmp{path.suffix}")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o666 & ~UMASK)
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise unusable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def unusable(path: Path, error: OSError) -> RunError:
    """What to say where a file cannot be written: no space, no permission, a read-only disk."""
    return RunError(
        f"{path}: cannot be written ({error.strerror or error}); make room there, or name another folder; the same command goes on"
    )


def open_new(path: Path, mode: Literal["w", "a"]) -> TextIO:
    """A text file of ours to write (`w`) or append to (`a`); a link in its place is replaced, never followed. Raises RunError."""
    try:
        if path.is_symlink():
            path.unlink()
        return path.open(mode, encoding="utf-8")
    except OSError as error:
        raise unusable(path, error) from error


def write_text(path: Path, content: str) -> None:
    """A text file, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(content, encoding="utf-8"))


def write_record(path: Path, content: str) -> None:
    """A text file about a run, atomically, without secrets."""
    write_text(path, redact(content))


def publish_folder(path: Path, fill: Callable[[Path], Any]) -> None:
    """Fill a temporary folder, then rename it to `path`. Where another process was first, its folder stands and ours is dropped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        fill(temporary)
        temporary.chmod(0o777 & ~UMASK)
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
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, metadata or {})
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Inverse of `save_weights`. Raises RunError for a file that is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise RunError(f"{path}: there are no weights here") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise RunError(f"{path}: damaged weights ({error})") from error


def check_weights(weights: dict[str, Tensor], own: dict[str, Tensor], where: str) -> None:
    """Refuse what torch would cast without a word: numbers of another kind, and numbers that are none. Raises RunError naming the first."""
    for name, value in weights.items():
        if name in own and value.is_floating_point() != own[name].is_floating_point():
            raise RunError(f"{where}: '{name}' holds {str(value.dtype).removeprefix('torch.')}, where this model has real numbers")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise RunError(f"{where}: '{name}' holds numbers that are not finite")


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
