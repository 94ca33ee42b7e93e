"""Answers to validation rows as if nobody had learnt them: of the tuned head, of bundles with it, of cascades."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from edgetune.benchmarks.prove.held_out import head_shift, held_out_logits
from edgetune.benchmarks.prove.ledger import bundle_logits, frozen_slice, model_answers
from edgetune.benchmarks.prove.trials import Kept, Workbench
from edgetune.compress.route import Route, Step
from edgetune.export.once.graph import Graph
from edgetune.export.once.pack import Packing
from edgetune.serve.predictor import Predictor
from edgetune.tune.data.slices import frozen_indices
from tests.toy_static import add_toy_static

ROWS, SEED = 10, 3  # of fifteen


@pytest.fixture
def judged(tiny_material, toy_dataset):
    """The tuned tiny BERT, some of its validation rows, its own logits on them, and what makes them unlearnt ones."""
    material, _ = tiny_material("bert")
    dataset = toy_dataset()
    rows = frozen_slice(material.model, "accuracy", dataset.validation, dataset.train, ROWS, SEED)
    logits = model_answers(material.model, rows)
    return material.model, rows, logits, head_shift(material.model, ROWS, SEED, logits)


def test_the_shift_leads_to_the_logits_that_tuning_kept_for_these_rows(judged):
    tuned, rows, logits, shift = judged
    held_out = tuned.held_out_logits()
    assert held_out.shape == (15, len(tuned.labels))
    assert held_out.dtype == np.float32
    np.testing.assert_allclose(logits + shift, held_out[frozen_indices(15, ROWS, SEED)], atol=1e-5)
    assert np.abs(shift).max() > 0.01  # the head that is handed on has learnt them
    assert len(rows.texts) == ROWS


def test_a_number_and_a_model_without_such_logits_stay_as_they_are(judged, tmp_path):
    tuned, _, logits, _ = judged
    number = replace(tuned, head=msgspec.structs.replace(tuned.head, kind="number"))
    assert not head_shift(number, ROWS, SEED, logits).any()
    assert not head_shift(replace(tuned, folder=tmp_path), ROWS, SEED, logits).any()


@pytest.mark.slow
def test_candidates_with_the_tuned_head_are_shifted_and_others_are_not(
    judged, tiny_material, toy_dataset, tmp_path, monkeypatch
):
    add_toy_static(monkeypatch)
    tuned, rows, logits, shift = judged
    material, graph = tiny_material("bert")
    packing = Packing("tiny", tuned, "d", "cpu", rows.texts[:3])
    kept = Kept(tmp_path / "trials", "d")
    bench = Workbench(material, toy_dataset(), Graph.open(graph.parent), packing, rows, kept, shift)
    strong, small = bench.take(Route((), "fp32")), bench.take(Route((), "toy_static"))
    np.testing.assert_allclose(strong.logits, logits + shift, atol=1e-4)
    np.testing.assert_allclose(small.logits, bundle_logits(Predictor(small.draft), rows), atol=1e-5)
    cascade = bench.cascade(small, strong, 0.4)
    with Predictor(cascade.draft, threads=1) as predictor:
        by = np.asarray(predictor.outputs(predictor.encode(rows.texts), batch_size=1).answered_by)
        expected = np.where((by == "toy_static")[:, None], small.logits, strong.logits)
        np.testing.assert_allclose(cascade.logits, expected, atol=1e-4)
        np.testing.assert_allclose(held_out_logits(predictor, rows, 0.0), bundle_logits(predictor, rows), atol=1e-6)
    assert set(by) == {"toy_static", "fp32"}


def test_a_student_has_a_head_of_its_own():
    assert Route((Step("trimmed"),), "int8_static").keeps_head
    assert Route((), "int8_static", small="static").keeps_head
    assert not Route((Step("student", 3),), "int8_static").keeps_head
    assert not Route((), "static").keeps_head
