"""The floor: what one constant answer and a linear model reach on the rows of the ledger, compared row by row.

A tuned transformer that does no better than these was not worth its minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from edgetune.benchmarks.prove.baseline import constant_answers, constant_baseline
from edgetune.benchmarks.prove.ledger import Slice
from edgetune.benchmarks.prove.statistics import metric_interval, paired_loss
from edgetune.serve.errors import DataError
from edgetune.serve.verdict import LINEAR, MAJORITY, Comparison, FloorQuality
from edgetune.tune.data.dataset import Dataset, Part
from edgetune.tune.ngrams.model import LinearModel, fit_linear, linear_answers

Answers = NDArray[Any]


@dataclass(frozen=True)
class Floor:
    """What needs no pretrained model: the report's entries, the answers of each, and what could not be measured."""

    entries: list[FloorQuality]
    answers: Mapping[str, Answers] = field(repr=False)
    remark: str = ""


def measure_floor(rows: Slice, dataset: Dataset, seed: int) -> Floor:
    """Answer the rows by the best constant of the training part, and by a linear model.

    It learns from training and validation part together, as the head of the base does; thresholds of several labels are
    chosen on the validation part for a model that has not learnt from it.
    """
    majority = constant_answers(rows)
    described = f"{constant_baseline(rows).answer} to all rows"
    entries, answers = [_entry(rows, MAJORITY, majority, described)], {MAJORITY: majority}
    objective = rows.task.objective(dataset.labels, rows.objective.metric.name, dataset.train.targets)

    def fitted(part: Part) -> LinearModel:
        return fit_linear(objective, part, seed, features_of=rows.task.linear_features)

    try:
        model = fitted(_learnt_part(dataset))
        answers[LINEAR] = linear_answers(
            model, objective, dataset.validation, rows.texts, lambda: fitted(dataset.train)
        )
    except DataError as error:
        return Floor(entries, answers, f"A linear n-gram model could not be fitted. {error.found}")
    entries.append(_entry(rows, LINEAR, answers[LINEAR], model.described, model.cpu_seconds))
    return Floor(entries, answers)


def _learnt_part(dataset: Dataset) -> Part:
    """Training and validation part; the training part alone where the rows of the validation part judge as well."""
    train, validation = dataset.train, dataset.validation
    if validation == dataset.test:
        return train
    return Part(train.texts + validation.texts, train.targets + validation.targets)


def compare(rows: Slice, floor: Mapping[str, Answers], stages: Mapping[str, Answers], chosen: str) -> list[Comparison]:
    """Paired comparisons of the base and the floor with what was built.

    Args:
        rows: that judge.
        floor, stages: decisions by name; a scheme may be named as a model of the floor is.
        chosen: the stage that is packed; "" where none is.
    """
    built = ["base", "tuned", *([chosen] if chosen else [])]
    pairs = [("base", stages["base"], candidate) for candidate in built[1:]]
    pairs += [(name, answers, candidate) for name, answers in floor.items() for candidate in built]
    return [_compare(rows, name, answers, candidate, stages[candidate]) for name, answers, candidate in pairs]


def _compare(rows: Slice, reference: str, before: Answers, candidate: str, after: Answers) -> Comparison:
    metric = rows.objective.metric
    loss = paired_loss(metric, *metric.pair(rows.expected, before, after))
    return Comparison(
        reference=reference,
        candidate=candidate,
        drop=loss.loss,
        drop_interval=list(loss.interval),
        p_value=loss.p_value,
    )


def _entry(rows: Slice, stage: str, answers: Answers, described: str, cpu_seconds: float = 0.0) -> FloorQuality:
    metric = rows.objective.metric
    return FloorQuality(
        stage=stage,
        value=metric.of(rows.expected, answers),
        ci95=list(metric_interval(metric, metric.rows(rows.expected, answers))),
        metrics={other.name: other.of(rows.expected, answers) for other in rows.metrics if other != metric},
        described=described,
        cpu_seconds=round(cpu_seconds, 3),
    )
