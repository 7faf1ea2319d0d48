"""What is faster here than torch as it comes, on a CPU: dropout, the loss of a projection to the vocabulary,
kept memory.

Legend: M rows, D width, V vocabulary.
"""

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode


def in_autocast_dtype(x: Tensor) -> Tensor:
    """`x` as products under autocast want it; autocast itself remembers only the casts of weights."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def dropout(x: Tensor, p: float) -> Tensor:
    """Dropout (Srivastava et al. 2014): each value is zeroed with probability `p`, the others divided by 1 -
    p.

    Differs: on a CPU one 64-bit draw decides four values, `p` rounded to 1/65536; 5 times as fast as torch's.
    """
    if p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    if _each is not None:
        kept: Tensor = draw_each(x.detach(), p)
    else:
        kept = torch.empty(x.shape, dtype=torch.bool)
        (opaque_draw if torch.compiler.is_compiling() else draw)(kept, p)
    return x * kept.to(x.dtype).mul_(1 / (1 - p))


def draw(kept: Tensor, p: float) -> None:
    """Fill a bool tensor: False with probability `p`."""
    first, count = (0, kept.numel()) if _part is None else _part.place_of(kept)
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    torch.ge(draws[first : first + kept.numel()].view(kept.shape), round(p * 2**16) - 2**15, out=kept)


# The same for torch.compile, whose own random numbers cost more than all of dropout. It writes, so that no
# two calls are taken for one.
opaque_draw = torch.library.custom_op("bertlab::draw", draw, mutates_args=("kept",))


# --- several processes, each with some of a batch's examples ---
@dataclass(frozen=True)
class Part:
    """Which of a forward pass's examples a process has, where other processes have the rest."""

    first: int
    own: int
    all: int
    length: int  # tokens that the longest of all is padded to

    def times(self, rows: int) -> int | None:
        """Rows of a tensor for each example; None where its rows are no examples'."""
        return None if rows % self.own else rows // self.own

    def place_of(self, kept: Tensor) -> tuple[int, int]:
        """Where a tensor's values begin among those of the whole batch, and how many the whole has."""
        times = self.times(kept.shape[0])
        assert times is not None, (
            f"{tuple(kept.shape)}: the first dimension is not one of {self.own} examples"
        )
        row = kept[0].numel() * times
        return self.first * row, self.all * row


_part: Part | None = None


def part() -> Part | None:
    """The part that this process computes just now; None where it computes whole batches."""
    return _part


@contextlib.contextmanager
def as_part(own: Part | None) -> Iterator[None]:
    """Within, dropout draws for the whole batch and takes what belongs to this process's examples: as one
    process would have it.
    """
    global _part
    before, _part = _part, own
    try:
        yield
    finally:
        _part = before


class WholeDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's has no types
    """The same for torch's own dropout on a CPU, wherever it is called: its noise is drawn for the whole
    batch.

    `over_tokens`: the second dimension is that of tokens, as many as this process's longest example has.
    """

    def __init__(self, own: Part, over_tokens: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.own, self.over_tokens = own, over_tokens

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.aten.bernoulli_.float or (times := self.own.times(args[0].shape[0])) is None:
            return func(*args, **kwargs)
        noise, *rest = args
        tokens = self.own.length if self.over_tokens else noise.shape[1]
        whole = torch.empty(
            (times * self.own.all, tokens, *noise.shape[2:]), dtype=noise.dtype, device=noise.device
        )
        first = times * self.own.first
        func(whole, *rest, **kwargs)
        return noise.copy_(whole[first : first + noise.shape[0], : noise.shape[1]])


# --- several models of one shape as one, each with a batch of its own ---
@dataclass(frozen=True)
class Each:
    """Whose batches are computed side by side under vmap, filled up to one shape: of each its own
    `(examples, tokens)` and the generator that its dropout draws from.
    """

    sizes: Sequence[tuple[int, int]]
    generators: Sequence[torch.Generator]

    def draw(self, kept: Tensor, p: float) -> None:
        """Fill a bool tensor `(models, B, T, D)` or `(models, B, H, T, T)`: of each model the part that is
        its own as `draw` would for it alone, False beside it.
        """
        assert kept.ndim in (4, 5), f"{tuple(kept.shape)}: dropout is not of (B, T, D) or (B, H, T, T)"
        for own, (examples, tokens), generator in zip(kept, self.sizes, self.generators, strict=True):
            # where a layer computes one token alone there is no more of that dimension to take
            mine = own[:examples, :tokens] if own.ndim == 3 else own[:examples, :, :tokens, :tokens]
            draws = torch.empty((mine.numel() + 3) // 4, dtype=torch.int64)
            draws.random_(-(2**63), None, generator=generator)
            values = draws.view(torch.int16)[: mine.numel()].view(mine.shape)
            if mine.numel() < own.numel():
                own.zero_()
            torch.ge(values, round(p * 2**16) - 2**15, out=mine)


_each: Each | None = None


@contextlib.contextmanager
def as_each(own: Each) -> Iterator[None]:
    """Within, under vmap over models, dropout draws for each from its own generator."""
    global _each
    before, _each = _each, own
    try:
        yield
    finally:
        _each = before


@torch.library.custom_op("bertlab::draw_each", mutates_args=())
def draw_each(x: Tensor, p: float) -> Tensor:
    """What dropout of `p` keeps of `x`, which must be of several models under vmap."""
    raise RuntimeError(f"dropout {p} of {tuple(x.shape)}: is not of several models")


@draw_each.register_vmap
def _draw_each(info: Any, in_dims: tuple[int | None, ...], x: Tensor, p: float) -> tuple[Tensor, int]:
    assert _each is not None
    place = in_dims[0]
    shape = list(x.shape)
    assert place is not None
    del shape[place]
    kept = torch.empty((info.batch_size, *shape), dtype=torch.bool)
    _each.draw(kept, p)
    return kept, 0


class SummedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of `hidden (M, D) @ weight (V, D).T + bias (V,)` with label (M,), summed, with all its
    gradients computed on the way.

    Products run in hidden's dtype, the softmax in float32 (or float64) a few rows at a time, so that it stays
    in the cache; its gradient (softmax less the one right class) takes the logits' place. First order only.

    With `softcap` c, logits l are c tanh(l / c); with `z_weight` w, w (log Z)^2 is added, Z the softmax's
    normaliser.
    """

    BLOCK, ROWS = 2048, 16

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        label: Tensor,
        softcap: float | None = None,
        z_weight: float = 0.0,
    ) -> Tensor:
        narrow, narrow_bias = weight.detach().to(hidden.dtype), bias.detach().to(hidden.dtype)
        exact = torch.promote_types(hidden.dtype, torch.float32)
        total = torch.zeros((), dtype=exact)
        to_hidden, to_weight, to_bias = torch.empty_like(hidden), None, torch.zeros_like(bias, dtype=exact)
        blocks = (
            torch.split(rows, SummedCrossEntropy.BLOCK)
            for rows in (hidden.detach(), label[:, None], to_hidden)
        )
        for states, labels, gradient in zip(*blocks, strict=True):
            logits = torch.addmm(narrow_bias, states, narrow.T)  # (block, V)
            parts = (torch.split(rows, SummedCrossEntropy.ROWS) for rows in (logits, labels))
            for part, right in zip(*parts, strict=True):
                x = part.to(exact, copy=True)
                if softcap is not None:
                    x = torch.tanh(x / softcap)
                    slope = 1 - x.square()  # of the cap
                    x *= softcap
                largest = x.amax(1, keepdim=True)
                x -= largest
                total -= x.gather(1, right).sum()
                x.exp_()
                normaliser = x.sum(1, keepdim=True)
                total += normaliser.log().sum()
                x /= normaliser
                if z_weight > 0:
                    log_z = normaliser.log() + largest
                    total += z_weight * log_z.square().sum()
                    x *= 1 + 2 * z_weight * log_z
                x.scatter_add_(1, right, torch.full_like(normaliser, -1.0))
                if softcap is not None:
                    x *= slope
                to_bias += x.sum(0)
                part.copy_(x)
            torch.mm(logits, narrow, out=gradient)
            product = (logits.T @ states).to(weight.dtype)
            to_weight = product if to_weight is None else to_weight.add_(product)
        ctx.save_for_backward(
            to_hidden, torch.zeros_like(weight) if to_weight is None else to_weight, to_bias.to(bias.dtype)
        )
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # In place: fresh memory costs ten times the product. A second backward pass is refused by torch, as
        # the saved tensors have changed.
        return *(gradient.mul_(upstream) for gradient in ctx.saved_tensors), None, None, None


def keep_freed_memory() -> None:
    """Have glibc keep large blocks that are freed, instead of giving them back and faulting every page in
    again at the next step.

    A masked-language-modelling step on two CPU cores became 13 % faster by it. Elsewhere than under glibc
    nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
        for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**26)):
            mallopt(option, value)
