"""Heads: logits to answers, decisions, JSON, lines and tensors, each by values known by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgetune.serve import LabelsPrediction, NumberPrediction, Prediction
from edgetune.serve.bundle import GoldenCase, HeadSpec
from edgetune.serve.errors import BundleDamaged, BundleFormatError, InputError
from edgetune.serve.heads import HEADS, describe_head, open_head

LABELS = ["late", "lost", "refund"]
# Logits of the probabilities that stand beside them.
ROWS = np.log(np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]], dtype=np.float32))


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def head_of(kind: str, **more: object):
    return open_head(HeadSpec(kind=kind, labels=[] if kind == "number" else LABELS, **more))


def test_one_label():
    head = head_of("label")
    answers = head.answer(ROWS, [False, True])
    assert answers[0] == Prediction("late", answers[0].score, answers[0].scores, False)
    assert [answer.label for answer in answers] == ["late", "refund"]
    assert [answer.score for answer in answers] == pytest.approx([0.6, 0.6])
    assert answers[0].scores == pytest.approx({"late": 0.6, "lost": 0.3, "refund": 0.1})
    assert answers[1].truncated
    assert (head.decide(ROWS).tolist(), head.decide(ROWS).dtype) == ([0, 2], np.int64)
    assert head.as_json(answers[0], None) == {"label": "late", "score": answers[0].score, "truncated": False}
    assert list(head.as_json(answers[0], 2)["scores"]) == ["late", "lost"]
    assert head.as_lines(answers[0], None) == [["late", "0.6000"]]
    assert head.as_lines(answers[0], 2) == [["late", "0.6000"], ["lost", "0.3000"]]


def test_several_labels_by_thresholds_that_are_reached_exactly():
    head = head_of("labels", thresholds=[0.5, 0.9, 0.2])
    logits = np.array([[0, logit(0.8), logit(0.3)], [-9, -9, -9], [9, 9, 9]], dtype=np.float32)
    answers = head.answer(logits, [False, False, True])
    assert [answer.labels for answer in answers] == [["late", "refund"], [], LABELS]
    assert answers[0].scores == pytest.approx({"late": 0.5, "lost": 0.8, "refund": 0.3})
    assert isinstance(answers[1], LabelsPrediction)
    assert answers[2].truncated
    decisions = head.decide(logits)
    assert decisions.tolist() == [[True, False, True], [False] * 3, [True] * 3]
    assert decisions.dtype == bool
    assert head.as_json(answers[0], None) == {
        "labels": ["late", "refund"],
        "scores": {"lost": answers[0].scores["lost"], "late": 0.5, "refund": answers[0].scores["refund"]},
        "truncated": False,
    }
    assert list(head.as_json(answers[0], 1)["scores"]) == ["lost"]
    assert head.as_lines(answers[0], None) == [["late, refund", "0.5000, 0.3000"]]
    assert head.as_lines(answers[1], None) == [["(none)", ""]]
    assert head.as_lines(answers[0], 2) == [["lost", "0.8000"], ["late", "0.5000"]]


def test_several_labels_without_thresholds_take_one_half():
    head = head_of("labels")
    assert head.decide(np.array([[0.01, 0, -0.01]], dtype=np.float32)).tolist() == [[True, True, False]]


def test_probabilities_do_not_overflow():
    head = head_of("labels")
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert head.scores(np.array([[1e4, -1e4, 0]], dtype=np.float32)).tolist() == [[1, 0, 0.5]]


def test_a_number():
    head = head_of("number")
    logits = np.array([[2.5], [-1]], dtype=np.float32)
    answers = head.answer(logits, [False, True])
    assert answers == [NumberPrediction(2.5, False), NumberPrediction(-1.0, True)]
    assert head.decide(logits).tolist() == [2.5, -1.0]
    assert head.decide(logits).dtype == np.float64
    assert head.as_json(answers[0], None) == {"value": 2.5, "truncated": False}
    assert head.as_lines(answers[0], None) == [["2.5"]]
    with pytest.raises(InputError, match="no probabilities"):
        head.scores(logits)


@pytest.mark.parametrize("kind", HEADS)
def test_a_decision_says_what_the_answer_says(kind):
    head = head_of(kind)
    logits = np.random.default_rng(2).normal(size=(50, head.width)).astype(np.float32)
    plain = [head.plain(decision) for decision in head.decide(logits)]
    answers = head.answer(logits, [False] * 50)
    assert plain == [answer.plain for answer in answers]
    assert json.loads(json.dumps(plain)) == plain
    assert [len(lines[0]) for lines in (head.as_lines(answer, None) for answer in answers)] == [len(head.columns)] * 50
    assert set(head.blank) >= set(head.as_json(answers[0], None))
    schema = head.schema
    assert set(schema["required"]) <= set(head.as_json(answers[0], None)) <= set(schema["properties"])


@pytest.mark.parametrize("kind", HEADS)
def test_tensors_have_the_shapes_that_they_tell(kind):
    head = head_of(kind)
    logits = np.random.default_rng(2).normal(size=(4, head.width)).astype(np.float32)
    assert set(head.default_tensors) <= head.tensors.keys()
    for name, tensor in head.tensors.items():
        values = tensor.values(logits)
        if tensor.datatype == "BYTES":
            assert (len(values), tensor.columns) == (4, None), name
        else:
            assert values.shape == ((4,) if tensor.columns is None else (4, tensor.columns)), name
            assert (tensor.datatype, values.dtype) == ("FP32", np.float32), name


def test_tensors_of_several_labels_are_lists_in_json():
    values = head_of("labels").tensors["labels"].values(np.array([[9, -9, 9], [-9, -9, -9]], dtype=np.float32))
    assert values == ['["late","refund"]', "[]"]


CASES = {
    "label": ("label", GoldenCase("a", [1], [1.0, 0.95, 0.0], "late")),
    "labels": ("labels", GoldenCase("a", [1], [2.0, 0.05, -2.0], answer=["late", "lost"])),
    "number": ("number", GoldenCase("a", [1], [2.0], answer=2.0)),
}


@pytest.mark.parametrize(
    ("kind", "logits", "fault"),
    [
        ("label", [1.0, 0.95, 0.0], ""),
        ("label", [0.95, 1.0, 0.0], ""),  # its rival lies within the tolerance
        ("label", [0.5, 0.5, 0.6], "is answered 'refund' instead of 'late'"),
        ("labels", [2.0, 0.05, -2.0], ""),
        ("labels", [2.0, -0.05, -2.0], ""),  # its threshold lies within the tolerance
        ("labels", [-0.1, 0.05, -2.0], "is answered ['lost'] instead of ['late', 'lost']"),
        ("labels", [2.0, -0.05, 0.1], "is answered ['late', 'refund'] instead of ['late', 'lost']"),
        ("number", [2.05], ""),
        ("number", [2.5], "is answered 2.5 instead of 2.0"),
    ],
)
def test_an_answer_differs_only_where_the_tolerance_cannot_turn_it(kind, logits, fault):
    name, case = CASES[kind]
    assert head_of(name).differs(case, np.array(logits, dtype=np.float32), 0.1) == fault


@pytest.mark.parametrize("kind", HEADS)
def test_golden_answers_of_another_head_are_told(kind):
    for name, case in CASES.values():
        assert bool(head_of(kind).misfit(case)) is (name != kind)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (HeadSpec(kind="spans", labels=["a"]), BundleFormatError, "a head of the kind 'spans'"),
        (HeadSpec(kind="label"), BundleDamaged, "'label' of the manifest has no labels"),
        (HeadSpec(kind="labels", labels=["a", "a"]), BundleDamaged, "has a label twice"),
        (HeadSpec(kind="labels", labels=["a", "b"], thresholds=[0.5]), BundleDamaged, "has the thresholds"),
        (HeadSpec(kind="labels", labels=["a"], thresholds=[1.5]), BundleDamaged, "has the thresholds"),
        (HeadSpec(kind="labels", labels=["a"], thresholds=[float("nan")]), BundleDamaged, "has the thresholds"),
        (HeadSpec(kind="number", labels=["a"]), BundleDamaged, "has labels or thresholds"),
    ],
)
def test_heads_that_cannot_be_opened(spec, error, message):
    with pytest.raises(error, match=message):
        open_head(spec)


def test_heads_in_a_few_words():
    words = {kind: describe_head(HeadSpec(kind=kind, labels=LABELS), 2) for kind in (*HEADS, "spans")}
    assert words == {
        "label": "one of 3 labels: late, lost, ...",
        "labels": "any of 3 labels: late, lost, ...",
        "number": "a number",
        "spans": "spans (of a newer edgetune)",
    }
