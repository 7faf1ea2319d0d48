"""The keys of a table: where its rows are, how its files are read, and which column stands for which role."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertlab.config.schema import DatasetConfig, choice, flag, mapping, newer, one_sign, string, words
from bertlab.data.dataset import SPLITS
from bertlab.errors import ConfigError, did_you_mean


@dataclass
class TableKeys(DatasetConfig):
    """How a table is found and read, and which column stands for which role."""

    hub: str | None = string(None, "name on the Hugging Face hub")
    hub_config: str | None = string(None, "configuration of the hub dataset")
    mirror_files: dict[str, str] = mapping("split -> path below paths.mirror, used where the mirror holds it")
    train_splits: list[str] = words(
        "splits of the mirror or the hub that are trained on, one after the other; none named = train"
    )
    validation_split: str = string(
        "validation",
        "the mirror's or the hub's split for validation; where it is missing, part of train is held out",
    )
    test_split: str | None = string(
        "test", "the mirror's or the hub's split for the final test; null = leave it out"
    )
    train_file: str | None = string(None, "own file for training: CSV, TSV, JSONL or Parquet")
    validation_file: str | None = string(
        None, "own file for validation; without one, part of train is held out"
    )
    test_file: str | None = string(None, "own file for the final test")
    text_column: str = string("text", "column of the (first) text")
    text_pair_column: str | None = string(None, "column of the second text, for pairs")
    label_column: str | None = string("label", "column of the label: ids or strings; null = there is none")
    labels_column: str | None = string(
        None, "column of sets of classes: lists of names, or texts with labels_separator between them"
    )
    number_column: str | None = string(None, "column of the number to predict")
    tokens_column: str | None = string(
        None, "column of words, for tagging; its texts are the words joined by spaces"
    )
    tags_column: str | None = string(None, "column of one tag a word: ids or names")
    question_column: str | None = string(None, "column of questions")
    context_column: str | None = string(None, "column of the texts that hold the answers")
    answers_column: str | None = string(None, 'column of answers: {"text": [...], "answer_start": [...]}')
    choices_column: str | None = string(None, "column of lists of texts to choose from")
    columns: dict[str, str] = mapping(
        "role -> column, for roles of an objective that have no key of their own"
    )
    label_names: list[str] = words("class names in id order; default: from the data")
    label_map: dict[Any, str] = mapping(
        "raw label -> class name; rows with other labels are an error, or dropped"
    )
    drop_unmapped_labels: bool = flag(False, "drop rows whose label is not in label_map")
    drop_unlabelled: bool = flag(
        False, "leave rows without an answer (empty, null, -1) out instead of stopping at them"
    )
    labels_separator: str = string("|", "what stands between the names of a set of classes in one text")
    tag_scheme: str = choice(
        "auto",
        "auto",
        "bio",
        "bioes",
        "suffix",
        help="how tags of entities are written; auto: BIO, or BIOES and BILOU where S-, E-, U- or L- say so",
    )
    documents: bool = flag(False, "each text is a document of several sentences, in order")
    max_words: dict[str, int] = newer(
        mapping("split -> words (as white space cuts them) read of it: its first rows, the last one cut")
    )
    column_names: list[str] = words("columns of a CSV without a header line")
    delimiter: str | None = string(
        None, "field separator of CSV files; default: by ending (comma, or tab for .tsv)"
    )
    quoting: str = choice(
        "auto",
        "auto",
        "none",
        "csv",
        help=(
            "csv: quote signs frame fields; none: they are text; auto: csv, of tab-separated files as they"
            " look"
        ),
    )
    encoding: str = string("utf-8", "encoding of text files, e.g. utf-8 or latin-1")
    clean: str = choice(
        "none",
        "none",
        "html",
        "tweet",
        "treebank",
        help=(
            "html: tags and entities to text; tweet: also links and @names; treebank: Penn-Treebank tokens"
            " (is n't , -lrb-) back to text"
        ),
    )

    def check(self, path: str) -> None:
        """Some source must be named; label options must fit each other."""
        super().check(path)
        if not (self.hub or self.mirror_files or self.train_file):
            raise ConfigError(
                f"{path}: no source; set {path}.train_file to a CSV, TSV, JSONL or Parquet file, or"
                f" {path}.hub to a hub name"
            )
        self.label_map = {str(raw): name for raw, name in self.label_map.items()}
        if len(set(self.label_names)) < len(self.label_names) or len(self.label_names) == 1:
            raise ConfigError(f"{path}.label_names={self.label_names}: needs two or more different names")
        self.delimiter = one_sign(f"{path}.delimiter", self.delimiter)
        used = [split for splits in self.sources().values() for split in splits]
        if twice := next((split for split in used if used.count(split) > 1), None):
            raise ConfigError(
                f"{path}: the split '{twice}' is named twice; what is trained on cannot be scored"
            )
        if unknown_splits := sorted(set(self.mirror_files) - {*used, *SPLITS}):
            raise ConfigError(
                f"{path}.mirror_files.{unknown_splits[0]}: unknown split,"
                f" {did_you_mean(unknown_splits[0], used)}"
            )
        if unknown_splits := sorted(set(self.max_words) - {*used, *SPLITS}):
            raise ConfigError(
                f"{path}.max_words.{unknown_splits[0]}: unknown split,"
                f" {did_you_mean(unknown_splits[0], used)}"
            )
        if few := next((split for split, count in self.max_words.items() if count < 1), None):
            raise ConfigError(f"{path}.max_words.{few}={self.max_words[few]}: must be at least 1")
        if (self.tokens_column is None) != (self.tags_column is None):
            raise ConfigError(f"{path}: tokens_column and tags_column go together; set both or neither")
        if self.tokens_column is not None:
            idle = {"clean": self.clean != "none", "documents": self.documents, "label_map": self.label_map,
                    "text_pair_column": self.text_pair_column}  # fmt: skip
            if key := next((key for key, given in idle.items() if given), None):
                raise ConfigError(
                    f"{path}.{key} has no meaning for words and tags"
                    f" ({path}.tokens_column={self.tokens_column})"
                )
        if self.drop_unmapped_labels and not self.label_map:
            raise ConfigError(f"{path}.drop_unmapped_labels: needs {path}.label_map")
        if self.label_names and (unknown := set(self.label_map.values()) - set(self.label_names)):
            raise ConfigError(f"{path}.label_map: maps to {sorted(unknown)}, which {path}.label_names lacks")

    # --- what it declares; see DatasetConfig ---
    def column_of(self, role: str) -> str | None:
        """The column of a role; None where it has none."""
        if role == "text" and self.tokens_column is not None:
            return self.tokens_column
        return self.columns.get(role) or self.own_columns().get(role)

    def own_columns(self) -> dict[str, str | None]:
        """Role -> column, of the roles that have a key of their own."""
        return {
            "text": self.text_column, "text_pair": self.text_pair_column, "label": self.label_column,
            "labels": self.labels_column,
            "number": self.number_column, "tokens": self.tokens_column, "tags": self.tags_column,
            "question": self.question_column,
            "context": self.context_column, "answers": self.answers_column, "choices": self.choices_column,
        }  # fmt: skip

    def key_of_role(self, role: str) -> str | None:
        """For files of one's own; a preset's columns are what they are."""
        if self.train_file is None:
            return None
        return f"{role}_column" if role in self.own_columns() else f"columns.{role}"

    def key_of_column(self, column: str) -> str:
        """The key that names a column, for errors."""
        own = next((role for role, name in self.own_columns().items() if name == column), None)
        other = next((role for role, name in self.columns.items() if name == column), "")
        return f"dataset.{own}_column" if own is not None else f"dataset.columns.{other}"

    def offers(self) -> tuple[str, ...]:
        """Every role that has a column; words and tags stand for themselves."""
        roles = tuple(role for role, column in self.own_columns().items() if column is not None)
        if self.tokens_column is not None:
            roles = tuple(role for role in roles if role not in ("text_pair", "label"))
        return (*roles, *self.columns)

    def has_documents(self) -> bool:
        """As it says."""
        return self.documents

    def cleaner(self) -> str:
        """As it says."""
        return self.clean

    def hub_name(self) -> str | None:
        """As it says."""
        return self.hub

    def deciding(self) -> dict[str, Any]:
        """Files of the user's own are known by their content, wherever they lie."""
        return super().deciding() | {
            key: Path(file).suffix
            for key, file in (
                ("train_file", self.train_file),
                ("validation_file", self.validation_file),
                ("test_file", self.test_file),
            )
            if file and Path(file).expanduser().exists()
        }

    def sources(self) -> dict[str, list[str]]:
        """Our split -> the source's splits that it is made of."""
        return {
            "train": list(self.train_splits) or ["train"],
            "validation": [self.validation_split],
            "test": [self.test_split] if self.test_split is not None else [],
        }
