"""Find components by file name: `optimizers/lion.py` is `optimizer=lion`.

Four groups are folders in which every file is an option (`models objectives optimizers trackers`); the others are a short table
below. Folders named in the environment's BERTLAB_PLUGINS (separated like PATH) are searched too: each may hold
`models/ objectives/ optimizers/ trackers/` with Python files and `conf/` with presets. Only the options that a config names are
imported, so that help and config errors do not wait for what they do not use.
"""

import ast
import dataclasses
import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from bertlab import config
from bertlab.errors import ConfigError, did_you_mean

FOLDERS = {
    "model": ("models", config.ModelConfig),
    "objective": ("objectives", config.ObjectiveConfig),
    "optimizer": ("optimizers", config.OptimizerConfig),
    "tracker": ("trackers", config.TrackerConfig),
}
TABLE = {
    "dataset": {"table": "bertlab.data.table:Table", "synthetic": "bertlab.data.synthetic:Synthetic"},
    "tokenizer": {
        "wordlevel": "bertlab.data.tokenizer:WordLevel",
        "wordpiece": "bertlab.data.tokenizer:WordPiece",
        "bpe": "bertlab.data.tokenizer:Bpe",
        "unigram": "bertlab.data.tokenizer:Unigram",
        "pretrained": "bertlab.data.tokenizer:Pretrained",
        "inherited": "bertlab.data.tokenizer:Inherited",
    },
    "schedule": {
        "linear": "bertlab.schedule:Linear",
        "cosine": "bertlab.schedule:Cosine",
        "constant": "bertlab.schedule:Constant",
        "inverse_sqrt": "bertlab.schedule:InverseSqrt",
        "wsd": "bertlab.schedule:Wsd",
    },
    "init": {
        "scratch": "bertlab.init:Scratch",
        "checkpoint": "bertlab.init:Checkpoint",
        "stage": "bertlab.init:Stage",
        "pretrained": "bertlab.init:Pretrained",
    },
    "schema": {"train": "bertlab.config:Train", "stage": "bertlab.init:Stage"},
}


def conf_folder() -> Path:
    """The presets: beside the package in a wheel, at the top of a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def plugin_folders() -> list[Path]:
    """Folders of the user's own components and presets. Raises ConfigError for one that does not exist."""
    folders = [Path(item).expanduser().absolute() for item in os.environ.get("BERTLAB_PLUGINS", "").split(os.pathsep) if item]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"BERTLAB_PLUGINS: {folder} is not a folder")
    return folders


def options(group: str) -> list[str]:
    """Names of the Python options of a group, sorted; empty for a group that has none."""
    if group in FOLDERS:
        return sorted(_files(group))
    return sorted({*TABLE.get(group, {}), *(jobs() if group == "schema" else ())})


def _files(group: str) -> dict[str, Path]:
    folder = FOLDERS[group][0]
    roots = [Path(__file__).parent, *plugin_folders()]
    files = [file for root in roots for file in sorted((root / folder).glob("*.py"))]
    return {file.stem: file for file in files if not file.stem.startswith("_")}


def load_schema(group: str, option: str) -> Any:
    """The option's dataclass, as an instance with its defaults. Raises ConfigError for an unknown option or a file without one."""
    if group in FOLDERS:
        base = FOLDERS[group][1]
        module = _load_file(group, option)
        found: list[Any] = [
            item
            for item in vars(module).values()
            if isinstance(item, type) and issubclass(item, base) and item.__module__ == module.__name__
        ]
        if len(found) != 1 or not dataclasses.is_dataclass(found[0]):
            raise ConfigError(
                f"{module.__file__}: needs exactly one dataclass derived from bertlab.config.{base.__name__}, found {len(found)}"
            )
        schema_class: Any = found[0]
        return schema_class(name=option)
    if group == "schema" and option in jobs() and option not in TABLE[group]:
        return load_job(option).Schema()
    if option not in TABLE.get(group, {}):
        raise ConfigError(f"{group}={option}: unknown option, {did_you_mean(option, options(group))}")
    module_name, class_name = TABLE[group][option].split(":")
    schema = getattr(importlib.import_module(module_name), class_name)
    return schema() if group == "schema" else schema(name=option)


def _load_file(group: str, option: str) -> ModuleType:
    file = _files(group).get(option)
    if file is None:
        raise ConfigError(f"{group}={option}: unknown option, {did_you_mean(option, options(group))}")
    folder = FOLDERS[group][0]
    if file.parent.parent == Path(__file__).parent:
        return importlib.import_module(f"bertlab.{folder}.{option}")
    name = f"bertlab_plugins.{folder}.{option}"
    if name in sys.modules and sys.modules[name].__file__ == str(file):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise ConfigError(f"{file}{_line_of(error, file)}: {type(error).__name__}: {error}") from error
        raise
    return module


def _line_of(error: Exception, file: Path) -> str:
    """`, line 3` where importing the user's file failed; empty if the error does not say."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}" if error.filename == str(file.absolute()) else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file.absolute())]
    return f", line {lines[-1]}" if lines else ""


def module_of(component: config.Component) -> ModuleType:
    """The module that declared a config, where its `build` and other functions stand."""
    return sys.modules[type(component).__module__]


def option_of(group: str, component: config.Component) -> str:
    """The option's name: its file's, or its entry in the table."""
    kind = type(component)
    if group in FOLDERS:
        return kind.__module__.rsplit(".", 1)[-1]
    return next(option for option, place in TABLE[group].items() if place == f"{kind.__module__}:{kind.__name__}")


# --- jobs -------------------------------------------------------------------------------------------------------------------
# A job is one file in jobs/: its docstring is its help (summary, blank line, usage and the rest), `Schema` its typed config (composed by
# conf/JOB.yaml), `run(config, context)` the work; what it returns is what a sweeper wants to know.
def jobs() -> list[str]:
    """Names of the jobs, `train` first."""
    names = sorted(file.stem for file in (Path(__file__).parent / "jobs").glob("*.py") if not file.stem.startswith("_"))
    return sorted(names, key=lambda name: name != "train")


def load_job(job: str) -> ModuleType:
    """The job's module."""
    return importlib.import_module(f"bertlab.jobs.{job}")


def job_summary(job: str) -> str:
    """What a job does, in one line; its module is read, not imported, so that help does not wait for torch."""
    return _job_docstring(job)[0].partition(": ")[2]


def job_help(job: str) -> str:
    """A job's usage."""
    return "\n".join(_job_docstring(job)[2:])


def _job_docstring(job: str) -> list[str]:
    source = (Path(__file__).parent / "jobs" / f"{job}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or f"`bertlab {job}`: (undescribed)").splitlines()
