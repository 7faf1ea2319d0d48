"""A report as a list of blocks, and its three forms: Markdown, LaTeX (booktabs) and one self-contained HTML
page.
"""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

STYLE = Path(__file__).parent / "page.css"


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    text: str
    kind: str = "plain"  # plain | warning | methods


@dataclass(frozen=True)
class Listing:
    """Commands, to be copied."""

    lines: Sequence[str]


@dataclass(frozen=True)
class PageTable:
    """Cells are text; `bold` names rows (from 0) that stand out. The first `left` columns are words, the rest
    numbers.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    bold: frozenset[int] = frozenset()
    left: int = 1
    wide: Sequence[int] = ()  # columns of prose, which may break
    folded: bool = False  # shown on demand where that is possible


@dataclass(frozen=True)
class Figure:
    """A picture as PNG bytes, as SVG text and as PDF bytes, with the words for those who cannot see it."""

    name: str
    png: bytes
    svg: str
    caption: str
    pdf: bytes = b""  # for LaTeX; empty where it was not drawn


Block = Heading | Text | Listing | PageTable | Figure


@dataclass
class Page:
    title: str
    blocks: list[Block] = field(default_factory=list)

    def figures(self) -> list[Figure]:
        return [block for block in self.blocks if isinstance(block, Figure)]


# --- Markdown -------------------------------------------------------------------------------------
def to_markdown(page: Page) -> str:
    """Figures are files beside it, figures/NAME.png."""
    parts = [f"# {plain(page.title)}"]
    for block in page.blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {plain(block.text)}")
        elif isinstance(block, Text):
            parts.append(f"> **Note.** {plain(block.text)}" if block.kind == "warning" else plain(block.text))
        elif isinstance(block, Listing):
            parts.append("\n".join(f"    {line}" for line in block.lines))
        elif isinstance(block, Figure):
            parts.append(f"![{block.caption}](figures/{block.name}.png)")
        else:
            parts.append(_markdown_table(block))
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Text in which no HTML begins."""
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text)


def _markdown_table(table: PageTable) -> str:
    def line(cells: Sequence[str], bold: bool = False) -> str:
        clean = [plain(re.sub(r"\s+", " ", cell)).replace("|", "\\|") for cell in cells]
        return (
            "| "
            + " | ".join(
                f"**{cell}**" if bold and cell and index == 0 else cell for index, cell in enumerate(clean)
            )
            + " |"
        )

    rule = (
        "|"
        + "|".join(
            "---" if index < table.left or index in table.wide else "---:"
            for index in range(len(table.headers))
        )
        + "|"
    )
    lines = [
        line(table.headers),
        rule,
        *(line(row, index in table.bold) for index, row in enumerate(table.rows)),
    ]
    return "\n".join(([f"*{table.caption}*", ""] if table.caption else []) + lines)


# --- plain text -----------------------------------------------------------------------------------
def to_plain(page: Page) -> str:
    """For a terminal: columns aligned by blanks, figures left out."""
    parts = [page.title]
    for block in page.blocks:
        if isinstance(block, Heading):
            parts.append(f"== {block.text}")
        elif isinstance(block, Text):
            parts.append(block.text)
        elif isinstance(block, Listing):
            parts.append("\n".join(block.lines))
        elif isinstance(block, PageTable):
            lines = [list(block.headers), *map(list, block.rows)]
            widths = [max(len(line[column]) for line in lines) for column in range(len(block.headers))]
            told = (
                "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                for line in lines
            )
            parts.append("\n".join([*([block.caption] if block.caption else []), *told]))
    return "\n\n".join(parts)


# --- LaTeX ----------------------------------------------------------------------------------------
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "–": "--",
    "×": r"$\times$", "≤": r"$\leq$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "·": r"$\cdot$", "…": r"\ldots{}",
    "’": "'", "→": r"$\to$",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Text that LaTeX sets as it stands; what its fonts lack becomes a question mark."""
    escaped = "".join(LATEX.get(char, char) for char in text)
    return "".join(char if ord(char) < 0x250 else "?" for char in escaped)


def to_latex(page: Page) -> str:
    """The tables alone, as a document that compiles; to be cut up for a paper."""
    parts = [r"\documentclass{article}", r"\usepackage[utf8]{inputenc}", r"\usepackage[T1]{fontenc}",
        r"\usepackage{booktabs,graphicx}",
             r"\usepackage[margin=2cm,landscape]{geometry}", r"\begin{document}",
             rf"\section*{{{latex_text(page.title)}}}"]  # fmt: skip
    for block in page.blocks:
        if isinstance(block, Heading):
            parts.append(rf"\subsection*{{{latex_text(block.text)}}}")
        elif isinstance(block, Text):
            parts.append(latex_text(block.text) + "\n")
        elif isinstance(block, PageTable) and not block.folded:
            parts.append(_latex_table(block))
    return "\n".join([*parts, r"\end{document}"]) + "\n"


def _latex_table(table: PageTable) -> str:
    prose = max(5, 22 - 3 * (len(table.headers) - len(table.wide))) / max(1, len(table.wide))
    columns = "".join(
        f"p{{{prose:.3g}cm}}" if index in table.wide else "l" if index < table.left else "r"
        for index in range(len(table.headers))
    )

    def line(cells: Sequence[str], bold: bool = False) -> str:
        escaped = [latex_text(re.sub(r"\s+", " ", cell)) for cell in cells]
        return (
            " & ".join(
                rf"\textbf{{{cell}}}" if bold and index == 0 else cell for index, cell in enumerate(escaped)
            )
            + r" \\"
        )

    rows = [line(row, index in table.bold) for index, row in enumerate(table.rows)]
    caption = [rf"\caption{{{latex_text(table.caption)}}}"] if table.caption else []
    return "\n".join(
        [r"\begin{table}[ht]", r"\centering", *caption,
        r"\resizebox{\ifdim\width>\linewidth \linewidth\else\width\fi}{!}{%",
         rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(table.headers), r"\midrule", *rows,
         r"\bottomrule", r"\end{tabular}}",
         r"\end{table}"]
    )  # fmt: skip


# --- HTML -----------------------------------------------------------------------------------------
def to_html(page: Page) -> str:
    """One file: style and figures within, nothing fetched."""
    body = "\n".join(_html_block(block) for block in page.blocks)
    contents = "".join(
        f'<li><a href="#{_anchor(block.text)}">{html.escape(block.text)}</a></li>'
        for block in page.blocks
        if isinstance(block, Heading) and block.level == 2
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(page.title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style></head>\n<body><main>\n"
        f"<h1>{html.escape(page.title)}</h1>\n<nav><ul>{contents}</ul></nav>\n{body}\n</main></body></html>\n"
    )


def _html_block(block: Block) -> str:
    if isinstance(block, Heading):
        return f'<h{block.level} id="{_anchor(block.text)}">{html.escape(block.text)}</h{block.level}>'
    if isinstance(block, Text):
        words = re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(block.text))
        return f'<p class="{block.kind}">{words}</p>'
    if isinstance(block, Listing):
        return "<pre>" + html.escape("\n".join(block.lines)) + "</pre>"
    if isinstance(block, Figure):
        picture = base64.b64encode(block.svg.encode()).decode()
        source = f"data:image/svg+xml;base64,{picture}"
        return (
            f'<figure><img alt="{html.escape(block.caption)}"'
            f' src="{source}"><figcaption>{html.escape(block.caption)}</figcaption></figure>'
        )
    return _html_table(block)


def _html_table(table: PageTable) -> str:
    def kind(index: int) -> str:
        return "prose" if index in table.wide else "word" if index < table.left else "number"

    head = "".join(
        f'<th class="{kind(index)}">{html.escape(cell)}</th>' for index, cell in enumerate(table.headers)
    )
    rows = []
    for number, row in enumerate(table.rows):
        cells = "".join(_html_cell(kind(index), cell) for index, cell in enumerate(row))
        rows.append(f"<tr{' class=bold' if number in table.bold else ''}>{cells}</tr>")
    broad = " class=broad" if table.wide and len(table.headers) <= 3 else ""
    markup = f"<table{broad}><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    if table.folded:
        return (
            f"<details><summary>{html.escape(table.caption)} ({len(table.rows)})</summary><div"
            f" class=scroll>{markup}</div></details>"
        )
    caption = f'<p class="caption">{html.escape(table.caption)}</p>' if table.caption else ""
    return f"{caption}<div class=scroll>{markup}</div>"


def _html_cell(kind: str, text: str) -> str:
    """A number stays on one line; an interval and the level it holds at may stand on two."""
    interval, between, level = text.rpartition("] at ")
    if kind == "number" and between:
        parts = f"<span>{html.escape(interval)}]</span> <span>at {html.escape(level)}</span>"
        return f'<td class="number levelled">{parts}</td>'
    return f'<td class="{kind}">{html.escape(text)}</td>'


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
