"""A run's own tokenizer: of its training split alone, trained once for the same content and code."""

from pathlib import Path
from typing import Any

import pytest

from bertlab.config.composition import compose_schema
from bertlab.config.schema import Paths, Train
from bertlab.data import tokenizer_options
from bertlab.data.dataset import load_dataset
from bertlab.data.material import prepare
from bertlab.data.tokenizer import Tokenizer
from bertlab.data.tokenizer_options import WordPiece, train_tokenizer
from bertlab.declarations import TEXT
from bertlab.runs import identity
from tiny import rows

KNOWS = "tokenizer.max_unknown_share=1"  # most words of the validation split are foreign on purpose


def config_of(*overrides: str) -> Train:
    config: Train = compose_schema(
        "train",
        ["dataset=files", "dataset.train_file=t.csv", "dataset.validation_file=v.csv", KNOWS, *overrides],
    )
    return config


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A word that only validation holds, and a cache of this test's own."""
    monkeypatch.setenv("BERTLAB_CACHE", str(tmp_path / "cache"))
    Path("t.csv").write_text("text,label\n" + "a good film,1\na bad film,0\n" * 10)
    Path("v.csv").write_text("text,label\n" + "an unforeseen film,1\nan unforeseen ending,0\n" * 10)


def words(tokenizer: Tokenizer, text: str) -> list[str | None]:
    return [tokenizer.backend.id_to_token(token) for token in tokenizer.encode([text])[0]]


def tokenizer_of(config: Train) -> Tokenizer:
    return prepare(config).tokenizer


@pytest.mark.usefixtures("files")
def test_a_run_trains_its_tokenizer_on_the_training_split_alone() -> None:
    tokenizer = tokenizer_of(config_of("tokenizer.min_frequency=1"))
    assert words(tokenizer, "a good unforeseen film") == ["a", "good", "[UNK]", "film"]


@pytest.mark.usefixtures("files")
def test_both_texts_of_a_pair_are_trained_on() -> None:
    Path("t.csv").write_text("text,answer,label\n" + "one,two,1\nthree,four,0\n" * 10)
    Path("v.csv").write_text("text,answer,label\none,two,1\n")
    assert (
        1 not in tokenizer_of(config_of("dataset.text_pair_column=answer")).encode(["one two three four"])[0]
    )


@pytest.mark.usefixtures("files")
def test_a_tokenizer_is_trained_once_for_the_same_content(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tokenizer_of(config_of()).to_json()
    calls = []

    def count(*arguments: Any) -> Tokenizer:
        calls.append(arguments)
        return train_tokenizer(*arguments)

    monkeypatch.setattr(tokenizer_options, "train_tokenizer", count)
    Path("t.csv").write_bytes(Path("t.csv").read_bytes())  # a new time, the same content
    assert tokenizer_of(config_of("seed=5", "model=bert_mini", "objective.max_length=64")).to_json() == first
    assert not calls
    tokenizer_of(config_of("tokenizer.lowercase=false"))
    assert len(calls) == 1
    Path("t.csv").write_text(Path("t.csv").read_text() + "one more film,1\n")
    tokenizer_of(config_of())
    assert len(calls) == 2


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("dataset", "code"),
    [
        *(
            ("files", code)
            for code in (
                "dataset.py",
                "keys.py",
                "delimited.py",
                "text_files.py",
                "cleaning.py",
                "text.py",
                "tokenizer.py",
                "tokenizer_options.py",
            )
        ),
        ("synthetic", "synthetic.py"),
    ],
)
def test_a_tokenizer_is_trained_anew_when_code_behind_its_texts_changes(
    dataset: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, calls = identity.code_version, []
    config = config_of() if dataset == "files" else compose_schema("train", rows(40, 10, 10))
    tokenizer_of(config)
    monkeypatch.setattr(
        tokenizer_options,
        "train_tokenizer",
        lambda *arguments: calls.append(arguments) or train_tokenizer(*arguments),
    )
    tokenizer_of(config)
    assert not calls
    monkeypatch.setattr(
        identity, "code_version", lambda file: "edited" if file.name == code else version(file)
    )
    tokenizer_of(config)
    assert len(calls) == 1


@pytest.mark.usefixtures("files")
def test_another_training_split_of_the_same_file_is_another_tokenizer() -> None:
    Path("t.csv").write_text(
        "text,label\n" + "".join(f"word{index} word{index},{index % 2}\n" for index in range(40))
    )
    seen = [
        tokenizer_of(config_of(f"dataset.split_seed={seed}", "dataset.fraction=0.5")).to_json()
        for seed in (0, 1)
    ]
    assert seen[0] != seen[1]


def test_the_tokenizer_of_a_real_dataset_is_as_large_as_asked_for(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERTLAB_DATA", str(shared_data))
    splits = load_dataset(
        compose_schema("train", ["dataset=rotten_tomatoes"]).dataset, Paths(), (TEXT,)
    ).splits
    tokenizer = train_tokenizer(WordPiece(name="wordpiece", vocab_size=2000), splits["train"]["text"][:])
    assert tokenizer.vocab_size == 2000
    tokens = [token for row in tokenizer.encode(splits["validation"]["text"][:]) for token in row]
    assert tokens.count(1) / len(tokens) < 0.001
