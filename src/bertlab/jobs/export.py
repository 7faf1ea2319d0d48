"""`bertlab export`: write a finished run as a folder that transformers, sentence-transformers or onnxruntime opens

usage: bertlab export run=FOLDER to=FOLDER [format=transformers|sentence_transformers|onnx] [what=task|encoder] [push_to_hub=USER/NAME]

Write the model, the tokenizer's files and a model card. Before the folder appears it is opened as a stranger would open it, and its tokens
and outputs are compared with the run's.

  format=transformers           config.json, model.safetensors, for AutoModelFor…, AutoTokenizer and pipeline (pip install 'bertlab[hf]').
                                Where transformers has no class for an encoder of ours (rotary positions, maximum pooling …), its code
                                comes along, modeling_bertlab.py, and trust_remote_code=True opens it, without bertlab
  format=sentence_transformers  of objective=embedding: SentenceTransformer(FOLDER).encode(texts)
  format=onnx                   model.onnx, of any number of rows and tokens, for onnxruntime (pip install 'bertlab[onnx]')

  classification -> …ForSequenceClassification    mlm     -> …ForMaskedLM       nsp, sop -> …ForNextSentencePrediction
  tagging        -> …ForTokenClassification       mlm_nsp -> …ForPreTraining    any -> …Model, with what=encoder
  regression, multi_label -> …ForSequenceClassification (numbers in the data's own unit; a yes or no for each class)
  multiple_choice -> …ForMultipleChoice           extractive_qa -> …ForQuestionAnswering      embedding -> …Model, its pooled output
  rtd            -> ElectraForPreTraining, the detector; its generator stays behind

A token predicted from the position before it (mntp) and sentence order beside masked tokens (mlm_nsp, pairs=order) have no class there and
are refused, and so is a head on a Hugging Face encoder that transformers has no class for; what=encoder goes.

  verify=false                do not compare (own models only; a Hugging Face architecture is always compared)
  push_to_hub=USER/NAME       upload the folder too; private=false for a public repository
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from bertlab.config.registry import Job
from bertlab.config.schema import Node, Paths, choice, flag, string
from bertlab.errors import ConfigError, RunError, first_line
from bertlab.export.card import model_card
from bertlab.export.formats import FORMATS, longest
from bertlab.export.model import MODELLING, check_names
from bertlab.export.tokenizer_files import SIDES, truncation_of, write_tokenizer
from bertlab.export.verification import validation_rows
from bertlab.runs.files import clear_orphans, temporary_folder, write_record
from bertlab.runs.folder import find_run
from bertlab.runs.outcome import Context
from bertlab.runs.progress import working
from bertlab.training.finished import FinishedRun, load_run


@dataclass
class Schema(Node):
    """Which run, where to, and what of it."""

    run: str = string(MISSING, "run folder or id")
    to: str = string(MISSING, "folder to write; must not exist, or be empty")
    format: str = choice(
        "transformers",
        "transformers",
        "sentence_transformers",
        "onnx",
        help="for whom: transformers, sentence-transformers, onnxruntime",
    )
    what: str = choice("task", "task", "encoder", help="the model with its head, or the encoder alone")
    verify: bool = flag(
        True, "open the result as its user would and compare its tokens and outputs with the run's"
    )
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
    way = FORMATS[config.format]
    form = way.form(described, config.what)  # before weights are read
    trained = load_run(folder)
    check_names(trained.objective.label_names)
    trained.config.paths.mirror = config.paths.mirror or trained.config.paths.mirror
    trained.config.paths.cache = config.paths.cache or trained.config.paths.cache
    try:
        clear_orphans(to.parent, to.name)
        with temporary_folder(to) as temporary:
            kind = write_folder(trained, temporary, config)
            card = model_card(
                described, folder, form, kind, longest(trained), way.library, way.opening(trained, form)
            )
            write_record(temporary / "README.md", card)
            why = way.uncompared(trained, config.verify)
            with working("comparing what was exported with the run"):
                rows = None if why else validation_rows(trained)
                checked = (
                    f"not compared with the run: {why}"
                    if why
                    else way.compare(trained, temporary, form, rows)
                )
            # fails where something has appeared there meanwhile; takes the place of an empty folder
            temporary.rename(to)
    except OSError as error:
        raise RunError(f"to={config.to}: cannot be written ({error.strerror or error})") from error
    print(f"{to}: {kind}, {checked}")
    if form.as_code:
        print(
            f"transformers has no class for this encoder: the folder carries its code ({MODELLING}.py); open"
            " it with trust_remote_code=True"
        )
    truncation = truncation_of(described.objective)
    if truncation not in SIDES:
        print(
            f"objective.truncation={truncation}: transformers cannot cut so; texts of more than"
            f" {longest(trained)} tokens are cut at their end there, as README.md says"
        )
    if config.push_to_hub is not None:
        print(f"uploaded: {upload(to, config.push_to_hub, config.private)}")


def free_folder(given: str, run_folder: Path) -> Path:
    """Where to write. Raises ConfigError for a place that is in use, or within the run, whose folder is its
    record.
    """
    to = Path(given).expanduser()
    if os.path.lexists(to) and (to.is_symlink() or not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"to={given}: is there already; name a new folder")
    if to.resolve().is_relative_to(run_folder.resolve()):
        raise ConfigError(
            f"to={given}: lies within the run's own folder, which is its record; name a folder elsewhere"
        )
    return to


def write_folder(trained: FinishedRun, folder: Path, config: Schema) -> str:
    """Model and tokenizer; what they are, for a person."""
    kind = FORMATS[config.format].write(trained, folder, config.what)
    write_tokenizer(
        folder,
        trained.tokenizer,
        longest(trained),
        trained.model.encoder.takes_segments,
        truncation_of(trained.config.objective),
    )
    return kind


def upload(folder: Path, name: str, private: bool) -> str:
    """Make the repository if need be, upload the folder; its address. Raises RunError in one line where that
    fails.
    """
    from huggingface_hub import HfApi

    try:
        client = HfApi()
        client.create_repo(name, private=private, exist_ok=True)
        return str(
            client.upload_folder(repo_id=name, folder_path=folder, commit_message="Export of a bertlab run")
        )
    except Exception as error:  # of several libraries, none of them ours
        line = first_line(error, 200)
        raise RunError(
            f"push_to_hub={name}: {line}; the folder {folder} is complete and can be uploaded later"
        ) from error


JOB = Job(Schema, run)
