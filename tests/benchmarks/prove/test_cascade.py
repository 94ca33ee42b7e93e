"""Cascades in the search: which threshold is allowed, what the curve says, and that the draft answers as judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgetune.benchmarks.prove.cascade import choose_threshold, mixed_logits, report_cascade
from edgetune.benchmarks.prove.ledger import Slice, bundle_logits, frozen_slice, model_answers
from edgetune.benchmarks.prove.planning import plan_schemes
from edgetune.benchmarks.prove.search import Search, Terms
from edgetune.benchmarks.prove.trials import Kept, Workbench
from edgetune.benchmarks.recipe import BudgetRecipe, GateRecipe
from edgetune.compress.recipe import CompressRecipe
from edgetune.compress.route import Route, Step
from edgetune.export.once.graph import Graph
from edgetune.export.once.pack import Packing
from edgetune.serve import load
from edgetune.serve.bundle import HeadSpec
from edgetune.serve.cascade import margins
from edgetune.serve.heads import open_head
from edgetune.serve.report import CandidateReport, LatencySummary
from edgetune.tune.metrics import ACCURACY, MACRO_F1
from edgetune.tune.tasks import TASKS
from tests.toy_static import add_toy_static

LABELS = ("a", "b")


def slice_of(expected, metric=ACCURACY):
    task = TASKS["text-classification"]
    objective = task.objective(LABELS, metric.name, [])
    head = open_head(HeadSpec(kind="label", labels=list(LABELS)))
    texts = tuple(str(row) for row in range(len(expected)))
    return Slice(texts, np.asarray(expected), head, objective, task, np.array([0, 1] * 50))


def sure_of(answers, certainty):
    """Logits whose margin rises with certainty."""
    logits = np.zeros((len(answers), 2), np.float32)
    logits[np.arange(len(answers)), answers] = certainty
    return logits


def cases(right_small, right_strong):
    """Rows from the surest on: whether each model is right."""
    expected = np.arange(len(right_small)) % 2
    small = np.where(right_small, expected, 1 - expected)
    strong = np.where(right_strong, expected, 1 - expected)
    certainty = np.linspace(8, 0.1, len(small))
    return slice_of(expected), sure_of(small, certainty), sure_of(strong, np.full(len(strong), 5.0))


def test_the_small_model_answers_as_far_as_it_is_as_good():
    right = np.ones(1000, bool)
    small = right.copy()
    small[600:] = False  # of the less sure ones it knows none
    rows, mine, theirs = cases(small, right)
    threshold = choose_threshold(rows, mine, theirs)
    assert threshold.share == pytest.approx(0.6)
    assert np.mean(margins(mine) >= threshold.margin) == pytest.approx(0.6)
    mixed = mixed_logits(mine, theirs, threshold.margin)
    assert ACCURACY.of(rows.expected, rows.answers(mixed)) == 1


def test_it_answers_up_to_about_the_best_share_and_not_to_where_its_gain_is_used_up():
    strong, small = np.ones(1000, bool), np.ones(1000, bool)
    strong[:300:10] = False  # 30 rows that only the small one knows
    small[500::10] = False  # and later every tenth that only the strong one knows
    rows, mine, theirs = cases(small, strong)
    threshold = choose_threshold(rows, mine, theirs)
    # The gain of 30 rows is used up at 0.8; a quarter of the root of the 80 rows in question is two rows.
    assert threshold.share == 0.52


def test_a_small_model_that_is_worse_everywhere_answers_nothing():
    strong, small = np.ones(1000, bool), np.ones(1000, bool)
    small[::4] = False
    assert choose_threshold(*cases(small, strong)) is None
    assert choose_threshold(*cases(~strong, strong)) is None


def test_one_that_is_as_good_everywhere_answers_all():
    right = np.ones(200, bool)
    threshold = choose_threshold(*cases(right, right))
    assert (threshold.share, threshold.margin) == (1.0, 0.0)


def test_rows_of_one_margin_go_together():
    right = np.ones(200, bool)
    rows, mine, theirs = cases(right, right)
    mine[100:] = sure_of(1 - rows.expected[100:], np.full(100, 3.0))
    mine[:100] = sure_of(rows.expected[:100], np.full(100, 3.0))
    assert choose_threshold(rows, mine, theirs) is None


def test_rare_classes_count_where_the_second_metric_does():
    expected = np.zeros(1000, int)
    expected[::20] = 1
    rows = replace(slice_of(expected), learnt=expected)
    assert rows.second_metric is MACRO_F1
    right = sure_of(expected, np.full(1000, 5.0))
    # It says 0 to everything, and is surest of that where it is wrong: accuracy hides it the longest.
    certainty = np.where(expected == 1, 9.0, np.linspace(8, 0.1, 1000))
    threshold = choose_threshold(rows, sure_of(np.zeros(1000, int), certainty), right)
    assert threshold is None


def timed(scheme, ms, **more):
    return CandidateReport(
        scheme=scheme, size_bytes=1, dtypes={}, value=1.0, drop=0.0, drop_interval=[0.0, 0.0], p_value=1.0,
        gate="pass", accepted=True, reason="", **more,
        latency_ms=LatencySummary(n=3, mean=ms, p50=ms, samples=[ms] * 3),
    )  # fmt: skip


def test_the_curve_has_value_and_time_of_every_share():
    right = np.ones(1000, bool)
    small = right.copy()
    small[600:] = False
    rows, mine, theirs = cases(small, right)
    chosen = timed("static~fp32", 0.1, threshold=float(margins(mine)[599]), small_share=0.6)
    models = timed("static", 0.1), timed("fp32", 1.0)
    report = report_cascade(rows, {"static": mine, "fp32": theirs}, chosen, models)
    assert (report.small, report.strong, report.validation_share) == ("static", "fp32", 0.6)
    assert (report.share, report.value, report.small_value, report.strong_value) == (0.6, 1.0, 0.6, 1.0)
    by_share = {point.share: point for point in report.curve}
    assert list(by_share) == [round(0.1 * tenth, 1) for tenth in range(11)]
    assert [by_share[share].value for share in (0, 0.5, 0.8, 1)] == [1.0, 1.0, 0.8, 0.6]
    assert [by_share[share].p50_ms for share in (0.4, 0.6)] == pytest.approx([1.1, 0.1])
    assert [by_share[share].mean_ms for share in (0, 0.6, 1)] == pytest.approx([1.1, 0.5, 0.1])
    busy = models[0], timed("fp32", 1.0, timing_valid=False)
    untimed = report_cascade(rows, {"static": mine, "fp32": theirs}, chosen, busy).curve[0]
    assert (untimed.p50_ms, untimed.mean_ms, untimed.value) == (None, None, 1.0)


def test_a_route_says_who_answers_first():
    route = Route((Step("trimmed"),), "int8_dynamic", small="static")
    assert route.name == "static~trimmed+int8_dynamic"
    assert not route.is_model
    assert not route.structural
    assert route.neighbours
    assert Route((), "int8_dynamic").is_model


@pytest.fixture
def search(tiny_material, toy_dataset, tmp_path, monkeypatch):
    """Calling it makes a search over the tiny BERT and the toy artefact, with further fields of the recipe."""
    add_toy_static(monkeypatch)

    def make(*names, gate, **recipe):
        material, path = tiny_material("bert")
        dataset = toy_dataset()
        rows = frozen_slice(material.model, ACCURACY.name, dataset.validation, dataset.train, gate.rows, 0)
        recipe = CompressRecipe(schemes=list(names), **recipe)
        plan = plan_schemes(recipe, material, gate, ACCURACY, len(dataset.test))
        packing = Packing("tiny", material.model, dataset.digest, "cpu", tuple(dataset.validation.texts[:3]))
        kept = Kept(tmp_path / "trials", "d")
        bench = Workbench(material, dataset, Graph.open(path.parent), packing, rows, kept)
        return Search(bench, plan, Terms(gate, BudgetRecipe(), model_answers(material.model, rows), 1))

    return make


ANYTHING = GateRecipe(max_drop=0.99, when_inconclusive="accept")


@pytest.mark.slow
def test_an_artefact_and_its_cascade_are_candidates_whose_drafts_answer_as_judged(search):
    running = search("fused", "toy_static", gate=ANYTHING)
    searched = running.run()
    assert [one.scheme for one in searched.candidates][:2] == ["fused", "toy_static"]
    rows = running.bench.rows
    artefact = running.trials["toy_static"]
    np.testing.assert_allclose(bundle_logits(load(artefact.draft.folder), rows), artefact.logits, atol=1e-5)
    assert artefact.draft.manifest.engine.kind == "static"
    # Whatever the threshold would be on fifteen rows: one that both sides of answer some.
    margin = float(np.median(margins(artefact.logits)))
    trial = running.bench.cascade(artefact, running.trials["fused"], margin)
    assert trial.route.name == "toy_static~fused"
    with load(trial.draft.folder, threads=1) as predictor:
        answers = predictor.predict(rows.texts)
        assert {answer.answered_by for answer in answers} == {"toy_static", "fused"}
        np.testing.assert_allclose(bundle_logits(predictor, rows), trial.logits, atol=1e-4)
    again = running.bench.cascade(artefact, running.trials["fused"], margin / 2)
    assert again.draft.manifest.cascade.threshold == margin / 2  # another threshold is another candidate


@pytest.mark.slow
def test_an_artefact_that_fails_alone_may_answer_first(search, monkeypatch):
    from edgetune.benchmarks.prove import search as module
    from edgetune.benchmarks.prove.cascade import Threshold

    monkeypatch.setattr(module, "choose_threshold", lambda *given: Threshold(0.999, 0.2))
    gate = GateRecipe(max_drop=0.0, when_inconclusive="accept", min_agreement=0.99)
    searched = search("fused", "toy_static", gate=gate).run()
    by_name = {one.scheme: one for one in searched.candidates}
    assert (by_name["toy_static"].accepted, by_name["toy_static"].stopped_at) == (False, "quality")
    assert by_name["toy_static"].latency_ms is not None
    cascade = by_name["toy_static~fused"]
    assert (cascade.threshold, cascade.small_share) == (0.999, 0.2)
    assert "toy_static" not in searched.order


@pytest.mark.slow
def test_no_cascade_is_made_where_the_recipe_says_none(search):
    searched = search("fused", "toy_static", gate=ANYTHING, cascades=False).run()
    assert not any("~" in one.scheme for one in searched.candidates)
    assert not any("~" in name for name in searched.skipped)


@pytest.mark.slow
def test_an_artefact_follows_the_model_into_a_trimmed_vocabulary(search):
    running = search("fused", "trimmed", "toy_static", gate=ANYTHING)
    running.run()
    small, strong = running.trials["trimmed+toy_static"], running.trials["trimmed+fused"]
    assert (small.draft.folder / "tokenizer.json").read_bytes() == (strong.draft.folder / "tokenizer.json").read_bytes()
    whole = running.bench.take(Route((), "toy_static"))
    assert small.draft.size_bytes < whole.draft.size_bytes
    rows = running.bench.rows
    # Every word of the validation texts is one of the training texts here, so that nothing is read otherwise.
    np.testing.assert_allclose(small.logits, whole.logits, atol=1e-4)
    trial = running.bench.cascade(small, strong, float(np.median(margins(small.logits))))
    assert trial.draft.manifest.cascade.scheme == "toy_static"
    assert trial.route.name == "toy_static~trimmed+fused"
    np.testing.assert_allclose(bundle_logits(load(trial.draft.folder, threads=1), rows), trial.logits, atol=1e-4)
