"""The linear model of n-grams: as scikit-learn's own, for every kind of target, within its bounds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC

from edgetune.serve.errors import DataError
from edgetune.tune.data.dataset import Part
from edgetune.tune.ngrams.features import MOST_CHARACTERS, NgramFeatures
from edgetune.tune.ngrams.model import LEAST_ROWS, MOST_CELLS, _affordable, fit_linear
from edgetune.tune.tasks import TASKS

WORDS = {"card": ("card", "plastic", "chip"), "cash": ("cash", "atm", "notes"), "login": ("password", "login", "code")}
FILLERS = ("my", "is", "not", "here", "yet", "please", "help", "today", "with")


def sentences(rows=120, seed=0):
    """Texts of filler words and one word that tells the class, and the class numbers."""
    random = np.random.default_rng(seed)
    targets = [row % 3 for row in range(rows)]
    texts = []
    for target in targets:
        words = [*random.choice(FILLERS, 5), random.choice(list(WORDS.values())[target])]
        texts.append(" ".join(random.permutation(words)))
    return tuple(texts), tuple(targets)


def objective(task, labels, targets=()):
    return TASKS[task].objective(labels, "", targets)


def test_it_answers_as_a_pipeline_of_scikit_learn_does():
    texts, targets = sentences()
    model = fit_linear(objective("text-classification", tuple(WORDS)), Part(texts, targets), seed=0)
    own = make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
        ),
        LinearSVC(tol=0.1, random_state=0),
    ).fit(texts, targets)
    held_out, right = sentences(60, seed=1)
    logits = model.logits(held_out)
    assert logits.shape == (60, 3)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, own.decision_function(held_out), atol=1e-4)
    assert logits.argmax(axis=1).tolist() == list(right)
    assert model.described.startswith("words 1-2 and characters within words 2-5, learnt from 120 rows in ")


def test_two_classes_and_a_class_without_rows():
    texts, targets = sentences()
    two = [row for row, target in enumerate(targets) if target < 2]
    part = Part(tuple(texts[row] for row in two), tuple(targets[row] for row in two))
    logits = fit_linear(objective("text-classification", tuple(WORDS)), part, seed=0).logits(part.texts)
    assert logits.argmax(axis=1).tolist() == list(part.targets)
    assert (logits[:, 2] < -1000).all()


def test_one_class_alone_is_answered_always():
    part = Part(("a card", "the card", "card"), (1, 1, 1))
    logits = fit_linear(objective("text-classification", tuple(WORDS)), part, seed=0).logits(["cash", ""])
    assert logits.argmax(axis=1).tolist() == [1, 1]


def test_several_labels_each_have_a_model():
    texts, targets = sentences()
    # The label "any" stands in every row, "none" in no row, "third" and "login" in the rows of one class each.
    several = tuple(((0, 1) if target == 1 else (0, 3) if target == 2 else (0,)) for target in targets)
    labels = ("any", "cash", "none", "login")
    logits = fit_linear(objective("multi-label-classification", labels), Part(texts, several), seed=0).logits(texts)
    given = [tuple(np.flatnonzero(row > 0).tolist()) for row in logits]
    assert given == list(several)


def test_numbers_come_in_the_users_own_units():
    texts, targets = sentences()
    numbers = tuple(1000.0 + 250.0 * target for target in targets)
    model = fit_linear(objective("text-regression", (), numbers), Part(texts, numbers), seed=0)
    answers = model.logits(texts)[:, 0]
    assert np.abs(answers - numbers).mean() < 40  # the standard deviation is 204
    assert abs(answers.mean() - np.mean(numbers)) < 5


def test_pairs_are_told_by_what_they_share():
    random = np.random.default_rng(0)
    words = [f"{first}{second}" for first in ("ba", "lo", "ki", "du", "re", "so") for second in ("mat", "nep", "wil")]
    same = [row % 2 for row in range(200)]
    pairs = []
    for target in same:
        first = list(random.choice(words, 4, replace=False))
        second = random.permutation(first) if target else random.choice(words, 4, replace=False)
        pairs.append((" ".join(first), " ".join(second)))
    part = Part(tuple(pairs[:150]), tuple(same[:150]))
    logits = fit_linear(objective("text-pair-classification", ("no", "yes")), part, seed=0).logits(pairs[150:])
    assert np.mean(logits.argmax(axis=1) == same[150:]) > 0.9


HOSTILE = ("", " ", "\x00", "İSTANBUL ß ﬁ", "\u202eabc", "e\u0301\u0301\u0301", "\U0001f469\u200d\U0001f4bb", "\ud7ff")


def test_hostile_texts_are_answered_finitely():
    texts, targets = sentences()
    model = fit_linear(objective("text-classification", tuple(WORDS)), Part(texts, targets), seed=0)
    logits = model.logits([*HOSTILE, "card " * 100_000])
    assert np.isfinite(logits).all()
    assert logits[-1].argmax() == 0


def test_a_text_is_read_up_to_a_bound():
    features = NgramFeatures.of(["card here", "cash there"])
    long = "cash " + "x" * MOST_CHARACTERS
    assert (features.transform([long]) != features.transform([f"{long} card"])).nnz == 0


def test_texts_without_words_have_characters_still():
    assert [block.analyzer for block in NgramFeatures.of(["a b", "! c"]).blocks] == ["char_wb"]


def test_texts_without_any_ngram_are_refused():
    with pytest.raises(DataError, match="None of the 2 training texts has an n-gram"):
        NgramFeatures.of(["", "  "])


def test_rows_are_drawn_where_there_are_many():
    texts, targets = sentences()
    model = fit_linear(objective("text-classification", tuple(WORDS)), Part(texts, targets), seed=0, most_rows=90)
    assert (model.rows, model.of_rows) == (90, 120)
    assert "learnt from 90 of 120 rows" in model.described
    many = Part(("short text",) * 1000, (0,) * 1000)
    few, thousands = (objective("text-classification", tuple(map(str, range(n)))) for n in (2, 1000))
    assert _affordable(few, many) == MOST_CELLS // 2
    assert _affordable(thousands, many) == LEAST_ROWS
    assert _affordable(few, Part(("x" * 9_999,) * 1000, (0,) * 1000)) == 10_000
