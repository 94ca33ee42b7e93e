"""Heads: logits to answers, decisions, JSON, lines and tensors, each by values known by hand."""

from __future__ import annotations

import dataclasses
import json

import msgspec
import numpy as np
import pytest

from edgetune.serve import LabelsPrediction, NumberPrediction, Prediction
from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import BundleDamaged, BundleFormatError, InputError
from edgetune.serve.golden_cases import GoldenCase
from edgetune.serve.heads import HEADS, abstaining, describe_head, open_head
from tests.golden.kinds import ROW_KINDS

LABELS = ["late", "lost", "refund"]
# Logits of the probabilities that stand beside them.
ROWS = np.log(np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]], dtype=np.float32))


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def head_of(kind: str, **more: object):
    if kind == "embedding":
        return open_head(HeadSpec(kind=kind, width=3, **more))
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


@pytest.mark.parametrize("more", [{}, {"temperature": 1.34}, {"abstain_below": 0.5}])
def test_one_row_is_answered_as_among_others(more):
    head = open_head(HeadSpec(kind="label", labels=[str(n) for n in range(77)], **more))
    rows = 5 * np.random.default_rng(0).normal(size=(200, 77)).astype(np.float32)
    rows[0] = 0
    among = head.answer(rows, [False, True] * 100)
    assert [head.answer(row[None], [cut])[0] for row, cut in zip(rows, [False, True] * 100, strict=True)] == among
    assert among[0].answered("static") == dataclasses.replace(among[0], answered_by="static")


def test_a_temperature_changes_probabilities_and_no_label():
    plain, warm = head_of("label"), head_of("label", temperature=2.0)
    assert warm.decide(ROWS).tolist() == plain.decide(ROWS).tolist()
    rooted = np.sqrt([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    assert warm.scores(ROWS) == pytest.approx(rooted / rooted.sum(axis=1, keepdims=True), rel=1e-6)
    assert warm.tensors["score"].values(ROWS) == pytest.approx(warm.scores(ROWS).max(axis=1))
    assert warm.tensors["scores"].values(ROWS) == pytest.approx(warm.scores(ROWS))
    (first, _) = warm.answer(ROWS, [False, False])
    assert (first.score, first.scores["late"]) == pytest.approx((warm.scores(ROWS)[0, 0],) * 2)
    assert plain.scores(ROWS).dtype == warm.scores(ROWS).dtype == np.float32


def test_an_answer_is_unsure_below_its_probability_and_not_at_it():
    rows = np.array([[0, -9, -9], [0, 0, -9]], dtype=np.float32)
    edge = float(head_of("label").scores(rows)[1].max())
    head = head_of("label", abstain_below=edge)
    sure, unsure = (head_of("label", abstain_below=below).answer(rows, [False] * 2) for below in (edge, edge + 1e-6))
    assert [answer.unsure for answer in (*sure, *unsure)] == [False, False, False, True]
    assert unsure[1].label == "late"  # the best guess stays
    head = head_of("label", abstain_below=edge + 1e-6)
    assert head.as_json(unsure[1], None) == {
        "label": "late",
        "score": unsure[1].score,
        "truncated": False,
        "unsure": True,
    }
    assert head.as_lines(unsure[0], None)[0][0] == "late"
    assert head.as_lines(unsure[1], None) == [["unsure", "0.5000"]]
    assert [line[0] for line in head.as_lines(unsure[1], 2)] == ["late", "lost"]
    assert head.blank["unsure"] is False
    assert set(head.schema["required"]) == {"label", "score", "truncated", "unsure"} <= set(head.schema["properties"])
    assert head.default_tensors == ("label", "score", "unsure")
    values = head.tensors["unsure"].values(rows)
    assert (head.tensors["unsure"].datatype, values.dtype, values.tolist()) == ("BOOL", bool, [False, True])


def test_a_head_that_never_abstains_says_nothing_of_it():
    head = head_of("label")
    assert "unsure" not in {*head.blank, *head.tensors, *head.schema["properties"], *head.default_tensors}
    assert not any(answer.unsure for answer in head.answer(ROWS, [False] * 2))


def test_thresholds_of_several_labels_hold_for_calibrated_probabilities():
    head = head_of("labels", thresholds=[0.5, 0.9, 0.2], temperature=2.0)
    logits = 2 * np.array([[0, logit(0.8), logit(0.3)]], dtype=np.float32)
    assert head.scores(logits)[0] == pytest.approx([0.5, 0.8, 0.3])
    assert head.decide(logits).tolist() == [[True, False, True]]
    case = GoldenCase("a", [1], [2.0, 2 * logit(0.9) + 0.05, -2.8], answer=["late", "lost"])
    turned = np.array([2.0, 2 * logit(0.9) - 0.01, -2.8], dtype=np.float32)
    assert head.differs(case, turned, 0.1) == ""  # the packed logit lies within the tolerance of the threshold
    assert head.differs(case, turned, 0.01) != ""


def test_another_probability_to_abstain_below():
    spec = HeadSpec(kind="label", labels=LABELS, abstain_below=0.5)
    assert abstaining(spec, None) is spec
    assert abstaining(spec, 0.0).abstain_below == 0.0
    assert abstaining(spec, 0.8) == HeadSpec(kind="label", labels=LABELS, abstain_below=0.8)
    for below in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"a probability from 0 to 1|abstain_below is"):
            abstaining(spec, below)
    with pytest.raises(InputError, match="of the kind 'labels', which is never unsure"):
        abstaining(HeadSpec(kind="labels", labels=LABELS), 0.8)


@pytest.mark.parametrize(
    "fault",
    [{"temperature": 0}, {"temperature": 1e-3}, {"temperature": 1e300}, {"abstain_below": 1.5}, {"abstain_below": -1}],
)
def test_numbers_that_no_build_writes_are_refused(fault):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"kind": "label", "labels": ["a"], **fault}, type=HeadSpec)


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


@pytest.mark.parametrize("kind", ROW_KINDS)
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


@pytest.mark.parametrize("kind", ROW_KINDS)
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
    "embedding": ("embedding", GoldenCase("a", [1], [0.6, 0.8, 0.0])),
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
        ("embedding", [1.2, 1.6, 0.01], ""),
        ("embedding", [0.8, 0.6, 0.0], ""),
        ("embedding", [0.0, 0.8, 0.6], "has a cosine of 0.6400 to the packed vector"),
    ],
)
def test_an_answer_differs_only_where_the_tolerance_cannot_turn_it(kind, logits, fault):
    name, case = CASES[kind]
    assert head_of(name).differs(case, np.array(logits, dtype=np.float32), 0.1) == fault


@pytest.mark.parametrize("kind", ROW_KINDS)
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
        (HeadSpec(kind="number", temperature=2.0), BundleDamaged, "or a temperature"),
        (HeadSpec(kind="number", abstain_below=0.5), BundleDamaged, "has abstain_below"),
        (HeadSpec(kind="labels", labels=["a"], abstain_below=0.5), BundleDamaged, "has abstain_below"),
    ],
)
def test_heads_that_cannot_be_opened(spec, error, message):
    with pytest.raises(error, match=message):
        open_head(spec)


def test_heads_in_a_few_words():
    words = {kind: describe_head(HeadSpec(kind=kind, labels=LABELS, width=3), 2) for kind in (*HEADS, "spans")}
    assert words == {
        "label": "one of 3 labels: late, lost, ...",
        "labels": "any of 3 labels: late, lost, ...",
        "number": "a number",
        "embedding": "a vector of 3 numbers",
        "entities": "spans of 3 labels: late, lost, ...",
        "spans": "spans (of a newer edgetune)",
    }
    assert describe_head(HeadSpec(kind="label", labels=["a"], abstain_below=0.625), 2).endswith("; unsure below 0.625")
