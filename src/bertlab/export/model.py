"""A run's model as config.json and model.safetensors of transformers' class for its task, or of a modelling
file of its own beside them.

Our own BERT is written without transformers: names and sizes are known, as BERT's or, of a head that stands
there on ELECTRA, as ELECTRA's. An encoder of ours that transformers
has no class for leaves with the code that computes it (modeling_bertlab.py, bundled from our source). A
Hugging Face architecture is built by transformers, filled with the run's weights and saved as transformers
saves it; a head that it lacks is refused, and the encoder alone can still go.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bertlab import __version__
from bertlab.config.schema import ModelConfig, Train
from bertlab.contracts import HfHead
from bertlab.data.tokenizer import Tokenizer
from bertlab.errors import ConfigError
from bertlab.export.bundle import bundle
from bertlab.export.families import FAMILIES, Family
from bertlab.models.hf import HfEncoder, transformers_module
from bertlab.runs.files import save_weights, write_text
from bertlab.training.assembly import Model

# the file that carries what transformers has no class for, and our module that it is bundled from
MODELLING = "modeling_bertlab"
TASKS = (
    "MaskedLM", "PreTraining", "NextSentencePrediction", "SequenceClassification", "TokenClassification",
    "QuestionAnswering",
    "MultipleChoice",
)  # fmt: skip
ENCODER_ALONE = "its encoder alone can be exported: what=encoder"
# Heads that compute what ours do under other names than BERT's, by model type and task.
ROBERTA_HEADS = {
    "SequenceClassification": {"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"},
    "MaskedLM": {
        "cls.predictions.transform.dense": "lm_head.dense",
        "cls.predictions.transform.LayerNorm": "lm_head.layer_norm",
        "cls.predictions.decoder": "lm_head.decoder", "cls.predictions": "lm_head",
    },
}  # fmt: skip
OTHER_HEADS = {
    "roberta": ROBERTA_HEADS, "xlm-roberta": ROBERTA_HEADS, "camembert": ROBERTA_HEADS,
    "distilbert": {"MaskedLM": {
        "cls.predictions.transform.dense": "vocab_transform",
        "cls.predictions.transform.LayerNorm": "vocab_layer_norm",
        "cls.predictions.decoder": "vocab_projector", "cls.predictions": "vocab_projector",
    }},
}  # fmt: skip


# --- what can be exported -------------------------------------------------------------------------
@dataclass(frozen=True)
class Form:
    """As what a run leaves."""

    head: HfHead | None  # None = the encoder alone
    as_code: bool  # by a class of our modelling file instead of one of transformers'

    @property
    def task(self) -> str:
        """What transformers' classes call it, e.g. `SequenceClassification`; empty where there is nothing on
        the encoder's outputs.
        """
        return self.head.task if self.head is not None else ""

    @property
    def computes(self) -> str:
        """Which head it is: the task, but where heads of one task are several."""
        return (self.head.kind or self.head.task) if self.head is not None else ""

    @property
    def family(self) -> Family:
        """Whose class it is, where it is one of transformers'."""
        return FAMILIES[self.head.family if self.head is not None else "bert"]

    @property
    def reads_pooler(self) -> bool:
        """Whether anything but hidden states is looked at."""
        return self.head is not None and self.head.reads_pooler

    @property
    def kind(self) -> str:
        """The class of an encoder of ours."""
        family = "Bertlab" if self.as_code else self.family.name
        return f"{family}For{self.task}" if self.task else f"{family}Model"


def form_of(config: Train, what: str) -> Form:
    """How the run can leave. Raises ConfigError naming every key that stands against it, and what could be
    exported instead.
    """
    head = config.objective.hf_head() if what != "encoder" else None
    if what != "encoder" and head is None:
        raise ConfigError(
            f"objective={config.objective.name}: transformers has no class that computes this;"
            f" {ENCODER_ALONE}"
        )
    encoder = Form(head, as_code=False).family.unlike(config.model)
    pooled = head is not None and head.reads_pooler and config.model.pooling != "cls"
    lacking = [
        *encoder,
        *(head.unlike if head is not None else ()),
        *(_unmet(config.model, head) if head is not None and not encoder else ()),
        *([f"model.pooling={config.model.pooling}"] if pooled else []),
    ]
    if lacking and not config.model.leaves_as_code:
        could = "model=bert_* and model=hf_* can be exported" if encoder else ENCODER_ALONE
        raise ConfigError(f"{', '.join(lacking)}: transformers has no class that computes this; {could}")
    return Form(head, as_code=bool(lacking))


def _unmet(model: ModelConfig, head: HfHead) -> list[str]:
    """`key=value` of the encoder's config.json there, where the head needs another value."""
    if not head.needs:
        return []
    described = FAMILIES[head.family].config(model, 1, 0)
    return [f"{key}={described[key]}" for key, wanted in head.needs.items() if described[key] != wanted]


def check_names(label_names: Sequence[str]) -> None:
    """Class names become JSON keys; two equal or empty ones would be lost. Raises ConfigError."""
    if any(not name.strip() for name in label_names) or len(set(label_names)) < len(label_names):
        raise ConfigError(
            f"the run's class names {list(label_names)} are empty or not distinct, which transformers' config"
            " cannot hold"
        )


def leaving(model: Model) -> Model:
    """The same encoder under what of the head leaves."""
    return Model(model.encoder, model.head.exported())


# --- writing --------------------------------------------------------------------------------------
def write_model(
    folder: Path,
    config: Train,
    model: Model,
    tokenizer: Tokenizer,
    label_names: Sequence[str],
    what: str = "task",
) -> str:
    """config.json and model.safetensors; the name of the class they are of. Raises ConfigError naming what
    there is no place for.
    """
    form = form_of(config, what)
    check_names(label_names)
    check_head(form, model, config.objective.name)
    if config.model.hub_name() is not None:
        return _write_hf(folder, model, label_names, form)
    described, state = (_as_code if form.as_code else _as_theirs)(config, model, tokenizer, form)
    described = {
        "architectures": [form.kind],
        "dtype": "float32",
        **described,
        **described_head(form, label_names),
    }
    state |= _head_state(form, model)
    if not form.as_code:
        _double_bias(state)
    save_weights(
        folder / "model.safetensors", {name: value.clone() for name, value in state.items()}, {"format": "pt"}
    )
    write_text(folder / "config.json", json.dumps(described, indent=2, ensure_ascii=False) + "\n")
    if form.as_code:
        write_text(folder / f"{MODELLING}.py", modelling_file())
    return form.kind


def _as_theirs(
    config: Train, model: Model, tokenizer: Tokenizer, form: Form
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights of transformers' BERT or ELECTRA."""
    family = form.family
    described = family.config(config.model, tokenizer.vocab_size, tokenizer.special.pad_id)
    state = family.state(config.model, model.encoder.state_dict(), family.prefix if form.task else "")
    if form.task and not form.reads_pooler:
        state = {name: value for name, value in state.items() if ".pooler." not in name}
    return described, state


def _as_code(
    config: Train, model: Model, tokenizer: Tokenizer, form: Form
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights of our modelling file's classes, every one of which the folder offers."""
    options = {name: value for name, value in dataclasses.asdict(config.model).items() if name != "name"}
    sizes = {
        "vocab_size": len(model.encoder.token_weight()),
        "pad_token_id": tokenizer.special.pad_id,
        "attention": "auto",
    }
    kind = {"head_kind": form.head.kind} if form.head is not None and form.head.kind else {}
    classes = {
        "AutoConfig": "BertlabConfig",
        "AutoModel": "BertlabModel",
        **{f"AutoModelFor{task}": f"BertlabFor{task}" for task in TASKS},
    }
    places = {auto: f"{MODELLING}.{name}" for auto, name in classes.items()}
    return (
        {"model_type": "bertlab", "auto_map": places, **options, **sizes, **kind},
        {f"encoder.{name}": value for name, value in model.encoder.state_dict().items()},
    )


@functools.cache
def modelling_file() -> str:
    """The source that computes our encoder and its heads, on torch and transformers alone."""
    note = (
        f"Written by bertlab {__version__} out of its own source (MIT licence): the encoder is the code that"
        " was trained."
    )
    return bundle(f"bertlab.export.{MODELLING}", note)


def described_head(form: Form, label_names: Sequence[str]) -> dict[str, Any]:
    """Entries of a config that belong to the head."""
    if form.head is None:
        return {}
    names: dict[str, Any] = {}
    if form.head.names_classes:
        names = {
            "id2label": dict(enumerate(label_names)),
            "label2id": {name: index for index, name in enumerate(label_names)},
        }
    return {**names, **form.head.config}


def check_head(form: Form, model: Model, objective: str) -> None:
    """Every weight of the head must have a place in the class that it leaves as. Raises ConfigError naming
    those that have none.
    """
    own = () if form.head is None else leaving(model).head.exported_state()
    if lost := [name for name in own if form.head and _module_of(name, form.head.names) is None]:
        raise ConfigError(
            f"objective={objective}: its head has {', '.join(lost[:4])}{' …' if lost[4:] else ''}, for which"
            f" hf_head() names no place in {form.kind}; {ENCODER_ALONE}"
        )


def _head_state(form: Form, model: Model) -> dict[str, Tensor]:
    """The head's weights under BERT's names."""
    if form.head is None:
        return {}
    return {
        _renamed(ours, form.head.names): value.detach().cpu()
        for ours, value in leaving(model).head.exported_state().items()
    }


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """A weight's name with the longest module of it that `names` knows replaced; as it is where there is
    none.
    """
    module = _module_of(name, names)
    return name if module is None else names[module] + name.removeprefix(module)


def _module_of(name: str, names: Mapping[str, str]) -> str | None:
    """The longest module that a weight is of, among those known."""
    known = (one for one in names if name == one or name.startswith(f"{one}."))
    return max(known, key=len, default=None)


def _double_bias(state: dict[str, Tensor]) -> None:
    """An untied decoder has a bias of its own beside the head's, which then stands idle: both are ours."""
    for name in [name for name in state if name.endswith(".decoder.weight")]:
        module = name.removesuffix(".decoder.weight")
        state.setdefault(f"{module}.decoder.bias", state[f"{module}.bias"])


# --- architectures of transformers' own -----------------------------------------------------------
def _write_hf(folder: Path, model: Model, label_names: Sequence[str], form: Form) -> str:
    module, encoder, task = transformers_module("export of a Hugging Face encoder"), model.encoder, form.task
    assert isinstance(encoder, HfEncoder)
    if form.head is not None and not task and not encoder.has_pooler:
        raise ConfigError(
            f"{encoder.described.model_type} has no pooler, whose output would be the vectors;"
            f" {ENCODER_ALONE}"
        )
    described = type(encoder.described).from_dict(encoder.described.to_dict())  # a copy
    for name, value in described_head(form, label_names).items():
        setattr(described, name, value)
    try:
        theirs = (
            getattr(module, f"AutoModelFor{task}" if task else "AutoModel")
            .from_config(described, trust_remote_code=False)
            .float()
            .eval()
        )
    except ValueError as error:  # an architecture without this task
        raise ConfigError(
            f"transformers has no {described.model_type} for {task}; {ENCODER_ALONE}"
        ) from error
    base = f"{theirs.base_model_prefix}." if theirs.base_model is not theirs else ""
    renamed = OTHER_HEADS.get(described.model_type, {}).get(task, {})
    own = theirs.state_dict()
    state = {}
    for ours, value in encoder.state_dict().items():
        name = ours.removeprefix("model.")
        if (target := _renamed(name, renamed)) == name:
            target = base + name
        if name.startswith("pooler.") and target not in own and not form.reads_pooler:
            continue  # nothing there reads it
        state[target] = value.detach().cpu()
    state |= {_renamed(name, renamed): value for name, value in _head_state(form, model).items()}
    _double_bias(state)
    _fill(theirs, state, task, described.model_type)
    theirs.save_pretrained(folder)
    return type(theirs).__name__


def _fill(theirs: Any, state: dict[str, Tensor], task: str, family: str) -> None:
    """Give their model our weights. Raises ConfigError where it has others, or no place for some of ours."""
    tied = set(theirs.all_tied_weights_keys)
    lacking = sorted(
        name
        for name in theirs.state_dict()
        if name not in state and name not in tied and not (task == "" and name.startswith("pooler."))
    )
    beyond = sorted(name for name in state if name not in theirs.state_dict())
    if lacking or beyond:
        which = (
            f"reads weights that this run does not have: {lacking[0]}"
            if lacking
            else f"has no place for this run's {beyond[0]}"
        )
        could = ENCODER_ALONE if task else "it cannot be exported"
        raise ConfigError(f"transformers' {type(theirs).__name__} ({family}) {which}; {could}")
    theirs.load_state_dict(state, strict=False)
    theirs.tie_weights()
