"""Spikes of the loss: what is one, what a run does with it, and that it stays exact."""

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bertlab
from bertlab.training.steps.spikes import COUNTED, LEARNING, MEMORY, Trend
from tiny import tiny


def test_averages_are_the_ordinary_ones_of_the_first_steps() -> None:
    draw = random.Random(0)
    losses = [draw.uniform(1, 2) for _ in range(LEARNING)]
    trend = Trend()
    assert not any(trend.see(loss) for loss in losses)
    mean = sum(losses) / len(losses)
    assert trend.mean == pytest.approx(mean)
    assert trend.variance == pytest.approx(sum((loss - mean) ** 2 for loss in losses) / len(losses))


def test_one_high_loss_is_a_spike_and_hides_none_after_it() -> None:
    draw, trend = random.Random(0), Trend()
    assert not any(trend.see(draw.gauss(2.0, 0.1)) for _ in range(500))
    assert trend.see(5.0) and trend.see(5.0) and not trend.see(2.1)


def test_a_falling_loss_has_no_spikes_and_a_level_that_stays_is_none_after_a_while() -> None:
    draw, trend = random.Random(0), Trend()
    assert not any(trend.see(7 * math.exp(-step / 200) + draw.gauss(0, 0.05)) for step in range(1000))
    assert not all(trend.see(3.0 + draw.gauss(0, 0.05)) for _ in range(2 * MEMORY))
    assert not any(trend.see(3.0 + draw.gauss(0, 0.05)) for _ in range(MEMORY))


@given(st.lists(st.floats(-1e6, 1e6), max_size=200), st.floats(0.5, 50))
def test_any_losses_keep_a_finite_trend(losses: list[float], deviations: float) -> None:
    trend = Trend()
    for loss in losses:
        trend.see(loss, deviations)
    assert trend.steps == len(losses) and math.isfinite(trend.mean) and trend.variance >= 0


RUN = tiny(
    "budget.steps=160",
    "budget.batch_size=4",
    "optimizer.lr=1e-3",
    "evaluation.every_steps=80",
    sizes=(120, 20, 20),
)
STRICT = "optimizer.skip_spikes=1.5"  # so low that an ordinary run has some


def test_spikes_are_counted_and_left_out_only_where_that_is_configured() -> None:
    plain, strict = bertlab.run(RUN), bertlab.run([*RUN, STRICT])
    assert plain.summary["spikes"]["skipped"] == 0 and plain.summary["spikes"]["deviations"] == COUNTED
    told = strict.summary["spikes"]
    assert told["skipped"] == told["count"] == len(told["steps"]) > 0
    records = strict.history
    assert records["train/spikes"].dropna().iloc[-1] == told["count"]
    assert (records["train/largest_loss"].dropna() >= records["train/loss"].dropna()).all()
    weights = [(run.folder / "last.safetensors").read_bytes() for run in (plain, strict)]
    assert weights[0] != weights[1]


def test_a_run_that_leaves_out_spikes_goes_on_exactly(tmp_path: Path) -> None:
    """Interrupted by hand at a step of which the trend's state matters."""
    from bertlab.training.steps import journal

    whole = bertlab.run([*RUN, STRICT, f"paths.output={tmp_path / 'whole'}"])
    asked, saved = (
        [*RUN, STRICT, f"paths.output={tmp_path / 'parts'}", "compute.checkpoint_seconds=0"],
        journal.save_checkpoint,
    )

    def stop(folder: Path, state: journal.ResumeState) -> None:
        saved(folder, state)
        if state.step == 93:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "save_checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            bertlab.run(asked)
    parts = bertlab.run(asked)
    assert parts.summary["spikes"] == whole.summary["spikes"]
    assert (parts.folder / "last.safetensors").read_bytes() == (
        whole.folder / "last.safetensors"
    ).read_bytes()
