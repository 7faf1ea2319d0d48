"""Devices that a run is planned for and that need not be here: what is known of them, and what is assumed.

A preset is a file of conf/hardware/ (a plugin's, or one of `--config-dir`); `hardware=NAME` chooses it and
`hardware.KEY=VALUE` changes it. This module imports no torch.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bertlab.config import registry
from bertlab.config.files import read_declared
from bertlab.config.schema import Node, choice, integer, number, valid_keys, validate
from bertlab.errors import ConfigError, did_you_mean

USUAL = tuple(2**power for power in range(10))  # 1 to 512 devices
MOST = 1_000_000
GROUP = "hardware"  # of conf/, and before the dot of its keys


@dataclass
class Hardware(Node):
    """A file of conf/hardware/: one kind of device, and how so many of them hang together."""

    kind: str = choice(
        "cuda", "cuda", "cpu", help="how steps are computed there, which decides what they hold in memory"
    )
    bfloat16_tflops: float | None = number(
        None, "peak of bfloat16 matrix products, in 1e12 operations a second; null = measured here", above=0
    )
    float32_tflops: float | None = number(
        None, "peak of float32 matrix products, in 1e12 operations a second; null = measured here", above=0
    )
    memory_gb: float | None = number(
        None, "memory of a device, in 1e9 bytes; null = a core's part of this machine's", above=0
    )
    memory_share: float = number(
        0.9, "share of it that is used: allocators and kernels need the rest", above=0, high=1
    )
    devices_per_node: int | None = integer(
        None, "devices of one machine; null = as many as this one has cores", low=1
    )
    link_gb_s: float = number(100.0, "1e9 bytes a second that a device sends within its node", above=0)
    network_gb_s: float = number(
        25.0, "1e9 bytes a second that a node sends to others, all its adapters together", above=0
    )
    link_share: float = number(0.8, "assumed: share of both that exchanges reach", above=0, high=1)
    latency_us: float = number(10.0, "assumed: microseconds of a message from device to device", low=0)
    message_us: float = number(
        30.0, "assumed: microseconds of a message from process to process, by the processor", low=0
    )
    share: float = number(
        0.4, "assumed: share of the peak that a step of large batches reaches", above=0, high=1
    )
    half_tokens: int = integer(
        2048, "assumed: tokens of a forward pass at which a device reaches half of that share", low=0
    )
    pass_ms: float = number(
        15.0, "assumed: milliseconds that a forward and backward pass takes however small it is", low=0
    )
    overlap: float = number(
        0.8, "assumed: share of a backward pass behind which gradients are exchanged", low=0, high=1
    )
    price: float | None = number(None, "price of a device for an hour, in any currency", low=0)


def read_hardware(words: Sequence[str], further: Path | None = None) -> tuple[str, Hardware]:
    """The preset's name and the devices that `hardware=NAME hardware.KEY=VALUE …` describe.

    `further` is a folder of presets that are looked at first. Raises ConfigError.
    """
    chosen = [word.partition("=")[2] for word in words if word.partition("=")[0] == GROUP]
    own = [word for word in words if word.partition("=")[0] != GROUP]
    folders = [*(plugin / "conf" for plugin in registry.plugin_folders()), registry.conf_folder()]
    folders = [folder / GROUP for folder in ([further] if further else []) + folders]
    names = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    if len(chosen) != 1:
        said = "is said twice." if chosen else "is not said: of which devices is the plan?"
        raise ConfigError(f"hardware {said} Choose one of {', '.join(f'hardware={name}' for name in names)}")
    file = next((place for folder in folders if (place := folder / f"{chosen[0]}.yaml").is_file()), None)
    if file is None or chosen[0] not in names:
        raise ConfigError(f"hardware={chosen[0]}: unknown option, {did_you_mean(chosen[0], names)}")
    return chosen[0], changed(read_declared(file, Hardware), own)


def changed(hardware: Hardware, words: Sequence[str]) -> Hardware:
    """The same with what `hardware.KEY=VALUE` say. Raises ConfigError for a key or value that is none."""
    keys = [f"{GROUP}.{key}" for key in valid_keys(Hardware)]
    for word in words:
        key = word.partition("=")[0]
        if key not in keys:
            raise ConfigError(f"{word}: unknown key '{key}', {did_you_mean(key, keys)}")
        try:
            merged = OmegaConf.merge(
                OmegaConf.structured(hardware), OmegaConf.from_dotlist([word.removeprefix(f"{GROUP}.")])
            )
            read = OmegaConf.to_object(merged)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{word}: {str(error).splitlines()[0]}") from None
        assert isinstance(read, Hardware)
        hardware = read
    validate(hardware, GROUP)
    return hardware


def numbers_of(asked: str | None) -> tuple[int, ...]:
    """`1,8,64`; the usual ones where nothing is said. Raises ConfigError."""
    if asked is None:
        return USUAL
    found = [part.strip() for part in asked.strip("[]").split(",")]
    if not all(re.fullmatch(r"\d{1,7}", part) and 1 <= int(part) <= MOST for part in found):
        raise ConfigError(
            f"devices={asked}: must be whole numbers from 1 to {MOST:,}, separated by commas: devices=1,8,64"
        )
    return tuple(sorted({int(part) for part in found}))
