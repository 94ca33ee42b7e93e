"""Whole builds whose answers may be unsure: what the report says is what the bundle answers, and what is refused.

One work folder: another `answer` section, or other texts out of scope, run the bench stage again and nothing before it.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from edgetune.benchmarks.report.html import render_html
from edgetune.once.table import print_report
from edgetune.recipe import read_recipe
from edgetune.serve.bundle import MANIFEST_NAME, Bundle
from edgetune.serve.errors import DataError, GateError, RecipeError
from edgetune.serve.loading import load
from edgetune.serve.report import Report
from edgetune.tune.data.dataset import Dataset
from tests.conftest import KEYWORDS, TINY_BASES
from tests.untimed import build_untimed

WORDS = "i can not see why my the a was is it please help today again since yesterday where how do you think".split()


def labelled_rows() -> list[tuple[str, str]]:
    """600 texts with two key words of their label; in every third, one is of another label, so that nothing tells."""
    draw, rows = random.Random(4), []
    for number in range(600):
        label, other = draw.sample(sorted(KEYWORDS), 2)
        told = [label, other if number % 3 == 0 else label]
        words = [draw.choice(KEYWORDS[name]) for name in draw.sample(told, 2)]
        rows.append((" ".join([*draw.choices(WORDS, k=2), *words]), label))
    return rows


@dataclass(frozen=True)
class Workplace:
    """A folder of data and a base, in which one bundle is built again and again."""

    folder: Path
    values: dict[str, Any]

    @property
    def work(self) -> Path:
        return self.folder / "bundle.work"

    def build(self, **answer: Any) -> Bundle:
        built = build_untimed({**self.values, **{f"answer.{key}": value for key, value in answer.items()}})
        assert built.bundle is not None
        return built.bundle

    def with_texts_out_of_scope(self, count: int = 60) -> Workplace:
        draw, path = random.Random(9), self.folder / f"outside-{count}.txt"
        path.write_text("".join(f"{' '.join(draw.choices(WORDS, k=6))} x{n}\n" for n in range(count)), "utf-8")
        return Workplace(self.folder, {**self.values, "data.out_of_scope": str(path)})


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("confidence")
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *labelled_rows()])
    values = {
        "base": str(TINY_BASES["bert"](folder / "base")),
        "data.path": str(folder / "rows.csv"),
        "data.split": [0.3, 0.35, 0.35],
        "tune.method": "probe",
        "compress.schemes": ["fused"],
        "out": str(folder / "bundle"),
    }
    return Workplace(folder, values)


def answers_to_test(workplace: Workplace) -> tuple[list[Any], np.ndarray[Any, Any], list[str]]:
    """Predictions of the bundle for the test part one at a time, logits (rows, labels), and the right labels."""
    dataset, predictor = Dataset.open(workplace.work / "data"), load(workplace.folder / "bundle", threads=1)
    texts = dataset.test.texts
    predictions = [predictor.predict_one(text) for text in texts]
    logits = predictor.logits(predictor.encode(texts), batch_size=1)
    return predictions, logits, [dataset.labels[place] for place in dataset.test.targets]


def report_of(bundle: Bundle) -> Report:
    return Report.load(bundle.folder / "report.json")


def test_probabilities_are_calibrated_and_nothing_is_unsure_by_default(workplace):
    bundle = workplace.build()
    calibration, abstention = report_of(bundle).calibration, report_of(bundle).abstention
    (head,) = bundle.manifest.answer_heads
    assert (head.temperature, head.abstain_below) == (calibration.temperature, None)
    predictions, logits, right = answers_to_test(workplace)
    places = [bundle.manifest.labels.index(label) for label in right]
    rows = np.arange(len(places))
    for figures, temperature in ((calibration.before, 1.0), (calibration.after, head.temperature)):
        losses = -log_softmax(logits.astype(np.float64) / temperature, axis=1)[rows, places]
        assert figures.nll == pytest.approx(losses.mean(), rel=1e-5)
    squares = [
        sum((p.scores[label] - (label == truth)) ** 2 for label in p.scores)
        for p, truth in zip(predictions, right, strict=True)
    ]
    assert calibration.after.brier == pytest.approx(np.mean(squares), rel=1e-4)
    assert calibration.n == len(right) == sum(one.n for one in calibration.bins)
    wrong = sum(p.label != truth for p, truth in zip(predictions, right, strict=True))
    assert wrong > 0
    assert (abstention.abstain_below, abstention.chosen_by, abstention.met) == (None, "", True)
    assert (abstention.test.answered, abstention.test.wrong) == (len(right), wrong)
    assert abstention.curve[-1].coverage == 1
    assert abstention.curve[-1].error == pytest.approx(wrong / len(right))
    assert not any(prediction.unsure for prediction in predictions)


def test_calibration_can_be_left_out(workplace):
    bundle = workplace.build(calibrate=False)
    calibration = report_of(bundle).calibration
    assert bundle.manifest.heads == []
    assert (calibration.temperature, calibration.before) == (1.0, calibration.after)
    assert "answer.calibrate is off" in calibration.remark


def test_answers_below_a_probability_are_unsure(workplace):
    workplace.build()
    scores = sorted(prediction.score for prediction in answers_to_test(workplace)[0])
    below = round(scores[len(scores) // 3], 3)
    tuned = (workplace.work / "tune").stat().st_mtime_ns
    bundle = workplace.build(abstain_below=below)
    assert (workplace.work / "tune").stat().st_mtime_ns == tuned
    (head,) = bundle.manifest.answer_heads
    assert head.abstain_below == below
    report, (predictions, _, right) = report_of(bundle), answers_to_test(workplace)
    answered = [(p, truth) for p, truth in zip(predictions, right, strict=True) if not p.unsure]
    assert 0 < len(answered) < len(right)
    test = report.abstention.test
    assert (test.answered, test.wrong) == (len(answered), sum(p.label != truth for p, truth in answered))
    assert test.coverage == pytest.approx(len(answered) / len(right))
    assert report.quality.stages[-1].value == pytest.approx(
        np.mean([p.label == truth for p, truth in zip(predictions, right, strict=True)])
    )  # the gate judges all answers, unsure ones too
    page = render_html(report)
    assert f"Unsure below {below:.4g}" in page
    assert "Wrong answers against rows answered" in page


def test_the_terminal_says_what_is_answered(workplace, capsys):
    from rich.console import Console

    bundle = workplace.build(abstain_below=0.5)
    print_report(report_of(bundle), "bundle", "page", Console(width=400))
    told = " ".join(capsys.readouterr().out.split())
    assert "Calibration: probabilities lie" in told
    assert "Unsure below 0.5:" in told


def test_wrong_answers_stay_within_a_share(workplace):
    curve = report_of(workplace.build()).abstention.curve
    most = next(point for point in curve if point.coverage > 0.6)
    limit = round(most.error + 0.15, 2)  # far above what the surer half shows: not by a hair
    bundle = workplace.build(max_error=limit)
    abstention, (predictions, _, _) = report_of(bundle).abstention, answers_to_test(workplace)
    (head,) = bundle.manifest.answer_heads
    assert (abstention.chosen_by, abstention.max_error, abstention.met) == ("max_error", limit, True)
    assert head.abstain_below == abstention.abstain_below
    assert f"At most {limit:g} of the answers are wrong with 0.95 confidence" in abstention.remark
    # Three quarters of the validation rows chose it; the others fitted the temperature.
    rows = len(Dataset.open(workplace.work / "data").validation)
    assert abstention.validation.n == rows - round(rows / 4)
    assert report_of(bundle).calibration.fitted_rows == round(rows / 4)
    assert abstention.validation.error < limit
    assert sum(not prediction.unsure for prediction in predictions) == abstention.test.answered > 0


def test_a_share_that_cannot_be_shown_fails_the_gate(workplace):
    before = (workplace.build() and workplace.folder / "bundle" / MANIFEST_NAME).read_bytes()
    with pytest.raises(
        GateError, match=r"answer\.max_error is not met\. No threshold keeps wrong answers within 0\.001"
    ):
        workplace.build(max_error=0.001)
    assert (workplace.folder / "bundle" / MANIFEST_NAME).read_bytes() == before  # the old bundle stays
    report = Report.load(workplace.work / "report.json")
    assert (report.abstention.met, report.abstention.abstain_below) == (False, None)
    page = (workplace.work / "report.html").read_text("utf-8")
    assert "answer.max_error is not met." in page
    assert "takes at least 2,995 validation rows" in page


def test_texts_out_of_scope_choose_a_threshold_and_are_reported(workplace):
    inside = workplace.build()
    tuned = (workplace.work / "tune").stat().st_mtime_ns
    outside = workplace.with_texts_out_of_scope()
    bundle = outside.build()
    assert (workplace.work / "tune").stat().st_mtime_ns == tuned
    assert bundle.manifest.data_digest == inside.manifest.data_digest
    abstention = report_of(bundle).abstention
    (head,) = bundle.manifest.answer_heads
    assert (abstention.chosen_by, abstention.abstain_below) == ("out_of_scope", head.abstain_below)
    told = abstention.out_of_scope
    assert (told.chosen_on, told.n) == (30, 30)
    _, reporting = Dataset.open(workplace.work / "data").out_of_scope.halves(0)
    unsure = [answer.unsure for answer in map(load(bundle.folder, threads=1).predict_one, reporting)]
    assert told.unsure == pytest.approx(np.mean(unsure))
    assert 0.5 < told.auroc <= 1
    given = report_of(outside.build(abstain_below=0.4)).abstention
    assert (given.chosen_by, given.out_of_scope.chosen_on, given.out_of_scope.n) == ("abstain_below", 0, 30)


def test_few_texts_out_of_scope_are_refused(workplace):
    with pytest.raises(DataError, match="19 out-of-scope rows"):
        workplace.with_texts_out_of_scope(19).build()


def refused(values: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as error:
        read_recipe(None, {"base": "b", "data.path": "d.csv", **values})
    return str(error.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"answer.abstain_below": 0.5, "answer.max_error": 0.1}, "both abstain_below (0.5) and max_error (0.1)"),
        ({"answer.abstain_below": 1.5}, "less than 1"),
        ({"answer.max_error": 0}, "greater than 0"),
    ],
)
def test_rules_that_contradict_themselves(values, words):
    assert words in refused({"task": "text-classification", **values})


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("text-regression", "text-regression answers with a number, which has no probability"),
        ("text-pair-regression", "answers with a number, which has no probability"),
        ("multi-label-classification", "gives each label by a threshold of its own"),
        ("text-generation", "a language model's, which writes text"),
    ],
)
@pytest.mark.parametrize("key", ["answer.abstain_below", "answer.max_error", "data.out_of_scope"])
def test_tasks_whose_answers_are_never_unsure(task, why, key):
    told = refused({"task": task, key: "x.txt" if key.startswith("data") else 0.2})
    assert why in told
    assert key.partition(".")[2] in told
