"""Chats are rendered as transformers renders them; what a template cannot render is told clearly."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from edgetune.serve.errors import BundleDamaged, InputError, MissingDependency
from edgetune.serve.stepwise.template import ChatTemplate, TemplateOverrun

CALL = {"type": "function", "function": {"name": "find", "arguments": {"q": "é<"}}, "id": "c1"}
CHAT = [
    {"role": "system", "content": "You are <b>brief</b> & exact."},
    {"role": "user", "content": "Wo ist die Karte? 卡 'quoted'"},
    {"role": "assistant", "content": "Here.", "tool_calls": [CALL]},
    {"role": "user", "content": "And now?"},
]
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

PLAIN = """
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {{- '<<SYS>>' + message.content + '\\n' }}
    {%- else %}
        {{- '<|' ~ message['role'] ~ '|>' ~ message['content'] | trim ~ eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""
BLOCKS = """
{% for message in messages %}
    {% if loop.first and message.role != 'system' %}
        {{ raise_exception('system first') }}
    {% endif %}
    {% if message.role == 'assistant' %}
{% generation %}
{{ message.content }}{{ eos_token }}
{% endgeneration %}
    {% else %}
{{ message.role }}: {{ message.content }}
    {% endif %}
    {% if loop.index > 3 %}{% break %}{% endif %}
{% endfor %}
{% set ns = namespace(found=false) %}
{% for m in messages %}
    {% if m.tool_calls %}{% set ns.found = true %}{% endif %}
{% endfor %}
{{ ns.found }} {{ strftime_now('%Y') | length }}
{% if tools %}{{ tools | tojson }}{{ tools | tojson(indent=2) }}{% endif %}
{{ messages[2].tool_calls | tojson }}
{{ missing_variable }}{{ tools is none }}{{ documents is none }}
"""


@pytest.mark.parametrize("source", [PLAIN, BLOCKS])
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("prompt", [True, False])
def test_chats_are_rendered_as_transformers_does(source: str, tools: Any, prompt: bool) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "?": 2}, unk_token="?"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL)
    expected = tokenizer.apply_chat_template(
        CHAT, tools=tools, chat_template=source, tokenize=False, add_generation_prompt=prompt
    )
    assert len(expected) > 50
    assert ChatTemplate(source, SPECIAL).render(CHAT, tools=tools, add_generation_prompt=prompt) == expected


def test_text_parts_are_one_text() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]}]
    assert ChatTemplate(PLAIN, SPECIAL).render(parts) == "<s><|user|>one two</s><|assistant|>"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], r"The chat of 0 message\(s\) has none of the user's"),
        ([{"role": "system", "content": "x"}], "has none of the user's"),
        ([{"role": "user", "content": "x"}, {"content": "y"}], "Message 1 has no role"),
        ({"role": "user", "content": "x"}, "no list of messages"),
        ("hello", "no list of messages"),
        (["hello"], "no list of messages"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": 7}], r"fails on this chat \(user, assi"),
        *(([{"role": "user", "content": empty}], "The prompt is empty") for empty in ("", " \n", None, [])),
        ([{"role": "system", "content": "x"}, {"role": "user"}], "The prompt is empty"),
    ],
)
def test_what_is_no_chat_is_refused(messages: Any, said: str) -> None:
    template = ChatTemplate("{% for m in messages %}{{ 'x' + m.content }}{% endfor %}", {})
    with pytest.raises(InputError, match=said):
        template.render(messages)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[7].content + 'x' }}", "fails on this chat"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content.missing.deeper }}", "has no attribute"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
    ],
)
def test_a_template_that_fails_says_why(source: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        ChatTemplate(source, {}, origin="folder/chat_template.jinja").render([{"role": "user", "content": "x"}])
    assert "folder/chat_template.jinja" in caught.value.found


def test_a_template_that_is_no_jinja_is_the_bundles_fault() -> None:
    with pytest.raises(BundleDamaged, match="is no Jinja template"):
        ChatTemplate("{% for %}", {}).render([{"role": "user", "content": "x"}])


def test_without_jinja_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("jinja2"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match="pip install 'jinja2"):
        ChatTemplate(PLAIN, {}).render([{"role": "user", "content": "x"}])


def _write(folder: Path, settings: dict[str, Any]) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_templates_are_found_where_models_have_them(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}]
    assert ChatTemplate.open(tmp_path) is None
    bos = {"content": "<s>", "special": True}
    _write(tmp_path, {"bos_token": bos, "eos_token": "</s>", "chat_template": "{{ bos_token }}one"})
    found = ChatTemplate.open(tmp_path)
    assert found is not None
    assert found.render(chat) == "<s>one"
    several = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "{{ eos_token }}two"}]
    _write(tmp_path, {"eos_token": "</s>", "pad_token": None, "chat_template": several})
    found = ChatTemplate.open(tmp_path)
    assert found is not None
    assert found.render(chat) == "</s>two"
    (tmp_path / "chat_template.jinja").write_text("three")
    found = ChatTemplate.open(tmp_path)
    assert found is not None
    assert found.render(chat) == "three"
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(BundleDamaged, match="cannot be read"):
        ChatTemplate.open(tmp_path)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "writes nothing for this chat"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth"),
        ("{{ 1 // 0 }}", "zero"),
        ("{{ 'x' * (10 ** 14) }}", "a text or a list of more than 10,000,000 parts"),
    ],
)
def test_a_template_that_ends_badly_is_told(source: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ChatTemplate(source, {}).render([{"role": "user", "content": "x"}])


ENDLESS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}"
    "{% endfor %}x",
    "{% for i in range(99999) if 0 %}{% endfor %}{% for i in range(999) %}{% for j in range(99999) if 0 %}{% endfor %}"
    "{% endfor %}x",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}x",
    "{% set edgetune_count_step = 0 %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x",
    "{{ 9 ** 99999999 }}",
    "{{ (range(9999) | list) * 99999 }}",
    "{{ 99999999 * 'x' }}",
]


@pytest.mark.parametrize("source", ENDLESS)
def test_a_template_without_an_end_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune.serve.stepwise.template.MOST_STEPS", 10_000)
    template = ChatTemplate(source, {})
    with pytest.raises(TemplateOverrun, match="takes more than it may on this chat"):
        template.render([{"role": "user", "content": "x"}])
    with pytest.raises(BundleDamaged, match="takes more than it may on this chat"):
        template.prove()


def test_a_template_is_stopped_by_the_clock_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune.serve.stepwise.template.MOST_SECONDS", 0.0)
    with pytest.raises(TemplateOverrun, match="more seconds than any chat needs"):
        ChatTemplate("{% for i in range(9) %}{{ i }}{% endfor %}", {}).render([{"role": "user", "content": "x"}])


def test_each_chat_has_a_budget_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetune.serve.stepwise.template.MOST_STEPS", 10)
    template = ChatTemplate("{% for message in messages if message.content %}{{ loop.index }}{% endfor %}", {})
    for _ in range(5):
        assert template.render([{"role": "user", "content": "x"}] * 4) == "1234"
    with pytest.raises(TemplateOverrun):
        template.render([{"role": "user", "content": "x"}] * 6)


def test_a_template_may_refuse_the_chats_of_the_proof() -> None:
    ChatTemplate("{{ raise_exception('no such chat') }}", {}).prove()
    with pytest.raises(BundleDamaged, match="no Jinja template"):
        ChatTemplate("{% for", {}).prove()


def test_what_is_no_text_may_still_be_said() -> None:
    """A picture for a template that knows them is no empty prompt."""
    template = ChatTemplate("{{ messages[0].content[0].type }}", {})
    assert template.render([{"role": "user", "content": [{"type": "image"}]}]) == "image"
