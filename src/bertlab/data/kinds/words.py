"""The words of a sentence, as a list."""

from collections.abc import Sequence
from typing import Any

from bertlab.declarations import Kind
from bertlab.errors import DataError


class Words(Kind):
    """See declarations.Kind."""

    holds_text = True

    def arrow_type(self) -> Any:
        """A list of strings."""
        import pyarrow

        return pyarrow.list_(pyarrow.large_string())

    def convert(
        self, cells: Sequence[Any], before: int, names: Sequence[str], about: Sequence[Any] | None
    ) -> list[Any]:
        """As they are."""
        for row, cell in enumerate(cells, start=before + 1):
            if not isinstance(cell, list) or not cell or not all(isinstance(word, str) for word in cell):
                raise DataError(
                    f"{self.column.where}: row {row} holds no list of words in {self.column.named}"
                    f" ({str(cell)[:40]})"
                )
        return list(cells)
