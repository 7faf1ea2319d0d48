"""CSV and TSV. Values are read as they stand: `007` stays text, a surplus field is an error and not a shifted
column.
"""

import csv
import re
import sys
from collections.abc import Iterator, Sequence

from bertlab.data.tables.rows import FileFormat, Rows, in_pieces, pick
from bertlab.data.tables.text_files import read_lines
from bertlab.errors import DataError, first_line, shortened

MOST_WORDS = 8  # of a column's name
LONG_ROW = 20  # lines of a file that one quoted text may go over before that is suspicious


class Delimited(FileFormat):
    """Fields with commas between them, or what `dataset.delimiter` says."""

    separator = ","

    @property
    def delimiter(self) -> str:
        """As configured, else the kind's own."""
        return self.keys.delimiter or self.separator

    def column_names(self) -> list[str]:
        """See `FileFormat`."""
        return next(self.records(), [])

    def pieces(self, wanted: Sequence[str]) -> Iterator[Rows]:
        """See `FileFormat`."""
        records = self.records()
        names = next(records, [])
        try:
            pick({name: [] for name in names}, wanted, self.keys, self.file)
        except DataError as error:
            raise self._without_header(names) or error from None
        places = [names.index(name) for name in wanted]
        for piece in in_pieces(records):
            yield Rows(
                {
                    name: [fields[place] for fields in piece]
                    for name, place in zip(wanted, places, strict=True)
                }
            )

    def is_quoted(self) -> bool:
        """Whether quote signs frame fields, by `dataset.quoting`; auto judges a tab-separated file by its own
        lines, and tells.
        """
        if self.keys.quoting != "auto" or self.delimiter != "\t":
            return self.keys.quoting != "none"
        fields, quoted, stray = 0, False, 0  # stray: the first line with a quote sign that frames nothing
        for number, line in enumerate(read_lines(self.file, self.keys.encoding), start=1):
            cells = line.rstrip("\r\n").split(self.delimiter)
            fields = fields or len(self.keys.column_names) or len(cells)
            if line.strip() and len(cells) != fields:
                return True  # only quotes can make fields of this
            for cell in cells if '"' in line else ():
                framed = _is_framed(cell)
                quoted |= framed
                stray = number if not stray and '"' in cell and not framed else stray
        if stray:
            self.tell(
                f"{self.file}: quote signs are read as they stand (in line {stray} one frames nothing);"
                " dataset.quoting=csv reads them as frames"
            )
            return False
        return quoted

    def records(self) -> Iterator[list[str]]:
        """The column names, then the fields of each row. Raises DataError naming the line that is not as it
        should be.
        """
        csv.field_size_limit(sys.maxsize)
        quoted = self.is_quoted()
        lines = read_lines(self.file, self.keys.encoding)
        reader = csv.reader(
            lines,
            delimiter=self.delimiter,
            strict=True,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        )
        names: list[str] = list(self.keys.column_names)
        if names:
            yield names
        started = 1
        try:
            for fields in reader:
                # of the next record; one in quotes may go over several lines
                first, started = (started, reader.line_num + 1)
                if not names:
                    names = fields
                    if len(set(names)) < len(names):
                        twice = f"{self.file}: the header names a column twice ({', '.join(names)})"
                        raise self._without_header(names) or DataError(twice)
                    yield names
                elif fields:  # a blank line has none
                    self._check(fields, names, first, reader.line_num)
                    yield fields
        except csv.Error as error:
            if "new-line character" in str(error):
                raise DataError(
                    f"{self.file}: line {reader.line_num} holds a stray carriage return (\\r) within a text;"
                    " delete it, or put the text in quotes"
                ) from None
            hint = "; if quote signs do not frame texts here, set dataset.quoting=none" if quoted else ""
            raise DataError(
                f"{self.file}: the row that starts in line {started} cannot be read as CSV"
                f" ({first_line(error)}){hint}"
            ) from error

    def _without_header(self, names: Sequence[str]) -> DataError | None:
        """What to say where the first line is a row by its looks; None where it may be a header."""
        if self.keys.column_names or not any(map(_is_a_value, names)):
            return None
        shown = shortened(self.delimiter.join(names), 60)
        return DataError(
            f"{self.file}: its first line, {shown}, looks like a row and no header: name the columns in"
            f" dataset.column_names=[…], all {len(names)} of them"
        )

    def _check(self, fields: Sequence[str], names: Sequence[str], first: int, last: int) -> None:
        """A record that went over the lines `first` to `last`."""
        if len(fields) != len(names):
            raise DataError(
                f"{self.file}: line {last} has {len(fields)} fields, not {len(names)}"
                f" ({', '.join(names)[:80]}); quote texts that hold the delimiter, or see"
                " dataset.delimiter, dataset.quoting and"
                " dataset.column_names"
            )
        if last - first >= LONG_ROW and self.delimiter == "\t":
            self.tell(
                f"{self.file}: one text goes over lines {first} to {last}; if quote signs do not"
                " frame texts here, set dataset.quoting=none"
            )


class TabDelimited(Delimited):
    """The same with tabs."""

    separator = "\t"


def _is_a_value(cell: str) -> bool:
    """Whether a cell is hardly a column's name: a number, nothing, many words."""
    return re.fullmatch(r"\s*([-+]?\d+([.,]\d+)?)?\s*", cell) is not None or len(cell.split()) > MOST_WORDS


def _is_framed(cell: str) -> bool:
    """Whether a cell stands in quotes, those within it doubled."""
    framed = len(cell) > 1 and cell.startswith('"') and cell.endswith('"')
    return framed and '"' not in cell[1:-1].replace('""', "")
