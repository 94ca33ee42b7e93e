"""The search for a graph of several tasks: that of one task, where candidates are judged on the rows of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import msgspec
import numpy as np

from edgetune.benchmarks.prove.ledger import Logits, Slice
from edgetune.benchmarks.prove.search import Search, Searched
from edgetune.benchmarks.prove.trials import Workbench
from edgetune.benchmarks.several.slices import TaskLogits, TaskSlices, TasksVerdict
from edgetune.serve.digest import value_sha256
from edgetune.serve.report import CandidateReport


@dataclass(frozen=True, kw_only=True)
class SearchedTasks(Searched):
    """As `Searched`, of all tasks together; `of_tasks` has the candidates as each task judges them."""

    of_tasks: dict[str, list[CandidateReport]] = field(default_factory=dict)


class TasksBench(Workbench):
    """Takes routes of a graph of several tasks: answers are those of each task to its own rows."""

    def _answers(self, name: str, answer: Callable[[], Logits]) -> Logits:
        """Logits of each task on its validation rows, kept for these very rows."""
        texts = {task: list(part.texts) for task, part in cast(TaskSlices, self.rows).parts.items()}
        kept = replace(self.kept, digest=value_sha256([self.kept.digest, "one row a run", texts]))
        folder = kept.place(name, lambda part: np.savez(part / "validation.npz", **cast(dict[str, Any], answer())))
        with np.load(folder / "validation.npz", allow_pickle=False) as stored:
            return cast(Logits, TaskLogits({task: stored[task] for task in stored.files}))


class TasksSearch(Search):
    """One search, whose result has the candidates of each task too."""

    def run(self) -> SearchedTasks:
        """Try what the plan says."""
        searched = super().run()
        rows = cast(TaskSlices, self.bench.rows)
        of_tasks = {
            task: [self._of_task(one, task, part) for one in searched.candidates] for task, part in rows.parts.items()
        }
        return SearchedTasks(
            candidates=searched.candidates, order=searched.order, skipped=searched.skipped, of_tasks=of_tasks
        )

    def _of_task(self, candidate: CandidateReport, task: str, part: Slice) -> CandidateReport:
        """A candidate as one task judges it; whether it may be packed is for all of them to say."""
        verdict = cast(TasksVerdict, self.verdicts[candidate.scheme]).each[task]
        logits = cast(TaskLogits, self.trials[candidate.scheme].logits)[task]
        return msgspec.structs.replace(
            candidate,
            value=part.value(logits),
            drop=verdict.loss.loss,
            drop_interval=list(verdict.loss.interval),
            p_value=verdict.loss.p_value,
            gate=verdict.gate,
            reason=verdict.reason if verdict.accepted == candidate.accepted else candidate.reason,
            rows_needed=verdict.rows_needed,
            second=verdict.second,
        )
