"""What a preset may not do, whoever wrote it: bring code through Hydra's own node, read the environment, set
it.

YAML from outside is data. Code comes from installed packages and from the folders of BERTLAB_PLUGINS alone
(SECURITY.md).
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from yaml import MarkedYAMLError

from bertlab.config import registry
from bertlab.errors import ConfigError, hide_passwords

READ = (  # what `${oc.env:…}` may read: places and a job's number, nothing that a site keeps secret
    "BERTLAB_CACHE", "BERTLAB_DATA", "HOME", "HOSTNAME", "LOGNAME", "SCRATCH", "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_ID", "SLURM_PROCID",
    "TMPDIR", "USER",
)  # fmt: skip
SET = (  # what `hydra.job.env_set` may set
    "BERTLAB_SIDE_BY_SIDE", "CUDA_VISIBLE_DEVICES", "HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE",
    "MKL_NUM_THREADS", "OMP_NUM_THREADS",
    "TOKENIZERS_PARALLELISM", "WANDB_MODE",
)  # fmt: skip
MOST_NODES = 100_000  # of a preset; ours have dozens
LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_plain_load = OmegaConf.load
LAUNCHERS = frozenset({  # whole names: what a module imports could be reached through it
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
})  # fmt: skip
SWEEPERS = frozenset({
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "hydra_plugins.bertlab_optuna.sweeper.BertlabOptuna",
    "hydra_plugins.bertlab_zip.sweeper.BertlabZip",
})  # fmt: skip
LOGGING = frozenset({"logging.StreamHandler", "logging.FileHandler", "colorlog.ColoredFormatter"})
CALLED: dict[str, frozenset[str]] = {
    "callbacks": frozenset(), "launcher": LAUNCHERS, "sweeper": SWEEPERS, "hydra_logging": LOGGING,
    "job_logging": LOGGING,
}  # fmt: skip
STREAM_KEYS = {"class", "formatter", "level", "filters", "stream"}
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
LOG_FILES: tuple[dict[str, Any], ...] = (  # Hydra's own
    {"class": "logging.FileHandler", "formatter": "simple",
     "filename": "${hydra.runtime.output_dir}/${hydra.job.name}.log"},
    {"class": "logging.FileHandler", "mode": "w", "formatter": "simple",
     "filename": "hydra-${hydra.job.name}.log", "delay": True},
)  # fmt: skip
CODE = ("_target_", "()", "class", "factory")  # keys whose value Hydra, or logging.config, calls


def guard_environment() -> None:
    """Replace OmegaConf's `oc.env`, which reads every variable, by one that reads those of `READ`; harmless
    when repeated.
    """
    OmegaConf.register_new_resolver("oc.env", _read, replace=True)


def _read(name: str, *default: str) -> str | None:
    if name not in READ:
        raise ConfigError(
            f"${{oc.env:{name}}}: a config may read {', '.join(READ)} of the environment; write the value"
            " itself"
        )
    if name not in os.environ and not default:
        raise ConfigError(
            f"${{oc.env:{name}}}: the environment has no {name}; set it, or write ${{oc.env:{name},DEFAULT}}"
        )
    return os.environ.get(name, *default)


def guard_files() -> None:
    """Let OmegaConf load no YAML that unfolds to more than any config; harmless when repeated."""
    OmegaConf.load = staticmethod(load)  # type: ignore[assignment]  # Hydra's own reading goes there, too


def load(file: Any) -> Any:
    """As OmegaConf loads a file or stream. Raises YAMLError for one that unfolds to more than any config."""
    if isinstance(file, str | Path):
        with Path(file).open(encoding="utf-8") as stream:
            return load(stream)
    check_unfolded(file)
    file.seek(0)
    return _plain_load(file)


def check_unfolded(stream: Any) -> None:
    """Raises YAMLError for what refers to itself, or repeats by reference until it fills the memory."""
    sizes: dict[str, int] = {}  # of what has been anchored
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]  # anchor and size so far, the outermost first
    for event in _events(stream):
        size = 0
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise MarkedYAMLError(
                    problem=f"*{event.anchor} means itself, or nothing", problem_mark=event.start_mark
                )
            size = sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            if anchor:
                sizes[anchor] = size
        anchor, before = open_nodes.pop()
        open_nodes.append((anchor, before + size))
        if before + size > MOST_NODES:
            problem = f"its references unfold to more than {MOST_NODES:,} values"
            raise MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _events(stream: Any) -> Iterator[Any]:
    try:
        yield from yaml.parse(stream, Loader=LOADER)
    except yaml.YAMLError:  # whoever loads it says what is wrong
        return


def hide_storage(hydra: DictConfig) -> None:
    """Keep the password of a search's storage to ourselves."""
    plain = OmegaConf.to_container(hydra, resolve=False)
    sweeper = plain.get("sweeper") if isinstance(plain, dict) else None  # or what a word made of it
    address = sweeper.get("storage") if isinstance(sweeper, dict) else None
    if isinstance(address, str):
        hide_passwords(address, is_address=True)


def check_hydra(hydra: DictConfig) -> None:
    """Hydra's own node names nothing to call but the launchers and sweepers that are in use, and Hydra's own
    logs. Raises ConfigError.
    """
    tree: Any = OmegaConf.to_container(hydra, resolve=False)
    for group, allowed in CALLED.items():
        if tree.get(group) is not None and not isinstance(tree[group], dict):
            raise ConfigError(
                f"hydra.{group}={tree[group]}: not a group of keys; choose an option as hydra/{group}=…"
            )
        _check_calls(tree.get(group), f"hydra.{group}", allowed)
        if group.endswith("logging"):
            _check_logs(tree.get(group), f"hydra.{group}")
    for name, callback in (tree.get("callbacks") or {}).items():
        raise ConfigError(_names_code(f"hydra.callbacks.{name}", callback))
    given = [word.lstrip("+").partition("=")[0] for word in tree["overrides"]["hydra"]]
    _check_shell(tree, given)
    if (space := (tree.get("sweeper") or {}).get("space")) is not None and "hydra.sweeper.space" not in given:
        raise ConfigError(
            f"hydra.sweeper.space={space}: names code, which presets do not bring; write it on the command"
            " line"
        )
    for name in (tree.get("job") or {}).get("env_set") or {}:
        if name not in SET:
            raise ConfigError(
                f"hydra.job.env_set.{name}: a config may set {', '.join(SET)}; set it in the shell instead"
            )


def _names_code(where: str, value: Any) -> str:
    return (
        f"{where}: names code, {value}; presets bring none: put it into a plugin folder (BERTLAB_PLUGINS) or"
        " an installed package"
    )


def _children(node: Any) -> Iterable[tuple[Any, Any]]:
    return node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()


def _check_calls(node: Any, path: str, allowed: frozenset[str]) -> None:
    for key, value in _children(node):
        where = f"{path}.{key}"
        if key in CODE and not (isinstance(value, str) and value in allowed):
            raise ConfigError(_names_code(where, value))
        _check_calls(value, where, allowed)


def _check_logs(node: Any, path: str) -> None:
    """Logs go where Hydra's own go; what stands there stands there as written, since a reference could bring
    keys that nobody has checked.
    """
    if isinstance(node, dict):
        if "logging.FileHandler" in node.values() and node not in LOG_FILES:
            raise ConfigError(
                f"{path}: a log to a file is Hydra's own, as hydra/job_logging=default has it; leave it out"
            )
        if "logging.StreamHandler" in node.values() and (odd := sorted(set(map(str, node)) - STREAM_KEYS)):
            raise ConfigError(f"{path}.{odd[0]}: a StreamHandler has {', '.join(sorted(STREAM_KEYS))} alone")
    for key, value in _children(node):
        where = f"{path}.{key}"
        if isinstance(value, str):
            if value.startswith(("ext://", "cfg://")) and value not in STREAMS:
                raise ConfigError(f"{where}={value}: a log goes to {' or '.join(STREAMS)}")
            if value.strip().startswith("${") and value.strip().endswith("}"):
                raise ConfigError(f"{where}={value}: refers to something else; write the value itself")
        _check_logs(value, where)


def _check_shell(tree: Any, given: list[str]) -> None:
    """Lines that a launcher hands to a shell come from the command line or a plugin folder alone."""
    launcher = tree.get("launcher") or {}
    lines = launcher.get("setup")
    if lines and "hydra.launcher.setup" not in given:
        choice = (tree.get("runtime") or {}).get("choices", {}).get("hydra/launcher")
        files = [folder / f"conf/hydra/launcher/{choice}.yaml" for folder in registry.plugin_folders()]
        if not any(lines == (_plain(file) or {}).get("setup") for file in files if file.is_file()):
            raise ConfigError(
                f"hydra.launcher.setup={lines}: names code, which presets do not bring; write it on the"
                " command line, or hydra/launcher/NAME.yaml into a plugin folder (BERTLAB_PLUGINS)"
            )
    for key, value in launcher.items():
        if key != "setup" and any("\n" in text or "\r" in text for text in _texts(value)):
            raise ConfigError(f"hydra.launcher.{key}: holds a line break, which would begin a shell's line")


def _plain(file: Path) -> Any:
    return OmegaConf.to_container(load(file), resolve=False)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for key, value in _children(node):
        yield str(key)
        yield from _texts(value)
