"""What of the first weights moves: frozen parts stay to the bit, levels have their rates, redrawn layers are
fresh.
"""

from typing import Any

import pytest
import torch

import bertlab
from bertlab.config.composition import compose_schema
from bertlab.data.material import prepare
from bertlab.errors import ConfigError
from bertlab.training import assembly
from tiny import tiny

RUN = tiny("model.num_hidden_layers=3", "budget.steps=6")


def changed(*overrides: str) -> set[str]:
    """Which parts of the encoder moved in a short run."""
    first = bertlab.run([*RUN, "budget.steps=1"])
    run = bertlab.run(
        [*RUN, "init=checkpoint", f"init.path={first.folder}", "tokenizer=inherited", *overrides]
    )
    before = first.model.state_dict()
    moved = {name for name, weight in run.model.state_dict().items() if not torch.equal(weight, before[name])}
    return {
        ".".join(name.split(".")[1:3]) if ".layers." in name else name.split(".")[1]
        for name in moved
        if name.startswith("encoder.")
    }


ALL = {"token", "segment", "embedding_norm", "layers.0", "layers.1", "layers.2", "pooler"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ALL),
        (["finetune.freeze_encoder=true"], set()),
        (["finetune.freeze_embeddings=true"], {"layers.0", "layers.1", "layers.2", "pooler"}),
        (["finetune.freeze_layers=2"], {"layers.2", "pooler"}),
    ],
)
def test_frozen_parts_stay_as_they_are(overrides: list[str], expected: set[str]) -> None:
    assert changed(*overrides) == expected


def model_of(*overrides: str) -> tuple[Any, Any]:
    config: Any = compose_schema("train", [*RUN, *overrides])
    material = prepare(config)
    return config, assembly.build_initialized(config, material.tokenizer, material.objective)


def test_each_level_has_its_share_of_the_learning_rate() -> None:
    config, model = model_of("finetune.layer_lr_decay=0.5", "optimizer.lr=0.08")
    optimizer = assembly.build_optimizer(config, model)
    rate = {id(weight): group["peak_lr"] for group in optimizer.param_groups for weight in group["params"]}
    assert len(rate) == len(list(model.parameters()))
    found = {name: rate[id(weight)] for name, weight in model.named_parameters()}
    for name, value in found.items():
        levels = {
            "encoder.layers.2": 0.04,
            "encoder.layers.1": 0.02,
            "encoder.layers.0": 0.01,
            "head": 0.08,
            "encoder.pooler": 0.08,
        }
        expected = next((share for start, share in levels.items() if name.startswith(start)), 0.005)
        assert value == pytest.approx(expected), name


def test_top_layers_can_be_drawn_anew() -> None:
    _, plain = model_of()
    config, _ = model_of()
    torch.manual_seed(5)
    redrawn = {name: weight.clone() for name, weight in plain.state_dict().items()}
    plain.encoder.redraw(1)
    moved = {name for name, weight in plain.state_dict().items() if not torch.equal(weight, redrawn[name])}
    assert moved and all(name.startswith(("encoder.layers.2", "encoder.pooler")) for name in moved)
    assert plain.encoder.layers[2].attention.query.weight.std().item() == pytest.approx(
        config.model.initializer_range, rel=0.1
    )


@pytest.mark.parametrize("override", ["finetune.freeze_layers=4", "finetune.reinit_layers=4"])
def test_more_layers_than_there_are_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="3 layers"):
        model_of(override)


def test_a_frozen_random_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="reinit_layers"):
        compose_schema("train", ["finetune.freeze_encoder=true", "finetune.reinit_layers=1"])


def test_a_plan_names_all_that_weights_of_another_model_need(cli: Any) -> None:
    """Before anything is loaded, in one line, with the words that make it right; and these words do."""
    first = bertlab.run([*RUN, "budget.steps=1"])
    start = ["init=checkpoint", f"init.path={first.folder}", "tokenizer=inherited"]
    other = ["model.num_hidden_layers=2", "model.hidden_size=24"]
    for job in ([], ["plan"]):
        status, _, err = cli(*job, *RUN, *start, *other)
        assert status == 2 and len(err.splitlines()) == 1
        words = err.strip().rpartition("; add ")[2].split()
        assert set(words) == {"model.hidden_size=32", "model.num_hidden_layers=3"}
    status, _, err = cli("plan", *RUN, *start, *other, *words)
    assert status == 0, err


def test_a_plan_tells_a_missing_pooler(cli: Any) -> None:
    first = bertlab.run([*RUN, "budget.steps=1", "model.pooling=max"])
    start = ["init=checkpoint", f"init.path={first.folder}", "tokenizer=inherited"]
    for job in ([], ["plan"]):
        status, _, err = cli(*job, *RUN, *start)
        assert status == 2 and "add model.pooling=max" in err and len(err.splitlines()) == 1
    status, _, err = cli("plan", *RUN, *start, "model.pooling=max")
    assert status == 0, err
