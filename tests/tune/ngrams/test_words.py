"""The linear model of words: the floor of entities."""

from __future__ import annotations

from edgetune.tune.data.dataset import Part
from edgetune.tune.ngrams.model import fit_linear, linear_answers
from edgetune.tune.ngrams.words import WordFeatures, words_of_text
from edgetune.tune.tasks import TASKS

TASK = TASKS["token-classification"]
LABELS = ("O", "B-name", "I-name")
NAMES = ("Ada Lovelace", "Bob Stone", "Eve O'Hara", "\u5317\u4eac")


def part(before: str) -> Part:
    texts = [f"{before} {name} here" for name in NAMES] + [f"{before} nobody here", ""]
    spans = [((len(before) + 1, len(before) + 1 + len(name), 1),) for name in NAMES]
    return Part(tuple(texts), (*spans, (), ()))


def test_words_that_follow_a_sign_are_found_in_texts_that_were_not_learnt():
    objective = TASK.objective(LABELS, "", ())
    learnt = part("we met")
    assert isinstance(TASK.linear_features(learnt.texts), WordFeatures)
    model = fit_linear(objective, learnt, 0, features_of=TASK.linear_features)
    assert model.described.startswith("words, their ends and shapes, and their neighbours, learnt from 6 rows in ")
    answers = linear_answers(model, objective, learnt, learnt.texts)
    assert answers.tolist() == objective.expected(learnt.targets).tolist()
    others = part("yesterday we met")
    assert (
        linear_answers(model, objective, learnt, others.texts).tolist() == objective.expected(others.targets).tolist()
    )


def test_words_and_their_borders():
    text = words_of_text(" Ada's  \u5317\u4eac2x ")
    assert [text.text[start:end] for start, end in text.borders] == ["Ada", "'", "s", "\u5317", "\u4eac", "2x"]
    assert words_of_text(" ").borders == []
