"""Answers that stand in a text: `{"text": [...], "answer_start": [...]}` as in SQuAD; empty lists say that
there is none.
"""

from collections.abc import Sequence
from typing import Any

from bertlab.data.kinds._cells import is_nothing, shown, structure
from bertlab.declarations import Kind
from bertlab.errors import DataError


class Spans(Kind):
    """See declarations.Kind."""

    def arrow_type(self) -> Any:
        """Texts, and the character where each begins."""
        import pyarrow

        return pyarrow.struct(
            [
                ("text", pyarrow.list_(pyarrow.large_string())),
                ("answer_start", pyarrow.list_(pyarrow.int64())),
            ]
        )

    def convert(
        self, cells: Sequence[Any], before: int, names: Sequence[str], about: Sequence[Any] | None
    ) -> list[Any]:
        """Checked against the text that they are about."""
        column = self.column
        converted = [structure(cell, column, row) for row, cell in enumerate(cells, start=before + 1)]
        for row, (cell, context) in enumerate(
            zip(converted, about or [None] * len(cells), strict=True), start=before + 1
        ):
            if is_nothing(cell) and column.dataset.drop_unlabelled:
                converted[row - before - 1] = None
                continue
            texts, starts = (
                (cell.get("text"), cell.get("answer_start")) if isinstance(cell, dict) else (None, None)
            )
            if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
                raise DataError(
                    f"{column.where}: row {row} holds no answers in {column.named} ({shown(cell)}); write"
                    ' {"text": ["…"], "answer_start": [0]}, with empty lists where there is none'
                )
            if isinstance(context, str) and not context.strip():
                raise DataError(
                    f"{column.where}: row {row}: the text that {column.named} is about is empty; write it, or"
                    " leave the row out"
                )
            if any(isinstance(text, str) and not text.strip() for text in texts):
                raise DataError(
                    f"{column.where}: row {row} holds an empty answer in {column.named}; write its text, or"
                    " empty lists where there is none"
                )
            for text, start in zip(texts, starts, strict=True):
                if (
                    not isinstance(text, str)
                    or not isinstance(start, int)
                    or (context is not None and context[start : start + len(text)] != text)
                ):
                    raise DataError(
                        f"{column.where}: row {row}: the answer {shown(str(text))} does not stand at"
                        f" character {start} of its text"
                    )
        return converted
