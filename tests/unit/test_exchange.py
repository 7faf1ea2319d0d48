"""Processes that do not meet end soon, with a line."""

import datetime
import socket

import pytest

from bertlab.errors import RunError
from bertlab.training.several import exchange


@pytest.fixture(autouse=True)
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun starts it; the first never comes."""
    monkeypatch.setattr(exchange, "MEETING", datetime.timedelta(seconds=0.5))
    told = {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1"}
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("MASTER_PORT", raising=False)


def test_one_that_comes_to_an_empty_place_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    with pytest.raises(RunError, match=r"process 1 of 2: .* do not meet at 127.0.0.1:\d+ \(.*timed out"):
        exchange.meet()


def test_a_port_that_nobody_says_is_told() -> None:
    with pytest.raises(RunError, match=r"127.0.0.1:\(MASTER_PORT is not set\)"):
        exchange.meet()
