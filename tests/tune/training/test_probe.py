"""The probe against scikit-learn itself and on data whose answer is known."""

import numpy as np
import pytest

from edgetune.tune.metrics import ACCURACY, MACRO_F1
from edgetune.tune.tasks.objective import LABEL_STRENGTHS, Head
from edgetune.tune.tasks.text_classification import SingleLabel
from edgetune.tune.training.probe import Probe, fit_probe


def classes_of(count, metric=ACCURACY):
    """What is learnt: one of so many classes."""
    return SingleLabel(tuple(f"class {number}" for number in range(count)), metric)


def answers(head, features):
    return head.logits(features).argmax(axis=1)


def blobs(rows, centres, seed, spread=0.3):
    """Rows around the centres of their classes: features (rows, features) and classes (rows,)."""
    random = np.random.default_rng(seed)
    classes = np.arange(rows) % len(centres)
    features = np.asarray(centres)[classes] + spread * random.standard_normal((rows, len(centres[0])))
    return features.astype(np.float32), classes.astype(np.int64)


THREE = [(3.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 0.0, 3.0)]


def test_what_can_be_told_apart_is_told_apart():
    probe = fit_probe(blobs(90, THREE, 1), blobs(30, THREE, 2), classes_of(3))
    features, classes = blobs(60, THREE, 3)
    assert probe.value == 1
    assert ACCURACY.of(classes, answers(probe.start, features)) == 1
    assert ACCURACY.of(classes, answers(probe.final, features)) == 1
    # All strengths do equally well: the strongest regularization is taken.
    assert probe.strength == LABEL_STRENGTHS[0]
    assert (probe.start.weight.shape, probe.start.bias.shape) == ((3, 3), (3,))
    assert probe.start.weight.dtype == probe.start.bias.dtype == np.float32


@pytest.mark.parametrize("centres", [THREE, [(1.0, 0.5), (-0.5, 0.0)]], ids=["three classes", "two classes"])
def test_the_head_for_raw_features_gives_scikit_learns_probabilities(centres):
    """The head undoes the scaling, and two classes get two logits: their softmax is scikit-learn's."""
    from sklearn.linear_model import LogisticRegression

    train, validation = blobs(120, centres, 1, spread=1.0), blobs(60, centres, 2, spread=1.0)
    train = (100 + 5 * train[0], train[1])
    validation = (100 + 5 * validation[0], validation[1])
    probe = fit_probe(train, validation, classes_of(len(centres)))
    mean, scale = train[0].mean(axis=0), float(train[0].std())
    reference = LogisticRegression(C=probe.strength, max_iter=5000, tol=1e-8).fit((train[0] - mean) / scale, train[1])
    expected = reference.predict_proba((validation[0] - mean) / scale)
    logits = validation[0].astype(np.float64) @ probe.start.weight.T + probe.start.bias
    found = np.exp(logits - logits.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    assert found == pytest.approx(expected, abs=2e-3)
    assert probe.value == ACCURACY.of(validation[1], probe.logits.argmax(axis=1))


def test_the_value_is_the_metric_on_the_validation_part_of_the_best_strength():
    train, validation = blobs(90, THREE, 1, spread=3.0), blobs(60, THREE, 2, spread=3.0)
    for metric in (ACCURACY, MACRO_F1):
        probe = fit_probe(train, validation, classes_of(3, metric))
        assert 0.4 < probe.value < 1
        assert probe.value == metric.of(validation[1], probe.logits.argmax(axis=1))
        assert probe.strength in LABEL_STRENGTHS


def test_the_head_that_is_handed_on_has_seen_the_validation_part_and_the_one_to_start_from_has_not():
    train = blobs(60, [(2.0, 0.0), (-2.0, 0.0)], 1)
    # The validation part has its two classes elsewhere: only a head solved with it knows.
    validation = blobs(60, [(0.0, 5.0), (0.0, -5.0)], 2)
    probe = fit_probe(train, validation, classes_of(2))
    assert ACCURACY.of(validation[1], answers(probe.final, validation[0])) > 0.95
    assert ACCURACY.of(train[1], answers(probe.start, train[0])) == 1
    assert abs(probe.start.weight[0, 0]) > abs(probe.start.weight[0, 1])


def test_the_probe_is_judged_as_it_is_handed_on_but_each_row_by_a_head_that_has_not_learnt_it():
    train = blobs(60, [(2.0, 0.0), (-2.0, 0.0)], 1)
    validation = blobs(60, [(0.0, 5.0), (0.0, -5.0)], 2)  # elsewhere: told apart by a head of other such rows alone
    probe = fit_probe(train, validation, classes_of(2))
    assert probe.value == ACCURACY.of(validation[1], probe.logits.argmax(axis=1)) > 0.95
    assert ACCURACY.of(validation[1], answers(probe.start, validation[0])) < 0.9
    assert np.array_equal(probe.logits, fit_probe(train, validation, classes_of(2)).logits)
    one = (validation[0][:1], validation[1][:1])
    assert fit_probe(train, one, classes_of(2)).logits.shape == (1, 2)


def test_a_class_without_training_rows_is_never_answered():
    train, validation = blobs(60, THREE[:2], 1), blobs(20, THREE[:2], 2)
    probe = fit_probe(train, validation, classes_of(4))
    assert probe.start.weight.shape == (4, 3)
    assert set(answers(probe.start, np.random.default_rng(0).normal(0, 9, (500, 3)).astype(np.float32))) <= {0, 1}


def test_balanced_weights_favour_the_rare_class():
    random = np.random.default_rng(4)
    features = random.normal(0, 1, (200, 2)).astype(np.float32)
    classes = (np.arange(200) >= 185).astype(np.int64)
    features[classes == 1] += 1
    plain = fit_probe((features, classes), (features, classes), classes_of(2))
    balanced = fit_probe((features, classes), (features, classes), classes_of(2), balanced=True)
    assert answers(balanced.start, features).sum() > 2 * answers(plain.start, features).sum()


def test_a_probe_comes_back_from_its_file(tmp_path):
    head, other = (
        Head(np.eye(2, 3, dtype=np.float32), np.ones(2, np.float32)),
        Head(np.zeros((2, 3), np.float32), np.array([1, 2], np.float32)),
    )
    Probe(head, other, np.eye(3, 2, dtype=np.float32), 0.75, 0.3).save(tmp_path / "probe.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["probe.npz"]
    found = Probe.load(tmp_path / "probe.npz")
    assert (found.value, found.strength) == (0.75, 0.3)
    assert np.array_equal(found.logits, np.eye(3, 2))
    for saved, loaded in ((head, found.start), (other, found.final)):
        assert np.array_equal(saved.weight, loaded.weight)
        assert np.array_equal(saved.bias, loaded.bias)


class Told:
    """What a fit says."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    def advance(self, done, total, note=""):
        pass


def test_with_few_rows_a_class_the_strength_is_chosen_by_cross_validation_over_both_parts():
    centres = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    features, classes = blobs(12, centres, 5, spread=0.8)
    told = Told()
    train, validation = (features[:9], classes[:9]), (features[9:], classes[9:])
    probe = fit_probe(train, validation, classes_of(3), progress=told)
    # Each class has four rows, the first of class k in fold k.
    folds = np.asarray([(row // 3 + classes[row]) % 5 for row in range(12)])
    values = []
    for strength in LABEL_STRENGTHS:
        right = 0
        for fold in range(5):
            inside, outside = folds != fold, folds == fold
            if outside.any():
                answered = _solved(features[inside], classes[inside], strength, features[outside])
                right += int((answered == classes[outside]).sum())
        values.append(right / 12)
    best = [strength for strength, value in zip(LABEL_STRENGTHS, values, strict=True) if value == max(values)]
    assert probe.strength == min(best, key=lambda strength: abs(np.log(strength)))
    assert told.lines[0].startswith(f"probe: strength {probe.strength:g} by cross-validation over 12 rows")
    assert probe.value == ACCURACY.of(validation[1], probe.logits.argmax(axis=1))


def _solved(features, classes, strength, others):
    from sklearn.linear_model import LogisticRegression

    mean, scale = features.mean(axis=0), float(features.std())
    return (
        LogisticRegression(C=strength, max_iter=300)
        .fit((features - mean) / scale, classes)
        .predict((others - mean) / scale)
    )


@pytest.mark.parametrize("counts", [(2, 2), (1, 1, 1, 4)])
def test_classes_of_one_and_two_rows_are_answered(counts):
    classes = np.repeat(np.arange(len(counts)), counts)
    features = np.eye(len(counts), dtype=np.float32)[classes]
    validation = (features[-1:], classes[-1:])
    probe = fit_probe((features, classes), validation, classes_of(len(counts)))
    assert answers(probe.final, features).tolist() == classes.tolist()


def test_with_rows_enough_nothing_is_said():
    told = Told()
    fit_probe(blobs(90, THREE, 1), blobs(30, THREE, 2), classes_of(3), progress=told)
    assert told.lines == []


def test_a_validation_row_is_judged_by_a_head_that_knows_nothing_of_it():
    """Two hundred features let a head learn any labels by heart; those of validation rows are drawn by lot."""
    random = np.random.default_rng(5)
    train = random.standard_normal((120, 200)).astype(np.float32), np.arange(120) % 2
    rows = random.standard_normal((100, 200)).astype(np.float32), random.integers(0, 2, 100)
    probe = fit_probe(train, rows, classes_of(2))
    assert ACCURACY.of(rows[1], answers(probe.final, rows[0])) > 0.95  # it has learnt them
    assert ACCURACY.of(rows[1], probe.logits.argmax(axis=1)) < 0.7
