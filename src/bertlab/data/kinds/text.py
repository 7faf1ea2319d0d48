"""A text; of a column of words, the words joined by spaces."""

from collections.abc import Sequence
from typing import Any

from bertlab.data.cleaning import CLEANERS
from bertlab.data.kinds._cells import a_kind, shown, structure
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
            lists = (structure(cell, column, row) for row, cell in enumerate(cells, start=before + 1))
            cells = [_joined(cell) for cell in lists]
        for row, cell in enumerate(cells, start=before + 1):
            if cell is None:
                raise DataError(
                    f"{column.where}: row {row} has no text in {column.named}; drop or fill such rows"
                )
            if not isinstance(cell, str):
                raise DataError(
                    f"{column.where}: row {row} holds {a_kind(cell)} ({shown(cell)}), not text, in"
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


def _joined(cell: Any) -> Any:
    """Words as one text; what is no list of words as it is."""
    is_words = isinstance(cell, list) and all(isinstance(word, str) for word in cell)
    return " ".join(cell) if is_words else cell
