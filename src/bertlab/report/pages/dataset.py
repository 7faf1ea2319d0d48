"""A dataset as a run would read it: splits, answers, lengths, unknown tokens, copies, overlaps, words,
examples as the model sees them.
"""

import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bertlab.config import registry
from bertlab.config.schema import Train
from bertlab.contracts import Draw
from bertlab.data.dataset import letters_of, roles_for
from bertlab.data.material import Material
from bertlab.data.row_checks import contradictions, is_empty, places_by_text, texts_of
from bertlab.data.text_checks import WORD
from bertlab.declarations import Role
from bertlab.errors import shortened
from bertlab.report.pages.page import Block, Figure, Heading, Listing, Page, PageTable, Text
from bertlab.runs.files import write_atomically, write_csv

EXAMPLES = 5  # shown of each kind
WORDS = 10  # shown of each class
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and ideographs: each by itself
WORD_OR_CHARACTER = re.compile(rf"[{CJK}]|(?:(?![{CJK}]){WORD.pattern[:-1]})+")
LONGEST = 300  # letters of a text that is shown
CLASHING = 20  # texts with several answers that are shown
MOST_LINES = 100  # and rows of them


def dataset_page(config: Train, material: Material) -> Page:
    """The whole page."""
    roles = roles_for(config.dataset, config.objective)
    texts = {split: texts_of(rows, roles) for split, rows in material.dataset.splits.items()}
    page = Page(f"{config.dataset.name}, as objective={config.objective.name} reads it")
    notes = [Text(note, "warning") for note in material.dataset.notes]
    page.blocks += [
        *notes,
        Heading("Splits"),
        splits_table(material, texts),
        lengths_figure(config, material),
    ]
    page.blocks += answer_blocks(material, roles)
    page.blocks += [Heading("Copies"), *copies_blocks(material, roles, texts), overlaps_table(texts)]
    page.blocks += word_blocks(material, roles, texts["train"])
    page.blocks += example_blocks(config, material, texts["train"])
    return page


# --- splits and lengths ---------------------------------------------------------------------------
def splits_table(material: Material, texts: dict[str, list[str]]) -> PageTable:
    """Rows, examples, tokens, and what of the text does not reach the model."""
    headers = [
        "split",
        "rows",
        "empty",
        "examples",
        "tokens, mean",
        "median",
        "95 %",
        "longest",
        "cut",
        "unknown tokens",
        "nothing but unknown",
    ]
    lines = []
    for split, examples in material.examples.items():
        lengths, unknown = examples.lengths, examples.tokens == material.tokenizer.special.unk_id
        special = np.isin(examples.tokens, material.tokenizer.special.all()) & ~unknown
        known_of = (
            np.add.reduceat((~unknown & ~special).astype(np.int64), examples.offsets[:-1])
            if len(examples)
            else np.zeros(0)
        )
        unknown_of = (
            np.add.reduceat(unknown.astype(np.int64), examples.offsets[:-1]) if len(examples) else np.zeros(0)
        )
        cut = examples.columns.get("cut")  # None: this objective cuts nothing off, or counts it nowhere
        lines.append([
            split, f"{len(texts[split]):,}", str(sum(map(is_empty, texts[split]))),
            f"{len(examples):,}",
            f"{lengths.mean():.1f}",
            *(f"{np.percentile(lengths, share):.0f}" for share in (50, 95)), str(lengths.max()),
            "–" if cut is None else share_text(float((cut > 0).mean())),
            share_text(float(unknown.sum() / max(1, (~special).sum()))),
            share_text(float(((known_of == 0) & (unknown_of > 0)).mean())),
        ])  # fmt: skip
    return PageTable(headers, lines, "Splits, their examples and the tokens of those (special ones included)")


def share_text(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %"


def lengths_figure(config: Train, material: Material) -> Figure:
    """A histogram of tokens an example, by split."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
    longest = max(int(examples.lengths.max()) for examples in material.examples.values())
    edges = np.linspace(0.5, longest + 0.5, min(longest, 60) + 1)
    for (split, examples), line in zip(material.examples.items(), ("-", "--", "-."), strict=False):
        heights, _ = np.histogram(examples.lengths, edges)
        axes.stairs(100 * heights / len(examples), edges, label=split, linewidth=1.6, linestyle=line)
    axes.axvline(
        config.objective.max_length, color="black", linestyle=":", linewidth=1, label="objective.max_length"
    )
    axes.set(xlabel="tokens of an example", ylabel="examples (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=130)
    figure.savefig(svg, format="svg")
    plt.close(figure)
    return Figure("lengths", png.getvalue(), svg.getvalue(), "Lengths of examples")


# --- answers --------------------------------------------------------------------------------------
def answer_blocks(material: Material, roles: Sequence[Role]) -> list[Block]:
    """What is to be predicted, split by split: counts of classes, or how numbers lie."""
    blocks: list[Block] = []
    for role in (role for role in roles if role.is_answer):
        columns = {split: rows[role.name][:] for split, rows in material.dataset.splits.items()}
        flat = {
            split: [one for cell in cells for one in (cell if isinstance(cell, list) else [cell])]
            for split, cells in columns.items()
        }
        names = material.dataset.label_names
        if names:
            counts = {split: Counter(values) for split, values in flat.items()}
            lines = [
                [
                    name,
                    *(
                        f"{counts[split][index]:,}"
                        f" ({share_text(counts[split][index] / max(1, len(flat[split])))})"
                        for split in flat
                    ),
                ]
                for index, name in enumerate(names)
            ]
            blocks += [
                Heading(f"Answers: {role.name}"),
                PageTable([role.name, *flat], lines, "How often each occurs"),
            ]
        elif all(isinstance(value, float) for values in flat.values() for value in values):
            shown = [
                [
                    split,
                    *(
                        f"{one:.4g}"
                        for one in (min(v), *np.percentile(v, [25, 50, 75]), max(v), np.mean(v), np.std(v))
                    ),
                ]
                for split, v in flat.items()
            ]
            headers = ["split", "least", "25 %", "median", "75 %", "most", "mean", "sd"]
            blocks += [Heading(f"Answers: {role.name}"), PageTable(headers, shown, "How the numbers lie")]
    return blocks


# --- copies, overlaps, words ----------------------------------------------------------------------
CLASHES = ["split", "text", "source", "row", "answer"]


def clashing_rows(
    material: Material, roles: Sequence[Role], texts: dict[str, list[str]]
) -> dict[str, list[list[list[str]]]]:
    """Split -> each text with several answers -> its rows, as CLASHES."""
    found = {}
    for split, rows in material.dataset.splits.items():
        origin, names = material.dataset.origins[split], material.dataset.label_names
        clashes = contradictions(rows, roles, names, origin, texts[split], places_by_text(texts[split]))
        found[split] = [
            [
                [split, text, source, str(row), answer]
                for text, (source, row, answer) in zip(clash.texts, clash.rows, strict=True)
            ]
            for clash in clashes
        ]
    return found


def copies_blocks(material: Material, roles: Sequence[Role], texts: dict[str, list[str]]) -> list[Block]:
    """Equal texts within a split, those of them whose answers differ, and which rows these are."""
    clashes, lines = clashing_rows(material, roles, texts), []
    for split, own in texts.items():
        copies = sum(len(same) - 1 for same in places_by_text(own).values())
        conflicting = sum(map(len, clashes[split]))
        lines.append([split, f"{copies:,} ({share_text(copies / max(1, len(own)))})", f"{conflicting:,}"])
    blocks: list[Block] = [
        PageTable(
            ["split", "copies of an earlier row", "rows whose copies have other answers"],
            lines,
            "Equal texts (letters and digits, case aside; empty ones are counted above)",
        )
    ]
    every = [clash for of_split in clashes.values() for clash in of_split]
    if every:
        shown = [[*line[:1], shorten(line[1], 80), *line[2:]] for clash in every[:CLASHING] for line in clash]
        more = f"; the first {CLASHING} of {len(every):,} texts" if len(every) > CLASHING else ""
        caption = f"One text, other answers (rows are counted from 1, a header left out){more}"
        blocks.append(PageTable(CLASHES, shown[:MOST_LINES], caption, left=3, wide=(1,)))
    return blocks


def write_clashes(file: Path, config: Train, material: Material) -> int:
    """Every row whose text stands elsewhere in its split with another answer, as a CSV; how many
    there are.
    """
    roles = roles_for(config.dataset, config.objective)
    texts = {split: texts_of(rows, roles) for split, rows in material.dataset.splits.items()}
    of_splits = clashing_rows(material, roles, texts).values()
    lines = [line for clashes in of_splits for clash in clashes for line in clash]
    if not lines:
        file.unlink(missing_ok=True)  # what an earlier look found is mended
        return 0
    table = io.StringIO(newline="")
    write_csv(table, [CLASHES, *lines])
    write_atomically(file, lambda temporary: temporary.write_bytes(table.getvalue().encode()))
    return len(lines)


def overlaps_table(texts: dict[str, list[str]]) -> PageTable:
    """Rows of one split that stand in another."""
    sets = {split: set(places_by_text(own)) for split, own in texts.items()}
    lines = [
        [split, other, f"{count:,} ({share_text(count / max(1, len(texts[split])))})"]
        for split in texts
        for other in texts
        if split != other and (count := sum(letters_of(text) in sets[other] for text in texts[split]))
    ]
    return PageTable(
        ["rows of", "stand in", "how many"], lines or [["–", "–", "none"]], "Overlap of splits", left=2
    )


def word_blocks(material: Material, roles: Sequence[Role], texts: Sequence[str]) -> list[Block]:
    """The words that tell classes apart most: how much more often than elsewhere, once a text; of tags, their
    most frequent.
    """
    answers_of = {role: registry.load_kind(role.kind).classes for role in roles if role.is_answer}
    role = next((role for role, classes in answers_of.items() if classes != "none"), None)
    names, train = material.dataset.label_names, material.dataset.splits["train"]
    if role is None or not names:
        return []
    answers = train[role.name][:]
    if answers_of[role] == "a word" and role.about is not None:
        tagged = [Counter[str]() for _ in names]
        for words, tags in zip(train[role.about][:], answers, strict=True):
            for word, tag in zip(words, tags, strict=True):
                tagged[tag][word] += 1
        rows = [[name, said(counts.most_common(WORDS))] for name, counts in zip(names, tagged, strict=True)]
        headers, caption = ["tag", "its words (how often)"], "Most frequent words of each tag, training split"
        return [Heading("Words"), PageTable(headers, rows, caption, left=2, wide=(1,))]
    by_class: list[Counter[str]] = [Counter() for _ in names]
    every, sizes = Counter[str](), Counter[int]()
    for text, answer in zip(texts, answers, strict=True):
        words_of = set(WORD_OR_CHARACTER.findall(text.lower()))
        every.update(words_of)
        for label in answer if isinstance(answer, list) else [answer]:
            by_class[label].update(words_of)
            sizes[label] += 1
    lines = []
    for index, name in enumerate(names):
        inside, outside = max(1, sizes[index]), max(1, len(answers) - sizes[index])
        frequent = {word: count for word, count in by_class[index].items() if every[word] >= 5}
        tells = {
            word: np.log((count + 0.5) / inside) - np.log((every[word] - count + 0.5) / outside)
            for word, count in frequent.items()
        }
        best = sorted(tells, key=lambda word: (-tells[word] * np.sqrt(by_class[index][word]), word))[:WORDS]
        lines.append(
            [name, said([(word, by_class[index][word]) for word in best]) or "none in five texts or more"]
        )
    return [
        Heading("Words"),
        PageTable(
            ["class", "words that tell it (texts of it that hold them)"],
            lines,
            "Most telling words of the training split (in Chinese and Japanese: characters)",
            left=2,
            wide=(1,),
        ),
    ]


def said(counts: Sequence[tuple[str, int]]) -> str:
    """Words and how often."""
    return ", ".join(f"{word} ({count:,})" for word, count in counts)


# --- examples -------------------------------------------------------------------------------------
def example_blocks(config: Train, material: Material, texts: Sequence[str]) -> list[Block]:
    """Rows as they were read; examples as tokens; and what the model sees of them in the first epoch, by this
    seed's draw.
    """
    examples, token_of = material.examples["train"], material.tokenizer.backend.id_to_token
    count = min(EXAMPLES, len(examples))
    said = material.dataset.origins["train"].said
    rows = [f"{said(place)}: {shorten(texts[place])}" for place in range(min(EXAMPLES, len(texts)))]
    tokens = [" ".join(token_of(int(token)) for token in examples[place][:80]) for place in range(count)]
    batch = material.objective.collate(examples, np.arange(count), Draw(config.seed, 0))
    seen = material.objective.show(batch, token_of)
    return [Heading("Rows as they were read"), Listing(rows), Heading("Examples as tokens"), Listing(tokens),
            Heading("As the model sees them in the first epoch"), Listing([shorten(line,
            600) for line in seen])]  # fmt: skip


def shorten(text: str, most: int = LONGEST) -> str:
    """A text on one line."""
    return shortened(re.sub(r"\s+", " ", text), most)
