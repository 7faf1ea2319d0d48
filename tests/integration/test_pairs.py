"""Minimal pairs: scores against a plain loop over masked positions, closed forms, what is refused, learning
curves that survive a kill.
"""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import scipy.stats
import torch
from torch.nn import functional as F

from bertlab.config.schema import Evaluation, Paths, deciding
from bertlab.data.pairs import Pairs, find_pairs, read_pairs
from bertlab.errors import UserError
from bertlab.runs.folder import RunFolder
from bertlab.training import pairs as scoring_module
from bertlab.training.finished import FinishedRun, load_run
from bertlab.training.pairs import (
    MaskedCopies,
    PairsScorer,
    Reader,
    Scored,
    Snapshots,
    mean_interval,
    sampled,
    score_pairs,
    summarise,
    wilson,
    word_ends,
)
from children import finish, kill_when, only_run, start
from tiny import tiny

Cli = Callable[..., tuple[int, str, str]]
SENTENCES = (
    "the film was a good one",
    "the film was a bad one",
    "a really good film",
    "good film",
    "the plot was an unwatchable plot",
    "bad",
)
MLM = tiny("objective=mlm", "objective.max_length=32", "tokenizer=wordpiece", "tokenizer.vocab_size=120",
    "model=bert_mini_rotary",
           "model.num_hidden_layers=2", "budget.steps=6", "compute.precision=float32", heads=2)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked-language model that has hardly learnt anything: every score is its own."""
    output = tmp_path_factory.mktemp("mlm")
    finish(*MLM, f"paths.output={output}")
    return only_run(output)


@pytest.fixture(scope="module")
def trained(folder: Path) -> FinishedRun:
    return load_run(RunFolder(folder))


def reader_of(trained: FinishedRun) -> Reader:
    from bertlab.config.schema import Compute

    device = trained.device(Compute(device="cpu", precision="float32", threads=1))
    return Reader(trained.config, trained.model, trained.objective, trained.tokenizer, device)


def pairs_among(sentences: tuple[str, ...], uid: str = "all") -> Pairs:
    """Each sentence with each other one."""
    both = [(good, bad) for good in sentences for bad in sentences if good != bad]
    return Pairs("test", [good for good, _ in both], [bad for _, bad in both], [uid] * len(both))


@torch.no_grad()
def plain_score(trained: FinishedRun, text: str, within_words: bool = False) -> float:
    """One masked position at a time, one sentence at a time, with full logits over the whole sentence."""
    special, continues = trained.objective.special, trained.objective.vocabulary.continues
    head: Any = trained.model.head
    ids = [special.cls_id, *trained.tokenizer([text])[0], special.sep_id]
    total = 0.0
    for place in range(1, len(ids) - 1):
        masked = list(ids)
        masked[place] = special.mask_id
        after = place + 1
        while within_words and after < len(ids) - 1 and continues[ids[after]]:
            masked[after] = special.mask_id
            after += 1
        hidden = trained.model.encoder(torch.tensor([masked]))[0]  # (T, D)
        # (T, V)
        logits = (
            head.norm(F.gelu(head.transform(hidden))) @ trained.model.encoder.token_weight().T + head.bias
        )
        total += float(logits[place].double().log_softmax(-1)[ids[place]])
    return total


# --- scores ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("scoring", ["token", "word_l2r"])
def test_scores_are_those_of_a_plain_loop_over_masked_positions(
    trained: FinishedRun, tmp_path: Path, scoring: str
) -> None:
    pairs = pairs_among(SENTENCES)
    scored = score_pairs(reader_of(trained), pairs, Paths(cache=str(tmp_path)), scoring)
    plain = {text: plain_score(trained, text, scoring == "word_l2r") for text in SENTENCES}
    for side, texts in enumerate((pairs.good, pairs.bad)):
        np.testing.assert_allclose(scored.scores[:, side], [plain[text] for text in texts], atol=2e-4)
    assert (
        scored.right == [plain[good] > plain[bad] for good, bad in zip(pairs.good, pairs.bad, strict=True)]
    ).all()
    assert scored.tokens[0, 0] == len(trained.tokenizer([pairs.good[0]])[0])


def test_within_words_differs_only_where_words_have_parts(trained: FinishedRun) -> None:
    parts = {
        text: any(trained.objective.vocabulary.continues[trained.tokenizer([text])[0]]) for text in SENTENCES
    }
    assert set(parts.values()) == {True, False}, "both kinds are among the sentences"
    for text, has_parts in parts.items():
        assert (plain_score(trained, text) != plain_score(trained, text, within_words=True)) == has_parts


def test_what_is_masked_by_hand() -> None:
    """Words 7, 8+41+42 and 9 of the pretraining tests' vocabulary, of which 40 and above continue a word."""
    from types import SimpleNamespace

    special = SimpleNamespace(cls_id=2, sep_id=3, mask_id=4)
    continues = np.arange(60) >= 40
    ids = np.array([[7, 8, 41, 42, 9]])
    assert word_ends(ids, continues).tolist() == [[0, 3, 3, 3, 4]]
    objective: Any = SimpleNamespace(special=special, vocabulary=SimpleNamespace(continues=continues))
    copies = MaskedCopies.of(ids, objective, "word_l2r")
    asked = {
        int(label): copies.inputs[row].tolist() for label, row in zip(copies.labels, copies.copy, strict=True)
    }
    assert asked == {
        7: [2, 4, 8, 41, 42, 9, 3], 8: [2, 7, 4, 4, 4, 9, 3], 41: [2, 7, 8, 4, 4, 9, 3],
        42: [2, 7, 8, 41, 4, 9, 3], 9: [2, 7, 8, 41, 42, 4, 3],
    }  # fmt: skip
    assert (copies.places[copies.copy] == [1, 2, 3, 4, 5]).all()
    # one word differs: its masked copy is shared
    two = MaskedCopies.of(np.array([[7, 8, 9], [7, 10, 9]]), objective, "token")
    assert len(two.inputs) == 5 and two.labels.tolist() == [7, 8, 9, 7, 10, 9]
    asked_of = [(rows, numbers) for rows, numbers in two.batches()]
    assert sorted(np.concatenate([numbers for _, numbers in asked_of]).tolist()) == list(range(6))


def test_a_model_that_knows_nothing_gives_every_token_the_same(trained: FinishedRun, tmp_path: Path) -> None:
    """Zero weights in the head: each of V tokens has probability 1/V; sentences of equal length are ties,
    shorter ones likelier.
    """
    import copy

    blank = copy.deepcopy(trained)
    for weight in blank.model.head.parameters():
        weight.data.zero_()
    scored = score_pairs(reader_of(blank), pairs_among(SENTENCES), Paths(cache=str(tmp_path)))
    np.testing.assert_allclose(scored.scores, -np.log(blank.tokenizer.vocab_size) * scored.tokens, rtol=1e-5)
    lengths = scored.tokens
    assert (scored.right[lengths[:, 0] == lengths[:, 1]] == 0.5).all() and (
        lengths[:, 0] == lengths[:, 1]
    ).any()
    assert (scored.right[lengths[:, 0] < lengths[:, 1]] == 1).all()
    assert summarise(scored)["pairs/accuracy"] == 0.5, "each pair is there both ways"


def test_nothing_is_computed_twice(
    trained: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor after a kill between two pieces; other weights and the other way of masking are other scores."""
    monkeypatch.setattr(scoring_module, "PIECE", 2)
    compute, computed = scoring_module.score_sentences, list[int]()

    def counting(reader: Reader, sentences: Any, scoring: str) -> Any:
        computed.append(len(sentences))
        if len(computed) == 3 and not killed:
            killed.append(True)
            raise KeyboardInterrupt
        return compute(reader, sentences, scoring)

    killed: list[bool] = []
    monkeypatch.setattr(scoring_module, "score_sentences", counting)
    paths, pairs, reader = Paths(cache=str(tmp_path)), pairs_among(SENTENCES), reader_of(trained)
    with pytest.raises(KeyboardInterrupt):
        score_pairs(reader, pairs, paths)
    first = score_pairs(reader, pairs, paths)
    assert computed == [2, 2, 2, 2], "three pieces, of which two stood"
    again = score_pairs(reader, pairs, paths)
    assert len(computed) == 4 and (again.scores == first.scores).all() and again.cost == first.cost
    score_pairs(reader, pairs, paths, "word_l2r")
    assert len(computed) == 7


# --- accuracy -------------------------------------------------------------------------------------
@pytest.mark.parametrize(("right", "count"), [(0, 10), (7, 10), (10, 10), (512, 1000)])
def test_the_interval_of_a_share_is_wilsons(right: int, count: int) -> None:
    known = scipy.stats.binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right, count) == pytest.approx((known.low, known.high))
    assert mean_interval(np.array([right / count]), np.array([wilson(right, count)])) == pytest.approx(
        (known.low, known.high)
    )


def test_the_mean_counts_phenomena_alike_and_its_interval_covers() -> None:
    """By simulation: 3 phenomena of unequal sizes, 19 of 20 intervals hold the true mean."""
    rng, sizes, truth = np.random.default_rng(0), (30, 200, 1000), np.array([0.9, 0.5, 0.7])
    held = 0
    for _ in range(2000):
        right = [rng.binomial(size, share) for size, share in zip(sizes, truth, strict=True)]
        shares = np.array([count / size for count, size in zip(right, sizes, strict=True)])
        low, high = mean_interval(
            shares, np.array([wilson(count, size) for count, size in zip(right, sizes, strict=True)])
        )
        held += low <= truth.mean() <= high
    assert 0.935 < held / 2000 < 0.97


def test_ties_count_one_half_and_groups_are_means_over_phenomena() -> None:
    pairs = Pairs(
        "test",
        ["x"] * 6,
        ["y"] * 6,
        ["a", "a", "a", "a", "b", "c"],
        {"field": ["f", "f", "f", "f", "f", "g"]},
    )
    scores = np.array([[-1.0, -2.0], [-1.0, -1.0], [-3.0, -2.0], [-1.0, -5.0], [-4.0, -4.0], [-1.0, -2.0]])
    told = summarise(
        Scored(pairs, scores, np.ones((6, 2), dtype=int), np.zeros((6, 2), dtype=int), {"seconds": 0.0})
    )
    assert told["phenomena"]["a"]["accuracy"] == 0.625 and told["phenomena"]["a"]["ties"] == 1
    assert told["phenomena"]["b"]["accuracy"] == 0.5
    assert told["pairs/accuracy"] == pytest.approx((0.625 + 0.5 + 1) / 3)
    assert (
        told["groups"]["field"]["f"]["accuracy"] == pytest.approx((0.625 + 0.5) / 2)
        and told["groups"]["field"]["g"]["accuracy"] == 1
    )
    low, high = told["pairs/interval_over_phenomena"]
    assert low < told["pairs/interval"][0] < told["pairs/accuracy"] < told["pairs/interval"][1] and high == 1
    json.dumps(told, allow_nan=False)


def test_a_sample_is_spread_over_each_phenomenon() -> None:
    pairs = Pairs(
        "test", [str(row) for row in range(20)], ["b"] * 20, ["x"] * 15 + ["y"] * 5, {"field": ["f"] * 20}
    )
    kept = sampled(pairs, 3)
    assert kept.good == ["0", "7", "14", "15", "17", "19"] and kept.phenomena == ["x"] * 3 + ["y"] * 3
    assert sampled(pairs, None) is pairs and len(sampled(pairs, 100)) == 20


# --- the command ----------------------------------------------------------------------------------
ROW = {"sentence_good": "the film was good", "sentence_bad": "the film was unwatchable", "UID": "u"}


def jsonl(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_a_file_of_pairs_is_scored_and_kept_beside_the_run(folder: Path, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(
        jsonl(
            ROW,
            {**ROW, "sentence_bad": "film the good was", "UID": "7"},
            {**ROW, "sentence_good": "The film was good", "sentence_bad": "THE film was good"},
        )
    )
    status, out, err = cli(
        "evaluate", f"run={folder}", f"pairs={file}", f"out={tmp_path}/rows.parquet", "compute.device=cpu"
    )
    assert status == 0, err
    assert "pairs/accuracy, mean over phenomena" in out and "masked copies" in out
    (kept,) = (folder / "evaluations").glob("mine-*.json")
    told = json.loads(kept.read_text())
    assert told["phenomena"]["u"]["ties"] == 1, "two spellings that the tokenizer reads alike"
    rows = pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [row["UID"] for row in rows] == ["u", "7", "u"] and rows[2]["right"] == 0.5
    for row in rows:
        assert row["right"] == (0.5 if row["good"] == row["bad"] else float(row["good"] > row["bad"]))
    status, out, _ = cli(
        "evaluate",
        f"run={folder}",
        f"pairs={file}",
        "format=json",
        f"out={tmp_path}/rows.csv",
        "compute.device=cpu",
    )
    assert status == 0 and json.loads(out)["pairs/accuracy"] == told["pairs/accuracy"]
    assert (tmp_path / "rows.csv").read_text().count("\n") == 4
    assert (
        cli(
            "evaluate",
            f"run={folder}",
            f"pairs={file}",
            "pairs_scoring=word_l2r",
            f"out={tmp_path}/r.jsonl",
            "compute.device=cpu",
        )[0]
        == 0
    )
    assert (
        any((folder / "evaluations").glob("mine-*-word_l2r.json"))
        and len((tmp_path / "r.jsonl").read_text().splitlines()) == 3
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.jsonl", b"", "the file is empty"),
        ("header.csv", b"sentence_good,sentence_bad,UID\n", "no rows"),
        ("lacks.jsonl", jsonl({"sentence_good": "a", "UID": "u"}), "no column 'sentence_bad'"),
        ("typo.csv", b"sentence_goods,sentence_bad,UID\na,b,u\n", "did you mean 'sentence_goods'"),
        ("latin.csv", b"sentence_good,sentence_bad,UID\ncaf\xe9,b,u\n", "line 2 is not utf-8"),
        ("nan.jsonl", b'{"sentence_good": "a", "sentence_bad": NaN, "UID": "u"}\n',
        "row 1 holds float (nan), not text"),
        ("null.jsonl", jsonl(ROW, {**ROW, "sentence_good": None}),
        "row 2 holds nothing in column 'sentence_good'"),
        ("blank.jsonl", jsonl(ROW, {**ROW, "sentence_bad": "  "}),
        "row 2 holds nothing in column 'sentence_bad'"),
        ("uid.jsonl", jsonl({**ROW, "UID": None}), "row 1 holds nothing in column 'UID'"),
        ("same.jsonl", jsonl({**ROW, "sentence_bad": ROW["sentence_good"]}),
        "in every row sentence_good and sentence_bad are the same"),
        ("rows.jsonl", b'["a", "b"]\n', "not an object"),
        ("long.jsonl", jsonl({**ROW, "sentence_bad": "film " * 600}), "positions reach"),
        ("pairs.xlsx", b"PK", "unknown kind of file"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_one_line(
    folder: Path, cli: Cli, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    status, out, err = cli("evaluate", f"run={folder}", f"pairs={tmp_path / name}", "compute.device=cpu")
    assert (status, out) == (2, "") and said in err and err.count("\n") == 1 and "Traceback" not in err, err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pairs=blmp"], "did you mean 'blimp'"),
        (["pairs=blimp"], "BERTLAB_DATA"),
        (["pairs=blimp", "split=validation"], "give either split or pairs"),
        (["pairs=blimp", "out=rows.txt"], "write .parquet, .csv, .jsonl"),
        (["out=rows.csv"], "add pairs=blimp"),
        (["pairs=rows.csv", "out=./rows.csv"], "out=./rows.csv is the file that is read"),
        (["pairs=blimp", "label_column=x"], "label_column"),
        (["pairs=blimp", "pairs_scoring=tokens"], "did you mean 'token'"),
    ],
)
def test_a_wrong_word_is_one_line(folder: Path, cli: Cli, words: list[str], said: str) -> None:
    status, _, err = cli("evaluate", f"run={folder}", *words)
    assert status == 2 and said in err and "Traceback" not in err, err


def test_what_predicts_no_tokens_is_refused(cli: Cli) -> None:
    assert cli(*tiny("budget.steps=1", "paths.output=out"))[0] == 0
    status, _, err = cli("evaluate", f"run={only_run(Path('out'))}", "pairs=blimp")
    assert status == 2 and "objective=classification predicts no hidden tokens" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluation.snapshots=[1e6]"], "evaluation.pairs what"),
        (["evaluation.pairs=blimp", "objective=classification"], "predicts no hidden tokens"),
        (["evaluation.pairs=blimp", "objective=rtd"], "predicts no hidden tokens"),
        (["evaluation.pairs=nothing"], "evaluation.pairs=nothing: neither a file nor"),
        (["evaluation.pairs=blimp", "evaluation.snapshots=[2,1]"], "growing numbers"),
        (["evaluation.pairs=blimp", "evaluation.snapshots=[0,1]"], "growing numbers"),
        (["evaluation.pairs=blimp", "evaluation.snapshot_unit=word"], "did you mean 'words'"),
    ],
)
def test_a_run_that_cannot_be_scored_so_does_not_begin(cli: Cli, words: list[str], said: str) -> None:
    status, _, err = cli(*tiny("objective=mlm", *words))
    assert status == 2 and said in err and "Traceback" not in err, err
    assert not Path("multirun").exists()


def test_a_benchmark_is_one_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a plugin's; a typo in it names the file."""
    place = tmp_path / "plugin" / "conf" / "minimal_pairs"
    place.mkdir(parents=True)
    (place / "zorro.yaml").write_text(
        "file: zorro/test.csv\ngood_column: right\nbad_column: wrong\nphenomenon_column: what\ngroup_columns:"
        " [area]\n"
    )
    (place / "broken.yaml").write_text("file: x.csv\ngood_colum: right\n")
    (tmp_path / "data" / "zorro").mkdir(parents=True)
    (tmp_path / "data" / "zorro" / "test.csv").write_text(
        "area,what,right,wrong\nA,p,one,two\nB,q,three,four\n"
    )
    monkeypatch.setenv("BERTLAB_PLUGINS", str(tmp_path / "plugin"))
    paths = Paths(mirror=str(tmp_path / "data"))
    found = read_pairs(find_pairs("zorro", paths))
    assert (found.good, found.bad, found.phenomena, found.groups) == (
        ["one", "three"],
        ["two", "four"],
        ["p", "q"],
        {"area": ["A", "B"]},
    )
    with pytest.raises(
        UserError, match=r"broken\.yaml: unknown key 'good_colum', did you mean 'good_column'"
    ):
        find_pairs("broken", paths)
    (tmp_path / "data" / "zorro" / "test.csv").write_text(
        "area,what,right,wrong\nA,p,one,two\nB,p,three,four\n"
    )
    with pytest.raises(UserError, match="row 2: 'p' is of area B, in an earlier row of A"):
        read_pairs(find_pairs("zorro", paths))


@pytest.mark.parametrize(
    ("name", "count", "phenomena"),
    [("blimp", 67_000, 67), ("blimp_filtered", 59_875, 67), ("blimp_supplement", 5_218, 5)],
)
def test_the_benchmarks_are_read_whole(shared_data: Path, name: str, count: int, phenomena: int) -> None:
    pairs = read_pairs(find_pairs(name, Paths(mirror=str(shared_data))))
    assert (len(pairs), len(set(pairs.phenomena))) == (count, phenomena)


# --- learning curves ------------------------------------------------------------------------------
def test_ids_of_runs_without_pairs_are_as_before() -> None:
    assert not {"pairs", "pairs_scoring", "pairs_each", "snapshots", "snapshot_unit"} & set(
        deciding(Evaluation())
    )
    told = deciding(Evaluation(pairs="blimp", snapshots=[5.0]))
    assert told["pairs"] == "blimp" and told["snapshots"] == [5.0] and "snapshot_unit" not in told


def test_a_moment_is_met_once_in_tokens_and_in_words() -> None:
    scorer: Any = None
    tokens = Snapshots(Evaluation(snapshots=[100, 250]), 1000, scorer)
    assert [tokens.due(tokens.seen(done, 0), tokens.seen(done + 50, 0)) for done in range(0, 300, 50)] == [
        False,
        True,
        False,
        False,
        True,
        False,
    ]
    words = Snapshots(Evaluation(snapshots=[1500], snapshot_unit="words"), 1000, scorer)
    assert (
        words.seen(7, 1.5) == 1500
        and words.due(words.seen(0, 1.4), words.seen(0, 1.5))
        and not words.due(1500, 1600)
    )
    assert tokens.missed(120, 0) == [250] and words.missed(0, 2.0) == []


def curve(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if "pairs/accuracy" in record]


def test_snapshots_change_no_bit_and_survive_a_kill(tmp_path: Path) -> None:
    """The curve of a run that was killed is that of one that was not, each moment once; weights are those of
    a run without it.
    """
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(
        jsonl(*({**ROW, "sentence_good": good, "UID": uid} for uid in "ab" for good in SENTENCES))
    )
    words = [word for word in MLM if "budget" not in word]
    words += [
        "budget.steps=60",
        "budget.batch_size=4",
        "evaluation.every_steps=20",
        "compute.checkpoint_seconds=0.05",
    ]
    asked = [f"evaluation.pairs={file}", "evaluation.snapshots=[1000,2000,4000,1e9]"]
    finish(*words, f"paths.output={tmp_path}/without")
    assert "training ended before 1e+09" in finish(*words, *asked, f"paths.output={tmp_path}/whole")
    torn = tmp_path / "torn"
    kill_when(
        start(*words, *asked, f"paths.output={torn}"),
        lambda: torn.exists() and any(torn.glob("*/metrics.jsonl")) and len(curve(only_run(torn))) > 0,
        signal.SIGKILL,
    )
    finish(*words, *asked, f"paths.output={torn}")
    whole, without = only_run(tmp_path / "whole"), only_run(tmp_path / "without")
    assert whole.name != without.name, "a run with a curve is another run than one without"
    assert (whole / "model.safetensors").read_bytes() == (without / "model.safetensors").read_bytes()
    assert (only_run(torn) / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    records = curve(whole)
    assert len(records) == 3 and curve(only_run(torn)) == records
    assert all(
        record["pairs/tokens"] >= moment for record, moment in zip(records, (1000, 2000, 4000), strict=True)
    )
    assert records[0]["pairs/words"] < records[1]["pairs/words"]
    summary = json.loads((whole / "summary.json").read_text())
    assert (
        summary["metrics"]["pairs/accuracy"]
        == json.loads(next((whole / "evaluations").glob("pairs-*.json")).read_text())["pairs/accuracy"]
    )
    assert summary["metric_specs"]["pairs/accuracy"]["higher_is_better"]
    assert summary["text"]["train"]["words"] > 1000 and (whole / "curves.png").stat().st_size > 1000


def test_a_checkpoint_at_a_snapshot_holds_the_records_that_were_under_way(tmp_path: Path) -> None:
    """The only checkpoint lies between two records of training: continued from there, all of them are those
    of a run that was not killed.
    """
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(jsonl(*({**ROW, "sentence_good": good} for good in SENTENCES)))
    words = [word for word in MLM if "budget" not in word]
    words += ["budget.steps=90", "budget.batch_size=4", "evaluation.every_steps=1000"]
    words += ["compute.checkpoint_seconds=9999", f"evaluation.pairs={file}", "evaluation.snapshots=[1000]"]
    finish(*words, f"paths.output={tmp_path}/whole")
    torn = tmp_path / "torn"
    kill_when(
        start(*words, f"paths.output={torn}"), lambda: any(torn.glob("*/checkpoints/step-*")), signal.SIGKILL
    )
    finish(*words, f"paths.output={torn}")

    def told(run: Path) -> list[dict[str, Any]]:
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        return [
            {key: value for key, value in record.items() if "per_s" not in key and "seconds" not in key}
            for record in lines
        ]

    whole = told(only_run(tmp_path / "whole"))
    (at,) = [record["step"] for record in whole if "pairs/accuracy" in record]
    assert at % 20, "a step that is recorded anyway would prove nothing"
    assert told(only_run(torn)) == whole


def test_the_scorer_takes_its_sample(trained: FinishedRun, tmp_path: Path) -> None:
    import dataclasses

    file = tmp_path / "pairs.jsonl"
    file.write_bytes(jsonl(*({**ROW, "sentence_good": good} for good in SENTENCES)))
    evaluation = dataclasses.replace(trained.config.evaluation, pairs=str(file), pairs_each=2)
    config = dataclasses.replace(
        trained.config, evaluation=evaluation, paths=Paths(cache=str(tmp_path / "cache"))
    )
    reader = dataclasses.replace(reader_of(trained), config=config)
    assert PairsScorer(reader, find_pairs(str(file), config.paths))()["pairs/pairs"] == 2
