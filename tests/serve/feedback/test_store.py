"""The feedback folder: what is acknowledged is there after a SIGKILL, and the folder stays in bounds."""

from __future__ import annotations

import asyncio
import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgetune.serve.errors import InputError, WorkError
from edgetune.serve.feedback.entries import Answered, GivenAnswer, Vote
from edgetune.serve.feedback.reading import read_feedback
from edgetune.serve.feedback.store import LEAST_BYTES, MOST_LINE_BYTES, FeedbackStore, segments

TIME = "2026-01-02T03:04:05.000000+00:00"

# Writes answers and votes without end, and tells the number of each vote once it is acknowledged.
WRITER = """
import asyncio, sys
from pathlib import Path
from edgetune.serve.feedback.entries import Answered, GivenAnswer, Vote
from edgetune.serve.feedback.store import FeedbackStore

async def one(store, number):
    name = f"{sys.argv[2]}-{number}"
    assert store.write_soon_synced(Answered("t", name, "m", "v", ["a text " * (number % 50)], [GivenAnswer(label="x")]))
    assert await store.write_durably(Vote("t", name, vote="up"))
    sys.stdout.write(name + "\\n")
    sys.stdout.flush()

async def run():
    store = FeedbackStore(Path(sys.argv[1]))
    print("begun", flush=True)
    number = 0
    while True:
        await asyncio.gather(*(one(store, number + each) for each in range(8)))
        number += 8

asyncio.run(run())
"""


def answered(request_id: str, *labels: str) -> Answered:
    return Answered(TIME, request_id, "m", "v", [f"text {label}" for label in labels], _given(labels))


def _given(labels: tuple[str, ...]) -> list[GivenAnswer]:
    return [GivenAnswer(place, label=label) for place, label in enumerate(labels)]


def killed_writers(folder: Path, kills: int, seed: int) -> set[str]:
    """Kill so many writers in turn, each at a random moment, two at a time; the names that they acknowledged."""
    chosen, acknowledged = random.Random(seed), set[str]()
    for first in range(0, kills, 2):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, folder, f"w{each}"], stdout=subprocess.PIPE)
            for each in range(first, min(first + 2, kills))
        ]
        for writer in writers:
            assert writer.stdout is not None
            select.select([writer.stdout], [], [], 60)
            assert writer.stdout.readline() == b"begun\n"
        time.sleep(chosen.uniform(0.02, 0.3))
        for writer in writers:
            writer.kill()
            out, _ = writer.communicate()
            acknowledged |= {line for line in out.decode().split("\n")[:-1] if line}
    return acknowledged


def check_nothing_lost(folder: Path, kills: int, seed: int) -> None:
    acknowledged = killed_writers(folder, kills, seed)
    assert acknowledged
    feedback = read_feedback(folder)
    voted = {judged.answered.request_id for judged in feedback.judged}
    assert acknowledged <= voted
    assert (feedback.without_answer, feedback.ambiguous, feedback.unfit) == (0, 0, 0)
    assert feedback.torn <= kills


def test_three_kills_lose_nothing_that_was_acknowledged(tmp_path):
    check_nothing_lost(tmp_path, kills=3, seed=1)


@pytest.mark.faults
def test_fifty_kills_lose_nothing_that_was_acknowledged(tmp_path):
    check_nothing_lost(tmp_path, kills=50, seed=2)


def test_a_torn_line_is_skipped_and_counted(tmp_path):
    store = FeedbackStore(tmp_path)
    store.write(answered("a", "x"))
    store.write(Vote(TIME, "a", vote="up"))
    store.close()
    (path,) = segments(tmp_path)
    with path.open("ab") as stream:
        stream.write(b'{"kind":"vote","time":"2026')
    feedback = read_feedback(tmp_path)
    assert feedback.counts == {
        "answers": 1, "votes": 1, "torn": 1, "without_answer": 0, "ambiguous": 0, "unfit": 0,
    }  # fmt: skip


def test_the_folder_stays_in_bounds_and_loses_the_oldest(tmp_path):
    store = FeedbackStore(tmp_path, most_bytes=LEAST_BYTES)
    text = "x" * 9_000
    for number in range(250):
        assert store.write(Answered(TIME, str(number), "m", "v", [text], [GivenAnswer(label="x")]))
        assert sum(path.stat().st_size for path in segments(tmp_path)) <= LEAST_BYTES
    store.close()
    kept = read_feedback(tmp_path).answers
    assert 80 < kept < 120
    assert store.dropped == 0
    assert b'"request_id":"249"' in segments(tmp_path)[-1].read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="has no locks of this kind, and no workers")
def test_the_file_of_another_process_that_lives_is_not_removed(tmp_path):
    other = FeedbackStore(tmp_path, most_bytes=LEAST_BYTES)
    other.write(answered("first", "x"))
    store = FeedbackStore(tmp_path, most_bytes=LEAST_BYTES)
    for number in range(250):
        store.write(Answered(TIME, str(number), "m", "v", ["x" * 9_000], [GivenAnswer(label="x")]))
    assert b'"first"' in segments(tmp_path)[0].read_bytes()
    store.close()
    other.close()


def test_what_is_too_long_is_dropped_and_counted(tmp_path):
    store = FeedbackStore(tmp_path)
    assert not store.write(Answered(TIME, "a", "m", "v", ["x" * MOST_LINE_BYTES], []))
    assert store.dropped == 1
    assert segments(tmp_path) == []


def test_a_disk_that_is_full_leaves_whole_lines(tmp_path, monkeypatch):
    store = FeedbackStore(tmp_path)
    store.write(answered("a", "x"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:9]))
    assert not asyncio.run(store.write_durably(Vote(TIME, "a", vote="up")))
    monkeypatch.undo()
    assert asyncio.run(store.write_durably(Vote(TIME, "a", vote="down")))
    store.close()
    feedback = read_feedback(tmp_path)
    assert (feedback.torn, feedback.votes, feedback.judged[0].votes[0].vote) == (0, 1, "down")


def test_the_last_word_of_a_person_counts_and_what_fits_nothing_is_counted(tmp_path):
    store = FeedbackStore(tmp_path)
    for entry in (
        answered("a", "x", "y"),
        Vote(TIME, "a", vote="up"),
        Vote("2027", "a", vote="down"),
        Vote(TIME, "a", vote="up", person="eve"),
        Vote(TIME, "a", index=2, vote="up"),
        Vote(TIME, "b", vote="up"),
        answered("c", "x"),
        answered("c", "y"),
        Vote(TIME, "c", vote="up"),
    ):
        assert store.write(entry)
    store.close()
    feedback = read_feedback(tmp_path)
    (judged,) = feedback.judged
    assert {(vote.person, vote.vote) for vote in judged.votes} == {("", "down"), ("eve", "up")}
    assert feedback.counts == {
        "answers": 3, "votes": 6, "torn": 0, "without_answer": 1, "ambiguous": 1, "unfit": 1,
    }  # fmt: skip


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match=r"Feedback cannot be kept in .*/file"):
        FeedbackStore(tmp_path / "file")
    with pytest.raises(InputError, match="There is no folder"):
        read_feedback(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no feedback"):
        read_feedback(tmp_path / "empty")
