"""Pairs of texts: how their columns are found, what is refused, and that the base's own encoding is used."""

from __future__ import annotations

import pytest

from edgetune.serve.codecs.text_pair import PAIR_NAMES
from edgetune.serve.errors import RecipeError
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.tasks import TASKS

LABELS, NUMBERS = "text-pair-classification", "text-pair-regression"


def rows(first="sentence1", second="sentence2", target="label", cell=lambda n: "yes" if n % 2 else "no", count=30):
    return [{first: f"first {n}", second: f"second {n % 7}", target: cell(n)} for n in range(count)]


@pytest.mark.parametrize(("first", "second"), PAIR_NAMES)
def test_usual_names_are_found_in_any_order_of_columns(load, targets, first, second):
    given = [dict(reversed(row.items())) for row in rows(first.title(), second)]
    dataset = load(LABELS, given)
    assert dataset.columns.texts == (first.title(), second)
    assert dataset.labels == ("no", "yes")
    assert targets(dataset) == {(f"first {n}", f"second {n % 7}"): n % 2 for n in range(30)}
    assert f"Text columns {first.title()!r} and {second!r} were guessed." in dataset.findings


def test_named_columns_are_taken(load, targets):
    given = rows("a", "b", "closeness", lambda n: n / 8)
    dataset = load(NUMBERS, given, text="b", text_pair="a", label="closeness")
    assert dataset.columns.texts == ("b", "a")
    assert targets(dataset)["second 3", "first 10"] == 1.25
    assert not any("guessed" in finding for finding in dataset.findings)


def test_numbers_of_pairs_are_found(load):
    dataset = load(NUMBERS, rows(target="similarity", cell=lambda n: n / 8))
    assert dataset.columns.labels == ("similarity",)
    assert dataset.labels == ()


def test_a_missing_column_is_refused(fault):
    assert "The two text columns" in fault(LABELS, rows("a", "b"))
    assert "--set data.text_pair=..." in fault(LABELS, rows("a", "b"), text="a")
    message = fault(LABELS, rows(), text="sentence1", text_pair="absent")
    assert "has no column 'absent'" in message
    assert "data.text_pair" in message
    assert "data.separator is given" in fault(LABELS, rows(), separator="|", error=RecipeError)
    assert "data.unlabeled is given with pairs" in fault(LABELS, rows(), unlabeled="more.txt", error=RecipeError)


def test_a_pair_with_a_blank_text_is_dropped_and_said(load):
    given = rows()
    given[0]["sentence2"], given[1]["sentence1"] = " ", ""
    dataset = load(LABELS, given)
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 28
    assert "Dropped 2 rows without text from the training data." in dataset.findings


def test_pairs_are_the_same_only_if_both_texts_are(load):
    given = [*rows(), {"sentence1": "First 3", "sentence2": "second  3", "label": "yes"}]
    dataset = load(LABELS, given)
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 30
    assert any("Removed 1 duplicate row" in finding for finding in dataset.findings)


def test_a_data_set_of_pairs_opens_as_it_was_saved(load, tmp_path):
    dataset = load(LABELS, rows())
    dataset.save(tmp_path)
    opened = type(dataset).open(tmp_path)
    assert opened == dataset
    assert isinstance(opened.train.texts[0], tuple)


def test_the_tasks_fit_two_columns_beside_a_target():
    def strength(task, section=None, **columns):
        return TASKS[task].recognises(columns, section or {}).strength

    texts, yes_no = [f"text {n}" for n in range(30)], ["yes", "no"] * 15
    fractions = [str(n / 4) for n in range(30)]
    assert strength(LABELS, premise=texts, hypothesis=texts, label=yes_no) == pytest.approx(0.8)
    assert strength(NUMBERS, premise=texts, hypothesis=texts, score=fractions) == 1.0
    assert strength(NUMBERS, premise=texts, hypothesis=texts, label=yes_no) == 0
    assert strength(LABELS, premise=texts, hypothesis=texts) == 0
    assert strength(LABELS, text=texts, label=yes_no) == 0
    section = {"text": "a", "text_pair": "b"}
    assert strength(LABELS, section, a=texts, b=texts, label=yes_no) > 0.5


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "deberta_v2"])
def test_the_encoding_is_the_tokenizers_own(tiny_base, name):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base(name))
    given = [("card pin", "cash machine"), ("", "card"), ("card " * 90, "pin"), ("café naïve", "50 euros, urgent!")]
    first, second = zip(*given, strict=True)
    expected = tokenizer(list(first), list(second), truncation=True, max_length=40)
    encoded = Encoder(tokenizer, 40, TASKS[LABELS]).rows(given)
    assert [row["input_ids"] for row in encoded] == expected["input_ids"]
    assert [set(row) for row in encoded] == [set(tokenizer.model_input_names)] * 4
    assert all(len(row["input_ids"]) <= 40 for row in encoded)
    if "token_type_ids" in tokenizer.model_input_names:
        assert [row["token_type_ids"] for row in encoded] == expected["token_type_ids"]
