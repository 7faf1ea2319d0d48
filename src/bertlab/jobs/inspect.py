"""`bertlab inspect`: look at a dataset as a run would read it: counts, lengths, what is cut or unknown, copies, overlaps, examples

usage: bertlab inspect [group=option ...] [key=value ...] [inspect.out=FOLDER]

Takes the words of `bertlab train` and trains nothing. Data is read and tokenised as that run would (which then finds it in the cache), and
shown: splits and their lengths, answers, unknown tokens, equal texts and conflicting answers, overlap of splits, telling words, the first
rows as read, as tokens, and as the model sees them (what is masked, by this seed's draw).

  inspect.out=FOLDER     also writes inspect.md, inspect.html and figures/; and contradictions.csv, every row whose text stands elsewhere
                         in its split with another answer (rows are counted from 1, a header left out)
"""

from dataclasses import dataclass, field
from pathlib import Path

from bertlab.config.registry import Job
from bertlab.config.schema import Node, Train, string
from bertlab.data.material import prepare
from bertlab.data.text_checks import refuse_unknown
from bertlab.errors import ConfigError, DataError, RunError
from bertlab.report.pages.dataset import dataset_page, write_clashes
from bertlab.report.pages.page import Text, to_html, to_markdown, to_plain
from bertlab.runs.files import write_atomically, write_record
from bertlab.runs.outcome import Context
from bertlab.training.assembly import check_combination


@dataclass
class Inspect(Node):
    """Where the page goes."""

    out: str | None = string(None, "folder for inspect.md, inspect.html and figures/")


@dataclass
class Schema(Train):
    """A run, and where what it would read is shown."""

    inspect: Inspect = field(default_factory=Inspect)


def run(config: Schema, _context: Context) -> None:
    """Read, tokenise, show. Raises UserError for what would stop the run."""
    check_combination(config)
    if config.init.stage(config) is not None:
        raise ConfigError(
            "inspect: the tokenizer of init=stage is made by the pretraining; inspect that (dataset=…"
            " objective=mlm …), or name one"
        )
    print(f"reading {config.dataset.name} as a run would: table, tokenizer, examples", flush=True)
    material = prepare(config, None, config.init.source(config), looks_only=True)
    print("counting words, copies, conflicts and overlaps", flush=True)
    page = dataset_page(config, material)
    try:
        refuse_unknown(config, material.texts)
    except DataError as error:  # what is to be looked at then is this page
        page.blocks.insert(0, Text(f"A run would stop here: {error}", "warning"))
    print(to_plain(page), flush=True)
    if config.inspect.out is not None:
        out = Path(config.inspect.out).expanduser()
        try:
            for figure in page.figures():
                write_atomically(
                    out / "figures" / f"{figure.name}.png",
                    lambda file, png=figure.png: file.write_bytes(png),  # type: ignore[misc]  # a default
                )
            write_record(out / "inspect.md", to_markdown(page))
            write_record(out / "inspect.html", to_html(page))
            clashing = write_clashes(out / "contradictions.csv", config, material)
        except OSError as error:
            raise RunError(f"inspect.out={out}: cannot be written ({error.strerror or error})") from error
        if clashing:
            print(
                f"{clashing:,} rows whose text stands elsewhere with another answer: {out}/contradictions.csv"
            )
        print(f"inspect: {out}")


JOB = Job(Schema, run)
