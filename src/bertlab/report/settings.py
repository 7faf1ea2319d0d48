"""What runs were set to: what sets the arms of a study apart beside its scores, and what all runs share."""

from collections.abc import Sequence
from typing import Any

from bertlab.report.arms import ABSENT, Arm, Study, decides, differing_keys
from bertlab.report.page import Block, Heading, PageTable, Text
from bertlab.runs.records import RunRecord

MOST_SIDE_BY_SIDE = 6  # arms


def apart_table(study: Study) -> list[PageTable]:
    """Everything that sets the arms apart, key by key, what they are grouped by first, and what came of it:
    vocabulary, parameters, tokens. More arms than fit side by side stand below each other, folded.
    """
    if len(study.arms) < 2:
        return []
    differing = differing_keys(study.arms)
    asked = [key for key in study.keys if key in differing]
    keys = asked + [key for key in differing if key not in asked]
    facts = {
        "vocabulary": [vocabulary(arm) for arm in study.arms],
        "parameters": [arm.parameters for arm in study.arms],
        "tokens seen": [f"{tokens_seen(arm) / 1e6:.2f} M" for arm in study.arms],
    }
    rows = [[key.removesuffix(".component"), *(arm.resolved(key) for arm in study.arms)] for key in keys]
    rows += [[name, *values] for name, values in facts.items() if set(values) != {ABSENT}]
    caption = "What sets the arms apart; bold: what they are grouped by"
    headers = ["key", *(arm.name for arm in study.arms)]
    if len(study.arms) <= MOST_SIDE_BY_SIDE:
        return [PageTable(headers, rows, caption, frozenset(range(len(asked))), left=len(headers))]
    columns = [list(column) for column in zip(*rows, strict=True)]
    lines = [[arm.name, *cells] for arm, cells in zip(study.arms, columns[1:], strict=True)]
    return [PageTable(["arm", *columns[0]], lines, "What sets the arms apart", left=99, folded=True)]


def vocabulary(arm: Arm) -> str:
    """How many tokens its tokenizers know, as runs recorded it."""
    sizes = dict.fromkeys(run.summary.get("vocabulary") for run in arm.in_order())
    return ", ".join(f"{size:,}" if isinstance(size, int) else ABSENT for size in sizes)


def tokens_seen(arm: Arm) -> float:
    """In its own training, the mean over its runs."""
    seen = [float(run.summary.get("cost", {}).get("tokens", 0)) for run in arm.in_order()]
    return sum(seen) / len(seen)


def settings_blocks(studies: Sequence[Study]) -> list[Block]:
    """An appendix: every setting that all runs share; of several studies, also what each has to itself."""
    of_study = [shared([run for arm in study.arms for run in arm.in_order()]) for study in studies]
    common = shared([run for study in studies for arm in study.arms for run in arm.in_order()])
    words = "What can change a result, as it was resolved; seeds and what is not set are left out."
    blocks: list[Block] = [Heading("Settings"), Text(words), _table(common, "Settings that all runs share")]
    for study, own in zip(studies, of_study, strict=True):
        left = {key: value for key, value in own.items() if key not in common}
        if len(studies) > 1 and left:
            blocks.append(_table(left, f"Beside these, those of {study.title}"))
    return blocks


def shared(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Keys that decide results and have one value in all runs, in the order of their config."""
    first, *others = runs
    return {
        key: value
        for key, value in first.config.items()
        if value not in (None, "[]")
        and key not in ("tags", "paths")
        and decides(key, runs)
        and all(run.config.get(key) == value for run in others)
    }


def _table(settings: dict[str, Any], caption: str) -> PageTable:
    """A line a part of the config: which component it is, and its keys."""
    lines: dict[str, list[str]] = {}
    chosen = {part_of(key)[0]: value for key, value in settings.items() if part_of(key)[1] == "component"}
    for key, value in settings.items():
        part, last = part_of(key)
        lines.setdefault(part, [])
        if last != "component" and (last != "name" or value != chosen.get(part)):
            lines[part].append(f"{last} {shown(value)}")
    rows = [[part, chosen.get(part, ""), "; ".join(told)] for part, told in lines.items()]
    return PageTable(["part", "choice", "settings"], rows, caption, left=2, wide=(2,))


def part_of(key: str) -> tuple[str, str]:
    """`init.optimizer.lr` -> `init.optimizer`, `lr`."""
    part, _, last = key.rpartition(".")
    return (part, last) if part else ("run", last)


def shown(value: Any) -> str:
    """As one would write it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)
