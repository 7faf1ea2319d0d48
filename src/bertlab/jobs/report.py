"""`bertlab report`: compare the runs below a folder: tables, intervals, tests, figures, as Markdown, LaTeX, CSV and one HTML page

usage: bertlab report runs=PATH[,PATH] [out=report] [where="key=value …"] [baseline=ARM] [metric=NAME] …

Finds which keys vary and which arms that makes, pairs runs by seed, and says what may be said. Unfinished and damaged runs are listed.

  runs=multirun                       run folders, or folders that hold them
  where="dataset.name=sst2 dataset.fraction=0.3"   only runs with these values
  baseline="init=scratch"             the arm that others are compared with, by name or by settings (default: the commonest setting)
  group_by="optimizer.lr model.positions"          arms by these keys alone (default: all that vary)
  study=scratch_vs_pretrained         baseline, group_by and names for the arms of "from scratch against pretrained", each with its name
  names="init=scratch -> from scratch; baseline -> pretrained"    what arms are called
  order="from scratch; pretrained"    in which order
  test=t                              a paired t test instead of the exact sign-flip test (say so before the runs)
  test=anytime                        a test that stays valid when seeds are added one after the other until it decides
  scaling=flops scaling_by="objective.masking_rate"    a power law through arms of several sizes, and the largest foretold from the rest
  suite=glue_small                    its tasks' names and order, published scores beside, what its grid chooses
  select="optimizer.lr"               for each arm and task the value with the best mean on validation; never by the test split
  metric=accuracy                     default: what selected the checkpoints; bits_per_character where tokenizers differ;
                                      pairs/accuracy: minimal pairs, of runs with evaluation.pairs
  examples=false contamination=false  leave out what reads the datasets     texts=false   leave out the texts of examples
  wandb=PROJECT                       upload it to W&B too, as an artifact with its page and tables
  formats=md,html,csv,tex             keep_runs=true   with the runs beside it, weights left out, to make it again anywhere: runs=OUT
"""

import csv
import dataclasses
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from bertlab.config.composition import declared_tasks
from bertlab.config.registry import Job
from bertlab.config.schema import Node, Paths, choice, flag, number, string
from bertlab.config.suites import Suite
from bertlab.errors import ConfigError, RunError, did_you_mean
from bertlab.report import stats
from bertlab.report.arms import Study, counted
from bertlab.report.grouping import studies_of
from bertlab.report.pages.build import build_page
from bertlab.report.pages.methods import METHODS
from bertlab.report.pages.page import Page, PageTable, Text, latex_text, plain, to_html, to_latex, to_markdown
from bertlab.report.pages.tasks import tasks_blocks
from bertlab.report.scaling import COSTS
from bertlab.report.tasks import many_tasks, tasks_rows
from bertlab.runs.files import clear_orphans, to_json, write_atomically, write_record
from bertlab.runs.listing import CONDITION, select
from bertlab.runs.outcome import Context
from bertlab.runs.records import RunRecord, find_runs, keep_runs, one_run_command, without_paths
from bertlab.trackers.wandb import upload_report

FORMATS = ("md", "html", "csv", "tex")


@dataclass
class Schema(Node):
    """What to compare, and how."""

    runs: str = string(MISSING, "run folders or folders that hold them, separated by commas")
    out: str = string("report", "folder for the report; written anew as a whole")
    title: str | None = string(None, "the page's title")
    where: str = string("", "only runs with these values: dotted.key=value, separated by spaces")
    metric: str | None = string(
        None,
        "the score to compare; default: what selected the checkpoints, bits_per_character where tokenizers"
        " differ",
    )
    baseline: str | None = string(
        None, "name of the arm that the others are compared with; default: the commonest setting"
    )
    group_by: str = string(
        "", "keys or groups that make the arms, separated by spaces; default: every key that varies"
    )
    names: str = string(
        "",
        "new names of arms: 'old -> new', separated by ';'; old is a name or settings, 'old? -> new' where"
        " there is one",
    )
    order: str = string("", "arms in this order, separated by ';'; those not named follow")
    test: str = choice(
        stats.SIGN_FLIP,
        *stats.TESTS,
        help=(
            "of paired differences, chosen before the runs; t shows more with few seeds, and takes them for"
            " normal; anytime, too, and stays valid when seeds are added until it decides; anytime_large, too, and"
            " tells effects of several spreads from four seeds on, small ones later"
        ),
    )
    suite: Suite | None = None
    select: str = string(
        "", "keys of which each arm takes the value with the best mean on validation, separated by spaces"
    )
    stochastic_order: bool = flag(
        False, "over several tasks, also the almost stochastic order over the baseline (Dror et al. 2019)"
    )
    effect: float | None = number(
        None,
        "smallest difference of interest, in the metric's shown unit; where none is found, says if it is"
        " smaller, or what would tell",
        above=0,
    )
    scaling: str | None = choice(
        None,
        *COSTS,
        help=(
            "fit a power law of the loss through arms of several sizes, and let the smaller ones foretell the"
            " largest"
        ),
    )
    scaling_by: str = string("", "keys of which each value gets a law of its own, separated by spaces")
    formats: str = string("md,html,csv,tex", "which files, separated by commas")
    examples: bool = flag(True, "compare example by example, where the datasets are at hand")
    texts: bool = flag(
        True,
        "show the hardest examples' texts; false for a report that is published where the data may not be",
    )
    keep_runs: bool = flag(
        False,
        "keep what the report reads of its runs (all but weights) in OUT/runs.parquet, so that it can be made"
        " again anywhere",
    )
    contamination: bool = flag(
        True, "look for evaluation texts in what was trained on, where the datasets are at hand"
    )
    wandb: str | None = string(
        None, "upload the report to this W&B project, PROJECT or ENTITY/PROJECT; WANDB_MODE=offline keeps it"
    )
    paths: Paths = field(default_factory=Paths)

    def check(self, path: str) -> None:
        """Forms of the lists."""
        for name in parts(self.formats, ","):
            if name not in FORMATS:
                raise ConfigError(f"formats: unknown format '{name}', {did_you_mean(name, FORMATS)}")
        for word in parts(self.names, ";"):
            if word.count(" -> ") != 1:
                raise ConfigError(f"names: '{word}' is not of the form 'old -> new'")
        for word in self.where.split():
            if CONDITION.fullmatch(word) is None:
                raise ConfigError(f"where: '{word}' is not of the form dotted.key=value")


def parts(text: str, separator: str) -> list[str]:
    """What stands between separators, trimmed."""
    return [part.strip() for part in text.split(separator) if part.strip()]


def run(config: Schema, context: Context) -> None:
    """Write the report and say where it is."""
    print(f"reading {config.runs}", flush=True)
    runs, studies, page = compare_runs(config, lambda line: print(line, flush=True))
    out = Path(config.out).expanduser()
    write_report(out, page, studies, config, context.command)
    if config.keep_runs:
        # those without a result too: the report lists them
        keep_runs([one for one in runs if one.config], out)
    for study in studies:
        print(
            f"{study.title}: {study.sizes}"
            + (f", baseline “{study.baseline.name}”" if len(study.arms) > 1 else "")
        )
    if config.wandb is not None:
        shown = {name: (table.headers, table.rows) for name, table in named_tables(page) if not table.folded}
        upload_report(config.wandb, out, page.title, shown)
    if bad := [one for one in runs if one.problem]:
        print(
            f"{counted(len(bad), 'run')} without a result: "
            + "; ".join(f"{one.name} ({one.problem})" for one in bad[:5])
            + (" …" if bad[5:] else "")
        )
    print(f"report: {out}")


def compare_runs(
    config: Schema, tell: Callable[[str], None] = lambda _: None
) -> tuple[list[RunRecord], list[Study], Page]:
    """Read, group, compare; `tell` hears what takes a while. Raises RunError or ConfigError."""
    runs = find_runs(parts(config.runs, ","))
    chosen = select(runs, config.where.split())
    names = {
        old.strip(): new.strip()
        for old, _, new in (word.partition(" -> ") for word in parts(config.names, ";"))
    }
    studies = studies_of(
        chosen,
        config.group_by.split(),
        config.baseline,
        names,
        parts(config.order, ";"),
        config.metric,
        chosen_by_validation(config, chosen),
    )
    if not studies:
        raise RunError(
            f"runs={config.runs}: none of the {len(chosen)} runs has finished"
            + (f" ({chosen[0].problem})" if chosen else "")
        )
    stages = [
        one
        for one in runs
        if one not in chosen and not one.problem and one.name in {other.stage for other in chosen}
    ]
    tell(f"comparing {counted(len(chosen), 'run')}: scores, tests, examples, figures")
    title = config.title or "Comparison: " + ", ".join(study.title for study in studies)
    page = build_page(
        title,
        studies,
        [*chosen, *stages],
        config.examples,
        config.texts,
        config.contamination,
        config.paths.mirror,
        config.test,
        config.effect,
        None if config.scaling is None else (config.scaling, config.scaling_by.split()),
    )
    if (
        many := many_tasks(
            studies, config.suite, None if config.suite is None else declared_tasks(config.suite)
        )
    ) is not None:
        rows = tasks_rows(
            many, {one.name: one for one in stages}, config.test, config.effect, config.stochastic_order
        )
        page.blocks[:0] = tasks_blocks(many, rows)
    return [*chosen, *stages], studies, page


def chosen_by_validation(config: Schema, runs: Sequence[RunRecord]) -> list[str]:
    """The keys that make no arms: those asked for, else those of the suite's grid that its runs have."""
    if config.select or config.suite is None:
        return config.select.split()
    known = {key for run in runs for key in run.config}
    return [key for key in config.suite.keys_of_grid() if known & {key, f"{key}.component"}]


def write_report(out: Path, page: Page, studies: Sequence[Study], config: Schema, command: str) -> None:
    """All files of the report; each is whole or not there. Raises RunError where the folder cannot be
    written.
    """
    formats = parts(config.formats, ",")
    try:
        for place in (out, out / "figures", out / "tables"):
            clear_orphans(place)
        out.mkdir(parents=True, exist_ok=True)
        if "md" in formats:
            for figure in page.figures():
                for ending, content in (
                    ("png", figure.png),
                    ("svg", figure.svg.encode()),
                    ("pdf", figure.pdf),
                ):
                    if content:
                        place = out / "figures" / f"{figure.name}.{ending}"
                        write_atomically(place, lambda file, content=content: file.write_bytes(content))  # type: ignore[misc]  # a lambda's default
            write_record(out / "report.md", to_markdown(page))
            write_record(out / "methods.txt", methods_of(page))
        if "html" in formats:
            write_record(out / "report.html", to_html(page))
        if "tex" in formats:
            write_record(out / "report.tex", to_latex(page))
            write_record(out / "methods.tex", latex_text(methods_of(page)))
        if "csv" in formats:
            write_record(out / "runs.csv", runs_csv(studies))
            for name, table in named_tables(page):
                write_record(out / "tables" / f"{name}.csv", table_csv(table))
        request = {
            key: value
            for key, value in dataclasses.asdict(config).items()
            if key not in ("paths", "out", "suite", "wandb")
        }
        command = " ".join(
            word for word in command.split(" ") if not word.startswith(("out=", "'out=", "paths."))
        )
        commands = [one_run_command(one) for study in studies for arm in study.arms for one in arm.in_order()]
        names = [one.name for study in studies for arm in study.arms for one in arm.in_order()]
        configs = {
            one.name: without_paths(one.tree)
            for study in studies
            for arm in study.arms
            for one in arm.in_order()
        }
        write_record(out / "report.json", to_json({"command": command, "request": request,
            "runs": dict(zip(names, commands, strict=True)),
                                                 "configs": configs,
                                                 "scores": scores_of(studies)}))  # fmt: skip
    except OSError as error:
        raise RunError(f"out={out}: cannot be written ({error.strerror or error})") from error


def methods_of(page: Page) -> str:
    """The paragraph that a paper can take as it stands."""
    return "".join(
        f"{plain(block.text)}\n" for block in page.blocks if isinstance(block, Text) and block.kind == METHODS
    )


def scores_of(studies: Sequence[Study]) -> dict[str, dict[str, float]]:
    """Run -> its scores, exactly: what a reproduction is compared with."""
    return {
        run.name: {
            key: value
            for key, value in sorted(run.summary["metrics"].items())
            if isinstance(value, int | float)
        }
        for study in studies
        for arm in study.arms
        for run in arm.runs.values()
    }


def named_tables(page: Page) -> list[tuple[str, PageTable]]:
    """The page's tables by a name of their own: where each stands, and the words of its caption."""
    tables = [block for block in page.blocks if isinstance(block, PageTable)]
    return [
        (
            (
                f"{number:02d}-{re.sub('[^a-z0-9]+', '-', table.caption.lower().partition(';')[0])[:48].strip('-')}"
            ),
            table,
        )
        for number, table in enumerate(tables, start=1)
    ]


def table_csv(table: PageTable) -> str:
    """A table's cells as they are shown."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(
        [map(inert, row) for row in (table.headers, *table.rows)]
    )
    return stream.getvalue()


def inert(cell: object) -> object:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    return (
        f"'{cell}"
        if isinstance(cell, str)
        and cell.startswith(("=", "+", "-", "@"))
        and not re.fullmatch(r"[+-][\d.,e+-]+( .*)?", cell)
        else cell
    )


def runs_csv(studies: Sequence[Study]) -> str:
    """One line a run, numbers as they are."""
    keys = sorted({key for study in studies for key in study.keys})
    every = scores_of(studies)
    metrics = sorted({key for scores in every.values() for key in scores})
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    fold = (
        ["fold"] if any(seeds.fold for study in studies for arm in study.arms for seeds in arm.runs) else []
    )
    table.writerow(
        [
            "study",
            "arm",
            "seed",
            "pretraining_seed",
            *fold,
            "run",
            *keys,
            *metrics,
            "parameters",
            "tokens",
            "seconds",
            "flops",
        ]
    )
    for study in studies:
        for arm in study.arms:
            for seeds, run in sorted(arm.runs.items()):
                cost = run.summary.get("cost", {})
                own_fold = seeds.fold[2:] or [""] * len(fold)
                table.writerow([inert(study.title), inert(arm.name), seeds.inner, seeds.outer, *own_fold,
                    inert(run.name),
                                *(inert(run.config.get(key, "")) for key in keys),
                                *(every[run.name].get(key, "") for key in metrics),
                                *(cost.get(key, "") for key in ("parameters", "tokens", "seconds",
                                "flops"))])  # fmt: skip
    return stream.getvalue()


JOB = Job(Schema, run)
