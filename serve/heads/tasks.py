"""The answers of several tasks at once: the head of each on its own output of one graph, joined side by side.

One run of the graph gives all outputs. They are joined as the columns of one array, so that all that carries logits
(batches, windows, the server) carries those of several tasks too: (rows, width) float32, or, where a task answers for
each token, (texts, 1 + tokens, 2 + width) as `token_outputs` has them, behind a first row without a place that holds
the columns of a text's first window; there all others are read from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import BundleFormatError, InputError
from edgetune.serve.golden_cases import GoldenCase
from edgetune.serve.heads import PER_TOKEN, TASKS, TASKS_ON_TOKENS, AnswerSchema, Head, OutputTensor, Plain, open_head
from edgetune.serve.token_outputs import BORDERS

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TasksPrediction:
    """The answers to one input by task, each as a bundle of that task alone gives it."""

    answers: dict[str, Any]

    @property
    def truncated(self) -> bool:
        """Whether some task has read the input's beginning only."""
        return any(answer.truncated for answer in self.answers.values())

    @property
    def plain(self) -> dict[str, Plain]:
        """The decision of each task."""
        return {task: answer.plain for task, answer in self.answers.items()}

    def __getitem__(self, task: str) -> Any:
        """The answer of one task."""
        return self.answers[task]


class TasksHead:
    """The heads of several tasks as one.

    Attributes:
        heads: each task's own, by its name, in the order of the manifest.
        per_token: whether some of them answers for each token.
    """

    columns = ("task", "answer")
    labels: tuple[str, ...] = ()
    ranked = True

    def __init__(self, specs: Sequence[HeadSpec]) -> None:
        """Open the head of each task.

        Raises:
            BundleFormatError: two have one name or one output, or one has no name; or as `open_head`.
        """
        for of_each in ([spec.name for spec in specs], [spec.output for spec in specs]):
            if not all(of_each) or len(set(of_each)) < len(specs):
                listed = ", ".join(f"{spec.kind} on {spec.output}" for spec in specs)
                raise BundleFormatError(
                    f"The manifest has {len(specs)} heads: {listed}.",
                    expected="a name and an output of its own for each of several heads",
                    action="install a newer edgetune",
                )
        self.heads: dict[str, Head] = {spec.name: open_head(spec) for spec in specs}
        self.per_token = any(spec.kind in PER_TOKEN for spec in specs)
        self.spec = HeadSpec(kind=TASKS_ON_TOKENS if self.per_token else TASKS, output="")
        self._places: dict[str, slice] = {}
        start = 0
        for task, head in self.heads.items():
            self._places[task] = slice(start, start + head.width)
            start += head.width
        self.width = start
        self.blank = {task: _member(head.blank) for task, head in self.heads.items()}
        properties = {task: _member_schema(head.schema) for task, head in self.heads.items()}
        self.schema: AnswerSchema = {"type": "object", "properties": properties, "required": list(self.heads)}
        named = {task: head.tensors for task, head in self.heads.items()}
        self.tensors = {f"{task}.{name}": self._of(task, named[task][name]) for task in named for name in named[task]}
        self.tensors |= {head.spec.output: self._logits(task) for task, head in self.heads.items() if _by_rows(head)}
        self.default_tensors = tuple(f"{task}.{name}" for task in named for name in self.heads[task].default_tensors)

    def _of(self, task: str, tensor: OutputTensor) -> OutputTensor:
        return OutputTensor(tensor.datatype, tensor.columns, lambda logits: tensor.values(self.split(logits)[task]))

    def _logits(self, task: str) -> OutputTensor:
        return OutputTensor("FP32", self.heads[task].width, lambda logits: self.split(logits)[task])

    def joined(self, outputs: Sequence[FloatArray]) -> FloatArray:
        """The outputs of the graph, one a task in order, as one array: (batch, width), or (batch, tokens, width) where
        a task answers for each token, the columns of the others the same for all tokens of a row."""
        if not self.per_token:
            return np.concatenate(outputs, axis=1)
        tokens = next(output.shape[1] for output in outputs if output.ndim == 3)
        wide = (output if output.ndim == 3 else np.repeat(output[:, None], tokens, axis=1) for output in outputs)
        return np.concatenate(list(wide), axis=2)

    def split(self, logits: FloatArray) -> dict[str, FloatArray]:
        """The logits of each task as its own head takes them, of all tasks' together."""
        if not self.per_token:
            return {task: logits[:, place] for task, place in self._places.items()}
        parts = {}
        for task, place in self._places.items():
            columns = logits[:, :, BORDERS:][:, :, place]
            if self.heads[task].spec.kind in PER_TOKEN:
                parts[task] = np.concatenate([logits[:, 1:, :BORDERS], columns[:, 1:]], axis=2)
            else:
                parts[task] = columns[:, 0]
        return parts

    def answer(self, logits: FloatArray, truncated: Sequence[bool]) -> list[TasksPrediction]:
        """All tasks' answers to each input."""
        parts = self.split(logits)
        answers = {task: head.answer(parts[task], truncated) for task, head in self.heads.items()}
        return [TasksPrediction(dict(zip(answers, row, strict=True))) for row in zip(*answers.values(), strict=True)]

    def with_texts(self, answers: Sequence[TasksPrediction], texts: Sequence[str]) -> list[TasksPrediction]:
        """The answers, those for tokens with what they say of the texts."""
        made = [dict(answer.answers) for answer in answers]
        for task, head in self.heads.items():
            if head.spec.kind in PER_TOKEN:
                of_task = head.with_texts([answer[task] for answer in made], texts)
                for row, answer in zip(made, of_task, strict=True):
                    row[task] = answer
        return [TasksPrediction(row) for row in made]

    def scores(self, logits: FloatArray) -> FloatArray:
        """Raises InputError: each task has its own."""
        raise InputError(
            f"This bundle answers {len(self.heads)} tasks, each with probabilities of its own.",
            expected=f"one of them: {', '.join(self.heads)}",
            action="open it with load(bundle, task=...)",
        )

    def decide(self, logits: FloatArray) -> NDArray[np.object_]:
        """What each row is answered, a dict by task: (rows,) of objects."""
        parts = self.split(logits)
        decisions = {task: head.decide(parts[task]) for task, head in self.heads.items()}
        decided = np.empty(len(logits), dtype=object)
        for row in range(len(logits)):
            decided[row] = {task: of_task[row] for task, of_task in decisions.items()}
        return decided

    def plain(self, decision: Mapping[str, Any]) -> dict[str, Any]:
        """The decision of each task as a JSON value."""
        return {task: head.plain(decision[task]) for task, head in self.heads.items()}

    def as_json(self, answer: TasksPrediction, top: int | None) -> dict[str, object]:
        """The answer of each task by its name, as its own head gives it; of entities the list alone."""
        return {
            task: _member(head.as_json(answer.answers[task], None if top is None else min(top, head.width)))
            for task, head in self.heads.items()
        }

    def as_lines(self, answer: TasksPrediction, top: int | None) -> list[list[str]]:
        """A line an answer of each task: the task's name, and the answer with what belongs to it."""
        lines = []
        for task, head in self.heads.items():
            lines += [[task, " ".join(cells)] for cells in head.as_lines(answer.answers[task], top)]
        return lines

    def misfit(self, case: GoldenCase) -> str:
        """Golden answers have one of each task, with its logits."""
        if set(case.answers) != set(self.heads) or not all(
            isinstance(one.logits, list) for one in case.answers.values()
        ):
            return f"was packed for the tasks {', '.join(case.answers) or 'of another bundle'}"
        faults = (head.misfit(self.case_of(case, task)) for task, head in self.heads.items())
        return next(filter(None, faults), "")

    def differs(self, case: GoldenCase, logits: FloatArray, tolerance: float) -> str:
        """The answer of a task may differ where its own head says so."""
        parts = self.split(logits[None])
        for task, head in self.heads.items():
            if fault := head.differs(self.case_of(case, task), parts[task][0], tolerance):
                return f"by the task {task} {fault}"
        return ""

    @staticmethod
    def case_of(case: GoldenCase, task: str) -> GoldenCase:
        """The golden answer of one task."""
        one = case.answers[task]
        return msgspec.structs.replace(case, logits=one.logits, label=one.label, answer=one.answer, answers={})


def open_heads(specs: Sequence[HeadSpec]) -> Head:
    """The head that answers all of a bundle's tasks, of one task its own.

    Raises:
        BundleFormatError, BundleDamaged: as `open_head` and `TasksHead`.
    """
    return open_head(specs[0]) if len(specs) == 1 else cast(Head, TasksHead(specs))


def _by_rows(head: Head) -> bool:
    """Whether a head answers for the whole input: the logits of tokens are nothing without their places."""
    return head.spec.kind not in PER_TOKEN


def _member(value: Mapping[str, object]) -> object:
    """The answer of one task among others: of entities, which are never cut, the list."""
    return value.get("entities", value)


def _member_schema(schema: AnswerSchema) -> Mapping[str, object]:
    return schema["properties"].get("entities", schema)
