"""A corpus ten times as large costs no more resident memory; streamed texts are those that are read whole."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from bertlab.config.composition import compose_schema
from bertlab.config.schema import Paths
from bertlab.data.dataset import load_dataset
from bertlab.declarations import TEXT, TEXT_PAIR, Role
from bertlab.errors import DataError
from children import PATIENCE

pytestmark = pytest.mark.slow

TEXTS, LABEL = (TEXT, TEXT_PAIR), Role("label", "label", is_answer=True)

# Peak of memory that is the process's own (RssAnon): pages of mapped files are the system's to take back.
MEASURE = """
import re, sys, threading, time
from pathlib import Path
from bertlab.data.material import prepare
from bertlab.config.composition import compose_schema

peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
        time.sleep(0.01)

threading.Thread(target=watch, daemon=True).start()
config = compose_schema("train", sys.argv[1:])
material = prepare(config)
tokens = sum(len(examples.tokens) for examples in material.examples.values())
print(tokens, peak)
"""


def corpus(file: Path, megabytes: float) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(800)]
    written = 0
    with file.open("w") as stream:
        while written < megabytes * 1e6:
            written += stream.write(json.dumps({"text": " ".join(rng.choices(words, k=300))}) + "\n")


def test_memory_does_not_grow_with_the_corpus() -> None:
    peaks = {}
    for megabytes in (12, 40):  # below the first, buffers that do not grow further are still being filled
        corpus(Path(f"{megabytes}.jsonl"), megabytes)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, "dataset=files", f"dataset.train_file={megabytes}.jsonl",
            "dataset.label_column=null",
             "objective=mlm", "tokenizer=wordlevel", "paths.cache=cache"],
            capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        tokens, peak = map(int, done.stdout.split())
        assert tokens > megabytes * 100_000
        peaks[megabytes] = peak / 1024
    assert peaks[40] - peaks[12] < 15, f"peak resident memory in MiB: {peaks}"


ROWS = [('a, "b"', "x"), ("été\nzwei", "y"), ("  c ", "z")]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_streamed_texts_are_those_read_whole(kind: str) -> None:
    import pandas

    frame = pandas.DataFrame(
        {
            "text": [text for text, _ in ROWS] * 3,
            "text_pair": [pair for _, pair in ROWS] * 3,
            "label": [0, 1, 0] * 3,
        }
    )
    file = f"rows.{kind}"
    {
        "csv": lambda: frame.to_csv(file, index=False),
        "jsonl": lambda: frame.to_json(file, orient="records", lines=True),
        "parquet": lambda: frame.to_parquet(file),
    }[kind]()
    config = compose_schema(
        "train", ["dataset=files", f"dataset.train_file={file}", "dataset.text_pair_column=text_pair"]
    ).dataset
    whole, streamed = (
        load_dataset(config, Paths(cache="cache"), needed).splits for needed in ((*TEXTS, LABEL), TEXTS)
    )
    for column in ("text", "text_pair"):
        both = [
            sorted(text for split in found.values() for text in split[column][:])
            for found in (whole, streamed)
        ]
        assert both[0] == both[1] == sorted(frame[column])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"text": "a"}\n{"text": null}\n', "row 2 has no text"),
        ('{"text": "a"}\n{"text": 3}\n', "row 2 holds a number"),
        ('{"txt": "a"}\n', "no column 'text'"),
        ('{"text": " "}\n', "no text at all"),
        ('{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
    ],
)
def test_what_is_wrong_in_a_streamed_file_is_told_as_ever(content: str, expected: str) -> None:
    Path("t.jsonl").write_text(content)
    config = compose_schema("train", ["dataset=files", "dataset.train_file=t.jsonl"]).dataset
    with pytest.raises(DataError, match=expected):
        load_dataset(config, Paths(cache="cache"), TEXTS)
    assert not list(Path("cache").rglob("*.arrow")), "nothing half-written stays"
