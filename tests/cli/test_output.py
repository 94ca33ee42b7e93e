"""What commands print, wherever it goes: old terminals, closed pipes, full disks, and names that steer terminals."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgetune.commands.options import print_json, print_json_line
from edgetune.escaping import escaped, message, one_line
from edgetune.export.once.pack import write_manifest
from edgetune.serve import load
from edgetune.serve.bundle import Bundle
from edgetune.serve.predictor import Predictor

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-v1"
STEERING = "\x1b[2J\x1b]0;owned\x07"
HOSTILE = [f"card{STEERING}", "pay\tment\r\nnow", "\u202egnol\u2028\x9b31m"]
SHOWN = ["card\\x1b[2J\\x1b]0;owned\\x07", "pay\\tment\\r\\nnow", "\\u202egnol\\u2028\\x9b31m"]


def steers(text):
    return any(character < " " and character not in "\t\n" for character in text) or "\x9b" in text


@pytest.fixture
def hostile(tmp_path):
    """The golden bundle with labels and names that would steer a terminal."""
    folder = shutil.copytree(GOLDEN, tmp_path / "bundle")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["id2label"] = dict(zip(config["id2label"], HOSTILE, strict=True))
    config["label2id"] = {label: place for place, label in enumerate(HOSTILE)}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    manifest = Bundle.open(folder, verify=False).manifest
    base = msgspec.structs.replace(manifest.base, id=f"base{STEERING}")
    changed = {"labels": HOSTILE, "name": f"name{STEERING}", "base": base, "versions": {"edgetune": STEERING}}
    write_manifest(folder, msgspec.structs.replace(manifest, **changed))
    return folder


def test_labels_and_names_are_shown_escaped(edgetune, hostile):
    place = list(load(GOLDEN, threads=1).predict_one("where is my parcel").scores).index("delivery")
    ended = edgetune("predict", hostile, "--top", "3", f"where is my parcel{STEERING}", "a\tb\u2028c")
    rows = [line.split("\t") for line in ended.out.splitlines()]
    assert len(rows) == 6
    assert rows[0][0] == SHOWN[place]
    assert {row[0] for row in rows} == set(SHOWN)
    assert [rows[0][2], rows[3][2]] == ["where is my parcel\\x1b[2J\\x1b]0;owned\\x07", "a b c"]
    shown = edgetune("inspect", hostile)
    assert all(label in shown.out for label in SHOWN)
    assert "base\\x1b[2J" in shown.out
    missing = edgetune("inspect", hostile.parent / f"none{STEERING}")
    assert not any(map(steers, (ended.out, shown.out, shown.err, missing.err)))
    assert "none\\x1b[2J" in missing.err


def test_json_keeps_labels_as_they_are(edgetune, hostile):
    (answer,) = json.loads(edgetune("predict", hostile, "--json", "card").out)
    assert set(answer["scores"]) == set(HOSTILE)
    assert json.loads(edgetune("inspect", hostile, "--json").out)["manifest"]["labels"] == HOSTILE


def test_what_is_escaped_and_what_stays():
    plain = "naïve 汉字 \u3000\u00a0 👩\u200d💻 עברית \\n"
    assert (escaped(plain), one_line(plain)) == (plain, plain)
    assert escaped("a\0\x7f\ud800\u2066") == "a\\x00\\x7f\\ud800\\u2066"
    assert message("one\ntwo\x1b") == "one\ntwo\\x1b"
    assert len(message("name" * 10_000)) < 2_000


# Rows without an answer.


def test_a_broken_row_is_named_and_the_others_are_answered(edgetune, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"text": "where is my parcel"}\n{"text": "a \\ud800 b"}\n{"text": null}\n{"text": "i still money card"}\n'
    )
    ended = edgetune("predict", GOLDEN, "--input", path, "--jsonl")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert ended.code == 0
    assert [row["label"] for row in rows] == ["delivery", None, None, "payment"]
    assert rows[1] == {"text": "a \ufffd b", "label": None, "score": None, "scores": None, "truncated": False}
    assert "1 of 4 texts are blank and got no answer.\n" in ended.err
    assert (
        "1 of 4 texts got no answer for an unpaired surrogate, half a character that no encoding can carry: 2.\n"
    ) in ended.err
    lines = edgetune("predict", GOLDEN, "--input", path).out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["delivery", "", "", "payment"]


def test_many_broken_rows_are_counted_and_the_first_named(edgetune):
    ended = edgetune("predict", GOLDEN, *["\udcff"] * 7, "card")
    assert (ended.code, len(ended.out.splitlines())) == (0, 8)
    assert "7 of 8 texts got no answer for an unpaired surrogate" in ended.err
    assert ended.err.endswith("can carry: 1, 2, 3, 4, 5 and others.\n")
    ended = edgetune("predict", GOLDEN, "\udcff")
    assert ended.code == 1
    assert ended.err.startswith("Error: The text got no answer for an unpaired surrogate")
    assert "Expected: valid Unicode" in ended.err


def test_what_is_no_number_is_null_and_named(edgetune, monkeypatch):
    real = Predictor.outputs

    def outputs(self, texts, **options):
        given = real(self, texts, **options)
        for row, text in enumerate(texts):
            if text.size == 3:  # a single word
                given.logits[row, 1] = np.nan
        return given

    monkeypatch.setattr(Predictor, "outputs", outputs)
    ended = edgetune("predict", GOLDEN, "--json", "where is my parcel", "card")
    first, second = json.loads(ended.out, parse_constant=pytest.fail)
    assert (first["label"], second["label"], second["score"], second["scores"]) == ("delivery", None, None, None)
    assert ended.err == ("1 of 2 texts got no answer since the model gives no number (NaN or infinity): 2.\n")


def test_json_has_null_for_what_it_has_no_word_for(capsys):
    print_json({"a": [math.nan, 1.5, (math.inf,)], "b": {"c": -math.inf}})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "a": [None, 1.5, [None]],
        "b": {"c": None},
    }
    print_json_line({"text": "é\n\ud800"})
    assert capsys.readouterr().out == '{"text": "é\\n\ufffd"}\n'


# Where it goes.


def run(*arguments, encoding=None, **options):
    """The command in a process of its own; what it prints as bytes."""
    environment = {**os.environ, **({"PYTHONIOENCODING": encoding} if encoding else {})}
    code = "from edgetune.cli import main; main()"
    options = {"stdout": subprocess.PIPE, **options}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, env=environment, timeout=120, **options)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_an_old_terminal_shows_escapes(encoding):
    done = run("predict", GOLDEN, "где мой parcel é", encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    if encoding == "latin-1":
        assert done.stdout.rstrip().endswith(b"\\u0433\\u0434\\u0435 \\u043c\\u043e\\u0439 parcel \xe9")
    done = run("predict", GOLDEN, "--jsonl", "где мой parcel é", encoding=encoding)
    assert json.loads(done.stdout.decode(encoding))["text"] == "где мой parcel é"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    "arguments", [("predict", GOLDEN, "card"), ("predict", GOLDEN, "card", "--json"), ("inspect", GOLDEN), ("--help",)]
)
def test_a_full_disk_is_told(arguments):
    with Path("/dev/full").open("wb") as full:
        done = run(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "Error: The output cannot be written: No space left on device.",
        "Expected: a disk with room that this user may write to",
        "To do: free space or write elsewhere, and run the command again",
    ]


@pytest.mark.parametrize("form", [(), ("--jsonl",)])
def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path, form):
    (tmp_path / "rows.txt").write_text("where is my parcel\n" * 5000)
    code = "from edgetune.cli import main; main()"
    command = [sys.executable, "-c", code, "predict", str(GOLDEN), "--input", str(tmp_path / "rows.txt"), *form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert b"delivery" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_json_lines_come_before_the_input_ends():
    code = "from edgetune.cli import main; main()"
    command = [sys.executable, "-c", code, "predict", str(GOLDEN), "--jsonl"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdin.write(b"where is my parcel\n" * 300)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["label"] == "delivery"
        process.stdin.close()
        assert len(process.stdout.read().splitlines()) == 299
        assert process.wait(60) == 0


@pytest.mark.parametrize("command", ["predict", "inspect", "verify"])
def test_a_name_that_is_too_long_is_told(edgetune, command):
    ended = edgetune(command, "a" * 300, *(["card"] if command == "predict" else []))
    assert ended.code == 1
    assert "too long" in ended.err
    assert len(ended.err) < 400
