"""What fuzz.py draws of text: command lines, presets, tables in every kind of file, minimal pairs."""

import bz2
import csv
import gzip
import io
import json
import shlex
from collections.abc import Sequence
from functools import cache
from typing import Any

import yaml
from hypothesis import strategies as st
from mutations import SCALARS, TREES, changed, damaged, yaml_file

from templates import ONE_STEP, Given, Templates

# --- words of a command line ----------------------------------------------------------------------
JOBS = (
    "",
    "",
    "",
    "",
    "plan",
    "predict",
    "evaluate",
    "report",
    "export",
    "inspect",
    "list",
    "study",
    "reproduce",
    "benchmark",
    "help",
    "jobs",
)
PIECES = (
    "=", "==", "+", "++", "~", "@", ":", ".", "..", ",", "/", "[", "]", "{", "}", "(", ")", "'", '"', "\\",
    " ", "$", "${", "#", "-", "--", "null",
    "1", "-1", "1e-3", "1e999", "0x", "seed", "model", "bert_tiny", "optimizer", "lr", "dataset", "init",
    "stage", "hydra", "sweeper", "range(3)",
    "choice(1,2)", "interval(0,1)", "glob(*)", "sort(1,2)", "shuffle(1,2)", "tag(a,1)", "zip(1,2)",
    "zip(1,2,)", "range(1,1000000000)", "str(", "int(1)",
    "é", "\0", "\n", "\t", "\u202e", "\ufeff", "\ud800", "🙂", "%", "a" * 300, "${oc.env:HOME}", "${seed}",
    "${now:%Y}", "{a: 1}", "[1,2]", "_target_",
)  # fmt: skip
FLAGS = (
    "-m",
    "--cfg=job",
    "--cfg=hydra",
    "--cfg=all",
    "--resolve",
    "-p",
    "--info=all",
    "--help",
    "--dry-run",
    "-cd=.",
    "-cn=x",
    "-cp=.",
    "--run",
    "-sc",
)
ANY_VALUES = (
    st.sampled_from(SCALARS).map(str)
    | st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
    | st.text(max_size=6)
)


@cache
def keys() -> list[str]:
    """Every key of a training run with its defaults, those of Hydra, and groups."""
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from bertlab.config import registry
    from bertlab.config.composition import compose_raw
    from bertlab.runs.records import flatten

    GlobalHydra.instance().clear()
    tree: Any = OmegaConf.to_container(compose_raw("train", []), resolve=False)
    return sorted(
        {
            *flatten(tree),
            *registry.GROUPS,
            "hydra/sweeper",
            "hydra/launcher",
            "run",
            "text",
            "runs",
            "out",
            "format",
            "report",
            "to",
            "pairs",
        }
    )


@st.composite
def words(draw: Any, _templates: Templates) -> Given:
    """Jobs compose and check what they are told, and do nothing."""
    job = draw(st.sampled_from(JOBS))
    told = [job] if job else []
    for _ in range(draw(st.integers(1, 3))):
        how = draw(st.sampled_from(("value", "value", "value", "pieces", "flag", "key")))
        if how == "value":
            told.append(f"{draw(st.sampled_from(keys()))}={draw(ANY_VALUES)}")
        elif how == "key":
            key = draw(st.sampled_from(keys()))
            at = draw(st.integers(0, len(key)))
            told.append(f"{key[:at]}{draw(st.sampled_from(PIECES))}{key[at:]}={draw(ANY_VALUES)}")
        else:
            told.append(
                draw(
                    st.sampled_from(FLAGS)
                    if how == "flag"
                    else st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)
                )
            )
    return Given(told, composes_only=True)


# --- presets --------------------------------------------------------------------------------------
NASTY_NODES: tuple[Any, ...] = (
    {"_target_": "os.mkdir", "path": "pwned"}, {"_target_": "os.system", "_args_": ["touch pwned"]},
    [{"_self_": None}], ["_self_", "_self_"],
    {"override /model": "nowhere"}, ["/model: bert"], {"optional x": "y"}, {"/model@x": "bert"},
    {"hydra": {"callbacks": {"x": {"_target_": "os.mkdir"}}}},
    {"hydra": {"callbacks": {"x": {"_target_": "hydra_plugins.bertlab_optuna._results.os.mkdir",
    "path": "pwned"}}}},
    {"hydra": {"callbacks": {"x": {"_target_": "optuna.samplers._gp.sampler.torch.load", "f": "x.pt"}}}},
    {"hydra": {"launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.Path.touch"}}},
    {"hydra": {"job_logging": {"version": 1, "handlers": {"h": {"()": "logging.os.mkdir",
    "path": "pwned"}}}}},
    {"hydra": {"hydra_logging": {"version": 1, "handlers": {"h": {"class": "logging.FileHandler",
    "filename": "pwned"}}}}},
    {"lr": "${optimizer.lr}"}, "${.x}", "???", {"seed": "${seed}"},
    {"hydra": {"job": {"env_set": {"BERTLAB_PLUGINS": "."}}}}, ["../x"], [[]], "x: y",
)  # fmt: skip
LISTS = {
    "experiment": ({"defaults": [{"override /model": "bert_tiny"}, "_self_"], "seed": 1,
    "optimizer": {"lr": 0.001}, "budget": {"steps": 3}}, ["experiment=x"]),
    "model": ({"defaults": ["bert", "_self_"], "hidden_size": 32, "num_attention_heads": 2}, ["model=x"]),
    "dataset": ({"defaults": ["table", "_self_"], "name": "x", "train_file": "t.csv", "text_column": "text",
    "columns": {"urgency": "u"}, "label_names": ["a", "b"],
                 "mirror_files": {"train": "x/train.parquet"}, "label_map": {"0": "a"}}, ["dataset=x"]),
    "search": ({"defaults": ["/hydra/sweeper@_global_.hydra.sweeper: bertlab_optuna"],
    "hydra": {"sweeper": {"params": {"optimizer.lr": "interval(0.1,1)"}, "n_trials": 1}}},
               ["-m", "search=x"]),
    "suite": ({"tasks": {"a": ["dataset=synthetic"], "b": ["dataset=sst2", "seed=1"]}, "recipe": ["seed=2"],
    "apart": ["a"], "published": {
        "P": {"source": "s", "split": "test", "scores": {"a": 1.0}}}, "grid": {"optimizer.lr": [0.1, 0.2]}},
        ["-m", "suite=x"]),
}  # fmt: skip


@st.composite
def presets(draw: Any, _templates: Templates) -> Given:
    """Of every group that a folder can bring, and studies. Jobs do nothing; a study reads its file itself."""
    group = draw(st.sampled_from((*LISTS, "study", "pairs")))
    values = TREES | st.sampled_from(NASTY_NODES)
    if group == "study":
        plan = {"question": "Does it?", "words": ["seed=1"], "arms": {"a": [], "b": ["optimizer.lr=0.1"]},
        "effect": 0.5, "seeds": 8, "pilot": ["x"], "test": "welch",
                "metric": "accuracy"}  # fmt: skip
        return Given(
            ["study", "x.yaml", "preview=true"],
            {"x.yaml": draw(changed(plan, leaves=values).map(as_yaml_text) | yaml_file(plan))},
        )
    if group == "pairs":
        return Given(
            ["evaluate", "run=x", "pairs=x"],
            {"conf/minimal_pairs/x.yaml": draw(yaml_file({"file": "x.csv", "good_column": "a"}))},
        )
    tree, told = LISTS[group]
    made = draw(changed(tree, leaves=values).map(as_yaml_text) | yaml_file(tree))
    if group in ("experiment", "model", "search") and draw(st.booleans()):
        made = b"# @package _global_\n" + made
    more = draw(st.sampled_from(([], ["--cfg=job"], ["--cfg=all"], ["seed=1"], ["--info=defaults"])))
    return Given(["--config-dir=conf", *told, *more], {f"conf/{group}/x.yaml": made}, composes_only=True)


def as_yaml_text(tree: Any) -> bytes:
    """YAML; what it cannot write, as JSON."""
    try:
        return str(yaml.safe_dump(tree, sort_keys=False)).encode()
    except (yaml.YAMLError, UnicodeEncodeError, RecursionError):
        return json.dumps(tree, default=str).encode()


# --- tables ---------------------------------------------------------------------------------------
TEXTS = (
    st.sampled_from(("a good film", "a bad film", "dull", "what a plot, really", 'he said "no"', "x" * 300))
    | st.sampled_from(SCALARS)
    | st.text(max_size=6)
)
WORD_TAGS = st.sampled_from(("O", "B-X", "I-X", "I-Y", 0, 1, None, ""))
ANSWER = {"text": st.lists(TEXTS, max_size=1), "answer_start": st.lists(st.integers(-2, 9), max_size=2)}
COLUMN_OF = {
    "text": TEXTS,
    "text_pair": TEXTS,
    "label": st.sampled_from(("0", "1", 0, 1, "pos", "neg", -1, 1.0)) | st.sampled_from(SCALARS),
    "number": st.floats() | st.integers() | st.sampled_from(SCALARS),
    "labels": st.lists(st.sampled_from(("a", "b", "", None)), max_size=2) | TEXTS,
    "tokens": st.lists(TEXTS, max_size=4),
    "tags": st.lists(WORD_TAGS, max_size=4),
    "choices": st.lists(TEXTS, max_size=3),
    "answers": st.fixed_dictionaries(ANSWER),
}
USES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("objective=classification", ("text", "label")),
    ("objective=classification dataset.text_pair_column=text_pair", ("text", "text_pair", "label")),
    ("objective=regression dataset.number_column=number dataset.label_column=null", ("text", "number")),
    ("objective=multi_label dataset.labels_column=labels dataset.label_column=null", ("text", "labels")),
    ("objective=tagging dataset.tokens_column=tokens dataset.tags_column=tags dataset.label_column=null",
    ("tokens", "tags")),
    ("objective=multiple_choice dataset.choices_column=choices", ("text", "choices", "label")),
    ("objective=extractive_qa dataset.question_column=text dataset.context_column=text_pair "
     "dataset.answers_column=answers dataset.label_column=null",
     ("text", "text_pair", "answers")),
    ("objective=mlm dataset.label_column=null", ("text",)),
    ("objective=nsp dataset.documents=true dataset.label_column=null", ("text",)),
)  # fmt: skip
OPTIONS = (
    "dataset.quoting=none", "dataset.quoting=csv", "dataset.delimiter=;", "dataset.encoding=latin-1",
    "dataset.encoding=utf-16", "dataset.encoding=ascii",
    "dataset.clean=html", "dataset.clean=tweet", "dataset.clean=treebank", "dataset.drop_unlabelled=true",
    "dataset.column_names=[text,label]",
    "dataset.label_names=[neg,pos]", "dataset.fraction=0.5", "dataset.folds=3", "dataset.documents=true",
    "objective.max_length=8",
    "dataset.max_words={train: 5}", "dataset.label_map={0: a, 1: b}", "tokenizer=bpe", "tokenizer=unigram",
    "dataset.tag_scheme=bioes",
    "dataset.validation_file=t.csv", "dataset.labels_separator=,",
)  # fmt: skip
ENDINGS = ("csv", "csv", "tsv", "jsonl", "jsonl", "json", "parquet", "parquet", "csv.gz", "jsonl.bz2")


@st.composite
def tables(draw: Any, _templates: Templates) -> Given:
    """Files of every kind for every objective: usual rows, some cells of which are not."""
    use, names = draw(st.sampled_from(USES))
    count = draw(st.sampled_from((0, 1, 3, 20, 20, 40, 40, 40)))
    columns = {name: [_usual(name, row) for row in range(count)] for name in names}
    for _ in range(draw(st.integers(0, 3)) if count else 0):
        name = draw(st.sampled_from(names))
        columns[name][draw(st.integers(0, count - 1))] = draw(COLUMN_OF[name])
    lines = ("txt",) * 4 if names == ("text",) else ("conll",) * 4 if "tags" in names else ()
    ending = draw(st.sampled_from((*ENDINGS, *lines)))
    options = draw(st.sampled_from((0, 0, 1, 2)))
    told = draw(st.lists(st.sampled_from(OPTIONS), max_size=options, unique_by=key_of)) if options else []
    model = [word for word in ONE_STEP if not word.startswith("dataset.")]
    small = ["model=bert_tiny", "tokenizer.vocab_size=100", "tokenizer.min_frequency=1"]
    words_of = ["dataset=files", f"dataset.train_file=t.{ending}", *shlex.split(use), *told, *model, *small]
    job = draw(st.sampled_from(([], ["inspect"])))
    return Given([*job, *words_of], {f"t.{ending}": written(ending, columns, draw)})


def key_of(word: str) -> str:
    """Of a setting."""
    return word.partition("=")[0]


def _usual(name: str, row: int) -> Any:
    good = row % 2 == 0
    text = f"the film number {row} was {'good' if good else 'bad'}"
    return {
        "text": text, "text_pair": f"it was {row} {'good' if good else 'bad'}",
        "label": "pos" if good else "neg", "number": row / 2, "labels": ["a"] if good else ["a", "b"],
        "tokens": text.split(), "tags": ["O", "B-X", "I-X", "O", "O", "O"][: len(text.split())],
        "choices": ["one", "two"],
        "answers": {"text": ["it"], "answer_start": [0]},
    }[name]  # fmt: skip


def written(ending: str, columns: dict[str, list[Any]], draw: Any) -> bytes:
    """Columns as a file of this kind, whole or damaged."""
    kind = ending.partition(".")[0]
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if kind in ("csv", "tsv"):
        content = delimited(columns, rows, "\t" if kind == "tsv" else ",")
    elif kind in ("jsonl", "json"):
        tree = draw(changed(rows)) if draw(st.integers(0, 2)) == 0 else rows
        lines = [json.dumps(row) for row in (tree if isinstance(tree, list) else [tree])]
        content = ("\n".join(lines) if kind == "jsonl" else json.dumps(tree)).encode()
    elif kind == "parquet":
        content = as_parquet(columns)
    elif kind == "conll" and "tags" in columns:
        pairs_of = [zip(listed(row["tokens"]), listed(row["tags"]), strict=False) for row in rows]
        sentences = ["\n".join(f"{word} {tag}" for word, tag in one) for one in pairs_of]
        content = "\n\n".join(sentences).encode("utf-8", "surrogatepass")
    else:
        lines = [str(next(iter(row.values()))) for row in rows]
        content = "\n".join(lines).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 3)) == 0:
        content = draw(damaged(content))
    return {"gz": gzip.compress, "bz2": bz2.compress}.get(ending.rpartition(".")[2], bytes)(content)


def listed(value: Any) -> list[Any]:
    """A list; of anything else, one of it alone."""
    return value if isinstance(value, list) else [value]


def delimited(columns: Sequence[str] | dict[str, Any], rows: list[dict[str, Any]], separator: str) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator)
    writer.writerow(list(columns))
    writer.writerows([list(row.values()) for row in rows])
    return stream.getvalue().encode("utf-8", "surrogatepass")


def as_parquet(columns: dict[str, list[Any]]) -> bytes:
    """With whatever types the values have; as text where they have none in common."""
    import pyarrow
    from pyarrow import parquet

    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pyarrow.array(values)
        except (pyarrow.ArrowException, UnicodeEncodeError, OverflowError):
            arrays[name] = pyarrow.array([ascii(value) for value in values])
    stream = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays), stream)
    return stream.getvalue()


# --- minimal pairs --------------------------------------------------------------------------------
@st.composite
def pairs(draw: Any, templates: Templates) -> Given:
    count = draw(st.sampled_from((0, 1, 2, 5)))
    columns: dict[str, list[Any]] = {
        "sentence_good": [f"the film {row} was good" for row in range(count)],
        "sentence_bad": [f"the film {row} good was" for row in range(count)],
        "UID": ["order" if row % 2 else "words" for row in range(count)],
    }
    for _ in range(draw(st.integers(0, 3)) if count else 0):
        name = draw(st.sampled_from(list(columns)))
        columns[name][draw(st.integers(0, count - 1))] = draw(TEXTS)
    if draw(st.integers(0, 5)) == 0:
        columns[draw(st.sampled_from(("", "x", "\0", "sentence_good ")))] = columns.pop(
            draw(st.sampled_from(list(columns)))
        )
    ending = draw(st.sampled_from(ENDINGS))
    more = draw(
        st.sampled_from(
            (
                [],
                ["pairs_scoring=word_l2r"],
                ["out=made.csv"],
                ["out=made.parquet"],
                ["encoding=utf-16"],
                ["format=json"],
            )
        )
    )
    words_of = ["evaluate", f"run={templates.run('mlm')}", f"pairs=p.{ending}", "compute.threads=1", *more]
    return Given(words_of, {f"p.{ending}": written(ending, columns, draw)}, "mlm")
