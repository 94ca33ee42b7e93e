"""Several labels a text: how they are read, what is refused, and what is learnt of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from torch.nn import functional

from edgetune.serve.errors import RecipeError
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.multi_label import FEWEST_ROWS, SeveralLabels, best_threshold

NAME = "multi-label-classification"
TASK = TASKS[NAME]
SETS = [["a"], ["b"], ["a", "b"], [], ["b", "a"], ["a"]]


def rows(cell, count=30):
    return [{"text": f"text {n}", "labels": cell(SETS[n % len(SETS)])} for n in range(count)]


def objective(width=3) -> SeveralLabels:
    return TASK.objective(("a", "b", "c")[:width], "", ())


@pytest.mark.parametrize(
    ("suffix", "cell"),
    [
        ("jsonl", list),
        ("csv", lambda labels: str(labels)),  # as pandas writes lists
        ("csv", lambda labels: '["' + '", "'.join(labels) + '"]' if labels else "[]"),
        ("csv", "|".join),
        ("csv", "; ".join),
        ("csv", ", ".join),
    ],
    ids=["list", "python", "json", "bar", "semicolon", "comma"],
)
def test_labels_are_read_however_they_are_written(load, targets, suffix, cell):
    dataset = load(NAME, rows(cell), suffix=suffix)
    assert dataset.labels == ("a", "b")
    expected = {f"text {n}": tuple("ab".index(label) for label in sorted(SETS[n % 6])) for n in range(30)}
    assert targets(dataset) == expected
    assert any("by rarest label" in finding for finding in dataset.findings)


def test_a_guessed_separator_and_empty_cells_are_said(load):
    findings = load(NAME, rows("|".join)).findings
    assert "Labels in the column 'labels' are separated by '|': guessed (data.separator)." in findings
    assert "5 rows with nothing in the column 'labels': taken for no label." in findings


def test_a_named_separator_is_taken(load, targets):
    dataset = load(NAME, rows(" / ".join), separator="/")
    assert dataset.labels == ("a", "b")
    assert set(targets(dataset).values()) == {(0,), (1,), (0, 1), ()}


def flags(count=30):
    return [{"text": f"text {n}", "spam": n % 2, "urgent": int(n % 3 == 0), "number": n} for n in range(count)]


def test_columns_of_flags_are_labels_named_or_not(load, targets):
    named = load(NAME, flags(), label=["urgent", "spam"])
    guessed = load(NAME, flags())
    for dataset in (named, guessed):
        assert dataset.labels == ("spam", "urgent")
        assert targets(dataset)["text 3"] == (0, 1)
        assert targets(dataset)["text 2"] == ()
    assert "The columns 'spam', 'urgent' were taken for labels: they hold 0 and 1 alone." in guessed.findings
    assert guessed.columns.labels == ("spam", "urgent")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ('["a", "b"', "row 3: the column 'labels' holds '[\"a\", \"b\"'"),
        ("[a, b]", "row 3: the column 'labels' holds '[a, b]'"),
        ('[["a"], "b"]', "row 3"),
        ('[{"name": "a"}]', "row 3"),
        ("[null]", "row 3"),
    ],
)
def test_a_broken_list_is_refused_with_its_row(fault, broken, words):
    given = rows(lambda labels: '["' + '", "'.join(labels) + '"]' if labels else "[]")
    given[2]["labels"] = broken
    assert words in fault(NAME, given)


def test_what_cannot_be_learnt_is_refused(fault):
    assert "None of the 30 rows" in fault(NAME, rows(lambda _: []), suffix="jsonl")
    rare = rows(list)
    for number in range(4):
        rare[number]["labels"] = ["a", f"once {number}"]
    names = "'once 0', 'once 1', 'once 2', 'once 3'"
    message = fault(NAME, rare, suffix="jsonl")
    assert "4 labels of the 6 of" in message
    assert f"fewer than two rows: {names}." in message
    unseen = [{"text": f"other {n}", "labels": ["a", "new"]} for n in range(3)]
    assert "'new' (3 rows)" in fault(NAME, rows(list), suffix="jsonl", test=unseen)


def test_a_label_of_one_row_is_learnt_from_and_said(load, targets):
    rare = rows(list)
    rare[0]["labels"] = ["a", "once"]
    dataset = load(NAME, rare, suffix="jsonl")
    assert "once" in dataset.labels
    text = rare[0]["text"]
    assert text in dataset.train.texts
    assert dataset.labels.index("once") in targets(dataset)[text]
    assert "1 label has one row only, which is learnt from, and none to judge by: 'once'." in dataset.findings


def test_flags_that_are_none_and_keys_of_other_tasks_are_refused(fault):
    wrong = flags()
    wrong[4]["spam"] = 2
    assert "row 5: the column 'spam' holds '2'" in fault(NAME, wrong, label=["spam", "urgent"])
    assert "has no column 'absent'" in fault(NAME, flags(), label=["spam", "absent"])
    assert "data.text_pair is given" in fault(NAME, flags(), text_pair="number", error=RecipeError)


def test_the_task_fits_lists_separators_and_flags_only():
    def strength(section=None, **columns):
        return TASK.recognises(columns, section or {}).strength

    texts = [f"text {n}" for n in range(8)]
    assert strength(text=texts, tags=[["a"], ["b", "a"]] * 4) == 0.9
    assert strength(text=texts, tags=[["a"], []] * 4) == 0.0  # one label each, as an annotation tool writes it
    assert strength(text=texts, a=["0", "1"] * 4, b=["1", "0"] * 4, team=["x", "y"] * 4) == 0.0
    assert strength(text=texts, labels=["a|b", "a", "b|a", "b"] * 2) == 0.8
    assert strength(text=texts, spam=["0", "1"] * 4, urgent=["1", "0"] * 4) == 0.8
    assert strength({"label": ["spam", "urgent"]}, text=texts) == 1.0
    assert strength(text=texts, label=["a", "b"] * 4) == 0
    assert strength(text=texts, spam=["0", "1"] * 4) == 0
    assert strength(text=texts, label=["0", "1"] * 4, urgent=["1", "0"] * 4) == 0
    assert strength(text=texts, labels=["one, two, or three", "a longer sentence, once"] * 1) == 0


def test_a_label_that_the_split_leaves_no_training_row_is_said(load):
    findings = set()
    for first, second in itertools.combinations("pqrstu", 2):
        given = [{"text": f"text {n}", "labels": ["ab"[n % 2]]} for n in range(40)]
        given += [{"text": f"{label} {n}", "labels": [label]} for label in "pqrstu" for n in range(2)]
        # The only two rows of x count as other labels, which are as rare.
        for label in (first, second):
            next(one for one in given if one["text"] == f"{label} 0")["labels"] = ["x", label]
        findings |= {one for seed in range(6) for one in load(NAME, given, suffix="jsonl", seed=seed).findings}
    assert "The split left no training row of 'x': never learnt, more rows help." in findings
    assert any(finding.startswith("Split 52 rows by rarest label") for finding in findings)


def test_rows_count_as_their_rarest_label():
    assert TASK.strata([(0, 1), (0,), (0, 1), (0, 2), ()]) == [1, 0, 1, 2, -1]


def test_what_is_expected_and_given_back():
    learnt = objective().learnt([(0, 2), (), (1,)])
    assert learnt.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert objective().restored(learnt).tolist() == objective().expected([(0, 2), (), (1,)]).tolist()
    assert objective().answers(np.float32([[0.1, -0.1, 0]])).tolist() == [[True, False, True]]


def test_the_loss_is_the_mean_over_labels_of_cross_entropies():
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], requires_grad=True)
    learnt = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    weights = torch.tensor([2.0, 1.0, 5.0])
    probabilities = logits.sigmoid()
    cross = -(weights * learnt * probabilities.log() + (1 - learnt) * (1 - probabilities).log())
    loss = objective().loss(logits, learnt, weights)
    assert loss.item() == pytest.approx(cross.sum().item() / 3)
    plain = objective().loss(logits, learnt, None)
    plain.backward()
    assert torch.allclose(logits.grad, (probabilities - learnt).detach() / 3)


def test_balanced_weights_are_of_the_positive_rows():
    assert objective().weights([(0,), (0, 1), (0,), (0,)]) == (1, 3, 4)
    many = [(0,)] + [()] * 999
    assert objective().weights(many)[0] == 100


def test_imitation_is_nothing_at_the_teachers_own_logits():
    teacher = torch.tensor([[1.0, -2.0, 0.5]])
    assert objective().imitation(teacher, teacher, 2.0).item() == pytest.approx(0, abs=1e-6)
    student = torch.zeros(1, 3, requires_grad=True)
    loss = objective().imitation(student, teacher, 1.0)
    wanted = teacher.sigmoid()
    by_hand = sum(functional.kl_div(q.log(), p, reduction="sum") for p, q in _both(wanted, student.sigmoid()))
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def _both(wanted, given):
    """Each label's two probabilities, of the teacher and of the student."""
    return [(torch.stack([p, 1 - p]), torch.stack([q, 1 - q])) for p, q in zip(wanted[0], given[0], strict=True)]


@pytest.mark.parametrize("balanced", [False, True])
def test_the_solver_solves_a_logistic_regression_a_label(balanced):
    draw = np.random.default_rng(0)
    features = draw.normal(size=(200, 5)).astype(np.float32)
    logits = features @ draw.normal(size=(5, 3)) + draw.normal(size=(200, 3))
    learnt = (logits > [[0.0, 1.0, -1.0]]).astype(np.float32)
    solver = objective().solver(balanced=balanced)
    for strength in (0.01, 1.0):
        head = solver.solve(features, learnt, strength)
        for place in range(3):
            model = LogisticRegression(C=strength, tol=1e-8, class_weight="balanced" if balanced else None)
            model.fit(features, learnt[:, place])
            assert head.weight[place] == pytest.approx(model.coef_[0], abs=5e-3)
            assert head.bias[place] == pytest.approx(model.intercept_[0], abs=5e-3)


def test_the_best_threshold_is_the_one_of_all():
    draw = np.random.default_rng(4)
    for _ in range(40):
        expected = draw.random(40) < 0.4
        probabilities = np.round(np.clip(0.3 * expected + 0.7 * draw.random(40), 0, 1), 2)
        threshold = best_threshold(expected, probabilities)
        values = sorted({0.0, *probabilities, 1.0})
        cuts = [*values, *((a + b) / 2 for a, b in itertools.pairwise(values))]
        best = max(f1_score(expected, probabilities >= cut) for cut in cuts)
        assert f1_score(expected, probabilities >= threshold) == pytest.approx(best)


def test_a_threshold_on_too_few_rows_stays_at_a_half():
    expected = np.arange(100) < FEWEST_ROWS - 1
    assert best_threshold(expected, np.where(expected, 0.2, 0.1)) == 0.5
    expected[FEWEST_ROWS - 1] = True
    assert best_threshold(expected, np.where(expected, 0.2, 0.1)) == pytest.approx(0.15)


def test_a_tie_goes_to_the_threshold_nearest_to_a_half():
    expected = np.arange(20) < 10
    assert best_threshold(expected, np.where(expected, 0.9, 0.2)) == pytest.approx(0.55)


def test_the_summary_counts_labels_and_rows_without():
    summary = TASK.describe(("a", "b"), [(0,), (0, 1), (), (0,)])
    assert summary.finding == (
        "2 labels, from 1 rows ('b') to 3 rows ('a'). A row has 1.00 of them on average; 1 row without any."
    )
    assert summary.facts == {"labels": {"a": 3, "b": 1}, "labels_per_row": 1.0, "rows_without": 1}
