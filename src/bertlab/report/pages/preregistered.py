"""The opening of a study's report: what was asked and decided before the runs, the answer, and where the plan
was left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bertlab.config.studies import StudyPlan
from bertlab.report import stats
from bertlab.report.arms import Study, counted
from bertlab.report.comparison import LEVEL, Row, Versus
from bertlab.report.pages.page import Block, Heading, PageTable, Text
from bertlab.report.pages.tables import Examples, difference_cells, spread, wider_interval


@dataclass(frozen=True)
class Frozen:
    """A plan as it was fixed before the first run."""

    plan: StudyPlan
    seal: str  # the digest that every run of it carries
    at: str  # when, in ISO 8601
    power: Sequence[str]  # what was known then of what it could show
    deviations: Sequence[str]  # in which the plan was left since
    unfinished: str = ""  # of a plan that has not come to its end: what is still to be made


def opening(
    frozen: Frozen, plan: StudyPlan, study: Study, rows: Sequence[Row], examples: Examples
) -> list[Block]:
    """Question, answer, plan, deviations. `plan`: what was carried out, judged as the frozen one says."""
    blocks: list[Block] = [Heading("Question"), Text(plan.question)]
    blocks += [Text(f"Expected before the runs: {plan.hypothesis}")] if plan.hypothesis else []
    blocks += [Heading("Answer")]
    if frozen.deviations:
        blocks.append(
            Text(
                f"The frozen plan was left in {counted(len(frozen.deviations), 'point')}, told below it: the"
                " answer is worth what these leave of it.",
                "warning",
            )
        )
    blocks += [Text(answer(plan, study, rows, examples))]
    blocks += [
        Heading("Plan, frozen before the first run"),
        Text(f"Seal {frozen.seal}, {frozen.at}; every run made since carries it."),
    ]
    blocks += [
        PageTable(
            ["decided", "as"], decisions(frozen.plan, study), "What was fixed before", left=2, wide=(1,)
        )
    ]
    blocks += [Text(line) for line in frozen.power]
    blocks += [Text(f"Left since: {line}", "warning") for line in frozen.deviations]
    if frozen.unfinished:
        blocks.append(Text(frozen.unfinished, "warning"))
    elif not frozen.deviations:
        blocks.append(Text("The plan was kept."))
    return blocks


def decisions(plan: StudyPlan, study: Study) -> list[list[str]]:
    """The plan in words."""
    seeds = (
        f"{plan.seeds} an arm"
        if plan.pretraining_seeds == 1
        else f"{plan.seeds} on each of {plan.pretraining_seeds} pretrainings an arm"
    )
    return [
        [
            "arms",
            "; ".join(
                f"{name}: {' '.join(own) or 'as the shared words say'}" for name, own in plan.arms.items()
            ),
        ],
        ["shared words", " ".join(plan.words) or "none"],
        ["metric, split", f"{study.metric.name}, {plan.split}"],
        ["smallest effect of interest", study.metric.show(plan.effect / study.metric.factor)],
        ["claim", "equivalence" if plan.equivalence else "difference"],
        ["test", f"{stats.TESTS[plan.test].words}, Holm over {counted(len(plan.arms) - 1, 'comparison')}"],
        [
            "seeds",
            f"at most {seeds}, one after the other until the test decides" if plan.is_sequential else seeds,
        ],
        *([["budget", f"{plan.budget_hours:g} hours of training"]] if plan.budget_hours else []),
    ]


def versus_of(plan: StudyPlan, row: Row) -> Versus | None:
    """The difference that answers."""
    return row.on_test if plan.split == "test" else row.on_validation


def answer(plan: StudyPlan, study: Study, rows: Sequence[Row], examples: Examples) -> str:
    """In a sentence for each arm, on the split that was named before: over seeds, and over its examples too
    where they are at hand.
    """
    wider = examples.test if plan.split == "test" else examples.validation
    base = next(row for row in rows if row.is_baseline)
    words = [
        f"“{base.arm.name}” reaches"
        f" {spread(base.test if plan.split == 'test' else base.validation, study.metric)} on {plan.split}."
    ]
    for row in rows:
        if row.is_baseline:
            continue
        versus = versus_of(plan, row)
        if versus is None:
            words.append(f"“{row.arm.name}”: no score on {plan.split}.")
            continue
        difference, p = difference_cells(versus, study.metric)
        if too := wider_interval(wider.get(row.arm.name), versus, study.metric):
            difference += f", with other examples too {too}"
        told = f"“{row.arm.name}”: {versus.verdict} ({difference}, p = {p})."
        words.append(f"{_equivalence(plan, study, row)} {told}" if plan.equivalence else told)
    return " ".join(words)


def _equivalence(plan: StudyPlan, study: Study, row: Row) -> str:
    """Of the claim that there is no difference of interest: whether it is shown."""
    versus = versus_of(plan, row)
    assert versus is not None
    margin = plan.effect / study.metric.factor
    shown, how = versus.equivalence(margin)
    return (
        f"That “{row.arm.name}” differs by less than {study.metric.show(margin)} is"
        f" {'shown' if shown else 'not shown'} ({how})."
    )


def decided(plan: StudyPlan, rows: Sequence[Row]) -> dict[str, str]:
    """Arm -> its verdict, of those on which the test has spoken. No later seed takes it back: an anytime p
    never rises, nor does any that Holm's procedure makes of several.
    """
    found = {row.arm.name: versus_of(plan, row) for row in rows if not row.is_baseline}
    return {
        name: versus.verdict for name, versus in found.items() if versus is not None and versus.p <= LEVEL
    }
