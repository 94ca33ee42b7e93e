"""The pace of training: the fastest that is measured, what it was before afterwards, and the same when continued."""

import pytest
import torch

from edgetune.tune.models.base import find_base
from edgetune.tune.models.opening import open_base
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.training import pace as timing
from edgetune.tune.training.pace import FEWEST_STEPS, Pace, best_pace

LABELLING = TASKS["text-classification"]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def opened(tiny_base):
    return open_base(
        find_base(str(tiny_base("bert"))), LABELLING, LABELLING.objective("abcd", "", ()), TuneRecipe(precision="fp32")
    )


@pytest.fixture
def clock(monkeypatch):
    """`clock({Pace: seconds})` makes passes take so long, whatever they really take."""

    def of(seconds):
        current, now = [0.0], [0.0]
        setting = timing._set

        def watching(pace, inside):
            setting(pace, inside)
            current[0] = seconds.get(pace, 1.0)

        def ticking():
            now[0] += current[0]
            return now[0]

        monkeypatch.setattr(timing, "_set", watching)
        monkeypatch.setattr(timing.time, "perf_counter", ticking)

    return of


def run(opened, folder=None, steps=FEWEST_STEPS):
    rows = [{**row, "labels": 0} for row in opened.encoder.rows(["card", "cash please", "where is my card now"])]
    torch.manual_seed(0)
    with best_pace(opened.model, opened.encoder, rows, 2, 64, bf16=False, steps=steps, folder=folder) as pace:
        inside = (torch.get_num_threads(), opened.model.config._attn_implementation)
        assert inside == (pace.threads, pace.attention)
    assert (torch.get_num_threads(), opened.model.config._attn_implementation) == (2, "sdpa")
    assert all(weight.grad is None for weight in opened.model.parameters())
    return pace, torch.rand(1)


@pytest.mark.parametrize("fastest", [Pace(2, "sdpa"), Pace(1, "sdpa"), Pace(2, "eager"), Pace(1, "eager")], ids=str)
def test_the_fastest_is_taken(two_threads, opened, clock, fastest):
    half = {Pace(threads, fastest.attention): 0.8 for threads in (1, 2)}
    clock({**half, fastest: 0.5})
    pace, drawn = run(opened)
    assert pace == fastest
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))  # dropout draws as if nothing had been timed


def test_what_saves_next_to_nothing_changes_nothing(two_threads, opened, clock):
    clock({Pace(1, "sdpa"): 0.97, Pace(2, "eager"): 0.97})
    assert run(opened)[0] == Pace(2, "sdpa")


def test_a_short_training_is_not_worth_the_measurement(two_threads, opened, monkeypatch):
    monkeypatch.setattr(timing, "_measured", None)  # would fail if it were called
    assert run(opened, steps=FEWEST_STEPS - 1)[0] == Pace(2, "sdpa")


def test_a_continued_run_keeps_its_pace(two_threads, opened, clock, tmp_path, monkeypatch):
    clock({Pace(2, "eager"): 0.5})
    assert run(opened, tmp_path / "checkpoints")[0] == Pace(2, "eager")
    monkeypatch.setattr(timing, "_measured", None)
    assert run(opened, tmp_path / "checkpoints")[0] == Pace(2, "eager")
