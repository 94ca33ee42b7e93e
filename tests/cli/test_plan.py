"""`edgetune build --plan`: sizes and times are told, and nothing is written."""

import json

import pytest


@pytest.fixture
def plan(edgetune, workshop, tmp_path, monkeypatch):
    """`plan(...)` plans a build in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: edgetune("build", *workshop.arguments, "--out", "bundle", "--plan", *arguments)


def test_a_plan_tells_sizes_and_times_and_writes_nothing(plan, tmp_path):
    ended = plan("--method", "lora", "--set", "tune.epochs=4")
    assert (ended.code, ended.err) == (0, "")
    assert "68 train, 15 validation, 15 test; 4 labels" in ended.out
    assert "0.0 million parameters, 0.1 MB" in ended.out
    assert "lora, pooling head, at most 96 tokens, 4 epochs in " in ended.out
    assert "MB in the work folder bundle.work" in ended.out
    assert " minutes (tune " in ended.out
    assert ended.out.rstrip().endswith("Nothing was done.")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_as_one_json_document(plan, tmp_path):
    ended = plan("--json")
    found = json.loads(ended.out)
    assert ended.err == ""
    assert found["rows"] == {"train": 68, "validation": 15, "test": 15}
    assert (found["labels"], found["max_tokens"], found["epochs"]) == (4, 96, 0.0)
    assert "int8_dynamic" in found["schemes"]
    assert found["size_bytes"]["fp32"] == 4 * found["parameters"] == 4 * found["size_bytes"]["int8_dynamic"]
    assert found["base_bytes"] > 100_000
    assert set(found["seconds"]) == {"tune", "export", "compress", "bench"}
    assert found["replaces"] is False
    assert any("were guessed" in finding or "Split" in finding for finding in found["findings"])
    assert list(tmp_path.iterdir()) == []


def test_a_plan_leaves_a_work_folder_and_a_bundle_as_they_are(edgetune, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    ended = edgetune("build", *arguments, "--plan", "--fresh")
    assert "(replaces the bundle there)" in ended.out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_plan_fails_where_the_build_would(plan, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "other").touch()
    ended = plan()
    assert (ended.code, ended.out) == (1, "")
    assert "exists and is no bundle" in ended.err
    ended = plan("--out", "free", "--data", "missing.csv")
    assert (ended.code, ended.out) == (1, "")
    assert "There is no file missing.csv." in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_every_method_has_a_time_and_one_that_trains_takes_longer_than_the_probe():
    from edgetune.tasks.classification_plan import _seconds
    from edgetune.tune.methods import METHODS

    rows = {"train": 800, "validation": 100, "test": 100}
    tune = {method: _seconds(rows, 3, method, 0.01, False, 100)["tune"] for method in METHODS}
    assert tune["probe"] == 9.0
    assert tune["lora"] == tune["auto"] == 9 + 3 * (800 * 3 + 100) / 100
    assert tune["freeze"] == 9 + 9 + 3 * (800 + 100) / 100
    assert tune["probe"] < tune["freeze"] < tune["lora"] < tune["full"]
