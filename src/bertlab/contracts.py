"""What components promise each other: the model's call, the batch, the objective, the metric.

Legend: B batch, T tokens, D width, C classes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

Encode = Callable[[Sequence[str]], list[list[int]]]  # texts to token ids, without special tokens


class Encoder(Protocol):
    """Any encoder, ours or Hugging Face's.

    Called as `encoder(input_ids, segment_ids, attention_mask)` with `input_ids (B, T) int64`, `segment_ids (B, T) int64` and
    `attention_mask (B, T) bool, True = real token` (None = nothing is padded), or `(B, T, T) bool, True = row attends to column`;
    returns `hidden (B, T, D)`.
    """

    hidden_size: int

    def __call__(self, input_ids: Tensor, segment_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor: ...

    def pool(self, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
        """`hidden (B, T, D)` to one vector a sequence `(B, D)`."""
        ...

    def token_weight(self) -> Tensor:
        """The token embedding matrix `(V, D)`, for heads that tie to it."""
        ...


@dataclass(frozen=True)
class Metric:
    """The number that selection looks at."""

    name: str
    higher_is_better: bool

    def better(self, new: float, old: float | None) -> bool:
        """Whether `new` beats `old` (anything beats None)."""
        return old is None or (new > old if self.higher_is_better else new < old)


@dataclass
class Batch:
    """One padded batch. `inputs` go to the encoder, `targets` to the head and the loss."""

    input_ids: Tensor  # (B, T) int64
    segment_ids: Tensor  # (B, T) int64
    attention_mask: Tensor | None  # (B, T) or (B, T, T) bool, None = no padding
    targets: dict[str, Tensor]
    num_tokens: int  # real tokens
    num_examples: int

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device; a copy from pinned memory is not waited for."""
        return self if device.type == "cpu" else self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            change(self.input_ids),
            change(self.segment_ids),
            None if self.attention_mask is None else change(self.attention_mask),
            {name: change(value) for name, value in self.targets.items()},
            self.num_tokens,
            self.num_examples,
        )


@dataclass
class Loss:
    """Sum over units (examples, masked tokens, …) and how many there were, so that micro-batches add up right."""

    total: Tensor  # scalar, nats
    count: float


@dataclass
class Examples:
    """A tokenised split: all token ids in one flat array, cut by offsets; memory-mapped where it comes from the cache."""

    tokens: np.ndarray  # (all tokens,) int32
    offsets: np.ndarray  # (N + 1,) int64: example i is tokens[offsets[i]:offsets[i + 1]]
    columns: dict[str, np.ndarray] = field(default_factory=dict)  # per example, e.g. label (N,), second_start (N,)
    token_columns: dict[str, np.ndarray] = field(default_factory=dict)  # per token, cut like `tokens`, e.g. tag (all tokens,)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64: tokens of each example."""
        return np.diff(self.offsets)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def examples_of(
    rows: Sequence[Sequence[int]], columns: dict[str, np.ndarray] | None = None, token_columns: dict[str, Sequence[Any]] | None = None
) -> Examples:
    """Examples of token lists; `token_columns` hold one list an example, as long as its tokens."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))

    def flat(lists: Sequence[Sequence[int]]) -> np.ndarray:
        return np.fromiter((value for values in lists for value in values), dtype=np.int32, count=int(lengths.sum()))

    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return Examples(flat(rows), offsets, columns or {}, {name: flat(lists) for name, lists in (token_columns or {}).items()})


def join_examples(pieces: Iterable[Examples]) -> Examples:
    """Pieces of a split as one, in memory."""
    found = list(pieces)
    lengths = np.concatenate([piece.lengths for piece in found])
    return Examples(
        np.concatenate([piece.tokens for piece in found]),
        np.concatenate(([0], np.cumsum(lengths))),
        {name: np.concatenate([piece.columns[name] for piece in found]) for name in found[0].columns},
        {name: np.concatenate([piece.token_columns[name] for piece in found]) for name in found[0].token_columns},
    )


def pad_rows(rows: Sequence[np.ndarray], fill: int) -> tuple[np.ndarray, np.ndarray]:
    """`(B, T) int64` filled up on the right to the longest row, and `(B, T) bool`, True where a row has a value."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    inside = np.arange(int(lengths.max())) < lengths[:, None]
    padded = np.full(inside.shape, fill, dtype=np.int64)
    padded[inside] = np.concatenate(rows)
    return padded, inside


@dataclass(frozen=True)
class Draw:
    """What random choices of a training step may depend on; a resumed run draws the same."""

    seed: int
    epoch: int
    progress: float = 0.0  # share of all steps done before this one, in [0, 1]; 0 where the budget is time alone

    def generator(self, row: int, stream: int = 0) -> np.random.Generator:
        """Randomness of one example in one epoch: neither order, nor micro-batches, nor a restart change it.

        What is drawn for different purposes takes different streams, else one draw would tell of the other.
        """
        return np.random.default_rng([self.seed, self.epoch, row, stream] if stream else [self.seed, self.epoch, row])


FIXED = Draw(seed=20181011, epoch=0)  # the draw of every evaluation, whatever the run's seed


@dataclass(frozen=True)
class Special:
    """Ids of a tokenizer's special tokens."""

    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    between: int = 1  # separators between two texts: BERT's one, RoBERTa's two

    def all(self) -> tuple[int, ...]:
        """All five."""
        return (self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id)


@dataclass(frozen=True)
class Vocabulary:
    """What objectives know of a tokenizer's V ids."""

    special: Special
    continues: np.ndarray  # (V,) bool: goes on with the word of the token before it (`##ing`)
    characters: np.ndarray  # (V,) int64: letters of text it stands for, without markers and white space; 1 for the unknown token
    is_special: np.ndarray  # (V,) bool: stands for no text

    def __len__(self) -> int:
        return len(self.continues)


class Objective(Protocol):
    """What is learned: how texts become examples, examples a batch, hidden states a loss, outputs a score.

    Its module has `build(config, vocabulary, label_names)` and names in `COLUMNS` what a dataset must have, in `PREPARED_BY` the options
    that decide what `prepare` makes (runs that differ in others share it; without that name, all options count);
    `PREDICTS = False` says that its predictions are of no use to `bertlab predict`.
    """

    primary: Metric
    label_names: Sequence[str]

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Tokenise one split (a `datasets.Dataset` with the columns of data/dataset.py), a piece at a time."""
        ...

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        """Rows as one padded batch. `draw` decides what is random in training; None = the fixed evaluation draw."""
        ...

    def build_head(self, encoder: Encoder, initializer_range: float) -> nn.Module:
        """A module called as `head(encoder, hidden, batch) -> outputs`.

        If it has `rewrite(encoder, batch) -> batch`, the encoder reads what that returns.
        """
        ...

    def loss(self, outputs: Any, batch: Batch) -> Loss:
        """Nats, in float32."""
        ...

    def measure(self, outputs: Any, batch: Batch) -> dict[str, np.ndarray]:
        """What `metrics` needs of one batch: arrays with one row an example (on the CPU)."""
        ...

    def metrics(self, measured: dict[str, np.ndarray]) -> dict[str, Any]:
        """Scores of a whole split from its measured rows: name -> float (fractions, nats), or a nested list for matrices."""
        ...

    def predictions(self, measured: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        """One JSON-ready row an example, in the examples' order."""
        ...


@dataclass
class ParameterGroup:
    """Weights that share a learning rate and decay."""

    weights: list[nn.Parameter]
    decays: bool  # False for biases, norms and other 1-d weights
    lr_scale: float = 1.0
    hidden: bool = False  # matrices within the encoder's layers: neither embeddings nor heads

    def to_torch(self, lr: float, weight_decay: float) -> dict[str, Any]:
        """A torch optimizer's parameter group; `peak_lr` is what the schedule multiplies."""
        peak = lr * self.lr_scale
        return {"params": self.weights, "lr": peak, "peak_lr": peak, "weight_decay": weight_decay if self.decays else 0.0}


class Tracker(Protocol):
    """Where a run's progress goes."""

    def log(self, record: dict[str, Any]) -> None:
        """One record: `step`, `epoch` and metrics named `split/name`."""
        ...

    def finish(self, summary: dict[str, Any]) -> None:
        """The run ended; `summary["status"]` says how. Must leave nothing open."""
        ...


@dataclass(frozen=True)
class RunInfo:
    """What a tracker may want to know of a run when it starts."""

    run_id: str
    folder: Path
    title: str
    job: str
    config: dict[str, Any]
    labels: Sequence[str]
    primary: str
    tags: Sequence[str] = ()
    sweep: str | None = None
