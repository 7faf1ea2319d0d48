"""What tokenised examples are filed under: the options that `prepare` reads, no fewer and no others."""

from typing import Any

import pytest

from bertlab import registry
from bertlab.assembly import prepare
from bertlab.composition import compose_schema
from bertlab.identity import inputs_fingerprint

SMALL = ["dataset.train_size=80", "dataset.validation_size=20", "dataset.test_size=20"]
OBJECTIVES: dict[str, list[str]] = {  # tagging has no synthetic data
    "classification": [],
    "mlm": [],
    "rtd": [],
    "nsp": ["dataset.task=documents"],
    "sop": ["dataset.task=documents"],
    "mlm_nsp": ["dataset.task=documents"],
}


class Watched:
    """A config that writes down what is read of it."""

    def __init__(self, config: Any) -> None:
        self.config, self.read = config, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.config, name)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_prepare_reads_what_the_examples_are_filed_under(name: str) -> None:
    config = compose_schema("train", [*SMALL, f"objective={name}", *OBJECTIVES[name]])
    material = prepare(config, inputs_fingerprint(config))
    watched: Any = Watched(config.objective)
    module = registry.module_of(config.objective)
    objective = module.build(watched, material.tokenizer.vocabulary(), material.objective.label_names)
    watched.read.clear()
    list(objective.prepare(material.dataset.splits["train"], material.tokenizer.encode))
    assert watched.read == set(module.PREPARED_BY)
