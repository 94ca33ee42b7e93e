"""`edgetune feedback`: rows and agreement of a folder whose every vote is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetune.feedback.agreement import Share, agreement
from edgetune.feedback.rows import KINDS, rows_of
from edgetune.serve.errors import InputError
from edgetune.serve.feedback.entries import Answered, Entry, GivenAnswer, Vote
from edgetune.serve.feedback.reading import Feedback, read_feedback
from edgetune.serve.feedback.store import FeedbackStore

CHAT = [{"role": "user", "content": "hi"}]


def _written(folder: Path, *entries: Entry) -> Feedback:
    store = FeedbackStore(folder)
    assert all(store.write(entry) for entry in entries)
    store.close()
    return read_feedback(folder)


def _labelled(name: str, text: object, label: str, day: str = "2026-01-02") -> Answered:
    return Answered(f"{day}T00", name, "m", "v1", [text], [GivenAnswer(label=label, score=0.5)])


def _talk(name: str, prompt: object, *texts: str) -> Answered:
    return Answered("2026-01-02T00", name, "m", "v1", [prompt], [GivenAnswer(text=text) for text in texts])


LABELS = (
    _labelled("a", "one", "x"),
    Vote("1", "a", label="y"),
    _labelled("b", "two", "x"),
    Vote("1", "b", vote="up"),
    _labelled("c", "three", "y", "2026-01-03"),
    Vote("1", "c", vote="down"),
    _labelled("d", ["four", "five"], "y"),
    Vote("1", "d", vote="up", person="eve"),
    Vote("2", "d", label="x", person="eve"),
    _labelled("e", "six", "x"),
    Vote("1", "e", label="y", person="eve"),
    Vote("1", "e", label="z", person="bob"),
)


def test_labels(tmp_path):
    made = rows_of(_written(tmp_path, *LABELS), "auto")
    assert made.kind == "labels"
    assert made.rows == (
        {"text": "one", "label": "y"},
        {"text": "two", "label": "x"},
        {"text": "four", "text_pair": "five", "label": "x"},
    )
    assert (made.disputed, made.without_label) == (1, 1)


def test_agreement(tmp_path):
    found = agreement(_written(tmp_path, *LABELS))
    assert found.all == Share(1, 5)
    assert found.by_label == {"x": Share(1, 3), "y": Share(0, 2)}
    assert found.by_day == {"2026-01-02": Share(1, 4), "2026-01-03": Share(0, 1)}
    assert found.by_version == {"v1": Share(1, 5)}
    assert found.wrong[0] == ("x", "y", 2)
    assert found.people == Share(0, 1)


def test_wilsons_interval():
    # Newcombe, Statistics in Medicine 17 (1998), 857-872, table I.
    low, high = Share(81, 263).interval
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert Share(0, 0).interval == (0.0, 1.0)


def test_pairs_votes_and_answers(tmp_path):
    feedback = _written(
        tmp_path,
        _talk("a", CHAT, "hello", "go away"),
        Vote("1", "a", choice=0, over=1),
        Vote("1", "a", index=1, vote="down"),
        _talk("b", "2 + 2 =", "5"),
        Vote("1", "b", text="4"),
        _talk("c", "even", "p", "q"),
        Vote("1", "c", choice=0, over=1, person="eve"),
        Vote("1", "c", choice=1, over=0, person="bob"),
    )
    hello, away = ([{"role": "assistant", "content": text}] for text in ("hello", "go away"))
    pairs = rows_of(feedback, "pairs")
    assert pairs.rows == (
        {"prompt": CHAT, "chosen": hello, "rejected": away},
        {"prompt": "2 + 2 =", "chosen": "4", "rejected": "5"},
    )
    assert pairs.disputed == 1
    assert rows_of(feedback, "votes").rows == ({"prompt": CHAT, "completion": away, "label": False},)
    assert rows_of(feedback, "answers").rows == ({"prompt": "2 + 2 =", "completion": "4"},)
    with pytest.raises(InputError, match=r"several kinds: pairs \(2 rows\), votes \(1 rows\), answers \(1 rows\)"):
        rows_of(feedback, "auto")
    assert agreement(feedback).first_chosen == Share(2, 3)


@pytest.mark.parametrize("kind", ["auto", *KINDS])
def test_no_rows(tmp_path, kind):
    with pytest.raises(InputError, match="The feedback makes no row"):
        rows_of(_written(tmp_path, _labelled("a", "one", "x")), kind)


def test_commands(edgetune, tmp_path):
    folder, out = tmp_path / "kept", tmp_path / "rows.jsonl"
    _written(folder, *LABELS)
    ended = edgetune("feedback", "export", folder, "-o", out, "--json")
    assert (ended.code, json.loads(ended.out)["rows"]) == (0, 3)
    assert [json.loads(line)["label"] for line in out.read_text().splitlines()] == ["y", "x", "x"]
    again = edgetune("feedback", "export", folder, "-o", out)
    assert (again.code, "exists already" in again.err) == (1, True)
    ended = edgetune("feedback", "report", folder)
    assert "5 answers, 7 votes, 5 answers judged.\nPeople agree with 20.0% of 5 (95%: 3.6 to 62.4)." in ended.out
    stranger = edgetune("feedback", "report", folder, "--model", "other")
    assert (stranger.code, "No answer of a model 'other'" in stranger.err) == (1, True)
