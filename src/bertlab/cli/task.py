"""What Hydra calls for each run of a command line: the job, with the run's own words, alone or as a trial."""

import shlex
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bertlab.cli.sweeps import Sweep, ToldError
from bertlab.config import registry
from bertlab.errors import UserError, one_line
from bertlab.runs.processes import place, speaks
from bertlab.runs.progress import working

if TYPE_CHECKING:
    from bertlab.config.schema import Train
    from bertlab.runs.outcome import Context, Outcome
    from hydra_plugins.bertlab_optuna.trial import Trial


def task_of(job: str, command: str, labels: list[str], together: Sweep | None) -> Callable[[Any], Any]:
    """The function that Hydra calls with a composed config: of one run, or of each run of a sweep. `labels`
    tell a grid's runs, `together` is the sweep whose runs one process trains.
    """
    ended: dict[str, Outcome | BaseException] = {}  # runs that were trained with an earlier one

    def task(composed: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from bertlab.config.composition import to_schema
        from bertlab.runs.outcome import Context
        from bertlab.training.steps.stops import Interrupted, MemoryExhausted
        from hydra_plugins.bertlab_optuna.trial import current_trial

        settings = HydraConfig.get()
        words = list(settings.overrides.task)
        # the same after a restart
        sweep = f"sweep-{zlib.crc32(command.encode()):08x}" if settings.mode == RunMode.MULTIRUN else None
        label = "" if sweep is None else labels[settings.job.num] if labels else shlex.join(words)
        try:
            if (trial := current_trial()) is not None:
                return run_trial(trial, job, lambda: to_schema(composed, settings), command, words)
            if labels:
                print(label, flush=True)
            context = Context(
                own_command(command, words),
                words,
                sweep,
                in_grid=bool(labels),
                differs=label.partition(": ")[2] if labels else "",
            )
            if together is not None:
                context = with_companions(context, command, settings.job.num, together, labels, ended)
            with working(label or f"bertlab {job}"):  # also in a process that a launcher started
                return registry.load_job(job).run(to_schema(composed, settings), context)
        except UserError as error:
            if sweep is None:
                sys.exit(refuse(error))
            refuse(UserError(f"{label}: {error}"))
            raise ToldError(str(error)) from None  # the sweep goes on; its exit status will tell
        except (
            MemoryExhausted
        ) as error:  # of several processes that somebody else started, and alone can start again
            sys.exit(
                refuse(
                    UserError(
                        f"out of memory: the same command with compute.micro_batch_size={error.micro_batch}"
                        " may fit"
                    )
                )
            )
        except Interrupted as stop:
            if place().is_first:
                print(stop.line, file=sys.stderr)
            sys.exit(stop.exit_status)

    return task


def with_companions(
    context: "Context",
    command: str,
    number: int,
    together: Sweep,
    labels: list[str],
    ended: dict[str, "Outcome | BaseException"],
) -> "Context":
    """The same, with the runs of the sweep that may be trained together with this one."""
    from bertlab.runs.outcome import Companions

    def later() -> Iterator[tuple["Train", "Context"]]:
        for index, config in together.alike(number):
            words = [str(word) for word in together.runs[index]]
            yield (
                config,
                replace(
                    context,
                    command=own_command(command, words),
                    words=words,
                    differs=labels[index].partition(": ")[2],
                ),
            )

    return replace(context, companions=Companions(later, ended))


def own_command(command: str, own: Sequence[str]) -> str:
    """The command line as one run records it, by the run's own words: of a suite its task, and what the
    suite's grid tries in it.
    """
    task = next((word for word in own if word.startswith("suite=") and "/" in word), None)
    if task is None:
        return command
    from bertlab.config.suites import read_suite

    given = [task if word.startswith("suite=") else word for word in shlex.split(command)]
    keys = {word.partition("=")[0] for word in given}
    tried = set(read_suite(task.removeprefix("suite=").partition("/")[0]).keys_of_grid()) - keys
    return shlex.join([*given, *(word for word in own if word.partition("=")[0] in tried)])


def run_trial(
    trial: "Trial", job: str, config: Callable[[], Any], command: str, words: Sequence[str]
) -> None:
    """A job that is a trial of a search tells its result itself. What it raises fails the trial, a bad config
    too; an interrupted one is left as it is, and the sweep tries its point again.
    """
    from bertlab.runs.outcome import Context
    from bertlab.training.steps.stops import Interrupted, Pruned

    interrupted: Interrupted | None = None
    with trial:
        if trial.is_over:
            print("this trial has been ended or taken over by another process; nothing is done")
            return
        try:
            print(trial.label, flush=True)
            trial.complete(
                registry.load_job(job).run(
                    config(),
                    Context(
                        command,
                        words,
                        trial.name,
                        trial,
                        in_grid=True,
                        differs=trial.label.partition(": ")[2],
                    ),
                )
            )
        except Pruned:
            trial.prune()
            print(
                f"{trial.label}: pruned; checkpoint written, the run's own command continues it", flush=True
            )
        except Interrupted as stop:
            interrupted = stop
    if interrupted is not None:
        raise interrupted


def refuse(error: UserError) -> int:
    """Tell it in one line, where this process speaks; the exit status."""
    if speaks(error):
        print(f"bertlab: {one_line(str(error))}", file=sys.stderr)
    return 2
