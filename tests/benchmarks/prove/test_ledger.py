"""The ledger: one slice through every stage, so that a loss is found where it arose."""

from pathlib import Path

import numpy as np
import pytest

from edgetune.benchmarks.prove.ledger import (
    Slice,
    first_loss,
    frozen_slice,
    stage_qualities,
)
from edgetune.serve.bundle import HeadSpec
from edgetune.serve.heads import open_head
from edgetune.serve.report import StageQuality
from edgetune.tune.data.dataset import Part
from edgetune.tune.metrics import ACCURACY, MAE
from edgetune.tune.models.model import TunedModel
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.text_classification import SingleLabel

LABELS = ("card", "cash", "login")
EXPECTED = np.array([0, 0, 0, 1, 1, 2])
HEAD = HeadSpec(kind="label", labels=list(LABELS))
OBJECTIVE = SingleLabel(LABELS, ACCURACY)
ROWS = Slice(
    ("a", "b", "c", "d", "e", "f"), EXPECTED, open_head(HEAD), OBJECTIVE, TASKS["text-classification"], EXPECTED
)


def logits_of(answers, top=1.0):
    """Logits that give these answers."""
    logits = np.zeros((len(answers), 3), dtype=np.float32)
    logits[np.arange(len(answers)), answers] = top
    return logits


@pytest.fixture
def stages():
    """Right everywhere until the graph, one row wrong from int8 on; the base is worse by design."""
    right, wrong = EXPECTED.tolist(), [0, 0, 1, 1, 1, 2]
    logits = {
        "base": logits_of([1] * 6),
        "tuned": logits_of(right),
        "merged": logits_of(right),
        "onnx": logits_of(right, top=1.25),
        "int8_dynamic": logits_of(wrong),
        "fp32": logits_of(right),
    }
    return stage_qualities(logits, ROWS)


def test_each_stage_is_compared_with_the_tuned_model(stages):
    by_name = {entry.stage: entry for entry in stages}
    assert list(by_name) == ["base", "tuned", "merged", "onnx", "int8_dynamic", "fp32"]
    base, onnx, int8 = by_name["base"], by_name["onnx"], by_name["int8_dynamic"]
    assert (base.value, base.drop, base.agreement, base.max_abs_diff) == (pytest.approx(1 / 3), None, None, None)
    assert (onnx.value, onnx.drop, onnx.agreement, onnx.max_abs_diff) == (1, 0, 1, 0.25)
    assert onnx.mean_abs_diff == pytest.approx(0.25 / 3)
    assert (int8.value, int8.drop, int8.agreement) == (
        pytest.approx(5 / 6),
        pytest.approx(1 / 6),
        pytest.approx(5 / 6),
    )
    assert int8.ci95[0] < 5 / 6 < int8.ci95[1]


RISES = {"tuned": 0.0, "onnx": 3e-6, "int8_dynamic": 2e-3}


def test_the_first_loss_is_where_it_arose(stages):
    assert first_loss(stages, ACCURACY) == "int8_dynamic"
    assert first_loss([entry for entry in stages if entry.stage != "int8_dynamic"], ACCURACY) is None


def test_the_last_digits_of_an_error_are_no_loss():
    stages = [StageQuality(stage=name, value=1 + rise, ci95=[], drop=rise) for name, rise in RISES.items()]
    assert first_loss(stages, MAE) == "int8_dynamic"
    assert first_loss(stages[:2], MAE) is None


def test_a_base_below_the_tuned_model_is_no_loss(stages):
    assert first_loss(stages[:2], ACCURACY) is None


def test_confusions_come_most_frequent_first_with_an_example():
    found = OBJECTIVE.confusions(EXPECTED, np.array([1, 1, 0, 2, 1, 2]), ROWS.texts)
    assert [(entry.expected, entry.predicted, entry.rows, entry.example) for entry in found] == [
        ("card", "cash", 2, "a"),
        ("cash", "login", 1, "d"),
    ]
    assert OBJECTIVE.confusions(EXPECTED, EXPECTED, ROWS.texts) == []


def test_classes_come_worst_first_and_only_those_that_the_slice_holds():
    found = OBJECTIVE.classes(np.array([0, 0, 2, 2]), np.array([0, 1, 2, 2]))
    assert [(entry.label, entry.precision, entry.recall, entry.rows) for entry in found] == [
        ("card", 1.0, 0.5, 2),
        ("login", 1.0, 1.0, 2),
    ]
    assert found[0].f1 == pytest.approx(2 / 3)


def test_the_slice_is_frozen_by_the_seed():
    test = Part(tuple(f"text {number}" for number in range(50)), tuple(number % 3 for number in range(50)))
    tuned = TunedModel(Path("none"), "text-classification", HEAD, "tiny", "", 96, 0.0, None)  # type: ignore[arg-type]
    whole = frozen_slice(tuned, "accuracy", test, test, 4000, seed=0)
    assert whole.texts == test.texts
    some, again, other = (frozen_slice(tuned, "accuracy", test, test, 20, seed=seed) for seed in (1, 1, 2))
    assert some.texts == again.texts != other.texts
    assert len(set(some.texts)) == 20
    numbers = [int(text.split()[1]) for text in some.texts]
    assert numbers == sorted(numbers)
    assert some.expected.tolist() == [number % 3 for number in numbers]
