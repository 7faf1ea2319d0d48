"""Several texts of a row, of which one is right."""

from collections.abc import Sequence
from typing import Any

from bertlab.data.kinds._cells import IN_PLAIN_TEXT, shown, structure
from bertlab.declarations import Kind
from bertlab.errors import DataError


class Choices(Kind):
    """See declarations.Kind."""

    holds_text = True

    count = 0  # of the first row's

    def arrow_type(self) -> Any:
        """A list of strings."""
        import pyarrow

        return pyarrow.list_(pyarrow.large_string())

    def convert(
        self, cells: Sequence[Any], before: int, names: Sequence[str], about: Sequence[Any] | None
    ) -> list[Any]:
        """As many in every row as in the first, none of them empty."""
        converted = [structure(cell, self.column, row) for row, cell in enumerate(cells, start=before + 1)]
        for row, cell in enumerate(converted, start=before + 1):
            if not isinstance(cell, list) or len(cell) < 2 or not all(isinstance(text, str) for text in cell):
                raise DataError(
                    f"{self.column.where}: row {row} holds no list of two or more texts in"
                    f" {self.column.named} ({shown(cell)}){IN_PLAIN_TEXT if isinstance(cell, str) else ''}"
                )
            if empty := [place for place, text in enumerate(cell, start=1) if not text.strip()]:
                raise DataError(
                    f"{self.column.where}: row {row}: choice {empty[0]} of {len(cell)} is empty in"
                    f" {self.column.named}; write its text, or leave the row out"
                )
            self.count = self.count or len(cell)
            if len(cell) != self.count:
                raise DataError(
                    f"{self.column.where}: row {row} has {len(cell)} choices in {self.column.named}, the rows"
                    f" before it {self.count}"
                )
        return converted
