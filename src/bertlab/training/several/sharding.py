"""One run's weights, gradients and optimizer state in parts, of which each process keeps one (ZeRO-3,
Rajbhandari et al. 2020; FSDP, Zhao et al. 2023), by torch's fully_shard.

Each of the encoder's layers is a group of its own: its weights are gathered before it computes, freed after
it, and gathered again for its backward pass. Embeddings, head and what stands on the layers are one group
more, whole from the beginning of a forward pass to the end of its backward pass, so that a head may tie to an
embedding. The mean of all gradients goes to each process in its part. A weight is cut along its first
dimension, as `torch.chunk` cuts it. What is written is whole, gathered a tensor at a time.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.utils._pytree import tree_map

from bertlab.config.schema import OptimizerConfig
from bertlab.contracts import Encoder, ParameterGroup
from bertlab.errors import ConfigError, one_line
from bertlab.training.assembly import Model
from bertlab.training.several.exchange import Together, deaths_told, is_of_death

T = TypeVar("T")
KEY = "compute.sharding=full"
STEPS = 3  # that an optimizer is tried in
TOLERANCE = 1e-5  # of what it makes of numbers around 1: sums in another order


class Sharded(Together):
    """One of several processes that have met, where each keeps a part of the model."""

    in_parts = True
    mesh: DeviceMesh  # of all, once the model has been divided

    def __init__(self, met: Together) -> None:
        self.rank, self.of, self.local_rank, self.board = met.rank, met.of, met.local_rank, met.board

    def divide(self, model: Model, optimizer: OptimizerConfig, device: torch.device) -> None:
        with deaths_told(self):
            refuse_unfit(optimizer, self.of)
            self.mesh = init_device_mesh(device.type, (self.of,))
            shard(model, self.mesh)

    def suited(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        return suited(optimizer)

    def learner(self, module: nn.Module) -> nn.Module:
        fully_shard(module, mesh=self.mesh)  # itself without weights: the root, whose output is the loss
        return module

    @contextmanager
    def backward(self, _learner: nn.Module, _is_last: bool) -> Iterator[None]:
        with deaths_told(self):  # gradients are exchanged in each pass: nowhere are they whole
            yield

    def whole(self, tree: T) -> T:
        with deaths_told(self):
            return gathered(tree, self.is_first)

    def cut(self, tree: T, like: object) -> T:
        result: T = _cut(tree, like)
        return result

    def own(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """Of gradients, all of which are in parts."""
        own = super().norm(self.own(tensors))
        return self.add_up(own.double().square()).sqrt().to(own.dtype)

    def spread(self, model: nn.Module, weights: dict[str, Tensor] | None) -> None:
        with deaths_told(self), torch.no_grad():
            for name, value in model.state_dict().items():
                if weights is not None:
                    whole = weights[name].to(value.device, value.dtype).contiguous()
                else:
                    whole = torch.empty(value.shape, dtype=value.dtype, device=value.device)
                dist.broadcast(whole, src=0)
                value.copy_(_cut(whole, value))

    def put_away(self, model: nn.Module) -> None:
        assert isinstance(model, FSDPModule)
        model.reshard()


# --- a model --------------------------------------------------------------------------------------
def shard(model: Model, mesh: DeviceMesh) -> None:
    """Leave each process, all of which hold the same weights, with its part of them, on its device.

    Raises ConfigError for a weight that cannot be cut.
    """
    for name, weight in model.named_parameters():
        if weight.ndim == 0:
            raise ConfigError(
                f"{KEY}: {name} is a number without a dimension, which is not cut into parts; give it one, or"
                " leave compute.sharding out"
            )
    for layer in layers_of(model.encoder):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)


def layers_of(encoder: Encoder) -> list[nn.Module]:
    """The modules whose weights are those of a level between the first and the last; none of an encoder that
    tells no levels apart, or whose levels share weights.
    """
    try:
        levels = encoder.levels()[1:-1]
    except ConfigError:
        return []
    wanted = [frozenset(level) for level in levels]
    if len(frozenset[nn.Parameter]().union(*wanted)) < sum(map(len, wanted)):
        return []
    # the innermost of those with the same weights: it is called, a list around it is not
    found = {frozenset(module.parameters()): module for module in encoder.modules()}
    return [found[weights] for weights in wanted if weights and weights in found]


# --- tensors --------------------------------------------------------------------------------------
def gathered(tree: T, kept: bool) -> T:
    """The same dictionaries and lists with whole tensors, on the CPU where they were in parts; every process
    calls it, and those that do not keep any get empty ones.
    """

    def whole(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        found = value.full_tensor()
        return found.detach().cpu() if kept else torch.empty(0)

    result: T = tree_map(whole, tree)
    return result


def _cut(tree: Any, like: Any) -> Any:
    """See Alone.cut."""
    if isinstance(tree, dict):
        below = like if isinstance(like, dict) else dict.fromkeys(tree, like)
        return {name: _cut(value, below.get(name)) for name, value in tree.items()}
    if isinstance(tree, list) and isinstance(like, list):
        return [_cut(value, other) for value, other in zip(tree, like, strict=True)]
    if not (isinstance(tree, Tensor) and isinstance(like, DTensor) and tree.shape == like.shape):
        return tree
    whole, mesh, placements = tree.detach().to(like.device, like.dtype), like.device_mesh, like.placements
    cut = distribute_tensor(whole, mesh, placements, src_data_rank=None)
    own = cut.to_local().clone()  # and not a view, which would keep all of it
    return DTensor.from_local(own, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())


# --- an optimizer ---------------------------------------------------------------------------------
def suited(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The same where weights are in parts: torch's fused SGD is of whole tensors alone."""
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            group |= {"fused": False, "foreach": True}
    return optimizer


def refuse_unfit(config: OptimizerConfig, of: int) -> None:
    """Have the optimizer make a few steps on small weights in parts and on the same whole: every process
    calls it. Raises ConfigError where it cannot, or where they differ.
    """
    mesh = init_device_mesh("cpu", (of,))
    try:
        whole, parts = _tried(config, of, None), _tried(config, of, mesh)
    except (NotImplementedError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        if isinstance(error, RuntimeError) and is_of_death(error):
            raise
        raise ConfigError(f"{_unfit(config)} ({one_line(str(error))[:160]})") from error
    if not all(torch.allclose(a, b, TOLERANCE, TOLERANCE) for a, b in zip(whole, parts, strict=True)):
        raise ConfigError(f"{_unfit(config)} (its steps are others than on whole ones)")


def _unfit(config: OptimizerConfig) -> str:
    return (
        f"{KEY}: optimizer={config.name} cannot work on weights in parts; take optimizer=adamw, or leave"
        " compute.sharding out"
    )


def _tried(config: OptimizerConfig, of: int, mesh: DeviceMesh | None) -> list[Tensor]:
    """Small weights, whole, after some steps; in parts meanwhile, also unequal and empty ones."""
    draw = torch.Generator().manual_seed(0)
    shapes: Sequence[tuple[int, ...]] = ((2 * of + 1, 3), (3, 2 * of), (of + 1, 2), (of + 1,), (1,))

    def drawn(shape: tuple[int, ...]) -> Tensor:
        value = torch.randn(shape, generator=draw)
        return value if mesh is None else distribute_tensor(value, mesh, [Shard(0)], src_data_rank=None)

    weights = [nn.Parameter(drawn(shape)) for shape in shapes]
    groups = [
        ParameterGroup(weights[:2], decays=True, hidden=True),
        ParameterGroup(weights[2:3], decays=True),
        ParameterGroup(weights[3:], decays=False),
    ]
    optimizer = config.build(groups)
    if mesh is not None:
        suited(optimizer)
    for _ in range(STEPS):
        for weight, shape in zip(weights, shapes, strict=True):
            weight.grad = drawn(shape)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    _check_states(optimizer)
    return gathered([weight.detach() for weight in weights], kept=True)


def _check_states(optimizer: torch.optim.Optimizer) -> None:
    """Raises TypeError for a state that a checkpoint could not give back in parts."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim > 0 and value.shape != weight.shape:
                raise TypeError(f"its state {name} {tuple(value.shape)} is not of its weight's shape")
