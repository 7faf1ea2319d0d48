"""The typed config: every key a person can set, its type, its range and what it means.

Each field is made by one of `flag`, `integer`, `number`, `choice`, `string`, so that type, range and explanation stand in one
place; `validate` walks a composed config and reports the first value out of range by its dotted key. Components (models,
objectives, optimizers, trackers) declare their own dataclass in their own file, derived from a base class here. This module
imports neither torch nor Hydra: a config error must answer at once.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import MISSING

from bertlab.errors import ConfigError, did_you_mean


# --- fields -----------------------------------------------------------------------------------------------------------
def flag(default: bool, help: str) -> Any:
    """A yes/no option."""
    return field(default=default, metadata={"help": help})


def string(default: str | None, help: str) -> Any:
    """A free string; None means "not set"."""
    return field(default=default, metadata={"help": help})


def choice(default: str | None, *options: str, help: str) -> Any:
    """A string out of a fixed set."""
    return field(default=default, metadata={"help": help, "options": options})


def integer(default: int | None, help: str, *, low: int | None = None, high: int | None = None) -> Any:
    """A whole number in [low, high]."""
    return field(default=default, metadata={"help": help, "low": low, "high": high})


def number(
    default: float | None,
    help: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
) -> Any:
    """A real number; `low`/`high` are inclusive bounds, `above`/`below` exclusive ones."""
    return field(default=default, metadata={"help": help, "low": low, "above": above, "high": high, "below": below})


def words(help: str) -> Any:
    """A list of strings, empty by default."""
    return field(default_factory=list, metadata={"help": help})


def mapping(help: str) -> Any:
    """A dictionary, empty by default."""
    return field(default_factory=dict, metadata={"help": help})


# --- what every component's config derives from ---------------------------------------------------------------------------
@dataclass
class Component:
    """An option of a config group. `name` is the name of the file that holds it; it is chosen as `group=option`."""

    name: str = string("", "which component this is; chosen as group=option, never set by hand")


@dataclass
class ModelConfig(Component):
    """Base of every model's config (src/bertlab/models/*.py)."""


@dataclass
class ObjectiveConfig(Component):
    """Base of every objective's config (src/bertlab/objectives/*.py)."""

    max_length: int = integer(128, "longest sequence in tokens, special tokens included", low=4)


@dataclass
class OptimizerConfig(Component):
    """Base of every optimizer's config (src/bertlab/optimizers/*.py)."""

    lr: float = number(1e-3, "peak learning rate, reached at the end of warm-up", above=0)
    clip_norm: float = number(1.0, "largest global gradient norm; 0 = no clipping", low=0)


@dataclass
class TrackerConfig(Component):
    """Base of every tracker's config (src/bertlab/trackers/*.py). Local files are always written beside it."""


@dataclass
class DatasetConfig(Component):
    """Base of every dataset's config (src/bertlab/data/table.py, synthetic.py)."""

    fraction: float = number(1.0, "share of the training split to train on (a seeded, stratified sample)", above=0, high=1)
    validation_fraction: float = number(
        0.1, "share of train held out, by a hash of each text, where the dataset has no validation split", above=0, below=1
    )
    test_fraction: float = number(0.0, "share of train held out as test, where the dataset has none; 0 = no test", low=0, below=1)
    split_seed: int = integer(0, "seed of the hold-out splits and of the fraction; independent of the run's seed", low=0)


@dataclass
class TokenizerConfig(Component):
    """Base of every tokenizer's config (src/bertlab/data/tokenizer.py)."""


@dataclass
class ScheduleConfig(Component):
    """Base of every schedule's config (src/bertlab/schedule.py)."""

    warmup_fraction: float = number(0.1, "linear warm-up as a share of all steps", low=0, high=1)
    warmup_steps: int | None = integer(None, "linear warm-up in steps; set, it replaces warmup_fraction", low=0)

    def factor(self, step: int, total: int | None) -> float:
        """What the peak learning rate is multiplied by at `step` (from 0) of `total` (None = not known). Every option has its own."""
        raise NotImplementedError(f"{type(self).__name__} lacks factor(step, total)")


@dataclass
class InitConfig(Component):
    """Base of every way to get the first weights (src/bertlab/init.py)."""

    def stage(self, _run: "Train") -> "Train | None":
        """The run that must be finished before `run` can begin; None where there is none."""
        return None

    def source(self, _run: "Train") -> Path | None:
        """Folder or file that the weights, and an inherited tokenizer, come from; None where there is none, or a stage."""
        return None

    def initialize(self, model: Any, config: ModelConfig, module: ModuleType, tokenizer: str, source: Path | None) -> None:
        """Give `model` its first weights. Every option has its own; raises UserError for a misfit.

        `source` is the stage's folder, or what `source()` said.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks initialize(…)")


# --- plain groups -----------------------------------------------------------------------------------------------------------
@dataclass
class Budget:
    """How much training: one of epochs, steps, tokens, examples; `hours` alone or as a cap on one of them."""

    epochs: float | None = number(None, "passes over the training split", above=0)
    steps: int | None = integer(None, "optimizer steps", low=1)
    tokens: int | None = integer(None, "real (unpadded) tokens", low=1)
    examples: int | None = integer(None, "training examples", low=1)
    hours: float | None = number(None, "training time; a cap that never changes the learning-rate schedule", above=0)
    batch_size: int = integer(32, "examples per optimizer step (effective batch size)", low=1)
    batch_tokens: int | None = integer(None, "padded tokens per step; set, it replaces batch_size", low=1)
    group_by_length: bool = flag(True, "batches of similar lengths (less padding); the order stays random")

    UNITS = ("epochs", "steps", "tokens", "examples")

    def check(self, path: str) -> None:
        """Exactly one unit, or hours alone."""
        units = [unit for unit in self.UNITS if getattr(self, unit) is not None]
        if len(units) > 1:
            given = " and ".join(f"{path}.{unit}={getattr(self, unit)}" for unit in units)
            raise ConfigError(f"{given} are {'both' if len(units) == 2 else 'all'} set; keep one (e.g. {path}.{units[0]}=null)")
        if not units and self.hours is None:
            raise ConfigError(f"{path}: no budget; set one of {', '.join(self.UNITS)} or hours, e.g. {path}.epochs=3")


@dataclass
class Evaluation:
    """When validation is scored, when training stops early, which checkpoint is kept."""

    every_epochs: float | None = number(None, "evaluate each so many epochs (default: 1, or at the end of a shorter run)", above=0)
    every_steps: int | None = integer(None, "evaluate each so many steps; set, it replaces every_epochs", low=1)
    patience: int | None = integer(None, "stop after so many evaluations without improvement; null = never", low=1)
    keep: str = choice("best", "best", "last", help="weights of the best validation score, or of the last step")
    batch_size: int = integer(256, "examples per evaluation batch; changes speed only", low=1)
    save_predictions: bool = flag(True, "write predictions/SPLIT.jsonl for later statistics")


@dataclass
class Finetune:
    """What of the encoder's first weights moves, and how fast; for weights that come from pretraining."""

    freeze_encoder: bool = flag(False, "train the head alone (a probe)")
    freeze_embeddings: bool = flag(False, "leave token, position and segment embeddings as they are")
    freeze_layers: int = integer(0, "leave so many layers from the bottom as they are, embeddings included", low=0)
    layer_lr_decay: float = number(
        1.0,
        "learning rate of each level as a share of the level above it (Howard & Ruder 2018, §3.2; Clark et al. 2020: 0.8)",
        above=0,
        high=1,
    )
    reinit_layers: int = integer(0, "draw so many layers from the top anew, and the pooler (Zhang et al. 2021, §4)", low=0)

    def check(self, path: str) -> None:
        """A frozen random layer learns nothing."""
        if self.freeze_encoder and self.reinit_layers:
            raise ConfigError(f"{path}.freeze_encoder=true would leave the {self.reinit_layers} layers of {path}.reinit_layers random")


@dataclass
class Compute:
    """Where and how fast; left out of the run's identity except for what changes rounding (device, precision, micro-batch)."""

    device: str = choice("auto", "auto", "cpu", "cuda", "mps", help="auto takes the accelerator where there is one")
    precision: str = choice(
        "auto", "auto", "float32", "bfloat16", help="auto takes bfloat16 on processors that compute in it, else float32"
    )
    threads: int | None = integer(None, "CPU threads of this run; null = the cores it may use", low=1)
    micro_batch_size: int | None = integer(
        None, "examples per forward pass; smaller saves memory, gradients accumulate to batch_size", low=1
    )
    compile: bool = flag(False, "torch.compile the encoder")
    workers: int | None = integer(None, "processes that make batches ahead of the step; null = none on a CPU, up to 4 for a GPU", low=0)
    checkpoint_seconds: float = number(60.0, "seconds between resume checkpoints; 0 = every step", low=0)


@dataclass
class Paths:
    """Where things are read and written."""

    output: str = string("multirun", "root of run folders")
    mirror: str | None = string(None, "folder with local copies of datasets; default: the environment's BERTLAB_DATA")
    cache: str | None = string(None, "tokenizers and tokenised data; default: BERTLAB_CACHE, or ~/.cache/bertlab")


# --- a run, and what jobs share ---------------------------------------------------------------------------------------------
@dataclass
class Train:
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
    compute: Compute = MISSING
    tracker: TrackerConfig = MISSING
    paths: Paths = field(default_factory=Paths)
    seed: int = integer(0, "initial weights, order of data, dropout", low=0, high=2**31 - 1)
    tags: list[str] = words("free labels, shown by trackers; no influence on the run")

    def check(self, path: str) -> None:
        """What only shows when several groups are seen together."""
        timed = all(getattr(self.budget, unit) is None for unit in Budget.UNITS)
        if timed and self.schedule.name in ("constant", "inverse_sqrt") and self.schedule.warmup_steps is None:
            raise ConfigError(
                "budget.hours alone gives schedule.warmup_fraction nothing to be a fraction of: set schedule.warmup_steps, e.g. 100"
            )
        steps, warmup = self.budget.steps, self.schedule.warmup_steps
        if steps is not None and warmup is not None and warmup > steps:
            raise ConfigError(f"schedule.warmup_steps={warmup} is more than budget.steps={steps}: the peak would never be reached")
        if timed and self.schedule.name not in ("constant", "inverse_sqrt"):
            raise ConfigError(
                f"budget.hours alone gives schedule={self.schedule.name} no horizon (the learning rate must not depend on the "
                "machine's speed): add budget.steps, epochs, tokens or examples, or take schedule=constant or inverse_sqrt"
            )


@dataclass
class FileColumns:
    """How a file of the user's own differs from the data that a run was trained on; what is not set is as it was there."""

    text_column: str | None = string(None, "the file's column of texts, if not that of the training data")
    text_pair_column: str | None = string(None, "the file's column of second texts")
    label_column: str | None = string(None, "the file's column of labels: ids, raw labels or class names")
    encoding: str | None = string(None, "the file's encoding")

    def changes(self) -> dict[str, str]:
        """What was set."""
        names = ("text_column", "text_pair_column", "label_column", "encoding")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def check_file(self, file: str | None) -> None:
        """Columns without a file would be swallowed."""
        if self.changes() and file is None:
            raise ConfigError(f"{next(iter(self.changes()))} describes a file of your own: name it with file=PATH")


# --- validation ---------------------------------------------------------------------------------------------------------------
def validate(node: Any, path: str = "") -> None:
    """Ranges and choices of every field, then each dataclass's own `check(path)`, innermost first.

    Raises ConfigError naming the dotted key, the value and what is allowed.
    """
    for item in dataclasses.fields(node):
        value, key = getattr(node, item.name), f"{path}.{item.name}" if path else item.name
        if dataclasses.is_dataclass(value):
            validate(value, key)
        elif value is not None:
            _check_value(key, value, item.metadata)
    check = getattr(node, "check", None)
    if check is not None:
        check(path)


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


def valid_keys(schema: Any, path: str = "") -> list[str]:
    """Every dotted key below a dataclass or an instance of one, for suggestions after a typo."""
    keys = []
    for item in dataclasses.fields(schema):
        key = f"{path}.{item.name}" if path else item.name
        keys.append(key)
        if dataclasses.is_dataclass(item.type):
            keys.extend(valid_keys(item.type, key))
    return keys
