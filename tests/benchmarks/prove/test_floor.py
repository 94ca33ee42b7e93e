"""The floor of a report: the constant answer and the linear model on the rows of the ledger, compared row by row."""

from __future__ import annotations

import numpy as np
import pytest

from edgetune.benchmarks.prove.floor import compare, measure_floor
from edgetune.benchmarks.prove.ledger import Slice
from edgetune.benchmarks.prove.statistics import tango_interval
from edgetune.serve.heads import open_head
from edgetune.tune.data.columns import Columns
from edgetune.tune.data.dataset import Dataset, Part
from edgetune.tune.tasks import TASKS

WORDS = (("card", "plastic", "chip"), ("cash", "notes"))


def part(rows, several=False):
    """Texts of which a word tells the class: two of three rows are of class 0."""
    kinds = [0 if row % 3 else 1 for row in range(rows)]
    texts = tuple(f"my {WORDS[kind][row % len(WORDS[kind])]} is number {row}" for row, kind in enumerate(kinds))
    return Part(texts, tuple((kind,) if several else kind for kind in kinds))


def dataset(task, labels, train, held_out, validation=None):
    return Dataset(train, validation or held_out, held_out, labels, "", "made", Columns(("text",), ("label",), ()), ())


def sliced(task, data, metric=""):
    kind = TASKS[task]
    objective = kind.objective(data.labels, metric, data.train.targets)
    expected, learnt = (objective.expected(one.targets) for one in (data.test, data.train))
    head = open_head(objective.head_spec(lambda: (expected, np.zeros((len(expected), objective.width), np.float32))))
    return Slice(data.test.texts, expected, head, objective, kind, learnt)


def test_both_models_stand_in_the_report():
    data = dataset("text-classification", ("card", "cash"), part(90), part(60))
    floor = measure_floor(sliced("text-classification", data), data, seed=0)
    majority, linear = floor.entries
    assert (majority.stage, majority.value, majority.described) == (
        "majority",
        pytest.approx(2 / 3),
        "'card' to all rows",
    )
    assert (linear.stage, linear.value) == ("linear", 1.0)
    assert linear.ci95[0] < 1.0 <= linear.ci95[1]
    assert linear.metrics == {"macro_f1": 1.0, "balanced_accuracy": 1.0}
    assert linear.described.startswith("words 1-2 and characters within words 2-5, learnt from 90 rows in ")
    assert linear.cpu_seconds > 0
    assert floor.remark == ""
    assert floor.answers["majority"].tolist() == [0] * 60


def test_it_learns_from_the_validation_part_too_unless_that_judges():
    validation = Part(("my visa is blue", "my coins are grey"), (0, 1))
    data = dataset("text-classification", ("card", "cash"), part(90), part(60), validation)
    floor = measure_floor(sliced("text-classification", data), data, seed=0)
    assert "learnt from 92 rows in " in floor.entries[1].described


def test_several_labels_and_numbers_have_it_too():
    data = dataset("multi-label-classification", ("card", "cash"), part(90, True), part(60, True))
    floor = measure_floor(sliced("multi-label-classification", data), data, seed=0)
    assert [entry.stage for entry in floor.entries] == ["majority", "linear"]
    assert floor.entries[1].value == 1.0
    numbers = [Part(one.texts, tuple(10.0 + 5 * target for target in one.targets)) for one in (part(90), part(60))]
    data = dataset("text-regression", (), *numbers)
    majority, linear = measure_floor(sliced("text-regression", data), data, seed=0).entries
    assert linear.value < majority.value / 2


def test_texts_without_ngrams_leave_the_constant_and_a_remark():
    blank = Part(("", " "), (0, 1))
    data = dataset("text-classification", ("card", "cash"), blank, blank)
    floor = measure_floor(sliced("text-classification", data), data, seed=0)
    assert [entry.stage for entry in floor.entries] == ["majority"]
    assert floor.remark == ("A linear n-gram model could not be fitted. None of the 2 training texts has an n-gram.")


def test_comparisons_are_paired():
    data = dataset("text-classification", ("card", "cash"), part(90), part(60))
    rows = sliced("text-classification", data)
    floor = measure_floor(rows, data, seed=0)
    wrong = rows.expected.copy()
    wrong[:6] = 1 - wrong[:6]
    stages = {"base": wrong, "tuned": rows.expected, "int8": wrong}
    pairs = {(pair.reference, pair.candidate): pair for pair in compare(rows, floor.answers, stages, "int8")}
    assert list(pairs) == [
        ("base", "tuned"),
        ("base", "int8"),
        ("majority", "base"),
        ("majority", "tuned"),
        ("majority", "int8"),
        ("linear", "base"),
        ("linear", "tuned"),
        ("linear", "int8"),
    ]
    gained, lost = pairs["base", "tuned"], pairs["linear", "int8"]
    assert gained.drop == pytest.approx(-0.1)
    assert gained.drop_interval == pytest.approx(list(tango_interval(0, 6, 60, 0.95)))
    assert gained.p_value == pytest.approx(2 * 0.5**6)
    assert lost.drop == pytest.approx(0.1)
    assert pairs["base", "int8"].drop == 0
    assert [pair.candidate for pair in compare(rows, floor.answers, stages, "")] == [
        *("tuned", "base", "tuned", "base", "tuned"),
    ]


def test_a_scheme_may_bear_the_name_of_a_model_of_the_floor():
    data = dataset("text-classification", ("card", "cash"), part(90), part(60))
    rows = sliced("text-classification", data)
    floor = measure_floor(rows, data, seed=0)
    stages = {"base": rows.expected, "tuned": rows.expected, "linear": 1 - rows.expected}
    last = compare(rows, floor.answers, stages, "linear")[-1]
    assert (last.reference, last.candidate, last.drop) == ("linear", "linear", 1.0)
