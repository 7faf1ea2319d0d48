"""The report's page: every block in every form, the same runs to the same bytes, nothing fetched, LaTeX that
compiles.
"""

import csv
import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from runfolders import three_arms, write_run

from bertlab.jobs.report import Schema, compare_runs, parts, runs_csv, write_report
from bertlab.report.comparison import compare
from bertlab.report.figures import curves as curves_module
from bertlab.report.figures import plots
from bertlab.report.figures.curves import curves, over_seeds
from bertlab.report.grouping import studies_of
from bertlab.report.pages.page import (
    Figure,
    Heading,
    Listing,
    Page,
    PageTable,
    Text,
    latex_text,
    to_html,
    to_latex,
    to_markdown,
)
from bertlab.report.pages.provenance import WIDTH, wrapped
from bertlab.runs.folder import RunFolder
from bertlab.runs.records import find_runs, one_run_command, read_run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return three_arms(tmp_path)


def test_all_forms_are_written_and_say_the_same(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out") / "report"
    config = Schema(
        runs=str(root),
        examples=False,
        contamination=False,
        names="baseline -> A_1 & <b>; optimizer.lr=0.002 -> twice",
    )
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
    # nothing is fetched
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page_text) and "<script" not in page_text
    assert r"A\_1 \&" in (out / "report.tex").read_text()
    rows = list(csv.DictReader(io.StringIO(runs_csv(studies))))
    assert len(rows) == 18 and {row["arm"] for row in rows} == {
        "A_1 & <b>",
        "model.positions=rotary",
        "twice",
    }
    assert float(rows[0]["validation/accuracy"]) == pytest.approx(0.8)
    before = {name: (out / name).read_bytes() for name in names}
    write_report(out, compare_runs(config)[2], studies, config, "bertlab report")
    assert {name: (out / name).read_bytes() for name in names} == before  # the same runs, the same bytes


def test_latex_compiles(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    folder = tmp_path_factory.mktemp("tex")
    page = compare_runs(
        Schema(runs=str(root), examples=False, contamination=False, names="baseline -> 100 % & _^~\\ {x} ±")
    )[2]
    (folder / "report.tex").write_text(to_latex(page))
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "report.tex"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_every_block_has_every_form() -> None:
    blocks = [
        Heading("A & B"),
        Text("see `x`"),
        Text("careful", "warning"),
        Listing(["bertlab seed=1"]),
        PageTable(("a", "b|c"), [("1", "2|3")], "cap", frozenset({0})),
        PageTable(("a",), [("1",)], "more", folded=True),
        Figure("f", b"png", "<svg/>", "what it shows"),
    ]
    page = Page("P < Q", blocks)
    markdown, page_text, latex = to_markdown(page), to_html(page), to_latex(page)
    assert "2\\|3" in markdown and "> **Note.** careful" in markdown and "figures/f.png" in markdown
    assert "<code>x</code>" in page_text and "P &lt; Q" in page_text and "<details>" in page_text
    assert r"A \& B" in latex and r"\toprule" in latex


def test_latex_keeps_every_sign() -> None:
    assert (
        latex_text("50 % & a_b ± −1 ≤ {x}\\~^")
        == r"50 \% \& a\_b $\pm$ $-$1 $\leq$ \{x\}\textbackslash{}\textasciitilde{}\textasciicircum{}"
    )


def test_a_sweeps_command_becomes_the_runs_own(tmp_path: Path) -> None:
    run = read_run(RunFolder(write_run(tmp_path, "a", 2, 0.8, optimizer__lr=0.002)))
    assert one_run_command(run) == "bertlab seed=2 optimizer.lr=0.002 'tags=[a]'"
    run.config["budget.patience"] = None
    run.summary["command"] += " budget.patience=null,3"
    assert one_run_command(run).endswith(" budget.patience=null"), "what was swept may have been nothing"
    run.summary["command"] = (
        "bertlab --config-dir my/presets -m search=x experiment=best hydra.sweeper.n_trials=2"
    )
    run.summary["words"] = ["search=x", "experiment=best", "optimizer.lr=0.002"]
    assert one_run_command(run) == "bertlab --config-dir my/presets experiment=best optimizer.lr=0.002"


def test_lists_are_trimmed() -> None:
    assert parts(" a; b;;c ", ";") == ["a", "b", "c"]


def test_curves_are_means_where_every_seed_has_been() -> None:
    histories = [
        [{"epoch": 1, "x": 1.0}, {"epoch": 3, "x": 3.0}, {"epoch": 3, "y": 0.0}],
        [{"epoch": 2, "x": 4.0}, {"epoch": 4, "x": 8.0}],
    ]
    found = over_seeds(histories, "x")
    assert found is not None
    at, values = found
    assert (at[0], at[-1]) == (2, 3) and values[:, 0].tolist() == [2, 4] and values[:, -1].tolist() == [3, 6]
    assert over_seeds(histories, "z") is None and over_seeds([histories[0][:1], histories[1]], "x") is None, (
        "no epoch in common"
    )


def test_times_that_all_seeds_share_are_the_curves_own() -> None:
    histories = [[{"epoch": at, "x": at + seed} for at in (0.5, 1, 3)] for seed in range(2)]
    found = over_seeds(histories, "x")
    assert found is not None and found[0].tolist() == [0.5, 1, 3] and found[1][1].tolist() == [1.5, 2, 4]


@pytest.mark.parametrize(("evaluations", "words"), [(1, "once"), (2, "twice"), (3, "worst to best seed")])
def test_few_evaluations_are_points_with_intervals_and_said_so(
    evaluations: int, words: str, tmp_path: Path
) -> None:
    for seed in range(4):
        folder = write_run(tmp_path, f"a{seed}", seed, 0.8 + 0.01 * seed)
        records = [
            {"step": step, "epoch": step, "validation/accuracy": 0.7 + 0.01 * seed}
            for step in range(1, evaluations + 1)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (study,) = studies_of(find_runs([str(tmp_path)]))
    figure = curves(study)
    assert figure is not None and words in figure.caption
    assert ("too seldom for a curve" in figure.caption) == (evaluations < 3)


def test_no_interval_of_a_figure_leaves_its_metrics_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds far apart near 1: the t interval goes to 160 %."""
    for seed in range(2):
        for name, lr in (("a", 0.1), ("b", 0.2)):
            folder = write_run(tmp_path, f"{name}{seed}", seed, 0.99 - 0.1 * seed, optimizer__lr=lr)
            records = [{"step": 1, "epoch": 1, "validation/accuracy": 0.99 - 0.1 * seed}]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (study,) = studies_of(find_runs([str(tmp_path)]))
    drawn: list[float] = []

    def finish(figure: Any, name: str, caption: str) -> Figure:
        for axes in figure.axes:
            line_ends = [end for line in axes.lines for end in line.get_xdata()] if "curves" in name else []
            bars = [
                bar for bars in axes.collections for segment in bars.get_segments() for bar in segment[:, 1]
            ]
            drawn.extend([*line_ends, *bars])
        return Figure(name, b"", "", caption)

    for module in (plots, curves_module):
        monkeypatch.setattr(module, "finish", finish)
    assert plots.cost(study, compare(study, {})) is not None and curves(study) is not None
    assert max(drawn) == pytest.approx(100) and min(drawn) >= 0


def test_numbers_on_an_axis_of_decades() -> None:
    told = [plots.power_of_ten(number) for number in (0.3, 1.0, 300.0, 3e11, 1e12, 1e-4)]
    assert told[:3] == ["0.3", "1", "300"] and told[3:5] == [r"$3 \times 10^{11}$", r"$1 \times 10^{12}$"]
    assert told[5] == r"$1 \times 10^{-4}$"


def test_a_long_command_is_the_same_over_several_lines() -> None:
    command = shlex.join(["bertlab", *(f"init.objective.key{number}=a b" for number in range(20)), "x" * 200])
    lines = wrapped(command)
    assert all(len(line) <= WIDTH + 2 for line in lines[:-1]) and len(lines) > 4
    told = subprocess.run(
        ["sh", "-c", "printf '%s\\n' " + "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines() == shlex.split(command)
    assert wrapped("bertlab seed=1") == ["bertlab seed=1"]


def test_the_best_of_k_trials_is_of_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that were pruned count by their last score, those without one as the worst, and it says so."""
    scores = [0.7 + 0.01 * place for place in range(12)]
    for place, score in enumerate(scores):
        status = "pruned" if place < 5 else "finished"
        write_run(tmp_path, f"t{place}", 0, score, status=status, optimizer__lr=0.001 * (1 + place))
    failed = write_run(tmp_path, "t-failed", 0, 0.9, status="failed", optimizer__lr=0.1)
    (failed / "metrics.jsonl").write_text("")
    write_run(tmp_path, "t-going-on", 0, 0.9, status="interrupted", optimizer__lr=0.2)
    drawn: list[list[float]] = []
    monkeypatch.setattr(plots, "draw_best_of", lambda _axes, values, _higher: drawn.append(list(values)))
    (study,) = studies_of(find_runs([str(tmp_path)]))
    figure = plots.best_of_k(study)
    assert figure is not None and sorted(drawn[0]) == pytest.approx([70.0, *(100 * one for one in scores)])
    assert "13 trials, 5 stopped early, by their last score, 1 without any score" in figure.caption
    monkeypatch.undo()
    assert "95 % band over trials" in (plots.best_of_k(study) or figure).caption


@pytest.mark.parametrize("metric", ["accuracy", "rmse"])
def test_the_front_is_of_arms_whose_cost_is_known(tmp_path: Path, metric: str) -> None:
    """Cheaper or better than each other; weights from elsewhere are not cheap, they are not on record."""
    arms = {"a": (1e12, 0.70), "b": (2e12, 0.80), "c": (3e12, 0.75), "d": (4e12, 0.90)}
    for name, (flops, score) in {**arms, "theirs": (1e11, 0.95)}.items():
        for seed in range(3):
            value = score + 0.001 * seed if metric == "accuracy" else 1 - score + 0.001 * seed
            run = write_run(tmp_path, f"{name}-{seed}", seed, value, metric=metric, model__name_or_path=name,
                init__component="pretrained" if name == "theirs" else "scratch")  # fmt: skip
            summary = json.loads((run / "summary.json").read_text())
            summary["cost"] |= {"flops": flops, "seconds": flops / 1e10}
            (run / "summary.json").write_text(json.dumps(summary))
    (study,) = studies_of(find_runs([str(tmp_path)]))
    rows = compare(study, {})
    costs = [row.cost.flops for row in rows]
    front = plots.cost_front(rows, costs, study.metric.higher_is_better)
    assert [costs[place] for place in front] == [1e12, 2e12, 4e12]
    figure = plots.cost(study, rows)
    assert figure is not None and "hollow" in figure.caption and "front" in figure.caption
