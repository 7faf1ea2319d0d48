"""Datasets off the Hugging Face hub; without a network one line says what to do."""

import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from bertlab.data.tables.keys import TableKeys
from bertlab.data.tables.rows import PIECE, Rows, class_names, lacking_column
from bertlab.errors import DataError, first_line
from bertlab.runs.progress import working


def load_from_hub(keys: TableKeys) -> dict[str, Any]:
    """Split -> `datasets.Dataset`. Raises DataError saying what to do
    without a network.
    """
    where = f"dataset={keys.name}"
    if not keys.hub:
        raise DataError(
            f"{where}: not in the mirror; set BERTLAB_DATA or paths.mirror to a folder that holds"
            f" {min(keys.mirror_files.values())}"
        )
    answers = "HF_HUB_OFFLINE" in os.environ or _hub_answers()
    if not answers:
        os.environ["HF_HUB_OFFLINE"] = (
            "1"  # before its import, or `datasets` retries for 23 seconds; what is in its cache is found
        )
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        with working(f"getting {keys.hub} from the hub"):
            return dict(datasets.load_dataset(keys.hub, keys.hub_config))
    except Exception as error:  # of several libraries, none of them ours
        wanted = keys.mirror_files.get("train", f"{keys.name}/train.parquet")
        line = first_line(error) if answers else "huggingface.co does not answer"
        raise DataError(
            f"{where}: cannot get {keys.hub} from the hub ({line}). Without a network, set BERTLAB_DATA or "
            f"paths.mirror to a folder that holds {wanted}"
        ) from error


def hub_pieces(keys: TableKeys, dataset: Any, where: str, wanted: Sequence[str]) -> Iterator[Rows]:
    """Some columns of a split, a piece at a time."""
    for name in wanted:
        if name not in dataset.column_names:
            raise DataError(f"{where}: {lacking_column(name, dataset.column_names, keys)}")
    declared = class_names(dataset.features)
    for start in range(0, len(dataset), PIECE):
        piece = dataset[start : start + PIECE]
        yield Rows({name: piece[name] for name in wanted}, declared)


def _hub_answers() -> bool:
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HF_ENDPOINT")):
        return True  # cannot be told by a plain connection
    try:
        socket.create_connection(("huggingface.co", 443), timeout=2).close()
    except OSError:
        return False
    return True
