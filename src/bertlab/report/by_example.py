"""What single examples say: per class, calibration, hardest errors, paired tests over examples, and what was
seen in training.

Reads the datasets that the runs were made on; where they are not at hand, that is said and the rest of the
report stands.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bertlab.config import registry
from bertlab.config.schema import Train
from bertlab.data.dataset import load_for, roles_for, text_roles
from bertlab.declarations import Metric, Role
from bertlab.errors import UserError
from bertlab.report import contamination, resampling, stats
from bertlab.report.arms import Arm, Seeds, Study, partners, seeds_of, weights_from_elsewhere
from bertlab.report.contamination import Contamination, check_contamination
from bertlab.runs.cache import remembered
from bertlab.runs.files import digest, file_digest
from bertlab.runs.identity import code_version, folder_version
from bertlab.runs.records import RunRecord

ACCURACY = Metric("accuracy", higher_is_better=True)
HARDEST = 20  # texts that are told
TOLERANCE = 1e-4  # between a score on record and that of kept predictions, which are in float32


def tells_classes(study: Study) -> bool:
    """Whether one class of one role is predicted for each row, as the runs' own records say."""
    roles = {run.classes for arm in study.arms for run in arm.in_order()}
    return len(roles) == 1 and None not in roles


@dataclass
class Evaluated:
    """A study's validation split: its texts and answers, and each run's probabilities."""

    texts: list[str]
    labels: np.ndarray  # (N,) class ids
    names: list[str]
    probabilities: dict[str, dict[Seeds, np.ndarray]]  # arm -> seeds -> (N, C)

    def right(self, arm: str) -> dict[Seeds, np.ndarray]:
        """Seed -> (N,) bool: whether the most probable class is the right one."""
        return {
            seed: probabilities.argmax(1) == self.labels
            for seed, probabilities in self.probabilities[arm].items()
        }


@dataclass(frozen=True)
class ExampleTest:
    """An arm beside the baseline, example by example."""

    low: float  # bootstrap interval over examples of the difference of accuracies, averaged over seeds
    high: float
    both: tuple[float, float]  # for other seeds and other examples
    mcnemar: tuple[float, float]  # smallest and largest p over the seeds in common


def load_evaluated(study: Study, mirror: str | None) -> Evaluated:
    """Validation texts, labels and predictions of a study that tells classes. Raises UserError where data or
    predictions are not at hand.
    """
    if study.folds:
        raise UserError("each fold has examples of its own")
    run = next(iter(study.baseline.runs.values()))
    config = _config(run, mirror)
    dataset = _dataset_of(config, run)
    if "validation" not in dataset.splits:
        raise UserError("there is no validation split")
    rows = dataset.splits["validation"]
    names = [str(name) for name in dataset.label_names]
    probabilities: dict[str, dict[Seeds, np.ndarray]] = {}
    for arm in study.arms:
        probabilities[arm.name] = {}
        for seed, one in sorted(arm.runs.items()):
            predicted = one.source.predictions("validation")
            if (
                predicted is not None
                and len(predicted) == len(rows)
                and all("probabilities" in row for row in predicted)
            ):
                probabilities[arm.name][seed] = np.array(
                    [[row["probabilities"].get(name, 0.0) for name in names] for row in predicted]
                )
    if not any(probabilities.values()):
        raise UserError("no run has kept its predictions")
    labels = np.asarray(rows[run.classes][:])
    texts = list(_rows_of(rows, roles_for(config.dataset, config.objective), " | "))
    return Evaluated(texts, labels, names, probabilities)


@dataclass(frozen=True)
class WithExamples:
    """Intervals over seeds and examples."""

    score: tuple[float, float]  # at 95 %
    # at the level of the difference's interval over seeds
    difference: tuple[float, float] | None  # to the baseline; None for itself, and where no runs are compared


def with_examples(
    study: Study, split: str, levels: Mapping[str, float], mirror: str | None
) -> dict[str, WithExamples]:
    """Arm -> its intervals for seeds and examples of a split together, from kept predictions and the data.
    Raises UserError saying what is lacking.

    `levels`: arm -> the level of its difference's interval over seeds, which this one stands beside; 0.95
    where there is none.
    """
    if study.folds:
        raise UserError("each fold has examples of its own")
    run = study.baseline.in_order()[0]
    config = _config(run, mirror)
    dataset = _dataset_of(config, run)
    rows = dataset.splits[split]
    scores = {arm.name: _rescored(study, arm, split, rows, dataset.label_names, mirror) for arm in study.arms}
    base = scores[study.baseline.name]
    by_arm = {}
    for arm in study.arms:
        own = scores[arm.name]
        pairs = [] if arm is study.baseline else partners(own, base)
        gaps = [partial(_gap, own[mine], base[theirs]) for mine, theirs in pairs]
        difference = (
            resampling.interval_over_examples(
                gaps, [mine.outer for mine, _ in pairs], len(rows), levels.get(arm.name, 0.95)
            )
            if gaps
            else None
        )
        by_arm[arm.name] = WithExamples(
            resampling.interval_over_examples(list(own.values()), [seeds.outer for seeds in own], len(rows)),
            difference,
        )
    return by_arm


def _gap(
    own: Callable[[np.ndarray], float], base: Callable[[np.ndarray], float], numbers: np.ndarray
) -> float:
    return own(numbers) - base(numbers)


def _rescored(
    study: Study, arm: Arm, split: str, rows: Any, names: Sequence[str], mirror: str | None
) -> dict[Seeds, Callable[[np.ndarray], float]]:
    """Seeds -> how the study's score comes of rows. What is computed of all rows must be the
    score on record.
    """
    by_seeds = {}
    for seeds, run in sorted(arm.runs.items()):
        predicted = run.source.predictions(split)
        if predicted is None or len(predicted) != len(rows):
            raise UserError(f"{run.name} has not kept its predictions of {split}")
        config = _config(run, mirror)
        score = config.objective.for_task(config.dataset).score_of(study.metric.name, rows, predicted, names)
        recorded = run.score(split, study.metric.name)
        if score is None or recorded is None:
            raise UserError(
                f"objective={run.config['objective.component']} does not say how {study.metric.name} comes of"
                " single rows: its config has no score_of(metric, rows, predictions, label_names) for it"
            )
        if abs(score(np.arange(len(rows))) - recorded) > TOLERANCE:
            raise UserError(f"{run.name}: its predictions do not give the score on record")
        by_seeds[seeds] = score
    return by_seeds


def compare_examples(evaluated: Evaluated, arm: str, baseline: str, level: float) -> ExampleTest | None:
    """Its intervals at this level; None where they share no seed with predictions."""
    own, base = evaluated.right(arm), evaluated.right(baseline)
    pairs = partners(own, base)
    if not pairs:
        return None
    by_seed = np.array([own[mine].astype(float) - base[theirs] for mine, theirs in pairs])
    low, high = stats.bootstrap_interval(by_seed.mean(0), level)
    p_values = [stats.mcnemar_p(own[mine], base[theirs]) for mine, theirs in pairs]
    gaps = [partial(_mean_of, gap) for gap in by_seed]
    both = resampling.interval_over_examples(gaps, [mine.outer for mine, _ in pairs], by_seed.shape[1], level)
    return ExampleTest(low, high, both, (min(p_values), max(p_values)))


def _mean_of(values: np.ndarray, rows: np.ndarray) -> float:
    return float(values[rows].mean())


def calibrations(evaluated: Evaluated) -> dict[str, stats.Calibration]:
    """Arm -> calibration over all its seeds together."""
    by_arm = {}
    for arm, by_seed in evaluated.probabilities.items():
        if by_seed:
            confidence = np.concatenate([one.max(1) for one in by_seed.values()])
            by_arm[arm] = stats.calibration(confidence, np.concatenate(list(evaluated.right(arm).values())))
    return by_arm


def confusion(evaluated: Evaluated, arm: str) -> np.ndarray:
    """(C, C): rows true, columns predicted; mean counts over seeds."""
    classes, by_seed = len(evaluated.names), evaluated.probabilities[arm].values()
    counts = [
        np.bincount(evaluated.labels * classes + one.argmax(1), minlength=classes**2) for one in by_seed
    ]
    mean: np.ndarray = np.mean(counts, axis=0).reshape(classes, classes)
    return mean


def hardest(evaluated: Evaluated, arms: list[Arm]) -> list[tuple[str, str, dict[str, float]]]:
    """Texts that all arms together get most wrong: (text, its class, arm -> mean probability of
    that class).
    """
    of_truth = {
        arm.name: np.mean(
            [
                one[np.arange(len(one)), evaluated.labels]
                for one in evaluated.probabilities[arm.name].values()
            ],
            axis=0,
        )
        for arm in arms
        if evaluated.probabilities.get(arm.name)
    }
    order = np.argsort(np.mean(list(of_truth.values()), axis=0))[:HARDEST]
    return [
        (
            evaluated.texts[row],
            evaluated.names[evaluated.labels[row]],
            {arm: float(of_rows[row]) for arm, of_rows in of_truth.items()},
        )
        for row in map(int, order)
    ]


# --- contamination --------------------------------------------------------------------------------
@dataclass(frozen=True)
class SeenBy:
    """An evaluation split against what one kind of training read; which arms trained so."""

    contamination: Contamination
    arms: list[str]


def contaminations(
    study: Study, stages: dict[str, RunRecord], mirror: str | None
) -> tuple[list[SeenBy], list[str]]:
    """Each evaluation split against each distinct training text of the study's arms, stages included; and
    what could not be checked.
    """
    texts_of: dict[str, tuple[str, Train]] = {}  # key of the texts -> their name and config
    readers: dict[str, list[str]] = {}
    skipped: list[str] = []
    for arm in study.arms:
        run = arm.in_order()[0]
        if seeds_of(run).fold != seeds_of(study.baseline.in_order()[0]).fold:
            skipped.append(f"{arm.name}: it was not made on the baseline's first fold")
            continue
        for role, one in (("training", run), ("pretraining", stages.get(run.stage or ""))):
            if one is None:
                if role == "pretraining" and run.stage is not None:
                    skipped.append(f"{arm.name}: its pretraining {run.stage} is not among the runs")
                continue
            try:
                config = _config(one, mirror)
            except UserError as error:
                skipped.append(f"{arm.name}: {error}")
                continue
            key = str(
                {
                    k: v
                    for k, v in sorted(one.config.items())
                    if k.startswith("dataset.") and k != "dataset.clean"
                }
            )
            texts_of.setdefault(key, (f"{role} on {config.dataset.name}", config))
            if arm.name not in readers.setdefault(key, []):
                readers[key].append(arm.name)
        if weights_from_elsewhere(run):
            skipped.append(f"{arm.name}: what its weights from elsewhere were trained on is not on record")
    seen = []
    run = study.baseline.in_order()[0]
    evaluated = _config(run, mirror)
    _check_data(evaluated, run)
    for key, (name, config) in texts_of.items():
        seen += [SeenBy(found, readers[key]) for found in _contaminations_by(name, config, evaluated)]
    return seen, sorted(set(skipped))


def _contaminations_by(name: str, trained: Train, evaluated: Train) -> list[Contamination]:
    """The evaluation splits of one run in the training texts of another; computed once for their content."""

    def compute() -> list[dict[str, Any]]:
        return [
            check_contamination(split, name, texts, _training_texts(trained)).record()
            for split, texts in _evaluation_texts(evaluated).items()
        ]

    made_of = [_content(trained), _content(evaluated), code_version(Path(contamination.__file__))]
    records = remembered(evaluated.paths, "contamination", digest(made_of), compute)
    return [Contamination.from_record(record, name) for record in records]


def _content(config: Train) -> dict[str, Any]:
    """What decides the texts that a run reads."""
    roles = roles_for(config.dataset, config.objective)
    kinds = {role.kind: inspect.getfile(registry.load_kind(role.kind)) for role in roles}
    return {
        "data": config.dataset.fingerprint(config.paths),
        "dataset": config.dataset.reading(),
        "roles": [asdict(role) for role in roles],
        "kinds": {kind: file_digest(Path(file)) for kind, file in kinds.items()},
        "select_on": config.evaluation.select_on,
        "code": folder_version(Path(inspect.getfile(load_for)).parent),
    }


def _evaluation_texts(config: Train) -> dict[str, list[str]]:
    loaded, roles = load_for(config), roles_for(config.dataset, config.objective)
    return {
        split: list(_rows_of(loaded.splits[split], roles))
        for split in ("selection", "validation", "test")
        if split in loaded.splits
    }


def _training_texts(config: Train) -> Iterator[str]:
    yield from _rows_of(load_for(config).splits["train"], roles_for(config.dataset, config.objective))


def _rows_of(rows: Any, roles: Sequence[Role], between: str = " ") -> Iterator[str]:
    """What is read of each row as one text, answers left out."""
    columns = text_roles(roles)
    for start in range(0, len(rows), 1000):
        piece = rows[start : start + 1000]
        for values in zip(*(piece[name] for name in columns), strict=True):
            yield between.join(" ".join(value) if isinstance(value, list) else value for value in values)


def _config(run: RunRecord, mirror: str | None) -> Train:
    config = run.typed_config
    return replace(config, paths=replace(config.paths, mirror=mirror or config.paths.mirror))


def _dataset_of(config: Train, run: RunRecord) -> Any:
    """The run's dataset, if it is still the one that the run was trained on. Raises UserError."""
    _check_data(config, run)
    return load_for(config)


def _check_data(config: Train, run: RunRecord) -> None:
    """Raises UserError where the dataset is not the one that the run was trained on."""
    recorded = run.identity.get("inputs", {}).get("dataset")
    if recorded is not None and config.dataset.fingerprint(config.paths) != recorded:
        raise UserError(f"{config.dataset.name}'s files are not those that the runs were trained on")
