"""A number for each text, or pair of texts: mean squared error in the file's own unit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bertlab import contracts
from bertlab.config.schema import ObjectiveConfig


@dataclass
class Regression(ObjectiveConfig):
    """Predict `dataset.number_column`."""

    roles: ClassVar = (contracts.TEXT, contracts.Role("number", "number", is_answer=True))
    prepared_by: ClassVar = ("max_length",)
    loss_unit: ClassVar = "squared error"

    def metrics(self, _label_names: Sequence[str]) -> tuple[contracts.Metric, ...]:
        return (
            contracts.Metric("rmse", False, "points", (0.0, None)),
            contracts.Metric("pearson", True, "", (-1.0, 1.0)),
            contracts.loss_metric(self.loss_unit),
        )

    def build(self, vocabulary: Any, label_names: Sequence[str]) -> contracts.Objective:
        return RegressionObjective(self, vocabulary, label_names)


class RegressionHead(contracts.Head):
    reads_pooled_only = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, 1)

    def forward(self, encoder: contracts.Encoder, hidden: Tensor, batch: contracts.Batch) -> Tensor:
        return self.linear(encoder.pool(hidden, batch.attention_mask))[:, 0]


class RegressionObjective(contracts.Objective):
    def __init__(self, config: Regression, vocabulary: Any, label_names: Sequence[str]) -> None:
        super().__init__(config, vocabulary, label_names)
        self.config = config

    def prepare(self, split: Any, encode: contracts.Encode) -> Iterator[contracts.Examples]:
        room, special = self.config.max_length - 2, self.special
        ids = [[special.cls_id, *tokens[:room], special.sep_id] for tokens in encode(split["text"][:])]
        numbers = split["number"][:] if "number" in split.column_names else [0.0] * len(ids)
        yield contracts.examples_of(ids, {"number": np.asarray(numbers, dtype=np.float64)})

    def collate(
        self, examples: contracts.Examples, rows: np.ndarray, draw: contracts.Draw | None
    ) -> contracts.Batch:
        ids, inside = contracts.pad_rows([examples[row] for row in rows], self.special.pad_id)
        tokens = torch.from_numpy(ids)
        targets = {"number": torch.from_numpy(examples.columns["number"][rows])}
        return contracts.Batch(
            tokens, torch.zeros_like(tokens), torch.from_numpy(inside), targets, int(inside.sum()), len(rows)
        )

    def build_head(self, encoder: contracts.Encoder, initializer_range: float) -> contracts.Head:
        return RegressionHead(encoder.hidden_size)

    def loss(self, outputs: Tensor, batch: contracts.Batch) -> contracts.Loss:
        return contracts.Loss(
            ((outputs.float() - batch.targets["number"].float()) ** 2).sum(), batch.num_examples
        )

    def measure(self, outputs: Tensor, batch: contracts.Batch) -> dict[str, np.ndarray]:
        return {"said": outputs.double().cpu().numpy(), "number": batch.targets["number"].cpu().numpy()}

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        error, spread = (
            measured["said"] - measured["number"],
            measured["said"].std() * measured["number"].std(),
        )
        covariance = np.mean(
            (measured["said"] - measured["said"].mean()) * (measured["number"] - measured["number"].mean())
        )
        mean = float(np.mean(error**2))
        return {"rmse": mean**0.5, "pearson": float(covariance / spread) if spread > 0 else 0.0, "loss": mean}

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        return [{"number": float(value)} for value in measured["said"]]
