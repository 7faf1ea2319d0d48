"""From a typed config to live objects: data, tokenizer, objective, model, optimizer."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import bertlab.data
from bertlab.config.schema import Finetune, Train, validate
from bertlab.contracts import Batch, Encoder, Examples, Head, Objective, ParameterGroup
from bertlab.data.dataset import LoadedDataset, load_dataset, roles_for, text_roles
from bertlab.data.example_files import read_examples, write_examples
from bertlab.data.text_checks import CountedTexts, merged_words, refuse_unknown
from bertlab.data.tokenizer import (
    GivenTokenizer,
    Tokenizer,
    TrainedTokenizer,
    batches_of_texts,
    load_tokenizer,
    tokenizer_beside,
    train_tokenizer,
)
from bertlab.errors import ConfigError, DataError, RunError
from bertlab.kernels import keep_freed_memory
from bertlab.runs.cache import cached
from bertlab.runs.files import digest, write_text
from bertlab.runs.identity import file_versions, folder_version
from bertlab.runs.machine import Device, seed_everything


class Model(nn.Module):
    """An encoder and an objective's head."""

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.pooled_only = encoder.pools_first_alone and head.reads_pooled_only

    def forward(self, batch: Batch) -> Any:
        """The head's outputs for one batch."""
        if self.head.rewrites:  # a head may change what the encoder reads, e.g. by a generator of its own
            batch = self.head.rewrite(self.encoder, batch)
        hidden = self.encoder(batch.input_ids, batch.segment_ids, batch.attention_mask, self.pooled_only)
        return self.head(self.encoder, hidden, batch)


# --- before anything is loaded --------------------------------------------------------------------------------------------------
def check_combination(config: Train) -> None:
    """What only components know of each other, in the run and in the pretraining it describes. Raises ConfigError naming both keys."""
    if (stage := config.init.stage(config)) is not None:
        _check_stage(stage)
    longest, objective, dataset = config.model.longest(), config.objective, config.dataset
    if longest is not None and objective.max_length > longest:
        raise ConfigError(
            f"objective.max_length={objective.max_length} is longer than model.max_position_embeddings={longest}; shorten the one or "
            "raise the other"
        )
    inherits, has_stage = config.tokenizer.inherits, config.init.stage(config) is not None
    if inherits and not config.init.gives_tokenizer and config.model.hub_name() is None:
        raise ConfigError(f"tokenizer=inherited takes the tokenizer of what init names, but init={config.init.name} names nothing")
    if has_stage and not inherits:
        raise ConfigError("init=stage: its weights know no other words than its own tokenizer's: set tokenizer=inherited")
    if config.budget.is_timed and (key := objective.needs_end()) is not None:
        raise ConfigError(f"objective.{key}: budget.hours alone has no end that it could be reached at; add another unit of budget")
    offered = dataset.offers()
    if lacking := [role for role in objective.roles if not role.optional and role.name not in offered]:
        hint = f"; name its column with dataset.{lacking[0].name}_column=…" if dataset.name == "files" else ""
        raise ConfigError(
            f"objective={objective.name} needs {', '.join(f'{role.name} ({role.kind})' for role in lacking)}, which dataset={dataset.name} "
            f"does not have (it has {', '.join(offered)}){hint}"
        )
    if objective.needs_documents and not dataset.has_documents():
        raise ConfigError(
            f"objective={objective.name} needs document, which dataset={dataset.name} does not have (it has {', '.join(offered)}); "
            "dataset.documents=true if its texts have several sentences each"
        )
    objective.for_task(dataset).primary_metric()


def _check_stage(stage: Train) -> None:
    """The same for the pretraining that a run describes; what is wrong there stands below `init`."""
    try:
        validate(stage)
        check_combination(stage)
    except ConfigError as error:
        raise ConfigError(f"in the pretraining (init): {error}") from None


# --- data, tokenizer, examples -----------------------------------------------------------------------------------------------------
@dataclass
class Material:
    """Data, tokenizer and objective of a run, and its tokenised splits."""

    dataset: LoadedDataset
    tokenizer: Tokenizer
    objective: Objective
    examples: dict[str, Examples]
    texts: dict[str, dict[str, Any]]  # of each split, what became of its texts: see data/text_checks.py


def prepare(config: Train, own: Path | None = None, source: Path | None = None, looks_only: bool = False) -> Material:
    """Load the dataset, train or load the tokenizer, tokenise every split; what was computed before is taken from the cache.

    `own` is the tokenizer of the run's own folder: a run that goes on keeps the vocabulary it began with. `source` is where the
    first weights come from, and with them an inherited tokenizer. `looks_only`: notes are not printed, and
    texts that are mostly unknown do not stop.
    """
    roles = roles_for(config.dataset, config.objective)
    data_key = {
        "data": config.dataset.fingerprint(config.paths),
        "dataset": config.dataset.deciding(),
        "roles": [dataclasses.asdict(role) for role in roles],
        "code": folder_version(Path(bertlab.data.__path__[0])),
    }
    dataset = load_dataset(config.dataset, config.paths, roles)
    for line in () if looks_only else dataset.notes:
        print(line, flush=True)
    tokenizer = _tokenizer(config, dataset, data_key, own, source)
    objective = build_objective(config, tokenizer, dataset.label_names)
    key = digest(
        {
            **data_key,
            "tokenizer": digest(tokenizer.to_json()),
            "objective": _prepared_by(config),
            "objective_code": file_versions(config.objective),
            "labels": dataset.label_names,
        }
    )

    def fill(folder: Path) -> None:
        texts: dict[str, dict[str, Any]] = {}
        for split, rows in dataset.splits.items():
            counted = CountedTexts(tokenizer)
            try:
                write_examples(folder, split, counted.watch(objective.prepare(rows, counted)))
            except DataError as error:
                raise DataError(f"{config.dataset.name}, {split} split: {error}") from error
            texts[split] = counted.shares()
        train = dataset.splits["train"]
        texts["train"] |= merged_words(tokenizer, batches_of_texts([train[name] for name in text_roles(roles)]))
        write_text(folder / "texts.json", json.dumps(texts, ensure_ascii=False))

    folder = cached(config.paths, "examples", key, fill)
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    if not looks_only:
        refuse_unknown(config, texts)
    examples = {split: read_examples(folder, split) for split in dataset.splits}
    objective.fit_to(examples["train"])
    return Material(dataset, tokenizer, objective, examples, texts)


def _prepared_by(config: Train) -> dict[str, Any]:
    """The objective's options that decide its tokenised examples: those that it declares, else all."""
    names, options = config.objective.prepared_by, config.objective.deciding()
    return options if names is None else {name: options[name] for name in ("name", *names)}


def _tokenizer(config: Train, dataset: LoadedDataset, data_key: dict[str, Any], own: Path | None, source: Path | None) -> Tokenizer:
    given = config.tokenizer
    if own is not None and own.is_file():
        return _read_tokenizer(own)
    if isinstance(given, GivenTokenizer):
        return load_tokenizer(given)
    if isinstance(given, TrainedTokenizer):

        def fill(folder: Path) -> None:
            train, roles = dataset.splits["train"], roles_for(config.dataset, config.objective)
            columns = [train[name] for name in text_roles(roles)]
            write_text(folder / "tokenizer.json", train_tokenizer(given, batches_of_texts(columns)).to_json())

        return _read_tokenizer(
            cached(config.paths, "tokenizers", digest({**data_key, "tokenizer": given.deciding()}), fill) / "tokenizer.json"
        )
    assert source is not None
    return _read_tokenizer(tokenizer_beside(source))


def _read_tokenizer(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_json(file.read_text(encoding="utf-8"))
    except (DataError, OSError, ValueError) as error:
        raise RunError(f"{file}: damaged ({str(error)[:120]}); remove it to make it again") from error


# --- objective, model, optimizer ---------------------------------------------------------------------------------------------------
def build_objective(config: Train, tokenizer: Tokenizer, label_names: list[str]) -> Objective:
    """The objective for this tokenizer and these classes."""
    return config.objective.for_task(config.dataset).build(tokenizer.vocabulary(), label_names)


def build_model(config: Train, tokenizer: Tokenizer, objective: Objective, head_seed: int | None = None) -> Model:
    """Encoder and head with random weights from torch's generator, which `head_seed` sets anew between the two."""
    encoder = config.model.build(tokenizer.vocab_size, tokenizer.special.pad_id)
    if head_seed is not None:
        seed_everything(head_seed)
    return Model(encoder, objective.build_head(encoder, config.model.head_range()))


def build_initialized(config: Train, tokenizer: Tokenizer, objective: Objective, source: Path | None = None) -> Model:
    """Seed everything, build the model, give it the first weights that `init` names; torch's generator goes on from there.

    `source` is the folder of the stage that `init` names, if it names one. What `finetune` draws anew or freezes is so afterwards.
    """
    seed_everything(config.seed)
    # Where the encoder's weights come from elsewhere, head and dropout are those of the seed alone: arms are then paired, however
    # each encoder drew the weights that are about to be replaced.
    model = build_model(config, tokenizer, objective, None if config.init.name == "scratch" else config.seed)
    config.init.initialize(model, config, tokenizer.to_json(), source)
    if config.finetune.reinit_layers:
        model.encoder.redraw(config.finetune.reinit_layers)
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
            f"finetune.freeze_layers={finetune.freeze_layers} and finetune.reinit_layers={finetune.reinit_layers} are more than the "
            f"model's {layers} layers: some would be random and frozen"
        )
    return [weight for level in levels[: 1 + finetune.freeze_layers] for weight in level]


def parameter_groups(model: Model, layer_lr_decay: float = 1.0) -> list[ParameterGroup]:
    """Weights that decay (matrices) and weights that do not (biases, norms), as in Devlin et al. 2019's code.

    With `layer_lr_decay` below 1 the head and what stands on the layers keep the learning rate, the top layer has that share of it, each
    level below that share of the one above.
    """
    scales: dict[nn.Parameter, float] = {}
    if layer_lr_decay < 1:
        levels = model.encoder.levels()
        scales = {weight: layer_lr_decay ** (len(levels) - 1 - index) for index, level in enumerate(levels) for weight in level}
    hidden = model.encoder.hidden_matrices()
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for weight in model.parameters():
        if weight.requires_grad:
            groups.setdefault((scales.get(weight, 1.0), weight.ndim >= 2, weight in hidden), []).append(weight)
    return [ParameterGroup(weights, decays, scale, hidden) for (scale, decays, hidden), weights in groups.items()]


def build_optimizer(config: Train, model: Model) -> torch.optim.Optimizer:
    """The chosen optimizer over the model's parameter groups."""
    return config.optimizer.build(parameter_groups(model, config.finetune.layer_lr_decay))
