"""The typed config: every group of keys that a person can set, and the whole of a run.

Fields and their checks stand in `fields`; the bases of components (models, objectives, optimizers, …), which
declare their own options in their own file, in `components`. Both are offered here, so that a component needs
one import. None of the three imports torch or Hydra: a config error must answer at once.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from bertlab.config.components import (
    DatasetConfig,
    InitConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    TokenizerConfig,
    TrackerConfig,
)
from bertlab.config.fields import (
    Component,
    Node,
    choice,
    components,
    deciding,
    flag,
    integer,
    mapping,
    newer,
    number,
    numbers,
    string,
    valid_keys,
    validate,
    words,
)
from bertlab.errors import ConfigError

__all__ = [
    "PAIRS_SCORING",
    "Budget",
    "Component",
    "Compute",
    "DatasetConfig",
    "Evaluation",
    "FileColumns",
    "Finetune",
    "InitConfig",
    "ModelConfig",
    "Node",
    "ObjectiveConfig",
    "OptimizerConfig",
    "Paths",
    "Planning",
    "Power",
    "ScheduleConfig",
    "TokenizerConfig",
    "TrackerConfig",
    "Train",
    "choice",
    "components",
    "deciding",
    "flag",
    "integer",
    "mapping",
    "newer",
    "number",
    "numbers",
    "string",
    "valid_keys",
    "validate",
    "words",
]


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
    micro-batch, processes, sharding, together).
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
    sharding: str = choice(
        "none",
        "none",
        "full",
        help="what each of several processes keeps of weights, gradients and optimizer state: all of it, or"
        " its part alone (FSDP; Zhao et al. 2023), for models that do not fit one device",
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


def _groups_of(kind: type[Node], but: type[Node] | None = None) -> dict[str, Any]:
    """The groups of a run whose options are of a kind, with its class, in the order of its config."""
    return {
        item.name: item.type
        for item in dataclasses.fields(Train)
        if isinstance(item.type, type)
        and issubclass(item.type, kind)
        and not (but is not None and issubclass(item.type, but))
    }


COMPONENTS: dict[str, type[Component]] = _groups_of(Component)  # of which a run chooses one each
PLAIN: dict[str, type[Node]] = _groups_of(Node, but=Component)  # keys alone


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


def one_sign(path: str, delimiter: str | None) -> str | None:
    """What stands between fields; a shell hands a tab on as two signs. Raises ConfigError for more."""
    sign = "\t" if delimiter == "\\t" else delimiter
    if sign is not None and len(sign) != 1:
        raise ConfigError(f"{path}={sign!r}: must be one character, e.g. ';' or '\\t'")
    return sign


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
    quoting: str | None = choice(
        None, "auto", "none", "csv", help="whether quote signs frame a CSV's fields (csv) or are text (none)"
    )
    column_names: list[str] = words("columns of a CSV without a header line")

    def changes(self) -> dict[str, Any]:
        """What was set."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(FileColumns)}
        return {name: value for name, value in values.items() if value}

    def check_file(self, file: str | None, out: str | None = None) -> None:
        """Columns without a file would be swallowed; a file that is read is not written."""
        self.delimiter = one_sign("delimiter", self.delimiter)
        if file is not None and out is not None and Path(out).absolute() == Path(file).absolute():
            raise ConfigError(f"out={out} is the file that is read; name another")
        if self.changes() and file is None:
            raise ConfigError(
                f"{next(iter(self.changes()))} describes a file of your own: name it with file=PATH"
            )
