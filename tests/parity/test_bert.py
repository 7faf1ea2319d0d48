"""The encoder is BERT, to rounding, in values and gradients; each of its options is its formula.

Legend: B batch, T tokens, D width, H heads, V vocabulary.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from encoders import PROPERTY, TOLERANCE, Case, cases, encoder_of, random_batch, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn

from bertlab.config.schema import validate
from bertlab.errors import ConfigError
from bertlab.models import _bert_hf, bert
from bertlab.models.bert import Bert, BertEncoder, build

transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- parity with transformers ---------------------------------------------------------------------
@settings(PROPERTY, max_examples=60)
@given(cases(), st.sampled_from(["sdpa", "eager"]))
def test_hidden_pooled_and_every_gradient_equal_transformers(case: Case, their_attention: str) -> None:
    config, vocab, pad_id, lengths, seed = case
    theirs = transformers.BertModel(
        transformers.BertConfig(**_bert_hf.to_hf_config(config, vocab, pad_id),
        attn_implementation=their_attention)
    ).eval()  # fmt: skip
    random_weights(theirs, seed)
    ours = build(config, vocab, pad_id).eval()
    ours.load_state_dict(_bert_hf.from_hf_state(config, theirs.state_dict()))
    ids, segments, mask = random_batch(config, vocab, lengths, pad_id, seed)

    expected = theirs(input_ids=ids, token_type_ids=segments, attention_mask=mask.long())
    hidden = ours(ids, segments, mask)
    pooled = ours.pool(hidden, mask)
    torch.testing.assert_close(hidden, expected.last_hidden_state, **TOLERANCE)  # at padding too
    torch.testing.assert_close(pooled, expected.pooler_output, **TOLERANCE)

    # The loss looks at padding as well, so that the padding row's own gradient is compared.
    generator = torch.Generator().manual_seed(seed)
    at_hidden, at_pooled = (
        torch.randn(hidden.shape, generator=generator),
        torch.randn(pooled.shape, generator=generator),
    )
    ((hidden * at_hidden).sum() + (pooled * at_pooled).sum()).backward()
    ((expected.last_hidden_state * at_hidden).sum() + (expected.pooler_output * at_pooled).sum()).backward()
    assert_gradients_equal(ours, theirs)


def assert_gradients_equal(ours: BertEncoder, theirs: nn.Module) -> None:
    """Every parameter's gradient to 1e-5 of its largest element.

    Some true gradients are zero and what is there is rounding (a key's bias shifts all scores of a query
    alike; one token alone attends to itself): hence the floor at a millionth of the model's largest gradient.
    """
    wanted = _bert_hf.from_hf_state(
        ours.config, {name: weight.grad for name, weight in theirs.named_parameters()}
    )
    gradients = {name: weight.grad for name, weight in ours.named_parameters()}
    assert gradients.keys() == wanted.keys()
    largest = {name: gradient.abs().max().item() for name, gradient in wanted.items()}
    for name, gradient in gradients.items():
        assert gradient is not None, name
        allowed = max(1e-5 * largest[name], 1e-6 * max(largest.values()))
        torch.testing.assert_close(
            gradient, wanted[name], rtol=0, atol=allowed, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_dropout_falls_where_transformers_drops(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # own draws are other draws: the places are compared with torch's generator
    monkeypatch.setattr(bert, "dropout", F.dropout)
    ours = encoder_of(attention=attention, hidden_dropout=0.3, attention_dropout=0.2).train()
    hf = transformers.BertConfig(**_bert_hf.to_hf_config(ours.config, 40), attn_implementation=attention)
    theirs = transformers.BertModel(hf).train()
    theirs.load_state_dict(_bert_hf.to_hf_state(ours.config, ours.state_dict()))
    ids, segments, mask = random_batch(ours.config, 40, [7, 3])
    torch.manual_seed(5)
    hidden = ours(ids, segments, mask)
    torch.manual_seed(5)
    expected = theirs(input_ids=ids, token_type_ids=segments, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(hidden, expected, **TOLERANCE)


@pytest.mark.parametrize("p", [0.1, 0.25, 0.9])
def test_own_dropout_keeps_the_mean_and_the_share(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(999_999, requires_grad=True)
    y = bert.dropout(x, p)
    dropped = float((y == 0).float().mean())
    assert abs(dropped - p) < 5 * (p * (1 - p) / 999_999) ** 0.5 + 1 / 2**17
    assert sorted(y.unique().tolist()) == pytest.approx([0.0, 1 / (1 - p)])
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach())
    pairs = (y.detach() == 0).float()
    for lag in (1, 2, 3, 4):
        assert abs(float((pairs[:-lag] * pairs[lag:]).mean()) - p * p) < 3e-3, "neighbours are independent"
    assert bert.dropout(x, 0.0) is x


@settings(max_examples=30)
@given(
    st.sampled_from(["post", "pre"]),
    st.sampled_from(["learned", "rotary"]),
    st.sampled_from(["sdpa", "eager"]),
    st.integers(1, 3),
)
def test_what_pooling_does_not_read_may_be_left_out(
    norm_placement: str, positions: str, attention: str, layers: int
) -> None:
    encoder = encoder_of(
        norm_placement=norm_placement, positions=positions, attention=attention, num_hidden_layers=layers
    ).eval()
    ids, segments, mask = random_batch(encoder.config, 40, [7, 3, 5])
    gradients = []
    for pooled_only in (False, True):
        encoder.zero_grad()
        pooled = encoder.pool(encoder(ids, segments, mask, pooled_only=pooled_only), mask)
        pooled.pow(2).sum().backward()
        gradients.append([pooled.detach(), *(weight.grad for weight in encoder.parameters())])
    for full, short in zip(*gradients, strict=True):
        torch.testing.assert_close(short, full, **TOLERANCE)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_pretrained_minilm_gives_equal_logits_and_gradients(attention: str, minilm: Path) -> None:
    torch.manual_seed(0)
    theirs = transformers.BertForSequenceClassification.from_pretrained(minilm, num_labels=3).eval()
    config = _bert_hf.from_hf_config(theirs.config.to_dict())
    config.attention = attention
    ours = build(config, 30522).eval()
    ours.load_state_dict(_bert_hf.from_hf_state(config, theirs.state_dict()))
    _, heads = _bert_hf.split_hf_state(theirs.state_dict())
    ids, segments, mask = random_batch(config, 30522, [13, 5, 9, 2])

    pooled = ours.pool(ours(ids, segments, mask), mask)
    logits = F.linear(pooled, heads["classifier.weight"], heads["classifier.bias"])
    expected = theirs(
        input_ids=ids, token_type_ids=segments, attention_mask=mask.long(), labels=torch.tensor([0, 1, 2, 0])
    )
    torch.testing.assert_close(logits, expected.logits, **TOLERANCE)
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    expected.loss.backward()
    assert_gradients_equal(ours, theirs.bert)


# --- options --------------------------------------------------------------------------------------
CHOICES = {
    "norm_placement": ["post", "pre"],
    "norm": ["layer", "rms"],
    "activation": ["gelu", "gelu_tanh", "relu", "relu2", "swiglu", "geglu"],
    "positions": ["learned", "sinusoidal", "rotary", "none"],
    "attention": ["auto", "sdpa", "eager"],
    "linear_bias": [True, False],
    "norm_bias": [True, False],
    "embedding_norm": [True, False],
    "pooling": ["cls", "mean", "max"],
    "scaled_residual_init": [True, False],
    "global_every": [1, 2],
    "qk_norm": ["none", "layer", "rms", "l2"],
    "value_embeddings": [0, 1],
}


def with_window(options: dict[str, Any]) -> dict[str, Any]:
    return options if options["global_every"] == 1 else {**options, "local_window": 4}


any_options = st.fixed_dictionaries({key: st.sampled_from(values) for key, values in CHOICES.items()}).map(
    with_window
)


@settings(PROPERTY, max_examples=150)
@given(
    any_options, st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(0, 5), st.integers(0, 2**16)
)
def test_padding_never_reaches_real_tokens(
    options: dict[str, Any], lengths: list[int], extra: int, seed: int
) -> None:
    encoder = encoder_of(**options)
    ids, segments, mask = random_batch(encoder.config, 40, [*lengths, max(lengths) + extra], seed=seed)
    hidden = encoder(ids, segments, mask)
    other = torch.where(mask, ids, (ids + 1 + seed) % 40)
    torch.testing.assert_close(encoder(other, segments, mask)[mask], hidden[mask], rtol=0, atol=0)
    pooled = encoder.pool(hidden, mask)
    torch.testing.assert_close(
        encoder.pool(hidden.masked_fill(~mask[:, :, None], 1e4), mask), pooled, rtol=0, atol=0
    )
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = encoder(ids[row : row + 1, :length], segments[row : row + 1, :length], None)
        torch.testing.assert_close(alone[0], hidden[row, :length], **TOLERANCE)
        torch.testing.assert_close(encoder.pool(alone, None)[0], pooled[row], **TOLERANCE)


@settings(PROPERTY, max_examples=60)
@given(any_options, st.integers(0, 2**16))
def test_eager_equals_sdpa_in_values_and_gradients(options: dict[str, Any], seed: int) -> None:
    results = []
    for attention in ("sdpa", "eager"):
        encoder = encoder_of(**{**options, "attention": attention})
        ids, segments, mask = random_batch(encoder.config, 40, [9, 4, 1], seed=seed)
        hidden = encoder(ids, segments, mask)
        encoder.pool(hidden, mask).mean().backward()
        gradients = [weight.grad for weight in encoder.parameters() if weight.grad is not None]
        results.append([hidden, *gradients])
    assert len(results[0]) == len(results[1])
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(plain, fused, **TOLERANCE)


@pytest.mark.parametrize(
    ("attention", "bfloat16", "p", "fused"),
    [("auto", False, 0.0, True), ("auto", True, 0.0, False), ("auto", False, 0.1, False), ("sdpa", True, 0.0,
    True),
     ("sdpa", False, 0.1, False), ("eager", False, 0.0, False)],
)  # fmt: skip
def test_fused_attention_is_taken_where_it_is_faster(
    attention: str, bfloat16: bool, p: float, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *given: (calls.append(given), real(*given))[1]
    )
    encoder = encoder_of(attention=attention, attention_dropout=p).train()
    ids, segments, mask = random_batch(encoder.config, 40, [7, 3])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        encoder(ids, segments, mask)
    assert len(calls) == (encoder.config.num_hidden_layers if fused else 0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_row_without_real_tokens_stays_finite(attention: str, bfloat16: bool) -> None:
    for pooling in CHOICES["pooling"]:
        encoder = encoder_of(attention=attention, pooling=pooling)
        ids, segments, mask = random_batch(encoder.config, 40, [5, 3])
        mask[1] = False
        assert bert._attention_bias(mask, torch.float32).bfloat16().isfinite().all()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            hidden = encoder(ids, segments, mask)
            pooled = encoder.pool(hidden, mask)
        assert hidden.isfinite().all() and pooled.isfinite().all()


@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_bfloat16_autocast_stays_near_float32(positions: str) -> None:
    encoder = encoder_of(positions=positions)
    ids, segments, mask = random_batch(encoder.config, 40, [9, 4])
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(ids, segments, mask)
    torch.testing.assert_close(rough[mask].float(), encoder(ids, segments, mask)[mask], rtol=0.05, atol=0.05)


def test_no_segments_means_all_zero() -> None:
    encoder = encoder_of()
    ids, _, mask = random_batch(encoder.config, 40, [6, 3])
    torch.testing.assert_close(
        encoder(ids, None, mask), encoder(ids, torch.zeros_like(ids), mask), rtol=0, atol=0
    )


def test_no_positions_is_permutation_equivariant_and_the_others_are_not() -> None:
    for positions in CHOICES["positions"]:
        encoder = encoder_of(positions=positions)
        ids = torch.arange(10)[None]
        order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
        same = torch.allclose(
            encoder(ids[:, order], None, None), encoder(ids, None, None)[:, order], atol=1e-5
        )
        assert same == (positions == "none"), positions


def test_rotary_keeps_norms_and_sees_only_distances() -> None:
    table = bert.rotary_table(64, 8, 10000.0)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).expand(2, 1, 1, 64, 8)
    turned_q, turned_k = bert.rotate(q, table), bert.rotate(k, table)
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm(dim=-1), **TOLERANCE)
    # (T, T), of one and the same q and k at every place
    scores = (turned_q @ turned_k.transpose(-2, -1))[0, 0]
    for distance in (-40, -3, 0, 1, 17):
        along = scores.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), **TOLERANCE)
    assert scores.diagonal(1)[0] != scores.diagonal(2)[0]
    angle = torch.tensor(5 / 10000.0 ** (2 / 8))  # position 5, pair 1: the numbers 1 and 1 + d/2
    torch.testing.assert_close(
        turned_q[0, 0, 5, 1], q[0, 0, 5, 1] * angle.cos() - q[0, 0, 5, 5] * angle.sin(), **TOLERANCE
    )
    torch.testing.assert_close(
        turned_q[0, 0, 5, 5], q[0, 0, 5, 5] * angle.cos() + q[0, 0, 5, 1] * angle.sin(), **TOLERANCE
    )


def test_rotary_hidden_states_do_not_change_when_all_tokens_move() -> None:
    encoder = encoder_of(positions="rotary")
    ids = torch.randint(1, 40, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(12).expand(2, 12) >= 5  # padding in front shifts the real tokens by five
    torch.testing.assert_close(encoder(ids, None, mask)[:, 5:], encoder(ids[:, 5:], None, None), **TOLERANCE)


def test_sinusoids_are_vaswani_2017() -> None:
    table = bert.sinusoids(50, 6)
    for place, pair in itertools.product((0, 1, 7, 49), range(3)):
        angle = torch.tensor(place / 10000 ** (2 * pair / 6))
        torch.testing.assert_close(table[place, 2 * pair], angle.sin(), **TOLERANCE)
        torch.testing.assert_close(table[place, 2 * pair + 1], angle.cos(), **TOLERANCE)
    encoder = encoder_of(positions="sinusoidal", embedding_norm=False, num_hidden_layers=1)
    seen: list[Tensor] = []
    encoder.embedding_dropout.register_forward_hook(lambda *call: seen.append(call[-1]))
    encoder(torch.full((1, 4), 3), None, None)
    wanted = encoder.token.weight[3] + encoder.segment.weight[0] + 0.02 * bert.sinusoids(4, 16)
    torch.testing.assert_close(seen[0][0], wanted, **TOLERANCE)


def layer_parts(**options: Any) -> tuple[bert.Layer, Tensor]:
    layer = encoder_of(num_hidden_layers=1, **options).layers[0]
    assert isinstance(layer, bert.Layer)
    return layer, torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))


def test_rms_norm_is_its_formula() -> None:
    layer, x = layer_parts(norm="rms", norm_eps=1e-3)
    wanted = x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt() * layer.attention_norm.weight
    torch.testing.assert_close(layer.attention_norm(x), wanted, **TOLERANCE)
    assert [name for name, _ in layer.attention_norm.named_parameters()] == ["weight"]


@pytest.mark.parametrize(
    ("activation", "formula"), [("swiglu", lambda x: x * torch.sigmoid(x)), ("geglu", nn.GELU())]
)
def test_gated_feed_forward_is_its_formula_at_the_same_size(activation: str, formula: Any) -> None:
    layer, x = layer_parts(activation=activation)
    ff = layer.feed_forward
    (w, v), (b, c) = ff.input.weight.chunk(2), ff.input.bias.chunk(2)
    wanted = (formula(x @ w.T + b) * (x @ v.T + c)) @ ff.output.weight.T + ff.output.bias
    torch.testing.assert_close(ff(x), wanted, **TOLERANCE)
    for width in (128, 256, 512, 768, 1024):
        inner = bert.intermediate_width(Bert(hidden_size=width, activation=activation))
        assert inner % 32 == 0 and abs(3 * inner / (2 * 4 * width) - 1) < 0.1


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("relu2", lambda h: torch.where(h > 0, h * h, 0.0)),
        ("relu", lambda h: torch.where(h > 0, h, 0.0)),
        ("gelu", lambda h: h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))),
        ("gelu_tanh", lambda h: 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))),
    ],
)
def test_feed_forward_is_its_formula(activation: str, formula: Any) -> None:
    layer, x = layer_parts(activation=activation)
    ff = layer.feed_forward
    with torch.no_grad():
        ff.input.weight.mul_(50)  # so that the activation bends what it is given
    inner = x @ ff.input.weight.T + ff.input.bias
    assert inner.min() < -1 and inner.max() > 1
    torch.testing.assert_close(
        ff(x), formula(inner) @ ff.output.weight.T + ff.output.bias, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("placement", ["post", "pre"])
def test_layer_is_its_formula(placement: str) -> None:
    layer, x = layer_parts(norm_placement=placement)
    attend, norm1, feed, norm2 = (
        layer.attention,
        layer.attention_norm,
        layer.feed_forward,
        layer.feed_forward_norm,
    )
    if placement == "post":
        middle = norm1(x + attend(x, None, None))
        wanted = norm2(middle + feed(middle))
    else:
        middle = x + attend(norm1(x), None, None)
        wanted = middle + feed(norm2(middle))
    torch.testing.assert_close(layer(x, None, None), wanted, **TOLERANCE)


def test_pre_norm_ends_with_a_norm_and_post_norm_with_its_last_layer() -> None:
    for placement, norm in itertools.product(CHOICES["norm_placement"], CHOICES["norm"]):
        encoder = encoder_of(norm_placement=placement, norm=norm)
        seen: list[Tensor] = []
        encoder.layers[-1].register_forward_hook(lambda *call, seen=seen: seen.append(call[-1]))
        hidden = encoder(torch.arange(8)[None], None, None)
        assert torch.equal(hidden, encoder.final_norm(seen[0]))
        assert torch.equal(hidden, seen[0]) == (placement == "post")


def test_mean_and_max_pooling_are_over_real_tokens_and_add_no_parameters() -> None:
    hidden = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    mean, largest = encoder_of(pooling="mean"), encoder_of(pooling="max")
    torch.testing.assert_close(
        mean.pool(hidden, mask), torch.stack([hidden[0, :3].mean(0), hidden[1, 0]]), **TOLERANCE
    )
    torch.testing.assert_close(
        largest.pool(hidden, mask), torch.stack([hidden[0, :3].amax(0), hidden[1, 0]]), **TOLERANCE
    )
    assert not any("pooler" in name for name, _ in [*mean.named_parameters(), *largest.named_parameters()])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_each_dropout_acts_in_training_only(attention: str) -> None:
    none = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "embedding_dropout": 0.0}
    ids = torch.arange(1, 13)[None]
    for change in ({"hidden_dropout": 0.5}, {"attention_dropout": 0.5}, {"embedding_dropout": 0.5}, {}):
        encoder = encoder_of(attention=attention, **(none | change))
        expected = encoder_of(attention=attention, **none)(ids, None, None)
        torch.testing.assert_close(encoder(ids, None, None), expected, rtol=0, atol=0)
        torch.manual_seed(0)
        assert torch.equal(encoder.train()(ids, None, None), expected) == (not change), change
    assert encoder_of(hidden_dropout=0.3).embedding_dropout.p == 0.3


# --- initial weights ------------------------------------------------------------------------------
@settings(PROPERTY, max_examples=40)
@given(any_options)
def test_initial_weights_have_their_deviation_and_repeat(options: dict[str, Any]) -> None:
    config = Bert(hidden_size=64, num_hidden_layers=2, initializer_range=0.05, **options)
    torch.manual_seed(7)
    encoder = build(config, 500, pad_id=3)
    torch.manual_seed(7)
    again = build(config, 500, pad_id=3).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in encoder.state_dict().items())
    for name, weight in encoder.named_parameters():
        if name.endswith("query_norm.gain"):
            assert weight.item() == pytest.approx(math.log2(512**2 - 512))
        elif weight.dim() == 1:
            assert (weight == (1 if "norm.weight" in name else 0)).all(), name
        else:
            residual = name.endswith("output.weight") and config.scaled_residual_init
            wanted = 0.05 / (2 * 2) ** 0.5 if residual else 0.05
            rows = weight if name != "token.weight" else torch.cat((weight[:3], weight[4:]))
            assert rows.std().item() == pytest.approx(
                wanted, rel=0.2 if name == "segment.weight" else 0.05
            ), name
    assert (encoder.token_weight()[3] == 0).all() and encoder.token_weight() is encoder.token.weight


@pytest.mark.parametrize(
    ("layers", "width", "millions"),
    [(2, 128, 4.386), (4, 256, 11.171), (4, 512, 28.764), (8, 512, 41.373), (12, 768, 109.482)],
)
def test_parameter_counts_are_those_of_turc_2019(layers: int, width: int, millions: float) -> None:
    encoder = BertEncoder(
        Bert(hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64), 30522
    )
    assert sum(weight.numel() for weight in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)


# --- config ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hidden_size": 100, "num_attention_heads": 7},
        r"num_attention_heads=7 .*hidden_size=100.*heads=5 or .*=105"),
        ({"hidden_size": 12, "num_attention_heads": 4, "positions": "rotary"},
        r"positions=rotary.*head size 3"),
        ({"hidden_size": 15, "num_attention_heads": 3, "positions": "sinusoidal"},
        r"sinusoidal.*hidden_size=15 is odd"),
        ({"activation": "swglu"}, r"activation=swglu.*swiglu"),
        ({"hidden_dropout": 1.0}, r"hidden_dropout=1.0.*less than 1"),
        ({"num_attention_heads": 0}, r"num_attention_heads=0.*at least 1"),
        ({"norm_eps": 0.0}, "norm_eps=0.0"),
    ],
)  # fmt: skip
def test_impossible_configs_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\..*{said}"):
        validate(Bert(**options), "model")


def test_vocabulary_is_the_tokenizers_unless_a_larger_one_is_set() -> None:
    assert encoder_of(40).token_weight().shape == (40, 16)
    assert encoder_of(40, vocab_size=64).token_weight().shape == (64, 16)
    with pytest.raises(ConfigError, match=r"model\.vocab_size=30 .*40"):
        encoder_of(40, vocab_size=30)
    with pytest.raises(ConfigError, match="padding id 40"):
        build(Bert(), 40, pad_id=40)


def test_sequence_longer_than_the_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="25 tokens, but max_position_embeddings=24"):
        encoder_of()(torch.ones(1, 25, dtype=torch.int64), None, None)


def test_config_is_a_hydra_schema() -> None:
    node = OmegaConf.structured(Bert)
    assert OmegaConf.to_object(node) == Bert()


def test_an_encoder_of_one_segment_reads_pairs_all_the_same() -> None:
    """RoBERTa's and ModernBERT's have no second segment; objectives mark the second text all the same."""
    encoder = encoder_of(type_vocab_size=1)
    ids = torch.tensor([[2, 5, 3, 6, 7, 3]])
    assert torch.equal(encoder(ids, (ids > 4).long()), encoder(ids))
