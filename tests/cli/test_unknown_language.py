"""A whole build on a language that the base does not know: the decision says so, and the scheme linear answers it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetune.serve.golden import replay_golden
from edgetune.serve.loading import load
from tests.untimed import build_untimed

pytestmark = pytest.mark.slow  # a whole build

TELLING = {"good": "\u597d\u5403", "bad": "\u592a\u6162"}


def text(label: str, row: int) -> str:
    return f"{chr(0x4E00 + row % 40)}{TELLING[label]}{chr(0x5000 + row % 30)}"


@pytest.fixture(scope="module")
def built(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chinese")
    rows = [{"text": text(label, row), "label": label} for row, label in enumerate(["good", "bad"] * 300)]
    path = folder / "reviews.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return build_untimed(
        {
            "base": str(tiny_base("bert")),
            "data": {"path": str(path), "text": "text", "label": "label"},
            "tune": {"method": "probe"},
            "compress": {"schemes": ["fused", "linear"]},
            "out": str(folder / "bundle"),
        }
    )


def test_the_bundle_answers_with_a_tokenizer_of_its_own(built):
    report = built.report
    assert report.chosen == "linear"
    candidate = next(one for one in report.candidates if one.scheme == "linear")
    assert ", of its own tokenizer, as " in candidate.made_by
    folder = Path(built.bundle.folder)
    predictor = load(folder)
    assert predictor.providers == ["numpy"]
    answers = predictor.predict([text("good", 601), text("bad", 602)])
    assert [answer.label for answer in answers] == ["good", "bad"]
    assert replay_golden(predictor).cases == 8


def test_the_decision_says_what_the_base_does_not_know(built):
    rules = [reason.rule for reason in built.report.decision.reasons]
    assert "unknown-language" in rules
    assert "worse-than-linear" not in rules  # it is the linear model that is packed
    assert built.report.floor("linear").value == 1.0
