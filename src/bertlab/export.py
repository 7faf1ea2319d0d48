"""A finished run as a folder that transformers opens: AutoModel…, AutoTokenizer and pipeline, with outputs equal to ours.

The model is built with transformers' own classes and filled with our weights, so that what is written is what they write. A run whose
architecture, pooling or head has no class there is refused; the encoder alone can still go (`what="encoder"`). Before a folder is
published its outputs and its tokens are compared with ours.
"""

import copy
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertlab import registry
from bertlab.assembly import Model, Trained
from bertlab.config import Train
from bertlab.contracts import Batch, Special
from bertlab.data.tokenizer import ROLES, Tokenizer
from bertlab.errors import ConfigError, RunError
from bertlab.models import _bert_hf
from bertlab.models.bert import Bert
from bertlab.models.hf import HfEncoder, transformers_module

TOLERANCE = 1e-5
PIPELINES = {
    "SequenceClassification": "text-classification", "TokenClassification": "token-classification", "MaskedLM": "fill-mask",
}  # fmt: skip
SAMPLE = ("A film that's not bad at all.", "naïve café — 3.14 % of THE time", "x", "[MASK] and [SEP] in a text", "東京 🎬 don't\tstop")


# --- model ------------------------------------------------------------------------------------------------------------------
def task_of(config: Train, what: str) -> str:
    """The transformers task, e.g. `SequenceClassification`, or `` for the encoder alone. Raises ConfigError where there is none."""
    if what == "encoder":
        return ""
    task: str | None = getattr(registry.module_of(config.objective), "HF_TASK", None)
    if task is None:
        raise ConfigError(
            f"objective={config.objective.name} has no class in transformers; its encoder alone can be exported: what=encoder"
        )
    pooling = getattr(config.model, "pooling", "cls")
    if task == "SequenceClassification" and pooling != "cls":
        raise ConfigError(
            f"model.pooling={pooling}: transformers' classifiers read the first token's pooled output, so this one would answer otherwise "
            "there; train with model.pooling=cls, or export the encoder alone: what=encoder"
        )
    if config.objective.name == "mlm_nsp" and getattr(config.objective, "pairs", "next") != "next":
        raise ConfigError("objective.pairs=order: transformers has no class for sentence order; what=encoder exports the encoder alone")
    return task


def to_transformers(config: Train, model: Model, tokenizer: Tokenizer, label_names: Sequence[str], what: str = "task") -> Any:
    """Our model as one of theirs, in evaluation mode. Raises ConfigError naming what they have no place for."""
    module, task = transformers_module("export"), task_of(config, what)
    described = _described(module, config, model, tokenizer)
    if task and label_names:
        described.id2label = dict(enumerate(label_names))
        described.label2id = {name: index for index, name in enumerate(label_names)}
    dropout = getattr(config.objective, "head_dropout", None)
    if task and dropout is not None:
        described.classifier_dropout = dropout
    try:
        theirs = getattr(module, f"AutoModelFor{task}" if task else "AutoModel").from_config(described).eval()
    except ValueError as error:  # an architecture without this task
        raise ConfigError(f"transformers has no {described.model_type} for {task} ({str(error).splitlines()[0][:120]})") from error
    state = {**_encoder_state(config, model, theirs), **(_head_state(config, model) if task else {})}
    return _filled(theirs, state, f"{described.model_type} for {task}" if task else described.model_type)


def _described(module: Any, config: Train, model: Model, tokenizer: Tokenizer) -> Any:
    if isinstance(config.model, Bert):
        _bert_hf.require_hf(config.model)
        return module.BertConfig(**_bert_hf.to_hf_config(config.model, tokenizer.vocab_size, tokenizer.special.pad_id))
    if isinstance(model.encoder, HfEncoder):
        return type(model.encoder.described).from_dict(model.encoder.described.to_dict())  # a copy
    raise ConfigError(f"model={config.model.name} has no counterpart in transformers")


def _encoder_state(config: Train, model: Model, theirs: Any) -> dict[str, Tensor]:
    """The encoder's weights under their names; a pooler only where they have a place for one."""
    prefix = f"{theirs.base_model_prefix}." if theirs.base_model is not theirs else ""
    state = {name: value.detach().cpu() for name, value in model.encoder.state_dict().items()}
    if isinstance(config.model, Bert):
        state = _bert_hf.to_hf_state(config.model, state, prefix)
    else:
        state = {prefix + name.removeprefix("model."): value for name, value in state.items()}
    own = theirs.state_dict()
    return {name: value for name, value in state.items() if name in own or ".pooler." not in f".{name}"}


def _head_state(config: Train, model: Model) -> dict[str, Tensor]:
    """The head's weights under their names."""
    names = registry.module_of(config.objective).HF_NAMES
    found = {}
    for ours, value in model.head.state_dict().items():
        module = max((name for name in names if ours == name or ours.startswith(f"{name}.")), key=len)
        found[names[module] + ours.removeprefix(module)] = value.detach().cpu()
    return found


def _filled(theirs: Any, state: dict[str, Tensor], what: str) -> Any:
    """Their model with our weights. Raises ConfigError where it has others, or none for some of ours."""
    tied = set(theirs.all_tied_weights_keys) if hasattr(theirs, "all_tied_weights_keys") else set()
    own = theirs.state_dict()
    for name in own:  # an untied decoder has a bias of its own beside the head's, which then stands idle
        if name.endswith(".decoder.bias") and name not in state and (shared := name.replace(".decoder.bias", ".bias")) in state:
            state[name] = state[shared]
    lacking = sorted(name for name in own if name not in state and name not in tied and ".pooler." not in f".{name}")
    beyond = sorted(name for name in state if name not in own)
    if lacking or beyond:
        which = f"has weights that this run does not: {lacking[0]}" if lacking else f"has no place for this run's {beyond[0]}"
        raise ConfigError(f"transformers' {what} {which}; its encoder alone can be exported: what=encoder")
    theirs.load_state_dict({**{name: value for name, value in own.items() if name not in tied}, **state}, strict=False)
    theirs.tie_weights()
    return theirs


# --- tokenizer --------------------------------------------------------------------------------------------------------------
def to_transformers_tokenizer(tokenizer: Tokenizer, longest: int) -> Any:
    """Our tokenizer as theirs; it adds special tokens and segments as our objectives do."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import processors

    backend = Backend.from_str(tokenizer.to_json())
    special = tokenizer.special
    ids = (special.pad_id, special.unk_id, special.cls_id, special.sep_id, special.mask_id)
    names = dict(zip((f"{role}_token" for role in ROLES), (str(backend.id_to_token(index)) for index in ids), strict=True))
    cls, sep = names["cls_token"], names["sep_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1", special_tokens=[(cls, special.cls_id), (sep, special.sep_id)]
    )
    return transformers_module("export").PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=longest, model_input_names=["input_ids", "token_type_ids", "attention_mask"], **names
    )


# --- comparison ---------------------------------------------------------------------------------------------------------------
def largest_difference(trained: Trained, folder: Path, what: str) -> float:
    """Open the folder as anybody would, and compare logits (or hidden states) on random tokens. Raises RunError where they differ.

    In double precision, in which equal weights give equal outputs and rounding hides nothing.
    """
    module, task = transformers_module("export"), task_of(trained.config, what)
    theirs = getattr(module, f"AutoModelFor{task}" if task else "AutoModel").from_pretrained(folder).eval().double()
    batch = random_batch(trained.tokenizer, trained.config.objective.max_length)
    model = copy.deepcopy(trained.model).cpu().eval().double()
    with torch.no_grad():
        takes_segments = "token_type_ids" in inspect.signature(theirs.forward).parameters
        segments = {"token_type_ids": batch.segment_ids} if takes_segments and _has_segments(theirs.config) else {}
        assert batch.attention_mask is not None
        found = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), **segments)
        real = batch.attention_mask
        if not task:
            ours = [model.encoder(batch.input_ids, batch.segment_ids, batch.attention_mask)[real]]
            answers = [found.last_hidden_state[real]]
        else:
            outputs = model(batch)
            ours = list(outputs) if isinstance(outputs, tuple) else [outputs]
            answers = [found.prediction_logits, found.seq_relationship_logits] if task == "PreTraining" else [found.logits]
            if task in ("MaskedLM", "PreTraining"):
                answers[0] = answers[0].flatten(0, 1)[batch.targets["masked"]]
            if task == "TokenClassification":
                ours, answers = [ours[0][real]], [answers[0][real]]
    differences = [float((one - other).abs().max()) for one, other in zip(ours, answers, strict=True)]
    if not max(differences) <= TOLERANCE * max(1.0, *(float(one.abs().max()) for one in ours)):
        raise RunError(f"the exported model answers otherwise than the run (by {max(differences):.2g}); nothing was written")
    return max(differences)


def random_batch(tokenizer: Tokenizer, longest: int) -> Batch:
    """Four sequences of random ordinary tokens, of different lengths, two segments; every real position is masked for prediction."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([longest, max(4, longest // 2), 5, 4]).clamp(max=longest)
    ids = torch.randint(tokenizer.vocab_size, (4, int(lengths.max())), generator=generator)
    inside = torch.arange(ids.shape[1]) < lengths[:, None]
    ids = ids.masked_fill(~inside, tokenizer.special.pad_id)
    ids[:, 0] = tokenizer.special.cls_id
    segments = ((torch.arange(ids.shape[1]) >= lengths[:, None] // 2) & inside).long()
    zeros = torch.zeros(4, dtype=torch.long)
    masked = inside.flatten().nonzero()[:, 0]
    targets = {"masked": masked, "label": zeros, "next": zeros}
    return Batch(ids, segments, inside, targets, int(inside.sum()), 4)


def compare_tokens(trained: Trained, folder: Path) -> None:
    """Open the tokenizer as anybody would; ids of awkward texts must be ours. Raises RunError."""
    theirs = transformers_module("export").AutoTokenizer.from_pretrained(folder)
    special: Special = trained.tokenizer.special
    for text, ours in zip(SAMPLE, trained.tokenizer.encode(SAMPLE), strict=True):
        found = theirs(text)["input_ids"]
        if found != [special.cls_id, *ours, special.sep_id]:
            raise RunError(f"the exported tokenizer reads {text!r} otherwise than the run's; nothing was written")


def _has_segments(described: Any) -> bool:
    return int(getattr(described, "type_vocab_size", 0) or 0) > 1


def check_names(label_names: Sequence[str]) -> None:
    """Class names become JSON keys; two equal or empty ones would be lost. Raises ConfigError."""
    if any(not re.search(r"\S", name) for name in label_names) or len(set(label_names)) < len(label_names):
        raise ConfigError(f"the run's class names {list(label_names)} are empty or not distinct, which transformers' config cannot hold")
