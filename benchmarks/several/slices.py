"""The rows of several tasks that judge one graph, and the verdict on it: that of the task which it does worst.

A candidate has to hold for every task. Each is judged at a level corrected for their number (Bonferroni): the chance
that it is packed although some task loses more than is allowed stays below what the recipe says for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from edgetune.benchmarks.prove.gate import GATES, Verdict
from edgetune.benchmarks.prove.ledger import Logits, Slice, bundle_logits
from edgetune.benchmarks.recipe import GateRecipe
from edgetune.serve.bundle import Bundle
from edgetune.serve.predictor import Predictor
from edgetune.serve.tasks_report import QUALITY_KEPT
from edgetune.tune.data.rows import Input
from edgetune.tune.metrics import Metric, Statistics


class TaskLogits(dict[str, Logits]):
    """Logits of each task on its own rows."""

    def __add__(self, shift: Mapping[str, Logits | float] | float) -> TaskLogits:
        """These and what is added to those of each task."""
        if not isinstance(shift, Mapping):
            return self
        return TaskLogits({task: logits + shift[task] for task, logits in self.items()})


@dataclass(frozen=True)
class TasksVerdict(Verdict):
    """The verdict on all tasks, and that on each."""

    each: Mapping[str, Verdict] = None  # type: ignore[assignment]  # always given


def kept(metric: Metric, reference: float, value: float) -> float:
    """What is kept of a reference's quality: 1 less what is lost, a drop of a score or a relative rise of an error."""
    return 1.0 - float(metric.loss(np.asarray(reference), np.asarray(value)))


def _no_rows(_: object, __: object) -> Statistics:
    raise NotImplementedError("rows of several tasks are judged task by task")


# What candidates are compared by; it is computed by `TaskSlices.value`, and never of rows.
KEPT = Metric(QUALITY_KEPT, _no_rows, lambda sums: np.asarray(sums[..., 0]))


@dataclass(frozen=True)
class TaskSlices:
    """The frozen rows of each task, the logits of the tuned models on them, and each task's own terms."""

    parts: Mapping[str, Slice]
    reference: TaskLogits
    gates: Mapping[str, GateRecipe]

    @property
    def metric(self) -> Metric:
        """What candidates are compared by."""
        return KEPT

    @property
    def texts(self) -> tuple[Input, ...]:
        """The texts of all tasks in turn, so that any beginning has some of each."""
        turns = zip_longest(*(part.texts for part in self.parts.values()))
        return tuple(text for text in chain.from_iterable(turns) if text is not None)

    def value(self, logits: TaskLogits) -> float:
        """The mean over tasks of what is kept of the tuned model's quality."""
        return float(
            np.mean(
                [
                    kept(part.metric, part.value(self.reference[task]), part.value(logits[task]))
                    for task, part in self.parts.items()
                ]
            )
        )

    def answered(self, draft: Bundle) -> TaskLogits:
        """Logits of each task on its rows by a bundle, one row a run."""
        return TaskLogits({task: bundle_logits(Predictor(draft, task=task), part) for task, part in self.parts.items()})

    def judge(
        self,
        reference: TaskLogits,
        candidate: TaskLogits,
        gate: GateRecipe,
        *,
        structural: bool,
        is_float: bool,
        looks: int = 1,
    ) -> TasksVerdict:
        """The worst of the tasks' verdicts, each by its own terms at a level for all of them."""
        each = {
            task: part.judge(
                reference[task],
                candidate[task],
                self.gates[task],
                structural=structural,
                is_float=is_float,
                looks=looks * len(self.parts),
            )
            for task, part in self.parts.items()
        }
        return worst(each)


def worst(each: Mapping[str, Verdict]) -> TasksVerdict:
    """One verdict of those on each task: packed where all are."""
    verdict = max(each.values(), key=lambda one: (GATES.index(one.gate), one.loss.loss))
    needed = [one.rows_needed for one in each.values() if one.gate == "inconclusive"]
    return TasksVerdict(
        gate=verdict.gate,
        accepted=all(one.accepted for one in each.values()),
        loss=max((one.loss for one in each.values()), key=lambda loss: loss.loss),
        reason="; ".join(f"{task}: {one.reason}" for task, one in each.items()),
        rows_needed=None if not needed or None in needed else max(filter(None, needed)),
        each=each,
    )


def task_gate(gate: GateRecipe, metric: Metric, name: str, *, has_equal_answers: bool) -> GateRecipe:
    """The terms of one task: the limit that its metric has, and an agreement only where answers can be equal.

    Args:
        name: of the metric, as the task's own section says.
    """
    other = {"max_drop", "max_rise"} - {gate.limit_name(metric)}
    fields = type(gate).model_fields
    changed = {"metric": name, **{key: fields[key].default for key in other}}
    if not has_equal_answers:
        changed["min_agreement"] = 0.0
    return gate.model_copy(update=changed)
