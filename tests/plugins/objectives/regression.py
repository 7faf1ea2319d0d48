"""A number for each text, or pair of texts: mean squared error of targets standardised by the training split."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bertlab.config.schema import ObjectiveConfig
from bertlab.contracts import TEXT, Batch, Draw, Encode, Encoder, Examples, Head, Loss, Metric, Objective, Role, examples_of, loss_metric
from bertlab.contracts import pad_rows


@dataclass
class Regression(ObjectiveConfig):
    """Predict `dataset.number_column`."""

    roles: ClassVar = (TEXT, Role("number", "number", is_answer=True))
    prepared_by: ClassVar = ("max_length",)
    loss_unit: ClassVar = "squared error"

    def metrics(self, _label_names: Sequence[str]) -> tuple[Metric, ...]:
        return (Metric("rmse", False, "points", (0.0, None)), Metric("pearson", True, "", (-1.0, 1.0)), loss_metric(self.loss_unit))

    def build(self, vocabulary: Any, label_names: Sequence[str]) -> Objective:
        return RegressionObjective(self, vocabulary, label_names)


class RegressionHead(Head):
    reads_pooled_only = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(width, 1)

    def forward(self, encoder: Encoder, hidden: Tensor, batch: Batch) -> Tensor:
        return self.linear(encoder.pool(hidden, batch.attention_mask))[:, 0]


class RegressionObjective(Objective):
    def __init__(self, config: Regression, vocabulary: Any, label_names: Sequence[str]) -> None:
        super().__init__(config, vocabulary, label_names)
        self.config = config

    def prepare(self, split: Any, encode: Encode) -> Iterator[Examples]:
        room, special = self.config.max_length - 2, self.special
        ids = [[special.cls_id, *tokens[:room], special.sep_id] for tokens in encode(split["text"][:])]
        numbers = split["number"][:] if "number" in split.column_names else [0.0] * len(ids)
        yield examples_of(ids, {"number": np.asarray(numbers, dtype=np.float64)})

    def collate(self, examples: Examples, rows: np.ndarray, draw: Draw | None) -> Batch:
        ids, inside = pad_rows([examples[row] for row in rows], self.special.pad_id)
        tokens = torch.from_numpy(ids)
        targets = {"number": torch.from_numpy(examples.columns["number"][rows])}
        return Batch(tokens, torch.zeros_like(tokens), torch.from_numpy(inside), targets, int(inside.sum()), len(rows))

    def build_head(self, encoder: Encoder, initializer_range: float) -> Head:
        return RegressionHead(encoder.hidden_size)

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        return Loss(((outputs.float() - batch.targets["number"].float()) ** 2).sum(), batch.num_examples)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, np.ndarray]:
        return {"said": outputs.double().cpu().numpy(), "number": batch.targets["number"].cpu().numpy()}

    def scores(self, measured: dict[str, np.ndarray], rows: Any = None) -> dict[str, Any]:
        error, spread = measured["said"] - measured["number"], measured["said"].std() * measured["number"].std()
        covariance = np.mean((measured["said"] - measured["said"].mean()) * (measured["number"] - measured["number"].mean()))
        mean = float(np.mean(error**2))
        return {"rmse": mean**0.5, "pearson": float(covariance / spread) if spread > 0 else 0.0, "loss": mean}

    def predictions(self, measured: dict[str, np.ndarray], rows: Any = None) -> list[dict[str, Any]]:
        return [{"number": float(value)} for value in measured["said"]]
