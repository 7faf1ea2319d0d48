"""Every objective of the registry, on a BERT and on an encoder of our own, in every format: a folder whose
head answers as the run's, or one line that says why not and what goes instead.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_export_formats import untrained

from bertlab.config import registry
from bertlab.config.schema import Train
from bertlab.errors import ConfigError
from bertlab.export import onnx as graphs
from bertlab.export import sentence_transformers as vectors
from bertlab.export import verification
from bertlab.export.formats import FORMATS
from bertlab.export.model import Form, write_model
from bertlab.training.finished import FinishedRun

pytestmark = pytest.mark.slow

transformers = pytest.importorskip("transformers")
LONGEST = 128
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {"num_hidden_layers": 1},
    "own": {"num_hidden_layers": 1, "positions": "rotary", "norm_placement": "pre", "pooling": "mean"},
}
SEQUENCE, TOKENS = "BertForSequenceClassification", "BertForTokenClassification"
# Objective -> the class that it is on a BERT; None: its head does not leave, and the line says so.
# On our own encoders it is `Bertlab…` of the same task.
CLASSES: dict[str, str | None] = {
    "classification": SEQUENCE, "multi_label": SEQUENCE, "regression": SEQUENCE, "tagging": TOKENS,
    "multiple_choice": "BertForMultipleChoice", "extractive_qa": "BertForQuestionAnswering",
    "embedding": "BertModel", "mlm": "BertForMaskedLM", "mlm_nsp": "BertForPreTraining",
    "nsp": "BertForNextSentencePrediction", "sop": "BertForNextSentencePrediction",
    "rtd": "ElectraForPreTraining",
    "mntp": None,  # there a token is predicted where it stands, and not at the place before
}  # fmt: skip
VECTORS = ("embedding",)  # whose pooled output is what was trained


def test_no_objective_is_left_out() -> None:
    assert set(CLASSES) == set(registry.options("objective"))


def refused(config: Train, name: str) -> str:
    with pytest.raises(ConfigError) as error:
        FORMATS[name].form(config, "task")
    line = str(error.value)
    assert "\n" not in line and f"objective={config.objective.name}" in line
    return line


def differs(run: FinishedRun, found: dict[str, torch.Tensor], form: Form) -> float:
    """Between what the folder's class says of random tokens in double precision and the run."""
    batch = verification.random_batch(run.tokenizer, LONGEST)
    with torch.no_grad():
        return verification.share_of_largest(*verification.both(run.model.double(), found, batch, form))


def answers(folder: Path, run: FinishedRun, form: Form) -> dict[str, torch.Tensor]:
    """Of the folder, opened here; the export itself opens one with code in a process without bertlab."""
    auto = getattr(transformers, f"AutoModelFor{form.task}" if form.task else "AutoModel")
    theirs, report = auto.from_pretrained(folder, trust_remote_code=form.as_code, output_loading_info=True)
    assert not any(report["unexpected_keys"]) and type(theirs).__name__ == form.kind
    batch = verification.random_batch(run.tokenizer, LONGEST)
    with torch.no_grad():
        asked = verification.asked(batch, form.task, run.model.encoder.takes_segments)
        return dict(theirs.eval().double()(**asked))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("objective", CLASSES)
def test_transformers_opens_every_head_with_equal_answers(
    objective: str, encoder: str, tmp_path: Path
) -> None:
    run, kind = untrained(objective, **ENCODERS[encoder]), CLASSES[objective]
    if kind is None:
        assert "has no class that computes this" in refused(run.config, "transformers")
        assert "what=encoder" in refused(run.config, "transformers")
    what = "encoder" if kind is None else "task"
    form = FORMATS["transformers"].form(run.config, what)
    written = write_model(tmp_path, run.config, run.model, run.tokenizer, run.objective.label_names, what)
    wanted = kind or "BertModel"
    task = wanted.partition("For")[2]
    own = f"BertlabFor{task}" if task else "BertlabModel"
    assert written == form.kind == (wanted if encoder == "bert" else own)
    assert differs(run, answers(tmp_path, run, form), form) < 1e-5


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("objective", CLASSES)
def test_onnxruntime_gives_every_heads_answers(objective: str, encoder: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run = untrained(objective, **ENCODERS[encoder])
    if CLASSES[objective] is None:
        assert "has no outputs that leave" in refused(run.config, "onnx")
        assert "what=encoder" in refused(run.config, "onnx")
        return
    form = FORMATS["onnx"].form(run.config, "task")
    graphs.write_graph(tmp_path, run, form, LONGEST)
    assert graphs.graph_difference(tmp_path, run, form, LONGEST, None) < graphs.TOLERANCE


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("objective", CLASSES)
def test_sentence_transformers_is_for_vectors(objective: str, encoder: str, tmp_path: Path) -> None:
    run = untrained(objective, **ENCODERS[encoder])
    if objective not in VECTORS:
        line = refused(run.config, "sentence_transformers")
        assert "is for objective=embedding" in line and "take format=transformers" in line
        return
    form = FORMATS["sentence_transformers"].form(run.config, "task")
    vectors.write_modules(tmp_path, run, LONGEST)
    assert differs(run, answers(tmp_path, run, form), form) < 1e-5


def test_an_option_without_a_class_is_refused_as_an_objective_is() -> None:
    run = untrained("mlm_nsp", **ENCODERS["bert"])
    run.config.objective.pairs = "order"  # type: ignore[attr-defined]  # of mlm_nsp
    for name in ("transformers", "onnx"):
        assert "what=encoder" in refused(run.config, name)
