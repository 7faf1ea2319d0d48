"""An outline says of an option's dataclass what the dataclass itself says, and becomes it again."""

import dataclasses
import enum
import json
from collections.abc import Iterator
from typing import Any

import pytest
from omegaconf import OmegaConf

from bertlab.config import outlines, registry
from bertlab.config.composition import compose_schema
from bertlab.config.schema import Component, string

OPTIONS = [
    (group, option)
    for group in (*registry.FOLDERS, *registry.TABLE)
    if group != "kind"
    for option in registry.options(group)
]


@pytest.fixture(scope="module")
def book() -> outlines.Book:
    """As it is kept: JSON."""
    kept: outlines.Book = json.loads(json.dumps(outlines.all_outlines(of_plugins=False)))
    return kept


@pytest.fixture(autouse=True)
def known(book: outlines.Book) -> Iterator[None]:
    outlines.know(book)
    yield
    outlines.know({})


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_outline_has_the_same_keys_types_defaults_and_limits(
    book: outlines.Book, group: str, option: str
) -> None:
    assert option in book[group]
    itself, outline = registry.load_schema(group, option), outlines.to_ask(group, option)
    assert type(outline).__doc__ is not None
    for real, drawn in zip(dataclasses.fields(itself), dataclasses.fields(outline), strict=True):
        assert (drawn.name, str(drawn.type)) == (real.name, str(real.type))
        assert json.dumps(dict(drawn.metadata)) == json.dumps(dict(real.metadata))
        assert repr(getattr(outline, real.name)) == repr(getattr(itself, real.name))
    assert outlines.with_code(outline) == itself


def test_what_an_objective_declares_is_in_its_outline() -> None:
    itself, outline = registry.load_schema("objective", "tagging"), outlines.to_ask("objective", "tagging")
    assert outline.roles == itself.roles and tuple(outline.metrics(())) == tuple(itself.metrics(()))
    assert type(outline) is not type(itself)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["init=stage", "init.budget.tokens=5", "init.model={hidden_dropout:0.1}", "init.objective=mlm"],
        ["dataset=mixture", "dataset.parts={synthetic: 2, classic_books: 1}", "tags=[x]"],
    ],
)
def test_a_config_of_outlines_becomes_the_config_itself(words: list[str]) -> None:
    with outlines.outlined():
        outline = compose_schema("train", words)
    assert outlines.with_code(outline) == compose_schema("train", words)
    assert type(outline.model) is not type(outlines.with_code(outline).model)


@pytest.mark.parametrize("job", ["inspect", "benchmark"])
def test_a_job_with_a_group_of_keys_of_its_own_is_composed(job: str) -> None:
    with outlines.outlined():
        outline = compose_schema(job, [f"{job}.out=here"])
    assert outlines.with_code(outline) == compose_schema(job, [f"{job}.out=here"])


def test_a_check_over_several_keys_is_left_to_the_dataclass_itself() -> None:
    """It may go by what is no key."""
    with outlines.outlined():
        compose_schema("train", ["objective.stride=3"])


class Colour(enum.Enum):
    """A type that JSON lacks."""

    RED = 1


@dataclasses.dataclass
class Coloured(Component):
    """An option with it."""

    colour: Colour = Colour.RED


@dataclasses.dataclass
class Tuple(Component):
    """An option of plain keys, one with a default that is made anew each time."""

    parts: dict[str, list[int]] = dataclasses.field(default_factory=lambda: {"a": [1]})
    text: str | None = string(None, "text")


def test_what_json_cannot_say_has_no_outline() -> None:
    with pytest.raises(outlines.NoOutlineError):
        outlines.to_data(Coloured)


def test_a_default_belongs_to_one_instance_alone() -> None:
    kind: Any = outlines.from_data(json.loads(json.dumps(outlines.to_data(Tuple))))
    kind().parts["a"].append(2)
    assert kind().parts == {"a": [1]} and OmegaConf.structured(kind).text is None
