"""The words of a sentence, as a list."""

from collections.abc import Sequence
from typing import Any

from bertlab.data.kinds._cells import IN_PLAIN_TEXT, shown, structure
from bertlab.declarations import Kind
from bertlab.errors import DataError


class Words(Kind):
    """See declarations.Kind."""

    holds_text = True

    def is_blank(self, cell: Any) -> bool:
        """No words."""
        return super().is_blank(cell) or (isinstance(cell, str) and cell.split() in (["[]"], ["[", "]"]))

    def arrow_type(self) -> Any:
        """A list of strings."""
        import pyarrow

        return pyarrow.list_(pyarrow.large_string())

    def convert(
        self, cells: Sequence[Any], before: int, names: Sequence[str], about: Sequence[Any] | None
    ) -> list[Any]:
        """As they are."""
        converted = [structure(cell, self.column, row) for row, cell in enumerate(cells, start=before + 1)]
        for row, cell in enumerate(converted, start=before + 1):
            if not isinstance(cell, list) or not cell or not all(isinstance(word, str) for word in cell):
                raise DataError(
                    f"{self.column.where}: row {row} holds no list of words in {self.column.named}"
                    f" ({shown(cell)}){IN_PLAIN_TEXT if isinstance(cell, str) else ''}"
                )
        return converted
