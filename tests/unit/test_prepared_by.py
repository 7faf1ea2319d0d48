"""What tokenised examples are filed under: the options that `prepare` reads, no fewer and no others."""

from pathlib import Path
from typing import Any

import pytest

from bertlab.config.composition import compose_schema
from bertlab.data.material import prepare
from tiny import rows

WORDS = [
    f'{{"tokens": ["Ann", "went", "to", "town {i}"], "tags": ["B-PER", "O", "O", "B-LOC"]}}'
    for i in range(40)
]
OBJECTIVES: dict[str, list[str]] = {
    "classification": [],
    "mlm": [],
    "rtd": [],
    "nsp": ["dataset.task=documents"],
    "sop": ["dataset.task=documents"],
    "mlm_nsp": ["dataset.task=documents"],
    "tagging": ["dataset=files", "dataset.train_file=words.jsonl", "dataset.tokens_column=tokens",
                "dataset.tags_column=tags", "dataset.label_column=null"],
}  # fmt: skip


class Watched:
    """A config that writes down what is read of it."""

    def __init__(self, config: Any) -> None:
        self.config, self.read = config, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.config, name)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_prepare_reads_what_the_examples_are_filed_under(name: str) -> None:
    Path("words.jsonl").write_text("\n".join(WORDS))
    words = [f"objective={name}", *OBJECTIVES[name]]
    # there is no synthetic data with tags
    config = compose_schema("train", words if name == "tagging" else [*rows(80, 20, 20), *words])
    material = prepare(config)
    watched: Any = Watched(config.objective)
    objective = type(config.objective).build(
        watched, material.tokenizer.vocabulary(), material.objective.label_names
    )
    watched.read.clear()
    list(objective.prepare(material.dataset.splits["train"], material.tokenizer.encode))
    assert watched.read == set(config.objective.prepared_by)
