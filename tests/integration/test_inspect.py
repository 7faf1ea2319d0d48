"""`bertlab inspect`: known texts with known copies, conflicts, overlaps and unknown words, and what is
masked.
"""

import csv
import json
from pathlib import Path
from typing import Any

WORDS = [
    "inspect",
    "dataset=files",
    "dataset.train_file=train.csv",
    "dataset.validation_file=validation.csv",
    "compute.threads=1",
]


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
    assert "train a fine film train.csv 1 good" in lines and "train a fine, film train.csv 3 bad" in lines
    assert "row 4 of train.csv: dull and slow" in out
    with (Path("page") / "contradictions.csv").open(newline="") as stream:
        header, *listed = csv.reader(stream)
    assert header == ["split", "text", "source", "row", "answer"]
    assert [(row[3], row[4]) for row in listed] == [("1", "good"), ("2", "good"), ("3", "bad")]
    assert (
        "A run would stop here: tokenizer=wordlevel: 100% of the validation split's tokens are unknown" in out
    )
    assert (Path("page") / "inspect.html").is_file() and (Path("page") / "figures" / "lengths.png").is_file()
    assert not Path("multirun").exists()

    Path("train.csv").write_text(Path("train.csv").read_text().replace("a fine, film", "another film"))
    assert cli(*WORDS, "inspect.out=page")[0] == 0
    assert not Path("page", "contradictions.csv").exists(), "what was mended is no longer listed"


def test_masked_tokens_are_shown_with_what_they_were(cli: Any) -> None:
    write_files()
    status, out, err = cli(
        *WORDS,
        "objective=mlm",
        "objective.rate=0.5",
        "objective.mask_share=1",
        "objective.random_share=0",
        "tokenizer.min_frequency=1",
    )
    assert status == 0, err
    assert "[MASK]=" in out.partition("As the model sees them")[2]


def test_words_are_those_of_the_script(cli: Any) -> None:
    texts = [
        ("यह काम अच्छा है", "good"),
        ("यह कम बुरा है", "bad"),
        ("这部电影，很好。", "good"),
        ("这部电影，很坏。", "bad"),
    ] * 10
    Path("t.csv").write_text(
        "text,label\n" + "".join(f"{text},{label}\n" for text, label in texts), encoding="utf-8"
    )
    words = [
        *WORDS[:2],
        "dataset.train_file=t.csv",
        "dataset.validation_file=t.csv",
        "compute.threads=1",
        "tokenizer=wordpiece",
    ]
    status, out, err = cli(*words)
    assert status == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    (good,) = [line for line in lines if line.startswith("good ") and "काम" in line]
    (bad,) = [line for line in lines if line.startswith("bad ") and "कम" in line]
    assert (
        "अच्छा (10)" in good
        and "好 (10)" in good
        and "坏" not in good
        and "बुरा (10)" in bad
        and "坏 (10)" in bad
    )


def test_what_is_cut_and_the_words_of_tags_are_told(cli: Any) -> None:
    more = [["on"] * 20 * (index % 2) for index in range(40)]
    rows = [
        {"w": ["Ann", "went", "to", "Rome", *rest], "t": ["B-PER", "O", "O", "B-LOC", *("O" for _ in rest)]}
        for rest in more
    ]
    Path("t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = [
        "dataset.tokens_column=w",
        "dataset.tags_column=t",
        "objective=tagging",
        "objective.max_length=10",
    ]
    status, out, err = cli(
        "inspect", "dataset=files", "dataset.train_file=t.jsonl", "dataset.validation_file=t.jsonl", *columns
    )
    assert status == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "B-PER Ann (40)" in lines and "B-LOC Rome (40)" in lines
    assert any(line.startswith("train 40 0 40 ") and " 10 50.0 % " in line for line in lines), out
