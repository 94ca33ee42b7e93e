"""Whole data sets of chats: cleaned, separated, split by what they ask, saved and opened again."""

import json
import os
from pathlib import Path

import pytest

from edgetune.serve.errors import DataError, WorkError
from edgetune.tune.data.source_recipe import CleanRecipe
from edgetune.tune.stepwise.chats import Chat, ToolCall, Turn, prompt_key
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.conversations import Conversations, _digest
from edgetune.tune.stepwise.objectives import OBJECTIVES


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def asked(count, stem="question"):
    return [{"question": f"{stem} {n}?", "answer": f"answer {n}"} for n in range(count)]


def load(seed=0, **recipe):
    return Conversations.load(ConversationRecipe(**recipe), seed=seed)


def sizes(conversations):
    return len(conversations.train), len(conversations.validation), len(conversations.test)


def parts(conversations):
    return conversations.train, conversations.validation, conversations.test


def test_one_file_is_split_and_said(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", asked(40))
    found = load(path=path)
    assert sizes(found) == (28, 6, 6)
    assert (found.kind, found.format, found.template, found.source) == ("chat", "question-answer", None, path)
    assert found.findings == (
        "Read 40 rows from a.jsonl.",
        "Format 'question-answer' was guessed: question from column 'question', answer from column 'answer'.",
        "Split 40 rows with seed 0: 28 training rows, 6 validation rows, 6 test rows.",
    )
    every = [chat for part in parts(found) for chat in part]
    assert sorted(int(chat.turns[0].content.split()[1][:-1]) for chat in every) == list(range(40))
    assert {chat.place for chat in every} == {f"a.jsonl, line {n}" for n in range(1, 41)}


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"Query": "what {}?", "answer": "b"}, ("Query",)),
        ({"prompt": "what {}?", "completion": "b"}, ("prompt",)),
        ({"story": "what {}?"}, ("story",)),
        ({"instruction": "what {}?", "output": "b"}, ("instruction",)),
        ({"instruction": "what {}?", "input": "now", "output": "b"}, ()),  # a prompt is made of both
        ({"messages": [{"role": "user", "content": "what {}?"}, {"role": "assistant", "content": "b"}]}, ()),
    ],
)
def test_the_column_of_prompts_is_known_where_there_is_one(tmp_path, row, columns):
    rows = [json.loads(json.dumps(row).replace("{}", str(number))) for number in range(20)]
    assert load(path=jsonl(tmp_path / "a.jsonl", rows)).prompt_columns == columns


def test_the_same_seed_gives_the_same_digest_and_another_does_not(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", asked(40))
    assert load(path=path) == load(path=path)
    assert load(path=path).digest != load(path=path, seed=1).digest
    assert load(path=path).digest.startswith("sha256:")


def test_the_digest_hangs_on_what_is_learnt_and_not_on_where_it_stood(tmp_path):
    first = load(path=jsonl(tmp_path / "a.jsonl", asked(40)))
    assert load(path=jsonl(tmp_path / "b.jsonl", asked(40))).digest == first.digest
    changed = [*asked(39), {"question": "question 39?", "answer": "another"}]
    assert load(path=jsonl(tmp_path / "c.jsonl", changed)).digest != first.digest


def test_duplicates_leave_and_rows_that_ask_the_same_stay_in_one_part(tmp_path):
    rows = asked(20) + [{"question": f"QUESTION  {n}?", "answer": f"other {n}"} for n in range(20)] + asked(3)
    found = load(path=jsonl(tmp_path / "a.jsonl", rows))
    assert sum(sizes(found)) == 40
    assert any("Removed 3 duplicate rows from the training data" in one for one in found.findings)
    keys = [{prompt_key(chat, "chat") for chat in part} for part in parts(found)]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert sizes(found) == (28, 6, 6)


def test_a_given_part_keeps_its_rows_and_training_loses_what_it_asks(tmp_path):
    test = [*asked(3), *asked(1)]
    found = load(train=jsonl(tmp_path / "train.jsonl", asked(20)), test=jsonl(tmp_path / "test.jsonl", test))
    assert len(found.test) == 4
    assert "Kept 1 duplicate row in the test part: the same words but for case and spacing." in found.findings
    assert "Removed 3 rows from the training data with a prompt that also stands in the test part." in found.findings
    assert len(found.train) + len(found.validation) == 17


def test_rows_without_answer_or_prompt_are_dropped_and_named(tmp_path):
    rows = [
        *asked(10),
        {"question": "nobody knows?", "answer": "  "},
        {"question": "", "answer": "42"},
        {"question": "why?", "answer": None},
    ]
    found = load(path=jsonl(tmp_path / "a.jsonl", rows))
    assert "Dropped 2 rows without an answer from the training data: a.jsonl, line 11; a.jsonl, line 13." in (
        found.findings
    )
    assert "Dropped 1 row without a prompt from the training data: a.jsonl, line 12." in found.findings
    assert sum(sizes(found)) == 10


def test_a_chat_ends_with_its_last_answer(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f" a{n}\n"}]}
        for n in range(9)
    ]
    rows[4]["messages"].append({"role": "user", "content": "thanks"})
    found = load(path=jsonl(tmp_path / "a.jsonl", rows))
    assert all(chat.turns[-1].role == "assistant" for part in parts(found) for chat in part)
    assert {chat.turns[-1].content for part in parts(found) for chat in part} == {f"a{n}" for n in range(9)}
    assert "Cut 1 row of the training data after their last answer." in found.findings
    assert "Stripped 9 rows of the training data of outer white space, NUL or BOM." in found.findings


def test_the_space_between_prompt_and_completion_is_kept(tmp_path):
    rows = [{"prompt": f"  The capital of {n} is ", "completion": f" city {n}. "} for n in range(8)]
    found = load(path=jsonl(tmp_path / "a.jsonl", rows))
    assert found.kind == "completion"
    first = min((chat for part in parts(found) for chat in part), key=lambda chat: chat.place)
    assert [turn.content for turn in first.turns] == ["The capital of 0 is ", " city 0."]


def test_words_that_run_together_are_said_and_a_separator_helps(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"prompt": f"Say {n}", "completion": f"w{n}"} for n in range(9)])
    assert any("so that words run together: data.separator puts" in one for one in load(path=path).findings)
    spaced = load(path=path, separator=" ")
    assert not any("run together" in one for one in spaced.findings)
    assert spaced.separator == " "
    assert spaced.digest != load(path=path).digest


def test_a_template_makes_chats_of_prompts_and_completions(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"prompt": f"Say {n}", "completion": f"w{n}"} for n in range(9)])
    found = load(path=path, template="plain")
    assert (found.kind, found.template) == ("chat", "plain")


def test_plain_texts_keep_to_their_kind(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"story {n}\n" for n in range(10)) + "story 3\n", encoding="utf-8")
    found = load(path=str(path))
    assert (found.kind, found.format, sum(sizes(found))) == ("text", "text", 10)


def test_cleaning_can_be_left_out(tmp_path):
    rows = [*asked(8), *asked(2), {"question": " padded? ", "answer": "yes"}]
    raw = load(path=jsonl(tmp_path / "a.jsonl", rows), clean=CleanRecipe(deduplicate=False, normalize=False))
    assert sum(sizes(raw)) == 11
    assert any(chat.turns[0].content == " padded? " for part in parts(raw) for chat in part)


def test_too_few_rows_are_refused_with_what_became_of_them(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [*asked(2), {"question": "why?", "answer": ""}])
    with pytest.raises(DataError, match="Nothing is left for the validation part: 2 usable rows") as caught:
        load(path=path)
    assert "Dropped 1 row without an answer" in caught.value.found


def test_other_parts_are_read_by_the_format_of_the_first(tmp_path):
    train = jsonl(tmp_path / "train.jsonl", asked(10))
    test = jsonl(tmp_path / "test.jsonl", [{"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError) as caught:
        load(train=train, test=test)
    assert "test.jsonl, line 1: it is written as prompt-completion" in caught.value.found


def everything():
    turns = (
        Turn("system", "Be brief."),
        Turn("user", "Zeit?\n\u2028 人"),
        Turn("assistant", "", (ToolCall("time", '{"zone": "UTC"}', "c1"),)),
        Turn("tool", "12:00", call_id="c1"),
        Turn("assistant", "Noon", learnt=False),
        Turn("assistant", "Yes."),
    )
    return Chat(turns, '[{"name": "time"}]', "a.jsonl, line 3")


def test_what_is_saved_is_opened_the_same(tmp_path):
    loaded = load(path=jsonl(tmp_path / "a.jsonl", asked(12)), template="human-ai-zh")
    (tmp_path / "saved").mkdir()
    loaded.save(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["conversations.json"]
    opened = Conversations.open(tmp_path / "saved")
    assert opened == loaded
    assert [chat.place for chat in opened.train] == [chat.place for chat in loaded.train]


def test_a_chat_is_written_and_read_whole(tmp_path):
    parts = ((everything(),), (), ())
    digest = _digest("chat", "", parts)
    Conversations(*parts, "chat", "openai", None, "", digest, "a.jsonl", ()).save(tmp_path)
    (opened,) = Conversations.open(tmp_path).train
    assert opened == everything()
    assert opened.place == "a.jsonl, line 3"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda saved: {**saved, "train": saved["train"][1:]}, "its rows are not those that were saved"),
        (lambda saved: {**saved, "kind": "song"}, "Invalid enum value 'song'"),
        (lambda saved: {**saved, "train": [{"turns": [{"role": "king", "content": "x"}]}]}, "'king'"),
        (lambda saved: {}, "missing required field"),
        (None, "No such file"),
    ],
)
def test_a_folder_that_was_changed_is_refused(tmp_path, damage, reason):
    load(path=jsonl(tmp_path / "a.jsonl", asked(12))).save(tmp_path)
    path = tmp_path / "conversations.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    if damage:
        path.write_text(json.dumps(damage(saved)), encoding="utf-8")
    with pytest.raises(WorkError, match=r"holds no conversations: ") as caught:
        Conversations.open(tmp_path)
    assert reason in caught.value.found


REAL = Path(os.environ.get("EDGETUNE_DATA", "/nonexistent")) / "instruct"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real instruction files are not here (EDGETUNE_DATA)")
@pytest.mark.parametrize(
    ("name", "form", "rows"),
    [
        ("llama_factory/alpaca_en_demo.json", "alpaca", 985),
        ("llama_factory/alpaca_zh_demo.json", "alpaca", 992),
        ("llama_factory/identity.json", "alpaca", 91),
        ("llama_factory/v1_sft_demo.jsonl", "messages", 499),
        ("gsm8k/test.jsonl", "question-answer", 1319),
    ],
)
def test_real_files_are_read(name, form, rows):
    found = load(path=str(REAL / name))
    assert (found.format, sum(sizes(found))) == (form, rows)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real instruction files are not here (EDGETUNE_DATA)")
@pytest.mark.parametrize(
    ("name", "judged", "rows"),
    [("dpo_en_demo.json", "pairs", 295), ("kto_en_demo.json", "votes", 300), ("v1_dpo_demo.jsonl", "pairs", 10)],
)
def test_real_preferences_are_read(name, judged, rows):
    found = load(path=str(REAL / "llama_factory" / name))
    assert (found.judged, len(found.train) + len(found.validation) + len(found.test)) == (judged, rows)
    assert all((chat.rejected is not None) is (judged == "pairs") for chat in found.train)
    with pytest.raises(DataError, match="is preference data"):
        OBJECTIVES["sft"].check(found.judged, found.kind, found.source)


def test_indentation_is_kept_and_makes_programs_unlike(tmp_path):
    """An answer that is code: its first line's blanks belong to it, and so do those of all others."""
    programs = ["    return x\n", "return x", "for i in a:\n    b()\n    c()", "for i in a:\n    b()\nc()"]
    rows = [{"question": "Go on.", "answer": program} for program in programs]
    prose = [{"question": f"{n}?", "answer": answer} for n, answer in enumerate([" yes", "\n\n  yes\n", "Yes  no"])]
    twice = [{"question": "2?", "answer": "yes No"}]
    found = load(path=jsonl(tmp_path / "a.jsonl", [*rows, *prose, *twice]), split=[1, 0, 0])
    answers = [chat.turns[-1].content for chat in found.train]
    assert answers == [*(program.rstrip() for program in programs), "yes", "  yes", "Yes  no"]
    assert any(finding.startswith("Removed 1 duplicate row from the training data") for finding in found.findings)


def test_chats_that_nobody_asks_are_dropped_and_counted(tmp_path):
    alone = {"messages": [{"role": "assistant", "content": "Hello!"}]}
    opened = {"messages": [{"role": "assistant", "content": "Hi."}, *asked_messages("a", "b")]}
    within = {"messages": [*asked_messages("c", "d"), {"role": "system", "content": "s"}, *asked_messages("e", "f")]}
    found = load(path=jsonl(tmp_path / "a.jsonl", [alone, opened, within]), split=[1, 0, 0])
    roles = [[turn.role for turn in chat.turns] for chat in found.train]
    assert roles == [["assistant", "user", "assistant"], ["user", "assistant", "system", "user", "assistant"]]
    assert "Dropped 1 row without a prompt from the training data: a.jsonl, line 1." in found.findings


def asked_messages(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_chats_are_taken_out_by_themselves_and_not_by_their_words(tmp_path):
    rows = [{"question": "a?", "answer": "b"}] * 2
    clean = CleanRecipe(deduplicate=False)
    found = load(path=jsonl(tmp_path / "a.jsonl", rows), split=[1, 0, 0], clean=clean)
    left = found.without([found.train[1]])
    assert [chat.place for chat in left.train] == ["a.jsonl, line 1"]
    assert found.without(()) is found
