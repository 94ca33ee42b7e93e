"""A whole build through the command line: the exact files, the report's fields, and a stdout that scripts can read."""

import json

import msgspec
import pytest
import yaml

from edgetune.benchmarks.report.confidence import confidence_sentences
from edgetune.benchmarks.targets import emulation
from edgetune.serve.report import Report
from edgetune.serve.targets import X86, architecture
from edgetune.serve.verdict import Decision
from tests.untimed import untimed

BUNDLE_FILES = {
    *("manifest.json", "model.onnx", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("config.json", "golden.json", "report.json", "report.html", "recipe.yaml"),
    *("workload.json", "README.md", "sbom.cdx.json"),
}
VNNI = ["avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"]
STAGES = ["data", "tune", "export", "compress", "bench"]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def assert_report(report, trials):
    """All that scripts rely on is there, and the figures agree with each other."""
    assert {"cpu", "cores", "isa", "gpu", "os", "versions"} <= set(report["machine"])
    quality = report["quality"]
    assert (quality["metric"], quality["n"]) == ("accuracy", 15)
    names = [stage["stage"] for stage in quality["stages"]]
    assert names == ["base", "tuned", "merged", "onnx", report["chosen"]]
    for stage in quality["stages"]:
        assert {"value", "ci95", "agreement", "max_abs_diff", "drop"} <= set(stage)
        assert stage["ci95"][0] <= stage["value"] <= stage["ci95"][1]
    assert quality["stages"][3]["max_abs_diff"] < 1e-4
    chosen = [candidate for candidate in report["candidates"] if candidate["chosen"]]
    assert [candidate["scheme"] for candidate in chosen] == [report["chosen"]]
    assert [candidate["scheme"] for candidate in report["candidates"]] == ["fused", "int8_dynamic"]
    for candidate in report["candidates"]:
        assert candidate["gate"] in {"pass", "fail", "inconclusive"}
        assert candidate["size_bytes"] == (trials / candidate["scheme"] / "model.onnx").stat().st_size
        assert candidate["reason"]
        assert candidate["latency_ms"]["n"] == 200
    # The choice was made on the validation part, the proof on the test part, opened for it alone.
    proof = report["proof"]
    assert (proof["rows"], proof["value"]) == (15, quality["stages"][-1]["value"])
    # Which graph was preferred is the machine's affair; one that turned answers of the test part gave way to the other.
    assert proof["looks"] == 1 + any("was preferred and then failed" in note for note in report["notes"])
    assert proof["drop"] == pytest.approx(quality["stages"][-1]["drop"])
    assert report["why"].startswith(f"{report['chosen']} won: ")
    assert report["runtime"]["threads"] >= 1
    latency = report["latency_ms"]
    speedup = latency["base"]["p50"] / latency["bundle"]["p50"]
    # Whether the machine is quiet while this runs is nobody's choice; both answers have to be whole.
    assert latency["speedup"]["p50"] == (pytest.approx(speedup) if report["timing_valid"] else None)
    assert ("times faster" in report["verdict"]) is report["timing_valid"]
    assert ("too busy to judge" in report["verdict"]) is (report["timing_remark"] != "") is not report["timing_valid"]
    assert latency["bundle"]["p99"] is None  # 40 samples cannot bound it
    assert set(report["throughput_per_second"]) == set(report["cold_start_ms"]) == {"base", "bundle"}
    assert report["memory"]["bundle"]["rss_peak_bytes"] < report["memory"]["base"]["rss_peak_bytes"]
    # So small a model is a tie for every scheme; its tokenizer and golden answers weigh as much as its weights.
    assert 0 < report["size_bytes"]["bundle"] < 1.5 * report["size_bytes"]["base"]
    assert list(report["build_seconds"]) == STAGES
    assert sum(report["placement"].values()) > 0


def test_a_build_by_the_probe_writes_a_whole_bundle(workshop):
    bundle, work = workshop.folder / "bundle", workshop.folder / "bundle.work"
    assert {path.name for path in bundle.iterdir()} == BUNDLE_FILES
    manifest, report = read(bundle / "manifest.json"), read(bundle / "report.json")
    assert set(manifest["files"]) == BUNDLE_FILES - {"manifest.json"}
    assert (manifest["name"], manifest["labels"]) == ("bundle", ["card", "cash", "login", "transfer"])
    assert manifest["scheme"] == report["chosen"]
    assert manifest["runtime"]["threads"] == report["runtime"]["threads"]
    assert_report(report, work / "trials")
    assert report["training"]["handed_on"] == "probe"
    assert "--method probe" in report["command"]
    recipe = yaml.safe_load((bundle / "recipe.yaml").read_text(encoding="utf-8"))
    assert (recipe["tune"]["method"], recipe["benchmark"]["samples"]) == ("probe", 40)
    assert {path.name for path in work.iterdir()} == {
        *STAGES,
        *("trials", "stages.json", "build.log", "build.lock", "plan.json", "report.json", "report.html"),
    }
    assert (work / "report.json").read_bytes() == (bundle / "report.json").read_bytes()
    assert {path.name for path in workshop.folder.iterdir()} >= {"bundle", "bundle.work"}
    assert not list(workshop.folder.glob(".*"))


def test_stage_lines_are_plain_and_without_the_libraries_chatter(workshop):
    lines = workshop.out.splitlines()
    assert "\x1b" not in workshop.out
    assert "\r" not in workshop.out
    assert lines[0] == "data ..."
    for stage in (*STAGES, "pack"):
        assert f"{stage} ..." in lines
        assert any(line.startswith(f"✓ {stage}") for line in lines)
    said = (
        "✓ ",
        "  ",
        "bundle  ",
        "report  ",
        "accuracy",
        "95% interval",
        "macro f1",
        "balanced",  # accuracy, which a narrow table has on a line of its own
        "latency",
        "throughput",
        "peak memory",
        "cold start",
        "size",
    )
    others = [line for line in lines if line and not line.startswith(said) and not line.endswith(" ...")]
    report = read(workshop.folder / "bundle" / "report.json")
    remark = [report["timing_remark"]] if report["timing_remark"] else []  # of a busy machine
    constant = f"Constant: of one answer to all rows, {report['quality']['baseline']['answer']}."
    decision = msgspec.convert(report["decision"], Decision)
    linear = report["quality"]["floor"][1]
    floor = f"Linear: a linear model of {linear['described']} reaches {100 * linear['value']:.2f}% accuracy."
    assert others[:-1] == [
        *decision.lines,
        report["verdict"],
        *remark,
        constant,
        floor,
        *confidence_sentences(msgspec.convert(report, Report)),
        report["why"],
    ]
    assert report["verdict"].startswith(f"The {report['chosen']} bundle ")
    assert report["why"].startswith(f"{report['chosen']} won: ")
    assert others[-1].startswith("The build took ")
    log = (workshop.folder / "bundle.work" / "build.log").read_text(encoding="utf-8")
    assert "torch.onnx" in log


@pytest.mark.slow
def test_a_gate_that_is_not_met_writes_nothing_and_keeps_the_report(edgetune, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    old = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
    settings = ("--set", "compress.schemes=[int8_dynamic]", "--set", "budget.size_mb=0.001")
    ended = edgetune("build", *arguments, *settings)
    assert ended.code == 3
    assert ended.err.startswith("Error: No candidate may be packed, so nothing was written. int8_dynamic: ")
    assert "the budget 0.001" in ended.err
    assert f"To do: see {tmp_path / 'bundle.work' / 'report.json'}; raise the budget, or tune" in ended.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()} == old
    report = read(tmp_path / "bundle.work" / "report.json")
    assert (report["chosen"], report["latency_ms"]) == ("", None)
    assert {candidate["stopped_at"] for candidate in report["candidates"]} <= {"budget", "quality"}
    assert report["proof"] is None
    page = (tmp_path / "bundle.work" / "report.html").read_text(encoding="utf-8")
    assert "No candidate may be packed" in page


@pytest.mark.slow
def test_a_budget_that_is_not_met(edgetune, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    budgets = ("budget.p90_ms=0.000001", "budget.rss_mb=1", "budget.cold_start_ms=100000", "compress.schemes=[fused]")
    settings = [f"--set={budget}" for budget in budgets]
    ended = edgetune("build", *arguments, *settings, "--json")
    assert (ended.code, ended.out) == (3, "")
    error = ended.err[ended.err.index("Error: ") :]
    assert error.startswith("Error: No candidate may be packed, so nothing was written. fused: ")
    assert "rss_mb is " in error
    assert "cold_start_ms" not in error
    assert "To do: see" in error
    report = read(tmp_path / "bundle.work" / "report.json")
    assert {candidate["stopped_at"] for candidate in report["candidates"]} == {"budget"}
    # On a busy machine the search lets a time pass, and the bench stage would have refused it.
    quiet = all(candidate["timing_valid"] for candidate in report["candidates"])
    assert ("the budget 1e-06" in error) is quiet


@pytest.mark.slow
def test_a_bundle_may_hold_variants_and_names_its_targets(edgetune, workshop, tmp_path, monkeypatch):
    arguments = workshop.copy(tmp_path)
    schemes = ("--set", "compress.schemes=[int8_dynamic]", "--set", "compress.variants=[fused,int8_dynamic]")
    # Without an emulator sums that fit are computed here, or x86-64 is unproven.
    monkeypatch.setattr(emulation.shutil, "which", lambda name: None)
    monkeypatch.setattr(emulation, "target_here", lambda: "")
    # Of 15 test rows int8 may lose two on one processor and none on another; what is kept is not asked here.
    with untimed():
        ended = edgetune("build", *arguments, *schemes, "--target", "x86-64-v3", "--set", "gate.max_drop=0.4")
    assert ended.code == 0, ended
    bundle = tmp_path / "bundle"
    manifest, report = read(bundle / "manifest.json"), read(bundle / "report.json")
    chosen = manifest["scheme"]
    others = {"fused", "int8_dynamic"} - {chosen}
    (target,) = report["targets"]
    assert (target["name"], target["scheme"]) == ("x86-64-v3", chosen)
    if architecture() == X86:
        assert (target["proof"], target["rows"], target["agreement"]) == ("computed", 15, 1.0)
        assert any(line.startswith("x86-64-v3: ") for line in report["notes"])
    assert [(one["name"], one["proof"]) for one in manifest["targets"]] == [("x86-64-v3", target["proof"])]
    assert chosen == report["chosen"] != "fused"  # which was made to stand beside it, and is not chosen
    assert manifest["variants"][0]["scheme"] == chosen
    assert {one["scheme"] for one in manifest["variants"]} == {chosen, *others}
    extra = {f"{kind}_{name}" for name in others for kind in ("model", "golden")}
    assert {path.name.partition(".")[0] for path in bundle.iterdir() if path.name not in BUNDLE_FILES} == extra
    times = [one["p50_ms"] for one in manifest["variants"]]
    assert times == [None, None] or min(times) > 0  # none of a busy machine
    for one in manifest["variants"]:
        assert one["runtime"]["threads"] >= 1
        assert one["needs"] == (VNNI if one["scheme"] == "int8_dynamic" else [])
        judged = next(candidate for candidate in report["candidates"] if candidate["scheme"] == one["scheme"])
        assert judged["accepted"]
    verified = edgetune("verify", bundle, "--json")
    told = json.loads(verified.out)["variants"]
    assert set(told) == {chosen, *others}
    assert all(replay["max_abs_diff"] <= replay["tolerance"] for replay in told.values())
    assert "golden answers of fused replayed" in edgetune("verify", bundle).out
