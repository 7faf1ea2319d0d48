"""What every option's dataclass declares, without the code it stands beside: keys, types, defaults, limits,
roles and metrics.

Most components import torch, which takes seconds. Their outlines are plain data that can be kept (by
runs/outlines.py) and read at once: where they are known, composition under `outlined()` refuses typos and
wrong values, keys are completed and help is shown, all before torch is there. A run is always composed of the
dataclasses themselves; an option whose outline cannot be drawn is loaded as ever.
"""

import contextlib
import copy
import dataclasses
import functools
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bertlab.config import registry
from bertlab.config.schema import Node, ObjectiveConfig
from bertlab.declarations import Metric, Role
from bertlab.errors import ConfigError

PLAIN: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "None": types.NoneType,
    "Any": Any,
}
NAMES = {kind: name for name, kind in PLAIN.items()}
HERE = "bertlab.config."  # modules that need no outline, for they are imported without torch

Book = Mapping[str, Mapping[str, Any]]  # group -> option -> outline
_book: Book = {}
_drawn: dict[tuple[str, str], Any] = {}  # the classes made of it so far
_parts: dict[tuple[str, str], Any] = {}  # module and name -> the class made for it
_made: dict[type, tuple[str, str] | None] = {}  # class -> its option; None: of a part of one
_is_outlined = False


class NoOutlineError(Exception):
    """A type or a default that plain data cannot say."""


# --- what is known ------------------------------------------------------------------------------------
def know(book: Book) -> None:
    """From here on these outlines stand for their options wherever keys are asked for; an empty book for
    none.
    """
    global _book
    _book = book
    _drawn.clear()
    _parts.clear()


@contextlib.contextmanager
def outlined() -> Iterator[None]:
    """Within it configs are composed of outlines: to be checked and shown, never to be run."""
    global _is_outlined
    before, _is_outlined = _is_outlined, True
    try:
        yield
    finally:
        _is_outlined = before


def is_outlined() -> bool:
    """Whether configs are composed of outlines here."""
    return _is_outlined


def to_compose(group: str, option: str) -> Any:
    """What Hydra composes a config of: the outline within `outlined()`, else the dataclass itself."""
    return to_ask(group, option) if _is_outlined else registry.load_schema(group, option)


def to_ask(group: str, option: str) -> Any:
    """What to ask for keys, defaults and declarations: an instance of the outline, or of the dataclass where
    there is none. Raises what loading that raises.
    """
    outline = _book.get(group, {}).get(option)
    if outline is None:
        return registry.load_schema(group, option)
    if (group, option) not in _drawn:
        _drawn[group, option] = from_data(outline)
        _made[_drawn[group, option]] = (group, option)
    kind = _drawn[group, option]
    return kind() if group == "schema" else kind(name=option)


def with_code(value: Any) -> Any:
    """A config without outlines: each node is an instance of the dataclass itself. Raises what loading that
    raises.
    """
    if isinstance(value, dict):
        return {key: with_code(part) for key, part in value.items()}
    if isinstance(value, list):
        return [with_code(part) for part in value]
    if not dataclasses.is_dataclass(value):
        return value
    kind: Any = _itself(type(value))
    fields = [item.name for item in dataclasses.fields(value) if item.init]
    return kind(**{name: with_code(getattr(value, name)) for name in fields})


def _itself(kind: Any) -> Any:
    """The dataclass that an outline was drawn of; others as they are."""
    if kind not in _made:
        return kind
    if (place := _made[kind]) is not None:
        return type(registry.load_schema(*place))
    return getattr(sys.modules[kind.__module__], kind.__name__)  # loaded with the option that it is a part of


# --- drawn --------------------------------------------------------------------------------------------
def all_outlines(*, of_plugins: bool) -> dict[str, dict[str, Any]]:
    """The outline of every option of ours, jobs among them, or of every plugin's. All of these files are
    imported; those that fail, and those that plain data cannot say, are left out.
    """
    book: dict[str, dict[str, Any]] = {}
    for group in (*registry.FOLDERS, *registry.TABLE):
        for option in registry.options(group) if group != "kind" else ():
            if registry.is_plugin(group, option) is of_plugins:
                with contextlib.suppress(Exception if of_plugins else NoOutlineError, ConfigError):
                    node = registry.load_schema(group, option)
                    book.setdefault(group, {})[option] = {**to_data(type(node)), **_declared(node)}
    return book


def _declared(node: Any) -> dict[str, Any]:
    """What an objective says of itself beside its keys."""
    if not isinstance(node, ObjectiveConfig):
        return {}
    roles, metrics = map(dataclasses.asdict, node.roles), map(dataclasses.asdict, node.metrics(()))
    return {"roles": list(roles), "metrics": list(metrics)}


def files_of(book: Book) -> set[Path]:
    """Where the classes that the outlines were drawn of are written."""
    kinds = (
        type(registry.load_schema(group, option)) for group, options in book.items() for option in options
    )
    parts = {part for kind in kinds for part in kind.__mro__ if part.__module__ != "builtins"}
    return {Path(inspect.getfile(part)) for part in parts}


def to_data(kind: type) -> dict[str, Any]:
    """A dataclass's outline as JSON has it. Raises NoOutlineError for what it cannot say."""
    if kind.__module__.startswith(HERE):
        return {"class": f"{kind.__module__}:{kind.__name__}"}
    hints = typing.get_type_hints(kind)
    return {
        "module": kind.__module__,
        "name": kind.__name__,
        "doc": inspect.getdoc(kind) or "",
        "base": to_data(_base(kind)),
        "fields": [
            [item.name, _type_to_data(hints[item.name]), *_default_to_data(item), dict(item.metadata)]
            for item in dataclasses.fields(kind)
        ],
    }


def _base(kind: type) -> type:
    """What of its ancestors is known without an outline."""
    return next((part for part in kind.__mro__ if part.__module__.startswith(HERE)), Node)


def _type_to_data(kind: Any) -> Any:
    if kind in NAMES:
        return NAMES[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (list, dict):
        return {origin.__name__: [_type_to_data(part) for part in arguments]}
    if origin in (types.UnionType, typing.Union):
        return {"union": [_type_to_data(part) for part in arguments]}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return to_data(kind)
    raise NoOutlineError(kind)


def _default_to_data(item: Any) -> list[Any]:
    """How it is made, and of what."""
    value: Any = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    if value is dataclasses.MISSING or not item.init:
        raise NoOutlineError(item.name)
    if dataclasses.is_dataclass(value):
        kind: Any = type(value)
        if value != kind():
            raise NoOutlineError(item.name)
        return ["made", to_data(kind)]
    if not _is_plain(value):
        raise NoOutlineError(item.name)
    return ["value", value]


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and _is_plain(part) for key, part in value.items())
    return (
        all(map(_is_plain, value))
        if type(value) is list
        else type(value) in (str, int, float, bool, types.NoneType)
    )


# --- and read back --------------------------------------------------------------------------------------
def from_data(drawn: Mapping[str, Any]) -> Any:
    """Inverse of `to_data`: a dataclass of the same name, with the same fields."""
    if "class" in drawn:
        module, name = drawn["class"].split(":")
        return getattr(importlib.import_module(module), name)
    if (place := (drawn["module"], drawn["name"])) in _parts:
        return _parts[place]
    fields = [
        (name, _type_from_data(kind), _field(how, value, metadata))
        for name, kind, how, value, metadata in drawn["fields"]
    ]
    namespace: dict[str, Any] = {"__doc__": drawn["doc"]}
    if "roles" in drawn:
        metrics = tuple(
            Metric(**{**metric, "bounds": tuple(metric["bounds"])}) for metric in drawn["metrics"]
        )
        namespace |= {
            "roles": tuple(Role(**role) for role in drawn["roles"]),
            "metrics": lambda _self, _names: metrics,
        }
    made = dataclasses.make_dataclass(
        drawn["name"], fields, bases=(from_data(drawn["base"]),), namespace=namespace
    )
    made.__module__ = drawn["module"]
    _made[made], _parts[place] = None, made
    return made


def _type_from_data(kind: Any) -> Any:
    if isinstance(kind, str):
        return PLAIN[kind]
    if "union" in kind:
        return functools.reduce(lambda one, other: one | other, map(_type_from_data, kind["union"]))
    for name, origin in (("list", list), ("dict", dict)):
        if name in kind:
            arguments = tuple(map(_type_from_data, kind[name]))
            return types.GenericAlias(origin, arguments) if arguments else origin
    return from_data(kind)


def _field(how: str, value: Any, metadata: Mapping[str, Any]) -> Any:
    if how == "made":
        return dataclasses.field(default_factory=from_data(value), metadata=metadata)
    if isinstance(value, list | dict):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(value), metadata=metadata)
    return dataclasses.field(default=value, metadata=metadata)
