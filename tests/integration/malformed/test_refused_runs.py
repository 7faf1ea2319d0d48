"""Damaged runs, and finished ones misused: refused in one line that names the file. `{run}` stands for a
finished run.
"""

import io
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from refusals import GOOD, SMALL, Case, Cli, assert_refused, case, each, lay_out, tree


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bertlab.api import run

    output = tmp_path_factory.mktemp("trained") / "multirun"
    return run([*shlex.split(SMALL), f"paths.output={output}"]).folder


@pytest.fixture
def run(trained: Path) -> Iterator[Path]:
    """A copy of a finished run in this test's own output root."""
    yield Path(shutil.copytree(trained, Path("multirun") / trained.name))


def cut(name: str) -> Callable[[Path], object]:
    """The first half of a file."""
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[: (run / name).stat().st_size // 2])


def put(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(content.encode() if isinstance(content, str) else content)


def swap(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        content = (run / name).read_text()
        assert old in content, f"{name} no longer holds {old!r}; mend the test"
        (run / name).write_text(content.replace(old, new, 1))

    return change


def drop(name: str) -> Callable[[Path], object]:
    return lambda run: (run / name).unlink()


DAMAGE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "weights_cut_off": (cut("model.safetensors"), ("model.safetensors", "damaged")),
    "weights_empty": (put("model.safetensors", b""), ("model.safetensors", "damaged")),
    "weights_missing": (drop("model.safetensors"), ("model.safetensors", "no weights")),
    "weights_of_another_model": (
        swap("config.yaml", "hidden_size: 16", "hidden_size: 32"),
        ("weights do not fit",),
    ),
    "summary_cut_off": (cut("summary.json"), ("summary.json", "damaged")),
    "summary_not_a_summary": (put("summary.json", "[]"), ("summary.json",)),
    "summary_not_utf8": (put("summary.json", b"\xff\xfe"), ("summary.json", "damaged")),
    "summary_missing": (drop("summary.json"), ("has not finished", "run its command again")),
    "summary_interrupted": (
        swap("summary.json", '"finished"', '"interrupted"'),
        ("has not finished", "run its command again"),
    ),
    "config_missing": (drop("config.yaml"), ("config.yaml",)),
    "config_empty": (put("config.yaml", ""), ("config.yaml",)),
    "config_broken": (put("config.yaml", "model: [\n"), ("config.yaml",)),
    "config_with_a_key_of_another_version": (
        swap("config.yaml", "hidden_size: 16", "hidden_width: 16"),
        ("config.yaml", "hidden_width", "version"),
    ),
    "config_without_a_group": (
        swap("config.yaml", "\nobjective:", "\ngoal:"),
        ("config.yaml", "objective", "version"),
    ),
    "config_without_a_component": (
        swap("config.yaml", "component: bert", "kind: bert"),
        ("config.yaml", "version", "component"),
    ),
    "config_of_an_unknown_component": (
        swap("config.yaml", "component: bert", "component: bertha"),
        ("config.yaml", "bertha"),
    ),
    "config_with_a_wrong_type": (
        swap("config.yaml", "hidden_size: 16", "hidden_size: wide"),
        ("config.yaml", "hidden_size"),
    ),
    "config_with_a_group_that_is_a_word": (
        put("config.yaml", "dataset: synthetic\nseed: 0\n"),
        ("config.yaml", "dataset"),
    ),
    "tokenizer_missing": (drop("tokenizer.json"), ("tokenizer.json",)),
    "tokenizer_cut_off": (cut("tokenizer.json"), ("tokenizer.json",)),
    "labels_missing": (drop("labels.json"), ("labels.json",)),
    "labels_cut_off": (put("labels.json", '["neg'), ("labels.json",)),
    "labels_not_a_list": (put("labels.json", "7"), ("labels.json",)),
    "labels_too_many": (put("labels.json", '["a", "b", "c"]'), ("do not fit",)),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_run_is_refused_by_the_file_that_is_damaged(
    damage: Callable[[Path], object], says: tuple[str, ...], run: Path, cli: Cli
) -> None:
    """Where the checksums are lost too: what the files themselves tell."""
    (run / "manifest.json").unlink()
    damage(run)
    before = tree(Path())
    assert_refused(
        cli("predict", f"run={run}", "text=a good film", "compute=cpu", "compute.threads=1"),
        (run.name, *says),
        before,
    )


def flip(name: str) -> Callable[[Path], object]:
    """One bit of the last byte but one: the file may still be read."""

    def change(run: Path) -> None:
        content = bytearray((run / name).read_bytes())
        content[-2] ^= 1
        (run / name).write_bytes(content)

    return change


CHECKED = (
    "model.safetensors",
    "last.safetensors",
    "config.yaml",
    "identity.json",
    "labels.json",
    "tokenizer.json",
    "predictions/test.jsonl",
)


@pytest.fixture(scope="module")
def exportable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bertlab.api import run

    return run(
        [*shlex.split(SMALL), "model=bert", f"paths.output={tmp_path_factory.mktemp('exportable')}"]
    ).folder


@pytest.mark.parametrize("name", CHECKED)
def test_a_file_that_changed_since_the_run_finished_is_refused_by_its_checksum(
    name: str, exportable: Path, cli: Cli
) -> None:
    jobs = (("predict", "text=a good film"), ("evaluate", "split=test"), ("export", "to=exported"))
    for (job, *words), damage in zip(jobs, (flip, cut, drop), strict=True):
        run = Path(shutil.copytree(exportable, Path("multirun") / exportable.name))
        damage(name)(run)
        says = (
            ("config.yaml",)
            if (job, name) == ("export", "config.yaml")
            else (f"{name}: missing or damaged since the run finished",)
        )
        assert_refused(cli(job, f"run={run}", *words), (run.name, *says), tree(Path()))
        shutil.rmtree(run)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model.safetensors": 3}', '{"elsewhere": "0"}'])
def test_checksums_that_are_damaged_themselves_are_refused(content: str, run: Path, cli: Cli) -> None:
    (run / "manifest.json").write_text(content)
    assert_refused(cli("predict", f"run={run}", "text=a good film"), (run.name, "damaged"), tree(Path()))


USES = [
    case("run_nowhere", "predict run=nowhere text=x", "run=nowhere", "multirun"),
    case(
        "run_is_another_folder",
        "predict run=folder text=x",
        "folder",
        "not a run folder",
        files={"folder/a": ""},
    ),
    case("run_is_a_file", "predict run=file.txt text=x", "run=file.txt", files={"file.txt": ""}),
    case("run_is_the_output_root", "predict run=multirun text=x", "multirun", "not a run folder"),
    case(
        "run_of_two_names",
        "predict run=synthetic text=x",
        "run=synthetic",
        "2 runs",
        files={"multirun/synthetic-x/config.yaml": ""},
    ),
    case("text_and_file", "predict run={run} text=x file=y.txt", "text", "file", "not both"),
    case("second_text_of_a_single_text_run", "predict run={run} text=x text_pair=y", "text_pair"),
    case("second_text_alone", "predict run={run} text_pair=y", "text_pair", "give text"),
    case("empty_text", "predict run={run} 'text=\"\"'", "text"),
    case("file_missing", "predict run={run} file=nope.txt", "file=nope.txt", "no such file"),
    case("file_empty", "predict run={run} file=t.txt", "t.txt", "no text", files={"t.txt": "\n \n"}),
    case(
        "file_in_latin1",
        "predict run={run} file=t.txt",
        "t.txt",
        "line 2 is not utf-8",
        "set encoding, e.g. latin-1",
        files={"t.txt": "a\n\xf6\n".encode("latin-1")},
    ),
    case(
        "file_without_the_column",
        "predict run={run} file=t.csv",
        "t.csv",
        "'text'",
        "review",
        files={"t.csv": "review\na good film\n"},
    ),
    case(
        "file_of_unknown_kind",
        "predict run={run} file=t.pdf",
        "t.pdf",
        "'.pdf'",
        ".csv",
        files={"t.pdf": b"%PDF-1.7"},
    ),
    case("split_typo", "evaluate run={run} split=tset", "split=tset", "did you mean 'test'"),
    case(
        "split_and_file",
        "evaluate run={run} split=test file=t.csv",
        "split",
        "file",
        "not both",
        files={"t.csv": GOOD},
    ),
    case("scored_file_missing", "evaluate run={run} file=nope.csv", "file=nope.csv", "no such file"),
    case(
        "scored_file_without_labels",
        "evaluate run={run} file=t.csv",
        "t.csv",
        "'label'",
        files={"t.csv": "text\na good film\n"},
    ),
    case(
        "scored_file_with_unknown_labels",
        "evaluate run={run} file=t.csv",
        "t.csv",
        "'7'",
        "row 2",
        files={"t.csv": "text,label\ngood,1\nbad,7\n"},
    ),
    case("scored_file_empty", "evaluate run={run} file=t.csv", "t.csv", "empty", files={"t.csv": ""}),
    case(
        "run_of_another_size",
        f"init=checkpoint init.path={{run}} {SMALL} model.hidden_size=32",
        "init.path=",
        "model.hidden_size=16",
    ),
    case(
        "run_of_fewer_layers",
        f"init=checkpoint init.path={{run}} {SMALL} model.num_hidden_layers=2",
        "model.num_hidden_layers=1",
    ),
    case(
        "weights_of_another_size",
        f"init=checkpoint init.path={{run}}/model.safetensors {SMALL} model.hidden_size=32",
        "that run has model.hidden_size=16, this one 32",
    ),
    case(
        "weights_of_more_layers",
        f"init=checkpoint init.path={{run}}/model.safetensors {SMALL} model.num_hidden_layers=2",
        "that run has model.num_hidden_layers=1, this one 2",
    ),
]


@each(USES)
def test_a_finished_run_misused_is_refused(
    case: Case, run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(case, monkeypatch)
    # nothing but `predict` without text and file may read it
    monkeypatch.setattr(sys, "stdin", io.StringIO("a good film\n"))
    words = shlex.split(case.command.replace("{run}", str(run)))
    assert_refused(cli(*words), case.says, tree(Path()))


class FakeTerminal(io.StringIO):
    """A standard input at which a person sits."""

    def isatty(self) -> bool:
        return True


INPUT_STREAMS: dict[str, tuple[object, tuple[str, ...]]] = {
    "nobody_types": (FakeTerminal(), ("nothing to label", "text=", "file=")),
    "closed": (None, ("nothing to label", "text=", "file=")),
    "empty": (io.StringIO("\n"), ("standard input", "no text")),
    "not_utf8": (
        io.TextIOWrapper(io.BytesIO(b"good\n\xff\xfe\n"), encoding="utf-8"),
        ("standard input", "UTF-8"),
    ),
}


@pytest.mark.parametrize(("stream", "says"), INPUT_STREAMS.values(), ids=INPUT_STREAMS.keys())
def test_predict_without_a_text_says_how_to_give_one(
    stream: object, says: tuple[str, ...], run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stream)
    assert_refused(cli("predict", f"run={run}", "compute=cpu", "compute.threads=1"), says, tree(Path()))


def test_a_finished_run_with_a_damaged_summary_is_not_trained_over(run: Path, cli: Cli) -> None:
    (run / "summary.json").write_text("{")
    before = tree(Path())
    assert_refused(cli(*shlex.split(SMALL)), (run.name, "summary.json", "damaged"), before)


@pytest.mark.parametrize("told", [4, 5, 0, -1, True, 2.0, "2", 10**400], ids=lambda told: str(told)[:5])
def test_smaller_parts_that_are_not_smaller_are_damage(told: object, cli: Cli) -> None:
    """A run that ran out of memory names the one that stands for it, with fewer examples a forward pass."""
    from bertlab.config.composition import compose_schema
    from bertlab.training.location import locate

    words = [*shlex.split(SMALL), "compute.micro_batch_size=4"]
    folder = locate(compose_schema("train", words)).folder.path
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"status": "out_of_memory", "micro_batch_size": told}))
    says = (f"{folder}/summary.json", "damaged", "micro_batch_size", "remove the file")
    assert_refused(cli(*words), says, tree(Path()))
