"""Batches from processes of their own: a death at the worst moment is told as what it is."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bertlab.data.feeding import Feed, worker_deaths_explained
from bertlab.errors import RunError
from bertlab.runs.machine import Device

# Python 3.12, of any fork
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

CPU = Device(torch.device("cpu"), "float32", 1)


class Torn:
    """A batch whose maker dies while it is handed over, as the receiver sees it: a connection that breaks."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return kill_and_break, (os.getpid(),)


def kill_and_break(maker: int) -> None:
    os.kill(maker, signal.SIGKILL)
    raise ConnectionResetError(104, "Connection reset by peer")


class Broken:
    """The same where nobody has died."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return only_break, ()


def only_break() -> None:
    raise ConnectionResetError(104, "Connection reset by peer")


def feed(batch: type) -> Feed:
    order = SimpleNamespace(
        seed=0,
        lengths=np.ones(3),
        tokens_before=lambda _: 0,
        length_at=lambda _: None,
        from_step=lambda _: iter([(0, 1.0, np.arange(3))]),
    )
    return Feed(SimpleNamespace(collate=lambda *_: batch()), None, order, 1)  # type: ignore[arg-type]  # no more than a feed asks for


def test_a_maker_that_dies_while_it_hands_a_batch_over_is_told_in_one_line() -> None:
    with pytest.raises(RunError, match="a process that makes batches died"), worker_deaths_explained():
        next(feed(Torn).steps(0, CPU, 2))


def test_a_broken_connection_without_a_death_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertlab.data.feeding.LAST_BREATH", 0.1)
    with pytest.raises(ConnectionResetError), worker_deaths_explained():
        next(feed(Broken).steps(0, CPU, 2))
