"""The detector of replaced tokens as it leaves: transformers' ELECTRA where that computes it, else our
modelling file, else a graph; the generator stays behind.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import random_weights

from bertlab.config.composition import compose_schema
from bertlab.contracts import Batch
from bertlab.data.material import build_objective
from bertlab.data.tokenizer_options import WordPiece, train_tokenizer
from bertlab.export import model as export
from bertlab.export import onnx as graphs
from bertlab.export import verification
from bertlab.models.bert import Bert, build
from bertlab.training.assembly import Model
from bertlab.training.finished import FinishedRun

transformers = pytest.importorskip("transformers")
TOKENIZER = train_tokenizer(
    WordPiece(name="wordpiece", vocab_size=60), ["a film was good", "a dull plot was bad"]
)
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 140,
}
ELECTRA, OWN = "ElectraForPreTraining", "BertlabForPreTraining"
LEAVES: dict[str, tuple[dict[str, Any], str]] = {
    "as Devlin's": ({}, ELECTRA),
    "pooled by the mean": ({"pooling": "mean"}, ELECTRA),
    "narrow embeddings": ({"embedding_size": 8, "type_vocab_size": 1}, ELECTRA),
    "spare rows": ({"vocab_size": 70, "norm_eps": 1e-5, "tie_embeddings": False}, ELECTRA),
    # there the head takes the encoder's activation, here GELU
    "another activation": ({"activation": "relu"}, OWN),
    "the other GELU": ({"activation": "gelu_tanh"}, OWN),
    "rotary positions": ({"positions": "rotary", "norm_placement": "pre", "activation": "swiglu"}, OWN),
    "narrow and rotary": ({"positions": "rotary", "embedding_size": 8}, OWN),
}
IN_FULL = ("as Devlin's", "narrow and rotary")


def detector(**options: Any) -> FinishedRun:
    """What a run would have left, with weights large enough to tell."""
    config = copy.deepcopy(
        compose_schema("train", ["objective=rtd", "dataset=files", "dataset.train_file=x.csv"])
    )
    config.model = Bert(name="bert", **SIZES, **options)
    encoder = build(config.model, TOKENIZER.vocab_size, TOKENIZER.special.pad_id)
    made = build_objective(config, TOKENIZER, [])
    model = Model(encoder, made.build_head(encoder, 0.02))
    random_weights(model, 0)
    with torch.no_grad():
        for weight in model.head.detector.parameters():
            weight.mul_(5)
    nowhere: Any = None
    return FinishedRun(nowhere, config, TOKENIZER, made, model.eval(), {})


def pretrained() -> FinishedRun:
    """The same of masked tokens and pairs, on an encoder of our own."""
    words = ["objective=mlm_nsp", "dataset=files", "dataset.train_file=x.csv"]
    config = copy.deepcopy(compose_schema("train", words))
    config.model = Bert(name="bert", **SIZES, positions="rotary")
    encoder = build(config.model, TOKENIZER.vocab_size, TOKENIZER.special.pad_id)
    made = build_objective(config, TOKENIZER, [])
    nowhere: Any = None
    return FinishedRun(nowhere, config, TOKENIZER, made, Model(encoder, made.build_head(encoder, 0.02)), {})


def said_of(run: FinishedRun, batch: Batch) -> torch.Tensor:
    """Our detector's logits of these very tokens, by its definition: where nothing is masked, the generator
    puts nothing in.
    """
    nothing = torch.zeros(0, dtype=torch.long)
    targets = {"masked": nothing, "label": nothing, "uniform": torch.zeros(0)}
    outputs = run.model(
        Batch(
            batch.input_ids,
            batch.segment_ids,
            batch.attention_mask,
            targets,
            batch.num_tokens,
            batch.num_examples,
        )
    )
    assert not outputs.replaced.any()
    logits: torch.Tensor = outputs.detected
    return logits


@pytest.mark.parametrize("name", LEAVES)
def test_the_detector_leaves_and_says_what_ours_says(name: str, tmp_path: Path) -> None:
    options, kind = LEAVES[name]
    run = detector(**options)
    assert export.write_model(tmp_path, run.config, run.model, TOKENIZER, [], "task") == kind
    theirs, report = transformers.AutoModelForPreTraining.from_pretrained(
        tmp_path, trust_remote_code=kind == OWN, output_loading_info=True
    )
    assert type(theirs).__name__ == kind and not any(report.values()), report
    batch = verification.random_batch(TOKENIZER, 12)
    asked = verification.asked(batch, "PreTraining", run.model.encoder.takes_segments)
    with torch.no_grad():
        found, ours = theirs.eval()(**asked).logits, said_of(run, batch)
    mask = batch.attention_mask
    assert mask is not None and ours[mask].std() > 0.1
    torch.testing.assert_close(found[mask], ours[mask], rtol=1e-5, atol=1e-5)
    assert not [name for name in theirs.state_dict() if "generator" in name]
    if name in IN_FULL:  # as an export compares it: of what brings code, in a process without bertlab
        form = export.form_of(run.config, "task")
        assert verification.largest_difference(run, tmp_path, form, 12, None) < 1e-5


@pytest.mark.parametrize("kind", [ELECTRA, OWN])
def test_its_loss_is_the_detectors(kind: str, tmp_path: Path) -> None:
    """Nats a real token, as ours is scored by."""
    run = detector(**({} if kind == ELECTRA else {"positions": "rotary"}))
    export.write_model(tmp_path, run.config, run.model, TOKENIZER, [], "task")
    theirs = transformers.AutoModelForPreTraining.from_pretrained(tmp_path, trust_remote_code=kind == OWN)
    batch = verification.random_batch(TOKENIZER, 12)
    asked = verification.asked(batch, "PreTraining", True)
    labels = batch.input_ids % 2
    with torch.no_grad():
        found = theirs.eval()(**asked, labels=labels).loss
        ours = torch.nn.functional.binary_cross_entropy_with_logits(
            said_of(run, batch)[batch.attention_mask], labels[batch.attention_mask].float()
        )
    torch.testing.assert_close(found, ours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("own", [{}, {"positions": "rotary"}])
def test_the_encoder_under_it_comes_back(own: dict[str, Any], tmp_path: Path) -> None:
    """From ELECTRA's folder and from our own, every weight to the bit; the head stays there."""
    run = detector(embedding_size=8, pooling="mean", vocab_size=TOKENIZER.vocab_size, **own)
    export.write_model(tmp_path, run.config, run.model, TOKENIZER, [], "task")
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["model_type"] == ("bertlab" if own else "electra") and described["embedding_size"] == 8
    again = build(run.config.model, TOKENIZER.vocab_size, TOKENIZER.special.pad_id)
    run.config.model.load_pretrained(again, tmp_path, "init=pretrained")
    state, found = run.model.encoder.state_dict(), again.state_dict()
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("other", ["mlm_nsp", "rtd"])
def test_two_kinds_of_pretraining_are_not_taken_for_each_other(other: str, tmp_path: Path) -> None:
    """Folders of one name with one modelling file share their classes in a process of transformers."""
    kinds = [other, "rtd" if other == "mlm_nsp" else "mlm_nsp"]
    for number, kind in enumerate(kinds):
        run = detector(positions="rotary") if kind == "rtd" else pretrained()
        folder = tmp_path / str(number) / "model"
        folder.mkdir(parents=True)
        export.write_model(folder, run.config, run.model, TOKENIZER, [], "task")
        _, report = transformers.AutoModelForPreTraining.from_pretrained(
            folder, trust_remote_code=True, output_loading_info=True
        )
        assert not any(report.values()), report


@pytest.mark.slow
@pytest.mark.parametrize("name", ["as Devlin's", "narrow and rotary"])
def test_the_detector_is_a_graph_too(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run = detector(**LEAVES[name][0])
    form = graphs.form_of(run.config, "task")
    graphs.write_graph(tmp_path, run, form, 128)
    assert graphs.graph_difference(tmp_path, run, form, 128, None) < 1e-4
    assert json.loads((tmp_path / "config.json").read_text())["outputs"] == ["logits"]
    with torch.no_grad():
        run.model.head.detector[2].weight.mul_(-1)
    with pytest.raises(graphs.RunError, match="answers otherwise"):
        graphs.graph_difference(tmp_path, run, form, 128, None)
