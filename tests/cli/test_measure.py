"""`edgetune measure` on small bundles of known answers: the whole measurement, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import pytest

from edgetune.benchmarks.measure import measure as measuring
from edgetune.benchmarks.measure.measurement import Measurement, SettingTime
from edgetune.benchmarks.timing import blocks
from edgetune.benchmarks.timing.quiet import TimingVerdict
from edgetune.serve import load
from edgetune.serve.bundle import Bundle, RuntimeSettings
from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import BundleError
from edgetune.serve.kept_settings import keep_settings, settings_path
from edgetune.serve.processor import cpu_name
from tests.benchmarks.conftest import Page, check

BUNDLE = Path(__file__).parent.parent / "golden" / "bundle-v1"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """As few calls as a measurement can do with; the machine may be busy."""
    for name, value in (
        *(("LATENCY_SECONDS", 0.01), ("SWEEP_SECONDS", 0.01), ("BATCH_SECONDS", 0.01)),
        *(("SAMPLES", 40), ("LEAST_SAMPLES", 40), ("COLD_STARTS", 1), ("DRIFT_SECONDS", 0.0)),
    ):
        monkeypatch.setattr(measuring, name, value)
    monkeypatch.setattr(blocks, "judge_timing", lambda conditions: TimingVerdict(True))


def test_all_of_a_bundle_is_measured(edgetune, tmp_path):
    bundle = shutil.copytree(BUNDLE, tmp_path / "golden")
    ended = edgetune(
        *("measure", bundle, "--json", "--keep-threads"),
        *("--output", tmp_path / "m.json", "--html", tmp_path / "m.html"),
    )
    assert ended.code == 0, ended.err
    measurement = Measurement.load(tmp_path / "m.json")
    assert json.loads(ended.out) == msgspec.to_builtins(measurement)
    assert measurement.bundle.name == Bundle.open(bundle).manifest.name
    assert measurement.bundle.size_bytes == Bundle.open(bundle).size_bytes
    assert measurement.golden["fp32"].cases == 8
    assert (measurement.inputs.source, measurement.inputs.n) == ("golden", 8)
    assert "before bundles carried" in ended.err
    assert measurement.latency_ms.n == 40
    assert 0 < measurement.latency_ms.p50 <= measurement.latency_ms.p90
    assert [entry.batch for entry in measurement.throughput] == [1, 8, 32]
    assert all(entry.per_second > 0 for entry in measurement.throughput)
    assert measurement.rss_peak_bytes > 20e6
    assert measurement.cold_start_ms > measurement.latency_ms.p50
    assert measurement.drift.rounds >= 5
    assert measurement.providers == ["CPUExecutionProvider"]
    assert sum(measurement.placement.values()) > 0
    assert "torch" not in ended.err
    if usable_cores() > 1:
        assert measurement.best in measurement.settings
        assert json.loads(settings_path(bundle).read_text())["settings"]["fp32"]["threads"] == measurement.best.threads
    page = Page((tmp_path / "m.html").read_text("utf-8"))
    check(page)
    assert "8 replayed" in page.text
    assert {path.name for path in tmp_path.iterdir()} <= {"golden", "m.json", "m.html", "golden.runtime.json"}


def test_a_cascade_and_pictures_are_measured_on_a_file_of_ones_own(edgetune, cascade_bundle, picture_bundle, tmp_path):
    (tmp_path / "texts.txt").write_text("where is my parcel\n\nreset my card\n", encoding="utf-8")
    ended = edgetune("measure", cascade_bundle, "--texts", tmp_path / "texts.txt", "--threads", "1", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert (found["inputs"]["source"], found["inputs"]["n"], found["machine"]["threads"]) == ("file", 2, 1)
    assert set(found["golden"]) == {"static", "fp32"}
    assert (found["settings"], found["best"]) == ([], None)
    ended = edgetune("measure", picture_bundle, "--threads", "1")
    assert ended.code == 0, ended.err
    assert "golden answers of fp32: " in ended.out
    assert "p50" in ended.out


def test_what_cannot_be_measured_is_refused_before_anything_runs(edgetune, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    taken = tmp_path / "taken"
    taken.write_text("", encoding="utf-8")
    for arguments, words in (
        ((tmp_path / "nowhere",), "There is no folder"),
        ((BUNDLE, "--texts", tmp_path / "empty.txt"), "no input that is not blank"),
        ((BUNDLE, "--output", taken / "m.json"), "takes no files"),
    ):
        ended = edgetune("measure", *arguments)
        assert (ended.code, ended.out) == (1, ""), arguments
        assert words in ended.err
        assert "Traceback" not in ended.err
    for arguments in (("--html", tmp_path), ("--threads", "1", "--keep-threads"), ("--minutes", "-1")):
        assert edgetune("measure", BUNDLE, *arguments).code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"empty.txt", "taken"}


def test_golden_answers_that_differ_stop_it(edgetune, bundle_with_wrong_golden, tmp_path):
    ended = edgetune("measure", bundle_with_wrong_golden, "--output", tmp_path / "m.json")
    assert ended.code == 1
    assert "golden answers differ" in ended.err
    assert not (tmp_path / "m.json").exists()


@pytest.fixture
def bundle_with_wrong_golden(tmp_path):
    folder = shutil.copytree(BUNDLE, tmp_path / "wrong")
    golden = json.loads((folder / "golden.json").read_text("utf-8"))
    golden["cases"][0]["logits"] = golden["cases"][0]["logits"][::-1]
    golden["tolerance"] = 1e-4
    (folder / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    content = (folder / "golden.json").read_bytes()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest.pop("manifest_digest", None)
    manifest["files"]["golden.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def test_kept_settings_hold_for_one_bundle_and_one_class_of_machine(tmp_path):
    bundle = Bundle.open(shutil.copytree(BUNDLE, tmp_path / "golden"))
    here = RuntimeSettings(threads=1, spinning=False, cpu=cpu_name(), cores=usable_cores())
    keep_settings(bundle, "fp32", here)
    assert load(bundle.folder).threads == 1
    assert load(bundle.folder, threads=2).threads == 2
    keep_settings(bundle, "fp32", msgspec.structs.replace(here, cpu="another"))
    assert load(bundle.folder).threads == load(BUNDLE).threads
    path = settings_path(bundle.folder)
    keep_settings(bundle, "fp32", here)
    path.write_text(path.read_text("utf-8").replace('"bundle": "', '"bundle": "0'), encoding="utf-8")
    assert load(bundle.folder).threads == load(BUNDLE).threads
    path.write_text("{", encoding="utf-8")
    with pytest.raises(BundleError, match=r"kept settings .* cannot be read"):
        load(bundle.folder)


def test_of_settings_that_tie_the_one_that_leaves_most_to_others_is_best():
    def setting(threads, spinning, ms):
        return SettingTime(threads=threads, spinning=spinning, p50_ms=ms)

    times = [setting(1, True, 1.04), setting(2, True, 1.0), setting(2, False, 1.02), setting(4, True, None)]
    assert measuring.best_setting(times) == times[0]
    assert measuring.best_setting([setting(2, True, 1.0), setting(2, False, 1.02)]).spinning is False
    assert measuring.best_setting([setting(1, True, 1.2), setting(2, True, 1.0)]).threads == 2
    assert measuring.best_setting([setting(1, True, None)]) is None
