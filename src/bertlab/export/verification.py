"""Open an exported folder as anybody would, and compare it with the run: tokens, then outputs.

Outputs are compared in double precision, in which equal weights give equal outputs and rounding hides nothing.
"""

import copy
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertlab.contracts import Batch, join_examples
from bertlab.data.dataset import load_dataset, roles_for
from bertlab.data.tokenizer import Tokenizer
from bertlab.errors import RunError, UserError
from bertlab.export.tokenizer_files import SIDES, truncation_of
from bertlab.models.hf import transformers_module
from bertlab.objectives._texts import join_texts
from bertlab.training.assembly import Model
from bertlab.training.finished import FinishedRun

TOLERANCE = 1e-5  # of an output's largest element, where that is above 1
ROWS = 8  # of the validation split
LOGITS = {"PreTraining": ("prediction_logits", "seq_relationship_logits"), "QuestionAnswering": ("start_logits", "end_logits")}
SAMPLE = (
    "A film that's not bad at all.", "naïve café — 3.14 % of THE time", "x", "[MASK] and [SEP] in a text", "東京 🎬 don't\tstop", " two  ",
)  # fmt: skip


def validation_rows(trained: FinishedRun) -> Any:
    """The first rows of the validation split that the run was scored on; None where its data cannot be read here."""
    config = trained.config
    try:
        if config.dataset.fingerprint(config.paths) != trained.identity["inputs"]["dataset"]:
            return None
        rows = load_dataset(config.dataset, config.paths, roles_for(config.dataset, config.objective)).splits["validation"]
    except (UserError, OSError, KeyError):
        return None
    return rows.select(range(min(ROWS, len(rows))))


# --- tokens -----------------------------------------------------------------------------------------------------------------------
def compare_tokens(trained: FinishedRun, folder: Path, longest: int, rows: Any) -> None:
    """Ids and segments of validation texts and of awkward ones, alone, in pairs and cut. Raises RunError where they are not ours.

    Where transformers cannot cut as the run does, texts that are not cut are compared.
    """
    truncation = truncation_of(trained.config.objective)
    theirs = transformers_module("export").AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    columns = {name: list(rows[name]) for name in ("text", "text_pair", "tokens") if name in rows.column_names} if rows is not None else {}
    texts = [*SAMPLE, " ".join([*SAMPLE] * (longest // 8 + 1)), *columns.get("text", ())]
    seconds = [*texts[1:], texts[0]]
    seconds[len(texts) - len(columns.get("text_pair", ())) :] = columns.get("text_pair", ())
    for text, second in [*((text, None) for text in texts), *zip(texts, seconds, strict=True)]:
        first, *others = trained.tokenizer.encode([text] if second is None else [text, second])
        frame = 2 if second is None else 2 + trained.tokenizer.special.between
        if truncation not in SIDES and len(first) + sum(map(len, others)) + frame > longest:
            continue
        side = truncation if truncation in SIDES else "head"
        expected, start = join_texts(first, others[0] if others else None, longest, trained.tokenizer.special, side)
        found = theirs([text], None if second is None else [second], truncation=True)  # in lists: an empty second text alone is none
        segments = [int(0 < start <= index) for index in range(len(expected))]
        if found["input_ids"] != [expected] or found.get("token_type_ids", [segments]) != [segments]:
            said = f"{text[:80]!r}" if second is None else f"the pair {text[:60]!r}, {second[:60]!r}"
            raise RunError(f"the exported tokenizer reads {said} otherwise than the run's; nothing was written")
    for words in columns.get("tokens", ()):
        ours = [token for ids in trained.tokenizer.encode(words) for token in ids or [trained.tokenizer.special.unk_id]]
        if theirs(words, is_split_into_words=True, add_special_tokens=False)["input_ids"] != ours:
            raise RunError(f"the exported tokenizer reads the words {words[:12]} otherwise than the run's; nothing was written")


# --- outputs ----------------------------------------------------------------------------------------------------------------------
def largest_difference(trained: FinishedRun, folder: Path, task: str, longest: int, rows: Any) -> float:
    """Compare logits (of the encoder alone: hidden states) on random tokens and on validation rows. Raises RunError where they differ."""
    module = transformers_module("export")
    theirs = (
        getattr(module, f"AutoModelFor{task}" if task else "AutoModel").from_pretrained(folder, trust_remote_code=False).eval().double()
    )
    names = tuple(trained.objective.label_names)
    head = trained.config.objective.hf_head()
    if task and head is not None and head.names_classes and tuple(theirs.config.id2label.values()) != names:
        raise RunError("the exported model names its classes otherwise than the run; nothing was written")
    model = copy.deepcopy(trained.model).cpu().eval().double()
    batches = [random_batch(trained.tokenizer, longest), *_validation_batch(trained, rows)]
    found = max(_difference(model, theirs, batch, task) for batch in batches)
    if not found <= TOLERANCE:
        raise RunError(f"the exported model answers otherwise than the run (by {found:.2g}); nothing was written")
    return found


def _validation_batch(trained: FinishedRun, rows: Any) -> list[Batch]:
    """The rows as the run scores them; none where so few give no example (e.g. sentence pairs need two documents)."""
    if rows is None:
        return []
    try:
        examples = join_examples(trained.objective.prepare(rows, trained.tokenizer))
    except UserError:
        return []
    return [trained.objective.collate(examples, np.arange(min(ROWS, len(examples))), None)]


@torch.no_grad()
def _difference(model: Model, theirs: Any, batch: Batch, task: str) -> float:
    """The largest difference, as a share of the largest element where that is above 1; NaN where any output is."""
    mask = torch.ones_like(batch.input_ids, dtype=torch.bool) if batch.attention_mask is None else batch.attention_mask
    # Blocks of several documents may attend within each alone; transformers is asked for one text a row.
    batch.attention_mask = mask = mask.diagonal(dim1=1, dim2=2) if mask.ndim == 3 else mask
    segmented = "token_type_ids" in inspect.signature(theirs.forward).parameters and theirs.config.to_dict().get("type_vocab_size", 0) > 1
    segments = {"token_type_ids": batch.segment_ids} if segmented else {}
    given = {"input_ids": batch.input_ids, "attention_mask": mask.long(), **segments}
    if task == "MultipleChoice":  # it is asked for all choices of a question in one row
        given = {name: value.view(batch.num_examples, -1, value.shape[1]) for name, value in given.items()}
    found = theirs(**given)
    if not task:
        hidden = model.encoder(batch.input_ids, batch.segment_ids, mask)
        ours, answers = [hidden[mask]], [found.last_hidden_state[mask]]
    else:
        ours = list(model.head.exported_outputs(model(batch), batch))
        answers = [found[name] for name in LOGITS.get(task, ("logits",))]
        if task in ("MaskedLM", "PreTraining"):
            answers[0] = answers[0].flatten(0, 1)[batch.targets["masked"]]
        if task in ("TokenClassification", "QuestionAnswering"):  # what stands at padding means nothing
            ours, answers = [one[mask] for one in ours], [one[mask] for one in answers]
    return _largest(ours, answers)


def _largest(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    shares = [(one - other).abs().max() / one.abs().max().clamp(min=1) for one, other in zip(ours, theirs, strict=True)]
    return float(torch.stack(shares).max())


def random_batch(tokenizer: Tokenizer, longest: int) -> Batch:
    """Four sequences of random tokens, of different lengths, two segments; every real position is asked for."""
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
