"""Exports for onnxruntime and sentence-transformers: graphs of every head, vectors of every pooling, a card
whose code runs.
"""

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bertlab
from bertlab.cli.entry import run_command
from bertlab.config.composition import compose_schema
from bertlab.data.material import build_objective
from bertlab.data.tokenizer_options import WordPiece, train_tokenizer
from bertlab.errors import ConfigError, RunError
from bertlab.export import onnx as graphs
from bertlab.export import sentence_transformers as vectors
from bertlab.models.bert import Bert, build
from bertlab.training.assembly import Model
from bertlab.training.finished import FinishedRun
from tiny import tiny

pytestmark = pytest.mark.slow

EXACT = ["compute.precision=float32", "budget.steps=2", "budget.batch_size=4"]
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 140,
}
MODERN: dict[str, Any] = {
    "positions": "rotary", "norm_placement": "pre", "norm": "rms", "activation": "swiglu", "pooling": "max",
    "type_vocab_size": 1,
    "global_every": 2, "local_window": 4, "qk_norm": "l2", "attention_softcap": 5.0, "value_embeddings": 1,
}  # fmt: skip
HEADS: dict[str, dict[str, Any]] = {
    "classification": MODERN, "multiple_choice": {"pooling": "mean"}, "mlm_nsp": MODERN,
    "extractive_qa": {"positions": "sinusoidal"},
    "embedding": {},
}  # fmt: skip


def untrained(objective: str, **options: Any) -> FinishedRun:
    """What a run would have left, with weights large enough to tell."""
    words = ["objective.max_length=128", "objective.stride=32"] if objective == "extractive_qa" else []
    config = copy.deepcopy(
        compose_schema(
            "train", [f"objective={objective}", "dataset=files", "dataset.train_file=x.csv", *words]
        )
    )
    tokenizer = train_tokenizer(
        WordPiece(name="wordpiece", vocab_size=60), ["a film was good", "a dull plot was bad"]
    )
    config.model = Bert(name="bert", **{**SIZES, **options})
    encoder = build(config.model, tokenizer.vocab_size, tokenizer.special.pad_id)
    made = build_objective(config, tokenizer, ["no", "yes"])
    model = Model(encoder, made.build_head(encoder, 0.02)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.2, generator=generator)
    nowhere: Any = None
    return FinishedRun(nowhere, config, tokenizer, made, model, {})


# --- ONNX -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("objective", HEADS)
def test_a_graph_of_every_head_answers_as_the_run_for_any_number_of_rows_and_tokens(
    objective: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    run = untrained(objective, **HEADS[objective])
    form = graphs.form_of(run.config, "task")
    assert graphs.write_graph(tmp_path, run, form, 128) == "model.onnx"
    assert graphs.graph_difference(tmp_path, run, form, 128, None) < 1e-4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.onnx"], (
        "one file holds weights of any size"
    )
    with torch.no_grad():
        run.model.encoder.token_weight().mul_(-1)
    with pytest.raises(RunError, match="answers otherwise"):
        graphs.graph_difference(tmp_path, run, form, 128, None)


def test_a_deployed_classifier_is_called_as_its_card_says(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    run = bertlab.run(
        tiny(
            *EXACT,
            "model.num_hidden_layers=2",
            "model.positions=rotary",
            "model.pooling=max",
            "objective.max_length=32",
        )
    )
    assert run_command(["export", f"run={run.folder}", "to=deployed", "format=onnx"]) == 0
    assert "outputs in onnxruntime equal to the run's on 8 validation rows" in capsys.readouterr().out
    (code,) = re.findall(r"```python\n(.*?)```", Path("deployed/README.md").read_text(), re.DOTALL)
    texts = ["The plot was brilliant.", "dull " * 60]
    space: dict[str, Any] = {}
    exec(
        code.replace("FOLDER", "deployed").replace('["What a film!", "Two hours lost."]', repr(texts)), space
    )
    logits = space["answers"]["logits"].astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for ours, theirs in zip(run.predict(texts), shares, strict=True):
        assert {space["names"][str(index)]: value for index, value in enumerate(theirs)} == pytest.approx(
            ours["probabilities"], abs=1e-5
        )
    assert "torch" not in code and "transformers" not in code


def test_a_hugging_face_encoder_becomes_a_graph_too(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("transformers")
    from test_hf import folder_of

    place = folder_of("DistilBertConfig", tmp_path / "hub")
    words = [
        f"model.name_or_path={place}",
        "model.pooling=mean",
        "init=pretrained",
        "tokenizer=inherited",
        "compute.threads=1",
    ]
    run = bertlab.run(
        [
            *EXACT,
            "dataset.train_size=40",
            "dataset.validation_size=20",
            "dataset.test_size=20",
            "model=hf",
            *words,
        ]
    )
    assert run_command(["export", f"run={run.folder}", "to=deployed", "format=onnx"]) == 0


def test_what_is_missing_is_named_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    config = compose_schema("train", ["objective=classification"])
    with pytest.raises(ConfigError, match=r"format=onnx needs .*onnxscript.*: pip install 'bertlab\[onnx\]'"):
        graphs.form_of(config, "task")


# --- sentence-transformers ------------------------------------------------------------------------
def pairs() -> list[str]:
    rows = [
        {
            "a": f"the film was {('good', 'bad')[i % 2]}",
            "b": f"it was {('good', 'bad')[i % 3 == 0]} {i}",
            "n": i % 5,
        }
        for i in range(40)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {
        "train_file": "pairs.jsonl",
        "text_column": "a",
        "text_pair_column": "b",
        "number_column": "n",
        "validation_fraction": 0.3,
    }
    return [
        "dataset=files",
        "dataset.label_column=null",
        *(f"dataset.{key}={value}" for key, value in columns.items()),
    ]


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_vectors_are_laid_out_as_the_package_expects(pooling: str, tmp_path: Path) -> None:
    """Without the package: what its files say, computed by hand, gives the run's vectors."""
    from safetensors.torch import load_file

    transformers = pytest.importorskip("transformers")
    run = untrained("embedding", pooling=pooling, **({"positions": "rotary"} if pooling == "max" else {}))
    kind = vectors.write_modules(tmp_path, run, 128)
    assert kind == (
        "SentenceTransformer of a BertlabModel" if pooling == "max" else "SentenceTransformer of a BertModel"
    )
    modules = [
        (module["type"].rpartition(".")[2], module["path"])
        for module in json.loads((tmp_path / "modules.json").read_text())
    ]
    assert [name for name, _ in modules] == [
        "Transformer",
        "Pooling",
        *(["Dense"] if pooling == "cls" else []),
        "Normalize",
    ]
    model = transformers.AutoModel.from_pretrained(tmp_path, trust_remote_code=True).eval()
    ids = torch.tensor([[2, 9, 8, 7, 3], [2, 11, 3, 0, 0]])
    mask = ids != 0
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        said = json.loads((tmp_path / dict(modules)["Pooling"] / "config.json").read_text())
        real = mask[:, :, None]
        if said["pooling_mode_cls_token"]:
            layer = load_file(tmp_path / dict(modules)["Dense"] / "model.safetensors")
            pooled = torch.tanh(hidden[:, 0] @ layer["linear.weight"].T + layer["linear.bias"])
        elif said["pooling_mode_mean_tokens"]:
            pooled = (hidden * real).sum(1) / real.sum(1)
        else:
            pooled = hidden.masked_fill(~real, -1e9).amax(1)
        encoder = run.model.encoder
        assert sum(value for name, value in said.items() if name.startswith("pooling_mode")) == 1
        torch.testing.assert_close(pooled, encoder.pool(encoder(ids, None, mask), mask), rtol=1e-5, atol=1e-5)


def test_the_package_opens_it_and_gives_the_runs_vectors(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sentence_transformers")
    words = [
        "objective=embedding",
        "model.num_hidden_layers=2",
        "model.positions=rotary",
        "model.pooling=mean",
    ]
    run = bertlab.run(tiny(*EXACT, *pairs(), *words, sizes=None))
    assert run_command(["export", f"run={run.folder}", "to=vectors", "format=sentence_transformers"]) == 0
    assert "tokens and vectors equal to the run's on 8 validation rows" in capsys.readouterr().out


def test_other_objectives_have_no_vectors_and_are_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    run = bertlab.run(tiny(*EXACT, "model.num_hidden_layers=1"))
    assert run_command(["export", f"run={run.folder}", "to=vectors", "format=sentence_transformers"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "objective=embedding" in line and not Path("vectors").exists()
