"""Which of the processes that train one run together this one is: as bertlab, torchrun or SLURM started it.

It imports no torch: the command line asks who may speak before anything is loaded.
"""

import os
import re
from dataclasses import dataclass

from bertlab.errors import ConfigError, ToldElsewhereError, UserError


@dataclass(frozen=True)
class Place:
    """One of several processes."""

    rank: int = 0
    of: int = 1
    local_rank: int = 0  # among those on its machine
    sharing: int = 1  # how many share the cores that it may use
    meeting: str = ""  # where they find each other: torch.distributed's init_method

    @property
    def is_first(self) -> bool:
        """The one that writes, logs and prints."""
        return self.rank == 0

    @property
    def address(self) -> str:
        """The same for a person."""
        if self.meeting != "env://":
            return self.meeting
        return ":".join(
            os.environ.get(name, f"({name} is not set)") for name in ("MASTER_ADDR", "MASTER_PORT")
        )


_taken: list[Place] = []
_met: list[bool] = []


def note_meeting() -> None:
    """From here on the processes of this run tell each other what goes wrong."""
    _met[:] = [True]


def speaks(error: UserError) -> bool:
    """Whether this process is the one to tell of an error: before they have met, when all find the same, the
    first of each machine.
    """
    try:
        return not isinstance(error, ToldElsewhereError) and (bool(_met) or place().local_rank == 0)
    except ConfigError:
        return True


def take_place(place: Place) -> None:
    """For processes that bertlab starts itself."""
    _taken[:] = [place]


def place() -> Place:
    """That of this process. Raises ConfigError where the environment says it wrong."""
    if _taken:
        return _taken[0]
    if all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")):  # torchrun and its like
        rank, local = _number("RANK"), _number("LOCAL_RANK", 0)
        found = Place(rank, _number("WORLD_SIZE"), local, _number("LOCAL_WORLD_SIZE", 1), "env://")
    elif (
        _number("SLURM_STEP_NUM_TASKS", 1) > 1
    ):  # set by srun alone: in a batch script without it there is but one process
        sharing = 1 if "SLURM_CPUS_PER_TASK" in os.environ else _tasks_here()
        found = Place(
            _number("SLURM_PROCID"),
            _number("SLURM_STEP_NUM_TASKS"),
            _number("SLURM_LOCALID", 0),
            sharing,
            _first_node(),
        )
    else:
        return Place()
    if not 0 <= found.rank < found.of:
        raise ConfigError(
            f"this process is called number {found.rank} of {found.of}, counted from 0, by what started it"
        )
    return found if found.of > 1 else Place()


def _number(name: str, default: int | None = None) -> int:
    told = os.environ.get(name)
    if told is None and default is not None:
        return default
    if told is None or not re.fullmatch(r"\d+", told):
        raise ConfigError(
            f"{name}={told}: not a whole number; torchrun and srun set it for each of several processes"
        )
    return int(told)


def _tasks_here() -> int:
    """Of `4(x2),3` tasks on three nodes, those on this one."""
    counts: list[int] = []
    for number, times in re.findall(
        r"(\d+)(?:\(x(\d+)\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1")
    ):
        counts += [int(number)] * int(times or 1)
    node = _number("SLURM_NODEID", 0)
    return counts[node] if node < len(counts) else 1


def _first_node() -> str:
    """A port of the step's first node, which differs between jobs; MASTER_ADDR and MASTER_PORT
    say another.
    """
    names = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST") or "localhost"
    # gpu[03-07,12] -> gpu03
    host = re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", re.split(r",(?![^\[]*\])", names)[0])
    port = 20_000 + (31 * _number("SLURM_JOB_ID", 0) + _number("SLURM_STEP_ID", 0)) % 20_000
    return f"tcp://{os.environ.get('MASTER_ADDR', host)}:{os.environ.get('MASTER_PORT', port)}"
