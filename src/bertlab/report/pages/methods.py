"""A methods paragraph, ready to paste, and an appendix of all settings: what runs have on record.

A clause without its fact is left out; where runs differ in a fact, every value is told.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bertlab.report import stats
from bertlab.report.arms import Study
from bertlab.report.arms import counted as counted_runs
from bertlab.report.pages.page import Block, Heading, PageTable, Text
from bertlab.report.settings import ABSENT, decides
from bertlab.runs.records import RunRecord

METHODS = "methods"  # the kind of text that is written to files of its own
MOST_TOLD = 6  # values of one fact
MOST_SEEDS = 20
PACKAGES = ("torch", "tokenizers")
Runs = Sequence[RunRecord]


def methods_blocks(studies: Sequence[Study], test: str) -> list[Block]:
    """The paragraph under its heading."""
    return [Heading("Methods"), Text(paragraph(studies, test), METHODS)]


def paragraph(studies: Sequence[Study], test: str) -> str:
    """Data, models, weights, tokens, training, selection, seeds, statistics, machines: a sentence each."""
    arms = [
        (arm.name if len(study.arms) > 1 else study.title, arm.in_order())
        for study in studies
        for arm in study.arms
    ]
    runs = [run for _, own in arms for run in own]
    sentences = [
        _data(studies),
        *_by_component(arms, "model", _model),
        *_by_component(arms, "init", _first_weights),
        *_by_component(arms, "tokenizer", _tokenizer),
        *_by_component(arms, "optimizer", _optimizer),
        *_by_component(arms, "schedule", _schedule),
        _budget(runs),
        _selection(runs),
        _seeds(studies),
        _statistics(studies, test),
        _machine(runs),
    ]
    return " ".join(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in sentences if sentence)


# --- the data of each arm -------------------------------------------------------------------------
COUNTED = {  # of a split, as runs count them
    "rows": "rows",
    "empty": "empty texts",
    "copies": "copies of earlier rows",
    "conflicting": "rows whose copies have other answers",
    "in_train": "rows that stand in train too",
}


def data_blocks(study: Study) -> list[Block]:
    """How many rows each arm's splits have, what is odd about them, and how many were left out of what was
    read, and why.
    """
    lines: dict[str, list[list[str]]] = {}
    for arm in study.arms:
        runs = arm.in_order()
        for split in ("train", "selection", "validation", "test"):
            own = [run.summary.get("rows", {}).get(split, {}) for run in runs]
            if any(own):
                cells = [_range([one.get(name) for one in own]) for name in COUNTED]
                lines.setdefault(arm.name, []).append([split, *cells])
    if not lines:
        return []
    same = len(lines) == len(study.arms) and all(own == lines[study.arms[0].name] for own in lines.values())
    rows = [
        ["all arms" if same else name, *line]
        for name, own in ([next(iter(lines.items()))] if same else lines.items())
        for line in own
    ]
    there = [place for place in range(len(COUNTED)) if place == 0 or any(row[2 + place] != "0" and
             row[2 + place] != ABSENT for row in rows)]  # fmt: skip
    table = PageTable(
        ["arm", "split", *(list(COUNTED.values())[place] for place in there)],
        [[*row[:2], *(row[2 + place] for place in there)] for row in rows],
        "The data of each arm",
        left=2,
    )
    by_arm = {arm.name: left_out_of(arm.in_order()) for arm in study.arms}
    alike = len(set(map(tuple, by_arm.values()))) == 1
    sentences = [
        f"{'' if alike else f'“{name}”: '}{'; '.join(told)}."
        for name, told in ([next(iter(by_arm.items()))] if alike else by_arm.items())
        if told
    ]
    silent = [run for arm in study.arms for run in arm.in_order() if "left_out" not in run.summary]
    if silent:
        sentences.append(
            f"Of {counted_runs(len(silent), 'run')} of an earlier version it is not on record whether rows"
            " were left out."
        )
    return [table, Text(" ".join(sentence[:1].upper() + sentence[1:] for sentence in sentences))]


def left_out_of(runs: Runs) -> list[str]:
    """`of 411 rows of reviews.csv 14 without an answer were left out`, for each source that lost some."""
    sentences: dict[str, None] = {}
    for run in runs:
        for source, found in run.summary.get("left_out", {}).items():
            reasons = [f"{number:,} {why}" for why, number in found.items() if why != "read"]
            if reasons:
                sentences[
                    f"of {found.get('read', 0):,} rows of {source} {' and '.join(reasons)} were left out"
                ] = None
    return list(sentences)


def _range(values: Sequence[int | None]) -> str:
    """`301`, of folds `290 to 301`."""
    known = [value for value in values if value is not None]
    if not known:
        return ABSENT
    low, high = min(known), max(known)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


# --- facts on record ------------------------------------------------------------------------------
def distinct(values: Sequence[object]) -> list[str]:
    """Each once, as one would write it; none where one is not on record, or where they are too many."""
    if any(value is None for value in values):
        return []
    numbers = all(isinstance(value, int | float) for value in values)
    once = sorted(set(values), key=None if numbers else str)  # type: ignore[type-var, arg-type]  # numbers, or text
    shown_once = [f"{value:,}" if isinstance(value, int) else shown(value) for value in once]
    return shown_once if len(once) <= MOST_TOLD else []


def told(values: Sequence[object], form: str) -> str:
    """The values in words, `{}` standing for them; empty where they are not on record."""
    once = distinct(values)
    return form.format(" or ".join(once)) if once else ""


def of(runs: Runs, key: str, form: str) -> str:
    """The same of a key of the config."""
    return told([run.config.get(key) for run in runs], form)


def counted(runs: Runs, key: str, noun: str) -> str:
    """`1 layer`, `2 or 4 layers`."""
    once = distinct([run.config.get(key) for run in runs])
    return f"{' or '.join(once)} {noun}{'' if once == ['1'] else 's'}" if once else ""


def listed(clauses: Sequence[str], between: str = ", ") -> str:
    """Those that say something."""
    return between.join(clause for clause in clauses if clause)


def cost(runs: Runs, name: str) -> list[float | None]:
    """What each run's training took of something."""
    return [run.summary.get("cost", {}).get(name) for run in runs]


def spread(values: Sequence[float | None], noun: str) -> str:
    """`188 steps`, `188 to 190 steps`; empty where one is not on record."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return ""
    low, high = (f"{end:,.0f}" for end in (min(known), max(known)))
    return f"{low} {noun}" if low == high else f"{low} to {high} {noun}"


def _by_component(arms: Sequence[tuple[str, Runs]], part: str, words: Callable[[Runs], str]) -> Iterator[str]:
    """A sentence for each component that was chosen, with the arms that chose it where there are several."""
    groups: dict[str, list[tuple[str, Runs]]] = {}
    for name, runs in arms:
        groups.setdefault(str(runs[0].config.get(f"{part}.component")), []).append((name, runs))
    for own in groups.values():
        sentence = words([run for _, runs in own for run in runs])
        names = list(dict.fromkeys(f"“{name}”" for name, _ in own))
        where = f"In {', '.join(names)}: " if len(groups) > 1 and len(names) <= MOST_TOLD else ""
        if sentence:
            yield f"{where}{sentence}"


# --- sentences ------------------------------------------------------------------------------------
def _data(studies: Sequence[Study]) -> str:
    words = {
        "train": "{} examples for training",
        "selection": "{} for selection",
        "validation": "{} for validation",
        "test": "{} for test",
    }
    tasks = []
    for study in studies:
        runs = [run for arm in study.arms for run in arm.in_order()]
        rows = [run.summary.get("rows", {}) for run in runs]
        sizes = [
            told([one.get(split, {}).get("rows") for one in rows], form) for split, form in words.items()
        ]
        without = list(dict.fromkeys(sentence for run in runs for sentence in left_out_of([run])))
        omitted = f" ({'; '.join(without)})" if 0 < len(without) <= MOST_TOLD else ""
        tasks.append(listed([study.title, listed(sizes)], ", with ") + omitted)
    return f"the task{'s are' if len(tasks) > 1 else ' is'} {'; '.join(tasks)}"


def _model(runs: Runs) -> str:
    kind = of(runs, "model.component", "{}")
    size = listed(
        [
            counted(runs, "model.num_hidden_layers", "layer"),
            of(runs, "model.hidden_size", "hidden size {}"),
            counted(runs, "model.num_attention_heads", "attention head"),
            of(runs, "model.positions", "{} positions"),
            of(runs, "model.norm_placement", "{}-norm"),
            of(runs, "model.hidden_dropout", "dropout {}"),
        ]
    )
    weights = told(cost(runs, "parameters"), "{} parameters, its head included")
    name = of(runs, "model.name_or_path", " {}")
    body = listed([size, weights], "; ")
    return f"the encoder is {kind}{name}{f' ({body})' if body else ''}" if kind else ""


def _first_weights(runs: Runs) -> str:
    kind = of(runs, "init.component", "{}")
    if kind == "scratch":
        return "weights are drawn at random" + of(runs, "model.initializer_range", " (standard deviation {})")
    if kind != "stage":
        origin = of(runs, "init.path", "{}") or of(runs, "model.name_or_path", "{}")
        return f"training begins from the weights of {origin}" if origin else ""
    stages = [(run.summary.get("stage") or {}).get("cost", {}) for run in runs]
    how = listed(
        [
            of(runs, "init.objective.masking_rate", "masking rate {}"),
            of(runs, "init.objective.max_length", "sequences of up to {} tokens"),
            of(runs, "init.optimizer.component", "{}"),
            of(runs, "init.optimizer.lr", "learning rate {}"),
            of(runs, "init.budget.batch_size", "batches of {}"),
            spread([stage.get("steps") for stage in stages], "steps"),
            spread([stage.get("tokens") for stage in stages], "tokens"),
        ]
    )
    what = of(runs, "init.objective.component", "{}") + of(runs, "init.dataset.name", " on {}")
    return f"weights are pretrained first ({listed([what, how], ': ')})"


def _tokenizer(runs: Runs) -> str:
    kind = of(runs, "tokenizer.component", "{}")
    lower = {run.config.get("tokenizer.lowercase") for run in runs} == {True}
    size = told([run.summary.get("vocabulary") for run in runs], "a vocabulary of {}")
    clauses = [
        size or of(runs, "tokenizer.vocab_size", "a vocabulary of at most {}"),
        "text lower-cased" if lower else "",
        of(runs, "objective.max_length", "up to {} tokens of an example"),
    ]
    own = f"the tokenizer is {kind}" if kind != "inherited" else "the tokenizer is that of the first weights"
    return listed([own, listed(clauses)], ", with ") if kind else ""


def _optimizer(runs: Runs) -> str:
    kind = of(runs, "optimizer.component", "{}")
    first = ("optimizer.component", "optimizer.name", "optimizer.lr")
    others = [
        of(runs, key, f"{key.partition('.')[2].replace('_', ' ')} {{}}")
        for key, value in runs[0].config.items()
        if key.startswith("optimizer.") and key not in first and value  # off where false or 0
    ]
    rate = of(runs, "optimizer.lr", "with a peak learning rate of {}")
    return listed([f"training is by {kind} {rate}".strip(), listed(others)], ", ") if kind else ""


def _schedule(runs: Runs) -> str:
    kind = of(runs, "schedule.component", "{}")
    steps = of(runs, "schedule.warmup_steps", "warm-up over {} steps")
    shares = distinct([_percent(run.config.get("schedule.warmup_fraction")) for run in runs])
    share = f"warm-up over the first {' or '.join(shares)} % of training" if shares else ""
    final = of(runs, "schedule.final_fraction", "ending at {} of the peak")
    return listed([f"the schedule is {kind}", listed([steps or share, final])], ", with ") if kind else ""


def _percent(share: object) -> float | None:
    return round(100 * share, 4) if isinstance(share, int | float) else None


def _budget(runs: Runs) -> str:
    units = {"epochs": "{} epochs", "steps": "{} steps", "tokens": "{} tokens", "examples": "{} examples",
             "hours": "{} hours"}  # fmt: skip
    asked = [of(runs, f"budget.{unit}", form) for unit, form in units.items()]
    came = listed([spread(cost(runs, "steps"), "steps"), spread(cost(runs, "tokens"), "tokens")], " and ")
    batch = of(runs, "budget.batch_tokens", "batches of {} tokens") or of(
        runs, "budget.batch_size", "batches of {} examples"
    )
    length = listed(asked, " or ")
    return f"a run lasts {length}{f' ({came})' if came else ''}, in {batch}" if length and batch else ""


def _selection(runs: Runs) -> str:
    names = list(dict.fromkeys(str(run.summary["selected_by"]).replace("/", " ") for run in runs))
    kept = {run.config.get("evaluation.keep") for run in runs}
    patience = of(runs, "evaluation.patience", "; training stops after {} evaluations without a better one")
    if kept == {"last"}:
        return "the weights of the last step are scored"
    if kept != {"best"}:
        return ""
    better = f"the checkpoint with the best {' or '.join(names)} is kept and scored{patience}"
    tested = any(name.startswith("test/") for run in runs for name in run.summary["metrics"])
    return better + (", on the test split once" if tested else "")


def _seeds(studies: Sequence[Study]) -> str:
    arms = [arm for study in studies for arm in study.arms]
    counts = distinct([len(arm.runs) for arm in arms])
    seeds = sorted({one.inner for arm in arms for one in arm.runs})
    several = [arm.pretrainings for arm in arms if arm.pretrainings > 1]
    folds = [study.folds for study in studies if study.folds]
    clauses = [
        f"{' or '.join(counts)} run{'' if counts == ['1'] else 's'} an arm",
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if len(seeds) <= MOST_SEEDS else "",
        told(several, "{} pretrainings") if several else "",
        told(folds, "{} folds") if folds else "",
    ]
    return f"there are {listed(clauses)}" if counts else ""


def _statistics(studies: Sequence[Study], test: str) -> str:
    if not any(len(study.arms) > 1 for study in studies):
        return "scores are means over seeds with 95 % t intervals"
    words = (
        "the corrected resampled t test (Nadeau and Bengio 2003)"
        if all(study.folds for study in studies)
        else f"the {stats.TESTS[test].words}"
    )
    level = "which hold together at 95 % over the comparisons of a task (Bonferroni)"
    intervals = (
        f"valid at any time too, {level}" if stats.TESTS[test].is_sequential else f"t intervals, {level}"
    )
    return (
        f"arms are compared with a baseline, paired by seed, by {words} of the differences, with Holm's"
        f" correction over the comparisons of a task; intervals are {intervals}"
    )


def _machine(runs: Runs) -> str:
    where = told([None if run.machine == "–" else run.machine for run in runs], "runs were made on {}")
    numbers = told([run.identity.get("numerics", {}).get("precision") for run in runs], "in {}")
    packages = [
        told([(run.environment.get("packages") or {}).get(name) for run in runs], f"{name} {{}}")
        for name in PACKAGES
    ]
    revisions = [(run.environment.get("git") or {}) for run in runs]
    clean = [None if one.get("dirty", True) else str(one["revision"])[:10] for one in revisions]
    python = told([run.environment.get("python") for run in runs], "Python {}")
    own = told([run.environment.get("bertlab") for run in runs], "bertlab {}")
    versions = listed([own, told(clean, "revision {}"), python, *packages])
    return listed([listed([where, numbers], " "), versions], ", with ") if where else ""


# --- the appendix ---------------------------------------------------------------------------------
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
