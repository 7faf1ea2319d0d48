"""What quietly ruins a result and stands in the rows: empty texts, copies with other answers, rows of one
split in another, one class.

Counted before training, told in a few lines, kept in the summary.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertlab.config import registry
from bertlab.data.dataset import Origin, letters_of, text_roles
from bertlab.declarations import Role

MOST_CHARACTERS = 20_000_000  # looked through before a run; `bertlab inspect` looks through all
LOPSIDED = 0.8  # share of the commonest class from which it is told as such
# share of a split's rows that stand in train, above which it is told: stock phrases occur everywhere
OVERLAP = 0.001
FEW = 10  # rows of a class in train, below which it is told
MOST_KEPT = 20  # contradictions of a split that a run keeps on record, and rows of each
MOST_LETTERS = 80  # of an answer that is told
MOST_TOLD = 3  # of them that are told before training; likewise classes of few rows, and rows of one text


def texts_of(rows: Any, roles: Sequence[Role]) -> list[str]:
    """What a tokenizer reads of each row, as one text."""
    columns = [rows[name][:] for name in text_roles(roles)]
    return [
        " | ".join(" ".join(cell) if isinstance(cell, list) else cell for cell in cells)
        for cells in zip(*columns, strict=True)
    ]


def is_empty(text: str) -> bool:
    """Whether there is nothing to read in what `texts_of` gives."""
    return not text.strip(" |")


def answer_text(role: Role, value: Any, names: Sequence[str]) -> Any:
    """An answer as a person writes it: classes by their names."""
    if role.is_answer and names and registry.load_kind(role.kind).classes != "none":
        return [names[one] for one in value] if isinstance(value, list) else names[value]
    return value


def places_by_text(texts: Sequence[str]) -> dict[str, list[int]]:
    """Each different text (by its letters) and the rows that hold it; empty texts are none."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        if not is_empty(text):
            places[letters_of(text)].append(place)
    return places


@dataclass(frozen=True)
class Contradiction:
    """Rows of one split that hold the same text and say different things of it."""

    texts: list[str]  # of each row, which may differ in case and signs
    rows: list[tuple[str, int, str]]  # source, row there, answer


def clash_text(rows: Sequence[Sequence[Any]], count: int) -> str:
    """`row 3 of reviews.csv: good, row 17: bad, 4 more`, of so many."""
    told, before = [], ""
    for source, row, answer in rows[:MOST_TOLD]:
        told.append(f"row {row:,}{f' of {source}' if source != before else ''}: {answer}")
        before = source
    more = count - len(rows[:MOST_TOLD])
    return ", ".join(told) + (f", {more:,} more" if more > 0 else "")


def contradictions(
    rows: Any,
    roles: Sequence[Role],
    names: Sequence[str],
    origin: Origin,
    texts: Sequence[str],
    places: Mapping[str, Sequence[int]],
) -> Iterator[Contradiction]:
    """Those of a split, in the order of its rows; `places` are those of its `texts`."""
    answers = {role: rows[role.name][:] for role in roles if role.is_answer}
    for same in places.values() if answers else ():
        said = [tuple(repr(cells[place]) for cells in answers.values()) for place in same]
        if len(set(said)) > 1:
            yield Contradiction(
                [texts[place] for place in same],
                [(*origin.at(place), _answered(answers, place, names)) for place in same],
            )


def each_answer_first(rows: Sequence[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    """The first row of each answer, then the others."""
    firsts: dict[str, int] = {}
    for place, (_, _, answer) in enumerate(rows):
        firsts.setdefault(answer, place)
    chosen = set(firsts.values())
    return [rows[place] for place in (*firsts.values(), *(i for i in range(len(rows)) if i not in chosen))]


def _answered(answers: Mapping[Role, Sequence[Any]], place: int, names: Sequence[str]) -> str:
    told = (str(answer_text(role, cells[place], names)) for role, cells in answers.items())
    return " | ".join(one if len(one) <= MOST_LETTERS else f"{one[: MOST_LETTERS - 1]}…" for one in told)


def count_rows(
    splits: dict[str, Any],
    roles: Sequence[Role],
    names: Sequence[str],
    origins: Mapping[str, Origin] | None = None,
) -> dict[str, dict[str, Any]]:
    """Of each split: rows, empty texts, copies, copies whose answers differ and the first of them, rows that
    stand in train, the commonest class and its share, classes of few rows, how numbers lie. Empty texts are
    no copies of each other.

    What compares texts is left out where there are too many of them, or where they hold no answers.
    """
    answers = [role.name for role in roles if role.is_answer]
    found: dict[str, dict[str, Any]] = {split: {"rows": len(rows)} for split, rows in splits.items()}
    _count_answers(found, splits, roles, names)
    if not answers or not text_roles(roles):
        return found
    if sum(_characters(rows, roles) for rows in splits.values()) > MOST_CHARACTERS:
        found["train"]["not_compared"] = True
        return found
    read = set[str]()
    for split, rows in splits.items():  # train comes first
        texts = texts_of(rows, roles)
        places = places_by_text(texts)
        origin = (origins or {}).get(split) or Origin.of(split, len(rows))
        clashes = list(contradictions(rows, roles, names, origin, texts, places))
        found[split] |= {
            "empty": sum(map(is_empty, texts)),
            "copies": sum(len(same) - 1 for same in places.values()),
            "conflicting": sum(len(clash.rows) for clash in clashes),
            "conflicting_texts": len(clashes),
            "conflicts": [
                {"of": len(clash.rows), "rows": each_answer_first(clash.rows)[:MOST_KEPT]}
                for clash in clashes[:MOST_KEPT]
            ],
        }
        if split == "train":
            read = set(places)
        else:
            found[split]["in_train"] = sum(len(same) for text, same in places.items() if text in read)
    return found


def _count_answers(
    found: dict[str, dict[str, Any]], splits: dict[str, Any], roles: Sequence[Role], names: Sequence[str]
) -> None:
    """Classes of each split, and which of them have few rows to learn from; or the range of its numbers."""
    for role in (role for role in roles if role.is_answer):
        kind = registry.load_kind(role.kind)
        if kind.classes == "one" and names:
            counts = {split: Counter(rows[role.name][:]) for split, rows in splits.items()}
            few = [index for index in range(len(names)) if 0 < counts["train"][index] < FEW]
            for split, own in counts.items():
                if own:
                    (common, count), *_ = own.most_common(1)
                    found[split] |= {"commonest": names[common], "commonest_share": count / own.total()}
                    found[split]["few"] = {names[index]: own[index] for index in few}
        if kind.is_number:
            for split, rows in splits.items():
                values = np.asarray(rows[role.name][:], dtype=np.float64)
                if len(values):
                    found[split]["numbers"] = {
                        "least": float(values.min()), "most": float(values.max()),
                        "mean": float(values.mean()), "sd": float(values.std()),
                    }  # fmt: skip


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
    if numbers := train.get("numbers"):
        lines[0] += "; numbers from {least:.4g} to {most:.4g}, mean {mean:.4g}, sd {sd:.4g}".format(**numbers)
    if few := sorted(train.get("few", {}).items(), key=lambda item: item[1]):
        scored: dict[str, int] = next(
            (split["few"] for name, split in found.items() if name != "train" and "few" in split), {}
        )
        told = [f"{name} {count:,} ({scored.get(name, 0):,} held out)" for name, count in few[:MOST_TOLD]]
        more = f" and {len(few) - MOST_TOLD:,} classes more" if len(few) > MOST_TOLD else ""
        lines.append(
            f"classes of fewer than {FEW} training rows: {', '.join(told)}{more}: hardly to be learnt, and"
            " scores by class hang on single rows; add rows, or join classes by dataset.label_map"
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
        clashes = split.get("conflicts", [])[:MOST_TOLD]
        lines += [f"  one text, other answers: {clash_text(clash['rows'], clash['of'])}" for clash in clashes]
        if clashes and (more := split["conflicting_texts"] - len(clashes)):
            lines.append(
                f"  {more:,} such texts more: `bertlab inspect … inspect.out=FOLDER` writes all to a file"
            )
        if name != "train" and split.get("commonest_share") == 1:
            lines.append(
                f"{name}: every row is {split['commonest']}; its score says nothing of the other classes"
            )
    return lines
