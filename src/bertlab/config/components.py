"""Bases of the options of every model, objective, optimizer, tracker, dataset, tokenizer, schedule and init,
and what each declares beside them.
"""

import abc
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bertlab.config.fields import Component, choice, integer, newer, number, string
from bertlab.declarations import HfHead, Metric, Mixing, Role, metric_named
from bertlab.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from bertlab.config.schema import Paths, Train
    from bertlab.contracts import Encoder, Objective, ParameterGroup, RunInfo, Tracker, Vocabulary


@dataclass
class ModelConfig(Component):
    """Base of every model's config (models/*.py). What it does not say of its model is refused, never
    guessed.
    """

    pooling: str = choice(
        "cls",
        "cls",
        "mean",
        "max",
        help="cls = the model's own pooler, or its first token; else over real tokens",
    )

    leaves_as_code: ClassVar[bool] = (
        False  # whether the modelling file of exports (export/modeling_bertlab.py) holds its encoder
    )

    @abc.abstractmethod
    def build(self, vocab_size: int, pad_id: int) -> "Encoder":
        """The encoder with fresh weights from torch's generator."""
        raise NotImplementedError(f"{type(self).__name__} lacks build(vocab_size, pad_id)")

    def longest(self) -> int | None:
        """Tokens that its positions reach; None where nothing is known before it is built."""
        return None

    def hub_name(self) -> str | None:
        """Folder or hub name of the Hugging Face model that it opens; None for a model of our own."""
        return None

    def head_range(self) -> float:
        """Standard deviation of a head's initial weights."""
        return 0.02

    def load_pretrained(self, encoder: "Encoder", folder: Path, asked: str) -> None:
        """Copy a Hugging Face checkpoint's weights, under our names. Raises UserError naming what does not
        fit.
        """
        raise ConfigError(f"{asked}: model={self.name} has no Hugging Face counterpart; use model=bert")

    def unlike_transformers(self) -> list[str]:
        """`model.key=value` of each option for which transformers has no class; empty where it has one for
        the encoder.
        """
        return [f"model={self.name}"]

    def transformers_config(self, vocab_size: int, pad_id: int) -> dict[str, Any]:
        """Entries of the config.json from which transformers builds the same encoder. Raises ConfigError
        where it cannot.
        """
        raise ConfigError(f"model={self.name} has no counterpart in transformers")

    def transformers_state(
        self, state: "Mapping[str, torch.Tensor]", prefix: str
    ) -> "dict[str, torch.Tensor]":
        """The encoder's weights under their names there, each after `prefix`."""
        raise ConfigError(f"model={self.name} has no counterpart in transformers")

    def may_differ(self) -> frozenset[str]:
        """Keys that may be others than those of the run whose weights it takes."""
        return frozenset({"name", "pooling"})

    def free_in_pretraining(self) -> tuple[str, ...]:
        """Keys that may be others in the pretraining that a run describes."""
        return ()


@dataclass
class ObjectiveConfig(Component):
    """Base of every objective's config (objectives/*.py): its options, and the declaration of what it is."""

    max_length: int = integer(128, "longest sequence in tokens, special tokens included", low=4)
    primary: str | None = string(
        None, "the metric that selects and is compared first; null = the objective's own first"
    )

    roles: ClassVar[tuple[Role, ...]] = ()  # the columns that it reads
    needs_documents: ClassVar[bool] = False  # whether each text must be a document of several sentences
    prepared_by: ClassVar[tuple[str, ...] | None] = (
        None  # options that decide what `prepare` makes; None = all of them
    )
    predicts: ClassVar[bool] = True  # whether it has answers for texts of the user's own
    folds: ClassVar[bool] = False  # whether its batches can be folded to shorter rows, by `Draw.length`
    predicts_tokens: ClassVar[bool] = (
        False  # whether its outputs hold what stood at masked places: `Objective.token_logits`
    )
    # the role whose classes a prediction of each row names: the likeliest as `label`, the probability of each
    # in `probabilities`, as in classification, with a score `confusion` where it has one; None: no such role
    tells_classes_of: ClassVar[str | None] = None
    loss_unit: ClassVar[str] = "nats per example"
    examples_add_up: ClassVar[bool] = (
        True  # whether a batch's loss is the sum of its parts': else one process must see all of it
    )

    @abc.abstractmethod
    def metrics(self, label_names: Sequence[str]) -> tuple[Metric, ...]:
        """Every number that it scores by, the one that selects first; without names, those that do not depend
        on them.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks metrics(label_names)")

    @abc.abstractmethod
    def build(self, vocabulary: "Vocabulary", label_names: Sequence[str]) -> "Objective":
        """The objective for one tokenizer's vocabulary and one dataset's classes."""
        raise NotImplementedError(f"{type(self).__name__} lacks build(vocabulary, label_names)")

    def hf_head(self) -> HfHead | None:
        """The head's counterpart in transformers; None where there is none."""
        return None

    def needs_end(self) -> str | None:
        """The option that changes up to the end of training, which must then be known; None where there is
        none.
        """
        return None

    def primary_metric(self, label_names: Sequence[str] = ()) -> Metric:
        """The metric that selects. Raises ConfigError for a name that is none."""
        metrics = self.metrics(label_names)
        chosen = metrics[0] if self.primary is None else metric_named(metrics, self.primary)
        if chosen is None:
            names = [metric.name for metric in metrics]
            raise ConfigError(
                f"objective.primary={self.primary}: objective={self.name} has no such metric, "
                f"{did_you_mean(str(self.primary), names, most=40)}"
            )
        return chosen

    def for_task(self, dataset: "DatasetConfig") -> "ObjectiveConfig":
        """Itself, with what the dataset declares of its task where nothing else was set."""
        if (
            self.primary is not None
            or dataset.metric is None
            or metric_named(self.metrics(()), dataset.metric) is None
        ):
            return self
        return dataclasses.replace(self, primary=dataset.metric)

    def score_of(
        self,
        _metric: str,
        _rows: Any,
        _predictions: Sequence[Mapping[str, Any]],
        _label_names: Sequence[str],
        /,
    ) -> "Callable[[np.ndarray], float] | None":
        """How a metric comes of rows of a split, given by their numbers `(n,)`, from kept predictions; None
        where it cannot.
        """
        return None

    def answers(self) -> dict[str, str]:
        """Role -> kind of what it predicts."""
        return {role.name: role.kind for role in self.roles if role.is_answer}


@dataclass
class OptimizerConfig(Component):
    """Base of every optimizer's config (optimizers/*.py)."""

    lr: float = number(1e-3, "peak learning rate, reached at the end of warm-up", above=0)
    clip_norm: float = number(1.0, "largest global gradient norm; 0 = no clipping", low=0)
    ema_decay: float = number(
        0.0,
        "decay of a moving average of the weights, which then is what is evaluated, selected and saved; 0 ="
        " none",
        low=0,
        below=1,
    )
    skip_spikes: float | None = newer(
        number(
            None,
            "leave out updates whose loss lies so many standard deviations above its running mean; null ="
            " count those above 6",
            above=0,
        )
    )

    @abc.abstractmethod
    def build(self, groups: "list[ParameterGroup]") -> "torch.optim.Optimizer":
        """The optimizer over these groups; each torch group holds `peak_lr`, which the schedule
        multiplies.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks build(groups)")


@dataclass
class TrackerConfig(Component):
    """Base of every tracker's config (trackers/*.py). Local files are always written beside it."""

    side_by_side: ClassVar[bool] = False  # whether several runs of one process may track by it at a time

    @abc.abstractmethod
    def build(self, info: "RunInfo") -> "Tracker | None":
        """A tracker for one run; None where there is nothing beside the local files."""
        raise NotImplementedError(f"{type(self).__name__} lacks build(info)")


@dataclass
class DatasetConfig(Component):
    """Base of every dataset's config (data/tables, data/synthetic.py)."""

    fraction: float = number(
        1.0, "share of the training split to train on (a seeded, stratified sample)", above=0, high=1
    )
    validation_fraction: float = number(
        0.1,
        "share of train held out, by a hash of each text, where the dataset has no validation split",
        above=0,
        below=1,
    )
    test_fraction: float = number(
        0.0, "share of train held out as test, where the dataset has none; 0 = no test", low=0, below=1
    )
    split_seed: int = integer(
        0, "seed of the hold-out splits, the folds and the fraction; independent of the run's seed", low=0
    )
    folds: int | None = newer(
        integer(
            None,
            "cut train into so many parts that have its classes in equal shares; one is validation, and the"
            " dataset's own is left out",
            low=2,
        )
    )
    fold: int | None = newer(
        integer(
            None,
            "which of the folds is validation, from 0; with -m dataset.fold=range(5) each in turn",
            low=0,
        )
    )
    metric: str | None = newer(
        string(
            None,
            "the task's official score: what objective.primary is where that is not set and the objective has"
            " it",
        )
    )

    positive_class: str | None = newer(
        string(None, "the class that an official F1 is of, where it is of one")
    )

    def check(self, path: str) -> None:
        """Its name is part of a folder's name; a fold is one of those that there are."""
        if self.folds is None and self.fold is not None:
            raise ConfigError(f"{path}.fold={self.fold}: of how many? add {path}.folds=5")
        if self.folds is not None and self.fold is None:
            raise ConfigError(
                f"{path}.folds={self.folds}: which of them is validation? add {path}.fold=0, or with -m"
                f" {path}.fold=range({self.folds})"
            )
        if self.folds is not None and self.fold is not None and self.fold >= self.folds:
            raise ConfigError(
                f"{path}.fold={self.fold}: the folds are 0 to {self.folds - 1} ({path}.folds={self.folds})"
            )
        if not re.fullmatch(r"\w[\w.+-]{0,79}", self.name):
            raise ConfigError(
                f"{path}.name={self.name[:80]}: must be a short name of letters, digits, '_', '-' and '.',"
                " for folders are called so"
            )

    def mixing(self) -> Mixing | None:
        """Of a mixture of datasets, what is drawn of each part; its examples then have a column `part`, the
        part's number.
        """
        return None

    def reading(self) -> dict[str, Any]:
        """Its keys that decide what is read, for the caches of what is made of it."""
        return self.deciding()

    @abc.abstractmethod
    def offers(self) -> tuple[str, ...]:
        """Roles that it has a column for, known before anything is read."""
        raise NotImplementedError(f"{type(self).__name__} lacks offers()")

    def has_documents(self) -> bool:
        """Whether each of its texts is a document of several sentences."""
        return False

    @abc.abstractmethod
    def fingerprint(self, paths: "Paths") -> str:
        """Content of the data that it names."""
        raise NotImplementedError(f"{type(self).__name__} lacks fingerprint(paths)")

    def key_of_role(self, _role: str) -> str | None:
        """The key below `dataset` that would name a role's column; None where no key can."""
        return None

    @abc.abstractmethod
    def read(self, paths: "Paths", roles: Sequence[Role]) -> Any:
        """A data/dataset.py `LoadedDataset` with these roles' columns. Raises DataError naming file, column
        or row, and what to do.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks read(paths, roles)")

    def cleaner(self) -> str:
        """How texts of the user's own are cleaned for a run on this dataset."""
        return "none"

    def hub_name(self) -> str | None:
        """Its name on the hub, where it is there."""
        return None

    def inputs(self, run: "Train") -> dict[str, str]:
        """The data."""
        return {"dataset": self.fingerprint(run.paths)}


@dataclass
class TokenizerConfig(Component):
    """Base of every tokenizer's config (data/tokenizer_options.py)."""

    max_unknown_share: float = number(
        0.5,
        "stop where more of the training or validation tokens, or characters, are unknown; 1 = never",
        low=0,
        high=1,
        decides=False,
    )

    inherits: ClassVar[bool] = False  # whether it is that of what init names
    learns: ClassVar[bool] = False  # whether it is made of the training texts, and so worth keeping

    @abc.abstractmethod
    def make(self, texts: Iterable[str], source: Path | None) -> str:
        """The content of its tokenizer.json. `texts` are the training split's; at `source` lie the first
        weights, where they are there.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks make(texts, source)")


@dataclass
class ScheduleConfig(Component):
    """Base of every schedule's config (training/schedule.py)."""

    warmup_fraction: float = number(0.1, "linear warm-up as a share of all steps", low=0, high=1)
    warmup_steps: int | None = integer(
        None, "linear warm-up in steps; set, it replaces warmup_fraction", low=0
    )
    by: str = choice(
        "steps",
        "steps",
        "tokens",
        help="what the rate moves along: steps, or tokens, where a ramp makes steps unequal",
    )

    needs_total: ClassVar[bool] = True  # whether it has to know how many steps there will be

    @abc.abstractmethod
    def factor(self, step: float, total: int | None) -> float:
        """What the peak learning rate is multiplied by at `step` (from 0) of `total` (None = not known).
        Every option has its own.

        With `by=tokens` the step is that at which as many tokens were seen if all steps had the same number:
        it may lie between two.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks factor(step, total)")


@dataclass
class InitConfig(Component):
    """Base of every way to get the first weights (training/init.py)."""

    gives_tokenizer: ClassVar[bool] = True  # whether tokenizer=inherited has something to take
    # which of its inputs() is the content of weights from elsewhere; empty where it takes none
    weights_input: ClassVar[str] = ""

    def stage(self, _run: "Train") -> "Train | None":
        """The run that must be finished before `run` can begin; None where there is none."""
        return None

    def source(self, _run: "Train") -> Path | None:
        """Folder or file that the weights, and an inherited tokenizer, come from; None where there is none,
        or a stage.
        """
        return None

    def check_fit(self, _run: "Train") -> None:
        """Raises UserError where what is recorded beside the weights shows that they do not fit the run's
        model; called before anything is loaded.
        """

    @abc.abstractmethod
    def initialize(self, model: "nn.Module", run: "Train", tokenizer: str, source: Path | None) -> None:
        """Give `model` (with `encoder` and `head`) its first weights. Every option has its own; raises
        UserError for a misfit.

        `source` is the stage's folder, or what `source()` said.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks initialize(…)")
