"""First contact: the default job reaches what is possible, wherever the package is installed from."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import bertlab

ROOT = Path(__file__).parents[2]


def test_default_job_is_within_one_point_of_the_best_possible(cli: Any) -> None:
    status, out, err = cli("compute.threads=1")
    assert status == 0, err
    summary = json.loads((Path(out.splitlines()[-1].removeprefix("run: ")) / "summary.json").read_text())
    for split, bound in (("validation", "best_possible/accuracy"), ("test", "best_possible/test_accuracy")):
        assert summary["metrics"][f"{split}/accuracy"] >= summary["metrics"][bound] - 0.01
    assert "best possible 0.9500" in out and "curves" in out


def test_installed_wheel_brings_its_presets(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    wheel = next((tmp_path / "dist").glob("*.whl"))
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", "import bertlab, sys; sys.argv = ['bertlab', 'debug=smoke', 'compute.threads=1'];"
         "print(bertlab.__file__); from bertlab.cli import main; main()"],
        cwd=tmp_path / "elsewhere", capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site")) and "run: multirun/" in done.stdout
    words = ["-m", "search=lr_batch", "debug=smoke", "compute.threads=1", "hydra.sweeper.n_trials=1", "hydra.sweeper.study_name=s"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-m", "bertlab", *words]
    done = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0 and (tmp_path / "elsewhere/multirun/studies/s/trials.csv").is_file(), done.stderr


def test_module_and_package_agree_on_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "bertlab", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == f"bertlab {bertlab.__version__}"


def test_readme_names_only_what_exists() -> None:
    """Links, and what looks like a place in one of this repository's folders, but for those that runs make."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", readme)
    folders = "|".join(re.escape(place.name) for place in ROOT.iterdir() if place.is_dir() and not place.name.startswith("."))
    paths = re.findall(rf"(?<![\w./~-])((?:{folders})/[\w./-]*[\w/](?![\w*…{{<]))", readme)
    named = {*links, *(path for path in paths if not path.startswith("multirun/"))}
    assert named and not [name for name in named if not (ROOT / name).exists()]
