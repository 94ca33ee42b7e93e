"""`edgetune build --plan`: sizes and times are told, and nothing is written."""

import json
from dataclasses import replace

import pytest

from edgetune.benchmarks.report import charts
from edgetune.once import estimate
from edgetune.once.estimate import Costs, Model, Speeds
from edgetune.once.recipe import OnceRecipe
from edgetune.tune.methods import METHODS


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
    assert "lora, pooling head, at most 96 tokens, at most 4 epochs in " in ended.out
    assert "MB in the work folder bundle.work" in ended.out
    assert " minutes (tune " in ended.out
    assert ended.out.rstrip().endswith("Nothing was done.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "method", ["prompt", *(pytest.param(name, marks=pytest.mark.long) for name in METHODS if name != "prompt")]
)
def test_every_method_has_a_plan(plan, tmp_path, method):
    ended = plan("--method", method, "--set", "tune.epochs=2")
    assert (ended.code, ended.err) == (0, "")
    assert f"{method}, pooling head, at most 96 tokens" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_goes_on_from_another_has_a_plan(edgetune, workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ["--data", workshop.data, "--remember", workshop.data, "--replay", "0.5", "--method", "full"]
    ended = edgetune("build", "--from", workshop.folder / "bundle", *rows, "--out", "both", "--plan")
    assert (ended.code, ended.err) == (0, ""), ended
    assert "34 of them learnt again; the new rows add 0 labels" in ended.out
    assert list(tmp_path.iterdir()) == []
    ended = edgetune("build", "--from", tmp_path, *rows, "--plan")
    assert (ended.code, "is no build that could be gone on from" in ended.err) == (2, True)
    ended = edgetune("build", "--from", workshop.folder / "bundle", "--base", workshop.base, *rows, "--plan")
    assert (ended.code, "--base and --from name two models" in ended.err) == (2, True)


def test_a_plan_as_one_json_document(plan, tmp_path):
    ended = plan("--json")
    found = json.loads(ended.out)
    assert ended.err == ""
    assert found["rows"] == {"train": 68, "validation": 15, "test": 15}
    assert (found["labels"], found["max_tokens"], found["epochs"]) == (4, 96, 0.0)
    assert "int8_dynamic" in found["schemes"]
    assert 0 <= found["cut_share"] < 0.1
    assert 0 <= found["unknown_share"] < 1
    assert found["size_bytes"]["fp32"] == 4 * found["parameters"] == 4 * found["size_bytes"]["int8_dynamic"]
    assert found["base_bytes"] > 100_000
    assert set(found["seconds"]) == {"tune", "export", "compress", "bench"}
    assert found["replaces"] is False
    assert found["linear"] is None  # 15 validation rows tell nothing
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


@pytest.fixture
def costs():
    """`costs(recipe sections)` of 800 rows of ten labels, where a pass takes 10 ms a row and a step 30."""

    def of(**sections):
        recipe = OnceRecipe.of_values({"base": "b", "data": {"path": "rows.csv"}, **sections}, None)
        return Costs(
            recipe=recipe,
            rows={"train": 800, "validation": 100, "test": 100},
            labels=10,
            schemes=["fused", "int8_dynamic", "fp32"],
            model=Model(parameters=10**7, layers=6, width=100, device="cpu", bf16=False, max_tokens=128),
            speeds=Speeds(forward=0.01, forward_fp32=0.01, alone=0.02, step=0.03, stored=0.0),
        )

    return of


def test_the_seconds_by_hand(costs):
    fixed = 2.0 + 0.2 * 10 + 256 * 0.01
    probe = 900 * (0.01 + 6e-8 * 10 * 100)
    epoch = 800 * 0.03 + 100 * 0.01
    tune = {method: costs(tune={"method": method}).seconds["tune"] for method in METHODS}
    assert tune["probe"] == round(fixed + probe, 1)
    # Training stops early: two epochs that gain, and as many more as the method is patient; of rounds, here of four
    # passes, half a one, and the head is solved again.
    assert tune["auto"] == round(fixed + 2 * probe + 1.5 * 4 * epoch, 1)
    assert tune["lora"] == tune["full"] == round(fixed + probe + 4 * epoch, 1)
    assert costs(tune={"method": "lora", "epochs": 1}).seconds["tune"] == round(fixed + probe + epoch, 1)
    assert costs(tune={"method": "lora", "patience": 9, "epochs": 8}).seconds["tune"] == round(
        fixed + probe + 8 * epoch, 1
    )
    seconds = costs().seconds
    assert seconds["export"] == round(3.0 + 0.2 * 10 + 100 * 0.01 * 1.25, 1)
    candidate = 2.0 + 0.15 * 10 + 500 * 0.25 * 0.02 + 0.25 * 1.0
    assert seconds["compress"] == round(1.0 + 2 * candidate, 1)
    assert seconds["bench"] == round(10.0 + 0.4 * 10 + 100 * 0.01 * 3.5 + 1.25 * (400 * 0.02 + 2000 * 0.01), 1)


def test_what_is_frozen_is_computed_once_and_what_is_taught_takes_time(costs):
    trained = costs(tune={"method": "freeze"})
    stored = replace(trained, speeds=replace(trained.speeds, stored=0.005))
    assert trained.seconds["tune"] - stored.seconds["tune"] == pytest.approx(3 * 900 * 0.005, abs=0.1)
    assert costs(tune={"method": "probe"}).seconds["tune"] < stored.seconds["tune"]
    few = costs()
    with_export = replace(few, schemes=[*few.schemes, "trimmed"]).seconds["compress"]
    taught = replace(few, schemes=[*few.schemes, "student"]).seconds["compress"]
    assert few.seconds["compress"] < with_export < taught


def test_a_build_stores_its_plan_and_the_report_compares_it(workshop):
    planned = json.loads((workshop.folder / "bundle.work" / "plan.json").read_text(encoding="utf-8"))
    report = json.loads((workshop.folder / "bundle" / "report.json").read_text(encoding="utf-8"))
    assert report["planned_seconds"] == planned
    assert set(planned) == {"tune", "export", "compress", "bench"}
    assert all(seconds > 0 for seconds in planned.values())
    took, expected = (
        charts.seconds(sum(by_stage[stage] for stage in planned)) for by_stage in (report["build_seconds"], planned)
    )
    sentence = f"The build took {took}; {expected} were planned."
    assert sentence in workshop.out
    assert sentence in (workshop.folder / "bundle" / "report.html").read_text(encoding="utf-8")


def test_only_a_build_that_trains_plans_anew(edgetune, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    plan = tmp_path / "bundle.work" / "plan.json"
    plan.write_text('{"tune": 12.5}', encoding="utf-8")
    assert edgetune("tune", *arguments).code == 0
    assert json.loads(plan.read_text(encoding="utf-8")) == {"tune": 12.5}
    assert edgetune("tune", *arguments, "--seed", "1").code == 0
    assert set(json.loads(plan.read_text(encoding="utf-8"))) == {"tune", "export", "compress", "bench"}


def test_a_step_that_takes_too_much_memory_plans_nothing(edgetune, workshop, tmp_path, monkeypatch):
    def run_out(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(estimate, "_speeds", run_out)
    arguments = workshop.there(tmp_path)
    assert edgetune("tune", *arguments).code == 0
    assert json.loads((tmp_path / "bundle.work" / "plan.json").read_text(encoding="utf-8")) == {}
