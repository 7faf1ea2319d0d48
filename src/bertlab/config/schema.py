"""The typed config: every key a person can set, its type, its range and what it means.

Each field is made by one of `flag`, `integer`, `number`, `choice`, `string`, so that type, range and
explanation stand in one place; `validate` walks a composed config and reports the first value out of range by
its dotted key. Components (models, objectives, optimizers, trackers) declare their own dataclass in their own
file, derived from a base class here. This module imports neither torch nor Hydra: a config error must answer
at once.
"""

import abc
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_origin

from omegaconf import MISSING

from bertlab.declarations import HfHead, Metric, Mixing, Role, metric_named
from bertlab.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from bertlab.contracts import Encoder, Objective, ParameterGroup, RunInfo, Tracker, Vocabulary


PARTS = {str: "a text", int: "a whole number", float: "a number"}  # of lists and mappings, in words


# --- fields ---------------------------------------------------------------------------------------
def flag(default: bool, help: str, *, decides: bool = True) -> Any:
    """A yes/no option. One that does not decide results (here and below) is left out of a run's identity."""
    return field(default=default, metadata={"help": help, "decides": decides})


def string(default: str | None, help: str) -> Any:
    """A free string; None means "not set"."""
    return field(default=default, metadata={"help": help})


def choice(default: str | None, *options: str, help: str) -> Any:
    """A string out of a fixed set."""
    return field(default=default, metadata={"help": help, "options": options})


def integer(
    default: int | None, help: str, *, low: int | None = None, high: int | None = None, decides: bool = True
) -> Any:
    """A whole number in [low, high]."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "decides": decides})


def number(
    default: float | None,
    help: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    decides: bool = True,
) -> Any:
    """A real number; `low`/`high` are inclusive bounds, `above`/`below` exclusive ones."""
    return field(
        default=default,
        metadata={"help": help, "low": low, "above": above, "high": high, "below": below, "decides": decides},
    )


def words(help: str, *, decides: bool = True) -> Any:
    """A list of strings, empty by default."""
    return field(default_factory=list, metadata={"help": help, "decides": decides})


def numbers(help: str) -> Any:
    """A list of real numbers, empty by default."""
    return field(default_factory=list, metadata={"help": help})


def mapping(help: str) -> Any:
    """A dictionary, empty by default."""
    return field(default_factory=dict, metadata={"help": help})


def components(group: str, help: str) -> Any:
    """A dictionary of options of a group, empty by default."""
    return field(default_factory=dict, metadata={"help": help, "group": group})


def newer(item: Any) -> Any:
    """A field that came when runs had been made without it: in a run's identity only where it is set, so that
    those keep theirs.
    """
    item.metadata = {**item.metadata, "decides": "set"}
    return item


# --- what every component's config derives from ---------------------------------------------------
@dataclass
class Node:
    """A group of keys."""

    def check(self, path: str) -> None:
        """What only shows when several keys are seen together. Raises ConfigError; `path` is the group's
        dotted key, empty at the top.
        """


@dataclass
class Component(Node):
    """An option of a config group, and what it declares. `name` is its option's, chosen as `group=option`."""

    name: str = string("", "which component this is; chosen as group=option, never set by hand")

    def deciding(self) -> dict[str, Any]:
        """Its keys that decide results, for a run's identity. A file of the user's is known by its content,
        wherever it lies.
        """
        return deciding(self)

    def inputs(self, _run: "Train") -> dict[str, str]:
        """Digests of what it reads from outside the config, by name."""
        return {}


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
    skip_spikes: float | None = number(
        None,
        "leave out updates whose loss lies so many standard deviations above its running mean; null = count"
        " those above 6",
        above=0,
    )

    def deciding(self) -> dict[str, Any]:
        """Spikes decide where they are left out."""
        return {
            name: value
            for name, value in super().deciding().items()
            if name != "skip_spikes" or value is not None
        }

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
    """Base of every dataset's config (data/table.py, data/synthetic.py)."""

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
    folds: int | None = integer(
        None,
        "cut train into so many parts that have its classes in equal shares; one is validation, and the"
        " dataset's own is left out",
        low=2,
    )
    fold: int | None = integer(
        None, "which of the folds is validation, from 0; with -m dataset.fold=range(5) each in turn", low=0
    )
    metric: str | None = string(
        None,
        "the task's official score: what objective.primary is where that is not set and the objective has it",
    )

    positive_class: str | None = string(None, "the class that an official F1 is of, where it is of one")

    def deciding(self) -> dict[str, Any]:
        """What a dataset says of its task, and folds, decide where something is said."""
        silent = ("metric", "positive_class", "folds", "fold")
        return {
            name: value
            for name, value in super().deciding().items()
            if name not in silent or value is not None
        }

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

    def offers(self) -> tuple[str, ...]:
        """Roles that it has a column for, known before anything is read."""
        raise NotImplementedError(f"{type(self).__name__} lacks offers()")

    def has_documents(self) -> bool:
        """Whether each of its texts is a document of several sentences."""
        return False

    def fingerprint(self, paths: "Paths") -> str:
        """Content of the data that it names."""
        raise NotImplementedError(f"{type(self).__name__} lacks fingerprint(paths)")

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

    def stage(self, _run: "Train") -> "Train | None":
        """The run that must be finished before `run` can begin; None where there is none."""
        return None

    def source(self, _run: "Train") -> Path | None:
        """Folder or file that the weights, and an inherited tokenizer, come from; None where there is none,
        or a stage.
        """
        return None

    def initialize(self, model: "nn.Module", run: "Train", tokenizer: str, source: Path | None) -> None:
        """Give `model` (with `encoder` and `head`) its first weights. Every option has its own; raises
        UserError for a misfit.

        `source` is the stage's folder, or what `source()` said.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks initialize(…)")


# --- plain groups ---------------------------------------------------------------------------------
@dataclass
class Budget(Node):
    """How much training: one of epochs, steps, tokens, examples; `hours` alone or as a cap on one of them."""

    epochs: float | None = number(None, "passes over the training split", above=0)
    steps: int | None = integer(None, "optimizer steps", low=1)
    tokens: int | None = integer(None, "real (unpadded) tokens", low=1)
    examples: int | None = integer(None, "training examples", low=1)
    hours: float | None = number(
        None, "training time; a cap that never changes the learning-rate schedule", above=0
    )
    batch_size: int = integer(32, "examples per optimizer step (effective batch size)", low=1)
    batch_tokens: int | None = integer(None, "padded tokens per step; set, it replaces batch_size", low=1)
    group_by_length: bool = flag(True, "batches of similar lengths (less padding); the order stays random")
    batch_size_from: int | None = integer(
        None,
        "batch size at first, growing to batch_size over batch_ramp_tokens (Brown et al. 2020, §2.3); null ="
        " batch_size",
        low=1,
    )
    batch_ramp_tokens: int | None = integer(
        None, "real tokens after which batches have their full size", low=1
    )
    length_from: int | None = integer(
        None,
        "length of rows at first: blocks are folded into rows of so many tokens, then twice as many, … (Press"
        " et al. 2021, §4)",
        low=8,
    )
    length_ramp_tokens: int | None = integer(None, "real tokens after which blocks stay whole", low=1)

    UNITS: ClassVar = ("epochs", "steps", "tokens", "examples")

    @property
    def units(self) -> dict[str, float | None]:
        """Each unit and how much of it is asked for."""
        return {"epochs": self.epochs, "steps": self.steps, "tokens": self.tokens, "examples": self.examples}

    @property
    def is_timed(self) -> bool:
        """Whether wall-clock time alone ends the run."""
        return all(value is None for value in self.units.values())

    def check(self, path: str) -> None:
        """Exactly one unit, or hours alone."""
        units = [unit for unit, value in self.units.items() if value is not None]
        if len(units) > 1:
            given = " and ".join(f"{path}.{unit}={self.units[unit]}" for unit in units)
            raise ConfigError(
                f"{given} are {'both' if len(units) == 2 else 'all'} set; keep one (e.g."
                f" {path}.{units[0]}=null)"
            )
        if not units and self.hours is None:
            raise ConfigError(
                f"{path}: no budget; set one of {', '.join(self.UNITS)} or hours, e.g. {path}.epochs=3"
            )
        self._check_ramps(path)

    def _check_ramps(self, path: str) -> None:
        for first, tokens in (
            ("batch_size_from", "batch_ramp_tokens"),
            ("length_from", "length_ramp_tokens"),
        ):
            keys = {key: getattr(self, key) for key in (first, tokens)}
            if lacking := [key for key, value in keys.items() if value is None]:
                if len(lacking) == 1:
                    raise ConfigError(
                        f"{path}.{first} and {path}.{tokens} go together: set {path}.{lacking[0]} too, or"
                        " neither"
                    )
        if self.batch_size_from is None:
            return
        if self.batch_tokens is not None:
            raise ConfigError(
                f"{path}.batch_size_from: batches of {path}.batch_tokens have no number of examples that"
                " could grow"
            )
        if self.batch_size_from >= self.batch_size:
            raise ConfigError(
                f"{path}.batch_size_from={self.batch_size_from}: must be less than"
                f" {path}.batch_size={self.batch_size}"
            )


PAIRS_SCORING = (
    "token: each token masked alone (Salazar et al. 2020); word_l2r: its word's later tokens too (Kauf &"
    " Ivanova 2023)"
)


@dataclass
class Evaluation(Node):
    """When validation is scored, when training stops early, which checkpoint is kept."""

    every_epochs: float | None = number(
        None, "evaluate each so many epochs (default: 1, or at the end of a shorter run)", above=0
    )
    every_steps: int | None = integer(
        None, "evaluate each so many steps; set, it replaces every_epochs", low=1
    )
    patience: int | None = integer(
        None, "stop after so many evaluations without improvement; null = never", low=1
    )
    keep: str = choice(
        "best", "best", "last", help="weights of the best validation score, or of the last step"
    )
    select_on: str = newer(
        choice(
            "validation",
            "validation",
            "half",
            help="what chooses weights and ends trials: validation, whose score is reported too; half: a half"
            " of its rows (split selection), and the other half's score is reported",
        )
    )
    batch_size: int = integer(256, "examples per evaluation batch; changes speed only", low=1, decides=False)
    save_predictions: bool = flag(True, "write predictions/SPLIT.jsonl for later statistics", decides=False)
    pairs: str | None = newer(
        string(
            None, "minimal pairs that the selected weights are scored on: of conf/minimal_pairs, or a file"
        )
    )
    pairs_scoring: str = newer(choice("token", "token", "word_l2r", help=PAIRS_SCORING))
    pairs_each: int | None = newer(
        integer(None, "score so many pairs of each phenomenon, spread over its own; null = all", low=1)
    )
    snapshots: list[float] = newer(
        numbers("also score the pairs of evaluation.pairs when so much was seen, e.g. [1e6,2e6,5e6]")
    )
    snapshot_unit: str = newer(
        choice(
            "tokens", "tokens", "words", help="unit of evaluation.snapshots; words: as white space cuts texts"
        )
    )

    @property
    def selects_by(self) -> str:
        """The split that is scored during training and chooses the weights."""
        return "selection" if self.select_on == "half" else "validation"

    def check(self, path: str) -> None:
        """Moments in order, and something to score at them."""
        times = [float(moment) for moment in self.snapshots]
        if any(not 0 < moment < float("inf") for moment in times) or sorted(set(times)) != times:
            raise ConfigError(
                f"{path}.snapshots={self.snapshots}: must be growing numbers greater than 0, e.g. [1e6,2e6]"
            )
        for key, is_set in (("snapshots", bool(times)), ("pairs_each", self.pairs_each is not None)):
            if is_set and self.pairs is None:
                raise ConfigError(
                    f"{path}.{key} says {'when' if times else 'how many'}, {path}.pairs what: set e.g."
                    f" {path}.pairs=blimp"
                )


@dataclass
class Finetune(Node):
    """What of the encoder's first weights moves, and how fast; for weights that come from pretraining."""

    freeze_encoder: bool = flag(False, "train the head alone (a probe)")
    freeze_embeddings: bool = flag(False, "leave token, position and segment embeddings as they are")
    freeze_layers: int = integer(
        0, "leave so many layers from the bottom as they are, embeddings included", low=0
    )
    layer_lr_decay: float = number(
        1.0,
        "learning rate of each level as a share of the level above it (Howard & Ruder 2018, §3.2; Clark et"
        " al. 2020: 0.8)",
        above=0,
        high=1,
    )
    reinit_layers: int = integer(
        0, "draw so many layers from the top anew, and the pooler (Zhang et al. 2021, §4)", low=0
    )

    def check(self, path: str) -> None:
        """A frozen random layer learns nothing."""
        if self.freeze_encoder and self.reinit_layers:
            raise ConfigError(
                f"{path}.freeze_encoder=true would leave the {self.reinit_layers} layers of"
                f" {path}.reinit_layers random"
            )


@dataclass
class Compute(Node):
    """Where and how fast; left out of the run's identity except for what changes rounding (device, precision,
    micro-batch, processes, together).
    """

    device: str = choice(
        "auto", "auto", "cpu", "cuda", "mps", help="auto takes the accelerator where there is one"
    )
    precision: str = choice(
        "auto",
        "auto",
        "float32",
        "bfloat16",
        help="auto takes bfloat16 on processors that compute in it, else float32",
    )
    threads: int | None = integer(None, "CPU threads of this run; null = the cores it may use", low=1)
    micro_batch_size: int | None = integer(
        None,
        "examples per forward pass (of one process); smaller saves memory, gradients accumulate to"
        " batch_size",
        low=1,
    )
    compile: bool = flag(False, "torch.compile the encoder")
    processes: int = integer(
        1,
        "processes that train a run together on this machine, each on a device of its own; torchrun and srun"
        " say it themselves",
        low=1,
    )
    together: int = integer(
        1,
        "runs of a grid that differ in their seed alone and are trained in one process as one model, at most"
        " so many at a time, each with an id and a folder of its own; for GPUs that one would leave idle",
        low=1,
    )
    workers: int | None = integer(
        None, "processes that make batches ahead of the step; null = none on a CPU, up to 4 for a GPU", low=0
    )
    checkpoint_seconds: float = number(60.0, "seconds between resume checkpoints; 0 = every step", low=0)


@dataclass
class Paths(Node):
    """Where things are read and written."""

    output: str = string("multirun", "root of run folders")
    mirror: str | None = string(
        None, "folder with local copies of datasets; default: the environment's BERTLAB_DATA"
    )
    cache: str | None = string(
        None, "tokenizers and tokenised data; default: BERTLAB_CACHE, or ~/.cache/bertlab"
    )


# --- a run, and what jobs share -------------------------------------------------------------------
@dataclass
class Train(Node):
    """`bertlab train`: everything that decides a run."""

    dataset: DatasetConfig = MISSING
    tokenizer: TokenizerConfig = MISSING
    objective: ObjectiveConfig = MISSING
    model: ModelConfig = MISSING
    init: InitConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    schedule: ScheduleConfig = MISSING
    finetune: Finetune = field(default_factory=Finetune)
    budget: Budget = MISSING
    evaluation: Evaluation = field(default_factory=Evaluation)
    compute: Compute = field(default=MISSING, metadata={"decides": False})
    tracker: TrackerConfig = field(default=MISSING, metadata={"decides": False})
    paths: Paths = field(default_factory=Paths, metadata={"decides": False})
    seed: int = integer(0, "initial weights, order of data, dropout", low=0, high=2**31 - 1)
    tags: list[str] = words("free labels, shown by trackers; no influence on the run", decides=False)

    def check(self, path: str) -> None:
        """What only shows when several groups are seen together."""
        timed = self.budget.is_timed
        if timed and not self.schedule.needs_total and self.schedule.warmup_steps is None:
            raise ConfigError(
                "budget.hours alone gives schedule.warmup_fraction nothing to be a fraction of: set"
                " schedule.warmup_steps, e.g. 100"
            )
        if self.budget.batch_tokens is None and self.compute.processes > self.budget.batch_size:
            raise ConfigError(
                f"compute.processes={self.compute.processes} are more than"
                f" budget.batch_size={self.budget.batch_size} has examples for: take fewer, or a larger batch"
            )
        if timed and self.schedule.by == "tokens":
            raise ConfigError(
                "schedule.by=tokens: budget.hours alone does not say how many there will be: add another unit"
                " of budget"
            )
        steps, warmup = self.budget.steps, self.schedule.warmup_steps
        if steps is not None and warmup is not None and warmup > steps:
            raise ConfigError(
                f"schedule.warmup_steps={warmup} is more than budget.steps={steps}: the peak would never be"
                " reached"
            )
        if timed and self.schedule.needs_total:
            raise ConfigError(
                f"budget.hours alone gives schedule={self.schedule.name} no horizon (the learning rate must"
                " not depend on the machine's speed): add budget.steps, epochs, tokens or examples, or take"
                " schedule=constant or inverse_sqrt"
            )


@dataclass
class Power(Node):
    """Words of `bertlab plan` itself, beside those of the runs."""

    effect: float | None = number(
        None, "smallest difference of interest, in the metric's shown unit", above=0
    )
    pilot: str | None = string(
        None, "earlier runs, separated by commas, by whose spread over seeds the needed ones are reckoned"
    )


@dataclass
class Planning(Power):
    """The same with what a plan for other devices than this machine's needs, beside `hardware`
    (config/hardware.py).
    """

    devices: str | None = string(
        None,
        "numbers of devices that the run is planned for, e.g. 1,8,64; with hardware=NAME alone"
        " 1, 2, 4, … 512",
    )
    sharding: str = choice(
        "none",
        "none",
        "full",
        help="what devices have of weights, gradients and optimizer state: each all of it, or each a part"
        " (FSDP; Zhao et al. 2023)",
    )


@dataclass
class FileColumns(Node):
    """How a file of the user's own differs from the data that a run was trained on; what is not set is as it
    was there.
    """

    text_column: str | None = string(None, "the file's column of texts, if not that of the training data")
    text_pair_column: str | None = string(None, "the file's column of second texts")
    label_column: str | None = string(None, "the file's column of labels: ids, raw labels or class names")
    labels_column: str | None = string(None, "the file's column of sets of classes")
    number_column: str | None = string(None, "the file's column of numbers to predict")
    tokens_column: str | None = string(None, "the file's column of words")
    tags_column: str | None = string(None, "the file's column of tags")
    question_column: str | None = string(None, "the file's column of questions")
    context_column: str | None = string(None, "the file's column of texts that hold the answers")
    answers_column: str | None = string(None, "the file's column of answers")
    choices_column: str | None = string(None, "the file's column of choices")
    columns: dict[str, str] = mapping("role -> the file's column, for roles without a key of their own")
    encoding: str | None = string(None, "the file's encoding")
    delimiter: str | None = string(None, "the sign between a CSV's fields")

    def changes(self) -> dict[str, Any]:
        """What was set."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(FileColumns)}
        return {name: value for name, value in values.items() if value}

    def check_file(self, file: str | None) -> None:
        """Columns without a file would be swallowed."""
        if self.changes() and file is None:
            raise ConfigError(
                f"{next(iter(self.changes()))} describes a file of your own: name it with file=PATH"
            )


# --- validation -----------------------------------------------------------------------------------
def validate(node: Any, path: str = "", *, values_only: bool = False) -> None:
    """Ranges and choices of every field, then (but for `values_only`) each dataclass's own `check(path)`,
    innermost first.

    Raises ConfigError naming the dotted key, the value and what is allowed.
    """
    for item in dataclasses.fields(node):
        value, key = getattr(node, item.name), f"{path}.{item.name}" if path else item.name
        if dataclasses.is_dataclass(value):
            validate(value, key, values_only=values_only)
        elif value is not None:
            _check_value(key, value, item.metadata)
            _check_parts(key, value, item.type)
    if isinstance(node, Node) and not values_only:
        node.check(path)


def _check_parts(key: str, value: Any, kind: Any) -> None:
    """The parts of a list or mapping, of which OmegaConf lets pass what is no scalar."""
    if get_origin(kind) not in (list, dict) or not isinstance(value, list | dict):
        return
    inner = get_args(kind)[-1]
    for name, held in value.items() if isinstance(value, dict) else enumerate(value):
        if inner in PARTS and isinstance(held, list | dict):
            what = "a list" if isinstance(held, list) else "a mapping"
            raise ConfigError(f"{key}: holds {what} at {name}, where {PARTS[inner]} belongs")
        _check_parts(f"{key}.{name}", held, inner)


def _check_value(key: str, value: Any, rule: Any) -> None:
    options = rule.get("options")
    if options is not None and value not in options:
        raise ConfigError(f"{key}={value}: unknown option, {did_you_mean(str(value), options)}")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if value != value or value in (float("inf"), float("-inf")):
        raise ConfigError(f"{key}={value}: must be a finite number")
    low, high, above, below = (rule.get(bound) for bound in ("low", "high", "above", "below"))
    bounds = (
        (low is not None and value < low, f"at least {low}"),
        (above is not None and value <= above, f"greater than {above}"),
        (high is not None and value > high, f"at most {high}"),
        (below is not None and value >= below, f"less than {below}"),
    )
    for broken, wish in bounds:
        if broken:
            raise ConfigError(f"{key}={value}: must be {wish}")


def deciding(node: Any) -> dict[str, Any]:
    """A config's keys that decide results, nested as they are; each component says which of its own do."""
    tree: dict[str, Any] = {}
    for item in dataclasses.fields(node):
        value, decides = getattr(node, item.name), item.metadata.get("decides", True)
        if decides is True or (decides == "set" and value != _default(item)):
            nested = (
                value.deciding()
                if isinstance(value, Component)
                else deciding(value)
                if dataclasses.is_dataclass(value)
                else value
            )
            tree[item.name] = nested
    return tree


def _default(item: Any) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def valid_keys(schema: Any, path: str = "") -> list[str]:
    """Every dotted key below a dataclass or an instance of one, for suggestions after a typo."""
    keys = []
    for item in dataclasses.fields(schema):
        key = f"{path}.{item.name}" if path else item.name
        keys.append(key)
        if dataclasses.is_dataclass(item.type):
            keys.extend(valid_keys(item.type, key))
    return keys
