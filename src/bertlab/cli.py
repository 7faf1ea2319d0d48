"""The one entrypoint: job word, help, sweep check, Hydra, and an exit status that tells whose fault it was.

0 done · 2 something the user can mend (one line on standard error) · 128 + n interrupted by signal n · 1 a bug of ours (traceback).
"""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertlab.errors import ConfigError, UserError, did_you_mean
from bertlab.helptext import JOBS, help_text

HYDRA_FLAGS = (
    "--hydra-help",
    "--version",
    "--cfg",
    "-c",
    "--resolve",
    "--package",
    "-p",
    "--run",
    "-r",
    "--multirun",
    "-m",
    "--shell-completion",
    "-sc",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
    "--experimental-rerun",
    "--info",
    "-i",
)
FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd")
LARGEST_CHECKED_SWEEP = 200


def main() -> None:
    """Console script and `python -m bertlab`."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command line; returns the exit status and prints what a person needs, nothing more."""
    try:
        job, rest = split_job(arguments)
        if "--help" in rest or "-h" in rest:
            print(help_text(job, _conf_folder()), end="")
            return 0
        if rest == ["--version"]:
            from bertlab import __version__

            print(f"bertlab {__version__}")
            return 0
        check_flags(rest)
    except UserError as error:
        return _refuse(error)
    try:
        with hydra_raises():
            _run(job, rest)
        return 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        return _refuse(error)
    except Exception as error:
        return _explain_or_raise(error)


def split_job(arguments: list[str]) -> tuple[str, list[str]]:
    """The job word (train if the first word is none) and the rest. Raises ConfigError for a word that is no job and no override."""
    if arguments and not arguments[0].startswith("-") and "=" not in arguments[0] and not arguments[0].startswith(("+", "~")):
        if arguments[0] not in JOBS:
            raise ConfigError(f"unknown job '{arguments[0]}', {did_you_mean(arguments[0], JOBS)}; settings are written key=value")
        return arguments[0], arguments[1:]
    return "train", arguments


def check_flags(arguments: list[str]) -> None:
    """Unknown flags and bare words, before Hydra's parser answers with a page. Raises ConfigError."""
    takes_value, previous = False, ""
    for word in arguments:
        if takes_value:
            takes_value = False
            if previous in ("--cfg", "-c") and word not in ("job", "hydra", "all"):
                raise ConfigError(f"--cfg {word}: unknown, {did_you_mean(word, ('job', 'hydra', 'all'))}")
        elif word.startswith("-"):
            name = word.split("=", 1)[0]
            if name not in HYDRA_FLAGS:
                raise ConfigError(f"unknown flag '{name}', {did_you_mean(name, [flag for flag in HYDRA_FLAGS if flag.startswith('--')])}")
            takes_value, previous = name in FLAGS_WITH_VALUE and "=" not in word, name
        elif "=" not in word and not word.startswith("~") and not {"-sc", "--shell-completion", "--info", "-i"} & set(arguments):
            raise ConfigError(f"'{word}' is not a setting; write key=value (see bertlab --help)")


def _run(job: str, arguments: list[str]) -> None:
    import hydra

    from bertlab.composition import complete, conf_folder, install

    install()
    flags = [word for word in arguments if word.startswith("-")]
    if any(flag in ("-m", "--multirun") for flag in flags):
        check_sweep(job, [word for word in arguments if not word.startswith("-")])
    command = shlex.join(["bertlab", *([job] if job != "train" else []), *arguments])
    sys.argv = [sys.argv[0], *flags_first(arguments, complete)]
    hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=job)(_task(job, command))()


def flags_first(arguments: list[str], complete: Callable[[list[str]], list[str]]) -> list[str]:
    """Flags with their values, then the completed overrides."""
    flags, overrides, takes_value = [], [], False
    for word in arguments:
        if word.startswith("-") or takes_value:
            flags.append(word)
            takes_value = word in FLAGS_WITH_VALUE
        else:
            overrides.append(word)
    return [*flags, *complete(overrides)]


def _task(job: str, command: str) -> Callable[[Any], Any]:
    def task(composed: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from bertlab.composition import to_schema
        from bertlab.loop import Interrupted
        from bertlab.results import Context

        settings = HydraConfig.get()
        sweep = Path(settings.sweep.dir).name if settings.mode == RunMode.MULTIRUN else None
        try:
            return run_job(job, to_schema(composed, settings), Context(command, sweep))
        except UserError as error:
            if sweep is None:
                sys.exit(_refuse(error))
            raise
        except Interrupted as stop:
            print(f"{stop}: checkpoint written; the same command continues", file=sys.stderr)
            sys.exit(stop.exit_status)

    return task


def run_job(job: str, config: Any, context: Any) -> Any:
    """Hand a typed config to its job; returns what a sweeper wants to know."""
    if job == "train":
        from bertlab.jobs.train import train
        from bertlab.results import announce

        outcome = train(config, context)
        announce(outcome)
        return outcome.score
    if job == "evaluate":
        from bertlab.jobs.evaluate import evaluate

        return evaluate(config)
    from bertlab.jobs.predict import predict

    return predict(config)


def check_sweep(job: str, overrides: list[str]) -> None:
    """Compose and validate the runs of a grid before the first of them starts. Raises what a bad one raises."""
    from hydra.errors import HydraException

    from bertlab.composition import compose_schema, sweep_combinations

    plain = [word for word in overrides if not word.startswith("hydra")]
    try:
        combinations = sweep_combinations(plain)
    except HydraException:
        return  # a continuous search space: its sweeper validates the runs it makes
    for combination in combinations[:LARGEST_CHECKED_SWEEP]:
        compose_schema(job, combination)


@contextmanager
def hydra_raises() -> Iterator[None]:
    """Let Hydra raise instead of printing and exiting, so that errors are told in our words."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _refuse(error: UserError) -> int:
    print(f"bertlab: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _explain_or_raise(error: Exception) -> int:
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(error, HydraException | OmegaConfBaseException | yaml.YAMLError):
        raise error
    from bertlab.explain import explain

    print(f"bertlab: {' '.join(explain(error).split())}", file=sys.stderr)
    return 2


def _conf_folder() -> Path:
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"
