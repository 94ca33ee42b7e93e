"""What cleaning removes, keeps and says, on rows whose right answer is plain to see."""

import pytest

from edgetune.tune.data.cleaning import clean, counted, shortened
from edgetune.tune.data.rows import Parts, Rows, key


def rows(*pairs):
    return Rows(tuple(text for text, _ in pairs), tuple(label for _, label in pairs))


def cleaned(train, validation=None, test=None, *, normalize=True, deduplicate=True):
    return clean(Parts(train, validation, test), normalize=normalize, deduplicate=deduplicate)


def test_clean_rows_stay_as_they_are_and_nothing_is_said():
    given = rows(("a", "x"), ("b", "y"))
    assert cleaned(given) == Parts(given)


def test_texts_and_labels_are_stripped_and_invisible_characters_removed():
    result = cleaned(rows(("\ufeff a\0b \n", " x "), ("c", "y")))
    assert result.train == rows(("ab", "x"), ("c", "y"))
    assert result.findings == ("Stripped 1 text of the training data of outer white space, NUL or BOM.",)


def test_without_normalize_texts_keep_their_white_space():
    given = rows((" a ", "x"), ("b", " y"))
    assert cleaned(given, normalize=False).train == given


def test_rows_without_text_or_label_are_dropped_from_every_part_and_counted():
    result = cleaned(rows(("a", "x"), ("", "x"), (" ", "y"), ("b", "")), test=rows(("c", ""), ("d", "y")))
    assert result.train == rows(("a", "x"))
    assert result.test == rows(("d", "y"))
    assert "Dropped 2 rows without text from the training data." in result.findings
    assert "Dropped 1 row without label from the training data." in result.findings
    assert "Dropped 1 row without label from the test part." in result.findings


def test_duplicates_differ_in_case_and_spacing_only_and_the_first_is_kept():
    result = cleaned(rows(("My  Card", "x"), ("my card", "x"), ("MY CARD", "x"), ("b", "y")))
    assert result.train == rows(("My  Card", "x"), ("b", "y"))
    assert result.findings == (
        "Removed 2 duplicate rows from the training data: the same label and, but for case and spacing, the same text.",
    )


def test_a_text_under_two_labels_keeps_that_of_most_rows():
    result = cleaned(rows(("a", "x"), ("a", "y"), ("A", "y"), ("b", "x")))
    assert result.train == rows(("a", "y"), ("b", "x"))
    assert result.findings[-1] == (
        "Found 1 text of the training data under more than one label, such as 'a' under 'x' (1 row) and "
        "'y' (2 rows): the label of most rows was kept, at a tie the first."
    )


def test_a_tie_between_labels_goes_to_the_first_seen():
    assert cleaned(rows(("a", "y"), ("a", "x"), ("b", "x"))).train == rows(("a", "y"), ("b", "x"))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_given_part_keeps_its_duplicates_and_conflicts_but_they_are_counted(part):
    given = rows(("a", "x"), ("a", "x"), ("a", "y"))
    result = clean(Parts(rows(("b", "x"), ("c", "y")), **{part: given}), normalize=True, deduplicate=True)
    assert getattr(result, part) == given
    assert any(f"Kept 1 duplicate row in the {part} part" in finding for finding in result.findings)
    assert any(f"Found 1 text of the {part} part" in finding for finding in result.findings)


def test_rows_that_stand_in_a_later_part_leave_the_earlier_one():
    result = cleaned(
        rows(("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")),
        validation=rows(("B", "x"), ("e", "x")),
        test=rows(("C", "y"), ("E", "x")),
    )
    assert result.train == rows(("a", "x"), ("d", "y"))
    assert result.validation == rows(("B", "x"))
    assert result.test == rows(("C", "y"), ("E", "x"))
    assert result.findings == (
        "Removed 1 row from the training data with a text that also stands in the validation part.",
        "Removed 1 row from the training data with a text that also stands in the test part.",
        "Removed 1 row from the validation part with a text that also stands in the test part.",
    )


def test_without_deduplicate_all_rows_are_kept_and_still_counted():
    train = rows(("a", "x"), ("a", "x"), ("a", "y"), ("c", "y"))
    result = cleaned(train, test=rows(("c", "y")), deduplicate=False)
    assert result.train == train
    assert result.findings == (
        "Kept 1 duplicate row in the training data: the same label and, but for case and spacing, the same text.",
        "Found 1 text of the training data under more than one label, such as 'a' under 'x' (2 rows) and "
        "'y' (1 row): all rows are kept.",
        "Kept 1 row in the training data with a text that also stands in the test part.",
    )


def test_whole_floats_become_whole_numbers_where_all_labels_are():
    result = cleaned(rows(("a", "0.0"), ("b", "1.0")), test=rows(("c", "1"), ("d", "")))
    assert result.train.labels == ("0", "1")
    assert result.test.labels == ("1",)
    assert cleaned(rows(("a", "1.0"), ("b", "2.5"))).train.labels == ("1.0", "2.5")


def test_words_for_counts_keys_and_examples():
    assert (counted(1, "row"), counted(1204, "row"), counted(2, "class", "classes")) == (
        *("1 row", "1,204 rows"),
        "2 classes",
    )
    assert key(" Straße\t IST\n da ") == "strasse ist da"
    assert shortened("a\n" * 60) == "a " * 28 + "a..."
