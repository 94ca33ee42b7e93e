"""`edgetune check` and `edgetune report`: what is met, what is not, what was never measured, and broken files."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from edgetune.benchmarks.measure.budget import LIMITS, Evidence, check, read_budget
from edgetune.benchmarks.measure.figures import of_report
from edgetune.benchmarks.measure.measurement import InputsUsed, MeasuredBundle, Measurement, Throughput
from edgetune.benchmarks.timing.samples import summarize
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import RecipeError
from edgetune.serve.identity import bundle_digest
from edgetune.serve.report import Machine
from edgetune.serve.stepwise.report import report_of
from tests.benchmarks.conftest import Page
from tests.benchmarks.conftest import check as check_page

BUNDLE = Path(__file__).parent.parent / "golden" / "bundle-v1"


@pytest.fixture(scope="module")
def report():
    return report_of(Bundle.open(BUNDLE))


def measured(**changes) -> Measurement:
    bundle = Bundle.open(BUNDLE)
    machine = Machine(
        cpu="board", cores=4, threads=4, isa=["asimd"], gpu=None, os="Linux", memory_bytes=None, versions={}
    )
    measurement = Measurement(
        created="2026-01-01T00:00:00+00:00",
        edgetune="0.1.0",
        seconds=1.0,
        bundle=MeasuredBundle(
            name="golden", task="t", digest=bundle_digest(bundle), size_bytes=bundle.size_bytes, variant="fp32"
        ),
        machine=machine,
        providers=["CPUExecutionProvider"],
        inputs=InputsUsed(source="bundle", n=8, remark="eight"),
        latency_ms=summarize([2.0] * 40),
        throughput=[Throughput(batch=1, per_second=500.0)],
        rss_peak_bytes=50_000_000,
        cold_start_ms=900.0,
    )
    return msgspec.structs.replace(measurement, **changes)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_budget_that_is_met_and_one_that_is_not(edgetune, tmp_path):
    file = tmp_path / "m.json"
    file.write_bytes(measured().to_json())
    met = written(
        tmp_path / "met.yaml", "# ours\nbudget:\n  size_mb: 5\n  p90_ms: 2.5  # a call\nmetric: 0.1\ndrop: 1\n"
    )
    ended = edgetune("check", BUNDLE, "--budget", met, "--measured", file, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["met"] is True
    assert [one["name"] for one in found["limits"]] == ["size_mb", "p90_ms", "metric", "drop"]
    assert found["limits"][1]["figure"] == 2.0
    assert found["limits"][1]["source"] == "m.json, board"
    tight = written(tmp_path / "tight.json", '{"p90_ms": 1.5, "rss_mb": 60, "slower": 1.2}')
    outputs = ("--junit", tmp_path / "c.xml", "--markdown", tmp_path / "c.md")
    ended = edgetune("check", BUNDLE, "--budget", tight, "--measured", file, *outputs)
    assert ended.code == 3
    assert [line.split()[:2] for line in ended.out.splitlines()] == [
        ["p90_ms", "NOT"],
        ["rss_mb", "met"],
        ["slower", "NOT"],
    ]
    assert "not measured" in ended.out
    suite = ElementTree.parse(tmp_path / "c.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    messages = {case.get("name"): [part.get("message") for part in case] for case in suite}
    assert messages == {
        "p90_ms": ["p90_ms is not within the budget: 2, the budget is 1.5"],
        "rss_mb": [],
        "slower": ["slower was not measured, the budget is 1.2"],
    }
    assert "does not meet 2 of 3 limits" in (tmp_path / "c.md").read_text("utf-8")


def test_what_a_busy_machine_gave_is_not_measured(report):
    limits = {"p90_ms": 1e6, "cold_start_ms": 1e6, "rss_mb": 1e6}
    busy = msgspec.structs.replace(report, timing_valid=False, timing_remark="too busy")
    checks = {one.name: one for one in check(limits, Evidence(1, of_report(busy), "here", busy))}
    assert {name: one.met for name, one in checks.items()} == {"p90_ms": False, "cold_start_ms": False, "rss_mb": True}
    assert checks["p90_ms"].remark == "too busy"
    assert not any(
        one.met for one in check(dict.fromkeys(LIMITS, 1e9) | {"size_mb": 1e-9}, Evidence(1, None, "", None))
    )


def test_the_drop_against_an_older_bundle_is_of_the_same_rows(report):
    limits = {"drop": 0.01}
    value = report.proof.value if report.proof else next(one.value for one in report.candidates if one.chosen)
    [same] = check(limits, Evidence(1, None, "", report, older=report))
    assert (same.met, same.figure) == (True, pytest.approx(0.0))
    assert f"{value:.4f} before" in same.remark
    candidates = [msgspec.structs.replace(one, value=value + 0.5) for one in report.candidates]
    proof = report.proof and msgspec.structs.replace(report.proof, value=value + 0.5)
    [worse] = check(
        limits, Evidence(1, None, "", report, msgspec.structs.replace(report, candidates=candidates, proof=proof))
    )
    assert (worse.met, worse.figure) == (False, pytest.approx(0.5))
    other = msgspec.structs.replace(report, data=msgspec.structs.replace(report.data, digest="sha256:0"))
    [unlike] = check(limits, Evidence(1, None, "", report, older=other))
    assert (unlike.met, unlike.figure) == (False, None)
    assert "cannot be compared" in unlike.remark


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("p90: 5", "did you mean p90_ms?"),
        ("p90_ms: five", "p90_ms is 'five', no number"),
        ("p90_ms: 5\np90_ms: 6", "p90_ms is there twice"),
        ("p90_ms 5", "is no `name: number`"),
        ("  p90_ms: 5", "no `budget:` stands above it"),
        ("p90_ms: -1\nrss_mb: nan\n", "has 2 faults"),
        ('{"p90_ms": true}', "p90_ms is 'true', no number"),
        ("{", "has 1 fault"),
        ("# nothing\n", "asks for nothing"),
        ("budget:\n", "asks for nothing"),
    ],
)
def test_a_broken_budget_is_refused(tmp_path, text, words):
    with pytest.raises(RecipeError) as caught:
        read_budget(written(tmp_path / "b.yaml", text))
    assert words in str(caught.value)
    assert "lines such as `p90_ms: 5`" in str(caught.value)


def test_broken_files_are_refused_and_nothing_is_written(edgetune, tmp_path):
    budget = written(tmp_path / "b.yaml", "size_mb: 5")
    (tmp_path / "other.json").write_bytes(
        measured(bundle=MeasuredBundle(name="x", task="t", digest="sha256:0", size_bytes=1, variant="")).to_json()
    )
    newer = written(tmp_path / "newer.json", measured(format=2).to_json().decode())
    damaged = written(tmp_path / "damaged.json", '{"format": 1}')
    for file, words in (
        (tmp_path / "other.json", "measured another bundle"),
        (newer, "measurement format 2"),
        (damaged, "is no measurement"),
        (tmp_path / "nowhere.json", "cannot be read"),
    ):
        for command in (
            ("check", BUNDLE, "--budget", budget, "--measured", file, "--junit", tmp_path / "c.xml"),
            ("report", BUNDLE, file, "-o", tmp_path / "page.html"),
        ):
            ended = edgetune(*command)
            assert ended.code == 1, command
            assert words in ended.err
            assert "Traceback" not in ended.err
    assert edgetune("check", BUNDLE, "--budget", tmp_path / "nowhere.yaml").code == 2
    assert edgetune("report", BUNDLE).code == 2
    names = {"b.yaml", "other.json", "newer.json", "damaged.json"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_one_page_joins_the_build_and_the_machines(edgetune, tmp_path, report):
    (tmp_path / "a.json").write_bytes(measured().to_json())
    busy = measured(timing_valid=False, timing_remark="The machine was too busy <here>.")
    (tmp_path / "b.json").write_bytes(busy.to_json())
    ended = edgetune("report", BUNDLE, tmp_path / "a.json", tmp_path / "b.json", "-o", tmp_path / "page.html")
    assert ended.code == 0, ended.err
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    check_page(page)
    assert page.text.count("board") >= 4
    assert f"{report.machine.cpu}, which built it" in page.text
    assert report.verdict in page.text
    assert "too busy <here>" in page.text
