"""Vectors of texts: of an embedding run what it is scored by, of others their pooled output, one a text, in
order.
"""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import bertlab
from bertlab import api
from bertlab.cli.entry import run_command
from bertlab.config.composition import compose_schema
from bertlab.config.schema import Compute
from bertlab.data.material import build_objective
from bertlab.data.tokenizer_options import WordPiece, train_tokenizer
from bertlab.errors import ConfigError, DataError
from bertlab.export import sentence_transformers
from bertlab.jobs import predict
from bertlab.models.bert import Bert, build
from bertlab.training.assembly import Model
from bertlab.training.finished import FinishedRun

TOKENIZER = train_tokenizer(
    WordPiece(name="wordpiece", vocab_size=60), ["a film was good", "a dull plot was bad"]
)
TEXTS = ["a film was good", "dull", "a dull plot was bad and a film was good", "good film"]
WORDS = ["dataset=files", "dataset.train_file=x.csv", "dataset.text_pair_column=pair"]


def made(objective: str = "embedding", *words: str, **options: Any) -> FinishedRun:
    """What a run would have left."""
    given = [f"objective={objective}", *WORDS, "objective.max_length=8", *words]
    config = copy.deepcopy(compose_schema("train", given))
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "pooling": "mean",
    }
    config.model = Bert(name="bert", **{**sizes, **options})
    encoder = build(config.model, TOKENIZER.vocab_size, TOKENIZER.special.pad_id)
    own = build_objective(config, TOKENIZER, ["no", "yes"] if objective == "classification" else [])
    model = Model(encoder, own.build_head(encoder, 0.02))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.2)
    identity = {"numerics": {"precision": "float32"}}
    return FinishedRun(Path("run"), config, TOKENIZER, own, model.eval(), identity)  # type: ignore[arg-type]


def run_of(trained: FinishedRun) -> bertlab.Run:
    """The same from Python."""
    run = bertlab.Run(Path("run"), {})
    vars(run)["_trained"] = trained
    return run


def by_definition(trained: FinishedRun, text: str, keep: slice = slice(6)) -> np.ndarray:
    """`[CLS] text [SEP]` alone, pooled, at length 1."""
    special, encoder = TOKENIZER.special, trained.model.encoder
    ids = torch.tensor([[special.cls_id, *TOKENIZER.encode([text])[0][keep], special.sep_id]])
    with torch.no_grad():
        return F.normalize(encoder.pool(encoder(ids), None), dim=1)[0].numpy()


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`bertlab predict` on such a run: status, standard output, errors."""

    def call(trained: FinishedRun, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(predict, "find_run", lambda *_: None)
        monkeypatch.setattr(predict, "load_run", lambda _: trained)
        status = run_command(["predict", "run=x", "vectors=true", "compute.threads=1", *words])
        return (status, *capsys.readouterr())

    return call


# --- what they are --------------------------------------------------------------------------------
@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_a_text_has_the_vector_that_its_pairs_are_scored_by(pooling: str) -> None:
    run = run_of(made(pooling=pooling))
    vectors = run.embed(TEXTS)
    assert vectors.shape == (4, 16) and vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(vector, by_definition(run._trained, text), rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    cosines = [row["cosine"] for row in run.predict(TEXTS, TEXTS[::-1])]
    np.testing.assert_allclose((vectors * vectors[::-1]).sum(1), cosines, rtol=0, atol=1e-5)


def test_the_size_of_a_batch_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `batch_size=3` on the command line; what comes out is the same."""
    run, sizes = run_of(made()), list[int]()
    expected = [row["cosine"] for row in run.predict(TEXTS, TEXTS[::-1])]

    def noted(trained: Any, rows: Any, compute: Any, batch_size: int) -> Any:
        sizes.append(batch_size)
        return predict.predict_rows(trained, rows, compute, batch_size)

    monkeypatch.setattr(api, "predict_rows", noted)
    told = run.predict(TEXTS, TEXTS[::-1], batch_size=3)
    assert sizes == [3]
    np.testing.assert_allclose([row["cosine"] for row in told], expected, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="predict: batch_size=0: must be 1 or more"):
        run.predict(TEXTS, TEXTS[::-1], batch_size=0)
    with pytest.raises(ConfigError, match="evaluate: batch_size=0: must be 1 or more"):
        run.evaluate(batch_size=0)


def test_neither_batches_nor_order_change_them() -> None:
    trained = made()
    read = predict.vectors_of(trained)
    rows = predict.from_pairs(read, TEXTS, None)
    one, all_ = (
        np.stack([row["vector"] for row in predict.predict_rows(read, rows, Compute(), size)])
        for size in (1, 256)
    )
    np.testing.assert_allclose(one, all_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(run_of(trained).embed(TEXTS[::-1])[::-1], all_, rtol=0, atol=1e-6)


def test_long_texts_are_cut_as_the_run_cuts_them() -> None:
    run, text = run_of(made("embedding", "objective.truncation=tail")), "a dull plot was bad " * 5
    np.testing.assert_allclose(
        run.embed([text])[0], by_definition(run._trained, text, slice(-6, None)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("objective", "pooling"), [("classification", "cls"), ("mlm", "mean"), ("rtd", "max")]
)
def test_other_runs_have_vectors_of_their_pooled_output(objective: str, pooling: str) -> None:
    run = run_of(made(objective, pooling=pooling))
    np.testing.assert_allclose(run.embed(TEXTS)[1], by_definition(run._trained, TEXTS[1]), atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_they_are_those_of_the_exported_folder(pooling: str, tmp_path: Path) -> None:
    """As the package would compute them of its files, where it is not installed."""
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    from bertlab.export.tokenizer_files import write_tokenizer

    trained = made(pooling=pooling, **({"positions": "rotary"} if pooling == "max" else {}))
    sentence_transformers.write_modules(tmp_path, trained, 8)
    write_tokenizer(tmp_path, TOKENIZER, 8, True)
    vectors = run_of(trained).embed([*TEXTS, "a dull plot was bad " * 5])
    if sentence_transformers.has_package():
        assert sentence_transformers.vectors_difference(tmp_path, trained, 8, None) < 1e-5
    theirs = transformers.AutoModel.from_pretrained(tmp_path, trust_remote_code=pooling == "max").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    given = tokenizer(
        [*TEXTS, "a dull plot was bad " * 5], truncation=True, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        hidden, real = theirs(**given).last_hidden_state, given["attention_mask"][:, :, None].bool()
    if pooling == "cls":
        layer = load_file(tmp_path / "2_Dense" / "model.safetensors")
        pooled = torch.tanh(hidden[:, 0] @ layer["linear.weight"].T + layer["linear.bias"])
    elif pooling == "mean":
        pooled = (hidden * real).sum(1) / real.sum(1)
    else:
        pooled = hidden.masked_fill(~real, -1e9).amax(1)
    np.testing.assert_allclose(vectors, F.normalize(pooled, dim=1).numpy(), rtol=0, atol=1e-5)


# --- files ----------------------------------------------------------------------------------------
@pytest.fixture
def file() -> Path:
    """Four texts, one of them empty; a column that is read by no one."""
    rows = [{"text": text, "nr": nr} for nr, text in enumerate([TEXTS[0], "", *TEXTS[1:3]])]
    place = Path("texts.jsonl")
    place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return place


def test_parquet_holds_them_as_lists_of_float32(predicted: Any, file: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    trained = made()
    status, out, err = predicted(trained, f"file={file}", "out=vectors.parquet")
    assert status == 0, err
    assert "3 rows with a vector of 16 numbers, 1 without a text left as they are: vectors.parquet" in out
    table = pyarrow.parquet.read_table("vectors.parquet")
    assert table.column_names == ["text", "nr", "predicted_vector"]
    assert table.schema.field("predicted_vector").type == pyarrow.list_(pyarrow.float32())
    cells = table["predicted_vector"].to_pylist()
    assert cells[1] is None and table["nr"].to_pylist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(
        np.asarray([cells[0], *cells[2:]], dtype=np.float32), run_of(trained).embed(TEXTS[:3])
    )


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv"])
def test_other_files_hold_them_as_json_lists_that_lose_nothing(
    ending: str, predicted: Any, file: Path
) -> None:
    import pandas

    trained = made()
    status, _, err = predicted(trained, f"file={file}", f"out=vectors.{ending}", "prefix=my_")
    assert status == 0, err
    if ending == "jsonl":
        cells = [json.loads(line)["my_vector"] for line in Path("vectors.jsonl").read_text().splitlines()]
    else:
        frame = pandas.read_csv(f"vectors.{ending}", sep="\t" if ending == "tsv" else ",")
        cells = [json.loads(cell) if isinstance(cell, str) else None for cell in frame["my_vector"]]
    assert cells[1] is None and len(str(cells[0][0])) < 14, "as many digits as tell a float32"
    np.testing.assert_array_equal(
        np.asarray([cells[0], *cells[2:]], dtype=np.float32), run_of(trained).embed(TEXTS[:3])
    )


def test_they_are_printed_for_people_and_for_programs(predicted: Any, file: Path) -> None:
    trained = made()
    vector = run_of(trained).embed(TEXTS[:1])[0]
    status, out, _ = predicted(trained, f"text={TEXTS[0]}")
    assert status == 0 and out.splitlines()[-1] == (
        f"{' '.join(f'{value:.4f}' for value in vector[:4])} … (16 numbers)  {TEXTS[0]}"
    )
    status, out, err = predicted(trained, f"file={file}", "format=jsonl", "id_column=nr")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["nr"], row["text"]) for row in rows] == [(0, TEXTS[0]), (2, TEXTS[1]), (3, TEXTS[2])]
    assert np.asarray(rows[0]["vector"], dtype=np.float32).tolist() == pytest.approx(vector.tolist())
    assert "1 without a text left out" in err


# --- what has none --------------------------------------------------------------------------------
def test_what_has_no_vector_is_told_in_one_line(predicted: Any) -> None:
    cases = [
        (
            made("mlm", pooling="cls"),
            ["text=a"],
            "objective=mlm is not known to train what model.pooling=cls",
        ),
        (
            made("classification", "objective.truncation=windows", "objective.stride=4"),
            ["text=a"],
            "objective.truncation=windows reads a text in several parts",
        ),
        (made(), ["text=a", "text_pair=b"], "vectors=true reads single texts: leave text_pair out"),
    ]
    for trained, words, said in cases:
        status, _, err = predicted(trained, *words)
        lines = [line for line in err.splitlines() if line.startswith("bertlab: ")]
        assert status == 2 and len(lines) == 1 and said in lines[0], err


def test_python_refuses_what_is_no_list_of_texts() -> None:
    import pandas

    run = run_of(made())
    with pytest.raises(TypeError, match=r"embed takes a list of texts"):
        run.embed("a text")
    with pytest.raises(TypeError, match=r"embed\(frame\['text'\]\)"):
        run.embed(pandas.DataFrame({"text": ["a"]}))
    for given, said in (([], "embed: texts is empty"), (["a", " "], r"embed: texts\[1\] is empty")):
        with pytest.raises(DataError, match=said):
            run.embed(given)
    assert run.embed(pandas.Series(["a"])).shape == (1, 16)


def test_who_asks_a_run_of_pairs_for_one_text_is_told_of_vectors() -> None:
    with pytest.raises(DataError, match=r"pairs=.*or take vectors=true, embed\(texts\) in Python"):
        run_of(made()).predict(["a"])
    with pytest.raises(ConfigError, match="vectors=true gives vectors of texts"):
        run_of(made("mlm")).predict(["a"], ["b"])
