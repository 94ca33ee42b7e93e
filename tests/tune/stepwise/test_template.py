"""Chat templates: whose is used, where answers stand in what they write, and what happens where they fail."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from edgetune.serve.errors import ModelError, RecipeError
from edgetune.serve.stepwise.template import ChatTemplate as ServedTemplate
from edgetune.tune.stepwise.chats import Chat, ToolCall, Turn, message
from edgetune.tune.stepwise.named_templates import NAMED_TEMPLATES
from edgetune.tune.stepwise.template import ChatTemplate, TemplateFault, choose_template, prompt_text, render

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Qwen3's: only the last answer has an empty thought before it.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think></think>{% endif %}{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)


def byte_tokenizer(*, bos=False, template=None, eos="</s>"):
    """Every byte a token; three special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "</s>", "<|im_end|>", *letters]
    words = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    if bos:
        words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token=eos,
        extra_special_tokens={"end": "<|im_end|>"},
        chat_template=template,
    )


def chat(*contents, system=None):
    """Turns of user and assistant in turn."""
    first = (Turn("system", system),) if system else ()
    return Chat((*first, *(Turn("user" if n % 2 == 0 else "assistant", said) for n, said in enumerate(contents))))


def answers(rendered):
    return [rendered.text[span.start : span.end] for span in rendered.spans]


def of(text):
    return ChatTemplate(text, "the recipe's")


def test_the_models_own_template_is_used():
    found = choose_template(byte_tokenizer(template=CHATML), None)
    assert (found.text, found.origin) == (CHATML, "the model's own")
    assert found.findings == ("Chats are written by the model's own chat template.",)


def test_the_recipes_template_goes_before_the_models_and_says_so(tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text(MARKED, encoding="utf-8")
    for said, text in ((MARKED, MARKED), (str(path), MARKED), ("plain", NAMED_TEMPLATES["plain"])):
        found = choose_template(byte_tokenizer(template=CHATML), said)
        assert (found.text, found.origin) == (text, "the recipe's")
        assert found.findings == ("The recipe's chat template is used in place of the model's own.",)


def test_a_model_without_a_template_gets_a_named_one_with_its_bos():
    found = choose_template(byte_tokenizer(), None, "human-ai-zh")
    assert found.text == NAMED_TEMPLATES["human-ai-zh"]
    assert found.findings == (
        "The model has no chat template: the one named 'human-ai-zh' is used, and saved with the model.",
    )
    with_bos = byte_tokenizer(bos=True)
    found = choose_template(with_bos, None)
    assert render(with_bos, found, chat("a", "b")).text == "<s>### User:\na\n\n### Assistant:\nb</s>"


@pytest.mark.parametrize(
    ("name", "expected", "prompt", "answer"),
    [
        (
            "plain",
            "### System:\ns\n\n### User:\na\n\n### Assistant:\nb</s>\n\n### User:\nc\n\n### Assistant:\nd</s>",
            "### System:\ns\n\n### User:\na\n\n### Assistant:\n",
            ["b</s>", "d</s>"],
        ),
        (
            "human-ai-en",
            "s\nHuman: a\nAssistant: b</s>\nHuman: c\nAssistant: d</s>",
            "s\nHuman: a\nAssistant:",
            [" b</s>", " d</s>"],
        ),
        ("human-ai-zh", "s\n人类: a\nAI: b</s>\n人类: c\nAI: d</s>", "s\n人类: a\nAI:", [" b</s>", " d</s>"]),
    ],
)
def test_named_templates_write_this(name, expected, prompt, answer):
    tokenizer, talk = byte_tokenizer(), chat("a", "b", "c", "d", system="s")
    rendered = render(tokenizer, of(NAMED_TEMPLATES[name]), talk)
    assert rendered.text == expected
    assert answers(rendered) == answer
    assert (rendered.unconfirmed, rendered.left_out) == (0, ())
    assert prompt_text(tokenizer, of(NAMED_TEMPLATES[name]), talk.turns[:2]) == prompt


def test_named_templates_write_tools_and_calls():
    turns = (
        Turn("user", "Time?"),
        Turn("assistant", "", (ToolCall("time", '{"zone": "UTC"}'), ToolCall("date"))),
        Turn("tool", "12:00"),
        Turn("assistant", "Noon"),
    )
    rendered = render(byte_tokenizer(), of(NAMED_TEMPLATES["plain"]), Chat(turns, '[{"name": "time"}]'))
    called = '{"name": "time", "arguments": {"zone": "UTC"}}\n{"name": "date", "arguments": {}}</s>'
    assert rendered.text == (
        f'### Tools:\n{{"name": "time"}}\n\n### User:\nTime?\n\n### Assistant:\n{called}\n\n'
        "### Tool:\n12:00\n\n### Assistant:\nNoon</s>"
    )
    assert answers(rendered) == [called, "Noon</s>"]


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_answers_are_found_even_where_their_words_come_twice(template):
    rendered = render(byte_tokenizer(), of(template), chat("yes", "yes", "yes", "yes"))
    text = "".join(f"<|im_start|>{role}\nyes<|im_end|>\n" for role in ("user", "assistant") * 2)
    assert rendered.text == text
    first = text.index("assistant\n") + len("assistant\n")
    assert rendered.spans[0].start == first
    assert [one.strip() for one in answers(rendered)] == ["yes<|im_end|>"] * 2
    assert rendered.unconfirmed == 0


def test_a_marked_answer_ends_before_its_turn_does():
    rendered = render(byte_tokenizer(), of(MARKED), chat("a", "b", "c", "d"))
    assert [rendered.text[span.end : span.turn_end] for span in rendered.spans] == ["\n", "\n"]


def test_marked_spans_are_those_of_transformers():
    tokenizer, talk = byte_tokenizer(), chat("a", "b", "c", "dé")
    said = tokenizer.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in talk.turns],
        chat_template=MARKED, tokenize=True, return_dict=True, return_assistant_tokens_mask=True,
    )  # fmt: skip
    masked = tokenizer.decode([i for i, m in zip(said["input_ids"], said["assistant_masks"], strict=True) if m])
    assert "".join(answers(render(tokenizer, of(MARKED), talk))) == masked == "b<|im_end|>dé<|im_end|>"


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_answers_that_are_context_alone_have_no_span(template):
    turns = (Turn("user", "a"), Turn("assistant", "b", learnt=False), Turn("user", "c"), Turn("assistant", "d"))
    rendered = render(byte_tokenizer(), of(template), Chat(turns))
    assert [one.strip() for one in answers(rendered)] == ["d<|im_end|>"]
    assert rendered.unconfirmed == 0


def test_an_answer_that_is_written_otherwise_when_turns_follow_is_not_learnt():
    rendered = render(byte_tokenizer(), of(THINKING), chat("a", "b", "c", "d"))
    assert answers(rendered) == ["<think></think>d<|im_end|>\n"]
    assert rendered.unconfirmed == 1


def test_turns_that_a_template_leaves_out_are_counted():
    silent = "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }}|{% endif %}{% endfor %}"
    assert render(byte_tokenizer(), of(silent), chat("a", "b", system="Quiet")).left_out == ("system turn",)


def test_a_template_that_fails_on_a_chat_says_why():
    tokenizer = byte_tokenizer(template=STRICT)
    template = choose_template(tokenizer, None)  # it renders a question and an answer
    with pytest.raises(TemplateFault, match="System role not supported"):
        render(tokenizer, template, chat("a", "b", system="s"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{% for m in messages %}", "TemplateSyntaxError"),
        ("{{ raise_exception('never') }}", "TemplateError: never"),
        ("{{ 'a' + 1 }}", "TypeError"),
        ("{{ messages[7]['content'] + 'a' }}", "UndefinedError"),
    ],
)
def test_a_template_that_renders_nothing_is_refused_at_once(text, reason):
    with pytest.raises(RecipeError, match=reason):
        choose_template(byte_tokenizer(), text)
    with pytest.raises(ModelError, match=reason):
        choose_template(byte_tokenizer(template=text), None)


def test_a_template_that_is_none_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="which is no chat template") as caught:
        choose_template(byte_tokenizer(), str(tmp_path / "missing.jinja"))
    assert "plain, human-ai-en, human-ai-zh" in caught.value.expected


def test_without_an_eos_token_no_answer_could_end():
    with pytest.raises(ModelError, match="has no EOS token"):
        choose_template(byte_tokenizer(eos=None), None)


def test_rendering_is_that_of_transformers():
    tokenizer, talk = byte_tokenizer(template=CHATML), chat("a", "b")
    messages = [{"role": turn.role, "content": turn.content} for turn in talk.turns]
    expected = tokenizer.apply_chat_template(messages, tokenize=False)
    assert render(tokenizer, of(CHATML), talk).text == expected
    assert render_jinja_template([messages], chat_template=CHATML)[0] == [expected]


@pytest.mark.parametrize("text", [CHATML, MARKED, THINKING, *NAMED_TEMPLATES.values()])
def test_the_runtime_asks_in_the_words_that_were_learnt(text):
    from edgetune.serve.stepwise.template import ChatTemplate as RuntimeTemplate

    tokenizer = byte_tokenizer()
    turns = (
        Turn("system", "s"),
        Turn("user", "<a> & 'é' 人"),
        Turn("assistant", "b", (ToolCall("time", '{"zone": "人"}'),)),
        Turn("tool", "12:00"),
    )
    runtime = RuntimeTemplate(text, tokenizer.special_tokens_map)
    asked = runtime.render([message(turn) for turn in turns], tools=[{"name": "time"}])
    assert asked == prompt_text(tokenizer, of(text), turns, '[{"name": "time"}]')
    assert "人" in asked


MAY_THINK = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% if enable_thinking is defined and not enable_thinking %}(no)"
    "{% endif %}{% endif %}"
)


def test_variables_of_the_recipe_are_the_templates_defaults():
    tokenizer = byte_tokenizer()
    plain = choose_template(tokenizer, MAY_THINK)
    silent = choose_template(tokenizer, MAY_THINK, variables={"enable_thinking": False})
    turns = (Turn("user", "Hi"),)
    assert prompt_text(tokenizer, plain, turns).endswith("assistant:")
    assert prompt_text(tokenizer, silent, turns).endswith("assistant:(no)")
    assert silent.findings[-1] == "The chat template is rendered with enable_thinking: false."
    served = ServedTemplate(silent.text, {"eos_token": "</s>"})
    chat = [{"role": "user", "content": "Hi"}]
    assert served.render(chat).endswith("assistant:(no)")
    assert served.render(chat, variables={"enable_thinking": True}).endswith("assistant:")


@pytest.mark.parametrize("value", [True, None, 1.5, 'it\'s "so" é', ["a", None], {"a": [1, False]}])
def test_values_of_every_kind_reach_the_template(value):
    tokenizer = byte_tokenizer()
    source = "{{ word | tojson }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    template = choose_template(tokenizer, source, variables={"word": value})
    text = prompt_text(tokenizer, template, (Turn("user", "Hi"),))
    assert json.loads(text.removesuffix("Hi</s>")) == value


def test_variables_that_the_template_does_not_read_are_refused():
    with pytest.raises(RecipeError, match=r"chat_template_kwargs names 'enable_thinkin', and the chat template \(the"):
        choose_template(byte_tokenizer(), MAY_THINK, variables={"enable_thinkin": False})
