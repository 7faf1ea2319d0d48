"""From a typed config to a model and its optimizer, and what only the parts of a config together show."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bertlab.config.schema import Finetune, Train, validate
from bertlab.contracts import Batch, Encoder, Head, Loss, Objective, ParameterGroup
from bertlab.data.tokenizer import Tokenizer
from bertlab.declarations import Metric
from bertlab.errors import ConfigError
from bertlab.kernels import Part, WholeDraws, keep_freed_memory, part
from bertlab.promises import broken, built, expect, in_words, refuse_lacking, told
from bertlab.runs.machine import Device
from bertlab.training.steps.randomness import seed_everything


class Model(nn.Module):
    """An encoder and an objective's head."""

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.pooled_only = encoder.pools_first_alone and head.reads_pooled_only

    def forward(self, batch: Batch, encode: Callable[..., Tensor] | None = None) -> Any:
        """The head's outputs for one batch; `encode` may stand for the encoder's call."""
        if self.head.rewrites:  # a head may change what the encoder reads, e.g. by a generator of its own
            batch = self.head.rewrite(self.encoder, batch)
        if (own := part()) is not None:
            return self._forward_part(batch, own)
        call = self.encoder if encode is None else encode
        hidden = call(batch.input_ids, batch.segment_ids, batch.attention_mask, self.pooled_only)
        return self.head(self.encoder, hidden, batch)

    def _forward_part(self, batch: Batch, own: Part) -> Any:
        """As one process computes these examples among all: padded as far as the longest of all, dropout
        drawn for all of them.
        """
        length = batch.input_ids.shape[1]
        more = own.length - length
        ids, segments, mask = (
            F.pad(batch.input_ids, (0, more)),
            F.pad(batch.segment_ids, (0, more)),
            batch.attention_mask,
        )
        if more:
            mask = torch.ones_like(batch.input_ids, dtype=torch.bool) if mask is None else mask
            mask = F.pad(mask, (0, more) if mask.ndim == 2 else (0, more, 0, more))
        with nullcontext() if self.encoder.drops_by_kernels else WholeDraws(own):
            hidden = self.encoder(ids, segments, mask, self.pooled_only)
        with WholeDraws(own, self.head.drops_tokens):
            return self.head(self.encoder, hidden[:, :length], batch)


class Learner(nn.Module):
    """A model and what it learns from: a batch to its summed loss and how many units that is of."""

    def __init__(self, model: Model, objective: Objective, device: Device) -> None:
        super().__init__()
        self.model, self.objective, self.device = model, objective, device
        # in the encoder's place, where several models learn together
        self.encode: Callable[..., Tensor] | None = None

    def forward(self, batch: Batch) -> tuple[Tensor, float]:
        """(nats, count)."""
        with self.device.autocast():
            outputs = self.model(batch, self.encode)
        loss: Loss = expect(self.objective.loss(outputs, batch), Loss, self.objective, "loss")
        return loss.total, loss.count


# --- before anything is loaded --------------------------------------------------------------------
def check_combination(config: Train) -> None:
    """What only components know of each other, in the run and in the pretraining it describes. Raises
    ConfigError naming both keys.
    """
    if (stage := config.init.stage(config)) is not None:
        _check_stage(stage)
    _check_promises(config)
    config.init.check_fit(config)
    longest, objective, dataset = config.model.longest(), config.objective, config.dataset
    if longest is not None and objective.max_length > longest:
        raise ConfigError(
            f"objective.max_length={objective.max_length} is longer than"
            f" model.max_position_embeddings={longest}; shorten the one or raise the other"
        )
    if (first := config.budget.length_from) is not None:
        if not objective.folds:
            raise ConfigError(
                f"budget.length_from={first}: objective={objective.name} folds no rows; objective=mlm does"
            )
        if first >= objective.max_length:
            raise ConfigError(
                f"budget.length_from={first}: must be less than objective.max_length={objective.max_length}"
            )
    inherits, has_stage = config.tokenizer.inherits, config.init.stage(config) is not None
    if inherits and not config.init.gives_tokenizer and config.model.hub_name() is None:
        raise ConfigError(
            f"tokenizer=inherited takes the tokenizer of what init names, but init={config.init.name} names"
            " nothing"
        )
    if has_stage and not inherits:
        raise ConfigError(
            "init=stage: its weights know no other words than its own tokenizer's: set tokenizer=inherited"
        )
    if config.budget.is_timed and (key := objective.needs_end()) is not None:
        raise ConfigError(
            f"objective.{key}: budget.hours alone has no end that it could be reached at; add another unit of"
            " budget"
        )
    offered = dataset.offers()
    if lacking := [role for role in objective.roles if not role.optional and role.name not in offered]:
        key = dataset.key_of_role(lacking[0].name)
        hint = f"; name its column with dataset.{key}=…" if key is not None else ""
        raise ConfigError(
            f"objective={objective.name} needs {', '.join(f'{role.name} ({role.kind})' for role in lacking)},"
            f" which dataset={dataset.name} does not have (it has {', '.join(offered)}){hint}"
        )
    if config.compute.processes > 1 and not objective.examples_add_up:
        raise ConfigError(
            f"compute.processes={config.compute.processes}: objective={objective.name} learns from an example"
            " by the others in its batch, so that one process must see all of them; leave it 1"
        )
    _check_together(config)
    _check_sharding(config)
    if objective.needs_documents and not dataset.has_documents():
        raise ConfigError(
            f"objective={objective.name} needs document, which dataset={dataset.name} does not have (it has"
            f" {', '.join(offered)}); dataset.documents=true if its texts have several sentences each"
        )
    objective.for_task(dataset).primary_metric()


def _check_together(config: Train) -> None:
    """What cannot be trained as one model with other seeds. Raises ConfigError."""
    compute, key = config.compute, f"compute.together={config.compute.together}"
    if compute.together == 1:
        return
    if compute.processes > 1:
        raise ConfigError(f"{key}: one process trains all of them; leave compute.processes at 1")
    if compute.compile:
        raise ConfigError(f"{key}: several models as one are not compiled; leave compute.compile out")
    if config.model.hub_name() is not None:
        raise ConfigError(
            f"{key}: model={config.model.name} is Hugging Face's code, which draws dropout for one model"
            " alone; take a model=bert_*, or leave compute.together at 1"
        )
    if not config.tracker.side_by_side:
        raise ConfigError(
            f"{key}: tracker={config.tracker.name} tracks one run of a process at a time; take another"
            " tracker, or leave compute.together at 1"
        )


def _check_sharding(config: Train) -> None:
    """What cannot be trained in parts. Raises ConfigError."""
    compute, key = config.compute, f"compute.sharding={config.compute.sharding}"
    if compute.sharding == "none":
        return
    if compute.compile:
        raise ConfigError(f"{key}: an encoder in parts is not compiled; leave compute.compile out")
    if config.evaluation.pairs is not None:
        raise ConfigError(
            f"{key}: minimal pairs are scored by one process, which has a part of the weights alone; leave"
            " evaluation.pairs out, and score the finished run by bertlab evaluate run=… pairs=…"
        )


def _check_promises(config: Train) -> None:
    """Of what components declare, what shows before they are built."""
    for component in (config.model, config.objective, config.optimizer, config.tracker):
        refuse_lacking(type(component))
    objective = config.objective
    if not objective.roles:
        raise ConfigError(
            f"objective={objective.name} declares no roles; its config says which columns it reads, e.g."
            ' roles: ClassVar = (TEXT, Role("label", "label", is_answer=True))'
        )
    classes, answers = objective.tells_classes_of, objective.answers()
    if classes is not None and classes not in answers:
        raise ConfigError(
            f"objective={objective.name}: tells_classes_of={classes!r} is none of the roles that it predicts"
            f" ({', '.join(answers) or 'it has none'}); name one of them, or leave the declaration out"
        )
    metrics, right = objective.metrics(()), f"it must return a tuple of {in_words(Metric)}"
    if not (isinstance(metrics, Sequence) and metrics):
        raise broken(
            objective, "metrics", f"returned {told(metrics)}" if metrics != () else "returned none", right
        )
    for metric in metrics:
        if not isinstance(metric, Metric):
            raise broken(objective, "metrics", f"returned {told(metric)} among them", right)


def _check_stage(stage: Train) -> None:
    """The same for the pretraining that a run describes; what is wrong there stands below `init`."""
    try:
        validate(stage)
        check_combination(stage)
    except ConfigError as error:
        raise ConfigError(f"in the pretraining (init): {error}") from None


# --- model, optimizer -----------------------------------------------------------------------------
def build_model(
    config: Train, tokenizer: Tokenizer, objective: Objective, head_seed: int | None = None
) -> Model:
    """Encoder and head with random weights from torch's generator, which `head_seed` sets anew between the
    two.
    """
    encoder = built(
        config.model.build(tokenizer.vocab_size, tokenizer.special.pad_id), Encoder, config.model, "build"
    )
    if head_seed is not None:
        seed_everything(head_seed)
    head = objective.build_head(encoder, config.model.head_range())
    return Model(encoder, built(head, Head, objective, "build_head"))


def build_initialized(
    config: Train, tokenizer: Tokenizer, objective: Objective, source: Path | None = None
) -> Model:
    """Seed everything, build the model, give it the first weights that `init` names; torch's generator goes
    on from there.

    `source` is the folder of the stage that `init` names, if it names one. What `finetune` draws anew or
    freezes is so afterwards.
    """
    seed_everything(config.seed)
    # Where the encoder's weights come from elsewhere, head and dropout are those of the seed alone: arms are
    # then paired, however each encoder drew the weights that are about to be replaced.
    model = build_model(config, tokenizer, objective, None if config.init.name == "scratch" else config.seed)
    config.init.initialize(model, config, tokenizer.to_json(), source)
    if config.finetune.reinit_layers:
        model.encoder.redraw(config.finetune.reinit_layers)
    for weight in frozen_weights(config.finetune, model):
        weight.requires_grad_(False)
    return model


def set_up(model: Model, config: Train, device: Device) -> Model:
    """The same model where it will be trained: on its device, compiled where asked, in a process that keeps
    its memory.
    """
    model.to(device.device)
    if device.device.type == "cpu":
        keep_freed_memory()
    if config.compute.compile:
        # None: one shape is compiled as such
        model.encoder.compile(dynamic=True if device.device.type == "cpu" else None)
    return model


def frozen_weights(finetune: Finetune, model: Model) -> list[nn.Parameter]:
    """The encoder's weights that `finetune` leaves as they are."""
    if finetune.freeze_encoder:
        return list(model.encoder.parameters())
    if not (finetune.freeze_embeddings or finetune.freeze_layers):
        return []
    levels = model.encoder.levels()
    layers = len(levels) - 2
    if finetune.freeze_layers > layers:
        raise ConfigError(f"finetune.freeze_layers={finetune.freeze_layers}: the model has {layers} layers")
    if finetune.freeze_layers + finetune.reinit_layers > layers:
        raise ConfigError(
            f"finetune.freeze_layers={finetune.freeze_layers} and"
            f" finetune.reinit_layers={finetune.reinit_layers} are more than the model's {layers} layers:"
            " some would be random and frozen"
        )
    return [weight for level in levels[: 1 + finetune.freeze_layers] for weight in level]


def parameter_groups(model: Model, layer_lr_decay: float = 1.0) -> list[ParameterGroup]:
    """Weights that decay (matrices) and weights that do not (biases, norms), as in Devlin et al. 2019's code.

    With `layer_lr_decay` below 1 the head and what stands on the layers keep the learning rate, the top layer
    has that share of it, each level below that share of the one above.
    """
    scales: dict[nn.Parameter, float] = {}
    if layer_lr_decay < 1:
        levels = model.encoder.levels()
        scales = {
            weight: layer_lr_decay ** (len(levels) - 1 - index)
            for index, level in enumerate(levels)
            for weight in level
        }
    hidden = model.encoder.hidden_matrices()
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for weight in model.parameters():
        if weight.requires_grad:
            groups.setdefault((scales.get(weight, 1.0), weight.ndim >= 2, weight in hidden), []).append(
                weight
            )
    return [
        ParameterGroup(weights, decays, scale, hidden) for (scale, decays, hidden), weights in groups.items()
    ]


def build_optimizer(config: Train, model: Model) -> torch.optim.Optimizer:
    """The chosen optimizer over the model's parameter groups."""
    groups = parameter_groups(model, config.finetune.layer_lr_decay)
    kind = torch.optim.Optimizer
    optimizer: torch.optim.Optimizer = expect(config.optimizer.build(groups), kind, config.optimizer, "build")
    if any("peak_lr" not in group for group in optimizer.param_groups):
        raise broken(
            config.optimizer,
            "build",
            "returned a torch group without peak_lr",
            "make each by ParameterGroup.to_torch(lr, weight_decay)",
        )
    return optimizer
