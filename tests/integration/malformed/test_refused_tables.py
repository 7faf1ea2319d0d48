"""Malformed tables, and mirrors that lack them: refused by file and place."""

import shlex
from pathlib import Path

import pytest
from refusals import (
    GARBAGE,
    GOOD,
    GOOD_JSONL,
    TINY,
    Case,
    Cli,
    assert_refused,
    case,
    data,
    each,
    lay_out,
    parquet,
    tree,
    validation,
    with_line,
)

DATA = [
    case("files_without_a_file", f"dataset=files {TINY}", "no source", "dataset.train_file"),
    case(
        "file_missing",
        f"dataset=files dataset.train_file=nope.csv {TINY}",
        "dataset.train_file=nope.csv",
        "no such file",
    ),
    case(
        "file_is_a_folder",
        f"dataset=files dataset.train_file=texts.csv {TINY}",
        "dataset.train_file=texts.csv",
        files={"texts.csv/a": "b"},
    ),
    case(
        "validation_file_missing",
        f"dataset=files dataset.train_file=t.csv dataset.validation_file=v.csv {TINY}",
        "dataset.validation_file=v.csv",
        files={"t.csv": GOOD},
    ),
    case(
        "validation_without_train",
        f"dataset=files dataset.validation_file=t.csv {TINY}",
        "dataset.train_file",
        files={"t.csv": GOOD},
    ),
    data(
        "text_column_missing",
        "t.csv",
        GOOD.replace("text,", "texts,", 1),
        "'text'",
        "dataset.text_column",
        "did you mean 'texts'",
    ),
    data(
        "label_column_missing",
        "t.csv",
        GOOD.replace(",label", ",lable", 1),
        "'label'",
        "dataset.label_column",
        "did you mean 'lable'",
    ),
    data(
        "pair_column_missing",
        "t.csv",
        GOOD,
        "'answer'",
        "dataset.text_pair_column",
        options="dataset.text_pair_column=answer",
    ),
    data("semicolons", "t.csv", GOOD.replace(",", ";"), "'label'", "text;label", "dataset.delimiter"),
    data("empty_file", "t.csv", "", "empty"),
    data("blank_lines_only", "t.csv", "\n\n\n", "t.csv"),
    data("header_only", "t.csv", "text,label\n", "no rows"),
    data("too_many_fields_in_a_line", "t.csv", with_line(5, "a good film, and long,1"), "line 5", "3"),
    data("too_few_fields_in_a_line", "t.csv", with_line(5, "a good film"), "line 5", "label"),
    data(
        "too_many_fields_in_every_line",
        "t.csv",
        GOOD.replace("\n", ",x\n").replace(",x", "", 1),
        "line 2",
        "3",
    ),
    data(
        "fewer_names_than_columns",
        "t.csv",
        "1,a good film,1\n2,a bad film,0\n" * 20,
        "column_names",
        options="'dataset.column_names=[text,label]'",
    ),
    data(
        "more_names_than_columns",
        "t.csv",
        GOOD.split("\n", 1)[1],
        "column_names",
        options="'dataset.column_names=[text,label,user]'",
    ),
    data("unclosed_quote", "t.csv", with_line(9, '"a good film,1'), "line 9"),
    data(
        "two_encodings_in_one_file",
        "t.csv",
        GOOD.encode() + "ein schöner Film,1\n".encode("latin-1"),
        "line 42",
        "utf-8",
        "dataset.encoding",
    ),
    data("utf16_without_saying_so", "t.csv", GOOD.encode("utf-16-le"), "'label'", "label_column"),
    case(
        "unknown_encoding",
        f"dataset=files dataset.train_file=t.csv dataset.encoding=utf-9 {TINY}",
        "dataset.encoding=utf-9",
        "latin-1",
        files={"t.csv": GOOD},
    ),
    case(
        "encoding_that_is_no_text",
        f"dataset=files dataset.train_file=t.csv dataset.encoding=hex {TINY}",
        "dataset.encoding=hex",
        files={"t.csv": GOOD},
    ),
    case(
        "delimiter_of_two_characters",
        "dataset=files dataset.train_file=t.csv 'dataset.delimiter=::'",
        "dataset.delimiter",
    ),
    case(
        "empty_delimiter",
        "dataset=files dataset.train_file=t.csv 'dataset.delimiter=\"\"'",
        "dataset.delimiter",
    ),
    data("null_text", "t.jsonl", with_line(3, '{"text": null, "label": 0}', GOOD_JSONL), "row 3", "'text'"),
    data(
        "null_label",
        "t.jsonl",
        with_line(3, '{"text": "x", "label": null}', GOOD_JSONL),
        "row 3",
        "'label'",
        "no label",
        "dataset.drop_unlabelled=true",
    ),
    data(
        "no_label_in_a_csv",
        "t.csv",
        with_line(4, "fine,"),
        "row 3",
        "'label'",
        "no label",
        "dataset.drop_unlabelled=true",
    ),
    data(
        "label_of_minus_one",
        "t.csv",
        with_line(4, "fine,-1"),
        "row 3",
        "no label (-1)",
        "dataset.drop_unlabelled=true",
    ),
    data("no_text_at_all", "t.csv", "text,label\n" + " ,0\n ,1\n" * 20, "'text'", "no text"),
    data(
        "lists_for_texts", "t.parquet", parquet(text=[["a", "b"]] * 4, label=[0, 1, 0, 1]), "'text'", "list"
    ),
    data(
        "numbers_for_texts",
        "t.parquet",
        parquet(text=[0.5, 1.5] * 20, label=[0, 1] * 20),
        "'text'",
        "dataset.text_column",
    ),
    data("json_broken_in_a_line", "t.jsonl", with_line(7, '{"text": "a", "label": ', GOOD_JSONL), "line 7"),
    data("json_of_two_types", "t.jsonl", with_line(7, '{"text": "a", "label": "good"}', GOOD_JSONL), "label"),
    data("json_of_one_object", "t.json", '{"text": "a", "label": 1}', "t.json"),
    data("json_of_words", "t.jsonl", "good\nbad\n", "t.jsonl", "line 1"),
    data("garbage_parquet", "t.parquet", GARBAGE, "parquet"),
    data("garbage_csv", "t.csv", GARBAGE, "line ", "utf-8"),
    data("garbage_latin1_csv", "t.csv", GARBAGE, "t.csv", options="dataset.encoding=latin-1"),
    data("garbage_jsonl", "t.jsonl", GARBAGE, "line ", "utf-8"),
    data(
        "parquet_cut_off", "t.parquet", parquet(text=["a", "b"] * 500, label=[0, 1] * 500)[:-100], "parquet"
    ),
    data("unknown_ending", "t.xlsx", b"PK\x03\x04", "'.xlsx'", ".csv"),
    data("no_ending", "texts", GOOD, "unknown kind of file", ".csv"),
    data("one_class_only", "t.csv", GOOD.replace(",0", ",1"), "'label'", "fewer than two", "1"),
    data(
        "text_taken_for_the_label",
        "t.csv",
        "text,label\n" + "".join(f"a,{n}\n" for n in range(1200)),
        "'label'",
        "1200",
        "dataset.label_column",
    ),
    data(
        "label_nan",
        "t.jsonl",
        '{"text": "a b", "label": NaN}\n{"text": "c", "label": 1}\n',
        "fewer than two different labels",
    ),
    data(
        "label_list",
        "t.jsonl",
        '{"text": "a b", "label": [0]}\n{"text": "c", "label": [1]}\n',
        "row 1 holds [0], no label",
    ),
    data(
        "labels_with_fractions",
        "t.csv",
        with_line(4, "fine,2.25"),
        "'label'",
        "2.25 in row 3",
        "dataset.number_column=label",
    ),
    data(
        "label_infinite",
        "t.jsonl",
        '{"text": "a b", "label": 0}\n{"text": "c", "label": Infinity}\n',
        "row 2 holds inf, no label",
    ),
    case(
        "every_label_different",
        f"dataset=files dataset.train_file=t.csv dataset.label_column=text {TINY}",
        "no class has two different rows",
        files={"t.csv": GOOD},
    ),
    data(
        "unmapped_label",
        "t.csv",
        with_line(4, "fine,9"),
        "'9'",
        "row 3",
        "label_map",
        options="+dataset.label_map.0=bad +dataset.label_map.1=good",
    ),
    data(
        "no_label_in_the_map",
        "t.csv",
        GOOD,
        "label_map",
        options="+dataset.label_map.7=bad +dataset.label_map.8=good dataset.drop_unmapped_labels=true",
    ),
    data(
        "label_beyond_the_names",
        "t.csv",
        with_line(4, "fine,2"),
        "'2'",
        "row 3",
        "known",
        options="'dataset.label_names=[bad,good]'",
    ),
    case(
        "map_to_no_name",
        "dataset=files dataset.train_file=t.csv +dataset.label_map.0=bda 'dataset.label_names=[bad,good]'",
        "dataset.label_map: maps to",
        "bda",
    ),
    case(
        "dropping_without_a_map",
        "dataset=files dataset.train_file=t.csv dataset.drop_unmapped_labels=true",
        "dataset.drop_unmapped_labels",
        "needs dataset.label_map",
    ),
    case(
        "names_twice",
        f"dataset=files dataset.train_file=t.csv 'dataset.label_names=[bad,bad]' {TINY}",
        "dataset.label_names",
        "bad",
        files={"t.csv": GOOD},
    ),
    validation("validation_label_unknown", with_line(4, "fine,7"), "'7'", "row 3", "options: 0, 1"),
    validation(
        "validation_label_in_words",
        GOOD.replace(",1", ",good").replace(",0", ",bad"),
        "'bad'",
        "row 1",
        "options: 0, 1",
    ),
    validation("validation_text_column_missing", GOOD.replace("text,", "review,", 1), "'text'", "review"),
    validation("validation_label_column_missing", GOOD.replace(",label", ",class", 1), "'label'", "class"),
    validation("validation_empty", "", "empty"),
    validation("validation_without_labels", "text,label\n" + "fine,\n" * 4, "'label'"),
    case(
        "no_network_and_no_mirror",
        f"dataset=sst2 {TINY}",
        "dataset=sst2",
        "stanfordnlp/sst2",
        "BERTLAB_DATA",
        "sst2/train.parquet",
    ),
    case(
        "no_hub_and_no_mirror",
        f"dataset=sentiment140 {TINY}",
        "dataset=sentiment140",
        "BERTLAB_DATA",
        "sentiment140/training",
    ),
    case(
        "mirror_without_the_dataset",
        f"dataset=sst2 {TINY}",
        "dataset=sst2",
        "sst2/train.parquet",
        files={"mirror/rte/train.parquet": b""},
        BERTLAB_DATA="mirror",
    ),
    case(
        "mirror_with_a_part",
        f"dataset=sst2 {TINY}",
        "mirror",
        "only part of sst2",
        "sst2/validation.parquet",
        files={"mirror/sst2/train.parquet": parquet(sentence=["good", "bad"] * 20, label=[1, 0] * 20)},
        BERTLAB_DATA="mirror",
    ),
    case(
        "mirror_with_empty_files",
        f"dataset=sst2 {TINY}",
        "sst2/train.parquet",
        "empty",
        files={"mirror/sst2/train.parquet": b"", "mirror/sst2/validation.parquet": b""},
        BERTLAB_DATA="mirror",
    ),
    case(
        "mirror_variable_nowhere",
        f"dataset=sst2 {TINY}",
        "BERTLAB_DATA=nowhere",
        "not a folder",
        BERTLAB_DATA="nowhere",
    ),
    case(
        "mirror_setting_nowhere",
        f"dataset=sst2 paths.mirror=nowhere {TINY}",
        "paths.mirror=nowhere",
        "not a folder",
        BERTLAB_DATA="mirror",
    ),
    case(
        "mirror_of_an_unknown_split",
        f"dataset=sst2 '+dataset.mirror_files.trian=x' {TINY}",
        "trian",
        "did you mean 'train'",
        files={"mirror/a": ""},
        BERTLAB_DATA="mirror",
    ),
    case("hub_name_that_is_none", f"dataset=files 'dataset.hub=no such/name' {TINY}", "no such/name"),
    case(
        "pair_objective_without_pairs",
        f"dataset=synthetic dataset.task=pairz {TINY}",
        "dataset.task=pairz",
        "did you mean 'pairs'",
    ),
]


@each(DATA)
def test_malformed_data_are_refused_by_file_and_place(
    case: Case, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(case, monkeypatch)
    assert_refused(cli(*shlex.split(case.command)), case.says, tree(Path()))


def test_a_byte_order_mark_tells_the_encoding(cli: Cli) -> None:
    """UTF-16 as some programs write it is read without a word, as the same text in UTF-8 is."""
    found = []
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        Path("t.csv").write_text(GOOD.replace("film", "fílm"), encoding=encoding)
        status, _, err = cli(
            *shlex.split(f"dataset=files dataset.train_file=t.csv {TINY} paths.output={encoding}")
        )
        assert status == 0, err
        (run,) = Path(encoding).glob("files-*")
        found.append((run / "predictions" / "validation.jsonl").read_bytes())
    assert found[0] == found[1] == found[2]
