"""Whole builds of several labels, numbers and pairs: what the report says is what the bundle answers.

One build a task; every figure is computed again from the bundle's answers to the saved test part.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from scipy import stats
from sklearn import metrics

from edgetune.benchmarks.report import charts
from edgetune.benchmarks.report.html import render_html
from edgetune.benchmarks.timing.side import ContestantProcess, Side
from edgetune.compress.schemes import int8_dynamic
from edgetune.once.table import figure_rows
from edgetune.serve.bundle import Bundle
from edgetune.serve.loading import load
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import Report
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.multi_label import FEWEST_ROWS
from tests.conftest import KEYWORDS, TINY_BASES, toy_sentences
from tests.untimed import build_untimed

pytestmark = pytest.mark.slow  # whole builds

SHIFT = 50.0  # what the spoiled candidate adds to every number

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A toy data set, how its file is written, and the schemes that are tried."""

    rows: Callable[[], list[Row]]
    suffix: str
    schemes: tuple[str, ...]


@dataclass(frozen=True)
class SiblingBuild:
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
    def tuned(self) -> TunedModel:
        return TunedModel.open(self.work / "tune")

    @property
    def predictor(self) -> Predictor:
        return load(self.bundle)


def several_labels() -> list[Row]:
    """160 texts with none to four labels, each told by a key word of its own."""
    draw, rows = random.Random(1), []
    for number in range(160):
        labels = [label for label in KEYWORDS if draw.random() < 0.35]
        words = [f"w{number}", *(draw.choice(KEYWORDS[label]) for label in labels)]
        rows.append({"text": " ".join(words), "labels": labels})
    return rows


def numbers() -> list[Row]:
    """Some two thousand and half a hundred more for each key word: far from what standardized targets are."""
    draw = random.Random(2)
    return [
        {"text": row["text"], "score": f"{2000 + 50 * len(row['labels']) + draw.random():.2f}"}
        for row in several_labels()
    ]


def pairs() -> list[tuple[str, str, bool]]:
    draw, sentences = random.Random(3), toy_sentences()
    drawn = {}
    for number in range(150):
        first, second = draw.choice(sentences), draw.choice(sentences)
        if number % 2:
            second = draw.choice([one for one in sentences if one[1] == first[1]])
        drawn[first[0], second[0]] = first[1] == second[1]
    return [(first, second, same) for (first, second), same in drawn.items()]


def same_or_not() -> list[Row]:
    return [{"sentence1": a, "sentence2": b, "label": "same" if same else "different"} for a, b, same in pairs()]


def shared_words() -> list[Row]:
    """How many words two texts share, by tenths of those that they have."""
    sets = [(a, b, set(a.split()), set(b.split())) for a, b, _ in pairs()]
    return [
        {"premise": a, "hypothesis": b, "score": round(10 * len(one & two) / len(one | two), 2)}
        for a, b, one, two in sets
    ]


SIBLINGS = {
    "multi-label-classification": Task(several_labels, "jsonl", ("fused",)),
    "text-regression": Task(numbers, "csv", ("fused", "int8_dynamic")),
    "text-pair-classification": Task(same_or_not, "csv", ("fused",)),
    "text-pair-regression": Task(shared_words, "jsonl", ("fused", "trimmed")),
}


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def spoil(graph: Path, target: Path, material: Any) -> str:
    """A candidate whose every output is too large."""
    model = onnx.load(graph)
    nodes = model.graph.node
    last = next(node for node in nodes if "logits" in node.output)
    last.output[list(last.output).index("logits")] = "right"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([SHIFT]), "shift"))
    nodes.append(onnx.helper.make_node("Add", ["right", "shift"], ["logits"]))
    onnx.save(model, target)
    return "spoiled"


def write_data(folder: Path) -> None:
    for name, task in SIBLINGS.items():
        write_rows(folder / f"{name}.{task.suffix}", task.rows())


def recipe_values(name: str, base: Path, data: Path, out: Path) -> dict[str, Any]:
    return {
        "base": str(base),
        "data": {"path": str(data / f"{name}.{SIBLINGS[name].suffix}")},
        "tune": {"method": "probe", "precision": "fp32"},
        "compress": {"schemes": list(SIBLINGS[name].schemes)},
        "benchmark": {"samples": 40, "grid": False, "cold_starts": 1},
        "device": "cpu",
        "out": str(out / "bundle"),
    }


def build_sibling(name: str, base: Path, data: Path, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_dynamic, "compress", spoil)
        built = build_untimed(recipe_values(name, base, data, folder))
    assert built.bundle is not None


ORIGINS = {"data": write_data, "base": TINY_BASES["bert"]}  # for all workers the same, as a second build needs them


@pytest.fixture(scope="session")
def sibling(shared_folder: Callable[..., Path]) -> Callable[[str], SiblingBuild]:
    """`sibling("text-regression")` is a whole build of that task, made once for all workers; not to be changed."""

    def made(name: str) -> SiblingBuild:
        data, base = (shared_folder(f"sibling-{part}", write) for part, write in ORIGINS.items())
        folder = shared_folder(f"sibling-{name}", partial(build_sibling, name, base, data))
        return SiblingBuild(folder / "bundle", folder / "bundle.work")

    return made


def figures(build: SiblingBuild) -> tuple[dict[str, float], dict[str, float]]:
    """The figures of the packed candidate on the test part, and of the tuned model."""
    quality = build.report.quality
    stages = {stage.stage: {quality.metric: stage.value, **stage.metrics} for stage in quality.stages}
    return stages[build.report.chosen], stages["tuned"]


def answers(build: SiblingBuild) -> list[Any]:
    """What the bundle answers to the inputs of the test part."""
    return build.predictor.predict(build.dataset.test.texts)


@pytest.mark.parametrize("name", SIBLINGS)
def test_the_task_is_recognised_and_the_bundle_says_it(sibling, name):
    build = sibling(name)  # the recipe named none
    manifest = Bundle.open(build.bundle).manifest
    assert manifest.task == build.report.task == build.tuned.task == name
    assert manifest.codec == build.tuned.codec


@pytest.mark.parametrize("name", SIBLINGS)
def test_the_golden_answers_replay(sibling, edgetune, name):
    build = sibling(name)
    ended = edgetune("verify", build.bundle)
    assert ended.code == 0, ended.err
    assert "8 golden answers replayed" in ended.out


def test_the_figures_of_labels_are_those_of_the_answers(sibling):
    build = sibling("multi-label-classification")
    test, labels = build.dataset.test, build.dataset.labels
    expected = np.array([[place in target for place in range(len(labels))] for target in test.targets])
    given = np.array([[label in answer.labels for label in labels] for answer in answers(build)])
    packed, _ = figures(build)
    there = expected.any(axis=0)
    assert labels == tuple(sorted(KEYWORDS))
    assert there.all()
    assert packed == {
        "micro_f1": pytest.approx(metrics.f1_score(expected, given, average="micro")),
        "macro_f1": pytest.approx(metrics.f1_score(expected, given, average="macro", zero_division=0)),
        "subset_accuracy": pytest.approx(metrics.accuracy_score(expected, given)),
    }
    by_label = {entry.label: entry.f1 for entry in build.report.quality.classes}
    f1 = metrics.f1_score(expected, given, average=None, zero_division=0)
    assert by_label == pytest.approx(dict(zip(labels, f1, strict=True)))


def test_thresholds_give_the_best_f1_on_the_validation_part(sibling):
    build = sibling("multi-label-classification")
    validation, tuned = build.dataset.validation, build.tuned
    (head,) = Bundle.open(build.bundle).manifest.answer_heads
    probabilities = 1 / (1 + np.exp(-tuned.held_out_logits().astype(np.float64)))  # of heads without the row
    expected = TASKS[tuned.task].objective(head.labels, "", validation.targets).expected(validation.targets)
    chosen = 0
    for place, threshold in enumerate(head.thresholds):
        truth, values = expected[:, place], probabilities[:, place]
        if truth.sum() < FEWEST_ROWS:
            assert threshold == 0.5
            continue
        chosen += 1
        best = max(metrics.f1_score(truth, values >= cut) for cut in values)
        assert metrics.f1_score(truth, values >= threshold) == pytest.approx(best)
    assert chosen


def check_numbers(build: SiblingBuild) -> None:
    expected = np.array(build.dataset.test.targets)
    given = np.array([answer.value for answer in answers(build)])
    packed, _ = figures(build)
    assert packed == {
        "mae": pytest.approx(metrics.mean_absolute_error(expected, given), rel=1e-4),
        "rmse": pytest.approx(metrics.root_mean_squared_error(expected, given), rel=1e-4),
        "spearman": pytest.approx(stats.spearmanr(expected, given).statistic, abs=0.02),
        "r2": pytest.approx(metrics.r2_score(expected, given), abs=1e-3),
    }
    assert build.report.quality.classes == []
    assert build.report.quality.confusions == []


def test_the_figures_of_numbers_are_those_of_the_answers(sibling):
    check_numbers(sibling("text-regression"))
    check_numbers(sibling("text-pair-regression"))


def test_numbers_are_answered_in_the_units_of_the_data(sibling):
    build = sibling("text-regression")
    given = [answer.value for answer in answers(build)]
    assert all(1500 < value < 2700 for value in given)
    assert np.ptp(given) > 1


def test_a_rise_of_the_error_is_rejected(sibling):
    build = sibling("text-regression")
    assert build.report.chosen == "fused"
    spoiled = next(entry for entry in build.report.candidates if entry.scheme == "int8_dynamic")
    fused = next(entry for entry in build.report.candidates if entry.scheme == "fused")
    assert (spoiled.gate, spoiled.accepted, spoiled.stopped_at) == ("fail", False, "quality")
    assert spoiled.value > fused.value
    assert spoiled.drop == pytest.approx(spoiled.value / fused.value - 1, rel=1e-4)
    assert spoiled.drop_interval[0] > build.report.gate["max_rise"] == 0.02
    assert "max_drop" not in build.report.gate
    assert "rise +" in spoiled.reason
    assert "points" not in spoiled.reason


def test_the_figures_of_a_pairs_labels_are_those_of_the_answers(sibling):
    build = sibling("text-pair-classification")
    labels = build.dataset.labels
    expected = [labels[target] for target in build.dataset.test.targets]
    given = [answer.label for answer in answers(build)]
    packed, tuned = figures(build)
    assert packed == {
        "accuracy": pytest.approx(metrics.accuracy_score(expected, given)),
        "macro_f1": pytest.approx(metrics.f1_score(expected, given, average="macro", zero_division=0)),
        "balanced_accuracy": pytest.approx(metrics.balanced_accuracy_score(expected, given)),
    }
    assert packed == tuned  # the fused graph turns no answer


@pytest.mark.parametrize("name", ["text-pair-classification", "text-pair-regression"])
def test_pairs_are_encoded_as_the_bases_tokenizer_does(sibling, name):
    from transformers import AutoTokenizer

    build = sibling(name)
    predictor, given = build.predictor, [*build.dataset.test.texts, ("card " * 90, "pin " * 90), ("card", "pin " * 200)]
    # The packed model's own: a trimmed one has other numbers for the same tokens.
    tokenizer = AutoTokenizer.from_pretrained(build.bundle)
    first, second = ([pair[side] for pair in given] for side in (0, 1))
    expected = tokenizer(first, second, truncation=True, max_length=build.tuned.max_tokens)
    encoded = predictor.encode(given)
    assert [row.ids for row in encoded] == expected["input_ids"]
    assert [row.type_ids for row in encoded] == expected["token_type_ids"]
    assert {kind for row in encoded for kind in row.type_ids} == {0, 1}
    assert [row.truncated for row in encoded[-2:]] == [True, True]
    assert "token_type_ids" in [spec.name for spec in Bundle.open(build.bundle).manifest.inputs]


def test_a_trimmed_vocabulary_keeps_the_tokens_of_both_texts(sibling):
    build = sibling("text-pair-regression")
    assert build.report.chosen == "trimmed+fused"
    predictor, tuned, given = build.predictor, build.tuned, build.dataset.train.texts[:40]
    expected = model_logits(open_model(tuned.model_folder), Encoder.of(tuned), given)
    assert predictor.logits(predictor.encode(given)) == pytest.approx(expected, abs=1e-3)


def test_the_base_is_timed_on_pairs_as_it_was_tuned(sibling):
    build = sibling("text-pair-classification")
    pair = build.dataset.test.texts[0]
    side = Side("base", build.tuned.base_folder, threads=1, tuned=build.tuned.folder)
    with ContestantProcess(side, pair) as process:
        timed = process.ask("latency", texts=list(build.dataset.test.texts[:8]))
    given = build.predictor.predict(build.dataset.test.texts[:8])  # of the fused graph of the same head
    assert timed["answers"] == [answer.label for answer in given]


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        (
            "multi-label-classification",
            ["micro f1", "macro f1", "subset accuracy", "Quality by class", "rarest label"],
            ["Most frequent confusions"],
        ),
        (
            "text-regression",
            ["MAE", "RMSE", "Spearman", "R2", "rise", "max rise 2%", "tenths of the numbers", "in batches of 32"],
            ["Quality by class", "confusions", "same answer", "points", "drop", "labels", "by class"],
        ),
        (
            "text-pair-classification",
            ["accuracy", "macro f1", "balanced accuracy", "Quality by class", "Most frequent confusions", " | "],
            ["rise"],
        ),
    ],
)
def test_the_page_speaks_of_the_task_in_its_own_terms(sibling, name, there, absent):
    report = sibling(name).report
    page = render_html(report)
    body = page[page.index("</style>") :]
    assert [words for words in there if words not in body] == []
    assert [words for words in absent if words in body] == []


def test_the_table_has_every_figure_of_the_task(sibling):
    def first_cells(name: str) -> list[str]:
        return [row[0] for row in figure_rows(sibling(name).report) if row[0].strip() != "95% interval"]

    assert first_cells("multi-label-classification")[:3] == ["micro f1", "macro f1", "subset accuracy"]
    assert first_cells("text-pair-regression")[:4] == ["MAE", "RMSE", "Spearman", "R2"]
    packed, _ = figures(sibling("text-pair-regression"))
    cells = {row[0]: row[2] for row in figure_rows(sibling("text-pair-regression").report)}
    dataset = sibling("text-pair-regression").dataset
    constant = metrics.mean_squared_error(
        dataset.test.targets, np.full(len(dataset.test), np.mean(dataset.train.targets))
    )
    assert cells["RMSE"] == f"{charts.score(packed['rmse'], 'rmse')} (constant {charts.score(constant**0.5, 'rmse')})"


@pytest.mark.parametrize("name", ["multi-label-classification", "text-pair-regression"])
def test_a_second_build_runs_nothing_again(sibling, shared_folder, tmp_path, name):
    folder = tmp_path / "again"
    shutil.copytree(sibling(name).bundle.parent, folder, copy_function=shutil.copy2)

    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (folder / "bundle.work").glob("*/*")}

    before = written()
    data, base = (shared_folder(f"sibling-{part}", write) for part, write in ORIGINS.items())
    build_untimed(recipe_values(name, base, data, folder), until="bench")
    assert written() == before


def test_predict_takes_the_columns_that_the_build_guessed(sibling, edgetune, tmp_path):
    build = sibling("text-pair-classification")
    path = write_rows(tmp_path / "pairs.csv", same_or_not()[:3])
    ended = edgetune("predict", build.bundle, "--input", path, "--json")
    assert ended.code == 0, ended.err
    answered = json.loads(ended.out)
    assert [(row["text"], row["text_pair"]) for row in answered] == [(a, b) for a, b, _ in pairs()[:3]]
    expected = [answer.label for answer in build.predictor.predict([(a, b) for a, b, _ in pairs()[:3]])]
    assert [row["label"] for row in answered] == expected
