"""Golden losses and weights: training as it was when it was recorded. A change of bits changes every result;
it must be meant.

Who means one in the core raises RESULTS_VERSION (bertlab.runs.identity), so that no run made before is taken
for one of the new kind; who means one in a component has edited its file, by which runs are named too. Then
record anew, saying why in the commit: `python tests/integration/test_golden.py`. Where neither the number nor
the components' code is another, that refuses to change what is recorded; it only adds cases, and the bits of
a machine that was not known.

On any machine losses are those recorded up to rounding. On a known one (version of torch, processor, its
instructions) losses and the last step's weights are the same to the bit.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

import bertlab
from bertlab.runs.files import digest as content_digest
from bertlab.runs.files import load_weights
from bertlab.runs.folder import RunFolder
from bertlab.runs.identity import RESULTS_VERSION
from bertlab.runs.machine import processor_name

GOLDEN = Path(__file__).with_name("golden.json")
RECORD = "python tests/integration/test_golden.py"
COMMON = ["dataset.train_size=400", "dataset.validation_size=60", "dataset.test_size=20",
    "model.hidden_size=32",
          "model.num_attention_heads=2",
          "budget.steps=40", "budget.batch_size=16", "evaluation.every_steps=20", "compute=cpu",
          "compute.threads=1",
          "compute.precision=float32", "objective.max_length=40", "optimizer.lr=3e-3"]  # fmt: skip
DOCUMENTS = ["dataset.task=documents"]
CASES = {
    "classification": [],
    "classification_post_norm_learned": ["model=bert_tiny", "model.hidden_size=32"],
    "mlm": [*DOCUMENTS, "objective=mlm"],
    "mlm_whole_words_rising_rate": [*DOCUMENTS, "objective=mlm", "tokenizer=wordpiece",
    "tokenizer.vocab_size=300", "objective.unit=word",
                                    "objective.rate=0.1", "objective.final_rate=0.4",
                                    "objective.attend_across=false"],
    "nsp": [*DOCUMENTS, "objective=nsp"],
    "sop": [*DOCUMENTS, "objective=sop"],
    "mlm_nsp": [*DOCUMENTS, "objective=mlm_nsp"],
    "rtd": [*DOCUMENTS, "objective=rtd"],
}  # fmt: skip


def trained(case: str, *more: str) -> dict[str, Any]:
    """Its losses, named by step and kind, what its last weights hash to, and the code of its components."""
    run = bertlab.run([*COMMON, *CASES[case], *more])
    losses = {
        f"{int(row['step'])} {name}": float(row[name])
        for _, row in run.history.iterrows()
        for name in ("train/loss", "validation/loss")
        if row[name] == row[name]
    }
    digest = hashlib.sha256()
    for name, weight in sorted(load_weights(run.folder / "last.safetensors").items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)} ".encode() + weight.numpy().tobytes())
    return {
        "losses": losses,
        "weights": digest.hexdigest(),
        "code": content_digest(RunFolder(run.folder).identity()["code"]),
    }


def this_machine() -> str:
    """What bits depend on beside the code."""
    return f"torch {torch.__version__}, {processor_name()}, {torch.backends.cpu.get_cpu_capability()}"


def recorded() -> dict[str, Any]:
    """`golden.json`: results_version, code and losses of each case, and bits by machine and case."""
    content: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return content


def off(found: dict[str, float], expected: dict[str, float]) -> list[str]:
    """Losses that are others than rounding explains."""
    names = sorted(found.keys() ^ expected.keys())
    return names + [
        name
        for name, value in expected.items()
        if name in found and found[name] != pytest.approx(value, rel=1e-3)
    ]


def bits(found: dict[str, Any]) -> dict[str, Any]:
    """What is the same to the bit on one machine."""
    return {"losses": found["losses"], "weights": found["weights"]}


def merged(golden: dict[str, Any], found: dict[str, Any], machine: str) -> dict[str, Any]:
    """What to record. Raises ValueError where what is recorded would change under the same number
    and code.
    """
    if golden.get("results_version") != RESULTS_VERSION:
        golden = {}
    cases, machines = dict(golden.get("cases", {})), golden.get("machines", {})
    changed = [
        case
        for case, one in found.items()
        if case in cases
        and (
            off(one["losses"], cases[case]["losses"])
            or machines.get(machine, {}).get(case, bits(one)) != bits(one)
        )
    ]
    if same := [case for case in changed if cases[case]["code"] == found[case]["code"]]:
        raise ValueError(
            f"other results than those recorded, of {', '.join(same)}: mend the code, or raise"
            f" RESULTS_VERSION (now {RESULTS_VERSION}) in bertlab/runs/identity.py and record again"
        )
    for name, known in machines.items():
        machines = {
            **machines,
            name: {case: one for case, one in known.items() if case in found and case not in changed},
        }
    losses = {
        case: one["losses"] if case in changed or case not in cases else cases[case]["losses"]
        for case, one in found.items()
    }
    return {
        "results_version": RESULTS_VERSION,
        "cases": {case: {"code": one["code"], "losses": losses[case]} for case, one in found.items()},
        "machines": {**machines, machine: {case: bits(one) for case, one in found.items()}},
    }


def test_it_is_recorded_for_this_version_of_results() -> None:
    golden = recorded()
    assert golden["results_version"] == RESULTS_VERSION, f"RESULTS_VERSION was raised: record anew, {RECORD}"
    assert golden["cases"].keys() == CASES.keys(), f"record the new case: {RECORD}"


@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_are_those_recorded(case: str) -> None:
    golden, found = recorded(), trained(case)
    assert len(found["losses"]) == 4
    assert not off(found["losses"], golden["cases"][case]["losses"]), found["losses"]
    known = golden["machines"].get(this_machine(), {}).get(case)
    assert known is None or bits(found) == known, (
        "other bits than those recorded: mend the code, or mean it (see above) and record anew"
    )


def test_what_is_recorded_changes_only_under_a_new_number_or_code() -> None:
    was = {"losses": {"1 train/loss": 0.5}, "weights": "a", "code": "c"}
    golden = merged({}, {"x": was}, "here")
    assert merged(golden, {"x": was}, "here") == golden
    rounded = {**was, "losses": {"1 train/loss": 0.50001}, "weights": "b"}
    assert merged(golden, {"x": rounded}, "elsewhere")["machines"] == {
        "here": {"x": bits(was)},
        "elsewhere": {"x": bits(rounded)},
    }
    new_case = merged(golden, {"x": was, "y": rounded}, "here")
    assert new_case["cases"].keys() == new_case["machines"]["here"].keys() == {"x", "y"}
    far = {**was, "losses": {"1 train/loss": 0.51}}
    for found, machine in (
        ({**was, "weights": "b"}, "here"),  # a bit of the weights
        (rounded, "here"),  # a last digit
        (far, "elsewhere"),  # more than rounding
        ({**was, "losses": {}}, "elsewhere"),
    ):
        with pytest.raises(ValueError, match=r"raise RESULTS_VERSION .* and record again"):
            merged(golden, {"x": found}, machine)
    edited = {**far, "code": "d"}
    assert merged(golden, {"x": edited}, "elsewhere") == {
        **merged({}, {"x": edited}, "elsewhere"),
        "machines": {"here": {}, "elsewhere": {"x": bits(edited)}},
    }
    assert merged(golden, {"x": {**was, "code": "d"}}, "here")["machines"] == golden["machines"], (
        "a component was moved: nothing else"
    )
    assert merged({**golden, "results_version": RESULTS_VERSION - 1}, {"x": rounded}, "here") == merged(
        {}, {"x": rounded}, "here"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        places = (f"paths.output={folder}/runs", f"paths.cache={folder}/cache")
        results = {name: trained(name, *places) for name in CASES}
    try:
        content = merged(recorded() if GOLDEN.is_file() else {}, results, this_machine())
    except ValueError as error:
        sys.exit(str(error))
    GOLDEN.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{GOLDEN}: {len(results)} cases on {this_machine()}")
