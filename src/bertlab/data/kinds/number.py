"""One number a row, in the file's own unit."""

import math
from collections.abc import Sequence
from typing import Any

from bertlab.data.kinds._cells import is_nothing, shown
from bertlab.declarations import Column, Kind
from bertlab.errors import DataError

LARGEST = 1e19  # squares of larger numbers leave float32, in which models compute


class Number(Kind):
    """See declarations.Kind."""

    looks_first = True
    is_number = True

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self.given = self.missing = 0

    def arrow_type(self) -> Any:
        """A double."""
        import pyarrow

        return pyarrow.float64()

    def look(self, cells: Sequence[Any], before: int) -> None:
        """Count what is there."""
        missing = sum(is_nothing(cell) for cell in cells)
        self.missing += missing
        self.given += len(cells) - missing

    def is_unanswered(self) -> bool:
        """Not one number."""
        return self.given == 0

    def convert(
        self, cells: Sequence[Any], before: int, names: Sequence[str], about: Sequence[Any] | None
    ) -> list[Any]:
        """Numbers; None where the row is left out."""
        return [self._number(cell, row) for row, cell in enumerate(cells, start=before + 1)]

    def _number(self, cell: Any, row: int) -> float | None:
        column = self.column
        if is_nothing(cell):
            if column.dataset.drop_unlabelled:
                return None
            raise DataError(
                f"{column.where}: {self.missing} row{'s have' if self.missing > 1 else ' has'} no number in"
                f" {column.named}, the first is row {row}: leave such rows out with"
                " dataset.drop_unlabelled=true, or fill them"
            )
        try:
            value = math.nan if isinstance(cell, bool) else float(cell)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"{column.where}: row {row} holds {shown(str(cell))}, no number, in {column.named}"
            )
        if abs(value) > LARGEST:
            raise DataError(
                f"{column.where}: row {row} holds {value:g} in {column.named}, whose square is beyond"
                " float32: mend or drop the row, or write the column in another unit"
            )
        return value
