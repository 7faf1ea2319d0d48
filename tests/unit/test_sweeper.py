"""The sweeper's space: Hydra's grammar as Optuna's distributions; names and options that are not there are
refused in one line.
"""

from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hydra_plugins.bertlab_optuna import _results
from hydra_plugins.bertlab_optuna._errors import SpaceError
from hydra_plugins.bertlab_optuna._results import _plots, best_preset
from hydra_plugins.bertlab_optuna._space import build_space, distribution_of, quoted
from hydra_plugins.bertlab_optuna._study import (
    build_pruner,
    build_sampler,
    grid_cells,
    open_storage,
    open_study,
    study_name,
)
from hydra_plugins.bertlab_optuna._sweep import ask, count


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("interval(1,8)", FloatDistribution(1, 8)),
        ("int(interval(1,8))", IntDistribution(1, 8)),
        ("tag(log,interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("tag(log,int(interval(16,256)))", IntDistribution(16, 256, log=True)),
        ("range(1,10,2)", IntDistribution(1, 9, step=2)),
        ("range(3)", IntDistribution(0, 2)),
        ("range(0.0,1.0,0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
        ("choice(16,32)", CategoricalDistribution(["16", "32"])),
        ("a,'b c'", CategoricalDistribution(["a", "'b c'"])),
        ("null,1", CategoricalDistribution(["null", "1"])),
        ("[1,2],[3]", CategoricalDistribution(["[1,2]", "[3]"])),
    ],
)
def test_the_whole_grammar_becomes_distributions(written: str, expected: Any) -> None:
    assert distribution_of(OverridesParser.create().parse_override(f"x={written}"), None) == expected


@given(
    st.lists(
        st.text(alphabet="ab ,=:{}[]()'\"\\$é", min_size=1, max_size=8), min_size=2, max_size=4, unique=True
    )
)
def test_a_choice_comes_back_as_it_was_written(values: list[str]) -> None:
    """What Hydra would read in a grid, it reads in a trial."""
    parser = OverridesParser.create()
    space = build_space([f"x={','.join(map(quoted, values))}"], {}, None)
    read = [str(parser.parse_override(corner[0]).value()) for corner in space.corners()]
    assert sorted(set(read)) == sorted(set(values))


@given(st.floats(1e-8, 1e8))
def test_a_number_keeps_all_its_digits(value: float) -> None:
    space = build_space(["x=interval(0,1)", "y=3"], {}, None)
    fixed, searched = space.overrides({"x": value})
    assert fixed == "y=3" and float(searched.partition("=")[2]) == value


def test_the_command_line_wins_over_a_preset() -> None:
    space = build_space(["optimizer.lr=1e-3"], {"optimizer.lr": "interval(0,1)", "seed": "range(3)"}, None)
    assert space.fixed == ["optimizer.lr=1e-3"] and list(space.searched) == ["seed"]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("x=tag(lin,interval(0,1))", "unknown tag lin"),
        ("x=range(3,3)", "empty range"),
        ("x=interval(2,1)", "x: "),
    ],
)
def test_an_impossible_space_is_refused(written: str, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        build_space([written], {}, None)


def test_samplers_and_pruners_go_by_name() -> None:
    space = {"x": CategoricalDistribution(["1", "2"]), "n": IntDistribution(1, 5, step=2)}
    for name in ("tpe", "gp", "cmaes", "random", "qmc", "grid", "nsgaii"):
        build_sampler(name, {}, 0, space)
    for name in ("none", "median", "percentile", "hyperband", "asha", "wilcoxon", "patient"):
        build_pruner(name, {})
    assert len(grid_cells(space)) == 6
    for wrong, words in (
        (lambda: build_sampler("tpee", {}, 0, space), "did you mean 'tpe'"),
        (lambda: build_pruner("median", {"n_startup": 3}), "has no such option"),
        (lambda: build_sampler("grid", {}, 0, {"x": FloatDistribution(0, 1)}), "not an interval"),
        (lambda: open_storage("nothing://x"), "cannot be opened"),
    ):
        with pytest.raises(SpaceError, match=words):
            wrong()


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsgaii"])
def test_a_sweep_that_goes_on_draws_other_points_and_the_same_ones_from_the_same_number(
    sampler: str, tmp_path: Path
) -> None:
    space = {"x": FloatDistribution(0, 1)}

    def points(name: str, parts: tuple[int, ...]) -> list[float]:
        storage = open_storage(f"sqlite:///{tmp_path / f'{name}.db'}")
        found = []
        for part in parts:  # a process each
            study = open_study(
                storage, "s", ["maximize"], build_sampler(sampler, {}, 0, space), build_pruner("none", {})
            )
            for _ in range(part):
                trial = study.ask(space)
                found.append(trial.params["x"])
                study.tell(trial, 1.0)
        return found

    assert points("once", (6,)) == points("resumed", (2, 1, 3))
    assert len(set(points("again", (3, 3)))) == 6


@pytest.mark.parametrize("sampler", ["gp", "cmaes", "qmc"])
def test_samplers_with_a_model_of_their_own_get_nearer_and_go_on_after_a_restart(
    sampler: str, tmp_path: Path
) -> None:
    """(x - 0.3)^2 + (y - 0.7)^2 over the unit square, three processes of eight trials each; at random the
    best of 24 is 0.01 as a rule.
    """
    space = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    storage, points = open_storage(f"sqlite:///{tmp_path / 's.db'}"), []
    for _ in range(3):
        study = open_study(
            storage, "s", ["minimize"], build_sampler(sampler, {}, 0, space), build_pruner("none", {})
        )
        for _ in range(8):
            trial = study.ask(space)
            points.append((trial.params["x"], trial.params["y"]))
            study.tell(trial, (points[-1][0] - 0.3) ** 2 + (points[-1][1] - 0.7) ** 2)
    assert len(set(points)) == 24 and study.best_value < 0.02


def test_a_study_goes_by_its_command_and_keeps_its_direction(tmp_path: Path) -> None:
    assert (
        study_name(["a=1", "hydra.sweeper.n_trials=3"], {})
        == study_name(["hydra.sweeper.n_trials=9", "a=1"], {})
        != study_name(["a=2"], {})
    )
    storage = open_storage(f"sqlite:///{tmp_path / 's.db'}")
    sampler, pruner = build_sampler("random", {}, 0, {}), build_pruner("none", {})
    open_study(storage, "s", ["maximize"], sampler, pruner)
    with pytest.raises(SpaceError, match="another study_name"):
        open_study(storage, "s", ["minimize"], sampler, pruner)


def test_one_trial_too_many_is_withdrawn_by_its_number(tmp_path: Path) -> None:
    space = build_space(["x=interval(0,1)"], {}, None)
    storage = open_storage(f"sqlite:///{tmp_path / 's.db'}")
    study = open_study(
        storage, "s", ["maximize"], build_sampler("random", {}, 0, space.searched), build_pruner("none", {})
    )
    assert ask(study, space, None, 2) is not None and ask(study, space, None, 2) is not None
    assert ask(study, space, None, 2) is None
    assert (count(study).running, count(study).failed, len(study.trials)) == (2, 0, 3)


@pytest.mark.parametrize(
    "fixed",
    [
        ["experiment=bertsst2"],
        ["debug=smoke"],
        ["experiment=bertsst2", "debug=smoke", "tags=[a,b]"],
        ["init=stage", "init.dataset=imdb", "debug=smoke_stage", "init.budget.steps=3"],
        ["suite=glue_small/rte"],
        ["evaluation.patience=null", "dataset.name=two", "schedule=cosine"],
    ],
    ids=" ".join,
)
def test_the_best_point_is_a_preset_that_makes_the_same_run(fixed: list[str], tmp_path: Path) -> None:
    """Also where a group that is read after the experiments has a say: debug, suite."""
    from bertlab.config.composition import compose_schema, compose_words, read_words

    words = list(map(str, read_words("train", fixed)))
    space = build_space([*words, "model=bert_tiny,bert_mini", "budget.batch_size=range(1,9)"], {}, None)
    trial = optuna.trial.create_trial(
        params={"model": "bert_mini", "budget.batch_size": 3}, distributions=space.searched, value=0.5
    )
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "best.yaml").write_text(best_preset(trial, space))
    made = compose_schema("train", [f"hydra.searchpath=[file://{tmp_path}]", "experiment=best"])
    assert made == compose_words("train", read_words("train", space.overrides(trial.params)))
    assert made.budget.batch_size == 3 and made.model.hidden_size == 256


def test_a_search_draws_what_may_be_expected_of_so_many_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials that were pruned or failed count too, a trial that was made again once."""
    study = optuna.create_study(direction="maximize")
    space = {"x": FloatDistribution(0, 1)}
    for place in range(8):
        pruned = place < 3
        study.add_trial(optuna.trial.create_trial(
            state=optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE,
            params={"x": place / 10}, distributions=space, value=None if pruned else 0.5 + place / 100,
            intermediate_values={1: 0.3, 2: 0.4 + place / 100},
        ))  # fmt: skip
    for attributes in ({}, {"retried_trial_number": 8}):
        study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs=attributes))
    drawn: list[list[float]] = []
    monkeypatch.setattr(_results, "draw_best_of", lambda _axes, values, _higher: drawn.append(list(values)))
    _plots(study, tmp_path / "plots")
    assert (tmp_path / "plots" / "best_of_k.png").is_file()
    assert drawn == [pytest.approx([0.53, 0.54, 0.55, 0.56, 0.57, 0.4, 0.41, 0.42, 0.4])]
