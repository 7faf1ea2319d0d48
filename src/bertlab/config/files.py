"""YAML files that hold one dataclass, such as a suite's or a study's: read as declared, or refused."""

from pathlib import Path
from typing import TypeVar

from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from bertlab.config.schema import Node, valid_keys, validate
from bertlab.config.trust import load
from bertlab.config.words import Word, parse
from bertlab.errors import ConfigError, did_you_mean

Declared = TypeVar("Declared", bound=Node)


def read_declared(file: Path, declared: type[Declared]) -> Declared:
    """The file's values in an instance, ranges and its own `check` included.

    Raises ConfigError naming the file and the key that is wrong.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(declared), load(file))
        read = OmegaConf.to_object(merged)
        assert isinstance(read, declared)
        validate(read)
    except MissingMandatoryValue:
        missing = ", ".join(sorted(OmegaConf.missing_keys(merged)))
        raise ConfigError(f"{file}: {missing}: must be given") from None
    except OmegaConfBaseException as error:
        key, keys = str(error.full_key or error.key or ""), valid_keys(declared)
        if "not in" in str(error):
            raise ConfigError(f"{file}: unknown key '{key}', {did_you_mean(key, keys)}") from None
        raise ConfigError(f"{file}: {key}: {str(error).splitlines()[0]}") from None
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    except (YAMLError, OSError, UnicodeDecodeError, AssertionError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid YAML ({(str(error).splitlines() or ['?'])[0]})") from None
    return read


def word_in(where: str, text: str) -> Word:
    """A word of the command line that stands in a file. Raises ConfigError naming `where`."""
    try:
        word = parse(text)
    except OverrideParseException:
        raise ConfigError(f"{where}: '{text}' is no word of the form key=value") from None
    if word.prefix or word.text is None or word.key.startswith("hydra"):
        raise ConfigError(f"{where}: '{text}' must be of the form key=value")
    return word
