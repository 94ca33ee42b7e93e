"""Chats as primers, TRL and text files write them: pairs, rows that are their turns alone, marked lines, thoughts."""

import json

import pytest

from edgetune.serve.errors import DataError
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.stepwise.chats import Turn
from edgetune.tune.stepwise.format_choice import chats_of, choose_format
from edgetune.tune.stepwise.rows import raw_rows_of, read_rows

HELLO = [("user", "Hi"), ("assistant", "Hello!")]
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]
PAIRS = [{"human": "Hi", "AI": "Hello!"}]


def read(rows):
    """The choice and the chats of rows given as objects."""
    raw = raw_rows_of(rows, "a.jsonl")
    choice = choose_format(raw, None, {})
    return choice, chats_of([raw], choice)[0]


def fault(rows):
    with pytest.raises(DataError) as caught:
        read(rows)
    return caught.value


def test_pairs_of_human_and_ai_are_chats():
    rows = [
        {"conversations": [{"human": "Hi", "AI": "Hello!"}, {"human": "And?", "AI": "Well."}], "system": "Be brief."},
        {"conversations": [{"人类": "你好", "AI": "你好！"}]},
    ]
    choice, chats = read(rows)
    assert choice.format.name == "turn-pairs"
    assert [[(turn.role, turn.content) for turn in chat.turns] for chat in chats] == [
        [("system", "Be brief."), *HELLO, ("user", "And?"), ("assistant", "Well.")],
        [("user", "你好"), ("assistant", "你好！")],
    ]
    broken = fault([rows[1], rows[1], {"conversations": [{"human": "Hi", "robot": "Hello!"}]}])
    assert "row 3: pair 1 has the keys human, robot, none of which is its answer." in broken.found
    assert read([{"人类": "你好", "AI": "你好！"}])[0].format.name == "question-answer"


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize(
    ("chat", "name"),
    [
        ([{"human": "Hi", "AI": "Hello!"}], "turn-pairs"),
        (MESSAGES, "messages"),
        (SHAREGPT, "sharegpt"),
    ],
)
def test_a_row_may_be_its_turns_alone(tmp_path, suffix, chat, name):
    path = tmp_path / f"a{suffix}"
    path.write_text(json.dumps([chat, chat]) if suffix == ".json" else f"{json.dumps(chat)}\n" * 2, encoding="utf-8")
    raw = read_rows(path, FileOptions())
    choice = choose_format(raw, None, {})
    assert choice.format.name == name
    assert [[(turn.role, turn.content) for turn in one.turns] for one in chats_of([raw], choice)[0]] == [HELLO, HELLO]


def test_a_lone_row_of_pairs_is_a_chat_and_a_list_of_rows_is_none(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"conversations": PAIRS}), encoding="utf-8")
    assert [list(row.values) for row in read_rows(path, FileOptions()).rows] == [["conversations"]]
    path.write_text(json.dumps({"data": [{"human": "Hi", "AI": "Hello!"}] * 2}), encoding="utf-8")
    assert [list(row.values) for row in read_rows(path, FileOptions()).rows] == [["human", "AI"]] * 2
    path.write_text(json.dumps({"conversations": [{"messages": MESSAGES}] * 2}), encoding="utf-8")
    assert [list(row.values) for row in read_rows(path, FileOptions()).rows] == [["messages"]] * 2


def test_of_a_prompt_in_messages_the_completion_alone_is_learnt():
    prompt = [*MESSAGES, {"role": "user", "content": "And?"}]
    chat = read([{"prompt": prompt, "completion": [{"role": "assistant", "content": "Well."}]}])[1][0]
    assert [turn.learnt for turn in chat.turns] == [True, False, True, True]
    assert chat.answers == (3,)


@pytest.mark.parametrize("word", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_and_names_are_read(word):
    said = {"role": "assistant", "content": "Four.", word: "Two and two."}
    chat = read([{"messages": [{"role": "user", "content": "2 + 2?", "name": "Ann"}, said]}])[1][0]
    assert chat.turns == (Turn("user", "2 + 2?", name="Ann"), Turn("assistant", "Four.", reasoning="Two and two."))
    broken = fault([{"messages": [{"role": "user", "content": "a"}, {**said, word: ["x"]}]}])
    assert "the reasoning of turn 2 is a list, where words were expected" in broken.found


@pytest.mark.parametrize(
    ("text", "chats", "finding"),
    [
        (
            "人类:一？\nAI:二。\n\n人类:三？\nAI:四。\n人类:五？\nAI:六。\n",
            [(1, ["一？", "二。"]), (4, ["三？", "四。", "五？", "六。"])],
            "The marked lines of a.txt between empty lines are a chat.",
        ),
        (
            "Human: a\nAssistant: b\nmore b\n\nstill b\n\nHuman: c\nAssistant: d",
            [(1, ["a", "b\nmore b\n\nstill b"]), (7, ["c", "d"])],
            "The marked lines of a.txt between empty lines are a chat.",
        ),
        (
            "人类：一\nAI：二\n人类：三\nAI：四\n",
            [(1, ["一", "二"]), (3, ["三", "四"])],
            "Each question of a.txt begins a chat of its own: no empty lines part them.",
        ),
    ],
)
def test_a_text_file_of_marked_lines_holds_chats(tmp_path, text, chats, finding):
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    raw = read_rows(path, FileOptions())
    assert raw.findings == (finding,)
    read_chats = chats_of([raw], choose_format(raw, None, {}))[0]
    assert [(chat.place, [turn.content for turn in chat.turns]) for chat in read_chats] == [
        (f"a.txt, line {line}", contents) for line, contents in chats
    ]


@pytest.mark.parametrize("text", ["Once: upon\na time\n", "Human: no answer\nHuman: none\nHuman: at all\n"])
def test_other_text_files_hold_texts(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    assert read_rows(path, FileOptions()).findings == ("Each line of a.txt is a text.",)
