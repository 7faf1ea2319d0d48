"""BERT's encoder in one file, with the later options one wants to compare it with.

Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", §3 and appendix A.2, on the encoder of Vaswani et al. 2017, "Attention Is All You Need", §3.
The defaults are Devlin's architecture at BERT-mini's size (Turc et al. 2019); tests/parity/test_bert.py
proves them equal to transformers' BertModel.

Differs: weights are drawn from a normal distribution as transformers does (Google's code truncates it at two
deviations).

Legend: B batch, T tokens, D width, E width of embeddings (or D), H heads, d = D / H head size, I intermediate
width, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlab.config.schema import ModelConfig, choice, flag, integer, number
from bertlab.contracts import Encoder
from bertlab.errors import ConfigError
from bertlab.kernels import dropout, in_autocast_dtype

GATED = ("swiglu", "geglu")
Only = tuple[Any, Any]  # an index into (B, T, …) that leaves one place a row, (B, 1, …)
FIRST: Only = (slice(None), slice(1))


@dataclass
class Bert(ModelConfig):
    """Own encoder; the defaults are post-norm BERT (Devlin et al. 2019)."""

    leaves_as_code: ClassVar = True

    vocab_size: int | None = integer(None, "rows of the token embedding; null = the tokenizer's", low=1)
    hidden_size: int = integer(256, "width D", low=1)
    num_hidden_layers: int = integer(4, "layers", low=1)
    num_attention_heads: int = integer(4, "heads H; divides hidden_size", low=1)
    intermediate_size: int | None = integer(
        None,
        "feed-forward width; null = 4 x hidden_size, gated (swiglu, geglu): 8/3 x, to the nearest multiple"
        " of 32",
        low=1,
    )
    embedding_size: int | None = integer(
        None,
        "width E of embeddings, projected to D (Lan et al. 2020, ALBERT, §3.1; Clark et al. 2020, ELECTRA);"
        " null = D",
        low=1,
    )
    max_position_embeddings: int = integer(512, "longest sequence in tokens", low=1)
    type_vocab_size: int = integer(2, "segments", low=1)
    norm_placement: str = choice(
        "post", "post", "pre", help="norm after each residual sum, or before each sublayer"
    )
    norm: str = choice(
        "layer", "layer", "rms", help="layer norm, or root-mean-square norm (which never has a bias)"
    )
    norm_eps: float = number(1e-12, "added to the variance under the root", above=0)
    activation: str = choice(
        "gelu", "gelu", "gelu_tanh", "relu", "relu2", "swiglu", "geglu",
        help="of the feed-forward; relu2: relu squared (So et al. 2021, Primer); "
        "*glu are gated (Shazeer 2020)",
    )  # fmt: skip
    positions: str = choice(
        "learned", "learned", "sinusoidal", "rotary", "none", help="how the model knows the order of tokens"
    )
    rotary_base: float = number(10000.0, "longest rotary wavelength / 2 pi", above=1)
    global_every: int = integer(
        1,
        "every so-many-th layer, from the first, attends to all tokens, the others within local_window"
        " (Warner et al. 2024: 3)",
        low=1,
    )
    local_window: int | None = integer(
        None, "tokens that a local layer sees, half of them to each side (Warner et al. 2024: 128)", low=2
    )
    local_rotary_base: float | None = number(None, "rotary_base of local layers; null = rotary_base", above=1)
    attention: str = choice(
        "auto",
        "auto",
        "sdpa",
        "eager",
        help="torch's fused attention, plain matrix products; auto: the faster one; equal to rounding",
    )
    qk_norm: str = choice(
        "none", "none", "layer", "rms", "l2",
        help="norm of each head's queries and keys: layer (Dehghani et al. 2023), rms, "
        "or l2 with a learned scale (Henry et al. 2020)",
    )  # fmt: skip
    attention_softcap: float | None = number(
        None, "attention scores s become c tanh(s / c) (Gemma 2: c = 50); null = as they are", above=0
    )
    value_embeddings: int = integer(
        0,
        "tables of token vectors added to the values of so many first and so many last layers, by gates that"
        " begin at 0",
        low=0,
    )
    linear_bias: bool = flag(True, "biases in the linear layers of attention and feed-forward")
    norm_bias: bool = flag(True, "biases in layer norms")
    embedding_norm: bool = flag(True, "norm right after the embeddings")
    first_attention_norm: bool = flag(
        True, "the first layer's norm before attention; ModernBERT, with its embedding_norm, has none"
    )
    hidden_dropout: float = number(0.1, "dropout of each sublayer's output", low=0, below=1)
    attention_dropout: float = number(0.1, "dropout of attention weights", low=0, below=1)
    embedding_dropout: float | None = number(
        None, "dropout of the embeddings; null = hidden_dropout", low=0, below=1
    )
    tie_embeddings: bool = flag(True, "vocabulary heads project with the token embedding's matrix")
    initializer_range: float = number(0.02, "standard deviation of initial weights", above=0)
    scaled_residual_init: bool = flag(
        False, "initial residual output weights times 1/sqrt(2 x layers) (GPT-2, §2.3)"
    )

    def check(self, path: str) -> None:
        """Combinations that cannot be built."""
        at = f"{path}." if path else ""
        width, heads = self.hidden_size, self.num_attention_heads
        if width % heads:
            fitting = min(
                (h for h in range(1, min(width, 1 << 16) + 1) if width % h == 0), key=lambda h: abs(h - heads)
            )
            raise ConfigError(
                f"{at}num_attention_heads={heads} does not divide {at}hidden_size={width}: take e.g. "
                f"{at}num_attention_heads={fitting} or {at}hidden_size={-(-width // heads) * heads}"
            )
        if self.positions == "rotary" and width // heads % 2:
            raise ConfigError(
                f"{at}positions=rotary turns pairs of numbers, but the head size {width // heads}"
                f" ({at}hidden_size={width} / {at}num_attention_heads={heads}) is odd: change one of the two,"
                f" or take another {at}positions"
            )
        key, narrow = (
            ("hidden_size", width) if self.embedding_size is None else ("embedding_size", self.embedding_size)
        )
        if self.positions == "sinusoidal" and narrow % 2:
            raise ConfigError(
                f"{at}positions=sinusoidal needs pairs of sine and cosine, but {at}{key}={narrow} is odd: "
                f"take {at}{key}={narrow + 1} or another {at}positions"
            )
        self._check_attention(at)

    def _check_attention(self, at: str) -> None:
        if self.global_every > 1 and self.local_window is None:
            raise ConfigError(
                f"{at}global_every={self.global_every}: local layers need a window: {at}local_window=128"
            )
        if self.global_every == 1 and self.local_window is not None:
            raise ConfigError(
                f"{at}local_window={self.local_window}: every layer attends to all tokens: set"
                f" {at}global_every, e.g. 3"
            )
        if self.local_rotary_base is not None and (self.global_every == 1 or self.positions != "rotary"):
            raise ConfigError(
                f"{at}local_rotary_base={self.local_rotary_base} is of rotary positions in local layers: it"
                f" needs {at}positions=rotary, {at}global_every and {at}local_window"
            )
        if not self.first_attention_norm and self.norm_placement == "post":
            raise ConfigError(
                f"{at}first_attention_norm=false leaves out a norm before attention, which"
                f" {at}norm_placement=post has not"
            )
        if self.attention_softcap is not None and self.attention == "sdpa":
            raise ConfigError(
                f"{at}attention_softcap: torch's fused attention caps nothing: take {at}attention=auto or"
                " eager"
            )
        if 2 * self.value_embeddings > self.num_hidden_layers:
            raise ConfigError(
                f"{at}value_embeddings={self.value_embeddings} serve as many first and as many last layers:"
                f" at most {self.num_hidden_layers // 2} with {at}num_hidden_layers={self.num_hidden_layers}"
            )

    def build(self, vocab_size: int, pad_id: int = 0) -> "BertEncoder":
        """See `build`."""
        return build(self, vocab_size, pad_id)

    def longest(self) -> int:
        """As many as there are positions."""
        return self.max_position_embeddings

    def head_range(self) -> float:
        """As the encoder's weights."""
        return self.initializer_range

    def load_pretrained(self, encoder: Encoder, folder: Path, asked: str) -> None:
        """From a folder with a checkpoint of Hugging Face's: BERT, RoBERTa, ELECTRA or ModernBERT."""
        from bertlab.models import _checkpoints

        _checkpoints.load_pretrained(encoder, self, folder, asked)

    def unlike_transformers(self) -> list[str]:
        """What Hugging Face's BERT lacks."""
        from bertlab.models import _bert_hf

        return _bert_hf.unlike_hf(self)

    def transformers_config(self, vocab_size: int, pad_id: int) -> dict[str, Any]:
        """BertConfig's."""
        from bertlab.models import _bert_hf

        return _bert_hf.to_hf_config(self, vocab_size, pad_id)

    def transformers_state(self, state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """BertModel's."""
        from bertlab.models import _bert_hf

        return _bert_hf.to_hf_state(self, state, prefix)

    def may_differ(self) -> frozenset[str]:
        """What changes no weight's meaning."""
        return super().may_differ() | {
            "vocab_size", "attention", "hidden_dropout", "attention_dropout", "embedding_dropout",
            "tie_embeddings", "initializer_range",
            "scaled_residual_init",
        }  # fmt: skip

    def free_in_pretraining(self) -> tuple[str, ...]:
        """What leaves weights as they are."""
        return ("attention", "hidden_dropout", "attention_dropout", "embedding_dropout")


def intermediate_width(config: Bert) -> int:
    """I: as configured, else 4 D; gated layers have three matrices, so 8/3 D keeps their parameter count
    (Shazeer 2020).
    """
    if config.intermediate_size is not None:
        return config.intermediate_size
    return (
        max(32, round(config.hidden_size / 12) * 32) if config.activation in GATED else 4 * config.hidden_size
    )


def is_local(config: Bert, index: int) -> bool:
    """Whether a layer, counted from 0, attends within the window alone."""
    return index % config.global_every > 0


def value_table_of(config: Bert, index: int) -> int | None:
    """Which table of value embeddings a layer reads: n tables serve the first n layers and, in the same
    order, the last n.
    """
    tables, last = config.value_embeddings, index - (config.num_hidden_layers - config.value_embeddings)
    return index if index < tables else last if last >= 0 else None


# --- the model ------------------------------------------------------------------------------------
class BertEncoder(Encoder):
    """Embeddings, layers and pooler; `build` makes one and draws its weights."""

    config: Bert
    pools_first_alone = True
    drops_by_kernels = True
    position_table: Tensor  # (P, D), fixed sinusoids
    rotary_table: Tensor  # (2, P, d), cosines and sines
    local_rotary_table: Tensor  # the same for local layers

    def __init__(self, config: Bert, vocab_size: int, pad_id: int = 0) -> None:
        super().__init__(config)
        width, longest = config.hidden_size, config.max_position_embeddings
        self.hidden_size, self.longest, self.takes_segments = width, longest, config.type_vocab_size > 1
        narrow = config.embedding_size or width
        # As in transformers the padding row starts at zero and gets no gradient from the input side.
        self.token = _embedding(vocab_size, narrow, pad_id)
        self.segment = _embedding(config.type_vocab_size, narrow)
        self.position = _embedding(longest, narrow) if config.positions == "learned" else None
        if config.positions == "sinusoidal":
            # Vaswani scales token embeddings up to deviation 1; here they keep theirs, so the sinusoids are
            # scaled down to it.
            table = config.initializer_range * sinusoids(longest, narrow)
            self.register_buffer("position_table", table, persistent=False)
        if config.positions == "rotary":
            table = rotary_table(longest, width // config.num_attention_heads, config.rotary_base)
            self.register_buffer("rotary_table", table, persistent=False)
            if config.local_rotary_base is not None:
                table = rotary_table(longest, width // config.num_attention_heads, config.local_rotary_base)
            self.register_buffer("local_rotary_table", table, persistent=False)
        self.embedding_norm = _norm(config, narrow) if config.embedding_norm else nn.Identity()
        dropout = config.hidden_dropout if config.embedding_dropout is None else config.embedding_dropout
        self.embedding_dropout = Dropout(dropout)
        self.embedding_projection = nn.Identity() if config.embedding_size is None else _linear(narrow, width)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.final_norm = _norm(config) if config.norm_placement == "pre" else nn.Identity()
        self.pooler = _linear(width, width) if config.pooling == "cls" else None
        # Last, so that with them all other weights of the encoder are drawn as without.
        self.value_tables = nn.ModuleList(
            _embedding(vocab_size, width, pad_id) for _ in range(config.value_embeddings)
        )
        self.norm_eps, self.tie_embeddings = config.norm_eps, config.tie_embeddings

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pooled_only: bool = False,
    ) -> Tensor:
        """To `hidden (B, T, D)`; at padding it means nothing.

        `input_ids (B, T) int64`; `segment_ids (B, T) int64`, None = all 0; `attention_mask (B, T) bool`, True
        = real token, None = nothing is padded, or `(B, T, T) bool`, True = row attends to column. With
        `pooled_only` the caller promises to look at `pool(hidden, …)` alone: under cls pooling the last layer
        then computes only the first token, and `hidden` is `(B, 1, D)`.
        """
        only = FIRST if pooled_only and self.pooler is not None else None
        return self._through(input_ids, segment_ids, attention_mask, only)

    def at_places(self, input_ids: Tensor, segment_ids: Tensor, places: Tensor) -> Tensor:
        """The last layer computes the places asked for alone."""
        rows = torch.arange(len(places), device=places.device)
        return self._through(input_ids, segment_ids, None, (rows[:, None], places[:, None]))[:, 0]

    def _through(
        self, input_ids: Tensor, segment_ids: Tensor | None, attention_mask: Tensor | None, only: Only | None
    ) -> Tensor:
        """`hidden (B, T, D)`, or `(B, 1, D)` of the places that `only` leaves."""
        length = input_ids.shape[1]
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"{length} tokens, but max_position_embeddings={self.config.max_position_embeddings}"
            )
        x = self.token(input_ids)  # (B, T, E)
        x = x + (
            self.segment(segment_ids)
            if segment_ids is not None and self.takes_segments
            else self.segment.weight[0]
        )
        if self.position is not None:
            x = x + self.position.weight[:length]
        elif self.config.positions == "sinusoidal":
            x = x + self.position_table[:length]
        x = self.embedding_projection(self.embedding_dropout(self.embedding_norm(x)))  # (B, T, D)
        is_rotary = self.config.positions == "rotary"
        rotary = self.rotary_table[:, :length] if is_rotary else None  # (2, T, d)
        bias = None if attention_mask is None else _attention_bias(attention_mask, x.dtype)
        everywhere = nearby = (bias, rotary)
        if self.config.local_window is not None:
            local_rotary = self.local_rotary_table[:, :length] if is_rotary else None
            nearby = (_near_bias(bias, length, self.config.local_window // 2, x), local_rotary)
        values = [table(input_ids) for table in self.value_tables]  # (B, T, D) each
        for index, layer in enumerate(self.layers):
            table = value_table_of(self.config, index)
            own = None if table is None else values[table]
            is_last = index + 1 == len(self.layers)
            seen = nearby if is_local(self.config, index) else everywhere
            x = layer(x, *seen, own, only if is_last else None)
        hidden: Tensor = self.final_norm(x)  # (B, T, D)
        return hidden

    def pool_first(self, hidden: Tensor) -> Tensor:
        """Devlin's pooler on the first token, `(B, D)`."""
        assert self.pooler is not None
        return F.tanh(self.pooler(hidden[:, 0]))

    def dense_pooler(self) -> nn.Linear | None:
        """Devlin's pooler."""
        return self.pooler

    def head_activation(self, x: Tensor) -> Tensor:
        """That of the feed-forward; of gated ones GELU."""
        return F.gelu(x) if self.config.activation in GATED else ACTIVATIONS[self.config.activation](x)

    def token_weight(self) -> Tensor:
        """The token embedding matrix `(V, E)`."""
        return self.token.weight

    def levels(self) -> list[list[nn.Parameter]]:
        """The weights from bottom to top: embeddings, each layer, and what stands on them (last norm,
        pooler).
        """
        bottom = [self.token, self.segment, self.embedding_norm, self.embedding_projection, self.value_tables]
        bottom += [] if self.position is None else [self.position]
        top = [self.final_norm, *([] if self.pooler is None else [self.pooler])]
        parts: list[list[nn.Module]] = [bottom, *([layer] for layer in self.layers), top]
        return [[weight for module in part for weight in module.parameters()] for part in parts]

    def hidden_matrices(self) -> set[nn.Parameter]:
        """Those of the layers."""
        return {weight for weight in self.layers.parameters() if weight.ndim >= 2}

    def replace_embedding(self, embedding: nn.Module) -> None:
        """Read tokens by another module."""
        self.token = embedding  # type: ignore[assignment]  # the generator's reads the encoder's table

    def redraw(self, layers: int) -> None:
        """Fresh weights for so many layers from the top and for what stands on them. Raises ConfigError where
        there are fewer.
        """
        if layers > len(self.layers):
            raise ConfigError(f"finetune.reinit_layers={layers}: the model has {len(self.layers)} layers")
        top: list[nn.Module] = [*self.layers[len(self.layers) - layers :], self.final_norm]
        _initialise(self, top if self.pooler is None else [*top, self.pooler])

    def narrower(self, share: float, layers: int | None) -> "BertEncoder":
        """A new encoder with fresh weights whose width and heads are `share` of this one's, and of `layers`
        layers (None = as many).

        Raises ConfigError where the narrower width cannot be built.
        """
        heads = max(1, round(share * self.config.num_attention_heads))
        head_size = self.config.hidden_size // self.config.num_attention_heads
        width = heads * max(2, round(share * self.config.hidden_size / heads / 2) * 2)
        inner = (
            None
            if self.config.intermediate_size is None
            else max(1, round(share * self.config.intermediate_size))
        )
        if width > self.config.hidden_size:
            raise ConfigError(
                f"an encoder of {self.config.num_attention_heads} heads of {head_size} has no copy of {share}"
                " its width"
            )
        smaller = replace(
            self.config, hidden_size=width, embedding_size=None, num_attention_heads=heads,
            intermediate_size=inner,
            num_hidden_layers=layers or self.config.num_hidden_layers,
        )  # fmt: skip
        return build(smaller, self.token.num_embeddings, self.token.padding_idx or 0)


class Layer(nn.Module):
    """Self-attention, then feed-forward, each in a residual sum with its norm."""

    def __init__(self, config: Bert, index: int) -> None:
        super().__init__()
        self.pre = config.norm_placement == "pre"
        self.attention = Attention(config, value_table_of(config, index) is not None)
        self.attention_norm = _norm(config) if config.first_attention_norm or index > 0 else nn.Identity()
        self.feed_forward, self.feed_forward_norm = FeedForward(config), _norm(config)
        self.dropout = Dropout(config.hidden_dropout)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None,
        rotary: Tensor | None,
        values: Tensor | None = None,
        only: Only | None = None,
    ) -> Tensor:
        kept = x if only is None else x[only]  # positions whose output is wanted; all are attended to
        if self.pre:  # Xiong et al. 2020
            x = kept + self.dropout(self.attention(self.attention_norm(x), bias, rotary, values, only))
            x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        else:
            x = self.attention_norm(kept + self.dropout(self.attention(x, bias, rotary, values, only)))
            x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return x  # (B, T, D), or (B, 1, D)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, §3.2). One fused q-k-v product was not
    faster (CPU).

    `values (B, T, D)`, vectors of the tokens themselves, are added to what is attended to, times a gate that
    begins at 0 (modded-nanogpt, after Zhou et al. 2024, "Value residual learning"). With a soft-cap c, scores
    s are c tanh(s / c) (Gemma team 2024, Gemma 2, §2).
    """

    def __init__(self, config: Bert, takes_values: bool = False) -> None:
        super().__init__()
        self.heads, self.kind, self.dropout = (
            config.num_attention_heads,
            config.attention,
            config.attention_dropout,
        )
        self.softcap, width = config.attention_softcap, config.hidden_size
        self.query, self.key, self.value, self.output = (
            _linear(width, width, config.linear_bias) for _ in range(4)
        )
        self.query_norm, self.key_norm = _query_norm(config), _key_norm(config)
        self.gate = nn.Parameter(torch.zeros(1)) if takes_values else None

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None,
        rotary: Tensor | None,
        values: Tensor | None = None,
        only: Only | None = None,
    ) -> Tensor:
        x = in_autocast_dtype(x)  # once, instead of once for each of the three products
        q, k, v = self.query(x if only is None else x[only]), self.key(x), self.value(x)
        if self.gate is not None and values is not None:
            v = v + (self.gate * values).to(v.dtype)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))  # (B, H, T, d)
        if self.query_norm is not None and self.key_norm is not None:
            exact = self.query.weight.dtype  # float32, whatever autocast makes of products
            q, k = self.query_norm(q.to(exact)).to(v.dtype), self.key_norm(k.to(exact)).to(v.dtype)
        if only is not None and bias is not None:
            bias = _bias_at(bias, only)
        if rotary is not None:
            rotary = rotary.to(q.dtype)
            q, k = rotate(q, rotary if only is None else _rotary_at(rotary, only)), rotate(k, rotary)
        p = self.dropout if self.training else 0.0
        if self.fuses(q, p):
            mixed = F.scaled_dot_product_attention(q, k, v, bias, p)  # (B, H, T, d)
        else:
            scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)  # (B, H, T, T)
            if self.softcap is not None:
                scores = self.softcap * torch.tanh(scores / self.softcap)
            weights = torch.softmax(scores if bias is None else scores + bias, -1, dtype=torch.float32).to(
                v.dtype
            )
            mixed = dropout(weights, p) @ v
        x = self.output(mixed.transpose(1, 2).flatten(2))
        return x  # (B, T, D)

    def fuses(self, q: Tensor, p: float) -> bool:
        """Whether torch's fused attention is taken: on a CUDA device always, elsewhere not where it is the
        slower way, but for `sdpa`.

        On a CPU it has no dropout of its own and falls back to products, with a slow generator; in bfloat16
        it took twice (512 tokens) to nine times (16) as long as products, backward pass included.
        """
        if self.kind == "eager" or self.softcap is not None:
            return False
        if q.is_cuda:
            return True
        slower = q.device.type == "cpu" and q.dtype == torch.bfloat16
        return p == 0.0 and (self.kind == "sdpa" or not slower)


class UnitNorm(nn.Module):
    """`x (B, H, T, d)` to length 1; with a gain g, to g sqrt(d), so that attention's scores become g times a
    cosine.

    Source: Henry et al. 2020, "Query-Key Normalization for Transformers", §3: g is learned and begins at
    log2(L^2 - L), L the length of sequences. Differs: L is the longest that positions reach, not a percentile
    of the data.
    """

    def __init__(self, first_gain: float | None = None) -> None:
        super().__init__()
        self.first_gain = first_gain
        self.gain = None if first_gain is None else nn.Parameter(torch.full((1,), first_gain))

    def forward(self, x: Tensor) -> Tensor:
        unit = F.normalize(x, dim=-1)
        return unit if self.gain is None else self.gain * math.sqrt(x.shape[-1]) * unit


class Dropout(nn.Module):
    """`dropout` while training."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p if self.training else 0.0)


class FeedForward(nn.Module):
    """Two linear layers around an activation; gated: `activation(W x) * (V x)`, W and V stacked in `input`
    (Shazeer 2020, §2).
    """

    def __init__(self, config: Bert) -> None:
        super().__init__()
        inner = intermediate_width(config)
        self.gated, self.activation = config.activation in GATED, ACTIVATIONS[config.activation]
        self.input = _linear(config.hidden_size, 2 * inner if self.gated else inner, config.linear_bias)
        self.output = _linear(inner, config.hidden_size, config.linear_bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)  # (B, T, I or 2 I)
        if self.gated:
            gate, value = x.chunk(2, dim=-1)  # (B, T, I) each
            x = self.output(self.activation(gate) * value)
        else:
            x = self.output(self.activation(x))
        return x  # (B, T, D)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _relu_squared(x: Tensor) -> Tensor:
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": F.relu,
    "relu2": _relu_squared,
    "swiglu": F.silu,
    "geglu": F.gelu,
}


# --- positions and masks --------------------------------------------------------------------------
def sinusoids(longest: int, width: int) -> Tensor:
    """`(P, D)`: sin(p / 10000^(2i/D)) at 2i, the cosine at 2i + 1 (Vaswani et al. 2017, §3.5)."""
    return torch.stack(_sin_cos(longest, width, 10000.0), dim=-1).flatten(1)


def rotary_table(longest: int, head_size: int, base: float) -> Tensor:
    """`(2, P, d)`: cosines, then sines, of p / base^(2i/d), once for each half of the head (Su et al. 2021,
    §3.2).
    """
    sin, cos = _sin_cos(longest, head_size, base)
    return torch.stack((cos.repeat(1, 2), sin.repeat(1, 2)))


def _sin_cos(longest: int, width: int, base: float) -> tuple[Tensor, Tensor]:
    step = torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width
    angle = torch.arange(longest, dtype=torch.float64, device="cpu")[:, None] / base**step  # (P, width / 2)
    return angle.sin().float(), angle.cos().float()


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the pairs (i, i + d/2) of `x (B, H, T, d)` by their position's angles, `table (2, T, d)`."""
    first, second = x.chunk(2, dim=-1)
    return (x * table[0] + torch.cat((-second, first), dim=-1) * table[1]).to(x.dtype)


def _attention_bias(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """`(B, T)` or `(B, T, T) bool` to `(B, 1, T, T)`-broadcastable scores: 0 for real keys, a huge finite
    negative number for padding.
    """
    bias = _closed(~attention_mask.bool(), dtype)
    return bias[:, None] if bias.ndim == 3 else bias[:, None, None]


def _near_bias(bias: Tensor | None, length: int, reach: int, like: Tensor) -> Tensor | None:
    """The same scores, with those of keys more than `reach` tokens away closed (Warner et al. 2024,
    ModernBERT, §2.1.1).

    All scores are computed all the same: a window saves no time, it changes what is learned.
    """
    if length <= reach + 1:
        return bias
    place = torch.arange(length, device=like.device)
    far = _closed((place[:, None] - place).abs() > reach, like.dtype)  # (T, T)
    return far if bias is None else torch.minimum(bias, far)


def _bias_at(bias: Tensor, only: Only) -> Tensor:
    """Of scores `(T, T)`, `(B, 1, 1, T)` or `(B, 1, T, T)` the rows of the places wanted."""
    if bias.ndim == 2:
        rows = bias[only[1]]  # (1, T), or (B, 1, T) of places that differ
        return rows if rows.ndim == 2 else rows[:, None]
    return bias if bias.shape[-2] == 1 else bias.transpose(1, 2)[only].transpose(1, 2)  # (B, 1, 1, T)


def _rotary_at(table: Tensor, only: Only) -> Tensor:
    """The angles `(2, T, d)` of the places wanted, for `rotate`."""
    rows = table[:, only[1]]  # (2, 1, d), or (2, B, 1, d) of places that differ
    return rows if rows.ndim == 3 else rows[:, :, None]


def _closed(where: Tensor, dtype: torch.dtype) -> Tensor:
    """0, and a huge negative number `where` so; finite, also after a cast to bfloat16: a row without any real
    token gives no NaN.
    """
    lowest = max(torch.finfo(dtype).min, torch.finfo(torch.bfloat16).min)
    return torch.zeros(where.shape, dtype=dtype, device=where.device).masked_fill(where, lowest)


# --- construction and initial weights -------------------------------------------------------------
def build(config: Bert, vocab_size: int, pad_id: int = 0) -> BertEncoder:
    """The encoder with fresh weights, drawn on the CPU from torch's global generator: N(0,
    initializer_range^2), biases 0, norms 1, padding row 0 (Devlin et al. 2019, as in transformers).

    `vocab_size` is the tokenizer's; `config.vocab_size`, where set, replaces it and must not be smaller.
    """
    rows = vocab_size if config.vocab_size is None else config.vocab_size
    if rows < vocab_size:
        raise ConfigError(
            f"model.vocab_size={rows} is smaller than the tokenizer's {vocab_size}: leave it out (null) or"
            " raise it"
        )
    if not 0 <= pad_id < rows:
        raise ConfigError(f"the padding id {pad_id} is not in the vocabulary of {rows}")
    encoder = BertEncoder(config, rows, pad_id)
    _initialise(encoder)
    return encoder


@torch.no_grad()
def _initialise(encoder: BertEncoder, only: Sequence[nn.Module] = ()) -> None:
    """Fresh weights for everything, or for the modules `only` and what is within them."""
    config = encoder.config
    scale = 1 / math.sqrt(2 * config.num_hidden_layers) if config.scaled_residual_init else 1.0
    chosen = {inner for module in only or (encoder,) for inner in module.modules()}
    for name, module in encoder.named_modules():
        if module not in chosen:
            continue
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(
                0.0, config.initializer_range * (scale if name.endswith(".output") else 1.0)
            )
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.zero_()
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            module.reset_parameters()
        if isinstance(module, UnitNorm) and module.gain is not None and module.first_gain is not None:
            module.gain.fill_(module.first_gain)
        if isinstance(module, Attention) and module.gate is not None:
            module.gate.zero_()
    for table in (encoder.token, *encoder.value_tables):
        table.weight[table.padding_idx].zero_()


def _linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    # torch's own draw would be wasted
    return nn.Linear(inputs, outputs, bias, device="meta").to_empty(device="cpu")


def _embedding(rows: int, width: int, padding_idx: int | None = None) -> nn.Embedding:
    return nn.Embedding(rows, width, padding_idx, device="meta").to_empty(device="cpu")


def _norm(config: Bert, width: int | None = None) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(width or config.hidden_size, eps=config.norm_eps)  # Zhang and Sennrich 2019
    return nn.LayerNorm(width or config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)


def _query_norm(config: Bert) -> nn.Module | None:
    longest = max(2, config.max_position_embeddings)
    return UnitNorm(math.log2(longest**2 - longest)) if config.qk_norm == "l2" else _key_norm(config)


def _key_norm(config: Bert) -> nn.Module | None:
    """Over the numbers of one head; all heads share its weights."""
    size = config.hidden_size // config.num_attention_heads
    norms: dict[str, Callable[[], nn.Module | None]] = {
        "none": lambda: None,
        "layer": lambda: nn.LayerNorm(size, eps=config.norm_eps, bias=False),
        "rms": lambda: nn.RMSNorm(size, eps=config.norm_eps),
        "l2": UnitNorm,
    }
    return norms[config.qk_norm]()
