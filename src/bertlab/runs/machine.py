"""The machine under a run: threads, device, precision, and the provenance that is written beside every
result.
"""

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bertlab.errors import ConfigError
from bertlab.runs.processes import place


@dataclass(frozen=True)
class Device:
    """Where a run computes and in what precision; both are part of its identity because they
    change rounding.
    """

    device: torch.device
    precision: str  # float32 | bfloat16
    threads: int

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 products over float32 master weights, or nothing."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def choose_device(device: str, precision: str, threads: int | None, processes: int = 1) -> Device:
    """Resolve `auto` settings on this machine, for a run of so many processes. Raises ConfigError where a
    wished device is not there.
    """
    if device == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    else:
        kind = device
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "compute.device=cuda: no CUDA device is visible here; use compute.device=cpu or auto"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("compute.device=mps: no Apple GPU is visible here; use compute.device=cpu or auto")
    if precision == "auto":
        precision = "bfloat16" if computes_in_bfloat16(kind) else "float32"
    here, chosen = place(), torch.device(kind)
    if processes > 1 and kind == "mps":
        raise ConfigError(
            f"compute.processes={processes}: several processes cannot share one Apple GPU; leave it 1, or use"
            " compute.device=cpu"
        )
    if processes > 1 and kind == "cuda":
        wanted = here.local_rank + 1 if here.of > 1 else processes
        if wanted > torch.cuda.device_count():
            raise ConfigError(
                f"compute.processes={processes}: each takes a device, and {torch.cuda.device_count()} CUDA"
                " devices are visible here"
            )
        chosen = torch.device(kind, here.local_rank)
    sharing = here.sharing if here.of > 1 else processes
    return Device(chosen, precision, threads or max(1, usable_cores() // (runs_side_by_side() * sharing)))


def computes_in_bfloat16(kind: str) -> bool:
    """Whether the processor multiplies bfloat16 natively. Emulated bfloat16 was measured 5x slower than
    float32 on AVX512 without it.
    """
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))
    return False


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory() -> int:
    """Bytes of this machine's memory. Raises ConfigError where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        raise ConfigError(
            "hardware.memory_gb: this system does not tell how much memory it has; set it"
        ) from None


def runs_side_by_side() -> int:
    """How many runs share the cores, as a launcher says in BERTLAB_SIDE_BY_SIDE; joblib's -1 stands for one a
    core, -2 for one less.
    """
    told = os.environ.get("BERTLAB_SIDE_BY_SIDE", "1")
    try:
        number = int(told)
    except ValueError:
        raise ConfigError(
            f"BERTLAB_SIDE_BY_SIDE={told}: not a whole number; it says how many runs share this machine's"
            " cores"
        ) from None
    return number if number > 0 else max(1, usable_cores() + 1 + number)


PACKAGES = (
    "torch",
    "numpy",
    "datasets",
    "tokenizers",
    "hydra-core",
    "omegaconf",
    "safetensors",
    "transformers",
    "wandb",
)


def provenance(command: str) -> dict[str, Any]:
    """Who made this result: command, versions, machine, git revision and whether the tree was dirty."""
    return {
        "command": command,
        "bertlab": package_version("bertlab"),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": usable_cores(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git": git_state(Path(__file__).parent),
    }


def package_version(name: str) -> str | None:
    """Installed version, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """The processor's model name, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def git_state(folder: Path) -> dict[str, Any] | None:
    """Revision and dirty flag of the checkout that holds this code; None outside a checkout or where git is
    missing.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", "-C", str(folder), *arguments), capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        top = Path(git("rev-parse", "--show-toplevel"))
        if not (top / "src" / "bertlab").is_dir():
            return None  # installed somewhere inside another project's checkout
        return {
            "revision": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Run with `count` CPU threads, then put the former number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
