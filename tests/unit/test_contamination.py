"""Evaluation texts are found in what was trained on: whole, inside longer ones and nearly; stock phrases are
counted apart.
"""

import random
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


RNG = random.Random(0)
WORDS = [first + vowel + last for first in "bdfgklmnprst" for vowel in "aeiou" for last in "bdgklmnrst"]


def sentence(words: int) -> list[str]:
    return [RNG.choice(WORDS) for _ in range(words)]


def templated(rows: int) -> list[str]:
    return [
        f"please tell me as soon as you can what the capital of {RNG.choice(WORDS)} is in {RNG.choice(WORDS)}"
        " today"
        for _ in range(rows)
    ]


def test_rows_of_one_template_are_found_where_they_stand_and_only_there() -> None:
    """Hundreds of rows share most of their words, so that those alone show nothing."""
    rows = templated(300)
    within = [" ".join([*sentence(30), row, *sentence(30)]) for row in rows]
    found = check_contamination("validation", "training", rows[:250], within[50:])
    assert found.inside[50:].all() and not found.seen[:50].any()
    others = check_contamination("validation", "training", rows, templated(2000))
    assert others.near.sum() == 0
    assert check_contamination("validation", "training", rows, rows).whole.all()


def test_most_of_a_text_counts_as_the_text_wherever_its_parts_stand() -> None:
    rows = [sentence(20) for _ in range(200)]
    texts = [" ".join(words) for words in rows]

    def seen(trained: list[list[str]]) -> int:
        read = [" ".join(sentence(12) + words + sentence(12)) for words in trained]
        return int(check_contamination("validation", "training", texts, read).seen.sum())

    for kept, expected in ((0.9, 200), (0.85, 200), (0.8, 200), (0.7, 0), (0.5, 0)):
        assert seen([words[: int(20 * kept)] for words in rows]) == expected, kept
    assert seen([half for words in rows for half in (words[:10], words[10:])]) == 200
    assert seen([sentence(20) for _ in range(2000)]) == 0


def test_a_phrase_that_many_texts_of_the_split_have_says_nothing_of_any() -> None:
    phrase = "all of what is said in the opening scene of this film"
    texts = [f"{phrase} {' '.join(sentence(3))}" for _ in range(30)]
    trained = [f"{' '.join(sentence(9))} {phrase} {' '.join(sentence(9))}" for _ in range(50)]
    assert not check_contamination("validation", "training", texts, trained).seen.any()


def test_eight_words_that_anybody_says_are_no_text() -> None:
    found = check_contamination(
        "validation", "training", ["the problem with this film is that it lacks focus ."],
        ["I liked it , but the problem with this film is that it is too long and has no end ."],
    )  # fmt: skip
    assert not found.seen.any()


def test_a_text_is_found_wherever_its_words_are_parted_otherwise() -> None:
    """Whichever 3-gram leads to it: what is found must not depend on a process's hashes."""
    words = [f"{letter}word" for letter in "abcdefghijklmnopqrstuvwxyz"]
    for place in range(len(words) - 1):
        parted = [*words[:place], words[place] + words[place + 1], *words[place + 2 :]]
        texts = [" ".join(words[:20]), " ".join(words)]
        read = [" ".join(["before", *parted, "after"])]
        assert check_contamination("validation", "training", texts, read).inside.all(), place


def test_equal_rows_are_all_found() -> None:
    text = " ".join(sentence(14))
    trained = [" ".join([*sentence(5), text, *sentence(5)])]
    assert check_contamination("validation", "training", [text] * 40, trained).inside.all()


def test_the_known_overlap_of_sst2_and_rotten_tomatoes_is_found(shared_data: Path) -> None:
    """Known from a comparison made independently: 731 whole, 855 together; how short a text inside another
    counted there is not known.
    """
    import pandas

    evaluated = pandas.read_parquet(shared_data / "sst2/validation.parquet")["sentence"].tolist()
    trained = pandas.read_parquet(shared_data / "rotten_tomatoes/train.parquet")["text"].tolist()
    found = check_contamination("validation", "rotten_tomatoes", evaluated, trained)
    assert found.whole.sum() == 731 and found.seen.sum() == 853 and found.short.sum() == 18
    clean = check_contamination(
        "validation",
        "sst2",
        evaluated,
        pandas.read_parquet(shared_data / "sst2/train.parquet")["sentence"].tolist(),
    )
    assert clean.whole.sum() == 2 and clean.seen.sum() <= 4
