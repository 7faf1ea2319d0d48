"""A run's identity: what changes it, and what must not."""

from pathlib import Path
from typing import Any

import pytest

from bertlab.config.composition import compose_schema
from bertlab.runs.identity import _component_files, code_version, identify
from bertlab.runs.machine import choose_device


def run_id(*overrides: str) -> str:
    config: Any = compose_schema("train", ["compute=cpu", *overrides])
    return str(
        identify(
            config,
            choose_device(config.compute.device, config.compute.precision, config.compute.threads),
            None,
        )["id"]
    )


@pytest.mark.parametrize(
    "override",
    ["seed=1", "optimizer.lr=1e-4", "model=bert_mini", "schedule=cosine", "dataset.fraction=0.5",
    "objective.head_dropout=0.2",
     "budget.steps=10", "tokenizer.vocab_size=500", "evaluation.keep=last", "evaluation.every_steps=7",
     "compute.precision=bfloat16",
     "compute.micro_batch_size=8", "compute.compile=true", "compute.together=8",
     "compute.sharding=full"],
)  # fmt: skip
def test_what_can_change_results_changes_the_id(override: str) -> None:
    assert run_id(override) != run_id()


@pytest.mark.parametrize(
    "override",
    ["compute.threads=1", "compute.checkpoint_seconds=3", "tracker=wandb tracker.mode=offline",
    "paths.output=elsewhere", "tags=[a]",
     "evaluation.batch_size=8", "model.hidden_size=128",
     "compute=auto compute.device=cpu compute.precision=float32"],
)  # fmt: skip
def test_what_changes_only_speed_place_or_spelling_keeps_the_id(override: str) -> None:
    assert run_id(*override.split()) == run_id()


def test_code_is_compared_without_comments_docstrings_and_layout(tmp_path: Path) -> None:
    sources = {
        "a": 'def f(x):\n    """Doc."""\n    return x + 1  # one\n',
        "same": "def f( x ):\n    return (x + 1)\n",
        "other": "def f(x):\n    return x + 2\n",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    versions = {name: code_version(tmp_path / f"{name}.py") for name in sources}
    assert versions["a"] == versions["same"] != versions["other"]


def test_code_has_one_version_in_every_version_of_python(tmp_path: Path) -> None:
    """Seen equal in 3.10, 3.11, 3.12.1 (which notes an empty piece after `{width}`) and 3.13 (which leaves
    empty fields out).
    """
    file = tmp_path / "code.py"
    file.write_text("""@cache
def f(x, *rest, width=None, **named):
    with open("it's") as a, b:
        return f"{x!r:>{width}} {x['key']}" f'"{1.5e3}"' + "", [None, "", ...], {**named}, lambda: -1
""")
    assert code_version(file) == "46f67cd07b28e83b"
    newer = tmp_path / "newer.py"
    # the last is a letter of Unicode 15.1, which Python knows from 3.13 on
    newer.write_text("LETTERS = 'é – \u2ffc'\n", encoding="utf-8")
    assert code_version(newer) == "89ac78cf5c10f27b"


def test_a_file_is_known_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    rows = "text,label\n" + "a good film,1\na bad film,0\n" * 9
    places = [tmp_path / "t.csv", tmp_path / "elsewhere" / "renamed.csv"]
    for place in places:
        place.parent.mkdir(exist_ok=True)
        place.write_text(rows)
    first, second = (run_id("dataset=files", f"dataset.train_file={place}") for place in places)
    assert first == second
    places[1].write_text(rows.replace("good", "fine"))
    assert run_id("dataset=files", f"dataset.train_file={places[1]}") != first


def test_code_that_a_component_builds_on_is_part_of_the_identity(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from bertlab.objectives.classification import Classification\n")
    assert "objectives/classification" in _component_files(tmp_path / "mine.py")
