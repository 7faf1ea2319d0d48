"""What a run needs to go on as if nothing had happened: one folder `step-000123` a checkpoint.

It holds `weights.safetensors`, `state.pt` (tensors and plain values only, read with `weights_only=True`) and
`manifest.json` with the checksums of both and of the best weights so far, which lie beside it. The newest
whole one wins; a torn one is skipped.
"""

import hashlib
import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from bertlab.errors import RunError
from bertlab.runs.files import (
    file_digest,
    load_weights,
    publish_folder,
    read_json,
    save_weights,
    unusable,
    write_weights,
)

KEPT = 2  # newest checkpoints that stay on disk


@dataclass
class ResumeState:
    """Everything at one step, whose it is, and the file beside the checkpoints that it needs too (the best
    weights), by name and SHA-256.
    """

    run: str  # its id
    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    best: dict[str, str]


def save_checkpoint(folder: Path, state: ResumeState) -> None:
    """Write `folder/step-…`, then drop all but the newest whole ones, and best weights that none of them
    needs.
    """

    def fill(temporary: Path) -> None:
        copied = {name: tensor.detach().cpu().contiguous() for name, tensor in state.weights.items()}
        write_weights(temporary / "weights.safetensors", copied)
        with (temporary / "state.pt").open("wb") as stream:
            digest = _write_state(state.state, stream)
        sums = {"weights.safetensors": file_digest(temporary / "weights.safetensors"), "state.pt": digest}
        (temporary / "manifest.json").write_text(
            json.dumps({"run": state.run, "step": state.step, "sha256": sums, "best": state.best})
        )

    place = folder / f"step-{state.step:08d}"
    if place.exists():
        if _is_whole(place):
            return  # the same step of the same run: identical by construction
        shutil.rmtree(place)
    try:
        publish_folder(place, fill)
    except OSError as error:
        raise unusable(place, error) from error
    folders = _folders(folder)
    for old in folders[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    needed = {name for place in folders[:KEPT] for name in _manifest(place).get("best", {})}
    for file in folder.glob("best-*.safetensors"):
        if file.name not in needed:
            file.unlink(missing_ok=True)


def _write_state(state: dict[str, Any], stream: BinaryIO) -> str:
    """The SHA-256 of what was written. Raises OSError, MemoryError."""
    sink = _Sink(stream)
    try:
        torch.save(state, sink)  # type: ignore[arg-type]  # needs no more of a file than `write`
    except RuntimeError as error:  # torch's word for memory that is not there, or a file that was cut short
        if sink.error is not None:
            raise sink.error from None
        raise MemoryError(f"a checkpoint's state does not fit: {error}") from error
    if sink.error is not None:
        raise sink.error
    return sink.digest.hexdigest()


class _Sink:
    """A file for `torch.save`, which says of a full disk or an interrupt something else: what goes wrong is
    kept until it has ended.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.digest = stream, hashlib.sha256()
        self.error: BaseException | None = None

    def write(self, content: bytes) -> int:
        """Taken for written also where it could not be."""
        try:
            if self.error is None:
                self.digest.update(content)
                self.stream.write(content)
        except BaseException as error:  # raised by who called torch, once torch has ended
            self.error = error
        return len(content)

    def flush(self) -> None:
        """The file is flushed when it is closed."""


def steps_to_resume(folder: Path) -> list[int]:
    """The steps that a run could go on from; 0, its beginning, among them while it has dropped no
    checkpoint.
    """
    places = _folders(folder)
    return [int(place.name[5:]) for place in places if _is_whole(place)] + [0] * (len(places) < KEPT)


def load_checkpoint(folder: Path, run: str, at: int | None = None) -> ResumeState | None:
    """The newest whole checkpoint below `folder`, or None. Torn ones are passed over, and what was written
    after step `at` goes: it will be computed again. Raises RunError for another run's.
    """
    for place in _folders(folder):
        is_whole = _is_whole(place)
        owner = _manifest(place).get("run", run)  # older ones do not say whose they are
        if is_whole and owner != run:
            raise RunError(f"{place}: a checkpoint of another run ({owner}); remove it from here")
        if at is not None and int(place.name[5:]) > at:
            shutil.rmtree(place)
            continue
        if is_whole:
            try:
                state = torch.load(place / "state.pt", weights_only=True, map_location="cpu")
            except (
                pickle.UnpicklingError,
                RuntimeError,
                EOFError,
            ) as error:  # written with checksums of its own, by somebody else
                raise RunError(
                    f"{place}/state.pt: not a checkpoint of this program ({type(error).__name__}); remove"
                    f" {place}"
                ) from None
            manifest = _manifest(place)
            return ResumeState(
                run, manifest["step"], load_weights(place / "weights.safetensors"), state, manifest["best"]
            )
    return None


def best_file(folder: Path, step: int) -> Path:
    """Named by its step: after a kill, weights from beyond the checkpoint are not taken for the checkpoint's
    best.
    """
    return folder / f"best-{step:08d}.safetensors"


def save_best(folder: Path, step: int, weights: dict[str, Tensor]) -> str:
    """Keep the weights of the best validation score so far; the SHA-256 by which `load_best` knows them
    again.
    """
    file = best_file(folder, step)
    save_weights(file, weights)
    return file_digest(file)


def load_best(folder: Path, step: int, sha256: str) -> dict[str, Tensor]:
    """Weights of the best validation score. Raises RunError where they are no longer what was written."""
    file = best_file(folder, step)
    if not file.is_file() or file_digest(file) != sha256:
        raise RunError(
            f"{file}: missing or damaged since it was written; the same command goes on from before it"
        )
    return load_weights(file)


def newest_whole(folder: Path) -> Path | None:
    """The checkpoint that a run would go on from; None where there is none."""
    return next((place for place in _folders(folder) if _is_whole(place)), None)


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint, whole or not; 0 where there is none."""
    return max((int(place.name.partition("-")[2]) for place in _folders(folder)), default=0)


def _folders(folder: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    places = (
        place
        for place in folder.glob("step-*")
        if place.name[5:].isdigit() and place.is_dir() and not place.is_symlink()
    )
    return sorted(places, reverse=True) if folder.is_dir() else []


def _manifest(place: Path) -> dict[str, Any]:
    try:
        content = read_json(place / "manifest.json")
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def _is_whole(place: Path) -> bool:
    try:
        manifest = _manifest(place)
        if manifest["step"] != int(place.name[5:]):
            return False
        sums = {place / name: manifest["sha256"][name] for name in ("weights.safetensors", "state.pt")}
        sums |= {place.parent / name: expected for name, expected in manifest["best"].items()}
        return all(file_digest(file) == expected for file, expected in sums.items())
    except (OSError, KeyError, TypeError, AttributeError):
        return False
