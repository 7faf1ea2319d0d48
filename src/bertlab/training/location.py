"""Where a run lies and what it is, before anything is computed."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from bertlab.config.schema import Train
from bertlab.errors import ConfigError
from bertlab.runs.folder import RunFolder, run_folder
from bertlab.runs.identity import identify
from bertlab.runs.machine import Device, choose_device
from bertlab.runs.processes import place
from bertlab.training.assembly import check_combination
from bertlab.training.pairs import pairs_of

OUT_OF_MEMORY = (  # a status: another run, with fewer examples a forward pass, stands for this one
    "out_of_memory"
)


@dataclass(frozen=True)
class Located:
    """A run before anything is computed: what it is on this machine, where it lies, how far it is, the
    pretraining that it begins with.
    """

    config: Train
    device: Device
    identity: dict[str, Any]
    folder: RunFolder
    summary: dict[str, Any] | None  # None: it has not ended yet
    stage: "Located | None"

    @property
    def id(self) -> str:
        """12 hex digits."""
        return str(self.identity["id"])

    @property
    def is_finished(self) -> bool:
        """Whether it had when it was located."""
        return self.summary is not None and self.summary["status"] == "finished"


def locate(config: Train) -> Located:
    """The run that stands for this config: where so many examples a forward pass ran out of memory, the same
    one with fewer.

    Raises UserError for what would stop it before its first step, as far as that shows without reading data
    whole.
    """
    config = dataclasses.replace(
        config, compute=dataclasses.replace(config.compute, processes=number_of_processes(config))
    )
    described = config.init.stage(config)
    stage = None if described is None else locate(by_itself(described))
    check_combination(config)
    if config.compute.sharding != "none" and config.compute.processes == 1:
        raise ConfigError(
            f"compute.sharding={config.compute.sharding}: one process has nobody to share with; set"
            " compute.processes, start several by torchrun or srun, or leave compute.sharding out"
        )
    pairs = pairs_of(config)
    device = choose_device(
        config.compute.device, config.compute.precision, config.compute.threads, config.compute.processes
    )
    identity = identify(
        config, device, None if stage is None else stage.id, None if pairs is None else pairs.digest()
    )
    folder = run_folder(config, identity["id"])
    summary = folder.summary()
    if summary is not None and summary["status"] == OUT_OF_MEMORY:
        return locate(in_parts(config, folder.smaller_parts(summary, config.compute.micro_batch_size)))
    return Located(config, device, identity, folder, summary, stage)


def by_itself(config: Train) -> Train:
    """The same trained as one run; a pretraining serves several seeds and is one."""
    return dataclasses.replace(config, compute=dataclasses.replace(config.compute, together=1))


def in_parts(config: Train, micro_batch: int) -> Train:
    """The same with fewer examples a forward pass, which rounds otherwise and so is a run of its own; the
    effective batch stays.
    """
    return dataclasses.replace(
        config, compute=dataclasses.replace(config.compute, micro_batch_size=micro_batch)
    )


def number_of_processes(config: Train) -> int:
    """As many as were started, or as are to be. Raises ConfigError where both are said and differ."""
    started, asked = place().of, config.compute.processes
    if started > 1 and asked not in (1, started):
        raise ConfigError(
            f"compute.processes={asked}, but {started} processes were started; leave it out, they are told"
        )
    return max(started, asked)
