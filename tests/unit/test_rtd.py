"""Replaced-token detection: the encoder reads samples of the generator, labels are what changed, both parts
learn.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pretraining import SIZE, Rows, encode, vocabulary

from bertlab.config.schema import ModelConfig
from bertlab.contracts import Draw, Encoder, join_examples
from bertlab.errors import ConfigError
from bertlab.models.bert import Bert
from bertlab.models.bert import build as build_bert
from bertlab.objectives.rtd import Rtd
from bertlab.training.assembly import Model


def setup(**options: Any) -> tuple[Any, Any, Any]:
    """Objective, model, batch."""
    torch.manual_seed(0)
    objective = Rtd(name="rtd", max_length=24, **options).build(vocabulary(), [])
    config = Bert(
        hidden_size=32, num_attention_heads=4, num_hidden_layers=2, hidden_dropout=0.0, attention_dropout=0.0
    )
    encoder = build_bert(config, SIZE)
    examples = join_examples(
        objective.prepare(Rows(text=["abcdefghijklmnopqrstuvwxyz0123456789" * 6]), encode)
    )
    return (
        objective,
        Model(encoder, objective.build_head(encoder, 0.02)),
        objective.collate(examples, np.arange(len(examples)), Draw(0, 0)),
    )


def test_the_encoder_reads_samples_at_the_masked_positions_alone() -> None:
    _, model, batch = setup()
    before = batch.input_ids.flatten()
    assert (before[batch.targets["masked"]] == 4).all(), "the generator sees masks"
    read = model.head.rewrite(model.encoder, batch)
    after = read.input_ids.flatten()
    others = torch.ones_like(before, dtype=torch.bool)
    others[batch.targets["masked"]] = False
    assert torch.equal(before[others], after[others])
    replaced = read.targets["replaced"].flatten()
    assert torch.equal(
        replaced[batch.targets["masked"]], after[batch.targets["masked"]] != batch.targets["label"]
    )
    assert not replaced[others].any()


def test_samples_follow_the_generators_distribution() -> None:
    _, model, batch = setup()
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2] + [1e-9] * (SIZE - 3)))
    count = 20_000
    batch.targets = {"masked": torch.arange(count), "label": torch.zeros(count, dtype=torch.int64),
                     "uniform": torch.rand(count, generator=torch.Generator().manual_seed(1))}  # fmt: skip
    batch.input_ids = torch.full((1, count), 4)
    batch.attention_mask = batch.segment_ids = None
    model.head.generator.forward = lambda *_: torch.zeros(1, count, 8)
    model.head.generator_head.projection = lambda *_: SimpleNamespace(logits=lambda: logits.expand(count, -1))
    sampled = model.head.rewrite(model.encoder, batch).input_ids.flatten()
    shares = torch.bincount(sampled, minlength=3)[:3] / count
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.012, rtol=0)


def test_both_parts_learn_and_share_the_token_embedding() -> None:
    objective, model, batch = setup()
    names = [name for name, _ in model.named_parameters()]
    assert (
        not any("generator.token.weight" in name for name in names)
        and sum("encoder.token.weight" in name for name in names) == 1
    )
    assert model.head.generator.hidden_size == 8 and len(model.head.generator.layers) == 2
    loss = objective.loss(model(batch), batch)
    (loss.total / loss.count).backward()
    for name, weight in model.named_parameters():
        if "pooler" not in name and "position" not in name:
            assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_loss_is_the_weighted_sum_of_both() -> None:
    objective, model, batch = setup(detection_weight=7.0)
    outputs = model(batch)
    outputs.generated, outputs.detected = (
        torch.zeros_like(outputs.generated),
        torch.zeros_like(outputs.detected),
    )
    loss = objective.loss(outputs, batch)
    assert (loss.total / loss.count).item() == pytest.approx(np.log(SIZE) + 7 * np.log(2), rel=1e-5)
    found = objective.scores(objective.measure(outputs, batch))
    assert found["loss"] == pytest.approx(np.log(2)) and found["generator_loss"] == pytest.approx(
        np.log(SIZE), rel=1e-5
    )
    assert found["detection_recall"] == 0 and 0.5 < found["detection_accuracy"] < 1


def test_scoring_samples_the_same_every_time() -> None:
    objective, model, _ = setup()
    examples = join_examples(objective.prepare(Rows(text=["abcdefghijklmnop" * 6]), encode))
    model.eval()
    first, again = (
        model(objective.collate(examples, np.arange(len(examples)), None)).replaced for _ in range(2)
    )
    assert torch.equal(first, again)


def test_a_model_without_a_narrower_copy_is_refused() -> None:
    objective, _, _ = setup()
    with pytest.raises(ConfigError, match="objective=rtd"):
        objective.build_head(Encoder(ModelConfig(name="mine")), 0.02)
