"""Pretraining heads are Hugging Face's: logits, both losses and every gradient of BertForPreTraining and
BertForMaskedLM.
"""

from typing import Any

import numpy as np
import pytest
import torch
from encoders import PROPERTY, TOLERANCE, Case, cases, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bertlab.contracts import Batch, Special, Vocabulary
from bertlab.models import _bert_hf
from bertlab.models.bert import build
from bertlab.objectives import mlm, mlm_nsp, nsp, tagging
from bertlab.training.assembly import Model

transformers = pytest.importorskip("transformers")


def vocabulary(size: int) -> Vocabulary:
    return Vocabulary(
        Special(0, 1, 2, 3, 4), np.zeros(size, dtype=bool), np.ones(size, dtype=np.int64), np.arange(size) < 5
    )


def head_state(theirs: nn.Module, names: dict[str, str], values: dict[str, Tensor]) -> dict[str, Tensor]:
    """A head's weights (or gradients) under our names."""
    found = {}
    for ours, name in names.items():
        for key, value in values.items():
            if key == name or key.startswith(f"{name}."):
                found[ours + key.removeprefix(name)] = value
    assert found, theirs
    return found


def case_batch(case: Case) -> tuple[Batch, Tensor, Tensor]:
    """A batch with masked positions, and Hugging Face's labels: `(B, T)`, -100 = not masked, and `(B,)`."""
    config, vocab, pad_id, lengths, seed = case
    generator = torch.Generator().manual_seed(seed)
    inside = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(vocab, inside.shape, generator=generator).masked_fill(~inside, pad_id)
    segments = torch.randint(config.type_vocab_size, inside.shape, generator=generator)
    chosen = (torch.rand(inside.shape, generator=generator) < 0.4) & inside
    chosen[0, 0] = True
    labels = torch.where(chosen, torch.randint(vocab, inside.shape, generator=generator), -100)
    follows = torch.randint(2, (len(lengths),), generator=generator)
    masked = chosen.flatten().nonzero()[:, 0]
    targets = {"masked": masked, "label": labels.flatten()[masked], "next": follows}
    return Batch(ids, segments, inside, targets, int(inside.sum()), len(lengths)), labels, follows


def pair_of(case: Case, kind: Any, objective: Any, names: dict[str, str]) -> tuple[Model, nn.Module]:
    """Our model with their weights, and theirs."""
    config, vocab, pad_id, _, seed = case
    theirs = kind(transformers.BertConfig(**_bert_hf.to_hf_config(config, vocab, pad_id))).eval()
    random_weights(theirs, seed)
    encoder = build(config, vocab, pad_id)
    ours = Model(encoder, objective.build_head(encoder, 0.02)).eval()
    encoder.load_state_dict(
        _bert_hf.from_hf_state(config, theirs.state_dict(), allow_missing_pooler=True), strict=False
    )
    ours.head.load_state_dict(head_state(theirs, names, theirs.state_dict()))
    return ours, theirs


def assert_gradients_equal(case: Case, ours: Model, theirs: nn.Module, names: dict[str, str]) -> None:
    gradients = {name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None}
    wanted = {
        f"encoder.{name}": value
        for name, value in _bert_hf.from_hf_state(case[0], gradients, allow_missing_pooler=True).items()
    }
    wanted |= {f"head.{name}": value for name, value in head_state(theirs, names, gradients).items()}
    found = {name: weight.grad for name, weight in ours.named_parameters() if weight.grad is not None}
    assert found.keys() == wanted.keys()
    largest = max(value.abs().max().item() for value in wanted.values())
    for name, value in wanted.items():
        allowed = max(1e-5 * value.abs().max().item(), 1e-6 * largest)
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=allowed, msg=lambda text, name=name: f"{name}: {text}"
        )


NAMES = {**{f"tokens.{ours}": theirs for ours, theirs in mlm.HF_NAMES.items() if ours != "decoder"},
         **{f"pairs.{ours}": theirs for ours, theirs in nsp.HF_NAMES.items()}}  # fmt: skip


@settings(PROPERTY, max_examples=40)
@given(cases())
def test_joint_pretraining_equals_bert_for_pretraining(case: Case) -> None:
    objective = mlm_nsp.MlmNsp(name="mlm_nsp").build(vocabulary(case[1]), [])
    # sums that cancel tell nothing
    ours, theirs = (one.double() for one in pair_of(case, transformers.BertForPreTraining, objective, NAMES))
    batch, labels, follows = case_batch(case)
    expected = theirs(
        input_ids=batch.input_ids, token_type_ids=batch.segment_ids,
        attention_mask=batch.attention_mask.long(), labels=labels,
        next_sentence_label=follows,
    )  # fmt: skip
    outputs = ours(batch)
    torch.testing.assert_close(
        outputs[0].logits(), expected.prediction_logits.flatten(0, 1)[batch.targets["masked"]], **TOLERANCE
    )
    torch.testing.assert_close(outputs[1], expected.seq_relationship_logits, **TOLERANCE)
    loss = objective.loss(outputs, batch)
    torch.testing.assert_close(loss.total / loss.count, expected.loss, **TOLERANCE)
    (loss.total / loss.count).backward()
    expected.loss.backward()
    assert_gradients_equal(case, ours, theirs, NAMES)


@settings(PROPERTY, max_examples=20)
@given(cases())
def test_masked_modelling_equals_bert_for_masked_lm(case: Case) -> None:
    objective = mlm.Mlm(name="mlm").build(vocabulary(case[1]), [])
    names = {ours: theirs for ours, theirs in mlm.HF_NAMES.items() if ours != "decoder"}
    ours, theirs = pair_of(case, transformers.BertForMaskedLM, objective, names)
    batch, labels, _ = case_batch(case)
    expected = theirs(
        input_ids=batch.input_ids,
        token_type_ids=batch.segment_ids,
        attention_mask=batch.attention_mask.long(),
        labels=labels,
    )
    loss = objective.loss(ours(batch), batch)
    torch.testing.assert_close(loss.total / loss.count, expected.loss, **TOLERANCE)


@settings(PROPERTY, max_examples=20)
@given(cases(), st.integers(1, 9))
def test_tagging_equals_bert_for_token_classification(case: Case, tags: int) -> None:
    config, vocab, pad_id, _, seed = case
    objective = tagging.Tagging(name="tagging").build(
        vocabulary(vocab), [f"T{index}" for index in range(tags)]
    )
    theirs = transformers.BertForTokenClassification(
        transformers.BertConfig(**_bert_hf.to_hf_config(config, vocab, pad_id), num_labels=tags)
    ).eval()
    random_weights(theirs, seed)
    encoder = build(config, vocab, pad_id)
    ours = Model(encoder, objective.build_head(encoder, 0.02)).eval()
    encoder.load_state_dict(
        _bert_hf.from_hf_state(config, theirs.state_dict(), allow_missing_pooler=True), strict=False
    )
    ours.head.load_state_dict(
        head_state(theirs, dict(tagging.Tagging(name="tagging").hf_head().names), theirs.state_dict())
    )
    batch, labels, _ = case_batch(case)
    labels = labels.clamp(max=tags - 1)
    batch.targets["tag"] = labels
    expected = theirs(
        input_ids=batch.input_ids,
        token_type_ids=batch.segment_ids,
        attention_mask=batch.attention_mask.long(),
        labels=labels,
    )
    loss = objective.loss(ours(batch), batch)
    torch.testing.assert_close(loss.total / loss.count, expected.loss, **TOLERANCE)


def test_an_untied_decoder_is_a_matrix_of_its_own() -> None:
    from bertlab.models.bert import Bert

    encoder = build(Bert(hidden_size=8, num_attention_heads=1, num_hidden_layers=1, tie_embeddings=False), 30)
    head = mlm.MlmHead(encoder, 0.02)
    assert (
        head.decoder is not None
        and head.decoder.weight.shape == (30, 8)
        and head.decoder.weight is not encoder.token_weight()
    )
