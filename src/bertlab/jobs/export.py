"""`bertlab export`: write a finished run as a folder that Hugging Face transformers opens

usage: bertlab export run=FOLDER to=FOLDER [what=task|encoder] [push_to_hub=USER/NAME]

Write config.json, model.safetensors, the tokenizer's files and a model card, for AutoModelFor…, AutoTokenizer and pipeline. Before the
folder appears it is opened with transformers (pip install 'bertlab[hf]'), and its tokens and outputs are compared with the run's.

  classification -> …ForSequenceClassification    mlm     -> …ForMaskedLM       nsp -> …ForNextSentencePrediction
  tagging        -> …ForTokenClassification       mlm_nsp -> …ForPreTraining    any -> …Model, with what=encoder
  regression, multi_label -> …ForSequenceClassification (numbers in the data's own unit; a yes or no for each class)
  multiple_choice -> …ForMultipleChoice           extractive_qa -> …ForQuestionAnswering

What transformers has no class for (rotary positions, mean pooling, sentence order …) is refused, and the keys are named.

  verify=false                do not compare (own models only; a Hugging Face architecture is always compared)
  push_to_hub=USER/NAME       upload the folder too; private=false for a public repository
"""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from bertlab.config.registry import Job
from bertlab.config.schema import Node, Paths, choice, flag, string
from bertlab.errors import ConfigError, RunError
from bertlab.export.card import model_card
from bertlab.export.model import MODELLING, Form, check_names, form_of, has_transformers, write_model
from bertlab.export.tokenizer_files import SIDES, truncation_of, write_tokenizer
from bertlab.export.verification import compare_tokens, largest_difference, validation_rows
from bertlab.runs.files import write_record
from bertlab.runs.folder import find_run
from bertlab.runs.outcome import Context
from bertlab.training.finished import FinishedRun, load_run


@dataclass
class Schema(Node):
    """Which run, where to, and what of it."""

    run: str = string(MISSING, "run folder or id")
    to: str = string(MISSING, "folder to write; must not exist, or be empty")
    what: str = choice("task", "task", "encoder", help="the model with its head, or the encoder alone")
    verify: bool = flag(True, "open the result with transformers and compare its tokens and outputs with the run's")
    push_to_hub: str | None = string(None, "USER/NAME of a hub repository to upload to")
    private: bool = flag(True, "a hub repository made for this is private")
    paths: Paths = field(default_factory=Paths)

    def check(self, path: str) -> None:
        """A repository has an owner and a name."""
        if self.push_to_hub is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.push_to_hub):
            raise ConfigError(f"push_to_hub={self.push_to_hub}: must be USER/NAME")


def run(config: Schema, _context: Context) -> None:
    """Write, compare, publish; then upload if asked."""
    folder = find_run(config.run, config.paths)
    to = free_folder(config.to, folder.path)
    described = folder.config()
    form = form_of(described, config.what)  # before weights are read
    trained = load_run(folder)
    check_names(trained.objective.label_names)
    trained.config.paths.mirror = config.paths.mirror or trained.config.paths.mirror
    trained.config.paths.cache = config.paths.cache or trained.config.paths.cache
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}.", suffix=".tmp"))
        try:
            kind = write_folder(trained, temporary, config.what)
            card = model_card(described, folder, form, kind, longest(trained))
            write_record(temporary / "README.md", card)
            checked = verified(trained, temporary, form, config.verify)
            temporary.chmod(0o755)
            temporary.rename(to)  # fails where something has appeared there meanwhile; takes the place of an empty folder
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise RunError(f"to={config.to}: cannot be written ({error.strerror or error})") from error
    print(f"{to}: {kind}, {checked}")
    if form.as_code:
        print(
            f"transformers has no class for this encoder: the folder carries its code ({MODELLING}.py); open it with trust_remote_code=True"
        )
    truncation = truncation_of(described.objective)
    if truncation not in SIDES:
        print(
            f"objective.truncation={truncation}: transformers cannot cut so; texts of more than {longest(trained)} tokens are cut at their "
            "end there, as README.md says"
        )
    if config.push_to_hub is not None:
        print(f"uploaded: {upload(to, config.push_to_hub, config.private)}")


def free_folder(given: str, run_folder: Path) -> Path:
    """Where to write. Raises ConfigError for a place that is in use, or within the run, whose folder is its record."""
    to = Path(given).expanduser()
    if os.path.lexists(to) and (to.is_symlink() or not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"to={given}: is there already; name a new folder")
    if to.resolve().is_relative_to(run_folder.resolve()):
        raise ConfigError(f"to={given}: lies within the run's own folder, which is its record; name a folder elsewhere")
    return to


def longest(trained: FinishedRun) -> int:
    """Tokens of the longest text, special ones included: what the run was trained with, as far as positions go."""
    reach = trained.model.encoder.longest
    return trained.config.objective.max_length if reach is None else min(trained.config.objective.max_length, reach)


def write_folder(trained: FinishedRun, folder: Path, what: str) -> str:
    """Model and tokenizer; the name of the model's class."""
    kind = write_model(folder, trained.config, trained.model, trained.tokenizer, trained.objective.label_names, what)
    write_tokenizer(
        folder, trained.tokenizer, longest(trained), trained.model.encoder.takes_segments, truncation_of(trained.config.objective)
    )
    return kind


def verified(trained: FinishedRun, folder: Path, form: Form, wanted: bool) -> str:
    """Compare tokens and outputs; what that showed, in words. Raises RunError where they are not the run's."""
    if trained.config.model.hub_name() is None:  # what transformers has built itself is always compared
        if not wanted:
            return "not compared with the run (verify=false)"
        if not has_transformers():
            return "not compared with the run: transformers is not installed"
    rows = validation_rows(trained)
    compare_tokens(trained, folder, longest(trained), rows)
    difference = largest_difference(trained, folder, form, longest(trained), rows)
    texts = f"{len(rows)} validation rows" if rows is not None else "texts of our own (the run's data cannot be read here)"
    return f"tokens and outputs equal to the run's on {texts} and random tokens (largest difference {difference:.1e})"


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


JOB = Job(Schema, run)
