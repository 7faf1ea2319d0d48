"""One of several processes: who it is, which examples are its own, and dropout that is drawn as one process
would.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bertlab.data.feeding import Feed
from bertlab.errors import ConfigError
from bertlab.kernels import Part, WholeDraws, as_part, dropout
from bertlab.runs.processes import Place, place


@given(rows=st.integers(1, 60), micro_batch=st.integers(1, 20), of=st.integers(1, 9))
def test_every_example_is_computed_once_and_work_is_even(rows: int, micro_batch: int, of: int) -> None:
    feeds = [Feed(None, None, None, None, micro_batch, rank, of) for rank in range(of)]  # type: ignore[arg-type]  # shares need no more
    by_pass = list(zip(*(feed.shares(rows) for feed in feeds), strict=True))
    assert sum(shares[0].all for shares in by_pass) == rows
    for shares in by_pass:
        counted = [share for share in shares if share.counts]
        assert [row for share in counted for row in range(share.first, share.first + share.own)] == list(
            range(shares[0].all)
        )
        assert max(share.own for share in shares) - min(share.own for share in shares) <= 1
        assert all(1 <= share.own <= micro_batch and share.first + share.own <= share.all for share in shares)


@pytest.mark.parametrize("times", [1, 3])
def test_parts_of_a_batch_drop_what_the_whole_drops(times: int) -> None:
    """Ours and torch's; then all generators stand at the same place."""
    x = torch.randn(7 * times, 5, 4)
    for drop in (lambda values: dropout(values, 0.3), nn.Dropout(0.3)):
        torch.manual_seed(5)
        whole, after = drop(x), torch.rand(3)
        for first, own in ((0, 2), (2, 3), (5, 2)):
            torch.manual_seed(5)
            part = Part(first, own, 7, 5)
            with as_part(part), WholeDraws(part):
                found = drop(x[times * first : times * (first + own)])
            assert torch.equal(found, whole[times * first : times * (first + own)])
            assert torch.equal(torch.rand(3), after)


def test_dropout_over_tokens_reaches_as_far_as_the_longest_of_all() -> None:
    x, drop = torch.randn(4, 6, 3), nn.Dropout(0.5)
    torch.manual_seed(1)
    whole = drop(x)
    torch.manual_seed(1)
    with WholeDraws(Part(1, 2, 4, 6), over_tokens=True):
        assert torch.equal(drop(x[1:3, :4]), whole[1:3, :4])


def test_the_environment_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place() == Place()
    slurm = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_JOB_ID": "7",
             "SLURM_STEP_NODELIST": "gpu[03-07,12],big1", "SLURM_NTASKS": "8"}  # fmt: skip
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert place() == Place(), "within a batch script, but no task of srun's"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    assert place() == Place(5, 8, 1, 4, "tcp://gpu03:20217")
    with monkeypatch.context() as patch:
        patch.delenv("SLURM_STEP_NODELIST")
        patch.setenv("SLURM_JOB_NODELIST", "cpu[1-2]")
        assert place().meeting == "tcp://cpu1:20217", "the job's nodes, where the step's are not told"
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert place().sharing == 1, "the cores that it may use are its own"
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "host",
        "LOCAL_WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    assert place() == Place(0, 2, 0, 2, "env://")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(ConfigError, match="number 2 of 2"):
        place()
    monkeypatch.setenv("RANK", "two")
    with pytest.raises(ConfigError, match="RANK=two"):
        place()
