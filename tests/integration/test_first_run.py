"""First contact: the default job reaches what is possible, wherever the package is installed from."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

import bertlab
from children import PATIENCE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_default_job_is_within_one_point_of_the_best_possible(cli: Any) -> None:
    status, out, err = cli("compute.threads=1")
    assert status == 0, err
    summary = json.loads((Path(out.splitlines()[-1].removeprefix("run: ")) / "summary.json").read_text())
    for split, bound in (("validation", "best_possible/accuracy"), ("test", "best_possible/test_accuracy")):
        assert summary["metrics"][f"{split}/accuracy"] >= summary["metrics"][bound] - 0.01
    assert "best possible 0.9500" in out and "curves" in out


def build(kind: str, source: Path, place: Path) -> Path:
    """The package's wheel or source archive, as pip has it built."""
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(place)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert built.returncode == 0, built.stderr
    (made,) = place.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the checkout."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def content(wheel: Path) -> dict[str, bytes]:
    """Its files, but for what another time of building changes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_source_archive_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """What the next test sees of the wheel holds for an installation from the source archive too; it holds
    the notebook and the tests.
    """
    archive = build("sdist", ROOT, tmp_path / "archive")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert content(build("wheel", unpacked, tmp_path / "again")) == content(wheel)
    assert (
        (unpacked / "constraints.txt").is_file()
        and (unpacked / "experiments/README.md").is_file()
        and (unpacked / "tests").is_dir()
    )


def test_what_the_container_copies_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """The Dockerfile read: its files, its Python, its extras, its pin of torch, its entrypoint."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    steps = [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word.isupper()]
    for *sources, place in (rest.split() for word, rest in steps if word == "COPY"):
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(
                    ROOT / source, tmp_path / "copied" / place, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                (tmp_path / "copied").mkdir(exist_ok=True)
                shutil.copy(ROOT / source, tmp_path / "copied" / place)
    assert content(build("wheel", tmp_path / "copied", tmp_path / "again")) == content(wheel)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (version,) = [re.fullmatch(r"python:([\d.]+)-slim", rest)[1] for word, rest in steps if word == "FROM"]  # type: ignore[index]
    assert SpecifierSet(project["requires-python"]).contains(version)
    defaults = dict(rest.split("=", 1) for word, rest in steps if word == "ARG")
    assert set(defaults["EXTRAS"].split(",")) <= set(project["optional-dependencies"])
    install = next(rest for word, rest in steps if word == "RUN" and "pip install" in rest)
    asked = re.search(r"\$\((grep [^)]+)\)", install)
    assert asked is not None
    pin = subprocess.run(
        ["bash", "-c", asked[1]], cwd=tmp_path / "copied", capture_output=True, text=True, timeout=PATIENCE
    ).stdout.split()
    assert len(pin) == 1 and pin[0].startswith("torch=="), pin
    assert '["bertlab"]' in dict(steps)["ENTRYPOINT"] and "bertlab" in project["scripts"]


def test_installed_wheel_brings_its_presets(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c",
        "import bertlab, sys; sys.argv = ['bertlab', 'debug=smoke', 'compute.threads=1'];"
         "print(bertlab.__file__); from bertlab.cli import main; main()"],
        cwd=tmp_path / "elsewhere", capture_output=True, text=True, timeout=PATIENCE, env={**os.environ,
        "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site")) and "run: multirun/" in done.stdout
    words = [
        "-m",
        "search=lr_batch",
        "debug=smoke",
        "compute.threads=1",
        "hydra.sweeper.n_trials=1",
        "hydra.sweeper.study_name=s",
    ]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "bertlab", *words]
    done = subprocess.run(
        command, cwd=tmp_path / "elsewhere", capture_output=True, text=True, timeout=PATIENCE, env=environment
    )
    assert done.returncode == 0 and (tmp_path / "elsewhere/multirun/studies/s/trials.csv").is_file(), (
        done.stderr
    )


def test_module_and_package_agree_on_the_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bertlab", "--version"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout.strip() == f"bertlab {bertlab.__version__}"


def test_readme_names_only_what_exists() -> None:
    """Links, and what looks like a place in one of this repository's folders, but for those that
    runs make.
    """
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", readme)
    folders = "|".join(
        re.escape(place.name) for place in ROOT.iterdir() if place.is_dir() and not place.name.startswith(".")
    )
    paths = re.findall(rf"(?<![\w./~-])((?:{folders})/[\w./-]*[\w/](?![\w*…{{<]))", readme)
    named = {*links, *(path for path in paths if not path.startswith("multirun/"))}
    assert named and not [name for name in named if not (ROOT / name).exists()]
