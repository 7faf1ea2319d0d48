"""What a run asks of any devices: counted from its config and its data, whatever this machine is."""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from bertlab.config.hardware import Hardware
from bertlab.config.schema import Train
from bertlab.contracts import Draw
from bertlab.data.batches import BatchOrder, order_of
from bertlab.data.material import Material
from bertlab.errors import ConfigError
from bertlab.runs.machine import choose_device, machine_memory, threads, usable_cores
from bertlab.training.assembly import Model, build_model, build_optimizer, frozen_weights
from bertlab.training.costs.devices import WEIGHT, Devices, Work
from bertlab.training.costs.flops import BACKWARD, product_rate
from bertlab.training.costs.forecast import NO_RAMP, Materials, evaluation_tokens
from bertlab.training.costs.held import Pass, count_pass
from bertlab.training.location import Located, locate

ROWS = (64, 128)  # examples of the passes whose memory is counted
BATCHES = 4  # whose operations are counted
MEASURING = 1.0  # seconds for the rate of this machine's products
BYTES_OF = {"bfloat16": 2, "float32": 4}


class Surveyor:
    """Looks at runs; what several of them share is looked at once."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware, self.materials = hardware, Materials()

    def survey(self, config: Train, several: bool) -> list[Work]:
        """A run and, before it, the pretraining that it needs, on `several` devices or on one. Raises
        UserError for what would stop it.
        """
        precision = precision_of(config, self.hardware)
        return self._survey_located(locate(_on_this_cpu(config)), precision, several)

    def _survey_located(self, run: Located, precision: str, several: bool) -> list[Work]:
        if several and not run.config.objective.examples_add_up:
            raise ConfigError(
                f"devices: objective={run.config.objective.name} learns from an example by the others in its"
                " batch, which devices would not share: devices=1"
            )
        before = [] if run.stage is None else self._survey_located(run.stage, precision, several)
        material = self.materials.of(run)
        with threads(run.device.threads):
            return [*before, self._work(run, material, precision)]

    def _work(self, run: Located, material: Material, precision: str) -> Work:
        config, train = run.config, material.examples["train"]
        # of one seed, so that runs which differ in it alone are told once
        plain = dataclasses.replace(config.budget, **NO_RAMP)
        order = order_of(dataclasses.replace(config, budget=plain, seed=0), train)
        epoch = order.epoch(0)
        examples = sum(map(len, epoch)) / len(epoch)
        tokens = sum(float(train.lengths[rows].sum()) for rows in epoch) / len(epoch)
        steps = steps_of(config, order, examples, tokens)
        model = build_model(config, material.tokenizer, material.objective)
        for weight in frozen_weights(config.finetune, model):
            weight.requires_grad_(False)
        weights, layers = list(model.parameters()), layer_sizes(model)
        longest = np.argsort(-train.lengths, kind="stable")
        few, many = (min(size, max(1, len(train) * size // ROWS[1])) for size in ROWS)
        held = [self._pass(config, model, material, longest[:size], precision) for size in (few, many)]
        slope = max(0, held[1].bytes - held[0].bytes) / max(1, many - few)
        some = epoch[:BATCHES]
        forward = sum(self._pass(config, model, material, rows, precision).forward_flops for rows in some)
        per_token = (1 + BACKWARD) * forward / float(sum(train.lengths[rows].sum() for rows in some))
        evaluated = evaluation_tokens(config, material, order, steps)
        return Work(
            name=run.folder.name,
            parameters=sum(weight.numel() for weight in weights),
            trained=sum(weight.numel() for weight in weights if weight.requires_grad),
            state_bytes=state_bytes(config, model, held[0].learning),
            fixed_bytes=max(0.0, held[0].bytes - slope * few),
            example_bytes=slope,
            layered=sum(layers),
            gathered=gathered(sum(weight.numel() for weight in weights), layers),
            weight_bytes=BYTES_OF[precision],
            examples=examples,
            tokens=tokens,
            steps=steps,
            flops=per_token * tokens,
            other_flops=per_token / (1 + BACKWARD) * evaluated,
            micro_batch=config.compute.micro_batch_size,
            most=max(map(len, epoch)),
        )

    def _pass(
        self, config: Train, model: Model, material: Material, rows: np.ndarray, precision: str
    ) -> Pass:
        """Over these examples. Raises ConfigError where it cannot be counted."""
        batch = material.objective.collate(material.examples["train"], rows, Draw(0, 0, 0.5))
        counted = count_pass(model, material.objective, batch, self.hardware.kind, precision)
        if counted is None:
            raise ConfigError(
                f"devices: what objective={config.objective.name} with model={config.model.name} computes"
                " depends on the values it meets, so that it cannot be counted for devices that are not here"
            )
        return counted


def _on_this_cpu(config: Train) -> Train:
    """The same run where its data are looked at."""
    here = dataclasses.replace(
        config.compute, device="cpu", precision="float32", compile=False, processes=1, sharding="none"
    )
    return dataclasses.replace(config, compute=here)


def precision_of(config: Train, hardware: Hardware) -> str:
    """As the config says it; `auto` is bfloat16 on a GPU, and on a processor what this one computes in."""
    asked = config.compute.precision
    if asked != "auto":
        return asked
    return "bfloat16" if hardware.kind == "cuda" else choose_device("cpu", "auto", None).precision


def steps_of(config: Train, order: BatchOrder, examples: float, tokens: float) -> int:
    """Steps of the whole run, of a mean step's examples and tokens. Raises ConfigError for a budget of time
    alone.
    """
    budget = config.budget
    if budget.is_timed:
        raise ConfigError(
            "devices: budget.hours alone does not say how much is computed: plan with budget.tokens, steps,"
            " epochs or examples"
        )
    if budget.steps is not None:
        return budget.steps
    if budget.epochs is not None and budget.batch_tokens is None:
        return order.steps_in(budget.epochs)
    if budget.epochs is not None:
        return max(1, round(budget.epochs * order.steps_in(1.0)))
    if budget.examples is not None:
        return max(1, -(-budget.examples // max(1, round(examples))))
    assert budget.tokens is not None
    return max(1, int(np.ceil(budget.tokens / tokens)))


def state_bytes(config: Train, model: Model, learning: Collection[str]) -> int:
    """Of the optimizer, after a step in which the weights of these names got gradients."""
    optimizer = build_optimizer(config, model)
    for name, weight in model.named_parameters():
        weight.grad = torch.zeros_like(weight) if name in learning else None
    optimizer.step()
    held = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.ndim > 0  # a count of steps is a number
    ]
    optimizer.zero_grad(set_to_none=True)
    averages = sum(weight.numel() for weight in model.parameters()) if config.optimizer.ema_decay > 0 else 0
    return sum(value.numel() * value.element_size() for value in held) + WEIGHT * averages


def layer_sizes(model: Model) -> list[int]:
    """Parameters of each layer; none of an encoder that tells no layers apart."""
    try:
        levels = model.encoder.levels()
    except ConfigError:
        return []
    return [sum(weight.numel() for weight in level) for level in levels[1:-1]]


def gathered(parameters: int, layers: Sequence[int]) -> int:
    """How many are whole at a time: those around the layers, of the layer in use, and of the one that is
    fetched meanwhile.
    """
    return parameters - sum(layers) + sum(sorted(layers)[-2:])


def devices_of(hardware: Hardware, precision: str) -> Devices:
    """The declared figures in plain units; what is null is measured on this machine's cores, of which each is
    a device.
    """
    told = hardware.bfloat16_tflops if precision == "bfloat16" else hardware.float32_tflops
    cores = usable_cores()
    if told is None:
        with threads(1):
            rate = product_rate(torch.device("cpu"), getattr(torch, precision), seconds=MEASURING)
    memory = machine_memory() / cores if hardware.memory_gb is None else 1e9 * hardware.memory_gb
    return Devices(
        flops=rate if told is None else 1e12 * told,
        memory=hardware.memory_share * memory,
        per_node=hardware.devices_per_node or cores,
        link=1e9 * hardware.link_share * hardware.link_gb_s,
        network=1e9 * hardware.link_share * hardware.network_gb_s,
        latency=1e-6 * hardware.latency_us,
        message=1e-6 * hardware.message_us,
        share=hardware.share,
        half_tokens=float(hardware.half_tokens),
        least_pass=1e-3 * hardware.pass_ms,
        overlap=hardware.overlap,
        price=hardware.price,
    )
