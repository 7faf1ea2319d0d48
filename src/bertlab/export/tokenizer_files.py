"""A run's tokenizer as tokenizer.json and tokenizer_config.json, which AutoTokenizer opens.

All that decides ids stands in tokenizer.json (lower-casing, splitting, vocabulary). It adds special tokens as
our objectives do, whatever the tokenizer added where it came from.
"""

import json
from pathlib import Path
from typing import Any

from bertlab.config.schema import ObjectiveConfig
from bertlab.data.tokenizer import ROLES, Tokenizer
from bertlab.objectives._texts import Texts
from bertlab.runs.files import write_text

# what the run leaves of a long text -> the side that transformers cuts
SIDES = {"head": "right", "tail": "left"}


def truncation_of(objective: ObjectiveConfig) -> str:
    """What the run reads of a text that is too long."""
    return objective.truncation if isinstance(objective, Texts) else "head"


def write_tokenizer(
    folder: Path, tokenizer: Tokenizer, longest: int, segments: bool, truncation: str = "head"
) -> None:
    """Both files; texts are cut to `longest` tokens, special ones included. `segments`: the model tells first
    and second text apart.

    Transformers cuts on one side. A run that reads otherwise (head_tail, windows) is exported to cut as
    `head` does; its card says so.
    """
    content = json.loads(tokenizer.to_json())
    special = tokenizer.special
    ids = (special.pad_id, special.unk_id, special.cls_id, special.sep_id, special.mask_id)
    names = {role: str(tokenizer.backend.id_to_token(index)) for role, index in zip(ROLES, ids, strict=True)}
    content["post_processor"] = frame(
        names["cls"], special.cls_id, names["sep"], special.sep_id, segments, special.between
    )
    content["truncation"] = content["padding"] = None
    write_text(folder / "tokenizer.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    inputs = (
        ["input_ids", "token_type_ids", "attention_mask"] if segments else ["input_ids", "attention_mask"]
    )
    described: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest,
        "model_input_names": inputs,
        "clean_up_tokenization_spaces": False, "padding_side": "right",
        "truncation_side": SIDES.get(truncation, "right"),
        **{f"{role}_token": name for role, name in names.items()},
    }  # fmt: skip
    write_text(folder / "tokenizer_config.json", json.dumps(described, ensure_ascii=False, indent=2) + "\n")


def frame(cls: str, cls_id: int, sep: str, sep_id: int, segments: bool, between: int = 1) -> dict[str, Any]:
    """`[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, B and what follows in segment 1, as `tokenizers` writes a
    template.

    `between`: how many separators stand between A and B.
    """
    second = int(segments)

    def mark(token: str, segment: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": segment}}

    first = [mark(cls, 0), {"Sequence": {"id": "A", "type_id": 0}}, mark(sep, 0)]
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [
            *first,
            *([mark(sep, 0)] * (between - 1)),
            {"Sequence": {"id": "B", "type_id": second}},
            mark(sep, second),
        ],
        "special_tokens": {
            token: {"id": token, "ids": [index], "tokens": [token]}
            for token, index in ((cls, cls_id), (sep, sep_id))
        },
    }
