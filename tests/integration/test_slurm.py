"""SLURM's part, played on this machine: what srun and sbatch set and start, in real processes that meet over
the loopback as on two nodes.
"""

import json
import os
import random
import stat
import sys
from pathlib import Path

import pytest

from bertlab.runs.files import load_weights
from children import Child, finish, only_run, start
from tiny import tiny

RUN = tiny("budget.steps=12", "budget.batch_size=10", "evaluation.every_steps=6", "compute=cpu",
    "compute.precision=float32", "optimizer.lr=3e-3", sizes=(60, 30, 30), heads=2)  # fmt: skip
NODES = "127.0.0.[1-2]"  # two addresses of the loopback, as SLURM writes two nodes

pytestmark = pytest.mark.slow


def told_by_srun(rank: int, of: int, job: int) -> dict[str, str]:
    """What srun sets for a task of one a node."""
    return {
        "SLURM_JOB_ID": f"{job}", "SLURM_STEP_ID": "0", "SLURM_JOB_NUM_NODES": f"{of}",
        "SLURM_NTASKS": f"{of}", "SLURM_STEP_NUM_TASKS": f"{of}", "SLURM_JOB_NODELIST": NODES,
        "SLURM_STEP_NODELIST": NODES, "SLURM_STEP_TASKS_PER_NODE": f"1(x{of})", "SLURM_PROCID": f"{rank}",
        "SLURM_LOCALID": "0", "SLURM_NODEID": f"{rank}",
    }  # fmt: skip


def tasks(*words: str, without: tuple[str, ...] = ()) -> list[Child]:
    """Two tasks of a step on two nodes."""
    job, begun = random.SystemRandom().randrange(10**6), []
    for rank in range(2):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in told_by_srun(rank, 2, job).items():
                if name not in without:
                    patch.setenv(name, value)
            begun.append(start(*words))
    return begun


def difference(one: Path, other: Path) -> float:
    """The largest between the last weights of two runs."""
    ours, theirs = (load_weights(folder / "last.safetensors") for folder in (one, other))
    return max(
        float((ours[name] - theirs[name]).abs().max()) for name in ours if ours[name].is_floating_point()
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by one process."""
    output = tmp_path_factory.mktemp("alone")
    finish(*RUN, f"paths.output={output}")
    return only_run(output)


@pytest.mark.parametrize("without", [(), ("SLURM_STEP_NODELIST",)], ids=["srun", "the job's nodes alone"])
def test_tasks_of_two_nodes_find_each_other_and_train_as_one(
    alone: Path, tmp_path: Path, without: tuple[str, ...]
) -> None:
    begun = tasks(*RUN, f"paths.output={tmp_path}", without=without)
    told = [one.wait() for one in begun]
    assert [one.returncode for one in begun] == [0, 0], told
    assert "run: " in told[0][0] and told[1][0] == "", "the first alone speaks"
    assert json.loads((only_run(tmp_path) / "environment.json").read_text())["processes"] == 2
    assert difference(only_run(tmp_path), alone) < 1e-5


def test_a_batch_script_without_srun_is_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There SLURM_NTASKS is that of the job, and nobody else was started."""
    for name, value in told_by_srun(0, 2, 5).items():
        if "STEP" not in name:
            monkeypatch.setenv(name, value)
    finish(*RUN, f"paths.output={tmp_path}")
    assert json.loads((only_run(tmp_path) / "environment.json").read_text())["processes"] == 1


# --- a stand-in for the cluster -------------------------------------------------------------------
SBATCH = """
import os, re, subprocess, sys
script = sys.argv[-1]
asked = dict(re.findall(r"^#SBATCH --([\\w-]+)=(\\S+)", open(script).read(), re.MULTILINE))
nodes, each = int(asked.get("nodes", 1)), int(asked.get("ntasks-per-node", 1))
job = str(os.getpid())
told = {"SLURM_JOB_ID": job, "SLURM_JOB_NUM_NODES": str(nodes), "SLURM_NTASKS": str(nodes * each),
        "SLURM_JOB_NODELIST": os.environ["STAND_IN_NODES"], "SLURM_NODEID": "0", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "STAND_IN_EACH": str(each)}
subprocess.Popen(["bash", script], env={**os.environ, **told}, stdout=subprocess.DEVNULL,
                 stderr=subprocess.DEVNULL, start_new_session=True)
print("Submitted batch job", job)
"""
SRUN = """
import os, subprocess, sys
words, files = sys.argv[1:], {}
while words[0].startswith("--"):
    name = words.pop(0)
    if name in ("--output", "--error"):
        files[name] = words.pop(0)
of, each = int(os.environ["SLURM_NTASKS"]), int(os.environ["STAND_IN_EACH"])
begun = []
for rank in range(of):
    told = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(of), "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank % each), "SLURM_NODEID": str(rank // each),
            "SLURM_STEP_NODELIST": os.environ["SLURM_JOB_NODELIST"],
            "SLURM_STEP_TASKS_PER_NODE": f"{each}(x{of // each})"}
    streams = {name: open(file.replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", str(rank)), "a")
               for name, file in files.items()}
    begun.append(subprocess.Popen(words, env={**os.environ, **told}, stdout=streams.get("--output"),
                                  stderr=streams.get("--error")))
sys.exit(max(abs(one.wait()) for one in begun))
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sbatch` and `srun` that start on this machine what a cluster would on its nodes."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name, source in (("sbatch", SBATCH), ("srun", SRUN)):
        file = folder / name
        file.write_text(f"#!{sys.executable}\n{source}")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_NODES", NODES)


@pytest.mark.usefixtures("cluster")
def test_the_slurm_launcher_trains_one_run_on_two_nodes(alone: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'bertlab[submitit]'")
    words = ["hydra/launcher=slurm", "hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=1"]
    folders = [f"paths.output={tmp_path / 'out'}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    finish("-m", *words, *RUN, *folders)
    run = only_run(tmp_path / "out")
    assert json.loads((run / "environment.json").read_text())["processes"] == 2
    assert difference(run, alone) < 1e-5
