"""The time outside of the graph's runs is the rest of a step, by either clock."""

from __future__ import annotations

from benchmarks.lab.language import python_time
from benchmarks.lab.language.artefacts import FILE, FP32, Artefacts, place_of
from benchmarks.lab.language.python_time import TimedSession, outside_ms


class Session:
    def __init__(self):
        self.bindings = []
        self.name = "real"

    def run_with_iobinding(self, binding):
        self.bindings.append(binding)


def test_a_session_adds_up_its_runs_and_is_else_as_it_was():
    session = Session()
    timed = TimedSession(session)
    for binding in (1, 2):
        timed.run_with_iobinding(binding)
    assert session.bindings == [1, 2]
    assert timed.name == "real"
    assert all(seconds >= 0 for seconds in timed.seconds)


def test_what_is_left_of_a_step_is_told_by_both_clocks(tiny_family, monkeypatch):
    import msgspec

    monkeypatch.setattr(python_time, "ROUNDS", 2)
    monkeypatch.setattr(python_time, "STEPS", 8)
    spec = msgspec.json.decode((tiny_family / FILE).read_bytes(), type=Artefacts).specs[FP32]
    wall, processor = outside_ms(tiny_family / place_of(FP32) / "model.onnx", spec)
    assert wall > 0
    assert processor >= 0
