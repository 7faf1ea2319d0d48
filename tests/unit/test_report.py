"""What a report promises: arms by what varies, pairs by seed, words that say no more than the data, nothing
dropped without a word.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from runfolders import METRICS, PER_TOKEN, change_summary, three_arms, write_run

from bertlab.config.composition import compose_schema
from bertlab.declarations import Metric
from bertlab.errors import ConfigError, RunError
from bertlab.jobs.report import Schema, compare_runs
from bertlab.report.caveats import warnings_of
from bertlab.report.comparison import Versus, compare, found, verdict
from bertlab.report.grouping import studies_of
from bertlab.report.pages.build import study_blocks
from bertlab.report.pages.page import Page, PageTable, to_markdown
from bertlab.report.pages.tables import difference_cells
from bertlab.report.settings import varying_keys
from bertlab.report.stats import SIGN_FLIP, paired
from bertlab.runs.records import find_runs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return three_arms(tmp_path)


def test_arms_are_what_varies_but_for_seeds_and_speed(root: Path) -> None:
    (study,) = studies_of(find_runs([str(root)]))
    assert set(study.keys) == {"model.positions", "optimizer.lr"}
    assert [arm.name for arm in study.arms] == [
        "model.positions=learned optimizer.lr=0.001 (baseline)",
        "model.positions=rotary",
        "optimizer.lr=0.002",
    ]
    assert all([seeds.inner for seeds in sorted(arm.runs)] == list(range(6)) for arm in study.arms)


def test_the_baseline_is_meant_by_that_word_by_its_settings_and_by_its_new_name(root: Path) -> None:
    def arms(**options: Any) -> list[str]:
        (study,) = studies_of(find_runs([str(root)]), **options)
        assert study.baseline.name == study.arms[0].name or options.get("order")
        return [arm.name for arm in study.arms]

    for words in ("baseline", "optimizer.lr=0.001 model.positions=learned"):
        assert arms(names={words: "plain"})[0] == "plain"
    assert arms(order=["optimizer.lr=0.002", "baseline"])[1].endswith("(baseline)")
    turned = arms(baseline="turned", names={"model.positions=rotary": "turned"})
    assert turned == ["turned", "model.positions=learned", "model.positions=learned optimizer.lr=0.002"]
    (one, *others) = arms(baseline="optimizer.lr=0.002")
    assert one == "model.positions=learned optimizer.lr=0.002 (baseline)" and "baseline" not in " ".join(
        others
    )


def test_a_baseline_of_many_settings_is_called_so(tmp_path: Path) -> None:
    keys = ("optimizer__lr", "budget__epochs", "objective__max_length", "tokenizer__vocab_size")
    for seed in range(2):
        write_run(tmp_path, f"a{seed}", seed, 0.8)
        for key in keys:
            write_run(tmp_path, f"{key}{seed}", seed, 0.8, **{key: 7})
    (study,) = studies_of(find_runs([str(tmp_path)]))
    assert study.baseline.name == "baseline" and len(study.arms) == 5


def test_keys_that_follow_from_others_are_left_out(tmp_path: Path) -> None:
    stage = {
        "init__component": "stage",
        "init__objective": {"component": "mlm", "rate": 0.2},
        "tokenizer__component": "inherited",
    }
    write_run(tmp_path, "a", 0, 0.8, tokenizer__component="wordpiece")
    write_run(tmp_path, "b", 0, 0.8, stage="p", **stage)
    write_run(
        tmp_path, "c", 0, 0.8, stage="q", **{**stage, "init__objective": {"component": "mlm", "rate": 0.4}}
    )
    runs = find_runs([str(tmp_path)])
    assert varying_keys(runs) == ["init.component", "init.objective.rate"]
    (study,) = studies_of(runs, baseline="init=stage init.objective.rate=0.2")
    assert {arm.name for arm in study.arms} == {
        "init=stage init.objective.rate=0.2 (baseline)",
        "init=scratch",
        "init.objective.rate=0.4",
    }


def test_what_came_later_or_changes_no_result_sets_no_runs_apart(tmp_path: Path) -> None:
    """A run from before a key was there has its default; how fast a pretraining was scored is nobody's
    affair.
    """
    stage = {"init__component": "stage", "init__objective": {"component": "mlm", "rate": 0.2}}
    write_run(tmp_path, "a", 0, 0.8, stage="p", **stage)
    later = {
        "evaluation__snapshots": [],
        "evaluation__pairs_scoring": "token",
        "model__qk_norm": "none",
        "optimizer__skip_spikes": None,
        "dataset__folds": None,
        "tokenizer__max_unknown_share": 0.7,
        "init__evaluation": {"batch_size": 64, "save_predictions": False},
    }
    write_run(tmp_path, "b", 1, 0.8, stage="p", **stage, **later)
    (study,) = studies_of(find_runs([str(tmp_path)]))
    assert study.keys == [] and len(study.arms) == 1
    write_run(tmp_path, "c", 0, 0.8, stage="p", **stage, **{**later, "model__qk_norm": "rms"})
    assert varying_keys(find_runs([str(tmp_path)])) == ["model.qk_norm"]
    (study,) = studies_of(find_runs([str(tmp_path)]))
    assert [len(arm.runs) for arm in study.arms] == [2, 1]


def test_the_better_arm_is_called_better_and_the_other_is_not(root: Path) -> None:
    (study,) = studies_of(find_runs([str(root)]))
    rows = {row.arm.name: row for row in compare(study, {})}
    better, same = rows["model.positions=rotary"], rows["optimizer.lr=0.002"]
    for row in (better, same):  # two tests: six seeds cannot reach 0.025
        assert (
            row.on_validation is not None
            and row.on_validation.verdict == "undecided: this test needs 7 seeds or more, it had 6"
        )
    assert better.on_validation is not None and better.on_validation.difference.p == 2 / 2**6
    assert same.on_validation is not None and abs(same.on_validation.difference.mean) < 1e-9
    (alone,) = studies_of([run for run in find_runs([str(root)]) if "classification-c" not in run.name])
    versus = compare(alone, {})[1].on_validation
    assert versus is not None and versus.verdict == "better" and versus.p == 2 / 2**6


def test_where_nothing_is_excluded_yet_no_interval_is_told(root: Path) -> None:
    """Of a sequential test with three seeds, which could be anything."""
    (study,) = studies_of([run for run in find_runs([str(root)]) if run.seed < 3])
    rows = [row for row in compare(study, {}, "anytime") if not row.is_baseline]
    assert rows and all(
        row.on_validation is not None and math.isinf(row.on_validation.difference.high) for row in rows
    )
    told = [difference_cells(row.on_validation, study.metric)[0] for row in rows]
    assert all(re.fullmatch(r"[+−]\d+\.\d\d", cell) for cell in told), told


def test_one_arm_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, f"toy-classification-a{seed}", seed, 0.80 + 0.01 * seed, 0.78)
    (study,) = studies_of(find_runs([str(tmp_path)]))
    text = to_markdown(Page("t", study_blocks(study, compare(study, {}))))
    assert study.sizes == "1 arm, 2 runs" and "| all runs | 2 | 80.50 ± 0.71 |" in text.replace("**", "")
    assert not re.search("baseline|difference|Holm|verdict|one test", text, re.IGNORECASE)
    # what else was scored
    assert "| arm | loss (nats per example) |" in text and "| all runs | 0.195 ± 0.007 |" in text


def test_a_verdict_goes_by_the_metrics_own_direction() -> None:
    def said(differences: list[float], metric: Metric) -> str:
        of = paired(differences)
        decided = found(of, of.p, metric)
        return verdict(Versus(of, 1, of.p, decided, "", SIGN_FLIP, False), 0.95, metric)

    loss, accuracy = METRICS["loss"], METRICS["accuracy"]
    assert said([0.1] * 8, loss) == "worse" and said([0.1] * 8, accuracy) == "better"
    assert said([], accuracy).startswith("no seed in common") and "one seed" in said([0.1], accuracy)


def test_the_lower_arm_is_better_where_the_runs_say_so(tmp_path: Path) -> None:
    """The direction is what summary.json says, not what a name sounds like: an error in the files' own unit,
    and a score turned round.
    """
    turned = Metric("my_score", higher_is_better=False, unit="points", bounds=(None, None))
    for metric in (METRICS["rmse"], turned):
        root = tmp_path / metric.name
        for seed in range(6):
            write_run(root, f"a{seed}", seed, 2.0 + 0.01 * seed, 2.1, metric=metric)
            write_run(root, f"b{seed}", seed, 1.5 + 0.02 * seed, 1.6, metric=metric, optimizer__lr=0.002)
        _, (study,), page = compare_runs(
            Schema(runs=str(root), examples=False, contamination=False, baseline="optimizer.lr=0.001")
        )
        (row,) = [row for row in compare(study, {}) if not row.is_baseline]
        versus = row.on_validation
        assert (
            study.metric == metric
            and versus is not None
            and versus.verdict == "better"
            and versus.difference.mean < 0
        )
        text = to_markdown(page)
        assert (
            "lower is better" in text
            and f"{metric.name}" in text
            and "Better: “optimizer.lr=0.002” (−0.475" in text
        )


def test_an_arm_that_learnt_nothing_is_told(root: Path) -> None:
    for number, folder in enumerate(sorted(root.glob("toy-classification-a*"))[:3]):
        rows = {"train": {"rows": 9, "commonest": "yes"}, "validation": {"rows": 1000}}
        change_summary(folder, rows=rows, blind={"validation": {"accuracy": 0.95 - 0.01 * number}})
    (study,) = studies_of(find_runs([str(root)]))
    told = " ".join(warnings_of(study))
    assert "3 of 6 runs learnt nothing that shows beyond chance" in told and told.count("learnt nothing") == 1


def test_scores_on_minimal_pairs_can_be_what_is_compared(tmp_path: Path) -> None:
    """They are of no split of the data: pairs decide, though validation says the opposite."""
    pairs = Metric("pairs/accuracy", higher_is_better=True)
    for seed in range(7):
        for name, lr, score, on_pairs in (("a", 0.1, 0.9, 0.60), ("b", 0.2, 0.8, 0.65)):
            folder = write_run(tmp_path, f"{name}{seed}", seed, score + 0.001 * seed, optimizer__lr=lr)
            file = folder / "summary.json"
            summary = json.loads(file.read_text())
            summary["metrics"][pairs.name] = on_pairs + 0.002 * seed
            summary["metric_specs"][pairs.name] = pairs.record()
            file.write_text(json.dumps(summary))
    _, studies, page = compare_runs(
        Schema(
            runs=str(tmp_path),
            metric=pairs.name,
            baseline="optimizer.lr=0.1",
            examples=False,
            contamination=False,
        )
    )
    text = to_markdown(page)
    (study,) = studies
    base, other = compare(study, {})
    assert base.validation is not None and base.validation.mean == pytest.approx(0.606)
    assert other.on_validation is not None and other.on_validation.verdict == "better" and other.test is None
    assert "pairs/accuracy of the selected checkpoints" in text and "65.60 ±" in text
    assert "Pairs/accuracy, seed by seed" in text and "reaches 60.60 ± 0.43 in pairs/accuracy" in text
    scores, *_ = text.partition("Other scores on validation")
    assert "alidation" not in scores and "no test split" not in text, "they are of no split"
    assert "pairs/accuracy" in to_markdown(
        compare_runs(Schema(runs=str(tmp_path), examples=False, contamination=False))[2]
    ), "beside the score that selected"


def test_the_data_of_each_arm_are_told_and_what_was_left_out(root: Path) -> None:
    rows = {
        "train": {"rows": 354, "empty": 9, "copies": 4, "conflicting": 6},
        "validation": {"rows": 43, "empty": 0, "copies": 0, "conflicting": 2, "in_train": 0},
    }
    left_out = {"reviews.csv": {"read": 411, "without an answer": 14}}

    def text() -> str:
        _, _, page = compare_runs(Schema(runs=str(root), examples=False, contamination=False))
        return to_markdown(page)

    for folder in root.glob("toy-*"):
        change_summary(folder, rows=rows, left_out=left_out)
    told = text()
    assert "| all arms | train | 354 | 9 | 4 | 6 |" in told and "| all arms | validation | 43 | 0 |" in told
    assert "stand in train" not in told, "what occurs nowhere takes no column"
    assert "Of 411 rows of reviews.csv 14 without an answer were left out." in told
    methods = told.partition("## Methods")[2]
    assert "(of 411 rows of reviews.csv 14 without an answer were left out)" in methods
    for folder in root.glob("toy-classification-b*"):
        change_summary(folder, left_out={"reviews.csv": {"read": 411}}, rows={**rows, "train": {"rows": 368}})
    told = text()
    assert "“optimizer.lr=0.002”: of 411 rows of reviews.csv 14 without an answer were left out." in told
    assert "| model.positions=rotary | train | 368 |" in told
    for folder in root.glob("toy-classification-b*"):
        change_summary(folder, left_out=None)
    assert "Of 6 runs of an earlier version it is not on record whether rows were left out" in text()


def test_runs_that_mean_different_things_by_a_name_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0, 2.0, metric="rmse")
    write_run(
        tmp_path, "b", 1, 2.0, metric=Metric("rmse", higher_is_better=True, unit="", bounds=(0.0, None))
    )
    with pytest.raises(ConfigError, match=r"metric=rmse: \w means something else"):
        studies_of(find_runs([str(tmp_path)]))


def test_a_run_of_an_earlier_version_is_listed_with_a_line(root: Path) -> None:
    change_summary(root / "toy-classification-a1", metric_specs=None)
    change_summary(root / "toy-classification-a2", metric_specs={"validation/accuracy": {"unit": "fraction"}})
    _, (study,), page = compare_runs(Schema(runs=str(root), examples=False, contamination=False))
    assert [seeds.inner for seeds in sorted(study.baseline.runs)] == [0, 3, 4, 5]
    listed = next(
        block for block in page.blocks if isinstance(block, PageTable) and "without a result" in block.caption
    )
    told = {row[0]: row[1] for row in listed.rows}
    assert (
        "made by an earlier version" in told["toy-classification-a1"]
        and "\n" not in told["toy-classification-a1"]
    )
    assert told["toy-classification-a2"].startswith("damaged: metric_specs")


def test_tokenizers_that_differ_are_compared_per_character(tmp_path: Path) -> None:
    """A loss per token is in another unit for every vocabulary: the arm with the lower loss is the worse one
    here.
    """
    for size, loss, bits in ((8000, 4.2, 2.0), (16000, 4.6, 1.9)):
        for seed in range(2):
            write_run(tmp_path, f"mlm-{size}-{seed}", seed, loss + seed / 10, metric=PER_TOKEN,
                tokenizer__vocab_size=size,
                      others={"bits_per_character": bits + seed / 100})  # fmt: skip
    runs = find_runs([str(tmp_path)])
    (study,) = studies_of(runs)
    versus = compare(study, {})[1 - study.arms.index(study.baseline)].on_validation
    assert (
        study.metric.name == "bits_per_character"
        and versus is not None
        and abs(versus.difference.mean) == pytest.approx(0.1)
    )
    told = next(words for words in warnings_of(study) if words.startswith("Tokenizers differ"))
    assert "loss are not comparable" in told and "metric=" not in told
    (as_wished,) = studies_of(runs, metric="loss")
    assert as_wished.metric == PER_TOKEN and any(
        "metric=bits_per_character" in words for words in warnings_of(as_wished)
    )
    alone = studies_of([run for run in runs if "8000" in run.name])[0]
    assert alone.metric == PER_TOKEN and not any("Tokenizers" in words for words in warnings_of(alone))


def test_what_else_sets_arms_apart_is_named(tmp_path: Path) -> None:
    """First weights bring their own tokenizer and size: a difference may be theirs."""
    for seed in range(2):
        write_run(tmp_path, f"a{seed}", seed, 0.8)
        other = write_run(
            tmp_path,
            f"b{seed}",
            seed,
            0.9,
            init__component="pretrained",
            init__path="minilm",
            tokenizer__component="inherited",
        )
        cost = json.loads((other / "summary.json").read_text())["cost"]
        change_summary(other, cost={**cost, "parameters": 22_700_000})
    _, (study,), page = compare_runs(Schema(runs=str(tmp_path), examples=False, contamination=False))
    assert study.keys == ["init.component"]
    (told,) = [words for words in warnings_of(study) if words.startswith("Beside what they are grouped by")]
    assert "tokenizer (" in told and "wordpiece" in told and "inherited: minilm" in told
    assert "parameters (" in told and "4.0 M" in told and "22.7 M" in told
    apart = next(
        block
        for block in page.blocks
        if isinstance(block, PageTable) and block.caption.startswith("What sets the arms apart")
    )
    assert {"init", "tokenizer", "parameters"} <= {row[0] for row in apart.rows}


def test_arms_named_for_their_tokenizers_are_told_of_their_sizes(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, f"a{seed}", seed, 0.8)
        other = write_run(tmp_path, f"b{seed}", seed, 0.9, tokenizer__component="bpe")
        cost = json.loads((other / "summary.json").read_text())["cost"]
        change_summary(other, cost={**cost, "parameters": 5_000_000})
    (study,) = studies_of(find_runs([str(tmp_path)]), baseline="tokenizer=wordpiece")
    (told,) = [words for words in warnings_of(study) if words.startswith("Beside what they are grouped by")]
    assert "tokenizer" not in told and "parameters (4.0 M / 5.0 M)" in told


def test_a_pretraining_that_others_began_from_is_no_arm_and_its_cost_is_counted(tmp_path: Path) -> None:
    write_run(tmp_path, "toy-mlm-p", 0, 0.5, metric=PER_TOKEN, objective__component="mlm")
    for seed in range(2):
        write_run(tmp_path, f"ft{seed}", seed, 0.8, stage="toy-mlm-p", init__component="stage")
        write_run(tmp_path, f"scratch{seed}", seed, 0.7)
    runs = find_runs([str(tmp_path)])
    (study,) = studies_of(runs)
    costs = {row.arm.name: row.cost for row in compare(study, {run.name: run for run in runs})}
    assert sum(cost.pretraining_tokens for cost in costs.values()) == 20_000_000


def test_what_a_reader_must_know_is_said(root: Path) -> None:
    (root / "toy-classification-b1" / "identity.json").write_text('{"code": {"loop": "2"}}')
    (root / "toy-classification-b2" / "environment.json").write_text(
        '{"git": {"revision": "abc", "dirty": true}, "processor": "Q"}'
    )
    write_run(root, "toy-classification-again", 0, 0.9, evaluation__batch_size=64)
    (study,) = studies_of(find_runs([str(root)]))
    words = " ".join(warnings_of(study))
    for expected in (
        "different versions of loop",
        "uncommitted changes, e.g. toy-classification-b2",
        "different machines",
        "Left out",
    ):
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
    listed = next(
        block for block in page.blocks if isinstance(block, PageTable) and "without a result" in block.caption
    )
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


def test_the_study_of_scratch_against_pretrained_names_its_arms(tmp_path: Path) -> None:
    """Arms by model and first weights alone, though learning rates differ; those that are not there are not
    missed.
    """
    for seed in (0, 1):
        write_run(tmp_path, f"a{seed}", seed, 0.80, optimizer__lr=3e-4)
        write_run(tmp_path, f"b{seed}", seed, 0.86, init__component="stage", optimizer__lr=3e-4)
        write_run(
            tmp_path,
            f"c{seed}",
            seed,
            0.90,
            model__component="hf",
            init__component="pretrained",
            optimizer__lr=5e-5,
        )
    config = compose_schema(
        "report", ["study=scratch_vs_pretrained", f"runs={tmp_path}", "examples=false", "contamination=false"]
    )
    assert isinstance(config, Schema)
    (study,) = compare_runs(config)[1]
    assert [arm.name for arm in study.arms] == [
        "from scratch",
        "Hugging Face, pretrained",
        "after in-domain pretraining",
    ]
    assert study.baseline.name == "from scratch" and config.title == "From scratch against pretrained"
    assert [len(arm.runs) for arm in study.arms] == [2, 2, 2]
