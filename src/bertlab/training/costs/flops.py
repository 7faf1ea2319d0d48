"""What a computation costs: floating-point operations counted as they happen, and the rate this machine
reaches on matrix products.

Only products are counted, 2 operations for each multiply-add, as is usual (Kaplan et al. 2020, §2.1);
everything else is small beside them. Own counting, because torch's `FlopCounterMode` knows no CPU attention
kernel and takes two seconds to load.
"""

import contextlib
import functools
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bertlab.contracts import Draw, Examples, Objective
from bertlab.data.batches import BatchOrder
from bertlab.runs.machine import Device

BACKWARD = 2  # a product's backward pass is two products of the same size


class Counter(TorchFunctionMode):
    """Counts matrix products of what runs within it."""

    def __init__(self) -> None:
        super().__init__()
        self.total: int = 0

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = call(*args, **(kwargs or {}))
        if call in (
            F.linear,
            torch.matmul,
            torch.bmm,
            torch.mm,
            torch.Tensor.matmul,
            torch.Tensor.__matmul__,
        ):
            self.total += 2 * result.numel() * args[0].shape[-1]
        elif call is F.scaled_dot_product_attention:
            query, key = args[0], args[1]
            self.total += 4 * query.numel() * key.shape[-2]  # q·k and weights·v
        return result


@torch.no_grad()
def count_forward(call: Callable[[], Any]) -> int:
    """Operations of one call; its gradients are not computed."""
    # Of a compiled model the products are counted as it is written; tracing it with a counter inside would
    # fill the screen with warnings.
    plain = (
        torch.compiler.set_stance("force_eager")
        if "torch._dynamo" in sys.modules
        else contextlib.nullcontext()
    )
    with plain, Counter() as counter:
        call()
    return int(counter.total)


def training_flops(
    model: torch.nn.Module,
    objective: Objective,
    train: Examples,
    order: BatchOrder,
    device: Device,
    tokens: float,
) -> float:
    """Of training on so many tokens, forward and backward: counted on the first batch as it is trained on,
    half-way through (where rates move), once for each length that rows are folded to.
    """
    model.eval()
    total = 0.0
    for length, part in order.lengths_used(tokens):
        batch = objective.collate(train, order.epoch(0)[0], Draw(order.seed, 0, 0.5, length)).to(
            device.device
        )
        with device.autocast():
            total += (1 + BACKWARD) * count_forward(partial(model, batch)) / batch.num_tokens * part
    return total


def product_rate(
    device: torch.device, dtype: torch.dtype, size: int | None = None, seconds: float = 0.1
) -> float:
    """Operations a second of square matrix products on this device, with the threads that are set now; the
    best of several, measured once a process.
    """
    return _measured_rate(device, dtype, size, seconds, torch.get_num_threads())


@functools.cache
@torch.no_grad()
def _measured_rate(
    device: torch.device, dtype: torch.dtype, size: int | None, seconds: float, _threads: int
) -> float:
    size = size or (1024 if device.type == "cpu" else 8192)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, started = math.inf, time.perf_counter()
    while time.perf_counter() - started < seconds or best == math.inf:
        before = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - before)
    return 2 * size**3 / best
