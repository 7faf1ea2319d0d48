"""Tables of a comparison, and how its numbers are written."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bertlab.declarations import FRACTION, Metric
from bertlab.report import by_example, stats
from bertlab.report.arms import Arm, Seeds, Study, differing_keys
from bertlab.report.caveats import choice_of
from bertlab.report.comparison import Row, Versus, last_scores, summarize
from bertlab.report.pages.page import PageTable
from bertlab.report.settings import ABSENT, amount

MOST_SIDE_BY_SIDE = 6  # arms


def shown_name(metric: Metric) -> str:
    """Its name as runs write it, and its unit, where that is another word: `f1_macro (%)`,
    `bits_per_character`.
    """
    unit = "%" if metric.unit == FRACTION else metric.unit
    return f"{metric.name} ({unit})" if unit not in ("", metric.name.replace("_", " ")) else metric.name


@dataclass(frozen=True)
class Examples:
    """Intervals over seeds and examples, by arm; none of a split where they cannot be computed."""

    validation: Mapping[str, by_example.WithExamples] = field(default_factory=dict)
    test: Mapping[str, by_example.WithExamples] = field(default_factory=dict)


def wider_interval(told: by_example.WithExamples | None, versus: Versus | None, metric: Metric) -> str:
    """A difference's interval over seeds and examples, at the level of the one beside it."""
    if told is None or told.difference is None or versus is None:
        return ""
    return f"[{', '.join(metric.show(end, sign=True) for end in told.difference)}]{_level(versus)}"


def _level(versus: Versus) -> str:
    return "" if versus.comparisons == 1 else f" at {100 * versus.level:.3g} %"


def comparison_table(
    study: Study, rows: Sequence[Row], examples: Mapping[str, by_example.WithExamples]
) -> PageTable:
    """Scores and what may be said of them."""

    def wider(arm: Arm) -> list[str]:
        told = examples.get(arm.name)
        return (
            []
            if told is None
            else [f"[{', '.join(study.metric.show(study.metric.clip(end)) for end in told.score)}]"]
        )

    has_test, alone = any(row.test is not None for row in rows), len(rows) == 1
    headers = [
        "arm",
        "seeds",
        f"{study.scored_on}, mean ± sd",
        "95 % interval",
        *(["examples too"] if examples else []),
        *([] if alone else ["difference [interval]", "p (Holm)"]),
        *(["difference, examples too"] if examples and not alone else []),
        *(["test, mean ± sd"] if has_test else []),
        *([] if alone else ["verdict"]),
    ]
    lines = []
    for row in rows:
        lines.append(
            [
                row.arm.name,
                seeds_text(row.arm),
                spread(row.validation, study.metric),
                interval(row.validation, study.metric),
                *wider(row.arm),
                *([] if alone else difference_cells(row.on_validation, study.metric)),
                *(
                    [wider_interval(examples.get(row.arm.name), row.on_validation, study.metric)]
                    if examples and not alone
                    else []
                ),
                *([spread(row.test, study.metric)] if has_test else []),
                *(
                    []
                    if alone
                    else ["the baseline" if row.on_validation is None else row.on_validation.verdict]
                ),
            ]
        )
    bold = frozenset(index for index, row in enumerate(rows) if row.is_baseline)
    return PageTable(headers, lines, "Scores over seeds", bold, wide=() if alone else (len(headers) - 1,))


def held_out_table(
    study: Study, rows: Sequence[Row], examples: Mapping[str, by_example.WithExamples]
) -> list[PageTable]:
    """The same on the test split, which chose nothing; nothing where no run was scored there."""
    if len(rows) == 1 or not any(row.on_test is not None for row in rows):
        return []
    lines = [
        [row.arm.name, spread(row.test, study.metric), *difference_cells(row.on_test, study.metric),
        *([wider_interval(examples.get(row.arm.name), row.on_test, study.metric)] if examples else []),
        "the baseline" if row.is_baseline else
         "–" if row.on_test is None else row.on_test.verdict]
        for row in rows
    ]  # fmt: skip
    beside = ["difference, examples too"] if examples else []
    headers = ["arm", "test, mean ± sd", "difference [interval]", "p (Holm)", *beside, "verdict"]
    return [
        PageTable(
            headers,
            lines,
            f"On the test split, scored once with {choice_of(study).with_weights}",
            wide=(len(headers) - 1,),
        )
    ]


def difference_cells(versus: Versus | None, metric: Metric) -> list[str]:
    """The difference with its interval, and p. Where the differences do not differ there is nothing to reckon
    an interval by; where the test excludes nothing yet, there is none to tell.
    """
    if versus is None:
        return ["", ""]
    moved = metric.show(versus.difference.mean, sign=True)
    wide = versus.difference.high - versus.difference.low
    if math.isfinite(wide) and wide > 1e-12 * abs(versus.difference.mean):
        moved = f"{moved} {interval(versus.difference, metric, sign=True)}{_level(versus)}"
    return [moved, p_text(versus.p)]


def seeds_text(arm: Arm) -> str:
    """`6`, `6 of 8` where some have no score, `15 on 3 pretrainings`."""
    folds = {seeds.fold for seeds in arm.runs}
    if () not in folds:
        return f"{len(arm.runs)} on {len(folds)} folds"
    told = str(len(arm.runs)) if not arm.failed else f"{len(arm.runs)} of {len(arm.runs) + len(arm.failed)}"
    return told if arm.pretrainings < 2 else f"{told} on {arm.pretrainings} pretrainings"


def further_table(study: Study, rows: Sequence[Row]) -> PageTable:
    """Every seed's score, the last step's, and where there are several pretrainings the spread of
    each level.
    """
    nested = any(len({one.inner for one in row.arm.runs}) < len(row.arm.runs) for row in rows)

    def named(one: Seeds) -> str:
        return one.label if nested else str(one.inner)  # of one seed a pretraining, the seed names both

    every = sorted(
        {one for row in rows for one in row.arm.runs},
        key=lambda one: one if nested else (one.inner, one.outer),
    )
    seeds = list(dict.fromkeys(map(named, every)))
    several = any(
        row.on_validation is not None and not math.isnan(row.on_validation.inner + row.on_validation.outer)
        for row in rows
    )
    lines = []
    for row in rows:
        scores = {named(one): score for one, score in row.arm.scores("validation", study.metric).items()}
        versus = row.on_validation
        levels = (
            ["", ""] if versus is None else [study.metric.show(versus.outer), study.metric.show(versus.inner)]
        )
        last = spread(last_scores(row.arm, study.metric), study.metric)
        lines.append(
            [
                row.arm.name,
                *(study.metric.show(scores.get(one)) for one in seeds),
                last,
                *(levels if several else []),
            ]
        )
    headers = ["arm", *(f"seed {one}" for one in seeds), "last step, mean ± sd"]
    headers += ["sd of the difference between pretrainings", "between their seeds"] if several else []
    of = study.scored_on
    return PageTable(headers, lines, f"{of[:1].upper()}{of[1:]}, seed by seed")


def other_scores(study: Study) -> list[PageTable]:
    """What else was measured at the selected checkpoint: the parts of a loss, scores by class, what other
    papers report.
    """
    offered = {
        metric.name: metric for arm in study.arms for run in arm.in_order() for metric in run.metrics()
    }
    others = [offered[name] for name in sorted(offered) if name != study.metric.name]
    if not others:
        return []
    lines = []
    for arm in study.arms:
        scores = [arm.scores("validation", metric) for metric in others]
        spreads = [
            spread(summarize(own) if own else None, metric)
            for own, metric in zip(scores, others, strict=True)
        ]
        lines.append([arm.name, *spreads])
    headers = [shown_name(metric) for metric in others]
    elsewhere = [metric.name for metric in others if study.baseline.in_order()[0].recorded_as("validation",
                 metric.name) == metric.name]  # fmt: skip
    where = f" (but for {', '.join(elsewhere)})" if elsewhere else ""
    return [
        PageTable(
            ["arm", *headers],
            lines,
            f"Other scores on validation{where}, mean ± sd over seeds",
            folded=len(others) > MOST_SIDE_BY_SIDE,
        )
    ]


def apart_table(study: Study) -> list[PageTable]:
    """Everything that sets the arms apart, key by key, what they are grouped by first, and what came of it:
    vocabulary, parameters, tokens. More arms than fit side by side stand below each other, folded.
    """
    if len(study.arms) < 2:
        return []
    differing = differing_keys(study.arms)
    asked = [key for key in study.keys if key in differing]
    # a key that only some have follows from another
    keys = asked + [
        key
        for key in differing
        if key not in asked and all(arm.resolved(key) != ABSENT for arm in study.arms)
    ]
    facts = {
        "vocabulary": [arm.vocabulary for arm in study.arms],
        "parameters": [arm.parameters for arm in study.arms],
        "tokens seen": [amount(arm.tokens_seen) for arm in study.arms],
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


def cost_table(rows: Sequence[Row]) -> PageTable:
    """What each arm cost, pretraining beside: quality is never shown without it."""
    costs = [row.cost for row in rows]
    columns = {
        "parameters": [amount(cost.parameters, 1) for cost in costs],
        "tokens": [amount(cost.tokens) for cost in costs],
        "pretraining tokens": [
            amount(cost.pretraining_tokens, 1) if cost.pretraining_tokens else ABSENT for cost in costs
        ],
        "FLOPs": [f"{cost.flops:.2g}" for cost in costs],
        "pretraining FLOPs": [_or_none(cost.pretraining_flops, "{:.2g}") for cost in costs],
        "minutes": [f"{cost.minutes:.1f}" for cost in costs],
        "pretraining minutes": [_or_none(cost.pretraining_minutes, "{:.1f}") for cost in costs],
        "core-minutes": [f"{cost.core_minutes:.1f}" for cost in costs],
    }
    shown = {name: cells for name, cells in columns.items() if set(cells) != {ABSENT}}
    names = [row.arm.name + (" †" if row.cost.pretrained_elsewhere else "") for row in rows]
    headers = ["arm", *shown]
    lines = [list(line) for line in zip(names, *shown.values(), strict=True)]
    caption = "Cost of one run (means); a pretraining that several seeds share is counted once a run"
    if any(row.cost.pretrained_elsewhere for row in rows):
        caption += ". † began from weights whose own cost is not on record"
    return PageTable(headers, lines, caption)


def _or_none(number: float, form: str) -> str:
    return form.format(number) if number else ABSENT


def conclusion(study: Study, rows: Sequence[Row]) -> str:
    """One sentence a verdict."""
    base = next(row for row in rows if row.is_baseline)
    of = f"{'on' if study.is_of_rows else 'in'} {study.scored_on}"
    words = [f"“{base.arm.name}” reaches {spread(base.validation, study.metric)} {of}."]
    by_verdict: dict[str, list[str]] = {}
    for row in rows:
        if (versus := row.on_validation) is None:
            continue
        told = [difference_cells(versus, study.metric)[0]] if versus.difference.n else []
        told += [] if math.isnan(versus.p) else [f"p = {p_text(versus.p)}"]
        by_verdict.setdefault(versus.verdict, []).append(
            f"“{row.arm.name}”" + (f" ({', '.join(told)})" if told else "")
        )
    words += [f"{said[:1].upper() + said[1:]}: {', '.join(arms)}." for said, arms in by_verdict.items()]
    return " ".join(words)


def spread(summary: stats.Summary | None, metric: Metric) -> str:
    """`82.4 ± 0.1`."""
    if summary is None:
        return "–"
    return (
        metric.show(summary.mean)
        if math.isnan(summary.sd)
        else f"{metric.show(summary.mean)} ± {metric.show(summary.sd)}"
    )


def interval(summary: stats.Summary | stats.Paired | None, metric: Metric, sign: bool = False) -> str:
    """`[82.2, 82.6]`."""
    if summary is None or math.isnan(summary.low):
        return "–"
    low, high = (
        (summary.low, summary.high)
        if isinstance(summary, stats.Paired)
        else (metric.clip(summary.low), metric.clip(summary.high))
    )
    return f"[{metric.show(low, sign=sign)}, {metric.show(high, sign=sign)}]"


def p_text(p: float) -> str:
    """A p value with two figures."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(share: float) -> str:
    """A share in percent; – where there is none."""
    return "–" if math.isnan(share) else f"{100 * share:.1f}"
