"""The one entrypoint: job word, help, sweep check, Hydra, and an exit status that tells whose fault it was.

0 done · 2 something the user can mend (one line on standard error) · 128 + n interrupted by signal n · 1 a
bug (traceback): the user's where its last line names their plugin, else ours.
"""

import errno
import gc
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertlab.cli.command_line import (
    SHOWING,
    TAKEN_AS_TEXT,
    WITHOUT_KEY,
    check_words,
    job_being_completed,
    split_flags,
    split_job,
)
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
from bertlab.cli.task import refuse, task_of
from bertlab.config import outlines, registry
from bertlab.config.registry import conf_folder
from bertlab.errors import ConfigError, UserError, hide_passwords, redact
from bertlab.promises import place_within
from bertlab.runs.outlines import know_outlines
from bertlab.runs.progress import working
from bertlab.runs.streams import prepare_streams
from hydra_plugins.bertlab_optuna._errors import SpaceError

if TYPE_CHECKING:
    from bertlab.config.words import Word

OUTSIDE = {  # what a disk or its owner refuses: no bug of ours
    errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EISDIR, errno.ELOOP, errno.EMFILE,
    errno.ENAMETOOLONG, errno.ENOSPC,
    errno.ENOTDIR, errno.EPERM, errno.EROFS, errno.ESTALE,
}  # fmt: skip
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # of Hydra, in this process


def main() -> None:
    """Console script and `python -m bertlab`."""
    prepare_streams()
    gc.disable()  # until the job is imported: nothing is to be collected, and it takes a tenth less
    # UTF-8 in any locale
    sys.exit(run_command([os.fsencode(word).decode("utf-8", "surrogateescape") for word in sys.argv[1:]]))


def run_command(arguments: list[str]) -> int:
    """Run one command line; returns the exit status and prints what a person needs, nothing more."""
    for word in arguments:
        hide_passwords(word)
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
        return refuse(error)
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
    ) as stop:  # `task_of`, which keeps Hydra from announcing an error; 1 is Hydra's own, after its message
        return 2 if stop.code == 1 else int(stop.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ToldError:
        return 2
    except UserError as error:
        return refuse(error)
    except Exception as error:
        if _lacks_memory(error):
            lacking = (str(error).splitlines() or [""])[0][:200] or "an allocation failed"
            return refuse(
                UserError(f"out of memory ({lacking}); take smaller batches, a smaller model or less text")
            )
        if isinstance(error, SpaceError):
            return refuse(UserError(str(error)))
        if isinstance(error, OSError) and error.errno in OUTSIDE:
            where = f"{error.filename}: " if error.filename else ""
            return refuse(
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
    started: Callable[[Any], Any] = decorated(task_of(job, command, labels, together))
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


def _explain_or_raise(error: Exception, job: str) -> int:
    from bertlab.config.explain import explain, is_explained

    if not is_explained(error):
        if place := place_within(error, registry.plugin_folders()):
            error.add_note(f"in your plugin {place}")
        raise error
    return refuse(ConfigError(explain(error, job)))
