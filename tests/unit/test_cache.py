"""The cache: what is damaged there is noticed, told in one line and made again, with equal results; nothing
of it is ever half there.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import bertlab
from bertlab.config.composition import compose_schema
from bertlab.config.schema import Paths
from bertlab.data.material import Material, prepare
from bertlab.errors import RunError
from bertlab.runs.cache import MANIFEST, cached
from tiny import tiny

KINDS = ("tables", "tokenizers", "examples")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of the test's own."""
    monkeypatch.setenv("BERTLAB_CACHE", str(tmp_path / "cache"))
    Path("t.csv").write_text(
        "text,label\n"
        + "".join(f"{word} film {index},{index % 2}\n" for index, word in enumerate("abcdefgh" * 6))
    )
    return tmp_path / "cache"


def config_of(*words: str) -> Any:
    return compose_schema("train", tiny("dataset=files", "dataset.train_file=t.csv", *words, sizes=None))


def content(material: Material) -> dict[str, Any]:
    found: dict[str, Any] = {
        "tokenizer": material.tokenizer.to_json(),
        "labels": material.dataset.label_names,
    }
    for split, examples in material.examples.items():
        found[split] = (
            material.dataset.splits[split]["text"][:],
            examples.tokens.tolist(),
            examples.columns["label"].tolist(),
        )
    return found


def flip(file: Path, place: float = 0.5) -> None:
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x01
    file.write_bytes(content)


def files_of(cache: Path, kind: str) -> list[Path]:
    (folder,) = (cache / kind).iterdir()
    return sorted(folder.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_bit_is_noticed_and_mended(
    kind: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In every file of the entry in turn, its manifest too."""
    whole = content(prepare(config_of()))
    names = [file.name for file in files_of(cache, kind) if file.stat().st_size]
    assert len(names) > 1
    for name in names:
        (folder,) = (place for place in (cache / kind).iterdir() if not place.name.endswith(".damaged"))
        flip(folder / name)
        capsys.readouterr()
        assert content(prepare(config_of())) == whole
        assert capsys.readouterr().out.splitlines() == [f"{folder}: damaged, set aside and made again"]
        assert content(prepare(config_of())) == whole and capsys.readouterr().out == ""


@pytest.mark.parametrize("how", ["gone", "cut", "more"])
def test_files_that_are_missing_short_or_too_many_are_noticed(
    how: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = content(prepare(config_of()))
    file = next(
        file for file in files_of(cache, "examples") if file.name != MANIFEST and file.stat().st_size > 8
    )
    if how == "gone":
        file.unlink()
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-4])
    else:
        (file.parent / "more").write_text("x")
    assert content(prepare(config_of())) == whole
    assert len(re.findall("damaged, set aside", capsys.readouterr().out)) == 1


def test_a_run_on_a_mended_cache_is_the_same_run(cache: Path) -> None:
    words = tiny("dataset=files", "dataset.train_file=t.csv", "budget.steps=3", sizes=None)
    before = bertlab.run([*words, "paths.output=before"])
    for kind in KINDS:
        flip(
            next(file for file in files_of(cache, kind) if file.name != MANIFEST and file.stat().st_size > 8)
        )
    after = bertlab.run([*words, "paths.output=after"])
    assert Path(before.folder).name == Path(after.folder).name
    assert before.summary["metrics"] == after.summary["metrics"]
    assert (Path(before.folder) / "model.safetensors").read_bytes() == (
        Path(after.folder) / "model.safetensors"
    ).read_bytes()


def test_what_fails_while_it_is_made_leaves_nothing(cache: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RunError("no")

    with pytest.raises(RunError, match="no"):
        cached(Paths(), "tables", "key", fill)
    assert not list((cache / "tables").iterdir())


def test_a_manifest_knows_every_file() -> None:
    folder = cached(Paths(), "tables", "key", lambda place: (place / "a").write_text("x"))
    assert set(json.loads((folder / MANIFEST).read_text())) == {"a"}


def test_a_cache_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunError, match=r"paths\.cache=.*cannot be used \(.*\); name another folder$"):
        prepare(config_of(f"paths.cache={tmp_path / 'file'}"))
