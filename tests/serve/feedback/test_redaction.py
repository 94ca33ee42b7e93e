"""What is replaced in kept texts, and what is left alone."""

import pytest

from edgetune.serve.errors import InputError
from edgetune.serve.feedback.redaction import Redaction


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("write to joe.b+x@mail.example.org now", "write to [email] now"),
        ("call +49 170 1234567 or (030) 901820.", "call [phone] or [phone]."),
        ("call 0301234567", "call [phone]"),
        ("card 4111 1111 1111 1111, again 4111111111111111", "card [card], again [card]"),
        ("no card, by its check digit: 4111 1111 1111 1112", "no card, by its check digit: [phone]"),
        ("since 2026-01-02 I paid 50 euros, order 12345678", "since 2026-01-02 I paid 50 euros, order 12345678"),
        ("12.03.2026 at 10:30", "12.03.2026 at 10:30"),
        ("a@b", "a@b"),
    ],
)
def test_texts(text, kept):
    assert Redaction().text(text) == kept


def test_names_and_own_patterns():
    redaction = Redaction(["email"], ["order=A[0-9]{3}"])
    assert redaction.text("A123 a@b.org 0301234567") == "[order] [email] 0301234567"
    chat = [{"role": "user", "content": "a@b.org"}, ["a@b.org", 3, None]]
    assert redaction.value(chat) == [{"role": "user", "content": "[email]"}, ["[email]", 3, None]]
    assert redaction.value({"label": "a@b.org"}) == {"label": "a@b.org"}


@pytest.mark.parametrize(
    ("names", "patterns", "words"),
    [
        (["name"], [], "There is no pattern 'name'"),
        ([], ["A[0-9]"], "is no pattern to redact"),
        ([], ["a=["], "is no regular expression"),
        ([], ["a=x*"], "matches an empty text"),
    ],
)
def test_what_is_no_pattern_is_refused(names, patterns, words):
    with pytest.raises(InputError, match=words):
        Redaction(names, patterns)
