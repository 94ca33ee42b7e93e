"""Which way a class is proven on this machine, and the packed runtime answering in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgetune.benchmarks.targets import emulation, setup
from edgetune.benchmarks.targets.emulation import CORES, Prover, floor_versions, prover_of, setup_fault
from edgetune.benchmarks.targets.replay import replay_rows
from edgetune.serve import load
from edgetune.serve.errors import MissingDependency, WorkError
from edgetune.serve.targets import TARGETS, X86, architecture, target_of

GOLDEN = Path(__file__).parents[2] / "golden" / "bundle-v1"
TEXTS = ["where is my parcel", "I was charged twice", "close my account"]


def machine(monkeypatch, *, here: str, system: str, qemu: bool, cache: Path) -> None:
    monkeypatch.setattr(emulation, "target_here", lambda: here)
    monkeypatch.setattr(emulation, "architecture", lambda: system)
    monkeypatch.setattr(emulation.shutil, "which", lambda name: f"/usr/bin/{name}" if qemu else None)
    monkeypatch.setenv("EDGETUNE_TARGETS", str(cache))


def proofs() -> dict[str, str]:
    return {name: prover_of(name).proof for name in TARGETS}


def test_what_proves_a_class(monkeypatch, tmp_path):
    machine(monkeypatch, here="x86-64-vnni", system="x86_64", qemu=True, cache=tmp_path)
    arm = dict.fromkeys(("arm64", "arm64-dotprod", "arm64-i8mm"), "unproven")
    assert proofs() == {"x86-64-v2": "emulated", "x86-64-v3": "emulated", "x86-64-vnni": "native", **arm}
    assert prover_of("arm64").reason == "nothing is set up for it (edgetune target setup arm64)"

    machine(monkeypatch, here="x86-64-v3", system="x86_64", qemu=False, cache=tmp_path)
    assert proofs() == {"x86-64-v2": "computed", "x86-64-v3": "native", "x86-64-vnni": "computed", **arm}
    assert "apt-get install qemu-user" in prover_of("arm64").reason

    machine(monkeypatch, here="arm64-dotprod", system="aarch64", qemu=True, cache=tmp_path)
    arm = {"arm64": "emulated", "arm64-dotprod": "native", "arm64-i8mm": "emulated"}
    assert proofs() == {**dict.fromkeys(("x86-64-v2", "x86-64-v3", "x86-64-vnni"), "unproven"), **arm}


def test_what_is_set_up_must_be_whole_and_of_the_versions_that_run_here(tmp_path):
    write = (tmp_path / "setup.json").write_text
    assert setup_fault(tmp_path) == "nothing is set up for it"
    write("{")
    assert setup_fault(tmp_path).endswith("setup.json cannot be read")
    write(json.dumps({"versions": floor_versions(), "python": "usr/bin/python3.11"}))
    assert setup_fault(tmp_path).endswith("has no usr/bin/python3.11")
    (tmp_path / "system" / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "system" / "usr" / "bin" / "python3.11").touch()
    assert setup_fault(tmp_path) == ""
    write(json.dumps({"versions": {**floor_versions(), "numpy": "1.0"}, "python": "usr/bin/python3.11"}))
    assert setup_fault(tmp_path) == "what is set up has numpy 1.0, another version than runs here"


def test_every_emulated_core_is_told_to_be_of_its_class():
    for name, core in CORES.items():
        assert target_of(frozenset(core.flags.split()), TARGETS[name].architecture) == name
        assert core.cpuinfo.count("processor\t: ") == 2


def test_an_emulator_is_started_on_what_was_set_up(tmp_path):
    root = tmp_path / "arm64"
    (root / "system" / "usr").mkdir(parents=True)
    (root / "setup.json").write_text(json.dumps({"versions": {}, "python": "usr/bin/python3.11"}))
    folder = tmp_path / "started"

    command, variables = Prover("emulated", "", CORES["arm64"], "/usr/bin/qemu-aarch64", root).start(folder)

    python = root / "system" / "usr" / "bin" / "python3.11"
    assert command == ["/usr/bin/qemu-aarch64", "-cpu", "cortex-a72", "-L", str(folder), str(python), "-P"]
    assert variables["PYTHONPATH"] == f"{folder / 'floor'}:{root / 'site'}"
    assert "0xd08" in (folder / "proc" / "cpuinfo").read_text()
    assert (folder / "usr").resolve() == root / "system" / "usr"
    assert sorted(path.name for path in (folder / "floor" / "edgetune").iterdir()) == ["__init__.py", "serve"]


@pytest.mark.skipif(architecture() != X86, reason="sums are computed for x86-64 on x86-64")
def test_a_process_answers_as_a_processor_whose_sums_saturate():
    rows = replay_rows(Prover("computed", "", CORES["x86-64-v3"]), GOLDEN, TEXTS)

    predictor = load(GOLDEN, threads=1)
    assert (rows.fault, rows.result.target, rows.result.scheme) == ("", "x86-64-v3", predictor.variant)
    expected = np.concatenate([predictor.logits(predictor.encode([text])) for text in TEXTS])
    np.testing.assert_allclose(rows.outputs, expected, atol=1e-4)


def test_a_process_that_cannot_open_the_bundle_says_so(tmp_path):
    rows = replay_rows(Prover("computed", ""), tmp_path, TEXTS)
    assert len(rows.outputs) == 0
    assert str(tmp_path) in rows.fault


def test_a_setup_that_fails_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGETUNE_TARGETS", str(tmp_path / "cache"))
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(MissingDependency, match="There is no apt-get and no dpkg here"):
        setup.set_up(lambda line: None)

    broken = tmp_path / "apt-get"
    broken.write_text("#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")
    broken.chmod(0o755)
    monkeypatch.setattr(setup.shutil, "which", lambda name: str(broken))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(WorkError, match=r"cannot be fetched \(apt-get, exit code 100\): E: no network"):
        setup.set_up(lambda line: None)
    assert list((tmp_path / "cache").iterdir()) == []

    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGETUNE_TARGETS", str(tmp_path / "file"))
    with pytest.raises(WorkError, match="cannot be written"):
        setup.set_up(lambda line: None)
