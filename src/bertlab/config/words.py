"""A word of the command line, read once by Hydra's own parser, and the rules on single words; each is Word ->
Word.

What a value is to be (a whole number, a text) the schema says: `declared` reads the dataclasses' source
instead of importing them, so that a setting costs neither torch nor a plugin's code.
"""

import ast
import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    OverrideType,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
)

from bertlab.config import registry
from bertlab.errors import ConfigError, did_you_mean

MOST_RUNS = 100_000  # of a grid: more are a slip of the hand, and fill the memory before the first
PREFIXES = {
    OverrideType.CHANGE: "",
    OverrideType.ADD: "+",
    OverrideType.FORCE_ADD: "++",
    OverrideType.DEL: "~",
}
# ends of keys whose values are signs: `dataset.delimiter=;` once a shell took the quotes
MARKS = ("delimiter", "labels_separator")
LARGEST = 2**63  # a number above is no count of anything


@dataclasses.dataclass(frozen=True)
class Word:
    """`prefix key@package=text`."""

    key: str
    value: Any = None  # as Hydra parsed it; of several values, Hydra's sweep
    text: str | None = None  # the value as Hydra is to read it; None for `~key`
    prefix: str = ""
    package: str | None = None
    zipped: str | None = (
        None  # the `zip(…)` that it stands in: its values go together with those of the others there
    )

    def __str__(self) -> str:
        package = "" if self.package is None else f"@{self.package}"
        return f"{self.prefix}{self.key}{package}{'' if self.text is None else f'={self.text}'}"

    @property
    def sweep(self) -> bool:
        """Whether it has several values."""
        return isinstance(self.value, Sweep | Glob)

    @property
    def name(self) -> str:
        """The key as a person writes it: `init.dataset` for `dataset@init.dataset`."""
        return self.key if self.package is None else self.package

    @property
    def plain(self) -> Any:
        """The value without quotes; a sweep as it is."""
        return Override._convert_value(self.value)

    def with_value(self, value: Any) -> "Word":
        """The same key with another value, or another sweep."""
        return dataclasses.replace(self, value=value, text=written(value))

    def singles(self) -> list["Word"]:
        """A word for each of its values, in order. Raises ValueError where they cannot be listed: of an
        interval, or a pattern; ConfigError where they are too many.
        """
        if isinstance(self.value, IntervalSweep | Glob):
            raise ValueError(f"{self}: its values cannot be listed")
        if not isinstance(self.value, ChoiceSweep | RangeSweep):
            return [self]
        values = self.value.list if isinstance(self.value, ChoiceSweep) else self.value.range()
        listed = list(itertools.islice(values, MOST_RUNS + 1))
        if len(listed) > MOST_RUNS:
            raise ConfigError(f"{self}: more than {MOST_RUNS:,} values, each of which would be a run")
        return [self.with_value(value) for value in listed]


def parse(override: str) -> Word:
    """Raises Hydra's OverrideParseException."""
    (parsed,) = OverridesParser.create().parse_overrides([override])
    text = None if parsed.value_type is None else parsed.get_value_string()
    return Word(parsed.key_or_group, parsed._value, text, PREFIXES[parsed.type], parsed.package)


def read(overrides: Iterable[str], literal: Collection[str] = ()) -> list[Word]:
    """The words of a command line. Values of the keys in `literal` are what was written, commas, brackets and
    signs included.
    """
    words_read: list[Word] = []
    for override in overrides:
        if override.startswith("zip("):
            words_read += zipped(override)
        else:
            key = override.partition("=")[0]
            words_read.append(
                as_written(override) if key in literal or key.endswith(MARKS) else parse(override)
            )
    return words_read


def zipped(override: str) -> list[Word]:
    """`zip(model=bert_tiny,bert_mini; optimizer.lr=1e-3,5e-4)`: the words in it, whose values go together,
    the first with the first.

    Raises ConfigError where there are not as many values of each.
    """
    inner = override.strip().removeprefix("zip(").removesuffix(")")
    parts = [
        part.strip() for part in re.split(r";(?=(?:[^'\"]|'[^']*'|\"[^\"]*\")*$)", inner) if part.strip()
    ]
    if not override.strip().endswith(")") or len(parts) < 2:
        raise ConfigError(
            f"command line: {override}: write 'zip(key=a,b; other.key=c,d)', in quotes for the shell's sake"
        )
    words = [dataclasses.replace(parse(part), zipped=override) for part in parts]
    names = [word.name for word in words]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"command line: {override}: {twice} stands in it twice; give it one list of values")
    for word in words:
        if word.sweep and not isinstance(word.value, ChoiceSweep | RangeSweep):
            raise ConfigError(
                f"command line: {word}: values that go together must be listed, as a,b or range(…)"
            )
    counts = {word.name: len(word.singles()) for word in words}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise ConfigError(f"command line: zip(…) needs as many values of each key: {told}")
    return words


def as_written(override: str) -> Word:
    """`text=a film, they say` as one text, commas, brackets and apostrophes included; null and quoted texts
    stay.
    """
    key, _, value = override.partition("=")
    if value == "null" or (
        len(value) > 1 and value[0] in "'\"" and value.find(value[0], 1) == len(value) - 1
    ):
        return parse(override)
    # no interpolation: `\${`, and `\\` for a backslash before it
    plain = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return Word(key).with_value(QuotedString(plain, Quote.single))


def written(value: Any) -> str:
    """A value or a sweep in Hydra's grammar."""
    if not isinstance(value, Sweep | Glob):
        return Override._get_value_element_as_str(value)
    if isinstance(value, Glob):
        return (
            f"glob({_listed(value.include)}{f',exclude={_listed(value.exclude)}' if value.exclude else ''})"
        )
    if isinstance(value, ChoiceSweep):
        elements = ",".join(map(written, value.list))
        text = elements if value.simple_form else f"choice({elements})"
    elif isinstance(value, RangeSweep):
        text = f"range({value.start},{value.stop},{value.step})"
    else:
        assert isinstance(value, IntervalSweep)
        text = f"interval({value.start},{value.end})"
        # without it, Hydra makes floats of the bounds
        text = f"int({text})" if isinstance(value.start, int) else text
    if getattr(value, "shuffle", False):
        text = f"shuffle({text})"
    return f"tag({','.join(sorted(value.tags))},{text})" if value.tags else text


def _listed(patterns: Sequence[str]) -> str:
    return f"[{','.join(written(pattern) for pattern in patterns)}]"


# --- what the schema declares ---------------------------------------------------------------------
Fields = dict[str, set[str]]  # field -> names in its annotation; "" -> the class's bases


@functools.cache
def _classes(file: Path) -> dict[str, Fields]:
    """The classes of a file; none of a file that is no Python, which is told when it is imported."""
    classes: dict[str, Fields] = {}
    with suppress(SyntaxError, ValueError, OSError):
        for item in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(item, ast.ClassDef):
                fields = classes.setdefault(
                    item.name, {"": {base.id for base in item.bases if isinstance(base, ast.Name)}}
                )
                for line in item.body:
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                        names = {part.id for part in ast.walk(line.annotation) if isinstance(part, ast.Name)}
                        fields.setdefault(line.target.id, set()).update(names - {"Optional"})
    return classes


@functools.cache
def _built_on(file: Path) -> list[Path]:
    """Files of ours that hold the bases of a file's classes, and those that these are built on."""
    bases = {base for fields in _classes(file).values() for base in fields[""]}
    found: list[Path] = []
    with suppress(SyntaxError, ValueError, OSError):
        for item in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(item, ast.ImportFrom) and (item.module or "").startswith("bertlab."):
                place = registry.ROOT.joinpath(*str(item.module).split(".")[1:]).with_suffix(".py")
                if bases & {alias.name for alias in item.names} and place.is_file():
                    found += [place, *_built_on(place)]
    return found


def declared(job: str, key: str) -> set[str]:
    """Names of the types that a job's schema declares for a key, e.g. {"int"}, by every component that has
    it; none for unknown keys.
    """
    files = [registry.ROOT / "config" / name for name in ("fields.py", "components.py", "schema.py")]
    known = {name: keys for file in files for name, keys in _classes(file).items()}
    known |= _classes(registry.ROOT / "jobs" / f"{job}.py")
    types = {"Schema" if "Schema" in known else "Train"}
    for part in key.split("."):
        if "dict" in types:
            return types - {"dict"}
        owners = list(types)
        for owner in owners:
            owners += [base for base in known.get(owner, {}).get("", ()) if base not in owners]
        types = set().union(*(known.get(owner, {}).get(part, ()) for owner in owners))
        if types & known.keys():  # a component: any of its options
            for file in registry.source_files(part):
                for base in _built_on(file):
                    known = {**_classes(base), **known}
                known.update(_classes(file))
                types.update(_classes(file))
    return types


# --- rules on one word ----------------------------------------------------------------------------
def check_option(word: Word) -> None:
    """`model=3` and `model=null` are no names of options; Hydra's own answer is a traceback. Raises
    ConfigError.
    """
    group = word.name.rpartition("init.")[2]
    if (
        (group not in registry.GROUPS and "/" not in word.key)
        or word.sweep
        or isinstance(word.plain, str | list | dict)
    ):
        return
    if word.prefix == "~" and word.value is None:
        return
    options = did_you_mean(str(word.value), registry.options_of(group))
    wish = (
        f"leave it out, or write ~{group} for none"
        if word.value is None
        else f"unknown option, {options}".rstrip(", ")
    )
    raise ConfigError(f"command line: {word}: {wish}")


def parts_of_mixture(word: Word) -> list[Word]:
    """`dataset.parts={classic_books: 2, imdb_text: 1}`, presets and their weights, as Hydra composes them;
    other words as they are.

    Raises ConfigError for what is no such thing.
    """
    if word.package or not (
        word.key == "dataset.parts" or (word.key.startswith("init.") and word.key.endswith("dataset.parts"))
    ):
        return [word]
    weights = word.plain
    if (
        not isinstance(weights, dict)
        or not all(isinstance(weight, int | float) for weight in weights.values())
        or word.prefix
    ):
        raise ConfigError(
            f"{word.key}: write presets of datasets and their weights, e.g. '{word.key}={{classic_books: 2,"
            " imdb_text: 1}'"
        )
    known = registry.options_of("dataset")
    if unknown := next((str(name) for name in weights if str(name) not in known), None):
        raise ConfigError(f"{word.key}: dataset={unknown}: unknown option, {did_you_mean(unknown, known)}")
    group = word.key.rpartition(".")[0]
    chosen = [parse(f"+dataset@{word.key}.{name}={name}") for name in weights]
    return [*chosen, *(parse(f"+{group}.weights.{name}={float(weight)}") for name, weight in weights.items())]


def into_stage(job: str, word: Word) -> Word:
    """`init.dataset=imdb_text`, an option of the pretraining within a run, as Hydra writes it:
    `dataset@init.dataset=imdb_text`.
    """
    below, _, group = word.key.rpartition(".")
    if (
        word.prefix
        or word.package
        or not below
        or below.replace("init", "").strip(".")
        or group not in registry.GROUPS
    ):
        return word
    kinds = declared(job, word.key)
    return (
        word
        if not kinds or "dict" in kinds or isinstance(word.value, dict)
        else dataclasses.replace(word, key=group, package=word.key)
    )


def as_text(job: str, word: Word) -> Word:
    """`run=32118226e611` in quotes: Hydra reads an id, or a file's name, as a number (here infinity) wherever
    it looks like one.
    """
    texts, elements = _element_texts(word), _elements(word)
    is_other = [isinstance(element, bool | int | float) for element in elements]
    if texts is None or not any(is_other) or declared(job, word.key) != {"str"}:
        return word
    elements_as_text = zip(elements, texts, is_other, strict=True)
    return _with_elements(
        word,
        [QuotedString(text, Quote.single) if other else element for element, text, other in elements_as_text],
    )


def as_whole_number(job: str, word: Word) -> Word:
    """`budget.tokens=1e6` as `budget.tokens=1000000`: Hydra reads the former as a float, which a whole-number
    key refuses.
    """
    elements = _elements(word)
    whole = list(map(_whole, elements))
    if all(new is old for new, old in zip(whole, elements, strict=True)):
        return word
    kinds = declared(job, word.key)  # of what is not declared, a whole number fits both kinds of numbers
    return (
        _with_elements(word, whole)
        if "int" in kinds or not (kinds or isinstance(word.value, IntervalSweep))
        else word
    )


def _whole(value: Any) -> Any:
    return (
        int(Decimal(repr(value)))
        if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST
        else value
    )


def _elements(word: Word) -> list[Any]:
    """Its value, or the values and bounds in its sweep."""
    match word.value:
        case ChoiceSweep():
            return list(word.value.list)
        case RangeSweep():
            return [word.value.start, word.value.stop, word.value.step]
        case IntervalSweep():
            return [word.value.start, word.value.end]
    return [] if word.sweep or word.text is None else [word.value]


def _with_elements(word: Word, elements: list[Any]) -> Word:
    """The inverse."""
    match word.value:
        case ChoiceSweep():
            return word.with_value(dataclasses.replace(word.value, list=elements))
        case RangeSweep():
            return word.with_value(
                dataclasses.replace(word.value, start=elements[0], stop=elements[1], step=elements[2])
            )
        case IntervalSweep():
            return word.with_value(dataclasses.replace(word.value, start=elements[0], end=elements[1]))
    return word.with_value(elements[0])


def _element_texts(word: Word) -> list[str] | None:
    """What was written for each element of a single value, of `a,b` and of `choice(a,b)`; None where commas
    stand within one.
    """
    if word.text is None or (word.sweep and not isinstance(word.value, ChoiceSweep)):
        return None
    if not word.sweep:
        return [word.text.strip()]
    inner = word.text if word.value.simple_form else word.text.removeprefix("choice(").removesuffix(")")
    texts = [text.strip() for text in inner.split(",")]
    return texts if len(texts) == len(word.value.list) and "(" not in inner else None


RULES: tuple[Callable[[str, Word], Word], ...] = (as_text, as_whole_number, into_stage)


def apart(runs: "Sequence[list[Word]]") -> list[dict[str, str]]:
    """Of each run of a sweep, what sets it apart from the others: key -> value."""
    told = [[str(word) for word in words] for words in runs]
    common = set(told[0]).intersection(*told[1:]) if told else set()
    return [{word.name: word.text or "" for word in words if str(word) not in common} for words in runs]
