"""Answers that stand in a text: `{"text": [...], "answer_start": [...]}` as in SQuAD; empty lists say that
there is none.
"""

from collections.abc import Sequence
from typing import Any

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
        for row, (cell, context) in enumerate(
            zip(cells, about or [None] * len(cells), strict=True), start=before + 1
        ):
            texts, starts = (
                (cell.get("text"), cell.get("answer_start")) if isinstance(cell, dict) else (None, None)
            )
            if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
                raise DataError(
                    f"{column.where}: row {row} holds no answers in {column.named} ({str(cell)[:40]}); write"
                    ' {"text": ["…"], "answer_start": [0]}, with empty lists where there is none'
                )
            for text, start in zip(texts, starts, strict=True):
                if (
                    not isinstance(text, str)
                    or not isinstance(start, int)
                    or (context is not None and context[start : start + len(text)] != text)
                ):
                    raise DataError(
                        f"{column.where}: row {row}: the answer {str(text)[:40]!r} does not stand at"
                        f" character {start} of its text"
                    )
        return list(cells)
