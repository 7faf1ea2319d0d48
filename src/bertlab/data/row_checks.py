"""What quietly ruins a result and stands in the rows: empty texts, copies with other answers, rows of one
split in another, one class.

Counted before training, told in a few lines, kept in the summary.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bertlab.data.dataset import text_roles
from bertlab.declarations import Role

MOST_CHARACTERS = 20_000_000  # looked through before a run; `bertlab inspect` looks through all
LOPSIDED = 0.8  # share of the commonest class from which it is told as such
# share of a split's rows that stand in train, above which it is told: stock phrases occur everywhere
OVERLAP = 0.001


def texts_of(rows: Any, roles: Sequence[Role]) -> list[str]:
    """What a tokenizer reads of each row, as one text."""
    columns = [rows[name][:] for name in text_roles(roles)]
    return [
        " | ".join(" ".join(cell) if isinstance(cell, list) else cell for cell in cells)
        for cells in zip(*columns, strict=True)
    ]


def letters_of(text: str) -> str:
    """What two texts are compared by: letters and digits, case aside."""
    return "".join(filter(str.isalnum, text.lower())) or text


def count_rows(
    splits: dict[str, Any], roles: Sequence[Role], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Of each split: rows, empty texts, copies, copies whose answers differ, rows that stand in train, the
    commonest class and its share.

    What compares texts is left out where there are too many of them, or where they hold no answers.
    """
    answers = [role.name for role in roles if role.is_answer]
    found: dict[str, dict[str, Any]] = {split: {"rows": len(rows)} for split, rows in splits.items()}
    label = next((role.name for role in roles if role.is_answer and role.kind == "label"), None)
    for split, rows in splits.items():
        if label is not None and names and len(rows):
            (common, count), *_ = Counter(rows[label][:]).most_common(1)
            found[split] |= {"commonest": names[common], "commonest_share": count / len(rows)}
    if not answers or not text_roles(roles):
        return found
    if sum(_characters(rows, roles) for rows in splits.values()) > MOST_CHARACTERS:
        found["train"]["not_compared"] = True
        return found
    read = set[str]()
    for split, rows in splits.items():  # train comes first
        texts = texts_of(rows, roles)
        counts, told = Counter[str](), dict[str, set[str]]()
        for text, *answer in zip(map(letters_of, texts), *(rows[name][:] for name in answers), strict=True):
            counts[text] += 1
            told.setdefault(text, set()).add(repr(answer))
        found[split] |= {
            "empty": sum(not text.strip(" |") for text in texts),
            "copies": sum(count - 1 for count in counts.values()),
            "conflicting": sum(counts[text] for text, said in told.items() if len(said) > 1),
        }
        if split == "train":
            read = set(counts)
        else:
            found[split]["in_train"] = sum(count for text, count in counts.items() if text in read)
    return found


def _characters(rows: Any, roles: Sequence[Role]) -> int:
    """About how many, by the first rows."""
    first = texts_of(rows.select(range(min(200, len(rows)))), roles)
    return int(sum(map(len, first)) / max(1, len(first)) * len(rows))


def row_lines(found: dict[str, dict[str, Any]], held_out: Sequence[str]) -> list[str]:
    """Lines for a person: the rows of each split always, the rest where there is something to say.

    `held_out`: splits that were taken out of train.
    """
    total = sum(split["rows"] for split in found.values())
    parts = []
    for name, split in found.items():
        how = f" (held out by text, {split['rows'] / total:.1%})" if name in held_out else ""
        parts.append(f"{split['rows']:,} {name}{how}")
    train = found["train"]
    lines = [f"rows: {', '.join(parts)}"]
    if "commonest" in train:
        lines[0] += f"; commonest class {train['commonest']} {train['commonest_share']:.1%}"
        if train["commonest_share"] >= LOPSIDED:
            lines.append(
                f"{train['commonest_share']:.1%} of the training rows are {train['commonest']}: accuracy says"
                " little here; see objective.primary=f1_macro and objective.class_weights=balanced"
            )
    if train.get("not_compared"):
        lines.append(
            f"texts of more than {MOST_CHARACTERS:,} characters are not compared before a run: for copies,"
            " contradictions and rows of one split in another ask bertlab inspect"
        )
    for name, split in found.items():
        told = [
            f"{split[key]:,} {words}"
            for key, words in (("empty", "empty texts"), ("copies", "copies of earlier rows"))
            if split.get(key)
        ]
        if split.get("conflicting"):
            told.append(
                f"{split['conflicting']:,} rows whose copies have other answers, which nothing can get all"
                " right"
            )
        if split.get("in_train", 0) > OVERLAP * split["rows"]:
            told.append(
                f"{split['in_train']:,} ({split['in_train'] / split['rows']:.1%}) stand in train too, and are"
                " no test of anything"
            )
        if told:
            lines.append(f"{name}: {'; '.join(told)}")
        if name != "train" and split.get("commonest_share") == 1:
            lines.append(
                f"{name}: every row is {split['commonest']}; its score says nothing of the other classes"
            )
    return lines
