"""Every format reads its rows into chats; formats are guessed and said; faults are listed with their rows."""

import json

import pytest
from pydantic import ValidationError

from edgetune.serve.errors import DataError
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.sources import Named
from edgetune.tune.stepwise.chats import Chat, ToolCall, Turn
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.format_choice import chats_of, choose_format
from edgetune.tune.stepwise.formats import FORMATS
from edgetune.tune.stepwise.raw_parts import read_raw_parts
from edgetune.tune.stepwise.rows import raw_rows_of, read_rows


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(rows, name=None, columns=None):
    """The choice and the chats of rows given as objects."""
    raw = raw_rows_of(rows, "a.jsonl")
    choice = choose_format(raw, name, columns or {})
    return choice, chats_of([raw], choice)[0]


def turns(rows, **options):
    """The turns of each chat as (role, content)."""
    return [[(turn.role, turn.content) for turn in chat.turns] for chat in read(rows, **options)[1]]


def fault(rows, **options):
    with pytest.raises(DataError) as caught:
        read(rows, **options)
    return caught.value


HELLO = [("user", "Hi"), ("assistant", "Hello!")]

WRITTEN = {
    "text": ({"text": "Once upon a time."}, [("assistant", "Once upon a time.")]),
    "prompt-completion": ({"prompt": "Hi", "completion": "Hello!"}, HELLO),
    "alpaca": ({"instruction": "Hi", "input": "", "output": "Hello!"}, HELLO),
    "sharegpt": ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}, HELLO),
    "messages": (
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]},
        HELLO,
    ),
    "prompt-completion-messages": (
        {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello!"}]},
        HELLO,
    ),
    "gemini": (
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": [{"text": "Hello!"}]}],
        },
        [("system", "Be brief."), *HELLO],
    ),
    "turn-pairs": ({"conversations": [{"human": "Hi", "AI": "Hello!"}]}, HELLO),
    "question-answer": ({"question": "Hi", "answer": "Hello!"}, HELLO),
    "human-ai-zh": ({"text": "人类: 你好\nAI: 你好！"}, [("user", "你好"), ("assistant", "你好！")]),
    "human-ai-en": ({"text": "Human: Hi\nAssistant: Hello!"}, HELLO),
}
ANSWERED = [name for name, form in FORMATS.items() if not form.judged]  # test_preference_formats.py has the others


@pytest.mark.parametrize("name", ANSWERED)
def test_a_format_is_guessed_by_its_rows_and_read(name):
    row, expected = WRITTEN[name]
    choice, chats = read([row, row])
    assert choice.format.name == name
    assert choice.findings[0].startswith(f"Format {name!r} was guessed: ")
    assert [[(turn.role, turn.content) for turn in chat.turns] for chat in chats] == [expected, expected]
    assert [chat.place for chat in chats] == ["a.jsonl, row 1", "a.jsonl, row 2"]


def test_a_part_of_gemini_that_is_no_text_is_named_with_its_row():
    row = {"contents": [{"role": "user", "parts": [{"text": "Hi"}, {"fileData": {"fileUri": "gs://a.png"}}]}]}
    assert "turn 1 has a part that is no text (fileData)" in fault([row]).found


@pytest.mark.parametrize("name", ANSWERED)
def test_the_example_of_each_format_is_read_by_it(name):
    choice, chats = read([json.loads(FORMATS[name].example)])
    assert choice.format.name == name
    assert chats[0].answers == (len(chats[0].turns) - 1,)


def test_what_was_guessed_and_what_is_not_used_is_said():
    choice, _ = read([{"instruction": "Hi", "context": "c", "response": "Hello!", "category": "x", "id": 7}])
    assert choice.findings == (
        "Format 'alpaca' was guessed: instruction from column 'instruction', input from column 'context', "
        "output from column 'response'.",
        "Not used: 2 columns: 'category', 'id'.",
    )


def test_columns_are_named_by_field():
    rows = [{"frage": "Hi", "antwort": "Hello!"}]
    choice, chats = read(rows, name="question-answer", columns={"question": "frage", "answer": "antwort"})
    assert [(turn.role, turn.content) for turn in chats[0].turns] == HELLO
    assert choice.findings == ()  # nothing was guessed
    missing = fault(rows, name="question-answer", columns={"question": "frage", "answer": "nirgends"})
    assert (missing.found, missing.action) == (
        "a.jsonl has no column 'nirgends'.",
        "name it with --set data.columns.answer=...",
    )


def test_a_named_column_also_helps_to_guess_the_format():
    choice, _ = read([{"prompt": "Hi", "reply": "Hello!"}], columns={"completion": "reply"})
    assert (choice.format.name, dict(choice.columns)) == (
        "prompt-completion",
        {"prompt": "prompt", "completion": "reply"},
    )


def test_alpaca_joins_instruction_and_input_and_takes_system_and_history():
    rows = [
        {
            "instruction": "Translate.",
            "input": "Good morning",
            "output": "Bonjour",
            "system": "Be brief.",
            "history": [["Hi", "Hello!"]],
        }
    ]
    assert turns(rows) == [
        [("system", "Be brief."), *HELLO, ("user", "Translate.\n\nGood morning"), ("assistant", "Bonjour")]
    ]
    broken = fault([{**rows[0], "history": [["Hi"]]}])
    assert "a.jsonl, row 1: history is no list of pairs of a question and its answer." in broken.found


def test_messages_have_parts_tools_and_weights():
    call = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": '{"zone": "UTC"}'}}
    row = {
        "tools": [{"type": "function", "function": {"name": "time"}}],
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What "}, {"type": "text", "value": "time?"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
            {"role": "assistant", "content": "Noon", "weight": 0},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": "Yes.", "weight": 1},
        ],
    }
    chat = read([row])[1][0]
    assert chat == Chat(
        (
            Turn("system", "Be brief."),
            Turn("user", "What time?"),
            Turn("assistant", "", (ToolCall("time", '{"zone": "UTC"}', "c1"),)),
            Turn("tool", "12:00", call_id="c1"),
            Turn("assistant", "Noon", learnt=False),
            Turn("user", "Sure?"),
            Turn("assistant", "Yes."),
        ),
        '[{"type": "function", "function": {"name": "time"}}]',
    )
    assert chat.answers == (2, 6)


def test_sharegpt_has_system_and_tool_turns():
    row = {
        "system": "Be brief.",
        "conversations": [
            {"from": "human", "value": "What time?"},
            {"from": "function_call", "value": '{"name": "time", "arguments": {"zone": "UTC"}}'},
            {"from": "observation", "value": "12:00"},
            {"from": "gpt", "value": "Noon"},
        ],
    }
    assert read([row])[1][0].turns == (
        Turn("system", "Be brief."),
        Turn("user", "What time?"),
        Turn("assistant", "", (ToolCall("time", '{"zone": "UTC"}'),)),
        Turn("tool", "12:00"),
        Turn("assistant", "Noon"),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("人类: 你好 AI: 你好！", [("user", "你好"), ("assistant", "你好！")]),
        (
            "人类：一\nAI：二\n人类：三\nAI：四 AI: 五",  # at the start of lines both have marks: others are words
            [("user", "一"), ("assistant", "二"), ("user", "三"), ("assistant", "四 AI: 五")],
        ),
        ("Human: Hi\n\nAssistant: Hello!", HELLO),
        ("User: Hi AI: Hello!", HELLO),
        ("Human: Hi\nAssistant: Hello!\nUser: x", [("user", "Hi"), ("assistant", "Hello!\nUser: x")]),
    ],
)
def test_marks_inside_a_text_part_its_turns(text, expected):
    assert turns([{"text": text}]) == [expected]


def test_marks_that_do_not_take_turns_are_refused():
    broken = fault([{"text": "Human: a\nAssistant: b"}] * 2 + [{"text": "Human: a\nHuman: b\nAssistant: c"}])
    assert "row 3: the marks do not take turns: Human:, Human:, Assistant:." in broken.found


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": "Hi"}, "messages is a text, where a list of turns was expected"),
        ({"messages": ["Hi"]}, "turn 1 of messages is a text, where an object was expected"),
        ({"messages": [{"from": "human", "value": "Hi"}]}, "turn 1 has the keys from, value, not role and content"),
        ({"messages": [{"role": "king", "content": "Hi"}]}, "turn 1 has the role 'king', which is none of system,"),
        ({"messages": [{"role": "user"}]}, "turn 1 has neither content nor tool_calls"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part of type 'image_url'"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "the content of turn 1 is an object"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "the arguments of 'f' in turn 1 are no JSON",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "names no function"),
        ({"messages": [], "tools": "none"}, "tools is no list of function schemas"),
    ],
)
def test_a_damaged_chat_is_named_with_its_row(row, reason):
    good = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}
    found = fault([good, row, good]).found
    assert found.startswith("1 row of 3 in a.jsonl cannot be read as messages:\n  a.jsonl, row 2: ")
    assert reason in found


def test_mixed_formats_are_all_listed_with_their_rows():
    good = {"instruction": "Hi", "output": "Hello!"}
    others = [{"prompt": "Hi", "completion": "Hello!"}, {"a": 1}, {"instruction": "Hi", "output": ["Hello!"]}]
    error = fault([good, others[0], good, others[1], good, others[2], good])
    assert error.found == (
        "3 rows of 7 in a.jsonl cannot be read as alpaca:\n"
        "  a.jsonl, row 2: it is written as prompt-completion, with the columns prompt, completion.\n"
        "  a.jsonl, row 4: it has no column 'instruction'; its columns are a.\n"
        "  a.jsonl, row 6: output is a list, where words were expected."
    )
    assert FORMATS["alpaca"].example in error.expected


def test_of_many_faults_the_first_twenty_are_listed_and_all_are_counted():
    rows = [{"text": "a"}] * 30 + [{"story": "b"}] * 25
    lines = fault(rows).found.splitlines()
    assert lines[0] == "25 rows of 55 in a.jsonl cannot be read as text:"
    assert [line.split(":")[0] for line in lines[1:21]] == [f"  a.jsonl, row {n}" for n in range(31, 51)]
    assert lines[21:] == ["  and 5 rows more."]


def test_rows_of_no_format_are_refused_with_all_formats_in_words():
    error = fault([{"a": 1, "b": [2]}])
    assert error.found == "a.jsonl is written in no format that is known: its columns are a, b."
    assert all(name in error.expected for name in FORMATS)


def test_a_preference_among_answers_is_a_fault_of_its_row():
    good = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}
    found = fault([good, good, {**good, "chosen": {}, "rejected": {}}]).found
    assert "row 3: it holds a preference (chosen and rejected), not an answer." in found


def test_a_label_that_names_a_class_is_no_judgement():
    assert read([{"text": "a", "label": True}])[0].format.name == "text"


def test_numbers_are_words_and_lone_surrogates_are_replaced():
    assert turns([{"question": 7, "answer": 14.0}, {"question": "a\ud800", "answer": None}]) == [
        [("user", "7"), ("assistant", "14")],
        [("user", "a\ufffd"), ("assistant", "")],
    ]


def test_lists_inside_a_table_are_read_from_their_json(tmp_path):
    messages = json.dumps(WRITTEN["messages"][0]["messages"])
    path = tmp_path / "a.csv"
    path.write_text('messages,source\n"{}",x\n'.format(messages.replace('"', '""')) * 1, encoding="utf-8")
    raw = read_rows(path, FileOptions())
    choice = choose_format(raw, None, {})
    assert choice.format.name == "messages"
    assert [(turn.role, turn.content) for turn in chats_of([raw], choice)[0][0].turns] == HELLO


def test_jsonl_rows_are_named_by_line_and_all_broken_lines_are_listed(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = ['{"text": \n', "[1]\n", "{oops}\n", "7\n", "[" * 100_000 + "\n", '{"text": ' + "1" * 5000 + "}\n"]
    faults = [
        "this is no JSON: Expecting value, column 10.",
        "a list stands here, where an object was expected.",
        "this is no JSON: Expecting property name enclosed in double quotes, column 2.",
        "a number stands here, where an object was expected.",
        "this is no JSON: lists or objects are nested too deeply.",
        "this is no JSON: a number has too many digits.",
    ]
    path.write_text("\n" + "".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl is not JSON rows: 6 faults") as caught:
        read_rows(path, FileOptions())
    assert caught.value.found.splitlines()[1:] == [
        f"  a.jsonl, line {number}: {fault}" for number, fault in enumerate(faults, start=2)
    ]
    # Among rows that can be read they are told with those of another format.
    path.write_text('{"text": "a"}\n' * 2 + "".join(lines) + '{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    raw = read_rows(path, FileOptions())
    choice = choose_format(raw, None, {})
    assert choice.format.name == "text"
    with pytest.raises(DataError, match=r"7 rows of 9 in a\.jsonl cannot be read as text") as caught:
        chats_of([raw], choice)
    assert caught.value.found.splitlines()[1:] == [
        *(f"  a.jsonl, line {number}: {fault}" for number, fault in enumerate(faults, start=3)),
        "  a.jsonl, line 9: it is written as prompt-completion, with the columns prompt, completion.",
    ]
    path.write_text('{"text": "a"}\n\n{"text": "b"}\n', encoding="utf-8")
    assert [row.place for row in read_rows(path, FileOptions()).rows] == ["a.jsonl, line 1", "a.jsonl, line 3"]


@pytest.mark.parametrize(
    "document",
    [
        [{"text": "a"}, {"text": "b"}],
        {"data": [{"text": "a"}, {"text": "b"}]},
    ],
)
def test_json_documents_are_rows(tmp_path, document):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert [(row.place, row.values["text"]) for row in read_rows(path, FileOptions()).rows] == [
        ("a.json, row 1", "a"),
        ("a.json, row 2", "b"),
    ]


def test_a_lone_chat_in_a_json_file_is_one_row(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(WRITTEN["messages"][0]), encoding="utf-8")
    assert [list(row.values) for row in read_rows(path, FileOptions()).rows] == [["messages"]]


def test_nested_parquet_is_read(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([WRITTEN["messages"][0]]), path)
    raw = read_rows(path, FileOptions())
    assert [(turn.role, turn.content) for turn in chats_of([raw], choose_format(raw, None, {}))[0][0].turns] == HELLO
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_rows(path, FileOptions())


def test_text_files_hold_a_text_a_line_or_texts_between_borders(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo\u2028more\r\n", encoding="utf-8")
    raw = read_rows(path, FileOptions())
    assert [(row.place, row.values["text"]) for row in raw.rows] == [
        ("a.txt, line 1", "one"),
        ("a.txt, line 3", "two\u2028more"),
    ]
    assert raw.findings == ("Each line of a.txt is a text.",)
    path.write_text("one\nmore\n<|endoftext|>\ntwo\n<|endoftext|>\n", encoding="utf-8")
    raw = read_rows(path, FileOptions())
    assert [row.values["text"] for row in raw.rows] == ["one\nmore", "two"]
    assert raw.findings == ("The texts of a.txt are separated by <|endoftext|>.",)


def test_a_text_file_in_another_encoding_says_so(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("人类说你好，这是一个故事。\n很久以前有一只猫住在山里。\n".encode("gb18030"))
    assert read_rows(path, FileOptions("gb18030")).rows[0].values["text"] == "人类说你好，这是一个故事。"
    with pytest.raises(DataError, match="is not utf-8"):
        read_rows(path, FileOptions("utf-8"))


def test_folders_hold_parts_or_texts(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    jsonl(parts / "train.jsonl", [{"text": "a"}])
    jsonl(parts / "dev.jsonl", [{"text": "b"}])
    raw = read_raw_parts(Named(str(parts)), FileOptions())
    assert [rows.rows[0].values["text"] for rows in raw.given] == ["a", "b"]
    assert raw.test is None
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "one.txt").write_text("one\nmore", encoding="utf-8")
    (texts / "two.txt").write_text("two", encoding="utf-8")
    raw = read_raw_parts(Named(str(texts)), FileOptions())
    assert [(row.place, row.values["text"]) for row in raw.train.rows] == [
        ("texts/one.txt", "one\nmore"),
        ("texts/two.txt", "two"),
    ]
    jsonl(parts / "valid.jsonl", [{"text": "c"}])
    with pytest.raises(DataError, match="two files for the validation part: dev"):
        read_raw_parts(Named(str(parts)), FileOptions())


def test_what_datasets_saved_is_read_with_its_lists(tmp_path):
    import datasets

    rows = datasets.Dataset.from_list([WRITTEN["messages"][0]])
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "saved"))
    raw = read_raw_parts(Named(str(tmp_path / "saved")), FileOptions())
    assert raw.validation is None
    for part in raw.given:
        chat = chats_of([part], choose_format(part, None, {}))[0][0]
        assert [(turn.role, turn.content) for turn in chat.turns] == HELLO


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nothing.jsonl", "There is no file"),
        ("empty.jsonl", "is empty"),
        ("a.docx", "is of no kind that can be read: its suffix is '.docx'"),
        ("void", "has none of the layouts that can be read: it holds nothing"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, name, found):
    (tmp_path / "empty.jsonl").write_text(" \n", encoding="utf-8")
    (tmp_path / "a.docx").write_text("x", encoding="utf-8")
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match=found):
        read_raw_parts(Named(str(tmp_path / name)), FileOptions())


@pytest.mark.parametrize(
    ("recipe", "found"),
    [
        ({}, "neither path nor train is given"),
        ({"path": "a", "train": "b"}, "both path .a. and train .b. are given"),
        (
            {"path": "a", "format": "csv"},
            "there is no format 'csv'; expected one of preferences-sharegpt, preferences-messages",
        ),
        ({"path": "a", "split": (0.5, 0.5, 0.5)}, "must be 0 or more, sum to 1"),
        ({"path": "a", "columns": {"promt": "x"}}, "columns names 'promt', which are no fields"),
        ({"path": "a", "format": "text", "columns": {"prompt": "x"}}, "expected some of text"),
        ({"path": "a", "over_long": "wrap"}, "'cut' or 'drop'"),
        ({"path": "a", "label": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(recipe, found):
    with pytest.raises(ValidationError, match=found):
        ConversationRecipe(**recipe)
