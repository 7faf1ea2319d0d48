"""Whether a component keeps its contract: the methods that it must have, and what they return.

Our code asks where it first receives a value; a promise that is broken names file, class and method.
"""

import dataclasses
import functools
import inspect
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FunctionType, NoneType
from typing import Any, get_args

from bertlab.errors import ConfigError


def expect(value: Any, kind: Any, who: object, method: str) -> Any:
    """`value`, which `who.method` returned and which must be of this kind (or one of a union). Raises
    ConfigError.
    """
    if isinstance(value, kind):
        return value
    raise broken(who, method, f"returned {told(value)}", f"it must return {in_words(kind)}")


def built(value: Any, kind: Any, who: object, method: str) -> Any:
    """The same for a component, which must also have every method of its contract."""
    expect(value, kind, who, method)
    refuse_lacking(type(value))
    return value


def broken(who: object, method: str, what: str, right: str) -> ConfigError:
    """What a method did, where it is written, and what is right."""
    classes = type(who).__mro__
    owner = next((kind for kind in classes if method in vars(kind)), classes[0])
    return ConfigError(f"{inspect.getfile(owner)}: {owner.__name__}.{method} {what}; {right}")


def refuse_lacking(kind: type) -> None:
    """Raises ConfigError where a class lacks methods of its contract."""
    if names := lacking(kind):
        raise ConfigError(
            f"{inspect.getfile(kind)}: {kind.__name__} lacks {', '.join(names)}, which its contract asks for"
            " (docs/reference/contracts.md)"
        )


def refuse_inherited(kind: type, contract: type, method: str, declared: str) -> None:
    """Raises ConfigError where a class declares what this method answers for and leaves it to its contract,
    which can only refuse.
    """
    if getattr(kind, method) is getattr(contract, method):
        raise ConfigError(
            f"{inspect.getfile(kind)}: {kind.__name__} lacks {called(getattr(contract, method))}, which"
            f" {declared} asks for (docs/reference/contracts.md)"
        )


@functools.cache
def lacking(kind: type) -> tuple[str, ...]:
    """Methods of its contract, each with its arguments, that a class does not override: those that a contract
    marks by `abc.abstractmethod`.
    """
    methods = (method for _, method in inspect.getmembers(kind, inspect.isfunction))
    return tuple(called(method) for method in methods if is_required(method))


def is_required(method: FunctionType) -> bool:
    """Whether a contract leaves it to the component."""
    return "__isabstractmethod__" in vars(method)


def called(method: FunctionType) -> str:
    """`loss(outputs, batch)`."""
    names = [name.lstrip("_") for name in list(inspect.signature(method).parameters)[1:]]
    return f"{method.__name__}({', '.join(names)})"


# --- in words -------------------------------------------------------------------------------------
def told(value: Any) -> str:
    """What a value is."""
    return "None" if value is None else f"a value of type {type(value).__qualname__}"


def in_words(kind: Any) -> str:
    """A type, with the fields that it must be given: `bertlab.contracts.Loss(total, count)`."""
    if parts := get_args(kind):
        return " or ".join(map(in_words, parts))
    if kind is NoneType:
        return "None"
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if not dataclasses.is_dataclass(kind):
        return str(name)
    missing = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    needed = (item.name for item in fields if item.default is missing and item.default_factory is missing)
    return f"{name}({', '.join(needed)})"


def lies_in(kind: type, folders: Sequence[Path]) -> bool:
    """Whether a class is written in one of these folders."""
    return any(Path(inspect.getfile(kind)).is_relative_to(folder) for folder in folders)


def place_within(error: BaseException, folders: Sequence[Path]) -> str:
    """`FILE, line N`, the last place in these folders that an error came through; empty where it came through
    none.
    """
    places: Iterable[Any] = reversed(traceback.extract_tb(error.__traceback__))
    return next(
        (
            f"{frame.filename}, line {frame.lineno}"
            for frame in places
            if any(Path(frame.filename).is_relative_to(folder) for folder in folders)
        ),
        "",
    )
