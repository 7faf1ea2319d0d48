"""Pages of every key, made from the schema while the documentation is built: what is declared once is told here as it stands.

MkDocs calls `on_files` and `on_page_markdown`; `pages()` is the same without it. Files of the repository that lie outside docs/ and
belong to the documentation become pages too; links to the others become their paths.
"""

import dataclasses
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertlab.config import describe, registry, schema

ROOT = Path(__file__).parents[2]
FOLDER = "reference/keys"
NOTES = {
    "dataset": "Presets over `table` name a public dataset; `files` is yours. See [your own data](../../guides/own-data.md).",
    "objective": "What it reads and scores by is declared in its file: roles of columns, metrics with direction, unit and bounds.",
    "model": "Sizes are presets over `bert`; those that begin with `hf_` are over `hf`. See [Hugging Face](../../guides/hugging-face.md).",
    "init": "See [pretraining](../../guides/pretraining.md). Below `init=stage` stands a whole run: `init.dataset=… init.budget.tokens=…`.",
}


OUTSIDE = {  # file of the repository -> page
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "multirun/README.md": "reference/run-folder.md",
}


def on_files(files: Any, config: Any) -> Any:
    """Event of MkDocs: add the generated pages."""
    from mkdocs.structure.files import File

    for name, content in pages().items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Event of MkDocs: links that leave docs/ lead to the page made of that file, or become its path. A link is
    read from the folder of the file that it is written in, and keeps its anchor.
    """
    docs = ROOT / "docs"
    written_in = {made: name for name, made in OUTSIDE.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    source, here = (ROOT / written_in).parent, (docs / page.file.src_uri).parent

    def inside(link: re.Match[str]) -> str:
        text, target, anchor = link.group(1), link.group(2), link.group(3)
        place = Path(os.path.normpath(source / target))
        if "://" in target or target.startswith("mailto:") or not place.is_relative_to(ROOT):
            return link.group(0)
        name = place.relative_to(ROOT).as_posix()
        if name in OUTSIDE:
            place = docs / OUTSIDE[name]
        if place.is_relative_to(docs):
            return f"[{text}]({Path(os.path.relpath(place, here)).as_posix()}{anchor})"
        return f"{text} (`{name}`)"

    return re.sub(r"(?<!!)\[([^\]\[]+)\]\(([^)#\s]+)((?:#[^)\s]*)?)\)", inside, markdown)


def pages() -> dict[str, str]:
    """Path below docs/ -> Markdown."""
    made = {f"{FOLDER}/{group}.md": component_page(group) for group in schema.COMPONENTS}
    made[f"{FOLDER}/run.md"] = run_page()
    made[f"{FOLDER}/jobs.md"] = jobs_page()
    made[f"{FOLDER}/sweeper.md"] = sweeper_page()
    made[f"{FOLDER}/index.md"] = index_page()
    return made | {page: (ROOT / name).read_text(encoding="utf-8") for name, page in OUTSIDE.items()}


# --- pages ----------------------------------------------------------------------------------------
def index_page() -> str:
    """All groups, their options, where their keys stand."""
    rows = []
    for group, what in registry.GROUPS.items():
        options = " ".join(f"`{name}`" for name in registry.options_of(group))
        place = f"{group}.md" if group in schema.COMPONENTS else f"run.md#{group}" if group in schema.PLAIN else ""
        page = f"[keys]({place})" if place else "presets"
        rows.append(f"| `{group}=` | {cell(what)} | {options} | {page} |")
    return "\n".join(
        [
            "# Every key\n",
            "Made from the schema of this version. A group is chosen (`model=bert_mini`), a key is set (`model.pooling=mean`). "
            "Keys marked *not in the id*, and those below `compute`, `tracker` and `paths`, are no part of a run's identity: they may "
            "change how fast it is, not what comes out (what changes rounding, such as the precision, is in it). "
            "`bertlab --cfg job …` prints all keys of one command with their values.\n",
            "| group | what it is | options | |\n|---|---|---|---|",
            *rows,
            "\nAlso: [keys of a run outside the groups](run.md) · [keys of the other jobs](jobs.md) · [options of a search](sweeper.md)\n",
        ]
    )


def component_page(group: str) -> str:
    """The options of a group: keys that all have, then each option's own, then presets."""
    base = schema.COMPONENTS[group]
    common = [item for item in dataclasses.fields(base) if item.name != "name"]
    parts = [f"# {group}\n", f"{capital(registry.GROUPS[group])}: `{group}=…`. {NOTES.get(group, '')}\n"]
    if common:
        parts += [f"## Keys of every {group}\n", table(group, base(name=""), {item.name for item in common})]
    known = {item.name for item in common}
    for option in registry.options(group):
        component = registry.load_schema(group, option)
        title = "Rows of a table (`files` and the presets)" if option == "table" else f"`{group}={option}`"
        parts += [f"## {title}\n", described(component)]
        if group == "objective":
            parts.append(declared(component))
        own = {
            item.name
            for item in dataclasses.fields(component)
            if item.name != "name" and (item.name not in known or getattr(component, item.name) != getattr(base(name=""), item.name))
        }
        parts.append(table(group, component, own) if own else "No keys of its own.\n")
    if presets := list(preset_rows(group)):
        parts += ["## Presets\n", "| preset | over | what its file says |\n|---|---|---|", *presets, ""]
    return "\n".join(parts)


def run_page() -> str:
    """Keys of a run that belong to no component."""
    top = schema.Train()
    parts = ["# A run\n", "Keys outside the components' groups.\n", table("", top, {"seed", "tags"})]
    for group in schema.PLAIN:
        node = schema.PLAIN[group]()
        parts += [f"## {group}\n", described(node), table(group, node, {item.name for item in dataclasses.fields(node)})]
        if presets := list(preset_rows(group)):
            parts += ["| preset | over | what its file says |\n|---|---|---|", *presets, ""]
    return "\n".join(parts)


def jobs_page() -> str:
    """Each job's usage and keys."""
    parts = ["# Jobs\n", "The first word of a command line; `train` if there is none.\n"]
    for job in registry.jobs():
        parts += [f"## {job}\n", f"{capital(registry.job_summary(job))}.\n", f"```text\n{registry.job_help(job)}\n```\n"]
        node = registry.load_schema("schema", job) if job in registry.options("schema") and job not in ("train", "plan") else schema.Train()
        if type(node) is schema.Train:
            parts.append("Its keys are the [groups](index.md) and those of [a run](run.md).\n")
            continue
        own = [item for item in dataclasses.fields(node) if item.name not in {other.name for other in dataclasses.fields(schema.Train)}]
        nested = [item for item in own if dataclasses.is_dataclass(getattr(node, item.name))]
        if plain := {item.name for item in own if item not in nested}:
            parts.append(table("", node, plain))
        for item in nested:
            part = getattr(node, item.name)
            parts.append(table(item.name, part, {inner.name for inner in dataclasses.fields(part)}))
    return "\n".join(parts)


def sweeper_page() -> str:
    """Options of the Optuna sweeper."""
    parts = ["# A search\n", "Keys below `hydra.sweeper` of `bertlab -m search=…`. See [sweeps](../../guides/sweeps.md).\n"]
    for place in dict.fromkeys(key.name.rpartition(".")[0] for key in describe.keys_of_search()):
        parts.append(f"## {place}\n\n| key | default | what it does |\n|---|---|---|")
        for key in describe.keys_of_search():
            if key.name.rpartition(".")[0] == place:
                parts.append(f"| `{key.name}` | {'see below' if key.is_group else code(key.default)} | {cell(key.help)} |")
        parts.append("")
    return "\n".join(parts)


# --- parts ----------------------------------------------------------------------------------------
def table(path: str, node: Any, names: set[str]) -> str:
    """Keys of a dataclass, in its order."""
    rows = ["| key | type | default | allowed | what it does |", "|---|---|---|---|---|"]
    for key in describe.keys_of(node, path):
        if key.name.rpartition(".")[2] in names:
            shown = "a group of keys" if key.is_group else code(key.default)
            limits = " ".join(map(code, key.allowed.split(" | "))) if " | " in key.allowed else key.allowed
            about = cell(key.help) + ("" if key.decides else " *(not in the id)*")
            rows.append(f"| `{key.name}` | {cell(key.kind)} | {shown} | {limits} | {about} |")
    return "\n".join([*rows, ""])


def declared(component: Any) -> str:
    """What an objective says of itself."""
    roles = ", ".join(f"`{role.name}` ({role.kind}{', optional' if role.optional else ''})" for role in component.roles) or "none"
    lines = [f"Reads: {roles}.\n", "| metric | unit | direction |\n|---|---|---|"]
    for metric in component.metrics(()):
        lines.append(f"| `{metric.name}` | {cell(metric.unit)} | {metric.direction} |")
    return "\n".join([*lines, ""])


def described(node: Any) -> str:
    """A dataclass's docstring, where it has one of its own."""
    text = inspect.getdoc(type(node)) or ""
    return "" if text.startswith(f"{type(node).__name__}(") else f"{escaped(text)}\n"


def preset_rows(group: str) -> Iterator[str]:
    """Each preset, what it is built on, and the first sentence of its header."""
    for file in sorted((registry.conf_folder() / group).glob("*.yaml")):
        yield f"| `{group}={file.stem}` | {code(describe.built_on(file))} | {cell(describe.summary_of(group, file.stem))} |"


def capital(text: str) -> str:
    """With a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def code(text: str) -> str:
    """In code letters, if there is anything."""
    return f"`{text}`".replace("|", "\\|") if text else ""


def cell(text: str) -> str:
    """Safe within a table."""
    return escaped(text).replace("|", "\\|").replace("\n", " ")


def escaped(text: str) -> str:
    """Signs that Markdown would take for markup."""
    return re.sub(r"([<\[\]*_])(?![^`]*`[^`]*$)", r"\\\1", text) if "`" not in text else text
