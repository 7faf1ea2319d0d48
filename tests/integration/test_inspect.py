"""`bertlab inspect`: known texts with known copies, conflicts, overlaps and unknown words, and what is masked."""

from pathlib import Path
from typing import Any

WORDS = ["inspect", "dataset=files", "dataset.train_file=train.csv", "dataset.validation_file=validation.csv", "compute.threads=1"]


def write_files() -> None:
    rows = [
        ("a fine film", "good"),
        ("A fine film!", "good"),
        ("a fine, film", "bad"),
        ("dull and slow", "bad"),
        ("", "bad"),
        ("quite good", "good"),
    ]
    rows += [(f"a plain text {index}", "good") for index in range(20)]
    Path("train.csv").write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows))
    Path("validation.csv").write_text('text,label\n"dull and slow",bad\n"never seen words",good\n')


def test_counts_are_those_of_the_file(cli: Any) -> None:
    write_files()
    status, out, err = cli(*WORDS, "inspect.out=page")
    assert status == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert any(line.startswith("train 26 1 26 ") for line in lines), out  # rows, empty, examples
    assert "good 23 (88.5 %) 1 (50.0 %)" in lines and "bad 3 (11.5 %) 1 (50.0 %)" in lines
    assert "train 2 (7.7 %) 3" in lines  # two copies of "a fine film"; of the three rows one says bad
    assert "validation train 1 (50.0 %)" in lines
    assert (Path("page") / "inspect.html").is_file() and (Path("page") / "figures" / "lengths.png").is_file()
    assert not Path("multirun").exists()


def test_masked_tokens_are_shown_with_what_they_were(cli: Any) -> None:
    write_files()
    status, out, err = cli(
        *WORDS, "objective=mlm", "objective.rate=0.5", "objective.mask_share=1", "objective.random_share=0", "tokenizer.min_frequency=1"
    )
    assert status == 0, err
    assert "[MASK]=" in out.partition("As the model sees them")[2]
