"""Rows out of files and off the hub, through `datasets`; every failure as one line that names the file and what to do.

`config` is a data/dataset.py `Table` throughout.
"""

import codecs
import html
import os
import re
import socket
from pathlib import Path
from typing import Any

from bertlab.errors import ConfigError, DataError


def datasets_offline() -> Any:
    """`datasets` for data that never come from a hub: no connection is tried."""
    import datasets

    return datasets


def datasets_online() -> Any:
    """The `datasets` library, quiet and, where no network answers, told so before its import (else it retries for 23 seconds)."""
    if "HF_HUB_OFFLINE" not in os.environ and not _hub_answers():
        os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets


def _hub_answers() -> bool:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HF_ENDPOINT")):
        return True  # cannot be told by a plain connection
    try:
        socket.create_connection(("huggingface.co", 443), timeout=2).close()
    except OSError:
        return False
    return True


def load_from_hub(config: Any) -> dict[str, Any]:
    where = f"dataset={config.name}"
    if not config.hub:
        raise DataError(
            f"{where}: not in the mirror; set BERTLAB_DATA or paths.mirror to a folder that holds {min(config.mirror_files.values())}"
        )
    datasets = datasets_online()
    try:
        return dict(datasets.load_dataset(config.hub, config.hub_config))
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        wanted = config.mirror_files.get("train", f"{config.name}/train.parquet")
        raise DataError(
            f"{where}: cannot get {config.hub} from the hub ({_first_line(error)}). Without a network, set BERTLAB_DATA or "
            f"paths.mirror to a folder that holds {wanted}"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def read_file(config: Any, file: Path) -> Any:
    """One local file as a `datasets.Dataset`, columns as they are. Raises DataError for what cannot be read."""
    kind = file.suffix.lower().lstrip(".")
    readers = {"parquet": "parquet", "csv": "csv", "tsv": "csv", "json": "json", "jsonl": "json"}
    if kind not in readers:
        raise DataError(f"{file}: unknown kind of file '.{kind}'; use .csv, .tsv, .jsonl or .parquet")
    if file.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    options: dict[str, Any] = {}
    if readers[kind] != "parquet":
        _check_encoding(file, config.encoding)
        options["encoding"] = config.encoding
    if readers[kind] == "csv":
        options["sep"] = config.delimiter or ("\t" if kind == "tsv" else ",")
        options["keep_default_na"] = False
        if config.column_names:
            options |= {"names": config.column_names, "header": None}
    datasets = datasets_online()
    try:
        rows = datasets.load_dataset(readers[kind], data_files={"train": str(file)}, split="train", **options)
    except Exception as error:  # datasets wraps whatever its readers raise
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__  # type: ignore[assignment]  # BaseException, shown only
        raise DataError(f"{file}: cannot be read as {readers[kind]} ({_first_line(cause)})") from error
    if len(rows) == 0:
        raise DataError(f"{file}: the file has no rows")
    return rows


def _check_encoding(file: Path, encoding: str) -> None:
    """Find the first byte that does not decode, with its line, before a reader trips over it."""
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise ConfigError(f"dataset.encoding={encoding}: unknown encoding; use e.g. utf-8 or latin-1") from None
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                decoder.decode(line)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{file}: line {number} is not {encoding} ({error.reason}); set dataset.encoding, e.g. latin-1, or mend the file"
                ) from None


# --- cleaning ----------------------------------------------------------------------------------------------------------------
def clean_html(value: str) -> str:
    """Tags become spaces, entities characters, runs of white space one space."""
    return " ".join(html.unescape(re.sub(r"<[^<>]{0,200}>", " ", value)).split())


def clean_tweet(value: str) -> str:
    """As `clean_html`, and links become `http`, user names `@user` (what a link or a name says is not sentiment)."""
    value = html.unescape(html.unescape(value))
    value = re.sub(r"(https?://|www\.)\S+", "http", value)
    return " ".join(re.sub(r"@\w+", "@user", value).split())


CLEANERS = {"html": clean_html, "tweet": clean_tweet}
