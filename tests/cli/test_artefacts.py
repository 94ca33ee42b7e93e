"""The commands on a bundle without a graph and on a cascade, and whole builds that pack either."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgetune.serve.bundle import Bundle
from tests.toy_static import add_toy_static
from tests.untimed import untimed

TEXTS = ("where is my parcel", "card login")


def test_a_bundle_without_a_graph(edgetune, static_bundle):
    shown = edgetune("inspect", static_bundle)
    assert "static: numpy on tables in model.onnx, no ONNX Runtime needed" in shown.out
    proven = edgetune("verify", static_bundle)
    assert "8 golden answers replayed" in proven.out
    (answer,) = json.loads(edgetune("predict", static_bundle, TEXTS[0], "--json").out)
    assert answer["label"] == "delivery"
    assert "answered_by" not in answer


def test_a_cascade_says_who_answered(edgetune, cascade_bundle):
    shown = edgetune("inspect", cascade_bundle)
    assert "static answers where its margin is 0.500 or more, then the scheme" in shown.out
    proven = edgetune("verify", cascade_bundle)
    assert "8 golden answers of static replayed" in proven.out
    assert "8 golden answers of fp32 replayed" in proven.out
    assert "Here answers static where it is sure, then fp32: the bundle has no other graph" in proven.out
    facts = json.loads(edgetune("verify", cascade_bundle, "--json").out)
    assert list(facts["variants"]) == ["static", "fp32"]
    for form in ("--json", "--jsonl"):
        out = edgetune("predict", cascade_bundle, *TEXTS, form).out
        answers = json.loads(out) if form == "--json" else [json.loads(line) for line in out.splitlines()]
        assert [answer["answered_by"] for answer in answers] == ["static", "fp32"]


@pytest.fixture
def build(edgetune, workshop, tmp_path, monkeypatch):
    """Calling it with a preferred candidate builds the workshop's data with the toy artefact, and gives the bundle."""
    from edgetune.benchmarks.prove import search
    from edgetune.benchmarks.prove.cascade import Threshold
    from edgetune.serve.cascade import margins

    add_toy_static(monkeypatch)
    monkeypatch.setattr(search, "dominated", lambda *given: "")
    # Of fifteen rows hardly any threshold is allowed: one that leaves half of them to each.
    middle = lambda rows, small, strong: Threshold(float(np.median(margins(small))), 0.5)  # noqa: E731
    monkeypatch.setattr(search, "choose_threshold", middle)

    def make(preferred, *more):
        first = lambda figures, *given: sorted(figures, key=lambda name: (name != preferred, name))  # noqa: E731
        monkeypatch.setattr(search, "preference", first)
        arguments = (*workshop.copy(tmp_path), "--set", "compress.schemes=[fused,toy_static]")
        gate = ("--set", "gate.max_drop=0.99", "--set", "gate.when_inconclusive=accept")
        with untimed():
            ended = edgetune("build", *arguments, *gate, *more)
        assert ended.code == 0, ended
        return Bundle.open(tmp_path / "bundle"), ended.out

    return make


@pytest.mark.slow
def test_a_build_packs_a_cascade(build, edgetune):
    bundle, out = build("toy_static~fused", "--set", "compress.variants=[fp32]")
    report = json.loads((bundle.folder / "report.json").read_text("utf-8"))
    assert report["chosen"] == "toy_static~fused"
    cascade, proof = report["cascade"], report["proof"]
    assert (cascade["small"], cascade["strong"], cascade["validation_share"]) == ("toy_static", "fused", 0.5)
    assert cascade["value"] == proof["value"]
    assert len(cascade["curve"]) == 11
    assert [point["value"] for point in cascade["curve"]][::10] == [cascade["strong_value"], cascade["small_value"]]
    assert report["gains"][-1]["part"] == "toy_static first"
    assert "Cascade: toy_static answers" in " ".join(out.split())
    manifest = bundle.manifest
    assert (manifest.scheme, manifest.cascade.scheme) == ("fused", "toy_static")
    assert {variant.scheme for variant in manifest.variants} == {"fused", "fp32"}
    assert {"toy_static.onnx", "golden_toy_static.json", "model_fp32.onnx"} <= set(manifest.files)
    assert list(json.loads(edgetune("verify", bundle.folder, "--json").out)["variants"]) == [
        "toy_static",
        "fused",
        "fp32",
    ]


@pytest.mark.slow
def test_a_build_packs_an_artefact_alone(build, edgetune):
    bundle, _ = build("toy_static", "--set", "compress.variants=[fp32]")
    report = json.loads((bundle.folder / "report.json").read_text("utf-8"))
    assert (report["chosen"], report["cascade"], report["placement"]) == ("toy_static", None, {})
    assert report["runtime"]["threads"] == 1
    assert "The bundle holds no variant fp32: toy_static is no graph of the model." in report["notes"]
    assert (bundle.manifest.engine.kind, bundle.manifest.variants, bundle.manifest.cascade) == ("static", [], None)
    assert edgetune("verify", bundle.folder).code == 0
