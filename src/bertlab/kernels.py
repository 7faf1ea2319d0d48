"""What is faster here than torch as it comes, on a CPU: dropout, the loss of a projection to the vocabulary, kept memory.

Legend: M rows, D width, V vocabulary.
"""

import contextlib
import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def in_autocast_dtype(x: Tensor) -> Tensor:
    """`x` as products under autocast want it; autocast itself remembers only the casts of weights."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def dropout(x: Tensor, p: float) -> Tensor:
    """Dropout (Srivastava et al. 2014): each value is zeroed with probability `p`, the others divided by 1 - p.

    Differs: on a CPU one 64-bit draw decides four values, `p` rounded to 1/65536; 5 times as fast as torch's.
    """
    if p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    kept = torch.empty(x.shape, dtype=torch.bool)
    (opaque_draw if torch.compiler.is_compiling() else draw)(kept, p)
    return x * kept.to(x.dtype).mul_(1 / (1 - p))


def draw(kept: Tensor, p: float) -> None:
    """Fill a bool tensor: False with probability `p`."""
    draws = torch.empty((kept.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    torch.ge(draws[: kept.numel()].view(kept.shape), round(p * 2**16) - 2**15, out=kept)


# The same for torch.compile, whose own random numbers cost more than all of dropout. It writes, so that no two calls are taken for one.
opaque_draw = torch.library.custom_op("bertlab::draw", draw, mutates_args=("kept",))


class SummedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of `hidden (M, D) @ weight (V, D).T + bias (V,)` with label (M,), summed, with all its gradients computed on the way.

    Products run in hidden's dtype, the softmax in float32 (or float64) a few rows at a time, so that it stays in the cache; its gradient
    (softmax less the one right class) takes the logits' place. First order only.

    With `softcap` c, logits l are c tanh(l / c); with `z_weight` w, w (log Z)^2 is added, Z the softmax's normaliser.
    """

    BLOCK, ROWS = 2048, 16

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, label: Tensor, softcap: float | None = None, z_weight: float = 0.0
    ) -> Tensor:
        narrow, narrow_bias = weight.detach().to(hidden.dtype), bias.detach().to(hidden.dtype)
        exact = torch.promote_types(hidden.dtype, torch.float32)
        total = torch.zeros((), dtype=exact)
        to_hidden, to_weight, to_bias = torch.empty_like(hidden), None, torch.zeros_like(bias, dtype=exact)
        blocks = (torch.split(rows, SummedCrossEntropy.BLOCK) for rows in (hidden.detach(), label[:, None], to_hidden))
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
        ctx.save_for_backward(to_hidden, torch.zeros_like(weight) if to_weight is None else to_weight, to_bias.to(bias.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # In place: fresh memory costs ten times the product. A second backward pass is refused by torch, as the saved tensors have changed.
        return *(gradient.mul_(upstream) for gradient in ctx.saved_tensors), None, None, None


def keep_freed_memory() -> None:
    """Have glibc keep large blocks that are freed, instead of giving them back and faulting every page in again at the next step.

    A masked-language-modelling step on two CPU cores became 13 % faster by it. Elsewhere than under glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
        for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**26)):
            mallopt(option, value)
