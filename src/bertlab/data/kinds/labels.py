"""A set of classes a row: a list of names (JSONL, Parquet), or names in one text with
`dataset.labels_separator` between them.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bertlab.data.kinds._cells import OPENING, shown, structure
from bertlab.data.kinds.label import given_names, raw_label
from bertlab.declarations import Column, Kind
from bertlab.errors import DataError, did_you_mean


class Labels(Kind):
    """See declarations.Kind."""

    looks_first = True
    classes = "several"

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self.counts: Counter[str] = Counter()
        self.rows = self.missing = 0

    def arrow_type(self) -> Any:
        """Class ids, sorted."""
        import pyarrow

        return pyarrow.list_(pyarrow.int64())

    def as_text(self, value: Any) -> Any:
        """Names with the separator between them; as JSON where that would be read otherwise, and where there
        are none: nothing written is no set.
        """
        mark = self.column.dataset.labels_separator
        joined = mark.join(value) if isinstance(value, list) and all(map(_is_text, value)) else ""
        reads_alike = (
            joined != ""
            and not joined.startswith(OPENING)
            and joined.split(mark) == value
            and all(name == name.strip() != "" for name in value)
        )
        return joined if reads_alike else super().as_text(value)

    def look(self, cells: Sequence[Any], before: int) -> None:
        """Count every class."""
        for row, cell in enumerate(cells, start=before + 1):
            classes = self._set(cell, row)
            self.rows += 1
            self.missing += classes is None
            self.counts.update(classes or ())

    def is_unanswered(self) -> bool:
        """Every cell is empty of a set (an empty set is one)."""
        return self.missing == self.rows

    def names(self, declared: Sequence[str] | None) -> list[str]:
        """Configured, declared by the data, or those of the training split."""
        return given_names(self.column, declared) or sorted(self.counts)

    def convert(
        self, cells: Sequence[Any], before: int, names: Sequence[str], about: Sequence[Any] | None
    ) -> list[Any]:
        """Sorted ids; None where the row is left out."""
        ids = {raw_label(name): index for index, name in enumerate(names)}
        known = (
            ids
            if any(name.isdigit() for name in names)
            else {**{str(index): index for index in range(len(names))}, **ids}
        )
        converted: list[list[int] | None] = []
        for row, cell in enumerate(cells, start=before + 1):
            classes = self._set(cell, row)
            if classes is None and not self.column.dataset.drop_unlabelled:
                raise DataError(
                    f"{self.column.where}: row {row} has no set of classes in {self.column.named}: leave such"
                    " rows out with dataset.drop_unlabelled=true, or write an empty list"
                )
            if unknown := [name for name in classes or () if name not in known]:
                raise DataError(
                    f"{self.column.where}: '{unknown[0]}' in {self.column.named} (row {row}) is not a known"
                    f" class, {did_you_mean(unknown[0], names)}"
                )
            converted.append(None if classes is None else sorted(known[name] for name in classes))
        return converted

    def _set(self, cell: Any, row: int) -> list[str] | None:
        """Different raw names, None for no set at all."""
        if cell is None:
            return None
        cell = structure(cell, self.column, row)
        if isinstance(cell, str):
            cell = [part for part in cell.split(self.column.dataset.labels_separator) if part.strip()]
        if not isinstance(cell, list) or any(
            isinstance(name, list | dict | bytes | float) or name is None for name in cell
        ):
            raise DataError(
                f"{self.column.where}: row {row} holds {shown(cell)}, no set of classes, in"
                f" {self.column.named}"
            )
        return list(dict.fromkeys(raw_label(name) for name in cell))


def _is_text(name: Any) -> bool:
    return isinstance(name, str)
