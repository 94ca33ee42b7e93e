"""Which clock a plan times with: wall time, or one thread's processor time where other work fills the cores."""

import pytest
import torch

from edgetune import clock


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("device", "wall", "chosen"),
    [("cpu", 0.9, "wall_seconds"), ("cpu", 1.1, "one_thread_seconds"), ("cuda", 1.1, "wall_seconds")],
)
def test_threads_that_are_slower_than_one_are_not_timed(monkeypatch, device, wall, chosen):
    monkeypatch.setattr(clock, "wall_seconds", lambda run: wall)
    monkeypatch.setattr(clock, "one_thread_seconds", lambda run: 1.0)
    runs = []
    assert clock.choose_clock(lambda: runs.append(1), device) is getattr(clock, chosen)
    assert runs == [1]  # one to warm up, beside those that are timed


def test_one_thread_is_taken_and_all_are_given_back(threads):
    seen = []
    assert clock.one_thread_seconds(lambda: seen.append(torch.get_num_threads())) >= 0
    assert (seen, torch.get_num_threads()) == ([1], 2)
    with pytest.raises(ZeroDivisionError):
        clock.one_thread_seconds(lambda: 1 / 0)
    assert torch.get_num_threads() == 2


def test_waiting_is_wall_time_and_no_processor_time():
    import time

    assert clock.wall_seconds(lambda: time.sleep(0.2)) >= 0.2
    assert clock.one_thread_seconds(lambda: time.sleep(0.2)) < 0.1
