"""What a linear n-gram model reaches before anything is built: seconds that may save minutes.

Must not import torch: `edgetune init` says it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.serve.errors import DataError
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.metrics import Metric
from edgetune.tune.ngrams.model import LinearModel, fit_linear, linear_answers
from edgetune.tune.tasks.task import Task

# Rows that are learnt from: all of most data sets, fewer of many classes, so that it stays below five seconds; and rows
# that judge.
MOST_ROWS, MOST_CELLS, LEAST_ROWS, JUDGING_ROWS = 10_000, 300_000, 1_000, 1_000
# Fewer say nothing: of 20 right ones the share lies between 84 and 100%.
FEWEST_JUDGING_ROWS = 20


@dataclass(frozen=True)
class Preview:
    """A linear model that learnt from the training part, on rows of the validation part."""

    model: LinearModel
    metric: Metric
    value: float
    rows: int

    @property
    def finding(self) -> str:
        """In a sentence, without the seconds, which differ from run to run."""
        model = self.model
        part = "" if model.rows == model.of_rows else f" of {model.of_rows:,}"
        kind = "A linear model" if model.head is not None else "TF-IDF"
        return (
            f"{kind} of {model.features.described} that learns from {model.rows:,}{part} training rows reaches "
            f"{self.metric.shown(self.value)} on {self.rows:,} validation rows: what a tuned model has to beat."
        )

    @property
    def facts(self) -> dict[str, float | str | int]:
        """For scripts."""
        model = self.model
        return {
            "metric": self.metric.name,
            "value": self.value,
            "rows": self.rows,
            "learnt_rows": model.rows,
            "ngrams": model.features.described,
            "cpu_seconds": round(model.cpu_seconds, 2),
        }


def preview_linear(dataset: Dataset, task: Task, metric: str, seed: int) -> Preview | None:
    """Fit it and judge it; None where the texts have no n-grams, or too few rows can judge."""
    if len(dataset.validation) < FEWEST_JUDGING_ROWS:
        return None
    objective = task.objective(dataset.labels, metric, dataset.train.targets)
    most = min(MOST_ROWS, max(LEAST_ROWS, MOST_CELLS // objective.width))
    try:
        model = fit_linear(objective, dataset.train, seed, most, task.linear_features)
    except DataError:
        return None
    held_out = dataset.validation
    drawn = objective.drawn(held_out.targets, JUDGING_ROWS, seed)
    answers = linear_answers(model, objective, held_out, [held_out.texts[row] for row in drawn])
    expected = objective.expected([held_out.targets[row] for row in drawn])
    return Preview(model, objective.metric, objective.metric.of(expected, answers), len(drawn))
