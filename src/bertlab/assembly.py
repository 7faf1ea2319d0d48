"""From a typed config to live objects: data, tokenizer, objective, model, optimizer."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bertlab import registry, store
from bertlab.checkpoint import publish_folder, write_text
from bertlab.config import Budget, Finetune, Train, validate
from bertlab.contracts import Batch, Examples, Objective, ParameterGroup
from bertlab.data.dataset import LoadedDataset, columns_of, load_dataset
from bertlab.data.examples import read_examples, write_examples
from bertlab.data.tokenizer import Inherited, Pretrained, Tokenizer, batches_of_texts, load_tokenizer, train_tokenizer
from bertlab.data.tokenizer import Trained as TrainedTokenizer
from bertlab.errors import ConfigError, RunError
from bertlab.init import tokenizer_file
from bertlab.runtime import Device, keep_freed_memory, seed_everything


class Model(nn.Module):
    """An encoder and an objective's head."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.pooled_only = getattr(encoder, "can_pool_only", False) and getattr(head, "reads_pooled_only", False)
        self.rewrite = getattr(head, "rewrite", None)

    def forward(self, batch: Batch) -> Any:
        """The head's outputs for one batch."""
        options = {"pooled_only": True} if self.pooled_only else {}
        if self.rewrite is not None:  # a head may change what the encoder reads, e.g. by a generator of its own
            batch = self.rewrite(self.encoder, batch)
        hidden = self.encoder(batch.input_ids, batch.segment_ids, batch.attention_mask, **options)
        return self.head(self.encoder, hidden, batch)


# --- before anything is loaded --------------------------------------------------------------------------------------------------
def check_combination(config: Train) -> None:
    """What only components know of each other, in the run and in the pretraining it describes. Raises ConfigError naming both keys."""
    if (stage := config.init.stage(config)) is not None:
        _check_stage(stage)
    positions = getattr(config.model, "max_position_embeddings", None)
    if positions is not None and config.objective.max_length > positions:
        raise ConfigError(
            f"objective.max_length={config.objective.max_length} is longer than model.max_position_embeddings={positions}; "
            "shorten the one or raise the other"
        )
    offered = columns_of(config.dataset)
    inherits = config.tokenizer.name == "inherited"
    if inherits and config.init.name == "scratch" and not hasattr(config.model, "name_or_path"):
        raise ConfigError("tokenizer=inherited takes the tokenizer of what init names, but init=scratch names nothing")
    if not inherits and config.init.name == "stage":
        raise ConfigError("init=stage: its weights know no other words than its own tokenizer's: set tokenizer=inherited")
    timed = all(getattr(config.budget, unit) is None for unit in Budget.UNITS)
    if timed and getattr(config.objective, "final_rate", None) is not None:
        raise ConfigError("objective.final_rate: budget.hours alone has no end that it could be reached at; add another unit of budget")
    needed = needed_columns(config)
    if lacking := [column for column in needed if column not in offered]:
        raise ConfigError(
            f"objective={config.objective.name} needs {', '.join(lacking)}, which dataset={config.dataset.name} does not have "
            f"(it has {', '.join(offered)}){'; dataset.documents=true if its texts have several sentences each' * ('document' in lacking)}"
        )


def _check_stage(stage: Train) -> None:
    """The same for the pretraining that a run describes; what is wrong there stands below `init`."""
    try:
        validate(stage)
        check_combination(stage)
    except ConfigError as error:
        raise ConfigError(f"in the pretraining (init): {error}") from None


def needed_columns(config: Train) -> tuple[str, ...]:
    """Columns that the objective reads."""
    return tuple(getattr(registry.module_of(config.objective), "COLUMNS", ("text", "label")))


# --- data, tokenizer, examples -----------------------------------------------------------------------------------------------------
@dataclass
class Material:
    """Data, tokenizer and objective of a run, and its tokenised splits."""

    dataset: LoadedDataset
    tokenizer: Tokenizer
    objective: Objective
    examples: dict[str, Examples]


def prepare(config: Train, inputs: dict[str, str], own: Path | None = None, source: Path | None = None) -> Material:
    """Load the dataset, train or load the tokenizer, tokenise every split; what was computed before is taken from the cache.

    `own` is the tokenizer of the run's own folder: a run that goes on keeps the vocabulary it began with. `source` is where the
    first weights come from, and with them an inherited tokenizer.
    """
    needed = needed_columns(config)
    versions = store.code_versions([registry.module_of(config.dataset)])
    code = {
        name: version for name, version in versions.items() if name.startswith(("data/", "bertlab_plugins")) and name not in store.BATCHING
    }
    data_key = {"data": inputs["dataset"], "dataset": dataclasses.asdict(config.dataset), "columns": needed, "code": code}
    try:
        dataset = load_dataset(config.dataset, config.paths, needed)
        tokenizer = _tokenizer(config, dataset, data_key, own, source)
        objective = build_objective(config, tokenizer, dataset.label_names)
        key = store.digest(
            {
                **data_key,
                "tokenizer": store.digest(tokenizer.to_json()),
                "objective": _prepared_by(config),
                "objective_code": store.code_versions([registry.module_of(config.objective)]),
                "labels": dataset.label_names,
            }
        )
        folder = store.cache_folder(config.paths) / "examples" / key
        if not folder.is_dir():

            def fill(temporary: Path) -> None:
                for split, rows in dataset.splits.items():
                    write_examples(temporary, split, objective.prepare(rows, tokenizer.encode))

            publish_folder(folder, fill)
        return Material(dataset, tokenizer, objective, {split: read_examples(folder, split) for split in dataset.splits})
    except OSError as error:
        raise RunError(
            f"paths.cache={store.cache_folder(config.paths)}: cannot be used ({error.strerror or error}); name another folder"
        ) from error


def _prepared_by(config: Train) -> dict[str, Any]:
    """The objective's options that decide its tokenised examples: those that its module names, else all."""
    names = getattr(registry.module_of(config.objective), "PREPARED_BY", None)
    options = dataclasses.asdict(config.objective)
    return options if names is None else {name: options[name] for name in ("name", *names)}


def _tokenizer(config: Train, dataset: LoadedDataset, data_key: dict[str, Any], own: Path | None, source: Path | None) -> Tokenizer:
    if own is not None and own.is_file():
        return Tokenizer.from_json(own.read_text(encoding="utf-8"))
    if isinstance(config.tokenizer, Inherited):
        assert source is not None
        return Tokenizer.from_json(tokenizer_file(source).read_text(encoding="utf-8"))
    if isinstance(config.tokenizer, Pretrained):
        return load_tokenizer(config.tokenizer)
    assert isinstance(config.tokenizer, TrainedTokenizer)
    file = (
        store.cache_folder(config.paths)
        / "tokenizers"
        / f"{store.digest({**data_key, 'tokenizer': dataclasses.asdict(config.tokenizer)})}.json"
    )
    if not file.is_file():
        train = dataset.splits["train"]
        columns = [train[name] for name in ("text", "text_pair", "tokens") if name in train.column_names]
        write_text(file, train_tokenizer(config.tokenizer, batches_of_texts(columns)).to_json())
    return Tokenizer.from_json(file.read_text(encoding="utf-8"))


# --- objective, model, optimizer ---------------------------------------------------------------------------------------------------
def build_objective(config: Train, tokenizer: Tokenizer, label_names: list[str]) -> Objective:
    """The objective for this tokenizer and these classes."""
    objective: Objective = registry.module_of(config.objective).build(config.objective, tokenizer.vocabulary(), label_names)
    return objective


def build_model(config: Train, tokenizer: Tokenizer, objective: Objective, head_seed: int | None = None) -> Model:
    """Encoder and head with random weights from torch's generator, which `head_seed` sets anew between the two."""
    encoder = registry.module_of(config.model).build(config.model, tokenizer.vocab_size, tokenizer.special.pad_id)
    if head_seed is not None:
        seed_everything(head_seed)
    return Model(encoder, objective.build_head(encoder, getattr(config.model, "initializer_range", 0.02)))


def build_initialized(config: Train, tokenizer: Tokenizer, objective: Objective, source: Path | None = None) -> Model:
    """Seed everything, build the model, give it the first weights that `init` names; torch's generator goes on from there.

    `source` is the folder of the stage that `init` names, if it names one. What `finetune` draws anew or freezes is so afterwards.
    """
    seed_everything(config.seed)
    # Where the encoder's weights come from elsewhere, head and dropout are those of the seed alone: arms are then paired, however
    # each encoder drew the weights that are about to be replaced.
    model = build_model(config, tokenizer, objective, None if config.init.name == "scratch" else config.seed)
    config.init.initialize(model, config.model, registry.module_of(config.model), tokenizer.to_json(), source)
    if config.finetune.reinit_layers:
        if not hasattr(model.encoder, "redraw"):
            raise ConfigError(f"finetune.reinit_layers: model={config.model.name} cannot draw layers anew")
        model.encoder.redraw(config.finetune.reinit_layers)  # type: ignore[operator]  # torch types attributes as modules
    for weight in frozen_weights(config.finetune, model):
        weight.requires_grad_(False)
    return model


def set_up(model: Model, config: Train, device: Device) -> Model:
    """The same model where it will be trained: on its device, compiled where asked, in a process that keeps its memory."""
    model.to(device.device)
    if device.device.type == "cpu":
        keep_freed_memory()
    if config.compute.compile:
        model.encoder.compile(dynamic=True if device.device.type == "cpu" else None)  # None: one shape is compiled as such
    return model


def levels_of(model: nn.Module, asked: str) -> list[list[nn.Parameter]]:
    """The encoder's weights from bottom to top: embeddings, each layer, the rest. Raises ConfigError where it does not tell."""
    if not hasattr(model.encoder, "levels"):
        raise ConfigError(f"{asked}: this model does not tell its layers")
    levels: list[list[nn.Parameter]] = model.encoder.levels()  # type: ignore[operator]  # torch types attributes as modules
    return levels


def frozen_weights(finetune: Finetune, model: Model) -> list[nn.Parameter]:
    """The encoder's weights that `finetune` leaves as they are."""
    if finetune.freeze_encoder:
        return list(model.encoder.parameters())
    if not (finetune.freeze_embeddings or finetune.freeze_layers):
        return []
    levels = levels_of(model, "finetune.freeze_layers")
    layers = len(levels) - 2
    if finetune.freeze_layers > layers:
        raise ConfigError(f"finetune.freeze_layers={finetune.freeze_layers}: the model has {layers} layers")
    if finetune.freeze_layers + finetune.reinit_layers > layers:
        raise ConfigError(
            f"finetune.freeze_layers={finetune.freeze_layers} and finetune.reinit_layers={finetune.reinit_layers} are more than the "
            f"model's {layers} layers: some would be random and frozen"
        )
    return [weight for level in levels[: 1 + finetune.freeze_layers] for weight in level]


def parameter_groups(model: nn.Module, layer_lr_decay: float = 1.0) -> list[ParameterGroup]:
    """Weights that decay (matrices) and weights that do not (biases, norms), as in Devlin et al. 2019's code.

    With `layer_lr_decay` below 1 the head and what stands on the layers keep the learning rate, the top layer has that share of it, each
    level below that share of the one above.
    """
    scales: dict[nn.Parameter, float] = {}
    if layer_lr_decay < 1:
        levels = levels_of(model, "finetune.layer_lr_decay")
        scales = {weight: layer_lr_decay ** (len(levels) - 1 - index) for index, level in enumerate(levels) for weight in level}
    tables = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    top = set(levels_of(model, "")[-1]) if hasattr(getattr(model, "encoder", None), "levels") else set()
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            decays = weight.ndim >= 2
            hidden = decays and weight not in tables and weight not in top and not name.startswith("head.")
            groups.setdefault((scales.get(weight, 1.0), decays, hidden), []).append(weight)
    return [ParameterGroup(weights, decays, scale, hidden) for (scale, decays, hidden), weights in groups.items()]


def build_optimizer(config: Train, model: Model) -> torch.optim.Optimizer:
    """The chosen optimizer over the model's parameter groups."""
    groups = parameter_groups(model, config.finetune.layer_lr_decay)
    optimizer: torch.optim.Optimizer = registry.module_of(config.optimizer).build(config.optimizer, groups)
    return optimizer
