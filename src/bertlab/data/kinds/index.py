"""Which of a row's texts is the right one: its number among the row's choices, from 0, or the text itself."""

import re
from collections.abc import Sequence
from typing import Any

from bertlab.data.kinds._cells import is_nothing, shown
from bertlab.declarations import Column, Kind
from bertlab.errors import DataError


class Index(Kind):
    """See declarations.Kind. Its role is `about` the role that holds the choices."""

    looks_first = True

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self.given = 0

    def arrow_type(self) -> Any:
        """A number from 0."""
        import pyarrow

        return pyarrow.int64()

    def look(self, cells: Sequence[Any], before: int) -> None:
        """Count what is there."""
        self.given += sum(not is_unanswered(cell) for cell in cells)

    def is_unanswered(self) -> bool:
        """All -1 or empty."""
        return self.given == 0

    def convert(
        self, cells: Sequence[Any], before: int, names: Sequence[str], about: Sequence[Any] | None
    ) -> list[Any]:
        """Numbers; None where the row is left out."""
        choices = about or [None] * len(cells)
        return [
            self._index(cell, texts, row)
            for row, (cell, texts) in enumerate(zip(cells, choices, strict=True), start=before + 1)
        ]

    def _index(self, cell: Any, texts: Sequence[str] | None, row: int) -> int | None:
        column = self.column
        if is_unanswered(cell):
            if column.dataset.drop_unlabelled:
                return None
            raise DataError(
                f"{column.where}: row {row} says in {column.named} of no choice that it is right: leave such"
                " rows out with dataset.drop_unlabelled=true, or label them"
            )
        known, written = list(texts or ()), str(cell).strip()
        if (
            not isinstance(cell, bool)
            and re.fullmatch(r"\d+(\.0+)?", written)
            and (texts is None or int(float(written)) < len(known))
        ):
            return int(float(written))
        if isinstance(cell, str) and known.count(cell) == 1:
            return known.index(cell)
        allowed = f"a number from 0{f' to {len(known) - 1}' if known else ''}"
        raise DataError(
            f"{column.where}: row {row} holds {shown(written)} in {column.named}, which is none of its"
            f" choices: write {allowed}, or one of its choices as it stands"
        )


def is_unanswered(cell: Any) -> bool:
    """Empty, or -1, as benchmarks write it."""
    return is_nothing(cell) or str(cell).strip() in ("-1", "-1.0")
