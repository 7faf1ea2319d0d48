"""From overrides to a typed config: where Hydra finds presets and schemas, and what turns a composed config into dataclasses.

Component dataclasses reach Hydra through a config source of our own, which imports only the options that a config names.
Nothing unknown passes: the schema is the first entry of every primary config, and `to_schema` finds what `+key=value` added.
"""

import dataclasses
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from bertlab.config import registry
from bertlab.config.schema import Budget, Component, valid_keys, validate
from bertlab.errors import ConfigError, did_you_mean

SCHEME = "bertlab"


class ComponentSource(ConfigSource):
    """Every Python option as a structured config: `optimizer/lion` is the dataclass in `optimizers/lion.py`."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, option = config_path.removesuffix(".yaml").rpartition("/")
        if option not in registry.options(group):
            raise ConfigLoadError(f"Config not found: {config_path}")
        node = OmegaConf.structured(registry.load_schema(group, option), flags={"allow_objects": False})
        for key in node:
            if isinstance(child := node._get_node(key), DictConfig) and OmegaConf.get_type(child) is dict:
                OmegaConf.set_struct(child, False)  # a mapping's keys are the user's
        header = {"package": "_global_" if group == "schema" else None}
        return ConfigResult(provider=SCHEME, path=f"{SCHEME}://", config=node, header=header)

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path.strip("/") in ("", *registry.FOLDERS, *registry.TABLE)

    def is_config(self, config_path: str) -> bool:
        group, _, option = config_path.removesuffix(".yaml").rpartition("/")
        return option in registry.options(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        path = config_path.strip("/")
        groups = [*registry.FOLDERS, *(group for group in registry.TABLE if group != "schema")] if path == "" else []
        configs = registry.options(path)
        return sorted(
            groups if results_filter == ObjectType.GROUP else configs if results_filter == ObjectType.CONFIG else [*groups, *configs]
        )


class SearchPath(SearchPathPlugin):
    """Presets of the user's plugin folders first, then ours (already there), last the component dataclasses."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in reversed(registry.plugin_folders()):
            search_path.prepend("plugins", f"file://{folder / 'conf'}", anchor=SearchPathQuery(provider="main"))
        search_path.append(SCHEME, f"{SCHEME}://components")


def install() -> None:
    """Tell Hydra where our configs are; harmless when repeated."""
    plugins = Plugins.instance()
    plugins.register(ComponentSource)
    plugins.register(SearchPath)


def complete(overrides: list[str]) -> list[str]:
    """Overrides as Hydra wants them. Raises ConfigError for an option that is no name.

    A budget in one unit replaces the preset's unit, so `budget.steps=100` needs no `budget.epochs=null`; a stage brings its tokenizer.
    """
    for override in overrides:
        _check_option(override)
    stages = [f"init={file.stem}" for file in (registry.conf_folder() / "init").glob("*.yaml")]
    if set(stages) & set(overrides) and not any(override.startswith("tokenizer=") for override in overrides):
        overrides = ["tokenizer=inherited", *overrides]
    overrides = [_into_stage(_with_whole_numbers(_with_names(override))) for override in overrides]
    given = {override.lstrip("+").partition("=")[0] for override in overrides if not override.endswith("=null")}
    cleared = []
    for budget in sorted({name.rpartition(".")[0] for name in given if re.fullmatch(r"(init\.)*budget\.\w+", name)}):
        if units := [unit for unit in Budget.UNITS if f"{budget}.{unit}" in given]:
            cleared += [f"{budget}.{unit}=null" for unit in Budget.UNITS if unit not in units]
    return [*cleared, *overrides]


def _into_stage(override: str) -> str:
    """`init.dataset=imdb_text`, an option of the pretraining within a run, as Hydra writes it: `dataset@init.dataset=imdb_text`."""
    key, equals, value = override.partition("=")
    found = re.fullmatch(r"((?:init\.)+)(dataset|tokenizer|objective|init|optimizer|schedule|budget)", key)
    return f"{found[2]}@{key}={value}" if found and equals and not value.startswith("{") else override


def _check_option(override: str) -> None:
    """`model=3` and `model=null` are no names of options; Hydra's own answer is a traceback."""
    group = re.sub(r"^(init\.)+", "", override.lstrip("+~").partition("=")[0])
    if group not in registry.GROUPS and "/" not in group:
        return
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return  # Hydra meets it again and says why
    value = "" if parsed.is_sweep_override() else parsed.value()
    if isinstance(value, str | list | dict) or (parsed.is_delete() and value is None):
        return
    options = did_you_mean(str(value), registry.options_of(group))
    wish = f"leave it out, or write ~{group} for none" if value is None else f"unknown option, {options}" if options else "unknown option"
    raise ConfigError(f"command line: {override}: {wish}")


def literal(override: str) -> str:
    """`text=a film, they say` as Hydra reads one text of it, commas, brackets and apostrophes included; null and quoted texts stay."""
    key, _, value = override.partition("=")
    if value == "null" or re.fullmatch(r"'[^']*'|\"[^\"]*\"", value):
        return override
    plain = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # no interpolation: `\${`, and `\\` for a backslash before it
    return f"{key}={QuotedString(plain, Quote.single).with_quotes()}"


def _with_names(override: str) -> str:
    """`run=32118226e611` in quotes: Hydra reads an id, or a file's name, as a number (here infinity) wherever it looks like one."""
    key, _, value = override.partition("=")
    if not re.fullmatch(r"run|runs|report|file|to|(benchmark\.)?out|paths\.\w+|(\w+\.)*(path|name_or_path|\w+_file)", key):
        return override
    looks_else = r"[+-]?[\d_]*\.?[\d_]*([eE][+-]?[\d_]+)?|[+-]?(inf|nan)|true|false"
    names = (f"'{name}'" if name and re.fullmatch(looks_else, name, re.IGNORECASE) else name for name in value.split(","))
    return f"{key}={','.join(names)}"


def _with_whole_numbers(override: str) -> str:
    """`budget.tokens=1e6` as `budget.tokens=1000000`: Hydra reads the former as a float, which a whole-number key refuses."""
    key, _, value = override.partition("=")
    numbers = value.split(",")
    if not all(re.fullmatch(r"\d+(\.\d*)?([eE]\+?\d{1,2})?", number) for number in numbers):
        return override
    whole = [str(int(float(number))) if "e" in number.lower() and float(number).is_integer() else number for number in numbers]
    return f"{key}={','.join(whole)}"


def compose_schema(job: str, overrides: list[str]) -> Any:
    """Compose `conf/{job}.yaml` with overrides to a typed config, outside `hydra.main`: for Python callers, and to check sweeps."""
    composed = _compose(job, smoke_of_stages(overrides))
    hydra = composed.hydra
    with open_dict(composed):
        del composed["hydra"]
    return to_schema(composed, hydra)


def compose_hydra(job: str, overrides: list[str]) -> Any:
    """Hydra's own part of a composed config, e.g. its sweeper's options."""
    return _compose(job, overrides).hydra


def _compose(job: str, overrides: list[str]) -> DictConfig:
    install()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(registry.conf_folder()), version_base="1.3", job_name=job):
        return compose(job, overrides=complete(overrides), return_hydra_config=True)


def smoke_of_stages(overrides: list[str]) -> list[str]:
    """`debug=smoke` shortens the pretraining too, where an experiment or `init` describes one."""
    if "debug=smoke" not in overrides or not any(word.startswith(("experiment=", "init=")) for word in overrides):
        return overrides
    chosen = [word for word in overrides if word.startswith(("experiment=", "init=", "tokenizer=")) and "," not in word and "(" not in word]
    try:
        has_stage = "budget" in _compose("train", chosen).init
    except (HydraException, OmegaConfBaseException, ConfigError):
        return overrides  # told when all of it is composed
    return ["debug=smoke_stage" if word == "debug=smoke" and has_stage else word for word in overrides]


def sweep_combinations(overrides: list[str]) -> list[list[str]]:
    """Every run of a grid (`a=1,2 b=range(3)`), as plain overrides."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parsed = OverridesParser.create().parse_overrides(overrides)
    return [list(run) for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None) for run in batch]


def to_schema(composed: DictConfig, hydra: Any) -> Any:
    """Composed config to dataclasses, complete and in range; `hydra` (its own config) tells where a bad value came from.

    Raises ConfigError naming key, value and file; OmegaConf's own errors are explained by the caller.
    """
    try:
        _refuse_smuggled(composed, "")
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            raise ConfigError(f"{missing[0]}: required, but not set; add {missing[0]}=… to the command line")
        schema = OmegaConf.to_object(composed)
        _check_names(schema)
        validate(schema)
    except OmegaConfBaseException as error:  # an interpolation of what is not there
        key = str(error.full_key or error.key or "")
        raise ConfigError(f"{_origin([key], hydra) or 'command line'}: {key}: {str(error).splitlines()[0]}") from None
    except ConfigError as error:
        keys = re.findall(r"^[a-z_]+(?=[:=])|(?<![\w.])[a-z][a-z_0-9]*(?:\.[a-z][a-z_0-9]*)+(?=[=: ,])", str(error))
        origin = _origin(keys[:3], hydra)
        raise ConfigError(f"{origin}: {error}" if origin else str(error)) from None
    return schema


def _origin(keys: list[str], hydra: Any) -> str | None:
    """What set one of the keys last: the command line, or a preset that holds it; None for defaults of the schema."""
    words: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)  # one may be `lr=${nothing}`
    given = [word.lstrip("+~").partition("=")[0] for word in words]
    if any(name == key or name.startswith(f"{key}.") for name in given for key in keys):
        return "command line"
    folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    choices = {group: str(option) for group, option in hydra.runtime.choices.items() if option and "/" not in group}
    for group in sorted(choices, key=lambda name: (name != "debug", name != "experiment")):
        for file in _preset_files(folders, group, choices[group]):
            tree = OmegaConf.to_container(OmegaConf.load(file))
            if any(_holds({group: tree} if group not in ("debug", "experiment") else tree, key) for key in keys):
                return str(file)
    return None


def _holds(tree: Any, key: str) -> bool:
    """Is the dotted key in a preset, whatever its value?"""
    for part in key.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def _preset_files(folders: list[Path], group: str, option: str) -> list[Path]:
    """The option's YAML file and, after it, those of the same group that it builds on."""
    files: list[Path] = []
    while option and (found := next((file for folder in folders if (file := folder / group / f"{option}.yaml").is_file()), None)):
        if found in files:
            break
        files.append(found)
        defaults = OmegaConf.to_container(OmegaConf.load(found)).get("defaults", [])  # type: ignore[union-attr]  # a preset is a mapping
        option = next((item for item in defaults if isinstance(item, str) and item != "_self_"), "")
    return files


def _refuse_smuggled(node: DictConfig, path: str) -> None:
    """`+new.key=1` may add keys to a typed node behind the schema's back; name the first one."""
    kind = OmegaConf.get_type(node)
    if not dataclasses.is_dataclass(kind):
        return
    known = [item.name for item in dataclasses.fields(kind)]
    for key in node:
        full = f"{path}.{key!s}" if path else str(key)
        if key not in known:
            raise ConfigError(f"{full}: unknown key (added with '+'), {did_you_mean(str(key), known, most=40)}")
        if not OmegaConf.is_missing(node, key) and isinstance(value := node._get_node(key), DictConfig) and value._content is not None:
            _refuse_smuggled(value, full)


def _check_names(schema: Any, path: str = "") -> None:
    """`optimizer.name=sgd` would change a label, not the optimizer."""
    for item in dataclasses.fields(schema):
        value = getattr(schema, item.name)
        if isinstance(value, Component):
            if type(value).__module__ == Component.__module__:
                raise ConfigError(f"{path}{item.name}: no component is chosen; choose one as {path}{item.name}=…")
            expected = registry.option_of(item.name, value)
            if value.name != expected and not _is_preset_name(item.name):
                where = f"{path}{item.name}"
                raise ConfigError(f"{where}.name={value.name}: choose a component as {where}={value.name}, not by its name")
            _check_names(value, f"{path}{item.name}.")


def _is_preset_name(group: str) -> bool:
    """A dataset preset is a YAML over `table` and carries its own name, which names its runs' folders."""
    return group == "dataset"


def all_keys(job: str) -> list[str]:
    """Dotted keys of a job's config with every component, for suggestions."""
    schema = registry.load_schema("schema", job)
    keys = valid_keys(schema)
    for group in (*registry.FOLDERS, *registry.TABLE):
        if hasattr(schema, group):
            keys += [key for found in keys_of_components(group).values() for key in found]
    return sorted(set(keys))


def keys_of_components(group: str) -> dict[str, list[str]]:
    """Dotted keys of each Python option of a group; a plugin that cannot be loaded has none."""
    found = {}
    for option in registry.options(group):
        with suppress(ConfigError):
            found[option] = valid_keys(registry.load_schema(group, option), group)
    return found
