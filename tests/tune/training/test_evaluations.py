"""Evaluations of losses that compare rows: taken over the part, whatever the order of its batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from edgetune.tune.retrieval import DOCUMENT, MRR, QUERY
from edgetune.tune.tasks.vectors import Vectors
from edgetune.tune.training.evaluations import Evaluations


def test_the_loss_of_rows_beside_each_other_is_that_of_the_part(tmp_path: Path) -> None:
    objective = Vectors((), MRR, texts_a_record=2)
    learnt = np.array([[n, role, 2 * n + role] for n in range(6) for role in (QUERY, DOCUMENT)])
    vectors = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    order = [3, 7, 0, 1, 11, 2, 4, 10, 5, 6, 8, 9]
    evaluations = Evaluations(objective, order, tmp_path, round_epochs=0, patience=1, reference=vectors)
    measured = evaluations.measure(EvalPrediction(vectors[order], learnt[order]))
    expected = objective.loss(torch.from_numpy(vectors), torch.from_numpy(learnt), None) / learnt.size
    assert measured["loss"] == pytest.approx(float(expected))
    assert measured["value"] == pytest.approx(MRR.of(learnt, vectors))
