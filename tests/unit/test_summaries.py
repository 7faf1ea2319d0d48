"""What a summary holds is built and read in one place."""

import pytest

from bertlab.runs.summaries import best_possible, is_score, name_of_best


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("validation", "best_possible/accuracy"),
        ("test", "best_possible/test_accuracy"),
        ("selection", "best_possible/selection_accuracy"),
    ],
)
def test_the_best_possible_is_read_as_it_is_written(split: str, name: str) -> None:
    assert name_of_best(split, "accuracy") == name, "as summaries on disk have it"
    assert best_possible({name: 0.9, "validation/accuracy": 0.8}, split, "accuracy") == 0.9
    assert best_possible({"validation/accuracy": 0.8}, split, "accuracy") is None
    assert not is_score(name) and is_score(f"{split}/accuracy")
