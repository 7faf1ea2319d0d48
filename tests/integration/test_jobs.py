"""evaluate, predict, the Python API and W&B on a run that was really trained."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import bertlab
from bertlab.errors import ConfigError, DataError, RunError
from bertlab.training.steps.stops import MemoryExhausted
from children import PATIENCE
from tiny import tiny

WORDS = (
    "dataset.train_size=2500", "dataset.validation_size=200", "dataset.test_size=100", "model.hidden_size=64",
    "model.num_attention_heads=1", "budget.epochs=2", "optimizer.lr=2e-3", "compute.threads=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return bertlab.run([*WORDS, f"paths.output={tmp_path_factory.mktemp('runs')}"])


def test_python_run_is_the_command_lines_run(run: Any, cli: Any) -> None:
    status, out, _ = cli(*WORDS, f"paths.output={run.folder.parent}")
    assert status == 0 and "finished already" in out and out.splitlines()[-1] == f"run: {run.folder}"


def test_run_object_offers_what_a_notebook_needs(run: Any) -> None:
    loaded = bertlab.load(run.folder)
    assert loaded.metrics == run.metrics and 0 <= run.metrics["validation/accuracy"] <= 1
    history = run.history
    assert {"step", "epoch", "train/loss", "validation/accuracy", "validation/loss"} <= set(history.columns)
    assert history["validation/accuracy"].dropna().max() == run.metrics["validation/accuracy"]
    assert run.config.budget.epochs == 2 and run.tokenizer.vocab_size > 50 and not run.model.training
    rows = run.predict(["the plot is not dull", "a terrible plot"])
    assert [set(row) for row in rows] == [{"text", "label", "probabilities"}] * 2
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in rows)


def test_run_folder_holds_everything_that_the_readme_promises(run: Any) -> None:
    names = {file.relative_to(run.folder).as_posix() for file in run.folder.rglob("*") if file.is_file()}
    assert {
        "summary.json", "config.yaml", "environment.json", "identity.json", "metrics.jsonl", "curves.png",
        "model.safetensors",
        "last.safetensors", "tokenizer.json", "labels.json", "predictions/validation.jsonl",
        "predictions/test.jsonl",
    } <= names  # fmt: skip
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["metrics"]["best_possible/accuracy"] == 0.95
    environment = json.loads((run.folder / "environment.json").read_text())
    assert (
        environment["packages"]["torch"] == torch.__version__.split("+")[0]
        or environment["packages"]["torch"] == torch.__version__
    )
    assert set(environment["git"] or {"revision", "dirty"}) == {"revision", "dirty"}


def test_evaluate_repeats_the_scores_of_training(run: Any, cli: Any) -> None:
    for split in ("validation", "test"):
        status, out, err = cli(
            "evaluate", f"run={run.folder}", f"split={split}", "format=json", "compute.threads=1"
        )
        assert status == 0, err
        found = json.loads(out)
        for name, value in run.metrics.items():
            if name.startswith(f"{split}/"):
                assert found[name] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value)
    status, out, _ = cli("evaluate", f"run={run.folder}")
    assert status == 0 and "true / predicted" in out and "negative" in out


def test_evaluate_takes_a_file_of_ones_own(run: Any, cli: Any, tmp_path: Path) -> None:
    predicted = run.predict(["the plot is brilliant", "the plot is dull"])
    rows = "".join(f"{row['text']},{row['label']}\n" for row in predicted)
    (tmp_path / "own.csv").write_text("text,label\n" + rows)
    status, out, err = cli("evaluate", f"run={run.folder}", "file=own.csv", "format=json")
    assert status == 0 and json.loads(out)["file/accuracy"] == 1.0, err


def test_predict_reads_text_files_tables_and_standard_input(
    run: Any, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the plot is brilliant", "the plot is “dull”"]
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    expected = [(row["text"], row["label"]) for row in run.predict(texts)]
    for source in ("file=t.txt", "file=t.jsonl", "file=-"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(texts) + "\n"))
        status, out, err = cli("predict", f"run={run.folder}", source, "format=jsonl")
        assert status == 0, err
        assert [(row["text"], row["label"]) for row in map(json.loads, out.splitlines())] == expected
    status, out, _ = cli(
        "predict", f"run={run.folder.name[-12:]}", f"paths.output={run.folder.parent}", f"text={texts[0]}"
    )
    assert status == 0 and len(out.splitlines()) == 1 and expected[0][1] in out, (
        "an id is enough, a table row is one line"
    )


def test_weights_of_a_run_start_another(run: Any, tmp_path: Path) -> None:
    other = bertlab.run(
        [
            *WORDS,
            "init=checkpoint",
            f"init.path={run.folder}",
            "init.head=true",
            "budget.epochs=0.01",
            "optimizer.lr=1e-9",
            f"paths.output={tmp_path}",
        ]
    )
    assert other.metrics["validation/accuracy"] == run.metrics["validation/accuracy"]


def test_python_errors_are_typed_and_readable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'optimizer\.lr'"):
        bertlab.run(["optimizer.lrr=1"])
    with pytest.raises(RunError, match="no such folder"):
        bertlab.load(tmp_path / "nowhere")


def test_pairs_train_and_predict(cli: Any, tmp_path: Path) -> None:
    pairs = bertlab.run(
        ["dataset.task=pairs", "debug=smoke", "compute.threads=1", f"paths.output={tmp_path}"]
    )
    status, out, err = cli("predict", f"run={pairs.folder}", "text=a", "text_pair=b", "format=jsonl")
    assert status == 0 and set(json.loads(out)) == {"text", "text_pair", "label", "probabilities"}, err
    assert len(json.loads(out)["probabilities"]) == 3


def wandb_records(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Config and history of an offline W&B run, read back by W&B's own reader in another process."""
    place = next(folder.glob("wandb/offline-run-*"))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--summary", "--json", str(place)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), list(place.glob("*.wandb"))


def test_wandb_offline_holds_the_run_and_is_closed(cli: Any, tmp_path: Path) -> None:
    import wandb

    status, out, err = cli(
        *WORDS,
        "budget.epochs=0.3",
        "tracker=wandb",
        "tracker.mode=offline",
        "tags=[a,b]",
        f"paths.output={tmp_path}",
    )
    assert status == 0, err
    folder = Path(out.splitlines()[-1].removeprefix("run: "))
    assert wandb.run is None, "no run is left open"
    summary, files = wandb_records(folder)
    assert len(files) == 1
    text = json.dumps(summary)
    for name in ("validation/accuracy", "cost/tokens", "command"):
        assert name in text
    assert "to upload it: wandb sync " in out


def test_failed_job_leaves_no_wandb_run_open(cli: Any, tmp_path: Path) -> None:
    import wandb

    status, _, err = cli(
        *WORDS,
        "optimizer=sgd",
        "optimizer.lr=1e30",
        "optimizer.clip_norm=0",
        "schedule.warmup_fraction=0",
        "tracker=wandb",
        "tracker.mode=offline",
        f"paths.output={tmp_path}",
    )
    assert status == 2 and "diverged at step" in err and "learning rate" in err
    assert wandb.run is None
    summary = json.loads(next(tmp_path.glob("*/summary.json")).read_text())
    assert summary["status"] == "failed" and "diverged" in summary["error"]


def test_a_pretrained_checkpoint_starts_a_run_in_our_own_encoder(
    cli: Any, tmp_path: Path, minilm: Path
) -> None:
    folder = minilm
    model = (
        "model=bert",
        "model.hidden_size=384",
        "model.num_hidden_layers=6",
        "init=pretrained",
        f"init.path={folder}",
        "debug=smoke",
    )
    rest = (
        "optimizer.lr=1e-9",
        "compute.threads=1",
        f"paths.output={tmp_path}",
        "dataset.validation_size=30",
        "dataset.test_size=30",
    )
    heads = "model.num_attention_heads=12"
    status, out, err = cli(*model, heads, "tokenizer=pretrained", f"tokenizer.path={folder}", *rest)
    assert status == 0, err
    weights = load_file(out.splitlines()[-1].removeprefix("run: ") + "/model.safetensors")
    theirs = load_file(folder / "model.safetensors")
    name = "encoder.layer.3.attention.self.query.weight"
    torch.testing.assert_close(
        weights["encoder.layers.3.attention.query.weight"], theirs[name], atol=1e-7, rtol=0
    )
    for wrong, expected in (
        (("model.num_attention_heads=6",), "set model.num_attention_heads=12"),
        ((heads,), "tokenizer=inherited"),
    ):
        status, _, err = cli(*model, *wrong, *rest)
        assert status == 2 and expected in err and len(err.splitlines()) == 1


def test_weights_of_another_vocabulary_or_architecture_are_refused(
    run: Any, cli: Any, tmp_path: Path
) -> None:
    start = ("init=checkpoint", f"init.path={run.folder}", f"paths.output={tmp_path}")
    status, _, err = cli(*WORDS, "model.num_attention_heads=2", *start)
    assert status == 2 and "model.num_attention_heads=1" in err
    status, _, err = cli(*WORDS, "tokenizer.lowercase=false", *start)
    assert status == 2 and "another vocabulary" in err
    file = f"init.path={run.folder / 'model.safetensors'}"  # the run is known by its file too
    status, _, err = cli(*WORDS, "tokenizer.lowercase=false", *start, file)
    assert status == 2 and "another vocabulary" in err
    status, _, err = cli(*WORDS, "model.num_attention_heads=2", *start, file)
    assert status == 2 and "model.num_attention_heads=1" in err
    assert not list(tmp_path.iterdir()), "nothing is left half-written"


def test_changed_data_are_not_scored_as_the_runs_own(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n" + "a good film,1\na bad film,0\n" * 30)
    status, out, err = cli(
        "dataset=files", "dataset.train_file=t.csv", "debug=smoke", "dataset.fraction=1", "compute.threads=1"
    )
    assert status == 0, err
    found = out.splitlines()[-1].removeprefix("run: ")
    assert cli("evaluate", f"run={found}")[0] == 0
    with (tmp_path / "t.csv").open("a") as file:
        file.write("a new film,1\n")
    status, _, err = cli("evaluate", f"run={found}")
    assert status == 2 and "not those that the run was trained on" in err


def test_files_of_pairs_keep_both_texts(cli: Any, tmp_path: Path) -> None:
    pairs = bertlab.run(
        ["dataset.task=pairs", "debug=smoke", "compute.threads=1", f"paths.output={tmp_path / 'runs'}"]
    )
    texts, seconds = ["the plot is fun", "the food is dull"], ["the plot is dull", "the food is dull"]
    (tmp_path / "p.csv").write_text(
        "text,text_pair\n" + "".join(f"{a},{b}\n" for a, b in zip(texts, seconds, strict=True))
    )
    status, out, err = cli("predict", f"run={pairs.folder}", "file=p.csv", "format=jsonl")
    assert status == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["text_pair"] for row in rows] == seconds
    for row, expected in zip(rows, pairs.predict(texts, seconds), strict=True):
        assert row["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)


def test_a_file_of_ones_own_may_have_other_columns(run: Any, cli: Any, tmp_path: Path) -> None:
    predicted = run.predict(["the plot is brilliant", "the plot is dull"])
    rows = "".join(f"{row['text']},{row['label']}\n" for row in predicted)
    (tmp_path / "own.csv").write_text("review,stars\n" + rows)
    columns = ("file=own.csv", "text_column=review", "label_column=stars")
    status, out, err = cli("evaluate", f"run={run.folder}", *columns, "format=json")
    assert status == 0 and json.loads(out)["file/accuracy"] == 1.0, err
    status, out, err = cli(
        "predict", f"run={run.folder}", "file=own.csv", "text_column=review", "format=jsonl"
    )
    assert status == 0 and [json.loads(line)["label"] for line in out.splitlines()] == [
        row["label"] for row in predicted
    ], err
    status, _, err = cli("predict", f"run={run.folder}", "text=a", "text_column=review")
    assert status == 2 and "file=PATH" in err


def test_a_run_on_raw_columns_scores_a_plain_file(cli: Any, tmp_path: Path) -> None:
    raw = "".join(
        f'"{4 * (row % 2)}","{row}","Mon","NO_QUERY","me","{"good" if row % 2 else "bad"} film {row % 7}"\n'
        for row in range(60)
    )
    (tmp_path / "raw.csv").write_text(raw, encoding="latin-1")
    words = (
        "dataset=sentiment140",
        "dataset.train_file=raw.csv",
        "debug=smoke",
        "dataset.fraction=1",
        "compute.threads=1",
    )
    status, out, err = cli(*words)
    assert status == 0, err
    found = out.splitlines()[-1].removeprefix("run: ")
    (tmp_path / "plain.csv").write_text("text,label\na good film,positive\na bad film,negative\n")
    status, out, err = cli(
        "evaluate", f"run={found}", "file=plain.csv", "text_column=text", "label_column=label", "format=json"
    )
    assert status == 0 and "file/accuracy" in json.loads(out), err


MESSY = [
    {"id": "a1", "text": "A wonderful film, they said.", "label": "positive", "note": "x;y"},
    {"id": "a2", "text": "", "label": "negative", "note": ""},
    {"id": "a3", "text": "a terrible plot", "label": "", "note": "007"},
]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_predictions_stand_beside_every_row_and_column_of_the_input(
    run: Any, cli: Any, tmp_path: Path, ending: str
) -> None:
    import pandas

    given, out = tmp_path / "in.csv", tmp_path / f"out.{ending}"
    pandas.DataFrame(MESSY).to_csv(given, index=False)
    status, told, err = cli(
        "predict", f"run={run.folder}", f"file={given}", f"out={out}", "compute.threads=1"
    )
    assert status == 0, err
    assert "2 rows labelled, 1 without a text left as they are" in told
    read = {"csv": pandas.read_csv, "tsv": lambda file, **options: pandas.read_csv(file, sep="\t", **options)}
    frame = (
        read[ending](out, dtype=str, keep_default_na=False) if ending in read
        else pandas.read_parquet(out) if ending == "parquet" else pandas.read_json(out, lines=True,
        dtype=False)
    )  # fmt: skip
    assert frame[["id", "text", "label", "note"]].to_dict("records") == MESSY
    labels = [label if isinstance(label, str) and label else None for label in frame["predicted_label"]]
    bare = run.predict([MESSY[0]["text"], MESSY[2]["text"]])
    assert labels == [bare[0]["label"], None, bare[1]["label"]]
    assert float(frame["predicted_probabilities_positive"][2]) == pytest.approx(
        bare[1]["probabilities"]["positive"], abs=1e-5
    )


def test_a_labelled_file_keeps_delimiter_and_mark(run: Any, cli: Any, tmp_path: Path) -> None:
    given = tmp_path / "in.csv"
    given.write_bytes(b'\xef\xbb\xbftext;note\n"a fine; film";x\n')
    words = ["predict", f"run={run.folder}", f"file={given}", "delimiter=';'"]
    for ending, mark, header in (
        ("csv", b"\xef\xbb\xbf", b"text;note;predicted_label;"), ("tsv", b"\xef\xbb\xbf", b"text\tnote\t")
    ):  # fmt: skip
        status, _, err = cli(*words, f"out={tmp_path / f'out.{ending}'}")
        assert status == 0, err
        assert (tmp_path / f"out.{ending}").read_bytes().startswith(mark + header)
    given.write_bytes(given.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    assert cli(*words, f"out={tmp_path / 'out.csv'}")[0] == 0
    assert (tmp_path / "out.csv").read_bytes().startswith(b"text;note;predicted_label")
    assert b'"a fine; film";x;' in (tmp_path / "out.csv").read_bytes()


def test_predict_refuses_what_would_lose_something(run: Any, cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text("text,predicted_label\ngood,x\n")
    for words, line in (
        ([f"out={file}"], "is the file that is read"),
        ([f"out={tmp_path / 'out.xls'}"], "unknown ending .xls; write .csv, .tsv, .jsonl, .parquet"),
        ([f"out={tmp_path / 'out.csv'}"], "has a column 'predicted_label' already"),
        (["id_column=nr"], "no column 'nr' (id_column)"),
        (["id_column=text", f"out={tmp_path / 'out.csv'}"], "predict: id_column is about what is printed"),
        (["format=jsonl", f"out={tmp_path / 'out.csv'}"], "predict: format is about what is printed"),
        (["prefix=other_"], "prefix begins the names of columns in a file: add out=PATH"),
    ):
        status, _, err = cli("predict", f"run={run.folder}", f"file={file}", *words)
        assert status == 2 and line in err and not (tmp_path / "out.csv").exists()
    assert file.read_text() == "text,predicted_label\ngood,x\n"
    status, _, _ = cli(
        "predict", f"run={run.folder}", f"file={file}", f"out={tmp_path / 'out.csv'}", "prefix=second_"
    )
    assert status == 0 and (tmp_path / "out.csv").read_text().startswith("text,predicted_label,second_label,")


def test_lines_are_read_in_the_encoding_that_is_told(run: Any, cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_bytes("a café\r\n\r\ngood film\n".encode("latin-1"))
    words = ["predict", f"run={run.folder}", f"file={file}"]
    status, _, err = cli(*words)
    assert status == 2 and "line 1 is not utf-8" in err and "set encoding, e.g. latin-1" in err
    status, out, err = cli(*words, "encoding=latin-1", "format=jsonl")
    assert status == 0, err
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["a café", "good film"]
    assert cli(*words, "encoding=latin-1", f"out={tmp_path / 'out.csv'}")[0] == 0
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[1].startswith("a café,")


def test_printed_predictions_are_called_by_their_ids(run: Any, cli: Any, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("nr,text\nA7,good film\nB8,bad film\n")
    words = ["predict", f"run={run.folder}", f"file={tmp_path / 'in.csv'}", "id_column=nr"]
    assert [line.split()[0] for line in cli(*words)[1].splitlines()] == ["A7", "B8"]
    assert [json.loads(line)["nr"] for line in cli(*words, "format=jsonl")[1].splitlines()] == ["A7", "B8"]


def test_evaluate_counts_what_it_leaves_out_and_keeps_its_result(run: Any, cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("text,label\na wonderful film,positive\na terrible plot,negative\nwho knows,\n")
    status, out, err = cli("evaluate", f"run={run.folder}", f"file={file}")
    assert status == 0, err
    assert "2 rows scored, 1 without an answer left out" in out
    (kept,) = (run.folder / "evaluations").glob("mine-*.json")
    record = json.loads(kept.read_text())
    assert (record["rows"], record["left_out"], record["file"]) == (2, 1, str(file)) and 0 <= record[
        "file/accuracy"
    ] <= 1
    assert bertlab.load(run.folder).metrics == run.metrics


def test_python_scores_and_labels_frames_and_draws(run: Any) -> None:
    import pandas

    frame = pandas.DataFrame(
        {
            "id": [7, 8, 9],
            "text": ["a wonderful film", None, "a terrible plot"],
            "label": ["positive", "negative", None],
        }
    )
    labelled = run.predict(frame.set_index("id", drop=False))
    assert list(labelled.index) == [7, 8, 9] and labelled["predicted_label"].isna().tolist() == [
        False,
        True,
        False,
    ]
    found = run.evaluate(frame[frame["text"].notna()])
    assert (found["rows"], found["left_out"]) == (1, 1) and found["accuracy"] in (0.0, 1.0)
    assert run.evaluate()["accuracy"] == pytest.approx(run.metrics["validation/accuracy"], abs=1e-6)
    assert len(run.plot().axes) == 2 and run.plot()._repr_png_().startswith(b"\x89PNG")
    assert (
        repr(run).startswith(f"<bertlab run {run.folder.name}: validation/accuracy 0.")
        and len(repr(run)) < 250
    )
    assert "data:image/png;base64" in run._repr_html_()


@pytest.fixture(scope="module")
def run_of_other_names(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its column of texts is called Text."""
    folder = tmp_path_factory.mktemp("names")
    lines = [f"{'good' if row % 2 else 'bad'} film {row},{'yes' if row % 2 else 'no'}" for row in range(40)]
    (folder / "train.csv").write_text("\n".join(["Text,Queue", *lines]) + "\n")
    return bertlab.run(
        ["dataset=files", f"dataset.train_file={folder / 'train.csv'}", "dataset.text_column=Text",
         "dataset.label_column=Queue", "debug=smoke", "compute.threads=1", f"paths.output={folder / 'runs'}"]
    )  # fmt: skip


def test_bare_texts_are_written_line_by_line_whatever_the_column_is_called(
    run_of_other_names: Any, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "lines.txt", tmp_path / "out.csv"
    file.write_text("good film\n\nbad film\n")
    words = ["predict", f"run={run_of_other_names.folder}"]
    for source in ([f"file={file}"], []):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
        status, told, err = cli(*words, *source, f"out={out}")
        assert status == 0, err
        assert "2 rows labelled, 1 without a text left as they are" in told
        with out.open(newline="") as stream:
            labelled = list(csv.DictReader(stream))
        assert [row["Text"] for row in labelled] == ["good film", "", "bad film"]
        assert [bool(row["predicted_label"]) for row in labelled] == [True, False, True]
    status, told, err = cli(*words, f"file={file}", "format=jsonl")
    assert status == 0 and len(told.splitlines()) == 2 and "1 without a text left out" in err


def test_rows_without_a_text_are_left_out_of_a_score_and_counted(run: Any, cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "gaps.jsonl"
    rows = [{"text": "a wonderful film", "label": "positive"}, {"text": None, "label": None},
            {"text": "", "label": "negative"}, {"text": "who knows", "label": None}]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out, err = cli("evaluate", f"run={run.folder}", f"file={file}")
    assert status == 0, err
    assert "1 rows scored, 2 without a text and 1 without an answer left out" in out
    (kept,) = (run.folder / "evaluations").glob("gaps-*.json")
    assert json.loads(kept.read_text())["left_out_why"] == {"without a text": 2, "without an answer": 1}
    kept.unlink()


@pytest.mark.parametrize(
    ("texts", "pairs", "said"),
    [
        ([], None, "texts is empty"),
        (["a", None], None, r"texts\[1\] is None, no text"),
        (["a", 3], None, r"texts\[1\] is 3, no text"),
        ([("a", "b")], None, r"texts\[0\] is \('a', 'b'\), no text; second texts .*pairs"),
        (["a", " "], None, r"texts\[1\] is empty"),
        (["a"], ["b"], "leave pairs out"),
        (["a"], ["b", "c"], "1 texts, but 2 pairs"),
    ],
)
def test_python_refuses_what_are_no_texts_in_one_line(run: Any, texts: Any, pairs: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        run.predict(texts, pairs)


def test_python_refuses_a_frame_with_two_columns_of_one_name(run: Any) -> None:
    import pandas

    frame = pandas.DataFrame([["a", "b", "positive"]], columns=["text", "text", "label"])
    for read in (run.predict, run.evaluate):
        with pytest.raises(DataError, match="two columns called 'text'"):
            read(frame)


def test_cures_of_evaluate_work_when_they_are_pasted(run: Any, cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("text,label\na wonderful film,good\na terrible plot,negative\n")
    words = ["evaluate", f"run={run.folder}", f"file={file}", "format=json"]
    status, _, err = cli(*words)
    assert (
        status == 2
        and "column 'label' (label_column)" in err
        and "label_map={good: …} says which class it is" in err
    )
    assert "dataset." not in err
    status, out, err = cli(*words, "label_map={good: positive}")
    assert status == 0 and json.loads(out)["rows"] == 2, err
    status, _, err = cli(*words, "label_map={good: positiv}")
    assert status == 2 and "the run has no class 'positiv', did you mean 'positive'?" in err
    status, _, err = cli(*words[:2], "label_map={good: positive}")
    assert status == 2 and "label_map describes a file of your own" in err
    status, _, err = cli(*words, "delimiter=ab")
    assert status == 2 and "delimiter='ab': must be one character" in err
    file.write_text('a "wonderful film\tgood\na terrible plot\tnegative\n')
    status, out, err = cli(
        *words, "label_map={good: positive}", "column_names=[text,label]", "quoting=none", "delimiter=\\t"
    )
    assert status == 0 and json.loads(out)["rows"] == 2, err


def test_frames_may_have_other_columns_and_labels(run: Any) -> None:
    import pandas

    frame = pandas.DataFrame({"body": ["a wonderful film", "dull"], "stars": ["good", "negative"]})
    found = run.evaluate(frame, text_column="body", label_column="stars", label_map={"good": "positive"})
    assert found["rows"] == 2
    assert run.predict(frame, text_column="body")["predicted_label"].notna().all()
    with pytest.raises(ConfigError, match="unknown key 'text_colum', did you mean 'text_column'"):
        run.predict(frame, text_colum="body")
    with pytest.raises(DataError, match=r"no column 'text' \(text_column\)"):
        run.predict(frame)


def test_python_sweeps_lists_and_reports(tmp_path: Path) -> None:
    words = tiny("budget.steps=2", f"paths.output={tmp_path / 'runs'}")
    made = bertlab.sweep([*words, "optimizer.lr=1e-3,2e-3", "seed=range(2)"])
    assert [(run.config.optimizer.lr, run.config.seed) for run in made] == [
        (1e-3, 0),
        (1e-3, 1),
        (2e-3, 0),
        (2e-3, 1),
    ]
    frame = bertlab.runs(tmp_path / "runs", where="optimizer.lr=2e-3", sort="-seed")
    assert frame["run"].tolist() == [made[3].folder.name, made[2].folder.name]
    assert frame["validation"].tolist() == [run.metrics["validation/accuracy"] for run in (made[3], made[2])]
    report = bertlab.report(tmp_path / "runs", out=tmp_path / "report", examples=False, contamination=False)
    assert len(report.table) == 2 and (tmp_path / "report" / "report.html").is_file()
    with pytest.raises(ConfigError, match="unknown setting 'baselin', did you mean 'baseline'"):
        bertlab.report(tmp_path / "runs", baselin="x")
    with pytest.raises(ConfigError, match="sweep makes grids"):
        bertlab.sweep(["search=lr_batch"])
    assert bertlab.runs.folder.RunFolder is not None  # type: ignore[attr-defined]  # the room of the same name is there still
    assert {"run", "load", "sweep", "runs", "report"} <= set(dir(bertlab))


def test_memory_exhausted_in_processes_of_others_is_one_line(
    cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that torchrun started cannot begin again by themselves: the setting to give is told."""

    def exhausted(*_: Any) -> None:
        raise MemoryExhausted(8)

    monkeypatch.setattr("bertlab.jobs.train.train", exhausted)
    status, _, errors = cli(*tiny())
    assert (
        status == 2
        and errors == "bertlab: out of memory: the same command with compute.micro_batch_size=8 may fit\n"
    )
