"""Classes of processors: which one a processor is of, and where ONNX Runtime must not add up in 16 bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetune.serve import session
from edgetune.serve.processor import flags
from edgetune.serve.targets import TARGETS, sums_saturate, target_of

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-v1"
ZEN_5 = {"sse4_2", "avx2", "avx512f", "avx512_vnni"}


@pytest.mark.parametrize(
    ("has", "machine", "name", "saturates"),
    [
        ({"sse4_2"}, "x86_64", "x86-64-v2", True),
        ({"sse4_2", "avx2", "avx512f"}, "x86_64", "x86-64-v3", True),  # Skylake-X: AVX-512 without VNNI saturates too
        (ZEN_5, "x86_64", "x86-64-vnni", False),
        ({"sse4_2", "avx2", "avx_vnni"}, "x86_64", "x86-64-vnni", False),
        (set(), "x86_64", "", True),
        ({"asimd"}, "aarch64", "arm64", False),
        ({"asimd", "asimddp"}, "aarch64", "arm64-dotprod", False),
        ({"asimd", "asimddp", "i8mm"}, "aarch64", "arm64-i8mm", False),
        (set(), "aarch64", "", False),
        (set(), "riscv64", "", False),
    ],
)
def test_a_processor_is_of_the_most_able_class_whose_flags_it_has(has, machine, name, saturates):
    assert target_of(frozenset(has), machine) == name
    assert sums_saturate(frozenset(has), machine) is saturates


def test_every_class_is_told_apart_by_its_own_flags():
    for target in TARGETS.values():
        assert target_of(frozenset(target.needs), target.architecture) == target.name


@pytest.mark.parametrize("key", ["flags", "Features"])
def test_flags_are_those_of_the_first_processor(tmp_path: Path, key):
    block = f"processor\t: 0\nmodel name\t: X\n{key}\t\t: fpu avx2 asimd\n\n"
    (tmp_path / "cpuinfo").write_text(block + f"processor\t: 1\n{key}\t: other\n" * 2000)

    assert flags(tmp_path) == {"fpu", "avx2", "asimd"}


def test_flags_are_none_where_the_system_does_not_tell(tmp_path: Path):
    assert flags(tmp_path) == frozenset()


@pytest.mark.parametrize(("has", "asked"), [({"avx2"}, True), (ZEN_5, False)])
def test_a_session_asks_for_sums_that_fit_where_they_saturate(monkeypatch, has, asked):
    runtime, entries = session.import_runtime(), {}

    class Recorded(runtime.SessionOptions):
        def add_session_config_entry(self, key, value):
            entries[key] = value
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(runtime, "SessionOptions", Recorded)
    monkeypatch.setattr(session, "flags", lambda: frozenset(has))
    monkeypatch.setattr(session, "architecture", lambda: "x86_64")

    session.open_session(GOLDEN / "model.onnx", provider="cpu", threads=1)

    assert ("session.x64quantprecision" in entries) is asked
