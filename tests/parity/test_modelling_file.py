"""The modelling file of exports: bundled from our source, alone, and equal to what was trained for every
option and every head.
"""

import ast
import copy
import functools
import re
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import random_weights
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bertlab.config.composition import compose_schema
from bertlab.config.schema import validate
from bertlab.data.material import build_objective
from bertlab.data.tokenizer_options import WordPiece, train_tokenizer
from bertlab.export import bundle, verification
from bertlab.export import model as export
from bertlab.models.bert import Bert, build
from bertlab.training.assembly import Model

transformers = pytest.importorskip("transformers")
TOKENIZER = train_tokenizer(
    WordPiece(name="wordpiece", vocab_size=60), ["a film was good", "a dull plot was bad"]
)
NAMES = {
    "classification": ["no", "so so", "yes"],
    "multi_label": ["joy", "anger"],
    "tagging": ["O", "B-PER", "I-PER"],
}
OBJECTIVES = ["classification", "multi_label", "regression", "multiple_choice", "tagging", "extractive_qa",
    "embedding", "mlm", "mlm_nsp",
              "nsp", "rtd", "capped", "encoder"]  # fmt: skip


@functools.cache
def config_of(objective: str) -> Any:
    data = ["dataset=files", "dataset.train_file=x.csv"]
    words = ["objective.max_length=128", "objective.stride=32"] if objective == "extractive_qa" else []
    if objective == "capped":
        objective, words = "mlm", ["objective.logit_softcap=1.5"]
    return compose_schema("train", [*data, f"objective={objective}", *words])


@st.composite
def encoders(draw: st.DrawFn) -> Bert:
    """Any encoder of ours that transformers has no class for, every option among them."""
    heads = draw(st.sampled_from([1, 2]))
    options: dict[str, Any] = {
        option.name: draw(st.sampled_from(option.metadata["options"]))
        for option in fields(Bert)
        if "options" in option.metadata
    }
    options |= {
        option.name: draw(st.booleans()) for option in fields(Bert) if isinstance(option.default, bool)
    }
    layers = draw(st.integers(1, 4))
    options |= {
        "attention_softcap": draw(st.sampled_from([None, 2.0])),
        "value_embeddings": draw(st.integers(0, layers // 2)),
    }
    if draw(st.booleans()):
        base = draw(st.sampled_from([None, 100.0])) if options["positions"] == "rotary" else None
        options |= {
            "global_every": draw(st.integers(2, 3)),
            "local_window": draw(st.sampled_from([2, 4])),
            "local_rotary_base": base,
        }
    if options["attention_softcap"] is not None and options["attention"] == "sdpa":
        options["attention"] = "auto"
    options["first_attention_norm"] |= options["norm_placement"] == "post"
    config = Bert(
        name="bert", hidden_size=8 * heads, num_attention_heads=heads, num_hidden_layers=layers,
        intermediate_size=draw(st.sampled_from([None, 12])), type_vocab_size=draw(st.integers(1, 3)),
        max_position_embeddings=140,
        vocab_size=draw(st.sampled_from([None, 70])), **options,
    )  # fmt: skip
    validate(config, "model")
    return config


@settings(max_examples=40, phases=[Phase.generate])  # a failing case is small as it is
@given(encoders(), st.sampled_from(OBJECTIVES), st.integers(0, 99))
def test_every_option_and_every_head_answers_as_what_was_trained(
    encoder: Bert, objective: str, seed: int
) -> None:
    what = "encoder" if objective == "encoder" else "task"
    config = copy.deepcopy(config_of("classification" if objective == "encoder" else objective))
    config.model = encoder
    names = NAMES.get(objective, NAMES["classification"])
    made = build(encoder, TOKENIZER.vocab_size, TOKENIZER.special.pad_id)
    model = Model(made, build_objective(config, TOKENIZER, names).build_head(made, 0.02))
    random_weights(model, seed)
    model = model.eval()
    form = export.form_of(config, what)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "exported")
        folder.mkdir()
        kind = export.write_model(folder, config, model, TOKENIZER, names, what)
        auto = getattr(transformers, f"AutoModelFor{form.task}" if form.task else "AutoModel")
        theirs, report = auto.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    assert type(theirs).__name__ == kind == form.kind and not any(report.values()), report
    batch = verification.random_batch(TOKENIZER, 12)
    asked = verification.asked(batch, form.task, made.takes_segments)
    with torch.no_grad():
        ours, found = verification.both(model.double(), dict(theirs.eval().double()(**asked)), batch, form)
    for one, other in zip(ours, found, strict=True):  # attention's weights may be of single precision
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


# --- the file itself ------------------------------------------------------------------------------
def test_it_stands_alone_and_is_the_source_that_trains() -> None:
    text = export.modelling_file()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            )
            assert {module.split(".")[0] for module in modules} <= {*bundle.OUTSIDE, *sys.stdlib_module_names}
    source = Path(sys.modules[Bert.__module__].__file__ or "").read_text(encoding="utf-8")
    for name in ("Attention", "FeedForward", "Layer", "rotate", "intermediate_width"):
        (part,) = [
            node
            for node in ast.parse(source).body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
        ]
        assert ast.get_source_segment(source, part) in text, f"{name} stands there as it does here"
    assert all(f"    {option.name}: " in text for option in fields(Bert) if option.name != "name")
    assert bundle.bundle("bertlab.export.modeling_bertlab", "x") == bundle.bundle(
        "bertlab.export.modeling_bertlab", "x"
    )
    assert max(map(len, text.splitlines())) <= 140 and not re.search(r"[^\n]\n\n\n\n", text)


REACHED = """import math

def used(x):
    return math.floor(x) + LEAST

def unused(x):
    return numpy(x)

# told
LEAST = 1

class Base:
    def left(self):
        return used(1)

    def right(self):
        return unused(1)
"""
ROOT = '''"""Root."""

from bertlab_test.reached import Base, used

class Top(Base):
    def right(self):
        return self.left()
'''


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A house of two modules."""
    place = tmp_path / "bertlab_test"
    place.mkdir()
    for name, text in {"reached": REACHED, "root": ROOT, "__init__": ""}.items():
        (place / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(bundle, "HOUSE", "bertlab_test")
    for name in [name for name in sys.modules if name.split(".")[0] == "bertlab_test"]:
        del sys.modules[name]
    return place


@pytest.mark.usefixtures("house")
def test_what_is_reached_comes_along_and_nothing_else() -> None:
    text = bundle.bundle("bertlab_test.root", "Made here.")
    space: dict[str, Any] = {"__name__": "alone"}
    exec(compile(text, "alone", "exec"), space)
    assert space["Top"]().right() == 2
    assert (
        "unused" not in text
        and "# told\nLEAST = 1" in text
        and text.startswith('"""Root.\n\nMade here.\n"""\n')
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            (
                "import math\nimport numpy as np\n\ndef used(x):\n    return np.floor(x)\n\nclass Base:\n   "
                " pass\n"
            ),
            "could not stand alone",
        ),
        (
            "class Base:\n    pass\n\nclass Top:\n    pass\n\ndef used(x):\n    return Top\n",
            "stands for something else",
        ),
    ],
)
def test_what_could_not_stand_alone_is_refused(change: str, said: str, house: Path) -> None:
    (house / "reached.py").write_text(change)
    (house / "root.py").write_text(ROOT + "\nused(1)\n\ndef again():\n    return used(2)\n")
    with pytest.raises(ValueError, match=said):
        bundle.bundle("bertlab_test.root", "")
