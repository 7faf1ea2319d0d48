"""Files of text as decoded lines: compressions, encodings, byte-order marks, line ends."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertlab.errors import ConfigError, DataError, first_line

COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


def read_lines(file: Path, encoding: str) -> Iterator[str]:
    """Decoded lines with their ends. Raises DataError naming the first line that does not decode."""
    decoder = _decoder(file, encoding)
    number = 0
    try:
        with (
            _open(file) as binary,
            io.TextIOWrapper(binary, encoding=decoder, newline=_line_end(file)) as stream,
        ):
            for line in stream:
                number += 1
                yield line
    except UnicodeError as error:  # the decoder reads ahead: find the line itself
        bad = _undecodable_line(file, decoder) or number + 1
        reason = error.reason if isinstance(error, UnicodeDecodeError) else first_line(error)
        raise DataError(
            f"{file}: line {bad} is not {encoding} ({reason}); set dataset.encoding, e.g. latin-1,"
            " or mend the file"
        ) from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({first_line(error)})") from error


def _open(file: Path) -> Any:
    import pyarrow

    compression = COMPRESSED.get(file.suffix.lower())
    return (
        file.open("rb") if compression is None else pyarrow.input_stream(str(file), compression=compression)
    )


def _decoder(file: Path, encoding: str) -> str:
    """As configured; a byte order mark says more. Raises ConfigError for what is none."""
    try:
        if not codecs.lookup(encoding)._is_text_encoding:
            raise LookupError
    except LookupError:
        raise ConfigError(
            f"dataset.encoding={encoding}: not a text encoding; use e.g. utf-8 or latin-1"
        ) from None
    if codecs.lookup(encoding).name != "utf-8":
        return encoding
    try:
        with _open(file) as stream:
            start = stream.read(2)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({first_line(error)})") from error
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _line_end(file: Path) -> str:
    """A lone carriage return ends a line only in files that have no other ends (Windows' ends keep both
    signs).
    """
    with _open(file) as stream:
        start = stream.read(1 << 16)
    return "\r" if b"\r" in start and b"\n" not in start else "\n"


def _undecodable_line(file: Path, encoding: str) -> int | None:
    with _open(file) as binary, io.BufferedReader(binary) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode(encoding)
            except UnicodeError:
                return number
    return None


def has_mark(file: Path) -> bool:
    """Whether a text file begins with a byte-order mark."""
    with _open(file) as stream:
        start = stream.read(len(codecs.BOM_UTF8))
    return bool(start.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)))
