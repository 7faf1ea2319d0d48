"""Generators go on where a checkpoint left them."""

import pytest
import torch

from bertlab.training.steps.randomness import restore_rng_state, rng_state


def test_an_apple_gpus_generator_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torch.mps, by a generator of the CPU: no machine of ours has one."""
    stand_in = torch.Generator().manual_seed(3)
    monkeypatch.setattr(torch.mps, "get_rng_state", stand_in.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", stand_in.set_state)
    device = torch.device("mps")
    state = rng_state(device)
    drawn = torch.rand(4, generator=stand_in)
    restore_rng_state(state, device)
    assert torch.equal(torch.rand(4, generator=stand_in), drawn)


def test_a_checkpoint_from_before_it_was_kept_is_read() -> None:
    restore_rng_state({"cpu": torch.get_rng_state()}, torch.device("mps"))
