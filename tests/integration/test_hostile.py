"""What comes from strangers, what must not go to them, and surroundings that refuse: code, secrets, links,
disks, streams.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from children import only_run, start
from tiny import tiny

pytestmark = pytest.mark.slow

SECRETS = {
    "SITE_API_TOKEN": "tok-4f1d7c02aa",
    "DB_PASSWORD": "p@ss:w/o'r\"d-77",
    "aws_secret_key": "AKxx0123456789",
}
URLS = (
    "postgresql://lab:ge@heim9@db.example/optuna",
    'postgresql://lab:ge/geheim9 "x@db.example/optuna',
    "https://x.example/?user=lab&password=geheim9",
)
RUN = tiny("model=bert_tiny", "budget.steps=4", "budget.batch_size=8", sizes=(60, 20, 20))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    output = tmp_path_factory.mktemp("hostile")
    finished(*RUN, f"paths.output={output}")
    return only_run(output)


def finished(*words: str, status: int = 0) -> tuple[str, str]:
    child = start(*words)
    out, err = child.wait()
    assert child.returncode == status, err
    assert "Traceback" not in err
    return out, err


def refused(*words: str) -> str:
    """The one line of a command that is refused."""
    _, err = finished(*words, status=2)
    assert len(err.splitlines()) == 1, err
    return err


def copied(run: Path, place: Path) -> Path:
    place.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", str(run), str(place)], check=True)
    return place


def test_no_secret_is_in_any_byte_that_is_written_or_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passwords of addresses and values of variables that are called secret, put where a person
    may put them.
    """
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    tags = "tags=" + json.dumps([*SECRETS.values(), *URLS])
    told = [*finished(*RUN, tags, "paths.output=out", "paths.cache=cache")]
    told += finished("report", "runs=out", "out=kept", "keep_runs=true", "formats=md,html,csv,tex")
    told += finished("export", f"run={only_run(Path('out'))}", "to=exported", "verify=1")
    told += finished(*RUN, f"tagss={URLS[0]}", status=2)
    for address in URLS[:2]:
        told += finished("-m", "search=lr_batch", f"hydra.sweeper.storage='{address}'", *RUN, status=2)
    told += finished(
        *RUN, tags, "tracker=wandb", "tracker.mode=offline", "seed=1", "paths.output=out", "paths.cache=cache"
    )
    search = ["-m", "hydra/sweeper=bertlab_optuna", "hydra.sweeper.sampler=grid", "optimizer.lr=1e-3,2e-3"]
    told += finished(*search, *RUN, tags, "paths.output=searched", "paths.cache=cache")
    written = {path: content(path) for path in tmp_path.rglob("*") if path.is_file()}
    assert len(written) > 20
    for secret in (
        "tok-4f1d7c02aa",
        "d-77",
        "AKxx0123456789",
        "geheim9",
    ):  # what is left of each, however it is written
        assert not any(secret in text for text in told), told
        assert not [path for path, held in written.items() if secret.encode() in held], secret


def content(file: Path) -> bytes:
    """A file's bytes; of a compressed table, what it holds."""
    return repr(pq.read_table(file).to_pylist()).encode() if file.suffix == ".parquet" else file.read_bytes()


def test_a_traceback_keeps_secrets_too() -> None:
    code = (
        "from bertlab.runs.streams import prepare_streams; prepare_streams(); import os; raise"
        " ValueError(os.environ['SITE_API_TOKEN'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **SECRETS}
    )
    assert "ValueError: (redacted)" in done.stderr and SECRETS["SITE_API_TOKEN"] not in done.stderr


def test_presets_bring_no_code_and_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_API_TOKEN", SECRETS["SITE_API_TOKEN"])
    for name, body, says in (
        (
            "callback",
            "hydra: {callbacks: {x: {_target_: os.mkdir, path: pwned}}}",
            "hydra.callbacks.x._target_: names code, os.mkdir",
        ),
        ("launcher", "hydra: {launcher: {_target_: os.mkdir}}", "hydra.launcher._target_: names code"),
        (
            "log",
            "hydra: {job_logging: {version: 1, handlers: {h: {'()': os.mkdir, path: pwned}}}}",
            "hydra.job_logging.handlers.h.()",
        ),
        (
            "ext",
            "hydra: {job_logging: {version: 1, handlers: {h: {stream: 'ext://os.environ'}}}}",
            "ext://os.environ",
        ),
        ("set", "hydra: {job: {env_set: {BERTLAB_PLUGINS: .}}}", "hydra.job.env_set.BERTLAB_PLUGINS"),
        ("read", "tags: ['${oc.env:SITE_API_TOKEN}']", "${oc.env:SITE_API_TOKEN}: a config may read"),
    ):
        file = Path(f"conf/experiment/{name}.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# @package _global_\n{body}\n")
        for several in ([], ["-m", "seed=1,2"]):
            errors = finished("--config-dir", "conf", f"experiment={name}", *several, status=2)[1]
            assert says in errors and len(errors.splitlines()) <= 3, errors
    search = "# @package _global_\nhydra: {sweeper: {space: os.system}}\n"
    Path("conf/experiment/space.yaml").write_text(search)
    assert "hydra.sweeper.space=os.system: names code" in refused(
        "--config-dir", "conf", "-m", "search=lr_batch", "experiment=space"
    )
    assert not Path("pwned").exists() and not Path("multirun").exists()


def test_a_recorded_config_refers_to_nothing(run: Path, tmp_path: Path) -> None:
    stranger = copied(run, tmp_path / "stranger")
    (stranger / "manifest.json").unlink()
    config = (stranger / "config.yaml").read_text()
    (stranger / "config.yaml").write_text(config.replace("tags: []", "tags: ['${oc.env:HOME}']"))
    assert "tags.0 refers to something else" in refused("predict", f"run={stranger}", "text=a film")


def test_links_in_a_run_folder_are_not_followed(run: Path, tmp_path: Path) -> None:
    """Neither to read what lies elsewhere into a report, nor to write over it."""
    precious = tmp_path / "precious"
    precious.write_text("mine\n")
    stranger = copied(run, tmp_path / "in" / "stranger")
    (stranger / "predictions" / "validation.jsonl").unlink()
    (stranger / "predictions" / "validation.jsonl").symlink_to(precious)
    out, err = start("report", "runs=in", "out=kept", "keep_runs=true").wait()
    assert "Traceback" not in err and "is a link" in out + err, out + err
    for file in Path("kept").rglob("*"):
        assert not file.is_symlink() and (not file.is_file() or b"mine" not in file.read_bytes())
    torn = copied(run, tmp_path / "out" / run.name)
    for name in ("summary.json", "manifest.json", "metrics.jsonl"):
        (torn / name).unlink()
    (torn / "metrics.jsonl").symlink_to(precious)
    finished(*RUN, f"paths.output={tmp_path / 'out'}")
    assert precious.read_text() == "mine\n" and not (torn / "metrics.jsonl").is_symlink()


@pytest.mark.parametrize(("damage", "says"), [
    (lambda weight: weight.to(torch.int64), "int64"),
    (lambda weight: weight.to(torch.complex64), "complex64"),
    (lambda weight: torch.full_like(weight, torch.nan), "not finite"),
    (lambda weight: weight.index_fill(0, torch.tensor([0]), torch.inf), "not finite"),
], ids=["whole", "complex", "nan", "infinite"])  # fmt: skip
def test_weights_that_are_no_weights_are_no_scores(
    damage: object, says: str, run: Path, tmp_path: Path
) -> None:
    """In a run's folder from outside, whose manifest fits."""
    stranger = copied(run, tmp_path / "stranger")
    (stranger / "manifest.json").unlink()
    weights = load_file(stranger / "model.safetensors")
    name = next(name for name, weight in weights.items() if weight.ndim == 2)
    assert callable(damage)
    save_file({**weights, name: damage(weights[name])}, stranger / "model.safetensors")
    for job in (["predict", "text=a film"], ["evaluate"], ["export", "to=exported"]):
        line = refused(job[0], f"run={stranger}", *job[1:])
        assert says in line and name in line and "model.safetensors" in line
    assert not Path("exported").exists()


def test_a_full_disk_is_one_line_and_the_command_goes_on(run: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bertlab", *RUN, f"paths.output={tmp_path}"]
    limited = ["bash", "-c", 'ulimit -f 40; trap "" XFSZ; exec "$@"', "bash", *words]  # blocks of 1,024 bytes
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert (
        "cannot be written (File too large)" in done.stderr.splitlines()[-1] and str(tmp_path) in done.stderr
    )
    assert not list(tmp_path.rglob("*.tmp*"))
    finished(*RUN, f"paths.output={tmp_path}")
    assert (only_run(tmp_path) / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_a_place_that_cannot_hold_runs_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "paths.output" in refused(*RUN, f"paths.output={tmp_path / 'file'}")
    assert "/proc" in refused(*RUN, "paths.output=/proc/bertlab")


def test_names_stay_within_the_output_folder() -> None:
    assert "study_name=../../x" in refused("-m", "search=lr_batch", "hydra.sweeper.study_name=../../x", *RUN)
    assert "dataset.name" in refused("dataset.name=../../x", *RUN)
    assert "dataset.name" in refused(f"dataset.name={'n' * 300}", *RUN)
    assert not Path("multirun").exists()


def test_streams_may_be_closed_or_know_ascii_alone() -> None:
    words = [sys.executable, "-m", "bertlab", "plan", "tags=['größe']", *RUN]
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = [sys.executable, "-m", "bertlab", "--cfg", "job", "tags=['größe']"]
    done = subprocess.run(shown, capture_output=True, text=True, env=ascii_only)
    assert done.returncode == 0 and "gr\\xf6\\xdfe" in done.stdout, done.stderr
    for closed, command in (("2>&-", shown), ("<&- >&- 2>&-", words)):
        done = subprocess.run(
            ["bash", "-c", f'"$@" {closed}', "bash", *command], capture_output=True, text=True
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def test_what_others_wrote_into_cells_is_text(run: Path, tmp_path: Path) -> None:
    """CSV cells that a spreadsheet would compute, and markup in a report."""
    stranger = copied(run, tmp_path / "in" / "stranger")
    (stranger / "manifest.json").unlink()
    config = (stranger / "config.yaml").read_text()
    (stranger / "config.yaml").write_text(
        config.replace("name: synthetic", "name: '=1+1<script>alert(1)</script>'", 1)
    )
    summary = json.loads((stranger / "summary.json").read_text())
    (stranger / "summary.json").write_text(json.dumps(summary).replace("synthetic", "=1+1<script>"))
    finished("report", "runs=in", "out=made", "formats=md,html,csv,tex")
    for file in Path("made").rglob("*.*"):
        text = file.read_text(errors="replace")
        if file.suffix not in (".csv", ".json"):
            assert "<script>alert" not in text, file
        if file.suffix == ".csv":
            assert not any(cell.startswith("=") for line in text.splitlines() for cell in line.split(",")), (
                file
            )
