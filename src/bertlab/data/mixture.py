"""Several datasets as one: a mixture by weights, which may change after so many tokens.

Every part is a dataset of its own, read, cleaned and held out as it would be alone. `weights` say how often
an example of a part is drawn beside those of the others, whatever the parts' sizes: a small part with a large
weight is seen several times while a large one is seen in part. How examples are drawn stands in batches.py.

A tokenizer is trained on every row of every part once, whatever the weights.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bertlab.config.schema import (
    DatasetConfig,
    Node,
    Paths,
    Train,
    components,
    integer,
    mapping,
    validate,
    words,
)
from bertlab.contracts import Examples
from bertlab.data.batches import order_of
from bertlab.data.dataset import SPLITS, LoadedDataset, Origin, load_dataset
from bertlab.declarations import Mixing, Role
from bertlab.errors import ConfigError, DataError, did_you_mean
from bertlab.runs.files import digest

OF_THE_PARTS = (
    "fraction",
    "validation_fraction",
    "test_fraction",
    "split_seed",
    "folds",
    "fold",
)  # keys without a meaning for the whole


@dataclass
class Phase(Node):
    """Other weights from some moment on."""

    from_tokens: int = integer(1, "real tokens seen before", low=1)
    weights: dict[str, float] = mapping(
        "part -> how often it is drawn; parts that are not named are not drawn"
    )


@dataclass
class Mixture(DatasetConfig):
    """Datasets that are trained on together; a mixture of your own is one YAML file, or
    `dataset.parts={PRESET: WEIGHT, …}`.
    """

    parts: dict[str, DatasetConfig] = components("dataset", "name -> a dataset")
    weights: dict[str, float] = mapping(
        "part -> how often its examples are drawn beside those of others; 1 where none is named"
    )
    phases: list[Phase] = field(
        default_factory=list,
        metadata={
            "help": "other weights later: from_tokens and weights of each phase, in order; none = as they are"
        },
    )
    scored: list[str] = words("parts whose validation and test splits are scored; none named = all")

    def check(self, path: str) -> None:
        """There are parts, and weights are of them."""
        super().check(path)
        for one in dataclasses.fields(DatasetConfig):
            if one.name in OF_THE_PARTS and getattr(self, one.name) != one.default:
                raise ConfigError(
                    f"{path}.{one.name} is of single datasets: set it for a part,"
                    f" {path}.parts.NAME.{one.name}"
                )
        if len(self.parts) < 2:
            raise ConfigError(
                f"{path}.parts: a mixture has two parts or more, e.g. '{path}.parts={{classic_books: 2,"
                " imdb_text: 1}'"
            )
        for name, part in self.parts.items():
            validate(part, f"{path}.parts.{name}")
            if isinstance(part, Mixture):
                raise ConfigError(f"{path}.parts.{name}: a mixture within a mixture; name its parts instead")
        for index, phase in enumerate(self.phases):
            validate(phase, f"{path}.phases[{index}]")
        starts = [0, *(phase.from_tokens for phase in self.phases)]
        if sorted(set(starts)) != starts:
            raise ConfigError(
                f"{path}.phases: each from_tokens must be more than that before it, not"
                f" {', '.join(map(str, starts[1:]))}"
            )
        names = [
            ("weights", self.weights),
            *((f"phases[{index}].weights", one.weights) for index, one in enumerate(self.phases)),
        ]
        for key, weights in names:
            for name, weight in weights.items():
                if name not in self.parts:
                    raise ConfigError(
                        f"{path}.{key}: there is no part '{name}', {did_you_mean(name, self.parts)}"
                    )
                if not 0 <= weight < float("inf"):
                    raise ConfigError(f"{path}.{key}.{name}={weight}: must be 0 or more")
        if unknown := next((name for name in self.scored if name not in self.parts), None):
            raise ConfigError(
                f"{path}.scored: there is no part '{unknown}', {did_you_mean(unknown, self.parts)}"
            )
        every = [self.first_weights(), *(phase.weights for phase in self.phases)]
        if empty := next((index for index, weights in enumerate(every) if sum(weights.values()) <= 0), None):
            raise ConfigError(f"{path}.phases[{empty - 1}].weights: nothing is drawn; give a part a weight")
        if sum(self.first_weights().values()) <= 0:
            raise ConfigError(f"{path}.weights: nothing is drawn; give a part a weight")
        if idle := next(
            (name for name in self.parts if all(weights.get(name, 0) == 0 for weights in every)), None
        ):
            raise ConfigError(f"{path}.weights.{idle}=0: it is never drawn; leave it out")

    def first_weights(self) -> dict[str, float]:
        """Of every part, before any phase."""
        return {name: self.weights.get(name, 1.0) for name in self.parts}

    # --- what it declares; see DatasetConfig ---
    def mixing(self) -> Mixing:
        """Weights as shares."""
        every = [self.first_weights(), *(phase.weights for phase in self.phases)]
        shares = [
            [weights.get(name, 0.0) / sum(weights.values()) for name in self.parts] for weights in every
        ]
        return Mixing(
            tuple(self.parts), (0, *(phase.from_tokens for phase in self.phases)), tuple(map(tuple, shares))
        )

    def deciding(self) -> dict[str, Any]:
        """What is read, and what is drawn of it."""
        return {
            **self.reading(),
            "weights": self.first_weights(),
            "phases": [dataclasses.asdict(phase) for phase in self.phases],
        }

    def reading(self) -> dict[str, Any]:
        """Everything but weights and phases."""
        own = {
            "name": self.name,
            "parts": {name: part.deciding() for name, part in self.parts.items()},
            "scored": self.scored,
        }
        task = {"metric": self.metric, "positive_class": self.positive_class}
        return {**own, **{name: value for name, value in task.items() if value is not None}}

    def offers(self) -> tuple[str, ...]:
        """What all parts have."""
        first, *others = (part.offers() for part in self.parts.values())
        return tuple(role for role in first if all(role in offered for offered in others))

    def has_documents(self) -> bool:
        """Whether all of them have."""
        return all(part.has_documents() for part in self.parts.values())

    def cleaner(self) -> str:
        """That of all parts, where it is one."""
        cleaners = {part.cleaner() for part in self.parts.values()}
        return cleaners.pop() if len(cleaners) == 1 else "none"

    def fingerprint(self, paths: Paths) -> str:
        """Of all parts."""
        return digest({name: part.fingerprint(paths) for name, part in self.parts.items()})[:16]

    def read(self, paths: Paths, roles: Sequence[Role]) -> LoadedDataset:
        """The parts' splits, one part after the other."""
        from datasets import concatenate_datasets

        loaded = {name: load_dataset(part, paths, roles) for name, part in self.parts.items()}
        classes = {name: one.label_names for name, one in loaded.items()}
        first, names = next(iter(classes.items()))
        if other := next((name for name, own in classes.items() if own != names), None):
            raise DataError(
                f"{self.name}: part {first} has the classes {', '.join(names)[:80]}, part {other} has"
                f" {', '.join(classes[other])[:80]}; give both the same with dataset.parts.NAME.label_map"
            )
        splits: dict[str, Any] = {}
        rows: dict[str, list[int]] = {}
        origins: dict[str, Origin] = {}
        for split in SPLITS:
            read = [name for name in self.parts if split == "train" or name in (self.scored or self.parts)]
            taken = {name: loaded[name] for name in read if split in loaded[name].splits}
            if taken:
                splits[split] = concatenate_datasets([one.splits[split] for one in taken.values()])
                rows[split] = [len(taken[name].splits[split]) if name in taken else 0 for name in loaded]
                origins[split] = Origin.joined(
                    [one.origins[split].of_part(name) for name, one in taken.items()]
                )
        notes = [f"{name}: {note}" for name, one in loaded.items() for note in one.notes]
        left_out = {
            f"{source} ({name})": found
            for name, one in loaded.items()
            for source, found in one.left_out.items()
        }
        return LoadedDataset(splits, list(names), notes=notes, parts=rows, origins=origins, left_out=left_out)


# --- what was drawn -------------------------------------------------------------------------------
def drawn_of_parts(config: Train, train: Examples, steps: int) -> dict[str, dict[str, float]]:
    """Of each part of a run's mixture: examples and tokens in so many steps, their share of all, and how
    often it was gone through.
    """
    mixing = config.dataset.mixing()
    if mixing is None:
        return {}
    order, part = order_of(config, train), np.asarray(train.columns["part"])
    rows = order.rows_before(steps)
    examples = np.bincount(part[rows], minlength=len(mixing.names))
    tokens = np.bincount(part[rows], order.lengths[rows], minlength=len(mixing.names))
    sizes = np.bincount(part, minlength=len(mixing.names))
    return {
        name: {
            "examples": int(examples[index]),
            "tokens": int(tokens[index]),
            "share": round(float(tokens[index] / max(1.0, tokens.sum())), 4),
            "passes": round(float(examples[index] / max(1, sizes[index])), 4),
        }
        for index, name in enumerate(mixing.names)
    }


def describe_parts(config: Train, train: Examples) -> list[str]:
    """What a mixture will be made of, a line a part; nothing for other datasets."""
    mixing = config.dataset.mixing()
    if mixing is None:
        return []
    order = order_of(config, train)
    steps = order.total_steps(config.budget)  # None where the budget is time alone
    found = {} if steps is None else drawn_of_parts(config, train, steps)
    part = np.asarray(train.columns["part"])
    lines = []
    for index, name in enumerate(mixing.names):
        held = (
            f"{int((part == index).sum()):,} examples of {int(order.lengths[part == index].sum()):,} tokens"
        )
        shares = ", then ".join(
            f"{share[index]:.1%}" + (f" from {start:,} tokens on" if start else "")
            for start, share in zip(mixing.starts, mixing.shares, strict=True)
        )
        told = (
            ""
            if not found
            else f"; in all {found[name]['tokens']:,} tokens, {found[name]['passes']:.2f} passes"
        )
        lines.append(f"part {name}: {held}, drawn {shares}{told}")
    return lines
