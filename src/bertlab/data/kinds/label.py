"""One class a row: ids, raw labels or class names, as ids in the order of the names.

Names are those that the dataset's config says (`label_names`, `label_map`), those that the data declare for
their ids, or the distinct values of the training split. A number with a fraction is a class only where
somebody says so.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from bertlab.data.kinds._cells import shown
from bertlab.declarations import Column, Kind
from bertlab.errors import ConfigError, DataError, did_you_mean

UNLABELLED = ("", "-1")  # how benchmarks write that a row has no label
MOST_CLASSES = 1000
MARKS = ("|", ";", ",")  # that stand between the classes of a set


class Label(Kind):
    """See declarations.Kind."""

    looks_first = True
    classes = "one"

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self.counts: Counter[str] = Counter()
        self.first: dict[str, int] = {}  # raw label -> the row where it was seen first

    def arrow_type(self) -> Any:
        """A class id."""
        import pyarrow

        return pyarrow.int64()

    def look(self, cells: Sequence[Any], before: int) -> None:
        """Count every raw label."""
        for row, cell in enumerate(cells, start=before + 1):
            raw = self.raw(cell, row)
            self.counts[raw] += 1
            self.first.setdefault(raw, row)

    def raw(self, cell: Any, row: int) -> str:
        """A label as labels are compared. Raises DataError for what can be none."""
        if isinstance(cell, list | dict | bytes) or cell in (float("inf"), float("-inf")):
            hint = (
                "; sets of classes are read by objective=multi_label from dataset.labels_column"
                if isinstance(cell, list) and not self.column.is_for_finished_run
                else ""
            )
            raise DataError(
                f"{self.column.where}: row {row} holds {shown(cell)}, no label, in {self.column.named}{hint}"
            )
        return raw_label(cell)

    def is_unanswered(self) -> bool:
        """All -1 or empty."""
        return set(self.counts) <= set(UNLABELLED)

    def names(self, declared: Sequence[str] | None) -> list[str]:
        """See the module's docstring."""
        given = given_names(self.column, declared)
        values = set(self.counts) - set(UNLABELLED)
        if given:
            return given
        where, named = self.column.where, self.column.named
        if len(values) < 2:
            raise DataError(
                f"{where}: {named} has fewer than two different labels"
                f" ({', '.join(sorted(values)) or 'none'})"
            )
        if fractions := [value for value in values if re.fullmatch(r"[-+]?\d*\.\d*[1-9]\d*", value)]:
            example = min(fractions, key=lambda value: self.first[value])
            raise DataError(
                f"{where}: {named} holds numbers with fractions ({example} in row {self.first[example]}),"
                " which are no classes: predict them as numbers (an objective with a number,"
                f" dataset.number_column={self.column.name}), or name the classes in dataset.label_names"
            )
        if combined := self._combination(values):
            value, mark = combined
            other = (
                f" dataset.labels_separator='{mark}'" if mark != self.column.dataset.labels_separator else ""
            )
            raise DataError(
                f"{where}: '{value}' in {named} (row {self.first[value]}) reads as several classes:"
                f" objective=multi_label dataset.labels_column={self.column.name}"
                f" dataset.label_column=null{other} reads sets of them; where each is one class, name them"
                " all in dataset.label_names"
            )
        if len(values) > MOST_CLASSES:
            raise DataError(f"{where}: {named} has {len(values)} different values; is it the label?")
        return sorted(
            values,
            key=lambda value: (0, int(value), value) if re.fullmatch(r"-?\d+", value) else (1, 0, value),
        )

    def _combination(self, values: Collection[str]) -> tuple[str, str] | None:
        """The first label whose parts, between one mark, all occur as labels or as parts of others; and the
        mark.
        """
        for mark in dict.fromkeys((self.column.dataset.labels_separator, *MARKS)):
            parts = {value: [part.strip() for part in value.split(mark)] for value in values}
            several = {
                value: own
                for value, own in parts.items()
                if len(own) > 1 and all(own) and len(set(own)) == len(own)
            }
            known = Counter(part for own in parts.values() for part in own)
            if several and all(known[part] > 1 for own in several.values() for part in own):
                return min(several, key=lambda value: self.first[value]), mark
        return None

    def convert(
        self, cells: Sequence[Any], before: int, names: Sequence[str], about: Sequence[Any] | None
    ) -> list[Any]:
        """Class ids; None where the row is left out."""
        known = self.known(names)
        return [known[self.raw(cell, row)] for row, cell in enumerate(cells, start=before + 1)]

    def why_left_out(self, cell: Any) -> str:
        """Nothing was said, or what the map does not know."""
        is_silent = raw_label(cell) in UNLABELLED
        return super().why_left_out(cell) if is_silent else "with a label that dataset.label_map lacks"

    def known(self, names: Sequence[str]) -> dict[str, int | None]:
        """Raw label -> class id, or None for rows to leave out. Raises DataError for a label that
        is neither.
        """
        dataset = self.column.dataset
        ids = {raw_label(name): index for index, name in enumerate(names)}
        known: dict[str, int | None] = {}
        if dataset.label_map:
            known = {
                **ids,
                **{raw_label(raw): ids[raw_label(name)] for raw, name in dataset.label_map.items()},
            }
            if dataset.drop_unmapped_labels:
                known = {raw: known.get(raw) for raw in self.counts}
                if not any(value is not None for value in known.values()):
                    raise DataError(
                        f"{self.column.where}: no row has a label that dataset.label_map knows"
                        f" ({', '.join(map(str, dataset.label_map))})"
                    )
        else:
            positions = (
                {}
                if any(name.isdigit() for name in names)
                else {str(index): index for index in range(len(names))}
            )
            known = {**positions, **ids}  # numeric class names mean themselves, not positions
        if dataset.drop_unlabelled:
            known |= {raw: None for raw in UNLABELLED if raw not in known}
        for raw in self.counts:
            if raw not in known:
                raise DataError(self._unknown(raw, names))
        return known

    def _unknown(self, raw: str, names: Sequence[str]) -> str:
        column, count, row = self.column, self.counts[raw], self.first[raw]
        rows = f"{count} row{'s have' if count > 1 else ' has'}"
        if raw in UNLABELLED:
            written = "" if raw == "" else f" ({raw})"
            return (
                f"{column.where}: {rows} no label{written} in {column.named}, the first is row {row}: leave"
                " such rows out with dataset.drop_unlabelled=true, or label them"
            )
        cure = (
            f"dataset.label_map={{{raw}: …}} says which class it is"
            if column.is_for_finished_run
            else "see dataset.label_names and dataset.label_map"
        )
        return (
            f"{column.where}: '{raw}' in {column.named} (row {row}, {count}x) is not a known label,"
            f" {did_you_mean(raw, names)}; {cure}"
        )


def raw_label(value: Any) -> str:
    """Labels as they are compared: 1, 1.0 and '1' are the same, so are true and 'true', é however it is
    written; missing ones are ''.
    """
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = unicodedata.normalize("NFC", str(value).strip())
    if text in ("True", "False"):
        return text.lower()
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def given_names(column: Column, declared: Sequence[str] | None) -> list[str]:
    """Names in id order where somebody says them: the config, its map, or the data; else none."""
    dataset = column.dataset
    if dataset.label_names:
        if (
            declared
            and sorted(declared) == sorted(dataset.label_names)
            and list(declared) != list(dataset.label_names)
        ):
            raise ConfigError(
                f"dataset.label_names={dataset.label_names}: {column.where} declares its ids in the order"
                f" {list(declared)}"
            )
        return list(dataset.label_names)
    return list(dict.fromkeys(dataset.label_map.values())) or list(declared or ())
