"""Golden losses: training as it was when it was recorded. A change here changes every result; it must be meant.

To record anew after such a change: `python tests/integration/test_golden.py`, and say why in the commit.
"""

import json
import tempfile
from pathlib import Path

import pytest

import bertlab

GOLDEN = Path(__file__).with_name("golden.json")
COMMON = ["dataset.train_size=400", "dataset.validation_size=60", "dataset.test_size=20", "model.hidden_size=32",
          "model.num_attention_heads=2",
          "budget.steps=40", "budget.batch_size=16", "evaluation.every_steps=20", "compute=cpu", "compute.threads=1",
          "compute.precision=float32", "objective.max_length=40", "optimizer.lr=3e-3"]  # fmt: skip
DOCUMENTS = ["dataset.task=documents"]
CASES = {
    "classification": [],
    "classification_post_norm_learned": ["model=bert_tiny", "model.hidden_size=32"],
    "mlm": [*DOCUMENTS, "objective=mlm"],
    "mlm_whole_words_rising_rate": [*DOCUMENTS, "objective=mlm", "tokenizer=wordpiece", "tokenizer.vocab_size=300", "objective.unit=word",
                                    "objective.rate=0.1", "objective.final_rate=0.4", "objective.attend_across=false"],
    "nsp": [*DOCUMENTS, "objective=nsp"],
    "sop": [*DOCUMENTS, "objective=sop"],
    "mlm_nsp": [*DOCUMENTS, "objective=mlm_nsp"],
    "rtd": [*DOCUMENTS, "objective=rtd"],
}  # fmt: skip


def losses(case: str) -> dict[str, float]:
    """Step and name -> loss."""
    history = bertlab.run([*COMMON, *CASES[case]]).history
    return {
        f"{int(row['step'])} {name}": round(float(row[name]), 6)
        for _, row in history.iterrows()
        for name in ("train/loss", "validation/loss")
        if row[name] == row[name]
    }


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_recorded(case: str) -> None:
    expected = json.loads(GOLDEN.read_text())[case]
    found = losses(case)
    assert found.keys() == expected.keys() and len(found) == 4
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-3), name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        recorded = {}
        for name in CASES:
            COMMON.append(f"paths.output={folder}")
            recorded[name] = losses(name)
    GOLDEN.write_text(json.dumps(recorded, indent=1) + "\n")
