"""A run's model as config.json and model.safetensors of transformers' class for its task.

Our own BERT is written without transformers: names and sizes are known. A Hugging Face architecture is built by transformers, filled with
the run's weights and saved as transformers saves it. What has no class there, or another head, is refused; the encoder alone can still go.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bertlab.config.schema import Train
from bertlab.data.tokenizer import Tokenizer
from bertlab.errors import ConfigError
from bertlab.models.hf import HfEncoder, transformers_module
from bertlab.runs.files import save_weights, write_text
from bertlab.training.assembly import Model

ENCODER_ALONE = "its encoder alone can be exported: what=encoder"
# Heads that compute what ours do under other names than BERT's, by model type and task.
ROBERTA_HEADS = {
    "SequenceClassification": {"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"},
    "MaskedLM": {
        "cls.predictions.transform.dense": "lm_head.dense", "cls.predictions.transform.LayerNorm": "lm_head.layer_norm",
        "cls.predictions.decoder": "lm_head.decoder", "cls.predictions": "lm_head",
    },
}  # fmt: skip
OTHER_HEADS = {
    "roberta": ROBERTA_HEADS, "xlm-roberta": ROBERTA_HEADS, "camembert": ROBERTA_HEADS,
    "distilbert": {"MaskedLM": {
        "cls.predictions.transform.dense": "vocab_transform", "cls.predictions.transform.LayerNorm": "vocab_layer_norm",
        "cls.predictions.decoder": "vocab_projector", "cls.predictions": "vocab_projector",
    }},
}  # fmt: skip


# --- what can be exported --------------------------------------------------------------------------------------------------------
def task_of(config: Train, what: str) -> str:
    """The transformers task, e.g. `SequenceClassification`, or `` for the encoder alone.

    Raises ConfigError naming every key that transformers has no class for, and what could be exported instead.
    """
    encoder, head = config.model.unlike_transformers(), config.objective.hf_head()
    lacking = []
    if what != "encoder" and head is None:
        lacking.append(f"objective={config.objective.name}")
    if what != "encoder" and head is not None and head.reads_pooler and config.model.pooling != "cls":
        lacking.append(f"model.pooling={config.model.pooling}")
    if encoder or lacking:
        could = ENCODER_ALONE if not encoder else "BERT as Devlin's (model=bert without these) and model=hf_* can be exported"
        raise ConfigError(f"{', '.join([*encoder, *lacking])}: transformers has no class that computes this; {could}")
    return "" if what == "encoder" or head is None else head.task


def check_names(label_names: Sequence[str]) -> None:
    """Class names become JSON keys; two equal or empty ones would be lost. Raises ConfigError."""
    if any(not name.strip() for name in label_names) or len(set(label_names)) < len(label_names):
        raise ConfigError(f"the run's class names {list(label_names)} are empty or not distinct, which transformers' config cannot hold")


# --- writing ------------------------------------------------------------------------------------------------------------------------
def write_model(folder: Path, config: Train, model: Model, tokenizer: Tokenizer, label_names: Sequence[str], what: str = "task") -> str:
    """config.json and model.safetensors; the name of the class they are of. Raises ConfigError naming what there is no place for."""
    task = task_of(config, what)
    check_names(label_names)
    if config.model.hub_name() is None:
        return _write_own(folder, config, model, tokenizer, label_names, task)
    return _write_hf(folder, config, model, label_names, task)


def _write_own(folder: Path, config: Train, model: Model, tokenizer: Tokenizer, label_names: Sequence[str], task: str) -> str:
    kind = f"BertFor{task}" if task else "BertModel"
    described = {
        "architectures": [kind], "dtype": "float32",
        **config.model.transformers_config(tokenizer.vocab_size, tokenizer.special.pad_id), **_of_the_task(config, label_names, task),
    }  # fmt: skip
    state = config.model.transformers_state(model.encoder.state_dict(), "bert." if task else "")
    if task and not _reads_pooler(config, task):
        state = {name: value for name, value in state.items() if ".pooler." not in name}
    state |= _head_state(config, model) if task else {}
    _double_bias(state)
    save_weights(folder / "model.safetensors", {name: value.clone() for name, value in state.items()}, {"format": "pt"})
    write_text(folder / "config.json", json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    return kind


def _of_the_task(config: Train, label_names: Sequence[str], task: str) -> dict[str, Any]:
    """Entries of a config that belong to the head."""
    found: dict[str, Any] = {}
    head = config.objective.hf_head()
    if task and head is not None:
        if head.names_classes:
            found["id2label"] = dict(enumerate(label_names))
            found["label2id"] = {name: index for index, name in enumerate(label_names)}
        found |= head.config
    return found


def _reads_pooler(config: Train, task: str) -> bool:
    head = config.objective.hf_head()
    return bool(task and head is not None and head.reads_pooler)


def _head_state(config: Train, model: Model) -> dict[str, Tensor]:
    """The head's weights under BERT's names."""
    head = config.objective.hf_head()
    assert head is not None
    return {_renamed(ours, head.names): value.detach().cpu() for ours, value in model.head.exported_state().items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """A weight's name with the longest module of it that `names` knows replaced; as it is where there is none."""
    module = max((known for known in names if name == known or name.startswith(f"{known}.")), key=len, default=None)
    return name if module is None else names[module] + name.removeprefix(module)


def _double_bias(state: dict[str, Tensor]) -> None:
    """An untied decoder has a bias of its own beside the head's, which then stands idle: both are ours."""
    for name in [name for name in state if name.endswith(".decoder.weight")]:
        module = name.removesuffix(".decoder.weight")
        state.setdefault(f"{module}.decoder.bias", state[f"{module}.bias"])


# --- architectures of transformers' own -----------------------------------------------------------------------------------------------
def _write_hf(folder: Path, config: Train, model: Model, label_names: Sequence[str], task: str) -> str:
    module, encoder = transformers_module("export of a Hugging Face encoder"), model.encoder
    assert isinstance(encoder, HfEncoder)
    described = type(encoder.described).from_dict(encoder.described.to_dict())  # a copy
    for name, value in _of_the_task(config, label_names, task).items():
        setattr(described, name, value)
    try:
        theirs = (
            getattr(module, f"AutoModelFor{task}" if task else "AutoModel").from_config(described, trust_remote_code=False).float().eval()
        )
    except ValueError as error:  # an architecture without this task
        raise ConfigError(f"transformers has no {described.model_type} for {task}; {ENCODER_ALONE}") from error
    base = f"{theirs.base_model_prefix}." if theirs.base_model is not theirs else ""
    renamed = OTHER_HEADS.get(described.model_type, {}).get(task, {})
    own = theirs.state_dict()
    state = {}
    for ours, value in encoder.state_dict().items():
        name = ours.removeprefix("model.")
        if (target := _renamed(name, renamed)) == name:
            target = base + name
        if name.startswith("pooler.") and target not in own and not _reads_pooler(config, task):
            continue  # nothing there reads it
        state[target] = value.detach().cpu()
    if task:
        state |= {_renamed(name, renamed): value for name, value in _head_state(config, model).items()}
    _double_bias(state)
    _fill(theirs, state, task, described.model_type)
    theirs.save_pretrained(folder)
    return type(theirs).__name__


def _fill(theirs: Any, state: dict[str, Tensor], task: str, family: str) -> None:
    """Give their model our weights. Raises ConfigError where it has others, or no place for some of ours."""
    tied = set(theirs.all_tied_weights_keys)
    lacking = sorted(
        name for name in theirs.state_dict() if name not in state and name not in tied and not (task == "" and name.startswith("pooler."))
    )
    beyond = sorted(name for name in state if name not in theirs.state_dict())
    if lacking or beyond:
        which = f"reads weights that this run does not have: {lacking[0]}" if lacking else f"has no place for this run's {beyond[0]}"
        could = ENCODER_ALONE if task else "it cannot be exported"
        raise ConfigError(f"transformers' {type(theirs).__name__} ({family}) {which}; {could}")
    theirs.load_state_dict(state, strict=False)
    theirs.tie_weights()


def has_transformers() -> bool:
    """Whether what is written can be opened here."""
    try:
        importlib.import_module("transformers")
    except ImportError:
        return False
    return True
