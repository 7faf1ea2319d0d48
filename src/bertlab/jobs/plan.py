"""`bertlab plan`: list the runs of a command before hours are spent: what is done, what is wrong, time, operations, disk

usage: bertlab plan [group=option ...] [key=value ...] [-m] [effect=DIFFERENCE] [pilot=RUNS]
                    [hardware=NAME [hardware.KEY=VALUE ...] [devices=NUMBERS] [sharding=none|full]]

Takes the words of `bertlab train` (write plan before them, or --dry-run behind them) and trains nothing. Every run of a grid is composed
and checked; of a search, points that together hold every choice and bound of its space. Data is read and tokenised, which the runs need
anyway, and a few steps of each kind of run are timed on this machine. Exit status 2 if any run has an error.

  effect=0.5               the smallest difference of interest, in the metric's shown unit: how many seeds which test needs for it, and
                           which tests can show anything with the seeds of this command
  pilot=multirun           earlier runs (folders, or a record's report) whose spread over seeds that is reckoned by

For devices that are not here, nothing is timed: operations, memory and exchanged bytes are counted, and time follows from what is declared
of the hardware (conf/hardware/, or a preset of your own below a --config-dir) and stands in the plan as an assumption.

  hardware=h100            a100, h100, h200, or here: this machine's cores
  hardware.share=0.5       a figure of it: bfloat16_tflops, float32_tflops, memory_gb, memory_share, devices_per_node, link_gb_s,
                           network_gb_s, link_share, latency_us, message_us, share, half_tokens, pass_ms, overlap, price, kind
  devices=1,8,64           how many; 1, 2, 4, … 512 where it is not said
  sharding=full            each device holds a part of weights, gradients and optimizer state, instead of all of it; as runs with
                           compute.sharding=full do
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertlab.config.registry import Job
from bertlab.config.schema import Power, Train
from bertlab.errors import UserError, one_line
from bertlab.report.arms import Seeds
from bertlab.report.power import Design, pilot_spread, power_lines
from bertlab.report.settings import SEEDS
from bertlab.runs.progress import duration, each
from bertlab.training.costs.forecast import Forecast, Forecaster, free_bytes
from bertlab.training.init import FromStage


@dataclass
class Asked:
    """A run as it was asked for: the words that set it apart, and what composes its config (and may find an
    error).
    """

    words: Sequence[str]
    compose: Callable[[], Train]


def show(runs: Sequence[Asked], trials: int | None, power: Power) -> int:
    """Print the plan; the exit status. `trials`: the runs are corners of a search that makes so many."""
    for line in (
        power_of(runs, power)
        if trials is None and (power.effect is not None or power.pilot is not None)
        else ()
    ):
        print(line, flush=True)
    forecaster, surveyed, errors = Forecaster(), list[tuple[Asked, Forecast]](), 0
    for place, run in enumerate(each(runs, "surveying", len(runs), "runs"), start=1):
        try:
            surveyed.append((run, forecaster.survey(run.compose())))
        except UserError as error:
            errors += 1
            words = f" ({' '.join(run.words)})" if run.words else ""
            print(f"bertlab: run {place}{words}: {one_line(str(error))}", file=sys.stderr)
    for line in describe(surveyed, list(forecaster.stages.values()), errors, trials):
        print(line)
    return 2 if errors else 0


def power_of(runs: Sequence[Asked], power: Power) -> Iterator[str]:
    """What the grid's seeds can show. Raises what a bad run or pilot raises."""
    arms = arms_of(runs)
    configs = [run.compose() for run in arms[0]]  # whose words alone do not say: init.seed may be ${seed}
    first = configs[0]
    spread = None
    if power.pilot is not None:
        places = [part.strip() for part in power.pilot.split(",") if part.strip()]
        spread = pilot_spread(places, first.dataset.name, first.objective.name)
    design = design_of(len(arms), [seeds_of_config(config) for config in configs], first.dataset.fraction)
    yield from power_lines(design, power.effect, spread)


def arms_of(runs: Sequence[Asked]) -> list[list[Asked]]:
    """Runs that differ in nothing but seeds and folds, together."""
    arms: dict[tuple[str, ...], list[Asked]] = {}
    is_cut = any(word.lstrip("+").startswith("dataset.fold=") for run in runs for word in run.words)
    apart = (*SEEDS, "dataset.split_seed") if is_cut else SEEDS
    for run in runs:
        own = tuple(word for word in run.words if word.lstrip("+").partition("=")[0] not in apart)
        arms.setdefault(own, []).append(run)
    return list(arms.values())


def seeds_of_config(config: Train) -> Seeds:
    """What a run is drawn by, as `report.arms.seeds_of` tells it of one that was made."""
    outer = config.init.seed if isinstance(config.init, FromStage) else 0
    data = config.dataset
    fold = (data.folds, data.split_seed, data.fold or 0) if data.folds else ()
    return Seeds(outer, config.seed, fold)


def design_of(arms: int, seeds: Sequence[Seeds], fraction: float = 1.0) -> Design:
    """What so many arms compare that each have runs of these seeds, on this share of the training rows."""
    folds = {one.fold for one in seeds if one.fold}
    outers = {one.outer for one in seeds}
    inner = max(len({one.inner for one in seeds if one.outer == outer}) for outer in outers)
    share = 1 / fraction / (next(iter(folds))[0] - 1) if folds else 0.0
    return Design(arms, len(outers), inner, len(folds), share)


def describe(
    surveyed: Sequence[tuple[Asked, Forecast]], stages: Sequence[Forecast], errors: int, trials: int | None
) -> Iterator[str]:
    """The plan in words: pretraining first, then a table of runs, then sums over what is still to do."""
    wrong = f", {errors} with errors" if errors else ""
    if trials is not None:
        yield (
            f"a search of {trials} trials; {len(surveyed)} points that hold every choice and bound of its"
            f" space{wrong}:"
        )
    for stage in stages:
        yield f"pretraining: {stage.folder}  {status(stage)}  {figures(stage)}"
    if not surveyed:
        return
    keys = list(dict.fromkeys(word.partition("=")[0] for run, _ in surveyed for word in run.words))
    rows = [["", *keys, "status", "parameters", "steps", "tokens", "FLOPs", "time to go", "disk", "run"]]
    seen: dict[Path, int] = {}
    for place, (run, forecast) in enumerate(surveyed, start=1):
        values = dict(word.partition("=")[::2] for word in run.words)
        state = f"as run {seen[forecast.folder]}" if forecast.folder in seen else status(forecast)
        seen.setdefault(forecast.folder, place)
        rows.append([str(place), *(values.get(key, "") for key in keys), state, count(forecast.parameters),
                     "-" if forecast.steps is None else f"{forecast.steps:,}", count(forecast.tokens),
                     f"{forecast.flops:.1e}",
                     duration(forecast.seconds), size(forecast.bytes_after),
                     forecast.folder.name])  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield from totals([forecast for _, forecast in surveyed], stages, errors, trials)


def totals(
    runs: Sequence[Forecast], stages: Sequence[Forecast], errors: int, trials: int | None
) -> Iterator[str]:
    """What is still to do, in time and disk."""
    different = {forecast.folder: forecast for forecast in (*stages, *runs)}.values()
    todo = [forecast for forecast in different if not forecast.is_done]
    free, peak = free_bytes(runs[0].folder), max((forecast.bytes_during for forecast in todo), default=0)
    if trials is not None:
        before = sum(stage.seconds for stage in stages)
        each = [forecast.seconds for forecast in runs]
        shortest, longest = before + trials * min(each), before + trials * max(each)
        yield (
            f"a trial takes {duration(min(each))} to {duration(max(each))}: {trials} of them one after the other "
            f"{duration(shortest)} to {duration(longest)}, less what a pruner saves"
        )
        needed = peak + trials * max(forecast.bytes_after for forecast in runs)
    else:
        done, wrong = sum(forecast.is_done for forecast in runs), f", {errors} with errors" if errors else ""
        time_left = duration(sum(forecast.seconds for forecast in todo))
        plural = "s" * (len(runs) != 1)
        yield (
            f"{len(runs)} run{plural}: {done} finished, {len(runs) - done} to do{wrong}; one after the other"
            f" about {time_left}"
        )
        needed = peak + sum(forecast.bytes_after for forecast in todo)
    yield f"disk: {size(needed)} needed at most, {size(free)} free{'' if needed < free else ' - TOO LITTLE'}"


def status(forecast: Forecast) -> str:
    """`finished`, or how far it is."""
    if forecast.is_done or not forecast.steps_done:
        return forecast.status
    return f"{forecast.status} at step {forecast.steps_done:,}"


def figures(forecast: Forecast) -> str:
    """Size and cost, in a line."""
    steps = "" if forecast.steps is None else f"{forecast.steps:,} steps, "
    return (
        f"{count(forecast.parameters)} parameters, {steps}{count(forecast.tokens)} tokens, "
        f"{forecast.flops:.1e} FLOPs, {duration(forecast.seconds)} to go, {size(forecast.bytes_after)}"
    )


def count(number: float) -> str:
    """`7.3 M`."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes as `59 MB`."""
    return f"{count(number)}B" if number >= 1e3 else f"{number:.0f} B"


JOB = Job(Train, show)  # which the command line hands all runs of a command
