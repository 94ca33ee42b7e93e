"""`edgetune predict`, `inspect` and `verify` of bundles with other heads, and of pairs of texts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgetune.serve import load
from edgetune.serve.codecs import CODECS
from tests.golden.kinds import ROW_CODECS, ROW_KINDS

PAIRS = [("where is my parcel", "card"), ("card, please", "money")]
FILES = {
    "named.csv": 'text_pair,text\ncard,where is my parcel\nmoney,"card, please"\n',
    "named.jsonl": "".join(json.dumps({"text": a, "text_pair": b}) + "\n" for a, b in PAIRS),
    "lines.txt": "".join(f"{a}\t{b}\n" for a, b in PAIRS),
}


@pytest.fixture
def pair_lines(kind_bundle):
    predictor = load(kind_bundle("number", "text-pair"), threads=1)
    return [f"{answer.value:.6g}\t{a}\t{b}" for answer, (a, b) in zip(predictor.predict(PAIRS), PAIRS, strict=True)]


@pytest.mark.parametrize("name", FILES)
def test_pairs_from_files(edgetune, kind_bundle, tmp_path, pair_lines, name):
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    bundle = kind_bundle("number", "text-pair")
    ended = edgetune("predict", bundle, "--threads", "1", "--input", tmp_path / name)
    said = f"Texts of {name} are read from columns 'text' and 'text_pair' (a guess; --column says otherwise).\n"
    assert (ended.code, ended.err) == (0, "" if name == "lines.txt" else said)
    assert ended.out.splitlines() == pair_lines


def test_pairs_by_named_columns(edgetune, kind_bundle, tmp_path, pair_lines):
    (tmp_path / "rows.tsv").write_text("id\tb\ta\n1\tcard\twhere is my parcel\n2\tmoney\tcard, please\n")
    columns = ("--column", "a", "--column", "b")
    bundle = kind_bundle("number", "text-pair")
    ended = edgetune("predict", bundle, "--threads", "1", "--input", tmp_path / "rows.tsv", *columns)
    assert ended.out.splitlines() == pair_lines


@pytest.mark.parametrize("stdin", [False, True])
def test_pairs_are_separated_by_a_tab(edgetune, kind_bundle, pair_lines, stdin):
    lines = ["\t".join(pair) for pair in PAIRS]
    bundle = kind_bundle("number", "text-pair")
    if stdin:
        ended = edgetune("predict", bundle, "--threads", "1", stdin="\n".join(lines) + "\n")
    else:
        ended = edgetune("predict", bundle, "--threads", "1", *lines)
    assert (ended.code, ended.out.splitlines()) == (0, pair_lines)


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("labels", 1, "of the kind 'labels', which is never unsure"),
        ("number", 2, "--abstain-below would have no effect"),
    ],
)
def test_answers_that_are_never_unsure(edgetune, kind_bundle, kind, code, words):
    ended = edgetune("predict", kind_bundle(kind), "--abstain-below", "0.5", "card")
    assert (ended.code, ended.out) == (code, "")
    assert words in " ".join(ended.err.split())


def test_blank_parts_get_no_answer(edgetune, kind_bundle):
    ended = edgetune("predict", kind_bundle("number", "text-pair"), stdin="a\tb\n\n \tb\n")
    assert [line.split("\t")[1:] for line in ended.out.splitlines()] == [["a", "b"], ["", ""], [" ", "b"]]
    assert [line.split("\t")[0] == "" for line in ended.out.splitlines()] == [False, True, True]
    assert ended.err == "2 of 3 texts are blank and got no answer.\n"


@pytest.mark.parametrize(
    ("arguments", "files", "code", "words"),
    [
        (("card",), {}, 1, "Argument 1 holds 1 text(s): 'card'.\nExpected: text and text_pair, separated by a tab"),
        (("a\tb", "a\tb\tc"), {}, 1, "Argument 2 holds 3 text(s)"),
        (
            ("--input", "rows.csv"),
            {"rows.csv": "left,right\na,b\n"},
            1,
            "does not say which column holds the text and the text_pair; its columns are left, right.\n"
            "To do: name them: --column TEXT --column TEXT_PAIR",
        ),
        (
            ("--input", "rows.csv", "--column", "left", "--column", "wrong"),
            {"rows.csv": "left,right\na,b\n"},
            1,
            "has no column 'wrong'",
        ),
        (
            ("--input", "rows.csv", "--column", "left"),
            {"rows.csv": "left,right\na,b\n"},
            2,
            "--column is given 1 times for 2: text and text_pair.",
        ),
        (("--top", "2", "a\tb"), {}, 2, "--top would have no effect"),
    ],
)
def test_what_is_no_pair_is_refused(edgetune, kind_bundle, tmp_path, monkeypatch, arguments, files, code, words):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    ended = edgetune("predict", kind_bundle("number", "text-pair"), *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_json_holds_the_texts_and_the_answer(edgetune, kind_bundle, kind):
    bundle = kind_bundle(kind, "text-pair")
    predictor = load(bundle, threads=1)
    found = json.loads(edgetune("predict", bundle, "--threads", "1", "--json", "\t".join(PAIRS[0]), "\t").out)
    answer = predictor.head.as_json(predictor.predict_one(PAIRS[0]), predictor.head.width)
    assert found[0] == {"text": PAIRS[0][0], "text_pair": PAIRS[0][1], **answer}
    assert found[1] == {"text": "", "text_pair": "", **predictor.head.blank}


def test_several_labels_stand_on_one_line_and_the_best_on_lines_of_their_own(edgetune, kind_bundle):
    bundle = kind_bundle("labels")
    text = "where is my parcel"
    answer = load(bundle, threads=1).predict_one(text)
    scores = ", ".join(f"{answer.scores[label]:.4f}" for label in answer.labels)
    assert edgetune("predict", bundle, text).out == f"{', '.join(answer.labels) or '(none)'}\t{scores}\t{text}\n"
    best = sorted(answer.scores, key=answer.scores.__getitem__, reverse=True)
    lines = edgetune("predict", bundle, "--top", "2", text).out.splitlines()
    assert lines == [f"{label}\t{answer.scores[label]:.4f}\t{text}" for label in best[:2]]


def test_entities_stand_on_lines_of_their_own(edgetune, kind_bundle):
    bundle = kind_bundle("entities", "tokens")
    text = "where is my parcel, and where is my card?"
    predictor = load(bundle, threads=1)
    entities = predictor.predict_one(text).entities
    assert len(entities) > 1
    lines = edgetune("predict", bundle, "--threads", "1", text).out.splitlines()
    assert lines == [f"{one.type}\t{one.text}\t{one.score:.4f}\t{text}" for one in entities]
    (found, blank) = json.loads(edgetune("predict", bundle, "--threads", "1", "--json", text, " ").out)
    assert found == {"text": text, **predictor.head.as_json(predictor.predict_one(text), None)}
    assert blank == {"text": " ", "entities": None, "truncated": False}
    out = edgetune("inspect", bundle).out
    assert "input       a text, read token by token\nanswer      spans of 3 labels: O, B-thing, I-thing\n" in out
    assert "8 golden answers replayed" in edgetune("verify", bundle).out


SHOWN = {
    "label": "one of 3 labels: account, delivery, payment",
    "labels": "any of 3 labels: account, delivery, payment",
    "number": "a number",
    "embedding": "a vector of 3 numbers",
}


@pytest.mark.parametrize("kind", ROW_KINDS)
@pytest.mark.parametrize("codec", ROW_CODECS)
def test_inspect_and_verify_know_every_kind(edgetune, kind_bundle, kind, codec):
    bundle = kind_bundle(kind, codec)
    out = edgetune("inspect", bundle).out
    assert f"input       {CODECS[codec].summary}\nanswer      {SHOWN[kind]}\n" in out
    assert "8 golden answers replayed" in edgetune("verify", bundle).out


def test_inspect_shows_several_heads_and_those_of_later_releases(edgetune, kind_bundle, tmp_path):
    import shutil

    folder = tmp_path / "bundle"
    shutil.copytree(kind_bundle("label"), folder)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["heads"] = [{"kind": "number", "output": "age"}, {"kind": "spans", "output": "places", "labels": ["x"]}]
    manifest["codec"] = "sound"
    del manifest["manifest_digest"]  # it is no longer the one that was packed
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    out = edgetune("inspect", folder).out
    assert "input       sound (of a newer edgetune)\n" in out
    assert "answer      age: a number\nanswer      places: spans (of a newer edgetune)\n" in out
    for command in ("predict", "verify"):
        ended = edgetune(command, folder, *(["card"] if command == "predict" else []))
        assert ended.code == 1
        assert "install a newer edgetune" in ended.err


def test_options_of_vectors_are_refused_elsewhere(edgetune, kind_bundle, tmp_path):
    ended = edgetune("predict", kind_bundle("label"), "card", "--output", tmp_path / "x.npy", "--prompt", "query")
    assert (ended.code, ended.out) == (2, "")
    assert "--prompt, --output would have no effect" in ended.err
    assert "gives no vectors" in ended.err


def test_vectors_of_a_file(edgetune, kind_bundle, tmp_path):
    bundle, file = kind_bundle("embedding"), tmp_path / "vectors.npy"
    (tmp_path / "texts.csv").write_text("text\nwhere is my parcel\ncard\n", "utf-8")
    ended = edgetune("predict", bundle, "--input", tmp_path / "texts.csv", "--output", file, "--prompt", "document")
    assert (ended.code, ended.out) == (0, "")
    assert f"2 vectors of 3 numbers, float32, in {file}." in ended.err
    expected = load(bundle).embed(["where is my parcel", "card"], prompt="document")
    assert np.allclose(np.load(file), expected, atol=1e-6)
    ended = edgetune("predict", bundle, "card", "--output", tmp_path / "none" / "x.npy")
    assert ended.code == 1
    assert "cannot be written" in ended.err
