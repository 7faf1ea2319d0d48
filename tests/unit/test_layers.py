"""The house: a module imports only from lower floors; folders of one floor never import each other."""

import ast
from pathlib import Path

import bertlab

ROOT = Path(bertlab.__file__).parent
FLOORS = {
    0: ("runtime", "errors", "flops", "stats"),
    1: ("config", "contracts", "checkpoint", "schedule", "store", "results", "hub"),
    2: ("data", "objectives", "models", "optimizers", "trackers", "evaluation", "init"),
    3: (
        "registry",
        "assembly",
        "saved",
        "identity",
        "planning",
        "benchmarking",
        "gridsummary",
        "composition",
        "loop",
        "explain",
        "helptext",
        "report",
        "export",
    ),
    4: ("jobs",),
    5: ("cli", "sweeps", "api", "__init__", "__main__"),
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "bertlab":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names if alias.name != "__version__"}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("bertlab.")}
    return found


def test_imports_point_down() -> None:
    checked = 0
    for file in sorted(ROOT.rglob("*.py")):
        place = file.relative_to(ROOT).parts
        own = place[0].removesuffix(".py")
        for other in imports(file):
            checked += 1
            assert other in FLOOR_OF, f"{file}: {other} stands on no floor"
            same_folder = other == own and len(place) > 1
            same_house = FLOOR_OF[own] in (0, 1, 3, 5) and FLOOR_OF[other] == FLOOR_OF[own]
            assert FLOOR_OF[other] < FLOOR_OF[own] or same_folder or same_house or own == "__init__", (
                f"{file} imports {other}, which stands higher"
            )
            if FLOOR_OF[own] == 2 and FLOOR_OF[other] == 2:
                assert same_folder, f"{file} imports its neighbour {other}"
    assert checked > 60


def test_every_module_has_a_floor() -> None:
    found = {file.relative_to(ROOT).parts[0].removesuffix(".py") for file in ROOT.rglob("*.py")}
    assert found == set(FLOOR_OF)
