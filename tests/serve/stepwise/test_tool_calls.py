"""Tool calls are read as the usual templates write them, and nothing of one is shown while it streams."""

from __future__ import annotations

import pytest

from edgetune.serve.stepwise.tool_calls import CallStream, MadeCall, split_calls

TOOLS = ("find", "send")
FIND, SEND = MadeCall("find", '{"q": "é"}'), MadeCall("send", "{}")
Q = '{"q": "é"}'
HERMES = '<tool_call>\n{"name": "find", "arguments": {"q": "é"}}\n</tool_call>'
WRITTEN = {
    "hermes": (f"Wait.\n{HERMES}\n{HERMES.replace('find', 'send').replace(Q, '{}')}", "Wait.", [FIND, SEND]),
    "hermes without an end": (HERMES.removesuffix("</tool_call>"), "", [FIND]),
    "llama": ('{"name": "find", "parameters": {"q": "é"}}', "", [FIND]),
    "llama with a tag": (
        '<|python_tag|>{"name": "find", "parameters": {"q": "é"}}; {"name": "send"}',
        "",
        [FIND, SEND],
    ),
    "mistral": ('[TOOL_CALLS] [{"name": "find", "arguments": {"q": "é"}}]', "", [FIND]),
    "mistral without its special token": ('[{"name": "find", "arguments": {"q": "é"}}]', "", [FIND]),
    "a line each": (
        'Wait.\n{"name": "find", "arguments": {"q": "é"}}\n{"name": "send", "arguments": {}}',
        "Wait.",
        [FIND, SEND],
    ),
    "wrapped": ('{"type": "function", "function": {"name": "find", "arguments": "{\\"q\\": \\"é\\"}"}}', "", [FIND]),
}
TEXTS = [
    "",
    "No call.",
    "A list: [1, 2]",
    "[1, 2]",
    '{"name": "other", "arguments": {}}',
    '{"name": "find", "arguments": {}} and more',
    '{"name": "find", "arguments": {',
    '{"name": "find", "arguments": "no"}',
    '{"name": "find", "arguments": [1]}',
    "<tool_call>nothing</tool_call>",
    "Is 3 < 4?  \n",
    "{" * 100_000,
    "[" * 100_000,
]


def _streamed(text: str, size: int) -> tuple[str, tuple[MadeCall, ...]]:
    stream = CallStream(TOOLS)
    shown = "".join(stream.push(text[place : place + size]) for place in range(0, len(text), size))
    rest, calls = stream.finish()
    return shown + rest, calls


@pytest.mark.parametrize("name", WRITTEN)
def test_calls_of_every_kind_are_read(name: str) -> None:
    text, words, calls = WRITTEN[name]
    assert split_calls(text, TOOLS) == (words, tuple(calls))
    for size in (1, 3, 7, len(text)):
        assert _streamed(text, size) == (words, tuple(calls))


@pytest.mark.parametrize("text", TEXTS)
def test_what_calls_none_of_the_tools_is_text(text: str) -> None:
    assert split_calls(text, TOOLS) == (text, ())
    assert _streamed(text[:2000], 3) == (text[:2000], ())


def test_text_is_shown_as_soon_as_it_can_be_no_call() -> None:
    stream = CallStream(TOOLS)
    assert stream.push("Is 3 <") == "Is 3"
    assert stream.push(" 4? ") == " < 4?"
    assert stream.push("<tool_") == ""
    assert stream.push("box> it") == " <tool_box> it"
    assert stream.finish() == ("", ())
