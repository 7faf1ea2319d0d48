"""The encoder's later options are what their papers say: ModernBERT's layout equals transformers', the others
their formulas.

Legend: B batch, T tokens, D width, H heads, d head size.
"""

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from encoders import PROPERTY, TOLERANCE, encoder_of, random_batch, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from bertlab.config.schema import validate
from bertlab.errors import ConfigError
from bertlab.models import _bert_hf, bert
from bertlab.models.bert import Bert, BertEncoder, build
from bertlab.training.costs.flops import count_forward

transformers = pytest.importorskip("transformers")

MODERN: dict[str, Any] = {
    "norm_placement": "pre", "norm_bias": False, "linear_bias": False, "first_attention_norm": False,
    "activation": "geglu",
    "positions": "rotary", "rotary_base": 160_000.0, "local_rotary_base": 10_000.0, "type_vocab_size": 1,
    "norm_eps": 1e-5,
    "pooling": "mean",
}  # fmt: skip


# --- local and global attention -------------------------------------------------------------------
def of_modernbert(theirs: Any) -> dict[str, Tensor]:
    """Our names for a ModernBertModel's weights; segments, which it lacks, are zero."""
    state = theirs.state_dict()
    ours = {"token.weight": state["embeddings.tok_embeddings.weight"],
        "embedding_norm.weight": state["embeddings.norm.weight"],
            "segment.weight": torch.zeros(1, theirs.config.hidden_size),
            "final_norm.weight": state["final_norm.weight"]}  # fmt: skip
    for index in range(theirs.config.num_hidden_layers):
        here, there = f"layers.{index}", f"layers.{index}"
        parts = state[f"{there}.attn.Wqkv.weight"].chunk(3)
        ours |= {
            f"{here}.attention.{name}.weight": part
            for name, part in zip(("query", "key", "value"), parts, strict=True)
        }
        ours |= {
            f"{here}.attention.output.weight": state[f"{there}.attn.Wo.weight"],
            f"{here}.feed_forward.input.weight": state[f"{there}.mlp.Wi.weight"],
            f"{here}.feed_forward.output.weight": state[f"{there}.mlp.Wo.weight"],
            f"{here}.feed_forward_norm.weight": state[f"{there}.mlp_norm.weight"],
        }
        if index > 0:
            ours[f"{here}.attention_norm.weight"] = state[f"{there}.attn_norm.weight"]
    return ours


@settings(PROPERTY, max_examples=25)
@given(
    st.integers(1, 5), st.integers(1, 4), st.sampled_from([2, 4, 6, 128]), st.lists(st.integers(1, 20),
    min_size=1, max_size=4),
    st.sampled_from(["sdpa", "eager"]), st.integers(0, 2**16),
)  # fmt: skip
def test_modernberts_layout_equals_transformers(
    layers: int, every: int, window: int, lengths: list[int], attention: str, seed: int
) -> None:
    described = transformers.ModernBertConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=layers, num_attention_heads=2,
        local_attention=window,
        global_attn_every_n_layers=every, pad_token_id=0, attn_implementation="eager",
        max_position_embeddings=24,
    )  # fmt: skip
    theirs = transformers.ModernBertModel(described).eval()
    random_weights(theirs, seed)
    alternating = (
        {"global_every": every, "local_window": window} if every > 1 else {"local_rotary_base": None}
    )
    config = Bert(
        hidden_size=16, num_attention_heads=2, num_hidden_layers=layers, intermediate_size=24,
        max_position_embeddings=24,
        attention=attention, **{**MODERN, **alternating},
    )  # fmt: skip
    validate(config, "model")
    ours = build(config, 40).eval()
    ours.load_state_dict(of_modernbert(theirs))
    ids, _, mask = random_batch(config, 40, lengths, seed=seed)
    expected = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(ours(ids, None, mask)[mask], expected[mask], **TOLERANCE)
    if mask.all():
        torch.testing.assert_close(ours(ids, None, None), expected, **TOLERANCE)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_token_is_reached_by_half_a_window_a_layer(attention: str, masked: bool) -> None:
    """Which tokens a token's state depends on, by the gradient: everything through the first layer, or 2 a
    local layer.
    """
    for layers, every, reach in ((1, 5, 24), (3, 5, 24), (3, 2, 24)):
        encoder = encoder_of(
            num_hidden_layers=layers,
            global_every=every,
            local_window=4,
            attention=attention,
            positions="rotary",
        )
        seen: list[Tensor] = []
        encoder.embedding_dropout.register_forward_hook(
            lambda *call, seen=seen: seen.append(call[-1].retain_grad() or call[-1])
        )
        ids = torch.randint(40, (1, 24), generator=torch.Generator().manual_seed(0))
        encoder(ids, None, torch.ones_like(ids, dtype=torch.bool) if masked else None)[
            0, 12
        ].square().sum().backward()
        reached = (seen[0].grad[0].abs().sum(-1) > 0).nonzero()[:, 0].tolist()
        assert reached == list(range(24))[-reach:], (layers, every)
    layer = encoder_of(num_hidden_layers=2, global_every=2, local_window=4, attention=attention).layers[1]
    assert isinstance(layer, bert.Layer) and [
        bert.is_local(Bert(global_every=3), index) for index in range(4)
    ] == [False, True, True, False]
    x = torch.randn(1, 24, 16, requires_grad=True, generator=torch.Generator().manual_seed(1))
    layer(x, bert._near_bias(None, 24, 2, x), None)[0, 12].square().sum().backward()
    assert x.grad is not None and (x.grad[0].abs().sum(-1) > 0).nonzero()[:, 0].tolist() == [
        10,
        11,
        12,
        13,
        14,
    ]


def test_a_window_that_holds_the_text_changes_nothing() -> None:
    ids, segments, mask = random_batch(Bert(), 40, [9, 4])
    for positions in ("rotary", "learned"):
        wide = encoder_of(num_hidden_layers=4, global_every=2, local_window=16, positions=positions)
        every = encoder_of(num_hidden_layers=4, positions=positions)
        torch.testing.assert_close(wide(ids, segments, mask), every(ids, segments, mask), rtol=0, atol=0)


@pytest.mark.parametrize("length", [4, 24])
def test_windows_are_masked_not_skipped_and_counted_so(length: int) -> None:
    ids = torch.ones(3, length, dtype=torch.int64)
    counts = {
        count_forward(lambda encoder=encoder: encoder(ids))
        for encoder in (
            encoder_of(num_hidden_layers=3),
            encoder_of(num_hidden_layers=3, global_every=3, local_window=4),
        )
    }
    assert len(counts) == 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "options", [{"global_every": 2, "local_window": 4}, {"qk_norm": "l2"}, {"value_embeddings": 1}]
)
def test_the_first_token_alone_is_the_first_of_all(options: dict[str, Any], attention: str) -> None:
    encoder = encoder_of(attention=attention, **options)
    ids, segments, mask = random_batch(encoder.config, 40, [11, 3, 7])
    for given_mask in (mask, None, mask[:, :, None] & mask[:, None, :]):
        whole, first = (encoder(ids, segments, given_mask, pooled_only=short) for short in (False, True))
        torch.testing.assert_close(first[:, 0], whole[:, 0], **TOLERANCE)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("norm_placement", ["post", "pre"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize(
    "options", [{}, {"global_every": 2, "local_window": 4}, {"qk_norm": "rms"}, {"value_embeddings": 1}]
)
def test_a_place_alone_is_that_place_of_all(
    options: dict[str, Any], positions: str, norm_placement: str, attention: str
) -> None:
    encoder = encoder_of(attention=attention, positions=positions, norm_placement=norm_placement, **options)
    ids, segments, _ = random_batch(encoder.config, 40, [11, 11, 11, 11])
    places = torch.tensor([0, 10, 4, 7])
    whole = encoder(ids, segments)[torch.arange(4), places]
    torch.testing.assert_close(encoder.at_places(ids, segments, places), whole, **TOLERANCE)
    computed = count_forward(lambda: encoder.at_places(ids, segments, places))
    assert computed < count_forward(lambda: encoder(ids, segments))


# --- norms of queries and keys, soft-cap, value embeddings ----------------------------------------
def attended(layer: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`(B, H, T, d)` each: queries, keys, values before anything is done to them."""
    attend = layer.attention
    return tuple(
        part(x).unflatten(-1, (attend.heads, -1)).transpose(1, 2)
        for part in (attend.query, attend.key, attend.value)
    )  # type: ignore[return-value]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["layer", "rms", "l2"])
def test_qk_norm_is_its_formula(kind: str, attention: str) -> None:
    encoder = encoder_of(qk_norm=kind, attention=attention, norm_eps=1e-6)
    layer, x = encoder.layers[0], torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(3))
    attend = layer.attention
    q, k, v = attended(layer, x)
    if kind == "l2":
        scores = attend.query_norm.gain * F.cosine_similarity(q[:, :, :, None], k[:, :, None], dim=-1)
    else:

        def normed(y: Tensor, weight: Tensor) -> Tensor:
            y = y - y.mean(-1, keepdim=True) if kind == "layer" else y
            return y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

        scores = (
            normed(q, attend.query_norm.weight) @ normed(k, attend.key_norm.weight).transpose(-2, -1) / 8**0.5
        )
    wanted = attend.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attend(x, None, None), wanted, **TOLERANCE)


def test_the_scale_of_queries_makes_no_difference_under_qk_norm() -> None:
    for kind in ("layer", "rms", "l2"):
        encoder = encoder_of(qk_norm=kind, linear_bias=False)
        x = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(3))
        before = encoder.layers[0].attention(x, None, None)
        with torch.no_grad():
            encoder.layers[0].attention.query.weight.mul_(3.0)
        torch.testing.assert_close(encoder.layers[0].attention(x, None, None), before, **TOLERANCE)


def test_softcap_is_its_formula_and_bounds_scores() -> None:
    encoder = encoder_of(attention_softcap=0.3)
    layer, x = encoder.layers[0], torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(3))
    q, k, v = attended(layer, x)
    scores = 0.3 * torch.tanh(q @ k.transpose(-2, -1) / 8**0.5 / 0.3)
    assert scores.abs().max() <= 0.3
    wanted = layer.attention.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer.attention(x, None, None), wanted, **TOLERANCE)
    ids, segments, mask = random_batch(encoder.config, 40, [9, 4])
    plain = encoder_of()(ids, segments, mask)
    torch.testing.assert_close(encoder_of(attention_softcap=1e4)(ids, segments, mask), plain, **TOLERANCE)
    assert not torch.allclose(encoder(ids, segments, mask), plain, atol=1e-3)


def test_value_embeddings_are_their_formula() -> None:
    encoder = encoder_of(num_hidden_layers=5, value_embeddings=2)
    assert [bert.value_table_of(encoder.config, index) for index in range(5)] == [0, 1, None, 0, 1]
    layer, x = encoder.layers[4], torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(3))
    ids = torch.randint(40, (2, 7), generator=torch.Generator().manual_seed(4))
    q, k, _ = attended(layer, x)
    values = layer.attention.value(x) + layer.attention.gate * encoder.value_tables[1].weight[ids]
    v = values.unflatten(-1, (2, -1)).transpose(1, 2)
    wanted = layer.attention.output(
        ((q @ k.transpose(-2, -1) / 8**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    )
    torch.testing.assert_close(
        layer.attention(x, None, None, encoder.value_tables[1](ids)), wanted, **TOLERANCE
    )


def test_value_embeddings_begin_as_if_they_were_not_there() -> None:
    torch.manual_seed(3)
    plain = build(Bert(hidden_size=16, num_attention_heads=2), 40)
    torch.manual_seed(3)
    with_values = build(Bert(hidden_size=16, num_attention_heads=2, value_embeddings=2), 40)
    ids, segments, mask = random_batch(Bert(), 40, [9, 4])
    torch.testing.assert_close(
        with_values.eval()(ids, segments, mask), plain.eval()(ids, segments, mask), rtol=0, atol=0
    )
    with_values(ids, segments, mask).square().sum().backward()
    gates = [layer.attention.gate.grad for layer in with_values.layers]
    assert all(gate is not None and gate.abs() > 0 for gate in gates), (
        "a gate at 0 moves, and opens the way to its table"
    )
    narrower = with_values.narrower(0.5, None)
    assert narrower.value_tables[0].weight.shape == (40, 8)


def test_parameters_of_options_are_told_apart_from_matrices() -> None:
    encoder = encoder_of(value_embeddings=1, qk_norm="l2")
    levels = encoder.levels()
    assert sorted(map(id, itertools.chain(*levels))) == sorted(map(id, encoder.parameters()))
    assert any(weight is encoder.value_tables[0].weight for weight in levels[0])
    assert encoder.value_tables[0].weight not in encoder.hidden_matrices()
    torch.manual_seed(1)
    encoder.redraw(1)
    gain, gate = encoder.layers[1].attention.query_norm.gain, encoder.layers[1].attention.gate
    assert gain.item() == pytest.approx(math.log2(24**2 - 24)) and gate.item() == 0


@pytest.mark.parametrize("bfloat16", [False, True])
def test_all_of_them_together_compute_and_learn(bfloat16: bool) -> None:
    encoder = encoder_of(
        num_hidden_layers=4, **{**MODERN, "activation": "relu2"}, global_every=3, local_window=4,
        qk_norm="rms", attention_softcap=50.0,
        value_embeddings=2, attention_dropout=0.1,
    ).train()  # fmt: skip
    ids, segments, mask = random_batch(encoder.config, 40, [20, 4])
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        encoder(ids, segments, mask)[mask].square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in encoder.parameters())


# --- config ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"global_every": 3}, r"global_every=3: .*local_window=128"),
        ({"local_window": 128}, r"local_window=128: .*set model\.global_every"),
        ({"local_rotary_base": 1e4}, r"local_rotary_base=10000.0 .*needs model\.positions=rotary"),
        ({"local_rotary_base": 1e4, "positions": "rotary"},
        r"local_rotary_base=10000.0 .*model\.global_every"),
        ({"first_attention_norm": False}, "first_attention_norm=false .*norm_placement=post"),
        ({"attention_softcap": 50.0, "attention": "sdpa"}, r"attention_softcap: .*model\.attention=auto"),
        ({"value_embeddings": 3}, r"value_embeddings=3 .*at most 2 with model\.num_hidden_layers=4"),
        ({"qk_norm": "layre"}, r"qk_norm=layre: .*layer"),
    ],
)  # fmt: skip
def test_options_that_exclude_each_other_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{said}"):
        validate(Bert(**options), "model")


def test_huggingfaces_bert_has_none_of_them() -> None:
    changes = {"global_every": 3, "local_window": 128, "local_rotary_base": 1e4, "qk_norm": "rms",
        "attention_softcap": 50.0,
               "value_embeddings": 1, "first_attention_norm": False}  # fmt: skip
    for name, value in changes.items():
        assert _bert_hf.unlike_hf(dataclasses.replace(Bert(), **{name: value})) == [f"model.{name}={value}"]
    assert isinstance(encoder_of(), BertEncoder) and not _bert_hf.unlike_hf(Bert(activation="relu2"))
