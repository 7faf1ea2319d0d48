"""Where a Hugging Face model lies: a folder of the user's, or the local copy of a hub repository."""

from pathlib import Path

from bertlab.errors import DataError, first_line

WANTED = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


def resolve(name_or_path: str, asked: str) -> Path:
    """The folder behind a path or a hub name, fetched if need be. Raises DataError saying which of them was
    tried.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise DataError(
                f"{asked}={name_or_path}: there is no config.json; it must be a folder with a Hugging Face"
                " model"
            )
        return path
    if path.exists() or name_or_path.count("/") > 1 or name_or_path.startswith((".", "/", "~")):
        raise DataError(f"{asked}={name_or_path}: no such folder")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name_or_path, allow_patterns=WANTED))
    except Exception as error:  # of several libraries, none of them ours
        line = first_line(error)
        raise DataError(
            f"{asked}={name_or_path}: neither a folder nor to be had from the hub ({line}); without a"
            " network, name a folder that holds it"
        ) from error
