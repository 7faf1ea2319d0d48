"""The model card: what this is, what it was trained on, how well it does, what it cost, how to make it again,
what it is not.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertlab.config.schema import Train
from bertlab.errors import RunError
from bertlab.export.model import Form
from bertlab.export.tokenizer_files import SIDES, truncation_of
from bertlab.runs.folder import RunFolder
from bertlab.runs.records import one_run_command, read_run
from bertlab.training.init import FromCheckpoint, FromPretrained, FromStage

PIPELINES = {
    "SequenceClassification": "text-classification", "TokenClassification": "token-classification",
    "MaskedLM": "fill-mask",
    "QuestionAnswering": "question-answering",
    "": "feature-extraction",
}  # fmt: skip

UNLIKE = {  # what of a long text the run reads and transformers does not
    "head_tail": (
        "- **Longer texts are read otherwise than by the run**, which kept a quarter of the room from their"
        " beginning and the rest from their end. Transformers has no such truncation: give it at most"
        " {longest} tokens, or cut texts so yourself."
    ),
    "windows": (
        "- **Longer texts are read otherwise than by the run**, which read them whole in windows of {longest}"
        " tokens and averaged their log-probabilities. Transformers reads the first window: cut into windows"
        " and average, or use `bertlab predict`."
    ),
}


def model_card(
    config: Train,
    folder: RunFolder,
    form: Form,
    kind: str,
    longest: int,
    library: str,
    opening: Sequence[str],
) -> str:
    """README.md: the metadata that the hub reads, how the folder is opened (`opening`), what is known of the
    run.

    Raises RunError where the run's summary lacks what a card must say.
    """
    summary = folder.summary() or {}
    try:
        parts = [
            _front(config, folder, summary, form, library),
            *_text(config, folder, summary, form, kind, longest, opening),
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{folder}/summary.json: damaged ({type(error).__name__}: {error})") from error
    return "\n".join(parts)


def _front(config: Train, folder: RunFolder, summary: Mapping[str, Any], form: Form, library: str) -> str:
    """Metadata as YAML, one key a line, its value as JSON (which is YAML)."""
    hub, pipeline = config.dataset.hub_name(), PIPELINES.get(form.task)
    front: dict[str, Any] = {"library_name": library, "license": "other", "license_name": "see-the-card"}
    front["tags"] = ["bertlab", config.objective.name, *(["custom_code"] if form.as_code else [])]
    if hub:
        front["datasets"] = [hub]
    if pipeline:
        front["pipeline_tag"] = pipeline
    if form.head is not None:  # scores are of the model with its head
        results = [
            {
                "task": {"type": pipeline or config.objective.name},
                "dataset": {"name": config.dataset.name, "type": hub or config.dataset.name, "split": split},
                "metrics": [{"type": name, "value": value} for name, value in scores.items()],
            }
            for split, scores in _scores(summary).items()
        ]
        front["model-index"] = [{"name": folder.name, "results": results}]
    return "\n".join(
        [
            "---",
            *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()),
            "---",
            "",
        ]
    )


def _scores(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Split -> metric -> value, of the selected checkpoint."""
    by_split: dict[str, dict[str, float]] = {}
    for name, value in summary["metrics"].items():
        split, _, metric = name.partition("/")
        if split in ("validation", "test") and isinstance(value, int | float):
            by_split.setdefault(split, {})[metric] = value
    return by_split


def _text(
    config: Train,
    folder: RunFolder,
    summary: Mapping[str, Any],
    form: Form,
    kind: str,
    longest: int,
    opening: Sequence[str],
) -> list[str]:
    objective, cost = config.objective.name, summary["cost"]
    scores = [
        f"| {split} | {name} | {value:.4f} |"
        for split, values in _scores(summary).items()
        for name, value in values.items()
    ]
    what = f"trained with bertlab (objective {objective}, run `{folder.name}`)"
    return [
        f"# {objective} on {config.dataset.name}", "",
        f"A `{kind}` {what}."
        if form.head
        else f"The encoder, a `{kind}`, of a model {what}, without its head.",
        "",
        *([form.head.note, ""] if form.head and form.head.note else []),
        *opening, "",
        "## Training", "",
        f"- Data: {config.dataset.name}{_hub_of(config)}",
        f"- Objective: {objective}, at most {config.objective.max_length} tokens",
        *_origin(config, summary),
        f"- Budget: {_cost(cost)}",
        f"- Optimizer: {config.optimizer.name}, peak learning rate {config.optimizer.lr:g}, "
        f"{config.schedule.name} schedule, "
        f"batches of {config.budget.batch_size}",
        f"- Parameters: {cost['parameters']:,}",
        f"- Seed: {config.seed}, one run. Another seed gives other scores.", "",
        "## Scores", "",
        f"Of the checkpoint at step {summary['selected_step']}, selected by {summary['selected_by']}. "
        "The test split, where there is one, was scored once, with that checkpoint.", "",
        "| split | score | value |", "|---|---|---|", *scores, "",
        "## How it was made", "", f"    {without_folders(one_run_command(read_run(folder)))}", "",
        _provenance(folder), "",
        "## Limits", "", *_limits(config, form, longest), "",
    ]  # fmt: skip


def _cost(cost: Mapping[str, Any]) -> str:
    operations = f", about {cost['flops']:.3g} floating-point operations" if cost.get("flops") else ""
    core = f", {cost['core_seconds'] / 60:.1f} core-minutes" if cost.get("core_seconds") else ""
    return (
        f"{cost['steps']:,} steps, {cost['examples']:,} examples, {cost['tokens']:,} tokens;"
        f" {cost['seconds'] / 60:.1f} minutes{core}{operations}"
    )


def _hub_of(config: Train | FromStage) -> str:
    hub = config.dataset.hub_name()
    return f" (`{hub}` on the hub)" if hub else ""


def _origin(config: Train, summary: Mapping[str, Any]) -> list[str]:
    """Where the first weights came from."""
    init = config.init
    if isinstance(init, FromStage) and (stage := summary.get("stage")):
        described = f"{init.objective.name} on {init.dataset.name}{_hub_of(init)}, seed {init.seed}"
        return [f"- Pretraining: {described}, run `{stage['run']}`; {_cost(stage['cost'])}"]
    given = (
        init.path if isinstance(init, FromCheckpoint | FromPretrained) else None
    ) or config.model.hub_name()
    named = f" ({Path(given).name if Path(given).is_absolute() else given})" if given else ""
    return [f"- First weights: init={init.name}{named}"]


def _provenance(folder: RunFolder) -> str:
    """Versions, revision and machine, as far as the run's environment.json has them."""
    environment = folder.environment()
    packages, git = environment.get("packages") or {}, environment.get("git") or {}
    if not environment or not isinstance(packages, dict) or not isinstance(git, dict):
        return "Versions and machine are not known: the run's environment.json is missing or damaged."
    versions = ", ".join(
        f"{name} {packages[name]}" for name in ("torch", "tokenizers", "transformers") if packages.get(name)
    )
    changed = " with uncommitted changes" if git.get("dirty") else ""
    return (
        f"bertlab {environment.get('bertlab')}, revision {git.get('revision') or 'unknown'}{changed}; "
        f"Python {environment.get('python')}, {versions}; {environment.get('processor')}."
    )


def _limits(config: Train, form: Form, longest: int) -> list[str]:
    """What a reader must not take it for."""
    truncation = truncation_of(config.objective)
    said = {"head": "", "tail": " from their beginning, of which the end is kept"}.get(
        truncation, " at their end"
    )
    limits = [
        (
            "- Made for experiments. The scores hold for the data above and no other; what it has learnt of"
            " its texts, their bias included, it repeats."
        ),
        "- No licence is given here: that of the data and of any weights it began from applies.",
        f"- Texts are cut to {longest} tokens{said}; ask pipelines for it with `truncation=True`.",
    ]
    if truncation not in SIDES:
        limits.append(UNLIKE[truncation].format(longest=longest))
    if form.task == "TokenClassification":
        limits.append(
            '- A word\'s tag is read at its first sub-word (`aggregation_strategy="first"`). A sentence that'
            " is too long was cut between words in training; transformers may cut within one."
        )
    if not config.objective.predicts:
        limits.append("- Pretrained only: fine-tune it before its sentence vectors are used for anything.")
    if form.head is None and not form.as_code and config.model.pooling != "cls":
        limits.append(
            f"- It has no pooler (it was trained with {config.model.pooling} pooling): `pooler_output` is"
            " random."
        )
    return limits


def without_folders(command: str) -> str:
    """A command whose absolute paths, which mean nothing elsewhere, are cut to their last part:
    `init.path=…/checkpoint`.
    """
    return re.sub(r"(?<==)(?:~|/)[^\s'\",]*/(?=[^\s'\",/]+)", "…/", command)
