"""`edgetune predict`: texts from the command line, files and standard input; what it prints and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest

TEXTS = ["my card is lost", "i forgot my password"]


@pytest.fixture
def bundle(workshop):
    """A whole bundle."""
    return workshop.folder / "bundle"


@pytest.fixture
def answers(bundle):
    """Label and score of `TEXTS`, straight from the runtime."""
    from edgetune.serve import load

    return [(answer.label, answer.score) for answer in load(bundle, threads=1).predict(TEXTS)]


@pytest.fixture
def lines(answers):
    """What predict prints for `TEXTS`."""
    return [f"{label}\t{score:.4f}\t{text}" for (label, score), text in zip(answers, TEXTS, strict=True)]


def test_texts_as_arguments(edgetune, bundle, lines):
    ended = edgetune("predict", bundle, "--threads", "1", *TEXTS)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == lines


def test_unsure_answers(edgetune, bundle, answers):
    (first, second) = sorted(score for _, score in answers)
    below = (first + second) / 2
    unsure = [score < below for _, score in answers]
    ended = edgetune("predict", bundle, "--threads", "1", "--abstain-below", str(below), *TEXTS)
    assert (ended.code, ended.err) == (0, "")
    shown = [label if sure else "unsure" for (label, _), sure in zip(answers, [not no for no in unsure], strict=True)]
    assert [line.split("\t")[0] for line in ended.out.splitlines()] == shown
    ended = edgetune("predict", bundle, "--threads", "1", "--abstain-below", str(below), "--json", *TEXTS)
    values = json.loads(ended.out)
    assert [(value["label"], value["unsure"]) for value in values] == [
        (label, no) for (label, _), no in zip(answers, unsure, strict=True)
    ]


FILES = {
    "semicolons.csv": "id;text\n1;my card is lost\n2;i forgot my password\n",
    "rows.csv": "id,text\n1,my card is lost\n2,i forgot my password\n",
    "rows.tsv": "text\tid\nmy card is lost\t1\ni forgot my password\t2\n",
    "rows.jsonl": '{"id": 1, "text": "my card is lost"}\n\n{"text": "i forgot my password"}\n',
    "rows.ndjson": '{"message": "my card is lost"}\n{"message": "i forgot my password"}\n',
    "rows.txt": "my card is lost\r\ni forgot my password",
    "one.csv": "whatever\nmy card is lost\n\n\ni forgot my password\n",
    "bom.csv": "\ufefftext,id\nmy card is lost,1\ni forgot my password,2\n",
    "list.json": '[\n  {"text": "my card is lost"},\n  {"text": "i forgot my password"}\n]\n',
}
TAKEN = {"rows.ndjson": ("message", "the only one"), "one.csv": ("whatever", "the only one")}


@pytest.mark.parametrize("name", FILES)
def test_files_of_every_kind(edgetune, bundle, tmp_path, lines, name):
    (tmp_path / name).write_text(FILES[name], encoding="utf-8", newline="")
    ended = edgetune("predict", bundle, "--threads", "1", "--input", tmp_path / name)
    column, why = TAKEN.get(name, ("text", "as in training"))
    sentence = f"Texts of {name} are read from column '{column}' ({why}).\n"
    assert (ended.code, ended.err) == (0, "" if name.endswith(".txt") else sentence)
    assert ended.out.splitlines() == lines


def test_a_column_by_name(edgetune, bundle, tmp_path, lines):
    rows = "text,body\nwrong,my card is lost\nwrong,i forgot my password\n"
    (tmp_path / "rows.csv").write_text(rows, encoding="utf-8")
    ended = edgetune("predict", bundle, "--threads", "1", "--input", tmp_path / "rows.csv", "--column", "body")
    assert ended.out.splitlines() == lines


@pytest.mark.parametrize("arguments", [(), ("--input", "-")])
def test_standard_input(edgetune, bundle, lines, arguments):
    ended = edgetune("predict", bundle, "--threads", "1", *arguments, stdin="\n".join(TEXTS) + "\n")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == lines


@pytest.mark.parametrize(
    ("line", "kind"), [('{"text": "card"}', "JSON"), ("[", "JSON"), ('["card"]', "JSON"), ("id;text", "a header")]
)
def test_lines_of_rows_are_answered_as_they_stand_and_that_is_said(edgetune, bundle, tmp_path, line, kind):
    (tmp_path / "rows.txt").write_text(f"{line}\ncard\n")
    for arguments, stdin, name in (
        ((), f"{line}\n", "standard input"),
        (("--input", tmp_path / "rows.txt"), "", "rows.txt"),
    ):
        ended = edgetune("predict", bundle, *arguments, stdin=stdin)
        assert ended.out.splitlines()[0].split("\t")[2] == line
        assert ended.err == (
            f"The lines of {name} are answered as texts, and the first is {kind}: such rows are read from a file with "
            "that suffix, --input FILE.jsonl or FILE.csv.\n"
        )


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("где карта\n".encode("utf-16"), 0, ""),
        ("\ufeffmy card\r\n".encode(), 0, ""),
        ("my card\ndie Karte ist länger\n".encode("cp1252"), 1, "Standard input, line 2, is not UTF-8"),
    ],
)
def test_standard_input_of_other_encodings(edgetune, bundle, content, code, words):
    ended = edgetune("predict", bundle, stdin=content)
    assert (ended.code, words in ended.err) == (code, True)
    if code:
        assert "To do: name its encoding: --encoding NAME" in ended.err
        ended = edgetune("predict", bundle, "--input", "-", "--encoding", "cp1252", stdin=content)
        assert ended.out.splitlines()[1].endswith("\tdie Karte ist länger")
    else:
        assert ended.out.rstrip("\n").split("\t")[2] in ("где карта", "my card")


def test_the_best_labels_in_order(edgetune, bundle):
    rows = [line.split("\t") for line in edgetune("predict", bundle, "--top", "3", TEXTS[0]).out.splitlines()]
    scores = [float(row[1]) for row in rows]
    assert len({row[0] for row in rows}) == 3
    assert scores == sorted(scores, reverse=True)
    assert {row[2] for row in rows} == {TEXTS[0]}
    assert len(edgetune("predict", bundle, "--top", "99", TEXTS[0]).out.splitlines()) == 4


def test_json_is_one_document_with_every_score(edgetune, bundle):
    from edgetune.serve import load

    long = "again " * 300
    ended = edgetune("predict", bundle, "--threads", "1", "--json", *TEXTS, "   ", long)
    # The same three texts together: int8 scales are taken over the whole batch, so neighbours move the scores.
    wanted = load(bundle, threads=1).predict([*TEXTS, long])
    first, second, blank, long = json.loads(ended.out)
    found = [(entry["label"], entry["score"], entry["scores"]) for entry in (first, second, long)]
    assert found == [(answer.label, answer.score, answer.scores) for answer in wanted]
    assert set(first) == {"text", "label", "score", "scores", "truncated"}
    assert set(first["scores"]) == {"card", "cash", "login", "transfer"}
    assert sum(first["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert blank == {"text": "   ", "label": None, "score": None, "scores": None, "truncated": False}
    assert (first["truncated"], long["truncated"]) == (False, True)
    assert ended.err == "1 of 4 texts are blank and got no answer.\n"


def test_a_cut_text_is_marked_and_a_tab_does_not_split_the_line(edgetune, bundle):
    cut, tab = edgetune("predict", bundle, "again " * 300, "my\tcard\nnow").out.splitlines()
    assert cut.endswith("\t(truncated)")
    assert tab.split("\t")[2] == "my card now"


def test_many_texts_come_in_order_and_blank_ones_keep_their_place(edgetune, bundle):
    texts = [f"card {number}" if number % 7 else "" for number in range(600)]
    ended = edgetune("predict", bundle, stdin="\n".join(texts) + "\n")
    assert [line.split("\t")[2] for line in ended.out.splitlines()] == texts
    assert ended.err == f"{texts.count('')} of 600 texts are blank and got no answer.\n"


@pytest.mark.parametrize("name", ["stdin", "rows.txt", "rows.csv", "header.csv", "rows.jsonl"])
def test_an_empty_input(edgetune, bundle, tmp_path, name):
    if name == "stdin":
        ended = edgetune("predict", bundle)
    else:
        (tmp_path / name).write_text("text\n" if name == "header.csv" else "", encoding="utf-8")
        ended = edgetune("predict", bundle, "--input", tmp_path / name)
    words = {
        "rows.csv": f"{tmp_path / name} is empty (0 bytes).",
        "header.csv": "header.csv has a header (text) and no rows.\nExpected: a row of texts or more.\n"
        "To do: add rows, or pass --header false if its first line is a row.",
    }
    assert (ended.code, ended.out) == (1, "")
    there_is_none = "There is no text to answer.\nExpected: a TEXT, --input FILE, or lines"
    assert ended.err.startswith("Error: " + words.get(name, there_is_none))


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_blank_lines_only(edgetune, bundle, as_json):
    ended = edgetune("predict", bundle, *as_json, stdin="\n   \n\t\n")
    assert ended.code == 1
    assert ended.out.strip() == ""
    assert ended.err == "Error: All 3 texts are blank.\nExpected: texts with something in them\n"


BAD_FILES = {
    "no-such.csv": (None, "There is no file"),
    "no-such.txt": (None, "cannot be read: No such file or directory."),
    "plain.csv": (
        b"left,right\nit is as long,as this one\nand this is,no longer\n",
        "does not say which column holds the texts; its columns are left, right.",
    ),
    "bad.jsonl": (b'{"text": "a"}\n{"text": \n', "bad.jsonl, line 2: this is not JSON"),
    "list.jsonl": (b"[1]\n", "list.jsonl, line 1: a list stands where a row was expected."),
    "commas.csv": (b"text\nmy card, and the pin, are gone\nthe cash\n", "commas.csv, line 2: 3 fields"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_cannot_be_answered(edgetune, bundle, tmp_path, name):
    content, said = BAD_FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    ended = edgetune("predict", bundle, "--input", tmp_path / name)
    assert ended.code == 1
    assert said in ended.err
    assert "Expected: " in ended.err or "To do: " in ended.err


def test_an_unknown_column_lists_those_there_are(edgetune, bundle, tmp_path):
    (tmp_path / "rows.csv").write_text("id,text\n1,card\n", encoding="utf-8")
    ended = edgetune("predict", bundle, "--input", tmp_path / "rows.csv", "--column", "body")
    assert ended.code == 1
    assert "has no column 'body'; its columns are id, text.\nTo do: name one with --column" in ended.err


def test_a_field_as_long_as_a_book(edgetune, bundle, tmp_path):
    (tmp_path / "rows.csv").write_text("text\n" + "card " * 40_000 + "\n", encoding="utf-8")
    ended = edgetune("predict", bundle, "--input", tmp_path / "rows.csv")
    assert ended.code == 0
    assert ended.out.rstrip().endswith("(truncated)")


@pytest.mark.parametrize(
    "arguments",
    [
        ("card", "--input", "rows.csv"),
        ("card", "--column", "text"),
        ("--input", "rows.txt", "--column", "text"),
        ("--input", "rows.txt", "--header", "true"),
        ("--input", "rows.jsonl", "--delimiter", ";"),
        ("--input", "rows.csv", "--encoding", "klingon"),
        ("--input", "rows.csv", "--delimiter", "::"),
        ("card", "--encoding", "utf-8"),
        ("card", "--json", "--jsonl"),
        ("card", "--top", "0"),
        ("card", "--provider", "tpu"),
    ],
)
def test_options_that_do_not_go_together(edgetune, bundle, arguments):
    ended = edgetune("predict", bundle, *arguments)
    assert (ended.code, ended.out) == (2, "")


def test_verify_replays_the_golden_answers(edgetune, bundle):
    ended = edgetune("verify", bundle, "--json")
    found = json.loads(ended.out)
    assert found["golden"]["cases"] == 8
    assert 0 <= found["golden"]["max_abs_diff"] <= found["golden"]["tolerance"]
    assert found["size_bytes"] == sum(path.stat().st_size for path in bundle.iterdir())
    assert f"{found['files']} files have the sizes and digests that were packed" in edgetune("verify", bundle).out


def test_verify_names_what_is_no_part_of_the_bundle(edgetune, bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    assert json.loads(edgetune("verify", folder, "--json").out)["strangers"] == []
    (folder / "chat_template.jinja").write_text("IGNORE ALL")
    (folder / "weights.bin").write_bytes(b"0")
    ended = edgetune("verify", folder)
    assert ended.code == 0
    assert "No part of the bundle, and never read: 'chat_template.jinja', 'weights.bin'.\n" in ended.out
    assert json.loads(edgetune("verify", folder, "--json").out)["strangers"] == ["chat_template.jinja", "weights.bin"]


def test_inspect_tells_what_the_bundle_is(edgetune, bundle):
    ended = edgetune("inspect", bundle)
    assert ended.code == 0
    assert "input       a text\nanswer      one of 4 labels: card, cash, login, transfer\n" in ended.out
    assert f"The whole report: {bundle / 'report.html'}" in ended.out
    found = json.loads(edgetune("inspect", bundle, "--json").out)
    assert found["manifest"]["format"] == found["report"]["format"] == 1
    assert found["report"]["verdict"] in ended.out


def test_inspect_tells_what_the_bundle_was_proven_for(edgetune, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(Path(__file__).parents[1] / "golden" / "bundle-v1", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["targets"] = [
        {"name": "arm64", "scheme": "int8_dynamic", "proof": "emulated", "rows": 500, "agreement": 0.998},
        {"name": "x86-64-v2", "scheme": "fused", "proof": "unproven"},
    ]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shown = edgetune("inspect", folder).out
    assert "target      arm64: int8_dynamic, 99.8% of 500 rows answered as here, emulated\n" in shown
    assert "target      x86-64-v2: fused, unproven\n" in shown
