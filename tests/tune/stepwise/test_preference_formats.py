"""Judged answers as TRL, LLaMA-Factory and UltraFeedback write them, and what is said of rows that are none."""

from __future__ import annotations

import pytest

from edgetune.serve.errors import DataError
from edgetune.tune.stepwise.chats import Chat, Turn, whole_key
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.conversations import Conversations
from edgetune.tune.stepwise.format_choice import chats_of, choose_format
from edgetune.tune.stepwise.objectives import OBJECTIVES
from edgetune.tune.stepwise.raw_parts import RawParts
from edgetune.tune.stepwise.rows import raw_rows_of

USER, HELLO, WHAT = Turn("user", "Hi"), Turn("assistant", "Hello!"), Turn("assistant", "What?")
SAID = {"role": "user", "content": "Hi"}


def answer(text):
    return [{"role": "assistant", "content": text}]


def read(rows, name=None, **columns):
    raw = raw_rows_of(rows, "a.jsonl")
    choice = choose_format(raw, name, columns)
    return choice.format, chats_of([raw], choice)[0]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}, "preferences"),
        ({"prompt": [SAID], "chosen": answer("Hello!"), "rejected": answer("What?")}, "preferences-messages"),
        (
            {"prompt": "Hi", "chosen": [SAID, *answer("Hello!")], "rejected": [SAID, *answer("What?")], "score": 3},
            "preferences-messages",
        ),
        ({"chosen_messages": [SAID, *answer("Hello!")], "rejected_messages": [SAID, *answer("What?")]},
         "preferences-messages"),
        ({"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello!"},
          "rejected": {"from": "gpt", "value": "What?"}}, "preferences-sharegpt"),
        ({"conversations": '[{"from": "human", "value": "Hi"}]', "chosen": '{"from": "gpt", "value": "Hello!"}',
          "rejected": '{"from": "gpt", "value": "What?"}'}, "preferences-sharegpt"),
        ({"instruction": "Hi", "completions": [{"response": "What?", "overall_score": 2.0},
          {"response": "Hm", "overall_score": 5.0}, {"response": "Hello!", "overall_score": "8"}]}, "rankings"),
        ({"prompt": "Hi", "responses": [{"text": "What?", "rank": 3}, {"text": "Hello!", "rank": 1}]}, "rankings"),
        ({"prompt": "Hi", "responses": ["Hello!", "What?"], "scores": [0.9, 0.1]}, "rankings"),
    ],
)  # fmt: skip
def test_a_pair_is_read_from_every_format(row, name):
    form, chats = read([row, row])
    assert (form.name, form.judged) == (name, "pairs")
    assert chats[0] == Chat((USER, HELLO), rejected=WHAT)
    assert chats[0].with_rejected == Chat((USER, WHAT))


@pytest.mark.parametrize(
    ("row", "name", "liked"),
    [
        ({"prompt": "Hi", "completion": "Hello!", "label": True}, "votes", True),
        ({"prompt": "Hi", "response": "Hello!", "vote": "down"}, "votes", False),
        ({"prompt": "Hi", "response": "Hello!", "thumbs": "👍"}, "votes", True),
        ({"messages": [SAID, *answer("Hello!")], "label": False}, "votes-messages", False),
        ({"instruction": "Hi", "input": "", "output": "Hello!", "kto_tag": True}, "votes-alpaca", True),
    ],
)
def test_a_vote_is_read_from_every_format(row, name, liked):
    form, chats = read([row, row])
    assert (form.name, form.judged) == (name, "votes")
    assert chats[0] == Chat((USER, HELLO), liked=liked)


def test_votes_of_a_table_are_read_where_the_format_is_named():
    _, chats = read([{"prompt": "Hi", "completion": "Hello!", "label": value} for value in ("1", "0")], "votes")
    assert [chat.liked for chat in chats] == [True, False]
    assert read([{"prompt": "Hi", "completion": "Hello!", "label": "1"}])[0].name == "prompt-completion"


def test_only_the_last_answer_of_a_judged_chat_is_learnt():
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes?"}, {"from": "human", "value": "Bye"}]
    row = {
        "conversations": turns,
        "chosen": {"from": "gpt", "value": "Bye!"},
        "rejected": {"from": "gpt", "value": "?"},
    }
    chat = read([row])[1][0]
    assert [turn.learnt for turn in chat.turns] == [True, False, True, True]
    assert chat.answers == (3,)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"conversations": [], "chosen": {}, "rejected": {}}, "has the keys none, not from and value"),
        ({"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "human", "value": "a"},
          "rejected": {"from": "gpt", "value": "b"}}, "chosen ends with user, where an answer was expected"),
        ({"chosen": [SAID, *answer("a")], "rejected": [{"role": "user", "content": "Ho"}, *answer("b")]},
         "differ before their last turn"),
        ({"prompt": "Hi", "completions": [{"response": one, "overall_score": 1} for one in "ab"]},
         "has no two answers of different score"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_judgement_is_a_fault(row, words):
    with pytest.raises(DataError) as told:
        read([row, row])
    assert words in told.value.found


def conversations(rows):
    recipe = ConversationRecipe(path="a.jsonl")
    return Conversations.of_rows(RawParts(raw_rows_of(rows, "a.jsonl")), recipe, 0)


def test_ties_and_duplicates_go_and_judgements_are_part_of_the_digest(tmp_path):
    rows = [{"prompt": f"Q{n}", "chosen": "yes", "rejected": "no"} for n in range(10)]
    found = conversations([*rows, {**rows[0], "chosen": "no", "rejected": "yes"}, rows[1],
                           {"prompt": "Q", "chosen": "same ", "rejected": "same"}])  # fmt: skip
    said = " ".join(found.findings)
    assert "Dropped 1 row whose two answers are the same from the training data: a.jsonl, row 13." in said
    assert "Removed 1 duplicate row" in said  # a pair the other way round is none
    assert len(found.train) + len(found.validation) + len(found.test) == 11
    found.save(tmp_path)
    assert Conversations.open(tmp_path) == found
    turned = conversations([{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows])
    assert turned.digest != conversations(rows).digest
    assert whole_key(Chat((USER, HELLO), rejected=WHAT)) != whole_key(Chat((USER, HELLO)))


@pytest.mark.parametrize(
    ("objective", "judged", "kind", "words", "action"),
    [
        ("sft", "pairs", "chat", "supervised fine-tuning learns answers as they stand", "--objective dpo"),
        ("sft", "votes", "chat", "is preference data (answers that were liked or disliked)", "--objective kto"),
        ("dpo", "votes", "chat", "dpo learns of pairs of a chosen and a rejected answer", "--objective kto"),
        ("kto", "", "chat", "has answers that nobody judged", "leave --objective away"),
        ("grpo", "", "text", "holds texts alone", "name rows with prompts"),
    ],
)
def test_rows_that_cannot_teach_an_objective_are_refused(objective, judged, kind, words, action):
    with pytest.raises(DataError) as told:
        OBJECTIVES[objective].check(judged, kind, "a.jsonl")
    assert words in told.value.found
    assert action in told.value.action


def test_rows_that_teach_an_objective_pass():
    for objective, judged in [("sft", ""), ("dpo", "pairs"), ("kto", "pairs"), ("kto", "votes"), ("rloo", "pairs")]:
        OBJECTIVES[objective].check(judged, "chat", "a.jsonl")
