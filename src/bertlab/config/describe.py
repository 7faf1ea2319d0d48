"""What groups, options and keys are, in words: from the schema, from docstrings, from the first lines of
presets.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bertlab.config import outlines, registry, schema
from bertlab.config.schema import COMPONENTS, PLAIN
from bertlab.errors import ConfigError, did_you_mean, nearest

WIDTH = 132
MOST_FOUND = 40
SENTENCE_END = r"(?<=\.) (?=[A-Z`])"


# --- keys -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Key:
    """One key that a person can set."""

    name: str  # dotted
    kind: str  # of its value, as people call it
    default: str  # as it is written on the command line; empty where there is none to write
    allowed: str  # bounds or choices; empty where every value of its kind is
    help: str
    decides: bool = True  # whether it is part of a run's identity
    is_group: bool = False  # keys below it


def keys_of(node: Any, path: str) -> list[Key]:
    """A dataclass's keys in its order, those of the groups within it not among them; a component's `name` is
    chosen, not set.
    """
    items = dataclasses.fields(node)
    return [
        _key(node, path, item)
        for item in items
        if not (item.name == "name" and isinstance(node, schema.Component))
    ]


def _key(node: Any, path: str, item: Any) -> Key:
    value = getattr(node, item.name)
    is_group = dataclasses.is_dataclass(value) or (
        isinstance(item.type, type) and dataclasses.is_dataclass(item.type)
    )
    name = f"{path}.{item.name}" if path else item.name
    default = "" if is_group else value_text(value)
    return Key(name, "group of keys" if is_group else kind_of(item), default, allowed(item.metadata),
        item.metadata.get("help", ""),
               item.metadata.get("decides", True), is_group)  # fmt: skip


def kind_of(item: Any) -> str:
    """A field's type, as people call it."""
    name = (
        str(item.type)
        if "|" in str(item.type) or "[" in str(item.type)
        else getattr(item.type, "__name__", str(item.type))
    )
    words = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "None": "null"}
    if name.startswith("list["):
        return "list"
    if name.startswith("dict["):
        return "mapping"
    if item.type is Any:
        return "any kind of value"
    parts = [words.get(part.strip(), part.strip()) for part in name.replace("typing.", "").split("|")]
    return " or ".join(parts) if all(part in words.values() for part in parts) else "group of keys"


def allowed(rule: Any) -> str:
    """Choices, `a | b`, or bounds, `≥ 0, < 1`."""
    if rule.get("options"):
        return " | ".join(rule["options"])
    signs = (("low", "≥"), ("above", ">"), ("high", "≤"), ("below", "<"))
    return ", ".join(f"{sign} {rule[bound]}" for bound, sign in signs if rule.get(bound) is not None)


def value_text(value: Any) -> str:
    """As it is written on the command line."""
    if value is None:
        return "null"
    return (
        str(value).lower() if isinstance(value, bool) else "(must be given)" if value == "???" else str(value)
    )


def keys_of_search() -> list[Key]:
    """Options of the Optuna sweeper, those of its groups after them."""
    from hydra_plugins.bertlab_optuna.sweeper import BertlabOptunaConf

    place, options = "hydra.sweeper", BertlabOptunaConf()
    keys = [*keys_of(options, place)]
    for group in (key.name.removeprefix(f"{place}.") for key in keys if key.is_group):
        keys += keys_of(getattr(options, group), f"{place}.{group}")
    return [dataclasses.replace(key, decides=False) for key in keys if not key.name.endswith("._target_")]


# --- options --------------------------------------------------------------------------------------
def options_in_words(group: str) -> dict[str, str]:
    """Each option of a group, and what it is: its preset's first sentence, or its docstring's first line."""
    return {option: summary_of(group, option) for option in registry.options_of(group)}


def summary_of(group: str, option: str) -> str:
    """What an option is, in a line; empty where nobody said."""
    if (file := preset_of(group, option)) is not None:
        return re.split(SENTENCE_END, header_of(file))[0]
    if group in registry.FOLDERS:
        return _first_line(_docstring_of(group, option))
    module, _, name = registry.TABLE.get(group, {}).get(option, ":").partition(":")
    return (
        _first_line(_docstring(registry.ROOT.parent.joinpath(*module.split(".")).with_suffix(".py"), name))
        if name
        else ""
    )


def preset_of(group: str, option: str) -> Path | None:
    """The preset's file, a plugin's before ours; None for an option that is Python alone."""
    folders = [registry.conf_folder()]
    with suppress(ConfigError):
        folders = [*(folder / "conf" for folder in registry.plugin_folders()), *folders]
    return next((file for folder in folders if (file := folder / group / f"{option}.yaml").is_file()), None)


def header_of(file: Path) -> str:
    """The comments at the top of a preset, as one text."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    head: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            head.append(line.lstrip("# ").strip())
    return " ".join(head)


def built_on(file: Path) -> str:
    """The option that a preset is built on, by its defaults list; empty where it is on none."""
    first_default = re.search(r"^defaults:\n\s+- (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return first_default.group(1) if first_default else ""


def _docstring_of(group: str, option: str) -> str:
    """Of the option's own file; empty where there is none."""
    file = next((file for file in registry.source_files(group) if file.stem == option), None)
    return "" if file is None else _docstring(file)


def _docstring(file: Path, name: str | None = None) -> str:
    """Of a module, or of one of its classes; the file is read, not imported."""
    with suppress(OSError, SyntaxError, ValueError):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        place: Any = (
            tree
            if name is None
            else next(
                (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None
            )
        )
        return ast.get_docstring(place) or "" if place is not None else ""
    return ""


def _first_line(text: str) -> str:
    """The first sentence of the first paragraph, on one line."""
    return re.split(SENTENCE_END, " ".join(text.strip().partition("\n\n")[0].split()))[0]


# --- answers --------------------------------------------------------------------------------------
def explain_word(word: str, job: str = "train") -> str:
    """What `bertlab help WORD` prints: of a group, of `group=option`, of a key, or of all keys in which the
    word is found.

    Raises ConfigError for what is none of these.
    """
    name, equals, value = word.lstrip("+~").partition("=")
    inner = re.sub(r"^(init\.)+", "", name)
    # of the pretraining within a run
    name = inner if inner.partition(".")[0] in (*registry.GROUPS, *PLAIN) else name
    if name in registry.GROUPS:
        return _option(name, value) if equals and value else _group(name)
    if name in PLAIN:
        return _titled(
            f"{name}: {_first_line(inspect.getdoc(PLAIN[name]) or '')}", keys_of(PLAIN[name](), name)
        )
    if matching := [(job, key) for key in keys_of_job(job) if key.name == name] if job != "train" else []:
        return _of_jobs(matching)
    if name.startswith("hydra."):
        if shown := [key for key in keys_of_search() if key.name == name or key.name.startswith(f"{name}.")]:
            return _titled("of a search: bertlab -m search=…", shown)
        raise ConfigError(
            f"{name}: not a key of the search, {did_you_mean(name, [key.name for key in keys_of_search()])}"
        )
    if told := _key_in_words(name):
        return told
    if matching := [
        (other, key)
        for other in registry.jobs()
        if other != "train"
        for key in keys_of_job(other)
        if name in (key.name, f"{other}.{key.name}")
    ]:
        return _of_jobs(matching)
    return _searched(name)


def keys_of_job(job: str) -> list[Key]:
    """Keys that a job has beside those of a run; of train, its own few."""
    node = outlines.to_ask("schema", job)
    run = (
        {item.name for item in dataclasses.fields(schema.Train)}
        if isinstance(node, schema.Train) and job != "train"
        else set()
    )
    keys: list[Key] = []
    for item in dataclasses.fields(node):
        if item.name in run or item.name in registry.GROUPS or item.name in PLAIN:
            continue
        value = getattr(node, item.name)
        keys += keys_of(value, item.name) if dataclasses.is_dataclass(value) else [_key(node, "", item)]
    return keys


def listed(keys: Sequence[Key]) -> Iterator[str]:
    """Two lines a key: what is written and what may be, then what it does."""
    for key in keys:
        limits = f"{key.kind}{', ' if key.allowed else ''}{key.allowed}"
        written = key.name if key.is_group else f"{key.name}={key.default}"
        yield f"  {written:<44}  {limits}"
        said = key.help + (
            ""
            if key.decides
            else " (not part of a run's identity)"
            if not key.name.startswith("hydra.")
            else ""
        )
        yield from textwrap.wrap(said.strip(), WIDTH, initial_indent="      ", subsequent_indent="      ")


def _titled(title: str, keys: Sequence[Key]) -> str:
    return "\n".join([title, "", *listed(keys)])


def _group(group: str) -> str:
    lines = [f"{group}: {registry.GROUPS[group]}", "", f"options, chosen as {group}=…"]
    told = options_in_words(group)
    width = max(map(len, told), default=0)
    lines += [line for option, said in told.items() for line in beside(option, said, width)]
    if group in COMPONENTS and (keys := keys_of(COMPONENTS[group](name=""), group)):
        lines += ["", f"keys of every {group} (those of one: bertlab help {group}=…)", *listed(keys)]
    elif group in PLAIN:
        lines += ["", "keys", *listed(keys_of(PLAIN[group](), group))]
    return "\n".join(lines)


def beside(name: str, said: str, width: int) -> list[str]:
    """A name and what it is, in as many lines as that takes."""
    return textwrap.wrap(
        said,
        max(WIDTH, width + 40),
        initial_indent=f"  {name:<{width}}  ",
        subsequent_indent=" " * (width + 4),
    ) or [f"  {name}"]


def _option(group: str, option: str) -> str:
    if option not in registry.options_of(group) and option not in registry.options(group):
        raise ConfigError(
            f"{group}={option}: unknown option, {did_you_mean(option, registry.options_of(group), most=40)}"
        )
    lines = [f"{group}={option}"]
    file, component = preset_of(group, option), option
    preset: dict[str, Any] = {}
    while file is not None:
        lines += textwrap.wrap(header_of(file), WIDTH, initial_indent="  ", subsequent_indent="  ")
        own = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        own.pop("defaults", None)
        preset = _flat(own, "" if group in ("experiment", "search", "debug") else group) | preset
        component = built_on(file)
        if component:
            lines.append(f"  built on {group}={component}")
        file = preset_of(group, component) if component and component != option else None
    if group not in COMPONENTS or component not in registry.options(group):
        if group in PLAIN:
            lines += ["", "keys", *listed([_with(key, preset) for key in keys_of(PLAIN[group](), group)])]
        elif preset:
            lines += ["", "sets", *(f"  {key}={value_text(value)}" for key, value in preset.items())]
        return "\n".join(lines)
    node = outlines.to_ask(group, component)
    said = inspect.getdoc(type(node)) or ""
    module = _docstring_of(group, component) if group in registry.FOLDERS else ""
    for text in dict.fromkeys((module, "" if said.startswith(f"{type(node).__name__}(") else said)):
        lines += [line for part in text.split("\n\n") for line in (_wrapped(part), "") if line]
    if missing := registry.lacking(group, component):
        lines += [f"  {'lacks' if place == 0 else '':<8} {method}" for place, method in enumerate(missing)]
    elif isinstance(node, schema.ObjectiveConfig):
        lines += list(_declared(node))
    return "\n".join([*lines, "", "keys", *listed([_with(key, preset) for key in keys_of(node, group)])])


def _wrapped(text: str) -> str:
    return "\n".join(
        textwrap.wrap(" ".join(text.split()), WIDTH, initial_indent="  ", subsequent_indent="  ")
    )


def _declared(objective: schema.ObjectiveConfig) -> Iterator[str]:
    roles = (
        ", ".join(
            f"{role.name} ({role.kind}{', optional' if role.optional else ''})" for role in objective.roles
        )
        or "nothing"
    )
    yield f"  reads    {roles}"
    for place, metric in enumerate(objective.metrics(())):
        said = ", ".join(filter(None, (metric.unit, metric.direction)))
        label, selects = ("scores", "; selects") if place == 0 else ("", "")
        yield f"  {label:<8} {metric.name} ({said}{selects})"


def _flat(tree: dict[str, Any], path: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{path}.{key}" if path else str(key)
        values |= _flat(value, name) if isinstance(value, dict) and value and path != "" else {name: value}
    return values


def _with(key: Key, preset: dict[str, Any]) -> Key:
    return dataclasses.replace(key, default=value_text(preset[key.name])) if key.name in preset else key


def _key_in_words(name: str) -> str:
    """A key of a run, with the options that have it; empty where none has."""
    options_by_key: dict[Key, list[tuple[str, str]]] = {}  # all but the default -> options and their defaults
    for option, key in every_key():
        if key.name == name:
            options_by_key.setdefault(dataclasses.replace(key, default=""), []).append((option, key.default))
    parts = []
    for key, owners in options_by_key.items():
        defaults: dict[str, list[str]] = {}
        for option, default in owners:
            defaults.setdefault(default, []).append(option)
        lines = [f"{key.name}: {key.kind}{', ' if key.allowed else ''}{key.allowed}"]
        lines += textwrap.wrap(key.help, WIDTH, initial_indent="  ", subsequent_indent="  ")
        group = name.partition(".")[0]
        for default, options in defaults.items():
            of = (
                f"   ({group}={', '.join(options)})"
                if (any(options) and len(owners) < len(registry.options(group))) or len(defaults) > 1
                else ""
            )
            lines.append(f"  default: {default or 'empty'}{of}")
        if not key.decides:
            lines.append("  not part of a run's identity: changes speed or what is kept, not results")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def every_key() -> Iterator[tuple[str, Key]]:
    """Every key of a run with the component that has it, empty for keys outside components; a plugin that
    cannot be loaded has none.
    """
    top = schema.Train()
    for key in keys_of(top, ""):
        if key.name in PLAIN:
            yield from (("", inner) for inner in keys_of(PLAIN[key.name](), key.name))
        elif not key.is_group:
            yield "", key
    for group in COMPONENTS:
        for option in registry.options(group):
            with suppress(ConfigError):
                yield from ((option, key) for key in keys_of(outlines.to_ask(group, option), group))


def _of_jobs(matching: Sequence[tuple[str, Key]]) -> str:
    return "\n\n".join(_titled(f"of bertlab {job}", [key]) for job, key in matching)


def _searched(word: str) -> str:
    keys = {key.name: key for _, key in every_key()}
    last = word.rpartition(".")[2].lower()
    matching = [
        key for key in keys.values() if last and (last in key.name.lower() or last in key.help.lower())
    ]
    if not matching or "." in word:
        names = {
            **{key.rpartition(".")[2]: key for key in keys},
            **{name: name for name in (*registry.GROUPS, *registry.jobs())},
        }
        close = nearest(last, names)
        guess = f", did you mean '{names[close]}'?" if close else ""
        raise ConfigError(
            f"help: there is no group, key or job '{word}'{guess}; bertlab --help names groups and jobs"
        )
    more = [f"  … and {len(matching) - MOST_FOUND} more"] if len(matching) > MOST_FOUND else []
    return "\n".join([_titled(f"keys that speak of '{word}'", matching[:MOST_FOUND]), *more])


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns side by side."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
