"""What one constant answer reaches, and whether the packed candidate does any better than that.

A classifier that says "ham" to every text has 95% accuracy where 95% of the rows are ham. Must not import torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.benchmarks.prove.ledger import Slice
from edgetune.serve.heads import Plain
from edgetune.serve.report import Baseline
from edgetune.tune.metrics import Metric

# Answers are nearly constant where one takes this share of the rows, and of the rows that expect another one at most
# so many are right.
NEARLY_ALL, HARDLY_ANY = 0.9, 0.2
# Numbers are nearly constant where their standard deviation is at most this share of that of the right ones.
NARROW = 0.02


def constant_baseline(rows: Slice) -> Baseline:
    """The value of each of the task's metrics for the constant answer that is best by it on the training part.

    Of labels that is the most frequent one (scikit-learn's DummyClassifier, "most_frequent"), of numbers the median by
    MAE and the mean by RMSE (its DummyRegressor), of several labels the set that is best.
    """
    values = {
        metric.name: metric.of(rows.expected, _repeated(_constant(rows, metric), len(rows.expected)))
        for metric in rows.metrics
    }
    return Baseline(answer=_shown(rows.head.plain(_constant(rows, rows.objective.metric))), metrics=values)


def constant_answers(rows: Slice) -> NDArray[Any]:
    """The constant that is best by the metric that judges, as the answer to each of the rows."""
    return _repeated(_constant(rows, rows.objective.metric), len(rows.expected))


def warn_of_constant(rows: Slice, answers: NDArray[Any], baseline: Baseline) -> str:
    """Sentences on answers that are nearly always the same, or no better than a constant one; "" for all others.

    Args:
        rows: that judge.
        answers: the decisions that are packed, one entry a row.
        baseline: of these rows.
    """
    metric = rows.objective.metric
    value, constant = metric.of(rows.expected, answers), baseline.metrics[metric.name]
    sentences = [_nearly_constant(rows, answers)]
    if not metric.is_better(value, constant):
        sentences.append(
            f"By {metric.title} it is no better than one constant answer, {baseline.answer}: "
            f"{metric.shown(value)} against {metric.shown(constant)}."
        )
    return " ".join(filter(None, sentences))


def _nearly_constant(rows: Slice, answers: NDArray[Any]) -> str:
    if answers.dtype.kind == "f" and answers.ndim == 2:
        spread = float(np.sqrt(answers.var(axis=0).sum() / max(float(np.square(answers).sum(axis=1).mean()), 1e-12)))
        return f"It gives nearly the same vector to all {len(answers):,} rows." if spread < NARROW else ""
    if np.issubdtype(answers.dtype, np.floating):
        if np.ptp(rows.expected) == 0 or np.std(answers) > NARROW * np.std(rows.expected):
            return ""
        return f"It gives nearly the same number to all {len(answers):,} rows, {float(np.median(answers)):.4g}."
    kinds, counts = np.unique(answers, axis=0 if answers.ndim > 1 else None, return_counts=True)
    top, count = kinds[counts.argmax()], int(counts.max())
    others = _differs(rows.expected, top)
    right = int((others & ~_differs(rows.expected, answers)).sum())
    if not others.any() or count < NEARLY_ALL * len(answers) or right > HARDLY_ANY * others.sum():
        return ""
    answer = _shown(rows.head.plain(top))
    if count == len(answers):
        return f"It answers {answer} to all {count:,} rows, of which {int(others.sum()):,} are something else."
    return (
        f"It answers {answer} to {count:,} of {len(answers):,} rows; of the {int(others.sum()):,} that are something "
        f"else it has {right:,} right."
    )


def _constant(rows: Slice, metric: Metric) -> Any:
    """The constant answer that is best by a metric on the training part; the first of those that are."""
    answers = list(rows.objective.constants(rows.learnt))
    values = [metric.of(rows.learnt, _repeated(answer, len(rows.learnt))) for answer in answers]
    best = max(values) if metric.higher_is_better else min(values)
    return answers[values.index(best)]


def _repeated(answer: Any, rows: int) -> NDArray[Any]:
    return np.repeat(np.asarray(answer)[None], rows, axis=0)


def _differs(answers: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Of each row whether the answers differ; `others` may be the answer of all rows."""
    return np.asarray((answers != others).reshape(len(answers), -1).any(axis=1))


def _shown(answer: Plain) -> str:
    if isinstance(answer, str):
        return repr(answer)
    if isinstance(answer, list) and any(isinstance(item, dict) for item in answer):
        return " and ".join(f"{item['type']} at {item['start']}" for item in answer if isinstance(item, dict))
    if isinstance(answer, list) and answer and not isinstance(answer[0], str):
        return "one vector"
    if isinstance(answer, list):
        return " and ".join(map(repr, answer)) or "no label"
    return f"{answer:.4g}"
