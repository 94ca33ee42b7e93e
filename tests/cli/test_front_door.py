"""`import edgetune`: light, lazy and typed; a build from rows in memory, its result, and bundles of both families."""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetune
from edgetune.api.data import data_section
from edgetune.serve import Generator, Predictor, Sampling
from edgetune.serve.errors import DataError, InputError, RecipeError, WorkError
from edgetune.serve.report import Report
from tests.cli.test_build_language_model import built as built  # the fixture of a language model's whole build
from tests.conftest import toy_sentences

FUNCTIONS = ["build", "compare", "load", "predict", "tune"]
ROWS = [{"text": text, "label": label} for text, label in toy_sentences()]
SECTIONS: dict[str, Any] = {
    "tune": {"method": "probe"},
    "compress": {"schemes": ["int8_dynamic"]},
    "benchmark": {"samples": 40, "grid": False, "cold_starts": 1},
    "device": "cpu",
}


def fresh(code: str, folder: Path | None = None) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def made(folder: Path, base: Path) -> None:
    """A whole build by `edgetune.build` in a process of its own, without the races, with all that it printed."""
    shutil.copytree(base, folder / "base")
    (folder / "rows.json").write_text(json.dumps(ROWS), "utf-8")
    code = f"""
import json, os, edgetune
from edgetune.cli import prepare_environment
from tests.untimed import untimed
with untimed():
    result = edgetune.build(base="base", data=json.load(open("rows.json")), out="bundle", **{SECTIONS!r})
assert isinstance(result, edgetune.api.result.BuildResult)
after = set(os.environ)
prepare_environment()
assert "EDGETUNE_TRAINS_WITH" in set(os.environ) - after
"""
    ours = ["EDGETUNE_TRAINS_WITH", *os.environ.get("EDGETUNE_TRAINS_WITH", "").split()]
    users = {name: value for name, value in os.environ.items() if name not in ours}  # not what other tests left
    users["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, cwd=folder, env=users
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "printed.txt").write_text(done.stdout + done.stderr, "utf-8")


@pytest.fixture(scope="session")
def shop(shared_folder: Callable[..., Path], tiny_base: Callable[[str], Path]) -> Path:
    """A folder with `base`, `bundle` and `bundle.work`, made once for all workers; not to be changed."""
    return shared_folder("front-door", lambda part: made(part, tiny_base("bert")))


@pytest.fixture
def desk(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to build in again, as the current folder."""
    shutil.copytree(shop, tmp_path / "desk", copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path / "desk")
    return tmp_path / "desk"


def test_the_package_offers_its_functions_and_no_more():
    assert edgetune.__all__ == FUNCTIONS
    assert set(FUNCTIONS) <= set(dir(edgetune))
    assert all(callable(getattr(edgetune, name)) for name in FUNCTIONS)
    with pytest.raises(AttributeError, match="module 'edgetune' has no attribute 'bild'"):
        _ = edgetune.bild  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "code", ["import edgetune", "import edgetune; edgetune.load, edgetune.predict, edgetune.build"]
)
def test_asking_for_a_function_loads_nothing_heavy(code):
    code += "\nimport sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    heavy = {"torch", "transformers", "onnxruntime", "onnx", "datasets", "pandas", "sklearn", "pydantic"}
    assert heavy & set(json.loads(fresh(code))) == set()


def test_a_bundle_answers_without_what_builds():
    bundle = Path(__file__).parent.parent / "golden" / "bundle-v1"
    code = f"""
import sys, edgetune
with edgetune.load({str(bundle)!r}, threads=1) as model:
    [answer] = model.predict(["where is my card"])
assert edgetune.predict({str(bundle)!r}, ["where is my card"], threads=1) == [answer]
print(sorted({{"torch", "transformers", "pandas", "pydantic", "click"}} & set(sys.modules)))
"""
    assert fresh(code) == "[]\n"


@pytest.mark.parametrize(
    "first", ["import edgetune.tune.recipe", "from edgetune.tune import recipe", "import edgetune; edgetune.tune", ""]
)
def test_tune_is_a_function_and_a_package_in_either_order(first):
    code = f"""
{first}
import inspect
import edgetune
from edgetune import tune
import edgetune.tune.recipe
import edgetune.tune.recipe as recipe
assert edgetune.tune.recipe is recipe is tune.recipe
assert tune is edgetune.tune and callable(tune)
assert list(inspect.signature(tune).parameters)[:3] == ["base", "data", "out"]
try:
    tune(base="there-is-none", data=[])
except edgetune.serve.errors.DataError as error:
    print(error.found)
"""
    assert fresh(code) == "data (path) has no rows.\n"


@pytest.mark.long
def test_type_checkers_see_functions(tmp_path):
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    (tmp_path / "user.py").write_text(
        "import edgetune\n"
        "import edgetune.tune.recipe\n"
        "from edgetune import predict\n"
        "reveal_type(edgetune.tune().folder)\n"
        'reveal_type(edgetune.load("x").predict(["a"]))\n'
        'reveal_type(edgetune.build(base="a", data=[{"text": "b"}]).report.verdict)\n'
        'reveal_type(predict("x", ["a"]))\n'
        "edgetune.bild\n"
        "edgetune.build(bas=1)\n"
    )
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--follow-imports=silent",
        "--cache-dir",
        str(tmp_path / "cache"),
        "user.py",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    lines = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("user.py")]
    revealed = [line.partition('"')[2].rstrip('"') for line in lines if "Revealed" in line]
    answers = "list[Any] | list[edgetune.serve.stepwise.answer.Generation]"
    assert revealed == ["pathlib.Path", answers, "str", "list[Any]"]
    assert [line.partition("[")[2] for line in lines if "error" in line] == ["attr-defined]", "call-arg]"]


@pytest.mark.slow
def test_a_build_prints_nothing_and_leaves_a_bundle_without_a_command(shop):
    assert (shop / "printed.txt").read_text("utf-8") == ""
    report = Report.load(shop / "bundle" / "report.json")
    assert report.command == ""
    page = (shop / "bundle" / "report.html").read_text("utf-8")
    assert "How to repeat it" not in page
    assert report.verdict.split(",")[0] in page
    assert report.data.source == next((shop / "bundle.work" / "rows").iterdir()).relative_to(shop).as_posix()


@pytest.mark.slow
def test_equal_rows_of_any_kind_open_the_finished_stages(desk, capfd):
    import datasets
    import pandas

    stages = (desk / "bundle.work" / "stages.json").read_bytes()
    kinds = {"DataFrame": pandas.DataFrame(ROWS), "Dataset": datasets.Dataset.from_list(ROWS), "list": ROWS}
    for kind, rows in kinds.items():
        result = edgetune.build(base="base", data=rows, out="bundle", **SECTIONS)
        assert (desk / "bundle.work" / "stages.json").read_bytes() == stages, kind
        assert len(list((desk / "bundle.work" / "rows").iterdir())) == 1, kind
    assert capfd.readouterr() == ("", "")

    assert (result.folder, result.work) == (Path("bundle"), Path("bundle.work"))
    assert repr(result) == f"Bundle bundle: {result.report.verdict}"
    assert (result.rows[0][0], result.rows[-1][0]) == ("accuracy", "size")
    assert [line.value for line in edgetune.compare([result, "bundle"]).bundles] == [result.report.packed.value] * 2
    shown = result._repr_html_()
    assert shown.startswith("<table><thead><tr><th></th><th>base (PyTorch)</th><th>bundle</th><th>change</th></tr>")
    assert all(f"<td>{cell}</td>" in shown for row in result.rows for cell in row[1:])
    with result.load(threads=1) as model:
        assert isinstance(model, Predictor)
        assert model.predict(["my card"]) == edgetune.predict("bundle", ["my card"], threads=1)


@pytest.mark.slow
def test_tune_stops_behind_its_stage_and_a_build_goes_on_from_it(desk):
    before = (desk / "bundle.work" / "stages.json").read_bytes()
    tuned = edgetune.tune(base="base", data=ROWS, out="bundle", tune={"method": "probe"}, device="cpu")
    assert (desk / "bundle.work" / "stages.json").read_bytes() == before
    assert tuned.folder == Path("bundle.work/tune/model")
    assert (tuned.folder / "model.safetensors").is_file()
    assert tuned.method == "probe"
    report = Report.load(desk / "bundle" / "report.json")
    assert tuned.figures == {"validation": report.training.best_value}


@pytest.mark.slow
def test_the_bundle_s_recipe_builds_it_again(desk):
    before = (desk / "bundle.work" / "stages.json").read_bytes()
    result = edgetune.build(recipe="bundle/recipe.yaml")
    assert result.folder == Path("bundle")
    assert (desk / "bundle.work" / "stages.json").read_bytes() == before


@pytest.mark.slow
def test_fresh_runs_the_stages_again_and_keeps_the_rows(desk, capfd):
    [rows] = (desk / "bundle.work" / "rows").iterdir()
    files = [desk / "bundle.work" / name for name in ("data/dataset.json", "tune/tuned.json")]
    before = [path.stat().st_mtime_ns for path in files]
    edgetune.tune(base="base", data=ROWS, out="bundle", tune={"method": "probe"}, device="cpu", fresh=True)
    assert rows.is_file()
    assert not (desk / "bundle.work" / "bench").exists()
    assert all(path.stat().st_mtime_ns > time for path, time in zip(files, before, strict=True))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_progress_goes_to_stderr(desk, capfd):
    edgetune.tune(base="base", data=ROWS, out="bundle", tune={"method": "probe"}, device="cpu", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split()[:3] for line in err.splitlines()] == [["✓", "data", "kept"], ["✓", "tune", "kept"]]


@pytest.mark.slow
def test_bundles_of_the_same_rows_are_compared(desk):
    shutil.copytree("bundle", "other")
    comparison = edgetune.compare(["bundle", Path("other")])
    report = Report.load(desk / "bundle" / "report.json")
    assert (comparison.metric, comparison.test_rows) == ("accuracy", report.quality.n)
    assert [(str(line.folder), line.scheme) for line in comparison.bundles] == [
        ("bundle", report.chosen),
        ("other", report.chosen),
    ]
    assert comparison.bundles[0].value == (report.proof and report.proof.value)
    assert comparison.bundles[0].size_bytes == report.size_bytes.bundle
    assert next(iter(comparison.bundles[0].figures)) == "accuracy"
    assert comparison._repr_html_().count("<tr>") == 3

    changed = json.loads((desk / "other" / "report.json").read_text("utf-8"))
    changed["machine"]["cpu"] = "another processor"
    changed["timing_valid"] = True
    for name in ("bundle", "other"):
        mine = {
            **changed,
            "machine": changed["machine"] if name == "other" else json.loads(report.to_json())["machine"],
        }
        (desk / name / "report.json").write_text(json.dumps(mine), "utf-8")
    assert "another processor" in edgetune.compare(["bundle", "other"]).remark

    changed["data"]["digest"] = "sha256:other"
    (desk / "other" / "report.json").write_text(json.dumps(changed), "utf-8")
    with pytest.raises(InputError, match=r"bundle and other were measured on different data \(with its split\)"):
        edgetune.compare(["bundle", "other"])


def test_a_comparison_takes_two_bundles_with_reports(tmp_path):
    golden = Path(__file__).parent.parent / "golden" / "bundle-v1"
    with pytest.raises(InputError, match="no two bundles"):
        edgetune.compare([golden])
    with pytest.raises(InputError, match="no two bundles"):
        edgetune.compare(str(golden))
    shutil.copytree(golden, tmp_path / "bare")
    (tmp_path / "bare" / "report.json").unlink()
    with pytest.raises(InputError, match=r"bare has no report\.json"):
        edgetune.compare([golden, tmp_path / "bare"])


@pytest.mark.slow
def test_a_language_model_is_loaded_the_same_way(built):
    folder = built[0] / "bundles" / "talk"
    with edgetune.load(folder, threads=1) as model:
        assert isinstance(model, Generator)
        [answer] = model.predict(["the cat sees"], Sampling(max_tokens=4))
        assert answer == model.generate("the cat sees", Sampling(max_tokens=4))
        with pytest.raises(InputError, match="no text to answer"):
            model.predict([])
        with pytest.raises(InputError, match="One string was given"):
            model.predict("the cat sees")
    [again] = edgetune.predict(folder, ["the cat sees"], threads=1, sampling=Sampling(max_tokens=4))
    assert again.text == answer.text
    comparison = edgetune.compare([folder, folder])
    assert comparison.metric == "perplexity"
    assert "tokens/s, batch 1" in comparison.bundles[0].figures


@pytest.mark.parametrize(
    ("kind", "codec", "given"),
    [("labels", "text", "where is it"), ("number", "text", "where is it"), ("label", "text-pair", ("a", "b"))],
)
def test_bundles_of_every_head_and_codec_answer(kind_bundle, kind, codec, given):
    [answer] = edgetune.predict(kind_bundle(kind, codec), [given], threads=1)
    with edgetune.load(kind_bundle(kind, codec), threads=1) as model:
        assert model.predict([given]) == [answer]


def test_sampling_is_refused_where_it_has_no_effect():
    bundle = Path(__file__).parent.parent / "golden" / "bundle-v1"
    with pytest.raises(InputError, match="sampling would have no effect"):
        edgetune.predict(bundle, ["where is my card"], sampling=Sampling())


def test_faults_of_arguments_are_all_told_at_once(tmp_path, tiny_base):
    with pytest.raises(RecipeError) as raised:
        edgetune.build(
            base=tiny_base("bert"),
            data=ROWS,
            out=tmp_path / "x",
            tune={"methd": "probe", "lora": {"rank": 0}},
            gate={"max_drop": "much"},
        )
    assert raised.value.found.startswith("The recipe has 3 faults:\n")
    assert "tune.methd: there is no such key; did you mean 'method'?" in raised.value.found
    assert "tune.lora.rank" in raised.value.found
    with pytest.raises(RecipeError, match="data: is required"):
        edgetune.build(base=tiny_base("bert"), out=tmp_path / "x")
    with pytest.raises(TypeError, match="budgt"):
        edgetune.build(base="x", budgt={})


def test_several_processes_are_sent_to_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(WorkError, match="2 processes run this program") as raised:
        edgetune.build(base="x", data=ROWS, out=tmp_path / "x")
    assert "accelerate launch -m edgetune build" in raised.value.action
    assert list(tmp_path.iterdir()) == []


def test_rows_without_the_column_are_refused(tmp_path, tiny_base):
    section = {"path": [{"body": "a text", "label": "a"}] * 4, "text": "text"}
    with pytest.raises(DataError, match="text"):
        edgetune.tune(base=tiny_base("bert"), data=section, out=tmp_path / "x", task="text-classification")


def test_cells_become_json_and_equal_rows_one_file(tmp_path):
    import pandas

    rows = [
        {"text": "é", "labels": ["a", "b"], "n": np.int64(3), "when": datetime.date(2026, 1, 2), "x": float("nan")},
        {"text": np.str_("z"), "labels": np.array(["c"]), "n": 4, "when": pandas.Timestamp(2026, 1, 3), "x": pandas.NA},
        {"text": None, "labels": (), "n": 2.5, "when": pandas.NaT, "x": np.float32(0.5)},
    ]
    section = data_section({"path": rows, "text": "text"}, tmp_path)
    path = Path(section["path"])
    assert section["text"] == "text"
    assert path.name.startswith("rows-")
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [
        {"text": "é", "labels": ["a", "b"], "n": 3, "when": "2026-01-02", "x": None},
        {"text": "z", "labels": ["c"], "n": 4, "when": "2026-01-03T00:00:00", "x": None},
        {"text": None, "labels": [], "n": 2.5, "when": None, "x": 0.5},
    ]
    before = path.stat().st_mtime_ns
    assert data_section(tuple(rows), tmp_path) == {"path": str(path)}
    assert path.stat().st_mtime_ns == before
    assert data_section(rows[:2], tmp_path) != {"path": str(path)}
    assert {file.suffix for file in tmp_path.iterdir()} == {".jsonl"}


def test_frames_keep_lists_and_lose_missing_values(tmp_path):
    import pandas

    frame = pandas.DataFrame({"text": ["a", None], "labels": [["x", "y"], []], "n": [1, None]}, index=[7, 9])
    [path] = data_section(frame, tmp_path).values()
    assert Path(path).read_text("utf-8").splitlines() == [
        '{"text": "a", "labels": ["x", "y"], "n": 1.0}',
        '{"text": null, "labels": [], "n": null}',
    ]
    with pytest.raises(DataError, match="two columns 'a'"):
        data_section(pandas.DataFrame([[1, 2]], columns=["a", "a"]), tmp_path)


def test_data_sets_name_their_classes_and_parts(tmp_path):
    import datasets

    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["p", "q"])),
        }
    )
    rows = {"text": ["a", "b"], "label": [1, -1], "tags": [[0, 1], []]}
    table = datasets.Dataset.from_dict(rows, features=features)
    splits = datasets.DatasetDict({"train": table, "dev": table.select([0]), "unsupervised": table})
    section = data_section(splits, tmp_path)
    assert list(section) == ["train", "validation"]
    assert [json.loads(line) for line in Path(section["train"]).read_text("utf-8").splitlines()] == [
        {"text": "a", "label": "yes", "tags": ["p", "q"]},
        {"text": "b", "label": None, "tags": []},
    ]
    assert list(data_section({"train": table, "test": "test.csv"}, tmp_path)) == ["train", "test"]
    with pytest.raises(DataError, match="no training part: it has all"):
        data_section(datasets.DatasetDict({"all": table}), tmp_path)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], r"data \(path\) has no rows"),
        (["a text"], r"Row 1 of data \(path\) is of type str"),
        ([{"text": "a"}, {"text": b"a"}], r"Row 2 of data \(path\), 'text': a bytes"),
        ([{"text": "a", "n": float("inf")}], r"'n': a float \(inf\) cannot be written"),
        ([{"text": "a", "tags": [{1, 2}]}], r"'tags': a set"),
        (iter([{"text": "a"}]), r"data \(path\) is of type list_iterator"),
        ({"train": [{"text": "a"}], "test": []}, r"data \(test\) has no rows"),
    ],
)
def test_what_is_no_row_is_refused_by_its_place(tmp_path, data, expected):
    with pytest.raises(DataError, match=expected):
        data_section(data, tmp_path)
