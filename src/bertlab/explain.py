"""One readable line for what Hydra and OmegaConf complain about: the key, its nearest neighbour, and the file it came from."""

import re
from typing import Any

from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from bertlab.composition import all_keys
from bertlab.errors import did_you_mean, nearest


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
    if isinstance(cause, ConfigKeyError) or "is not in struct" in str(error):
        return _unknown_key(error, cause, place)
    if isinstance(cause, OmegaConfBaseException):
        key = getattr(cause, "full_key", None) or getattr(cause, "key", None)
        return f"{place}: {f'{key}: ' if key else ''}{_first(str(cause))}"
    if type(cause).__module__.startswith("yaml"):
        mark = getattr(cause, "problem_mark", None)
        where = f"{mark.name}, line {mark.line + 1}" if mark else place
        return f"{where}: not valid YAML ({getattr(cause, 'problem', None) or _first(str(cause))})"
    return f"{place}: {_first(str(error))}"


def _first(message: str) -> str:
    """The first line that says something, without Hydra's own prompts."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("In '", "full_key:", "object_type=", "reference_type=", "Error merging override"))]
    return (useful or lines or ["unknown error"])[0].rstrip(".")[:240]


def _place(message: str) -> str:
    """The preset that Hydra was reading, or the command line."""
    if found := re.search(r"In '([^']+)'", message):
        return f"conf/{found.group(1)}.yaml"
    if found := re.search(r"Error merging override (\S+)", message):
        return f"command line '{found.group(1)}'"
    return "command line"


def _missing_option(error: Any) -> str:
    wanted = str(error.missing_cfg_file or "")
    place = _place(str(error))
    group, _, option = wanted.rpartition("/")
    options = [name for name in (error.options or [])]
    if not group:
        return f"{place}: there is no config '{wanted}', {did_you_mean(wanted, options)}"
    shown = f"{group}={option}"
    where = f" in {place}" if place.startswith("conf/") and place != "conf/train.yaml" else ""
    return f"{shown}{where}: unknown option, {did_you_mean(option, sorted(options), most=20)}"


def _unknown_key(error: BaseException, cause: BaseException, place: str) -> str:
    message = str(error)
    override = re.search(r"Could not (?:override|append to config|delete from config)\S* '([^']+)'", message)
    full = override.group(1) if override else getattr(cause, "full_key", None) or getattr(cause, "key", None)
    full = str(full)
    keys = all_keys()
    parent, _, last = full.rpartition(".")
    siblings = [key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == parent] if parent else []
    kind = getattr(cause, "object_type", None)
    if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__") and parent:
        siblings = list(kind.__dataclass_fields__)
    if siblings and nearest(last, siblings):
        hint = f"did you mean '{parent}.{nearest(last, siblings)}'?"
    elif exact := [key for key in keys if key.rpartition(".")[2] == last]:
        hint = f"did you mean '{exact[0]}'?"
    elif close := nearest(full, keys):
        hint = f"did you mean '{close}'?"
    else:
        hint = did_you_mean(last, siblings or [key for key in keys if "." not in key], most=20)
    return f"{place}: unknown key '{full}', {hint}"
