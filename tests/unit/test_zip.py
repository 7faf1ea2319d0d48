"""`zip(a=1,2; b=3,4)`: values that go together, in our list of runs and in Hydra's jobs alike."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from bertlab.cli.sweeps import choose_sweeper
from bertlab.config.composition import combinations, complete
from bertlab.config.words import read
from bertlab.errors import ConfigError
from hydra_plugins.bertlab_zip import sweeper  # whose classes Hydra's search for plugins makes anew


def jobs(words: list[str]) -> list[list[str]]:
    """What Hydra would launch."""
    chosen = choose_sweeper(read(words))
    together = next((word.value for word in chosen if word.key == "hydra.sweeper.zipped"), [])
    texts = [[str(getattr(key, "text", key)) for key in keys] for keys in together]
    overrides = OverridesParser.create().parse_overrides(
        [str(word) for word in chosen if not word.key.startswith("hydra")]
    )
    (batch,) = sweeper.BertlabZip(None, None, texts).split_arguments(overrides, None)
    return batch


def runs(words: list[str]) -> list[list[str]]:
    """What we check, label and sum up."""
    return [[str(word) for word in run] for run in combinations(read(words))]


def test_values_go_together_and_multiply_with_the_rest() -> None:
    words = ["seed=0,1", "zip(model=bert_tiny,bert_mini; optimizer.lr=1e-3,5e-4)"]
    assert runs(words) == [
        ["seed=0", "model=bert_tiny", "optimizer.lr=0.001"], ["seed=0", "model=bert_mini",
        "optimizer.lr=0.0005"],
        ["seed=1", "model=bert_tiny", "optimizer.lr=0.001"], ["seed=1", "model=bert_mini",
        "optimizer.lr=0.0005"],
    ]  # fmt: skip


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(1, 3), st.permutations(range(5)))
def test_hydras_jobs_are_our_runs_in_the_same_order(plain: list[int], length: int, order: list[int]) -> None:
    words = [f"a{place}={','.join(map(str, range(count)))}" for place, count in enumerate(plain)]
    values = ",".join(map(str, range(length)))
    words += [f"zip(x={values};y={values})"]
    words = [words[place] for place in order if place < len(words)]
    assert jobs(words) == runs(words)


def test_rules_reach_the_words_within() -> None:
    words = complete("train", read(["zip(init.dataset=imdb_text,classic_books; init.budget.tokens=1e6,2e6)"]))
    texts = [str(word) for word in words if word.zipped]
    assert texts == ["dataset@init.dataset=imdb_text,classic_books", "init.budget.tokens=1000000,2000000"]


@pytest.mark.parametrize(("word", "line"), [
    ("zip(model=a,b; optimizer.lr=1,2,3)", "as many values of each key: model has 2, optimizer.lr has 3"),
    ("zip(model=a,b)", "write 'zip(key=a,b; other.key=c,d)'"),
    ("zip(model=a,b; optimizer.lr=1,2", "write 'zip(key=a,b; other.key=c,d)'"),
    ("zip(model=a,b; optimizer.lr=interval(1,2))", "must be listed"),
    ("zip(seed=0,1; seed=2,3)", "seed stands in it twice; give it one list of values"),
])  # fmt: skip
def test_what_cannot_be_paired_is_one_line(word: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line.replace("(", r"\(").replace(")", r"\)")):
        read([word])


def test_semicolons_within_quotes_are_text() -> None:
    first, second = read(["""zip(tags=['a;b'],['c']; seed=1,2)"""])
    assert len(first.singles()) == len(second.singles()) == 2


def test_a_search_has_no_pairs() -> None:
    with pytest.raises(ConfigError, match="a search chooses its own points"):
        choose_sweeper(read(["search=lr_batch", "zip(model=a,b; seed=1,2)"]))


def test_an_option_of_the_search_chooses_the_search() -> None:
    chosen = choose_sweeper(read(["optimizer.lr=1e-3,2e-3", "hydra.sweeper.n_trials=8"]))
    assert "hydra/sweeper=bertlab_optuna" in map(str, chosen)
