"""Files as users have them, read for answers: the same texts as training reads, or refused where training refuses."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import textwrap
import threading
import tracemalloc

import pytest

from edgetune.commands.text_columns import ColumnRequest
from edgetune.commands.text_files import FileOfTexts
from edgetune.serve.errors import DataError, InputError, MissingDependency
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.reading import read_table
from edgetune.tune.data.unlabeled import read_unlabeled

FRENCH = "déjà vu à côté de l'hôtel où il était allé, dit-elle"
RUSSIAN = "где моя карта, она не пришла"
LONG = "word " * 40_000


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


# Name of a file, its content, and the texts that both readers give; None where both refuse.
HOSTILE = {
    "commas-not-quoted.csv": ("text\nmy card, and the pin, are gone\nthe cash machine swallowed it\n", None),
    "commas-in-one-of-two.csv": ("id,text\n1,my card, gone\n2,the cash\n", None),
    "quoted-commas.csv": ('id,text\n1,"my card, gone"\n2,the cash\n', ["my card, gone", "the cash"]),
    "stray-quote.tsv": (
        'id\ttext\n1\t"quoted start about my card\n2\tthe cash machine\n3\tlogin "password wrong\n4\ttransfer it\n',
        ['"quoted start about my card', "the cash machine", 'login "password wrong', "transfer it"],
    ),
    "line-breaks.csv": ('text,id\n"my card\nis gone",1\n"a ""pin""",2\n', ["my card\nis gone", 'a "pin"']),
    "carriage-returns.csv": ("text,id\r\nmy card,1\r\ncash,2\r\n", ["my card", "cash"]),
    "semicolons.csv": ("id;text\n1;my card, please\n2;cash\n", ["my card, please", "cash"]),
    "bars.csv": ("id|text\n1|my card\n2|cash\n", ["my card", "cash"]),
    "two-names.csv": ("title,text\nshort title,card pin chip\nanother,cash\n", ["card pin chip", "cash"]),
    "index-column.csv": (",text,label\n0,my card,a\n1,cash,b\n", ["my card", "cash"]),
    "blank-lines.csv": ("\ntext,id\n\nmy card,1\n  \ncash,2\n\n", ["my card", "cash"]),
    "blank-texts.csv": ("text,id\n,1\ncash,2\n", ["", "cash"]),
    "missing-words.csv": ("text,id\nNA,1\nnull,2\nNone,3\n", ["NA", "null", "None"]),
    "nul.csv": ("text,id\nmy\0card,1\ncash,2\n", ["mycard", "cash"]),
    "mark.csv": ("\ufefftext,id\nmy card,1\ncash,2\n", ["my card", "cash"]),
    "utf-16.csv": ("text\nmy card is gone\n".encode("utf-16"), ["my card is gone"]),
    "utf-16-tabs.csv": (f"id\ttext\n1\t{RUSSIAN}\n2\tcash\n".encode("utf-16"), [RUSSIAN, "cash"]),
    "windows.csv": (("id,text\n" + "".join(f'{n},"{FRENCH}"\n' for n in range(9))).encode("cp1252"), [FRENCH] * 9),
    "long.csv": (f"text,id\n{LONG},1\ncash,2\n", [LONG, "cash"]),
    "header-only.csv": ("text,id\n", None),
    "empty.csv": ("", None),
    "packed.csv": (b"\x1f\x8b\x08\x00rows", None),
    "sheet.csv": (b"PK\x03\x04\x14\x00rows", None),
    "texts.json": ('["card pin chip", "cash machine"]', ["card pin chip", "cash machine"]),
    "texts.jsonl": ('"card pin chip"\n"cash machine"\n', ["card pin chip", "cash machine"]),
    "texts-and-rows.jsonl": ('"card pin chip"\n{"text": "cash machine", "id": 2}\n', None),
    "rows-and-texts.json": ('[{"text": "card pin chip"}, "cash machine"]', None),
    "array.json": ('[\n  {"text":"card pin chip"},\n  {"text":"cash machine"}\n]\n', ["card pin chip", "cash machine"]),
    "one-object.json": ('{"text": "card"}', ["card"]),
    "lines.json": ('{"text": "card"}\n{"text": "cash"}\n', ["card", "cash"]),
    "under-a-key.json": ('{"data": [{"text": "card"}, {"text": "cash"}]}', ["card", "cash"]),
    "null.jsonl": (jsonl({"text": "card"}, {"text": None}, {"id": 3}, {"text": "cash"}), ["card", "", "", "cash"]),
    "numbers.jsonl": (jsonl({"text": 3}, {"text": 2.0}, {"text": True}), ["3", "2", "true"]),
    "late-column.jsonl": (jsonl({"id": 1}, {"text": "card", "id": 2}), ["", "card"]),
    "separators.jsonl": ('{"text": "a\u2028b\x85c"}\n\n{"text": "d"}\r\n', ["a\u2028b\x85c", "d"]),
    "mark.jsonl": ("\ufeff" + jsonl({"text": "card"}), ["card"]),
    "utf-16.jsonl": (jsonl({"text": "card"}, {"text": "cash"}).encode("utf-16"), ["card", "cash"]),
    "broken.jsonl": ('{"text": "card"}\n{"text": \n', None),
    "array.jsonl": ('[\n{"text": "card"}\n]\n', None),
    "deep.jsonl": ('{"text": ' + "[" * 100_000 + "\n", None),
    "packed.jsonl": (b"\x28\xb5\x2f\xfdrows", None),
}  # fmt: skip


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, *, named=(), trained=("text",), parts=("text",), **options):
    """The texts of a file, and what was said."""
    sentences = []
    wanted = ColumnRequest(parts=parts, named=tuple(named), trained=tuple(trained))
    inputs = list(FileOfTexts(path, FileOptions(**options), wanted, sentences.append).inputs())
    return [texts[0] for texts in inputs] if len(parts) == 1 else inputs, sentences


def refused(path, **options):
    with pytest.raises(InputError) as caught:
        read(path, **options)
    return caught.value


@pytest.mark.parametrize("name", HOSTILE)
def test_answers_are_of_the_texts_that_training_reads(tmp_path, name):
    content, texts = HOSTILE[name]
    path = written(tmp_path / name, content)
    if texts is None:
        with pytest.raises(DataError) as training:
            read_table(path, FileOptions())
        error = refused(path)
        assert error.found.rpartition(":")[2] == training.value.found.rpartition(":")[2]
        assert "--set" not in error.action
        return
    table = read_table(path, FileOptions())
    answered, sentences = read(path)
    assert answered == list(table.columns["text"])
    why = "the only one" if name.startswith("none") else "as in training"
    assert sentences == [*table.findings, f"Texts of {name} are read from column 'text' ({why})."]
    if table.encoding is None:  # what is guessed may be another kin of it
        assert answered == texts


LINES = {
    "plain.txt": b"my card\n\n  \ncash\n",
    "windows.txt": b"my card\r\ncash\r\n",
    "no-end.txt": b"my card\ncash",
    "separators.txt": "a\u2028b\x85c\nd\n".encode(),
    "utf-16.txt": "my card\ncash\n".encode("utf-16"),
    "mark.txt": "\ufeffmy card\n".encode(),
}


@pytest.mark.parametrize("name", LINES)
def test_lines_are_those_that_training_reads(tmp_path, name):
    path = written(tmp_path / name, LINES[name])
    file = FileOfTexts(path, FileOptions(), ColumnRequest(parts=("text",)), lambda sentence: None)
    texts, _ = read_unlabeled(str(path), FileOptions(), "text")
    assert list(file.lines()) == list(texts)


def test_the_column_of_training_goes_before_a_usual_name(tmp_path):
    path = written(tmp_path / "a.csv", "title,text,body\none two,three four,five six\nseven,eight,nine\n")
    assert read(path, trained=["body"]) == (
        ["five six", "nine"],
        ["Texts of a.csv are read from column 'body' (as in training)."],
    )
    assert read(path, named=["title"], trained=["body"])[1] == [
        "Texts of a.csv are read from column 'title' (as --column says)."
    ]


def test_another_column_than_that_of_training_is_said(tmp_path):
    path = written(tmp_path / "a.csv", "id,message\n1,where is my card\n2,cash please\n")
    texts, (sentence,) = read(path, trained=["Review"])
    assert texts == ["where is my card", "cash please"]
    assert sentence == (
        "Texts of a.csv are read from column 'message' (a guess, since training's column 'Review' is not there; "
        "--column says otherwise)."
    )


def test_of_an_older_bundle_the_column_is_guessed_as_training_does(tmp_path):
    path = written(tmp_path / "a.csv", "title,text\nshort title one,card pin chip contactless\nanother,cash banknote\n")
    assert read(path, trained=[])[0] == ["card pin chip contactless", "cash banknote"]
    assert read(written(tmp_path / "b.csv", "id,text\n7,where is my card\n"), trained=[])[0] == ["where is my card"]


def test_two_columns_that_may_both_be_the_text_are_asked_for(tmp_path):
    rows = {"left": "as long as this", "right": "as long as that"}, {"left": "b", "right": "c"}
    path = written(tmp_path / "a.jsonl", jsonl(*rows))
    error = refused(path, trained=[])
    assert error.found == "a.jsonl does not say which column holds the texts; its columns are left, right."
    assert error.action == "name one with --column"
    assert "has no column 'body'" in refused(path, named=["body"]).found


def test_pairs_are_read_from_the_columns_of_training(tmp_path):
    path = written(tmp_path / "a.csv", "sentence2,sentence1,q,a\nb,a,where is it,in the box\n")
    parts = ("text", "text_pair")
    assert read(path, parts=parts, trained=("q", "a"))[0] == [("where is it", "in the box")]
    assert read(path, parts=parts, trained=())[0] == [("a", "b")]
    assert "columns 'sentence1' and 'sentence2' (a guess" in read(path, parts=parts, trained=())[1][0]


# The first line.


@pytest.mark.parametrize(
    "content",
    [
        "my card is gone\nthe cash machine swallowed it\nlogin password wrong\n",
        "refund\ncancel\nlogin\n",
        "我的卡丢了\n取款机吞卡\n密码错误了\n",
        "card,my card gone\ncash,give me money\nlogin,pass word where\n",
    ],
)
def test_a_first_line_that_may_be_a_row_is_asked_for(tmp_path, content):
    path = written(tmp_path / "a.csv", content)
    error = refused(path)
    assert "the first line may name columns or be a row: " in error.found
    assert error.action == "say which: --header true or --header false"
    column = "column_2" if "," in content else "column_1"
    rows = content.count("\n")
    assert len(read(path, header=False, named=[column])[0]) == rows


@pytest.mark.parametrize(
    "content",
    [
        "whatever\nmy card is lost\ni forgot my password\n",
        "正文\n我的卡在取款机里丢了怎么办\n密码忘记了要怎么才能改\n",
        "number,anything\n1,card\n2,cash\n",
    ],
)
def test_a_first_line_of_a_name_above_texts_is_a_header(tmp_path, content):
    assert len(read(written(tmp_path / "a.csv", content))[0]) == 2


def test_the_names_of_training_tell_a_header_from_a_row(tmp_path):
    path = written(tmp_path / "a.csv", "What did they say? Tell us.,n\nWhat did they say? Tell us.,x\nmy card,y\n")
    assert read(path, trained=["What did they say? Tell us."])[0] == ["What did they say? Tell us.", "my card"]
    path = written(tmp_path / "b.csv", "text\tmy card\ntext\tcash\n")
    assert read(path, trained=["column_2"])[0] == ["my card", "cash"]  # trained on files without header


# Files that are no files of text, and installations without readers for them.


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [
        ("a.csv.gz", b"\x1f\x8b\x08\x00", "compressed with gzip"),
        ("a.txt", b"BZh91AY&SY", "compressed with bzip2"),
        ("a.csv", b"\xfd7zXZ\x00\x00", "compressed with xz"),
        ("a.csv", b"PK\x03\x04\x14\x00", "a zip archive or an Excel workbook"),
        ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document, such as .xls"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
        ("a.json", b"%PDF-1.7\n", "a PDF"),
        ("a.csv", b"PAR1\x15\x04", "a Parquet file"),
    ],
)
def test_a_file_of_something_else_is_named_for_what_it_is(tmp_path, name, head, words):
    path = written(tmp_path / name, head + b"\x00\xff" * 40)
    file = FileOfTexts(path, FileOptions(), ColumnRequest(parts=("text",)), lambda sentence: None)
    with pytest.raises(InputError, match=words) as caught:
        list(file.inputs() if name.endswith((".csv", ".json", ".jsonl")) else file.lines())
    assert caught.value.action


def test_parquet_is_read_as_training_reads_it(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2], "text": ["my card", None]}), path)
    assert read(path)[0] == ["my card", ""]


def test_a_missing_reader_is_told_with_what_brings_it(tmp_path, monkeypatch):
    from edgetune.commands import text_files

    def without(path, options):
        raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")

    monkeypatch.setattr(text_files, "read_table", without)
    with pytest.raises(MissingDependency, match=r"pyarrow is needed.*\n.*\n.*pip install 'edgetune\[build\]'"):
        read(tmp_path / "a.parquet")


def test_files_are_read_without_what_only_training_needs(tmp_path):
    """In a process in which torch, pandas, datasets and pydantic cannot be imported."""
    names = ["quoted-commas.csv", "stray-quote.tsv", "array.json", "null.jsonl", "utf-16.csv"]
    for name in names:
        written(tmp_path / name, HOSTILE[name][0])
    code = textwrap.dedent("""
        import sys
        for name in ("torch", "pandas", "datasets", "pydantic", "transformers", "charset_normalizer", "yaml"):
            sys.modules[name] = None
        from pathlib import Path
        from edgetune.commands.texts import FileOptions, Source, ColumnRequest
        for path in sys.argv[1:]:
            wanted = ColumnRequest(parts=("text",), trained=("text",))
            print(len(list(Source((), path, FileOptions(), wanted).inputs())))
    """)
    run = subprocess.run(
        [sys.executable, "-c", code, *(str(tmp_path / name) for name in names)], capture_output=True, text=True
    )
    assert run.stdout.split() == [str(len(HOSTILE[name][1])) for name in names], run.stderr


@pytest.mark.parametrize("suffix", [".jsonl", ".txt"])
def test_lines_are_not_held_in_memory(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    row = {"text": "x" * 200, "id": 1}
    with path.open("w") as stream:
        stream.writelines((json.dumps(row) if suffix == ".jsonl" else "x" * 220) + "\n" for _ in range(60_000))
    file = FileOfTexts(path, FileOptions(), ColumnRequest(parts=("text",), trained=("text",)), lambda sentence: None)
    tracemalloc.start()
    try:
        count = sum(1 for _ in (file.inputs() if suffix == ".jsonl" else file.lines()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 60_000
    assert peak < path.stat().st_size / 2


def test_a_pipe_is_read_as_it_comes(tmp_path):
    path = tmp_path / "a.jsonl"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(jsonl({"text": "card"}, {"text": "cash"}),))
    writer.start()
    try:
        assert read(path)[0] == ["card", "cash"]
    finally:
        writer.join(20)


def test_what_csv_writes_is_read_back(tmp_path):
    texts = ['a "quote", and\nmore', "tab\there", "semi;colon", " blanks ", "plain"]
    for delimiter, suffix in ((",", "csv"), (";", "csv"), ("\t", "csv"), ("\t", "tsv")):
        path = tmp_path / f"a.{suffix}"
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(
                [("id", "text"), *enumerate(texts)]
            )
        if suffix == "csv":
            assert read(path)[0] == texts
