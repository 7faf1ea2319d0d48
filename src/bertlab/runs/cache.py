"""Cached artefacts (tables, tokenizers, tokenised splits): folders filed under what made them, with a
manifest of checksums.

A folder is used only if every file of its manifest is there with its bytes; a damaged one is set aside, told
in one line, and made again.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bertlab.config.schema import Paths
from bertlab.errors import RunError
from bertlab.runs.files import clear_orphans, file_digest, publish_folder, read_json, write_text
from bertlab.runs.progress import working

MANIFEST, VALUE = "manifest.json", "value.json"


def cache_folder(paths: Paths) -> Path:
    """`paths.cache`, BERTLAB_CACHE, or ~/.cache/bertlab."""
    return Path(paths.cache or os.environ.get("BERTLAB_CACHE") or "~/.cache/bertlab").expanduser()


def cached(paths: Paths, kind: str, key: str, fill: Callable[[Path], object]) -> Path:
    """The folder `kind/key` of the cache, filled by `fill(folder)` where it is not there whole. Raises
    RunError where it cannot be used.
    """
    root = cache_folder(paths)
    folder = root / kind / key
    try:
        with working(f"checking what is cached of {kind}"):
            is_damaged = folder.is_dir() and not _is_whole(folder)
        if is_damaged:
            print(f"{folder}: damaged, set aside and made again", flush=True)
            shutil.rmtree(folder.with_name(f"{key}.damaged"), ignore_errors=True)
            folder.rename(folder.with_name(f"{key}.damaged"))
        if not folder.is_dir():
            clear_orphans(folder.parent)
            publish_folder(folder, lambda temporary: _fill(temporary, fill))
        return folder
    except OSError as error:
        raise RunError(
            f"paths.cache={root}: cannot be used ({error.strerror or error}); name another folder"
        ) from error


def remembered(paths: Paths, kind: str, key: str, compute: Callable[[], Any]) -> Any:
    """What `compute()` gives, JSON-ready: computed once, then read from the cache. Raises RunError as
    `cached` does.
    """
    folder = cached(paths, kind, key, lambda place: write_text(place / VALUE, json.dumps(compute())))
    return read_json(folder / VALUE)


def _fill(temporary: Path, fill: Callable[[Path], object]) -> None:
    fill(temporary)
    sums = {file.name: file_digest(file) for file in sorted(temporary.iterdir())}
    (temporary / MANIFEST).write_text(json.dumps(sums), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    try:
        sums = read_json(folder / MANIFEST)
        return {file.name for file in folder.iterdir()} == {*sums, MANIFEST} and all(
            file_digest(folder / name) == expected for name, expected in sums.items()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return False
