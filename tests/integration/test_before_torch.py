"""What needs no torch does not wait for it: refusals, help and completion are answered from outlines of the
components; a finished run is skipped with little more than torch.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bertlab.runs.outlines import know_outlines
from children import PATIENCE

pytestmark = pytest.mark.slow

HEAVY = {
    "torch", "transformers", "datasets", "wandb", "optuna", "pandas", "matplotlib", "scipy", "pyarrow",
}  # fmt: skip
PLUGIN = '''"""A text file of nothing."""

from dataclasses import dataclass

import torch

from bertlab.config.schema import TrackerConfig, string


@dataclass
class Nothing(TrackerConfig):
    """Tracks nothing."""

    file: str = string("lines.txt", "a file")
    {more}
'''


@pytest.fixture(scope="module", autouse=True)
def outlines_are_known() -> None:
    """As after a first command."""
    know_outlines()


def loaded_by(words: Sequence[str], **environment: str) -> tuple[int, set[str], str, str]:
    """Exit status, what of HEAVY is imported, standard output and error of a command line."""
    code = (
        "import sys; from bertlab.cli import run_command; status = run_command(sys.argv[1:]);"
        f"print('HEAVY', *sorted({HEAVY!r} & set(sys.modules))); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=PATIENCE,
        env={**os.environ, **environment},
    )  # fmt: skip
    out, _, heavy = done.stdout.rpartition("HEAVY")
    return done.returncode, set(heavy.split()), out, done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optimizer.lrr=1"], "unknown key 'optimizer.lrr', did you mean 'optimizer.lr'?"),
        (["seeed=1"], "unknown key 'seeed', did you mean 'seed'?"),
        (["modell=bert_mini"], "did you mean 'model'"),
        (["model=bert_minni"], "did you mean 'bert_mini'?"),
        (["optimizer.lr=-1"], "optimizer.lr=-1.0: must be greater than 0"),
        (["model.pooling=clss"], "did you mean 'cls'?"),
        (["objective.max_length=long"], "objective.max_length"),
        (["optimizer.betas=0.1"], "optimizer.betas"),
        (["+optimizer.new=1"], "optimizer.new: unknown key"),
        (["init=stage", "init.budget.tokens=5", "init.optimizer.lrr=1"], "'init.optimizer.lr'"),
        (["-m", "seed=1,2", "optimizer.lrr=1"], "did you mean 'optimizer.lr'?"),
        (["-m", "optimizer.lr=1,2,-3"], "optimizer.lr=-3.0: must be greater than 0"),
        (["-m", "search=lr_batch", "optimizer.lrr=1"], "did you mean 'optimizer.lr'?"),
        (["plan", "optimizer.lrr=1"], "did you mean 'optimizer.lr'?"),
        (["evaluate", "rum=x"], "did you mean 'run'?"),
        (["report", "runz=x"], "did you mean 'runs'?"),
        (["predict", "run=x", "format=jsonn"], "format"),
        (["help", "optimizer.lrr"], "did you mean 'optimizer.lr'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_torch(words: list[str], told: str) -> None:
    status, heavy, _, error = loaded_by(words)
    assert (status, heavy) == (2, set()), error
    assert told in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["help", "optimizer.lr"], "(optimizer=lion)"),
        (["help", "objective=mlm"], "selects"),
        (["objective=tagging", "--help"], "tags"),
        (["help", "report"], "contamination"),
        (["help", "dropout"], "keys that speak of"),
        (["--cfg", "job"], "hidden_size"),
    ],
)
def test_help_is_given_without_torch(words: list[str], told: str) -> None:
    status, heavy, out, error = loaded_by(words)
    assert (status, heavy) == (0, set()), error
    assert told in out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bertlab optimizer.weight", "optimizer.weight_decay="),
        ("bertlab model=bert_mi", "model=bert_mini"),
        ("bertlab evaluate spl", "split="),
    ],
)
def test_keys_are_completed_without_torch(line: str, expected: str) -> None:
    status, heavy, out, error = loaded_by(["-sc", "query=bash"], COMP_LINE=line, COMP_POINT=str(len(line)))
    assert (status, heavy) == (0, set()), error
    assert expected in out.split()


def test_a_finished_run_is_skipped_with_torch_alone() -> None:
    run = ["debug=smoke", "compute=cpu", "compute.threads=1", "compute.precision=float32"]
    assert loaded_by(run)[0] == 0
    status, heavy, out, error = loaded_by(run)
    assert (status, heavy) == (0, {"torch"}), error
    assert "finished already" in out


def test_a_plugins_new_key_is_known_at_once(tmp_path: Path) -> None:
    """Its outline is drawn anew when its file changes, and typos in it are told without torch."""
    file = tmp_path / "mine" / "trackers" / "nothing.py"
    file.parent.mkdir(parents=True)
    plugins = {"BERTLAB_PLUGINS": str(tmp_path / "mine")}
    for more, status in (("", 2), ("other: str = string('x', 'another')", 0)):
        file.write_text(PLUGIN.format(more=more), encoding="utf-8")
        words = ["tracker=nothing", "tracker.other=mine", "--cfg", "job"]
        assert loaded_by(words, **plugins)[0] == status  # and draws
        done = loaded_by(words, **plugins)
        assert (done[0], done[1]) == (status, set()), done[3]
    done = loaded_by(["tracker=nothing", "tracker.othr=mine"], **plugins)
    assert (done[0], done[1]) == (2, set()) and "did you mean 'tracker.other'?" in done[3]


def test_a_new_key_of_what_a_plugin_builds_on_is_known_at_once(tmp_path: Path) -> None:
    """Its base may lie anywhere; then its options are loaded rather than taken from an old outline."""
    file, base = tmp_path / "mine" / "trackers" / "nothing.py", tmp_path / "lib" / "mybase.py"
    file.parent.mkdir(parents=True)
    base.parent.mkdir()
    file.write_text(
        "from dataclasses import dataclass\nfrom mybase import Base\n\n\n"
        "@dataclass\nclass Nothing(Base):\n    pass\n"
    )
    environment = {
        "BERTLAB_PLUGINS": str(tmp_path / "mine"),
        "PYTHONPATH": f"{tmp_path / 'lib'}:{os.environ.get('PYTHONPATH', '')}",
    }
    words = ["tracker=nothing", "tracker.other=mine", "--cfg", "job"]
    base.write_text(PLUGIN.format(more="").replace("Nothing", "Base"))
    assert loaded_by(words, **environment)[0] == 2
    base.write_text(PLUGIN.format(more="other: str = string('x', 'another')").replace("Nothing", "Base"))
    assert loaded_by(words, **environment)[0] == 0


def test_damaged_outlines_are_drawn_anew(tmp_path: Path) -> None:
    cache = {"BERTLAB_CACHE": str(tmp_path)}
    assert loaded_by(["seeed=1"], **cache)[0] == 2
    (book,) = tmp_path.glob("outlines/*/outlines.json")
    tree = json.loads(book.read_text())
    tree["schema"]["train"] = {}
    book.write_text(json.dumps(tree))
    status, _, out, error = loaded_by(["seeed=1"], **cache)
    assert status == 2 and "did you mean 'seed'?" in error and "damaged" in out
    status, heavy, _, error = loaded_by(["seeed=1"], **cache)
    assert (status, heavy) == (2, set()) and "did you mean 'seed'?" in error


def test_without_a_cache_everything_is_loaded_as_ever() -> None:
    status, heavy, _, error = loaded_by(["seeed=1"], BERTLAB_CACHE="/dev/null/nowhere")
    assert (
        (status, len(error.splitlines())) == (2, 1) and "did you mean 'seed'?" in error and "torch" in heavy
    )
