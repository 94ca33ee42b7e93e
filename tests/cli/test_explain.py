"""`edgetune explain`, and `predict --explain`: words with their weights, in lines, JSON and HTML."""

from __future__ import annotations

import json

import pytest

from edgetune.serve import load


def test_lines_show_the_heaviest_words_with_bars(edgetune, static_bundle):
    result = edgetune("explain", static_bundle, "my parcel and courier", "card refund", "--top", "2")
    assert result.code == 0
    first, second = result.out.split("\n\n")
    assert first.splitlines() == [
        f"delivery\t{load(static_bundle).predict_one('my parcel and courier').score:.4f}\tmy parcel and courier",
        "  words for delivery (what each adds, exactly, of +3.77):",
        "     +1.89  parcel   ####################",
        "     +1.89  courier  ####################",
        "     +0.00  in 2 other words",
    ]
    assert second.startswith("payment\t")


def test_json_is_one_document_with_the_answer_and_the_words(edgetune, static_bundle):
    result = edgetune("explain", static_bundle, "card login", "--label", "payment", "--json")
    (value,) = json.loads(result.out)
    assert (value["text"], value["target"], value["method"]) == ("card login", "payment", "exact")
    assert value["total"] == pytest.approx(value["rest"] + sum(word["weight"] for word in value["words"]))
    assert [word["text"] for word in value["words"]] == ["card", "login"]


def test_a_page_is_written_whole_or_not(edgetune, static_bundle, tmp_path):
    page = tmp_path / "new" / "why.html"
    result = edgetune("explain", static_bundle, "card refund", "--html", page)
    assert result.code == 0
    assert page.read_text("utf-8").count("<mark") == 2
    assert [path.name for path in page.parent.iterdir()] == ["why.html"]
    (tmp_path / "file").write_text("")
    refused = edgetune("explain", static_bundle, "card refund", "--html", tmp_path / "file" / "why.html")
    assert refused.code != 0
    assert "name another place with --html." in refused.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((" ",), "Text 1 is blank."),
        (("card", "--label", "pay"), "The bundle has no label 'pay'."),
        ((), "Missing argument 'TEXT...'"),
    ],
)
def test_what_cannot_be_explained_is_refused(edgetune, static_bundle, arguments, expected):
    result = edgetune("explain", static_bundle, *arguments)
    assert result.code != 0
    assert expected in result.err


def test_predict_shows_words_beside_its_answers(edgetune, static_bundle):
    lines = edgetune("predict", static_bundle, "card refund", "--explain").out.splitlines()
    assert lines[0].startswith("payment\t")
    assert lines[1].startswith("  words for payment")
    value = json.loads(edgetune("predict", static_bundle, "card refund", "--explain", "--jsonl").out)
    assert [word["text"] for word in value["explanation"]["words"]] == ["card", "refund"]
    assert "explanation" not in json.loads(edgetune("predict", static_bundle, "card refund", "--jsonl").out)
