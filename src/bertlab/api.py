"""The same from Python, for notebooks: `run(overrides)` and `load(folder)` give a small object with results, model and `predict`."""

import functools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlab.config.composition import compose_schema
from bertlab.config.explain import explain, is_explained
from bertlab.config.schema import Compute, Paths, Train
from bertlab.data.tokenizer import Tokenizer
from bertlab.errors import ConfigError
from bertlab.jobs.predict import from_pairs, predict_rows
from bertlab.runs.folder import RunFolder, find_run
from bertlab.runs.outcome import Context
from bertlab.training.assembly import Model
from bertlab.training.finished import FinishedRun, load_run
from bertlab.training.lifecycle import train

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    summary: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        """Final scores named `split/name`, as fractions."""
        return dict(self.summary["metrics"])

    @functools.cached_property
    def history(self) -> "pandas.DataFrame":
        """Every record of training: step, epoch, train/loss, validation/accuracy, …"""
        import pandas

        return pandas.DataFrame(RunFolder(self.folder).history())

    @functools.cached_property
    def config(self) -> Train:
        """The typed config."""
        return RunFolder(self.folder).config()

    @functools.cached_property
    def _trained(self) -> FinishedRun:
        return load_run(RunFolder(self.folder))

    @property
    def model(self) -> Model:
        """Encoder and head with the selected weights, in evaluation mode."""
        return self._trained.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        return self._trained.tokenizer

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """`{"text", "label", "probabilities"}` of each text."""
        if isinstance(texts, str):
            raise TypeError("predict takes a list of texts, e.g. predict(['What a film!'])")
        return predict_rows(self._trained, from_pairs(self._trained, texts, pairs), Compute(), 256)


def run(overrides: Sequence[str] = ()) -> Run:
    """Train, continue or skip the run that these overrides describe. Raises UserError (ConfigError, DataError, RunError)."""
    if isinstance(overrides, str):
        raise TypeError("run takes a list of overrides, e.g. run(['experiment=bertsst2', 'seed=1'])")
    try:
        config = compose_schema("train", list(overrides))
    except Exception as error:
        if isinstance(error, ConfigError) or not is_explained(error):
            raise
        raise ConfigError(explain(error)) from error
    outcome = train(config, Context(shlex.join(["bertlab", *overrides])))
    return Run(outcome.folder.path, outcome.summary)


def load(folder: str | Path) -> Run:
    """A finished run by its folder or id. Raises RunError."""
    place = find_run(str(folder), Paths())
    return Run(place.path, place.finished() or {})
