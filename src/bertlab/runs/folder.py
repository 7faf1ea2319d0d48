"""A run's folder: the one module that knows its files. It reads, checks and writes them; everything else asks
here.

config.yaml identity.json environment.json sessions.jsonl    what the run is, and who computed it
metrics.jsonl curves.png checkpoints/                        while it goes on
model.safetensors last.safetensors tokenizer.json labels.json encoder/ the model
predictions/SPLIT.jsonl summary.json manifest.json   the result, and the checksums of what it stands on
evaluations/NAME.json                                scores on minimal pairs, while training or later
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from torch import Tensor

from bertlab.config.schema import Paths, Train
from bertlab.errors import RunError, redact
from bertlab.runs.configs import config_of, config_yaml, read_yaml
from bertlab.runs.files import (
    clear_temporaries,
    file_digest,
    load_weights,
    open_new,
    publish_folder,
    read_json,
    save_weights,
    text_digest,
    to_json,
    write_record,
    write_text,
)
from bertlab.runs.progress import working
from bertlab.runs.summaries import flaw

ENCODER = "encoder"  # an architecture's own description, where it is more than our config
STATUSES = ("finished", "interrupted", "pruned", "failed", "out_of_memory")
CHECKED = (
    "config.yaml", "identity.json", "environment.json", "metrics.jsonl", "labels.json", "tokenizer.json",
    "model.safetensors",
    "last.safetensors",
)  # fmt: skip
MOST_EXAMPLES = 1 << 31  # a forward pass
PRECISIONS = ("float32", "bfloat16")  # that a run computes in
BEFORE = (  # in the manifest: a kill between writing it and a new summary leaves the old one
    "summary.json, the one before"
)
READ_WHOLE = 1 << 26  # bytes; where time counts, larger files are looked at only


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """DATASET-OBJECTIVE-ID."""
        return self.path.name

    @property
    def is_run(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / "config.yaml").is_file()

    @property
    def checkpoints(self) -> Path:
        """Where the loop keeps what it resumes from."""
        return self.path / "checkpoints"

    @property
    def weights_file(self) -> Path:
        """The selected weights."""
        return self.path / "model.safetensors"

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer."""
        return self.path / "tokenizer.json"

    @property
    def description(self) -> Path | None:
        """The folder that describes the architecture beyond the config, where there is one."""
        return self.path / ENCODER if (self.path / ENCODER).is_dir() else None

    def own(self, name: str) -> Path:
        """One of its files. Raises RunError for a link, whose target is not this run's, and for a pipe or
        folder in its place.
        """
        file = self.path / name
        if file.is_symlink() or (file.parent.is_symlink() and file.parent != self.path):
            raise RunError(f"{file}: is a link; a run's folder holds its own files")
        if file.exists() and not file.is_file():
            raise RunError(f"{file}: is no plain file")
        return file

    # --- reading: RunError in one line for what is missing or damaged ---
    def summary(self) -> dict[str, Any] | None:
        """`summary.json`; None where the run has not ended yet."""
        try:
            summary = self._json("summary.json")
        except (
            FileNotFoundError,
            NotADirectoryError,
        ):  # a file is in the place of its folders: `locked` says so
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(
                f"{self}/summary.json: damaged ({error}); remove the file to finish the run again"
            ) from error
        if summary.get("status") not in STATUSES:
            raise RunError(
                f"{self}/summary.json: not a run's summary; remove the file to finish the run again"
            )
        if summary["status"] == "finished":
            lacking = flaw(summary)
            if lacking or not self._is_as_written("summary.json"):
                raise RunError(
                    f"{self}/summary.json: damaged (it says finished, but"
                    f" {f'lacks {lacking}' if lacking else 'is not what was written'}); remove it to finish"
                    " the run again"
                )
        return summary

    def smaller_parts(self, summary: dict[str, Any], now: int | None) -> int:
        """Of a run that ran out of memory with `now` examples a forward pass (None: the whole batch), the
        fewer ones of the run that stands for it. Raises RunError where they are none.
        """
        told = summary.get("micro_batch_size")
        if type(told) is not int or not 1 <= told < (now or MOST_EXAMPLES):
            raise RunError(
                f"{self}/summary.json: damaged (no smaller micro_batch_size); remove the file to finish the"
                " run again"
            )
        return told

    def finished(self) -> dict[str, Any] | None:
        """The summary of a finished run; None where there is still something to do."""
        summary = self.summary()
        return summary if summary is not None and summary["status"] == "finished" else None

    def tree(self) -> dict[str, Any]:
        """`config.yaml` as it stands."""
        file = self.own("config.yaml")
        try:
            tree = read_yaml(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise RunError(f"{file}: cannot be read ({str(error).splitlines()[0]})") from error
        if not isinstance(tree, dict) or "seed" not in tree:
            raise RunError(f"{file}: not a run's config")
        return tree

    def config(self) -> Train:
        """The typed config."""
        return config_of(self.tree(), f"{self}/config.yaml")

    def identity(self) -> dict[str, Any]:
        """`identity.json`: what the id is a hash of."""
        try:
            identity = self._json("identity.json")
            if (precision := identity["numerics"]["precision"]) not in PRECISIONS:
                raise ValueError(f"precision {precision}")
            identity["inputs"]["dataset"]  # is there
            if not isinstance(identity["code"], dict):
                raise TypeError("no versions of code")
            return identity
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self}/identity.json: damaged ({type(error).__name__}: {error})") from error

    def environment(self) -> dict[str, Any]:
        """`environment.json`: versions, revision, machine; empty where it is missing or damaged."""
        try:
            return self._json("environment.json")
        except (OSError, ValueError):
            return {}

    def labels(self) -> list[str]:
        """Names of the classes, in id order."""
        try:
            labels = read_json(self.own("labels.json"))
            if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
                raise ValueError("not a list of class names")
            return labels
        except (OSError, ValueError) as error:
            raise RunError(f"{self}/labels.json: damaged ({error})") from error

    def tokenizer(self) -> str:
        """`tokenizer.json`'s content."""
        try:
            return self.own("tokenizer.json").read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise RunError(f"{self.tokenizer_file}: cannot be read ({error})") from error

    def weights(self) -> dict[str, Tensor]:
        """The selected weights."""
        return load_weights(self.own("model.safetensors"))

    def history(self) -> list[dict[str, Any]]:
        """Records of training; a last line torn by a kill is left out."""
        records = []
        with contextlib.suppress(OSError, ValueError, RecursionError):
            for line in self.own("metrics.jsonl").read_text(encoding="utf-8").splitlines():
                records.append(json.loads(line))
        return records

    def predictions(self, split: str) -> list[dict[str, Any]] | None:
        """Rows of predictions/SPLIT.jsonl; None where they were not kept or are damaged."""
        try:
            lines = self.own(f"predictions/{split}.jsonl").read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines]
        except (OSError, ValueError, RecursionError):
            return None

    def verify(self, largest: int | None = None) -> None:
        """Compare the finished run's files with the checksums they were written with; those of more than
        `largest` bytes have to be there.

        Raises RunError for the first that is another.
        """
        sums = self._sums()
        former = sums.pop(BEFORE, "")
        for name, expected in sums.items():
            try:
                file = self.own(name)
                is_whole = (largest is not None and file.stat().st_size > largest) or file_digest(file) in (
                    expected,
                    former,
                )
            except (OSError, ValueError):  # of a name that no file can have
                is_whole = False
            if not is_whole:
                raise RunError(
                    f"{self}/{name}: missing or damaged since the run finished; remove {self} and run its"
                    " command again"
                )

    def begun_tokenizer(self) -> Path | None:
        """The tokenizer that an unfinished run began with; None where there is none, or not as it was
        written: it is made again.
        """
        with contextlib.suppress(RunError):
            if self.tokenizer_file.is_file() and self._is_as_written("tokenizer.json", known=False):
                return self.own("tokenizer.json")
        return None

    def _is_as_written(self, name: str, known: bool = True) -> bool:
        """By its checksum; `known` where there is none, in a run of an earlier version or one whose manifest
        is gone.
        """
        expected = self._sums().get(name)
        return (
            known if expected is None else file_digest(self.own(name)) in (expected, self._sums().get(BEFORE))
        )

    def _sums(self) -> dict[str, str]:
        """Checksums by file; none where there is no manifest. Raises RunError where it is damaged."""
        try:
            sums = self._json("manifest.json")
            if not all(isinstance(value, str) for value in sums.values()):
                raise ValueError("not a list of checksums")
            return sums
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(
                f"{self}/manifest.json: damaged ({str(error)[:120]}); remove the file, and the run's files"
                " are taken as they are"
            ) from error

    def _json(self, name: str) -> dict[str, Any]:
        content = read_json(self.own(name))
        if not isinstance(content, dict):
            raise ValueError("not an object with named fields")
        return content

    # --- writing: each file is whole or not there ---
    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process a run; the system frees the lock of a killed one. A second one waits for the first,
        then finds it finished.

        Raises RunError where the folder cannot be used.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            guard = FileLock(self.path / ".lock")
            try:
                guard.acquire(timeout=0)
            except Timeout:
                print(f"{self} is being computed by another process; waiting for it", flush=True)
                with working(f"waiting for the other process that computes {self.path.name}"):
                    guard.acquire()
        except OSError as error:
            raise RunError(
                f"{self}: cannot be used ({error.strerror or error}); name another folder with paths.output"
            ) from error
        try:
            yield
        finally:
            guard.release()

    def begin(self, config: Train, identity: dict[str, Any], environment: dict[str, Any]) -> None:
        """What the run is and who computes it; a line for each process that works on it. Leftovers of a
        killed one go.
        """
        described = {
            "config.yaml": config_yaml(config),
            "identity.json": to_json(identity),
            "environment.json": to_json(environment),
        }
        session = redact(json.dumps({"started_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **environment}))
        clear_temporaries(self.path)
        for name, content in described.items():
            write_record(self.path / name, content)
        with open_new(self.path / "sessions.jsonl", "a") as sessions:
            sessions.write(f"{session}\n")

    def write_tokenizer(self, content: str) -> None:
        """`tokenizer.json`, and its checksum for whoever goes on. Raises RunError where the run began with
        another one.
        """
        digest = text_digest(content)
        if self._began_with().get("tokenizer.json", digest) != digest and self.checkpoints.is_dir():
            raise RunError(
                f"{self.tokenizer_file}: damaged, and not to be made again as it was; remove {self} and run"
                " its command again"
            )
        write_text(self.tokenizer_file, content)
        write_text(self.path / "manifest.json", to_json({"tokenizer.json": digest}))

    def _began_with(self) -> dict[str, str]:
        try:
            return self._sums()
        except RunError:  # what is made now replaces it
            return {}

    def write_model(
        self,
        selected: dict[str, Tensor],
        last: dict[str, Tensor],
        labels: Sequence[str],
        describe: Callable[[Path], bool],
    ) -> None:
        """Weights of the selected and of the last step, names of classes, and the architecture's description,
        where `describe` has one.
        """
        if self.description is None:
            with contextlib.suppress(_NothingToDescribeError):
                publish_folder(self.path / ENCODER, lambda place: _described(place, describe))
        write_text(self.path / "labels.json", json.dumps(list(labels), ensure_ascii=False) + "\n")
        save_weights(self.path / "last.safetensors", last)
        save_weights(self.weights_file, selected, {"format": "pt"})

    def write_predictions(self, split: str, rows: Iterable[dict[str, Any]]) -> None:
        """One JSON line a row."""
        lines = (json.dumps({"index": index, **row}, ensure_ascii=False) for index, row in enumerate(rows))
        write_text(self.path / "predictions" / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))

    def write_evaluation(self, name: str, result: dict[str, Any]) -> Path:
        """`evaluations/NAME.json`, which it returns: how the run did, with the time. Raises RunError."""
        file = self.path / "evaluations" / f"{name}.json"
        write_record(file, to_json({**result, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}))
        return file

    def write_summary(self, summary: dict[str, Any]) -> None:
        """`summary.json`; before that of a finished run the checksums of what it stands on."""
        content = redact(to_json(summary))
        if summary["status"] == "finished":
            described = (
                ()
                if self.description is None
                else sorted(f"{ENCODER}/{file.name}" for file in self.description.iterdir())
            )
            kept = sorted(f"predictions/{file.name}" for file in (self.path / "predictions").glob("*.jsonl"))
            sums = {name: file_digest(self.path / name) for name in (*CHECKED, *described, *kept)}
            before = self.path / "summary.json"
            sums |= {
                "summary.json": text_digest(content),
                BEFORE: file_digest(before) if before.is_file() else "",
            }
            write_text(self.path / "manifest.json", to_json(sums))
        write_text(self.path / "summary.json", content)


class _NothingToDescribeError(Exception):
    """The config says all of the architecture."""


def _described(place: Path, describe: Callable[[Path], bool]) -> None:
    if not describe(place):
        raise _NothingToDescribeError


# --- finding --------------------------------------------------------------------------------------
def run_folder(config: Train, run_id: str) -> RunFolder:
    """`paths.output/DATASET-OBJECTIVE-ID`."""
    return RunFolder(Path(config.paths.output) / f"{config.dataset.name}-{config.objective.name}-{run_id}")


def find_run(given: str, paths: Paths) -> RunFolder:
    """A finished run by its folder or its id. Raises RunError naming what was looked for."""
    folder = Path(given).expanduser()
    if not folder.is_dir():
        root = Path(paths.output)
        places = root.iterdir() if root.is_dir() else ()
        fitting = sorted(place for place in places if given in place.name and RunFolder(place).is_run)
        if len(fitting) > 1:
            raise RunError(
                f"run={given}: {len(fitting)} runs fit, e.g. {fitting[0].name} and {fitting[1].name}; give"
                " more of the id"
            )
        if not fitting:
            raise RunError(f"run={given}: no such folder, and no run in {root} has it in its name")
        folder = fitting[0]
    run = RunFolder(folder)
    if run.finished() is None:
        state = "is not a run folder" if not run.is_run else "has not finished; run its command again"
        raise RunError(f"run={given}: {folder} {state}")
    return run
