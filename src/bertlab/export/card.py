"""The model card: what this is, what it was trained on, how well it does, what it cost, how to make it again, what it is not."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertlab import registry
from bertlab.config import Train
from bertlab.errors import RunError

PIPELINES = {
    "SequenceClassification": "text-classification", "TokenClassification": "token-classification", "MaskedLM": "fill-mask",
    "": "feature-extraction",
}  # fmt: skip


def model_card(config: Train, folder: Path, summary: Mapping[str, Any], task: str, kind: str, longest: int) -> str:
    """README.md, opened by the metadata that the hub reads. Raises RunError where the run's summary lacks what a card must say."""
    try:
        parts = [_front(config, folder, summary, task), *_text(config, folder, summary, task, kind, longest)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{folder}/summary.json: damaged ({type(error).__name__}: {error})") from error
    return "\n".join(parts)


def _front(config: Train, folder: Path, summary: Mapping[str, Any], task: str) -> str:
    """Metadata as YAML, one key a line, its value as JSON (which is YAML)."""
    hub, pipeline = getattr(config.dataset, "hub", None), PIPELINES.get(task)
    front: dict[str, Any] = {"library_name": "transformers", "license": "other", "license_name": "see-the-card"}
    front["tags"] = ["bertlab", _option(config, "objective")]
    if hub:
        front["datasets"] = [hub]
    if pipeline:
        front["pipeline_tag"] = pipeline
    if task:  # scores are of the model with its head
        results = [
            {
                "task": {"type": pipeline or _option(config, "objective")},
                "dataset": {"name": config.dataset.name, "type": hub or config.dataset.name, "split": split},
                "metrics": [{"type": name, "value": value} for name, value in scores.items()],
            }
            for split, scores in _scores(summary).items()
        ]
        front["model-index"] = [{"name": folder.name, "results": results}]
    return "\n".join(["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---", ""])


def _scores(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Split -> metric -> value, of the selected checkpoint."""
    found: dict[str, dict[str, float]] = {}
    for name, value in summary["metrics"].items():
        split, _, metric = name.partition("/")
        if split in ("validation", "test") and isinstance(value, int | float):
            found.setdefault(split, {})[metric] = value
    return found


def _text(config: Train, folder: Path, summary: Mapping[str, Any], task: str, kind: str, longest: int) -> list[str]:
    objective, cost = _option(config, "objective"), summary["cost"]
    scores = [f"| {split} | {name} | {value:.4f} |" for split, found in _scores(summary).items() for name, value in found.items()]
    what = f"trained with bertlab (objective {objective}, run `{folder.name}`)"
    return [
        f"# {objective} on {config.dataset.name}", "",
        f"A `{kind}` {what}." if task else f"The encoder, a `{kind}`, of a model {what}, without its head.", "",
        "## Training", "",
        f"- Data: {config.dataset.name}{_hub_of(config)}",
        f"- Objective: {objective}, at most {config.objective.max_length} tokens",
        *_origin(config, summary),
        f"- Budget: {_cost(cost)}",
        f"- Optimizer: {_option(config, 'optimizer')}, peak learning rate {config.optimizer.lr:g}, {_option(config, 'schedule')} schedule, "
        f"batches of {config.budget.batch_size}",
        f"- Parameters: {cost['parameters']:,}",
        f"- Seed: {config.seed}, one run. Another seed gives other scores.", "",
        "## Scores", "",
        f"Of the checkpoint at step {summary['selected_step']}, selected by {summary['selected_by']}. "
        "The test split, where there is one, was scored once, with that checkpoint.", "",
        "| split | score | value |", "|---|---|---|", *scores, "",
        "## How it was made", "", f"    {without_folders(summary['command'])}", "", _provenance(folder), "",
        "## Limits", "", *_limits(config, task, longest), "",
    ]  # fmt: skip


def _cost(cost: Mapping[str, Any]) -> str:
    operations = f", about {cost['flops']:.3g} floating-point operations" if cost.get("flops") else ""
    core = f", {cost['core_seconds'] / 60:.1f} core-minutes" if cost.get("core_seconds") else ""
    return (
        f"{cost['steps']:,} steps, {cost['examples']:,} examples, {cost['tokens']:,} tokens; {cost['seconds'] / 60:.1f} minutes"
        f"{core}{operations}"
    )


def _hub_of(config: Train) -> str:
    hub = getattr(config.dataset, "hub", None)
    return f" (`{hub}` on the hub)" if hub else ""


def _origin(config: Train, summary: Mapping[str, Any]) -> list[str]:
    """Where the first weights came from."""
    if stage := summary.get("stage"):
        init: Any = config.init
        described = f"{_option(init, 'objective')} on {init.dataset.name}{_hub_of(init)}, seed {init.seed}"
        return [f"- Pretraining: {described}, run `{stage['run']}`; {_cost(stage['cost'])}"]
    given = getattr(config.init, "path", None) or getattr(config.model, "name_or_path", None)
    named = f" ({Path(str(given)).name if Path(str(given)).is_absolute() else given})" if given else ""
    return [f"- First weights: init={_option(config, 'init')}{named}"]


def _option(config: Any, group: str) -> str:
    return registry.option_of(group, getattr(config, group))


def _provenance(folder: Path) -> str:
    """Versions, revision and machine, as far as the run's environment.json has them."""
    try:
        found = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        packages, git = dict(found.get("packages") or {}), dict(found.get("git") or {})
    except (OSError, ValueError, TypeError, AttributeError):
        return "Versions and machine are not known: the run's environment.json is missing or damaged."
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "tokenizers", "transformers") if packages.get(name))
    changed = " with uncommitted changes" if git.get("dirty") else ""
    return (
        f"bertlab {found.get('bertlab')}, revision {git.get('revision') or 'unknown'}{changed}; Python {found.get('python')}, {versions}; "
        f"{found.get('processor')}."
    )


def _limits(config: Train, task: str, longest: int) -> list[str]:
    """What a reader must not take it for."""
    limits = [
        "- Made for experiments. The scores hold for the data above and no other; what it has learnt of its texts, their bias included, "
        "it repeats.",
        "- No licence is given here: that of the data and of any weights it began from applies.",
        f"- Texts are cut to {longest} tokens; ask pipelines for it with `truncation=True`.",
    ]
    if task == "TokenClassification":
        limits.append(
            '- A word\'s tag is read at its first sub-word (`aggregation_strategy="first"`). A sentence that is too long was cut between '
            "words in training; transformers may cut within one."
        )
    if task in ("MaskedLM", "PreTraining", "NextSentencePrediction") or (not task and hasattr(config.objective, "rate")):
        limits.append("- Pretrained only: fine-tune it before its sentence vectors are used for anything.")
    if not task and getattr(config.model, "pooling", "cls") != "cls":
        limits.append(f"- It has no pooler (it was trained with {config.model.pooling} pooling): `pooler_output` is random.")  # type: ignore[attr-defined]  # of the models that pool
    return limits


def without_folders(command: str) -> str:
    """A command whose absolute paths, which mean nothing elsewhere, are cut to their last part: `init.path=…/checkpoint`."""
    return re.sub(r"(?<==)(?:~|/)[^\s'\",]*/(?=[^\s'\",/]+)", "…/", command)
