"""How delimited files are written: escapes by backslash, Excel's declaration, headers, doubled names, no value."""

import subprocess
import sys

import pytest

from edgetune.serve.errors import DataError
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.reading import read_table


def read(path, content, **options):
    path.write_text(content, encoding="utf-8", newline="")
    return read_table(path, FileOptions(**options))


ESCAPED = {
    "all quoted": '"text","label"\n"he said \\"no\\" twice","card"\n"a, b","cash"\n',
    "where needed": 'text,label\n"he said \\"no\\" twice",card\n"a, b",cash\n',
    "with a comma": 'text,label\n"he said \\"no\\", twice",card\nplain,cash\n',
}


@pytest.mark.parametrize("kind", ESCAPED)
def test_quotes_escaped_with_a_backslash_are_plain_quotes(tmp_path, kind):
    table = read(tmp_path / "a.csv", ESCAPED[kind])
    first = 'he said "no", twice' if "comma" in kind else 'he said "no" twice'
    assert table.columns["text"][0] == first
    assert table.columns["label"] == ("card", "cash")
    assert table.findings == ("The quotes inside texts of a.csv are escaped with a backslash.",)


def test_backslashes_at_the_end_of_a_text_and_elsewhere_stay(tmp_path):
    table = read(tmp_path / "a.csv", 'text,label\n"in C:\\dir, \\"here\\" C:\\\\",x\n"b\\n",y\n')
    assert table.columns["text"] == ('in C:\\dir, "here" C:\\', "b\\n")


def test_a_backslash_before_a_closing_quote_is_part_of_the_text_where_nothing_is_escaped(tmp_path):
    table = read(tmp_path / "a.csv", 'text,label\n"in C:\\dir\\",x\n"a, b",y\n')
    assert table.columns["text"] == ("in C:\\dir\\", "a, b")
    assert table.findings == ()


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_line_by_which_excel_is_told_the_delimiter_is_obeyed(tmp_path, line, ending):
    table = read(tmp_path / "a.csv", ending.join([line, "text;label", "a, b, c;x", "d, e, f;y", ""]))
    assert table.columns == {"text": ("a, b, c", "d, e, f"), "label": ("x", "y")}


def test_lines_keep_their_numbers_below_that_line(tmp_path):
    with pytest.raises(DataError, match=r"a.csv, line 4: 3 fields"):
        read(tmp_path / "a.csv", "sep=;\ntext;label\na;x\nb;c;y\nd;z\n")


@pytest.mark.parametrize("header", ["0,1", "1,2"])
def test_numbers_in_order_above_texts_are_a_header(tmp_path, header):
    rows = "".join(f"where is my card {n},{n % 2}\n" for n in range(6))
    table = read(tmp_path / "a.csv", f"{header}\n{rows}")
    assert (tuple(table.columns), len(table), table.header) == (tuple(header.split(",")), 6, True)
    indexed = read(tmp_path / "b.csv", ",0,1\n" + "".join(f"{n},where is my card {n},x\n" for n in range(6)))
    assert tuple(indexed.columns) == ("column_1", "0", "1")


def test_numbers_above_numbers_are_a_row(tmp_path):
    table = read(tmp_path / "a.csv", "0,1\n" + "".join(f"{n},{n % 2}\n" for n in range(6)))
    assert (len(table), table.header) == (7, False)


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("text,text_3,text,label", ("text", "text_3", "text_3_2", "label")),
        ("text,text,text_2,label", ("text", "text_2_2", "text_2", "label")),
        (",column_1,text,label", ("column_1_2", "column_1", "text", "label")),
        ("text,text,text,label", ("text", "text_2", "text_3", "label")),
    ],
)
def test_names_that_come_twice_are_made_different_and_others_kept(tmp_path, header, names):
    table = read(tmp_path / "a.csv", f"{header}\na,b,c,x\nd,e,f,y\n")
    assert tuple(table.columns) == names
    assert table.columns[names[2]] == ("c", "f")
    renamed = [(old, new) for old, new in zip(header.split(","), names, strict=True) if old and old != new]
    said = ", ".join(f"{old!r} again is named {new!r}" for old, new in renamed)
    assert table.findings == ((f"Columns of a.csv have the same name: {said}.",) if renamed else ())


def test_no_value_as_databases_write_it_is_an_empty_cell_and_said(tmp_path):
    table = read(tmp_path / "a.tsv", "text\tlabel\nwhere is it\t\\N\nnot here\tx\n\\Nothing\ty\n")
    assert table.columns == {"text": ("where is it", "not here", "\\Nothing"), "label": ("", "x", "y")}
    assert table.findings == ("No value (\\N) in 1 cell of column 'label' of a.tsv.",)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.csv.gz", b"\x1f\x8b\x08\x00rest", "is compressed with gzip."),
        ("a.csv", b"\x1f\x8b\x08\x00rest", "is compressed with gzip."),
        ("a.xlsx", b"PK\x03\x04rest", "is a zip archive or an Excel workbook."),
        ("a.csv", b"<!DOCTYPE html><html><body>404</body></html>", "is a web page."),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS."),
    ],
)
def test_files_that_stand_for_others_are_named(tmp_path, name, content, found):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / name, FileOptions())
    assert caught.value.found == f"{tmp_path / name} {found}"
    assert caught.value.action


def test_text_files_are_read_without_heavy_packages(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\ndéjà vu,x\nà côté,y\n".encode("cp1252"))
    (tmp_path / "b.jsonl").write_text('{"text": "a", "label": "x"}\n', encoding="utf-8")
    code = (
        "import sys\n"
        "from edgetune.tune.data.dialect import FileOptions\n"
        "from edgetune.tune.data.sources import read_source\n"
        "print([len(read_source(name, FileOptions()).train) for name in ('a.csv', 'b.jsonl')])\n"
        "heavy = {'torch', 'transformers', 'pandas', 'datasets', 'pyarrow', 'numpy', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["[2, 1]", "[]", ""]
