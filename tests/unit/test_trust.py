"""What a stranger's preset may have Hydra call: nothing but what is named here, by its whole name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from bertlab.config.composition import compose_raw
from bertlab.config.trust import LAUNCHERS, SWEEPERS, check_hydra
from bertlab.config.words import read
from bertlab.errors import ConfigError

MODULES = (  # whatever they import could be reached through them
    "hydra_plugins.bertlab_optuna._results", "hydra_plugins.bertlab_optuna._sweep",
    "hydra_plugins.bertlab_optuna.sweeper", "hydra_plugins.bertlab_zip.sweeper",
    "hydra._internal.core_plugins.basic_launcher", "hydra._internal.core_plugins.basic_sweeper",
    "optuna.samplers", "optuna.samplers._gp.sampler", "optuna.pruners", "logging", "logging.handlers",
    "colorlog", *sorted(LAUNCHERS), *sorted(SWEEPERS), "logging.StreamHandler", "colorlog.ColoredFormatter",
)  # fmt: skip
DEEDS = (
    "os.system", "os.mkdir", "torch.load", "Path.touch", "importlib.machinery.SourceFileLoader", "sys.exit",
    "FileHandler", "tempfile._shutil.rmtree", "__init__.__globals__", "TPESampler.__init__", "x",
)  # fmt: skip
CHAINS = st.builds("{}.{}".format, st.sampled_from(MODULES), st.sampled_from(DEEDS))


def with_preset(**body: Any) -> DictConfig:
    """Hydra's own node as a preset leaves it."""
    composed = compose_raw("train", [])
    OmegaConf.set_struct(composed, False)
    for group, node in body.items():
        composed.hydra[group] = node
    hydra: DictConfig = composed.hydra
    return hydra


ROUTES: dict[str, Callable[[str], dict[str, Any]]] = {
    "callbacks": lambda name: {"callbacks": {"x": {"_target_": name}}},
    "argument": lambda name: {"callbacks": {"x": {"_target_": name, "_args_": [{"_target_": name}]}}},
    "launcher": lambda name: {"launcher": {"_target_": name, "command": "true"}},
    "of a launcher": lambda name: {"launcher": {"_target_": sorted(LAUNCHERS)[0], "x": {"_target_": name}}},
    "sweeper": lambda name: {"sweeper": {"_target_": name}},
    "sampler": lambda name: {"sweeper": {"_target_": sorted(SWEEPERS)[0], "sampler": {"_target_": name}}},
    "handler": lambda name: {"job_logging": {"version": 1, "handlers": {"h": {"()": name}}}},
    "class": lambda name: {"hydra_logging": {"version": 1, "handlers": {"h": {"class": name}}}},
    "formatter": lambda name: {"job_logging": {"version": 1, "formatters": {"f": {"()": name}}}},
    "filter": lambda name: {"job_logging": {"version": 1, "filters": {"f": {"()": name}}}},
}


@pytest.mark.parametrize("route", ROUTES)
def test_no_chain_of_attributes_reaches_code(route: str) -> None:
    hydra = with_preset()

    @settings(max_examples=60, deadline=None)
    @given(CHAINS)
    def look(name: str) -> None:
        tree = hydra.copy()
        OmegaConf.set_struct(tree, False)
        for group, node in ROUTES[route](name).items():
            tree[group] = node
        with pytest.raises(ConfigError, match=r"names code|a log to a file"):
            check_hydra(tree)

    look()


@pytest.mark.parametrize(
    "name", ["optuna.samplers._gp.sampler.torch.load", "hydra_plugins.bertlab_optuna._results.Path.touch"]
)
@pytest.mark.parametrize("several", [False, True])
def test_a_strangers_experiment_is_refused_wherever_it_is_composed(
    name: str, several: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bertlab.cli.entry import run_command

    file = tmp_path / "conf" / "experiment" / "x.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"# @package _global_\nhydra: {{callbacks: {{x: {{_target_: {name}}}}}}}\n")
    words = ["-m", "experiment=x,bertsst2"] if several else ["experiment=x"]
    assert run_command(["--config-dir", str(tmp_path / "conf"), *words]) == 2
    assert f"hydra.callbacks.x._target_: names code, {name}" in capsys.readouterr().err


@pytest.mark.parametrize("node", [
    {"x": "${oc.decode:'{_target_: os.mkdir, path: pwned}'}"}, {"x": "${dataset}"}, {"x": {"a": 1}},
])  # fmt: skip
def test_a_callback_is_refused_however_it_is_written(node: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.callbacks\.x: names code"):
        check_hydra(with_preset(callbacks=node))


@pytest.mark.parametrize("handler", [
    {"class": "logging.FileHandler", "filename": "pwned"},
    {"class": "logging.FileHandler", "formatter": "simple", "filename": "pwned"},
    {"class": "logging.StreamHandler", "stream": "ext://sys.stdout.buffer"},
    {"class": "logging.StreamHandler", "stream": "ext://os.environ"},
    {"class": "logging.StreamHandler", ".": {"stream": "x"}},
    {"class": "logging.StreamHandler", "stream": "${dataset}"},
    "${oc.decode:'{class: logging.FileHandler, filename: pwned}'}",
])  # fmt: skip
def test_a_log_goes_where_hydras_own_go(handler: Any) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.job_logging\.handlers\.h"):
        check_hydra(with_preset(job_logging={"version": 1, "handlers": {"h": handler}}))


def test_a_launchers_shell_lines_come_from_the_command_line_or_a_plugin_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm: Any = OmegaConf.to_container(compose_raw("train", read(["hydra/launcher=slurm"])).hydra.launcher)
    for harm in (
        {"setup": ["touch pwned"]},
        {"partition": "gpu\ntouch pwned #"},
        {"additional_parameters": {"mail-type\ntouch pwned\n": "END"}},
    ):
        with pytest.raises(ConfigError, match=rf"hydra\.launcher\.{next(iter(harm))}"):
            check_hydra(with_preset(launcher={**slurm, **harm}))
    compose_raw("train", read(["hydra/launcher=slurm", "hydra.launcher.setup=[module load cuda]"]))
    site = tmp_path / "conf" / "hydra" / "launcher" / "site.yaml"
    site.parent.mkdir(parents=True)
    site.write_text("defaults: [slurm, _self_]\nsetup: [module load cuda]\n")
    monkeypatch.setenv("BERTLAB_PLUGINS", str(tmp_path))
    compose_raw("train", read(["hydra/launcher=site"]))


@pytest.mark.parametrize("words", [
    ["hydra/launcher=cores"], ["hydra/launcher=queue"], ["hydra/launcher=slurm"], ["search=lr_batch"],
    ["hydra/sweeper=bertlab_optuna"], ["hydra/sweeper=bertlab_zip"], ["hydra/job_logging=default"],
    ["hydra/job_logging=stdout"], ["hydra/hydra_logging=default"], ["hydra/hydra_logging=hydra_debug"],
    ["hydra/job_logging=disabled"],
])  # fmt: skip
def test_what_is_installed_and_documented_stays(words: list[str]) -> None:
    compose_raw("train", read(words))
