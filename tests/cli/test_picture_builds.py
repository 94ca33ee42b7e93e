"""Whole builds of tiny picture models: the report says what the bundle answers, and transformers answers the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgetune.benchmarks.report.html import render_html
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs import codec_inputs
from edgetune.serve.codecs.picture_spec import read_picture_spec
from edgetune.serve.golden import replay_golden
from edgetune.serve.loading import load
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import Report
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.tasks import TASKS
from tests.cli.here import run_here
from tests.picture_bases import PICTURE_BASES
from tests.untimed import build_untimed

pytestmark = pytest.mark.slow  # whole builds

# Whose random features tell colours apart; those of deep narrow networks are all alike.
LEARNABLE = ("resnet", "vit")
# What holds most weights, and so which of the two ways to fix int8 is taken.
CONVOLUTIONS = ("resnet", "mobilenet_v2", "efficientnet", "mobilevit")


def build(base: Path, pictures: Path, out: Path, until: str = "pack", **tune):
    values = {
        "base": str(base),
        "data": {"path": str(pictures)},
        "out": str(out),
        "tune": tune,
        "device": "cpu",
        "gate": {"when_inconclusive": "accept", "max_drop": 0.2},
    }
    return build_untimed(values, until)


@pytest.mark.parametrize(
    "name",
    [
        *LEARNABLE,
        *(pytest.param(name, marks=pytest.mark.long) for name in sorted(PICTURE_BASES) if name not in LEARNABLE),
    ],
)
def test_an_architecture_goes_all_the_way(picture_base, toy_pictures, tmp_path, name):
    build(picture_base(name), toy_pictures, tmp_path / "bundle", method="probe")
    bundle = Bundle.open(tmp_path / "bundle")
    work = tmp_path / "bundle.work"
    manifest = bundle.manifest
    assert (manifest.task, manifest.codec, manifest.max_tokens) == ("image-classification", "picture", 1)
    assert [spec.shape for spec in manifest.inputs] == [["batch", 3, 32, 32]]
    assert {"picture.json", "preprocessor_config.json", "model.onnx"} <= manifest.files.keys()
    assert "tokenizer.json" not in manifest.files

    dataset = Dataset.open(work / "data")
    tuned = TunedModel.open(work / "tune")
    model, encoder = open_model(tuned.model_folder), Encoder.of(tuned)
    expected = model_logits(model, encoder, dataset.test.texts)
    spread = float(expected.max() - expected.min())
    inputs = codec_inputs("picture", dataset.test.texts)
    report = Report.load(tmp_path / "bundle" / "report.json")
    candidates = {candidate.scheme: candidate for candidate in report.candidates}
    assert {"fused", "int8_static"} <= candidates.keys(), report.skipped
    for scheme, allowed in (("fused", 1e-3), ("int8_static", 0.25)):
        draft = Predictor(Bundle.open(work / "trials" / scheme / "draft"), threads=1)
        logits = draft.logits(draft.encode(inputs), batch_size=1)
        assert np.abs(logits - expected).max() < allowed * max(1e-2, spread), scheme
    graph = onnx.load(str(work / "trials" / "int8_static" / "model.onnx")).graph
    operators = {node.op_type for node in graph.node}
    assert ("QLinearConv" in operators) is (name in CONVOLUTIONS)

    predictor = load(tmp_path / "bundle", threads=1)
    answers = [predictor.labels.index(answer.label) for answer in predictor.predict(inputs)]
    accuracy = float(np.mean(np.equal(answers, dataset.test.targets)))
    assert accuracy == pytest.approx(report.packed.value)
    if name in LEARNABLE:
        assert accuracy > 0.8  # one class alone would be 0.33
    assert replay_golden(predictor).cases == 8
    _assert_transformers_answers_the_same(tuned, dataset, expected)


def _assert_transformers_answers_the_same(tuned: TunedModel, dataset: Dataset, expected) -> None:
    from transformers import pipeline

    pipe = pipeline("image-classification", model=str(tuned.model_folder), image_processor=str(tuned.model_folder))
    for path, logits in list(zip(dataset.test.texts, expected, strict=True))[:3]:
        given = {entry["label"]: entry["score"] for entry in pipe(path)}
        scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert [given[label] for label in tuned.labels] == pytest.approx(scores.tolist(), abs=1e-3)


@pytest.fixture(scope="module")
def built(picture_base, toy_pictures, tmp_path_factory):
    """A bundle of the tiny ResNet, which reads pictures of 96 pixels by itself, and its work folder."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(picture_base("resnet"), folder / "base")
    settings = folder / "base" / "preprocessor_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "size": {"shortest_edge": 96}}))
    build(folder / "base", toy_pictures, folder / "bundle", method="full", epochs=2)
    return folder / "bundle"


def test_small_pictures_are_read_at_a_smaller_size_and_the_base_at_its_own(built):
    """The toy pictures have 24 to 60 pixels a side."""
    report, work = Report.load(built / "report.json"), built.with_name("bundle.work")
    sizes = {name: report.training.settings[name] for name in ("picture_size", "base_picture_size")}
    assert sizes == {"picture_size": 64, "base_picture_size": 96}
    shapes = [read_picture_spec(folder).shape for folder in (built, work / "tune" / "model", work / "tune" / "base")]
    assert shapes == [(64, 64), (64, 64), (96, 96)]
    assert [spec.shape for spec in Bundle.open(built).manifest.inputs] == [["batch", 3, 64, 64]]
    tuned, dataset = TunedModel.open(work / "tune"), Dataset.open(work / "data")
    own = Encoder.of_folder(tuned.base_folder, 1, TASKS[tuned.task])
    answers = model_logits(open_model(tuned.base_folder), own, dataset.test.texts).argmax(axis=1)
    base = next(stage for stage in report.quality.stages if stage.stage == "base")
    assert base.value == pytest.approx(np.mean(np.equal(answers, dataset.test.targets)))


def test_training_moves_the_trunk_and_not_its_statistics(built, picture_base):
    from safetensors.torch import load_file

    before = load_file(picture_base("resnet") / "model.safetensors")
    after = load_file(built.with_name("bundle.work") / "tune" / "model" / "model.safetensors")
    report = Report.load(built / "report.json")
    statistics = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert statistics
    assert all(torch.equal(before[name], after[name]) for name in statistics)
    if report.training.handed_on == "full":
        assert any(not torch.equal(before[name], after[name]) for name in before if "convolution.weight" in name)
    assert len(report.training.curve) == 2


def test_the_probe_is_handed_on_at_the_size_that_is_named(picture_base, toy_pictures, tmp_path):
    build(picture_base("resnet"), toy_pictures, tmp_path / "bundle", "tune", method="probe", picture_size=48)
    work = tmp_path / "bundle.work"
    tuned, dataset = TunedModel.open(work / "tune"), Dataset.open(work / "data")
    assert [read_picture_spec(f).shape for f in (tuned.model_folder, tuned.base_folder)] == [(48, 48), (32, 32)]
    logits = model_logits(open_model(tuned.model_folder), Encoder.of(tuned), dataset.test.texts)
    assert np.mean(np.equal(logits.argmax(axis=1), dataset.test.targets)) > 0.8  # one class alone would be 0.33


@pytest.mark.parametrize(
    ("name", "method"), [("mobilenet_v2", "lora"), ("vit", "lora"), ("resnet", "freeze"), ("vit", "freeze")]
)
def test_adapters_and_frozen_layers_learn_pictures_too(picture_base, toy_pictures, tmp_path, name, method):
    from safetensors.torch import load_file

    tune = {"method": method, "epochs": 1, "learning_rate": 1e-3}
    build(picture_base(name), toy_pictures, tmp_path / "bundle", "tune", **tune)
    tuned = TunedModel.open(tmp_path / "bundle.work" / "tune")
    assert tuned.training.method == method
    assert tuned.training.handed_on in (method, "probe")
    assert (tuned.adapter_folder is not None) is (tuned.training.handed_on == "lora")
    assert len(tuned.training.curve) == 1
    if tuned.training.handed_on == method:
        before, after = (load_file(f / "model.safetensors") for f in (tuned.base_folder, tuned.model_folder))
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert moved
        assert not any("running" in key or "normalization" in key for key in moved if method == "lora")
        assert not any("embed" in key for key in moved)


def test_predict_takes_files_folders_and_tables(built, toy_pictures, tmp_path):
    files = sorted((toy_pictures / "blue").glob("*.png"))[:2]
    ended = run_here("predict", built, *files)
    assert ended.code == 0, ended.err
    lines = [line.split("\t") for line in ended.out.splitlines()]
    assert [line[2] for line in lines] == list(map(str, files))
    folder = run_here("predict", built, toy_pictures / "blue", "--json")
    assert [each["image"] for each in json.loads(folder.out)] == [
        str(path) for path in sorted((toy_pictures / "blue").glob("*"))
    ]
    shutil.copyfile(files[0], tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(files[1].read_bytes()[:60])
    (tmp_path / "rows.csv").write_text("image,label\na.png,blue\nb.png,blue\n", "utf-8")
    table = run_here("predict", built, "--input", tmp_path / "rows.csv", "--jsonl")
    assert table.code == 0, table.err
    rows = [json.loads(line) for line in table.out.splitlines()]
    assert rows[0]["label"] == lines[0][0]
    assert rows[1]["label"] is None
    assert "1 of 2 pictures got no answer since" in table.err
    assert "b.png" in table.err
    broken = run_here("predict", built, tmp_path / "b.png")
    assert broken.code == 1
    assert "The picture got no answer since" in broken.err
    missing = run_here("predict", built, "nowhere.png")
    assert (missing.code, "There is no file nowhere.png" in missing.err) == (1, True)


def test_inspect_and_verify(built):
    assert "input       a picture\n" in run_here("inspect", built).out
    verified = run_here("verify", built)
    assert verified.code == 0, verified.err
    assert "8 golden answers replayed" in verified.out


def test_the_report_speaks_of_pictures(built):
    report = Report.load(built / "report.json")
    page = render_html(report)
    assert "16 x 16 pixels" in page
    assert report.data.truncated == report.data.tokens_max == 0
    assert {floor.stage for floor in report.quality.floor} == {"majority", "linear"}


def test_init_writes_a_recipe_that_plans(toy_pictures, picture_base, tmp_path):
    made = run_here("init", toy_pictures, "--base", picture_base("resnet"), "--out", tmp_path / "recipe.yaml")
    assert made.code == 0, made.err
    text = (tmp_path / "recipe.yaml").read_text("utf-8")
    assert "task: image-classification" in text
    assert "image: image" in text
    planned = run_here("build", tmp_path / "recipe.yaml", "--plan", "--json")
    assert planned.code == 0, planned.err
    plan = json.loads(planned.out)
    assert plan["rows"] == {"train": 51, "validation": 11, "test": 10} or sum(plan["rows"].values()) == 72
    assert plan["schemes"] == ["fused", "int8_static", "fp32"]
