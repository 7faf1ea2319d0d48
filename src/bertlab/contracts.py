"""What components promise each other: the encoder's call, the batch, the objective, columns, metrics,
trackers.

Each contract is a base class. What a component can do it says by overriding; what it leaves alone is refused
with one clear line. What it must override is marked `abc.abstractmethod`, and promises.py sees to it. The
declarations that need no torch (roles, metrics, …) stand in declarations.py and are handed on here.

Legend: B batch, T tokens, D width, C classes, N examples.
"""

import abc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bertlab.declarations import (
    BITS_PER_CHARACTER,
    FRACTION,
    TEXT,
    TEXT_PAIR,
    EncoderOptions,
    HfHead,
    Kind,
    Metric,
    MetricsDeclared,
    Role,
    loss_metric,
)  # fmt: skip
from bertlab.errors import ConfigError, shortened

__all__ = [
    "BITS_PER_CHARACTER",
    "FRACTION",
    "TEXT",
    "TEXT_PAIR",
    "HfHead",
    "Kind",
    "Metric",
    "Role",
    "loss_metric",
    "shortened",
]  # handed on


class Encode(Protocol):
    """A tokenizer as objectives see it: without special tokens, without truncation."""

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        ...

    def with_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Token ids of each text, and of each token its first character in the text and the one after its
        last.
        """
        ...


# --- encoders -------------------------------------------------------------------------------------
class Encoder(nn.Module):
    """Any encoder, ours or Hugging Face's. Derive from it, call `super().__init__(config)`, and set what
    differs.
    """

    hidden_size: int
    longest: int | None = None  # tokens that its positions reach
    takes_segments = True  # whether segment ids change anything
    norm_eps = 1e-12  # of norms in heads on top
    tie_embeddings = True  # whether vocabulary heads project with the token embedding's matrix
    pools_first_alone = False  # whether it takes `pooled_only`
    # whether all its dropout is kernels.dropout, of (B, T, …) or (B, H, T, T): on a CPU several processes
    # then draw what one would at no cost, and several seeds can be computed as one model (compute.together)
    drops_by_kernels = False

    def __init__(self, config: EncoderOptions) -> None:
        super().__init__()
        self.config = config

    @abc.abstractmethod
    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pooled_only: bool = False,
    ) -> Tensor:
        """To `hidden (B, T, D)`.

        `input_ids (B, T) int64`, `segment_ids (B, T) int64`, `attention_mask (B, T) bool, True = real token`
        (None = nothing is padded) or `(B, T, T) bool, True = row attends to column`. `pooled_only`: the
        caller will look at `pool(hidden, …)` alone.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks forward(…)")

    def at_places(self, input_ids: Tensor, segment_ids: Tensor, places: Tensor) -> Tensor:
        """`forward` of rows without padding at one place of each, `places (B,) int64`: `(B, D)`. An encoder
        that need not compute the others for it says how.
        """
        hidden: Tensor = self(input_ids, segment_ids)
        return hidden[torch.arange(len(hidden), device=hidden.device), places]

    def pool(self, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
        """`hidden (B, T, D)` to one vector a sequence `(B, D)`: the first token, or mean or maximum over real
        tokens.
        """
        if self.config.pooling == "cls":
            return self.pool_first(hidden)
        if attention_mask is None:
            return hidden.mean(1) if self.config.pooling == "mean" else hidden.amax(1)
        real = attention_mask.bool()[:, :, None]  # (B, T, 1)
        if self.config.pooling == "max":
            return hidden.masked_fill(~real, torch.finfo(hidden.dtype).min).amax(1)
        return hidden.masked_fill(~real, 0).sum(1) / real.sum(1).clamp(min=1)

    def pool_first(self, hidden: Tensor) -> Tensor:
        """What `pooling=cls` means here."""
        return hidden[:, 0]

    def dense_pooler(self) -> nn.Linear | None:
        """The linear layer whose tanh on the first token `pool_first` gives; None where it gives the first
        token itself.
        """
        return None

    def head_activation(self, x: Tensor) -> Tensor:
        """The activation of vocabulary heads."""
        return F.gelu(x)

    def token_weight(self) -> Tensor:
        """The token embedding matrix `(V, D)`, for heads that tie to it."""
        raise self._refused("objective=mlm and its like", "a token embedding that a head could tie to")

    def levels(self) -> list[list[nn.Parameter]]:
        """The weights from bottom to top: embeddings, each layer, and what stands on them."""
        raise self._refused(
            "finetune.freeze_layers, freeze_embeddings and layer_lr_decay", "layers that it tells apart"
        )

    def hidden_matrices(self) -> set[nn.Parameter]:
        """Weights within layers, as some optimizers treat them apart; without layers, everything but
        embeddings.
        """
        tables = {module.weight for module in self.modules() if isinstance(module, nn.Embedding)}
        return {weight for weight in self.parameters() if weight.ndim >= 2 and weight not in tables}

    def redraw(self, layers: int) -> None:
        """Fresh weights for so many layers from the top and for what stands on them. Raises ConfigError where
        there are fewer.
        """
        raise self._refused("finetune.reinit_layers", "layers that can be drawn anew")

    def narrower(self, share: float, layers: int | None) -> "Encoder":
        """A new encoder with fresh weights, of `share` of the width and of so many layers (None =
        as many).
        """
        raise self._refused("objective=rtd", "a narrower copy of itself for the generator; use model=bert_*")

    def replace_embedding(self, embedding: nn.Module) -> None:
        """Read tokens by another module, called as `embedding(ids (B, T)) -> (B, T, D)`."""
        raise self._refused("objective=rtd", "a token embedding that can be replaced")

    def save_description(self, _folder: Path) -> bool:
        """Write what describes the architecture beyond our config, as files; whether there is
        such a thing.
        """
        return False

    def _refused(self, asked: str, lacking: str) -> ConfigError:
        return ConfigError(f"{asked}: model={self.config.name} does not have {lacking}")


class Head(nn.Module):
    """An objective's head, called as `head(encoder, hidden, batch) -> outputs`."""

    reads_pooled_only = False  # whether the encoder may leave out what pooling does not read
    rewrites = False  # whether the encoder reads what `rewrite` makes of the batch
    drops_tokens = False  # whether its dropout is of (B, T, …) and not of one vector an example

    @abc.abstractmethod
    def forward(self, _encoder: Encoder, _hidden: Tensor, _batch: "Batch", /) -> Any:
        """Outputs, which only its objective reads, of `hidden (B, T, D)`."""

    def rewrite(self, _encoder: Encoder, batch: "Batch") -> "Batch":
        """The batch as the encoder reads it, e.g. with tokens of a generator."""
        return batch

    def exported(self) -> "Head":
        """What of it leaves, called as it is: itself, but where a part serves training alone."""
        return self

    def exported_state(self) -> dict[str, Tensor]:
        """Weights as the counterpart in transformers (`ObjectiveConfig.hf_head`) computes with them, under
        our names.
        """
        return self.state_dict()

    def exported_outputs(self, outputs: Any, _batch: "Batch") -> tuple[Tensor, ...]:
        """Outputs as that counterpart gives them, for comparison; where it gives several, in its order."""
        return outputs if isinstance(outputs, tuple) else (outputs,)


# --- batches --------------------------------------------------------------------------------------
@dataclass
class Batch:
    """One padded batch. `inputs` go to the encoder, `targets` to the head and the loss."""

    input_ids: Tensor  # (B, T) int64
    segment_ids: Tensor  # (B, T) int64
    attention_mask: Tensor | None  # (B, T) or (B, T, T) bool, None = no padding
    targets: dict[str, Tensor]
    num_tokens: int  # real tokens
    num_examples: int
    # training records tell `train/NAME`, the ratio of their sums
    counts: dict[str, tuple[float, float]] = field(default_factory=dict)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device; a copy from pinned memory is not waited for."""
        return (
            self if device.type == "cpu" else self._each(lambda tensor: tensor.to(device, non_blocking=True))
        )

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
            self.counts,
        )


@dataclass
class Loss:
    """Sum over units (examples, masked tokens, …) and how many there were, so that micro-batches add up
    right.
    """

    total: Tensor  # scalar, nats
    count: float  # 0 where there is nothing to learn from: a whole step like this is refused


@dataclass
class Examples:
    """A tokenised split: all token ids in one flat array, cut by offsets; memory-mapped where it comes from
    the cache.
    """

    tokens: np.ndarray  # (all tokens,) int32
    offsets: np.ndarray  # (N + 1,) int64: example i is tokens[offsets[i]:offsets[i + 1]]
    # per example, e.g. label (N,); `cut` (N,) int32: its tokens left out
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    # per token, cut like `tokens`, e.g. tag (all tokens,)
    token_columns: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64: tokens of each example."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> np.ndarray:
        """(N,) int64: the row of the split that each example is of; its own number where
        `prepare` told none.
        """
        told = self.columns.get("row")
        return np.arange(len(self)) if told is None else np.asarray(told)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def examples_of(
    rows: Sequence[Sequence[int]],
    columns: dict[str, np.ndarray] | None = None,
    token_columns: dict[str, Sequence[Any]] | None = None,
) -> Examples:
    """Examples of token lists; `token_columns` hold one list an example, as long as its tokens."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))

    def flat(lists: Sequence[Sequence[int]]) -> np.ndarray:
        return np.fromiter(
            (value for values in lists for value in values), dtype=np.int32, count=int(lengths.sum())
        )

    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return Examples(
        flat(rows),
        offsets,
        columns or {},
        {name: flat(lists) for name, lists in (token_columns or {}).items()},
    )


def join_examples(pieces: Iterable[Examples]) -> Examples:
    """Pieces of a split as one, in memory."""
    parts = list(pieces)
    lengths = np.concatenate([part.lengths for part in parts])
    return Examples(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate(([0], np.cumsum(lengths))),
        {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
        {
            name: np.concatenate([part.token_columns[name] for part in parts])
            for name in parts[0].token_columns
        },
    )


def pad_rows(rows: Sequence[np.ndarray], fill: int) -> tuple[np.ndarray, np.ndarray]:
    """`(B, T) int64` filled up on the right to the longest row, and `(B, T) bool`, True where a row has a
    value.
    """
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
    progress: float = (
        0.0  # share of all steps done before this one, in [0, 1]; 0 where the budget is time alone
    )
    length: int | None = (
        # tokens a row that batches are folded to (budget.length_from), of objectives that fold; None = as
        # they are
        None
    )

    def generator(self, row: int, stream: int = 0) -> np.random.Generator:
        """Randomness of one example in one epoch: neither order, nor micro-batches, nor a restart change it.

        What is drawn for different purposes takes different streams, else one draw would tell of the other.
        """
        return np.random.default_rng(
            [self.seed, self.epoch, row, stream] if stream else [self.seed, self.epoch, row]
        )


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
    # (V,) int64: letters of text it stands for, without markers and white space; 1 for the unknown token
    characters: np.ndarray
    is_special: np.ndarray  # (V,) bool: stands for no text

    def __len__(self) -> int:
        return len(self.continues)


class Objective:
    """What is learned: how texts become examples, examples a batch, hidden states a loss, outputs a score.

    Its config (`config.schema.ObjectiveConfig`) declares the columns it reads, its metrics and its options;
    this computes.
    """

    def __init__(
        self, config: MetricsDeclared, vocabulary: "Vocabulary", label_names: Sequence[str] = ()
    ) -> None:
        self.vocabulary, self.special, self.label_names = vocabulary, vocabulary.special, list(label_names)
        self.metrics = config.metrics(self.label_names)
        self.primary = config.primary_metric(self.label_names)

    @abc.abstractmethod
    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        """Tokenise one split, a `datasets.Dataset` whose columns are roles, a piece at a time.

        Where an example is not the row of the same number, its column `row` says which row of the split it is
        of.
        """

    def fit_to(self, train: Examples) -> None:  # most have nothing to learn here
        """Look at the training split, once, before a head is built. What is learned of it must go into the
        head's weights or buffers.

        An objective of a finished run looks at nothing: its head is loaded.
        """

    @abc.abstractmethod
    def collate(self, examples: Examples, rows: np.ndarray, draw: "Draw | None") -> Batch:
        """Examples of these numbers as one padded batch. `draw` decides what is random in training; None =
        the fixed evaluation draw.
        """

    @abc.abstractmethod
    def build_head(self, encoder: Encoder, initializer_range: float) -> Head:
        """The head on this encoder, with fresh weights from torch's generator."""

    @abc.abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> Loss:
        """In its config's `loss_unit`, float32."""

    @abc.abstractmethod
    def measure(self, outputs: Any, batch: Batch) -> dict[str, np.ndarray]:
        """What `scores` and `predictions` need of one batch: arrays with one element an example
        (on the CPU).
        """

    @abc.abstractmethod
    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        """Scores of a whole split: each of its metrics by name, and nested lists (a confusion matrix) beside
        them.

        `measured` is of all examples in their order, with `row`, the row of each; `rows` is the split.
        """

    def blind_scores(self, train: Any, rows: Any) -> dict[str, float]:
        """Scores on `rows` of one who reads nothing and knows the training split's answers (the commonest
        class, the mean), by metric.

        What does not beat them has learnt nothing. Empty where there is no such thing.
        """
        return {}

    @abc.abstractmethod
    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        """One JSON-ready dictionary a row of the split, in order (of an objective that does not predict: an
        example).
        """

    def token_logits(self, outputs: Any) -> Tensor:
        """Logits over the vocabulary (M, V) at `targets["masked"]`, of outputs; where its config says
        `predicts_tokens`.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks token_logits(outputs)")

    def describe(self, row: dict[str, Any], prediction: dict[str, Any]) -> str:
        """A prediction in one line for a person; `row` holds what was read (text, …)."""
        told = "  ".join(
            f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
            for name, value in prediction.items()
        )
        return f"{told}  {shortened(' | '.join(value for value in row.values() if isinstance(value, str)))}"

    def show(self, batch: Batch, token_of: Callable[[int], str]) -> list[str]:
        """A batch as the model sees it, a line an example, padding left out; for a person who looks."""
        return [
            " ".join(token_of(token) for token in row if token != self.special.pad_id)
            for row in batch.input_ids.tolist()
        ]

    def describe_scores(self, scores: dict[str, Any]) -> list[str]:
        """Lines for a person below the table of numbers, e.g. a confusion matrix; none unless it has such."""
        return []


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
        return {
            "params": self.weights,
            "lr": peak,
            "peak_lr": peak,
            "weight_decay": weight_decay if self.decays else 0.0,
        }


class Tracker:
    """Where a run's progress goes."""

    @abc.abstractmethod
    def log(self, record: dict[str, Any]) -> None:
        """One record: `step`, `epoch` and metrics named `split/name`."""

    def examples(self, split: str, rows: Any, predictions: list[dict[str, Any]]) -> None:  # optional
        """A split that was scored at the end: its rows as they were read, and what was predicted of each, in
        order. Not called where a run keeps no predictions.
        """

    @abc.abstractmethod
    def finish(self, summary: dict[str, Any]) -> None:
        """The run ended; `summary["status"]` says how. Must leave nothing open."""


@dataclass(frozen=True)
class RunInfo:
    """What a tracker may want to know of a run when it starts."""

    run_id: str
    folder: Path
    title: str
    job: str
    config: dict[str, Any]
    labels: Sequence[str]
    primary: Metric
    loss_unit: str
    tags: Sequence[str] = ()
    sweep: str | None = None
    answers: dict[str, str] = field(default_factory=dict)  # role -> kind of what it predicts
    classes: str | None = None  # as its objective declares by `tells_classes_of`
    identity: dict[str, Any] = field(default_factory=dict)  # what its id is made of, beside its config
    split: str = "validation"  # what is scored during training, by its name in records
