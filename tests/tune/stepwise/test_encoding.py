"""Rows as tokens: the loss stands on the answers alone, long rows are cut or dropped, and everything is counted."""

import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from edgetune.serve.errors import DataError, ModelError
from edgetune.tune.stepwise.chats import Chat, Turn, pair
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.conversations import Conversations
from edgetune.tune.stepwise.encoding import IGNORED, Encoder
from edgetune.tune.stepwise.formats import FORMATS
from edgetune.tune.stepwise.named_templates import NAMED_TEMPLATES
from edgetune.tune.stepwise.template import ChatTemplate, choose_template
from edgetune.tune.stepwise.tokenizer import without_appended_eos

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = NAMED_TEMPLATES["plain"]


def tokenizer_of(*, bos=False, eos_too=False, merges=()):
    """Every byte a token but for `merges`; `bos` and `eos_too` are what the base's puts around texts by itself."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "</s>", "<|im_end|>", *letters, *("".join(one) for one in merges)]
    words = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, list(merges)))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    if bos or eos_too:
        around = f"{'<s> ' * bos}$A{' </s>' * eos_too}"
        words.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 0), ("</s>", 1)])
    return without_appended_eos(
        PreTrainedTokenizerFast(
            tokenizer_object=words, bos_token="<s>", eos_token="</s>", extra_special_tokens={"end": "<|im_end|>"}
        )
    )


def encoder(kind="chat", template=PLAIN, tokenizer=None, max_tokens=500, **options):
    found = ChatTemplate(template, "the recipe's") if kind == "chat" else None
    return Encoder(tokenizer or tokenizer_of(), kind, found, max_tokens=max_tokens, **options)


def read(tokenizer, row):
    """The row's text, and with dots in place of what is not learnt."""
    shown = [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED]
    assert all(label in (IGNORED, i) for i, label in zip(row["input_ids"], row["labels"], strict=True))
    return tokenizer.decode(row["input_ids"]), tokenizer.decode(shown)


def text(content, place="a.txt, line 1"):
    return Chat((Turn("assistant", content),), place=place)


def talk(*contents):
    return Chat(tuple(Turn("user" if n % 2 == 0 else "assistant", said) for n, said in enumerate(contents)))


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("eos_too", [False, True])
def test_all_of_a_text_is_learnt_between_its_bos_and_one_eos(bos, eos_too):
    tokenizer = tokenizer_of(bos=bos, eos_too=eos_too)
    found = encoder("text", tokenizer=tokenizer).encode([text("né")], "train")
    expected = "<s>" * bos + "né</s>"
    assert read(tokenizer, found.rows[0]) == (expected, expected)
    assert found.stop_ids == (1,)
    assert found.rows[0]["input_ids"].count(1) == 1
    assert found.findings == (f"Encoded the training data: 1 row, {4 + bos} tokens, {3 + bos} of them learnt.",)


@pytest.mark.parametrize("bos", [False, True])
def test_of_a_completion_the_prompt_is_not_learnt(bos):
    tokenizer = tokenizer_of(bos=bos, eos_too=bos)
    encode = encoder("completion", tokenizer=tokenizer, separator=" ")
    found = encode.encode([pair("Say hi:", "hi")], "train")
    assert read(tokenizer, found.rows[0]) == ("<s>" * bos + "Say hi: hi</s>", " hi</s>")
    prompt = encode.prompt(pair("Say hi:", "hi"))
    assert (tokenizer.decode(prompt.ids), prompt.answer) == ("<s>" * bos + "Say hi:", " hi")
    assert found.rows[0]["input_ids"][: len(prompt.ids)] == prompt.ids


@pytest.mark.parametrize(
    ("template", "answers"),
    [(PLAIN, "b</s>dé</s>"), (CHATML, "b<|im_end|>dé<|im_end|>"), (NAMED_TEMPLATES["human-ai-zh"], " b</s> dé</s>")],
)
def test_of_a_chat_every_answer_is_learnt_to_its_end(template, answers):
    tokenizer, chat = tokenizer_of(), talk("a", "b", "c", "dé")
    encode = encoder(template=template, tokenizer=tokenizer)
    found = encode.encode([chat], "validation")
    whole, learnt = read(tokenizer, found.rows[0])
    assert learnt == answers
    assert whole.endswith("dé</s>") or whole.endswith("dé<|im_end|>")  # what stands behind the last answer is not kept
    assert found.stop_ids == ((2,) if template == CHATML else (1,))
    prompt = encode.prompt(chat)
    assert found.rows[0]["input_ids"][: len(prompt.ids)] == prompt.ids
    assert prompt.answer == "dé"
    assert found.findings[-1].startswith("Encoded the validation part: 1 row, ")


def test_an_answer_that_no_token_ends_gets_an_eos():
    bare = "{% for m in messages %}{{ m['role'][0] }}={{ m['content'] }};{% endfor %}"
    tokenizer = tokenizer_of()
    bare += "{% if add_generation_prompt %}a={% endif %}"
    found = encoder(template=bare, tokenizer=tokenizer).encode([talk("x", "y")], "train")
    assert read(tokenizer, found.rows[0]) == ("u=x;a=y;</s>", "y;</s>")


def test_marks_without_the_end_of_an_answer_are_widened_to_it_and_that_is_said():
    marked = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}"
        "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    )
    tokenizer = tokenizer_of()
    found = encoder(template=marked, tokenizer=tokenizer).encode([talk("a", "b", "c", "d")], "train")
    assert read(tokenizer, found.rows[0]) == (
        "a<|im_end|>\nb<|im_end|>\nc<|im_end|>\nd<|im_end|>",
        "b<|im_end|>d<|im_end|>",
    )
    assert found.findings[0] == (
        "The template's marks leave the token that ends an answer out: it is learnt too, in 1 row of the training data."
    )


def test_answers_that_are_context_alone_are_not_learnt():
    tokenizer = tokenizer_of()
    turns = (Turn("user", "a"), Turn("assistant", "b", learnt=False), Turn("user", "c"), Turn("assistant", "d"))
    found = encoder(template=CHATML, tokenizer=tokenizer).encode([Chat(turns)], "train")
    assert read(tokenizer, found.rows[0])[1] == "d<|im_end|>"


def test_a_token_across_the_border_of_prompt_and_answer_is_said():
    crossing = "{% for m in messages %}{{ m['role'][0] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
    crossing += "{% if add_generation_prompt %}a: {% endif %}"
    tokenizer = tokenizer_of(merges=[("Ġ", "b")])
    found = encoder(template=crossing, tokenizer=tokenizer).encode([talk("x", "b"), talk("x", "c")], "train")
    assert found.findings[0].startswith("In 1 row of the training data a token spans the border of prompt and answer")
    assert read(tokenizer, found.rows[1])[1] == "c</s>"
    clean = encoder(template=NAMED_TEMPLATES["human-ai-en"], tokenizer=tokenizer).encode([talk("x", "b")], "train")
    assert len(clean.findings) == 1  # the space goes with the answer, so nothing is crossed
    assert read(tokenizer, clean.rows[0])[1] == " b</s>"


def test_what_a_template_leaves_out_is_said():
    silent = (
        "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    chat = Chat((Turn("system", "Quiet"), *talk("a", "b").turns))
    found = encoder(template=silent).encode([chat], "train")
    assert found.findings[0] == "The template leaves out, or rewrites, 1 system turn of the training data."


def test_thoughts_are_learnt_where_the_template_writes_them_and_else_named():
    thinking = CHATML.replace(
        "\n{{ m['content'] }}",
        "\n{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}{{ m['content'] }}",
    )
    turns = (Turn("user", "a"), Turn("assistant", "b", reasoning="hm"))
    tokenizer = tokenizer_of()
    found = encoder(template=thinking, tokenizer=tokenizer).encode([Chat(turns)], "train")
    assert read(tokenizer, found.rows[0])[1] == "(hm)b<|im_end|>"
    assert len(found.findings) == 1
    found = encoder(template=CHATML, tokenizer=tokenizer).encode([Chat(turns)], "train")
    assert read(tokenizer, found.rows[0])[1] == "b<|im_end|>"
    assert found.findings[0] == "The template leaves out, or rewrites, 1 reasoning text of the training data."


def test_chats_that_the_template_cannot_render_are_dropped_and_counted():
    strict = (
        "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
        "{{ raise_exception('System must come first') }}{% endif %}" + CHATML.removeprefix("{% for m in messages %}")
    )
    within = Chat((*talk("a", "b").turns, Turn("system", "now"), *talk("c", "d").turns), place="a.jsonl, line 2")
    found = encoder(template=strict).encode([talk("a", "b"), within], "train")
    assert (len(found.rows), found.refused) == (1, (within,))
    assert found.findings[0] == (
        "Dropped 1 row of the training data that the chat template cannot render (TemplateError: System must come "
        "first): a.jsonl, line 2."
    )
    assert len(encoder(template=CHATML).encode([within], "train").rows) == 1
    with pytest.raises(DataError, match=r"fails on 1 row of 1:\n  a.jsonl, line 2: TemplateError: System must"):
        encoder(template=strict).encode([within], "train")


def test_an_answer_that_opens_a_chat_is_learnt_where_it_can_be_told():
    """A template that takes no empty chat cannot show where the first answer begins: the others are learnt."""
    opened = Chat((Turn("assistant", "hi"), *talk("a", "b").turns))
    tokenizer = tokenizer_of()
    found = encoder(template=CHATML, tokenizer=tokenizer).encode([opened], "train")
    assert read(tokenizer, found.rows[0])[1] == "hi<|im_end|>b<|im_end|>"
    found = encoder(template="{{ messages[0].role[:0] }}" + CHATML, tokenizer=tokenizer).encode([opened], "train")
    assert read(tokenizer, found.rows[0])[1] == "b<|im_end|>"
    assert found.findings[0].startswith("Not learnt: 1 answer of the training data")


def test_a_long_answer_is_cut_and_counted():
    tokenizer = tokenizer_of()
    rows = [pair("a:", "bc"), pair("a:", "bcdefgh")]
    found = encoder("completion", tokenizer=tokenizer, max_tokens=5).encode(rows, "train")
    # What is cut has no end to learn.
    assert [read(tokenizer, row) for row in found.rows] == [("a:bc</s>", "bc</s>"), ("a:bcd", "bcd")]
    assert found.stop_ids == (1,)
    assert found.findings[0] == "Cut 1 row of the training data to 5 tokens; the longest had 10."


def test_a_long_text_is_cut_into_pieces_of_which_none_is_lost():
    tokenizer = tokenizer_of()
    rows = [text("abc"), text("abcdefghijk", "a.txt, line 2")]
    found = encoder("text", tokenizer=tokenizer, max_tokens=5).encode(rows, "train")
    assert [read(tokenizer, row)[0] for row in found.rows] == ["abc</s>", "abcde", "fghij", "k</s>"]
    assert found.chats == (rows[0], rows[1], rows[1], rows[1])
    assert found.findings[0] == ("Cut 1 row of the training data into pieces of at most 5 tokens; the longest had 12.")


def test_over_long_rows_are_dropped_where_that_is_said():
    rows = [text("abc"), text("abcdefgh", "a.txt, line 2")]
    found = encoder("text", max_tokens=5, over_long="drop").encode(rows, "test")
    assert found.chats == (rows[0],)
    assert found.findings[0] == (
        "Dropped 1 row of the test part longer than 5 tokens, the longest of 9: a.txt, line 2."
    )


def test_a_row_whose_answer_is_empty_after_cutting_is_dropped_and_named():
    chats = [Chat(talk("a" * n, "b").turns, place=f"a.jsonl, line {n}") for n in (1, 60, 2)]
    found = encoder(max_tokens=40).encode(chats, "train")
    assert found.chats == (chats[0], chats[2])
    assert found.findings[0] == (
        "Dropped 1 row of the training data whose answers lie wholly behind token 40: a.jsonl, line 60."
    )
    with pytest.raises(DataError, match=r"has no row left to learn from\. Dropped 1 row") as caught:
        encoder(max_tokens=40).encode([chats[1]], "validation")
    assert "raise data.max_tokens" in caught.value.action


def test_an_answer_that_cannot_be_told_from_the_rest_is_never_guessed():
    # Answers before questions: nothing of it begins as the prompt does.
    backward = "{% for m in messages | reverse %}{{ m['content'] }};{% endfor %}"
    with pytest.raises(DataError, match="in which no token to learn was found: here 1") as caught:
        encoder(template=backward).encode([Chat(talk("a", "b").turns, place="here 1")], "train")
    assert "{% generation %}" in caught.value.action


def test_all_rows_that_a_template_fails_on_are_listed():
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
    good = talk("a", "b")
    bad = [Chat((Turn("system", "s"), *good.turns), place=f"row {n}") for n in range(25)]
    assert encoder(template=strict).encode([*[good] * 25, *bad], "train").refused == tuple(bad)
    with pytest.raises(DataError) as caught:
        encoder(template=strict).encode(bad, "train")
    lines = caught.value.found.splitlines()
    assert lines[0] == "The chat template (the recipe's) fails on 25 rows of 25:"
    assert lines[1] == "  row 0: TemplateError: no system."
    assert (len(lines), lines[-1]) == (22, "  and 5 rows more.")


def test_a_template_that_refuses_most_training_rows_ends_the_build():
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
    good = talk("a", "b")
    bad = [Chat((Turn("system", "s"), *good.turns), place=f"row {n}") for n in range(25)]
    with pytest.raises(DataError) as caught:
        encoder(template=strict).encode([good, *bad], "train")
    assert caught.value.found.splitlines()[:2] == [
        "The chat template (the recipe's) fails on 25 rows of 26:",
        "  row 0: TemplateError: no system.",
    ]
    assert "at least half of them" in caught.value.expected
    # A small part to judge by may have most of them by chance.
    assert len(encoder(template=strict).encode([good, *bad[:2]], "test").rows) == 1


def test_the_start_of_the_next_turn_is_not_taken_for_an_end():
    unclosed = (
        "{% for m in messages %}<|im_end|>{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
        "{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    tokenizer = tokenizer_of()
    found = encoder(template=unclosed, tokenizer=tokenizer).encode([talk("a", "b", "c", "d")], "train")
    assert read(tokenizer, found.rows[0])[1] == "bd</s>"


def test_special_tokens_in_the_words_of_a_row_are_said():
    rows = [text("a"), text("b</s>c", "a.txt, line 2")]
    found = encoder("text").encode(rows, "train")
    assert found.findings[0] == (
        "The words of 1 row of the training data hold special tokens of the tokenizer, such as '</s>', and are "
        "encoded as such: a.txt, line 2."
    )


def test_ids_beyond_the_models_vocabulary_are_refused():
    rows = [text("zebra")]
    encoder("text", vocabulary=259).encode(rows, "train")
    with pytest.raises(ModelError, match="the model knows 50 tokens"):
        encoder("text", vocabulary=50).encode(rows, "train")


def test_a_text_has_no_prompt_and_a_chat_needs_a_template():
    with pytest.raises(ValueError, match="no prompt"):
        encoder("text").prompt(text("a"))
    with pytest.raises(ValueError, match="need a template"):
        Encoder(tokenizer_of(), "chat", None, max_tokens=9)


STORIES = Path(os.environ.get("EDGETUNE_DATA", "/nonexistent")) / "models" / "stories260K-llama"
INSTRUCT = STORIES.parent.parent / "instruct"


@pytest.mark.skipif(not STORIES.is_dir(), reason="the real model is not here (EDGETUNE_DATA)")
@pytest.mark.parametrize("name", ["llama_factory/alpaca_zh_demo.json", "llama_factory/v1_sft_demo.jsonl"])
def test_real_rows_are_learnt_in_their_answers_alone(name):
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    conversations = Conversations.load(ConversationRecipe(path=str(INSTRUCT / name)), seed=0)
    template = choose_template(tokenizer, None, FORMATS[conversations.format].template)
    encode = Encoder(tokenizer, conversations.kind, template, max_tokens=10**6, vocabulary=512)
    found = encode.encode(conversations.test, "test")
    assert found.chats == conversations.test
    assert found.stop_ids == (2,)
    for row, chat in zip(found.rows, found.chats, strict=True):
        assert row["input_ids"][0] == 1  # BOS
        assert row["input_ids"].count(1) == 1
        learnt = read(tokenizer, row)[1]
        assert [one.strip() for one in learnt.split("</s>")[:-1]] == [chat.turns[i].content for i in chat.answers]
        prompt = encode.prompt(chat)
        assert row["input_ids"][: len(prompt.ids)] == prompt.ids
