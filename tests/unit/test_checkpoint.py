"""Checkpoints are whole or not there; the newest whole one wins; nothing unpickles code."""

from pathlib import Path

import pytest
import torch

from bertlab.runs.files import Checkpoint, load_checkpoint, load_weights, save_checkpoint, save_weights, write_atomically
from bertlab.errors import RunError


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((3,), float(step))}, {"progress": {"step": step}, "rng": {"cpu": torch.get_rng_state()}})


def test_newest_whole_checkpoint_wins(tmp_path: Path) -> None:
    for step in (1, 2, 30):
        save_checkpoint(tmp_path, checkpoint(step))
    found = load_checkpoint(tmp_path)
    assert found is not None and found.step == 30 and found.weights["w"].tolist() == [30.0] * 3
    assert len(list(tmp_path.iterdir())) == 2, "older ones are dropped"


@pytest.mark.parametrize("victim", ["weights.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path: Path, victim: str, damage: str) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, checkpoint(step))
    file = tmp_path / "step-00000002" / victim
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    found = load_checkpoint(tmp_path)
    assert found is not None and found.step == 1


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, fail)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"] and target.read_text() == "old"


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))

    class Evil:
        def __reduce__(self) -> object:
            return Path.touch, (tmp_path / "owned",)

    place = tmp_path / "step-00000001"
    torch.save({"x": Evil()}, place / "state.pt")
    manifest = (place / "manifest.json").read_text()
    from hashlib import sha256

    old = manifest.split('"state.pt": "')[1][:64]
    (place / "manifest.json").write_text(manifest.replace(old, sha256((place / "state.pt").read_bytes()).hexdigest()))
    with pytest.raises(Exception, match=r"[Ww]eights.only|Unsupported"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", {"w": torch.ones(10)})
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-8])
    with pytest.raises(RunError, match=r"w\.safetensors: damaged"):
        load_weights(tmp_path / "w.safetensors")
