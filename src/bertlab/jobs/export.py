"""`bertlab export`: write a finished run as a folder that Hugging Face transformers opens

usage: bertlab export run=FOLDER to=FOLDER [what=task|encoder] [push_to_hub=USER/NAME]

Writes config.json, model.safetensors, the tokenizer's files and a model card, for AutoModelFor…, AutoTokenizer and pipeline, and
compares their outputs with the run's before anything appears in `to`. What transformers has no class for is refused; the encoder
alone goes with what=encoder (AutoModel). Needs transformers: pip install 'bertlab[hf]'.

  verify=false                do not compare outputs
  push_to_hub=USER/NAME       upload the folder too; private=false for a public repository
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from bertlab import export, store
from bertlab.assembly import Trained, load_run
from bertlab.checkpoint import publish_folder
from bertlab.config import Paths, choice, flag, string
from bertlab.errors import ConfigError, RunError
from bertlab.results import Context


@dataclass
class Schema:
    """Which run, where to, and what of it."""

    run: str = string(MISSING, "run folder or id")
    to: str = string(MISSING, "folder to write; must not exist, or be empty")
    what: str = choice("task", "task", "encoder", help="the model with its head, or the encoder alone")
    verify: bool = flag(True, "open the result with transformers and compare its outputs and tokens with the run's")
    push_to_hub: str | None = string(None, "USER/NAME of a hub repository to upload to")
    private: bool = flag(True, "a hub repository made for this is private")
    paths: Paths = field(default_factory=Paths)


def run(config: Schema, _context: Context) -> None:
    """Write, compare, publish; then upload if asked."""
    to = Path(config.to).expanduser()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"to={config.to}: is there already; name a new folder")
    trained = load_run(store.find_run(config.run, config.paths))
    export.check_names(trained.objective.label_names)
    model = export.to_transformers(trained.config, trained.model, trained.tokenizer, trained.objective.label_names, config.what)
    difference: list[float] = []

    def fill(temporary: Path) -> None:
        model.save_pretrained(temporary)
        longest = min(trained.config.objective.max_length, getattr(trained.config.model, "max_position_embeddings", 1 << 30))
        export.to_transformers_tokenizer(trained.tokenizer, longest).save_pretrained(temporary)
        (temporary / "README.md").write_text(model_card(trained, config.what), encoding="utf-8")
        if config.verify:
            difference.append(export.largest_difference(trained, temporary, config.what))
            export.compare_tokens(trained, temporary)

    if to.is_dir():
        to.rmdir()
    try:
        publish_folder(to, fill)
    except OSError as error:
        raise RunError(f"to={config.to}: cannot be written ({error.strerror or error})") from error
    checked = f"outputs equal to the run's (largest difference {difference[0]:.1e})" if difference else "outputs not compared"
    print(f"{to}: {type(model).__name__}, {checked}")
    if config.push_to_hub is not None:
        print(f"uploaded: {upload(to, config.push_to_hub, config.private)}")


def upload(folder: Path, name: str, private: bool) -> str:
    """Make the repository if need be, upload the folder; its address. Raises RunError in one line where that fails."""
    from huggingface_hub import HfApi

    try:
        client = HfApi()
        client.create_repo(name, private=private, exist_ok=True)
        return str(client.upload_folder(repo_id=name, folder_path=folder, commit_message="Export of a bertlab run"))
    except Exception as error:  # of several libraries, none of them ours
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RunError(f"push_to_hub={name}: {line}; the folder {folder} is complete and can be uploaded later") from error


# --- the card -----------------------------------------------------------------------------------------------------------------
def model_card(trained: Trained, what: str) -> str:
    """README.md: what this is, what it was trained on and how well it does, how to make it again, what it is not."""
    summary = store.read_summary(trained.folder) or {}
    environment = _environment(trained.folder)
    config, cost = trained.config, summary["cost"]
    task = export.task_of(config, what)
    front = {
        "library_name": "transformers", "license": "other", "language": "en", "tags": ["bertlab", config.objective.name],
        "datasets": [getattr(config.dataset, "hub", None) or config.dataset.name],
        **({"pipeline_tag": export.PIPELINES[task]} if task in export.PIPELINES else {}),
    }  # fmt: skip
    scores = [
        f"| {name} | {value:.4f} |"
        for name, value in summary["metrics"].items()
        if isinstance(value, int | float) and name.split("/")[0] in ("validation", "test")
    ]
    stage = summary.get("stage")
    pretrained = (
        f"- Pretraining: run `{stage['run']}`, {stage['cost']['tokens']:,} tokens" if stage else f"- First weights: {config.init.name}"
    )
    git: dict[str, Any] = environment.get("git") or {}
    return "\n".join([
        "---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---", "",
        f"# {config.objective.name} on {config.dataset.name}", "",
        f"{'The encoder' if what == 'encoder' else 'A model'} trained with bertlab (run `{trained.folder.name}`, seed {config.seed}).", "",
        "## Training", "",
        f"- Data: {config.dataset.name}", f"- Objective: {config.objective.name}, at most {config.objective.max_length} tokens", pretrained,
        f"- Budget: {cost['steps']:,} steps, {cost['examples']:,} examples, {cost['tokens']:,} tokens, {cost['seconds'] / 60:.1f} minutes",
        f"- Optimizer: {config.optimizer.name}, peak learning rate {config.optimizer.lr:g}, batches of {config.budget.batch_size}",
        f"- Parameters: {cost['parameters']:,}",
        f"- Seed: {config.seed}. Another seed gives other scores: a single run is no measurement.", "",
        "## Scores", "",
        f"The checkpoint was chosen by {summary['selected_by']}; a test split, where there is one, was scored once.", "",
        "| score | value |", "|---|---|", *scores, "",
        "## Again", "", f"    {summary['command']}", "",
        f"bertlab {environment.get('bertlab')}, revision {git.get('revision', 'unknown')}{' with changes' if git.get('dirty') else ''}, "
        f"torch {(environment.get('packages') or {}).get('torch')}, {environment.get('processor')}.", "",
        "## Limits", "",
        "Made for experiments. Scores hold for the dataset above and no other; what it has learnt of its texts, their bias included, it "
        "repeats. The licence of the data and of any weights it began from applies.", "",
    ])  # fmt: skip


def _environment(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}
