"""A command line before Hydra reads it: job, flags, settings; what cannot be meant is refused."""

import os
import re
from pathlib import Path

from bertlab.config import registry
from bertlab.errors import ConfigError, did_you_mean

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
TAKEN_AS_TEXT = {  # keys whose values are what was written, commas, brackets and signs included
    "predict": ("text", "text_pair"),
    "export": ("run", "to"),
    "report": ("runs", "out", "title", "where", "baseline", "group_by", "names", "order", "formats"),
    "study": ("file", "out"),
    "list": ("what", "runs", "where", "sort"),
}
WITHOUT_KEY = {"list": "what", "study": "file"}  # jobs of which a plain word is this key's value


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
