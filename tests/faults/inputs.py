"""What fuzz.py draws: for each thing that bertlab reads, commands and files that are nearly right."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet
import yaml
from hypothesis import strategies as st
from mutations import SCALARS, as_json, changed, damaged, json_file, lines_file, yaml_file

from templates import ONE_STEP, RUN, TORN, Given, Templates


@dataclass(frozen=True)
class Target:
    """Something that is read."""

    name: str
    cases: Callable[[Templates], st.SearchStrategy[Given]]


# --- weights, Hugging Face folders ----------------------------------------------------------------
DTYPES = ("F32", "F16", "BF16", "F64", "I64", "I8", "U8", "BOOL", "C64", "F8_E4M3", "F4", "X", "", "f32")


@st.composite
def safetensors(draw: Any, content: bytes) -> bytes:
    """A safetensors file whose header or bytes are not as they should be."""
    if draw(st.integers(0, 2)) == 0:
        return bytes(draw(damaged(content)))
    size = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    values = (
        st.sampled_from(DTYPES)
        | st.integers(-1, 2**40)
        | st.lists(st.integers(-1, 2**34), max_size=3)
        | st.sampled_from(SCALARS)
    )
    made = as_json(draw(changed(header, leaves=values)))
    told = draw(st.sampled_from((len(made), len(made), len(made), len(made), 0, 2**40, len(made) + 1)))
    how = draw(st.sampled_from(("whole", "whole", "cut", "longer", "nan", "zero")))
    rest = {
        "whole": rest,
        "cut": rest[:-4],
        "longer": rest + b"\0" * 8,
        "nan": b"\xff" * len(rest),
        "zero": bytes(len(rest)),
    }[how]
    return told.to_bytes(8, "little") + made + rest


@st.composite
def weights(draw: Any, templates: Templates) -> Given:
    run = templates.run("run")
    if draw(st.booleans()):
        file = f"{run}/model.safetensors"
        words = draw(st.sampled_from((
            ["predict", f"run={run}", "text=a good film", "compute.threads=1"], ["evaluate", f"run={run}",
            "compute.threads=1"],
            ["export", f"run={run}", "to=made", "verify=1"], [*ONE_STEP, "init=checkpoint",
            f"init.path={run}", "model=bert_tiny"],
        )))  # fmt: skip
        return Given(
            words, {file: draw(safetensors(templates.read("run", file))), f"{run}/manifest.json": None}, "run"
        )
    words = draw(
        st.sampled_from(([*ONE_STEP, "init=pretrained", "init.path=hf", "model=bert_tiny"], FOREIGN))
    )
    return Given(
        words, {"hf/model.safetensors": draw(safetensors(templates.read("hf", "hf/model.safetensors")))}, "hf"
    )


FOREIGN = [word for word in ONE_STEP if not word.startswith("model.")] + [
    "model=hf",
    "model.name_or_path=hf",
    "init=pretrained",
]
SCRATCH = [word for word in FOREIGN if word != "init=pretrained"] + [
    "init=scratch",
    "tokenizer=wordpiece",
    "tokenizer.vocab_size=80",
]
KINDS = (
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "modernbert",
    "deberta-v2",
    "albert",
    "gpt2",
    "t5",
    "llama",
    "xlm-roberta",
    "clip",
    "nomic_bert",
    "",
)
SMALL_NUMBERS = st.sampled_from(
    (-(2**31), -1, 0, 1, 2, 3, 7, 8, 16, 32, 33, 64, 96, 512, 2**31, 2**40, 2**70)
)  # none that costs minutes
CONFIG_KEYS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
    "max_position_embeddings", "type_vocab_size",
    "hidden_act", "pad_token_id", "layer_norm_eps", "dtype", "torch_dtype", "auto_map", "quantization_config",
    "architectures", "embedding_size",
    "position_embedding_type", "rope_theta", "rope_scaling", "is_decoder", "use_cache", "id2label",
    "problem_type", "attn_implementation",
    "_attn_implementation", "transformers_version", "local_attention", "global_attn_every_n_layers",
    "num_labels", "pruned_heads", "_name_or_path",
    "trust_remote_code", "hidden_dropout_prob", "initializer_range", "tie_word_embeddings", "layer_types",
    "custom_pipelines", "dim", "n_layers", "n_heads",
)  # fmt: skip
CODE = b"import pathlib\npathlib.Path('/tmp/bertlab-pwned').touch()\n"
AUTO = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}


@st.composite
def described(draw: Any, config: dict[str, Any]) -> bytes:
    """A config.json of an encoder that is none, or not this one."""
    values = SMALL_NUMBERS | st.sampled_from(SCALARS) | st.just(AUTO) | st.lists(SMALL_NUMBERS, max_size=3)
    config = dict(config)
    if draw(st.integers(0, 2)) == 0:
        config["model_type"] = draw(st.sampled_from(KINDS))
    for _ in range(draw(st.integers(0, 2))):
        config[draw(st.sampled_from(CONFIG_KEYS))] = draw(values)
    return bytes(
        draw(
            st.just(as_json(config)) | changed(config, leaves=values).map(as_json) | damaged(as_json(config))
        )
    )


@st.composite
def hugging_face(draw: Any, templates: Templates) -> Given:
    own = [*ONE_STEP, "init=pretrained", "init.path=hf", "model=bert_tiny"]
    tokenizer_alone = [*ONE_STEP, "tokenizer=pretrained", "tokenizer.path=hf", "model=bert_tiny"]
    words = draw(st.sampled_from((own, FOREIGN, FOREIGN, SCRATCH, tokenizer_alone)))
    config, tokenizer, told = (
        json.loads(templates.read("hf", f"hf/{name}.json"))
        for name in ("config", "tokenizer", "tokenizer_config")
    )
    files: dict[str, bytes | None] = {}
    for _ in range(draw(st.integers(1, 2))):
        name = draw(
            st.sampled_from(("config", "config", "tokenizer", "tokenizer", "tokenizer_config", "other"))
        )
        if name == "config":
            files["hf/config.json"] = draw(described(config))
        elif name == "tokenizer":
            files["hf/tokenizer.json"] = draw(json_file(tokenizer))
        elif name == "tokenizer_config":
            files["hf/tokenizer_config.json"] = draw(
                json_file({**told, "tokenizer_class": "X", "auto_map": AUTO})
            )
        else:
            other = draw(
                st.sampled_from(
                    (
                        "vocab.txt",
                        "special_tokens_map.json",
                        "added_tokens.json",
                        "model.safetensors.index.json",
                        "pytorch_model.bin",
                    )
                )
            )
            files[f"hf/{other}"] = draw(
                json_file({"weight_map": {"x": "../../etc/passwd"}, "[MASK]": 5}) | st.binary(max_size=40)
            )
            gone = draw(
                st.sampled_from(
                    ("", "model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json")
                )
            )
            files |= {f"hf/{gone}": None} if gone else {}
    return Given(words, {**files, "hf/evil.py": CODE}, "hf")


# --- run folders, kept runs, reports --------------------------------------------------------------
@st.composite
def run_folder(draw: Any, templates: Templates) -> Given:
    run = templates.run("run")
    file = draw(st.sampled_from((
        "config.yaml", "config.yaml", "summary.json", "summary.json", "identity.json", "environment.json",
        "labels.json", "tokenizer.json",
        "metrics.jsonl", "predictions/validation.jsonl", "manifest.json", "sessions.jsonl",
    )))  # fmt: skip
    content = templates.read("run", f"{run}/{file}")
    if file.endswith(".yaml"):
        made = draw(yaml_file(yaml.safe_load(content)))
    elif file.endswith(".jsonl"):
        made = draw(lines_file([json.loads(line) for line in content.decode().splitlines()]))
    else:
        made = draw(json_file(json.loads(content)))
    words = draw(st.sampled_from((
        ["predict", f"run={run}", "text=a good film", "compute.threads=1"],
        ["evaluate", f"run={run}", "compute.threads=1"],
        ["report", "runs=out", "out=made", "formats=md,html,csv,tex,json"],
        ["list", "runs", "runs=out", "sort=-validation"], ["list", "runs", "runs=out", "format=jsonl"],
        ["list", "sweeps", "runs=out"],
        [*RUN, "paths.output=out"], [*RUN, "paths.output=out"], ["plan", *RUN, "paths.output=out"],
        [*ONE_STEP, "init=checkpoint", f"init.path={run}", "model=bert_tiny", "init.head=true"],
        ["export", f"run={run}", "to=made", "verify=1"],
    )))  # fmt: skip
    return Given(
        words,
        {f"{run}/{file}": made} | ({f"{run}/manifest.json": None} if file != "manifest.json" else {}),
        "run",
    )


@st.composite
def torn_run(draw: Any, templates: Templates) -> Given:
    run = templates.run("torn")
    step = sorted((templates.place / "torn" / run / "checkpoints").glob("step-*"))[-1].name
    file = draw(
        st.sampled_from(
            (
                "summary.json",
                "manifest.json",
                "identity.json",
                f"checkpoints/{step}/manifest.json",
                f"checkpoints/{step}/state.pt",
            )
        )
    )
    content = templates.read("torn", f"{run}/{file}")
    made = draw(damaged(content) if file.endswith(".pt") else json_file(json.loads(content)))
    return Given([*TORN, "paths.output=out"], {f"{run}/{file}": made}, "torn")


@st.composite
def reports(draw: Any, templates: Templates) -> Given:
    """Kept runs, and a report.json that somebody sends."""
    if draw(st.booleans()):
        content = json.loads(templates.read("run", "kept/report.json"))
        return Given(
            ["reproduce", "report=kept", "paths.output=made", "dry_run=true"],
            {"kept/report.json": draw(json_file(content))},
            "run",
        )
    content = templates.read("run", "kept/runs.parquet")
    if draw(st.integers(0, 2)):
        (row,) = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
        part = draw(st.sampled_from([name for name in row if name != "run"]))
        row[part] = draw(json_file(json.loads(row[part]))).decode("utf-8", "replace")
        stream = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), stream)
        content = stream.getvalue()
    else:
        content = draw(damaged(content))
    words = draw(
        st.sampled_from(
            (
                ["report", "runs=kept", "out=made", "formats=md,html,csv,tex,json"],
                ["list", "runs", "runs=kept"],
            )
        )
    )
    return Given(words, {"kept/runs.parquet": content}, "run")
