"""What components say of themselves, so that nobody has to guess: roles of columns, metrics, counterparts in
transformers.

Importing this needs neither torch nor Hydra. `bertlab.contracts` hands these names on beside the contracts
that do compute.
"""

import abc
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

FRACTION = "fraction"  # a unit: a number of which 1 is the whole, shown in percent
SCORED_SPLITS = ("selection", "validation", "test")  # of a run's data, test once
BITS_PER_CHARACTER = "bits per character"  # a unit: of text, however a tokenizer cuts it


@dataclass(frozen=True)
class Role:
    """A column that an objective reads: what it is for, and what its cells are (a file of data/kinds/)."""

    name: str  # the dataset's key for it is dataset.NAME_column, or dataset.columns.NAME
    kind: str  # text, label, labels, number, words, tags, spans, choices, or a kind of the user's own
    is_answer: bool = False  # what is to be predicted: texts to predict for lack it
    optional: bool = False  # read where the dataset has it
    about: str | None = (
        None  # a role named before it, whose cell its own is checked against (tags: the words)
    )


TEXT = Role("text", "text")
TEXT_PAIR = Role("text_pair", "text", optional=True)


@dataclass(frozen=True)
class Metric:
    """What a score means: its direction, its unit, and the numbers that it can be."""

    name: str
    higher_is_better: bool
    unit: str = FRACTION
    bounds: tuple[float | None, float | None] = (0.0, 1.0)  # None: none on this side
    per_token: bool = False  # whether it is about tokens, and so in another unit for every tokenizer
    may_lack: bool = False  # whether a split may have no such score: of kinds of examples that it lacks

    def __post_init__(self) -> None:
        low, high = self.bounds
        if low is not None and high is not None and low >= high:
            raise ValueError(f"metric {self.name}: bounds={self.bounds} must be (lowest, highest)")

    def better(self, new: float, old: float | None) -> bool:
        """Whether `new` beats `old` (anything beats None)."""
        return old is None or (new > old if self.higher_is_better else new < old)

    def record(self) -> dict[str, Any]:
        """As summary.json has it, under the score's full name."""
        told = {"higher_is_better": self.higher_is_better, "unit": self.unit, "bounds": list(self.bounds)}
        return {**told, "per_token": True} if self.per_token else told

    @classmethod
    def from_record(cls, name: str, record: Mapping[str, Any]) -> "Metric":
        """Inverse of `record`. Raises KeyError, TypeError or ValueError for what is none."""
        low, high = record["bounds"]
        if not isinstance(record["higher_is_better"], bool):
            raise TypeError(f"{name}: higher_is_better is neither true nor false")
        return cls(
            name,
            record["higher_is_better"],
            str(record["unit"]),
            (low, high),
            record.get("per_token") is True,
        )

    @property
    def factor(self) -> int:
        """What people multiply it by: 100 for fractions."""
        return 100 if self.unit == FRACTION else 1

    @property
    def label(self) -> str:
        """Its name and unit, for axes and tables: `f1 macro (%)`, `loss (nats per example)`."""
        unit = "%" if self.unit == FRACTION else self.unit
        return f"{self.name.replace('_', ' ')}{f' ({unit})' if unit else ''}"

    @property
    def direction(self) -> str:
        """In words."""
        return "higher is better" if self.higher_is_better else "lower is better"

    def show(self, value: float | None, digits: int = 2, sign: bool = False) -> str:
        """As people read it: percent for fractions, a digit more for the rest; – for none."""
        if value is None or math.isnan(value):
            return "–"
        text = (
            f"{self.factor * value:{'+' if sign else ''}.{digits if self.unit == FRACTION else digits + 1}f}"
        )
        return text.replace("-", "−")  # a minus is no hyphen

    def holds(self, value: float) -> bool:
        """Whether it is a value that the metric can have."""
        return self.clip(value) == value

    def clip(self, value: float) -> float:
        """Within its bounds: what an interval may not leave."""
        low, high = self.bounds
        value = value if low is None else max(low, value)
        return value if high is None else min(high, value)


def loss_metric(unit: str, name: str = "loss", per_token: bool = False) -> Metric:
    """Something in nats (or another unit) that is never negative and better when small."""
    return Metric(name, higher_is_better=False, unit=unit, bounds=(0.0, None), per_token=per_token)


@dataclass(frozen=True)
class HfHead:
    """A head's counterpart in transformers: `AutoModelFor{task}`, and our modules' names in a model of that
    class.
    """

    task: str  # "" = none: the pooled output is the answer
    names: Mapping[str, str] = field(default_factory=dict)
    reads_pooler: bool = True
    names_classes: bool = False  # its config names classes (id2label)
    config: Mapping[str, Any] = field(default_factory=dict)  # further entries of its config.json
    # `objective.key=value` of options that no class there has, and the modelling file of exports does
    unlike: tuple[str, ...] = ()
    family: str = "bert"  # whose class it is: "bert" or "electra"
    # entries that the encoder's config.json must have: with others that class computes another head
    needs: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""  # which of several heads of its task; `head_kind` of our modelling file
    note: str = ""  # what the reader of a card must be told of its outputs, and of what stays behind


@dataclass(frozen=True)
class Mixing:
    """What a mixture of datasets is trained on: the shares of its parts among the examples drawn,
    by phase.
    """

    names: tuple[str, ...]
    starts: tuple[int, ...]  # tokens seen where each phase begins; the first at 0
    shares: tuple[tuple[float, ...], ...]  # of each phase, one a part; each sums to 1


def metric_named(metrics: Sequence[Metric], name: str) -> Metric | None:
    """The metric of that name; None where there is none."""
    return next((metric for metric in metrics if metric.name == name), None)


PAIRS_ACCURACY = Metric(  # on minimal pairs, the mean over phenomena; ties count one half
    "pairs/accuracy", higher_is_better=True
)
PAIRS_TOKENS, PAIRS_WORDS = "pairs/tokens", "pairs/words"  # read by the time of a snapshot


# --- kinds of columns -----------------------------------------------------------------------------
@dataclass(frozen=True)
class Column:
    """One column of one file: what a reader of its cells, and an error about them, must know."""

    where: str  # the file, or the hub's name and split
    name: str
    key: str  # the dataset's key that names it
    dataset: Any  # the dataset's config, for the options that a kind goes by
    is_for_finished_run: bool = False  # whose classes are what they are

    @property
    def named(self) -> str:
        """`column 'label' (dataset.label_column)`."""
        return f"column '{self.name}' ({self.key})"


def plain_text(value: Any) -> Any:
    """Lists and objects as JSON, other values as they are."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


class Kind(abc.ABC):
    """How the cells of one column become what objectives read; one file of data/kinds/ (or of a plugin's
    kinds/) each.

    A table is read a piece at a time, twice where the kind `looks_first`: through `look`, then through
    `convert`.
    """

    looks_first: ClassVar[bool] = False
    holds_text: ClassVar[bool] = (
        False  # whether a converted cell is a text, or a list of texts, that a tokenizer reads
    )
    # whether a converted cell is the id of one class, a list of ids, or of one id a word of the texts
    classes: ClassVar[Literal["none", "one", "several", "a word"]] = "none"
    is_number: ClassVar[bool] = False  # whether a converted cell is one number

    def __init__(self, column: Column) -> None:
        self.column = column

    def is_blank(self, cell: Any) -> bool:
        """Of a cell that is read and not predicted: whether there is nothing in it to read. Files for a
        finished run leave such rows out; training keeps them.
        """
        return cell is None or (not cell.strip() if isinstance(cell, str) else cell == [])

    def as_text(self, value: Any) -> Any:
        """How a value stands in plain text (CSV, TSV), from which `convert` reads the same; lists and objects
        as JSON.
        """
        return plain_text(value)

    def look(self, cells: Sequence[Any], before: int) -> None:  # noqa: B027  # most kinds need no look
        """See cells before any is converted; `before` rows went before these."""

    def is_unanswered(self) -> bool:
        """After looking at all of them: whether not one cell holds an answer, as in a benchmark's
        test split.
        """
        return False

    def names(self, declared: Sequence[str] | None) -> list[str]:
        """After looking at the training split: names of its classes in id order, where the kind has such;
        `declared` by the data.
        """
        return []

    def why_left_out(self, cell: Any) -> str:
        """Of a cell that `convert` made None: what rows left out are counted as, in words that follow their
        number (`14 without an answer`).
        """
        return "without an answer"

    def finish(self) -> None:  # noqa: B027  # most kinds have nothing to say
        """After all cells were converted. Raises DataError where they cannot be what was meant."""

    @abc.abstractmethod
    def arrow_type(self) -> Any:
        """The pyarrow type of a converted cell."""

    @abc.abstractmethod
    def convert(
        self, cells: Sequence[Any], before: int, names: Sequence[str], about: Sequence[Any] | None
    ) -> list[Any]:
        """Cells as objectives read them; None for a row that is to be left out. Raises DataError naming the
        first row that cannot be read.

        `about`: the converted cells of the role that this one is about, where its role says so.
        """


# --- what contracts ask of configs, whose classes (schema.py) stand above them --------------------
class EncoderOptions(Protocol):
    """Of a model's config, what every encoder is asked for."""

    name: str
    pooling: str


class MetricsDeclared(Protocol):
    """Of an objective's config, what it declares of its scores."""

    def metrics(self, label_names: Sequence[str], /) -> tuple[Metric, ...]:
        """All of them."""
        ...

    def primary_metric(self, label_names: Sequence[str] = (), /) -> Metric:
        """The one that selects and is compared first."""
        ...
