"""The house: a module imports only from lower floors, lazily too; folders of one floor never import each
other.
"""

import ast
from pathlib import Path

import pytest

import bertlab

ROOT = Path(bertlab.__file__).parent
FLOORS = (
    ("errors", "kernels"),
    ("declarations", "promises"),
    ("contracts",),
    ("config",),
    ("runs",),
    ("data", "objectives", "models", "optimizers", "trackers"),
    ("training",),
    ("report", "export"),
    ("jobs",),
    ("cli", "api", "__init__", "__main__"),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
UNSEEN = ("__pycache__", "conf", "__init__.py", "__main__.py", "py.typed")
TOP = len(FLOORS) - 1  # doors: the command line, the library, and what starts them know each other


def imported(file: Path) -> set[str]:
    """Rooms that a module imports, also within functions, and for a type checker alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are written in full"
            parts = (node.module or "").split(".")
            if parts[0] == "bertlab":
                found |= {parts[1]} if parts[1:] else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("bertlab.")}
    return found


def violations() -> dict[str, list[str]]:
    """Module -> rooms that it must not import."""
    wrong = {}
    for file in sorted(ROOT.rglob("*.py")):
        place = file.relative_to(ROOT).parts
        own = place[0].removesuffix(".py")
        allowed = {
            name
            for name, floor in FLOOR_OF.items()
            if floor < FLOOR_OF[own] or name == own or FLOOR_OF[own] == TOP
        }
        if others := sorted(imported(file) - allowed - {"__version__"}):
            wrong["/".join(place)] = others
    return wrong


def test_imports_point_down() -> None:
    assert violations() == {}


def test_an_import_that_points_up_would_be_seen(tmp_path: Path) -> None:
    """Within a function too, in any spelling, and where a type checker alone reads it."""
    file = tmp_path / "module.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bertlab.api import run\nimport"
        " bertlab.jobs.train\nfrom bertlab import report\ndef f():\n    from bertlab.training.loop import"
        " fit\n"
    )
    assert imported(file) == {"api", "jobs", "report", "training"}


def test_the_sweeper_knows_nothing_of_the_house() -> None:
    """So that others can use it."""
    files = sorted((ROOT.parent / "hydra_plugins").rglob("*.py"))
    assert files and {file.name: imported(file) for file in files if imported(file)} == {}


def test_every_module_has_a_floor() -> None:
    assert {file.relative_to(ROOT).parts[0].removesuffix(".py") for file in ROOT.rglob("*.py")} == set(
        FLOOR_OF
    )


def test_a_newcomer_sees_a_house_and_not_a_heap() -> None:
    """At most 18 names at the top; in every room at most 18 too; what Python asks for is not counted."""
    for folder in (
        ROOT,
        *(place for place in ROOT.rglob("*") if place.is_dir() and place.name != "__pycache__"),
    ):
        names = [place.name for place in folder.iterdir() if place.name not in UNSEEN]
        assert len(names) <= 18, f"{folder}: {sorted(names)}"


@pytest.mark.parametrize("room", ["config", "errors"])
def test_the_ground_floor_starts_without_torch(room: str) -> None:
    """A config error must answer at once."""
    for file in (
        [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").is_file() else sorted((ROOT / room).rglob("*.py"))
    ):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = (
                    [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else [alias.name for alias in node.names]
                )
                assert not any(
                    name.split(".")[0] in ("torch", "transformers", "datasets") for name in names
                ), file
