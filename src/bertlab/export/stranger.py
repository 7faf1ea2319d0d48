"""A script of its own: open an exported folder where there is no bertlab, and answer.

usage: python -P stranger.py FOLDER TASK GIVEN.safetensors ANSWERS.safetensors
       python -P stranger.py FOLDER sentence_transformers GIVEN.json ANSWERS.safetensors
"""

import json
import sys
from pathlib import Path
from typing import Any


def answer(folder: str, task: str, given: str, answers: str) -> None:
    """Read batches, `NUMBER.input` each, and write what the model makes of them in double precision,
    `NUMBER.output`.
    """
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    auto: Any = getattr(transformers, f"AutoModelFor{task}" if task else "AutoModel")
    model = auto.from_pretrained(folder, trust_remote_code=True, local_files_only=True).eval().double()
    batches: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in load_file(given).items():
        number, _, key = name.partition(".")
        batches.setdefault(number, {})[key] = value
    with torch.no_grad():
        outputs = {number: model(**batch) for number, batch in batches.items()}
    save_file(
        {
            f"{number}.{key}": value.contiguous()
            for number, output in outputs.items()
            for key, value in output.items()
        },
        answers,
    )


def encode(folder: str, given: str, answers: str) -> None:
    """Read texts and write what the package sentence-transformers makes of them, `vectors (N, D)`."""
    from safetensors.torch import save_file
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu", trust_remote_code=True, local_files_only=True)
    vectors = model.encode(
        json.loads(Path(given).read_text(encoding="utf-8")), convert_to_tensor=True, show_progress_bar=False
    )
    save_file({"vectors": vectors.float().contiguous()}, answers)


if __name__ == "__main__":
    sys.modules["bertlab"] = None  # type: ignore[assignment]  # importing it fails, as it would for a stranger
    place, how, *files = sys.argv[1:]
    if how == "sentence_transformers":
        encode(place, *files)
    else:
        answer(place, how, *files)
