"""Every example of CONTRIBUTING.md, as it stands there, used from a folder of the user's own."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from children import finish

pytestmark = pytest.mark.slow

GUIDE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
SMALL = ["budget.steps=3", "compute=cpu", "compute.threads=1", "model=bert_tiny"]


def examples() -> dict[str, str]:
    """File -> content: each heading names the files of the blocks below it, in order."""
    files: dict[str, str] = {}
    for section in re.split(r"^### ", GUIDE, flags=re.MULTILINE)[1:]:
        names = re.findall(r"`([\w/]+\.(?:py|yaml))`", section.partition("\n")[0])
        blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", section, flags=re.DOTALL)
        files |= dict(zip(names, blocks, strict=True))
    return files


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in examples().items():
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    rows = "".join(
        f"the printer {word} {index},{queue},{index} %\n"
        for index in range(20)
        for word, queue in (("burns", "fire"), ("sings", "music"))
    )
    Path("tickets.csv").write_text("body,queue,urgency\n" + rows)
    monkeypatch.setenv("BERTLAB_PLUGINS", str(tmp_path / "mine"))


def test_there_is_one_of_each_and_none_is_long() -> None:
    assert sorted({Path(name).parts[0] for name in examples()}) == [
        "conf",
        "kinds",
        "models",
        "objectives",
        "optimizers",
        "trackers",
    ]
    assert all(len(content.splitlines()) <= 36 for content in examples().values())


@pytest.mark.parametrize(
    "words",
    [
        ["dataset=tickets"],
        ["dataset=tickets", "objective=focal", "objective.gamma=1"],
        ["dataset=tickets", "objective=worst"],
        ["dataset=tickets", "model=bag", "model.pooling=mean"],
        ["dataset=tickets", "optimizer=sign"],
        ["dataset=tickets", "tracker=lines"],
        ["dataset=tickets", "objective=urgent"],
        ["suite=desk/urgent"],
    ],
    ids=lambda words: " ".join(words),
)
def test_an_example_trains(cli: Any, words: list[str]) -> None:
    given = [
        word
        for word in SMALL
        if not (word.startswith("model=") and any(other.startswith("model=") for other in words))
    ]
    status, out, err = cli(*given, *words)
    assert status == 0, err
    folder = Path(out.splitlines()[-1].removeprefix("run: "))
    summary = json.loads((folder / "summary.json").read_text())
    if "objective=worst" in words:
        assert summary["selected_by"] == "validation/worst_recall"
    if "tracker=lines" in words:
        assert "train/loss=" in (folder / "lines.txt").read_text()


def test_what_a_model_does_not_declare_is_refused_in_one_line(cli: Any) -> None:
    for words, lacking in (
        (["finetune.freeze_layers=1"], "layers that it tells apart"),
        (["finetune.layer_lr_decay=0.8"], "layers that it tells apart"),
        (["finetune.reinit_layers=1"], "layers that can be drawn anew"),
        (["objective=rtd"], "a narrower copy of itself"),
        (["init=pretrained", "init.path=."], "no config.json"),
    ):
        status, _, err = cli(
            "budget.steps=3",
            "dataset=tickets",
            "model=bag",
            "model.pooling=mean",
            "compute.threads=1",
            *words,
        )
        assert status == 2 and lacking in err and err.count("\n") == 1, err


def test_a_cell_that_is_not_of_its_kind_is_named(cli: Any) -> None:
    Path("tickets.csv").write_text("body,queue,urgency\na,b,1 %\nc,d,much\n")
    status, _, err = cli(*SMALL, "dataset=tickets", "objective=urgent")
    assert (
        status == 2
        and "row 2 holds 'much', no share in %, in column 'urgency' (dataset.columns.urgency)" in err
    )


def test_an_edited_kind_is_a_new_run(tmp_path: Path) -> None:
    """With its rows read and its examples made anew, in the run's id and in every cache."""
    words = [*SMALL, "dataset=tickets", "objective=urgent", "seed=1"]
    finish(*words)
    assert "finished already" in finish(*words)
    file = tmp_path / "mine" / "kinds" / "percent.py"
    file.write_text(file.read_text().replace("/ 100", "/ 50"))
    assert "finished already" not in finish(*words)
    assert len(list(Path("multirun").iterdir())) == 2


def test_a_role_without_a_column_is_told_the_key_that_there_is(cli: Any) -> None:
    own = ["dataset=files", "dataset.train_file=tickets.csv", "dataset.text_column=body"]
    status, _, err = cli(*SMALL, *own, "dataset.label_column=queue", "objective=urgent")
    assert status == 2 and "dataset.columns.urgency=…" in err and err.count("\n") == 1, err
