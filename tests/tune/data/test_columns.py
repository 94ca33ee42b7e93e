"""Which columns are taken: by name, by usual names, by their values; and what is said where none can."""

import pytest

from edgetune.serve.errors import DataError, UndecidedColumns
from edgetune.tune.data.columns import Columns, choose_columns
from edgetune.tune.data.reading import Table

LONG = ("where is my card", "the transfer has failed", "what is the rate", "how do I close it")
LONGER = tuple(f"{text} and more of it, {text}" for text in LONG)
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
    [({"text": LONG}, "no column looks like labels"), ({"a": IDS, "b": IDS}, "no column looks like texts")],
)
def test_what_is_not_there_lists_the_columns_and_how_to_name_them(columns, reason):
    with pytest.raises(DataError) as caught:
        choose_columns(table(**columns), None, None)
    assert reason in caught.value.found
    assert all(repr(name) in caught.value.found for name in columns)
    assert "--set data.text=... --set data.label=..." in caught.value.action
    assert caught.value.exit_code == 1


def test_columns_of_objects_are_named_where_nothing_fits():
    objects = tuple(f'{{"text": "where is my card {n}"}}' for n in IDS)
    with pytest.raises(DataError) as caught:
        choose_columns(table(id=IDS, data=objects, annotations=("[1]",) * len(IDS)), None, None)
    assert "Its columns are 'id', 'data', 'annotations'; 'data', 'annotations' hold lists or objects." in (
        caught.value.found
    )
    assert "as columns of their own" in caught.value.action
    assert "--task text-generation" in caught.value.action


@pytest.mark.parametrize(
    ("columns", "found", "action"),
    [
        (
            {"one": LONG, "other one": LONG[::-1], "label": LABELS},
            "'one' and 'other one' could both be the text",
            "add --set data.text=one, or --set 'data.text=other one', or for pairs of texts --set data.text=one "
            "--set 'data.text_pair=other one'.",
        ),
        (
            {"text": LONG, "b": LABELS, "c": LABELS},
            "'b' and 'c' could both be the label",
            "add --set data.label=b, or --set data.label=c.",
        ),
        (
            {"text": LONG, "sentiment": LABELS, "topic": ("a", "a", "b", "b")},
            "'sentiment' and 'topic' could both be the label",
            "add --set data.label=sentiment, or --set data.label=topic.",
        ),
        ({"text_3": LONG, "text_4": LONG[::-1], "label": LABELS}, "'text_3' and 'text_4' could both be the text", None),
        ({"statement": LONG, "evidence": LONGER, "label": LABELS}, "'evidence' and 'statement' could both", None),
        ({"query": ("a", "b", "c", "d"), "notes": LONG, "label": LABELS}, "'query' and 'notes' could both", None),
    ],
)
def test_where_two_readings_are_near_the_commands_for_both_are_given(columns, found, action):
    with pytest.raises(UndecidedColumns) as caught:
        choose_columns(table(**columns), None, None)
    assert found in caught.value.found
    assert action is None or caught.value.action == action
    assert caught.value.exit_code == 2


SIDE = {
    "split": ("train", "test", "train", "train"),
    "lang": ("en", "de", "en", "de"),
    "platform": ("ios", "android", "ios", "ios"),
    "is_verified": ("0", "1", "1", "0"),
    "has_reply": ("true", "true", "false", "true"),
    "created_at": ("2024-01-01", "2024-01-01", "2024-01-02", "2024-01-02"),
    "user_id": ("7", "8", "7", "8"),
    "article": ("http://a.b/1", "http://a.b/1", "http://a.b/2", "http://a.b/2"),
    "country": ("FR", "FR", "DE", "DE"),
    "confidence": ("0.5", "0.5", "0.9", "0.9"),
}


@pytest.mark.parametrize("label", ["intent_name", "topicName", "Category", "team"])
@pytest.mark.parametrize("side", [*SIDE, "all"])
def test_what_stands_beside_a_label_is_never_taken_for_it(side, label):
    beside = SIDE if side == "all" else {side: SIDE[side]}
    chosen = choose_columns(table(**{"message_text": LONG, **beside, label: LABELS}), None, None)
    assert (chosen.texts, chosen.labels) == (("message_text",), (label,))


@pytest.mark.parametrize("side", ["lang", "platform", "country"])
def test_a_side_column_is_the_label_where_there_is_no_other(side):
    assert choose_columns(table(text=LONG, **{side: SIDE[side]}), None, None).labels == (side,)


def test_a_column_of_parts_is_never_the_label():
    with pytest.raises(DataError, match="no column looks like labels"):
        choose_columns(table(text=LONG, split=SIDE["split"]), None, None)


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        ({"": IDS, "Title": ("nice", "bad", "ok", "so"), "Review Text": LONG, "Rating": ("1", "2", "1", "2")}, 2, 3),
        ({"Headline": tuple(text[:20] for text in LONG), "Story": LONGER, "label": LABELS}, 1, 2),
        ({"note": LONG, "text": LONG, "label": LABELS}, 1, 2),
        ({"Headline": ("nice", "bad", "ok", "so"), "Story": LONG, "label": LABELS}, 1, 2),
        ({"id": IDS, "text": LONG, "label": ("0", "1", "0", "1"), "label_text": LABELS}, 1, 2),
        ({"text": LONG, "category": LABELS, "category_id": ("0", "1", "0", "1")}, 0, 1),
        ({"text": LONG, "label": LABELS, "sentiment": ("a", "a", "b", "b")}, 0, 1),
        ({"text": LONG, "topic": LABELS, "stars": ("1", "1", "2", "2")}, 0, 1),
        ({"url": ("http://a.b/c",) * 3 + ("http://a.b/d",), "message": LONG, "intent": LABELS}, 1, 2),
        ({"text": LONG, "when": ("2024-01-01",) * 2 + ("2024-01-02",) * 2, "team": LABELS}, 0, 2),
        ({"text": LONG, "label": LONG[::-1]}, 0, 1),
    ],
)
def test_names_and_kinds_of_values_speak_together(columns, text, label):
    chosen = choose_columns(table(**columns), None, None)
    names = list(columns)
    assert (chosen.texts, chosen.labels) == ((names[text],), (names[label],))


def test_a_column_that_was_left_out_is_named_where_the_choice_fails():
    left_out = Table("t.parquet", {"text": LONG}, findings=("Column 'v' of t.parquet is of type X and was left out.",))
    with pytest.raises(DataError, match=r"Column 'v' of t.parquet is of type X and was left out"):
        choose_columns(left_out, None, None)


def test_one_column_cannot_be_both():
    with pytest.raises(DataError, match="both name the column 'text'"):
        choose_columns(table(text=LONG, label=LABELS), "text", "text")
