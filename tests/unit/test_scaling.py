"""Power laws through arms of several sizes: the truth is found where it is known, and what is foretold is
held against it.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from runfolders import PER_TOKEN, write_run

from bertlab.declarations import FRACTION, Metric, loss_metric
from bertlab.errors import ConfigError
from bertlab.jobs.report import Schema, compare_runs
from bertlab.report import scaling
from bertlab.report.scaling import Law, as_loss, fit, scale

X = np.geomspace(1e12, 1e15, 6)


@pytest.mark.parametrize("law", [Law(1.5, 300.0, 0.2), Law(0.0, 40.0, 0.1)])
def test_a_law_without_noise_is_found(law: Law) -> None:
    found = fit(X, law(X))
    assert found.exponent == pytest.approx(law.exponent, rel=0.03) and found.floor == pytest.approx(
        law.floor, abs=0.02
    )
    assert np.allclose(found(X), law(X), rtol=2e-3)


def test_intervals_cover_the_truth_and_the_largest() -> None:
    law, rng = Law(0.0, 40.0, 0.1), np.random.default_rng(1)
    covered, foretold = 0, 0
    for _ in range(40):
        losses = [law(np.full(3, x)) * np.exp(rng.normal(0, 0.01, 3)) for x in X[:4]]
        found = scale("all arms", [None] * 4, X[:4].tolist(), losses)  # type: ignore[list-item]  # arms are only handed on
        covered += found.exponent[0] <= law.exponent <= found.exponent[1]
        foretold += found.is_foretold
    assert covered >= 34 and foretold >= 33


@pytest.mark.parametrize(("sizes", "seeds", "floor"), [(4, 1, 0.0), (4, 5, 0.0), (6, 3, 1.5)])
def test_intervals_cover_where_sizes_lie_about_the_law(
    monkeypatch: pytest.MonkeyPatch, sizes: int, seeds: int, floor: float
) -> None:
    """Sizes differ from the law by a percent each, of which seeds, a tenth as far apart, tell nothing."""
    monkeypatch.setattr(scaling, "DRAWS", 40)
    law, rng, x = Law(floor, 40.0, 0.1), np.random.default_rng(2), X[:sizes]
    covered, foretold, rounds = 0, 0, 60 if floor else 300
    for _ in range(rounds):
        means = law(x) * np.exp(rng.normal(0, 0.01, sizes))
        losses = [mean * np.exp(rng.normal(0, 0.001, seeds)) for mean in means]
        found = scale("all arms", [None] * sizes, x.tolist(), losses)  # type: ignore[list-item]
        covered += found.exponent[0] <= law.exponent <= found.exponent[1]
        foretold += found.is_foretold
    assert covered / rounds >= 0.93 and foretold / rounds >= 0.93
    assert floor or min(covered, foretold) / rounds <= 0.99, "nor is it wider than it need be"


def test_what_is_foretold_knows_nothing_of_the_largest() -> None:
    losses = [np.full(3, value) * np.array([0.999, 1.0, 1.001]) for value in (4.0, 3.61, 3.24, 2.9)]
    x = [1e12, 1e13, 1e14, 1e15]
    found = scale("all arms", [None] * 4, x, losses)  # type: ignore[list-item]
    other = scale("all arms", [None] * 4, x, [*losses[:-1], 2 * losses[-1]])  # type: ignore[list-item]
    assert found.prediction == other.prediction and found.is_foretold and not other.is_foretold


def test_a_law_over_costs_that_are_not_all_on_record_says_so(tmp_path: Path) -> None:
    sized(tmp_path, init__component="pretrained")
    options = {"examples": False, "contamination": False, "scaling_by": "objective.masking_rate"}
    for cost, is_told in (("flops", True), ("parameters", False)):
        page = compare_runs(Schema(runs=str(tmp_path), scaling=cost, **options))[2]  # type: ignore[arg-type]
        (table,) = [block for block in page.blocks if "y = E" in getattr(block, "caption", "")]
        assert ("but for †" in table.caption) == is_told
        assert [row[0].endswith(" †") for row in table.rows] == [is_told] * 2


def test_a_break_in_the_law_is_not_foretold() -> None:
    # the last gains too little
    losses = [np.full(3, value) * np.array([0.999, 1.0, 1.001]) for value in (4.0, 3.6, 3.24, 3.1)]
    found = scale("all arms", [None] * 4, [1e12, 1e13, 1e14, 1e15], losses)  # type: ignore[list-item]
    assert found.predicted == pytest.approx(2.916, rel=0.01) and found.measured == pytest.approx(3.1)


def test_what_no_law_can_be_of_is_refused() -> None:
    with pytest.raises(ConfigError, match="3 sizes; a law and one size to foretell take 4"):
        scale("all arms", [None] * 4, [1.0, 2.0, 3.0, 3.0], [np.ones(2)] * 4)  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="loss or a cost of 0"):
        scale("all arms", [None] * 4, [1.0, 2.0, 3.0, 4.0], [np.zeros(1)] * 4)  # type: ignore[list-item]
    assert as_loss(loss_metric("nats per example"), 0.7) == 0.7
    assert as_loss(Metric("accuracy", True, FRACTION, (0.0, 1.0)), 0.7) == pytest.approx(0.3)
    with pytest.raises(ConfigError, match="neither a loss nor a share"):
        as_loss(Metric("score", True, "points", (0.0, None)), 0.7)
    assert math.isfinite(fit(X[:3], np.array([3.0, 2.0, 1.5])).exponent)


def sized(root: Path, **settings: str) -> Path:
    """Four sizes of two recipes, three seeds each."""
    rng = np.random.default_rng(3)
    for rate, factor in ((0.15, 1.0), (0.4, 0.95)):
        for size in range(4):
            for seed in range(3):
                loss = factor * 4 * 0.9**size * math.exp(rng.normal(0, 0.003))
                run = write_run(
                    root,
                    f"r{rate}-{size}-{seed}",
                    seed,
                    loss,
                    metric=PER_TOKEN,
                    objective__masking_rate=rate,
                    model__layers=2 + size,
                    **settings,
                )
                summary = json.loads((run / "summary.json").read_text())
                summary["cost"] |= {"flops": 10.0 ** (12 + size), "parameters": 4 ** (10 + size)}
                (run / "summary.json").write_text(json.dumps(summary))
    return root


def test_a_report_fits_a_law_for_each_recipe(tmp_path: Path) -> None:
    options = {"examples": False, "contamination": False, "scaling": "flops"}
    page = compare_runs(Schema(runs=str(sized(tmp_path)), scaling_by="objective.masking_rate", **options))[2]  # type: ignore[arg-type]
    (table,) = [block for block in page.blocks if "y = E" in getattr(block, "caption", "")]
    assert [row[0] for row in table.rows] == ["objective.masking_rate=0.15", "objective.masking_rate=0.4"]
    for row in table.rows:
        assert (
            row[1] == "4"
            and float(row[2].split()[0]) == pytest.approx(-math.log10(0.9), abs=0.004)
            and row[6] == "as foretold"
        )
    assert [figure.name for figure in page.figures() if "scaling" in figure.name]
    with pytest.raises(ConfigError, match="scaling_by: arms do not differ in seed"):
        compare_runs(Schema(runs=str(tmp_path), scaling_by="seed", **options))  # type: ignore[arg-type]
