"""Where a table's rows are: own files, the local mirror, else the hub."""

import hashlib
import os
from pathlib import Path

from bertlab.config.schema import Paths
from bertlab.data.tables.hub import load_from_hub
from bertlab.data.tables.keys import TableKeys
from bertlab.errors import ConfigError, DataError


def mirror_folder(paths: Paths) -> Path | None:
    """The local mirror: `paths.mirror`, else the environment's BERTLAB_DATA, else none. Raises ConfigError
    where it is missing.
    """
    given = paths.mirror or os.environ.get("BERTLAB_DATA")
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        name = "paths.mirror" if paths.mirror else "BERTLAB_DATA"
        raise ConfigError(
            f"{name}={given}: not a folder; it should hold one folder a dataset, e.g. sst2/train.parquet"
        )
    return folder


def local_files(keys: TableKeys, paths: Paths) -> dict[str, Path]:
    """Split -> file on this machine; empty where the dataset must come from the hub. Raises DataError for a
    file that is missing.
    """
    given = {"train": keys.train_file, "validation": keys.validation_file, "test": keys.test_file}
    own = {split: file for split, file in given.items() if file}
    if own:
        if "train" not in own:
            raise DataError(
                f"dataset.{min(own)}_file is set without dataset.train_file; name the training file too"
            )
        files = {split: Path(file).expanduser() for split, file in own.items()}
        for split, file in files.items():
            if not file.is_file():
                raise DataError(f"dataset.{split}_file={file}: no such file")
        return files
    mirror = mirror_folder(paths)
    if mirror is None or not keys.mirror_files:
        return {}
    files = {split: mirror / file for split, file in keys.mirror_files.items()}
    missing = [split for split, file in files.items() if not file.is_file()]
    if not missing:
        return files
    if len(missing) < len(files):
        raise DataError(
            f"the mirror {mirror} holds only part of {keys.name}: {keys.mirror_files[missing[0]]} is missing"
        )
    return {}


def fingerprint(keys: TableKeys, paths: Paths) -> str:
    """Content of the data a config names, as 16 hex digits: the bytes of local files, or the hub's version of
    a hub dataset.
    """
    files = local_files(keys, paths)
    digest = hashlib.sha256()
    if files:
        for split, file in sorted(files.items()):
            digest.update(split.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    else:
        for split, rows in sorted(load_from_hub(keys).items()):
            digest.update(f"{split}:{rows._fingerprint}".encode())
    return digest.hexdigest()[:16]
