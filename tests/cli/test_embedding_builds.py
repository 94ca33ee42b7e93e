"""Whole builds of embeddings from each kind of record: what the report says is what the bundle answers."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgetune.benchmarks.report.html import render_html
from edgetune.compress.material import Material
from edgetune.compress.schemes import linear, pruned, static, student
from edgetune.export.layouts import write_layout
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import WorkError
from edgetune.serve.golden import replay_golden
from edgetune.serve.loading import load
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import Report
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.progress import Silent
from tests.cli.here import Ended, run_here
from tests.conftest import KEYWORDS, toy_sentences
from tests.untimed import build_untimed

pytestmark = pytest.mark.slow  # whole builds

Row = dict[str, str]


def pairs() -> list[Row]:
    """60 pairs that share a number of their own, and a key word each."""
    draw, words = random.Random(1), sorted(word for words in KEYWORDS.values() for word in words)
    return [
        {"anchor": f"w{number} {draw.choice(words)}", "positive": f"{draw.choice(words)} w{number}"}
        for number in range(60)
    ]


def triplets() -> list[Row]:
    return [{**row, "negative": f"{row['positive'].split()[0]} v{place}"} for place, row in enumerate(pairs())]


def scored() -> list[Row]:
    draw, rows = random.Random(2), pairs()
    others = draw.sample(rows, len(rows))
    near = [{"sentence1": row["anchor"], "sentence2": row["positive"], "score": "0.9"} for row in rows]
    far = [
        {"sentence1": row["anchor"], "sentence2": other["positive"], "score": "0.1"}
        for row, other in zip(rows, others, strict=True)
        if row is not other
    ]
    return near + far


def labelled() -> list[Row]:
    return [{"text": text, "label": label} for text, label in toy_sentences()]


@dataclass(frozen=True)
class EmbeddingBuild:
    """A finished build: bundle, and its work folder."""

    bundle: Path
    work: Path

    @property
    def report(self) -> Report:
        return Report.load(self.bundle / "report.json")

    @property
    def dataset(self) -> Dataset:
        return Dataset.open(self.work / "data")

    @property
    def predictor(self) -> Predictor:
        return load(self.bundle)


RECORDS: dict[str, Callable[[], Sequence[Row]]] = {
    "pairs": pairs,
    "triplets": triplets,
    "scores": scored,
    "labels": labelled,
}
EXTRA = {"pairs": {"tune": {"method": "full", "epochs": 1, "dimensions": [8]}}}


def _built(folder: Path, base: Path, kind: str) -> EmbeddingBuild:
    rows = RECORDS[kind]()
    data = folder / "rows.csv"
    with data.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    values = {
        "base": str(base),
        "task": "feature-extraction",
        "data": {"path": str(data), "prompts": {"query": "w1 ", "document": "w2 "} if kind == "triplets" else None},
        "tune": {"method": "lora" if kind == "triplets" else "layers", "epochs": 1},
        "compress": {"schemes": ["fused", "int8_dynamic"]},
        "gate": {"max_drop": 0.5},
        "out": str(folder / "bundle"),
        **EXTRA.get(kind, {}),
    }
    build_untimed(values)
    return EmbeddingBuild(folder / "bundle", folder / "bundle.work")


@pytest.fixture(scope="session")
def embedding_build(
    tiny_base: Callable[[str], Path], shared_folder: Callable[..., Path]
) -> Callable[[str], EmbeddingBuild]:
    def build(kind: str) -> EmbeddingBuild:
        folder = shared_folder(f"embedding-{kind}", partial(_into, tiny_base("bert"), kind))
        return EmbeddingBuild(folder / "bundle", folder / "bundle.work")

    return build


def _into(base: Path, kind: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    _built(folder, base, kind)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.long if kind in ("triplets", "scores") else ()) for kind in RECORDS]
)
def test_the_report_says_what_the_bundle_answers(embedding_build: Callable[[str], EmbeddingBuild], kind: str) -> None:
    build = embedding_build(kind)
    report, dataset, predictor = build.report, build.dataset, build.predictor
    objective = TASKS["feature-extraction"].objective(dataset.labels, "", dataset.train.targets)
    expected = objective.expected(dataset.test.targets)
    vectors = predictor.embed(list(dataset.test.texts), batch_size=1)
    metric = "spearman" if kind == "scores" else "mrr_at_10"
    packed = report.stage(report.chosen)
    assert packed is not None
    assert (report.task, report.quality.metric, objective.metric.name) == ("feature-extraction", metric, metric)
    assert packed.value == pytest.approx(objective.metric.of(expected, vectors), abs=1e-9)
    recalls = set() if kind == "scores" else {"recall_at_1", "recall_at_5", "recall_at_10"}
    shorter = {"mrr_at_10_of_8_numbers"} if kind == "pairs" else set()
    assert set(packed.metrics) == recalls | shorter
    if shorter:
        short = predictor.embed(list(dataset.test.texts), batch_size=1, dimensions=8)
        assert packed.metrics["mrr_at_10_of_8_numbers"] == pytest.approx(objective.metric.of(expected, short), abs=1e-9)
        judged = next(one for one in report.candidates if one.scheme == report.chosen)
        assert judged.second is not None
        assert judged.second.metric == "mrr_at_10_of_8_numbers"
    assert [entry.stage for entry in report.quality.floor] == ["majority", "linear"]
    assert "one vector to all rows" in report.quality.floor[0].described
    assert report.quality.floor[1].described.startswith("TF-IDF of ")
    assert packed.agreement is not None
    assert packed.agreement > 0.99
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert replay_golden(predictor).cases > 0
    assert report.quality.metric.split("_")[0].upper()[:3] in render_html(report).upper()


def test_the_manifest_says_what_callers_may_ask(embedding_build: Callable[[str], EmbeddingBuild]) -> None:
    build = embedding_build("pairs")
    manifest = build.predictor.bundle.manifest
    (head,) = manifest.heads
    assert (head.kind, head.lengths, head.prompts, head.labels) == ("embedding", [8], {}, [])
    assert manifest.outputs[0].shape == ["batch", head.width]
    assert (manifest.columns, manifest.labels) == ([], [])
    assert build.predictor.embed(["w1"], dimensions=8).shape == (1, 8)
    config = json.loads((build.bundle / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["BertModel"]
    assert embedding_build("triplets").predictor.bundle.manifest.heads[0].prompts == {"query": "w1 ", "document": "w2 "}
    assert embedding_build("labels").predictor.bundle.manifest.columns == ["text"]


def test_the_graph_has_no_head(embedding_build: Callable[[str], EmbeddingBuild]) -> None:
    """The last layer norm, the pooling and the scaling: no product behind them."""
    build = embedding_build("pairs")
    weights = load_file(build.work / "tune" / "model" / "model.safetensors")
    assert all(name.startswith("trunk.") for name in weights)
    model = TunedModel.open(build.work / "tune")
    assert model.head.width == build.predictor.head.width


def test_predict_writes_a_row_a_text(
    embedding_build: Callable[[str], EmbeddingBuild], tmp_path: Path, run: Callable[..., Ended]
) -> None:
    build = embedding_build("triplets")
    file = tmp_path / "vectors.npy"
    ended = run("predict", build.bundle, "card", "lost", "--prompt", "query", "--output", file)
    assert ended.code == 0
    assert "2 vectors of" in ended.err
    vectors = np.load(file)
    assert np.allclose(vectors, build.predictor.embed(["card", "lost"], prompt="query"))
    refused = run("predict", build.bundle, "card", " ", "--output", tmp_path / "none.npy")
    assert refused.code == 1
    assert "Text 2 is blank or broken" in refused.err
    assert not (tmp_path / "none.npy").exists()
    assert "no prompt 'x'" in run("predict", build.bundle, "card", "--prompt", "x").err
    (row,) = json.loads(run("predict", build.bundle, "card", "--json").out)
    assert np.allclose(row["embedding"], build.predictor.embed(["card"])[0])


def test_sentence_transformers_opens_the_tuned_model(
    embedding_build: Callable[[str], EmbeddingBuild], tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    build = embedding_build("triplets")
    out = tmp_path / "st"
    files = write_layout(Bundle.open(build.bundle), "sentence-transformers", out)
    assert {"modules.json", "1_Pooling/config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    model = sentence_transformers.SentenceTransformer(str(out), device="cpu")
    texts = list(build.dataset.test.texts)
    folder = build.work / "tune" / "model"
    expected = model_logits(open_model(folder), Encoder.of(TunedModel.open(build.work / "tune")), texts)
    assert np.allclose(model.encode(texts), expected, atol=1e-5)
    assert model.prompts["query"] == "w1 "


def test_a_folder_without_its_work_is_told(embedding_build: Callable[[str], EmbeddingBuild], tmp_path: Path) -> None:
    shutil.copytree(embedding_build("pairs").bundle, tmp_path / "alone")
    with pytest.raises(WorkError, match="holds no merged model"):
        write_layout(Bundle.open(tmp_path / "alone"), "sentence-transformers", tmp_path / "out")


@pytest.fixture
def run() -> Callable[..., Ended]:
    return run_here


def test_a_student_learns_vectors_and_tables_do_not(
    embedding_build: Callable[[str], EmbeddingBuild], tmp_path: Path
) -> None:
    build = embedding_build("labels")
    tuned, dataset = TunedModel.open(build.work / "tune"), build.dataset
    material = Material(tuned, dataset.train, dataset.validation, (), "cpu", "cpu", 0, Silent())
    assert student.compress(material, tmp_path / "student", 1).startswith("1 of 2 layers")
    made = open_model(tmp_path / "student" / "model")
    vectors = model_logits(made, material.encoder, dataset.test.texts)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert made.config.num_hidden_layers == 1
    for scheme in (linear, pruned, static):
        assert "vectors" in scheme.unsuitable(material)
