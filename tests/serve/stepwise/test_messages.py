"""Messages become what templates were rendered with in training, whatever else a client sends along."""

from __future__ import annotations

from typing import Any

import pytest

from edgetune.serve.errors import InputError
from edgetune.serve.stepwise.messages import reasoning_word, template_messages

PARSED = {"type": "function", "function": {"name": "find", "arguments": {"q": "é", "n": 10**20}}, "id": "c1"}


def _one(message: dict[str, Any], template: str = "") -> dict[str, Any]:
    (plain,) = template_messages([message], template)
    return plain


def test_arguments_are_objects() -> None:
    function = {"arguments": '{"q": "é", "n": 100000000000000000000}', "name": "find"}
    sent = {"index": 0, "id": "c1", "type": "function", "function": function}
    plain = _one({"role": "assistant", "content": None, "refusal": None, "audio": None, "tool_calls": [sent]})
    assert plain == {"role": "assistant", "content": "", "tool_calls": [PARSED]}
    # A template that prints a call whole prints it in one order, whatever the client's.
    assert list(plain["tool_calls"][0]) == ["type", "function", "id"]
    assert list(plain["tool_calls"][0]["function"]) == ["name", "arguments"]
    assert _one({"role": "assistant", "tool_calls": [PARSED]})["tool_calls"] == [PARSED]
    flat = {"name": "find", "arguments": {}}
    assert _one({"role": "assistant", "tool_calls": [flat]})["tool_calls"] == [{"type": "function", "function": flat}]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({"function": {"arguments": "{}"}}, "A tool call of message 0 names no function"),
        ("find", "names no function"),
        ({"function": {"name": "find", "arguments": "{"}}, "The arguments of 'find' in message 0 are no JSON"),
        ({"function": {"name": "find", "arguments": "[1]"}}, "The arguments of 'find' in message 0 are no object"),
        ({"function": {"name": "find", "arguments": "[" * 100_000}}, "are no JSON"),
    ],
)
def test_what_is_no_call_is_refused(call: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        _one({"role": "assistant", "tool_calls": [call]})
    with pytest.raises(InputError, match="The tool calls of message 0 are no list"):
        _one({"role": "assistant", "tool_calls": {"1": call}})


def test_parts_and_names() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert _one({"role": "tool", "content": parts, "tool_call_id": "c1", "name": "find", "extra": 1}) == {
        "role": "tool", "content": "one two", "tool_call_id": "c1", "name": "find",
    }  # fmt: skip


@pytest.mark.parametrize("sent", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{{ m.reasoning_content }}", "reasoning_content"),
        ("{% if 'thinking' in m %}{{ m['thinking'] }}{% endif %}", "thinking"),
        ("{{ message.reasoning }}", "reasoning"),
        ("{{ 'I was thinking' }}{{ m.content }}", None),
    ],
)
def test_thoughts_go_where_the_template_reads_them(sent: str, template: str, word: str | None) -> None:
    assert reasoning_word(template) == word
    plain = _one({"role": "assistant", "content": "Yes.", sent: "hm"}, template)
    assert plain == {"role": "assistant", "content": "Yes.", **({word: "hm"} if word else {})}
