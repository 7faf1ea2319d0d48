"""The ways out: what each writes of a run, how its card says it is opened, and how it is compared with the
run.
"""

import abc
import importlib.util
from pathlib import Path
from typing import Any

from bertlab.config.schema import Train
from bertlab.export import onnx, sentence_transformers
from bertlab.export.model import MODELLING, Form, form_of, write_model
from bertlab.export.tokenizer_files import SIDES, truncation_of
from bertlab.export.verification import compare_tokens, largest_difference
from bertlab.training.finished import FinishedRun


def longest(trained: FinishedRun) -> int:
    """Tokens of the longest text, special ones included: what the run was trained with, as far as positions
    go.
    """
    reach = trained.model.encoder.longest
    return (
        trained.config.objective.max_length
        if reach is None
        else min(trained.config.objective.max_length, reach)
    )


NO_TRANSFORMERS = (
    "transformers is not installed; pip install 'bertlab[hf]', then export to another folder to have it"
    " compared"
)


def has_transformers() -> bool:
    """Whether what is written can be opened here."""
    return importlib.util.find_spec("transformers") is not None


class Format(abc.ABC):
    """One way out."""

    library: str  # as the hub calls it

    @abc.abstractmethod
    def form(self, config: Train, what: str) -> Form:
        """As what the run leaves. Raises ConfigError where it cannot, before weights are read."""

    @abc.abstractmethod
    def write(self, trained: FinishedRun, folder: Path, what: str) -> str:
        """The model's files, without the tokenizer's; what they are, for a person."""

    @abc.abstractmethod
    def opening(self, trained: FinishedRun, form: Form) -> list[str]:
        """Lines of the card: how the folder is opened, and whose code then runs."""

    @abc.abstractmethod
    def compare(self, trained: FinishedRun, folder: Path, form: Form, rows: Any) -> str:
        """Compare with the run; what that showed, in words. Raises RunError where the folder answers
        otherwise.
        """

    def uncompared(self, trained: FinishedRun, wanted: bool) -> str | None:
        """Why the folder is not to be compared, or cannot be here; None where it is."""
        # what transformers has built itself is always compared
        if trained.config.model.hub_name() is not None:
            return None
        if not wanted:
            return "verify=false"
        return None if has_transformers() else NO_TRANSFORMERS


class Transformers(Format):
    """Transformers' own class, or our modelling file."""

    library = "transformers"

    def form(self, config: Train, what: str) -> Form:
        """See `form_of`."""
        return form_of(config, what)

    def write(self, trained: FinishedRun, folder: Path, what: str) -> str:
        """The class's name."""
        return write_model(
            folder, trained.config, trained.model, trained.tokenizer, trained.objective.label_names, what
        )

    def opening(self, trained: FinishedRun, form: Form) -> list[str]:
        """The class to ask, and what `trust_remote_code` means."""
        auto = f"AutoModelFor{form.task}" if form.task else "AutoModel"
        vectors = (
            ["", "The vector of a text is `pooler_output`; compare vectors by their cosine."]
            if form.head and not form.task
            else []
        )
        if form.as_code:
            return [
                *code_note("AutoModel"),
                "",
                f"    {auto}.from_pretrained(FOLDER, trust_remote_code=True)",
                *vectors,
            ]
        return [
            "Transformers' own class computes it; no code comes with this folder.",
            "",
            f"    {auto}.from_pretrained(FOLDER)",
            *vectors,
        ]

    def compare(self, trained: FinishedRun, folder: Path, form: Form, rows: Any) -> str:
        """Tokens, then outputs in double precision."""
        compare_tokens(trained, folder, longest(trained), rows)
        difference = largest_difference(trained, folder, form, longest(trained), rows)
        return (
            f"tokens and outputs equal to the run's on {texts_of(rows)} and random tokens (largest difference"
            f" {difference:.1e})"
        )


class SentenceTransformers(Format):
    """Vectors of texts, in the package's own layout."""

    library = "sentence-transformers"

    def form(self, config: Train, what: str) -> Form:
        """The encoder; the rest is the package's."""
        return sentence_transformers.vectors_form(config, what)

    def write(self, trained: FinishedRun, folder: Path, what: str) -> str:
        """Encoder, pooling, length 1."""
        return sentence_transformers.write_modules(folder, trained, longest(trained))

    def opening(self, trained: FinishedRun, form: Form) -> list[str]:
        """The package's call."""
        option = ", trust_remote_code=True" if form.as_code else ""
        call = f"    SentenceTransformer(FOLDER{option}).encode(texts)"
        note = code_note("SentenceTransformer") if form.as_code else ["No code comes with this folder."]
        return [
            *note,
            "",
            call,
            "",
            "Vectors have length 1: their product is their cosine, which the run was trained and scored by.",
        ]

    def compare(self, trained: FinishedRun, folder: Path, form: Form, rows: Any) -> str:
        """Tokens and hidden states; vectors too, where the package is installed."""
        compare_tokens(trained, folder, longest(trained), rows)
        difference = largest_difference(trained, folder, form, longest(trained), rows)
        if not sentence_transformers.has_package():
            told = (
                "vectors were not compared: pip install sentence-transformers, then export to another folder"
            )
            return (
                f"tokens and hidden states equal to the run's (largest difference {difference:.1e}); {told}"
            )
        difference = sentence_transformers.vectors_difference(folder, trained, longest(trained), rows)
        return (
            f"tokens and vectors equal to the run's on {texts_of(rows)} (largest difference {difference:.1e})"
        )


class Onnx(Format):
    """A graph for onnxruntime."""

    library = "onnx"

    def form(self, config: Train, what: str) -> Form:
        """Any head that has outputs of its own."""
        return onnx.form_of(config, what)

    def write(self, trained: FinishedRun, folder: Path, what: str) -> str:
        """model.onnx."""
        return onnx.write_graph(folder, trained, onnx.form_of(trained.config, what), longest(trained))

    def opening(self, trained: FinishedRun, form: Form) -> list[str]:
        """Code that needs onnxruntime and tokenizers alone."""
        side = SIDES.get(truncation_of(trained.config.objective), "right")
        return [
            "A graph; it is opened without torch, and runs no code of ours.",
            "",
            *onnx.usage(trained, form, longest(trained), side),
        ]

    def compare(self, trained: FinishedRun, folder: Path, form: Form, rows: Any) -> str:
        """In onnxruntime, in single precision."""
        if has_transformers():
            compare_tokens(trained, folder, longest(trained), rows)
        difference = onnx.graph_difference(folder, trained, form, longest(trained), rows)
        return (
            f"outputs in onnxruntime equal to the run's on {texts_of(rows)} and random tokens (largest"
            f" difference {difference:.1e})"
        )

    def uncompared(self, trained: FinishedRun, wanted: bool) -> str | None:
        """It is where it is wanted: without onnxruntime nothing is written."""
        return None if wanted else "verify=false"


FORMATS: dict[str, Format] = {
    "transformers": Transformers(),
    "sentence_transformers": SentenceTransformers(),
    "onnx": Onnx(),
}


def code_note(opened: str) -> list[str]:
    """What it means that code comes along."""
    return [
        (
            f"Transformers has no class for this encoder, so its code comes along: `{MODELLING}.py`, which"
            " needs torch and transformers alone."
        ),
        (
            "`trust_remote_code=True` runs that file with your rights: read it first (it opens no file and no"
            " connection), or compare it with"
        ),
        "what `bertlab export` writes."
        + (" Pipelines take the same option." if opened == "AutoModel" else ""),
    ]


def texts_of(rows: Any) -> str:
    """What was compared, in words."""
    return (
        f"{len(rows)} validation rows"
        if rows is not None
        else "texts of our own (the run's data cannot be read here)"
    )
