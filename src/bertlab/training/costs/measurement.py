"""One measurement of `bertlab benchmark`, in a process of its own: our loop, or the Hugging Face Trainer on
the same work.

    python -m bertlab.training.costs.measurement CONTESTANT FOLDER

CONTESTANT is a key of CONTESTANTS; FOLDER holds config.yaml and request.json and gets result.json.

Both train an encoder of the same sizes from random weights on the same tokenised examples, in batches of as
many examples. Counted are real tokens (padding left out) and the wall clock between the end of the warm-up
steps and the end of the last step: what a user waits for, making batches included. Ours is the very loop of a
run, with its records.
"""

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bertlab.config import registry
from bertlab.config.schema import ObjectiveConfig, Train
from bertlab.contracts import Examples
from bertlab.data.material import Material, prepare
from bertlab.data.tokenizer import ROLES
from bertlab.errors import ConfigError, UserError
from bertlab.models._bert_hf import to_hf_config
from bertlab.models.bert import Bert
from bertlab.objectives.classification import Classification
from bertlab.objectives.mlm import Mlm
from bertlab.runs.files import to_json, write_text
from bertlab.runs.folder import RunFolder
from bertlab.runs.machine import Device, choose_device, threads
from bertlab.training.assembly import build_initialized, build_optimizer, check_combination, set_up
from bertlab.training.loop import fit

OURS, AS_USED, SAME_SETTINGS = "bertlab", "trainer", "trainer_same_settings"
CONTESTANTS = {
    OURS: "bertlab",
    AS_USED: "Trainer as used",  # float32, batches in random order: what one gets without asking for anything
    SAME_SETTINGS: "Trainer, same settings",  # our precision, our grouping by length, our compilation
}
NEVER = 1e9  # seconds


@dataclass(frozen=True)
class Measured:
    """What one process saw."""

    tokens: int  # real ones, in the counted steps
    seconds: float  # of wall clock

    @property
    def rate(self) -> float:
        """Real tokens a second."""
        return self.tokens / self.seconds


def check_benchmark(config: Train) -> None:
    """Raises ConfigError for a run that has no counterpart in the Trainer, or whose weights would first have
    to be made.
    """
    if type(config.objective) not in COUNTERPARTS:  # mlm_nsp's is an Mlm too
        names = " and ".join(registry.option_of("objective", kind(name="")) for kind in COUNTERPARTS)
        raise ConfigError(f"objective={config.objective.name}: the Trainer is measured on {names}")
    if not isinstance(config.model, Bert):
        raise ConfigError(
            f"model={config.model.name}: the encoder that is measured is model=bert or one of its presets,"
            " e.g. bert_mini"
        )
    if config.init.name != "scratch":
        raise ConfigError(
            f"init={config.init.name}: speed is measured from random weights; add init=scratch and, if it is"
            " inherited, a tokenizer, e.g. tokenizer=wordpiece"
        )
    if config.budget.batch_tokens is not None:
        raise ConfigError(
            "budget.batch_tokens: the Trainer's batches have a number of examples; set budget.batch_size"
            " alone"
        )
    check_combination(config)


def prepared(config: Train) -> tuple[Device, Material]:
    """The device of this config and its data, tokenised now or before."""
    device = choose_device(config.compute.device, config.compute.precision, config.compute.threads)
    return device, prepare(config)


# --- ours -----------------------------------------------------------------------------------------
def measure_ours(config: Train, warmup: int, steps: int) -> Measured:
    """The training loop of a run; what comes before and after it (loading, evaluation, the last checkpoint)
    is not counted.
    """
    device, material = prepared(config)
    length: dict[str, Any] = dict.fromkeys((*config.budget.UNITS, "hours"))
    config = dataclasses.replace(
        config,
        budget=dataclasses.replace(config.budget, **length | {"steps": warmup + steps}),
        compute=dataclasses.replace(config.compute, checkpoint_seconds=NEVER),
    )
    marks: list[tuple[float, int]] = []  # when a record was written, and the tokens seen by then

    def log(record: dict[str, float]) -> None:
        if "train/tokens" in record and record["step"] in (warmup, warmup + steps):
            marks.append((time.perf_counter(), int(record["train/tokens"])))

    with threads(device.threads), tempfile.TemporaryDirectory() as folder:
        model = set_up(build_initialized(config, material.tokenizer, material.objective), config, device)
        train = {"train": material.examples["train"]}
        fit(
            config,
            model,
            build_optimizer(config, model),
            material.objective,
            train,
            {},
            device,
            Path(folder),
            "measurement",
            log,
        )
    (began, before), (ended, after) = marks
    return Measured(after - before, ended - began)


# --- theirs ---------------------------------------------------------------------------------------
def measure_trainer(config: Train, warmup: int, steps: int, same_settings: bool) -> Measured:
    """The Trainer of transformers with its own data collators and model classes."""
    from datasets import Dataset
    from transformers import Trainer, TrainerCallback, TrainingArguments

    device, material = prepared(config)
    chosen = rows_for(material.examples["train"], config.budget.batch_size * (warmup + steps), config.seed)
    torch.manual_seed(config.seed)
    model, columns, collate = their_parts(config, material, chosen)
    lengths: list[int] = []  # real tokens of every batch, in the order in which the Trainer takes them
    marks: list[float] = []

    def counting(rows: Sequence[dict[str, Any]]) -> Any:
        lengths.append(sum(len(row["input_ids"]) for row in rows))
        return collate(rows)

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in (warmup, warmup + steps):
                if device.device.type == "cuda":
                    torch.cuda.synchronize()
                marks.append(time.perf_counter())

    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    grouped = same_settings and groups_by_length(config)
    order: dict[str, Any] = (
        {"train_sampling_strategy": "group_by_length" if grouped else "random"}
        if "train_sampling_strategy" in known
        else {"group_by_length": grouped}  # before transformers 5
    )
    with threads(device.threads), tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=config.budget.batch_size,
            max_steps=warmup + steps,
            learning_rate=config.optimizer.lr,
            max_grad_norm=config.optimizer.clip_norm,
            bf16=same_settings and device.precision == "bfloat16",
            torch_compile=same_settings and config.compute.compile,
            use_cpu=device.device.type == "cpu",
            remove_unused_columns=False,
            report_to=[],
            save_strategy="no",
            logging_steps=steps + warmup + 1,
            disable_tqdm=True,
            seed=config.seed,
            **order,
        )
        Trainer(
            model,
            arguments,
            train_dataset=Dataset.from_dict(columns),
            data_collator=counting,
            callbacks=[Clock()],
        ).train()
    return Measured(sum(lengths[warmup : warmup + steps]), marks[1] - marks[0])


def rows_for(examples: Examples, wanted: int, seed: int) -> list[int]:
    """Numbers of so many examples, drawn without repetition; all where there are fewer."""
    generator = torch.Generator().manual_seed(seed)
    return [int(row) for row in torch.randperm(len(examples), generator=generator)[:wanted]]


def their_parts(
    config: Train, material: Material, rows: Sequence[int]
) -> tuple[Any, dict[str, list[Any]], Any]:
    """Their model, the columns of their dataset, their collator."""
    from transformers import PreTrainedTokenizerFast

    examples = material.examples["train"]
    columns: dict[str, list[Any]] = {"input_ids": [examples[row].tolist() for row in rows]}
    special, backend = material.tokenizer.special, material.tokenizer.backend
    ids = (special.pad_id, special.unk_id, special.cls_id, special.sep_id, special.mask_id)
    names = {f"{role}_token": backend.id_to_token(index) for role, index in zip(ROLES, ids, strict=True)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)  # type: ignore[no-untyped-call]  # transformers has no types here
    model, collator = COUNTERPARTS[type(config.objective)].of(config, material, rows, columns, tokenizer)
    return model, columns, collator


def classification_there(
    config: Train, material: Material, rows: Sequence[int], columns: dict[str, list[Any]], tokenizer: Any
) -> tuple[Any, Any]:
    """Their model and their collator; adds labels to `columns`, and segments where there are second texts."""
    from transformers import BertConfig, BertForSequenceClassification, DataCollatorWithPadding

    examples = material.examples["train"]
    starts = examples.columns["second_start"]
    if any(starts[row] > 0 for row in rows):
        columns["token_type_ids"] = [
            [int(0 < starts[row] <= position) for position in range(len(tokens))]
            for row, tokens in zip(rows, columns["input_ids"], strict=True)
        ]
    columns["labels"] = [int(examples.columns["label"][row]) for row in rows]
    described = their_config(config, material) | {"num_labels": len(material.objective.label_names)}
    return BertForSequenceClassification(BertConfig(**described)), DataCollatorWithPadding(tokenizer)


def mlm_there(
    config: Train, material: Material, _rows: Sequence[int], _columns: dict[str, list[Any]], tokenizer: Any
) -> tuple[Any, Any]:
    """Their model and their collator, which masks."""
    from transformers import BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling

    assert isinstance(config.objective, Mlm)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=config.objective.rate)
    return BertForMaskedLM(BertConfig(**their_config(config, material))), collator


@dataclass(frozen=True)
class Counterpart:
    """What the Trainer trains in the place of one of our objectives."""

    lengths_vary: bool  # of its examples, which can then be grouped by them; masked blocks are full
    of: Callable[[Train, Material, Sequence[int], dict[str, list[Any]], Any], tuple[Any, Any]]


COUNTERPARTS: dict[type[ObjectiveConfig], Counterpart] = {
    Classification: Counterpart(lengths_vary=True, of=classification_there),
    Mlm: Counterpart(lengths_vary=False, of=mlm_there),
}


def groups_by_length(config: Train) -> bool:
    """Whether batches are of similar lengths, ours and the Trainer's at the same settings."""
    return config.budget.group_by_length and COUNTERPARTS[type(config.objective)].lengths_vary


def their_config(config: Train, material: Material) -> dict[str, Any]:
    """BERT as transformers builds it: ours where it has all of our options, else Devlin's encoder of the same
    sizes.
    """
    assert isinstance(config.model, Bert)
    described = to_hf_config(config.model if has_their_like(config) else _of_the_same_sizes(config.model),
        material.tokenizer.vocab_size,
                             material.tokenizer.special.pad_id)  # fmt: skip
    return {name: value for name, value in described.items() if name != "model_type"}


def has_their_like(config: Train) -> bool:
    """Whether transformers' BERT has every option of our encoder."""
    assert isinstance(config.model, Bert)
    try:
        to_hf_config(config.model, 1)
    except ConfigError:
        return False
    return True


def _of_the_same_sizes(model: Bert) -> Bert:
    plain = Bert(name=model.name)
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "max_position_embeddings",
             "hidden_dropout", "attention_dropout")  # fmt: skip
    return dataclasses.replace(plain, **{name: getattr(model, name) for name in sizes})


# --- the process ----------------------------------------------------------------------------------
def measure(contestant: str, config: Train, warmup: int, steps: int) -> Measured:
    """One measurement in this process."""
    if contestant == OURS:
        return measure_ours(config, warmup, steps)
    return measure_trainer(config, warmup, steps, same_settings=contestant == SAME_SETTINGS)


def main() -> None:
    """The process that `bertlab benchmark` starts for each measurement, so that none inherits another's
    memory, threads or caches.
    """
    contestant, folder = sys.argv[1], Path(sys.argv[2])
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    try:
        measured = measure(contestant, RunFolder(folder).config(), request["warmup"], request["steps"])
    except UserError as error:
        sys.exit(str(error))
    write_text(folder / "result.json", to_json(dataclasses.asdict(measured)))


if __name__ == "__main__":
    main()
