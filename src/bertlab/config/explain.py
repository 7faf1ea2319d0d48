"""One readable line for what Hydra and OmegaConf complain about: the key, its nearest neighbour, and the file
it came from.
"""

import dataclasses
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from bertlab.config import outlines
from bertlab.config.composition import all_keys, choices_of, keys_of_components
from bertlab.config.registry import GROUPS, conf_folder, jobs, options_of, plugin_folders
from bertlab.config.schema import COMPONENTS, PLAIN
from bertlab.errors import did_you_mean, nearest


def is_explained(error: BaseException) -> bool:
    """Is it the user's, and for `explain`? What else escapes is a bug of ours."""
    return isinstance(error, HydraException | OmegaConfBaseException | yaml.YAMLError) or (
        isinstance(error, UnicodeDecodeError) and bool(_undecodable_preset())
    )


def explain(error: BaseException, job: str = "train") -> str:
    """The line that a user reads instead of a traceback."""
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return (
            f"command line: cannot read '{error.override}' ({_first(str(error))}); write key=value and quote"
            " special characters"
        )
    if isinstance(error, UnicodeDecodeError):
        return _undecodable_preset()
    if match := re.search(
        r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'(?: requires|\n|$)", str(error)
    ):
        key, _, value = match[1].partition("=")
        return (
            f"command line: {match[1]}: several values; add -m to run each, or quote it if it is one text:"
            f" '{key}=\"{value}\"'"
        )
    if match := re.search(r"Multiple values for ([\w/@.]+)\. To override", str(error)):
        return _second_choice(match.group(1))
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    place = _place(str(error))
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) or re.search(
        r"Key '[^']+' (is )?not in", str(error)
    ):
        return _unknown_key(str(error), cause, place, job)
    if inner := re.search(r"Could not override '\w+@((?:init\.)+\w+)'", str(error)):
        return f"{place}: {inner[1]} describes a pretraining, but there is none: add init=stage"
    if match := re.search(r"Could not override '([^']+)'. No match in the defaults list", str(error)):
        return f"{place}: {_no_group(match[1], job)}"
    if isinstance(cause, OmegaConfBaseException):
        key = getattr(cause, "full_key", None) or getattr(cause, "key", None)
        return f"{place}: {f'{key}: ' if key else ''}{_first(str(cause))}"
    if type(cause).__module__.startswith("yaml"):
        mark = getattr(cause, "problem_mark", None)
        where = f"{mark.name}, line {mark.line + 1}" if mark else place
        return f"{where}: not valid YAML ({getattr(cause, 'problem', None) or _first(str(cause))})"
    key = re.search(r"full_key: (\S+)", str(error))
    return f"{place}: {f'{key.group(1)}: ' if key else ''}{_first(str(error))}"


def _first(message: str) -> str:
    """The first line that says something, without Hydra's own prompts."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    useful = [
        line
        for line in lines
        if not line.startswith(
            ("In '", "full_key:", "object_type=", "reference_type=", "Error merging override")
        )
    ]
    return (useful or lines or ["unknown error"])[0].rstrip(".")[:240]


def _place(message: str) -> str:
    """The preset that Hydra was reading, or the command line."""
    if match := re.search(r"In '([^']+)'", message):
        return preset_file(match.group(1))
    if match := re.search(r"Error merging override (.+)", message):
        return f"command line '{match.group(1)}'"
    return "command line"


def preset_file(name: str) -> str:
    """The file behind `experiment/x`, shortest readable form: where it lies on disk if it can be found."""
    for folder in _further_folders():
        if (folder / f"{name}.yaml").is_file():
            return str(folder / f"{name}.yaml")
    return f"conf/{name}.yaml"


def _further_folders() -> list[Path]:
    """Preset folders beside ours: of plugins, and of --config-dir."""
    # as cli.py writes it
    given = [Path(word.partition("=")[2]) for word in sys.argv if word.startswith("--config-dir=")]
    return [*given, *(folder / "conf" for folder in plugin_folders())]


def _presets() -> list[Path]:
    """Every preset file, those that the command line chooses first."""
    files = [
        file for folder in (*_further_folders(), conf_folder()) for file in sorted(folder.glob("*/*.yaml"))
    ]
    words = [word.lstrip("+") for word in sys.argv]
    return sorted(files, key=lambda file: f"{file.parent.name}={file.stem}" not in words)


def _preset_that_chooses(group: str, option: str | None = None) -> str:
    """The first preset file whose defaults list chooses for a group: this option of it, or any, without
    overriding. Empty if none does.
    """
    for file in _presets():
        with suppress(yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException):
            chosen = choices_of(file)
            if (
                (group in chosen)
                if option is None
                else (option in (chosen.get(group), chosen.get(f"override {group}")))
            ):
                return preset_file(f"{file.parent.name}/{file.stem}")
    return ""


def _undecodable_preset() -> str:
    """The line on a preset that is not UTF-8; empty if all are."""
    for file in _presets():
        try:
            file.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            number = error.object.count(b"\n", 0, error.start) + 1
            return (
                f"{preset_file(f'{file.parent.name}/{file.stem}')}, line {number}: not UTF-8; save the file"
                " as UTF-8"
            )
    return ""


def _second_choice(group: str) -> str:
    place = _preset_that_chooses(group) or "command line"
    return f"{place}: its defaults choose '{group}' a second time; write `- override /{group}: …`"


def _overriding(group: str, option: str) -> str:
    """The preset whose defaults list names this option, where it is not on the command line."""
    given = any(word.lstrip("+").startswith(f"{group}=") for word in sys.argv)
    return "" if given else _preset_that_chooses(group, option)


def _no_group(group: str, job: str) -> str:
    """A group that another job has, or none."""
    files = [file for other in jobs() if other != job and (file := conf_folder() / f"{other}.yaml").is_file()]
    others = [file.stem for file in files if group in choices_of(file)]
    if others:
        return f"{group}=… belongs to bertlab {others[0]}, not to {job}"
    return f"there is no group '{group}' to override, {did_you_mean(group, GROUPS)}"


# component -> its preset for whoever chooses no other: the component alone is not offered
CHOSEN_AS = {"table": "files"}
# first word of their names -> extra that brings them
LAUNCHERS = {"joblib": "joblib", "submitit": "submitit", "ray": "ray"}


def _missing_option(error: Any) -> str:
    wanted = str(error.missing_cfg_file or "")
    place = _place(str(error))
    group, _, option = wanted.rpartition("/")
    options = list(error.options or (options_of(group) if group in GROUPS else []))
    if not group:
        return f"{place}: there is no config '{wanted}', {did_you_mean(wanted, options)}"
    shown = f"{group}={option}"
    if group == "hydra/launcher" and (extra := LAUNCHERS.get(option.partition("_")[0])):
        return f"{shown}: this launcher is not installed; pip install 'bertlab[{extra}]'"
    if inner := next(
        (word for word in sys.argv if word.startswith(f"{group}@init.") and word.endswith(f".{shown}")), ""
    ):
        shown = inner.partition("@")[2]  # as a person writes it: words.py put the group before it
        return f"command line: {shown}: unknown option, {did_you_mean(option, sorted(options), most=20)}"
    is_primary = Path(place).parent == Path("conf") or place == "command line"
    source = _overriding(group, option) if is_primary else place
    where = f"{source}: " if source else ""
    lacking = (
        ""
        if group not in GROUPS or os.environ.get("BERTLAB_PLUGINS")
        else "; is it a plugin's or your own? BERTLAB_PLUGINS is not set"
    )
    return f"{where}{shown}: unknown option, {did_you_mean(option, sorted(options), most=20)}{lacking}"


def _unknown_key(message: str, cause: BaseException, place: str, job: str) -> str:
    full = getattr(cause, "full_key", None) or getattr(cause, "key", None)
    if full is None:
        match = re.search(r"full_key: (\S+)", message) or re.search(r"Key '([^']+)'", message)
        full = match.group(1) if match else "?"
    return f"{place}: unknown key '{full}', {_hint(str(full), place, job)}"


def _groups_of_stage() -> set[str]:
    """What a pretraining within a run has too; of its model it has a few keys alone."""
    names = {item.name for item in dataclasses.fields(outlines.to_ask("schema", "stage"))}
    return (names & {*COMPONENTS, *PLAIN}) - {"model"}


def _hint(full: str, place: str, job: str) -> str:
    """What was meant by a key that is not there, or why it is not."""
    outer, _, inner = full.rpartition("init.")
    if (
        outer.replace("init.", "") == ""
        and inner.partition(".")[0] in _groups_of_stage()
        and "." in inner
        and full.startswith("init.")
    ):
        # in the pretraining that a run describes
        return _hint(inner, place, job).replace("'", f"'init.{outer}", 1)
    keys = [*_keys_of_hydra(full), *all_keys(job)]
    parent, _, last = full.rpartition(".")
    group = full.partition(".")[0]
    if group in ("experiment", "debug") and Path(place).parent.name == group:
        return "for the file lacks its first line: # @package _global_"
    if full in keys:
        owners = [
            CHOSEN_AS.get(option, option)
            for option, its_keys in keys_of_components(group).items()
            if full in its_keys
        ]
        if Path(place).parent.name == group and not _builds_on(place):
            owners = [option for option, its_keys in keys_of_components(group).items() if full in its_keys]
            first = next(iter(owners), "…")
            return (
                f"for the preset builds on no component; add `defaults: [{first}]` at its top (options:"
                f" {', '.join(owners)})"
            )
        return (
            f"which the chosen {group} does not have; it belongs to"
            f" {', '.join(f'{group}={owner}' for owner in owners) or 'another'}"
        )
    if job != "train" and full in all_keys("train"):
        return f"which only train has; {did_you_mean('', [key for key in keys if '.' not in key], most=30)}"
    siblings = [key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == parent]
    if near := nearest(last, siblings):
        return f"did you mean '{parent}.{near}'?" if parent else f"did you mean '{near}'?"
    if exact := [key for key in keys if key.rpartition(".")[2] == last]:
        return (  # not the same key of a pretraining within the run
            f"did you mean '{min(exact, key=lambda key: key.count('.'))}'?"
        )
    return did_you_mean(last, siblings or [key for key in keys if "." not in key], most=30)


def _keys_of_hydra(full: str) -> list[str]:
    """The neighbours of a key of Hydra's own, e.g. `hydra.sweep.dir`; none for ours."""
    from hydra.conf import HydraConf

    parent, _, _ = full.rpartition(".")
    if full.partition(".")[0] != "hydra":
        return []
    if parent == "hydra.sweeper":
        from bertlab.config.describe import keys_of_search

        return [key.name for key in keys_of_search()]
    node = OmegaConf.select(OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)}), parent)
    return [f"{parent}.{key!s}" for key in node] if isinstance(node, DictConfig) else []


def _builds_on(place: str) -> bool:
    """Has the preset a defaults list?"""
    file = Path(place) if Path(place).is_file() else conf_folder().parent / place
    return not file.is_file() or bool(choices_of(file))
