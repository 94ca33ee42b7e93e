"""`edgetune compress`: every scheme explained, a plan that says why some are left out, and a search that is kept."""

import json

import pytest

from edgetune.compress.schemes import SCHEMES


def test_the_list_explains_every_scheme(edgetune):
    ended = edgetune("compress", "--list")
    assert ended.code == 0
    for scheme in SCHEMES.values():
        assert f"{scheme.name}  ({scheme.level} level, " in ended.out
        assert scheme.summary in ended.out
        assert scheme.when in ended.out
        assert scheme.cost in ended.out
    found = json.loads(edgetune("compress", "--list", "--json").out)
    assert [one["name"] for one in found["schemes"]] == list(SCHEMES)
    assert all(one["summary"] and one["when"] and one["cost"] for one in found["schemes"])


def test_the_plan_says_which_schemes_would_be_tried_and_why_not_the_others(edgetune, workshop, tmp_path):
    arguments = (*workshop.there(tmp_path), "--set", "compress.schemes=auto")
    ended = edgetune("compress", "--plan", *arguments)
    assert ended.code == 0, ended
    assert not (tmp_path / "bundle.work").exists()
    lines = {line.split()[0]: line for line in ended.out.splitlines()}
    assert set(lines) >= set(SCHEMES)
    assert "would be tried" in lines["fused"]
    assert "left out: " in lines["student"]
    assert "Nothing was done." in ended.out
    found = json.loads(edgetune("compress", "--plan", *arguments, "--json").out)
    assert sorted([*found["tried"], *found["skipped"]]) == sorted(SCHEMES)
    # Half precision is for a GPU; weights alone for models a thousand times as large.
    assert {"fp16", "bf16", "weight_int4", "student"} <= set(found["skipped"])
    assert all(reason[0].islower() for reason in found["skipped"].values())


@pytest.mark.slow
def test_another_list_of_schemes_uses_what_was_made(edgetune, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    trials = tmp_path / "bundle.work" / "trials"
    before = {path: path.stat().st_mtime_ns for path in trials.rglob("*")}
    ended = edgetune("compress", *arguments, "--set", "compress.schemes=[fused]", "--json")
    assert ended.code == 0, ended
    assert json.loads(ended.out)["order"] == ["fused"]
    assert {path: path.stat().st_mtime_ns for path in trials.rglob("*")} == before
