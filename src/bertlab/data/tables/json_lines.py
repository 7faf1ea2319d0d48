"""JSONL, or one JSON list of objects."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertlab.data.kinds._cells import a_kind
from bertlab.data.kinds._cells import kinds as kinds_in_words
from bertlab.data.tables.rows import FileFormat, Rows, in_pieces, pick
from bertlab.data.tables.text_files import read_lines
from bertlab.errors import DataError, first_line, shortened


class JsonLines(FileFormat):
    """Objects with named fields. A column holds one kind of value."""

    def column_names(self) -> list[str]:
        """See `FileFormat`."""
        return list(dict.fromkeys(name for _, record in self._records() for name in record))

    def pieces(self, wanted: Sequence[str]) -> Iterator[Rows]:
        """See `FileFormat`."""
        known: dict[str, type] = {}
        seen: dict[str, None] = {}
        before = 0
        for numbered in in_pieces(self._records()):
            piece = [record for _, record in numbered]
            seen.update((name, None) for record in piece for name in record)
            if any(name not in seen for name in wanted):
                pick({key: [] for key in seen}, wanted, self.keys, self.file)
            columns = {name: [record.get(name) for record in piece] for name in wanted}
            for name, values in columns.items():
                for place, value in enumerate(values):
                    if value is None or self.may_mix:
                        continue
                    kind = _kind(value)
                    if known.setdefault(name, kind) is not kind:
                        where = f"row {before + place + 1}", numbered[place][0]
                        raise DataError(f"{self.file}: {_mixed(name, (kind, known[name]), where, value)}")
            yield Rows(columns)
            before += len(piece)

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The objects of a JSONL file one by one, with their lines; or those of one JSON list, whose lines
        are 0: nobody knows them.
        """
        lines = enumerate(read_lines(self.file, self.keys.encoding), start=1)
        first = next((numbered for numbered in lines if numbered[1].strip()), (1, ""))
        if first[1].lstrip().startswith("["):
            listed = _parse(self.file, first[0], first[1] + "".join(line for _, line in lines))
            records = ((0, record) for record in listed)
        else:
            records = (
                (number, _parse(self.file, number, line))
                for number, line in itertools.chain([first], lines)
                if line.strip()
            )
        for row, (number, record) in enumerate(records, start=1):
            if not isinstance(record, dict):
                raise DataError(
                    f'{self.file}: row {row} is not an object with named fields, e.g. {{"text": …,'
                    ' "label": …}'
                )
            yield number, record


def _kind(value: Any) -> type:
    """Of a value, all numbers being of one."""
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def _mixed(name: str, kinds: Sequence[type], where: tuple[str, int], value: Any) -> str:
    """What to say of a column with two kinds of value: which, and the first that is of another."""
    both = " and ".join(sorted(map(kinds_in_words, kinds)))
    row, line = where
    written = json.dumps(value, ensure_ascii=False)
    shown = shortened(written, 60) + (f" (line {line})" if line else "")
    return (
        f"column '{name}' mixes {both}: {row} holds {a_kind(value)}, {shown}; write one kind of value,"
        " null where there is none"
    )


def _parse(file: Path, number: int, content: str) -> Any:
    try:
        value = json.loads(content)
        if "\\u" in content:
            # JSON may spell half a character, `\ud800`, which is no text
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError:
        raise DataError(
            f"{file}: line {number} holds half a character (a lone \\ud800 to \\udfff); mend or drop it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: line {number} is not JSON ({first_line(error)})") from None
