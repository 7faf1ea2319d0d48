"""Evaluation texts are found in what was trained on: whole, inside longer ones and nearly; stock phrases are
counted apart.
"""

from pathlib import Path

from bertlab.report.contamination import check_contamination


def test_texts_are_found_whole_inside_and_nearly() -> None:
    evaluated = [
        "It is n't a bad film at all .",  # whole, in another spelling
        "the acting is superb from start to finish",  # inside a longer one
        # near: the last word differs
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen",
        "nobody has ever written this sentence before today",
        "very bad",  # a stock phrase: inside longer texts it means nothing
    ]
    trained = [
        "it isn't a bad film at all.",
        "I say the acting is superb, from start to finish, and more.",
        "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen seventeen",
        "this is very bad indeed",
    ]
    found = check_contamination("validation", "training", evaluated, trained)
    assert found.whole.tolist() == [True, False, False, False, False]
    assert found.inside.tolist() == [False, True, False, False, False]
    assert found.near.tolist() == [False, False, True, False, False]
    assert found.short.tolist() == [False, False, False, False, True]
    assert found.seen.sum() == 3


def test_the_known_overlap_of_sst2_and_rotten_tomatoes_is_found(shared_data: Path) -> None:
    """Known from a comparison made independently: 731 whole, 855 together; how short a text inside another
    counted there is not known.
    """
    import pandas

    evaluated = pandas.read_parquet(shared_data / "sst2/validation.parquet")["sentence"].tolist()
    trained = pandas.read_parquet(shared_data / "rotten_tomatoes/train.parquet")["text"].tolist()
    found = check_contamination("validation", "rotten_tomatoes", evaluated, trained)
    assert found.whole.sum() == 731 and found.seen.sum() == 851 and found.short.sum() == 18
    clean = check_contamination(
        "validation",
        "sst2",
        evaluated,
        pandas.read_parquet(shared_data / "sst2/train.parquet")["sentence"].tolist(),
    )
    assert clean.whole.sum() == 2 and clean.seen.sum() <= 4
