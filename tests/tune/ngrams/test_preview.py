"""What a linear model reaches before anything is built."""

from __future__ import annotations

import pytest

from edgetune.tune.data.columns import Columns
from edgetune.tune.data.dataset import Dataset, Part
from edgetune.tune.ngrams import preview as module
from edgetune.tune.ngrams.preview import preview_linear
from edgetune.tune.tasks import TASKS

TASK = TASKS["text-classification"]


def dataset(texts):
    part = Part(tuple(texts), tuple(row % 2 for row in range(len(texts))))
    return Dataset(part, part, part, ("card", "cash"), "", "made", Columns(("text",), ("label",), ()), ())


ROWS = [f"my {('card', 'cash')[row % 2]} is number {row}" for row in range(60)]


def test_it_is_told_with_its_rows_and_its_metric():
    preview = preview_linear(dataset(ROWS), TASK, "", seed=0)
    assert preview.finding == (
        "A linear model of words 1-2 and characters within words 2-5 that learns from 60 training rows reaches 100.00% "
        "accuracy on 60 validation rows: what a tuned model has to beat."
    )
    facts = preview.facts
    assert facts.pop("cpu_seconds") >= 0
    assert facts == {
        "metric": "accuracy",
        "value": 1.0,
        "rows": 60,
        "learnt_rows": 60,
        "ngrams": "words 1-2 and characters within words 2-5",
    }


def test_it_learns_from_some_of_many_rows(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 40)
    monkeypatch.setattr(module, "JUDGING_ROWS", 10)
    preview = preview_linear(dataset(ROWS), TASK, "macro_f1", seed=0)
    assert "learns from 40 of 60 training rows reaches 1 macro f1 on 10 validation rows" in preview.finding


@pytest.mark.parametrize("texts", [["", " "] * 20, ["\n", "\t"] * 20, ROWS[:19]])
def test_texts_without_ngrams_and_a_few_rows_have_none(texts):
    assert preview_linear(dataset(texts), TASK, "", seed=0) is None


def test_twenty_rows_judge():
    assert preview_linear(dataset(ROWS[:20]), TASK, "", seed=0).rows == 20
