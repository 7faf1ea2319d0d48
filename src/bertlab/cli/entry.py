"""The one entrypoint: job word, help, sweep check, Hydra, and an exit status that tells whose fault it was.

0 done · 2 something the user can mend (one line on standard error) · 128 + n interrupted by signal n · 1 a
bug (traceback): the user's where its last line names their plugin, else ours.
"""

import errno
import gc
import logging
import os
import re
import shlex
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlab.cli.help import answer
from bertlab.cli.sweeps import (
    PAIRS,
    Sweep,
    ToldError,
    check_sweep,
    choose_sweeper,
    plan,
    searches,
    telling,
    with_folder,
)
from bertlab.config import outlines, registry
from bertlab.config.registry import conf_folder
from bertlab.errors import ConfigError, UserError, did_you_mean, one_line, redact
from bertlab.promises import place_within
from bertlab.runs.outlines import know_outlines
from bertlab.runs.processes import place, speaks
from bertlab.runs.progress import working
from bertlab.runs.streams import prepare_streams
from hydra_plugins.bertlab_optuna._errors import SpaceError

if TYPE_CHECKING:
    from bertlab.config.words import Word

FLAGS = {
    "--hydra-help": "",
    "--dry-run": "",
    "--version": "",
    "--cfg": "-c",
    "--resolve": "",
    "--package": "-p",
    "--run": "-r",
    "--multirun": "-m",
    "--shell-completion": "-sc",
    "--config-path": "-cp",
    "--config-name": "-cn",
    "--config-dir": "-cd",
    "--info": "-i",
}
EXAMPLES_OF_VALUES = {
    "--cfg": "job",
    "--package": "model",
    "--config-path": "FOLDER",
    "--config-name": "NAME",
    "--config-dir": "FOLDER",
}
CHOICES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
SHOWING = {"--cfg", "--info", "--shell-completion", "--hydra-help"}
COMMANDS = ("--run", "--multirun", "--cfg", "--info", "--shell-completion")
OUTSIDE = {  # what a disk or its owner refuses: no bug of ours
    errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EISDIR, errno.ELOOP, errno.EMFILE,
    errno.ENAMETOOLONG, errno.ENOSPC,
    errno.ENOTDIR, errno.EPERM, errno.EROFS, errno.ESTALE,
}  # fmt: skip
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # of Hydra, in this process
TAKEN_AS_TEXT = {  # keys whose values are what was written, commas, brackets and signs included
    "predict": ("text", "text_pair"),
    "export": ("run", "to"),
    "report": ("runs", "out", "title", "where", "baseline", "group_by", "names", "order", "formats"),
    "study": ("file", "out"),
    "list": ("what", "runs", "where", "sort"),
}
WITHOUT_KEY = {"list": "what", "study": "file"}  # jobs of which a plain word is this key's value


def main() -> None:
    """Console script and `python -m bertlab`."""
    prepare_streams()
    gc.disable()  # until the job is imported: nothing is to be collected, and it takes a tenth less
    # UTF-8 in any locale
    sys.exit(run_command([os.fsencode(word).decode("utf-8", "surrogateescape") for word in sys.argv[1:]]))


def run_command(arguments: list[str]) -> int:
    """Run one command line; returns the exit status and prints what a person needs, nothing more."""
    try:
        job, rest = split_job(arguments)
        if job == "help" or "--help" in rest or "-h" in rest:
            print(answer(job, [word for word in rest if not word.startswith("-")]), end="")
            return 0
        if rest == ["--version"]:
            from bertlab import __version__

            print(f"bertlab {__version__}")
            return 0
        flags, overrides = split_flags(rest)
        if (key := WITHOUT_KEY.get(job)) is not None:
            overrides = [word if "=" in word else f"{key}={word}" for word in overrides]
        check_words(flags, overrides)
    except UserError as error:
        return _refuse(error)
    try:
        with hydra_raises():
            if job == "plan" or "--dry-run" in flags:
                if job not in ("plan", "train"):
                    raise ConfigError(f"--dry-run plans training runs, not {job}")
                with working("planning"):
                    return plan(flags, overrides)
            told = [redact(word) for word in rest]
            command = shlex.join(["bertlab", *([job] if job != "train" else []), *told])
            with nullcontext() if SHOWING & set(flags) else working(f"bertlab {job}"):
                _run(job, flags, overrides, command)
        return 0
    except (
        SystemExit
    ) as stop:  # `_task`, which keeps Hydra from announcing an error; 1 is Hydra's own, after its message
        return 2 if stop.code == 1 else int(stop.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ToldError:
        return 2
    except UserError as error:
        return _refuse(error)
    except Exception as error:
        if _lacks_memory(error):
            lacking = (str(error).splitlines() or [""])[0][:200] or "an allocation failed"
            return _refuse(
                UserError(f"out of memory ({lacking}); take smaller batches, a smaller model or less text")
            )
        if isinstance(error, SpaceError):
            return _refuse(UserError(str(error)))
        if isinstance(error, OSError) and error.errno in OUTSIDE:
            where = f"{error.filename}: " if error.filename else ""
            return _refuse(
                UserError(
                    f"{where}{error.strerror}; make room or give access, then the same command continues"
                )
            )
        return _explain_or_raise(error, job)


def _lacks_memory(error: Exception) -> bool:
    """Python's own word for it, or what torch says, which has no class for a processor's memory."""
    if isinstance(error, MemoryError) or not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    from bertlab.training.steps.stops import is_out_of_memory

    return is_out_of_memory(error)


def split_job(arguments: list[str]) -> tuple[str, list[str]]:
    """The job word (train if the first word is none) and the rest. Raises ConfigError for a word that is no
    job and no override.
    """
    if (
        arguments
        and not arguments[0].startswith("-")
        and "=" not in arguments[0]
        and not arguments[0].startswith(("+", "~"))
    ):
        if arguments[0] not in (jobs := registry.jobs()):
            raise ConfigError(
                f"unknown job '{arguments[0]}', {did_you_mean(arguments[0], jobs)}; settings are written"
                " key=value"
            )
        return arguments[0], arguments[1:]
    return "train", arguments


def split_flags(arguments: list[str]) -> tuple[dict[str, str | None], list[str]]:
    """Flags by their long names, each with its value, and the other words. Raises ConfigError before Hydra's
    parser answers with a page.
    """
    flags: dict[str, str | None] = {}
    words = list(arguments)
    rest = []
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            rest.append(word)
            continue
        given, attached, value = word.partition("=")
        name = next((long for long, short in FLAGS.items() if given in (long, short)), None)
        if name is None:
            raise ConfigError(f"unknown flag '{given}', {did_you_mean(given, FLAGS)}")
        flags[name] = value if attached else None
        if attached and name not in EXAMPLES_OF_VALUES and name not in CHOICES:
            raise ConfigError(f"{word}: {name} takes no value")
        if not attached and name in EXAMPLES_OF_VALUES:
            if not words or words[0].startswith("-"):
                raise ConfigError(f"{given} needs a value, e.g. {given} {EXAMPLES_OF_VALUES[name]}")
            flags[name] = words.pop(0)
        elif not attached and name == "--info":
            flags[name] = (
                words.pop(0)
                if words and "=" not in words[0] and not words[0].startswith(("-", "~"))
                else "all"
            )
        chosen = flags[name]
        if chosen is not None and name in CHOICES and chosen not in CHOICES[name]:
            raise ConfigError(f"{name} {chosen}: unknown, {did_you_mean(chosen, CHOICES[name])}")
    return flags, rest


def check_words(flags: dict[str, str | None], overrides: list[str]) -> None:
    """Flags that do not go together, and words that are no settings. Raises ConfigError."""
    commands = [name for name in COMMANDS if name in flags]
    if len(commands) > 1:
        raise ConfigError(f"{' and '.join(commands)} exclude each other; keep one")
    for name in ("--resolve", "--package"):
        if name in flags and "--cfg" not in flags:
            raise ConfigError(
                f"{name} only says how --cfg prints; write --cfg job"
                f" {name}{'' if name == '--resolve' else ' …'}"
            )
    folder = flags.get("--config-dir")
    if folder is not None and not Path(folder).is_dir():
        raise ConfigError(f"--config-dir {folder}: there is no such folder")
    if "--shell-completion" in flags and not any(
        word.startswith(("install=", "uninstall=", "query=")) for word in overrides
    ):
        raise ConfigError("--shell-completion: write -sc install=bash (or zsh, fish), or -sc uninstall=bash")
    for word in overrides:
        if not word.isascii() and word != word.encode("utf-8", "replace").decode("utf-8"):
            raise ConfigError(f"{word!a}: not UTF-8 text")
        if word.startswith("="):
            raise ConfigError(f"'{word}': there is no key before '='; write key=value (see bertlab --help)")
        if "=" not in word and not word.startswith("~") and "--shell-completion" not in flags:
            raise ConfigError(f"'{word}' is not a setting; write key=value (see bertlab --help)")


def _run(job: str, flags: dict[str, str | None], overrides: list[str], command: str) -> None:
    from bertlab.config.composition import install, to_schema, told_of_presets

    install()
    know_outlines()
    if any(word.startswith("query=") for word in overrides) and "--shell-completion" in flags:
        job = job_being_completed(job)
        job = "train" if job == "plan" else job  # which takes train's words
    several, shows = "--multirun" in flags, bool(SHOWING & set(flags))  # what shows a config calls nothing
    with outlines.outlined():  # what is wrong is told before torch is imported
        words = _words_of_runs(job, flags, overrides)
        given = [name if value is None else f"{name}={value}" for name, value in flags.items()]
        sys.argv = [sys.argv[0], *given, *map(str, words)]
        if shows:
            with told_of_presets():  # Hydra shows, and calls nothing of ours
                _starting(job, command, [])(None)
            return
        common = [word for word in words if not word.sweep] if several else words
        composed, settings = compose_job(job, flags, common)
        if not several:
            to_schema(composed, settings)  # which the task does again, with the components' code
    if searches(words):
        from hydra_plugins.bertlab_optuna import _outgoing

        _outgoing.clean = redact
    sweep = check_sweep(job, flags, words) if several else Sweep([])
    with working("importing torch and the like"):
        declared = registry.load_job(job)
    gc.enable()
    if searches(words) and not declared.has_score:
        raise ConfigError(f"search: bertlab {job} has no score to search by; leave the search out")
    labels = (
        [] if any(word.key == "hydra/sweeper" and word.plain != PAIRS for word in words) else sweep.labels
    )
    together = sweep if job == "train" and labels and sweep.is_together else None
    if together is not None and settings.launcher._target_ != BASIC_LAUNCHER:
        raise ConfigError(
            "compute.together: one process trains these runs, but hydra/launcher starts each in a process of"
            " its own; leave one of the two out"
        )
    with telling(sweep, with_table=bool(labels) and job == "train") if several else nullcontext():
        _starting(job, command, labels, together)(None if several else composed)


def _starting(
    job: str, command: str, labels: list[str], together: Sweep | None = None
) -> Callable[[Any], Any]:
    import hydra

    decorated = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=job)
    started: Callable[[Any], Any] = decorated(_task(job, command, labels, together))
    return started


def _words_of_runs(job: str, flags: dict[str, str | None], overrides: list[str]) -> "list[Word]":
    """The words as Hydra is to read them. Raises ConfigError for those that make several runs where one is
    asked for.
    """
    from bertlab.config.composition import read_words

    several = "--multirun" in flags
    words = read_words(job, overrides, () if several else TAKEN_AS_TEXT.get(job, ()))
    if several:
        return choose_sweeper(words)
    if searches(words) and "--cfg" not in flags:
        raise ConfigError("a search makes several runs: add -m")
    if any(word.zipped is not None for word in words):
        raise ConfigError("zip(…) makes several runs: add -m")
    suite = next((word for word in words if word.key == "suite" and word.sweep), None)
    if suite is not None:
        raise ConfigError(
            "a suite makes several runs: add -m, or choose one of its tasks,"
            f" {suite.key}={suite.singles()[0].plain}"
        )
    return words


def compose_job(job: str, flags: dict[str, str | None], words: "list[Word]") -> tuple[Any, Any]:
    """The config of one run, or what all runs of a sweep have in common, and Hydra's own part, which is
    checked and at hand for the task.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from bertlab.config.composition import compose_raw

    folder = Path(given) if (given := flags.get("--config-path")) else None
    composed = compose_raw(job, with_folder(flags, words), folder, flags.get("--config-name"))
    settings = composed.hydra
    HydraConfig.instance().set_config(composed)
    if "--multirun" not in flags:  # there Hydra sets it for each job, and puts it back
        os.environ.update({name: str(value) for name, value in settings.job.env_set.items()})
    with open_dict(composed):
        del composed["hydra"]
    return composed, settings


def job_being_completed(job: str) -> str:
    """Take the job word out of the line that a shell wants completed (Hydra knows none); offer job words for
    the first one.
    """
    line = os.environ.get("COMP_LINE", "")
    if match := re.match(r"(\S+)\s+(\w+)(\s.*)", line):
        if match.group(2) in registry.jobs():
            job = match.group(2)
            os.environ["COMP_LINE"] = match.group(1) + match.group(3)
            os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    elif started := re.fullmatch(r"\S+\s+(\w*)", line):
        print(" ".join(name for name in registry.jobs() if name.startswith(started.group(1))))
    return job


def _task(job: str, command: str, labels: list[str], together: Sweep | None) -> Callable[[Any], Any]:
    ended: dict[str, Any] = {}  # runs that were trained with an earlier one

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
                return _run_trial(trial, job, lambda: to_schema(composed, settings), command, words)
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
                context = _with_companions(context, command, settings.job.num, together, labels, ended)
            with working(label or f"bertlab {job}"):  # also in a process that a launcher started
                return registry.load_job(job).run(to_schema(composed, settings), context)
        except UserError as error:
            if sweep is None:
                sys.exit(_refuse(error))
            _refuse(UserError(f"{label}: {error}"))
            raise ToldError(str(error)) from None  # the sweep goes on; its exit status will tell
        except (
            MemoryExhausted
        ) as error:  # of several processes that somebody else started, and alone can start again
            sys.exit(
                _refuse(
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


def _with_companions(
    context: Any, command: str, number: int, together: Sweep, labels: list[str], ended: dict[str, Any]
) -> Any:
    """The same, with the runs of the sweep that may be trained together with this one."""
    from bertlab.runs.outcome import Companions

    def later() -> Iterator[Any]:
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


def _run_trial(trial: Any, job: str, config: Callable[[], Any], command: str, words: Sequence[str]) -> None:
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


@contextmanager
def hydra_raises() -> Iterator[None]:
    """Let Hydra raise instead of printing and exiting, so that errors are told in our words; put back what it
    does to logging.
    """
    before, root = os.environ.get("HYDRA_FULL_ERROR"), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _refuse(error: UserError) -> int:
    if speaks(error):
        print(f"bertlab: {one_line(str(error))}", file=sys.stderr)
    return 2


def _explain_or_raise(error: Exception, job: str) -> int:
    from bertlab.config.explain import explain, is_explained

    if not is_explained(error):
        if place := place_within(error, registry.plugin_folders()):
            error.add_note(f"in your plugin {place}")
        raise error
    return _refuse(ConfigError(explain(error, job)))
