"""Open an exported folder as anybody would, and compare it with the run: tokens, then outputs.

Outputs are compared in double precision, in which equal weights give equal outputs and rounding hides
nothing.
"""

import copy
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bertlab.contracts import Batch, join_examples
from bertlab.data.dataset import load_for
from bertlab.data.tokenizer import Tokenizer
from bertlab.errors import RunError, UserError
from bertlab.export import stranger
from bertlab.export.model import Form, leaving
from bertlab.export.tokenizer_files import SIDES, truncation_of
from bertlab.models.hf import transformers_module
from bertlab.objectives._texts import join_texts
from bertlab.training.assembly import Model
from bertlab.training.finished import FinishedRun

Tensors = dict[str, torch.Tensor]
TOLERANCE = 1e-5  # of an output's largest element, where that is above 1
ROWS = 8  # of the validation split
OVER_VOCABULARY = ("MaskedLM", "PreTraining")  # heads that are asked for some tokens, and compared there
# what stands at padding means nothing
AT_EVERY_TOKEN = ("TokenClassification", "QuestionAnswering", "ReplacedTokens")
LOGITS = {
    "PreTraining": ("prediction_logits", "seq_relationship_logits"), "QuestionAnswering": ("start_logits",
    "end_logits"),
    "": ("pooler_output",),
}  # fmt: skip
SAMPLE = (
    "A film that's not bad at all.", "naïve café — 3.14 % of THE time", "x", "[MASK] and [SEP] in a text",
    "東京 🎬 don't\tstop", " two  ",
)  # fmt: skip


def validation_rows(trained: FinishedRun) -> Any:
    """The first rows of the validation split that the run was scored on; None where its data cannot be read
    here.
    """
    config = trained.config
    try:
        if config.dataset.fingerprint(config.paths) != trained.identity["inputs"]["dataset"]:
            return None
        rows = load_for(config).splits["validation"]
    except (UserError, OSError, KeyError):
        return None
    return rows.select(range(min(ROWS, len(rows))))


# --- tokens ---------------------------------------------------------------------------------------
def compare_tokens(trained: FinishedRun, folder: Path, longest: int, rows: Any) -> None:
    """Ids and segments of validation texts and of awkward ones, alone, in pairs and cut. Raises RunError
    where they are not ours.

    Where transformers cannot cut as the run does, texts that are not cut are compared.
    """
    truncation = truncation_of(trained.config.objective)
    theirs = transformers_module("export").AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    columns = (
        {name: list(rows[name]) for name in ("text", "text_pair", "tokens") if name in rows.column_names}
        if rows is not None
        else {}
    )
    texts = [*SAMPLE, " ".join([*SAMPLE] * (longest // 8 + 1)), *columns.get("text", ())]
    seconds = [*texts[1:], texts[0]]
    seconds[len(texts) - len(columns.get("text_pair", ())) :] = columns.get("text_pair", ())
    for text, second in [*((text, None) for text in texts), *zip(texts, seconds, strict=True)]:
        first, *others = trained.tokenizer.encode([text] if second is None else [text, second])
        frame = 2 if second is None else 2 + trained.tokenizer.special.between
        if truncation not in SIDES and len(first) + sum(map(len, others)) + frame > longest:
            continue
        side = truncation if truncation in SIDES else "head"
        expected, start = join_texts(
            first, others[0] if others else None, longest, trained.tokenizer.special, side
        )
        # in lists: an empty second text alone is none
        encoded = theirs([text], None if second is None else [second], truncation=True)
        segments = [int(0 < start <= index) for index in range(len(expected))]
        if encoded["input_ids"] != [expected] or encoded.get("token_type_ids", [segments]) != [segments]:
            said = f"{text[:80]!r}" if second is None else f"the pair {text[:60]!r}, {second[:60]!r}"
            raise RunError(
                f"the exported tokenizer reads {said} otherwise than the run's; nothing was written"
            )
    for words in columns.get("tokens", ()):
        ours = [
            token
            for ids in trained.tokenizer.encode(words)
            for token in ids or [trained.tokenizer.special.unk_id]
        ]
        if theirs(words, is_split_into_words=True, add_special_tokens=False)["input_ids"] != ours:
            raise RunError(
                f"the exported tokenizer reads the words {words[:12]} otherwise than the run's; nothing was"
                " written"
            )


# --- outputs --------------------------------------------------------------------------------------
def largest_difference(trained: FinishedRun, folder: Path, form: Form, longest: int, rows: Any) -> float:
    """Compare logits (of the encoder alone: hidden states) on random tokens and on validation rows. Raises
    RunError where they differ.
    """
    if form.head is not None and form.head.names_classes:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        if named != {str(index): name for index, name in enumerate(trained.objective.label_names)}:
            raise RunError("the exported model names its classes otherwise than the run; nothing was written")
    model = copy.deepcopy(trained.model).cpu().eval().double()
    batches = [random_batch(trained.tokenizer, longest), *validation_batch(trained, rows)]
    given = [asked(batch, form.task, trained.model.encoder.takes_segments) for batch in batches]
    answers = (_answers_apart if form.as_code else _answers_here)(folder, form.task, given)
    with torch.no_grad():
        shares = [
            share_of_largest(*both(model, one, batch, form))
            for batch, one in zip(batches, answers, strict=True)
        ]
    if not max(shares) <= TOLERANCE or any(math.isnan(share) for share in shares):
        raise RunError(
            f"the exported model answers otherwise than the run (by {max(shares):.2g}); nothing was written"
        )
    return max(shares)


def _answers_here(folder: Path, task: str, given: list[Tensors]) -> list[Tensors]:
    """Of a class of transformers' own."""
    auto = getattr(transformers_module("export"), f"AutoModelFor{task}" if task else "AutoModel")
    theirs = auto.from_pretrained(folder, trust_remote_code=False).eval().double()
    with torch.no_grad():
        return [dict(theirs(**one)) for one in given]


def _answers_apart(folder: Path, task: str, given: list[Tensors]) -> list[Tensors]:
    """Of a folder with code: in a process of its own that cannot import bertlab. Raises RunError where it
    cannot be opened so.
    """
    with tempfile.TemporaryDirectory() as place:
        files = Path(place, "given.safetensors"), Path(place, "answers.safetensors")
        save_file(
            {
                f"{number}.{name}": value.contiguous()
                for number, one in enumerate(given)
                for name, value in one.items()
            },
            files[0],
        )
        open_alone(folder, task, *files)
        answers: list[Tensors] = [{} for _ in given]
        for name, value in load_file(files[1]).items():
            number, _, key = name.partition(".")
            answers[int(number)][key] = value
    return answers


def open_alone(folder: Path, how: str, given: Path, answers: Path) -> None:
    """Have stranger.py open the folder, in a process that cannot import bertlab. Raises RunError where that
    fails.
    """
    print("opening the folder in a process without bertlab ...", flush=True)
    command = [sys.executable, "-P", stranger.__file__, str(folder), how, str(given), str(answers)]
    home = str(given.parent)
    quiet = {
        "HF_HOME": home,
        "HF_MODULES_CACHE": f"{home}/modules",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | quiet)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RunError(
            f"the exported folder cannot be opened without bertlab ({said[:200]}); nothing was written"
        )


def validation_batch(trained: FinishedRun, rows: Any) -> list[Batch]:
    """The rows as the run scores them; none where so few give no example (e.g. sentence pairs need two
    documents).
    """
    if rows is None:
        return []
    try:
        examples = join_examples(trained.objective.prepare(rows, trained.tokenizer))
    except UserError:
        return []
    return [trained.objective.collate(examples, np.arange(min(ROWS, len(examples))), None)]


def asked(batch: Batch, task: str, takes_segments: bool) -> Tensors:
    """A batch as transformers is asked."""
    mask = (
        torch.ones_like(batch.input_ids, dtype=torch.bool)
        if batch.attention_mask is None
        else batch.attention_mask
    )
    # Blocks of several documents may attend within each alone; transformers is asked for one text a row.
    batch.attention_mask = mask = mask.diagonal(dim1=1, dim2=2) if mask.ndim == 3 else mask
    given = {"input_ids": batch.input_ids, "attention_mask": mask.long()}
    if takes_segments:
        given["token_type_ids"] = batch.segment_ids
    if task == "MultipleChoice":  # it is asked for all choices of a question in one row
        given = {name: value.view(batch.num_examples, -1, value.shape[1]) for name, value in given.items()}
    return given


def output_names(form: Form) -> tuple[str, ...]:
    """What transformers calls the outputs."""
    return ("last_hidden_state",) if form.head is None else LOGITS.get(form.computes, ("logits",))


def both(
    model: Model, theirs: Tensors, batch: Batch, form: Form
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Our outputs and theirs, where they mean something."""
    mask = batch.attention_mask
    assert mask is not None
    answers = [theirs[name] for name in output_names(form)]
    if form.head is None:
        return [model.encoder(batch.input_ids, batch.segment_ids, mask)[mask]], [answers[0][mask]]
    model = leaving(model)
    ours = list(model.head.exported_outputs(model(batch), batch))
    if form.computes in OVER_VOCABULARY:
        answers[0] = answers[0].flatten(0, 1)[batch.targets["masked"]]
    if form.computes in AT_EVERY_TOKEN:
        ours, answers = [one[mask] for one in ours], [one[mask] for one in answers]
    return ours, answers


def share_of_largest(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    shares = [
        (one - other).abs().max() / one.abs().max().clamp(min=1)
        for one, other in zip(ours, theirs, strict=True)
    ]
    return float(torch.stack(shares).max())


def random_batch(tokenizer: Tokenizer, longest: int) -> Batch:
    """Four sequences of random tokens, of different lengths, two segments; every real position is
    asked for.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([longest, max(4, longest // 2), 5, 4]).clamp(max=longest)
    ids = torch.randint(tokenizer.vocab_size, (4, int(lengths.max())), generator=generator)
    inside = torch.arange(ids.shape[1]) < lengths[:, None]
    # Some architectures count positions by what is not padding, so padding stands only where nothing is.
    ids = ids.masked_fill(inside & (ids == tokenizer.special.pad_id), tokenizer.special.unk_id)
    ids = ids.masked_fill(~inside, tokenizer.special.pad_id)
    ids[:, 0] = tokenizer.special.cls_id
    segments = ((torch.arange(ids.shape[1]) >= lengths[:, None] // 2) & inside).long()
    zeros = torch.zeros(4, dtype=torch.long)
    masked = inside.flatten().nonzero()[:, 0]
    targets = {"masked": masked, "label": zeros, "next": zeros}
    return Batch(ids, segments, inside, targets, int(inside.sum()), 4)
