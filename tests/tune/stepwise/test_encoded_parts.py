"""A data set becomes the rows of one model: its template, its length, its stop tokens, packed or not."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from edgetune.serve.errors import RecipeError
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.conversations import Conversations
from edgetune.tune.stepwise.encoded_parts import encode_parts
from edgetune.tune.stepwise.named_templates import NAMED_TEMPLATES

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_tokenizer(most=512):
    tokens = ["<s>", "</s>", *LETTERS]
    words = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", model_max_length=most)


def encoded(tmp_path, rows, context_tokens=200, tokenizer=None, **options):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = ConversationRecipe(path=str(path), **options)
    conversations = Conversations.load(recipe, seed=0)
    found = encode_parts(
        conversations, recipe, tokenizer or byte_tokenizer(), context_tokens=context_tokens, vocabulary=258
    )
    return conversations, found


CHATS = [{"question": f"question {n}?", "answer": "yes" * n} for n in range(1, 21)]


def test_every_part_is_encoded_with_the_template_that_is_saved(tmp_path):
    conversations, found = encoded(tmp_path, CHATS)
    assert (len(found.train), len(found.validation), len(found.test)) == (14, 3, 3)
    assert found.template == NAMED_TEMPLATES["plain"]
    assert (found.stop_ids, found.packed) == ((1,), False)
    assert all(set(row) == {"input_ids", "labels"} for row in (*found.train, *found.test))
    assert [one.split(":")[0] for one in found.findings] == [
        "The model has no chat template",
        "Encoded the training data",
        "Encoded the validation part",
        "Encoded the test part",
    ]
    prompt = found.encoder.prompt(conversations.test[0])
    assert found.test[0]["input_ids"][: len(prompt.ids)] == prompt.ids


def test_texts_and_completions_have_no_template(tmp_path):
    _, found = encoded(tmp_path, [{"text": f"story {n}"} for n in range(9)])
    assert found.template is None
    _, found = encoded(tmp_path, [{"prompt": f"say {n}:", "completion": f" {n}"} for n in range(9)])
    assert found.template is None


def test_training_rows_are_packed_and_others_are_not(tmp_path):
    _, plain = encoded(tmp_path, CHATS)
    _, found = encoded(tmp_path, CHATS, packing=True)
    assert found.packed
    assert len(found.train) < len(plain.train)
    assert sum(len(row["input_ids"]) for row in found.train) == sum(len(row["input_ids"]) for row in plain.train)
    assert all(len(row["position_ids"]) == len(row["input_ids"]) <= 200 for row in found.train)
    assert (found.validation, found.test) == (plain.validation, plain.test)
    assert found.findings[-1].startswith(f"Packed 14 training rows into {len(found.train)} sequences of at most 200")


@pytest.mark.parametrize(
    ("context", "most", "said", "expected"),
    [(100, 512, "auto", 100), (4096, 80, "auto", 80), (4096, 10**30, "auto", 1024), (4096, 10**30, 90, 90)],
)
def test_a_row_is_as_long_as_the_model_and_its_tokenizer_take(tmp_path, context, most, said, expected):
    rows = [{"text": f"{n}" + "x" * 2000} for n in range(9)]
    _, found = encoded(tmp_path, rows, context, byte_tokenizer(most), max_tokens=said)
    assert max(len(row["input_ids"]) for row in found.train) == expected


def test_rows_longer_than_the_context_are_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"data\.max_tokens is 300, and the model takes 200 tokens"):
        encoded(tmp_path, CHATS, max_tokens=300)


def test_a_part_that_is_not_wanted_stays_empty(tmp_path):
    _, found = encoded(tmp_path, CHATS, split=(0.8, 0.2, 0.0))
    assert found.test == ()
    assert len(found.train) + len(found.validation) == 20
