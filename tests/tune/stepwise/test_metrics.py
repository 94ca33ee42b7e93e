"""Scores of generated answers: values known by hand, texts without spaces, and functions that users bring."""

import sys

import numpy as np
import pytest

from edgetune.serve.errors import DataError, MissingDependency, RecipeError
from edgetune.tune.stepwise.metrics import METRICS, load_function, score_answers

REFERENCES = ["the cat sat on the mat", "a dog ran"]


@pytest.mark.parametrize("metric", list(METRICS))
def test_right_answers_score_one_and_foreign_ones_nothing(metric):
    right = score_answers(metric, REFERENCES, REFERENCES)
    assert (right.metric, right.value) == (metric, pytest.approx(1))
    assert right.rows == pytest.approx([1, 1])
    wrong = score_answers(metric, ["xx yy zz ww", "qq"], REFERENCES)
    assert wrong.value == pytest.approx(0, abs=1e-6)
    assert wrong.rows.shape == (2,)


def test_values_that_are_known_by_hand():
    answers = ["the cat sat", " a dog ran\n"]
    assert score_answers("exact_match", answers, REFERENCES).rows.tolist() == [0, 1]
    assert score_answers("exact_match", answers, REFERENCES).value == 0.5
    # The longest common subsequence has 3 words: precision 3/3, recall 3/6.
    rouge = score_answers("rouge_l", answers, REFERENCES)
    assert rouge.rows == pytest.approx([2 * 1 * 0.5 / 1.5, 1])
    assert rouge.value == pytest.approx(np.mean(rouge.rows))
    # Every n-gram is right, and 8 words of 9 were given: the brevity penalty alone, e to the 1 - 9/8.
    shorter = score_answers("bleu", ["the cat sat on the", "a dog ran"], REFERENCES)
    assert shorter.value == pytest.approx(np.exp(1 - 9 / 8), abs=1e-6)


@pytest.mark.parametrize("metric", ["bleu", "chrf", "rouge_l"])
def test_chinese_answers_are_counted_by_character(metric):
    half = score_answers(metric, ["今天天气很好我们去公园"], ["今天天气很好我们去学校"])
    assert 0.5 < half.value < 1
    assert score_answers(metric, ["今天天气很好我们去学校"], ["今天天气很好我们去学校"]).value == pytest.approx(1)
    assert score_answers(metric, ["完全不同"], ["今天天气很好我们去学校"]).value < 0.1


def test_a_function_of_the_user_from_a_file_and_from_a_module(tmp_path, monkeypatch):
    path = tmp_path / "scoring.py"
    path.write_text("def same_length(answer, reference):\n    return len(answer) == len(reference)\n", encoding="utf-8")
    scores = score_answers(f"{path}:same_length", ["abc", "ab"], ["xyz", "xyz"])
    assert (scores.value, scores.rows.tolist()) == (0.5, [1, 0])
    monkeypatch.syspath_prepend(tmp_path)
    assert score_answers("scoring:same_length", ["abc"], ["xyz"]).value == 1
    monkeypatch.delitem(sys.modules, "scoring")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blue", r"There is no metric 'blue'.\nExpected: bleu, chrf, rouge_l, exact_match, or a function as module:"),
        (":score", "There is no metric ':score'"),
        ("no_such_module:score", "The metric's module 'no_such_module' cannot be imported"),
        ("nowhere/scoring.py:score", "The metric's file nowhere/scoring.py does not exist"),
        ("math:no_such", "math has no function 'no_such'"),
        ("math:pi", "math has no function 'pi'"),
        ("os.path:isfile", "cannot be called with an answer and its reference"),
    ],
)
def test_a_function_that_cannot_be_had_is_said(name, message):
    with pytest.raises(RecipeError, match=message):
        load_function(name)


@pytest.mark.parametrize("given", ["'good'", "None", "float('nan')", "1j", "[0.5]"])
def test_a_function_that_gives_no_number_is_said(tmp_path, given):
    path = tmp_path / "scoring.py"
    path.write_text(f"def score(answer, reference):\n    return {given}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"gave .* for an answer.\nExpected: a finite number"):
        score_answers(f"{path}:score", ["a"], ["b"])


@pytest.mark.parametrize(
    ("metric", "package"), [("bleu", "sacrebleu"), ("chrf", "sacrebleu"), ("rouge_l", "rouge_score")]
)
def test_a_missing_package_is_told_with_the_command_that_brings_it(monkeypatch, metric, package):
    import importlib.util

    finding = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else finding(name))
    with pytest.raises(MissingDependency, match=rf"{package}\.\nTo do: pip install 'edgetune\[llm\]'"):
        score_answers(metric, ["a"], ["b"])


def test_answers_without_their_references_are_refused():
    with pytest.raises(DataError, match="2 answers cannot be scored against 1 references"):
        score_answers("exact_match", ["a", "b"], ["a"])
    with pytest.raises(DataError, match="0 answers"):
        score_answers("exact_match", [], [])
