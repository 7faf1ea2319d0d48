"""Sentence pairs: half of each class, partners from elsewhere, whole sentences, lengths as in Devlin et al.
2019 §A.2.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretraining import SIZE, SPECIAL, Rows, encode, vocabulary

from bertlab.contracts import Draw, Examples, join_examples
from bertlab.errors import DataError
from bertlab.objectives import mlm_nsp, nsp, sop

V = vocabulary()
# Each document has words of its own: what a token belongs to can be told.
DOCUMENTS = [
    ". ".join(letter * length for length in (3, 5, 2, 4, 6, 1, 3) * 6)
    for letter in "abcdefghijklmnopqrstuvwxyz"
]


def objective(kind: Any = nsp, **options: Any) -> Any:
    config = {nsp: nsp.Nsp, sop: sop.Sop, mlm_nsp: mlm_nsp.MlmNsp}[kind]
    return config(name=kind.__name__, **{"max_length": 32, **options}).build(V, [])


def prepared(o: Any, documents: list[str] = DOCUMENTS) -> Examples:
    return join_examples(o.prepare(Rows(text=documents), encode))


def texts(batch: Any) -> list[tuple[list[int], list[int]]]:
    """The two texts of each row."""
    found = []
    for row in batch.input_ids.tolist():
        body = [token for token in row[1:] if token != SPECIAL.pad_id]
        middle = body.index(SPECIAL.sep_id)
        assert row[0] == SPECIAL.cls_id and body[-1] == SPECIAL.sep_id
        found.append((body[:middle], body[middle + 1 : -1]))
    return found


@given(
    st.lists(st.lists(st.integers(1, 30), max_size=12), min_size=2, max_size=5),
    st.integers(8, 40),
    st.sampled_from([0.0, 0.1, 1.0]),
)
def test_every_sentence_is_in_exactly_one_run(documents: list[list[int]], longest: int, short: float) -> None:
    rows = [
        ". ".join("ab"[number % 2] * length for length in lengths) for number, lengths in enumerate(documents)
    ]
    usable = [text for text in rows if len(encode([text])[0]) >= 2]
    o = objective(max_length=longest, short_share=short)
    if len(usable) < 2:
        with pytest.raises(DataError, match="at least two documents"):
            prepared(o, rows)
        return
    examples = prepared(o, rows)
    assert (examples.lengths <= longest - 3).all() and (examples.lengths >= 2).all()
    for number, text in enumerate(rows):
        tokens = [
            token
            for row in np.flatnonzero(examples.columns["document"] == number)
            for token in examples[int(row)].tolist()
        ]
        whole = encode([text])[0]
        # tokens that may stand alone
        alone = sum(len(encode([part])[0]) % (longest - 3) == 1 for part in text.split(". "))
        assert len(whole) - alone <= len(tokens) <= len(whole), (
            "only lone tokens are left out, none comes twice"
        )
    assert all(
        (examples.token_columns["opens"][a:b].sum() >= 2)
        for a, b in zip(examples.offsets, examples.offsets[1:], strict=False)
    )


def test_lengths_are_full_but_for_one_in_ten() -> None:
    o = objective(max_length=64)
    documents = [". ".join(["a" * 5] * 400) for _ in range(20)]
    targets = prepared(o, documents).columns["target"]
    short = int((targets < 61).sum())
    assert scipy.stats.binomtest(short, len(targets), 0.1 * 59 / 60).pvalue > 0.001
    assert (
        scipy.stats.kstest(targets[targets < 61], scipy.stats.randint(2, 61).cdf).pvalue > 0.001 or short < 5
    )


@pytest.mark.parametrize("kind", [nsp, sop])
def test_half_of_the_pairs_are_true(kind: Any) -> None:
    o = objective(kind)
    examples = prepared(o)
    rows = np.arange(len(examples))
    labels = np.concatenate(
        [o.collate(examples, rows, Draw(0, epoch)).targets["next"].numpy() for epoch in range(20)]
    )
    assert scipy.stats.binomtest(int(labels.sum()), len(labels), 0.5).pvalue > 0.001


def test_a_true_pair_is_consecutive_and_a_random_one_of_two_documents() -> None:
    o = objective()
    examples = prepared(o)
    for epoch in range(5):
        batch = o.collate(examples, np.arange(len(examples)), Draw(1, epoch))
        for row, ((first, second), label) in enumerate(
            zip(texts(batch), batch.targets["next"].tolist(), strict=True)
        ):
            whole = examples[row].tolist()
            assert first == whole[: len(first)] and first and second and len(first) + len(second) + 3 <= 32
            if label == 0:
                assert first + second == whole
            else:
                assert set(first).isdisjoint(second) and len(set(second)) == 1, "one document's words only"


def test_a_swapped_pair_is_the_same_two_texts() -> None:
    o = objective(sop)
    examples = prepared(o)
    batch = o.collate(examples, np.arange(len(examples)), Draw(1, 0))
    for row, ((first, second), label) in enumerate(
        zip(texts(batch), batch.targets["next"].tolist(), strict=True)
    ):
        assert (second + first if label else first + second) == examples[row].tolist()


def test_length_gives_nothing_away() -> None:
    """The second texts of both classes are as long, up to chance."""
    o = objective()
    examples = prepared(o)
    lengths: dict[int, list[int]] = {0: [], 1: []}
    for epoch in range(30):
        batch = o.collate(examples, np.arange(len(examples)), Draw(2, epoch))
        for (_, second), label in zip(texts(batch), batch.targets["next"].tolist(), strict=True):
            lengths[label].append(len(second))
    true, random = np.mean(lengths[0]), np.mean(lengths[1])
    assert abs(true - random) / true < 0.05


def test_segments_change_at_the_second_text() -> None:
    o = objective()
    batch = o.collate(prepared(o), np.arange(4), None)
    for row, (first, second) in enumerate(texts(batch)):
        expected = [0] * (len(first) + 2) + [1] * (len(second) + 1)
        assert batch.segment_ids[row].tolist() == expected + [0] * (
            batch.segment_ids.shape[1] - len(expected)
        )


def test_pairs_are_keyed_by_seed_epoch_and_example_and_fixed_for_scoring() -> None:
    o = objective(mlm_nsp)
    examples = prepared(o)
    whole, part = (texts(o.collate(examples, rows, Draw(4, 1))) for rows in (np.arange(9), np.array([7, 2])))
    assert part == [whole[7], whole[2]]
    assert texts(o.collate(examples, np.arange(9), Draw(4, 2))) != whole
    again = objective(mlm_nsp, rate=0.5, unit="word")
    assert torch.equal(
        o.collate(examples, np.arange(9), None).input_ids,
        again.collate(examples, np.arange(9), None).input_ids,
    )


def test_joint_loss_is_the_sum_of_both() -> None:
    o = objective(mlm_nsp)
    examples = prepared(o)
    batch = o.collate(examples, np.arange(6), None)
    outputs = torch.zeros(len(batch.targets["label"]), SIZE), torch.zeros(6, 2)
    loss = o.loss(outputs, batch)
    assert (loss.total / loss.count).item() == pytest.approx(np.log(SIZE) + np.log(2), rel=1e-5)
    found = o.scores(o.measure(outputs, batch))
    assert (
        found["loss"]
        == pytest.approx(found["masked_loss"] + found["next_loss"])
        == pytest.approx(np.log(SIZE) + np.log(2))
    )
    assert (batch.input_ids[batch.segment_ids == 1] >= 0).all() and (
        o.collate(examples, np.arange(6), None).targets["label"] >= 5
    ).all()


def test_masks_tell_nothing_of_the_pair() -> None:
    """Runs of three one-token sentences, where a shared generator would decide label and mask by the same
    number.
    """
    o = objective(mlm_nsp, rate=0.15)
    examples = prepared(o, ["a. b. c", "d. e. f"] * 40)
    hidden: dict[int, list[bool]] = {0: [], 1: []}
    for epoch in range(40):
        batch = o.collate(examples, np.arange(len(examples)), Draw(3, epoch))
        for row, label in enumerate(batch.targets["next"].tolist()):
            hidden[label].append(bool((batch.input_ids[row] == SPECIAL.mask_id).any()))
    for label in (0, 1):
        assert scipy.stats.binomtest(sum(hidden[label]), len(hidden[label]), 0.8).pvalue > 0.001


def test_the_middle_of_a_sentence_gives_nothing_away() -> None:
    """Documents of one sentence are cut in its middle; a random partner then begins in a middle too."""
    o = objective(max_length=24)
    examples = prepared(o, ["abcdefghij", "klmnopqrst"] * 30)
    batch = o.collate(examples, np.arange(len(examples)), Draw(0, 0))
    for (first, second), label in zip(texts(batch), batch.targets["next"].tolist(), strict=True):
        opening = {*encode("a")[0], *encode("k")[0]}
        assert first[0] in opening and second[0] not in opening, label


def test_one_document_is_refused() -> None:
    with pytest.raises(DataError, match="1 documents"):
        prepared(objective(), ["a. b. c. d"])


def test_the_split_that_lacks_documents_is_named(cli: Any) -> None:
    sentences = " ".join(f"The film {word} was long." for word in ("one", "two", "three"))
    Path("d.csv").write_text(f'text\n"{sentences}"\n"{sentences.upper()} END"\n')
    words = (
        "objective=nsp dataset=files dataset.train_file=d.csv dataset.documents=true"
        " dataset.label_column=null tokenizer=wordpiece"
    )
    status, _, errors = cli(
        "train", *words.split(), "model=bert_tiny", "budget.steps=2", "compute=cpu", "compute.threads=1"
    )
    assert (
        status == 2
        and "files, train split: there are 1 documents" in errors
        and "dataset.validation_fraction" in errors
    )
