"""Several runs that differ in their seed alone, trained in one process as one model.

Each run is what it is alone: its own loop, data, head, loss, optimizer, folder. It goes on in a thread of its
own, of which one moves at a time, always in the same order. What it calls `encode` for, all encoders compute
at once: their weights are stacked, each encoder's are views of the stack, and one call under torch.func.vmap
(functorch: Horace He and Richard Zou 2021) takes all batches, filled up to one shape. On a CPU dropout is
drawn for each as it would be alone, so that a run agrees with one made by itself to rounding; on a GPU all
draw from one generator, one after the other.

So that a killed process goes on to the bit, all write checkpoints at the same steps, and begin again at the
newest that all of them have.

Legend: S models, B examples, T tokens, D width.
"""

import enum
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad

from bertlab.contracts import Encoder
from bertlab.errors import ConfigError
from bertlab.kernels import Each, as_each
from bertlab.runs.checkpoints import steps_to_resume
from bertlab.runs.machine import Device
from bertlab.training.assembly import Learner
from bertlab.training.several.exchange import Alone
from bertlab.training.steps.stops import Interrupted, interruptible

T = TypeVar("T")
PATIENCE = 5.0  # seconds that threads have to leave once the user has asked twice


class Wants(enum.Enum):
    """What a run's thread waits for."""

    NOTHING = enum.auto()  # it moves, or has ended
    START = enum.auto()  # the step to begin at
    FORWARD = enum.auto()  # its hidden states
    BACKWARD = enum.auto()  # the encoder's gradients
    STEP = enum.auto()  # that the others are through this step too, and whether one wants a checkpoint


@dataclass
class Call:
    """One run's batch on its way through the encoders."""

    encoder: Encoder
    device: Device
    input_ids: Tensor  # (B, T)
    segment_ids: Tensor  # (B, T)
    attention_mask: Tensor | None
    pooled_only: bool

    @property
    def size(self) -> tuple[int, int]:
        """Examples and tokens."""
        examples, tokens = self.input_ids.shape
        return examples, tokens


class Seed(Alone, Generic[T]):
    """One of the runs: what its loop asks, and what its thread comes to."""

    def __init__(self, number: int, beside: Sequence[int], work: "Callable[[Seed[T]], T]") -> None:
        self.seed, self.beside = f"seed {number}: ", tuple(beside)
        self.wants = Wants.NOTHING
        self.asked: Any = None  # with what it wants
        self.answer: Any = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self.ended, self.abandoned, self.received = False, False, 0
        self.hidden: Tensor | None = None  # (B, T, D), of the pass that goes on
        self.generator = torch.get_rng_state()  # of the CPU: each run has its own
        self.spent, self.spent_cores = 0.0, 0.0
        self._since, self._since_cores = 0.0, 0.0
        self._work = work
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=f"bertlab seed {number}", daemon=True)

    # --- for whoever conducts them ---
    def move(self, answer: Any = None) -> None:
        """Let it go on with an answer, or an exception, until it wants something else or has ended."""
        self.answer, self.wants = answer, Wants.NOTHING
        torch.set_rng_state(self.generator)
        self._since, self._since_cores = time.perf_counter(), time.process_time()
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        self._back.acquire()
        self.spent, self.spent_cores = self.seconds(), self.core_seconds()
        self._since, self._since_cores = 0.0, 0.0
        self.generator = torch.get_rng_state()

    @property
    def came_to(self) -> "T | BaseException":
        """What its work returned or raised."""
        assert self.ended
        return self.result if self.error is None else self.error  # type: ignore[return-value]  # ended: no None

    def abandon(self) -> None:
        """Have it leave as the user has asked for twice, with whatever it must close."""
        self.abandoned = True
        self._go.release()

    def join(self) -> None:
        """Wait for it, but not for long."""
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)

    def _run(self) -> None:
        try:
            self.result = self._work(self)
        except BaseException as error:  # raised again where somebody asks for what it came to
            traceback.clear_frames(error.__traceback__)  # which hold models and data
            self.error = error
        self.ended = True
        self._back.release()

    def _wait(self, wants: Wants, asked: Any = None) -> Any:
        self.wants, self.asked = wants, asked
        self._back.release()
        self._go.acquire()
        if self.abandoned:
            raise KeyboardInterrupt
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    # --- for its loop ---
    def seconds(self) -> float:
        """Its own time, and its share of what is computed for all."""
        return self.spent + (time.perf_counter() - self._since if self._since else 0.0)

    def core_seconds(self) -> float:
        """The same of processor time."""
        return self.spent_cores + (time.process_time() - self._since_cores if self._since else 0.0)

    def first_step(self, checkpoints: Path) -> int:
        """The newest that all have."""
        step: int = self._wait(Wants.START, checkpoints)
        return step

    def signal(self, received: list[int]) -> int:
        """One that came before this step began, so that all know of it in the same."""
        return self.received

    def either(self, wanted: bool) -> bool:
        """Also the end of a step, where each waits for the others."""
        answer: bool = self._wait(Wants.STEP, wanted)
        return answer

    def learner(self, module: nn.Module) -> nn.Module:
        """Encode with the others. Raises ConfigError for an encoder whose dropout cannot be told apart."""
        assert isinstance(module, Learner)
        encoder = module.model.encoder
        if not encoder.drops_by_kernels:
            raise ConfigError(
                f"compute.together: model={encoder.config.name} does not declare that kernels.dropout draws"
                " all of its dropout (drops_by_kernels); leave compute.together at 1"
            )
        module.encode = partial(self._encode, encoder, module.device)
        return module

    def _encode(
        self,
        encoder: Encoder,
        device: Device,
        ids: Tensor,
        segments: Tensor,
        mask: Tensor | None,
        pooled_only: bool,
    ) -> Tensor:
        self.hidden = self._wait(Wants.FORWARD, Call(encoder, device, ids, segments, mask, pooled_only))
        return self.hidden

    @contextmanager
    def backward(self, _learner: nn.Module, _is_last: bool) -> Iterator[None]:
        """Its own backward pass ends at the hidden states; the encoders' follow."""
        yield
        self._wait(Wants.BACKWARD)
        self.hidden = None


class Stack:
    """Encoders of one shape whose weights lie one behind the other."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self.encoders = list(encoders)
        first = self.encoders[0]
        buffers = dict(first.named_buffers())
        for encoder in self.encoders[1:]:
            assert all(torch.equal(value, buffers[name]) for name, value in encoder.named_buffers())
        weights = [dict(encoder.named_parameters()) for encoder in self.encoders]
        self.own = {name: [one[name] for one in weights] for name in weights[0]}
        self.stacked: dict[str, Tensor] = {}
        for name, parameters in self.own.items():
            stacked = torch.stack([parameter.detach() for parameter in parameters])
            for parameter, view in zip(parameters, stacked.unbind(), strict=True):
                parameter.data = view
            self.stacked[name] = stacked.requires_grad_(parameters[0].requires_grad)
        self.hidden: Tensor | None = None  # (S, B, T, D)

    def forward(
        self, calls: Sequence[Call], generators: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Each model's hidden states as leaves of a graph of its own, and its generator's state after
        them.
        """
        call, sizes = calls[0], [call.size for call in calls]
        most = max(examples for examples, _ in sizes), max(tokens for _, tokens in sizes)
        ids, segments = (
            torch.stack([_filled(rows, most) for rows in batches])
            for batches in ([call.input_ids for call in calls], [call.segment_ids for call in calls])
        )
        masks = None
        if any(one.attention_mask is not None or one.size != most for one in calls):
            masks = torch.stack(_masks(calls, most))
        drawing = [torch.Generator() for _ in generators]
        for generator, state in zip(drawing, generators, strict=True):
            generator.set_state(state)

        def encoded(weights: dict[str, Tensor], ids: Tensor, segments: Tensor, mask: Tensor | None) -> Tensor:
            arguments = (ids, segments, mask, call.pooled_only)
            hidden: Tensor = functional_call(call.encoder, weights, arguments)
            return hidden

        over = (0, 0, 0, None if masks is None else 0)
        with (
            call.device.autocast(),
            as_each(Each(sizes, drawing)),
            # fused attention is not made for it
            sdpa_kernel(SDPBackend.MATH),
        ):
            # "same" lets through what kernels.dropout draws for each, which is all that a CPU draws
            randomness = "same" if ids.device.type == "cpu" else "different"
            together = vmap(encoded, in_dims=over, randomness=randomness)
            self.hidden = together(self.stacked, ids, segments, masks)
        own = [
            self.hidden[index, :examples, :tokens].detach().requires_grad_(self.hidden.requires_grad)
            for index, (examples, tokens) in enumerate(sizes)
        ]
        return own, [generator.get_state() for generator in drawing]

    def backward(self, gradients: Sequence[Tensor | None]) -> None:
        """Hand each encoder's weights their gradients, given those of its hidden states."""
        assert self.hidden is not None
        hidden, self.hidden = self.hidden, None
        if not hidden.requires_grad:
            return
        whole = torch.zeros_like(hidden)
        for place, gradient in zip(whole, gradients, strict=True):
            if gradient is not None:
                place[: gradient.shape[0], : gradient.shape[1]] = gradient
        torch.autograd.backward(hidden, whole)
        for name, stacked in self.stacked.items():
            if stacked.grad is None:
                continue
            for weight, gradient in zip(self.own[name], stacked.grad.unbind(), strict=True):
                # a head may have given one already, by tied embeddings say, and an earlier part of the batch
                weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
            stacked.grad = None


def _filled(rows: Tensor, most: tuple[int, int]) -> Tensor:
    """`(B, T)` up to a common shape, with zeros, which stand for nothing."""
    examples, tokens = rows.shape
    return pad(rows, (0, most[1] - tokens, 0, most[0] - examples))


def _masks(calls: Sequence[Call], most: tuple[int, int]) -> list[Tensor]:
    """Of each model what is attended to: (B, T), or (B, T, T) where one of them has such."""
    masks = []
    for call in calls:
        mask = call.attention_mask
        masks.append(torch.ones_like(call.input_ids, dtype=torch.bool) if mask is None else mask.bool())
    if any(mask.ndim == 3 for mask in masks):
        masks = [
            mask if mask.ndim == 3 else mask[:, None].expand(-1, mask.shape[1], -1).contiguous()
            for mask in masks
        ]
    filled = []
    for mask in masks:
        more = most[1] - mask.shape[1]
        filled.append(pad(mask, (*(0, more) * (mask.ndim - 1), 0, most[0] - mask.shape[0])))
    return filled


class Conductor(Generic[T]):
    """Moves the runs, one at a time, and computes what they want together."""

    def __init__(self, seeds: Sequence[Seed[T]]) -> None:
        self.seeds = list(seeds)
        self.stack: Stack | None = None
        self.passing: list[Seed[T]] = []  # whose batches are on their way
        self.received: list[int] = []  # signals

    def conduct(self) -> None:
        """Until all have ended. Raises KeyboardInterrupt where the user asks twice."""
        before = torch.get_rng_state()
        try:
            for seed in self.seeds:
                seed.move()
            while waiting := [seed for seed in self.seeds if seed.wants is Wants.START]:
                if self.received:  # those that begin elsewhere have not yet
                    for seed in waiting:
                        seed.move(Interrupted(self.received[0]))
                    continue
                with interruptible() as self.received:
                    self._in_step(*self._of_one_step(waiting))
        except BaseException:
            for seed in self.seeds:
                if not seed.ended:
                    seed.abandon()
            for seed in self.seeds:
                seed.join()
            raise
        finally:
            torch.set_rng_state(before)

    def _of_one_step(self, waiting: list[Seed[T]]) -> tuple[list[Seed[T]], int]:
        """Those that can begin where the first of them does, and the step."""
        common, chosen = set(steps_to_resume(waiting[0].asked)), list[Seed[T]]()
        for seed in waiting:
            shared = common & set(steps_to_resume(seed.asked))
            if shared or not chosen:
                common = shared
                chosen.append(seed)
        return chosen, max(common, default=0)

    def _in_step(self, seeds: list[Seed[T]], step: int) -> None:
        for seed in seeds:
            seed.received = 0
            seed.move(step)
        while going := [seed for seed in seeds if not seed.ended and seed.wants is not Wants.START]:
            if several := [seed for seed in going if seed.wants is Wants.FORWARD]:
                self._forward(several)
            elif several := [seed for seed in going if seed.wants is Wants.BACKWARD]:
                self._backward(several)
            else:
                wanted = any(seed.asked for seed in going)
                for seed in going:
                    seed.received = self.received[0] if self.received else 0
                for seed in going:
                    seed.move(wanted)

    def _forward(self, seeds: list[Seed[T]]) -> None:
        calls = [seed.asked for seed in seeds]
        encoders, self.passing = [call.encoder for call in calls], seeds
        answers: Sequence[Tensor | BaseException]
        with _shared_by(seeds):
            try:
                if self.stack is None or self.stack.encoders != encoders:
                    self.stack = Stack(encoders)
                answers, states = self.stack.forward(calls, [seed.generator for seed in seeds])
                for seed, state in zip(seeds, states, strict=True):
                    seed.generator = state
            except Exception as error:  # of all of them: each tells it, or begins again in smaller parts
                answers = [error.with_traceback(None)] * len(seeds)
                self.stack = None
        for seed, answer in zip(seeds, answers, strict=True):
            seed.move(answer)

    def _backward(self, seeds: list[Seed[T]]) -> None:
        answer: BaseException | None = None
        with _shared_by(seeds):
            try:
                assert self.stack is not None
                # one whose head failed meanwhile has no gradient
                self.stack.backward(
                    [
                        seed.hidden.grad if seed in seeds and seed.hidden is not None else None
                        for seed in self.passing
                    ]
                )
            except Exception as error:
                answer, self.stack = error.with_traceback(None), None
        for seed in seeds:
            seed.move(answer)


@contextmanager
def _shared_by(seeds: Sequence[Seed[Any]]) -> Iterator[None]:
    """What is computed meanwhile each pays its share of."""
    began, began_cores = time.perf_counter(), time.process_time()
    yield
    seconds, cores = time.perf_counter() - began, time.process_time() - began_cores
    for seed in seeds:
        seed.spent += seconds / len(seeds)
        seed.spent_cores += cores / len(seeds)
