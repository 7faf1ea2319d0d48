"""A run's model as an ONNX graph: `model.onnx`, for who runs it without torch and without bertlab; of every
architecture and every head.

Inputs are those of transformers (`input_ids`, `attention_mask`, and `token_type_ids` where the encoder tells
segments apart), int64, of any number of rows and tokens up to the model's longest; outputs have transformers'
names. Weights are float32.

Legend: B batch, T tokens, C choices, V vocabulary.
"""

import contextlib
import copy
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertlab.config.schema import Train
from bertlab.contracts import Batch
from bertlab.errors import ConfigError, RunError
from bertlab.export.model import ENCODER_ALONE, Form, check_names, described_head, leaving
from bertlab.export.verification import (
    OVER_VOCABULARY,
    asked,
    both,
    output_names,
    random_batch,
    share_of_largest,
    validation_batch,
)
from bertlab.runs.files import write_text
from bertlab.training.assembly import Model
from bertlab.training.finished import FinishedRun

FILE = "model.onnx"
TOLERANCE = (
    1e-4  # of an output's largest element, where that is above 1: both sides compute in single precision
)
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def form_of(config: Train, what: str) -> Form:
    """What of the run becomes a graph. Raises ConfigError where a package is missing, or the head has no
    outputs of its own.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"format=onnx needs {' and '.join(missing)}: pip install 'bertlab[onnx]'")
    head = config.objective.hf_head() if what != "encoder" else None
    if what != "encoder" and head is None:
        raise ConfigError(
            f"objective={config.objective.name}: its head has no outputs that leave (hf_head());"
            f" {ENCODER_ALONE}"
        )
    return Form(head, as_code=False)


class _Graph(nn.Module):
    """A run's model, called as transformers is and answering as it does."""

    def __init__(self, model: Model, form: Form) -> None:
        super().__init__()
        self.model, self.form = leaving(model), form

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        examples = input_ids.shape[0]
        # of several choices
        ids, mask = (
            part.flatten(0, 1) if part.ndim == 3 else part for part in (input_ids, attention_mask.bool())
        )
        segments = torch.zeros_like(ids) if token_type_ids is None else token_type_ids.view(ids.shape)
        if self.form.head is None:
            return (self.model.encoder(ids, segments, mask),)
        # a head over the vocabulary is asked for every token
        places = torch.arange(ids.shape[0] * ids.shape[1])
        batch = Batch(ids, segments, mask, {"masked": places}, 0, examples)
        outputs = self.model.head.exported_outputs(self.model(batch), batch)
        if self.form.computes in OVER_VOCABULARY:
            outputs = (outputs[0].view(*ids.shape, -1), *outputs[1:])  # (B, T, V)
        return outputs


def write_graph(folder: Path, trained: FinishedRun, form: Form, longest: int) -> str:
    """model.onnx and a config.json that says what its numbers mean; the name of what was written. Raises
    RunError where torch cannot.
    """
    check_names(trained.objective.label_names)
    print("tracing the model into a graph ...", flush=True)
    model = copy.deepcopy(trained.model).cpu().float().eval().requires_grad_(False)
    given = asked(random_batch(trained.tokenizer, longest), form.task, model.encoder.takes_segments)
    sizes = {
        name: dict.fromkeys(range(value.ndim), torch.export.Dim.DYNAMIC) for name, value in given.items()
    }
    names = output_names(form)
    try:
        with _quiet():
            torch.onnx.export(
                _Graph(model, form), (), folder / FILE, kwargs=given, dynamic_shapes=sizes,
                input_names=list(given),
                output_names=list(names), dynamo=True, external_data=False, verbose=False,
                artifacts_dir=folder,
            )  # fmt: skip
    except Exception as error:  # of several libraries, none of them ours
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # where torch's own summary names the cause
        line = next((line for line in lines if line.startswith("<class")), lines[0])[:200]
        raise RunError(
            f"format=onnx: torch cannot trace model={trained.config.model.name} ({line}); nothing was written"
        ) from error
    said = {
        "max_length": longest, "pad_token_id": trained.tokenizer.special.pad_id, "inputs": list(given),
        "outputs": list(names),
        **described_head(form, trained.objective.label_names),
    }  # fmt: skip
    write_text(folder / "config.json", json.dumps(said, indent=2, ensure_ascii=False) + "\n")
    return FILE


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say of themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def graph_difference(folder: Path, trained: FinishedRun, form: Form, longest: int, rows: Any) -> float:
    """The largest difference between the graph in onnxruntime and the run, on batches of other sizes than the
    traced one.

    A share of the largest element, where that is above 1. Raises RunError where it is above TOLERANCE.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])
    model = copy.deepcopy(trained.model).cpu().float().eval()
    whole, short = random_batch(trained.tokenizer, longest), random_batch(trained.tokenizer, 5)
    shares = []
    for batch in (whole, short, _first_row(short), *validation_batch(trained, rows)):
        given = {
            name: value.numpy()
            for name, value in asked(batch, form.task, model.encoder.takes_segments).items()
        }
        found = dict(zip(output_names(form), map(torch.from_numpy, session.run(None, given)), strict=True))
        with torch.no_grad():
            shares.append(share_of_largest(*both(model, found, batch, form)))
    if not max(shares) <= TOLERANCE or any(np.isnan(shares)):
        raise RunError(
            f"the graph answers otherwise than the run (by {max(shares):.2g}); nothing was written"
        )
    return max(shares)


def _first_row(batch: Batch) -> Batch:
    """One row alone."""
    ids, segments, mask = (
        batch.input_ids[:1],
        batch.segment_ids[:1],
        None if batch.attention_mask is None else batch.attention_mask[:1],
    )
    places = torch.arange(ids.shape[1]) if mask is None else mask.flatten().nonzero()[:, 0]
    zeros = torch.zeros(1, dtype=torch.long)
    return Batch(
        ids,
        segments,
        mask,
        {**batch.targets, "masked": places, "label": zeros, "next": zeros},
        len(places),
        1,
    )


USAGE = """import json
import pathlib

import numpy
import onnxruntime
import tokenizers

folder = "FOLDER"
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")
tokenizer = tokenizers.Tokenizer.from_file(f"{{folder}}/tokenizer.json")
tokenizer.enable_truncation({longest}, direction="{side}")
tokenizer.enable_padding(pad_id={pad_id}, pad_token="{pad}")
rows = tokenizer.encode_batch(["What a film!", "Two hours lost."])  # pairs: [("a text", "its partner"), ...]
columns = {{"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}}
wanted = [given.name for given in session.get_inputs()]
given = {{name: numpy.array([getattr(row, columns[name]) for row in rows]) for name in wanted}}
answers = dict(zip([output.name for output in session.get_outputs()], session.run(None, given)))"""
NAMES = (
    'names = json.loads(pathlib.Path(folder, "config.json").read_text())["id2label"]  # of the last axis of'
    ' answers["logits"]'
)
MEANING = {
    "SequenceClassification": NAMES, "TokenClassification": NAMES,
    "ReplacedTokens": 'replaced = answers["logits"] > 0  # of each token',
    "": 'vectors = answers["pooler_output"]  # compare them by their cosine',
}  # fmt: skip


def usage(trained: FinishedRun, form: Form, longest: int, side: str) -> list[str]:
    """How the graph is called, as code for the card."""
    pad_id = trained.tokenizer.special.pad_id
    lines = USAGE.format(
        longest=longest, side=side, pad_id=pad_id, pad=trained.tokenizer.backend.id_to_token(pad_id)
    ).splitlines()
    meaning = MEANING.get(form.computes) if form.head is not None else None
    lines = lines if meaning is None else [*lines, meaning]
    lines = lines if meaning is not None and "json" in meaning else lines[3:]
    if form.task == "MultipleChoice":
        lines = [*lines[:-1],
            "# A question's choices are rows of one more axis: (questions, choices, tokens).",
                 "given = {name: value[None] for name, value in given.items()}", lines[-1]]  # fmt: skip
    return ["```python", *lines, "```"]
