"""Two objectives of the user's own, one file each outside the package: trained on a user's file, predicted,
evaluated, swept, reported.
"""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PLUGINS = Path(__file__).parents[1] / "plugins"
SMALL = [
    "model=bert_tiny",
    "model.hidden_size=32",
    "model.num_attention_heads=2",
    "compute=cpu",
    "compute.threads=1",
    "dataset=files",
]


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's folder."""
    monkeypatch.setenv("BERTLAB_PLUGINS", str(PLUGINS))


def write_scores(file: Path, rows: int, seed: int) -> None:
    """Texts whose score, with a fraction, is a function of their words; `2.2`-like values that no training
    file need hold.
    """
    rng = random.Random(seed)
    with file.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["text", "score"])
        for index in range(rows):
            good, bad = rng.randrange(5), rng.randrange(3)
            words = ["fine"] * good + ["poor"] * bad + [f"item{index % 7}"]
            rng.shuffle(words)
            table.writerow([" ".join(words), round(good + 0.1 * rng.randrange(10) - 0.5 * bad, 2)])


def write_questions(file: Path, rows: int, seed: int) -> None:
    """Who owns what, in contexts longer than a window; every fifth question has no answer."""
    rng, names, things = (
        random.Random(seed),
        ["Anna", "Bruno", "Clara", "Daniel"],
        ["dog", "cat", "boat", "lamp"],
    )
    with file.open("w") as stream:
        for index in range(rows):
            owners = dict(zip(things, rng.sample(names, len(names)), strict=True))
            asked = rng.choice(things)
            told = [
                f"{name} owns the {thing} ." for thing, name in owners.items() if index % 5 or thing != asked
            ]
            context = " and so it was for a while . ".join(told)
            answers = (
                {"text": [owners[asked]], "answer_start": [context.index(owners[asked])]}
                if index % 5
                else {"text": [], "answer_start": []}
            )
            stream.write(
                json.dumps({"question": f"who owns the {asked} ?", "context": context, "answers": answers})
                + "\n"
            )


def run_of(out: str) -> str:
    return out.splitlines()[-1].removeprefix("run: ")


def test_a_regression_in_one_file(cli: Any) -> None:
    write_scores(Path("scores.csv"), 400, 0)
    write_scores(Path("more.csv"), 60, 1)
    words = [
        *SMALL,
        "objective=regression",
        "dataset.train_file=scores.csv",
        "dataset.number_column=score",
        "optimizer.lr=3e-3",
    ]
    status, out, err = cli(*words, "budget.epochs=8")
    assert status == 0, err
    folder = Path(run_of(out))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metric_specs"]["validation/rmse"] == {
        "higher_is_better": False,
        "unit": "points",
        "bounds": [0.0, None],
    }
    assert (
        summary["selected_by"] == "validation/rmse"
        and summary["metrics"]["validation/rmse"] < 1.0
        and "labels.json" in str(list(folder.iterdir()))
    )
    for file in ("more.csv",):
        status, out, err = cli("predict", f"run={folder}", f"file={file}")
        assert status == 0 and len(out.splitlines()) == 60 and out.startswith("number "), err
    status, out, err = cli("predict", f"run={folder}", "text=fine fine fine", "format=jsonl")
    assert status == 0 and isinstance(json.loads(out)["number"], float), err
    # scores such as 2.2 that training never saw
    status, out, err = cli("evaluate", f"run={folder}", "file=more.csv", "format=json")
    assert status == 0 and json.loads(out)["file/rmse"] < 1.5, err
    status, out, err = cli("-m", *words, "budget.steps=30,60", "seed=0,1", "objective.primary=pearson")
    assert status == 0, err
    status, out, err = cli("report", "runs=multirun", "where=budget.epochs=None", "out=report")
    assert status == 0 and "2 arms, 4 runs" in out, err
    assert "pearson, higher is better" in Path("report/report.md").read_text()
    assert cli("export", f"run={folder}", "to=elsewhere")[0] == 2


def test_lower_is_better_where_the_objective_says_so(cli: Any) -> None:
    """A search minimises, and refuses to maximise, without a word about the objective anywhere else."""
    write_scores(Path("scores.csv"), 120, 0)
    words = ["-m", *SMALL, "objective=regression", "dataset.train_file=scores.csv",
        "dataset.number_column=score", "budget.steps=10",
             "hydra/sweeper=bertlab_optuna", "optimizer.lr=interval(1e-4,1e-2)",
             "hydra.sweeper.n_trials=2"]  # fmt: skip
    status, _, err = cli(*words, "hydra.sweeper.direction=maximize")
    assert status == 2 and "is to minimize" in err
    status, out, err = cli(*words, "hydra.sweeper.direction=minimize")
    assert status == 0 and "2 trials finished" in out, err


def test_questions_over_windows_in_one_file(cli: Any) -> None:
    write_questions(Path("train.jsonl"), 300, 0)
    write_questions(Path("more.jsonl"), 40, 1)
    columns = [f"dataset.{role}_column={role}" for role in ("question", "context", "answers")]
    words = [
        *SMALL,
        "objective=span_qa",
        "objective.max_length=32",
        "objective.stride=8",
        "dataset.train_file=train.jsonl",
        *columns,
    ]
    words += ["dataset.label_column=null", "optimizer.lr=3e-3"]
    status, out, err = cli(*words, "budget.epochs=2")
    assert status == 0, err
    folder = run_of(out)
    status, out, err = cli("predict", f"run={folder}", "file=more.jsonl", "format=jsonl")
    assert status == 0, err
    rows, asked = (
        [json.loads(line) for line in out.splitlines()],
        [json.loads(line) for line in Path("more.jsonl").read_text().splitlines()],
    )
    # one a question, however many windows it has
    assert [row["context"] for row in rows] == [row["context"] for row in asked]
    for row in rows:
        assert row["answer"] == "" or row["context"][row["start"] :].startswith(row["answer"])
    status, out, err = cli("evaluate", f"run={folder}", "file=more.jsonl")
    assert status == 0 and "file/exact_match" in out, err
    status, out, err = cli("-m", *words, "budget.steps=5", "seed=0,1")
    assert status == 0, err
    assert cli("report", "runs=multirun", "where=budget.epochs=None")[0] == 0
    assert "exact_match (%), higher is better" in Path("report/report.md").read_text()


def test_an_answer_that_does_not_stand_in_its_text_is_named(cli: Any) -> None:
    Path("wrong.jsonl").write_text(
        json.dumps({"question": "q ?", "context": "a b c", "answers": {"text": ["b"], "answer_start": [0]}})
        + "\n"
    )
    status, _, err = cli(*SMALL, "objective=span_qa", "dataset.train_file=wrong.jsonl",
        "dataset.question_column=question",
                         "dataset.context_column=context", "dataset.answers_column=answers")  # fmt: skip
    assert (
        status == 2
        and "wrong.jsonl: row 1: the answer 'b' does not stand at character 0" in err
        and err.count("\n") == 1
    )
