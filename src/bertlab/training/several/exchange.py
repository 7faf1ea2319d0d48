"""What the processes of one run tell each other: numbers, decisions, gradients. A run of one process talks to
nobody.

Every process calls the same methods in the same order. Gradients are reduced by torch's
DistributedDataParallel (Li et al. 2020), or as sharding.py says where the model is in parts; numbers and
objects over gloo. With `find_unused_parameters` buckets stay as they were laid out, so that a sum is made in
the same order after a restart. That a process has died shows where the others wait for it; which of them
tells is agreed upon by the store where they met.
"""

import contextlib
import datetime
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from bertlab.config.schema import OptimizerConfig
from bertlab.errors import ConfigError, PeerLostError, RunError, ToldElsewhereError, UserError, first_line
from bertlab.runs.processes import Place, note_meeting, place
from bertlab.training.assembly import Model

T = TypeVar("T")
MEETING = datetime.timedelta(minutes=10)  # from the first to the last that is started
ANSWER = datetime.timedelta(seconds=5)  # of the store, once another process has died
# one may wait long for another's data or lock; a death is noticed at once
PATIENCE = datetime.timedelta(days=7)
TOLD, LOST = "bertlab/told", "bertlab/lost"  # keys of the store: why the run ends; how many miss another
SIGNS_OF_DEATH = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "gloo",
    "socket",
    "nccl",
)


class Alone:
    """A run of one process, and what several have in common."""

    rank, of = 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes, logs and prints."""
        return self.rank == 0

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """What each has to say, `(of, values) float64`."""
        return np.asarray([values], dtype=np.float64)

    def gather_objects(self, value: T) -> list[T]:
        """The same of anything that can be pickled."""
        return [value]

    def same(self, make: Callable[[], T]) -> T:
        """What the first one makes; an error that it meets is raised in all."""
        return make()

    def in_turn(self, make: Callable[[], T]) -> T:
        """What each makes, the first of every machine before the others, so that those find it in
        the cache.
        """
        return make()

    def add_up(self, tensor: Tensor) -> Tensor:
        """A tensor's sum over all, in its place."""
        return tensor

    def spread(self, model: nn.Module, weights: dict[str, Tensor] | None) -> None:
        """Put the weights that the first one has, whole, into the models of all; the others have None."""
        if weights is not None:
            model.load_state_dict(weights)

    def listening(self) -> AbstractContextManager[None]:
        """Around what waits for others by itself: that one has died becomes a line."""
        return nullcontext()

    def learner(self, module: nn.Module) -> nn.Module:
        """The module whose backward pass leaves the mean of all gradients."""
        return module

    def backward(self, _learner: nn.Module, _is_last: bool) -> AbstractContextManager[None]:
        """Around a forward and a backward pass: gradients are exchanged with the last of a step alone."""
        return nullcontext()

    # --- where the model is in parts, of which each has one (several/sharding.py)
    in_parts = False  # whether each forward pass is one of all

    def divide(self, _model: Model, _optimizer: OptimizerConfig, _device: torch.device) -> None:
        """Leave each with its part of a model whose weights all have. Raises ConfigError where that cannot
        be, or where the optimizer cannot work on it.
        """

    def suited(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The same for weights as they are here."""
        return optimizer

    def whole(self, tree: T) -> T:
        """The same dictionaries and lists with whole tensors, for the first one; all ask for it."""
        return tree

    def cut(self, tree: T, _like: object) -> T:
        """The same dictionaries and lists of whole tensors, which all have, in parts as those are which stand
        in the same places of another tree; what is below one tensor of that is cut as it is.
        """
        return tree

    def own(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """What is here of each, in the same memory."""
        return list(tensors)

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """The 2-norm of all their numbers."""
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
        return norm

    def put_away(self, model: nn.Module) -> None:
        """Free what forward passes without a backward pass leave whole."""

    # --- where several runs share one process (several/seeds.py) a run asks for the time that is its own, and
    # does with the others what they must do at the same step
    seed: str = ""  # before what is told of it
    beside: tuple[int, ...] = ()  # seeds of the others

    def seconds(self) -> float:
        """A clock of the time that this run costs."""
        return time.perf_counter()

    def core_seconds(self) -> float:
        """The same of processor time."""
        return time.process_time()

    def first_step(self, _checkpoints: Path) -> int | None:
        """Which checkpoint to go on from, 0 = the beginning; None = the newest."""
        return None

    def signal(self, received: list[int]) -> int:
        """The signal to stop by; 0 = none."""
        return received[0] if received else 0

    def either(self, wanted: bool) -> bool:
        """Whether any run that goes on beside this one wants a checkpoint after this step."""
        return wanted


ALONE = Alone()


class Together(Alone):
    """One of several processes that have met."""

    def __init__(self, here: Place) -> None:
        self.rank, self.of, self.local_rank = here.rank, here.of, here.local_rank
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, _, _ = next(rendezvous(here.meeting, here.rank, here.of, timeout=MEETING))
        store.set_timeout(MEETING)
        dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.of, timeout=MEETING)
        store.set_timeout(PATIENCE)
        _set_pg_timeout(PATIENCE)
        self.board = store
        if torch.cuda.is_available():
            torch.cuda.set_device(here.local_rank)

    def leave_word(self) -> None:
        """That this process tells why the run ends."""
        with contextlib.suppress(RuntimeError):
            self.board.set_timeout(ANSWER)
            self.board.set(TOLD, "")

    def tells_of_death(self) -> bool:
        """Whether nobody has told why the run ends, and it is for this process to do so."""
        try:
            self.board.set_timeout(ANSWER)
            return not self.board.check([TOLD]) and self.board.add(LOST, 1) == 1
        except RuntimeError:  # gone with the first process: the next one tells, and each machine's first
            return self.rank == 1 or self.local_rank == 0

    def gather(self, values: Sequence[float]) -> np.ndarray:
        own = torch.tensor(values, dtype=torch.float64)
        found = [torch.empty_like(own) for _ in range(self.of)]
        with deaths_told(self):
            dist.all_gather(found, own)
        return torch.stack(found).numpy()

    def gather_objects(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.of
        with deaths_told(self):
            dist.all_gather_object(found, value)
        return found

    def same(self, make: Callable[[], T]) -> T:
        answer: list[Any] = [None, None]
        if self.is_first:
            try:
                answer = [make(), None]
            except UserError as error:
                answer = [None, error]
        with deaths_told(self):
            dist.broadcast_object_list(answer, src=0, device=torch.device("cpu"))
        if answer[1] is not None:
            raise answer[1] if self.is_first else ToldElsewhereError(str(answer[1]))
        result: T = answer[0]
        return result

    def in_turn(self, make: Callable[[], T]) -> T:
        made: list[T] = []
        for turn in (self.local_rank == 0, self.local_rank > 0):
            wrong = None
            if turn:
                try:
                    made.append(make())
                except UserError as error:
                    wrong = error
            told = [
                rank
                for rank, text in enumerate(self.gather_objects(None if wrong is None else str(wrong)))
                if text is not None
            ]
            if told:  # most often the same error in all; the first one that met it tells it
                raise (
                    wrong
                    if wrong is not None and self.rank == told[0]
                    else ToldElsewhereError("another process met an error")
                )
        return made[0]

    def add_up(self, tensor: Tensor) -> Tensor:
        with deaths_told(self):
            dist.all_reduce(tensor)
        return tensor

    def spread(self, model: nn.Module, weights: dict[str, Tensor] | None) -> None:
        super().spread(model, weights)
        with deaths_told(self), torch.no_grad():
            for value in model.state_dict().values():
                dist.broadcast(value, src=0)

    def listening(self) -> AbstractContextManager[None]:
        return deaths_told(self)

    def learner(self, module: nn.Module) -> nn.Module:
        # torch warns where it looks for such and finds none
        module.register_parameter("never_used", nn.Parameter(torch.zeros(1)))
        with deaths_told(self), warnings.catch_warnings():
            # a newer name
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(
                module, broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
            )

    @contextmanager
    def backward(self, learner: nn.Module, is_last: bool) -> Iterator[None]:
        assert isinstance(learner, DistributedDataParallel)
        with deaths_told(self), nullcontext() if is_last else learner.no_sync():
            yield


@contextmanager
def deaths_told(processes: Together) -> Iterator[None]:
    """Where one waits for others: that another has died becomes one line, which one of them tells. Raises
    PeerLostError in that one, ToldElsewhereError in the others.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_of_death(error):
            raise
        kind = PeerLostError if processes.tells_of_death() else ToldElsewhereError
        line = (
            f"process {processes.rank} of {processes.of}: another one of this run has ended"
            f" ({first_line(error, 120)})"
        )
        raise kind(f"{line}; the same command goes on from the last checkpoint") from error


def is_of_death(error: RuntimeError) -> bool:
    """Whether the others cannot be heard; torch has no class of its own for it."""
    return any(sign in str(error).lower() for sign in SIGNS_OF_DEATH)


@contextmanager
def word_left() -> Iterator[None]:
    """Around a run: a process that ends by what it tells itself leaves word; the others are silent then."""
    try:
        yield
    except (PeerLostError, ToldElsewhereError):
        raise
    except BaseException:
        for processes in _met:
            processes.leave_word()
        raise


_met: list[Together] = []


def meet() -> Alone:
    """The other processes of this run, met once; those beside the first print nothing from here on."""
    here = place()
    if here.of == 1:
        return ALONE
    if not _met:
        if not dist.is_available():
            raise ConfigError(
                "this build of torch has no torch.distributed: several processes cannot train one run here"
            )
        if sys.platform == "linux" and here.meeting.startswith("file://"):
            # all on this machine: no need of a name that others could resolve
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        try:
            _met.append(Together(here))
        except (RuntimeError, ValueError, socket.gaierror) as error:
            if isinstance(error, RuntimeError) and not (
                isinstance(error, dist.DistError) or is_of_death(error)
            ):
                raise
            raise RunError(
                f"process {here.rank} of {here.of}: the processes of this run do not meet at"
                f" {here.address} ({first_line(error, 200)}); all must run, and the port be free:"
                " MASTER_ADDR and MASTER_PORT say where"
            ) from error
        note_meeting()
        if not here.is_first:
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # as long as the process lives
    return _met[0]


def leave() -> None:
    """Close what was opened; harmless when repeated."""
    while _met:
        _met.pop()
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
