"""One self-contained Python file out of a module of this house and all that it reaches in others.

What the root module imports from `bertlab` is taken in, and what that needs in turn, as it stands in the
source: functions, constants, classes with those methods that something kept calls by name. Of a model's
config its options stay, as a plain dataclass. So the file is a function of the source that trains, and cannot
drift from it. What remains to be imported is Python's own, torch's or transformers'.
"""

import ast
import dataclasses
import importlib
import sys
import textwrap
from pathlib import Path

from bertlab.config.schema import ModelConfig

HOUSE, WIDTH = "bertlab", 136
OUTSIDE = ("torch", "transformers")  # beside Python's own modules
# What is faster than torch in training is more than a reader of the file needs.
INSTEAD = {("bertlab.kernels", "dropout"): ("torch.nn.functional", "dropout")}
Place = tuple[str, str]  # a module, and a name at its top


def bundle(root: str, note: str) -> str:
    """The file that stands for module `root`; `note` says in its docstring how it was made. Raises ValueError
    for what cannot leave.
    """
    return _Bundle(root).text(note)


class _Source:
    """A module's text, and what its names stand for."""

    def __init__(self, name: str) -> None:
        self.name, spec = name, importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ValueError(f"{name}: has no source")
        text = Path(spec.origin).read_text(encoding="utf-8")
        self.lines, tree = text.splitlines(), ast.parse(text)
        self.docstring = ast.get_docstring(tree) or ""
        self.definitions: dict[str, ast.stmt] = {}
        self.imports: dict[str, Place] = {}  # "" = the module itself
        for statement in tree.body:
            self.definitions |= dict.fromkeys(_defined(statement), statement)
            self.imports |= _imported(statement)

    def start(self, statement: ast.stmt) -> int:
        """Its first line, decorators and the comment right above included."""
        first = _first(statement)
        while self.lines[first - 2].startswith("#") and not self.lines[first - 2].startswith("# ---"):
            first -= 1
        return first


class _Bundle:
    def __init__(self, root: str) -> None:
        self.root, self.sources = root, dict[str, _Source]()
        self.places = dict.fromkeys((root, name) for name in self._source(root).definitions)
        self.attributes = {"forward"}  # names that anything kept calls or reads on an object
        self.of_super = set[str]()  # and on its base class
        self.outside: dict[str, Place] = {"dataclass": ("dataclasses", "dataclass")}
        known = 0
        while known < (known := len(self.places) + len(self.attributes) + len(self.of_super)):
            for place in list(self.places):
                self._follow(place)
        self._check()

    def _source(self, name: str) -> _Source:
        if name not in self.sources:
            self.sources[name] = _Source(name)
            if name != self.root:  # which may need more than is installed here
                importlib.import_module(name)
        return self.sources[name]

    def _definition(self, place: Place) -> ast.stmt:
        return self._source(place[0]).definitions[place[1]]

    # --- what is reached ---
    def _follow(self, place: Place) -> None:
        for part in self._parts(place):
            for node in ast.walk(part):
                if isinstance(node, ast.Attribute):
                    self.attributes.add(node.attr)
                    if (
                        isinstance(node.value, ast.Call)
                        and isinstance(node.value.func, ast.Name)
                        and node.value.func.id == "super"
                    ):
                        self.of_super.add(node.attr)
                if isinstance(node, ast.Name):
                    self._reach(place[0], node.id)

    def _reach(self, module: str, name: str) -> None:
        source = self._source(module)
        if name in source.definitions:
            self.places[module, name] = None
        elif name in source.imports:
            imported = INSTEAD.get(source.imports[name], source.imports[name])
            if _is_ours(imported[0]):
                if imported[1] != name:
                    raise ValueError(f"{module}: {name} must be imported under its own name")
                self.places[imported] = None
            elif self.outside.setdefault(name, imported) != imported:
                raise ValueError(f"{module}: {name} is something else in another module")

    def _parts(self, place: Place) -> list[ast.AST]:
        """What is kept of a definition."""
        definition = self._definition(place)
        if not isinstance(definition, ast.ClassDef):
            return [definition]
        frame: list[ast.AST] = (
            [] if self._is_config(place) else [*definition.bases, *definition.decorator_list]
        )
        return [*frame, *self._members(place, definition)]

    def _members(self, place: Place, definition: ast.ClassDef) -> list[ast.stmt]:
        if place[0] == self.root:
            return definition.body
        if self._is_config(place):  # what every model's config has belongs to the house
            return [
                member
                for member in definition.body
                if isinstance(member, ast.FunctionDef)
                and member.name in self.attributes
                and member.name not in dir(ModelConfig)
            ]
        return [
            member
            for member in definition.body
            if not isinstance(member, ast.FunctionDef) or self._is_wanted(place, member.name)
        ]

    def _is_wanted(self, place: Place, method: str) -> bool:
        """Whether anything calls it, and not in each derived class one of the same name."""
        if not method.startswith("__") and method not in self.attributes:
            return False
        derived = [
            other
            for reached in self.places
            if isinstance(other := self._definition(reached), ast.ClassDef) and self._derives(reached, place)
        ]
        overridden = derived and all(
            any(isinstance(m, ast.FunctionDef) and m.name == method for m in other.body) for other in derived
        )
        return not overridden or method in self.of_super

    def _derives(self, place: Place, base: Place) -> bool:
        definition, source = self._definition(place), self._source(place[0])
        names = (
            [node.id for node in definition.bases if isinstance(node, ast.Name)]
            if isinstance(definition, ast.ClassDef)
            else []
        )
        return any((source.imports.get(name) or (place[0], name)) == base for name in names)

    def _is_config(self, place: Place) -> bool:
        value = None if place[0] == self.root else vars(sys.modules[place[0]]).get(place[1])
        return isinstance(value, type) and issubclass(value, ModelConfig)

    def _check(self) -> None:
        where: dict[str, str] = {}
        for module, name in self.places:
            if where.setdefault(name, module) != module or name in self.outside:
                raise ValueError(f"{module}: {name} stands for something else in {where[name]} or outside")
        for name, (module, _) in self.outside.items():
            top = module.split(".")[0]
            if top not in OUTSIDE and top not in sys.stdlib_module_names:
                raise ValueError(f"{name} of {module}: the file could not stand alone")

    # --- the file ---
    def text(self, note: str) -> str:
        """All of it."""
        root = self._source(self.root)
        direct = {module for module, _ in root.imports.values()}
        lines = ['"""' + root.docstring, "", *textwrap.wrap(note, WIDTH), '"""', "", *self._import_lines()]
        for module in self._order(self.root, {}):
            source = self._source(module)
            if module != self.root:
                lines += ["", "", f"# --- from {'/'.join(module.split('.'))}.py ".ljust(WIDTH, "-")]
                lines += (
                    [f"# {line}".rstrip() for line in source.docstring.splitlines()]
                    if module in direct
                    else []
                )
            last = None
            for statement in sorted(
                {self._definition(place) for place in self.places if place[0] == module},
                key=lambda one: one.lineno,
            ):
                both_simple = isinstance(last, ast.Assign | ast.AnnAssign) and isinstance(
                    statement, ast.Assign | ast.AnnAssign
                )
                lines += [] if both_simple else ["", ""]
                lines += self._lines((module, _defined(statement)[0]))
                last = statement
        text = "\n".join(lines) + "\n"
        ast.parse(text)
        return text

    def _order(self, module: str, seen: dict[str, None]) -> list[str]:
        """Modules, each after those that it reads."""
        for imported, name in self._source(module).imports.values():
            if (imported, name) in self.places and imported not in seen:
                self._order(imported, seen)
        seen[module] = None
        return list(seen)

    def _import_lines(self) -> list[str]:
        plain, of = [], dict[str, list[str]]()
        for name, (module, original) in sorted(self.outside.items()):
            if original:
                of.setdefault(module, []).append(original if original == name else f"{original} as {name}")
            else:
                plain.append(f"import {module}" if module == name else f"import {module} as {name}")
        named = [f"from {module} import {', '.join(names)}" for module, names in of.items()]
        own = [
            line
            for line in sorted(plain) + sorted(named)
            if line.split()[1].split(".")[0] in sys.stdlib_module_names
        ]
        lines = [*own, "", *(line for line in sorted(plain) + sorted(named) if line not in own)]
        return [part for line in lines for part in ([line] if len(line) <= WIDTH else _folded(line))]

    def _lines(self, place: Place) -> list[str]:
        source, definition = self._source(place[0]), self._definition(place)
        if not isinstance(definition, ast.ClassDef):
            return source.lines[source.start(definition) - 1 : definition.end_lineno]
        members, before = self._members(place, definition), _first(definition.body[0]) - 1
        lines = (
            self._options(place, definition)
            if self._is_config(place)
            else source.lines[source.start(definition) - 1 : before]
        )
        for member in definition.body:
            if member in members:
                lines = [*lines, *source.lines[before : member.end_lineno]]
            before = member.end_lineno or before
        return lines

    def _options(self, place: Place, definition: ast.ClassDef) -> list[str]:
        """A config as a plain dataclass, each option with its meaning."""
        lines = ["@dataclass", f"class {place[1]}:", f'    """{ast.get_docstring(definition)}"""', ""]
        for option in dataclasses.fields(vars(sys.modules[place[0]])[place[1]]):
            if option.name == "name":
                continue
            choices = f" ({', '.join(option.metadata['options'])})" if "options" in option.metadata else ""
            lines += [f"    # {line}" for line in textwrap.wrap(option.metadata["help"] + choices, WIDTH - 6)]
            kind = option.type.__name__ if isinstance(option.type, type) else str(option.type)
            default = f'"{option.default}"' if isinstance(option.default, str) else repr(option.default)
            lines.append(f"    {option.name}: {kind} = {default}")
        return lines


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == HOUSE


def _first(statement: ast.stmt) -> int:
    """Its first line, decorators included."""
    decorators = statement.decorator_list if isinstance(statement, ast.ClassDef | ast.FunctionDef) else []
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def _defined(statement: ast.stmt) -> list[str]:
    """Names that a statement at the top of a module defines."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return [statement.name]
    targets = (
        statement.targets
        if isinstance(statement, ast.Assign)
        else [statement.target]
        if isinstance(statement, ast.AnnAssign)
        else []
    )
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _imported(statement: ast.stmt) -> dict[str, Place]:
    """Names that an import at the top of a module brings."""
    if isinstance(statement, ast.ImportFrom):
        return {alias.asname or alias.name: (statement.module or "", alias.name) for alias in statement.names}
    places: dict[str, Place] = {}
    for alias in statement.names if isinstance(statement, ast.Import) else []:
        package, _, module = alias.name.rpartition(".")
        places |= (
            {alias.asname: (package, module)}
            if alias.asname and package
            else {alias.asname or alias.name.split(".")[0]: (alias.name, "")}
        )
    return places


def _folded(line: str) -> list[str]:
    """A long import in brackets, a name a line."""
    head, _, names = line.partition(" import ")
    return [f"{head} import (", *(f"    {name}," for name in names.split(", ")), ")"]
