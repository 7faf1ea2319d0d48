"""A tag for each word of a row: ids or names, as ids in the order of the names, O first."""

from collections.abc import Sequence
from typing import Any

from bertlab.config.declarations import Column, Kind
from bertlab.data.kinds.label import given_names
from bertlab.errors import DataError


class Tags(Kind):
    """See config.declarations.Kind."""

    looks_first = True

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self.seen: set[Any] = set()

    def arrow_type(self) -> Any:
        """Tag ids."""
        import pyarrow

        return pyarrow.list_(pyarrow.int64())

    def look(self, cells: Sequence[Any], before: int) -> None:
        """Every tag."""
        self.seen.update(tag for cell in cells if isinstance(cell, list) for tag in cell if isinstance(tag, str | int))

    def names(self, declared: Sequence[str] | None) -> list[str]:
        """Configured, declared by the data, or those of the training split."""
        if names := given_names(self.column, declared):
            return names
        if not self.seen or not all(isinstance(tag, str) for tag in self.seen):
            raise DataError(f"{self.column.where}: {self.column.named} holds no tag names; name its ids in dataset.label_names")
        return sorted(self.seen, key=lambda tag: (tag != "O", tag[2:], tag))

    def convert(self, cells: Sequence[Any], before: int, names: Sequence[str], about: Sequence[Any] | None) -> list[Any]:
        """Ids, as many as words."""
        known: dict[Any, int] = {**{index: index for index in range(len(names))}, **{name: index for index, name in enumerate(names)}}
        column, converted = self.column, []
        for row, (cell, words) in enumerate(zip(cells, about or [None] * len(cells), strict=True), start=before + 1):
            if not isinstance(cell, list) or (words is not None and len(cell) != len(words)):
                raise DataError(f"{column.where}: row {row} has {len(words or ())} words, but {column.named} holds {str(cell)[:40]}")
            if unknown := [tag for tag in cell if not isinstance(tag, str | int) or tag not in known]:
                raise DataError(
                    f"{column.where}: {unknown[0]!r} in {column.named} (row {row}) is not a known tag; known: {', '.join(names)}"
                )
            converted.append([known[tag] for tag in cell])
        return converted
