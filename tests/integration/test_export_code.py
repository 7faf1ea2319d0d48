"""Encoders that transformers has no class for leave with their code, and answer in an environment without
bertlab as the run does.
"""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from test_export import DATA, SMALL, TAGGED, exported

import bertlab
from bertlab.cli.entry import run_command
from bertlab.contracts import Batch
from bertlab.export import model as export
from tiny import tiny

pytestmark = pytest.mark.slow

transformers = pytest.importorskip("transformers")
ROTARY = ["model.num_hidden_layers=2", "model.positions=rotary", "model.norm_placement=pre"]
FLAGSHIP = [
    *ROTARY,
    "model.scaled_residual_init=true",
    "model.pooling=max",
    "tokenizer=wordpiece",
    "tokenizer.vocab_size=150",
]
BERTSST2 = [
    *ROTARY,
    "model.pooling=max",
    "tokenizer=wordlevel",
    "objective.token_dropout=0.15",
    "objective.max_length=64",
]
TEXTS = ["The plot was brilliant.", "nothing but a naïve, dull film — twice", "good " * 300]

ELSEWHERE = """
import json, sys
sys.path.insert(0, sys.argv[1])
try:
    import bertlab
except ImportError:
    pass
else:
    raise SystemExit("bertlab is here")
import transformers
answers = []
for task, folder, texts, options in json.loads(sys.argv[2]):
    pipe = transformers.pipeline(task, model=folder, trust_remote_code=True, **options)
    answers.append(pipe(texts, **({"truncation": True} if task == "text-classification" else {})))
print(json.dumps(answers, default=float))
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed here but for bertlab: an environment of a stranger's."""
    place = tmp_path_factory.mktemp("site")
    for installed in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if (
            not installed.name.startswith(
                ("bertlab", "hydra_plugins", "_editable_impl_bertlab", "__pycache__")
            )
            and installed.suffix != ".pth"
        ):
            (place / installed.name).symlink_to(installed)
    return place


def pipelines(packages: Path, asked: list[tuple[str, str, list[str], dict[str, Any]]]) -> list[list[Any]]:
    """What transformers' pipelines say in a process that sees those packages, Python's own modules and
    nothing else.
    """
    command = [sys.executable, "-I", "-S", "-c", ELSEWHERE, str(packages), json.dumps(asked)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "HF_HOME": str(packages.parent / "hf")},
    )
    assert done.returncode == 0, done.stderr
    answers: list[list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def test_runs_of_the_best_recipes_answer_where_there_is_no_bertlab(
    packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for recipe in (BERTSST2, FLAGSHIP):
        run = bertlab.run(tiny("budget.steps=4", "compute.precision=float32", *recipe))
        capsys.readouterr()
        assert run_command(["export", f"run={run.folder}", f"to={run.folder.name}"]) == 0
        told = capsys.readouterr().out
        assert (
            "BertlabForSequenceClassification, tokens and outputs equal to the run's on 8 validation rows"
            in told
        )
        assert (
            "trust_remote_code=True" in told
            and "trust_remote_code=True" in Path(run.folder.name, "README.md").read_text()
        )
        assert "Transformers has no class for this encoder" in Path(run.folder.name, "README.md").read_text()
        runs.append(run)
    answers = pipelines(
        packages,
        [
            ("text-classification", str(Path(run.folder.name).resolve()), TEXTS, {"top_k": None})
            for run in runs
        ],
    )
    for run, said in zip(runs, answers, strict=True):
        for ours, theirs in zip(run.predict(TEXTS), said, strict=True):
            assert {row["label"]: row["score"] for row in theirs} == pytest.approx(
                ours["probabilities"], abs=1e-5
            )


def test_masked_words_and_tags_are_said_there_too(packages: Path) -> None:
    rows = [
        {"tokens": ["Ann", "met", f"Bob{i % 7}", "."], "tags": ["B-PER", "O", "B-PER", "O"]}
        for i in range(60)
    ]
    Path("tagged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        *ROTARY,
        "model.norm=rms",
        "model.activation=swiglu",
        "model.linear_bias=false",
        "model.tie_embeddings=false",
    ]
    bpe = ["compute.precision=float32", "tokenizer=bpe", "tokenizer.vocab_size=400"]
    mlm = bertlab.run(tiny("budget.steps=4", *words, *bpe, "objective=mlm", "objective.max_length=32"))
    tagging = [*TAGGED, "objective=tagging", "tokenizer=wordlevel", "optimizer.lr=0.05"]
    tags = bertlab.run(tiny("budget.steps=8", *words, *tagging, sizes=None))
    for run, place in ((mlm, "mlm"), (tags, "tags")):
        assert run_command(["export", f"run={run.folder}", f"to={place}"]) == 0
    folders = [str(Path(place).resolve()) for place in ("mlm", "tags")]
    asked = [("fill-mask", folders[0], ["The plot was [MASK] and dull"], {"top_k": 400}),
             ("token-classification", folders[1], ["Ann met Bob3 ."], {"ignore_labels": []})]  # fmt: skip
    masked, (tagged,) = pipelines(packages, asked)
    special, trained = mlm.tokenizer.special, bertlab.load(mlm.folder)
    first, second = mlm.tokenizer.encode(["The plot was", "and dull"])
    ids = torch.tensor([[special.cls_id, *first, special.mask_id, *second, special.sep_id]])
    targets = {"masked": torch.tensor([len(first) + 1]), "label": torch.zeros(1, dtype=torch.long)}
    with torch.no_grad():
        ours = trained.model(Batch(ids, torch.zeros_like(ids), None, targets, ids.numel(), 1))[0].softmax(-1)
    assert len(masked) == len(ours) and all(
        abs(row["score"] - float(ours[row["token"]])) < 1e-5 for row in masked
    )
    assert [row["entity"] for row in tagged] == tags.predict(["Ann met Bob3 ."])[0]["tags"]


def test_a_stranger_can_go_on_training_and_save_it(tmp_path: Path) -> None:
    """Another head on the same weights, a step of learning, saved and opened again."""
    _, folder = exported(
        [*DATA, *FLAGSHIP, "model.hidden_size=16", "model.num_attention_heads=2"], "what=encoder"
    )
    model = transformers.AutoModelForTokenClassification.from_pretrained(
        folder, trust_remote_code=True, num_labels=5
    )
    ids = torch.randint(5, 100, (2, 7), generator=torch.Generator().manual_seed(0))
    loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids % 5).loss
    loss.backward()
    assert loss.item() > 0 and all(
        weight.grad is not None for name, weight in model.named_parameters() if "layers" in name
    )
    assert all(bool(torch.isfinite(weight).all()) for weight in model.state_dict().values())
    model.eval().save_pretrained(tmp_path / "again")
    again = transformers.AutoModelForTokenClassification.from_pretrained(
        tmp_path / "again", trust_remote_code=True
    ).eval()
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert torch.equal(again(ids, return_dict=False)[0], model(ids).logits)
    fresh = transformers.AutoModel.from_config(again.config, trust_remote_code=True)
    assert (
        fresh.encoder.token.weight.std().item() == pytest.approx(0.02, rel=0.2)
        and torch.isfinite(fresh(ids).pooler_output).all()
    )


def test_a_file_that_computes_otherwise_is_never_published(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = export.modelling_file()
    run = bertlab.run([*SMALL, *DATA, *FLAGSHIP, "model.hidden_size=16", "model.num_attention_heads=2"])
    for before, after, said in (
        (
            "import math\n",
            "import math\nimport bertlab\n",
            "without bertlab (ModuleNotFoundError: import of bertlab halted",
        ),
        ("hidden: Tensor = self.final_norm(x)", "hidden: Tensor = x", "answers otherwise"),
        ("class BertlabForSequenceClassification", "class Other", "cannot be opened without bertlab"),
    ):
        assert before in text
        monkeypatch.setattr(
            export, "modelling_file", lambda before=before, after=after: text.replace(before, after, 1)
        )
        assert run_command(["export", f"run={run.folder}", "to=out"]) == 2
        line = capsys.readouterr().err
        assert said in line and line.count("\n") == 1 and not Path("out").exists(), line
