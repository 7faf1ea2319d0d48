"""The embedding objective: rows of a batch, the contrastive loss against its definition, correlations of
cosines.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from pretraining import Rows, encode, vocabulary
from scipy import stats

from bertlab.config.schema import validate
from bertlab.contracts import Draw, Examples, join_examples
from bertlab.errors import ConfigError
from bertlab.objectives.embedding import Embedding, EmbeddingObjective, places_of_partners

ROWS = Rows(text=["a", "bc", "d"], text_pair=["ef", "g", "h"], number=[5.0, 1.0, 4.0])


def made(**options: Any) -> tuple[EmbeddingObjective, Examples]:
    objective = Embedding(name="embedding", **options).build(vocabulary(), ())
    return objective, join_examples(objective.prepare(ROWS, encode))


def test_a_pair_is_two_rows_and_dropout_sees_both_twice() -> None:
    objective, examples = made()
    first = [[2, 5, 3, 0], [2, 6, 7, 3]]
    second = [[2, 9, 10, 3], [2, 11, 3, 0]]
    assert objective.collate(examples, np.array([0, 1]), None).input_ids.tolist() == first + second
    training = objective.collate(examples, np.array([0, 1]), Draw(0, 0))
    assert training.input_ids.tolist() == (first + second) * 2 and training.num_examples == 2
    paired, _ = made(views="pairs", positive_from=4)
    assert paired.collate(examples, np.array([0, 1]), Draw(0, 0)).input_ids.tolist() == first + second


def by_hand(one: np.ndarray, other: np.ndarray, positives: list[int], temperature: float) -> float:
    """Mean of both directions, summed over positives, by loops."""
    total = 0.0
    for rows, columns in ((one, other), (other, one)):
        for i in positives:
            cosines = [
                float(rows[i] @ column / np.linalg.norm(rows[i]) / np.linalg.norm(column)) / temperature
                for column in columns
            ]
            total -= cosines[i] - math.log(sum(map(math.exp, cosines)))
    return total / 2


@pytest.mark.parametrize(
    ("options", "positives"), [({}, range(6)), ({"views": "pairs", "positive_from": 4}, [0, 2])]
)
def test_the_loss_is_that_of_its_definition(options: dict[str, Any], positives: Any) -> None:
    objective, examples = made(temperature=0.2, **options)
    batch = objective.collate(examples, np.arange(3), Draw(0, 0))
    outputs = torch.randn(len(batch.input_ids), 4)
    loss = objective.loss(outputs, batch)
    one, other = np.split(outputs.numpy().astype(float), 2)
    assert float(loss.total) == pytest.approx(
        by_hand(one, other, list(positives), 0.2), rel=1e-5
    ) and loss.count == len(positives)


def test_a_text_is_no_negative_of_itself() -> None:
    objective, _ = made(temperature=1.0)
    twice = join_examples(objective.prepare(Rows(text=["a", "a"], text_pair=["b", "c"]), encode))
    batch = objective.collate(twice, np.arange(2), Draw(0, 0))
    outputs = torch.randn(4, 4).repeat(2, 1)
    outputs[1], outputs[5] = outputs[0], outputs[4]  # the same text twice
    alone = [0, 2, 3]
    one, other = (half.numpy().astype(float)[alone] for half in outputs.chunk(2))
    expected = 0.0
    for i, count in ((0, 2), (1, 1), (2, 1)):  # a's row stands twice; b and c see it twice
        for rows, columns in ((one, other), (other, one)):
            cosines = [
                float(rows[i] @ column / np.linalg.norm(rows[i]) / np.linalg.norm(column))
                for column in columns
            ]
            weights = [2 if i and column == 0 else 1 for column in range(3)]
            expected -= (
                count
                * (cosines[i] - math.log(sum(w * math.exp(c) for w, c in zip(weights, cosines, strict=True))))
                / 2
            )
    assert float(objective.loss(outputs, batch).total) == pytest.approx(expected, rel=1e-5)


def test_scores_are_correlations_of_cosines() -> None:
    objective, examples = made()
    outputs = torch.randn(6, 5)
    measured = objective.measure(outputs, objective.collate(examples, np.arange(3), None))
    cosines = torch.nn.functional.cosine_similarity(outputs[:3], outputs[3:]).numpy()
    assert [row["cosine"] for row in objective.predictions(measured)] == pytest.approx(
        list(cosines), rel=1e-5
    )
    assert objective.scores(measured) == pytest.approx(
        {
            "spearman": stats.spearmanr(cosines, ROWS["number"]).statistic,
            "pearson": stats.pearsonr(cosines, ROWS["number"]).statistic,
        }
    )


def test_what_a_positive_is_must_be_said() -> None:
    with pytest.raises(ConfigError, match=r"objective.views=pairs needs objective.positive_from"):
        validate(Embedding(name="embedding", views="pairs"), "objective")
    with pytest.raises(
        ConfigError, match=r"objective.positive_from=4 has no meaning without objective.views=pairs"
    ):
        validate(Embedding(name="embedding", positive_from=4), "objective")


def test_recall_is_the_share_of_partners_among_the_nearest() -> None:
    """Against a loop; a second text that stands twice is one, one that is as near counts half."""
    rng = np.random.default_rng(0)
    count = 30
    names = [f"{chr(97 + index % 20)}{chr(97 + index // 20)}" for index in range(count)]
    rows = Rows(
        text=names, text_pair=[*names[:-1], names[0]], number=[float(index % 3) for index in range(count)]
    )
    objective = Embedding(name="embedding", relevant_from=1.0).build(vocabulary(), ())
    examples = join_examples(objective.prepare(rows, encode))
    one = rng.normal(size=(count, 6)).astype(np.float32)
    other = (one + rng.normal(size=(count, 6))).astype(np.float32)
    other[-1] = other[0]  # the same text
    batch = objective.collate(examples, np.arange(count), None)
    scores = objective.scores(objective.measure(torch.from_numpy(np.concatenate([one, other])), batch))
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (one, other)]
    for k in (1, 5, 10):
        hits = []
        for query in range(count):
            if rows["number"][query] >= 1.0:
                cosines = unit[0][query] @ unit[1][:-1].T
                mine = cosines[0 if query == count - 1 else query]
                hits.append(sorted(cosines, reverse=True).index(mine) < k)
        assert scores[f"recall_at_{k}"] == pytest.approx(np.mean(hits)), k
    assert [metric.name for metric in objective.metrics[2:]] == ["recall_at_1", "recall_at_5", "recall_at_10"]
    same = places_of_partners(np.ones((3, 2)), np.ones((3, 2)), np.arange(3), np.arange(3))
    assert same.tolist() == [1, 1, 1], "vectors that are all alike find nothing first"


def test_without_a_partner_to_find_there_is_no_recall() -> None:
    objective, examples = made(relevant_from=9.0)
    measured = objective.measure(torch.randn(6, 5), objective.collate(examples, np.arange(3), None))
    assert set(objective.scores(measured)) == {"spearman", "pearson"}
    assert [metric.name for metric in made()[0].metrics] == ["spearman", "pearson"]
