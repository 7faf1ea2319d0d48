"""A run's config as `config.yaml`: with the component that each group chose, and typed again."""

import dataclasses
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bertlab.config import registry
from bertlab.config.schema import COMPONENTS, PLAIN, Component, Train, validate
from bertlab.errors import ConfigError, RunError

LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
DEEPEST = 50  # levels of a config


def read_yaml(text: str) -> Any:
    """Plain values. What nests deeply or repeats itself by reference, as no config of ours does, would take
    for ever. Raises YAMLError.
    """
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("it refers to itself, or is nested too deeply")
    return yaml.load(text, Loader=LOADER)


def config_of(tree: dict[str, Any], where: str) -> Train:
    """A run's config from its recorded tree. Raises RunError where it does not fit this version's schema."""
    config = Train()
    if (held := _interpolated(tree)) is not None:
        raise RunError(
            f"{where}: {held} refers to something else (${{…}}); a recorded config holds values alone"
        )
    try:
        for item in dataclasses.fields(Train):
            value = tree[item.name]
            if item.name not in ("seed", "tags") and not isinstance(value, dict):
                raise TypeError(f"{item.name} is not a group of keys")
            setattr(config, item.name, _typed(item.name, value))
        if type(config.seed) is not int or not all(isinstance(tag, str) for tag in config.tags):
            raise TypeError("seed is a whole number, tags are texts")
        validate(config)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise RunError(
            f"{where}: does not fit this version of bertlab ({key}{str(error).splitlines()[0]})"
        ) from error
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        line = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise RunError(f"{where}: does not fit this version of bertlab ({line})") from error
    return config


def _interpolated(node: Any, path: str = "") -> str | None:
    """The first key whose value OmegaConf would look up elsewhere, as in the environment; what bertlab
    records has none.
    """
    for key, value in (
        node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    ):
        held = (
            f"{path}{key}"
            if isinstance(value, str) and "${" in value
            else _interpolated(value, f"{path}{key}.")
        )
        if held is not None:
            return held
    return None


def _typed(name: str, value: Any) -> Any:
    """A key of a run's config, or of the pretraining within it, as its dataclass."""
    if name in COMPONENTS and isinstance(value, dict):
        value = dict(value)
        node: Any = registry.load_schema(name, str(value.pop("component")))
        for item in dataclasses.fields(node):
            is_group = item.name in (*COMPONENTS, *PLAIN) and isinstance(value.get(item.name), dict)
            if is_group and item.name != "model":  # there a few keys, not a component
                setattr(node, item.name, _typed(item.name, value.pop(item.name)))
            if (group := item.metadata.get("group")) is not None:
                held = {name: _typed(group, part) for name, part in value.pop(item.name, {}).items()}
                setattr(node, item.name, held)
    elif name in PLAIN:
        node = PLAIN[name]()
    else:
        return value
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(node), value))


def config_yaml(config: Train) -> str:
    """A run's config with, for each group, the component it chose; `config_of` reads it back."""
    return OmegaConf.to_yaml(OmegaConf.create(_with_components(config)))


def _with_components(node: Any) -> dict[str, Any]:
    tree = {}
    for item in dataclasses.fields(node):
        value = getattr(node, item.name)
        if isinstance(value, Component):
            tree[item.name] = {"component": registry.option_of(item.name, value), **_with_components(value)}
        elif (group := item.metadata.get("group")) is not None:
            tree[item.name] = {
                name: {"component": registry.option_of(group, part), **_with_components(part)}
                for name, part in value.items()
            }
        else:
            tree[item.name] = _with_components(value) if dataclasses.is_dataclass(value) else value
    return tree
