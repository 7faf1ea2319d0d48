"""Malformed tokenizers, weights and folders: refused, and no run folder is made."""

import json
import shlex
from pathlib import Path

import pytest
from refusals import GARBAGE, SMALL, Case, Cli, assert_refused, case, each, lay_out, tree

WORDS = {"type": "WordLevel", "vocab": {"[UNK]": 0, "good": 1, "bad": 2}, "unk_token": "[UNK]"}
BARE_TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": WORDS,
    }
)
INPUTS = [
    case(
        "tokenizer_missing",
        f"tokenizer=pretrained tokenizer.path=./nope.json {SMALL}",
        "tokenizer.path=./nope.json",
        "nope.json",
    ),
    case(
        "tokenizer_folder_without_one",
        f"tokenizer=pretrained tokenizer.path=folder {SMALL}",
        "folder/tokenizer.json",
        files={"folder/a": ""},
    ),
    case(
        "tokenizer_neither_here_nor_on_the_hub",
        f"tokenizer=pretrained tokenizer.path=nobody/nothing {SMALL}",
        "tokenizer.path=nobody/nothing",
        "hub",
    ),
    case(
        "tokenizer_not_json",
        f"tokenizer=pretrained tokenizer.path=t.json {SMALL}",
        "tokenizer.path=t.json",
        files={"t.json": "{"},
    ),
    case(
        "tokenizer_other_json",
        f"tokenizer=pretrained tokenizer.path=t.json {SMALL}",
        "tokenizer.path=t.json",
        files={"t.json": '{"a": 1}'},
    ),
    case(
        "tokenizer_binary",
        f"tokenizer=pretrained tokenizer.path=t.json {SMALL}",
        "tokenizer.path=t.json",
        files={"t.json": GARBAGE},
    ),
    case(
        "tokenizer_without_special_tokens",
        f"tokenizer=pretrained tokenizer.path=t.json {SMALL}",
        "t.json",
        "no pad token",
        "[PAD]",
        files={"t.json": BARE_TOKENIZER},
    ),
    case("words_too_rare", f"tokenizer.min_frequency=100000 {SMALL}", "tokenizer=wordlevel", "min_frequency"),
    case(
        "bpe_smaller_than_its_bytes",
        f"tokenizer=bpe tokenizer.vocab_size=100 {SMALL}",
        "tokenizer.vocab_size=100",
        "261",
    ),
    case(
        "unigram_smaller_than_its_letters",
        f"tokenizer=unigram tokenizer.vocab_size=8 {SMALL}",
        "tokenizer.vocab_size=8",
    ),
    case(
        "vocabulary_of_the_model_too_small",
        f"model=bert model.vocab_size=6 {SMALL}",
        "vocab_size=6",
        "tokenizer",
    ),
    case("weights_missing", f"init=checkpoint init.path=nowhere {SMALL}", "init.path=nowhere"),
    case(
        "weights_folder_without_any",
        f"init=checkpoint init.path=folder {SMALL}",
        "folder",
        "no weights",
        files={"folder/a": ""},
    ),
    case(
        "weights_damaged",
        f"init=checkpoint init.path=w.safetensors {SMALL}",
        "w.safetensors",
        "damaged",
        files={"w.safetensors": GARBAGE},
    ),
    case(
        "weights_empty",
        f"init=checkpoint init.path=w.safetensors {SMALL}",
        "w.safetensors",
        files={"w.safetensors": b""},
    ),
    case(
        "checkpoint_folder_without_config",
        f"model=bert init=pretrained init.path=folder {SMALL}",
        "init.path=folder",
        "config.json",
        files={"folder/a": ""},
    ),
    case(
        "checkpoint_config_broken",
        f"model=bert init=pretrained init.path=folder {SMALL}",
        "folder/config.json",
        files={"folder/config.json": "{", "folder/model.safetensors": b""},
    ),
    case(
        "checkpoint_of_another_architecture",
        f"model=bert init=pretrained init.path=folder {SMALL}",
        "gpt2",
        files={"folder/config.json": '{"model_type": "gpt2"}', "folder/model.safetensors": b""},
    ),
    case("output_is_a_file", f"paths.output=out {SMALL}", "out/", "paths.output", files={"out": ""}),
    case(
        "output_below_a_file",
        f"paths.output=out/runs {SMALL}",
        "out/runs/",
        "paths.output",
        files={"out": ""},
    ),
    case("cache_is_a_file", f"paths.cache=cache {SMALL}", "paths.cache=cache", files={"cache": ""}),
]


@each(INPUTS)
def test_malformed_tokenizers_and_weights_leave_no_run_folder(
    case: Case, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(case, monkeypatch)
    assert_refused(cli(*shlex.split(case.command)), case.says, tree(Path()))


def test_a_missing_accelerator_is_refused(cli: Cli) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert_refused(
        cli(*shlex.split(f"{SMALL} compute.device=cuda")), ("compute.device=cuda", "compute.device=cpu"), {}
    )
