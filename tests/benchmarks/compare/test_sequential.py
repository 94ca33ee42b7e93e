"""The sequential test: false alarms under no difference, power, and facts known by hand; votes from files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.lab.sequential import decided
from edgetune.benchmarks.compare.sequential import blocks_of, sequential_verdict
from edgetune.benchmarks.compare.votes import judge_votes, read_votes
from edgetune.serve.errors import InputError


@pytest.mark.parametrize(("rate", "share"), [(0.5, 0.5), (0.3, 0.1)])
def test_peeking_at_every_outcome_names_no_winner_where_there_is_none(rate: float, share: float) -> None:
    ends = decided((rate, rate), share, runs=2_000, outcomes=300)
    assert np.mean([end is not None for end in ends]) <= 0.05


def test_a_difference_is_found_and_later_where_it_is_smaller() -> None:
    large, small = (decided((0.5, rate), 0.5, runs=200, outcomes=2_000) for rate in (0.7, 0.6))
    assert all(end is not None for end in large)
    assert np.mean([end is not None for end in small]) > 0.8
    assert np.median([end for end in large if end]) < np.median([end for end in small if end])


def test_wealth_is_that_of_bets_known_by_hand() -> None:
    blocks = blocks_of(np.array([False, True]), np.array([False, True]))  # the control's is bad, the arm's good
    assert (blocks.differences.tolist(), blocks.ends.tolist()) == ([1.0], [2])
    assert blocks.log_wealth()[0] == pytest.approx(0.0)  # as much is staked on either side
    twice = blocks_of(np.array([False, True] * 2), np.array([False, True] * 2))
    stakes = np.array([0.03, 0.06, 0.12, 0.25, 0.5, 0.75])
    assert math.exp(twice.log_wealth()[1]) == pytest.approx(1 + float(np.mean(stakes**2)))


def test_blocks_follow_the_traffic_from_the_second_round_on() -> None:
    is_arm = np.array(([False] * 3 + [True]) * 40)
    blocks = blocks_of(np.ones(160, dtype=bool), is_arm)
    # Eight blocks of one and one, then blocks of three and one by the traffic until then.
    assert len(blocks.differences) == 8 + (40 - 8)
    assert set(blocks.differences.tolist()) == {0.0}


@pytest.mark.parametrize(("good_arm", "winner"), [(True, "b"), (False, "a")])
def test_the_winner_is_named_once_and_stays(good_arm: bool, winner: str) -> None:
    good, arms = [good_arm ^ True, good_arm] * 30, ["a", "b"] * 30
    verdict = sequential_verdict(good, arms, ("a", "b"))
    assert verdict.winner == winner
    assert (verdict.control.outcomes, verdict.arm.outcomes) == (30, 30)
    assert verdict.decided_at is not None
    undone = sequential_verdict(good + [not value for value in good], arms * 2, ("a", "b"))
    assert (undone.winner, undone.decided_at) == (winner, verdict.decided_at)
    low, high = verdict.interval
    assert -1 <= low <= high <= 1
    assert (low > 0) is (winner == "b")
    assert (high < 0) is (winner == "a")


def test_nothing_is_decided_by_nothing() -> None:
    verdict = sequential_verdict([True], ["a"], ("a", "b"))
    assert (verdict.winner, verdict.decided_at, verdict.interval) == (None, None, (-1.0, 1.0))


def _write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def test_votes_are_read_from_files_that_tell_arms_apart(tmp_path: Path) -> None:
    _write(tmp_path / "1.jsonl", {"request_id": "x", "arm": "a"}, {"request_id": "y", "arm": "b"})
    _write(
        tmp_path / "2.jsonl",
        {"request_id": "x", "vote": "up"},
        {"request_id": "y", "vote": 0},
        {"request_id": "x", "vote": "down"},  # changed their mind
        {"request_id": "z", "vote": "up"},  # nobody knows the request
        {"arm": "b", "vote": True},
    )
    with (tmp_path / "2.jsonl").open("a") as stream:
        stream.write('{"arm": "a", "vo')  # torn by a crash
    votes = read_votes([tmp_path])
    assert list(zip(votes.arms, votes.good, strict=True)) == [("b", False), ("a", False), ("b", True)]
    assert (votes.skipped, len(votes.findings)) == (2, 1)
    verdict = judge_votes(votes, control="a")[0]
    assert (verdict.control.outcomes, verdict.arm.outcomes, verdict.arm.good) == (1, 2, 1)


def test_preferences_between_two_are_blocks_of_their_own(tmp_path: Path) -> None:
    records = [{"arms": pair, "preferred": "b"} for pair in [["a", "b"], ["b", "a"]] * 12]
    file = _write(tmp_path / "v.jsonl", *records, {"arms": ["a", "b"], "preferred": "tie"})
    verdict = judge_votes(read_votes([file]), control="a")[0]
    assert (verdict.winner, verdict.arm.good, verdict.control.good, verdict.arm.outcomes) == ("b", 24, 0, 25)


def test_of_three_arms_each_is_held_against_the_control_at_a_stricter_level(tmp_path: Path) -> None:
    file = _write(tmp_path / "v.jsonl", *({"arm": arm, "vote": arm == "c"} for arm in "abc" * 20))
    verdicts = judge_votes(read_votes([file]), control="a")
    assert [(each.arm.name, each.winner, round(each.needed)) for each in verdicts] == [("b", None, 40), ("c", "c", 40)]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"arm": "a", "vote": 1}], "The votes are on a"),
        ([{"text": "no vote"}], "There is no vote"),
        ([{"arm": "a", "vote": 1}, {"arms": ["a", "b"], "preferred": "a"}], "votes on single answers and preferences"),
    ],
)
def test_votes_that_settle_nothing_are_refused(tmp_path: Path, records: list[Any], message: str) -> None:
    file = _write(tmp_path / "v.jsonl", *records)
    with pytest.raises(InputError, match=message):
        judge_votes(read_votes([file]))
