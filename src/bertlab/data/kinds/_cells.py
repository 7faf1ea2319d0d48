"""What cells of every kind share: lists and objects that stand in plain text."""

import json
from typing import Any

from bertlab.declarations import Column
from bertlab.errors import DataError, shortened

OPENING = ("[", "{")
IN_PLAIN_TEXT = '; CSV and TSV hold lists as JSON, ["a", "b"]'  # the cure where a text stands instead

KINDS: dict[type, tuple[str, str]] = {
    str: ("a text", "texts"),
    int: ("a number", "numbers"),
    float: ("a number", "numbers"),
    list: ("a list", "lists"),
    dict: ("an object", "objects"),
    bool: ("true or false", "true or false"),
}


def structure(cell: Any, column: Column, row: int) -> Any:
    """A cell that is a list or an object. CSV and TSV hold such as JSON, `["a", "b"]`; other cells, texts too
    that begin as neither, are given back as they are. Raises DataError naming the row of what is no JSON.
    """
    if not isinstance(cell, str) or not cell.lstrip().startswith(OPENING):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        raise DataError(
            f"{column.where}: row {row} holds {shown(cell)} in {column.named}, which begins as JSON and is"
            ' none; write lists as ["a", "b"], quote signs within a text as \\"'
        ) from None


def is_nothing(cell: Any) -> bool:
    """No value, or white space."""
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())


def shown(cell: Any) -> str:
    """A cell as an error shows it: texts in quotes, what is long cut with a sign."""
    return shortened(repr(cell), 60)


def a_kind(cell: Any) -> str:
    """What a value is, as a person would say: `a number`."""
    return KINDS.get(type(cell), (f"a {type(cell).__name__}", ""))[0]


def kinds(kind: type) -> str:
    """The same of many: `numbers`."""
    return KINDS.get(kind, ("", kind.__name__))[1]
