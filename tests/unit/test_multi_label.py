"""The multi-label objective: scores against their definitions, the loss against torch's mean, thresholds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretraining import Rows, encode, vocabulary

from bertlab.contracts import join_examples
from bertlab.errors import ConfigError, DataError
from bertlab.objectives.multi_label import MultiLabel

NAMES = ["a", "b", "micro"]
BITS = st.lists(st.booleans(), min_size=3, max_size=3)


@given(st.lists(st.tuples(BITS, BITS), min_size=1, max_size=30))
def test_f1_follows_its_definitions(rows: list[tuple[list[bool], list[bool]]]) -> None:
    o = MultiLabel(name="multi_label").build(vocabulary(), NAMES)
    true, said = (np.asarray(side) for side in zip(*rows, strict=True))
    scores = o.scores(
        {"labels": true.astype(np.float32), "logits": np.where(said, 3.0, -3.0).astype(np.float32)}
    )

    def f1(pairs: list[tuple[bool, bool]]) -> float:
        hits = sum(t and s for t, s in pairs)
        precision, recall = hits / max(1, sum(s for _, s in pairs)), hits / max(1, sum(t for t, _ in pairs))
        return 0.0 if hits == 0 else 2 * precision * recall / (precision + recall)

    each = [f1([(t[c], s[c]) for t, s in rows]) for c in range(3)]
    assert [scores[f"f1_of_{name}"] for name in NAMES] == pytest.approx(each)
    assert scores["f1_macro"] == pytest.approx(sum(each) / 3)
    assert scores["f1_micro"] == pytest.approx(f1([(t[c], s[c]) for t, s in rows for c in range(3)]))
    assert scores["exact"] == pytest.approx(sum(t == s for t, s in rows) / len(rows))
    assert set(scores) == {metric.name for metric in o.metrics}


def test_the_loss_is_torchs_mean_over_examples_and_classes() -> None:
    o = MultiLabel(name="multi_label").build(vocabulary(), NAMES)
    rows = Rows(text=["ab", "c", "def"], labels=[[0, 2], [], [1]])
    examples = join_examples(o.prepare(rows, encode))
    batch = o.collate(examples, np.arange(3), None)
    assert batch.targets["labels"].tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    logits = torch.randn(3, 3) * 30
    loss = o.loss(logits, batch)
    expected = torch.nn.BCEWithLogitsLoss()(logits, batch.targets["labels"])
    assert float(loss.total / loss.count) == pytest.approx(float(expected), rel=1e-6)
    assert o.scores(o.measure(logits, batch))["loss"] == pytest.approx(float(expected), rel=1e-6)


def test_the_threshold_decides_what_is_predicted() -> None:
    logits = np.log(np.array([[0.3 / 0.7, 0.6 / 0.4, 1.0]], dtype=np.float64))
    for threshold, expected in ((0.25, ["a", "b", "micro"]), (0.55, ["b"]), (0.9, [])):
        o = MultiLabel(name="multi_label", threshold=threshold).build(vocabulary(), NAMES)
        (row,) = o.predictions({"logits": logits})
        assert row["labels"] == expected and row["probabilities"] == pytest.approx(
            {"a": 0.3, "b": 0.6, "micro": 0.5}
        )


def test_one_classs_f1_can_be_what_selects() -> None:
    config = MultiLabel(name="multi_label", primary="f1_of_b")
    assert config.primary_metric().name == config.build(vocabulary(), NAMES).primary.name == "f1_of_b"
    with pytest.raises(ConfigError, match="no such metric"):
        MultiLabel(name="multi_label", primary="f1_of_d").build(vocabulary(), NAMES)


def test_no_class_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="no row of the training split has a class"):
        MultiLabel(name="multi_label").build(vocabulary(), [])
