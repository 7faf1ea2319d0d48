"""What the Trainer is measured on is declared once: which objectives, and whether batches are grouped by
length.
"""

from typing import Any

import pytest
import torch

from bertlab.config.composition import compose_schema
from bertlab.errors import ConfigError
from bertlab.jobs.benchmark import contestants_of, page_of
from bertlab.report.pages.page import to_plain
from bertlab.runs.machine import Device
from bertlab.training.costs.measurement import (
    AS_USED,
    OURS,
    SAME_SETTINGS,
    Measured,
    check_benchmark,
    groups_by_length,
)

DEVICE = Device(torch.device("cpu"), "float32", 1)
MLM = ("objective=mlm", "tokenizer=wordpiece")


@pytest.mark.parametrize(
    ("words", "grouped"),
    [((), True), (("budget.group_by_length=false",), False), (MLM, False)],
    ids=["classification", "in random order", "full blocks"],
)
def test_contestants_and_table_tell_what_is_measured(words: tuple[str, ...], grouped: bool) -> None:
    config: Any = compose_schema("benchmark", ["model=bert_tiny", *words])
    assert groups_by_length(config) == grouped
    contestants = contestants_of(config, DEVICE)
    assert contestants == [OURS, AS_USED, *[SAME_SETTINGS] * grouped]
    measured = {name: [Measured(100, 1.0)] for name in contestants}
    told = to_plain(page_of(config, DEVICE, measured, (), 1.0, 1.0))
    assert told.count("grouped by length") == 2 * grouped


@pytest.mark.parametrize("objective", ["tagging", "mlm_nsp"])
def test_an_objective_without_counterpart_is_refused_by_name(objective: str) -> None:
    config: Any = compose_schema("benchmark", ["model=bert_tiny"])
    config.objective = compose_schema("train", [f"objective={objective}", "dataset=imdb_text"]).objective
    with pytest.raises(
        ConfigError, match=f"objective={objective}: the Trainer is measured on classification and mlm$"
    ):
        check_benchmark(config)
