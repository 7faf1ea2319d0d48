"""From run folders to a page: what stands in a report, and in which order."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bertlab.errors import UserError
from bertlab.report import by_example, stats
from bertlab.report.arms import Study
from bertlab.report.caveats import choice_of, warnings_of
from bertlab.report.comparison import Row, compare, level_of
from bertlab.report.figures import plots
from bertlab.report.figures.curves import curves
from bertlab.report.pages.methods import data_blocks, methods_blocks, settings_blocks
from bertlab.report.pages.page import Block, Heading, Page, PageTable, Text
from bertlab.report.pages.provenance import provenance_blocks
from bertlab.report.pages.tables import (
    MOST_SIDE_BY_SIDE,
    Examples,
    apart_table,
    comparison_table,
    conclusion,
    cost_table,
    further_table,
    held_out_table,
    other_scores,
    p_text,
    percent,
    shown_name,
)
from bertlab.report.scaling import cost_words, scalings
from bertlab.runs.progress import working
from bertlab.runs.records import RunRecord


def build_page(
    title: str,
    studies: Sequence[Study],
    runs: Sequence[RunRecord],
    with_examples: bool,
    with_texts: bool,
    with_contamination: bool,
    mirror: str | None,
    test: str = stats.SIGN_FLIP,
    effect: float | None = None,
    scaling: tuple[str, Sequence[str]] | None = None,
    opening: Callable[[Study, Sequence[Row], Examples], list[Block]] | None = None,
) -> Page:
    """The whole report. `opening`: what stands above a study's own blocks."""
    stages = {run.name: run for run in runs if not run.problem}
    page = Page(title)
    for study in studies:
        with working(f"comparing on {study.title}"):
            rows = compare(study, stages, test, effect)
        with working(f"resampling examples of {study.title}"):
            examples, lacking = _examples_of(study, rows, mirror) if with_examples else (Examples(), {})
        page.blocks += [] if opening is None else opening(study, rows, examples)
        with working(f"tables and figures of {study.title}"):
            page.blocks += study_blocks(study, rows, test, examples, lacking)
        page.blocks += [] if scaling is None else scaling_blocks(study, rows, *scaling)
        if by_example.tells_classes(study) and with_examples:
            with working(f"comparing examples of {study.title}"):
                page.blocks += example_blocks(study, rows, with_texts, mirror)
        if with_contamination:
            with working(f"looking for evaluation texts of {study.title} in what was trained on"):
                page.blocks += contamination_blocks(study, stages, mirror)
    page.blocks += [*methods_blocks(studies, test), *settings_blocks(studies)]
    page.blocks += provenance_blocks(studies, runs, stages)
    return page


def _examples_of(study: Study, rows: Sequence[Row], mirror: str | None) -> tuple[Examples, dict[str, str]]:
    """Intervals over seeds and examples; and split -> why it has none."""
    versus = {"validation": {row.arm.name: row.on_validation for row in rows}}
    if any(row.test is not None for row in rows):
        versus["test"] = {row.arm.name: row.on_test for row in rows}
    found: dict[str, dict[str, by_example.WithExamples]] = {}
    lacking: dict[str, str] = {}
    for split, by_arm in versus.items():
        levels = {name: one.level for name, one in by_arm.items() if one is not None}
        try:
            found[split] = by_example.with_examples(study, split, levels, mirror)
        except UserError as error:
            lacking[split] = str(error)
    return Examples(**found), lacking


# --- the comparison -------------------------------------------------------------------------------
def study_blocks(
    study: Study,
    rows: Sequence[Row],
    test: str = stats.SIGN_FLIP,
    examples: Examples | None = None,
    lacking: Mapping[str, str] | None = None,
) -> list[Block]:
    """PageTable, words, figures; `examples` are intervals over seeds and examples, `lacking` says of a split
    why there are none.
    """
    examples, lacking = examples or Examples(), lacking or {}
    blocks: list[Block] = [Heading(study.title[:1].upper() + study.title[1:])]
    choice = choice_of(study)
    scored = choice.of_scores if study.is_of_rows else f"{study.metric.name} of the selected checkpoints"
    selection = scored + (
        f"; the test split was scored once with {choice.with_weights} and chooses nothing."
        if any(row.test is not None for row in rows)
        else "."
    )
    if len(study.arms) == 1:
        tests = (
            f"Scores are on {selection} Intervals: 95 % t over"
            f" {'folds, corrected' if study.folds else 'seeds'}{_nested(study)}."
        )
    else:
        named = "corrected resampled t test over folds" if study.folds else stats.TESTS[test].words
        by = "fold and seed" if study.folds else "seeds"
        tests = (
            f"Differences are to “{study.baseline.name}”, paired by {by}, on {selection} p: {named},"
            " corrected after Holm over the tests that can reach 0.05 at all; verdicts go by it."
            f" {_intervals(study, rows, test)} An arm's own mean, spread and 95 % interval are over its seeds"
            f"{_nested(study)}."
        )
    blocks.append(Text(f"{study.sizes}; {shown_name(study.metric)}, {study.metric.direction}. {tests}"))
    blocks += [Text(warning, "warning") for warning in warnings_of(study)]
    if examples.validation or examples.test:
        levels = (
            ", at 95 %"
            if len(study.arms) == 1
            else ", an arm's own at 95 %, a difference at the level of the interval over seeds beside it"
        )
        blocks.append(
            Text(
                "“Examples too”: with other examples of the split as well as other seeds (rows drawn with"
                f" replacement){levels}."
            )
        )
    if lacking:
        where = f" of {', '.join(lacking)}" if examples.validation or examples.test else ""
        why = "; ".join(dict.fromkeys(lacking.values()))
        blocks.append(
            Text(f"Intervals{where} are over seeds alone, for the examples at hand: {why}.", "warning")
        )
    blocks += [
        comparison_table(study, rows, examples.validation),
        *held_out_table(study, rows, examples.test),
    ]
    blocks += [
        *apart_table(study),
        *data_blocks(study),
        Text(conclusion(study, rows)),
        further_table(study, rows),
        *other_scores(study),
        cost_table(rows),
    ]
    for figure in (
        plots.differences(study, rows),
        curves(study),
        plots.cost(study, rows),
        plots.best_of_k(study),
    ):
        if figure is not None:
            blocks.append(figure)
    return blocks


def _intervals(study: Study, rows: Sequence[Row], test: str) -> str:
    """What the intervals of differences are, and how they go with the tests."""
    kind = (
        "corrected t intervals"
        if study.folds
        else "the test's confidence sequences"
        if stats.TESTS[test].is_sequential
        else "t intervals"
    )
    together = max(
        (row.on_validation.comparisons for row in rows if row.on_validation is not None), default=1
    )
    if together == 1:
        return f"Intervals of differences are {kind}."
    return (
        f"Intervals of differences are {kind}, each at {100 * level_of(together):.4g} %, so that the"
        f" {together} of the table hold together at 95 % (Bonferroni); Holm's correction finds more than"
        " these intervals show, so that one may include 0 beside “better”."
    )


def _nested(study: Study) -> str:
    """What else an arm's own interval is over, where it has several pretrainings."""
    several = any(len({seeds.outer for seeds in arm.runs}) < len(arm.runs) and arm.pretrainings > 1
                  for arm in study.arms)  # fmt: skip
    return ", of an arm on several pretrainings over their means" if several and not study.folds else ""


# --- scaling --------------------------------------------------------------------------------------
def scaling_blocks(study: Study, rows: Sequence[Row], cost: str, by: Sequence[str]) -> list[Block]:
    """Power laws of the loss, and whether the smaller sizes foretold the largest."""
    laws = scalings(study, rows, cost, by)
    unit = "%" if study.metric.higher_is_better else study.metric.unit
    factor = 100 if study.metric.higher_is_better else 1
    lines = []
    for one in laws:
        low, high = (f"{factor * end:.4g}" for end in one.prediction)
        said = (
            "as foretold"
            if one.is_foretold
            else f"{'better' if one.measured < one.predicted else 'worse'} than foretold"
        )
        exponent = f"{one.law.exponent:.3f} [{one.exponent[0]:.3f}, {one.exponent[1]:.3f}]"
        foretold = f"{factor * one.predicted:.4g} [{low}, {high}]"
        lines.append(
            [
                one.name,
                str(len(one.x)),
                exponent,
                f"{factor * one.law.floor:.3g}",
                foretold,
                f"{factor * one.measured:.4g}",
                said,
            ]
        )
    headers = [
        "arms",
        "sizes",
        "exponent a",
        f"floor E ({unit})",
        "largest, from the smaller",
        "measured",
        "",
    ]
    caption = (
        f"y = E + A x^-a of the {'validation ' if study.is_of_rows else ''}"
        f"{'error, 1 − ' if study.metric.higher_is_better else ''}{study.metric.name} over"
        f" {cost_words(cost, laws)}; 95 % intervals by the sizes' distance from the law (t), for the largest"
        " that of the smaller ones"
    )
    return [
        Heading("Scaling", 3),
        PageTable(headers, lines, caption),
        plots.scaling(study, laws, cost_words(cost, laws)),
    ]


# --- examples -------------------------------------------------------------------------------------
def example_blocks(study: Study, rows: Sequence[Row], with_texts: bool, mirror: str | None) -> list[Block]:
    """Paired tests over examples, per class, calibration, hardest errors; or why they are not here."""
    try:
        evaluated = by_example.load_evaluated(study, mirror)
    except UserError as error:
        return [Heading("Example by example", 3), Text(f"Left out: {error}.", "warning")]
    blocks: list[Block] = [Heading("Example by example", 3)]
    lines = []
    level = max((row.on_validation.level for row in rows if row.on_validation is not None), default=0.95)
    for row in rows:
        test = (
            None
            if row.is_baseline
            else by_example.compare_examples(evaluated, row.arm.name, study.baseline.name, level)
        )
        if test is not None:
            low, high = (by_example.ACCURACY.show(value, sign=True) for value in (test.low, test.high))
            both = " , ".join(by_example.ACCURACY.show(value, sign=True) for value in test.both).replace(
                " ,", ","
            )
            smallest, largest = map(p_text, test.mcnemar)
            lines.append(
                [
                    row.arm.name,
                    f"[{both}]",
                    f"[{low}, {high}]",
                    smallest if smallest == largest else f"{smallest} to {largest}",
                ]
            )
    if lines:
        blocks.append(
            PageTable(
                (
                    "arm",
                    f"{100 * level:.3g} % interval over seeds and examples",
                    "over examples alone",
                    "McNemar p, seed by seed",
                ),
                lines,
                f"Difference of accuracies to {study.baseline.name} on the same {len(evaluated.texts):,}"
                " validation examples: would other examples say the same?",
            )
        )
    calibrations = by_example.calibrations(evaluated)
    per_class = []
    for name in calibrations:
        counts = by_example.confusion(evaluated, name)
        with np.errstate(invalid="ignore"):
            recall, precision = np.diag(counts) / counts.sum(1), np.diag(counts) / counts.sum(0)
        cells = [f"{percent(r)} / {percent(p)}" for r, p in zip(recall, precision, strict=True)]
        per_class.append([name, *cells, f"{100 * calibrations[name].error:.1f}"])
    blocks.append(
        PageTable(
            ("arm", *(f"{name}: recall / precision" for name in evaluated.names), "ECE"),
            per_class,
            "Per class and calibration (%), all seeds",
        )
    )
    blocks += [
        PageTable(
            ("true / predicted", *evaluated.names),
            [
                [name, *(f"{count:.1f}" for count in row)]
                for name, row in zip(evaluated.names, by_example.confusion(evaluated, arm), strict=True)
            ],
            f"Confusion of {arm}, mean counts over seeds",
            folded=len(calibrations) > MOST_SIDE_BY_SIDE and arm != study.baseline.name,
        )
        for arm in calibrations
    ]
    if (figure := plots.calibration(study, calibrations)) is not None:
        blocks.append(figure)
    if not with_texts:
        return blocks
    wrong = by_example.hardest(evaluated, study.arms)
    names = list(wrong[0][2])[:6]
    lines = [
        [text if len(text) <= 300 else text[:299] + "…", label, *(f"{by_arm[arm]:.2f}" for arm in names)]
        for text, label, by_arm in wrong
    ]
    caption = "Hardest validation examples: mean probability of the right class"
    blocks.append(
        PageTable(
            ("text", "class", *(f"p, {name}" for name in names)),
            lines,
            caption,
            left=2,
            wide=(0,),
            folded=True,
        )
    )
    return blocks


# --- contamination --------------------------------------------------------------------------------
def contamination_blocks(study: Study, stages: dict[str, RunRecord], mirror: str | None) -> list[Block]:
    """How much of the evaluation the runs had read, and the scores without it."""
    heading = Heading("Contamination", 3)
    try:
        checks, skipped = by_example.contaminations(study, stages, mirror)
        clean = _clean_scores(study, checks, mirror)
    except UserError as error:
        return [heading, Text(f"Not checked: {error}.", "warning")]
    lines = [
        [
            seen.contamination.source,
            seen.contamination.split,
            f"{seen.contamination.rows:,}",
            str(int(seen.contamination.whole.sum())),
            str(int(seen.contamination.inside.sum())),
            str(int(seen.contamination.near.sum())),
            f"{int(seen.contamination.seen.sum())} ({100 * float(seen.contamination.seen.mean()):.1f} %)",
            str(int(seen.contamination.short.sum())),
            ", ".join(seen.arms),
        ]
        for seen in checks
    ]
    headers = (
        "read in",
        "split",
        "rows",
        "whole",
        "inside longer",
        "near",
        "together",
        "stock phrases",
        "arms",
    )
    caption = (
        "Evaluation texts found in what was trained on; stock phrases (under five words, inside longer texts)"
        " are counted apart"
    )
    blocks: list[Block] = [heading, PageTable(headers, lines, caption, left=2, wide=(8,))]
    blocks += [Text(f"Not checked: {note}.", "warning") for note in skipped]
    if clean:
        blocks.append(
            PageTable(
                ("arm", "validation accuracy, all", "on what it had not read", "rows left"),
                clean,
                "Scores on the clean part (%), mean over seeds",
            )
        )
    return blocks


def _clean_scores(study: Study, checks: Sequence[by_example.SeenBy], mirror: str | None) -> list[list[str]]:
    """Accuracy on the validation rows that an arm had read nowhere; nothing where every row is clean or the
    study is no classification.
    """
    if not by_example.tells_classes(study) or not any(
        seen.contamination.seen.any() for seen in checks if seen.contamination.split == "validation"
    ):
        return []
    evaluated = by_example.load_evaluated(study, mirror)
    lines = []
    for arm in study.arms:
        read = np.zeros(len(evaluated.texts), dtype=bool)
        for seen in checks:
            if seen.contamination.split == "validation" and arm.name in seen.arms:
                read |= seen.contamination.seen
        right = list(evaluated.right(arm.name).values())
        if right and not read.all():
            whole, part = np.mean(right), np.mean([one[~read] for one in right])
            lines.append([arm.name, f"{100 * whole:.2f}", f"{100 * part:.2f}", str(int((~read).sum()))])
    return lines
