"""A finished run, ready to score and predict."""

import sys
import warnings
from dataclasses import dataclass
from typing import Any

from bertlab.config.schema import Compute, Train
from bertlab.contracts import Objective
from bertlab.data.material import build_objective
from bertlab.data.tokenizer import Tokenizer
from bertlab.errors import DataError, RunError
from bertlab.models.hf import Hf
from bertlab.runs.files import check_weights
from bertlab.runs.folder import RunFolder
from bertlab.runs.identity import file_versions
from bertlab.runs.machine import Device, choose_device
from bertlab.training.assembly import Model, build_model


@dataclass
class FinishedRun:
    """A finished run's parts, with the selected weights, in evaluation mode."""

    folder: RunFolder
    config: Train
    tokenizer: Tokenizer
    objective: Objective
    model: Model
    identity: dict[str, Any]

    @property
    def precision(self) -> str:
        """That of its training."""
        return str(self.identity["numerics"]["precision"])

    def device(self, compute: Compute, auto: str | None = None) -> Device:
        """Where to compute; the precision is `auto`, by default that of training, unless another is
        asked for.
        """
        asked = (auto or self.precision) if compute.precision == "auto" else compute.precision
        return choose_device(compute.device, asked, compute.threads)


def changed_components(config: Train, identity: dict[str, Any]) -> list[str]:
    """Files of the run's objective and model whose content is another than when it was made."""
    recorded = identity["code"]
    now = {**file_versions(config.objective), **file_versions(config.model)}
    return sorted(name for name, version in now.items() if recorded.get(name, version) != version)


def load_run(folder: RunFolder) -> FinishedRun:
    """Everything of a finished run. Raises RunError where the folder is damaged or of another version."""
    folder.verify()
    config, identity = folder.config(), folder.identity()
    try:
        tokenizer = Tokenizer.from_json(folder.tokenizer())
    except DataError as error:
        raise RunError(f"{folder.tokenizer_file}: damaged ({error})") from error
    objective = build_objective(config, tokenizer, folder.labels())
    if isinstance(config.model, Hf) and folder.description is not None:
        config.model.name_or_path = str(folder.description)
    with warnings.catch_warnings():  # of a damaged run's head without classes, whose weights do not fit it
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        model = build_model(config, tokenizer, objective)
    weights = folder.weights()
    check_weights(weights, model.state_dict(), str(folder.weights_file))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(
            f"{folder}: its weights do not fit this version's model"
            f" ({str(error).splitlines()[1].strip()[:160]})"
        ) from error
    if changed := changed_components(config, identity):
        print(
            f"bertlab: note: {', '.join(changed)} has changed since this run was made: what it computes now"
            f" may not be what the run recorded ({folder})",
            file=sys.stderr,
        )
    model.eval()
    return FinishedRun(folder, config, tokenizer, objective, model, identity)
