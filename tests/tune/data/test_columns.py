"""Which columns are taken: by name, by usual names, by their values; and what is said where none can."""

import pytest

from edgetune.serve.errors import DataError
from edgetune.tune.data.columns import Columns, choose_columns
from edgetune.tune.data.reading import Table

LONG = ("where is my card", "the transfer has failed", "what is the rate", "how do I close it")
LABELS = ("card", "transfer", "card", "transfer")
IDS = ("1", "2", "3", "4")


def table(**columns):
    return Table("t.csv", columns)


def test_usual_names_are_found_and_said():
    chosen = choose_columns(table(id=IDS, category=LABELS, text=LONG), None, None)
    assert chosen == Columns(("text",), ("category",))
    assert chosen.findings == ("Text column 'text' and label column 'category' were guessed.",)


def test_named_columns_are_taken_without_a_word():
    chosen = choose_columns(table(a=LONG, b=LABELS, c=LABELS), "a", "c")
    assert (chosen, chosen.findings) == (Columns(("a",), ("c",)), ())


@pytest.mark.parametrize(
    ("text", "label", "finding"),
    [("a", None, "Label column 'b' was guessed."), (None, "b", "Text column 'a' was guessed.")],
)
def test_only_the_guessed_column_is_said(text, label, finding):
    chosen = choose_columns(table(a=LONG, b=LABELS), text, label)
    assert (chosen, chosen.findings) == (Columns(("a",), ("b",)), (finding,))


def test_of_several_usual_texts_the_longest_is_taken():
    titles = tuple(text[:6] for text in LONG)
    assert choose_columns(table(title=titles, content=LONG, label=LABELS), None, None).texts == ("content",)


def test_columns_without_names_are_told_by_their_values():
    constant = ("to category",) * 4
    chosen = choose_columns(table(column_1=constant, column_2=LONG, column_3=LABELS), None, None)
    assert (chosen.texts, chosen.labels) == (("column_2",), ("column_3",))


def test_usual_names_are_found_in_any_case():
    chosen = choose_columns(table(Label=LABELS, Review=LONG), None, None)
    assert (chosen.texts, chosen.labels) == (("Review",), ("Label",))


def test_a_missing_column_lists_those_there_are():
    with pytest.raises(DataError) as caught:
        choose_columns(table(text=LONG, category=LABELS), None, "intent")
    assert str(caught.value).splitlines() == [
        "t.csv has no column 'intent'.",
        "Expected: one of its columns: 'text', 'category'.",
        "To do: name the label column with --set data.label=...",
    ]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"premise": LONG, "hypothesis": LONG[::-1], "label": LABELS}, "could both be the text"),
        ({"text": LONG, "b": LABELS, "c": LABELS}, "'b' and 'c' could both be the label"),
        ({"text": LONG}, "no column looks like labels"),
        ({"a": IDS, "b": IDS}, "no column looks like texts"),
    ],
)
def test_what_cannot_be_told_lists_the_columns_and_how_to_name_them(columns, reason):
    with pytest.raises(DataError) as caught:
        choose_columns(table(**columns), None, None)
    assert reason in caught.value.found
    assert all(repr(name) in caught.value.found for name in columns)
    assert "--set data.text=... --set data.label=..." in caught.value.action


def test_one_column_cannot_be_both():
    with pytest.raises(DataError, match="both name the column 'text'"):
        choose_columns(table(text=LONG, label=LABELS), "text", "text")
