"""Outlines of all options, kept in the cache: known before torch is imported, drawn anew when a line of
source has changed.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path

from bertlab.config import outlines, registry
from bertlab.config.schema import Paths
from bertlab.errors import RunError
from bertlab.runs.cache import cached
from bertlab.runs.files import digest, file_digest, read_json
from bertlab.runs.progress import working

BOOK, FOREIGN = "outlines.json", "foreign.json"


def know_outlines() -> None:
    """Let keys be checked, completed and explained without torch; the first time for this source, importing
    all of it.
    """
    ours = {str(file): file_digest(file) for file in sorted(registry.ROOT.rglob("*.py"))}
    book = _known([sys.version, ours], set(ours), of_plugins=False)
    if folders := registry.plugin_folders():
        files = sorted(file for folder in folders for file in folder.glob("*/*.py"))
        theirs = {str(file): file_digest(file) for file in files}
        of_plugins = _known(
            [sys.version, ours, list(map(str, folders)), theirs], {*ours, *theirs}, of_plugins=True
        )
        book = {
            group: {**book.get(group, {}), **of_plugins.get(group, {})} for group in {**book, **of_plugins}
        }
    outlines.know(book)


def _known(made_of: object, files: set[str], *, of_plugins: bool) -> outlines.Book:
    """Of these files, from the cache; empty where there is no cache to be had, or what options build on
    elsewhere has changed.
    """

    def draw(folder: Path) -> None:
        with working(f"reading the options of every {'plugin' if of_plugins else 'component'}, once"):
            book = outlines.all_outlines(of_plugins=of_plugins)
        foreign = {str(file): file_digest(file) for file in outlines.files_of(book) if str(file) not in files}
        (folder / FOREIGN).write_text(json.dumps(foreign), encoding="utf-8")
        (folder / BOOK).write_text(json.dumps(book), encoding="utf-8")

    with suppress(RunError, OSError):
        folder = cached(Paths(), "outlines", digest(made_of), draw)
        if all(file_digest(Path(file)) == known for file, known in read_json(folder / FOREIGN).items()):
            book: outlines.Book = read_json(folder / BOOK)
            return book
    return {}
