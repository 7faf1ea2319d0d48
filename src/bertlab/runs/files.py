"""Files that are whole or not there: written beside their place, flushed, renamed; and what tells one content
from another.
"""

import contextlib
import csv
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from bertlab.errors import RunError, redact

if TYPE_CHECKING:
    from torch import Tensor

if sys.platform != "win32":
    import fcntl

UMASK = os.umask(0)
os.umask(UMASK)
OLD = 24 * 3600.0  # seconds after which nobody is at a temporary file any more, where locks cannot tell


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write(temporary)`, flush to disk, rename to `path`; on any error nothing is left behind. Raises
    RunError for a full disk.
    """
    temporary = lock = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = _made(lambda: _new_file(path))
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
        _let_go(lock)


def unusable(path: Path, error: OSError) -> RunError:
    """What to say where a file cannot be written: no space, no permission, a read-only disk."""
    return RunError(
        f"{path}: cannot be written ({error.strerror or error}); make room there, or name another folder; the"
        " same command goes on"
    )


def open_new(path: Path, mode: Literal["w", "a"]) -> TextIO:
    """A text file of ours to write (`w`) or append to (`a`); a link or pipe in its place is replaced, never
    followed. Raises RunError.
    """
    try:
        if path.is_symlink() or path.is_fifo():
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
    """Fill a temporary folder, then rename it to `path`. Where another process was first, its folder stands
    and ours is dropped.
    """
    try:
        with temporary_folder(path) as temporary:
            fill(temporary)
            for file in temporary.iterdir():
                _flush(file)
            with contextlib.suppress(OSError) if path.exists() else contextlib.nullcontext():
                temporary.rename(path)
            _flush(path.parent)
    except OSError:
        if not path.is_dir():
            raise


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path`, to be filled and renamed to it; what is not renamed is gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, lock = _made(
        lambda: Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    )
    try:
        temporary.chmod(0o777 & ~UMASK)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _let_go(lock)


def clear_orphans(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left half-made in `folder` (for one file or folder, by its name): what no
    living process holds.
    """
    pattern = "*" if name is None else glob.escape(name)
    for leftover in [*folder.glob(f".{pattern}.*.tmp"), *folder.glob(f".{pattern}.*.tmp.*")]:
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            lock = _hold(leftover)
            if lock is not None or (sys.platform == "win32" and time.time() - leftover.stat().st_mtime > OLD):
                _remove(leftover)
            _let_go(lock)


def _new_file(path: Path) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=f".tmp{path.suffix}")
    os.close(handle)
    return Path(name)


def _made(make: Callable[[], Path]) -> tuple[Path, int | None]:
    """A temporary file or folder and its lock. One that `clear_orphans` took for an orphan before it was
    locked is made again.
    """
    while True:
        place = make()
        with contextlib.suppress(FileNotFoundError):
            lock = _hold(place, wait=True)
            if place.exists():
                return place, lock
            _let_go(lock)


def _hold(place: Path, wait: bool = False) -> int | None:
    """A descriptor that locks a temporary file or folder as long as it is open; None where another process
    holds it, or nothing locks.
    """
    if sys.platform == "win32":
        return None
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return descriptor
    except OSError:
        os.close(descriptor)
        return None


def _let_go(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_weights(path: Path, weights: "dict[str, Tensor]", metadata: dict[str, str] | None = None) -> None:
    """A safetensors file from weights in the processor's memory, without a copy of them. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(weights, path, metadata or {})
    except SafetensorError as error:  # in which the system's error is told in words
        number = re.search(r"(?:os error|code:) (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def save_weights(path: Path, weights: "dict[str, Tensor]", metadata: dict[str, str] | None = None) -> None:
    """A safetensors file, atomically."""
    here = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_atomically(path, lambda temporary: write_weights(temporary, here, metadata))


def load_weights(path: Path) -> "dict[str, Tensor]":
    """Inverse of `save_weights`. Raises RunError for a file that is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(plain(path))
    except FileNotFoundError:
        raise RunError(f"{path}: there are no weights here") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise RunError(f"{path}: damaged weights ({error})") from error


def check_weights(weights: "dict[str, Tensor]", own: "dict[str, Tensor]", where: str) -> None:
    """Refuse what torch would cast without a word: numbers of another kind, and numbers that are none. Raises
    RunError naming the first.
    """
    import torch  # which caches and records do without

    for name, value in weights.items():
        if name in own and value.is_floating_point() != own[name].is_floating_point():
            raise RunError(
                f"{where}: '{name}' holds {str(value.dtype).removeprefix('torch.')}, where this model has"
                " real numbers"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise RunError(f"{where}: '{name}' holds numbers that are not finite")


def digest(value: Any) -> str:
    """16 hex digits of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def plain(file: Path) -> Path:
    """The file, unless it is a pipe, a device or a folder: reading those could wait for ever.
    Raises OSError.
    """
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "no plain file", str(file))
    return file


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex. Raises OSError."""
    with plain(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a text as UTF-8, in hex: what `file_digest` gives once it is written."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(file: Path) -> Any:
    """The content of a JSON file. Raises OSError for one that cannot be read, ValueError for one that holds
    something else.
    """
    try:
        return json.loads(plain(file).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write_csv(stream: TextIO, rows: Iterable[Sequence[Any]], delimiter: str = ",") -> None:
    """Rows that every reader takes as they were: a cell with a lone carriage return is quoted too, which
    Python's writer leaves out.
    """
    plain, quoted = (
        csv.writer(stream, delimiter=delimiter, lineterminator="\n", quoting=quoting)
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    )
    for row in rows:
        has_return = any(isinstance(cell, str) and "\r" in cell for cell in row)
        (quoted if has_return else plain).writerow(row)


def to_json(value: Any) -> str:
    """Readable JSON with a final newline; NaN is refused rather than written."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def clear_temporaries(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder` (its lock is held, so nobody else writes
    there).
    """
    for leftover in [*folder.rglob(".*.tmp"), *folder.rglob(".*.tmp.*")]:
        _remove(leftover)
