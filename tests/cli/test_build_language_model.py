"""A language model from rows to a bundle that generates: the real stages on a tiny llama made from a seed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune.serve import Generator, Sampling
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleFormatError
from edgetune.serve.stepwise.golden import read_golden, replay
from edgetune.serve.stepwise.report import LanguageReport
from tests.cli.here import run_here

ROWS = [
    {"prompt": f"the {animal} {verb}", "completion": f" a {colour} {other} ."}
    for animal in ("cat", "dog", "bird", "fish")
    for verb in ("sees", "eats", "likes", "finds")
    for colour, other in (("red", "fish"), ("blue", "bird"), ("old", "dog"), ("small", "cat"))
]


@pytest.fixture(scope="session")
def built(shared_folder: Callable[..., Path], language_base: Any) -> tuple[Path, dict[str, Any]]:
    """The folder of a whole build and what it printed, made once for all workers; not to be changed."""
    folder = shared_folder("language-build", lambda part: build(part, language_base()))
    return folder, json.loads((folder / "printed.json").read_text("utf-8"))


def build(folder: Path, base: Path) -> None:
    shutil.copytree(base, folder / "base")  # inside, so that the recipe of the bundle finds it from any worker
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings = {
        "tune.epochs": 2, "tune.learning_rate": 3e-3, "benchmark.rounds": 2, "benchmark.new_tokens": 8,
        "benchmark.prompt_tokens": "[8]", "benchmark.batches": "[1, 2]", "gate.max_rise": 0.5,
        "compress.schemes": "[int8]",
    }  # fmt: skip
    done = run_here(
        "build", "--base", "base", "--data", "rows.jsonl", "--task", "text-generation",
        "--method", "full", "--out", "bundles/talk", "--json",
        *(text for name, value in settings.items() for text in ("--set", f"{name}={value}")), folder=folder,
    )  # fmt: skip
    assert done.code == 0, done.err[-4000:]
    (folder / "printed.json").write_text(done.out, "utf-8")


@pytest.mark.slow
def test_rows_become_a_bundle_that_generates(built):
    folder, told = built
    bundle = Bundle.open(folder / "bundles" / "talk")
    report = LanguageReport.load(bundle.folder / "report.json")

    assert bundle.manifest.task == "text-generation"
    assert bundle.manifest.generation is not None
    assert (bundle.manifest.generation.layers, bundle.manifest.generation.vocabulary) == (2, 64)
    assert told["bundle"] == "bundles/talk"
    assert {stage.stage for stage in report.quality.stages} >= {"base", "tuned", "onnx", report.chosen}
    base, tuned = (next(one for one in report.quality.stages if one.stage == name) for name in ("base", "tuned"))
    assert tuned.value < base.value  # the rows follow a pattern that the base has never seen
    chosen = next(one for one in report.candidates if one.chosen)
    assert chosen.quantized > 0.5 or chosen.scheme == "fp32"
    assert report.decoding
    assert report.decoding[0].bundle_per_second
    assert report.memory is not None
    page = (bundle.folder / "report.html").read_text("utf-8")
    assert report.verdict.split(";")[0] in page
    generator = Generator.open(bundle.folder, threads=1)
    assert replay(generator, read_golden(bundle)).cases > 0
    answer = generator.generate("the cat sees", Sampling(max_tokens=8))
    assert answer.token_ids == generator.generate("the cat sees", Sampling(max_tokens=8)).token_ids
    assert answer.text.strip()


@pytest.fixture
def copied(built: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of the build, with its times, to build in again."""
    return shutil.copytree(built[0], tmp_path / "copy")


@pytest.mark.slow
def test_a_finished_build_is_opened_and_not_run_again(copied):
    before = (copied / "bundles" / "talk.work" / "stages.json").read_text()
    again = run_here("build", "bundles/talk/recipe.yaml", "--json", folder=copied)
    assert again.code == 0, again.err[-2000:]
    assert (copied / "bundles" / "talk.work" / "stages.json").read_text() == before


@pytest.mark.slow
@pytest.mark.long  # tests/benchmarks/stepwise/test_ladder.py judges again what was made, without the timing
def test_another_gate_makes_no_scheme_again(copied):
    folder = copied
    trials = folder / "bundles" / "talk.work" / "trials"

    def made() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in trials.rglob("*") if path.is_file()}

    before, digest = made(), Bundle.open(folder / "bundles" / "talk").manifest.files["model.onnx"].sha256
    assert any(name.endswith("model.onnx") for name in before)
    again = run_here("build", "bundles/talk/recipe.yaml", "--set", "gate.max_rise=0.45", "--json", folder=folder)
    assert again.code == 0, again.err[-2000:]
    assert json.loads(again.out)["report"]["gate"]["max_rise"] == 0.45
    assert made() == before
    assert Bundle.open(folder / "bundles" / "talk").manifest.files["model.onnx"].sha256 == digest


@pytest.mark.slow
def test_the_commands_know_a_language_model(built, tmp_path):
    folder, _ = built
    said = run_here("predict", folder / "bundles/talk", "the cat sees", "--max-tokens", "6", "--json")
    assert said.code == 0, said.err
    [answer] = json.loads(said.out)
    streamed = run_here("predict", folder / "bundles/talk", "the cat sees", "--max-tokens", "6")
    assert streamed.out.strip() == answer["text"].strip()
    manifest = Bundle.open(folder / "bundles" / "talk").manifest
    assert (manifest.columns, manifest.strip_inputs) == (["prompt"], True)
    (tmp_path / "asked.csv").write_text("text,prompt\nthe dog,the cat sees\n")
    from_file = ("--input", tmp_path / "asked.csv", "--max-tokens", "6", "--json")
    read = run_here("predict", folder / "bundles/talk", *from_file)
    assert json.loads(read.out) == [answer]
    assert "asked.csv are read from column 'prompt' (as in training)." in read.err
    verified = run_here("verify", folder / "bundles/talk")
    assert "golden answers" in verified.out
    measured = run_here("measure", folder / "bundles/talk", "--minutes", "0", "--threads", "1", "--json")
    assert measured.code == 0, measured.err
    found = json.loads(measured.out)
    assert (found["inputs"]["source"], found["latency_ms"]) == ("bundle", None)
    assert {1, 4} == {entry["batch"] for entry in found["throughput"]}
    assert all(entry["ms"] > 0 for entry in found["first_token_ms"])
    assert found["cold_start_ms"] > 0 < found["rss_peak_bytes"]
    from edgetune.serve import load

    with pytest.raises(BundleFormatError, match=r"Generator\.open"):
        load(folder / "bundles" / "talk")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--task", "poetry"], "or reward-model or text-generation"),
        (["--task", "text-generation", "--method", "magic"], "expected one of lora"),
        (
            ["--task", "text-generation", "--set", "gate.max_drop=0.1"],
            "gate.max_drop: is a limit of scores, and perplexity",
        ),
    ],
)
def test_faults_of_a_recipe_name_the_task_s_own_keys(edgetune, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    ended = edgetune("build", "--base", "x", "--data", "y.jsonl", *arguments)
    assert ended.code == 2
    assert expected in ended.err
