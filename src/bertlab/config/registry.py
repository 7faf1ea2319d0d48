"""Find components by file name: `optimizers/lion.py` is `optimizer=lion`.

Four groups are folders in which every file is an option (`models objectives optimizers trackers`), and so are
the kinds of columns (`data/kinds`); the others are a short table below. Folders named in the environment's
BERTLAB_PLUGINS (separated like PATH) are searched too: each may hold `models/ objectives/ optimizers/
trackers/ kinds/` with Python files and `conf/` with presets. Only the options that a config names are
imported, so that help and config errors do not wait for what they do not use.
"""

import ast
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bertlab import promises
from bertlab.config import schema
from bertlab.declarations import Kind
from bertlab.errors import ConfigError, did_you_mean

ROOT = Path(__file__).parents[1]
# group -> folder of ours, of a plugin, and what its one class derives from
FOLDERS: dict[str, tuple[str, str, type]] = {
    "model": ("models", "models", schema.ModelConfig),
    "objective": ("objectives", "objectives", schema.ObjectiveConfig),
    "optimizer": ("optimizers", "optimizers", schema.OptimizerConfig),
    "tracker": ("trackers", "trackers", schema.TrackerConfig),
    "kind": ("data/kinds", "kinds", Kind),
}
COMPONENT_ROOMS = ("models", "objectives", "optimizers")  # whose files' content is in a run's identity
GROUPS = {
    "model": "the encoder and its size",
    "dataset": "what is read",
    "tokenizer": "how text becomes ids",
    "objective": "what is learned",
    "optimizer": "how weights move",
    "schedule": "the learning rate over time",
    "budget": "how much training",
    "init": "the first weights",
    "compute": "where and how fast",
    "tracker": "where progress is logged",
    "experiment": "a whole study's recipe",
    "suite": "tasks that are run and reported together: bertlab -m suite=…",
    "search": "a search space for a sweep with Optuna: bertlab -m search=…",
    "debug": "quick checks of any recipe",
}
TABLE = {
    "dataset": {
        "table": "bertlab.data.tables.table:TableDataset",
        "synthetic": "bertlab.data.synthetic:Synthetic",
        "mixture": "bertlab.data.mixture:Mixture",
    },
    "tokenizer": {
        "wordlevel": "bertlab.data.tokenizer_options:WordLevel",
        "wordpiece": "bertlab.data.tokenizer_options:WordPiece",
        "bpe": "bertlab.data.tokenizer_options:Bpe",
        "unigram": "bertlab.data.tokenizer_options:Unigram",
        "pretrained": "bertlab.data.tokenizer_options:GivenTokenizer",
        "inherited": "bertlab.data.tokenizer_options:InheritedTokenizer",
    },
    "schedule": {
        "linear": "bertlab.training.steps.schedule:Linear",
        "cosine": "bertlab.training.steps.schedule:Cosine",
        "constant": "bertlab.training.steps.schedule:Constant",
        "inverse_sqrt": "bertlab.training.steps.schedule:InverseSqrt",
        "wsd": "bertlab.training.steps.schedule:Wsd",
    },
    "init": {
        "scratch": "bertlab.training.init:FromScratch",
        "checkpoint": "bertlab.training.init:FromCheckpoint",
        "stage": "bertlab.training.init:FromStage",
        "pretrained": "bertlab.training.init:FromPretrained",
    },
    "schema": {"train": "bertlab.config.schema:Train", "stage": "bertlab.training.init:FromStage"},
}


def conf_folder() -> Path:
    """The presets: beside the package in a wheel, at the top of a checkout."""
    inside = ROOT / "conf"
    return inside if inside.is_dir() else ROOT.parents[1] / "conf"


def plugin_folders() -> list[Path]:
    """Folders of the user's own components and presets. Raises ConfigError for one that does not exist."""
    folders = [
        Path(item).expanduser().absolute()
        for item in os.environ.get("BERTLAB_PLUGINS", "").split(os.pathsep)
        if item
    ]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"BERTLAB_PLUGINS: {folder} is not a folder")
    return folders


def declared_files(folder: str) -> dict[str, Path]:
    """Name -> file in a folder of conf/ that Hydra does not read (suites, plans of studies); one of a plugin
    before ours.
    """
    places = [conf_folder(), *(plugin / "conf" for plugin in reversed(plugin_folders()))]
    return {file.stem: file for place in places for file in sorted((place / folder).glob("*.yaml"))}


def options(group: str) -> list[str]:
    """Names of the Python options of a group, sorted; empty for a group that has none."""
    if group in FOLDERS:
        return sorted(_files(group))
    return sorted({*TABLE.get(group, {}), *(jobs() if group == "schema" else ())})


def options_of(group: str) -> list[str]:
    """What can be chosen as `group=…`: presets and components, of ours and of plugins."""
    conf = conf_folder()
    try:
        folders = [conf, *(plugin / "conf" for plugin in plugin_folders())]
        names = {file.stem for folder in folders for file in (folder / group).glob("*.yaml")}
        names |= set(options(group)) - {"table"}
    except ConfigError:
        names = {file.stem for file in (conf / group).glob("*.yaml")}
    return sorted(names)


def _files(group: str) -> dict[str, Path]:
    ours, theirs, _ = FOLDERS[group]
    folders = [ROOT / ours, *(plugin / theirs for plugin in plugin_folders())]
    return {
        file.stem: file
        for folder in folders
        for file in sorted(folder.glob("*.py"))
        if not file.stem.startswith("_")
    }


def is_plugin(group: str, option: str) -> bool:
    """Whether an option's file lies in one of the user's folders."""
    return group in FOLDERS and not _files(group)[option].is_relative_to(ROOT)


def source_files(group: str) -> list[Path]:
    """Files of a group's Python options, ours and of plugins; none for what is no group."""
    if group in FOLDERS:
        return list(_files(group).values())
    modules = {place.partition(":")[0] for place in TABLE.get(group, {}).values()}
    return [ROOT.parent.joinpath(*module.split(".")).with_suffix(".py") for module in sorted(modules)]


def load_schema(group: str, option: str) -> Any:
    """The option's dataclass, as an instance with its defaults. Raises ConfigError for an unknown option or a
    file without one.
    """
    if group in FOLDERS:
        kind: Any = _load_class(group, option)
        if "__dataclass_fields__" not in vars(kind):
            raise ConfigError(f"{sys.modules[kind.__module__].__file__}: {kind.__name__} must be a dataclass")
        return kind(name=option)
    if group == "schema" and option in jobs() and option not in TABLE[group]:
        return load_job(option).schema()
    if option not in TABLE.get(group, {}):
        raise ConfigError(f"{group}={option}: unknown option, {did_you_mean(option, options(group))}")
    module_name, class_name = TABLE[group][option].split(":")
    kind = getattr(importlib.import_module(module_name), class_name)
    return kind() if group == "schema" else kind(name=option)


def lacking(group: str, option: str) -> list[str]:
    """What the classes in a plugin's file lack of their contracts, as `CLASS.method(…)`; classes that others
    there derive from are not asked.
    """
    if group not in FOLDERS or not is_plugin(group, option):
        return []
    module = _load_file(group, option)
    own = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and item.__module__ == module.__name__
    ]
    return [f"{kind.__name__}.{method}" for kind in _last(own) for method in promises.lacking(kind)]


def _last(kinds: list[type]) -> list[type]:
    """Those that none of the others derives from."""
    return [
        item for item in kinds if not any(issubclass(other, item) and other is not item for other in kinds)
    ]


def load_kind(name: str) -> type[Kind]:
    """How cells of this kind are read. Raises ConfigError for a kind that there is not."""
    kind: type[Kind] = _load_class("kind", name)
    promises.refuse_lacking(kind)
    return kind


def _load_class(group: str, option: str) -> Any:
    """The one class of an option's file that derives from the group's base."""
    base = FOLDERS[group][2]
    module = _load_file(group, option)
    own = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, base) and item.__module__ == module.__name__
    ]
    last = _last(own)
    if len(last) != 1:
        raise ConfigError(
            f"{module.__file__}: needs exactly one class derived from {base.__module__}.{base.__name__}, not"
            f" {len(last)}"
        )
    return last[0]


def _load_file(group: str, option: str) -> ModuleType:
    file = _files(group).get(option)
    if file is None:
        lacking = (
            ""
            if group not in GROUPS or os.environ.get("BERTLAB_PLUGINS")
            else "; is it a plugin's, and BERTLAB_PLUGINS not set?"
        )
        raise ConfigError(
            f"{group}={option}: unknown option, {did_you_mean(option, options(group))}{lacking}"
        )
    if file.is_relative_to(ROOT):
        return importlib.import_module(".".join(("bertlab", *file.relative_to(ROOT).with_suffix("").parts)))
    name = f"bertlab_plugins.{file.parent.name}.{option}"
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
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(file.absolute())
    ]
    return f", line {lines[-1]}" if lines else ""


def option_of(group: str, component: schema.Component) -> str:
    """The option's name: its file's, or its entry in the table."""
    kind = type(component)
    if group in FOLDERS:
        return kind.__module__.rsplit(".", 1)[-1]
    return next(
        option for option, place in TABLE[group].items() if place == f"{kind.__module__}:{kind.__name__}"
    )


# --- jobs -----------------------------------------------------------------------------------------
# A job is one file in jobs/: its docstring is its help (summary, blank line, usage and the rest), `JOB` the
# declaration of what it is.
@dataclass(frozen=True)
class Job:
    """What a job file declares."""

    schema: type[schema.Node]  # its typed config, composed by conf/JOB.yaml
    run: Callable[..., Any]  # run(config, context): the work; what it returns is what a sweeper wants to know
    has_score: bool = False  # that a search could look at


def jobs() -> list[str]:
    """Names of the jobs, `train` first."""
    names = sorted(file.stem for file in (ROOT / "jobs").glob("*.py") if not file.stem.startswith("_"))
    return sorted(names, key=lambda name: name != "train")


def load_job(job: str) -> Job:
    """What the job's file declares; importing it may import torch."""
    declared: Job = importlib.import_module(f"bertlab.jobs.{job}").JOB
    return declared


def job_summary(job: str) -> str:
    """What a job does, in one line; its module is read, not imported, so that help does not wait
    for torch.
    """
    return _job_docstring(job)[0].partition(": ")[2]


def job_help(job: str) -> str:
    """A job's usage."""
    return "\n".join(_job_docstring(job)[2:])


def _job_docstring(job: str) -> list[str]:
    source = (ROOT / "jobs" / f"{job}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or f"`bertlab {job}`: (undescribed)").splitlines()
