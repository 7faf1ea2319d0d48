"""What the documentation promises: every command in it is one that bertlab takes, every link leads somewhere,
the pages build.
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bertlab.cli.command_line import split_flags, split_job
from bertlab.cli.help import help_text
from bertlab.cli.sweeps import own_words, words_of_devices
from bertlab.config import composition, registry
from bertlab.config.schema import Planning
from bertlab.training.costs.forecast import Forecast, Forecaster
from children import PATIENCE

ROOT = Path(__file__).parents[2]
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "multirun/README.md")
    ),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# a run as it is planned for, where nothing is read and nothing is timed
UNTIMED = Forecast(Path("multirun", "run"), "new", 1, 1, 0, 1.0, 1.0, 1.0, None)
KEYS = "docs/reference/keys/"  # pages that are made from the schema
WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")
SETTING = re.compile(r"zip\(|[+~]*[\w.@/-]+=")
PLACEHOLDERS = {"experiment=…": "experiment=bertsst2", "objective=NAME": "objective=mlm", "…": "X"}
SMALL = [
    "budget.epochs=null", "budget.tokens=null", "budget.examples=null", "budget.hours=null", "budget.steps=2",
    "budget.batch_size=4",
    "dataset.fraction=1", "evaluation.every_epochs=null", "compute.threads=1",
]  # fmt: skip
SMALL_STAGE = [
    "init.budget.tokens=null",
    "init.budget.steps=2",
    "init.budget.batch_size=4",
    "init.dataset.fraction=0.1",
]


@dataclass(frozen=True)
class Command:
    """A command line as it is documented, and where."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)

    @property
    def given(self) -> list[str]:
        """Its words as the shell hands them on, with something in the place of what the reader is
        to fill in.
        """
        words = [
            re.sub(r"'([^']*)'|\"([^\"]*)\"", lambda quoted: quoted.group(1) or quoted.group(2) or "", word)
            for word in self.words
        ]
        for placeholder, example in PLACEHOLDERS.items():
            words = [word.replace(placeholder, example) for word in words]
        return words


def read_command(text: str) -> tuple[tuple[str, ...], bool]:
    """The words of a command at the beginning of a text that may go on in prose; whether it did."""
    words: list[str] = []
    for found in WORD.finditer(text):
        word = found.group().rstrip(";.,:") if not found.group().endswith(("…", "...")) else found.group()
        plain = word.strip("'\"")
        is_value = words and words[-1] in ("--cfg", "--config-dir", "--info", "--package")
        is_job = not words and plain in registry.jobs()
        # which take words that are no settings
        is_job |= words in (["help"], ["list"], ["study"]) and re.fullmatch(r"[\w.]+", plain) is not None
        if not (
            is_job
            or is_value
            or SETTING.match(plain)
            or (plain.startswith("-") and plain.strip("-").replace("-", "").isalpha())
        ):
            return tuple(words), True
        words.append(word)
        if word != found.group():
            return tuple(words), True
    return tuple(words), False


def of_markdown(file: Path) -> Iterator[Command]:
    """Lines that begin with bertlab in code blocks, and code within a line."""
    text = file.read_text(encoding="utf-8")
    place = str(file.relative_to(ROOT))
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += [line.strip() for line in prose.splitlines() if line.startswith("    ")]
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    for line in lines:
        if re.match(r"\$? ?bertlab( |$)", line):
            words, has_prose = read_command(
                line.removeprefix("$ ").removeprefix("bertlab").partition("  #")[0]
            )
            if has_prose and "…" not in line:
                raise AssertionError(f"{place}: what is after {' '.join(words)!r}? {line}")
            yield Command(place, words)


def of_header(file: Path) -> Iterator[Command]:
    """Commands in the comments at the top of a preset; `… key=value` is the first command and more, words
    alone go on with a line.
    """
    place = str(file.relative_to(ROOT))
    first: tuple[str, ...] = ()
    found: list[tuple[str, ...]] = []
    is_open = False
    for line in (
        line.lstrip("# ") for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    ):
        if is_open and SETTING.match(line.lstrip("'\"")):
            words, ended = read_command(line)
            found[-1], is_open = found[-1] + words, not ended
            continue
        is_open = False
        for part in re.split(r" · ", line):
            if (start := re.search(r"(?:^|[ :])(bertlab|…)(?= )", part)) is None:
                continue
            words, ended = read_command(part[start.end() :])
            if start.group(1) == "…":
                words = first + words
            elif not words:
                continue
            first, is_open = (first or words), not ended
            found.append(words)
    yield from (Command(place, words) for words in found)


def of_help(job: str) -> Iterator[Command]:
    """Examples of --help, and settings that a job's own help shows."""
    for line in help_text(job).splitlines():
        if line.startswith("  bertlab "):
            told = re.split(r"\s{2,}", line.strip())[0]
            yield Command(f"bertlab {job} --help", read_command(told.removeprefix("bertlab"))[0])
        elif job in NEEDED and SETTING.match(line.strip()) and line.startswith("  "):
            for part in re.split(r"\s{2,}", line.strip()):
                if SETTING.match(part) and (words := read_command(part)[0]):
                    keys = {word.partition("=")[0] for word in words}
                    needed = [word for word in NEEDED[job] if word.partition("=")[0] not in keys]
                    yield Command(f"bertlab {job} --help", (job, *needed, *words))


NEEDED = {
    "report": ["runs=multirun"],
    "benchmark": [],
    "export": ["run=X", "to=folder"],
    "reproduce": ["report=X"],
}


def documented() -> list[Command]:
    """Each once."""
    found = [command for file in PAGES for command in of_markdown(file)]
    found += [command for file in sorted((ROOT / "conf").rglob("*.yaml")) for command in of_header(file)]
    found += [command for job in registry.jobs() for command in of_help(job)]
    once: dict[tuple[str, ...], Command] = {}
    for command in found:
        # a job's name alone is no command
        if command.words not in [(), *((job,) for job in registry.jobs())]:
            once.setdefault(command.words, command)
    return list(once.values())


COMMANDS = documented()


def test_commands_are_found_where_they_are_documented() -> None:
    """Were the parser to find nothing, nothing would be checked."""
    places = {command.place for command in COMMANDS}
    for place in (
        "README.md",
        "docs/tutorial.md",
        "docs/coming-from.md",
        "conf/experiment/sst2_ladder.yaml",
        "bertlab report --help",
    ):
        assert place in places
    shown = [" ".join(command.given) for command in COMMANDS]
    assert (
        "-m seed=range(5) dataset=sst2 init=stage init.dataset=imdb_text init.objective=mlm"
        " init.budget.tokens=5e6" in shown
    )
    assert (
        "-m experiment=sst2_ladder seed=range(3) init.objective.max_length=64 init.budget.batch_size=64"
        in shown
    )
    assert any("optimizer.lr=5e-5 objective.token_dropout=0 seed=range(6)" in line for line in shown), (
        "a continued line"
    )
    assert len(COMMANDS) > 100


@pytest.fixture
def mine() -> None:
    """What the commands of the documentation presuppose: files, and a finished search."""
    best = Path("multirun/studies/NAME/experiment/best.yaml")
    best.parent.mkdir(parents=True)
    best.write_text("# @package _global_\noptimizer:\n  lr: 1e-4\n")
    for name in ("masking.yaml", "NAME.yaml"):
        Path("studies", name).parent.mkdir(exist_ok=True)
        Path("studies", name).write_text("question: Q\narms: {a: [], b: [optimizer.lr=1e-2]}\neffect: 1\n")
    Path("experiments").symlink_to(ROOT / "experiments")
    Path("corpus.txt").write_text("".join(f"a film of the year {row}\n" for row in range(40)))
    for name in ("reviews.csv", "train.csv", "dev.csv", "scores.csv"):
        Path(name).write_text(
            "text,review,stars\n" + "".join(f"film {row},film {row},{row % 2}\n" for row in range(40))
        )


@pytest.fixture
def once_for_all_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of runs that differ by nothing but their seed, one is composed."""
    composed: dict[tuple[str, ...], Any] = {}
    compose = composition.compose_words

    def once(job: str, words: Sequence[Any]) -> Any:
        key = (job, *(str(word) for word in words if word.key != "seed"))
        if key not in composed:
            composed[key] = compose(job, words)
        return composed[key]

    monkeypatch.setattr(composition, "compose_words", once)


@pytest.mark.slow
@pytest.mark.usefixtures("mine", "once_for_all_seeds")
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_documented_command_is_one_that_bertlab_takes(
    command: Command, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands, up to the moment at which the job would begin; with -m each run is composed
    and checked.
    """
    job, rest = split_job(command.given)
    if "--help" in rest or job == "help":
        assert cli(*command.given)[0] == 0
        return
    flags, settings = split_flags(rest)
    if (
        any(word.startswith("hydra/launcher=ray") for word in settings)
        and importlib.util.find_spec("ray") is None
    ):
        pytest.skip("the Ray launcher is not installed ('.[ray]')")
    asked: list[Any] = []
    if job == "plan":
        monkeypatch.setattr(Forecaster, "survey", lambda *_: UNTIMED)
        monkeypatch.setattr("bertlab.jobs._devices.show", lambda *_: 0)
        status, _, errors = cli(*command.given)
        assert status == 0, f"{command.place}: {errors}"
        planning, settings = own_words(Planning, settings)
        _, settings = words_of_devices(flags, planning, settings)
        job, rest = "train", ["-m", *settings] if "--multirun" in flags else settings
    stand_in(monkeypatch, job, asked)
    if "--multirun" in flags:  # what Hydra would launch has been checked by then
        monkeypatch.setattr("hydra.main", lambda **_: lambda _task: lambda *_: None)
    words = [job, *rest] if job != "train" else rest
    status, _, errors = cli(*words)
    assert status == 0, f"{command.place}: {errors}"
    assert asked or flags
    monkeypatch.undo()
    if hydra := [word for word in settings if word.startswith(("hydra", "search="))]:
        if not any(word.startswith(("hydra/sweeper=", "search=")) for word in hydra) and any(
            "hydra.sweeper." in word for word in hydra
        ):
            hydra.append("hydra/sweeper=bertlab_optuna")  # which intervals choose
        status, _, errors = cli("--cfg", "hydra", *hydra)
        assert status == 0, f"{command.place}: {errors}"


def stand_in(monkeypatch: pytest.MonkeyPatch, job: str, asked: list[Any]) -> None:
    """A job that notes what it is asked for, and does nothing."""
    import dataclasses

    entry = registry.load_job(job)
    idle = dataclasses.replace(entry, run=lambda config, _context: asked.append(config))
    load = registry.load_job
    monkeypatch.setattr(registry, "load_job", lambda name: idle if name == job else load(name))


# --- those that are cheap, in earnest -------------------------------------------------------------
def runnable(command: Command) -> bool:
    """A training on a dataset of the mirror, or the embedded one, that needs nothing else."""
    job, rest = split_job(command.given)
    needs = (
        "init.path",
        "model=hf",
        "model.name_or_path",
        "model=minilm",
        "search=",
        "hydra",
        "dataset=files",
        "tracker=",
    )
    return (
        job == "train"
        and not [word for word in rest if word.startswith(needs)]
        and not {"--cfg", "--help", "compute=gpu"} & set(rest)
        and "compute.compile=true" not in rest
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [one for one in COMMANDS if one.place == "README.md" and runnable(one)], ids=str
)
def test_a_command_of_the_readme_trains(command: Command, cli: Any, few_real_rows: Path) -> None:
    """Two steps of it, on few rows of the data: enough to know its words."""
    stage = SMALL_STAGE if "init=stage" in command.words else []
    status, out, errors = cli(*command.given, *SMALL, *stage, f"paths.mirror={few_real_rows}")
    assert status == 0, errors
    assert "multirun/" in out


@pytest.mark.slow
def test_the_tutorial_goes_as_it_says(cli: Any) -> None:
    """Its commands one after the other, the trainings shortened."""
    commands = [command for command in of_markdown(ROOT / "docs" / "tutorial.md") if command.words]
    assert {split_job(command.given)[0] for command in commands} >= {
        "plan",
        "train",
        "report",
        "reproduce",
        "evaluate",
        "predict",
        "export",
    }
    small = ["dataset.train_size=64", "dataset.validation_size=40", "dataset.test_size=40"]
    for command in commands:
        job, rest = split_job(command.given)
        folders = [path.parent for path in sorted(Path("multirun").glob("*/config.yaml"))]
        # transformers has them
        plain = [folder for folder in folders if "positions: learned" in (folder / "config.yaml").read_text()]
        words = [
            (
                f"run={(plain or folders)[0]}"
                if word.startswith("run=")
                else word.replace("range(8)", "range(2)")
            )
            for word in rest
        ]
        if job in ("train", "plan") and not {"--help", "--cfg"} & set(rest):
            words += small
        status, _, errors = cli(*([job] if job != "train" else []), *words)
        if job == "export" and importlib.util.find_spec("transformers") is None:
            continue
        assert status == 0, f"{command}: {errors}"
    for file in ("report/report.html", "report/report.md", "report/report.tex", "folder/config.json"):
        assert Path(file).is_file()


# --- links and pages ------------------------------------------------------------------------------
LINKED = [
    *PAGES,
    ROOT / "src/hydra_plugins/bertlab_optuna/README.md",
    *sorted((ROOT / "experiments").rglob("*.md")),
]


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = Path(os.path.normpath(page.parent / file)) if file else page
        name = str(place.relative_to(ROOT)) if place.is_relative_to(ROOT) else str(place)
        if name.startswith(KEYS):
            assert name.removeprefix("docs/") in generated(), f"{target}: no such page"
            continue
        assert place.exists(), f"{target}: there is no {name}"
        if anchor and place.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in [
                re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
            ], target


def reference() -> Any:
    """The hook that makes the pages of keys."""
    spec = importlib.util.spec_from_file_location(
        "bertlab_docs_reference", ROOT / "docs" / "_hooks" / "reference.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def generated() -> dict[str, str]:
    """Page -> Markdown."""
    made: dict[str, str] = reference().pages()
    return made


def site() -> dict[str, str]:
    """Each page of the site -> its Markdown as MkDocs gets it, without code."""
    docs, hook = ROOT / "docs", reference()
    pages = {
        file.relative_to(docs).as_posix(): file.read_text(encoding="utf-8") for file in docs.rglob("*.md")
    }
    told = {}
    for name, text in (pages | generated()).items():
        page = types.SimpleNamespace(file=types.SimpleNamespace(src_uri=name))
        plain = re.sub(r"```.*?```", "", hook.on_page_markdown(text, page), flags=re.DOTALL)
        told[name] = plain
    return told


def test_every_link_of_the_site_leads_to_a_page_and_a_heading_of_it() -> None:
    """As `mkdocs build --strict` would have it, also where MkDocs is not installed."""
    pages = site()
    anchors = {
        name: {
            re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
            for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
        }
        for name, text in pages.items()
    }
    lost, seen = [], 0
    for name, text in pages.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
            if re.match(r"\w+:", target):
                continue
            seen += 1
            file, _, anchor = target.partition("#")
            place = os.path.normpath(Path(name).parent / file) if file else name
            is_there = place in pages or (not place.startswith("..") and (ROOT / "docs" / place).is_file())
            if not is_there or (anchor and anchor not in anchors.get(place, ())):
                lost.append(f"{name}: {target}")
    assert not lost
    assert seen > 50


def test_the_readme_is_short_and_its_picture_small() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 90
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    assert len(pictures) == 1 and pictures[0].startswith("docs/")
    assert (ROOT / pictures[0]).stat().st_size <= 150_000
    for command in (".venv/bin/bertlab", ".venv/bin/pytest"):  # .ci/run takes these lines
        assert sum(line.endswith(f"&& {command}") for line in readme.splitlines()) == 1


def test_prose_is_at_most_110_wide() -> None:
    """Reports are generated; tables and commands are as wide as they must be."""
    wide = []
    for page in sorted(ROOT.glob("*.md")) + sorted(
        page for room in ("docs", "experiments", "multirun", "src") for page in (ROOT / room).rglob("*.md")
    ):
        in_code = page.name == "report.md"
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            in_code ^= line.lstrip().startswith("```")
            prose = re.sub(r"`[^`]+`|\]\([^)]+\)", "", line)
            is_wide = len(line) > 110 and len(prose) > 20 and not line.lstrip().startswith(("|", "<"))
            if is_wide and not in_code and not line.startswith("    "):
                wide.append(f"{page.relative_to(ROOT)}:{number}")
    assert not wide


def test_every_key_is_in_the_reference_with_its_explanation() -> None:
    from bertlab.config import schema
    from bertlab.config.schema import valid_keys

    told = "\n".join(generated().values())
    for group in schema.COMPONENTS:
        for option in registry.options(group):
            for key in valid_keys(registry.load_schema(group, option), group):
                # below a stage's groups are those groups' keys
                if key.count(".") == 1 and not key.endswith(".name"):
                    assert f"| `{key}` |" in told, f"{key} of {group}={option}"
    for group, kind in schema.PLAIN.items():
        for key in valid_keys(kind, group):
            row = next((line for line in told.splitlines() if line.startswith(f"| `{key}` |")), "")
            assert len(row.split(" | ")[-1].strip("| ")) > 5, f"{key} is not explained: {row}"


def test_the_sweepers_readme_names_every_option() -> None:
    import dataclasses

    from hydra_plugins.bertlab_optuna.sweeper import BertlabOptunaConf

    text = (ROOT / "src/hydra_plugins/bertlab_optuna/README.md").read_text(encoding="utf-8")
    for item in dataclasses.fields(BertlabOptunaConf):
        assert item.name == "_target_" or f"`{item.name}`" in text, item.name


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed ('.[docs]')")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(ROOT / "mkdocs.yml"), "-d",
        str(tmp_path / "site")],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "keys" / "optimizer" / "index.html").read_text(encoding="utf-8")
    assert "optimizer.lr" in page and "peak learning rate" in page
    shutil.rmtree(tmp_path / "site")
