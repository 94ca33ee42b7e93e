"""The task on tokens: tags of windows, values by position, the report's figures, and what training makes of rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from edgetune.benchmarks.prove.gate import judge_answers
from edgetune.benchmarks.recipe import GateRecipe
from edgetune.once.recipe import OnceRecipe
from edgetune.serve.errors import RecipeError
from edgetune.serve.heads.entities import Spans
from edgetune.tune.data.dataset import Part
from edgetune.tune.methods import METHODS
from edgetune.tune.metrics import ENTITY_F1, ENTITY_MACRO_F1
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.token_rows import token_texts, window_rows
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.objective import UNSEEN
from edgetune.tune.training.batches import joined_rows, split_by_tokens
from edgetune.tune.training.length import TrainingLength
from edgetune.tune.training.outcome import settled_by_probe
from edgetune.tune.training.token_probe import labelled_windows, padded_tags, with_tag_unit

TASK = TASKS["token-classification"]
LABELS = ("O", "B-card", "I-card", "B-login", "I-login")
OUT, B_CARD, I_CARD, B_LOGIN, _ = range(5)
OBJECTIVE = TASK.objective(LABELS, "", ())
TEXT = "my contactless card, password"
TARGET = ((3, 19, B_CARD), (21, 29, B_LOGIN))


def spans(*items):
    array = np.empty(len(items), dtype=object)
    for row, each in enumerate(items):
        array[row] = Spans(tuple(each))
    return array


@pytest.fixture(params=["bert", "roberta"])
def encoder(tiny_base, request):
    return Encoder(AutoTokenizer.from_pretrained(tiny_base(request.param)), 16, TASK)


def test_every_token_of_a_span_is_learnt_the_first_as_its_beginning(encoder):
    (text,) = token_texts(encoder, [TEXT])
    (tags,) = OBJECTIVE.tags(text, TARGET)
    assert tags[0] == tags[-1] == UNSEEN
    for place, (start, end) in zip(text.places, text.borders, strict=True):
        inside = [(kind, start <= first) for first, last, kind in TARGET if start < last and first < end]
        assert tags[place] == (OUT if not inside else inside[0][0] + (not inside[0][1]))
    assert tags.count(B_CARD) == tags.count(B_LOGIN) == 1


def test_of_words_the_first_token_alone_is_learnt(encoder):
    words = encoder.by("words")
    (text,) = token_texts(words, [TEXT])
    (tags,) = OBJECTIVE.tags(text, TARGET)
    assert [TEXT[start:end] for start, end in text.borders] == ["my", "contactless", "card", ",", "password"]
    assert [tags[place] for place in text.places] == [OUT, B_CARD, I_CARD, OUT, B_LOGIN]
    assert sum(tag != UNSEEN for tag in tags) == len(text.places) < len(tags)
    learnt = padded_tags(labelled_windows(words, Part((TEXT,), (TARGET,)), OBJECTIVE))
    _, contactless, card, _, password = text.places
    assert OBJECTIVE.restored(learnt)[0].items == ((contactless, card + 1, "card"), (password, password + 1, "login"))
    assert OBJECTIVE.value(learnt, np.eye(5, dtype=np.float32)[np.maximum(learnt, 0)]) == 1.0


def test_tokens_bear_tags_where_entities_end_inside_words(encoder):
    whole = Part((TEXT,), (TARGET,))
    assert with_tag_unit(encoder, whole, "auto") == (encoder.by("words"), "")
    (text,) = token_texts(encoder, [code := "my cardpassword"])
    piece = next(borders for borders in text.borders if borders[0] == 3)
    assert piece == (3, 7)
    inside = Part((TEXT, code), (TARGET, ((*piece, B_CARD),)))
    chosen, why = with_tag_unit(encoder, inside, "auto")
    assert (chosen.codec, why.partition(" begin")[0]) == ("tokens", "1 of 3 training entities")
    assert with_tag_unit(encoder, inside, "word") == (encoder.by("words"), "")
    assert with_tag_unit(encoder, whole, "token") == (encoder, "")


def test_windows_of_a_long_text_are_rows_with_tags_of_their_own(encoder):
    part = Part((" ".join([TEXT] * 3), "card"), (TARGET, ((0, 4, B_CARD),)))
    rows = labelled_windows(encoder, part, OBJECTIVE)
    texts = token_texts(encoder, part.texts)
    assert len(rows) == sum(len(text.windows) for text in texts) > 2
    assert all(len(row["labels"]) == len(row["input_ids"]) <= 16 for row in rows)
    assert [row["input_ids"] for row in rows] == [row["input_ids"] for row in window_rows(encoder, texts)]
    expected = OBJECTIVE.restored(padded_tags(rows))
    assert [kind for _, _, kind in expected[-1].items] == ["card"]
    # A span that began in the window before goes on in the next as a beginning: what stands there is answered alone.
    assert all(row["labels"][1] not in (I_CARD,) for row in rows)


def test_two_spans_side_by_side_are_two(encoder):
    (text,) = token_texts(encoder, ["card card"])
    (tags,) = OBJECTIVE.tags(text, ((0, 4, B_CARD), (5, 9, B_CARD)))
    assert tags.count(B_CARD) == 2


def test_values_are_those_of_spans_by_position():
    learnt = np.array([[UNSEEN, B_CARD, I_CARD, OUT, UNSEEN], [UNSEEN, OUT, B_LOGIN, UNSEEN, UNSEEN]])
    logits = np.eye(5, dtype=np.float32)[[[OUT, B_CARD, I_CARD, OUT, B_LOGIN], [OUT, OUT, B_CARD, OUT, OUT]]]
    assert OBJECTIVE.restored(learnt).tolist() == spans([(1, 3, "card")], [(2, 3, "login")]).tolist()
    outputs = OBJECTIVE.visible(logits, learnt)
    assert OBJECTIVE.answers(outputs).tolist() == spans([(1, 3, "card")], [(2, 3, "card")]).tolist()
    assert OBJECTIVE.value(learnt, logits) == pytest.approx(0.5)
    flat = np.where(learnt == UNSEEN, OUT, learnt).ravel()
    assert OBJECTIVE.value(flat, np.eye(5, dtype=np.float32)[flat]) == 1.0


def test_the_loss_leaves_special_tokens_out():
    logits = torch.zeros(1, 3, 5)
    assert OBJECTIVE.loss(logits, torch.tensor([[UNSEEN, B_CARD, UNSEEN]]), None).item() == pytest.approx(np.log(5))


EXPECTED = spans([(0, 4, "card"), (6, 9, "login")], [(0, 3, "card")], [])
ANSWERS = spans([(0, 4, "card"), (6, 12, "login")], [(0, 3, "login")], [(5, 6, "card")])


def test_metrics_count_exact_spans():
    assert ENTITY_F1.of(EXPECTED, ANSWERS) == pytest.approx(2 * 1 / (4 + 3))
    assert ENTITY_MACRO_F1.of(EXPECTED, ANSWERS) == pytest.approx((0.5 + 0.0) / 2)
    assert ENTITY_F1.of(EXPECTED, EXPECTED) == 1.0
    assert ENTITY_F1.of(EXPECTED, spans([], [], [])) == 0.0
    assert OBJECTIVE.agreement(ANSWERS, EXPECTED) == 0.0


def test_the_report_tells_types_borders_and_mistakes():
    assert OBJECTIVE.figures(EXPECTED, ANSWERS) == {"wrong_border": 0.25, "wrong_type": 0.25}
    qualities = OBJECTIVE.classes(EXPECTED, ANSWERS)
    assert [(one.label, one.rows, one.precision, one.recall) for one in qualities] == [
        ("login", 1, 0.0, 0.0),
        ("card", 2, 0.5, 0.5),
    ]
    confusions = OBJECTIVE.confusions(EXPECTED, ANSWERS, ["card, pin one", "pin", "a text"])
    assert {(one.expected, one.predicted, one.rows) for one in confusions} == {
        ("login", "login, other border", 1),
        ("card", "login", 1),
        ("nothing", "card", 1),
    }


def test_the_gate_sees_entities_that_are_lost():
    expected = spans(*[[(0, 4, "card")]] * 400)
    worse = spans(*[[(0, 4, "card")]] * 360, *[[]] * 40)
    assert judge_answers(ENTITY_F1, expected, expected, expected, GateRecipe()).accepted
    verdict = judge_answers(ENTITY_F1, expected, expected, worse, GateRecipe())
    assert (verdict.gate, verdict.accepted) == ("fail", False)
    assert verdict.loss.loss == pytest.approx(1 - 2 * 360 / 760)


def test_training_is_one_long_run_and_never_settled_by_the_probe():
    recipe = TuneRecipe()
    small, large = (TrainingLength.of(recipe, rows, TASK) for rows in (100, 50_000))
    assert (small.epochs, large.epochs, small.round_epochs, small.patience) == (15.0, 4.0, 0, 3)
    assert settled_by_probe(METHODS["auto"], 1.0, ENTITY_F1) is not None
    assert settled_by_probe(METHODS["auto"], 1.0, ENTITY_F1, per_token=True) is None
    assert settled_by_probe(METHODS["probe"], 0.1, ENTITY_F1, per_token=True) is not None


def test_rows_of_batches_of_unlike_lengths_are_joined():
    joined = joined_rows([torch.ones(1, 2, 3), torch.ones(2, 4, 3)], -100)
    assert joined.shape == (3, 4, 3)
    assert joined[0, 2:].unique().tolist() == [-100]
    assert joined_rows([torch.ones(1), torch.ones(2)], -100).tolist() == [1.0] * 3


def test_tags_are_cut_with_their_tokens():
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    batch = {"attention_mask": mask, "input_ids": mask, "labels": torch.arange(8).reshape(2, 4)}
    first, second = split_by_tokens(batch, 4)
    assert first["labels"].tolist() == [[0, 1]]
    assert second["labels"].tolist() == [[4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"answer": {"abstain_below": 0.5}}, "each with a score of its own"),
        ({"tune": {"class_weights": "balanced"}}, "has no classes"),
        ({"gate": {"metric": "accuracy"}}, "entity_f1 or type_macro_f1"),
    ],
)
def test_what_does_not_suit_entities_is_refused(section, words):
    with pytest.raises(RecipeError, match=words):
        OnceRecipe.of_values({"base": "b", "task": TASK.name, "data": {"path": "x.conll"}, "out": "o", **section}, None)


def test_viterbi_is_for_entities_alone():
    values = {"base": "b", "data": {"path": "x"}, "out": "o", "answer": {"decode": "viterbi"}}
    assert OnceRecipe.of_values({**values, "task": TASK.name}, None).answer.decode == "viterbi"
    with pytest.raises(RecipeError, match="has no tags of tokens"):
        OnceRecipe.of_values({**values, "task": "text-classification"}, None)
