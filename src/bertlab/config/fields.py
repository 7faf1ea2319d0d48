"""What a key of the config is: its type, its range and what it means, made by one function a kind; groups of
keys, and what checks them.

`validate` walks a composed config and reports the first value out of range by its dotted key.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args, get_origin

from bertlab.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from bertlab.config.schema import Train

PARTS = {str: "a text", int: "a whole number", float: "a number"}  # of lists and mappings, in words


# --- fields ---------------------------------------------------------------------------------------
def flag(default: bool, help: str, *, decides: bool = True) -> Any:
    """A yes/no option. One that does not decide results (here and below) is left out of a run's identity."""
    return field(default=default, metadata={"help": help, "decides": decides})


def string(default: str | None, help: str) -> Any:
    """A free string; None means "not set"."""
    return field(default=default, metadata={"help": help})


def choice(default: str | None, *options: str, help: str) -> Any:
    """A string out of a fixed set."""
    return field(default=default, metadata={"help": help, "options": options})


def integer(
    default: int | None, help: str, *, low: int | None = None, high: int | None = None, decides: bool = True
) -> Any:
    """A whole number in [low, high]."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "decides": decides})


def number(
    default: float | None,
    help: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    decides: bool = True,
) -> Any:
    """A real number; `low`/`high` are inclusive bounds, `above`/`below` exclusive ones."""
    return field(
        default=default,
        metadata={"help": help, "low": low, "above": above, "high": high, "below": below, "decides": decides},
    )


def words(help: str, *, decides: bool = True) -> Any:
    """A list of strings, empty by default."""
    return field(default_factory=list, metadata={"help": help, "decides": decides})


def numbers(help: str) -> Any:
    """A list of real numbers, empty by default."""
    return field(default_factory=list, metadata={"help": help})


def mapping(help: str) -> Any:
    """A dictionary, empty by default."""
    return field(default_factory=dict, metadata={"help": help})


def components(group: str, help: str) -> Any:
    """A dictionary of options of a group, empty by default."""
    return field(default_factory=dict, metadata={"help": help, "group": group})


def newer(item: Any) -> Any:
    """A field that came when runs had been made without it: in a run's identity only where it is set, so that
    those keep theirs.
    """
    item.metadata = {**item.metadata, "decides": "set"}
    return item


# --- groups of them -------------------------------------------------------------------------------
@dataclass
class Node:
    """A group of keys."""

    def check(self, path: str) -> None:
        """What only shows when several keys are seen together. Raises ConfigError; `path` is the group's
        dotted key, empty at the top.
        """


@dataclass
class Component(Node):
    """An option of a config group, and what it declares. `name` is its option's, chosen as `group=option`."""

    name: str = string("", "which component this is; chosen as group=option, never set by hand")

    def deciding(self) -> dict[str, Any]:
        """Its keys that decide results, for a run's identity. A file of the user's is known by its content,
        wherever it lies.
        """
        return deciding(self)

    def inputs(self, _run: "Train") -> dict[str, str]:
        """Digests of what it reads from outside the config, by name."""
        return {}


# --- validation -----------------------------------------------------------------------------------
def validate(node: Any, path: str = "", *, values_only: bool = False) -> None:
    """Ranges and choices of every field, then (but for `values_only`) each dataclass's own `check(path)`,
    innermost first.

    Raises ConfigError naming the dotted key, the value and what is allowed.
    """
    for item in dataclasses.fields(node):
        value, key = getattr(node, item.name), f"{path}.{item.name}" if path else item.name
        if dataclasses.is_dataclass(value):
            validate(value, key, values_only=values_only)
        elif value is not None:
            _check_value(key, value, item.metadata)
            _check_parts(key, value, item.type)
    if isinstance(node, Node) and not values_only:
        node.check(path)


def _check_parts(key: str, value: Any, kind: Any) -> None:
    """The parts of a list or mapping, of which OmegaConf lets pass what is no scalar."""
    if get_origin(kind) not in (list, dict) or not isinstance(value, list | dict):
        return
    inner = get_args(kind)[-1]
    for name, held in value.items() if isinstance(value, dict) else enumerate(value):
        if inner in PARTS and isinstance(held, list | dict):
            what = "a list" if isinstance(held, list) else "a mapping"
            raise ConfigError(f"{key}: holds {what} at {name}, where {PARTS[inner]} belongs")
        _check_parts(f"{key}.{name}", held, inner)


def _check_value(key: str, value: Any, rule: Any) -> None:
    options = rule.get("options")
    if options is not None and value not in options:
        raise ConfigError(f"{key}={value}: unknown option, {did_you_mean(str(value), options)}")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if value != value or value in (float("inf"), float("-inf")):
        raise ConfigError(f"{key}={value}: must be a finite number")
    low, high, above, below = (rule.get(bound) for bound in ("low", "high", "above", "below"))
    bounds = (
        (low is not None and value < low, f"at least {low}"),
        (above is not None and value <= above, f"greater than {above}"),
        (high is not None and value > high, f"at most {high}"),
        (below is not None and value >= below, f"less than {below}"),
    )
    for broken, wish in bounds:
        if broken:
            raise ConfigError(f"{key}={value}: must be {wish}")


def deciding(node: Any) -> dict[str, Any]:
    """A config's keys that decide results, nested as they are; each component says which of its own do."""
    tree: dict[str, Any] = {}
    for item in dataclasses.fields(node):
        value, decides = getattr(node, item.name), item.metadata.get("decides", True)
        if decides is True or (decides == "set" and value != _default(item)):
            nested = (
                value.deciding()
                if isinstance(value, Component)
                else deciding(value)
                if dataclasses.is_dataclass(value)
                else value
            )
            tree[item.name] = nested
    return tree


def _default(item: Any) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def valid_keys(schema: Any, path: str = "") -> list[str]:
    """Every dotted key below a dataclass or an instance of one, for suggestions after a typo."""
    keys = []
    for item in dataclasses.fields(schema):
        key = f"{path}.{item.name}" if path else item.name
        keys.append(key)
        if dataclasses.is_dataclass(item.type):
            keys.extend(valid_keys(item.type, key))
    return keys
