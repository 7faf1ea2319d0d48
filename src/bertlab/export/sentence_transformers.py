"""An embedding run as a folder that the package sentence-transformers opens:
`SentenceTransformer(folder).encode(texts)`.

The encoder as transformers opens it, then the run's pooling, its pooler where it has one, and length 1, since
the run looks at directions alone.
"""

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from bertlab.config.schema import Train
from bertlab.contracts import pad_rows
from bertlab.errors import ConfigError, RunError
from bertlab.export.model import Form, form_of, write_model
from bertlab.export.tokenizer_files import SIDES, truncation_of
from bertlab.export.verification import SAMPLE, TOLERANCE, open_alone
from bertlab.objectives._texts import join_texts
from bertlab.runs.files import save_weights, write_text
from bertlab.training.finished import FinishedRun

PACKAGE = "sentence_transformers"
MODULES = f"{PACKAGE}.models"  # what modules.json calls them in every version of the package


def vectors_form(config: Train, what: str) -> Form:
    """The encoder under the run's pooling. Raises ConfigError for a run that trained no vectors of texts."""
    head = config.objective.hf_head()
    if head is None or head.task or what == "encoder":
        raise ConfigError(
            "format=sentence_transformers is for objective=embedding with what=task, whose pooled vectors"
            f" are what was trained (here objective={config.objective.name}, what={what}); take"
            " format=transformers"
        )
    return form_of(config, "encoder")


def write_modules(folder: Path, trained: FinishedRun, longest: int) -> str:
    """The encoder, and beside it what makes one vector of its states; the name of the encoder's class."""
    encoder, config = trained.model.encoder, trained.config
    kind = write_model(folder, config, trained.model, trained.tokenizer, [], "encoder")
    pooling, width = config.model.pooling, encoder.hidden_size
    modes = {
        f"pooling_mode_{name}": mode == pooling
        for mode, name in (("cls", "cls_token"), ("mean", "mean_tokens"), ("max", "max_tokens"))
    }
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("Transformer", "", {"max_seq_length": longest, "do_lower_case": False}),
        ("Pooling", "1_Pooling", {"word_embedding_dimension": width, **modes}),
    ]
    pooler = encoder.dense_pooler() if pooling == "cls" else None
    if pooler is not None:
        options = {
            "in_features": width,
            "out_features": width,
            "bias": True,
            "activation_function": "torch.nn.modules.activation.Tanh",
        }
        steps.append(("Dense", "2_Dense", options))
        weights = {f"linear.{name}": value for name, value in pooler.state_dict().items()}
        save_weights(folder / "2_Dense" / "model.safetensors", weights, {"format": "pt"})
    steps.append(("Normalize", f"{len(steps)}_Normalize", {}))
    for _, place, options in steps:
        file = folder / place / "config.json" if place else folder / "sentence_bert_config.json"
        write_text(file, _json(options))
    named = [
        {"idx": index, "name": str(index), "path": place, "type": f"{MODULES}.{module}"}
        for index, (module, place, _) in enumerate(steps)
    ]
    write_text(folder / "modules.json", _json(named))
    write_text(
        folder / "config_sentence_transformers.json",
        _json({"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"}),
    )
    return f"SentenceTransformer of a {kind}"


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"


def has_package() -> bool:
    """Whether what is written can be opened here."""
    return importlib.util.find_spec(PACKAGE) is not None


def vectors_difference(folder: Path, trained: FinishedRun, longest: int, rows: Any) -> float:
    """Encode texts with the package, in a process without bertlab, and compare the vectors with the run's.
    Raises RunError.
    """
    texts = [*SAMPLE, " ".join([*SAMPLE] * (longest // 8 + 1))]
    if rows is not None:
        texts += [*rows["text"], *rows["text_pair"]]
    truncation = truncation_of(trained.config.objective)
    if truncation not in SIDES:  # such as are not cut
        texts = [
            text
            for text, ids in zip(texts, trained.tokenizer.encode(texts), strict=True)
            if len(ids) + 2 <= longest
        ]
        truncation = "head"
    framed = [
        join_texts(ids, None, longest, trained.tokenizer.special, truncation)[0]
        for ids in trained.tokenizer.encode(texts)
    ]
    ids, inside = pad_rows([np.asarray(row) for row in framed], trained.tokenizer.special.pad_id)
    tokens, mask = torch.from_numpy(ids), torch.from_numpy(inside)
    encoder = trained.model.encoder
    with torch.no_grad():
        ours = F.normalize(encoder.pool(encoder(tokens, None, mask), mask).float(), dim=1)
    with tempfile.TemporaryDirectory() as place:
        given, answers = Path(place, "texts.json"), Path(place, "answers.safetensors")
        given.write_text(json.dumps(texts), encoding="utf-8")
        open_alone(folder, PACKAGE, given, answers)
        found = load_file(answers)["vectors"]
    difference = float((ours - found).abs().max())
    if not difference <= TOLERANCE:
        raise RunError(
            f"the exported folder's vectors are not the run's (by {difference:.2g}); nothing was written"
        )
    return difference
