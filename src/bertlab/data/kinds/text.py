"""A text; of a column of words, the words joined by spaces."""

from collections.abc import Sequence
from typing import Any

from bertlab.data.cleaning import CLEANERS
from bertlab.declarations import Kind
from bertlab.errors import DataError


class Text(Kind):
    """See declarations.Kind."""

    holds_text = True

    letters = 0  # that were seen so far

    def arrow_type(self) -> Any:
        """One string."""
        import pyarrow

        return pyarrow.large_string()

    def convert(
        self, cells: Sequence[Any], before: int, names: Sequence[str], about: Sequence[Any] | None
    ) -> list[Any]:
        """Cleaned as the dataset says."""
        column = self.column
        if column.name == column.dataset.tokens_column:
            cells = [" ".join(cell) if isinstance(cell, list) else cell for cell in cells]
        for row, cell in enumerate(cells, start=before + 1):
            if cell is None:
                raise DataError(
                    f"{column.where}: row {row} has no text in {column.named}; drop or fill such rows"
                )
            if not isinstance(cell, str):
                raise DataError(
                    f"{column.where}: row {row} holds {type(cell).__name__} ({str(cell)[:40]}), not text, in"
                    f" {column.named}"
                )
        clean = CLEANERS.get(column.dataset.clean)
        texts = list(cells) if clean is None else [clean(cell) for cell in cells]
        self.letters += sum(len(text.strip()) for text in texts)
        return texts

    def finish(self) -> None:
        """A column without a letter is the wrong one."""
        if self.letters == 0:
            raise DataError(f"{self.column.where}: {self.column.named} holds no text at all")
