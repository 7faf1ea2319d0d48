"""One readable line for what Hydra and OmegaConf complain about: the key, its nearest neighbour, and the file it came from."""

import itertools
import re
import sys
from pathlib import Path
from typing import Any

from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from bertlab.composition import all_keys, conf_folder
from bertlab.errors import did_you_mean, nearest
from bertlab.helptext import GROUPS
from bertlab.registry import plugin_folders


def explain(error: BaseException) -> str:
    """The line that a user reads instead of a traceback."""
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, OverrideParseException):
        return f"command line: cannot read '{error.override}' ({_first(str(error))}); write key=value and quote special characters"
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    place = _place(str(error))
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) or re.search(r"Key '[^']+' (is )?not in", str(error)):
        return _unknown_key(str(error), cause, place)
    if found := re.search(r"Could not override '([^']+)'. No match in the defaults list", str(error)):
        return f"{place}: there is no group '{found.group(1)}' to override, {did_you_mean(found.group(1), GROUPS)}"
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
        line for line in lines if not line.startswith(("In '", "full_key:", "object_type=", "reference_type=", "Error merging override"))
    ]
    return (useful or lines or ["unknown error"])[0].rstrip(".")[:240]


def _place(message: str) -> str:
    """The preset that Hydra was reading, or the command line."""
    if found := re.search(r"In '([^']+)'", message):
        return preset_file(found.group(1))
    if found := re.search(r"Error merging override (\S+)", message):
        return f"command line '{found.group(1)}'"
    return "command line"


def preset_file(name: str) -> str:
    """The file behind `experiment/x`, shortest readable form: where it lies on disk if it can be found."""
    for folder in _further_folders():
        if (folder / f"{name}.yaml").is_file():
            return str(folder / f"{name}.yaml")
    return f"conf/{name}.yaml"


def _further_folders() -> list[Path]:
    """Preset folders beside ours: of plugins, and of --config-dir."""
    given = [Path(after) for word, after in itertools.pairwise(sys.argv) if word in ("--config-dir", "-cd")]
    return [*given, *(folder / "conf" for folder in plugin_folders())]


def _overriding(group: str, option: str) -> str:
    """The preset whose defaults list names this option, where it is not on the command line."""
    if any(word.lstrip("+").startswith(f"{group}=") for word in sys.argv):
        return ""
    for folder in (*_further_folders(), conf_folder()):
        for file in sorted(folder.glob("*/*.yaml")):
            if re.search(rf"/{group}:\s*{re.escape(option)}\s*$", file.read_text(encoding="utf-8"), re.MULTILINE):
                return preset_file(f"{file.parent.name}/{file.stem}")
    return ""


def _missing_option(error: Any) -> str:
    wanted = str(error.missing_cfg_file or "")
    place = _place(str(error))
    group, _, option = wanted.rpartition("/")
    options = list(error.options or [])
    if not group:
        return f"{place}: there is no config '{wanted}', {did_you_mean(wanted, options)}"
    shown = f"{group}={option}"
    source = (
        place if place not in ("command line", "conf/train.yaml", "conf/evaluate.yaml", "conf/predict.yaml") else _overriding(group, option)
    )
    where = f"{source}: " if source else ""
    return f"{where}{shown}: unknown option, {did_you_mean(option, sorted(options), most=20)}"


def _unknown_key(message: str, cause: BaseException, place: str) -> str:
    full = getattr(cause, "full_key", None) or getattr(cause, "key", None)
    if full is None:
        found = re.search(r"full_key: (\S+)", message) or re.search(r"Key '([^']+)'", message)
        full = found.group(1) if found else "?"
    keys = all_keys()
    parent, _, last = str(full).rpartition(".")
    siblings = [key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == parent]
    if near := nearest(last, siblings):
        hint = f"did you mean '{parent}.{near}'?" if parent else f"did you mean '{near}'?"
    elif exact := [key for key in keys if key.rpartition(".")[2] == last]:
        hint = f"did you mean '{exact[0]}'?"
    else:
        hint = did_you_mean(last, siblings or [key for key in keys if "." not in key], most=30)
    return f"{place}: unknown key '{full}', {hint}"
