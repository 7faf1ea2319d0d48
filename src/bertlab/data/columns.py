"""Columns and labels of rows, by role: found, checked, cleaned, turned into ids. What is wrong is said here, before a model is built."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bertlab.data.reading import CLEANERS, Rows, datasets_offline
from bertlab.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from bertlab.data.table import Table


def require_column(rows: Rows, column: str, key: str, where: str) -> None:
    if column not in rows.column_names:
        glued = next((mark for mark in (";", "\t", "|") for name in rows.column_names if mark in name), None)
        if glued is not None:
            header = ", ".join(rows.column_names)[:60]
            raise DataError(
                f"{where}: no column '{column}' ({key}); its header {header} looks separated by {glued!r}: set dataset.delimiter={glued!r}"
            )
        raise DataError(f"{where}: no column '{column}' ({key}), {did_you_mean(column, rows.column_names)}")


def _raw_label(value: Any) -> str:
    """Labels as they are compared: 1, 1.0 and '1' are the same; a missing one (null, NaN) is ''."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(value).strip())


def _raw_labels(rows: Rows, column: str, where: str) -> list[str]:
    """A column's labels as they are compared. Raises DataError for what can be none, naming its row."""
    for row, value in enumerate(rows.columns[column], start=1):
        if isinstance(value, list | dict | bytes) or value in (math.inf, -math.inf):
            raise DataError(f"{where}: row {row} holds {str(value)[:40]}, no label, in column '{column}' (dataset.label_column)")
    return [_raw_label(value) for value in rows.columns[column]]


def _given_names(config: "Table", declared: list[str] | None, where: str) -> list[str]:
    """Names in id order where somebody says them: the config, its map, or the data; else none."""
    if config.label_names:
        if declared and sorted(declared) == sorted(config.label_names) and declared != list(config.label_names):
            raise ConfigError(f"dataset.label_names={config.label_names}: {where} declares its ids in the order {declared}")
        return list(config.label_names)
    return list(dict.fromkeys(config.label_map.values())) or declared or []


def label_names_of(config: "Table", train: Rows, where: str) -> list[str]:
    """Class names in id order: configured, mapped, declared by the data, or the distinct values of train."""
    assert config.label_column is not None
    require_column(train, config.label_column, "dataset.label_column", where)
    if names := _given_names(config, train.class_names.get(config.label_column), where):
        return names
    values = set(_raw_labels(train, config.label_column, where)) - {"", "-1"}
    if len(values) < 2:
        raise DataError(f"{where}: column '{config.label_column}' has fewer than two different labels ({sorted(values)})")
    if len(values) > 1000:
        raise DataError(
            f"{where}: column '{config.label_column}' has {len(values)} different values; is it the label? (dataset.label_column)"
        )
    return sorted(values, key=lambda value: (0, int(value), value) if re.fullmatch(r"-?\d+", value) else (1, 0, value))


def tag_names_of(config: "Table", train: Rows, where: str) -> list[str]:
    """Tag names in id order: configured, declared by the data, or the distinct values of train, O first."""
    assert config.tags_column is not None
    require_column(train, config.tags_column, "dataset.tags_column", where)
    if names := _given_names(config, train.class_names.get(config.tags_column), where):
        return names
    found = [tag for tags in train.columns[config.tags_column] if isinstance(tags, list) for tag in tags]
    if not found or not all(isinstance(tag, str) for tag in found):
        raise DataError(f"{where}: column '{config.tags_column}' holds no tag names; name its ids in dataset.label_names")
    return sorted(set(found), key=lambda tag: (tag != "O", tag[2:], tag))


def declare(config: "Table", rows: Rows, names: list[str], where: str, needed: Sequence[str]) -> Any:
    """Columns by role, cleaned; None for a split without labels where labels are needed."""
    table: dict[str, list[Any]] = {}
    if "tokens" in needed:
        table = _tagged(config, rows, names, where, "tags" in needed)
    elif config.tokens_column is not None:
        table = {"text": [" ".join(words) for words in _tagged(config, rows, names, where, False)["tokens"]]}
    else:
        require_column(rows, config.text_column, "dataset.text_column", where)
        table["text"] = _texts(config, rows, config.text_column, where)
        if config.text_pair_column:
            require_column(rows, config.text_pair_column, "dataset.text_pair_column", where)
            table["text_pair"] = _texts(config, rows, config.text_pair_column, where)
    if "label" in needed:
        assert config.label_column is not None
        require_column(rows, config.label_column, "dataset.label_column", where)
        labels = _label_ids(config, rows, names, where)
        if labels is None:
            return None
        keep = [row for row, label in enumerate(labels) if label is not None]
        table = {name: [values[row] for row in keep] for name, values in table.items()}
        table["label"] = [labels[row] for row in keep]
        if not keep:
            raise DataError(f"{where}: no row has a label that dataset.label_map knows ({', '.join(map(str, config.label_map))})")
    return datasets_offline().Dataset.from_dict(table)


def _tagged(config: "Table", rows: Rows, names: list[str], where: str, with_tags: bool) -> dict[str, list[Any]]:
    """`tokens`, lists of words, and `tags`, lists of as many ids."""
    assert config.tokens_column is not None and config.tags_column is not None
    require_column(rows, config.tokens_column, "dataset.tokens_column", where)
    words = rows.columns[config.tokens_column]
    for row, found in enumerate(words, start=1):
        if not isinstance(found, list) or not found or not all(isinstance(word, str) for word in found):
            raise DataError(f"{where}: row {row} holds no list of words in column '{config.tokens_column}' ({str(found)[:40]})")
    if not with_tags:
        return {"tokens": words}
    require_column(rows, config.tags_column, "dataset.tags_column", where)
    known: dict[Any, int] = {**{index: index for index in range(len(names))}, **{name: index for index, name in enumerate(names)}}
    tags = []
    for row, (found, given) in enumerate(zip(words, rows.columns[config.tags_column], strict=True), start=1):
        if not isinstance(given, list) or len(given) != len(found):
            raise DataError(f"{where}: row {row} has {len(found)} words, but column '{config.tags_column}' holds {str(given)[:40]}")
        if unknown := [tag for tag in given if not isinstance(tag, str | int) or tag not in known]:
            raise DataError(
                f"{where}: {unknown[0]!r} in column '{config.tags_column}' (row {row}) is not a known tag; known: {', '.join(names)}"
            )
        tags.append([known[tag] for tag in given])
    return {"tokens": words, "tags": tags}


def _texts(config: "Table", rows: Rows, column: str, where: str) -> list[str]:
    cleaned = clean_texts(config, rows.columns[column], column, where)
    if not any(value.strip() for value in cleaned):
        raise DataError(f"{where}: column '{column}' holds no text at all")
    return cleaned


def clean_texts(config: "Table", values: list[Any], column: str, where: str, before: int = 0) -> list[str]:
    """Texts, cleaned; `before` rows went before these. Raises DataError naming the first row without a text."""
    for row, value in enumerate(values, start=before + 1):
        if value is None:
            raise DataError(f"{where}: row {row} has no text in column '{column}'; drop or fill such rows")
        if not isinstance(value, str):
            raise DataError(
                f"{where}: row {row} holds {type(value).__name__} ({str(value)[:40]}), not text, in column '{column}' (dataset.text_column)"
            )
    return [CLEANERS[config.clean](value) for value in values] if config.clean != "none" else values


def _label_ids(config: "Table", rows: Rows, names: list[str], where: str) -> list[int | None] | None:
    """Class id of each row; None within the list = drop, None in place of it = this split is not labelled (all -1 or empty)."""
    assert config.label_column is not None
    values = _raw_labels(rows, config.label_column, where)
    counts = Counter(values)
    if set(counts) <= {"", "-1"}:
        return None
    ids = {name: index for index, name in enumerate(names)}
    known: dict[str, int | None] = {}
    if config.label_map:
        known = {**ids, **{_raw_label(raw): ids[name] for raw, name in config.label_map.items()}}
        if config.drop_unmapped_labels:
            known = {raw: known.get(raw) for raw in counts}
    else:
        known = {**{str(index): index for index in range(len(names))}, **ids}
        if any(name.isdigit() for name in names):  # numeric class names mean themselves, not positions
            known = dict(ids)
    unknown = [value for value in counts if value not in known]
    if unknown:
        row = values.index(unknown[0]) + 1
        shown = f"'{unknown[0]}'" if unknown[0] else "an empty label"
        raise DataError(
            f"{where}: {shown} in column '{config.label_column}' (row {row}, {counts[unknown[0]]}x) is not a known label; "
            f"known: {', '.join(map(str, list(known)[:12]))}; see dataset.label_names and dataset.label_map"
        )
    return [known[value] for value in values]
