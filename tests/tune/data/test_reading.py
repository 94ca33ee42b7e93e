"""Files as users have them: encodings, delimiters, stray quotes, no header, damage: read whole or refused."""

import csv
import json
import socket
import tempfile
from pathlib import Path

import datasets
import pytest

from edgetune.serve.errors import DataError
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.reading import read_table, word

ROWS = [
    ("where is my card, please", "card"),
    ('it says "declined"', "payment"),
    ("café à côté\nnow", "place"),
]
TEXTS = tuple(text for text, _ in ROWS)
LABELS = tuple(label for _, label in ROWS)


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, **said):
    return read_table(path, FileOptions(**said))


def fault(path, **said):
    with pytest.raises(DataError) as caught:
        read(path, **said)
    return caught.value


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_of_any_delimiter_and_line_ending_is_read_whole(tmp_path, delimiter, ending):
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=ending)
        writer.writerows([("text", "label"), *ROWS])
    table = read(path)
    assert table.columns == {"text": TEXTS, "label": LABELS}
    assert table.findings == ()
    assert table.header


def test_words_that_look_like_missing_values_stay_words(tmp_path):
    table = read(written(tmp_path / "a.csv", "text,label\nNA,1\nnull,0\n,1\n"))
    assert table.columns == {"text": ("NA", "null", ""), "label": ("1", "0", "1")}


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path):
    table = read(written(tmp_path / "a.csv", b"\xef\xbb\xbftext,label\n\na,x\n  \nb,y\n\n"))
    assert table.columns == {"text": ("a", "b"), "label": ("x", "y")}


def test_nul_characters_do_not_cut_a_field(tmp_path):
    assert read(written(tmp_path / "a.csv", "text,label\na\0b,x\nc,y\n")).columns["text"] == ("ab", "c")


def test_a_file_without_header_gets_numbered_columns_and_says_so(tmp_path):
    table = read(written(tmp_path / "a.tsv", "a fine film\t1\na dull film\t0\nbad\t0\ngood\t1\n"))
    assert table.columns["column_1"] == ("a fine film", "a dull film", "bad", "good")
    assert table.columns["column_2"] == ("1", "0", "0", "1")
    assert table.findings == ("a.tsv has no header: its 2 columns are named column_1, column_2.",)
    assert not table.header


def test_the_recipe_overrules_what_is_found_about_a_header(tmp_path):
    path = written(tmp_path / "a.csv", "text,label\na,x\nb,y\n")
    assert read(path, header=False).columns["column_1"] == ("text", "a", "b")
    path = written(tmp_path / "b.csv", "good,pos\nbad,neg\nfine,pos\n")
    assert tuple(read(path, header=True).columns) == ("good", "pos")


def test_an_index_column_without_a_name_and_a_name_that_comes_twice_get_names(tmp_path):
    table = read(written(tmp_path / "a.csv", ",text,text,label\n0,a,b,x\n1,c,d,y\n"))
    assert tuple(table.columns) == ("column_1", "text", "text_3", "label")


def test_stray_quotes_in_a_tsv_swallow_no_line(tmp_path):
    lines = [f"{quote}text number {n}\tlabel{n % 2}" for n, quote in enumerate(["", '"', "", '"', "", ""])]
    table = read(written(tmp_path / "a.tsv", "\n".join(["text\tlabel", *lines]) + "\n"))
    assert len(table) == 6
    assert table.columns["text"][1] == '"text number 1'
    assert table.findings == (
        "The quote characters in a.tsv are part of its texts: read as enclosing fields they would swallow 2 lines.",
    )


def test_quotes_that_close_at_the_field_end_swallow_no_line_of_a_tsv_either(tmp_path):
    table = read(written(tmp_path / "a.tsv", 'text\tlabel\n"one\tx\ntwo\ty\nthree"\tx\nfour\ty\n'))
    assert table.columns["text"] == ('"one', "two", 'three"', "four")


def test_a_text_longer_than_the_csv_module_allows_is_read(tmp_path):
    long, before = "word " * 40_000, csv.field_size_limit()
    table = read(written(tmp_path / "a.csv", f"text,label\n{long},x\nb,y\n"))
    assert len(table.columns["text"][0]) == 200_000
    assert csv.field_size_limit() == before


def test_a_ragged_row_names_file_and_line(tmp_path):
    error = fault(written(tmp_path / "a.csv", 'text,label\n"one\nline",x\nb,y\nc,d,y\ne,x\nf\n'))
    assert error.found == "a.csv, line 5: 3 fields, where the other lines have 2. 1 more lines have this fault."
    assert "data.delimiter" in error.action


@pytest.mark.parametrize(
    ("encoding", "text", "words"),
    [
        ("gb18030", "快递很快，味道也很好，下次还会再来的", "'快递很快，味道也很好，下次还会再来的'"),
        ("cp1252", "déjà vu à côté de l'hôtel où il était allé", "'déjà', 'à', 'côté'"),
    ],
)
def test_an_encoding_is_guessed_and_said_or_named_in_the_recipe(tmp_path, encoding, text, words):
    body = "text,label\n" + "".join(f"{text} {n},{n % 2}\n" for n in range(20))
    path = written(tmp_path / "a.csv", body.encode(encoding))
    assert read(path, encoding=encoding).columns["text"][3] == f"{text} 3"
    assert read(path, encoding=encoding).findings == ()
    guessed = read(path)
    assert guessed.encoding == encoding
    assert guessed.findings == (
        f"a.csv is not UTF-8: it was read as {encoding}, a guess that makes {words} (data.encoding).",
    )
    assert guessed.columns["text"][3] == f"{text} 3"


def test_utf_16_is_known_by_its_byte_order_mark(tmp_path):
    path = written(tmp_path / "a.csv", "text,label\né,x\nb,y\n".encode("utf-16"))
    assert read(path).columns["text"] == ("é", "b")


def test_bytes_that_are_not_of_the_named_encoding_name_the_line(tmp_path):
    error = fault(written(tmp_path / "a.csv", b"text,label\na,x\n\xff\xfe,y\n"), encoding="utf-8")
    assert "a.csv, line 3: byte 15 is not utf-8" in error.found
    assert "unknown" in fault(written(tmp_path / "a.csv", b"text,label\na,x\n"), encoding="klingon").found


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json"])
def test_json_lines_are_read_with_words_for_all_values(tmp_path, suffix):
    rows = [
        {"text": "2020-01-01", "label": 1},
        {"text": "a\u2028b", "label": "x", "more": [1]},
        {"label": None},
    ]
    path = written(tmp_path / f"a{suffix}", "\n".join(json.dumps(row) for row in rows))
    assert read(path).columns == {
        "text": ("2020-01-01", "a\u2028b", ""),
        "label": ("1", "x", ""),
        "more": ("", "[1]", ""),
    }


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"data": rows}])
def test_a_json_list_is_read_bare_or_under_one_key(tmp_path, wrap):
    path = written(tmp_path / "a.json", json.dumps(wrap([{"text": "a", "label": 1.0}, {"text": "b", "label": True}])))
    assert read(path).columns == {"text": ("a", "b"), "label": ("1", "true")}


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "a.jsonl, line 2: this is not JSON rows"),
        ("a.json", '[\n{"text": "a"},\n{"text" "b"}]', "a.json, line 3: this is not JSON rows"),
        ("a.json", '"a"', "a.json, line 1: this is not JSON rows"),
        ("a.jsonl", '{"text": "a"}\n[1]\n', "a.jsonl, line 2: a list stands where a row was expected"),
        ("a.json", '[{"text": "a"}, 3]', "a.json, row 2: a int stands where a row was expected"),
    ],
)
def test_damaged_json_names_file_and_line(tmp_path, name, content, place):
    assert place in fault(written(tmp_path / name, content)).found


def test_parquet_gives_class_names_and_whole_numbers(tmp_path):
    features = datasets.Features(
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["neg", "pos"]),
        stars=datasets.Value("float64"),
        tags=datasets.List(datasets.ClassLabel(names=["x", "y"])),
        vector=datasets.List(datasets.Value("float32")),
    )
    columns = {
        **{"text": ["a", "b"], "label": [1, -1], "stars": [5.0, None]},
        **{"tags": [[0, 1], []], "vector": [[1.0], [2.0]]},
    }
    path = tmp_path / "odd [1].parquet"
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    table = read(path)
    assert table.columns == {"text": ("a", "b"), "label": ("pos", ""), "stars": ("5", ""), "tags": ('["x", "y"]', "[]")}
    assert table.findings == ("Column 'vector' of odd [1].parquet is of type List of float32 and was left out.",)


def test_damaged_parquet_is_refused(tmp_path, capfd):
    error = fault(written(tmp_path / "a.parquet", b"PAR1 this is nothing of the kind PAR1"))
    assert "a.parquet cannot be read as parquet" in error.found
    assert capfd.readouterr().err == ""


def test_reading_a_local_file_asks_nobody_on_the_network(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **options: asked.append(address) or [])
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: asked.append(address))
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    read(written(tmp_path / "a.csv", "text,label\na,x\nb,y\n"))
    assert asked == []


def test_reading_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    read(written(tmp_path / "a.csv", "text,label\na,x\nb,y\n"))
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("name", ["none.csv", "none.parquet"])
def test_a_file_that_is_not_there(tmp_path, name):
    assert fault(tmp_path / name).found == f"There is no file {tmp_path / name}."


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    path = written(tmp_path / "a.csv", "text,label\n")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    error = fault(path)
    assert error.found == f"{path} cannot be read: Permission denied."
    assert "ls -l" in error.action


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "is empty (0 bytes)"),
        ("a.jsonl", b" \n\n", "is empty (3 bytes)"),
        ("a.csv", b"\xef\xbb\xbf\n", "holds only blank lines"),
        ("a.csv", b"text,label\n", "has a header (text, label) and no rows"),
        ("a.json", b"[]", "has no rows"),
        ("a.xlsx", b"x", "its suffix is '.xlsx'"),
    ],
)
def test_files_with_nothing_to_learn_from(tmp_path, name, content, reason):
    assert reason in fault(written(tmp_path / name, content)).found


def test_words_for_values():
    values = (None, float("nan"), 3, 3.0, 2.5, True, {"a": 1}, "\ud800x")
    assert [word(value) for value in values] == ["", "", "3", "3", "2.5", "true", '{"a": 1}', "\ufffdx"]
