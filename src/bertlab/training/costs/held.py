"""What a forward and backward pass holds in memory, counted on tensors without content: as a GPU would
compute it, without one, whatever the size.

Counted are storages as torch makes and frees them on its `meta` device, so that own models, heads and losses
are counted as they are written. Fused attention keeps queries, keys, values, outputs and a number a row (Dao
2023, FlashAttention-2); what an allocator rounds up and kernels keep for themselves is not counted. bfloat16
is where autocast has it; torch's own knows no `meta`.
"""

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bertlab.contracts import Batch, Objective
from bertlab.runs.machine import Device
from bertlab.training.assembly import Learner, Model
from bertlab.training.costs.flops import count_forward

META = torch.device("meta")
properties: Any = torch.Tensor  # made in C, of which mypy does not know how they are asked
DEVICE, IS_CUDA = properties.device.__get__, properties.is_cuda.__get__
PRODUCTS = {  # what autocast computes in bfloat16
    F.linear, torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum,
    torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.mm, torch.Tensor.bmm,
}  # fmt: skip
EXACT = {  # and what in float32
    F.layer_norm, F.rms_norm, F.softmax, F.log_softmax, F.cross_entropy, F.nll_loss, F.mse_loss,
    torch.softmax, torch.log_softmax, torch.exp, torch.log, torch.Tensor.softmax, torch.Tensor.exp,
    torch.Tensor.log,
}  # fmt: skip


@dataclass(frozen=True)
class Pass:
    """What a forward and backward pass takes."""

    bytes: int  # the most at any moment, weights and gradients left out
    forward_flops: int
    learning: frozenset[str]  # names of the weights that got a gradient


def count_pass(model: Model, objective: Objective, batch: Batch, kind: str, precision: str) -> Pass | None:
    """A pass over this batch on a device of this kind (cuda, cpu); None where what is computed depends on
    values, of which there are none.
    """
    learner = Learner(model, objective, Device(torch.device("cpu"), "float32", 1))
    was_training = model.training
    learner.train()
    weights, buffers = _without_content(learner)
    made = _each(batch, lambda tensor: torch.empty_like(tensor, device=META))
    tensors: dict[str, Tensor] = {**weights, **buffers}
    known = [*tensors.values(), *_tensors(made)]
    known += [weight.grad for weight in weights.values() if weight.grad is not None]
    reached: set[str] = set()
    for name, weight in weights.items():
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(lambda _, name=name: reached.add(name))  # type: ignore[no-untyped-call]  # torch's has no types
    try:
        with Held(known) as held, META, Pretended(kind, precision), autocast(kind, precision):
            nats, _ = torch.func.functional_call(learner, tensors, (made,))
            nats.backward()
            del nats
        with META, Pretended(kind, precision), autocast(kind, precision):
            flops = count_forward(lambda: torch.func.functional_call(learner, tensors, (made,)))
    except RuntimeError as error:
        if "meta" not in str(error).lower():
            raise
        return None
    finally:
        model.train(was_training)
    return Pass(held.most, flops, frozenset(name.removeprefix("model.") for name in reached))


class Held(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's has no types
    """Bytes of the storages made within it that still live, and the most there were at any moment."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._live: dict[int, int] = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._see(value)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._live:
            return
        self._live[storage._cdata] = storage.nbytes()
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._freed, storage._cdata)

    def _freed(self, key: int) -> None:
        self.now -= self._live.pop(key)


class Pretended(TorchFunctionMode):
    """Tensors of `meta` say that they are of another device, and are computed as there: products in its
    precision, attention in one kernel that keeps no square of the length.
    """

    def __init__(self, kind: str, precision: str) -> None:
        super().__init__()
        self.device, self.narrow = torch.device(kind), getattr(torch, precision)
        self._casts: dict[int, Tensor] = {}  # of weights, once a pass as autocast has them

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if call == DEVICE:
            return self.device
        if call == IS_CUDA:
            return self.device.type == "cuda"
        args, kwargs = tree_map(self._on_meta, (args, kwargs or {}))
        if call in PRODUCTS or call is F.scaled_dot_product_attention:
            args, kwargs = tree_map(self._narrowed, (args, kwargs))
        elif call in EXACT and self.narrow != torch.float32:
            args, kwargs = tree_map(_exact, (args, kwargs))
        if call is F.scaled_dot_product_attention and self.device.type != "cpu":
            return _Fused.apply(*args[:3])  # type: ignore[no-untyped-call]  # torch's has no types
        return call(*args, **kwargs)

    def _on_meta(self, value: Any) -> Any:
        return META if isinstance(value, torch.device) and value == self.device else value

    def _narrowed(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype not in (torch.float32, torch.bfloat16):
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(self.narrow)
        if id(value) not in self._casts:
            self._casts[id(value)] = value.to(self.narrow)
        return self._casts[id(value)]


def _exact(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed = torch.empty_like(query)
        normalisers = torch.empty(query.shape[:-1], dtype=torch.float32, device=META)
        ctx.save_for_backward(query, key, value, mixed, normalisers)
        return mixed

    @staticmethod
    def backward(ctx: Any, _upstream: Tensor) -> tuple[Tensor, ...]:
        query, key, value, *_ = ctx.saved_tensors
        torch.empty_like(query, dtype=torch.float32)  # in which parts of its gradient are summed
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def autocast(kind: str, precision: str) -> Iterator[None]:
    """What asks whether autocast is on for this kind of device hears so, also where there is none."""
    before = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    torch.set_autocast_enabled(kind, precision != "float32")
    torch.set_autocast_dtype(kind, torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled(kind, before[0])
        torch.set_autocast_dtype(kind, before[1])


def _without_content(module: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, Tensor]]:
    """Weights, with gradients where they get some, and buffers."""
    weights = {}
    for name, weight in module.named_parameters():
        empty = torch.empty_like(weight, device=META, requires_grad=False)
        weights[name] = nn.Parameter(empty, requires_grad=weight.requires_grad)
        if weight.requires_grad:
            weights[name].grad = torch.empty_like(empty)
    return weights, {name: torch.empty_like(buffer, device=META) for name, buffer in module.named_buffers()}


def _each(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    mask = batch.attention_mask
    return dataclasses.replace(
        batch,
        input_ids=change(batch.input_ids),
        segment_ids=change(batch.segment_ids),
        attention_mask=None if mask is None else change(mask),
        targets={name: change(value) for name, value in batch.targets.items()},
    )


def _tensors(batch: Batch) -> list[Tensor]:
    mask = [] if batch.attention_mask is None else [batch.attention_mask]
    return [batch.input_ids, batch.segment_ids, *mask, *batch.targets.values()]
