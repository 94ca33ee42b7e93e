"""The commands on a bundle without a graph and on a cascade: inspect, verify, predict."""

from __future__ import annotations

import json

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
