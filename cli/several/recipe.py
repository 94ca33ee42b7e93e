"""The recipe of several tasks on one encoder: `tasks` by name in the place of `data`, and the sections of one task."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from edgetune.benchmarks.answer_recipe import AnswerRecipe
from edgetune.benchmarks.recipe import BenchmarkRecipe, BudgetRecipe, GateRecipe
from edgetune.benchmarks.several.slices import task_gate
from edgetune.compress.recipe import CompressRecipe
from edgetune.evidence import Evidence
from edgetune.export.recipe import ExportRecipe
from edgetune.recipe import Recipe
from edgetune.serve.errors import RecipeError
from edgetune.task_choice import NEAR
from edgetune.tasks import FAMILIES
from edgetune.tasks import TASKS as ALL_TASKS
from edgetune.tune.data.augmentation import AugmentRecipe
from edgetune.tune.data.dataset import DataRecipe
from edgetune.tune.methods import METHODS
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.task import Guess, Task

# What a task of several may answer with, and the task that learns it.
KINDS = {task.kind: name for name, task in TASKS.items() if task.kind}
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
# Members that stand beside the answers of a text in JSON.
_TAKEN = ("text", "truncated", "model", "explanation")


class PartRecipe(BaseModel):
    """One task of several: its rows, what is answered, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataRecipe = Field(description="Its rows, as the data section of a recipe of one task.")
    kind: str = Field("", description=f"What is answered: {', '.join(KINDS)}; without it, guessed from the rows.")
    metric: str = Field("", description="What the gate compares; empty is the kind's own metric.")
    weight: float = Field(1.0, gt=0, description="Weight of its loss.")
    answer: AnswerRecipe = AnswerRecipe()

    @property
    def task(self) -> Task:
        """The task that learns it."""
        return TASKS[KINDS[self.kind]]

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        if kind in ("", *KINDS):
            return kind
        by_task = {task: known for known, task in KINDS.items()}
        if kind in ALL_TASKS and kind not in by_task:
            why = TASKS[kind].alone if kind in TASKS else f"it takes {FAMILIES[ALL_TASKS[kind].family].takes}"
            raise ValueError(f"{kind} cannot be one of several tasks, since {why}; expected it in a recipe of its own")
        near = f"{by_task[kind]}, which {kind} is here" if kind in by_task else " or ".join(KINDS)
        raise ValueError(f"there is no kind {kind!r:.80}; expected {near}")


class SeveralTuneRecipe(TuneRecipe):
    """How the base model learns all tasks."""

    sampling: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Power of the tasks' sizes by which batches are drawn: 1 is by their rows, 0 as many of each.",
    )


class SeveralRecipe(Recipe):
    """One build of a model that answers several tasks by one run of its graph."""

    family = "several"
    tasks: dict[str, PartRecipe] = Field(description="The tasks by name, two or more.")
    tune: SeveralTuneRecipe = SeveralTuneRecipe()
    export: ExportRecipe = ExportRecipe()
    compress: CompressRecipe = CompressRecipe()
    gate: GateRecipe = GateRecipe()
    budget: BudgetRecipe = BudgetRecipe()
    benchmark: BenchmarkRecipe = BenchmarkRecipe()

    def part_gate(self, name: str) -> GateRecipe:
        """The gate's terms for one task, in its own metric."""
        part = self.tasks[name]
        equal = part.task.has_labels or part.task.per_token
        return task_gate(self.gate, part.task.metric(part.metric), part.metric, has_equal_answers=equal)

    @field_validator("tasks")
    @classmethod
    def _of_known_kinds(cls, tasks: dict[str, PartRecipe], values: ValidationInfo) -> dict[str, PartRecipe]:
        """Names that heads may have, kinds where none are said, and no options that a kind does not have."""
        if len(tasks) < 2:
            raise ValueError(f"there is {len(tasks)} task; expected two or more, or a recipe with `data` for one")
        bad = [name for name in tasks if not NAME.fullmatch(name) or name in _TAKEN]
        if bad:
            raise ValueError(
                f"{', '.join(map(repr, bad))[:200]} cannot be names of tasks; expected small letters, digits and _, "
                f"first a letter, at most 40, and none of {', '.join(_TAKEN)}"
            )
        base = values.data.get("base", "")
        settled = {name: _with_kind(name, part, base) for name, part in tasks.items()}
        for name, part in settled.items():
            _check_part(name, part)
        return settled

    @field_validator("tune")
    @classmethod
    def _learnt_by_all(cls, tune: SeveralTuneRecipe) -> SeveralTuneRecipe:
        """What vectors and pictures alone have, and what is put on the model of one task."""
        alone = {
            f"method {tune.method}": METHODS[tune.method].has_prompt or tune.method == "adalora",
            "l2_sp": bool(tune.l2_sp),
            "layer_decay": tune.layer_decay != 1,
            "freeze.gradual": tune.method == "freeze" and tune.freeze.gradual,
        }
        if refused := [name for name, is_given in alone.items() if is_given]:
            raise ValueError(f"{refused[0]} is given, which works on the model of one task; expected it left away")
        given = [
            *(["dimensions"] if tune.dimensions else []),
            *(["augment"] if tune.augment != AugmentRecipe() else []),
        ]
        if given:
            raise ValueError(f"{given[0]} is given, which texts with labels, numbers or entities do not use")
        return tune

    @field_validator("compress")
    @classmethod
    def _one_graph(cls, compress: CompressRecipe) -> CompressRecipe:
        if compress.variants:
            raise ValueError("variants are given; a bundle of several tasks holds one graph, expected none")
        return compress

    @field_validator("gate")
    @classmethod
    def _metric_by_task(cls, gate: GateRecipe) -> GateRecipe:
        if gate.metric:
            raise ValueError(f"metric is {gate.metric!r}; each task has its own, expected it in tasks.<name>.metric")
        return gate


def _with_kind(name: str, part: PartRecipe, base: str) -> PartRecipe:
    """The task with its kind, guessed where none is said."""
    if part.kind:
        return part
    section: dict[str, Any] = part.data.model_dump(mode="json", exclude_unset=True)
    evidence = Evidence.of({"base": base, "data": section})
    guesses: dict[str, Guess] = {
        kind: ALL_TASKS[task].load("recognise")(task, evidence) for kind, task in KINDS.items()
    }
    best = max(guesses, key=lambda kind: guesses[kind].strength)
    near = [kind for kind, guess in guesses.items() if guesses[best].strength - guess.strength < NEAR]
    if guesses[best].strength > 0 and len(near) > 1:
        raise ValueError(f"{name}: the kind cannot be guessed; expected kind: {' or '.join(near)}")
    return part.model_copy(update={"kind": best if guesses[best].strength > 0 else "label"})


def _check_part(name: str, part: PartRecipe) -> None:
    """Refuse what a task of this kind does not have."""
    task = part.task
    try:
        task.metric(part.metric)
    except RecipeError as error:
        problem = error.found.replace("gate.metric", "metric").rstrip(".")
        raise ValueError(f"{name}: {problem}; expected {error.expected}") from error
    for key in ("unlabeled", "out_of_scope", "remember", "negative", "prompts", "image", "text_pair"):
        if getattr(part.data, key) is not None:
            raise ValueError(f"{name}: data.{key} is given, which one of several tasks does not use; expected none")
    if part.data.augment.kinds:
        raise ValueError(f"{name}: data.augment is given, which one of several tasks does not use; expected none")
    if not task.one_label and part.answer.abstains:
        raise ValueError(
            f"{name}: answers of the kind {part.kind} are never unsure; expected no abstain_below, max_error"
        )
    if not task.per_token and part.answer.decode != "simple":
        raise ValueError(
            f"{name}: decode is {part.answer.decode}, but {part.kind} has no tags of tokens; expected simple"
        )
