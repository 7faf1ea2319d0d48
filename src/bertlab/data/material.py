"""What a run learns from: its dataset, its tokenizer, its objective on both, and the tokenised splits;
computed once, then cached.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertlab import promises
from bertlab.config.schema import ObjectiveConfig, Train
from bertlab.contracts import Encode, Examples, Objective
from bertlab.data.dataset import LoadedDataset, load_for, roles_for, text_roles
from bertlab.data.example_files import read_examples, write_examples
from bertlab.data.mixture import describe_parts
from bertlab.data.row_checks import count_rows, row_lines
from bertlab.data.text_checks import CountedTexts, describe_texts, head_lines, merged_words, refuse_unknown
from bertlab.data.tokenizer import Tokenizer, batches_of_texts, read_tokenizer
from bertlab.errors import DataError
from bertlab.runs.cache import cached
from bertlab.runs.files import digest, write_text
from bertlab.runs.identity import file_versions, folder_version, kind_versions
from bertlab.runs.progress import each, working


@dataclass
class Material:
    """Data, tokenizer and objective of a run, and its tokenised splits."""

    dataset: LoadedDataset
    tokenizer: Tokenizer
    objective: Objective
    examples: dict[str, Examples]
    texts: dict[str, dict[str, Any]]  # of each split, what became of its texts: see data/text_checks.py
    _counted: dict[str, dict[str, Any]] | None = None

    def describe(self, config: Train) -> list[str]:
        """What is about to be learnt from, in lines for a person: parts of a mixture, unknown tokens, what is
        cut, the first rows.
        """
        roles = roles_for(config.dataset, config.objective)
        head = head_lines(
            self.dataset.splits["train"],
            roles,
            self.dataset.label_names,
            self.examples["train"],
            self.tokenizer,
            self.dataset.origins["train"],
        )
        parts = describe_parts(config, self.examples["train"])
        return [
            *parts,
            *row_lines(self.counted(config), self.dataset.held_out),
            *describe_texts(config, self.texts),
            *head,
        ]

    def counted(self, config: Train) -> dict[str, dict[str, Any]]:
        """Rows of each split, and what of them quietly ruins a result: see data/row_checks.py."""
        if self._counted is None:
            roles = roles_for(config.dataset, config.objective)
            with working("counting rows, copies and overlaps"):
                self._counted = count_rows(
                    self.dataset.splits, roles, self.dataset.label_names, self.dataset.origins
                )
        return self._counted


def prepare(
    config: Train, own: Path | None = None, source: Path | None = None, looks_only: bool = False
) -> Material:
    """Load the dataset, train or load the tokenizer, tokenise every split; what was computed before is taken
    from the cache.

    `own` is the tokenizer of the run's own folder: a run that goes on keeps the vocabulary it began with.
    `source` is where the first weights come from, and with them an inherited tokenizer. `looks_only`: notes
    are not printed, and texts that are mostly unknown do not stop.
    """
    roles = roles_for(config.dataset, config.objective)
    key = {
        "data": config.dataset.fingerprint(config.paths),
        "dataset": config.dataset.reading(),
        "roles": [dataclasses.asdict(role) for role in roles],
        "code": folder_version(Path(__file__).parent),
        "kinds": kind_versions(roles),
    }
    with working(f"reading {config.dataset.name}"):
        dataset, texts_in = load_for(config), text_roles(roles)
    for line in () if looks_only else dataset.notes:
        print(line, flush=True)
    tokenizer = _tokenizer(config, dataset, texts_in, key, own, source)
    objective = build_objective(config, tokenizer, dataset.label_names)

    def fill(folder: Path) -> None:
        texts: dict[str, dict[str, Any]] = {}
        for split, rows in dataset.splits.items():
            of_parts = dataset.parts.get(split)
            try:
                with working(f"tokenising {split}", len(rows) * len(texts_in), "texts") as work:
                    counted = CountedTexts(tokenizer, work)
                    write_examples(
                        folder, split, counted.watch(_prepared(objective, rows, of_parts, counted))
                    )
            except DataError as error:
                raise DataError(f"{config.dataset.name}, {split} split: {error}") from error
            texts[split] = counted.shares()
        with working("counting words that the tokenizer makes one"):
            texts["train"] |= merged_words(tokenizer, batches_of_texts(dataset.splits["train"], texts_in))
        write_text(folder / "texts.json", json.dumps(texts, ensure_ascii=False))

    key |= {
        "tokenizer": digest(tokenizer.to_json()),
        "objective": _deciding(config.objective),
        "objective_code": file_versions(config.objective),
        "labels": dataset.label_names,
        "splits": list(dataset.splits),
    }
    folder = cached(config.paths, "examples", digest(key), fill)
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    if not looks_only:
        refuse_unknown(config, texts)
    examples = {split: read_examples(folder, split) for split in dataset.splits}
    objective.fit_to(examples["train"])
    return Material(dataset, tokenizer, objective, examples, texts)


def _prepared(
    objective: Objective, rows: Any, parts: Sequence[int] | None, encode: Encode
) -> Iterator[Examples]:
    """A split's examples; of a mixture part by part, so that none is of two parts, each with the number of
    its own.
    """
    if parts is None:
        yield from pieces_of(objective, rows, encode)
        return
    start = 0
    for number, count in enumerate(parts):
        for piece in pieces_of(objective, rows.select(range(start, start + count)), encode) if count else ():
            columns = {**piece.columns, "part": np.full(len(piece), number, dtype=np.int32)}
            if "row" in columns:
                columns["row"] = columns["row"] + start
            yield dataclasses.replace(piece, columns=columns)
        start += count


def pieces_of(objective: Objective, rows: Any, encode: Encode) -> Iterator[Examples]:
    """What the objective makes of rows. Raises ConfigError for what are no examples."""
    pieces, right = objective.prepare(rows, encode), f"it must yield {promises.in_words(Examples)}"
    if not isinstance(pieces, Iterable):
        raise promises.broken(objective, "prepare", f"returned {promises.told(pieces)}", right)
    count = 0
    for count, piece in enumerate(pieces, start=1):  # noqa: B007  # how many there were
        if not isinstance(piece, Examples):
            raise promises.broken(objective, "prepare", f"yielded {promises.told(piece)}", right)
        yield piece
    if count == 0:
        raise promises.broken(objective, "prepare", f"yielded nothing of {len(rows)} rows", right)


def build_objective(config: Train, tokenizer: Tokenizer, label_names: Sequence[str]) -> Objective:
    """The objective for this tokenizer and these classes."""
    chosen = config.objective.for_task(config.dataset)
    objective: Objective = promises.built(
        chosen.build(tokenizer.vocabulary(), label_names), Objective, chosen, "build"
    )
    if "primary" not in vars(objective):
        call = "super().__init__(config, vocabulary, label_names)"
        raise promises.broken(objective, "__init__", f"does not call {call}", "begin with it")
    if chosen.predicts_tokens:
        promises.refuse_inherited(type(objective), Objective, "token_logits", "predicts_tokens = True")
    return objective


def _tokenizer(
    config: Train,
    dataset: LoadedDataset,
    texts_in: Sequence[str],
    key: dict[str, Any],
    own: Path | None,
    source: Path | None,
) -> Tokenizer:
    """The run's own where there is one; else what its config makes, kept where it was learnt."""
    if own is not None and own.is_file():
        return read_tokenizer(own)
    chosen, train = config.tokenizer, dataset.splits["train"]
    texts = batches_of_texts(train, texts_in)
    if not chosen.learns:
        return Tokenizer.from_json(chosen.make(texts, source))

    def fill(folder: Path) -> None:
        read = each(texts, "reading texts for the tokenizer", len(train) * len(texts_in), "texts")
        with working("training the tokenizer"):
            write_text(folder / "tokenizer.json", chosen.make(read, source))

    folder = cached(config.paths, "tokenizers", digest({**key, "tokenizer": chosen.deciding()}), fill)
    return read_tokenizer(folder / "tokenizer.json")


def _deciding(objective: ObjectiveConfig) -> dict[str, Any]:
    """The options that decide its tokenised examples: those that it declares, else all."""
    names, options = objective.prepared_by, objective.deciding()
    return options if names is None else {name: options[name] for name in ("name", *names)}
