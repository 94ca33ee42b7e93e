"""What each word adds to an answer: exact from tables, by leaving words away from a graph."""

from __future__ import annotations

import numpy as np
import pytest

from edgetune.serve import load
from edgetune.serve.codecs.word_spans import Span, words_of
from edgetune.serve.errors import InputError
from edgetune.serve.explain_page import explanation_page, marked
from tests.golden.tables import LOGIT

from .conftest import GOLDEN


def weights(explanation):
    return {word.text: word.weight for word in explanation.words}


def test_tables_are_explained_exactly_and_a_pair_is_shared(static_bundle):
    explanation = load(static_bundle).explain("Card parcel!")
    unit = LOGIT / np.sqrt(3)  # of card, parcel, and the pair of both, which speaks for delivery
    assert (explanation.target, explanation.method) == ("delivery", "exact")
    assert weights(explanation) == pytest.approx({"Card": unit * (-1 / 3 + 1 / 3), "parcel": unit, "!": 0}, abs=1e-6)
    assert explanation.total == pytest.approx(unit, abs=1e-6)
    assert explanation.rest == pytest.approx(0, abs=1e-6)
    assert [(word.part, word.start, word.end) for word in explanation.words] == [
        ("text", 0, 4),
        ("text", 5, 11),
        ("text", 11, 12),
    ]


def test_another_label_is_explained_by_its_name(static_bundle):
    predictor = load(static_bundle)
    unit = LOGIT / np.sqrt(3)
    explanation = predictor.explain("card parcel", "payment")
    assert weights(explanation) == pytest.approx({"card": unit * (2 / 3 - 1 / 6), "parcel": -unit / 2}, abs=1e-6)
    assert explanation.answer.label == "delivery"
    with pytest.raises(InputError, match=r"has no label 'pay'\.") as caught:
        predictor.explain("card", "pay")
    assert caught.value.expected == "one of account, delivery, payment"


@pytest.mark.parametrize("text", ["where is my parcel", "where is my card", "please help"])
def test_a_graph_is_asked_without_each_word(text):
    predictor = load(GOLDEN)
    explanation = predictor.explain(text)
    words = text.split()
    shorter = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]

    def total(texts):
        logits = predictor.logits(predictor.encode(texts))
        place = predictor.labels.index(explanation.target)
        return logits[:, place] - logits.mean(axis=1)

    whole = total([text])[0]
    assert explanation.method == "occlusion"
    assert explanation.target == predictor.predict_one(text).label
    assert [word.text for word in explanation.words] == words
    np.testing.assert_allclose([word.weight for word in explanation.words], whole - total(shorter), atol=2e-3)
    assert explanation.total == pytest.approx(whole, abs=1e-3)


def test_a_cascade_is_explained_by_the_model_that_answers(cascade_bundle):
    predictor = load(cascade_bundle)
    easy, hard = predictor.explain("where is my parcel"), predictor.explain("card login")
    assert (easy.answer.answered_by, easy.method) == ("static", "exact")
    assert (hard.answer.answered_by != "static", hard.method) == (True, "occlusion")


@pytest.mark.parametrize("kind", ["label", "labels", "number"])
@pytest.mark.parametrize("codec", ["text", "text-pair"])
def test_every_kind_of_bundle_is_explained(kind_bundle, kind, codec):
    predictor = load(kind_bundle(kind, codec))
    value = "where is my parcel" if codec == "text" else ("where is my parcel", "card")
    explanation = predictor.explain(value)
    logits = predictor.logits(predictor.encode([value]))[0]
    expected = logits.max() - logits.mean() * (kind == "label")
    assert explanation.total == pytest.approx(float(expected), abs=1e-4)
    assert explanation.target == ("value" if kind == "number" else predictor.labels[int(logits.argmax())])
    found = [(word.part, word.text) for word in explanation.words]
    first = [("text", word) for word in ("where", "is", "my", "parcel")]
    assert found == (first if codec == "text" else [*first, ("text_pair", "card")])
    if kind == "number":
        with pytest.raises(InputError, match="no label 'delivery'"):
            predictor.explain(value, "delivery")


def test_what_was_cut_off_has_no_weight():
    predictor = load(GOLDEN)
    long = "parcel " * 600
    explanation = predictor.explain(long)
    specials = predictor.encode([""])[0].size
    assert explanation.answer.truncated
    assert len(explanation.words) == predictor.bundle.manifest.max_tokens - specials
    assert explanation.words[-1].end < len(long.strip())


@pytest.mark.parametrize(
    ("text", "spans", "expected"),
    [
        ("don't stop", [(0, 3), (3, 5), (6, 10)], [((0, 5), {0, 1}), ((6, 10), {2})]),
        ("味道好 ok", [(0, 1), (1, 3), (4, 6)], [((0, 1), {0}), ((1, 3), {1}), ((4, 6), {2})]),
        ("a b", [None, (0, 1), (1, 3), None], [((0, 1), {1}), ((2, 3), {2})]),  # a token with the blank before it
        ("one two", [(0, 7)], [((0, 7), {0})]),
        ("  ", [(0, 2)], []),
        ("ab", [(0, 0), (0, 2)], [((0, 2), {1})]),
    ],
)
def test_tokens_are_joined_to_words(text, spans, expected):
    words = words_of([text], [None if span is None else Span(0, *span) for span in spans])
    assert [((word.span.start, word.span.end), set(word.tokens)) for word in words] == expected


def test_the_page_shows_texts_as_they_are_and_colours_their_words(static_bundle):
    explanation = load(static_bundle).explain("<b>parcel</b> & card")
    page = explanation_page("a <bundle>", [explanation])
    assert "Why a &lt;bundle&gt; answers so" in page
    assert [piece for piece in ("<script", "<b>") if piece in page] == []
    text = marked(explanation, "text")
    assert text.count("<mark") == len(explanation.words)
    assert '<mark style="background: rgba(22, 140, 70, 0.75)"' in text
    assert "rgba(200, 40, 40" in text  # card speaks against delivery
