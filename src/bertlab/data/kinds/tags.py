"""A tag for each word of a row: ids or names, as ids in the order of the names, O first.

Tags of entities are kept in the BIO scheme (`B-PER`, `I-PER`, `O`; IOB1 too), as which they are scored.
`dataset.tag_scheme` says how a file writes them: BIOES (`S-PER`, `E-PER`), BILOU (`U-PER`, `L-PER`), or with
the prefix behind (`PER-B`, `PER_B`) or before an underscore.
"""

import re
from collections.abc import Sequence
from typing import Any

from bertlab.data.kinds._cells import IN_PLAIN_TEXT, is_nothing, shown, structure
from bertlab.data.kinds.label import given_names
from bertlab.declarations import Column, Kind
from bertlab.errors import DataError

TO_BIO = {"S": "B", "U": "B", "E": "I", "L": "I", "B": "B", "I": "I"}


class Tags(Kind):
    """See declarations.Kind."""

    looks_first = True
    classes = "a word"

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self.seen: set[str | int] = set()

    def arrow_type(self) -> Any:
        """Tag ids."""
        import pyarrow

        return pyarrow.list_(pyarrow.int64())

    def look(self, cells: Sequence[Any], before: int) -> None:
        """Every tag."""
        for row, cell in enumerate(cells, start=before + 1):
            tags = structure(cell, self.column, row)
            if isinstance(tags, str) and not is_nothing(tags):
                raise DataError(
                    f"{self.column.where}: row {row} holds no list of tags in {self.column.named}"
                    f" ({shown(tags)}){IN_PLAIN_TEXT}"
                )
            if isinstance(tags, list):
                self.seen.update(tag for tag in tags if isinstance(tag, str | int))

    def names(self, declared: Sequence[str] | None) -> list[str]:
        """Configured, declared by the data, or those of the training split; in the BIO scheme."""
        given: Sequence[str] = given_names(self.column, declared)
        if not given and (not self.seen or not all(isinstance(tag, str) for tag in self.seen)):
            raise DataError(
                f"{self.column.where}: {self.column.named} holds no tag names; name its ids in"
                " dataset.label_names"
            )
        raw = list(given) or sorted(map(str, self.seen))
        bio = list(dict.fromkeys(self.bio(tag, raw) for tag in raw))
        return bio if given else sorted(bio, key=lambda tag: (tag != "O", tag[2:], tag))

    def bio(self, tag: str, every: Sequence[str]) -> str:
        """A tag of the file's scheme in BIO."""
        scheme = self.column.dataset.tag_scheme
        if scheme == "auto":  # what BIO does not know decides
            prefixes = {other[0] for other in every if other[1:2] == "-"}
            scheme = "bioes" if prefixes & set("SEUL") and prefixes <= set("BIESUL") else "bio"
        if scheme == "bioes" and re.match(r"[BIESUL]-", tag):
            return f"{TO_BIO[tag[0]]}-{tag[2:]}"
        if scheme == "suffix" and (
            parts := re.fullmatch(r"(.+)[-_]([BIESUL])", tag) or re.fullmatch(r"([BIESUL])_(.+)", tag)
        ):
            kind, prefix = (
                (parts[1], parts[2]) if parts[2] in TO_BIO and len(parts[2]) == 1 else (parts[2], parts[1])
            )
            return f"{TO_BIO[prefix]}-{kind}"
        return tag

    def convert(
        self, cells: Sequence[Any], before: int, names: Sequence[str], about: Sequence[Any] | None
    ) -> list[Any]:
        """Ids, as many as words."""
        column = self.column
        raw = list(column.dataset.label_names) or sorted(str(tag) for tag in self.seen)
        known: dict[str | int, int] = {name: index for index, name in enumerate(names)}
        known |= {tag: known[bio] for tag in raw if (bio := self.bio(tag, raw)) in known}
        by_id = list(column.dataset.label_names) or list(names)
        known |= {index: known[name] for index, name in enumerate(by_id) if name in known}
        converted: list[list[int] | None] = []
        for row, (raw_cell, words) in enumerate(
            zip(cells, about or [None] * len(cells), strict=True), start=before + 1
        ):
            cell = structure(raw_cell, column, row)
            if is_nothing(cell) and column.dataset.drop_unlabelled:
                converted.append(None)
                continue
            if not isinstance(cell, list) or (words is not None and len(cell) != len(words)):
                raise DataError(
                    f"{column.where}: row {row} has {len(words or ())} words, but {column.named} holds"
                    f" {shown(cell)}"
                )
            if unknown := [tag for tag in cell if not isinstance(tag, str | int) or tag not in known]:
                told = ", ".join(names)
                raise DataError(
                    f"{column.where}: {unknown[0]!r} in {column.named} (row {row}) is not a known tag; known:"
                    f" {told}"
                )
            converted.append([known[tag] for tag in cell])
        return converted
