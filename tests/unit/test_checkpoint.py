"""Checkpoints are whole or not there; the newest whole one wins; nothing unpickles code."""

import json
from pathlib import Path

import pytest
import torch

from bertlab.errors import RunError
from bertlab.runs.checkpoints import ResumeState, load_checkpoint, save_checkpoint
from bertlab.runs.files import file_digest, load_weights, save_weights, write_atomically


def checkpoint(step: int, best: dict[str, str] | None = None) -> ResumeState:
    state = {"progress": {"step": step}, "rng": {"cpu": torch.get_rng_state()}}
    return ResumeState("a1b2", step, {"w": torch.full((3,), float(step))}, state, best or {})


def best_weights(folder: Path, step: int) -> dict[str, str]:
    """Written as the loop does: a file beside the checkpoints, known by its checksum."""
    file = folder / f"best-{step:08d}.safetensors"
    save_weights(file, {"w": torch.full((3,), -float(step))})
    return {file.name: file_digest(file)}


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
    else:
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content if how == "flip" else content[: len(content) // 2])


def test_newest_whole_checkpoint_wins(tmp_path: Path) -> None:
    for step in (1, 2, 30):
        save_checkpoint(tmp_path, checkpoint(step))
    found = load_checkpoint(tmp_path, "a1b2")
    assert found is not None and found.step == 30 and found.weights["w"].tolist() == [30.0] * 3
    assert len(list(tmp_path.iterdir())) == 2, "older ones are dropped"


@pytest.mark.parametrize("victim", ["weights.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "flip", "gone"])
def test_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path: Path, victim: str, how: str) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, checkpoint(step))
    damage(tmp_path / "step-00000002" / victim, how)
    found = load_checkpoint(tmp_path, "a1b2")
    assert found is not None and found.step == 1


@pytest.mark.parametrize("how", ["cut", "flip", "gone"])
def test_a_checkpoint_whose_best_weights_are_damaged_is_skipped_too(tmp_path: Path, how: str) -> None:
    first = best_weights(tmp_path, 1)
    save_checkpoint(tmp_path, checkpoint(1, first))
    second = best_weights(tmp_path, 2)
    save_checkpoint(tmp_path, checkpoint(2, second))
    damage(tmp_path / next(iter(second)), how)
    found = load_checkpoint(tmp_path, "a1b2")
    assert found is not None and found.step == 1 and found.best == first


def test_best_weights_stay_as_long_as_a_checkpoint_needs_them(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, checkpoint(step, best_weights(tmp_path, 1 if step < 4 else 4)))
    assert {file.name for file in tmp_path.glob("best-*")} == {
        "best-00000001.safetensors",
        "best-00000004.safetensors",
    }
    save_checkpoint(tmp_path, checkpoint(5, best_weights(tmp_path, 4)))
    assert {file.name for file in tmp_path.glob("best-*")} == {"best-00000004.safetensors"}


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(RunError, match=r"a\.txt: cannot be written \(disk full\)"):
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
    (place / "manifest.json").write_text(
        manifest.replace(old, sha256((place / "state.pt").read_bytes()).hexdigest())
    )
    with pytest.raises(RunError, match=r"not a checkpoint of this program \(UnpicklingError\)"):
        load_checkpoint(tmp_path, "a1b2")
    assert not (tmp_path / "owned").exists()


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", {"w": torch.ones(10)})
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-8])
    with pytest.raises(RunError, match=r"w\.safetensors: damaged"):
        load_weights(tmp_path / "w.safetensors")


def test_another_runs_checkpoint_is_refused_and_an_earlier_versions_is_taken(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    with pytest.raises(RunError, match=r"step-00000001: a checkpoint of another run \(a1b2\); remove it"):
        load_checkpoint(tmp_path, "c3d4")
    manifest = tmp_path / "step-00000001" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["run"]
    manifest.write_text(json.dumps(content))
    assert load_checkpoint(tmp_path, "c3d4") is not None
