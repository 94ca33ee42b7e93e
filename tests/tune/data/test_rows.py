"""Inputs, one text or a pair: joined only as far as they fill a model."""

from edgetune.tune.data.rows import filling


def test_no_more_texts_are_joined_than_fill_the_model():
    assert filling(["one two", "three", "four five six", "seven"], 5) == "one two three four five six"
    assert filling([("one", "two three"), ("four", "five"), ("six", "seven")], 4) == ("one four", "two three five")


def test_a_text_without_spaces_counts_as_a_word_and_too_few_texts_are_all_taken():
    assert filling(["送餐很快", "味道不错", "服务好"], 2) == "送餐很快 味道不错"
    assert filling(["", ""], 1) == ""
    assert filling(["one"], 512) == "one"
