"""The constant answer beside every figure, and the warning where the packed candidate is hardly more than one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics
from sklearn.dummy import DummyClassifier, DummyRegressor

from edgetune.benchmarks.prove.baseline import constant_baseline, warn_of_constant
from edgetune.benchmarks.prove.ledger import Slice
from edgetune.serve.bundle import HeadSpec
from edgetune.serve.heads import open_head
from edgetune.tune.tasks import TASKS

LABELS = ("ham", "spam")
TAGS = ("billing", "refund", "login", "other")


def labelled(expected, train, metric="", labels=LABELS):
    """Rows of a classifier, by class numbers of the judged and of the training part."""
    task, spec = TASKS["text-classification"], HeadSpec(kind="label", labels=list(labels))
    texts = tuple(f"text {row}" for row in range(len(expected)))
    objective = task.objective(labels, metric, [])
    return Slice(texts, np.asarray(expected), open_head(spec), objective, task, np.asarray(train))


def tagged(expected, train, metric=""):
    """Rows of several labels each, (rows, labels) bool."""
    task = TASKS["multi-label-classification"]
    spec = HeadSpec(kind="labels", labels=list(TAGS), thresholds=[0.5] * len(TAGS))
    texts = tuple(f"text {row}" for row in range(len(expected)))
    return Slice(texts, expected, open_head(spec), task.objective(TAGS, metric, []), task, train)


def numbered(expected, train, metric=""):
    """Rows with a number each."""
    task = TASKS["text-regression"]
    texts = tuple(f"text {row}" for row in range(len(expected)))
    objective = task.objective((), metric, train)
    return Slice(texts, np.asarray(expected), open_head(HeadSpec(kind="number")), objective, task, np.asarray(train))


def test_of_labels_it_is_the_most_frequent_one_of_the_training_part():
    random = np.random.default_rng(0)
    # The test part has another most frequent class than the training part, whose the constant is.
    train, expected = random.choice(3, 300, p=[0.2, 0.7, 0.1]), random.choice(3, 200, p=[0.5, 0.3, 0.2])
    baseline = constant_baseline(labelled(expected, train, labels=("a", "b", "c")))
    dummy = DummyClassifier(strategy="most_frequent").fit(train[:, None], train)
    answers = dummy.predict(expected[:, None])
    assert baseline.answer == "'b'"
    assert baseline.metrics == {
        "accuracy": pytest.approx(metrics.accuracy_score(expected, answers)),
        "macro_f1": pytest.approx(metrics.f1_score(expected, answers, average="macro", zero_division=0)),
        "balanced_accuracy": pytest.approx(metrics.balanced_accuracy_score(expected, answers)),
    }
    assert baseline.metrics["balanced_accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("metric", "answer"), [("", "3"), ("rmse", "4.8")])
def test_of_numbers_it_is_the_median_by_mae_and_the_mean_by_rmse(metric, answer):
    train, expected = np.array([1.0, 2.0, 3.0, 4.0, 14.0]), np.array([0.0, 5.0, 7.5])
    baseline = constant_baseline(numbered(expected, train, metric))
    by = {name: DummyRegressor(strategy=name).fit(train[:, None], train) for name in ("median", "mean")}
    answers = {name: dummy.predict(expected[:, None]) for name, dummy in by.items()}
    assert baseline.answer == answer
    assert baseline.metrics == {
        "mae": pytest.approx(metrics.mean_absolute_error(expected, answers["median"])),
        "rmse": pytest.approx(metrics.mean_squared_error(expected, answers["mean"]) ** 0.5),
    }


def test_of_several_labels_it_is_the_set_that_is_best_by_each_metric():
    # Half the rows have no label; where any is given, billing and refund are frequent, the others rare.
    rows = [(0, 0, 0, 0)] * 10 + [(1, 1, 0, 0)] * 6 + [(1, 0, 0, 0)] * 3 + [(0, 0, 1, 1)]
    hot = np.asarray(rows, dtype=bool)
    baseline = constant_baseline(tagged(hot, hot))

    def of(constant: tuple[int, ...], average: str) -> float:
        answers = np.tile(np.asarray(constant), (len(hot), 1))
        return float(metrics.f1_score(hot.astype(int), answers, average=average, zero_division=0))

    assert baseline.answer == "'billing' and 'refund'"
    best = max(of(constant, "micro") for constant in np.ndindex(2, 2, 2, 2))
    assert baseline.metrics["micro_f1"] == pytest.approx(of((1, 1, 0, 0), "micro")) == pytest.approx(best)
    assert baseline.metrics["macro_f1"] == pytest.approx(of((1, 1, 1, 1), "macro"))
    assert baseline.metrics["subset_accuracy"] == pytest.approx(0.5)  # no label at all
    assert constant_baseline(tagged(hot, hot, "subset_accuracy")).answer == "no label"


EXPECTED = np.repeat([0, 1], [380, 20])


def warning(answers, expected=EXPECTED, metric=""):
    rows = labelled(expected, expected, metric)
    return warn_of_constant(rows, np.asarray(answers), constant_baseline(rows))


def test_one_answer_to_all_rows_is_said():
    assert warning(np.zeros(400, dtype=int)) == (
        "It answers 'ham' to all 400 rows, of which 20 are something else. By accuracy it is no better than one "
        "constant answer, 'ham': 95.00% accuracy against 95.00% accuracy."
    )


def test_nearly_one_answer_is_said_though_its_accuracy_is_higher():
    answers = np.zeros(400, dtype=int)
    answers[-3:] = 1
    said = warning(answers)
    assert said == "It answers 'ham' to 397 of 400 rows; of the 20 that are something else it has 3 right."
    answers[-5:] = 1
    assert warning(answers) == ""


def test_an_uneven_part_that_is_answered_rightly_is_no_fault():
    assert warning(EXPECTED) == ""
    assert warning(np.zeros(380, dtype=int), EXPECTED[:380]).startswith("By accuracy it is no better")


def test_a_bad_model_that_varies_is_held_against_the_constant_alone():
    answers = EXPECTED.copy()
    answers[:50] = 1
    assert warning(answers) == (
        "By accuracy it is no better than one constant answer, 'ham': 87.50% accuracy against 95.00% accuracy."
    )
    assert warning(answers, metric="macro_f1") == ""


def test_numbers_that_hardly_vary_are_said():
    expected = np.linspace(0, 10, 200)
    rows = numbered(expected, expected)
    baseline = constant_baseline(rows)
    said = warn_of_constant(rows, np.full(200, 4.0), baseline)
    assert said.startswith(
        "It gives nearly the same number to all 200 rows, 4. By MAE it is no better than one constant"
    )
    assert warn_of_constant(rows, expected + 0.1, baseline) == ""
    assert warn_of_constant(rows, 5 + 0.2 * (expected - 5), baseline) == ""


def test_one_set_of_labels_for_all_rows_is_said():
    hot = np.zeros((40, 4), dtype=bool)
    hot[:25, :2] = True
    rows = tagged(hot, hot)
    said = warn_of_constant(rows, np.tile([True, True, False, False], (40, 1)), constant_baseline(rows))
    assert said.startswith("It answers 'billing' and 'refund' to all 40 rows, of which 15 are something else.")
    none = warn_of_constant(rows, np.zeros((40, 4), dtype=bool), constant_baseline(rows))
    assert none.startswith("It answers no label to all 40 rows")
    assert warn_of_constant(rows, hot, constant_baseline(rows)) == ""
