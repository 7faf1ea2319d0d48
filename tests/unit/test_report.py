"""What a report promises: arms by what varies, pairs by seed, words that say no more than the data, nothing dropped without a word."""

import csv
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from runfolders import write_run

from bertlab.config.composition import compose_schema
from bertlab.errors import ConfigError, RunError
from bertlab.jobs.report import Schema, compare_runs, parts, runs_csv, write_report
from bertlab.report.arms import studies_of, varying_keys
from bertlab.report.build import study_blocks
from bertlab.report.comparison import compare, verdict, warnings_of
from bertlab.report.contamination import check_contamination
from bertlab.report.figures import _over_seeds
from bertlab.report.page import Figure, Heading, Listing, Page, Table, Text, latex_text, to_html, to_latex, to_markdown
from bertlab.report.provenance import one_run_command
from bertlab.report.records import find_runs, read_run
from bertlab.report.stats import paired


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three arms of six seeds: the baseline, one that is better on every seed, one that is not different; one run without a result."""
    for seed in range(6):
        write_run(tmp_path, f"toy-classification-a{seed}", seed, 0.80 + 0.01 * (seed % 3), 0.78)
        write_run(tmp_path, f"toy-classification-b{seed}", seed, 0.84 + 0.01 * (seed % 2), 0.81, model__positions="rotary")
        write_run(tmp_path, f"toy-classification-c{seed}", seed, 0.80 + 0.01 * ((seed + 1) % 3), 0.78, optimizer__lr=0.002)
    write_run(tmp_path, "toy-classification-d0", 0, 0.0, status="interrupted")
    return tmp_path


def test_arms_are_what_varies_but_for_seeds_and_speed(root: Path) -> None:
    (study,) = studies_of(find_runs([str(root)]))
    assert study.keys == ["model.positions", "optimizer.lr"] or set(study.keys) == {"model.positions", "optimizer.lr"}
    assert [arm.name for arm in study.arms] == ["baseline", "model.positions=rotary", "optimizer.lr=0.002"]
    assert all(sorted(arm.runs) == list(range(6)) for arm in study.arms)


def test_keys_that_follow_from_others_are_left_out(tmp_path: Path) -> None:
    stage = {"init__component": "stage", "init__objective": {"component": "mlm", "rate": 0.2}, "tokenizer__component": "inherited"}
    write_run(tmp_path, "a", 0, 0.8, tokenizer__component="wordpiece")
    write_run(tmp_path, "b", 0, 0.8, stage="p", **stage)
    write_run(tmp_path, "c", 0, 0.8, stage="q", **{**stage, "init__objective": {"component": "mlm", "rate": 0.4}})
    runs = find_runs([str(tmp_path)])
    assert varying_keys(runs) == ["init.component", "init.objective.rate"]
    (study,) = studies_of(runs, baseline="init=stage init.objective.rate=0.2")
    assert {arm.name for arm in study.arms} == {"baseline", "init=scratch", "init.objective.rate=0.4"}


def test_the_better_arm_is_called_better_and_the_other_is_not(root: Path) -> None:
    (study,) = studies_of(find_runs([str(root)]))
    rows = {row.arm.name: row for row in compare(study, {})}
    better, same = rows["model.positions=rotary"], rows["optimizer.lr=0.002"]
    assert better.difference is not None and better.difference.p == 2 / 2**6 and better.p_holm == pytest.approx(4 / 2**6)
    assert better.verdict.startswith("not distinguishable at 6 seeds (7 are the fewest")  # two tests: six seeds cannot reach 0.025
    assert same.verdict.startswith("not distinguishable") and same.difference is not None and abs(same.difference.mean) < 1e-9
    (alone,) = studies_of([run for run in find_runs([str(root)]) if "classification-c" not in run.name])
    assert compare(alone, {})[1].verdict == "better"


def test_one_arm_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, f"toy-classification-a{seed}", seed, 0.80 + 0.01 * seed, 0.78)
    (study,) = studies_of(find_runs([str(tmp_path)]))
    text = to_markdown(Page("t", study_blocks(study, compare(study, {}))))
    assert study.sizes == "1 arm, 2 runs" and "| all runs | 2 | 80.50 ± 0.71 |" in text.replace("**", "")
    assert not re.search("baseline|difference|Holm|verdict|one test", text, re.IGNORECASE)
    assert "| arm | loss |" in text and "| all runs | 0.195 ± 0.007 |" in text  # what else was scored


def test_lower_is_better_for_a_loss() -> None:
    found = paired([0.1] * 8)
    assert verdict(found, found.p, 1, "loss") == "worse" and verdict(found, found.p, 1, "accuracy") == "better"
    assert verdict(paired([]), math.nan, 1, "accuracy").startswith("no seed in common")
    assert "one seed" in verdict(paired([0.1]), 1.0, 1, "accuracy")


def test_tokenizers_that_differ_are_compared_per_character(tmp_path: Path) -> None:
    """A loss per token is in another unit for every vocabulary: the arm with the lower loss is the worse one here."""
    for size, loss, bits in ((8000, 4.2, 2.0), (16000, 4.6, 1.9)):
        for seed in range(2):
            folder = write_run(tmp_path, f"mlm-{size}-{seed}", seed, 1 - loss - seed / 10, metric="loss", tokenizer__vocab_size=size)
            summary = json.loads((folder / "summary.json").read_text())
            summary["metrics"]["validation/bits_per_character"] = bits + seed / 100
            (folder / "summary.json").write_text(json.dumps(summary))
    runs = find_runs([str(tmp_path)])
    (study,) = studies_of(runs)
    difference = compare(study, {})[1 - study.arms.index(study.baseline)].difference
    assert study.metric == "bits_per_character" and difference is not None and abs(difference.mean) == pytest.approx(0.1)
    told = next(words for words in warnings_of(study) if words.startswith("Tokenizers differ"))
    assert "loss are not comparable" in told and "metric=" not in told
    (as_wished,) = studies_of(runs, metric="loss")
    assert as_wished.metric == "loss" and any("metric=bits_per_character" in words for words in warnings_of(as_wished))
    alone = studies_of([run for run in runs if "8000" in run.name])[0]
    assert alone.metric == "loss" and not any("Tokenizers" in words for words in warnings_of(alone))


def test_a_pretraining_that_others_began_from_is_no_arm_and_its_cost_is_counted(tmp_path: Path) -> None:
    write_run(tmp_path, "toy-mlm-p", 0, 0.5, metric="loss", objective__component="mlm")
    for seed in range(2):
        write_run(tmp_path, f"ft{seed}", seed, 0.8, stage="toy-mlm-p", init__component="stage")
        write_run(tmp_path, f"scratch{seed}", seed, 0.7)
    runs = find_runs([str(tmp_path)])
    (study,) = studies_of(runs)
    costs = {row.arm.name: row.cost for row in compare(study, {run.name: run for run in runs})}
    assert sum(cost.pretraining_tokens for cost in costs.values()) == 20_000_000


def test_what_a_reader_must_know_is_said(root: Path) -> None:
    (root / "toy-classification-b1" / "identity.json").write_text('{"code": {"loop": "2"}}')
    (root / "toy-classification-b2" / "environment.json").write_text('{"git": {"revision": "abc", "dirty": true}, "processor": "Q"}')
    write_run(root, "toy-classification-again", 0, 0.9, evaluation__batch_size=64)
    (study,) = studies_of(find_runs([str(root)]))
    words = " ".join(warnings_of(study))
    for expected in ("different versions of loop", "uncommitted changes, e.g. toy-classification-b2", "different machines", "Left out"):
        assert expected in words


def test_damaged_and_unfinished_runs_are_named(root: Path) -> None:
    for name, file, content in (
        ("b0", "summary.json", "{"),
        ("b1", "config.yaml", "- a\n- b"),
        ("b2", "summary.json", '{"status": "finished"}'),
    ):
        (root / f"toy-classification-{name}" / file).write_text(content)
    (root / "toy-classification-b3" / "config.yaml").unlink()
    problems = {run.name[-2:]: run.problem for run in find_runs([str(root)]) if run.problem}
    assert set(problems) == {"b0", "b1", "b2", "b3", "d0"} and problems["d0"] == "interrupted"
    assert all(problem.startswith("damaged") for name, problem in problems.items() if name != "d0")
    page = compare_runs(Schema(runs=str(root), examples=False, contamination=False))[2]
    listed = next(block for block in page.blocks if isinstance(block, Table) and "without a result" in block.caption)
    assert {row[0][-2:] for row in listed.rows} == set(problems)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "acuracy"}, "did you mean 'accuracy'"),
        ({"baseline": "model.positions=rotry"}, "did you mean 'model.positions=rotary'"),
        ({"where": "optimizer.lrr=1"}, "did you mean 'optimizer.lr'"),
        ({"group_by": "model.position"}, "did you mean 'model.positions'"),
        ({"names": "rotary -> R"}, "no arm is called 'rotary'"),
        ({"order": "nothing"}, "no arm is called 'nothing'"),
        ({"where": "optimizer.lr=7"}, "none of the 0 runs"),
    ],
)
def test_what_is_not_there_is_refused(root: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises((ConfigError, RunError), match=re.escape(words)):
        compare_runs(Schema(runs=str(root), examples=False, contamination=False, **options))


def test_folders_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder"):
        find_runs([str(tmp_path)])
    with pytest.raises(RunError, match="no such folder"):
        find_runs([str(tmp_path / "nothing")])


def test_all_forms_are_written_and_say_the_same(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out") / "report"
    config = Schema(runs=str(root), examples=False, contamination=False, names="baseline -> A_1 & <b>; optimizer.lr=0.002 -> twice")
    _, studies, page = compare_runs(config)
    write_report(out, page, studies, config, "bertlab report")
    names = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    assert {"report.md", "report.html", "report.tex", "runs.csv", "report.json"} < names and any(
        name.endswith("curves.png") for name in names
    )
    for form in ("report.md", "report.html", "report.tex"):
        assert "81.00 ±" in (out / form).read_text() or r"81.00 $\pm$" in (out / form).read_text()
    page_text = (out / "report.html").read_text()
    assert "A_1 &amp; &lt;b&gt;" in page_text and "<b>" not in page_text
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page_text) and "<script" not in page_text  # nothing is fetched
    assert r"A\_1 \&" in (out / "report.tex").read_text()
    rows = list(csv.DictReader(io.StringIO(runs_csv(studies))))
    assert len(rows) == 18 and {row["arm"] for row in rows} == {"A_1 & <b>", "model.positions=rotary", "twice"}
    assert float(rows[0]["validation/accuracy"]) == pytest.approx(0.8)
    before = {name: (out / name).read_bytes() for name in names}
    write_report(out, compare_runs(config)[2], studies, config, "bertlab report")
    assert {name: (out / name).read_bytes() for name in names} == before  # the same runs, the same bytes


def test_latex_compiles(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    folder = tmp_path_factory.mktemp("tex")
    page = compare_runs(Schema(runs=str(root), examples=False, contamination=False, names="baseline -> 100 % & _^~\\ {x} ±"))[2]
    (folder / "report.tex").write_text(to_latex(page))
    done = subprocess.run(["pdflatex", "-halt-on-error", "report.tex"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_every_block_has_every_form() -> None:
    blocks = [
        Heading("A & B"),
        Text("see `x`"),
        Text("careful", "warning"),
        Listing(["bertlab seed=1"]),
        Table(("a", "b|c"), [("1", "2|3")], "cap", frozenset({0})),
        Table(("a",), [("1",)], "more", folded=True),
        Figure("f", b"png", "<svg/>", "what it shows"),
    ]
    page = Page("P < Q", blocks)
    markdown, page_text, latex = to_markdown(page), to_html(page), to_latex(page)
    assert "2\\|3" in markdown and "> **Note.** careful" in markdown and "figures/f.png" in markdown
    assert "<code>x</code>" in page_text and "P &lt; Q" in page_text and "<details>" in page_text
    assert r"A \& B" in latex and r"\toprule" in latex


def test_latex_keeps_every_sign() -> None:
    assert latex_text("50 % & a_b ± −1 ≤ {x}\\~^") == (
        r"50 \% \& a\_b $\pm$ $-$1 $\leq$ \{x\}\textbackslash{}\textasciitilde{}\textasciicircum{}"
    )


def test_a_sweeps_command_becomes_the_runs_own(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, "a", 2, 0.8, optimizer__lr=0.002))
    assert one_run_command(run) == "bertlab seed=2 optimizer.lr=0.002 'tags=[a]'"


def test_lists_are_trimmed() -> None:
    assert parts(" a; b;;c ", ";") == ["a", "b", "c"]


# --- contamination --------------------------------------------------------------------------------------------------------------
def test_texts_are_found_whole_inside_and_nearly() -> None:
    evaluated = [
        "It is n't a bad film at all .",  # whole, in another spelling
        "the acting is superb from start to finish",  # inside a longer one
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen",  # near: the last word differs
        "nobody has ever written this sentence before today",
        "very bad",  # a stock phrase: inside longer texts it means nothing
    ]
    trained = [
        "it isn't a bad film at all.",
        "I say the acting is superb, from start to finish, and more.",
        "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen seventeen",
        "this is very bad indeed",
    ]
    found = check_contamination("validation", "training", evaluated, trained)
    assert found.whole.tolist() == [True, False, False, False, False]
    assert found.inside.tolist() == [False, True, False, False, False]
    assert found.near.tolist() == [False, False, True, False, False]
    assert found.short.tolist() == [False, False, False, False, True]
    assert found.seen.sum() == 3


def test_the_known_overlap_of_sst2_and_rotten_tomatoes_is_found(shared_data: Path) -> None:
    """Known from a comparison made independently: 731 whole, 855 together; how short a text inside another counted there is not known."""
    import pandas

    evaluated = pandas.read_parquet(shared_data / "sst2/validation.parquet")["sentence"].tolist()
    trained = pandas.read_parquet(shared_data / "rotten_tomatoes/train.parquet")["text"].tolist()
    found = check_contamination("validation", "rotten_tomatoes", evaluated, trained)
    assert found.whole.sum() == 731 and found.seen.sum() == 851 and found.short.sum() == 18
    clean = check_contamination(
        "validation", "sst2", evaluated, pandas.read_parquet(shared_data / "sst2/train.parquet")["sentence"].tolist()
    )
    assert clean.whole.sum() == 2 and clean.seen.sum() <= 4


def test_the_study_of_scratch_against_pretrained_names_its_arms(tmp_path: Path) -> None:
    """Arms by model and first weights alone, though learning rates differ; those that are not there are not missed."""
    for seed in (0, 1):
        write_run(tmp_path, f"a{seed}", seed, 0.80, optimizer__lr=3e-4)
        write_run(tmp_path, f"b{seed}", seed, 0.86, init__component="stage", optimizer__lr=3e-4)
        write_run(tmp_path, f"c{seed}", seed, 0.90, model__component="hf", init__component="pretrained", optimizer__lr=5e-5)
    config = compose_schema("report", ["study=scratch_vs_pretrained", f"runs={tmp_path}", "examples=false", "contamination=false"])
    assert isinstance(config, Schema)
    (study,) = compare_runs(config)[1]
    assert [arm.name for arm in study.arms] == ["from scratch", "Hugging Face, pretrained", "after in-domain pretraining"]
    assert study.baseline.name == "from scratch" and config.title == "From scratch against pretrained"
    assert [len(arm.runs) for arm in study.arms] == [2, 2, 2]


def test_curves_are_means_where_every_seed_has_been() -> None:
    histories = [[{"epoch": 1, "x": 1.0}, {"epoch": 3, "x": 3.0}, {"epoch": 3, "y": 0.0}], [{"epoch": 2, "x": 4.0}, {"epoch": 4, "x": 8.0}]]
    found = _over_seeds(histories, "x")
    assert found is not None
    at, values = found
    assert (at[0], at[-1]) == (2, 3) and values[:, 0].tolist() == [2, 4] and values[:, -1].tolist() == [3, 6]
    assert _over_seeds(histories, "z") is None and _over_seeds([histories[0][:1], histories[1]], "x") is None, "no epoch in common"
