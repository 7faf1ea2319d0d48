"""Tasks beside classification: trained on a user's file, predicted, scored, exported, compared, refused in
one line; real data by name.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertlab.config.composition import compose_schema
from bertlab.contracts import join_examples
from bertlab.data.dataset import load_dataset, roles_for
from bertlab.data.material import build_objective, prepare
from bertlab.data.tokenizer_options import WordPiece, train_tokenizer
from bertlab.training.assembly import check_combination

pytestmark = pytest.mark.slow

SMALL = ["model=bert_tiny", "model.hidden_size=32", "model.num_attention_heads=2", "compute=cpu",
    "compute.threads=1", "dataset=files",
         "dataset.train_file=train.jsonl", "optimizer.lr=3e-3"]  # fmt: skip
COLOURS = ["red", "green", "blue", "grey"]


# --- files of a user's own ------------------------------------------------------------------------
def scores(rng: random.Random, index: int) -> dict[str, Any]:
    good, bad = rng.randrange(5), rng.randrange(3)
    words = ["fine"] * good + ["poor"] * bad + [f"item{index % 7}"]
    rng.shuffle(words)
    return {"text": " ".join(words), "score": 1000 + 20 * good - 10 * bad}


def sets(rng: random.Random, index: int) -> dict[str, Any]:
    found = [colour for colour in COLOURS[:3] if rng.random() < 0.4]
    words = [*found, f"item{index % 7}"]
    rng.shuffle(words)
    return {"text": " ".join(words), "colours": found}


def choices(rng: random.Random, index: int) -> dict[str, Any]:
    colours = rng.sample(COLOURS, 4)
    right = rng.randrange(4)
    return {
        "text": f"item{index} is {colours[right]} .",
        "endings": [f"it is {colour}" for colour in colours],
        "label": right,
    }


def questions(rng: random.Random, index: int) -> dict[str, Any]:
    """Contexts longer than a window; every fifth question has no answer."""
    owners = dict(
        zip(("dog", "cat", "boat", "lamp"), rng.sample(["Anna", "Bruno", "Clara", "Daniel"], 4), strict=True)
    )
    asked = rng.choice(list(owners))
    told = [f"{name} owns the {thing} ." for thing, name in owners.items() if index % 5 or thing != asked]
    context = f"{' and so it was for a while . '.join(told)} item{index}"
    answers = (
        {"text": [owners[asked]], "answer_start": [context.index(owners[asked])]}
        if index % 5
        else {"text": [], "answer_start": []}
    )
    return {"question": f"who owns the {asked} ?", "context": context, "answers": answers}


QA = ["dataset.question_column=question", "dataset.context_column=context", "dataset.answers_column=answers",
    "objective.max_length=32",
      "objective.max_question=8", "objective.stride=8"]  # fmt: skip
# rows, columns, the score that selects, the class in transformers
TASKS: dict[str, tuple[Any, list[str], str, str]] = {
    "regression": (scores, ["dataset.number_column=score"], "pearson", "BertForSequenceClassification"),
    "multi_label": (sets, ["dataset.labels_column=colours"], "f1_micro", "BertForSequenceClassification"),
    "multiple_choice": (choices, ["dataset.choices_column=endings"], "accuracy", "BertForMultipleChoice"),
    "extractive_qa": (questions, QA, "f1", "BertForQuestionAnswering"),
}


def write(file: str, make: Any, count: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = [make(rng, index) for index in range(count)]
    Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def trained(cli: Any, task: str, *words: str, count: int = 150) -> Path:
    make, columns, _, _ = TASKS[task]
    write("train.jsonl", make, count, 0)
    status, out, err = cli(*SMALL, f"objective={task}", *columns, *words)
    assert status == 0, err
    return Path(out.splitlines()[-1].removeprefix("run: "))


@pytest.mark.parametrize("task", TASKS)
def test_a_task_from_a_file_to_a_report(task: str, cli: Any) -> None:
    make, columns, primary, kind = TASKS[task]
    folder = trained(cli, task, "budget.steps=6")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["selected_by"] == f"validation/{primary}"
    assert f"validation/{primary}" in summary["metric_specs"] and set(summary["metric_specs"]) == set(
        summary["metrics"]
    )

    asked = write("more.jsonl", make, 40, 1)
    status, out, err = cli("predict", f"run={folder}", "file=more.jsonl", "format=jsonl")
    assert status == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    name = "context" if task == "extractive_qa" else "text"
    # one a row, however many the encoder reads
    assert [row[name] for row in rows] == [row[name] for row in asked]
    check_predictions(task, rows)
    status, out, err = cli("predict", f"run={folder}", "file=more.jsonl")
    assert status == 0 and len(out.splitlines()) == 40, err
    status, out, err = cli("evaluate", f"run={folder}", "file=more.jsonl", "format=json")
    assert status == 0 and f"file/{primary}" in json.loads(out), err

    pytest.importorskip("transformers")
    status, out, err = cli("export", f"run={folder}", "to=exported")
    assert (
        status == 0 and kind in out and "tokens and outputs equal to the run's on 8 validation rows" in out
    ), err

    status, out, err = cli("-m", *SMALL, f"objective={task}", *columns, "budget.steps=6,3", "seed=0,1")
    assert status == 0, err
    status, out, err = cli("report", "runs=multirun")
    assert status == 0, err
    assert "higher is better" in Path("report/report.md").read_text()


def check_predictions(task: str, rows: list[dict[str, Any]]) -> None:
    if task == "regression":
        assert all(900 < row["number"] < 1200 for row in rows)  # in the file's unit
    if task == "multi_label":
        assert all(
            row["labels"] == [name for name, p in row["probabilities"].items() if p >= 0.5] for row in rows
        )
    if task == "multiple_choice":
        assert all(
            row["label"] == int(np.argmax(row["probabilities"])) and len(row["choices"]) == 4 for row in rows
        )
    if task == "extractive_qa":
        assert all(
            row["answer"] == ("" if row["start"] is None else row["context"][row["start"] : row["end"]])
            for row in rows
        )


@pytest.mark.parametrize(("task", "least"), [("regression", 0.9), ("multi_label", 0.95)])
def test_a_task_is_learnt(task: str, least: float, cli: Any) -> None:
    folder = trained(cli, task, "budget.epochs=20", "model.pooling=mean", count=300)
    make, _, primary, _ = TASKS[task]
    write("more.jsonl", make, 60, 1)
    status, out, err = cli("evaluate", f"run={folder}", "file=more.jsonl", "format=json")
    assert status == 0 and json.loads(out)[f"file/{primary}"] > least, (out, err)


class Watched:
    """A config that writes down what is read of it."""

    def __init__(self, config: Any) -> None:
        self.config, self.read = config, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.config, name)


@pytest.mark.parametrize("task", TASKS)
def test_examples_are_filed_under_what_prepare_reads(task: str) -> None:
    make, columns, _, _ = TASKS[task]
    write("train.jsonl", make, 60, 0)
    config = compose_schema("train", [*SMALL, f"objective={task}", *columns])
    material = prepare(config)
    watched: Any = Watched(config.objective)
    objective = type(config.objective).build(
        watched, material.tokenizer.vocabulary(), material.objective.label_names
    )
    watched.read.clear()
    list(objective.prepare(material.dataset.splits["train"], material.tokenizer))
    assert watched.read == set(config.objective.prepared_by)


@pytest.mark.parametrize("options", [[], ["objective.views=pairs", "objective.positive_from=1"]])
def test_vectors_are_learnt_and_compared(options: list[str], cli: Any) -> None:
    def pair(rng: random.Random, index: int) -> dict[str, Any]:
        one, other = rng.sample(COLOURS, 2)
        alike = rng.random() < 0.5
        return {
            "text": f"item{index % 7} is {one} .",
            "text_pair": f"a thing of {one if alike else other}",
            "alike": float(alike),
        }

    write("train.jsonl", pair, 120, 0)
    write("more.jsonl", pair, 30, 1)
    words = [
        *SMALL,
        "objective=embedding",
        "dataset.text_pair_column=text_pair",
        "dataset.number_column=alike",
        "model.pooling=mean",
    ]
    status, out, err = cli(*words, *options, "budget.steps=30")
    assert status == 0, err
    folder = Path(out.splitlines()[-1].removeprefix("run: "))
    status, out, err = cli("evaluate", f"run={folder}", "file=more.jsonl", "format=json")
    assert status == 0 and json.loads(out)["file/spearman"] > (0.5 if options else -1), (out, err)
    status, out, err = cli(
        "predict", f"run={folder}", "text=a thing of red", "text_pair=a thing of red", "format=jsonl"
    )
    assert status == 0 and json.loads(out)["cosine"] == pytest.approx(1, abs=1e-5), err
    check_vectors(cli, folder)
    status, _, err = cli(*words, *options, "budget.steps=2", "dataset.text_pair_column=null")
    assert status == 2 and "objective=embedding needs text_pair (text)" in err


def check_vectors(cli: Any, folder: Path) -> None:
    """An exported encoder's pooled outputs are the run's vectors."""
    transformers = pytest.importorskip("transformers")
    assert cli("export", f"run={folder}", "to=exported")[0] == 0
    texts = ["a thing of red", "item3 is blue ."]
    tokenizer = transformers.AutoTokenizer.from_pretrained("exported")
    model = transformers.AutoModel.from_pretrained("exported", trust_remote_code=True)
    with torch.no_grad():
        one, other = model(**tokenizer(texts, return_tensors="pt", padding=True)).pooler_output
    said = json.loads(
        cli("predict", f"run={folder}", f"text={texts[0]}", f"text_pair={texts[1]}", "format=jsonl")[1]
    )["cosine"]
    assert float(torch.cosine_similarity(one, other, dim=0)) == pytest.approx(said, abs=1e-5)
    assert "compare vectors by their cosine" in Path("exported/README.md").read_text()


def test_an_exported_regression_says_the_runs_numbers(cli: Any) -> None:
    transformers = pytest.importorskip("transformers")
    folder = trained(cli, "regression", "budget.steps=6")
    status, out, err = cli("predict", f"run={folder}", "text=fine fine poor", "format=jsonl")
    assert status == 0 and cli("export", f"run={folder}", "to=exported")[0] == 0, err
    (found,) = transformers.pipeline("text-classification", model="exported")("fine fine poor")
    assert found["label"] == "number" and found["score"] == pytest.approx(json.loads(out)["number"], rel=1e-5)


def test_a_regression_that_goes_on_from_another_keeps_its_unit(cli: Any) -> None:
    first = trained(cli, "regression", "budget.steps=6")
    words = [
        "init=checkpoint",
        f"init.path={first}",
        "init.head=true",
        "tokenizer=inherited",
        "budget.steps=1",
        "optimizer.lr=1e-9",
    ]
    write("other.jsonl", lambda rng, index: {**scores(rng, index), "score": index % 3}, 40, 2)
    status, out, err = cli(
        *SMALL,
        "objective=regression",
        "dataset.number_column=score",
        "dataset.train_file=other.jsonl",
        *words,
    )
    assert status == 0, err
    said = [
        json.loads(cli("predict", f"run={run}", "text=fine poor", "format=jsonl")[1])["number"]
        for run in (first, out.splitlines()[-1].removeprefix("run: "))
    ]
    assert said[0] == pytest.approx(said[1], rel=1e-4)


def test_the_datasets_official_score_selects_unless_another_is_asked_for(cli: Any) -> None:
    def selected_by(*words: str) -> str:
        folder = trained(cli, "regression", "budget.steps=2", *words, count=60)
        return str(json.loads((folder / "summary.json").read_text())["selected_by"])

    assert selected_by("dataset.metric=rmse") == "validation/rmse"
    assert selected_by("dataset.metric=rmse", "objective.primary=mae") == "validation/mae"
    assert selected_by("dataset.metric=accuracy") == "validation/pearson"  # no score of this objective's


def test_classes_of_unequal_size_and_importance(cli: Any) -> None:
    write(
        "train.jsonl",
        lambda rng, index: {
            "text": f"{rng.choice(COLOURS)} item{index % 7}",
            "label": ["no", "yes"][index % 5 == 0],
        },
        120,
        0,
    )
    words = [*SMALL, "budget.steps=2", "objective.positive_class=yes", "objective.primary=f1"]
    for weights in ("[1,4.5]", "balanced"):
        status, out, err = cli(*words, f"objective.class_weights={weights}")
        assert status == 0, err
        folder = Path(out.splitlines()[-1].removeprefix("run: "))
        summary = json.loads((folder / "summary.json").read_text())
        assert (
            summary["selected_by"] == "validation/f1" and "validation/balanced_accuracy" in summary["metrics"]
        )
        assert cli("evaluate", f"run={folder}", "file=train.jsonl")[0] == 0
    for word, said in (
        ("objective.class_weights=[1,2,3]", "3 numbers for 2 classes (no, yes)"),
        ("objective.class_weights=heavy", "must be balanced, or a list of numbers above 0"),
        ("objective.positive_class=maybe", "positive_class=maybe: no such class"),
    ):
        status, _, err = cli(*words, word)
        assert status == 2 and said in err and err.count("\n") == 1, err


# --- refused in one line --------------------------------------------------------------------------
def row_of(task: str, **changes: Any) -> dict[str, Any]:
    return {**TASKS[task][0](random.Random(0), 1), **changes}


MALFORMED = [
    (
        "regression",
        {"score": "n/a"},
        "train.jsonl: column 'score' mixes numbers and texts: row 11 holds a text, \"n/a\" (line 11); write"
        " one kind of value, null where there is none",
    ),
    (
        "regression",
        {"score": float("nan")},
        "1 row has no number in column 'score' (dataset.number_column), the first is row 11",
    ),
    ("regression", {"score": float("inf")}, "row 11 holds 'inf', no number, in column 'score'"),
    ("regression", {"score": None}, "leave such rows out with dataset.drop_unlabelled=true"),
    ("multi_label", {"colours": None}, "row 11 has no set of classes in column 'colours'"),
    ("multi_label", {"colours": [["red"]]}, "row 11 holds [['red']], no set of classes"),
    (
        "multiple_choice",
        {"endings": ["it is red", "it is blue", "it is grey"]},
        "row 11 has 3 choices in column 'endings'",
    ),
    (
        "multiple_choice",
        {"endings": ["it is red", None, "x", "y"]},
        "row 11 holds no list of two or more texts",
    ),
    (
        "multiple_choice",
        {"label": 4},
        "row 11 holds '4' in column 'label' (dataset.label_column), which is none of its choices",
    ),
    (
        "multiple_choice",
        {"label": -1},
        "row 11 says in column 'label' (dataset.label_column) of no choice that it is right",
    ),
    (
        "extractive_qa",
        {"answers": {"text": ["Emil"], "answer_start": [0]}},
        "row 11: the answer 'Emil' does not stand at character 0",
    ),
    (
        "extractive_qa",
        {"answers": {"text": ["Anna"], "answer_start": []}},
        "row 11 holds no answers in column 'answers'",
    ),
    (
        "multiple_choice",
        {"endings": ["it is red", "it is blue", " ", "it is grey"]},
        "row 11: choice 3 of 4 is empty in column 'endings'",
    ),
    (
        "extractive_qa",
        {"answers": {"text": [""], "answer_start": [0]}},
        "row 11 holds an empty answer in column 'answers'",
    ),
    (
        "extractive_qa",
        {"context": "", "answers": {"text": [], "answer_start": []}},
        "row 11: the text that column 'answers' (dataset.answers_column) is about is empty",
    ),
    ("extractive_qa", {"question": None}, "row 11 has no text in column 'question'"),
]


@pytest.mark.parametrize(("task", "changes", "said"), MALFORMED)
def test_a_malformed_row_is_named(task: str, changes: dict[str, Any], said: str, cli: Any) -> None:
    make, columns, _, _ = TASKS[task]
    rows = write("train.jsonl", make, 30, 0)
    rows[10] |= changes
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, err = cli(*SMALL, f"objective={task}", *columns, "budget.steps=2")
    assert status == 2 and said in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("task", "words", "said"),
    [
        ("regression", [],
        "objective=regression needs number (number), which dataset=files does not have (it has text, label)"),
        ("regression", ["dataset.number_column=points"], "no column 'points' (dataset.number_column)"),
        ("regression", ["dataset.number_column=text"],
        "row 1 holds 'some text about item0', no number, in column 'text'"),
        ("regression", ["dataset.number_column=same"],
        "numbers of the training split are 3, there is nothing to learn"),
        ("multi_label", [*TASKS["multi_label"][1], "objective.threshold=1"],
        "objective.threshold=1.0: must be less than 1"),
        ("multi_label", [*TASKS["multi_label"][1], "objective.primary=f1_of_pink"],
        "f1_of_pink: objective=multi_label has no"),
        ("extractive_qa", [*QA, "objective.stride=21"], "objective.stride=21: a window holds"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_meant_are_refused(task: str, words: list[str], said: str, cli: Any) -> None:
    make = {"regression": lambda _, index: {"text": f"some text about item{index % 20}", "same": 3}}.get(
        task, TASKS[task][0]
    )
    write("train.jsonl", make, 50, 0)
    status, _, err = cli(*SMALL, f"objective={task}", *words, "budget.steps=2")
    assert status == 2 and said in err and err.count("\n") == 1, err


def test_a_finished_run_refuses_what_it_cannot_read(cli: Any) -> None:
    folder = trained(cli, "multi_label", "budget.steps=2", count=60)
    Path("bad.jsonl").write_text(json.dumps({"text": "pink", "colours": ["pink"]}) + "\n")
    status, _, err = cli("evaluate", f"run={folder}", "file=bad.jsonl")
    assert (
        status == 2
        and "'pink' in column 'colours' (labels_column) (row 1) is not a known class" in err
        and err.count("\n") == 1
    )

    for task, told in (("multiple_choice", "choices"), ("extractive_qa", "context, question")):
        folder = trained(cli, task, "budget.steps=2", count=60)
        status, _, err = cli("predict", f"run={folder}", "text=it is red")
        assert status == 2 and f"this run reads {told} too: give a file with such columns" in err, err


# --- real data ------------------------------------------------------------------------------------
PRESETS = {
    "stsb": ("regression", (5749, 1500, 1379), "pearson"),
    "cola": ("classification", (8551, 1043), "matthews"),
    "mrpc": ("classification", (3668, 408, 1725), "f1"),
    "wnli": ("classification", (635, 71), "accuracy"),
    "banking77": ("classification", (8957, 1046, 3080), "accuracy"),
    "tweeteval_emotion": ("classification", (3257, 374, 1421), "f1_macro"),
    "tweeteval_irony": ("classification", (2862, 955, 784), "f1"),
    "tweeteval_hate": ("classification", (9000, 1000, 2970), "f1_macro"),
    "tweeteval_offensive": ("classification", (11916, 1324, 860), "f1_macro"),
    "codah": ("multiple_choice", (1665, 556, 555), "accuracy"),
    "subjqa": ("extractive_qa", (9084, 1011, 3469), "f1"),
    "xquad_en": ("extractive_qa", (9084, 1011, 1190), "f1"),
    "classic_books": ("mlm", (2859, 60), None),
}


def composed(shared_data: Path, preset: str, *words: str) -> Any:
    config = compose_schema("train", [f"dataset={preset}", f"paths.mirror={shared_data}", *words])
    check_combination(config)
    return config


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_reads_the_real_data(preset: str, shared_data: Path) -> None:
    if not (shared_data / preset.replace("_", "/", 1 if preset.startswith("tweeteval") else 0)).is_dir():
        pytest.skip(f"{preset} is not in the mirror")
    objective, sizes, primary = PRESETS[preset]
    config = composed(shared_data, preset, f"objective={objective}")
    loaded = load_dataset(config.dataset, config.paths, roles_for(config.dataset, config.objective))
    assert tuple(map(len, loaded.splits.values())) == sizes
    if primary is not None:
        assert config.objective.for_task(config.dataset).primary == primary


def test_every_real_answer_is_found_again_from_its_tokens(shared_data: Path) -> None:
    """XQuAD through windows and back: the spans that are learnt, said without a fault, score (almost)
    everything.
    """
    if not (shared_data / "xquad_en").is_dir():
        pytest.skip("xquad_en is not in the mirror")
    config = composed(shared_data, "xquad_en", "objective=extractive_qa", "objective.unanswerable=false",
        "objective.max_length=160",
                      "objective.stride=64", "objective.max_answer=60")  # fmt: skip
    loaded = load_dataset(config.dataset, config.paths, roles_for(config.dataset, config.objective))
    rows = loaded.splits["test"]
    tokenizer = train_tokenizer(
        WordPiece(name="wordpiece", vocab_size=4000), [*rows["context"][:], *rows["question"][:]]
    )
    objective = build_objective(config, tokenizer, [])
    examples = join_examples(objective.prepare(rows, tokenizer))
    spans = np.asarray(examples.columns["span"])
    places = {side: [examples.token_columns[side][examples.offsets[i] + spans[i,
        k]] for i in range(len(examples))]
              for k, side in enumerate(("first", "last"))}  # fmt: skip
    has_answer = spans.any(1)
    measured = {
        "row": examples.rows,
        "best": has_answer.astype(float),
        "none": np.zeros(len(examples)),
        "nats": np.zeros(len(examples)),
    }
    scores = objective.scores(
        {**measured, **{side: np.asarray(place) for side, place in places.items()}}, rows
    )
    assert scores["exact_match"] > 0.97 and scores["f1"] > 0.985, scores
