"""What a preset may not do, whoever wrote it: bring code through Hydra's own node, read the environment, set
it.

YAML from outside is data. Code comes from installed packages and from the folders of BERTLAB_PLUGINS alone
(SECURITY.md).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from yaml import MarkedYAMLError

from bertlab.errors import ConfigError

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
# launchers and sweepers of installed packages
MOST_NODES = 100_000  # of a preset; ours have dozens
LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_plain_load = OmegaConf.load
INSTALLED = ("hydra._internal.core_plugins.", "hydra_plugins.", "optuna.samplers.")
LOGGING = ("logging.", "colorlog.")  # handlers and formatters
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


def check_hydra(hydra: DictConfig) -> None:
    """Hydra's own node names nothing to call but installed launchers, sweepers and Python's logging. Raises
    ConfigError.
    """
    tree: Any = OmegaConf.to_container(hydra, resolve=False)
    for group in ("callbacks", "launcher", "sweeper", "hydra_logging", "job_logging"):
        if tree.get(group) is not None and not isinstance(tree[group], dict):
            raise ConfigError(
                f"hydra.{group}={tree[group]}: not a group of keys; choose an option as hydra/{group}=…"
            )
        allowed = LOGGING if group.endswith("logging") else INSTALLED
        _check_calls(tree.get(group), f"hydra.{group}", allowed)
    given = [word.lstrip("+").partition("=")[0] for word in tree["overrides"]["hydra"]]
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


def _check_calls(node: Any, path: str, allowed: tuple[str, ...]) -> None:
    for key, value in (
        node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    ):
        where = f"{path}.{key}"
        if key in CODE and not (isinstance(value, str) and value.startswith(allowed) and "${" not in value):
            told = (
                f"names code, {value}; presets bring none: put it into a plugin folder (BERTLAB_PLUGINS) or"
                " an installed package"
            )
            raise ConfigError(f"{where}: {told}")
        if (
            isinstance(value, str)
            and "://" in value
            and value.startswith(("ext://", "cfg://"))
            and not value.startswith("ext://sys.std")
        ):
            raise ConfigError(f"{where}={value}: a log goes to ext://sys.stdout or ext://sys.stderr")
        _check_calls(value, where, allowed)
