"""Masked next-token prediction: predicted from the position before, causal examples see nothing ahead,
examples weigh alike.
"""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretraining import SIZE, SPECIAL, vocabulary
from torch.nn import functional as F

from bertlab.contracts import Batch, Draw, Examples, examples_of
from bertlab.models.bert import Bert, build
from bertlab.objectives.mlm import Mlm
from bertlab.objectives.mntp import Mntp
from bertlab.training.assembly import Model

V = vocabulary()


def objective(**options: Any) -> Any:
    return Mntp(name="mntp", **options).build(V, [])


def examples(lengths: list[int], seed: int = 0) -> Examples:
    """Blocks `[CLS] … [SEP]` with separators and unknown tokens within."""
    rng = np.random.default_rng(seed)
    rows = [
        [SPECIAL.cls_id, *rng.integers(5, SIZE, size=length).tolist(), SPECIAL.sep_id] for length in lengths
    ]
    for row in rows:
        row[len(row) // 2] = SPECIAL.sep_id
    return examples_of(rows)


def model_for(objective: Any) -> Model:
    torch.manual_seed(0)
    encoder = build(Bert(hidden_size=16, num_attention_heads=2, max_position_embeddings=40), SIZE)
    return Model(encoder, objective.build_head(encoder, 0.5)).eval()


@given(st.lists(st.integers(3, 30), min_size=1, max_size=5), st.booleans())
def test_without_causal_examples_masks_are_those_of_mlm_and_predicted_one_earlier(
    lengths: list[int], across: bool
) -> None:
    rows, found = np.arange(len(lengths)), examples(lengths)
    ours, theirs = objective(attend_across=across), Mlm(name="mlm", attend_across=across).build(V, [])
    for draw in (None, Draw(3, 1)):
        batch, plain = ours.collate(found, rows, draw), theirs.collate(found, rows, draw)
        assert torch.equal(batch.input_ids, plain.input_ids) and torch.equal(
            batch.targets["label"], plain.targets["label"]
        )
        assert torch.equal(batch.targets["masked"] + 1, plain.targets["masked"]) and not len(
            batch.targets["following"]
        )
        assert (batch.attention_mask is None) == (plain.attention_mask is None)
        assert batch.attention_mask is None or torch.equal(batch.attention_mask, plain.attention_mask)
        assert (batch.num_tokens, batch.num_examples) == (plain.num_tokens, plain.num_examples)
        assert ours.show(batch, str) == theirs.show(plain, str)
        outputs = torch.randn(len(batch.targets["label"]), SIZE)
        assert torch.equal(ours.loss(outputs, batch).total, theirs.loss(outputs, plain).total)
        assert all(
            (ours.measure(outputs, batch)[name] == value).all()
            for name, value in theirs.measure(outputs, plain).items()
        )


@given(st.lists(st.integers(3, 30), min_size=1, max_size=5), st.booleans())
def test_causal_examples_predict_every_next_word_and_hide_none(lengths: list[int], across: bool) -> None:
    found = examples(lengths)
    batch = objective(causal_share=1.0, attend_across=across).collate(
        found, np.arange(len(lengths)), Draw(3, 1)
    )
    wanted = [
        (row * batch.input_ids.shape[1] + place - 1, int(token))
        for row in range(len(lengths))
        for place, token in enumerate(found[row])
        if token >= 5
    ]
    assert (
        list(zip(batch.targets["masked"].tolist(), batch.targets["following"].tolist(), strict=True))
        == wanted
    )
    assert not len(batch.targets["label"]) and not (batch.input_ids == SPECIAL.mask_id).any()


@pytest.mark.parametrize("across", [True, False])
def test_a_causal_prediction_does_not_see_what_it_predicts(across: bool) -> None:
    """By the gradient of each prediction to the tokens' vectors: none to the token predicted, or to those
    after it.
    """
    found, ours = examples([20, 9]), objective(causal_share=1.0, attend_across=across)
    batch, model = ours.collate(found, np.arange(2), Draw(3, 1)), model_for(ours)
    seen: list[torch.Tensor] = []
    model.encoder.get_submodule("embedding_dropout").register_forward_hook(
        lambda *call: seen.append(call[-1].retain_grad() or call[-1])
    )
    logits = model(batch)
    logits = logits if isinstance(logits, torch.Tensor) else logits.logits()
    width = batch.input_ids.shape[1]
    for number, place in enumerate(batch.targets["masked"].tolist()):
        seen.clear()
        logits = model(batch).logits()
        logits[number].square().sum().backward()
        reached = (seen[0].grad.abs().sum(-1).flatten() > 0).nonzero()[:, 0].tolist()
        own = place // width * width
        assert reached and own <= min(reached) and max(reached) == place


def test_rows_are_drawn_by_seed_epoch_and_row_alone() -> None:
    found, ours = examples([12] * 400), objective(causal_share=0.3)

    def causal(rows: np.ndarray, draw: Draw) -> list[int]:
        batch = ours.collate(found, rows, draw)
        width = batch.input_ids.shape[1]
        positions = batch.targets["masked"][len(batch.targets["label"]) :]
        return sorted({int(rows[place]) for place in (positions // width).tolist()})

    whole = causal(np.arange(400), Draw(1, 0))
    assert whole == causal(np.arange(200), Draw(1, 0)) + causal(np.arange(399, 199, -1), Draw(1, 0))
    assert whole != causal(np.arange(400), Draw(1, 1)) and abs(len(whole) / 400 - 0.3) < 0.08
    batch = ours.collate(found, np.arange(400), Draw(1, 0))
    assert batch.counts["causal_share"] == (float(len(whole)), 400.0)
    mixed = batch.attention_mask
    assert mixed is not None and mixed.shape == (400, 14, 14)
    assert all(bool(mixed[row].all()) != (row in whole) for row in range(400))
    assert batch.input_ids[whole].tolist() == [found[row].tolist() for row in whole], (
        "nothing is hidden where it is read causally"
    )
    assert ours.collate(found, np.arange(400), None).attention_mask is None, "scored from both sides"


def test_loss_is_its_formula_and_examples_weigh_about_alike() -> None:
    found = examples([12] * 40)
    for options, weight in (({}, 0.2), ({"causal_weight": 0.7}, 0.7)):
        ours = objective(causal_share=0.5, rate=0.2, z_loss=0.1, **options)
        batch = ours.collate(found, np.arange(40), Draw(1, 0))
        masked, following = batch.targets["label"], batch.targets["following"]
        outputs = torch.randn(len(masked) + len(following), SIZE)
        nats = (
            F.cross_entropy(outputs, torch.cat((masked, following)), reduction="none")
            + 0.1 * outputs.exp().sum(-1).log() ** 2
        )
        loss = ours.loss(outputs, batch)
        assert torch.allclose(loss.total, nats[: len(masked)].sum() + weight * nats[len(masked) :].sum())
        assert loss.count == pytest.approx(len(masked) + weight * len(following))
    deferred = model_for(ours)(batch)
    assert torch.allclose(ours.loss(deferred, batch).total, ours.loss(deferred.logits(), batch).total)


def test_micro_batches_add_up() -> None:
    found, ours = examples([12] * 40), objective(causal_share=0.5)
    model = model_for(ours)
    losses: list[Any] = []
    for parts in ([np.arange(40)], [np.arange(7), np.arange(7, 40)]):
        batches: list[Batch] = [ours.collate(found, part, Draw(1, 0)) for part in parts]
        each = [ours.loss(model(batch), batch) for batch in batches]
        losses.append((sum(loss.total.item() for loss in each), sum(loss.count for loss in each)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
