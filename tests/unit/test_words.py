"""Words of the command line: parsed once by Hydra, changed by rules that go by the declared type, written
again for Hydra.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from bertlab.cli.sweeps import Sweep, choose_sweeper
from bertlab.config.composition import combinations, read_words
from bertlab.config.words import Word, as_written, declared, parse, written

Cli = Callable[..., tuple[int, str, str]]  # conftest's fixture
DATA = [
    "debug=smoke",
    "dataset.fraction=1",
    "dataset.train_size=60",
    "dataset.validation_size=20",
    "dataset.test_size=20",
    "compute=cpu",
    "compute.threads=1",
]
STAGE = ["init=stage", "init.dataset=synthetic", "++init.dataset.train_size=60",
    "++init.dataset.validation_size=20",
         "++init.dataset.test_size=20"]  # fmt: skip


def only(*overrides: str, job: str = "train") -> list[str]:
    """What Hydra is given, without the budget's units that are cleared."""
    return [str(word) for word in read_words(job, overrides) if word.value is not None]


@pytest.mark.parametrize("words", [[*STAGE, "init.budget.tokens=5e3", "seed=0,1"], ["budget.tokens=1e3,2e3"]])
def test_whole_numbers_are_written_short_in_sweeps_too(cli: Cli, words: list[str]) -> None:
    status, out, err = cli("plan", "-m", *DATA, *words)
    assert status == 0 and "2 runs: 0 finished, 2 to do" in out, err


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("init.budget.tokens=5e6", "init.budget.tokens=5000000"),
        ("budget.tokens=1e5,2e5", "budget.tokens=100000,200000"),
        ("budget.tokens=choice(1e5,3_000)", "budget.tokens=choice(100000,3000)"),
        ("budget.steps=range(1e2,5e2,1e2)", "budget.steps=range(100,500,100)"),
        ("budget.steps=tag(log,interval(1e2,1e4))", "budget.steps=tag(log,int(interval(100,10000)))"),
        # or Hydra makes floats of them
        ("budget.batch_size=interval(8,64)", "budget.batch_size=int(interval(8,64))"),
        ("optimizer.lr=interval(1,2)", "optimizer.lr=interval(1,2)"),
        ("budget.steps=1e30", "budget.steps=1e30"),  # no count of anything: refused as it was written
        ("budget.steps=1.5", "budget.steps=1.5"),
        ("model.max_position_embeddings=1e3", "model.max_position_embeddings=1000"),
        ("optimizer.lr=1e0,2e-3", "optimizer.lr=1e0,2e-3"),  # declared a float: left as it is
        # nobody's declaration is at hand: a whole number fits both
        ("hydra.sweeper.n_trials=1e2", "hydra.sweeper.n_trials=100"),
        ("init.dataset=imdb_text", "dataset@init.dataset=imdb_text"),
        ("init.init.objective=mlm,rtd", "objective@init.init.objective=mlm,rtd"),
        ("init.model={hidden_dropout: 0}", "init.model={hidden_dropout: 0}"),
        ("init.dataset={fraction: 1}", "init.dataset={fraction: 1}"),
        ("init.evaluation.every_steps=1e2", "init.evaluation.every_steps=100"),
        ("dataset.train_file=1e5,b.csv", "dataset.train_file='1e5',b.csv"),
        ("dataset.train_file=choice(1e5, true)", "dataset.train_file=choice('1e5','true')"),
        ("dataset.label_column=null", "dataset.label_column=null"),
        ("+dataset.mirror_files.train=1e5", "+dataset.mirror_files.train='1e5'"),
        ("compute.compile=true", "compute.compile=true"),
        ("~tags", "~tags"),
    ],
)
def test_a_rule_changes_what_it_is_for_and_nothing_else(given: str, made: str) -> None:
    words = read_words("train", [given])
    assert [
        str(word)
        for word in words
        if word.value is not None or not word.name.startswith(("budget", "init.budget"))
    ] == [made]
    # once is enough
    assert [str(word) for word in read_words("train", map(str, words))] == [str(word) for word in words]


def test_names_of_runs_are_texts_in_every_job() -> None:
    for job, key in (
        ("predict", "run"),
        ("evaluate", "file"),
        ("export", "to"),
        ("report", "runs"),
        ("reproduce", "report"),
    ):
        assert only(f"{key}=1e5", job=job) == [f"{key}='1e5'"] and declared(job, key) == {"str"}
    assert only("batch_size=1e2", job="predict") == ["batch_size=100"]
    assert only("benchmark.steps=1e2", "benchmark.out=1e2", "budget.examples=1e2", job="benchmark") == [
        "benchmark.steps=100", "benchmark.out='1e2'", "budget.examples=100"
    ]  # fmt: skip


def test_a_plugins_declaration_counts_and_its_code_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "optimizers").mkdir()
    text = (
        "raise SystemExit\nclass Config(OptimizerConfig):\n    corpus: str | None = None\n    rounds: int"
        " = 3\n"
    )
    (tmp_path / "optimizers" / "slow.py").write_text(text)
    (tmp_path / "optimizers" / "broken.py").write_text("class (")
    monkeypatch.setenv("BERTLAB_PLUGINS", str(tmp_path))
    assert only("optimizer.corpus=1e5", "optimizer.rounds=1e1") == [
        "optimizer.corpus='1e5'",
        "optimizer.rounds=10",
    ]


def test_a_unit_of_budget_clears_the_others_once() -> None:
    words = list(map(str, read_words("train", ["budget.steps=7,8", "budget.tokens=null"])))
    assert words == ["budget.epochs=null", "budget.examples=null", "budget.steps=7,8", "budget.tokens=null"]


def test_a_stage_brings_its_tokenizer_unless_another_is_chosen() -> None:
    assert only("init=stage") == ["tokenizer=inherited", "init=stage"]
    assert only("init=stage", "tokenizer=bpe") == ["init=stage", "tokenizer=bpe"]
    assert only("init=scratch") == ["init=scratch"]


def test_smoke_reaches_the_pretraining_that_there_is() -> None:
    assert "debug=smoke_stage" in only("debug=smoke", "experiment=sst2_from_raw_text")
    assert "debug=smoke" in only(
        "debug=smoke", "experiment=sst2_from_raw_text", "init=scratch", "tokenizer=wordpiece"
    )


@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=30))
def test_a_literal_text_is_read_as_it_was_written(text: str) -> None:
    if text == "null" or text[:1] in ("'", '"'):
        return  # null, and what is quoted already
    found = OverridesParser.create().parse_override(str(as_written(f"text={text}"))).value()
    assert found == re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # OmegaConf takes the backslashes away


element = st.one_of(
    st.integers(-99, 99),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.sampled_from(["a", "b-c", "x y"]),
)


@given(
    values=st.lists(element, min_size=2, max_size=4),
    form=st.sampled_from(["{}", "choice({})", "shuffle(choice({}))", "tag(t,choice({}))"]),
)
def test_a_sweep_written_again_is_the_same_sweep(values: list[object], form: str) -> None:
    word = parse(f"k={form.format(','.join(map(written, values)))}")
    assert word.sweep and parse(f"k={written(word.value)}").value == word.value
    assert [one.plain for one in word.singles()] == values


def test_a_grid_is_listed_in_order_and_labelled_by_what_differs() -> None:
    runs = combinations(
        read_words(
            "train",
            ["budget.epochs=1", "optimizer.lr=1e-3,2e-3", "init=stage", "init.objective=mlm,rtd", "seed=3"],
        )
    )
    sweep = Sweep(runs)
    assert sweep.labels == [
        f"run {number}/4: optimizer.lr={lr} init.objective={objective}"
        for number, (lr, objective) in enumerate(
            [("0.001", "mlm"), ("0.001", "rtd"), ("0.002", "mlm"), ("0.002", "rtd")], start=1
        )
    ]
    with pytest.raises(ValueError, match="cannot be listed"):
        parse("optimizer.lr=interval(0,1)").singles()


def test_an_interval_chooses_our_sweeper_unless_another_is_chosen() -> None:
    def made(*words: str) -> list[str]:
        return [str(word) for word in choose_sweeper([parse(word) for word in words])]

    assert "hydra/sweeper=bertlab_optuna" in made("optimizer.lr=tag(log,interval(1e-4,1e-3))")
    assert made("optimizer.lr=1e-4,1e-3") == ["optimizer.lr=1e-4,1e-3"]
    other = ["optimizer.lr=interval(0,1)", "hydra/sweeper=ax"]
    assert made(*other) == other


def test_a_word_is_shown_as_a_person_writes_it() -> None:
    (word,) = read_words("train", ["++init.dataset.fraction=0.5"])
    assert (word.prefix, word.name, word.text) == ("++", "init.dataset.fraction", "0.5")
    assert Word("a").with_value([1, "b"]).text == "[1,b]" and str(Word("a", prefix="~")) == "~a"
