"""Plain text: a text a line, or a word a line with its tags (CoNLL)."""

from collections.abc import Iterator, Sequence

from bertlab.data.tables.rows import FileFormat, Rows, in_pieces, pick
from bertlab.data.tables.text_files import read_lines
from bertlab.errors import DataError


class Lines(FileFormat):
    """One text a line, blank lines left out; its column is called as the dataset calls texts."""

    def column_names(self) -> list[str]:
        """See `FileFormat`."""
        return [self.keys.text_column]

    def pieces(self, wanted: Sequence[str]) -> Iterator[Rows]:
        """See `FileFormat`."""
        lines = (line.rstrip("\r\n") for line in read_lines(self.file, self.keys.encoding) if line.strip())
        for piece in in_pieces(lines):
            yield Rows(pick({self.keys.text_column: piece}, wanted, self.keys, self.file))


class Conll(FileFormat):
    """Columns by number, from the left `0`, `1`, … and from the right `-1`, `-2`, …; a blank line ends a
    sentence.
    """

    def column_names(self) -> list[str]:
        """See `FileFormat`."""
        raise DataError(
            f"{self.file}: columns of a CoNLL file have no names to keep; write JSONL, CSV or Parquet"
        )

    def pieces(self, wanted: Sequence[str]) -> Iterator[Rows]:
        """See `FileFormat`."""
        for piece in in_pieces(self._sentences()):
            width = len(piece[0][0])
            columns = {
                str(place): [[cells[place] for cells in sentence] for sentence in piece]
                for place in range(-width, width)
            }
            yield Rows(pick(columns, wanted, self.keys, self.file))

    def _sentences(self) -> Iterator[list[list[str]]]:
        sentence: list[list[str]] = []
        for number, line in enumerate(read_lines(self.file, self.keys.encoding), start=1):
            if not line.strip() or line.startswith("-DOCSTART-"):
                if sentence:
                    yield sentence
                sentence = []
            elif not line.startswith("# "):
                cells = line.split("\t") if "\t" in line else line.split()
                if sentence and len(cells) != len(sentence[0]):
                    raise DataError(
                        f"{self.file}: line {number} has {len(cells)} columns, the line before it"
                        f" {len(sentence[0])}"
                    )
                sentence.append([cell.strip() for cell in cells])
        if sentence:
            yield sentence
