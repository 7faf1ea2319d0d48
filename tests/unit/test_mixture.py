"""Mixtures of datasets: parts are read as they would be alone, drawn by weights and phases, told before and
after; misfits in one line.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bertlab
from bertlab.config.composition import compose_schema
from bertlab.data.dataset import load_dataset
from bertlab.data.mixture import Mixture
from bertlab.declarations import TEXT, Role
from bertlab.errors import ConfigError, DataError
from bertlab.runs.folder import RunFolder
from bertlab.runs.records import read_run
from tiny import tiny

COLOURS, NUMBERS = "red green blue white black", "one two three four five six seven"


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, words in (("a", COLOURS.split()), ("b", NUMBERS.split())):
        lines = [" ".join(rng.choice(words, size=rng.integers(5, 30))) for _ in range(200)]
        Path(f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return tmp_path


PARTS = [f"+dataset@dataset.parts.{name}=files" for name in "ab"]
PARTS += [
    f"dataset.parts.{name}.{key}" for name in "ab" for key in (f"train_file={name}.txt", "label_column=null")
]
RUN = tiny(
    "dataset=mixture",
    *PARTS,
    "objective=mlm",
    "objective.max_length=32",
    "budget.batch_size=8",
    "tokenizer=wordlevel",
    sizes=None,
)


def mixture(*words: str) -> Any:
    return compose_schema("train", [*RUN, *words])


def test_parts_are_what_they_are_alone() -> None:
    whole = mixture()
    loaded = load_dataset(whole.dataset, whole.paths, (TEXT,))
    for index, name in enumerate("ab"):
        alone = load_dataset(whole.dataset.parts[name], whole.paths, (TEXT,))
        for split in ("train", "validation"):
            start = sum(loaded.parts[split][:index])
            rows = loaded.splits[split]["text"][start : start + loaded.parts[split][index]]
            assert list(rows) == list(alone.splits[split]["text"])
    scored = mixture("dataset.scored=[b]")
    assert load_dataset(scored.dataset, scored.paths, (TEXT,)).parts["validation"] == [
        0,
        loaded.parts["validation"][1],
    ]


def test_a_run_draws_by_weights_and_phases_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "dataset.weights={a: 3}",
        "dataset.phases=[{from_tokens: 2000, weights: {b: 1}}]",
        "budget.tokens=6000",
    ]
    run = bertlab.run([*RUN, *words])
    out = capsys.readouterr().out
    assert (
        "drawn 75.0%, then 0.0% from 2,000 tokens on" in out
        and "drawn 25.0%, then 100.0% from 2,000 tokens on" in out
    )
    parts = run.summary["parts"]
    assert sum(part["tokens"] for part in parts.values()) == run.summary["cost"]["tokens"]
    assert abs(parts["a"]["tokens"] - 1500) < 200 and abs(parts["b"]["tokens"] - 4500) < 300
    assert f"in all {parts['a']['tokens']:,} tokens, {parts['a']['passes']:.2f} passes" in out, (
        "what is said before is what happens"
    )
    config = RunFolder(run.folder).config()
    assert isinstance(config.dataset, Mixture) and config.dataset.mixing() == mixture(*words).dataset.mixing()
    assert config.dataset.parts["a"].deciding() == mixture().dataset.parts["a"].deciding()


def test_other_weights_are_another_run_of_the_same_examples() -> None:
    first, second = (
        bertlab.run([*RUN, "budget.steps=2", f"dataset.weights={{a: {weight}}}"]) for weight in (1, 2)
    )
    assert first.folder != second.folder, "another share, another run"
    assert (
        mixture("dataset.weights={a: 1}").dataset.reading()
        == mixture("dataset.weights={a: 2}").dataset.reading()
    )
    assert (
        mixture("dataset.weights={a: 1}").dataset.deciding()
        != mixture("dataset.weights={a: 2}").dataset.deciding()
    )


def test_identity_and_records_know_all_parts(files: Path) -> None:
    before = mixture().dataset.fingerprint(mixture().paths)
    run = bertlab.run([*RUN, "budget.steps=2"])
    (files / "b.txt").write_text((files / "b.txt").read_text() + "one more\n")
    assert mixture().dataset.fingerprint(mixture().paths) != before
    record = read_run(RunFolder(run.folder))
    assert (
        record.config["dataset.parts.a.train_file"] == "a.txt"
        and record.config["dataset.parts.b.component"] == "table"
    )


def test_parts_must_have_the_same_classes() -> None:
    for name, labels in (("a", ("yes", "no")), ("b", ("good", "bad"))):
        rows = "".join(f"text {index},{labels[index % 2]}\n" for index in range(20))
        Path(f"{name}.csv").write_text(f"text,label\n{rows}")
    words = [
        f"dataset.parts.{name}.{key}"
        for name in "ab"
        for key in (f"train_file={name}.csv", "label_column=label")
    ]
    config = mixture(*words)
    with pytest.raises(DataError, match=r"part a has the classes no, yes, part b has bad, good; .*label_map"):
        load_dataset(config.dataset, config.paths, (TEXT, Role("label", "label", is_answer=True)))


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.floats(0.1, 10), min_size=1))
def test_shares_are_weights_over_their_sum(weights: dict[str, float]) -> None:
    from bertlab.data.tables.table import TableDataset

    parts = {name: TableDataset(name="files", train_file="x.csv") for name in "abc"}
    found = Mixture(name="m", parts=parts, weights=weights).mixing()
    full = [weights.get(name, 1.0) for name in "abc"]
    np.testing.assert_allclose(found.shares[0], np.array(full) / sum(full))
    assert found.names == ("a", "b", "c") and found.starts == (0,)


def test_the_short_form_is_the_long_one() -> None:
    short = compose_schema(
        "train", ["dataset=mixture", "dataset.parts={classic_books: 2, imdb_text: 1}", "objective=mlm"]
    )
    long = compose_schema(
        "train",
        ["dataset=mixture", "+dataset@dataset.parts.classic_books=classic_books",
        "+dataset@dataset.parts.imdb_text=imdb_text",
         "dataset.weights={classic_books: 2.0, imdb_text: 1.0}", "objective=mlm"],
    )  # fmt: skip
    assert short.dataset == long.dataset and short.dataset.parts["classic_books"].documents
    stage = compose_schema("train", ["init=stage", "init.dataset=mixture",
        "init.dataset.parts={classic_books: 2, imdb_text: 1}",
                                     "init.objective=mlm", "init.budget.tokens=1000",
                                     "dataset=sst2"])  # fmt: skip
    assert stage.init.dataset == short.dataset


BOTH = "dataset.parts={classic_books: 2, imdb_text: 1}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dataset.parts={classic_books: 2, imdb_txt: 1}"],
        "dataset=imdb_txt: unknown option, did you mean 'imdb_text'"),
        (["dataset.parts=[{name: classic_books}]"], "write presets of datasets and their weights"),
        (["dataset.parts={imdb_text: 1}"], "two parts or more"),
        ([BOTH, "dataset.fraction=0.5"], r"set it for a part, dataset.parts.NAME.fraction"),
        (["dataset.parts={classic_books: 2, imdb_text: 0}"], "never drawn"),
        (["dataset.parts={classic_books: -1, imdb_text: 1}"], r"classic_books=-1.0: must be 0 or more"),
        (["dataset.parts={classic_books: 0, imdb_text: 0}"], "nothing is drawn"),
        ([BOTH, "dataset.scored=[imdb]"], "no part 'imdb', did you mean 'imdb_text'"),
        ([BOTH, "dataset.phases=[{from_tokens: 9, weights: {x: 1}}]"], "no part 'x'"),
        ([BOTH, "dataset.phases=[{from_tokens: 9, weights: {}}]"], "nothing is drawn"),
        ([BOTH, "dataset.phases=[{from_tokens: 0, weights: {imdb_text: 1}}]"], "at least 1"),
        ([BOTH, "dataset.parts.imdb_text.fraction=2"], r"parts.imdb_text.fraction=2.0: .*at most"),
        ([BOTH, "+dataset.parts.imdb_text.nothing=2"], "unknown key"),
    ],
)  # fmt: skip
def test_what_is_no_mixture_is_refused_in_one_line(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose_schema("train", ["dataset=mixture", "objective=mlm", *words])
