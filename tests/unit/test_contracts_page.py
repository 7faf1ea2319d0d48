"""docs/reference/contracts.md tells of every method that a plugin must or may have, and of every field."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from bertlab import contracts, promises
from bertlab.config import schema

PAGE = (Path(__file__).parents[2] / "docs/reference/contracts.md").read_text(encoding="utf-8")
CONTRACTS = [schema.ObjectiveConfig, contracts.Objective, contracts.Head, schema.ModelConfig,
    contracts.Encoder, schema.OptimizerConfig, schema.TrackerConfig, contracts.Tracker,
    contracts.Kind]  # fmt: skip
RECORDS = [contracts.Metric, contracts.Role, contracts.Examples, contracts.Batch, contracts.Loss,
    contracts.Draw, contracts.ParameterGroup, contracts.RunInfo]  # fmt: skip


def section(name: str) -> dict[str, str]:
    """First cell of each row of a section's tables -> the row."""
    text = re.split(rf"^#+ `{name}`.*$", PAGE, flags=re.MULTILINE)[1]
    rows = re.findall(r"^\| `(.+?)`.*$", re.split(r"^#", text, flags=re.MULTILINE)[0], re.MULTILINE)
    lines = re.findall(r"^\| `.*$", text, flags=re.MULTILINE)
    return dict(zip(rows, lines, strict=False))


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda kind: kind.__name__)
def test_every_method_of_a_contract_stands_in_its_table(contract: type) -> None:
    """With its arguments, and whether it must be there."""
    rows = section(contract.__name__)
    own = [
        method
        for name, method in vars(contract).items()
        if inspect.isfunction(method) and not name.startswith("_")
    ]
    assert own
    for method in own:
        row = rows[promises.called(method)]
        assert ("| must |" in row) == promises.is_required(method), row
    written = {name for name in rows if name.endswith(")")}
    assert written == {promises.called(method) for method in own}, "and no others"


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda kind: kind.__name__)
def test_what_a_contract_declares_stands_there_too(contract: type) -> None:
    fields = (
        {item.name for item in dataclasses.fields(contract)} if dataclasses.is_dataclass(contract) else ()
    )
    for name in (*inspect.get_annotations(contract), *vars(contract)):
        if not name.startswith("_") and name not in fields and name not in dir(contracts.nn.Module):
            value = vars(contract).get(name)
            assert inspect.isfunction(value) or name in section(contract.__name__), name


@pytest.mark.parametrize("record", RECORDS, ids=lambda kind: kind.__name__)
def test_every_field_stands_in_its_table(record: type) -> None:
    assert list(section(record.__name__)) == [item.name for item in dataclasses.fields(record)]
