"""From overrides to a typed config: where Hydra finds presets and schemas, and what turns a composed config
into dataclasses.

Component dataclasses reach Hydra through a config source of our own, which imports only the options that a
config names. Nothing unknown passes: the schema is the first entry of every primary config, and `to_schema`
finds what `+key=value` added.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from bertlab.config import outlines, registry, suites
from bertlab.config.schema import Budget, Component, valid_keys, validate
from bertlab.config.trust import check_hydra, guard_environment, guard_files, hide_storage
from bertlab.config.words import MOST_RUNS, RULES, Word, check_option, parse, parts_of_mixture, read
from bertlab.errors import ConfigError, did_you_mean, first_line

SCHEME = "bertlab"


class ComponentSource(ConfigSource):
    """Every Python option as a structured config: `optimizer/lion` is the dataclass in
    `optimizers/lion.py`.
    """

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, option = config_path.removesuffix(".yaml").rpartition("/")
        if is_task(config_path):
            return ConfigResult(
                provider=SCHEME,
                path=f"{SCHEME}://",
                config=task_preset(_task_of(config_path)),
                header={"package": "_global_"},
            )
        if option not in registry.options(group):
            raise ConfigLoadError(f"Config not found: {config_path}")
        node = OmegaConf.structured(outlines.to_compose(group, option), flags={"allow_objects": False})
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
        return is_task(config_path) or option in registry.options(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        path = config_path.strip("/")
        groups = (
            [*registry.FOLDERS, *(group for group in registry.TABLE if group != "schema")]
            if path == ""
            else []
        )
        configs = registry.options(path)
        return sorted(
            groups
            if results_filter == ObjectType.GROUP
            else configs
            if results_filter == ObjectType.CONFIG
            else [*groups, *configs]
        )


def is_task(config_path: str) -> bool:
    """Whether a config is a suite's task: `suite/NAME/TASK`."""
    return len(config_path.split("/")) == 3 and config_path.startswith(f"{suites.GROUP}/")


def _task_of(config_path: str) -> str:
    return config_path.removesuffix(".yaml").partition("/")[2]


def task_preset(option: str) -> DictConfig:
    """A suite's task as a preset of a whole run: the choices and the values that its words say."""
    defaults: list[Any] = ["_self_"]
    preset = OmegaConf.create({})
    for word in complete("train", read(suites.words_of(option))):
        if word.key in registry.GROUPS:
            group = word.key if word.package is None else f"{word.key}@{word.package}"
            defaults.append({f"override /{group}": word.plain})
        else:
            OmegaConf.update(preset, word.key, word.plain, force_add=True)
    preset.defaults = defaults
    return preset


class SearchPath(SearchPathPlugin):
    """Presets of the user's plugin folders first, then ours (already there), last the component
    dataclasses.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in reversed(registry.plugin_folders()):
            search_path.prepend(
                "plugins", f"file://{folder / 'conf'}", anchor=SearchPathQuery(provider="main")
            )
        search_path.append(SCHEME, f"{SCHEME}://components")


def install() -> None:
    """Tell Hydra where our configs are, and OmegaConf what of the environment they may read; harmless when
    repeated.
    """
    guard_environment()
    guard_files()
    plugins = Plugins.instance()
    plugins.register(ComponentSource)
    plugins.register(SearchPath)


def read_words(job: str, overrides: Iterable[str], literal: Collection[str] = ()) -> list[Word]:
    """A command line's words as Hydra is to read them. Raises ConfigError for an option that is no name,
    Hydra's errors for no words.
    """
    return complete(job, smoke_of_stages(read(overrides, literal)))


def complete(job: str, words: list[Word]) -> list[Word]:
    """Every rule on words; harmless when repeated. Raises ConfigError for an option that is no name.

    A budget in one unit replaces the preset's unit, so `budget.steps=100` needs no `budget.epochs=null`; a
    stage brings its tokenizer, and for the tasks of a suite so does every run or checkpoint that they begin
    from.
    """
    for word in words:
        check_option(word)
    words = suites.expanded(words) if job == "train" else words
    bringing = [file.stem for file in (registry.conf_folder() / "init").glob("*.yaml")]
    bringing += ["checkpoint", "pretrained"] if any(word.key == suites.GROUP for word in words) else []
    if any(word.name == "init" and word.plain in bringing for word in words) and all(
        word.name != "tokenizer" for word in words
    ):
        words = [parse("tokenizer=inherited"), *words]
    words = [written for word in words for written in parts_of_mixture(word)]
    for rule in RULES:
        words = [rule(job, word) for word in words]
    given, nulls = (
        {word.name for word in words if (word.value is None) == is_null} for is_null in (False, True)
    )
    budgets = sorted({name.rpartition(".")[0] for name in given if "budget" in name.split(".")[-2:-1]})
    cleared = []
    for budget in budgets:
        if units := [unit for unit in Budget.UNITS if f"{budget}.{unit}" in given]:
            cleared += [
                f"{budget}.{unit}"
                for unit in Budget.UNITS
                if unit not in units and f"{budget}.{unit}" not in nulls
            ]
    return [*(Word(key).with_value(None) for key in cleared), *words]


def smoke_of_stages(words: list[Word]) -> list[Word]:
    """`debug=smoke` shortens the pretraining too, where an experiment or `init` describes one."""
    smoke = next((word for word in words if word.name == "debug" and word.plain == "smoke"), None)
    if smoke is None or not any(word.name in ("experiment", "init") for word in words):
        return words
    chosen = [
        word
        for word in words
        if word.name in ("experiment", "init", "tokenizer", "hydra.searchpath") and not word.sweep
    ]
    try:
        has_stage = "budget" in compose_raw("train", complete("train", chosen)).init
    except (HydraException, OmegaConfBaseException, ConfigError):
        return words  # told when all of it is composed
    return [word.with_value("smoke_stage") if word is smoke and has_stage else word for word in words]


def compose_schema(job: str, overrides: Iterable[str]) -> Any:
    """Compose `conf/{job}.yaml` with overrides to a typed config, outside `hydra.main`: for
    Python callers.
    """
    return compose_words(job, read_words(job, overrides))


def compose_words(job: str, words: Iterable[Word]) -> Any:
    """The same of words that are complete."""
    return to_schema(*compose_apart(job, words))


def compose_apart(job: str, words: Iterable[Word]) -> tuple[DictConfig, DictConfig]:
    """A run's config and Hydra's own part, as `to_schema` takes them."""
    composed = compose_raw(job, words)
    hydra = composed.hydra
    with open_dict(composed):
        del composed["hydra"]
    return composed, hydra


def declared_tasks(suite: suites.Suite) -> dict[tuple[str, str], str]:
    """(dataset, objective) of each task, as its runs record them -> the task's name. Raises ConfigError where
    two tasks have the same.
    """
    tasks: dict[tuple[str, str], str] = {}
    for task in suite.tasks:
        config = compose_schema("train", suite.words_for(task))
        key = (config.dataset.name, config.objective.name)
        if key in tasks:
            raise ConfigError(
                f"tasks {tasks[key]} and {task} are both objective={key[1]} on '{key[0]}': give one a name of"
                f" its own, dataset.name={task}"
            )
        tasks[key] = task
    return tasks


def compose_hydra(job: str, words: Iterable[Word]) -> Any:
    """Hydra's own part of a composed config, e.g. its sweeper's options."""
    return compose_raw(job, words).hydra


def compose_raw(
    job: str, words: Iterable[Word], folder: Path | None = None, name: str | None = None
) -> DictConfig:
    """A config as Hydra composes it, its own node with it, which is checked before anything that it names is
    called.

    `folder` and `name` stand for a primary config that is not ours. Raises ConfigError, and Hydra's errors.
    """
    install()
    GlobalHydra.instance().clear()
    with (
        initialize_config_dir(
            str((folder or registry.conf_folder()).absolute()), version_base="1.3", job_name=job
        ),
        told_of_presets(),
    ):
        composed = compose(name or job, overrides=[str(word) for word in words], return_hydra_config=True)
    hide_storage(composed.hydra)
    check_hydra(composed.hydra)
    return composed


@contextmanager
def told_of_presets() -> Iterator[None]:
    """What Hydra meets where a preset's own shape is none becomes a ConfigError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, UnicodeDecodeError):
        raise
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        deep = isinstance(error, RecursionError) or "recursion" in str(error)
        said = first_line(error, 200)
        why = "nested too deeply, or building on itself" if deep else said
        raise ConfigError(f"a preset, or a word of the command line, cannot be composed: {why}") from None


def combinations(words: list[Word]) -> list[list[Word]]:
    """Every run of a grid (`a=1,2 b=range(3)`), in Hydra's order; of a `zip(…)`, values go together.

    Raises ValueError where its values cannot be listed, ConfigError where they are too many.
    """
    # what is said twice holds as said last
    last = {(word.prefix, word.key, word.package): word for word in words}
    groups: dict[Any, list[Word]] = {}
    for key, word in last.items():
        groups.setdefault(key if word.zipped is None else word.zipped, []).append(word)
    columns = [list(zip(*(word.singles() for word in group), strict=True)) for group in groups.values()]
    if math.prod(map(len, columns)) > MOST_RUNS:
        raise ConfigError(f"this grid has {math.prod(map(len, columns)):,} runs, more than {MOST_RUNS:,}")
    return [[word for part in run for word in part] for run in itertools.product(*columns)]


def to_schema(composed: DictConfig, hydra: Any) -> Any:
    """Composed config to dataclasses, complete and in range; `hydra` (its own config) tells where a bad value
    came from.

    Raises ConfigError naming key, value and file; OmegaConf's own errors are explained by the caller.
    """
    guard_environment()  # in a launcher's process, too
    try:
        _refuse_smuggled(composed, "")
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            raise ConfigError(f"{missing[0]}: required, but not set; add {missing[0]}=… to the command line")
        schema = OmegaConf.to_object(composed)
        schema = schema if outlines.is_outlined() else outlines.with_code(schema)
        _check_names(schema)
        validate(schema, values_only=outlines.is_outlined())
    except OmegaConfBaseException as error:  # an interpolation of what is not there
        key = str(error.full_key or error.key or "")
        line = str(error).splitlines()[0].removeprefix("ConfigError raised while resolving interpolation: ")
        raise ConfigError(f"{_origin([key], hydra) or 'command line'}: {key}: {line}") from None
    except ConfigError as error:
        keys = re.findall(
            r"^[a-z_]+(?=[:=])|(?<![\w.])[a-z][a-z_0-9]*(?:\.[a-z][a-z_0-9]*)+(?=[=: ,])", str(error)
        )
        origin = _origin(keys[:3], hydra)
        raise ConfigError(f"{origin}: {error}" if origin else str(error)) from None
    return schema


def _origin(keys: list[str], hydra: Any) -> str | None:
    """What set one of the keys last: the command line, or a preset that holds it; None for defaults of the
    schema.
    """
    words: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)  # one may be `lr=${nothing}`
    given = [word.lstrip("+~").partition("=")[0] for word in words]
    if any(name == key or name.startswith(f"{key}.") for name in given for key in keys):
        return "command line"
    folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    choices = {
        group: str(option) for group, option in hydra.runtime.choices.items() if option and "/" not in group
    }
    for group in sorted(choices, key=lambda name: (name != "debug", name != "experiment")):
        for file in _preset_files(folders, group, choices[group]):
            tree = OmegaConf.to_container(OmegaConf.load(file))
            if any(
                _holds({group: tree} if group not in ("debug", "experiment") else tree, key) for key in keys
            ):
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
    while option and (
        preset := next(
            (file for folder in folders if (file := folder / group / f"{option}.yaml").is_file()), None
        )
    ):
        if preset in files:
            break
        files.append(preset)
        option = choices_of(preset).get("", "")
    return files


def choices_of(file: Path) -> dict[str, str]:
    """A file's defaults list: group, perhaps after `override `, -> option; under "" the preset that it builds
    on. Raises YAML's errors.
    """
    tree: Any = OmegaConf.to_container(OmegaConf.load(file))
    chosen: dict[str, str] = {}
    for item in tree.get("defaults") or [] if isinstance(tree, dict) else []:
        for group, option in item.items() if isinstance(item, dict) else [("", item)]:
            if option != "_self_":
                chosen.setdefault(group.replace("override /", "override ").lstrip("/"), str(option))
    return chosen


def _refuse_smuggled(node: DictConfig, path: str) -> None:
    """`+new.key=1` may add keys to a typed node behind the schema's back; name the first one."""
    kind = OmegaConf.get_type(node)
    # None: a mapping, of any keys
    known = [item.name for item in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else None
    for key in node:
        full = f"{path}.{key!s}" if path else str(key)
        if known is not None and key not in known:
            raise ConfigError(
                f"{full}: unknown key (added with '+'), {did_you_mean(str(key), known, most=40)}"
            )
        if (
            not OmegaConf.is_missing(node, key)
            and isinstance(value := node._get_node(key), DictConfig)
            and value._content is not None
        ):
            _refuse_smuggled(value, full)


def _check_names(schema: Any, path: str = "") -> None:
    """`optimizer.name=sgd` would change a label, not the optimizer."""
    for item in dataclasses.fields(schema):
        value = getattr(schema, item.name)
        if isinstance(value, Component):
            if type(value) in Component.__subclasses__():  # a base, which no option is
                raise ConfigError(
                    f"{path}{item.name}: no component is chosen; choose one as {path}{item.name}=…"
                )
            expected = registry.option_of(item.name, value)
            if value.name != expected and not _is_preset_name(item.name):
                where = f"{path}{item.name}"
                raise ConfigError(
                    f"{where}.name={value.name}: choose a component as {where}={value.name}, not by its name"
                )
            _check_names(value, f"{path}{item.name}.")


def _is_preset_name(group: str) -> bool:
    """A dataset preset is a YAML over `table` and carries its own name, which names its runs' folders."""
    return group == "dataset"


def all_keys(job: str) -> list[str]:
    """Dotted keys of a job's config with every component, for suggestions."""
    schema = outlines.to_ask("schema", job)
    keys = valid_keys(schema)
    for group in (*registry.FOLDERS, *registry.TABLE):
        if hasattr(schema, group):
            keys += [key for keys_of_one in keys_of_components(group).values() for key in keys_of_one]
    return sorted(set(keys))


def keys_of_components(group: str) -> dict[str, list[str]]:
    """Dotted keys of each Python option of a group; a plugin that cannot be loaded has none."""
    by_component = {}
    for option in registry.options(group):
        with suppress(ConfigError):
            by_component[option] = valid_keys(outlines.to_ask(group, option), group)
    return by_component
