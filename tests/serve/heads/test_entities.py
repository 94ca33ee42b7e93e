"""The head of entities: tags to spans, windows, Viterbi, JSON and golden answers, by values known by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.golden_cases import GoldenCase
from edgetune.serve.heads import open_head
from edgetune.serve.heads.entities import EntitiesHead, EntitiesPrediction, Entity, Spans, split_tag
from edgetune.serve.token_outputs import BORDERS, empty, logits_of

LABELS = ["O", "B-place", "I-place", "B-art-film", "I-art-film"]
SURE = 5.0


def head_of(**more: str) -> EntitiesHead:
    head = open_head(HeadSpec(kind="entities", labels=LABELS, **more))
    assert isinstance(head, EntitiesHead)
    return head


def outputs(*texts: list[tuple[int, int, str]], logit: float = SURE) -> np.ndarray:
    """Texts by start, end and tag of each token, whose logit stands above all others by so much."""
    together = empty(len(texts), max(map(len, texts)), len(LABELS))
    for row, tokens in enumerate(texts):
        for place, (start, end, tag) in enumerate(tokens):
            together[row, place, :BORDERS] = start, end
            together[row, place, BORDERS + LABELS.index(tag)] = logit
    return together


PROBABILITY = float(np.exp(SURE) / (np.exp(SURE) + 4))


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O O O", ()),
        ("B-place I-place O", ((0, 3, "place"),)),
        ("B-place B-place O", ((0, 1, "place"), (2, 3, "place"))),
        ("O I-place I-place", ((2, 5, "place"),)),  # begins an entity, as conlleval and transformers have it
        ("B-place I-art-film I-art-film", ((0, 1, "place"), (2, 5, "art-film"))),
        ("I-place O I-place", ((0, 1, "place"), (4, 5, "place"))),
    ],
)
def test_tags_become_spans(tags, spans):
    tokens = [(2 * place, 2 * place + 1, tag) for place, tag in enumerate(tags.split())]
    (decided,) = head_of().decide(outputs(tokens))
    assert decided == Spans(spans)


def test_answers_say_where_what_and_how_sure():
    head, text = head_of(), "to Berlin now"
    logits = outputs([(0, 2, "O"), (3, 6, "B-place"), (6, 9, "I-place"), (10, 13, "O")], [])
    answers = head.with_texts(head.answer(logits, [False, False]), [text, ""])
    assert answers == [
        EntitiesPrediction([Entity("place", 3, 9, "Berlin", pytest.approx(PROBABILITY))]),
        EntitiesPrediction([]),
    ]
    assert answers[0].plain == head.plain(head.decide(logits)[0]) == [{"type": "place", "start": 3, "end": 9}]
    assert head.as_json(answers[0], None) == {
        "entities": [{"type": "place", "start": 3, "end": 9, "text": "Berlin", "score": pytest.approx(PROBABILITY)}],
        "truncated": False,
    }
    assert head.as_lines(answers[0], None) == [["place", "Berlin", f"{PROBABILITY:.4f}"]]
    assert head.as_lines(answers[1], None) == [["", "", ""]]
    (shown, none) = head.tensors["entities"].values(logits)
    assert json.loads(shown) == [{"start": 3, "end": 9, "type": "place", "score": pytest.approx(PROBABILITY)}]
    assert none == "[]"
    with pytest.raises(InputError, match="each with a score of its own"):
        head.scores(logits)


def test_of_spans_of_two_windows_the_longer_stays_then_the_likelier():
    first, between = [(0, 2, "O"), (3, 5, "B-place")], (-1, 0, "O")  # the first window ends within the span
    second = [(3, 5, "B-place"), (6, 8, "I-place"), (9, 11, "O")]
    assert head_of().decide(outputs([*first, between, *second]))[0] == Spans(((3, 8, "place"),))
    same = outputs([*first, between, (3, 5, "B-art-film"), (6, 8, "O")])
    same[0, 3, BORDERS:] *= 2
    assert head_of().decide(same)[0] == Spans(((3, 5, "art-film"),))


def test_viterbi_takes_no_step_that_the_scheme_forbids():
    logits = outputs([(0, 1, "O"), (2, 3, "I-place"), (4, 5, "I-place")])
    logits[0, 1, BORDERS + LABELS.index("B-place")] = SURE - 1
    assert head_of().decide(logits)[0] == head_of(decode="viterbi").decide(logits)[0] == Spans(((2, 5, "place"),))
    # A lone I- that hardly beats O: on its own it would be a span, in a legal row of tags it is none.
    weak = outputs([(0, 1, "O"), (2, 3, "I-place")])
    weak[0, 1, BORDERS] = SURE - 0.5
    assert head_of().decide(weak)[0] == Spans(((2, 3, "place"),))
    assert head_of(decode="viterbi").decide(weak)[0] == Spans()


def test_a_decoding_that_is_not_known_is_refused():
    with pytest.raises(BundleDamaged, match="decoded by 'crf'"):
        head_of(decode="crf")


def test_golden_answers_may_differ_only_within_the_tolerance():
    head, logits = head_of(), outputs([(0, 1, "B-place"), (2, 3, "O")])
    packed = logits_of(logits[0]).tolist()
    case = GoldenCase(text="x y", input_ids=[1, 2], logits=packed, answer=[{"type": "place", "start": 0, "end": 1}])
    assert head.misfit(case) == ""
    assert head.misfit(GoldenCase(text="x", input_ids=[1], logits=[0.0] * 3, answer=1.0)) != ""
    assert head.differs(case, logits[0], 0.1) == ""
    turned = logits[0].copy()
    turned[0, BORDERS] = SURE + 1
    assert head.differs(case, turned, 0.1).startswith("is answered no entity instead of")
    assert head.differs(case, turned, SURE) == ""


def test_types_may_hold_hyphens():
    assert [split_tag(label) for label in ("O", "B-art-film", "I-x", "plain")] == [
        (False, "O"),
        (True, "art-film"),
        (False, "x"),
        (False, "plain"),
    ]
