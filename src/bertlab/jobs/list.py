"""`bertlab list`: what there is to choose from, what has been made, what is installed: datasets, models, …, runs, sweeps, licences

usage: bertlab list [WHAT] [runs=PATH[,PATH]] [where="key=value …"] [sort=KEY] [format=table|csv|jsonl]

  bertlab list                        what can be listed
  bertlab list datasets               a group's options, each with what it is (also models, objectives, optimizers, experiments, …)
  bertlab list runs                   runs with their scores, the last finished at the end
  bertlab list runs where="dataset.name=sst2 validation>0.8" sort=-validation
  bertlab list sweeps                 grids and searches, with the best of each
  bertlab list licences               under which licence each package is that is installed with bertlab
"""

import csv
import dataclasses
import io
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlab.config import registry
from bertlab.config.describe import aligned, beside, options_in_words
from bertlab.config.registry import Job
from bertlab.config.schema import Node, Paths, choice, string
from bertlab.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from bertlab.runs.outcome import Context
    from bertlab.runs.records import RunRecord

MADE = {"runs": "what has been trained, with scores", "sweeps": "grids and searches, with the best of each"}
INSTALLED = {"licences": "what is installed with bertlab, under which licence"}
PLURALS = {group: f"{group}s" for group in registry.GROUPS} | {
    "search": "searches",
    "init": "init",
    "compute": "compute",
    "debug": "debug",
}
MOST_KEYS = 6  # that tell runs apart, in a line


@dataclass
class Schema(Node):
    """`bertlab list`: what there is."""

    what: str = string("", "a group, runs or sweeps; written without `what=`")
    runs: str = string("multirun", "run folders or folders that hold them, separated by commas")
    where: str = string(
        "",
        "only runs for which all of this holds: dotted.key=value, or != > < >= <=, separated by spaces;"
        " scores are keys too",
    )
    sort: str | None = string(
        None, "a key or a score to sort runs by, -key from the largest; default: as they were finished"
    )
    format: str = choice(
        "table", "table", "csv", "jsonl", help="table for people; csv and jsonl hold every score and key"
    )
    paths: Paths = field(default_factory=Paths)


def run(config: Schema, _context: "Context") -> None:
    """Print the list."""
    what = name_of(config.what)
    if what == "runs":
        lines = list_runs(config)
    elif what == "sweeps":
        lines = list_sweeps(config)
    elif config.where or config.sort or (config.format != "table" and what != "licences"):
        raise ConfigError("list: where, sort and format are for runs: bertlab list runs …")
    elif what == "licences":
        lines = list_licences(config.format)
    else:
        told = overview() if what == "" else options_in_words(what)
        width = max(map(len, told), default=0)
        lines = iter([line for name, said in told.items() for line in beside(name, said, width)])
    for line in lines:
        print(line)


def name_of(given: str) -> str:
    """`models` or `model` as `model`; runs and sweeps as they are. Raises ConfigError for what cannot be
    listed.
    """
    singular = {plural: group for group, plural in PLURALS.items()} | {
        "run": "runs",
        "sweep": "sweeps",
        "studies": "sweeps",
    }
    name = singular.get(given, given)
    if name not in ("", *registry.GROUPS, *MADE, *INSTALLED):
        raise ConfigError(
            f"list {given}: there is no such list,"
            f" {did_you_mean(given, [*PLURALS.values(), *MADE, *INSTALLED], most=20)}"
        )
    return name


def overview() -> dict[str, str]:
    """What can be listed."""
    return (
        {
            PLURALS[group]: f"{said} ({len(registry.options_of(group))})"
            for group, said in registry.GROUPS.items()
        }
        | MADE
        | INSTALLED
    )


def list_runs(config: Schema) -> Iterator[str]:
    """A line a run: its score in its own metric, its cost, and what sets it apart from others on the same
    dataset and objective.
    """
    from bertlab.runs.listing import row_of

    runs = chosen_runs(config.runs, config.where, config.sort)
    rows = [row_of(run) for run in runs]
    if config.format != "table":
        yield from for_programs(rows, config.format)
        return
    groups: dict[tuple[Any, Any], list[Any]] = {}
    for one in runs:
        groups.setdefault((one.config.get("dataset.name"), one.config.get("objective.component")), []).append(
            one
        )
    varying = {kind: telling_keys(members) for kind, members in groups.items()}
    cells = []
    for one, row in zip(runs, rows, strict=True):
        keys = varying[one.config.get("dataset.name"), one.config.get("objective.component")]
        told = " ".join(
            f"{key.removesuffix('.component')}={one.config[key]}"
            for key in keys
            if one.config.get(key) is not None
        )
        state = row["status"] if one.problem else told or "-"
        minutes = "-" if row["minutes"] is None else f"{row['minutes']:.1f}"
        cells.append(
            [
                row["folder"],
                row["metric"] or "-",
                score(row["validation"]),
                score(row["test"]),
                minutes,
                row["finished"][:16] or "-",
                state,
            ]
        )
    yield from aligned(
        [["run", "metric", "validation", "test", "minutes", "finished", "what sets it apart"], *cells]
    )
    finished = sum(not one.problem for one in runs)
    yield f"{len(runs)} runs, {finished} finished" + (
        f"; of {config.runs}, where {config.where}" if config.where else ""
    )


def telling_keys(runs: "Sequence[RunRecord]") -> list[str]:
    """Keys of the config that tell these runs apart: seeds and folds, what their commands give several values,
    then what else differs and decides results, as far as a line has room.
    """
    from bertlab.report.settings import SEEDS, setting, varying_keys

    named = [key for run in runs for name in swept_keys(run) for key in (name, f"{name}.component")]
    given = [
        key
        for key in dict.fromkeys([*SEEDS, *named])
        if any(key in run.config for run in runs) and len({str(setting(run, key)) for run in runs}) > 1
    ]
    others = [key for key in varying_keys(runs) if key not in given]
    return [*given, *others[: max(0, MOST_KEYS - len(given))]]


def swept_keys(run: "RunRecord") -> list[str]:
    """Keys of which the command of its grid has several values; none where it cannot be read any more."""
    from hydra.errors import HydraException

    from bertlab.config.words import read

    given = [word for word in words_of(run) if "=" in word]
    try:
        return [word.name for word in read(given) if word.sweep]
    except (HydraException, ConfigError):
        return []


def words_of(run: "RunRecord") -> list[str]:
    """Its recorded command."""
    command = str(run.summary.get("command") or "")
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def chosen_runs(paths: str, where: str, sort: str | None) -> "list[RunRecord]":
    """Runs below folders separated by commas, chosen and in order. Raises RunError or ConfigError."""
    from bertlab.runs.listing import ordered, select
    from bertlab.runs.records import find_runs

    return ordered(
        select(find_runs([path.strip() for path in paths.split(",") if path.strip()]), where.split()), sort
    )


def list_sweeps(config: Schema) -> Iterator[str]:
    """Searches by their studies' tables, grids by the command that their runs have in common."""
    rows = [*searches(config.runs), *grids(config)]
    yield from aligned([["sweep", "runs", "best", "of", "where or how"], *rows])
    yield f"{len(rows)} sweeps"


def study_folders(paths: str) -> list[Path]:
    """Each study below the folders' `studies/`."""
    places = [Path(path.strip()).expanduser() for path in paths.split(",") if path.strip()]
    return sorted(folder for place in places for folder in (place / "studies").glob("*") if folder.is_dir())


def trials_of(study: Path) -> list[dict[str, str]] | None:
    """The rows of its trials.csv; None where there is none yet."""
    if not (study / "trials.csv").is_file():
        return None
    with (study / "trials.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def searches(paths: str) -> Iterator[list[str]]:
    """Each study, by its trials."""
    for folder in study_folders(paths):
        trials = trials_of(folder)
        if trials is None:
            yield [
                folder.name,
                "-",
                "-",
                "-",
                f"{folder} (no trials.csv yet: running, or stopped; the same command goes on)",
            ]
            continue
        states = Counter(trial["state"] for trial in trials)
        told = ", ".join(
            f"{states[state]} {word}"
            for state, word in (("complete", "finished"), ("pruned", "pruned"), ("fail", "failed"))
            if states[state]
        )
        best = next((trial for trial in trials if trial.get("best") == "yes"), None)
        metric = "" if best is None else best.get("metric", "")
        yield [
            folder.name,
            told,
            "-" if best is None else score(float(best[next(key for key in best if key.startswith("value"))])),
            metric or "-",
            str(folder),
        ]


def grids(config: Schema) -> Iterator[list[str]]:
    """Runs that one command with several values made; those of a search are told by its trials."""
    searched = {
        Path(trial.get("run") or "").name
        for study in study_folders(config.runs)
        for trial in trials_of(study) or ()
    }
    runs = chosen_runs(config.runs, config.where, config.sort)
    commands: dict[tuple[str, ...], list[Any]] = {}
    for one in runs:
        words = words_of(one)
        if {"-m", "--multirun"} & set(words) and not any(word.startswith("search=") for word in words):
            commands.setdefault(of_suite(words), []).append(one)
    for whole, members in commands.items():
        own = {str(one.summary["command"]) for one in members}
        command = own.pop() if len(own) == 1 else shlex.join(whole)  # of a suite's tasks each has its own
        done = [one for one in members if not one.problem]
        if done and all(one.name in searched for one in done):
            continue
        scored = [(value, one) for one in done if (value := one.score("validation", one.primary)) is not None]
        best = ["-", "-"]
        if scored and len({one.primary for _, one in scored}) == 1:
            metric = next(metric for metric in scored[0][1].metrics() if metric.name == scored[0][1].primary)
            value = (max if metric.higher_is_better else min)(value for value, _ in scored)
            best = [score(value), f"validation/{metric.name}"]
        yield [
            "grid",
            f"{len(done)} finished"
            + (f", {len(members) - len(done)} not" if len(done) < len(members) else ""),
            *best,
            command,
        ]


def of_suite(words: Sequence[str]) -> tuple[str, ...]:
    """The command of a whole suite for that of one of its tasks, which names the task and what the suite tries
    in it; others as they are.
    """
    from bertlab.config.suites import read_suite

    task = next((word for word in words if word.startswith("suite=") and "/" in word), None)
    if task is None:
        return tuple(words)
    suite = task.removeprefix("suite=").partition("/")[0]
    try:
        tried = read_suite(suite).keys_of_grid()
    except ConfigError:  # of a preset that is gone
        tried = []
    return tuple(
        f"suite={suite}" if word == task else word for word in words if word.partition("=")[0] not in tried
    )


def list_licences(form: str) -> Iterator[str]:
    """A line a package; how often each licence; those that declare none by name."""
    from bertlab.runs.licences import UNKNOWN, licences_with

    packages = licences_with("bertlab")
    rows = [dataclasses.asdict(one) for one in packages]
    if form != "table":
        yield from for_programs(rows, form)
        return
    cells = [[one.package, one.version, one.needed_by, one.declared_as, one.licence] for one in packages]
    yield from aligned([["package", "version", "needed by", "declared as", "licence"], *cells])
    counts = Counter(one.licence for one in packages)
    yield f"{len(packages)} packages: " + ", ".join(
        f"{count} {licence}" for licence, count in counts.most_common()
    )
    if undeclared := [one.package for one in packages if one.licence == UNKNOWN]:
        yield f"without a declared licence, to be looked up where they come from: {', '.join(undeclared)}"


def for_programs(rows: Sequence[dict[str, Any]], form: str) -> Iterator[str]:
    """The rows whole, as JSON lines or CSV."""
    if form == "jsonl":
        yield from (json.dumps(row, ensure_ascii=False) for row in rows)
        return
    keys = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    table = csv.DictWriter(stream, keys, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    yield stream.getvalue().rstrip("\n")


def score(value: float | None) -> str:
    """Four digits, - for none."""
    return "-" if value is None else f"{value:.4f}"


JOB = Job(Schema, run)
