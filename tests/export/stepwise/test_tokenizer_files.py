"""What the server feeds the graph is what training fed: by text and by chat, tools, thoughts and names included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from edgetune.export.stepwise.tokenizer_files import check_requests, write_tokenizer
from edgetune.serve.errors import ParityError
from edgetune.tune.stepwise.chats import Chat, ToolCall, Turn, pair
from edgetune.tune.stepwise.encoding import Encoder
from edgetune.tune.stepwise.template import ChatTemplate

# As Qwen's and Hermes' templates do: tools printed, arguments printed as an object and gone through.
TEMPLATE = """
{{- bos_token }}
{%- if tools %}{{- 'Tools: ' + tools | tojson + '\\n' }}{%- endif %}
{%- for m in messages %}
    {{- '<' + m.role + (' ' + m.name if m.name else '') + '>' }}
    {%- if m.reasoning_content %}{{- '(' + m.reasoning_content + ')' }}{%- endif %}
    {{- m.content }}
    {%- for call in m.tool_calls or [] %}
        {{- '\\ncall ' + call.function.name + ' ' + call.function.arguments | tojson }}
        {%- for name, value in call.function.arguments.items() %}{{- ' ' + name + '=' + value | string }}{%- endfor %}
        {{- call | tojson }}
    {%- endfor %}
    {{- eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<assistant>' }}{%- endif %}
"""
TALK = Chat(
    (
        Turn("system", "Be brief."),
        Turn("user", "Where is my card?"),
        Turn("assistant", "", (ToolCall("find", '{"card": "é 1", "n": 7}', "c1"),), reasoning="I have to look."),
        Turn("tool", "in the post", call_id="c1", name="find"),
        Turn("assistant", "It is in the post."),
    ),
    tools='[{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]',
)


@pytest.fixture
def parts(tiny_decoder, tmp_path):
    """`parts(kind)`: an encoder of the tiny llama's tokenizer, and the folder of what is packed for it."""

    def made(kind):
        folder, template = tiny_decoder("llama"), TEMPLATE if kind == "chat" else None
        write_tokenizer(folder, template, tmp_path)
        chats = ChatTemplate(TEMPLATE, "the recipe's") if kind == "chat" else None
        return Encoder(AutoTokenizer.from_pretrained(folder), kind, chats, max_tokens=900), tmp_path

    return made


@pytest.mark.parametrize(
    ("kind", "chat", "prompt"),
    [
        ("text", Chat((Turn("assistant", " café 卡 \n"),)), " café 卡 \n"),
        ("completion", pair("The capital of France is", " Paris"), "The capital of France is"),
    ],
)
def test_texts_are_read_as_in_training(parts, kind, chat, prompt):
    encoder, folder = parts(kind)
    request = encoder.request(chat)
    assert (request.prompt, request.tools) == (prompt, None)
    row = encoder.encode([chat], "train").rows[0]["input_ids"]
    assert row[: len(request.ids)] == request.ids
    check_requests(folder, [request])
    assert sorted(path.name for path in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_a_chat_with_tools_and_thoughts_is_read_as_in_training(parts):
    encoder, folder = parts("chat")
    request = encoder.request(TALK)
    (call,) = request.prompt[2]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"card": "é 1", "n": 7}, (
        "JSON text, as OpenAI's clients send it"
    )
    row = encoder.encode([TALK], "train").rows[0]["input_ids"]
    assert row[: len(request.ids)] == request.ids
    text = AutoTokenizer.from_pretrained(folder).decode(request.ids)
    assert 'call find {"card": "é 1", "n": 7} card=é 1 n=7' in text
    assert "<assistant>(I have to look.)" in text
    assert "<tool find>in the post" in text
    check_requests(folder, [request])


def test_a_tokenizer_that_reads_otherwise_is_found(parts):
    encoder, folder = parts("completion")
    request = encoder.request(pair("card", " arrives"))
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    described["post_processor"]["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    described["post_processor"]["special_tokens"]["</s>"] = {"id": "</s>", "ids": [2], "tokens": ["</s>"]}
    path.write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(ParityError, match="reads 1 of 1 prompts otherwise than training did") as told:
        check_requests(folder, [request])
    size = len(request.ids)
    assert f"'card' becomes {size + 1} tokens, where training had {size}; they differ from token {size} on" in str(
        told.value
    )


def test_a_chat_template_that_is_another_one_is_found(parts):
    encoder, folder = parts("chat")
    request = encoder.request(TALK)
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("{{- m.content }}", "{{- m.content | upper }}"))
    with pytest.raises(ParityError, match="'in the post' becomes"):
        check_requests(folder, [request])
    Path(folder / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    with pytest.raises(ParityError, match="never"):
        check_requests(folder, [request])
    Path(folder / "chat_template.jinja").unlink()
    with pytest.raises(ParityError, match="no chat template was saved"):
        check_requests(folder, [request])
