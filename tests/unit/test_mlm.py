"""Masked-language modelling: what is hidden, how often, as what; the fixed evaluation draw; scores against
their definitions.
"""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretraining import SIZE, SPECIAL, Rows, encode, vocabulary
from torch.nn import functional as F

from bertlab.contracts import Draw, examples_of, join_examples
from bertlab.errors import ConfigError, DataError
from bertlab.objectives._masking import Masking, Projection, SummedCrossEntropy, mask_batch, masked_loss
from bertlab.objectives.mlm import Mlm, block_attention

V = vocabulary()


def objective(**options: Any) -> Any:
    return Mlm(name="mlm", **options).build(V, [])


def blocks(count: int, length: int, seed: int = 0) -> np.ndarray:
    """Random rows `[CLS] … [SEP]`."""
    ids = np.random.default_rng(seed).integers(5, SIZE, size=(count, length))
    ids[:, 0], ids[:, -1] = SPECIAL.cls_id, SPECIAL.sep_id
    return ids


def test_eighty_ten_ten() -> None:
    """Devlin et al. 2019 §3.1, by a chi-squared test over 30,000 hidden tokens; replacements uniform over the
    ordinary vocabulary.
    """
    before = blocks(2000, 102)
    after = before.copy()
    positions, labels = Masking(V, "token", 0.8, 0.1).apply(after, np.arange(2000), Draw(3, 0), 0.15)
    found, true = after.flatten()[positions], before.flatten()[positions]
    assert (true == labels).all() and (
        np.delete(after.flatten(), positions) == np.delete(before.flatten(), positions)
    ).all()
    masked, kept = (found == SPECIAL.mask_id).sum(), (found == true).sum()
    changed = len(found) - masked - kept
    by_chance = 0.1 / (SIZE - 5)  # a random token that happens to be the old one
    expected = np.array([0.8, 0.1 - by_chance, 0.1 + by_chance]) * len(found)
    assert scipy.stats.chisquare([masked, changed, kept], expected).pvalue > 0.001
    drawn = found[(found != SPECIAL.mask_id) & (found != true)]
    assert drawn.min() >= 5 and scipy.stats.chisquare(np.bincount(drawn, minlength=SIZE)[5:]).pvalue > 0.001


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_every_position_is_hidden_equally_often(unit: str) -> None:
    """All words alike, so that words and spans have no reason to prefer a place; the ends of a block are
    where spans could.
    """
    ids = np.full((4000, 52), 7)
    ids[:, 0], ids[:, -1] = SPECIAL.cls_id, SPECIAL.sep_id
    positions, _ = Masking(V, unit, 1.0, 0.0).apply(ids, np.arange(4000), Draw(0, 0), 0.2)
    counts = np.bincount(positions % 52, minlength=52)
    assert counts[0] == counts[-1] == 0, "never special tokens"
    assert counts.sum() == 4000 * 10, "as many as the rate says in every block"
    middle = counts[11:41]
    assert scipy.stats.chisquare(middle).pvalue > 0.001
    if unit != "span":
        assert scipy.stats.chisquare(counts[1:-1]).pvalue > 0.001
    else:  # SpanBERT's spans start anywhere and end at the text's end: fewer cover the first positions
        assert counts[1:11].mean() > 0.5 * middle.mean()


@given(
    st.integers(0, 10_000),
    st.integers(3, 60),
    st.floats(0.01, 0.9),
    st.sampled_from(["token", "word", "span"]),
)
def test_special_tokens_are_never_hidden(seed: int, length: int, rate: float, unit: str) -> None:
    """Of single tokens exactly as many as asked for; of words and spans, see test_masking.py."""
    ids = blocks(1, length, seed)
    ids[0, np.random.default_rng(seed).random(length) < 0.1] = SPECIAL.unk_id
    ordinary = int((ids >= 5).sum())
    chosen = Masking(V, unit, 0.8, 0.1).choose(ids[0], rate, np.random.default_rng(seed))
    assert (ids[0, chosen] >= 5).all() and len(set(chosen.tolist())) == len(chosen)
    wanted = min(ordinary, max(1, round(rate * ordinary)))
    assert len(chosen) == wanted if unit == "token" else len(chosen) >= min(1, ordinary)


@given(st.integers(0, 10_000), st.floats(0.02, 0.6), st.sampled_from(["word", "span"]))
def test_words_are_hidden_whole_where_the_share_holds_one(seed: int, rate: float, unit: str) -> None:
    ids = blocks(1, 50, seed)[0]
    chosen = set(Masking(V, unit, 0.8, 0.1).choose(ids, rate, np.random.default_rng(seed)).tolist())
    words: list[list[int]] = []
    for position in range(1, 49):
        if V.continues[ids[position]] and words:
            words[-1].append(position)
        else:
            words.append([position])
    hidden = [sum(position in chosen for position in word) for word in words]
    parts = [count for count, word in zip(hidden, words, strict=True) if 0 < count < len(word)]
    whole = [count for count, word in zip(hidden, words, strict=True) if count == len(word)]
    assert not parts or (len(parts) <= 2 and not whole and sum(parts) <= rate * 48 + 1)


def test_spans_are_longer_than_words() -> None:
    ids = np.full(202, 7)
    ids[0], ids[-1] = SPECIAL.cls_id, SPECIAL.sep_id
    runs: dict[str, list[int]] = {"word": [], "span": []}
    for unit, lengths in runs.items():
        for seed in range(200):
            chosen = np.sort(Masking(V, unit, 0.8, 0.1).choose(ids, 0.15, np.random.default_rng(seed)))
            lengths += [len(run) for run in np.split(chosen, np.flatnonzero(np.diff(chosen) > 1) + 1)]
    assert np.mean(runs["word"]) < 1.3 < 2.5 < np.mean(runs["span"])


def test_span_lengths_are_those_of_spanbert() -> None:
    """Joshi et al. 2020, §3.1: geometric with p = 0.2, at most 10 words, 3.8 on average."""
    drawn = [len(span) for span in Masking._spans(100_000, np.random.default_rng(0))][:20_000]
    lengths = np.bincount(drawn, minlength=11)[1:11]
    assert np.mean(drawn) == pytest.approx(3.8, abs=0.05) and max(drawn) == 10
    expected = 0.8 ** np.arange(10)
    assert scipy.stats.chisquare(lengths, expected / expected.sum() * lengths.sum()).pvalue > 0.001


def test_masks_are_keyed_by_seed_epoch_and_example() -> None:
    """Neither the order of a batch nor its company changes what is hidden; another epoch or seed does."""
    o = objective(max_length=32)
    examples = join_examples(o.prepare(Rows(text=["abcdefghijklmnopqrstuvwxyz" * 9]), encode))
    whole = o.collate(examples, np.arange(8), Draw(1, 2))
    part = o.collate(examples, np.array([5, 3]), Draw(1, 2))
    assert torch.equal(part.input_ids, whole.input_ids[[5, 3]])
    for other in (Draw(1, 3), Draw(2, 2)):
        assert not torch.equal(o.collate(examples, np.arange(8), other).input_ids, whole.input_ids)
    fixed = o.collate(examples, np.arange(8), None)
    again = objective(max_length=32, rate=0.4, unit="span", mask_share=1.0, random_share=0.0).collate(
        examples, np.arange(8), None
    )
    assert torch.equal(fixed.input_ids, again.input_ids), (
        "evaluation hides the same tokens whatever the training hides"
    )


def test_the_rate_moves_on_a_straight_line() -> None:
    o = objective(rate=0.1, final_rate=0.5)
    ids = blocks(20, 102)
    made = [
        mask_batch(o.config, o.training, o.scoring, ids.copy(), np.arange(20), Draw(0, 0, progress))
        for progress in (0.0, 0.5, 1.0)
    ]
    assert [len(targets["label"]) for targets, _ in made] == [200, 600, 1000]
    assert [counts["masked_share"] for _, counts in made] == [(200, 2000), (600, 2000), (1000, 2000)]


def test_attention_can_stop_at_documents() -> None:
    ids = np.array([[2, 7, 8, 3, 9, 3, 0]])
    seen = block_attention(ids, ids != 0, SPECIAL.sep_id)[0]
    assert seen[1].tolist() == [True, True, True, True, False, False, False]
    assert seen[4].tolist() == [False, False, False, False, True, True, False]
    batch = objective(max_length=8, attend_across=False).collate(
        join_examples(objective(max_length=8).prepare(Rows(text=["abc", "de"]), encode)), np.array([0]), None
    )
    assert batch.attention_mask is not None and batch.attention_mask.shape == (1, 8, 8)


def test_metrics_by_hand() -> None:
    o = objective()
    measured = {
        "nats": np.array([2.0, 4.0]), "right": np.array([1.0, 0.0]), "masked": np.array([2.0, 1.0]),
        "characters": np.array([5.0, 3.0]),
    }  # fmt: skip
    found = o.scores(measured)
    assert found == {
        "loss": 2.0, "masked_accuracy": pytest.approx(1 / 3), "perplexity": pytest.approx(math.e**2),
        "bits_per_character": pytest.approx(6 / math.log(2) / 8),
    }  # fmt: skip


def test_measured_rows_are_those_of_each_example() -> None:
    """Uniform logits: every masked token costs log V nats, whichever batch it is in."""
    o = objective(max_length=16)
    examples = join_examples(o.prepare(Rows(text=["a1bc2defg", "hij"]), encode))
    batch = o.collate(examples, np.arange(len(examples)), None)
    found = o.measure(torch.zeros(len(batch.targets["label"]), SIZE), batch)
    assert found["nats"] == pytest.approx(found["masked"] * math.log(SIZE))
    assert found["characters"].sum() == V.characters[batch.targets["label"].numpy()].sum()
    assert o.loss(torch.zeros(len(batch.targets["label"]), SIZE), batch).total.item() == pytest.approx(
        found["nats"].sum(), rel=1e-5
    )


def test_a_block_without_an_ordinary_token_costs_nothing() -> None:
    o = objective(max_length=8, packing="documents")
    batch = o.collate(
        join_examples(o.prepare(Rows(text=["?", "a"]), lambda _: [[1], [5]])), np.array([0]), Draw(0, 0)
    )
    loss = o.loss(torch.zeros(0, SIZE, requires_grad=True), batch)
    assert len(batch.targets["label"]) == 0 and loss.total.item() == 0 and loss.count == 0


def test_texts_without_tokens_are_refused() -> None:
    with pytest.raises(DataError, match="no text"):
        list(objective().prepare(Rows(text=["", " "]), encode))


def test_a_split_without_anything_to_mask_has_no_score() -> None:
    o = objective(max_length=8)
    with pytest.raises(DataError, match="nothing but special"):
        list(o.prepare(Rows(text=["?"]), lambda _: [[1, 3, 4]]))
    with pytest.raises(DataError, match="nothing but special"):
        o.scores({name: np.zeros(2) for name in ("nats", "right", "masked", "characters")})


@given(st.lists(st.integers(3, 40), min_size=1, max_size=4), st.integers(8, 20), st.booleans())
def test_folded_rows_are_the_same_tokens_with_the_same_ones_hidden(
    lengths: list[int], length: int, across: bool
) -> None:
    rng = np.random.default_rng(1)
    found = examples_of([[2, *rng.integers(5, SIZE, size=count), 3] for count in lengths])
    ours, rows = objective(attend_across=across), np.arange(len(lengths))
    whole, short = (ours.collate(found, rows, Draw(3, 1, 0.0, cut)) for cut in (None, length))
    assert short.input_ids.shape[1] <= max(length, 8) and whole.num_tokens == short.num_tokens == int(
        found.lengths.sum()
    )
    assert torch.equal(whole.targets["label"], short.targets["label"]) and whole.counts == short.counts
    real = [batch.input_ids[batch.input_ids != SPECIAL.pad_id] for batch in (whole, short)]
    assert torch.equal(*real), "in order"
    hidden = [
        torch.zeros(batch.input_ids.numel(), dtype=torch.bool).index_fill(0, batch.targets["masked"], True)
        for batch in (whole, short)
    ]
    flat = [
        one[batch.input_ids.flatten() != SPECIAL.pad_id]
        for one, batch in zip(hidden, (whole, short), strict=True)
    ]
    assert torch.equal(*flat), "at the same places"
    if short.attention_mask is not None and across:
        assert (
            torch.equal(short.attention_mask, short.input_ids != SPECIAL.pad_id)
            and short.attention_mask.any(1).all()
        )


def test_shares_of_more_than_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective\.mask_share"):
        Mlm(name="mlm", mask_share=0.95, random_share=0.1).check("objective")


@pytest.mark.parametrize(("softcap", "z_weight"), [(None, 0.0), (None, 1e-2), (5.0, 0.0), (5.0, 1e-2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_cross_entropy_with_its_own_gradients_equals_torchs(
    dtype: torch.dtype, softcap: float | None, z_weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row counts on both sides of a part's and of a block's size; extreme logits too. Capped as Gemma 2, with
    PaLM's z-loss.
    """
    monkeypatch.setattr(SummedCrossEntropy, "BLOCK", 32)
    torch.manual_seed(0)
    kept = torch.promote_types(dtype, torch.float32)
    for count in (1, 16, 37, 70):
        hidden, label = torch.randn(count, 8).to(dtype), torch.randint(101, (count,))
        weight, bias = (10 * torch.randn(101, 8)).to(dtype).to(kept), torch.randn(101).to(dtype).to(kept)
        ours = [part.clone().requires_grad_() for part in (hidden, weight, bias)]
        theirs = [part.to(kept, copy=True).requires_grad_() for part in (hidden, weight, bias)]
        total = SummedCrossEntropy.apply(*ours, label, softcap, z_weight)
        logits = F.linear(*theirs) if softcap is None else softcap * torch.tanh(F.linear(*theirs) / softcap)
        expected = (
            F.cross_entropy(logits, label, reduction="sum") + z_weight * logits.logsumexp(-1).square().sum()
        )
        (total / count).backward()
        (expected / count).backward()
        narrow = dtype == torch.bfloat16
        assert torch.allclose(total, expected, rtol=1e-2 if narrow else 1e-6)
        for our, their in zip(ours, theirs, strict=True):
            assert our.grad is not None and their.grad is not None and our.grad.dtype == our.dtype
            scale = float(their.grad.abs().max())
            assert torch.allclose(our.grad.to(kept), their.grad, atol=scale * (3e-2 if narrow else 1e-6))


def test_training_never_holds_the_logits_and_learns_from_the_same_gradients() -> None:
    """What the head returns for training gives the loss and gradients that its logits would give."""
    hidden, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((5, 8), (11, 8), (11,)))
    lazy = Projection(hidden, weight, bias, softcap=3.0).deferred()
    assert isinstance(lazy, Projection)
    with torch.no_grad():
        assert isinstance(lazy.deferred(), torch.Tensor)
    batch = SimpleNamespace(targets={"label": torch.tensor([0, 3, 10, 3, 5])})
    gradients = []
    for logits in (lazy, lazy.logits()):
        loss = masked_loss(logits, batch, z_weight=0.1)  # type: ignore[arg-type]
        gradients.append(torch.autograd.grad(loss.total / loss.count, [hidden, weight, bias]))
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_second_backward_pass_is_refused() -> None:
    hidden, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((5, 8), (11, 8), (11,)))
    total = SummedCrossEntropy.apply(hidden, weight, bias, torch.zeros(5, dtype=torch.int64))
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()
